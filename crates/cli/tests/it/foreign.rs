//! The peers in `interop/`, which share no code with ours and were written from `spec/` alone (D4): they are found, they
//! exchange text and bytes with ours both ways, they were away, they reject what was altered. `cargo xtask test` installs
//! what they need and says where it is; where nobody did, these tests say that they left it out.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

use crate::world::{Output, World, run};

/// The language of a peer, and how it is started.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Language {
    Python,
    Node,
}

impl Language {
    /// `None` where it is not installed.
    fn command(self, script: &str) -> Option<Command> {
        let variable = if self == Language::Python { "SEALWIRE_PYTHON" } else { "SEALWIRE_NODE" };
        let folder = if self == Language::Python { "python" } else { "node" };
        let Some(program) = std::env::var_os(variable) else {
            assert!(std::env::var_os("SEALWIRE_LEAVE_NOTHING_OUT").is_none(), "{variable} is not set");
            // Past the test runner, which would keep it.
            let sentence = format!("the peer in {folder} is left out: {variable} is not set, see `cargo xtask test`\n");
            std::io::stderr().write_all(sentence.as_bytes()).unwrap();
            return None;
        };
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../interop").join(folder);
        let mut command = Command::new(program);
        command.arg(folder.join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
        Some(command)
    }

    fn peer(self) -> &'static str {
        if self == Language::Python { "peer.py" } else { "cli.mjs" }
    }

    fn checker(self) -> &'static str {
        if self == Language::Python { "check_vectors.py" } else { "vectors.mjs" }
    }
}

/// A peer with an account.
struct Peer {
    language: Language,
    state: PathBuf,
    account: String,
}

impl Peer {
    /// Registers. `suites` are those of its keys, the preferred one first.
    fn new(world: &World, language: Language, name: &str, suites: &str) -> Option<Peer> {
        let mut peer = Peer { language, state: world.home(&format!("{name}.json")), account: String::new() };
        let mut command = peer.command(&["init", &format!("{}/v1", world.url()), name])?;
        command.env("SEALWIRE_SUITES", suites);
        let made = lines(run(command, b"").done());
        assert_eq!(made[0]["handle"], format!("{name}@test"), "{made:?}");
        peer.account = made[0]["account"].as_str().unwrap().to_owned();
        Some(peer)
    }

    fn command(&self, arguments: &[&str]) -> Option<Command> {
        let mut command = self.language.command(self.language.peer())?;
        command.arg(&self.state).args(arguments);
        Some(command)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(self.command(arguments).unwrap(), b"")
    }

    /// Everything that it was told: so many messages and rejections, and receipts.
    fn hears(&self, count: usize) -> Vec<Value> {
        lines(self.run(&["listen", "--count", &count.to_string(), "--seconds", "30"]).done())
    }
}

