//! The outbox (L4): content until it can be sealed, then the same bytes under the same envelope id until the relay has
//! accepted them. Sealed again only with a new envelope id and the same content id, when the receiver replaced the key
//! that the bytes were sealed to (D3), at most `limits::RESEALS_MAX` times.

use std::collections::BTreeSet;

use sealwire_keys::{content_id, one_to_one};
use sealwire_session::direct::{Commitment, SealError};
use sealwire_session::mls::SealedError;
use sealwire_wire::content::{BYTES, Content, Part, Status};
use sealwire_wire::conversation::ConversationKind;
use sealwire_wire::entry::Entry;
use sealwire_wire::frame::{Failed, ToRelay};
use sealwire_wire::handle::Handle;
use sealwire_wire::limits::{
    ACCEPTED_KEPT_MAX, DIRECT_MESSAGES_MAX, MESSAGE_MAX, MESSAGE_RETENTION_MS, OUTBOX_MAX, RECEIPT_IDS_MAX, RESEALS_MAX,
};
use sealwire_wire::padding::padded_length;
use sealwire_wire::{AccountId, Code, ContentId, ConversationId, EnvelopeId, InboxAddress, LogId, Position, Time};

use crate::command::{Refusal, Reply, To};
use crate::connection::is_due;
use crate::conversation::{Conversation, desk};
use crate::engine::{Channel, Engine};
use crate::event::{Event, MessageState, UnsentReason};
use crate::record::{
    self, ChannelRecord, MessageRecord, OutgoingRecord, RecordError, SealedRecord, SeenRecord, Table, Talk, Text,
    WayRecord,
};
use crate::step::Turn;

/// An outgoing message that is not finished.
pub(crate) struct Outgoing {
    pub(crate) to: Option<AccountId>,
    /// The group that it is for; else it is for an account.
    group: Option<ConversationId>,
    /// Until it is known whose handle it is.
    handle: Option<Handle>,
    /// Whether a person wrote it; the rest is receipts and tokens, of which nobody is told.
    message: bool,
    state: MessageState,
    /// Whether the relay had accepted it before it lost it (L11): then it is tried for as long as messages live.
    was_accepted: bool,
    /// Whether its receiver had confirmed it before another device asked for it (C10).
    was_delivered: bool,
    /// Where it stood when the relay had accepted it first. Who was added behind that does not read it (C10).
    said_at: Option<Position>,
    at: Time,
    content: Vec<u8>,
    id: Option<ContentId>,
    sealed: Option<Sealed>,
    reseals: u32,
}

/// The bits of a record's `message`.
const MESSAGE: u8 = 1;
const WAS_ACCEPTED: u8 = 2;
const WAS_DELIVERED: u8 = 4;

struct Sealed {
    envelope: EnvelopeId,
    way: Way,
    /// In which order what goes into conversations was sealed. Ratchets go forward only, so that nothing may overtake.
    order: u64,
    entry: Vec<u8>,
    /// Where the relay has put it.
    position: Option<Position>,
}

/// Where sealed bytes go.
#[derive(Clone, Copy)]
enum Way {
    /// Into an inbox, sealed under this key.
    Direct { inbox: InboxAddress, commitment: Commitment },
    /// Into a conversation, sealed in the epoch that was in force.
    Conversation(ConversationId),
}

impl Way {
    fn log(self) -> LogId {
        match self {
            Way::Direct { inbox, .. } => LogId::Inbox(inbox),
            Way::Conversation(id) => LogId::Conversation(id),
        }
    }
}

impl Outgoing {
    /// The conversation that it is sealed for; none while it is not sealed, or sealed for an inbox.
    pub(crate) fn conversation(&self) -> Option<ConversationId> {
        match self.sealed {
            Some(Sealed { way: Way::Conversation(id), .. }) => Some(id),
            _ => None,
        }
    }

    /// What it is once the relay has it, for the first time or again.
    fn accepted_state(&self) -> MessageState {
        if self.was_delivered { MessageState::Delivered } else { MessageState::Accepted }
    }

    /// Whether the relay has not accepted it yet.
    pub(crate) fn waits_for_relay(&self) -> bool {
        self.state == MessageState::Queued
    }

    pub(crate) fn load(record: OutgoingRecord) -> Result<Outgoing, RecordError> {
        Ok(Outgoing {
            to: record.to,
            group: record.group,
            handle: record.handle.map(|handle| handle.read_handle()).transpose()?,
            message: record.message & MESSAGE != 0,
            was_accepted: record.message & WAS_ACCEPTED != 0,
            was_delivered: record.message & WAS_DELIVERED != 0,
            said_at: record.said_at,
            state: record::state_from_byte(record.state).ok_or(RecordError::Damaged)?,
            at: record.at,
            content: record.content.into_vec(),
            id: record.id,
            sealed: record.sealed.map(|sealed| Sealed {
                envelope: sealed.envelope,
                way: match sealed.way {
                    WayRecord::Direct { inbox, commitment } => {
                        Way::Direct { inbox, commitment: Commitment(commitment) }
                    }
                    WayRecord::Conversation { conversation } => Way::Conversation(conversation),
                },
                order: sealed.order,
                entry: sealed.entry.into_vec(),
                position: sealed.position,
            }),
            reseals: record.reseals,
        })
    }

