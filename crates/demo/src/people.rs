//! The people of the demo: each a client of its own, in a folder of its own, as on a machine of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use sealwire_client::{Account, Client, Event, Events, Incoming, MessageState, Part, QuarantineReason, Sent, Unlock};

/// How long anything in the demo may take. It takes milliseconds; a machine under load takes more.
const PATIENCE: Duration = Duration::from_secs(20);
/// Receipts are gathered for 5 seconds normally; nobody wants to watch that.
const RECEIPT_DELAY_MS: u64 = 50;

/// What somebody's screen shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    pub(crate) from: String,
    pub(crate) said: String,
}

/// Somebody with a client.
pub(crate) struct Person {
    pub(crate) name: &'static str,
    folder: PathBuf,
    client: Option<Client>,
    events: Option<Events>,
    pub(crate) screen: Vec<Line>,
    pub(crate) rejected: Vec<QuarantineReason>,
}

/// Where the relay of the demo is, and what it is called.
pub(crate) const HOST: &str = "demo";

impl Person {
    /// Makes keys and an account, and registers it.
    pub(crate) async fn begin(name: &'static str, home: &Path, relay: &str) -> anyhow::Result<Person> {
        let folder = home.join(name);
        let account = Account::new(&handle(name), relay)?.receipt_delay_ms(RECEIPT_DELAY_MS);
        let (client, events) = Client::create(&folder, key(&folder), account).await?;
        let person = Person {
            name,
            folder,
            client: Some(client),
            events: Some(events),
            screen: Vec::new(),
            rejected: Vec::new(),
        };
        person.connected().await?;
        Ok(person)
    }

    pub(crate) fn client(&self) -> anyhow::Result<&Client> {
        self.client.as_ref().with_context(|| format!("{} is away", self.name))
    }

    pub(crate) async fn connected(&self) -> anyhow::Result<()> {
        let connected = tokio::time::timeout(PATIENCE, self.client()?.connected()).await;
        Ok(connected.with_context(|| format!("{} does not get to the relay", self.name))??)
    }

    /// Closes the client, as if the machine was switched off.
    pub(crate) async fn leave(&mut self) {
        if let Some(client) = self.client.take() {
            client.close().await;
        }
        self.events = None;
    }

    pub(crate) async fn come_back(&mut self) -> anyhow::Result<()> {
        let (client, events) = Client::open(&self.folder, key(&self.folder)).await?;
        self.client = Some(client);
        self.events = Some(events);
        self.connected().await
    }

    pub(crate) async fn write(&self, to: &str, text: &str) -> anyhow::Result<Sent> {
        Ok(self.client()?.send_text(&handle(to), text).await?)
    }

    pub(crate) async fn write_bytes(&self, to: &str, bytes: &[u8]) -> anyhow::Result<Sent> {
        Ok(self.client()?.send_bytes(&handle(to), bytes).await?)
    }

    /// Reads until so many lines are on the screen and so many envelopes were rejected; requests are accepted.
    pub(crate) async fn read(&mut self, lines: usize, rejected: usize) -> anyhow::Result<()> {
        let reading = async {
            while self.screen.len() < lines || self.rejected.len() < rejected {
                let event = self.events.as_mut().context("away")?.next().await.context("the client ended")?;
                self.take(event).await?;
            }
            anyhow::Ok(())
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        read.with_context(|| format!("waited for {lines} lines and {rejected} rejections"))?
    }

    async fn take(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Message(message) => self.show(&message),
            Event::Request(request) => {
                self.show(&request.message);
                self.client()?.accept(request.message.from).await?;
            }
            Event::Quarantined { reason, .. } => self.rejected.push(reason),
            Event::RegistrationRefused { code, .. } => bail!("{} is not registered: {code:?}", self.name),
            _ => {}
        }
        Ok(())
    }

    fn show(&mut self, message: &Incoming) {
        let from = message.handle.as_ref().map_or("?".into(), |handle| handle.name.to_string());
        let said = match &message.content.part {
            Part::Text(text) => text.clone(),
            Part::Bytes { bytes, .. } => format!("[{} bytes, SHA-256 {}…]", bytes.len(), digest(bytes)),
            _ => "[something that this version cannot show]".to_owned(),
        };
        self.screen.push(Line { from, said });
    }
}

/// Waits until each of these messages is where it should be.
pub(crate) async fn reached(sent: &[Sent], state: MessageState) -> anyhow::Result<()> {
    for message in sent {
        tokio::time::timeout(PATIENCE, message.reached(state)).await.with_context(|| format!("not {state:?}"))??;
    }
    Ok(())
}

pub(crate) fn handle(name: &str) -> String {
    format!("{name}@{HOST}")
}

/// The first bytes of a SHA-256, in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    sealwire_keys::blob_hash(bytes).to_string()[..8].to_owned()
}

fn key(folder: &Path) -> Unlock {
    Unlock::KeyFile(folder.join("key"))
}
