//! Random operations on two stores beside each other, with restarts in between. Both have to answer and to read alike;
//! and since stores share their index, what they read is also compared with a plain list of what was accepted.

use std::collections::{BTreeMap, BTreeSet};

use sealwire_keys::{blob_hash, chain_start, chain_step, roster_hash};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::limits::DAY_MS;
use sealwire_wire::{Chain, ConversationId, DeviceId, EnvelopeId, InboxAddress, InstanceId, LogId, Position, Time};

use super::{Bed, inbox, key};
use crate::logs::Limits;
use crate::{
    Append, BlobPart, Conversation, MemoryStore, Operation, Outcome, Page, RecordSwap, RosterChange, Store, Welcome,
};

/// Runs so many groups of operations on an `A` and a `B`. The same seed, the same run.
///
/// # Panics
/// Where they differ, or read something else than what they accepted.
pub fn compare<A: Bed, B: Bed>(seed: u64, groups: usize) {
    let (mut a, mut b) = (A::fresh(LIMITS), B::fresh(LIMITS));
    let mut dice = Dice::new(seed);
    let mut accepted = Accepted::default();
    let mut now = Time(DAY_MS);
    for group in 0..groups {
        let operations;
        (now, operations) = dice.group(now, a.store());
        let outcomes = a.store().commit(now, &operations).expect("the store works");
        let others = b.store().commit(now, &operations).expect("the store works");
        assert_eq!(outcomes, others, "seed {seed}, group {group}: {operations:?}");
        operations.iter().zip(&outcomes).for_each(|(operation, outcome)| accepted.note(operation, outcome));
        match dice.below(12) {
            0 => a = a.restart(),
            1 => b = b.restart(),
            _ => {}
        }
        let seen = see(a.store());
        assert_eq!(seen, see(b.store()), "seed {seed}, group {group}: {operations:?}");
        accepted.check(&seen);
    }
}

/// Random groups of operations, and a store in memory that has taken those that were committed. The same seed and the
/// same answers give the same groups: in another process, too.
#[derive(Debug)]
pub struct Trace {
    dice: Dice,
    now: Time,
    model: MemoryStore,
}

/// A group of a [`Trace`]: when it is committed, and what it does.
pub type Group = (Time, Vec<Operation>);

impl Trace {
    /// The trace of a seed, before its first group.
    pub fn new(seed: u64) -> Trace {
        Trace { dice: Dice::new(seed), now: Time(DAY_MS), model: MemoryStore::new(InstanceId([1; 16]), LIMITS) }
    }

    /// The limits of a store that takes this trace.
    pub fn limits() -> Limits {
        LIMITS
    }

    /// The next group; the model does not have it yet.
    pub fn next_group(&mut self) -> Group {
        let group = self.dice.group(self.now, &self.model);
        self.now = group.0;
        group
    }

    /// The group was committed: the model takes it too, and says what the store had to answer.
    ///
    /// # Panics
    /// If the model fails, which it never does.
    pub fn committed(&mut self, (now, operations): &Group) -> Vec<Outcome> {
        self.model.commit(*now, operations).expect("the store works")
    }

    /// A store that has committed what the model has.
    pub fn model(&self) -> MemoryStore {
        self.model.snapshot().into()
    }
}

/// All that was ever accepted into conversations, first to last, and the one-time key packages that were handed out.
#[derive(Default)]
struct Accepted(BTreeMap<LogId, Vec<Entry>>, BTreeSet<(DeviceId, Vec<u8>)>);

