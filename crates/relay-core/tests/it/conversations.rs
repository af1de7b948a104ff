use sealwire_keys::{HeadToBeSigned, blob_hash, chain_start, group_id, one_to_one, roster_hash};
use sealwire_relay_core::Input;
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{FromRelay, IdProof, RosterChange, ToRelay, Welcome};
use sealwire_wire::limits::{BLOB_MAX, COMMITS_PER_MINUTE};
use sealwire_wire::{Code, ConversationId, EnvelopeId, InboxAddress, LogId, Position};

use crate::device::Device;
use crate::world::{Id, World, ack, only_code, positions};

const NONCE: [u8; 16] = [4; 16];

/// The one that Alice may begin with [`NONCE`].
fn conversation() -> ConversationId {
    group_id(Device::new(1).log.id(), NONCE)
}

fn log() -> LogId {
    LogId::Conversation(conversation())
}

struct Group {
    world: World,
    alice: Id,
    bob: Id,
    carol: Id,
    devices: [Device; 3],
}

fn entry(kind: EntryKind, number: u8, after: u64) -> Vec<u8> {
    let after = kind.names_after().then_some(Position(after));
    Entry { kind, after, envelope: EnvelopeId([number; 16]), body: Body::Inline(vec![number]) }.encode()
}

fn welcome(to: InboxAddress, number: u8) -> Welcome {
    Welcome { inbox: to, entry: entry(EntryKind::Welcome, number, 0) }
}

fn append(entry: Vec<u8>, roster: Option<RosterChange>) -> ToRelay {
    ToRelay::Append { log: log(), entry, roster }
}

/// Alice has created a conversation with Bob, and both have attached it. Carol is outside.
fn group() -> Group {
    let mut world = World::new();
    let mut devices = [Device::new(1), Device::new(2), Device::new(3)];
    let mut names = ["alice", "bob", "carol"].into_iter();
    let ids = devices.each_mut().map(|device| world.register(device, names.next().unwrap()));
    let [alice, bob, carol] = ids;
    let create = ToRelay::CreateConversation {
        request: 2,
        conversation: conversation(),
        entries: vec![entry(EntryKind::Commit, 1, 0)],
        inboxes: vec![devices[0].inbox, devices[1].inbox],
        welcomes: vec![welcome(devices[1].inbox, 2)],
        proof: IdProof::Nonce(NONCE),
    };
    assert_eq!(world.refusal(carol, &create), Code::NotAllowed);
    assert_eq!(world.ask(alice, &create), [FromRelay::Done { request: 2 }]);
    assert_eq!(world.refusal(alice, &create), Code::ConversationExists);
    // C8: Bob's inbox has his Welcome.
    assert_eq!(positions(&world.take(bob)), [1]);
    let attach = ToRelay::Attach { request: 3, conversation: conversation() };
    assert_eq!(positions(&world.ask(alice, &attach)), [1]);
    world.ask(bob, &attach);
    assert_eq!(world.refusal(carol, &attach), Code::NotAllowed);
    // Who is in a roster is told to those who are.
    for (id, of_one) in [(alice, vec![conversation()]), (bob, vec![conversation()]), (carol, vec![])] {
        let listed = FromRelay::Logs { request: 9, conversations: of_one };
        assert_eq!(world.ask(id, &ToRelay::ListLogs { request: 9 }), [listed]);
    }
    let again = world.ask(alice, &attach);
    let [FromRelay::Attached { request: 3, read_upto, chain, newest_commit, length, roster }] = again[..] else {
        panic!()
    };
    // Where she stands (L5): before the first entry, which is the newest commit and the last entry.
    assert_eq!((read_upto, newest_commit, length), (Position(0), Position(1), Position(1)));
    assert_eq!(chain, Some(chain_start(conversation())));
    let mut inboxes = [devices[0].inbox, devices[1].inbox];
    inboxes.sort();
    assert_eq!(roster, Some(roster_hash(&inboxes)), "C6");
    Group { world, alice, bob, carol, devices }
}

