use sealwire_wire::frame::{FromRelay, ToRelay};
use sealwire_wire::limits::WATCHED_TOKENS_MAX;
use sealwire_wire::{Code, PresenceToken};

use crate::device::Device;
use crate::world::World;

/// A2: whoever shows the token is told, at once and on each change; off is off.
#[test]
fn who_has_the_token_sees_who_comes_and_goes() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Device::new(1), Device::new(2));
    let (alices, bobs) = (world.register(&mut alice, "alice"), world.register(&mut bob, "bob"));
    let token = PresenceToken([5; 16]);
    let says = |online| vec![FromRelay::Presence { token, online }];

    assert_eq!(world.ask(bobs, &ToRelay::Watch { tokens: vec![token, token] }), says(false));
    assert_eq!(world.ask(alices, &ToRelay::SetPresence { token: Some(token) }), []);
    assert_eq!(world.take(bobs), says(true));
    world.drop(alices);
    assert_eq!(world.take(bobs), says(false));
    // The token is the account's: it need not be said again.
    let (alices, _) = world.log_in(&alice);
    assert_eq!(world.take(bobs), says(true));

    assert_eq!(world.ask(alices, &ToRelay::SetPresence { token: None }), []);
    assert_eq!(world.take(bobs), says(false));
    assert_eq!(world.ask(bobs, &ToRelay::Watch { tokens: vec![] }), []);
    assert_eq!(world.ask(alices, &ToRelay::SetPresence { token: Some(token) }), []);
    assert_eq!(world.take(bobs), []);
}

/// A2: an account has one token, and nobody takes another's.
#[test]
fn a_token_belongs_to_one_account() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Device::new(1), Device::new(2));
    let (alices, bobs) = (world.register(&mut alice, "alice"), world.register(&mut bob, "bob"));
    let (first, second) = (PresenceToken([5; 16]), PresenceToken([6; 16]));
    assert_eq!(world.ask(alices, &ToRelay::SetPresence { token: Some(first) }), []);
    assert_eq!(world.refusal(bobs, &ToRelay::SetPresence { token: Some(first) }), Code::NotAllowed);
    assert_eq!(world.ask(alices, &ToRelay::SetPresence { token: Some(second) }), []);
    // The first one is free again.
    assert_eq!(world.ask(bobs, &ToRelay::SetPresence { token: Some(first) }), []);
}

/// A2: so many tokens are watched on a connection, at the limit and one past it; the list before stays then.
#[test]
fn watched_tokens_are_bounded() {
    let mut world = World::new();
    let mut alice = Device::new(1);
    let id = world.register(&mut alice, "alice");
    let watch = |count: usize| {
        let token = |number: usize| {
            let mut token = [0; 16];
            token[..8].copy_from_slice(&(number as u64).to_be_bytes());
            PresenceToken(token)
        };
        ToRelay::Watch { tokens: (0..count).map(token).collect() }
    };
    assert_eq!(world.ask(id, &watch(WATCHED_TOKENS_MAX)).len(), WATCHED_TOKENS_MAX);
    assert_eq!(world.refusal(id, &watch(WATCHED_TOKENS_MAX + 1)), Code::TooLarge);
    assert_eq!(world.ask(id, &ToRelay::SetPresence { token: Some(PresenceToken([0; 16])) }).len(), 1);
}
