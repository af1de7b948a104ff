//! Mutations (M6, L7, HR-05, HR-08): of each sealed and each signed type, every bit flipped, every prefix, extensions,
//! every other type in its place, reflected, replayed after a restart, with keys and signatures that nobody may use.
//! Nothing is accepted, the stored state differs in nothing but cursor and quarantine, nothing panics, and the original
//! still opens. Each test says how many cases it tried.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::rc::Rc;

use ed25519_dalek::{Signer, SigningKey};
use sealwire_engine::*;
use sealwire_keys::{AccountError, AccountLog, Change as AccountChange, HeadToBeSigned, SignedEntry, sign_entry};
use sealwire_relay_core::{Connection, Decision, Input as RelayInput, serve};
use sealwire_session::DeviceSecrets;
use sealwire_wire::content::Part;
use sealwire_wire::frame::{Delivered, FromRelay, ToRelay};
use sealwire_wire::label::Label;
use sealwire_wire::{Chain, ConversationId, LogId, Position, Time};

use crate::world::{Records, World, account_log, load};

/// Said past the test's captured output: whoever runs the tests sees what was tried.
fn tried(what: &str, cases: usize, at_least: usize) {
    writeln!(std::io::stderr(), "mutations: {cases} cases of {what}, none accepted").unwrap();
    assert!(cases >= at_least, "{cases} of {what}");
}

/// Every bit flipped, every prefix, extensions of several kinds, and the others in its place.
fn mutations<'a>(original: &'a [u8], others: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Vec<u8>> {
    let flips = (0..original.len() * 8).map(|bit| {
        let mut flipped = original.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    });
    let prefixes = (0..original.len()).map(|end| original[..end].to_vec());
    let tails = [vec![0], vec![0xff], vec![0; 16], original.to_vec(), vec![0x5a; 4_096]];
    let extensions = tails.into_iter().map(|tail| [original, &tail].concat());
    let others = others.into_iter().filter(|other| *other != original).cloned();
    flips.chain(prefixes).chain(extensions).chain(others).collect()
}

/// What may differ after a rejection: cursor, quarantine.
fn without_cursor(disk: &Records) -> Records {
    let mut disk = disk.clone();
    disk.retain(|(table, key), _| *table != Table::Quarantine && (*table, &key[..]) != (Table::Own, b"progress"));
    disk
}

/// The kinds of content that direct mode seals, each with whoever gets it.
const SEALED: [(&str, usize); 4] = [("text", 1), ("bytes", 1), ("a receipt", 0), ("a presence token", 0)];

/// Alice and Bob, who know each other, and an envelope of one kind that its reader was not given yet.
fn captured(kind: &str, reader: usize) -> (World, Position, Vec<u8>) {
    let mut world = World::of(&["alice", "bob"]);
    world.befriend(0, 1);
    let caught: Rc<RefCell<Vec<Delivered>>> = Rc::default();
    let keep = Rc::clone(&caught);
    world.people[reader].hand = Box::new(move |frame| match frame {
        FromRelay::Deliver { entries, .. } => {
            keep.borrow_mut().extend(entries);
            vec![]
        }
        other => vec![other],
    });
    match kind {
        "text" => drop(world.write(0, 1, "the original")),
        "bytes" => {
            let part = Part::Bytes { media_type: String::new(), bytes: vec![7; 40] };
            let to = To::Handle(world.people[1].handle.clone());
            world.command(0, Command::Send { to, part, in_reply_to: None }).unwrap();
        }
        "a receipt" => {
            world.write(0, 1, "to be confirmed");
            world.pass(6_000);
        }
        _ => {
            world.command(1, Command::SetPresence(true)).unwrap();
        }
    }
    let first = caught.borrow_mut().drain(..).next().expect("something was delivered");
    world.people[reader].hand = Box::new(|frame| vec![frame]);
    (world, first.position, first.entry)
}

fn give(world: &mut World, to: usize, position: Position, entry: Vec<u8>) {
    let profile = load(&world.people[to].disk).unwrap().profile();
    let entries = vec![Delivered { position, entry, at: Time(1) }];
    world.inject(to, FromRelay::Deliver { log: LogId::Inbox(profile.inbox), entries });
}

