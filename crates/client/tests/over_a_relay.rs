//! The SDK over real sockets and a real relay.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::time::Duration;

use sealwire_client::{Account, Client, Event, Events, Handle, MessageState, Part, Refusal, Unlock};
use sealwire_relay::{Registration, Server, start_local};

const PATIENCE: Duration = Duration::from_secs(20);

async fn relay(home: &Path) -> Server {
    start_local(&home.join("relay"), 0, Some("here"), Registration::Open).await.unwrap()
}

fn key(home: &Path, name: &str) -> Unlock {
    Unlock::KeyFile(home.join(format!("{name}.key")))
}

async fn join(home: &Path, relay: &Server, name: &str) -> (Client, Events) {
    let account = Account::new(&format!("{name}@here"), &format!("ws://{}", relay.address())).unwrap();
    let joined = Client::create(&home.join(name), key(home, name), account.receipt_delay_ms(20)).await.unwrap();
    joined.0.connected().await.unwrap();
    joined
}

async fn next(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    let look = async {
        loop {
            let event = events.next().await.expect("the client is open");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("in time")
}

/// L8: what an application did not process is told again at the next start, and what it processed is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_told_until_it_was_processed() {
    let home = tempfile::tempdir().unwrap();
    let relay = relay(home.path()).await;
    let (alice, _alice_events) = join(home.path(), &relay, "alice").await;
    let (bob, mut events) = join(home.path(), &relay, "bob").await;
    alice.send_text("bob@here", "one").await.unwrap();
    alice.send_text("bob@here", "two").await.unwrap();
    let is = |text: &'static str| move |event: &Event| matches!(event, Event::Request(r) if r.message.content.part == Part::Text(text.into()));
    next(&mut events, is("one")).await;
    // Asking for the next one says that "one" was processed; "two" is taken and not.
    next(&mut events, is("two")).await;
    bob.close().await;
    drop(events);
    let (bob, mut events) = Client::open(&home.path().join("bob"), key(home.path(), "bob")).await.unwrap();
    let again = next(&mut events, |event| matches!(event, Event::Request(_) | Event::Message(_))).await;
    assert!(is("two")(&again), "{again:?}");
    bob.close().await;
}

/// `Sent::reached` tells when; an offline outbox goes out when the relay is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_waits_for_the_relay() {
    let home = tempfile::tempdir().unwrap();
    let first = relay(home.path()).await;
    let port = first.address().port();
    let (alice, _alice_events) = join(home.path(), &first, "alice").await;
    let (bob, mut bob_events) = join(home.path(), &first, "bob").await;
    alice.find("bob@here").await.unwrap();
    first.stop().await;
    let sent = alice.send_text("bob@here", "saved").await.unwrap();
    assert_eq!(alice.state(sent.number).await.unwrap(), Some(MessageState::Queued));
    let _second = start_local(&home.path().join("relay"), port, Some("here"), Registration::Open).await.unwrap();
    let reached = tokio::time::timeout(PATIENCE, sent.reached(MessageState::Accepted)).await.expect("in time");
    assert!(reached.unwrap() >= MessageState::Accepted);
    next(&mut bob_events, |event| matches!(event, Event::Request(_))).await;
    drop(bob);
}

/// Anything that reads as a stream, up to the message limit; beyond it a named refusal.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_to_its_end_or_refused() {
    let home = tempfile::tempdir().unwrap();
    let relay = relay(home.path()).await;
    let (alice, _alice_events) = join(home.path(), &relay, "alice").await;
    let (_bob, mut events) = join(home.path(), &relay, "bob").await;
    alice.send_from("bob@here", &[7u8; 10_000][..]).await.unwrap();
    let is_it = |event: &Event| matches!(event, Event::Request(r) if matches!(&r.message.content.part, Part::Bytes { bytes, .. } if bytes == &[7; 10_000]));
    next(&mut events, is_it).await;
    let refused = alice.send_from("bob@here", std::io::repeat(1)).await.unwrap_err();
    assert!(matches!(refused, sealwire_client::Error::Refused(Refusal::TooLarge(_))), "{refused}");
    let nobody = alice.find("nobody@here").await.unwrap_err();
    let handle = Handle::parse("nobody@here").unwrap();
    assert!(matches!(nobody, sealwire_client::Error::Refused(Refusal::NotFound(found)) if found == handle));
}

/// What could not be saved is not sent, the caller is told, and the client goes on with what is stored: no counter, no
/// message of the failed step is kept in memory.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_saved_is_not_sent() {
    let home = tempfile::tempdir().unwrap();
    let relay = relay(home.path()).await;
    let (alice, _alice_events) = join(home.path(), &relay, "alice").await;
    let (_bob, mut events) = join(home.path(), &relay, "bob").await;
    alice.find("bob@here").await.unwrap();
    // Somebody else writes to the file for longer than SQLite waits.
    let other = rusqlite::Connection::open(home.path().join("alice/client.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = alice.send_text("bob@here", "never saved").await.unwrap_err();
    assert!(matches!(refused, sealwire_client::Error::NotSaved(_)), "{refused}");
    other.execute_batch("ROLLBACK").unwrap();
    let sent = alice.send_text("bob@here", "saved").await.unwrap();
    tokio::time::timeout(PATIENCE, sent.reached(MessageState::Accepted)).await.expect("in time").unwrap();
    let first = next(&mut events, |event| matches!(event, Event::Request(_))).await;
    assert!(matches!(first, Event::Request(r) if r.message.content.part == Part::Text("saved".into())));
}
