//! Log-in (N1) and incarnations (N3).
//!
//! The record of a device holds two incarnations, *confirmed* and *pending*. A log-in sends (the last that the client
//! has committed, a new one). The relay takes it if the first is either of the two, and then keeps exactly what was
//! sent: confirmed = the committed one, pending = the new one. The client commits the new one when it sees that the
//! log-in was taken (`LoggedIn{ACTIVE}`, or `Done` of its `Register` or of the `Publish` below).
//!
//! A client commits before it sends anything else. So the first frame behind a log-in confirms: from then on the record
//! holds the new one alone, and a store of before this log-in is RESTORED.
//!
//! So a client that crashes before it saw the answer still has what is confirmed, and one that saw it has what is
//! pending: no lost frame and no crash locks it out. A store that was copied or restored brings something older; it is
//! RESTORED: the record stays as it is, and the connection may read and `Publish`. A `RotateDevice` that is appended
//! (or is the newest entry already, when it is repeated) takes the log-in after all: in the transaction of the entry,
//! the record becomes what this log-in had sent, by the same rule.

use sealwire_keys::{DeviceKey, LogInToBeSigned};
use sealwire_store::{Operation, Outcome, Record, Refusal};
use sealwire_wire::frame::{FromRelay, LoggedIn};
use sealwire_wire::{AccountId, Code, Incarnation, LogId, Position};

use crate::connection::{BUSY_RETRY_MS, Connection, Proven, SWAPS_MAX, Session, State, Waiting};
use crate::decision::{Answer, Decision, Question};
use crate::records::{self, Account, DeviceOwner, LogIn, Stored};

/// What was found out so far.
pub(crate) struct LoggingIn {
    proven: Proven,
    /// Compare-and-swaps that lost: two connections of one device log in at once.
    lost: u32,
    stage: Stage,
}

enum Stage {
    /// Who has this device, and what it may bring.
    Owner,
    /// The account.
    Account { account: AccountId, record: Option<Stored<LogIn>> },
    /// What it has read.
    Cursor { answer: Answered, record: Option<Stored<LogIn>> },
    /// What others may still claim of it.
    KeyPackages { answer: Answered, record: Option<Stored<LogIn>> },
    /// The new incarnations.
    Swap { answer: Answered },
}

/// What `LoggedIn` will say.
struct Answered {
    session: Session,
    account: Account,
    read_upto: Position,
    key_packages: u32,
}

impl Connection {
    pub(crate) fn log_in(
        &mut self,
        device_key: &[u8; 32],
        incarnation: Incarnation,
        pending: Incarnation,
        binding: &[u8],
        signature: &[u8; 64],
    ) {
        if binding.is_empty() && self.binding.is_some() && self.origin.is_none() {
            return self.refuse(Code::BindingRequired, "this relay ends TLS itself: sign the exporter");
        }
        // A browser has no exporter, and says so with an Origin. Whoever sends one has to send the right one; where
        // this relay does not end TLS, there is none that it could compare.
        let bound = binding.is_empty() || self.binding.is_some_and(|exporter| exporter[..] == *binding);
        let proven = DeviceKey::parse(device_key).ok().filter(|_| bound).and_then(|key| {
            let device = key.device_id();
            let signed = LogInToBeSigned::new(
                self.relay.name(),
                self.relay.public_key(),
                self.challenge,
                device,
                incarnation,
                pending,
                self.origin.as_deref().unwrap_or(""),
                binding,
            );
            signed.verify(&key, signature).ok().map(|()| Proven { device, incarnation, pending })
        });
        match proven {
            Some(proven) => {
                self.state = State::LoggingIn;
                self.ask_for_owner(LoggingIn { proven, lost: 0, stage: Stage::Owner });
            }
            None => self.refuse(Code::BadSignature, "the log-in does not verify: check relay name, key and binding"),
        }
    }

    fn ask_for_owner(&mut self, logging_in: LoggingIn) {
        let hint = records::hint(logging_in.proven.device);
        let question = Question::Records(vec![records::key::<DeviceOwner>(&hint), records::key::<LogIn>(&hint)]);
        self.load(question, Waiting::LogIn(logging_in));
    }

    pub(crate) fn log_in_loaded(&mut self, logging_in: LoggingIn, answer: Answer) {
        let LoggingIn { proven, lost, stage } = logging_in;
        match (stage, answer) {
            (Stage::Owner, Answer::Records(found)) => self.owner_found(proven, lost, &found),
            (Stage::Account { account, record }, Answer::Records(found)) => {
                self.account_found(proven, lost, account, record, &found);
            }
            (Stage::Cursor { answer, record }, Answer::Cursor(cursor)) => {
                let answer = Answered { read_upto: cursor.unwrap_or(Position::START), ..answer };
                let question = Question::KeyPackages(proven.device);
                let stage = Stage::KeyPackages { answer, record };
                self.load(question, Waiting::LogIn(LoggingIn { proven, lost, stage }));
            }
            (Stage::KeyPackages { answer, record }, Answer::KeyPackages(key_packages)) => {
                self.judge_incarnation(lost, Answered { key_packages, ..answer }, record);
            }
            _ => self.damaged(),
        }
    }

