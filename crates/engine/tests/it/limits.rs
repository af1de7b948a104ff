//! Every limit of the client's mind, at it and one past it (`wire/src/limits.rs`).

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sealwire_engine::*;
use sealwire_keys::{AccountLog, Change as AccountChange, Suite, sign_entry};
use sealwire_session::DeviceSecrets;
use sealwire_session::direct::{DirectSession, Direction, Header};
use sealwire_store::{Append, Operation, Store};
use sealwire_wire::content::{Content, Part};
use sealwire_wire::entry::{Body, Entry};
use sealwire_wire::frame::{Delivered, FromRelay, ToRelay};
use sealwire_wire::limits::{
    ACCEPTED_KEPT_MAX, CONTACTS_MAX, DAY_MS, HELD_MAX, OUTBOX_MAX, QUARANTINE_MAX, RECEIPT_IDS_MAX,
    REQUEST_MESSAGES_MAX, REQUESTS_MAX, RESEALS_MAX, SUPERSEDED_KEYS_MAX,
};
use sealwire_wire::{EnvelopeId, InboxAddress, LogId, Position, Time};

use crate::world::{World, account_log};

fn records(world: &World, person: usize, table: Table) -> usize {
    world.people[person].disk.keys().filter(|(of, _)| *of == table).count()
}

fn text(text: &str) -> Part {
    Part::Text(text.into())
}

fn envelope(number: usize) -> EnvelopeId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    EnvelopeId(id)
}

/// An envelope that names a sender whom nobody knows, another one for each number.
fn junk(number: usize) -> Entry {
    let mut body = vec![1; 66 + 64 + 16];
    body[2..6].fill(0);
    body[6..14].copy_from_slice(&(number as u64).to_be_bytes());
    Entry::direct(envelope(number), body)
}

/// Somebody whom no relay of the test knows; what a relay would say of them is injected.
struct Stranger {
    name: String,
    /// The newest last: each has other direct keys.
    secrets: Vec<DeviceSecrets>,
    log: AccountLog,
    rng: ChaCha20Rng,
}

impl Stranger {
    fn new(number: u64) -> Stranger {
        let mut rng = ChaCha20Rng::seed_from_u64(1_000_000 + number);
        let secrets = DeviceSecrets::generate(&mut rng);
        let log = account_log(&secrets);
        Stranger { name: format!("stranger{number}"), secrets: vec![secrets], log, rng }
    }

    fn rotate(&mut self) {
        let last = self.secrets.last().unwrap();
        let next = last.with_new_direct_keys(&mut self.rng);
        let change = AccountChange::RotateDevice { device: next.device_id(), direct: next.card().direct };
        let entry = self.log.next(Time(2), change, next.device_id());
        self.log.append(sign_entry(&entry, |bytes| last.sign(bytes))).unwrap();
        self.secrets.push(next);
    }

    /// Answers the look-ups that somebody has sent since the last time.
    fn answer(&self, world: &mut World, person: usize) {
        let asked: Vec<u32> = std::mem::take(&mut world.people[person].sent)
            .into_iter()
            .filter_map(|frame| if let ToRelay::Lookup { request, .. } = frame { Some(request) } else { None })
            .collect();
        for request in asked {
            let entries = self.log.entries().iter().map(|entry| entry.0.clone()).collect();
            let devices = vec![(self.secrets[0].device_id(), InboxAddress([9; 16]))];
            world.inject(person, FromRelay::Found { request, handle: self.name.clone(), entries, devices });
        }
    }

    /// An envelope to somebody, sealed with the keys that this one had so many rotations ago.
    fn seal(&mut self, world: &World, to: usize, number: usize, rotations_ago: usize) -> Vec<u8> {
        let theirs = DeviceSecrets::from_record(&world.people[to].disk[&(Table::Own, b"secrets".to_vec())]).unwrap();
        let secrets = &self.secrets[self.secrets.len() - 1 - rotations_ago];
        let session =
            DirectSession::derive(secrets, theirs.device_id(), &theirs.direct_key(Suite::X25519), Direction::Sending);
        let content = Content::of([number as u8; 16], text(&format!("sealed {rotations_ago} rotations ago"))).encode();
        let body = session.unwrap().seal(envelope(number), 0, &content, &mut self.rng).unwrap();
        Entry::direct(envelope(number), body).encode()
    }
}

/// Somebody whose relay says nothing by itself from now on.
fn deafen(world: &mut World, person: usize) {
    world.people[person].hand = Box::new(|frame| match frame {
        FromRelay::Found { .. } | FromRelay::Failed(_) => vec![],
        other => vec![other],
    });
}

fn deliver(world: &mut World, to: usize, first: u64, entries: Vec<Vec<u8>>) {
    let log = LogId::Inbox(world.inbox(to));
    let entries =
        (first..).zip(entries).map(|(position, entry)| Delivered { position: Position(position), entry, at: Time(1) });
    let frame = FromRelay::Deliver { log, entries: entries.collect() };
    world.inject(to, frame);
}

