//! Appends (L1): into inboxes and conversation logs, once per envelope id, answered only when durable.

use std::collections::BTreeMap;

use sealwire_store as store;
use sealwire_store::{Operation, Outcome, Record, Refusal};
use sealwire_wire::direct::sender_hint;
use sealwire_wire::entry::{Body, Entry, EntryError, EntryKind};
use sealwire_wire::frame::{FromRelay, RosterChange, Welcome};
use sealwire_wire::limits::{APPENDS_BURST, APPENDS_IN_FLIGHT_MAX, ATTACHED_LOGS_MAX, COMMITS_PER_MINUTE};
use sealwire_wire::{Code, ConversationId, EnvelopeId, InboxAddress, LogId, Time};

use crate::connection::{BUSY_RETRY_MS, Connection, Session, Waiting};
use crate::decision::Question;
use crate::rate::{Gate, Rate};
use crate::records::{self, InboxOwner};

/// For how long an inbox that took entries is not asked about again. An account that retires meanwhile still gets
/// what nobody reads any more; that is cheaper than to look at each append.
const INBOX_KNOWN_MS: u64 = 10_000;
/// Inboxes that one connection remembers as open.
const INBOXES_KNOWN_MAX: usize = 256;

/// A connection's appends under way.
pub(crate) struct Appends {
    in_flight: u32,
    /// `None`: no limit.
    gate: Option<Gate>,
    /// Inboxes that are being asked about, with the appends that wait for it, in order.
    checking: BTreeMap<InboxAddress, Vec<store::Append>>,
    /// Inboxes that took entries, and until when they are not asked about again.
    known: BTreeMap<InboxAddress, Time>,
    commits: BTreeMap<ConversationId, Rate>,
}

/// An inbox that is being asked about.
pub(crate) struct Checking(InboxAddress);

impl Connection {
    pub(crate) fn append(&mut self, session: Session, log: LogId, entry: &[u8], roster: Option<RosterChange>) {
        let entry = match Entry::decode(entry) {
            Ok(entry) => entry,
            Err(error) => return self.refuse(code_of(error), &error.to_string()),
        };
        let envelope = entry.envelope;
        let append = match checked(session, log, entry, roster) {
            Ok(append) => append,
            Err((code, text)) => return self.refuse_append(code, envelope, 0, text),
        };
        if matches!(log, LogId::Conversation(_)) && !self.relay.policy().features.conversation_logs {
            return self.refuse_append(Code::UnknownLog, envelope, 0, "there is no such log");
        }
        if self.appends.in_flight >= APPENDS_IN_FLIGHT_MAX {
            return self.refuse_append(Code::Busy, envelope, BUSY_RETRY_MS, "too many appends wait");
        }
        if let Some(Err(wait)) = self.appends.gate.as_mut().map(|gate| gate.take(log, envelope, self.now)) {
            return self.refuse_append(Code::RateLimited, envelope, wait, "too many appends in a minute");
        }
        if let (EntryKind::Commit, LogId::Conversation(conversation)) = (append.entry.kind, log)
            && let Err(wait) = self.appends.take_commit(conversation, self.now)
        {
            return self.refuse_append(Code::RateLimited, envelope, wait, "too many commits in a minute");
        }
        self.appends.in_flight += 1;
        match log {
            LogId::Conversation(_) => self.store_append(append),
            LogId::Inbox(inbox) => self.append_to_inbox(inbox, append),
        }
    }

    fn append_to_inbox(&mut self, inbox: InboxAddress, append: store::Append) {
        if let Some(others) = self.appends.checking.get_mut(&inbox) {
            return others.push(append);
        }
        if self.appends.known.get(&inbox).is_some_and(|until| *until > self.now) {
            return self.store_append(append);
        }
        self.appends.checking.insert(inbox, vec![append]);
        self.load(Question::Records(vec![records::key::<InboxOwner>(inbox.0)]), Waiting::InboxCheck(Checking(inbox)));
    }

    pub(crate) fn inbox_checked(&mut self, Checking(inbox): Checking, found: &[Option<Record>]) {
        let appends = self.appends.checking.remove(&inbox).unwrap_or_default();
        let Ok(owner) = records::read::<InboxOwner>(found.first().and_then(Option::as_ref)) else {
            return self.damaged();
        };
        let refusal = match owner {
            Some(owner) if owner.value.retired.0 => Some((Code::Retired, "the account was retired")),
            Some(_) => None,
            None => Some((Code::UnknownLog, "there is no such inbox")),
        };
        if refusal.is_none() {
            self.appends.remember(inbox, self.now);
        }
        for append in appends {
            match refusal {
                None => self.store_append(append),
                Some((code, text)) => {
                    self.appends.in_flight -= 1;
                    self.refuse_append(code, append.envelope(), 0, text);
                }
            }
        }
    }

    fn store_append(&mut self, append: store::Append) {
        let commit = match append.log {
            LogId::Conversation(id) if append.entry.kind == EntryKind::Commit => Some(id),
            _ => None,
        };
        let waiting = Waiting::Append { envelope: append.envelope(), commit };
        self.store(Operation::Append(append), waiting);
    }

    pub(crate) fn append_stored(&mut self, envelope: EnvelopeId, commit: Option<ConversationId>, outcome: Outcome) {
        self.appends.in_flight = self.appends.in_flight.saturating_sub(1);
        let (code, text) = match outcome {
            Outcome::Appended { position, .. } => return self.send(FromRelay::Accepted { envelope, position }),
            Outcome::Refused(Refusal::Stale { newest_commit }) => {
                // It has kept nobody from anything, and its author has to make another.
                if let Some(rate) = commit.and_then(|id| self.appends.commits.get_mut(&id)) {
                    rate.give_back();
                }
                return self.send(FromRelay::Stale { envelope, newest_commit });
            }
            Outcome::Refused(refusal) => explain(refusal),
            _ => (Code::StoreFailed, "the relay's store answered something else"),
        };
        self.refuse_append(code, envelope, 0, text);
    }

