//! One run: people who write to each other while everything goes wrong, then quiet, then the check.

use std::collections::{BTreeMap, BTreeSet};

use sealwire_engine::{
    CodeSecret, Command, ConversationKind, ConversationView, Event, GroupChange, Incoming, Input, LogInProblem,
    MessageState, Mode, QuarantineReason, Refusal, Role, Suite, To, UnsentReason,
};
use sealwire_relay_core::Input as RelayInput;
use sealwire_wire::content::{Content, Part};
use sealwire_wire::handle::Handle;
use sealwire_wire::{AccountId, ConversationId, InboxAddress, LogId, Position, Time};

use crate::check::{self, CANARY, Expected, Violation, Wiretap};
use crate::device::{Device, Stepped, Talks, ToNetwork, Trouble, send};
use crate::dice::Dice;
use crate::relay::{ConnectionId, SimRelay, ToNetwork as FromRelay};
use crate::wishes::{Attendance, Wish, Wishes};

/// When the world begins: some day in 2026, so that nothing is near zero.
const BEGIN: Time = Time(1_790_000_000_000);
/// How long registration takes at the longest.
const REGISTRATION_MS: u64 = 5_000;
/// How long the world heals before it is checked: longer than every backoff, deadline and silence together; shorter than the
/// quarter of an hour after which keys are replaced (C11), or that would be under way (seed 90385).
const QUIET_MS: u64 = 14 * 60_000;
/// A run that takes more steps than this does not come to rest.
const STEPS_MAX: u64 = 400_000;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed that it came from.
    pub seed: u64,
    /// What happened, a line each.
    pub trace: Vec<String>,
    /// The rule that did not hold.
    pub violation: Option<Violation>,
    /// Messages that had to arrive.
    pub messages: usize,
    /// Envelopes that reached the relay.
    pub envelopes: usize,
    /// Crashes, failed commits, cuts, restarts, restored stores and jumps of clocks.
    pub troubles: usize,
}

/// Runs one seed of people in direct mode.
pub fn run(seed: u64) -> Report {
    run_world(World::new(seed, Talks { mode: Mode::Direct, suite: Suite::Hybrid }))
}

/// Runs one seed of people in conversations who link further devices, and revoke them.
pub fn run_linking(seed: u64) -> Report {
    let mut world = World::new(seed, Talks { mode: Mode::Mls, suite: Suite::Classical });
    world.links = true;
    run_world(world)
}

/// Runs one seed of people in conversations. Most take the classical suite, for speed; one in ten the real one.
pub fn run_talking(seed: u64) -> Report {
    let suite = if seed.is_multiple_of(10) { Suite::Hybrid } else { Suite::Classical };
    run_world(World::new(seed, Talks { mode: Mode::Mls, suite }))
}

/// Runs one seed of people in conversations whose relay is restored from backups (L11).
pub fn run_restoring(seed: u64) -> Report {
    let mut world = World::new(seed, Talks { mode: Mode::Mls, suite: Suite::Classical });
    world.relay_returns = true;
    run_world(world)
}

fn run_world(mut world: World) -> Report {
    let seed = world.seed;
    let violation = world.live().err();
    Report {
        seed,
        violation,
        messages: world.expected.iter().filter(|message| message.certain).count(),
        envelopes: world.wiretap.envelopes(),
        troubles: world.troubles,
        trace: world.trace,
    }
}

/// What is going to happen.
enum Coming {
    /// A frame reaches the relay.
    ToRelay(ConnectionId, Vec<u8>),
    /// A frame reaches a device.
    ToDevice(ConnectionId, Vec<u8>),
    /// A connection is there, on both sides.
    Open(usize, ConnectionId),
    /// A connection is noticed to be gone, by the device.
    DeviceClosed(usize, ConnectionId),
    /// A connection is noticed to be gone, by the relay.
    RelayClosed(ConnectionId),
    /// A device's engine wanted to be woken.
    Wake(usize),
    /// A device's process starts again.
    Start(usize),
    /// The relay starts again.
    RelayStart,
    /// A second has passed for the relay.
    RelayTick,
    /// Somebody does something, or something goes wrong.
    Act,
    /// An application processes a message.
    Shown(usize, u64),
    /// A person decides.
    Decide(usize, Command),
}

/// How much goes wrong, in a thousand.
#[derive(Clone, Copy, Default)]
struct Weather {
    device: Trouble,
    lost: u64,
    repeated: u64,
    late: u64,
    relay_commit_fails: u64,
}

/// A message on its way: whose, in which group, who may read it and has to, and what.
type AskedInGroup = (usize, ConversationId, Vec<(usize, bool)>, String);

