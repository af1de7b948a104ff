//! The people of the demo: each a client of its own, in a folder of its own, as on a machine of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use sealwire_client::{
    Account, Client, ConversationId, Error, Event, Events, Incoming, LogInProblem, MessageState, Mode, Part,
    QuarantineReason, RelayAddress, Sent, StoreError, Unlock,
};

/// How long anything in the demo may take. It takes milliseconds; a machine under load takes more.
const PATIENCE: Duration = Duration::from_secs(20);
/// Receipts are gathered for 5 seconds normally; nobody wants to watch that.
const RECEIPT_DELAY_MS: u64 = 50;
/// As many people begin a conversation with somebody here, or add them to a group.
const KEY_PACKAGES: u32 = 8;
/// How often a program that crashed is looked after.
const LOOK: Duration = Duration::from_millis(5);

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
    /// How often somebody was seen to have read another order than came here.
    pub(crate) contradictions: usize,
    /// Groups that this one was taken out of.
    pub(crate) removed_from: Vec<ConversationId>,
    /// Six digits that this device shows while another is linked.
    pub(crate) digits: Option<String>,
    /// Whether it was taken from its account.
    pub(crate) revoked: bool,
    /// The number of the last message on the screen.
    processed: u64,
}

/// Where the relay of the demo is, and what it is called.
pub(crate) const HOST: &str = "demo";

impl Person {
    /// Makes keys and an account, and registers it.
    pub(crate) async fn begin(name: &'static str, home: &Path, relay: &str, mode: Mode) -> anyhow::Result<Person> {
        let folder = home.join(name);
        let account = Account::new(&handle(name), relay)?.receipt_delay_ms(RECEIPT_DELAY_MS).key_packages(KEY_PACKAGES);
        let account = if mode == Mode::Direct { account.direct() } else { account };
        let (client, events) = Client::create(&folder, key(&folder), account).await?;
        let person = Person::with(name, folder, client, events);
        person.connected().await?;
        Ok(person)
    }

    /// Links a new device to somebody's account: it reads the code, both show the same digits, and the person says so. Done
    /// when it is in every conversation.
    pub(crate) async fn link(
        name: &'static str,
        home: &Path,
        relay: &str,
        sponsor: &mut Person,
    ) -> anyhow::Result<(Person, String)> {
        let (folder, code) = (home.join(name), sponsor.client()?.link_code().await?);
        let (show, shown) = tokio::sync::oneshot::channel();
        let linking = async {
            let relay = RelayAddress::parse(relay).map_err(Error::Address)?;
            let show = |digits: &str| drop(show.send(digits.to_owned()));
            Ok(Client::link(&folder, key(&folder), &code, relay, show).await?)
        };
        let confirming = async {
            sponsor.until(|sponsor| sponsor.digits.is_some()).await?;
            let (here, there) = (sponsor.digits.take(), shown.await?);
            sponsor.client()?.confirm_link(here.as_ref() == Some(&there)).await?;
            anyhow::Ok(there)
        };
        let ((client, events), digits) = tokio::try_join!(linking, confirming)?;
        let person = Person::with(name, folder, client, events);
        person.connected().await?;
        let began = tokio::time::Instant::now();
        while sponsor.client()?.conversations().await?.iter().any(|view| view.missing_devices > 0) {
            if began.elapsed() > PATIENCE {
                bail!("the new device is not in every conversation");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok((person, digits))
    }

    fn with(name: &'static str, folder: PathBuf, client: Client, events: Events) -> Person {
        Person {
            name,
            folder,
            client: Some(client),
            events: Some(events),
            screen: Vec::new(),
            rejected: Vec::new(),
            contradictions: 0,
            removed_from: Vec::new(),
            digits: None,
            revoked: false,
            processed: 0,
        }
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

    /// Ends between two steps: nothing that waits is waited for, nothing is said to the relay.
    pub(crate) fn crash(&mut self) {
        self.client = None;
        self.events = None;
    }

    pub(crate) async fn come_back(&mut self) -> anyhow::Result<()> {
        let began = tokio::time::Instant::now();
        let (client, events) = loop {
            match Client::open(&self.folder, key(&self.folder)).await {
                // Of a program that crashed, the files are free once it is gone.
                Err(Error::Store(StoreError::InUse(_))) if began.elapsed() < PATIENCE => tokio::time::sleep(LOOK).await,
                opened => break opened?,
            }
        };
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

    pub(crate) async fn write_to(&self, group: ConversationId, text: &str) -> anyhow::Result<Sent> {
        Ok(self.client()?.send_text_to_group(group, text).await?)
    }

    /// Reads until so many lines are on the screen and so many envelopes were rejected; requests are accepted.
    pub(crate) async fn read(&mut self, lines: usize, rejected: usize) -> anyhow::Result<()> {
        let is_there = move |person: &Person| person.screen.len() >= lines && person.rejected.len() >= rejected;
        self.until(is_there).await.with_context(|| format!("waited for {lines} lines and {rejected} rejections"))
    }

    /// Reads until it is so.
    pub(crate) async fn until(&mut self, is_so: impl Fn(&Person) -> bool) -> anyhow::Result<()> {
        let reading = async {
            while !is_so(self) {
                let event = self.events.as_mut().context("away")?.next().await.context("the client ended")?;
                self.take(event).await?;
            }
            anyhow::Ok(())
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        read.context("it took too long")?
    }

    async fn take(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Message(message) => self.show(&message),
            Event::OrderContradicted { .. } => self.contradictions += 1,
            Event::Removed { conversation, .. } => self.removed_from.push(conversation),
            Event::Request(request) => {
                self.show(&request.message);
                self.client()?.accept(request.message.from).await?;
            }
            Event::LinkAsks { digits } => self.digits = Some(digits),
            Event::LogIn(LogInProblem::Revoked) => self.revoked = true,
            Event::Quarantined { reason, .. } => self.rejected.push(reason),
            Event::RegistrationRefused { code, .. } => bail!("{} is not registered: {code:?}", self.name),
            _ => {}
        }
        Ok(())
    }

    fn show(&mut self, message: &Incoming) {
        // What was shown and not marked as processed comes again after a crash, under the same number.
        if message.number <= self.processed {
            return;
        }
        self.processed = message.number;
        // Of somebody who came with a conversation the relay says the handle a moment later.
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
