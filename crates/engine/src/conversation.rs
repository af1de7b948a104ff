//! Conversations: what this device knows of each, what it is to become, and what an application sees of it. How their logs
//! are read is in `reading`, how they are changed in `committing`, how one is joined in `joining`, the way back in `healing`, how
//! what was missed comes again in `missed`, and how others find this device in `key_packages`.

mod committing;
mod healing;
mod joining;
mod key_packages;
mod missed;
mod reading;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sealwire_keys::{AccountLog, Mode, chain_start, group_id, one_to_one, roster_hash};
use sealwire_session::mls::{Desk, Evidence, Group, Member, Place, ReceivedKeyPackage, SealedError};
use sealwire_wire::content::{Content, Part};
use sealwire_wire::conversation::{ConversationKind, GroupData, Role};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{Delivered, ToRelay};
use sealwire_wire::limits::{CHAINS_KEPT_MAX, CONTACTS_MAX, CONVERSATION_NAME_MAX, ROSTER_MAX};
use sealwire_wire::{AccountId, Chain, ConversationId, DeviceId, EnvelopeId, InboxAddress, Position, RosterHash, Time};

use crate::command::{ConversationView, GroupChange, Refusal, Reply};
use crate::connection::Asked;
use crate::contacts::{Contact, Standing};
use crate::engine::Engine;
use crate::record::{
    self, ConversationRecord, IntentRecord, LostRecord, PendingRecord, ReaddRecord, RecordError, Table, Text,
    WantRecord,
};
use crate::step::Turn;

pub(crate) use self::joining::WelcomeRecord;
pub(crate) use self::key_packages::KeyPackageRecord;
use self::reading::Compared;

/// A conversation, as this device has it.
pub(crate) struct Conversation {
    pub(crate) kind: ConversationKind,
    /// The other account, in a conversation of two.
    pub(crate) peer: Option<AccountId>,
    /// What the id of a group that this device has begun was made from: the relay asks for it (C8), again where it does not
    /// know the group any more (L11).
    nonce: Option<[u8; 16]>,
    /// `None`: it is about to begin, or its Welcome has not come, or this device is out of it.
    pub(crate) group: Option<Group>,
    /// Whether this device is to begin it, and has not made its first commit.
    founding: bool,
    /// Whether this device was removed.
    removed: bool,
    /// Whether entries are gone that it needs.
    behind: bool,
    /// Whether this device has begun it anew, and nobody has said anything in it yet: it gives way to a Welcome of whoever
    /// has not lost it.
    provisional: bool,
    /// Whether messages since the newest commit are gone that it has not read.
    missed: bool,
    /// Whether the relay's log was found to be another one than was read: the relay was restored (L11).
    rewritten: bool,
    /// Whether the relay was restored since the log was attached: it may not know of it, or of this device in it (L11).
    doubted: bool,
    /// Whether its own keys are to be replaced before anything is sealed: the store may have been put back (N3).
    must_update: bool,
    /// Everything at or before it was read.
    cursor: Position,
    newest_commit: Position,
    /// At the cursor.
    chain: Chain,
    /// The envelope of the commit that this device joined by.
    joined_by: Option<EnvelopeId>,
    /// Whether that commit was not read yet: what comes before it is none of this device's.
    seeks: bool,
    /// Whether it is only the relay's word that this epoch is the one in force: nothing of another member has opened in it.
    unproven: bool,
    /// Whether the person wants out (C5).
    wants_out: bool,
    /// The envelopes that said so since the newest commit.
    own_leaves: Vec<EnvelopeId>,
    /// Messages that this device has sealed since its keys were replaced.
    sealed: u32,
    /// When they were.
    updated_at: Time,
    /// When they are to be replaced, because the direction has changed since (C11).
    update_due: Option<Time>,
    /// Accounts that have asked to leave since the newest commit (C5).
    leaving: BTreeSet<AccountId>,
    wants: Vec<Want>,
    pending: Option<Pending>,
    /// Entries of devices that ask to be added again (C10).
    readds: BTreeMap<DeviceId, Vec<u8>>,
    /// The own one.
    own_readd: Option<Vec<u8>>,
    /// The group that cannot be followed any more, as it was when it could. Only who was in it leads back, into that group
    /// or into the next generation of the conversation.
    lost: Option<Lost>,
    /// What stands behind this position was missed, and is asked for once reading goes on (C10).
    missed_behind: Option<Position>,
    /// What was asked for lately: again when a device is back that may not have heard of it.
    asked_for: Vec<(Position, Position)>,
    /// Where the last account was added: nothing of before is said again, since it would be read by that account too.
    grown_at: Position,
    // What follows is not persisted.
    attachment: Attachment,
    /// Entries that came and are not read yet, because what they need is on its way.
    backlog: VecDeque<Delivered>,
    /// The chain at positions that were read since the newest commit (L5).
    chains: BTreeMap<Position, Chain>,
    /// Somebody has seen a commit there: nothing is sealed before it is read.
    wait_for: Position,
    claimed: BTreeMap<AccountId, Vec<ReceivedKeyPackage>>,
    /// Of other own devices.
    claimed_own: BTreeMap<DeviceId, ReceivedKeyPackage>,
    /// When this device adds own devices and removes revoked ones, if nobody else has.
    devices_due: Option<Time>,
    /// Accounts of whom nothing can be claimed before that time.
    claim_later: BTreeMap<AccountId, Time>,
    /// When this device removes who asked to leave, if nobody else has.
    leave_due: Option<Time>,
    /// When this device answers who asked to be added again, if nobody else has.
    readd_due: Option<Time>,
    /// When the log is attached again, and how often the relay has refused it.
    attach_after: Option<Time>,
    attach_refusals: u32,
    /// When this device asks again, and how often it has.
    readd_again: Option<Time>,
    readds_sent: u32,
    /// Devices that the commit that waits adds again.
    answered: Vec<DeviceId>,
    /// Which of its groups the last one was.
    generation: u32,
    /// Since when its group has been missing.
    without_welcome: Option<Time>,
    /// The newest commit, as the relay said when it was attached.
    told_newest: Position,
    /// Whether it is there, and this device is not in it yet: another device of the account adds it.
    awaits_own: bool,
    /// How often no key package of another own device was there.
    own_claims: u32,
    /// When a commit may be made again, after the relay asked to wait.
    commit_after: Option<Time>,
    /// Since when the relay has not known it.
    doubted_since: Option<Time>,
    /// How far the log that the relay delivers was compared with what was read (L11).
    compared: Option<Compared>,
    /// How much was said again on which day (C10).
    said_again: (u64, usize),
    /// Devices that have asked to be added again since the newest commit, as far as a device that cannot read has looked on.
    asking: BTreeMap<DeviceId, Time>,
    looked_upto: Position,
    /// When this device begins the conversation anew, if nobody else has.
    anew_due: Option<Time>,
    /// The roster, as the relay said when the log was attached.
    told_roster: Option<RosterHash>,
}

