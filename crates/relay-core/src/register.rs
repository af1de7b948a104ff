//! Registration: an account, its handle, its first device with an inbox, in one transaction. A repetition after a lost
//! answer is answered like the first time.

use sealwire_keys::{AccountLog, SignedEntry};
use sealwire_store::{Operation, Outcome, Record, Refusal};
use sealwire_wire::frame::{FromRelay, RequestId};
use sealwire_wire::handle::Name;
use sealwire_wire::{AccountId, Code, InboxAddress, LogId, Position};

use crate::connection::{BUSY_RETRY_MS, Connection, Proven, SWAPS_MAX, Session, State, Waiting};
use crate::decision::Question;
use crate::invite;
use crate::records::{self, Account, DeviceOwner, HandleOwner, InboxOwner, Invite, LogIn, bool8::Bool};
use crate::relay::Registration;

/// A registration that waits for the store.
pub(crate) struct Registering {
    wanted: Wanted,
    lost: u32,
}

enum Wanted {
    /// A new account.
    New(Box<NewAccount>),
    /// By a device that has one: is it the same again?
    Again(Again),
    /// It was the same again, and this connection has to become that device's: its log-in is taken.
    Join { request: RequestId, session: Session },
}

struct Again {
    request: RequestId,
    account: AccountId,
    handle: Name,
    genesis: Vec<u8>,
    inbox: InboxAddress,
    /// The device, where this connection still counts as unregistered: another one was faster.
    joins: Option<Proven>,
}

struct NewAccount {
    request: RequestId,
    proven: Proven,
    handle: Name,
    log: AccountLog,
    inbox: InboxAddress,
    /// The hash of the invite code, where one is needed.
    invite: Option<[u8; 32]>,
}

impl Connection {
    pub(crate) fn register(
        &mut self,
        proven: Proven,
        request: RequestId,
        handle: &str,
        genesis: Vec<u8>,
        inbox: InboxAddress,
        invite: &str,
    ) {
        let invite = match self.relay.policy().registration {
            Registration::Closed => {
                return self.refuse_request(Code::RegistrationClosed, request, "this relay takes no new accounts");
            }
            Registration::Open => None,
            Registration::Invite => Some(invite::hash(invite)),
        };
        let Ok(handle) = Name::parse(handle) else {
            return self.refuse_request(Code::HandleRefused, request, "not a handle");
        };
        let log = match AccountLog::begin(SignedEntry(genesis)) {
            Ok(log) if log.device(proven.device).is_some() => log,
            Ok(_) => return self.refuse_request(Code::EntryRefused, request, "the entry is another device's"),
            Err(error) => return self.refuse_request(Code::EntryRefused, request, &error.to_string()),
        };
        let new = NewAccount { request, proven, handle, log, inbox, invite };
        self.ask_whether_free(Registering { wanted: Wanted::New(Box::new(new)), lost: 0 });
    }

    /// A device that has an account registers: its answer was lost, or it is mistaken.
    pub(crate) fn register_again(
        &mut self,
        session: Session,
        request: RequestId,
        handle: &str,
        genesis: Vec<u8>,
        inbox: InboxAddress,
    ) {
        let Ok(handle) = Name::parse(handle) else {
            return self.refuse_request(Code::HandleRefused, request, "not a handle");
        };
        let again = Again { request, account: session.account, handle, genesis, inbox, joins: None };
        self.ask_whether_same(again, session.proven, 0);
    }

    fn ask_whether_same(&mut self, again: Again, proven: Proven, lost: u32) {
        let account = records::key::<Account>(again.account.0);
        let question = Question::Records(vec![account, records::key::<LogIn>(records::hint(proven.device))]);
        self.load(question, Waiting::Register(Registering { wanted: Wanted::Again(again), lost }));
    }

    fn ask_whether_free(&mut self, registering: Registering) {
        let Wanted::New(new) = &registering.wanted else { return };
        let hint = records::hint(new.proven.device);
        let question = Question::Records(vec![
            records::key::<DeviceOwner>(&hint),
            records::key::<LogIn>(&hint),
            records::key::<HandleOwner>(new.handle.skeleton()),
            records::key::<Invite>(new.invite.unwrap_or_default()),
        ]);
        self.load(question, Waiting::Register(registering));
    }

    pub(crate) fn register_loaded(&mut self, registering: Registering, found: &[Option<Record>]) {
        let Registering { wanted, lost } = registering;
        match wanted {
            Wanted::Again(again) => self.register_same(again, lost, found),
            Wanted::Join { .. } => self.damaged(),
            Wanted::New(new) => self.register_new(*new, lost, found),
        }
    }

