//! What a device has in its store, and in memory.

use crate::state::{Content, DEVICES, Entry, Name, Position, Set};

/// What is known of a group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Group {
    /// Its name.
    pub id: Name,
    /// The epoch that its holder is in.
    pub epoch: Name,
    /// Who is in it.
    pub members: Set,
    /// Which of the conversation's groups it is.
    pub generation: u8,
    /// How many messages its holder has sealed in the epoch: the key that is used next.
    pub sealed: u8,
}

/// Something to say, until it is accepted, and behind that as long as it may be asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Outgoing {
    /// What.
    pub content: Content,
    /// Whether the relay has accepted it.
    pub accepted: bool,
    /// Whether its receiver has confirmed it; in conversations of two only.
    pub delivered: bool,
    /// The bytes, from then on the same (L4).
    pub sealed: Option<Entry>,
    /// Where the relay has put it.
    pub position: Option<Position>,
    /// Whether it was sent on this connection.
    pub sent: bool,
}

/// A commit that waits for its position (L3).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pending {
    /// It.
    pub entry: Entry,
    /// The roster that it replaces.
    pub before: Set,
    /// The key packages of those who are added.
    pub keys: [Option<Name>; DEVICES],
    /// Whether it was sent on this connection.
    pub sent: bool,
}

/// How far comparing with what the relay delivers again has come (L11).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Compared {
    /// Whether the relay was restored since.
    pub doubted: bool,
    /// Where it began.
    pub began: Position,
    /// The last position at which both are known to be the same.
    pub agreed: Option<Position>,
}

/// What an application was told that asks for a person.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Told {
    /// `OrderContradicted`: two see different logs.
    pub contradiction: bool,
    /// `NotDone`: this device is out, and it is not known by whom.
    pub out: bool,
    /// `StoreConflict`: two stores of one device take turns.
    pub conflict: bool,
}

/// A device's store, and what it has in memory. The names are those of `engine::conversation::Conversation`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Device {
    /// Whether its store has heard of the conversation.
    pub known: bool,
    /// The group that it has.
    pub group: Option<Group>,
    /// Whether it is out.
    pub removed: bool,
    /// Whether it cannot follow.
    pub behind: bool,
    /// Whether it has begun a conversation of two anew, and nobody has said anything in it.
    pub provisional: bool,
    /// Whether messages since the newest commit are gone.
    pub missed: bool,
    /// Whether the log was found to be another one.
    pub rewritten: bool,
    /// Whether the relay was restored since the log was attached.
    pub doubted: bool,
    /// Whether keys are to be replaced before anything is sealed.
    pub must_update: bool,
    /// The envelopes at what was read, or passed over: its length is the cursor, its hash the chain.
    pub view: Vec<Name>,
    /// The newest commit entry that was read.
    pub newest: Position,
    /// The commit that it joined by.
    pub joined_by: Option<Name>,
    /// Whether that was not read yet.
    pub seeks: bool,
    /// Whether it is the relay's word alone that its epoch is in force.
    pub unproven: bool,
    /// Keys are to be replaced (C11).
    pub wants_update: bool,
    /// The other account is to be removed.
    pub wants_removal: bool,
    /// A commit that waits.
    pub pending: Option<Pending>,
    /// Who asks to be added again.
    pub readds: [Option<Name>; DEVICES],
    /// The key package of the own request.
    pub own_readd: Option<Name>,
    /// The group that cannot be followed any more.
    pub lost: Option<Group>,
    /// What stands behind it was missed.
    pub missed_behind: Option<Position>,
    /// What was asked for lately.
    pub asked_for: Vec<(Position, Position)>,
    /// Which of the groups the last one was.
    pub generation: u8,
    /// What it has to say, and has said.
    pub outbox: Vec<Outgoing>,
    /// Texts that its person has seen.
    pub shown: Set,
    /// The key package that it publishes.
    pub published: Name,
    /// The relay's instance that it knows.
    pub instance: u8,
    /// What its application was told.
    pub told: Told,
    /// What a planted fault shows before it is durable.
    pub unsaved: Set,

    // What follows is gone with the process.
    /// Whether it is connected.
    pub connected: bool,
    /// The length of the log when it was attached.
    pub attached: Option<Position>,
    /// Nothing is sealed before that was read.
    pub wait_for: Position,
    /// The newest commit, as the relay said.
    pub told_newest: Position,
    /// The roster, as the relay said.
    pub told_roster: Option<Set>,
    /// Who has asked to be added again since the newest commit, as seen by who cannot read.
    pub asking: Set,
    /// How far it has looked on.
    pub looked_upto: Position,
    /// Whether this process has asked to be added again.
    pub has_asked: bool,
    /// From which position on the chain is remembered.
    pub chains_from: Position,
    /// What is compared.
    pub compared: Option<Compared>,
}
