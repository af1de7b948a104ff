//! `spec/vectors/conversations.json`: the structures, the seal of commits, Readd, and a small group that was recorded once.
//! The group is read by a stranger, OpenMLS with a provider that is none of ours, and by us.

use std::collections::{BTreeMap, BTreeSet};

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hpke::kem::{Kem, XWing};
use hpke::{Deserializable, Serializable};
use openmls::prelude::tls_codec::{DeserializeBytes, SecretVLBytes, Serialize as _};
use openmls::prelude::{
    ApplicationMessage, BasicCredential, ContentType, GroupContext, KeyPackage, KeyPackageBundle, KeyPackageIn,
    MlsGroup, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider, PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
    ProcessedMessageContent, ProtocolMessage, ProtocolVersion, StagedWelcome,
};
use openmls_rust_crypto::{MemoryStorage, RustCrypto};
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::storage::StorageProvider;
use openmls_traits::types::{
    AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig, HpkeKeyPair, KemOutput,
    SignatureScheme,
};
use sealwire_keys::{Mode, ReaddToBeSigned};
use sealwire_session::mls::{
    Changes, Desk, Evidence, Group, KeyPackageRef, Place, ReceivedKeyPackage, Records, make_key_package, make_readd,
    read_readd,
};
use sealwire_wire::conversation::{
    CommitBody, CommitData, ConversationKind, GroupData, LeafData, MessageData, ReaddBody, Role, WelcomeBody,
    decode_logs, encode_logs,
};
use sealwire_wire::label::Label;
use sealwire_wire::{Chain, DeviceId, RosterHash};
use zeroize::Zeroizing;

use super::*;

const SUITE: sealwire_session::mls::Suite = sealwire_session::mls::Suite::Hybrid;
const CONVERSATION: ConversationId = ConversationId([0xc0; 32]);

#[test]
fn vectors_of_conversations() {
    // Drawn by several threads, so not the same twice: it is recorded, and read ever after.
    let mut group = match std::env::var_os("SEALWIRE_UPDATE") {
        Some(_) => recorded_group(),
        None => stored()["group"].clone(),
    };
    for (item, key) in read_by_a_stranger(&group) {
        group["log"][item]["commit_key"] = json!(key);
    }
    group["refused"] = read_by_us(&group);
    let readd = match std::env::var_os("SEALWIRE_UPDATE") {
        Some(_) => made_readd(),
        None => stored()["readd"].clone(),
    };
    check_readd(&readd);
    let (structures, refused) = structures();
    check(
        "conversations.json",
        &json!({
            "structures": structures,
            "structures_refused": refused,
            "one_to_one": {
                "accounts": [hex([2; 32]), hex([1; 32])],
                "conversation": one_to_one(AccountId([2; 32]), AccountId([1; 32])).to_string(),
            },
            "group_id": {
                "creator": hex([2; 32]),
                "nonce": hex([3; 16]),
                "conversation": group_id(AccountId([2; 32]), [3; 16]).to_string(),
            },
            "commit_seal": commit_seal(),
            "readd": readd,
            "group": group,
        }),
    );
}

fn stored() -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors/conversations.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

// The structures.

type Reads = fn(&[u8]) -> Result<Vec<u8>, sealwire_wire::conversation::ConversationError>;

