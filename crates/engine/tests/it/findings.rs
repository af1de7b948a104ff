//! What a review of conversations has found: each test fails on the code that it was written against.

use std::cell::RefCell;
use std::rc::Rc;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sealwire_engine::*;
use sealwire_keys::{
    AccountEntry, AccountKind, AccountLog, Change as AccountChange, SignedEntry, chain_start, one_to_one, roster_hash,
    sign_entry,
};
use sealwire_relay_core::Input as RelayInput;
use sealwire_session::DeviceSecrets;
use sealwire_session::mls::{
    Changes, Committed, Desk, Evidence, Group, Place, ReceivedKeyPackage, Records, make_readd,
};
use sealwire_store::{Operation, Store as _};
use sealwire_wire::content::{Content, Part};
use sealwire_wire::conversation::{GroupData, ReaddBody, Role, WelcomeBody};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{Delivered, Failed, FromRelay, IdProof, LookupBy, RosterChange, ToRelay, Welcome};
use sealwire_wire::limits::DAY_MS;
use sealwire_wire::{AccountId, Code, ConversationId, EnvelopeId, InboxAddress, InstanceId, LogId, Position, Time};

use crate::world::World;

// Findings 1 and 2: what is said to one is read by another. (Finding 3 is shown in session's mls/tests.rs.)

/// Anybody may name a conversation as it pleases: Mallory begins a group under the id of the conversation of Alice and Bob,
/// before they do.
#[test]
fn nobody_sits_where_a_conversation_of_two_will_be() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "mallory"]);
    let id = one_to_one(world.account(0), world.account(1));
    let mut mallory = Stranger::new(7);
    let (package, log) = (claim(&mut world, 2, 1), look_up(&mut world, 2, 1));
    let (inbox, of_bob) = (world.inbox(2), world.inbox(1));
    let (mut group, made, envelope) = mallory.begin(id, ConversationKind::Group, inbox, package, &log);
    let entry = commit_entry(&made, envelope, Position(0));
    let welcomes = vec![Welcome { inbox: of_bob, entry: welcome_entry(id, &made, envelope) }];
    let (entries, inboxes, proof) = (vec![entry], made.roster.clone(), IdProof::Nonce([0; 16]));
    let create = ToRelay::CreateConversation { request: REQUEST, conversation: id, entries, inboxes, welcomes, proof };
    raw(&mut world, 2, create);
    world.pass(5_000);
    world.write(1, 0, "for alice alone");
    world.pass(120_000);
    group.merge_own(&mut mallory.desk()).unwrap();
    assert_eq!(mallory.opens(&mut group, &world.people[1].appends()), Vec::<String>::new());
    assert_eq!(world.shown(0), ["for alice alone"]);
}

/// What proves a group's id is kept until the group is there: over a process that ends, and a creation whose answer is lost.
#[test]
fn a_group_is_begun_by_the_process_that_comes_next() {
    let hears_nothing: fn(FromRelay) -> Vec<FromRelay> = |_| vec![];
    let hears_of_no_creation: fn(FromRelay) -> Vec<FromRelay> = |frame| match frame {
        FromRelay::Done { .. } => vec![],
        frame => vec![frame],
    };
    for hears in [hears_nothing, hears_of_no_creation] {
        let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
        world.befriend(0, 1);
        world.people[0].hand = Box::new(hears);
        let create = Command::CreateGroup { name: "Lunch".into(), members: vec![world.account(1)] };
        let Ok(Reply::Group(id)) = world.command(0, create) else { panic!("no group") };
        let disk = world.people[0].disk.clone();
        world.people[0].hand = Box::new(|frame| vec![frame]);
        world.restart_with(0, disk);
        world.pass(20_000);
        say(&mut world, 0, id, "hello");
        world.pass(5_000);
        assert!(world.shown(1).contains(&"hello".to_owned()));
        assert!(!world.people[0].saw(|event| matches!(event, Event::Refused { .. })));
    }
}

/// C10: what was said while a device could not read is said again, once it is back, and shown once. Who was in it all the
/// time hears nothing twice.
#[test]
fn who_comes_back_reads_what_it_missed() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    is_out_of_it(&mut world, 2, id, |world| {
        say(world, 0, id, "from alice");
        say(world, 1, id, "from bob");
        say(world, 0, id, "and again");
    });
    say(&mut world, 1, id, "after");
    world.pass(60_000);
    let mut shown = world.shown(2);
    shown.sort();
    assert_eq!(shown, ["after", "and again", "from alice", "from bob"]);
    assert_eq!(world.shown(0), ["from bob", "after"]);
    assert_eq!(world.shown(1), ["from alice", "and again"]);
}

/// C10, S6: what was said before somebody was added is not said again where they hear it.
#[test]
fn nothing_is_said_again_to_who_came_later() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol", "dave"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    let dave = world.account(3);
    let handle = world.people[3].handle.clone();
    world.command(0, Command::Find(handle)).unwrap();
    is_out_of_it(&mut world, 2, id, |world| {
        say(world, 1, id, "before dave");
        world.command(0, Command::Change { conversation: id, change: GroupChange::Add(vec![dave]) }).unwrap();
        world.pass(2_000);
        say(world, 1, id, "with dave");
    });
    assert_eq!(members(&mut world, 2, id), 4);
    assert_eq!(world.shown(2), ["with dave"]);
    assert_eq!(world.shown(3), ["with dave"]);
}

