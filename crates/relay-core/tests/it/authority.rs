use sealwire_relay_core::{Connection, Decision, Input, StoreFailed, Token};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{FromRelay, IdProof, LookupBy, ToRelay};
use sealwire_wire::limits::{FRAME_MAX, LOOKUPS_PER_MINUTE};
use sealwire_wire::{BlobHash, Code, ConversationId, EnvelopeId, LogId, MeetingId, Position};

use crate::device::Device;
use crate::world::{Id, World, ack, only_code};

/// One of each frame but LogIn, as `device` would send it.
fn every_verb(device: &Device) -> Vec<ToRelay> {
    let conversation = ConversationId([4; 32]);
    vec![
        device.append(device.inbox_log(), 1, 10),
        ack(device.inbox_log(), 1),
        ToRelay::Lookup { request: 1, by: LookupBy::Handle("alice".to_owned()) },
        device.register("alice"),
        ToRelay::Publish { request: 1, entry: device.rotation(10).0, inbox: None },
        ToRelay::SetPresence { token: None },
        ToRelay::Watch { tokens: vec![] },
        ToRelay::Attach { request: 1, conversation },
        ToRelay::CreateConversation {
            request: 1,
            conversation,
            entries: vec![],
            inboxes: vec![device.inbox],
            welcomes: vec![],
            proof: IdProof::Nonce([4; 16]),
        },
        ToRelay::GetHead { request: 1, conversation },
        ToRelay::PutBlob { request: 1, hash: BlobHash([1; 32]), size: 1, offset: 0, bytes: vec![1] },
        ToRelay::GetBlob { request: 1, hash: BlobHash([1; 32]), offset: 0 },
        ToRelay::PublishKeyPackages { request: 1, replace: false, one_time: vec![vec![1]], last_resort: None },
        ToRelay::ClaimKeyPackages { request: 1, account: device.log.id(), device: None },
        ToRelay::ListLogs { request: 1 },
        ToRelay::Meet { request: 1, meeting: MeetingId([1; 16]), bytes: vec![1] },
    ]
}

fn expect(state: &str, frame: &ToRelay) -> Option<Code> {
    match (state, frame) {
        ("fresh", _) => Some(Code::WrongOrder),
        ("unregistered", ToRelay::Register { .. }) => None,
        // It may come, and nobody is there.
        ("unregistered", ToRelay::Meet { .. }) => Some(Code::NotFound),
        ("unregistered", _) => Some(Code::NotAllowed),
        ("restored", ToRelay::Lookup { .. } | ToRelay::Publish { .. } | ToRelay::Ack { .. }) => None,
        ("restored", _) => Some(Code::Restored),
        (state, _) => panic!("{state}"),
    }
}

fn in_state(state: &str) -> (World, Id, Device) {
    let mut world = World::new();
    let mut device = Device::new(1);
    let id = match state {
        "fresh" => world.open(),
        "unregistered" => world.log_in(&device).0,
        _ => {
            world.register(&mut device, "alice");
            device.committed.0 = [0xee; 16];
            world.log_in(&device).0
        }
    };
    world.take(id);
    (world, id, device)
}

/// N2: authority is checked on every verb: (state x frame) -> answer.
#[test]
fn frames_that_have_no_place_are_refused() {
    for state in ["fresh", "unregistered", "restored"] {
        for number in 0..every_verb(&Device::new(1)).len() {
            let (mut world, id, device) = in_state(state);
            let frame = every_verb(&device).swap_remove(number);
            let answers = world.ask(id, &frame);
            match expect(state, &frame) {
                Some(code) => assert_eq!(only_code(&answers), code, "{state}, verb {number}"),
                None => {
                    assert!(!answers.iter().any(|frame| matches!(frame, FromRelay::Failed(_))), "{state} {answers:?}")
                }
            }
            assert_eq!(world.closed(id).is_some(), state == "fresh", "{state}, verb {number}");
        }
    }
    for state in ["unregistered", "restored"] {
        let (mut world, id, device) = in_state(state);
        let frame = device.log_in(&world.hello(id), "", b"");
        assert_eq!(world.refusal(id, &frame), Code::WrongOrder, "a second log-in, {state}");
        assert_eq!(world.closed(id), Some("WRONG_ORDER"));
    }
}

