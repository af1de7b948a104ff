use crate::world::World;

/// Somebody's group, as data.
fn group(world: &World, who: &str, group: &str) -> serde_json::Value {
    world.run(who, &["group", "show", group, "--json"]).done().objects("group").remove(0)
}

fn role(group: &serde_json::Value, handle: &str) -> Option<String> {
    let members = group["members"].as_array().unwrap();
    let member = members.iter().find(|member| member["handle"] == handle)?;
    Some(member["role"].as_str().unwrap().to_owned())
}

fn three() -> World {
    let world = World::new();
    for name in ["alice", "bob", "carol"] {
        world.person(name);
    }
    world
}

#[test]
fn a_group_is_made_and_talks() {
    let world = three();
    world.run("alice", &["group", "list"]).done().says("no groups");
    let made = world.run("alice", &["group", "create", "Lunch", "bob", "carol@test", "--json"]).done();
    let made = made.objects("group").remove(0);
    assert_eq!((&made["name"], &made["active"], &made["waiting"]), (&"Lunch".into(), &true.into(), &0.into()));
    let id = made["group"].as_str().unwrap().to_owned();
    world.run("alice", &["send", "--group", "Lunch", "At noon?"]).done();
    let heard = world.run("bob", &["listen", "--once", "1", "--json"]).done();
    let joined = heard.objects("notice").into_iter().find(|notice| notice["event"] == "joined").unwrap();
    assert_eq!((&joined["conversation"], joined["text"].as_str().unwrap().contains("“Lunch”")), (&made["group"], true));
    let message = heard.objects("message").remove(0);
    assert_eq!((&message["group"], &message["text"]), (&made["group"], &"At noon?".into()));
    assert_eq!((&message["handle"], &message["request"]), (&"alice@test".into(), &false.into()));
    // By the beginning of its id as well. Bob and Carol have not met before, and know each other's handles.
    world.run("bob", &["send", "-g", &id[..6], "Yes"]).done();
    let heard = world.run("carol", &["listen", "--once", "2"]).done();
    heard.prints("alice@test in “Lunch”: At noon?").prints("bob@test in “Lunch”: Yes");
    let history = world.run("carol", &["history", "--group", "Lunch", "--json"]).done().objects("history");
    assert_eq!(history.iter().map(|item| item["text"].as_str().unwrap()).collect::<Vec<_>>(), ["At noon?", "Yes"]);
    world.run("carol", &["history", "--group", "Lunch"]).done().prints("bob@test: Yes");
    // Whoever is only in a group with somebody does not want anything of them.
    world.run("carol", &["contacts"]).done().prints("bob@test known from a group");
    assert!(!world.run("carol", &["doctor"]).done().out.contains("wants to write"));
    world.run("alice", &["send", "--group", "Lunch", "x", "--wait", "read"]).exits(2).says("no receipts");
    world.run("alice", &["group", "list"]).done().prints("Lunch 3 members, you are owner");
}