/// C4, L11: a relay that was restored to before a commit leaves no member able to read on, and nobody who could add the
/// others again. The first owner begins the group anew, with the same people, roles and name, and nothing is lost.
#[test]
fn a_group_that_all_have_lost_begins_anew() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    let bob = world.account(1);
    let admin = GroupChange::SetRole(bob, Role::Admin);
    world.command(0, Command::Change { conversation: id, change: admin }).unwrap();
    say(&mut world, 2, id, "before the backup");
    world.pass(10_000);
    let backup = world.store.snapshot();
    say(&mut world, 0, id, "lost by the relay");
    let change = GroupChange::Rename("Dinner".into());
    world.command(0, Command::Change { conversation: id, change }).unwrap();
    world.pass(10_000);
    world.store.restore(&backup);
    world.renew_relay(InstanceId([2; 16]));
    world.pass(300_000);
    say(&mut world, 1, id, "after the backup");
    world.pass(60_000);
    for person in 0..3 {
        let view = view(&mut world, person, id);
        assert_eq!((view.active, view.name.as_str(), view.members.len()), (true, "Dinner", 3), "{person}");
        assert!(view.members.contains(&(bob, Role::Admin)), "{person}");
        assert_eq!(view.authenticator, authenticator(&mut world, 0, id), "{person}");
    }
    assert_eq!(world.shown(0), ["before the backup", "after the backup"]);
    assert_eq!(world.shown(2), ["lost by the relay", "after the backup"]);
}

/// L11: nor is a group lost that a restored relay does not know at all: the device that had begun it begins it again.
#[test]
fn a_group_that_the_relay_has_lost_begins_again() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    world.befriend(0, 1);
    let backup = world.store.snapshot();
    let id = group_of(&mut world, &[0, 1, 2]);
    say(&mut world, 2, id, "lost by the relay");
    world.pass(10_000);
    let away = world.account(2);
    world.people[0].hand = Box::new(|_| vec![]);
    world.cut(0);
    world.store.restore(&backup);
    world.renew_relay(InstanceId([2; 16]));
    world.pass(60 * 60_000);
    say(&mut world, 1, id, "waits for alice");
    world.people[0].hand = Box::new(|frame| vec![frame]);
    world.reconnect(0);
    world.pass(300_000);
    say(&mut world, 2, id, "after the backup");
    world.pass(60_000);
    for person in 0..3 {
        let view = view(&mut world, person, id);
        assert_eq!((view.active, view.members.len()), (true, 3), "{person}");
        assert!(view.members.contains(&(away, Role::Member)));
        assert!(!world.people[person].saw(|event| matches!(event, Event::NotDone { .. })), "{person}");
    }
    assert!(world.shown(0).ends_with(&[
        "lost by the relay".into(),
        "waits for alice".into(),
        "after the backup".into()
    ]));
    assert!(world.shown(2).ends_with(&["waits for alice".into()]));
}

/// The same, where somebody was away all the time, and has not lost it: the others wait for an hour, begin it anew without
/// them, and they follow when they are back.
#[test]
fn a_group_begins_anew_without_who_is_away() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    let backup = world.store.snapshot();
    world.people[2].hand = Box::new(|_| vec![]);
    world.cut(2);
    let change = GroupChange::Rename("Dinner".into());
    world.command(0, Command::Change { conversation: id, change }).unwrap();
    world.pass(10_000);
    world.store.restore(&backup);
    world.renew_relay(InstanceId([2; 16]));
    world.pass(30 * 60_000);
    assert!(!view(&mut world, 0, id).active, "carol could still come, and add them again");
    world.pass(60 * 60_000);
    say(&mut world, 1, id, "without carol");
    world.pass(60_000);
    assert_eq!(world.shown(0), ["without carol"]);
    world.people[2].hand = Box::new(|frame| vec![frame]);
    world.reconnect(2);
    world.pass(300_000);
    say(&mut world, 2, id, "carol is back");
    world.pass(60_000);
    assert_eq!(world.shown(0), ["without carol", "carol is back"]);
    assert_eq!(world.shown(2), ["without carol"]);
}

/// Whom most members have not lost goes on: one who asks, and is not answered, begins nothing.
#[test]
fn one_of_many_begins_nothing_anew() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    for away in [1, 2] {
        world.people[away].hand = Box::new(|_| vec![]);
    }
    loses_its_place(&mut world, 0, id);
    world.pass(3 * 60 * 60_000);
    assert!(!view(&mut world, 0, id).active);
    for back in [1, 2] {
        world.people[back].hand = Box::new(|frame| vec![frame]);
        world.reconnect(back);
    }
    world.pass(60 * 60_000);
    say(&mut world, 1, id, "still here");
    world.pass(60_000);
    assert_eq!(world.shown(0), ["still here"]);
    assert_eq!(world.shown(2), ["still here"]);
}

/// C10, S6: nor is what was asked for before somebody came said when they are there (review of 2026-11-30, finding 1).
#[test]
fn what_was_asked_for_is_not_said_to_who_comes_meanwhile() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol", "dave"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    let dave = world.account(3);
    let handle = world.people[3].handle.clone();
    world.command(0, Command::Find(handle)).unwrap();
    world.people[2].hand = Box::new(|_| vec![]);
    say(&mut world, 1, id, "before dave");
    world.pass(1_000);
    // Bob is away when Carol is back and asks, and when Dave comes.
    world.people[1].hand = Box::new(|_| vec![]);
    world.cut(1);
    world.people[2].hand = Box::new(|frame| vec![frame]);
    loses_its_place(&mut world, 2, id);
    world.pass(60_000);
    world.command(0, Command::Change { conversation: id, change: GroupChange::Add(vec![dave]) }).unwrap();
    world.pass(60_000);
    world.people[1].hand = Box::new(|frame| vec![frame]);
    world.reconnect(1);
    world.pass(120_000);
    assert_eq!(members(&mut world, 1, id), 4);
    assert_eq!(world.shown(3), Vec::<String>::new());
    say(&mut world, 1, id, "with dave");
    world.pass(60_000);
    assert_eq!(world.shown(3), ["with dave"]);
}

/// L5, L11: a relay that is the same, by its own word, and delivers again something else than it had delivered: the person is told,
/// and what was read stands.
#[test]
fn who_rewrites_what_was_read_is_seen() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.befriend(0, 1);
    world.people[1].loses = |frame| matches!(frame, ToRelay::Ack { log: LogId::Conversation(_), .. });
    for text in ["one", "two", "three"] {
        world.write(0, 1, text);
    }
    world.pass(10_000);
    world.people[1].loses = |_| false;
    world.people[1].hand = Box::new(|mut frame| {
        if let FromRelay::Deliver { entries, log: LogId::Conversation(_) } = &mut frame
            && let Some(byte) = entries.first_mut().and_then(|first| first.entry.last_mut())
        {
            *byte ^= 1;
        }
        vec![frame]
    });
    world.reconnect(1);
    world.people[1].hand = Box::new(|frame| vec![frame]);
    world.pass(10_000);
    let bob = world.account(1);
    assert!(world.people[1].saw(|event| matches!(event, Event::OrderContradicted { by, .. } if *by == bob)));
    world.write(0, 1, "four");
    world.pass(10_000);
    assert!(world.shown(1).ends_with(&["one", "two", "three", "four"].map(String::from)));
}

