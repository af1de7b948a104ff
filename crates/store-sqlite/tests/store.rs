//! What every store has to do, and what is this one's own: its files.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::fs;
use std::path::Path;

use sealwire_store::conformance::{Bed, random};
use sealwire_store::logs::Limits;
use sealwire_store::{
    Append, MemoryStore, Operation, Outcome, Record, RecordKey, RecordKind, RecordSwap, Store, StoreError,
};
use sealwire_store_sqlite::SqliteStore;
use sealwire_wire::entry::{Entry, EntryKind};
use sealwire_wire::{DeviceId, EnvelopeId, InboxAddress, InstanceId, LogId, Position, Time};
use tempfile::TempDir;

struct SqliteBed {
    /// Dropped first: the directory goes when nobody uses it.
    store: SqliteStore,
    limits: Limits,
    directory: TempDir,
}

impl Bed for SqliteBed {
    fn fresh(limits: Limits) -> SqliteBed {
        let directory = tempfile::tempdir().unwrap();
        SqliteBed { store: open(directory.path(), limits).unwrap(), limits, directory }
    }

    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn restart(self) -> SqliteBed {
        drop(self.store);
        let store = open(self.directory.path(), self.limits).unwrap();
        SqliteBed { store, ..self }
    }
}

struct MemoryBed(MemoryStore);

impl Bed for MemoryBed {
    fn fresh(limits: Limits) -> MemoryBed {
        MemoryBed(MemoryStore::new(InstanceId([1; 16]), limits))
    }

    fn store(&self) -> &dyn Store {
        &self.0
    }

    fn restart(self) -> MemoryBed {
        MemoryBed(self.0.snapshot().into())
    }
}

mod conformance {
    sealwire_store::conformance!(super::SqliteBed);
}

#[test]
fn it_does_what_the_memory_store_does() {
    (0..8).for_each(|seed| random::compare::<SqliteBed, MemoryBed>(seed, 60));
}

/// L11: the id is the store's, not the process's, until a restoration changes it.
#[test]
fn the_instance_id_is_made_with_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let open = |fresh| SqliteStore::open(directory.path(), InstanceId([fresh; 16]), Limits::default()).unwrap();
    assert_eq!(open(1).instance(), InstanceId([1; 16]));
    let store = open(2);
    assert_eq!(store.instance(), InstanceId([1; 16]));
    store.renew_instance(InstanceId([3; 16])).unwrap();
    assert_eq!(store.instance(), InstanceId([3; 16]));
    drop(store);
    assert_eq!(open(4).instance(), InstanceId([3; 16]));
}

#[test]
fn a_second_user_is_refused_until_the_first_has_gone() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), Limits::default()).unwrap();
    assert!(matches!(open(directory.path(), Limits::default()), Err(StoreError::InUse)));
    drop(first);
    open(directory.path(), Limits::default()).unwrap();
}

/// A newer program's files stay as they are, to the byte and to the name.
#[test]
fn a_newer_store_is_refused_untouched() {
    for newer in ["mail.db", "directory.db"] {
        let directory = tempfile::tempdir().unwrap();
        drop(with_inbox(directory.path()));
        let file = directory.path().join(newer);
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute_batch("PRAGMA user_version = 4").unwrap();
        drop(connection);
        let before = contents(directory.path());
        let refused = open(directory.path(), Limits::default());
        assert!(matches!(refused, Err(StoreError::Newer { found: 4, known: 3 })), "{refused:?}");
        assert_eq!(contents(directory.path()), before);
    }
}

