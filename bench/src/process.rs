//! Servers as processes of their own: what is measured is not in the process that measures.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::{TcpListener, TcpStream};

/// A server in a process of its own.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Our relay, for handles `name@relay`, wherever the machine has room for it.
    pub(crate) async fn relay(folder: &Path) -> anyhow::Result<Process> {
        Process::start("sealwire", folder, None).await
    }

    /// A server of that kind, on one core alone where one is given; that takes `taskset`.
    pub(crate) async fn start(server: &str, folder: &Path, core: Option<u32>) -> anyhow::Result<Process> {
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let own = std::env::current_exe()?;
        let beside = |name: &str| own.parent().map(|folder| folder.join(name)).unwrap_or_default();
        let (program, arguments): (PathBuf, Vec<String>) = match server {
            "sealwire" => {
                let data = folder.join("relay").display().to_string();
                // The rate is for people; here the relay is measured.
                let listen = address.to_string();
                let arguments = ["--listen", &listen, "--data", &data, "--name", "relay", "--appends-per-minute", "0"];
                (beside("sealwire-relay"), arguments.map(str::to_owned).to_vec())
            }
            "mosquitto" => {
                let settings = folder.join("mosquitto.conf");
                let text = format!(
                    "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\nautosave_interval 1\nmax_inflight_messages 64\nlog_type error\n",
                    folder.display()
                );
                std::fs::write(&settings, text)?;
                ("mosquitto".into(), vec!["-c".into(), settings.display().to_string()])
            }
            _ => (own.clone(), vec!["bare-relay".into()]),
        };
        let mut command = match core {
            // `taskset` replaces itself by the server, so that the process is the server's.
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string()]).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        command.args(arguments).env("SEALWIRE_BARE_PORT", port.to_string());
        command.env("SEALWIRE_LOG", "warn").stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| program.display().to_string())?;
        let process = Process { child, address };
        for _ in 0..500 {
            if TcpStream::connect(address).await.is_ok() {
                return Ok(process);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("{} does not listen", program.display())
    }

    pub(crate) fn id(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU seconds that a process has used (proc(5): utime and stime, in ticks of 10 ms).
pub(crate) fn cpu_seconds_of(process: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let behind_name = stat.rsplit_once(") ").context("no process")?.1;
    let ticks = behind_name.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / 100.0)
}
