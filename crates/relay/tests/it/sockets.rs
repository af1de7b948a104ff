use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sealwire_relay::{Config, Registration, Server, Service, StartError, open_store, start_local};
use sealwire_store::StoreError;
use sealwire_wire::frame::{FromRelay, LoggedIn, LookupBy, ToRelay};
use sealwire_wire::limits::FRAME_MAX;
use sealwire_wire::{Code, LogId, Position, PresenceToken, SUBPROTOCOL};
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_websockets::Message;

use crate::client::{Client, connect};
use crate::device::Device;

async fn relay(data: &Path) -> Server {
    start_local(data, 0, Some("relay.example"), Registration::Open).await.unwrap()
}

fn delivered(frame: &FromRelay) -> Vec<u64> {
    match frame {
        FromRelay::Deliver { entries, .. } => entries.iter().map(|entry| entry.position.0).collect(),
        other => panic!("{other:?}"),
    }
}

fn code(frame: &FromRelay) -> Code {
    match frame {
        FromRelay::Failed(failed) => failed.code,
        other => panic!("{other:?}"),
    }
}

/// Waits for the frame that `is` names, among deliveries and answers in whichever order they come.
async fn until(client: &mut Client, is: impl Fn(&FromRelay) -> bool) -> FromRelay {
    loop {
        let frame = client.next().await;
        if is(&frame) {
            return frame;
        }
    }
}

/// The whole way, with a stop, a crash and a restart in between: what was accepted is delivered, once acknowledged it is
/// not delivered again, and the relay is the same one.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_survives_restarts() {
    let data = tempdir().unwrap();
    let (mut alice, mut bob) = (Device::new(1), Device::new(2));
    let bobs_log = bob.inbox_log();
    let server = relay(data.path()).await;
    let key = server.public_key();
    let features = ["inbox", "presence", "conversation-log", "blob", "key-packages"];
    assert_eq!(Client::open(server.address()).await.hello.features, features);
    {
        let mut alices = Client::register(server.address(), &mut alice, "alice").await;
        Client::register(server.address(), &mut bob, "bob").await;
        let by = LookupBy::Handle("bob".to_owned());
        let FromRelay::Found { devices, .. } = alices.ask(&ToRelay::Lookup { request: 5, by }).await else { panic!() };
        assert_eq!(devices, [(bob.id(), bob.inbox)]);
        for number in 1..=3 {
            let accepted = alices.ask(&alice.append(bobs_log, number, 100)).await;
            assert!(matches!(accepted, FromRelay::Accepted { position, .. } if position.0 == u64::from(number)));
        }
    }
    server.stop().await;

    let server = relay(data.path()).await;
    assert_eq!(server.public_key(), key);
    {
        let (mut bobs, answer) = Client::log_in(server.address(), &mut bob).await;
        assert!(matches!(answer, LoggedIn::Registered { restored: false, read_upto: Position(0), .. }));
        assert_eq!(delivered(&bobs.next().await), [1, 2, 3]);
        bobs.send(&ToRelay::Ack { log: bobs_log, upto: Position(2) }).await;
        // Operations of one connection are committed in order: this answer says that the Ack is durable, too.
        let answer = bobs.ask(&bob.append(alice.inbox_log(), 9, 10)).await;
        assert!(matches!(answer, FromRelay::Accepted { .. }));
    }
    server.abort().await;

    let server = relay(data.path()).await;
    let (mut bobs, answer) = Client::log_in(server.address(), &mut bob).await;
    assert!(matches!(answer, LoggedIn::Registered { restored: false, read_upto: Position(2), .. }));
    assert_eq!(delivered(&bobs.next().await), [3]);
    server.stop().await;
}