fn structures() -> (Vec<Value>, Vec<Value>) {
    let (position, chain, roster) = (Position(7), Chain([2; 32]), RosterHash([3; 32]));
    let evidence = vec![vec![vec![1, 2], vec![3]], vec![vec![4]]];
    let group = GroupData {
        conversation: ConversationId([1; 32]),
        generation: 2,
        kind: ConversationKind::Group,
        name: "Grüße".into(),
        roles: vec![(AccountId([1; 32]), Role::Owner), (AccountId([2; 32]), Role::Admin)],
        later: Default::default(),
    };
    let one_to_one =
        GroupData { kind: ConversationKind::OneToOne, name: String::new(), roles: vec![], ..group.clone() };
    let message = MessageData { position, chain, franking: None };
    let readd = ReaddBody {
        account: AccountId([1; 32]),
        device: DeviceId([2; 32]),
        key_package: vec![3; 20],
        signature: [4; 64],
    };
    let welcome =
        WelcomeBody { conversation: ConversationId([1; 32]), commit: EnvelopeId([4; 16]), welcome: vec![9; 30] };
    let leaf = LeafData { inbox: InboxAddress([6; 16]), later: Default::default() }.encode();
    let group = group.encode();
    let later = |of: &[u8]| [&[2], &of[1..], &[0xaa, 0xbb]].concat();
    let all: Vec<(&str, &str, Vec<u8>, Reads)> = vec![
        ("MessageData", "", message.encode(), |b| MessageData::decode(b).map(|x| x.encode())),
        ("MessageData", "with a franking tag", MessageData { franking: Some([8; 32]), ..message }.encode(), |b| {
            MessageData::decode(b).map(|x| x.encode())
        }),
        ("CommitData", "", CommitData { position, chain, roster }.encode(), |b| {
            CommitData::decode(b).map(|x| x.encode())
        }),
        ("LeafData", "", leaf.clone(), |b| LeafData::decode(b).map(|x| x.encode())),
        ("LeafData", "of a later version", later(&leaf), |b| LeafData::decode(b).map(|x| x.encode())),
        ("GroupData", "of a group", group.clone(), |b| GroupData::decode(b).map(|x| x.encode())),
        ("GroupData", "of two", one_to_one.encode(), |b| GroupData::decode(b).map(|x| x.encode())),
        ("GroupData", "of a later version", later(&group), |b| GroupData::decode(b).map(|x| x.encode())),
        (
            "CommitBody",
            "",
            CommitBody { commit: vec![5; 40], evidence: evidence.clone(), readds: vec![vec![7; 3]] }.encode(),
            |b| CommitBody::decode(b).map(|x| x.encode()),
        ),
        ("CommitBody", "in a GroupInfo", encode_logs(&evidence), |b| decode_logs(b).map(|x| encode_logs(&x))),
        ("WelcomeBody", "", welcome.encode(), |b| WelcomeBody::decode(b).map(|x| x.encode())),
        ("ReaddBody", "", readd.encode(), |b| ReaddBody::decode(b).map(|x| x.encode())),
    ];
    let mut refused = Vec::new();
    for (name, what, bytes, reads) in &all {
        assert_eq!(reads(bytes).as_ref(), Ok(bytes), "{name} {what}");
        if what.starts_with("of a later") {
            continue;
        }
        for (wrong, bytes) in [
            ("of version 0", [&[0], &bytes[1..]].concat()),
            ("a byte short", bytes[..bytes.len() - 1].to_vec()),
            ("a byte behind the end", [&bytes[..], &[0]].concat()),
            ("nothing", vec![]),
        ] {
            refused.push(refusal(name, wrong, &bytes, *reads));
        }
        if !matches!(*name, "LeafData" | "GroupData") {
            refused.push(refusal(name, "of version 2", &[&[2], &bytes[1..]].concat(), *reads));
        }
    }
    let reads: Reads = |b| GroupData::decode(b).map(|x| x.encode());
    let with = |at: usize, by: &[u8]| [&group[..at], by, &group[at + by.len()..]].concat();
    let roles = 37 + 1 + 1 + "Grüße".len() + 2;
    for (wrong, bytes) in [
        ("kind 3", with(37, &[3])),
        ("a name that is not UTF-8", with(39, &[0xff])),
        ("role 3, which is nobody's", with(roles + 32, &[3])),
        ("role 4", with(roles + 32, &[4])),
        ("roles not sorted", with(roles, &[9; 32])),
        ("an account twice", with(roles, &[2; 32])),
        ("a name of 129 bytes", {
            let (head, tail) = (&group[..38], &group[roles - 2..]);
            [head, &[129][..], &[b'x'; 129], tail].concat()
        }),
    ] {
        refused.push(refusal("GroupData", wrong, &bytes, reads));
    }
    let reads: Reads = |b| decode_logs(b).map(|x| encode_logs(&x));
    let full = CommitBody { commit: vec![5; 4], evidence: evidence.clone(), readds: vec![] }.encode();
    refused.push(refusal("CommitBody in a GroupInfo", "with a commit", &full, reads));
    let full = CommitBody { commit: vec![], evidence, readds: vec![vec![7; 3]] }.encode();
    refused.push(refusal("CommitBody in a GroupInfo", "with a Readd", &full, reads));
    let structures =
        all.iter().map(|(name, what, bytes, _)| json!({ "structure": name, "what": what, "bytes": hex(bytes) }));
    (structures.collect(), refused)
}

fn refusal(structure: &str, what: &str, bytes: &[u8], reads: Reads) -> Value {
    let error = reads(bytes).expect_err(what);
    json!({ "structure": structure, "what": what, "bytes": hex(bytes), "error": format!("{error:?}") })
}

// The seal of commits (C3), by hand.

fn associated(conversation: ConversationId, envelope: EnvelopeId) -> Vec<u8> {
    let label = b"sealwire/v1/commit-seal";
    [&[label.len() as u8][..], label, &[1], &conversation.0, &envelope.0].concat()
}

fn open_seal(key: &[u8], conversation: ConversationId, envelope: EnvelopeId, sealed: &[u8]) -> Option<Vec<u8>> {
    let (iv, rest) = sealed.split_first_chunk::<12>()?;
    let aad = associated(conversation, envelope);
    Aes256Gcm::new_from_slice(key).ok()?.decrypt(&Nonce::from(*iv), Payload { msg: rest, aad: &aad }).ok()
}

