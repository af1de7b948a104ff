//! `spec/vectors/*.json`: inputs and outputs as text, for every implementation, ours included. `cargo xtask vectors` (or
//! `SEALWIRE_UPDATE=1`) writes them again after a change of the law; otherwise they are compared to the byte, and each is
//! read back and checked the way a stranger would.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "vectors/conversations.rs"]
mod conversations;
#[path = "vectors/linking.rs"]
mod linking;

use std::path::PathBuf;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sealwire_keys::{
    AccountEntry, AccountKind, AccountLog, Change, DeviceKey, DirectKey, LogInToBeSigned, SafetyNumber, SignedEntry,
    Suite, chain_start, chain_step, content_id, group_id, one_to_one, roster_hash, sign_entry,
};
use sealwire_session::DeviceSecrets;
use sealwire_session::direct::{DirectSession, Direction, Header};
use sealwire_wire::content::{BYTES, Content, Part, Status};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::handle::{Handle, Name};
use sealwire_wire::padding::{pad, padded_length, unpad};
use sealwire_wire::{
    AccountId, BlobHash, ContentId, ConversationId, EnvelopeId, InboxAddress, Incarnation, Position, Time,
};
use serde_json::{Value, json};

fn check(name: &str, vectors: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors").join(name);
    let text = format!("{vectors:#}\n");
    if std::env::var_os("SEALWIRE_UPDATE").is_some() {
        #[expect(clippy::disallowed_methods, reason = "on request, the committed file is written anew")]
        std::fs::write(&path, &text).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap() == text, "{name} is not what the code does: cargo xtask vectors");
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// Keys made from the text of a vector: 32 bytes each for Ed25519, P-256 and X25519.
fn device(byte: u8) -> DeviceSecrets {
    DeviceSecrets::from_record(&[&[1][..], &[byte; 96]].concat()).unwrap()
}

fn device_json(byte: u8) -> Value {
    let device = device(byte);
    json!({
        "ed25519_secret": hex([byte; 32]),
        "p256_secret": hex([byte; 32]),
        "x25519_secret": hex([byte; 32]),
        "ed25519_public": hex(device.key().to_bytes()),
        "p256_public": hex(device.direct_key(Suite::P256).as_bytes()),
        "x25519_public": hex(device.direct_key(Suite::X25519).as_bytes()),
        "device_id": device.device_id().to_string(),
        "device_hint": device.device_id().hint().to_string(),
    })
}

fn genesis(device: &DeviceSecrets) -> SignedEntry {
    let entry = AccountEntry {
        account: AccountId([0; 32]),
        number: 0,
        previous: [0; 32],
        at: Time(1_790_000_000_000),
        change: Change::Genesis { kind: AccountKind::Person, device: device.card() },
        signer: device.device_id(),
    };
    sign_entry(&entry, |bytes| device.sign(bytes))
}

#[test]
fn vectors_of_direct_mode() {
    let (alice, bob) = (device(0x11), device(0x22));
    let mut cases = Vec::new();
    for suite in Suite::ALL {
        let sending =
            DirectSession::derive(&alice, bob.device_id(), &bob.direct_key(suite), Direction::Sending).unwrap();
        let receiving =
            DirectSession::derive(&bob, alice.device_id(), &alice.direct_key(suite), Direction::Receiving).unwrap();
        let envelope = EnvelopeId([0x33; 16]);
        let content = Content::text([0x44; 16], "Hello, Bob").encode();
        let body = sending.seal(envelope, 7, &content, &mut rng(suite as u64)).unwrap();
        assert_eq!(receiving.open(envelope, &body).unwrap(), content);
        let refused = |what: &str, altered: Vec<u8>| {
            let error = receiving.open(envelope, &altered).unwrap_err();
            json!({ "what": what, "body": hex(&altered), "error": format!("{error:?}") })
        };
        let change = |at: usize, by: u8| {
            let mut altered = body.clone();
            altered[at] ^= by;
            altered
        };
        let negative = vec![
            refused("version 2", change(0, 3)),
            refused("unknown suite", change(1, 0x70)),
            refused("another counter", change(5, 1)),
            refused("another sender", change(6, 1)),
            refused("another commitment", change(22, 1)),
            refused("another IV", change(54, 1)),
            refused("ciphertext altered", change(70, 1)),
            refused("tag altered", change(body.len() - 1, 1)),
            refused("tag one byte short", body[..body.len() - 1].to_vec()),
            refused("no tag", body[..body.len() - 16].to_vec()),
            refused("one byte more", [&body[..], &[0]].concat()),
            refused("empty", Vec::new()),
        ];
        let header = Header::parse(&body).unwrap();
        assert_eq!((header.counter, header.commitment), (7, sending.commitment()));
        let (shared, info, okm) = derivation(suite, &alice, &bob);
        assert_eq!(okm[32..], sending.commitment().0);
        cases.push(json!({
            "shared": hex(shared),
            "info": hex(info),
            "key": hex(&okm[..32]),
            "suite": suite as u8,
            "suite_name": format!("{suite:?}"),
            "commitment": hex(sending.commitment().0),
            "key_id": hex(sending.commitment().key_id()),
            "envelope_id": envelope.to_string(),
            "counter": 7,
            "content": hex(&content),
            "padded": hex(pad(&content).unwrap()),
            "body": hex(&body),
            "entry": hex(Entry::direct(envelope, body.clone()).encode()),
            "refused": negative,
        }));
    }
    check("direct.json", &json!({ "sender": device_json(0x11), "recipient": device_json(0x22), "cases": cases }));
}

/// D1, by hand from the crates below: the shared secret, `info`, and the 64 bytes that come of them.
fn derivation(suite: Suite, alice: &DeviceSecrets, bob: &DeviceSecrets) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let (own, theirs) = (alice.direct_key(suite), bob.direct_key(suite));
    let shared = match suite {
        Suite::P256 => {
            let secret = p256::SecretKey::from_slice(&[0x11; 32]).unwrap();
            let theirs = p256::PublicKey::from_sec1_bytes(theirs.as_bytes()).unwrap();
            p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), theirs.as_affine()).raw_secret_bytes().to_vec()
        }
        Suite::X25519 => x25519_dalek::x25519([0x11; 32], theirs.as_bytes().try_into().unwrap()).to_vec(),
    };
    let label = b"sealwire/v1/direct-key";
    let mut info = [&[label.len() as u8], &label[..], &[1, suite as u8]].concat();
    info.extend([alice.device_id().0, bob.device_id().0].concat());
    for key in [own, theirs] {
        info.push(key.as_bytes().len() as u8);
        info.extend_from_slice(key.as_bytes());
    }
    let mut okm = vec![0; 64];
    hkdf::Hkdf::<sha2::Sha256>::new(None, &shared).expand(&info, &mut okm).unwrap();
    (shared, info, okm)
}

