//! Joining: Welcomes come into the inbox, with their bytes or with the hash of a blob that holds them (E7).

use std::collections::BTreeSet;

use sealwire_keys::{blob_hash, one_to_one};
use sealwire_session::mls::{Group, Joined, KeyPackageRef, welcomed};
use sealwire_wire::conversation::{ConversationKind, WelcomeBody};
use sealwire_wire::entry::Body;
use sealwire_wire::frame::ToRelay;
use sealwire_wire::limits::{BLOB_MAX, HELD_MAX};
use sealwire_wire::{AccountId, BlobHash, DeviceId, EnvelopeId, Position, Time};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use super::{Conversation, Lost, Want, desk};
use crate::connection::Asked;
use crate::contacts::Contact;
use crate::engine::Engine;
use crate::event::{Event, QuarantineReason};
use crate::record::{self, Table};
use crate::step::Turn;

/// A Welcome whose bytes are still to be fetched.
#[derive(Clone, Copy, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct WelcomeRecord {
    pub(crate) position: Position,
    pub(crate) at: Time,
    pub(crate) hash: BlobHash,
}

impl Engine {
    /// A Welcome in the inbox.
    pub(crate) fn receive_welcome(
        &mut self,
        turn: &mut Turn<'_>,
        position: Position,
        at: Time,
        envelope: EnvelopeId,
        body: Body,
    ) -> Result<(), QuarantineReason> {
        if !self.is_mls() {
            return Err(QuarantineReason::Unsupported);
        }
        match body {
            Body::Inline(bytes) => self.join(turn, &bytes),
            Body::Blob(_) if self.welcomes.len() >= HELD_MAX => Err(QuarantineReason::NotAccepted),
            Body::Blob(hash) => {
                let held = WelcomeRecord { position, at, hash };
                turn.put(Table::Welcome, envelope.0, record::encode(&held));
                self.welcomes.insert(envelope, held);
                Ok(())
            }
        }
    }

    /// Asks for what Welcomes name by its hash.
    pub(super) fn fetch_welcomes(&mut self, turn: &mut Turn<'_>) {
        let hashes: BTreeSet<_> = self.welcomes.values().map(|held| held.hash).collect();
        for hash in hashes {
            if self.link.has_room_to_ask() && !self.link.fetching.contains_key(&hash) {
                self.link.fetching.insert(hash, Vec::new());
                self.ask(turn, Asked::GetBlob(hash), |request| ToRelay::GetBlob { request, hash, offset: 0 });
            }
        }
    }

    /// A piece of a blob came.
    pub(crate) fn blob_piece(&mut self, turn: &mut Turn<'_>, hash: BlobHash, size: u64, offset: u64, bytes: &[u8]) {
        let Some(have) = self.link.fetching.get_mut(&hash) else { return };
        if offset != have.len() as u64 || size > BLOB_MAX || (bytes.is_empty() && size > 0) {
            // Not there yet, or not what was asked for: the next connection asks again.
            return;
        }
        have.extend_from_slice(bytes);
        if have.is_empty() || have.len() as u64 > size {
            return self.give_up_blob(turn, hash);
        }
        let offset = have.len() as u64;
        if offset < size {
            return self.ask(turn, Asked::GetBlob(hash), |request| ToRelay::GetBlob { request, hash, offset });
        }
        let whole = self.link.fetching.remove(&hash).unwrap_or_default();
        if blob_hash(&whole) != hash {
            return self.give_up_blob(turn, hash);
        }
        for (envelope, held) in self.take_welcomes(turn, hash) {
            if let Err(reason) = self.join(turn, &whole) {
                self.quarantine(turn, None, held.position, Some(envelope), reason, &whole);
            }
        }
    }

    /// The relay has no such blob, or another one under its name.
    fn give_up_blob(&mut self, turn: &mut Turn<'_>, hash: BlobHash) {
        for (envelope, held) in self.take_welcomes(turn, hash) {
            self.quarantine(turn, None, held.position, Some(envelope), QuarantineReason::BadWelcome, &hash.0);
        }
    }

    fn take_welcomes(&mut self, turn: &mut Turn<'_>, hash: BlobHash) -> Vec<(EnvelopeId, WelcomeRecord)> {
        let taken: Vec<_> = self.welcomes.extract_if(.., |_, held| held.hash == hash).collect();
        taken.iter().for_each(|(envelope, _)| turn.delete(Table::Welcome, envelope.0));
        taken
    }

