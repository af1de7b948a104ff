//! One message of direct mode, step by step, for somebody who has never seen this. Everything shown is computed here and
//! now; secrets are made, used and thrown away, and only what is public is printed.

use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};
use sealwire_keys::{
    AccountEntry, AccountKind, AccountLog, Change, SafetyNumber, Suite, content_id, one_to_one, sign_entry,
};
use sealwire_session::DeviceSecrets;
use sealwire_session::direct::{DirectSession, Direction, Header, OVERHEAD};
use sealwire_wire::content::Content;
use sealwire_wire::entry::Entry;
use sealwire_wire::frame::ToRelay;
use sealwire_wire::padding::padded_length;
use sealwire_wire::{AccountId, EnvelopeId, InboxAddress, LogId, Time};

const TEXT: &str = "Meet me at the old lighthouse at nine.";

/// Prints the walk. True if every step came out as it says.
pub fn explain() -> bool {
    let rng = &mut UnwrapErr(SysRng);
    println!("One message from Alice to Bob in direct mode, step by step. Secrets are made now and printed nowhere.");

    head(1, "Each device makes its own keys");
    let (alice, bob) = (DeviceSecrets::generate(rng), DeviceSecrets::generate(rng));
    say("Three private keys each: Ed25519 to sign with, P-256 and X25519 to agree with. They never leave.");

    head(2, "The public halves are published, signed");
    let (alice_log, bob_log) = (publish(&alice), publish(&bob));
    say(
        "The first entry of an account log lists them; its hash is the account's id, so nobody can swap the keys in it.",
    );
    show("Alice's account", &alice_log.id().to_string());
    show("Bob's account", &bob_log.id().to_string());
    show("Bob's X25519 key", &hex(bob.direct_key(Suite::X25519).as_bytes()));
    say("The relay stores this and hands it out, also while Bob is away. To know that it is Bob's, compare with him:");
    SafetyNumber::of(alice_log.id(), bob_log.id()).to_string().lines().for_each(|line| println!("      {line}"));

    head(3, "Both derive the same key, and nobody sends it");
    let key = bob.direct_key(Suite::X25519);
    let sending = DirectSession::derive(&alice, bob.device_id(), &key, Direction::Sending);
    let receiving =
        DirectSession::derive(&bob, alice.device_id(), &alice.direct_key(Suite::X25519), Direction::Receiving);
    let (Ok(sending), Ok(receiving)) = (sending, receiving) else { return false };
    say("Alice: X25519(her private key, Bob's public one). Bob: X25519(his private key, Alice's public one). Equal.");
    say(
        "That raw secret is never a key: HKDF-SHA-256 turns it into 32 bytes of key and 32 bytes of commitment, bound to",
    );
    say(
        "suite, both devices, both keys and the direction. The commitments, which are public, show that both have the same:",
    );
    show("Alice has", &hex(&sending.commitment().0));
    show("Bob has", &hex(&receiving.commitment().0));

    head(4, "The message is packed, padded and sealed");
    let mut salt = [0; 16];
    rng.fill_bytes(&mut salt);
    let content = Content::text(salt, TEXT).encode();
    let mut id = [0; 16];
    rng.fill_bytes(&mut id);
    let envelope = EnvelopeId(id);
    let Ok(body) = sending.seal(envelope, 0, &content, rng) else { return false };
    let Ok(header) = Header::parse(&body) else { return false };
    show("the text", TEXT);
    show(
        "as content",
        &format!(
            "{} bytes of CBOR, padded to {}: its exact length stays inside",
            content.len(),
            padded_length(content.len())
        ),
    );
    show("its content id", &content_id(one_to_one(alice_log.id(), bob_log.id()), alice_log.id(), &content).to_string());
    show("counter", &header.counter.to_string());
    show("random IV", &hex(&body[54..66]));
    show("ciphertext, tag", &wrap(&hex(&body[66..])));

    head(5, "What the relay gets");
    let entry = Entry::direct(envelope, body.clone());
    let mut inbox = [0; 16];
    rng.fill_bytes(&mut inbox);
    let frame =
        ToRelay::Append { log: LogId::Inbox(InboxAddress(inbox)), entry: entry.encode(), roster: None }.encode();
    show(
        "one frame",
        &format!(
            "{} bytes: {} more than the padded text, {OVERHEAD} of them sealing",
            frame.len(),
            frame.len() - padded_length(content.len())
        ),
    );
    show("for the inbox", &hex(&inbox));
    say("It learns who wrote to whom, when, and a length bucket. It cannot read, alter or forge.");
    let blind = !frame.windows(10).any(|window| TEXT.as_bytes().windows(10).any(|part| part == window));
    show("the text in it?", if blind { "no" } else { "YES: this is a bug" });

    head(6, "Bob opens it");
    let opened = receiving.open(envelope, &body).ok().and_then(|bytes| Content::decode(&bytes).ok());
    let arrived = opened == Some(Content::text(salt, TEXT));
    show("Bob reads", if arrived { TEXT } else { "nothing: this is a bug" });

    head(7, "What a flipped bit does");
    let refused = (0..body.len() * 8).filter(|bit| {
        let mut flipped = body.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        receiving.open(envelope, &flipped).is_err()
    });
    let refused = refused.count();
    show("flipped, each once", &format!("{} bits", body.len() * 8));
    show("rejected", &format!("{refused}: the tag covers everything, and nothing is shown before it has verified"));
    println!("\nWritten down for implementers in spec/direct.md, with vectors in spec/vectors/.");
    blind && arrived && refused == body.len() * 8
}

fn publish(device: &DeviceSecrets) -> AccountLog {
    let genesis = AccountEntry {
        account: AccountId([0; 32]),
        number: 0,
        previous: [0; 32],
        at: Time(0),
        change: Change::Genesis { kind: AccountKind::Person, device: device.card() },
        signer: device.device_id(),
    };
    AccountLog::begin(sign_entry(&genesis, |bytes| device.sign(bytes))).expect("a device's own genesis entry verifies")
}

fn head(number: u32, title: &str) {
    println!("\n{number}. {title}");
}

fn say(text: &str) {
    println!("   {text}");
}

fn show(name: &str, value: &str) {
    println!("   {name:>18}  {value}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Long hexadecimal, in lines below each other.
fn wrap(text: &str) -> String {
    let lines: Vec<_> = text.as_bytes().chunks(80).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    lines.join("\n                       ")
}
