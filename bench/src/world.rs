//! People with the client's mind and its real store, each step committed before its outputs are performed, and a relay
//! that is memory only.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use ed25519_dalek::SigningKey;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealwire_client::{ClientStore, Unlock};
use sealwire_engine::{Command, Engine, Event, Input, Invite, Output, Settings, To};
use sealwire_relay_core::{Connection, Decision, Input as RelayInput, Policy, Registration, Relay, Served, serve};
use sealwire_store::MemoryStore;
use sealwire_store::logs::Limits;
use sealwire_wire::content::Part;
use sealwire_wire::handle::Handle;
use sealwire_wire::{InstanceId, LogId, Time};

pub(crate) struct World {
    relay: Arc<Relay>,
    store: MemoryStore,
    now: Time,
    pub(crate) people: Vec<Person>,
    pub(crate) shown: usize,
}

pub(crate) struct Person {
    handle: Handle,
    pub(crate) engine: Engine,
    store: ClientStore,
    connection: Option<Connection>,
    attached: Vec<LogId>,
    pub(crate) inputs: VecDeque<Input>,
    steps: u64,
}

/// Bytes that this process has given to write calls.
pub(crate) fn written() -> anyhow::Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io").context("bytes written are counted on Linux only")?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).context("no wchar")?;
    Ok(line.parse()?)
}

impl World {
    pub(crate) fn new(folder: &Path) -> anyhow::Result<World> {
        let instance = InstanceId([1; 16]);
        // The clock stands still, so there is no minute to write in.
        let policy = Policy { appends_per_minute: 0, ..Registration::Open.into() };
        let relay = Arc::new(Relay::new("relay", SigningKey::from_bytes(&[9; 32]), instance, policy));
        let store = MemoryStore::new(instance, Limits::default());
        let mut world = World { relay, store, now: Time(1_790_000_000_000), people: Vec::new(), shown: 0 };
        for name in ["alice", "bob"] {
            let handle = Handle::parse(&format!("{name}@relay"))?;
            // Receipts would come with the clock, which stands still here.
            let settings = Settings {
                handle: handle.clone(),
                invite: Invite::default(),
                relay_key: None,
                receipt_delay_ms: 3_600_000,
                mode: sealwire_engine::Mode::Direct,
                suite: sealwire_engine::Suite::Hybrid,
                key_packages: 0,
            };
            let (engine, step) = Engine::create(settings, world.now, &mut UnwrapErr(SysRng));
            let mut store =
                ClientStore::create(&folder.join(name), &Unlock::KeyFile(folder.join(format!("{name}.key"))))?;
            store.commit(&step.changes)?;
            let (connection, attached, inputs) = (None, Vec::new(), VecDeque::from([Input::Tick]));
            world.people.push(Person { handle, engine, store, connection, attached, inputs, steps: 0 });
            world.settle()?;
        }
        Ok(world)
    }

    pub(crate) fn steps(&self) -> u64 {
        self.people.iter().map(|person| person.steps).sum()
    }

    pub(crate) fn write(&mut self, from: usize, to: usize, length: usize) -> anyhow::Result<()> {
        let to = To::Handle(self.people[to].handle.clone());
        let send = Command::Send { to, part: Part::Text("x".repeat(length)), in_reply_to: None };
        self.people[from].inputs.push_back(Input::Command(1, send));
        self.settle()
    }

    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        while let Some(index) = self.people.iter().position(|person| !person.inputs.is_empty()) {
            let person = &mut self.people[index];
            let Some(input) = person.inputs.pop_front() else { break };
            person.steps += 1;
            let step = person.engine.handle(input, self.now, &mut UnwrapErr(SysRng));
            let (store, mut outputs) = (&mut person.store, Vec::new());
            step.carry_out(|changes| store.commit(changes), |output| outputs.push(output)).map_err(|(e, _)| e)?;
            outputs.into_iter().for_each(|output| self.perform(index, output));
        }
        Ok(())
    }

    fn perform(&mut self, index: usize, output: Output) {
        let person = &mut self.people[index];
        match output {
            Output::Event(Event::Message(message)) => {
                self.shown += 1;
                person.inputs.push_back(Input::Command(0, Command::Shown(message.number)));
            }
            Output::Event(_) | Output::Reply(..) => {}
            Output::Connect => {
                let (connection, hello) = Connection::open(&self.relay, self.now, [5; 32], None, None);
                person.connection = Some(connection);
                person.inputs.push_back(Input::Connected { binding: None });
                self.carry_out(index, hello);
            }
            Output::Disconnect => {
                person.connection = None;
                person.inputs.push_back(Input::Disconnected);
            }
            Output::Send(frame) => self.relay_input(index, RelayInput::Bytes(frame.encode())),
        }
    }

    fn relay_input(&mut self, index: usize, input: RelayInput) {
        if let Some(connection) = self.people[index].connection.as_mut() {
            let decisions = connection.handle(input, self.now);
            self.carry_out(index, decisions);
        }
    }

    fn carry_out(&mut self, index: usize, decisions: Vec<Decision>) {
        let Some(connection) = self.people[index].connection.as_mut() else { return };
        let Served { frames, effects, grown } = serve(connection, decisions, &self.store, self.now);
        let person = &mut self.people[index];
        person.inputs.extend(frames.iter().map(|frame| Input::Frame(frame.encode())));
        for effect in effects {
            if let Decision::Attach(log) = effect {
                person.attached.push(log);
            }
        }
        for growth in grown {
            for reader in 0..self.people.len() {
                if self.people[reader].attached.contains(&growth.log) {
                    self.relay_input(reader, RelayInput::Grown(growth.clone()));
                }
            }
        }
    }
}
