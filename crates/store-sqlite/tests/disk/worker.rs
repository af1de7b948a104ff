//! What runs under `strace`: a store that takes a trace of random groups, and says before and after each how it went.

use std::io::Write;
use std::path::Path;

use sealwire_store::conformance::random::{Group, Trace, see};
use sealwire_store::{Operation, Outcome, Store, StoreError};
use sealwire_store_sqlite::SqliteStore;
use sealwire_wire::InstanceId;

/// Names the directory of the store, in the process that is watched.
pub(crate) const VARIABLE: &str = "SEALWIRE_DISK";
pub(crate) const SEED: u64 = 4;
/// Operations of the trace, in groups of one to six.
const OPERATIONS: usize = 200;
/// Closed and opened again after so many groups: closing moves the log into the files.
const RESTART_EVERY: usize = 12;

/// Runs the trace. `say` is told `begin` before a group, then `done` or `failed`; `over` at the end, `stopped` where the
/// store cannot be opened again.
pub(crate) fn run(directory: &Path, say: &mut dyn FnMut(&str)) {
    let mut trace = Trace::new(SEED);
    let Ok(mut store) = open(directory) else { return say("stopped") };
    let (mut operations, mut groups, mut failures) = (0, 0, 0);
    while operations < OPERATIONS {
        let group = trace.next_group();
        operations += group.1.len();
        groups += 1;
        if groups % RESTART_EVERY == 0 {
            drop(store);
            store = match open(directory) {
                Ok(store) => store,
                Err(_) => return say("stopped"),
            };
        }
        say("begin");
        match store.commit(group.0, &group.1) {
            Ok(outcomes) => {
                say("done");
                let expected = trace.committed(&group);
                assert_eq!(comparable(&group, outcomes, failures), comparable(&group, expected, failures), "{group:?}");
            }
            Err(_) => {
                say("failed");
                failures += 1;
            }
        }
        // What cannot be read is refused; what is read is right.
        if store.head(sealwire_wire::LogId::Inbox(sealwire_wire::InboxAddress([0; 16]))).is_ok() {
            let difference = see(&store).difference(&see(&trace.model()));
            assert!(difference.is_none(), "group {groups}, {group:?}: {difference:?}");
        }
    }
    say("over");
}

pub(crate) fn open(directory: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(directory, InstanceId([1; 16]), Trace::limits())
}

/// The outcomes; after a failure those of blobs may differ, because pieces of the failed group may be there.
pub(crate) fn comparable(group: &Group, outcomes: Vec<Outcome>, failures: usize) -> Vec<Outcome> {
    let is_blob = |operation: &Operation| matches!(operation, Operation::PutBlob { .. });
    let kept = outcomes.into_iter().zip(&group.1).filter(|(_, operation)| failures == 0 || !is_blob(operation));
    kept.map(|(outcome, _)| outcome).collect()
}

/// Past the test runner, which would keep it.
pub(crate) fn mark(word: &str) {
    std::io::stdout().write_all(format!("mark {word}\n").as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}
