//! The tables, and connections to them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use sealwire_store::StoreError;

use crate::failed;
use crate::files::{private_file, sync_directory};

/// The layout of both files, in their `user_version`.
pub(crate) const VERSION: u32 = 3;

/// Of files that are made from now on; one that exists keeps its own. Entries are appended, so that SQLite's default of
/// 4096 costs twice the system calls for nothing; a larger one costs more where cursors move all over a table.
const PAGE_SIZE: u32 = 8_192;

const MAIL: &str = "mail.db";
const DIRECTORY: &str = "directory.db";

/// Numbers are those of `sealwire_store::logs`, as signed 64-bit integers. `bytes` comes last, so that a scan of the
/// other columns does not touch it; it is null where an entry's bytes are gone and only its envelope id is remembered.
/// `writer` is null in rows of version 1; in a file that began with it, the column comes behind `bytes`.
const MAIL_TABLES: &str = "
CREATE TABLE main.meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE main.entries (
    row INTEGER PRIMARY KEY, log BLOB NOT NULL, position INTEGER NOT NULL, envelope BLOB NOT NULL, at INTEGER NOT NULL,
    kind INTEGER NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL, writer BLOB, before BLOB, after BLOB, bytes BLOB
);
CREATE TABLE main.logs (
    log BLOB PRIMARY KEY, length INTEGER NOT NULL, newest_commit INTEGER NOT NULL, chain BLOB
) WITHOUT ROWID;
CREATE TABLE main.readers (
    log BLOB NOT NULL, inbox BLOB NOT NULL, cursor INTEGER NOT NULL,
    dropped_by INTEGER, dropped_at INTEGER, dropped_from BLOB, restored INTEGER,
    PRIMARY KEY (log, inbox)
) WITHOUT ROWID;
CREATE TABLE main.outbox (number INTEGER PRIMARY KEY, inbox BLOB NOT NULL, entry BLOB NOT NULL);
CREATE TABLE main.redo (step INTEGER PRIMARY KEY, kind INTEGER NOT NULL, key BLOB NOT NULL, version INTEGER, value BLOB);
";

const DIRECTORY_TABLES: &str = "
CREATE TABLE directory.records (
    kind INTEGER NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key)
);
CREATE TABLE directory.inboxes (inbox BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE directory.versions (only INTEGER PRIMARY KEY CHECK (only = 0), newest INTEGER NOT NULL);
";

/// What makes a file of version 2 one of version 3: Welcomes name their writer, who is null in rows of before; and key
/// packages. They come and go like mail, and lie where the commit point is: a claim is one write to one file, and a backup
/// of the directory alone brings none back that was handed out. Numbers are in the index of the primary key, so that
/// counting does not touch the packages.
const MAIL_FROM_2: &str = "
ALTER TABLE main.outbox ADD COLUMN writer BLOB;
CREATE TABLE main.key_packages (
    device BLOB NOT NULL, number INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (device, number)
);
CREATE TABLE main.claimed_key_packages (
    device BLOB NOT NULL, number INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (device, number)
) WITHOUT ROWID;
";

/// What makes a file of version 1 one of version 2. A new column costs nothing, however large the file is.
const MAIL_FROM_1: &str = "ALTER TABLE main.entries ADD COLUMN writer BLOB;";

/// A database of a connection: what makes it as version 2 had it, and what makes it so of version 1, and of version 2
/// what it is now.
struct Tables {
    database: &'static str,
    new: &'static str,
    from_1: &'static str,
    from_2: &'static str,
}

const TABLES: [Tables; 2] = [
    Tables { database: "main", new: MAIL_TABLES, from_1: MAIL_FROM_1, from_2: MAIL_FROM_2 },
    Tables { database: "directory", new: DIRECTORY_TABLES, from_1: "", from_2: "" },
];

/// Opens the files for writing, and makes them where there are none.
pub(crate) fn open(directory: &Path) -> Result<Connection, StoreError> {
    for name in [MAIL, DIRECTORY] {
        check_untouched(&directory.join(name))?;
    }
    for name in [MAIL, DIRECTORY] {
        private_file(&directory.join(name))?;
    }
    sync_directory(directory)?;
    let connection = connect(directory)?;
    for tables in &TABLES {
        let database = tables.database;
        connection.execute_batch(&format!("PRAGMA {database}.page_size = {PAGE_SIZE}")).map_err(failed)?;
        make_tables(&connection, tables)?;
        let mode: String = connection
            .query_row(&format!("PRAGMA {database}.journal_mode = WAL"), [], |row| row.get(0))
            .map_err(failed)?;
        if mode != "wal" {
            return Err(StoreError::Failed(format!("SQLite has no write-ahead log here, but {mode}")));
        }
    }
    Ok(connection)
}

/// One more connection to files that exist.
pub(crate) fn connect(directory: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(directory.join(MAIL), flags).map_err(failed)?;
    let beside = directory.join(DIRECTORY);
    let beside = beside.to_str().ok_or_else(|| StoreError::Failed("the directory's name is not UTF-8".into()))?;
    connection.execute("ATTACH DATABASE ?1 AS directory", [beside]).map_err(failed)?;
    // FULL: an answer promises that a power cut does not undo it. `secure_delete`: what was removed is gone (C15).
    let settings = "PRAGMA main.synchronous = FULL; PRAGMA directory.synchronous = FULL; PRAGMA secure_delete = ON;
                    PRAGMA main.cache_size = -16384; PRAGMA directory.cache_size = -8192;";
    connection.execute_batch(settings).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Refuses the file of a newer program before SQLite opens it, which would write: to the log and, on closing, to the
/// file. The version is in the file's header, because `make_tables` sees to it.
fn check_untouched(path: &Path) -> Result<(), StoreError> {
    let mut header = Vec::new();
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(failed)?,
    };
    file.take(100).read_to_end(&mut header).map_err(failed)?;
    let found = header.get(60..64).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    if found > VERSION { Err(StoreError::Newer { found, known: VERSION }) } else { Ok(()) }
}

/// Makes the tables, or makes them of an older version, in one transaction.
fn make_tables(connection: &Connection, tables: &Tables) -> Result<(), StoreError> {
    let Tables { database, new, from_1, from_2 } = tables;
    let version: u32 =
        connection.query_row(&format!("PRAGMA {database}.user_version"), [], |row| row.get(0)).map_err(failed)?;
    let sql = match version {
        0 => [*new, from_2].concat(),
        1 => [*from_1, from_2].concat(),
        2 => (*from_2).to_owned(),
        VERSION => return Ok(()),
        found => return Err(StoreError::Newer { found, known: VERSION }),
    };
    let sql = format!("BEGIN IMMEDIATE; {sql} PRAGMA {database}.user_version = {VERSION}; COMMIT;");
    connection.execute_batch(&sql).map_err(failed)?;
    // An older file has a write-ahead log: an older program has to find the version in the header all the same.
    let checkpoint = format!("PRAGMA {database}.wal_checkpoint(TRUNCATE)");
    connection.query_row(&checkpoint, [], |_| Ok(())).map_err(failed)
}
