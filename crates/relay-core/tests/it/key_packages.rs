//! Key packages (K1): who publishes, who claims, how often.

use sealwire_keys::Change;
use sealwire_store::Store;
use sealwire_wire::frame::{FromRelay, KeyPackage, LoggedIn, ToRelay};
use sealwire_wire::limits::{CLAIMS_BURST, CLAIMS_PER_MINUTE, FRAME_MAX, KEY_PACKAGE_MAX, KEY_PACKAGES_MAX};
use sealwire_wire::{AccountId, Code, Incarnation};

use crate::device::Device;
use crate::world::{Id, World};

struct Two {
    world: World,
    alice: Device,
    alices: Id,
    bob: Device,
    bobs: Id,
}

fn two() -> Two {
    let mut world = World::new();
    let (mut alice, mut bob) = (Device::new(1), Device::new(2));
    let (alices, bobs) = (world.register(&mut alice, "alice"), world.register(&mut bob, "bob"));
    Two { world, alice, alices, bob, bobs }
}

fn publish(one_time: Vec<Vec<u8>>, last_resort: Option<u8>) -> ToRelay {
    let last_resort = last_resort.map(|byte| vec![byte; 30]);
    ToRelay::PublishKeyPackages { request: 4, replace: false, one_time, last_resort }
}

/// So many, each of which tells its number.
fn numbered(numbers: std::ops::Range<u8>) -> Vec<Vec<u8>> {
    numbers.map(|number| vec![number; 30]).collect()
}

fn claim(of: &Device) -> ToRelay {
    ToRelay::ClaimKeyPackages { request: 5, account: of.log.id(), device: None }
}

fn claimed(of: &Device, byte: u8, is_last_resort: bool) -> [FromRelay; 1] {
    let package = KeyPackage { device: of.id(), inbox: of.inbox, bytes: vec![byte; 30], is_last_resort };
    [FromRelay::KeyPackages { request: 5, packages: vec![package] }]
}

const DONE: [FromRelay; 1] = [FromRelay::Done { request: 4 }];
const NONE: [FromRelay; 1] = [FromRelay::KeyPackages { request: 5, packages: Vec::new() }];

/// K1: each once, then the flagged last-resort one; C9: the device is away meanwhile, and hears nothing of it.
#[test]
fn each_is_claimed_once_then_the_last_resort_one() {
    let Two { mut world, alice, alices, bob, bobs } = two();
    assert_eq!(world.ask(alices, &claim(&bob)), NONE);
    assert_eq!(world.ask(bobs, &publish(numbered(1..3), Some(9))), DONE);
    assert_eq!(world.ask(alices, &claim(&bob)), claimed(&bob, 1, false));
    assert_eq!(world.take(bobs), [], "to be invited is silent");
    world.drop(bobs);
    assert_eq!(world.ask(alices, &claim(&bob)), claimed(&bob, 2, false));
    for _ in 0..2 {
        assert_eq!(world.ask(alices, &claim(&bob)), claimed(&bob, 9, true));
    }
    assert_eq!(world.ask(alices, &claim(&alice)), NONE, "another's are not hers");
}

/// K1: a log-in tells how many are left, so that the device publishes more.
#[test]
fn a_log_in_tells_how_many_are_left() {
    let Two { mut world, alices, bob, bobs, .. } = two();
    world.ask(bobs, &publish(numbered(0..5), Some(9)));
    world.ask(alices, &claim(&bob));
    world.drop(bobs);
    let (_, answer) = world.log_in(&bob);
    assert!(matches!(answer, FromRelay::LoggedIn(LoggedIn::Registered { key_packages: 4, restored: false, .. })));
}

/// K1: who replaces leaves nothing of what was there.
#[test]
fn who_replaces_leaves_nothing_of_before() {
    let Two { mut world, alices, bob, bobs, .. } = two();
    world.ask(bobs, &publish(numbered(0..5), Some(9)));
    let replace =
        ToRelay::PublishKeyPackages { request: 4, replace: true, one_time: numbered(7..8), last_resort: None };
    assert_eq!(world.ask(bobs, &replace), DONE);
    assert_eq!(world.ask(alices, &claim(&bob)), claimed(&bob, 7, false));
    assert_eq!(world.ask(alices, &claim(&bob)), NONE);
}

/// K1: who is not there is answered like in a look-up; a retired account has none, takes none and keeps none.
#[test]
fn nobody_and_the_retired_have_none() {
    let Two { mut world, alices, bob, bobs, .. } = two();
    let nobody = ToRelay::ClaimKeyPackages { request: 5, account: AccountId([7; 32]), device: None };
    assert_eq!(world.refusal(alices, &nobody), Code::NotFound);
    world.ask(bobs, &publish(numbered(0..5), Some(9)));
    let retire = ToRelay::Publish { request: 3, entry: bob.entry(Change::Retire).0, inbox: None };
    assert_eq!(world.ask(bobs, &retire), [FromRelay::Done { request: 3 }]);
    assert_eq!(world.ask(alices, &claim(&bob)), NONE);
    assert_eq!(world.store.key_packages(bob.id()).unwrap(), 0);
    assert_eq!(world.refusal(bobs, &publish(numbered(0..5), Some(9))), Code::Retired);
}

