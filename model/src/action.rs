//! What can happen next: what people do, what devices do by themselves, and what goes wrong.

use std::fmt;

use crate::configuration::Configuration;
use crate::state::{Answer, Content, DEVICES, Outgoing, Position, Set, Text, World, account, device_name};
use crate::trouble::Trouble;

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A person does something.
    Person(Person),
    /// A device does something by itself, or hears something of an honest relay.
    Step(usize, Step),
    /// Something goes wrong.
    Trouble(Trouble),
}

/// What people do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Person {
    /// Writes the next text.
    Write(usize),
    /// Nobody: keys are due to be replaced.
    Update(usize),
    /// Removes the other account.
    Remove(usize),
}

/// What devices do by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// Connects, logs in and attaches the log.
    Connect,
    /// Attaches it again, in a connection that stands.
    Attach,
    /// Reads the next entry.
    Read,
    /// Takes the next Welcome.
    Join,
    /// An answer comes.
    Answer,
    /// Seals the next content.
    Seal,
    /// Sends the next sealed bytes.
    Send,
    /// Makes a commit of all that is wanted.
    Commit,
    /// The same without answering requests, which is another's turn.
    CommitOwn,
    /// Sends it.
    SendCommit,
    /// Does not wait for a Welcome any longer.
    GiveUpWaiting,
    /// Asks to be added again.
    Ask,
    /// Begins the conversation anew.
    BeginAnew,
    /// Hears that a text was received, by one device of the other account.
    Confirm,
}

/// In the order in which a calm world does them: what was said is heard before more is done about it; what waits for time
/// to pass comes last, and beginning anew after an hour at the very last.
const IN_ORDER: [Step; 14] = [
    Step::Answer,
    Step::Connect,
    Step::Join,
    Step::Attach,
    Step::Read,
    Step::SendCommit,
    Step::Commit,
    Step::Send,
    Step::Seal,
    Step::Confirm,
    Step::CommitOwn,
    Step::GiveUpWaiting,
    Step::Ask,
    Step::BeginAnew,
];

impl World {
    /// All that can happen. `room`: whether the log takes more entries.
    pub fn actions(&self, on: &Configuration, actions: &mut Vec<Action>) {
        let room = self.log.entries.len() < on.log_max
            && self.fork.as_ref().is_none_or(|fork| fork.log.entries.len() < on.log_max);
        if let Some(hears) = self.prompt_step(on) {
            return actions.push(hears);
        }
        self.people(on, actions);
        for device in 0..DEVICES {
            let steps = IN_ORDER.iter().filter(|step| self.can(on, device, **step));
            let steps = steps.filter(|step| {
                room || !matches!(step, Step::Send | Step::SendCommit | Step::Ask)
                    || self.would_not_append(device, **step)
            });
            actions.extend(steps.map(|step| Action::Step(device, *step)));
        }
        self.troubles(on, actions);
    }

    /// What a device hears or sends before anything else happens, where nothing is to come in between.
    fn prompt_step(&self, on: &Configuration) -> Option<Action> {
        let hears = [Step::Answer, Step::Connect, Step::Join, Step::Attach, Step::Read];
        let sends = [Step::SendCommit, Step::Send];
        let room = self.log.entries.len() < on.log_max;
        let sends = sends.into_iter().filter(|_| !on.slow_sends && room);
        let sends = sends.flat_map(|step| (0..DEVICES).map(move |device| (device, step)));
        let hears = on.prompt.iter().flat_map(|device| hears.map(|step| (device, step)));
        let asks = on.prompt.iter().filter(|_| room).map(|device| (device, Step::Ask));
        let next = sends.chain(hears).chain(asks).find(|(device, step)| self.can(on, *device, *step));
        next.map(|(device, step)| Action::Step(device, step))
    }

    /// Whether sending brings nothing new into a full log: it was there already, or it is refused.
    fn would_not_append(&self, device: usize, step: Step) -> bool {
        let own = &self.devices[device];
        let entry = match step {
            Step::Send => self.to_send(device).and_then(|index| own.outbox[index].sealed.as_ref()),
            Step::SendCommit => own.pending.as_ref().map(|pending| &pending.entry),
            _ => None,
        };
        let log = self.log_of(device);
        let is_stale = |after: Option<Position>| after.is_some_and(|after| after != log.newest_commit());
        entry.is_some_and(|entry| {
            log.entries.iter().any(|known| known.name == entry.name) || is_stale(entry.after) || !log.roster.has(device)
        })
    }

