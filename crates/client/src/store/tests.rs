use std::fs;

use std::sync::Mutex;

use super::*;

/// Folders on a disk that fails to sync.
static FAILING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// From now on, or not any more.
pub(crate) fn fails(folder: &Path, does: bool) {
    let mut failing = FAILING.lock().unwrap();
    failing.retain(|other| other != folder);
    failing.extend(does.then(|| folder.to_owned()));
}

pub(super) fn sync_of(folder: &Path) -> Result<(), StoreError> {
    let fails = FAILING.lock().unwrap().iter().any(|failing| failing == folder);
    if fails { Err(std::io::Error::other("a disk that fails").into()) } else { Ok(()) }
}

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
    assert!(matches!(ClientStore::open(folder.path(), &unlock), Err(StoreError::Newer { found: 3 })));
    assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), before);
}

/// A failed load is an error and never "empty"; a value is sealed to its table and name (HR-15).
#[test]
fn a_record_that_was_altered_or_moved_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let unlock = key_file(folder.path());
    let mut store = ClientStore::create(folder.path(), &unlock).unwrap();
    store.commit(&[put(Table::Contact, b"a", b"1"), put(Table::Channel, b"a", b"2")]).unwrap();
    store.fold().unwrap();
    for tamper in [
        "UPDATE record SET value = zeroblob(40) WHERE kind = 2",
        "UPDATE record SET value = (SELECT value FROM record WHERE kind = 4) WHERE kind = 2",
    ] {
        let saved: Vec<u8> = store.db.query_row("SELECT value FROM record WHERE kind = 2", [], |r| r.get(0)).unwrap();
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
    store.commit(&[put(Table::Handle, b"alice@relay", b"canary-value"), put(Table::Mls, b"alice", b"canary")]).unwrap();
    store.fold().unwrap();
    store.commit(&[put(Table::Handle, b"alice@relay", b"canary-again")]).unwrap();
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

fn delete(table: Table, key: &[u8]) -> Change {
    Change::Delete { table, key: key.to_vec() }
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

/// What a store has after a restart, or why it has none.
fn loaded(folder: &Path) -> Result<Vec<LoadedRecord>, StoreError> {
    ClientStore::open(folder, &key_file(folder))?.load()
}

fn values(records: &[LoadedRecord]) -> Vec<&[u8]> {
    records.iter().map(|(_, _, value)| &value[..]).collect()
}

/// A process can end in the middle of an append: that step was never acknowledged, and all before it is there. Anything
/// else that does not open is damage, and never a shorter history (HR-15).
#[test]
fn a_journal_has_every_step_that_was_finished() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("client.journal");
    let mut store = ClientStore::create(folder.path(), &key_file(folder.path())).unwrap();
    store.commit(&[put(Table::Contact, b"a", b"first"), put(Table::Mls, b"a", b"first")]).unwrap();
    let after_first = store.journal.as_ref().unwrap().length() as usize;
    store.commit(&[put(Table::Contact, b"a", b"second"), put(Table::Mls, b"a", b"second")]).unwrap();
    let end = store.journal.as_ref().unwrap().length() as usize;
    drop(store);
    let whole = fs::read(&journal).unwrap();
    assert!(whole.len() > end && whole[end..].iter().all(|byte| *byte == 0));
    for length in (after_first..end).step_by(5) {
        // The file may have grown, and any part of what was being written may be missing.
        let [mut short, mut without_end, mut without_beginning] = [(); 3].map(|()| whole.clone());
        short.truncate(length);
        without_end[length..].fill(0);
        without_beginning[after_first..=length].fill(0);
        for bytes in [short, without_end, without_beginning].into_iter().filter(|bytes| *bytes != whole) {
            let crashed = copy(folder.path());
            fs::write(crashed.path().join("client.journal"), &bytes).unwrap();
            assert_eq!(values(&loaded(crashed.path()).unwrap()), [b"first", b"first"], "cut at {length}");
        }
    }
    for at in 0..after_first {
        let damaged = copy(folder.path());
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(damaged.path().join("client.journal"), &bytes).unwrap();
        assert!(matches!(loaded(damaged.path()), Err(StoreError::Damaged(_))), "altered at {at}");
    }
    // What was cut off is not in the way of what comes next.
    let crashed = copy(folder.path());
    assert_eq!(values(&loaded(folder.path()).unwrap()), [b"second", b"second"]);
    fs::write(crashed.path().join("client.journal"), &whole[..end - 1]).unwrap();
    let mut store = ClientStore::open(crashed.path(), &key_file(crashed.path())).unwrap();
    store.commit(&[put(Table::Contact, b"a", b"third")]).unwrap();
    drop(store);
    assert_eq!(values(&loaded(crashed.path()).unwrap()), [&b"third"[..], b"first"]);
}

/// Files of different times are told apart, and none is taken for empty.
#[test]
fn a_folder_that_was_copied_in_part_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = ClientStore::create(folder.path(), &key_file(folder.path())).unwrap();
    store.commit(&[put(Table::Mls, b"a", b"first")]).unwrap();
    store.fold().unwrap();
    let earlier = copy(folder.path());
    store.commit(&[put(Table::Mls, b"a", b"second")]).unwrap();
    store.fold().unwrap();
    store.commit(&[put(Table::Mls, b"a", b"third")]).unwrap();
    drop(store);
    for file in ["client.db", "client.journal", "client.keys"] {
        let mixed = copy(folder.path());
        fs::copy(earlier.path().join(file), mixed.path().join(file)).unwrap();
        assert!(matches!(loaded(mixed.path()), Err(StoreError::Damaged(_))), "{file} of an earlier time");
        let lacking = copy(folder.path());
        fs::remove_file(lacking.path().join(file)).unwrap();
        assert!(
            matches!(loaded(lacking.path()), Err(StoreError::Damaged(_) | StoreError::Missing(_))),
            "{file} is missing"
        );
    }
    assert_eq!(values(&loaded(folder.path()).unwrap()), [b"third"]);
    assert_eq!(values(&loaded(earlier.path()).unwrap()), [b"first"]);
}

