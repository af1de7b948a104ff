//! `sealwire doctor`: looks at everything that can be wrong, and says what to try.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealwire_client::{ClientStore, ConversationKind, Mode, QuarantineReason};
use serde_json::json;

use crate::home::{KEY, Session, settle};
use crate::init::mode_words;
use crate::notice::{called, quarantine, short};
use crate::output::{Exit, Failure, Screen};
use crate::people::{has_written, name};

/// Before this program was written: 2026-01-01. A clock that shows less is wrong.
const WRITTEN: Duration = Duration::from_secs(1_767_225_600);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Ok,
    Warn,
    Fail,
}

/// What was found so far.
struct Report {
    screen: Screen,
    worst: Option<Exit>,
}

pub(crate) async fn doctor(home: &Path, screen: Screen, patience: Duration) -> Result<(), Failure> {
    let mut report = Report { screen, worst: None };
    report.ok("version", env!("CARGO_PKG_VERSION"))?;
    clock(&mut report)?;
    files(&mut report, home)?;
    match ClientStore::wants_passphrase(home) {
        Ok(true) => report.ok("lock", "a passphrase")?,
        Ok(false) => report.ok("lock", "a key file: protects no better than the disk that it is on")?,
        Err(error) => report.fail("store", Exit::Failed, &error.to_string(), "")?,
    }
    if report.worst.is_none() {
        match Session::open(home, screen).await {
            Ok(session) => account(&mut report, session, patience).await?,
            Err(failure) => report.fail("store", Exit::Failed, &failure.words, "")?,
        }
    }
    match report.worst {
        None => Ok(()),
        Some(exit) => Err(Failure::new(exit, "something is wrong; see the lines above")),
    }
}

fn clock(report: &mut Report) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match now < WRITTEN {
        true => report.warn("clock", "this machine's clock is years behind", "set it: times and waits depend on it"),
        false => report.ok("clock", "plausible"),
    }
}

#[cfg(unix)]
fn files(report: &mut Report, home: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = std::fs::metadata(home) else {
        return report.fail(
            "home",
            Exit::Failed,
            &format!("{} is not there", home.display()),
            "make an account: `sealwire init NAME@HOST`",
        );
    };
    let mut open = Vec::new();
    if metadata.permissions().mode() & 0o077 != 0 {
        open.push(home.to_owned());
    }
    for file in [KEY, "client.db", "client.keys", "client.journal"] {
        let path = home.join(file);
        if std::fs::metadata(&path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0) {
            open.push(path);
        }
    }
    for path in &open {
        let path = path.display();
        report.warn("permissions", &format!("others on this machine can use {path}"), &format!("chmod go= {path}"))?;
    }
    match open.is_empty() {
        true => report.ok("home", &format!("{}, for its owner only", home.display())),
        false => Ok(()),
    }
}

#[cfg(not(unix))]
fn files(report: &mut Report, home: &Path) -> Result<(), Failure> {
    report.ok("home", &format!("{}; its permissions are not checked on this system", home.display()))
}

async fn account(report: &mut Report, mut session: Session, patience: Duration) -> Result<(), Failure> {
    report.ok("store", "opens")?;
    let connected = session.connected(patience).await;
    if connected.is_ok() {
        // What has only just begun to go out is not worth a warning.
        settle(&session.client, Duration::from_secs(2)).await;
    }
    let profile = session.client.profile().await?;
    match profile.registered {
        true => report.ok("account", &format!("{}, registered", profile.handle))?,
        false => report.fail(
            "account",
            Exit::Refused,
            &format!("{} is not registered", profile.handle),
            "repeat `sealwire init`",
        )?,
    }
    if profile.retired {
        report.fail("account", Exit::Refused, "it was ended", "make another in another --home")?;
    }
    match connected {
        Ok(()) => report.ok("relay", "reachable, and logged in")?,
        Err(failure) if failure.exit == Exit::Offline => {
            let words = failure.words.replace("; `sealwire doctor` says more", "");
            report.fail("relay", failure.exit, &words, "check the network, and that the relay runs")?;
        }
        Err(failure) => report.fail("relay", failure.exit, &failure.words, "")?,
    }
    match profile.queued {
        0 => report.ok("outbox", "empty")?,
        queued => report.warn("outbox", &format!("{queued} wait for the relay"), "they go out when it is reachable")?,
    }
    contacts(report, &session).await?;
    if session.client.mode() == Mode::Mls {
        conversations(report, &session).await?;
    }
    rejected(report, &session).await?;
    report.ok("mode", mode_words(session.client.mode()))?;
    session.close().await;
    Ok(())
}

