//! A run under `strace`: what the process asked of its disk, in order.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::worker;

/// What a process does to files, and what it says.
#[derive(Debug)]
pub(crate) enum Call {
    /// A file was opened; made where there was none and `makes` says so.
    Open { path: PathBuf, makes: bool, truncates: bool },
    /// Bytes at a place.
    Write { path: PathBuf, at: u64, bytes: Vec<u8> },
    /// A new length.
    Truncate { path: PathBuf, length: u64 },
    /// Everything of a file, or the names of a directory. A sync that failed has done nothing.
    Sync { path: PathBuf, failed: bool },
    /// A name, and all that is below it.
    Rename { from: PathBuf, to: PathBuf },
    /// A name goes.
    Remove { path: PathBuf },
    /// A directory.
    Make { path: PathBuf },
    /// What the process says of itself.
    Mark(String),
}

/// Where a run was. Images of its disk are made at the same place, because SQLite writes full paths into its journals.
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    _temporary: tempfile::TempDir,
}

/// What goes wrong during a run. Counted from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// One sync fails with EIO.
    Sync { nth: usize },
    /// From that write on the disk is full: for four writes, or for all that come.
    Full { from_write: usize, for_good: bool },
}

const TRACED: &str =
    "openat,write,pwrite64,lseek,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat";
const FULL_WRITES: usize = 4;
/// The word `mark`, as strace writes it.
const MARK: &str = r"\x6d\x61\x72\x6b";

/// Runs the trace of [`worker`] in a new directory, which stays; and what it did. `None` where there is no strace, or
/// where it may not watch: that is said, and CI has it (`cargo xtask test` installs it).
pub(crate) fn traced(fault: Option<Fault>) -> Option<(Place, Vec<Call>)> {
    // In memory where that can be: its syncs need not be waited for.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let (directory, log) = (place.path().join("store"), place.path().join("calls"));
    std::fs::create_dir(&directory).unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-xx", "-s", "16777216", "-e", "signal=none", "-e"]).arg(format!("trace={TRACED}"));
    if let Some(fault) = fault {
        strace.args(["-e", &format!("inject={}", injection(fault))]);
    }
    strace.arg("-o").arg(&log).arg(std::env::current_exe().unwrap());
    strace.args(["--exact", "a_trace_is_answered_as_the_model_answers", "--nocapture", "--test-threads=1"]);
    strace.env(worker::VARIABLE, &directory).stdin(Stdio::null());
    let ran = strace.output();
    if ran.as_ref().map_or(true, |ran| !log.exists() || ran.stderr.starts_with(b"strace: ")) {
        assert!(std::env::var_os("SEALWIRE_LEAVE_NOTHING_OUT").is_none(), "{ran:?}");
        crate::say("disk: left out, because there is no strace that may watch a process: cargo xtask test installs it");
        return None;
    }
    let ran = ran.unwrap();
    assert!(ran.status.success(), "{fault:?}: {}", String::from_utf8_lossy(&ran.stderr));
    let text = std::fs::read_to_string(&log).unwrap();
    let mut reader = Reader { directory: directory.clone(), places: Default::default() };
    let calls = text.lines().filter_map(|line| reader.read(line)).collect();
    Some((Place { directory, _temporary: place }, calls))
}

/// Writes of the database are those by `pwrite64`; all but those of blobs are.
fn injection(fault: Fault) -> String {
    match fault {
        Fault::Sync { nth } => format!("fsync,fdatasync:error=EIO:when={nth}"),
        Fault::Full { from_write, for_good } => {
            let end = if for_good { "+".to_owned() } else { format!("..{}", from_write + FULL_WRITES - 1) };
            format!("pwrite64:error=ENOSPC:when={from_write}{end}")
        }
    }
}

struct Reader {
    directory: PathBuf,
    /// Where `write` goes on, by descriptor.
    places: std::collections::BTreeMap<u64, u64>,
}