/// One delivery path: who is connected gets it at once.
#[tokio::test(flavor = "multi_thread")]
async fn live_delivery_and_presence() {
    let data = tempdir().unwrap();
    let server = relay(data.path()).await;
    let (mut alice, mut bob) = (Device::new(1), Device::new(2));
    let mut alices = Client::register(server.address(), &mut alice, "alice").await;
    let mut bobs = Client::register(server.address(), &mut bob, "bob").await;
    for number in 1..=50 {
        alices.send(&alice.append(bob.inbox_log(), number, 10)).await;
    }
    let mut positions = Vec::new();
    while positions.len() < 50 {
        positions.extend(delivered(&bobs.next().await));
    }
    assert_eq!(positions, (1..=50).collect::<Vec<u64>>());

    let token = PresenceToken([8; 16]);
    bobs.send(&ToRelay::Watch { tokens: vec![token] }).await;
    until(&mut bobs, |frame| *frame == FromRelay::Presence { token, online: false }).await;
    alices.send(&ToRelay::SetPresence { token: Some(token) }).await;
    until(&mut bobs, |frame| *frame == FromRelay::Presence { token, online: true }).await;
    drop(alices);
    until(&mut bobs, |frame| *frame == FromRelay::Presence { token, online: false }).await;
    server.stop().await;
}

/// spec/errors.md, last paragraph: close codes for what is no frame.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_frame_closes() {
    let data = tempdir().unwrap();
    let server = relay(data.path()).await;

    let mut client = Client::open(server.address()).await;
    client.send_raw(Message::text("hello")).await;
    let (frames, closed) = client.until_closed().await;
    assert_eq!((frames.iter().map(code).collect::<Vec<_>>(), closed), (vec![Code::TextFrame], Some(1003)));

    let mut client = Client::open(server.address()).await;
    client.send_raw(Message::binary(vec![0; FRAME_MAX + 1])).await;
    assert_eq!(client.until_closed().await, (vec![], Some(1009)));

    let mut client = Client::open(server.address()).await;
    client.send_raw(Message::binary(vec![0xff; FRAME_MAX])).await;
    assert_eq!(code(&client.next().await), Code::Malformed);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_upgrade_is_one() {
    let data = tempdir().unwrap();
    let server = relay(data.path()).await;
    assert!(connect(server.address(), SUBPROTOCOL).await.is_ok());
    assert!(connect(server.address(), "chat, sealwire.v1").await.is_ok(), "among others");
    assert!(connect(server.address(), "sealwire.v2").await.is_err());

    let good = "GET /v1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                Sec-WebSocket-Protocol: sealwire.v1\r\n\r\n";
    let status = async |request: &str| {
        let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 1024];
        let read = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    let answer = status(good).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    // The example of RFC 6455, section 1.3.
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    let bad = [
        ("Version: 13", "Version: 12"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        ("keep-alive, Upgrade", "keep-alive"),
        ("websocket", "h2c"),
        ("sealwire.v1\r\n", "sealwire\r\n"),
        ("Sec-WebSocket-Protocol: sealwire.v1\r\n", ""),
    ];
    for (from, to) in bad {
        let answer = status(&good.replace(from, to)).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{to}: {answer}");
    }
    assert!(status(&good.replace("GET", "POST")).await.starts_with("HTTP/1.1 405"));
    assert!(status(&good.replace("/v1", "/v2")).await.starts_with("HTTP/1.1 404"));
    server.stop().await;
}

/// N2.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_connection_replaces_the_older() {
    let data = tempdir().unwrap();
    let server = relay(data.path()).await;
    let mut alice = Device::new(1);
    let mut older = Client::register(server.address(), &mut alice, "alice").await;
    let (mut newer, _) = Client::log_in(server.address(), &mut alice).await;
    let (frames, closed) = older.until_closed().await;
    assert_eq!((code(&frames[0]), closed), (Code::Replaced, Some(1008)));
    assert!(matches!(
        newer.ask(&alice.append(alice.inbox_log(), 1, 1)).await,
        FromRelay::Accepted { .. } | FromRelay::Deliver { .. }
    ));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_told_and_gives_the_store_back() {
    let data = tempdir().unwrap();
    let server = relay(data.path()).await;
    let mut alice = Device::new(1);
    let mut client = Client::register(server.address(), &mut alice, "alice").await;
    let mut stranger = Client::open(server.address()).await;
    assert!(matches!(open_store(data.path()), Err(StartError::Store(StoreError::InUse))));
    server.stop().await;
    for client in [&mut client, &mut stranger] {
        let (frames, closed) = client.until_closed().await;
        assert_eq!((code(&frames[0]), closed), (Code::ShuttingDown, Some(1012)));
        assert!(matches!(&frames[0], FromRelay::Failed(failed) if failed.retry_after_ms >= 1_000));
    }
    assert!(open_store(data.path()).is_ok());
}

/// A crash says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_abort_is_not_told() {
    let data = tempdir().unwrap();
    let server = relay(data.path()).await;
    let mut alice = Device::new(1);
    let mut client = Client::register(server.address(), &mut alice, "alice").await;
    server.abort().await;
    assert_eq!(client.until_closed().await, (vec![], None));
    let server = relay(data.path()).await;
    let (_, answer) = Client::log_in(server.address(), &mut alice).await;
    assert!(matches!(answer, LoggedIn::Registered { restored: false, .. }));
    server.stop().await;
}

