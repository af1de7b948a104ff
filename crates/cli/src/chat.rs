//! `sealwire chat`: line by line with one person, or in a group.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::Path;
use std::time::Duration;

use sealwire_client::{
    AccountId, Client, ContactView, ConversationId, ConversationView, Event, Handle, Incoming, MessageState, Mode,
    Part, Talk, To,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::home::{self, Who};
use crate::init::NO_FORWARD_SECRECY;
use crate::notice::{Names, called, notice, state_name};
use crate::output::{Exit, Failure, Screen, at, said};
use crate::talk::{earlier, sender, within};
use crate::terminal;

/// Lines that may wait to be sent: more is a paste, and waits in the terminal.
const LINES: usize = 64;
/// How long a chat that ends waits until the relay has what was written.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How often a chat that ends looks whether it has.
const LOOK: Duration = Duration::from_millis(50);

struct Chat {
    client: Client,
    screen: Screen,
    names: Names,
    name: String,
    /// `None` until the relay was asked who that is.
    with: Option<Talk>,
    handle: Option<Handle>,
    /// Own messages that have not been read yet, by number: how they begin, and whether they were called saved.
    written: BTreeMap<u64, Written>,
    /// The number of the last own message: its states need no words beside them.
    newest: u64,
    /// Incoming messages that the history has shown already.
    shown: BTreeSet<u64>,
    was_connected: bool,
}

struct Written {
    excerpt: String,
    waits: bool,
}

pub(crate) async fn chat(home: &Path, screen: Screen, who: &str, group: bool, last: u32) -> Result<(), Failure> {
    if screen.json {
        return Err(Failure::new(
            Exit::Usage,
            "chat is for people; programs use `sealwire listen --json` and `sealwire send`",
        ));
    }
    let (client, mut events) = home::open(home).await?;
    let mut chat = match group {
        true => {
            let view = home::group(&client, who).await?;
            Chat::begin_in_group(client, screen, &view).await?
        }
        false => {
            let who = Who::parse(who, &client.profile().await?)?;
            Chat::begin(client, screen, &who).await?
        }
    };
    chat.history(last).await?;
    chat.names.learn_groups().await;
    let mut lines = lines();
    let mut ends: Option<Instant> = None;
    loop {
        tokio::select! {
            // What came is shown before what is written is sent: one answers what one has seen.
            biased;
            event = events.next() => match event {
                Some(event) => chat.event(event).await?,
                None => break,
            },
            line = lines.recv(), if ends.is_none() => match line {
                Some(line) => chat.write(line).await?,
                None => ends = Some(Instant::now() + LAST_WORDS),
            },
            () = tokio::time::sleep(LOOK), if ends.is_some() => {
                let queued = chat.client.profile().await?.queued;
                if queued == 0 {
                    break;
                }
                if ends.is_some_and(|deadline| Instant::now() >= deadline) {
                    chat.client.close().await;
                    let words = "what you wrote is saved, and the relay has not all of it yet; it goes out with the next `sealwire` command";
                    return Err(Failure::new(Exit::Offline, words));
                }
            }
        }
    }
    chat.client.close().await;
    Ok(())
}

/// Lines of standard input, read on a thread: reading a terminal cannot be interrupted, and ends with the process.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(LINES);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

impl Chat {
    fn new(client: Client, screen: Screen, name: String, handle: Option<Handle>) -> Chat {
        Chat {
            names: Names::of(client.clone()),
            client,
            screen,
            name,
            with: None,
            handle,
            written: BTreeMap::new(),
            newest: 0,
            shown: BTreeSet::new(),
            was_connected: false,
        }
    }

    async fn begin_in_group(client: Client, screen: Screen, view: &ConversationView) -> Result<Chat, Failure> {
        let own = client.profile().await?.account;
        let mut chat = Chat::new(client, screen, called(view), None);
        chat.with = Some(Talk::Group(view.conversation));
        let mut others = Vec::new();
        for (account, _) in view.members.iter().filter(|(account, _)| *account != own) {
            others.push(chat.names.name(*account).await);
        }
        let others = if others.is_empty() { "nobody else yet".to_owned() } else { others.join(", ") };
        let name = &chat.name;
        screen.say(&format!("chat in {name} with {others}: each line is a message, Ctrl-D ends."));
        Ok(chat)
    }

    /// Whom it is with, where it is with one person.
    fn person(&self) -> Option<AccountId> {
        match self.with {
            Some(Talk::Person(account)) => Some(account),
            _ => None,
        }
    }

    fn group(&self) -> Option<ConversationId> {
        match self.with {
            Some(Talk::Group(group)) => Some(group),
            _ => None,
        }
    }

    async fn begin(client: Client, screen: Screen, who: &Who) -> Result<Chat, Failure> {
        let (name, handle) = match who {
            Who::Handle(handle) => (handle.to_string(), Some(handle.clone())),
            Who::Account(account) => (account.to_string(), None),
        };
        let mut chat = Chat::new(client, screen, name, handle);
        let note = match chat.client.mode() {
            Mode::Mls => String::new(),
            Mode::Direct => format!(" Note: {NO_FORWARD_SECRECY}"),
        };
        screen.say(&format!("chat with {}: each line is a message, Ctrl-D ends.{note}", chat.name));
        match home::known(&chat.client, who).await? {
            Some(contact) => chat.meet(&contact).await?,
            None if chat.handle.is_none() => {
                return Err(Failure::new(Exit::Refused, "no contact has that account id; see `sealwire contacts`"));
            }
            None => screen.say("looking for them…"),
        }
        Ok(chat)
    }

    /// It is known who that is. Whoever opens a chat accepts.
    async fn meet(&mut self, contact: &ContactView) -> Result<(), Failure> {
        self.with = Some(Talk::Person(contact.account));
        if let Some(handle) = &contact.handle {
            self.name = handle.to_string();
        }
        if contact.blocked {
            let words = format!("{0} is blocked; `sealwire unblock {0}` takes it back", self.name);
            return Err(Failure::new(Exit::Refused, words));
        }
        if !contact.accepted {
            self.client.accept(contact.account).await?;
        }
        if contact.handle_moved {
            self.screen.say(&format!(
                "{0} now belongs to another account than the one that you verified: `sealwire verify {0}` to decide",
                self.name
            ));
        } else if !contact.verified {
            self.screen.say(&format!(
                "not verified: nobody but the relay says that this is {0}; `sealwire verify {0}` compares numbers",
                self.name
            ));
        }
        Ok(())
    }

    async fn history(&mut self, last: u32) -> Result<(), Failure> {
        let Some(with) = self.with else { return Ok(()) };
        let mut read = Vec::new();
        for message in self.client.history(with, u64::MAX, last).await? {
            let state = if message.incoming { None } else { self.client.state(message.number).await? };
            let author = match message.from {
                Some(from) => self.names.name(from).await,
                None => self.name.clone(),
            };
            earlier(self.screen, &message, &author, state)?;
            if message.incoming {
                self.shown.insert(message.number);
                read.extend(self.person().zip(message.id));
            } else if state.is_some_and(|state| state < MessageState::Read) {
                self.remember(message.number, &message.content.part, state == Some(MessageState::Queued));
            }
        }
        if !read.is_empty() {
            self.client.mark_read(read).await?;
        }
        Ok(())
    }

    fn remember(&mut self, number: u64, part: &Part, waits: bool) {
        self.newest = number;
        self.written.insert(number, Written { excerpt: terminal::excerpt(&said(part)), waits });
    }

    async fn event(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Message(message) => self.message(&message).await,
            Event::Request(request) => self.request(&request.message).await,
            Event::State { number, state, .. }
                if self.written.contains_key(&number) && state != MessageState::Unsent =>
            {
                self.got_further(number, state);
                Ok(())
            }
            Event::Connected => self.connected().await,
            Event::Disconnected { .. } => {
                if std::mem::take(&mut self.was_connected) {
                    self.screen.say("· connection lost; trying again. What you write is saved");
                }
                Ok(())
            }
            Event::Presence { account, online } if Some(account) == self.person() => {
                self.screen.say(&format!("· {} is {}", self.name, if online { "online" } else { "offline" }));
                Ok(())
            }
            Event::Presence { .. } | Event::Registered { .. } => Ok(()),
            Event::SaidElsewhere { conversation, with, content, .. }
                if self.with == Some(with.map_or(Talk::Group(conversation), Talk::Person)) =>
            {
                self.screen.line(&format!("you (another device): {}", said(&content.part)))
            }
            Event::ContactAdded { account, handle } if handle.is_some() && handle == self.handle => {
                self.with = Some(Talk::Person(account));
                Ok(())
            }
            other => self.notice(&other).await,
        }
    }

    async fn notice(&mut self, event: &Event) -> Result<(), Failure> {
        let Some(notice) = notice(event, &mut self.names).await else { return Ok(()) };
        if let Some(exit) = notice.ends {
            return Err(Failure::new(exit, notice.words));
        }
        self.screen.say(&format!("· {}", notice.words));
        Ok(())
    }

    async fn message(&mut self, message: &Incoming) -> Result<(), Failure> {
        let talk = message.group.map_or(Talk::Person(message.from), Talk::Group);
        let mine = Some(talk) == self.with;
        if !self.shown.contains(&message.number) {
            let who = sender(message, &mut self.names).await;
            let head = match mine {
                true => format!("{} {who}:", at(message.at)),
                false => {
                    let within = within(message, &mut self.names).await;
                    format!("(another chat) {} {who}{within}:", at(message.at))
                }
            };
            self.screen.headed(&head, &terminal::indented(&said(&message.content.part), 4))?;
        }
        // Only one person gives and gets receipts.
        if mine && message.group.is_none() {
            self.client.mark_read(vec![(message.from, message.id)]).await?;
        }
        Ok(())
    }

    async fn request(&mut self, message: &Incoming) -> Result<(), Failure> {
        // Who has the handle is looked up and pinned; what a message calls its sender is not enough to accept it.
        if let (None, Some(handle)) = (self.with, &self.handle)
            && self.names.sender(message).await.as_ref() == Some(&handle.to_string())
            && let Ok(contact) = self.client.find(&handle.to_string()).await
        {
            self.meet(&contact).await?;
        } else if self.person() == Some(message.from) {
            self.client.accept(message.from).await?;
        }
        self.message(message).await?;
        if Some(message.from) != self.person() {
            let who = sender(message, &mut self.names).await;
            self.screen
                .say(&format!("· {who} is not a contact: `sealwire contacts accept {who}`, or `sealwire block {who}`"));
        }
        Ok(())
    }

    async fn connected(&mut self) -> Result<(), Failure> {
        self.was_connected = true;
        self.screen.say("· connected");
        if let (None, Some(handle)) = (self.with, &self.handle) {
            let handle = handle.to_string();
            match self.client.find(&handle).await {
                Ok(contact) => self.meet(&contact).await?,
                Err(sealwire_client::Error::Refused(sealwire_client::Refusal::Offline)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn got_further(&mut self, number: u64, state: MessageState) {
        let Some(written) = self.written.get_mut(&number) else { return };
        // That the relay has it is worth a line only where it had to wait.
        let waited = std::mem::take(&mut written.waits);
        if state > MessageState::Accepted || waited {
            let which = if number == self.newest { String::new() } else { format!(": {}", written.excerpt) };
            let state = if state == MessageState::Accepted { "sent" } else { state_name(state) };
            self.screen.say(&format!("· {state}{which}"));
        }
        if state >= MessageState::Read {
            self.written.remove(&number);
        }
    }

    async fn write(&mut self, line: String) -> Result<(), Failure> {
        if line.is_empty() {
            return Ok(());
        }
        let to = match (self.person(), self.group(), &self.handle) {
            (_, Some(group), _) => To::Group(group),
            (_, _, Some(handle)) => To::Handle(handle.clone()),
            (Some(account), ..) => To::Account(account),
            (None, None, None) => return Ok(()),
        };
        let part = Part::Text(line);
        match self.client.send(to, part.clone()).await {
            Ok(sent) => {
                let waits = !self.client.is_connected();
                self.remember(sent.number, &part, waits);
                if waits {
                    self.screen.say("· saved; it goes out when the connection is back");
                }
            }
            Err(error) => self.screen.say(&format!("· not sent: {error}")),
        }
        Ok(())
    }
}
