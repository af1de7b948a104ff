//! The engine itself: what it holds in memory, how it is made and loaded, and which part handles what.

use std::collections::{BTreeMap, BTreeSet};

use rand_core::CryptoRng;
use sealwire_keys::{AccountEntry, AccountKind, AccountLog, Change as AccountChange, Mode, SignedEntry, sign_entry};
use sealwire_session::direct::{Commitment, DirectSession};
use sealwire_session::mls::{Records, Suite};
use sealwire_session::{DeviceSecrets, ReplayWindow};
use sealwire_wire::content::Status;
use sealwire_wire::handle::Handle;
use sealwire_wire::{
    AccountId, ContentId, ConversationId, DeviceHint, DeviceId, EnvelopeId, InboxAddress, Incarnation, InstanceId,
    Position, PresenceToken, Time,
};
use zeroize::Zeroizing;

use crate::command::{Command, ContactView, ConversationView, DeviceView, Invite, Refusal, Reply};
use crate::connection::Link;
use crate::contacts::{Contact, Derived};
use crate::conversation::{Conversation, KeyPackageRecord, WelcomeRecord};
use crate::linking::Linking;
use crate::outbox::Outgoing;
use crate::record::{
    self, Change, HeldRecord, IncarnationRecord, OwnRecord, ProgressRecord, RecordError, SeenRecord, Table, Text,
};
use crate::step::{Input, Step, Ticket, Turn};

/// What a new account is made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The handle to ask for; its host is the relay's name.
    pub handle: Handle,
    /// For relays that want one; else empty.
    pub invite: Invite,
    /// The relay's key, where it is known beforehand; else the first one seen is pinned.
    pub relay_key: Option<[u8; 32]>,
    /// How long receipts are gathered; `limits::RECEIPT_DELAY_MS` unless there is a reason.
    pub receipt_delay_ms: u64,
    /// Conversations, which is the default, or the plain scheme for peers that know nothing else (D).
    pub mode: Mode,
    /// Of conversations. Everything but tests takes the default.
    pub suite: Suite,
    /// How many key packages the relay should hold, so that others can begin conversations while this device is away;
    /// `limits::KEY_PACKAGES_MAX` unless there is a reason.
    pub key_packages: u32,
}

/// Who this is. All of it is public.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// The account.
    pub account: AccountId,
    /// The handle that was asked for.
    pub handle: Handle,
    /// Whether the relay has confirmed it.
    pub registered: bool,
    /// This device.
    pub device: DeviceId,
    /// Where it is written to.
    pub inbox: InboxAddress,
    /// The relay's pinned key.
    pub relay_key: Option<[u8; 32]>,
    /// Whether contacts may see when this device is connected.
    pub presence: bool,
    /// Entries of the account log.
    pub entries: u64,
    /// Whether the account was ended.
    pub retired: bool,
    /// Messages that the relay has not accepted yet.
    pub queued: usize,
}

/// Why a store does not give an engine. A failed load is an error and never "empty".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// There is no account in it.
    #[error("there is no account in this store")]
    Empty,
    /// A newer program has written to it.
    #[error("this store was written by a newer version; use that one")]
    Newer,
    /// A record cannot be read.
    #[error("a record in table {0:?} is damaged")]
    Damaged(Table),
}

