//! `cargo xtask`: everything that this workspace does to itself, by one name each. `cargo xtask help` lists it.
//!
//! Each task says what it runs, in order, and how long that took; the first thing that fails ends it with one sentence.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod faults;
mod fuzz;
mod invariants;
mod manifest;
mod mutants;
mod run;
mod sim;
mod source;
mod tools;

use std::process::ExitCode;
use std::time::Instant;

use crate::run::{Failure, Workspace, cargo, step};

const HELP: &str = "\
cargo xtask TASK

  test                      installs what the tests need and is missing, builds, runs every test
  check [--only NAME]       formatting, lints, invariants, licences, documentation; `--list` names them
  sim [--seeds N] [--from S] [--seconds T] [--trace]
                            worlds from seeds, two processes side by side; with --seconds, N seeds at a time until
                            the time is over
  faults [NAME]             plants each fault of sim/faults/ and expects the simulation to find it
  bench NAME [--json] [--write] [--quick] [--seed N]
                            direct, engine, mls, store or live: what it costs, beside peers in the same run; commits or
                            kills: whether it holds when 64 change a group at once, when clients are killed again and
                            again, and a failure if not; with --write also into docs/results/
  fuzz [TARGET] [--secs N]  libFuzzer on every target, 180 seconds each; extends docs/results/fuzz.md and fuzz/corpus/
  mutants [CRATE]           every change of a line of wire, keys and session that cargo-mutants can think of: which of
                            them no test notices
  vectors                   writes spec/vectors/ anew
  help                      this";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let begin = Instant::now();
    let (task, rest) = arguments.split_first().map_or(("help", &[][..]), |(task, rest)| (task.as_str(), rest));
    let done = Workspace::find().and_then(|workspace| perform(&workspace, task, rest));
    match done {
        Ok(()) => {
            // The output of a bench with --json is for programs.
            if !is_help(task) && task != "bench" {
                println!("xtask {task}: done in {:.1} s", begin.elapsed().as_secs_f64());
            }
            ExitCode::SUCCESS
        }
        Err(Failure(sentence)) => {
            eprintln!("xtask {task}: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn perform(workspace: &Workspace, task: &str, arguments: &[String]) -> Result<(), Failure> {
    match task {
        "test" => test(workspace, arguments),
        "check" => check::check(workspace, arguments),
        "sim" => sim::sim(workspace, arguments),
        "faults" => faults::faults(workspace, arguments),
        "bench" => bench::bench(workspace, arguments),
        "fuzz" => fuzz::fuzz(workspace, arguments),
        "mutants" => mutants::all(workspace, arguments),
        "vectors" => vectors(workspace, arguments),
        task if is_help(task) => {
            println!("{HELP}");
            Ok(())
        }
        _ => Err(Failure("there is no such task; `cargo xtask help` lists them".into())),
    }
}

fn is_help(task: &str) -> bool {
    matches!(task, "help" | "--help" | "-h")
}

fn test(workspace: &Workspace, arguments: &[String]) -> Result<(), Failure> {
    run::no_arguments(arguments)?;
    let tools = tools::install_all(workspace)?;
    let mut tests = cargo(workspace);
    tests.args(["test", "--workspace", "--release"]);
    tools.tell(&mut tests);
    step("all tests", &mut tests)
}

/// The tests that compare the vectors write them instead.
fn vectors(workspace: &Workspace, arguments: &[String]) -> Result<(), Failure> {
    run::no_arguments(arguments)?;
    let packages = ["-p", "sealwire-wire", "-p", "sealwire-keys", "-p", "sealwire-session"];
    let mut command = cargo(workspace);
    command.args(["test", "--release"]).args(packages).arg("vectors").env("SEALWIRE_UPDATE", "1");
    step("vectors, written anew", &mut command)
}