/// HR-05: keys that nobody may use, and why.
fn refused_keys() -> Vec<Value> {
    let p = [&[0xed], &[0xff; 30][..], &[0x7f]].concat();
    let altered = |bytes: &[u8], at: usize, by: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= by;
        bytes
    };
    let p256 = device(0x11).direct_key(Suite::P256).as_bytes().to_vec();
    let order_8 = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
    let direct = [
        (Suite::X25519, "zero", vec![0; 32]),
        (Suite::X25519, "one, of order 4", [&[1][..], &[0; 31]].concat()),
        (Suite::X25519, "of order 8", unhex(&json!(order_8))),
        (Suite::X25519, "p - 1, of order 4", altered(&p, 0, 1)),
        (Suite::X25519, "p, another form of zero", p.clone()),
        (Suite::X25519, "9 + p, another form of 9", altered(&p, 0, 0xed ^ 0xf6)),
        (Suite::X25519, "9 with the unused bit", [&[9][..], &[0; 30], &[0x80]].concat()),
        (Suite::X25519, "31 bytes", vec![9; 31]),
        (Suite::P256, "off the curve", altered(&p256, 64, 1)),
        (Suite::P256, "hybrid form", altered(&p256, 0, 0x04 ^ 0x06)),
        (Suite::P256, "compressed", [&[0x02], &p256[1..33]].concat()),
        (Suite::P256, "all zero", vec![0; 65]),
        (Suite::P256, "infinity", vec![0]),
    ];
    let direct = direct.into_iter().map(|(suite, what, key)| {
        let error = DirectKey::parse(suite, &key).unwrap_err();
        json!({ "suite": suite as u8, "what": what, "key": hex(key), "error": format!("{error:?}") })
    });
    let ed25519 = [
        ("the identity", [&[1][..], &[0; 31]].concat()),
        ("y = 0, of order 4", vec![0; 32]),
        ("y = p, another form of 0", p.clone()),
        ("y = p + 1, another form of the identity", altered(&p, 0, 0xed ^ 0xee)),
        ("of order 8", unhex(&json!("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"))),
        ("off the curve", [&[2][..], &[0; 31]].concat()),
    ];
    let ed25519 = ed25519.into_iter().map(|(what, key)| {
        let error = DeviceKey::parse(key[..].try_into().unwrap()).unwrap_err();
        json!({ "suite": "ed25519", "what": what, "key": hex(key), "error": format!("{error:?}") })
    });
    direct.chain(ed25519).collect()
}