/// C8: nobody takes an id that is not for its account to take, and a refused creation leaves nothing behind.
#[test]
fn who_creates_a_conversation_proves_its_id() {
    let mut world = World::new();
    let mut devices = [Device::new(1), Device::new(2), Device::new(3)];
    let mut names = ["alice", "bob", "carol"].into_iter();
    let ids = devices.each_mut().map(|device| world.register(device, names.next().unwrap()));
    let [alice, bob, carol] = devices.each_ref().map(|device| device.log.id());
    let mut inboxes = devices.each_ref().map(|device| device.inbox).to_vec();
    inboxes.sort();
    let of_two = one_to_one(alice, bob);
    let create = |conversation, proof| ToRelay::CreateConversation {
        request: 2,
        conversation,
        entries: vec![entry(EntryKind::Commit, 1, 0)],
        inboxes: inboxes.clone(),
        welcomes: vec![welcome(devices[1].inbox, 2)],
        proof,
    };
    let refused = [
        (2, of_two, IdProof::Nonce([0; 16])),
        (2, of_two, IdProof::Peer(alice)),
        (2, of_two, IdProof::Peer(bob)),
        (2, of_two, IdProof::Peer(carol)),
        (2, group_id(alice, NONCE), IdProof::Nonce(NONCE)),
        (0, of_two, IdProof::Peer(carol)),
        (0, of_two, IdProof::Peer(alice)),
        (0, group_id(alice, NONCE), IdProof::Nonce([5; 16])),
        (0, group_id(alice, NONCE), IdProof::Peer(bob)),
        (0, ConversationId([4; 32]), IdProof::Nonce(NONCE)),
    ];
    for (who, id, proof) in refused {
        assert_eq!(world.refusal(ids[who], &create(id, proof)), Code::NotAllowed, "{who} {proof:?}");
    }
    // Without a proof at all: the last field of the frame, and the lengths that count it, are left out.
    let mut without = create(of_two, IdProof::Nonce(NONCE)).encode();
    let length = without.len() - 18;
    without.truncate(length);
    let body = u16::from(without[1] & 0x7f) | u16::from(without[2]) << 7;
    assert_eq!((without[0], usize::from(body)), (10 << 3 | 2, length + 18 - 3));
    (without[1], without[2]) = ((body - 18) as u8 | 0x80, ((body - 18) >> 7) as u8);
    world.give(ids[2], Input::Bytes(without));
    assert_eq!(only_code(&world.take(ids[2])), Code::Malformed);

    // Nothing of it was stored: the logs are free for whom they are for, and no Welcome went anywhere.
    for id in [ids[0], ids[1]] {
        assert_eq!(
            world.ask(id, &ToRelay::ListLogs { request: 9 }),
            [FromRelay::Logs { request: 9, conversations: vec![] }]
        );
        assert_eq!(positions(&world.take(id)), []);
    }
    // Bob's Welcome is the first thing in his inbox.
    let answers = world.ask(ids[1], &create(of_two, IdProof::Peer(alice)));
    assert_eq!((&answers[0], positions(&answers)), (&FromRelay::Done { request: 2 }, vec![1]));
    assert_eq!(world.refusal(ids[0], &create(of_two, IdProof::Peer(bob))), Code::ConversationExists);
    let of_alice = create(group_id(alice, NONCE), IdProof::Nonce(NONCE));
    assert_eq!(world.ask(ids[0], &of_alice), [FromRelay::Done { request: 2 }]);
}

/// L1: messages name the newest commit, else Stale; members get what is appended, in order.
#[test]
fn a_conversation_has_one_order() {
    let Group { mut world, alice, bob, carol, .. } = group();
    let message = append(entry(EntryKind::Message, 10, 1), None);
    let answers = world.ask(alice, &message);
    assert!(answers.contains(&FromRelay::Accepted { envelope: EnvelopeId([10; 16]), position: Position(2) }));
    assert_eq!(positions(&answers), [2]);
    assert_eq!(positions(&world.take(bob)), [2]);
    let late = append(entry(EntryKind::Message, 11, 0), None);
    let stale = FromRelay::Stale { envelope: EnvelopeId([11; 16]), newest_commit: Position(1) };
    assert_eq!(world.ask(bob, &late), [stale]);
    assert_eq!(world.refusal(carol, &append(entry(EntryKind::Message, 12, 1), None)), Code::NotAllowed);
    assert_eq!(world.ask(bob, &ack(log(), 2)), []);
}

/// C6: the roster changes with its commit, only from the one it names; who is dropped reads up to there.
#[test]
fn a_roster_changes_with_its_commit() {
    let Group { mut world, alice, bob, devices, .. } = group();
    let before = roster_hash(&[devices[0].inbox, devices[1].inbox]);
    let change = |inboxes: Vec<InboxAddress>, welcomes| RosterChange { before, inboxes, welcomes };
    let swap = change(vec![devices[0].inbox, devices[2].inbox], vec![welcome(devices[2].inbox, 21)]);
    let stray = change(vec![devices[0].inbox], vec![welcome(devices[2].inbox, 22)]);
    assert_eq!(world.refusal(alice, &append(entry(EntryKind::Commit, 19, 1), Some(stray))), Code::Malformed);
    assert_eq!(world.refusal(alice, &append(entry(EntryKind::Message, 19, 1), Some(swap.clone()))), Code::Malformed);
    world.ask(alice, &append(entry(EntryKind::Commit, 20, 1), Some(swap.clone())));
    assert_eq!(positions(&world.take(bob)), [2], "the entry that dropped him");
    assert_eq!(world.refusal(alice, &append(entry(EntryKind::Commit, 23, 2), Some(swap))), Code::RosterMoved);
    world.ask(alice, &append(entry(EntryKind::Message, 24, 2), None));
    assert_eq!(positions(&world.take(bob)), [], "nothing after it");
    assert!(matches!(
        world.refusal(bob, &ToRelay::GetHead { request: 1, conversation: conversation() }),
        Code::NotAllowed
    ));
    let (bob_again, _) = world.log_in(&devices[1]);
    let attached = world.ask(bob_again, &ToRelay::Attach { request: 3, conversation: conversation() });
    let end = |frame: &FromRelay| match frame {
        FromRelay::Attached { newest_commit, length, roster, .. } => (newest_commit.0, length.0, *roster),
        other => panic!("{other:?}"),
    };
    assert_eq!(end(&attached[0]), (2, 2, None), "for him the log ends there (seed 500826)");
}

