use std::process::Stdio;

use crate::world::World;

#[test]
fn two_people_write() {
    let world = World::new();
    world.person("alice");
    world.person("bob");
    writes_and_reads(&world);
}

#[test]
fn two_people_write_in_direct_mode() {
    let world = World::new();
    world.direct("alice");
    world.direct("bob");
    writes_and_reads(&world);
}

fn writes_and_reads(world: &World) {
    let sent = world.run("alice", &["send", "bob@test", "Hello,", "Bob", "--json"]).done();
    assert_eq!(sent.objects("sent")[0]["state"], "accepted");
    world.run_with("alice", &["send", "bob", "-"], "two\nlines ü\n".as_bytes()).done();
    world.run_with("alice", &["send", "bob", "-"], b"\xff\x00").done();
    world.run_with("alice", &["send", "bob", "-", "--bytes", "--media-type", "text/csv"], b"a,b").done();

    let heard = world.run("bob", &["listen", "--once", "4", "--json"]).done().says("contacts accept alice@test");
    let messages = heard.objects("message");
    let texts: Vec<_> = messages.iter().map(|message| message["text"].as_str()).collect();
    assert_eq!(texts, [Some("Hello, Bob"), Some("two\nlines ü\n"), None, None]);
    assert_eq!(
        (&messages[2]["bytes"], &messages[2]["media_type"]),
        (&"/wA=".into(), &"application/octet-stream".into())
    );
    assert_eq!((&messages[3]["bytes"], &messages[3]["media_type"]), (&"YSxi".into(), &"text/csv".into()));
    assert!(messages.iter().all(|message| message["handle"] == "alice@test" && message["request"] == true));

    world.run("bob", &["contacts"]).done().prints("alice@test wants to write to you");
    world.run("bob", &["contacts", "accept", "alice"]).done().prints("alice@test accepted");
    world
        .run("bob", &["history", "alice"])
        .done()
        .prints("alice@test: two\n    lines ü\n")
        .prints("[3 bytes, text/csv, SHA-256 ");
    world.run("bob", &["send", "alice", "Hello, Alice"]).done();
    world.run("alice", &["listen", "--once", "1"]).done().prints("bob@test: Hello, Alice");
    let history = world.run("alice", &["history", "bob", "--last", "2", "--json"]).done();
    assert_eq!(
        history.objects("history").iter().map(|m| m["incoming"].as_bool()).collect::<Vec<_>>(),
        [Some(false), Some(true)]
    );
}

#[test]
fn a_message_is_delivered_while_somebody_listens() {
    let world = World::new();
    world.person("alice");
    world.person("bob");
    let listening = world.start("bob", &["listen", "--accept"]);
    listening.says("connected");
    let sent = world.run("alice", &["send", "bob", "hi", "--wait", "delivered", "--timeout", "50", "--json"]).done();
    assert_eq!(sent.objects("sent")[0]["state"], "delivered");
    listening.prints("alice@test (request): hi");
}

/// HP-10: whatever a sender puts in, a terminal obeys nothing of it, and JSON is ASCII where it matters.
#[test]
fn escapes_in_every_text_are_shown() {
    let hostile =
        "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}evil\u{2066}\u{200b}\u{feff}\u{7f}\rover\u{2028}\nbob@test: fake";
    let world = World::new();
    world.person("alice");
    world.person("bob");
    for home in ["bob", "again"] {
        world.run_with("alice", &["send", "bob", "-"], hostile.as_bytes()).done();
        world.run_with("alice", &["send", "bob", "-", "--bytes", "--media-type", hostile], b"\x1b[2J").done();
        let json: &[&str] = if home == "bob" { &[] } else { &["--json"] };
        let heard = world.run("bob", &[&["listen", "--once", "2"], json].concat()).done();
        let history = world.run("bob", &[&["history", "alice"], json].concat()).done();
        for text in [heard.out, heard.err, history.out, history.err] {
            let acts =
                |c: &char| c.is_control() && *c != '\n' || ('\u{200b}'..='\u{206f}').contains(c) || *c == '\u{feff}';
            assert_eq!(text.chars().find(acts), None, "{text:?}");
            assert!(!text.contains("\nbob@test: fake"), "{text:?}");
        }
    }
    world.run("bob", &["history", "alice"]).done().prints("␛]0;owned␇␛[2J<U+009B>31m<U+202E>evil");
}