/// What is known of a group that cannot be followed any more.
#[derive(Clone)]
struct Lost {
    group: Vec<u8>,
    /// By leaf.
    members: Vec<LostMember>,
    roster: RosterHash,
    data: GroupData,
}

#[derive(Clone, Copy)]
struct LostMember {
    account: AccountId,
    device: DeviceId,
    inbox: InboxAddress,
}

impl Lost {
    fn of(group: &Group) -> Lost {
        let member = |member: &Member| {
            let (account, device, inbox) = (member.account, member.device, member.inbox);
            LostMember { account, device, inbox }
        };
        let members = group.members().iter().map(member).collect();
        Lost { group: group.id(), members, roster: roster_hash(&group.roster()), data: group.data().clone() }
    }

    fn load(record: LostRecord) -> Result<Lost, RecordError> {
        let data = GroupData::decode(record.data.as_slice()).map_err(|_| RecordError::Damaged)?;
        let member = |(account, device, inbox)| LostMember { account, device, inbox };
        let members = record.members.into_iter().map(member).collect();
        Ok(Lost { group: record.group.into_vec(), members, roster: record.roster, data })
    }

    /// Whether a group is the next generation of this one. Its maker may change in it what it might have changed in this one
    /// (C7): an owner all, an admin who is a member, and a member nothing. `is_gone`: accounts that are no more.
    fn goes_on_as(
        &self,
        data: &GroupData,
        accounts: &BTreeSet<AccountId>,
        inviter: AccountId,
        is_gone: impl Fn(&AccountId) -> bool,
    ) -> bool {
        let had_roles = self.data.roles.iter().filter(|(account, _)| !is_gone(account));
        let has_all =
            self.accounts().iter().filter(|account| !is_gone(account)).all(|account| accounts.contains(account));
        let may_be = match self.data.role(inviter) {
            Role::Owner => true,
            Role::Admin => had_roles.eq(&data.roles),
            Role::Member => had_roles.eq(&data.roles) && has_all && accounts.is_subset(&self.accounts()),
        };
        data.generation > self.data.generation && data.kind == self.data.kind && may_be
    }

    fn has(&self, account: AccountId) -> bool {
        self.members.iter().any(|member| member.account == account)
    }

    fn accounts(&self) -> BTreeSet<AccountId> {
        self.members.iter().map(|member| member.account).collect()
    }
}

/// How far reading its log on this connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Attachment {
    #[default]
    No,
    Asked,
    /// The log had that many entries then.
    Yes {
        length: Position,
    },
}

/// What is wanted of a conversation, until it is so.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Want {
    Add(AccountId),
    /// Another device of the own account (C7).
    AddDevice(DeviceId),
    /// A leaf whose device was revoked (C7).
    DropDevice(DeviceId),
    Readmit(DeviceId),
    Remove(AccountId),
    Rename(String),
    SetRole(AccountId, Role),
    Update,
}

impl Want {
    /// Whom it is about, where it is about somebody.
    fn account(&self) -> Option<AccountId> {
        match self {
            Want::Add(account) | Want::Remove(account) | Want::SetRole(account, _) => Some(*account),
            Want::AddDevice(_) | Want::DropDevice(_) | Want::Readmit(_) | Want::Rename(_) | Want::Update => None,
        }
    }

