//! What a store may show after a power cut: what was acknowledged, and perhaps the group that had begun.

use std::path::Path;

use sealwire_store::conformance::random::{Group, Trace, see};
use sealwire_store::{MemoryStore, Operation, Outcome, Store};
use sealwire_wire::{InboxAddress, Time};

use crate::worker;

/// Follows the marks of a run.
pub(crate) struct Judge {
    trace: Trace,
    group: Option<Group>,
    /// The store may be in any of these states.
    candidates: Vec<MemoryStore>,
    groups: usize,
}

impl Judge {
    pub(crate) fn new() -> Judge {
        let trace = Trace::new(worker::SEED);
        Judge { candidates: vec![trace.model()], trace, group: None, groups: 0 }
    }

    pub(crate) fn groups(&self) -> usize {
        self.groups
    }

    pub(crate) fn follow(&mut self, mark: &str) {
        match mark {
            "begin" => {
                let group = self.trace.next_group();
                let ahead = self.trace.model();
                ahead.commit(group.0, &group.1).unwrap();
                self.candidates.push(ahead);
                self.group = Some(group);
                self.groups += 1;
            }
            "done" => {
                self.trace.committed(self.group.as_ref().unwrap());
                self.candidates = vec![self.trace.model()];
            }
            // Whoever was refused repeats it, or does not: it may be there after a power cut, until the next is.
            "failed" | "stopped" | "over" => {}
            other => panic!("what is {other:?}?"),
        }
    }

    /// Opens what the power cut has left. Fails with what is missing; a store that shows what nobody asked for, or that does not go on,
    /// panics.
    pub(crate) fn open(&self, directory: &Path) -> Result<(), String> {
        let store = worker::open(directory).map_err(|error| format!("it does not open: {error}"))?;
        let seen = see(&store);
        seen.check_blobs();
        let differences: Vec<_> = self.candidates.iter().map(|candidate| seen.difference(&see(candidate))).collect();
        let Some(found) = differences.iter().position(Option::is_none) else {
            return Err(differences.into_iter().flatten().last().unwrap_or_default());
        };
        // It goes on: who got no answer asks again, and is answered as if nothing had happened (E4).
        if let Some(group) = &self.group {
            let answers = store.commit(group.0, &group.1).unwrap();
            let model = MemoryStore::from(self.candidates[found].snapshot());
            let expected = model.commit(group.0, &group.1).unwrap();
            let comparable = |outcomes| worker::comparable(group, outcomes, 1);
            assert_eq!(comparable(answers), comparable(expected));
            assert_eq!(see(&store).difference(&see(&model)), None);
        }
        let inbox = Operation::Swap { records: Vec::new(), inboxes: vec![InboxAddress([9; 16])] };
        assert_eq!(store.commit(Time(1), &[inbox]).unwrap(), [Outcome::Swapped]);
        Ok(())
    }
}
