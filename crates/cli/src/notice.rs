//! Events as sentences. Whatever needs a person names the command that decides it.

use std::collections::BTreeMap;

use sealwire_client::{AccountId, Client, Event, LogInProblem, MessageState, QuarantineReason, UnsentReason};
use sealwire_wire::Code;

use crate::output::Exit;
use crate::terminal;

/// An event, told.
pub(crate) struct Notice {
    /// For programs.
    pub(crate) kind: &'static str,
    /// Whom it is about.
    pub(crate) account: Option<AccountId>,
    pub(crate) words: String,
    /// Whether a person ought to know in the middle of something else.
    pub(crate) for_person: bool,
    /// Whether nothing goes on until a person does something.
    pub(crate) ends: Option<Exit>,
}

impl Notice {
    fn note(kind: &'static str, account: Option<AccountId>, words: String) -> Notice {
        Notice { kind, account, words, for_person: false, ends: None }
    }

    fn warning(kind: &'static str, account: Option<AccountId>, words: String) -> Notice {
        Notice { for_person: true, ..Notice::note(kind, account, words) }
    }

    fn end(kind: &'static str, exit: Exit, words: String) -> Notice {
        Notice { ends: Some(exit), ..Notice::warning(kind, None, words) }
    }
}

/// What accounts are called. Asks again for those that it does not know.
pub(crate) struct Names {
    client: Client,
    known: BTreeMap<AccountId, String>,
}

impl Names {
    pub(crate) fn of(client: Client) -> Names {
        Names { client, known: BTreeMap::new() }
    }

    pub(crate) async fn name(&mut self, account: AccountId) -> String {
        if !self.known.contains_key(&account) {
            // A client that is closed knows nobody; then the id has to do.
            let contacts = self.client.contacts().await.unwrap_or_default();
            let named = contacts.into_iter().filter_map(|contact| Some((contact.account, contact.handle?.to_string())));
            self.known.extend(named);
        }
        self.known.get(&account).cloned().unwrap_or_else(|| account.to_string())
    }
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

fn because(reason: Option<UnsentReason>) -> String {
    match reason {
        None => String::new(),
        Some(UnsentReason::NotFound) => ", because nobody is called that there".into(),
        Some(UnsentReason::Retired) => ", because the account was ended".into(),
        Some(UnsentReason::NoCommonMode) => ", because they have no device that this one can write to".into(),
        Some(UnsentReason::Refused(code)) => format!(", because the relay refused it ({})", code.name()),
        Some(UnsentReason::BadAnswer) => ", because the relay's answer about them does not verify".into(),
    }
}
