//! Reading a conversation's log: in order, gapless, each entry once (L2, L3). Every entry moves the cursor, and what it is
//! worth is the same for all members (C2).

use std::collections::BTreeSet;

use sealwire_keys::{chain_step, content_id};
use sealwire_session::mls::{Applied, InvalidCommit, Member, Opened, OpenedError};
use sealwire_wire::content::{Content, Part};
use sealwire_wire::conversation::{ConversationKind, GroupData};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{Delivered, ToRelay};
use sealwire_wire::limits::UNACKNOWLEDGED_MAX;
use sealwire_wire::{AccountId, Chain, ConversationId, LogId, Position, Time};

use super::{Attachment, Conversation, Want, desk, healing};
use crate::connection::is_due;
use crate::engine::Engine;
use crate::event::{Event, QuarantineReason, UnsentReason};
use crate::record::{self, SeenRecord, Table, Talk};
use crate::step::Turn;

/// Entries that wait to be read: what a relay delivers ahead of an acknowledgement, and what may come twice.
const BACKLOG_MAX: usize = 2 * UNACKNOWLEDGED_MAX;
/// After a change of direction this long, own keys are replaced (C11): 15 minutes.
const DIRECTION_MS: u64 = 15 * 60 * 1_000;
/// Whoever asked to leave is removed by the member of the lowest leaf; the next one waits this much longer.
const LEAVE_STEP_MS: u64 = 5_000;

impl Engine {
    /// The log is attached: where the relay says that this device stands in it.
    pub(crate) fn attached(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        read_upto: Position,
        chain: Option<Chain>,
        newest_commit: Position,
        length: Position,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.attachment = Attachment::Yes { length };
        conversation.told_newest = newest_commit;
        if read_upto > length {
            // A relay that contradicts itself: another connection may bring a better answer.
            return self.hang_up(turn);
        }
        self.say_again_what_is_gone(turn, id, length);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let doubted = std::mem::take(&mut conversation.doubted);
        let compared = |chain| Compared { doubted, began: read_upto, upto: read_upto, chain, agreed: None };
        conversation.compared = chain.map(compared);
        let (differs, lacks_commit) = (!conversation.agrees(), newest_commit < conversation.newest_commit);
        if doubted {
            self.save_conversation(turn, id);
        } else if differs {
            self.tell_contradiction(turn, id);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let is_other = differs && doubted;
        if length < conversation.cursor || lacks_commit || is_other {
            // The log is not what was read of it: the relay was restored from a backup, or had lied before. It is the only
            // one that counts its positions; content ids recognise what comes again (L11).
            conversation.missed_behind = conversation.missed_behind.map(|behind| behind.min(length));
            conversation.reads_another_behind(read_upto, chain.unwrap_or(conversation.chain));
            self.save_conversation(turn, id);
            if lacks_commit || is_other {
                self.fall_behind(turn, id);
            }
            return self.read_backlog(turn, id);
        }
        let begun = conversation.is_about_to_begin();
        let begins =
            conversation.cursor == Position::START && (conversation.seeks || begun || conversation.group.is_none());
        if begins && read_upto > Position::START {
            // Where reading begins is the relay's word, until a member's message that names a later position proves it
            // (L5).
            conversation.note_chain(read_upto, chain.unwrap_or(conversation.chain));
            let is_later = conversation.joined_by.is_some() && newest_commit < read_upto;
            if conversation.group.is_none() || begun || is_later {
                // All that a newer store has read, this one has not.
                conversation.missed_behind = Some(Position::START);
            }
            self.save_conversation(turn, id);
            if begun || is_later {
                // What this device is about to begin, a newer store of it has begun, and read. Or where it has joined: who
                // joins reads on from the commit that adds it, or from before it.
                self.fall_behind(turn, id);
            }
        } else if read_upto > conversation.cursor {
            // A newer store of this device has read on, and acknowledged: what it read is not delivered again, and what it
            // sealed is not to be sealed with again (N3).
            conversation.must_update = true;
            self.miss(turn, id, read_upto, chain, newest_commit);
        }
        self.read_backlog(turn, id);
    }

    /// Entries are gone that this device has not read. Where a commit is among them, it cannot follow any more.
    pub(crate) fn miss(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        upto: Position,
        chain: Option<Chain>,
        newest_commit: Position,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| upto > c.cursor) else { return };
        let lost_commit = newest_commit > conversation.newest_commit && newest_commit <= upto;
        conversation.missed = true;
        conversation.missed_behind.get_or_insert(conversation.cursor);
        conversation.chains.clear();
        conversation.note_chain(upto, chain.unwrap_or(conversation.chain));
        self.save_conversation(turn, id);
        if lost_commit {
            self.fall_behind(turn, id);
        }
        self.ask_for_missed(turn, id);
    }

