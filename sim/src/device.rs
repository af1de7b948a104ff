//! A client of the world: an engine, a disk that keeps what was committed, and a person.

use std::collections::{BTreeMap, BTreeSet};

use sealwire_engine::{
    Change, CodeSecret, Command, ConversationView, Engine, Event, Input, Invite, Mode, Newcomer, NewcomerOutput,
    Output, Refusal, Reply, Settings, StoredMessage, Suite, Table, Ticket, To,
};
use sealwire_wire::content::Part;
use sealwire_wire::frame::ToRelay;
use sealwire_wire::handle::Handle;
use sealwire_wire::{AccountId, ConversationId, DeviceId, InboxAddress, Time};
use zeroize::Zeroizing;

use crate::dice::Dice;

type Records = BTreeMap<(Table, Vec<u8>), Zeroizing<Vec<u8>>>;

/// What a device wants the network to do.
pub(crate) enum ToNetwork {
    Send(ToRelay),
    Connect,
    Disconnect,
}

/// What a step came to.
pub(crate) struct Stepped {
    pub(crate) network: Vec<ToNetwork>,
    pub(crate) events: Vec<Event>,
    /// Messages whose `Queued` was told to the person: they are saved, and must arrive.
    pub(crate) queued: Vec<(Ticket, u64)>,
    /// Groups that this device begins.
    pub(crate) groups: Vec<ConversationId>,
    /// Commands that were done, or will be.
    pub(crate) done: Vec<Ticket>,
    /// Commands that were refused.
    pub(crate) refused: Vec<(Ticket, Refusal)>,
    /// Codes that this device shows.
    pub(crate) codes: Vec<CodeSecret>,
    /// Whether it is linked now, and its process begins anew.
    pub(crate) linked: bool,
    /// Whether the process ended in the middle.
    pub(crate) crashed: bool,
    /// Whether the commit failed.
    pub(crate) commit_failed: bool,
}

pub(crate) struct Device {
    pub(crate) handle: Handle,
    /// Gone while the process is not running.
    engine: Option<Engine>,
    /// A device that has read a code, until it is linked.
    newcomer: Option<Newcomer>,
    /// The digits that it shows.
    pub(crate) digits: Option<String>,
    disk: Records,
    snapshot: Option<Records>,
    /// Every number that was ever in the outbox.
    outgoing: BTreeSet<Vec<u8>>,
    dice: Dice,
    pub(crate) clock_offset: i64,
}

/// How the people of a world talk.
#[derive(Clone, Copy)]
pub(crate) struct Talks {
    pub(crate) mode: Mode,
    pub(crate) suite: Suite,
}

/// Chances in a thousand, for each step.
#[derive(Clone, Copy, Default)]
pub(crate) struct Trouble {
    pub(crate) crash: u64,
    pub(crate) commit_fails: u64,
}

impl Device {
    pub(crate) fn new(handle: Handle, talks: Talks, mut dice: Dice, now: Time) -> Device {
        let receipt_delay_ms = 5_000;
        let settings = Settings {
            handle: handle.clone(),
            invite: Invite::default(),
            relay_key: None,
            receipt_delay_ms,
            mode: talks.mode,
            suite: talks.suite,
            key_packages: 4,
        };
        let (engine, step) = Engine::create(settings, now, &mut dice.0);
        let mut disk = Records::new();
        apply(&mut disk, &step.changes);
        Device::of(handle, Some(engine), None, disk, dice)
    }

    /// A new device, which has read a code.
    pub(crate) fn that_reads(code: &CodeSecret, handle: Handle, mut dice: Dice) -> Device {
        let newcomer = Newcomer::new(code, handle.host.clone(), &mut dice.0);
        Device::of(handle, None, Some(newcomer), Records::new(), dice)
    }

    fn of(handle: Handle, engine: Option<Engine>, newcomer: Option<Newcomer>, disk: Records, dice: Dice) -> Device {
        let (snapshot, outgoing, digits) = (None, BTreeSet::new(), None);
        Device { handle, engine, newcomer, digits, disk, snapshot, outgoing, dice, clock_offset: 0 }
    }

    /// Whether there is anything on its disk: a device that was not linked has nothing.
    pub(crate) fn has_account(&self) -> bool {
        !self.disk.is_empty()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.engine.is_some() || self.newcomer.is_some()
    }

    pub(crate) fn local(&self, now: Time) -> Time {
        Time(now.0.saturating_add_signed(self.clock_offset))
    }

