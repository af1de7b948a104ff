//! Where everything begins, and new names.

use crate::configuration::Configuration;
use crate::state::{
    Body, Commit, Content, DEVICES, Device, Entry, Group, Log, Message, Name, Outgoing, Position, Set, Told, World,
};

/// The device that has begun the conversation.
const FOUNDER: u8 = 0;

impl World {
    /// All four devices have read the commit with which they are in it, and are connected.
    pub fn begin(configuration: &Configuration) -> World {
        let founding = Name { by: FOUNDER, number: 0 };
        let commit = Commit {
            from: None,
            group: founding,
            generation: 0,
            members: Set::ALL,
            added: Set::ALL.without(Set::one(usize::from(FOUNDER))),
            victims: Set::default(),
        };
        let first = Entry { name: founding, after: Some(0), body: Body::Commit(commit) };
        World {
            devices: std::array::from_fn(|device| Device::with_first(device, founding)),
            log: Log {
                entries: vec![first],
                edge: 0,
                roster: Set::ALL,
                acked: [1; DEVICES],
                until: [None; DEVICES],
                inboxes: Default::default(),
            },
            fork: None,
            answers: Default::default(),
            copy: None,
            put_back: Set::default(),
            rotated: Set::default(),
            instance: 0,
            spent: Vec::new(),
            said: Vec::new(),
            removal: false,
            left: configuration.budget,
            violation: None,
            calm: None,
        }
    }

    /// A name that nothing knows.
    pub fn fresh(&self, by: usize) -> Name {
        let mut used = 0_u64;
        self.each_name(&mut |name| {
            if usize::from(name.by) == by {
                used |= 1 << name.number.min(63);
            }
        });
        Name { by: by as u8, number: used.trailing_ones() as u8 }
    }

    fn each_name(&self, see: &mut impl FnMut(Name)) {
        let logs = std::iter::once(&self.log).chain(self.fork.as_ref().map(|fork| &fork.log));
        logs.for_each(|log| log.each_name(see));
        let copy = self.copy.as_ref().map(|(_, device)| &**device);
        self.devices.iter().chain(copy).for_each(|device| device.each_name(see));
        self.answers.iter().flatten().for_each(|(name, _)| see(*name));
        self.spent.iter().for_each(|(epoch, ..)| see(*epoch));
    }

    /// The log that a device is shown.
    pub fn log_of(&self, device: usize) -> &Log {
        match &self.fork {
            Some(fork) if fork.serves.has(device) => &fork.log,
            _ => &self.log,
        }
    }

    /// The same, to change it.
    pub fn log_of_mut(&mut self, device: usize) -> &mut Log {
        match &mut self.fork {
            Some(fork) if fork.serves.has(device) => &mut fork.log,
            _ => &mut self.log,
        }
    }
}

impl Log {
    fn each_name(&self, see: &mut impl FnMut(Name)) {
        self.entries.iter().for_each(|entry| entry.each_name(see));
        for welcome in self.inboxes.iter().flatten() {
            [welcome.commit, welcome.key, welcome.group].into_iter().for_each(&mut *see);
        }
    }

    /// Entries that it has.
    pub fn length(&self) -> Position {
        self.entries.len() as Position
    }

    /// Its newest commit entry, valid or not.
    pub fn newest_commit(&self) -> Position {
        let newest = self.entries.iter().rposition(|entry| matches!(entry.body, Body::Commit(_) | Body::Junk));
        newest.map_or(0, |index| index as Position + 1)
    }

    /// The entry at a position.
    pub fn at(&self, position: Position) -> Option<&Entry> {
        self.entries.get(usize::from(position).checked_sub(1)?)
    }

    /// The envelopes up to a position.
    pub fn envelopes_upto(&self, position: Position) -> Vec<Name> {
        self.entries[..usize::from(position)].iter().map(|entry| entry.name).collect()
    }
}

impl Entry {
    fn each_name(&self, see: &mut impl FnMut(Name)) {
        see(self.name);
        match &self.body {
            Body::Commit(Commit { from, group, .. }) => from.iter().chain([group]).for_each(|name| see(*name)),
            Body::Message(Message { epoch, .. }) => see(*epoch),
            Body::Readd { key, .. } => see(*key),
            Body::Junk => {}
        }
    }
}

