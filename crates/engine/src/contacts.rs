//! Contacts: pinned by account (K4), looked up again on each connection, moved only by their own signatures (I3) or by
//! the person's decision.

use sealwire_keys::{AccountLog, DirectKey, Mode, SafetyNumber, SignedEntry};
use sealwire_session::direct::{Commitment, DirectSession, Direction};
use sealwire_wire::content::Part;
use sealwire_wire::frame::{Failed, LookupBy, ToRelay};
use sealwire_wire::handle::{Handle, Name};
use sealwire_wire::limits::{CONTACTS_MAX, REQUESTS_MAX, SUPERSEDED_KEYS_MAX, WATCHED_TOKENS_MAX};
use sealwire_wire::{AccountId, Code, DeviceHint, DeviceId, InboxAddress, PresenceToken};
use tls_codec::TlsByteVecU24;

use crate::command::{ContactView, Refusal, Reply};
use crate::connection::Asked;
use crate::engine::Engine;
use crate::event::{Event, QuarantineReason, UnsentReason};
use crate::record::{self, ContactRecord, RecordError, RivalRecord, Table, Text};
use crate::step::{Ticket, Turn};

/// How long look-ups wait after one that failed without saying how long.
const LOOKUP_RETRY_MS: u64 = 1_000;

/// Somebody whose account log is pinned.
pub(crate) struct Contact {
    pub(crate) handle: Option<Handle>,
    pub(crate) log: AccountLog,
    pub(crate) inboxes: Vec<(DeviceId, InboxAddress)>,
    pub(crate) standing: Standing,
    /// What they send is dropped. Apart from the standing, which is in force again when the block is taken back.
    pub(crate) blocked: bool,
    /// How many entries the log had when the numbers were compared.
    pub(crate) verified_at_entry: Option<u64>,
    pub(crate) rival: Option<Rival>,
    /// What they gave, to be told when they connect.
    pub(crate) token: Option<PresenceToken>,
    /// What they were given, to be told when this side connects.
    pub(crate) handed: Option<PresenceToken>,
    /// Messages of a stranger that wait for a decision.
    pub(crate) waiting: u32,
}

/// What the person has decided about somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Standing {
    Stranger = 1,
    Accepted = 2,
}

/// In a record's standing: blocked, too.
const BLOCKED: u8 = 0x80;

/// The receiving sessions that were derived with a contact's keys.
pub(crate) struct Derived {
    /// How long the contact's log was.
    entries: usize,
    commitments: Vec<Commitment>,
}

/// Another account that has this contact's handle now.
pub(crate) struct Rival {
    log: AccountLog,
    inboxes: Vec<(DeviceId, InboxAddress)>,
    declined: bool,
}

impl Contact {
    pub(crate) fn new(
        handle: Option<Handle>,
        log: AccountLog,
        inboxes: Vec<(DeviceId, InboxAddress)>,
        standing: Standing,
    ) -> Contact {
        Contact {
            handle,
            log,
            inboxes,
            standing,
            blocked: false,
            verified_at_entry: None,
            rival: None,
            token: None,
            handed: None,
            waiting: 0,
        }
    }

    /// Whether they get receipts and the like.
    pub(crate) fn is_accepted(&self) -> bool {
        self.standing == Standing::Accepted && !self.blocked
    }

    /// Whether sending waits for the person: the handle of a verified contact belongs to somebody else now.
    pub(crate) fn waits_for_decision(&self) -> bool {
        self.verified_at_entry.is_some() && self.rival.as_ref().is_some_and(|rival| !rival.declined)
    }

    /// Whether they are reached by conversations; then direct mode is not for them (D).
    pub(crate) fn is_mls(&self) -> bool {
        self.log.devices().any(|card| card.modes.contains(&Mode::Mls))
    }

