//! The client's mind with its real store: whole steps, each committed before its outputs are performed, between two
//! people and a relay that is memory only.

use std::time::Instant;

use anyhow::bail;
use sealwire_engine::Mode;

use crate::report::{Figure, Report};
use crate::world::{World, written};

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir()?;
    let mut world = World::new(Mode::Direct);
    for _ in 0..2 {
        world.come(Some(folder.path()))?;
    }
    world.write(0, 1, 10)?;
    world.accept(1, 0)?;
    let messages = if quick { 50 } else { 2_000 };
    let mut figures = Vec::new();
    for (case, length) in [("256 B", 256), ("8 KiB", 8 * 1024)] {
        let (steps, shown, before) = (world.steps(), world.shown, written()?);
        let begin = Instant::now();
        for _ in 0..messages {
            world.write(0, 1, length)?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        if world.shown != shown + messages {
            bail!("{} of {messages} messages were shown", world.shown - shown);
        }
        let bytes = (written()? - before) as f64;
        figures.push(Figure::new(format!("messages of {case}, from send to shown"), messages as f64 / seconds, "1/s"));
        figures.push(Figure::new(format!("steps of {case}"), (world.steps() - steps) as f64 / seconds, "1/s"));
        figures.push(Figure::new(format!("bytes written, {case}"), bytes / messages as f64, "B/message"));
    }
    let method = format!(
        "two engines with their sealed SQLite stores on {}, one step and one commit per input, against the relay's core over a store in memory, one thread, {messages} messages of each size one after the other, receipts left out; bytes written are those of the write calls of this process (/proc/self/io), both sides and SQLite's log included",
        folder.path().parent().unwrap_or(folder.path()).display()
    );
    Ok(Report { bench: "engine", method, figures })
}
