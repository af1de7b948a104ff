//! `sealwire init` and `sealwire whoami`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealwire_client::{
    Account, Client, ClientStore, Command, Error, Event, Events, Handle, Invite, Mode, Profile, RelayAddress,
    StoreError, Unlock,
};
use serde_json::{Value, json};

use crate::args::Init;
use crate::home::{self, KEY, Session};
use crate::notice::{Names, notice};
use crate::output::{Exit, Failure, Screen, hex};
use crate::{ask, trouble};

/// What nobody should find out later.
pub(crate) const NO_FORWARD_SECRECY: &str = "direct mode: no forward secrecy; only for peers that know nothing else. Whoever gets a device's keys later can open recorded messages that went to it";
/// The copy of the relay's certificate, inside the home.
const CERTIFICATE: &str = "relay.pem";

pub(crate) async fn init(home: &Path, screen: Screen, options: &Init) -> Result<(), Failure> {
    let handle = Handle::parse(&options.handle).map_err(Error::Handle)?;
    let relay = options.relay.clone().unwrap_or_else(|| format!("wss://{}", handle.host));
    let relay = RelayAddress::parse(&relay).map_err(Error::Address)?;
    let invite = invite(options)?;
    let (client, events) = match ClientStore::wants_passphrase(home) {
        Err(StoreError::Missing(_)) => create(home, options, &handle, &relay, &invite).await?,
        Err(error) => return Err(Error::Store(error).into()),
        Ok(_) => again(home, options, &handle, relay.clone(), invite).await?,
    };
    let registered = registered(&client, events, Duration::from_secs(options.timeout)).await;
    let (profile, mode) = (client.profile().await?, client.mode());
    client.close().await;
    if let Err(failure) = registered {
        if failure.exit == Exit::Offline {
            let words = format!(
                "the keys are made and saved in {}, but the relay at {relay} is out of reach{}; repeat this command when it is there, with another --relay if the address is wrong",
                home.display(),
                trouble::why()
            );
            return Err(Failure::new(Exit::Offline, words));
        }
        return Err(failure);
    }
    show(screen, home, &profile, mode)?;
    if mode == Mode::Direct {
        screen.say(NO_FORWARD_SECRECY);
    }
    Ok(())
}

pub(crate) async fn whoami(home: &Path, screen: Screen) -> Result<(), Failure> {
    let session = Session::open(home, screen).await?;
    let shown = show(screen, home, &session.profile, session.client.mode());
    session.client.close().await;
    shown
}

fn invite(options: &Init) -> Result<String, Failure> {
    let code = match &options.invite_file {
        Some(path) => ask::first_line(path)?,
        None if options.invite_stdin => ask::first_line_of(std::io::stdin().lock())?,
        None => return Ok(String::new()),
    };
    Ok(code.trim().to_owned())
}

async fn create(
    home: &Path,
    options: &Init,
    handle: &Handle,
    relay: &RelayAddress,
    invite: &str,
) -> Result<(Client, Events), Failure> {
    let unlock =
        if options.passphrase { Unlock::Passphrase(ask::new_passphrase()?) } else { Unlock::KeyFile(home.join(KEY)) };
    let mut account =
        Account::new(&handle.to_string(), &relay.to_string())?.invite(invite).relay_behind_proxy(options.behind_proxy);
    if options.direct {
        account = account.direct();
    }
    if let Some(key) = options.relay_key {
        account = account.relay_key(key);
    }
    if let Some(delay) = options.receipt_delay {
        account = account.receipt_delay_ms(delay);
    }
    if let Some(certificate) = keep_certificate(home, options.relay_cert.as_deref())? {
        account = account.relay_certificate(certificate);
    }
    Ok(Client::create(home, unlock, account).await?)
}