/// L7: so much is held and no more is read; once half of it is done with, the rest is fetched again, and nothing of it
/// was lost.
#[test]
fn what_cannot_be_held_is_fetched_again() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let inbox = world.inbox(0);
    let append = |number: usize| Operation::Append(Append::to_inbox(inbox, inbox, junk(number)));
    deafen(&mut world, 0);
    world.store.commit(world.now, &(0..HELD_MAX + 1).map(append).collect::<Vec<_>>()).unwrap();
    world.cut(0);
    world.write(1, 0, "behind all of it");
    world.pass(20_000);
    assert_eq!(records(&world, 0, Table::Held), HELD_MAX);
    assert_eq!(records(&world, 0, Table::Quarantine), 0);
    world.people[0].hand = Box::new(|frame| vec![frame]);
    // Nobody has those devices; the relay says so at 120 look-ups a minute.
    world.reconnect(0);
    for _ in 0..15 {
        world.pass(60_000);
    }
    assert_eq!((records(&world, 0, Table::Held), records(&world, 0, Table::Quarantine)), (0, HELD_MAX + 1));
    assert_eq!(world.shown(0), ["hello to you", "behind all of it"]);
}

/// A day without network fits; one message more is refused by name, and one that left makes room.
#[test]
fn the_outbox_has_an_end() {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    world.people[0].hand = Box::new(|_| vec![]);
    world.cut(0);
    let to = || To::Account(world.account(1));
    let send = |to| Command::Send { to, part: text("one of many"), in_reply_to: None };
    let to = to();
    for number in 0..OUTBOX_MAX {
        assert!(world.command(0, send(to.clone())).is_ok(), "{number}");
    }
    assert_eq!(world.command(0, send(to)), Err(Refusal::OutboxFull));
}

/// HP-02, P: one stranger's request holds so many messages; the rest is rejected, and learns nothing.
#[test]
fn one_request_holds_so_many_messages() {
    let mut world = World::of(&["alice", "bob"]);
    for number in 0..=REQUEST_MESSAGES_MAX {
        world.write(1, 0, &format!("{number}"));
    }
    world.pass(10_000);
    assert_eq!(world.shown(0).len(), REQUEST_MESSAGES_MAX);
    let rejected = |event: &Event| matches!(event, Event::Quarantined { reason: QuarantineReason::NotAccepted, .. });
    assert_eq!(world.people[0].events.iter().filter(|event| rejected(event)).count(), 1);
}

/// P: so many strangers wait for a decision, and no more; but whoever is blocked waits for nothing, so that a hundred
/// blocked ones do not close the door.
#[test]
fn blocked_strangers_leave_the_door_open() {
    let names: Vec<String> = (0..REQUESTS_MAX + 2).map(|number| format!("stranger{number}")).collect();
    let mut world = World::of(&["alice"]);
    for name in &names {
        let stranger = world.add(name);
        world.write(stranger, 0, name);
    }
    world.pass(5_000);
    let shown = world.shown(0);
    assert_eq!(shown, names[..REQUESTS_MAX], "at the limit, and one past it");
    let stranger = world.account(1);
    world.command(0, Command::Block(stranger)).unwrap();
    world.write(REQUESTS_MAX + 2, 0, "in the place of one that was blocked");
    assert_eq!(world.shown(0).last().unwrap(), "in the place of one that was blocked");
}

/// L7: of rejected envelopes so many are remembered; then the oldest go.
#[test]
fn the_quarantine_is_a_ring() {
    let mut world = World::of(&["alice"]);
    let more = 3;
    for first in (0..QUARANTINE_MAX + more).step_by(500) {
        let bodies = (first..(first + 500).min(QUARANTINE_MAX + more))
            .map(|number| Entry::direct(envelope(number as usize), vec![]).encode());
        deliver(&mut world, 0, first + 1, bodies.collect());
    }
    assert_eq!(records(&world, 0, Table::Quarantine), QUARANTINE_MAX as usize);
    let kept = world.people[0].disk.iter().filter(|((table, _), _)| *table == Table::Quarantine);
    let mut kept: Vec<_> = kept.map(|(_, value)| StoredQuarantine::decode(value).unwrap().envelope.unwrap()).collect();
    kept.sort();
    assert_eq!(kept.first(), Some(&envelope(more as usize)));
    assert_eq!(kept.last(), Some(&envelope((QUARANTINE_MAX + more) as usize - 1)));
}

/// L11: of what was accepted and never confirmed, so much is kept, on a connection that never ends, too.
#[test]
fn what_nobody_confirms_is_kept_within_a_limit() {
    let mut world = World::of(&["alice", "bob"]);
    for number in 0..ACCEPTED_KEPT_MAX + 2 {
        world.write(0, 1, &format!("{number}"));
    }
    assert!(records(&world, 0, Table::Outgoing) >= ACCEPTED_KEPT_MAX + 2);
    world.pass(301_000);
    assert_eq!(records(&world, 0, Table::Outgoing), ACCEPTED_KEPT_MAX);
    assert_eq!(world.state(0, 1), Some(MessageState::Accepted), "and the oldest is still known to be accepted");
}

