//! The devices of the account: `sealwire link`, `devices` and `revoke`. `link` is for both sides: where there is an account, it
//! shows a code; where there is none, it asks for one.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use sealwire_client::{
    Client, ClientStore, ConversationView, DeviceId, DeviceView, Error, Event, LinkCode, LinkEnd, RelayAddress,
    StoreError, Unlock,
};
use serde_json::json;

use crate::args::Link;
use crate::home::{self, KEY, PATIENCE, Session};
use crate::init;
use crate::notice::{Names, notice};
use crate::output::{Exit, Failure, Screen, at};
use crate::{ask, talk};

pub(crate) async fn link(home: &Path, screen: Screen, options: &Link) -> Result<(), Failure> {
    match ClientStore::wants_passphrase(home) {
        Err(StoreError::Missing(_)) => as_new_device(home, screen, options).await,
        Err(error) => Err(Error::Store(error).into()),
        Ok(_) => show_code(home, screen, options).await,
    }
}

/// The device that is in the account already.
async fn show_code(home: &Path, screen: Screen, options: &Link) -> Result<(), Failure> {
    let (client, mut events) = home::open(home).await?;
    let done = async {
        tokio::time::timeout(PATIENCE, client.connected())
            .await
            .map_err(|_| Failure::new(Exit::Offline, home::offline()))??;
        let code = client.link_code().await?;
        screen.object("code", json!({ "code": code.to_string() }))?;
        if !screen.json {
            show_picture(&code)?;
        }
        screen.headed("code", &code.to_string())?;
        screen.say("on the new device: `sealwire link`, and this code; it is good for a minute, once");
        let mut names = Names::of(client.clone());
        while let Some(event) = events.next().await {
            match event {
                Event::LinkAsks { digits } => {
                    screen.object("digits", json!({ "digits": digits }))?;
                    let is_the_same = ask::yes(&format!("Does the new device show {digits}?"))?;
                    client.confirm_link(is_the_same).await?;
                }
                Event::LinkEnded { reason } => return Err(not_linked(reason)),
                Event::DeviceAdded { device } => {
                    screen.object("linked", json!({ "device": device.to_string() }))?;
                    screen.line(&format!("linked: {} is a device of this account now", short(device)))?;
                    return Ok(());
                }
                // They count as processed with the next event, so they are shown.
                Event::Message(message) => talk::show(screen, &message, false, &mut names).await?,
                Event::Request(request) => talk::show(screen, &request.message, true, &mut names).await?,
                other => {
                    if let Some(notice) = notice(&other, &mut names).await
                        && let Some(exit) = notice.ends
                    {
                        return Err(Failure::new(exit, notice.words));
                    }
                }
            }
        }
        Err(Error::Closed.into())
    };
    let patience = Duration::from_secs(options.timeout);
    let late = || Err(not_linked(LinkEnd::TimedOut));
    let done = tokio::time::timeout(patience, done).await.unwrap_or_else(|_| late());
    if done.is_ok() {
        screen.say("it is added to your conversations");
        added_everywhere(&client).await;
        home::settle(&client, Duration::from_secs(2)).await;
    }
    client.close().await;
    done
}

