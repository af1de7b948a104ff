//! Planted faults (`docs/decisions/0002-faults-as-patches.md`): all patches of `sim/faults/` onto one copy of the tree,
//! one build, and a run-time selector that only the copy has. Each fault has to be found, and the copy without one has
//! to pass.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::run::{Failure, Workspace, cargo, output, step, with_path};
use crate::{sim, source};

/// Within so many seeds a fault has to be found.
const SEEDS: u64 = 200;
/// They are always the same: a fault that is found is found again.
const FROM: u64 = 1;
/// Adds the selector; the others are faults by their names.
const SELECTOR: &str = "00-selector";
/// What the selector reads.
const VARIABLE: &str = "SEALWIRE_PLANTED";

pub(crate) fn faults(workspace: &Workspace, arguments: &[String]) -> Result<(), Failure> {
    let patches = patches(workspace)?;
    let all: Vec<String> = patches.iter().map(|patch| stem(patch)).filter(|name| name != SELECTOR).collect();
    let chosen = match arguments {
        [] => all,
        [name] if all.contains(name) => vec![name.clone()],
        _ => return Err(Failure(format!("the faults are: {}", all.join(", ")))),
    };
    let place = workspace.target.join("faults");
    plant(workspace, &patches, &place)?;
    let mut build = cargo(workspace);
    build.current_dir(place.join("src")).args(["build", "--release", "-p", "sealwire-sim"]);
    step("faults, built", build.env("CARGO_TARGET_DIR", place.join("target")))?;
    let program = sim::program(&place.join("target"));
    let mut missed = Vec::new();
    for fault in &chosen {
        let begin = Instant::now();
        let found = run(&program, fault)?;
        let said = found.as_deref().unwrap_or("NOT FOUND");
        println!("{fault:<26} {said} ({:.1} s)", begin.elapsed().as_secs_f64());
        if found.is_none() {
            missed.push(fault.as_str());
        }
    }
    if let Some(found) = run(&program, "none")? {
        return Err(Failure(format!("the copy without a fault fails: {found}")));
    }
    println!("{:<26} {SEEDS} seeds pass", "none");
    match missed.is_empty() {
        true => Ok(()),
        false => Err(Failure(format!("not found within {SEEDS} seeds: {}", missed.join(", ")))),
    }
}

/// Whether every patch applies to the tree, each alone and all together.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>, Failure> {
    let patches = patches(workspace)?;
    let each = patches.iter().map(|patch| vec![patch.clone()]);
    let sets = each.chain([patches.clone()]);
    Ok(sets.filter_map(|set| applies(&workspace.root, &set).err()).map(|Failure(said)| said).collect())
}

/// Whether patches apply, together and in this order, to the tree below a root.
pub(crate) fn applies(root: &Path, patches: &[PathBuf]) -> Result<(), Failure> {
    let mut command = Command::new("git");
    output(command.args(["apply", "--check"]).args(patches).current_dir(root)).map(drop)
}

fn patches(workspace: &Workspace) -> Result<Vec<PathBuf>, Failure> {
    let folder = workspace.root.join("sim/faults");
    let listed = std::fs::read_dir(&folder).map_err(with_path(&folder))?;
    let paths = listed.filter_map(Result::ok).map(|entry| entry.path());
    // Sorted: the selector is first.
    let sorted: BTreeSet<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "patch")).collect();
    Ok(sorted.into_iter().collect())
}

/// Makes the copy, with all patches. Files that did not change keep their time, so that Cargo builds only what did.
fn plant(workspace: &Workspace, patches: &[PathBuf], place: &Path) -> Result<(), Failure> {
    let (fresh, copy) = (place.join("fresh"), place.join("src"));
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).map_err(with_path(&fresh))?;
    }
    for path in source::files(workspace)? {
        put(&fresh.join(&path), &std::fs::read(workspace.root.join(&path)).map_err(with_path(&path))?)?;
    }
    println!("── faults: {} patches onto a copy in {}", patches.len(), copy.display());
    let mut apply = Command::new("git");
    apply.arg("apply").args(patches).current_dir(&fresh);
    // Without this, Git finds the workspace's repository around the copy, and skips files that it does not track.
    let ceiling = place.canonicalize().map_err(with_path(place))?;
    output(apply.env("GIT_CEILING_DIRECTORIES", ceiling))?;
    if !fresh.join("crates/wire/src/planted.rs").is_file() {
        return Err(Failure("the patches did not reach the copy".into()));
    }
    let files = below(&fresh)?;
    for file in &files {
        let (new, old) = (std::fs::read(fresh.join(file)).map_err(with_path(file))?, copy.join(file));
        if std::fs::read(&old).ok().as_ref() != Some(&new) {
            put(&old, &new)?;
        }
    }
    for stale in below(&copy)?.difference(&files) {
        std::fs::remove_file(copy.join(stale)).map_err(with_path(stale))?;
    }
    std::fs::remove_dir_all(&fresh).map_err(with_path(&fresh))
}

/// The files below a folder, from there.
fn below(folder: &Path) -> Result<BTreeSet<PathBuf>, Failure> {
    let (mut files, mut folders) = (BTreeSet::new(), vec![folder.to_path_buf()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).map_err(with_path(&next))?.filter_map(Result::ok) {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(files.insert(path.strip_prefix(folder).unwrap_or(&path).to_path_buf())),
            }
        }
    }
    Ok(files)
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(with_path(parent))?;
    }
    std::fs::write(path, bytes).map_err(with_path(path))
}

/// Runs the seeds with a fault: which of them found it, and by which rule.
fn run(program: &Path, fault: &str) -> Result<Option<String>, Failure> {
    let mut command = Command::new(program);
    command.args(["--seeds", &SEEDS.to_string(), "--from", &FROM.to_string()]).env(VARIABLE, fault);
    let done = command.output().map_err(|error| crate::run::cannot_run(&command, &error))?;
    if done.status.success() {
        return Ok(None);
    }
    // A rule that was broken comes last in what is printed, a panic in what is complained about.
    let (printed, complained) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let rule = printed.lines().rev().find(|line| line.contains("FAILED")).or(complained.lines().nth(1));
    Ok(Some(rule.unwrap_or("it ended without a word").replace(" FAILED", "")))
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_for_a_tree_that_changed_does_not_apply() {
        let place = std::env::temp_dir().join(format!("sealwire-xtask-{}", std::process::id()));
        put(&place.join("file"), b"two\n").unwrap();
        let patch = place.join("a.patch");
        put(&patch, b"--- a/file\n+++ b/file\n@@ -1 +1 @@\n-one\n+three\n").unwrap();
        assert!(applies(&place, std::slice::from_ref(&patch)).is_err());
        put(&place.join("file"), b"one\n").unwrap();
        assert!(applies(&place, &[patch]).is_ok());
        std::fs::remove_dir_all(place).unwrap();
    }
}