    /// Where to write, and under which key: the first that the contact lists (D1).
    pub(crate) fn target(&self) -> Option<(DeviceId, InboxAddress, &DirectKey)> {
        let card = self.log.devices().next()?;
        let device = card.key.device_id();
        let inbox = self.inboxes.iter().find(|(id, _)| *id == device)?.1;
        Some((device, inbox, card.direct.first()?))
    }

    pub(crate) fn load(record: ContactRecord) -> Result<Contact, RecordError> {
        let standing = [Standing::Stranger, Standing::Accepted];
        let recorded = record.standing & !BLOCKED;
        let rival = record.rival.map(|rival| {
            let log = load_log(rival.entries)?;
            Ok(Rival { log, inboxes: rival.inboxes, declined: rival.declined == 1 })
        });
        Ok(Contact {
            handle: record.handle.map(|handle| handle.read_handle()).transpose()?,
            log: load_log(record.entries)?,
            inboxes: record.inboxes,
            standing: standing.into_iter().find(|s| *s as u8 == recorded).ok_or(RecordError::Damaged)?,
            blocked: record.standing & BLOCKED != 0,
            verified_at_entry: record.verified_at_entry,
            rival: rival.transpose()?,
            token: record.token,
            handed: record.handed,
            waiting: record.waiting,
        })
    }

    pub(crate) fn to_record(&self) -> ContactRecord {
        ContactRecord {
            handle: self.handle.as_ref().map(|handle| Text::new(&handle.to_string())),
            entries: entries_of(&self.log),
            inboxes: self.inboxes.clone(),
            standing: self.standing as u8 | if self.blocked { BLOCKED } else { 0 },
            verified_at_entry: self.verified_at_entry,
            rival: self.rival.as_ref().map(|rival| RivalRecord {
                entries: entries_of(&rival.log),
                inboxes: rival.inboxes.clone(),
                declined: u8::from(rival.declined),
            }),
            token: self.token,
            handed: self.handed,
            waiting: self.waiting,
        }
    }
}

fn entries_of(log: &AccountLog) -> Vec<TlsByteVecU24> {
    log.entries().iter().map(|entry| entry.0.clone().into()).collect()
}

fn load_log(entries: Vec<TlsByteVecU24>) -> Result<AccountLog, RecordError> {
    AccountLog::verify(entries.into_iter().map(|entry| SignedEntry(entry.into_vec()))).map_err(|_| RecordError::Damaged)
}

/// What a look-up brought, verified.
struct FoundAccount {
    handle: Option<Handle>,
    log: AccountLog,
    inboxes: Vec<(DeviceId, InboxAddress)>,
}

impl Engine {
    pub(crate) fn save_contact(&self, turn: &mut Turn<'_>, account: AccountId) {
        if let Some(contact) = self.contacts.get(&account) {
            turn.put(Table::Contact, account.0, record::encode(&contact.to_record()));
        }
    }

    pub(crate) fn insert_contact(&mut self, account: AccountId, contact: Contact) {
        self.hints.extend(contact.log.devices().map(|card| (card.key.device_id().hint(), account)));
        self.revoked.extend(contact.log.revoked());
        self.contacts.insert(account, contact);
    }

    /// The handle to show for a contact: what the relay says, unless it is pinned to somebody else or this account's own.
    /// Who is who is never for the relay to say (HR-01, HR-03).
    pub(crate) fn handle_of(&self, account: AccountId) -> Option<Handle> {
        let handle = self.contacts.get(&account)?.handle.as_ref()?;
        self.may_be_called(account, handle).then(|| handle.clone())
    }

    fn may_be_called(&self, account: AccountId, handle: &Handle) -> bool {
        *handle != self.own.handle && self.handles.get(handle).is_none_or(|pinned| *pinned == account)
    }

    fn pin_handle(&mut self, turn: &mut Turn<'_>, handle: Handle, account: AccountId) {
        turn.put(Table::Handle, handle.to_string().into_bytes(), record::encode(&account));
        self.handles.insert(handle, account);
    }

    // Asking the relay.

