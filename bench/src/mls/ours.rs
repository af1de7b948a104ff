//! Ours: the session's façade over OpenMLS, with its records, as the engine uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealwire_client::{ClientStore, Unlock};
use sealwire_engine::{Change as StoreChange, Table};
use sealwire_keys::{
    AccountEntry, AccountKind, AccountLog, Change as AccountChange, Mode, blob_hash, chain_start, roster_hash,
    sign_entry,
};
use sealwire_session::DeviceSecrets;
use sealwire_session::mls::{
    Changes, Committed, Desk, Evidence, Group, PageChange, Place, ReceivedKeyPackage, Records, Suite, make_key_package,
};
use sealwire_wire::conversation::{ConversationKind, GroupData, Role, WelcomeBody};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{Delivered, FromRelay, RosterChange, ToRelay, Welcome};
use sealwire_wire::limits::BLOB_CHUNK_MAX;
use sealwire_wire::{AccountId, ConversationId, EnvelopeId, InboxAddress, LogId, Position, Time};

use super::party::{Change, Made, Party, Sizes};

const CONVERSATION: ConversationId = ConversationId([7; 32]);
const ENVELOPE: EnvelopeId = EnvelopeId([1; 16]);
/// Welcomes that are larger than this all together lie in one blob, as the engine does it.
const INLINE_MAX: usize = 64 * 1024;

pub(super) struct Ours {
    secrets: DeviceSecrets,
    rng: UnwrapErr<SysRng>,
    log: AccountLog,
    inbox: InboxAddress,
    records: Records,
    group: Option<Group>,
    /// Of all members.
    logs: BTreeMap<AccountId, AccountLog>,
    /// What the records gave to be persisted, and was not looked at yet.
    changed: Vec<PageChange>,
    /// Bytes of each page.
    pages: BTreeMap<Vec<u8>, usize>,
    store: Option<ClientStore>,
}

/// A key package, and the log of its account.
#[derive(Clone)]
pub(super) struct Card {
    package: Vec<u8>,
    log: AccountLog,
}

/// A member has read nothing yet: what it says of its place is as long as ever.
fn place() -> Place {
    Place { position: Position(0), chain: chain_start(CONVERSATION) }
}

impl Ours {
    fn desk(&mut self) -> Desk<'_> {
        Desk { secrets: &self.secrets, records: &mut self.records, rng: &mut self.rng }
    }

    fn split(&mut self) -> anyhow::Result<(&mut Group, Desk<'_>)> {
        let group = self.group.as_mut().context("in no group")?;
        Ok((group, Desk { secrets: &self.secrets, records: &mut self.records, rng: &mut self.rng }))
    }

    /// After each operation, as the engine does at the end of a step.
    fn take_changes(&mut self) {
        self.changed.extend(self.records.take_changes());
    }
}

fn entry(kind: EntryKind, after: Option<Position>, body: Body) -> Vec<u8> {
    Entry { kind, after, envelope: ENVELOPE, body }.encode()
}

/// Bytes of the frames that bring a commit to the relay: the entry with the roster and the Welcomes, and the blob that
/// holds these where they are large.
fn bytes_up(entry: Vec<u8>, made: &Made) -> usize {
    let mut bytes = 0;
    let mut welcomes = Vec::new();
    if let Some(welcome) = &made.welcome {
        let welcome = WelcomeBody { conversation: CONVERSATION, commit: ENVELOPE, welcome: welcome.clone() }.encode();
        let mut body = Body::Inline(welcome.clone());
        if welcome.len() * made.added.len() > INLINE_MAX {
            let (hash, size) = (blob_hash(&welcome), welcome.len() as u64);
            for (index, chunk) in welcome.chunks(BLOB_CHUNK_MAX).enumerate() {
                let offset = (index * BLOB_CHUNK_MAX) as u64;
                bytes += ToRelay::PutBlob { request: 1, hash, size, offset, bytes: chunk.to_vec() }.encode().len();
            }
            body = Body::Blob(hash);
        }
        let welcome = self::entry(EntryKind::Welcome, None, body);
        welcomes.extend(made.added.iter().map(|inbox| Welcome { inbox: *inbox, entry: welcome.clone() }));
    }
    let inboxes = made.roster.clone();
    let roster = Some(RosterChange { before: roster_hash(&inboxes), inboxes, welcomes });
    bytes + ToRelay::Append { log: LogId::Conversation(CONVERSATION), entry, roster }.encode().len()
}

/// Bytes of the frame that brings a commit to a member.
fn bytes_down(entry: Vec<u8>) -> usize {
    let entries = vec![Delivered { position: Position(1), entry, at: Time(1) }];
    FromRelay::Deliver { log: LogId::Conversation(CONVERSATION), entries }.encode().len()
}

impl Party for Ours {
    type Card = Card;
    const COUNTS: bool = true;

    fn new(number: u32) -> anyhow::Result<Ours> {
        let mut rng = UnwrapErr(SysRng);
        let secrets = DeviceSecrets::generate(&mut rng);
        let genesis = AccountEntry {
            account: AccountId([0; 32]),
            number: 0,
            previous: [0; 32],
            at: Time(1),
            change: AccountChange::Genesis { kind: AccountKind::Person, device: secrets.card_for(Mode::Mls) },
            signer: secrets.device_id(),
        };
        let log = AccountLog::begin(sign_entry(&genesis, |bytes| secrets.sign(bytes)))?;
        let mut inbox = [0; 16];
        inbox[..4].copy_from_slice(&number.to_be_bytes());
        Ok(Ours {
            secrets,
            rng,
            inbox: InboxAddress(inbox),
            records: Records::default(),
            group: None,
            logs: BTreeMap::from([(log.id(), log.clone())]),
            log,
            changed: Vec::new(),
            pages: BTreeMap::new(),
            store: None,
        })
    }

