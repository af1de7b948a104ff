//! The way back (C10): a device that cannot follow a conversation any more asks to be added again, in its log; any member
//! answers with a commit. Where all have lost it, nobody can answer: then one of them begins it anew, as its next
//! generation, under the same id.

use std::collections::BTreeMap;

use sealwire_keys::{one_to_one, roster_hash};
use sealwire_session::mls::{Group, KeyPackageRef, Member, make_readd, read_readd};
use sealwire_wire::conversation::{ConversationKind, ReaddBody, Role};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{Delivered, Failed, ToRelay};
use sealwire_wire::limits::ROSTER_MAX;
use sealwire_wire::{AccountId, Code, ConversationId, DeviceId, EnvelopeId, LogId, Position, RosterHash, Time};

use super::committing::ADDED_DEVICES_MAX;
use super::{Attachment, Conversation, Lost, LostMember, Want, desk};
use crate::connection::Asked;
use crate::contacts::Contact;
use crate::engine::Engine;
use crate::event::{Event, QuarantineReason};
use crate::record::{self, Table};
use crate::step::Turn;

/// How long a conversation that another device has begun may be without its Welcome.
pub(super) const WELCOME_MS: u64 = 10_000;
/// How long a request may be unanswered until it is made again; twice as long each time, up to an hour.
const READD_MS: u64 = 60_000;
/// How long a group is left as it is that most members have lost: one of the others may come, and answer them.
const ANEW_MS: u64 = 60 * 60 * 1_000;
/// A request is answered by the member of the lowest leaf; the next one waits this much longer.
const READD_STEP_MS: u64 = 5_000;

/// Who asks to be added again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asking {
    All,
    Most,
}

