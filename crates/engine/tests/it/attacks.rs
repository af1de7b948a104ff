//! A relay that alters, repeats, swaps and forges. Nothing is shown, nothing else changes (L7, S3), the original opens.

use std::cell::RefCell;
use std::rc::Rc;

use rand_core::{Rng, SeedableRng};
use sealwire_engine::*;
use sealwire_keys::Suite;
use sealwire_session::DeviceSecrets;
use sealwire_session::direct::{DirectSession, Direction, Header};
use sealwire_wire::content::{Content, Part, Status};
use sealwire_wire::entry::{Body, Entry};
use sealwire_wire::frame::{Delivered, FromRelay, ToRelay};
use sealwire_wire::limits::{REPLAY_WINDOW, SENDER_LOOKUPS_IN_FLIGHT_MAX};
use sealwire_wire::{Code, EnvelopeId, InboxAddress, LogId, Position, Time};

use crate::world::{Records, World, claiming_read_upto};

/// What may differ after a rejection: cursor, quarantine.
fn without_cursor(disk: &Records) -> Records {
    let mut disk = disk.clone();
    disk.retain(|(table, key), _| *table != Table::Quarantine && (*table, &key[..]) != (Table::Own, b"progress"));
    disk
}

fn inbox(disk_of: &World, person: usize) -> LogId {
    // The inbox that this person acknowledges.
    let ack = disk_of.people[person].sent.iter().rev().find_map(|frame| match frame {
        sealwire_wire::frame::ToRelay::Ack { log, .. } => Some(*log),
        _ => None,
    });
    ack.unwrap_or(LogId::Inbox(InboxAddress([0; 16])))
}

/// Holds back what the relay delivers to somebody, and gives it to the test.
fn intercept(world: &mut World, from: usize, to: usize, text: &str) -> (Position, Vec<u8>) {
    let caught = Rc::new(RefCell::new(None));
    let keep = Rc::clone(&caught);
    world.people[to].hand = Box::new(move |frame| match frame {
        FromRelay::Deliver { entries, .. } => {
            let first = entries.into_iter().next().unwrap();
            *keep.borrow_mut() = Some((first.position, first.entry));
            vec![]
        }
        other => vec![other],
    });
    world.write(from, to, text);
    world.people[to].hand = Box::new(|frame| vec![frame]);
    caught.borrow_mut().take().expect("something was delivered")
}

fn secrets(world: &World, person: usize) -> DeviceSecrets {
    DeviceSecrets::from_record(&world.people[person].disk[&(Table::Own, b"secrets".to_vec())]).unwrap()
}

fn deliver(world: &mut World, to: usize, position: Position, entry: Vec<u8>) {
    let log = inbox(world, to);
    world.inject(to, FromRelay::Deliver { log, entries: vec![Delivered { position, entry, at: Time(1) }] });
}

/// M6, HR-08, S3: every third bit flipped, every seventh length cut, one byte more: nothing is shown, nothing changes
/// but cursor and quarantine, and the original still opens.
#[test]
fn nothing_altered_is_shown_and_nothing_else_changes() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let (position, entry) = intercept(&mut world, 0, 1, "the original");
    let before = without_cursor(&world.people[1].disk);
    let flips = (0..entry.len() * 8).step_by(3).map(|bit| {
        let mut flipped = entry.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    });
    let cuts = (0..entry.len()).step_by(7).map(|end| entry[..end].to_vec());
    let tries: Vec<_> = flips.chain(cuts).chain([[&entry[..], &[0]].concat()]).collect();
    let mut next = position;
    for altered in &tries {
        deliver(&mut world, 1, next, altered.clone());
        // Where the sender's hint was altered, the sender is looked up first; nobody has that device.
        world.pass(1_000);
        assert!(without_cursor(&world.people[1].disk) == before, "position {next}");
        next = next.next();
    }
    let rejected = world.people[1].disk.keys().filter(|(table, _)| *table == Table::Quarantine).count();
    assert!(rejected == tries.len() && rejected > 500, "{rejected} of {}", tries.len());
    deliver(&mut world, 1, next, entry);
    assert_eq!(world.shown(1), ["hello", "the original"]);
}

/// HR-09: what was shown once is not shown again: not at its position, not at a later one, not after a restart.
#[test]
fn nothing_is_shown_twice() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let (position, entry) = intercept(&mut world, 0, 1, "once");
    deliver(&mut world, 1, position, entry.clone());
    for later in 0..3 {
        deliver(&mut world, 1, Position(position.0 + later), entry.clone());
        let disk = world.people[1].disk.clone();
        world.restart_with(1, disk);
        world.pass(2_000);
    }
    assert_eq!(world.shown(1), ["hello", "once"]);
}

