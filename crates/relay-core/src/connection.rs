//! One client's connection: which frames it may send now, and who answers them.
//!
//! ```text
//! Fresh --LogIn--> LoggingIn --+--> Unregistered --Register--> Registered
//!                              +--> Registered (active or restored)
//! any --refusal that closes, REPLACED, SHUTTING_DOWN--> Closed
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sealwire_store::Outcome;
use sealwire_wire::frame::{Failed, FromRelay, RequestId, ToRelay};
use sealwire_wire::{
    AccountId, Code, ConversationId, DeviceId, Disposition, EnvelopeId, InboxAddress, Incarnation, LogId, Time, limits,
};

use crate::append::{Appends, Checking};
use crate::blob::Blobs;
use crate::conversation::is_proven;
use crate::decision::{Answer, CloseCode, Decision, Input, Question, StoreFailed, Token};
use crate::delivery::Readers;
use crate::key_packages::{Claiming, Offering};
use crate::log_in::LoggingIn;
use crate::look_up::LookingUp;
use crate::presence::{Presence, SettingPresence};
use crate::publish::Publishing;
use crate::rate::Rate;
use crate::register::Registering;
use crate::relay::Relay;

/// Requests of one connection that may wait for the store at once; appends have their own bound.
pub(crate) const REQUESTS_IN_FLIGHT_MAX: usize = 64;
/// How often a compare-and-swap that lost is tried again before the client hears BUSY.
pub(crate) const SWAPS_MAX: u32 = 8;
/// What BUSY tells a client to wait.
pub(crate) const BUSY_RETRY_MS: u64 = 1_000;

/// One client's connection. Owned by one task; dropped when its WebSocket is gone.
pub struct Connection {
    pub(crate) relay: Arc<Relay>,
    pub(crate) challenge: [u8; 32],
    pub(crate) origin: Option<String>,
    /// The TLS exporter; there is one exactly where this relay ends TLS itself.
    pub(crate) binding: Option<[u8; 32]>,
    pub(crate) opened_at: Time,
    pub(crate) now: Time,
    pub(crate) state: State,
    pub(crate) lookups: Rate,
    pub(crate) publishes: Rate,
    pub(crate) claims: Rate,
    pub(crate) appends: Appends,
    pub(crate) readers: Readers,
    pub(crate) presence: Presence,
    /// Frames that were sent in meetings.
    pub(crate) meeting_frames: u32,
    next_token: u64,
    waiting: BTreeMap<Token, Waiting>,
    decisions: Vec<Decision>,
}

/// Where a connection stands.
pub(crate) enum State {
    /// `Hello` was sent.
    Fresh,
    /// The log-in was verified; the store is asked who it is.
    LoggingIn,
    /// The key is proven; no account has it.
    Unregistered(Proven),
    /// The device of an account.
    Registered(Session),
    /// Nothing is done any more.
    Closed,
}

/// A device whose signature was verified, and the incarnations that it sent (N3).
#[derive(Clone, Copy)]
pub(crate) struct Proven {
    pub(crate) device: DeviceId,
    pub(crate) incarnation: Incarnation,
    pub(crate) pending: Incarnation,
}

/// A device of an account.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    pub(crate) proven: Proven,
    pub(crate) account: AccountId,
    pub(crate) inbox: InboxAddress,
    pub(crate) restored: bool,
    /// Whether a frame behind the log-in has shown that the client has committed its pending incarnation.
    pub(crate) confirmed: bool,
}

/// What is done when the store has answered.
pub(crate) enum Waiting {
    LogIn(LoggingIn),
    Register(Registering),
    Publish(Publishing),
    LookUp(LookingUp),
    InboxCheck(Checking),
    Append {
        envelope: EnvelopeId,
        commit: Option<ConversationId>,
    },
    Page(LogId),
    Ack(LogId),
    Cursor(LogId),
    Attach {
        request: RequestId,
        conversation: ConversationId,
    },
    Head {
        request: RequestId,
        conversation: ConversationId,
    },
    Logs {
        request: RequestId,
    },
    Create {
        request: RequestId,
    },
    Blob(Blobs),
    Offer(Offering),
    /// Nothing: the key packages of an account that retires go, and its entry is what is answered.
    Retire,
    Claim(Claiming),
    Presence(SettingPresence),
    Confirm(Proven),
}

