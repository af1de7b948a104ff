//! The relay's half of a conversation log (rules L, C6, C8), with writers that seal nothing: devices that append commits
//! and messages, join and leave by roster changes, lose answers and connections, and repeat themselves, while commits of
//! the relay's store fail and the relay restarts. What MLS will put on top has to find this true.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signer, SigningKey};
use sealwire_keys::{
    AccountEntry, AccountKind, AccountLog, Change, DeviceCard, DeviceKey, HeadToBeSigned, LogInToBeSigned, Mode,
    SignedEntry, Suite, chain_start, chain_step, group_id, roster_hash, sign_entry,
};
use sealwire_relay_core::Input;
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{Delivered, FromRelay, Hello, IdProof, LoggedIn, RosterChange, ToRelay, Welcome};
use sealwire_wire::{
    AccountId, Chain, Code, ConversationId, EnvelopeId, InboxAddress, Incarnation, LogId, Position, Time,
};

use crate::check::Violation;
use crate::dice::Dice;
use crate::relay::{ConnectionId, SimRelay, ToNetwork};

/// What the id of the conversation is made from, with the account of the first member (C8).
const NONCE: [u8; 16] = [0xc0; 16];
/// Commits are bounded to four a minute and device (L10): acts are this far apart.
const ACT_MS: u64 = 20_000;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct ConversationReport {
    /// Entries of the log at the end.
    pub entries: u64,
    /// Commits among them.
    pub commits: usize,
    /// Appends that were stale and had to be made anew.
    pub stale: usize,
    /// The rule that did not hold.
    pub violation: Option<Violation>,
}

/// Runs one seed.
pub fn run(seed: u64) -> ConversationReport {
    let mut world = World::new(seed);
    let violation = world.live().err();
    let log = &world.history;
    let commits = log.values().filter(|entry| entry.kind == EntryKind::Commit).count();
    let entries = log.keys().last().copied().unwrap_or(0);
    ConversationReport { entries, commits, stale: world.stale, violation }
}

struct World {
    dice: Dice,
    now: Time,
    relay: SimRelay,
    members: Vec<Member>,
    conversation: ConversationId,
    owner: BTreeMap<ConnectionId, usize>,
    next_connection: ConnectionId,
    next_envelope: u128,
    /// What the relay has accepted, as it said.
    accepted: BTreeMap<EnvelopeId, u64>,
    stale: usize,
    trouble: u64,
    /// Who went on reading behind a place that it had not reached.
    jumps: Vec<(usize, u64, u64)>,
    /// Everything that anybody has read.
    history: BTreeMap<u64, Entry>,
}

/// A device that reads and writes the log. What it keeps is durable.
struct Member {
    key: SigningKey,
    inbox: InboxAddress,
    incarnation: (Incarnation, Incarnation),
    connection: Option<ConnectionId>,
    attached: bool,
    /// What was read, by position.
    log: BTreeMap<u64, Entry>,
    chain: Chain,
    newest_commit: Position,
    roster: Vec<InboxAddress>,
    /// An append without an answer: the same bytes go again.
    pending: Option<ToRelay>,
    welcomes: BTreeSet<EnvelopeId>,
    head: Option<(Position, Chain)>,
    /// Whether the chain began where this device could check it.
    proven: bool,
    relay_key: [u8; 32],
}

/// A commit of this world says what roster it leaves, as those of MLS will (C6).
fn roster_body(inboxes: &[InboxAddress]) -> Body {
    Body::Inline(inboxes.iter().flat_map(|inbox| inbox.0).collect())
}

