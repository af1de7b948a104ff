//! The inbox: every envelope ends shown, duplicate, held or quarantined (L7), each moves the cursor, and after a
//! rejection nothing else differs.

use std::collections::BTreeSet;

use sealwire_keys::{SafetyNumber, blob_hash, content_id, one_to_one};
use sealwire_session::ReplayWindow;
use sealwire_session::direct::{Header, OpenError};
use sealwire_wire::content::{Content, Part, Status};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{Delivered, ToRelay};
use sealwire_wire::limits::{HELD_MAX, QUARANTINE_MAX, REQUEST_MESSAGES_MAX};
use sealwire_wire::{AccountId, ContentId, ConversationId, DeviceHint, EnvelopeId, LogId, Position, Time};

use crate::contacts::Standing;
use crate::engine::{Channel, Engine};
use crate::event::{Event, Incoming, QuarantineReason, RequestView};
use crate::record::{self, HeldRecord, MessageRecord, QuarantineRecord, SeenRecord, Table, Talk, Text, UnshownRecord};
use crate::step::Turn;

/// How an attempt to open an envelope ended.
enum Opening {
    /// It is done with: shown, a duplicate, or quarantined.
    Done,
    /// Its sender's keys have to be looked up first.
    NeedsSender,
}

impl Engine {
    /// Entries of the own inbox, in order.
    pub(crate) fn deliver(&mut self, turn: &mut Turn<'_>, entries: Vec<Delivered>) {
        for delivered in entries {
            if !self.take_delivered(turn, delivered) {
                break;
            }
        }
        self.save_progress(turn);
        turn.send(ToRelay::Ack { log: LogId::Inbox(self.own.inbox), upto: self.progress.cursor });
    }

    /// Whether to go on with the next one.
    fn take_delivered(&mut self, turn: &mut Turn<'_>, delivered: Delivered) -> bool {
        let position = delivered.position;
        if position <= self.progress.cursor || self.link.overflowed {
            return true;
        }
        // Positions are gapless; a relay says so when entries are gone. Otherwise a frame was lost on the way: fetch
        // again. What comes first on a connection is taken as it is, so that a relay cannot make this go on forever.
        if position > self.link.delivered_upto.next() && !self.link.nothing_delivered {
            self.hang_up(turn);
            return false;
        }
        if self.held.len() >= HELD_MAX {
            self.link.overflowed = true;
            return false;
        }
        self.link.nothing_delivered = false;
        self.link.useful = true;
        self.link.delivered_upto = position;
        self.receive(turn, position, delivered.at, &delivered.entry);
        self.progress.cursor = position;
        true
    }