    /// Whether a person has said so; the rest is seen from the conversation.
    fn is_of_person(&self) -> bool {
        matches!(self, Want::Add(_) | Want::Remove(_) | Want::Rename(_) | Want::SetRole(..))
    }
}

/// A commit of this device that waits for its position.
struct Pending {
    envelope: EnvelopeId,
    /// Whether it begins the conversation.
    creates: bool,
    entry: Vec<u8>,
    /// The roster that it replaces.
    before: RosterHash,
    roster: Vec<InboxAddress>,
    welcomes: Vec<(InboxAddress, Vec<u8>)>,
    /// What the Welcomes name by its hash.
    blob: Option<Vec<u8>>,
    /// How far it is on this connection.
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Progress {
    #[default]
    Waits,
    /// The blob is on its way.
    Uploading,
    Uploaded,
    Sent,
}

const FOUNDING: u16 = 1;
const REMOVED: u16 = 2;
const BEHIND: u16 = 4;
const MUST_UPDATE: u16 = 8;
const SEEKS: u16 = 16;
const WANTS_OUT: u16 = 32;
const MISSED: u16 = 64;
const PROVISIONAL: u16 = 128;
const UNPROVEN: u16 = 256;
const REWRITTEN: u16 = 512;
const DOUBTED: u16 = 1024;

impl Conversation {
    fn new(id: ConversationId, kind: ConversationKind, peer: Option<AccountId>, now: Time) -> Conversation {
        Conversation {
            kind,
            peer,
            nonce: None,
            group: None,
            founding: false,
            removed: false,
            behind: false,
            provisional: false,
            missed: false,
            rewritten: false,
            doubted: false,
            must_update: false,
            cursor: Position::START,
            newest_commit: Position::START,
            chain: chain_start(id),
            joined_by: None,
            seeks: false,
            unproven: false,
            wants_out: false,
            own_leaves: Vec::new(),
            sealed: 0,
            updated_at: now,
            update_due: None,
            leaving: BTreeSet::new(),
            missed_behind: None,
            asked_for: Vec::new(),
            grown_at: Position::START,
            wants: Vec::new(),
            pending: None,
            attachment: Attachment::No,
            backlog: VecDeque::new(),
            chains: BTreeMap::from([(Position::START, chain_start(id))]),
            wait_for: Position::START,
            claimed: BTreeMap::new(),
            claimed_own: BTreeMap::new(),
            devices_due: None,
            claim_later: BTreeMap::new(),
            leave_due: None,
            readds: BTreeMap::new(),
            own_readd: None,
            lost: None,
            readd_due: None,
            attach_after: None,
            attach_refusals: 0,
            readd_again: None,
            readds_sent: 0,
            answered: Vec::new(),
            generation: 0,
            without_welcome: None,
            told_newest: Position::START,
            awaits_own: false,
            own_claims: 0,
            commit_after: None,
            doubted_since: None,
            compared: None,
            said_again: (0, 0),
            asking: BTreeMap::new(),
            looked_upto: Position::START,
            anew_due: None,
            told_roster: None,
        }
    }

    fn load(id: ConversationId, record: ConversationRecord, group: Option<Group>) -> Conversation {
        let has = |flag| record.flags & flag != 0;
        Conversation {
            nonce: record.nonce,
            group,
            founding: has(FOUNDING),
            removed: has(REMOVED),
            behind: has(BEHIND),
            provisional: has(PROVISIONAL),
            missed: has(MISSED),
            rewritten: has(REWRITTEN),
            doubted: has(DOUBTED),
            must_update: has(MUST_UPDATE),
            cursor: record.cursor,
            newest_commit: record.newest_commit,
            chain: record.chain,
            joined_by: record.joined_by,
            seeks: has(SEEKS),
            unproven: has(UNPROVEN),
            wants_out: has(WANTS_OUT),
            own_leaves: record.own_leaves,
            sealed: record.sealed,
            update_due: record.update_due,
            leaving: record.leaving.into_iter().collect(),
            missed_behind: record.missed_behind,
            asked_for: record.asked_for,
            grown_at: record.grown_at,
            chains: BTreeMap::from([(record.cursor, record.chain)]),
            generation: record.generation,
            // What is not persisted, and what `load_intent` brings.
            ..Conversation::new(id, record.kind, record.peer, record.updated_at)
        }
    }

    fn to_record(&self) -> ConversationRecord {
        let flag = |is, flag| if is { flag } else { 0 };
        ConversationRecord {
            kind: self.kind,
            peer: self.peer,
            nonce: self.nonce,
            group: self.group.as_ref().map_or(Vec::new(), Group::id).into(),
            flags: flag(self.founding, FOUNDING)
                | flag(self.removed, REMOVED)
                | flag(self.behind, BEHIND)
                | flag(self.must_update, MUST_UPDATE)
                | flag(self.missed, MISSED)
                | flag(self.rewritten, REWRITTEN)
                | flag(self.doubted, DOUBTED)
                | flag(self.provisional, PROVISIONAL)
                | flag(self.seeks, SEEKS)
                | flag(self.unproven, UNPROVEN)
                | flag(self.wants_out, WANTS_OUT),
            cursor: self.cursor,
            newest_commit: self.newest_commit,
            chain: self.chain,
            joined_by: self.joined_by,
            own_leaves: self.own_leaves.clone(),
            generation: self.generation,
            sealed: self.sealed,
            updated_at: self.updated_at,
            update_due: self.update_due,
            leaving: self.leaving.iter().copied().collect(),
            missed_behind: self.missed_behind,
            asked_for: self.asked_for.clone(),
            grown_at: self.grown_at,
        }
    }

