//! What must hold in every state, and what a state is that needs no mending.

use crate::state::{Body, Content, DEVICES, Device, Log, Set, Text, World, account, device_name};

/// What must never be, in any state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Safety {
    /// Two devices at one position of one history hold one epoch.
    OneEpoch,
    /// No message stands behind the commit that ended its epoch (L2).
    InForce,
    /// A text is shown once (L8).
    ShownOnce,
    /// Only members of an epoch open what was sealed in it.
    MembersOnly,
    /// A ratchet key seals one message (N3).
    KeysOnce,
}

/// All of them, with what they say.
pub const SAFETY: [(Safety, &str); 5] = [
    (Safety::OneEpoch, "two devices at one position of one history hold one epoch"),
    (Safety::InForce, "no message stands behind the commit that ended its epoch"),
    (Safety::ShownOnce, "a text is shown once"),
    (Safety::MembersOnly, "only members of an epoch open what was sealed in it"),
    (Safety::KeysOnce, "a ratchet key seals one message"),
];

impl Safety {
    /// Whether it holds.
    pub fn holds(self, world: &World) -> bool {
        use crate::state::Violation;
        match self {
            Safety::OneEpoch => one_epoch(world),
            Safety::InForce => in_force(&world.log) && world.fork.as_ref().is_none_or(|fork| in_force(&fork.log)),
            Safety::ShownOnce => world.violation != Some(Violation::ShownTwice),
            Safety::MembersOnly => world.violation != Some(Violation::OpenedByStranger),
            Safety::KeysOnce => world.violation != Some(Violation::KeyUsedTwice),
        }
    }
}

/// The relay's word alone, or a gap, makes no claim: such a device says so, and the next entry shows it.
fn one_epoch(world: &World) -> bool {
    let stands = |device: &&Device| device.is_active() && !device.seeks && !device.unproven && !device.missed;
    let standing: Vec<_> = world.devices.iter().filter(stands).collect();
    let epoch = |device: &Device| device.group.map(|group| group.epoch);
    standing.iter().enumerate().all(|(index, one)| {
        standing[index + 1..].iter().all(|other| one.view != other.view || epoch(one) == epoch(other))
    })
}

fn in_force(log: &Log) -> bool {
    let mut ended = Vec::new();
    let mut newest = 0;
    for (index, entry) in log.entries.iter().enumerate() {
        match &entry.body {
            Body::Commit(commit) => {
                if entry.after == Some(newest) {
                    ended.extend(commit.from);
                }
                newest = index as u8 + 1;
            }
            Body::Junk => newest = index as u8 + 1,
            Body::Message(message) if ended.contains(&message.epoch) => return false,
            Body::Message(_) | Body::Readd { .. } => {}
        }
    }
    true
}

/// Why a state needs mending.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Unwell {
    /// A device that should be in it is not, or is in another epoch, or has not read all.
    Apart(&'static str),
    /// A device has something to say or to commit that does not go.
    Waits(&'static str),
    /// A text that was accepted was not shown there.
    Unseen(&'static str),
    /// A text is gone that nobody was told of.
    Gone,
}

/// What is missing, and why that is no wonder: its author cannot say it again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Excused {
    /// The store that knew it was put back, and the log does not have it.
    pub author_lost_it: bool,
    /// Its author was removed.
    pub author_removed: bool,
}

impl World {
    /// Whether all who are in it are together, have said what they had to say, and have read what was said.
    pub fn health(&self) -> Result<Excused, Unwell> {
        let removed = if self.removal { Set::of_account(1) } else { Set::default() };
        let members = Set::ALL.without(removed);
        let mut epochs = members.iter().map(|device| self.devices[device].group.map(|group| group.epoch));
        let first = epochs.next().flatten();
        for device in 0..DEVICES {
            let own = &self.devices[device];
            let name = device_name(device);
            if removed.has(device) {
                if own.is_active() || own.behind {
                    return Err(Unwell::Apart(name));
                }
                continue;
            }
            let is_there = own.is_active() && own.is_caught_up() && own.cursor() == self.log.length();
            let group = own.group.filter(|group| group.members == members && Some(group.epoch) == first);
            if !is_there || group.is_none() {
                return Err(Unwell::Apart(name));
            }
            let has_said_all = own.outbox.iter().all(|outgoing| outgoing.accepted);
            if !own.may_seal() || !has_said_all || own.wants_update || own.wants_removal {
                return Err(Unwell::Waits(name));
            }
        }
        let mut excused = Excused::default();
        for (text, author) in self.said.iter().enumerate() {
            self.is_seen(text as Text, usize::from(*author), members, &mut excused)?;
        }
        Ok(excused)
    }

    fn is_seen(&self, text: Text, author: usize, members: Set, excused: &mut Excused) -> Result<(), Unwell> {
        let has_lost = self.put_back.and(self.rotated).has(author);
        let says = self.devices[author].outgoing(Content::Text(text));
        if says.is_none() && !has_lost && members.has(author) {
            return Err(Unwell::Gone);
        }
        // What lies in the log is there to be read, whoever knows of it.
        let lies_there = self.log.entries.iter().any(|entry| match &entry.body {
            Body::Message(message) => message.content == Content::Text(text),
            _ => false,
        });
        for device in members.without(Set::one(author)).iter() {
            if self.devices[device].shown.has(usize::from(text)) {
                continue;
            }
            match (says.is_none() && has_lost && !lies_there, members.has(author)) {
                (true, _) => excused.author_lost_it = true,
                (_, false) => excused.author_removed = true,
                (false, true) => return Err(Unwell::Unseen(device_name(device))),
            }
        }
        Ok(())
    }

    /// Whether an application was told of something that a person has to look at.
    pub fn is_told_of_contradiction(&self) -> bool {
        self.devices.iter().any(|device| device.told.contradiction)
    }

    /// Whether a device was told that it is out, though nobody has removed its account.
    pub fn is_told_to_be_out(&self) -> bool {
        let removed = if self.removal { Some(1) } else { None };
        let is_out = |(device, own): (usize, &Device)| own.told.out && removed != Some(account(device));
        self.devices.iter().enumerate().any(is_out)
    }
}
