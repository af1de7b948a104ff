//! Rows of the files, to and from the index.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use sealwire_store::logs::{Digest, Dropped, EntryRow, Limits, LogRow, Logs, ReaderRow, Row, WelcomeRow, Write};
use sealwire_store::{Record, RecordKey, RecordKind, StoreError, Welcome};
use sealwire_wire::entry::{Entry, EntryKind};
use sealwire_wire::{Chain, DeviceId, EnvelopeId, InboxAddress, InstanceId, LogId, Position, RosterHash, Time};

use crate::failed;

/// What a group writes to `directory.db`, for the table `redo`.
#[derive(Debug, Default)]
pub(crate) struct Redo {
    writes: Vec<Write>,
    has_mail: bool,
    newest: u64,
}

/// Kinds of rows of `redo` beside those of records, which are from 1.
const REDO_INBOX: i64 = 0;
const REDO_VERSIONS: i64 = -1;

impl Redo {
    pub(crate) fn note(&mut self, write: Write) {
        match write {
            Write::CountVersions { newest } => {
                self.newest = newest;
                self.writes.push(write);
            }
            Write::PutRecord { .. } | Write::RemoveRecord { .. } | Write::OpenInbox { .. } => self.writes.push(write),
            _ => self.has_mail = true,
        }
    }

    /// Writes the table, where the group writes to both files.
    pub(crate) fn write(&self, connection: &Connection) -> Result<(), StoreError> {
        if !self.is_needed() {
            return Ok(());
        }
        connection.prepare_cached("DELETE FROM redo").and_then(|mut all| all.execute([])).map_err(failed)?;
        let sql = "INSERT INTO redo (kind, key, version, value) VALUES (?1, ?2, ?3, ?4)";
        let mut insert = connection.prepare_cached(sql).map_err(failed)?;
        for write in &self.writes {
            let (kind, key, version, value): (i64, &[u8], Option<i64>, Option<&[u8]>) = match write {
                Write::PutRecord { key, record } => {
                    (key.kind as i64, &key.key, Some(record.version as i64), Some(&record.value))
                }
                Write::RemoveRecord { key } => (key.kind as i64, &key.key, None, None),
                Write::OpenInbox { inbox } => (REDO_INBOX, &inbox.0, None, None),
                Write::CountVersions { newest } => (REDO_VERSIONS, &[], Some(*newest as i64), None),
                _ => continue,
            };
            insert.execute(params![kind, key, version, value]).map_err(failed)?;
        }
        Ok(())
    }

    /// Whether the group reached `mail.db`. Only asked of a group whose commit told an error.
    pub(crate) fn was_committed(&self, connection: &Connection) -> Result<bool, StoreError> {
        Ok(self.is_needed() && redo_version(connection)? == Some(self.newest))
    }

    fn is_needed(&self) -> bool {
        self.has_mail && !self.writes.is_empty()
    }
}

/// Repeats the table `redo` where `directory.db` lags behind `mail.db`.
pub(crate) fn repeat_redo(connection: &mut Connection) -> Result<(), StoreError> {
    let Some(newest) = redo_version(connection)? else { return Ok(()) };
    if newest <= newest_version(connection)? {
        return Ok(());
    }
    let transaction = connection.transaction().map_err(failed)?;
    for redo in redo_writes(&transaction)? {
        write(&transaction, &redo)?;
    }
    transaction.commit().map_err(failed)
}

/// After a failed commit: makes sure that nothing of it appears when the write-ahead log is read again, by moving all
/// that counts into the files and emptying the log.
pub(crate) fn forget_unfinished(connection: &Connection) -> Result<(), StoreError> {
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK").map_err(failed)?;
    }
    let is_busy: bool =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(failed)?;
    if is_busy { Err(failed("the write-ahead log could not be emptied")) } else { Ok(()) }
}

/// The store's instance id; `fresh` where it has none yet.
pub(crate) fn instance(connection: &Connection, fresh: InstanceId) -> Result<InstanceId, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = 'instance'";
    let found = connection.query_row(sql, [], |row| row.get::<_, Bytes<16>>(0)).optional().map_err(failed)?;
    match found {
        Some(found) => Ok(InstanceId(found.0)),
        None => put_instance(connection, fresh).map(|()| fresh),
    }
}

/// Makes the store's instance id another one.
pub(crate) fn put_instance(connection: &Connection, instance: InstanceId) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES ('instance', ?1)";
    connection.execute(sql, [&instance.0[..]]).map(|_| ()).map_err(failed)
}