/// Wherever a fold ends, a store that is opened again has every step once, and goes on.
#[test]
fn a_fold_can_end_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = ClientStore::create(folder.path(), &key_file(folder.path())).unwrap();
    store
        .commit(&[put(Table::Mls, b"a", b"old"), put(Table::Mls, b"b", b"kept"), put(Table::Seen, b"c", b"1")])
        .unwrap();
    store.fold().unwrap();
    store.commit(&[put(Table::Mls, b"a", b"new"), delete(Table::Seen, b"c"), put(Table::Seen, b"d", b"2")]).unwrap();
    let expected: [&[u8]; 3] = [b"2", b"kept", b"new"];
    let mut stages = vec![("before", copy(folder.path()))];
    // New keys are there, and nothing refers to them.
    drop(store.slots.take(&store.keys.seal));
    store.slots.sync().unwrap();
    stages.push(("keys", copy(folder.path())));
    store.write_unfolded().unwrap();
    stages.push(("database", copy(folder.path())));
    store.unfolded.clear();
    store.obsolete.extend(store.journal.take().map(|journal| journal.slot()));
    store.begin_journal().unwrap();
    stages.push(("journal", copy(folder.path())));
    store.slots.erase(store.obsolete.iter().copied()).unwrap();
    stages.push(("erased", copy(folder.path())));
    for (stage, crashed) in stages {
        for round in 0..3 {
            let mut store = ClientStore::open(crashed.path(), &key_file(crashed.path())).unwrap();
            let records = store.load().unwrap();
            let mut found = values(&records);
            found.retain(|value| *value != b"later");
            found.sort();
            assert_eq!(found, expected, "{stage}, opened {round} times before");
            store.commit(&[put(Table::Mls, b"e", b"later")]).unwrap();
        }
    }
}

/// A disk that fails: what was not saved is not there, what was saved is, whatever the journal has of it.
#[test]
fn what_was_not_appended_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = ClientStore::create(folder.path(), &key_file(folder.path())).unwrap();
    store.commit(&[put(Table::Mls, b"a", b"saved")]).unwrap();
    // A step that reaches the file, and whose sync fails: as a disk may answer.
    fails(folder.path(), true);
    store.commit(&[put(Table::Mls, b"a", b"unsure")]).unwrap_err();
    fails(folder.path(), false);
    assert_eq!(values(&store.load().unwrap()), [b"saved"]);
    store.commit(&[put(Table::Contact, b"b", b"later")]).unwrap();
    drop(store);
    assert_eq!(values(&loaded(folder.path()).unwrap()), [&b"later"[..], b"saved"]);
}