fn commit_seal() -> Value {
    assert_eq!(Label::COMMIT_KEY.text(), "sealwire/v1/commit-key");
    let (key, iv, envelope) = ([0x21; 32], [0x22; 12], EnvelopeId([0x23; 16]));
    let aad = associated(CONVERSATION, envelope);
    assert_eq!(aad, Label::COMMIT_SEAL.encode(&(CONVERSATION, envelope)));
    let body = CommitBody { commit: vec![5; 40], evidence: vec![vec![vec![1, 2]]], readds: vec![] }.encode();
    let cipher = Aes256Gcm::new_from_slice(&key).unwrap();
    let ciphertext = cipher.encrypt(&Nonce::from(iv), Payload { msg: &body, aad: &aad }).unwrap();
    let sealed = [&iv[..], &ciphertext].concat();
    assert_eq!(open_seal(&key, CONVERSATION, envelope, &sealed), Some(body.clone()));
    let flipped = |at: usize| {
        let mut bytes = sealed.clone();
        bytes[at] ^= 1;
        bytes
    };
    let refused = [
        ("IV altered", flipped(0)),
        ("ciphertext altered", flipped(12)),
        ("tag altered", flipped(sealed.len() - 1)),
        ("a byte short", sealed[..sealed.len() - 1].to_vec()),
        ("shorter than IV and tag", sealed[..27].to_vec()),
        ("nothing", vec![]),
    ]
    .map(|(what, sealed)| {
        assert_eq!(open_seal(&key, CONVERSATION, envelope, &sealed), None, "{what}");
        json!({ "what": what, "sealed": hex(sealed), "error": "Malformed" })
    });
    for (conversation, envelope) in [(ConversationId([9; 32]), envelope), (CONVERSATION, EnvelopeId([9; 16]))] {
        assert_eq!(open_seal(&key, conversation, envelope, &sealed), None);
    }
    json!({
        "exporter_label": Label::COMMIT_KEY.text(),
        "exporter_context": "",
        "key": hex(key),
        "iv": hex(iv),
        "conversation": CONVERSATION.to_string(),
        "envelope": envelope.to_string(),
        "associated_data": hex(aad),
        "body": hex(body),
        "sealed": hex(&sealed),
        "refused": refused,
        "refused_elsewhere": "the same bytes under any other conversation or envelope: Malformed",
    })
}

// Readd (C10).

fn made_readd() -> Value {
    let mut person = Person::new(0x44);
    let (account, inbox) = (person.log.id(), person.inbox);
    let (_, body) = make_readd(&mut person.desk(), SUITE, CONVERSATION, account, inbox).unwrap();
    let read = ReaddBody::decode(&body).unwrap();
    let signed = ReaddToBeSigned::new(CONVERSATION, account, read.device, &read.key_package).encode();
    json!({
        "ed25519_secret": hex([0x44; 32]),
        "account_log": person.entries(),
        "conversation": CONVERSATION.to_string(),
        "account": account.to_string(),
        "device": read.device.to_string(),
        "key_package": hex(&read.key_package),
        "to_be_signed": hex(signed),
        "signature": hex(read.signature),
        "body": hex(body),
        "refused": "any bit of the body flipped; any other conversation",
    })
}

fn check_readd(readd: &Value) {
    let body = unhex(&readd["body"]);
    let package = read_readd(SUITE, CONVERSATION, &body, &mut rng(1)).unwrap();
    assert_eq!(package.member.account.to_string(), readd["account"].as_str().unwrap());
    let label = b"sealwire/v1/readd";
    let key_package = unhex(&readd["key_package"]);
    let length = &(key_package.len() as u32).to_be_bytes()[1..];
    let signed = [
        &[label.len() as u8][..],
        label,
        &[1],
        &CONVERSATION.0,
        &unhex(&readd["account"]),
        &unhex(&readd["device"]),
        length,
        &key_package,
    ]
    .concat();
    assert_eq!(signed, unhex(&readd["to_be_signed"]));
    assert_eq!(device(0x44).sign(&signed).to_vec(), unhex(&readd["signature"]));
    assert!(read_readd(SUITE, ConversationId([9; 32]), &body, &mut rng(1)).is_none());
    for at in (0..body.len()).step_by(7).chain([0, 1, 33, 65, body.len() - 1]) {
        let mut bad = body.clone();
        bad[at] ^= 1;
        assert!(read_readd(SUITE, CONVERSATION, &bad, &mut rng(1)).is_none(), "byte {at}");
    }
}

// The group: Alice begins it with Bob and Carol, they talk, Carol replaces her keys, Alice removes her. The log as Bob reads
// it, who is given by his private keys.

struct Person {
    secrets: DeviceSecrets,
    log: AccountLog,
    inbox: InboxAddress,
    records: Records,
    rng: ChaCha20Rng,
}