/// N3: a restored store has old packages' keys, if any: first it publishes new direct keys, like for all else.
#[test]
fn a_restored_device_neither_publishes_nor_claims() {
    let Two { mut world, alice, bobs, bob: mut old, .. } = two();
    world.drop(bobs);
    old.committed = Incarnation([0x55; 16]);
    let (id, answer) = world.log_in(&old);
    assert!(matches!(answer, FromRelay::LoggedIn(LoggedIn::Registered { restored: true, .. })));
    assert_eq!(world.refusal(id, &publish(numbered(0..1), None)), Code::Restored);
    assert_eq!(world.refusal(id, &claim(&alice)), Code::Restored);
    let rotate = ToRelay::Publish { request: 3, entry: old.rotation(10).0, inbox: None };
    assert_eq!(world.ask(id, &rotate), [FromRelay::Done { request: 3 }]);
    assert_eq!(world.ask(id, &publish(numbered(0..1), None)), DONE);
}

/// K1: so many one-time ones, at the limit and one past it, which is refused by name and changes nothing.
#[test]
fn a_device_publishes_so_many() {
    let Two { mut world, alices, bob, bobs, .. } = two();
    let most = KEY_PACKAGES_MAX as u8;
    assert_eq!(world.ask(bobs, &publish(numbered(0..most - 1), Some(9))), DONE);
    let [FromRelay::Failed(failed)] = &world.ask(bobs, &publish(numbered(most..most + 2), Some(8)))[..] else {
        panic!()
    };
    assert_eq!((failed.code, failed.request), (Code::TooLarge, 4));
    assert_eq!(world.store.key_packages(bob.id()).unwrap(), u32::from(most) - 1);
    assert_eq!(world.ask(bobs, &publish(numbered(most..most + 1), None)), DONE);
    assert_eq!(world.refusal(bobs, &publish(numbered(most + 1..most + 2), None)), Code::TooLarge);
    for number in (0..most - 1).chain(most..most + 1) {
        assert_eq!(world.ask(alices, &claim(&bob)), claimed(&bob, number, false));
    }
    assert_eq!(world.ask(alices, &claim(&bob)), claimed(&bob, 9, true));
}

/// K1: the largest package arrives, and one byte more is refused before anything is stored.
#[test]
fn a_package_has_a_size() {
    let Two { mut world, alices, bob, bobs, .. } = two();
    assert_eq!(world.ask(bobs, &publish(vec![vec![1; KEY_PACKAGE_MAX]], None)), DONE);
    assert_eq!(world.refusal(bobs, &publish(vec![vec![2; KEY_PACKAGE_MAX + 1]], None)), Code::TooLarge);
    assert_eq!(world.refusal(bobs, &publish(vec![vec![]], None)), Code::Malformed);
    let answer = world.ask(alices, &claim(&bob));
    let [FromRelay::KeyPackages { packages, .. }] = &answer[..] else { panic!("{answer:?}") };
    assert_eq!(packages[0].bytes, vec![1; KEY_PACKAGE_MAX]);
    assert!(answer[0].encode().len() <= FRAME_MAX);
    assert_eq!(world.ask(alices, &claim(&bob)), NONE);
}

/// K1: a group of 256 accounts begins at once; then claims have a rate, which says when to come again. Another device has
/// its own.
#[test]
fn claims_have_a_rate() {
    let Two { mut world, alice, alices, bob, bobs } = two();
    world.ask(bobs, &publish(vec![], Some(9)));
    for _ in 0..CLAIMS_BURST {
        assert_eq!(world.ask(alices, &claim(&bob)), claimed(&bob, 9, true));
    }
    let [FromRelay::Failed(failed)] = &world.ask(alices, &claim(&bob))[..] else { panic!() };
    assert_eq!((failed.code, failed.request), (Code::RateLimited, 5));
    assert_eq!(failed.retry_after_ms, 60_000 / u64::from(CLAIMS_PER_MINUTE));
    assert_eq!(world.ask(bobs, &claim(&alice)), NONE);
    world.now = world.now.plus(failed.retry_after_ms);
    assert_eq!(world.ask(alices, &claim(&bob)), claimed(&bob, 9, true));
    assert_eq!(world.refusal(alices, &claim(&bob)), Code::RateLimited);
}

/// Publications share the rate of account entries.
#[test]
fn publications_have_a_rate() {
    let Two { mut world, bobs, .. } = two();
    let frame = publish(vec![], Some(9));
    let done = (0..100).take_while(|_| world.ask(bobs, &frame) == DONE).count();
    assert_eq!(done, 30);
    assert_eq!(world.refusal(bobs, &frame), Code::RateLimited);
    world.now = world.now.plus(2_000);
    assert_eq!(world.ask(bobs, &frame), DONE);
}