    fn to_record(&self) -> OutgoingRecord {
        let flag = |is, flag| if is { flag } else { 0 };
        OutgoingRecord {
            to: self.to,
            group: self.group,
            handle: self.handle.as_ref().map(|handle| Text::new(&handle.to_string())),
            message: flag(self.message, MESSAGE)
                | flag(self.was_accepted, WAS_ACCEPTED)
                | flag(self.was_delivered, WAS_DELIVERED),
            state: self.state as u8,
            at: self.at,
            said_at: self.said_at,
            content: self.content.clone().into(),
            id: self.id,
            sealed: self.sealed.as_ref().map(|sealed| SealedRecord {
                envelope: sealed.envelope,
                way: match sealed.way {
                    Way::Direct { inbox, commitment } => WayRecord::Direct { inbox, commitment: commitment.0 },
                    Way::Conversation(conversation) => WayRecord::Conversation { conversation },
                },
                order: sealed.order,
                entry: sealed.entry.clone().into(),
                position: sealed.position,
            }),
            reseals: self.reseals,
        }
    }
}

impl Channel {
    pub(crate) fn load(record: ChannelRecord) -> Result<Channel, RecordError> {
        Ok(match record {
            ChannelRecord::Sending { account, next } => Channel::Sending { account, next },
            ChannelRecord::Receiving { account, window } => Channel::Receiving {
                account,
                window: sealwire_session::ReplayWindow::from_bytes(window.as_slice()).ok_or(RecordError::Damaged)?,
            },
        })
    }

    pub(crate) fn to_record(&self) -> ChannelRecord {
        match self {
            Channel::Sending { account, next } => ChannelRecord::Sending { account: *account, next: *next },
            Channel::Receiving { account, window } => {
                ChannelRecord::Receiving { account: *account, window: window.to_bytes().into() }
            }
        }
    }
}

impl Engine {
    pub(crate) fn load_outgoing(&mut self, number: u64, outgoing: Outgoing) {
        if let Some(sealed) = &outgoing.sealed {
            self.by_envelope.insert(sealed.envelope, number);
        }
        if let Some(id) = outgoing.id {
            self.by_content.insert(id, number);
        }
        if outgoing.waits_for_relay() {
            self.unsent.insert(number);
        }
        self.outgoing.insert(number, outgoing);
    }

    fn save_outgoing(&self, turn: &mut Turn<'_>, number: u64) {
        if let Some(outgoing) = self.outgoing.get(&number) {
            turn.put(Table::Outgoing, number.to_be_bytes(), record::encode(&outgoing.to_record()));
        }
    }

    // Into the outbox.

    pub(crate) fn enqueue_message(
        &mut self,
        turn: &mut Turn<'_>,
        to: To,
        part: Part,
        in_reply_to: Option<ContentId>,
    ) -> Result<Reply, Refusal> {
        let part = match part {
            Part::Bytes { media_type, bytes } if media_type.is_empty() => {
                Part::Bytes { media_type: BYTES.into(), bytes }
            }
            Part::Text(_) | Part::Bytes { .. } => part,
            _ => return Err(Refusal::NotSendable),
        };
        if self.log.is_retired() {
            return Err(Refusal::Retired);
        }
        let group = match &to {
            To::Group(id) => Some(*id),
            _ => None,
        };
        let (to, handle) = if group.is_some() { (None, None) } else { self.resolve_recipient(to)? };
        if let Some(id) = group {
            let is_in =
                |conversation: &Conversation| conversation.kind == ConversationKind::Group && conversation.may_write();
            self.conversations.get(&id).filter(|c| is_in(c)).ok_or(Refusal::UnknownConversation)?;
        }
        let content = Content { salt: turn.random(), in_reply_to, must_understand: Vec::new(), part }.encode();
        if padded_length(content.len()) > MESSAGE_MAX {
            return Err(Refusal::TooLarge(content.len()));
        }
        if self.outbox_is_full() {
            return Err(Refusal::OutboxFull);
        }
        if let Some(id) = group {
            return Ok(Reply::Queued(self.enqueue_in_group(turn, id, true, content)));
        }
        let number = self.enqueue(turn, to, handle, None, true, content);
        if let Some(account) = to {
            self.add_to_history(turn, account, number);
        }
        Ok(Reply::Queued(number))
    }

    /// Receipts and the like do not count: whoever cannot send them must still be able to write.
    fn outbox_is_full(&self) -> bool {
        let waits = |outgoing: &&Outgoing| outgoing.message && outgoing.waits_for_relay();
        self.outgoing.len() >= OUTBOX_MAX && self.outgoing.values().filter(waits).count() >= OUTBOX_MAX
    }

    fn resolve_recipient(&self, to: To) -> Result<(Option<AccountId>, Option<Handle>), Refusal> {
        let (account, handle) = match to {
            To::Group(_) => return Err(Refusal::UnknownConversation),
            To::Account(account) => (account, None),
            To::Handle(handle) if handle.host != self.own.relay_name => {
                return Err(Refusal::OtherRelay(handle, self.own.relay_name.clone()));
            }
            To::Handle(handle) if handle == self.own.handle => return Err(Refusal::NotSendable),
            To::Handle(handle) => match self.handles.get(&handle) {
                Some(account) => (*account, Some(handle)),
                None => return Ok((None, Some(handle))),
            },
        };
        let contact = self.contacts.get(&account).ok_or(Refusal::UnknownContact)?;
        if contact.blocked {
            return Err(Refusal::Blocked);
        }
        if contact.log.is_retired() {
            return Err(Refusal::ContactRetired);
        }
        match handle.or_else(|| self.handle_of(account)) {
            Some(handle) if contact.waits_for_decision() => Err(Refusal::IdentityChanged(handle)),
            _ => Ok((Some(account), None)),
        }
    }