    pub(crate) fn find(&mut self, turn: &mut Turn<'_>, ticket: Ticket, handle: Handle) {
        if handle.host != self.own.relay_name {
            return turn.reply(ticket, Err(Refusal::OtherRelay(handle, self.own.relay_name.clone())));
        }
        if let Some(view) = self.handles.get(&handle).and_then(|account| self.contact_view(*account)) {
            return turn.reply(ticket, Ok(Reply::Found(view)));
        }
        if !self.link.is_active() {
            return turn.reply(ticket, Err(Refusal::Offline));
        }
        self.ask_for_handle(turn, handle, vec![ticket]);
    }

    pub(crate) fn ask_for_handle(&mut self, turn: &mut Turn<'_>, handle: Handle, tickets: Vec<Ticket>) {
        let name = handle.name.as_str().to_owned();
        let asked = Asked::Handle(handle, tickets);
        if !self.link.is_asked(&asked) {
            self.ask(turn, asked, |request| ToRelay::Lookup { request, by: LookupBy::Handle(name) });
        }
    }

    /// Looks a contact up again, once per connection: by the handle that is pinned to it, so that a handle that moved
    /// is seen, else by account.
    pub(crate) fn refresh(&mut self, turn: &mut Turn<'_>, account: AccountId) {
        self.link.to_refresh.remove(&account);
        match self.handle_of(account).filter(|handle| self.handles.contains_key(handle)) {
            Some(handle) => self.ask_for_handle(turn, handle, Vec::new()),
            None => self.ask_for_account(turn, account),
        }
    }

    /// Looks up those who were waiting for it, as far as there is room.
    pub(crate) fn refresh_waiting(&mut self, turn: &mut Turn<'_>) {
        while self.link.has_room_to_ask()
            && let Some(account) = self.link.to_refresh.pop_first()
        {
            self.refresh(turn, account);
        }
    }

    pub(crate) fn ask_for_account(&mut self, turn: &mut Turn<'_>, account: AccountId) {
        if !self.link.is_asked(&Asked::Account(account)) {
            let by = LookupBy::Account(account);
            self.ask(turn, Asked::Account(account), |request| ToRelay::Lookup { request, by });
        }
    }

    pub(crate) fn ask_for_sender(&mut self, turn: &mut Turn<'_>, hint: DeviceHint) {
        if !self.link.is_asked(&Asked::Hint(hint)) {
            let by = LookupBy::Device(hint);
            self.ask(turn, Asked::Hint(hint), |request| ToRelay::Lookup { request, by });
        }
    }

    // What the relay answers.

    pub(crate) fn found(
        &mut self,
        turn: &mut Turn<'_>,
        asked: Asked,
        handle: String,
        entries: Vec<Vec<u8>>,
        devices: Vec<(DeviceId, InboxAddress)>,
    ) {
        if asked == Asked::OwnLog {
            let entries: Vec<_> = entries.into_iter().map(SignedEntry).collect();
            return self.found_own_log(turn, &entries);
        }
        let name = Name::parse(&handle).ok();
        let handle = name.map(|name| Handle { name, host: self.own.relay_name.clone() });
        match Engine::verify_log(entries) {
            Some(log) => self.found_account(turn, asked, FoundAccount { handle, log, inboxes: devices }),
            None => self.bad_answer(turn, asked),
        }
    }

    fn found_account(&mut self, turn: &mut Turn<'_>, asked: Asked, found: FoundAccount) {
        match asked {
            Asked::Handle(handle, tickets) if found.handle.as_ref() != Some(&handle) => {
                self.bad_answer(turn, Asked::Handle(handle, tickets));
            }
            Asked::Handle(handle, tickets) => self.found_by_handle(turn, handle, tickets, found),
            Asked::Account(account) if found.log.id() == account => {
                if !self.contacts.contains_key(&account)
                    && account != self.log.id()
                    && self.contacts.len() < CONTACTS_MAX
                {
                    // Asked about for a conversation that a store which was put back does not know.
                    let FoundAccount { handle, log, inboxes } = &found;
                    let contact = Contact::new(handle.clone(), log.clone(), inboxes.clone(), Standing::Stranger);
                    self.insert_contact(account, contact);
                    self.save_contact(turn, account);
                }
                self.update_contact(turn, found);
                self.link.refreshed.insert(account);
            }
            Asked::Hint(hint) if found.log.devices().any(|card| card.key.device_id().hint() == hint) => {
                self.found_sender(turn, hint, found);
            }
            asked => self.bad_answer(turn, asked),
        }
    }

