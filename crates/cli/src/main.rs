//! `sealwire`: end-to-end encrypted messages for people and scripts. See `docs/cli.md`.
#![forbid(unsafe_code)]

mod account;
mod args;
mod ask;
mod chat;
mod doctor;
mod explain;
mod group;
mod home;
mod init;
mod link;
mod notice;
mod output;
mod people;
mod talk;
mod terminal;
mod trouble;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use crate::args::{Arguments, Command};
use crate::output::{Exit, Failure, Screen};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = Screen::new(arguments.global.json);
    match run(arguments, screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen.fail(&failure);
            failure.code()
        }
    }
}

fn run(arguments: Arguments, screen: Screen) -> Result<(), Failure> {
    match arguments.command {
        // Neither needs an account, and the demo's three people are not this one.
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "sealwire", &mut std::io::stdout());
            Ok(())
        }
        Command::Demo { keep, explain } => demo(screen, keep, explain),
        command => {
            trouble::begin(arguments.global.verbose);
            let home = home::folder(arguments.global.home)?;
            // The client drives itself on a thread of its own; one more is enough to talk to it.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(with_account(&home, screen, command))
        }
    }
}

async fn with_account(home: &std::path::Path, screen: Screen, command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(options) => init::init(home, screen, &options).await,
        Command::Link(options) => link::link(home, screen, &options).await,
        Command::Devices => link::devices(home, screen).await,
        Command::Revoke { device, yes } => link::revoke(home, screen, &device, yes).await,
        Command::Whoami => init::whoami(home, screen).await,
        Command::Send(options) => talk::send(home, screen, &options).await,
        Command::Listen(options) => talk::listen(home, screen, &options).await,
        Command::Chat { who, group, last } => chat::chat(home, screen, &who, group, last).await,
        Command::History { who, group, last } => talk::history(home, screen, &who, group, last).await,
        Command::Group { what } => group::group(home, screen, &what).await,
        Command::Contacts { what } => people::contacts(home, screen, &what).await,
        Command::Verify(options) => people::verify(home, screen, &options).await,
        Command::Block { who } => people::set_blocked(home, screen, &who, true).await,
        Command::Unblock { who } => people::set_blocked(home, screen, &who, false).await,
        Command::Presence { state } => account::presence(home, screen, state).await,
        Command::Retire { yes: _ } => account::retire(home, screen).await,
        Command::Reclaim => account::reclaim(home, screen).await,
        Command::TrustRelay { timeout } => account::trust_relay(home, screen, Duration::from_secs(timeout)).await,
        Command::Doctor { timeout } => doctor::doctor(home, screen, Duration::from_secs(timeout)).await,
        Command::Explain { envelope } => explain::explain(home, screen, envelope.as_deref()).await,
        Command::Demo { .. } | Command::Completions { .. } => Ok(()),
    }
}

fn demo(screen: Screen, keep: Option<std::path::PathBuf>, explain: bool) -> Result<(), Failure> {
    let failed =
        || Failure::new(Exit::Failed, "not all of it held: this is a bug, please report what is printed above");
    if explain {
        return if sealwire_demo::explain() { Ok(()) } else { Err(failed()) };
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let options = sealwire_demo::Options { json: screen.json, keep, colour: screen.colour() };
    match runtime.block_on(sealwire_demo::run(options)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed()),
        Err(error) => Err(Failure::new(Exit::Failed, format!("the demo did not get to its end: {error:#}"))),
    }
}
