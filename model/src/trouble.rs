//! What goes wrong: networks, disks, a relay that lies or is put back, a member that breaks the rules.

use std::fmt;

use crate::action::Action;
use crate::configuration::Configuration;
use crate::state::{Body, DEVICES, Device, Entry, Fork, Position, Set, World, device_name};

/// One thing that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// A process ends; what was on its way is gone, answers with it.
    Restart(usize),
    /// The newest acknowledgement did not arrive, and the connection is cut.
    LoseAck(usize),
    /// A Welcome is taken, the process ends, and it comes again.
    RepeatWelcome(usize),
    /// The relay delivers the entry behind the next one.
    Skip(usize),
    /// Entries up to there are trimmed.
    Trim(Position),
    /// A store is put back to where it was in the beginning.
    PutBack(usize),
    /// A store is put back to before it knew the conversation.
    Blank(usize),
    /// A store is copied.
    Copy(usize),
    /// The other copy of the store is used.
    SwapCopies(usize),
    /// A member appends a commit entry that is invalid for all.
    Junk(usize),
    /// A member makes a commit that others cannot process.
    Poison(usize, Set),
    /// A backup is put back, of when the log had so many entries.
    Restore(Position),
    /// The same, and the relay says nothing of it.
    RestoreSilently(Position),
    /// The relay shows some devices another log from here on.
    Fork(Set),
    /// It shows all of them one again.
    EndFork,
}

impl World {
    /// What may go wrong now.
    pub fn troubles(&self, on: &Configuration, actions: &mut Vec<Action>) {
        let left = self.left;
        let mut push = |trouble| actions.push(Action::Trouble(trouble));
        let length = self.log.length();
        for device in on.troubled.iter() {
            let own = &self.devices[device];
            if left.restarts > 0 && own.connected {
                push(Trouble::Restart(device));
            }
            if left.lost_acks > 0 && own.connected && self.log_of(device).acked[device] > 1 {
                push(Trouble::LoseAck(device));
            }
            if left.lost_acks > 0 && own.connected && !self.log_of(device).inboxes[device].is_empty() {
                push(Trouble::RepeatWelcome(device));
            }
            if left.skips > 0 && self.can_read(device) && own.cursor() + 2 <= self.end_for(device) {
                push(Trouble::Skip(device));
            }
            if left.put_back > 0 {
                push(Trouble::PutBack(device));
            }
            if left.blank > 0 {
                push(Trouble::Blank(device));
            }
            if left.copies > 0 && self.copy.is_none() {
                push(Trouble::Copy(device));
            }
            if left.copies > 0 && self.copy.as_ref().is_some_and(|(of, _)| usize::from(*of) == device) {
                push(Trouble::SwapCopies(device));
            }
            let room = self.log_of(device).entries.len() < on.log_max;
            if left.junk > 0 && room && own.is_caught_up() && own.connected {
                push(Trouble::Junk(device));
            }
            if left.poison > 0 && own.connected && own.is_caught_up() && own.pending.is_none() {
                let others = Set::ALL.without(Set::one(device));
                others.iter().for_each(|victim| push(Trouble::Poison(device, Set::one(victim))));
                push(Trouble::Poison(device, others));
            }
        }
        if left.trims > 0 {
            (self.log.edge + 1..=length).for_each(|edge| push(Trouble::Trim(edge)));
        }
        if left.restores > 0 && self.fork.is_none() {
            (1..length).for_each(|kept| push(Trouble::Restore(kept)));
        }
        if left.silent_restores > 0 && self.fork.is_none() {
            (1..length).for_each(|kept| push(Trouble::RestoreSilently(kept)));
        }
        if left.forks > 0 && self.fork.is_none() {
            let who = [0b1000, 0b1100, 0b1010, 0b0010, 0b0001, 0b0101];
            who.into_iter().for_each(|devices| push(Trouble::Fork(Set(devices))));
        }
        if self.fork.is_some() {
            push(Trouble::EndFork);
        }
    }

