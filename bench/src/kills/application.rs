//! An application that may be killed at any instant, and goes on where it was when it is started again. It does what the
//! SDK asks of one that wants nothing lost and nothing twice:
//!
//! - What it shows, it writes down with the number of the message, before it asks for the next event (`ledger`).
//! - What it has written, it asks the history: a message that was taken is in there, by the same transaction. So one that
//!   was killed before it heard "saved" knows whether to say it again.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use sealwire_client::{Client, Event, Incoming, MessageState, Part};
use tokio::sync::oneshot;

use super::ledger::{Ledger, Told};
use super::plan::{Plan, VARIABLE, numbered};
use super::signal;

/// Own messages that the relay has not taken yet: with more of them it would soon be done with writing, and could be killed
/// at nothing but reading.
const WINDOW: usize = 32;
/// How long it waits until it looks again how many these are.
const LOOK: Duration = Duration::from_millis(5);
/// Messages of the history that are asked for at once.
const PAGE: u32 = 64;

/// Runs until it is killed, or its standard input ends.
pub(super) fn run() -> anyhow::Result<()> {
    let plan = Plan::from_text(&std::env::var(VARIABLE).context("started by the bench `kills`")?)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(goes_on(plan))
}

struct Application {
    plan: Plan,
    client: Client,
    ledger: Ledger,
    is_connected: bool,
    /// The number of the newest own message.
    written: u64,
    /// Own messages that the relay may not have taken yet.
    unsettled: usize,
    is_done: bool,
}

async fn goes_on(plan: Plan) -> anyhow::Result<()> {
    say(&[signal::CONNECTING])?;
    let ledger = Ledger::open(&plan.ledger())?;
    let (client, mut events) = Client::open(&plan.store(), plan.unlock()).await?;
    let written = newest_written(&client, &plan).await?;
    let unsettled = client.profile().await?.queued;
    let mut application = Application { plan, client, ledger, is_connected: false, written, unsettled, is_done: false };
    let mut end = standard_input_ends();
    loop {
        application.tell_if_done().await?;
        let may_write = application.written < application.plan.messages && application.unsettled < WINDOW;
        tokio::select! {
            // As in a chat: what came is shown before what is written is sent.
            biased;
            event = events.next() => match event {
                Some(event) => application.event(event)?,
                None => bail!("the client has closed by itself"),
            },
            _ = &mut end => break,
            () = std::future::ready(()), if may_write => application.write().await?,
            () = tokio::time::sleep(LOOK), if !may_write => application.look().await?,
        }
    }
    application.client.close().await;
    Ok(())
}

/// The number of the newest own message that the client has taken, whether this application had heard of it or not.
async fn newest_written(client: &Client, plan: &Plan) -> anyhow::Result<u64> {
    let (talk, mut before) = (plan.talk()?, u64::MAX);
    loop {
        let page = client.history(talk, before, PAGE).await?;
        let Some(first) = page.first() else { return Ok(0) };
        before = first.number;
        let own =
            page.iter().rev().filter(|message| !message.incoming).find_map(|message| match &message.content.part {
                Part::Text(text) => numbered(text).map(|(_, number)| number),
                _ => None,
            });
        if let Some(number) = own {
            return Ok(number);
        }
    }
}

/// On a thread: reading it cannot be interrupted, and ends with the process.
fn standard_input_ends() -> oneshot::Receiver<()> {
    let (ended_in, ended) = oneshot::channel();
    std::thread::spawn(move || {
        // Nothing is ever written to it, and an error is an end.
        let _ = std::io::stdin().read(&mut [0]);
        let _ = ended_in.send(());
    });
    ended
}

impl Application {
    async fn write(&mut self) -> anyhow::Result<()> {
        say(&[signal::WRITING])?;
        let text = format!("{} {}", self.plan.name, self.written + 1);
        self.client.send(self.plan.to()?, Part::Text(text)).await?;
        self.written += 1;
        self.unsettled += 1;
        say(&[self.rests()])
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        self.unsettled = self.client.profile().await?.queued;
        Ok(())
    }

    fn event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Message(message) => self.message(&message),
            Event::Request(request) => self.message(&request.message),
            Event::Connected | Event::Disconnected { .. } => {
                self.is_connected = event == Event::Connected;
                say(&[self.rests()])
            }
            // What happens in a conversation that goes well.
            Event::State { state, .. } if state != MessageState::Unsent => Ok(()),
            Event::Presence { .. } | Event::ContactAdded { .. } | Event::Members { .. } | Event::Renamed { .. } => {
                Ok(())
            }
            // Anything else would mean that something was lost, cannot be opened, or is not what it was.
            other => self.ledger.alarm(&format!("{other:?}")),
        }
    }

    fn message(&mut self, message: &Incoming) -> anyhow::Result<()> {
        say(&[signal::SHOWING])?;
        let text = match &message.content.part {
            Part::Text(text) => text,
            _ => "not a text",
        };
        let said = numbered(text);
        let author = said.and_then(|(name, number)| {
            let author = self.plan.others.iter().find(|other| other.name == name && other.account == message.from)?;
            Some((author.name.clone(), number))
        });
        let Some((author, number)) = author else {
            self.ledger.alarm(&format!("{text:?}, from {}", message.from))?;
            return say(&[self.rests()]);
        };
        match self.ledger.show(message, &author, number)? {
            Told::First => say(&[signal::SHOWN, self.rests()]),
            Told::Again => say(&[signal::AGAIN, self.rests()]),
        }
    }

    /// Once everything has come and the relay has all that was written.
    async fn tell_if_done(&mut self) -> anyhow::Result<()> {
        if self.is_done || self.written < self.plan.messages || !self.ledger.has_all(&self.plan.others) {
            return Ok(());
        }
        self.look().await?;
        if self.unsettled == 0 {
            self.is_done = true;
            say(&[signal::DONE])?;
        }
        Ok(())
    }

    /// What it does when it does nothing.
    fn rests(&self) -> u8 {
        if self.is_connected { signal::WAITING } else { signal::CONNECTING }
    }
}

/// To whoever has started it, which reads to the end also of one that was killed: so it knows at what.
fn say(signals: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(signals)?;
    Ok(out.flush()?)
}
