//! The contract of a relay's store: ordered logs, cursors of their readers, records under compare-and-swap, blobs, and
//! key packages that are handed out once. Nothing else is kept, and nothing here is secret: bodies are sealed by clients.
//!
//! A store applies [`Operation`]s in order, and answers when their effects are durable. What every store has to do is
//! in [`mod@conformance`], which each runs as its tests; what every store thinks is in [`logs`], which each shares.
#![forbid(unsafe_code)]

pub mod blob;
pub mod conformance;
mod key_packages;
pub mod logs;
mod memory;
mod operation;

pub use memory::{MemoryStore, Snapshot};
pub use operation::{
    Append, BlobPart, Conversation, Delivered, Head, KeyPackage, Operation, Outcome, Page, Reader, Record, RecordKey,
    RecordKind, RecordSwap, Refusal, RosterChange, Welcome,
};

use sealwire_wire::{BlobHash, ConversationId, DeviceId, InboxAddress, InstanceId, LogId, Position, Time};

/// A relay's store. Calls block until done; a relay keeps one thread that commits, and reads beside it.
pub trait Store: Send + Sync + 'static {
    /// The id of this store, random, made with it. A store that was restored from a backup gets another (L11).
    fn instance(&self) -> InstanceId;

    /// Applies operations in order, as one group, and returns when all of them are durable: one outcome each.
    ///
    /// # Errors
    /// [`StoreError`]: nothing of the group is applied. Nothing of it appears later either, but for one case: where the
    /// disk goes on failing until the process ends, the next one may find the whole group applied. So whoever was refused
    /// asks again with the same ids, as after a crash.
    fn commit(&self, now: Time, operations: &[Operation]) -> Result<Vec<Outcome>, StoreError>;

    /// Reads entries of a log behind a position, in order: at most `entries` of them and about `bytes` bytes, but at
    /// least one where there is one. The entries of a page follow each other without a gap; where some were trimmed, the
    /// page before ends there, and the next begins with [`Page::trimmed`]. An unknown log reads as an empty one.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read(&self, log: LogId, after: Position, entries: usize, bytes: usize) -> Result<Page, StoreError>;

    /// The newest state of a log; `None` where there is no such log.
    ///
    /// # Errors
    /// [`StoreError`].
    fn head(&self, log: LogId) -> Result<Option<Head>, StoreError>;

    /// What an inbox may read of a log, and how far it has; `None` where it may read nothing. An inbox is read by its own
    /// address. Whoever serves a read asks this first: `read` itself does not know for whom it reads.
    ///
    /// # Errors
    /// [`StoreError`].
    fn reader(&self, log: LogId, inbox: InboxAddress) -> Result<Option<Reader>, StoreError>;

    /// Up to where a reader has acknowledged a log; `None` where it does not read that log.
    ///
    /// # Errors
    /// [`StoreError`].
    fn cursor(&self, log: LogId, reader: InboxAddress) -> Result<Option<Position>, StoreError> {
        Ok(self.reader(log, reader)?.map(|reader| reader.cursor))
    }

    /// A record.
    ///
    /// # Errors
    /// [`StoreError`].
    fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError>;

    /// A piece of a blob: at most `most` bytes from `offset`. Of a blob that is not whole yet, size and how much is
    /// held are told, and no bytes are given.
    ///
    /// # Errors
    /// [`StoreError`].
    fn blob(&self, hash: BlobHash, offset: u64, most: usize) -> Result<Option<BlobPart>, StoreError>;

    /// The conversation logs that have an inbox in their roster, sorted, at most `limits::LISTED_LOGS_MAX`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn logs_of(&self, inbox: InboxAddress) -> Result<Vec<ConversationId>, StoreError>;

    /// How many one-time key packages are held for a device.
    ///
    /// # Errors
    /// [`StoreError`].
    fn key_packages(&self, device: DeviceId) -> Result<u32, StoreError>;
}

/// The store could not do what it was asked. The relay accepts nothing more until it works again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the database behind the store, refused.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The store was written by a newer program. It is left untouched.
    #[error("the store was written by a newer version ({found}; this one knows {known}): use that one")]
    Newer {
        /// The version of the layout that was found.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// Another process uses the store.
    #[error("another process uses this store")]
    InUse,
    /// What is stored contradicts itself.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}