impl Waiting {
    fn is_request(&self) -> bool {
        !matches!(
            self,
            Waiting::InboxCheck(_)
                | Waiting::Append { .. }
                | Waiting::Page(_)
                | Waiting::Ack(_)
                | Waiting::Cursor(_)
                | Waiting::Retire
                | Waiting::Confirm(_)
        )
    }
}

impl Connection {
    /// A new connection, and the `Hello` for it. `challenge`: fresh random bytes. `origin`: the browser's, where the
    /// request had one. `binding`: the TLS exporter (RFC 9266), exactly where this relay ends TLS itself.
    pub fn open(
        relay: &Arc<Relay>,
        now: Time,
        challenge: [u8; 32],
        origin: Option<String>,
        binding: Option<[u8; 32]>,
    ) -> (Connection, Vec<Decision>) {
        let connection = Connection {
            relay: Arc::clone(relay),
            challenge,
            origin,
            binding,
            opened_at: now,
            now,
            state: State::Fresh,
            lookups: Rate::per_minute(limits::LOOKUPS_PER_MINUTE),
            publishes: Rate::per_minute(crate::publish::PUBLISHES_PER_MINUTE),
            claims: Rate::with_burst(limits::CLAIMS_PER_MINUTE, limits::CLAIMS_BURST),
            appends: Appends::at_most(relay.policy().appends_per_minute),
            readers: Readers::default(),
            presence: Presence::default(),
            meeting_frames: 0,
            next_token: 0,
            waiting: BTreeMap::new(),
            decisions: Vec::new(),
        };
        (connection, vec![Decision::Send(relay.hello(challenge, now))])
    }

    /// Something happened; this is what to do now. Total: any input in any state has an answer.
    pub fn handle(&mut self, input: Input, now: Time) -> Vec<Decision> {
        if matches!(self.state, State::Closed) {
            return Vec::new();
        }
        self.now = now;
        match input {
            Input::Bytes(bytes) => self.receive(&bytes),
            Input::Text => self.refuse(Code::TextFrame, "send binary messages"),
            Input::Stored { token, result } => self.stored(token, result),
            Input::Loaded { token, result } => self.loaded(token, result),
            Input::Grown(growth) => self.grown(growth),
            Input::PresenceChanged { token, online } => self.presence_changed(token, online),
            Input::Replaced => self.refuse(Code::Replaced, "another connection of this device took over"),
            Input::Revoked => self.refuse(Code::DeviceRevoked, "this device was taken from its account"),
            Input::MeetingAnswered { request, met } => self.meeting_answered(request, met),
            Input::Met { meeting, bytes } => self.send(FromRelay::Met { meeting, bytes }),
            Input::ShutDown => self.shut_down(),
            Input::Tick => self.tick(),
        }
        std::mem::take(&mut self.decisions)
    }

    /// The device, once its log-in was verified.
    pub fn device(&self) -> Option<DeviceId> {
        match &self.state {
            State::Unregistered(proven) => Some(proven.device),
            State::Registered(session) => Some(session.proven.device),
            State::Fresh | State::LoggingIn | State::Closed => None,
        }
    }