impl Person {
    fn new(byte: u8) -> Person {
        let secrets = device(byte);
        let genesis = AccountEntry {
            account: AccountId([0; 32]),
            number: 0,
            previous: [0; 32],
            at: Time(1_790_000_000_000),
            change: Change::Genesis { kind: AccountKind::Person, device: secrets.card_for(Mode::Mls) },
            signer: secrets.device_id(),
        };
        let log = AccountLog::begin(sign_entry(&genesis, |bytes| secrets.sign(bytes))).unwrap();
        let inbox = InboxAddress([byte; 16]);
        Person { secrets, log, inbox, records: Records::default(), rng: rng(u64::from(byte)) }
    }

    fn desk(&mut self) -> Desk<'_> {
        Desk { secrets: &self.secrets, records: &mut self.records, rng: &mut self.rng }
    }

    fn entries(&self) -> Vec<String> {
        self.log.entries().iter().map(|entry| hex(&entry.0)).collect()
    }

    fn json(&self) -> Value {
        json!({
            "account": self.log.id().to_string(),
            "device": self.secrets.device_id().to_string(),
            "inbox": self.inbox.to_string(),
            "account_log": self.entries(),
        })
    }

    fn key_package(&mut self) -> Vec<u8> {
        let (account, inbox) = (self.log.id(), self.inbox);
        make_key_package(&mut self.desk(), SUITE, account, inbox, false).unwrap().1
    }
}

/// The log as it grows.
struct Recorder {
    entries: Vec<Value>,
    place: Place,
    newest_commit: Position,
}

impl Recorder {
    fn envelope(&self) -> EnvelopeId {
        EnvelopeId([0xe0 + self.entries.len() as u8; 16])
    }

    fn append(&mut self, kind: EntryKind, body: Vec<u8>, mut what: Value) {
        let (after, envelope) = (Some(self.newest_commit), self.envelope());
        let entry = Entry { kind, after, envelope, body: Body::Inline(body) }.encode();
        let position = self.place.position.next();
        self.place = Place { position, chain: chain_step(self.place.chain, position, &entry) };
        if kind == EntryKind::Commit {
            self.newest_commit = position;
        }
        what["position"] = json!(position.0);
        what["entry"] = json!(hex(entry));
        what["chain"] = json!(self.place.chain.to_string());
        self.entries.push(what);
    }
}