    fn found_by_handle(&mut self, turn: &mut Turn<'_>, handle: Handle, tickets: Vec<Ticket>, found: FoundAccount) {
        let account = found.log.id();
        let pinned = self.handles.get(&handle).copied();
        if account == self.log.id() {
            self.fail_unresolved(turn, &handle, UnsentReason::NoCommonMode);
            return tickets.into_iter().for_each(|ticket| turn.reply(ticket, Err(Refusal::NotSendable)));
        }
        match pinned {
            Some(pinned) if pinned != account => self.handle_moved(turn, &handle, pinned, found),
            Some(_) => self.update_contact(turn, found),
            None if self.contacts.len() >= CONTACTS_MAX => {
                self.fail_unresolved(turn, &handle, UnsentReason::BadAnswer);
                return tickets.into_iter().for_each(|ticket| turn.reply(ticket, Err(Refusal::TooManyContacts)));
            }
            None => self.add_contact(turn, &handle, found),
        }
        self.link.refreshed.insert(account);
        self.resolve(turn, &handle);
        let view = self.handles.get(&handle).and_then(|account| self.contact_view(*account));
        for ticket in tickets {
            turn.reply(ticket, view.clone().map(Reply::Found).ok_or(Refusal::UnknownContact));
        }
    }

    /// This side writes first, so it has accepted them.
    fn add_contact(&mut self, turn: &mut Turn<'_>, handle: &Handle, found: FoundAccount) {
        let account = found.log.id();
        self.pin_handle(turn, handle.clone(), account);
        if self.contacts.contains_key(&account) {
            self.update_contact(turn, found);
            // The handle that the person uses.
            self.contacts.entry(account).and_modify(|contact| contact.handle = Some(handle.clone()));
            self.save_contact(turn, account);
        } else {
            let contact = Contact::new(Some(handle.clone()), found.log, found.inboxes, Standing::Stranger);
            self.insert_contact(account, contact);
            turn.event(Event::ContactAdded { account, handle: Some(handle.clone()) });
        }
        if self.contacts[&account].standing == Standing::Stranger {
            self.accept_contact(turn, account);
        }
    }

    /// A pinned log is continued or left as it is (I3).
    fn update_contact(&mut self, turn: &mut Turn<'_>, found: FoundAccount) {
        let account = found.log.id();
        self.judge_claim(turn, account, found.handle.as_ref());
        let Some(contact) = self.contacts.get_mut(&account) else { return };
        let (known, was_retired) = (contact.log.entries().len(), contact.log.is_retired());
        if contact.log.advance(found.log.entries()).is_err() {
            self.link.unanswered.insert(account);
            return turn.event(Event::BadAnswer { account: Some(account) });
        }
        self.revoked.extend(contact.log.revoked());
        let changed = contact.log.entries().len() != known;
        let moved = contact.inboxes != found.inboxes || (contact.handle.is_none() && found.handle.is_some());
        contact.inboxes = found.inboxes;
        contact.handle = contact.handle.take().or(found.handle);
        let (verified, retired) = (contact.verified_at_entry.is_some(), contact.log.is_retired());
        if changed || moved {
            self.save_contact(turn, account);
        }
        if retired && !was_retired {
            turn.event(Event::ContactRetired { account });
        } else if changed {
            turn.event(Event::ContactChanged { account, verified });
        }
        if changed {
            self.sending.remove(&account);
            self.reseal_outdated(turn, account);
        }
    }