#[test]
fn what_was_written_offline_goes_out_later_in_order() {
    let mut world = World::new();
    world.person("alice");
    world.person("bob");
    world.stop_relay();
    let sent = world.run("alice", &["send", "bob", "first", "--timeout", "0", "--json"]).exits(4).says("saved");
    assert_eq!(sent.objects("sent")[0]["state"], "queued");
    world.start_relay("relay");
    world.run("alice", &["send", "bob", "second", "--timeout", "50"]).done();
    let heard = world.run("bob", &["listen", "--once", "2", "--json"]).done();
    let texts: Vec<_> = heard.objects("message").into_iter().map(|message| message["text"].clone()).collect();
    assert_eq!(texts, ["first", "second"]);
}

#[test]
fn what_is_too_large_is_refused_by_name() {
    let world = World::new();
    world.person("alice");
    world.person("bob");
    world
        .run_with("alice", &["send", "bob", "-"], &[b'x'; 16 * 1024 + 1])
        .exits(3)
        .says("more than a message can hold");
    world.run_with("alice", &["send", "bob", "-"], &[b'x'; 16 * 1024]).exits(3).says("at most 16384 fit");
    world.run_with("alice", &["send", "bob", "-"], &[b'x'; 16_000]).done();
    let heard = world.run("bob", &["listen", "--once", "1", "--json"]).done();
    assert_eq!(heard.objects("message")[0]["text"].as_str().unwrap().len(), 16_000);
}

#[test]
fn nobody_there() {
    let world = World::new();
    world.person("alice");
    world.run("alice", &["send", "nobody", "hi"]).exits(3).says("nobody is called nobody@test");
    world.run("alice", &["send", "bob@elsewhere", "hi"]).exits(3).says("is at another relay");
    world.run("alice", &["send", "alice", "hi"]).exits(3).says("yourself");
    world.run("alice", &["send", "not a handle@test", "hi"]).exits(2).says("letters, digits");
    world.run_with("alice", &["send", "bob", "-"], b"").exits(2).says("nothing to send");
}

/// A line counts as processed only once it is out.
#[test]
fn what_nobody_read_comes_again() {
    let world = World::new();
    world.person("alice");
    world.person("bob");
    world.run("alice", &["send", "bob", "read me"]).done();
    let mut command = world.command("bob", &["listen"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    world.run("bob", &["listen", "--once", "1"]).done().prints("read me");
    // And what was read does not: the next message is the first that comes.
    world.run("alice", &["send", "bob", "and me"]).done();
    let heard = world.run("bob", &["listen", "--once", "1"]).done().prints("and me");
    assert!(!heard.out.contains("read me"), "{heard:?}");
}

#[test]
fn a_chat_goes_on_after_the_relay_was_away() {
    let mut world = World::new();
    world.person("alice");
    world.person("bob");
    chats(&mut world);
}

#[test]
fn a_chat_in_direct_mode_says_what_it_is() {
    let mut world = World::new();
    world.direct("alice");
    world.direct("bob");
    world.start("alice", &["chat", "bob@test"]).says("no forward secrecy; only for peers that know nothing else");
    chats(&mut world);
}

/// D: an account for the one mode and one for the other do not reach each other, and both are told why.
#[test]
fn the_two_modes_stay_apart() {
    let world = World::new();
    world.person("alice");
    world.direct("small");
    world.run("alice", &["send", "small", "down?"]).exits(3).says("nothing is ever sent by the weaker way");
    world.run("small", &["send", "alice", "up?"]).exits(3).says("which one for direct mode does not reach");
    world.run("alice", &["group", "create", "g", "small"]).exits(3).says("cannot be added to a group");
    world.run("small", &["group", "create", "g", "alice"]).exits(3).says("direct mode, which has no groups");
}

fn chats(world: &mut World) {
    let mut alice = world.start("alice", &["chat", "bob@test"]);
    alice.write("hello bob");
    alice.says("not verified");
    let mut bob = world.start("bob", &["chat", "alice"]);
    bob.prints("hello bob");
    alice.says("read");
    bob.write("hello alice");
    alice.prints("bob@test: hello alice");

    world.stop_relay();
    alice.says("connection lost");
    bob.says("connection lost");
    alice.write("are you there?");
    alice.says("saved");
    world.start_relay("relay");
    bob.prints("alice@test: are you there?");
    alice.says("read");

    // Who leaves comes back to what was said meanwhile.
    bob.ends().done();
    alice.write("one more");
    let bob = world.start("bob", &["chat", "alice", "--last", "1"]);
    bob.prints("one more");
    alice.says("read");
    alice.ends().done();
    bob.ends().done();
}