#[test]
fn vectors_of_identity() {
    let (alice, bob) = (device(0x11), device(0x22));
    let (alice_genesis, bob_genesis) = (genesis(&alice), genesis(&bob));
    let mut log = AccountLog::begin(alice_genesis.clone()).unwrap();
    let bob_log = AccountLog::begin(bob_genesis.clone()).unwrap();
    let rotated = alice.with_new_direct_keys(&mut rng(1));
    let change = Change::RotateDevice { device: alice.device_id(), direct: rotated.card().direct };
    let rotation = sign_entry(&log.next(Time(1_790_000_100_000), change, alice.device_id()), |b| alice.sign(b));
    log.append(rotation.clone()).unwrap();
    let retirement =
        sign_entry(&log.next(Time(1_790_000_200_000), Change::Retire, alice.device_id()), |b| alice.sign(b));
    log.append(retirement.clone()).unwrap();
    let wrong = |what: &str, entries: Vec<SignedEntry>| {
        let error = AccountLog::verify(entries.clone()).unwrap_err();
        let entries: Vec<_> = entries.iter().map(|entry| hex(&entry.0)).collect();
        json!({ "what": what, "entries": entries, "error": format!("{error:?}") })
    };
    let mut bad_signature = alice_genesis.clone();
    *bad_signature.0.last_mut().unwrap() ^= 1;
    let log_in = LogInToBeSigned::new(
        "relay.example",
        [0x55; 32],
        [0x66; 32],
        alice.device_id(),
        Incarnation([0x77; 16]),
        Incarnation([0x88; 16]),
        "",
        &[0x99; 32],
    );
    check(
        "identity.json",
        &json!({
            "alice": device_json(0x11),
            "bob": device_json(0x22),
            "account_log": [
                { "what": "genesis", "entry": hex(&alice_genesis.0), "hash": hex(alice_genesis.hash()) },
                { "what": "RotateDevice", "entry": hex(&rotation.0), "hash": hex(rotation.hash()) },
                { "what": "Retire", "entry": hex(&retirement.0), "hash": hex(retirement.hash()) },
            ],
            "account_id": log.id().to_string(),
            "other_account_log": [{ "what": "genesis", "entry": hex(&bob_genesis.0), "hash": hex(bob_genesis.hash()) }],
            "other_account_id": bob_log.id().to_string(),
            "safety_number": SafetyNumber::of(log.id(), bob_log.id()).digits(),
            "one_to_one": one_to_one(log.id(), bob_log.id()).to_string(),
            "log_in": {
                "relay_name": "relay.example",
                "relay_key": hex([0x55; 32]),
                "challenge": hex([0x66; 32]),
                "incarnation": hex([0x77; 16]),
                "pending": hex([0x88; 16]),
                "origin": "",
                "binding": hex([0x99; 32]),
                "to_be_signed": hex(log_in.encode()),
                "signature": hex(alice.sign(&log_in.encode())),
            },
            "refused_keys": refused_keys(),
            "refused": [
                wrong("no entries", vec![]),
                wrong("signature altered", vec![bad_signature]),
                wrong("no genesis", vec![rotation.clone()]),
                wrong("an entry left out", vec![alice_genesis.clone(), retirement.clone()]),
                wrong("genesis twice", vec![alice_genesis.clone(), bob_genesis]),
                wrong("after the end", vec![alice_genesis, rotation.clone(), retirement, rotation]),
            ],
        }),
    );
}

