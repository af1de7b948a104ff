use sealwire_relay_core::{Decision, Growth, Input, Policy, Registration};
use sealwire_store::{Append, Delivered, Operation, Store};
use sealwire_wire::entry::Entry;
use sealwire_wire::frame::{FromRelay, ToRelay};
use sealwire_wire::limits::{
    APPENDS_BURST, APPENDS_IN_FLIGHT_MAX, APPENDS_PER_MINUTE, ENTRY_MAX, FRAME_MAX, UNACKNOWLEDGED_MAX,
};
use sealwire_wire::{Code, EnvelopeId, InboxAddress, LogId, Position, Time};

use crate::device::Device;
use crate::world::{Id, World, ack, positions};

struct Two {
    world: World,
    alice: Id,
    bob: Id,
    /// Alice's, who writes.
    writer: Device,
    /// Bob's, who reads.
    device: Device,
}

fn two() -> Two {
    two_in(World::new())
}

fn two_in(mut world: World) -> Two {
    let (mut alice, mut bob) = (Device::new(1), Device::new(2));
    let (alices, bobs) = (world.register(&mut alice, "alice"), world.register(&mut bob, "bob"));
    Two { world, alice: alices, bob: bobs, writer: alice, device: bob }
}

fn numbered(writer: &Device, to: LogId, number: u32, length: usize) -> ToRelay {
    let mut envelope = [0; 16];
    envelope[..4].copy_from_slice(&number.to_be_bytes());
    let entry = Entry::direct(EnvelopeId(envelope), writer.direct(0, length)).encode();
    ToRelay::Append { log: to, entry, roster: None }
}

/// E4: once, however often it is repeated; another body under the same id is refused.
#[test]
fn an_envelope_is_appended_once() {
    let Two { mut world, alice, bob, writer, device } = two();
    let accepted = FromRelay::Accepted { envelope: EnvelopeId([7; 16]), position: Position(1) };
    assert_eq!(world.ask(alice, &writer.append(device.inbox_log(), 7, 10)), std::slice::from_ref(&accepted));
    assert_eq!(world.ask(alice, &writer.append(device.inbox_log(), 7, 10)), [accepted]);
    assert_eq!(world.refusal(alice, &writer.append(device.inbox_log(), 7, 11)), Code::EnvelopeReused);
    assert_eq!(positions(&world.take(bob)), [1]);
}

/// HP-08, K1: a made-up sender would cost every reader a look-up. What names another device than the writer's, or is
/// shorter than a header, is refused and stands nowhere; at the length of a header it is taken.
#[test]
fn a_direct_entry_names_the_device_that_writes_it() {
    let Two { mut world, alice, bob, writer, device } = two();
    let entry = |body: Vec<u8>| {
        let entry = Entry::direct(EnvelopeId([7; 16]), body).encode();
        ToRelay::Append { log: device.inbox_log(), entry, roster: None }
    };
    let own = writer.direct(0, 0);
    for body in [device.direct(0, 100), vec![7; 200], own[..own.len() - 1].to_vec(), Vec::new()] {
        let [FromRelay::Failed(failed)] = &world.ask(alice, &entry(body))[..] else { panic!() };
        assert_eq!((failed.code, failed.envelope), (Code::EntryRefused, Some(EnvelopeId([7; 16]))));
    }
    assert_eq!((world.take(bob), world.closed(alice)), (vec![], None));
    assert!(matches!(world.ask(alice, &entry(own))[..], [FromRelay::Accepted { position: Position(1), .. }]));
    assert_eq!(positions(&world.take(bob)), [1]);
}

#[test]
fn entries_go_to_logs_of_their_kind_that_exist() {
    let Two { mut world, alice, writer, device, .. } = two();
    assert_eq!(world.refusal(alice, &writer.append(LogId::Inbox(InboxAddress([9; 16])), 1, 1)), Code::UnknownLog);
    let conversation = LogId::Conversation(sealwire_wire::ConversationId([1; 32]));
    assert_eq!(world.refusal(alice, &writer.append(conversation, 1, 1)), Code::Malformed);
    let junk = ToRelay::Append { log: device.inbox_log(), entry: vec![99], roster: None };
    assert_eq!(world.refusal(alice, &junk), Code::Malformed);
}

