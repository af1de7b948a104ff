//! `sealwire-relay`: the program that operators run.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand, ValueEnum};
use sealwire_relay::{Config, Policy, Registration, Server, StartError, TlsFiles, open_store};
use sealwire_store::{Outcome, Store, StoreError};
use sealwire_wire::limits::APPENDS_PER_MINUTE;
use sealwire_wire::{InstanceId, Time};
use tokio::signal::unix::{SignalKind, signal};

/// An end-to-end encrypted messaging relay. It cannot read what it relays.
///
/// Without arguments it listens on this machine only, takes everybody, and keeps its data in the user's data directory.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where to listen.
    #[arg(long, env = "SEALWIRE_LISTEN", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Where to keep accounts and sealed messages [default: sealwire-relay in the user's data directory].
    #[arg(long, env = "SEALWIRE_DATA", global = true)]
    data: Option<PathBuf>,
    /// The host part of this relay's handles [default: the address].
    #[arg(long, env = "SEALWIRE_NAME")]
    name: Option<String>,
    /// Who may make an account.
    #[arg(long, env = "SEALWIRE_AUTH", default_value = "open")]
    auth: Auth,
    /// A certificate chain as PEM, to end TLS here.
    #[arg(long, env = "SEALWIRE_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key as PEM.
    #[arg(long, env = "SEALWIRE_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Go without TLS on an address that others reach: only behind a proxy that ends TLS.
    #[arg(long)]
    insecure_plain: bool,
    /// Entries that one connection may append in a minute, at most a thousand of them at once; 0: no limit.
    #[arg(long, env = "SEALWIRE_APPENDS_PER_MINUTE", value_name = "N", default_value_t = APPENDS_PER_MINUTE)]
    appends_per_minute: u32,
}

#[derive(Subcommand)]
enum Command {
    /// Makes an invite code for `--auth invite`. The relay has to be stopped meanwhile.
    Invite {
        /// How many accounts it lets in.
        #[arg(long, default_value_t = 1)]
        uses: u32,
    },
    /// Says that the data directory was restored from a backup. The relay has to be stopped meanwhile.
    Restored,
}

#[derive(Clone, Copy, ValueEnum)]
enum Auth {
    /// Everybody.
    Open,
    /// Who has an invite code.
    Invite,
    /// Nobody.
    Closed,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("SEALWIRE_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("sealwire-relay: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), String> {
    let data = arguments.data.clone().or_else(data_directory).ok_or("no home directory: give --data")?;
    let store = open_store(&data).map_err(|error| match error {
        StartError::Store(StoreError::InUse) => {
            format!("a relay runs on {}: stop it first, it is the only one that may use its data", data.display())
        }
        error => format!("{}: {error}", data.display()),
    })?;
    match arguments.command {
        Some(Command::Invite { uses }) => invite(&store, uses),
        Some(Command::Restored) => {
            let instance = InstanceId(random()?);
            store.renew_instance(instance).map_err(|error| error.to_string())?;
            println!("clients will repeat what the backup does not hold");
            Ok(())
        }
        None => {
            let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
            runtime.block_on(relay(arguments, Arc::new(store)))
        }
    }
}

async fn relay(arguments: Arguments, store: Arc<dyn Store>) -> Result<(), String> {
    let has_tls = arguments.tls_cert.is_some();
    let registration = match arguments.auth {
        Auth::Open => Registration::Open,
        Auth::Invite => Registration::Invite,
        Auth::Closed => Registration::Closed,
    };
    let policy = Policy { appends_per_minute: arguments.appends_per_minute, ..registration.into() };
    let config = Config {
        name: arguments.name,
        tls: arguments.tls_cert.zip(arguments.tls_key).map(|(certificates, key)| TlsFiles { certificates, key }),
        insecure_plain: arguments.insecure_plain,
        ..Config::new(arguments.listen, policy)
    };
    // Before the first line of output: whoever waits for it may send a signal right away.
    let signals = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut interrupt, mut terminate) = (signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
    let server = Server::start(&config, store).await.map_err(|error| error.to_string())?;
    greet(&server, has_tls);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = server.failed() => {
            server.abort().await;
            return Err("the thread that writes to the store has panicked: start the relay again, what was accepted is stored".to_owned());
        }
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}

/// The address is what programs wait for, so it comes first; all of it at once, because some read one line and leave.
fn greet(server: &Server, has_tls: bool) {
    let key: String = server.public_key().iter().map(|byte| format!("{byte:02x}")).collect();
    let (address, name) = (server.address(), server.name());
    let reached = reached_at(name, address, has_tls);
    let greeting = format!(
        "listening on {address}\nname         {name}\nrelay key    {key}\n\
         clients type sealwire init NAME@{name} --relay {reached}\n"
    );
    if let Err(error) = std::io::stdout().write_all(greeting.as_bytes()) {
        tracing::warn!(%error, %address, "nobody reads the standard output");
    }
}

/// How clients reach the relay, as `sealwire init --relay` takes it. The name may have a port or not, and be another one
/// than the relay listens on.
fn reached_at(name: &str, address: SocketAddr, has_tls: bool) -> String {
    if has_tls {
        // By name, because the certificate has it.
        format!("wss://{}:{}", host(name), address.port())
    } else if address.ip().is_loopback() {
        format!("ws://{address}")
    } else {
        // Clients go without TLS on their own machine only: whoever is in front ends it.
        format!("wss://{name} --behind-proxy")
    }
}

fn host(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')) => host,
        _ => name,
    }
}

fn invite(store: &dyn Store, uses: u32) -> Result<(), String> {
    // 32 letters, so that five bits choose one evenly; without those that look alike.
    const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let letters = random::<16>()?.map(|byte| char::from(LETTERS[usize::from(byte & 31)]));
    let code = letters.chunks(4).map(|four| four.iter().collect()).collect::<Vec<String>>().join("-");
    match store.commit(Time(0), &[sealwire_relay_core::invite(&code, uses)]).map_err(|error| error.to_string())?.first()
    {
        Some(Outcome::Swapped) => println!("{code}"),
        _ => return Err("the code could not be stored: try again".to_owned()),
    }
    Ok(())
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// `$XDG_DATA_HOME/sealwire-relay`, by default below `~/.local/share`.
fn data_directory() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")))?;
    Some(base.join("sealwire-relay"))
}
