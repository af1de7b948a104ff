//! The client's store: SQLite, every value sealed with AES-256-GCM under a store key, every name behind a keyed hash.
//! Whoever has the file and not the key sees sizes and counts.
//!
//! The store key is random; it lies in the file, sealed under a key from a passphrase (Argon2id, RFC 9106: 64 MiB, three
//! passes) or from a key file of mode 0600. A failed load is an error and never "empty".

mod folder;
mod seal;

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use sealwire_engine::{Change, MessageState, StoredMessage, StoredQuarantine, StoredState, Table, Talk};
use zeroize::Zeroizing;

use folder::{lock, make_folder, make_private, outer_key};
use seal::{KeyAndValue, StoreKeys, random, seal, unseal};

/// The version of the layout. A store with a higher one is left untouched.
const LAYOUT: u32 = 1;
const FILE: &str = "client.db";

/// What opens a store.
pub enum Unlock {
    /// A passphrase that a person knows. Guessing costs 64 MiB and three passes of Argon2id each.
    Passphrase(Zeroizing<String>),
    /// A file with 32 random bytes, made with mode 0600 where there is none. Protects no better than the disk that it is on.
    KeyFile(PathBuf),
}

impl std::fmt::Debug for Unlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unlock::Passphrase(_) => "Passphrase(…)",
            Unlock::KeyFile(_) => "KeyFile(…)",
        })
    }
}