/// The client's mind. One value per device; whoever holds it feeds it inputs and performs its steps.
pub struct Engine {
    pub(crate) secrets: DeviceSecrets,
    /// Made, persisted, and not yet confirmed by the relay (D3).
    pub(crate) next_secrets: Option<DeviceSecrets>,
    pub(crate) log: AccountLog,
    pub(crate) own: Own,
    pub(crate) incarnation: IncarnationRecord,
    pub(crate) progress: ProgressRecord,
    pub(crate) contacts: BTreeMap<AccountId, Contact>,
    pub(crate) handles: BTreeMap<Handle, AccountId>,
    /// Whose device a hint means.
    pub(crate) hints: BTreeMap<DeviceHint, AccountId>,
    pub(crate) channels: BTreeMap<Commitment, Channel>,
    /// Derived when first needed; nothing in here is persisted.
    pub(crate) sessions: BTreeMap<Commitment, DirectSession>,
    /// Of whose keys receiving sessions were derived.
    pub(crate) derived: BTreeMap<AccountId, Derived>,
    /// The key that messages to a contact are sealed with now; derived when first needed.
    pub(crate) sending: BTreeMap<AccountId, Commitment>,
    pub(crate) outgoing: BTreeMap<u64, Outgoing>,
    pub(crate) by_envelope: BTreeMap<EnvelopeId, u64>,
    pub(crate) by_content: BTreeMap<ContentId, u64>,
    /// What has to be sent and is not on its way on this connection.
    pub(crate) unsent: BTreeSet<u64>,
    pub(crate) seen: BTreeMap<ContentId, SeenRecord>,
    /// In the order in which they came. Not by position: in a relay's restored store positions begin again (L11).
    pub(crate) held: BTreeMap<u64, HeldRecord>,
    pub(crate) receipts: BTreeMap<(AccountId, ContentId), Status>,
    pub(crate) receipts_due: Option<Time>,
    /// Whether it was loaded, and has not asked since which conversations it is in.
    pub(crate) is_fresh: bool,
    /// A device that is being linked.
    pub(crate) linking: Option<Linking>,
    /// When the last input came: clocks jump.
    last_input: Time,
    /// Devices that their accounts have revoked, as far as is known here.
    pub(crate) revoked: BTreeSet<DeviceId>,
    /// What MLS keeps of all conversations and key packages.
    pub(crate) mls: Records,
    pub(crate) conversations: BTreeMap<ConversationId, Conversation>,
    /// Own ones, by the keys of their records.
    pub(crate) key_packages: BTreeMap<Vec<u8>, KeyPackageRecord>,
    /// Welcomes whose bytes are still to be fetched.
    pub(crate) welcomes: BTreeMap<EnvelopeId, WelcomeRecord>,
    pub(crate) link: Link,
}

/// Whose device this is.
pub(crate) struct Own {
    pub(crate) relay_name: String,
    pub(crate) relay_key: Option<[u8; 32]>,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) handle: Handle,
    pub(crate) invite: String,
    pub(crate) inbox: InboxAddress,
    pub(crate) registered: bool,
    /// Whether this store was found to be put back, and its direct keys are not replaced yet (D3).
    pub(crate) behind: bool,
    pub(crate) receipt_delay_ms: u64,
    pub(crate) presence: Option<PresenceToken>,
    pub(crate) suite: Suite,
    pub(crate) key_packages: u32,
    /// Whether the relay is to be asked which conversations this device is in: its store was put back.
    pub(crate) lists_due: bool,
    pub(crate) publishing: Option<SignedEntry>,
    /// Where the device that it adds is written to.
    pub(crate) publishing_inbox: Option<InboxAddress>,
}

/// The state of one key of direct mode, by its commitment.
pub(crate) enum Channel {
    /// The next counter to seal with.
    Sending { account: AccountId, next: u32 },
    /// The counters that were seen.
    Receiving { account: AccountId, window: ReplayWindow },
}

impl Engine {
    /// Makes a device, and an account that begins with it. The step has to be committed like any other.
    pub fn create(settings: Settings, now: Time, rng: &mut dyn CryptoRng) -> (Engine, Step) {
        let mut turn = Turn { now, rng, step: Step::default() };
        let secrets = DeviceSecrets::generate(turn.rng);
        let genesis = AccountEntry {
            account: AccountId([0; 32]),
            number: 0,
            previous: [0; 32],
            at: now,
            change: AccountChange::Genesis { kind: AccountKind::Person, device: secrets.card_for(settings.mode) },
            signer: secrets.device_id(),
        };
        let log = AccountLog::begin(sign_entry(&genesis, |bytes| secrets.sign(bytes)))
            .expect("an account log begins with the genesis entry that its own device signs");
        let own = Own {
            relay_name: settings.handle.host.clone(),
            relay_key: settings.relay_key,
            instance: None,
            handle: settings.handle,
            invite: settings.invite.0,
            inbox: InboxAddress(turn.random()),
            registered: false,
            behind: false,
            receipt_delay_ms: settings.receipt_delay_ms,
            presence: Some(PresenceToken(turn.random())),
            suite: settings.suite,
            key_packages: settings.key_packages,
            lists_due: false,
            publishing: None,
            publishing_inbox: None,
        };
        let incarnation =
            IncarnationRecord { committed: Incarnation(turn.random()), pending: Incarnation(turn.random()) };
        let progress = ProgressRecord { cursor: Position::START, next: 1, rejected: 0 };
        let engine = Engine::assemble(secrets, log, own, incarnation, progress);
        turn.step.changes.push(Change::Put {
            table: Table::Own,
            key: record::SECRETS.to_vec(),
            value: engine.secrets.to_record(),
        });
        turn.put(Table::Own, record::INCARNATION, record::encode(&engine.incarnation));
        turn.put(Table::Own, record::PROGRESS, record::encode(&engine.progress));
        engine.save_own(&mut turn);
        (engine, turn.step)
    }

