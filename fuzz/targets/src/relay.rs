//! The relay's connections: frames of every kind in every order, from devices that are logged in and from such that are
//! not. Whatever happens: a log's positions only grow on a connection, an envelope id stands at one place with one
//! content, what is delivered was appended, and a one-time key package is handed out once.

use std::collections::{BTreeMap, BTreeSet};

use sealwire_keys::{group_id, one_to_one};
use sealwire_relay_core::Input;
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{FromRelay, IdProof, LookupBy, RosterChange, ToRelay, Welcome};
use sealwire_wire::{
    BlobHash, ConversationId, DeviceHint, DeviceId, EnvelopeId, InboxAddress, LogId, MeetingId, Position,
    PresenceToken, RosterHash,
};

use crate::bytes::Choices;
use crate::device::Device;
use crate::relay_world::{Id, World};

const STEPS_MAX: usize = 96;
const DEVICES: usize = 3;
const CONVERSATIONS: u8 = DEVICES as u8 + 1;
const NONCE: [u8; 16] = [4; 16];

pub(crate) fn relay(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let mut world = World::new();
    let mut devices: Vec<Device> = (1..=DEVICES as u8).map(Device::new).collect();
    let mut open: Vec<Id> = Vec::new();
    for (number, device) in devices.iter_mut().enumerate() {
        open.push(world.register(device, &format!("name{number}")));
    }
    let mut seen = Seen::default();
    for _ in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        let which = choices.below(open.len() + 1);
        let Some(&id) = open.get(which) else {
            open.push(world.open());
            continue;
        };
        let device = choices.below(DEVICES);
        match choices.below(8) {
            0 => {
                let frame = devices[device].log_in(&world.hello(id), "", b"");
                world.give(id, Input::Bytes(frame.encode()));
                devices[device].commit_incarnation();
            }
            1 => world.give(id, Input::Bytes(choices.run().to_vec())),
            2 => world.give(id, Input::Text),
            3 => {
                world.now = world.now.plus(choices.number() % 100_000_000);
                world.give(id, Input::Tick);
            }
            4 => {
                world.drop(id);
                open.retain(|other| *other != id);
                seen.upto.retain(|(connection, _), _| *connection != id);
                continue;
            }
            _ => {
                let frame = frame(&mut choices, &devices, device);
                world.give(id, Input::Bytes(frame.encode()));
            }
        }
        for id in &open {
            world.take(*id).iter().for_each(|frame| seen.look(*id, frame));
        }
    }
}

/// What was delivered so far.
#[derive(Default)]
struct Seen {
    upto: BTreeMap<(Id, LogId), Position>,
    places: BTreeMap<(LogId, EnvelopeId), Position>,
    entries: BTreeMap<(LogId, Position), Vec<u8>>,
    claimed: BTreeSet<(DeviceId, Vec<u8>)>,
}

impl Seen {
    fn look(&mut self, id: Id, frame: &FromRelay) {
        match frame {
            FromRelay::Deliver { log, entries } => {
                for delivered in entries {
                    let before = self.upto.insert((id, *log), delivered.position);
                    assert!(before < Some(delivered.position), "back to {:?}", delivered.position);
                    let entry = Entry::decode(&delivered.entry).expect("what is delivered is an entry");
                    let place = *self.places.entry((*log, entry.envelope)).or_insert(delivered.position);
                    assert_eq!(place, delivered.position, "one envelope at two places");
                    let kept =
                        self.entries.entry((*log, delivered.position)).or_insert_with(|| delivered.entry.clone());
                    assert_eq!(*kept, delivered.entry, "one place with two entries");
                }
            }
            FromRelay::KeyPackages { packages, .. } => {
                for package in packages.iter().filter(|package| !package.is_last_resort) {
                    let claimed = (package.device, package.bytes.clone());
                    assert!(self.claimed.insert(claimed), "a one-time key package twice");
                }
            }
            // A new log-in reads from its cursor again.
            FromRelay::LoggedIn(_) => self.upto.retain(|(connection, _), _| *connection != id),
            _ => {}
        }
    }
}

/// A group that each device may begin, and the conversation of the first two.
fn conversation_of(devices: &[Device], which: u8) -> ConversationId {
    match devices.get(usize::from(which)) {
        Some(device) => group_id(device.log.id(), NONCE),
        None => one_to_one(devices[0].log.id(), devices[1].log.id()),
    }
}

/// What proves that id, where the connection is the right one's.
fn proof_of(devices: &[Device], which: u8, writer: usize) -> IdProof {
    match devices.get(usize::from(which)) {
        Some(_) => IdProof::Nonce(NONCE),
        None => IdProof::Peer(devices[usize::from(writer == 0)].log.id()),
    }
}