    /// Receipts, tokens and the like: outgoing like a message, and nobody is told of them.
    pub(crate) fn enqueue_part(&mut self, turn: &mut Turn<'_>, account: AccountId, part: Part) {
        let content = Content::of(turn.random(), part).encode();
        self.enqueue(turn, Some(account), None, None, false, content);
    }

    /// For the members of a group.
    pub(crate) fn enqueue_in_group(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        message: bool,
        content: Vec<u8>,
    ) -> u64 {
        let number = self.enqueue(turn, None, None, Some(id), message, content);
        if message {
            self.put_history(turn, Talk::Group(id), number);
        }
        number
    }

    fn enqueue(
        &mut self,
        turn: &mut Turn<'_>,
        to: Option<AccountId>,
        handle: Option<Handle>,
        group: Option<ConversationId>,
        message: bool,
        content: Vec<u8>,
    ) -> u64 {
        let number = self.take_number(turn);
        let own = self.log.id();
        let id = match group {
            Some(group) => Some(content_id(group, own, &content)),
            None => to.map(|account| self.own_content_id(account, &content)),
        };
        let outgoing = Outgoing {
            to,
            group,
            handle,
            message,
            state: MessageState::Queued,
            was_accepted: false,
            was_delivered: false,
            said_at: None,
            at: turn.now,
            content,
            id,
            sealed: None,
            reseals: 0,
        };
        self.load_outgoing(number, outgoing);
        self.save_outgoing(turn, number);
        number
    }

    fn own_content_id(&self, to: AccountId, content: &[u8]) -> ContentId {
        content_id(one_to_one(self.log.id(), to), self.log.id(), content)
    }

    fn add_to_history(&self, turn: &mut Turn<'_>, account: AccountId, number: u64) {
        self.put_history(turn, Talk::Person(account), number);
    }

    /// Whether this device itself has that content on its way, or had it accepted.
    pub(crate) fn is_in_outbox(&self, id: ContentId) -> bool {
        self.by_content.contains_key(&id)
    }

    /// What another device of this account has said goes into the history, as if it had been said here.
    pub(crate) fn put_said_elsewhere(
        &mut self,
        turn: &mut Turn<'_>,
        talk: Talk,
        id: ContentId,
        at: Time,
        content: &[u8],
    ) -> u64 {
        let number = self.take_number(turn);
        let record = MessageRecord { incoming: 0, from: None, id: Some(id), at, content: content.into() };
        turn.put(Table::Message, record::message_key(talk, number), record::encode(&record));
        number
    }

    fn put_history(&self, turn: &mut Turn<'_>, talk: Talk, number: u64) {
        let Some(outgoing) = self.outgoing.get(&number) else { return };
        let content = outgoing.content.clone().into();
        let record = MessageRecord { incoming: 0, from: None, id: outgoing.id, at: outgoing.at, content };
        turn.put(Table::Message, record::message_key(talk, number), record::encode(&record));
    }

    /// It is known now whose a handle is: what waited for it has a receiver.
    pub(crate) fn resolve(&mut self, turn: &mut Turn<'_>, handle: &Handle) {
        let Some(&account) = self.handles.get(handle) else { return };
        for number in self.unresolved(handle) {
            let Some(content) = self.outgoing.get(&number).map(|outgoing| outgoing.content.clone()) else { continue };
            let id = self.own_content_id(account, &content);
            if let Some(outgoing) = self.outgoing.get_mut(&number) {
                outgoing.to = Some(account);
                outgoing.handle = None;
                outgoing.id = Some(id);
            }
            self.by_content.insert(id, number);
            self.save_outgoing(turn, number);
            self.add_to_history(turn, account, number);
        }
    }

    fn unresolved(&self, handle: &Handle) -> Vec<u64> {
        let waits = |number: &&u64| {
            self.outgoing.get(number).is_some_and(|o| o.to.is_none() && o.handle.as_ref() == Some(handle))
        };
        self.unsent.iter().filter(waits).copied().collect()
    }

    /// Nobody has that handle, or nothing that verifies: what waited for it will not be sent.
    pub(crate) fn fail_unresolved(&mut self, turn: &mut Turn<'_>, handle: &Handle, reason: UnsentReason) {
        for number in self.unresolved(handle) {
            self.finish(turn, number, MessageState::Unsent, Some(reason));
        }
    }

    /// An account is not there any more: what was not sealed for it will not be sent.
    pub(crate) fn fail_unsealed(&mut self, turn: &mut Turn<'_>, account: AccountId, reason: UnsentReason) {
        for number in self.unsealed(account) {
            self.finish(turn, number, MessageState::Unsent, Some(reason));
        }
    }

    fn unsealed(&self, account: AccountId) -> Vec<u64> {
        let is = |number: &&u64| self.outgoing.get(number).is_some_and(|o| o.to == Some(account) && o.sealed.is_none());
        self.unsent.iter().filter(is).copied().collect()
    }

    /// The person decided that a handle means another account: what was not sealed yet goes there.
    pub(crate) fn readdress_unsealed(&mut self, turn: &mut Turn<'_>, from: AccountId, to: AccountId) {
        for number in self.unsealed(from) {
            let Some(outgoing) = self.outgoing.get(&number).filter(|outgoing| outgoing.message) else { continue };
            let id = self.own_content_id(to, &outgoing.content);
            if let Some(old) = outgoing.id {
                self.by_content.remove(&old);
            }
            if let Some(outgoing) = self.outgoing.get_mut(&number) {
                outgoing.to = Some(to);
                outgoing.id = Some(id);
            }
            self.by_content.insert(id, number);
            self.save_outgoing(turn, number);
            turn.delete(Table::Message, record::message_key(Talk::Person(from), number));
            self.add_to_history(turn, to, number);
        }
    }

