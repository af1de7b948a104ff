//! Old stores that come back (D3, N3), and relays that lost what they had (L11).

use sealwire_engine::*;
use sealwire_wire::InstanceId;
use sealwire_wire::frame::FromRelay;

use crate::world::World;

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
