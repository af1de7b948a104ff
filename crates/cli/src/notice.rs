//! Events as sentences. Whatever needs a person names the command that decides it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealwire_client::{
    AccountId, Client, ConversationId, ConversationKind, ConversationView, Event, Incoming, LogInProblem, MessageState,
    QuarantineReason, UnsentReason,
};
use sealwire_wire::Code;

use crate::output::{Exit, said};
use crate::terminal;

/// An event, told.
pub(crate) struct Notice {
    /// For programs.
    pub(crate) kind: &'static str,
    /// Whom it is about.
    pub(crate) account: Option<AccountId>,
    /// Which conversation.
    pub(crate) conversation: Option<ConversationId>,
    pub(crate) words: String,
    /// Whether a person ought to know in the middle of something else.
    pub(crate) for_person: bool,
    /// Whether nothing goes on until a person does something.
    pub(crate) ends: Option<Exit>,
}

impl Notice {
    fn note(kind: &'static str, account: Option<AccountId>, words: String) -> Notice {
        Notice { kind, account, conversation: None, words, for_person: false, ends: None }
    }

    fn of(mut self, conversation: &ConversationId) -> Notice {
        self.conversation = Some(*conversation);
        self
    }

    fn warning(kind: &'static str, account: Option<AccountId>, words: String) -> Notice {
        Notice { for_person: true, ..Notice::note(kind, account, words) }
    }

    fn end(kind: &'static str, exit: Exit, words: String) -> Notice {
        Notice { ends: Some(exit), ..Notice::warning(kind, None, words) }
    }
}

/// How long a name is waited for: somebody who came with a conversation is looked up by the engine.
const LOOKED_UP: Duration = Duration::from_secs(1);
/// How often.
const LOOK: Duration = Duration::from_millis(20);

/// What accounts and groups are called. Asks again for those that it does not know.
pub(crate) struct Names {
    client: Client,
    known: BTreeMap<AccountId, String>,
    /// Whom the relay calls nothing.
    nameless: BTreeSet<AccountId>,
    groups: BTreeMap<ConversationId, String>,
}

impl Names {
    pub(crate) fn of(client: Client) -> Names {
        Names { client, known: BTreeMap::new(), nameless: BTreeSet::new(), groups: BTreeMap::new() }
    }

    pub(crate) async fn name(&mut self, account: AccountId) -> String {
        self.handle(account).await.unwrap_or_else(|| account.to_string())
    }

    /// Whose a message is: at the latest now the relay has said it.
    pub(crate) async fn sender(&mut self, message: &Incoming) -> Option<String> {
        match &message.handle {
            Some(handle) => Some(handle.to_string()),
            None => self.handle(message.from).await,
        }
    }

    async fn handle(&mut self, account: AccountId) -> Option<String> {
        let deadline = tokio::time::Instant::now() + LOOKED_UP;
        while !self.known.contains_key(&account) && !self.nameless.contains(&account) {
            // A client that is closed knows nobody; then the id has to do.
            let contacts = self.client.contacts().await.unwrap_or_default();
            let is_looked_up = contacts.iter().any(|contact| contact.account == account && contact.handle.is_none());
            let named = contacts.into_iter().filter_map(|contact| Some((contact.account, contact.handle?.to_string())));
            self.known.extend(named);
            if !is_looked_up || !self.client.is_connected() {
                break;
            }
            if tokio::time::Instant::now() >= deadline {
                self.nameless.insert(account);
            }
            tokio::time::sleep(LOOK).await;
        }
        self.known.get(&account).cloned()
    }

    async fn is_own(&self, account: AccountId) -> bool {
        self.client.profile().await.is_ok_and(|profile| profile.account == account)
    }

    /// As others see it, too: own accounts are `you`.
    async fn all(&mut self, accounts: &[AccountId]) -> String {
        let own = self.client.profile().await.map(|profile| profile.account).ok();
        let mut names = Vec::new();
        for account in accounts {
            names.push(if Some(*account) == own { "you".to_owned() } else { self.name(*account).await });
        }
        names.join(", ")
    }