/// L10.
#[test]
fn commits_have_a_rate() {
    let Group { mut world, alice, .. } = group();
    for number in 0..COMMITS_PER_MINUTE as u8 {
        let commit = append(entry(EntryKind::Commit, 30 + number, 1 + u64::from(number)), None);
        assert!(matches!(world.ask(alice, &commit)[0], FromRelay::Accepted { .. }));
    }
    let commit = append(entry(EntryKind::Commit, 40, 1 + u64::from(COMMITS_PER_MINUTE)), None);
    let [FromRelay::Failed(failed)] = &world.ask(alice, &commit)[..] else { panic!() };
    assert_eq!((failed.code, failed.envelope), (Code::RateLimited, Some(EnvelopeId([40; 16]))));
    world.now = world.now.plus(failed.retry_after_ms);
    assert!(matches!(world.ask(alice, &commit)[0], FromRelay::Accepted { .. }));
}

/// L10: a commit that lost has kept nobody from anything. Whoever loses against many makes another at once.
#[test]
fn a_stale_commit_costs_nothing() {
    let Group { mut world, alice, .. } = group();
    for number in 0..3 * COMMITS_PER_MINUTE as u8 {
        let late = append(entry(EntryKind::Commit, 60 + number, 0), None);
        assert!(matches!(world.ask(alice, &late)[0], FromRelay::Stale { .. }));
    }
    for number in 0..COMMITS_PER_MINUTE as u8 {
        let commit = append(entry(EntryKind::Commit, 30 + number, 1 + u64::from(number)), None);
        assert!(matches!(world.ask(alice, &commit)[0], FromRelay::Accepted { .. }));
    }
    let commit = append(entry(EntryKind::Commit, 40, 1 + u64::from(COMMITS_PER_MINUTE)), None);
    assert_eq!(world.refusal(alice, &commit), Code::RateLimited, "and earns nothing");
}

/// L6: signed on request, at most once a second, and it verifies.
#[test]
fn a_head_is_signed_by_the_relay() {
    let Group { mut world, alice, carol, .. } = group();
    let get = ToRelay::GetHead { request: 7, conversation: conversation() };
    let [FromRelay::Head { length, chain, signature, conversation, .. }] = world.ask(alice, &get)[..] else { panic!() };
    let head = HeadToBeSigned { conversation, length, chain };
    assert_eq!(length, Position(1));
    assert!(head.verify(&world.relay.public_key(), &signature).is_ok());
    let longer = HeadToBeSigned { length: Position(2), ..head };
    assert!(longer.verify(&world.relay.public_key(), &signature).is_err());
    assert_eq!(world.refusal(alice, &get), Code::RateLimited);
    world.now = world.now.plus(1_000);
    assert!(matches!(world.ask(alice, &get)[..], [FromRelay::Head { .. }]));
    assert_eq!(world.refusal(carol, &get), Code::NotAllowed);
}

/// E7: in pieces, resumable, checked against its hash.
#[test]
fn a_blob_goes_up_and_comes_down_in_pieces() {
    let Group { mut world, alice, carol, .. } = group();
    let bytes = vec![7; 300];
    let (hash, size) = (blob_hash(&bytes), 300);
    let put = |offset: usize, bytes: &[u8]| ToRelay::PutBlob {
        request: 1,
        hash,
        size,
        offset: offset as u64,
        bytes: bytes.to_vec(),
    };
    let held = |offset| [FromRelay::Blob { request: 1, size, offset, bytes: vec![] }];
    let get = |offset| ToRelay::GetBlob { request: 1, hash, offset };
    assert_eq!(world.ask(carol, &get(0)), [FromRelay::Blob { request: 1, size: 0, offset: 0, bytes: vec![] }]);
    assert_eq!(world.ask(alice, &put(0, &bytes[..100])), held(100));
    assert_eq!(world.ask(carol, &get(0)), held(100));
    assert_eq!(world.refusal(alice, &put(200, &bytes[200..])), Code::BlobRefused);
    assert_eq!(world.refusal(alice, &put(200, &bytes)), Code::BlobRefused);
    assert_eq!(world.ask(alice, &put(100, &bytes[100..])), held(300));
    assert_eq!(world.ask(carol, &get(250)), [FromRelay::Blob { request: 1, size, offset: 250, bytes: vec![7; 50] }]);
    let huge = ToRelay::PutBlob { request: 1, hash, size: BLOB_MAX + 1, offset: 0, bytes: vec![] };
    assert_eq!(world.refusal(alice, &huge), Code::TooLarge);
}
