//! Several devices of one account (I2, I5), and the meetings in which they are linked.

use sealwire_keys::Change;
use sealwire_wire::frame::{FromRelay, LoggedIn, LookupBy, ToRelay};
use sealwire_wire::limits::MEETING_FRAMES_MAX;
use sealwire_wire::{Code, MeetingId};

use crate::device::Device;
use crate::world::{Id, World, only_code};

const DONE: FromRelay = FromRelay::Done { request: 3 };

/// Alice's phone and her laptop, which it has added.
fn two_devices(world: &mut World) -> (Device, Id, Device, Id) {
    let (mut phone, mut laptop) = (Device::talking(1), Device::talking(2));
    let phones = world.register(&mut phone, "alice");
    let entry = phone.adds(&laptop);
    let publish = ToRelay::Publish { request: 3, entry: entry.0.clone(), inbox: Some(laptop.inbox) };
    assert_eq!(world.ask(phones, &publish), [DONE]);
    phone.log.append(entry).unwrap();
    laptop.log = phone.log.clone();
    let (laptops, answer) = world.log_in(&laptop);
    let FromRelay::LoggedIn(LoggedIn::Registered { account, inbox, account_entries, .. }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!((account, inbox, account_entries), (phone.log.id(), laptop.inbox, 2));
    laptop.commit_incarnation();
    (phone, phones, laptop, laptops)
}

fn publish(entry: sealwire_keys::SignedEntry) -> ToRelay {
    ToRelay::Publish { request: 3, entry: entry.0, inbox: None }
}

fn package(number: u8) -> ToRelay {
    ToRelay::PublishKeyPackages { request: 3, replace: false, one_time: vec![vec![number]], last_resort: None }
}

/// I2: a device that is added logs in as one of the account, and is found with it.
#[test]
fn a_device_that_is_added_is_one_of_the_account() {
    let mut world = World::new();
    let (phone, phones, laptop, laptops) = two_devices(&mut world);
    let found = &world.ask(laptops, &ToRelay::Lookup { request: 9, by: LookupBy::Device(laptop.id().hint()) })[0];
    let FromRelay::Found { handle, devices, .. } = found else { panic!("{found:?}") };
    assert_eq!((handle.as_str(), devices), ("alice", &vec![(phone.id(), phone.inbox), (laptop.id(), laptop.inbox)]));
    // Either goes on with the log, and the other has to build on that.
    let rotation = |device: &Device| device.entry(Change::RotateDevice { device: device.id(), direct: vec![] });
    assert_eq!(world.ask(laptops, &publish(rotation(&laptop))), [DONE]);
    assert_eq!(world.refusal(phones, &publish(rotation(&phone))), Code::HeadMoved);
}

/// I2: an inbox comes with the device that it is for, and is nobody else's.
#[test]
fn a_device_is_added_with_its_inbox() {
    let mut world = World::new();
    let (mut phone, laptop, mut bob) = (Device::talking(1), Device::talking(2), Device::new(3));
    let phones = world.register(&mut phone, "alice");
    world.register(&mut bob, "bob");
    let add = |inbox| ToRelay::Publish { request: 3, entry: phone.adds(&laptop).0, inbox };
    assert_eq!(world.refusal(phones, &add(None)), Code::Malformed);
    let rotation = phone.entry(Change::RotateDevice { device: phone.id(), direct: vec![] });
    let with_inbox = ToRelay::Publish { request: 3, entry: rotation.0, inbox: Some(laptop.inbox) };
    assert_eq!(world.refusal(phones, &with_inbox), Code::Malformed);
    assert_ne!(world.ask(phones, &add(Some(bob.inbox))), [DONE]);
    assert_eq!(world.ask(phones, &add(Some(laptop.inbox))), [DONE]);
    assert_eq!(world.ask(phones, &add(Some(laptop.inbox))), [DONE], "again");
}

/// K1: a claim is of all devices but the caller's own, or of one alone.
#[test]
fn key_packages_are_of_the_devices_that_are_asked_for() {
    let mut world = World::new();
    let (phone, phones, laptop, laptops) = two_devices(&mut world);
    for number in 1..=3 {
        assert_eq!(world.ask(phones, &package(number)), [DONE]);
        assert_eq!(world.ask(laptops, &package(number + 10)), [DONE]);
    }
    let account = phone.log.id();
    let mut claim = |id, device| {
        let claim = ToRelay::ClaimKeyPackages { request: 3, account, device };
        let FromRelay::KeyPackages { packages, .. } = world.ask(id, &claim).remove(0) else { panic!() };
        packages.into_iter().map(|package| (package.device, package.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(claim(phones, None), [(laptop.id(), vec![11])]);
    assert_eq!(claim(phones, Some(laptop.id())), [(laptop.id(), vec![12])]);
    assert_eq!(claim(laptops, Some(phone.id())), [(phone.id(), vec![1])]);
    assert_eq!(claim(laptops, Some(Device::new(9).id())), []);
}

/// N2: a device that is revoked is told at once and at each log-in; nothing is written to it, and nothing of it handed out.
#[test]
fn a_revoked_device_is_out() {
    let mut world = World::new();
    let (phone, phones, laptop, laptops) = two_devices(&mut world);
    world.ask(laptops, &package(1));
    let revoke = phone.entry(Change::RevokeDevice { device: laptop.id() });
    assert_eq!(world.ask(phones, &publish(revoke.clone())), [DONE]);
    assert_eq!(only_code(&world.take(laptops)), Code::DeviceRevoked);
    assert_eq!(world.closed(laptops), Some("DEVICE_REVOKED"));
    let (again, answer) = world.log_in(&laptop);
    assert_eq!(only_code(&[answer]), Code::DeviceRevoked);
    assert_eq!(world.closed(again), Some("DEVICE_REVOKED"));
    assert_eq!(world.refusal(phones, &phone.append(laptop.inbox_log(), 1, 10)), Code::Retired);
    let claim = ToRelay::ClaimKeyPackages { request: 3, account: phone.log.id(), device: Some(laptop.id()) };
    assert_eq!(world.ask(phones, &claim), [FromRelay::KeyPackages { request: 3, packages: vec![] }]);
    assert_eq!(world.ask(phones, &publish(revoke)), [DONE], "again");
}

/// I2: an account that retires ends for all of its devices; the one that says so hears that it is done.
#[test]
fn an_account_retires_with_all_devices() {
    let mut world = World::new();
    let (phone, phones, laptop, laptops) = two_devices(&mut world);
    let mut bob = Device::new(3);
    let bobs = world.register(&mut bob, "bob");
    assert_eq!(world.ask(laptops, &publish(laptop.entry(Change::Retire))), [DONE]);
    assert_eq!((world.closed(laptops), world.closed(phones)), (None, Some("DEVICE_REVOKED")));
    for inbox in [phone.inbox_log(), laptop.inbox_log()] {
        assert_eq!(world.refusal(bobs, &bob.append(inbox, 1, 10)), Code::Retired);
    }
}

fn meet(byte: u8, bytes: &[u8]) -> ToRelay {
    ToRelay::Meet { request: 3, meeting: MeetingId([byte; 16]), bytes: bytes.to_vec() }
}

/// I5: what one says in a meeting, the other hears, and nobody else. A connection is not without bounds there.
#[test]
fn two_devices_meet() {
    let mut world = World::new();
    let mut phone = Device::talking(1);
    let phones = world.register(&mut phone, "alice");
    let (new, third) = (world.log_in(&Device::talking(2)).0, world.log_in(&Device::talking(3)).0);
    let met = |bytes: &[u8]| FromRelay::Met { meeting: MeetingId([5; 16]), bytes: bytes.to_vec() };
    assert_eq!(world.refusal(new, &meet(5, b"early")), Code::NotFound);
    assert_eq!(world.ask(phones, &meet(5, b"")), [DONE]);
    assert_eq!(world.ask(new, &meet(5, b"hello")), [DONE]);
    assert_eq!(world.take(phones), [met(b"hello")]);
    assert_eq!(world.ask(phones, &meet(5, b"who are you")), [DONE]);
    assert_eq!(world.take(new), [met(b"who are you")]);
    assert_eq!(world.refusal(third, &meet(5, b"me too")), Code::NotFound);
    assert!(world.take(phones).is_empty() && world.take(new).is_empty());
    for _ in 3..=MEETING_FRAMES_MAX {
        assert_eq!(world.ask(new, &meet(5, b"more")), [DONE]);
    }
    assert_eq!(world.refusal(new, &meet(5, b"too much")), Code::RateLimited);
}