impl Accepted {
    fn note(&mut self, operation: &Operation, outcome: &Outcome) {
        match (operation, outcome) {
            (Operation::Append(append), Outcome::Appended { position, repeated: false }) => {
                let log = self.0.entry(append.log).or_default();
                if let LogId::Conversation(_) = append.log {
                    log.push(append.entry.clone());
                    assert_eq!(log.len() as u64, position.0, "E4: gapless");
                }
            }
            (Operation::CreateConversation(new), Outcome::Created) => {
                let log = LogId::Conversation(new.id);
                assert!(self.0.insert(log, new.entries.clone()).is_none(), "C8: created once");
            }
            (Operation::ClaimKeyPackage { device }, Outcome::KeyPackageClaimed(Some(claimed))) => {
                let is_first = claimed.is_last_resort || self.1.insert((*device, claimed.bytes.clone()));
                assert!(is_first, "K1: handed out once");
            }
            _ => {}
        }
    }

    /// L5, L9: what is read is what was accepted, and the chain at each gap and at the end covers it all.
    fn check(&self, seen: &Seen) {
        for (log, entries) in &self.0 {
            let LogId::Conversation(id) = log else { continue };
            let chains = chains(*id, entries);
            for page in seen.pages.get(log).into_iter().flatten() {
                if let Some((position, chain)) = page.trimmed {
                    assert_eq!(chain, Some(chains[position.0 as usize]));
                }
                for delivered in &page.entries {
                    assert_eq!(delivered.entry, entries[delivered.position.0 as usize - 1].encode());
                }
            }
            assert_eq!(seen.chains.get(log), chains.last());
        }
    }
}

fn chains(id: ConversationId, entries: &[Entry]) -> Vec<Chain> {
    let mut chains = vec![chain_start(id)];
    for (before, entry) in entries.iter().enumerate() {
        chains.push(chain_step(chains[before], Position(before as u64 + 1), &entry.encode()));
    }
    chains
}

/// All that a store shows.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Seen {
    pages: BTreeMap<LogId, Vec<Page>>,
    chains: BTreeMap<LogId, Chain>,
    rest: Vec<String>,
    /// By number: how much is held of a blob, of how much, and what it serves.
    blobs: Vec<Option<BlobPart>>,
}

impl Seen {
    /// In what this differs from `other`, where it may only differ in pieces of blobs: a group that failed or was cut
    /// short may have left more of them.
    pub fn difference(&self, other: &Seen) -> Option<String> {
        for (log, pages) in &self.pages {
            if Some(pages) != other.pages.get(log) {
                return Some(format!("{log:?} has {pages:?} instead of {:?}", other.pages.get(log)));
            }
        }
        if (&self.chains, &self.rest) != (&other.chains, &other.rest) {
            return Some(format!("{:?} {:?} instead of {:?} {:?}", self.chains, self.rest, other.chains, other.rest));
        }
        for (mine, others) in self.blobs.iter().zip(&other.blobs) {
            let fits = match (mine, others) {
                (_, None) => true,
                (None, Some(others)) => others.held == 0,
                // A piece of another size begins anew: then less of it is held, of another whole.
                (Some(mine), Some(others)) => mine.held >= others.held || mine.size != others.size,
            };
            if !fits {
                return Some(format!("of a blob there is {mine:?} instead of {others:?}"));
            }
        }
        None
    }

    /// E7: a blob that is served is the one of its name.
    ///
    /// # Panics
    /// If one is not.
    pub fn check_blobs(&self) {
        for (part, whole) in self.blobs.iter().zip(BLOBS) {
            let Some(part) = part.as_ref().filter(|part| part.held == part.size) else { continue };
            assert_eq!(part.bytes, whole[whole.len().min(1)..], "a blob that does not fit its hash is served");
        }
    }
}