    /// The relay calls somebody by a handle that means somebody else here: that is not shown, and the relay is asked who
    /// has it now.
    fn judge_claim(&mut self, turn: &mut Turn<'_>, account: AccountId, handle: Option<&Handle>) {
        let Some(handle) = handle.filter(|handle| !self.may_be_called(account, handle)) else { return };
        let pinned = self.handles.get(handle).copied();
        let rival = pinned.and_then(|pinned| self.contacts.get(&pinned)?.rival.as_ref());
        let is_told = rival.is_some_and(|rival| rival.log.id() == account);
        if !is_told && self.link.claims.insert(account) {
            turn.event(Event::HandleClaimed { handle: handle.clone(), account });
            self.link.to_refresh.extend(pinned);
        }
    }

    /// A handle that is pinned to one account is found under another. A verified contact is not replaced without the
    /// person (HR-01); an unverified one is, with an event. What was written to the old one stays with the old one.
    fn handle_moved(&mut self, turn: &mut Turn<'_>, handle: &Handle, pinned: AccountId, found: FoundAccount) {
        let account = found.log.id();
        self.ask_for_account(turn, pinned);
        let Some(contact) = self.contacts.get_mut(&pinned) else { return };
        let known = contact.rival.as_ref().is_some_and(|rival| rival.log.id() == account);
        let blocks = contact.verified_at_entry.is_some();
        if !known {
            // Also where nothing waits for the person: an event may be lost, what is stored is not.
            contact.rival = Some(Rival { log: found.log.clone(), inboxes: found.inboxes.clone(), declined: false });
            self.save_contact(turn, pinned);
        }
        if !blocks {
            self.add_contact(turn, handle, found);
        }
        if !known || !blocks {
            turn.event(Event::IdentityChanged { handle: handle.clone(), from: pinned, to: account, blocks });
        }
    }

    /// Whoever sent an envelope that is held. A stranger becomes a contact only once something of theirs has opened.
    fn found_sender(&mut self, turn: &mut Turn<'_>, hint: DeviceHint, found: FoundAccount) {
        let account = found.log.id();
        let known = self.contacts.contains_key(&account);
        if known {
            self.update_contact(turn, found);
        } else {
            // Who is blocked waits for nothing: else a hundred blocked ones would close the door to everybody.
            let waits = |c: &&Contact| c.standing == Standing::Stranger && !c.blocked && c.waiting > 0;
            let strangers = self.contacts.values().filter(waits).count();
            if strangers >= REQUESTS_MAX || self.contacts.len() >= CONTACTS_MAX || account == self.log.id() {
                return self.reject_held(turn, hint, QuarantineReason::NotAccepted);
            }
            self.judge_claim(turn, account, found.handle.as_ref());
            let contact = Contact::new(found.handle, found.log, found.inboxes, Standing::Stranger);
            self.insert_contact(account, contact);
        }
        let opened = self.open_held(turn, hint, account);
        if !known && !opened {
            self.forget_stranger(account);
        }
        self.link.refreshed.insert(account);
    }

    /// Nothing of theirs was authentic, so that they are not even a stranger.
    fn forget_stranger(&mut self, account: AccountId) {
        self.contacts.remove(&account);
        self.hints.retain(|_, owner| *owner != account);
        let derived = self.derived.remove(&account);
        derived.into_iter().flat_map(|derived| derived.commitments).for_each(|commitment| {
            self.sessions.remove(&commitment);
        });
    }

    fn bad_answer(&mut self, turn: &mut Turn<'_>, asked: Asked) {
        match asked {
            Asked::Handle(handle, tickets) => {
                let pinned = self.handles.get(&handle).copied();
                self.link.unanswered.extend(pinned);
                turn.event(Event::BadAnswer { account: pinned });
                self.fail_unresolved(turn, &handle, UnsentReason::BadAnswer);
                tickets.into_iter().for_each(|ticket| turn.reply(ticket, Err(Refusal::BadAnswer(handle.clone()))));
            }
            Asked::Account(account) => {
                self.link.unanswered.insert(account);
                turn.event(Event::BadAnswer { account: Some(account) });
            }
            Asked::Hint(hint) => {
                turn.event(Event::BadAnswer { account: None });
                self.reject_held(turn, hint, QuarantineReason::BadSender);
            }
            _ => {}
        }
    }

