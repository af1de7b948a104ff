//! Changing a conversation: what is wanted of it becomes one commit, which waits for its position (L3). One wins; whoever
//! lost reads it, and makes another if there is still something to want.

use std::collections::BTreeSet;

use sealwire_keys::{blob_hash, chain_start, roster_hash};
use sealwire_session::mls::{Changes, Committed, Group, ReceivedKeyPackage, read_readd};
use sealwire_wire::content::{Content, Part};
use sealwire_wire::conversation::{ConversationKind, GroupData, Role, WelcomeBody};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{Failed, IdProof, KeyPackage, RosterChange, ToRelay, Welcome};
use sealwire_wire::limits::{BLOB_CHUNK_MAX, DAY_MS};
use sealwire_wire::{AccountId, Code, ConversationId, DeviceId, EnvelopeId, InboxAddress, LogId, Position, Time};

use super::{Conversation, Lost, Pending, Progress, Want, desk};
use crate::command::{Refusal, Reply};
use crate::connection::Asked;
use crate::engine::Engine;
use crate::event::{Event, QuarantineReason, UnsentReason};
use crate::step::Turn;

/// Accounts of which one commit adds devices.
const ADDED_MAX: usize = 32;
/// Devices that one commit adds, but for those of one account alone: their key packages fit into an entry.
pub(super) const ADDED_DEVICES_MAX: usize = 32;
/// Welcomes that are larger than this all together lie in one blob (E7).
const INLINE_MAX: usize = 64 * 1024;
/// How long an account without key packages is left alone.
const CLAIM_AGAIN_MS: u64 = 5_000;
/// How long another own device is, which may have been linked a moment ago; twice as long each time, up to four minutes.
const OWN_CLAIM_AGAIN_MS: u64 = 500;
/// How long a refused attachment waits; twice as long each time, up to a minute.
const ATTACH_AGAIN_MS: u64 = 1_000;
/// How long a group is waited for that a restored relay does not know: three days.
const FOUNDER_MS: u64 = 3 * DAY_MS;
/// How long a commit waits that the relay did not take for now.
const COMMIT_AGAIN_MS: u64 = 1_000;

impl Engine {
    /// Makes the next commit, if one is wanted and nothing waits.
    pub(super) fn commit_if_wanted(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let founds_alone = conversation.founding && conversation.kind == ConversationKind::Group;
        if (conversation.wants.is_empty() && !founds_alone) || conversation.pending.is_some() {
            return;
        }
        if !(conversation.founding || conversation.is_caught_up()) {
            return;
        }
        if conversation.commit_after.is_some_and(|after| turn.now < after) {
            return;
        }
        conversation.commit_after = None;
        self.drop_done(turn, id);
        if !self.claim_wanted(turn, id) {
            return;
        }
        if self.conversations.get(&id).is_some_and(|conversation| conversation.founding) {
            self.found_group(turn, id);
        }
        self.make_commit(turn, id);
    }

    /// What is so already is not wanted any more, and what this member may not do never was.
    fn drop_done(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let own = self.log.id();
        let dropped = self.revoked_leaves(id);
        let vouched = &self.log;
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let Some(group) = &conversation.group else { return };
        let devices: BTreeSet<_> = group.members().iter().map(|member| member.device).collect();
        let members: BTreeSet<_> = group.members().iter().map(|member| member.account).collect();
        let data = group.data();
        let role = data.role(own);
        let before = conversation.wants.len();
        let (leaving, mut refused) = (&conversation.leaving, Vec::new());
        conversation.wants.retain(|want| {
            let (is_open, is_allowed, account) = match want {
                Want::Add(account) => (!members.contains(account), role < Role::Member, Some(*account)),
                Want::Remove(account) => {
                    let may = role < data.role(*account) || leaving.contains(account);
                    (members.contains(account), may, Some(*account))
                }
                Want::Rename(name) => (*name != data.name, role < Role::Member, None),
                Want::SetRole(account, now) => {
                    (data.role(*account) != *now && members.contains(account), role == Role::Owner, Some(*account))
                }
                Want::AddDevice(device) => {
                    (vouched.device(*device).is_some() && !devices.contains(device), true, Some(own))
                }
                Want::DropDevice(device) => (dropped.contains(device), true, None),
                Want::Update => (true, true, None),
                Want::Readmit(device) => (conversation.readds.contains_key(device), true, None),
            };
            if is_open && !is_allowed {
                refused.push(account);
            }
            is_open && is_allowed
        });
        if conversation.wants.len() != before {
            self.save_intent(turn, id);
        }
        for account in refused {
            turn.event(Event::NotDone { conversation: id, account });
        }
    }