    /// Whether the connection is done: nothing that comes in changes anything.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    fn receive(&mut self, bytes: &[u8]) {
        match ToRelay::decode(bytes) {
            // Before anything else, as a relay would that has never heard of that kind.
            Ok(frame) if !self.relay.policy().features.know(&frame) => {
                self.refuse_frame(Code::UnknownFrame, &frame, "this relay does not offer that");
            }
            Ok(frame) => self.dispatch(frame),
            Err(error) => self.refuse(error.code(), &error.to_string()),
        }
        if bytes.len() > limits::FRAME_MAX && !self.is_closed() {
            // errors.md: a message larger than a frame closes the connection, whatever it says.
            self.close(Code::TooLarge);
        }
    }

    /// Authority is checked on every verb (N2): state first, then each verb's own.
    fn dispatch(&mut self, frame: ToRelay) {
        match (&self.state, frame) {
            (State::Fresh, ToRelay::LogIn { device_key, incarnation, pending, binding, signature }) => {
                self.log_in(&device_key, incarnation, pending, &binding, &signature);
            }
            (State::Fresh | State::LoggingIn, _) => {
                self.refuse(Code::WrongOrder, "log in first, and wait for the answer")
            }
            (_, ToRelay::LogIn { .. }) => self.refuse(Code::WrongOrder, "this connection is logged in"),
            (State::Unregistered(proven), frame) => {
                let proven = *proven;
                self.dispatch_unregistered(proven, frame);
            }
            (State::Registered(session), frame) => {
                let session = *session;
                self.dispatch_registered(session, frame);
            }
            (State::Closed, _) => {}
        }
    }

    fn dispatch_unregistered(&mut self, proven: Proven, frame: ToRelay) {
        match frame {
            ToRelay::Register { request, handle, genesis, inbox, invite } => {
                if self.has_room(request) {
                    self.register(proven, request, &handle, genesis, inbox, &invite);
                }
            }
            ToRelay::Meet { request, meeting, bytes } => self.meet(request, meeting, bytes, false),
            frame => self.refuse_frame(Code::NotAllowed, &frame, "register first"),
        }
    }

    fn dispatch_registered(&mut self, session: Session, frame: ToRelay) {
        if session.restored && !is_open_to_restored(&frame, &session) {
            return self.refuse_frame(Code::Restored, &frame, "publish new direct keys first");
        }
        if request_of(&frame).is_some_and(|request| !self.has_room(request)) {
            return;
        }
        self.confirm(session);
        match frame {
            ToRelay::Append { log, entry, roster } => self.append(session, log, &entry, roster),
            ToRelay::Ack { log, upto } => self.ack(session, log, upto),
            ToRelay::Lookup { request, by } => self.look_up(request, by),
            ToRelay::Register { request, handle, genesis, inbox, .. } => {
                self.register_again(session, request, &handle, genesis, inbox);
            }
            ToRelay::Publish { request, entry, inbox } => self.publish(session, request, entry, inbox),
            ToRelay::SetPresence { token } => self.set_presence(session, token),
            ToRelay::Watch { tokens } => self.watch(tokens),
            ToRelay::Attach { request, conversation } => self.attach(session, request, conversation),
            ToRelay::CreateConversation { request, conversation, entries, inboxes, welcomes, proof } => {
                if !is_proven(session.account, conversation, proof) {
                    return self.refuse_request(Code::NotAllowed, request, "the proof does not lead to that id");
                }
                self.create_conversation(session, request, conversation, &entries, inboxes, welcomes);
            }
            ToRelay::GetHead { request, conversation } => self.get_head(request, conversation),
            ToRelay::PutBlob { request, hash, size, offset, bytes } => {
                self.put_blob(request, hash, size, offset, bytes)
            }
            ToRelay::GetBlob { request, hash, offset } => self.get_blob(request, hash, offset),
            ToRelay::PublishKeyPackages { request, replace, one_time, last_resort } => {
                self.publish_key_packages(session, request, replace, one_time, last_resort);
            }
            ToRelay::ClaimKeyPackages { request, account, device } => {
                self.claim_key_packages(session, request, account, device);
            }
            ToRelay::Meet { request, meeting, bytes } => self.meet(request, meeting, bytes, true),
            ToRelay::ListLogs { request } => self.load(Question::Logs(session.inbox), Waiting::Logs { request }),
            ToRelay::LogIn { .. } => self.refuse(Code::WrongOrder, "this connection is logged in"),
        }
    }

    fn stored(&mut self, token: Token, result: Result<Outcome, StoreFailed>) {
        // A token that nothing waits for is a shell's mistake, not a client's: there is nobody to answer.
        let Some(waiting) = self.waiting.remove(&token) else { return };
        let Ok(outcome) = result else { return self.store_failed(&waiting) };
        match waiting {
            Waiting::LogIn(stage) => self.log_in_stored(stage, outcome),
            Waiting::Register(stage) => self.register_stored(stage, outcome),
            Waiting::Publish(stage) => self.publish_stored(stage, outcome),
            Waiting::Append { envelope, commit } => self.append_stored(envelope, commit, outcome),
            Waiting::Ack(log) => self.ack_stored(log),
            Waiting::Create { request } => self.create_stored(request, outcome),
            Waiting::Blob(stage) => self.blob_stored(stage, outcome),
            Waiting::Offer(stage) => self.offer_stored(stage, outcome),
            Waiting::Claim(stage) => self.claim_stored(stage, outcome),
            Waiting::Presence(stage) => self.presence_stored(stage, outcome),
            Waiting::Retire => {}
            // Another log-in of the device was quicker: its record stands.
            Waiting::Confirm(_) => {}
            waiting => self.store_failed(&waiting),
        }
    }

    fn loaded(&mut self, token: Token, result: Result<Answer, StoreFailed>) {
        let Some(waiting) = self.waiting.remove(&token) else { return };
        let Ok(answer) = result else { return self.store_failed(&waiting) };
        match (waiting, answer) {
            (Waiting::LogIn(stage), answer) => self.log_in_loaded(stage, answer),
            (Waiting::Register(stage), Answer::Records(records)) => self.register_loaded(stage, &records),
            (Waiting::Publish(stage), Answer::Records(records)) => self.publish_loaded(stage, &records),
            (Waiting::LookUp(stage), Answer::Records(records)) => self.look_up_loaded(stage, &records),
            (Waiting::InboxCheck(stage), Answer::Records(records)) => self.inbox_checked(stage, &records),
            (Waiting::Page(log), Answer::Page(page)) => self.page_loaded(log, page),
            (Waiting::Cursor(log), Answer::Cursor(cursor)) => self.cursor_loaded(log, cursor),
            (Waiting::Logs { request }, Answer::Logs(conversations)) => {
                self.send(FromRelay::Logs { request, conversations });
            }
            (Waiting::Attach { request, conversation }, Answer::Place(place)) => {
                self.attach_loaded(request, conversation, place);
            }
            (Waiting::Head { request, conversation }, Answer::Head(head)) => {
                self.head_loaded(request, conversation, head)
            }
            (Waiting::Blob(stage), Answer::Blob(part)) => self.blob_loaded(stage, part),
            (Waiting::Offer(stage), Answer::Records(records)) => self.offer_loaded(stage, &records),
            (Waiting::Claim(stage), Answer::Records(records)) => self.claim_loaded(stage, &records),
            (Waiting::Presence(stage), Answer::Records(records)) => self.presence_loaded(stage, &records),
            (Waiting::Confirm(proven), Answer::Records(records)) => self.confirm_loaded(proven, &records),
            (waiting, _) => self.store_failed(&waiting),
        }
    }

    fn store_failed(&mut self, waiting: &Waiting) {
        let envelope = match waiting {
            Waiting::Append { envelope, .. } => Some(*envelope),
            _ => None,
        };
        self.fail(Code::StoreFailed, 0, envelope, BUSY_RETRY_MS, "the relay's store failed; nothing was accepted");
    }

    /// A record that this version cannot read is a store that failed.
    pub(crate) fn damaged(&mut self) {
        self.fail(Code::StoreFailed, 0, None, 0, "a record of the relay's store is damaged");
    }

    fn tick(&mut self) {
        let waits = matches!(self.state, State::Fresh | State::LoggingIn);
        if waits && self.now.since(self.opened_at) > limits::LOG_IN_DEADLINE_MS {
            self.refuse(Code::WrongOrder, "no log-in came in time");
        }
    }

    /// Clients come back spread over four seconds. The challenge is random already, so it does for the spread.
    fn shut_down(&mut self) {
        let spread = u64::from(u16::from_be_bytes([self.challenge[0], self.challenge[1]])) % 4_000;
        self.fail(Code::ShuttingDown, 0, None, 1_000 + spread, "the relay stops or restarts");
    }

    pub(crate) fn send(&mut self, frame: FromRelay) {
        self.decide(Decision::Send(frame));
    }

    pub(crate) fn decide(&mut self, decision: Decision) {
        self.decisions.push(decision);
    }

    pub(crate) fn store(&mut self, operation: sealwire_store::Operation, waiting: Waiting) {
        let token = self.wait(waiting);
        self.decide(Decision::Store { token, operation });
    }

    pub(crate) fn load(&mut self, question: Question, waiting: Waiting) {
        let token = self.wait(waiting);
        self.decide(Decision::Load { token, question });
    }

    fn wait(&mut self, waiting: Waiting) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.waiting.insert(token, waiting);
        token
    }

    fn has_room(&mut self, request: RequestId) -> bool {
        let room = self.waiting.values().filter(|waiting| waiting.is_request()).count() < REQUESTS_IN_FLIGHT_MAX;
        if !room {
            self.fail(Code::Busy, request, None, BUSY_RETRY_MS, "too many requests wait");
        }
        room
    }

    /// Refuses what has neither request nor envelope.
    pub(crate) fn refuse(&mut self, code: Code, text: &str) {
        self.fail(code, 0, None, 0, text);
    }

    /// Refuses a request.
    pub(crate) fn refuse_request(&mut self, code: Code, request: RequestId, text: &str) {
        self.fail(code, request, None, 0, text);
    }

    /// Refuses a frame that was not looked into: names its request, or its envelope if its entry is one.
    fn refuse_frame(&mut self, code: Code, frame: &ToRelay, text: &str) {
        let envelope = match frame {
            ToRelay::Append { entry, .. } => {
                sealwire_wire::entry::Entry::decode(entry).ok().map(|entry| entry.envelope)
            }
            _ => None,
        };
        self.fail(code, request_of(frame).unwrap_or(0), envelope, 0, text);
    }

    /// Every refusal goes through here, so that what becomes of the connection is what `spec/errors.md` says.
    pub(crate) fn fail(
        &mut self,
        code: Code,
        request: RequestId,
        envelope: Option<EnvelopeId>,
        retry_after_ms: u64,
        text: &str,
    ) {
        self.send(FromRelay::Failed(Failed { code, request, envelope, retry_after_ms, text: text.to_owned() }));
        match code.disposition() {
            Disposition::GoesOn => {}
            Disposition::Closes | Disposition::ClosesForGood => self.close(code),
        }
    }

    fn close(&mut self, code: Code) {
        self.state = State::Closed;
        self.waiting.clear();
        self.decide(Decision::Close { code: close_code(code), reason: code.name() });
    }
}