/// A process can end in the middle of SQLite's own transaction: what it left is taken back, whoever looks at the store first.
#[test]
fn a_transaction_that_never_ended_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = ClientStore::create(folder.path(), &key_file(folder.path())).unwrap();
    store.commit(&[put(Table::Contact, b"a", b"saved")]).unwrap();
    // Larger than SQLite's cache, so that it writes pages into the database before it commits.
    store.db.execute_batch("PRAGMA cache_size = 2; BEGIN IMMEDIATE; DELETE FROM record;").unwrap();
    for number in 0..200u32 {
        let row = params![number, number.to_be_bytes(), [7u8; 900]];
        store.db.execute("INSERT INTO record VALUES (?1, ?2, ?3)", row).unwrap();
    }
    let crashed = copy(folder.path());
    store.db.execute_batch("ROLLBACK").unwrap();
    assert!(fs::metadata(crashed.path().join("client.db-journal")).unwrap().len() > 512, "it is a hot one");
    assert!(!ClientStore::wants_passphrase(crashed.path()).unwrap());
    assert_eq!(values(&loaded(crashed.path()).unwrap()), [b"saved"]);
}

/// Where folds fail, what was saved is there, and nothing piles up; and where they work again, nothing is left behind.
#[test]
fn folds_that_fail_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = ClientStore::create(folder.path(), &key_file(folder.path())).unwrap();
    // A folder in the place of the next journal: it cannot be made.
    let in_the_way = folder.path().join("client.journal-next");
    fs::create_dir(&in_the_way).unwrap();
    for round in 0..50u8 {
        store.commit(&[put(Table::Mls, b"a", &[round]), delete(Table::Mls, b"b")]).unwrap_or_else(|error| {
            assert!(round > 0, "{error}");
        });
        store.erase_at = Some(Instant::now());
        let _fails = store.tidy();
    }
    let saved = values(&store.load().unwrap()).concat();
    assert!(fs::metadata(folder.path().join(KEYS)).unwrap().len() < 64 * 120);
    fs::remove_dir(&in_the_way).unwrap();
    store.commit(&[put(Table::Contact, b"c", b"later")]).unwrap();
    store.fold().unwrap();
    let keys = fs::read(folder.path().join(KEYS)).unwrap();
    assert_eq!(keys.chunks(64).filter(|slot| slot.iter().any(|byte| *byte != 0)).count(), 1 + 1);
    drop(store);
    assert_eq!(values(&loaded(folder.path()).unwrap()), [&b"later"[..], &saved]);
}

/// Whatever a fold that failed was for, it is tried again when its time has come, and then waited for no longer: a driver
/// that is told not to wait does not turn in vain.
#[test]
fn a_fold_that_failed_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = ClientStore::create(folder.path(), &key_file(folder.path())).unwrap();
    store.commit(&[put(Table::Contact, b"a", b"saved")]).unwrap();
    store.fold_again_at = Some(Instant::now());
    assert_eq!(store.tidy_within(), Some(Duration::ZERO));
    store.tidy().unwrap();
    assert_eq!(store.tidy_within(), None);
}

/// Layout 1, as earlier versions wrote it: no journal, everything sealed under the store's key.
fn of_layout_1() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = ClientStore::create(folder.path(), &key_file(folder.path())).unwrap();
    for (table, key, value) in [(Table::Mls, b"a", b"1"), (Table::Own, b"b", b"2"), (Table::Contact, b"c", b"3")] {
        let name = store.keys.name(table, key);
        let row = seal_record(&store.keys.seal, table, &name, key, value);
        store.db.execute("INSERT INTO record VALUES (?1, ?2, ?3)", params![table as u8, name, row]).unwrap();
    }
    let rejected = params![Table::Quarantine as u8, [0u8; 8], [0u8; 40]];
    store.db.execute("INSERT INTO record VALUES (?1, ?2, ?3)", rejected).unwrap();
    store.db.execute("DELETE FROM meta WHERE name = 'folded'", []).unwrap();
    store.db.pragma_update(None, "user_version", 1).unwrap();
    store.db.pragma_update(None, "journal_mode", "WAL").unwrap();
    drop(store);
    for file in ["client.journal", "client.keys"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    folder
}

#[test]
fn a_store_of_layout_1_is_taken_over() {
    let folder = of_layout_1();
    for _ in 0..2 {
        assert_eq!(values(&loaded(folder.path()).unwrap()), [b"2", b"3", b"1"]);
    }
    let store = ClientStore::open(folder.path(), &key_file(folder.path())).unwrap();
    assert_eq!((version(&store.db).unwrap(), store.slot_of.len()), (2, 2));
    assert_eq!(store.quarantine().unwrap(), []);
}

