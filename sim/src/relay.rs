//! The relay of the world: connections of `relay-core` over a store whose commits can fail.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use ed25519_dalek::SigningKey;
use sealwire_relay_core::{
    Connection, Decision, Features, Growth, Input, Meetings, Policy, Registration, Relay, Served, serve,
};
use sealwire_store::{
    BlobPart, Head, MemoryStore, Operation, Outcome, Page, Reader, Record, RecordKey, Snapshot, Store, StoreError,
};
use sealwire_wire::frame::FromRelay;
use sealwire_wire::{
    BlobHash, ConversationId, DeviceId, InboxAddress, InstanceId, LogId, Position, PresenceToken, Time,
};

use crate::dice::Dice;

/// A connection's number. Never reused.
pub(crate) type ConnectionId = u64;

/// What the relay wants the network to do.
pub(crate) enum ToNetwork {
    Send(ConnectionId, Box<FromRelay>),
    Close(ConnectionId),
}

/// In one world of four people write faster than their relay lets them (HP-08): they are told to wait.
fn policy(instance: InstanceId) -> Policy {
    let appends_per_minute = if instance.0[0].is_multiple_of(4) { 20 } else { 0 };
    Policy { registration: Registration::Open, features: Features::ALL, appends_per_minute }
}

pub(crate) struct SimRelay {
    key: SigningKey,
    relay: Arc<Relay>,
    backup: Option<Snapshot>,
    store: FlakyStore,
    connections: BTreeMap<ConnectionId, Attached>,
    devices: BTreeMap<DeviceId, ConnectionId>,
    meetings: Meetings<ConnectionId>,
}

struct Attached {
    connection: Connection,
    logs: BTreeSet<LogId>,
    token: Option<PresenceToken>,
    watched: Vec<PresenceToken>,
}

impl SimRelay {
    pub(crate) fn new(dice: &mut Dice) -> SimRelay {
        let key = SigningKey::from_bytes(&dice.bytes());
        let instance = InstanceId(dice.bytes());
        let relay = Arc::new(Relay::new("relay", key.clone(), instance, policy(instance)));
        let store = FlakyStore {
            inner: MemoryStore::new(instance, sealwire_store::logs::Limits::default()),
            dice: Mutex::new(Dice::new(dice.below(u64::MAX), 7)),
            failing_per_mille: Mutex::new(0),
        };
        let (connections, devices, meetings) = (BTreeMap::new(), BTreeMap::new(), Meetings::default());
        SimRelay { key, relay, backup: None, store, connections, devices, meetings }
    }

    /// How many commits in a thousand fail from now on.
    pub(crate) fn set_failing(&mut self, per_mille: u64) {
        *self.store.failing_per_mille.lock().expect("one thread") = per_mille;
    }

    pub(crate) fn open(&mut self, id: ConnectionId, challenge: [u8; 32], now: Time) -> Vec<ToNetwork> {
        let (connection, decisions) = Connection::open(&self.relay, now, challenge, None, None);
        let attached = Attached { connection, logs: BTreeSet::new(), token: None, watched: Vec::new() };
        self.connections.insert(id, attached);
        self.carry_out(id, decisions, now)
    }

    pub(crate) fn input(&mut self, id: ConnectionId, input: Input, now: Time) -> Vec<ToNetwork> {
        let Some(attached) = self.connections.get_mut(&id) else { return Vec::new() };
        let decisions = attached.connection.handle(input, now);
        self.carry_out(id, decisions, now)
    }

    pub(crate) fn closed(&mut self, id: ConnectionId, now: Time) -> Vec<ToNetwork> {
        let Some(attached) = self.connections.remove(&id) else { return Vec::new() };
        self.devices.retain(|_, connection| *connection != id);
        self.meetings.leave(id);
        self.tell_presence(attached.token, now)
    }

    pub(crate) fn tick(&mut self, now: Time) -> Vec<ToNetwork> {
        let mut grown = Vec::new();
        // Of Welcomes, what a store that failed once has left; if it fails again, the next second.
        let _filled = sealwire_relay_core::fill_inboxes(&self.store, now, &mut grown);
        let mut out = self.tell_grown(grown, now);
        let ids: Vec<_> = self.connections.keys().copied().collect();
        out.extend(ids.into_iter().flat_map(|id| self.input(id, Input::Tick, now)));
        out
    }

