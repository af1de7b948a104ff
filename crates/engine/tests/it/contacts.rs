//! Who somebody is: pinned accounts, verified contacts, handles that move.

use sealwire_engine::*;
use sealwire_wire::Code;
use sealwire_wire::frame::{Failed, FromRelay, ToRelay};

use crate::world::World;

/// The relay answers every look-up of bob with mallory's keys, under bob's name.
fn answer_with_mallory(world: &mut World, mallory: usize) {
    use std::cell::RefCell;
    use std::rc::Rc;
    let caught = Rc::new(RefCell::new(None));
    let keep = Rc::clone(&caught);
    world.people[0].hand = Box::new(move |frame| {
        if let FromRelay::Found { entries, devices, .. } = &frame {
            *keep.borrow_mut() = Some((entries.clone(), devices.clone()));
        }
        vec![frame]
    });
    let handle = world.people[mallory].handle.clone();
    world.command(0, Command::Find(handle)).unwrap();
    let (theirs, their_devices) = caught.borrow_mut().take().unwrap();
    let by_handle = Rc::clone(&world.people[0].by_handle);
    world.people[0].hand = Box::new(move |frame| match frame {
        FromRelay::Found { request, handle, .. } if handle == "bob" && by_handle.borrow().contains(&request) => {
            vec![FromRelay::Found { request, handle, entries: theirs.clone(), devices: their_devices.clone() }]
        }
        other => vec![other],
    });
}

/// HR-01: keys that changed under the handle of a verified contact block sending until the person decides, reversibly.
#[test]
fn a_verified_contact_is_not_replaced_without_the_person() {
    let mut world = World::of(&["alice", "bob", "mallory"]);
    world.befriend(0, 1);
    let (bob, mallory) = (world.account(1), world.account(2));
    world.command(0, Command::SetVerified(bob, true)).unwrap();
    answer_with_mallory(&mut world, 2);
    world.cut(0);
    world.write(0, 1, "only for bob's eyes");
    world.pass(5_000);
    let changed =
        Event::IdentityChanged { handle: world.people[1].handle.clone(), from: bob, to: mallory, blocks: true };
    assert!(world.people[0].saw(|event| *event == changed));
    assert!(world.shown(2).is_empty() && world.shown(1) == ["hello"], "nothing left");
    let to = To::Handle(world.people[1].handle.clone());
    let part = sealwire_wire::content::Part::Text("more".into());
    let refused = world.command(0, Command::Send { to, part, in_reply_to: None });
    assert!(matches!(refused, Err(Refusal::IdentityChanged(_))));
    // The person stays with the one that was verified: what waited goes there.
    let handle = world.people[1].handle.clone();
    world.command(0, Command::Decide { handle: handle.clone(), adopt: false }).unwrap();
    world.pass(5_000);
    assert_eq!(world.shown(1), ["hello", "only for bob's eyes"]);
    assert!(world.shown(2).is_empty());
    assert_eq!(world.command(0, Command::Decide { handle, adopt: true }), Err(Refusal::NothingToDecide));
}

/// An unverified contact: the handle's new account is adopted with an event, and what was written before stays with
/// the account that it was written to (HR-04).
#[test]
fn an_unverified_handle_moves_with_an_event() {
    let mut world = World::of(&["alice", "bob", "mallory"]);
    world.befriend(0, 1);
    answer_with_mallory(&mut world, 2);
    world.cut(0);
    world.write(0, 1, "written before");
    world.pass(5_000);
    assert!(world.people[0].saw(|event| matches!(event, Event::IdentityChanged { blocks: false, .. })));
    assert_eq!(world.shown(1), ["hello", "written before"]);
    assert!(world.shown(2).is_empty());
}