impl Engine {
    /// This device cannot follow a conversation any more.
    pub(super) fn fall_behind(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        self.drop_pending(turn, id);
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| !c.behind && !c.removed) else { return };
        (conversation.behind, conversation.founding) = (true, false);
        // The newest entry that was read may be the one that could not be.
        conversation.missed_behind.get_or_insert(conversation.cursor.before());
        if let Some(group) = &conversation.group {
            conversation.lost = Some(Lost::of(group));
        }
        // What a person wants of it is done once the way back is found.
        conversation.wants.retain(Want::is_of_person);
        turn.event(Event::Behind { conversation: id });
        self.save_conversation(turn, id);
        self.save_intent(turn, id);
    }

    /// Conversations that a store does not know, because it was put back, are in none of its records, but in rosters. A store
    /// may have been put back whenever a process starts with it.
    pub(crate) fn list_logs(&mut self, turn: &mut Turn<'_>) {
        let is_asked = self.link.is_asked(&Asked::Logs);
        if (self.own.lists_due || self.is_fresh) && self.is_mls() && self.link.is_active() && !is_asked {
            self.ask(turn, Asked::Logs, |request| ToRelay::ListLogs { request });
        }
    }

    pub(crate) fn listed(&mut self, turn: &mut Turn<'_>, conversations: Vec<ConversationId>) {
        self.is_fresh = false;
        if self.own.lists_due {
            self.own.lists_due = false;
            self.save_own(turn);
        }
        for id in conversations {
            if let std::collections::btree_map::Entry::Vacant(place) = self.conversations.entry(id) {
                // Its Welcome may be on its way.
                place.insert(Conversation::new(id, ConversationKind::Group, None, turn.now));
                self.save_conversation(turn, id);
            }
        }
    }

    /// Moves a conversation that cannot be read on towards one that can.
    pub(super) fn heal(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if conversation.removed || conversation.founding || conversation.is_active() {
            return;
        }
        if conversation.awaits_own {
            return;
        }
        if !conversation.behind {
            let since = *conversation.without_welcome.get_or_insert(turn.now);
            // One whose bytes are still to be fetched may be its Welcome.
            let wait = if self.welcomes.is_empty() { WELCOME_MS } else { 6 * WELCOME_MS };
            if turn.now.since(since) >= wait {
                self.fall_behind(turn, id);
            }
            return;
        }
        if self.may_begin_anew(id) || self.may_begin_group_anew(turn, id) {
            if let Some(conversation) = self.conversations.get_mut(&id)
                && conversation.readd_again.is_none_or(|again| turn.now >= again)
            {
                conversation.readd_again = Some(turn.now.plus(READD_MS));
            }
            return self.begin_anew(turn, id);
        }
        self.ask_to_be_added(turn, id);
    }

    /// The relay may know less than it did.
    pub(crate) fn doubt_conversations(&mut self, turn: &mut Turn<'_>) {
        let ids: Vec<_> = self.conversations.keys().copied().collect();
        for id in ids {
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.doubted = true;
            }
            self.save_conversation(turn, id);
        }
    }

    fn ask_to_be_added(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let (suite, own, inbox) = (self.own.suite, self.log.id(), self.own.inbox);
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.doubted_since.is_none()) else { return };
        if conversation.readd_again.is_some_and(|again| turn.now < again) {
            return;
        }
        let wait = READD_MS.saturating_mul(1 << conversation.readds_sent.min(6));
        conversation.readd_again = Some(turn.now.plus(wait));
        conversation.readds_sent += 1;
        let before = conversation.own_readd.as_ref().and_then(|entry| Entry::decode(entry).ok());
        let entry = match before {
            // The same request, in another entry: whoever could answer it may have lost the place where it stood.
            Some(entry) => Entry { envelope: EnvelopeId(turn.random()), ..entry }.encode(),
            None => {
                let made = make_readd(&mut desk!(self, turn), suite, id, own, inbox);
                // Nothing fails: the records are in memory.
                let Ok((KeyPackageRef(key), body)) = made else { return };
                let known = super::KeyPackageRecord { made_at: turn.now, is_retired: 1, is_last_resort: 0 };
                turn.put(Table::KeyPackage, key.clone(), record::encode(&known));
                self.key_packages.insert(key, known);
                let envelope = EnvelopeId(turn.random());
                Entry { kind: EntryKind::Readd, after: None, envelope, body: Body::Inline(body) }.encode()
            }
        };
        conversation.own_readd = Some(entry.clone());
        self.save_intent(turn, id);
        turn.send(ToRelay::Append { log: LogId::Conversation(id), entry, roster: None });
    }

    /// The relay refused a request of this device to be added again. Whether it was one.
    pub(crate) fn readd_failed(&mut self, turn: &mut Turn<'_>, envelope: EnvelopeId, failed: &Failed) -> bool {
        let is = |conversation: &Conversation| {
            let entry = conversation.own_readd.as_ref().and_then(|entry| Entry::decode(entry).ok());
            conversation.behind && entry.is_some_and(|entry| entry.envelope == envelope)
        };
        let Some(id) = self.conversations.iter().find(|(_, conversation)| is(conversation)).map(|(id, _)| *id) else {
            return false;
        };
        if failed.code == Code::NotAllowed {
            self.is_out(turn, id);
        }
        true
    }

    /// Somebody's device asks to be added again.
    pub(super) fn take_readd(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        entry: &Entry,
        bytes: &[u8],
    ) -> Result<(), QuarantineReason> {
        let (suite, own) = (self.own.suite, self.secrets.device_id());
        let Body::Inline(body) = &entry.body else { return Err(QuarantineReason::Unsupported) };
        let package = read_readd(suite, id, body, turn.rng).ok_or(QuarantineReason::Rejected)?;
        let (account, device) = (package.member.account, package.member.device);
        if device == own {
            // Of this store, or of one that is lost: in either case nobody here can answer it.
            return Ok(());
        }
        // Where the members are not known, only the other one of a conversation of two is.
        let may_ask = |group: Option<&Group>| match group {
            Some(group) => group.members().iter().any(|member| member.account == account),
            None => one_to_one(self.log.id(), account) == id,
        };
        let group = self.conversations.get(&id).and_then(|conversation| conversation.group.as_ref());
        let is_listed =
            !self.contacts.contains_key(&account) || self.evidence_of([account]).vouches_for(&package.member);
        if !may_ask(group) || !is_listed {
            return Err(QuarantineReason::NotAccepted);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return Ok(()) };
        if conversation.readds.len() >= ROSTER_MAX && !conversation.readds.contains_key(&device) {
            return Err(QuarantineReason::NotAccepted);
        }
        conversation.readds.insert(device, bytes.to_vec());
        let rank = conversation.rank_among(|member| member.device != device);
        conversation.readd_due = Some(turn.now.plus(rank * READD_STEP_MS));
        self.save_intent(turn, id);
        Ok(())
    }

    /// The log is attached, and comes from where this device stands.
    pub(crate) fn note_roster(&mut self, id: ConversationId, roster: Option<RosterHash>) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.told_roster = roster;
        conversation.doubted_since = None;
        conversation.asking.clear();
        conversation.looked_upto = Position::START;
    }

    /// A device that cannot read looks at what stands in clear all the same: who asks to be added again, and how often the
    /// conversation was changed, though not how.
    pub(super) fn look_on(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.behind) else { return };
        let is_new = |delivered: &&Delivered| delivered.position > conversation.looked_upto;
        let entries: Vec<_> = conversation.backlog.iter().filter(is_new).cloned().collect();
        for Delivered { position, entry: bytes, at } in entries {
            let entry = Entry::decode(&bytes);
            let is_readd = entry.as_ref().is_ok_and(|entry| entry.kind == EntryKind::Readd);
            let is_taken =
                is_readd && entry.as_ref().is_ok_and(|entry| self.take_readd(turn, id, entry, &bytes).is_ok());
            let Some(conversation) = self.conversations.get_mut(&id) else { return };
            conversation.looked_upto = position;
            if let Some(device) = readd_of(&bytes).filter(|_| is_taken).map(|body| body.device) {
                conversation.asking.entry(device).or_insert(at);
            }
            if entry.is_ok_and(|entry| entry.kind == EntryKind::Commit) {
                // It may have answered them.
                conversation.asking.clear();
                conversation.told_newest = conversation.told_newest.max(position);
            }
        }
    }

    /// Whether both devices of a conversation of two have lost it, and it is this one's turn: the lower account's.
    fn may_begin_anew(&self, id: ConversationId) -> bool {
        let own = self.log.id();
        let Some(conversation) = self.conversations.get(&id) else { return false };
        // All of their devices, or one of them could answer.
        let has_asked = |device: DeviceId| conversation.readds.contains_key(&device);
        let asks = |account: AccountId| match self.contacts.get(&account) {
            Some(contact) => contact.log.devices().all(|card| has_asked(card.key.device_id())),
            None => conversation.readds.values().any(|entry| account_of_readd(entry) == Some(account)),
        };
        let peer = self.peer_of(id, conversation);
        let is_known = matches!(conversation.attachment, Attachment::Yes { .. });
        let others_ask = self.other_devices().all(has_asked);
        peer.is_some_and(|peer| own < peer && asks(peer)) && others_ask && conversation.own_readd.is_some() && is_known
    }

    /// Whether the members of a group have lost it, so that nobody is there who could add the others, and it is this
    /// device's turn: owners come first, then admins, each a little later than the one before. All of them have to ask; or,
    /// for so long that nobody else will answer, more than half of the accounts.
    fn may_begin_group_anew(&mut self, turn: &Turn<'_>, id: ConversationId) -> bool {
        let (own, own_inbox, account) = (self.secrets.device_id(), self.own.inbox, self.log.id());
        let Some(conversation) = self.conversations.get(&id) else { return false };
        // Not before the log was looked through: a later commit may have answered who asks.
        let Attachment::Yes { length } = conversation.attachment else { return false };
        let looked_upto = conversation.looked_upto.max(conversation.cursor);
        // An answer that leads nowhere takes the request with it, and the waiting goes on (seed 730817).
        let has_asked = conversation.own_readd.is_some() || conversation.readds_sent > 0;
        let is_there = has_asked && looked_upto >= length.max(conversation.told_newest);
        if is_there && self.is_alone(conversation) {
            return true;
        }
        let asks = |device: DeviceId| device == own || conversation.asking.contains_key(&device);
        let lost = conversation.lost.as_ref().filter(|_| is_there && conversation.kind == ConversationKind::Group);
        // Who may add nobody later has to bring all at once.
        let lost =
            lost.filter(|lost| lost.data.role(account) != Role::Member || lost.members.len() <= ADDED_DEVICES_MAX);
        let due = lost.and_then(|lost| {
            let mut inboxes: Vec<_> = lost.members.iter().filter(|m| asks(m.device)).map(|m| m.inbox).collect();
            inboxes.retain(|inbox| *inbox != own_inbox);
            inboxes.push(own_inbox);
            inboxes.sort();
            let whole = conversation.told_roster == Some(roster_hash(&inboxes));
            let (wait, of_members) = match self.ask_of(&lost.members, asks) {
                // Nobody else is in the roster.
                _ if whole => (0, Asking::All),
                // Members of whom this device knows nothing may have lost nothing, and who counts others counts otherwise.
                Some(of_members) if conversation.told_roster == Some(lost.roster) => (0, of_members),
                // Where the relay was restored, the roster is one of before.
                Some(Asking::All) if conversation.rewritten => (ANEW_MS, Asking::All),
                _ => return None,
            };
            let mut ranked: Vec<_> = lost.members.iter().filter(|member| asks(member.device)).collect();
            ranked.sort_by_key(|member| lost.data.role(member.account));
            let rank = ranked.iter().position(|member| member.device == own).unwrap_or(ranked.len()) as u64;
            let wait = wait.max(if of_members == Asking::All { 0 } else { ANEW_MS }) + rank * READD_STEP_MS;
            // By the relay's clock, which goes on over connections; by the own one where that is earlier.
            let since = conversation.asking.values().copied().max().map_or(turn.now, |at| at.min(turn.now));
            Some(since.plus(wait))
        });
        let Some(conversation) = self.conversations.get_mut(&id) else { return false };
        conversation.anew_due = due.map(|due| conversation.anew_due.map_or(due, |earlier| earlier.min(due)));
        conversation.anew_due.is_some_and(|due| turn.now >= due)
    }

    /// Whether the roster has this device alone: all others are out.
    fn is_alone(&self, conversation: &Conversation) -> bool {
        conversation.kind == ConversationKind::Group
            && conversation.told_roster.is_some_and(|told| told == roster_hash(&[self.own.inbox]))
    }

    /// How many of a group's members ask to be added again: all, or more than half of the accounts with all their devices.
    fn ask_of(&self, members: &[LostMember], asks: impl Fn(DeviceId) -> bool) -> Option<Asking> {
        // A device that was revoked will not ask, and answers nobody.
        let is_out =
            |member: &&LostMember| self.log_of(member.account).is_some_and(|log| log.is_revoked(member.device));
        let mut accounts: BTreeMap<AccountId, bool> = BTreeMap::new();
        for member in members.iter().filter(|member| !is_out(member)) {
            *accounts.entry(member.account).or_insert(true) &= asks(member.device);
        }
        let asking = accounts.values().filter(|asks| **asks).count();
        match asking {
            count if count == accounts.len() => Some(Asking::All),
            count if 2 * count > accounts.len() => Some(Asking::Most),
            _ => None,
        }
    }

    /// Whether most of those with whom this device is in a group have lost it: a commit that it cannot read is then the one
    /// with which they have begun it anew.
    pub(super) fn is_left_alone(&self, id: ConversationId) -> bool {
        let is_group = |c: &&Conversation| c.kind == ConversationKind::Group && !c.readds.is_empty();
        let Some(conversation) = self.conversations.get(&id).filter(is_group) else { return false };
        let members = conversation.group.as_ref().map(|group| Lost::of(group).members).unwrap_or_default();
        self.ask_of(&members, |device| conversation.readds.contains_key(&device)).is_some()
    }

    /// Whom a conversation of two is with; one that was only listed does not say it, but its id does.
    fn peer_of(&self, id: ConversationId, conversation: &Conversation) -> Option<AccountId> {
        let own = self.log.id();
        let asking = conversation.readds.values().filter_map(|entry| account_of_readd(entry));
        conversation.peer.or_else(|| asking.into_iter().find(|account| one_to_one(own, *account) == id))
    }

    /// Own devices that are not in a conversation, and that whoever is in it may add (C7).
    pub(super) fn missing_devices(&self, id: ConversationId) -> Vec<DeviceId> {
        let group = self.conversations.get(&id).and_then(|conversation| conversation.group.as_ref());
        let members = group.map(Group::members).unwrap_or_default();
        let is_in = |device: &DeviceId| members.iter().any(|member| member.device == *device);
        self.other_devices().filter(|device| !is_in(device)).collect()
    }

    /// Devices in a conversation that their account has revoked, as far as is known here (C7).
    pub(super) fn revoked_leaves(&self, id: ConversationId) -> Vec<DeviceId> {
        if self.revoked.is_empty() {
            return Vec::new();
        }
        let group = self.conversations.get(&id).and_then(|conversation| conversation.group.as_ref());
        let own = self.secrets.device_id();
        let is_revoked = |member: &&Member| member.device != own && self.disowns(member);
        group.map(Group::members).unwrap_or_default().iter().filter(is_revoked).map(|member| member.device).collect()
    }

    /// Whether a leaf's account has revoked its device.
    fn disowns(&self, member: &Member) -> bool {
        let is_revoked = || self.log_of(member.account).is_some_and(|log| log.is_revoked(member.device));
        self.revoked.contains(&member.device) && is_revoked()
    }

    /// The next generation of a conversation, with all who were in it. What they have not confirmed, or ask for, is said again.
    fn begin_anew(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        let is_alone = self.is_alone(conversation);
        if conversation.lost.is_none() && is_alone {
            // Nothing is known of it, and nobody is there to tell.
            return self.is_out(turn, id);
        }
        if let Some(lost) = conversation.lost.as_ref().filter(|_| conversation.kind == ConversationKind::Group) {
            let own = self.log.id();
            let is_there = |account: &AccountId| {
                *account != own && self.contacts.get(account).is_some_and(|c| c.is_mls() && !c.log.is_retired())
            };
            let mut others: Vec<_> =
                lost.accounts().into_iter().filter(|account| !is_alone && is_there(account)).collect();
            // Whoever has a role comes with the first commit, which says it.
            others.sort_by_key(|account| lost.data.role(*account));
            let devices: Vec<_> = self.other_devices().collect();
            if let Some(conversation) = self.conversations.get_mut(&id) {
                others.into_iter().for_each(|account| conversation.wants(Want::Add(account)));
                devices.into_iter().for_each(|device| conversation.wants(Want::AddDevice(device)));
            }
            self.save_intent(turn, id);
            return self.found_anew(turn, id);
        }
        let Some(peer) = self.conversations.get(&id).and_then(|conversation| self.peer_of(id, conversation)) else {
            return;
        };
        let is_reachable = self.contacts.get(&peer).is_some_and(Contact::is_mls);
        if !is_reachable {
            // Known by its request alone: looked up first.
            if self.link.has_room_to_ask() {
                self.ask_for_account(turn, peer);
            }
            return;
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if conversation.wants.is_empty() {
            (conversation.kind, conversation.peer) = (ConversationKind::OneToOne, Some(peer));
            conversation.wants(Want::Add(peer));
            self.save_intent(turn, id);
        }
        self.found_anew(turn, id);
    }

    /// Whoever is not in a conversation any more is not added again by what they asked for before.
    pub(super) fn forget_strangers_readds(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let members = conversation.group.as_ref().map(Group::members).unwrap_or_default();
        let before = conversation.readds.len();
        conversation.readds.retain(|_, entry| {
            let account = account_of_readd(entry);
            members.iter().any(|member| Some(member.account) == account)
        });
        if conversation.readds.len() != before {
            self.save_intent(turn, id);
        }
    }

    /// A device is in again: what it may have missed of this one is said again (C10).
    pub(super) fn note_readded(&mut self, turn: &mut Turn<'_>, id: ConversationId, devices: &[DeviceId]) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let before = conversation.readds.len();
        conversation.readds.retain(|device, _| !devices.contains(device));
        if conversation.readds.len() != before {
            self.save_intent(turn, id);
            self.resend_unconfirmed(turn, id);
            self.ask_once_more(turn, id);
        }
    }
}

fn readd_of(entry: &[u8]) -> Option<ReaddBody> {
    match Entry::decode(entry).ok()?.body {
        Body::Inline(body) => ReaddBody::decode(&body).ok(),
        Body::Blob(_) => None,
    }
}

fn account_of_readd(entry: &[u8]) -> Option<AccountId> {
    readd_of(entry).map(|body| body.account)
}

impl Conversation {
    /// How many members come before this one, of those that count for what is to be done.
    pub(super) fn rank_among(&self, counts: impl Fn(&Member) -> bool) -> u64 {
        let own = self.group.as_ref().and_then(Group::own).map_or(0, |member| member.leaf);
        let members = self.group.as_ref().map(Group::members).unwrap_or_default();
        members.iter().filter(|member| member.leaf < own && counts(member)).count() as u64
    }

    pub(super) fn readds_are_due(&self, now: Time) -> bool {
        !self.readds.is_empty() && self.readd_due.is_none_or(|due| now >= due)
    }
}
