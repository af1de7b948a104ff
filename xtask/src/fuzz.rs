//! `cargo xtask fuzz [TARGET] [--secs N]`: runs libFuzzer on every target, keeps what reached something new, and extends
//! the ledger `docs/results/fuzz.md`.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::run::{Failure, Workspace, output, with_path};
use crate::tools;

/// Inputs that are kept per target; the smallest ones that reach everything.
const KEPT_MAX: usize = 200;
const LEDGER: &str = "docs/results/fuzz.md";
const HEAD: &str = "\
# Fuzzing

A ledger: each run of `cargo xtask fuzz` adds its lines. Coverage is libFuzzer's count of edges; the corpus is what is
committed below `fuzz/corpus/` and replayed by the tests.

| date | commit | target | seconds | executions | edges | corpus | found |
|---|---|---|---|---|---|---|---|
";

pub(crate) fn fuzz(workspace: &Workspace, arguments: &[String]) -> Result<(), Failure> {
    let (mut seconds, mut wanted, mut rest) = (180u64, None, arguments.iter());
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--secs" => {
                let value = rest.next().and_then(|value| value.parse().ok());
                seconds = value.ok_or(Failure("--secs wants a number of seconds".into()))?;
            }
            name => wanted = Some(name.to_owned()),
        }
    }
    let targets = targets(&workspace.root.join("fuzz/programs"))?;
    if let Some(name) = wanted.as_ref().filter(|name| !targets.contains(name)) {
        return Err(Failure(format!("there is no target `{name}`; there are {}", targets.join(", "))));
    }
    let program = tools::built_once(workspace, "cargo-fuzz")?;
    let mut failed = Vec::new();
    for target in targets.iter().filter(|target| wanted.as_ref().is_none_or(|wanted| wanted == *target)) {
        let (line, found) = run(workspace, &program, target, seconds)?;
        add_to_ledger(&workspace.root.join(LEDGER), &line)?;
        print!("{line}");
        failed.extend(found.then_some(target.as_str()));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure(format!("something was found: fuzz/programs/artifacts/ of {}", failed.join(", ")))),
    }
}

/// One program per target.
fn targets(folder: &Path) -> Result<Vec<String>, Failure> {
    let programs = folder.join("fuzz_targets");
    let mut names = Vec::new();
    for file in std::fs::read_dir(&programs).map_err(with_path(&programs))? {
        let file = file.map_err(with_path(&programs))?.path();
        names.extend(file.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Fuzzes one target; its line for the ledger, and whether it found something.
fn run(workspace: &Workspace, program: &Path, target: &str, seconds: u64) -> Result<(String, bool), Failure> {
    let folder = workspace.root.join("fuzz");
    let corpus = folder.join("corpus").join(target);
    let scratch = workspace.target.join("fuzz").join(target);
    std::fs::create_dir_all(&scratch).map_err(with_path(&scratch))?;
    std::fs::create_dir_all(&corpus).map_err(with_path(&corpus))?;
    println!("── fuzz {target} for {seconds} s");
    let mut fuzz = libfuzzer(workspace, program, target);
    fuzz.arg(&scratch).arg(&corpus).arg("--");
    fuzz.arg(format!("-max_total_time={seconds}")).args([
        "-max_len=4096",
        "-print_final_stats=1",
        "-rss_limit_mb=8192",
    ]);
    let done = fuzz.stdin(Stdio::null()).output();
    let done = done.map_err(|error| Failure(format!("cargo fuzz cannot be run: {error}")))?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let after =
        |mark: &str| said.rsplit_once(mark).and_then(|(_, rest)| rest.split_whitespace().next().map(str::to_owned));
    let found = if done.status.success() { "nothing".to_owned() } else { "A FAILURE".to_owned() };
    if !done.status.success() {
        let tail: Vec<&str> = said.lines().rev().take(40).collect();
        tail.iter().rev().for_each(|line| eprintln!("{line}"));
    }
    if done.status.success() {
        keep(workspace, program, target, &scratch, &corpus)?;
    }
    let kept = std::fs::read_dir(&corpus).map_err(with_path(&corpus))?.count();
    let (executions, edges) = (after("stat::number_of_executed_units: "), after(" cov: "));
    let commit = output(Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(&workspace.root))?;
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let or_unknown = |figure: Option<String>| figure.unwrap_or("unknown".into());
    let line = format!(
        "| {} | {} | {target} | {seconds} | {} | {} | {kept} | {found} |\n",
        date.trim(),
        commit.trim(),
        or_unknown(executions),
        or_unknown(edges)
    );
    Ok((line, !done.status.success()))
}

/// Merges what reached new edges into the committed corpus, the smallest inputs first, up to a bound.
fn keep(workspace: &Workspace, program: &Path, target: &str, scratch: &Path, corpus: &Path) -> Result<(), Failure> {
    let merged = workspace.target.join("fuzz").join(format!("{target}.merged"));
    // Left from an earlier run, or not there.
    let _ = std::fs::remove_dir_all(&merged);
    std::fs::create_dir_all(&merged).map_err(with_path(&merged))?;
    let mut merge = libfuzzer(workspace, program, target);
    merge.arg(&merged).arg(corpus).arg(scratch).args(["--", "-merge=1", "-max_len=4096"]);
    output(&mut merge)?;
    let mut files = Vec::new();
    for file in std::fs::read_dir(&merged).map_err(with_path(&merged))? {
        let file = file.map_err(with_path(&merged))?;
        files.push((file.metadata().map_err(with_path(&merged))?.len(), file.path()));
    }
    files.sort();
    for old in std::fs::read_dir(corpus).map_err(with_path(corpus))? {
        let old = old.map_err(with_path(corpus))?.path();
        std::fs::remove_file(&old).map_err(with_path(&old))?;
    }
    for (_, file) in files.into_iter().take(KEPT_MAX) {
        let to = corpus.join(file.file_name().unwrap_or_default());
        std::fs::copy(&file, &to).map_err(with_path(&to))?;
    }
    Ok(())
}

fn add_to_ledger(ledger: &Path, line: &str) -> Result<(), Failure> {
    let mut text = std::fs::read_to_string(ledger).unwrap_or_else(|_| HEAD.to_owned());
    text.write_str(line).map_err(|error| Failure(error.to_string()))?;
    std::fs::write(ledger, text).map_err(with_path(ledger))
}

/// A target under libFuzzer; its folders and flags follow.
fn libfuzzer(workspace: &Workspace, program: &Path, target: &str) -> Command {
    let mut command = nightly(workspace, program);
    // Without the address sanitizer: no crate of ours has unsafe code, and the edges are what is looked for.
    command.args(["run", "--fuzz-dir", ".", "--release", "--sanitizer", "none", target]);
    command.current_dir(workspace.root.join("fuzz/programs"));
    command
}

/// cargo-fuzz with the nightly toolchain where there is one; else the stable compiler is told to take its flags.
fn nightly(workspace: &Workspace, program: &Path) -> Command {
    let mut version = Command::new("rustc");
    let is_there = version.args(["+nightly", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let mut command = Command::new(program);
    command.env("CARGO_TARGET_DIR", workspace.target.join("fuzz/build")).env_remove("CARGO");
    if is_there.is_ok_and(|status| status.success()) {
        command.env("RUSTUP_TOOLCHAIN", "nightly");
    } else {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command
}
