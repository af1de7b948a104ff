//! The embedded store of a relay: one directory, SQLite inside.
//!
//! ```text
//! LOCK           held by the process that uses the directory
//! mail.db        one append log for the entries of all logs; readers, outbox, key packages
//! directory.db   records and inboxes
//! blobs/ab/cd/   blobs, each a file named by its hash; blobs/parts/ those that are not whole yet
//! ```
//!
//! What the store thinks is [`sealwire_store::logs`], in memory; the files hold what that index needs to come back, and
//! the bytes of the entries. Rows of entries are numbered in the order of commits and have no other index, which is what
//! makes an append cheap.
//!
//! ## Two files, one commit
//! SQLite commits each file of a transaction atomically, but in WAL mode not both at once: it commits `mail.db`, then
//! `directory.db`. So a group that writes to both also puts its writes for `directory.db` into the table `redo` of
//! `mail.db`, and counts as committed as soon as that file is. Opening the store repeats `redo` where `directory.db` lags
//! behind; the count of record versions tells.
#![forbid(unsafe_code)]

mod blobs;
mod files;
mod rows;
mod schema;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use rusqlite::{Connection, OptionalExtension, params};
use sealwire_store::logs::{Beside, Digest, Limits, Logs};
use sealwire_store::{
    BlobPart, Delivered, Head, Operation, Outcome, Page, Reader, Record, RecordKey, Store, StoreError,
};
use sealwire_wire::{BlobHash, ConversationId, DeviceId, InboxAddress, InstanceId, LogId, Position, Time};

use crate::blobs::Blobs;

/// Reader connections that wait for the next read; more are opened where more threads read at once, and closed again.
const IDLE_READERS_MAX: usize = 8;

/// The store in a directory. One process at a time.
#[derive(Debug)]
pub struct SqliteStore {
    directory: PathBuf,
    /// The only connection that writes. Whoever locks this and `index` locks this first.
    writer: Mutex<Connection>,
    /// Locked for writing during a whole commit, so that nobody reads what is not durable yet.
    index: RwLock<Index>,
    readers: Mutex<Vec<Connection>>,
    /// Holds the directory's lock until the store is dropped: the last field, because fields drop in order.
    _lock: File,
}

#[derive(Debug)]
struct Index {
    instance: InstanceId,
    limits: Limits,
    /// `None` after a failed commit, whose changes it would hold, until it could be loaded from the files again.
    logs: Option<Logs>,
    blobs: Blobs,
}

impl SqliteStore {
    /// Opens the store in a directory, and makes both where they do not exist. A new store gets `fresh_instance`, which
    /// has to be random.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another process, or another value of this type, has it open; [`StoreError::Newer`]
    /// where a newer program wrote it, whose files stay untouched; [`StoreError::Damaged`]; [`StoreError::Failed`].
    pub fn open(directory: &Path, fresh_instance: InstanceId, limits: Limits) -> Result<SqliteStore, StoreError> {
        files::make_directory(directory)?;
        let lock = files::lock(directory)?;
        let mut writer = schema::open(directory)?;
        let instance = rows::instance(&writer, fresh_instance)?;
        rows::repeat_redo(&mut writer)?;
        let logs = rows::load(&writer, limits)?;
        let blobs = Blobs::open(directory)?;
        Ok(SqliteStore {
            directory: directory.to_owned(),
            writer: Mutex::new(writer),
            index: RwLock::new(Index { instance, limits, logs: Some(logs), blobs }),
            readers: Mutex::default(),
            _lock: lock,
        })
    }

    /// Gives the store another instance id. For whoever restored the directory from a backup, before the relay serves
    /// it (L11).
    ///
    /// # Errors
    /// [`StoreError::Failed`]: the id is the one before.
    pub fn renew_instance(&self, fresh: InstanceId) -> Result<(), StoreError> {
        let writer = self.writer()?;
        let mut index = self.index.write().map_err(|_| panicked())?;
        rows::put_instance(&writer, fresh)?;
        index.instance = fresh;
        Ok(())
    }

    fn writer(&self) -> Result<MutexGuard<'_, Connection>, StoreError> {
        self.writer.lock().map_err(|_| panicked())
    }

    fn index(&self) -> Result<RwLockReadGuard<'_, Index>, StoreError> {
        self.index.read().map_err(|_| panicked())
    }

    /// Reads beside the writer. The caller holds `index`, so what it finds there is in the files.
    fn with_reader<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.readers.lock().map_err(|_| panicked())?.pop();
        let reader = idle.map_or_else(|| schema::connect(&self.directory), Ok)?;
        let found = read(&reader)?;
        let mut readers = self.readers.lock().map_err(|_| panicked())?;
        if readers.len() < IDLE_READERS_MAX {
            readers.push(reader);
        }
        Ok(found)
    }
}