/// The account was made before: the relay was out of reach, or refused the handle; or it is reached otherwise now.
async fn again(
    home: &Path,
    options: &Init,
    handle: &Handle,
    relay: RelayAddress,
    invite: String,
) -> Result<(Client, Events), Failure> {
    let unlock = home::unlock(home)?;
    let profile = Client::profile_at(home, &unlock)?;
    let reached_otherwise = options.relay.is_some() || options.relay_cert.is_some() || options.behind_proxy;
    if profile.registered && !(reached_otherwise && profile.handle == *handle) {
        let words = format!(
            "there is an account {} in {} already, and it is left as it is; for another one give another --home",
            profile.handle,
            home.display()
        );
        return Err(Failure::new(Exit::Failed, words));
    }
    if let Some(certificate) = keep_certificate(home, options.relay_cert.as_deref())? {
        let store = ClientStore::open(home, &unlock).map_err(Error::Store)?;
        store.set_setting("relay-certificate", &certificate.to_string_lossy()).map_err(Error::Store)?;
    }
    if options.behind_proxy {
        let store = ClientStore::open(home, &unlock).map_err(Error::Store)?;
        store.set_setting("relay-behind-proxy", "yes").map_err(Error::Store)?;
    }
    let (client, events) = Client::open_at(home, unlock, options.relay.is_some().then_some(relay)).await?;
    if options.direct && client.mode() != Mode::Direct {
        client.close().await;
        let words = format!(
            "the account in {} was made for conversations, which is for good; for one in direct mode give another --home",
            home.display()
        );
        return Err(Failure::new(Exit::Failed, words));
    }
    if !profile.registered {
        client.command(Command::Register { handle: handle.clone(), invite: Invite(invite) }).await?;
    }
    Ok((client, events))
}

/// Copies the certificate, so that it is there wherever the next command is run.
pub(crate) fn keep_certificate(home: &Path, certificate: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let Some(from) = certificate else { return Ok(None) };
    let failure = |words: String| Failure::new(Exit::Failed, format!("{}: {words}", from.display()));
    let pem = fs::read_to_string(from).map_err(|error| failure(error.to_string()))?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(failure(
            "there is no certificate in it; give the PEM file that the relay has as --tls-cert".into(),
        ));
    }
    make_private_folder(home)?;
    let kept = std::path::absolute(home)?.join(CERTIFICATE);
    fs::write(&kept, pem)?;
    Ok(Some(kept))
}

fn make_private_folder(home: &Path) -> std::io::Result<()> {
    let mut folder = fs::DirBuilder::new();
    folder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
    folder.create(home)
}

/// An account that is not registered has no messages, so its events can be read to the end.
pub(crate) async fn registered(client: &Client, mut events: Events, patience: Duration) -> Result<(), Failure> {
    let mut names = Names::of(client.clone());
    let waiting = async {
        while let Some(event) = events.next().await {
            // An account that was registered before is only connected.
            if matches!(event, Event::Registered { .. } | Event::Connected) {
                return Ok(());
            }
            if let Some(notice) = notice(&event, &mut names).await
                && let Some(exit) = notice.ends
            {
                return Err(Failure::new(exit, notice.words));
            }
        }
        Err(Error::Closed.into())
    };
    let late = || Err(Failure::new(Exit::Offline, home::offline()));
    tokio::time::timeout(patience, waiting).await.unwrap_or_else(|_| late())
}

pub(crate) fn show(screen: Screen, home: &Path, profile: &Profile, mode: Mode) -> Result<(), Failure> {
    screen.object("profile", fields(home, profile, mode))?;
    let line = |name: &str, value: &str| screen.headed(&format!("{name:<10}"), value);
    let pending = if profile.registered { "" } else { " (not registered yet: repeat `sealwire init`)" };
    line("handle", &format!("{}{pending}", profile.handle))?;
    line("account", &profile.account.to_string())?;
    line("device", &profile.device.to_string())?;
    line("relay key", &profile.relay_key.map_or("none seen yet".into(), |key| hex(&key)))?;
    line("home", &home.display().to_string())?;
    line("mode", mode_words(mode))?;
    line("presence", if profile.presence { "on: contacts see when this device is connected" } else { "off" })?;
    if profile.queued > 0 {
        line("queued", &format!("{} not accepted by the relay yet", profile.queued))?;
    }
    if profile.retired {
        line("retired", "this account was ended")?;
    }
    Ok(())
}

/// A mode, for people.
pub(crate) fn mode_words(mode: Mode) -> &'static str {
    match mode {
        Mode::Mls => "conversations (MLS, hybrid post-quantum keys)",
        Mode::Direct => "direct (no forward secrecy; only for peers that know nothing else)",
    }
}

fn fields(home: &Path, profile: &Profile, mode: Mode) -> Value {
    json!({
        "handle": profile.handle.to_string(),
        "account": profile.account.to_string(),
        "device": profile.device.to_string(),
        "registered": profile.registered,
        "relay_key": profile.relay_key.map(|key| hex(&key)),
        "home": home.display().to_string(),
        "mode": match mode {
            Mode::Mls => "conversations",
            Mode::Direct => "direct",
        },
        "presence": profile.presence,
        "queued": profile.queued,
        "retired": profile.retired,
    })
}