/// Why a store cannot be used. Each says what to try.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is none in that folder.
    #[error("there is no account in {0}; make one with `sealwire init`")]
    Missing(PathBuf),
    /// There is one already.
    #[error("there is an account in {0} already; nothing was changed")]
    Exists(PathBuf),
    /// Another process has it open.
    #[error("another program uses the account in {0}; close it first")]
    InUse(PathBuf),
    /// The passphrase is not the one.
    #[error("this is not the passphrase of this account; nothing was changed, try again")]
    WrongPassphrase,
    /// The key file is not the one, or is gone.
    #[error("the key file {0} does not open this account; nothing was changed")]
    WrongKeyFile(PathBuf),
    /// Others can read the key file.
    #[error("others can read the key file {0}, so it protects nothing: `chmod 600` it, and look who may have read it")]
    OpenKeyFile(PathBuf),
    /// The store was made with the other kind of lock.
    #[error("this account is locked with {0}")]
    OtherLock(&'static str),
    /// Written by a newer program.
    #[error(
        "this account was written by a newer version of Sealwire (layout {found}, this one knows {LAYOUT}); use that one, nothing was changed"
    )]
    Newer {
        /// The layout that was found.
        found: u32,
    },
    /// A record does not open: the file was damaged or altered.
    #[error("the account's store is damaged: {0}")]
    Damaged(&'static str),
    /// SQLite.
    #[error("the account's store failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file system.
    #[error("the account's store failed: {0}")]
    Io(#[from] std::io::Error),
}

/// An open store. One per folder, on this machine and in this moment: others are refused.
pub struct ClientStore {
    db: Connection,
    keys: StoreKeys,
    folder: PathBuf,
    _lock: File,
}

/// A record of the engine, as [`sealwire_engine::Engine::load`] takes it.
pub(crate) type LoadedRecord = (Table, Vec<u8>, Zeroizing<Vec<u8>>);

impl ClientStore {
    /// Makes a store in a folder that has none.
    ///
    /// # Errors
    /// [`StoreError`]; an existing store is left as it is.
    pub fn create(folder: &Path, unlock: &Unlock) -> Result<ClientStore, StoreError> {
        make_folder(folder)?;
        let lock = lock(folder)?;
        if folder.join(FILE).exists() {
            return Err(StoreError::Exists(folder.to_owned()));
        }
        make_private(&folder.join(FILE))?;
        let db = open_database(folder)?;
        let store_key = Zeroizing::new(random::<32>());
        let salt = random::<16>();
        let outer = outer_key(unlock, &salt, true)?;
        let sealed_key = seal(&outer, b"store-key", &*store_key);
        db.execute_batch(
            "BEGIN;
             CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
             CREATE TABLE record (kind INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL,
                                  PRIMARY KEY (kind, name)) WITHOUT ROWID;",
        )?;
        let lock_kind = match unlock {
            Unlock::Passphrase(_) => "passphrase",
            Unlock::KeyFile(_) => "key-file",
        };
        for (name, value) in [("lock", lock_kind.as_bytes()), ("salt", &salt[..]), ("store-key", &sealed_key)] {
            db.execute("INSERT INTO meta VALUES (?1, ?2)", params![name, value])?;
        }
        db.pragma_update(None, "user_version", LAYOUT)?;
        db.execute_batch("COMMIT")?;
        Ok(ClientStore { db, keys: StoreKeys::derive(&*store_key), folder: folder.to_owned(), _lock: lock })
    }

    /// Opens the store in a folder.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed.
    pub fn open(folder: &Path, unlock: &Unlock) -> Result<ClientStore, StoreError> {
        if !folder.join(FILE).exists() {
            return Err(StoreError::Missing(folder.to_owned()));
        }
        let lock = lock(folder)?;
        refuse_newer(folder)?;
        let db = open_database(folder)?;
        let meta = |name: &str| -> Result<Vec<u8>, StoreError> {
            let value = db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()?;
            value.ok_or(StoreError::Damaged("its key is missing"))
        };
        match (unlock, &meta("lock")?[..]) {
            (Unlock::Passphrase(_), b"passphrase") | (Unlock::KeyFile(_), b"key-file") => {}
            (_, b"passphrase") => return Err(StoreError::OtherLock("a passphrase")),
            _ => return Err(StoreError::OtherLock("a key file")),
        }
        let outer = outer_key(unlock, &meta("salt")?, false)?;
        let store_key = unseal(&outer, b"store-key", &meta("store-key")?).ok_or(match unlock {
            Unlock::Passphrase(_) => StoreError::WrongPassphrase,
            Unlock::KeyFile(path) => StoreError::WrongKeyFile(path.clone()),
        })?;
        let keys = StoreKeys::derive(&store_key);
        Ok(ClientStore { db, keys, folder: folder.to_owned(), _lock: lock })
    }

    /// Whether the store in a folder is locked with a passphrase, so that a person can be asked.
    ///
    /// # Errors
    /// [`StoreError::Missing`] and failures of the file.
    pub fn wants_passphrase(folder: &Path) -> Result<bool, StoreError> {
        if !folder.join(FILE).exists() {
            return Err(StoreError::Missing(folder.to_owned()));
        }
        refuse_newer(folder)?;
        let db = read_only(folder)?;
        let lock: Vec<u8> = db.query_row("SELECT value FROM meta WHERE name = 'lock'", [], |row| row.get(0))?;
        Ok(lock == b"passphrase")
    }

    /// Applies changes in one transaction, durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was applied.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let transaction = self.db.transaction()?;
        {
            let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO record VALUES (?1, ?2, ?3)")?;
            let mut delete = transaction.prepare_cached("DELETE FROM record WHERE kind = ?1 AND name = ?2")?;
            for change in changes {
                match change {
                    Change::Put { table, key, value } => {
                        let name = self.keys.name(*table, key);
                        put.execute(params![*table as u8, name, self.keys.seal_record(*table, &name, key, value)])?;
                    }
                    Change::Delete { table, key } => {
                        delete.execute(params![*table as u8, self.keys.name(*table, key)])?;
                    }
                }
            }
        }
        Ok(transaction.commit()?)
    }

    /// The records that the engine starts from.
    ///
    /// # Errors
    /// [`StoreError`]; a record that does not open is [`StoreError::Damaged`].
    pub(crate) fn load(&self) -> Result<Vec<LoadedRecord>, StoreError> {
        let mut records = Vec::new();
        for table in Table::LOADED {
            records.extend(self.scan(table, &[], u32::MAX)?.into_iter().map(|(key, value)| (table, key, value)));
        }
        Ok(records)
    }

    /// Messages with a person or in a group, oldest first: the newest `limit` before number `before`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn messages(&self, with: Talk, before: u64, limit: u32) -> Result<Vec<StoredMessage>, StoreError> {
        let from = self.keys.name(Table::Message, &message_key(with, 0));
        let to = self.keys.name(Table::Message, &message_key(with, before));
        let mut rows = self.db.prepare_cached(
            "SELECT name, value FROM record WHERE kind = ?1 AND name >= ?2 AND name < ?3 ORDER BY name DESC LIMIT ?4",
        )?;
        let rows =
            rows.query_map(params![Table::Message as u8, from, to, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut messages = Vec::new();
        for row in rows {
            let (name, value): (Vec<u8>, Vec<u8>) = row?;
            let (key, value) = self.keys.open_record(Table::Message, &name, &value)?;
            messages.push(StoredMessage::decode(&key, &value).ok_or(StoreError::Damaged("a message"))?);
        }
        messages.reverse();
        Ok(messages)
    }

    /// Incoming messages behind a number that the application has not processed, at most `limit`, oldest first, and
    /// whether each is a stranger's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unshown(&self, after: u64, limit: u32) -> Result<Vec<(sealwire_engine::Incoming, bool)>, StoreError> {
        let records = self.scan(Table::Unshown, &after.saturating_add(1).to_be_bytes(), limit)?;
        let decode = |(key, value): &KeyAndValue| {
            StoredMessage::decode_unshown(key, value).ok_or(StoreError::Damaged("a message"))
        };
        records.iter().map(decode).collect()
    }

    /// The state of an outgoing message; `None` if there is none of that number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn state(&self, number: u64) -> Result<Option<MessageState>, StoreError> {
        for table in [Table::Sent, Table::Outgoing] {
            let name = self.keys.name(table, &number.to_be_bytes());
            let mut row = self.db.prepare_cached("SELECT value FROM record WHERE kind = ?1 AND name = ?2")?;
            let value: Option<Vec<u8>> = row.query_row(params![table as u8, name], |row| row.get(0)).optional()?;
            if let Some(value) = value {
                let (_, value) = self.keys.open_record(table, &name, &value)?;
                return Ok(StoredState::decode(table, &value));
            }
        }
        Ok(None)
    }

    /// What was rejected, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn quarantine(&self) -> Result<Vec<StoredQuarantine>, StoreError> {
        let decode = |(_, value): &KeyAndValue| {
            StoredQuarantine::decode(value).ok_or(StoreError::Damaged("a quarantine record"))
        };
        let rejected = self.scan(Table::Quarantine, &[], u32::MAX)?;
        let mut rejected = rejected.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        rejected.sort_by_key(|rejected| rejected.at);
        Ok(rejected)
    }

    /// A setting of the program around the engine, such as the relay's address. Not secret, not sealed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = format!("setting-{name}");
        let value = self.db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get::<_, Vec<u8>>(0));
        Ok(value.optional()?.and_then(|value| String::from_utf8(value).ok()))
    }

    /// Keeps a setting.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_setting(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let name = format!("setting-{name}");
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![name, value.as_bytes()])?;
        Ok(())
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Records of a table from a key on, where keys keep their order; all records where `from` is empty.
    fn scan(&self, table: Table, from: &[u8], limit: u32) -> Result<Vec<KeyAndValue>, StoreError> {
        let mut rows = self
            .db
            .prepare_cached("SELECT name, value FROM record WHERE kind = ?1 AND name >= ?2 ORDER BY name LIMIT ?3")?;
        let rows = rows.query_map(params![table as u8, from, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut records = Vec::new();
        for row in rows {
            let (name, value): (Vec<u8>, Vec<u8>) = row?;
            records.push(self.keys.open_record(table, &name, &value)?);
        }
        Ok(records)
    }
}

fn message_key(talk: Talk, number: u64) -> Vec<u8> {
    [&StoredMessage::prefix(talk)[..], &number.to_be_bytes()].concat()
}

fn open_database(folder: &Path) -> Result<Connection, StoreError> {
    let db = Connection::open(folder.join(FILE))?;
    // Of a new file. A step changes a few small records that lie apart: with SQLite's 4,096 it writes 2.3 times as much
    // (bench engine: 85 KB for a message of 256 B from send to shown, against 37).
    db.pragma_update(None, "page_size", 1_024)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "secure_delete", "ON")?;
    Ok(db)
}

fn read_only(folder: &Path) -> Result<Connection, StoreError> {
    Ok(Connection::open_with_flags(folder.join(FILE), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?)
}

/// Before anything is opened for writing.
fn refuse_newer(folder: &Path) -> Result<(), StoreError> {
    let found: u32 = read_only(folder)?.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        0 => Err(StoreError::Damaged("it was never finished; delete the folder and begin again")),
        found if found > LAYOUT => Err(StoreError::Newer { found }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
