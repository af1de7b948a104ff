//! The engine against a relay that says anything: genuine frames at the wrong time, altered ones, made-up positions;
//! commands and crashes in between. Whatever happens: what is shown was written by its author, once, and what is stored
//! can be loaded.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::OnceLock;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sealwire_engine::{Command, Engine, Event, Input, Output, Table, To};
use sealwire_wire::content::Part;
use sealwire_wire::frame::{Delivered, Failed, FromRelay, LoggedIn, ToRelay};
use sealwire_wire::{AccountId, Code, ContentId, EnvelopeId, LogId, Position, Time};

use crate::bytes::Choices;

#[path = "../../../crates/engine/tests/it/world.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "shared with the engine's tests, which use all of it")]
mod world;

use world::{Records, World, apply, load};

const STEPS_MAX: usize = 96;

/// Alice, who knows Bob, and what a relay has to play with.
struct Prepared {
    records: Records,
    /// Every frame that she was given, from the last log-in on.
    frames: Vec<FromRelay>,
    /// What Bob sealed for her and she has not seen.
    envelopes: Vec<Vec<u8>>,
    texts: BTreeSet<String>,
    inbox: LogId,
    bob: AccountId,
}

fn prepared() -> &'static Prepared {
    static PREPARED: OnceLock<Prepared> = OnceLock::new();
    PREPARED.get_or_init(|| {
        let mut world = World::of(&["alice", "bob"]);
        world.befriend(0, 1);
        let frames: Rc<RefCell<Vec<FromRelay>>> = Rc::default();
        let keep = Rc::clone(&frames);
        world.people[0].hand = Box::new(move |frame| {
            keep.borrow_mut().push(frame.clone());
            if matches!(frame, FromRelay::Deliver { .. }) { vec![] } else { vec![frame] }
        });
        let records = world.people[0].disk.clone();
        world.write(0, 1, "to be confirmed");
        world.reconnect(0);
        let texts: BTreeSet<String> = (0..6).map(|number| format!("written by bob {number}")).collect();
        for text in &texts {
            world.write(1, 0, text);
        }
        world.pass(6_000);
        let frames = frames.take();
        let delivered = |frame: &FromRelay| match frame {
            FromRelay::Deliver { entries, .. } => entries.iter().map(|entry| entry.entry.clone()).collect(),
            _ => Vec::new(),
        };
        let envelopes = frames.iter().flat_map(delivered).collect();
        let inbox = LogId::Inbox(load(&records).expect("a store that can be loaded").profile().inbox);
        Prepared { records, frames, envelopes, texts, inbox, bob: world.account(1) }
    })
}

pub(crate) fn engine(bytes: &[u8]) {
    let prepared = prepared();
    let mut choices = Choices(bytes);
    let mut run = Run {
        engine: load(&prepared.records).expect("a store that can be loaded"),
        records: prepared.records.clone(),
        now: Time(1_790_000_100_000),
        rng: ChaCha20Rng::seed_from_u64(1),
        shown: BTreeSet::new(),
        own_envelopes: Vec::new(),
    };
    for _ in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        match choices.below(12) {
            0 => run.input(Input::Connected { binding: None }),
            1 => run.input(Input::Disconnected),
            2 => {
                run.now = Time(run.now.0.saturating_add_signed(choices.number() as i64 % 1_000_000_000));
                run.input(Input::Tick);
            }
            3 => {
                // The process ends here and starts again.
                run.engine = load(&run.records).expect("what was stored can be loaded");
                run.input(Input::Tick);
            }
            4 => run.input(Input::Command(1, command(&mut choices, prepared))),
            5 => run.input(Input::Frame(choices.run().to_vec())),
            6 => {
                let frame = &prepared.frames[choices.below(prepared.frames.len())];
                run.input(Input::Frame(frame.encode()));
            }
            7 => {
                let mut frame = prepared.frames[choices.below(prepared.frames.len())].encode();
                alter(&mut frame, &mut choices);
                run.input(Input::Frame(frame));
            }
            8 | 9 => {
                let mut entry = prepared.envelopes[choices.below(prepared.envelopes.len())].clone();
                let position = Position(choices.number());
                if choices.below(2) == 1 {
                    alter(&mut entry, &mut choices);
                }
                let entries = vec![Delivered { position, entry, at: Time(choices.number()) }];
                run.input(Input::Frame(FromRelay::Deliver { log: prepared.inbox, entries }.encode()));
            }
            10 => {
                let frame = logged_in(&mut choices, prepared).encode();
                run.input(Input::Frame(frame));
            }
            _ => {
                let own = run.own_envelopes.get(choices.below(run.own_envelopes.len() + 1)).copied();
                let frame = match choices.below(2) {
                    0 => FromRelay::Accepted {
                        envelope: own.unwrap_or(EnvelopeId(choices.array())),
                        position: Position(choices.number()),
                    },
                    _ => FromRelay::Failed(Failed {
                        code: Code::ALL[choices.below(Code::ALL.len())],
                        request: u32::from(choices.byte()),
                        envelope: own,
                        retry_after_ms: choices.number(),
                        text: String::new(),
                    }),
                };
                run.input(Input::Frame(frame.encode()));
            }
        }
    }
    load(&run.records).expect("what was stored can be loaded");
}