fn close_code(code: Code) -> CloseCode {
    match code {
        Code::TextFrame => CloseCode::Unsupported,
        Code::TooLarge => CloseCode::TooLarge,
        Code::StoreFailed => CloseCode::Internal,
        Code::ShuttingDown => CloseCode::Restart,
        _ => CloseCode::Policy,
    }
}

/// What a device whose store was restored may do (N3): see whom it talks to, read its inbox, and get new keys.
fn is_open_to_restored(frame: &ToRelay, session: &Session) -> bool {
    match frame {
        ToRelay::Lookup { .. } | ToRelay::Publish { .. } => true,
        ToRelay::Ack { log, .. } => *log == LogId::Inbox(session.inbox),
        _ => false,
    }
}

fn request_of(frame: &ToRelay) -> Option<RequestId> {
    match frame {
        ToRelay::Lookup { request, .. }
        | ToRelay::Register { request, .. }
        | ToRelay::Publish { request, .. }
        | ToRelay::Attach { request, .. }
        | ToRelay::CreateConversation { request, .. }
        | ToRelay::GetHead { request, .. }
        | ToRelay::PutBlob { request, .. }
        | ToRelay::GetBlob { request, .. }
        | ToRelay::PublishKeyPackages { request, .. }
        | ToRelay::ClaimKeyPackages { request, .. }
        | ToRelay::ListLogs { request }
        | ToRelay::Meet { request, .. } => Some(*request),
        ToRelay::LogIn { .. }
        | ToRelay::Append { .. }
        | ToRelay::Ack { .. }
        | ToRelay::SetPresence { .. }
        | ToRelay::Watch { .. } => None,
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Fresh => "Fresh",
            State::LoggingIn => "LoggingIn",
            State::Unregistered(_) => "Unregistered",
            State::Registered(session) if session.restored => "Restored",
            State::Registered(_) => "Active",
            State::Closed => "Closed",
        };
        f.debug_struct("Connection")
            .field("state", &state)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}