    pub(crate) fn lookup_failed(&mut self, turn: &mut Turn<'_>, asked: Asked, failed: &Failed) {
        if failed.code != Code::NotFound {
            // Whatever the reason, asking again at once would not mend it.
            let wait = failed.retry_after_ms.max(LOOKUP_RETRY_MS);
            self.link.lookups_paused_until = Some(turn.now.plus(wait));
            if let Asked::Handle(_, tickets) = asked {
                tickets.into_iter().for_each(|ticket| turn.reply(ticket, Err(Refusal::TryAgain(wait))));
            }
            return;
        }
        match asked {
            Asked::Handle(handle, tickets) => {
                self.fail_unresolved(turn, &handle, UnsentReason::NotFound);
                // A pinned contact whose handle is gone can still be there under its account.
                if let Some(account) = self.handles.get(&handle).copied() {
                    self.ask_for_account(turn, account);
                }
                tickets.into_iter().for_each(|ticket| turn.reply(ticket, Err(Refusal::NotFound(handle.clone()))));
            }
            Asked::Account(account) => {
                self.link.unanswered.insert(account);
                self.fail_unsealed(turn, account, UnsentReason::NotFound);
                self.fail_gone(turn, account);
            }
            Asked::Hint(hint) => self.reject_held(turn, hint, QuarantineReason::UnknownSender),
            _ => {}
        }
    }

    // Keys between this device and a contact's.

    /// The key that messages to a contact are sealed with now.
    pub(crate) fn sending_session(&mut self, account: AccountId) -> Option<Commitment> {
        if let Some(commitment) = self.sending.get(&account) {
            return Some(*commitment);
        }
        let contact = self.contacts.get(&account)?;
        let (device, _, key) = contact.target()?;
        let session = DirectSession::derive(&self.secrets, device, key, Direction::Sending).ok()?;
        let commitment = session.commitment();
        self.sessions.insert(commitment, session);
        self.sending.insert(account, commitment);
        Some(commitment)
    }

    /// Derives the keys that a contact's device may have sealed with, those of the newest keys that it has replaced
    /// included, and says whether the wanted one is among them. Once for each state of their log: an envelope with a
    /// made-up commitment costs no key agreement.
    pub(crate) fn derive_receiving(&mut self, account: AccountId, wanted: Commitment) -> bool {
        let Some(contact) = self.contacts.get(&account) else { return false };
        let entries = contact.log.entries().len();
        if self.derived.get(&account).is_some_and(|derived| derived.entries == entries) {
            return self.sessions.contains_key(&wanted);
        }
        let mut derived = Derived { entries, commitments: Vec::new() };
        let superseded = contact.log.superseded().iter().rev().take(SUPERSEDED_KEYS_MAX);
        for card in contact.log.devices() {
            let device = card.key.device_id();
            for key in card.direct.iter().chain(superseded.clone()) {
                if let Ok(session) = DirectSession::derive(&self.secrets, device, key, Direction::Receiving) {
                    derived.commitments.push(session.commitment());
                    self.sessions.insert(session.commitment(), session);
                }
            }
        }
        self.derived.insert(account, derived);
        self.sessions.contains_key(&wanted)
    }

    pub(crate) fn account_of(&self, hint: DeviceHint) -> Option<AccountId> {
        self.hints.get(&hint).copied()
    }

    // What the person decides.

