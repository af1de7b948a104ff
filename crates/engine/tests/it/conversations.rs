//! Conversations: of two and of many, with everybody away for a while, and with two who want something at once.

use sealwire_engine::*;
use sealwire_wire::content::Part;
use sealwire_wire::frame::ToRelay;
use sealwire_wire::limits::{COMMITS_PER_MINUTE, UNACKNOWLEDGED_MAX};
use sealwire_wire::{AccountId, ConversationId, LogId};

use crate::world::World;

const BOTH: [Suite; 2] = [Suite::Classical, Suite::Hybrid];

fn say(world: &mut World, from: usize, group: ConversationId, text: &str) -> u64 {
    let send = Command::Send { to: To::Group(group), part: Part::Text(text.into()), in_reply_to: None };
    match world.command(from, send) {
        Ok(Reply::Queued(number)) => number,
        other => panic!("not queued: {other:?}"),
    }
}

fn change(world: &mut World, who: usize, conversation: ConversationId, change: GroupChange) -> Result<Reply, Refusal> {
    world.command(who, Command::Change { conversation, change })
}

fn view(world: &mut World, who: usize, id: ConversationId) -> ConversationView {
    let Ok(Reply::Conversations(views)) = world.command(who, Command::Conversations) else { panic!("no list") };
    views.into_iter().find(|view| view.conversation == id).expect("a conversation")
}

/// A group of the first person with all others.
fn group(world: &mut World, name: &str) -> ConversationId {
    for other in 1..world.people.len() {
        let handle = world.people[other].handle.clone();
        world.command(0, Command::Find(handle)).unwrap();
    }
    let members: Vec<AccountId> = (1..world.people.len()).map(|person| world.account(person)).collect();
    let Ok(Reply::Group(id)) = world.command(0, Command::CreateGroup { name: name.into(), members }) else {
        panic!("no group")
    };
    world.pass(20_000);
    id
}

/// What members of one epoch have in common, they have in common.
fn agree(world: &mut World, members: &[usize], id: ConversationId) {
    let first = view(world, members[0], id);
    for member in members {
        let view = view(world, *member, id);
        assert!(view.active, "{member}");
        assert_eq!((view.epoch, &view.authenticator), (first.epoch, &first.authenticator), "{member}");
        assert_eq!((&view.members, &view.name), (&first.members, &first.name), "{member}");
        assert_eq!(view.read_upto, first.read_upto, "{member}");
    }
}

fn quarantined(world: &World) -> Vec<QuarantineReason> {
    let reason = |event: &Event| match event {
        Event::Quarantined { reason, .. } => Some(*reason),
        _ => None,
    };
    world.people.iter().flat_map(|person| person.events.iter().filter_map(reason)).collect()
}

/// The whole way of a message in a conversation of two: a request, acceptance, both ways, receipts.
#[test]
fn two_people_talk() {
    for suite in BOTH {
        let mut world = World::talking(suite, &["alice", "bob"]);
        let first = world.write(0, 1, "hello");
        world.pass(1_000);
        assert!(world.people[1].saw(|event| matches!(event, Event::Request(_))));
        assert_eq!(world.state(0, first), Some(MessageState::Accepted));
        let alice = world.account(0);
        world.command(1, Command::Accept(alice)).unwrap();
        let second = world.write(1, 0, "hello to you");
        world.pass(10_000);
        assert_eq!((world.shown(0), world.shown(1)), (vec!["hello to you".into()], vec!["hello".to_owned()]));
        for (person, number) in [(0, first), (1, second)] {
            assert_eq!(world.state(person, number), Some(MessageState::Delivered));
        }
        assert_eq!(quarantined(&world), []);
    }
}

