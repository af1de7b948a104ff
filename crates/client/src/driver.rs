//! The driver: the engine's only owner, on a thread of its own. It commits a step's changes in one transaction and only
//! then performs its outputs. If the commit fails, the engine is dropped and loaded again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealwire_engine::{
    Command, Engine, Event, Input, LoadError, MessageState, Output, Profile, Refusal, Reply, Step, StoredMessage,
    StoredQuarantine, Talk, Ticket,
};
use sealwire_wire::{AccountId, Time};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::Error;
use crate::socket::{RelayAddress, Socket, SocketEvent};
use crate::store::{ClientStore, LAYOUT, StoreError};

/// The longest time without a tick: clocks jump.
const TICK: Duration = Duration::from_secs(60);
/// Inputs that share one transaction.
const BATCH: usize = 32;
/// How long to wait after a commit that failed.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How often an application that does not keep up with its events is looked after.
const CATCH_UP: Duration = Duration::from_millis(50);
/// Events that a person has to know of and that wait for an application that does not keep up, one of each kind and
/// account. Beyond that they are lost; what they tell of is in the contacts.
const HELD_BACK_MAX: usize = 1_024;
/// Messages that are read at once for an application that did not keep up.
const CATCH_UP_MESSAGES: u32 = 64;

/// Where an answer goes.
type Answer<T> = oneshot::Sender<Result<T, Error>>;
/// An event of a connection, with the connection's number.
type Numbered = (u64, SocketEvent);

/// What the handle asks of the driver.
pub(crate) enum Request {
    Command(Command, Answer<Reply>),
    Shown(u64),
    Profile(oneshot::Sender<Profile>),
    State(u64, Answer<Option<MessageState>>),
    History { with: Talk, before: u64, limit: u32, reply: Answer<Vec<StoredMessage>> },
    Quarantine(Answer<Vec<StoredQuarantine>>),
    Close(oneshot::Sender<()>),
}

/// The channels between driver and handle.
pub(crate) struct Channels {
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) states: broadcast::Sender<(u64, MessageState)>,
    pub(crate) connected: watch::Sender<bool>,
}

pub(crate) struct Driver {
    engine: Engine,
    store: ClientStore,
    address: RelayAddress,
    channels: Channels,
    socket: Option<Socket>,
    socket_events: (mpsc::Sender<Numbered>, mpsc::Receiver<Numbered>),
    generation: u64,
    waiting: BTreeMap<Ticket, Answer<Reply>>,
    next_ticket: Ticket,
    /// The number of the last incoming message that was handed to the application.
    told: u64,
    /// Whether messages wait in the store because the application did not take its events.
    behind: bool,
    /// What a person has to know of ([`Event::matters`]) and did not fit: rejected envelopes, which anybody can send, do
    /// not push it out.
    held_back: BTreeMap<(u8, Option<AccountId>), Event>,
    rng: UnwrapErr<SysRng>,
    ticked: Instant,
    /// Requests that came while the store failed.
    aside: Vec<Request>,
    closing: Option<oneshot::Sender<()>>,
    /// Whether nobody asks for anything any more.
    over: bool,
}

/// Loads an engine from a store.
pub(crate) fn load(store: &ClientStore) -> Result<Engine, Error> {
    Engine::load(store.load()?).map_err(|error| match error {
        LoadError::Empty => Error::Store(StoreError::Damaged("it holds no account")),
        LoadError::Newer => Error::Store(StoreError::Newer { found: LAYOUT + 1 }),
        LoadError::Damaged(_) => Error::Store(StoreError::Damaged("a record cannot be read")),
    })
}

/// The time, as the engine wants it.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(since.as_millis() as u64)
}

impl Driver {
    pub(crate) fn new(engine: Engine, store: ClientStore, address: RelayAddress, channels: Channels) -> Driver {
        Driver {
            engine,
            store,
            address,
            channels,
            socket: None,
            socket_events: mpsc::channel(BATCH),
            generation: 0,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            told: 0,
            // What the application had not processed when it ended comes first.
            behind: true,
            held_back: BTreeMap::new(),
            rng: UnwrapErr(SysRng),
            ticked: Instant::now(),
            aside: Vec::new(),
            closing: None,
            over: false,
        }
    }