    fn refuse_append(&mut self, code: Code, envelope: EnvelopeId, retry_after_ms: u64, text: &str) {
        self.fail(code, 0, Some(envelope), retry_after_ms, text);
    }
}

impl Appends {
    pub(crate) fn at_most(per_minute: u32) -> Appends {
        let gate = (per_minute > 0).then(|| Gate::new(Rate::with_burst(per_minute, APPENDS_BURST.min(per_minute))));
        Appends { in_flight: 0, gate, checking: BTreeMap::new(), known: BTreeMap::new(), commits: BTreeMap::new() }
    }

    /// L10: against a stream of commits that keeps everybody `Stale`.
    fn take_commit(&mut self, conversation: ConversationId, now: Time) -> Result<(), u64> {
        if self.commits.len() >= ATTACHED_LOGS_MAX {
            self.commits.retain(|_, rate| !rate.is_fresh(now));
        }
        if self.commits.len() >= ATTACHED_LOGS_MAX && !self.commits.contains_key(&conversation) {
            return Err(BUSY_RETRY_MS);
        }
        self.commits.entry(conversation).or_insert_with(|| Rate::per_minute(COMMITS_PER_MINUTE)).take(now)
    }

    fn remember(&mut self, inbox: InboxAddress, now: Time) {
        if self.known.len() >= INBOXES_KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(inbox, now.plus(INBOX_KNOWN_MS));
    }
}

/// What the spec says about an entry and its log, before any store is asked.
fn checked(
    session: Session,
    log: LogId,
    entry: Entry,
    roster: Option<RosterChange>,
) -> Result<store::Append, (Code, &'static str)> {
    if entry.kind.is_for_inbox() != matches!(log, LogId::Inbox(_)) {
        return Err((Code::Malformed, "this kind of entry belongs into another kind of log"));
    }
    if !names_its_writer(session, &entry) {
        return Err((Code::EntryRefused, "a direct-mode entry names the device that writes it"));
    }
    let roster = match (entry.kind, roster) {
        (EntryKind::Commit | EntryKind::RestoreRoster, Some(change)) => Some(read_roster(change)?),
        (EntryKind::RestoreRoster, None) => return Err((Code::Malformed, "a restoration needs a roster")),
        (_, None) => None,
        (_, Some(_)) => return Err((Code::Malformed, "this kind of entry changes no roster")),
    };
    Ok(store::Append { log, writer: session.inbox, entry, roster })
}

/// A made-up sender would cost every reader a look-up, so a direct-mode body has to name the device that is logged in.
/// Its header is in clear; nothing is opened. A body that is a blob's hash names nobody, and costs no look-up.
fn names_its_writer(session: Session, entry: &Entry) -> bool {
    match (entry.kind, &entry.body) {
        (EntryKind::Direct, Body::Inline(body)) => sender_hint(body) == Some(session.proven.device.hint()),
        _ => true,
    }
}

fn read_roster(change: RosterChange) -> Result<store::RosterChange, (Code, &'static str)> {
    let RosterChange { before, inboxes, welcomes } = change;
    let welcomes = read_welcomes(welcomes, &inboxes)?;
    Ok(store::RosterChange { before, inboxes, welcomes })
}

/// Welcomes go to inboxes of the roster that they come with, and nowhere else.
pub(crate) fn read_welcomes(
    welcomes: Vec<Welcome>,
    roster: &[InboxAddress],
) -> Result<Vec<store::Welcome>, (Code, &'static str)> {
    let read = |welcome: Welcome| {
        let entry = Entry::decode(&welcome.entry).map_err(|error| (code_of(error), "a welcome is malformed"))?;
        match entry.kind == EntryKind::Welcome && roster.binary_search(&welcome.inbox).is_ok() {
            true => Ok(store::Welcome { inbox: welcome.inbox, entry }),
            false => Err((Code::Malformed, "a welcome goes to an inbox of its roster")),
        }
    };
    welcomes.into_iter().map(read).collect()
}

pub(crate) fn code_of(error: EntryError) -> Code {
    match error {
        EntryError::TooLarge => Code::TooLarge,
        EntryError::UnknownKind(_) | EntryError::Malformed => Code::Malformed,
    }
}

/// A store's refusal in the words of `spec/errors.md`.
pub(crate) fn explain(refusal: Refusal) -> (Code, &'static str) {
    match refusal {
        Refusal::UnknownLog => (Code::UnknownLog, "there is no such log"),
        Refusal::WrongKind => (Code::Malformed, "this kind of entry belongs into another kind of log"),
        Refusal::EnvelopeReused => (Code::EnvelopeReused, "the envelope id was used for something else"),
        Refusal::NotInRoster => (Code::NotAllowed, "this device is not in the roster"),
        Refusal::RosterMoved => (Code::RosterMoved, "the roster changed meanwhile"),
        Refusal::ConversationExists => (Code::ConversationExists, "the conversation was created before"),
        Refusal::BlobMismatch { .. } => (Code::BlobRefused, "the piece does not fit the blob"),
        Refusal::TooManyKeyPackages => (Code::TooLarge, "a device has at most 100 one-time key packages"),
        Refusal::Stale { .. } | Refusal::VersionMoved { .. } | Refusal::InboxExists => {
            (Code::StoreFailed, "the relay's store answered something else")
        }
    }
}
