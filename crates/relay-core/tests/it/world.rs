//! Several connections over one memory store, without a shell: each effect is carried out at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use sealwire_relay_core::{
    Connection, Decision, Features, Growth, Input, Meetings, Policy, Registration, Relay, serve,
};
use sealwire_store::MemoryStore;
use sealwire_store::logs::Limits;
use sealwire_wire::frame::{FromRelay, Hello, LoggedIn, ToRelay};
use sealwire_wire::{Code, InstanceId, LogId, Position, PresenceToken, Time};

use crate::device::Device;

pub(crate) const NAME: &str = "relay.example";

pub(crate) struct World {
    pub(crate) relay: Arc<Relay>,
    pub(crate) store: MemoryStore,
    pub(crate) now: Time,
    connections: BTreeMap<Id, Seat>,
    meetings: Meetings<Id>,
    opened: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Id(u8);

struct Seat {
    connection: Connection,
    hello: Hello,
    frames: Vec<FromRelay>,
    attached: BTreeSet<LogId>,
    watched: Vec<PresenceToken>,
    online: Option<PresenceToken>,
    device: Option<sealwire_wire::DeviceId>,
    closed: Option<&'static str>,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(Registration::Open)
    }

    /// A relay that offers nothing beyond inboxes and presence.
    pub(crate) fn plain() -> World {
        World::with(Policy { features: Features::NONE, ..Registration::Open.into() })
    }

    pub(crate) fn with(policy: impl Into<Policy>) -> World {
        let store = MemoryStore::new(InstanceId([1; 16]), Limits::default());
        let relay = relay(NAME, 7, InstanceId([1; 16]), policy);
        World {
            relay,
            store,
            now: Time(1_700_000_000_000),
            connections: BTreeMap::new(),
            meetings: Meetings::default(),
            opened: 0,
        }
    }

    /// Opens a connection without Origin and exporter.
    pub(crate) fn open(&mut self) -> Id {
        self.open_with(None, None)
    }

    pub(crate) fn open_with(&mut self, origin: Option<&str>, binding: Option<[u8; 32]>) -> Id {
        self.opened += 1;
        let id = Id(self.opened);
        let challenge = [self.opened; 32];
        let (connection, decisions) =
            Connection::open(&self.relay, self.now, challenge, origin.map(str::to_owned), binding);
        let [Decision::Send(FromRelay::Hello(hello))] = &decisions[..] else { panic!("{decisions:?}") };
        let seat = Seat {
            connection,
            hello: hello.clone(),
            frames: Vec::new(),
            attached: BTreeSet::new(),
            watched: Vec::new(),
            online: None,
            device: None,
            closed: None,
        };
        self.connections.insert(id, seat);
        id
    }

    pub(crate) fn hello(&self, id: Id) -> Hello {
        self.connections[&id].hello.clone()
    }

    /// Opens a connection and logs a device in; what the relay said last.
    pub(crate) fn log_in(&mut self, device: &Device) -> (Id, FromRelay) {
        let id = self.open();
        let frame = device.log_in(&self.hello(id), "", b"");
        let answers = self.ask(id, &frame);
        (id, answers.first().cloned().expect("a log-in is answered"))
    }

    /// Registers a device, and leaves it connected.
    pub(crate) fn register(&mut self, device: &mut Device, handle: &str) -> Id {
        let (id, answer) = self.log_in(device);
        assert_eq!(answer, FromRelay::LoggedIn(LoggedIn::Unregistered));
        assert_eq!(self.ask(id, &device.register(handle)), [FromRelay::Done { request: 1 }]);
        device.commit_incarnation();
        id
    }

    /// Sends a frame and takes all that came since the last time.
    pub(crate) fn ask(&mut self, id: Id, frame: &ToRelay) -> Vec<FromRelay> {
        self.give(id, Input::Bytes(frame.encode()));
        self.take(id)
    }

    /// The only code of the answers, which are one refusal.
    pub(crate) fn refusal(&mut self, id: Id, frame: &ToRelay) -> Code {
        only_code(&self.ask(id, frame))
    }

    pub(crate) fn take(&mut self, id: Id) -> Vec<FromRelay> {
        std::mem::take(&mut self.connections.get_mut(&id).unwrap().frames)
    }