    /// Runs until the handle is gone or asks to close.
    pub(crate) async fn run(mut self) {
        self.catch_up();
        let mut step = self.engine.handle(Input::Tick, now(), &mut self.rng);
        loop {
            self.perform_all(step).await;
            // What fails is tried again; nothing depends on it.
            if let Err(error) = self.store.tidy() {
                tracing::warn!(%error, "what was deleted is still on the disk");
            }
            if self.closing.is_some() || self.over {
                break;
            }
            self.tell_held_back();
            if self.behind && self.channels.events.capacity() > 0 {
                self.catch_up();
            }
            let Some(next) = self.next_step().await else { break };
            step = next;
        }
        // Still connecting, there is nothing.
        if let Some(socket) = self.socket.take().filter(|_| *self.channels.connected.borrow()) {
            // What was handed over leaves: nothing else would publish the key packages of an account that is made and closed.
            socket.finish(&mut self.socket_events.1).await;
        }
        if let Some(closing) = self.closing.take() {
            drop(self.store);
            let _ = closing.send(());
        }
    }

    /// Waits for an input, handles it and whatever else is there already, and gives what follows. `None`: the end.
    async fn next_step(&mut self) -> Option<Step> {
        let wake = self.engine.next_wake().map_or(TICK, |at| Duration::from_millis(at.since(now())).min(TICK));
        let wait = if self.behind || !self.held_back.is_empty() { wake.min(CATCH_UP) } else { wake };
        let wait = self.store.tidy_within().map_or(wait, |within| wait.min(within));
        let mut step = Step::default();
        if !self.aside.is_empty() {
            std::mem::take(&mut self.aside).into_iter().for_each(|request| self.request(request, &mut step));
            return Some(step);
        }
        tokio::select! {
            // What the relay says comes first: it can only make the rest easier.
            biased;
            Some(event) = self.socket_events.1.recv() => self.socket_event(event, &mut step),
            request = self.channels.requests.recv() => self.request(request?, &mut step),
            () = tokio::time::sleep(wait) => {}
        }
        // In turns: neither a relay that talks all the time nor an application that asks all the time keeps the other waiting.
        for _ in 1..BATCH {
            let request = self.channels.requests.try_recv().ok();
            let event = self.socket_events.1.try_recv().ok();
            if request.is_none() && event.is_none() {
                break;
            }
            request.into_iter().for_each(|request| self.request(request, &mut step));
            event.into_iter().for_each(|event| self.socket_event(event, &mut step));
        }
        let is_due = self.engine.next_wake().is_some_and(|at| at <= now());
        if is_due || self.ticked.elapsed() >= TICK {
            self.ticked = Instant::now();
            self.input(Input::Tick, &mut step);
        }
        Some(step)
    }

    fn input(&mut self, input: Input, step: &mut Step) {
        step.append(self.engine.handle(input, now(), &mut self.rng));
    }

    fn socket_event(&mut self, (generation, event): (u64, SocketEvent), step: &mut Step) {
        if generation != self.generation {
            return;
        }
        let input = match event {
            SocketEvent::Opened { binding } => Input::Connected { binding },
            SocketEvent::Frame(bytes) => Input::Frame(bytes),
            SocketEvent::Closed => {
                self.socket = None;
                Input::Disconnected
            }
        };
        self.input(input, step);
    }

    fn request(&mut self, request: Request, step: &mut Step) {
        // Whoever asked may have gone; then nobody misses the answer.
        match request {
            Request::Command(command, reply) => {
                self.next_ticket += 1;
                self.waiting.insert(self.next_ticket, reply);
                self.input(Input::Command(self.next_ticket, command), step);
            }
            Request::Shown(number) => self.input(Input::Command(0, Command::Shown(number)), step),
            Request::Profile(reply) => drop(reply.send(self.engine.profile())),
            Request::State(number, reply) => drop(reply.send(self.store.state(number).map_err(Error::Store))),
            Request::History { with, before, limit, reply } => {
                drop(reply.send(self.store.messages(with, before, limit).map_err(Error::Store)));
            }
            Request::Quarantine(reply) => drop(reply.send(self.store.quarantine().map_err(Error::Store))),
            Request::Close(reply) => self.closing = Some(reply),
        }
    }

    /// The one place where changes become durable and outputs happen.
    async fn perform_all(&mut self, step: Step) {
        let mut outputs = Vec::new();
        let store = &mut self.store;
        match step.carry_out(|changes| store.commit(changes), |output| outputs.push(output)) {
            Ok(()) => outputs.into_iter().for_each(|output| self.perform(output)),
            Err((error, unperformed)) => self.recover(unperformed, &error).await,
        }
    }

