//! The client's store: SQLite, every value sealed with AES-256-GCM under a store key, every name behind a keyed hash.
//! Whoever has the file and not the key sees sizes and counts.
//!
//! The store key is random; it lies in the file, sealed under a key from a passphrase (Argon2id, RFC 9106: 64 MiB, three
//! passes) or from a key file of mode 0600. A failed load is an error and never "empty".

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use argon2::{Algorithm, Argon2, Params, Version};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use rusqlite::{Connection, OptionalExtension, params};
use sealwire_engine::{Change, MessageState, StoredMessage, StoredQuarantine, StoredState, Table, Talk};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The version of the layout. A store with a higher one is left untouched.
const LAYOUT: u32 = 1;
const FILE: &str = "client.db";
const LOCK: &str = "LOCK";

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

struct StoreKeys {
    seal: Aes256Gcm,
    names: Zeroizing<[u8; 32]>,
}

/// A record's key, as the engine knows it, and its value.
type KeyAndValue = (Vec<u8>, Zeroizing<Vec<u8>>);

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

impl StoreKeys {
    fn derive(store_key: &[u8]) -> StoreKeys {
        let hkdf = Hkdf::<Sha256>::new(None, store_key);
        let subkey = |info: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            hkdf.expand(info, &mut *key).expect("32 bytes are within HKDF's 255 * 32");
            key
        };
        let seal = Aes256Gcm::new_from_slice(&*subkey(b"sealwire/store/v1/seal")).expect("32 bytes are a key");
        StoreKeys { seal, names: subkey(b"sealwire/store/v1/names") }
    }

    /// The name of a record on disk. Numbers keep their order and say nothing; ids are hidden behind a keyed hash.
    fn name(&self, table: Table, key: &[u8]) -> Vec<u8> {
        let hidden = |part: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(&*self.names).expect("HMAC takes keys of any length");
            mac.update(&[table as u8]);
            mac.update(part);
            mac.finalize().into_bytes()[..16].to_vec()
        };
        match table {
            Table::Outgoing | Table::Sent | Table::Unshown | Table::Held | Table::Quarantine => key.to_vec(),
            Table::Message => {
                let (account, number) = key.split_at(key.len().min(32));
                [&hidden(account)[..], number].concat()
            }
            _ => hidden(key),
        }
    }

    /// IV, then AES-256-GCM of key and value; associated data: layout, table, name.
    fn seal_record(&self, table: Table, name: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut plain = Zeroizing::new(Vec::with_capacity(2 + key.len() + value.len()));
        plain.extend_from_slice(&(key.len() as u16).to_be_bytes());
        plain.extend_from_slice(key);
        plain.extend_from_slice(value);
        seal(&self.seal, &associated_data(table, name), &plain)
    }

    fn open_record(&self, table: Table, name: &[u8], sealed: &[u8]) -> Result<KeyAndValue, StoreError> {
        let damaged = StoreError::Damaged("a record does not open");
        let Some(plain) = unseal(&self.seal, &associated_data(table, name), sealed) else { return Err(damaged) };
        let Some((length, rest)) = plain.split_first_chunk::<2>() else { return Err(damaged) };
        let Some((key, value)) = rest.split_at_checked(u16::from_be_bytes(*length) as usize) else {
            return Err(damaged);
        };
        Ok((key.to_vec(), Zeroizing::new(value.to_vec())))
    }
}

fn associated_data(table: Table, name: &[u8]) -> Vec<u8> {
    [&LAYOUT.to_be_bytes()[..], &[table as u8], name].concat()
}

fn message_key(talk: Talk, number: u64) -> Vec<u8> {
    [&StoredMessage::prefix(talk)[..], &number.to_be_bytes()].concat()
}

fn seal(cipher: &Aes256Gcm, associated: &[u8], plain: &[u8]) -> Vec<u8> {
    let iv = random::<12>();
    let mut sealed = Vec::with_capacity(plain.len() + 16);
    sealed.extend_from_slice(plain);
    cipher
        .encrypt_in_place(&Nonce::from(iv), associated, &mut sealed)
        .expect("a record is far below AES-GCM's length limit");
    [&iv[..], &sealed].concat()
}

fn unseal(cipher: &Aes256Gcm, associated: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (iv, sealed) = sealed.split_first_chunk::<12>()?;
    let mut plain = sealed.to_vec();
    cipher.decrypt_in_place(&Nonce::from(*iv), associated, &mut plain).ok()?;
    Some(Zeroizing::new(plain))
}

fn outer_key(unlock: &Unlock, salt: &[u8], may_make: bool) -> Result<Aes256Gcm, StoreError> {
    let mut key = Zeroizing::new([0; 32]);
    match unlock {
        Unlock::Passphrase(passphrase) => {
            let cost = Params::new(64 * 1024, 3, 1, Some(32)).expect("64 MiB, 3 passes and 1 lane are within bounds");
            Argon2::new(Algorithm::Argon2id, Version::V0x13, cost)
                .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
                .map_err(|_| StoreError::Damaged("its salt"))?;
        }
        Unlock::KeyFile(path) => read_key_file(path, may_make, &mut key)?,
    }
    Ok(Aes256Gcm::new_from_slice(&*key).expect("32 bytes are a key"))
}

fn read_key_file(path: &Path, may_make: bool, key: &mut [u8; 32]) -> Result<(), StoreError> {
    if may_make && !path.exists() {
        let mut file = make_private(path)?;
        file.write_all(&*Zeroizing::new(random::<32>()))?;
        // Durable before anything is sealed under it: a store without its key is lost.
        file.sync_all()?;
        sync_folder_of(path)?;
    }
    let wrong = |_| StoreError::WrongKeyFile(path.to_owned());
    let mut file = File::open(path).map_err(wrong)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            return Err(StoreError::OpenKeyFile(path.to_owned()));
        }
    }
    file.read_exact(key).map_err(wrong)
}