/// P: an account has so many contacts and no more.
#[test]
fn contacts_have_an_end() {
    let mut world = World::of(&["alice"]);
    deafen(&mut world, 0);
    world.people[0].sent.clear();
    let find = |world: &mut World, number: u64| {
        let stranger = Stranger::new(number);
        let handle = sealwire_wire::handle::Handle::parse(&format!("{}@relay", stranger.name)).unwrap();
        assert_eq!(world.try_command(0, Command::Find(handle)), None, "the relay is asked first");
        stranger.answer(world, 0);
        world.people[0].replies.pop().unwrap()
    };
    for number in 0..CONTACTS_MAX as u64 {
        assert!(find(&mut world, number).is_ok(), "{number}");
        world.people[0].events.clear();
        // The presence token for each would wait in the outbox.
        world.people[0].sent.clear();
    }
    assert_eq!(find(&mut world, CONTACTS_MAX as u64), Err(Refusal::TooManyContacts));
}

/// D3: content is sealed again when its receiver's keys were replaced, so often and no more.
#[test]
fn content_is_sealed_again_so_often() {
    let mut world = World::of(&["alice"]);
    deafen(&mut world, 0);
    world.people[0].sent.clear();
    let mut sam = Stranger::new(1);
    let handle = sealwire_wire::handle::Handle::parse(&format!("{}@relay", sam.name)).unwrap();
    world.command(0, Command::Send { to: To::Handle(handle), part: text("again"), in_reply_to: None }).unwrap();
    sam.answer(&mut world, 0);
    let mut sealed = std::collections::BTreeSet::new();
    let take = |world: &mut World, sealed: &mut std::collections::BTreeSet<EnvelopeId>| {
        for entry in world.people[0].appends() {
            let envelope = Entry::decode(&entry).unwrap().envelope;
            sealed.insert(envelope);
            world.inject(0, FromRelay::Accepted { envelope, position: Position(1) });
        }
    };
    take(&mut world, &mut sealed);
    // The token that goes with a first message.
    take(&mut world, &mut sealed);
    for rotation in 1..=RESEALS_MAX + 3 {
        let before = sealed.len();
        sam.rotate();
        world.reconnect(0);
        sam.answer(&mut world, 0);
        take(&mut world, &mut sealed);
        assert_eq!(sealed.len() - before, usize::from(rotation <= RESEALS_MAX), "rotation {rotation}");
    }
}

/// Direct mode, step 2: the newest replaced keys of a sender still open what they sealed; older ones do not.
#[test]
fn replaced_keys_open_so_far_back() {
    let mut world = World::of(&["alice"]);
    deafen(&mut world, 0);
    let mut sam = Stranger::new(1);
    // Each rotation replaces a key of both suites.
    let rotations = SUPERSEDED_KEYS_MAX / Suite::ALL.len();
    (0..rotations + 1).for_each(|_| sam.rotate());
    for (position, (number, ago)) in (1..).zip([(1, rotations), (2, rotations + 1)]) {
        world.people[0].sent.clear();
        let entry = sam.seal(&world, 0, number, ago);
        deliver(&mut world, 0, position, vec![entry]);
        sam.answer(&mut world, 0);
    }
    assert_eq!(world.shown(0), [format!("sealed {rotations} rotations ago")]);
    assert!(
        world.people[0]
            .saw(|event| *event
                == Event::Quarantined { envelope: Some(envelope(2)), reason: QuarantineReason::OtherKey })
    );
}

/// C12: one receipt names so many messages; more go in a second one.
#[test]
fn a_receipt_names_so_many_messages() {
    for (messages, receipts) in [(RECEIPT_IDS_MAX, 1), (RECEIPT_IDS_MAX + 1, 2)] {
        let mut world = World::of(&["alice", "bob"]);
        world.befriend(0, 1);
        // Bob's inputs come at one moment, so that one receipt is due for all.
        for number in 0..messages {
            world.write(0, 1, &format!("{number}"));
        }
        world.people[1].sent.clear();
        world.pass(6_000);
        assert_eq!(world.people[1].appends().len(), receipts, "for {messages}");
        assert!(world.people[1].appends().iter().all(|entry| {
            let Body::Inline(body) = Entry::decode(entry).unwrap().body else { return false };
            Header::parse(&body).is_ok()
        }));
    }
}

/// L11: what a relay had accepted, lost, and knows no receiver for, is given up after as long as messages live.
#[test]
fn what_was_lost_for_good_is_told_after_30_days() {
    let (mut world, number) = World::that_lost_a_receiver();
    world.now = world.now.plus(29 * DAY_MS);
    world.pass(2_000);
    assert_eq!(world.state(0, number), Some(MessageState::Queued));
    world.now = world.now.plus(2 * DAY_MS);
    world.pass(2_000);
    assert_eq!(world.state(0, number), Some(MessageState::Unsent));
}
