//! The generated frame definitions are those of `spec/sealwire.proto`, and every frame survives its encoding.

use sealwire_wire::frame::*;
use sealwire_wire::limits::{
    BLOB_CHUNK_MAX, FIRST_ENTRIES_MAX, FRAME_MAX, KEY_PACKAGE_MAX, KEY_PACKAGES_MAX, ROSTER_MAX, WATCHED_TOKENS_MAX,
};
use sealwire_wire::*;

/// `SEALWIRE_UPDATE=1 cargo test -p sealwire-wire` writes the file again after a change of the .proto.
#[test]
fn the_generated_frames_are_those_of_the_spec() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let descriptors = protox::compile([format!("{root}/spec/sealwire.proto")], [format!("{root}/spec")]).unwrap();
    let out = std::env::temp_dir().join(format!("sealwire-frames-{}", std::process::id()));
    std::fs::create_dir_all(&out).unwrap();
    prost_build::Config::new().out_dir(&out).compile_fds(descriptors).unwrap();
    let generated = std::fs::read_to_string(out.join("sealwire.v1.rs")).unwrap();
    std::fs::remove_dir_all(&out).unwrap();
    let committed = format!("{root}/crates/wire/src/frames.rs");
    if std::env::var_os("SEALWIRE_UPDATE").is_some() {
        #[expect(clippy::disallowed_methods, reason = "on request, the committed file is written anew")]
        std::fs::write(&committed, &generated).unwrap();
    }
    assert_eq!(std::fs::read_to_string(committed).unwrap(), generated, "run with SEALWIRE_UPDATE=1");
}

fn to_relay() -> Vec<ToRelay> {
    let inbox = InboxAddress([1; 16]);
    let conversation = ConversationId([2; 32]);
    let welcome = Welcome { inbox, entry: vec![1] };
    vec![
        ToRelay::LogIn {
            device_key: [1; 32],
            incarnation: Incarnation([2; 16]),
            pending: Incarnation([3; 16]),
            binding: vec![],
            signature: [4; 64],
        },
        ToRelay::Append {
            log: LogId::Conversation(conversation),
            entry: vec![1, 2],
            roster: Some(RosterChange {
                before: RosterHash([5; 32]),
                inboxes: vec![inbox],
                welcomes: vec![welcome.clone()],
            }),
        },
        ToRelay::Append { log: LogId::Inbox(inbox), entry: vec![], roster: None },
        ToRelay::Ack { log: LogId::Inbox(inbox), upto: Position(9) },
        ToRelay::Lookup { request: 1, by: LookupBy::Handle("bob".into()) },
        ToRelay::Lookup { request: 1, by: LookupBy::Account(AccountId([1; 32])) },
        ToRelay::Lookup { request: 1, by: LookupBy::Device(DeviceHint([1; 16])) },
        ToRelay::Register { request: 2, handle: "bob".into(), genesis: vec![1], inbox, invite: String::new() },
        ToRelay::Publish { request: 3, entry: vec![1], inbox: None },
        ToRelay::Publish { request: 3, entry: vec![1], inbox: Some(inbox) },
        ToRelay::SetPresence { token: None },
        ToRelay::SetPresence { token: Some(PresenceToken([1; 16])) },
        ToRelay::Watch { tokens: vec![PresenceToken([1; 16])] },
        ToRelay::Attach { request: 4, conversation },
        ToRelay::CreateConversation {
            request: 5,
            conversation,
            entries: vec![vec![1]],
            inboxes: vec![inbox],
            welcomes: vec![welcome.clone()],
            proof: IdProof::Peer(AccountId([1; 32])),
        },
        ToRelay::CreateConversation {
            request: 5,
            conversation,
            entries: vec![vec![1]],
            inboxes: vec![inbox],
            welcomes: vec![welcome],
            proof: IdProof::Nonce([1; 16]),
        },
        ToRelay::GetHead { request: 6, conversation },
        ToRelay::PutBlob { request: 7, hash: BlobHash([1; 32]), size: 5, offset: 1, bytes: vec![1] },
        ToRelay::GetBlob { request: 8, hash: BlobHash([1; 32]), offset: 1 },
        ToRelay::PublishKeyPackages {
            request: 9,
            replace: true,
            one_time: vec![vec![1], vec![2, 3]],
            last_resort: Some(vec![4]),
        },
        ToRelay::PublishKeyPackages { request: 10, replace: false, one_time: vec![], last_resort: None },
        ToRelay::ClaimKeyPackages { request: 11, account: AccountId([1; 32]), device: None },
        ToRelay::ClaimKeyPackages { request: 11, account: AccountId([1; 32]), device: Some(DeviceId([2; 32])) },
        ToRelay::Meet { request: 13, meeting: MeetingId([3; 16]), bytes: vec![4] },
        ToRelay::ListLogs { request: 12 },
    ]
}