    fn register_same(&mut self, again: Again, lost: u32, found: &[Option<Record>]) {
        let [account, log_in] = found else { return self.damaged() };
        let (Ok(Some(account)), Ok(log_in)) =
            (records::read::<Account>(account.as_ref()), records::read::<LogIn>(log_in.as_ref()))
        else {
            return self.damaged();
        };
        let (request, account) = (again.request, account.value);
        let same = account.handle() == again.handle.as_str()
            && account.entries().first() == Some(&again.genesis)
            && account.devices().iter().any(|(_, known)| *known == again.inbox);
        if !same {
            return self.refuse_request(Code::AlreadyRegistered, request, "this device has an account already");
        }
        let Some(proven) = again.joins else { return self.send(FromRelay::Done { request }) };
        let (instance, version) = (self.relay.instance(), log_in.as_ref().map(|record| record.version));
        let restored = log_in.is_some_and(|record| !record.value.takes(instance, proven.incarnation));
        let session = Session { proven, account: again.account, inbox: again.inbox, restored, confirmed: false };
        if restored {
            return self.registered(request, session);
        }
        let swap = records::put(records::hint(proven.device), version, &self.taken(proven));
        let operation = Operation::Swap { records: vec![swap], inboxes: Vec::new() };
        self.store(operation, Waiting::Register(Registering { wanted: Wanted::Join { request, session }, lost }));
    }

    fn register_new(&mut self, new: NewAccount, lost: u32, found: &[Option<Record>]) {
        let [device, log_in, handle, invited] = found else { return self.damaged() };
        let (Ok(device), Ok(log_in)) =
            (records::read::<DeviceOwner>(device.as_ref()), records::read::<LogIn>(log_in.as_ref()))
        else {
            return self.damaged();
        };
        if let Some(owner) = device {
            return self.registered_meanwhile(new, &owner.value, lost);
        }
        let Ok(invited) = records::read::<Invite>(invited.as_ref()) else { return self.damaged() };
        // The invite first: without one, nobody learns which handles exist.
        let invite = match (new.invite, invited) {
            (None, _) => None,
            (Some(hash), Some(invite)) if invite.value.uses_left > 0 => {
                let left = Invite { uses_left: invite.value.uses_left - 1 };
                Some(records::put(hash, Some(invite.version), &left))
            }
            (Some(_), _) => {
                return self.refuse_request(Code::InviteRefused, new.request, "the invite is unknown or used up");
            }
        };
        if handle.is_some() {
            return self.refuse_request(
                Code::HandleTaken,
                new.request,
                "the handle, or one that looks like it, is taken",
            );
        }
        let (account, device, hint) = (new.log.id(), new.proven.device, records::hint(new.proven.device));
        let mut swaps = vec![
            records::put(account.0, None, &Account::new(&new.handle, &new.log, device, new.inbox)),
            records::put(new.handle.skeleton(), None, &HandleOwner { account }),
            records::put(&hint, None, &DeviceOwner { device, account }),
            records::put(new.inbox.0, None, &InboxOwner { device, retired: Bool(false) }),
            records::put(&hint, log_in.map(|record| record.version), &self.taken(new.proven)),
        ];
        swaps.extend(invite);
        let operation = Operation::Swap { records: swaps, inboxes: vec![new.inbox] };
        self.store(operation, Waiting::Register(Registering { wanted: Wanted::New(Box::new(new)), lost }));
    }

    /// Another connection of this device was faster: its answer was lost, and this one says the same again.
    fn registered_meanwhile(&mut self, new: NewAccount, owner: &DeviceOwner, lost: u32) {
        let NewAccount { request, proven, handle, log, inbox, .. } = new;
        let genesis = log.entries().first().map(|entry| entry.0.clone()).unwrap_or_default();
        let joins = matches!(self.state, State::Unregistered(_)).then_some(proven);
        self.ask_whether_same(Again { request, account: owner.account, handle, genesis, inbox, joins }, proven, lost);
    }

    pub(crate) fn register_stored(&mut self, registering: Registering, outcome: Outcome) {
        let Registering { wanted, lost } = registering;
        let moved = matches!(outcome, Outcome::Refused(Refusal::VersionMoved { .. })) && lost < SWAPS_MAX;
        match (wanted, outcome) {
            (Wanted::New(new), Outcome::Swapped) => {
                let session = Session {
                    proven: new.proven,
                    account: new.log.id(),
                    inbox: new.inbox,
                    restored: false,
                    confirmed: false,
                };
                self.registered(new.request, session);
            }
            (Wanted::Join { request, session }, Outcome::Swapped) => self.registered(request, session),
            (Wanted::New(new), Outcome::Refused(Refusal::InboxExists)) => {
                self.refuse_request(Code::NotAllowed, new.request, "the inbox has another owner");
            }
            (Wanted::New(new), _) if moved => {
                self.ask_whether_free(Registering { wanted: Wanted::New(new), lost: lost + 1 });
            }
            (Wanted::New(new), _) => self.register_busy(new.request),
            (Wanted::Join { request, .. }, _) => self.register_busy(request),
            (Wanted::Again(_), _) => self.damaged(),
        }
    }

    fn register_busy(&mut self, request: RequestId) {
        self.fail(Code::Busy, request, None, BUSY_RETRY_MS, "many register at once");
    }

    fn registered(&mut self, request: RequestId, session: Session) {
        self.state = State::Registered(session);
        self.send(FromRelay::Done { request });
        self.read_log(LogId::Inbox(session.inbox), Position::START);
    }
}
