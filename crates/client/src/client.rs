//! What an application holds: a handle to the driver, and the stream of events.

use std::io::Read;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt, stream};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealwire_engine::{
    Command, ContactView, ConversationView, Engine, Event, GroupChange, Invite, LinkEnd, MessageState, Mode, Profile,
    Refusal, Reply, Role, Settings, StoredMessage, StoredQuarantine, Suite, Talk, To,
};
use sealwire_wire::content::{BYTES, Part};
use sealwire_wire::handle::{Handle, HandleError};
use sealwire_wire::limits::{KEY_PACKAGES_MAX, MESSAGE_MAX, RECEIPT_DELAY_MS};
use sealwire_wire::{AccountId, ContentId, ConversationId};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::driver::{Channels, Driver, Request, load, now};
use crate::socket::{AddressError, RelayAddress};
use crate::store::{ClientStore, StoreError, Unlock};

/// Requests that may wait for the driver.
const REQUESTS: usize = 256;
/// Events that may wait for the application; messages beyond wait in the store.
const EVENTS: usize = 1_024;
/// People who are looked up at once, for a group of many.
const LOOKUPS: usize = 16;

/// The setting that says whether a proxy ends TLS in front of the relay, and its value if so.
const BEHIND_PROXY: &str = "relay-behind-proxy";
const YES: &str = "yes";
/// The setting that says which mode the account was made for, and its value for direct mode. The account log says so, too,
/// and decides; the engine does not tell it.
const MODE: &str = "mode";
const DIRECT: &str = "direct";

/// What an account is made with.
#[derive(Clone)]
pub struct Account {
    handle: Handle,
    relay: RelayAddress,
    relay_key: Option<[u8; 32]>,
    invite: String,
    root: Option<PathBuf>,
    behind_proxy: bool,
    receipt_delay_ms: u64,
    mode: Mode,
    key_packages: u32,
}

impl Account {
    /// An account `name@host` at the relay with that address, for conversations: MLS with hybrid post-quantum keys, with
    /// one person and in groups.
    ///
    /// # Errors
    /// [`Error::Handle`] and [`Error::Address`].
    pub fn new(handle: &str, relay: &str) -> Result<Account, Error> {
        Ok(Account {
            handle: Handle::parse(handle)?,
            relay: RelayAddress::parse(relay)?,
            relay_key: None,
            invite: String::new(),
            root: None,
            behind_proxy: false,
            receipt_delay_ms: RECEIPT_DELAY_MS,
            mode: Mode::Mls,
            key_packages: KEY_PACKAGES_MAX as u32,
        })
    }

    /// For direct mode instead: no forward secrecy, no groups, and only for peers that know nothing else, such as those in
    /// `interop/`. It is chosen once and for good: an account for direct mode and one for conversations do not reach each
    /// other ([`sealwire_engine::UnsentReason::NoCommonMode`]).
    #[must_use]
    pub fn direct(mut self) -> Account {
        self.mode = Mode::Direct;
        self
    }

    /// How many key packages the relay should hold: as many others can begin a conversation with this account or add it to
    /// a group while it is away, before they have to share the last one. At most and by default 100.
    #[must_use]
    pub fn key_packages(mut self, count: u32) -> Account {
        self.key_packages = count;
        self
    }

    /// An invite code, for relays that want one.
    #[must_use]
    pub fn invite(mut self, invite: &str) -> Account {
        self.invite = invite.to_owned();
        self
    }

    /// The relay's key, where it is known beforehand; else the first one seen is pinned.
    #[must_use]
    pub fn relay_key(mut self, key: [u8; 32]) -> Account {
        self.relay_key = Some(key);
        self
    }

    /// A PEM file with the certificate of a relay that made its own.
    #[must_use]
    pub fn relay_certificate(mut self, pem: PathBuf) -> Account {
        self.root = Some(pem);
        self
    }

    /// Says that a proxy in front of the relay ends TLS: see [`RelayAddress::behind_proxy`].
    #[must_use]
    pub fn relay_behind_proxy(mut self, yes: bool) -> Account {
        self.behind_proxy = yes;
        self
    }

