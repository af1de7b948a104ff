//! The program as operators run it. Needs no port of its own: it is given 0 and says which.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use sealwire_wire::frame::{FromRelay, ToRelay};
use tempfile::tempdir;

use crate::client::Client;
use crate::device::Device;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sealwire-relay"))
}

/// Starts a relay; waits until it says where it listens.
fn start(command: &mut Command) -> (Child, std::net::SocketAddr) {
    let mut child =
        command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
    (child, address)
}

fn text(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// An invite is made while the relay is stopped, lets one account in, and a signal ends the relay with status 0.
#[tokio::test(flavor = "multi_thread")]
async fn invites_and_signals() {
    let data = tempdir().unwrap();
    let invite = || program().args(["invite", "--data"]).arg(data.path()).output().unwrap();
    let (code, _) = text(&invite());
    let code = code.trim().to_owned();
    assert_eq!(code.len(), 19, "{code}");

    let (mut child, address) =
        start(program().args(["--auth", "invite", "--name", "relay.example", "--data"]).arg(data.path()));
    let running = invite();
    assert!(!running.status.success());
    assert!(text(&running).1.contains("stop it first"), "{}", text(&running).1);

    let mut device = Device::new(1);
    let (mut client, _) = Client::log_in(address, &mut device).await;
    let mut register = device.register("alice");
    assert!(matches!(client.ask(&register).await, FromRelay::Failed(_)));
    if let ToRelay::Register { invite, .. } = &mut register {
        *invite = code;
    }
    assert_eq!(client.ask(&register).await, FromRelay::Done { request: 1 });

    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let (frames, closed) = client.until_closed().await;
    assert_eq!((frames.len(), closed), (1, Some(1012)));
    assert!(child.wait().unwrap().success());
}

/// Without arguments it needs nothing: data goes to the user's data directory.
#[test]
fn no_configuration_is_needed() {
    let home = tempdir().unwrap();
    let (mut child, address) = start(program().env("XDG_DATA_HOME", home.path()));
    assert!(address.ip().is_loopback());
    assert!(home.path().join("sealwire-relay").is_dir());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn plain_on_a_public_address_is_refused_in_a_sentence() {
    let data = tempdir().unwrap();
    let output = program().args(["--listen", "0.0.0.0:0", "--data"]).arg(data.path()).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).1.contains("--tls-cert"), "{}", text(&output).1);
}