    /// Loads an engine from the records of [`Table::LOADED`], in any order.
    ///
    /// # Errors
    /// [`LoadError`]: nothing was changed.
    pub fn load(records: impl IntoIterator<Item = (Table, Vec<u8>, Zeroizing<Vec<u8>>)>) -> Result<Engine, LoadError> {
        let mut own: BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>> = BTreeMap::new();
        let (mut mls, mut others) = (Vec::new(), Vec::new());
        for (table, key, value) in records {
            match table {
                Table::Own => drop(own.insert(key, value)),
                Table::Mls => mls.push((key, value)),
                table => others.push((table, key, value)),
            }
        }
        if own.is_empty() && others.is_empty() {
            return Err(LoadError::Empty);
        }
        // What a conversation is to become is read behind the conversation.
        others.sort_by_key(|(table, ..)| *table);
        let mut engine = Engine::load_own(&own).map_err(in_table(Table::Own))?;
        engine.is_fresh = true;
        engine.mls = Records::load(mls).map_err(|_| LoadError::Damaged(Table::Mls))?;
        for (table, key, value) in others {
            engine.load_record(table, &key, &value).map_err(in_table(table))?;
        }
        Ok(engine)
    }

    /// Handles one input. What comes back has to be committed before its outputs are performed; if that fails, this
    /// value is to be dropped and loaded again.
    pub fn handle(&mut self, input: Input, now: Time, rng: &mut dyn CryptoRng) -> Step {
        let turn = &mut Turn { now, rng, step: Step::default() };
        if now < self.last_input {
            self.conversations.values_mut().for_each(|conversation| conversation.clock_went_back(now));
        }
        self.last_input = now;
        match input {
            Input::Command(ticket, command) => self.command(turn, ticket, command),
            Input::Connected { binding } => self.connected(turn, binding),
            Input::Frame(bytes) => self.frame(turn, &bytes),
            Input::Disconnected => self.disconnected(turn),
            Input::Tick => self.tick(turn),
        }
        self.tick_linking(turn);
        self.flush_receipts(turn);
        self.pump(turn);
        self.save_mls(turn);
        std::mem::take(&mut turn.step)
    }