/// HP-08: so many appends of a connection wait for a store that takes its time, at the limit and one past it; each that
/// is done makes room.
#[test]
fn appends_in_flight_are_bounded() {
    let Two { mut world, alice, writer, device, .. } = two();
    let append = |number| Input::Bytes(numbered(&writer, device.inbox_log(), number, 1).encode());
    let mut waiting = Vec::new();
    for number in 0..APPENDS_IN_FLIGHT_MAX {
        waiting.extend(world.decide(alice, append(number)));
    }
    world.carry_out(alice, Vec::new());
    assert_eq!(world.take(alice), [], "at the limit nobody is refused");
    let [Decision::Send(FromRelay::Failed(failed))] = &world.decide(alice, append(1_000))[..] else { panic!() };
    assert_eq!(failed.code, Code::Busy);
    assert!(failed.envelope.is_some() && failed.retry_after_ms > 0);
    world.carry_out(alice, waiting);
    let accepted = world.take(alice);
    assert_eq!(accepted.len(), APPENDS_IN_FLIGHT_MAX as usize);
    assert!(accepted.iter().all(|frame| matches!(frame, FromRelay::Accepted { .. })));
    world.give(alice, append(1_000));
    assert!(matches!(world.take(alice)[..], [FromRelay::Accepted { .. }]));
}

/// HP-08, O: a connection brings a burst and then so many a minute; what comes too soon is refused with the time to
/// wait, and so is what goes into the same log behind it, which must not overtake it. The connection goes on, and
/// nobody else notices.
#[test]
fn appends_have_a_rate() {
    let Two { mut world, alice, bob, writer, device } = two();
    assert_eq!(world.hello(alice).limits.appends_per_minute, APPENDS_PER_MINUTE);
    let log = device.inbox_log();
    for number in 0..APPENDS_BURST {
        assert!(matches!(world.ask(alice, &numbered(&writer, log, number, 1))[0], FromRelay::Accepted { .. }));
    }
    let [FromRelay::Failed(failed)] = &world.ask(alice, &writer.append(log, 0xff, 1))[..] else { panic!() };
    assert_eq!((failed.code, failed.envelope), (Code::RateLimited, Some(EnvelopeId([0xff; 16]))));
    assert!(failed.retry_after_ms > 0);
    world.take(bob);
    assert!(matches!(world.ask(bob, &device.append(writer.inbox_log(), 1, 1))[0], FromRelay::Accepted { .. }));
    assert!(matches!(world.take(alice)[..], [FromRelay::Deliver { .. }]));
    world.now = world.now.plus(failed.retry_after_ms);
    assert_eq!(world.refusal(alice, &writer.append(log, 0xfe, 1)), Code::RateLimited, "it overtook");
    for number in [0xff, 0xfe] {
        assert!(matches!(world.ask(alice, &writer.append(log, number, 1))[0], FromRelay::Accepted { .. }));
    }
}

/// The operator's choice: another rate, or none.
#[test]
fn the_rate_of_appends_is_the_operators_choice() {
    for (chosen, passes) in [(0, APPENDS_BURST * 3), (10, 10)] {
        let world = World::with(Policy { appends_per_minute: chosen, ..Registration::Open.into() });
        let Two { mut world, alice, writer, device, .. } = two_in(world);
        assert_eq!(world.hello(alice).limits.appends_per_minute, chosen);
        let append = |number| numbered(&writer, device.inbox_log(), number, 1);
        let accepted = (0..passes).filter(|n| matches!(world.ask(alice, &append(*n))[0], FromRelay::Accepted { .. }));
        assert_eq!(accepted.count(), passes as usize);
        let next = world.ask(alice, &append(passes));
        let is_refused = matches!(&next[0], FromRelay::Failed(failed) if failed.code == Code::RateLimited);
        assert_eq!(is_refused, chosen > 0);
    }
}

/// One delivery path: who was away gets what who is there gets, in the same order.
#[test]
fn away_or_there_the_same_comes() {
    let Two { mut world, alice, bob, writer, device } = two();
    for number in 0..3 {
        world.ask(alice, &numbered(&writer, device.inbox_log(), number, 10));
    }
    assert_eq!(positions(&world.take(bob)), [1, 2, 3]);
    assert_eq!(world.ask(bob, &ack(device.inbox_log(), 2)), []);
    world.drop(bob);
    world.ask(alice, &numbered(&writer, device.inbox_log(), 3, 10));
    let (bob, answer) = world.log_in(&device);
    let FromRelay::LoggedIn(sealwire_wire::frame::LoggedIn::Registered { read_upto, .. }) = answer else { panic!() };
    assert_eq!(read_upto, Position(2));
    // The log-in's answer came first; `log_in` has taken the frames behind it, too, so the next connection shows them.
    world.drop(bob);
    let bob = world.open();
    let frame = device.log_in(&world.hello(bob), "", b"");
    let frames = world.ask(bob, &frame);
    assert!(matches!(frames[0], FromRelay::LoggedIn(_)));
    assert_eq!(positions(&frames), [3, 4]);
}

