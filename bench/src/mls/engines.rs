//! Whole engines: two with their stores, in a conversation of two or among others who are away.

use std::path::Path;
use std::time::Instant;

use anyhow::{bail, ensure};
use sealwire_engine::{Command, ConversationView, Mode, Reply, To};

use crate::report::median;
use crate::world::{World, written};

/// Of a text that makes content of 256 B with its padding.
const TEXT: usize = 100;
/// What a relay lets a device look up in a minute, with room.
const LOOKUPS: usize = 100;
const MINUTE_MS: u64 = 60_000;

/// A world in which the first person writes and the second one reads.
pub(super) struct Engines {
    world: World,
    to: To,
    /// Seconds of CPU, of both, from the first message between strangers until it was shown as a request.
    pub(super) set_up: f64,
}

/// What a message took from the command until it was shown, both sides together: seconds of CPU of the engines and of
/// their stores, seconds by the clock, and bytes of records and of write calls.
pub(super) struct Message {
    pub(super) thinking: f64,
    pub(super) saving: f64,
    pub(super) wall: f64,
    pub(super) changed: f64,
    pub(super) written: f64,
}

impl Engines {
    pub(super) fn of_two(folder: &Path, quick: bool) -> anyhow::Result<Engines> {
        let strangers = if quick { 3 } else { 11 };
        let mut world = World::new(Mode::Mls);
        for _ in 0..=strangers {
            world.come(Some(folder))?;
        }
        let mut set_up = Vec::new();
        for stranger in 1..=strangers {
            let before = world.spent;
            world.write(0, stranger, TEXT)?;
            ensure!(world.requests == stranger, "a first message was not shown");
            set_up.push(world.spent.thinking + world.spent.saving - before.thinking - before.saving);
        }
        (2..=strangers).for_each(|stranger| world.go(stranger));
        world.accept(1, 0)?;
        let to = To::Account(world.account_of(1));
        Ok(Engines { world, to, set_up: median(set_up) })
    }

    /// All but two register and go away.
    pub(super) fn of_group(folder: &Path, size: usize) -> anyhow::Result<Engines> {
        let mut world = World::new(Mode::Mls);
        world.come(Some(folder))?;
        world.come(Some(folder))?;
        for who in 2..size {
            world.come(None)?;
            world.go(who);
        }
        world.write(0, 1, TEXT)?;
        world.accept(1, 0)?;
        for who in 1..size {
            let found = Command::Find(world.handle_of(who));
            world.command(0, found)?;
            if who % LOOKUPS == 0 {
                world.wait(MINUTE_MS)?;
            }
        }
        let members = (1..size).map(|who| world.account_of(who)).collect();
        let Reply::Group(group) = world.command(0, Command::CreateGroup { name: String::new(), members })? else {
            bail!("a group did not begin");
        };
        let is_whole = |view: &ConversationView| view.conversation == group && view.devices == size;
        // A relay takes a few commits in a minute.
        for _ in 0..size {
            world.wait(MINUTE_MS)?;
            let Reply::Conversations(views) = world.command(1, Command::Conversations)? else { bail!("no list") };
            if views.iter().any(is_whole) {
                return Ok(Engines { world, to: To::Group(group), set_up: 0.0 });
            }
        }
        bail!("a group did not become whole");
    }

    /// So many, one after the other. A second passes before each, so that keys that are to be replaced are.
    pub(super) fn messages(&mut self, count: usize) -> anyhow::Result<Message> {
        self.measure(count, |world, to| {
            for _ in 0..count {
                world.wait(1_000)?;
                world.write_to(0, to.clone(), TEXT)?;
            }
            Ok(())
        })
    }

    /// So many, all at once, as when a device comes back: inputs that wait share transactions, as in the SDK's driver.
    pub(super) fn burst(&mut self, count: usize) -> anyhow::Result<Message> {
        self.measure(count, |world, to| {
            world.wait(1_000)?;
            world.write_many(0, to, TEXT, count)
        })
    }

    fn measure(
        &mut self,
        count: usize,
        write: impl FnOnce(&mut World, &To) -> anyhow::Result<()>,
    ) -> anyhow::Result<Message> {
        let Engines { world, to, .. } = self;
        let (spent, shown, before) = (world.spent, world.shown, written()?);
        let begin = Instant::now();
        write(world, to)?;
        let each = |all: f64| all / count as f64;
        ensure!(world.shown == shown + count, "{} of {count} messages were shown", world.shown - shown);
        Ok(Message {
            thinking: each(world.spent.thinking - spent.thinking),
            saving: each(world.spent.saving - spent.saving),
            wall: each(begin.elapsed().as_secs_f64()),
            changed: each((world.spent.changed - spent.changed) as f64),
            written: each((written()? - before) as f64),
        })
    }
}