    /// Claims key packages of those who are to be added. Whether a commit can be made now: none is on its way, and there
    /// is something to do.
    fn claim_wanted(&mut self, turn: &mut Turn<'_>, id: ConversationId) -> bool {
        let Some(conversation) = self.conversations.get_mut(&id) else { return false };
        conversation.claim_later.retain(|_, at| turn.now < *at);
        let adds: Vec<_> = conversation.adds().take(ADDED_MAX).collect();
        let own_adds: Vec<_> = conversation.own_adds().collect();
        let others = conversation.wants.len() > conversation.adds().count() + own_adds.len();
        let (claimed, later) = (&conversation.claimed, &conversation.claim_later);
        let waits = |account: &&AccountId| !claimed.contains_key(*account) && !later.contains_key(*account);
        let missing: Vec<_> = adds.iter().filter(waits).copied().collect();
        let own = self.log.id();
        let waits_own =
            |device: &&DeviceId| !conversation.claimed_own.contains_key(*device) && !later.contains_key(&own);
        let missing_own: Vec<_> = own_adds.iter().filter(waits_own).copied().collect();
        // Who begins anew brings those back who were in it; whom a person wants besides comes if they can be had.
        let was_in = |account: &&AccountId| conversation.lost.as_ref().is_none_or(|lost| lost.has(**account));
        let is_ready = adds.iter().any(|account| claimed.contains_key(account))
            || ((others || !conversation.claimed_own.is_empty()) && !conversation.founding)
            || (conversation.behind && adds.iter().filter(was_in).count() == 0);
        let founds_group = conversation.founding && conversation.kind == ConversationKind::Group;
        // Who begins anew leaves nobody out because of a claim that was put off.
        let is_whole = !conversation.behind || adds.iter().filter(was_in).all(|account| claimed.contains_key(account));
        for account in missing.iter().copied() {
            let asked = Asked::Claim(id, account);
            if self.link.has_room_to_ask() && !self.link.is_asked(&asked) {
                self.ask(turn, asked, |request| ToRelay::ClaimKeyPackages { request, account, device: None });
            }
        }
        for device in missing_own.iter().copied() {
            let asked = Asked::ClaimOwn(id, device);
            if self.link.has_room_to_ask() && !self.link.is_asked(&asked) {
                let (account, device) = (own, Some(device));
                self.ask(turn, asked, |request| ToRelay::ClaimKeyPackages { request, account, device });
            }
        }
        missing.is_empty() && missing_own.is_empty() && is_whole && (is_ready || founds_group)
    }

