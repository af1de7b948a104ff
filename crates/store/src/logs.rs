//! The mind that all stores share: an index, in memory, of every log: where each entry lies, who reads how far, which
//! envelope ids were seen, what the chain is. It decides what an operation does and tells the store what to write down.
//!
//! No I/O, no clock, no randomness: the same operations at the same times give the same outcomes and the same writes. A
//! store that fails to make the writes durable has to throw this index away and [`load`](Logs::load) it again, because
//! the index already holds what was not written.

mod by_position;
mod log;
mod rows;
mod shares;

use std::collections::{BTreeMap, BTreeSet};

use sealwire_keys::chain_start;
use sealwire_wire::entry::EntryKind;
use sealwire_wire::limits::{
    CONVERSATION_ENTRIES_MAX, INBOX_BYTES_MAX, INBOX_ENTRIES_MAX, LISTED_LOGS_MAX, REMEMBERED_MAX,
};
use sealwire_wire::{ConversationId, DeviceId, InboxAddress, LogId, Position, Time};

use self::log::{Log, Sealed};
pub use self::rows::{Digest, Dropped, EntryRow, LogRow, ReaderRow, Row, WelcomeRow, Write};
use crate::{
    Append, Conversation, Head, Operation, Outcome, Reader, Record, RecordKey, RecordSwap, Refusal, StoreError,
    Welcome, key_packages,
};

/// How much a log keeps before messages go (L9). A relay takes the default; tests take small ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Entries in an inbox.
    pub inbox_entries: u32,
    /// Bytes in an inbox.
    pub inbox_bytes: u64,
    /// Entries in a conversation log.
    pub conversation_entries: u32,
    /// Envelope ids of gone entries that a log remembers (E4).
    pub remembered: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            inbox_entries: INBOX_ENTRIES_MAX,
            inbox_bytes: INBOX_BYTES_MAX,
            conversation_entries: CONVERSATION_ENTRIES_MAX,
            remembered: REMEMBERED_MAX,
        }
    }
}

/// What the index leaves to the store: records, blobs and key packages, which are large and rarely asked for. It sees all
/// writes of the operations before, those of the same group too.
pub trait Beside {
    /// The version of a record; `None` where there is no such record.
    ///
    /// # Errors
    /// [`StoreError`].
    fn version(&self, key: &RecordKey) -> Result<Option<u64>, StoreError>;

    /// Takes a piece of a blob as [`blob::judge`](crate::blob::judge) says, and answers it. The arguments are those of
    /// [`Operation::PutBlob`].
    ///
    /// # Errors
    /// [`StoreError`].
    fn put_blob(
        &mut self,
        hash: sealwire_wire::BlobHash,
        size: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Outcome, StoreError>;

    /// The numbers of a device's key packages, in order; 0 is the last-resort one's.
    ///
    /// # Errors
    /// [`StoreError`].
    fn key_packages(&self, device: DeviceId) -> Result<Vec<u64>, StoreError>;

    /// One of them, which is there.
    ///
    /// # Errors
    /// [`StoreError`].
    fn key_package(&self, device: DeviceId, number: u64) -> Result<Vec<u8>, StoreError>;

    /// The digests of those that were handed out and are remembered, with their numbers, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    fn claimed_key_packages(&self, device: DeviceId) -> Result<Vec<(u64, Digest)>, StoreError>;
}

/// The index of all logs.
#[derive(Clone, Debug)]
pub struct Logs {
    limits: Limits,
    logs: BTreeMap<LogId, Log>,
    outbox: BTreeMap<u64, WelcomeRow>,
    /// The row that the next entry gets: rows are numbered in the order of all entries of the store.
    next_row: u64,
    next_welcome: u64,
    /// The newest version that a record got; the next is one more, so that none comes back.
    newest_version: u64,
}

/// Which rows a page is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PagePlan {
    /// For each entry: where it stands, when it was accepted, and its row.
    pub entries: Vec<(Position, Time, u64)>,
    /// As in [`Page::trimmed`](crate::Page::trimmed).
    pub trimmed: Option<(Position, Option<sealwire_wire::Chain>)>,
}

impl Logs {
    /// No logs.
    pub fn new(limits: Limits) -> Logs {
        Logs { limits, logs: BTreeMap::new(), outbox: BTreeMap::new(), next_row: 1, next_welcome: 1, newest_version: 0 }
    }