#[test]
fn a_group_changes_as_roles_allow() {
    let world = three();
    world.person("dave");
    let made = world.run("alice", &["group", "create", "Lunch", "bob", "carol", "--json"]).done();
    let id = made.objects("group")[0]["group"].as_str().unwrap().to_owned();
    // Bob has not been there since, and is found in it all the same.
    world.run("bob", &["group", "show", "Lunch"]).done().prints("Lunch 3 members, you are member");
    world.run("bob", &["group", "show", "Dinner"]).exits(3).says("you are in no group Dinner");
    world.run("alice", &["send", "-g", "Lunch", "hello"]).done();
    world.run("bob", &["listen", "--once", "1"]).done();
    for refused in [&["remove", "Lunch", "carol"][..], &["add", "Lunch", "dave"], &["rename", "Lunch", "x"]] {
        world.run("bob", &[&["group"], refused].concat()).exits(3).says("you are member in “Lunch”");
    }
    world.run("alice", &["group", "role", "Lunch", "bob", "admin"]).done().prints("bob@test admin");
    // He has not read that yet.
    world.run("bob", &["group", "add", "Lunch", "dave"]).done().prints("dave@test member");
    world.run("bob", &["group", "rename", "Lunch", "Dinner"]).done().prints("Dinner 4 members");
    world.run("bob", &["group", "remove", "Dinner", "carol"]).done();
    world.run("bob", &["group", "remove", "Dinner", "carol"]).exits(3).says("carol is not in “Dinner”");
    world.run("bob", &["group", "remove", "Dinner", "bob"]).exits(2).says("group leave");
    world.run("bob", &["send", "-g", "Dinner", "without carol"]).done();

    // Carol reads what was said while she was in, learns that she is out, and nothing that came then.
    let mut listening = world.start("carol", &["listen"]);
    listening.says("you are not in “Lunch” any more: bob@test took you out");
    listening.stdin = None;
    drop(listening);
    let history = world.run("carol", &["group", "list", "--json"]).done();
    assert_eq!(history.objects("group"), Vec::<serde_json::Value>::new());
    world.run("carol", &["send", "-g", &id, "still here?"]).exits(3).says("you are in no group");

    // As the owner has it, who was away, and whoever came last.
    let heard = world.run("alice", &["listen", "--once", "1", "--json"]).done();
    let events: Vec<_> =
        heard.objects("notice").iter().map(|notice| notice["event"].as_str().unwrap().to_owned()).collect();
    assert!(events.contains(&"members".to_owned()) && events.contains(&"renamed".to_owned()), "{events:?}");
    let (of_alice, of_bob) = (group(&world, "alice", &id[..8]), group(&world, "bob", "Dinner"));
    assert_eq!((role(&of_alice, "dave@test"), role(&of_alice, "carol@test")), (Some("member".into()), None));
    assert_eq!((&of_alice["epoch"], &of_alice["authenticator"]), (&of_bob["epoch"], &of_bob["authenticator"]));

    // Dave leaves; whoever is connected next takes him out.
    world.run("dave", &["listen", "--once", "1"]).done().prints("without carol");
    let out = world.run("dave", &["group", "leave", "Dinner", "--json"]).done().objects("left").remove(0);
    assert_eq!(out["out"], false);
    let taking = world.start("alice", &["listen"]);
    taking.says("you removed dave@test from “Dinner”");
    drop(taking);
    let listening = world.start("dave", &["listen"]);
    listening.says("you are not in");
}

#[test]
fn a_chat_in_a_group_goes_on_after_the_relay_was_away() {
    let mut world = three();
    world.run("alice", &["group", "create", "Lunch", "bob", "carol"]).done();
    let mut alice = world.start("alice", &["chat", "--group", "Lunch"]);
    alice.says("chat in “Lunch” with ");
    alice.says("connected");
    alice.write("hello, all");
    world.run("bob", &["listen", "--once", "1"]).done().prints("hello, all");
    world.run("carol", &["listen", "--once", "1"]).done().prints("hello, all");
    let mut bob = world.start("bob", &["chat", "-g", "Lunch"]);
    bob.prints("alice@test: hello, all");
    bob.write("hello, Alice");
    alice.prints("bob@test: hello, Alice");
    world.stop_relay();
    alice.says("connection lost");
    alice.write("are you there?");
    alice.says("saved");
    world.start_relay("relay");
    bob.prints("alice@test: are you there?");
    // What somebody says to one person alone is not of this chat.
    world.run("carol", &["send", "alice", "psst"]).done();
    alice.prints("(another chat) ");
    alice.ends().done();
    bob.ends().done();
}

/// What was wanted offline is done later, and nothing is called what it is not.
#[test]
fn a_group_that_begins_offline_begins_later() {
    let mut world = three();
    for member in ["bob", "carol"] {
        world.run("alice", &["contacts", "add", member]).done();
    }
    world.stop_relay();
    world
        .run("alice", &["group", "create", "Lunch", "bob", "carol", "--timeout", "1"])
        .exits(4)
        .says("saved; it is done when");
    world.run("alice", &["group", "list"]).done().prints("not there yet");
    world.start_relay("relay");
    let until_it_is = world.start("alice", &["listen"]);
    until_it_is.says("you added ");
    drop(until_it_is);
    world.run("alice", &["group", "list"]).done().prints("Lunch 3 members");
    // A second one of the same name is told apart by its id.
    world.run("alice", &["group", "create", "Lunch", "bob"]).done();
    world.run("alice", &["send", "-g", "Lunch", "x"]).exits(3).says("several groups are called so");
    // No group passes for a person.
    world.run("alice", &["group", "create", "bob", "carol"]).done();
    world.run("alice", &["send", "bob", "for bob only"]).done();
    let history = world.run("alice", &["history", "-g", "bob", "--json"]).done();
    assert_eq!(history.objects("history"), Vec::<serde_json::Value>::new());
    world.run("alice", &["history", "bob"]).done().prints("for bob only");
}