fn recorded_group() -> Value {
    let (mut alice, mut bob, mut carol) = (Person::new(0x41), Person::new(0x42), Person::new(0x43));
    let evidence = Evidence::of([&alice.log, &bob.log, &carol.log]);
    let packages = [bob.key_package(), carol.key_package()];
    let (init, encryption) = private_keys(&mut bob.records);
    let add = packages.iter().map(|bytes| ReceivedKeyPackage::check(SUITE, bytes, &mut alice.rng).unwrap()).collect();
    let start = Place { position: Position(0), chain: chain_start(CONVERSATION) };
    let mut log = Recorder { entries: vec![], place: start, newest_commit: Position(0) };
    let data = GroupData {
        conversation: CONVERSATION,
        generation: 0,
        kind: ConversationKind::Group,
        name: "Lunch".into(),
        roles: vec![(alice.log.id(), Role::Owner)],
        later: Default::default(),
    };
    let (account, inbox) = (alice.log.id(), alice.inbox);
    let mut of_alice = Group::create(&mut alice.desk(), SUITE, data, account, inbox).unwrap();
    let changes = Changes { add, ..Changes::default() };
    let commit = log.envelope();
    let made = of_alice.commit(&mut alice.desk(), log.place, commit, changes, &evidence).unwrap();
    of_alice.merge_own(&mut alice.desk()).unwrap();
    let welcome = WelcomeBody { conversation: CONVERSATION, commit, welcome: made.welcome.clone().unwrap() }.encode();
    let by = |person: &Person| person.log.id().to_string();
    log.append(EntryKind::Commit, made.body, json!({ "by": by(&alice), "what": "adds Bob and Carol" }));
    let mut of_carol = Group::join(&mut carol.desk(), SUITE, CONVERSATION, &made.welcome.unwrap()).unwrap().group;
    let authenticator = |group: &Group| json!(hex(group.epoch_authenticator()));
    let first = authenticator(&of_alice);

    let said = |author: &Person, text: &str, byte: u8| {
        let content = Content::text([byte; 16], text).encode();
        let id = content_id(CONVERSATION, author.log.id(), &content).to_string();
        (content.clone(), json!({ "by": author.log.id().to_string(), "content": hex(content), "content_id": id }))
    };
    let (content, what) = said(&alice, "Hello, all", 1);
    let body = of_alice.seal(&mut alice.desk(), log.place, &content).unwrap();
    of_carol.open(&mut carol.desk(), &body).unwrap();
    log.append(EntryKind::Message, body, what);

    // What a plain member may not do (C7), and nobody (C2): each in the place of the entry that follows.
    let data = of_alice.data().clone();
    let owner = of_alice.own().unwrap().leaf;
    let with = |data| Changes { data: Some(data), ..Changes::default() };
    let by_carol = [
        ("a member removes the owner", Changes { remove: vec![owner], ..Changes::default() }),
        ("a member names it", with(GroupData { name: "Dinner".into(), ..data.clone() })),
        ("a member makes itself owner", with(data.clone().with_role(carol.log.id(), Role::Owner))),
    ];
    let by_alice = [
        ("another conversation", with(GroupData { conversation: ConversationId([9; 32]), ..data.clone() })),
        ("another generation", with(GroupData { generation: 1, ..data.clone() })),
        ("another kind", with(GroupData { kind: ConversationKind::OneToOne, ..data })),
    ];
    let mut invalid = Vec::new();
    let mut note = |what: &str, author: &Person, body: Vec<u8>| {
        let (by, envelope) = (author.log.id().to_string(), log.envelope().to_string());
        invalid.push(json!({ "what": what, "position": 3, "by": by, "envelope": envelope, "body": hex(body) }));
    };
    for (what, changes) in by_carol {
        let made = of_carol.commit(&mut carol.desk(), log.place, log.envelope(), changes, &evidence).unwrap();
        of_carol.drop_own(&mut carol.records).unwrap();
        note(what, &carol, made.body);
    }
    for (what, changes) in by_alice {
        let made = of_alice.commit(&mut alice.desk(), log.place, log.envelope(), changes, &evidence).unwrap();
        of_alice.drop_own(&mut alice.records).unwrap();
        note(what, &alice, made.body);
    }

    let changes = Changes { update: true, ..Changes::default() };
    let made = of_carol.commit(&mut carol.desk(), log.place, log.envelope(), changes, &evidence).unwrap();
    let judged = of_alice.judge(&mut alice.desk(), log.envelope(), &made.body, &BTreeSet::new()).unwrap();
    of_alice.apply(&mut alice.desk(), judged).unwrap();
    of_carol.merge_own(&mut carol.desk()).unwrap();
    let what = json!({ "by": by(&carol), "what": "replaces own keys", "authenticator": authenticator(&of_alice) });
    log.append(EntryKind::Commit, made.body, what);

    let (content, what) = said(&carol, "Hello, Alice and Bob", 2);
    let body = of_carol.seal(&mut carol.desk(), log.place, &content).unwrap();
    log.append(EntryKind::Message, body, what);

    let leaf = of_alice.members().iter().find(|member| member.account == carol.log.id()).unwrap().leaf;
    let changes = Changes { remove: vec![leaf], ..Changes::default() };
    let made = of_alice.commit(&mut alice.desk(), log.place, log.envelope(), changes, &evidence).unwrap();
    of_alice.merge_own(&mut alice.desk()).unwrap();
    let what = json!({ "by": by(&alice), "what": "removes Carol", "authenticator": authenticator(&of_alice) });
    log.append(EntryKind::Commit, made.body, what);

    let (content, what) = said(&alice, "To Bob alone", 3);
    let body = of_alice.seal(&mut alice.desk(), log.place, &content).unwrap();
    log.append(EntryKind::Message, body, what);

    json!({
        "suite": 0x004e,
        "conversation": CONVERSATION.to_string(),
        "alice": alice.json(),
        "bob": bob.json(),
        "carol": carol.json(),
        "key_package": hex(&packages[0]),
        "private": { "ed25519": hex([0x42; 32]), "init": hex(init), "encryption": hex(encryption) },
        "welcome_body": hex(welcome),
        "authenticator": first,
        "log": log.entries,
        "invalid_commits": invalid,
    })
}

/// Of the only key package in there: its record ends in them.
fn private_keys(records: &mut Records) -> (Vec<u8>, Vec<u8>) {
    let pages: Vec<_> = records.take_changes().into_iter().map(|(_, page)| page.unwrap().to_vec()).collect();
    let record = pages.concat();
    let bundle: KeyPackageBundle = postcard::from_bytes(&record).unwrap();
    let init = bundle.init_private_key().to_vec();
    let encryption = record[record.len() - 32..].to_vec();
    (init, encryption)
}

fn bundle(group: &Value, package: &KeyPackage) -> Vec<u8> {
    let [init, encryption] = ["init", "encryption"].map(|name| unhex(&group["private"][name]));
    let public =
        |private: &[u8]| XWing::sk_to_pk(&<XWing as Kem>::PrivateKey::from_bytes(private).unwrap()).to_bytes().to_vec();
    assert_eq!(public(&init), package.hpke_init_key().as_slice());
    let (leaf, public) = (package.leaf_node().tls_serialize_detached().unwrap(), public(&encryption));
    assert!(leaf.windows(public.len()).any(|window| window == public));
    let mut bytes = postcard::to_allocvec(package).unwrap();
    bytes.extend([&[32][..], &init, &[32], &encryption].concat());
    bytes
}