/// HR-06: a message sent back to its author is rejected.
#[test]
fn a_reflected_message_is_rejected() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let (_, entry) = intercept(&mut world, 0, 1, "mine");
    deliver(&mut world, 0, Position(100), entry);
    assert_eq!(world.shown(0), ["hello to you"]);
    world.pass(5_000);
    assert_eq!(world.shown(0), ["hello to you"]);
}

/// HR-03: a message for bob does not open as one for carol.
#[test]
fn a_message_for_somebody_else_is_rejected() {
    let mut world = World::of(&["alice", "bob", "carol"]);
    world.befriend(0, 1);
    world.befriend(0, 2);
    let (_, entry) = intercept(&mut world, 0, 1, "for bob");
    deliver(&mut world, 2, Position(100), entry);
    world.pass(2_000);
    assert_eq!(world.shown(2), ["hello"]);
}

/// HR-21: a receipt counts only from the person that the message was for. Carol, a contact and hostile, seals one for a
/// message to bob with her own keys, and knows its id.
#[test]
fn forged_receipts_never_show_as_delivered() {
    let mut world = World::of(&["alice", "bob", "carol"]);
    world.befriend(0, 1);
    world.befriend(0, 2);
    world.cut(1);
    let number = world.write(0, 1, "for bob");
    let stored = world.people[0].disk.iter().filter(|((table, _), _)| *table == Table::Message);
    let mut stored = stored.filter_map(|((_, key), value)| StoredMessage::decode(key, value));
    let id = stored.find(|message| message.number == number).and_then(|message| message.id).unwrap();
    let (alice, carol) = (secrets(&world, 0), secrets(&world, 2));
    let key = alice.direct_key(Suite::X25519);
    let session = DirectSession::derive(&carol, alice.device_id(), &key, Direction::Sending).unwrap();
    let forge = |id, counter| {
        let content = Content::of([1; 16], Part::Status(vec![(id, Status::Read)])).encode();
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
        let body = session.seal(EnvelopeId([counter as u8; 16]), counter, &content, &mut rng).unwrap();
        Entry::direct(EnvelopeId([counter as u8; 16]), body).encode()
    };
    let next = Position(world.people[0].disk.len() as u64 + 1_000);
    world.reconnect(0);
    deliver(&mut world, 0, next, forge(id, 100));
    assert!(!world.people[0].saw(|event| matches!(event, Event::Quarantined { .. })), "it is authentic, from carol");
    assert_eq!(world.state(0, number), Some(MessageState::Accepted));
}

/// HR-16, total: frames of garbage change nothing and end nothing.
#[test]
fn garbage_from_a_relay_changes_nothing() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let before = world.people[1].disk.clone();
    let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(5);
    for _ in 0..2_000 {
        let mut bytes = vec![0; (rng.next_u32() % 200) as usize];
        rng.fill_bytes(&mut bytes);
        let position = Position(rng.next_u64());
        world.inject(1, FromRelay::Accepted { envelope: sealwire_wire::EnvelopeId([1; 16]), position });
        world.inject(1, FromRelay::Done { request: rng.next_u32() });
        world.inject(
            1,
            FromRelay::Found { request: rng.next_u32(), handle: "x".into(), entries: vec![bytes], devices: vec![] },
        );
    }
    assert_eq!(world.people[1].disk, before);
    world.write(0, 1, "still here");
    assert_eq!(world.shown(1), ["hello", "still here"]);
}

/// HR-22: positions that jump and overflow: no panic, and what is honest still arrives.
#[test]
fn positions_that_overflow_do_no_harm() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    for position in [u64::MAX, u64::MAX - 1, 0] {
        deliver(&mut world, 1, Position(position), vec![0xff; 40]);
    }
    assert!(world.people[1].saw(|event| matches!(event, Event::Disconnected { .. })), "a gap: fetched again");
    // What comes first on a connection is taken as it is, so its position becomes the cursor.
    world.reconnect(1);
    deliver(&mut world, 1, Position(u64::MAX), vec![0xff; 40]);
    assert!(world.people[1].saw(|event| matches!(event, Event::Quarantined { .. })));
    world.reconnect(1);
    world.write(0, 1, "after a position that was made up");
    // A log-in that claims more than was ever acknowledged looks like a restored store: new keys, and on it goes.
    world.people[1].hand = claiming_read_upto(|| Position(u64::MAX));
    world.reconnect(1);
    world.people[1].hand = Box::new(|frame| vec![frame]);
    world.reconnect(1);
    world.reconnect(0);
    world.write(0, 1, "after a log-in that was made up");
    world.pass(5_000);
    let shown = world.shown(1);
    assert_eq!(shown, ["hello", "after a position that was made up", "after a log-in that was made up"]);
}

