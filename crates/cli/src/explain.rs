//! `sealwire explain`: why something could not be opened, and what was done about it. Redacted: neither bytes nor names, but
//! those of the own conversations.

use std::path::Path;

use sealwire_client::{ConversationView, QuarantineReason, StoredQuarantine};
use serde_json::json;

use crate::home::Session;
use crate::notice::{called, quarantine, short};
use crate::output::{Exit, Failure, Screen, at, hex, merge};

pub(crate) async fn explain(home: &Path, screen: Screen, envelope: Option<&str>) -> Result<(), Failure> {
    let session = Session::open(home, screen).await?;
    let views = session.client.conversations().await?;
    let wanted = envelope.map(str::to_lowercase);
    let is_wanted = |rejected: &StoredQuarantine| {
        let id = rejected.envelope.map(|envelope| hex(&envelope.0)).unwrap_or_default();
        wanted.as_ref().is_none_or(|wanted| !wanted.is_empty() && id.starts_with(wanted))
    };
    let rejected: Vec<_> = session.client.quarantine().await?.into_iter().filter(is_wanted).collect();
    if let (Some(envelope), true) = (envelope, rejected.is_empty()) {
        let words = format!(
            "nothing was rejected whose envelope begins with {envelope}; `sealwire explain` lists what was, and no message \
             is shown as an error that this account was not to read"
        );
        return Err(Failure::new(Exit::Refused, words));
    }
    let lost: Vec<_> = views.iter().filter(|view| wanted.is_none() && !view.active && !view.out).collect();
    if rejected.is_empty() && lost.is_empty() {
        screen.line("nothing was rejected, and every conversation can be followed")?;
    }
    for rejected in &rejected {
        one(screen, rejected, &views)?;
    }
    for view in lost {
        following(screen, view)?;
    }
    session.close().await;
    Ok(())
}

fn one(screen: Screen, rejected: &StoredQuarantine, views: &[ConversationView]) -> Result<(), Failure> {
    let (why, done) = (quarantine(rejected.reason), done(rejected.reason));
    let log = rejected.conversation.map_or_else(
        || "the inbox".to_owned(),
        |id| match views.iter().find(|view| view.conversation == id).filter(|view| !view.name.is_empty()) {
            Some(view) => called(view),
            None => format!("conversation {}", short(id)),
        },
    );
    if screen.json {
        let fields = json!({
            "conversation": rejected.conversation.map(|id| hex(&id.0)),
            "position": rejected.position.0,
            "envelope": rejected.envelope.map(|envelope| hex(&envelope.0)),
            "at": at(rejected.at),
            "hash": hex(&rejected.hash),
            "reason": format!("{:?}", rejected.reason),
        });
        return screen.object("rejected", merge(fields, json!({ "why": why, "done": done })));
    }
    let envelope =
        rejected.envelope.map_or_else(|| "no envelope".to_owned(), |id| format!("envelope {}", &hex(&id.0)[..16]));
    screen.line(&format!("{}  {log}, position {}, {envelope}", at(rejected.at), rejected.position.0))?;
    screen.line(&format!("  why:   {why}"))?;
    screen.line(&format!("  done:  {done}"))
}

fn following(screen: Screen, view: &ConversationView) -> Result<(), Failure> {
    let why = "a change of it was missed, or this device's records of it are lost: what comes cannot be opened";
    let done = "this device has asked in the conversation to be added again, and asks again until any member's device, or \
                another one of yours, does; then it asks for what it has missed";
    if screen.json {
        let fields = json!({ "conversation": hex(&view.conversation.0), "read_upto": view.read_upto.0 });
        return screen.object("behind", merge(fields, json!({ "why": why, "done": done })));
    }
    screen.line(&format!("{} cannot be followed behind position {}", called(view), view.read_upto.0))?;
    screen.line(&format!("  why:   {why}"))?;
    screen.line(&format!("  done:  {done}"))
}

/// What the engine has done, and what comes of it.
fn done(reason: QuarantineReason) -> &'static str {
    match reason {
        QuarantineReason::Malformed | QuarantineReason::Rejected | QuarantineReason::BadContent => {
            "passed over, nothing of it was shown, and nothing else differs; what a member has said and did not arrive is asked \
             for by its content"
        }
        QuarantineReason::Unsupported => "passed over; a newer version reads what comes from then on, and not this",
        QuarantineReason::UnknownSender | QuarantineReason::BadSender => {
            "passed over after a look-up; if it was theirs, their device sends it again once their account verifies"
        }
        QuarantineReason::OtherKey => {
            "passed over; keys were replaced since, and its sender, who hears of the new ones, seals it again"
        }
        QuarantineReason::Blocked => {
            "dropped; its sender learns nothing. `sealwire unblock` takes that back for what comes"
        }
        QuarantineReason::NotAccepted => "dropped; once you accept them, what they write is shown",
        QuarantineReason::TooLate => "passed over; its sender has no confirmation of it",
        QuarantineReason::InvalidCommit => "passed over by every member alike; the conversation goes on as it was",
        QuarantineReason::OutOfOrder => {
            "passed over by every member alike; its sender is told, reads on, and sends it again"
        }
        QuarantineReason::OtherEpoch => {
            "passed over; its sender's device notices that it stands elsewhere, and what it says is asked for again"
        }
        QuarantineReason::BadWelcome => {
            "passed over; if this device is in that conversation's roster it asks to be added again, with new keys"
        }
    }
}
