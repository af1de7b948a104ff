//! What the tests need beside Rust. Each is looked for, installed where it is missing, and said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::{Failure, Workspace, cargo, install, is_there, output, step, with_path};

/// What the tests are told, as environment variables.
pub(crate) struct Tools {
    python: PathBuf,
    node: PathBuf,
    chromium: PathBuf,
}

/// The oldest Node that the peer in JavaScript runs on: its WebCrypto has Ed25519 and X25519.
const NODE_MIN: u32 = 20;
const CHROMIUM: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// Installs what is missing.
pub(crate) fn install_all(workspace: &Workspace) -> Result<Tools, Failure> {
    build_tools()?;
    program("strace", "that watches a store write, for the disk tests", &["strace"])?;
    let python = python(workspace)?;
    let node = node(workspace)?;
    Ok(Tools { python, node, chromium: chromium()? })
}

impl Tools {
    /// Tells a run of the tests where everything is, and that nothing is to be left out.
    pub(crate) fn tell(&self, command: &mut Command) {
        command.env("SEALWIRE_PYTHON", &self.python).env("SEALWIRE_NODE", &self.node);
        command.env("CHROMIUM", &self.chromium).env("SEALWIRE_LEAVE_NOTHING_OUT", "1");
    }
}

/// SQLite and aws-lc are built from C.
pub(crate) fn build_tools() -> Result<(), Failure> {
    program("cc", "that builds SQLite and aws-lc", &["build-essential"])
}

fn program(name: &str, what_for: &str, packages: &[&str]) -> Result<(), Failure> {
    if is_there(name) {
        println!("── {name} is there, {what_for}");
        return Ok(());
    }
    println!("── there is no {name}, {what_for}");
    install(packages)
}

/// A virtual environment below the target directory, with what `interop/python/requirements.txt` pins.
fn python(workspace: &Workspace) -> Result<PathBuf, Failure> {
    let (place, wanted) =
        (workspace.target.join("interop/python"), workspace.root.join("interop/python/requirements.txt"));
    let program = place.join("bin/python");
    let installed = place.join("requirements.txt");
    if is_same(&wanted, &installed) && is_there(&program.to_string_lossy()) {
        println!("── the packages of interop/python are there");
        return Ok(program);
    }
    let make = || quiet(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place));
    println!("── a virtual environment for interop/python, in {}", place.display());
    if make().is_err() {
        install(&["python3", "python3-venv"])?;
        make()?;
    }
    let mut pip = Command::new(&program);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&wanted);
    step("packages of interop/python", &mut pip)?;
    std::fs::copy(&wanted, &installed).map_err(with_path(&installed))?;
    Ok(program)
}

/// Node, and in `interop/node/node_modules` what its lock file pins.
fn node(workspace: &Workspace) -> Result<PathBuf, Failure> {
    if node_version().is_none() || !is_there("npm") {
        println!("── there is no Node with npm, for interop/node");
        install(&["nodejs", "npm"])?;
    }
    match node_version() {
        Some(version) if version >= NODE_MIN => println!("── Node {version} is there, for interop/node"),
        found => return Err(Failure(format!("interop/node needs Node {NODE_MIN} or newer; there is {found:?}"))),
    }
    let folder = workspace.root.join("interop/node");
    let (wanted, installed) = (folder.join("package-lock.json"), folder.join("node_modules/.installed-lock.json"));
    if is_same(&wanted, &installed) {
        println!("── the packages of interop/node are there");
        return Ok("node".into());
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder);
    step("packages of interop/node", &mut npm)?;
    std::fs::copy(&wanted, &installed).map_err(with_path(&installed))?;
    Ok("node".into())
}

fn node_version() -> Option<u32> {
    let version = output(Command::new("node").arg("--version")).ok()?;
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

fn chromium() -> Result<PathBuf, Failure> {
    let found = || CHROMIUM.iter().map(|name| Path::new("/usr/bin").join(name)).find(|path| path.exists());
    if found().is_none() {
        println!("── there is no Chromium, for the page of interop/node");
        install(&["chromium"])?;
    }
    let path = found().ok_or(Failure("Chromium was installed, and is not in /usr/bin".into()))?;
    println!("── {} is there, for the page of interop/node", path.display());
    Ok(path)
}

/// Where a program of crates.io is, such as `cargo-deny`; it is built once if it is nowhere, below the target directory.
/// That takes minutes, so no test asks for one.
pub(crate) fn built_once(workspace: &Workspace, name: &str) -> Result<PathBuf, Failure> {
    let own = workspace.target.join("tools/bin").join(name);
    for program in [own.clone(), PathBuf::from(name)] {
        if is_there(&program.to_string_lossy()) {
            return Ok(program);
        }
    }
    let mut build = cargo(workspace);
    // Unoptimised, which takes half as long: what they do here takes seconds.
    build.args(["install", "--debug", "--locked", "--quiet", name, "--root"]).arg(workspace.target.join("tools"));
    step(&format!("{name}, built once"), build.env("CARGO_TARGET_DIR", workspace.target.join("tools/build")))?;
    Ok(own)
}

/// Whether both files are there and hold the same.
fn is_same(one: &Path, other: &Path) -> bool {
    std::fs::read(one).ok().zip(std::fs::read(other).ok()).is_some_and(|(one, other)| one == other)
}

fn quiet(command: &mut Command) -> Result<(), Failure> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    crate::run::quietly(command)
}