    /// The changes are not durable: nothing of the step happens, and the engine is what the store says.
    async fn recover(&mut self, unperformed: Vec<Output>, error: &StoreError) {
        let text = error.to_string();
        for output in unperformed {
            if let Output::Reply(ticket, _) = output
                && let Some(reply) = self.waiting.remove(&ticket)
            {
                let _ = reply.send(Err(Error::NotSaved(text.clone())));
            }
        }
        self.hang_up();
        for (_, reply) in std::mem::take(&mut self.waiting) {
            let _ = reply.send(Err(Error::NotSaved(text.clone())));
        }
        // What is in memory is not what is stored: go on only with what is.
        let mut retry = Instant::now() + STORE_RETRY;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(retry.into()) => {
                    if let Ok(engine) = load(&self.store) {
                        return self.engine = engine;
                    }
                    for request in self.aside.drain(..) {
                        if let Request::Command(_, reply) = request {
                            let _ = reply.send(Err(Error::NotSaved(text.clone())));
                        }
                    }
                    retry = Instant::now() + STORE_RETRY;
                }
                request = self.channels.requests.recv() => match request {
                    None => return self.over = true,
                    Some(Request::Close(reply)) => return self.closing = Some(reply),
                    Some(other) => self.aside.push(other),
                },
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send(frame) => {
                let sent = self.socket.as_ref().is_some_and(|socket| socket.send(frame.encode()));
                if !sent {
                    self.hang_up_loudly();
                }
            }
            Output::Reply(ticket, reply) => {
                if let Some(waiting) = self.waiting.remove(&ticket) {
                    let _ = waiting.send(reply.map_err(Error::Refused));
                }
            }
            Output::Event(event) => self.tell(event),
            Output::Connect => {
                self.generation += 1;
                let events = self.socket_events.0.clone();
                self.socket = Some(Socket::connect(self.address.clone(), self.generation, events));
            }
            Output::Disconnect => self.hang_up_loudly(),
        }
    }

    fn hang_up(&mut self) {
        self.socket = None;
        self.generation += 1;
        self.channels.connected.send_replace(false);
    }

    /// Closes the connection and lets the engine know, as if it had been closed from outside.
    fn hang_up_loudly(&mut self) {
        if self.socket.take().is_some() {
            self.generation += 1;
            let (events, generation) = (self.socket_events.0.clone(), self.generation);
            tokio::spawn(async move { drop(events.send((generation, SocketEvent::Closed)).await) });
        }
    }

    fn tell(&mut self, event: Event) {
        match &event {
            Event::Connected => drop(self.channels.connected.send_replace(true)),
            Event::Disconnected { .. } => drop(self.channels.connected.send_replace(false)),
            // Nobody may be waiting for a state.
            Event::State { number, state, .. } => drop(self.channels.states.send((*number, *state))),
            _ => {}
        }
        let number = match &event {
            Event::Message(message) => message.number,
            Event::Request(request) => request.message.number,
            _ => return self.tell_other(event),
        };
        // Messages are told in order, once per run: those that do not fit stay in the store until there is room.
        if self.behind || self.channels.events.try_send(event).is_err() {
            self.behind = true;
        } else {
            self.told = number;
        }
    }

    /// What does not fit can be asked for: states, the quarantine, the profile. But not what a person has to know of
    /// without asking.
    fn tell_other(&mut self, event: Event) {
        let Err(refused) = self.channels.events.try_send(event) else { return };
        let event = refused.into_inner();
        if let Some(kind) = event.matters()
            && (self.held_back.len() < HELD_BACK_MAX || self.held_back.contains_key(&kind))
        {
            self.held_back.insert(kind, event);
        }
    }

    fn tell_held_back(&mut self) {
        while self.channels.events.capacity() > 0
            && let Some((_, event)) = self.held_back.pop_first()
        {
            self.tell_other(event);
        }
    }

    /// Hands over messages that wait in the store, as many as there is room for.
    fn catch_up(&mut self) {
        while self.behind {
            let Ok(waiting) = self.store.unshown(self.told, CATCH_UP_MESSAGES) else {
                self.behind = false;
                return self.tell_other(Event::StoreDamaged);
            };
            if waiting.is_empty() {
                self.behind = false;
            }
            for (message, request) in waiting {
                let number = message.number;
                if self.channels.events.try_send(self.event_of(message, request)).is_err() {
                    return;
                }
                self.told = number;
            }
        }
    }

    fn event_of(&self, message: sealwire_engine::Incoming, request: bool) -> Event {
        let accepted = self.engine.contact(message.from).is_some_and(|contact| contact.accepted);
        if request && !accepted {
            let safety_number = sealwire_keys::SafetyNumber::of(self.engine.profile().account, message.from);
            Event::Request(sealwire_engine::RequestView { message, safety_number })
        } else {
            Event::Message(message)
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
    }
}