    /// When [`Input::Tick`] is wanted next. Once a minute in any case: clocks jump.
    pub fn next_wake(&self) -> Option<Time> {
        let receipts = self.receipts_due.filter(|_| self.link.is_active());
        [self.link.next_wake(), receipts, self.conversations_wake(self.last_input), self.linking_wake()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Who this is.
    pub fn profile(&self) -> Profile {
        Profile {
            account: self.log.id(),
            handle: self.own.handle.clone(),
            registered: self.own.registered,
            device: self.secrets.device_id(),
            inbox: self.own.inbox,
            relay_key: self.own.relay_key,
            presence: self.own.presence.is_some(),
            entries: self.log.entries().len() as u64,
            retired: self.log.is_retired(),
            queued: self.outgoing.values().filter(|outgoing| outgoing.waits_for_relay()).count(),
        }
    }

    /// A contact, as an application sees it.
    pub fn contact(&self, account: AccountId) -> Option<ContactView> {
        self.contact_view(account)
    }

    /// The devices of this account.
    pub fn devices(&self) -> Vec<DeviceView> {
        self.device_views()
    }

    /// All conversations, as an application sees them.
    pub fn conversations(&self) -> Vec<ConversationView> {
        self.conversation_views()
    }

    fn command(&mut self, turn: &mut Turn<'_>, ticket: Ticket, command: Command) {
        let reply = match command {
            Command::Send { to, part, in_reply_to } => self.enqueue_message(turn, to, part, in_reply_to),
            Command::Find(handle) => return self.find(turn, ticket, handle),
            Command::Accept(account) => self.accept(turn, account),
            Command::Block(account) => self.set_blocked(turn, account, true),
            Command::Unblock(account) => self.set_blocked(turn, account, false),
            Command::SetVerified(account, verified) => self.set_verified(turn, account, verified),
            Command::Decide { handle, adopt } => self.decide(turn, handle, adopt),
            Command::MarkRead(ids) => self.mark_read(turn, &ids),
            Command::Shown(number) => self.shown(turn, number),
            Command::SetPresence(on) => self.set_presence(turn, on),
            Command::Register { handle, invite } => self.register_as(turn, handle, invite.0),
            Command::Reclaim => self.reclaim(turn),
            Command::TrustRelay => self.trust_relay(turn),
            Command::Reconnect => self.reconnect(turn),
            Command::Retire => return self.retire(turn, ticket),
            Command::Link => self.start_link(turn),
            Command::ConfirmLink(is_the_same) => self.confirm_link(turn, is_the_same),
            Command::Devices => Ok(Reply::Devices(self.device_views())),
            Command::Revoke(device) => return self.revoke(turn, ticket, device),
            Command::Contacts => Ok(Reply::Contacts(self.contact_views())),
            Command::CreateGroup { name, members } => self.create_group(turn, name, members),
            Command::Change { conversation, change } => self.change_group(turn, conversation, change),
            Command::Conversations => Ok(Reply::Conversations(self.conversation_views())),
        };
        turn.reply(ticket, reply);
    }

    fn device_views(&self) -> Vec<DeviceView> {
        let own = self.secrets.device_id();
        let view = |device| DeviceView {
            device,
            since: self.log.device_since(device).unwrap_or(Time(0)),
            is_this: device == own,
        };
        self.log.devices().map(|card| view(card.key.device_id())).collect()
    }

    /// The application has processed a message.
    fn shown(&mut self, turn: &mut Turn<'_>, number: u64) -> Result<Reply, Refusal> {
        turn.delete(Table::Unshown, number.to_be_bytes());
        Ok(Reply::Done)
    }

    /// The number of the next message, either way.
    pub(crate) fn take_number(&mut self, turn: &mut Turn<'_>) -> u64 {
        let number = self.progress.next;
        self.progress.next += 1;
        self.save_progress(turn);
        number
    }

    pub(crate) fn save_progress(&self, turn: &mut Turn<'_>) {
        turn.put(Table::Own, record::PROGRESS, record::encode(&self.progress));
    }

    pub(crate) fn save_own(&self, turn: &mut Turn<'_>) {
        turn.put(Table::Own, record::PROFILE, record::encode(&self.own_record()));
    }

    pub(crate) fn own_record(&self) -> OwnRecord {
        let own = &self.own;
        OwnRecord {
            relay_name: Text::new(&own.relay_name),
            relay_key: own.relay_key,
            instance: own.instance,
            handle: Text::new(&own.handle.to_string()),
            invite: Text::new(&own.invite),
            inbox: own.inbox,
            registered: u8::from(own.registered),
            behind: u8::from(own.behind),
            receipt_delay_ms: own.receipt_delay_ms,
            presence: own.presence,
            classical: u8::from(own.suite == Suite::Classical),
            key_packages: own.key_packages,
            lists_due: u8::from(own.lists_due),
            entries: self.log.entries().iter().map(|entry| entry.0.clone().into()).collect(),
            publishing: own.publishing.as_ref().map(|entry| entry.0.clone().into()),
            publishing_inbox: own.publishing_inbox,
        }
    }

    fn assemble(
        secrets: DeviceSecrets,
        log: AccountLog,
        own: Own,
        incarnation: IncarnationRecord,
        progress: ProgressRecord,
    ) -> Engine {
        let log_revoked = log.revoked().iter().copied().collect();
        Engine {
            secrets,
            next_secrets: None,
            log,
            own,
            incarnation,
            progress,
            contacts: BTreeMap::new(),
            handles: BTreeMap::new(),
            hints: BTreeMap::new(),
            channels: BTreeMap::new(),
            sessions: BTreeMap::new(),
            derived: BTreeMap::new(),
            sending: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            by_envelope: BTreeMap::new(),
            by_content: BTreeMap::new(),
            unsent: BTreeSet::new(),
            seen: BTreeMap::new(),
            held: BTreeMap::new(),
            receipts: BTreeMap::new(),
            receipts_due: None,
            is_fresh: false,
            linking: None,
            revoked: log_revoked,
            last_input: Time(0),
            mls: Records::default(),
            conversations: BTreeMap::new(),
            key_packages: BTreeMap::new(),
            welcomes: BTreeMap::new(),
            link: Link::default(),
        }
    }

    fn load_own(own: &BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>>) -> Result<Engine, RecordError> {
        let value = |key: &[u8]| own.get(key).ok_or(RecordError::Damaged);
        let secrets = |value: &[u8]| DeviceSecrets::from_record(value).map_err(|_| RecordError::Damaged);
        let record: OwnRecord = record::decode(value(record::PROFILE)?)?;
        let entries = record.entries.into_iter().map(|entry| SignedEntry(entry.into_vec()));
        let log = AccountLog::verify(entries).map_err(|_| RecordError::Damaged)?;
        let profile = Own {
            relay_name: record.relay_name.read()?,
            relay_key: record.relay_key,
            instance: record.instance,
            handle: record.handle.read_handle()?,
            invite: record.invite.read()?,
            inbox: record.inbox,
            registered: record.registered == 1,
            behind: record.behind == 1,
            receipt_delay_ms: record.receipt_delay_ms,
            presence: record.presence,
            suite: if record.classical == 1 { Suite::Classical } else { Suite::Hybrid },
            key_packages: record.key_packages,
            lists_due: record.lists_due == 1,
            publishing: record.publishing.map(|entry| SignedEntry(entry.into_vec())),
            publishing_inbox: record.publishing_inbox,
        };
        let incarnation = record::decode(value(record::INCARNATION)?)?;
        let progress = record::decode(value(record::PROGRESS)?)?;
        let mut engine = Engine::assemble(secrets(value(record::SECRETS)?)?, log, profile, incarnation, progress);
        engine.next_secrets = own.get(record::NEXT_SECRETS).map(|value| secrets(value)).transpose()?;
        Ok(engine)
    }

    fn load_record(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        let number = || Ok(u64::from_be_bytes(key.try_into().map_err(|_| RecordError::Damaged)?));
        let content_id = |key: &[u8]| ContentId::try_from(key).map_err(|_| RecordError::Damaged);
        let account = |key: &[u8]| AccountId::try_from(key).map_err(|_| RecordError::Damaged);
        match table {
            Table::Contact => {
                self.insert_contact(account(key)?, Contact::load(record::decode(value)?)?);
            }
            Table::Handle => {
                let handle = std::str::from_utf8(key).ok().and_then(|handle| Handle::parse(handle).ok());
                self.handles.insert(handle.ok_or(RecordError::Damaged)?, record::decode(value)?);
            }
            Table::Channel => {
                let commitment = Commitment(key.try_into().map_err(|_| RecordError::Damaged)?);
                self.channels.insert(commitment, Channel::load(record::decode(value)?)?);
            }
            Table::Outgoing => self.load_outgoing(number()?, Outgoing::load(record::decode(value)?)?),
            Table::Seen => drop(self.seen.insert(content_id(key)?, record::decode(value)?)),
            Table::Held => drop(self.held.insert(number()?, record::decode(value)?)),
            Table::Receipt => {
                let (from, id) = key.split_at_checked(32).ok_or(RecordError::Damaged)?;
                let status = match record::decode(value)? {
                    1u8 => Status::Delivered,
                    2 => Status::Read,
                    _ => return Err(RecordError::Damaged),
                };
                self.receipts.insert((account(from)?, content_id(id)?), status);
                self.receipts_due = Some(Time(0));
            }
            Table::Conversation => self.load_conversation(key, record::decode(value)?)?,
            Table::Intent => self.load_intent(key, record::decode(value)?)?,
            Table::KeyPackage => drop(self.key_packages.insert(key.to_vec(), record::decode(value)?)),
            Table::Welcome => {
                let envelope = EnvelopeId::try_from(key).map_err(|_| RecordError::Damaged)?;
                self.welcomes.insert(envelope, record::decode(value)?);
            }
            Table::Own | Table::Sent | Table::Message | Table::Unshown | Table::Quarantine | Table::Mls => {}
        }
        Ok(())
    }
}

fn in_table(table: Table) -> impl Fn(RecordError) -> LoadError {
    move |error| match error {
        RecordError::Newer => LoadError::Newer,
        RecordError::Damaged => LoadError::Damaged(table),
    }
}
