//! What there is: four devices, one log, what is on its way between them. Cryptography is names: an epoch is the name of
//! the commit that made it, and whoever has the name can open what was sealed in it.

use std::fmt;

use crate::configuration::Budget;
pub use crate::device::{Compared, Device, Group, Outgoing, Pending, Told};

/// Devices 0 and 1 are of the first account, 2 and 3 of the second.
pub const DEVICES: usize = 4;

/// A position in the log, from 1. The first entry is the commit with which all four are in it.
pub type Position = u8;

/// Which text of a person; they are counted.
pub type Text = u8;

/// What is random in the engine and equal to nothing else: an envelope id, an epoch, a group, a key package.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The device that made it.
    pub by: u8,
    /// Distinct among all names of that device that anything still knows.
    pub number: u8,
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", device_name(usize::from(self.by)), self.number)
    }
}

/// As traces name a device: `a1`, `a2`, `b1`, `b2`.
pub fn device_name(device: usize) -> &'static str {
    ["a1", "a2", "b1", "b2"][device]
}

/// Devices, or texts: a bit for each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Set(pub u8);

impl Set {
    /// All four devices.
    pub const ALL: Set = Set(0b1111);

    /// Those of one account, 0 or 1.
    pub fn of_account(account: usize) -> Set {
        Set(0b11 << (2 * account))
    }

    /// One element.
    pub fn one(element: usize) -> Set {
        Set(1 << element)
    }

    /// Whether it is in it.
    pub fn has(self, element: usize) -> bool {
        self.0 & (1 << element) != 0
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in either.
    pub fn and(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    /// What is in it, and not in the other.
    pub fn without(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }

    /// What is in both.
    pub fn also_in(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }

    /// Puts an element in.
    pub fn insert(&mut self, element: usize) {
        self.0 |= 1 << element;
    }

    /// Takes an element out.
    pub fn remove(&mut self, element: usize) {
        self.0 &= !(1 << element);
    }

    /// Its elements, the lowest first.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..8).filter(move |element| self.has(*element))
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Which account a device is of.
pub fn account(device: usize) -> usize {
    device / 2
}

/// An entry of the log (spec/logs.md).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Its envelope id. Of a commit, the epoch that it makes too.
    pub name: Name,
    /// The newest commit entry that its sender had read; repairs name none.
    pub after: Option<Position>,
    /// What it is.
    pub body: Body,
}

/// What an entry holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Body {
    /// A commit, sealed in an epoch.
    Commit(Commit),
    /// A message.
    Message(Message),
    /// A device asks to be added again, with this key package.
    Readd {
        /// Which device.
        device: u8,
        /// The key package.
        key: Name,
    },
    /// A commit entry that is invalid for everybody (C2).
    Junk,
}

/// What a commit does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Commit {
    /// The epoch that it was sealed in; none where it begins a group.
    pub from: Option<Name>,
    /// The group: the name of the commit that has begun it.
    pub group: Name,
    /// Which of the conversation's groups it is.
    pub generation: u8,
    /// Who is a member after it.
    pub members: Set,
    /// Who has a new leaf by it, and gets a Welcome.
    pub added: Set,
    /// Who cannot process it, though it is valid (C4).
    pub victims: Set,
}

/// A message as the log has it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    /// The epoch that it was sealed in.
    pub epoch: Name,
    /// Who could open it then.
    pub readers: Set,
    /// What it says.
    pub content: Content,
    /// The newest entry that its sender had read, and the chain there (L5). Only where there are forks: it costs states.
    pub place: Option<(Position, u32)>,
}

/// What a message says. Equal content has one content id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Content {
    /// A person's text.
    Text(Text),
    /// What stood there was missed, and is asked for (C10).
    Missed {
        /// The first position.
        first: Position,
        /// The last one.
        last: Position,
    },
}

/// A Welcome in an inbox.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Welcome {
    /// The commit that adds its reader.
    pub commit: Name,
    /// The key package that it is sealed to.
    pub key: Name,
    /// As in the commit.
    pub group: Name,
    /// As in the commit.
    pub generation: u8,
    /// As in the commit.
    pub members: Set,
}

/// A log as the relay holds it, with what belongs to it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Log {
    /// The first one is at position 1.
    pub entries: Vec<Entry>,
    /// Entries up to there are gone (L9).
    pub edge: Position,
    /// Whose inboxes read it.
    pub roster: Set,
    /// How far each device has acknowledged.
    pub acked: [Position; DEVICES],
    /// The entry that dropped a device, where one did (C6).
    pub until: [Option<Position>; DEVICES],
    /// Welcomes that were not read.
    pub inboxes: [Vec<Welcome>; DEVICES],
}

/// What the relay answers an append.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// Durable, and there.
    Accepted(Position),
    /// Another commit is the newest.
    Stale(Position),
    /// Not in the roster.
    NotAllowed,
    /// The roster is another one.
    RosterMoved,
}

/// A second log that some devices are shown.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Fork {
    /// It.
    pub log: Log,
    /// To whom.
    pub serves: Set,
}

/// What must never be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Violation {
    /// A text was shown to a person twice.
    ShownTwice,
    /// Somebody opened what was not sealed for them.
    OpenedByStranger,
    /// A ratchet key has sealed two messages.
    KeyUsedTwice,
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// The devices.
    pub devices: [Device; DEVICES],
    /// The log.
    pub log: Log,
    /// Another log, while the relay equivocates.
    pub fork: Option<Box<Fork>>,
    /// Answers on their way.
    pub answers: [Vec<(Name, Answer)>; DEVICES],
    /// A copy of a device's store.
    pub copy: Option<(u8, Box<Device>)>,
    /// Devices whose store was put back, and who have not noticed.
    pub put_back: Set,
    /// Devices whose store was put back before, within a day.
    pub rotated: Set,
    /// The relay's instance.
    pub instance: u8,
    /// Keys that were used, where a store may be put back: epoch, device, how many.
    pub spent: Vec<(Name, u8, u8)>,
    /// Texts that a person has written, and the device where.
    pub said: Vec<u8>,
    /// Whether a person has removed the second account.
    pub removal: bool,
    /// What may still happen.
    pub left: Budget,
    /// What must not have happened.
    pub violation: Option<Violation>,
    /// Once nothing happens any more: who was connected anew since.
    pub calm: Option<Set>,
}