    // Out of the outbox.

    /// Sends what can be sent now, in order; then looks up whoever else is to be looked up, as far as there is room.
    pub(crate) fn pump(&mut self, turn: &mut Turn<'_>) {
        self.pump_outbox(turn);
        self.pump_conversations(turn);
        self.ask_for_held(turn);
        self.refresh_waiting(turn);
    }

    fn pump_outbox(&mut self, turn: &mut Turn<'_>) {
        let is_full = self.link.in_flight.len() >= self.link.in_flight_max;
        if !self.link.is_active() || self.link.paused_until.is_some() || is_full || self.unsent.is_empty() {
            return;
        }
        // What was sealed for a conversation goes first, in the order in which it was sealed.
        let sealed_order = |number: &u64| match &self.outgoing.get(number)?.sealed {
            Some(Sealed { way: Way::Conversation(_), order, .. }) => Some(*order),
            _ => None,
        };
        let mut waiting: Vec<u64> = self.unsent.iter().copied().collect();
        waiting.sort_by_key(|number| sealed_order(number).unwrap_or(u64::MAX));
        // Where one message cannot be sealed now, those behind it cannot either.
        let mut stuck = BTreeSet::new();
        for number in waiting {
            if self.link.in_flight.len() >= self.link.in_flight_max {
                break;
            }
            let unsealed = |outgoing: &&Outgoing| outgoing.sealed.is_none();
            let way = |o: &Outgoing| (o.to.is_some() || o.group.is_some()).then_some((o.to, o.group));
            let to = self.outgoing.get(&number).filter(unsealed).and_then(way);
            if to.is_some_and(|to| stuck.contains(&to)) {
                continue;
            }
            self.send_one(turn, number);
            if self.unsent.contains(&number) && self.outgoing.get(&number).filter(unsealed).is_some() {
                stuck.extend(to);
            }
        }
    }

    fn send_one(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(outgoing) = self.outgoing.get(&number) else { return };
        if outgoing.to.is_some_and(|account| self.link.gone.contains(&account)) {
            return;
        }
        match &outgoing.sealed {
            Some(Sealed { way: Way::Conversation(id), .. }) => {
                if self.conversations.get(id).is_some_and(Conversation::may_seal) {
                    self.send_sealed(turn, number);
                }
                return;
            }
            Some(_) => return self.send_sealed(turn, number),
            None => {}
        }
        if let Some(id) = outgoing.group {
            return self.send_in(turn, id, number);
        }
        let Some(account) = outgoing.to else {
            if let Some(handle) = outgoing.handle.clone().filter(|_| self.link.has_room_to_ask()) {
                self.ask_for_handle(turn, handle, Vec::new());
            }
            return;
        };
        let Some(contact) = self.contacts.get(&account) else { return };
        if contact.blocked || contact.waits_for_decision() {
            return;
        }
        if !self.link.refreshed.contains(&account) {
            if self.link.has_room_to_ask() && !self.link.unanswered.contains(&account) {
                self.refresh(turn, account);
            }
            return;
        }
        if contact.log.is_retired() {
            return self.finish(turn, number, MessageState::Unsent, Some(UnsentReason::Retired));
        }
        if self.is_mls() && contact.is_mls() {
            self.begin_one_to_one(turn, account);
            let id = one_to_one(self.log.id(), account);
            // Never into something else that somebody has begun under its name.
            if self.conversations.get(&id).is_some_and(|conversation| conversation.peer == Some(account)) {
                self.send_in(turn, id, number);
            }
            return;
        }
        if self.is_mls() || contact.is_mls() {
            // Never from the one to the other (D).
            return self.finish(turn, number, MessageState::Unsent, Some(UnsentReason::NoCommonMode));
        }
        match self.seal(turn, account, number) {
            Ok(()) => {
                self.send_sealed(turn, number);
                if self.outgoing.get(&number).is_some_and(|outgoing| outgoing.message) {
                    self.hand_presence(turn, account);
                }
            }
            Err(reason) => self.finish(turn, number, MessageState::Unsent, Some(reason)),
        }
    }

    /// Seals for the members of a conversation, once it is caught up with (L4). Ratchet and bytes are durable before the
    /// bytes leave.
    fn send_in(&mut self, turn: &mut Turn<'_>, id: ConversationId, number: u64) {
        let (Some(conversation), Some(outgoing)) = (self.conversations.get_mut(&id), self.outgoing.get_mut(&number))
        else {
            return;
        };
        if !conversation.may_seal() {
            return;
        }
        if outgoing.said_at.is_some_and(|at| conversation.is_for_less(at)) {
            // It was to be said again; whoever came since would read it, too.
            outgoing.state = outgoing.accepted_state();
            self.unsent.remove(&number);
            return self.save_outgoing(turn, number);
        }
        let envelope = EnvelopeId(turn.random());
        let order = self.progress.next;
        self.progress.next += 1;
        let sealed = conversation.seal(&mut desk!(self, turn), envelope, &outgoing.content);
        let entry = match sealed {
            Ok(entry) => entry,
            Err(SealedError::TooLarge(_)) => {
                let reason = UnsentReason::Refused(Code::TooLarge);
                return self.finish(turn, number, MessageState::Unsent, Some(reason));
            }
            Err(SealedError::NoMember) => {
                return self.finish(turn, number, MessageState::Unsent, Some(UnsentReason::NoMember));
            }
        };
        outgoing.sealed = Some(Sealed { envelope, way: Way::Conversation(id), order, entry, position: None });
        let (message, to) = (outgoing.message, outgoing.to);
        self.by_envelope.insert(envelope, number);
        self.save_progress(turn);
        self.save_outgoing(turn, number);
        self.save_conversation(turn, id);
        self.send_sealed(turn, number);
        if let Some(account) = to.filter(|_| message) {
            self.hand_presence(turn, account);
        }
    }