/// Files of version 1, as that version wrote them, with five entries of which one is gone: all of it is there, and is
/// one nameless writer's. What comes new has its own (L9). After a crash in between, too, which leaves one file of each
/// version.
#[test]
fn files_of_version_1_go_on() {
    for crashed in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        version_1(directory.path());
        if crashed {
            let mail = rusqlite::Connection::open(directory.path().join("mail.db")).unwrap();
            mail.execute_batch("ALTER TABLE entries ADD COLUMN writer BLOB; PRAGMA user_version = 2").unwrap();
        }
        let limits = Limits { inbox_entries: 6, ..Limits::default() };
        let store = open(directory.path(), limits).unwrap();
        assert_eq!(store.instance(), InstanceId([5; 16]));
        assert_eq!(store.head(LOG).unwrap().unwrap().length, Position(5));
        assert!(store.record(&KEY()).unwrap().is_some_and(|record| record.value == b"old"));
        assert_eq!(positions(&store), [2, 3, 4, 5]);
        let repeated = |at| Outcome::Appended { position: Position(at), repeated: true };
        assert_eq!(store.commit(Time(9), &[appending(1), appending(2)]).unwrap(), [repeated(1), repeated(2)]);
        let by = |writer, envelope| match appending(envelope) {
            Operation::Append(append) => Operation::Append(Append { writer: InboxAddress([writer; 16]), ..append }),
            other => other,
        };
        store.commit(Time(9), &[by(7, 6), by(7, 7), by(7, 8), by(8, 9)]).unwrap();
        assert_eq!(positions(&store), [4, 5, 6, 7, 8, 9], "the nameless writer had most");
        drop(store);
        for file in ["mail.db", "directory.db"] {
            let header = fs::read(directory.path().join(file)).unwrap();
            assert_eq!(header[60..64], [0, 0, 0, 3], "{file}");
        }
        let store = open(directory.path(), limits).unwrap();
        store.commit(Time(9), &[by(8, 10)]).unwrap();
        assert_eq!(positions(&store), [4, 5, 7, 8, 9, 10], "the writer of 6, 7 and 8 has most");
    }
}

/// Files of version 2, which had no key packages: what is in them is there, and key packages come beside it. After a
/// crash in between, too, which leaves one file of each version.
#[test]
fn files_of_version_2_go_on() {
    for crashed in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let store = with_inbox(directory.path());
        append(&store, 1..4);
        drop(store);
        let mail = "DROP TABLE key_packages; DROP TABLE claimed_key_packages; ALTER TABLE outbox DROP COLUMN writer;";
        let welcome = "INSERT INTO outbox (number, inbox, entry) VALUES (7, ?1, ?2)";
        for (file, newer) in [("mail.db", mail), ("directory.db", "")] {
            let connection = rusqlite::Connection::open(directory.path().join(file)).unwrap();
            if !crashed || file == "directory.db" {
                connection.execute_batch(&format!("{newer} PRAGMA user_version = 2;")).unwrap();
            }
            if file == "mail.db" {
                let entry = Entry { kind: EntryKind::Welcome, ..Entry::direct(EnvelopeId([0xff; 16]), vec![7; 100]) };
                connection.execute(welcome, rusqlite::params![INBOX.0, entry.encode()]).unwrap();
            }
            connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);").unwrap();
        }
        let store = open(directory.path(), Limits::default()).unwrap();
        assert_eq!(positions(&store), [1, 2, 3]);
        let filled = store.commit(Time(1), &[Operation::FillInboxes { most: 9 }]).unwrap();
        assert_eq!((filled, positions(&store)), (vec![Outcome::Filled(vec![INBOX])], vec![1, 2, 3, 4]));
        assert_eq!(store.key_packages(DEVICE).unwrap(), 0);
        store.commit(Time(1), &[put_key_packages(0..2), CLAIM]).unwrap();
        assert_eq!(store.key_packages(DEVICE).unwrap(), 1);
        drop(store);
        for file in ["mail.db", "directory.db"] {
            let header = fs::read(directory.path().join(file)).unwrap();
            assert_eq!(header[60..64], [0, 0, 0, 3], "{file}");
        }
    }
}

/// K1: many at once, and each gets another one; then all get the same.
#[test]
fn no_key_package_is_handed_out_twice_to_many_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_inbox(directory.path());
    store.commit(Time(1), &[put_key_packages(0..40)]).unwrap();
    let mut claimed = std::thread::scope(|threads| {
        let claim = || store.commit(Time(1), &[CLAIM]).unwrap().remove(0);
        let claiming: Vec<_> =
            (0..8).map(|_| threads.spawn(move || (0..6).map(|_| claim()).collect::<Vec<_>>())).collect();
        claiming.into_iter().flat_map(|thread| thread.join().unwrap()).map(package_of).collect::<Vec<_>>()
    });
    claimed.sort();
    let (one_time, last_resort) = claimed.split_at(40);
    assert_eq!(one_time, (0..40).map(|number| (false, vec![number; 30])).collect::<Vec<_>>());
    assert_eq!(last_resort, vec![(true, vec![0xff; 30]); 8]);
}

