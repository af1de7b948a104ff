//! Old stores that come back (D3, N3), and relays that lost what they had (L11).

use sealwire_engine::*;
use sealwire_wire::frame::FromRelay;
use sealwire_wire::{InstanceId, Position};

use crate::world::{World, claiming_read_upto};

/// D3, N3: a store that is older than its last log-in makes new direct keys before it sends, and messages flow again
/// both ways; what was sealed to the old keys and not delivered comes again.
#[test]
fn a_restored_store_makes_new_keys_and_goes_on() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let old = world.people[1].disk.clone();
    world.reconnect(1);
    world.write(0, 1, "seen by the newer store");
    world.reconnect(1);
    world.cut(1);
    world.write(0, 1, "waits for whichever");
    let keys = world.people[1].disk[&(Table::Own, b"secrets".to_vec())].clone();
    world.restart_with(1, old);
    world.pass(10_000);
    assert!(world.people[1].saw(|event| *event == Event::StoreRestored));
    assert_ne!(world.people[1].disk[&(Table::Own, b"secrets".to_vec())], keys, "new keys");
    world.pass(700_000);
    assert!(world.shown(1).contains(&"waits for whichever".to_owned()), "{:?}", world.shown(1));
    world.write(1, 0, "back again");
    world.pass(10_000);
    assert!(world.shown(0).contains(&"back again".to_owned()));
    assert!(world.people[0].saw(|event| matches!(event, Event::ContactChanged { .. })));
}

/// N3: not automatically more than once a day: two copies of one store would take turns. The person decides.
#[test]
fn a_second_restored_store_within_a_day_waits_for_the_person() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let old = world.people[1].disk.clone();
    world.reconnect(1);
    world.reconnect(1);
    world.restart_with(1, old.clone());
    world.pass(10_000);
    world.people[1].events.clear();
    world.reconnect(1);
    world.restart_with(1, old);
    world.pass(10_000);
    assert!(world.people[1].saw(|event| *event == Event::StoreConflict));
    assert!(!world.people[1].saw(|event| *event == Event::StoreRestored));
    world.command(1, Command::Reclaim).unwrap();
    world.pass(10_000);
    assert!(world.people[1].saw(|event| *event == Event::StoreRestored));
    world.write(1, 0, "it is me");
    world.pass(10_000);
    assert!(world.shown(0).contains(&"it is me".to_owned()));
}

/// L11: a relay that was restored from a backup gets again what it had accepted and lost.
#[test]
fn what_a_restored_relay_lost_is_sent_again() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let backup = world.store.snapshot();
    world.cut(1);
    let number = world.write(0, 1, "accepted, then lost by the relay");
    assert_eq!(world.state(0, number), Some(MessageState::Accepted));
    world.store.restore(&backup);
    world.renew_relay(InstanceId([2; 16]));
    world.pass(10_000);
    assert!(world.people[0].saw(|event| *event == Event::RelayRestored));
    assert_eq!(world.shown(1), ["hello", "accepted, then lost by the relay"]);
}

/// L11, N3: a connection that is cut between the relay's `Hello` and its answer to the log-in leaves nothing behind that
/// looks like a restored store later: no new keys, and what was lost is still sent again.
#[test]
fn a_cut_behind_hello_does_not_look_like_a_restored_store() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let backup = world.store.snapshot();
    let read = world.write(0, 1, "read, then lost by the relay");
    world.pass(6_000);
    assert_eq!(world.state(0, read), Some(MessageState::Delivered));
    world.store.restore(&backup);
    for person in &mut world.people {
        // The log-in's answer never comes.
        person.hand = Box::new(|frame| match frame {
            FromRelay::LoggedIn(_) => vec![],
            other => vec![other],
        });
    }
    world.renew_relay(InstanceId([2; 16]));
    world.pass(2_000);
    for person in 0..2 {
        world.people[person].hand = Box::new(|frame| vec![frame]);
        world.reconnect(person);
    }
    for person in &world.people {
        assert!(!person.saw(|event| *event == Event::StoreRestored), "{:?}", person.events);
        assert!(person.saw(|event| *event == Event::RelayRestored));
    }
    world.write(0, 1, "after");
    assert_eq!(world.shown(1), ["hello", "read, then lost by the relay", "after"]);
}