    /// Whether an entry that was read is one that this device has sent.
    pub(crate) fn is_own(&self, entry: &Entry, bytes: &[u8]) -> bool {
        let outgoing = self.by_envelope.get(&entry.envelope).and_then(|number| self.outgoing.get(number));
        outgoing.and_then(|outgoing| outgoing.sealed.as_ref()).is_some_and(|sealed| sealed.entry == bytes)
    }

    /// What this device has sent was read where it stands in its conversation.
    pub(crate) fn own_was_read(&mut self, turn: &mut Turn<'_>, envelope: EnvelopeId, position: Position) {
        self.accepted(turn, envelope, position);
        let Some(&number) = self.by_envelope.get(&envelope) else { return };
        if self.outgoing.get(&number).is_some_and(|outgoing| !outgoing.message) {
            self.drop_outgoing(turn, number);
        }
    }

    /// What was sealed under an envelope is sealed again, under another (L4). Of which conversation it was.
    pub(crate) fn unseal(&mut self, turn: &mut Turn<'_>, envelope: EnvelopeId) -> Option<ConversationId> {
        let number = *self.by_envelope.get(&envelope)?;
        let outgoing = self.outgoing.get_mut(&number).filter(|outgoing| outgoing.waits_for_relay())?;
        let Some(Sealed { way: Way::Conversation(id), .. }) = outgoing.sealed else { return None };
        outgoing.sealed = None;
        self.by_envelope.remove(&envelope);
        self.link.in_flight.remove(&envelope);
        self.unsent.insert(number);
        self.save_outgoing(turn, number);
        Some(id)
    }

    /// A commit was read: whatever was sealed before it and is not accepted is stale (L4).
    pub(crate) fn unseal_stale(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let stale = |outgoing: &&Outgoing| outgoing.waits_for_relay() && outgoing.conversation() == Some(id);
        let envelopes: Vec<_> = self
            .outgoing
            .values()
            .filter(stale)
            .filter_map(|o| o.sealed.as_ref().map(|sealed| sealed.envelope))
            .collect();
        for envelope in envelopes {
            self.unseal(turn, envelope);
        }
    }