/// A slow reader costs a window and no more; each Ack makes room; nothing is lost or repeated.
#[test]
fn the_window_bounds_what_is_unacknowledged() {
    let Two { mut world, alice, bob, writer, device } = two();
    let total = UNACKNOWLEDGED_MAX as u32 * 2 + 10;
    for number in 0..total {
        world.ask(alice, &numbered(&writer, device.inbox_log(), number, 1));
    }
    let mut got = positions(&world.take(bob));
    assert_eq!(got.len(), UNACKNOWLEDGED_MAX);
    while let Some(last) = got.last().copied().filter(|last| *last < u64::from(total)) {
        let more = positions(&world.ask(bob, &ack(device.inbox_log(), last - 5)));
        assert!(!more.is_empty() && more.len() <= UNACKNOWLEDGED_MAX, "{}", more.len());
        got.extend(more);
    }
    assert_eq!(got, (1..=u64::from(total)).collect::<Vec<_>>());
}

/// E1: whatever waits, each frame fits; a stopped reader of large entries costs one frame's bytes and an entry.
#[test]
fn large_entries_come_in_frames_that_fit() {
    let Two { mut world, alice, bob, writer, device } = two();
    let header = Entry::direct(EnvelopeId([0; 16]), writer.direct(0, 0)).encode().len();
    for number in 0..6 {
        world.ask(alice, &numbered(&writer, device.inbox_log(), number, ENTRY_MAX - header));
    }
    let mut got = Vec::new();
    loop {
        let frames = world.take(bob);
        if frames.is_empty() {
            break;
        }
        let bytes: usize = frames.iter().map(|frame| frame.encode().len()).sum();
        assert!(frames.iter().all(|frame| frame.encode().len() <= FRAME_MAX));
        assert!(bytes < FRAME_MAX + ENTRY_MAX + 1_000, "{bytes}");
        got.extend(positions(&frames));
        world.give(bob, Input::Bytes(ack(device.inbox_log(), *got.last().unwrap()).encode()));
    }
    assert_eq!(got, [1, 2, 3, 4, 5, 6]);
}

/// What an earlier connection brought may be acknowledged before it comes again, and nothing is skipped by an Ack that
/// lies beyond the end.
#[test]
fn an_ack_ahead_of_this_connection_is_taken() {
    let Two { mut world, alice, bob, writer, device } = two();
    let log = device.inbox_log();
    for number in 0..5 {
        world.ask(alice, &numbered(&writer, log, number, 1));
    }
    assert_eq!(positions(&world.take(bob)), [1, 2, 3, 4, 5]);
    assert_eq!(world.ask(bob, &ack(log, 1_000)), []);
    world.ask(alice, &numbered(&writer, log, 5, 1));
    assert_eq!(positions(&world.take(bob)), [6]);
    assert_eq!(world.ask(bob, &ack(log, 6)), []);
    let (_, answer) = world.log_in(&device);
    let FromRelay::LoggedIn(sealwire_wire::frame::LoggedIn::Registered { read_upto, .. }) = answer else { panic!() };
    assert_eq!(read_upto, Position(6));
}

/// One delivery path: a reader that has read what came before takes what its log grew by as it is; any other reads it
/// from the store. Either way the same is sent, once and without a gap.
#[test]
fn what_is_at_hand_is_not_read_again() {
    let Two { mut world, alice: _, bob, writer, device } = two();
    let log = device.inbox_log();
    // In the store under other names, so that what was read can be told from what was at hand.
    let at_hand = |first: u64, count: u64| {
        let entry = |position| Delivered { position: Position(position), at: Time(5), entry: vec![position as u8] };
        Input::Grown(Growth { log, entries: (first..first + count).map(entry).collect() })
    };
    let was_at_hand = |frames: &[FromRelay]| -> Vec<(u64, bool)> {
        let entries = frames.iter().flat_map(|frame| match frame {
            FromRelay::Deliver { entries, .. } => entries.clone(),
            _ => Vec::new(),
        });
        entries.map(|entry| (entry.position.0, entry.at == Time(5))).collect()
    };
    for number in 0..4 {
        let entry = Entry::direct(EnvelopeId([number; 16]), writer.direct(0, 10));
        let append = Append::to_inbox(device.inbox, device.inbox, entry);
        world.store.commit(world.now, &[Operation::Append(append)]).unwrap();
    }
    world.give(bob, at_hand(1, 2));
    assert_eq!(was_at_hand(&world.take(bob)), [(1, true), (2, true)]);
    world.give(bob, at_hand(1, 2));
    assert_eq!(was_at_hand(&world.take(bob)), [(3, false), (4, false)], "old news is a reason to read");
    world.give(bob, at_hand(6, 1));
    assert_eq!(was_at_hand(&world.take(bob)), [], "nothing is passed over");
    world.give(bob, at_hand(5, UNACKNOWLEDGED_MAX as u64 - 3));
    assert_eq!(was_at_hand(&world.take(bob)), [], "more than the window has room for");
    world.give(bob, at_hand(5, UNACKNOWLEDGED_MAX as u64 - 4));
    assert_eq!(was_at_hand(&world.take(bob)).len(), UNACKNOWLEDGED_MAX - 4);
}