fn lines(output: Output) -> Vec<Value> {
    output.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn account_of(world: &World, name: &str) -> String {
    let whoami = world.run(name, &["whoami", "--json"]).done();
    whoami.objects("profile")[0]["account"].as_str().unwrap().to_owned()
}

#[test]
fn a_peer_in_python_writes_and_reads() {
    writes_and_reads(Language::Python, "2,1");
    writes_and_reads(Language::Python, "1,2");
}

#[test]
fn a_peer_in_node_writes_and_reads() {
    writes_and_reads(Language::Node, "2,1");
    writes_and_reads(Language::Node, "1,2");
}

/// M2, M3, M5: text and bytes both ways, with what was sent while one of them was away, in either suite.
fn writes_and_reads(language: Language, suites: &str) {
    let world = World::new();
    world.direct("alice");
    let Some(pat) = Peer::new(&world, language, "pat", suites) else { return };
    let alice = account_of(&world, "alice");
    let long = "long ü ".repeat(2_000);
    world.run("alice", &["contacts", "add", "pat"]).done();
    world.run("alice", &["send", "pat", "Hello, Pat"]).done();
    world.run_with("alice", &["send", "pat", "-"], b"\xff\x00\x01").done();
    world.run_with("alice", &["send", "pat", "-"], long.as_bytes()).done();
    let heard = pat.hears(3);
    assert!(heard.iter().all(|line| line["from"] == alice && line["handle"] == "alice@test"), "{heard:?}");
    assert_eq!((&heard[0]["text"], &heard[1]["bytes"]), (&"Hello, Pat".into(), &"ff0001".into()));
    assert_eq!(heard[2]["text"], long.as_str());

    let file = world.file("bytes", "a,b\u{0}");
    let file = file.to_str().unwrap();
    assert!(lines(pat.run(&["send", &alice, "Hello, Alice"]).done())[0]["accepted"].is_string());
    pat.run(&["send-bytes", &alice, file]).done();
    let heard = world.run("alice", &["listen", "--once", "2", "--json"]).done().objects("message");
    assert!(heard.iter().all(|message| message["from"] == pat.account.as_str()), "{heard:?}");
    assert_eq!((&heard[0]["text"], &heard[0]["handle"]), (&"Hello, Alice".into(), &"pat@test".into()));
    assert_eq!(BASE64_STANDARD.decode(heard[1]["bytes"].as_str().unwrap()).unwrap(), b"a,b\x00");

    world.run("alice", &["send", "pat", "one more"]).done();
    let mut heard = pat.hears(1);

    // The limit is the same on both sides.
    let large = world.file("large", &"x".repeat(16_384));
    pat.run(&["send-bytes", &alice, large.to_str().unwrap()]).exits(1);
    pat.run(&["send", &alice, "still here"]).done();
    world.run("alice", &["listen", "--once", "1"]).done().prints("still here");

    // L8: what each has shown is confirmed to the other. The peer's receipts go to whom it has written to, when it has
    // listened; Alice's are due at once in these tests, and may need another connection.
    world.run("alice", &["send", "pat", "the last one"]).done();
    heard.extend(pat.hears(1));
    heard.extend(lines(pat.run(&["listen", "--count", "1", "--seconds", "1"]).done()));
    let texts: Vec<_> = heard.iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(texts, ["one more", "the last one"]);
    assert!(heard.iter().any(|line| line["status"] == "delivered"), "{heard:?}");
    let history = world.run("alice", &["history", "pat", "--json"]).done().objects("history");
    let states: Vec<_> = history.iter().filter(|item| item["incoming"] == false).map(|item| &item["state"]).collect();
    assert_eq!(states[..4], ["delivered"; 4]);
}

#[test]
fn a_peer_in_python_rejects_what_was_altered() {
    rejects_what_was_altered(Language::Python);
}

#[test]
fn a_peer_in_node_rejects_what_was_altered() {
    rejects_what_was_altered(Language::Node);
}

/// M6: a byte of the stored message is flipped at the relay. Nothing of it is shown, and what comes behind it is.
fn rejects_what_was_altered(language: Language) {
    let mut world = World::new();
    world.direct("alice");
    let Some(pat) = Peer::new(&world, language, "pat", "2,1") else { return };
    world.run("alice", &["send", "pat", "never to be seen"]).done();
    world.stop_relay();
    let mail = rusqlite::Connection::open(world.home("relay").join("mail.db")).unwrap();
    // The first; behind it lies her presence token.
    let stored = "SELECT row, bytes FROM entries ORDER BY row LIMIT 1";
    let (row, mut bytes): (i64, Vec<u8>) = mail.query_row(stored, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    mail.execute("UPDATE entries SET bytes = ?1 WHERE row = ?2", (&bytes, row)).unwrap();
    drop(mail);
    world.start_relay("relay");
    world.run("alice", &["send", "pat", "this one as it is", "--timeout", "50"]).done();
    let heard = pat.hears(2);
    assert!(heard[0]["rejected"].is_string() && heard[0].get("text").is_none(), "{heard:?}");
    assert_eq!(heard[1]["text"], "this one as it is");
    assert_eq!(lines(pat.run(&["listen", "--count", "1", "--seconds", "1"]).done()), Vec::<Value>::new());
}

/// Neither of them has seen the other's code, or ours.
#[test]
fn peers_of_two_languages_write_to_each_other() {
    let world = World::new();
    let Some(pat) = Peer::new(&world, Language::Python, "pat", "1,2") else { return };
    let Some(noor) = Peer::new(&world, Language::Node, "noor", "2,1") else { return };
    pat.run(&["send", &noor.account, "from Python"]).done();
    assert_eq!(noor.hears(1)[0]["text"], "from Python");
    noor.run(&["send", &pat.account, "from JavaScript"]).done();
    noor.hears(0);
    let mut heard = pat.hears(1);
    heard.extend(lines(pat.run(&["listen", "--count", "1", "--seconds", "1"]).done()));
    assert!(heard.iter().any(|line| line["text"] == "from JavaScript"), "{heard:?}");
    assert!(heard.iter().any(|line| line["status"] == "delivered"), "{heard:?}");
}

/// D4: a first contact by bare handle is as good as the relay's word; a small peer refuses it.
#[test]
fn a_peer_wants_an_account_id_first() {
    let world = World::new();
    world.direct("alice");
    for language in [Language::Python, Language::Node] {
        let Some(peer) = Peer::new(&world, language, &format!("{language:?}").to_lowercase(), "2,1") else { return };
        peer.run(&["send", "alice", "hi"]).exits(1);
        peer.run(&["send", &account_of(&world, "alice"), "hi"]).done();
    }
}

#[test]
fn peers_pass_the_vectors() {
    let vectors = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors");
    for language in [Language::Python, Language::Node] {
        let Some(mut command) = language.command(language.checker()) else { return };
        command.arg(&vectors);
        let checked = lines(run(command, b"").done());
        assert!(checked[0]["vectors"].as_u64().unwrap() > 100, "{language:?} {checked:?}");
    }
}

/// The Node peer, unchanged, in a page: registers, writes, reads, and is as it was after the page was loaded again.
#[test]
fn the_same_peer_runs_in_a_browser() {
    let world = World::new();
    let Some(mut command) = Language::Node.command("page.test.mjs") else { return };
    let picture = world.home("page.png");
    command.arg(format!("{}/v1", world.url())).arg(&picture);
    run(command, b"").done();
    assert!(std::fs::metadata(&picture).unwrap().len() > 1_000);
}