    /// What groups are called now: of one that this device is taken out of the name is not to be had afterwards.
    pub(crate) async fn learn_groups(&mut self) {
        let views = self.client.conversations().await.unwrap_or_default();
        let named = views.iter().filter(|view| !view.name.is_empty());
        self.groups.extend(named.map(|view| (view.conversation, called(view))));
    }

    /// A group's name in quotes, or the beginning of its id; a conversation of two by whom it is with.
    pub(crate) async fn group(&mut self, group: ConversationId) -> String {
        let views = self.client.conversations().await.unwrap_or_default();
        let of_two = views.iter().find(|view| view.conversation == group && view.kind == ConversationKind::OneToOne);
        if let Some(view) = of_two {
            let own = self.client.profile().await.map(|profile| profile.account).ok();
            let other = view.members.iter().map(|(account, _)| *account).find(|account| Some(*account) != own);
            return match other {
                Some(other) => format!("the conversation with {}", self.name(other).await),
                None => format!("the conversation {}", short(group)),
            };
        }
        self.learn_groups().await;
        self.groups.get(&group).cloned().unwrap_or_else(|| format!("the group {}", short(group)))
    }
}

/// What a device is told that was taken from its account.
const REVOKED: &str = "this device was taken from its account: nothing comes to it any more, and what is here stays. To use it again, link it anew in another --home";

/// How a device is called: it has no name.
fn short_device(device: sealwire_client::DeviceId) -> String {
    device.to_string().chars().take(8).collect()
}

/// How a group is called in a sentence: its name is its members' choice, so it is short, on one line and in quotes.
pub(crate) fn called(view: &ConversationView) -> String {
    match view.name.as_str() {
        "" => format!("the group {}", short(view.conversation)),
        name => format!("“{}”", terminal::excerpt(name)),
    }
}

/// The beginning of an id, which is enough to name a group in a command.
pub(crate) fn short(conversation: ConversationId) -> String {
    conversation.to_string()[..16].to_owned()
}