    fn receive(&mut self, turn: &mut Turn<'_>, position: Position, at: Time, bytes: &[u8]) {
        let (envelope, body) = match Entry::decode(bytes) {
            Ok(Entry { kind: EntryKind::Direct, envelope, body: Body::Inline(body), .. }) => (envelope, body),
            Ok(Entry { kind: EntryKind::Welcome, envelope, body, .. }) => {
                if let Err(reason) = self.receive_welcome(turn, position, at, envelope, body) {
                    self.quarantine(turn, None, position, Some(envelope), reason, bytes);
                }
                return;
            }
            Ok(other) => {
                return self.quarantine(
                    turn,
                    None,
                    position,
                    Some(other.envelope),
                    QuarantineReason::Unsupported,
                    bytes,
                );
            }
            Err(_) => return self.quarantine(turn, None, position, None, QuarantineReason::Malformed, bytes),
        };
        let Ok(header) = Header::parse(&body) else {
            return self.quarantine(turn, None, position, Some(envelope), QuarantineReason::Malformed, bytes);
        };
        // Behind one that is held, so that a sender's messages stay in order.
        let waits_behind = self.held.values().any(|held| held.hint == header.sender);
        if waits_behind {
            return self.hold(turn, position, at, header.sender, bytes);
        }
        let opening = match self.account_of(header.sender) {
            Some(account) => self.open(turn, account, position, at, envelope, &header, bytes, &body, false),
            None => Opening::NeedsSender,
        };
        if let Opening::NeedsSender = opening {
            self.hold(turn, position, at, header.sender, bytes);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an envelope, parsed; each part has a type of its own")]
    fn open(
        &mut self,
        turn: &mut Turn<'_>,
        account: AccountId,
        position: Position,
        at: Time,
        envelope: EnvelopeId,
        header: &Header,
        entry: &[u8],
        body: &[u8],
        fresh: bool,
    ) -> Opening {
        let commitment = header.commitment;
        let known = self.sessions.contains_key(&commitment) || self.derive_receiving(account, commitment);
        if !known && !fresh {
            return Opening::NeedsSender;
        }
        if let Err(reason) = self.try_open(turn, account, at, envelope, header, body) {
            self.quarantine(turn, None, position, Some(envelope), reason, entry);
        }
        Opening::Done
    }

    /// Opens an envelope of a known sender. Nothing changes before the tag has verified and the content was read.
    fn try_open(
        &mut self,
        turn: &mut Turn<'_>,
        account: AccountId,
        at: Time,
        envelope: EnvelopeId,
        header: &Header,
        body: &[u8],
    ) -> Result<(), QuarantineReason> {
        if self.contacts.get(&account).is_some_and(|contact| contact.blocked) {
            return Err(QuarantineReason::Blocked);
        }
        let session = self.sessions.get(&header.commitment).ok_or(QuarantineReason::OtherKey)?;
        let window = match self.channels.get(&header.commitment) {
            Some(Channel::Receiving { account: owner, window }) if *owner == account => window.clone(),
            None => ReplayWindow::default(),
            // The key that this device itself seals with, sent back to it (HR-06), or another account's.
            Some(_) => return Err(QuarantineReason::OtherKey),
        };
        let opened = session.open(envelope, body).map_err(|error| match error {
            OpenError::Malformed => QuarantineReason::Malformed,
            OpenError::OtherKey => QuarantineReason::OtherKey,
            OpenError::Rejected => QuarantineReason::Rejected,
        })?;
        let content = Content::decode(&opened).map_err(|_| QuarantineReason::BadContent)?;
        if window.is_too_old(header.counter) {
            return self.take_late(account, &opened, content);
        }
        if !window.is_new(header.counter) {
            return self.take_repeated(turn, account, at, header, &opened, content);
        }
        let gap = window.gap_before(header.counter);
        self.take_content(turn, account, at, seen_now(turn, header), &opened, content)?;
        self.mark_seen(turn, account, header, window);
        if gap > 0 {
            turn.event(Event::Gap { account, missing: gap });
        }
        Ok(())
    }

    /// A counter that was seen, in an envelope that opens: a replay, whose content is known, or a message of a sender
    /// whose store was put back unnoticed and counts again. The first is a duplicate, the second is shown: content ids
    /// are remembered at least as long as the window reaches. What only contacts may say is not taken twice.
    fn take_repeated(
        &mut self,
        turn: &mut Turn<'_>,
        account: AccountId,
        at: Time,
        header: &Header,
        bytes: &[u8],
        content: Content,
    ) -> Result<(), QuarantineReason> {
        match content.part {
            Part::Text(_) | Part::Bytes { .. } | Part::Other { .. } => {
                self.take_content(turn, account, at, seen_now(turn, header), bytes, content)
            }
            Part::Status(_) | Part::Presence(_) | Part::Leave | Part::Missed { .. } => Ok(()),
        }
    }

    /// Authentic, and too far behind the newest counter to tell a replay by it. Whether it was shown, its content id
    /// tells while that is remembered; else it is not shown, and the person is told.
    fn take_late(&self, account: AccountId, bytes: &[u8], content: Content) -> Result<(), QuarantineReason> {
        let is_seen = || self.seen.contains_key(&content_id(one_to_one(self.log.id(), account), account, bytes));
        match content.part {
            Part::Text(_) | Part::Bytes { .. } | Part::Other { .. } if !is_seen() => Err(QuarantineReason::TooLate),
            _ => Ok(()),
        }
    }

    fn mark_seen(&mut self, turn: &mut Turn<'_>, account: AccountId, header: &Header, mut window: ReplayWindow) {
        window.mark(header.counter);
        let channel = Channel::Receiving { account, window };
        turn.put(Table::Channel, header.commitment.0, record::encode(&channel.to_record()));
        self.channels.insert(header.commitment, channel);
    }

    /// What a person said to this account alone.
    pub(crate) fn take_content(
        &mut self,
        turn: &mut Turn<'_>,
        account: AccountId,
        at: Time,
        seen: SeenRecord,
        bytes: &[u8],
        content: Content,
    ) -> Result<(), QuarantineReason> {
        let Some(contact) = self.contacts.get_mut(&account) else { return Err(QuarantineReason::UnknownSender) };
        match &content.part {
            Part::Text(_) | Part::Bytes { .. } | Part::Other { .. } => {
                let id = content_id(one_to_one(self.log.id(), account), account, bytes);
                return self.take_message(turn, account, at, seen, id, bytes, content);
            }
            Part::Status(statuses) if contact.is_accepted() => {
                for (id, status) in statuses.clone() {
                    self.receipt(turn, account, id, status);
                }
            }
            // A stranger's token is kept with the request, and not shown to the relay before it is accepted.
            Part::Presence(token) if contact.is_accepted() || contact.waiting > 0 => {
                contact.token = *token;
                self.save_contact(turn, account);
                self.watch(turn);
            }
            Part::Status(_) | Part::Presence(_) => return Err(QuarantineReason::NotAccepted),
            Part::Leave | Part::Missed { .. } => {}
        }
        Ok(())
    }

    /// What somebody said in a group. Nobody is told that it came.
    #[expect(clippy::too_many_arguments, reason = "a message, with what is known of it")]
    pub(crate) fn take_group_message(
        &mut self,
        turn: &mut Turn<'_>,
        group: ConversationId,
        from: AccountId,
        at: Time,
        seen: SeenRecord,
        id: ContentId,
        bytes: &[u8],
        content: Content,
    ) {
        if self.seen.insert(id, seen).is_none() {
            turn.put(Table::Seen, id.0, record::encode(&seen));
            self.show(turn, Some(group), from, at, id, bytes, content, false);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a message, with what is known of it")]
    fn take_message(
        &mut self,
        turn: &mut Turn<'_>,
        account: AccountId,
        at: Time,
        seen: SeenRecord,
        id: ContentId,
        bytes: &[u8],
        content: Content,
    ) -> Result<(), QuarantineReason> {
        let Some(contact) = self.contacts.get_mut(&account) else { return Err(QuarantineReason::UnknownSender) };
        let request = contact.standing == Standing::Stranger;
        if !self.seen.contains_key(&id) {
            if request && contact.waiting as usize >= REQUEST_MESSAGES_MAX {
                return Err(QuarantineReason::NotAccepted);
            }
            if request {
                contact.waiting += 1;
                self.save_contact(turn, account);
            }
            self.seen.insert(id, seen);
            turn.put(Table::Seen, id.0, record::encode(&seen));
            self.show(turn, None, account, at, id, bytes, content, request);
        }
        // Also for a duplicate: its sender did not get the first receipt.
        self.owe_receipt(turn, account, id, Status::Delivered);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "a message, with what is known of it")]
    fn show(
        &mut self,
        turn: &mut Turn<'_>,
        group: Option<ConversationId>,
        from: AccountId,
        at: Time,
        id: ContentId,
        bytes: &[u8],
        content: Content,
        request: bool,
    ) {
        let number = self.take_number(turn);
        let record = MessageRecord { incoming: 1, from: group.map(|_| from), id: Some(id), at, content: bytes.into() };
        let talk = group.map_or(Talk::Person(from), Talk::Group);
        turn.put(Table::Message, record::message_key(talk, number), record::encode(&record));
        let handle = self.handle_of(from);
        let unshown = UnshownRecord {
            from,
            group,
            handle: handle.as_ref().map(|handle| Text::new(&handle.to_string())),
            request: u8::from(request),
            id,
            at,
            content: bytes.into(),
        };
        turn.put(Table::Unshown, number.to_be_bytes(), record::encode(&unshown));
        let message = Incoming { number, from, group, handle, id, content, at };
        turn.event(if request {
            Event::Request(RequestView { message, safety_number: SafetyNumber::of(self.log.id(), from) })
        } else {
            Event::Message(message)
        });
    }

    // Held: what an envelope needs is not there yet.

    fn hold(&mut self, turn: &mut Turn<'_>, position: Position, at: Time, hint: DeviceHint, bytes: &[u8]) {
        let number = self.held.last_key_value().map_or(0, |(last, _)| last + 1);
        let held = HeldRecord { position, hint, at, entry: bytes.into() };
        turn.put(Table::Held, number.to_be_bytes(), record::encode(&held));
        self.held.insert(number, held);
    }

    /// Asks for the senders of what is held, the oldest first, as far as there is room.
    pub(crate) fn ask_for_held(&mut self, turn: &mut Turn<'_>) {
        if self.held.is_empty() || !self.link.has_room_to_ask_for_sender() {
            return;
        }
        let mut asked: BTreeSet<_> = BTreeSet::new();
        let hints: Vec<_> = self.held.values().map(|held| held.hint).filter(|hint| asked.insert(*hint)).collect();
        for hint in hints {
            if !self.link.has_room_to_ask_for_sender() {
                break;
            }
            self.ask_for_sender(turn, hint);
        }
    }

    fn take_held(&mut self, turn: &mut Turn<'_>, hint: DeviceHint) -> Vec<HeldRecord> {
        let taken: Vec<_> = self.held.extract_if(.., |_, held| held.hint == hint).collect();
        taken.iter().for_each(|(number, _)| turn.delete(Table::Held, number.to_be_bytes()));
        if self.link.overflowed && self.held.len() <= HELD_MAX / 2 {
            // What did not fit was not acknowledged; a new connection brings it again. Not for every place that is free:
            // that would be a connection for each envelope of a flood.
            self.hang_up(turn);
        }
        taken.into_iter().map(|(_, held)| held).collect()
    }

    /// The sender is known now: opens what was held, in order. Whether anything of it was authentic.
    pub(crate) fn open_held(&mut self, turn: &mut Turn<'_>, hint: DeviceHint, account: AccountId) -> bool {
        let mut opened = false;
        for held in self.take_held(turn, hint) {
            let bytes = held.entry.as_slice();
            let Ok(Entry { envelope, body: Body::Inline(body), .. }) = Entry::decode(bytes) else { continue };
            let Ok(header) = Header::parse(&body) else { continue };
            self.open(turn, account, held.position, held.at, envelope, &header, bytes, &body, true);
            opened |= self.channels.contains_key(&header.commitment);
        }
        opened
    }

    pub(crate) fn reject_held(&mut self, turn: &mut Turn<'_>, hint: DeviceHint, reason: QuarantineReason) {
        for held in self.take_held(turn, hint) {
            let envelope = Entry::decode(held.entry.as_slice()).ok().map(|entry| entry.envelope);
            self.quarantine(turn, None, held.position, envelope, reason, held.entry.as_slice());
        }
    }

    /// Keeps what is known of an entry that was rejected, of the inbox or of a conversation's log.
    pub(crate) fn quarantine(
        &mut self,
        turn: &mut Turn<'_>,
        conversation: Option<ConversationId>,
        position: Position,
        envelope: Option<EnvelopeId>,
        reason: QuarantineReason,
        bytes: &[u8],
    ) {
        let hash = blob_hash(bytes).0;
        let record = QuarantineRecord { conversation, position, reason: reason as u8, envelope, at: turn.now, hash };
        let slot = self.progress.rejected % QUARANTINE_MAX;
        self.progress.rejected += 1;
        self.save_progress(turn);
        turn.put(Table::Quarantine, slot.to_be_bytes(), record::encode(&record));
        turn.event(Event::Quarantined { envelope, reason });
    }
}

fn seen_now(turn: &Turn<'_>, header: &Header) -> SeenRecord {
    SeenRecord { at: turn.now, commitment: header.commitment.0, counter: header.counter }
}
