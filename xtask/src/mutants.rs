//! `cargo xtask mutants`, and the check of the same name: would the tests notice if a line did something else? By
//! cargo-mutants, over the crates in which a wrong line is a broken promise. What it may leave out is in
//! `.cargo/mutants.toml`, each with its reason.

use std::path::Path;
use std::process::Command;

use crate::run::{Failure, Workspace, output, step, with_path};
use crate::tools;

const CRATES: &[&str] = &["wire", "keys", "session"];
/// The check looks at what was committed within so many hours before the newest commit: about one session of work.
const NEW_HOURS: u64 = 12;

/// Changes that the check tries, of those of new lines: each is a build. Which ones, the commit says.
const NEW_MOST: usize = 30;

/// All changes, or those of one crate.
pub(crate) fn all(workspace: &Workspace, arguments: &[String]) -> Result<(), Failure> {
    let chosen = match arguments {
        [] => CRATES,
        [name] => match CRATES.iter().position(|known| known == name) {
            Some(place) => &CRATES[place..=place],
            None => return Err(Failure(format!("mutants are of {}", CRATES.join(", ")))),
        },
        _ => return Err(Failure("one crate, or none for all".into())),
    };
    run(workspace, chosen, None, None)
}

/// Changes of lines that are new.
pub(crate) fn of_new_lines(workspace: &Workspace) -> Result<(), Failure> {
    let git = |arguments: &[&str]| output(Command::new("git").args(arguments).current_dir(&workspace.root));
    let newest: u64 = git(&["show", "-s", "--format=%ct", "HEAD"])?
        .trim()
        .parse()
        .map_err(|error| Failure(format!("the time of the newest commit cannot be read: {error}")))?;
    let before = format!("--before={}", newest.saturating_sub(NEW_HOURS * 3_600));
    let base = git(&["rev-list", "-1", &before, "HEAD"])?;
    if base.trim().is_empty() {
        println!("no commit is older than {NEW_HOURS} hours here: nothing to compare with");
        return Ok(());
    }
    let folders: Vec<String> = CRATES.iter().map(|name| format!("crates/{name}/src")).collect();
    let mut arguments = vec!["diff", base.trim(), "HEAD", "--"];
    arguments.extend(folders.iter().map(String::as_str));
    let diff = git(&arguments)?;
    if diff.is_empty() {
        println!("nothing changed in {} since {}", folders.join(", "), base.trim());
        return Ok(());
    }
    let file = workspace.target.join("new-lines.diff");
    std::fs::write(&file, diff).map_err(with_path(&file))?;
    let program = tools::built_once(workspace, "cargo-mutants")?;
    let mut list = Command::new(program);
    list.args(["mutants", "--list", "--colors", "never", "--in-diff"]).arg(&file);
    for name in CRATES {
        list.args(["-p", &format!("sealwire-{name}")]);
    }
    let parts = output(list.current_dir(&workspace.root))?.lines().count().div_ceil(NEW_MOST).max(1);
    let part = usize::from_str_radix(&git(&["rev-parse", "HEAD"])?[..8], 16).unwrap_or(0) % parts;
    run(workspace, CRATES, Some(&file), Some(format!("{part}/{parts}")))
}

fn run(workspace: &Workspace, crates: &[&str], diff: Option<&Path>, shard: Option<String>) -> Result<(), Failure> {
    let program = tools::built_once(workspace, "cargo-mutants")?;
    let mut mutants = Command::new(program);
    mutants.args(["mutants", "--colors", "never", "--no-shuffle", "--jobs", "2", "--output"]).arg(&workspace.target);
    if let Some(shard) = shard {
        mutants.args(["--shard", &shard]);
    }
    for name in crates {
        mutants.args(["-p", &format!("sealwire-{name}")]);
    }
    if let Some(diff) = diff {
        mutants.arg("--in-diff").arg(diff);
    }
    step("mutants", mutants.current_dir(&workspace.root))
}