/// HR-01: that an unverified handle has moved is stored, whether or not anybody saw the event; the person may take it
/// back, or say that they know.
#[test]
fn a_moved_handle_stays_told_until_the_person_decides() {
    for adopt in [true, false] {
        let mut world = World::of(&["alice", "bob", "mallory"]);
        world.befriend(0, 1);
        answer_with_mallory(&mut world, 2);
        world.cut(0);
        world.write(0, 1, "makes the relay be asked");
        world.pass(5_000);
        // Nobody looks at events here, and the process ends.
        world.people[0].events.clear();
        let disk = world.people[0].disk.clone();
        world.restart_with(0, disk);
        assert!(world.contact(0, 1).handle_moved);
        let handle = world.people[1].handle.clone();
        world.people[0].hand = Box::new(|frame| vec![frame]);
        world.command(0, Command::Decide { handle: handle.clone(), adopt }).unwrap();
        assert!(!world.contact(0, 1).handle_moved);
        assert_eq!(world.command(0, Command::Decide { handle, adopt }), Err(Refusal::NothingToDecide));
        world.write(0, 1, "to whom?");
        world.pass(5_000);
        let (bob, mallory) = (world.shown(1), world.shown(2));
        let at_mallory = mallory.contains(&"to whom?".to_owned());
        assert_eq!((at_mallory, bob.contains(&"to whom?".to_owned())), (adopt, !adopt), "{bob:?} {mallory:?}");
    }
}

/// A look-up that is answered with somebody else is answered, too.
#[test]
fn a_look_up_that_is_answered_falsely_is_answered() {
    let mut world = World::of(&["alice", "bob"]);
    world.people[0].hand = Box::new(|frame| match frame {
        FromRelay::Found { request, entries, devices, .. } => {
            vec![FromRelay::Found { request, handle: "carol".into(), entries, devices }]
        }
        other => vec![other],
    });
    let handle = world.people[1].handle.clone();
    assert_eq!(world.command(0, Command::Find(handle.clone())), Err(Refusal::BadAnswer(handle)));
}

/// Verifying is reversible, and comes from the two account ids alone (I2).
#[test]
fn safety_numbers_are_the_same_on_both_sides() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    assert_eq!(world.contact(0, 1).safety_number, world.contact(1, 0).safety_number);
    let bob = world.account(1);
    world.command(0, Command::SetVerified(bob, true)).unwrap();
    assert!(world.contact(0, 1).verified);
    world.command(0, Command::SetVerified(bob, false)).unwrap();
    assert!(!world.contact(0, 1).verified);
}

/// HR-02: an answer whose log does not verify, or is shorter than the pinned one, is ignored with an event.
#[test]
fn an_account_log_that_does_not_verify_is_ignored() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let before = world.contact(0, 1);
    world.people[0].hand = Box::new(|frame| match frame {
        FromRelay::Found { request, handle, mut entries, devices } => {
            *entries[0].last_mut().unwrap() ^= 1;
            vec![FromRelay::Found { request, handle, entries, devices }]
        }
        other => vec![other],
    });
    world.cut(0);
    world.write(0, 1, "waits");
    world.pass(5_000);
    assert!(world.people[0].saw(|event| matches!(event, Event::BadAnswer { .. })));
    assert_eq!(world.contact(0, 1), before);
    world.people[0].hand = Box::new(|frame| vec![frame]);
    world.reconnect(0);
    assert_eq!(world.shown(1), ["hello", "waits"]);
}

/// A blocked contact: nothing of theirs is shown, and they are not told.
#[test]
fn what_a_blocked_contact_sends_is_dropped() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let bob = world.account(1);
    world.command(0, Command::Block(bob)).unwrap();
    let number = world.write(1, 0, "let me in");
    world.pass(30_000);
    assert_eq!(world.shown(0), ["hello to you"]);
    assert_eq!(world.state(1, number), Some(MessageState::Accepted));
    world.command(0, Command::Unblock(bob)).unwrap();
    world.write(1, 0, "thanks");
    assert_eq!(world.shown(0), ["hello to you", "thanks"]);
}