struct World {
    seed: u64,
    talks: Talks,
    /// Whether people link further devices.
    links: bool,
    /// Whether backups of the relay come back, and none of stores.
    relay_returns: bool,
    /// Whose each device is: the number of the person's first one.
    persons: Vec<usize>,
    /// Devices that were revoked, or are about to be.
    revoked: BTreeSet<usize>,
    /// Which device has said a text.
    authors: BTreeMap<String, usize>,
    /// Groups, and who was in them at the beginning.
    groups: Vec<(ConversationId, Vec<usize>)>,
    /// Groups that are about to begin, by who begins them.
    begun: Vec<(usize, Vec<usize>)>,
    /// Whether members come and go.
    changing: bool,
    dice: Dice,
    now: Time,
    queue: BTreeMap<(Time, u64), Coming>,
    sequence: u64,
    relay: SimRelay,
    relay_is_up: bool,
    devices: Vec<Device>,
    accounts: BTreeMap<AccountId, usize>,
    /// The connection of each device, by both ends.
    connection: BTreeMap<usize, ConnectionId>,
    owner: BTreeMap<ConnectionId, usize>,
    /// When the last frame of a direction arrives: a stream keeps its order.
    arrival: BTreeMap<(ConnectionId, bool), Time>,
    /// Streams that lost a frame.
    stalled: BTreeSet<(ConnectionId, bool)>,
    weather: Weather,
    acts_left: u64,
    next_connection: ConnectionId,
    next_text: u64,
    next_ticket: u64,
    /// Messages on their way into an outbox, by ticket.
    asked: BTreeMap<u64, (usize, usize, String)>,
    /// The same, in groups.
    asked_in_group: BTreeMap<u64, AskedInGroup>,
    expected_in_groups: Vec<Expected>,
    expected: Vec<Expected>,
    wishes: Wishes,
    attendance: Attendance,
    /// Whose each inbox is: the number of a person.
    inboxes: BTreeMap<InboxAddress, usize>,
    wiretap: Wiretap,
    /// Devices whose store was put back.
    lost_place: BTreeSet<usize>,
    /// Whether a clock has jumped: whoever waits for something may have waited long enough at once.
    jumped: bool,
    restored: bool,
    relay_restored: bool,
    troubles: usize,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64, talks: Talks) -> World {
        let mut dice = Dice::new(seed, 0);
        let relay = SimRelay::new(&mut dice);
        let people = dice.between(2, 4) as usize;
        let handle = |i: usize| Handle::parse(&format!("person{i}@relay")).expect("a handle");
        let device = |i: usize| Device::new(handle(i), talks, Dice::new(seed, 100 + i as u64), BEGIN);
        let devices: Vec<_> = (0..people).map(device).collect();
        let accounts = devices.iter().enumerate().filter_map(|(i, device)| Some((device.account()?, i))).collect();
        // One world in eight is calm: what breaks there breaks always.
        let harsh = if dice.per_mille(125) { 0 } else { dice.between(1, 4) };
        let weather = Weather {
            device: Trouble { crash: 3 * harsh, commit_fails: 3 * harsh },
            lost: 4 * harsh,
            repeated: 10 * harsh,
            late: 60 * harsh,
            relay_commit_fails: 5 * harsh,
        };
        let acts_left = dice.between(20, 80);
        let changing = dice.per_mille(500);
        World {
            seed,
            talks,
            links: false,
            relay_returns: false,
            persons: (0..people).collect(),
            revoked: BTreeSet::new(),
            authors: BTreeMap::new(),
            groups: Vec::new(),
            begun: Vec::new(),
            changing,
            dice,
            now: BEGIN,
            queue: BTreeMap::new(),
            sequence: 0,
            relay,
            relay_is_up: true,
            devices,
            accounts,
            connection: BTreeMap::new(),
            owner: BTreeMap::new(),
            arrival: BTreeMap::new(),
            stalled: BTreeSet::new(),
            weather,
            acts_left,
            next_connection: 1,
            next_text: 0,
            next_ticket: 1,
            asked: BTreeMap::new(),
            asked_in_group: BTreeMap::new(),
            expected_in_groups: Vec::new(),
            expected: Vec::new(),
            wishes: Wishes::default(),
            attendance: Attendance::default(),
            inboxes: BTreeMap::new(),
            wiretap: Wiretap::default(),
            lost_place: BTreeSet::new(),
            jumped: false,
            restored: false,
            relay_restored: false,
            troubles: 0,
            trace: Vec::new(),
        }
    }

    fn live(&mut self) -> Result<(), Violation> {
        let weather = std::mem::take(&mut self.weather);
        for device in 0..self.devices.len() {
            self.after(1, Coming::Wake(device));
        }
        self.after(1_000, Coming::RelayTick);
        // Everybody gets an account before anything goes wrong: a handle that nobody has yet is not found.
        self.run_until(Some(self.now.plus(REGISTRATION_MS)))?;
        self.weather = weather;
        self.relay.set_failing(weather.relay_commit_fails);
        self.after(10, Coming::Act);
        self.run_until(None)?;
        self.quiet();
        self.run_until(Some(self.now.plus(if self.relay_restored { 12 * QUIET_MS } else { QUIET_MS })))?;
        // Keys are replaced on schedule (C11), at some time of somebody's clock: not in the middle of that.
        for _ in 0..12 {
            if self.is_settled() {
                break;
            }
            self.run_until(Some(self.now.plus(5_000)))?;
        }
        self.check()
    }

    /// Until somebody's last act, or until a time.
    fn run_until(&mut self, end: Option<Time>) -> Result<(), Violation> {
        for _ in 0..STEPS_MAX {
            let Some(next) = self.queue.first_entry() else { return Ok(()) };
            let at = next.key().0;
            if end.is_some_and(|end| at > end) {
                // It stays: a relay's clock that stopped here would never tick again (seed 40036).
                return Ok(());
            }
            let coming = next.remove();
            self.now = self.now.max(at);
            self.happen(coming)?;
            if end.is_none() && self.acts_left == 0 {
                return Ok(());
            }
        }
        Err("L7: the world does not come to rest".into())
    }

    /// Everything heals, and every connection is made anew.
    fn quiet(&mut self) {
        self.note("quiet");
        self.weather = Weather::default();
        self.relay.set_failing(0);
        self.after(1, Coming::RelayStart);
        for device in 0..self.devices.len() {
            self.after(2, Coming::Start(device));
            if let Some(connection) = self.connection.get(&device).copied() {
                self.cut(connection);
            }
        }
    }

    fn happen(&mut self, coming: Coming) -> Result<(), Violation> {
        match coming {
            Coming::ToRelay(id, bytes) => self.reaches_relay(id, bytes)?,
            Coming::ToDevice(id, bytes) => {
                if let Some(device) = self.owner.get(&id).copied().filter(|d| self.connection.get(d) == Some(&id)) {
                    self.input(device, Input::Frame(bytes))?;
                }
            }
            Coming::Open(device, id) => self.open(device, id)?,
            Coming::DeviceClosed(device, id) => {
                if self.connection.get(&device) == Some(&id) {
                    self.connection.remove(&device);
                    self.input(device, Input::Disconnected)?;
                }
            }
            Coming::RelayClosed(id) => {
                let out = self.relay.closed(id, self.now);
                self.deliver(out)?;
            }
            Coming::Wake(device) => self.input(device, Input::Tick)?,
            Coming::Start(device) if !self.devices[device].is_running() && self.devices[device].has_account() => {
                self.devices[device].load();
                self.note(&format!("{device} starts"));
                for stranger in self.devices[device].strangers() {
                    self.after(1_000, Coming::Decide(device, Command::Accept(stranger)));
                }
                self.input(device, Input::Tick)?;
            }
            Coming::Start(_) => {}
            Coming::RelayStart => self.relay_is_up = true,
            Coming::RelayTick => {
                let out = self.relay.tick(self.now);
                self.deliver(out)?;
                self.after(1_000, Coming::RelayTick);
            }
            Coming::Act => self.act()?,
            Coming::Shown(device, number) => self.command(device, Command::Shown(number))?,
            Coming::Decide(device, command) => self.command(device, command)?,
        }
        Ok(())
    }

    // People and weather.

    fn act(&mut self) -> Result<(), Violation> {
        if self.acts_left == 0 {
            return Ok(());
        }
        self.acts_left -= 1;
        let wait = self.dice.between(1, 4_000);
        self.after(wait, Coming::Act);
        let device = self.dice.below(self.devices.len() as u64) as usize;
        let calm = self.weather.lost == 0;
        match self.dice.below(22) {
            0 if !calm => self.kill(device),
            1 if !calm => self.restart_relay(),
            2 if !calm => {
                if let Some(connection) = self.connection.get(&device).copied() {
                    self.note(&format!("{device} is cut"));
                    self.troubles += 1;
                    self.cut(connection);
                }
            }
            3 if !calm => {
                let jump = self.dice.between(0, 4 * 3_600_000) as i64 - 2 * 3_600_000;
                self.devices[device].clock_offset = jump;
                self.troubles += 1;
                self.jumped = true;
                self.note(&format!("{device}'s clock jumps"));
            }
            4 if !calm => {
                self.devices[device].take_snapshot();
                self.note(&format!("{device} is backed up"));
            }
            5 if !calm && self.relay_returns => self.restore_relay_if_up(),
            5 if !calm && self.persons[device] == device => self.restore(device),
            6 | 7 if self.relay_returns => {
                self.relay.back_up();
                self.note("the relay is backed up");
            }
            6 | 7 if self.links => self.act_on_devices(device)?,
            6 => self.relay.sweep(self.now),
            7 | 8 if self.talks.mode == Mode::Mls => self.act_in_group(device)?,
            9..=12 if self.talks.mode == Mode::Mls => self.act_in_group(device)?,
            7 if !calm => {
                self.relay.back_up();
                self.note("the relay is backed up");
            }
            8 if !calm => self.restore_relay_if_up(),
            _ => {
                for _ in 0..self.dice.between(1, 3) {
                    self.write(device)?;
                }
            }
        }
        Ok(())
    }

    /// Somebody links a device, or takes one from the account.
    fn act_on_devices(&mut self, device: usize) -> Result<(), Violation> {
        let person = self.persons[device];
        let own: Vec<usize> = (0..self.devices.len()).filter(|other| self.persons[*other] == person).collect();
        if own.len() < 3 && self.dice.per_mille(700) {
            return self.command(device, Command::Link);
        }
        // The first one stays: the world knows the person by it.
        let further: Vec<usize> = own.into_iter().filter(|other| *other != person && *other != device).collect();
        let Some(&gone) = further.first() else { return Ok(()) };
        let Some(id) = self.devices[gone].id() else { return Ok(()) };
        self.note(&format!("{device} revokes {gone}"));
        self.revoked.insert(gone);
        for message in self.expected.iter_mut().chain(&mut self.expected_in_groups) {
            // What it has not sent by then is not sent.
            message.certain &= self.authors.get(&message.text) != Some(&gone);
        }
        self.command(device, Command::Revoke(id))
    }

    /// Somebody begins a group, writes into one, or changes one.
    fn act_in_group(&mut self, device: usize) -> Result<(), Violation> {
        let person = self.persons[device];
        let first = |other: &usize| self.persons[*other] == *other && *other != person;
        let others: Vec<usize> = (0..self.devices.len()).filter(first).collect();
        let known = |world: &World, other: &usize| {
            let account = world.accounts.iter().find(|(_, index)| *index == other).map(|(account, _)| *account);
            account.filter(|account| world.devices[device].knows(*account))
        };
        if self.groups.len() + self.begun.len() < 2 {
            let members: Vec<AccountId> = others.iter().filter_map(|other| known(self, other)).collect();
            if members.len() == others.len() {
                self.begun.push((device, others));
                return self.command(device, Command::CreateGroup { name: "group".to_owned(), members });
            }
            return Ok(());
        }
        let Some((id, members)) = self.groups.get(self.dice.below(self.groups.len().max(1) as u64) as usize).cloned()
        else {
            return Ok(());
        };
        if self.changing && self.dice.per_mille(400) {
            return self.change_group(device, id, &others);
        }
        let views = self.devices[device].conversations();
        let Some(view) = views.iter().find(|view| view.conversation == id && !view.out) else { return Ok(()) };
        self.next_text += 1;
        let text = format!("{CANARY}{}", self.next_text);
        let part = Part::Text(text.clone());
        // Whoever is in it now reads it, if nobody leaves it in this world.
        let is_in = |reader: &usize| {
            let account = self.accounts.iter().find(|(_, index)| *index == reader).map(|(account, _)| *account);
            account.is_some_and(|account| view.members.iter().any(|(member, _)| *member == account))
        };
        let readers: Vec<(usize, bool)> =
            others.iter().map(|r| (*r, !self.changing && members.contains(r) && is_in(r))).collect();
        self.asked_in_group.insert(self.next_ticket, (device, id, readers, text));
        self.command(device, Command::Send { to: To::Group(id), part, in_reply_to: None })
    }

    fn change_group(&mut self, device: usize, id: ConversationId, others: &[usize]) -> Result<(), Violation> {
        let other = others[self.dice.below(others.len() as u64) as usize];
        let Some(account) = self.accounts.iter().find(|(_, index)| **index == other).map(|(account, _)| *account)
        else {
            return Ok(());
        };
        let change = match self.dice.below(6) {
            0 => GroupChange::Remove(account),
            1 | 2 => GroupChange::Add(vec![account]),
            3 => GroupChange::Rename(format!("group {}", self.next_text)),
            4 => GroupChange::SetRole(account, [Role::Owner, Role::Admin, Role::Member][self.dice.below(3) as usize]),
            _ => GroupChange::Leave,
        };
        self.note(&format!("{device} wants {change:?}"));
        let own = self.accounts.iter().find(|(_, person)| **person == self.persons[device]).map(|(own, _)| *own);
        if let Some(account) = own {
            let wish = Wish { device, account, conversation: id, change: change.clone() };
            self.wishes.ask(self.next_ticket, wish);
        }
        self.command(device, Command::Change { conversation: id, change })
    }

    fn write(&mut self, from: usize) -> Result<(), Violation> {
        let people: Vec<usize> =
            (0..self.devices.len()).filter(|d| self.persons[*d] == *d && *d != self.persons[from]).collect();
        let to = people[self.dice.below(people.len() as u64) as usize];
        self.next_text += 1;
        let text = format!("{CANARY}{}", self.next_text);
        let command = send(&self.devices[to].handle.clone(), &text);
        self.asked.insert(self.next_ticket, (from, to, text));
        self.command(from, command)
    }

    fn kill(&mut self, device: usize) {
        self.note(&format!("{device} is killed"));
        self.troubles += 1;
        self.devices[device].crash();
        self.crashed(device);
    }

    fn crashed(&mut self, device: usize) {
        if let Some(connection) = self.connection.remove(&device) {
            self.after(5, Coming::RelayClosed(connection));
        }
        let pause = self.dice.between(1, 60_000);
        self.after(pause, Coming::Start(device));
    }

    fn restart_relay(&mut self) {
        if !self.relay_is_up {
            return;
        }
        self.note("the relay crashes");
        self.troubles += 1;
        self.relay.crash();
        self.relay_is_up = false;
        let connections: Vec<_> = self.connection.iter().map(|(device, id)| (*device, *id)).collect();
        for (device, id) in connections {
            self.after(1, Coming::DeviceClosed(device, id));
        }
        let pause = self.dice.between(1, 30_000);
        self.after(pause, Coming::RelayStart);
    }

    fn restore_relay_if_up(&mut self) {
        if self.relay_is_up {
            self.restore_relay();
        }
    }

    /// The relay crashes, and an old backup of it comes back (L11). Whatever it had accepted since is with those who sent
    /// it or those who got it.
    fn restore_relay(&mut self) {
        if !self.relay.restore_backup(&mut self.dice) {
            return;
        }
        self.restart_relay();
        self.note("the relay's backup comes back");
        self.relay_restored = true;
        self.wiretap.relay_was_restored();
        // An entry of an account log that relay and owner have both lost, and a contact has pinned, is a fork: the way
        // out of that comes with transparency (I3).
        self.devices.iter_mut().for_each(Device::drop_snapshot);
    }

    /// An old backup comes back. What only the newer store knew is lost with it, and that is nobody's fault.
    fn restore(&mut self, device: usize) {
        if !self.devices[device].has_snapshot() {
            return;
        }
        self.note(&format!("{device}'s old store comes back"));
        self.troubles += 1;
        self.restored = true;
        self.wiretap.restored = true;
        self.relay.drop_backup();
        let history = |device: &Device| device.history(false).into_iter().chain(device.history(true)).collect();
        let before: BTreeSet<_> = history(&self.devices[device]);
        let held = self.devices[device].holds_envelopes();
        self.devices[device].restore_snapshot();
        let after: BTreeSet<_> = history(&self.devices[device]);
        for message in &mut self.expected_in_groups {
            // What it has missed as a reader, it asks for again (C10).
            message.certain &= message.way.0 != device;
        }
        self.lost_place.insert(device);
        self.wishes.are_lost(device);
        let authors = &self.authors;
        self.attendance.is_lost(device, |text| authors.get(text) == Some(&device));
        let lost: BTreeSet<&String> = before.difference(&after).map(|(_, _, text)| text).collect();
        for message in &mut self.expected {
            let unsent_in_after = message.way.0 == device && !after.iter().any(|(_, _, text)| *text == message.text);
            // What was held was acknowledged, and is not in the history yet.
            let may_be_held = held && message.way.1 == device;
            if lost.contains(&message.text) || unsent_in_after || may_be_held {
                message.certain = false;
            }
        }
        self.crashed(device);
    }

    // Devices.

    fn command(&mut self, device: usize, command: Command) -> Result<(), Violation> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.input(device, Input::Command(ticket, command))
    }

    fn input(&mut self, device: usize, input: Input) -> Result<(), Violation> {
        if !self.devices[device].is_running() {
            return Ok(());
        }
        let stepped = self.devices[device].step(input, self.now, self.weather.device);
        if let Some(inbox) = self.devices[device].inbox() {
            self.inboxes.insert(inbox, self.persons[device]);
        }
        self.stepped(device, stepped)
    }

    fn stepped(&mut self, device: usize, stepped: Stepped) -> Result<(), Violation> {
        for (ticket, number) in stepped.queued {
            if let Some((from, to, text)) = self.asked.remove(&ticket) {
                self.note(&format!("{from} -> {to}: {text} is saved as message {number}"));
                let certain = !self.revoked.contains(&from);
                self.authors.insert(text.clone(), from);
                self.expected.push(Expected { way: (self.persons[from], to), text, certain });
            }
            if let Some((from, group, readers, text)) = self.asked_in_group.remove(&ticket) {
                self.note(&format!("{from} -> group: {text} is saved as message {number}"));
                self.attendance.was_queued(from, number, group, text.clone(), self.now);
                self.expect_in_group(from, readers, &text, true);
            }
        }
        for id in stepped.groups {
            if let Some(index) = self.begun.iter().position(|(who, _)| *who == device) {
                let (_, members) = self.begun.remove(index);
                self.note(&format!("{device} begins a group"));
                self.groups.push((id, members.into_iter().chain([self.persons[device]]).collect()));
            }
        }
        stepped.done.into_iter().for_each(|ticket| self.wishes.was_taken(ticket));
        for (ticket, refusal) in stepped.refused {
            self.wishes.was_refused(ticket);
            self.asked.remove(&ticket);
            self.asked_in_group.remove(&ticket);
            if self.talks.mode == Mode::Mls && is_about_groups(&refusal) || self.links && is_about_devices(&refusal) {
                continue;
            }
            // An old store may not know the stranger who was accepted meanwhile.
            if !matches!(refusal, Refusal::NothingToDecide | Refusal::UnknownContact) {
                return Err(format!("{device} was refused: {refusal}"));
            }
        }
        for code in stepped.codes {
            self.read_code(device, &code);
        }
        if stepped.linked {
            self.note(&format!("{device} is linked"));
            self.after(1_000, Coming::Start(device));
        }
        for event in stepped.events {
            self.wishes.hear(device, &event);
            self.event(device, event)?;
        }
        if self.wishes.has_any(device) {
            self.wishes.look(device, &self.devices[device].conversations());
        }
        for wish in stepped.network {
            self.wish(device, wish);
        }
        if stepped.crashed {
            self.note(&format!("{device} crashes in a step"));
            self.troubles += 1;
            // What it asked for may be saved, though it was not told so.
            self.crashed(device);
        } else if stepped.commit_failed {
            self.note(&format!("{device}'s commit fails"));
            self.troubles += 1;
            if let Some(connection) = self.connection.remove(&device) {
                self.after(5, Coming::RelayClosed(connection));
            }
            self.after(1_000, Coming::Wake(device));
        } else if let Some(at) = self.devices[device].next_wake(self.now) {
            self.at(at, Coming::Wake(device));
        }
        if stepped.crashed || stepped.commit_failed {
            self.maybe_saved(device);
        }
        Ok(())
    }

    /// A new device reads a code, and connects.
    fn read_code(&mut self, sponsor: usize, code: &CodeSecret) {
        let new = self.devices.len();
        let handle = self.devices[sponsor].handle.clone();
        self.note(&format!("{new} reads {sponsor}'s code"));
        self.devices.push(Device::that_reads(code, handle, Dice::new(self.seed, 100 + new as u64)));
        self.persons.push(self.persons[sponsor]);
        self.wish(new, ToNetwork::Connect);
    }

    /// Messages whose reply was lost: they may be sent, and need not.
    fn maybe_saved(&mut self, device: usize) {
        let lost: Vec<u64> = self.asked.iter().filter(|(_, (from, _, _))| *from == device).map(|(t, _)| *t).collect();
        for ticket in lost {
            if let Some((from, to, text)) = self.asked.remove(&ticket) {
                self.expected.push(Expected { way: (self.persons[from], to), text, certain: false });
            }
        }
        let lost: Vec<u64> =
            self.asked_in_group.iter().filter(|(_, (from, ..))| *from == device).map(|(t, _)| *t).collect();
        for ticket in lost {
            if let Some((from, _, readers, text)) = self.asked_in_group.remove(&ticket) {
                self.expect_in_group(from, readers, &text, false);
            }
        }
        self.begun.retain(|(who, _)| *who != device);
        self.wishes.may_be_lost(device);
    }

    fn expect_in_group(&mut self, from: usize, readers: Vec<(usize, bool)>, text: &str, saved: bool) {
        for (reader, certain) in readers {
            let is_there = !self.lost_place.contains(&from);
            let certain = saved && certain && is_there && !self.revoked.contains(&from);
            self.authors.insert(text.to_owned(), from);
            self.expected_in_groups.push(Expected {
                way: (self.persons[from], reader),
                text: text.to_owned(),
                certain,
            });
        }
    }

    fn event(&mut self, device: usize, event: Event) -> Result<(), Violation> {
        self.note(&format!("{device}: {}", name_of(&event)));
        if let Event::State { number, state: MessageState::Accepted, .. } = event
            && !self.relay_restored
        {
            let people: BTreeSet<usize> = self.persons.iter().copied().collect();
            self.attendance.was_accepted(device, number, people.into_iter());
        }
        match event {
            Event::Message(message) => {
                let wait = self.dice.between(1, 3_000);
                self.after(wait, Coming::Shown(device, message.number));
            }
            Event::Request(request) => {
                let wait = self.dice.between(1, 20_000);
                self.after(wait, Coming::Shown(device, request.message.number));
                self.after(wait, Coming::Decide(device, Command::Accept(request.message.from)));
            }
            // A person compares the digits, if the other device still shows some.
            Event::LinkAsks { digits } => {
                let is_the_same = self.devices.iter().any(|other| other.digits.as_ref() == Some(&digits));
                let wait = self.dice.between(1_000, 20_000);
                self.after(wait, Coming::Decide(device, Command::ConfirmLink(is_the_same)));
            }
            Event::LogIn(LogInProblem::NotLinkedYet) if self.links => {}
            Event::LogIn(LogInProblem::Revoked) if self.revoked.contains(&device) => {}
            Event::StoreConflict => self.after(5_000, Coming::Decide(device, Command::Reclaim)),
            Event::Replaced => self.after(5_000, Coming::Decide(device, Command::Reconnect)),
            // A key that was replaced after a restored store: its envelopes are refused, and come again (D3). A receipt
            // from somebody whom the old store does not know yet: nothing is lost with it.
            Event::Quarantined { reason: QuarantineReason::OtherKey | QuarantineReason::NotAccepted, .. }
                if self.restored || self.links => {}
            // A Welcome to a key package that only the newer store knew; the relay's list of logs leads back in (C10).
            Event::Quarantined { reason: QuarantineReason::BadWelcome, .. } if self.restored || self.jumped => {}
            // The commit with which somebody begins a conversation anew that both seemed to have lost.
            Event::Quarantined { reason: QuarantineReason::InvalidCommit, .. } if self.restored => {}
            // Sealed twice with one key, by a store that was put back and the newer one: what it said has to come again.
            Event::Quarantined { reason: QuarantineReason::Rejected, .. }
                if self.restored && self.talks.mode == Mode::Mls => {}
            // What was said again, or changed, at a relay that had lost something in between.
            Event::Quarantined { reason: QuarantineReason::InvalidCommit | QuarantineReason::OutOfOrder, .. }
            | Event::Quarantined { reason: QuarantineReason::Rejected | QuarantineReason::BadWelcome, .. }
            | Event::Quarantined { reason: QuarantineReason::OtherEpoch, .. }
                if self.relay_restored && self.talks.mode == Mode::Mls => {}
            Event::Quarantined { reason, .. } => {
                return Err(format!("L7: {device} quarantined an envelope: {reason:?}"));
            }
            // An account log that is shorter than the pinned one, until its owner has published the rest again (L11).
            Event::BadAnswer { .. } if self.relay_restored => {}
            Event::Behind { .. } if !self.restored && !self.jumped && !self.relay_restored => {
                return Err(format!("L2: {device} cannot follow a conversation, and nothing was put back"));
            }
            // What was sealed behind what the relay has lost, and is said again word for word.
            Event::OrderContradicted { .. } if self.relay_restored => {}
            Event::OrderContradicted { .. } => return Err(format!("L5: {device} saw two orders")),
            Event::BadAnswer { .. } | Event::HandleClaimed { .. } => {
                return Err(format!("I3: {device} got an answer that does not verify"));
            }
            // Of a group that the relay had not yet when it was backed up.
            Event::State { reason: Some(UnsentReason::NoMember), .. } if self.changing || self.relay_restored => {}
            Event::State { number, state, reason: Some(reason), .. } => {
                return Err(format!("L8: {device}'s message {number} is {state:?}: {reason:?}"));
            }
            Event::RegistrationRefused { code, .. } => return Err(format!("{device} is not registered: {code:?}")),
            Event::LogIn(problem) => return Err(format!("{device} cannot log in: {problem:?}")),
            _ => {}
        }
        Ok(())
    }

    // The network.

    fn wish(&mut self, device: usize, wish: ToNetwork) {
        match wish {
            ToNetwork::Connect => {
                let id = self.next_connection;
                self.next_connection += 1;
                self.connection.insert(device, id);
                self.owner.insert(id, device);
                let wait = self.dice.between(1, 200);
                self.after(wait, Coming::Open(device, id));
            }
            ToNetwork::Disconnect => {
                if let Some(id) = self.connection.get(&device).copied() {
                    self.cut(id);
                }
            }
            ToNetwork::Send(frame) => {
                if let Some(id) = self.connection.get(&device).copied() {
                    self.travel(id, true, frame.encode());
                }
            }
        }
    }

    fn open(&mut self, device: usize, id: ConnectionId) -> Result<(), Violation> {
        if self.connection.get(&device) != Some(&id) {
            return Ok(());
        }
        if !self.relay_is_up {
            self.after(1, Coming::DeviceClosed(device, id));
            return Ok(());
        }
        let challenge = self.dice.bytes();
        let out = self.relay.open(id, challenge, self.now);
        self.input(device, Input::Connected { binding: None })?;
        self.deliver(out)?;
        Ok(())
    }

    fn reaches_relay(&mut self, id: ConnectionId, bytes: Vec<u8>) -> Result<(), Violation> {
        self.wiretap.look(&bytes)?;
        self.wiretap.hear(id, &bytes);
        if self.relay_is_up {
            self.note_rosters();
            let out = self.relay.input(id, RelayInput::Bytes(bytes), self.now);
            self.note_rosters();
            self.deliver(out)?;
        }
        Ok(())
    }

    /// Who is in which group now.
    fn note_rosters(&mut self) {
        for (id, _) in &self.groups {
            for inbox in self.relay.roster(LogId::Conversation(*id)).unwrap_or_default() {
                if let Some(person) = self.inboxes.get(&inbox) {
                    self.attendance.is_in(*id, *person, self.now);
                }
            }
        }
    }

    fn deliver(&mut self, out: Vec<FromRelay>) -> Result<(), Violation> {
        for wish in out {
            match wish {
                FromRelay::Send(id, frame) => {
                    self.wiretap.answer(id, &frame)?;
                    self.travel(id, false, frame.encode());
                }
                FromRelay::Close(id) => {
                    // Behind what was sent before.
                    let at = self.arrival.get(&(id, false)).copied().unwrap_or(self.now).plus(1);
                    if let Some(device) = self.owner.get(&id).copied() {
                        self.at(at, Coming::DeviceClosed(device, id));
                    }
                    self.at(at, Coming::RelayClosed(id));
                }
            }
        }
        Ok(())
    }

    /// A frame travels: in order, sometimes late, sometimes twice. A stream that loses a frame brings nothing more in
    /// that direction, and soon ends.
    fn travel(&mut self, id: ConnectionId, to_relay: bool, bytes: Vec<u8>) {
        if self.stalled.contains(&(id, to_relay)) {
            return;
        }
        if self.dice.per_mille(self.weather.lost) {
            self.stalled.insert((id, to_relay));
            self.note(&format!("a frame of connection {id} is lost"));
            self.troubles += 1;
            return self.cut_within(id, 30_000);
        }
        let late = if self.dice.per_mille(self.weather.late) { self.dice.between(100, 8_000) } else { 0 };
        let travelled = self.now.plus(self.dice.between(1, 40) + late);
        let at = self.arrival.get(&(id, to_relay)).copied().map_or(travelled, |last| travelled.max(last));
        self.arrival.insert((id, to_relay), at);
        let times = if self.dice.per_mille(self.weather.repeated) { 2 } else { 1 };
        for _ in 0..times {
            let bytes = bytes.clone();
            self.at(at, if to_relay { Coming::ToRelay(id, bytes) } else { Coming::ToDevice(id, bytes) });
        }
    }

    fn cut(&mut self, id: ConnectionId) {
        self.cut_within(id, 20);
    }

    fn cut_within(&mut self, id: ConnectionId, longest: u64) {
        let Some(device) = self.owner.get(&id).copied() else { return };
        let wait = self.dice.between(1, longest);
        self.after(wait, Coming::DeviceClosed(device, id));
        let wait = self.dice.between(1, longest);
        self.after(wait, Coming::RelayClosed(id));
    }

    // After quiet.

    fn check(&mut self) -> Result<(), Violation> {
        // What a device wrote that was never linked to the end, its person is told, stays there.
        let unlisted: BTreeSet<usize> = (0..self.devices.len()).filter(|index| !self.is_listed(*index)).collect();
        for message in self.expected.iter_mut().chain(&mut self.expected_in_groups) {
            message.certain &= self.authors.get(&message.text).is_none_or(|author| !unlisted.contains(author));
            // What another own device has confirmed is not said again to the one whose store was put back: asking for it by
            // content id is not there yet (C10, seed 401982).
            let has_others = self.persons.iter().filter(|person| **person == message.way.1).count() > 1;
            message.certain &= !(has_others && self.lost_place.contains(&message.way.1));
        }
        for (reader, device) in self.devices.iter().enumerate() {
            let shown = device.history(true);
            let is_wrong =
                |said: &&(AccountId, bool, String)| said.1 && !self.attendance.is_for(self.persons[reader], &said.2);
            if let Some((_, _, text)) = shown.iter().find(is_wrong).filter(|_| !self.relay_restored) {
                return Err(format!("L2: {reader} reads {text}, said in a group that it was not in"));
            }
            if self.persons[reader] != reader {
                // What was said before it was linked is not handed over; once is enough for the rest.
                check::once(&device.history(false))?;
                check::once(&device.history(true))?;
                continue;
            }
            for (in_groups, expected) in [(false, &self.expected), (true, &self.expected_in_groups)] {
                let incoming = device.history(in_groups).into_iter().filter(|(_, incoming, _)| *incoming);
                let shown = incoming.filter_map(|(with, _, text)| Some((*self.accounts.get(&with)?, text)));
                let shown: Vec<_> = shown.collect();
                // In a group that one has left and joined again, two messages may be in two groups' orders.
                let in_order =
                    !(self.restored || self.links || self.relay_returns || in_groups && self.groups.len() > 1);
                check::history(&shown, reader, expected, in_order)?;
            }
        }
        if self.talks.mode == Mode::Mls {
            return self.check_conversations();
        }
        // Sealed again is only what somebody else's new keys ask for (D3), and those come with restored stores.
        let outgoing: usize = self.devices.iter().map(Device::outgoing).sum();
        if self.wiretap.envelopes() > outgoing && !self.restored {
            return Err(format!("L4: {} envelopes for {outgoing} contents", self.wiretap.envelopes()));
        }
        Ok(())
    }

    /// Whether a device is one of its person's account: it was linked to the end, and was not revoked.
    fn is_listed(&self, index: usize) -> bool {
        let listed = self.devices[self.persons[index]].listed();
        self.devices[index].id().is_some_and(|device| listed.contains(&device))
    }

    /// Whether no change of a conversation is on its way.
    fn is_settled(&self) -> bool {
        let mut positions: BTreeMap<ConversationId, BTreeSet<Position>> = BTreeMap::new();
        let devices = self.devices.iter().enumerate().filter(|(index, _)| self.is_listed(*index));
        let views = devices.flat_map(|(_, device)| device.conversations()).filter(|view| view.active && !view.out);
        let mut waits = false;
        for view in views {
            waits |= view.waiting > 0 || view.missing_devices > 0;
            positions.entry(view.conversation).or_default().insert(view.read_upto);
        }
        !waits && positions.values().all(|positions| positions.len() == 1)
    }

    /// L5, C6, C10: all members of a conversation have one state, the relay's roster is that of the tree, and nobody is left
    /// behind without a way out.
    fn check_conversations(&self) -> Result<(), Violation> {
        let mut seen: BTreeMap<ConversationId, (usize, ConversationView)> = BTreeMap::new();
        for (index, device) in self.devices.iter().enumerate() {
            if !self.is_listed(index) {
                continue;
            }
            let views = device.conversations();
            if let Some(wish) = self.wishes.left(index, &views) {
                return Err(format!("L10: {index} wants {wish:?}, which was neither done nor refused"));
            }
            for view in views {
                let id = view.conversation;
                if view.active && !view.out && view.leaving && view.members.len() > 1 {
                    return Err(format!("C5: {index} asked to leave {id:?}, and is still in it"));
                }
                if view.active && view.missing_devices > 0 {
                    return Err(format!("C7: a device of {index}'s account is not in {id:?}"));
                }
                if view.out {
                    continue;
                }
                if !view.active {
                    let knows = |device: &Device| {
                        let of = |view: &ConversationView| view.conversation == id && !view.members.is_empty();
                        device.conversations().iter().any(of)
                    };
                    if view.kind == ConversationKind::Group && !self.devices.iter().any(knows) {
                        // All stores were put back to before it: nobody knows any more who was in it.
                        continue;
                    }
                    let all = self.devices.iter().enumerate().map(|(index, device)| {
                        let of = device.conversations().into_iter().find(|view| view.conversation == id);
                        let stands =
                            of.map(|view| (view.kind, view.active, view.out, view.read_upto, view.members.len()));
                        format!("{index}: {stands:?}")
                    });
                    let all: Vec<_> = all.collect();
                    return Err(format!("C10: {index} is left behind in {id:?}: {}", all.join(", ")));
                }
                let Some((first, other)) = seen.get(&id) else {
                    seen.insert(id, (index, view));
                    continue;
                };
                let state = |view: &ConversationView| {
                    (view.epoch, view.authenticator.clone(), view.read_upto, view.members.clone(), view.name.clone())
                };
                if state(&view) != state(other) {
                    return Err(format!("L2: {first} and {index} have two states of {id:?}: {other:?} and {view:?}"));
                }
            }
        }
        for (id, (first, view)) in &seen {
            let is_member = |account: &AccountId| view.members.iter().any(|(member, _)| member == account);
            let is_in = |view: &ConversationView| view.conversation == *id && view.active && !view.out;
            let is_here = |index: &usize| {
                let person = self.accounts.iter().find(|(_, person)| **person == self.persons[*index]);
                let is_member = person.is_some_and(|(account, _)| is_member(account));
                let is_first = self.persons[*index] == *index;
                let is_linked = || self.devices[*index].conversations().iter().any(is_in);
                is_member && self.is_listed(*index) && (is_first || is_linked())
            };
            let devices = (0..self.devices.len()).filter(is_here);
            let mut inboxes: Vec<_> = devices.filter_map(|index| self.devices[index].inbox()).collect();
            inboxes.sort();
            if self.relay.roster(LogId::Conversation(*id)) != Some(inboxes) {
                return Err(format!("C6: the roster of {id:?} is not what {first} has"));
            }
        }
        Ok(())
    }

    fn after(&mut self, milliseconds: u64, coming: Coming) {
        self.at(self.now.plus(milliseconds), coming);
    }

    fn at(&mut self, at: Time, coming: Coming) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), coming);
    }

    fn note(&mut self, what: &str) {
        let elapsed = self.now.since(BEGIN);
        self.trace.push(format!("{:>7}.{:03} {what}", elapsed / 1_000, elapsed % 1_000));
    }
}

/// The relay was out of reach, the device is gone already, or it cannot be linked any more.
fn is_about_devices(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Offline
            | Refusal::UnknownDevice
            | Refusal::LastDevice
            | Refusal::NothingToDecide
            | Refusal::TooManyDevices
    )
}

fn is_about_groups(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::NotAllowed | Refusal::UnknownConversation | Refusal::UnknownContact)
}

fn name_of(event: &Event) -> String {
    if let Event::State { number, state, .. } = event {
        return format!("message {number} is {state:?}");
    }
    if let Event::Message(Incoming { content: Content { part: Part::Text(text), .. }, number, .. }) = event {
        return format!("shows {text} as message {number}");
    }
    if let Event::Quarantined { reason, .. } = event {
        return format!("quarantined: {reason:?}");
    }
    let printed = format!("{event:?}");
    printed.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}
