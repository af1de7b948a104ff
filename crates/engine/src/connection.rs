//! The connection: hello, log-in (N1), registration, restored stores (D3, N3), restored relays (L11), and when to try
//! again.

use std::collections::{BTreeMap, BTreeSet};

use sealwire_keys::{AccountLog, Change as AccountChange, LogInToBeSigned, Mode, SignedEntry, sign_entry};
use sealwire_wire::frame::{Failed, FromRelay, Hello, LoggedIn, LookupBy, RequestId, ToRelay};
use sealwire_wire::handle::Handle;
use sealwire_wire::limits::{
    APPENDS_IN_FLIGHT_MAX, DAY_MS, LOG_IN_DEADLINE_MS, LOOKUPS_IN_FLIGHT_MAX, SENDER_LOOKUPS_IN_FLIGHT_MAX, SILENCE_MS,
};
use sealwire_wire::{
    AccountId, BlobHash, Code, ConversationId, DeviceHint, DeviceId, Disposition, EnvelopeId, Incarnation, InstanceId,
    LogId, Position, PresenceToken, Time,
};

use crate::command::{Refusal, Reply};
use crate::conversation::Conversation;
use crate::engine::Engine;
use crate::event::{Event, LogInProblem};
use crate::record::{self, Change, Table};
use crate::step::{Output, Ticket, Turn};

/// The first wait before connecting again, in milliseconds; it doubles up to [`BACKOFF_MAX_MS`].
const BACKOFF_MS: u64 = 250;
/// The longest wait before connecting again: a minute.
const BACKOFF_MAX_MS: u64 = 60_000;

/// How long a connection waits for a person who has to say which of two stores is the real one, until the relay is asked
/// anew: it may have lied. An hour.
const CONFLICT_RETRY_MS: u64 = 3_600_000;

/// How often contacts who have not confirmed a message are looked up again, for new keys: five minutes.
const REFRESH_MS: u64 = 300_000;

/// The state of the connection. Nothing of it outlives the process.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) stage: Stage,
    /// When the stage began.
    since: Time,
    /// Connections in a row that did not get to `Active`.
    failures: u32,
    /// A wait that the relay asked for.
    asked_wait_ms: u64,
    next_request: RequestId,
    pub(crate) asked: BTreeMap<RequestId, Asked>,
    /// Contacts that were looked up on this connection: their keys and inboxes are fresh.
    pub(crate) refreshed: BTreeSet<AccountId>,
    /// Contacts about whom the relay's last answer was worth nothing; asked about again with the next refreshing.
    pub(crate) unanswered: BTreeSet<AccountId>,
    /// Accounts that the relay has called by somebody else's handle.
    pub(crate) claims: BTreeSet<AccountId>,
    /// Contacts whose inbox the relay did not know when something was appended to it. What is sealed for them waits for
    /// the next refreshing: a relay that was restored may get them back.
    pub(crate) gone: BTreeSet<AccountId>,
    /// Contacts who are looked up as soon as there is room for it.
    pub(crate) to_refresh: BTreeSet<AccountId>,
    /// Envelopes that wait for an answer, and since when.
    pub(crate) in_flight: BTreeMap<EnvelopeId, Time>,
    pub(crate) in_flight_max: usize,
    /// The relay asked to wait with appends until then.
    pub(crate) paused_until: Option<Time>,
    /// The relay asked to wait with look-ups until then.
    pub(crate) lookups_paused_until: Option<Time>,
    /// When contacts who have not confirmed a message are looked up again.
    refresh_at: Option<Time>,
    /// What the relay says was read of the inbox, at log-in.
    read_upto: Position,
    /// The last position that came on this connection.
    pub(crate) delivered_upto: Position,
    /// Whether nothing was delivered yet on this connection.
    pub(crate) nothing_delivered: bool,
    /// Whether more had come than can be held: the rest is fetched again on the next connection.
    pub(crate) overflowed: bool,
    /// The store that the relay says it has.
    instance: Option<InstanceId>,
    /// What the relay has answered to the log-in, until the own log is read.
    answer: Option<LoggedIn>,
    /// Whether anything came of this connection: one that was of use does not count as a failure.
    pub(crate) useful: bool,
    pub(crate) online: BTreeSet<PresenceToken>,
    /// Blobs that are on their way, and what of them has come.
    pub(crate) fetching: BTreeMap<BlobHash, Vec<u8>>,
}

