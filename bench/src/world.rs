//! People with the client's mind and its real store, each step committed before its outputs are performed, and a relay
//! that is memory only.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use ed25519_dalek::SigningKey;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use rustix::time::{ClockId, clock_gettime};
use sealwire_client::{ClientStore, Unlock};
use sealwire_engine::{
    Change, Command, Engine, Event, Input, Invite, Mode, Output, Refusal, Reply, Settings, Step, To,
};
use sealwire_relay_core::{Connection, Decision, Input as RelayInput, Policy, Registration, Relay, Served, serve};
use sealwire_store::MemoryStore;
use sealwire_store::logs::Limits;
use sealwire_wire::content::Part;
use sealwire_wire::handle::Handle;
use sealwire_wire::{AccountId, InstanceId, LogId, Time};

/// The ticket of commands whose reply counts.
const COMMAND: u64 = 1;
/// That a person has at the relay, where there are conversations: enough to be found by.
const KEY_PACKAGES: u32 = 4;
/// Inputs that share a transaction where they wait, as in the SDK's driver.
const BATCH: usize = 32;

pub(crate) struct World {
    relay: Arc<Relay>,
    store: MemoryStore,
    now: Time,
    mode: Mode,
    people: Vec<Person>,
    pub(crate) shown: usize,
    /// Requests of strangers that were shown.
    pub(crate) requests: usize,
    /// To the newest command.
    reply: Option<Result<Reply, Refusal>>,
    pub(crate) spent: Spent,
}

/// Seconds of CPU, and bytes, of all clients together.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spent {
    /// By engines.
    pub(crate) thinking: f64,
    /// By their stores.
    pub(crate) saving: f64,
    /// Of the records that their steps put.
    pub(crate) changed: u64,
}

struct Person {
    handle: Handle,
    engine: Engine,
    /// `None`: somebody whose records nobody needs again.
    store: Option<ClientStore>,
    connection: Option<Connection>,
    attached: Vec<LogId>,
    inputs: VecDeque<Input>,
    steps: u64,
}

/// Bytes that this process has given to write calls.
pub(crate) fn written() -> anyhow::Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io").context("bytes written are counted on Linux only")?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).context("no wchar")?;
    Ok(line.parse()?)
}

/// Seconds of CPU that this process has used, all its threads together.
pub(crate) fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn bytes_of(change: &Change) -> u64 {
    match change {
        Change::Put { key, value, .. } => (key.len() + value.len()) as u64,
        Change::Delete { key, .. } => key.len() as u64,
    }
}

impl World {
    /// A relay, and nobody there.
    pub(crate) fn new(mode: Mode) -> World {
        let instance = InstanceId([1; 16]);
        // The clock goes only where a bench lets it, so there is no minute to write in.
        let policy = Policy { appends_per_minute: 0, ..Registration::Open.into() };
        let relay = Arc::new(Relay::new("relay", SigningKey::from_bytes(&[9; 32]), instance, policy));
        let store = MemoryStore::new(instance, Limits::default());
        let (now, spent) = (Time(1_790_000_000_000), Spent::default());
        World { relay, store, now, mode, people: Vec::new(), shown: 0, requests: 0, reply: None, spent }
    }

    /// Somebody comes, registers, and stays connected; with a store in that folder, where there is one.
    pub(crate) fn come(&mut self, folder: Option<&Path>) -> anyhow::Result<()> {
        let name = format!("person{}", self.people.len());
        let handle = Handle::parse(&format!("{name}@relay"))?;
        // Receipts would come with the clock.
        let settings = Settings {
            handle: handle.clone(),
            invite: Invite::default(),
            relay_key: None,
            receipt_delay_ms: 3_600_000,
            mode: self.mode,
            suite: sealwire_engine::Suite::Hybrid,
            key_packages: KEY_PACKAGES,
        };
        let (engine, step) = Engine::create(settings, self.now, &mut UnwrapErr(SysRng));
        let create = |folder: &Path| {
            ClientStore::create(&folder.join(&name), &Unlock::KeyFile(folder.join(format!("{name}.key"))))
        };
        let mut store = folder.map(create).transpose()?;
        if let Some(store) = &mut store {
            store.commit(&step.changes)?;
        }
        let (connection, attached, inputs) = (None, Vec::new(), VecDeque::from([Input::Tick]));
        self.people.push(Person { handle, engine, store, connection, attached, inputs, steps: 0 });
        self.settle()
    }