/// What writes the rows of a group. Most are new entries: their statement is looked up once.
pub(crate) struct Rows<'a> {
    connection: &'a Connection,
    insert_entry: CachedStatement<'a>,
}

impl<'a> Rows<'a> {
    pub(crate) fn of(connection: &'a Connection) -> Result<Rows<'a>, StoreError> {
        Ok(Rows { connection, insert_entry: connection.prepare_cached(INSERT_ENTRY).map_err(failed)? })
    }

    pub(crate) fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::PutEntry { entry, bytes } => put_entry(&mut self.insert_entry, entry, bytes),
            other => self::write(self.connection, other),
        }
    }
}

/// Writes one row.
fn write(connection: &Connection, write: &Write) -> Result<(), StoreError> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> Result<(), StoreError> {
        connection.prepare_cached(sql).and_then(|mut row| row.execute(values)).map(|_| ()).map_err(failed)
    };
    match write {
        Write::PutEntry { .. } => Rows::of(connection)?.write(write),
        Write::EmptyEntry { row } => run("UPDATE entries SET bytes = NULL WHERE row = ?1", params![*row as i64]),
        Write::RemoveEntry { row } => run("DELETE FROM entries WHERE row = ?1", params![*row as i64]),
        Write::PutLog(LogRow { log, length, newest_commit, chain }) => run(
            "INSERT OR REPLACE INTO logs (log, length, newest_commit, chain) VALUES (?1, ?2, ?3, ?4)",
            params![log.as_bytes(), length.0 as i64, newest_commit.0 as i64, chain.map(|chain| chain.0)],
        ),
        Write::PutReader { log, inbox, reader } => put_reader(connection, *log, *inbox, *reader),
        Write::RemoveReader { log, inbox } => {
            run("DELETE FROM readers WHERE log = ?1 AND inbox = ?2", params![log.as_bytes(), inbox.0])
        }
        Write::PutWelcome(WelcomeRow { number, welcome, writer }) => run(
            "INSERT INTO outbox (number, inbox, entry, writer) VALUES (?1, ?2, ?3, ?4)",
            params![*number as i64, welcome.inbox.0, welcome.entry.encode(), writer.map(|writer| writer.0)],
        ),
        Write::RemoveWelcome { number } => run("DELETE FROM outbox WHERE number = ?1", params![*number as i64]),
        Write::PutRecord { key, record } => run(
            "INSERT OR REPLACE INTO directory.records (kind, key, version, value) VALUES (?1, ?2, ?3, ?4)",
            params![key.kind as u8, key.key, record.version as i64, record.value],
        ),
        Write::RemoveRecord { key } => {
            run("DELETE FROM directory.records WHERE kind = ?1 AND key = ?2", params![key.kind as u8, key.key])
        }
        Write::OpenInbox { inbox } => {
            run("INSERT OR IGNORE INTO directory.inboxes (inbox) VALUES (?1)", params![inbox.0])
        }
        Write::CountVersions { newest } => {
            run("INSERT OR REPLACE INTO directory.versions (only, newest) VALUES (0, ?1)", params![*newest as i64])
        }
        Write::PutKeyPackage { device, number, bytes } => run(
            "INSERT OR REPLACE INTO key_packages (device, number, bytes) VALUES (?1, ?2, ?3)",
            params![device.0, *number as i64, bytes],
        ),
        Write::RemoveKeyPackage { device, number } => {
            run("DELETE FROM key_packages WHERE device = ?1 AND number = ?2", params![device.0, *number as i64])
        }
        Write::PutClaimed { device, number, digest } => run(
            "INSERT INTO claimed_key_packages (device, number, digest) VALUES (?1, ?2, ?3)",
            params![device.0, *number as i64, digest],
        ),
        Write::RemoveClaimed { device, number } => {
            run("DELETE FROM claimed_key_packages WHERE device = ?1 AND number = ?2", params![device.0, *number as i64])
        }
    }
}

/// The numbers of a device's key packages, in order.
pub(crate) fn key_packages(connection: &Connection, device: DeviceId) -> Result<Vec<u64>, StoreError> {
    let sql = "SELECT number FROM key_packages WHERE device = ?1 ORDER BY number";
    let mut find = connection.prepare_cached(sql).map_err(failed)?;
    find.query_map([device.0], |row| number(row, 0)).and_then(Iterator::collect).map_err(failed)
}

/// How many of them are one-time ones.
pub(crate) fn count_key_packages(connection: &Connection, device: DeviceId) -> Result<u32, StoreError> {
    let sql = "SELECT count(*) FROM key_packages WHERE device = ?1 AND number > 0";
    let mut count = connection.prepare_cached(sql).map_err(failed)?;
    count.query_row([device.0], |row| row.get(0)).map_err(failed)
}