    /// Joins by a Welcome. What this device had of that conversation gives way where it cannot be followed any more, or
    /// was only about to begin: the relay has taken the other one (C8).
    fn join(&mut self, turn: &mut Turn<'_>, bytes: &[u8]) -> Result<(), QuarantineReason> {
        let body = WelcomeBody::decode(bytes).map_err(|_| QuarantineReason::Malformed)?;
        let id = body.conversation;
        let stands = |conversation: &Conversation| {
            let is_begun = !conversation.is_about_to_begin();
            conversation.is_active() && is_begun && !conversation.provisional
        };
        let begins_too = |c: &Conversation| c.seeks && c.joined_by.is_none() && c.kind == ConversationKind::Group;
        if self.conversations.get(&id).is_some_and(begins_too) {
            // Another member was quicker to begin it anew.
            self.drop_pending(turn, id);
        }
        let known = self.conversations.get(&id);
        if known.is_some_and(|conversation| conversation.joined_by == Some(body.commit)) {
            // It comes again: an acknowledgement was lost.
            return Ok(());
        }
        let is_unproven = known.is_some_and(|c| (c.unproven || c.seeks) && c.joined_by.is_some() && c.is_active());
        if is_unproven && welcomed(&body.welcome).iter().any(|KeyPackageRef(key)| self.key_packages.contains_key(key)) {
            // Removed and added again since, while it was away: where it stands was the relay's word alone (seed 95079).
            self.fall_behind(turn, id);
        }
        let known = self.conversations.get(&id);
        // The other one of a conversation of two may begin it anew, as its next generation; else it stays as it is.
        let standing = known.filter(|conversation| stands(conversation));
        let generation = standing.map(|conversation| conversation.group.as_ref().map_or(0, |g| g.data().generation));
        if standing.is_some_and(|conversation| conversation.kind != ConversationKind::OneToOne) {
            return Err(QuarantineReason::BadWelcome);
        }
        // The new one may have the old one's name: it is the same group, at a later epoch. Which group that was, and who was
        // in it, is kept apart.
        let lost = self.conversations.get_mut(&id).filter(|conversation| conversation.behind);
        let lost = lost.and_then(|conversation| conversation.group.take());
        if let Some(lost) = lost {
            lost.delete(&mut self.mls);
            self.save_conversation(turn, id);
        }
        let joined = Group::join(&mut desk!(self, turn), self.own.suite, id, &body.welcome);
        if joined.is_err()
            && let Some(conversation) = self.conversations.get_mut(&id)
        {
            // The keys that it was made for are lost: the next request brings others.
            conversation.own_readd = None;
        }
        if joined.is_err() && !self.conversations.contains_key(&id) {
            // Made for a key package whose keys this store has lost, perhaps: where the relay says that this device is in that
            // conversation, it asks to be added again (seed 93250).
            self.own.lists_due = true;
            self.save_own(turn);
            self.list_logs(turn);
        }
        let joined = joined.map_err(|_| QuarantineReason::BadWelcome)?;
        let is_later = |joined: &Joined| generation.is_none_or(|before| joined.group.data().generation > before);
        let checked = match is_later(&joined) {
            true => self.check_joined(&joined),
            false => Err(QuarantineReason::BadWelcome),
        };
        if let Err(reason) = checked {
            joined.group.delete(&mut self.mls);
            return Err(reason);
        }
        let Joined { group, inviter, evidence } = joined;
        let of_members = group.members().iter().map(|member| member.account).collect();
        self.take_evidence(turn, &evidence, &of_members);
        let data = group.data().clone();
        // Also where another own device has added this one.
        let is_other = |account: &AccountId| *account != self.log.id();
        let other = group.members().iter().map(|member| member.account).find(is_other);
        let peer = other.filter(|_| data.kind == ConversationKind::OneToOne);
        let mut conversation = Conversation::new(id, data.kind, peer, turn.now);
        let (mut rejoins, mut asks_again, mut has_newcomers) = (false, false, false);
        if let Some(before) = self.conversations.remove(&id) {
            let last_generation = before.last_generation();
            if let Some(group) = before.group {
                group.delete(&mut self.mls);
            }
            let is_anew = data.generation > last_generation;
            rejoins = before.behind || is_anew;
            if !before.removed && before.kind == data.kind {
                // The person still wants out; whoever has read it has lost it by that commit (C5).
                conversation.wants_out = before.wants_out;
                asks_again = before.wants_out && !before.own_leaves.is_empty();
            }
            conversation.nonce = before.nonce;
            // What was said before is not for who came while this device was out.
            conversation.grown_at = before.grown_at.max(before.cursor);
            if !before.removed {
                conversation.asked_for = before.asked_for;
                if data.kind == ConversationKind::Group {
                    conversation.wants = before.wants.into_iter().filter(Want::is_of_person).collect();
                }
                conversation.missed_behind = before.missed_behind.filter(|_| before.behind);
                // Who came meanwhile is known only from here on.
                let is_known =
                    |account: &AccountId| before.lost.as_ref().is_some_and(|lost| lost.accounts().contains(account));
                let has_grown = data.kind == ConversationKind::Group && !of_members.iter().all(is_known);
                conversation.grown_at = if has_grown { before.cursor } else { before.grown_at };
                has_newcomers = has_grown;
            } else {
                has_newcomers = true;
            }
            if !before.removed && (!is_anew || before.behind) {
                // What has come of its log already is read with the new group; where the log stands is asked anew.
                conversation.backlog = before.backlog;
                conversation.note_chain(before.cursor, before.chain);
                conversation.readds = before.readds;
                if is_anew {
                    let is_in = |device: &DeviceId| group.members().iter().any(|member| member.device == *device);
                    conversation.readds.retain(|device, _| !is_in(device));
                }
            }
        }
        conversation.group = Some(group);
        (conversation.joined_by, conversation.seeks) = (Some(body.commit), true);
        conversation.generation = data.generation;
        self.conversations.insert(id, conversation);
        self.save_conversation(turn, id);
        self.save_intent(turn, id);
        if !self.is_blocked(inviter.account) {
            turn.event(Event::Joined { conversation: id, kind: data.kind, name: data.name, by: inviter.account });
        }
        if has_newcomers {
            self.keep_from_newcomers(turn, id);
        }
        self.unseal_stale(turn, id);
        if asks_again {
            self.ask_to_leave(turn, id);
        }
        if rejoins {
            self.resend_unconfirmed(turn, id);
        }
        Ok(())
    }