fn from_relay() -> Vec<FromRelay> {
    let inbox = InboxAddress([1; 16]);
    let conversation = ConversationId([2; 32]);
    let envelope = EnvelopeId([3; 16]);
    vec![
        FromRelay::Hello(Hello {
            relay_name: "relay.example".into(),
            relay_key: [1; 32],
            instance: InstanceId([1; 16]),
            challenge: [1; 32],
            features: vec!["inbox".into()],
            limits: Limits::default(),
            registration: "open".into(),
            time: Time(5),
        }),
        FromRelay::Accepted { envelope, position: Position(1) },
        FromRelay::Logs { request: 12, conversations: vec![conversation] },
        FromRelay::Met { meeting: MeetingId([3; 16]), bytes: vec![4] },
        FromRelay::Attached {
            request: 4,
            read_upto: Position(1),
            chain: Some(Chain([2; 32])),
            newest_commit: Position(1),
            length: Position(3),
            roster: Some(RosterHash([4; 32])),
        },
        FromRelay::Deliver {
            log: LogId::Inbox(inbox),
            entries: vec![Delivered { position: Position(1), entry: vec![1], at: Time(1) }],
        },
        FromRelay::Failed(Failed {
            code: Code::Busy,
            request: 1,
            envelope: Some(envelope),
            retry_after_ms: 5,
            text: "x".into(),
        }),
        FromRelay::LoggedIn(LoggedIn::Unregistered),
        FromRelay::LoggedIn(LoggedIn::Registered {
            restored: true,
            account: AccountId([1; 32]),
            handle: "bob".into(),
            inbox,
            read_upto: Position(4),
            account_entries: 1,
            account_head: [1; 32],
            key_packages: 7,
        }),
        FromRelay::Done { request: 1 },
        FromRelay::Found {
            request: 1,
            handle: "bob".into(),
            entries: vec![vec![1]],
            devices: vec![(DeviceId([1; 32]), inbox)],
        },
        FromRelay::Stale { envelope, newest_commit: Position(1) },
        FromRelay::Trimmed {
            log: LogId::Conversation(conversation),
            position: Position(1),
            chain: Some(Chain([1; 32])),
        },
        FromRelay::Trimmed { log: LogId::Inbox(inbox), position: Position(1), chain: None },
        FromRelay::Presence { token: PresenceToken([1; 16]), online: true },
        FromRelay::Head { request: 1, conversation, length: Position(1), chain: Chain([1; 32]), signature: [1; 64] },
        FromRelay::Blob { request: 1, size: 1, offset: 0, bytes: vec![1] },
        FromRelay::KeyPackages {
            request: 1,
            packages: [false, true]
                .map(|is_last_resort| KeyPackage { device: DeviceId([1; 32]), inbox, bytes: vec![1], is_last_resort })
                .to_vec(),
        },
        FromRelay::KeyPackages { request: 1, packages: vec![] },
    ]
}

#[test]
fn every_frame_comes_back_as_it_was() {
    for frame in to_relay() {
        assert_eq!(ToRelay::decode(&frame.encode()), Ok(frame));
    }
    for frame in from_relay() {
        assert_eq!(FromRelay::decode(&frame.encode()), Ok(frame));
    }
}

/// Total parsers: every prefix and every flipped bit of every frame gives a value or a named rejection.
#[test]
fn damaged_frames_are_values_or_named_rejections() {
    let all: Vec<Vec<u8>> =
        to_relay().iter().map(ToRelay::encode).chain(from_relay().iter().map(FromRelay::encode)).collect();
    for bytes in all {
        for end in 0..bytes.len() {
            let _ = (ToRelay::decode(&bytes[..end]), FromRelay::decode(&bytes[..end]));
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = (ToRelay::decode(&flipped), FromRelay::decode(&flipped));
        }
    }
}

