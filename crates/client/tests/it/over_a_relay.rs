//! The SDK over real sockets and a real relay: what it promises an application, whatever the mode.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sealwire_client::{Account, Client, Code, Command, Event, Handle, LogInProblem, MessageState, Mode, Part, Refusal};
use sealwire_relay::{Registration, start_local};

use crate::people::{PATIENCE, join, key, next, relay};

/// L8: what an application did not process is told again at the next start, and what it processed is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_told_until_it_was_processed() {
    for mode in [Mode::Mls, Mode::Direct] {
        let home = tempfile::tempdir().unwrap();
        let relay = relay(home.path()).await;
        let (alice, _alice_events) = join(home.path(), &relay, "alice", mode).await;
        let (bob, mut events) = join(home.path(), &relay, "bob", mode).await;
        alice.send_text("bob@here", "one").await.unwrap();
        alice.send_text("bob@here", "two").await.unwrap();
        let is = |text: &'static str| move |event: &Event| matches!(event, Event::Request(r) if r.message.content.part == Part::Text(text.into()));
        next(&mut events, is("one")).await;
        // Asking for the next one says that "one" was processed; "two" is taken and not.
        next(&mut events, is("two")).await;
        bob.close().await;
        drop(events);
        let (bob, mut events) = Client::open(&home.path().join("bob"), key(home.path(), "bob")).await.unwrap();
        let again = next(&mut events, |event| matches!(event, Event::Request(_) | Event::Message(_))).await;
        assert!(is("two")(&again), "{again:?}");
        bob.close().await;
    }
}

/// `Sent::reached` tells when; an offline outbox goes out when the relay is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_waits_for_the_relay() {
    for mode in [Mode::Mls, Mode::Direct] {
        let home = tempfile::tempdir().unwrap();
        let first = relay(home.path()).await;
        let port = first.address().port();
        let (alice, _alice_events) = join(home.path(), &first, "alice", mode).await;
        let (bob, mut bob_events) = join(home.path(), &first, "bob", mode).await;
        alice.find("bob@here").await.unwrap();
        first.stop().await;
        let sent = alice.send_text("bob@here", "saved").await.unwrap();
        assert_eq!(alice.state(sent.number).await.unwrap(), Some(MessageState::Queued));
        let _second = start_local(&home.path().join("relay"), port, Some("here"), Registration::Open).await.unwrap();
        let reached = tokio::time::timeout(PATIENCE, sent.reached(MessageState::Accepted)).await.expect("in time");
        assert!(reached.unwrap() >= MessageState::Accepted);
        next(&mut bob_events, |event| matches!(event, Event::Request(_))).await;
        drop(bob);
    }
}

/// Anything that reads as a stream, up to the message limit; beyond it a named refusal.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_to_its_end_or_refused() {
    for mode in [Mode::Mls, Mode::Direct] {
        let home = tempfile::tempdir().unwrap();
        let relay = relay(home.path()).await;
        let (alice, _alice_events) = join(home.path(), &relay, "alice", mode).await;
        let (_bob, mut events) = join(home.path(), &relay, "bob", mode).await;
        alice.send_from("bob@here", &[7u8; 10_000][..]).await.unwrap();
        let is_it = |event: &Event| matches!(event, Event::Request(r) if matches!(&r.message.content.part, Part::Bytes { bytes, .. } if bytes == &[7; 10_000]));
        next(&mut events, is_it).await;
        let refused = alice.send_from("bob@here", std::io::repeat(1)).await.unwrap_err();
        assert!(matches!(refused, sealwire_client::Error::Refused(Refusal::TooLarge(_))), "{refused}");
        let nobody = alice.find("nobody@here").await.unwrap_err();
        let handle = Handle::parse("nobody@here").unwrap();
        assert!(matches!(nobody, sealwire_client::Error::Refused(Refusal::NotFound(found)) if found == handle));
    }
}

/// HR-01, P: what a person has to know reaches an application that is behind, whatever anybody sends meanwhile: here more
/// than its queue holds, from somebody who is blocked.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_has_to_know_is_not_pushed_out() {
    let home = tempfile::tempdir().unwrap();
    let relay = relay(home.path()).await;
    let (alice, mut events) = join(home.path(), &relay, "alice", Mode::Direct).await;
    let (bob, _bob_events) = join(home.path(), &relay, "bob", Mode::Direct).await;
    let (mallory, _mallory_events) = join(home.path(), &relay, "mallory", Mode::Direct).await;
    let refused = alice.find("mallory@here").await.unwrap().account;
    alice.command(Command::Block(refused)).await.unwrap();
    alice.find("bob@here").await.unwrap();
    next(&mut events, |event| matches!(event, Event::ContactAdded { account, .. } if *account != refused)).await;
    // Nobody takes events from here on.
    let mut last = None;
    for _ in 0..1_100 {
        last = Some(mallory.send_text("alice@here", "junk").await.unwrap());
    }
    tokio::time::timeout(PATIENCE, last.unwrap().reached(MessageState::Accepted)).await.expect("in time").unwrap();
    bob.command(Command::Retire).await.unwrap();
    // Over another connection Alice's client looks bob up again, and learns of it.
    let port = relay.address().port();
    relay.stop().await;
    let _again = start_local(&home.path().join("relay"), port, Some("here"), Registration::Open).await.unwrap();
    let sent = alice.send_text("bob@here", "are you there?").await.unwrap();
    let reached = tokio::time::timeout(PATIENCE, sent.reached(MessageState::Accepted)).await.expect("in time");
    assert!(reached.is_err(), "{reached:?}");
    next(&mut events, |event| matches!(event, Event::ContactRetired { .. })).await;
}