/// All that a store shows.
///
/// # Panics
/// If the store fails.
pub fn see(store: &dyn Store) -> Seen {
    let mut seen = Seen::default();
    let conversations = (0..CONVERSATIONS).map(|number| LogId::Conversation(conversation(number)));
    for log in (0..INBOXES).map(|number| LogId::Inbox(inbox(number))).chain(conversations) {
        let head = store.head(log).expect("the store works");
        if let Some(chain) = head.as_ref().and_then(|head| head.chain) {
            seen.chains.insert(log, chain);
        }
        let readers = (0..INBOXES).map(|number| store.reader(log, inbox(number)).expect("the store works"));
        seen.rest.push(format!("{head:?} {:?}", readers.collect::<Vec<_>>()));
        seen.pages.insert(log, pages(store, log, head.map_or(Position::START, |head| head.length)));
    }
    for number in 0..RECORDS {
        let blob = store.blob(blob_hash(BLOBS[usize::from(number)]), 1, 1 << 20);
        seen.blobs.push(blob.expect("the store works"));
        let record = store.record(&key(number)).expect("the store works");
        seen.rest.push(format!("{record:?}"));
    }
    for number in 0..DEVICES {
        let key_packages = store.key_packages(device(number)).expect("the store works");
        seen.rest.push(format!("{key_packages} key packages"));
    }
    seen
}

/// Reads a log to its end; no page brings what the one before did, and none is skipped.
fn pages(store: &dyn Store, log: LogId, length: Position) -> Vec<Page> {
    let (mut pages, mut at) = (Vec::new(), Position::START);
    while at < length {
        let page = store.read(log, at, 3, 1 << 20).expect("the store works");
        let begin = page.trimmed.map_or(at, |(position, _)| position);
        assert!(page.trimmed.is_none() || begin > at);
        for (place, entry) in (1..).zip(&page.entries) {
            assert_eq!(entry.position, Position(begin.0 + place), "a page has no gaps");
        }
        let end = page.entries.last().map_or(begin, |entry| entry.position);
        assert!(end > at, "a page brings what there is");
        at = end;
        pages.push(page);
    }
    pages
}

const LIMITS: Limits = Limits { inbox_entries: 6, inbox_bytes: 400, conversation_entries: 8, remembered: 5 };
const INBOXES: u8 = 5;
const CONVERSATIONS: u8 = 2;
const RECORDS: u8 = 3;
const DEVICES: u8 = 2;
/// Fewer than a store remembers, so that one that was handed out never comes again.
const KEY_PACKAGES: u8 = 80;
const BLOBS: [&[u8]; 3] = [b"first", b"the second", b""];

fn conversation(number: u8) -> ConversationId {
    ConversationId([number; 32])
}

fn device(number: u8) -> DeviceId {
    DeviceId([number; 32])
}