    /// Entries of a conversation's log, in order.
    pub(crate) fn deliver_conversation(&mut self, turn: &mut Turn<'_>, id: ConversationId, entries: Vec<Delivered>) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if conversation.removed || conversation.attachment == Attachment::No {
            return;
        }
        conversation.backlog.extend(entries);
        if conversation.backlog.len() > BACKLOG_MAX {
            // More than a relay delivers ahead of an acknowledgement.
            return self.hang_up(turn);
        }
        self.link.useful = true;
        self.read_backlog(turn, id);
        self.look_on(turn, id);
    }

    /// The relay says that entries up to there are gone.
    pub(crate) fn trimmed(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        position: Position,
        chain: Option<Chain>,
    ) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        // Whether a commit was among them, the next entry says: it names the newest one.
        let newest = conversation.newest_commit;
        self.miss(turn, id, position, chain, newest);
    }

    pub(super) fn read_backlog(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let before = self.conversations.get(&id).map(|conversation| conversation.cursor);
        let mut repeated = None;
        while let Some(conversation) = self.conversations.get_mut(&id) {
            // Without a group that can follow there is nothing to read with: a Welcome may be on its way.
            let can_read = conversation.is_active() || conversation.removed;
            if !matches!(conversation.attachment, Attachment::Yes { .. }) || !can_read {
                break;
            }
            let Some(next) = conversation.backlog.pop_front() else { break };
            if next.position <= conversation.cursor {
                // An acknowledgement was lost. Or it is another log, of a relay that was restored and has grown again (L11).
                repeated = Some(next.position);
                if !conversation.compare(&next) {
                    self.say_again_what_was_replaced(turn, id, next.position, &next.entry);
                    let Some(conversation) = self.conversations.get_mut(&id) else { break };
                    match conversation.compared.is_some_and(|compared| compared.doubted) {
                        true => self.read_another_log(turn, id, next),
                        false => self.tell_contradiction(turn, id),
                    }
                }
                continue;
            }
            if next.position > conversation.cursor.next() {
                // A frame was lost on the way: fetch again.
                return self.hang_up(turn);
            }
            self.say_again_what_was_replaced(turn, id, next.position, &next.entry);
            self.read_entry(turn, id, &next);
            if let Some(conversation) = self.conversations.get_mut(&id)
                && conversation.group.is_none()
                && !conversation.removed
            {
                // Read again with the group that their Welcome brings.
                conversation.backlog.push_front(next);
                break;
            }
        }
        self.stop_seeking(turn, id);
        self.ask_for_missed(turn, id);
        self.notice_drop(turn, id);
        let Some(conversation) = self.conversations.get(&id) else { return };
        if before != Some(conversation.cursor) {
            turn.send(ToRelay::Ack { log: LogId::Conversation(id), upto: conversation.cursor });
            self.save_conversation(turn, id);
        } else if let Some(upto) = repeated {
            // Or the relay delivers a window of what was read, and waits.
            turn.send(ToRelay::Ack { log: LogId::Conversation(id), upto });
        }
    }

    /// C6: the relay routes nothing to this device any more, and no commit that it could read says so. It can write nothing
    /// there; better told than waiting for ever.
    fn notice_drop(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        let Attachment::Yes { length } = conversation.attachment else { return };
        let has_read_all = conversation.backlog.is_empty() && conversation.cursor >= length && !conversation.seeks;
        if conversation.is_active() && has_read_all && conversation.told_roster.is_none() {
            self.is_out(turn, id);
        }
    }

    /// L5: what is delivered again is not what was read, of a relay that says of itself that it is the same. What was read
    /// stands, and what this device says names it.
    fn tell_contradiction(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.compared = None;
            turn.event(Event::OrderContradicted { conversation: id, by: self.log.id() });
        }
    }

    /// What stands where something else was read. Reading goes back to there, and on if the newest commit is the same.
    fn read_another_log(&mut self, turn: &mut Turn<'_>, id: ConversationId, next: Delivered) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let Some(Compared { began, upto, chain, agreed, .. }) = conversation.compared.take() else { return };
        // Where both part is only known to be behind what agreed: what came in between was acknowledged, and not read.
        let parts_behind = agreed.unwrap_or(began).min(upto);
        let has_commit = agreed.is_some_and(|agreed| agreed >= conversation.newest_commit);
        let missed_behind = conversation.missed_behind.map_or(parts_behind, |behind| behind.min(parts_behind));
        conversation.missed_behind = Some(missed_behind);
        conversation.reads_another_behind(upto, chain);
        conversation.backlog.push_front(next);
        self.save_conversation(turn, id);
        if !has_commit {
            self.fall_behind(turn, id);
        }
    }

    /// Everything that stood in the log when this device joined was read, and the commit that added it was not there: it
    /// came before what this device may read.
    fn stop_seeking(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.seeks && c.pending.is_none()) else {
            return;
        };
        let Attachment::Yes { length } = conversation.attachment else { return };
        if !conversation.is_active() || !conversation.backlog.is_empty() || conversation.cursor < length {
            return;
        }
        if conversation.missed {
            // What came since is of another epoch: later than the one that it has joined (seed 70708).
            return self.fall_behind(turn, id);
        }
        (conversation.seeks, conversation.newest_commit) = (false, conversation.told_newest);
        conversation.unproven = true;
        self.save_conversation(turn, id);
    }

    fn read_entry(&mut self, turn: &mut Turn<'_>, id: ConversationId, delivered: &Delivered) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let Delivered { position, entry: bytes, at } = delivered;
        let before = conversation.place();
        conversation.note_chain(*position, chain_step(before.chain, *position, bytes));
        let Ok(entry) = Entry::decode(bytes) else {
            return self.quarantine(turn, Some(id), *position, None, QuarantineReason::Malformed, bytes);
        };
        if let Err(reason) = self.take_entry(turn, id, *position, *at, &entry, bytes) {
            self.quarantine(turn, Some(id), *position, Some(entry.envelope), reason, bytes);
        }
    }

    fn take_entry(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        position: Position,
        at: Time,
        entry: &Entry,
        bytes: &[u8],
    ) -> Result<(), QuarantineReason> {
        let Some(conversation) = self.conversations.get_mut(&id) else { return Ok(()) };
        if !conversation.is_active() {
            return Ok(());
        }
        if conversation.seeks && !self.finds_start(turn, id, position, entry, bytes) {
            return Ok(());
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return Ok(()) };
        if conversation.own_leaves.contains(&entry.envelope) {
            self.note_leave(turn, id, self.log.id());
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return Ok(()) };
        // The relay appends what names the newest commit, and nothing else. A later one than this device knows of was
        // missed; an earlier one was the newest for nobody (L1, L2).
        let after = entry.after.unwrap_or(conversation.newest_commit);
        if after > conversation.newest_commit {
            self.fall_behind(turn, id);
            return Ok(());
        }
        let is_in_order = after == conversation.newest_commit;
        if entry.kind == EntryKind::Commit && !is_in_order && conversation.missed {
            // Behind a relay that was restored: this log is not the one that was read, or not as far as it was.
            self.fall_behind(turn, id);
            return Ok(());
        }
        match (entry.kind, &entry.body) {
            (EntryKind::Commit, body) => {
                let outcome = match body {
                    _ if !is_in_order => Err(QuarantineReason::OutOfOrder),
                    Body::Inline(body) => self.take_commit(turn, id, entry, body, bytes),
                    Body::Blob(_) => Err(QuarantineReason::InvalidCommit),
                };
                // Valid or not, it is the newest one now, and what names an earlier one is stale (L4).
                self.commit_was_read(turn, id, position);
                outcome
            }
            (EntryKind::Message, _) if !is_in_order => Err(QuarantineReason::OutOfOrder),
            (EntryKind::Message, _) if self.is_own(entry, bytes) => {
                self.own_was_read(turn, entry.envelope, position);
                Ok(())
            }
            (EntryKind::Message, Body::Inline(body)) => self.take_sealed(turn, id, position, at, body),
            (EntryKind::Readd, _) => self.take_readd(turn, id, entry, bytes),
            _ => Err(QuarantineReason::Unsupported),
        }
    }

    /// A device that has joined reads what comes before its own commit without a use for it. The commit itself ends that;
    /// or what opens in the epoch that it joined, where the commit stood before what it may read. Whether this entry is to
    /// be read like any other.
    fn finds_start(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        position: Position,
        entry: &Entry,
        bytes: &[u8],
    ) -> bool {
        let Some(conversation) = self.conversations.get_mut(&id) else { return false };
        if conversation.pending.as_ref().is_some_and(|own| own.is_read(entry, bytes)) {
            // The commit with which this device has begun it anew.
            conversation.seeks = false;
            let _merged = self.merge_own(turn, id);
            self.commit_was_read(turn, id, position);
            return false;
        }
        if conversation.joined_by == Some(entry.envelope) && entry.kind == EntryKind::Commit {
            (conversation.seeks, conversation.newest_commit) = (false, position);
            conversation.missed = false;
            return false;
        }
        let (Some(group), Body::Inline(body)) = (&mut conversation.group, &entry.body) else { return false };
        let opens = match entry.kind {
            EntryKind::Commit => !matches!(
                group.judge(&mut desk!(self, turn), entry.envelope, body, &BTreeSet::new()),
                Err(InvalidCommit::Malformed)
            ),
            EntryKind::Message => group.is_in_epoch(body),
            _ => false,
        };
        match (opens, entry.kind) {
            (true, _) => (conversation.seeks, conversation.newest_commit) = (false, entry.after.unwrap_or(position)),
            (false, EntryKind::Commit | EntryKind::Message) => conversation.missed = true,
            (false, _) => {}
        }
        opens
    }

    fn commit_was_read(&mut self, turn: &mut Turn<'_>, id: ConversationId, position: Position) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.newest_commit = position;
            (conversation.missed, conversation.rewritten) = (false, false);
            conversation.asking.clear();
            conversation.leaving.clear();
            conversation.leave_due = None;
            let has_asked = !std::mem::take(&mut conversation.own_leaves).is_empty();
            if conversation.wants_out && has_asked && conversation.is_active() {
                // Asked again: nobody has done it (C5).
                self.ask_to_leave(turn, id);
            }
        }
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.chains = conversation.chains.split_off(&position);
        }
        self.drop_pending(turn, id);
        self.unseal_stale(turn, id);
    }

    fn take_commit(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        entry: &Entry,
        body: &[u8],
        bytes: &[u8],
    ) -> Result<(), QuarantineReason> {
        let is_left_alone = self.is_left_alone(id);
        let Some(conversation) = self.conversations.get_mut(&id) else { return Ok(()) };
        let Some(group) = &mut conversation.group else { return Ok(()) };
        if conversation.pending.as_ref().is_some_and(|own| own.is_read(entry, bytes)) {
            return self.merge_own(turn, id);
        }
        if conversation.pending.as_ref().is_some_and(|own| own.creates) {
            // Somebody else began this conversation first; this device reads on when their Welcome is there (C8).
            return self.lose_creation(turn, id);
        }
        let before = group.data().clone();
        let judged = group.judge(&mut desk!(self, turn), entry.envelope, body, &conversation.leaving);
        let applied = match judged {
            Ok(judged) => group.apply(&mut desk!(self, turn), judged).map_err(|_| QuarantineReason::InvalidCommit)?,
            Err(InvalidCommit::Unprocessable) => {
                // C4: valid for the others, as far as can be seen.
                self.fall_behind(turn, id);
                return Ok(());
            }
            Err(InvalidCommit::Malformed) if conversation.unproven || is_left_alone => {
                // It is another epoch that is in force, or another generation.
                self.fall_behind(turn, id);
                return Ok(());
            }
            Err(InvalidCommit::Authority) if conversation.missed => {
                // What entitled its author may have been among the messages that this device has missed (C5).
                self.fall_behind(turn, id);
                return Ok(());
            }
            Err(_) => return Err(QuarantineReason::InvalidCommit),
        };
        (conversation.provisional, conversation.unproven) = (false, false);
        self.check_place(turn, id, applied.author.account, applied.place.position, applied.place.chain);
        let of_members = applied.added.iter().chain(&applied.removed).map(|member| member.account).collect();
        self.take_evidence(turn, &applied.evidence, &of_members);
        self.tell_applied(turn, id, &applied);
        self.tell_renamed(turn, id, applied.author.account, &before);
        let added: Vec<_> = applied.added.iter().map(|member| member.device).collect();
        self.note_readded(turn, id, &added);
        self.forget_strangers_readds(turn, id);
        if applied.removes_self && added.contains(&self.secrets.device_id()) {
            // An answer to a request of this device, though it is in: its Welcome leads back. Whoever asked again before it
            // comes would be answered again, and so on.
            self.fall_behind(turn, id);
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.readd_again = Some(turn.now.plus(healing::WELCOME_MS));
            }
        } else if applied.removes_self {
            self.was_removed(turn, id, applied.author.account);
        }
        Ok(())
    }

    /// Accounts that have their first leaf, or have lost their last one.
    fn tell_applied(&mut self, turn: &mut Turn<'_>, id: ConversationId, applied: &Applied) {
        let by = applied.author.account;
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let Some(group) = &conversation.group else { return };
        let present: Vec<_> = group.members().iter().map(|member| member.account).collect();
        let mut removed: Vec<_> = applied.removed.iter().map(|member| member.account).collect();
        removed.retain(|account| !present.contains(account));
        removed.dedup();
        // Whoever had a device in it already, or comes back, was there before.
        let of = |members: &[Member], account| members.iter().filter(|member| member.account == account).count();
        let was_there =
            |account| of(&applied.removed, account) > 0 || of(group.members(), account) > of(&applied.added, account);
        let mut added: Vec<_> = applied.added.iter().map(|member| member.account).collect();
        added.retain(|account| !was_there(*account));
        added.dedup();
        if !added.is_empty() {
            conversation.grown_at = conversation.cursor;
            self.keep_from_newcomers(turn, id);
        }
        if !added.is_empty() || !removed.is_empty() {
            turn.event(Event::Members { conversation: id, by, added, removed });
        }
    }

    /// Who is what changes with the members, too; that is told as such.
    pub(super) fn tell_renamed(&self, turn: &mut Turn<'_>, id: ConversationId, by: AccountId, before: &GroupData) {
        let Some(group) = self.conversations.get(&id).and_then(|conversation| conversation.group.as_ref()) else {
            return;
        };
        let (now, is_member) = (group.data(), |account| group.members().iter().any(|member| member.account == account));
        let roles =
            |data: &GroupData| data.roles.iter().copied().filter(|(who, _)| is_member(*who)).collect::<Vec<_>>();
        if now.name != before.name || roles(now) != roles(before) {
            turn.event(Event::Renamed { conversation: id, by, name: now.name.clone() });
        }
    }

    fn was_removed(&mut self, turn: &mut Turn<'_>, id: ConversationId, by: AccountId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.removed = true;
        conversation.wants.clear();
        conversation.pending = None;
        if let Some(group) = conversation.group.take() {
            group.delete(&mut self.mls);
        }
        self.save_intent(turn, id);
        self.fail_in_conversation(turn, id, UnsentReason::NoMember);
        turn.event(Event::Removed { conversation: id, by });
    }

    fn take_sealed(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        position: Position,
        at: Time,
        body: &[u8],
    ) -> Result<(), QuarantineReason> {
        let Some(conversation) = self.conversations.get_mut(&id) else { return Ok(()) };
        let Some(group) = &mut conversation.group else { return Ok(()) };
        let opened = match group.open(&mut desk!(self, turn), body) {
            Ok(opened) => opened,
            Err(OpenedError::Own) => {
                // A newer store of this device has sealed it: what this one would seal with next may have been used (N3).
                // It may have said that this device leaves, too (C5).
                (conversation.must_update, conversation.missed) = (true, true);
                return Ok(());
            }
            Err(_) if conversation.unproven => {
                self.fall_behind(turn, id);
                return Ok(());
            }
            Err(OpenedError::Malformed) => return Err(QuarantineReason::Malformed),
            Err(OpenedError::OtherEpoch) => return Err(QuarantineReason::OtherEpoch),
            Err(OpenedError::Rejected) => return Err(QuarantineReason::Rejected),
        };
        if conversation.sealed > 0 && conversation.update_due.is_none() {
            conversation.update_due = Some(turn.now.plus(DIRECTION_MS));
        }
        let Opened { author, place, plaintext } = opened;
        (conversation.provisional, conversation.unproven) = (false, false);
        if place.position >= position {
            return Err(QuarantineReason::OutOfOrder);
        }
        self.check_place(turn, id, author.account, place.position, place.chain);
        let content = Content::decode(&plaintext).map_err(|_| QuarantineReason::BadContent)?;
        if content.part == Part::Leave {
            // Of whomever: what it entitles to is the same for all members (C2).
            self.note_leave(turn, id, author.account);
        }
        let is_blocked = self.contacts.get(&author.account).is_some_and(|contact| contact.blocked);
        if let Part::Missed { first, last } = content.part {
            // A block splits no group.
            if !is_blocked || self.conversations.get(&id).is_some_and(|c| c.kind == ConversationKind::Group) {
                self.say_again(turn, id, first, last);
            }
            return Ok(());
        }
        if is_blocked {
            return Err(QuarantineReason::Blocked);
        }
        self.take_said(turn, id, author.account, at, &plaintext, content)
    }

    fn take_said(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        author: AccountId,
        at: Time,
        bytes: &[u8],
        content: Content,
    ) -> Result<(), QuarantineReason> {
        let Some(conversation) = self.conversations.get_mut(&id) else { return Ok(()) };
        let seen = SeenRecord { at: turn.now, commitment: [0; 32], counter: 0 };
        if author == self.log.id() {
            self.take_said_elsewhere(turn, id, at, bytes, content);
            return Ok(());
        }
        match (conversation.kind, &content.part) {
            (ConversationKind::OneToOne, _) => self.take_content(turn, author, at, seen, bytes, content),
            (ConversationKind::Group, Part::Text(_) | Part::Bytes { .. } | Part::Other { .. }) => {
                let content_id = content_id(id, author, bytes);
                self.take_group_message(turn, id, author, at, seen, content_id, bytes, content);
                Ok(())
            }
            (ConversationKind::Group, _) => Ok(()),
        }
    }

    /// What another device of this account has said. Whoever it was said to is accepted.
    fn take_said_elsewhere(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        at: Time,
        bytes: &[u8],
        content: Content,
    ) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        if !matches!(content.part, Part::Text(_) | Part::Bytes { .. } | Part::Other { .. }) {
            return;
        }
        let with = (conversation.kind == ConversationKind::OneToOne).then_some(conversation.peer).flatten();
        let content_id = content_id(id, self.log.id(), bytes);
        let seen = SeenRecord { at: turn.now, commitment: [0; 32], counter: 0 };
        if self.is_in_outbox(content_id) || self.seen.insert(content_id, seen).is_some() {
            return;
        }
        turn.put(Table::Seen, content_id.0, record::encode(&seen));
        if let Some(account) = with {
            let _done = self.accept(turn, account);
        }
        let number = self.put_said_elsewhere(turn, with.map_or(Talk::Group(id), Talk::Person), content_id, at, bytes);
        turn.event(Event::SaidElsewhere { number, conversation: id, with, id: content_id, content, at });
    }

    /// C5: until the next commit, any member may remove who asked for it. The lowest leaf does; the others wait, each a
    /// little longer, so that it is done whoever is away.
    fn note_leave(&mut self, turn: &mut Turn<'_>, id: ConversationId, author: AccountId) {
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.kind == ConversationKind::Group) else {
            return;
        };
        conversation.leaving.insert(author);
        let rank = conversation.rank_among(|member| member.account != author);
        conversation.leave_due = Some(turn.now.plus(rank * LEAVE_STEP_MS));
    }

    /// L5: what a member has read is what came here, as far back as the newest commit.
    fn check_place(&self, turn: &mut Turn<'_>, id: ConversationId, by: AccountId, position: Position, chain: Chain) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        if conversation.chains.get(&position).is_some_and(|own| *own != chain) {
            turn.event(Event::OrderContradicted { conversation: id, by });
        }
    }

    /// Whoever asked to leave, and keys that are due.
    pub(super) fn want_what_is_due(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let own = self.log.id();
        let is_stranger = |account| self.contacts.get(&account).is_none_or(|contact| !contact.is_accepted());
        let waits = self.conversations.get(&id).is_some_and(|conversation| conversation.peer.is_some_and(is_stranger));
        let (missing, revoked) = (self.missing_devices(id), self.revoked_leaves(id));
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.is_caught_up()) else { return };
        let is_wanted = |want: Want| conversation.wants.contains(&want);
        let has_to_do = missing.iter().any(|device| !is_wanted(Want::AddDevice(*device)))
            || revoked.iter().any(|device| !is_wanted(Want::DropDevice(*device)));
        // A person's own devices see to each other before anybody else does.
        let is_own = !missing.is_empty() || revoked.iter().any(|device| self.log.is_revoked(*device));
        let rank = conversation.rank_among(|member| {
            let takes_turns = !is_own || member.account == own;
            takes_turns && !revoked.contains(&member.device)
        });
        let before = conversation.wants.len();
        if conversation.leave_due.is_some_and(|due| turn.now >= due) {
            conversation.leave_due = None;
            // Not itself: nobody removes their own leaf, and any other commit of theirs would void the request (C5).
            let leaving: Vec<_> = conversation.leaving.iter().copied().filter(|account| *account != own).collect();
            leaving.into_iter().for_each(|account| conversation.wants(Want::Remove(account)));
        }
        if conversation.readds_are_due(turn.now) {
            let devices: Vec<_> = conversation.readds.keys().copied().collect();
            devices.into_iter().for_each(|device| conversation.wants(Want::Readmit(device)));
        }
        if conversation.devices_due.is_some_and(|due| turn.now >= due) {
            conversation.devices_due = None;
            missing.into_iter().for_each(|device| conversation.wants(Want::AddDevice(device)));
            revoked.into_iter().for_each(|device| conversation.wants(Want::DropDevice(device)));
        } else if conversation.devices_due.is_none() && has_to_do {
            conversation.devices_due = Some(turn.now.plus(rank * LEAVE_STEP_MS));
        }
        if waits && !conversation.must_update {
            // Whoever is not accepted learns nothing by waiting (C9).
            conversation.put_off(turn.now);
        } else if conversation.is_update_due(turn.now) {
            conversation.wants(Want::Update);
        }
        if conversation.wants.len() != before {
            self.save_intent(turn, id);
        }
    }
}

