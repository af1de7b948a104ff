//! Decisions about the own account: `sealwire presence`, `retire`, `reclaim` and `trust-relay`.

use std::path::Path;
use std::time::Duration;

use sealwire_client::{Command, Error, Event, Refusal};
use serde_json::json;

use crate::args::OnOff;
use crate::home::{self, PATIENCE, Session};
use crate::output::{Exit, Failure, Screen, hex};

pub(crate) async fn presence(home: &Path, screen: Screen, state: OnOff) -> Result<(), Failure> {
    let session = Session::open(home, screen).await?;
    let on = matches!(state, OnOff::On);
    session.client.command(Command::SetPresence(on)).await?;
    screen.object("presence", json!({ "on": on }))?;
    screen.line(if on {
        "contacts see when this device is connected"
    } else {
        "nobody sees when this device is connected"
    })?;
    session.carry_out().await;
    Ok(())
}

pub(crate) async fn retire(home: &Path, screen: Screen) -> Result<(), Failure> {
    let mut session = Session::open(home, screen).await?;
    session.connected(PATIENCE).await?;
    let client = session.client.clone();
    session.wait(PATIENCE, async move { client.command(Command::Retire).await }).await?;
    let profile = session.client.profile().await?;
    screen
        .object("retired", json!({ "handle": profile.handle.to_string(), "account": profile.account.to_string() }))?;
    screen.line(&format!("{} is ended: nothing can be sent by it or to it any more", profile.handle))?;
    session.close().await;
    Ok(())
}

/// Waits until the conflict shows, since there is nothing to decide before.
pub(crate) async fn reclaim(home: &Path, screen: Screen) -> Result<(), Failure> {
    let (client, mut events) = home::open(home).await?;
    let outcome = async {
        let mut reclaimed = false;
        while let Some(event) = events.next().await {
            match event {
                // A message would count as processed with the next event: it waits for `listen`, and so does this.
                Event::Message(_) | Event::Request(_) => return ask(&client).await,
                Event::StoreConflict => {
                    ask(&client).await?;
                    reclaimed = true;
                }
                Event::StoreRestored => return Ok(()),
                Event::Connected if !reclaimed => return Err(Error::Refused(Refusal::NothingToDecide).into()),
                _ => {}
            }
        }
        Err(Error::Closed.into())
    };
    let outcome = tokio::time::timeout(PATIENCE, outcome).await;
    client.close().await;
    outcome.unwrap_or_else(|_| Err(Failure::new(Exit::Offline, home::offline())))?;
    screen.object("reclaimed", json!({}))?;
    screen.line("this device has new keys, and the other copy cannot read what comes from now on")
}

async fn ask(client: &sealwire_client::Client) -> Result<(), Failure> {
    const LOOK: Duration = Duration::from_millis(100);
    loop {
        // Refused until the log-in has come to it.
        match client.command(Command::Reclaim).await {
            Err(Error::Refused(Refusal::NothingToDecide)) if !client.is_connected() => tokio::time::sleep(LOOK).await,
            other => return Ok(other.map(drop)?),
        }
    }
}

pub(crate) async fn trust_relay(home: &Path, screen: Screen, patience: Duration) -> Result<(), Failure> {
    // Not a session: it would report the very problem that this decides.
    let (client, _events) = home::open(home).await?;
    client.command(Command::TrustRelay).await?;
    let connected = tokio::time::timeout(patience, client.connected()).await;
    let profile = client.profile().await?;
    client.close().await;
    let Ok(connected) = connected else {
        let words = format!(
            "the pinned key is forgotten, and the next one that the relay shows is pinned; {}",
            home::offline()
        );
        return Err(Failure::new(Exit::Offline, words));
    };
    connected?;
    let key = profile.relay_key.map(|key| hex(&key));
    screen.object("relay", json!({ "relay_key": key }))?;
    screen.headed("relay key", &key.unwrap_or_default())?;
    screen.say("pinned; compare it with what the operator says, which `sealwire-relay` prints when it starts");
    Ok(())
}