/// NW-02: what is another's stays another's, whichever verb is tried.
#[test]
fn another_device_gains_nothing() {
    let mut world = World::new();
    let (mut alice, mut mallory) = (Device::new(1), Device::new(2));
    let alices = world.register(&mut alice, "alice");
    let mallorys = world.register(&mut mallory, "mallory");
    world.ask(mallorys, &mallory.append(alice.inbox_log(), 1, 10));
    assert_eq!(world.take(alices).len(), 1);

    // Read or acknowledge her inbox, change her account, take her name, her inbox or her genesis.
    assert_eq!(world.refusal(mallorys, &ack(alice.inbox_log(), 1)), Code::NotAllowed);
    let entry = ToRelay::Publish { request: 2, entry: alice.rotation(10).0, inbox: None };
    assert_eq!(world.refusal(mallorys, &entry), Code::HeadMoved);
    assert_eq!(world.refusal(mallorys, &alice.register("alice")), Code::AlreadyRegistered);
    let third = Device::new(3);
    let (thirds, _) = world.log_in(&third);
    assert_eq!(world.refusal(thirds, &alice.register("carol")), Code::EntryRefused);
    let mut frame = third.register("carol");
    if let ToRelay::Register { inbox, .. } = &mut frame {
        *inbox = alice.inbox;
    }
    assert!(matches!(world.refusal(thirds, &frame), Code::NotAllowed | Code::Busy));
    // She has lost nothing: what she has not acknowledged comes again.
    assert_eq!(
        crate::world::positions(&{
            let (id, answer) = world.log_in(&alice);
            assert!(matches!(answer, FromRelay::LoggedIn(_)));
            let _rest = world.take(id);
            world.drop(id);
            let id = world.open();
            let frame = alice.log_in(&world.hello(id), "", b"");
            world.ask(id, &frame)
        }),
        [1]
    );
}

#[test]
fn bytes_that_are_not_frames_are_refused() {
    let mut world = World::new();
    let mut device = Device::new(1);
    let id = world.register(&mut device, "alice");
    let mut code = |input| {
        world.give(id, input);
        only_code(&world.take(id))
    };
    assert_eq!(code(Input::Bytes(vec![0xff; 40])), Code::Malformed);
    assert_eq!(code(Input::Bytes(vec![])), Code::UnknownFrame);
    assert_eq!(code(Input::Bytes(vec![0xfa, 0x3f, 0])), Code::UnknownFrame);
    assert_eq!(code(Input::Bytes(vec![0; FRAME_MAX + 1])), Code::TooLarge);
    assert_eq!(world.closed(id), Some("TOO_LARGE"));

    let (id, _) = world.log_in(&device);
    world.take(id);
    world.give(id, Input::Text);
    assert_eq!(only_code(&world.take(id)), Code::TextFrame);
    assert_eq!(world.closed(id), Some("TEXT_FRAME"));
}

/// A shell that makes mistakes is answered, too: nothing panics, and nothing is done twice.
#[test]
fn answers_that_nobody_waits_for_change_nothing() {
    let mut world = World::new();
    let mut device = Device::new(1);
    let id = world.register(&mut device, "alice");
    world.give(id, Input::Stored { token: Token(999), result: Err(StoreFailed) });
    world.give(id, Input::Loaded { token: Token(0), result: Err(StoreFailed) });
    assert_eq!((world.take(id), world.closed(id)), (vec![], None));
}

