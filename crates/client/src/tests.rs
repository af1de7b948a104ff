//! What needs a disk that fails.

use crate::store::tests::fails;
use crate::{Event, MessageState, Mode, Part};
use people::{PATIENCE, join, next, relay};

#[path = "../tests/it/people.rs"]
mod people;

/// What could not be saved is not sent, the caller is told, and the client goes on with what is stored: no counter, no
/// message of the failed step is kept in memory.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_saved_is_not_sent() {
    for mode in [Mode::Mls, Mode::Direct] {
        let home = tempfile::tempdir().unwrap();
        let relay = relay(home.path()).await;
        let (alice, _alice_events) = join(home.path(), &relay, "alice", mode).await;
        let (_bob, mut events) = join(home.path(), &relay, "bob", mode).await;
        alice.find("bob@here").await.unwrap();
        fails(&home.path().join("alice"), true);
        let refused = alice.send_text("bob@here", "never saved").await.unwrap_err();
        assert!(matches!(refused, sealwire_client::Error::NotSaved(_)), "{refused}");
        fails(&home.path().join("alice"), false);
        let sent = alice.send_text("bob@here", "saved").await.unwrap();
        tokio::time::timeout(PATIENCE, sent.reached(MessageState::Accepted)).await.expect("in time").unwrap();
        let first = next(&mut events, |event| matches!(event, Event::Request(_))).await;
        assert!(matches!(first, Event::Request(r) if r.message.content.part == Part::Text("saved".into())));
    }
}