    pub(crate) fn accept(&mut self, turn: &mut Turn<'_>, account: AccountId) -> Result<Reply, Refusal> {
        let contact = self.contacts.get(&account).ok_or(Refusal::UnknownContact)?;
        if contact.blocked {
            return Err(Refusal::Blocked);
        }
        if contact.standing == Standing::Accepted {
            return Ok(Reply::Done);
        }
        let has_asked = contact.waiting > 0;
        if let Some(handle) = self.handle_of(account).filter(|handle| !self.handles.contains_key(handle)) {
            self.pin_handle(turn, handle.clone(), account);
            // What was written to that handle before is for them, and goes first.
            self.resolve(turn, &handle);
        }
        self.accept_contact(turn, account);
        if has_asked {
            // Whoever was only met in a group would not take it.
            self.hand_presence(turn, account);
        }
        Ok(Reply::Done)
    }

    /// From now on they get receipts, also for what has waited.
    fn accept_contact(&mut self, turn: &mut Turn<'_>, account: AccountId) {
        let Some(contact) = self.contacts.get_mut(&account) else { return };
        contact.standing = Standing::Accepted;
        contact.waiting = 0;
        self.save_contact(turn, account);
        self.send_owed_receipts(turn, account);
        self.watch(turn);
    }

    /// Gives a contact the token with which it is told when this side connects (A2): when it is accepted, and when this
    /// side writes to it first.
    pub(crate) fn hand_presence(&mut self, turn: &mut Turn<'_>, account: AccountId) {
        let token = self.own.presence;
        let Some(contact) = self.contacts.get_mut(&account).filter(|contact| contact.handed != token) else { return };
        contact.handed = token;
        self.save_contact(turn, account);
        self.enqueue_part(turn, account, Part::Presence(token));
    }

    pub(crate) fn set_blocked(
        &mut self,
        turn: &mut Turn<'_>,
        account: AccountId,
        blocked: bool,
    ) -> Result<Reply, Refusal> {
        let contact = self.contacts.get_mut(&account).ok_or(Refusal::UnknownContact)?;
        if contact.blocked == blocked {
            return Ok(Reply::Done);
        }
        let was_accepted = contact.is_accepted();
        contact.blocked = blocked;
        if blocked {
            contact.token = None;
        }
        self.save_contact(turn, account);
        if blocked && was_accepted && self.own.presence.is_some() {
            // The blocked one holds the token: make another, and give it to the others.
            self.set_presence(turn, true)?;
        }
        Ok(Reply::Done)
    }

    pub(crate) fn set_verified(
        &mut self,
        turn: &mut Turn<'_>,
        account: AccountId,
        verified: bool,
    ) -> Result<Reply, Refusal> {
        let contact = self.contacts.get_mut(&account).ok_or(Refusal::UnknownContact)?;
        contact.verified_at_entry = verified.then_some(contact.log.entries().len() as u64);
        self.save_contact(turn, account);
        Ok(Reply::Done)
    }

    /// The person has decided about a handle that moved. Adopting takes what was not sealed yet along. Where the handle
    /// was unverified it has moved already: then adopting says that this was seen, and keeping takes it back.
    pub(crate) fn decide(&mut self, turn: &mut Turn<'_>, handle: Handle, adopt: bool) -> Result<Reply, Refusal> {
        let pinned = *self.handles.get(&handle).ok_or(Refusal::NothingToDecide)?;
        if let Some(before) = self.moved_from(&handle, pinned) {
            return self.decide_moved(turn, handle, before, adopt);
        }
        let contact = self.contacts.get_mut(&pinned).ok_or(Refusal::NothingToDecide)?;
        let rival = contact.rival.as_mut().filter(|rival| !rival.declined).ok_or(Refusal::NothingToDecide)?;
        if !adopt {
            rival.declined = true;
            self.save_contact(turn, pinned);
            self.send_owed_receipts(turn, pinned);
            return Ok(Reply::Done);
        }
        let Some(Rival { log, inboxes, .. }) = contact.rival.take() else { return Err(Refusal::NothingToDecide) };
        let account = log.id();
        self.save_contact(turn, pinned);
        self.send_owed_receipts(turn, pinned);
        self.add_contact(turn, &handle, FoundAccount { handle: Some(handle.clone()), log, inboxes });
        self.readdress_unsealed(turn, pinned, account);
        Ok(Reply::Done)
    }

