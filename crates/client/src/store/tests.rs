use std::fs;

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
