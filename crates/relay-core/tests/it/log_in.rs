use sealwire_relay_core::{Input, Registration};
use sealwire_wire::frame::{FromRelay, LoggedIn, ToRelay};
use sealwire_wire::{Code, InstanceId};

use crate::device::Device;
use crate::world::{World, only_code, relay};

fn standing(answer: &FromRelay) -> &'static str {
    match answer {
        FromRelay::LoggedIn(LoggedIn::Unregistered) => "UNREGISTERED",
        FromRelay::LoggedIn(LoggedIn::Registered { restored: false, .. }) => "ACTIVE",
        FromRelay::LoggedIn(LoggedIn::Registered { restored: true, .. }) => "RESTORED",
        other => panic!("{other:?}"),
    }
}

/// NW-01: a log-in is good for one challenge, one relay by name and key, one origin, one TLS connection.
#[test]
fn a_log_in_that_was_made_elsewhere_is_refused() {
    let mut world = World::new();
    let device = Device::new(1);
    let elsewhere = world.open();
    let hello = world.hello(elsewhere);
    let refused =
        |world: &mut World, change: &dyn Fn(&mut sealwire_wire::frame::Hello), origin: &str, binding: &[u8]| {
            let id = world.open();
            let mut hello = world.hello(id);
            change(&mut hello);
            let code = world.refusal(id, &device.log_in(&hello, origin, binding));
            assert_eq!(world.closed(id), Some("BAD_SIGNATURE"));
            assert_eq!(code, Code::BadSignature);
        };
    refused(&mut world, &|mine| mine.challenge = hello.challenge, "", b"");
    refused(&mut world, &|mine| mine.relay_name = "other.example".to_owned(), "", b"");
    refused(&mut world, &|mine| mine.relay_key = [9; 32], "", b"");
    refused(&mut world, &|_| (), "https://evil.example", b"");
    refused(&mut world, &|_| (), "", &[5; 32]);
    // And the same log-in, unchanged, is good here.
    assert_eq!(standing(&world.ask(elsewhere, &device.log_in(&hello, "", b""))[0]), "UNREGISTERED");
}

/// NW-01: a replayed signature with another device's key, or with other incarnations, does not verify.
#[test]
fn every_field_of_a_log_in_is_signed() {
    let device = Device::new(1);
    let other = Device::new(2);
    for field in 0..4 {
        let mut world = World::new();
        let id = world.open();
        let mut frame = device.log_in(&world.hello(id), "", b"");
        let ToRelay::LogIn { device_key, incarnation, pending, signature, .. } = &mut frame else { unreachable!() };
        match field {
            0 => {
                let hello = world.hello(id);
                let ToRelay::LogIn { device_key: theirs, .. } = other.log_in(&hello, "", b"") else { unreachable!() };
                *device_key = theirs;
            }
            1 => incarnation.0[0] ^= 1,
            2 => pending.0[0] ^= 1,
            _ => signature[0] ^= 1,
        }
        assert_eq!(world.refusal(id, &frame), Code::BadSignature, "field {field}");
    }
}

/// N1: a relay that ends TLS itself wants the exporter, but from browsers, which have none.
#[test]
fn the_exporter_is_required_where_there_is_one() {
    let (exporter, wrong) = ([3; 32], [4; 32]);
    let device = Device::new(1);
    let log_in = |origin: Option<&str>, sent: &[u8]| {
        let mut world = World::new();
        let id = world.open_with(origin, Some(exporter));
        let frame = device.log_in(&world.hello(id), origin.unwrap_or(""), sent);
        world.ask(id, &frame)
    };
    assert_eq!(only_code(&log_in(None, b"")), Code::BindingRequired);
    assert_eq!(only_code(&log_in(None, &wrong)), Code::BadSignature);
    assert_eq!(only_code(&log_in(Some("https://app.example"), &wrong)), Code::BadSignature);
    assert_eq!(standing(&log_in(None, &exporter)[0]), "UNREGISTERED");
    assert_eq!(standing(&log_in(Some("https://app.example"), b"")[0]), "UNREGISTERED");
}

#[test]
fn who_does_not_log_in_in_time_is_closed() {
    let mut world = World::new();
    let id = world.open();
    world.now = world.now.plus(sealwire_wire::limits::LOG_IN_DEADLINE_MS);
    world.give(id, Input::Tick);
    assert_eq!(world.closed(id), None);
    world.now = world.now.plus(1);
    world.give(id, Input::Tick);
    assert_eq!(world.closed(id), Some("WRONG_ORDER"));
}