    /// When the process wants to be woken, in the world's time. A minute at the longest, like the SDK's driver.
    pub(crate) fn next_wake(&self, now: Time) -> Option<Time> {
        if self.newcomer.is_some() {
            return Some(now.plus(1_000));
        }
        let wait = self.engine.as_ref()?.next_wake().map_or(60_000, |at| at.since(self.local(now)).min(60_000));
        Some(now.plus(wait.max(1)))
    }

    /// Hands an input to the engine and carries its step out, as far as it comes.
    pub(crate) fn step(&mut self, input: Input, now: Time, trouble: Trouble) -> Stepped {
        let mut stepped = Stepped {
            network: Vec::new(),
            events: Vec::new(),
            queued: Vec::new(),
            groups: Vec::new(),
            done: Vec::new(),
            refused: Vec::new(),
            codes: Vec::new(),
            linked: false,
            crashed: false,
            commit_failed: false,
        };
        let local = self.local(now);
        if self.newcomer.is_some() {
            self.step_newcomer(input, local, trouble, &mut stepped);
            return stepped;
        }
        let Some(engine) = self.engine.as_mut() else { return stepped };
        let step = engine.handle(input, local, &mut self.dice.0);
        let will_crash = self.dice.per_mille(trouble.crash);
        let outputs_before_crash = if will_crash { self.dice.below(step.outputs.len() as u64 + 2) } else { u64::MAX };
        let fails = self.dice.per_mille(trouble.commit_fails);
        let (disk, outgoing) = (&mut self.disk, &mut self.outgoing);
        // The first place to end is before the commit, the next ones are behind each output.
        let commit = |changes: &[Change]| {
            if fails || outputs_before_crash == 0 {
                return Err(());
            }
            apply(disk, changes);
            outgoing.extend(changes.iter().filter_map(outgoing_number));
            Ok(())
        };
        let mut performed = 1;
        let carried = step.carry_out(commit, |output| {
            if performed < outputs_before_crash {
                perform(output, &mut stepped);
            }
            performed += 1;
        });
        if will_crash {
            self.engine = None;
            stepped.crashed = true;
        } else if carried.is_err() {
            self.load();
            stepped.commit_failed = true;
        }
        stepped
    }

    /// A step of a device that is not linked yet: it ends before one of its outputs, or after the last.
    fn step_newcomer(&mut self, input: Input, now: Time, trouble: Trouble, stepped: &mut Stepped) {
        let Some(newcomer) = &mut self.newcomer else { return };
        let outputs = newcomer.handle(input, now);
        let will_crash = self.dice.per_mille(trouble.crash);
        let before_crash = if will_crash { self.dice.below(outputs.len() as u64 + 1) } else { u64::MAX };
        for (_, output) in (0..before_crash).zip(outputs) {
            match output {
                NewcomerOutput::Send(frame) => stepped.network.push(ToNetwork::Send(frame)),
                NewcomerOutput::Digits(digits) => self.digits = Some(digits),
                NewcomerOutput::Linked(_, step) => {
                    let disk = &mut self.disk;
                    let done = step.carry_out(
                        |changes| {
                            apply(disk, changes);
                            Ok::<(), ()>(())
                        },
                        |output| perform(output, stepped),
                    );
                    debug_assert!(done.is_ok(), "this disk takes everything");
                }
                NewcomerOutput::Listed => stepped.linked = true,
                NewcomerOutput::Failed(_) => self.newcomer = None,
            }
        }
        if will_crash {
            self.newcomer = None;
            stepped.crashed = true;
        } else if stepped.linked {
            self.newcomer = None;
            stepped.network.push(ToNetwork::Disconnect);
        }
    }

    pub(crate) fn crash(&mut self) {
        self.engine = None;
        self.newcomer = None;
    }

    /// The process starts with what the disk holds.
    pub(crate) fn load(&mut self) {
        let loaded = |((table, key), value): (&(Table, Vec<u8>), &Zeroizing<Vec<u8>>)| {
            Table::LOADED.contains(table).then(|| (*table, key.clone(), value.clone()))
        };
        let records: Vec<_> = self.disk.iter().filter_map(loaded).collect();
        self.engine = Some(Engine::load(records).expect("what was committed can be loaded"));
    }

    pub(crate) fn take_snapshot(&mut self) {
        self.snapshot = Some(self.disk.clone());
    }

    pub(crate) fn drop_snapshot(&mut self) {
        self.snapshot = None;
    }

    pub(crate) fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// An old backup of the disk comes back, while the process is not running.
    pub(crate) fn restore_snapshot(&mut self) {
        if let Some(snapshot) = &self.snapshot {
            self.disk = snapshot.clone();
            self.engine = None;
        }
    }