/// C6: who is dropped from the roster by an entry that drops nobody from the group is told, on the next connection. (Restoring
/// the roster is not there yet.)
#[test]
fn who_is_dropped_from_the_roster_is_told() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    let after = Some(view(&mut world, 0, id).read_upto);
    let mut inboxes: Vec<_> = (0..3).map(|person| world.inbox(person)).collect();
    inboxes.sort();
    let before = roster_hash(&inboxes);
    let dropped = world.inbox(1);
    inboxes.retain(|inbox| *inbox != dropped);
    let roster = Some(RosterChange { before, inboxes, welcomes: vec![] });
    let (kind, envelope, body) = (EntryKind::Commit, EnvelopeId([9; 16]), Body::Inline(vec![0]));
    let entry = Entry { kind, after, envelope, body }.encode();
    raw(&mut world, 2, ToRelay::Append { log: LogId::Conversation(id), entry, roster });
    world.pass(5_000);
    assert!(!view(&mut world, 1, id).out);
    world.reconnect(1);
    world.pass(5_000);
    assert!(view(&mut world, 1, id).out);
    assert!(world.people[1].saw(|event| matches!(event, Event::NotDone { .. })));
    assert!(!view(&mut world, 0, id).out && !view(&mut world, 2, id).out);
}

/// C4, L11: where the commits that a restored relay has lost had added somebody, all who are left in its roster ask, and are
/// enough (review of 2026-11-30, finding 4).
#[test]
fn who_is_left_in_a_restored_roster_is_enough() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol", "dave"]);
    let id = group_of(&mut world, &[0, 1]);
    for other in [2, 3] {
        let handle = world.people[other].handle.clone();
        world.command(0, Command::Find(handle)).unwrap();
    }
    world.pass(10_000);
    let backup = world.store.snapshot();
    let both = vec![world.account(2), world.account(3)];
    world.command(0, Command::Change { conversation: id, change: GroupChange::Add(both) }).unwrap();
    world.pass(10_000);
    assert_eq!(members(&mut world, 3, id), 4);
    world.store.restore(&backup);
    world.renew_relay(InstanceId([2; 16]));
    world.pass(30 * 60_000);
    say(&mut world, 3, id, "from dave");
    world.pass(60_000);
    for person in 0..3 {
        assert_eq!(members(&mut world, person, id), 4, "{person}");
        assert!(world.shown(person).contains(&"from dave".to_owned()), "{person}");
    }
}

/// Something happens that somebody does not hear of, and then cannot follow.
fn is_out_of_it(world: &mut World, who: usize, id: ConversationId, happens: impl FnOnce(&mut World)) {
    world.people[who].hand = Box::new(|_| vec![]);
    happens(world);
    world.people[who].hand = Box::new(|frame| vec![frame]);
    loses_its_place(world, who, id);
    world.pass(60_000);
}

/// Whoever sees a Readd may answer it with a group of its own; a relay sees them all, and causes one by one made-up entry.
#[test]
fn who_comes_back_comes_back_to_its_own_group() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol", "mallory"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    for deaf in [0, 2] {
        world.people[deaf].hand = Box::new(|_| vec![]);
    }
    loses_its_place(&mut world, 1, id);
    let readd = readds(&world, 1).pop().expect("bob asks to be added again");
    let mut mallory = Stranger::new(7);
    let log = look_up(&mut world, 3, 1);
    let (inbox, of_bob) = (InboxAddress([7; 16]), world.inbox(1));
    let (mut group, made, envelope) = mallory.begin(id, ConversationKind::Group, inbox, readd.key_package, &log);
    let entry = welcome_entry(id, &made, envelope);
    raw(&mut world, 3, ToRelay::Append { log: LogId::Inbox(of_bob), entry, roster: None });
    world.pass(5_000);
    say(&mut world, 1, id, "for the group alone");
    world.pass(60_000);
    group.merge_own(&mut mallory.desk()).unwrap();
    assert_eq!(mallory.opens(&mut group, &world.people[1].appends()), Vec::<String>::new());
}

// Findings 5 to 8: what one entry does to all members.

/// A Readd ends with its device's removal: it is not wanted for ever, in vain, with all else that is wanted.
#[test]
fn a_readd_does_not_outlive_a_removal() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    let carol = world.account(2);
    for deaf in [0, 1] {
        world.people[deaf].hand = Box::new(|_| vec![]);
    }
    loses_its_place(&mut world, 2, id);
    world.command(0, Command::Change { conversation: id, change: GroupChange::Remove(carol) }).unwrap();
    for hears in [0, 1] {
        world.people[hears].hand = Box::new(|frame| vec![frame]);
        world.reconnect(hears);
    }
    world.pass(60_000);
    assert_eq!(members(&mut world, 0, id), 2);
    world.command(0, Command::Change { conversation: id, change: GroupChange::Rename("Dinner".into()) }).unwrap();
    world.pass(60_000);
    assert_eq!(view(&mut world, 1, id).name, "Dinner", "no commit can be made any more");
}

/// A Readd that was answered is answered no more: one that is repeated, by a member or the relay, locks its device out.
#[test]
fn a_readd_is_answered_once() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    loses_its_place(&mut world, 1, id);
    world.pass(10_000);
    say(&mut world, 1, id, "back");
    world.pass(5_000);
    assert_eq!(world.shown(0), ["back"]);
    let readd = readds(&world, 1).pop().unwrap();
    append_readd(&mut world, 2, id, readd.encode());
    world.pass(30_000);
    say_or_not(&mut world, 1, id, "still here").unwrap();
    world.pass(60_000);
    assert_eq!(world.shown(0), ["back", "still here"]);
}