    /// Somebody has lost their place in a conversation and is back: what was accepted and not confirmed may have been sealed
    /// in an epoch that they cannot open any more. It goes again, with the same content id.
    pub(crate) fn resend_unconfirmed(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let waits = |o: &Outgoing| o.state == MessageState::Accepted && o.group.is_none() && o.reseals < RESEALS_MAX;
        let numbers: Vec<u64> = self
            .outgoing
            .iter()
            .filter(|(_, o)| waits(o) && o.conversation() == Some(id))
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            self.queue_again(turn, number);
        }
    }

    /// Messages of this device that stand at these positions of a conversation's log, and may be sealed again; the oldest
    /// first.
    pub(crate) fn outgoing_at(&self, id: ConversationId, first: Position, last: Position) -> Vec<u64> {
        let is_there = |o: &Outgoing| {
            let position = o.sealed.as_ref().and_then(|sealed| sealed.position);
            let stands = o.conversation() == Some(id) && position.is_some_and(|at| (first..=last).contains(&at));
            stands
                && o.message
                && o.reseals < RESEALS_MAX
                && matches!(o.state, MessageState::Accepted | MessageState::Delivered)
        };
        self.outgoing.iter().filter(|(_, outgoing)| is_there(outgoing)).map(|(number, _)| *number).collect()
    }

    /// What was accepted is sealed again, and sent, with the same content id.
    pub(crate) fn queue_again(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(outgoing) = self.outgoing.get_mut(&number) else { return };
        if let Some(sealed) = outgoing.sealed.take() {
            self.by_envelope.remove(&sealed.envelope);
        }
        outgoing.was_delivered |= outgoing.state == MessageState::Delivered;
        outgoing.state = MessageState::Queued;
        outgoing.reseals += 1;
        self.unsent.insert(number);
        self.save_outgoing(turn, number);
    }

    /// An account was added to a group: what was said there before is not said again, whatever position a relay gives for it.
    pub(crate) fn keep_from_newcomers(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let mut numbers = Vec::new();
        for (number, outgoing) in &mut self.outgoing {
            if outgoing.group == Some(id) && outgoing.said_at.is_some_and(|at| at != Position::START) {
                outgoing.said_at = Some(Position::START);
                numbers.push(*number);
            }
        }
        numbers.into_iter().for_each(|number| self.save_outgoing(turn, number));
    }

    /// This device is out of a conversation: what it had to say there will not be sent.
    pub(crate) fn fail_in_conversation(&mut self, turn: &mut Turn<'_>, id: ConversationId, reason: UnsentReason) {
        let own = self.log.id();
        let is_for = |o: &Outgoing| o.group == Some(id) || o.to.is_some_and(|to| one_to_one(own, to) == id);
        let numbers: Vec<u64> =
            self.outgoing.iter().filter(|(_, o)| o.waits_for_relay() && is_for(o)).map(|(number, _)| *number).collect();
        for number in numbers {
            match self.outgoing.get_mut(&number).filter(|outgoing| outgoing.said_at.is_some()) {
                // It was only to be said again: others have read it.
                Some(outgoing) => {
                    outgoing.state = outgoing.accepted_state();
                    self.unsent.remove(&number);
                    self.save_outgoing(turn, number);
                }
                None => self.finish(turn, number, MessageState::Unsent, Some(reason)),
            }
        }
    }

    /// Seals once. Counter and bytes are durable before the bytes leave.
    fn seal(&mut self, turn: &mut Turn<'_>, account: AccountId, number: u64) -> Result<(), UnsentReason> {
        let inbox = self.contacts.get(&account).and_then(|contact| contact.target()).map(|(_, inbox, _)| inbox);
        let (Some(inbox), Some(commitment)) = (inbox, self.sending_session(account)) else {
            return Err(UnsentReason::NoCommonMode);
        };
        let counter = match self.channels.get(&commitment) {
            Some(Channel::Sending { next, .. }) => *next,
            _ => 0,
        };
        let envelope = EnvelopeId(turn.random());
        let (Some(session), Some(outgoing)) = (self.sessions.get(&commitment), self.outgoing.get_mut(&number)) else {
            return Err(UnsentReason::NoCommonMode);
        };
        let body = session.seal(envelope, counter, &outgoing.content, turn.rng).map_err(|error| match error {
            SealError::TooLarge(_) => UnsentReason::Refused(Code::TooLarge),
            SealError::KeyExhausted => UnsentReason::NoCommonMode,
        })?;
        let entry = Entry::direct(envelope, body).encode();
        outgoing.sealed =
            Some(Sealed { envelope, way: Way::Direct { inbox, commitment }, order: 0, entry, position: None });
        self.by_envelope.insert(envelope, number);
        let channel = Channel::Sending { account, next: (counter + 1).min(DIRECT_MESSAGES_MAX) };
        turn.put(Table::Channel, commitment.0, record::encode(&channel.to_record()));
        self.channels.insert(commitment, channel);
        self.save_outgoing(turn, number);
        Ok(())
    }

    fn send_sealed(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(sealed) = self.outgoing.get(&number).and_then(|outgoing| outgoing.sealed.as_ref()) else { return };
        turn.send(ToRelay::Append { log: sealed.way.log(), entry: sealed.entry.clone(), roster: None });
        self.link.in_flight.insert(sealed.envelope, turn.now);
        self.unsent.remove(&number);
    }

    // What the relay and the receiver say.

    pub(crate) fn accepted(&mut self, turn: &mut Turn<'_>, envelope: EnvelopeId, position: Position) {
        self.link.in_flight.remove(&envelope);
        self.link.useful = true;
        let Some(&number) = self.by_envelope.get(&envelope) else { return };
        let Some(outgoing) = self.outgoing.get_mut(&number).filter(|outgoing| outgoing.waits_for_relay()) else {
            return;
        };
        let comes_back = outgoing.conversation().is_some();
        if !outgoing.message && !comes_back {
            return self.drop_outgoing(turn, number);
        }
        outgoing.state = outgoing.accepted_state();
        let is_news = !outgoing.was_delivered;
        if let Some(sealed) = outgoing.sealed.as_mut().filter(|sealed| matches!(sealed.way, Way::Conversation(_))) {
            sealed.position = Some(position);
            outgoing.said_at.get_or_insert(position);
        }
        self.unsent.remove(&number);
        self.save_outgoing(turn, number);
        if is_news {
            self.tell_state(turn, number, None);
        }
        self.reseal_if_outdated(turn, number);
    }

    pub(crate) fn append_failed(&mut self, turn: &mut Turn<'_>, envelope: EnvelopeId, failed: &Failed) {
        self.link.in_flight.remove(&envelope);
        if self.commit_failed(turn, envelope, failed) || self.readd_failed(turn, envelope, failed) {
            return;
        }
        let Some(&number) = self.by_envelope.get(&envelope) else { return };
        let Some(outgoing) = self.outgoing.get(&number).filter(|outgoing| outgoing.waits_for_relay()) else { return };
        let in_conversation = outgoing.conversation().is_some();
        match failed.code {
            // Out of the roster: what comes of the log says by whom, or the relay is wrong and the next connection helps.
            Code::NotAllowed | Code::UnknownLog if in_conversation => {}
            Code::Busy | Code::RateLimited => {
                self.link.paused_until = Some(turn.now.plus(failed.retry_after_ms.max(100)));
                self.unsent.insert(number);
            }
            // The whole connection is in question; what waits goes again on the next one.
            Code::StoreFailed | Code::ShuttingDown | Code::Restored | Code::WrongOrder => {}
            Code::Retired => self.finish(turn, number, MessageState::Unsent, Some(UnsentReason::Retired)),
            Code::UnknownLog => self.inbox_is_gone(turn, number),
            code => self.finish(turn, number, MessageState::Unsent, Some(UnsentReason::Refused(code))),
        }
    }

    /// The relay does not know the inbox: its owner's account may be gone, or the relay was restored from a backup of
    /// before it, and its owner has not come back yet. The account is looked up again, and the bytes are kept.
    fn inbox_is_gone(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(account) = self.outgoing.get(&number).and_then(|outgoing| outgoing.to) else {
            return self.finish(turn, number, MessageState::Unsent, Some(UnsentReason::NotFound));
        };
        self.unsent.insert(number);
        self.link.gone.insert(account);
        self.ask_for_account(turn, account);
    }

    /// There is no such account: what the relay never had for it will not be sent. What it had had waits for the account
    /// to come back.
    pub(crate) fn fail_gone(&mut self, turn: &mut Turn<'_>, account: AccountId) {
        if !self.link.gone.contains(&account) {
            return;
        }
        let fails = |number: &&u64| {
            self.outgoing.get(number).is_some_and(|o| o.to == Some(account) && o.sealed.is_some() && !o.was_accepted)
        };
        let failed: Vec<u64> = self.unsent.iter().filter(fails).copied().collect();
        for number in failed {
            self.finish(turn, number, MessageState::Unsent, Some(UnsentReason::NotFound));
        }
    }

    /// A sealed receipt of the person that a message was for.
    pub(crate) fn receipt(&mut self, turn: &mut Turn<'_>, from: AccountId, id: ContentId, status: Status) {
        let Some(&number) = self.by_content.get(&id) else { return };
        let Some(outgoing) = self.outgoing.get_mut(&number).filter(|outgoing| outgoing.to == Some(from)) else {
            return;
        };
        let state = match status {
            Status::Delivered => MessageState::Delivered,
            Status::Read => MessageState::Read,
        };
        if outgoing.state >= state {
            return;
        }
        outgoing.state = state;
        if state == MessageState::Read {
            return self.finish(turn, number, state, None);
        }
        if let Some(sealed) = outgoing.sealed.take_if(|sealed| matches!(sealed.way, Way::Direct { .. })) {
            // Nothing of it will be sent again. In a conversation, another device of the receiver may ask for it (C10).
            outgoing.content.clear();
            self.by_envelope.remove(&sealed.envelope);
        }
        self.unsent.remove(&number);
        self.save_outgoing(turn, number);
        self.tell_state(turn, number, None);
    }

    fn finish(&mut self, turn: &mut Turn<'_>, number: u64, state: MessageState, reason: Option<UnsentReason>) {
        let Some(outgoing) = self.outgoing.get_mut(&number) else { return };
        outgoing.state = state;
        if outgoing.message {
            turn.put(Table::Sent, number.to_be_bytes(), record::encode(&(state as u8)));
            self.tell_state(turn, number, reason);
        }
        self.drop_outgoing(turn, number);
    }

    fn drop_outgoing(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(outgoing) = self.outgoing.remove(&number) else { return };
        if let Some(sealed) = outgoing.sealed {
            self.by_envelope.remove(&sealed.envelope);
        }
        if let Some(id) = outgoing.id {
            self.by_content.remove(&id);
        }
        self.unsent.remove(&number);
        turn.delete(Table::Outgoing, number.to_be_bytes());
    }

    fn tell_state(&self, turn: &mut Turn<'_>, number: u64, reason: Option<UnsentReason>) {
        if let Some(outgoing) = self.outgoing.get(&number).filter(|outgoing| outgoing.message) {
            turn.event(Event::State { number, to: outgoing.to, state: outgoing.state, reason });
        }
    }

    // Keys that changed, relays that lost what they had.

    /// A contact has new keys, by its own signature: what was accepted and not delivered may have been sealed to keys
    /// that it cannot open any more (D3).
    pub(crate) fn reseal_outdated(&mut self, turn: &mut Turn<'_>, account: AccountId) {
        let of_account: Vec<u64> =
            self.outgoing.iter().filter(|(_, o)| o.to == Some(account)).map(|(number, _)| *number).collect();
        of_account.into_iter().for_each(|number| self.reseal_if_outdated(turn, number));
    }

    fn reseal_if_outdated(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(outgoing) = self.outgoing.get(&number) else { return };
        let (Some(sealed), Some(account)) = (&outgoing.sealed, outgoing.to) else { return };
        let Way::Direct { commitment, .. } = sealed.way else { return };
        if outgoing.state != MessageState::Accepted || outgoing.reseals >= RESEALS_MAX {
            return;
        }
        if self.sending_session(account).is_none_or(|current| current == commitment) {
            return;
        }
        if let Some(outgoing) = self.outgoing.get_mut(&number) {
            outgoing.sealed.take().map(|sealed| self.by_envelope.remove(&sealed.envelope));
            outgoing.state = MessageState::Queued;
            outgoing.reseals += 1;
            self.unsent.insert(number);
            self.save_outgoing(turn, number);
        }
    }

    /// On each connection, and now and then: whether those who have not confirmed a message still have the key that it
    /// was sealed to.
    pub(crate) fn refresh_undelivered(&mut self) {
        let waiting = |outgoing: &Outgoing| (outgoing.state == MessageState::Accepted).then_some(outgoing.to).flatten();
        self.link.to_refresh.extend(self.outgoing.values().filter_map(waiting));
    }

    /// L11: what was accepted behind the end of a log is there no more, whoever has confirmed it: another device of theirs may
    /// not have read it.
    pub(crate) fn say_again_what_is_gone(&mut self, turn: &mut Turn<'_>, id: ConversationId, length: Position) {
        for number in self.outgoing_at(id, length.next(), Position(u64::MAX)) {
            self.queue_again(turn, number);
        }
    }

    /// The same, where something else stands at that position now.
    pub(crate) fn say_again_what_was_replaced(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        position: Position,
        entry: &[u8],
    ) {
        for number in self.outgoing_at(id, position, position) {
            let sealed = self.outgoing.get(&number).and_then(|outgoing| outgoing.sealed.as_ref());
            if sealed.is_some_and(|sealed| sealed.entry != entry) {
                self.queue_again(turn, number);
            }
        }
    }

    /// L11: what a restored relay may have lost goes again, the same bytes.
    pub(crate) fn repeat_accepted(&mut self, turn: &mut Turn<'_>) {
        let accepted = |(number, o): (&u64, &Outgoing)| {
            (o.state == MessageState::Accepted && o.sealed.is_some()).then_some(*number)
        };
        let numbers: Vec<u64> = self.outgoing.iter().filter_map(accepted).collect();
        for number in numbers {
            if let Some(outgoing) = self.outgoing.get_mut(&number) {
                outgoing.state = MessageState::Queued;
                outgoing.was_accepted = true;
                self.unsent.insert(number);
                self.save_outgoing(turn, number);
            }
        }
    }

    /// Bounds what is remembered: accepted messages without a receipt for 30 days or 1,000 of them, content ids of what
    /// was shown for twice that.
    pub(crate) fn forget_old(&mut self, turn: &mut Turn<'_>) {
        let accepted: Vec<(u64, Time)> = self
            .outgoing
            .iter()
            .filter(|(_, outgoing)| matches!(outgoing.state, MessageState::Accepted | MessageState::Delivered))
            .map(|(number, outgoing)| (*number, outgoing.at))
            .collect();
        let surplus = accepted.len().saturating_sub(ACCEPTED_KEPT_MAX);
        for (index, (number, at)) in accepted.into_iter().enumerate() {
            if index < surplus || turn.now.since(at) > MESSAGE_RETENTION_MS {
                let state = self.outgoing[&number].state;
                turn.put(Table::Sent, number.to_be_bytes(), record::encode(&(state as u8)));
                self.drop_outgoing(turn, number);
            }
        }
        let lost = |(number, o): (&u64, &Outgoing)| {
            let is_lost = o.was_accepted && o.waits_for_relay() && turn.now.since(o.at) > MESSAGE_RETENTION_MS;
            is_lost.then_some(*number)
        };
        let lost: Vec<u64> = self.outgoing.iter().filter_map(lost).collect();
        for number in lost {
            self.finish(turn, number, MessageState::Unsent, Some(UnsentReason::NotFound));
        }
        let old = |seen: &SeenRecord| turn.now.since(seen.at) > 2 * MESSAGE_RETENTION_MS && !self.window_reaches(seen);
        let old: Vec<ContentId> = self.seen.iter().filter(|(_, seen)| old(seen)).map(|(id, _)| *id).collect();
        for id in old {
            self.seen.remove(&id);
            turn.delete(Table::Seen, id.0);
        }
    }

    /// Whether a replay of a message would still be opened.
    fn window_reaches(&self, seen: &SeenRecord) -> bool {
        match self.channels.get(&Commitment(seen.commitment)) {
            Some(Channel::Receiving { window, .. }) => !window.is_too_old(seen.counter),
            _ => false,
        }
    }

    // Receipts (C12).

    pub(crate) fn owe_receipt(&mut self, turn: &mut Turn<'_>, to: AccountId, id: ContentId, status: Status) {
        let owed = self.receipts.entry((to, id)).or_insert(status);
        *owed = status.max(*owed);
        turn.put(Table::Receipt, record::receipt_key(to, id), record::encode(&(*owed as u8)));
        let due = turn.now.plus(self.own.receipt_delay_ms);
        self.receipts_due = Some(self.receipts_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Sends what has been gathered, one mark per contact; strangers get nothing.
    pub(crate) fn flush_receipts(&mut self, turn: &mut Turn<'_>) {
        let delay = self.own.receipt_delay_ms;
        if !self.link.is_active() || !self.receipts_due.is_some_and(|due| is_due(due, turn.now, delay)) {
            return;
        }
        self.receipts_due = None;
        // What cannot go now stays owed, instead of filling the outbox.
        let may_have = |account: &AccountId| {
            self.contacts.get(account).is_some_and(|contact| contact.is_accepted() && !contact.waits_for_decision())
        };
        let due: Vec<_> = self.receipts.iter().filter(|((to, _), _)| may_have(to)).map(|(k, s)| (*k, *s)).collect();
        for of_one in due.chunk_by(|((a, _), _), ((b, _), _)| a == b) {
            for marks in of_one.chunks(RECEIPT_IDS_MAX) {
                let statuses = marks.iter().map(|((_, id), status)| (*id, *status)).collect();
                self.enqueue_part(turn, marks[0].0.0, Part::Status(statuses));
                for ((account, id), _) in marks {
                    self.receipts.remove(&(*account, *id));
                    turn.delete(Table::Receipt, record::receipt_key(*account, *id));
                }
            }
        }
    }

    /// What somebody sent before the person had decided about them is confirmed now.
    pub(crate) fn send_owed_receipts(&mut self, turn: &mut Turn<'_>, account: AccountId) {
        if self.receipts.keys().any(|(to, _)| *to == account) {
            self.receipts_due = Some(turn.now);
        }
    }

    pub(crate) fn mark_read(&mut self, turn: &mut Turn<'_>, ids: &[(AccountId, ContentId)]) -> Result<Reply, Refusal> {
        for (account, id) in ids {
            if self.contacts.contains_key(account) && self.seen.contains_key(id) {
                self.owe_receipt(turn, *account, *id, Status::Read);
            }
        }
        Ok(Reply::Done)
    }
}
