//! The relay's program in a process of its own, and people with the real SDK who write through it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sealwire_client::{Account, Client, Event, Events, Mode, Unlock};

/// Everything takes milliseconds; a machine under load takes more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A relay in a process of its own. It ends when this is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Program {
    /// Starts it on a port, or on any, and waits until it listens. What it logs goes into a file.
    pub(crate) fn start(data: &Path, port: u16, log: &Path) -> Program {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sealwire-relay"))
            .args(["--name", "here", "--listen", &format!("127.0.0.1:{port}")])
            // These people write faster than people do.
            .args(["--appends-per-minute", "0", "--data"])
            .arg(data)
            .env("RUST_LOG", "trace")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().and_then(|a| a.parse().ok()).expect("it says where it listens");
        Program { child, address }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    /// SIGKILL: nothing is flushed, nothing said.
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A new account for conversations or for direct mode, connected.
pub(crate) async fn join(home: &Path, relay: SocketAddr, name: &str, mode: Mode) -> (Client, Events) {
    let account = Account::new(&format!("{name}@here"), &format!("ws://{relay}")).unwrap().receipt_delay_ms(200);
    let account = if mode == Mode::Direct { account.direct() } else { account };
    let key = Unlock::KeyFile(home.join(format!("{name}.key")));
    let joined = Client::create(&home.join(name), key, account).await.unwrap();
    joined.0.connected().await.unwrap();
    joined
}

/// The next event that is wanted.
pub(crate) async fn next(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    let look = async {
        loop {
            let event = events.next().await.expect("the client is open");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("in time")
}

/// Both have accepted each other.
pub(crate) async fn befriend(a: &Client, a_events: &mut Events, b: &Client, b_events: &mut Events, b_name: &str) {
    a.send_text(&format!("{b_name}@here"), "hello").await.unwrap();
    let Event::Request(request) = next(b_events, |event| matches!(event, Event::Request(_))).await else {
        unreachable!()
    };
    b.accept(request.message.from).await.unwrap();
    b.send(sealwire_client::To::Account(request.message.from), sealwire_client::Part::Text("hello to you".into()))
        .await
        .unwrap();
    next(a_events, |event| matches!(event, Event::Message(_))).await;
}

/// Every file below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