#[test]
fn limits_hold_at_the_limit_and_one_past() {
    let put =
        |length| ToRelay::PutBlob { request: 1, hash: BlobHash([1; 32]), size: 1, offset: 0, bytes: vec![0; length] };
    assert!(ToRelay::decode(&put(BLOB_CHUNK_MAX).encode()).is_ok());
    assert_eq!(ToRelay::decode(&put(BLOB_CHUNK_MAX + 1).encode()), Err(FrameError::Limit("bytes")));
    assert_eq!(ToRelay::decode(&vec![0; FRAME_MAX + 1]), Err(FrameError::TooLarge));
    assert_ne!(ToRelay::decode(&vec![0; FRAME_MAX]), Err(FrameError::TooLarge));
}

/// A2, C6, C8: lists at the limit and one past it.
#[test]
fn lists_hold_at_the_limit_and_one_past() {
    let numbered = |number: usize| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        bytes
    };
    let watch = |count| ToRelay::Watch { tokens: (0..count).map(|n| PresenceToken(numbered(n))).collect() }.encode();
    assert!(ToRelay::decode(&watch(WATCHED_TOKENS_MAX)).is_ok());
    assert_eq!(ToRelay::decode(&watch(WATCHED_TOKENS_MAX + 1)), Err(FrameError::Limit("tokens")));

    let inboxes = |count| (0..count).map(|n| InboxAddress(numbered(n))).collect::<Vec<_>>();
    let create = |count, first: usize| ToRelay::CreateConversation {
        request: 1,
        conversation: ConversationId([1; 32]),
        entries: vec![vec![1]; first],
        inboxes: inboxes(count),
        welcomes: vec![],
        proof: IdProof::Nonce([1; 16]),
    };
    let append = |count, joining| ToRelay::Append {
        log: LogId::Conversation(ConversationId([1; 32])),
        entry: vec![1],
        roster: Some(RosterChange {
            before: RosterHash([0; 32]),
            inboxes: inboxes(count),
            welcomes: vec![Welcome { inbox: InboxAddress([1; 16]), entry: vec![] }; joining],
        }),
    };
    assert!(ToRelay::decode(&create(ROSTER_MAX, FIRST_ENTRIES_MAX).encode()).is_ok());
    assert!(ToRelay::decode(&append(ROSTER_MAX, ROSTER_MAX).encode()).is_ok());
    assert_eq!(ToRelay::decode(&append(1, ROSTER_MAX + 1).encode()), Err(FrameError::Limit("welcomes")));
    let too_many = Err(FrameError::Limit("inboxes"));
    assert_eq!(ToRelay::decode(&create(ROSTER_MAX + 1, 1).encode()), too_many);
    assert_eq!(ToRelay::decode(&append(ROSTER_MAX + 1, 0).encode()), too_many);
    let first = create(1, FIRST_ENTRIES_MAX + 1).encode();
    assert_eq!(ToRelay::decode(&first), Err(FrameError::Limit("entries")));
}

/// K1: a key package has bytes, and not too many; so many of them come in one frame.
#[test]
fn key_packages_hold_at_the_limit_and_one_past() {
    let publish = |one_time: Vec<usize>, last_resort: usize| {
        let one_time = one_time.into_iter().map(|length| vec![1; length]).collect();
        let last_resort = (last_resort > 0).then(|| vec![2; last_resort]);
        ToRelay::PublishKeyPackages { request: 1, replace: false, one_time, last_resort }
    };
    let decoded = |frame: ToRelay| ToRelay::decode(&frame.encode()).map(drop);
    assert_eq!(decoded(publish(vec![1, KEY_PACKAGE_MAX], KEY_PACKAGE_MAX)), Ok(()));
    assert_eq!(decoded(publish(vec![1, KEY_PACKAGE_MAX + 1], 1)), Err(FrameError::Limit("one_time")));
    assert_eq!(decoded(publish(vec![1], KEY_PACKAGE_MAX + 1)), Err(FrameError::Limit("last_resort")));
    assert_eq!(decoded(publish(vec![1, 0], 1)), Err(FrameError::Field("one_time")));
    assert_eq!(decoded(publish(vec![1; KEY_PACKAGES_MAX], 1)), Ok(()));
    assert_eq!(decoded(publish(vec![1; KEY_PACKAGES_MAX + 1], 1)), Err(FrameError::Limit("one_time")));
    assert_eq!(decoded(publish(vec![KEY_PACKAGE_MAX; 33], 1)), Err(FrameError::TooLarge), "a frame is a frame");
    let claimed = |length| {
        let (device, inbox) = (DeviceId([1; 32]), InboxAddress([1; 16]));
        let packages = vec![KeyPackage { device, inbox, bytes: vec![1; length], is_last_resort: false }];
        FromRelay::decode(&FromRelay::KeyPackages { request: 1, packages }.encode()).map(drop)
    };
    assert_eq!((claimed(1), claimed(KEY_PACKAGE_MAX)), (Ok(()), Ok(())));
    assert_eq!(claimed(KEY_PACKAGE_MAX + 1), Err(FrameError::Limit("bytes")));
    assert_eq!(claimed(0), Err(FrameError::Field("bytes")));
}