/// Messages after which own keys are replaced (C11).
const UPDATE_AFTER_MESSAGES: u32 = 100;
/// Messages that are sealed at the most while the relay puts the commit off that replaces own keys: one that never takes it
/// does not keep a device on its keys for ever.
const UPDATE_WITHIN_MESSAGES: u32 = 1_000;
/// How long they last at the most: a day, and ten minutes for each device where that is more.
const UPDATE_AFTER_MS: u64 = sealwire_wire::limits::DAY_MS;
const UPDATE_AFTER_MS_PER_LEAF: u64 = 10 * 60 * 1_000;

/// What the relay delivers of a log that was read, up to where it was compared.
#[derive(Clone, Copy)]
pub(super) struct Compared {
    /// Whether the relay was restored since, so that another log is to be expected.
    pub(super) doubted: bool,
    pub(super) began: Position,
    pub(super) upto: Position,
    pub(super) chain: Chain,
    /// The last position at which the chain was known, and the same.
    pub(super) agreed: Option<Position>,
}

impl Conversation {
    /// Behind that position the log is another one than was read (L11).
    fn reads_another_behind(&mut self, upto: Position, chain: Chain) {
        self.chains.clear();
        self.note_chain(upto, chain);
        (self.missed, self.must_update, self.rewritten) = (true, true, true);
    }

