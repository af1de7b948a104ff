//! Old stores that come back (D3, N3), and relays that lost what they had (L11).

use sealwire_engine::*;
use sealwire_wire::InstanceId;

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
    world.store.renew_instance(InstanceId([2; 16]));
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let relay =
        sealwire_relay_core::Relay::new("relay", key, InstanceId([2; 16]), sealwire_relay_core::Registration::Open);
    world.relay = std::sync::Arc::new(relay);
    world.reconnect(0);
    world.pass(10_000);
    assert!(world.people[0].saw(|event| *event == Event::RelayRestored));
    assert_eq!(world.shown(1), ["hello", "accepted, then lost by the relay"]);
}