/// How far the connection is.
#[derive(Default, PartialEq, Eq, Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// Not connected, and to be tried at that time.
    #[default]
    Fresh,
    /// Not connected; tried again at that time, or only when asked.
    Down(Option<Time>),
    /// `Connect` was put out.
    Opening,
    /// Waits for `Hello`.
    Greeting(Option<[u8; 32]>),
    /// Waits for `LoggedIn`.
    LoggingIn,
    /// Logged in, and waits for what other devices have put into the own log.
    CatchingUp,
    /// Logged in without an account.
    Unregistered,
    /// Logged in with an older store than last time (N3).
    Restored,
    /// Logged in.
    Active,
}

/// What a request was for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    Register,
    /// An entry of the own log, and who waits for it.
    Publish(SignedEntry, Option<Ticket>),
    /// The own log, as the relay has it.
    OwnLog,
    /// Somebody by handle, and who waits.
    Handle(Handle, Vec<Ticket>),
    /// A contact.
    Account(AccountId),
    /// Whoever sent a held envelope.
    Hint(DeviceHint),
    /// Own key packages were published.
    KeyPackages,
    /// Which conversations this device is in.
    Logs,
    /// Key packages of an account, to add it to a conversation.
    Claim(ConversationId, AccountId),
    /// A key package of another own device, to add it to a conversation.
    ClaimOwn(ConversationId, DeviceId),
    /// To hand something to the other device in a meeting.
    Meet,
    /// To read a conversation's log.
    Attach(ConversationId),
    /// To begin a conversation.
    Create(ConversationId),
    /// To store a piece of the blob of a commit that waits.
    PutBlob(ConversationId),
    /// A piece of a blob.
    GetBlob(BlobHash),
}

impl Link {
    pub(crate) fn is_active(&self) -> bool {
        self.stage == Stage::Active
    }

    pub(crate) fn is_asked(&self, what: &Asked) -> bool {
        self.asked.values().any(|asked| asked == what)
    }

    /// Whether there is room for one more look-up.
    pub(crate) fn has_room_to_ask(&self) -> bool {
        self.is_active() && self.lookups_paused_until.is_none() && self.asked.len() < LOOKUPS_IN_FLIGHT_MAX
    }

    /// Whether there is room to look up one more unknown sender.
    pub(crate) fn has_room_to_ask_for_sender(&self) -> bool {
        let senders = self.asked.values().filter(|asked| matches!(asked, Asked::Hint(_))).count();
        self.has_room_to_ask() && senders < SENDER_LOOKUPS_IN_FLIGHT_MAX
    }

    pub(crate) fn next_wake(&self) -> Option<Time> {
        let oldest = self.in_flight.values().min().map(|since| since.plus(SILENCE_MS));
        match self.stage {
            Stage::Fresh => Some(Time(0)),
            Stage::Down(again_at) => again_at,
            Stage::Active => {
                [oldest, self.paused_until, self.lookups_paused_until, self.refresh_at].into_iter().flatten().min()
            }
            Stage::Restored if self.asked.is_empty() => Some(self.since.plus(CONFLICT_RETRY_MS)),
            Stage::Unregistered if self.asked.is_empty() => None,
            _ => Some(self.since.plus(LOG_IN_DEADLINE_MS)),
        }
    }

    fn enter(&mut self, stage: Stage, now: Time) {
        self.stage = stage;
        self.since = now;
    }
}

/// Whether a time has come. Clocks jump: one that lies further ahead than it can have been set has come, too.
pub(crate) fn is_due(at: Time, now: Time, longest_ms: u64) -> bool {
    now >= at || at.since(now) > longest_ms
}

impl Engine {
    /// Sends a request and remembers what it was for.
    pub(crate) fn ask(&mut self, turn: &mut Turn<'_>, asked: Asked, frame: impl FnOnce(RequestId) -> ToRelay) {
        self.link.next_request += 1;
        let request = self.link.next_request;
        self.link.asked.insert(request, asked);
        turn.send(frame(request));
    }

    pub(crate) fn connected(&mut self, turn: &mut Turn<'_>, binding: Option<[u8; 32]>) {
        self.link.enter(Stage::Greeting(binding), turn.now);
    }

