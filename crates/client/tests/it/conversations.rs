//! Conversations over real sockets: of two and of many, with clients that end in the middle.

use std::path::Path;

use sealwire_client::{
    Client, ConversationId, ConversationKind, Error, Event, Events, MessageState, Mode, Part, QuarantineReason,
    Refusal, Role, Sent, Talk, UnsentReason,
};
use sealwire_relay::Server;
use tokio::time::timeout;

use crate::people::{PATIENCE, join, key, next, relay};

/// What a message of a page or an event says.
fn text(part: &Part) -> &str {
    match part {
        Part::Text(text) => text,
        _ => "not a text",
    }
}

/// The next message, which says that.
async fn hears(events: &mut Events, says: &str) -> sealwire_client::Incoming {
    let is_message = |event: &Event| matches!(event, Event::Message(_) | Event::Request(_));
    let message = match next(events, is_message).await {
        Event::Message(message) => message,
        Event::Request(request) => request.message,
        _ => unreachable!(),
    };
    assert_eq!(text(&message.content.part), says);
    message
}

async fn reached(sent: &Sent, state: MessageState) {
    timeout(PATIENCE, sent.reached(state)).await.expect("in time").unwrap();
}

/// Waits until nothing is wanted of a group that is not so.
async fn settled(client: &Client, group: ConversationId) -> sealwire_client::ConversationView {
    let look = async {
        loop {
            if let Some(view) =
                client.conversation(group).await.unwrap().filter(|view| view.active && view.waiting == 0)
            {
                return view;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, look).await.expect("in time")
}

/// Ends, with what it took from its events processed.
async fn ends(client: Client, mut events: Events) {
    // Asking for the next event says so, whether one comes or not.
    let _ = timeout(std::time::Duration::ZERO, events.next()).await;
    client.close().await;
}

async fn again(home: &Path, name: &str) -> (Client, Events) {
    let opened = Client::open(&home.join(name), key(home, name)).await.unwrap();
    timeout(PATIENCE, opened.0.connected()).await.expect("in time").unwrap();
    opened
}

async fn people(home: &Path, relay: &Server, names: &[&str]) -> Vec<(Client, Events)> {
    let mut people = Vec::new();
    for name in names {
        people.push(join(home, relay, name, Mode::Mls).await);
    }
    people
}

/// The default: whoever writes to somebody begins a conversation of two, and both restart in the middle of it.
#[tokio::test(flavor = "multi_thread")]
async fn two_people_have_a_conversation() {
    let home = tempfile::tempdir().unwrap();
    let relay = relay(home.path()).await;
    let (alice, mut alice_events) = join(home.path(), &relay, "alice", Mode::Mls).await;
    let (bob, mut bob_events) = join(home.path(), &relay, "bob", Mode::Mls).await;
    assert_eq!(alice.mode(), Mode::Mls);
    let first = alice.send_text("bob@here", "one").await.unwrap();
    let from = hears(&mut bob_events, "one").await.from;
    bob.accept(from).await.unwrap();
    let answer = bob.send_text("alice@here", "two").await.unwrap();
    hears(&mut alice_events, "two").await;
    reached(&first, MessageState::Delivered).await;
    reached(&answer, MessageState::Delivered).await;
    let conversations = alice.conversations().await.unwrap();
    assert_eq!(conversations.len(), 1);
    assert_eq!((conversations[0].kind, conversations[0].devices), (ConversationKind::OneToOne, 2));
    let bobs = bob.conversations().await.unwrap();
    assert_eq!(bobs[0].authenticator, conversations[0].authenticator);

    ends(bob, bob_events).await;
    alice.send_text("bob@here", "three").await.unwrap();
    let (bob, mut bob_events) = again(home.path(), "bob").await;
    hears(&mut bob_events, "three").await;
    ends(alice, alice_events).await;
    bob.send_text("alice@here", "four").await.unwrap();
    let (alice, mut alice_events) = again(home.path(), "alice").await;
    assert_eq!(alice.mode(), Mode::Mls);
    hears(&mut alice_events, "four").await;

    // Page by page, from the newest back.
    let with = Talk::Person(bob.profile().await.unwrap().account);
    let (mut pages, mut before) = (Vec::new(), u64::MAX);
    loop {
        let page = alice.history(with, before, 3).await.unwrap();
        let Some(first) = page.first() else { break };
        before = first.number;
        pages.push(page.iter().map(|message| text(&message.content.part).to_owned()).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec!["two", "three", "four"], vec!["one"]]);
}

/// Key packages are at the relay though the account was closed as soon as it was made: others can begin.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_made_and_closed_can_be_written_to() {
    let home = tempfile::tempdir().unwrap();
    let relay = relay(home.path()).await;
    join(home.path(), &relay, "bob", Mode::Mls).await.0.close().await;
    let (alice, _alice_events) = join(home.path(), &relay, "alice", Mode::Mls).await;
    let sent = alice.send_text("bob@here", "while you are away").await.unwrap();
    reached(&sent, MessageState::Accepted).await;
    let (_bob, mut events) = again(home.path(), "bob").await;
    hears(&mut events, "while you are away").await;
}

/// Created in one call, named, spoken in by each, changed by whoever may, left; and each reads what was said while it was
/// in, though clients end and begin again in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_five() {
    let home = tempfile::tempdir().unwrap();
    let relay = relay(home.path()).await;
    let mut five = people(home.path(), &relay, &["alice", "bob", "carol", "dave", "erin"]).await;
    let others = ["bob@here", "carol@here", "dave@here", "erin@here"];
    let group = five[0].0.create_group("Lunch", &others).await.unwrap();
    five[0].0.send_text_to_group(group, "At noon?").await.unwrap();
    for (_, events) in &mut five[1..] {
        let joined = next(events, |event| matches!(event, Event::Joined { .. })).await;
        assert!(matches!(joined, Event::Joined { conversation, name, .. } if conversation == group && name == "Lunch"));
        assert_eq!(hears(events, "At noon?").await.group, Some(group));
    }
    for speaker in 1..5 {
        let words = format!("from {speaker}");
        five[speaker].0.send_text_to_group(group, &words[..]).await.unwrap();
        for reader in (0..5).filter(|reader| *reader != speaker) {
            hears(&mut five[reader].1, &words).await;
        }
    }

    let account = async |who: &(Client, Events)| who.0.profile().await.unwrap().account;
    let (bob, carol, dave) = (account(&five[1]).await, account(&five[2]).await, account(&five[3]).await);
    let refused = five[1].0.remove(group, carol).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::NotAllowed)), "{refused}");
    five[0].0.set_role(group, bob, Role::Admin).await.unwrap();
    settled(&five[0].0, group).await;
    let is_admin = async {
        loop {
            let view = five[1].0.conversation(group).await.unwrap().unwrap();
            if view.members.contains(&(bob, Role::Admin)) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, is_admin).await.expect("in time");
    // Carol is away while Dave is removed and the group is named anew, and reads it all later.
    let (carols, events) = five.remove(2);
    ends(carols, events).await;
    five[1].0.remove(group, dave).await.unwrap();
    five[1].0.rename(group, "Dinner").await.unwrap();
    settled(&five[1].0, group).await;
    let removed = next(&mut five[2].1, |event| matches!(event, Event::Removed { .. })).await;
    assert!(matches!(removed, Event::Removed { conversation, by } if conversation == group && by == bob));
    let refused = five[2].0.send_text_to_group(group, "still here?").await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::UnknownConversation)), "{refused}");
    five[1].0.send_bytes_to_group(group, *b"without Dave").await.unwrap();
    let is_it = |event: &Event| matches!(event, Event::Message(m) if matches!(&m.content.part, Part::Bytes { bytes, .. } if bytes == b"without Dave"));
    next(&mut five[0].1, is_it).await;

    let (carols, mut events) = again(home.path(), "carol").await;
    next(&mut events, is_it).await;
    let view = carols.conversation(group).await.unwrap().unwrap();
    assert_eq!((view.name.as_str(), view.members.len()), ("Dinner", 4));
    carols.leave(group).await.unwrap();
    next(&mut events, |event| matches!(event, Event::Removed { .. })).await;
    assert_eq!(settled(&five[0].0, group).await.members.len(), 3);

    // The history of a group says whose each message is.
    let page = five[0].0.history(Talk::Group(group), u64::MAX, 100).await.unwrap();
    let said: Vec<_> = page.iter().map(|message| (message.incoming, text(&message.content.part))).collect();
    assert_eq!(said[..2], [(false, "At noon?"), (true, "from 1")]);
    assert_eq!((said.len(), page[1].from), (6, Some(bob)));
    // Who was removed read nothing of what came then.
    let page = five[2].0.history(Talk::Group(group), u64::MAX, 100).await.unwrap();
    assert_eq!(page.len(), 5);
    for (client, _) in &five {
        let rejected: Vec<QuarantineReason> = client.quarantine().await.unwrap().iter().map(|q| q.reason).collect();
        assert_eq!(rejected, []);
    }
}