/// What a relay does not offer it does not list, and does not know: before log-in, too, and the connection goes on.
#[test]
fn what_is_not_offered_is_unknown() {
    let mut world = World::new();
    let every = ["inbox", "presence", "conversation-log", "blob", "key-packages"];
    let id = world.open();
    assert_eq!(world.hello(id).features, every);

    let mut world = World::plain();
    let mut device = Device::new(1);
    let stranger = world.open();
    let (unregistered, _) = world.log_in(&Device::new(2));
    let id = world.register(&mut device, "alice");
    assert_eq!(world.hello(id).features, every[..2]);
    let optional = |frame: &ToRelay| {
        matches!(
            frame,
            ToRelay::Attach { .. }
                | ToRelay::CreateConversation { .. }
                | ToRelay::GetHead { .. }
                | ToRelay::ListLogs { .. }
                | ToRelay::PutBlob { .. }
                | ToRelay::GetBlob { .. }
                | ToRelay::PublishKeyPackages { .. }
                | ToRelay::ClaimKeyPackages { .. }
                | ToRelay::Meet { .. }
        )
    };
    let frames: Vec<_> = every_verb(&device).into_iter().filter(optional).collect();
    assert_eq!(frames.len(), 9);
    for frame in &frames {
        for id in [stranger, unregistered, id] {
            let [FromRelay::Failed(failed)] = &world.ask(id, frame)[..] else { panic!() };
            assert_eq!((failed.code, failed.request), (Code::UnknownFrame, 1));
            assert_eq!(world.closed(id), None);
        }
    }
    let entry = Entry {
        kind: EntryKind::Message,
        after: Some(Position(0)),
        envelope: EnvelopeId([7; 16]),
        body: Body::Inline(vec![1]),
    };
    let log = LogId::Conversation(ConversationId([4; 32]));
    let append = ToRelay::Append { log, entry: entry.encode(), roster: None };
    assert_eq!(world.refusal(id, &append), Code::UnknownLog);
    assert!(matches!(world.ask(id, &device.append(device.inbox_log(), 1, 10))[0], FromRelay::Accepted { .. }));
}

/// K1: a quota on look-ups, which says when to come again.
#[test]
fn look_ups_have_a_rate() {
    let mut world = World::new();
    let mut device = Device::new(1);
    let id = world.register(&mut device, "alice");
    let frame = ToRelay::Lookup { request: 1, by: LookupBy::Handle("nobody".to_owned()) };
    for _ in 0..LOOKUPS_PER_MINUTE {
        assert_eq!(world.refusal(id, &frame), Code::NotFound);
    }
    let [FromRelay::Failed(failed)] = &world.ask(id, &frame)[..] else { panic!() };
    assert_eq!(failed.code, Code::RateLimited);
    world.now = world.now.plus(failed.retry_after_ms);
    assert_eq!(world.refusal(id, &frame), Code::NotFound);
}

/// Nothing of a frame is in what is logged.
#[test]
fn what_is_printed_names_nobody() {
    let mut world = World::new();
    let device = Device::new(1);
    let id = world.open();
    let frame = device.log_in(&world.hello(id), "", b"");
    let printed = format!("{:?} {:?}", Input::Bytes(frame.encode()), world.relay);
    assert_eq!(printed, r#"Bytes Relay { name: "relay.example", registration: Open, .. }"#);
}

/// Whatever a connection waits for: if the store fails, it is told so and closed, and nothing is acknowledged.
#[test]
fn a_store_that_fails_closes_the_connection() {
    let world = World::new();
    let device = Device::new(1);
    let (mut connection, decisions) = Connection::open(&world.relay, world.now, [1; 32], None, None);
    let [Decision::Send(FromRelay::Hello(hello))] = &decisions[..] else { panic!("{decisions:?}") };
    let frame = device.log_in(hello, "", b"");
    let asked = connection.handle(Input::Bytes(frame.encode()), world.now);
    let [Decision::Load { token, .. }] = &asked[..] else { panic!("{asked:?}") };
    let failed = connection.handle(Input::Loaded { token: *token, result: Err(StoreFailed) }, world.now);
    assert_eq!(format!("{failed:?}"), "[STORE_FAILED, Close(STORE_FAILED)]");
    assert!(connection.is_closed());
    assert_eq!(connection.handle(Input::Bytes(frame.encode()), world.now), [], "nothing is done any more");
}
