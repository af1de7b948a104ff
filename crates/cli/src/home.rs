//! Where the account is, and how it is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sealwire_client::{
    AccountId, Client, ClientStore, ContactView, ConversationKind, ConversationView, Error, Event, Events, Handle,
    MessageState, Profile, Unlock, UnsentReason,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::notice::{Names, called, notice, short};
use crate::output::{Exit, Failure, Screen};
use crate::{ask, trouble};

/// The key file of accounts that have no passphrase.
pub(crate) const KEY: &str = "key";
/// How long a command that needs the relay waits for it, where the person does not say.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a command that is done waits for what it caused besides, such as a presence token.
const SETTLE: Duration = Duration::from_secs(2);
/// How often [`settle`] looks. The SDK tells nobody when the outbox is empty.
const LOOK: Duration = Duration::from_millis(25);

/// `--home`, else `sealwire` in the user's data directory.
pub(crate) fn folder(chosen: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = || absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    let folder = chosen.or_else(|| data().map(|data| data.join("sealwire"))).ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no home directory to keep the account in: give --home DIR")
    })?;
    Ok(std::path::absolute(folder)?)
}

/// What opens the account in a folder; asks for the passphrase where it has one.
pub(crate) fn unlock(home: &Path) -> Result<Unlock, Failure> {
    if ClientStore::wants_passphrase(home).map_err(Error::Store)? {
        return Ok(Unlock::Passphrase(ask::passphrase()?));
    }
    Ok(Unlock::KeyFile(home.join(KEY)))
}

/// Opens the account, and begins to connect.
pub(crate) async fn open(home: &Path) -> Result<(Client, Events), Failure> {
    Ok(Client::open(home, unlock(home)?).await?)
}

/// What keeps a command from going on until a person does something.
#[derive(Clone)]
struct Problem {
    failure: Failure,
    /// Whom it is about; `None`: everybody.
    handle: Option<Handle>,
}

/// An account that is open for one command, which reads no messages.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) profile: Profile,
    screen: Screen,
    problem: watch::Receiver<Option<Problem>>,
    /// The last message that will not be sent, and why.
    unsent: watch::Receiver<Option<(u64, UnsentReason)>>,
    /// Whom the command writes to: what needs a decision about others does not stop it.
    pub(crate) writes_to: Option<Handle>,
    watcher: JoinHandle<()>,
}

impl Session {
    pub(crate) async fn open(home: &Path, screen: Screen) -> Result<Session, Failure> {
        let (client, events) = open(home).await?;
        let profile = client.profile().await?;
        let (problem_in, problem) = watch::channel(None);
        let (unsent_in, unsent) = watch::channel(None);
        let watcher = tokio::spawn(watch_events(client.clone(), events, screen, problem_in, unsent_in));
        Ok(Session { client, profile, screen, problem, unsent, writes_to: None, watcher })
    }

    /// Waits for something that needs the relay, but not for longer than that, and not if it needs a person.
    pub(crate) async fn wait<T>(
        &mut self,
        patience: Duration,
        what: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let mut problem = self.problem.clone();
        let concerns = |problem: &Option<Problem>| {
            problem.as_ref().is_some_and(|problem| problem.handle.is_none() || problem.handle == self.writes_to)
        };
        tokio::select! {
            // What is there counts, also if a problem came with it.
            biased;
            done = what => Ok(done?),
            Ok(problem) = problem.wait_for(concerns) => {
                let failure = problem.as_ref().map(|problem| problem.failure.clone());
                Err(failure.unwrap_or_else(|| Failure::new(Exit::Failed, "the connection needs a person")))
            }
            () = tokio::time::sleep(patience) => Err(self.too_late()),
        }
    }

    pub(crate) async fn connected(&mut self, patience: Duration) -> Result<(), Failure> {
        let client = self.client.clone();
        self.wait(patience, async move { client.connected().await }).await
    }

    /// Why a message will not be sent, where that was told in this session.
    pub(crate) async fn why_unsent(&self, number: u64) -> Option<UnsentReason> {
        let mut unsent = self.unsent.clone();
        let is_it = |unsent: &Option<(u64, UnsentReason)>| unsent.is_some_and(|(of, _)| of == number);
        // It is told right behind the state; but not where messages wait to be read first.
        let told = tokio::time::timeout(LOOK * 10, unsent.wait_for(is_it)).await;
        told.ok()?.ok()?.map(|(_, reason)| reason)
    }

    fn too_late(&self) -> Failure {
        if self.client.is_connected() {
            return Failure::new(Exit::Failed, "that took too long; try again with a longer --timeout");
        }
        Failure::new(Exit::Offline, offline())
    }

    /// The contact of a handle or account id. Known ones need no relay; others are found there.
    pub(crate) async fn contact(&mut self, who: &str) -> Result<ContactView, Failure> {
        let who = Who::parse(who, &self.profile)?;
        if let Some(known) = known(&self.client, &who).await? {
            return Ok(known);
        }
        let Who::Handle(handle) = who else {
            return Err(Failure::new(Exit::Refused, "no contact has that account id; see `sealwire contacts`"));
        };
        self.connected(PATIENCE).await?;
        let (client, handle) = (self.client.clone(), handle.to_string());
        self.wait(PATIENCE, async move { client.find(&handle).await }).await
    }

    /// As [`Session::contact`], but only whom this account knows already.
    pub(crate) async fn known_contact(&self, who: &str) -> Result<ContactView, Failure> {
        let parsed = Who::parse(who, &self.profile)?;
        known(&self.client, &parsed).await?.ok_or_else(|| {
            Failure::new(Exit::Refused, format!("{who} is not among your contacts; see `sealwire contacts`"))
        })
    }