/// D: an account for direct mode has no groups and is not reached by one for conversations, nor the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn direct_mode_stays_apart() {
    let home = tempfile::tempdir().unwrap();
    let relay = relay(home.path()).await;
    let (alice, mut alice_events) = join(home.path(), &relay, "alice", Mode::Mls).await;
    let (small, mut small_events) = join(home.path(), &relay, "small", Mode::Direct).await;
    assert_eq!(small.mode(), Mode::Direct);
    alice.send_text("small@here", "down?").await.unwrap();
    small.send_text("alice@here", "up?").await.unwrap();
    for events in [&mut alice_events, &mut small_events] {
        let unsent = |event: &Event| matches!(event, Event::State { state: MessageState::Unsent, .. });
        let Event::State { reason, .. } = next(events, unsent).await else { unreachable!() };
        assert_eq!(reason, Some(UnsentReason::NoCommonMode));
    }
    let refused = alice.create_group("g", &["small@here"]).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::NotForGroups)), "{refused}");
    let refused = small.create_group("g", &["alice@here"]).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::DirectOnly)), "{refused}");
    let refused = alice.create_group("g", &["nobody@here"]).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::NotFound(_))), "{refused}");
    small.close().await;
    drop(small_events);
    let (small, _events) = again(home.path(), "small").await;
    assert_eq!(small.mode(), Mode::Direct);
}
