//! What a store is asked, and what it answers.

use sealwire_wire::entry::Entry;
use sealwire_wire::{
    BlobHash, Chain, ConversationId, DeviceId, EnvelopeId, InboxAddress, LogId, Position, RosterHash, Time,
};

/// One change. Applied wholly or not at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Puts an entry into a log, once per envelope id.
    Append(Append),
    /// Moves a reader's cursor forward; never back, and never past the log's end.
    MoveCursor {
        /// Which log.
        log: LogId,
        /// Whose cursor.
        reader: InboxAddress,
        /// Everything at or before it was read.
        upto: Position,
    },
    /// Makes a conversation: its row, first entries, roster and outbox of Welcomes (C8).
    CreateConversation(Conversation),
    /// Moves Welcomes from the outbox to their inboxes, at most so many. Idempotent by envelope id.
    FillInboxes {
        /// How many at the most.
        most: usize,
    },
    /// Changes records if all of them are at the versions expected, and opens inboxes with them.
    Swap {
        /// The records.
        records: Vec<RecordSwap>,
        /// Inboxes that exist from now on.
        inboxes: Vec<InboxAddress>,
    },
    /// Stores a piece of a blob. Pieces come in order; a repetition of held bytes is harmless (E7).
    PutBlob {
        /// The SHA-256 of the whole; checked when the last piece has come.
        hash: BlobHash,
        /// The size of the whole.
        size: u64,
        /// Where this piece begins.
        offset: u64,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// Puts key packages of a device where [`ClaimKeyPackage`](Operation::ClaimKeyPackage) finds them (K1), wholly or,
    /// where there would be too many, not at all. One that is held, or was handed out lately, is not put again: a device
    /// that did not hear the answer repeats.
    PutKeyPackages {
        /// Whose.
        device: DeviceId,
        /// Whether those before go, the last-resort one too.
        replace: bool,
        /// To be handed out once each, in this order.
        one_time: Vec<Vec<u8>>,
        /// To be handed out when no other is left, replacing the one before; `None`: that one stays.
        last_resort: Option<Vec<u8>>,
    },
    /// Hands out a key package of a device: a one-time one never again, to nobody, whatever happens.
    ClaimKeyPackage {
        /// Whose.
        device: DeviceId,
    },
    /// Removes what its time or all its readers have passed (L9), and forgets envelope ids after 30 days (E4); at most so
    /// many in one go. Where as many went, there may be more.
    Sweep {
        /// How many at the most, of entries and of ids that were remembered long enough together.
        most: usize,
    },
}

/// An entry for a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Append {
    /// Which log.
    pub log: LogId,
    /// The inbox of the device that writes. A conversation log takes entries of its roster only (C6); a full inbox drops
    /// those of whoever has most there (L9), its Welcomes included.
    pub writer: InboxAddress,
    /// The entry, read.
    pub entry: Entry,
    /// A commit's change of the roster, or its restoration (C6).
    pub roster: Option<RosterChange>,
}

/// A change of who reads a conversation log. In the transaction of its entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RosterChange {
    /// The hash of the roster that it replaces.
    pub before: RosterHash,
    /// The new roster, sorted, without doubles.
    pub inboxes: Vec<InboxAddress>,
    /// For those who join.
    pub welcomes: Vec<Welcome>,
}

/// A Welcome on its way to an inbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Whose.
    pub inbox: InboxAddress,
    /// The entry, of the kind Welcome.
    pub entry: Entry,
}

/// A conversation that begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// The inbox of the device that creates it.
    pub writer: InboxAddress,
    /// Its first entries, in order.
    pub entries: Vec<Entry>,
    /// Its first roster, sorted, without doubles.
    pub roster: Vec<InboxAddress>,
    /// For those who join.
    pub welcomes: Vec<Welcome>,
}

/// A record's new value, if it is at the version expected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordSwap {
    /// Which record.
    pub key: RecordKey,
    /// The version that it has to have; `None`: there has to be none.
    pub expected: Option<u64>,
    /// Its new value; `None` removes it.
    pub value: Option<Vec<u8>>,
}

/// What a record is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// By account id: its log, its name, its devices.
    Account = 1,
    /// By skeleton of a handle: the account.
    Handle = 2,
    /// By device hint: the account.
    Device = 3,
    /// By device hint: its incarnations.
    LogIn = 4,
    /// By inbox: the device.
    Inbox = 5,
    /// By presence token: the account.
    Presence = 6,
    /// By the hash of an invite code: how often it may still be used.
    Invite = 7,
    /// The relay's own: its key.
    Relay = 8,
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [RecordKind; 8] = [
        RecordKind::Account,
        RecordKind::Handle,
        RecordKind::Device,
        RecordKind::LogIn,
        RecordKind::Inbox,
        RecordKind::Presence,
        RecordKind::Invite,
        RecordKind::Relay,
    ];
}