    /// What was decided is saved. Gives it a moment to reach the relay and those whom it concerns, and closes.
    pub(crate) async fn carry_out(mut self) {
        if self.connected(SETTLE).await.is_err() {
            self.screen.say("saved; the relay is told with the next connection");
        }
        self.close().await;
    }

    /// Gives what the command caused the time to go out, and closes.
    pub(crate) async fn close(self) {
        if self.client.is_connected() {
            settle(&self.client, SETTLE).await;
        }
        self.watcher.abort();
        self.client.close().await;
    }

    pub(crate) fn screen(&self) -> Screen {
        self.screen
    }
}

/// Tells what a person has to know. Ends at the first message: the next one would count it as processed, and it waits
/// for `sealwire listen`.
async fn watch_events(
    client: Client,
    mut events: Events,
    screen: Screen,
    problem: watch::Sender<Option<Problem>>,
    unsent: watch::Sender<Option<(u64, UnsentReason)>>,
) {
    let mut names = Names::of(client);
    names.learn_groups().await;
    while let Some(event) = events.next().await {
        if matches!(event, Event::Message(_) | Event::Request(_)) {
            return std::future::pending().await;
        }
        if let Event::State { number, state: MessageState::Unsent, reason: Some(reason), .. } = &event {
            unsent.send_replace(Some((*number, *reason)));
        }
        let Some(notice) = notice(&event, &mut names).await else { continue };
        if let Event::IdentityChanged { handle, blocks: true, .. } = event {
            let failure = Failure::new(Exit::Refused, notice.words);
            problem.send_replace(Some(Problem { failure, handle: Some(handle) }));
            continue;
        }
        match notice.ends {
            // The command says it itself.
            Some(exit) => {
                let failure = Failure::new(exit, notice.words);
                problem.send_replace(Some(Problem { failure, handle: None }));
            }
            None if notice.for_person => screen.say(&notice.words),
            None => {}
        }
    }
}

/// Waits until nothing waits to be sent, but not for longer than that. True if so.
pub(crate) async fn settle(client: &Client, patience: Duration) -> bool {
    let deadline = tokio::time::Instant::now() + patience;
    while client.profile().await.is_ok_and(|profile| profile.queued > 0) {
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

/// The group of that name, or whose id begins so, among those that this account is in.
pub(crate) async fn group(client: &Client, text: &str) -> Result<ConversationView, Failure> {
    let known = find_group(client, text).await?;
    if let Some(view) = known {
        return Ok(view);
    }
    // Somebody may have added this device since it was last there.
    let deadline = tokio::time::Instant::now() + SETTLE;
    while tokio::time::Instant::now() < deadline {
        if let Some(view) = find_group(client, text).await? {
            return Ok(view);
        }
        tokio::time::sleep(LOOK).await;
    }
    let since = if client.is_connected() { "" } else { ", as far as is known here without the relay" };
    Err(Failure::new(Exit::Refused, format!("you are in no group {text}{since}; see `sealwire group list`")))
}

async fn find_group(client: &Client, text: &str) -> Result<Option<ConversationView>, Failure> {
    const PREFIX_MIN: usize = 4;
    let mut groups = client.conversations().await?;
    groups.retain(|view| view.kind == ConversationKind::Group && (!view.members.is_empty() || view.waiting > 0));
    let is_id = text.len() >= PREFIX_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let begins = |view: &ConversationView| is_id && view.conversation.to_string().starts_with(&text.to_lowercase());
    // Whoever may name a group could name it like another's id.
    let found = match groups.iter().filter(|view| begins(view)).count() {
        0 => groups.extract_if(.., |view| view.name == text).collect::<Vec<_>>(),
        _ => groups.extract_if(.., |view| begins(view)).collect(),
    };
    match <[ConversationView; 1]>::try_from(found) {
        Ok([view]) => Ok(Some(view)),
        Err(none) if none.is_empty() => Ok(None),
        Err(several) => {
            let list: Vec<_> =
                several.iter().map(|view| format!("{} {}", short(view.conversation), called(view))).collect();
            let words =
                format!("several groups are called so; name one by the beginning of its id: {}", list.join(", "));
            Err(Failure::new(Exit::Refused, words))
        }
    }
}

pub(crate) fn offline() -> String {
    format!("the relay is out of reach{}; `sealwire doctor` says more", trouble::why())
}

/// Whom a command is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    Handle(Handle),
    Account(AccountId),
}

impl Who {
    /// `name@host`, an account id, or a name at the own relay.
    pub(crate) fn parse(text: &str, own: &Profile) -> Result<Who, Failure> {
        if let Some(account) = AccountId::from_hex(text) {
            return Ok(Who::Account(account));
        }
        let handle = if text.contains('@') { text.to_owned() } else { format!("{text}@{}", own.handle.host) };
        let handle = Handle::parse(&handle).map_err(Error::Handle)?;
        if handle == own.handle {
            return Err(Failure::new(Exit::Refused, format!("{handle} is yourself; notes to oneself come later")));
        }
        Ok(Who::Handle(handle))
    }
}

/// A contact that is known here; asks nobody. Where several had one handle, the one that it is pinned to now.
pub(crate) async fn known(client: &Client, who: &Who) -> Result<Option<ContactView>, Failure> {
    let mut contacts = client.contacts().await?;
    contacts.retain(|contact| match who {
        Who::Handle(handle) => contact.handle.as_ref() == Some(handle),
        Who::Account(account) => contact.account == *account,
    });
    match (contacts.pop(), who) {
        // Pinned, so the answer comes from here.
        (Some(_), Who::Handle(handle)) if !contacts.is_empty() => Ok(Some(client.find(&handle.to_string()).await?)),
        (contact, _) => Ok(contact),
    }
}
