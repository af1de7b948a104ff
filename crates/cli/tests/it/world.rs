//! A relay, people with homes, and the program. Every wait is bounded; none is a sleep.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use sealwire_relay::{Registration, Server, start_local};
use serde_json::Value;

/// Everything takes milliseconds; a machine under load takes more.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    relay: Option<Server>,
    port: u16,
}

impl World {
    pub(crate) fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut world = World { folder, runtime, relay: None, port: 0 };
        world.start_relay("relay");
        world
    }

    /// The relay, on the port that it had before.
    pub(crate) fn start_relay(&mut self, data: &str) {
        let data = self.folder.path().join(data);
        let started = start_local(&data, self.port, Some("test"), Registration::Open);
        let relay = self.runtime.block_on(started).unwrap();
        self.port = relay.address().port();
        self.relay = Some(relay);
    }

    pub(crate) fn stop_relay(&mut self) {
        let relay = self.relay.take().unwrap();
        self.runtime.block_on(relay.stop());
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Somebody who is registered, for conversations.
    pub(crate) fn person(&self, name: &str) {
        self.init(name, &[]);
    }

    /// Somebody who is registered, for direct mode.
    pub(crate) fn direct(&self, name: &str) {
        self.init(name, &["--direct"]);
    }

    fn init(&self, name: &str, more: &[&str]) {
        let (handle, url) = (format!("{name}@test"), self.url());
        self.run(name, &[&["init", &handle, "--relay", &url, "--receipt-delay", "20"], more].concat()).done();
    }

    pub(crate) fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealwire"));
        command.arg("--home").arg(self.home(name)).args(arguments);
        command.env_remove("SEALWIRE_PASSPHRASE_FILE").env_remove("SEALWIRE_HOME").env_remove("RUST_LOG");
        command
    }

    pub(crate) fn run(&self, name: &str, arguments: &[&str]) -> Output {
        run(self.command(name, arguments), b"")
    }

    pub(crate) fn run_with(&self, name: &str, arguments: &[&str], input: &[u8]) -> Output {
        run(self.command(name, arguments), input)
    }

    /// A program that goes on meanwhile.
    pub(crate) fn start(&self, name: &str, arguments: &[&str]) -> Running {
        Running::start(self.command(name, arguments))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.relay.is_some() {
            self.stop_relay();
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Output {
    pub(crate) fn done(self) -> Output {
        self.exits(0)
    }

    pub(crate) fn exits(self, code: i32) -> Output {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    pub(crate) fn says(self, words: &str) -> Output {
        assert!(self.err.contains(words), "no {words:?} in {self:#?}");
        self
    }

    pub(crate) fn prints(self, words: &str) -> Output {
        assert!(self.out.contains(words), "no {words:?} in {self:#?}");
        self
    }

    /// The objects of that type.
    pub(crate) fn objects(&self, kind: &str) -> Vec<Value> {
        let objects = self.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let objects = objects.inspect(|object| assert_eq!(object["version"], 1));
        objects.filter(|object| object["type"] == kind).collect()
    }
}

pub(crate) fn run(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that refuses early does not read it all.
    let _ = child.stdin.take().unwrap().write_all(input);
    let (out, err) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
    let code = wait(&mut child);
    let all = |lines: Receiver<String>| lines.iter().map(|line| line + "\n").collect();
    Output { code, out: all(out), err: all(err) }
}

pub(crate) struct Running {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
        Running { stdin: child.stdin.take(), child, out, err }
    }

    pub(crate) fn write(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line of data that has these words.
    pub(crate) fn prints(&self, words: &str) -> String {
        until(&self.out, words)
    }

    /// The next sentence that has these words.
    pub(crate) fn says(&self, words: &str) -> String {
        until(&self.err, words)
    }

    /// Sentences with each of these words, in whatever order they come.
    pub(crate) fn says_all(&self, words: &[&str]) {
        let mut missing = words.to_vec();
        while !missing.is_empty() {
            let sentence = until(&self.err, "");
            missing.retain(|words| !sentence.contains(words));
        }
    }

    pub(crate) fn ends(mut self) -> Output {
        self.stdin = None;
        let code = wait(&mut self.child);
        Output { code, out: self.out.iter().collect(), err: self.err.iter().collect() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(reader: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines() {
            if sender.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    lines
}

fn until(lines: &Receiver<String>, words: &str) -> String {
    let mut seen = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line.contains(words) => return line,
            Ok(line) => seen.push(line),
            Err(error) => panic!("no {words:?} ({error}) after {seen:#?}"),
        }
    }
}

/// `std` waits for a child without a bound only, so this looks again and again.
fn wait(child: &mut Child) -> Option<i32> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if std::time::Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
