//! What a store writes down, row by row, and what it gives back when it is opened again.

use sealwire_wire::entry::EntryKind;
use sealwire_wire::{Chain, DeviceId, EnvelopeId, InboxAddress, LogId, Position, RosterHash, Time};

use crate::{Record, RecordKey, Welcome};

/// The first half of the SHA-256 of an entry's bytes, or of a key package's. Tells a repetition from another entry under
/// the same envelope id (E4); whoever finds two entries with one digest fools nobody but itself.
pub type Digest = [u8; 16];

/// One write. Those of an operation become durable together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// A new row for an entry.
    PutEntry {
        /// All but its bytes.
        entry: EntryRow,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// The entry's bytes go; the rest of the row stays, so that its envelope id is remembered.
    EmptyEntry {
        /// The row.
        row: u64,
    },
    /// The entry's row goes.
    RemoveEntry {
        /// The row.
        row: u64,
    },
    /// The log's row is this from now on.
    PutLog(LogRow),
    /// A reader's row is this from now on.
    PutReader {
        /// Which log.
        log: LogId,
        /// Who.
        inbox: InboxAddress,
        /// Its state.
        reader: ReaderRow,
    },
    /// A reader's row goes.
    RemoveReader {
        /// Which log.
        log: LogId,
        /// Who.
        inbox: InboxAddress,
    },
    /// A Welcome waits in the outbox (C8).
    PutWelcome(WelcomeRow),
    /// A Welcome has left the outbox.
    RemoveWelcome {
        /// Its place in the outbox.
        number: u64,
    },
    /// A record is this from now on.
    PutRecord {
        /// Which.
        key: RecordKey,
        /// The record.
        record: Record,
    },
    /// A record goes.
    RemoveRecord {
        /// Which.
        key: RecordKey,
    },
    /// An inbox exists from now on.
    OpenInbox {
        /// Its address.
        inbox: InboxAddress,
    },
    /// The newest version that a record was given. Written with every swap, so it also numbers them.
    CountVersions {
        /// The version.
        newest: u64,
    },
    /// A key package is there from now on, instead of one with the same number.
    PutKeyPackage {
        /// Whose.
        device: DeviceId,
        /// Its number.
        number: u64,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A key package goes.
    RemoveKeyPackage {
        /// Whose.
        device: DeviceId,
        /// Its number.
        number: u64,
    },
    /// A key package was handed out, and is remembered.
    PutClaimed {
        /// Whose.
        device: DeviceId,
        /// Its number.
        number: u64,
        /// Of its bytes.
        digest: Digest,
    },
    /// A key package that was handed out is remembered no longer.
    RemoveClaimed {
        /// Whose.
        device: DeviceId,
        /// Its number.
        number: u64,
    },
}

/// One row, on its way back into the index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Row {
    /// An inbox that exists.
    Inbox(InboxAddress),
    /// The row of a log.
    Log(LogRow),
    /// The row of a reader.
    Reader {
        /// Which log.
        log: LogId,
        /// Who.
        inbox: InboxAddress,
        /// Its state.
        reader: ReaderRow,
    },
    /// The row of an entry.
    Entry {
        /// All but its bytes.
        entry: EntryRow,
        /// Whether its bytes are gone.
        is_gone: bool,
    },
    /// A Welcome in the outbox.
    Welcome(WelcomeRow),
    /// The newest version that a record was given.
    Versions {
        /// The version.
        newest: u64,
    },
}

/// The row of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryRow {
    /// Its number among all entries of the store.
    pub row: u64,
    /// Which log.
    pub log: LogId,
    /// Where it stands there.
    pub position: Position,
    /// Its envelope id.
    pub envelope: EnvelopeId,
    /// When it was accepted.
    pub at: Time,
    /// What it is.
    pub kind: EntryKind,
    /// Of its bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u32,
    /// The inbox of the device that wrote it; `None` in rows that were written before this was kept, and where nobody
    /// asks: in the first entries of a conversation.
    pub writer: Option<InboxAddress>,
    /// The chain before and after it; `None` in inboxes (L5).
    pub chain: Option<(Chain, Chain)>,
}

/// The row of a log. It may be older than the log's newest entries, whose rows carry it forward; it is written when
/// the log begins and when entries go, so that what they told is not lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogRow {
    /// Which log.
    pub log: LogId,
    /// The position of its last entry.
    pub length: Position,
    /// The position of its newest commit.
    pub newest_commit: Position,
    /// The chain at its last entry; `None` in inboxes.
    pub chain: Option<Chain>,
}

/// The row of a Welcome in the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WelcomeRow {
    /// Its place in the outbox.
    pub number: u64,
    /// The Welcome.
    pub welcome: Welcome,
    /// The inbox of the device that wrote it; `None` in rows that were written before this was kept.
    pub writer: Option<InboxAddress>,
}

/// The row of a reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReaderRow {
    /// Everything at or before it was read.
    pub cursor: Position,
    /// Set where it is in the roster no longer.
    pub dropped: Option<Dropped>,
}

/// How a reader left the roster (C6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// The entry that dropped it, which is the last that it may read.
    pub by: Position,
    /// When.
    pub at: Time,
    /// The roster that it was in, which it may restore for 72 hours.
    pub roster: RosterHash,
    /// Whether it has used that.
    pub restored: bool,
}
