//! People with engines and disks, and a relay; no network. Between relay and person stands a hand that may alter frames.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sealwire_engine::*;
use sealwire_keys::{AccountEntry, AccountKind, AccountLog, Change as AccountChange, sign_entry};
use sealwire_relay_core::{Connection, Decision, Input as RelayInput, Meetings, Registration, Relay, Served, serve};
use sealwire_session::DeviceSecrets;
use sealwire_store::MemoryStore;
use sealwire_store::logs::Limits;
use sealwire_wire::content::Part;
use sealwire_wire::frame::{FromRelay, LoggedIn, LookupBy, ToRelay};
use sealwire_wire::handle::Handle;
use sealwire_wire::{AccountId, InstanceId, LogId, Position, Time};

pub(crate) type Records = BTreeMap<(Table, Vec<u8>), Vec<u8>>;
type Hand = Box<dyn FnMut(FromRelay) -> Vec<FromRelay>>;

pub(crate) struct World {
    pub(crate) relay: Arc<Relay>,
    pub(crate) store: MemoryStore,
    pub(crate) now: Time,
    pub(crate) people: Vec<Person>,
    /// Whose process ends, and at which of the points at which it can: before each commit and before each output.
    pub(crate) kill: Option<(usize, u64)>,
    /// How many such points each has passed.
    pub(crate) points: BTreeMap<usize, u64>,
    seed: u64,
    meetings: Meetings<usize>,
    pub(crate) guest: Option<Guest>,
    /// How those who are added talk.
    pub(crate) mode: Mode,
    pub(crate) suite: Suite,
}

/// A device that has read a code.
pub(crate) struct Guest {
    newcomer: Newcomer,
    /// Where it sits in meetings: no person's number, and another one each time.
    seat: usize,
    connection: Connection,
    rng: ChaCha20Rng,
    pub(crate) digits: Option<String>,
    /// What came of it.
    pub(crate) ended: Option<Result<(), LinkEnd>>,
    inputs: Vec<Input>,
}

pub(crate) struct Person {
    pub(crate) handle: Handle,
    engine: Engine,
    pub(crate) disk: Records,
    connection: Option<Connection>,
    attached: Vec<LogId>,
    inputs: Vec<Input>,
    pub(crate) events: Vec<Event>,
    pub(crate) replies: Vec<Result<Reply, Refusal>>,
    pub(crate) hand: Hand,
    pub(crate) sent: Vec<ToRelay>,
    /// What of it never reaches the relay: one of the two ends before.
    pub(crate) loses: fn(&ToRelay) -> bool,
    /// By how much its clock is wrong.
    pub(crate) clock_offset: i64,
    /// Requests that asked for a handle: what a hostile relay would answer falsely.
    pub(crate) by_handle: Rc<RefCell<BTreeSet<u32>>>,
    rng: ChaCha20Rng,
}

impl World {
    /// People who are registered and connected, and talk in conversations.
    pub(crate) fn talking(suite: Suite, names: &[&str]) -> World {
        let mut world = World::of(&[]);
        (world.mode, world.suite) = (Mode::Mls, suite);
        for name in names {
            world.add(name);
        }
        world
    }

    /// People who are registered and connected, and talk in direct mode.
    pub(crate) fn of(names: &[&str]) -> World {
        let relay = Relay::new("relay", SigningKey::from_bytes(&[9; 32]), InstanceId([1; 16]), Registration::Open);
        let store = MemoryStore::new(InstanceId([1; 16]), Limits::default());
        let mut world = World {
            relay: Arc::new(relay),
            store,
            now: Time(1_790_000_000_000),
            people: vec![],
            kill: None,
            points: BTreeMap::new(),
            seed: 0,
            meetings: Meetings::default(),
            guest: None,
            mode: Mode::Direct,
            suite: Suite::Classical,
        };
        for name in names {
            world.add(name);
        }
        world
    }