/// K1: what was handed out is gone from the files before anybody is told, so that no crash brings it back; it stays where
/// the claim failed.
#[test]
fn a_crash_brings_no_key_package_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_inbox(directory.path());
    store.commit(Time(1), &[put_key_packages(0..3)]).unwrap();
    assert_eq!(package_of(store.commit(Time(1), &[CLAIM]).unwrap().remove(0)), (false, vec![0; 30]));
    let crashed = tempfile::tempdir().unwrap();
    copy(directory.path(), crashed.path());
    let reopened = open(crashed.path(), Limits::default()).unwrap();
    assert_eq!(package_of(reopened.commit(Time(1), &[CLAIM]).unwrap().remove(0)), (false, vec![1; 30]));
    let saboteur = rusqlite::Connection::open(directory.path().join("mail.db")).unwrap();
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'no'); END";
    saboteur.execute_batch(trap).unwrap();
    assert!(matches!(store.commit(Time(1), &[CLAIM, appending(1)]), Err(StoreError::Failed(_))));
    assert_eq!(store.key_packages(DEVICE).unwrap(), 2);
    assert_eq!(package_of(store.commit(Time(1), &[CLAIM]).unwrap().remove(0)), (false, vec![1; 30]));
}

/// What is in the files while the store is open is what a crash leaves: everything that was answered.
#[test]
fn a_crash_loses_nothing_that_was_answered() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_inbox(directory.path());
    append(&store, 1..20);
    let crashed = tempfile::tempdir().unwrap();
    copy(directory.path(), crashed.path());
    append(&store, 20..30);
    let reopened = open(crashed.path(), Limits::default()).unwrap();
    assert_eq!(reopened.head(LOG).unwrap().unwrap().length, Position(19));
    assert_eq!(reopened.read(LOG, Position(0), 100, 1 << 20).unwrap().entries.len(), 19);
    let repeated = Outcome::Appended { position: Position(19), repeated: true };
    assert_eq!(reopened.commit(Time(9), &[appending(19)]).unwrap(), [repeated]);
}

/// One group, two files: a crash between their commits leaves the second behind, and opening brings it up.
#[test]
fn a_crash_between_the_two_files_loses_no_record() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_inbox(directory.path());
    let (crashed, earlier) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(directory.path(), earlier.path());
    let other = InboxAddress([2; 16]);
    let swap = Operation::Swap { records: vec![put(b"new")], inboxes: vec![other] };
    store.commit(Time(1), &[appending(1), swap]).unwrap();
    copy(directory.path(), crashed.path());
    for name in ["directory.db", "directory.db-wal", "directory.db-shm"] {
        fs::copy(earlier.path().join(name), crashed.path().join(name)).unwrap();
    }
    let reopened = open(crashed.path(), Limits::default()).unwrap();
    assert_eq!(reopened.record(&KEY()).unwrap(), store.record(&KEY()).unwrap());
    assert!(reopened.record(&KEY()).unwrap().is_some());
    assert!(reopened.head(LogId::Inbox(other)).unwrap().is_some());
    assert_eq!(reopened.head(LOG).unwrap().unwrap().length, Position(1));
}

/// An older `redo` is not repeated over what came later.
#[test]
fn what_came_later_is_not_undone_by_opening() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_inbox(directory.path());
    let swap = |value: &[u8], expected| {
        let records = vec![RecordSwap { expected, ..put(value) }];
        Operation::Swap { records, inboxes: Vec::new() }
    };
    store.commit(Time(1), &[appending(1), swap(b"first", None)]).unwrap();
    let version = store.record(&KEY()).unwrap().map(|record| record.version);
    assert_eq!(store.commit(Time(1), &[swap(b"second", version)]).unwrap(), [Outcome::Swapped]);
    drop(store);
    let found = open(directory.path(), Limits::default()).unwrap().record(&KEY()).unwrap();
    assert!(matches!(found, Some(Record { value, .. }) if value == b"second"));
}

/// A commit that fails leaves nothing: not in the index, not in the files, not for later.
#[test]
fn a_failed_commit_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_inbox(directory.path());
    append(&store, 1..3);
    let saboteur = rusqlite::Connection::open(directory.path().join("mail.db")).unwrap();
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON entries WHEN new.position = 4
                BEGIN SELECT RAISE(ABORT, 'no'); END";
    saboteur.execute_batch(trap).unwrap();
    let group = [appending(3), Operation::Swap { records: vec![put(b"x")], inboxes: Vec::new() }, appending(4)];
    assert!(matches!(store.commit(Time(1), &group), Err(StoreError::Failed(_))));
    assert_eq!(store.head(LOG).unwrap().unwrap().length, Position(2));
    assert_eq!(store.record(&KEY()).unwrap(), None);
    assert_eq!(store.read(LOG, Position(0), 9, 1 << 20).unwrap().entries.len(), 2);
    saboteur.execute_batch("DROP TRIGGER trap").unwrap();
    drop(saboteur);
    let appended = |position| Outcome::Appended { position: Position(position), repeated: false };
    assert_eq!(store.commit(Time(1), &group).unwrap(), [appended(3), Outcome::Swapped, appended(4)]);
    drop(store);
    let reopened = open(directory.path(), Limits::default()).unwrap();
    assert_eq!(reopened.head(LOG).unwrap().unwrap().length, Position(4));
}