/// Makes a new file's name durable, where a folder can be synced.
fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Makes a folder and those above it, each with a durable name.
fn make_folder(folder: &Path) -> Result<(), StoreError> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    fs::create_dir_all(folder)?;
    missing.into_iter().rev().try_for_each(sync_folder_of)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Makes a file that only its owner can read.
fn make_private(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    Ok(options.open(path)?)
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse(folder.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
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
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Unlock {
        Unlock::Passphrase(Zeroizing::new(text.into()))
    }

    fn put(table: Table, key: &[u8], value: &[u8]) -> Change {
        Change::Put { table, key: key.to_vec(), value: Zeroizing::new(value.to_vec()) }
    }

    fn key_file(folder: &Path) -> Unlock {
        Unlock::KeyFile(folder.join("key"))
    }

    #[test]
    fn records_come_back_and_deleted_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let unlock = key_file(folder.path());
        let mut store = ClientStore::create(folder.path(), &unlock).unwrap();
        store.commit(&[put(Table::Contact, b"a", b"1"), put(Table::Contact, b"b", b"2")]).unwrap();
        store.commit(&[Change::Delete { table: Table::Contact, key: b"a".to_vec() }]).unwrap();
        drop(store);
        let records = ClientStore::open(folder.path(), &unlock).unwrap().load().unwrap();
        assert_eq!(records, [(Table::Contact, b"b".to_vec(), Zeroizing::new(b"2".to_vec()))]);
    }

    #[test]
    fn a_wrong_passphrase_says_so_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(ClientStore::create(folder.path(), &passphrase("right")).unwrap());
        let before = fs::read(folder.path().join(FILE)).unwrap();
        assert!(ClientStore::wants_passphrase(folder.path()).unwrap());
        assert!(matches!(ClientStore::open(folder.path(), &passphrase("wrong")), Err(StoreError::WrongPassphrase)));
        assert!(matches!(ClientStore::open(folder.path(), &key_file(folder.path())), Err(StoreError::OtherLock(_))));
        assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), before);
        assert!(ClientStore::open(folder.path(), &passphrase("right")).is_ok());
    }

    #[test]
    fn a_second_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let unlock = key_file(folder.path());
        let store = ClientStore::create(folder.path(), &unlock).unwrap();
        assert!(matches!(ClientStore::open(folder.path(), &unlock), Err(StoreError::InUse(_))));
        drop(store);
        assert!(ClientStore::open(folder.path(), &unlock).is_ok());
    }

    #[test]
    fn an_account_is_never_overwritten_and_none_is_never_empty() {
        let folder = tempfile::tempdir().unwrap();
        let unlock = key_file(folder.path());
        assert!(matches!(ClientStore::open(folder.path(), &unlock), Err(StoreError::Missing(_))));
        drop(ClientStore::create(folder.path(), &unlock).unwrap());
        assert!(matches!(ClientStore::create(folder.path(), &unlock), Err(StoreError::Exists(_))));
        fs::remove_file(folder.path().join("key")).unwrap();
        assert!(matches!(ClientStore::open(folder.path(), &unlock), Err(StoreError::WrongKeyFile(_))));
    }

    #[test]
    fn a_newer_store_is_refused_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let unlock = key_file(folder.path());
        drop(ClientStore::create(folder.path(), &unlock).unwrap());
        let db = Connection::open(folder.path().join(FILE)).unwrap();
        db.pragma_update(None, "user_version", LAYOUT + 1).unwrap();
        drop(db);
        let before = fs::read(folder.path().join(FILE)).unwrap();
        assert!(matches!(ClientStore::open(folder.path(), &unlock), Err(StoreError::Newer { found: 2 })));
        assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), before);
    }

    /// A failed load is an error and never "empty"; a value is sealed to its table and name (HR-15).
    #[test]
    fn a_record_that_was_altered_or_moved_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let unlock = key_file(folder.path());
        let mut store = ClientStore::create(folder.path(), &unlock).unwrap();
        store.commit(&[put(Table::Contact, b"a", b"1"), put(Table::Channel, b"a", b"2")]).unwrap();
        for tamper in [
            "UPDATE record SET value = zeroblob(40) WHERE kind = 2",
            "UPDATE record SET value = (SELECT value FROM record WHERE kind = 4) WHERE kind = 2",
        ] {
            let saved: Vec<u8> =
                store.db.query_row("SELECT value FROM record WHERE kind = 2", [], |r| r.get(0)).unwrap();
            store.db.execute(tamper, []).unwrap();
            assert!(matches!(store.load(), Err(StoreError::Damaged(_))), "{tamper}");
            store.db.execute("UPDATE record SET value = ?1 WHERE kind = 2", [saved]).unwrap();
        }
        assert_eq!(store.load().unwrap().len(), 2);
    }

    /// L: neither names nor values lie readable in the files.
    #[test]
    fn nothing_lies_readable_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = ClientStore::create(folder.path(), &key_file(folder.path())).unwrap();
        store.commit(&[put(Table::Handle, b"alice@relay", b"canary-value")]).unwrap();
        for file in fs::read_dir(folder.path()).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            for word in [&b"canary"[..], b"alice"] {
                assert!(!bytes.windows(word.len()).any(|window| window == word));
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let unlock = key_file(folder.path());
        drop(ClientStore::create(folder.path(), &unlock).unwrap());
        let path = folder.path().join("key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(ClientStore::open(folder.path(), &unlock), Err(StoreError::OpenKeyFile(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(ClientStore::open(folder.path(), &unlock).is_ok());
    }
}
