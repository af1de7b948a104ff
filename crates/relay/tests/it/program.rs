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

/// What it prints for clients works, whatever the name says: by the address where there is no TLS, by the name and the
/// listening port where there is.
#[tokio::test(flavor = "multi_thread")]
async fn what_it_tells_clients_to_type_works() {
    let home = tempdir().unwrap();
    let (certificate, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["here".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    for (number, name) in ["here", "here:443", "[::1]:443"].into_iter().enumerate() {
        let greet = |more: &[&std::ffi::OsStr]| {
            let data = home.path().join(format!("data{number}"));
            let mut command = program();
            command.args(["--listen", "127.0.0.1:0", "--name", name, "--data"]).arg(data).args(more);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
            let lines: Vec<String> = lines.take(4).collect();
            let address: std::net::SocketAddr = lines[0].rsplit(' ').next().unwrap().parse().unwrap();
            let (before, relay) = lines[3].split_once(" --relay ").unwrap();
            assert_eq!(before, format!("clients type sealwire init NAME@{name}"));
            (child, address, relay.to_owned())
        };
        let (mut child, address, relay) = greet(&[]);
        assert_eq!(relay, format!("ws://{address}"));
        let account = sealwire_client::Account::new(&format!("alice@{name}"), &relay).unwrap();
        let unlock = sealwire_client::Unlock::KeyFile(home.path().join(format!("{number}.key")));
        let folder = home.path().join(format!("alice{number}"));
        let (client, _events) = sealwire_client::Client::create(&folder, unlock, account).await.unwrap();
        tokio::time::timeout(crate::people::PATIENCE, client.connected()).await.unwrap().unwrap();
        client.close().await;
        child.kill().unwrap();
        child.wait().unwrap();
        let files = ["--tls-cert".as_ref(), certificate.as_os_str(), "--tls-key".as_ref(), key.as_os_str()];
        let (mut child, address, relay) = greet(&files);
        let host = ["here", "here", "[::1]"][number];
        assert_eq!(relay, format!("wss://{host}:{}", address.port()));
        assert!(sealwire_client::Account::new(&format!("bob@{name}"), &relay).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // On an address that others reach, somebody else ends TLS.
    let mut command = program();
    command.args(["--listen", "0.0.0.0:0", "--name", "here", "--insecure-plain", "--data"]).arg(home.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let line = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).nth(3).unwrap();
    assert_eq!(line, "clients type sealwire init NAME@here --relay wss://here --behind-proxy");
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