    /// Key packages came, one for each device. What the account's log does not list is not taken (C1).
    pub(crate) fn claimed(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        account: AccountId,
        packages: Vec<KeyPackage>,
    ) {
        let Some(contact) = self.contacts.get(&account) else { return };
        let vouched = self.evidence_of([account]);
        let mut received: Vec<ReceivedKeyPackage> = Vec::new();
        for package in &packages {
            match ReceivedKeyPackage::check(self.own.suite, &package.bytes, turn.rng) {
                Ok(package) if vouched.vouches_for(&package.member) && package.member.account == account => {
                    let is_new = received.iter().all(|other| other.member.device != package.member.device);
                    received.extend(is_new.then_some(package));
                }
                Ok(package) if package.member.account == account => {
                    // A device that was linked since, perhaps: its account's log tells, and it is not added before (C1).
                    self.link.to_refresh.insert(account);
                }
                _ => turn.event(Event::BadAnswer { account: Some(account) }),
            }
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        // A group that begins anew keeps its members.
        let is_gone = contact.log.is_retired() || contact.blocked && !conversation.behind;
        if received.is_empty() || is_gone {
            conversation.claim_later.insert(account, turn.now.plus(CLAIM_AGAIN_MS));
        } else {
            conversation.claimed.insert(account, received);
        }
    }

    /// A key package of another own device came, or none.
    pub(crate) fn claimed_own(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        device: DeviceId,
        packages: Vec<KeyPackage>,
    ) {
        let (own, vouched) = (self.log.id(), self.evidence_of([self.log.id()]));
        let package = packages
            .first()
            .and_then(|package| ReceivedKeyPackage::check(self.own.suite, &package.bytes, turn.rng).ok());
        let package = package.filter(|package| package.member.device == device && vouched.vouches_for(&package.member));
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        match package {
            Some(package) => drop(conversation.claimed_own.insert(device, package)),
            // It has published none yet.
            None => {
                let wait = OWN_CLAIM_AGAIN_MS << conversation.own_claims.min(9);
                conversation.own_claims += 1;
                conversation.claim_later.insert(own, turn.now.plus(wait));
            }
        }
    }

    pub(crate) fn claim_failed(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        account: AccountId,
        failed: &Failed,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let wait = failed.retry_after_ms.max(CLAIM_AGAIN_MS);
        conversation.claim_later.insert(account, turn.now.plus(wait));
    }

    /// The group of a conversation that begins.
    fn found_group(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let (own, suite, inbox) = (self.log.id(), self.own.suite, self.own.inbox);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        // Both own a conversation of two: either adds own devices, and neither removes the other.
        let peer = conversation.peer.map(|peer| (peer, Role::Owner));
        let mut roles: Vec<_> = peer.into_iter().chain([(own, Role::Owner)]).collect();
        roles.sort();
        let name = conversation.wants.iter().find_map(|want| match want {
            Want::Rename(name) => Some(name.clone()),
            _ => None,
        });
        let anew = conversation.lost.as_ref().map(|lost| lost.data.clone());
        let is_there = |account: &AccountId| conversation.claimed.contains_key(account);
        let adds: BTreeSet<_> = conversation.adds().filter(is_there).chain([own]).collect();
        let anew = anew.filter(|data| data.kind == ConversationKind::Group && conversation.generation > 0);
        let anew = anew.map(|data| {
            let stays = |(account, _): &(AccountId, Role)| adds.contains(account);
            let roles = match adds.len() {
                1 => vec![(own, Role::Owner)],
                _ => data.roles.into_iter().filter(stays).collect(),
            };
            GroupData { generation: conversation.generation, roles, ..data }
        });
        let data = anew.unwrap_or_else(|| GroupData {
            conversation: id,
            generation: conversation.generation,
            kind: conversation.kind,
            name: name.unwrap_or_default(),
            roles,
            later: Default::default(),
        });
        // Nothing fails: the records are in memory.
        conversation.group = Group::create(&mut desk!(self, turn), suite, data, own, inbox).ok();
        conversation.updated_at = turn.now;
    }

    /// One commit for as much of what is wanted as it can hold.
    fn make_commit(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let envelope = EnvelopeId(turn.random());
        let readmitted = self.readmitted(turn, id);
        let Some(conversation) = self.conversations.get(&id) else { return };
        let Some(group) = &conversation.group else { return };
        let mut devices = 0;
        let fits = |account: &AccountId| {
            let of_account = conversation.claimed.get(account).map_or(0, Vec::len);
            devices += of_account;
            devices <= ADDED_DEVICES_MAX || devices == of_account
        };
        let is_claimed = |account: &AccountId| conversation.claimed.contains_key(account);
        let new: Vec<_> = conversation.adds().filter(is_claimed).take_while(fits).collect();
        let members = group.members().iter().map(|member| member.account);
        let evidence = self.evidence_of(members.chain(new.iter().copied()).collect::<BTreeSet<_>>());
        // Who begins anew knows of the present roster what the relay says.
        let before = match conversation.told_roster.filter(|_| conversation.seeks) {
            Some(told) => told,
            None => roster_hash(&group.roster()),
        };

        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let (place, creates) = (conversation.place(), conversation.founding && !conversation.seeks);
        let mut changes = conversation.changes(&new);
        for (package, readd) in readmitted {
            changes.remove.extend(conversation.leaves_of_device(package.member.device));
            changes.add.push(package);
            changes.readds.push(readd);
        }
        changes.update |= !creates && changes.add.is_empty();
        let (count, added): (_, Vec<InboxAddress>) =
            (changes.add.len(), changes.add.iter().map(|new| new.member.inbox).collect());
        let Some(group) = &mut conversation.group else { return };
        let committed = match group.commit(&mut desk!(self, turn), place, envelope, changes, &evidence) {
            Ok(committed) => committed,
            Err(_) => return self.cannot_commit(turn, id, count > 0),
        };
        let Committed { body, welcome, roster } = committed;
        let after = Some(if conversation.seeks { conversation.told_newest } else { conversation.newest_commit });
        let entry = Entry { kind: EntryKind::Commit, after, envelope, body: Body::Inline(body) }.encode();
        let welcome = welcome.map(|welcome| WelcomeBody { conversation: id, commit: envelope, welcome }.encode());
        let (welcomes, blob) = welcome_entries(turn, &added, welcome);
        conversation.founding = false;
        conversation.pending =
            Some(Pending { envelope, creates, entry, before, roster, welcomes, blob, progress: Progress::Waits });
        self.save_conversation(turn, id);
        self.save_intent(turn, id);
    }

    /// What is wanted cannot be made into a commit.
    fn cannot_commit(&mut self, turn: &mut Turn<'_>, id: ConversationId, adds: bool) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.forget_claimed();
        if conversation.founding
            && let Some(group) = conversation.group.take()
        {
            group.delete(&mut self.mls);
        }
        let dropped: Vec<_> = match adds {
            true => conversation.adds().map(Some).collect(),
            false => conversation.wants.iter().filter(|want| want.is_of_person()).map(Want::account).collect(),
        };
        match adds {
            true => {
                conversation.wants.retain(|want| !matches!(want, Want::Add(_) | Want::AddDevice(_) | Want::Readmit(_)));
            }
            false => conversation.wants.clear(),
        }
        self.save_conversation(turn, id);
        self.save_intent(turn, id);
        for account in dropped {
            turn.event(Event::NotDone { conversation: id, account });
        }
    }

    /// Sends what waits: first the blob, then the commit itself.
    pub(super) fn send_pending(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let is_caught_up = conversation.is_caught_up() || conversation.seeks;
        let paused = conversation.commit_after.is_some_and(|after| turn.now < after);
        let Some(pending) =
            conversation.pending.as_mut().filter(|pending| (pending.creates || is_caught_up) && !paused)
        else {
            return;
        };
        match (pending.progress, &pending.blob) {
            (Progress::Waits, Some(blob)) => {
                let (hash, size) = (blob_hash(blob), blob.len() as u64);
                let bytes = blob[..blob.len().min(BLOB_CHUNK_MAX)].to_vec();
                pending.progress = Progress::Uploading;
                let asked = Asked::PutBlob(id);
                self.ask(turn, asked, |request| ToRelay::PutBlob { request, hash, size, offset: 0, bytes });
            }
            (Progress::Waits | Progress::Uploaded, _) => {
                pending.progress = Progress::Sent;
                let welcomes =
                    pending.welcomes.iter().map(|(inbox, entry)| Welcome { inbox: *inbox, entry: entry.clone() });
                let (entry, inboxes, welcomes) = (pending.entry.clone(), pending.roster.clone(), welcomes.collect());
                if pending.creates {
                    let proof = match conversation.peer {
                        Some(peer) => IdProof::Peer(peer),
                        // It is there until the group is; else the relay refuses, and the person hears of it.
                        None => IdProof::Nonce(conversation.nonce.unwrap_or_default()),
                    };
                    return self.ask(turn, Asked::Create(id), |request| ToRelay::CreateConversation {
                        request,
                        conversation: id,
                        entries: vec![entry],
                        inboxes,
                        welcomes,
                        proof,
                    });
                }
                let roster = RosterChange { before: pending.before, inboxes, welcomes };
                self.link.in_flight.insert(pending.envelope, turn.now);
                turn.send(ToRelay::Append { log: LogId::Conversation(id), entry, roster: Some(roster) });
            }
            (Progress::Uploading | Progress::Sent, _) => {}
        }
    }

    /// The relay has so much of the blob of a commit that waits.
    pub(crate) fn blob_stored(&mut self, turn: &mut Turn<'_>, id: ConversationId, held: u64) {
        let Some(pending) = self.conversations.get_mut(&id).and_then(|conversation| conversation.pending.as_mut())
        else {
            return;
        };
        let Some(blob) = &pending.blob else { return };
        let (hash, size) = (blob_hash(blob), blob.len() as u64);
        match usize::try_from(held).ok().and_then(|held| blob.get(held..)) {
            None | Some([]) => {
                pending.progress = Progress::Uploaded;
                self.send_pending(turn, id);
            }
            Some(rest) => {
                let bytes = rest[..rest.len().min(BLOB_CHUNK_MAX)].to_vec();
                let asked = Asked::PutBlob(id);
                self.ask(turn, asked, |request| ToRelay::PutBlob { request, hash, size, offset: held, bytes });
            }
        }
    }

    /// The conversation is there: its first entry says whose it is (C8).
    pub(crate) fn created(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.attachment = super::Attachment::Asked;
        self.ask(turn, Asked::Attach(id), |request| ToRelay::Attach { request, conversation: id });
    }

    pub(crate) fn create_failed(&mut self, turn: &mut Turn<'_>, id: ConversationId, failed: &Failed) {
        match failed.code {
            // Begun by the other side, or by this one before an answer was lost: its first entry says it.
            Code::ConversationExists => self.created(turn, id),
            Code::Busy | Code::RateLimited | Code::StoreFailed => self.pause_commits(turn, id, failed),
            code => {
                turn.event(Event::Refused { code, text: failed.text.clone() });
                self.pause_commits(turn, id, failed);
            }
        }
    }

    pub(crate) fn attach_failed(&mut self, turn: &mut Turn<'_>, id: ConversationId, failed: &Failed) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if failed.code != Code::NotAllowed {
            conversation.attachment = super::Attachment::No;
            let wait = ATTACH_AGAIN_MS.saturating_mul(1 << conversation.attach_refusals.min(6));
            conversation.attach_refusals += 1;
            conversation.attach_after = Some(turn.now.plus(failed.retry_after_ms.max(wait)));
        } else if conversation.is_about_to_begin() {
            // Without this device: nothing of it can be read. Where the account has others, one of them has begun it, and adds
            // this one (seed 51).
            let _lost = self.lose_creation(turn, id);
            let has_others = self.other_devices().next().is_some();
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.awaits_own = has_others;
            }
        } else if conversation.kind == ConversationKind::OneToOne && conversation.peer.is_some()
            || conversation.doubted && conversation.nonce.is_some()
        {
            self.begin_again(turn, id);
        } else if conversation.doubted && conversation.waits_for_founder(turn.now) {
            self.fall_behind(turn, id);
        } else {
            self.is_out(turn, id);
        }
    }

    /// The relay does not know a conversation any more: it was restored from a backup of before (L11). It is begun again, as
    /// the next generation: one of two, of which nobody can be out, by whoever comes first; a group by the device that had
    /// begun it, which alone can show that its id is its own.
    fn begin_again(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let own = self.log.id();
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let lost = conversation.group.as_ref().map(Lost::of).or(conversation.lost.take());
        let generation = lost.as_ref().map_or(conversation.generation, |lost| lost.data.generation);
        let mut again = Conversation::new(id, conversation.kind, conversation.peer, turn.now);
        (again.founding, again.generation) = (true, generation.saturating_add(1));
        let accounts = lost.iter().flat_map(Lost::accounts).chain(again.peer).filter(|account| *account != own);
        accounts.collect::<BTreeSet<_>>().into_iter().for_each(|account| again.wants(Want::Add(account)));
        self.other_devices().for_each(|device| again.wants(Want::AddDevice(device)));
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        (again.nonce, again.lost, again.grown_at) = (conversation.nonce, lost, conversation.grown_at);
        if again.kind == ConversationKind::Group {
            let wanted = std::mem::take(&mut conversation.wants);
            wanted.into_iter().filter(Want::is_of_person).for_each(|want| again.wants(want));
        }
        again.rewritten = true;
        if let Some(before) = self.conversations.insert(id, again).and_then(|before| before.group) {
            before.delete(&mut self.mls);
        }
        self.save_conversation(turn, id);
        self.save_intent(turn, id);
        self.unseal_stale(turn, id);
        self.resend_unconfirmed(turn, id);
    }

    /// This device was removed while it was away, or before its store was put back, and can't read by whom.
    pub(super) fn is_out(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        (conversation.removed, conversation.behind) = (true, false);
        conversation.wants.clear();
        conversation.own_readd = None;
        if let Some(group) = conversation.group.take() {
            group.delete(&mut self.mls);
        }
        self.save_conversation(turn, id);
        self.save_intent(turn, id);
        self.fail_in_conversation(turn, id, UnsentReason::NoMember);
        turn.event(Event::NotDone { conversation: id, account: None });
    }

    /// The relay does not take the commit now. One that only replaces own keys stands in front of no message meanwhile (C11).
    fn put_off_commit(&mut self, turn: &mut Turn<'_>, id: ConversationId, failed: &Failed) {
        self.pause_commits(turn, id, failed);
        let may_wait = |c: &Conversation| {
            let only_renews = c.wants.iter().all(|want| *want == Want::Update);
            only_renews && !c.seeks && !c.must_update && !c.is_about_to_begin() && c.may_seal_unrenewed()
        };
        if self.conversations.get(&id).is_some_and(may_wait) {
            self.drop_pending(turn, id);
        }
    }

    fn pause_commits(&mut self, turn: &mut Turn<'_>, id: ConversationId, failed: &Failed) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.commit_after = Some(turn.now.plus(failed.retry_after_ms.max(COMMIT_AGAIN_MS)));
            if let Some(pending) = &mut conversation.pending {
                pending.progress = Progress::Waits;
            }
        }
    }

    /// Whose commit an envelope is.
    fn pending_of(&self, envelope: EnvelopeId) -> Option<ConversationId> {
        let is =
            |conversation: &Conversation| conversation.pending.as_ref().is_some_and(|own| own.envelope == envelope);
        self.conversations.iter().find(|(_, conversation)| is(conversation)).map(|(id, _)| *id)
    }

    /// The relay has a newer commit than this device had read: whatever was sealed before it is sealed again behind it
    /// (L4).
    pub(crate) fn stale(&mut self, turn: &mut Turn<'_>, envelope: EnvelopeId, newest_commit: Position) {
        self.link.in_flight.remove(&envelope);
        self.link.useful = true;
        let id = match self.pending_of(envelope) {
            Some(id) => {
                self.drop_pending(turn, id);
                if self.conversations.get(&id).is_some_and(|conversation| conversation.behind) {
                    // It was to begin anew. What the roster is by now, the next connection says.
                    return self.hang_up(turn);
                }
                Some(id)
            }
            None => self.unseal(turn, envelope),
        };
        let Some((id, conversation)) = id.and_then(|id| Some((id, self.conversations.get_mut(&id)?))) else { return };
        if newest_commit <= conversation.newest_commit {
            // What was sealed names that one. Another connection may bring a better answer.
            return self.hang_up(turn);
        }
        if newest_commit <= conversation.cursor {
            // It is among what this device has passed over, or stands where it has read something else: it will not be read.
            // Whatever is sealed again would be as stale.
            return self.fall_behind(turn, id);
        }
        conversation.wait_for = conversation.wait_for.max(newest_commit);
        conversation.told_newest = conversation.told_newest.max(newest_commit);
    }

    /// The relay refused a commit. Whether it was one.
    pub(crate) fn commit_failed(&mut self, turn: &mut Turn<'_>, envelope: EnvelopeId, failed: &Failed) -> bool {
        let Some(id) = self.pending_of(envelope) else { return false };
        match failed.code {
            Code::StoreFailed | Code::ShuttingDown | Code::Restored | Code::WrongOrder => {}
            Code::Busy | Code::RateLimited => self.put_off_commit(turn, id, failed),
            Code::TooLarge => {
                self.drop_pending(turn, id);
                self.cannot_commit(turn, id, true);
            }
            // The roster is another one: what came meanwhile is read first, and the commit made anew.
            _ => {
                self.drop_pending(turn, id);
                self.pause_commits(turn, id, failed);
                if self.conversations.get(&id).is_some_and(|conversation| conversation.behind) {
                    self.hang_up(turn);
                }
            }
        }
        true
    }

    /// A commit that waited is not made: another won, or it was refused. What it was for is still wanted.
    pub(super) fn drop_pending(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let Some(pending) = conversation.pending.take() else { return };
        if pending.creates {
            // Not begun yet, as far as this store knows: made anew, and where it is there already, read.
            conversation.founding = true;
            if let Some(group) = conversation.group.take() {
                group.delete(&mut self.mls);
            }
            self.save_conversation(turn, id);
            return self.save_intent(turn, id);
        }
        self.link.in_flight.remove(&pending.envelope);
        // Claimed key packages were used up for it.
        conversation.forget_claimed();
        if conversation.seeks && conversation.joined_by.is_none() {
            // The commit with which it was to begin anew: it is as lost as before, until the next try.
            if let Some(group) = conversation.group.take() {
                group.delete(&mut self.mls);
            }
            (conversation.seeks, conversation.behind) = (false, true);
            conversation.anew_due = None;
            self.save_conversation(turn, id);
        } else if let Some(group) = &mut conversation.group {
            // Nothing fails: the records are in memory.
            let _dropped = group.drop_own(&mut self.mls);
        }
        self.save_intent(turn, id);
    }

    /// The commit of this device is at its position: its epoch is in force.
    pub(super) fn merge_own(&mut self, turn: &mut Turn<'_>, id: ConversationId) -> Result<(), QuarantineReason> {
        let own = self.log.id();
        let Some(conversation) = self.conversations.get_mut(&id) else { return Ok(()) };
        let Some(group) = &mut conversation.group else { return Ok(()) };
        let accounts = |group: &Group| group.members().iter().map(|m| m.account).collect::<BTreeSet<_>>();
        let (before, data) = (accounts(group), group.data().clone());
        // The first commit adds nobody to what was said before: there is nothing, or it begins anew with those who were there.
        let was_begun = group.epoch() > 0;
        group.merge_own(&mut desk!(self, turn)).map_err(|_| QuarantineReason::InvalidCommit)?;
        let after = accounts(group);
        let devices: Vec<_> = group.members().iter().map(|member| member.device).collect();
        if let Some(pending) = conversation.pending.take() {
            self.link.in_flight.remove(&pending.envelope);
        }
        conversation.forget_claimed();
        conversation.wants.retain(|want| *want != Want::Update);
        (conversation.sealed, conversation.updated_at, conversation.update_due) = (0, turn.now, None);
        conversation.must_update = false;
        let added: Vec<_> = after.difference(&before).copied().collect();
        if !added.is_empty() && was_begun {
            conversation.grown_at = conversation.cursor;
            self.keep_from_newcomers(turn, id);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return Ok(()) };
        let removed: Vec<_> = before.difference(&after).copied().collect();
        let is_group = conversation.kind == ConversationKind::Group;
        if is_group && !was_begun && data.generation > 0 {
            turn.event(Event::Joined { conversation: id, kind: data.kind, name: data.name.clone(), by: own });
        } else if is_group && (!added.is_empty() || !removed.is_empty()) {
            turn.event(Event::Members { conversation: id, by: own, added, removed });
        }
        self.tell_renamed(turn, id, own, &data);
        match was_begun {
            true => self.note_readded_by_own(turn, id, &devices),
            // All who are in it are in it anew, whether they had asked or not.
            false => self.note_readded(turn, id, &devices),
        }
        self.forget_strangers_readds(turn, id);
        self.drop_done(turn, id);
        self.save_intent(turn, id);
        Ok(())
    }

    /// The own commit has added again whoever had asked for it, of those who are members now.
    fn note_readded_by_own(&mut self, turn: &mut Turn<'_>, id: ConversationId, members: &[DeviceId]) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        let answered: Vec<_> =
            conversation.answered.iter().filter(|device| members.contains(device)).copied().collect();
        self.note_readded(turn, id, &answered);
    }

    /// The key packages of those who are to be added again.
    fn readmitted(&mut self, turn: &mut Turn<'_>, id: ConversationId) -> Vec<(ReceivedKeyPackage, Vec<u8>)> {
        let suite = self.own.suite;
        let Some(conversation) = self.conversations.get_mut(&id) else { return Vec::new() };
        let wanted = conversation.wants.iter().filter_map(|want| match want {
            Want::Readmit(device) => conversation.readds.get(device),
            _ => None,
        });
        let packages: Vec<_> = wanted
            .filter_map(|entry| match Entry::decode(entry).ok()?.body {
                Body::Inline(body) => read_readd(suite, id, &body, turn.rng).map(|package| (package, body)),
                Body::Blob(_) => None,
            })
            .take(ADDED_MAX)
            .collect();
        conversation.answered = packages.iter().map(|(package, _)| package.member.device).collect();
        let vouched = self.evidence_of(packages.iter().map(|(package, _)| package.member.account));
        let (good, bad): (Vec<_>, Vec<_>) =
            packages.into_iter().partition(|(package, _)| vouched.vouches_for(&package.member));
        if let Some(conversation) = self.conversations.get_mut(&id) {
            for (package, _) in bad {
                conversation.readds.remove(&package.member.device);
            }
        }
        good
    }

    /// The next generation of a conversation that all have lost.
    pub(super) fn found_anew(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        if !self.claim_wanted(turn, id) {
            return;
        }
        if let Some(conversation) = self.conversations.get_mut(&id) {
            let last = conversation
                .lost
                .as_ref()
                .map_or(conversation.generation, |lost| lost.data.generation.saturating_add(1));
            conversation.generation = last.max(1);
            // What was known of the log since the last commit that was read is of another group.
            (conversation.leaving, conversation.own_leaves) = Default::default();
            if let Some(group) = conversation.group.take() {
                group.delete(&mut self.mls);
            }
        }
        self.unseal_stale(turn, id);
        self.found_group(turn, id);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.newest_commit = conversation.told_newest;
        (conversation.behind, conversation.seeks, conversation.joined_by) = (false, true, None);
        conversation.provisional = conversation.kind == ConversationKind::OneToOne;
        self.make_commit(turn, id);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if conversation.pending.is_none() {
            (conversation.behind, conversation.seeks) = (true, false);
        }
        self.save_conversation(turn, id);
    }

    /// C8: the other side has begun the conversation first. What was to be said waits, and goes into theirs.
    pub(super) fn lose_creation(&mut self, turn: &mut Turn<'_>, id: ConversationId) -> Result<(), QuarantineReason> {
        let Some(conversation) = self.conversations.get_mut(&id) else { return Ok(()) };
        if let Some(group) = conversation.group.take() {
            group.delete(&mut self.mls);
        }
        conversation.pending = None;
        conversation.forget_claimed();
        let wanted = std::mem::take(&mut conversation.wants);
        if conversation.kind == ConversationKind::Group {
            // Begun already, by a newer store of this device or another own one: what was wanted of one that is new may have
            // been done, and undone since.
            for want in wanted.iter().filter(|want| want.is_of_person()) {
                turn.event(Event::NotDone { conversation: id, account: want.account() });
            }
        }
        (conversation.cursor, conversation.chain) = (Position::START, chain_start(id));
        self.save_conversation(turn, id);
        self.save_intent(turn, id);
        Ok(())
    }

    /// Asks the others to be removed; until somebody does, this device stays (C5).
    pub(super) fn leave_group(&mut self, turn: &mut Turn<'_>, id: ConversationId) -> Result<Reply, Refusal> {
        if let Some(conversation) = self.conversations.get_mut(&id).filter(|conversation| !conversation.wants_out) {
            conversation.wants.clear();
            let members = conversation.group.as_ref().map(Group::members).unwrap_or_default();
            let is_alone = members.len() == 1 && conversation.pending.is_none();
            if conversation.founding || is_alone {
                // Nobody is there who could remove it.
                (conversation.removed, conversation.founding) = (true, false);
                if let Some(group) = conversation.group.take() {
                    group.delete(&mut self.mls);
                }
                self.save_conversation(turn, id);
                self.save_intent(turn, id);
                self.fail_in_conversation(turn, id, UnsentReason::NoMember);
                return Ok(Reply::Done);
            }
            conversation.wants_out = true;
            self.save_conversation(turn, id);
            self.save_intent(turn, id);
            self.ask_to_leave(turn, id);
        }
        Ok(Reply::Done)
    }

    pub(super) fn ask_to_leave(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let content = Content::of(turn.random(), Part::Leave).encode();
        self.enqueue_in_group(turn, id, false, content);
    }
}