/// A Readd of a device that no account lists is nobody's: it sets off no commit.
#[test]
fn a_readd_of_nobody_sets_off_nothing() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    let mut nobody = Stranger::new(7);
    let alice = world.account(0);
    let (_, body) = make_readd(&mut nobody.desk(), Suite::Classical, id, alice, InboxAddress([9; 16])).unwrap();
    let before = epoch(&mut world, 1, id);
    append_readd(&mut world, 2, id, body);
    world.pass(600_000);
    let after = epoch(&mut world, 1, id);
    assert!(after <= before + 1, "{} commits in ten minutes", after - before);
}

/// C2: which commits are valid is the same for all. Whoever has blocked a member hears that it leaves all the same.
#[test]
fn blocking_somebody_splits_no_group() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol", "dave"]);
    let id = group_of(&mut world, &[0, 1, 2, 3]);
    let carol = world.account(2);
    world.command(3, Command::Block(carol)).unwrap();
    // Not the owner, who may remove anybody.
    world.people[0].hand = Box::new(|_| vec![]);
    world.cut(0);
    world.command(2, Command::Change { conversation: id, change: GroupChange::Leave }).unwrap();
    world.pass(120_000);
    assert_eq!(authenticator(&mut world, 3, id), authenticator(&mut world, 1, id));
}

/// C2: a member that came between a Readd and its answer judges the answer like the others.
#[test]
fn who_joins_behind_a_readd_judges_its_answer_like_all() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol", "dave"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    let dave = world.account(3);
    let handle = world.people[3].handle.clone();
    world.command(0, Command::Find(handle)).unwrap();
    world.people[1].hand = Box::new(|_| vec![]);
    // Alice does not see the Readd before her own commit is in.
    world.people[0].hand = Box::new(|frame| match frame {
        FromRelay::Deliver { log: LogId::Conversation(_), .. } => vec![],
        frame => vec![frame],
    });
    loses_its_place(&mut world, 2, id);
    world.command(0, Command::Change { conversation: id, change: GroupChange::Add(vec![dave]) }).unwrap();
    world.people[0].hand = Box::new(|_| vec![]);
    world.cut(0);
    world.people[1].hand = Box::new(|frame| vec![frame]);
    world.reconnect(1);
    world.pass(60_000);
    assert_eq!(members(&mut world, 1, id), 4);
    assert_eq!(authenticator(&mut world, 3, id), authenticator(&mut world, 1, id));
}

// Findings 4, 9, 10 and 14 to 16: dead ends.

/// C9: whoever published key packages three months ago can be invited.
#[test]
fn key_packages_that_are_handed_out_can_be_opened() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.now = world.now.plus(91 * DAY_MS);
    for person in 0..2 {
        world.reconnect(person);
    }
    world.write(0, 1, "after three months");
    world.pass(120_000);
    assert_eq!(world.shown(1), ["after three months"]);
}

/// D3, C9: after a store was put back, the key packages of the newer one are not handed out.
#[test]
fn key_packages_of_a_lost_store_are_withdrawn() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol", "dave"]);
    let disk = world.people[1].disk.clone();
    // Three of Bob's four are used, and he publishes new ones.
    for _ in 0..3 {
        claim(&mut world, 2, 1);
    }
    world.reconnect(1);
    world.restart_with(1, disk);
    world.pass(60_000);
    for from in [0, 3] {
        world.write(from, 1, "hello");
    }
    world.pass(120_000);
    assert_eq!(world.shown(1), ["hello", "hello"]);
}

/// L11: a conversation that a restored relay does not know is not the end of it.
#[test]
fn a_relay_that_was_restored_ends_no_conversation() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    let backup = world.store.snapshot();
    world.befriend(0, 1);
    world.store.restore(&backup);
    world.renew_relay(InstanceId([2; 16]));
    world.pass(60_000);
    world.write(0, 1, "after the backup");
    world.pass(300_000);
    assert!(world.shown(1).contains(&"after the backup".to_owned()), "{:?}", world.shown(1));
}

/// L11: nor does one that knows it as it was before.
#[test]
fn a_relay_that_was_restored_to_a_shorter_log_is_followed() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.befriend(0, 1);
    let backup = world.store.snapshot();
    for i in 0..5 {
        world.write(0, 1, &format!("{i}"));
    }
    world.pass(10_000);
    world.store.restore(&backup);
    world.renew_relay(InstanceId([2; 16]));
    world.pass(60_000);
    world.write(0, 1, "after the backup");
    world.write(1, 0, "and the other way");
    world.pass(60_000);
    assert!(world.shown(1).contains(&"after the backup".to_owned()), "{:?}", world.shown(1));
    assert!(world.shown(0).contains(&"and the other way".to_owned()), "{:?}", world.shown(0));
}

/// S5: where a relay lied about what was read, reading goes on once it is honest.
#[test]
fn a_lie_about_a_logs_read_mark_ends_with_the_liar() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    world.people[1].hand = Box::new(|mut frame| {
        if let FromRelay::Attached { read_upto, length, .. } = &mut frame {
            (*read_upto, *length) = (Position(1_000), Position(1_000));
        }
        vec![frame]
    });
    world.reconnect(1);
    world.people[1].hand = Box::new(|frame| vec![frame]);
    world.reconnect(1);
    say(&mut world, 0, id, "after the lie");
    world.pass(60_000);
    assert_eq!(world.shown(1), ["after the lie"]);
}