/// One of them.
pub(crate) fn key_package(connection: &Connection, device: DeviceId, number: u64) -> Result<Vec<u8>, StoreError> {
    let sql = "SELECT bytes FROM key_packages WHERE device = ?1 AND number = ?2";
    let mut find = connection.prepare_cached(sql).map_err(failed)?;
    find.query_row(params![device.0, number as i64], |row| row.get(0)).map_err(failed)
}

/// The digests of those that were handed out, with their numbers, in order.
pub(crate) fn claimed_key_packages(
    connection: &Connection,
    device: DeviceId,
) -> Result<Vec<(u64, Digest)>, StoreError> {
    let sql = "SELECT number, digest FROM claimed_key_packages WHERE device = ?1 ORDER BY number";
    let mut find = connection.prepare_cached(sql).map_err(failed)?;
    let read = |row: &rusqlite::Row<'_>| Ok((number(row, 0)?, row.get::<_, Bytes<16>>(1)?.0));
    find.query_map([device.0], read).and_then(Iterator::collect).map_err(failed)
}

/// The index, from all rows but the entries' bytes.
pub(crate) fn load(connection: &Connection, limits: Limits) -> Result<Logs, StoreError> {
    let mut logs = Logs::new(limits);
    logs.load(Row::Versions { newest: newest_version(connection)? })?;
    for (sql, read) in TABLES {
        let mut table = connection.prepare(sql).map_err(failed)?;
        let mut rows = table.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            logs.load(read(row).map_err(|error| StoreError::Damaged(error.to_string()))?)?;
        }
    }
    Ok(logs)
}

type Read = fn(&rusqlite::Row<'_>) -> rusqlite::Result<Row>;

/// In the order that [`Logs::load`] asks for.
const TABLES: [(&str, Read); 5] = [
    ("SELECT inbox FROM directory.inboxes", read_inbox),
    ("SELECT log, length, newest_commit, chain FROM logs", read_log),
    ("SELECT log, inbox, cursor, dropped_by, dropped_at, dropped_from, restored FROM readers", read_reader),
    (
        "SELECT row, log, position, envelope, at, kind, digest, size, before, after, bytes IS NULL, writer \
         FROM entries ORDER BY row",
        read_entry,
    ),
    ("SELECT number, inbox, entry, writer FROM outbox ORDER BY number", read_welcome),
];

const INSERT_ENTRY: &str = "INSERT INTO entries (row, log, position, envelope, at, kind, digest, size, before, after, bytes, writer) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

fn put_entry(insert: &mut CachedStatement<'_>, entry: &EntryRow, bytes: &[u8]) -> Result<(), StoreError> {
    let values = params![
        entry.row as i64,
        entry.log.as_bytes(),
        entry.position.0 as i64,
        entry.envelope.0,
        entry.at.0 as i64,
        entry.kind as u8,
        entry.digest,
        entry.size,
        entry.chain.map(|(before, _)| before.0),
        entry.chain.map(|(_, after)| after.0),
        bytes,
        entry.writer.map(|writer| writer.0),
    ];
    insert.execute(values).map(|_| ()).map_err(failed)
}

fn put_reader(connection: &Connection, log: LogId, inbox: InboxAddress, reader: ReaderRow) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO readers (log, inbox, cursor, dropped_by, dropped_at, dropped_from, restored) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut insert = connection.prepare_cached(sql).map_err(failed)?;
    let values = params![
        log.as_bytes(),
        inbox.0,
        reader.cursor.0 as i64,
        reader.dropped.map(|dropped| dropped.by.0 as i64),
        reader.dropped.map(|dropped| dropped.at.0 as i64),
        reader.dropped.map(|dropped| dropped.roster.0),
        reader.dropped.map(|dropped| dropped.restored),
    ];
    insert.execute(values).map(|_| ()).map_err(failed)
}

fn read_inbox(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row::Inbox(InboxAddress(row.get::<_, Bytes<16>>(0)?.0)))
}

fn read_log(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row::Log(LogRow {
        log: row.get::<_, Log>(0)?.0,
        length: Position(number(row, 1)?),
        newest_commit: Position(number(row, 2)?),
        chain: chain(row, 3)?,
    }))
}