    /// Whether this device's commit that creates it is still on its way: nobody else knows of it yet.
    pub(crate) fn is_about_to_begin(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.creates)
    }

    /// Whether this device is in it and can follow it.
    pub(crate) fn is_active(&self) -> bool {
        !self.removed && !self.behind && self.group.as_ref().is_some_and(Group::is_active)
    }

    fn place(&self) -> Place {
        Place { position: self.cursor, chain: self.chain }
    }

    /// Whether all that its log held was read, so that what is sealed now is sealed in the epoch in force (L4).
    fn is_caught_up(&self) -> bool {
        let Attachment::Yes { length } = self.attachment else { return false };
        self.is_active() && !self.seeks && self.backlog.is_empty() && self.cursor >= length.max(self.wait_for)
    }

    /// Whether messages may be sealed: nothing is while a commit waits (L3).
    pub(crate) fn may_seal(&self) -> bool {
        self.is_caught_up() && self.pending.is_none() && !self.must_update && self.may_seal_unrenewed()
    }

    /// Whether a person may write into it: it is there, or about to begin.
    pub(crate) fn may_write(&self) -> bool {
        !self.removed && (self.founding || self.behind || self.group.is_some())
    }

    /// Seals content into an entry.
    pub(crate) fn seal(
        &mut self,
        desk: &mut Desk<'_>,
        envelope: EnvelopeId,
        content: &[u8],
    ) -> Result<Vec<u8>, SealedError> {
        let place = self.place();
        let body = self.group.as_mut().ok_or(SealedError::NoMember)?.seal(desk, place, content)?;
        self.sealed += 1;
        if Content::decode(content).is_ok_and(|content| content.part == Part::Leave) {
            self.own_leaves.push(envelope);
        }
        let (kind, after) = (EntryKind::Message, Some(self.newest_commit));
        Ok(Entry { kind, after, envelope, body: Body::Inline(body) }.encode())
    }

    fn wants(&mut self, want: Want) {
        if !self.wants.contains(&want) {
            self.wants.push(want);
        }
    }

    fn note_chain(&mut self, position: Position, chain: Chain) {
        (self.cursor, self.chain) = (position, chain);
        self.chains.insert(position, chain);
        while self.chains.len() > CHAINS_KEPT_MAX {
            self.chains.pop_first();
        }
    }

    /// The next time after `now` at which something can be done that cannot be done now. A time that has come is none: what was
    /// due is wanted by then, or waits for something else.
    fn wake(&self, now: Time) -> Option<Time> {
        let can_commit = self.founding || self.is_caught_up();
        let wants_commit = can_commit && self.pending.is_none();
        let resends = self.pending.as_ref().is_some_and(|pending| pending.progress == Progress::Waits);
        let again = self.commit_after.filter(|_| resends || (wants_commit && !self.wants.is_empty()));
        let wants_claims = wants_commit && (self.adds().next().is_some() || self.own_adds().next().is_some());
        let claims = self.claim_later.values().copied().filter(|at| *at > now && wants_claims).min();
        let is_idle = self.is_caught_up();
        let update = self.update_due.filter(|_| is_idle && !self.wants.contains(&Want::Update));
        let leave = self.leave_due.filter(|_| is_idle);
        let is_wanted = |device: &DeviceId| self.wants.contains(&Want::Readmit(*device));
        let readd = self.readd_due.filter(|_| is_idle && !self.readds.keys().all(is_wanted));
        let waits_for_welcome = self.group.is_none() && !self.behind && !self.removed && !self.awaits_own;
        let welcome = self.without_welcome.filter(|_| waits_for_welcome);
        let welcome = welcome.map(|since| since.plus(healing::WELCOME_MS));
        let asks = self.readd_again.filter(|_| self.behind && !self.removed);
        let attach = self.attach_after.filter(|_| self.attachment == Attachment::No && !self.removed);
        let devices = self.devices_due.filter(|_| is_idle);
        let anew = self.anew_due.filter(|_| self.behind && !self.removed);
        let times = [attach, again, claims, update, leave, readd, welcome, asks, devices, anew];
        times.into_iter().flatten().filter(|at| *at > now).min()
    }

    /// What belonged to a connection goes with it.
    pub(crate) fn forget_connection(&mut self) {
        self.attachment = Attachment::No;
        self.without_welcome = None;
        self.awaits_own = false;
        self.backlog.clear();
        self.wait_for = Position::START;
        if let Some(pending) = &mut self.pending {
            pending.progress = Progress::Waits;
        }
    }