    pub(crate) fn closed(&self, id: Id) -> Option<&'static str> {
        self.connections[&id].closed
    }

    pub(crate) fn drop(&mut self, id: Id) {
        let gone = self.connections.remove(&id).unwrap();
        self.tell_presence(gone.online);
    }

    pub(crate) fn give(&mut self, id: Id, input: Input) {
        let decisions = self.decide(id, input);
        self.carry_out(id, decisions);
    }

    /// What the relay decides, which nobody carries out yet: a store that takes its time.
    pub(crate) fn decide(&mut self, id: Id, input: Input) -> Vec<Decision> {
        self.connections.get_mut(&id).unwrap().connection.handle(input, self.now)
    }

    pub(crate) fn carry_out(&mut self, id: Id, decisions: Vec<Decision>) {
        let seat = self.connections.get_mut(&id).unwrap();
        let served = serve(&mut seat.connection, decisions, &self.store, self.now);
        seat.frames.extend(served.frames);
        for effect in served.effects {
            self.perform(id, effect);
        }
        let readers = |log: &LogId| -> Vec<Id> {
            self.connections.iter().filter(|(_, seat)| seat.attached.contains(log)).map(|(id, _)| *id).collect()
        };
        let grown: Vec<(Id, Growth)> = served
            .grown
            .into_iter()
            .flat_map(|growth| readers(&growth.log).into_iter().map(move |id| (id, growth.clone())))
            .collect();
        for (id, growth) in grown {
            self.give(id, Input::Grown(growth));
        }
    }

    fn perform(&mut self, id: Id, effect: Decision) {
        let seat = self.connections.get_mut(&id).unwrap();
        match effect {
            Decision::Attach(log) => drop(seat.attached.insert(log)),
            Decision::Detach(log) => drop(seat.attached.remove(&log)),
            Decision::LoggedIn(device) => {
                seat.device = Some(device);
                let older = self.connections.iter().find(|(other, seat)| **other != id && seat.device == Some(device));
                if let Some(older) = older.map(|(older, _)| *older) {
                    self.connections.get_mut(&older).unwrap().device = None;
                    self.give(older, Input::Replaced);
                }
            }
            Decision::Online(token) => {
                let before = std::mem::replace(&mut seat.online, token);
                self.tell_presence(before);
                self.tell_presence(token);
            }
            Decision::Watch(tokens) => {
                seat.watched.clone_from(&tokens);
                for token in tokens {
                    self.tell_presence_to(id, token);
                }
            }
            Decision::Meet { request, meeting, bytes, opens } => {
                let met = self.meetings.meet(self.now, meeting, id, opens);
                self.give(id, Input::MeetingAnswered { request, met: met.map(|_other| ()) });
                if let Ok(Some(other)) = met
                    && !bytes.is_empty()
                {
                    self.give(other, Input::Met { meeting, bytes });
                }
            }
            Decision::Expel(device) => {
                let of = self.connections.iter().find(|(_, seat)| seat.device == Some(device)).map(|(id, _)| *id);
                if let Some(expelled) = of {
                    self.give(expelled, Input::Revoked);
                }
            }
            Decision::Close { reason, .. } => seat.closed = Some(reason),
            other => panic!("{other:?} is no effect"),
        }
    }

    fn tell_presence(&mut self, token: Option<PresenceToken>) {
        let Some(token) = token else { return };
        let watchers: Vec<Id> =
            self.connections.iter().filter(|(_, seat)| seat.watched.contains(&token)).map(|(id, _)| *id).collect();
        for id in watchers {
            self.tell_presence_to(id, token);
        }
    }

    fn tell_presence_to(&mut self, id: Id, token: PresenceToken) {
        let online = self.connections.values().any(|seat| seat.online == Some(token));
        self.give(id, Input::PresenceChanged { token, online });
    }
}

pub(crate) fn relay(name: &str, seed: u8, instance: InstanceId, policy: impl Into<Policy>) -> Arc<Relay> {
    Arc::new(Relay::new(name, SigningKey::from_bytes(&[seed; 32]), instance, policy))
}

pub(crate) fn only_code(answers: &[FromRelay]) -> Code {
    match answers {
        [FromRelay::Failed(failed)] => failed.code,
        other => panic!("not one refusal: {other:?}"),
    }
}

/// The positions of all delivered entries, in the order in which they came.
pub(crate) fn positions(frames: &[FromRelay]) -> Vec<u64> {
    let entries = |frame: &FromRelay| match frame {
        FromRelay::Deliver { entries, .. } => entries.iter().map(|entry| entry.position.0).collect(),
        _ => Vec::new(),
    };
    frames.iter().flat_map(entries).collect()
}

pub(crate) fn ack(log: LogId, upto: u64) -> ToRelay {
    ToRelay::Ack { log, upto: Position(upto) }
}