    /// Alice, whose message for bob, of that number, was accepted; then the relay came back as it was before bob. He is
    /// away, and deaf.
    pub(crate) fn that_lost_a_receiver() -> (World, u64) {
        let mut world = World::of(&["alice"]);
        let backup = world.store.snapshot();
        world.add("bob");
        world.people[1].hand = Box::new(|_| vec![]);
        world.cut(1);
        let number = world.write(0, 1, "accepted, then lost with its receiver");
        assert_eq!(world.state(0, number), Some(MessageState::Accepted));
        world.store.restore(&backup);
        world.renew_relay(InstanceId([2; 16]));
        world.pass(10_000);
        (world, number)
    }

    pub(crate) fn add(&mut self, name: &str) -> usize {
        self.seed += 1;
        let mut rng = ChaCha20Rng::seed_from_u64(self.seed);
        let handle = Handle::parse(&format!("{name}@relay")).unwrap();
        let settings = Settings {
            handle: handle.clone(),
            invite: Invite::default(),
            relay_key: None,
            receipt_delay_ms: 5_000,
            mode: self.mode,
            suite: self.suite,
            key_packages: 4,
        };
        let (engine, step) = Engine::create(settings, self.now, &mut rng);
        let mut disk = Records::new();
        apply(&mut disk, &step.changes);
        self.people.push(Person::new(handle, engine, disk, rng));
        self.settle();
        self.people.len() - 1
    }

    /// Until nobody has anything to do at this moment.
    pub(crate) fn settle(&mut self) {
        while let Some(person) = self.people.iter().position(|person| !person.inputs.is_empty()) {
            let input = self.people[person].inputs.remove(0);
            self.step(person, input);
        }
    }