/// C15, N1: nobody else on the machine can read the files.
#[cfg(unix)]
#[test]
fn the_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("made/by/us");
    let store = with_inbox(&directory);
    append(&store, 1..3);
    let blob = b"blob".to_vec();
    let hash = sealwire_keys::blob_hash(&blob);
    store.commit(Time(1), &[Operation::PutBlob { hash, size: 4, offset: 0, bytes: blob }]).unwrap();
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    for (path, _) in contents(&directory) {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path}");
    }
}

/// C15: what is gone from a log is gone from the files.
#[test]
fn removed_entries_are_gone_from_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_inbox(directory.path());
    let secret = b"a sealed body that has been read".to_vec();
    // Small ones among others in a page, and one over many pages.
    for (envelope, times) in [(201, 1), (202, 4), (203, 2), (204, 3_000)] {
        let entry = Entry::direct(EnvelopeId([envelope; 16]), secret.repeat(times));
        store.commit(Time(1), &[Operation::Append(Append::to_inbox(INBOX, INBOX, entry))]).unwrap();
        append(&store, u64::from(envelope)..u64::from(envelope) + 1);
    }
    let read = Operation::MoveCursor { log: LOG, reader: INBOX, upto: Position(8) };
    store.commit(Time(1), &[read, Operation::Sweep { most: 9 }]).unwrap();
    drop(store);
    let holds = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
    assert!(contents(directory.path()).iter().all(|(_, bytes)| !holds(bytes)));
}

/// Opening scans all entries, once: a hundred thousand come back.
#[test]
fn a_hundred_thousand_entries_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_inbox(directory.path());
    for group in 0..100 {
        let operations: Vec<_> = (group * 1_000..(group + 1) * 1_000).map(appending).collect();
        store.commit(Time(1), &operations).unwrap();
    }
    let head = store.head(LOG).unwrap();
    drop(store);
    let reopened = open(directory.path(), Limits::default()).unwrap();
    assert_eq!(reopened.head(LOG).unwrap(), head);
    assert_eq!(reopened.read(LOG, Position(99_990), 100, 1 << 20).unwrap().entries.len(), 10);
}

/// Reads go on from many threads while another commits; each sees whole groups only.
#[test]
fn readers_beside_a_writer_see_whole_groups() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_inbox(directory.path());
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let mut length = 0;
                while length < 200 {
                    let page = store.read(LOG, Position(0), 1_000, 1 << 20).unwrap();
                    assert_eq!(page.entries.len() % 10, 0);
                    assert!(page.entries.len() >= length);
                    length = page.entries.len();
                }
            });
        }
        for group in 0..20 {
            store.commit(Time(1), &(group * 10..group * 10 + 10).map(appending).collect::<Vec<_>>()).unwrap();
        }
    });
}

/// The positions in the inbox, from the first that is there.
fn positions(store: &SqliteStore) -> Vec<u64> {
    let (mut all, mut at) = (Vec::new(), Position(0));
    while at < store.head(LOG).unwrap().unwrap().length {
        let page = store.read(LOG, at, 100, 1 << 20).unwrap();
        all.extend(page.entries.iter().map(|entry| entry.position.0));
        at = page.entries.last().map(|entry| entry.position).or(page.trimmed.map(|(end, _)| end)).unwrap();
    }
    all
}

