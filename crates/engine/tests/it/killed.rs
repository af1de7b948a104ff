//! The client's process ends at every point at which it can: before each commit, behind it, and between any two outputs
//! (persist before send, L4, L7, L8). One conversation, once for each point of each of the two.

use std::io::Write;

use sealwire_engine::*;
use sealwire_wire::content::Part;

use crate::world::World;

/// What the two are to say, whatever happens: an acceptance, messages both ways, one to somebody who is away, receipts.
fn converse(world: &mut World) -> Vec<(usize, String)> {
    let mut saved = Vec::new();
    let mut say = |world: &mut World, from: usize, text: &str| {
        let to = To::Handle(world.people[1 - from].handle.clone());
        let send = Command::Send { to, part: Part::Text(text.into()), in_reply_to: None };
        // No reply: the process ended on the way, and it is open whether the message was saved.
        if let Some(reply) = world.try_command(from, send) {
            assert!(matches!(reply, Ok(Reply::Queued(_))), "{reply:?}");
            saved.push((from, text.to_owned()));
        }
    };
    say(world, 0, "a1");
    say(world, 0, "a2");
    world.pass(2_000);
    // A person whose decision got lost decides again.
    let alice = world.account(0);
    while !matches!(world.try_command(1, Command::Accept(alice)), Some(Ok(_) | Err(Refusal::UnknownContact))) {}
    world.pass(6_000);
    say(world, 1, "b1");
    world.pass(6_000);
    world.cut(1);
    say(world, 0, "a3");
    say(world, 1, "b2");
    world.pass(10_000);
    saved
}

#[test]
fn a_client_may_be_killed_at_every_point() {
    let mut calm = World::of(&["alice", "bob"]);
    let begin = calm.points.clone();
    converse(&mut calm);
    let (end, mut kills) = (calm.points.clone(), 0);
    for person in 0..2 {
        assert!(end[&person] > begin[&person] + 30, "{end:?}");
        for point in begin[&person] + 1..=end[&person] {
            let mut world = World::of(&["alice", "bob"]);
            world.kill = Some((person, point));
            let saved = converse(&mut world);
            assert_eq!(world.kill, None, "the process ended");
            // Requests that were not accepted for want of a contact are accepted now; then everything comes to rest.
            let alice = world.account(0);
            world.try_command(1, Command::Accept(alice));
            world.pass(400_000);
            for reader in 0..2 {
                let shown = world.shown(reader);
                let mut once = shown.clone();
                once.sort();
                once.dedup();
                assert_eq!(once.len(), shown.len(), "{person} at {point}: shown twice: {shown:?}");
                for (_, text) in saved.iter().filter(|(from, _)| *from != reader) {
                    assert!(shown.contains(text), "{person} at {point}: {text} was saved, and not shown: {shown:?}");
                }
            }
            for (whose, events) in world.people.iter().enumerate() {
                let bad = |event: &Event| matches!(event, Event::Quarantined { .. } | Event::StoreRestored);
                assert!(!events.saw(bad), "{person} at {point}, seen by {whose}: {:?}", events.events);
            }
            kills += 1;
        }
    }
    writeln!(std::io::stderr(), "killed: a client at each of {kills} points, nothing lost and nothing twice").unwrap();
}