/// Somebody who is blocked begins a conversation, is not heard, and is once the block was taken back.
#[test]
fn a_block_that_is_taken_back_leaves_a_conversation() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    let handle = world.people[0].handle.clone();
    world.command(1, Command::Find(handle)).unwrap();
    let alice = world.account(0);
    world.command(1, Command::Block(alice)).unwrap();
    world.write(0, 1, "can you hear me?");
    world.pass(5_000);
    assert!(!world.people[1].saw(|event| matches!(event, Event::Joined { .. })));
    world.command(1, Command::Unblock(alice)).unwrap();
    world.write(0, 1, "and now?");
    world.pass(5_000);
    assert_eq!(world.shown(1), ["and now?"]);
    let dropped = quarantined(&world);
    assert!(!dropped.is_empty() && dropped.iter().all(|reason| *reason == QuarantineReason::Blocked), "{dropped:?}");
}

/// C8: both begin at once, and one conversation comes of it, with nothing lost.
#[test]
fn two_who_begin_at_once_have_one_conversation() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    for person in 0..2 {
        world.cut(person);
    }
    world.write(0, 1, "from alice");
    world.write(1, 0, "from bob");
    world.pass(30_000);
    assert_eq!(world.shown(0), ["from bob"]);
    assert_eq!(world.shown(1), ["from alice"]);
    assert_eq!(quarantined(&world), []);
    for person in 0..2 {
        let Ok(Reply::Conversations(views)) = world.command(person, Command::Conversations) else { panic!() };
        assert_eq!(views.len(), 1);
    }
}

/// One delivery path: whoever was away reads the same.
#[test]
fn who_was_away_reads_it_later() {
    for suite in BOTH {
        let mut world = World::talking(suite, &["alice", "bob"]);
        world.people[1].hand = Box::new(|_| vec![]);
        world.cut(1);
        for i in 0..5 {
            world.write(0, 1, &format!("message {i}"));
        }
        world.pass(60_000);
        assert_eq!(world.shown(1), Vec::<String>::new());
        world.people[1].hand = Box::new(|frame| vec![frame]);
        world.reconnect(1);
        world.pass(60_000);
        assert_eq!(world.shown(1), (0..5).map(|i| format!("message {i}")).collect::<Vec<_>>());
    }
}

/// L2, L8: the relay knows a device's cursor by its Acks. Where it has not heard the last ones, it delivers again what the
/// device has read, a whole window of it, and nothing behind that until it hears of them.
#[test]
fn what_was_read_and_not_acknowledged_blocks_nothing() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.befriend(0, 1);
    world.cut(1);
    world.people[1].loses = |frame| matches!(frame, ToRelay::Ack { log: LogId::Conversation(_), .. });
    let said: Vec<String> = (0..UNACKNOWLEDGED_MAX + 10).map(|number| number.to_string()).collect();
    for text in &said {
        world.write(0, 1, text);
    }
    world.pass(60_000);
    // Commits are among them.
    let has_read_a_window = world.shown(1).len() >= UNACKNOWLEDGED_MAX - 8;
    assert!(has_read_a_window, "{}", world.shown(1).len());
    world.people[1].loses = |_| false;
    world.reconnect(1);
    world.pass(60_000);
    assert!(world.shown(1).ends_with(&said), "{} of {}", world.shown(1).len(), said.len());
}

/// Members come, go, are named and speak; each reads what was said while it was in, and nothing else.
#[test]
fn a_group_lives() {
    for suite in BOTH {
        let mut world = World::talking(suite, &["alice", "bob", "carol", "dave"]);
        let dave = world.account(3);
        let handle = world.people[3].handle.clone();
        let id = group(&mut world, "Lunch");
        agree(&mut world, &[0, 1, 2, 3], id);
        assert_eq!(view(&mut world, 1, id).name, "Lunch");
        // Bob and Carol have never looked each other up, and know what they are called.
        let carol = (world.account(2), world.people[2].handle.clone());
        let Ok(Reply::Contacts(contacts)) = world.command(1, Command::Contacts) else { panic!() };
        assert!(contacts.iter().any(|contact| contact.account == carol.0 && contact.handle.as_ref() == Some(&carol.1)));
        say(&mut world, 1, id, "to all");
        world.pass(1_000);
        for reader in [0, 2, 3] {
            assert_eq!(world.shown(reader), ["to all"], "{reader}");
        }
        change(&mut world, 0, id, GroupChange::Remove(dave)).unwrap();
        world.pass(2_000);
        assert!(world.people[3].saw(|event| matches!(event, Event::Removed { .. })));
        say(&mut world, 2, id, "without dave");
        change(&mut world, 0, id, GroupChange::Rename("Dinner".into())).unwrap();
        world.pass(2_000);
        assert_eq!(world.shown(3), ["to all"]);
        agree(&mut world, &[0, 1, 2], id);
        assert_eq!(view(&mut world, 1, id).name, "Dinner");
        for told in [0, 1, 2] {
            let named = |event: &Event| matches!(event, Event::Renamed { name, .. } if name == "Dinner");
            assert!(world.people[told].saw(named), "{told}");
        }
        world.command(0, Command::Find(handle)).unwrap();
        change(&mut world, 0, id, GroupChange::Add(vec![dave])).unwrap();
        world.pass(60_000);
        say(&mut world, 3, id, "back again");
        world.pass(1_000);
        agree(&mut world, &[0, 1, 2, 3], id);
        assert_eq!(world.shown(0), ["to all", "without dave", "back again"]);
        assert_eq!(world.shown(3), ["to all"]);
        assert_eq!(quarantined(&world), []);
    }
}

