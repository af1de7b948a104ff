//! The client's store. Whoever has its folder and not its key sees sizes and counts.
//!
//! - `client.db`: SQLite, every value sealed with AES-256-GCM, every name behind a keyed hash.
//! - `client.journal`: the steps since the database was last written, each one frame ([`journal`]).
//! - `client.keys`: keys of what has to be gone once it is replaced: ratchets, private keys, journals ([`key_slots`]).
//!
//! A step is durable once it is in the journal. Now and then what the steps have come to is folded into the database, in
//! one transaction; then a new journal is begun, and the keys of what was replaced are overwritten (C15): when the journal
//! is long, an hour after it was begun, 10 seconds after a secret was deleted, as by each MLS commit, and when a store is
//! opened that has steps which are not in its database.
//!
//! The store key is random; it lies in the database, sealed under a key from a passphrase (Argon2id, RFC 9106: 64 MiB,
//! three passes) or from a key file of mode 0600. A failed load is an error and never "empty".

mod folder;
mod journal;
mod key_slots;
mod seal;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};
use sealwire_engine::{Change, MessageState, StoredMessage, StoredQuarantine, StoredState, Table, Talk};
use zeroize::Zeroizing;

use folder::{lock, make_folder, make_private, outer_key};
use journal::Journal;
use key_slots::{KeySlots, Slot};
use seal::{KeyAndValue, StoreKeys, open_record, random, seal, seal_record, unseal};

/// The version of the layout. A store with a higher one is left untouched.
pub(crate) const LAYOUT: u32 = 2;
const FILE: &str = "client.db";
const KEYS: &str = "client.keys";
/// Bytes of a journal that are folded.
const JOURNAL_MAX: u64 = 1024 * 1024;
/// Bytes of a journal that cannot be folded, because the database takes nothing: then nothing more is taken.
const JOURNAL_LIMIT: u64 = 64 * JOURNAL_MAX;
/// How long after a fold that failed the next one is tried.
const FOLD_AGAIN: Duration = Duration::from_secs(10);
/// Seconds after which a journal is folded, so that what it says of ratchets is gone.
const JOURNAL_AGE_MAX: u64 = 3_600;
/// How long what was deleted may still be there: many commits at once are folded once.
const ERASE_WITHIN: Duration = Duration::from_secs(10);

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
    slots: KeySlots,
    /// `None` after a write that failed: what is in the file is not known, and it is replaced before anything is appended.
    journal: Option<Journal>,
    /// The number of the step that comes next. That of one that failed is not used again.
    next_step: u64,
    /// The steps of the journal that are not in the database: what each record has become. `None`: it is gone.
    unfolded: BTreeMap<Place, Option<KeyAndValue>>,
    /// Where the keys of records are that the database has sealed under keys of their own.
    slot_of: BTreeMap<Place, Slot>,
    /// Keys of what is in no file any more, or may not be.
    obsolete: BTreeSet<Slot>,
    /// When what was deleted has to be gone.
    erase_at: Option<Instant>,
    /// When a fold is tried again, after one that failed.
    fold_again_at: Option<Instant>,
    /// Whether it was opened to the end: one that was not is left as it is.
    is_open: bool,
    folder: PathBuf,
    _lock: File,
}