    /// How long receipts are gathered before they are sent, in milliseconds. Shorter tells the relay more of when
    /// somebody reads.
    #[must_use]
    pub fn receipt_delay_ms(mut self, delay: u64) -> Account {
        self.receipt_delay_ms = delay;
        self
    }
}

/// Without the invite code: whoever has it can register.
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut account = f.debug_struct("Account");
        account.field("handle", &self.handle).field("relay", &self.relay).field("root", &self.root);
        account.field("behind_proxy", &self.behind_proxy).field("mode", &self.mode);
        account.field("has_invite", &!self.invite.is_empty()).finish()
    }
}

/// Why something did not happen. Each says what to try.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a handle.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// Not a relay's address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The account does not allow it.
    #[error(transparent)]
    Refused(Refusal),
    /// The disk did not take it: nothing was sent, and nothing is lost that was saved before.
    #[error("could not be saved, so it was not sent: {0}")]
    NotSaved(String),
    /// What is to be sent cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// This device was not linked.
    #[error("not linked: {0}")]
    Link(LinkEnd),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// An open account. Cheap to clone; all clones drive the same one. It closes when the last is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    states: broadcast::Sender<(u64, MessageState)>,
    connected: watch::Receiver<bool>,
    mode: Mode,
}

/// What happens to an account, in order. Take messages from here: one counts as processed when the next is asked for,
/// and comes again at the next start otherwise.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
    requests: mpsc::WeakSender<Request>,
    taken: Option<u64>,
}

/// A message that was saved and will be sent.
#[derive(Debug)]
pub struct Sent {
    /// Its number, as [`Event::State`] tells it.
    pub number: u64,
    client: Client,
}

impl Client {
    /// Makes an account in a folder, and begins to register it.
    ///
    /// # Errors
    /// [`Error::Store`]; an existing account is left as it is.
    pub async fn create(folder: &Path, unlock: Unlock, account: Account) -> Result<(Client, Events), Error> {
        let (folder, mode) = (folder.to_owned(), account.mode);
        let (engine, store, relay) = blocking(move || {
            let mut store = ClientStore::create(&folder, &unlock)?;
            let relay = account.relay.with_root(account.root).behind_proxy(account.behind_proxy);
            store_address(&store, &relay)?;
            if account.mode == Mode::Direct {
                store.set_setting(MODE, DIRECT)?;
            }
            let settings = Settings {
                handle: account.handle,
                invite: Invite(account.invite),
                relay_key: account.relay_key,
                receipt_delay_ms: account.receipt_delay_ms,
                mode: account.mode,
                suite: Suite::Hybrid,
                key_packages: account.key_packages,
            };
            let (engine, step) = Engine::create(settings, now(), &mut UnwrapErr(SysRng));
            store.commit(&step.changes)?;
            Ok((engine, store, relay))
        })
        .await?;
        Ok(Client::start(engine, store, relay, mode))
    }

