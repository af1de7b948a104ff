//! `cargo xtask bench NAME [--json] [--write] [--quick] [--seed N]`: builds what is measured, then runs it with nothing else
//! beside it.

use std::process::Command;

use crate::run::{Failure, Workspace, cargo, install, is_there, quietly, step};

/// The benches, and what each needs besides: a program and its Debian package.
const BENCHES: [(&str, Option<(&str, &str)>); 7] = [
    ("direct", None),
    ("engine", None),
    ("mls", None),
    ("store", None),
    ("live", Some(("mosquitto", "mosquitto"))),
    ("commits", None),
    ("kills", None),
];

pub(crate) fn bench(workspace: &Workspace, arguments: &[String]) -> Result<(), Failure> {
    let names = || BENCHES.map(|(name, _)| name).join(", ");
    let Some((name, options)) = arguments.split_first() else {
        return Err(Failure(format!("which one? {}", names())));
    };
    let Some((name, needs)) = BENCHES.iter().find(|(bench, _)| bench == name) else {
        return Err(Failure(format!("there is no bench `{name}`; there are {}", names())));
    };
    // With --json the output is for programs: whatever else is said goes to standard error.
    let is_json = options.iter().any(|option| option == "--json");
    let mut build = cargo(workspace);
    build.args(["build", "--release", "-p", "sealwire-bench", "-p", "sealwire-relay"]);
    if is_json {
        quietly(build.arg("--quiet"))?;
    } else {
        step("bench, built", &mut build)?;
    }
    if let Some((program, package)) = needs
        && !is_there(program)
    {
        // A peer that cannot be had is left out, and the table says so.
        let installed = if is_json { Err(Failure(format!("{program} is missing"))) } else { install(&[package]) };
        if let Err(Failure(why)) = installed {
            eprintln!("xtask bench: {why}; it is left out");
        }
    }
    let program = workspace.target.join("release/sealwire-bench");
    // The generator on the second core, where there are two and `taskset`; servers on the first.
    let is_pinned = *name == "live" && is_there("taskset");
    let mut run = if is_pinned { Command::new("taskset") } else { Command::new(&program) };
    if is_pinned {
        run.args(["-c", "1"]).arg(&program);
    }
    run.arg(name).args(options).current_dir(&workspace.root);
    quietly(&mut run)
}