#[test]
fn no_mutation_of_an_envelope_is_accepted() {
    let originals: BTreeMap<&str, Vec<u8>> =
        SEALED.into_iter().map(|(kind, reader)| (kind, captured(kind, reader).2)).collect();
    let owner = Owner::new(1);
    let signed = [owner.log.entries()[0].0.clone(), owner.rotate().0];
    let mut cases = 0;
    for (kind, reader) in SEALED {
        let (mut world, position, entry) = captured(kind, reader);
        // The kinds that are for the other one, whose keys are the same in every world here, and what is no envelope.
        let for_the_other = SEALED.iter().filter(|(_, other)| *other != reader).map(|(other, _)| &originals[other]);
        let others = for_the_other.chain(&signed);
        let before = without_cursor(&world.people[reader].disk);
        let mut next = position;
        for mutation in mutations(&entry, others) {
            give(&mut world, reader, next, mutation);
            world.pass(1_000);
            assert!(without_cursor(&world.people[reader].disk) == before, "{kind}, case {cases}");
            (next, cases) = (next.next(), cases + 1);
        }
        // Sent back to whoever sealed it.
        let sealer = 1 - reader;
        world.reconnect(sealer);
        let sealers = without_cursor(&world.people[sealer].disk);
        give(&mut world, sealer, Position(1_000), entry.clone());
        world.pass(1_000);
        assert!(without_cursor(&world.people[sealer].disk) == sealers, "{kind}, reflected");
        // The original still opens, and only once, whatever restarts.
        give(&mut world, reader, next, entry.clone());
        assert!(without_cursor(&world.people[reader].disk) != before, "{kind}: the original has no effect");
        world.pass(6_000);
        let shown = world.shown(reader);
        let history = |world: &World| {
            let rows = world.people[reader].disk.iter();
            let kept = [Table::Message, Table::Sent, Table::Contact, Table::Seen];
            rows.filter(|((table, _), _)| kept.contains(table)).map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>()
        };
        let once = history(&world);
        for _ in 0..3 {
            let disk = world.people[reader].disk.clone();
            world.restart_with(reader, disk);
            world.pass(5_000);
            next = next.next();
            give(&mut world, reader, next, entry.clone());
            world.pass(6_000);
            assert!(world.shown(reader) == shown && history(&world) == once, "{kind}, replayed");
            cases += 1;
        }
        cases += 1;
    }
    tried("envelopes", cases, 5_000);
}

struct Owner {
    secrets: DeviceSecrets,
    log: AccountLog,
}

impl Owner {
    /// Keys that a record of 96 bytes gives, and an account that has rotated once.
    fn new(seed: u8) -> Owner {
        let secrets = DeviceSecrets::from_record(&[&[1][..], &[seed; 96]].concat()).unwrap();
        let log = account_log(&secrets);
        Owner { secrets, log }
    }

    fn signed(&self, change: AccountChange) -> SignedEntry {
        let entry = self.log.next(Time(2), change, self.secrets.device_id());
        sign_entry(&entry, |bytes| self.secrets.sign(bytes))
    }

    fn rotate(&self) -> SignedEntry {
        let direct = DeviceSecrets::from_record(&[&[1][..], &[77; 96]].concat()).unwrap().card().direct;
        self.signed(AccountChange::RotateDevice { device: self.secrets.device_id(), direct })
    }

    /// Signs altered bytes of an entry anew, so that only what was altered can be what is refused.
    fn resigned(&self, signed: &SignedEntry, alter: impl FnOnce(&mut Vec<u8>)) -> SignedEntry {
        let mut body = signed.0[..signed.0.len() - 64].to_vec();
        alter(&mut body);
        let signature = self.secrets.sign(&[Label::ACCOUNT_ENTRY.prefix(), body.clone()].concat());
        SignedEntry([body, signature.to_vec()].concat())
    }
}