#[test]
fn vectors_of_encodings() {
    let contents = [
        ("text", Content::text([1; 16], "Grüße")),
        ("bytes", Content::of([2; 16], Part::Bytes { media_type: BYTES.into(), bytes: vec![0, 255] })),
        (
            "receipts",
            Content::of(
                [3; 16],
                Part::Status(vec![(ContentId([4; 32]), Status::Delivered), (ContentId([5; 32]), Status::Read)]),
            ),
        ),
        ("presence taken back", Content::of([6; 16], Part::Presence(None))),
        ("a wish to leave", Content::of([7; 16], Part::Leave)),
        ("what was missed", Content::of([8; 16], Part::Missed { first: Position(2), last: Position(0x1234) })),
    ];
    let contents: Vec<_> =
        contents.into_iter().map(|(what, content)| json!({ "what": what, "cbor": hex(content.encode()) })).collect();
    for content in &contents {
        assert!(Content::decode(&unhex(&content["cbor"])).is_ok());
    }
    let bad_content = ["", "80", "9fff", "f90000", "a1018001", "87"].map(|cbor| {
        let error = Content::decode(&unhex(&json!(cbor))).unwrap_err();
        json!({ "cbor": cbor, "error": format!("{error:?}") })
    });
    let envelope = EnvelopeId([7; 16]);
    let entry =
        |kind: EntryKind, body| Entry { kind, after: kind.names_after().then_some(Position(9)), envelope, body };
    let entries: Vec<_> = EntryKind::ALL
        .into_iter()
        .flat_map(|kind| [entry(kind, Body::Inline(vec![1, 2, 3])), entry(kind, Body::Blob(BlobHash([8; 32])))])
        .map(|entry| json!({ "kind": format!("{:?}", entry.kind), "blob": matches!(entry.body, Body::Blob(_)), "entry": hex(entry.encode()) }))
        .collect();
    let direct = Entry::direct(envelope, vec![1, 2, 3]).encode();
    let bad_entries = [
        ("empty", vec![]),
        ("an unknown kind", [&[6], &direct[1..]].concat()),
        ("the body is cut", direct[..direct.len() - 1].to_vec()),
        ("the envelope id is cut", direct[..16].to_vec()),
        ("a byte behind the end", [&direct[..], &[0]].concat()),
        ("no `after` in a message", [&[1], &direct[1..]].concat()),
        ("a blob's hash of 3 bytes", [&[0x90], &direct[1..17], &[1, 2, 3]].concat()),
        ("a byte longer than the limit", Entry::direct(envelope, vec![0; 192 * 1024 - 19]).encode()),
    ]
    .map(|(what, entry)| {
        let error = Entry::decode(&entry).unwrap_err();
        // The long one as its beginning and its length.
        let shown = &entry[..entry.len().min(64)];
        json!({ "what": what, "entry": hex(shown), "length": entry.len(), "error": format!("{error:?}") })
    });
    let handles =
        ["Alice@Relay.Example", "b\u{fc}cher@relay.example:8443", "\u{ff21}lice@r", "a.b_c-d@r"].map(|text| {
            let handle = Handle::parse(text).unwrap();
            json!({ "text": text, "handle": handle.to_string(), "skeleton": handle.name.skeleton() })
        });
    let alike = [["alice", "\u{430}lice"], ["bob", "b\u{43e}b"]].map(|names| {
        let [one, other] = names.map(|name| Name::parse(name).unwrap());
        assert_eq!(one.skeleton(), other.skeleton());
        json!({ "names": names, "skeleton": one.skeleton() })
    });
    let long = format!("{}@r", "a".repeat(65));
    let bad_handles = [
        "bob",
        "bob@a@b",
        "@r",
        "bob@",
        "a b@r",
        "a/b@r",
        "\u{202e}evil@r",
        "$HOME@r",
        "=\u{338}@r",
        "bob@ev il",
        &long,
    ]
    .map(|text| json!({ "text": text, "error": format!("{:?}", Handle::parse(text).unwrap_err()) }));
    let padded_bytes: Vec<_> = [&b""[..], b"short", &[0x80; 64]]
        .iter()
        .map(|plaintext| json!({ "plaintext": hex(plaintext), "padded": hex(pad(plaintext).unwrap()) }))
        .collect();
    assert!(pad(&[0; 16_384]).is_err());
    let lengths = [0, 63, 64, 127, 128, 255, 256, 511, 512, 1_000, 5_000, 16_383];
    let padded: Vec<_> =
        lengths.iter().map(|length| json!({ "length": length, "padded": padded_length(*length) })).collect();
    let bad_padding = [vec![], vec![0; 64], [&[0x80][..], &[0; 64]].concat(), [&[1; 63][..], &[0x81]].concat()];
    assert!(bad_padding.iter().all(|bytes| unpad(bytes).is_err()));
    let conversation = ConversationId([9; 32]);
    let start = chain_start(conversation);
    let first = chain_step(start, Position(1), b"first entry");
    check(
        "encodings.json",
        &json!({
            "content": contents,
            "content_refused": bad_content,
            "content_id": {
                "conversation": conversation.to_string(),
                "author": hex([1; 32]),
                "content": contents[0]["cbor"],
                "id": content_id(conversation, AccountId([1; 32]), &unhex(&contents[0]["cbor"])).to_string(),
            },
            "entries": entries,
            "entries_refused": bad_entries,
            "handles": handles,
            "handles_alike": alike,
            "handles_refused": bad_handles,
            "padding": padded,
            "padding_bytes": padded_bytes,
            "padding_refused": bad_padding.iter().map(hex).collect::<Vec<_>>(),
            "padding_too_large": { "length": 16_384, "error": "TooLarge" },
            "chain": {
                "conversation": conversation.to_string(),
                "start": start.to_string(),
                "entry_1": hex(b"first entry"),
                "after_1": first.to_string(),
                "entry_2": hex(b"second entry"),
                "after_2": chain_step(first, Position(2), b"second entry").to_string(),
            },
            "roster": {
                "inboxes": [hex([1; 16]), hex([2; 16])],
                "hash": roster_hash(&[InboxAddress([1; 16]), InboxAddress([2; 16])]).to_string(),
            },
        }),
    );
}