/// An event as a sentence; `None` for messages, which are data, and for what says nothing to a person.
pub(crate) async fn notice(event: &Event, names: &mut Names) -> Option<Notice> {
    Some(match event {
        Event::Message(_) | Event::Request(_) => return None,
        Event::Connected => Notice::note("connected", None, "connected".into()),
        Event::Disconnected { .. } => Notice::note("disconnected", None, "not connected; trying again".into()),
        Event::Registered { handle, account } => {
            Notice::note("registered", Some(*account), format!("registered as {handle}"))
        }
        Event::RegistrationRefused { handle, code } => {
            Notice::end("registration-refused", Exit::Refused, registration(&handle.to_string(), *code))
        }
        Event::State { number, to, state, reason } => {
            let name = match to {
                Some(account) => format!(" to {}", names.name(*account).await),
                None => String::new(),
            };
            let words = format!("message {number}{name}: {}{}", state_name(*state), because(*reason));
            match state {
                MessageState::Unsent => Notice::warning("state", *to, words),
                _ => Notice::note("state", *to, words),
            }
        }
        Event::Joined { conversation, by, .. } if names.is_own(*by).await => {
            let group = names.group(*conversation).await;
            let words = match group.strip_prefix("the conversation with ") {
                Some(name) => format!("you are in a conversation with {name}, on this device too"),
                None => format!("you are in {group}, on this device too"),
            };
            Notice::note("joined", Some(*by), words).of(conversation)
        }
        Event::Joined { conversation, kind: ConversationKind::OneToOne, by, .. } => {
            let name = names.name(*by).await;
            Notice::note("joined", Some(*by), format!("{name} began a conversation with you")).of(conversation)
        }
        Event::Joined { conversation, kind: ConversationKind::Group, by, .. } => {
            let (group, by_name, id) = (names.group(*conversation).await, names.name(*by).await, short(*conversation));
            let words = format!("{by_name} added you to {group}: `sealwire chat --group {id}` to talk there, `sealwire group leave {id}` to leave");
            Notice::warning("joined", Some(*by), words).of(conversation)
        }
        Event::Members { conversation, by, added, removed } => {
            let own = names.client.profile().await.map(|profile| profile.account).ok();
            if own.is_some_and(|own| removed.contains(&own)) {
                // `Removed` comes with it.
                return None;
            }
            if added.is_empty() && removed.is_empty() {
                // Only devices came or went.
                return None;
            }
            let (group, by_name) = (names.group(*conversation).await, names.all(&[*by]).await);
            let (added, removed) = (names.all(added).await, names.all(removed).await);
            let words = match (added.as_str(), removed.as_str()) {
                (added, "") => format!("{by_name} added {added} to {group}"),
                ("", removed) => format!("{by_name} removed {removed} from {group}"),
                (added, removed) => format!("{by_name} added {added} to {group} and removed {removed}"),
            };
            Notice::note("members", Some(*by), words).of(conversation)
        }
        Event::Renamed { conversation, by, .. } => {
            let (group, by_name) = (names.group(*conversation).await, names.all(&[*by]).await);
            Notice::note("renamed", Some(*by), format!("{by_name} changed the name or the roles of a group, which is called {group} now")).of(conversation)
        }
        Event::Removed { conversation, by } => {
            let (group, by_name) = (names.group(*conversation).await, names.name(*by).await);
            let words = format!("you are not in {group} any more: {by_name} took you out. What is said there from now on cannot be read here; ask a member to add you again if that is wrong");
            Notice::warning("removed", Some(*by), words).of(conversation)
        }
        Event::NotDone { conversation, account } => {
            let (group, id) = (names.group(*conversation).await, short(*conversation));
            let whom = match account {
                Some(account) => format!(" about {}", names.name(*account).await),
                None => String::new(),
            };
            let words = format!("what was wanted of {group}{whom} cannot be done: your role there does not allow it any more, or they cannot be added. `sealwire group show {id}` shows how it is");
            Notice::warning("not-done", *account, words).of(conversation)
        }
        Event::OrderContradicted { conversation, by } => {
            let (group, by_name) = (names.group(*conversation).await, names.name(*by).await);
            let is_own = names.client.profile().await.is_ok_and(|profile| profile.account == *by);
            let words = match is_own {
                true => format!("the relay delivers something else in {group} than it had delivered before. Ask its operator, and compare with the others by another way what was said"),
                false => format!("{by_name} has read another order of messages in {group} than came here: the relay may show its members different things. Compare with {by_name} by another way what was said, and ask the relay's operator"),
            };
            Notice::warning("order-contradicted", Some(*by), words).of(conversation)
        }
        Event::Behind { conversation } => {
            let group = names.group(*conversation).await;
            let words = format!("this device has missed a change of {group} and cannot read on there. It asks to be added again; a member's device that is connected does so by itself. What was said meanwhile stays unread here: ask for it");
            Notice::warning("behind", None, words).of(conversation)
        }
        Event::ContactAdded { account, .. } => {
            let name = names.name(*account).await;
            Notice::note("contact-added", Some(*account), format!("{name} is a contact now; `sealwire verify {name}` compares numbers"))
        }
        Event::ContactRetired { account } => {
            let name = names.name(*account).await;
            Notice::warning("contact-retired", Some(*account), format!("{name} ended their account; nothing can be sent to it any more"))
        }
        Event::ContactChanged { account, verified } => {
            let name = names.name(*account).await;
            let words = format!("{name} has other devices or keys than before, by their own signature; the safety number is the same");
            if *verified { Notice::warning("contact-changed", Some(*account), words) } else { Notice::note("contact-changed", Some(*account), words) }
        }
        Event::IdentityChanged { handle, to, blocks: true, .. } => Notice::warning(
            "identity-changed",
            Some(*to),
            format!("{handle} now belongs to another account ({to}) than the one that you verified; nothing is sent there until you decide: ask them in person, then `sealwire verify {handle} --adopt` or `--keep`"),
        ),
        Event::IdentityChanged { handle, to, blocks: false, .. } => Notice::warning(
            "identity-changed",
            Some(*to),
            format!("{handle} belongs to another account ({to}) than before; messages go there from now on. `sealwire verify {handle}` compares numbers, `--keep` goes back to the one before"),
        ),
        Event::BadAnswer { account } => {
            let whom = match account {
                Some(account) => names.name(*account).await,
                None => "somebody".to_owned(),
            };
            Notice::warning("bad-answer", *account, format!("what the relay says about {whom} does not verify, and was ignored; if it stays so, tell the relay's operator"))
        }
        Event::HandleClaimed { handle, account } => Notice::warning(
            "handle-claimed",
            Some(*account),
            format!("the relay calls {account} {handle}, which is somebody else here; shown by the account id instead. If it stays so, tell the relay's operator"),
        ),
        Event::Presence { account, online } => {
            let state = if *online { "online" } else { "offline" };
            Notice::note(if *online { "online" } else { "offline" }, Some(*account), format!("{} is {state}, says the relay", names.name(*account).await))
        }
        Event::Gap { account, missing } => {
            let name = names.name(*account).await;
            Notice::warning("gap", Some(*account), format!("{missing} messages of {name} are missing before this one; they may still come, or ask {name}"))
        }
        Event::Quarantined { reason, .. } => match reason {
            // The person decided that.
            QuarantineReason::Blocked => Notice::note("quarantined", None, "something of a blocked sender was dropped".into()),
            reason => Notice::warning("quarantined", None, format!("something was rejected and not shown: {}", quarantine(*reason))),
        },
        Event::StoreRestored => Notice::warning("store-restored", None, "this account's files were older than its last connection, so it made new keys and goes on; what came in between may be missing".into()),
        Event::StoreConflict => Notice::end("store-conflict", Exit::Refused, "another copy of this account's files seems to be in use, so nothing is sent: close the other one. If this is the one to keep: `sealwire reclaim`".into()),
        Event::RelayRestored => Notice::note("relay-restored", None, "the relay was restored from a backup; what it may have lost is sent again".into()),
        Event::StoreDamaged => Notice::warning("store-damaged", None, "messages that came cannot be read from this account's files; what comes from now on is shown. `sealwire doctor` checks the files: a failing disk, perhaps".into()),
        Event::Replaced => Notice::end("replaced", Exit::Failed, "another connection of this account took over; if you did not open one, a copy of your files is in use: `sealwire doctor`".into()),
        Event::LinkAsks { digits } => Notice::warning("link-asks", None, format!("a device wants to be linked to this account and shows {digits}; if that is not you, nothing happens unless you say yes where the code is shown")),
        Event::LinkEnded { reason } => Notice::note("link-ended", None, format!("no device was linked: {reason}")),
        Event::DeviceAdded { device } => Notice::warning("device-added", None, format!("this account has one more device, {}. If you have not linked it, take it out: `sealwire revoke {}`", short_device(*device), short_device(*device))),
        Event::DeviceRevoked { is_this: true, .. } => Notice::end("device-revoked", Exit::Refused, REVOKED.into()),
        Event::DeviceRevoked { device, is_this: false } => Notice::warning("device-revoked", None, format!("{} is not a device of this account any more", short_device(*device))),
        Event::SaidElsewhere { conversation, with, content, .. } => {
            let to = match with {
                Some(account) => names.name(*account).await,
                None => names.group(*conversation).await,
            };
            Notice::note("said-elsewhere", *with, format!("you, from another device, to {to}: {}", terminal::excerpt(&said(&content.part)))).of(conversation)
        }
        Event::LogIn(LogInProblem::NotLinkedYet) => Notice::note("not-linked-yet", None, "the other device has not put this one into the account yet; trying again. If it stays so, delete this home and link it anew".into()),
        Event::LogIn(problem) => Notice::end("log-in", Exit::Refused, log_in(problem)),
        Event::Refused { code, text } => Notice::warning("refused", None, format!("the relay refused something: {} ({})", terminal::line(text), code.name())),
    })
}