fn frame(choices: &mut Choices<'_>, devices: &[Device], writer: usize) -> ToRelay {
    let request = u32::from(choices.byte());
    let inbox = |choices: &mut Choices<'_>| match choices.below(devices.len() + 1) {
        known if known < devices.len() => devices[known].inbox,
        _ => InboxAddress(choices.array()),
    };
    let conversation = |choices: &mut Choices<'_>| conversation_of(devices, choices.byte() % CONVERSATIONS);
    let log = |choices: &mut Choices<'_>| match choices.below(2) {
        0 => LogId::Inbox(inbox(choices)),
        _ => LogId::Conversation(conversation(choices)),
    };
    let inboxes = |choices: &mut Choices<'_>| (0..choices.below(5)).map(|_| inbox(choices)).collect::<Vec<_>>();
    let welcomes = |choices: &mut Choices<'_>| -> Vec<Welcome> {
        (0..choices.below(3))
            .map(|_| Welcome { inbox: inbox(choices), entry: entry(choices, &devices[writer]) })
            .collect()
    };
    match choices.below(18) {
        0..=2 => {
            let log = log(choices);
            let roster = (choices.below(4) == 0).then(|| RosterChange {
                before: RosterHash(choices.array()),
                inboxes: inboxes(choices),
                welcomes: welcomes(choices),
            });
            ToRelay::Append { log, entry: entry(choices, &devices[writer]), roster }
        }
        3 => ToRelay::Ack { log: log(choices), upto: Position(choices.number()) },
        4 => {
            let by = match choices.below(3) {
                0 => LookupBy::Handle(format!("name{}", choices.below(4))),
                1 => LookupBy::Account(devices[choices.below(devices.len())].log.id()),
                _ => LookupBy::Device(DeviceHint(choices.array())),
            };
            ToRelay::Lookup { request, by }
        }
        5 => devices[choices.below(devices.len())].register(&format!("name{}", choices.below(6))),
        6 => {
            let inbox = (choices.below(2) == 0).then(|| inbox(choices));
            ToRelay::Publish { request, entry: choices.run().to_vec(), inbox }
        }
        7 => {
            let token = (choices.below(2) == 1).then(|| PresenceToken([choices.byte() % 3; 16]));
            ToRelay::SetPresence { token }
        }
        8 => ToRelay::Watch { tokens: (0..choices.below(4)).map(|n| PresenceToken([n as u8; 16])).collect() },
        9 => ToRelay::Attach { request, conversation: conversation(choices) },
        10 => {
            let which = choices.byte() % CONVERSATIONS;
            ToRelay::CreateConversation {
                request,
                conversation: conversation_of(devices, which),
                entries: (0..choices.below(3)).map(|_| entry(choices, &devices[writer])).collect(),
                inboxes: inboxes(choices),
                welcomes: welcomes(choices),
                proof: proof_of(devices, which, writer),
            }
        }
        11 => ToRelay::GetHead { request, conversation: conversation(choices) },
        12 => ToRelay::PutBlob {
            request,
            hash: BlobHash([choices.byte() % 3; 32]),
            size: choices.number(),
            offset: choices.number(),
            bytes: choices.run().to_vec(),
        },
        13 => ToRelay::PublishKeyPackages {
            request,
            replace: choices.below(4) == 0,
            one_time: (0..choices.below(4)).map(|_| choices.run().to_vec()).collect(),
            last_resort: (choices.below(3) == 0).then(|| vec![choices.byte()]),
        },
        15 => ToRelay::ListLogs { request },
        14 => {
            let account = devices[choices.below(devices.len())].log.id();
            let device = (choices.below(3) == 0).then(|| devices[choices.below(devices.len())].id());
            ToRelay::ClaimKeyPackages { request, account, device }
        }
        17 => ToRelay::Meet { request, meeting: MeetingId([choices.byte() % 3; 16]), bytes: choices.run().to_vec() },
        _ => ToRelay::GetBlob { request, hash: BlobHash([choices.byte() % 3; 32]), offset: choices.number() },
    }
}

/// A direct-mode body is mostly this device's, since the relay refuses what names another.
fn entry(choices: &mut Choices<'_>, writer: &Device) -> Vec<u8> {
    let envelope = EnvelopeId([choices.byte() % 8; 16]);
    let kind = EntryKind::ALL[choices.below(EntryKind::ALL.len())];
    let after = kind.names_after().then(|| Position(choices.number() % 8));
    let body = match choices.below(4) {
        0 => Body::Blob(BlobHash([choices.byte() % 3; 32])),
        1 if kind == EntryKind::Direct => Body::Inline(choices.run().to_vec()),
        _ if kind == EntryKind::Direct => Body::Inline([&writer.direct(0, 0), choices.run()].concat()),
        _ => Body::Inline(choices.run().to_vec()),
    };
    Entry { kind, after, envelope, body }.encode()
}
