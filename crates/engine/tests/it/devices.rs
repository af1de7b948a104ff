//! Several devices of one account (I2, I5, C7): linked, in every conversation, and taken away again.

use sealwire_engine::*;
use sealwire_wire::content::Part;
use sealwire_wire::limits::LINK_CODE_MS;
use sealwire_wire::{ConversationId, DeviceId};

use crate::world::World;

fn devices(world: &mut World, person: usize) -> Vec<DeviceView> {
    let Ok(Reply::Devices(devices)) = world.command(person, Command::Devices) else { panic!("no list") };
    devices
}

fn this(world: &mut World, person: usize) -> DeviceId {
    devices(world, person).iter().find(|device| device.is_this).expect("it is one of them").device
}

fn conversations(world: &mut World, person: usize) -> Vec<ConversationView> {
    let Ok(Reply::Conversations(views)) = world.command(person, Command::Conversations) else { panic!("no list") };
    views
}

/// All of these have one state of each conversation.
fn agree(world: &mut World, people: &[usize]) {
    let state = |view: &ConversationView| (view.conversation, view.active, view.epoch, view.authenticator.clone());
    let states: Vec<Vec<_>> =
        people.iter().map(|person| conversations(world, *person).iter().map(state).collect()).collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
    assert!(states[0].iter().all(|(_, active, ..)| *active));
}

fn group(world: &mut World, people: &[usize]) -> ConversationId {
    for other in &people[1..] {
        let handle = world.people[*other].handle.clone();
        world.command(people[0], Command::Find(handle)).unwrap();
    }
    let members = people[1..].iter().map(|person| world.account(*person)).collect();
    let create = Command::CreateGroup { name: "Lunch".into(), members };
    let Ok(Reply::Group(id)) = world.command(people[0], create) else { panic!("no group") };
    world.pass(10_000);
    id
}

fn say(world: &mut World, from: usize, group: ConversationId, text: &str) {
    let send = Command::Send { to: To::Group(group), part: Part::Text(text.into()), in_reply_to: None };
    world.command(from, send).unwrap();
}

/// What was said to and by a device, of all that it has.
fn said(world: &World, person: usize) -> Vec<(bool, String)> {
    let messages = world.people[person].disk.iter().filter(|((table, _), _)| *table == Table::Message);
    let mut messages: Vec<_> = messages.filter_map(|((_, key), value)| StoredMessage::decode(key, value)).collect();
    messages.sort_by_key(|message| message.number);
    let text = |message: StoredMessage| match message.content.part {
        Part::Text(text) => Some((message.incoming, text)),
        _ => None,
    };
    messages.into_iter().filter_map(text).collect()
}

/// I5, C7: the new device is in every conversation within a minute, hears what is said to its account and by its other
/// devices, and speaks for its account; the safety number stays.
#[test]
fn a_linked_device_is_in_every_conversation() {
    for suite in [Suite::Classical, Suite::Hybrid] {
        let mut world = World::talking(suite, &["alice", "bob"]);
        world.befriend(0, 1);
        let number = world.contact(1, 0).safety_number;
        let lunch = group(&mut world, &[0, 1]);
        let laptop = world.link(0);
        assert_eq!(world.account(laptop), world.account(0));
        world.pass(60_000);
        agree(&mut world, &[0, 1, laptop]);
        assert_eq!(conversations(&mut world, 1).iter().map(|view| view.devices).collect::<Vec<_>>(), [3, 3]);
        world.write(1, 0, "to both of alice's");
        world.write(0, 1, "from the phone");
        say(&mut world, laptop, lunch, "from the laptop");
        world.write(laptop, 1, "from the laptop, to bob");
        world.pass(10_000);
        let texts =
            |heard: &[(bool, &str)]| heard.iter().map(|(is, text)| (*is, (*text).to_owned())).collect::<Vec<_>>();
        let heard = [
            (true, "to both of alice's"),
            (false, "from the phone"),
            (false, "from the laptop"),
            (false, "from the laptop, to bob"),
        ];
        for device in [0, laptop] {
            let mut said = said(&world, device);
            said.retain(|(_, text)| !text.starts_with("hello"));
            said.sort();
            let mut expected = texts(&heard);
            expected.sort();
            assert_eq!(said, expected, "{suite:?} {device}");
        }
        let bobs = said(&world, 1);
        let incoming: Vec<_> = bobs.iter().filter(|(incoming, _)| *incoming).map(|(_, text)| text.as_str()).collect();
        assert_eq!(incoming, ["hello", "from the phone", "from the laptop", "from the laptop, to bob"]);
        assert_eq!(world.contact(1, 0).safety_number, number);
        assert!(world.people.iter().all(|person| !person.saw(|event| matches!(event, Event::Quarantined { .. }))));
    }
}

/// I2, C7: a device that is revoked is removed from every conversation, is told, and reads nothing more.
#[test]
fn a_revoked_device_is_out_of_everything() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.befriend(0, 1);
    let lunch = group(&mut world, &[0, 1]);
    let laptop = world.link(0);
    world.pass(60_000);
    let device = this(&mut world, laptop);
    world.command(0, Command::Revoke(device)).unwrap();
    world.pass(60_000);
    assert_eq!(devices(&mut world, 0).len(), 1);
    assert!(world.people[laptop].saw(|event| matches!(event, Event::LogIn(LogInProblem::Revoked))));
    say(&mut world, 1, lunch, "not for the laptop");
    world.write(1, 0, "nor this");
    world.reconnect(laptop);
    world.pass(60_000);
    agree(&mut world, &[0, 1]);
    assert!(conversations(&mut world, 1).iter().all(|view| view.devices == 2));
    assert!(said(&world, laptop).iter().all(|(_, text)| !text.contains("this") && !text.contains("not for")));
    assert!(world.shown(0).contains(&"nor this".to_owned()));
    // It does not come back, and the last one stays.
    assert_eq!(world.command(0, Command::Revoke(device)), Err(Refusal::UnknownDevice));
    let phone = this(&mut world, 0);
    assert_eq!(world.command(0, Command::Revoke(phone)), Err(Refusal::LastDevice));
}