    /// Takes back one row that was written. Rows come in the order inboxes, logs, readers, entries by row number,
    /// Welcomes; the version count at any time.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where a row speaks of a log that does not exist.
    pub fn load(&mut self, row: Row) -> Result<(), StoreError> {
        match row {
            Row::Inbox(inbox) => {
                self.logs.insert(LogId::Inbox(inbox), Log::inbox(inbox));
            }
            Row::Log(row) => self.logs.entry(row.log).or_insert_with(|| Log::without_readers(row.log)).load_head(&row),
            Row::Reader { log, inbox, reader } => self.existing(log)?.load_reader(inbox, reader),
            Row::Entry { entry, is_gone } => {
                self.next_row = self.next_row.max(entry.row.saturating_add(1));
                self.existing(entry.log)?.load_entry(&entry, is_gone);
            }
            Row::Welcome(row) => {
                self.next_welcome = self.next_welcome.max(row.number.saturating_add(1));
                self.outbox.insert(row.number, row);
            }
            Row::Versions { newest } => self.newest_version = self.newest_version.max(newest),
        }
        Ok(())
    }

    /// Applies an operation: its outcome, and behind `writes` what has to become durable, in order, before anybody is
    /// told the outcome. A refused operation writes nothing.
    ///
    /// # Errors
    /// Those of `beside`. The index is of no use then.
    pub fn apply(
        &mut self,
        now: Time,
        operation: &Operation,
        beside: &mut dyn Beside,
        writes: &mut Vec<Write>,
    ) -> Result<Outcome, StoreError> {
        let outcome = match operation {
            Operation::Append(append) => self.append(now, append, writes),
            Operation::MoveCursor { log, reader, upto } => self.move_cursor(*log, *reader, *upto, writes),
            Operation::CreateConversation(conversation) => self.create(now, conversation, writes),
            Operation::FillInboxes { most } => Ok(self.fill_inboxes(now, *most, writes)),
            Operation::Swap { records, inboxes } => self.swap(records, inboxes, beside, writes)?,
            Operation::PutBlob { hash, size, offset, bytes } => Ok(beside.put_blob(*hash, *size, *offset, bytes)?),
            Operation::PutKeyPackages { device, replace, one_time, last_resort } => {
                key_packages::put(*device, *replace, one_time, last_resort.as_ref(), beside, writes)?
            }
            Operation::ClaimKeyPackage { device } => Ok(key_packages::claim(*device, beside, writes)?),
            Operation::Sweep { most } => Ok(self.sweep(now, *most, writes)),
        };
        Ok(outcome.unwrap_or_else(Outcome::Refused))
    }

    /// Which rows a read of a log brings; the arguments are those of [`Store::read`](crate::Store::read).
    pub fn page(&self, log: LogId, after: Position, entries: usize, bytes: usize) -> PagePlan {
        let nothing = PagePlan { entries: Vec::new(), trimmed: None };
        self.logs.get(&log).map_or(nothing, |log| log.page(after, entries, bytes))
    }

    /// The newest state of a log.
    pub fn head(&self, log: LogId) -> Option<Head> {
        self.logs.get(&log).map(Log::head)
    }

    /// What an inbox may read of a log.
    pub fn reader(&self, log: LogId, inbox: InboxAddress) -> Option<Reader> {
        self.logs.get(&log)?.reader(inbox)
    }

    /// The conversation logs that have an inbox in their roster. Looks at every log: it is asked for by a device whose store
    /// was put back, and by nobody else.
    pub fn logs_of(&self, inbox: InboxAddress) -> Vec<ConversationId> {
        let reads = |(id, log): (&LogId, &Log)| match id {
            LogId::Conversation(conversation) if log.reader(inbox)?.until.is_none() => Some(*conversation),
            _ => None,
        };
        self.logs.iter().filter_map(reads).take(LISTED_LOGS_MAX).collect()
    }

    fn append(&mut self, now: Time, append: &Append, writes: &mut Vec<Write>) -> Result<Outcome, Refusal> {
        let log = self.logs.get_mut(&append.log).ok_or(Refusal::UnknownLog)?;
        let sealed = Sealed::new(&append.entry);
        if let Some(position) = log.find(&sealed)? {
            return Ok(Outcome::Appended { position, repeated: true });
        }
        log.admit(now, append)?;
        let position = log.append(now, take(&mut self.next_row), Some(append.writer), sealed, writes);
        if append.entry.kind == EntryKind::RestoreRoster {
            log.use_restoration(append.writer, writes);
        }
        if let Some(change) = &append.roster {
            log.change_roster(now, position, append.entry.kind, change, writes);
        }
        log.keep_within(now, &self.limits, writes);
        let welcomes = append.roster.as_ref().map_or(&[][..], |change| &change.welcomes);
        self.put_outbox(append.writer, welcomes, writes);
        Ok(Outcome::Appended { position, repeated: false })
    }