/// Wherever that ends, the store is opened the next time.
#[test]
fn taking_over_can_end_anywhere() {
    let folder = of_layout_1();
    let unlock = key_file(folder.path());
    let taken = copy(folder.path());
    let mut store = ClientStore::open(taken.path(), &key_file(taken.path())).unwrap();
    store.is_open = false;
    let keys = std::mem::replace(&mut store.keys, StoreKeys::derive(b"nothing"));
    drop(store);
    let lock = lock(folder.path()).unwrap();
    let db = open_database(folder.path()).unwrap();
    let slots = KeySlots::create(&folder.path().join(KEYS)).unwrap();
    let mut stages = vec![copy(folder.path())];
    let mut store = ClientStore::assemble(db, keys, slots, folder.path(), lock);
    store.begin_journal().unwrap();
    stages.push(copy(folder.path()));
    for (table, key, value) in [(Table::Mls, b"a", b"1"), (Table::Own, b"b", b"2")] {
        let record = (key.to_vec(), Zeroizing::new(value.to_vec()));
        store.unfolded.insert((table, store.keys.name(table, key)), Some(record));
    }
    store.write_unfolded().unwrap();
    stages.push(copy(folder.path()));
    drop(store);
    for crashed in stages {
        for _ in 0..2 {
            assert_eq!(values(&loaded(crashed.path()).unwrap()), [b"2", b"3", b"1"]);
        }
    }
    assert!(ClientStore::open(folder.path(), &unlock).is_ok());
}

/// All bytes that a thief has found, and what opens of them with the store's key and one file of keys.
fn openable(store_key: &StoreKeys, keys: &Path, files: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let slots = KeySlots::open(keys).unwrap();
    let mut opened = Vec::new();
    // Journals.
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        fs::write(folder.path().join("client.journal"), file).unwrap();
        let Ok((_, steps)) = Journal::open(folder.path(), &slots, &store_key.seal) else { continue };
        for change in steps.into_iter().flat_map(|(_, changes)| changes) {
            if let Change::Put { value, .. } = change {
                opened.push(value.to_vec());
            }
        }
    }
    // Databases, with rows that are deleted or replaced: a row is found by its name, wherever in the bytes that is.
    for (table, key) in [(Table::Mls, &b"ratchet"[..]), (Table::Own, b"secrets")] {
        let name = store_key.name(table, key);
        for file in files {
            for at in 0..file.len().saturating_sub(name.len()) {
                if file[at..at + name.len()] != name[..] {
                    continue;
                }
                let row = &file[at + name.len()..];
                for length in (4 + 12 + 16 + 2 + key.len())..=row.len().min(200) {
                    let Some((slot, sealed)) = row[..length].split_first_chunk() else { continue };
                    let Some(own) = slots.read(&store_key.seal, Slot::from_be_bytes(*slot)).unwrap() else { continue };
                    if let Ok((_, value)) = open_record(&own, table, &name, sealed) {
                        opened.push(value.to_vec());
                    }
                }
            }
        }
    }
    opened
}

/// C15: what a ratchet was is gone once it is folded, though the file system, the database's log and its free pages kept
/// every byte, and though the thief has the store's key. The control: with the keys of before, everything opens.
#[test]
fn what_was_replaced_is_gone_from_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = ClientStore::create(folder.path(), &key_file(folder.path())).unwrap();
    let read = |kept: &mut Vec<Vec<u8>>| {
        for file in ["client.db", "client.db-journal", "client.journal"] {
            kept.push(fs::read(folder.path().join(file)).unwrap_or_default());
        }
    };
    let mut kept = Vec::new();
    store.commit(&[put(Table::Mls, b"ratchet", b"state-1"), put(Table::Own, b"secrets", b"keys-1")]).unwrap();
    read(&mut kept);
    store.fold().unwrap();
    read(&mut kept);
    store.commit(&[put(Table::Mls, b"ratchet", b"state-2")]).unwrap();
    read(&mut kept);
    let keys_before = copy(folder.path());
    store.commit(&[put(Table::Mls, b"ratchet", b"state-3"), delete(Table::Own, b"secrets")]).unwrap();
    read(&mut kept);
    let has = |opened: &[Vec<u8>], value: &[u8]| opened.iter().any(|found| found == value);
    let control = openable(&store.keys, &keys_before.path().join(KEYS), &kept);
    for value in [&b"state-1"[..], b"keys-1", b"state-2", b"state-3"] {
        assert!(has(&control, value), "the thief's tool does not find {value:?}");
    }
    assert!(store.tidy_within().is_some_and(|within| within <= ERASE_WITHIN), "a deleted secret is to be gone soon");
    store.erase_at = Some(Instant::now());
    store.tidy().unwrap();
    read(&mut kept);
    let opened = openable(&store.keys, &folder.path().join(KEYS), &kept);
    for value in [&b"state-1"[..], b"keys-1", b"state-2"] {
        assert!(!has(&opened, value), "{value:?} is still there");
    }
    assert!(has(&opened, b"state-3"), "and what is in use is there");
    assert_eq!(values(&store.load().unwrap()), [b"state-3"]);
}