/// The new device is in every conversation. Where it takes longer, whichever own device is connected next does the rest.
async fn added_everywhere(client: &Client) {
    const LOOK: Duration = Duration::from_millis(100);
    let is_missing = |views: Vec<ConversationView>| views.iter().any(|view| view.active && view.missing_devices > 0);
    let added = async {
        while client.conversations().await.is_ok_and(is_missing) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _late = tokio::time::timeout(PATIENCE, added).await;
}

/// The device that is to be one of the account.
async fn as_new_device(home: &Path, screen: Screen, options: &Link) -> Result<(), Failure> {
    screen.say("there is no account here yet: this will be a new device of an account that you have elsewhere");
    screen.say("on a device of that account: `sealwire link`. It shows a code");
    let code: LinkCode = typed("Code: ")?.parse().map_err(|error| Failure::new(Exit::Usage, format!("{error}")))?;
    let address = options.relay.clone().unwrap_or_else(|| format!("wss://{}", code.relay()));
    let certificate = init::keep_certificate(home, options.relay_cert.as_deref())?;
    let relay = RelayAddress::parse(&address).map_err(Error::Address)?;
    let relay = relay.with_root(certificate).behind_proxy(options.behind_proxy);
    let unlock =
        if options.passphrase { Unlock::Passphrase(ask::new_passphrase()?) } else { Unlock::KeyFile(home.join(KEY)) };
    let show = |digits: &str| {
        // Nothing is lost where they cannot be shown: nobody confirms them then.
        let _shown = screen.object("digits", json!({ "digits": digits }));
        let _shown = screen.headed("digits", digits);
        screen.say("compare them with those on the other device, and say there that they are the same");
    };
    let (client, events) = Client::link(home, unlock, &code, relay, show).await?;
    let connected = init::registered(&client, events, Duration::from_secs(options.timeout)).await;
    let (profile, mode) = (client.profile().await?, client.mode());
    client.close().await;
    connected?;
    init::show(screen, home, &profile, mode)
}

fn not_linked(reason: LinkEnd) -> Failure {
    Failure::new(Exit::Refused, format!("not linked: {reason}"))
}

/// For a camera. Only where there is a terminal to show it.
fn show_picture(code: &LinkCode) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    if stdout.is_terminal()
        && let Ok(picture) = QrCode::new(code.to_string())
    {
        writeln!(stdout, "{}", picture.render::<Dense1x2>().quiet_zone(true).build())?;
    }
    Ok(())
}

/// A line that a person types, or that a script gives.
fn typed(prompt: &str) -> Result<String, Failure> {
    let mut stderr = std::io::stderr();
    write!(stderr, "{prompt}")?;
    stderr.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

pub(crate) async fn devices(home: &Path, screen: Screen) -> Result<(), Failure> {
    let session = Session::open(home, screen).await?;
    let devices = session.client.devices().await?;
    session.client.close().await;
    for DeviceView { device, since, is_this } in devices {
        let fields = json!({ "device": device.to_string(), "since": since.0, "this": is_this });
        screen.object("device", fields)?;
        screen.headed(&short(device), &format!("since {}{}", at(since), if is_this { ", this one" } else { "" }))?;
    }
    Ok(())
}

pub(crate) async fn revoke(home: &Path, screen: Screen, which: &str, yes: bool) -> Result<(), Failure> {
    let mut session = Session::open(home, screen).await?;
    let devices = session.client.devices().await?;
    let mut matching = devices.iter().filter(|view| view.device.to_string().starts_with(&which.to_lowercase()));
    let (Some(view), None) = (matching.next().copied(), matching.next()) else {
        session.close().await;
        let words = format!("{which} is the beginning of no device's id, or of several; see `sealwire devices`");
        return Err(Failure::new(Exit::Refused, words));
    };
    let device = view.device;
    if view.is_this && !yes {
        session.close().await;
        let words = "that is this device: it would be out of its account for good. If that is what you want, repeat it with --yes";
        return Err(Failure::new(Exit::Refused, words));
    }
    session.connected(PATIENCE).await?;
    let client = session.client.clone();
    session.wait(PATIENCE, async move { client.revoke(device).await }).await?;
    screen.object("revoked", json!({ "device": device.to_string() }))?;
    screen
        .line(&format!("revoked: {} is out of this account; it is taken out of every conversation", short(device)))?;
    home::settle(&session.client, Duration::from_secs(2)).await;
    session.close().await;
    Ok(())
}

/// How a device is called: it has no name, so the beginning of its id has to do.
fn short(device: DeviceId) -> String {
    device.to_string().chars().take(8).collect()
}