/// SplitMix64: small, and the same everywhere.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn byte(&mut self, end: u8) -> u8 {
        self.below(usize::from(end)) as u8
    }

    fn inbox(&mut self) -> InboxAddress {
        inbox(self.byte(INBOXES))
    }

    fn log(&mut self) -> LogId {
        if self.below(3) == 0 {
            LogId::Inbox(self.inbox())
        } else {
            LogId::Conversation(conversation(self.byte(CONVERSATIONS)))
        }
    }

    /// What comes some time after `before`.
    fn group(&mut self, before: Time, store: &dyn Store) -> Group {
        let now = before.plus([0, 1_000, DAY_MS / 3, 6 * DAY_MS][self.below(4)]);
        let count = 1 + self.below(6);
        (now, (0..count).map(|_| self.operation(store)).collect())
    }

    /// Looks at the store to be right most of the time.
    fn operation(&mut self, store: &dyn Store) -> Operation {
        match self.below(24) {
            0..=8 => Operation::Append(self.append(store)),
            9..=11 => {
                let log = self.log();
                Operation::MoveCursor { log, reader: self.inbox(), upto: Position(self.below(40) as u64) }
            }
            12 => Operation::CreateConversation(Conversation {
                id: conversation(self.byte(CONVERSATIONS)),
                writer: self.inbox(),
                entries: vec![self.entry(EntryKind::Commit, Position::START)],
                roster: self.roster(),
                welcomes: self.welcomes(),
            }),
            13 => Operation::FillInboxes { most: self.below(4) },
            14..=15 => self.swap(store),
            16..=17 => self.piece(),
            18..=19 => self.key_packages(),
            20..=21 => Operation::ClaimKeyPackage { device: device(self.byte(DEVICES)) },
            _ => Operation::Sweep { most: self.below(9) },
        }
    }

    fn append(&mut self, store: &dyn Store) -> Append {
        let log = self.log();
        let head = store.head(log).expect("the store works");
        let newest = head.as_ref().map_or(Position::START, |head| head.newest_commit);
        let after = if self.below(8) == 0 { Position(self.below(9) as u64) } else { newest };
        let conversation = [EntryKind::Message, EntryKind::Message, EntryKind::Commit, EntryKind::RestoreRoster];
        let kinds = match log {
            _ if self.below(12) == 0 => &EntryKind::ALL[..],
            LogId::Inbox(_) => &[EntryKind::Direct],
            LogId::Conversation(_) => &conversation,
        };
        let kind = kinds[self.below(kinds.len())];
        let readers = head.map_or(Vec::new(), |head| head.readers);
        let may_change = matches!(kind, EntryKind::Commit | EntryKind::RestoreRoster);
        let roster = (may_change && self.below(2) == 0).then(|| RosterChange {
            before: roster_hash(&readers),
            inboxes: self.roster(),
            welcomes: self.welcomes(),
        });
        Append { log, writer: self.inbox(), entry: self.entry(kind, after), roster }
    }

    /// Few envelope ids and two bodies: both repetitions and reuse happen.
    fn entry(&mut self, kind: EntryKind, after: Position) -> Entry {
        let (envelope, body) = (EnvelopeId([self.byte(60); 16]), vec![self.byte(2) / 2; 30]);
        Entry { kind, after: kind.names_after().then_some(after), envelope, body: Body::Inline(body) }
    }

    /// Half of the time everybody, so that restorations fit.
    fn roster(&mut self) -> Vec<InboxAddress> {
        let all = self.below(2) == 0;
        (0..INBOXES).filter(|_| all || self.below(2) == 0).map(inbox).collect()
    }

    fn welcomes(&mut self) -> Vec<Welcome> {
        let count = self.below(3);
        let welcome =
            |dice: &mut Dice| Welcome { inbox: dice.inbox(), entry: dice.entry(EntryKind::Welcome, Position(0)) };
        (0..count).map(|_| welcome(self)).collect()
    }

    fn swap(&mut self, store: &dyn Store) -> Operation {
        let number = self.byte(RECORDS);
        let found = store.record(&key(number)).expect("the store works").map(|record| record.version);
        let expected = if self.below(6) == 0 { Some(1) } else { found };
        let value = (self.below(4) > 0).then(|| vec![self.byte(9)]);
        let inboxes = if self.below(2) == 0 { vec![self.inbox()] } else { Vec::new() };
        Operation::Swap { records: vec![RecordSwap { key: key(number), expected, value }], inboxes }
    }

    /// Few packages, so that a device publishes again what it has published.
    fn key_packages(&mut self) -> Operation {
        let count = self.below(4);
        Operation::PutKeyPackages {
            device: device(self.byte(DEVICES)),
            replace: self.below(6) == 0,
            one_time: (0..count).map(|_| vec![self.byte(KEY_PACKAGES); 20]).collect(),
            last_resort: (self.below(3) == 0).then(|| vec![self.byte(9); 10]),
        }
    }

    fn piece(&mut self) -> Operation {
        let whole = BLOBS[self.below(BLOBS.len())];
        let begin = self.below(whole.len() + 1);
        let end = begin + self.below(whole.len() - begin + 1);
        let bytes = if self.below(8) == 0 { vec![0; end - begin] } else { whole[begin..end].to_vec() };
        let size = (whole.len() + self.below(9) / 8) as u64;
        Operation::PutBlob { hash: blob_hash(whole), size, offset: begin as u64, bytes }
    }
}