/// L9, C10: a device that comes back when a commit is trimmed, and nothing has been said since, does not send what is stale
/// for ever (the model, open O1).
#[test]
fn a_trimmed_commit_is_missed_though_nobody_has_said_anything_since() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    let away = |world: &mut World, person: usize| {
        world.people[person].hand = Box::new(|_| vec![]);
        world.cut(person);
    };
    away(&mut world, 2);
    let change = GroupChange::Rename("Dinner".into());
    world.command(0, Command::Change { conversation: id, change }).unwrap();
    world.pass(10_000);
    away(&mut world, 0);
    away(&mut world, 1);
    world.now = world.now.plus(61 * DAY_MS);
    world.store.commit(world.now, &[Operation::Sweep { most: 1_000 }]).unwrap();
    world.people[2].hand = Box::new(|frame| vec![frame]);
    world.people[2].sent.clear();
    world.reconnect(2);
    say(&mut world, 2, id, "is anybody there?");
    world.pass(300_000);
    assert!(world.people[2].saw(|event| *event == Event::Behind { conversation: id }));
    let sealed = |entry: &&Vec<u8>| Entry::decode(entry).is_ok_and(|entry| entry.kind != EntryKind::Readd);
    assert!(world.people[2].appends().iter().filter(sealed).count() <= 2);
    for person in [0, 1] {
        world.people[person].hand = Box::new(|frame| vec![frame]);
        world.reconnect(person);
    }
    world.pass(120_000);
    assert!(world.shown(0).contains(&"is anybody there?".to_owned()));
}

/// L11: what one device has confirmed, and another of its account has not read, is not lost with the relay's backup (O2).
#[test]
fn what_one_device_has_confirmed_reaches_the_other() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.befriend(0, 1);
    let second = world.link(1);
    world.pass(120_000);
    world.write(0, 1, "all are there");
    world.pass(20_000);
    let backup = world.store.snapshot();
    world.people[second].hand = Box::new(|_| vec![]);
    world.cut(second);
    let number = world.write(0, 1, "read by one");
    world.pass(20_000);
    assert_eq!(world.state(0, number), Some(MessageState::Delivered));
    world.store.restore(&backup);
    world.renew_relay(InstanceId([2; 16]));
    world.pass(60_000);
    world.people[second].hand = Box::new(|frame| vec![frame]);
    world.reconnect(second);
    world.pass(300_000);
    assert_eq!(world.shown(second), ["all are there", "read by one"]);
    assert_eq!(world.shown(1), ["hello", "all are there", "read by one"]);
}

/// L11: nor is a message of a group lost, where a relay is put back without a word (O2), and nobody is left behind (O1).
#[test]
fn a_group_survives_a_backup_that_is_put_back_silently() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    let backup = world.store.snapshot();
    world.people[2].hand = Box::new(|_| vec![]);
    world.cut(2);
    say(&mut world, 0, id, "accepted, and lost");
    world.pass(20_000);
    world.store.restore(&backup);
    (0..3).for_each(|person| world.cut(person));
    world.people[2].hand = Box::new(|frame| vec![frame]);
    world.pass(60_000);
    say(&mut world, 1, id, "after");
    world.pass(600_000);
    let mut shown = world.shown(2);
    shown.sort();
    assert_eq!(shown, ["accepted, and lost", "after"]);
    assert_eq!(world.shown(0), ["after"]);
}

/// L11: nor where the log has grown again, so that something else stands at its position.
#[test]
fn what_stands_no_more_where_it_was_accepted_is_said_again() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    let backup = world.store.snapshot();
    let away = |world: &mut World, person: usize| {
        world.people[person].hand = Box::new(|_| vec![]);
        world.cut(person);
    };
    away(&mut world, 2);
    say(&mut world, 0, id, "accepted, and lost");
    world.pass(20_000);
    away(&mut world, 0);
    world.store.restore(&backup);
    world.cut(1);
    world.people[2].hand = Box::new(|frame| vec![frame]);
    world.pass(60_000);
    say(&mut world, 2, id, "in its place");
    say(&mut world, 2, id, "and behind it");
    world.pass(20_000);
    world.people[0].hand = Box::new(|frame| vec![frame]);
    world.reconnect(0);
    world.pass(600_000);
    let mut shown = world.shown(2);
    shown.sort();
    assert_eq!(shown, ["accepted, and lost"]);
    assert_eq!(world.shown(1).iter().filter(|text| *text == "accepted, and lost").count(), 1, "and nothing twice");
}

/// C10, M7: a relay that gives a false position for what was said does not bring it to who was added later.
#[test]
fn a_false_position_brings_nothing_to_a_newcomer() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1]);
    world.befriend(0, 2);
    world.people[0].hand = Box::new(|frame| match frame {
        FromRelay::Accepted { envelope, .. } => vec![FromRelay::Accepted { envelope, position: Position(1 << 60) }],
        other => vec![other],
    });
    say(&mut world, 0, id, "before carol came");
    world.pass(10_000);
    world.people[0].hand = Box::new(|frame| vec![frame]);
    let carol = world.account(2);
    world.command(0, Command::Change { conversation: id, change: GroupChange::Add(vec![carol]) }).unwrap();
    world.pass(20_000);
    world.cut(0);
    world.pass(60_000);
    say(&mut world, 0, id, "and after");
    world.pass(60_000);
    let of_carol = world.shown(2);
    assert!(of_carol.contains(&"and after".to_owned()), "{of_carol:?}");
    assert!(!of_carol.contains(&"before carol came".to_owned()), "{of_carol:?}");
}

/// D3: a commit of the newer store, which this one cannot process, is a commit that was missed.
#[test]
fn an_own_commit_that_a_restored_store_reads_is_one_that_it_missed() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    let id = group_of(&mut world, &[0, 1]);
    let disk = world.people[0].disk.clone();
    world.people[0].hand = Box::new(|_| vec![]);
    world.command(0, Command::Change { conversation: id, change: GroupChange::Rename("Dinner".into()) }).unwrap();
    world.people[0].hand = Box::new(|frame| vec![frame]);
    world.restart_with(0, disk);
    world.pass(120_000);
    say(&mut world, 1, id, "from bob");
    world.pass(60_000);
    assert_eq!(world.shown(0), ["from bob"]);
}