    fn owner_found(&mut self, proven: Proven, lost: u32, found: &[Option<Record>]) {
        let [owner, record] = found else { return self.damaged() };
        let (Ok(owner), Ok(record)) = (records::read::<DeviceOwner>(owner.as_ref()), records::read(record.as_ref()))
        else {
            return self.damaged();
        };
        match owner {
            // Another device with this hint would need 2^64 keys to be made; it gets nothing for them.
            Some(owner) if owner.value.device == proven.device => {
                let account = owner.value.account;
                let question = Question::Records(vec![records::key::<Account>(account.0)]);
                let stage = Stage::Account { account, record };
                self.load(question, Waiting::LogIn(LoggingIn { proven, lost, stage }));
            }
            _ => {
                self.state = State::Unregistered(proven);
                self.decide(Decision::LoggedIn(proven.device));
                self.send(FromRelay::LoggedIn(LoggedIn::Unregistered));
            }
        }
    }

    fn account_found(
        &mut self,
        proven: Proven,
        lost: u32,
        account: AccountId,
        record: Option<Stored<LogIn>>,
        found: &[Option<Record>],
    ) {
        let Ok(Some(Stored { value, .. })) = records::read::<Account>(found.first().and_then(Option::as_ref)) else {
            return self.damaged();
        };
        let Some(inbox) = value.inbox_of(proven.device) else {
            return self.refuse(Code::DeviceRevoked, "this device was taken from its account");
        };
        let session = Session { proven, account, inbox, restored: false, confirmed: false };
        let answer = Answered { session, account: value, read_upto: Position::START, key_packages: 0 };
        let stage = Stage::Cursor { answer, record };
        let question = Question::Cursor { log: LogId::Inbox(inbox), reader: inbox };
        self.load(question, Waiting::LogIn(LoggingIn { proven, lost, stage }));
    }

    fn judge_incarnation(&mut self, lost: u32, mut answer: Answered, record: Option<Stored<LogIn>>) {
        let proven = answer.session.proven;
        let (instance, version) = (self.relay.instance(), record.as_ref().map(|record| record.version));
        if record.is_some_and(|record| !record.value.takes(instance, proven.incarnation)) {
            answer.session.restored = true;
            return self.logged_in(&answer);
        }
        let swap = records::put(records::hint(proven.device), version, &self.taken(proven));
        let operation = Operation::Swap { records: vec![swap], inboxes: Vec::new() };
        self.store(operation, Waiting::LogIn(LoggingIn { proven, lost, stage: Stage::Swap { answer } }));
    }

    /// The first frame behind a log-in shows that the client has committed what was pending.
    pub(crate) fn confirm(&mut self, session: Session) {
        if session.restored || session.confirmed {
            return;
        }
        self.state = State::Registered(Session { confirmed: true, ..session });
        let question = Question::Records(vec![records::key::<LogIn>(&records::hint(session.proven.device))]);
        self.load(question, Waiting::Confirm(session.proven));
    }

    pub(crate) fn confirm_loaded(&mut self, proven: Proven, found: &[Option<Record>]) {
        let Ok(Some(record)) = records::read::<LogIn>(found.first().and_then(Option::as_ref)) else {
            return self.damaged();
        };
        if record.value.pending != proven.pending {
            return;
        }
        let confirmed = LogIn { confirmed: proven.pending, ..record.value };
        let swap = records::put(records::hint(proven.device), Some(record.version), &confirmed);
        self.store(Operation::Swap { records: vec![swap], inboxes: Vec::new() }, Waiting::Confirm(proven));
    }

    /// The record of a log-in that was taken.
    pub(crate) fn taken(&self, proven: Proven) -> LogIn {
        LogIn { instance: self.relay.instance(), confirmed: proven.incarnation, pending: proven.pending }
    }

    pub(crate) fn log_in_stored(&mut self, logging_in: LoggingIn, outcome: Outcome) {
        let LoggingIn { proven, lost, stage } = logging_in;
        match (stage, outcome) {
            (Stage::Swap { answer }, Outcome::Swapped) => self.logged_in(&answer),
            (_, Outcome::Refused(Refusal::VersionMoved { .. })) if lost < SWAPS_MAX => {
                self.ask_for_owner(LoggingIn { proven, lost: lost + 1, stage: Stage::Owner });
            }
            _ => self.fail(Code::StoreFailed, 0, None, BUSY_RETRY_MS, "this device logs in elsewhere all the time"),
        }
    }

    fn logged_in(&mut self, answer: &Answered) {
        let &Answered { ref session, ref account, read_upto, key_packages } = answer;
        let (account_entries, account_head) = account.head();
        self.state = State::Registered(*session);
        self.decide(Decision::LoggedIn(session.proven.device));
        self.send(FromRelay::LoggedIn(LoggedIn::Registered {
            restored: session.restored,
            account: session.account,
            handle: account.handle(),
            inbox: session.inbox,
            read_upto,
            account_entries,
            account_head,
            key_packages,
        }));
        if account.presence.is_some() {
            self.decide(Decision::Online(account.presence));
        }
        self.read_log(LogId::Inbox(session.inbox), read_upto);
    }
}
