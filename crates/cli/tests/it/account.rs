use crate::world::World;

#[test]
fn an_account_says_who_it_is() {
    let world = World::new();
    let made = world.run("alice", &["init", "alice@test", "--relay", &world.url(), "--direct", "--json"]).done();
    let made = made.objects("profile").remove(0);
    let shown = world.run("alice", &["whoami", "--json"]).done().objects("profile").remove(0);
    assert_eq!(made, shown);
    assert_eq!(
        (&made["handle"], &made["registered"], &made["mode"]),
        (&"alice@test".into(), &true.into(), &"direct".into())
    );
    assert_eq!(made["account"].as_str().unwrap().len(), 64);
    world.person("carol");
    world.run("carol", &["whoami"]).done().prints("conversations (MLS");
    let carol = world.run("carol", &["whoami", "--json"]).done().objects("profile").remove(0);
    assert_eq!(carol["mode"], "conversations");
    world.run("carol", &["doctor"]).done().prints("ok   mode          conversations");
    world.run("alice", &["doctor"]).done().prints("ok   mode          direct (no forward secrecy");
    world.run("alice", &["init", "alice@test"]).exits(1).says("left as it is");
    // Reached at another address: the same account.
    let moved = world.run("alice", &["init", "alice@test", "--relay", &world.url(), "--json"]).done();
    assert_eq!(made, moved.objects("profile").remove(0));
    world.run("alice", &["init", "other@test", "--relay", &world.url()]).exits(1).says("left as it is");
    world.run("nobody", &["whoami"]).exits(1).says("make one with `sealwire init`");
}

#[test]
fn a_handle_that_is_taken_can_be_replaced() {
    let world = World::new();
    world.person("alice");
    world
        .run("other", &["init", "alice@test", "--relay", &world.url()])
        .exits(3)
        .says("repeat `sealwire init` with another handle");
    world.run("other", &["whoami"]).done().prints("not registered yet");
    world.run("other", &["init", "other@test", "--relay", &world.url()]).done().prints("other@test");
    let direct = ["init", "direct@test", "--relay", &world.url(), "--direct"];
    world.run("direct", &direct).done().says("no forward secrecy; only for peers that know nothing else");
}

#[test]
fn init_while_the_relay_is_away_can_be_repeated() {
    let mut world = World::new();
    let url = world.url();
    world.stop_relay();
    let init = ["init", "alice@test", "--relay", &url, "--timeout", "0"];
    world.run("alice", &init).exits(4).says("repeat this command");
    let before = world.run("alice", &["whoami", "--json"]).done().objects("profile").remove(0);
    world.start_relay("relay");
    let direct = [&init[..], &["--direct"]].concat();
    world.run("alice", &direct).exits(1).says("made for conversations, which is for good");
    let after =
        world.run("alice", &["init", "alice@test", "--relay", &url, "--json"]).done().objects("profile").remove(0);
    assert_eq!(before["account"], after["account"]);
}

#[test]
fn wrong_arguments_make_nothing() {
    let world = World::new();
    world.run("alice", &["init", "alice", "--relay", &world.url()]).exits(2).says("name@host");
    world.run("alice", &["init", "alice@test", "--relay", "ws://relay.example"]).exits(2).says("use wss://");
    world.run("alice", &["init", "alice@test", "--relay-cert", "/nonexistent"]).exits(1).says("/nonexistent");
    let pem = world.file("not.pem", "nothing");
    world
        .run("alice", &["init", "alice@test", "--relay-cert", pem.to_str().unwrap()])
        .exits(1)
        .says("no certificate in it");
    world.run("alice", &["send"]).exits(2);
    assert!(!world.home("alice").exists());
}

#[test]
fn a_wrong_passphrase_says_so() {
    let world = World::new();
    let (right, wrong) = (world.file("right", "correct horse\n"), world.file("wrong", "battery staple\n"));
    let with = |file: &std::path::Path, arguments: &[&str]| {
        let mut command = world.command("alice", arguments);
        let output = command.env("SEALWIRE_PASSPHRASE_FILE", file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, ..) = with(&right, &["init", "alice@test", "--relay", &world.url(), "--passphrase"]);
    assert_eq!(code, Some(0));
    assert!(!world.home("alice").join("key").exists());
    let (code, out, err) = with(&wrong, &["whoami"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("this is not the passphrase of this account"), "{err}");
    let (code, out, _) = with(&right, &["whoami"]);
    assert!(code == Some(0) && out.contains("alice@test"));
    let (_, _, err) = with(&world.file("empty", ""), &["whoami"]);
    assert!(err.contains("is empty"), "{err}");
}

#[test]
fn a_second_process_is_refused() {
    let world = World::new();
    world.person("alice");
    let listening = world.start("alice", &["listen"]);
    listening.says("connected");
    world.run("alice", &["whoami"]).exits(1).says("another program uses the account");
    drop(listening);
    world.run("alice", &["whoami"]).done();
}

#[test]
fn the_doctor_names_what_is_wrong() {
    let mut world = World::new();
    world.run("alice", &["doctor"]).exits(1).prints("sealwire init");
    world.person("alice");
    let checks = world.run("alice", &["doctor", "--json"]).done().objects("check");
    assert!(checks.iter().all(|check| check["found"] == "ok"), "{checks:#?}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let key = world.home("alice").join("key");
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        world
            .run("alice", &["doctor"])
            .exits(1)
            .prints("warn permissions")
            .prints("chmod go=")
            .prints("others can read");
        world.run("alice", &["whoami"]).exits(1).says("others can read the key file");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    world.stop_relay();
    world.run("alice", &["doctor", "--timeout", "1"]).exits(4).prints("out of reach").prints("Connection refused");
    std::fs::remove_file(world.home("alice").join("key")).unwrap();
    world.run("alice", &["doctor"]).exits(1).prints("does not open this account");
}

#[test]
fn an_account_that_was_ended_stays_so() {
    let world = World::new();
    world.person("alice");
    world.person("bob");
    world.run("alice", &["contacts", "add", "bob"]).done();
    world.run("bob", &["retire"]).exits(2);
    world.run("bob", &["retire", "--yes"]).done().prints("bob@test is ended");
    world.run("bob", &["send", "alice", "hi"]).exits(3).says("your account was ended");
    world.run("alice", &["send", "bob", "hi"]).exits(3).says("ended");
}

#[test]
fn presence_can_be_turned_off() {
    let world = World::new();
    world.person("alice");
    world.run("alice", &["presence", "off"]).done();
    let profile = world.run("alice", &["whoami", "--json"]).done().objects("profile").remove(0);
    assert_eq!(profile["presence"], false);
}