fn read_reader(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let dropped = match row.get::<_, Option<i64>>(3)? {
        Some(by) => Some(Dropped {
            by: Position(by as u64),
            at: Time(number(row, 4)?),
            roster: RosterHash(row.get::<_, Bytes<32>>(5)?.0),
            restored: row.get(6)?,
        }),
        None => None,
    };
    let reader = ReaderRow { cursor: Position(number(row, 2)?), dropped };
    Ok(Row::Reader { log: row.get::<_, Log>(0)?.0, inbox: InboxAddress(row.get::<_, Bytes<16>>(1)?.0), reader })
}

fn read_entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let entry = EntryRow {
        row: number(row, 0)?,
        log: row.get::<_, Log>(1)?.0,
        position: Position(number(row, 2)?),
        envelope: EnvelopeId(row.get::<_, Bytes<16>>(3)?.0),
        at: Time(number(row, 4)?),
        kind: row.get::<_, Kind>(5)?.0,
        digest: row.get::<_, Bytes<16>>(6)?.0,
        size: row.get(7)?,
        writer: row.get::<_, Option<Bytes<16>>>(11)?.map(|writer| InboxAddress(writer.0)),
        chain: chain(row, 8)?.zip(chain(row, 9)?),
    };
    Ok(Row::Entry { entry, is_gone: row.get(10)? })
}

fn read_welcome(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let inbox = InboxAddress(row.get::<_, Bytes<16>>(1)?.0);
    let entry = row.get::<_, StoredEntry>(2)?.0;
    let writer = row.get::<_, Option<Bytes<16>>>(3)?.map(|writer| InboxAddress(writer.0));
    Ok(Row::Welcome(WelcomeRow { number: number(row, 0)?, welcome: Welcome { inbox, entry }, writer }))
}

fn newest_version(connection: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT newest FROM directory.versions";
    let newest = connection.query_row(sql, [], |row| number(row, 0)).optional().map_err(failed)?;
    Ok(newest.unwrap_or(0))
}

fn redo_version(connection: &Connection) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT max(version) FROM redo WHERE kind = ?1";
    let newest: Option<i64> = connection.query_row(sql, [REDO_VERSIONS], |row| row.get(0)).map_err(failed)?;
    Ok(newest.map(|newest| newest as u64))
}

fn redo_writes(connection: &Connection) -> Result<Vec<Write>, StoreError> {
    let mut redo = connection.prepare("SELECT kind, key, version, value FROM redo ORDER BY step").map_err(failed)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(match row.get::<_, i64>(0)? {
            REDO_VERSIONS => Write::CountVersions { newest: number(row, 2)? },
            REDO_INBOX => Write::OpenInbox { inbox: InboxAddress(row.get::<_, Bytes<16>>(1)?.0) },
            _ => {
                let key = RecordKey { kind: row.get::<_, StoredRecordKind>(0)?.0, key: row.get(1)? };
                match row.get::<_, Option<Vec<u8>>>(3)? {
                    Some(value) => Write::PutRecord { key, record: Record { version: number(row, 2)?, value } },
                    None => Write::RemoveRecord { key },
                }
            }
        })
    };
    redo.query_map([], read).and_then(Iterator::collect).map_err(failed)
}

/// SQLite's integers are signed; ours come back bit by bit.
fn number(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| number as u64)
}

fn chain(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<Chain>> {
    Ok(row.get::<_, Option<Bytes<32>>>(column)?.map(|chain| Chain(chain.0)))
}

struct Bytes<const N: usize>([u8; N]);
struct Log(LogId);
struct Kind(EntryKind);
struct StoredEntry(Entry);
struct StoredRecordKind(RecordKind);

impl<const N: usize> FromSql for Bytes<N> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = value.as_blob()?;
        let size = bytes.len();
        bytes.try_into().map(Bytes).map_err(|_| FromSqlError::InvalidBlobSize { expected_size: N, blob_size: size })
    }
}

impl FromSql for Log {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        LogId::try_from(value.as_blob()?).map(Log).map_err(FromSqlError::other)
    }
}

impl FromSql for Kind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let byte = value.as_i64()?;
        let kind = EntryKind::ALL.into_iter().find(|kind| *kind as i64 == byte);
        kind.map(Kind).ok_or(FromSqlError::OutOfRange(byte))
    }
}

impl FromSql for StoredEntry {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Entry::decode(value.as_blob()?).map(StoredEntry).map_err(FromSqlError::other)
    }
}

impl FromSql for StoredRecordKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let byte = value.as_i64()?;
        let kind = RecordKind::ALL.into_iter().find(|kind| *kind as i64 == byte);
        kind.map(StoredRecordKind).ok_or(FromSqlError::OutOfRange(byte))
    }
}