    /// The clock was set back: what was to happen at a time of before might wait for hours. It happens now.
    pub(crate) fn clock_went_back(&mut self, now: Time) {
        let soon = |due: &mut Option<Time>| *due = due.map(|due| due.min(now));
        soon(&mut self.update_due);
        soon(&mut self.leave_due);
        soon(&mut self.readd_due);
        soon(&mut self.devices_due);
        soon(&mut self.readd_again);
        soon(&mut self.attach_after);
        soon(&mut self.commit_after);
        soon(&mut self.without_welcome);
        soon(&mut self.anew_due);
        soon(&mut self.doubted_since);
        self.claim_later.clear();
        self.updated_at = self.updated_at.min(now);
    }

    /// Which of its groups the one is that this device has, or had last.
    fn last_generation(&self) -> u32 {
        self.group.as_ref().map_or(self.generation, |group| group.data().generation)
    }

    fn leaves_of_device(&self, device: DeviceId) -> Vec<u32> {
        let members = self.group.as_ref().map(Group::members).unwrap_or_default();
        members.iter().filter(|member| member.device == device).map(|member| member.leaf).collect()
    }

    /// Devices of an account that are in it.
    fn leaves_of(&self, account: AccountId) -> Vec<u32> {
        let members = self.group.as_ref().map(Group::members).unwrap_or_default();
        members.iter().filter(|member| member.account == account).map(|member| member.leaf).collect()
    }
}

impl Want {
    fn load(record: WantRecord) -> Result<Want, RecordError> {
        Ok(match record {
            WantRecord::Add { account } => Want::Add(account),
            WantRecord::Readmit { device } => Want::Readmit(device),
            WantRecord::AddDevice { device } => Want::AddDevice(device),
            WantRecord::DropDevice { device } => Want::DropDevice(device),
            WantRecord::Remove { account } => Want::Remove(account),
            WantRecord::Rename { name } => Want::Rename(name.read()?),
            WantRecord::SetRole { account, role } => Want::SetRole(account, role),
            WantRecord::Update => Want::Update,
        })
    }

    fn to_record(&self) -> WantRecord {
        match self {
            Want::Add(account) => WantRecord::Add { account: *account },
            Want::Readmit(device) => WantRecord::Readmit { device: *device },
            Want::AddDevice(device) => WantRecord::AddDevice { device: *device },
            Want::DropDevice(device) => WantRecord::DropDevice { device: *device },
            Want::Remove(account) => WantRecord::Remove { account: *account },
            Want::Rename(name) => WantRecord::Rename { name: Text::new(name) },
            Want::SetRole(account, role) => WantRecord::SetRole { account: *account, role: *role },
            Want::Update => WantRecord::Update,
        }
    }
}

impl Pending {
    /// Whether this entry, read in the log, is this commit.
    pub(crate) fn is_read(&self, entry: &Entry, bytes: &[u8]) -> bool {
        self.envelope == entry.envelope && self.entry == bytes
    }

    fn load(record: PendingRecord) -> Pending {
        Pending {
            envelope: record.envelope,
            creates: record.creates == 1,
            entry: record.entry.into_vec(),
            before: record.before,
            roster: record.roster,
            welcomes: record.welcomes.into_iter().map(|(inbox, entry)| (inbox, entry.into_vec())).collect(),
            blob: record.blob.map(|blob| blob.into_vec()),
            progress: Progress::Waits,
        }
    }

    fn to_record(&self) -> PendingRecord {
        PendingRecord {
            envelope: self.envelope,
            creates: u8::from(self.creates),
            entry: self.entry.clone().into(),
            before: self.before,
            roster: self.roster.clone(),
            welcomes: self.welcomes.iter().map(|(inbox, entry)| (*inbox, entry.clone().into())).collect(),
            blob: self.blob.clone().map(Into::into),
        }
    }
}

impl Engine {
    /// Whether this device takes part in conversations: then direct mode is not for it (D).
    pub(crate) fn is_mls(&self) -> bool {
        // Of all devices alike; this one may not be listed yet.
        self.log.devices().any(|card| card.modes.contains(&Mode::Mls))
    }

    pub(crate) fn load_conversation(&mut self, key: &[u8], record: ConversationRecord) -> Result<(), RecordError> {
        let id = ConversationId::try_from(key).map_err(|_| RecordError::Damaged)?;
        let group = match record.group.as_slice() {
            [] => None,
            name => {
                let group = Group::load(&mut self.mls, name).map_err(|_| RecordError::Damaged)?;
                Some(group.ok_or(RecordError::Damaged)?)
            }
        };
        self.conversations.insert(id, Conversation::load(id, record, group));
        Ok(())
    }

    pub(crate) fn load_intent(&mut self, key: &[u8], record: IntentRecord) -> Result<(), RecordError> {
        let id = ConversationId::try_from(key).map_err(|_| RecordError::Damaged)?;
        let conversation = self.conversations.get_mut(&id).ok_or(RecordError::Damaged)?;
        conversation.wants = record.intents.into_iter().map(Want::load).collect::<Result<_, _>>()?;
        conversation.pending = record.pending.map(Pending::load);
        conversation.readds = record.readds.into_iter().map(|readd| (readd.device, readd.entry.into_vec())).collect();
        conversation.own_readd = record.own_readd.map(|entry| entry.into_vec());
        conversation.lost = record.lost.map(Lost::load).transpose()?;
        Ok(())
    }