impl Reader {
    /// One line; `None` for what is not about the directory.
    fn read(&mut self, line: &str) -> Option<Call> {
        let line = line.split_once(' ').unwrap().1.trim_start();
        if line.starts_with("+++") || line.starts_with("---") || line.starts_with("<... write resumed>") {
            return None;
        }
        if line.contains("<unfinished") {
            // The test runner's own words, beside the thread that ends.
            assert!(line.starts_with("write(1<") && !line.contains(MARK), "two threads at once: {line}");
            return None;
        }
        let (name, rest) = line.split_once('(').unwrap();
        let (arguments, result) = rest.rsplit_once(" = ").unwrap();
        let arguments: Vec<&str> = arguments.trim_end().strip_suffix(')').unwrap().split(", ").collect();
        let failed = result.starts_with('-');
        let done: u64 = result.split([' ', '<']).next().unwrap().parse().unwrap_or(0);
        if name == "write" && descriptor(arguments[0]) == 1 {
            let said = String::from_utf8(bytes(arguments[1])).unwrap();
            return said.strip_prefix("mark ").map(|mark| Call::Mark(mark.trim_end().to_owned()));
        }
        let call = match name {
            "fsync" | "fdatasync" => Call::Sync { path: annotated(arguments[0])?, failed },
            _ if failed => return None,
            "openat" => {
                let path = annotated(result)?;
                self.places.insert(done, 0);
                Call::Open {
                    path,
                    makes: arguments[2].contains("O_CREAT"),
                    truncates: arguments[2].contains("O_TRUNC"),
                }
            }
            "lseek" => {
                self.places.insert(descriptor(arguments[0]), done);
                return None;
            }
            "write" => {
                let place = self.places.entry(descriptor(arguments[0])).or_default();
                let (at, bytes) = (*place, written(arguments[1], done));
                *place += done;
                Call::Write { path: annotated(arguments[0])?, at, bytes }
            }
            "pwrite64" => Call::Write {
                path: annotated(arguments[0])?,
                at: arguments[3].parse().unwrap(),
                bytes: written(arguments[1], done),
            },
            "ftruncate" => Call::Truncate { path: annotated(arguments[0])?, length: arguments[1].parse().unwrap() },
            "rename" => Call::Rename { from: path(arguments[0]), to: path(arguments[1]) },
            "unlink" => Call::Remove { path: path(arguments[0]) },
            "mkdir" => Call::Make { path: path(arguments[0]) },
            other => panic!("{other} is not followed: {line}"),
        };
        let about = match &call {
            Call::Open { path, .. }
            | Call::Write { path, .. }
            | Call::Truncate { path, .. }
            | Call::Sync { path, .. } => path,
            Call::Rename { from: path, .. } | Call::Remove { path } | Call::Make { path } => path,
            Call::Mark(_) => return Some(call),
        };
        about.starts_with(&self.directory).then_some(call)
    }
}

/// The number of `5<path>`.
fn descriptor(argument: &str) -> u64 {
    argument.split('<').next().unwrap().parse().unwrap()
}

/// The path of `5<path>`.
fn annotated(argument: &str) -> Option<PathBuf> {
    let inside = argument.split_once('<')?.1.rsplit_once('>')?.0;
    inside.starts_with("\\x").then(|| path(inside))
}

fn path(argument: &str) -> PathBuf {
    Path::new(std::str::from_utf8(&bytes(argument)).unwrap()).to_owned()
}

/// What was written; no shortening by `-s`.
fn written(argument: &str, count: u64) -> Vec<u8> {
    let bytes = bytes(argument);
    assert!(bytes.len() as u64 >= count, "strace has cut {argument:.80}");
    bytes[..count as usize].to_vec()
}

/// `\x2f\x74` with or without quotes.
fn bytes(argument: &str) -> Vec<u8> {
    let digits = argument.trim_matches('"').split("\\x").skip(1);
    digits.map(|pair| u8::from_str_radix(&pair[..2], 16).unwrap()).collect()
}