/// L7, L11: in a relay's restored store positions begin again. What is held from the old one is not overwritten by what
/// comes at the same position of the new one (simulation, seed 261 of the commit that adds this).
#[test]
fn what_is_held_survives_a_restored_relay() {
    let mut world = World::of(&["alice", "bob", "carol"]);
    let backup = world.store.snapshot();
    // Bob holds both: who sent them stays unanswered.
    let deaf = |world: &mut World| {
        world.people[1].hand = Box::new(|frame| match frame {
            FromRelay::Found { .. } => vec![],
            other => vec![other],
        });
    };
    deaf(&mut world);
    world.write(0, 1, "from alice");
    // Alice is away from here on: nobody repeats hers.
    world.people[0].hand = Box::new(|_| vec![]);
    world.store.restore(&backup);
    world.renew_relay(InstanceId([2; 16]));
    world.pass(5_000);
    world.write(2, 1, "from carol");
    world.people[1].hand = Box::new(|frame| vec![frame]);
    world.reconnect(1);
    let mut shown = world.shown(1);
    shown.sort();
    assert_eq!(shown, ["from alice", "from carol"]);
}

/// L11: a relay that was restored from a backup of before somebody had registered does not make what was accepted for
/// them unsendable: it arrives once they are back.
#[test]
fn what_a_relay_lost_with_its_receiver_arrives_when_they_are_back() {
    let (mut world, number) = World::that_lost_a_receiver();
    assert_eq!(world.state(0, number), Some(MessageState::Queued));
    // What is written now is for somebody whom the relay does not know, and that is said.
    let unknown = world.write(0, 1, "written while nobody has that handle");
    world.pass(310_000);
    assert_eq!(world.state(0, unknown), Some(MessageState::Unsent));
    assert_eq!(world.state(0, number), Some(MessageState::Queued));
    world.people[1].hand = Box::new(|frame| vec![frame]);
    world.reconnect(1);
    world.pass(310_000);
    assert_eq!(world.shown(1), ["accepted, then lost with its receiver"]);
}

/// L11: a backup that was put back without saying so: positions that were read are given again, to other messages. None
/// of them is passed over.
#[test]
fn a_backup_that_was_put_back_silently_loses_nothing() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let backup = world.store.snapshot();
    for number in 0..5 {
        world.write(0, 1, &format!("before {number}"));
    }
    world.pass(6_000);
    world.store.restore(&backup);
    world.cut(0);
    world.cut(1);
    world.pass(5_000);
    world.write(0, 1, "after");
    world.pass(5_000);
    assert_eq!(world.shown(1).last().unwrap(), "after");
    assert_eq!(world.shown(1).len(), 7, "{:?}", world.shown(1));
}

/// D3, L11: a store that was put back, and a relay that was put back further: the relay gets the account log's entries
/// that it lost, then the store gets its new keys.
#[test]
fn a_restored_store_at_a_restored_relay_finds_its_way_back() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let (backup, first) = (world.store.snapshot(), world.people[1].disk.clone());
    let restart = |world: &mut World, disk| {
        world.cut(1);
        world.restart_with(1, disk);
        world.pass(10_000);
    };
    // New keys, once; and again two days later, which an even older store then learns of.
    world.reconnect(1);
    world.reconnect(1);
    restart(&mut world, first);
    let second = world.people[1].disk.clone();
    world.now = world.now.plus(2 * sealwire_wire::limits::DAY_MS);
    world.reconnect(1);
    world.reconnect(1);
    restart(&mut world, second.clone());
    world.people[1].events.clear();
    restart(&mut world, second);
    assert!(world.people[1].saw(|event| *event == Event::StoreConflict), "within a day, a person decides");
    world.store.restore(&backup);
    world.renew_relay(InstanceId([2; 16]));
    world.now = world.now.plus(2 * sealwire_wire::limits::DAY_MS);
    world.pass(20_000);
    assert!(world.people[1].saw(|event| *event == Event::StoreRestored), "{:?}", world.people[1].events);
    world.write(1, 0, "back");
    world.pass(10_000);
    assert!(world.shown(0).contains(&"back".to_owned()));
}

/// S5: a relay that says of a store that it was put back, twice, and then tells the truth: on a new connection messages
/// flow at once, on the same one within an hour.
#[test]
fn a_lie_about_what_was_read_ends_with_the_liar() {
    let lie = |world: &mut World| {
        let mut read_upto = 1 << 40;
        world.people[1].hand = claiming_read_upto(move || {
            read_upto += 1;
            Position(read_upto)
        });
    };
    for on_the_same in [false, true] {
        let mut world = World::of(&["alice", "bob"]);
        world.befriend(0, 1);
        lie(&mut world);
        world.reconnect(1);
        world.pass(5_000);
        assert!(world.people[1].saw(|event| *event == Event::StoreConflict), "{:?}", world.people[1].events);
        world.people[1].hand = Box::new(|frame| vec![frame]);
        if !on_the_same {
            world.reconnect(1);
        }
        world.write(0, 1, "through");
        world.pass(if on_the_same { 3_700_000 } else { 400_000 });
        assert!(world.shown(1).contains(&"through".to_owned()), "{on_the_same}: {:?}", world.shown(1));
        world.write(1, 0, "and back");
        world.pass(10_000);
        assert!(world.shown(0).contains(&"and back".to_owned()));
    }
}