    fn card(&mut self) -> anyhow::Result<Card> {
        let (account, inbox) = (self.log.id(), self.inbox);
        let (_, package) = make_key_package(&mut self.desk(), Suite::Hybrid, account, inbox, false)?;
        self.take_changes();
        Ok(Card { package, log: self.log.clone() })
    }

    fn create(&mut self) -> anyhow::Result<()> {
        let (account, inbox) = (self.log.id(), self.inbox);
        let data = GroupData {
            conversation: CONVERSATION,
            generation: 0,
            kind: ConversationKind::Group,
            name: String::new(),
            roles: vec![(account, Role::Owner)],
            later: Default::default(),
        };
        self.group = Some(Group::create(&mut self.desk(), Suite::Hybrid, data, account, inbox)?);
        self.take_changes();
        Ok(())
    }

    fn commit(&mut self, change: Change<Card>) -> anyhow::Result<Made> {
        let mut changes = Changes::default();
        match change {
            Change::Add(cards) => {
                for Card { package, log } in cards {
                    changes.add.push(ReceivedKeyPackage::check(Suite::Hybrid, &package, &mut self.rng)?);
                    self.logs.insert(log.id(), log);
                }
            }
            Change::Remove(leaf) => changes.remove.push(leaf),
            Change::Update => changes.update = true,
        }
        let added: Vec<_> = changes.add.iter().map(|new| new.member.inbox).collect();
        let evidence = Evidence::of(self.logs.values());
        let (group, mut desk) = self.split()?;
        let committed = group.commit(&mut desk, place(), ENVELOPE, changes, &evidence)?;
        self.take_changes();
        let Committed { body, welcome, roster } = committed;
        Ok(Made { commit: body, welcome, roster, added })
    }

    fn sizes(made: &Made) -> Sizes {
        let entry = entry(EntryKind::Commit, Some(Position(0)), Body::Inline(made.commit.clone()));
        Sizes { up: bytes_up(entry.clone(), made), down: bytes_down(entry) }
    }

    fn merge(&mut self) -> anyhow::Result<()> {
        let (group, mut desk) = self.split()?;
        group.merge_own(&mut desk)?;
        self.take_changes();
        Ok(())
    }

    fn process(&mut self, commit: &[u8]) -> anyhow::Result<()> {
        let (group, mut desk) = self.split()?;
        let judged = group.judge(&mut desk, ENVELOPE, commit, &BTreeSet::new())?;
        group.apply(&mut desk, judged)?;
        self.take_changes();
        Ok(())
    }

    fn join(&mut self, welcome: &[u8]) -> anyhow::Result<()> {
        let joined = Group::join(&mut self.desk(), Suite::Hybrid, CONVERSATION, welcome)?;
        self.logs.extend(joined.evidence.logs().map(|log| (log.id(), log.clone())));
        self.group = Some(joined.group);
        self.take_changes();
        Ok(())
    }

    fn seal(&mut self, content: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (group, mut desk) = self.split()?;
        let message = group.seal(&mut desk, place(), content)?;
        self.take_changes();
        Ok(message)
    }

    fn entry_length(message: &[u8]) -> usize {
        entry(EntryKind::Message, Some(Position(0)), Body::Inline(message.to_vec())).len()
    }

    fn open(&mut self, message: &[u8]) -> anyhow::Result<()> {
        let (group, mut desk) = self.split()?;
        let opened = group.open(&mut desk, message)?;
        std::hint::black_box(opened.plaintext);
        self.take_changes();
        Ok(())
    }

    fn keep_in(&mut self, folder: Option<&Path>) -> anyhow::Result<()> {
        self.written()?;
        self.store = None;
        let Some(folder) = folder else { return Ok(()) };
        let mut store = ClientStore::create(folder, &Unlock::KeyFile(folder.with_extension("key")))?;
        // As many pages as there are, and as large. What stands in them does not matter to a disk.
        let put = |(key, length): (&Vec<u8>, &usize)| StoreChange::Put {
            table: Table::Mls,
            key: key.clone(),
            value: vec![0; *length].into(),
        };
        store.commit(&self.pages.iter().map(put).collect::<Vec<_>>())?;
        self.store = Some(store);
        Ok(())
    }

    fn written(&mut self) -> anyhow::Result<u64> {
        if let Some(store) = &mut self.store {
            let change = |(key, page): &PageChange| match (Table::Mls, key.clone(), page.clone()) {
                (table, key, Some(value)) => StoreChange::Put { table, key, value },
                (table, key, None) => StoreChange::Delete { table, key },
            };
            store.commit(&self.changed.iter().map(change).collect::<Vec<_>>())?;
        }
        let mut bytes = 0;
        for (key, page) in self.changed.drain(..) {
            bytes += (key.len() + page.as_ref().map_or(0, |page| page.len())) as u64;
            match page {
                Some(page) => drop(self.pages.insert(key, page.len())),
                None => drop(self.pages.remove(&key)),
            }
        }
        Ok(bytes)
    }

    fn held(&mut self) -> anyhow::Result<u64> {
        self.written()?;
        Ok(self.pages.iter().map(|(key, length)| (key.len() + length) as u64).sum())
    }
}