    /// Whose an unverified handle was before it moved to an account, until the person has said that they know.
    fn moved_from(&self, handle: &Handle, to: AccountId) -> Option<AccountId> {
        let is = |contact: &Contact| {
            let rival = contact.rival.as_ref().filter(|rival| !rival.declined && rival.log.id() == to);
            rival.is_some() && contact.handle.as_ref() == Some(handle)
        };
        self.contacts.iter().find(|(_, contact)| is(contact)).map(|(account, _)| *account)
    }

    fn decide_moved(
        &mut self,
        turn: &mut Turn<'_>,
        handle: Handle,
        before: AccountId,
        adopt: bool,
    ) -> Result<Reply, Refusal> {
        let contact = self.contacts.get_mut(&before).ok_or(Refusal::NothingToDecide)?;
        match &mut contact.rival {
            Some(rival) if !adopt => rival.declined = true,
            rival => *rival = None,
        }
        self.save_contact(turn, before);
        if !adopt {
            self.pin_handle(turn, handle, before);
        }
        Ok(Reply::Done)
    }

    // Presence (A2).

    /// A new token: whoever was accepted gets it; the old one means nothing any more.
    pub(crate) fn set_presence(&mut self, turn: &mut Turn<'_>, on: bool) -> Result<Reply, Refusal> {
        self.own.presence = on.then(|| PresenceToken(turn.random()));
        self.save_own(turn);
        if self.link.is_active() {
            turn.send(ToRelay::SetPresence { token: self.own.presence });
        }
        let accepted = |(account, contact): (&AccountId, &Contact)| {
            let has_one = contact.is_accepted() && contact.handed.is_some();
            (has_one && !contact.log.is_retired()).then_some(*account)
        };
        let accounts: Vec<_> = self.contacts.iter().filter_map(accepted).collect();
        accounts.into_iter().for_each(|account| self.hand_presence(turn, account));
        Ok(Reply::Done)
    }

    pub(crate) fn watch(&mut self, turn: &mut Turn<'_>) {
        let accepted = self.contacts.values().filter(|contact| contact.is_accepted());
        let tokens: Vec<_> = accepted.filter_map(|contact| contact.token).take(WATCHED_TOKENS_MAX).collect();
        if self.link.is_active() {
            turn.send(ToRelay::Watch { tokens });
        }
    }

    pub(crate) fn presence(&mut self, turn: &mut Turn<'_>, token: PresenceToken, online: bool) {
        let Some((&account, _)) = self.contacts.iter().find(|(_, contact)| contact.token == Some(token)) else {
            return;
        };
        let changed = if online { self.link.online.insert(token) } else { self.link.online.remove(&token) };
        if changed {
            turn.event(Event::Presence { account, online });
        }
    }

    // What an application sees.

    pub(crate) fn contact_views(&self) -> Vec<ContactView> {
        let mut views: Vec<_> = self.contacts.keys().filter_map(|account| self.contact_view(*account)).collect();
        views.sort_by(|a, b| a.handle.cmp(&b.handle));
        views
    }

    pub(crate) fn contact_view(&self, account: AccountId) -> Option<ContactView> {
        let contact = self.contacts.get(&account)?;
        let entries = contact.log.entries().len() as u64;
        Some(ContactView {
            account,
            handle: self.handle_of(account),
            accepted: contact.is_accepted(),
            blocked: contact.blocked,
            verified: contact.verified_at_entry.is_some(),
            changed_since_verified: contact.verified_at_entry.is_some_and(|at| at != entries),
            handle_moved: contact.rival.as_ref().is_some_and(|rival| !rival.declined),
            retired: contact.log.is_retired(),
            online: contact.token.filter(|_| self.link.is_active()).map(|token| self.link.online.contains(&token)),
            safety_number: SafetyNumber::of(self.log.id(), account),
        })
    }
}