/// The name of a record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordKey {
    /// What it is about.
    pub kind: RecordKind,
    /// Which one.
    pub key: Vec<u8>,
}

/// A record's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Changes with every swap, and never comes back.
    pub version: u64,
    /// The value.
    pub value: Vec<u8>,
}

/// What became of an operation, in the order of the operations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The entry is in the log. A repetition gets the position of the first time.
    Appended {
        /// Where it stands.
        position: Position,
        /// Whether it was there before.
        repeated: bool,
    },
    /// The cursor is there, or was further.
    Moved,
    /// The conversation exists from now on.
    Created,
    /// These inboxes got Welcomes.
    Filled(Vec<InboxAddress>),
    /// The records have their new values.
    Swapped,
    /// So much of the blob is held.
    Stored {
        /// Bytes from the beginning.
        held: u64,
        /// Of so many.
        size: u64,
    },
    /// The device's key packages are these from now on.
    KeyPackagesPut,
    /// A key package of the device; `None`: it has none.
    KeyPackageClaimed(Option<KeyPackage>),
    /// So many entries and remembered ids went.
    Swept {
        /// How many, together.
        entries: usize,
    },
    /// Nothing changed, and why.
    Refused(Refusal),
}

/// Why an operation changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// There is no such log.
    UnknownLog,
    /// The entry's kind does not belong into this log.
    WrongKind,
    /// The entry names another commit than the newest (L1).
    Stale {
        /// The newest one.
        newest_commit: Position,
    },
    /// The envelope id was used for other bytes (E4).
    EnvelopeReused,
    /// The writer is not in the roster, or has left it (C6).
    NotInRoster,
    /// The roster is not the one that the change replaces (C6).
    RosterMoved,
    /// The conversation exists (C8).
    ConversationExists,
    /// A record is at another version.
    VersionMoved {
        /// Which one of the swap, counted from 0.
        index: usize,
    },
    /// The inbox exists.
    InboxExists,
    /// The piece does not follow what is held, or the whole does not fit its hash or size (E7).
    BlobMismatch {
        /// Bytes that are held from the beginning; the next piece begins there.
        held: u64,
    },
    /// There would be more one-time key packages than a device may have (K1).
    TooManyKeyPackages,
}

/// A part of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The entries, in the order of their positions.
    pub entries: Vec<Delivered>,
    /// Whether the entry right after the asked position is gone (L9): then the last one of that gap, and the chain there
    /// (none in an inbox). The first entry of the page, if any, comes right after it.
    ///
    /// A log may have several gaps, because messages go before the commits between them. A page never spans one, so
    /// whoever reads on from the last position that it has got is told of each.
    pub trimmed: Option<(Position, Option<Chain>)>,
}

/// A stored entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// Where it stands.
    pub position: Position,
    /// When it was accepted.
    pub at: Time,
    /// Its bytes.
    pub entry: Vec<u8>,
}

/// The newest state of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The position of the last entry, gone ones included.
    pub length: Position,
    /// The position of the newest commit; 0 before the first, and in inboxes.
    pub newest_commit: Position,
    /// The chain at the last entry; `None` in inboxes, which have none (L5).
    pub chain: Option<Chain>,
    /// Who reads it: the roster, sorted; of an inbox, itself.
    pub readers: Vec<InboxAddress>,
}

/// Who reads a log, how far, and up to where it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reader {
    /// Everything at or before it was read.
    pub cursor: Position,
    /// The last entry that it may read, where a roster dropped it: the one that did (C6). `None`: it may read all.
    pub until: Option<Position>,
    /// The chain at its cursor; `None` in inboxes, and where the entry behind the cursor is gone (L5).
    pub chain: Option<Chain>,
}

/// A piece of a blob.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlobPart {
    /// The size of the whole.
    pub size: u64,
    /// Bytes that are held from the beginning.
    pub held: u64,
    /// The piece; empty until the blob is whole.
    pub bytes: Vec<u8>,
}

/// A key package that is handed out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPackage {
    /// As the device published it.
    pub bytes: Vec<u8>,
    /// Whether it is the last-resort one, which is handed out again.
    pub is_last_resort: bool,
}

impl Append {
    /// An entry for an inbox.
    pub fn to_inbox(inbox: InboxAddress, writer: InboxAddress, entry: Entry) -> Append {
        Append { log: LogId::Inbox(inbox), writer, entry, roster: None }
    }

    /// For idempotency.
    pub fn envelope(&self) -> EnvelopeId {
        self.entry.envelope
    }
}