/// C10: a store that was put back to a moment at which the other had just asked does not begin the conversation anew beside
/// the other, who is in it.
#[test]
fn an_old_readd_does_not_split_a_conversation_of_two() {
    for (old, other) in [(0, 1), (1, 0)] {
        let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
        world.befriend(0, 1);
        let id = one_to_one(world.account(0), world.account(1));
        let asked = Rc::new(RefCell::new(false));
        let heard = Rc::clone(&asked);
        // Deaf from the Readd on, so that it stands in the store, unanswered.
        world.people[old].hand = Box::new(move |frame| {
            let is_deaf = *heard.borrow();
            if let FromRelay::Deliver { entries, .. } = &frame {
                *heard.borrow_mut() |= entries
                    .iter()
                    .any(|delivered| Entry::decode(&delivered.entry).is_ok_and(|entry| entry.kind == EntryKind::Readd));
            }
            if is_deaf { vec![] } else { vec![frame] }
        });
        loses_its_place(&mut world, other, id);
        assert!(*asked.borrow());
        let disk = world.people[old].disk.clone();
        world.people[old].hand = Box::new(|frame| vec![frame]);
        world.reconnect(old);
        world.write(old, other, "one");
        world.write(other, old, "two");
        world.pass(20 * 60_000);
        world.restart_with(old, disk);
        world.pass(600_000);
        world.write(old, other, "three");
        world.write(other, old, "four");
        world.pass(600_000);
        assert!(world.shown(other).contains(&"three".to_owned()), "{old}: {:?}", world.shown(other));
        assert!(world.shown(old).contains(&"four".to_owned()), "{old}: {:?}", world.shown(old));
        assert_eq!(authenticator(&mut world, old, id), authenticator(&mut world, other, id), "{old}");
    }
}

/// C9, HP-02: a stranger learns nothing by waiting: a device commits nothing into a conversation that nobody has accepted.
#[test]
fn a_stranger_gets_no_commit_before_acceptance() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.write(0, 1, "hello, stranger");
    world.pass(10_000);
    world.now = world.now.plus(2 * DAY_MS);
    world.reconnect(1);
    world.pass(60_000);
    assert_eq!(world.people[1].appends().len(), 0);
}

/// C5: the last member leaves, too.
#[test]
fn the_last_member_leaves() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    let id = group_of(&mut world, &[0, 1]);
    let bob = world.account(1);
    world.command(0, Command::Change { conversation: id, change: GroupChange::Remove(bob) }).unwrap();
    world.pass(5_000);
    world.command(0, Command::Change { conversation: id, change: GroupChange::Leave }).unwrap();
    world.pass(120_000);
    assert!(view(&mut world, 0, id).out);
}

/// C2, C5: whoever has lost their place before their wish to leave was read leaves from the new one, and hears of it (seed
/// 50884: they judged the commit that removed them by a wish of which they knew nothing any more).
#[test]
fn who_wants_to_leave_leaves_from_a_new_place_too() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group_of(&mut world, &[0, 1, 2]);
    // Bob and Carol are away meanwhile. Neither may remove the owner, but for her wish.
    [1, 2].iter().for_each(|other| world.people[*other].hand = Box::new(|_| vec![]));
    loses_its_place(&mut world, 0, id);
    world.command(0, Command::Change { conversation: id, change: GroupChange::Leave }).unwrap();
    world.pass(2_000);
    [1, 2].iter().for_each(|other| world.people[*other].hand = Box::new(|frame| vec![frame]));
    [1, 2].iter().for_each(|other| world.reconnect(*other));
    world.pass(120_000);
    assert!(view(&mut world, 0, id).out);
    assert_eq!((members(&mut world, 1, id), members(&mut world, 2, id)), (2, 2));
}

/// N3, L2: a store that was put back to the moment after a Welcome, by a process that logs in as the newer one would have:
/// the relay's mark is beyond where it has joined, and the epoch in force a later one (seed 70708).
#[test]
fn who_has_joined_twice_does_not_stay_in_the_epoch_of_the_first_time() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let kept: Rc<RefCell<Vec<FromRelay>>> = Rc::default();
    let late = Rc::clone(&kept);
    world.people[1].hand = Box::new(move |frame| match frame {
        FromRelay::Attached { .. } if late.borrow().is_empty() => {
            late.borrow_mut().push(frame);
            vec![]
        }
        frame => vec![frame],
    });
    let id = group_of(&mut world, &[0, 1, 2]);
    let just_joined = world.people[1].disk.clone();
    let attached = kept.borrow()[0].clone();
    world.inject(1, attached);
    for name in ["Dinner", "Supper"] {
        world.command(0, Command::Change { conversation: id, change: GroupChange::Rename(name.into()) }).unwrap();
        world.pass(5_000);
    }
    assert_eq!(view(&mut world, 1, id).name, "Supper");
    world.restart_with(1, just_joined);
    world.pass(60_000);
    // The first message shows that it is elsewhere: asking for what was missed is not there yet.
    say(&mut world, 0, id, "who is there?");
    world.pass(60_000);
    say(&mut world, 0, id, "to all");
    world.pass(5_000);
    assert!(world.shown(1).contains(&"to all".to_owned()));
    assert_eq!(authenticator(&mut world, 0, id), authenticator(&mut world, 1, id));
}

/// C10: a clock that is set back by hours keeps nobody out of a conversation for so long (seeds 60081, 70277).
#[test]
fn a_clock_that_is_set_back_keeps_nobody_waiting() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    let id = group_of(&mut world, &[0, 1]);
    world.people[1].loses = |frame| matches!(frame, ToRelay::Append { .. });
    loses_its_place(&mut world, 1, id);
    world.pass(1_000);
    world.people[1].loses = |_| false;
    world.people[1].clock_offset = -2 * 3_600_000;
    world.reconnect(1);
    world.pass(120_000);
    assert!(view(&mut world, 1, id).active);
}