/// An account can be ended: contacts are told when they write next, and nothing reaches it any more.
#[test]
fn a_retired_account_gets_nothing() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    assert_eq!(world.command(1, Command::Retire), Ok(Reply::Done));
    world.reconnect(0);
    let to = To::Handle(world.people[1].handle.clone());
    let part = sealwire_wire::content::Part::Text("still there?".into());
    let sent = world.command(0, Command::Send { to, part, in_reply_to: None });
    world.pass(2_000);
    let number = match sent {
        Ok(Reply::Queued(number)) => number,
        Err(Refusal::ContactRetired) => return,
        other => panic!("{other:?}"),
    };
    assert_eq!(world.state(0, number), Some(MessageState::Unsent));
    assert!(world.people[0].saw(|event| matches!(event, Event::ContactRetired { .. })));
}

/// A handle that nobody has: the message says so, and is not sent to anybody else later.
#[test]
fn nobody_there_is_said() {
    let mut world = World::of(&["alice", "bob"]);
    world.people[1].handle = sealwire_wire::handle::Handle::parse("nobody@relay").unwrap();
    let number = world.write(0, 1, "hello?");
    assert_eq!(world.state(0, number), Some(MessageState::Unsent));
    let reason = |event: &Event| matches!(event, Event::State { reason: Some(UnsentReason::NotFound), .. });
    assert!(world.people[0].saw(reason));
}

/// N1: a relay with another name or another key than the pinned one gets no log-in.
#[test]
fn another_relay_gets_no_log_in() {
    for change in [0, 1] {
        let mut world = World::of(&["alice"]);
        world.people[0].sent.clear();
        world.people[0].hand = Box::new(move |frame| match frame {
            FromRelay::Hello(mut hello) => {
                if change == 0 {
                    hello.relay_name = "other".into()
                } else {
                    hello.relay_key[0] ^= 1
                }
                vec![FromRelay::Hello(hello)]
            }
            other => vec![other],
        });
        world.reconnect(0);
        assert!(world.people[0].saw(|event| matches!(event, Event::LogIn(_))));
        assert!(!world.people[0].sent.iter().any(|frame| matches!(frame, sealwire_wire::frame::ToRelay::LogIn { .. })));
    }
}

/// HR-03: a relay that calls carol alice: carol is shown by her account, bob is told, and whom bob knows as alice stays
/// alice. The same for bob's own handle.
#[test]
fn nobody_is_shown_by_anothers_handle() {
    for claimed in ["alice", "bob"] {
        let mut world = World::of(&["alice", "bob", "carol"]);
        world.befriend(0, 1);
        let (alice, carol) = (world.account(0), world.account(2));
        world.people[1].hand = Box::new(move |frame| match frame {
            FromRelay::Found { request, handle, entries, devices } if handle == "carol" => {
                vec![FromRelay::Found { request, handle: claimed.into(), entries, devices }]
            }
            other => vec![other],
        });
        world.write(2, 1, "it is me, send the money");
        let request = world.people[1].events.iter().find_map(|event| match event {
            Event::Request(request) => Some(request.message.clone()),
            _ => None,
        });
        let request = request.expect("a stranger wrote");
        assert_eq!((request.from, request.handle), (carol, None), "{claimed}");
        assert_eq!(world.contact(1, 2).handle, None);
        let told = |event: &Event| matches!(event, Event::HandleClaimed { account, .. } if *account == carol);
        assert!(world.people[1].saw(told));
        // Accepting her does not give her the handle, nor does the record of the request.
        world.command(1, Command::Accept(carol)).unwrap();
        let disk = world.people[1].disk.clone();
        world.restart_with(1, disk);
        world.write(1, 0, "to alice");
        world.pass(5_000);
        assert_eq!((world.contact(1, 2).handle, world.contact(1, 0).account), (None, alice));
        assert_eq!(world.shown(0), ["hello to you", "to alice"]);
        assert!(world.shown(2).is_empty());
    }
}