/// I5, C7: a person's own devices see to each other at once, whoever else is in a conversation, and where its leaf is.
#[test]
fn own_devices_wait_for_nobody() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob", "carol", "dora"]);
    let of_all = group(&mut world, &[0, 1, 2, 3]);
    let laptop = world.link(3);
    world.pass(4_000);
    assert_eq!(conversations(&mut world, 3).iter().map(|view| view.missing_devices).sum::<usize>(), 0);
    let device = this(&mut world, laptop);
    world.people[0].hand = Box::new(|_| vec![]);
    world.command(3, Command::Revoke(device)).unwrap();
    world.pass(4_000);
    let view = conversations(&mut world, 3).into_iter().find(|view| view.conversation == of_all);
    assert_eq!(view.unwrap().devices, 4);
}

/// I2: the first device is lost; the one that it has linked takes it from the account, and goes on.
#[test]
fn the_first_device_can_be_lost() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.befriend(0, 1);
    let laptop = world.link(0);
    world.pass(60_000);
    let phone = this(&mut world, 0);
    world.cut(0);
    world.people[0].hand = Box::new(|_| vec![]);
    world.command(laptop, Command::Revoke(phone)).unwrap();
    world.pass(60_000);
    let tablet = world.link(laptop);
    world.pass(60_000);
    world.write(1, laptop, "to those that are left");
    world.pass(10_000);
    agree(&mut world, &[1, laptop, tablet]);
    for device in [laptop, tablet] {
        assert!(world.shown(device).contains(&"to those that are left".to_owned()));
    }
}

/// N3, D3: a store that was put back to the moment at which it took a device from the account tells the relay of that again,
/// and then makes new keys, like any other (simulation, seed 310 of the commit that adds this: it did nothing more).
#[test]
fn a_store_that_was_about_to_revoke_goes_on() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    world.befriend(0, 1);
    let laptop = world.link(0);
    world.pass(60_000);
    let device = this(&mut world, laptop);
    world.people[0].hand = Box::new(|_| vec![]);
    assert!(world.try_command(0, Command::Revoke(device)).is_none(), "the relay has not answered");
    let disk = world.people[0].disk.clone();
    world.people[0].hand = Box::new(|frame| vec![frame]);
    world.reconnect(0);
    world.pass(60_000);
    world.reconnect(0);
    world.pass(60_000);
    world.restart_with(0, disk);
    world.pass(60_000);
    assert!(world.people[0].saw(|event| *event == Event::StoreRestored));
    world.write(0, 1, "it goes on");
    world.pass(60_000);
    assert!(world.shown(1).contains(&"it goes on".to_owned()));
}

/// C8: whoever begins a conversation begins it with all devices of both.
#[test]
fn a_conversation_begins_with_all_devices() {
    let mut world = World::talking(Suite::Classical, &["alice", "bob"]);
    let (laptop, tablet) = (world.link(0), world.link(1));
    world.pass(10_000);
    world.write(laptop, 1, "hello");
    world.pass(60_000);
    let alice = world.account(0);
    world.command(tablet, Command::Accept(alice)).unwrap();
    world.write(tablet, 0, "hello to you");
    world.pass(60_000);
    agree(&mut world, &[0, laptop, 1, tablet]);
    assert_eq!(said(&world, 0), [(false, "hello".to_owned()), (true, "hello to you".to_owned())]);
    assert_eq!(said(&world, 1), [(true, "hello".to_owned()), (false, "hello to you".to_owned())]);
}

/// I5: a code is good once, for a minute, and only where the digits are the same.
#[test]
fn a_code_is_good_once_and_for_a_minute() {
    let mut world = World::talking(Suite::Classical, &["alice"]);
    let ended = |world: &World| world.guest.as_ref().and_then(|guest| guest.ended);
    let code = |world: &mut World| match world.command(0, Command::Link) {
        Ok(Reply::LinkCode(secret)) => secret,
        other => panic!("{other:?}"),
    };
    // Another code.
    let secret = code(&mut world);
    world.read_code(&CodeSecret([1; 16]));
    assert_eq!(ended(&world), Some(Err(LinkEnd::CodeUsed)));
    // Used by one, and tried by another.
    world.read_code(&secret);
    assert_eq!((ended(&world), world.guest.as_ref().unwrap().digits.is_some()), (None, true));
    let first = world.guest.take();
    world.read_code(&secret);
    assert_eq!(ended(&world), Some(Err(LinkEnd::CodeUsed)));
    // Other digits: both hear of it.
    world.guest = first;
    world.command(0, Command::ConfirmLink(false)).unwrap();
    world.settle_guest();
    assert_eq!(ended(&world), Some(Err(LinkEnd::Declined)));
    assert!(world.people[0].saw(|event| matches!(event, Event::LinkEnded { reason: LinkEnd::Declined })));
    assert_eq!(world.command(0, Command::ConfirmLink(true)), Err(Refusal::NothingToDecide));
    // Nobody in time.
    world.people[0].events.clear();
    code(&mut world);
    world.pass(LINK_CODE_MS - 1_000);
    assert!(!world.people[0].saw(|event| matches!(event, Event::LinkEnded { .. })));
    world.pass(1_000);
    assert!(world.people[0].saw(|event| matches!(event, Event::LinkEnded { reason: LinkEnd::TimedOut })));
    assert_eq!(devices(&mut world, 0).len(), 1);
}