async fn contacts(report: &mut Report, session: &Session) -> Result<(), Failure> {
    let contacts = session.client.contacts().await?;
    for contact in &contacts {
        let name = name(contact);
        if contact.handle_moved {
            report.warn(
                "contact",
                &format!("{name} moved to another account"),
                &format!("`sealwire verify {name}`"),
            )?;
        }
        if !contact.accepted && !contact.blocked && has_written(&session.client, contact).await? {
            let try_this = format!("`sealwire contacts accept {name}`, or `sealwire block {name}`");
            report.warn("contact", &format!("{name} wants to write to you"), &try_this)?;
        }
    }
    report.ok("contacts", &format!("{}, {} verified", contacts.len(), contacts.iter().filter(|c| c.verified).count()))
}

async fn conversations(report: &mut Report, session: &Session) -> Result<(), Failure> {
    let mut views = session.client.conversations().await?;
    // What this device was taken out of has no members here.
    views.retain(|view| !view.members.is_empty() || view.waiting > 0);
    for view in &views {
        let name = match view.kind {
            ConversationKind::Group => called(view),
            ConversationKind::OneToOne => format!("the conversation of two {}", short(view.conversation)),
        };
        if view.waiting > 0 {
            let words = format!("{} changes of {name} wait", view.waiting);
            report.warn(
                "conversation",
                &words,
                "they are made when the relay is reached, and those whom they add have been there",
            )?;
        } else if !view.active {
            let words = format!("{name} cannot be followed: a change of it was missed");
            report.warn(
                "conversation",
                &words,
                "stay connected: the next member's device that is there adds this one again",
            )?;
        }
    }
    let groups = views.iter().filter(|view| view.kind == ConversationKind::Group).count();
    report.ok("conversation", &format!("{} of two, {groups} groups", views.len() - groups))
}

async fn rejected(report: &mut Report, session: &Session) -> Result<(), Failure> {
    let mut reasons: BTreeMap<QuarantineReason, u32> = BTreeMap::new();
    for rejected in session.client.quarantine().await? {
        *reasons.entry(rejected.reason).or_default() += 1;
    }
    if reasons.is_empty() {
        return report.ok("rejected", "nothing");
    }
    for (reason, count) in reasons {
        let words = format!("{count}: {}", quarantine(reason));
        match reason {
            QuarantineReason::Blocked => report.ok("rejected", &words)?,
            QuarantineReason::Unsupported => report.warn("rejected", &words, "look for a newer sealwire")?,
            _ => report.warn(
                "rejected",
                &words,
                "nothing of it was shown; if it goes on, ask the sender and the relay's operator",
            )?,
        }
    }
    Ok(())
}

impl Report {
    fn ok(&mut self, check: &str, words: &str) -> Result<(), Failure> {
        self.tell(Found::Ok, check, words, "")
    }

    fn warn(&mut self, check: &str, words: &str, try_this: &str) -> Result<(), Failure> {
        self.tell(Found::Warn, check, words, try_this)
    }

    fn fail(&mut self, check: &str, exit: Exit, words: &str, try_this: &str) -> Result<(), Failure> {
        // The first failure explains the later ones.
        self.worst.get_or_insert(exit);
        self.tell(Found::Fail, check, words, try_this)
    }

    fn tell(&self, found: Found, check: &str, words: &str, try_this: &str) -> Result<(), Failure> {
        let found = match found {
            Found::Ok => "ok",
            Found::Warn => "warn",
            Found::Fail => "fail",
        };
        let wanted = (!try_this.is_empty()).then_some(try_this);
        self.screen.object("check", json!({ "check": check, "found": found, "text": words, "try": wanted }))?;
        let try_this = wanted.map(|wanted| format!("\n                   try: {wanted}")).unwrap_or_default();
        self.screen.headed(&format!("{found:<5}{check:<13}"), &format!("{words}{try_this}"))
    }
}
