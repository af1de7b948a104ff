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
use sealwire_wire::entry::Entry;
use sealwire_wire::{EnvelopeId, InboxAddress, InstanceId, LogId, Position, Time};
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
        connection.execute_batch("PRAGMA user_version = 2").unwrap();
        drop(connection);
        let before = contents(directory.path());
        let refused = open(directory.path(), Limits::default());
        assert!(matches!(refused, Err(StoreError::Newer { found: 2, known: 1 })), "{refused:?}");
        assert_eq!(contents(directory.path()), before);
    }
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
