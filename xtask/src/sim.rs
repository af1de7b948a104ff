//! The simulation, on two cores.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::{Failure, Workspace, cannot_run, cargo, step};

/// Processes side by side.
const PROCESSES: u64 = 2;
/// Seeds that run between two looks at the clock.
const SEEDS: u64 = 300;

struct Options {
    seeds: u64,
    from: u64,
    seconds: Option<u64>,
    trace: bool,
}

pub(crate) fn sim(workspace: &Workspace, arguments: &[String]) -> Result<(), Failure> {
    let options = read(arguments)?;
    step("sim, built", cargo(workspace).args(["build", "--release", "-p", "sealwire-sim"]))?;
    let program = program(&workspace.target);
    let begin = Instant::now();
    let mut from = options.from;
    loop {
        side_by_side(&program, from, options.seeds, options.trace)?;
        from = from.wrapping_add(options.seeds);
        let is_over = options.seconds.is_none_or(|seconds| begin.elapsed() >= Duration::from_secs(seconds));
        if is_over {
            break;
        }
    }
    let (count, elapsed) = (from.wrapping_sub(options.from), begin.elapsed().as_secs_f64());
    println!(
        "── sim: {count} seeds from {} passed in {elapsed:.1} s, {:.1} seeds/s",
        options.from,
        count as f64 / elapsed
    );
    Ok(())
}

/// Runs a range of seeds, a part of it in each process.
fn side_by_side(program: &Path, from: u64, seeds: u64, trace: bool) -> Result<(), Failure> {
    let mut running = Vec::new();
    for (from, seeds) in parts(from, seeds) {
        let mut command = Command::new(program);
        command.args(["--seeds", &seeds.to_string(), "--from", &from.to_string()]);
        if trace {
            command.arg("--trace");
        }
        let child = command.stdout(Stdio::piped()).spawn().map_err(|error| cannot_run(&command, &error))?;
        running.push((from, seeds, child));
    }
    // Each prints into its pipe, read here one after the other, so that no two traces are mixed. Reading the first
    // while the second's pipe is full only makes the second wait.
    let mut failed = None;
    for (from, seeds, child) in running {
        let done = child.wait_with_output().map_err(|error| Failure(format!("the simulation: {error}")))?;
        print!("{}", String::from_utf8_lossy(&done.stdout));
        if !done.status.success() {
            failed.get_or_insert(format!("a seed of {from}..{} failed: its trace is above", from + seeds));
        }
    }
    failed.map_or(Ok(()), |sentence| Err(Failure(sentence)))
}

/// A range in as many parts as there are processes; none of them empty.
fn parts(from: u64, seeds: u64) -> Vec<(u64, u64)> {
    let cut = |part: u64| seeds * part / PROCESSES;
    let parts = (0..PROCESSES).map(|part| (from + cut(part), cut(part + 1) - cut(part)));
    parts.filter(|(_, seeds)| *seeds > 0).collect()
}

fn read(arguments: &[String]) -> Result<Options, Failure> {
    let mut options = Options { seeds: SEEDS, from: 0, seconds: None, trace: false };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let number = arguments.next().and_then(|value| value.parse().ok());
            number.ok_or(Failure(format!("{argument} wants a number")))
        };
        match argument.as_str() {
            "--seeds" => options.seeds = number()?,
            // Far enough from the end that no sum overflows.
            "--from" => options.from = number()?.min(u64::MAX / 2),
            "--seconds" => options.seconds = Some(number()?),
            "--trace" => options.trace = true,
            other => return Err(Failure(format!("`{other}` means nothing here"))),
        }
    }
    Ok(options)
}

/// Where the simulation of a build lies.
pub(crate) fn program(target: &Path) -> PathBuf {
    target.join("release").join("sealwire-sim")
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn parts_cover_the_range_once() {
        for seeds in [1, 2, 3, 300, 301] {
            let seen: Vec<u64> = parts(40, seeds).into_iter().flat_map(|(from, count)| from..from + count).collect();
            assert_eq!(seen, (40..40 + seeds).collect::<Vec<_>>());
        }
    }
}