    fn people(&self, on: &Configuration, actions: &mut Vec<Action>) {
        // A person waits for nobody: nor does an outbox that has something in it keep from writing.
        let writer = on.writers.iter().nth(self.said.len() % on.writers.iter().count().max(1));
        let may_write = |device: usize| {
            let own = &self.devices[device];
            own.known && !own.removed && (own.behind || own.group.is_some())
        };
        if let Some(device) = writer.filter(|device| self.left.texts > 0 && may_write(*device)) {
            actions.push(Action::Person(Person::Write(device)));
        }
        for device in on.committers.iter() {
            let own = &self.devices[device];
            if self.left.updates > 0 && own.is_active() && !own.wants_update && own.pending.is_none() {
                actions.push(Action::Person(Person::Update(device)));
            }
            let may_remove = account(device) == 0 && self.is_with_others(device) && !own.wants_removal;
            if self.left.removals > 0 && own.is_active() && may_remove && own.pending.is_none() {
                actions.push(Action::Person(Person::Remove(device)));
            }
        }
    }

    /// Whether a device can do something now.
    pub fn can(&self, on: &Configuration, device: usize, step: Step) -> bool {
        let own = &self.devices[device];
        match step {
            Step::Connect => {
                let in_roster = self.log_of(device).roster.has(device);
                !own.connected && !own.told.conflict && (own.known || in_roster)
            }
            Step::Attach => own.connected && own.known && own.attached.is_none() && !own.removed,
            Step::Read => self.can_read(device),
            Step::Join => own.connected && !self.log_of(device).inboxes[device].is_empty(),
            Step::Answer => own.connected && !self.answers[device].is_empty(),
            Step::Seal => self.to_seal(device).is_some(),
            Step::Send => self.to_send(device).is_some(),
            Step::Commit => self.wants_commit(device),
            Step::CommitOwn => {
                let answers = own.readds.iter().any(Option::is_some);
                self.wants_commit(device) && answers && (own.must_update || own.wants_update || own.wants_removal)
            }
            Step::SendCommit => self.can_send_pending(device),
            Step::GiveUpWaiting => self.may_give_up_waiting(device),
            Step::Ask => self.may_ask(on, device),
            Step::BeginAnew => self.may_begin_anew(on, device),
            Step::Confirm => on.pair && self.may_confirm(device).is_some(),
        }
    }

    /// Does it.
    pub fn perform(&mut self, on: &Configuration, action: Action) {
        match action {
            Action::Person(Person::Write(device)) => {
                let text = self.said.len() as Text;
                self.said.push(device as u8);
                self.left.texts -= 1;
                self.devices[device].outbox.push(Outgoing::new(Content::Text(text)));
            }
            Action::Person(Person::Update(device)) => {
                self.left.updates -= 1;
                self.devices[device].wants_update = true;
            }
            Action::Person(Person::Remove(device)) => {
                self.left.removals -= 1;
                self.devices[device].wants_removal = true;
            }
            Action::Step(device, step) => self.step(on, device, step),
            Action::Trouble(trouble) => self.trouble(on, trouble),
        }
    }

    fn step(&mut self, on: &Configuration, device: usize, step: Step) {
        match step {
            Step::Connect => self.connect(on, device),
            Step::Attach => self.attach(on, device),
            Step::Read => self.read(on, device, false),
            Step::Join => {
                let welcome = self.log_of_mut(device).inboxes[device].remove(0);
                self.join(on, device, &welcome);
            }
            Step::Answer => {
                let (name, answer): (_, Answer) = self.answers[device].remove(0);
                self.answered(on, device, name, answer);
            }
            Step::Seal => {
                if let Some(index) = self.to_seal(device) {
                    self.seal(on, device, index);
                }
            }
            Step::Send => {
                if let Some(index) = self.to_send(device) {
                    self.send(on, device, index);
                }
            }
            Step::Commit => self.commit(device, true, Set::default()),
            Step::CommitOwn => self.commit(device, false, Set::default()),
            Step::SendCommit => self.send_pending(on, device),
            Step::GiveUpWaiting => self.fall_behind(device),
            Step::Ask => self.ask_to_be_added(on, device),
            Step::BeginAnew => self.begin_anew(on, device),
            Step::Confirm => {
                if let Some(index) = self.may_confirm(device) {
                    self.devices[device].outbox[index].delivered = true;
                }
            }
        }
    }

    /// What an honest world does next by itself; none when nothing is left to do.
    /// When all is still, connections are cut once more, as they are; and a person decides who was asked to.
    pub fn calm_step(&self, on: &Configuration) -> Option<Action> {
        // Devices of one rank take turns by their number, as by leaf.
        let next = IN_ORDER.iter().flat_map(|step| (0..DEVICES).map(move |device| (device, *step)));
        let next =
            next.filter(|(_, step)| *step != Step::CommitOwn).find(|(device, step)| self.can(on, *device, *step));
        next.map(|(device, step)| Action::Step(device, step))
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Person(Person::Write(device)) => write!(f, "{}: a person writes", device_name(*device)),
            Action::Person(Person::Update(device)) => write!(f, "{}: keys are due", device_name(*device)),
            Action::Person(Person::Remove(device)) => write!(f, "{}: removes the other account", device_name(*device)),
            Action::Step(device, step) => write!(f, "{}: {step:?}", device_name(*device)),
            Action::Trouble(trouble) => write!(f, "trouble: {trouble:?}"),
        }
    }
}