/// HR-22, NW: an inbox full of envelopes of made-up senders. Look-ups stay few at once, a relay that asks to wait with
/// look-ups does not hold up messages, and what was held up is shown in the end.
#[test]
fn a_flood_of_made_up_senders_holds_nothing_up() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let (position, real) = intercept(&mut world, 0, 1, "under the flood");
    let junk = |n: u64| {
        let mut altered = real.clone();
        // The envelope id and the sender's hint are made up; the rest may stay.
        let id = Entry::decode(&real).unwrap().envelope.0;
        let at = real.windows(16).position(|window| window == id).unwrap();
        altered[at..at + 8].copy_from_slice(&n.to_be_bytes());
        let Body::Inline(body) = Entry::decode(&real).unwrap().body else { panic!("inline") };
        let sender = Header::parse(&body).unwrap().sender.0;
        let at = real.windows(sender.len()).position(|window| window == sender).unwrap();
        altered[at..at + 8].copy_from_slice(&n.to_be_bytes());
        altered
    };
    world.people[1].events.clear();
    let answers = Rc::new(RefCell::new(Vec::new()));
    let held_back = Rc::clone(&answers);
    world.people[1].hand = Box::new(move |frame| match frame {
        FromRelay::Failed(failed) if failed.code == Code::NotFound => {
            held_back.borrow_mut().push(failed);
            vec![]
        }
        other => vec![other],
    });
    let all = |world: &World| world.people[1].sent.iter().filter(|f| matches!(f, ToRelay::Lookup { .. })).count();
    let before = all(&world);
    let lookups = |world: &World| all(world) - before;
    let flood = 300;
    for n in 0..flood {
        deliver(&mut world, 1, Position(position.0 + n), junk(n));
    }
    assert_eq!(lookups(&world), SENDER_LOOKUPS_IN_FLIGHT_MAX);
    // The relay has had enough: look-ups wait, messages do not.
    let late = answers.borrow_mut().drain(..).collect::<Vec<_>>();
    for mut failed in late {
        (failed.code, failed.retry_after_ms) = (Code::RateLimited, 30_000);
        world.inject(1, FromRelay::Failed(failed));
    }
    assert_eq!(lookups(&world), SENDER_LOOKUPS_IN_FLIGHT_MAX, "asked again at once");
    world.write(1, 0, "sent meanwhile");
    assert_eq!(world.shown(0), ["hello to you", "sent meanwhile"]);
    deliver(&mut world, 1, Position(position.0 + flood), real.clone());
    assert_eq!(world.shown(1), ["hello", "under the flood"]);
    world.people[1].hand = Box::new(|frame| vec![frame]);
    world.pass(400_000);
    let rejected = |event: &&Event| matches!(event, Event::Quarantined { reason: QuarantineReason::UnknownSender, .. });
    assert_eq!(world.people[1].events.iter().filter(rejected).count() as u64, flood);
    assert!(!world.people[1].saw(|event| matches!(event, Event::Disconnected { .. })));
}

/// D2, L7: authentic, but further behind than the replay window reaches. What was shown is a duplicate; what was not is
/// quarantined with its reason. Nothing ends silently.
#[test]
fn what_comes_too_late_is_shown_once_or_quarantined() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let (alice, bob) = (secrets(&world, 0), secrets(&world, 1));
    let key = bob.direct_key(Suite::X25519);
    let session = DirectSession::derive(&alice, bob.device_id(), &key, Direction::Sending).unwrap();
    let seal = |counter: u32, text: &str| {
        let content = Content::of([counter as u8; 16], Part::Text(text.into())).encode();
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(u64::from(counter));
        let id = EnvelopeId([counter as u8; 16]);
        Entry::direct(id, session.seal(id, counter, &content, &mut rng).unwrap()).encode()
    };
    world.reconnect(1);
    world.people[1].events.clear();
    let late = |world: &World| {
        let late = |event: &&Event| matches!(event, Event::Quarantined { reason: QuarantineReason::TooLate, .. });
        world.people[1].events.iter().filter(late).count()
    };
    let shown = seal(20, "in time");
    let mut next = Position(100);
    for entry in [shown.clone(), seal(20 + 2 * REPLAY_WINDOW, "newest"), shown, seal(21, "too late")] {
        deliver(&mut world, 1, next, entry);
        next = next.next();
    }
    assert_eq!(world.shown(1), ["hello", "in time", "newest"]);
    assert_eq!(late(&world), 1, "{:?}", world.people[1].events);
    // Altered as well: rejected like anything altered.
    let mut altered = seal(22, "altered");
    *altered.last_mut().unwrap() ^= 1;
    deliver(&mut world, 1, next, altered);
    assert!(world.people[1].saw(|e| matches!(e, Event::Quarantined { reason: QuarantineReason::Rejected, .. })));
}