/// HP-08: a generation at its maximum, which a peer may name, is not counted on.
#[test]
fn the_last_generation_ends_no_process() {
    let mut world = World::talking(Suite::Classical, &["bob", "mallory"]);
    let bob = world.account(0);
    let mut mallory = (7..).map(Stranger::new).find(|stranger| stranger.log.id() > bob).unwrap();
    let id = one_to_one(bob, mallory.log.id());
    let (package, log) = (claim(&mut world, 1, 0), look_up(&mut world, 1, 0));
    let (inbox, of_bob) = (world.inbox(1), world.inbox(0));
    let evidence = Evidence::of([&mallory.log, &log]);
    mallory.generation = u32::MAX;
    let (_, made, envelope) = mallory.begin_with(id, ConversationKind::OneToOne, inbox, package, &evidence);
    let entries = vec![commit_entry(&made, envelope, Position(0))];
    let welcomes = vec![Welcome { inbox: of_bob, entry: welcome_entry(id, &made, envelope) }];
    // The engine's account is another than this Mallory's: only of the two may one create it, so Bob's connection does.
    let (inboxes, proof) = (made.roster.clone(), IdProof::Peer(mallory.log.id()));
    let create = ToRelay::CreateConversation { request: REQUEST, conversation: id, entries, inboxes, welcomes, proof };
    let answers = answers(&mut world, 0, create);
    assert!(answers.contains(&FromRelay::Done { request: REQUEST }), "{answers:?}");
    world.pass(5_000);
    let Ok(Reply::Conversations(views)) = world.command(0, Command::Conversations) else { panic!("no list") };
    assert_eq!(views, [], "there would be no generation behind it");
    assert!(world.people[0].saw(|event| matches!(event, Event::Quarantined { .. })));
}

// Findings 11 and 17: loops.

/// A refusal to attach is not answered by asking again at once.
#[test]
fn an_attachment_that_is_refused_waits() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    group_of(&mut world, &[0, 1]);
    let refused = Rc::new(RefCell::new(0));
    let count = Rc::clone(&refused);
    world.people[1].hand = Box::new(move |frame| match frame {
        FromRelay::Attached { request, .. } => {
            *count.borrow_mut() += 1;
            let text = String::new();
            let failed = Failed { code: Code::Busy, request, envelope: None, retry_after_ms: 1_000, text };
            if *count.borrow() < 500 { vec![FromRelay::Failed(failed)] } else { vec![] }
        }
        frame => vec![frame],
    });
    world.reconnect(1);
    assert!(*refused.borrow() < 20, "asked {} times in five seconds", refused.borrow());
}

/// A relay that says `Stale` for ever is not answered for ever, at the speed of the wire, with a new seal each time.
#[test]
fn a_relay_that_says_stale_for_ever_is_left_alone() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.befriend(0, 1);
    let stale = Rc::new(RefCell::new(0));
    let count = Rc::clone(&stale);
    world.people[0].hand = Box::new(move |frame| match frame {
        FromRelay::Accepted { envelope, .. } => {
            *count.borrow_mut() += 1;
            // Else the test would never end.
            if *count.borrow() < 500 { vec![FromRelay::Stale { envelope, newest_commit: Position(1) }] } else { vec![] }
        }
        FromRelay::Deliver { log: LogId::Conversation(_), .. } => vec![],
        frame => vec![frame],
    });
    world.write(0, 1, "once");
    world.pass(5_000);
    assert!(*stale.borrow() < 20, "sealed {} times in five seconds", stale.borrow());
}

// Finding 13: without bounds.

/// Account logs in a Welcome are those of members, and nobody else becomes a contact by them.
#[test]
fn evidence_brings_no_contacts_but_members() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "mallory"]);
    let mut mallory = Stranger::new(7);
    let id = ConversationId([5; 32]);
    let (package, log) = (claim(&mut world, 2, 1), look_up(&mut world, 2, 1));
    let crowd: Vec<AccountLog> = (0..200).map(|seed| Stranger::new(1_000 + seed).log).collect();
    let (inbox, of_bob) = (world.inbox(2), world.inbox(1));
    let evidence = Evidence::of(crowd.iter().chain([&mallory.log, &log]));
    let (_, made, envelope) = mallory.begin_with(id, ConversationKind::Group, inbox, package, &evidence);
    let bytes = WelcomeBody { conversation: id, commit: envelope, welcome: made.welcome.clone().unwrap() }.encode();
    let entry =
        Entry { kind: EntryKind::Welcome, after: None, envelope: EnvelopeId([8; 16]), body: Body::Inline(bytes) };
    raw(&mut world, 2, ToRelay::Append { log: LogId::Inbox(of_bob), entry: entry.encode(), roster: None });
    world.pass(5_000);
    let Ok(Reply::Contacts(contacts)) = world.command(1, Command::Contacts) else { panic!() };
    assert!(contacts.len() <= 2, "{} contacts", contacts.len());
}

// What the tests above are made of.

const REQUEST: u32 = 1_000_000;

/// A device that no engine of ours drives.
struct Stranger {
    secrets: DeviceSecrets,
    log: AccountLog,
    records: Records,
    rng: ChaCha20Rng,
    generation: u32,
}

impl Stranger {
    fn new(seed: u64) -> Stranger {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let secrets = DeviceSecrets::generate(&mut rng);
        let device = secrets.card_for(Mode::Mls);
        let genesis = AccountEntry {
            account: AccountId([0; 32]),
            number: 0,
            previous: [0; 32],
            at: Time(1),
            change: AccountChange::Genesis { kind: AccountKind::Person, device },
            signer: secrets.device_id(),
        };
        let log = AccountLog::begin(sign_entry(&genesis, |bytes| secrets.sign(bytes))).unwrap();
        Stranger { secrets, log, records: Records::default(), rng, generation: 0 }
    }

    fn desk(&mut self) -> Desk<'_> {
        Desk { secrets: &self.secrets, records: &mut self.records, rng: &mut self.rng }
    }

    fn begin(
        &mut self,
        id: ConversationId,
        kind: ConversationKind,
        inbox: InboxAddress,
        package: Vec<u8>,
        with: &AccountLog,
    ) -> (Group, Committed, EnvelopeId) {
        let evidence = Evidence::of([&self.log, with]);
        self.begin_with(id, kind, inbox, package, &evidence)
    }

    fn begin_with(
        &mut self,
        conversation: ConversationId,
        kind: ConversationKind,
        inbox: InboxAddress,
        package: Vec<u8>,
        evidence: &Evidence,
    ) -> (Group, Committed, EnvelopeId) {
        let account = self.log.id();
        let (name, roles) = (String::new(), vec![(account, Role::Owner)]);
        let data =
            GroupData { conversation, generation: self.generation, kind, name, roles, later: Default::default() };
        let mut group = Group::create(&mut self.desk(), Suite::Classical, data, account, inbox).unwrap();
        let package = ReceivedKeyPackage::check(Suite::Classical, &package, &mut self.rng).unwrap();
        let changes = Changes { add: vec![package], ..Changes::default() };
        let place = Place { position: Position(0), chain: chain_start(conversation) };
        let envelope = EnvelopeId([7; 16]);
        let made = group.commit(&mut self.desk(), place, envelope, changes, evidence).unwrap();
        (group, made, envelope)
    }

    /// The texts of what this device can open of entries.
    fn opens(&mut self, group: &mut Group, entries: &[Vec<u8>]) -> Vec<String> {
        let mut texts = Vec::new();
        for entry in entries {
            let Ok(Entry { kind: EntryKind::Message, body: Body::Inline(body), .. }) = Entry::decode(entry) else {
                continue;
            };
            let Ok(opened) = group.open(&mut self.desk(), &body) else { continue };
            if let Ok(Content { part: Part::Text(text), .. }) = Content::decode(&opened.plaintext) {
                texts.push(text);
            }
        }
        texts
    }
}

