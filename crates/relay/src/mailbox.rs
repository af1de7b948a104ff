//! What the rest of the relay has to tell one connection.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealwire_relay_core::{Growth, Input, NotMet, StoreFailed, Token};
use sealwire_store::{Delivered, Outcome};
use sealwire_wire::frame::RequestId;
use sealwire_wire::limits::{DELIVER_BYTES_MAX, UNACKNOWLEDGED_MAX};
use sealwire_wire::{LogId, MeetingId, PresenceToken};
use tokio::sync::Notify;

/// Entries of one log that wait at hand for a connection, and their bytes: as many as it may be sent ahead of an
/// acknowledgement. Beyond that it reads them from the store.
const AT_HAND_MAX: usize = UNACKNOWLEDGED_MAX;
const AT_HAND_BYTES_MAX: usize = DELIVER_BYTES_MAX;

/// Bounded without a queue's bound: outcomes by what the connection has in flight, growth by the logs that it has
/// attached and by what may wait at hand, presence by the tokens that it watches. Telling the same twice takes no more
/// room than once.
#[derive(Default)]
pub(crate) struct Mailbox {
    /// Held for a few instructions, never across an await: the ordinary kind of mutex.
    notices: Mutex<Notices>,
    wake: Notify,
}

#[derive(Default)]
struct Notices {
    stored: Vec<(Token, Result<Outcome, StoreFailed>)>,
    /// What each log grew by.
    grown: BTreeMap<LogId, AtHand>,
    presence: BTreeMap<PresenceToken, bool>,
    replaced: bool,
    revoked: bool,
    /// What was said in meetings, and what became of what this one said. Bounded by the frames that a connection may send there.
    meetings: Vec<Input>,
}

/// Entries of one log, in order; none: it has to be read.
struct AtHand {
    entries: Vec<Delivered>,
    bytes: usize,
}

impl Mailbox {
    /// Outcomes, in order. Does not wake: the committer does that once per group.
    pub(crate) fn put_stored(&self, outcomes: impl IntoIterator<Item = (Token, Result<Outcome, StoreFailed>)>) {
        self.notices().stored.extend(outcomes);
    }

    /// A log has grown, by these entries or by what has to be read. Does not wake: the committer does that once per
    /// group.
    pub(crate) fn put_grown(&self, log: LogId, entries: Vec<Delivered>) {
        let bytes = entries.iter().map(|entry| entry.entry.len()).sum();
        let grown = AtHand { entries, bytes };
        match self.notices().grown.entry(log) {
            Entry::Vacant(nothing) => drop(nothing.insert(grown)),
            Entry::Occupied(mut waiting) => waiting.get_mut().extend(grown),
        }
    }

    pub(crate) fn tell_presence(&self, token: PresenceToken, online: bool) {
        self.notices().presence.insert(token, online);
        self.wake();
    }

    pub(crate) fn tell_replaced(&self) {
        self.notices().replaced = true;
        self.wake();
    }

    pub(crate) fn tell_revoked(&self) {
        self.notices().revoked = true;
        self.wake();
    }

    pub(crate) fn tell_met(&self, meeting: MeetingId, bytes: Vec<u8>) {
        self.notices().meetings.push(Input::Met { meeting, bytes });
        self.wake();
    }

    pub(crate) fn tell_meeting_answered(&self, request: RequestId, met: Result<(), NotMet>) {
        self.notices().meetings.push(Input::MeetingAnswered { request, met });
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
        let Notices { stored, grown, presence, replaced, revoked, meetings } = std::mem::take(&mut *self.notices());
        let stored = stored.into_iter().map(|(token, result)| Input::Stored { token, result });
        let grown = grown.into_iter().map(|(log, grown)| Input::Grown(Growth { log, entries: grown.entries }));
        let presence = presence.into_iter().map(|(token, online)| Input::PresenceChanged { token, online });
        let ends = replaced.then_some(Input::Replaced).into_iter().chain(revoked.then_some(Input::Revoked));
        stored.chain(grown).chain(presence).chain(meetings).chain(ends).collect()
    }

    fn notices(&self) -> MutexGuard<'_, Notices> {
        // Whoever panicked in here did so between whole insertions.
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AtHand {
    fn extend(&mut self, more: AtHand) {
        self.bytes += more.bytes;
        let is_full = self.entries.len() >= AT_HAND_MAX || self.bytes > AT_HAND_BYTES_MAX;
        match self.entries.is_empty() || more.entries.is_empty() || is_full {
            // A reader that does not keep up reads when it does.
            true => *self = AtHand { entries: Vec::new(), bytes: 0 },
            false => self.entries.extend(more.entries),
        }
    }
}
