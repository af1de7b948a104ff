//! Outbox and inbox between honest parties.

use sealwire_engine::*;
use sealwire_wire::content::Part;
use sealwire_wire::limits::MESSAGE_MAX;

use crate::world::{World, load};

/// M2: a stranger looks a person up and writes first, while that person is away.
#[test]
fn a_first_message_reaches_somebody_who_is_away() {
    let mut world = World::of(&["alice", "bob"]);
    world.cut(1);
    let number = world.write(0, 1, "are you there?");
    assert_eq!(world.state(0, number), Some(MessageState::Accepted));
    world.pass(5_000);
    assert_eq!(world.shown(1), ["are you there?"]);
    assert!(world.people[1].saw(|event| matches!(event, Event::Request(_))));
}

/// L8: queued, accepted, delivered, read; the last two only from sealed receipts.
#[test]
fn a_message_goes_through_its_states() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    world.cut(0);
    let number = world.write(0, 1, "later");
    assert_eq!(world.state(0, number), Some(MessageState::Queued));
    world.pass(3_000);
    assert_eq!(world.state(0, number), Some(MessageState::Accepted));
    world.pass(6_000);
    assert_eq!(world.state(0, number), Some(MessageState::Delivered));
    let Some(Event::Message(message)) = world.people[1].events.iter().find(|e| matches!(e, Event::Message(_))).cloned()
    else {
        panic!("bob was not told")
    };
    world.command(1, Command::MarkRead(vec![(message.from, message.id)])).unwrap();
    world.pass(6_000);
    assert_eq!(world.state(0, number), Some(MessageState::Read));
}

/// HP-02: a stranger learns nothing by waiting: no receipt before the request is accepted, and then one.
#[test]
fn a_stranger_learns_nothing_before_acceptance() {
    let mut world = World::of(&["alice", "bob"]);
    let number = world.write(0, 1, "hello");
    let before = world.people[1].appends().len();
    world.pass(60_000);
    assert_eq!(world.people[1].appends().len(), before, "bob's device says nothing");
    assert_eq!(world.state(0, number), Some(MessageState::Accepted));
    let alice = world.account(0);
    world.command(1, Command::Accept(alice)).unwrap();
    world.pass(6_000);
    assert_eq!(world.state(0, number), Some(MessageState::Delivered));
}

/// L4: after a lost answer the same sealed bytes go again under the same envelope id, and are shown once.
#[test]
fn unanswered_bytes_go_again_unchanged() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    world.people[0].hand = Box::new(|frame| match frame {
        sealwire_wire::frame::FromRelay::Accepted { .. } => vec![],
        other => vec![other],
    });
    world.people[0].sent.clear();
    let number = world.write(0, 1, "once");
    assert_eq!(world.state(0, number), Some(MessageState::Queued));
    world.people[0].hand = Box::new(|frame| vec![frame]);
    world.reconnect(0);
    let appends = world.people[0].appends();
    assert_eq!(appends.len(), 2);
    assert_eq!(appends[0], appends[1]);
    assert_eq!(world.shown(1), ["hello", "once"]);
}

/// The outbox survives a restart, and so does what was received but not acknowledged by the application.
#[test]
fn nothing_is_lost_over_a_restart() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    world.cut(0);
    world.write(0, 1, "written offline");
    let disk = world.people[0].disk.clone();
    world.restart_with(0, disk);
    world.pass(3_000);
    assert_eq!(world.shown(1), ["hello", "written offline"]);
    let unshown = world.people[1].disk.keys().filter(|(table, _)| *table == Table::Unshown).count();
    assert_eq!(unshown, 2, "told again at the next start, until the application has processed them");
}

/// C12: up to 16 KiB with padding, and a named refusal beyond; bytes come back as they were.
#[test]
fn bytes_up_to_the_limit_and_a_refusal_beyond() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let mut send = |length: usize| {
        let part = Part::Bytes { media_type: String::new(), bytes: vec![0xa5; length] };
        let to = To::Handle(world.people[1].handle.clone());
        world.command(0, Command::Send { to, part, in_reply_to: None })
    };
    let longest = (MESSAGE_MAX - 200..MESSAGE_MAX).rev().find(|length| send(*length).is_ok()).unwrap();
    assert!(matches!(send(longest + 1), Err(Refusal::TooLarge(_))));
    let is_it = |event: &Event| {
        matches!(event, Event::Message(Incoming { content, .. })
            if matches!(&content.part, Part::Bytes { bytes, .. } if *bytes == vec![0xa5; longest]))
    };
    assert!(world.people[1].saw(is_it), "{longest}");
}

/// A failed load is an error and never "empty".
#[test]
fn a_damaged_store_is_an_error() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let disk = &world.people[0].disk;
    for key in disk.keys().filter(|(table, _)| Table::LOADED.contains(table)) {
        let mut damaged = disk.clone();
        damaged.insert(key.clone(), vec![1]);
        assert!(matches!(load(&damaged), Err(LoadError::Damaged(_))), "{key:?}");
        damaged.insert(key.clone(), vec![200, 1, 2, 3]);
        assert!(matches!(load(&damaged).err(), Some(LoadError::Newer | LoadError::Damaged(_))), "{key:?}");
    }
    assert!(matches!(load(&Default::default()), Err(LoadError::Empty)));
}

/// A2: presence by capability: who was accepted is told, a stranger is not, and blocking takes it back.
#[test]
fn presence_is_for_those_who_were_given_the_token() {
    let mut world = World::of(&["alice", "bob", "carol"]);
    world.befriend(0, 1);
    world.write(2, 0, "a stranger");
    let watched = |world: &World, person: usize| {
        world.people[person].sent.iter().rev().find_map(|frame| match frame {
            sealwire_wire::frame::ToRelay::Watch { tokens } => Some(tokens.len()),
            _ => None,
        })
    };
    assert_eq!(watched(&world, 1), Some(1), "bob watches alice");
    assert_eq!(watched(&world, 2), Some(0), "carol was given nothing");
    let bob = world.account(1);
    let before = world.people[0].sent.len();
    world.command(0, Command::Block(bob)).unwrap();
    let changed = world.people[0].sent[before..]
        .iter()
        .any(|frame| matches!(frame, sealwire_wire::frame::ToRelay::SetPresence { token: Some(_) }));
    assert!(changed, "the token that bob holds means nothing any more");
}