/// A store as version 1 made it: these are its tables, and rows as it wrote them.
fn version_1(directory: &Path) {
    let mail = rusqlite::Connection::open(directory.join("mail.db")).unwrap();
    let tables = "
        CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
        CREATE TABLE entries (
            row INTEGER PRIMARY KEY, log BLOB NOT NULL, position INTEGER NOT NULL, envelope BLOB NOT NULL,
            at INTEGER NOT NULL, kind INTEGER NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL,
            before BLOB, after BLOB, bytes BLOB
        );
        CREATE TABLE logs (
            log BLOB PRIMARY KEY, length INTEGER NOT NULL, newest_commit INTEGER NOT NULL, chain BLOB
        ) WITHOUT ROWID;
        CREATE TABLE readers (
            log BLOB NOT NULL, inbox BLOB NOT NULL, cursor INTEGER NOT NULL,
            dropped_by INTEGER, dropped_at INTEGER, dropped_from BLOB, restored INTEGER,
            PRIMARY KEY (log, inbox)
        ) WITHOUT ROWID;
        CREATE TABLE outbox (number INTEGER PRIMARY KEY, inbox BLOB NOT NULL, entry BLOB NOT NULL);
        CREATE TABLE redo (
            step INTEGER PRIMARY KEY, kind INTEGER NOT NULL, key BLOB NOT NULL, version INTEGER, value BLOB
        );
        PRAGMA user_version = 1;
        PRAGMA journal_mode = WAL;";
    mail.execute_batch(tables).unwrap();
    mail.execute("INSERT INTO meta VALUES ('instance', ?1)", [vec![5; 16]]).unwrap();
    mail.execute("INSERT INTO readers VALUES (?1, ?1, 1, NULL, NULL, NULL, NULL)", [INBOX.0]).unwrap();
    for number in 1..=5 {
        let Operation::Append(Append { entry, .. }) = appending(number) else { unreachable!() };
        let bytes = entry.encode();
        let digest = sealwire_keys::blob_hash(&bytes).0[..16].to_vec();
        let values = rusqlite::params![
            number as i64,
            INBOX.0,
            number as i64,
            entry.envelope.0,
            1,
            entry.kind as u8,
            digest,
            bytes.len() as i64,
            (number > 1).then_some(bytes),
        ];
        mail.execute("INSERT INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL, NULL, ?9)", values).unwrap();
    }
    let beside = rusqlite::Connection::open(directory.join("directory.db")).unwrap();
    let tables = "
        CREATE TABLE records (
            kind INTEGER NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL,
            PRIMARY KEY (kind, key)
        );
        CREATE TABLE inboxes (inbox BLOB PRIMARY KEY) WITHOUT ROWID;
        CREATE TABLE versions (only INTEGER PRIMARY KEY CHECK (only = 0), newest INTEGER NOT NULL);
        PRAGMA user_version = 1;
        PRAGMA journal_mode = WAL;";
    beside.execute_batch(tables).unwrap();
    beside.execute("INSERT INTO inboxes VALUES (?1)", [INBOX.0]).unwrap();
    beside.execute("INSERT INTO records VALUES (1, ?1, 1, ?2)", [vec![1], b"old".to_vec()]).unwrap();
    beside.execute("INSERT INTO versions VALUES (0, 1)", []).unwrap();
}

const INBOX: InboxAddress = InboxAddress([1; 16]);
const LOG: LogId = LogId::Inbox(INBOX);
const KEY: fn() -> RecordKey = || RecordKey { kind: RecordKind::Account, key: vec![1] };

fn open(directory: &Path, limits: Limits) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(directory, InstanceId([1; 16]), limits)
}

fn with_inbox(directory: &Path) -> SqliteStore {
    let store = open(directory, Limits::default()).unwrap();
    store.commit(Time(1), &[Operation::Swap { records: Vec::new(), inboxes: vec![INBOX] }]).unwrap();
    store
}

fn append(store: &SqliteStore, envelopes: std::ops::Range<u64>) {
    for envelope in envelopes {
        store.commit(Time(1), &[appending(envelope)]).unwrap();
    }
}

fn appending(envelope: u64) -> Operation {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&envelope.to_be_bytes());
    Operation::Append(Append::to_inbox(INBOX, INBOX, Entry::direct(EnvelopeId(id), vec![7; 100])))
}

const DEVICE: DeviceId = DeviceId([1; 32]);
const CLAIM: Operation = Operation::ClaimKeyPackage { device: DEVICE };

/// So many, each of which tells its number, and one for the last resort.
fn put_key_packages(numbers: std::ops::Range<u8>) -> Operation {
    let one_time = numbers.map(|number| vec![number; 30]).collect();
    Operation::PutKeyPackages { device: DEVICE, replace: false, one_time, last_resort: Some(vec![0xff; 30]) }
}

/// Whether it is the last-resort one, and its bytes.
fn package_of(outcome: Outcome) -> (bool, Vec<u8>) {
    let Outcome::KeyPackageClaimed(Some(package)) = outcome else { panic!("{outcome:?}") };
    (package.is_last_resort, package.bytes)
}

fn put(value: &[u8]) -> RecordSwap {
    RecordSwap { key: KEY(), expected: None, value: Some(value.to_vec()) }
}

/// The files below a directory, with their bytes.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.path().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&file.path(), &target);
        } else {
            fs::copy(file.path(), target).unwrap();
        }
    }
}