    /// Somebody goes and does not come back: others can add them still.
    pub(crate) fn go(&mut self, who: usize) {
        let person = &mut self.people[who];
        (person.connection, person.attached) = (None, Vec::new());
    }

    pub(crate) fn steps(&self) -> u64 {
        self.people.iter().map(|person| person.steps).sum()
    }

    pub(crate) fn write(&mut self, from: usize, to: usize, length: usize) -> anyhow::Result<()> {
        self.write_to(from, To::Handle(self.people[to].handle.clone()), length)
    }

    pub(crate) fn write_to(&mut self, from: usize, to: To, length: usize) -> anyhow::Result<()> {
        self.command(from, Command::Send { to, part: Part::Text("x".repeat(length)), in_reply_to: None }).map(drop)
    }

    /// So many messages at once.
    pub(crate) fn write_many(&mut self, from: usize, to: &To, length: usize, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            let send = Command::Send { to: to.clone(), part: Part::Text("x".repeat(length)), in_reply_to: None };
            self.people[from].inputs.push_back(Input::Command(0, send));
        }
        self.settle()
    }

    /// The reply is to the command itself: what it began goes on with the clock.
    pub(crate) fn command(&mut self, who: usize, command: Command) -> anyhow::Result<Reply> {
        self.people[who].inputs.push_back(Input::Command(COMMAND, command));
        self.settle()?;
        Ok(self.reply.take().context("a command that nobody has answered")??)
    }

    pub(crate) fn handle_of(&self, who: usize) -> Handle {
        self.people[who].handle.clone()
    }

    pub(crate) fn account_of(&self, who: usize) -> AccountId {
        self.people[who].engine.profile().account
    }

    /// Lets the clock go.
    pub(crate) fn wait(&mut self, milliseconds: u64) -> anyhow::Result<()> {
        self.now = self.now.plus(milliseconds);
        for person in &mut self.people {
            if person.connection.is_some() && person.engine.next_wake().is_some_and(|wake| wake <= self.now) {
                person.inputs.push_back(Input::Tick);
            }
        }
        self.settle()
    }

    /// Somebody accepts another's request.
    pub(crate) fn accept(&mut self, who: usize, whom: usize) -> anyhow::Result<()> {
        let account = self.account_of(whom);
        self.command(who, Command::Accept(account)).map(drop)
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        while let Some(index) = self.people.iter().position(|person| !person.inputs.is_empty()) {
            let person = &mut self.people[index];
            let begin = cpu();
            let mut step = Step::default();
            for input in person.inputs.drain(..BATCH.min(person.inputs.len())) {
                person.steps += 1;
                step.append(person.engine.handle(input, self.now, &mut UnwrapErr(SysRng)));
            }
            let between = cpu();
            let (store, changed, mut outputs) = (&mut person.store, &mut self.spent.changed, Vec::new());
            step.carry_out(
                |changes| {
                    *changed += changes.iter().map(bytes_of).sum::<u64>();
                    store.as_mut().map_or(Ok(()), |store| store.commit(changes))
                },
                |output| outputs.push(output),
            )
            .map_err(|(e, _)| e)?;
            self.spent.thinking += between - begin;
            self.spent.saving += cpu() - between;
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
            Output::Event(Event::Request(_)) => self.requests += 1,
            Output::Reply(COMMAND, reply) => self.reply = Some(reply),
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