    /// Opens the account in a folder, and begins to connect.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn open(folder: &Path, unlock: Unlock) -> Result<(Client, Events), Error> {
        Client::open_at(folder, unlock, None).await
    }

    /// Opens the account in a folder; its relay is now at another address.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn open_at(
        folder: &Path,
        unlock: Unlock,
        relay: Option<RelayAddress>,
    ) -> Result<(Client, Events), Error> {
        let folder = folder.to_owned();
        let (engine, store, relay, mode) = blocking(move || {
            let store = ClientStore::open(&folder, &unlock)?;
            let engine = load(&store)?;
            if let Some(relay) = &relay {
                store.set_setting("relay", &relay.to_string())?;
            }
            let address = store.setting("relay")?.ok_or(StoreError::Damaged("it names no relay"))?;
            let root = store.setting("relay-certificate")?.map(PathBuf::from);
            let behind_proxy = store.setting(BEHIND_PROXY)?.is_some_and(|said| said == YES);
            let is_direct = store.setting(MODE)?.is_some_and(|mode| mode == DIRECT);
            let mode = if is_direct { Mode::Direct } else { Mode::Mls };
            Ok((engine, store, RelayAddress::parse(&address)?.with_root(root).behind_proxy(behind_proxy), mode))
        })
        .await?;
        Ok(Client::start(engine, store, relay, mode))
    }

    /// Whose account is in a folder, without opening a connection.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn profile_at(folder: &Path, unlock: &Unlock) -> Result<Profile, Error> {
        Ok(load(&ClientStore::open(folder, unlock)?)?.profile())
    }

    pub(crate) fn start(engine: Engine, store: ClientStore, relay: RelayAddress, mode: Mode) -> (Client, Events) {
        let (requests, requests_out) = mpsc::channel(REQUESTS);
        let (events_in, events) = mpsc::channel(EVENTS);
        let (states, _) = broadcast::channel(EVENTS);
        let (connected_in, connected) = watch::channel(false);
        let channels =
            Channels { requests: requests_out, events: events_in, states: states.clone(), connected: connected_in };
        let driver = Driver::new(engine, store, relay, channels);
        // A thread of its own: commits block, and an application's tasks should not.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(driver.run());
        });
        let events = Events { events, requests: requests.downgrade(), taken: None };
        (Client { requests, states, connected, mode }, events)
    }

    /// Sends text to `name@host`. Returns when it is saved; it goes out when it can.
    ///
    /// # Errors
    /// [`Error`]; then nothing will be sent.
    pub async fn send_text(&self, to: &str, text: impl Into<String>) -> Result<Sent, Error> {
        self.send(To::Handle(Handle::parse(to)?), Part::Text(text.into())).await
    }

    /// Sends bytes to `name@host`.
    ///
    /// # Errors
    /// [`Error`]; then nothing will be sent.
    pub async fn send_bytes(&self, to: &str, bytes: impl Into<Vec<u8>>) -> Result<Sent, Error> {
        let part = Part::Bytes { media_type: BYTES.to_owned(), bytes: bytes.into() };
        self.send(To::Handle(Handle::parse(to)?), part).await
    }

    /// Sends what a reader gives to `name@host`, to its end; refused if that is more than a message holds.
    ///
    /// # Errors
    /// [`Error`]; then nothing will be sent.
    pub async fn send_from(&self, to: &str, reader: impl Read + Send + 'static) -> Result<Sent, Error> {
        let bytes = blocking(move || {
            let mut bytes = Vec::new();
            // One byte more than can fit tells that there was more.
            reader.take(MESSAGE_MAX as u64 + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        })
        .await?;
        self.send_bytes(to, bytes).await
    }

    /// Sends text or bytes to somebody, or to the members of a group.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Refusal::UnknownConversation`] where this account is not in that group, and others; then
    /// nothing will be sent.
    pub async fn send(&self, to: To, part: Part) -> Result<Sent, Error> {
        match self.command(Command::Send { to, part, in_reply_to: None }).await? {
            Reply::Queued(number) => Ok(Sent { number, client: self.clone() }),
            _ => Err(Error::Closed),
        }
    }

    /// Sends text to the members of a group.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_text_to_group(&self, group: ConversationId, text: impl Into<String>) -> Result<Sent, Error> {
        self.send(To::Group(group), Part::Text(text.into())).await
    }

    /// Sends bytes to the members of a group.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_bytes_to_group(&self, group: ConversationId, bytes: impl Into<Vec<u8>>) -> Result<Sent, Error> {
        let part = Part::Bytes { media_type: BYTES.to_owned(), bytes: bytes.into() };
        self.send(To::Group(group), part).await
    }

    /// Begins a group of this account, which owns it, and everybody named `name@host`. Returns when it is saved; it begins
    /// when the relay is reached, with one commit for all of them, and [`Event::Members`] tells it. What is sent to it
    /// meanwhile waits.
    ///
    /// # Errors
    /// [`Error::Handle`]. [`Error::Refused`] with [`Refusal::Offline`] or [`Refusal::NotFound`] about somebody who is not
    /// known yet; [`Refusal::NotForGroups`] about an account for direct mode; [`Refusal::Blocked`],
    /// [`Refusal::ContactRetired`]; [`Refusal::TooMuch`] where the name or the group is too large; [`Refusal::DirectOnly`]
    /// where this account is for direct mode. Then there is no group.
    pub async fn create_group(&self, name: impl Into<String>, members: &[&str]) -> Result<ConversationId, Error> {
        let members = self.find_all(members).await?;
        match self.command(Command::CreateGroup { name: name.into(), members }).await? {
            Reply::Group(group) => Ok(group),
            _ => Err(Error::Closed),
        }
    }

    /// Adds everybody named `name@host` to a group: owners and admins may. They read what is said from then on. As every
    /// change of a group, it is saved when this returns and made when the relay is reached and it is this member's turn;
    /// [`Event::Members`] tells it, or [`Event::NotDone`] where it cannot be made any more.
    ///
    /// # Errors
    /// As [`Client::create_group`], and [`Error::Refused`] with [`Refusal::UnknownConversation`] or
    /// [`Refusal::NotAllowed`]; then nothing changes.
    pub async fn invite(&self, group: ConversationId, members: &[&str]) -> Result<(), Error> {
        let members = self.find_all(members).await?;
        self.change(group, GroupChange::Add(members)).await
    }

    /// Removes somebody from a group: owners may remove admins and members, admins members. Whoever is removed reads
    /// nothing that is said afterwards. [`Event::Members`] tells it, and [`Event::Removed`] tells them.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Refusal::UnknownConversation`] or [`Refusal::NotAllowed`]; then nothing changes.
    pub async fn remove(&self, group: ConversationId, account: AccountId) -> Result<(), Error> {
        self.change(group, GroupChange::Remove(account)).await
    }

    /// Asks to leave a group. Whichever member is connected first takes this account out; [`Event::Removed`] tells it.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Refusal::UnknownConversation`].
    pub async fn leave(&self, group: ConversationId) -> Result<(), Error> {
        self.change(group, GroupChange::Leave).await
    }

    /// Names a group: owners and admins may.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Refusal::UnknownConversation`], [`Refusal::NotAllowed`] or [`Refusal::TooMuch`]; then
    /// nothing changes.
    pub async fn rename(&self, group: ConversationId, name: impl Into<String>) -> Result<(), Error> {
        self.change(group, GroupChange::Rename(name.into())).await
    }

    /// Says what somebody may do in a group: owners may.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Refusal::UnknownConversation`] or [`Refusal::NotAllowed`]; then nothing changes.
    pub async fn set_role(&self, group: ConversationId, account: AccountId, role: Role) -> Result<(), Error> {
        self.change(group, GroupChange::SetRole(account, role)).await
    }

    async fn change(&self, conversation: ConversationId, change: GroupChange) -> Result<(), Error> {
        self.command(Command::Change { conversation, change }).await.map(drop)
    }

    /// The conversations, those of two among them; [`ConversationView::waiting`] counts the changes that wait.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn conversations(&self) -> Result<Vec<ConversationView>, Error> {
        match self.command(Command::Conversations).await? {
            Reply::Conversations(conversations) => Ok(conversations),
            _ => Err(Error::Closed),
        }
    }

    /// One conversation; `None` if there is none of that id.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn conversation(&self, id: ConversationId) -> Result<Option<ConversationView>, Error> {
        Ok(self.conversations().await?.into_iter().find(|view| view.conversation == id))
    }

    async fn find_all(&self, handles: &[&str]) -> Result<Vec<AccountId>, Error> {
        let found = handles.iter().map(|handle| async { Ok::<_, Error>(self.find(handle).await?.account) });
        stream::iter(found).buffered(LOOKUPS).try_collect().await
    }

    /// Finds somebody and pins who that is.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Offline`] and others.
    pub async fn find(&self, handle: &str) -> Result<ContactView, Error> {
        match self.command(Command::Find(Handle::parse(handle)?)).await? {
            Reply::Found(view) => Ok(view),
            _ => Err(Error::Closed),
        }
    }

    /// The contacts, strangers with a request among them.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn contacts(&self) -> Result<Vec<ContactView>, Error> {
        match self.command(Command::Contacts).await? {
            Reply::Contacts(contacts) => Ok(contacts),
            _ => Err(Error::Closed),
        }
    }

    /// Accepts a stranger's request.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn accept(&self, account: AccountId) -> Result<(), Error> {
        self.command(Command::Accept(account)).await.map(drop)
    }

    /// Marks messages as read by the person; their senders get receipts.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn mark_read(&self, messages: Vec<(AccountId, ContentId)>) -> Result<(), Error> {
        self.command(Command::MarkRead(messages)).await.map(drop)
    }

    /// Marks that the safety numbers were compared, or takes it back.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_verified(&self, account: AccountId, verified: bool) -> Result<(), Error> {
        self.command(Command::SetVerified(account, verified)).await.map(drop)
    }

    /// Anything else that can be asked for.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn command(&self, command: Command) -> Result<Reply, Error> {
        self.ask(|reply| Request::Command(command, reply)).await?
    }

    /// What the account was made for: conversations, or direct mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Who this is.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn profile(&self) -> Result<Profile, Error> {
        self.ask(Request::Profile).await
    }

    /// The state of an outgoing message; `None` if there is none of that number.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn state(&self, number: u64) -> Result<Option<MessageState>, Error> {
        self.ask(|reply| Request::State(number, reply)).await?
    }

    /// A page of what was said with a person or in a group, from the newest back: the newest `limit` messages before number
    /// `before`, which is `u64::MAX` for the first page, and for each further one the number of the first message of the
    /// page that was read. In a page the oldest comes first, as a screen shows them; an empty one is the end.
    ///
    /// # Errors
    /// [`Error::Store`] where a message cannot be read, and [`Error::Closed`].
    pub async fn history(&self, with: Talk, before: u64, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        self.ask(|reply| Request::History { with, before, limit, reply }).await?
    }

    /// What was rejected.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn quarantine(&self) -> Result<Vec<StoredQuarantine>, Error> {
        self.ask(Request::Quarantine).await?
    }

    /// Waits until the client is logged in.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn connected(&self) -> Result<(), Error> {
        self.connected.clone().wait_for(|connected| *connected).await.map(drop).map_err(|_| Error::Closed)
    }

    /// Whether the client is logged in now.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Closes the account; what is queued stays saved. Returns when what was on its way has left, which takes at most two
    /// seconds, and the store is closed.
    pub async fn close(self) {
        // Already closed is closed.
        let _ = self.ask(Request::Close).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)
    }
}