/// C6: a roster has one form, so that it has one hash.
#[test]
fn a_roster_that_is_not_sorted_is_refused() {
    let create = |inboxes| ToRelay::CreateConversation {
        request: 1,
        conversation: ConversationId([1; 32]),
        entries: vec![],
        inboxes,
        welcomes: vec![],
        proof: IdProof::Nonce([1; 16]),
    };
    let (a, b) = (InboxAddress([1; 16]), InboxAddress([2; 16]));
    assert!(ToRelay::decode(&create(vec![a, b]).encode()).is_ok());
    for bad in [vec![b, a], vec![a, a], vec![]] {
        assert_eq!(ToRelay::decode(&create(bad).encode()), Err(FrameError::Field("inboxes")));
    }
}

/// E1: unknown fields are ignored, unknown kinds have a name.
#[test]
fn unknown_fields_are_ignored_and_unknown_kinds_named() {
    // Field 99 of ToRelay, a varint.
    let unknown = [0x98, 0x06, 0x01];
    assert_eq!(ToRelay::decode(&unknown), Err(FrameError::UnknownKind));
    let ack = ToRelay::Ack { log: LogId::Inbox(InboxAddress([1; 16])), upto: Position(1) };
    assert_eq!(ToRelay::decode(&[&ack.encode()[..], &unknown].concat()), Ok(ack));
}

/// `spec/limits.md` lists every limit of the code, with its value.
#[test]
fn the_limits_in_the_spec_are_these() {
    let page = include_str!("../../../spec/limits.md");
    let code = include_str!("../src/limits.rs");
    let limits = code.lines().filter_map(|line| line.strip_prefix("pub const ")?.strip_suffix(';')?.split_once(" = "));
    let mut count = 0;
    for (name, value) in limits {
        let name = name.split(':').next().unwrap();
        assert!(page.contains(&format!("| {name} | `{value}` |")), "{name} = {value} is not in spec/limits.md");
        count += 1;
    }
    assert_eq!(page.lines().filter(|line| line.starts_with("| ")).count(), count + 1, "and no others");
}

/// C8: without a proof of its id, or with one of another length, no conversation is created.
#[test]
fn a_creation_without_a_proof_is_refused() {
    let field = |tag: u8, bytes: &[u8]| [&[tag << 3 | 2, bytes.len() as u8], bytes].concat();
    let create = |proof: &[u8]| {
        let body = [&[8, 1], &field(2, &[1; 32])[..], &field(4, &[1; 16]), proof].concat();
        ToRelay::decode(&field(10, &body)).map(|_| ())
    };
    let (peer, nonce) = (|length| field(6, &vec![1; length]), |length| field(7, &vec![1; length]));
    assert_eq!(create(&peer(32)), Ok(()));
    assert_eq!(create(&nonce(16)), Ok(()));
    assert_eq!(create(&[]), Err(FrameError::Field("proof")));
    for length in [0, 16, 31, 33] {
        assert_eq!(create(&peer(length)), Err(FrameError::Field("peer")));
    }
    for length in [0, 15, 17, 32] {
        assert_eq!(create(&nonce(length)), Err(FrameError::Field("nonce")));
    }
    assert_eq!(FrameError::Field("proof").code(), Code::Malformed);
}