fn key_package(group: &Value) -> KeyPackage {
    let package = KeyPackageIn::tls_deserialize_exact_bytes(&unhex(&group["key_package"])).unwrap();
    package.validate(&RustCrypto::default(), ProtocolVersion::Mls10).unwrap()
}

/// OpenMLS with the crypto of others, but for the derivation of key pairs, which follows a newer draft (docs/decisions/0010).
#[derive(Default)]
struct Stranger {
    crypto: Strange,
    storage: MemoryStorage,
}

impl OpenMlsProvider for Stranger {
    type CryptoProvider = Strange;
    type RandProvider = RustCrypto;
    type StorageProvider = MemoryStorage;

    fn storage(&self) -> &MemoryStorage {
        &self.storage
    }

    fn crypto(&self) -> &Strange {
        &self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        &self.crypto.0
    }
}

/// The keys that its commits were sealed under, by their place in the list.
fn read_by_a_stranger(recorded: &Value) -> Vec<(usize, String)> {
    let mut keys = Vec::new();
    let provider = Stranger::default();
    let package = key_package(recorded);
    assert_eq!((package.life_time().not_before(), package.life_time().not_after()), (0, u64::MAX));
    let reference = package.hash_ref(provider.crypto()).unwrap();
    let bundle: KeyPackageBundle = postcard::from_bytes(&bundle(recorded, &package)).unwrap();
    provider.storage().write_key_package(&reference, &bundle).unwrap();

    let welcome = WelcomeBody::decode(&unhex(&recorded["welcome_body"])).unwrap();
    let message = MlsMessageIn::tls_deserialize_exact_bytes(&welcome.welcome).unwrap();
    let MlsMessageBodyIn::Welcome(mls) = message.extract() else { panic!("no Welcome") };
    let config = MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(true)
        .build();
    let builder = StagedWelcome::build_from_welcome(&provider, &config, mls).unwrap();
    let evidence = builder.processed_welcome().unverified_group_info().extensions().unknown(0xf5ea).unwrap().0.clone();
    let logs: Vec<Vec<String>> =
        decode_logs(&evidence).unwrap().iter().map(|log| log.iter().map(hex).collect()).collect();
    for name in ["alice", "bob", "carol"] {
        let log: Vec<String> = serde_json::from_value(recorded[name]["account_log"].clone()).unwrap();
        assert!(logs.contains(&log), "{name}");
    }
    let mut group = builder.build().unwrap().into_group(&provider).unwrap();
    assert_eq!(hex(group.epoch_authenticator().as_slice()), recorded["authenticator"].as_str().unwrap());
    assert_eq!(group.ciphersuite() as u16, 0x004e);
    assert_eq!(group.group_id().as_slice().len(), 16);
    check_extensions(group.extensions());
    assert_eq!(roster_hash(&inboxes(&group)).0.len(), 32);

    let mut place = (Position(0), chain_start(CONVERSATION));
    let mut newest_commit = Position(0);
    for (index, item) in recorded["log"].as_array().unwrap().iter().enumerate() {
        let bytes = unhex(&item["entry"]);
        let entry = Entry::decode(&bytes).unwrap();
        assert_eq!(entry.after, Some(newest_commit));
        let Body::Inline(body) = &entry.body else { panic!("inline") };
        let position = place.0.next();
        match entry.kind {
            EntryKind::Commit if entry.envelope == welcome.commit => newest_commit = position,
            EntryKind::Commit => {
                let key = group.export_secret(provider.crypto(), "sealwire/v1/commit-key", &[], 32).unwrap();
                let opened = open_seal(key.as_slice(), CONVERSATION, entry.envelope, body).unwrap();
                keys.push((index, hex(key)));
                let commit = CommitBody::decode(&opened).unwrap().commit;
                let (data, content) = processed(&provider, &mut group, &commit, ContentType::Commit);
                let data = CommitData::decode(&data).unwrap();
                assert_eq!((data.position, data.chain), place);
                let ProcessedMessageContent::StagedCommitMessage(staged) = content else { panic!("no commit") };
                group.merge_staged_commit(&provider, *staged).unwrap();
                assert_eq!(hex(group.epoch_authenticator().as_slice()), item["authenticator"].as_str().unwrap());
                assert_eq!(data.roster, roster_hash(&inboxes(&group)));
                newest_commit = position;
            }
            _ => {
                let (data, content) = processed(&provider, &mut group, body, ContentType::Application);
                let data = MessageData::decode(&data).unwrap();
                assert_eq!((data.position, data.chain), place);
                let ProcessedMessageContent::ApplicationMessage(message) = content else { panic!("no message") };
                let content = unpad(&ApplicationMessage::into_bytes(message)).unwrap().to_vec();
                assert_eq!(content, unhex(&item["content"]));
            }
        }
        place = (position, chain_step(place.1, position, &bytes));
        assert_eq!(place.1.to_string(), item["chain"].as_str().unwrap());
    }
    assert_eq!((group.members().count(), place.0), (2, Position(6)));
    keys
}

