use std::time::{Duration, Instant};

use sealwire_keys::group_id;
use sealwire_relay::{Registration, start_local};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{FromRelay, IdProof, ToRelay};
use sealwire_wire::limits::TURN_MS;
use sealwire_wire::{ConversationId, EnvelopeId, LogId, Position};
use tempfile::tempdir;

use crate::client::Client;
use crate::device::Device;

const NONCE: [u8; 16] = [4; 16];

/// The one that Alice may begin with [`NONCE`].
fn conversation() -> ConversationId {
    group_id(Device::new(1).log.id(), NONCE)
}

fn entry(kind: EntryKind, number: u8, after: u64) -> Vec<u8> {
    let (envelope, body) = (EnvelopeId([number; 16]), Body::Inline(vec![number]));
    Entry { kind, after: Some(Position(after)), envelope, body }.encode()
}

fn append(kind: EntryKind, number: u8, after: u64) -> ToRelay {
    ToRelay::Append { log: LogId::Conversation(conversation()), entry: entry(kind, number, after), roster: None }
}

fn accepted(number: u8, position: u64) -> FromRelay {
    FromRelay::Accepted { envelope: EnvelopeId([number; 16]), position: Position(position) }
}

/// L10: Alice commits and commits, and Bob is told Stale each time; then her next commit waits, his message goes through,
/// and hers is judged after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_commits_lets_others_have_their_turn() {
    let data = tempdir().unwrap();
    let server = start_local(data.path(), 0, Some("relay.example"), Registration::Open).await.unwrap();
    let (mut alice, mut bob) = (Device::new(1), Device::new(2));
    let mut alices = Client::register(server.address(), &mut alice, "alice").await;
    let mut bobs = Client::register(server.address(), &mut bob, "bob").await;
    let create = ToRelay::CreateConversation {
        request: 2,
        conversation: conversation(),
        entries: vec![entry(EntryKind::Commit, 1, 0)],
        inboxes: vec![alice.inbox, bob.inbox],
        welcomes: vec![],
        proof: IdProof::Nonce(NONCE),
    };
    assert_eq!(alices.ask(&create).await, FromRelay::Done { request: 2 });
    for number in 2..=4 {
        let after = u64::from(number) - 1;
        assert_eq!(alices.ask(&append(EntryKind::Commit, number, after)).await, accepted(number, after + 1));
        let stale = bobs.ask(&append(EntryKind::Message, 10 + number, after)).await;
        let newest_commit = Position(after + 1);
        assert_eq!(stale, FromRelay::Stale { envelope: EnvelopeId([10 + number; 16]), newest_commit });
    }
    let since = Instant::now();
    alices.send(&append(EntryKind::Commit, 5, 4)).await;
    // Of this connection alone, so that it shows that the commit came before: what it brings is judged in order.
    assert!(matches!(alices.ask(&alice.append(bob.inbox_log(), 20, 1)).await, FromRelay::Accepted { .. }));
    bobs.send(&append(EntryKind::Message, 20, 4)).await;
    let answer = match bobs.next().await {
        // What Alice wrote to him.
        FromRelay::Deliver { .. } => bobs.next().await,
        answer => answer,
    };
    assert_eq!(answer, accepted(20, 5));
    assert_eq!(alices.next().await, accepted(5, 6));
    let waited = since.elapsed();
    assert!(waited > Duration::from_millis(TURN_MS / 2), "{waited:?}");
    server.stop().await;
}