impl Store for SqliteStore {
    fn instance(&self) -> InstanceId {
        // The id is one plain value: no panic can leave it half changed.
        self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner).instance
    }

    fn commit(&self, now: Time, operations: &[Operation]) -> Result<Vec<Outcome>, StoreError> {
        let mut writer = self.writer()?;
        let mut index = self.index.write().map_err(|_| panicked())?;
        index.commit(&mut writer, now, operations)
    }

    fn read(&self, log: LogId, after: Position, entries: usize, bytes: usize) -> Result<Page, StoreError> {
        let index = self.index()?;
        let plan = index.logs()?.page(log, after, entries, bytes);
        if plan.entries.is_empty() {
            return Ok(Page { entries: Vec::new(), trimmed: plan.trimmed });
        }
        let entries = self.with_reader(|reader| {
            let mut find = reader.prepare_cached("SELECT bytes FROM entries WHERE row = ?1").map_err(failed)?;
            let deliver = |(position, at, row): (Position, Time, u64)| {
                let entry = find.query_row([row as i64], |found| found.get(0)).map_err(failed)?;
                Ok(Delivered { position, at, entry })
            };
            plan.entries.into_iter().map(deliver).collect()
        })?;
        Ok(Page { entries, trimmed: plan.trimmed })
    }

    fn head(&self, log: LogId) -> Result<Option<Head>, StoreError> {
        Ok(self.index()?.logs()?.head(log))
    }

    fn reader(&self, log: LogId, inbox: InboxAddress) -> Result<Option<Reader>, StoreError> {
        Ok(self.index()?.logs()?.reader(log, inbox))
    }

    fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        let _index = self.index()?;
        self.with_reader(|reader| {
            let sql = "SELECT version, value FROM directory.records WHERE kind = ?1 AND key = ?2";
            let mut find = reader.prepare_cached(sql).map_err(failed)?;
            let read = |found: &rusqlite::Row<'_>| {
                Ok(Record { version: found.get::<_, i64>(0)? as u64, value: found.get(1)? })
            };
            find.query_row(params![key.kind as u8, key.key], read).optional().map_err(failed)
        })
    }

    fn blob(&self, hash: BlobHash, offset: u64, most: usize) -> Result<Option<BlobPart>, StoreError> {
        self.index()?.blobs.part(hash, offset, most)
    }

    fn logs_of(&self, inbox: InboxAddress) -> Result<Vec<ConversationId>, StoreError> {
        Ok(self.index()?.logs()?.logs_of(inbox))
    }

    fn key_packages(&self, device: DeviceId) -> Result<u32, StoreError> {
        let _index = self.index()?;
        self.with_reader(|reader| rows::count_key_packages(reader, device))
    }
}

impl Index {
    fn logs(&self) -> Result<&Logs, StoreError> {
        self.logs
            .as_ref()
            .ok_or_else(|| StoreError::Failed("a commit failed, and the files could not be read since".into()))
    }

    fn commit(
        &mut self,
        writer: &mut Connection,
        now: Time,
        operations: &[Operation],
    ) -> Result<Vec<Outcome>, StoreError> {
        if self.logs.is_none() {
            self.reload(writer)?;
        }
        let mut outcomes = Vec::with_capacity(operations.len());
        let mut redo = rows::Redo::default();
        let result = self.try_commit(writer, now, operations, &mut outcomes, &mut redo);
        let Err(error) = result else { return Ok(outcomes) };
        self.logs = None;
        // The group is committed where `mail.db` is, even if `directory.db` takes its part only later. Asked before the
        // files are put in order, which fails where a disk stays full: the answer would be wrong by the next group.
        let was_committed = redo.was_committed(writer);
        let reloaded = self.reload(writer);
        if was_committed? { Ok(outcomes) } else { reloaded.and(Err(error)) }
    }

    fn try_commit(
        &mut self,
        writer: &mut Connection,
        now: Time,
        operations: &[Operation],
        outcomes: &mut Vec<Outcome>,
        redo: &mut rows::Redo,
    ) -> Result<(), StoreError> {
        let Some(logs) = &mut self.logs else { return Err(StoreError::Failed("there is no index".into())) };
        let transaction = writer.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
        let mut rows = rows::Rows::of(&transaction)?;
        let mut writes = Vec::new();
        for operation in operations {
            let mut beside = Aside { connection: &transaction, blobs: &mut self.blobs };
            outcomes.push(logs.apply(now, operation, &mut beside, &mut writes)?);
            for write in writes.drain(..) {
                rows.write(&write)?;
                redo.note(write);
            }
        }
        drop(rows);
        redo.write(&transaction)?;
        transaction.commit().map_err(failed)
    }

    /// Makes the index what the files say.
    fn reload(&mut self, writer: &mut Connection) -> Result<(), StoreError> {
        rows::forget_unfinished(writer)?;
        rows::repeat_redo(writer)?;
        self.blobs.reload()?;
        self.logs = Some(rows::load(writer, self.limits)?);
        Ok(())
    }
}

/// Records, blobs and key packages, for the index. Sees what the open transaction has written.
struct Aside<'a> {
    connection: &'a Connection,
    blobs: &'a mut Blobs,
}

impl Beside for Aside<'_> {
    fn version(&self, key: &RecordKey) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT version FROM directory.records WHERE kind = ?1 AND key = ?2";
        let mut find = self.connection.prepare_cached(sql).map_err(failed)?;
        let version = find.query_row(params![key.kind as u8, key.key], |found| found.get::<_, i64>(0)).optional();
        Ok(version.map_err(failed)?.map(|version| version as u64))
    }

    fn put_blob(&mut self, hash: BlobHash, size: u64, offset: u64, bytes: &[u8]) -> Result<Outcome, StoreError> {
        self.blobs.put(hash, size, offset, bytes)
    }

    fn key_packages(&self, device: DeviceId) -> Result<Vec<u64>, StoreError> {
        rows::key_packages(self.connection, device)
    }

    fn key_package(&self, device: DeviceId, number: u64) -> Result<Vec<u8>, StoreError> {
        rows::key_package(self.connection, device, number)
    }

    fn claimed_key_packages(&self, device: DeviceId) -> Result<Vec<(u64, Digest)>, StoreError> {
        rows::claimed_key_packages(self.connection, device)
    }
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

fn panicked() -> StoreError {
    StoreError::Failed("a thread panicked while it used the store: open it again".into())
}