/// A journal is folded when it is long; the keys that are in use are those of the records, and one of the journal.
#[test]
fn journals_and_keys_do_not_pile_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = ClientStore::create(folder.path(), &key_file(folder.path())).unwrap();
    for round in 0..200u32 {
        let value = vec![round as u8; 4_000];
        store.commit(&[put(Table::Mls, &(round % 10).to_be_bytes(), &value)]).unwrap();
        assert!(fs::metadata(folder.path().join("client.journal")).unwrap().len() < JOURNAL_MAX + 5_000);
    }
    store.fold().unwrap();
    let keys = fs::read(folder.path().join(KEYS)).unwrap();
    assert_eq!(keys.chunks(64).filter(|slot| slot.iter().any(|byte| *byte != 0)).count(), 10 + 1);
    assert!(keys.len() <= 64 * (2 * 10 + 2), "{} bytes of slots", keys.len());
}

/// Reading sees steps and database as one, in every order of changes and folds.
#[test]
fn steps_and_database_read_as_one() {
    use rand_core::{Rng, SeedableRng};
    for seed in 0..8 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let mut store = ClientStore::create(folder.path(), &key_file(folder.path())).unwrap();
        let mut model: BTreeMap<(Table, u64), Vec<u8>> = BTreeMap::new();
        for _ in 0..120 {
            let table = [Table::Unshown, Table::Mls, Table::Outgoing][rng.next_u32() as usize % 3];
            let number = u64::from(rng.next_u32() % 12);
            let value = rng.next_u32().to_be_bytes();
            match rng.next_u32() % 8 {
                0 => store.fold().unwrap(),
                1 => {
                    drop(store);
                    store = ClientStore::open(folder.path(), &key_file(folder.path())).unwrap();
                }
                2 | 3 => {
                    store.commit(&[delete(table, &number.to_be_bytes())]).unwrap();
                    model.remove(&(table, number));
                }
                _ => {
                    store.commit(&[put(table, &number.to_be_bytes(), &value)]).unwrap();
                    model.insert((table, number), value.to_vec());
                }
            }
            let (from, to) = (u64::from(rng.next_u32() % 12), u64::from(rng.next_u32() % 12));
            let limit = rng.next_u32() % 6;
            let bounds = (from.to_be_bytes(), to.to_be_bytes());
            let expected: Vec<&Vec<u8>> = model
                .iter()
                .filter(|((t, n), _)| *t == Table::Unshown && (from..to).contains(n))
                .map(|(_, v)| v)
                .collect();
            for order in [Order::OldestFirst, Order::NewestFirst] {
                let found = store.rows(Table::Unshown, &bounds.0, Some(&bounds.1), limit, order).unwrap();
                let found: Vec<Vec<u8>> = found.into_iter().map(|(_, value)| value.to_vec()).collect();
                let wanted: Vec<Vec<u8>> = match order {
                    Order::OldestFirst => expected.iter().take(limit as usize).copied().cloned().collect(),
                    Order::NewestFirst => expected.iter().rev().take(limit as usize).copied().cloned().collect(),
                };
                assert_eq!(found, wanted, "seed {seed}");
            }
            let one = store.row(Table::Unshown, from.to_be_bytes().to_vec()).unwrap().map(|(_, value)| value.to_vec());
            assert_eq!(one.as_ref(), model.get(&(Table::Unshown, from)), "seed {seed}");
            let of_mls = store.scan(Table::Mls, &[], u32::MAX).unwrap();
            let mut of_mls: Vec<Vec<u8>> = of_mls.into_iter().map(|(_, value)| value.to_vec()).collect();
            of_mls.sort();
            let mut expected: Vec<Vec<u8>> =
                model.iter().filter(|((t, _), _)| *t == Table::Mls).map(|(_, v)| v.clone()).collect();
            expected.sort();
            assert_eq!(of_mls, expected, "seed {seed}");
        }
    }
}