    /// Whether the chain is what was read, where that is known.
    fn agrees(&mut self) -> bool {
        let Some(Compared { upto, chain, agreed, .. }) = &mut self.compared else { return true };
        let own = if *upto == self.cursor { Some(&self.chain) } else { self.chains.get(upto) };
        match own {
            Some(own) if own == chain => *agreed = Some(*upto),
            Some(_) => return false,
            None => {}
        }
        true
    }

    /// Whether an entry that comes again is the one that was read. The comparison stays in front of one that is not.
    fn compare(&mut self, delivered: &Delivered) -> bool {
        let Some(before) = self.compared.filter(|compared| delivered.position == compared.upto.next()) else {
            return true;
        };
        let chain = chain_step(before.chain, delivered.position, &delivered.entry);
        self.compared = Some(Compared { upto: delivered.position, chain, ..before });
        let agrees = self.agrees();
        if !agrees {
            self.compared = Some(before);
        }
        agrees
    }

    /// What is due, and is not done before the person decides, is looked at again later.
    fn put_off(&mut self, now: Time) {
        if self.update_due.is_some_and(|due| now >= due) {
            self.update_due = Some(now.plus(DIRECTION_MS));
        }
    }

    /// Whether messages may go before a commit that replaces own keys.
    pub(super) fn may_seal_unrenewed(&self) -> bool {
        self.sealed < UPDATE_WITHIN_MESSAGES
    }

    /// C11.
    fn is_update_due(&self, now: Time) -> bool {
        let leaves = self.group.as_ref().map_or(0, |group| group.members().len() as u64);
        let longest = UPDATE_AFTER_MS.max(leaves * UPDATE_AFTER_MS_PER_LEAF);
        self.must_update
            || self.sealed >= UPDATE_AFTER_MESSAGES
            || self.update_due.is_some_and(|due| is_due(due, now, DIRECTION_MS))
            || is_due(self.updated_at.plus(longest), now, 2 * longest)
    }
}