/// A record's table, and its name on disk.
type Place = (Table, Vec<u8>);

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
            "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
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
        let slots = KeySlots::create(&folder.join(KEYS))?;
        let mut store = ClientStore::assemble(db, StoreKeys::derive(&*store_key), slots, folder, lock);
        store.finish()?;
        Ok(store)
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
        if version(&db)? < LAYOUT {
            let slots = KeySlots::create(&folder.join(KEYS))?;
            let mut store = ClientStore::assemble(db, keys, slots, folder, lock);
            store.take_over_from_layout_1()?;
            return Ok(store);
        }
        let slots = KeySlots::open(&folder.join(KEYS))?;
        let mut store = ClientStore::assemble(db, keys, slots, folder, lock);
        store.read_journal()?;
        Ok(store)
    }

    fn assemble(db: Connection, keys: StoreKeys, slots: KeySlots, folder: &Path, lock: File) -> ClientStore {
        let (unfolded, slot_of, obsolete) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let folder = folder.to_owned();
        ClientStore {
            db,
            keys,
            slots,
            journal: None,
            next_step: 1,
            unfolded,
            slot_of,
            obsolete,
            erase_at: None,
            fold_again_at: None,
            is_open: false,
            folder,
            _lock: lock,
        }
    }

    fn read_journal(&mut self) -> Result<(), StoreError> {
        let folded = self.folded()?;
        let (journal, steps) = Journal::open(&self.folder, &self.slots, &self.keys.seal)?;
        let is_behind = journal.next() <= folded;
        if journal.first() > folded + 1 {
            return Err(StoreError::Damaged("its database is older than its journal: a folder is copied whole"));
        }
        for table in Table::ALL.into_iter().filter(|table| has_own_key(*table)) {
            let mut rows = self.db.prepare_cached("SELECT name, substr(value, 1, 4) FROM record WHERE kind = ?1")?;
            let rows = rows.query_map([table as u8], |row| Ok((row.get(0)?, row.get(1)?)))?;
            for row in rows {
                let (name, slot): (Vec<u8>, Vec<u8>) = row?;
                let slot = slot.try_into().map_err(|_| StoreError::Damaged("a record does not open"))?;
                self.slot_of.insert((table, name), Slot::from_be_bytes(slot));
            }
        }
        let used = self.slot_of.values().copied().chain([journal.slot()]).collect();
        self.obsolete.extend(self.slots.all_but(&used));
        self.next_step = journal.next().max(folded + 1);
        if is_behind {
            // What would be appended to it would be taken for a step that is in the database.
            self.obsolete.insert(journal.slot());
        } else {
            self.journal = Some(journal);
        }
        for (number, changes) in steps {
            if number > folded {
                self.take_in(&changes);
            }
        }
        self.is_open = true;
        if !self.unfolded.is_empty() || !self.obsolete.is_empty() {
            // What a killed process wrote, and had not synced, is made durable before any key is erased because of it. Where
            // there is no room for that, the store can be read nevertheless.
            let _ = self.fold();
        }
        Ok(())
    }

    /// Of a store that has no version yet, or an earlier one: it has this one together with all that belongs to it.
    fn finish(&mut self) -> Result<(), StoreError> {
        self.begin_journal()?;
        self.fold()?;
        self.is_open = true;
        Ok(())
    }

    fn begin_journal(&mut self) -> Result<(), StoreError> {
        let (slot, key) = self.slots.take(&self.keys.seal);
        self.slots.sync().inspect_err(|_| self.slots.give_back([slot]))?;
        // Should this fail, whether the journal is there is not known: its key goes once another one is.
        self.obsolete.insert(slot);
        self.journal = Some(Journal::begin(&self.folder, &self.keys.seal, (slot, key), self.next_step)?);
        self.obsolete.remove(&slot);
        Ok(())
    }

    /// Layout 1 had no journal, and sealed everything under the store's key.
    fn take_over_from_layout_1(&mut self) -> Result<(), StoreError> {
        for table in Table::ALL.into_iter().filter(|table| has_own_key(*table)) {
            let mut rows = self.db.prepare_cached("SELECT name, value FROM record WHERE kind = ?1")?;
            let rows = rows.query_map([table as u8], |row| Ok((row.get(0)?, row.get(1)?)))?;
            for row in rows {
                let (name, value): (Vec<u8>, Vec<u8>) = row?;
                let record = open_record(&self.keys.seal, table, &name, &value)?;
                self.unfolded.insert((table, name), Some(record));
            }
        }
        {
            // What was rejected is told in another form now.
            let mut names = self.db.prepare_cached("SELECT name FROM record WHERE kind = ?1")?;
            for name in names.query_map([Table::Quarantine as u8], |row| row.get(0))? {
                self.unfolded.insert((Table::Quarantine, name?), None);
            }
        }
        self.finish()
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
        let db = peek(folder)?;
        let lock: Vec<u8> = db.query_row("SELECT value FROM meta WHERE name = 'lock'", [], |row| row.get(0))?;
        Ok(lock == b"passphrase")
    }

    /// Applies changes, all or none, durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was applied.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        if self.journal.is_none() {
            self.fold()?;
        }
        if self.journal.as_ref().is_some_and(|journal| journal.length() > JOURNAL_LIMIT) {
            return Err(std::io::Error::other("the database takes nothing, and the journal is full; make room").into());
        }
        let appended = self.journal.as_mut().expect("a fold begins one").append(changes);
        #[cfg(test)]
        let appended = appended.and_then(|()| tests::sync_of(&self.folder));
        if let Err(error) = appended {
            self.obsolete.extend(self.journal.take().map(|journal| journal.slot()));
            self.next_step += 1;
            // It may be there nevertheless, and must not come back.
            let _ = self.fold();
            return Err(error);
        }
        self.next_step += 1;
        self.take_in(changes);
        // These are durable, whatever becomes of a fold. One that failed is tried again by the next step.
        let _ = self.tidy();
        Ok(())
    }

    /// Folds the journal into the database where it is time to. [`ClientStore::commit`] does so too: this is for those who
    /// have had nothing to commit for a while.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is lost, and what was to be erased is not yet.
    pub fn tidy(&mut self) -> Result<(), StoreError> {
        if !self.is_fold_due() {
            return Ok(());
        }
        self.fold()
    }

    /// How long until [`ClientStore::tidy`] has something to do, as far as is known.
    pub fn tidy_within(&self) -> Option<Duration> {
        let at = self.fold_again_at.or(self.erase_at)?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    fn is_fold_due(&self) -> bool {
        let is_full = |journal: &Journal| journal.length() > JOURNAL_MAX || journal.age() >= JOURNAL_AGE_MAX;
        let is_over = |at: Instant| at <= Instant::now();
        let is_wanted = !self.unfolded.is_empty() || !self.obsolete.is_empty() || self.journal.is_none();
        is_wanted
            && match self.fold_again_at {
                // Whatever the one that failed was for.
                Some(at) => is_over(at),
                None => self.journal.as_ref().is_none_or(is_full) || self.erase_at.is_some_and(is_over),
            }
    }

    fn take_in(&mut self, changes: &[Change]) {
        for change in changes {
            let (table, key) = change.record();
            let value = match change {
                Change::Put { value, .. } => Some((key.to_vec(), value.clone())),
                Change::Delete { .. } => None,
            };
            if value.is_none() && has_own_key(table) {
                self.erase_at.get_or_insert_with(|| Instant::now() + ERASE_WITHIN);
            }
            self.unfolded.insert((table, self.keys.name(table, key)), value);
        }
    }

    /// Writes what the journal's steps have come to into the database, begins a new journal, and destroys the keys of what
    /// was replaced. Wherever this ends, a store that is opened again has all steps, once.
    fn fold(&mut self) -> Result<(), StoreError> {
        // Until it is done.
        self.fold_again_at = Some(Instant::now() + FOLD_AGAIN);
        self.write_unfolded()?;
        self.unfolded.clear();
        let before = self.journal.take().map(|journal| journal.slot());
        self.obsolete.extend(before);
        self.begin_journal()?;
        self.slots.erase(self.obsolete.iter().copied())?;
        self.obsolete.clear();
        (self.erase_at, self.fold_again_at) = (None, None);
        Ok(())
    }

    fn write_unfolded(&mut self) -> Result<(), StoreError> {
        let mut taken = BTreeMap::new();
        let mut sealed = Vec::with_capacity(self.unfolded.len());
        for (place, record) in &self.unfolded {
            let (table, name) = place;
            let row = record.as_ref().map(|(key, value)| match has_own_key(*table) {
                false => seal_record(&self.keys.seal, *table, name, key, value),
                true => {
                    let (slot, own) = self.slots.take(&self.keys.seal);
                    taken.insert(place.clone(), slot);
                    [&slot.to_be_bytes()[..], &seal_record(&own, *table, name, key, value)].concat()
                }
            });
            sealed.push((place, row));
        }
        if let Err(error) = self.slots.sync() {
            self.slots.give_back(taken.into_values());
            return Err(error);
        }
        if let Err(error) = write_rows(&self.db, &sealed, self.next_step - 1) {
            // A transaction that failed may be there nevertheless: these are kept until another took its place.
            self.obsolete.extend(taken.into_values());
            return Err(error);
        }
        for (place, record) in &self.unfolded {
            let replaced = match taken.remove(place).filter(|_| record.is_some()) {
                Some(slot) => self.slot_of.insert(place.clone(), slot),
                None => self.slot_of.remove(place),
            };
            self.obsolete.extend(replaced);
        }
        Ok(())
    }

    /// The number of the last step that is in the database.
    fn folded(&self) -> Result<u64, StoreError> {
        let folded: Vec<u8> =
            self.db.query_row("SELECT value FROM meta WHERE name = 'folded'", [], |row| row.get(0))?;
        Ok(u64::from_be_bytes(folded.try_into().map_err(|_| StoreError::Damaged("how far it was written"))?))
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
        let rows = self.rows(Table::Message, &from, Some(&to), limit, Order::NewestFirst)?;
        let decode =
            |(key, value): &KeyAndValue| StoredMessage::decode(key, value).ok_or(StoreError::Damaged("a message"));
        rows.iter().rev().map(decode).collect()
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
            if let Some((_, value)) = self.row(table, name)? {
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
        self.rows(table, from, None, limit, Order::OldestFirst)
    }

    /// A record, as the steps left it.
    fn row(&self, table: Table, name: Vec<u8>) -> Result<Option<KeyAndValue>, StoreError> {
        let place = (table, name);
        if let Some(record) = self.unfolded.get(&place) {
            return Ok(record.clone());
        }
        let mut row = self.db.prepare_cached("SELECT value FROM record WHERE kind = ?1 AND name = ?2")?;
        let value: Option<Vec<u8>> = row.query_row(params![table as u8, place.1], |row| row.get(0)).optional()?;
        value.map(|value| self.open_row(table, &place.1, &value)).transpose()
    }

    /// Records whose names are from `from` on and before `to`, in their names' order or from its end.
    fn rows(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        limit: u32,
        order: Order,
    ) -> Result<Vec<KeyAndValue>, StoreError> {
        let unfolded: Vec<_> = self
            .unfolded
            .range((table, from.to_vec())..)
            .take_while(|((of, name), _)| *of == table && to.is_none_or(|to| &name[..] < to))
            .collect();
        let direction = match order {
            Order::OldestFirst => "ASC",
            Order::NewestFirst => "DESC",
        };
        let mut rows = self.db.prepare_cached(&format!(
            "SELECT name, value FROM record WHERE kind = ?1 AND name >= ?2 AND (?3 IS NULL OR name < ?3)
             ORDER BY name {direction} LIMIT ?4"
        ))?;
        // So many more as may have been replaced or deleted since.
        let enough = u64::from(limit) + unfolded.len() as u64;
        let rows =
            rows.query_map(params![table as u8, from, to, enough as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut sealed = BTreeMap::new();
        for row in rows {
            let (name, value): (Vec<u8>, Vec<u8>) = row?;
            sealed.insert(name, value);
        }
        let mut found: BTreeMap<&[u8], Option<&KeyAndValue>> = sealed.keys().map(|name| (&name[..], None)).collect();
        for ((_, name), record) in unfolded {
            match record {
                Some(record) => drop(found.insert(name, Some(record))),
                None => drop(found.remove(&name[..])),
            }
        }
        let open = |(name, record): (&[u8], Option<&KeyAndValue>)| match record {
            Some(record) => Ok(record.clone()),
            None => self.open_row(table, name, &sealed[name]),
        };
        match order {
            Order::OldestFirst => found.into_iter().take(limit as usize).map(open).collect(),
            Order::NewestFirst => found.into_iter().rev().take(limit as usize).map(open).collect(),
        }
    }

    fn open_row(&self, table: Table, name: &[u8], value: &[u8]) -> Result<KeyAndValue, StoreError> {
        if !has_own_key(table) {
            return open_record(&self.keys.seal, table, name, value);
        }
        let (slot, sealed) = value.split_first_chunk().ok_or(StoreError::Damaged("a record does not open"))?;
        let own = self.slots.read(&self.keys.seal, Slot::from_be_bytes(*slot))?;
        let own = own.ok_or(StoreError::Damaged("the key of a record is gone: a folder is copied whole"))?;
        open_record(&own, table, name, sealed)
    }
}

impl Drop for ClientStore {
    /// What is to be gone soon is not left for the next time, which may never come. A process that is killed leaves it until
    /// the store is opened again.
    fn drop(&mut self) {
        if self.is_open && (self.erase_at.is_some() || !self.obsolete.is_empty()) {
            let _ = self.fold();
        }
    }
}

#[derive(Clone, Copy)]
enum Order {
    OldestFirst,
    NewestFirst,
}

/// Whether what a table held is to be gone from the disk once it is replaced or deleted: ratchets and private keys.
fn has_own_key(table: Table) -> bool {
    matches!(table, Table::Own | Table::Mls | Table::KeyPackage)
}

/// In one transaction: rows that are there or gone, and which steps they come from.
fn write_rows(db: &Connection, rows: &[(&Place, Option<Vec<u8>>)], folded: u64) -> Result<(), StoreError> {
    let transaction = db.unchecked_transaction()?;
    {
        let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO record VALUES (?1, ?2, ?3)")?;
        let mut delete = transaction.prepare_cached("DELETE FROM record WHERE kind = ?1 AND name = ?2")?;
        for ((table, name), row) in rows {
            match row {
                Some(row) => put.execute(params![*table as u8, name, row])?,
                None => delete.execute(params![*table as u8, name])?,
            };
        }
        let folded = &folded.to_be_bytes()[..];
        transaction.execute("INSERT OR REPLACE INTO meta VALUES ('folded', ?1)", [folded])?;
        if version(&transaction)? < LAYOUT {
            transaction.pragma_update(None, "user_version", LAYOUT)?;
        }
    }
    Ok(transaction.commit()?)
}

fn message_key(talk: Talk, number: u64) -> Vec<u8> {
    [&StoredMessage::prefix(talk)[..], &number.to_be_bytes()].concat()
}

fn open_database(folder: &Path) -> Result<Connection, StoreError> {
    let db = Connection::open(folder.join(FILE))?;
    // Of a new file. A fold changes small records that lie apart.
    db.pragma_update(None, "page_size", 1_024)?;
    // A fold appends more than it changes: with a rollback journal, what is new is written once and not twice; and what was
    // deleted does not stay in a log.
    db.pragma_update(None, "journal_mode", "TRUNCATE")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "secure_delete", "ON")?;
    Ok(db)
}

/// Without changing anything, but for what a process has left in the middle of a transaction: that is taken back first, which
/// a connection that only reads may not do.
fn peek(folder: &Path) -> Result<Connection, StoreError> {
    Ok(Connection::open_with_flags(folder.join(FILE), rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)?)
}

fn version(db: &Connection) -> Result<u32, StoreError> {
    Ok(db.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Before anything is opened for writing.
fn refuse_newer(folder: &Path) -> Result<(), StoreError> {
    match version(&peek(folder)?)? {
        0 => Err(StoreError::Damaged("it was never finished; delete the folder and begin again")),
        found if found > LAYOUT => Err(StoreError::Newer { found }),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
