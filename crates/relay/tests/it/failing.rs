//! A store that panics: the thread that commits is gone, and with it the relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use sealwire_relay::{Config, Registration, Server};
use sealwire_store::logs::Limits;
use sealwire_store::{
    BlobPart, Head, MemoryStore, Operation, Outcome, Page, Reader, Record, RecordKey, Store, StoreError,
};
use sealwire_wire::{BlobHash, ConversationId, DeviceId, InboxAddress, InstanceId, LogId, Position, Time};
use tokio::time::timeout;

use crate::client::Client;
use crate::device::Device;

/// Everything takes milliseconds; a machine under load takes more.
const PATIENCE: Duration = Duration::from_secs(20);

struct Panicking {
    inner: MemoryStore,
    armed: AtomicBool,
}

impl Store for Panicking {
    fn instance(&self) -> InstanceId {
        self.inner.instance()
    }

    fn commit(&self, now: Time, operations: &[Operation]) -> Result<Vec<Outcome>, StoreError> {
        assert!(!self.armed.load(Ordering::Relaxed), "as the test wants it");
        self.inner.commit(now, operations)
    }

    fn read(&self, log: LogId, after: Position, entries: usize, bytes: usize) -> Result<Page, StoreError> {
        self.inner.read(log, after, entries, bytes)
    }

    fn head(&self, log: LogId) -> Result<Option<Head>, StoreError> {
        self.inner.head(log)
    }

    fn reader(&self, log: LogId, inbox: InboxAddress) -> Result<Option<Reader>, StoreError> {
        self.inner.reader(log, inbox)
    }

    fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.inner.record(key)
    }

    fn blob(&self, hash: BlobHash, offset: u64, most: usize) -> Result<Option<BlobPart>, StoreError> {
        self.inner.blob(hash, offset, most)
    }

    fn logs_of(&self, inbox: InboxAddress) -> Result<Vec<ConversationId>, StoreError> {
        self.inner.logs_of(inbox)
    }

    fn key_packages(&self, device: DeviceId) -> Result<u32, StoreError> {
        self.inner.key_packages(device)
    }
}

/// O: whoever serves the relay is told, so that it ends instead of closing every connection; nobody is told Accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_committer_that_panics_is_told() {
    let inner = MemoryStore::new(InstanceId([1; 16]), Limits::default());
    let store = Arc::new(Panicking { inner, armed: AtomicBool::new(false) });
    let config = Config {
        name: Some("relay.example".to_owned()),
        ..Config::new("127.0.0.1:0".parse().unwrap(), Registration::Open)
    };
    let server = Server::start(&config, Arc::clone(&store) as Arc<dyn Store>).await.unwrap();
    let mut device = Device::new(1);
    let mut client = Client::register(server.address(), &mut device, "alice").await;
    assert!(server.failed().now_or_never().is_none());

    store.armed.store(true, Ordering::Relaxed);
    client.send(&device.append(device.inbox_log(), 1, 10)).await;
    timeout(PATIENCE, server.failed()).await.expect("it is told");
    timeout(PATIENCE, server.failed()).await.expect("and stays so");
    // What follows finds no committer, and no connection outlives that.
    client.send(&device.append(device.inbox_log(), 2, 10)).await;
    assert_eq!(client.until_closed().await, (vec![], None));
    timeout(PATIENCE, server.abort()).await.expect("it ends");
    assert_eq!(store.head(device.inbox_log()).unwrap().unwrap().length, Position(0));
}