#[test]
fn no_mutation_of_an_account_log_is_accepted() {
    let owner = Owner::new(1);
    let genesis = owner.log.entries()[0].clone();
    let kinds =
        [("genesis", genesis.clone()), ("rotate", owner.rotate()), ("retire", owner.signed(AccountChange::Retire))];
    let envelope = captured("text", 1).2;
    let mut cases = 0;
    for (kind, original) in &kinds {
        let others = kinds.iter().map(|(_, other)| &other.0).chain([&envelope]);
        for mutation in mutations(&original.0, others) {
            let mutation = SignedEntry(mutation);
            let mut pinned = owner.log.clone();
            // As a contact's pinned log would be continued, and as a first contact would be told.
            match *kind {
                "genesis" => {
                    assert!(pinned.advance(std::slice::from_ref(&mutation)).is_err(), "{kind}, case {cases}");
                    let taken = AccountLog::begin(mutation).ok();
                    assert!(taken.is_none_or(|log| log.id() != owner.log.id()), "{kind}, case {cases}");
                }
                // Of another kind, and signed by the owner for this place: that is what was meant by it.
                _ if kinds.iter().any(|(_, other)| *other == mutation && *other != genesis) => continue,
                _ => {
                    let log = [genesis.clone(), mutation];
                    assert!(pinned.advance(&log).is_err() && AccountLog::verify(log).is_err(), "{kind}, case {cases}");
                }
            }
            assert_eq!(pinned, owner.log, "{kind}, case {cases}");
            cases += 1;
        }
        let mut pinned = owner.log.clone();
        if *kind != "genesis" {
            pinned.append(original.clone()).unwrap();
        }
    }
    tried("account logs", cases, 5_000);
}

/// HR-05: keys that nobody may use, in entries that are otherwise as they should be and properly signed.
#[test]
fn no_unusable_key_or_signature_is_accepted() {
    let owner = Owner::new(1);
    let (genesis, rotate) = (owner.log.entries()[0].clone(), owner.rotate());
    let card = owner.secrets.card();
    let new = DeviceSecrets::from_record(&[&[1][..], &[77; 96]].concat()).unwrap().card();
    let little = |low: u8| {
        let mut bytes = vec![0; 32];
        bytes[0] = low;
        bytes
    };
    // 2^255 - 19 plus or minus a little.
    let near_p = |low: u8| {
        let mut bytes = vec![0xff; 32];
        (bytes[0], bytes[31]) = (low, 0x7f);
        bytes
    };
    let order_8 = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
    let order_8: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&order_8[2 * i..2 * i + 2], 16).unwrap()).collect();
    let mut high_bit = new.direct[0].as_bytes().to_vec();
    high_bit[31] |= 0x80;
    let x25519 = [vec![0; 32], little(1), near_p(0xec), near_p(0xed), near_p(0xee), vec![0xff; 32], order_8, high_bit];
    let mut off_curve = new.direct[1].as_bytes().to_vec();
    off_curve[64] ^= 1;
    let form = |first: u8| {
        let mut bytes = new.direct[1].as_bytes().to_vec();
        bytes[0] = first;
        bytes
    };
    let p256 = [vec![0; 65], vec![0xff; 65], off_curve, form(0), form(2), form(3), form(5), form(6), form(7)];
    let ed25519 = [vec![0; 32], little(1), near_p(0xec), near_p(0xed), near_p(0xee), vec![0xff; 32]];
    let mut cases = 0;
    let replaced = |signed: &SignedEntry, old: &[u8], bad: &[u8]| {
        owner.resigned(signed, |body| {
            let at = body.windows(old.len()).position(|window| window == old).expect("the key is in the entry");
            body[at..at + old.len()].copy_from_slice(bad);
        })
    };
    let direct = x25519.iter().map(|bad| (0, bad)).chain(p256.iter().map(|bad| (1, bad)));
    for (which, bad) in direct {
        let begun = AccountLog::begin(replaced(&genesis, card.direct[which].as_bytes(), bad));
        assert!(matches!(begun, Err(AccountError::Key(_))), "{bad:?}: {begun:?}");
        let rotated = owner.log.clone().append(replaced(&rotate, new.direct[which].as_bytes(), bad));
        assert!(matches!(rotated, Err(AccountError::Key(_))), "{bad:?}: {rotated:?}");
        cases += 2;
    }
    for bad in ed25519 {
        let begun = AccountLog::begin(replaced(&genesis, &card.key.to_bytes(), &bad));
        assert!(matches!(begun, Err(AccountError::Key(_))), "{bad:?}: {begun:?}");
        cases += 1;
    }
    // Signatures: none, with s raised by the group's order (malleable), of a small-order R, of every other length.
    let signature = rotate.0[rotate.0.len() - 64..].to_vec();
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    let mut raised = signature.clone();
    for (byte, add) in raised[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    let small_r = [little(1), vec![0; 32]].concat();
    let lengths = (0..128).filter(|length| *length != 64).map(|length| vec![signature[length % 64]; length]);
    for bad in [vec![0; 64], vec![0xff; 64], raised, small_r].into_iter().chain(lengths) {
        let altered = SignedEntry([&rotate.0[..rotate.0.len() - 64], &bad].concat());
        assert!(owner.log.clone().append(altered).is_err(), "{bad:?}");
        cases += 1;
    }
    tried("unusable keys and signatures", cases, 150);
}