fn commit_entry(made: &Committed, envelope: EnvelopeId, after: Position) -> Vec<u8> {
    let body = Body::Inline(made.body.clone());
    Entry { kind: EntryKind::Commit, after: Some(after), envelope, body }.encode()
}

fn welcome_entry(conversation: ConversationId, made: &Committed, commit: EnvelopeId) -> Vec<u8> {
    let body = WelcomeBody { conversation, commit, welcome: made.welcome.clone().unwrap() }.encode();
    let envelope = EnvelopeId([8; 16]);
    Entry { kind: EntryKind::Welcome, after: None, envelope, body: Body::Inline(body) }.encode()
}

/// A group of some of the people; the first begins it.
fn group_of(world: &mut World, people: &[usize]) -> ConversationId {
    for other in &people[1..] {
        let handle = world.people[*other].handle.clone();
        world.command(people[0], Command::Find(handle)).unwrap();
    }
    let members: Vec<AccountId> = people[1..].iter().map(|person| world.account(*person)).collect();
    let create = Command::CreateGroup { name: "Lunch".into(), members };
    let Ok(Reply::Group(id)) = world.command(people[0], create) else { panic!("no group") };
    world.pass(20_000);
    id
}

fn say(world: &mut World, from: usize, group: ConversationId, text: &str) {
    say_or_not(world, from, group, text).unwrap();
}

fn say_or_not(world: &mut World, from: usize, group: ConversationId, text: &str) -> Result<Reply, Refusal> {
    world.command(from, Command::Send { to: To::Group(group), part: Part::Text(text.into()), in_reply_to: None })
}

fn view(world: &mut World, who: usize, id: ConversationId) -> ConversationView {
    let Ok(Reply::Conversations(views)) = world.command(who, Command::Conversations) else { panic!("no list") };
    views.into_iter().find(|view| view.conversation == id).expect("a conversation")
}

fn epoch(world: &mut World, who: usize, id: ConversationId) -> u64 {
    view(world, who, id).epoch
}

fn members(world: &mut World, who: usize, id: ConversationId) -> usize {
    view(world, who, id).members.len()
}

fn authenticator(world: &mut World, who: usize, id: ConversationId) -> Vec<u8> {
    view(world, who, id).authenticator
}

/// The relay hands out an entry that names a commit of which this person has never heard.
fn loses_its_place(world: &mut World, person: usize, id: ConversationId) {
    let position = view(world, person, id).read_upto.next();
    let body = Body::Inline(vec![0]);
    let entry = Entry { kind: EntryKind::Message, after: Some(position), envelope: EnvelopeId([0; 16]), body };
    let made_up = Delivered { position, entry: entry.encode(), at: world.now };
    world.inject(person, FromRelay::Deliver { log: LogId::Conversation(id), entries: vec![made_up] });
}

fn readds(world: &World, person: usize) -> Vec<ReaddBody> {
    let readd = |entry: Vec<u8>| match Entry::decode(&entry) {
        Ok(Entry { kind: EntryKind::Readd, body: Body::Inline(body), .. }) => ReaddBody::decode(&body).ok(),
        _ => None,
    };
    world.people[person].appends().into_iter().filter_map(readd).collect()
}

fn append_readd(world: &mut World, by: usize, id: ConversationId, body: Vec<u8>) {
    let envelope = EnvelopeId([9; 16]);
    let entry = Entry { kind: EntryKind::Readd, after: None, envelope, body: Body::Inline(body) }.encode();
    raw(world, by, ToRelay::Append { log: LogId::Conversation(id), entry, roster: None });
}

/// A frame that a person's engine knows nothing of.
fn raw(world: &mut World, person: usize, frame: ToRelay) {
    world.relay_input(person, RelayInput::Bytes(frame.encode()));
    world.settle();
}

fn answers(world: &mut World, person: usize, frame: ToRelay) -> Vec<FromRelay> {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&heard);
    world.people[person].hand = Box::new(move |frame| {
        log.borrow_mut().push(frame.clone());
        vec![frame]
    });
    raw(world, person, frame);
    world.people[person].hand = Box::new(|frame| vec![frame]);
    heard.take()
}

fn claim(world: &mut World, by: usize, whose: usize) -> Vec<u8> {
    let account = world.account(whose);
    let package = |frame: FromRelay| match frame {
        FromRelay::KeyPackages { packages, .. } => packages.into_iter().next().map(|package| package.bytes),
        _ => None,
    };
    let answers = answers(world, by, ToRelay::ClaimKeyPackages { request: REQUEST, account, device: None });
    answers.into_iter().find_map(package).expect("a key package")
}

fn look_up(world: &mut World, by: usize, whom: usize) -> AccountLog {
    let account = world.account(whom);
    let found = |frame: FromRelay| match frame {
        FromRelay::Found { entries, .. } => AccountLog::verify(entries.into_iter().map(SignedEntry)).ok(),
        _ => None,
    };
    let lookup = ToRelay::Lookup { request: REQUEST, by: LookupBy::Account(account) };
    answers(world, by, lookup).into_iter().find_map(found).expect("an account")
}