    /// Whether acknowledged envelopes wait on the disk for a look-up.
    pub(crate) fn holds_envelopes(&self) -> bool {
        self.disk.keys().any(|(table, _)| *table == Table::Held)
    }

    /// How many contents were ever in the outbox.
    pub(crate) fn outgoing(&self) -> usize {
        self.outgoing.len()
    }

    /// Strangers whose request waits for the person.
    pub(crate) fn strangers(&self) -> Vec<AccountId> {
        let contacts = self.disk.keys().filter(|(table, _)| *table == Table::Contact);
        let accounts = contacts.filter_map(|(_, key)| AccountId::try_from(&key[..]).ok());
        let is_stranger = |account: &AccountId| {
            self.engine.as_ref().and_then(|engine| engine.contact(*account)).is_some_and(|contact| !contact.accepted)
        };
        accounts.filter(is_stranger).collect()
    }

    pub(crate) fn account(&self) -> Option<AccountId> {
        self.engine.as_ref().map(|engine| engine.profile().account)
    }

    /// The text messages of the history, in its order: with whom or whose, whether incoming, and what. What was said to
    /// this account alone, or in groups.
    pub(crate) fn history(&self, in_groups: bool) -> Vec<(AccountId, bool, String)> {
        let messages = self.disk.iter().filter(|((table, _), _)| *table == Table::Message);
        let mut messages: Vec<_> = messages.filter_map(|((_, key), value)| StoredMessage::decode(key, value)).collect();
        messages.sort_by_key(|message| message.number);
        let groups: BTreeSet<[u8; 32]> = self.conversations().iter().map(|view| view.conversation.0).collect();
        let is_said = |message: &StoredMessage| {
            let in_group = message.from.is_some() || groups.contains(&message.with);
            in_group == in_groups
        };
        let text = |message: StoredMessage| match message.content.part {
            Part::Text(text) => Some((message.from.unwrap_or(AccountId(message.with)), message.incoming, text)),
            _ => None,
        };
        messages.into_iter().filter(is_said).filter_map(text).collect()
    }

    /// Its conversations; none while the process is not running.
    pub(crate) fn conversations(&self) -> Vec<ConversationView> {
        self.engine.as_ref().map(Engine::conversations).unwrap_or_default()
    }

    /// The devices that its account lists, as far as it knows.
    pub(crate) fn listed(&self) -> Vec<DeviceId> {
        let views = self.engine.as_ref().map(Engine::devices).unwrap_or_default();
        views.into_iter().map(|view| view.device).collect()
    }

    pub(crate) fn id(&self) -> Option<DeviceId> {
        self.engine.as_ref().map(|engine| engine.profile().device)
    }

    pub(crate) fn inbox(&self) -> Option<InboxAddress> {
        self.engine.as_ref().map(|engine| engine.profile().inbox)
    }

    /// Those whom this account knows.
    pub(crate) fn knows(&self, account: AccountId) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.contact(account).is_some())
    }
}

/// A command to write a text.
pub(crate) fn send(to: &Handle, text: &str) -> Command {
    Command::Send { to: To::Handle(to.clone()), part: Part::Text(text.to_owned()), in_reply_to: None }
}

fn outgoing_number(change: &Change) -> Option<Vec<u8>> {
    match change {
        Change::Put { table: Table::Outgoing, key, .. } => Some(key.clone()),
        _ => None,
    }
}

fn apply(disk: &mut Records, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put { table, key, value } => drop(disk.insert((*table, key.clone()), value.clone())),
            Change::Delete { table, key } => drop(disk.remove(&(*table, key.clone()))),
        }
    }
}

fn perform(output: Output, stepped: &mut Stepped) {
    match output {
        Output::Send(frame) => stepped.network.push(ToNetwork::Send(frame)),
        Output::Connect => stepped.network.push(ToNetwork::Connect),
        Output::Disconnect => stepped.network.push(ToNetwork::Disconnect),
        Output::Event(event) => stepped.events.push(event),
        Output::Reply(ticket, Ok(Reply::Queued(number))) => stepped.queued.push((ticket, number)),
        Output::Reply(_, Ok(Reply::Group(id))) => stepped.groups.push(id),
        Output::Reply(_, Ok(Reply::LinkCode(secret))) => stepped.codes.push(secret),
        Output::Reply(ticket, Err(refusal)) => stepped.refused.push((ticket, refusal)),
        Output::Reply(ticket, Ok(Reply::Done)) => stepped.done.push(ticket),
        Output::Reply(_, Ok(_)) => {}
    }
}