/// N1: a proxy that ends TLS in front of a relay. A client that was not told binds its log-in to the connection, which
/// the relay cannot compare; one that was told does not, and gets in. Nothing the relay says switches it.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_ends_tls_is_for_the_person_to_name() {
    let home = tempfile::tempdir().unwrap();
    let relay = relay(home.path()).await;
    let (certificate, port) = tls_proxy(home.path(), relay.address()).await;
    let account = |name: &str| {
        let account = Account::new(&format!("{name}@here"), &format!("wss://localhost:{port}")).unwrap();
        account.relay_certificate(certificate.clone())
    };
    let alice = Client::create(&home.path().join("alice"), key(home.path(), "alice"), account("alice")).await.unwrap();
    let (alice, mut events) = alice;
    let refused = |event: &Event| matches!(event, Event::LogIn(LogInProblem::Refused(Code::BadSignature, _)));
    next(&mut events, refused).await;
    alice.close().await;
    let bob = account("bob").relay_behind_proxy(true);
    let (bob, _events) = Client::create(&home.path().join("bob"), key(home.path(), "bob"), bob).await.unwrap();
    tokio::time::timeout(PATIENCE, bob.connected()).await.expect("in time").unwrap();
    bob.close().await;
    // It is remembered.
    let (bob, _events) = Client::open(&home.path().join("bob"), key(home.path(), "bob")).await.unwrap();
    tokio::time::timeout(PATIENCE, bob.connected()).await.expect("in time").unwrap();
}

/// Ends TLS and passes the rest on.
async fn tls_proxy(home: &Path, relay: std::net::SocketAddr) -> (std::path::PathBuf, u16) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = home.join("proxy.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((outside, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut outside = acceptor.accept(outside).await.unwrap();
                let mut inside = tokio::net::TcpStream::connect(relay).await.unwrap();
                // Whoever closes first ends it; that is no failure.
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    (file, port)
}

/// L8: an application that takes events slowly, from a relay that never falls silent, gets every message while the
/// traffic goes on, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_application_is_not_starved_by_traffic() {
    let home = tempfile::tempdir().unwrap();
    let relay = relay(home.path()).await;
    let (alice, mut alice_events) = join(home.path(), &relay, "alice", Mode::Direct).await;
    // Receipts later than the whole test takes, so that no timer of theirs wakes the driver.
    let bob = Account::new("bob@here", &format!("ws://{}", relay.address())).unwrap().direct().receipt_delay_ms(60_000);
    let (bob, mut events) = Client::create(&home.path().join("bob"), key(home.path(), "bob"), bob).await.unwrap();
    bob.connected().await.unwrap();
    let drain = tokio::spawn(async move { while alice_events.next().await.is_some() {} });
    alice.send_text("bob@here", "0").await.unwrap();
    let Event::Request(first) = next(&mut events, |event| matches!(event, Event::Request(_))).await else { panic!() };
    bob.accept(first.message.from).await.unwrap();
    // More than fits into the application's queue, before it looks.
    let many = 1_500;
    let mut last = None;
    for n in 1..=many {
        last = Some(alice.send_text("bob@here", n.to_string()).await.unwrap());
    }
    let last = last.unwrap();
    tokio::time::timeout(PATIENCE, last.reached(MessageState::Accepted)).await.expect("in time").unwrap();
    let talking = alice.clone();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let talk = tokio::spawn(async move {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            talking.send_text("bob@here", "talk").await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    for n in 1..=many {
        let is_message = |event: &Event| matches!(event, Event::Message(_));
        let Event::Message(message) = next(&mut events, is_message).await else { panic!() };
        assert_eq!(message.content.part, Part::Text(n.to_string()));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    talk.await.unwrap();
    drain.abort();
}

/// Whoever stops waiting for the next event has not lost the mark of the last one, and gets nothing twice later.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_events_may_be_given_up() {
    for mode in [Mode::Mls, Mode::Direct] {
        let home = tempfile::tempdir().unwrap();
        let relay = relay(home.path()).await;
        let (alice, _alice_events) = join(home.path(), &relay, "alice", mode).await;
        let (bob, mut events) = join(home.path(), &relay, "bob", mode).await;
        alice.send_text("bob@here", "once").await.unwrap();
        next(&mut events, |event| matches!(event, Event::Request(_))).await;
        for _ in 0..3 {
            // Polled once and dropped.
            let _ = tokio::time::timeout(Duration::ZERO, events.next()).await;
        }
        // Whatever else comes is not a message.
        while tokio::time::timeout(Duration::from_millis(100), events.next()).await.is_ok() {}
        bob.close().await;
        let (_bob, mut events) = Client::open(&home.path().join("bob"), key(home.path(), "bob")).await.unwrap();
        let told =
            async { while !matches!(events.next().await, Some(Event::Request(_) | Event::Message(_)) | None) {} };
        assert!(tokio::time::timeout(Duration::from_secs(1), told).await.is_err(), "told again");
    }
}