    fn is_blocked(&self, account: AccountId) -> bool {
        self.contacts.get(&account).is_some_and(|contact| contact.blocked)
    }

    /// What this device refuses to be in: a conversation of two that is not of these two, or one that was begun by
    /// somebody whose pinned log is another.
    fn check_joined(&self, joined: &Joined) -> Result<(), QuarantineReason> {
        let own = self.log.id();
        let data = joined.group.data();
        if data.kind == ConversationKind::OneToOne {
            let accounts: BTreeSet<_> = joined.group.members().iter().map(|member| member.account).collect();
            let other = accounts.iter().copied().find(|account| *account != own);
            let is_ours = other.is_some_and(|other| data.conversation == one_to_one(own, other));
            if accounts.len() != 2 || !accounts.contains(&own) || !is_ours {
                return Err(QuarantineReason::BadWelcome);
            }
        }
        if data.generation == u32::MAX {
            // There would be none behind it.
            return Err(QuarantineReason::BadWelcome);
        }
        let lost = self.conversations.get(&data.conversation).and_then(|conversation| conversation.lost.as_ref());
        let inviter = joined.inviter.account;
        let accounts: BTreeSet<_> = joined.group.members().iter().map(|member| member.account).collect();
        let is_gone = |account: &AccountId| self.contacts.get(account).is_some_and(|c| c.log.is_retired());
        let leads_back = |lost: &Lost| {
            let is_same = lost.group == joined.group.id();
            // Who was alone in it is deceived about nobody's company: an accepted contact may have come in since, by what
            // this device did before its store was put back (seed 501356).
            let is_accepted = self.contacts.get(&inviter).is_some_and(Contact::is_accepted);
            let was_alone = lost.accounts().iter().all(|account| *account == own) && is_accepted;
            let may_invite = lost.accounts().contains(&inviter) || was_alone;
            may_invite
                && (data.kind == ConversationKind::OneToOne
                    || is_same
                    || lost.goes_on_as(data, &accounts, inviter, is_gone))
        };
        if !lost.is_none_or(leads_back) {
            // Whoever sees a request to be added again could answer it with a group of their own.
            return Err(QuarantineReason::BadWelcome);
        }
        let contradicts = |log: &sealwire_keys::AccountLog| {
            let pinned = self.log_of(log.id());
            pinned.is_some_and(|pinned| !log.entries().iter().zip(pinned.entries()).all(|(a, b)| a == b))
        };
        if joined.evidence.logs().any(contradicts) {
            return Err(QuarantineReason::BadSender);
        }
        // A conversation of two is joined in any case, and what is said in it dropped: there is no other one after a block
        // is taken back.
        if data.kind == ConversationKind::Group && self.is_blocked(joined.inviter.account) {
            return Err(QuarantineReason::Blocked);
        }
        Ok(())
    }
}
