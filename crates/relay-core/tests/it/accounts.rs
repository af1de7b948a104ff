use sealwire_keys::{Change, SignedEntry};
use sealwire_relay_core::{Registration, invite};
use sealwire_store::{Outcome, Store};
use sealwire_wire::frame::{FromRelay, LookupBy, ToRelay};
use sealwire_wire::limits::ACCOUNT_ENTRIES_MAX;
use sealwire_wire::{Code, DeviceHint, Time};

use crate::device::Device;
use crate::world::World;

fn by_handle(handle: &str) -> ToRelay {
    ToRelay::Lookup { request: 9, by: LookupBy::Handle(handle.to_owned()) }
}

#[test]
fn an_account_is_found_by_handle_account_and_device() {
    let mut world = World::new();
    let mut device = Device::new(1);
    let id = world.register(&mut device, "Alice");
    let found = FromRelay::Found {
        request: 9,
        handle: "alice".to_owned(),
        entries: vec![device.log.entries()[0].0.clone()],
        devices: vec![(device.id(), device.inbox)],
    };
    let bys = [
        LookupBy::Handle("ALICE".to_owned()),
        LookupBy::Account(device.log.id()),
        LookupBy::Device(device.id().hint()),
    ];
    for by in bys {
        assert_eq!(world.ask(id, &ToRelay::Lookup { request: 9, by }), std::slice::from_ref(&found));
    }
    let strangers = [
        LookupBy::Handle("bob".to_owned()),
        LookupBy::Handle("not a handle".to_owned()),
        LookupBy::Device(DeviceHint([0; 16])),
    ];
    for by in strangers {
        assert_eq!(world.refusal(id, &ToRelay::Lookup { request: 9, by }), Code::NotFound);
    }
}

/// E6, HP-09: who looks like somebody cannot be there, and is not found in their place.
#[test]
fn look_alikes_are_refused() {
    let mut world = World::new();
    let mut alice = Device::new(1);
    let id = world.register(&mut alice, "alice");
    let mallory = Device::new(2);
    let (mallorys, _) = world.log_in(&mallory);
    for handle in ["alice", "ALICE", "\u{430}lice"] {
        assert_eq!(world.refusal(mallorys, &mallory.register(handle)), Code::HandleTaken, "{handle}");
    }
    for handle in ["", "a b", "x@y"] {
        assert_eq!(world.refusal(mallorys, &mallory.register(handle)), Code::HandleRefused, "{handle}");
    }
    assert_eq!(world.refusal(id, &by_handle("\u{430}lice")), Code::NotFound);
    assert_eq!(world.ask(mallorys, &mallory.register("mallory")), [FromRelay::Done { request: 1 }]);
}

#[test]
fn a_registration_may_be_repeated_and_not_changed() {
    let mut world = World::new();
    let mut device = Device::new(1);
    let id = world.register(&mut device, "alice");
    assert_eq!(world.ask(id, &device.register("Alice")), [FromRelay::Done { request: 1 }]);
    assert_eq!(world.refusal(id, &device.register("other")), Code::AlreadyRegistered);
    let (id, _) = world.log_in(&device);
    assert_eq!(world.ask(id, &device.register("alice")), [FromRelay::Done { request: 1 }]);
}

/// The first connection's answer is lost while the second has been told UNREGISTERED.
#[test]
fn a_registration_that_won_elsewhere_is_taken_over() {
    let mut world = World::new();
    let device = Device::new(1);
    let (second, _) = world.log_in(&device);
    // A commit of the first connection comes through only now: the same registration, by another world's hands.
    let mut first = World::with(Registration::Open);
    std::mem::swap(&mut first.store, &mut world.store);
    first.register(&mut device.clone(), "alice");
    std::mem::swap(&mut first.store, &mut world.store);
    assert_eq!(world.ask(second, &device.register("alice")), [FromRelay::Done { request: 1 }]);
    assert!(matches!(world.ask(second, &device.append(device.inbox_log(), 1, 10))[0], FromRelay::Accepted { .. }));
}