/// N2.
#[test]
fn the_newest_connection_of_a_device_wins() {
    let mut world = World::new();
    let mut device = Device::new(1);
    let older = world.register(&mut device, "alice");
    let (newer, answer) = world.log_in(&device);
    assert_eq!(standing(&answer), "ACTIVE");
    assert_eq!((world.closed(older), world.closed(newer)), (Some("REPLACED"), None));
}

/// N3: a client that crashes before it has seen the answer comes back with what is confirmed, one that has seen it
/// with what is pending, however often.
#[test]
fn no_crash_and_no_lost_answer_locks_a_device_out() {
    for seen in 0..64_u32 {
        let mut world = World::new();
        let mut device = Device::new(1);
        world.register(&mut device, "alice");
        for round in 0..6 {
            let (_, answer) = world.log_in(&device);
            assert_eq!(standing(&answer), "ACTIVE", "{seen:b}, round {round}");
            if seen & (1 << round) != 0 {
                device.commit_incarnation();
            } else {
                // It draws another pending one, as a client that starts anew does.
                device.pending.0[15] ^= 0x55;
            }
        }
    }
}

/// N3: a client commits before it sends; its first frame says so, and a store of before that log-in is an old one.
#[test]
fn the_first_frame_confirms_a_log_in() {
    let mut world = World::new();
    let mut device = Device::new(1);
    world.register(&mut device, "alice");
    let (id, _) = world.log_in(&device);
    let before = device.clone();
    device.commit_incarnation();
    world.ask(id, &ToRelay::Watch { tokens: vec![] });
    assert_eq!(standing(&world.log_in(&before).1), "RESTORED");
    assert_eq!(standing(&world.log_in(&device).1), "ACTIVE");
}

/// N3, D3: an older store is RESTORED, may read and publish, and nothing else until it has new keys.
#[test]
fn a_restored_store_publishes_new_keys_first() {
    let mut world = World::new();
    let mut device = Device::new(1);
    world.register(&mut device, "alice");
    let backup = device.clone();
    for _ in 0..2 {
        world.log_in(&device);
        device.commit_incarnation();
    }
    let mut device = backup;
    let (id, answer) = world.log_in(&device);
    assert_eq!(standing(&answer), "RESTORED");
    assert_eq!(world.refusal(id, &device.append(device.inbox_log(), 1, 10)), Code::Restored);
    assert_eq!(world.refusal(id, &ToRelay::Watch { tokens: vec![] }), Code::Restored);
    let rotation = device.rotation(10).0;
    let publish = ToRelay::Publish { request: 5, entry: rotation, inbox: None };
    assert_eq!(world.ask(id, &publish), [FromRelay::Done { request: 5 }]);

    // The answer was lost: it comes back with what is confirmed, and is active.
    let (id, answer) = world.log_in(&device);
    assert_eq!(standing(&answer), "ACTIVE");
    // The answer was seen: it sends, and comes back with what was pending.
    device.commit_incarnation();
    assert!(matches!(world.ask(id, &device.append(device.inbox_log(), 1, 10))[0], FromRelay::Accepted { .. }));
    assert_eq!(standing(&world.log_in(&device).1), "ACTIVE");
}

/// N3: a restored device whose new keys are there already (it repeats what it had published) goes on, too.
#[test]
fn a_repeated_rotation_ends_the_restored_standing() {
    let mut world = World::new();
    let mut device = Device::new(1);
    let id = world.register(&mut device, "alice");
    let backup = device.clone();
    let publish = ToRelay::Publish { request: 5, entry: device.rotation(10).0, inbox: None };
    assert_eq!(world.ask(id, &publish), [FromRelay::Done { request: 5 }]);
    for _ in 0..2 {
        world.log_in(&device);
        device.commit_incarnation();
    }
    let (id, answer) = world.log_in(&backup);
    assert_eq!(standing(&answer), "RESTORED");
    assert_eq!(world.ask(id, &publish), [FromRelay::Done { request: 5 }]);
    assert_eq!(standing(&world.log_in(&backup).1), "ACTIVE");
}

/// N3: after a change of the relay's instance id any incarnation is taken.
#[test]
fn a_restored_relay_takes_any_incarnation() {
    let mut world = World::new();
    let mut device = Device::new(1);
    world.register(&mut device, "alice");
    device.committed.0 = [0xee; 16];
    assert_eq!(standing(&world.log_in(&device).1), "RESTORED");
    world.store.renew_instance(InstanceId([2; 16]));
    world.relay = relay(crate::world::NAME, 7, InstanceId([2; 16]), Registration::Open);
    assert_eq!(standing(&world.log_in(&device).1), "ACTIVE");
}
