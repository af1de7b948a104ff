//! What the rest of the relay has to tell one connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealwire_relay_core::{Input, StoreFailed, Token};
use sealwire_store::Outcome;
use sealwire_wire::{LogId, PresenceToken};
use tokio::sync::Notify;

/// Bounded without a queue's bound: outcomes by what the connection has in flight, wake-ups by the logs that it has
/// attached, presence by the tokens that it watches. Telling the same twice takes no more room than once.
#[derive(Default)]
pub(crate) struct Mailbox {
    /// Held for a few instructions, never across an await: the ordinary kind of mutex.
    notices: Mutex<Notices>,
    wake: Notify,
}

#[derive(Default)]
struct Notices {
    stored: Vec<(Token, Result<Outcome, StoreFailed>)>,
    woken: BTreeSet<LogId>,
    presence: BTreeMap<PresenceToken, bool>,
    replaced: bool,
}

impl Mailbox {
    /// Outcomes, in order. Does not wake: the committer does that once per group.
    pub(crate) fn put_stored(&self, outcomes: impl IntoIterator<Item = (Token, Result<Outcome, StoreFailed>)>) {
        self.notices().stored.extend(outcomes);
    }

    /// A log may have grown. Does not wake: the committer does that once per group.
    pub(crate) fn put_woken(&self, log: LogId) {
        self.notices().woken.insert(log);
    }

    pub(crate) fn tell_presence(&self, token: PresenceToken, online: bool) {
        self.notices().presence.insert(token, online);
        self.wake();
    }

    pub(crate) fn tell_replaced(&self) {
        self.notices().replaced = true;
        self.wake();
    }

    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until there may be something. Cancel-safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes everything that waits. Outcomes come first: they free what is in flight.
    pub(crate) fn take(&self) -> Vec<Input> {
        let Notices { stored, woken, presence, replaced } = std::mem::take(&mut *self.notices());
        let stored = stored.into_iter().map(|(token, result)| Input::Stored { token, result });
        let woken = woken.into_iter().map(Input::Woken);
        let presence = presence.into_iter().map(|(token, online)| Input::PresenceChanged { token, online });
        stored.chain(woken).chain(presence).chain(replaced.then_some(Input::Replaced)).collect()
    }

    fn notices(&self) -> MutexGuard<'_, Notices> {
        // Whoever panicked in here did so between whole insertions.
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