    /// The process ends: connections are gone, what was committed stays.
    pub(crate) fn crash(&mut self) {
        self.connections.clear();
        self.meetings = Meetings::default();
        self.devices.clear();
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.store.inner.snapshot());
    }

    pub(crate) fn drop_backup(&mut self) {
        self.backup = None;
    }

    /// Its backup comes back, with another instance id (L11); false if there is none. Its process has to have ended.
    pub(crate) fn restore_backup(&mut self, dice: &mut Dice) -> bool {
        let Some(backup) = &self.backup else { return false };
        let instance = InstanceId(dice.bytes());
        self.store.inner.restore(backup);
        self.store.inner.renew_instance(instance);
        self.relay = Arc::new(Relay::new("relay", self.key.clone(), instance, policy(instance)));
        true
    }

    /// Who reads a conversation log now.
    pub(crate) fn roster(&self, log: LogId) -> Option<Vec<InboxAddress>> {
        self.store.head(log).ok().flatten().map(|head| head.readers)
    }

    pub(crate) fn sweep(&mut self, now: Time) {
        // A sweep that fails is a sweep later.
        let _ = self.store.commit(now, &[Operation::Sweep { most: 1_000 }]);
    }

    fn carry_out(&mut self, id: ConnectionId, decisions: Vec<Decision>, now: Time) -> Vec<ToNetwork> {
        let Some(attached) = self.connections.get_mut(&id) else { return Vec::new() };
        let Served { frames, effects, grown } = serve(&mut attached.connection, decisions, &self.store, now);
        let mut out: Vec<_> = frames.into_iter().map(|frame| ToNetwork::Send(id, Box::new(frame))).collect();
        for effect in effects {
            out.extend(self.effect(id, effect, now));
        }
        out.extend(self.tell_grown(grown, now));
        out
    }

    fn tell_grown(&mut self, grown: Vec<Growth>, now: Time) -> Vec<ToNetwork> {
        let mut out = Vec::new();
        for growth in grown {
            let readers: Vec<_> =
                self.connections.iter().filter(|(_, c)| c.logs.contains(&growth.log)).map(|(id, _)| *id).collect();
            for reader in readers {
                out.extend(self.input(reader, Input::Grown(growth.clone()), now));
            }
        }
        out
    }

    fn effect(&mut self, id: ConnectionId, effect: Decision, now: Time) -> Vec<ToNetwork> {
        let Some(attached) = self.connections.get_mut(&id) else { return Vec::new() };
        match effect {
            Decision::Attach(log) => drop(attached.logs.insert(log)),
            Decision::Detach(log) => drop(attached.logs.remove(&log)),
            Decision::LoggedIn(device) => {
                if let Some(older) = self.devices.insert(device, id).filter(|older| *older != id) {
                    return self.input(older, Input::Replaced, now);
                }
            }
            Decision::Online(token) => {
                let before = std::mem::replace(&mut attached.token, token);
                let mut out = self.tell_presence(before, now);
                out.extend(self.tell_presence(token, now));
                return out;
            }
            Decision::Watch(tokens) => {
                attached.watched.clone_from(&tokens);
                let news = tokens.into_iter().map(|token| (token, self.is_online(token))).collect::<Vec<_>>();
                let inputs = news.into_iter().map(|(token, online)| Input::PresenceChanged { token, online });
                return inputs.collect::<Vec<_>>().into_iter().flat_map(|i| self.input(id, i, now)).collect();
            }
            Decision::Meet { request, meeting, bytes, opens } => {
                let met = self.meetings.meet(now, meeting, id, opens);
                let mut out = self.input(id, Input::MeetingAnswered { request, met: met.map(|_other| ()) }, now);
                if let Ok(Some(other)) = met
                    && !bytes.is_empty()
                {
                    out.extend(self.input(other, Input::Met { meeting, bytes }, now));
                }
                return out;
            }
            Decision::Expel(device) => {
                let connection = self.devices.get(&device).copied();
                return connection.map_or(Vec::new(), |connection| self.input(connection, Input::Revoked, now));
            }
            Decision::Close { .. } => return vec![ToNetwork::Close(id)],
            Decision::Send(_) | Decision::Store { .. } | Decision::Load { .. } => {}
        }
        Vec::new()
    }

    fn is_online(&self, token: PresenceToken) -> bool {
        self.connections.values().any(|attached| attached.token == Some(token))
    }

    fn tell_presence(&mut self, token: Option<PresenceToken>, now: Time) -> Vec<ToNetwork> {
        let Some(token) = token else { return Vec::new() };
        let online = self.is_online(token);
        let watchers: Vec<_> =
            self.connections.iter().filter(|(_, c)| c.watched.contains(&token)).map(|(id, _)| *id).collect();
        let tell = |id| self.input(id, Input::PresenceChanged { token, online }, now);
        watchers.into_iter().flat_map(tell).collect()
    }
}

/// A store whose commits fail now and then, whole.
struct FlakyStore {
    inner: MemoryStore,
    dice: Mutex<Dice>,
    failing_per_mille: Mutex<u64>,
}

thread_local! {
    /// How many commits failed in this run; part of the report.
    pub(crate) static FAILED_COMMITS: RefCell<u64> = const { RefCell::new(0) };
}

impl Store for FlakyStore {
    fn instance(&self) -> InstanceId {
        self.inner.instance()
    }

    fn commit(&self, now: Time, operations: &[Operation]) -> Result<Vec<Outcome>, StoreError> {
        let chance = *self.failing_per_mille.lock().expect("one thread");
        if self.dice.lock().expect("one thread").per_mille(chance) {
            FAILED_COMMITS.with_borrow_mut(|count| *count += 1);
            return Err(StoreError::Failed("the simulated disk refused".into()));
        }
        self.inner.commit(now, operations)
    }

    fn read(&self, log: LogId, after: Position, entries: usize, bytes: usize) -> Result<Page, StoreError> {
        self.inner.read(log, after, entries, bytes)
    }

    fn head(&self, log: LogId) -> Result<Option<Head>, StoreError> {
        self.inner.head(log)
    }

    fn reader(&self, log: LogId, inbox: InboxAddress) -> Result<Option<Reader>, StoreError> {
        self.inner.reader(log, inbox)
    }

    fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.inner.record(key)
    }

    fn blob(&self, hash: BlobHash, offset: u64, most: usize) -> Result<Option<BlobPart>, StoreError> {
        self.inner.blob(hash, offset, most)
    }

    fn logs_of(&self, inbox: InboxAddress) -> Result<Vec<ConversationId>, StoreError> {
        self.inner.logs_of(inbox)
    }

    fn key_packages(&self, device: DeviceId) -> Result<u32, StoreError> {
        self.inner.key_packages(device)
    }
}