#[test]
fn a_closed_relay_takes_nobody_and_an_invite_counts() {
    let mut world = World::with(Registration::Closed);
    let device = Device::new(1);
    let (id, _) = world.log_in(&device);
    assert_eq!(world.refusal(id, &device.register("alice")), Code::RegistrationClosed);

    let mut world = World::with(Registration::Invite);
    assert_eq!(world.store.commit(Time(1), &[invite("CODE", 1)]).unwrap(), [Outcome::Swapped]);
    let with_code = |device: &Device, handle: &str, code: &str| {
        let mut frame = device.register(handle);
        if let ToRelay::Register { invite, .. } = &mut frame {
            *invite = code.to_owned();
        }
        frame
    };
    let (alice, bob) = (Device::new(1), Device::new(2));
    let (alices, bobs) = (world.log_in(&alice).0, world.log_in(&bob).0);
    assert_eq!(world.refusal(alices, &alice.register("alice")), Code::InviteRefused);
    assert_eq!(world.refusal(alices, &with_code(&alice, "alice", "code")), Code::InviteRefused);
    assert_eq!(world.ask(alices, &with_code(&alice, "alice", "CODE")), [FromRelay::Done { request: 1 }]);
    assert_eq!(world.refusal(bobs, &with_code(&bob, "bob", "CODE")), Code::InviteRefused);
}

/// I3: one entry at one position; a repetition is answered like the first time.
#[test]
fn an_account_log_grows_by_compare_and_swap() {
    let mut world = World::new();
    let mut device = Device::new(1);
    let id = world.register(&mut device, "alice");
    let publish = |entry: Vec<u8>| ToRelay::Publish { request: 3, entry, inbox: None };
    let (first, rival) = (device.rotation(10), device.rotation(12));
    assert_eq!(world.ask(id, &publish(first.0.clone())), [FromRelay::Done { request: 3 }]);
    assert_eq!(world.ask(id, &publish(first.0.clone())), [FromRelay::Done { request: 3 }]);
    assert_eq!(world.refusal(id, &publish(rival.0)), Code::HeadMoved);
    assert_eq!(world.refusal(id, &publish(vec![1, 2, 3])), Code::EntryRefused);
    device.log.append(first).unwrap();
    let mut forged = device.rotation(12).0;
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(world.refusal(id, &publish(forged)), Code::EntryRefused);
}

/// I2: so many entries, at the limit and one past it, and all of them are found.
#[test]
fn an_account_log_is_bounded() {
    let mut world = World::new();
    let mut device = Device::new(1);
    let id = world.register(&mut device, "alice");
    let publish = |entry: &SignedEntry| ToRelay::Publish { request: 3, entry: entry.0.clone(), inbox: None };
    for number in 1..ACCOUNT_ENTRIES_MAX {
        // There is a rate, too.
        world.now = world.now.plus(2_000);
        let entry = device.rotation(10 + (number % 200) as u8);
        assert_eq!(world.ask(id, &publish(&entry)), [FromRelay::Done { request: 3 }], "{number}");
        device.log.append(entry).unwrap();
    }
    world.now = world.now.plus(2_000);
    assert_eq!(world.refusal(id, &publish(&device.rotation(9))), Code::TooLarge);
    let found = &world.ask(id, &by_handle("alice"))[0];
    assert!(matches!(found, FromRelay::Found { entries, .. } if entries.len() == ACCOUNT_ENTRIES_MAX));
    assert_eq!(FromRelay::decode(&found.encode()).as_ref(), Ok(found), "it fits into a frame");
}

#[test]
fn a_retired_account_is_found_and_gets_nothing() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Device::new(1), Device::new(2));
    let alices = world.register(&mut alice, "alice");
    let bobs = world.register(&mut bob, "bob");
    let retire = ToRelay::Publish { request: 3, entry: alice.entry(Change::Retire).0, inbox: None };
    assert_eq!(world.ask(alices, &retire), [FromRelay::Done { request: 3 }]);
    assert_eq!(world.ask(alices, &retire), [FromRelay::Done { request: 3 }]);
    assert!(matches!(&world.ask(bobs, &by_handle("alice"))[0], FromRelay::Found { entries, .. } if entries.len() == 2));
    assert_eq!(world.refusal(bobs, &bob.append(alice.inbox_log(), 1, 10)), Code::Retired);
}