/// HR-01: once the person has adopted a handle's new account, the old one is not shown by it any more.
#[test]
fn an_adopted_handle_leaves_its_old_account() {
    let mut world = World::of(&["alice", "bob", "mallory"]);
    world.befriend(0, 1);
    let bob = world.account(1);
    world.command(0, Command::SetVerified(bob, true)).unwrap();
    answer_with_mallory(&mut world, 2);
    world.cut(0);
    world.write(0, 1, "for whoever has the handle");
    world.pass(5_000);
    let handle = world.people[1].handle.clone();
    world.command(0, Command::Decide { handle: handle.clone(), adopt: true }).unwrap();
    assert_eq!((world.contact(0, 1).handle, world.contact(0, 2).handle), (None, Some(handle)));
}

/// A block that is taken back leaves what was before it: who was a stranger still has to be accepted, and whoever was not
/// blocked is not accepted by unblocking.
#[test]
fn unblocking_accepts_nobody() {
    let mut world = World::of(&["alice", "bob"]);
    world.write(0, 1, "hello");
    let alice = world.account(0);
    world.command(1, Command::Unblock(alice)).unwrap();
    assert!(!world.contact(1, 0).accepted);
    world.command(1, Command::Block(alice)).unwrap();
    let disk = world.people[1].disk.clone();
    world.restart_with(1, disk);
    assert!(world.contact(1, 0).blocked);
    world.command(1, Command::Unblock(alice)).unwrap();
    assert!(!world.contact(1, 0).accepted && !world.contact(1, 0).blocked);
    world.pass(30_000);
    assert!(world.people[1].appends().is_empty(), "a stranger learns nothing");
}

/// HR-01, C12: receipts that cannot go because the person has to decide first stay owed, and do not fill the outbox.
#[test]
fn receipts_wait_for_the_decision_too() {
    let mut world = World::of(&["alice", "bob", "mallory"]);
    world.befriend(0, 1);
    let bob = world.account(1);
    world.command(0, Command::SetVerified(bob, true)).unwrap();
    answer_with_mallory(&mut world, 2);
    world.cut(0);
    world.write(0, 1, "asks who has the handle");
    world.pass(5_000);
    let queued = |world: &World| world.people[0].disk.keys().filter(|(table, _)| *table == Table::Outgoing).count();
    let before = queued(&world);
    let numbers: Vec<u64> = (0..20).map(|n| world.write(1, 0, &n.to_string())).collect();
    world.pass(30_000);
    assert_eq!(queued(&world), before);
    let handle = world.people[1].handle.clone();
    world.command(0, Command::Decide { handle, adopt: false }).unwrap();
    world.pass(30_000);
    assert_eq!(world.state(1, numbers[19]), Some(MessageState::Delivered));
}

/// An answer about a contact that is worth nothing is not asked for again at once, and neither is one that was refused.
#[test]
fn a_useless_answer_is_not_asked_for_again_at_once() {
    for refuse in [false, true] {
        let mut world = World::of(&["alice", "bob"]);
        world.befriend(0, 1);
        world.people[0].hand = Box::new(move |frame| match frame {
            FromRelay::Found { request, .. } if refuse => vec![FromRelay::Failed(Failed {
                code: Code::TooLarge,
                request,
                envelope: None,
                retry_after_ms: 0,
                text: String::new(),
            })],
            FromRelay::Found { request, handle, devices, .. } => {
                vec![FromRelay::Found { request, handle, entries: vec![], devices }]
            }
            other => vec![other],
        });
        world.cut(0);
        world.people[0].sent.clear();
        world.write(0, 1, "waits");
        world.pass(20_000);
        let asked = world.people[0].sent.iter().filter(|frame| matches!(frame, ToRelay::Lookup { .. })).count();
        assert!((1..=20).contains(&asked), "{asked}");
        world.people[0].hand = Box::new(|frame| vec![frame]);
        world.pass(400_000);
        assert_eq!(world.shown(1), ["hello", "waits"], "asked again later, without a new connection");
    }
}