    pub(crate) fn save_conversation(&self, turn: &mut Turn<'_>, id: ConversationId) {
        if let Some(conversation) = self.conversations.get(&id) {
            turn.put(Table::Conversation, id.0, record::encode(&conversation.to_record()));
        }
    }

    fn save_intent(&self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        let asks = !conversation.readds.is_empty() || conversation.own_readd.is_some() || conversation.lost.is_some();
        if conversation.wants.is_empty() && conversation.pending.is_none() && !asks {
            return turn.delete(Table::Intent, id.0);
        }
        let record = IntentRecord {
            intents: conversation.wants.iter().map(Want::to_record).collect(),
            pending: conversation.pending.as_ref().map(Pending::to_record),
            readds: conversation
                .readds
                .iter()
                .map(|(device, entry)| ReaddRecord { device: *device, entry: entry.clone().into() })
                .collect(),
            own_readd: conversation.own_readd.clone().map(Into::into),
            lost: conversation.lost.clone().map(|lost| LostRecord {
                group: lost.group.into(),
                members: lost.members.iter().map(|member| (member.account, member.device, member.inbox)).collect(),
                roster: lost.roster,
                data: lost.data.encode().into(),
            }),
        };
        turn.put(Table::Intent, id.0, record::encode(&record));
    }

    /// What MLS has changed in this step goes into it.
    pub(crate) fn save_mls(&mut self, turn: &mut Turn<'_>) {
        for (key, page) in self.mls.take_changes() {
            match page {
                Some(page) => turn.step.changes.push(record::Change::Put { table: Table::Mls, key, value: page }),
                None => turn.delete(Table::Mls, key),
            }
        }
    }