impl Events {
    /// The next event; `None` after the client was closed. A message counts as processed when the next event is asked
    /// for: an application that ends before that gets it again. Nothing is lost if this is dropped before it is ready, as
    /// in a `select!`.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(number) = self.taken
            && let Some(requests) = self.requests.upgrade()
        {
            // A closed client tells it again at the next start.
            let _ = requests.send(Request::Shown(number)).await;
        }
        // Not before: whoever stops waiting above asks again, and it counts then.
        self.taken = None;
        let event = self.events.recv().await?;
        self.taken = match &event {
            Event::Message(message) => Some(message.number),
            Event::Request(request) => Some(request.message.number),
            _ => None,
        };
        Some(event)
    }
}

impl Sent {
    /// Waits until the message got at least that far.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Refusal::NotSendable`] if it will not be sent; [`Error::Closed`].
    pub async fn reached(&self, wanted: MessageState) -> Result<MessageState, Error> {
        let mut states = self.client.states.subscribe();
        loop {
            let state = self.client.state(self.number).await?.unwrap_or(MessageState::Queued);
            if state >= wanted && state != MessageState::Unsent {
                return Ok(state);
            }
            if state == MessageState::Unsent {
                return Err(Error::Refused(Refusal::NotSendable));
            }
            // A lagging receiver asks the store again, like one that was told.
            while let Ok((number, _)) = states.recv().await {
                if number == self.number {
                    break;
                }
            }
        }
    }
}

/// Where the relay is, so that the next process finds it.
pub(crate) fn store_address(store: &ClientStore, relay: &RelayAddress) -> Result<(), Error> {
    store.set_setting("relay", &relay.to_string())?;
    if let Some(root) = relay.extra_root() {
        store.set_setting("relay-certificate", &root.to_string_lossy())?;
    }
    if relay.is_behind_proxy() {
        store.set_setting(BEHIND_PROXY, YES)?;
    }
    Ok(())
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)?
}