    fn move_cursor(
        &mut self,
        log: LogId,
        reader: InboxAddress,
        upto: Position,
        writes: &mut Vec<Write>,
    ) -> Result<Outcome, Refusal> {
        self.logs.get_mut(&log).ok_or(Refusal::UnknownLog)?.move_cursor(reader, upto, writes)?;
        Ok(Outcome::Moved)
    }

    /// All readers begin before the first entry, so that each can check the chain from its start (L5).
    fn create(&mut self, now: Time, new: &Conversation, writes: &mut Vec<Write>) -> Result<Outcome, Refusal> {
        let id = LogId::Conversation(new.id);
        if self.logs.contains_key(&id) {
            return Err(Refusal::ConversationExists);
        }
        let mut log = Log::without_readers(id);
        let mut made = Vec::new();
        let mut next_row = self.next_row;
        log.start(chain_start(new.id), &new.roster, &mut made);
        for entry in &new.entries {
            log.admit_first(entry)?;
            log.append(now, take(&mut next_row), None, Sealed::new(entry), &mut made);
        }
        welcomes_only(&new.welcomes)?;
        self.next_row = next_row;
        writes.append(&mut made);
        self.put_outbox(new.writer, &new.welcomes, writes);
        self.logs.insert(id, log);
        Ok(Outcome::Created)
    }

    /// A Welcome to an inbox that does not exist, or whose envelope id was used there for something else, can reach
    /// nobody and is dropped.
    fn fill_inboxes(&mut self, now: Time, most: usize, writes: &mut Vec<Write>) -> Outcome {
        let mut filled = BTreeSet::new();
        for _ in 0..most {
            let Some((number, WelcomeRow { welcome, writer, .. })) = self.outbox.pop_first() else { break };
            writes.push(Write::RemoveWelcome { number });
            let append = Append::to_inbox(welcome.inbox, writer.unwrap_or(welcome.inbox), welcome.entry);
            if let Ok(Outcome::Appended { repeated: false, .. }) = self.append(now, &append, writes) {
                filled.insert(welcome.inbox);
            }
        }
        Outcome::Filled(filled.into_iter().collect())
    }

    fn put_outbox(&mut self, writer: InboxAddress, welcomes: &[Welcome], writes: &mut Vec<Write>) {
        for welcome in welcomes {
            let number = take(&mut self.next_welcome);
            let row = WelcomeRow { number, welcome: welcome.clone(), writer: Some(writer) };
            writes.push(Write::PutWelcome(row.clone()));
            self.outbox.insert(number, row);
        }
    }

    fn swap(
        &mut self,
        records: &[RecordSwap],
        inboxes: &[InboxAddress],
        beside: &dyn Beside,
        writes: &mut Vec<Write>,
    ) -> Result<Result<Outcome, Refusal>, StoreError> {
        for (index, swap) in records.iter().enumerate() {
            if beside.version(&swap.key)? != swap.expected {
                return Ok(Err(Refusal::VersionMoved { index }));
            }
        }
        let new: BTreeSet<_> = inboxes.iter().copied().collect();
        let exists = |inbox: &InboxAddress| self.logs.contains_key(&LogId::Inbox(*inbox));
        if new.len() < inboxes.len() || new.iter().any(exists) {
            return Ok(Err(Refusal::InboxExists));
        }
        self.newest_version += 1;
        writes.push(Write::CountVersions { newest: self.newest_version });
        for RecordSwap { key, value, .. } in records {
            let (key, version) = (key.clone(), self.newest_version);
            writes.push(match value {
                Some(value) => Write::PutRecord { key, record: Record { version, value: value.clone() } },
                None => Write::RemoveRecord { key },
            });
        }
        for inbox in new {
            self.logs.insert(LogId::Inbox(inbox), Log::inbox(inbox));
            writes.push(Write::OpenInbox { inbox });
        }
        Ok(Ok(Outcome::Swapped))
    }

    fn sweep(&mut self, now: Time, most: usize, writes: &mut Vec<Write>) -> Outcome {
        let mut left = most;
        for log in self.logs.values_mut().filter(|log| log.is_due(now)) {
            if left == 0 {
                break;
            }
            log.sweep(now, &self.limits, &mut left, writes);
        }
        Outcome::Swept { entries: most - left }
    }

    fn existing(&mut self, log: LogId) -> Result<&mut Log, StoreError> {
        self.logs
            .get_mut(&log)
            .ok_or_else(|| StoreError::Damaged(format!("a row of the log {log}, which does not exist")))
    }
}

fn take(counter: &mut u64) -> u64 {
    let number = *counter;
    *counter += 1;
    number
}

fn welcomes_only(welcomes: &[Welcome]) -> Result<(), Refusal> {
    let all = welcomes.iter().all(|welcome| welcome.entry.kind == EntryKind::Welcome);
    if all { Ok(()) } else { Err(Refusal::WrongKind) }
}
