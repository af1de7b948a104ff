//! A store that lives in memory: for the simulation and for tests. Deterministic.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use sealwire_keys::blob_hash;
use sealwire_wire::{BlobHash, ConversationId, DeviceId, InboxAddress, InstanceId, LogId, Position, Time};

use crate::blob::{Held, Verdict, judge, mismatch};
use crate::logs::{Beside, Digest, Limits, Logs, Write};
use crate::{BlobPart, Delivered, Head, Operation, Outcome, Page, Reader, Record, RecordKey, Store, StoreError};

/// A store in memory. What was committed stays as long as the value; [`snapshot`](MemoryStore::snapshot) and
/// [`restore`](MemoryStore::restore) stand for a disk that outlives a crash, and for a backup.
///
/// It never fails: a test that needs failures wraps it.
#[derive(Debug)]
pub struct MemoryStore {
    /// Behind an `Arc` so that a snapshot costs nothing until the next commit, which copies. The mutex is held for a
    /// whole commit or read, so nobody sees half a group.
    state: Mutex<Arc<State>>,
}

/// What a [`MemoryStore`] held at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot(Arc<State>);

#[derive(Clone, Debug)]
struct State {
    instance: InstanceId,
    logs: Logs,
    aside: Aside,
    /// By row. Shared with snapshots.
    entries: BTreeMap<u64, Arc<[u8]>>,
}

#[derive(Clone, Debug, Default)]
struct Aside {
    records: BTreeMap<RecordKey, Record>,
    blobs: BTreeMap<BlobHash, Blob>,
    key_packages: BTreeMap<DeviceId, KeyPackages>,
}

/// Of a device, by number.
#[derive(Clone, Debug, Default)]
struct KeyPackages {
    held: BTreeMap<u64, Arc<[u8]>>,
    claimed: BTreeMap<u64, Digest>,
}

#[derive(Clone, Debug)]
struct Blob {
    size: u64,
    bytes: Arc<Vec<u8>>,
}

impl MemoryStore {
    /// An empty store with an instance id, which its maker draws.
    pub fn new(instance: InstanceId, limits: Limits) -> MemoryStore {
        let state = State { instance, logs: Logs::new(limits), aside: Aside::default(), entries: BTreeMap::new() };
        MemoryStore { state: Mutex::new(Arc::new(state)) }
    }

    /// All that it holds, instance id included.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(Arc::clone(&self.state()))
    }

    /// Goes back to a snapshot, instance id included. Who plays a backup calls
    /// [`renew_instance`](MemoryStore::renew_instance) next (L11).
    pub fn restore(&self, snapshot: &Snapshot) {
        *self.state() = Arc::clone(&snapshot.0);
    }

    /// Gives the store another instance id, as its restoration from a backup does (L11).
    pub fn renew_instance(&self, fresh: InstanceId) {
        Arc::make_mut(&mut self.state()).instance = fresh;
    }

    fn state(&self) -> MutexGuard<'_, Arc<State>> {
        self.state.lock().expect("whoever panics while holding the state has ended the test")
    }
}

impl From<Snapshot> for MemoryStore {
    fn from(Snapshot(state): Snapshot) -> MemoryStore {
        MemoryStore { state: Mutex::new(state) }
    }
}

impl Store for MemoryStore {
    fn instance(&self) -> InstanceId {
        self.state().instance
    }

    fn commit(&self, now: Time, operations: &[Operation]) -> Result<Vec<Outcome>, StoreError> {
        let mut state = self.state();
        let state = Arc::make_mut(&mut state);
        operations.iter().map(|operation| state.apply(now, operation)).collect()
    }

    fn read(&self, log: LogId, after: Position, entries: usize, bytes: usize) -> Result<Page, StoreError> {
        let state = self.state();
        let plan = state.logs.page(log, after, entries, bytes);
        let deliver = |(position, at, row)| Delivered { position, at, entry: state.entries[&row].to_vec() };
        Ok(Page { entries: plan.entries.into_iter().map(deliver).collect(), trimmed: plan.trimmed })
    }

    fn head(&self, log: LogId) -> Result<Option<Head>, StoreError> {
        Ok(self.state().logs.head(log))
    }

    fn reader(&self, log: LogId, inbox: InboxAddress) -> Result<Option<Reader>, StoreError> {
        Ok(self.state().logs.reader(log, inbox))
    }

    fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        Ok(self.state().aside.records.get(key).cloned())
    }

    fn blob(&self, hash: BlobHash, offset: u64, most: usize) -> Result<Option<BlobPart>, StoreError> {
        let state = self.state();
        Ok(state.aside.blobs.get(&hash).map(|blob| blob.part(offset, most)))
    }

    fn logs_of(&self, inbox: InboxAddress) -> Result<Vec<ConversationId>, StoreError> {
        Ok(self.state().logs.logs_of(inbox))
    }

    fn key_packages(&self, device: DeviceId) -> Result<u32, StoreError> {
        let numbers = self.state().aside.key_packages(device)?;
        Ok(numbers.iter().filter(|number| **number != 0).count() as u32)
    }
}

impl State {
    fn apply(&mut self, now: Time, operation: &Operation) -> Result<Outcome, StoreError> {
        let mut writes = Vec::new();
        let outcome = self.logs.apply(now, operation, &mut self.aside, &mut writes)?;
        for write in writes {
            self.write(write);
        }
        Ok(outcome)
    }