fn processed(
    provider: &Stranger,
    group: &mut MlsGroup,
    bytes: &[u8],
    expected: ContentType,
) -> (Vec<u8>, ProcessedMessageContent) {
    let message = match MlsMessageIn::tls_deserialize_exact_bytes(bytes).unwrap().extract() {
        MlsMessageBodyIn::PublicMessage(message) => ProtocolMessage::from(message),
        MlsMessageBodyIn::PrivateMessage(message) => ProtocolMessage::from(message),
        _ => panic!("neither a commit nor a message"),
    };
    assert_eq!(message.content_type(), expected);
    let processed = group.process_message(provider, message).unwrap();
    (processed.aad().to_vec(), processed.into_content())
}

fn check_extensions(extensions: &openmls::prelude::Extensions<GroupContext>) {
    assert_eq!(extensions.iter().count(), 2);
    let data = GroupData::decode(&extensions.unknown(0xf5ea).unwrap().0).unwrap();
    assert_eq!((data.conversation, data.name.as_str(), data.roles.len()), (CONVERSATION, "Lunch", 1));
    let required = extensions.required_capabilities().unwrap();
    assert_eq!(required.tls_serialize_detached().unwrap(), [2, 0xf5, 0xea, 0, 2, 0, 1]);
}

/// The inboxes of the leaves, sorted; and that leaves are as the page says.
fn inboxes(group: &MlsGroup) -> Vec<InboxAddress> {
    let tree = group.export_ratchet_tree().tls_serialize_detached().unwrap();
    let mut inboxes = Vec::new();
    for member in group.members() {
        let identity = BasicCredential::try_from(member.credential.clone()).unwrap().identity().to_vec();
        assert_eq!((identity.len(), identity[0]), (65, 1));
        let key: [u8; 32] = member.signature_key[..].try_into().unwrap();
        assert_eq!(identity[33..], sealwire_keys::device_id(&key).0);
        // In the tree: type, length, and `LeafData` of 17 bytes.
        let leaf = group.public_group().leaf(member.index).unwrap();
        let data = LeafData::decode(&leaf.extensions().unknown(0xf5ea).unwrap().0).unwrap();
        let written = [&[0xf5, 0xea, 17, 1][..], &data.inbox.0].concat();
        assert!(tree.windows(written.len()).any(|window| window == written));
        let capabilities = leaf.capabilities().tls_serialize_detached().unwrap();
        // One version; 0x004E and a GREASE value; 0xf5ea, last_resort and one; one; basic and one.
        assert_eq!(capabilities.len(), 3 + 5 + 7 + 3 + 5);
        assert_eq!(capabilities[..6], [2, 0, 1, 4, 0, 0x4e]);
        inboxes.push(data.inbox);
    }
    inboxes.sort();
    inboxes
}

