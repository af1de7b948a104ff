//! Honest numbers: each bench says machine, commit and method, and where it can, runs a peer in the same run. Two of them,
//! `commits` and `kills`, fail where something is lost, comes twice or differs, whatever it costs.
//! `cargo xtask bench NAME [--json] [--write]` builds and runs this.
#![forbid(unsafe_code)]

mod commits;
mod direct;
mod engine;
mod kills;
mod live;
mod mls;
mod process;
mod report;
mod store;
mod world;

use clap::{Parser, ValueEnum};

use crate::report::Report;

/// Measures what Sealwire costs.
#[derive(Parser)]
struct Arguments {
    /// What to measure.
    bench: Bench,
    /// One JSON object per figure instead of a table.
    #[arg(long)]
    json: bool,
    /// Also write the table to docs/results/.
    #[arg(long)]
    write: bool,
    /// A shorter run, to see that it works; its figures mean little.
    #[arg(long)]
    quick: bool,
    /// Of `kills`: when who is killed. A run says which one it had.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bench {
    /// Sealing and opening, beside the bare AES-GCM of the same crate.
    Direct,
    /// Whole steps of the client with persisting.
    Engine,
    /// The relay's store at a million entries.
    Store,
    /// Conversations of two and of many, beside bare OpenMLS.
    Mls,
    /// The relay beside Mosquitto and a bare WebSocket relay.
    Live,
    /// Many clients that change one group at the same instant.
    Commits,
    /// Clients that are killed in the middle of a conversation, again and again.
    Kills,
    /// One of the clients that `kills` kills.
    #[value(hide = true)]
    KillsApplication,
    /// The bare WebSocket relay itself, as a process of its own: a peer of `live`.
    #[value(hide = true)]
    BareRelay,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let report = match arguments.bench {
        Bench::Direct => direct::run(arguments.quick)?,
        Bench::Engine => engine::run(arguments.quick)?,
        Bench::Store => store::run(arguments.quick)?,
        Bench::Mls => mls::run(arguments.quick)?,
        Bench::Live => live::run(arguments.quick)?,
        Bench::Commits => commits::run(arguments.quick)?,
        Bench::Kills => kills::run(arguments.quick, arguments.seed)?,
        Bench::KillsApplication => return kills::application(),
        Bench::BareRelay => return live::bare_relay(),
    };
    finish(&report, &arguments)
}

fn finish(report: &Report, arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.json {
        true => report.print_lines()?,
        false => print!("{}", report.table()?),
    }
    if arguments.write {
        report.write()?;
    }
    Ok(())
}