    /// This store was put back (N3): what its ratchets would seal with next may have been used, and the private keys of key
    /// packages that were published since are lost.
    pub(crate) fn distrust_ratchets(&mut self, turn: &mut Turn<'_>) {
        let ids: Vec<_> = self.conversations.keys().copied().collect();
        for id in ids {
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.must_update = true;
                (conversation.own_readd, conversation.readd_again) = (None, None);
            }
            self.drop_pending(turn, id);
            if self.conversations.get(&id).is_some_and(|conversation| conversation.seeks) {
                // Where it joined, a newer store may have found, and read on from there: that is not to be found again.
                self.fall_behind(turn, id);
            }
            self.save_conversation(turn, id);
        }
        self.own.lists_due = true;
        self.save_own(turn);
    }

    // What a person wants.

    /// Begins a conversation of two, if there is none: content waits in the outbox meanwhile (L4).
    pub(crate) fn begin_one_to_one(&mut self, turn: &mut Turn<'_>, peer: AccountId) {
        let id = one_to_one(self.log.id(), peer);
        if let Some(conversation) = self.conversations.get_mut(&id) {
            if conversation.founding && conversation.wants.is_empty() {
                // It could not be begun the last time.
                conversation.wants(Want::Add(peer));
                self.save_intent(turn, id);
            }
            return;
        }
        let mut conversation = Conversation::new(id, ConversationKind::OneToOne, Some(peer), turn.now);
        conversation.founding = true;
        conversation.wants = vec![Want::Add(peer)];
        self.other_devices().for_each(|device| conversation.wants(Want::AddDevice(device)));
        self.conversations.insert(id, conversation);
        self.save_conversation(turn, id);
        self.save_intent(turn, id);
    }

    pub(crate) fn create_group(
        &mut self,
        turn: &mut Turn<'_>,
        name: String,
        members: Vec<AccountId>,
    ) -> Result<Reply, Refusal> {
        if !self.is_mls() {
            return Err(Refusal::DirectOnly);
        }
        if name.len() > CONVERSATION_NAME_MAX || members.len() >= ROSTER_MAX {
            return Err(Refusal::TooMuch);
        }
        members.iter().try_for_each(|account| self.may_be_added(*account))?;
        let nonce = turn.random();
        let id = group_id(self.log.id(), nonce);
        let mut conversation = Conversation::new(id, ConversationKind::Group, None, turn.now);
        (conversation.founding, conversation.nonce) = (true, Some(nonce));
        conversation.wants(Want::Rename(name));
        members.into_iter().for_each(|account| conversation.wants(Want::Add(account)));
        self.other_devices().for_each(|device| conversation.wants(Want::AddDevice(device)));
        self.conversations.insert(id, conversation);
        self.save_conversation(turn, id);
        self.save_intent(turn, id);
        Ok(Reply::Group(id))
    }

    /// The other devices of this account.
    pub(super) fn other_devices(&self) -> impl Iterator<Item = DeviceId> {
        let own = self.secrets.device_id();
        self.log.devices().map(|card| card.key.device_id()).filter(move |device| *device != own)
    }

    fn may_be_added(&self, account: AccountId) -> Result<(), Refusal> {
        let contact = self.contacts.get(&account).ok_or(Refusal::UnknownContact)?;
        if contact.blocked {
            return Err(Refusal::Blocked);
        }
        if contact.log.is_retired() {
            return Err(Refusal::ContactRetired);
        }
        if contact.is_mls() { Ok(()) } else { Err(Refusal::NotForGroups) }
    }

    pub(crate) fn change_group(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        change: GroupChange,
    ) -> Result<Reply, Refusal> {
        let own = self.log.id();
        let conversation = self.conversations.get(&id).filter(|c| c.kind == ConversationKind::Group && !c.removed);
        let conversation = conversation.ok_or(Refusal::UnknownConversation)?;
        let role_of = |account| conversation.group.as_ref().map_or(Role::Owner, |group| group.data().role(account));
        let role = role_of(own);
        let allowed = |is: bool| if is { Ok(()) } else { Err(Refusal::NotAllowed) };
        let wants = match change {
            GroupChange::Add(accounts) => {
                allowed(role < Role::Member)?;
                accounts.iter().try_for_each(|account| self.may_be_added(*account))?;
                accounts.into_iter().map(Want::Add).collect()
            }
            GroupChange::Remove(account) if account == own => return self.change_group(turn, id, GroupChange::Leave),
            GroupChange::Remove(account) => {
                allowed(role < role_of(account))?;
                vec![Want::Remove(account)]
            }
            GroupChange::Rename(name) => {
                allowed(role < Role::Member)?;
                if name.len() > CONVERSATION_NAME_MAX {
                    return Err(Refusal::TooMuch);
                }
                vec![Want::Rename(name)]
            }
            GroupChange::SetRole(account, role_now) => {
                allowed(role == Role::Owner)?;
                vec![Want::SetRole(account, role_now)]
            }
            GroupChange::Leave => return self.leave_group(turn, id),
        };
        if let Some(conversation) = self.conversations.get_mut(&id) {
            for want in wants {
                // The newest word counts: who is added again is not removed, and the other way round.
                conversation.wants.retain(|old| match (old, &want) {
                    (Want::Add(a), Want::Remove(b)) | (Want::Remove(a), Want::Add(b)) => a != b,
                    (Want::Rename(_), Want::Rename(_)) => false,
                    (Want::SetRole(a, _), Want::SetRole(b, _)) => a != b,
                    _ => true,
                });
                conversation.wants(want);
            }
        }
        self.save_intent(turn, id);
        Ok(Reply::Done)
    }

    // What others bring.

    /// Members' account logs, by which a commit or a Welcome was judged: who is new becomes known, and a pinned log is
    /// continued or left as it is (I3).
    fn take_evidence(&mut self, turn: &mut Turn<'_>, evidence: &Evidence, members: &BTreeSet<AccountId>) {
        let own = self.log.id();
        if let Some(log) = evidence.log(own).filter(|log| log.entries().len() > self.log.entries().len()) {
            // Another device of this account has put something there.
            let entries = log.entries().to_vec();
            self.take_own_log(turn, &entries);
        }
        let is_wanted = |log: &&AccountLog| log.id() != own && members.contains(&log.id());
        let logs: Vec<AccountLog> = evidence.logs().filter(is_wanted).cloned().collect();
        for log in logs {
            let account = log.id();
            let is_full = self.contacts.len() >= CONTACTS_MAX;
            match self.contacts.get_mut(&account) {
                None if is_full => {}
                None => {
                    self.insert_contact(account, Contact::new(None, log, Vec::new(), Standing::Stranger));
                    self.save_contact(turn, account);
                    // What they are called only the relay says.
                    self.link.to_refresh.insert(account);
                }
                Some(contact) if log.entries().len() > contact.log.entries().len() => {
                    if contact.log.advance(log.entries()).is_err() {
                        turn.event(crate::Event::BadAnswer { account: Some(account) });
                    }
                    self.revoked.extend(contact.log.revoked());
                    self.save_contact(turn, account);
                }
                Some(_) => {}
            }
        }
    }

    /// The account logs of all members, and of others.
    fn evidence_of(&self, members: impl IntoIterator<Item = AccountId>) -> Evidence {
        Evidence::of(members.into_iter().filter_map(|account| self.log_of(account)))
    }

    /// An account's log, as far as it is known here: the own one, or a contact's.
    fn log_of(&self, account: AccountId) -> Option<&AccountLog> {
        match account == self.log.id() {
            true => Some(&self.log),
            false => self.contacts.get(&account).map(|contact| &contact.log),
        }
    }

    // The connection.

    /// Moves every conversation on as far as it goes now.
    pub(crate) fn pump_conversations(&mut self, turn: &mut Turn<'_>) {
        if !self.link.is_active() || !self.is_mls() {
            return;
        }
        self.fetch_welcomes(turn);
        let ids: Vec<_> = self.conversations.keys().copied().collect();
        for id in ids {
            self.heal(turn, id);
            self.attach(turn, id);
            self.want_what_is_due(turn, id);
            self.commit_if_wanted(turn, id);
            self.send_pending(turn, id);
        }
    }

    fn attach(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let is_there = !conversation.is_about_to_begin();
        let is_ours = !conversation.founding && !conversation.removed;
        let may_ask = conversation.attach_after.is_none_or(|after| turn.now >= after);
        if conversation.attachment == Attachment::No && is_ours && is_there && may_ask {
            conversation.attachment = Attachment::Asked;
            self.ask(turn, Asked::Attach(id), |request| ToRelay::Attach { request, conversation: id });
        }
    }

    /// When a conversation wants to be looked at again.
    pub(crate) fn conversations_wake(&self, now: Time) -> Option<Time> {
        if !self.link.is_active() {
            return None;
        }
        self.conversations.values().filter_map(|conversation| conversation.wake(now)).min()
    }

    // What an application sees.

    pub(crate) fn conversation_views(&self) -> Vec<ConversationView> {
        let missing = |id| self.missing_devices(id).len();
        self.conversations.iter().map(|(id, conversation)| conversation_view(*id, conversation, missing(*id))).collect()
    }
}

