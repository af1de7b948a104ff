use crate::world::{World, copy_folder};

#[test]
fn numbers_are_compared_and_marked_reversibly() {
    let world = World::new();
    world.person("alice");
    world.person("bob");
    let number = |name: &str, with: &str| {
        let contact = world.run(name, &["verify", with, "--json"]).done().objects("contact").remove(0);
        contact["safety_number"].as_str().unwrap().to_owned()
    };
    let (of_alice, of_bob) = (number("alice", "bob"), number("bob", "alice"));
    assert_eq!(of_alice, of_bob);
    world.run("alice", &["verify", "bob"]).done().prints(&format!("{} {}", &of_bob[..5], &of_bob[5..10]));
    let wrong = format!("{}{}", &of_bob[1..], &of_bob[..1]);
    world.run("alice", &["verify", "bob", "--number", &wrong]).exits(3).says("not the digits");
    world.run("alice", &["contacts"]).done().prints("not verified");
    world.run("alice", &["verify", "bob", "--number", &of_bob]).done().prints("accepted, verified");
    world.run("alice", &["verify", "bob", "--undo"]).done().prints("not verified");
    world.run("alice", &["verify", "bob", "--matches"]).done().prints("accepted, verified");
    world.run("alice", &["verify", "bob", "--keep"]).exits(3).says("nothing to decide");
}

#[test]
fn somebody_who_is_blocked_is_not_heard() {
    let world = World::new();
    for name in ["alice", "bob", "carol"] {
        world.person(name);
    }
    world.run("bob", &["block", "alice"]).done().prints("alice@test blocked");
    // Alice learns nothing of it.
    world.run("alice", &["send", "bob", "can you hear me?"]).done();
    world.run("carol", &["send", "bob", "I can"]).done();
    let heard = world.run("bob", &["listen", "--once", "1"]).done().prints("carol@test (request): I can");
    assert!(!format!("{heard:?}").contains("hear me"));
    world.run("bob", &["send", "alice", "no"]).exits(3).says("blocked");
    world.run("bob", &["doctor"]).done().prints("from somebody who is blocked");
    let why = world.run("bob", &["explain"]).done().prints("from somebody who is blocked").prints("done:  dropped");
    assert!(!format!("{why:?}").contains("hear me"), "redacted");
    let rejected = world.run("bob", &["explain", "--json"]).done().objects("rejected").remove(0);
    let envelope = rejected["envelope"].as_str().unwrap().to_owned();
    assert_eq!(rejected["reason"], "Blocked");
    world.run("bob", &["explain", &envelope[..6]]).done().prints("why:");
    world.run("bob", &["explain", "no-such"]).exits(3).says("nothing was rejected");
    world.run("carol", &["explain"]).done().prints("nothing was rejected, and every conversation can be followed");
    world.run("bob", &["unblock", "alice"]).done().prints("alice@test accepted");
    world.run("alice", &["send", "bob", "and now?"]).done();
    world.run("bob", &["listen", "--once", "1"]).done().prints("and now?");
}

/// A relay that was set up anew has another key, and its handles are free for others.
#[test]
fn another_relay_and_another_person_need_a_decision() {
    let mut world = World::new();
    world.person("alice");
    world.person("bob");
    world.run("bob", &["verify", "alice", "--matches"]).done();
    world.stop_relay();
    world.start_relay("another");
    world.run("mallory", &["init", "alice@test", "--relay", &world.url()]).done();

    world.run("bob", &["send", "alice", "for you only"]).exits(3).says("sealwire trust-relay");
    world.run("bob", &["listen"]).exits(3).says("sealwire trust-relay");
    world.run("bob", &["doctor"]).exits(3).prints("sealwire trust-relay");
    world.run("bob", &["trust-relay"]).done().prints("relay key");

    world.run("bob", &["send", "alice", "for you only"]).exits(3).says("sealwire verify alice@test --adopt");
    world.run("bob", &["verify", "alice"]).exits(3).says("--keep");
    world.run("bob", &["contacts"]).done().prints("HANDLE MOVED");
    world.run("bob", &["verify", "alice", "--adopt"]).done().says("not verified");
    world.run("bob", &["send", "alice", "who are you?"]).done();
    world.run("mallory", &["listen", "--once", "1"]).done();
}

/// N3: of two copies of one account, a person chooses.
#[test]
fn two_copies_need_a_decision() {
    let world = World::new();
    world.direct("alice");
    world.direct("bob");
    world.run("alice", &["send", "bob", "one"]).done();
    copy_folder(&world.home("alice"), &world.home("copy"));
    world.run("alice", &["send", "bob", "two"]).done();
    world.run("copy", &["send", "bob", "three", "--timeout", "50"]).done();
    world.run("alice", &["send", "bob", "four"]).exits(3).says("sealwire reclaim");
    world.run("alice", &["reclaim"]).done().prints("new keys");
    world.run("alice", &["send", "bob", "five"]).done();
    world.run("alice", &["reclaim"]).exits(3).says("nothing to decide");
    let heard = world.run("bob", &["listen", "--once", "5", "--json"]).done();
    let texts: Vec<_> = heard.objects("message").into_iter().map(|message| message["text"].clone()).collect();
    assert_eq!(texts, ["one", "two", "three", "four", "five"]);
}

/// The same in a conversation, which each copy in turn has lost, and is added to again by whoever else is in it (C10).
#[test]
fn two_copies_of_a_conversation_need_a_decision() {
    let world = World::new();
    world.person("alice");
    world.person("bob");
    let bob = world.start("bob", &["listen", "--accept"]);
    let hears = |text: &str| drop(bob.prints(text));
    world.run("alice", &["send", "bob", "one", "--timeout", "50"]).done();
    hears("one");
    copy_folder(&world.home("alice"), &world.home("copy"));
    world.run("alice", &["send", "bob", "two", "--timeout", "50"]).done();
    hears("two");
    world.run("copy", &["send", "bob", "three", "--timeout", "50"]).done();
    hears("three");
    world.run("alice", &["send", "bob", "four"]).exits(3).says("sealwire reclaim");
    world.run("alice", &["reclaim"]).done().prints("new keys");
    world.run("alice", &["send", "bob", "five", "--timeout", "50"]).done();
    hears("four");
    hears("five");
}