    pub(crate) fn disconnected(&mut self, turn: &mut Turn<'_>) {
        let stays_away = matches!(self.link.stage, Stage::Down(None));
        let was_of_use = self.link.is_active() || self.link.useful;
        let failures = if was_of_use { 0 } else { self.link.failures.saturating_add(1) };
        let wait = BACKOFF_MS.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX_MS).max(self.link.asked_wait_ms);
        let jittered = wait / 2 + u64::from(turn.rng.next_u32()) % (wait / 2 + 1);
        let again_at = (!stays_away).then(|| turn.now.plus(jittered));
        self.forget_connection(turn);
        self.link.failures = failures;
        self.link.enter(Stage::Down(again_at), turn.now);
        turn.event(Event::Disconnected { again_at });
    }

    /// What belonged to a connection goes with it; what was on its way has to go again.
    fn forget_connection(&mut self, turn: &mut Turn<'_>) {
        for asked in std::mem::take(&mut self.link.asked).into_values() {
            match asked {
                Asked::Handle(_, tickets) => {
                    tickets.into_iter().for_each(|ticket| turn.reply(ticket, Err(Refusal::Offline)));
                }
                Asked::Publish(_, Some(ticket)) => turn.reply(ticket, Err(Refusal::Offline)),
                _ => {}
            }
        }
        self.link = Link::default();
        self.conversations.values_mut().for_each(Conversation::forget_connection);
        self.link_is_cut(turn);
        self.unsent = self.outgoing.iter().filter(|(_, o)| o.waits_for_relay()).map(|(number, _)| *number).collect();
    }

    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        match self.link.stage {
            Stage::Fresh => self.connect(turn),
            Stage::Down(Some(at)) if is_due(at, turn.now, BACKOFF_MAX_MS) => self.connect(turn),
            Stage::Restored if self.link.asked.is_empty() => self.retry_conflict(turn),
            Stage::Down(_) => {}
            Stage::Unregistered if self.link.asked.is_empty() => {}
            Stage::Active => {
                let overdue = |since: &Time| is_due(since.plus(SILENCE_MS), turn.now, SILENCE_MS);
                let unanswered = self.link.in_flight.values().any(overdue);
                if unanswered {
                    self.hang_up(turn);
                }
                let is_over = |until: Option<Time>| until.filter(|until| !is_due(*until, turn.now, BACKOFF_MAX_MS));
                self.link.paused_until = is_over(self.link.paused_until);
                self.link.lookups_paused_until = is_over(self.link.lookups_paused_until);
                if self.link.refresh_at.is_none_or(|at| is_due(at, turn.now, REFRESH_MS)) {
                    self.link.refresh_at = Some(turn.now.plus(REFRESH_MS));
                    self.link.unanswered.clear();
                    self.link.gone.clear();
                    self.forget_old(turn);
                    self.refresh_undelivered();
                }
            }
            _ if is_due(self.link.since.plus(LOG_IN_DEADLINE_MS), turn.now, LOG_IN_DEADLINE_MS) => self.hang_up(turn),
            _ => {}
        }
    }

    /// Nobody has said which of two stores is the real one: the relay is asked anew, which may have lied.
    fn retry_conflict(&mut self, turn: &mut Turn<'_>) {
        if is_due(self.link.since.plus(CONFLICT_RETRY_MS), turn.now, CONFLICT_RETRY_MS) {
            self.hang_up(turn);
        }
    }

    /// Closes the connection, to begin again on a new one.
    pub(crate) fn hang_up(&mut self, turn: &mut Turn<'_>) {
        turn.step.outputs.push(Output::Disconnect);
        self.link.enter(Stage::Opening, turn.now);
    }

    pub(crate) fn reconnect(&mut self, turn: &mut Turn<'_>) -> Result<Reply, Refusal> {
        if matches!(self.link.stage, Stage::Down(_)) {
            // A connection that is not closed yet is not heard of again.
            self.forget_connection(turn);
            self.connect(turn);
        }
        Ok(Reply::Done)
    }

    fn connect(&mut self, turn: &mut Turn<'_>) {
        self.link.enter(Stage::Opening, turn.now);
        turn.step.outputs.push(Output::Connect);
    }

    pub(crate) fn frame(&mut self, turn: &mut Turn<'_>, bytes: &[u8]) {
        let Ok(frame) = FromRelay::decode(bytes) else {
            // A newer relay may say what this version does not know; a broken one gains nothing.
            return;
        };
        match (frame, self.link.stage) {
            (FromRelay::Hello(hello), Stage::Greeting(binding)) => self.hello(turn, hello, binding),
            (FromRelay::LoggedIn(answer), Stage::LoggingIn) => self.logged_in(turn, answer),
            (FromRelay::Failed(failed), _) => self.failed(turn, failed),
            (FromRelay::Done { request }, _) => self.done(turn, request),
            (FromRelay::Found { request, handle, entries, devices }, _) => {
                if let Some(asked) = self.link.asked.remove(&request) {
                    self.found(turn, asked, handle, entries, devices);
                }
            }
            (FromRelay::Deliver { log, entries }, Stage::Active) if log == LogId::Inbox(self.own.inbox) => {
                self.deliver(turn, entries);
            }
            (FromRelay::Trimmed { log, position, .. }, Stage::Active) if log == LogId::Inbox(self.own.inbox) => {
                self.link.delivered_upto = self.link.delivered_upto.max(position);
            }
            (FromRelay::Accepted { envelope, position }, Stage::Active) => self.accepted(turn, envelope, position),
            (FromRelay::Stale { envelope, newest_commit }, Stage::Active) => self.stale(turn, envelope, newest_commit),
            (FromRelay::Deliver { log: LogId::Conversation(id), entries }, Stage::Active) => {
                self.deliver_conversation(turn, id, entries);
            }
            (FromRelay::Trimmed { log: LogId::Conversation(id), position, chain }, Stage::Active) => {
                self.trimmed(turn, id, position, chain);
            }
            (FromRelay::Attached { request, read_upto, chain, newest_commit, length, roster }, Stage::Active) => {
                if let Some(Asked::Attach(id)) = self.link.asked.remove(&request) {
                    self.note_roster(id, roster);
                    self.attached(turn, id, read_upto, chain, newest_commit, length);
                }
            }
            (FromRelay::Logs { request, conversations }, Stage::Active) => {
                if let Some(Asked::Logs) = self.link.asked.remove(&request) {
                    self.listed(turn, conversations);
                }
            }
            (FromRelay::KeyPackages { request, packages }, Stage::Active) => match self.link.asked.remove(&request) {
                Some(Asked::Claim(id, account)) => self.claimed(turn, id, account, packages),
                Some(Asked::ClaimOwn(id, device)) => self.claimed_own(turn, id, device, packages),
                _ => {}
            },
            (FromRelay::Blob { request, size, offset, bytes }, Stage::Active) => {
                match self.link.asked.remove(&request) {
                    Some(Asked::PutBlob(id)) => self.blob_stored(turn, id, offset),
                    Some(Asked::GetBlob(hash)) => self.blob_piece(turn, hash, size, offset, &bytes),
                    _ => {}
                }
            }
            (FromRelay::Presence { token, online }, Stage::Active) => self.presence(turn, token, online),
            (FromRelay::Met { meeting, bytes }, Stage::Active) => self.met(turn, meeting, &bytes),
            _ => {}
        }
    }

    fn hello(&mut self, turn: &mut Turn<'_>, hello: Hello, binding: Option<[u8; 32]>) {
        if hello.relay_name != self.own.relay_name {
            return self.stay_away(turn, LogInProblem::OtherRelay { found: hello.relay_name });
        }
        if self.own.relay_key.is_some_and(|pinned| pinned != hello.relay_key) {
            return self.stay_away(turn, LogInProblem::RelayKeyChanged);
        }
        if !hello.features.iter().any(|feature| feature == "inbox") {
            return self.stay_away(turn, LogInProblem::Unsuitable);
        }
        self.own.relay_key = Some(hello.relay_key);
        self.save_own(turn);
        self.link.instance = Some(hello.instance);
        self.link.in_flight_max = hello.limits.appends_in_flight.clamp(1, APPENDS_IN_FLIGHT_MAX) as usize;
        self.log_in(turn, &hello, binding);
    }

    /// N1. The new pending incarnation is durable before the frame leaves (N3).
    fn log_in(&mut self, turn: &mut Turn<'_>, hello: &Hello, binding: Option<[u8; 32]>) {
        self.incarnation.pending = Incarnation(turn.random());
        turn.put(Table::Own, record::INCARNATION, record::encode(&self.incarnation));
        let binding = binding.map_or(Vec::new(), |binding| binding.to_vec());
        let signed = LogInToBeSigned::new(
            &self.own.relay_name,
            hello.relay_key,
            hello.challenge,
            self.secrets.device_id(),
            self.incarnation.committed,
            self.incarnation.pending,
            "",
            &binding,
        );
        turn.send(ToRelay::LogIn {
            device_key: self.secrets.key().to_bytes(),
            incarnation: self.incarnation.committed,
            pending: self.incarnation.pending,
            binding,
            signature: self.secrets.sign(&signed.encode()),
        });
        self.link.enter(Stage::LoggingIn, turn.now);
    }

    fn logged_in(&mut self, turn: &mut Turn<'_>, answer: LoggedIn) {
        // In the step that also takes what the relay says of its logs: had the new instance been remembered with `Hello`,
        // a connection cut behind it would leave a cursor that nobody knows to be of another store.
        let relay_restored = self.own.instance.is_some() && self.own.instance != self.link.instance;
        if self.own.instance != self.link.instance {
            self.own.instance = self.link.instance;
            self.save_own(turn);
        }
        if relay_restored {
            self.relay_was_restored(turn);
        }
        match answer {
            LoggedIn::Unregistered if self.log.device(self.secrets.device_id()).is_none() => {
                // It was handed everything, and is not in the account's log yet: whoever links it does that next.
                turn.event(Event::LogIn(LogInProblem::NotLinkedYet));
                self.hang_up(turn);
            }
            LoggedIn::Unregistered => {
                self.link.enter(Stage::Unregistered, turn.now);
                self.register(turn);
            }
            LoggedIn::Registered { account, inbox, .. } if account != self.log.id() || inbox != self.own.inbox => {
                self.stay_away(turn, LogInProblem::Unsuitable);
            }
            LoggedIn::Registered { restored, account_entries, account_head, .. }
                if self.link.answer.is_none() && self.has_grown(account_entries, account_head) =>
            {
                // Of another device, or of a newer store of this one: its entries tell.
                self.link.answer = Some(answer);
                self.link.enter(Stage::CatchingUp, turn.now);
                if !restored {
                    // The next frame tells the relay that the log-in counts (N3).
                    self.commit_incarnation(turn);
                }
                self.ask_for_own_log(turn);
            }
            LoggedIn::Registered { restored, read_upto, account_entries, account_head, key_packages, .. } => {
                let has_read_more = read_upto > self.progress.cursor && !relay_restored;
                self.link.read_upto = read_upto;
                // What the relay says of read marks is its word alone, and is heard again with each log-in; that this
                // device signed more than it knows is proven, and forgotten as soon as the own log is brought up.
                if self.has_grown(account_entries, account_head) && !self.own.behind {
                    self.own.behind = true;
                    self.save_own(turn);
                }
                if restored || self.own.behind || has_read_more {
                    self.link.enter(Stage::Restored, turn.now);
                    self.restored(turn, account_head, false);
                } else {
                    self.activate(turn, read_upto);
                    self.publish_missing(turn, account_head);
                    self.replenish_key_packages(turn, key_packages, relay_restored);
                }
            }
        }
    }

    /// Reading goes on where the relay stands, which is the only one that counts its positions: a cursor further ahead
    /// came from an acknowledgement that was lost, from a store that was put back without saying so, or from a position
    /// that was made up. The replay window and content ids recognise what comes again.
    fn take_read_upto(&mut self, turn: &mut Turn<'_>, read_upto: Position) {
        self.progress.cursor = read_upto;
        self.save_progress(turn);
    }

    /// Whether the relay has more of the own log than this store.
    fn has_grown(&self, account_entries: u64, account_head: [u8; 32]) -> bool {
        account_entries > self.log.entries().len() as u64
            && self.own.publishing.as_ref().is_none_or(|entry| entry.hash() != account_head)
    }

    fn commit_incarnation(&mut self, turn: &mut Turn<'_>) {
        self.incarnation.committed = self.incarnation.pending;
        turn.put(Table::Own, record::INCARNATION, record::encode(&self.incarnation));
    }

    /// From here on the log-in counts: the pending incarnation is the committed one.
    fn activate(&mut self, turn: &mut Turn<'_>, read_upto: Position) {
        self.commit_incarnation(turn);
        self.link.enter(Stage::Active, turn.now);
        self.take_read_upto(turn, read_upto);
        self.link.delivered_upto = read_upto;
        self.link.nothing_delivered = true;
        if !self.own.registered {
            self.own.registered = true;
            self.save_own(turn);
            turn.event(Event::Registered { handle: self.own.handle.clone(), account: self.log.id() });
        }
        turn.event(Event::Connected);
        turn.send(ToRelay::SetPresence { token: self.own.presence });
        self.watch(turn);
        turn.send(ToRelay::Ack { log: LogId::Inbox(self.own.inbox), upto: self.progress.cursor });
        self.forget_old(turn);
        self.link.refresh_at = Some(turn.now.plus(REFRESH_MS));
        self.refresh_undelivered();
        self.list_logs(turn);
    }

    fn register(&mut self, turn: &mut Turn<'_>) {
        let handle = self.own.handle.name.as_str().to_owned();
        let genesis = self.log.entries()[0].0.clone();
        let (inbox, invite) = (self.own.inbox, self.own.invite.clone());
        self.ask(turn, Asked::Register, |request| ToRelay::Register { request, handle, genesis, inbox, invite });
    }

    pub(crate) fn register_as(
        &mut self,
        turn: &mut Turn<'_>,
        handle: Handle,
        invite: String,
    ) -> Result<Reply, Refusal> {
        if self.own.registered {
            return Err(Refusal::Registered);
        }
        if handle.host != self.own.relay_name {
            return Err(Refusal::OtherRelay(handle, self.own.relay_name.clone()));
        }
        self.own.handle = handle;
        self.own.invite = invite;
        self.save_own(turn);
        if self.link.stage == Stage::Unregistered && self.link.asked.is_empty() {
            self.register(turn);
        }
        Ok(Reply::Done)
    }

    /// N3: this store is older than its last log-in. New direct keys make every replay void (D3); not automatically
    /// more than once a day, since two copies of one store would take turns.
    fn restored(&mut self, turn: &mut Turn<'_>, relay_head: [u8; 32], reclaimed: bool) {
        if let Some(entry) = self.own.publishing.clone() {
            // Made before a crash; the relay may have it already, and then says Done.
            return self.publish(turn, entry, None);
        }
        if relay_head != self.log.head() && self.log.entries().iter().any(|entry| entry.hash() == relay_head) {
            // The relay was put back, too, and further: first it gets what it lost (L11), then this goes on.
            return self.publish_missing(turn, relay_head);
        }
        if relay_head != self.log.head() {
            return self.ask_for_own_log(turn);
        }
        let rotated_lately =
            self.log.rotated_at(self.secrets.device_id()).is_some_and(|at| turn.now.since(at) < DAY_MS);
        if rotated_lately && !reclaimed {
            return turn.event(Event::StoreConflict);
        }
        let next = self.secrets.with_new_direct_keys(turn.rng);
        let mode = if self.is_mls() { Mode::Mls } else { Mode::Direct };
        let change = AccountChange::RotateDevice { device: next.device_id(), direct: next.card_for(mode).direct };
        turn.step.changes.push(Change::Put {
            table: Table::Own,
            key: record::NEXT_SECRETS.to_vec(),
            value: next.to_record(),
        });
        self.next_secrets = Some(next);
        self.publish_change(turn, change, None);
    }

    pub(crate) fn reclaim(&mut self, turn: &mut Turn<'_>) -> Result<Reply, Refusal> {
        if self.link.stage != Stage::Restored {
            return Err(Refusal::NothingToDecide);
        }
        let head = self.log.head();
        self.restored(turn, head, true);
        Ok(Reply::Done)
    }

    pub(crate) fn retire(&mut self, turn: &mut Turn<'_>, ticket: Ticket) {
        if !self.link.is_active() || self.own.publishing.is_some() {
            return turn.reply(ticket, Err(Refusal::Offline));
        }
        if self.log.is_retired() {
            return turn.reply(ticket, Err(Refusal::Retired));
        }
        self.publish_change(turn, AccountChange::Retire, Some(ticket));
    }

    pub(crate) fn ask_for_own_log(&mut self, turn: &mut Turn<'_>) {
        let account = self.log.id();
        if !self.link.is_asked(&Asked::OwnLog) {
            self.ask(turn, Asked::OwnLog, |request| ToRelay::Lookup { request, by: LookupBy::Account(account) });
        }
    }

    /// Takes a device from the account, this one too.
    pub(crate) fn revoke(&mut self, turn: &mut Turn<'_>, ticket: Ticket, device: DeviceId) {
        if !self.link.is_active() || self.own.publishing.is_some() {
            return turn.reply(ticket, Err(Refusal::Offline));
        }
        if self.log.device(device).is_none() {
            return turn.reply(ticket, Err(Refusal::UnknownDevice));
        }
        if self.log.devices().count() == 1 {
            return turn.reply(ticket, Err(Refusal::LastDevice));
        }
        self.publish_change(turn, AccountChange::RevokeDevice { device }, Some(ticket));
    }

    pub(crate) fn publish_change(&mut self, turn: &mut Turn<'_>, change: AccountChange, ticket: Option<Ticket>) {
        let entry = self.log.next(turn.now, change, self.secrets.device_id());
        let signed = sign_entry(&entry, |bytes| self.secrets.sign(bytes));
        self.own.publishing = Some(signed.clone());
        self.save_own(turn);
        self.publish(turn, signed, ticket);
    }

    fn publish(&mut self, turn: &mut Turn<'_>, signed: SignedEntry, ticket: Option<Ticket>) {
        let entry = signed.0.clone();
        let inbox = self.own.publishing_inbox.filter(|_| self.own.publishing.as_ref() == Some(&signed));
        self.ask(turn, Asked::Publish(signed, ticket), |request| ToRelay::Publish { request, entry, inbox });
    }

    /// L11: a relay that was restored from a backup gets what it lost of the own log; an unconfirmed entry goes again.
    fn publish_missing(&mut self, turn: &mut Turn<'_>, account_head: [u8; 32]) {
        let all: Vec<_> = self.log.entries().iter().chain(&self.own.publishing).cloned().collect();
        match all.iter().position(|entry| entry.hash() == account_head) {
            // What is unconfirmed goes again even if it is the head: the answer is what was lost.
            Some(index) => {
                let from = (index + 1).min(self.log.entries().len());
                all[from..].iter().for_each(|entry| self.publish(turn, entry.clone(), None));
            }
            None => turn.event(Event::BadAnswer { account: Some(self.log.id()) }),
        }
    }

    fn relay_was_restored(&mut self, turn: &mut Turn<'_>) {
        // Its inbox may have fewer entries than were read: positions begin again where it stands.
        self.progress.cursor = Position::START;
        self.save_progress(turn);
        self.repeat_accepted(turn);
        self.doubt_conversations(turn);
        turn.event(Event::RelayRestored);
    }

    fn done(&mut self, turn: &mut Turn<'_>, request: RequestId) {
        match self.link.asked.remove(&request) {
            Some(Asked::Register) => {
                self.activate(turn, Position::START);
                let genesis = self.log.entries()[0].hash();
                self.publish_missing(turn, genesis);
                self.replenish_key_packages(turn, 0, true);
            }
            Some(Asked::Publish(entry, ticket)) => {
                self.published(turn, entry);
                if let Some(ticket) = ticket {
                    turn.reply(ticket, Ok(Reply::Done));
                }
                let more = self.link.asked.values().any(|asked| matches!(asked, Asked::Publish(..)));
                // What the relay had lost, or what was on its way when this store was kept, is there: now for the keys.
                if !more && self.link.stage == Stage::Restored {
                    let head = self.log.head();
                    self.restored(turn, head, false);
                }
            }
            Some(Asked::Create(id)) => self.created(turn, id),
            _ => {}
        }
    }

    fn published(&mut self, turn: &mut Turn<'_>, entry: SignedEntry) {
        if self.own.publishing.as_ref() != Some(&entry) {
            return;
        }
        if !self.log.entries().contains(&entry) {
            // Else somebody else was quicker to tell of it.
            let entries: Vec<_> = self.log.entries().iter().chain([&entry]).cloned().collect();
            self.take_own_log(turn, &entries);
        }
        self.own.publishing = None;
        self.own.publishing_inbox = None;
        self.save_own(turn);
        self.device_was_listed(turn);
        if let Some(next) = self.next_secrets.take() {
            self.own.behind = false;
            self.save_own(turn);
            self.adopt_secrets(turn, next);
        }
    }

    /// The new direct keys are public: they are the ones from now on, and what was sealed to the old ones is refused.
    fn adopt_secrets(&mut self, turn: &mut Turn<'_>, next: sealwire_session::DeviceSecrets) {
        turn.step.changes.push(Change::Put {
            table: Table::Own,
            key: record::SECRETS.to_vec(),
            value: next.to_record(),
        });
        turn.delete(Table::Own, record::NEXT_SECRETS);
        self.secrets = next;
        self.sessions.clear();
        self.derived.clear();
        self.sending.clear();
        for commitment in std::mem::take(&mut self.channels).into_keys() {
            turn.delete(Table::Channel, commitment.0);
        }
        self.distrust_ratchets(turn);
        self.commit_incarnation(turn);
        // What a newer store had read of is lost to this one; that finding is mended.
        let read_upto = self.link.read_upto;
        self.take_read_upto(turn, read_upto);
        turn.event(Event::StoreRestored);
        self.hang_up(turn);
    }

    /// The own log as the relay has it: longer, if another device or another copy of this store made an entry.
    pub(crate) fn found_own_log(&mut self, turn: &mut Turn<'_>, entries: &[SignedEntry]) {
        let known = self.log.entries().len();
        let is_taken = self.take_own_log(turn, entries);
        match self.link.stage {
            // What came behind the log-in meanwhile was not read: the next connection brings it.
            Stage::CatchingUp if self.log.entries().len() > known => self.hang_up(turn),
            Stage::CatchingUp => {
                if let Some(answer) = self.link.answer.clone() {
                    self.logged_in(turn, answer);
                }
            }
            Stage::Restored if is_taken => {
                let head = self.log.head();
                self.restored(turn, head, false);
            }
            _ => self.list_device(turn),
        }
    }

    /// The own log, longer than it is here, from whoever has it. Whether it continues this one.
    pub(crate) fn take_own_log(&mut self, turn: &mut Turn<'_>, entries: &[SignedEntry]) -> bool {
        let (own, known) = (self.secrets.device_id(), self.log.entries().len());
        let before: BTreeSet<_> = self.log.devices().map(|card| card.key.device_id()).collect();
        if self.log.advance(entries).is_err() {
            turn.event(Event::BadAnswer { account: Some(self.log.id()) });
            return false;
        }
        let new = &self.log.entries()[known..];
        // What this device has signed, and the store does not know: it was put back, though not far enough for the
        // incarnation to tell (N3).
        let is_unknown =
            |entry: &SignedEntry| entry.signer() == Some(own) && self.own.publishing.as_ref() != Some(entry);
        self.own.behind |= new.iter().any(is_unknown);
        if new.is_empty() {
            return true;
        }
        self.revoked.extend(self.log.revoked());
        let after: BTreeSet<_> = self.log.devices().map(|card| card.key.device_id()).collect();
        for device in after.difference(&before).filter(|device| **device != own) {
            turn.event(Event::DeviceAdded { device: *device });
        }
        for device in before.difference(&after) {
            turn.event(Event::DeviceRevoked { device: *device, is_this: *device == own });
        }
        self.save_own(turn);
        true
    }

    fn failed(&mut self, turn: &mut Turn<'_>, failed: Failed) {
        if let Some(envelope) = failed.envelope {
            return self.append_failed(turn, envelope, &failed);
        }
        match self.link.asked.remove(&failed.request) {
            Some(asked) => self.request_failed(turn, asked, failed),
            None => self.connection_failed(turn, failed),
        }
    }

    fn request_failed(&mut self, turn: &mut Turn<'_>, asked: Asked, failed: Failed) {
        match asked {
            Asked::Register => {
                turn.event(Event::RegistrationRefused { handle: self.own.handle.clone(), code: failed.code });
            }
            Asked::Publish(_, ticket) => {
                self.publish_failed(turn, &failed);
                if let Some(ticket) = ticket {
                    turn.reply(ticket, Err(Refusal::Offline));
                }
            }
            Asked::OwnLog | Asked::KeyPackages | Asked::Logs => {
                turn.event(Event::Refused { code: failed.code, text: failed.text })
            }
            Asked::Claim(id, account) => self.claim_failed(turn, id, account, &failed),
            Asked::ClaimOwn(id, _) => self.claim_failed(turn, id, self.log.id(), &failed),
            Asked::Meet => self.link_refused(turn),
            Asked::Create(id) => self.create_failed(turn, id, &failed),
            Asked::Attach(id) => self.attach_failed(turn, id, &failed),
            // What is asked again on the next connection.
            Asked::PutBlob(_) | Asked::GetBlob(_) => {
                turn.event(Event::Refused { code: failed.code, text: failed.text })
            }
            asked => self.lookup_failed(turn, asked, &failed),
        }
    }

    fn publish_failed(&mut self, turn: &mut Turn<'_>, failed: &Failed) {
        if failed.code == Code::HeadMoved {
            // Another device, or another copy of this store, was quicker. What was prepared builds on an old head: drop it,
            // read, decide.
            self.own.publishing = None;
            self.own.publishing_inbox = None;
            self.next_secrets = None;
            turn.delete(Table::Own, record::NEXT_SECRETS);
            self.save_own(turn);
            if self.log.devices().count() == 1 && !self.is_linking() {
                self.link.enter(Stage::Restored, turn.now);
            }
            self.ask_for_own_log(turn);
        } else {
            turn.event(Event::Refused { code: failed.code, text: failed.text.clone() });
        }
    }

    fn connection_failed(&mut self, turn: &mut Turn<'_>, failed: Failed) {
        self.link.asked_wait_ms = failed.retry_after_ms.min(BACKOFF_MAX_MS);
        match (failed.code, failed.code.disposition()) {
            (Code::Replaced, _) => {
                turn.event(Event::Replaced);
                self.link.enter(Stage::Down(None), turn.now);
                turn.step.outputs.push(Output::Disconnect);
            }
            (Code::DeviceRevoked, _) => self.stay_away(turn, LogInProblem::Revoked),
            (Code::BadSignature | Code::BindingRequired, _) => {
                self.stay_away(turn, LogInProblem::Refused(failed.code, failed.text));
            }
            (_, Disposition::GoesOn) => turn.event(Event::Refused { code: failed.code, text: failed.text }),
            // The relay closes; `Disconnected` follows.
            _ => {}
        }
    }

    /// Nothing that a repetition would mend.
    fn stay_away(&mut self, turn: &mut Turn<'_>, problem: LogInProblem) {
        turn.event(Event::LogIn(problem));
        self.link.enter(Stage::Down(None), turn.now);
        turn.step.outputs.push(Output::Disconnect);
    }

    pub(crate) fn trust_relay(&mut self, turn: &mut Turn<'_>) -> Result<Reply, Refusal> {
        self.own.relay_key = None;
        self.save_own(turn);
        self.reconnect(turn)
    }

    /// The log that a relay handed out, verified.
    pub(crate) fn verify_log(entries: Vec<Vec<u8>>) -> Option<AccountLog> {
        AccountLog::verify(entries.into_iter().map(SignedEntry)).ok()
    }
}