/// N1: the relay's side of a log-in.
#[test]
fn no_mutation_of_a_log_in_is_accepted() {
    let mut world = World::of(&["alice"]);
    let hellos: Rc<RefCell<Vec<FromRelay>>> = Rc::default();
    let keep = Rc::clone(&hellos);
    world.people[0].hand = Box::new(move |frame| {
        keep.borrow_mut().push(frame.clone());
        vec![frame]
    });
    // The challenge comes from Alice's own dice, so that a connection with the same one can be opened again.
    world.people[0].sent.clear();
    world.reconnect(0);
    let FromRelay::Hello(hello) = hellos.borrow()[0].clone() else { panic!("no hello") };
    let sent = world.people[0].sent.iter().find(|frame| matches!(frame, ToRelay::LogIn { .. })).unwrap().encode();
    let others: Vec<Vec<u8>> = world.people[0].sent.iter().map(ToRelay::encode).filter(|f| *f != sent).collect();
    let logs_in = |world: &World, bytes: Vec<u8>| {
        let (mut connection, opened) = Connection::open(&world.relay, world.now, hello.challenge, None, None);
        let is_taken = |frame: &FromRelay| matches!(frame, FromRelay::LoggedIn(_));
        serve(&mut connection, opened, &world.store, world.now);
        let decisions = connection.handle(RelayInput::Bytes(bytes), world.now);
        let at_once = decisions.iter().any(|d| matches!(d, Decision::Send(frame) if is_taken(frame)));
        at_once || serve(&mut connection, decisions, &world.store, world.now).frames.iter().any(is_taken)
    };
    let (before, mut cases) = (world.store.snapshot(), 0);
    for mutation in mutations(&sent, &others) {
        // The same fields under another spelling are the same log-in: what was signed has not changed.
        if ToRelay::decode(&mutation).is_ok_and(|frame| frame.encode() == sent) {
            continue;
        }
        assert!(!logs_in(&world, mutation), "case {cases}");
        cases += 1;
    }
    world.store.restore(&before);
    assert!(logs_in(&world, sent), "the original is taken");
    tried("log-ins", cases, 1_000);
}

/// L6: what a relay signs of a conversation log.
#[test]
fn no_mutation_of_a_signed_head_is_accepted() {
    let key = SigningKey::from_bytes(&[9; 32]);
    let head = HeadToBeSigned { conversation: ConversationId([1; 32]), length: Position(7), chain: Chain([3; 32]) };
    let (public, signature) = (key.verifying_key().to_bytes(), key.sign(&head.encode()).to_bytes());
    head.verify(&public, &signature).unwrap();
    let mut cases = 0;
    for mutation in mutations(&signature, &[]) {
        assert!(head.verify(&public, &mutation).is_err(), "case {cases}");
        cases += 1;
    }
    for bit in 0..256 {
        let flip = |bytes: [u8; 32]| {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        assert!(head.verify(&flip(public), &signature).is_err());
        assert!(HeadToBeSigned { chain: Chain(flip(head.chain.0)), ..head }.verify(&public, &signature).is_err());
        let length = Position(head.length.0 ^ (1 << (bit % 64)));
        assert!(HeadToBeSigned { length, ..head }.verify(&public, &signature).is_err());
        cases += 3;
    }
    tried("signed heads", cases, 1_000);
}