pub(crate) fn registration(handle: &str, code: Code) -> String {
    let why = match code {
        Code::HandleTaken => format!("{handle} is taken, or looks like one that is; repeat `sealwire init` with another handle"),
        Code::HandleRefused => format!("the relay does not take {handle}; repeat `sealwire init` with another handle"),
        Code::RegistrationClosed => "this relay takes no new accounts; ask its operator, or choose another relay and another --home".into(),
        Code::InviteRefused => "this relay wants an invite code, and did not take this one; ask its operator, then repeat `sealwire init` with --invite-file FILE or --invite-stdin".into(),
        code => format!("the relay refused {handle} ({}); repeat `sealwire init` later", code.name()),
    };
    format!("not registered: {why}. The keys are kept")
}

fn log_in(problem: &LogInProblem) -> String {
    match problem {
        LogInProblem::OtherRelay { found } => {
            let found = terminal::line(found);
            format!("the relay at this address calls itself {found}, which is not the host of your handle; if that is where you want to be, `sealwire init NAME@{found}` in another --home")
        }
        LogInProblem::RelayKeyChanged => "the relay's key is not the one that was pinned: either its operator made a new one, or this is another relay. Ask the operator; if it is right, `sealwire trust-relay`".into(),
        LogInProblem::Revoked => REVOKED.into(),
        LogInProblem::NotLinkedYet => "this device is not in its account yet".into(),
        LogInProblem::Unsuitable => "this relay does not serve inboxes for this account, or speaks another protocol; ask its operator which version it runs".into(),
        LogInProblem::Refused(code @ Code::BadSignature, text) => {
            format!("the relay refused the log-in: {} ({}); where a proxy in front of it ends TLS, its operator says so: repeat `sealwire init` with --behind-proxy", terminal::line(text), code.name())
        }
        LogInProblem::Refused(code, text) => {
            format!("the relay refused the log-in: {} ({}); `sealwire doctor` checks what it can", terminal::line(text), code.name())
        }
    }
}