fn conversation_view(id: ConversationId, conversation: &Conversation, missing_devices: usize) -> ConversationView {
    let group = conversation.group.as_ref();
    let members = group.map(Group::members).unwrap_or_default();
    let role = |account| group.map_or(Role::Member, |group| group.data().role(account));
    let accounts: BTreeSet<_> = members.iter().map(|member| member.account).collect();
    ConversationView {
        conversation: id,
        kind: conversation.kind,
        name: group.map(|group| group.data().name.clone()).unwrap_or_default(),
        members: accounts.into_iter().map(|account| (account, role(account))).collect(),
        devices: members.len(),
        active: conversation.is_active() && !conversation.is_about_to_begin(),
        out: conversation.removed,
        epoch: group.map_or(0, Group::epoch),
        authenticator: group.map(Group::epoch_authenticator).unwrap_or_default(),
        read_upto: conversation.cursor,
        waiting: conversation.wants.len(),
        leaving: conversation.wants_out,
        missing_devices,
    }
}

/// What MLS works with in this step; a macro, because it borrows three fields of the engine and leaves the others.
macro_rules! desk {
    ($engine:ident, $turn:ident) => {
        sealwire_session::mls::Desk { secrets: &$engine.secrets, records: &mut $engine.mls, rng: &mut *$turn.rng }
    };
}
pub(crate) use desk;

#[cfg(test)]
mod tests {
    use super::*;

    /// C11: while the relay puts off the commit that replaces own keys, so much is sealed without, and no more.
    #[test]
    fn so_much_is_sealed_without_new_keys() {
        let mut conversation = Conversation::new(ConversationId([1; 32]), ConversationKind::Group, None, Time(0));
        for (sealed, may) in [(0, true), (999, true), (1_000, false), (1_001, false)] {
            conversation.sealed = sealed;
            assert_eq!(conversation.may_seal_unrenewed(), may, "after {sealed}");
        }
    }

    /// C4, C10: into which group a device is led that has lost its own one, and by whom.
    #[test]
    fn a_member_leads_into_the_next_generation_and_a_stranger_nowhere() {
        let [owner, admin, member, stranger] = [1, 2, 3, 4].map(|byte| AccountId([byte; 32]));
        let data = |generation, roles: &[(AccountId, Role)]| GroupData {
            conversation: ConversationId([7; 32]),
            generation,
            kind: ConversationKind::Group,
            name: "Lunch".into(),
            roles: roles.to_vec(),
            later: Default::default(),
        };
        let members = [owner, admin, member].map(|account| LostMember {
            account,
            device: DeviceId(account.0),
            inbox: InboxAddress([account.0[0]; 16]),
        });
        let (members, roles) = (members.to_vec(), [(owner, Role::Owner), (admin, Role::Admin)]);
        let lost = Lost { group: vec![1], members, roster: RosterHash([0; 32]), data: data(2, &roles) };
        let leads_without = |gone: Option<AccountId>, data: &GroupData, accounts: &[AccountId], by| {
            lost.goes_on_as(data, &accounts.iter().copied().collect(), by, |account| gone == Some(*account))
        };
        let leads = |data: &GroupData, accounts: &[AccountId], by| leads_without(None, data, accounts, by);
        let (all, next) = ([owner, admin, member], data(3, &roles));
        for by in all {
            assert!(leads(&next, &all, by));
        }
        let without_owner = data(3, &roles[1..]);
        assert!(leads_without(Some(owner), &without_owner, &[admin, member], member), "the owner's account is gone");
        for by in [admin, member] {
            assert!(!leads(&without_owner, &[admin, member], by), "the owner is left out");
            let owners = data(3, &[(owner, Role::Owner), (by, Role::Owner)]);
            assert!(!leads(&owners, &all, by), "a role is taken");
            assert!(!leads(&data(3, &[]), &all, by), "roles are dropped");
        }
        let more = [owner, admin, member, stranger];
        assert!(leads(&next, &more, owner) && leads(&next, &more, admin), "whoever may add may");
        assert!(!leads(&next, &more, member), "a stranger comes in");
        assert!(!leads(&next, &[owner, admin], member), "somebody is left out");
        for old in [data(2, &roles), data(1, &roles)] {
            assert!(!leads(&old, &all, owner), "not a later one");
        }
        assert!(!leads(&GroupData { kind: ConversationKind::OneToOne, ..next }, &all, owner));
    }
}