fn roster_of(commit: &Entry) -> Vec<InboxAddress> {
    let Body::Inline(body) = &commit.body else { return Vec::new() };
    body.chunks_exact(16).filter_map(|inbox| InboxAddress::try_from(inbox).ok()).collect()
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice::new(seed, 1);
        let relay = SimRelay::new(&mut dice);
        let count = dice.between(3, 6);
        let mut members: Vec<_> = (0..count).map(|_| Member::new(&mut dice)).collect();
        let account = AccountLog::begin(members[0].genesis()).expect("a genesis entry of its own").id();
        let conversation = group_id(account, NONCE);
        for member in &mut members {
            member.chain = chain_start(conversation);
        }
        let trouble = if dice.per_mille(200) { 0 } else { dice.between(20, 120) };
        World {
            dice,
            now: Time(1_790_000_000_000),
            relay,
            members,
            conversation,
            owner: BTreeMap::new(),
            next_connection: 1,
            next_envelope: 1,
            accepted: BTreeMap::new(),
            stale: 0,
            trouble,
            jumps: Vec::new(),
            history: BTreeMap::new(),
        }
    }

    fn live(&mut self) -> Result<(), Violation> {
        for member in 0..self.members.len() {
            self.connect(member)?;
            let register = self.members[member].register(member);
            self.send(member, &register)?;
        }
        self.create()?;
        self.relay.set_failing(self.trouble / 2);
        for _ in 0..self.dice.between(30, 120) {
            self.now = self.now.plus(self.dice.between(1, ACT_MS));
            self.act()?;
        }
        self.relay.set_failing(0);
        self.trouble = 0;
        self.now = self.now.plus(120_000);
        for member in 0..self.members.len() {
            self.reconnect(member)?;
            self.repeat(member)?;
        }
        for member in 0..self.members.len() {
            self.send(member, &ToRelay::GetHead { request: 9, conversation: self.conversation })?;
        }
        self.check()
    }

    /// C8: one transaction; a repetition is told that it exists.
    fn create(&mut self) -> Result<(), Violation> {
        let mut inboxes: Vec<_> = self.members.iter().take(3).map(|member| member.inbox).collect();
        inboxes.sort();
        let first = Entry {
            kind: EntryKind::Commit,
            after: Some(Position::START),
            envelope: self.envelope(),
            body: roster_body(&inboxes),
        };
        let welcomes = inboxes.iter().map(|inbox| self.welcome(*inbox)).collect();
        let create = ToRelay::CreateConversation {
            request: 5,
            conversation: self.conversation,
            entries: vec![first.encode()],
            inboxes: inboxes.clone(),
            welcomes,
            proof: IdProof::Nonce(NONCE),
        };
        self.send(0, &create)?;
        self.send(0, &create)?;
        for member in &mut self.members {
            member.roster.clone_from(&inboxes);
        }
        for member in 0..3 {
            self.attach(member)?;
        }
        Ok(())
    }

    fn act(&mut self) -> Result<(), Violation> {
        let member = self.dice.below(self.members.len() as u64) as usize;
        match self.dice.below(10) {
            0 if self.trouble > 0 => self.reconnect(member),
            1 if self.trouble > 0 => {
                self.relay.crash();
                self.owner.clear();
                for member in &mut self.members {
                    member.connection = None;
                }
                Ok(())
            }
            2 => {
                self.relay.sweep(self.now);
                Ok(())
            }
            3 | 4 => self.write(member, EntryKind::Commit),
            _ => self.write(member, EntryKind::Message),
        }
    }

    /// Appends behind the newest commit that was read; an unanswered append goes first, unchanged.
    fn write(&mut self, index: usize, kind: EntryKind) -> Result<(), Violation> {
        self.repeat(index)?;
        let member = &self.members[index];
        if member.pending.is_some() || member.roster.binary_search(&member.inbox).is_err() || !member.attached {
            return Ok(());
        }
        let (after, before) = (member.newest_commit, member.roster.clone());
        let envelope = self.envelope();
        let changes = kind == EntryKind::Commit && self.dice.per_mille(500);
        let roster = changes.then(|| self.change(before.clone()));
        let body = match (kind, &roster) {
            (EntryKind::Commit, Some(change)) => roster_body(&change.inboxes),
            (EntryKind::Commit, None) => roster_body(&before),
            _ => Body::Inline(self.dice.bytes::<24>().to_vec()),
        };
        let entry = Entry { kind, after: Some(after), envelope, body };
        self.members[index].pending = Some(ToRelay::Append { log: self.log(), entry: entry.encode(), roster });
        self.repeat(index)
    }

    /// Somebody joins, with a Welcome, or somebody leaves.
    fn change(&mut self, before: Vec<InboxAddress>) -> RosterChange {
        let whom = self.members[self.dice.below(self.members.len() as u64) as usize].inbox;
        let mut inboxes = before.clone();
        let mut welcomes = Vec::new();
        match inboxes.binary_search(&whom) {
            Ok(_) if inboxes.len() == 1 => {}
            Ok(at) => drop(inboxes.remove(at)),
            Err(at) => {
                inboxes.insert(at, whom);
                welcomes.push(self.welcome(whom));
            }
        }
        RosterChange { before: roster_hash(&before), inboxes, welcomes }
    }

    fn welcome(&mut self, inbox: InboxAddress) -> Welcome {
        let envelope = self.envelope();
        let entry = Entry { kind: EntryKind::Welcome, after: None, envelope, body: Body::Inline(b"welcome".to_vec()) };
        Welcome { inbox, entry: entry.encode() }
    }

    fn repeat(&mut self, index: usize) -> Result<(), Violation> {
        if self.members[index].connection.is_none() {
            self.connect(index)?;
        }
        match self.members[index].pending.clone() {
            Some(append) => self.send(index, &append),
            None => Ok(()),
        }
    }

    fn reconnect(&mut self, index: usize) -> Result<(), Violation> {
        if let Some(id) = self.members[index].connection.take() {
            self.owner.remove(&id);
            let out = self.relay.closed(id, self.now);
            self.deliver(out)?;
        }
        self.connect(index)
    }

    fn connect(&mut self, index: usize) -> Result<(), Violation> {
        let id = self.next_connection;
        self.next_connection += 1;
        self.owner.insert(id, index);
        self.members[index].connection = Some(id);
        self.members[index].attached = false;
        let challenge = self.dice.bytes();
        let out = self.relay.open(id, challenge, self.now);
        self.deliver(out)?;
        self.attach(index)
    }

    fn log(&self) -> LogId {
        LogId::Conversation(self.conversation)
    }

    fn attach(&mut self, index: usize) -> Result<(), Violation> {
        self.send(index, &ToRelay::Attach { request: 6, conversation: self.conversation })
    }

    fn send(&mut self, index: usize, frame: &ToRelay) -> Result<(), Violation> {
        let Some(id) = self.members[index].connection else { return Ok(()) };
        let out = self.relay.input(id, Input::Bytes(frame.encode()), self.now);
        self.deliver(out)
    }

    /// Answers reach members at once, or are lost with the connection.
    fn deliver(&mut self, out: Vec<ToNetwork>) -> Result<(), Violation> {
        for wish in out {
            match wish {
                ToNetwork::Close(id) => self.lose(id)?,
                ToNetwork::Send(id, frame) => {
                    let Some(index) = self.owner.get(&id).copied() else { continue };
                    let answers = matches!(*frame, FromRelay::Accepted { .. } | FromRelay::Deliver { .. });
                    if answers && self.dice.per_mille(self.trouble) {
                        self.lose(id)?;
                    } else {
                        self.take(index, *frame)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn lose(&mut self, id: ConnectionId) -> Result<(), Violation> {
        if let Some(index) = self.owner.remove(&id) {
            self.members[index].connection = None;
        }
        let out = self.relay.closed(id, self.now);
        self.deliver(out)
    }

    fn take(&mut self, index: usize, frame: FromRelay) -> Result<(), Violation> {
        let member = &mut self.members[index];
        match frame {
            FromRelay::Hello(hello) => {
                let log_in = member.log_in(&hello);
                self.send(index, &log_in)
            }
            FromRelay::LoggedIn(LoggedIn::Registered { .. }) => {
                member.incarnation.0 = member.incarnation.1;
                member.incarnation.1.0[0] = member.incarnation.1.0[0].wrapping_add(1);
                Ok(())
            }
            FromRelay::Done { request: 1 } => {
                member.incarnation.0 = member.incarnation.1;
                member.incarnation.1.0[0] = member.incarnation.1.0[0].wrapping_add(1);
                Ok(())
            }
            FromRelay::Attached { request: 6, .. } => {
                member.attached = true;
                Ok(())
            }
            FromRelay::Deliver { log: LogId::Inbox(inbox), entries } => self.take_welcomes(index, inbox, &entries),
            FromRelay::Deliver { log, entries } => {
                for delivered in &entries {
                    self.read(index, delivered)?;
                }
                let upto = entries.last().map_or(Position::START, |entry| entry.position);
                self.send(index, &ToRelay::Ack { log, upto })
            }
            FromRelay::Accepted { envelope, position } => self.was_accepted(index, envelope, position),
            FromRelay::Stale { newest_commit, .. } => {
                // Made anew behind what is read meanwhile; the rest comes by the cursor (L4).
                self.stale += 1;
                let named = match &member.pending {
                    Some(ToRelay::Append { entry, .. }) => Entry::decode(entry).ok().and_then(|entry| entry.after),
                    _ => None,
                };
                if named == Some(newest_commit) {
                    return Err("L1: stale, though the newest commit was named".into());
                }
                member.pending = None;
                if member.log.keys().next().is_none_or(|first| newest_commit.0 < *first) {
                    // A joiner has not read it; with MLS its Welcome says where it stands.
                    member.newest_commit = newest_commit;
                }
                Ok(())
            }
            FromRelay::Failed(failed) => self.failed(index, failed.code),
            FromRelay::Head { length, chain, signature, .. } => {
                let head = HeadToBeSigned { conversation: self.conversation, length, chain };
                head.verify(&member.relay_key, &signature).map_err(|_| "L6: a head's signature does not verify")?;
                member.head = Some((length, chain));
                Ok(())
            }
            FromRelay::Trimmed { position, chain, .. } => {
                // Everybody has read it; the chain at the edge is what a joiner begins with (L5).
                if let Some(chain) = chain
                    && member.log.keys().last().is_none_or(|last| *last < position.0)
                {
                    member.begin_anew();
                    member.chain = chain;
                    member.proven = true;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn failed(&mut self, index: usize, code: Code) -> Result<(), Violation> {
        match code {
            // Dropped from the roster, by somebody else's commit; or the roster moved.
            Code::NotAllowed | Code::RosterMoved => self.members[index].pending = None,
            Code::ConversationExists | Code::StoreFailed | Code::ShuttingDown | Code::RateLimited | Code::Busy => {}
            Code::Replaced => {}
            other => return Err(format!("the relay refused {}", other.name())),
        }
        Ok(())
    }

    fn was_accepted(&mut self, index: usize, envelope: EnvelopeId, position: Position) -> Result<(), Violation> {
        if *self.accepted.entry(envelope).or_insert(position.0) != position.0 {
            return Err("E4: one envelope accepted at two positions".into());
        }
        let member = &mut self.members[index];
        let is_it = |append: &ToRelay| match append {
            ToRelay::Append { entry, .. } => Entry::decode(entry).is_ok_and(|entry| entry.envelope == envelope),
            _ => false,
        };
        if member.pending.as_ref().is_some_and(is_it) {
            member.pending = None;
        }
        Ok(())
    }

    fn take_welcomes(&mut self, index: usize, inbox: InboxAddress, entries: &[Delivered]) -> Result<(), Violation> {
        for delivered in entries {
            let entry = Entry::decode(&delivered.entry).map_err(|error| error.to_string())?;
            if inbox != self.members[index].inbox {
                return Err("C9: somebody else's Welcome".into());
            }
            self.members[index].welcomes.insert(entry.envelope);
        }
        let upto = entries.last().map_or(Position::START, |entry| entry.position);
        self.send(index, &ToRelay::Ack { log: LogId::Inbox(inbox), upto })?;
        self.attach(index)
    }

    /// Reads one entry: gapless, in order, each message behind the commit in force (L2).
    fn read(&mut self, index: usize, delivered: &Delivered) -> Result<(), Violation> {
        let at = delivered.position;
        let entry = Entry::decode(&delivered.entry).map_err(|error| error.to_string())?;
        let member = &mut self.members[index];
        if let Some(known) = member.log.get(&at.0) {
            return if *known == entry { Ok(()) } else { Err("L1: a position changed".into()) };
        }
        if let Some(last) = member.log.keys().last()
            && at.0 != last + 1
        {
            // Dropped and added again, or there is a gap: the whole history will tell.
            self.jumps.push((index, *last, at.0));
            member.begin_anew();
        }
        if member.log.is_empty() && at.0 == 1 {
            member.proven = true;
        }
        if let Some(after) = entry.after
            && !member.log.is_empty()
            && after != member.newest_commit
            && member.newest_commit != Position::START
        {
            return Err(format!("L2: the entry at {at} names {after}, in force is {}", member.newest_commit));
        }
        member.chain = chain_step(member.chain, at, &delivered.entry);
        if entry.kind == EntryKind::Commit {
            member.newest_commit = at;
            member.roster = roster_of(&entry);
        }
        if self.history.entry(at.0).or_insert_with(|| entry.clone()) != &entry {
            return Err("L1: two histories".into());
        }
        member.log.insert(at.0, entry);
        Ok(())
    }

    fn envelope(&mut self) -> EnvelopeId {
        self.next_envelope += 1;
        EnvelopeId(self.next_envelope.to_be_bytes())
    }

    /// After quiet: one history, whoever tells it.
    fn check(&self) -> Result<(), Violation> {
        let all = &self.history;
        for (index, from, to) in &self.jumps {
            let inbox = self.members[*index].inbox;
            let between = all.range(from + 1..*to);
            let dropped = between
                .map(|(_, entry)| entry)
                .any(|entry| entry.kind == EntryKind::Commit && !roster_of(entry).contains(&inbox));
            let dropped_there = all
                .get(from)
                .is_some_and(|entry| entry.kind == EntryKind::Commit && !roster_of(entry).contains(&inbox));
            if !dropped && !dropped_there {
                return Err(format!("L1: a gap between {from} and {to}"));
            }
        }
        let mut envelopes = BTreeSet::new();
        for (at, entry) in all {
            if !envelopes.insert(entry.envelope) {
                return Err(format!("E4: an envelope twice, again at {at}"));
            }
        }
        for (envelope, at) in &self.accepted {
            if all.get(at).is_some_and(|entry| entry.envelope != *envelope) {
                return Err(format!("L1: accepted at {at}, and something else is there"));
            }
        }
        let roster = self.relay.roster(self.log()).unwrap_or_default();
        for member in self.members.iter().filter(|member| roster.binary_search(&member.inbox).is_ok()) {
            let Some((length, chain)) = member.head else { continue };
            let last = member.log.keys().last().copied().unwrap_or(0);
            // Added by the last entry, there is nothing to read yet.
            let added_last = self.history.get(&length.0).is_some_and(|entry| entry.kind == EntryKind::Commit);
            if last != 0 && last != length.0 && !added_last {
                return Err(format!("L1: a member stands at {last}, the log at {length}"));
            }
            if member.proven && last == length.0 && member.chain != chain {
                return Err("L5: a member's chain is not the relay's".into());
            }
        }
        Ok(())
    }
}

impl Member {
    fn new(dice: &mut Dice) -> Member {
        Member {
            key: SigningKey::from_bytes(&dice.bytes()),
            inbox: InboxAddress(dice.bytes()),
            incarnation: (Incarnation(dice.bytes()), Incarnation(dice.bytes())),
            connection: None,
            attached: false,
            log: BTreeMap::new(),
            chain: Chain([0; 32]),
            newest_commit: Position::START,
            roster: Vec::new(),
            pending: None,
            welcomes: BTreeSet::new(),
            head: None,
            proven: false,
            relay_key: [0; 32],
        }
    }

    /// What was read before does not connect to what comes.
    fn begin_anew(&mut self) {
        self.log.clear();
        self.newest_commit = Position::START;
        self.proven = false;
    }

    fn device_key(&self) -> DeviceKey {
        DeviceKey::parse(&self.key.verifying_key().to_bytes()).expect("the key of a secret key")
    }

    fn log_in(&mut self, hello: &Hello) -> ToRelay {
        self.relay_key = hello.relay_key;
        let key = self.device_key();
        let (incarnation, pending) = self.incarnation;
        let signed = LogInToBeSigned::new(
            &hello.relay_name,
            hello.relay_key,
            hello.challenge,
            key.device_id(),
            incarnation,
            pending,
            "",
            &[],
        );
        let signature = self.key.sign(&signed.encode()).to_bytes();
        ToRelay::LogIn { device_key: key.to_bytes(), incarnation, pending, binding: Vec::new(), signature }
    }

    fn genesis(&self) -> SignedEntry {
        let mut u = [0; 32];
        u[0] = 9;
        let direct = vec![sealwire_keys::DirectKey::parse(Suite::X25519, &u).expect("the base point")];
        let device = DeviceCard { key: self.device_key(), modes: vec![Mode::Direct], direct };
        let genesis = AccountEntry {
            account: AccountId([0; 32]),
            number: 0,
            previous: [0; 32],
            at: Time(0),
            change: Change::Genesis { kind: AccountKind::Person, device },
            signer: self.device_key().device_id(),
        };
        sign_entry(&genesis, |bytes| self.key.sign(bytes).to_bytes())
    }

    fn register(&self, index: usize) -> ToRelay {
        ToRelay::Register {
            request: 1,
            handle: format!("member{index}"),
            genesis: self.genesis().0,
            inbox: self.inbox,
            invite: String::new(),
        }
    }
}