impl Conversation {
    /// Whether the device that had begun a group may still come, and begin it again at a relay that does not know it any more.
    /// Else this device was removed while it was away.
    fn waits_for_founder(&mut self, now: Time) -> bool {
        let since = *self.doubted_since.get_or_insert(now);
        self.attachment = super::Attachment::No;
        let wait = ATTACH_AGAIN_MS.saturating_mul(1 << self.attach_refusals.min(6));
        self.attach_refusals += 1;
        self.attach_after = Some(now.plus(wait));
        now.since(since) < FOUNDER_MS
    }

    /// Key packages that were claimed are for one commit, of one epoch.
    fn forget_claimed(&mut self) {
        self.claimed.clear();
        self.claimed_own.clear();
    }

    /// Other own devices that are to be added.
    pub(super) fn own_adds(&self) -> impl Iterator<Item = DeviceId> {
        self.wants.iter().filter_map(|want| match want {
            Want::AddDevice(device) => Some(*device),
            _ => None,
        })
    }

    pub(super) fn adds(&self) -> impl Iterator<Item = AccountId> {
        self.wants.iter().filter_map(|want| match want {
            Want::Add(account) => Some(*account),
            _ => None,
        })
    }

    /// What the next commit changes. `new`: accounts whose key packages are there.
    fn changes(&mut self, new: &[AccountId]) -> Changes {
        let mut changes = Changes::default();
        let Some(data) = self.group.as_ref().map(|group| group.data().clone()) else { return changes };
        let mut wanted = data.clone();
        for want in self.wants.clone() {
            match want {
                Want::Add(account) if new.contains(&account) => {
                    changes.add.extend(self.claimed.get(&account).into_iter().flatten().cloned());
                }
                Want::AddDevice(device) => changes.add.extend(self.claimed_own.get(&device).cloned()),
                Want::DropDevice(device) => changes.remove.extend(self.leaves_of_device(device)),
                Want::Add(_) | Want::Readmit(_) => {}
                Want::Remove(account) => {
                    changes.remove.extend(self.leaves_of(account));
                    wanted = wanted.with_role(account, Role::Member);
                }
                Want::Rename(name) => wanted.name = name,
                Want::SetRole(account, role) => wanted = wanted.with_role(account, role),
                Want::Update => changes.update = true,
            }
        }
        changes.data = (wanted != data).then_some(wanted);
        changes
    }
}

/// Entries, and the inboxes that they are for.
type Addressed = Vec<(InboxAddress, Vec<u8>)>;

/// The entries for the inboxes of those who join, and the blob that they name where they are large.
fn welcome_entries(
    turn: &mut Turn<'_>,
    added: &[InboxAddress],
    welcome: Option<Vec<u8>>,
) -> (Addressed, Option<Vec<u8>>) {
    let Some(welcome) = welcome else { return (Vec::new(), None) };
    let is_inline = welcome.len() * added.len() <= INLINE_MAX;
    let body = if is_inline { Body::Inline(welcome.clone()) } else { Body::Blob(blob_hash(&welcome)) };
    let entry = |inbox: &InboxAddress| {
        let envelope = EnvelopeId(turn.random());
        (*inbox, Entry { kind: EntryKind::Welcome, after: None, envelope, body: body.clone() }.encode())
    };
    (added.iter().map(entry).collect(), (!is_inline).then_some(welcome))
}