/// What is refused, and why.
fn read_by_us(recorded: &Value) -> Value {
    let mut bob = Person::new(0x42);
    let package = key_package(recorded);
    let reference = package.hash_ref(&RustCrypto::default()).unwrap();
    let (record, key) = (bundle(recorded, &package), postcard::to_extend(&reference, vec![13]).unwrap());
    let KeyPackageRef(same_kind) =
        make_key_package(&mut Person::new(0x42).desk(), SUITE, bob.log.id(), bob.inbox, false).unwrap().0;
    assert_eq!((same_kind[0], same_kind.len()), (key[0], key.len()));
    let pages: BTreeMap<_, _> = (0..=record.len() / 1_024)
        .map(|number| {
            let page = record[number * 1_024..record.len().min((number + 1) * 1_024)].to_vec();
            ([&key[..], &(number as u32).to_be_bytes()].concat(), Zeroizing::new(page))
        })
        .collect();
    bob.records = Records::load(pages).unwrap();
    let welcome = WelcomeBody::decode(&unhex(&recorded["welcome_body"])).unwrap();
    let mut group = Group::join(&mut bob.desk(), SUITE, welcome.conversation, &welcome.welcome).unwrap().group;
    let mut refused = Vec::new();
    let mut earlier: Vec<Entry> = Vec::new();
    for item in recorded["log"].as_array().unwrap() {
        for invalid in
            recorded["invalid_commits"].as_array().unwrap().iter().filter(|i| i["position"] == item["position"])
        {
            let envelope = EnvelopeId::try_from(&unhex(&invalid["envelope"])[..]).unwrap();
            let judged = group.judge(&mut bob.desk(), envelope, &unhex(&invalid["body"]), &BTreeSet::new());
            let error = format!("{:?}", judged.map(drop).unwrap_err());
            refused.push(json!({ "what": invalid["what"], "at": item["position"], "error": error }));
        }
        let entry = Entry::decode(&unhex(&item["entry"])).unwrap();
        let Body::Inline(body) = entry.body.clone() else { panic!("inline") };
        match entry.kind {
            EntryKind::Commit if entry.envelope == welcome.commit => {}
            EntryKind::Commit => {
                let judged = group.judge(&mut bob.desk(), EnvelopeId([9; 16]), &body, &BTreeSet::new());
                let error = format!("{:?}", judged.map(drop).unwrap_err());
                let what = "the commit at this position, under another envelope id";
                refused.push(json!({ "what": what, "at": item["position"], "error": error }));
                let judged = group.judge(&mut bob.desk(), entry.envelope, &body, &BTreeSet::new()).unwrap();
                let applied = group.apply(&mut bob.desk(), judged).unwrap();
                assert_eq!(applied.author.account.to_string(), item["by"].as_str().unwrap());
                assert_eq!(hex(group.epoch_authenticator()), item["authenticator"].as_str().unwrap());
                for (position, entry) in
                    earlier.iter().enumerate().filter(|(_, entry)| entry.kind == EntryKind::Message)
                {
                    let Body::Inline(body) = &entry.body else { panic!("inline") };
                    let error = format!("{:?}", group.open(&mut bob.desk(), body).err().unwrap());
                    let what = format!("the message of position {}, behind this one", position + 1);
                    refused.push(json!({ "what": what, "at": item["position"], "error": error }));
                }
            }
            _ => {
                let altered = [&body[..body.len() - 1], &[body[body.len() - 1] ^ 1]].concat();
                let error = format!("{:?}", group.open(&mut bob.desk(), &altered).err().unwrap());
                refused.push(json!({ "what": "the last bit flipped", "at": item["position"], "error": error }));
                let opened = group.open(&mut bob.desk(), &body).unwrap();
                assert_eq!(opened.plaintext.to_vec(), unhex(&item["content"]));
                let id = content_id(CONVERSATION, opened.author.account, &opened.plaintext);
                assert_eq!(id.to_string(), item["content_id"].as_str().unwrap());
                let error = format!("{:?}", group.open(&mut bob.desk(), &body).err().unwrap());
                refused.push(json!({ "what": "once more", "at": item["position"], "error": error }));
            }
        }
        earlier.push(entry);
    }
    json!(refused)
}

#[derive(Default)]
struct Strange(RustCrypto);

impl OpenMlsCrypto for Strange {
    fn supports(&self, suite: Ciphersuite) -> Result<(), CryptoError> {
        self.0.supports(suite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        self.0.supported_ciphersuites()
    }

    fn hkdf_extract(&self, hash: HashType, salt: &[u8], ikm: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        self.0.hkdf_extract(hash, salt, ikm)
    }

    fn hmac(&self, hash: HashType, key: &[u8], message: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        self.0.hmac(hash, key, message)
    }

    fn hkdf_expand(
        &self,
        hash: HashType,
        prk: &[u8],
        info: &[u8],
        length: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        self.0.hkdf_expand(hash, prk, info, length)
    }

    fn hash(&self, hash: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.0.hash(hash, data)
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        text: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.0.aead_encrypt(alg, key, text, nonce, aad)
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        text: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.0.aead_decrypt(alg, key, text, nonce, aad)
    }

    fn signature_key_gen(&self, scheme: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        self.0.signature_key_gen(scheme)
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        data: &[u8],
        key: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.0.verify_signature(scheme, data, key, signature)
    }

    fn sign(&self, scheme: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.0.sign(scheme, data, key)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        key: &[u8],
        info: &[u8],
        aad: &[u8],
        text: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        self.0.hpke_seal(config, key, info, aad, text)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        text: &HpkeCiphertext,
        key: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.0.hpke_open(config, text, key, info, aad)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        key: &[u8],
        info: &[u8],
        context: &[u8],
        length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        self.0.hpke_setup_sender_and_export(config, key, info, context, length)
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        encapsulated: &[u8],
        key: &[u8],
        info: &[u8],
        context: &[u8],
        length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        self.0.hpke_setup_receiver_and_export(config, encapsulated, key, info, context, length)
    }

    fn derive_hpke_keypair(&self, _: HpkeConfig, ikm: &[u8]) -> Result<HpkeKeyPair, CryptoError> {
        let (private, public) = XWing::derive_keypair(ikm);
        Ok(HpkeKeyPair { private: private.to_bytes().to_vec().into(), public: public.to_bytes().to_vec() })
    }
}