/// A client that floods and does not read is not read any more, and nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_bounded_and_answered() {
    let data = tempdir().unwrap();
    let server = relay(data.path()).await;
    let (mut alice, mut bob) = (Device::new(1), Device::new(2));
    let mut alices = Client::register(server.address(), &mut alice, "alice").await;
    let mut bobs = Client::register(server.address(), &mut bob, "bob").await;
    let unknown = LogId::Inbox(sealwire_wire::InboxAddress([0xaa; 16]));
    for number in 0..200 {
        alices.send(&alice.append(unknown, number, 1_000)).await;
    }
    assert!(matches!(bobs.ask(&bob.append(alice.inbox_log(), 1, 1)).await, FromRelay::Accepted { .. }));
    let mut refusals = 0;
    while refusals < 200 {
        match alices.next().await {
            FromRelay::Failed(failed) => {
                assert!(matches!(failed.code, Code::UnknownLog | Code::Busy));
                refusals += 1;
            }
            FromRelay::Deliver { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    server.stop().await;
}

/// NW-04, NW-05: so many connections at once, upgraded ones above all; the next one is served when one of them has gone.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded() {
    let data = tempdir().unwrap();
    let here = "127.0.0.1:0".parse().unwrap();
    let config = Config { connections_max: 2, ..Config::new(here, Registration::Open) };
    let server = Server::start(&config, Arc::new(open_store(data.path()).unwrap())).await.unwrap();
    let address = server.address();
    let first = Client::open(address).await;
    let mut second = Client::open(address).await;
    let mut third = tokio::spawn(Client::open(address));
    let served = tokio::time::timeout(Duration::from_millis(500), &mut third).await;
    assert!(served.is_err(), "a third of two is served");
    drop(first);
    let mut third = third.await.unwrap();
    for client in [&mut second, &mut third] {
        client.send(&ToRelay::SetPresence { token: None }).await;
        assert_eq!(code(&client.next().await), Code::WrongOrder);
    }
    server.stop().await;
}

/// The router serves inside another program, too (`examples/mounted.rs`).
#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_router_is_a_relay() {
    let data = tempdir().unwrap();
    let store = std::sync::Arc::new(open_store(data.path()).unwrap());
    let service = Service::start("relay.example", Registration::Open, store).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let program = axum::Router::new().route("/", axum::routing::get(async || "hello")).merge(service.router());
    let serving = tokio::spawn(async move { axum::serve(listener, program).await });
    let mut alice = Device::new(1);
    let mut client = Client::register(address, &mut alice, "alice").await;
    assert!(matches!(
        client.ask(&alice.append(alice.inbox_log(), 1, 1)).await,
        FromRelay::Accepted { .. } | FromRelay::Deliver { .. }
    ));
    service.stop().await;
    let (frames, _) = client.until_closed().await;
    assert_eq!(frames.last().map(code), Some(Code::ShuttingDown));
    serving.abort();
}