struct Run {
    engine: Engine,
    records: Records,
    now: Time,
    rng: ChaCha20Rng,
    shown: BTreeSet<String>,
    /// Envelopes that this engine has sent.
    own_envelopes: Vec<EnvelopeId>,
}

impl Run {
    fn input(&mut self, input: Input) {
        let step = self.engine.handle(input, self.now, &mut self.rng);
        apply(&mut self.records, &step.changes);
        for output in step.outputs {
            match output {
                Output::Event(Event::Message(message)) => self.show(message.content.part),
                Output::Event(Event::Request(request)) => self.show(request.message.content.part),
                Output::Send(ToRelay::Append { entry, .. }) => {
                    let entry = sealwire_wire::entry::Entry::decode(&entry).expect("what is sent is well formed");
                    self.own_envelopes.push(entry.envelope);
                }
                _ => {}
            }
        }
        assert!(!self.records.keys().any(|(table, _)| !Table::ALL.contains(table)));
    }

    fn show(&mut self, part: Part) {
        let Part::Text(text) = part else { panic!("shown, and nobody wrote it: {part:?}") };
        assert!(prepared().texts.contains(&text), "shown, and nobody wrote it: {text:?}");
        assert!(self.shown.insert(text.clone()), "shown twice: {text:?}");
    }
}

/// Changes some bytes, or the length.
fn alter(bytes: &mut Vec<u8>, choices: &mut Choices<'_>) {
    for _ in 0..=choices.below(3) {
        let place = usize::from(u16::from_be_bytes(choices.array()));
        match choices.below(3) {
            0 => bytes.truncate(place % (bytes.len() + 1)),
            1 => bytes.extend_from_slice(choices.run()),
            _ => {
                let length = bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(place % length) {
                    *byte ^= choices.byte();
                }
            }
        }
    }
}

fn logged_in(choices: &mut Choices<'_>, prepared: &Prepared) -> FromRelay {
    let genuine = prepared.frames.iter().find(|frame| matches!(frame, FromRelay::LoggedIn(_)));
    let Some(FromRelay::LoggedIn(LoggedIn::Registered { account, handle, inbox, account_head, .. })) = genuine else {
        return FromRelay::LoggedIn(LoggedIn::Unregistered);
    };
    match choices.below(8) {
        0 => FromRelay::LoggedIn(LoggedIn::Unregistered),
        choice => FromRelay::LoggedIn(LoggedIn::Registered {
            account: *account,
            handle: handle.clone(),
            inbox: *inbox,
            restored: choice == 1,
            read_upto: Position(choices.number()),
            account_entries: choices.number(),
            account_head: if choice == 2 { choices.array() } else { *account_head },
            key_packages: choices.byte().into(),
        }),
    }
}

fn command(choices: &mut Choices<'_>, prepared: &Prepared) -> Command {
    let bob = prepared.bob;
    match choices.below(12) {
        0 | 1 => Command::Send {
            to: To::Account(bob),
            part: Part::Bytes { media_type: String::new(), bytes: choices.run().to_vec() },
            in_reply_to: None,
        },
        2 => Command::Accept(bob),
        3 => Command::Block(bob),
        4 => Command::Unblock(bob),
        5 => Command::SetVerified(bob, choices.below(2) == 1),
        6 => Command::Shown(choices.number()),
        7 => Command::SetPresence(choices.below(2) == 1),
        8 => Command::Reclaim,
        9 => Command::Reconnect,
        10 => Command::MarkRead(vec![(bob, ContentId(choices.array()))]),
        _ => Command::Contacts,
    }
}