impl Device {
    fn with_first(device: usize, founding: Name) -> Device {
        let group = Group { id: founding, epoch: founding, members: Set::ALL, generation: 0, sealed: 0 };
        let number = if founding.by as usize == device { 1 } else { 0 };
        let published = Name { by: device as u8, number };
        Device {
            known: true,
            group: Some(group),
            view: vec![founding],
            newest: 1,
            connected: true,
            attached: Some(1),
            told_newest: 1,
            told_roster: Some(Set::ALL),
            looked_upto: 0,
            chains_from: 1,
            ..Device::blank(published)
        }
    }

    /// A store that knows nothing but its own keys.
    pub fn blank(published: Name) -> Device {
        Device {
            known: false,
            group: None,
            removed: false,
            behind: false,
            provisional: false,
            missed: false,
            rewritten: false,
            doubted: false,
            must_update: false,
            view: Vec::new(),
            newest: 0,
            joined_by: None,
            seeks: false,
            unproven: false,
            wants_update: false,
            wants_removal: false,
            pending: None,
            readds: [None; DEVICES],
            own_readd: None,
            lost: None,
            missed_behind: None,
            asked_for: Vec::new(),
            generation: 0,
            outbox: Vec::new(),
            shown: Set::default(),
            published,
            instance: 0,
            told: Told::default(),
            unsaved: Set::default(),
            connected: false,
            attached: None,
            wait_for: 0,
            told_newest: 0,
            told_roster: None,
            asking: Set::default(),
            looked_upto: 0,
            has_asked: false,
            chains_from: 0,
            compared: None,
        }
    }

    /// The store of a device as it was in the beginning.
    pub fn as_it_began(device: usize) -> Device {
        let founding = Name { by: FOUNDER, number: 0 };
        let mut store = Device::with_first(device, founding);
        store.forget_process();
        store
    }

    /// What a process has in memory goes with it.
    pub fn forget_process(&mut self) {
        self.forget_connection();
        (self.told_newest, self.told_roster, self.looked_upto) = (0, None, 0);
        (self.asking, self.has_asked, self.compared) = (Set::default(), false, None);
        self.chains_from = self.cursor();
        self.unsaved = Set::default();
    }

    /// `Conversation::forget_connection`.
    pub fn forget_connection(&mut self) {
        (self.connected, self.attached, self.wait_for) = (false, None, 0);
        if let Some(pending) = &mut self.pending {
            pending.sent = false;
        }
        self.outbox.iter_mut().for_each(|outgoing| outgoing.sent = false);
    }

    fn each_name(&self, see: &mut impl FnMut(Name)) {
        self.view.iter().for_each(|name| see(*name));
        for group in self.group.iter().chain(&self.lost) {
            [group.id, group.epoch].into_iter().for_each(&mut *see);
        }
        if let Some(pending) = &self.pending {
            pending.entry.each_name(see);
            pending.keys.iter().flatten().for_each(|key| see(*key));
        }
        self.outbox.iter().filter_map(|outgoing| outgoing.sealed.as_ref()).for_each(|entry| entry.each_name(see));
        let keys = self.readds.iter().flatten().chain(&self.own_readd).chain(&self.joined_by);
        keys.chain([&self.published]).for_each(|name| see(*name));
    }

    /// Everything up to it was read.
    pub fn cursor(&self) -> Position {
        self.view.len() as Position
    }

    /// H at a position (L5).
    pub fn chain(&self, position: Position) -> u32 {
        chain(&self.view[..usize::from(position)])
    }

    /// Whether it knows the chain there (`Conversation::chains`).
    pub fn knows_chain(&self, position: Position) -> bool {
        position == self.cursor() || (self.chains_from..=self.cursor()).contains(&position)
    }

    /// Whether it is in the conversation, and can follow it.
    pub fn is_active(&self) -> bool {
        self.known && !self.removed && !self.behind && self.group.is_some()
    }

    /// `Conversation::is_caught_up`.
    pub fn is_caught_up(&self) -> bool {
        let Some(length) = self.attached else { return false };
        self.is_active() && !self.seeks && self.cursor() >= length.max(self.wait_for)
    }

    /// `Conversation::may_seal`.
    pub fn may_seal(&self) -> bool {
        self.is_caught_up() && self.pending.is_none() && !self.must_update
    }

    /// What it has to say of this content.
    pub fn outgoing(&self, content: Content) -> Option<&Outgoing> {
        self.outbox.iter().find(|outgoing| outgoing.content == content)
    }
}

/// FNV-1a over envelopes: in a world of a few names, equal only where they are.
pub fn chain(envelopes: &[Name]) -> u32 {
    let bytes = envelopes.iter().flat_map(|name| [name.by, name.number]);
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