pub(crate) fn quarantine(reason: QuarantineReason) -> &'static str {
    match reason {
        QuarantineReason::Malformed => "not an envelope",
        QuarantineReason::Unsupported => "of a kind that this version cannot read; a newer one may",
        QuarantineReason::UnknownSender => "its sender is not known to the relay",
        QuarantineReason::BadSender => "what the relay says of its sender does not verify",
        QuarantineReason::OtherKey => "sealed with a key that is not in force",
        QuarantineReason::Rejected => "altered on the way, or forged",
        QuarantineReason::BadContent => "authentic, but not a message",
        QuarantineReason::Blocked => "from somebody who is blocked",
        QuarantineReason::NotAccepted => "from a stranger who sent too much",
        QuarantineReason::InvalidCommit => "a change of a conversation that is invalid, for all its members alike",
        QuarantineReason::OutOfOrder => {
            "sent by somebody who had not read the newest change of the conversation; it counts for no member"
        }
        QuarantineReason::OtherEpoch => "sealed with keys of a conversation that are not in force",
        QuarantineReason::BadWelcome => "an invitation to a conversation that leads nowhere",
        QuarantineReason::TooLate => "so late that nothing tells whether it was shown already; ask for it again",
    }
}

pub(crate) fn state_name(state: MessageState) -> &'static str {
    match state {
        MessageState::Queued => "queued",
        MessageState::Accepted => "accepted",
        MessageState::Delivered => "delivered",
        MessageState::Read => "read",
        MessageState::Unsent => "unsent",
    }
}

pub(crate) fn because(reason: Option<UnsentReason>) -> String {
    match reason {
        None => String::new(),
        Some(UnsentReason::NotFound) => ", because nobody is called that there".into(),
        Some(UnsentReason::Retired) => ", because the account was ended".into(),
        Some(UnsentReason::NoCommonMode) => ", because they do not use the mode that this account was made for: an account for conversations and one for direct mode do not reach each other".into(),
        Some(UnsentReason::NoMember) => ", because you are not in that group any more".into(),
        Some(UnsentReason::Refused(code)) => format!(", because the relay refused it ({})", code.name()),
        Some(UnsentReason::BadAnswer) => ", because the relay's answer about them does not verify".into(),
    }
}