/// C7: what a plain member wants and may not is refused at once.
#[test]
fn a_member_does_what_its_role_allows() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let (alice, bob, carol) = (world.account(0), world.account(1), world.account(2));
    let id = group(&mut world, "Lunch");
    for wanted in [
        GroupChange::Remove(alice),
        GroupChange::Remove(carol),
        GroupChange::Rename("x".into()),
        GroupChange::SetRole(bob, Role::Owner),
    ] {
        assert_eq!(change(&mut world, 1, id, wanted), Err(Refusal::NotAllowed));
    }
    change(&mut world, 0, id, GroupChange::SetRole(bob, Role::Admin)).unwrap();
    world.pass(1_000);
    assert_eq!(change(&mut world, 1, id, GroupChange::Remove(alice)), Err(Refusal::NotAllowed));
    change(&mut world, 1, id, GroupChange::Remove(carol)).unwrap();
    world.pass(1_000);
    agree(&mut world, &[0, 1], id);
    assert_eq!(view(&mut world, 0, id).members.len(), 2);
    assert_eq!(say_refused(&mut world, 2, id), Refusal::UnknownConversation);
}

fn say_refused(world: &mut World, from: usize, group: ConversationId) -> Refusal {
    let send = Command::Send { to: To::Group(group), part: Part::Text("x".into()), in_reply_to: None };
    world.command(from, send).unwrap_err()
}

/// C5: whoever asks to leave is removed by a member, whoever is away.
#[test]
fn who_wants_to_leave_is_removed() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let id = group(&mut world, "Lunch");
    // The lowest leaf is away.
    world.people[0].hand = Box::new(|_| vec![]);
    world.cut(0);
    change(&mut world, 2, id, GroupChange::Leave).unwrap();
    world.pass(60_000);
    assert!(world.people[2].saw(|event| matches!(event, Event::Removed { .. })));
    world.people[0].hand = Box::new(|frame| vec![frame]);
    world.reconnect(0);
    world.pass(120_000);
    agree(&mut world, &[0, 1], id);
    assert_eq!(view(&mut world, 0, id).members.len(), 2);
}