    /// Time passes, second by second.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        let end = self.now.plus(milliseconds);
        while self.now < end {
            self.now = self.now.plus(1_000).min(end);
            for person in 0..self.people.len() {
                self.people[person].inputs.push(Input::Tick);
                self.relay_input(person, RelayInput::Tick);
            }
            self.settle();
        }
    }

    pub(crate) fn command(&mut self, person: usize, command: Command) -> Result<Reply, Refusal> {
        self.try_command(person, command).expect("every command has a reply")
    }

    /// A command whose process may end before it replies.
    pub(crate) fn try_command(&mut self, person: usize, command: Command) -> Option<Result<Reply, Refusal>> {
        self.people[person].replies.clear();
        self.people[person].inputs.push(Input::Command(1, command));
        self.settle();
        self.people[person].replies.pop()
    }

    pub(crate) fn write(&mut self, from: usize, to: usize, text: &str) -> u64 {
        let to = To::Handle(self.people[to].handle.clone());
        let part = Part::Text(text.into());
        match self.command(from, Command::Send { to, part, in_reply_to: None }) {
            Ok(Reply::Queued(number)) => number,
            other => panic!("not queued: {other:?}"),
        }
    }

    /// Both have accepted each other, and everything about that has been said.
    pub(crate) fn befriend(&mut self, a: usize, b: usize) {
        self.write(a, b, "hello");
        let account = self.account(a);
        self.command(b, Command::Accept(account)).unwrap();
        self.write(b, a, "hello to you");
        self.pass(6_000);
        self.people.iter_mut().for_each(|person| person.events.clear());
    }

    pub(crate) fn account(&self, person: usize) -> sealwire_wire::AccountId {
        self.people[person].engine.profile().account
    }

    pub(crate) fn inbox(&self, person: usize) -> sealwire_wire::InboxAddress {
        self.people[person].engine.profile().inbox
    }

    pub(crate) fn contact(&self, of: usize, whom: usize) -> ContactView {
        self.people[of].engine.contact(self.account(whom)).expect("a contact")
    }

    pub(crate) fn cut(&mut self, person: usize) {
        self.people[person].connection = None;
        self.people[person].inputs.push(Input::Disconnected);
        self.settle();
    }

    /// The relay is another process from now on, and says that its store is another one (L11).
    pub(crate) fn renew_relay(&mut self, instance: InstanceId) {
        self.store.renew_instance(instance);
        let relay = Relay::new("relay", SigningKey::from_bytes(&[9; 32]), instance, Registration::Open);
        self.relay = Arc::new(relay);
        for person in 0..self.people.len() {
            self.cut(person);
        }
    }

    /// A device that has read a code, and asks the relay to meet there.
    pub(crate) fn read_code(&mut self, secret: &CodeSecret) {
        self.seed += 1;
        let mut rng = ChaCha20Rng::seed_from_u64(self.seed);
        let newcomer = Newcomer::new(secret, "relay".into(), &mut rng);
        let (connection, hello) = Connection::open(&self.relay, self.now, [7; 32], None, None);
        let seat = usize::MAX - self.seed as usize;
        self.guest = Some(Guest { newcomer, seat, connection, rng, digits: None, ended: None, inputs: vec![] });
        self.guest_input(Input::Connected { binding: None });
        self.carry_out_guest(hello);
        self.settle_guest();
    }

    /// Links a new device to somebody's account: both see the same digits, and the person says so.
    pub(crate) fn link(&mut self, sponsor: usize) -> usize {
        let Ok(Reply::LinkCode(secret)) = self.command(sponsor, Command::Link) else { panic!("no code") };
        self.read_code(&secret);
        let digits = self.guest.as_ref().and_then(|guest| guest.digits.clone()).expect("the new device shows digits");
        let asks = |event: &Event| matches!(event, Event::LinkAsks { digits: shown } if *shown == digits);
        assert!(self.people[sponsor].saw(asks), "the same digits");
        self.command(sponsor, Command::ConfirmLink(true)).unwrap();
        self.settle_guest();
        self.settle();
        assert_eq!(self.guest.as_ref().unwrap().ended, Some(Ok(())));
        self.guest = None;
        self.people.len() - 1
    }

    fn met(&mut self, other: usize, meeting: sealwire_wire::MeetingId, bytes: Vec<u8>) {
        match &mut self.guest {
            Some(guest) if other == guest.seat => {
                let decisions = guest.connection.handle(RelayInput::Met { meeting, bytes }, self.now);
                self.carry_out_guest(decisions);
            }
            _ if other >= self.people.len() => {}
            _ => self.relay_input(other, RelayInput::Met { meeting, bytes }),
        }
    }

    /// Until the new device and everybody else has nothing to do.
    pub(crate) fn settle_guest(&mut self) {
        loop {
            self.settle();
            let Some(guest) = self.guest.as_mut().filter(|guest| !guest.inputs.is_empty()) else { return };
            let input = guest.inputs.remove(0);
            self.guest_input(input);
        }
    }

    pub(crate) fn guest_input(&mut self, input: Input) {
        let now = self.now;
        let Some(guest) = &mut self.guest else { return };
        for output in guest.newcomer.handle(input, now) {
            let Some(guest) = &mut self.guest else { return };
            match output {
                NewcomerOutput::Send(frame) => self.guest_sends(&frame),
                NewcomerOutput::Digits(digits) => guest.digits = Some(digits),
                NewcomerOutput::Failed(reason) => guest.ended = Some(Err(reason)),
                NewcomerOutput::Listed => guest.ended = Some(Ok(())),
                NewcomerOutput::Linked(engine, step) => {
                    let mut disk = Records::new();
                    apply(&mut disk, &step.changes);
                    let handle = engine.profile().handle;
                    let rng = ChaCha20Rng::from_rng(&mut guest.rng);
                    self.people.push(Person::new(handle, *engine, disk, rng));
                    for output in step.outputs {
                        let Output::Send(frame) = output else { panic!("nothing else") };
                        self.guest_sends(&frame);
                    }
                }
            }
        }
    }

    fn guest_sends(&mut self, frame: &ToRelay) {
        let Some(guest) = &mut self.guest else { return };
        let decisions = guest.connection.handle(RelayInput::Bytes(frame.encode()), self.now);
        self.carry_out_guest(decisions);
    }

    fn carry_out_guest(&mut self, decisions: Vec<Decision>) {
        let Some(guest) = &mut self.guest else { return };
        let Served { frames, effects, .. } = serve(&mut guest.connection, decisions, &self.store, self.now);
        guest.inputs.extend(frames.iter().map(|frame| Input::Frame(frame.encode())));
        for effect in effects {
            if let Decision::Meet { request, meeting, bytes, opens } = effect {
                let Some(guest) = &mut self.guest else { return };
                let met = self.meetings.meet(self.now, meeting, guest.seat, opens);
                let answer = RelayInput::MeetingAnswered { request, met: met.map(|_other| ()) };
                let decisions = guest.connection.handle(answer, self.now);
                self.carry_out_guest(decisions);
                if let Ok(Some(other)) = met
                    && !bytes.is_empty()
                {
                    self.met(other, meeting, bytes);
                }
            }
        }
    }

    /// Cuts and connects again.
    pub(crate) fn reconnect(&mut self, person: usize) {
        self.cut(person);
        self.pass(5_000);
    }

    /// The process ends and starts again with these records.
    pub(crate) fn restart_with(&mut self, person: usize, disk: Records) {
        let person = &mut self.people[person];
        person.disk = disk;
        person.connection = None;
        person.engine = load(&person.disk).expect("the disk can be loaded");
        person.inputs.push(Input::Tick);
        self.settle();
    }

    /// The texts of the history that came in, in order.
    pub(crate) fn shown(&self, person: usize) -> Vec<String> {
        let messages = self.people[person].disk.iter().filter(|((table, _), _)| *table == Table::Message);
        let mut messages: Vec<_> = messages.filter_map(|((_, key), value)| StoredMessage::decode(key, value)).collect();
        messages.sort_by_key(|message| message.number);
        let text = |message: StoredMessage| match message.content.part {
            Part::Text(text) if message.incoming => Some(text),
            _ => None,
        };
        messages.into_iter().filter_map(text).collect()
    }

    pub(crate) fn state(&self, person: usize, number: u64) -> Option<MessageState> {
        let key = number.to_be_bytes().to_vec();
        let of =
            |table| self.people[person].disk.get(&(table, key.clone())).map(|v| StoredState::decode(table, v).unwrap());
        of(Table::Sent).or_else(|| of(Table::Outgoing))
    }

    /// Puts a frame in front of a person, as a hostile relay may.
    pub(crate) fn inject(&mut self, person: usize, frame: FromRelay) {
        self.people[person].inputs.push(Input::Frame(frame.encode()));
        self.settle();
    }

    fn step(&mut self, index: usize, input: Input) {
        let person = &mut self.people[index];
        let now = Time(self.now.0.saturating_add_signed(person.clock_offset));
        let step = person.engine.handle(input, now, &mut person.rng);
        let disk = &mut person.disk;
        let end = self.kill.filter(|(whose, _)| *whose == index).map_or(u64::MAX, |(_, point)| point);
        let point = std::cell::Cell::new(self.points.get(&index).copied().unwrap_or(0));
        // Whether the process still runs at the next point.
        let next = || {
            point.set(point.get() + 1);
            point.get() != end
        };
        let mut outputs = Vec::new();
        let mut runs = true;
        let commit = |changes: &[Change]| match next() {
            true => {
                apply(disk, changes);
                Ok(())
            }
            false => Err(()),
        };
        let carried = step.carry_out(commit, |output| {
            runs = runs && next();
            if runs {
                outputs.push(output);
            }
        });
        runs &= carried.is_ok();
        self.points.insert(index, point.get());
        for output in outputs {
            self.perform(index, output);
        }
        if !runs {
            self.kill = None;
            let person = &mut self.people[index];
            (person.connection, person.inputs) = (None, vec![Input::Tick]);
            person.attached.clear();
            person.engine = load(&person.disk).expect("the disk can be loaded");
        }
    }

    fn perform(&mut self, index: usize, output: Output) {
        let person = &mut self.people[index];
        match output {
            Output::Event(event) => person.events.push(event),
            Output::Reply(_, reply) => person.replies.push(reply),
            Output::Connect => {
                let challenge = {
                    let mut bytes = [0; 32];
                    person.rng.fill_bytes(&mut bytes);
                    bytes
                };
                let (connection, hello) = Connection::open(&self.relay, self.now, challenge, None, None);
                person.connection = Some(connection);
                person.attached.clear();
                person.by_handle.borrow_mut().clear();
                person.inputs.push(Input::Connected { binding: None });
                self.carry_out(index, hello);
            }
            Output::Disconnect => {
                person.connection = None;
                person.inputs.push(Input::Disconnected);
            }
            Output::Send(frame) => {
                if let ToRelay::Lookup { request, by: LookupBy::Handle(_) } = &frame {
                    person.by_handle.borrow_mut().insert(*request);
                }
                person.sent.push(frame.clone());
                if !(person.loses)(&frame) {
                    self.relay_input(index, RelayInput::Bytes(frame.encode()));
                }
            }
        }
    }

    pub(crate) fn relay_input(&mut self, index: usize, input: RelayInput) {
        let Some(connection) = self.people[index].connection.as_mut() else { return };
        let decisions = connection.handle(input, self.now);
        self.carry_out(index, decisions);
    }

    fn carry_out(&mut self, index: usize, decisions: Vec<Decision>) {
        let Some(connection) = self.people[index].connection.as_mut() else { return };
        let Served { frames, effects, grown } = serve(connection, decisions, &self.store, self.now);
        let person = &mut self.people[index];
        for frame in frames {
            let frames = (person.hand)(frame);
            person.inputs.extend(frames.iter().map(|frame| Input::Frame(frame.encode())));
        }
        for effect in effects {
            match effect {
                Decision::Attach(log) => self.people[index].attached.push(log),
                Decision::Close { .. } => {
                    self.people[index].connection = None;
                    self.people[index].inputs.push(Input::Disconnected);
                }
                Decision::Meet { request, meeting, bytes, opens } => {
                    let met = self.meetings.meet(self.now, meeting, index, opens);
                    self.relay_input(index, RelayInput::MeetingAnswered { request, met: met.map(|_other| ()) });
                    if let Ok(Some(other)) = met
                        && !bytes.is_empty()
                    {
                        self.met(other, meeting, bytes);
                    }
                }
                Decision::Expel(device) => {
                    let of = |person: &Person| person.connection.as_ref().and_then(Connection::device) == Some(device);
                    if let Some(expelled) = self.people.iter().position(of) {
                        self.relay_input(expelled, RelayInput::Revoked);
                    }
                }
                _ => {}
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

impl Person {
    fn new(handle: Handle, engine: Engine, disk: Records, rng: ChaCha20Rng) -> Person {
        Person {
            handle,
            engine,
            disk,
            connection: None,
            attached: vec![],
            inputs: vec![Input::Tick],
            events: vec![],
            replies: vec![],
            hand: Box::new(|frame| vec![frame]),
            sent: vec![],
            loses: |_| false,
            clock_offset: 0,
            by_handle: Rc::default(),
            rng,
        }
    }

    pub(crate) fn saw(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(wanted)
    }

    /// The appends that this person sent.
    pub(crate) fn appends(&self) -> Vec<Vec<u8>> {
        let append = |frame: &ToRelay| match frame {
            ToRelay::Append { entry, .. } => Some(entry.clone()),
            _ => None,
        };
        self.sent.iter().filter_map(append).collect()
    }
}

/// A relay that claims this of what was read of the inbox, and lets everything else pass.
pub(crate) fn claiming_read_upto(mut read_upto: impl FnMut() -> Position + 'static) -> Hand {
    Box::new(move |mut frame| {
        if let FromRelay::LoggedIn(LoggedIn::Registered { read_upto: upto, .. }) = &mut frame {
            *upto = read_upto();
        }
        vec![frame]
    })
}

/// The log of a new account: its genesis entry.
pub(crate) fn account_log(secrets: &DeviceSecrets) -> AccountLog {
    let genesis = AccountEntry {
        account: AccountId([0; 32]),
        number: 0,
        previous: [0; 32],
        at: Time(1),
        change: AccountChange::Genesis { kind: AccountKind::Person, device: secrets.card() },
        signer: secrets.device_id(),
    };
    AccountLog::begin(sign_entry(&genesis, |bytes| secrets.sign(bytes))).unwrap()
}

pub(crate) fn load(disk: &Records) -> Result<Engine, LoadError> {
    let records = disk.iter().filter(|((table, _), _)| Table::LOADED.contains(table));
    Engine::load(records.map(|((table, key), value)| (*table, key.clone(), value.clone().into())))
}

pub(crate) fn apply(disk: &mut Records, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put { table, key, value } => drop(disk.insert((*table, key.clone()), value.to_vec())),
            Change::Delete { table, key } => drop(disk.remove(&(*table, key.clone()))),
        }
    }
}
