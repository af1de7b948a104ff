//! `cargo xtask check`: what has to hold before anything is merged, each by a name. All run, also behind one that fails.

use std::process::Command;
use std::time::Instant;

use crate::run::{Failure, Workspace, cargo, output, step, with_path};
use crate::{faults, invariants, manifest, mutants, source, tools};

type Check = fn(&Workspace) -> Result<(), Failure>;

/// The quick ones first.
const CHECKS: &[(&str, &str, Check)] = &[
    ("fmt", "every file as rustfmt writes it", fmt),
    ("words", "no unfinished work, no lint or test switched off", words),
    ("unsafe", "#![forbid(unsafe_code)] in every crate", no_unsafe),
    ("edges", "who depends on whom, in five levels", edges),
    ("pure", "no runtime, clock or randomness below the shells", pure),
    ("patches", "the planted faults still apply", patches),
    ("guarantees", "every claim has a test", guarantees),
    ("blind", "the relay could not open a message", blind),
    ("shipped", "no program links copyleft, as tests may", shipped),
    ("clippy", "no lint complains, the pure crates' bans among them", clippy),
    ("model", "every state of a small conversation has a way out, but for what docs/repair.md lists", model),
    ("docs", "the documentation builds without a warning", docs),
    ("deny", "licences, sources, versions of what we depend on", deny),
    ("mutants", "no change of a new line goes unnoticed", mutants::of_new_lines),
];

pub(crate) fn check(workspace: &Workspace, arguments: &[String]) -> Result<(), Failure> {
    let chosen: Vec<_> = match arguments {
        [] => CHECKS.iter().collect(),
        [option] if option == "--list" => {
            CHECKS.iter().for_each(|(name, what, _)| println!("{name:<12} {what}"));
            return Ok(());
        }
        [option, name] if option == "--only" => CHECKS.iter().filter(|(check, ..)| check == name).collect(),
        _ => Vec::new(),
    };
    if chosen.is_empty() {
        return Err(Failure("there is no such check; `cargo xtask check --list` names them".into()));
    }
    let mut failed = Vec::new();
    for (name, what, perform) in chosen {
        println!("── check {name}: {what}");
        let begin = Instant::now();
        let (word, begin) = match perform(workspace) {
            Ok(()) => ("holds", begin),
            Err(Failure(sentence)) => {
                println!("{sentence}");
                failed.push(*name);
                ("FAILS", begin)
            }
        };
        println!("── check {name}: {word}, {:.1} s", begin.elapsed().as_secs_f64());
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure(format!("does not hold: {}", failed.join(", ")))),
    }
}

fn fmt(workspace: &Workspace) -> Result<(), Failure> {
    step("fmt", cargo(workspace).args(["fmt", "--all", "--check"]))
}

fn words(workspace: &Workspace) -> Result<(), Failure> {
    none(invariants::no_words(&source::rust_files(workspace)?))
}

fn no_unsafe(workspace: &Workspace) -> Result<(), Failure> {
    none(invariants::no_unsafe(&source::rust_files(workspace)?))
}

fn edges(workspace: &Workspace) -> Result<(), Failure> {
    none(manifest::edges(&manifest::packages(workspace)))
}

fn pure(workspace: &Workspace) -> Result<(), Failure> {
    let mut complaints = manifest::pure(&manifest::packages(workspace));
    for name in manifest::PURE {
        let folder = name.trim_start_matches("sealwire-");
        let path = workspace.root.join("crates").join(folder).join("clippy.toml");
        complaints.extend(invariants::pure_bans(name, &source::read(&path)?));
    }
    none(complaints)
}

fn patches(workspace: &Workspace) -> Result<(), Failure> {
    none(faults::check(workspace)?)
}

fn guarantees(workspace: &Workspace) -> Result<(), Failure> {
    let page = source::read(&workspace.root.join("docs/guarantees.md"))?;
    none(invariants::guarantees(&page, &source::rust_files(workspace)?))
}

/// The program as operators build it: alone, so that no other crate of the workspace adds features.
fn blind(workspace: &Workspace) -> Result<(), Failure> {
    let mut tree = cargo(workspace);
    tree.args(["tree", "-p", "sealwire-relay", "-e", "normal", "--prefix", "none", "--format", "{p} [{f}]"]);
    none(invariants::blind_tree(&output(&mut tree)?))?;
    step("relay, built alone", cargo(workspace).args(["build", "--release", "-p", "sealwire-relay"]))?;
    let path = workspace.target.join("release/sealwire-relay");
    none(invariants::blind_program(&std::fs::read(&path).map_err(with_path(&path))?))
}

/// What `deny` cannot tell: what is excepted there for a test's oracle (docs/decisions/0010) is in no program, on any
/// platform.
fn shipped(workspace: &Workspace) -> Result<(), Failure> {
    let mut complaints = Vec::new();
    for name in ["sealwire-cli", "sealwire-relay"] {
        let mut tree = cargo(workspace);
        tree.args(["tree", "-p", name, "-e", "normal,build", "--target", "all", "--prefix", "none"]);
        tree.args(["--format", "{p}\t{l}"]);
        complaints.extend(invariants::copyleft(name, &output(&mut tree)?));
    }
    none(complaints)
}

fn clippy(workspace: &Workspace) -> Result<(), Failure> {
    let mut clippy = cargo(workspace);
    clippy.args(["clippy", "--workspace", "--all-targets", "--release", "--quiet", "--", "-D", "warnings"]);
    step("clippy", &mut clippy)
}

/// About a minute and a half on one core, and 0.7 GB.
fn model(workspace: &Workspace) -> Result<(), Failure> {
    step("model", cargo(workspace).args(["run", "--release", "--quiet", "-p", "sealwire-model"]))
}

fn docs(workspace: &Workspace) -> Result<(), Failure> {
    let mut doc = cargo(workspace);
    doc.args(["doc", "--no-deps", "--workspace", "--release", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    step("docs", &mut doc)
}

/// Advisories are not asked for: their database is a Git repository, which cannot be fetched where only package
/// registries can be reached.
fn deny(workspace: &Workspace) -> Result<(), Failure> {
    let program = tools::built_once(workspace, "cargo-deny")?;
    // It looks at what every platform would use, of which a build here has fetched only its own.
    step("what other platforms use, fetched", cargo(workspace).args(["fetch", "--locked", "--quiet"]))?;
    let mut deny = Command::new(program);
    deny.args(["--offline", "check", "licenses", "bans", "sources"]).current_dir(&workspace.root);
    step("deny", &mut deny)
}

/// Fails with all complaints.
fn none(complaints: Vec<String>) -> Result<(), Failure> {
    match complaints.is_empty() {
        true => Ok(()),
        false => Err(Failure(complaints.join("\n"))),
    }
}