/// L2, L3: many who commit at once: one history, and everybody's change in it.
#[test]
fn many_commit_at_once() {
    let names: Vec<String> = (0..8).map(|i| format!("person{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::talking(Suite::Classical, &names);
    let id = group(&mut world, "Lunch");
    for member in 1..8 {
        let account = world.account(member);
        change(&mut world, 0, id, GroupChange::SetRole(account, Role::Owner)).unwrap();
    }
    world.pass(120_000);
    (0..8).for_each(|member| world.cut(member));
    for member in 0..8 {
        let next = world.account((member + 1) % 8);
        change(&mut world, member, id, GroupChange::SetRole(next, Role::Admin)).unwrap();
        say(&mut world, member, id, &format!("from {member}"));
    }
    world.pass(600_000);
    agree(&mut world, &[0, 1, 2, 3, 4, 5, 6, 7], id);
    for member in 0..8 {
        assert_eq!(world.shown(member).len(), 7, "{member}: {:?}", world.shown(member));
    }
}

/// The bytes of a large Welcome travel as a blob (E7): a group of 40 begins with one commit.
#[test]
fn a_large_group_begins_with_one_commit() {
    let names: Vec<String> = (0..20).map(|i| format!("person{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::talking(Suite::Hybrid, &names);
    let id = group(&mut world, "All of us");
    let everybody: Vec<usize> = (0..20).collect();
    agree(&mut world, &everybody, id);
    assert_eq!(view(&mut world, 0, id).read_upto, sealwire_wire::Position(1));
    say(&mut world, 19, id, "hello, all");
    world.pass(1_000);
    for reader in 0..19 {
        assert_eq!(world.shown(reader), ["hello, all"]);
    }
}

/// D: an account for direct mode and one for conversations do not reach each other, whoever writes.
#[test]
fn nobody_is_talked_down_to_direct_mode() {
    let mut world = World::talking(Suite::Classical, &["alice"]);
    world.mode = Mode::Direct;
    world.add("bob");
    let down = world.write(0, 1, "down?");
    let up = world.write(1, 0, "up?");
    world.pass(10_000);
    assert_eq!(world.state(0, down), Some(MessageState::Unsent));
    assert_eq!(world.state(1, up), Some(MessageState::Unsent));
    assert_eq!(world.people[0].appends().len() + world.people[1].appends().len(), 0);
}

/// C11: after 100 messages, and some time after the direction has changed, own keys are replaced.
#[test]
fn keys_are_replaced_on_schedule() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.befriend(0, 1);
    let Ok(Reply::Conversations(views)) = world.command(0, Command::Conversations) else { panic!() };
    let (id, epoch) = (views[0].conversation, views[0].epoch);
    world.pass(14 * 60_000);
    assert_eq!(view(&mut world, 0, id).epoch, epoch);
    world.pass(3 * 60_000);
    let turned = view(&mut world, 0, id).epoch;
    assert!(turned > epoch, "the direction has changed");
    for i in 0..100 {
        world.write(0, 1, &format!("{i}"));
    }
    world.pass(5_000);
    assert!(view(&mut world, 0, id).epoch > turned, "a hundred messages");
    world.pass(6_000);
    assert_eq!(world.shown(1).len(), 101);
    agree(&mut world, &[0, 1], id);
}

/// C11: a relay that takes no commit for now (L10) holds up no message.
#[test]
fn a_commit_that_is_put_off_holds_up_no_message() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.befriend(0, 1);
    world.pass(60_000);
    let epoch = |world: &mut World| {
        let Ok(Reply::Conversations(views)) = world.command(0, Command::Conversations) else { panic!() };
        views[0].epoch
    };
    let before = epoch(&mut world);
    for i in 0..700 {
        world.write(0, 1, &format!("{i}"));
        world.pass(1);
    }
    assert_eq!(world.shown(1).len(), 701, "each at once");
    assert_eq!(epoch(&mut world), before + u64::from(COMMITS_PER_MINUTE), "one for each hundred, and four in a minute");
    world.pass(60_000);
    assert!(epoch(&mut world) > before + u64::from(COMMITS_PER_MINUTE), "and the next one when it may");
}

/// L4, and persist before send: the process ends at every point at which it can, of either side.
#[test]
fn no_end_of_a_process_loses_or_repeats_a_message() {
    for person in 0..2 {
        let mut point = 1;
        loop {
            let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
            world.points.clear();
            world.kill = Some((person, point));
            let begin = |world: &mut World, from: usize, to: usize, text: &str| {
                let (to, part) = (To::Handle(world.people[to].handle.clone()), Part::Text(text.into()));
                world.try_command(from, Command::Send { to, part, in_reply_to: None }).is_some()
            };
            let mut expected = (0, 0);
            expected.1 += usize::from(begin(&mut world, 0, 1, "one"));
            world.pass(3_000);
            let alice = world.account(0);
            world.try_command(1, Command::Accept(alice));
            expected.0 += usize::from(begin(&mut world, 1, 0, "two"));
            expected.1 += usize::from(begin(&mut world, 0, 1, "three"));
            world.pass(40_000);
            let ended = world.kill.is_none();
            for (reader, certain) in [(0, expected.0), (1, expected.1)] {
                let mut shown = world.shown(reader);
                assert!(shown.len() >= certain, "{person} ended at {point}: {reader} was shown {shown:?}");
                let all = shown.len();
                shown.dedup();
                assert_eq!(shown.len(), all, "{person} ended at {point}: twice");
            }
            assert_eq!(quarantined(&world), [], "{person} ended at {point}");
            if !ended {
                assert!(point > 30, "{point} points are not many");
                break;
            }
            point += 1;
        }
    }
}

/// C10: a store that was put back cannot follow; it asks, a member answers, and what was said meanwhile comes again.
#[test]
fn a_store_that_was_put_back_finds_its_way() {
    for suite in BOTH {
        let mut world = World::talking(suite, &["alice", "bob"]);
        world.befriend(0, 1);
        let disk = world.people[1].disk.clone();
        // A commit and a message that only the newer store has read.
        world.pass(20 * 60_000);
        world.write(0, 1, "lost with the newer store");
        world.pass(10_000);
        world.restart_with(1, disk);
        world.pass(120_000);
        world.write(0, 1, "are you there?");
        world.write(1, 0, "again");
        world.pass(120_000);
        assert!(world.shown(1).contains(&"are you there?".to_owned()), "{:?}", world.shown(1));
        assert!(world.shown(0).contains(&"again".to_owned()));
        let Ok(Reply::Conversations(views)) = world.command(0, Command::Conversations) else { panic!() };
        agree(&mut world, &[0, 1], views[0].conversation);
    }
}

/// C10: a store from before the conversation began learns of it from the relay, and is added again.
#[test]
fn a_conversation_that_a_store_does_not_know_comes_back() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol"]);
    let disk = world.people[1].disk.clone();
    let id = group(&mut world, "Lunch");
    world.write(0, 1, "hello");
    world.pass(10_000);
    world.restart_with(1, disk);
    world.pass(180_000);
    say(&mut world, 0, id, "to all");
    world.write(0, 1, "and to you");
    world.pass(60_000);
    let shown = world.shown(1);
    assert!(shown.contains(&"to all".to_owned()) && shown.contains(&"and to you".to_owned()), "{shown:?}");
    agree(&mut world, &[0, 1, 2], id);
}

/// C10: a store from when its group had nobody else comes back by the contact whom the newer store has added (seed 501356).
#[test]
fn who_was_alone_in_a_group_comes_back_by_who_was_added() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.befriend(0, 1);
    let id = group(&mut world, "Lunch");
    world.pass(5_000);
    let bob = world.account(1);
    change(&mut world, 0, id, GroupChange::Remove(bob)).unwrap();
    world.pass(5_000);
    let disk = world.people[0].disk.clone();
    change(&mut world, 0, id, GroupChange::Add(vec![bob])).unwrap();
    world.pass(20_000);
    world.restart_with(0, disk);
    world.pass(180_000);
    agree(&mut world, &[0, 1], id);
}

/// C10, C4: both have lost it: one of them begins it anew, and nothing that is not confirmed is lost.
#[test]
fn two_stores_that_were_put_back_find_each_other() {
    for first in 0..2 {
        let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
        let disks = [world.people[0].disk.clone(), world.people[1].disk.clone()];
        world.befriend(0, 1);
        world.pass(20 * 60_000);
        for person in [first, 1 - first] {
            world.restart_with(person, disks[person].clone());
        }
        world.pass(300_000);
        world.write(0, 1, "from alice");
        world.write(1, 0, "from bob");
        world.pass(300_000);
        assert!(world.shown(1).contains(&"from alice".to_owned()), "{first}: {:?}", world.shown(1));
        assert!(world.shown(0).contains(&"from bob".to_owned()), "{first}: {:?}", world.shown(0));
    }
}
