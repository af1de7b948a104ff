//! Running other programs, and saying so.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

/// Why a task ended, in one sentence.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// Where the workspace lies and where it is built.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    /// What `cargo metadata` says.
    pub(crate) metadata: Value,
}

impl Workspace {
    /// The workspace that this program was built from.
    pub(crate) fn find() -> Result<Workspace, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf();
        let mut command = Command::new(cargo_path());
        command.args(["metadata", "--format-version", "1", "--no-deps"]).current_dir(&root);
        let metadata: Value = serde_json::from_str(&output(&mut command)?)
            .map_err(|error| Failure(format!("cargo metadata cannot be read: {error}")))?;
        let target = metadata["target_directory"].as_str().map(PathBuf::from);
        let target = target.ok_or(Failure("cargo metadata names no target directory".into()))?;
        Ok(Workspace { root, target, metadata })
    }
}

/// Cargo, in the workspace.
pub(crate) fn cargo(workspace: &Workspace) -> Command {
    let mut command = Command::new(cargo_path());
    command.current_dir(&workspace.root);
    command
}

/// Runs a program whose output the reader sees. Fails with what it was for.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<(), Failure> {
    println!("── {what}: {}", line_of(command));
    let begin = Instant::now();
    let status = command.status().map_err(|error| cannot_run(command, &error))?;
    if !status.success() {
        return Err(Failure(format!("{what} failed ({status})")));
    }
    println!("── {what}: {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a program for its output.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let done = command.stdin(Stdio::null()).output().map_err(|error| cannot_run(command, &error))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        return Err(Failure(format!("`{}` failed: {said}", line_of(command))));
    }
    String::from_utf8(done.stdout).map_err(|_| Failure(format!("`{}` printed no UTF-8", line_of(command))))
}

pub(crate) fn cannot_run(command: &Command, error: &std::io::Error) -> Failure {
    Failure(format!("`{}` cannot be run: {error}", line_of(command)))
}

/// `std::io::Error` with the path that it was about.
pub(crate) fn with_path(path: &Path) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| Failure(format!("{}: {error}", path.display()))
}

pub(crate) fn no_arguments(arguments: &[String]) -> Result<(), Failure> {
    match arguments.first() {
        None => Ok(()),
        Some(argument) => Err(Failure(format!("`{argument}` means nothing here"))),
    }
}

/// Runs a program whose output is all that is to be seen.
pub(crate) fn quietly(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(|error| cannot_run(command, &error))?;
    if status.success() { Ok(()) } else { Err(Failure(format!("`{}` failed ({status})", line_of(command)))) }
}

/// Installs Debian packages, as root.
pub(crate) fn install(packages: &[&str]) -> Result<(), Failure> {
    let is_root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !is_root || !is_there("apt-get") {
        return Err(Failure(format!("missing, and only root on Debian installs it here: {}", packages.join(", "))));
    }
    println!("── installing {}", packages.join(", "));
    step("apt-get update", Command::new("apt-get").args(["update", "-q"]))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-q", "-y"]).args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    step("apt-get install", &mut install)
}

/// Whether a program can be run; what it says to `--version` does not matter.
pub(crate) fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// The Cargo that runs this program.
fn cargo_path() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

fn line_of(command: &Command) -> String {
    let variables =
        command.get_envs().filter_map(|(name, value)| Some((name.to_string_lossy(), value?.to_string_lossy())));
    let mut words: Vec<String> = variables.map(|(name, value)| format!("{name}={value:?}")).collect();
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    words.push(program.to_string_lossy().into_owned());
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}
