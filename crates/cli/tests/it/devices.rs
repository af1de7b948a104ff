use crate::world::{Running, World};

/// The code that a device shows, and the device, which waits.
fn shows_code(world: &World, who: &str) -> (Running, String) {
    let sponsor = world.start(who, &["link", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&sponsor.prints("\"code\"")).unwrap();
    let code = shown["code"].as_str().unwrap().to_owned();
    (sponsor, code)
}

fn reads_code(world: &World, name: &str, code: &str) -> Running {
    let mut new = world.start(name, &["link", "--relay", &world.url()]);
    new.write(code);
    new
}

/// Links a device to somebody's account, as a person would.
fn link(world: &World, who: &str, name: &str) {
    let (mut sponsor, code) = shows_code(world, who);
    let new = reads_code(world, name, &code);
    let digits = new.prints("digits").trim_start_matches("digits").trim().to_owned();
    assert!(sponsor.prints("\"digits\"").contains(&digits), "the same on both");
    sponsor.write("y");
    sponsor.prints("\"linked\"");
    assert_eq!((sponsor.ends().code, new.ends().code), (Some(0), Some(0)));
}

/// I5, C7: two terminals, a third one that is linked, hears and speaks, and is revoked.
#[test]
fn a_device_is_linked_used_and_revoked() {
    let world = World::new();
    world.person("alice");
    world.person("bob");
    world.run("alice", &["send", "bob", "hello"]).done();
    world.run("bob", &["listen", "--accept", "--once", "1"]).done();
    world.run("bob", &["send", "alice", "hello to you"]).done();
    world.run("alice", &["listen", "--once", "1"]).done();
    world.run("alice", &["group", "create", "Lunch", "bob"]).done();

    link(&world, "alice", "laptop");
    let account = |who| world.run(who, &["whoami", "--json"]).done().objects("profile").remove(0);
    let (phone, laptop) = (account("alice"), account("laptop"));
    assert_eq!((&phone["account"], &phone["handle"]), (&laptop["account"], &laptop["handle"]));
    assert_ne!(phone["device"], laptop["device"]);
    let devices = world.run("laptop", &["devices", "--json"]).done().objects("device");
    let listed: Vec<_> = devices.iter().map(|device| (&device["device"], device["this"] == true)).collect();
    assert_eq!(listed, [(&phone["device"], false), (&laptop["device"], true)]);
    world.run("laptop", &["contacts"]).done().prints("bob@test");

    // Whichever own device is connected next has added it to both conversations.
    let heard = world.start("laptop", &["listen"]);
    heard.says_all(&["you are in a conversation with bob@test", "“Lunch”"]);
    world.run("bob", &["send", "alice", "to all of alice"]).done();
    heard.prints("bob@test: to all of alice");
    world.run("alice", &["send", "bob", "from the phone"]).done();
    heard.says("you, from another device, to bob@test: from the phone");
    drop(heard);
    world.run("laptop", &["send", "-g", "Lunch", "from the laptop"]).done();
    world.run("bob", &["listen", "--once", "2"]).done().prints("alice@test in “Lunch”: from the laptop");
    world.run("laptop", &["history", "bob"]).done().prints("to all of alice").prints("from the phone");

    let id = laptop["device"].as_str().unwrap();
    world.run("alice", &["revoke", "zz"]).exits(3).says("no device");
    world.run("laptop", &["revoke", id]).exits(3).says("that is this device");
    world.run("alice", &["revoke", &id[..8]]).done().prints("out of this account");
    world.run("laptop", &["send", "bob", "am I in?"]).exits(3).says("taken from its account");
    assert_eq!(world.run("alice", &["devices", "--json"]).done().objects("device").len(), 1);
    let only = phone["device"].as_str().unwrap();
    world.run("alice", &["revoke", only, "--yes"]).exits(3).says("only device");
}

/// I5: digits that differ, and codes that are none, link nothing and leave nothing behind.
#[test]
fn what_is_not_confirmed_is_not_linked() {
    let world = World::new();
    world.person("alice");
    let (mut sponsor, code) = shows_code(&world, "alice");
    let new = reads_code(&world, "laptop", &code);
    new.prints("digits");
    sponsor.prints("\"digits\"");
    sponsor.write("n");
    sponsor.says("the digits differ");
    assert_eq!((sponsor.ends().code, new.ends().code), (Some(3), Some(3)));
    assert!(!world.home("laptop").join("client.db").exists());
    let used = reads_code(&world, "laptop", &code);
    used.says("nobody waits for that code");
    assert_eq!(used.ends().code, Some(3));
    let none = reads_code(&world, "laptop", "not a code");
    none.says("that is not a code");
    assert_eq!(none.ends().code, Some(2));
    assert_eq!(world.run("alice", &["devices", "--json"]).done().objects("device").len(), 1);
    world.direct("dora");
    world.run("dora", &["link"]).exits(3).says("direct mode");
}