    /// The index itself survives with the state, so only what it does not hold is kept.
    fn write(&mut self, write: Write) {
        match write {
            Write::PutEntry { entry, bytes } => {
                self.entries.insert(entry.row, bytes.into());
            }
            Write::EmptyEntry { row } | Write::RemoveEntry { row } => {
                self.entries.remove(&row);
            }
            Write::PutRecord { key, record } => {
                self.aside.records.insert(key, record);
            }
            Write::RemoveRecord { key } => {
                self.aside.records.remove(&key);
            }
            Write::PutKeyPackage { device, number, bytes } => {
                self.aside.key_packages.entry(device).or_default().held.insert(number, bytes.into());
            }
            Write::RemoveKeyPackage { device, number } => {
                self.aside.key_packages.entry(device).or_default().held.remove(&number);
            }
            Write::PutClaimed { device, number, digest } => {
                self.aside.key_packages.entry(device).or_default().claimed.insert(number, digest);
            }
            Write::RemoveClaimed { device, number } => {
                self.aside.key_packages.entry(device).or_default().claimed.remove(&number);
            }
            Write::PutLog(_)
            | Write::PutReader { .. }
            | Write::RemoveReader { .. }
            | Write::PutWelcome(_)
            | Write::RemoveWelcome { .. }
            | Write::OpenInbox { .. }
            | Write::CountVersions { .. } => {}
        }
    }
}

impl Beside for Aside {
    fn version(&self, key: &RecordKey) -> Result<Option<u64>, StoreError> {
        Ok(self.records.get(key).map(|record| record.version))
    }

    fn put_blob(&mut self, hash: BlobHash, size: u64, offset: u64, bytes: &[u8]) -> Result<Outcome, StoreError> {
        let found = self.blobs.get(&hash).map(Blob::held);
        let (keep, skip, held) = match judge(found, size, offset, bytes.len()) {
            Verdict::Answer(outcome) => return Ok(outcome),
            Verdict::Write { keep, skip, held } => (keep, skip, held),
        };
        let blob = self.blobs.entry(hash).or_insert_with(|| Blob { size, bytes: Arc::default() });
        blob.size = size;
        let kept = Arc::make_mut(&mut blob.bytes);
        kept.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        kept.extend_from_slice(&bytes[skip..]);
        if held == size && blob_hash(kept) != hash {
            self.blobs.remove(&hash);
            return Ok(mismatch(0));
        }
        Ok(Outcome::Stored { held, size })
    }

    fn key_packages(&self, device: DeviceId) -> Result<Vec<u64>, StoreError> {
        Ok(self.key_packages.get(&device).map_or(Vec::new(), |all| all.held.keys().copied().collect()))
    }

    fn key_package(&self, device: DeviceId, number: u64) -> Result<Vec<u8>, StoreError> {
        let found = self.key_packages.get(&device).and_then(|all| all.held.get(&number));
        found.map(|bytes| bytes.to_vec()).ok_or_else(|| StoreError::Damaged("a key package is not there".into()))
    }

    fn claimed_key_packages(&self, device: DeviceId) -> Result<Vec<(u64, Digest)>, StoreError> {
        let claimed = self.key_packages.get(&device).map(|all| all.claimed.iter());
        Ok(claimed.into_iter().flatten().map(|(number, digest)| (*number, *digest)).collect())
    }
}

impl Blob {
    fn held(&self) -> Held {
        Held { size: self.size, held: self.bytes.len() as u64 }
    }

    fn part(&self, offset: u64, most: usize) -> BlobPart {
        let Held { size, held } = self.held();
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let end = if held == size { begin.saturating_add(most).min(self.bytes.len()) } else { begin };
        BlobPart { size, held, bytes: self.bytes[begin..end].to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Bed, random};

    impl Bed for MemoryStore {
        fn fresh(limits: Limits) -> MemoryStore {
            MemoryStore::new(InstanceId([1; 16]), limits)
        }

        fn store(&self) -> &dyn Store {
            self
        }

        fn restart(self) -> MemoryStore {
            MemoryStore::from(self.snapshot())
        }
    }

    mod conformance {
        crate::conformance!(crate::MemoryStore);
    }

    /// L5, L9, E4, C8: what is read is what was accepted, over long random runs.
    #[test]
    fn random_runs_read_what_was_accepted() {
        (0..40).for_each(|seed| random::compare::<MemoryStore, MemoryStore>(seed, 150));
    }

    /// L11: a backup brings back what was, and nothing of what came after; its instance id is another.
    #[test]
    fn a_snapshot_comes_back_as_it_was() {
        let store = MemoryStore::fresh(Limits::default());
        let open = |number| Operation::Swap { records: Vec::new(), inboxes: vec![InboxAddress([number; 16])] };
        store.commit(Time(1), &[open(1)]).unwrap();
        let backup = store.snapshot();
        store.commit(Time(1), &[open(2)]).unwrap();
        store.restore(&backup);
        assert_eq!(store.instance(), InstanceId([1; 16]));
        store.renew_instance(InstanceId([2; 16]));
        assert_eq!(store.instance(), InstanceId([2; 16]));
        assert!(store.head(LogId::Inbox(InboxAddress([1; 16]))).unwrap().is_some());
        assert!(store.head(LogId::Inbox(InboxAddress([2; 16]))).unwrap().is_none());
        assert_eq!(MemoryStore::from(backup).instance(), InstanceId([1; 16]), "a snapshot does not change");
    }
}
