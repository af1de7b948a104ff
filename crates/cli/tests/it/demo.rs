use crate::world::World;

#[test]
fn the_demo_holds() {
    let world = World::new();
    let output = world.run("nobody", &["demo", "--json"]).done();
    assert!(output.out.replace(' ', "").contains("\"holds\":true"), "{output:?}");
    assert!(!world.home("nobody").exists());
}

#[test]
fn one_message_is_explained() {
    World::new().run("nobody", &["demo", "--explain"]).done().prints("Meet me at the old lighthouse");
}

#[test]
fn completions_know_the_commands() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        world.run("nobody", &["completions", shell]).done().prints("trust-relay");
    }
}