    /// It goes wrong.
    pub fn trouble(&mut self, on: &Configuration, trouble: Trouble) {
        match trouble {
            Trouble::Restart(device) => {
                self.left.restarts -= 1;
                self.end_process(device);
            }
            Trouble::LoseAck(device) => {
                self.left.lost_acks -= 1;
                self.log_of_mut(device).acked[device] -= 1;
                self.end_process(device);
            }
            Trouble::RepeatWelcome(device) => {
                self.left.lost_acks -= 1;
                let welcome = self.log_of(device).inboxes[device][0].clone();
                self.join(on, device, &welcome);
                self.end_process(device);
            }
            Trouble::Skip(device) => {
                self.left.skips -= 1;
                self.read(on, device, true);
            }
            Trouble::Trim(edge) => {
                self.left.trims -= 1;
                self.log.edge = edge;
            }
            Trouble::PutBack(device) => {
                self.left.put_back -= 1;
                self.use_store(device, Device::as_it_began(device));
            }
            Trouble::Blank(device) => {
                self.left.blank -= 1;
                let published = Device::as_it_began(device).published;
                self.use_store(device, Device::blank(published));
            }
            Trouble::Copy(device) => {
                self.left.copies -= 1;
                let mut copy = self.devices[device].clone();
                copy.forget_process();
                self.copy = Some((device as u8, Box::new(copy)));
            }
            Trouble::SwapCopies(device) => {
                self.left.copies -= 1;
                if let Some((_, copy)) = self.copy.take() {
                    let mut other = self.devices[device].clone();
                    other.forget_process();
                    self.copy = Some((device as u8, Box::new(other)));
                    self.use_store(device, *copy);
                }
            }
            Trouble::Junk(device) => {
                self.left.junk -= 1;
                let after = Some(self.log_of(device).newest_commit());
                let entry = Entry { name: self.fresh(device), after, body: Body::Junk };
                self.log_of_mut(device).entries.push(entry);
            }
            Trouble::Poison(device, victims) => {
                self.left.poison -= 1;
                self.commit(device, true, victims);
            }
            Trouble::Restore(kept) => {
                self.left.restores -= 1;
                self.instance += 1;
                self.put_relay_back(kept);
            }
            Trouble::RestoreSilently(kept) => {
                self.left.silent_restores -= 1;
                self.put_relay_back(kept);
            }
            Trouble::Fork(serves) => {
                self.left.forks -= 1;
                self.fork = Some(Box::new(Fork { log: self.log.clone(), serves }));
            }
            Trouble::EndFork => self.end_fork(),
        }
    }

    /// The relay shows all the same log again; who was shown another one is connected anew.
    pub fn end_fork(&mut self) {
        if let Some(fork) = self.fork.take() {
            fork.serves.iter().for_each(|device| self.cut(device));
        }
    }

    fn end_process(&mut self, device: usize) {
        self.cut(device);
        self.devices[device].forget_process();
    }

    fn put_relay_back(&mut self, kept: Position) {
        self.log.put_back(kept);
        (0..DEVICES).for_each(|device| self.cut(device));
    }

    fn use_store(&mut self, device: usize, store: Device) {
        self.cut(device);
        self.devices[device] = store;
        self.put_back.insert(device);
    }
}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |device: &usize| device_name(*device);
        match self {
            Trouble::Restart(device) => write!(f, "{}'s process ends", name(device)),
            Trouble::LoseAck(device) => write!(f, "{}'s acknowledgement is lost", name(device)),
            Trouble::RepeatWelcome(device) => write!(f, "{} takes a Welcome, and ends; it comes again", name(device)),
            Trouble::Skip(device) => write!(f, "an entry for {} is passed over", name(device)),
            Trouble::Trim(edge) => write!(f, "entries up to {edge} are trimmed"),
            Trouble::PutBack(device) => write!(f, "{}'s store is put back to the beginning", name(device)),
            Trouble::Blank(device) => write!(f, "{}'s store is put back to before", name(device)),
            Trouble::Copy(device) => write!(f, "{}'s store is copied", name(device)),
            Trouble::SwapCopies(device) => write!(f, "{}'s other copy is used", name(device)),
            Trouble::Junk(device) => write!(f, "{} appends an invalid commit", name(device)),
            Trouble::Poison(device, victims) => {
                let victims: Vec<_> = victims.iter().map(device_name).collect();
                write!(f, "{} makes a commit that {victims:?} cannot process", name(device))
            }
            Trouble::Restore(kept) => write!(f, "the relay is put back to {kept} entries"),
            Trouble::RestoreSilently(kept) => write!(f, "the relay is put back to {kept} entries, and says nothing"),
            Trouble::Fork(serves) => {
                let serves: Vec<_> = serves.iter().map(device_name).collect();
                write!(f, "the relay shows {serves:?} another log")
            }
            Trouble::EndFork => write!(f, "the relay shows one log again"),
        }
    }
}
