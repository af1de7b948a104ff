//! `sealwire contacts`, `verify`, `block` and `unblock`.

use std::path::Path;

use sealwire_client::{Client, Command, ContactView, Talk};
use serde_json::{Value, json};

use crate::args::{Answer, Contacts, Verify};
use crate::ask;
use crate::home::Session;
use crate::output::{Exit, Failure, Screen};

pub(crate) async fn contacts(home: &Path, screen: Screen, what: &Option<Contacts>) -> Result<(), Failure> {
    let mut session = Session::open(home, screen).await?;
    match what {
        None | Some(Contacts::List) => list(&session).await?,
        Some(Contacts::Add { handle }) => {
            let contact = session.contact(handle).await?;
            show(screen, &contact)?;
            if !contact.verified {
                screen.say(&format!("`sealwire verify {}` compares numbers", name(&contact)));
            }
        }
        Some(Contacts::Accept { who }) => {
            let contact = session.known_contact(who).await?;
            session.client.accept(contact.account).await?;
            show(screen, &fresh(&session.client, contact).await?)?;
            session.carry_out().await;
            return Ok(());
        }
    }
    session.close().await;
    Ok(())
}

async fn list(session: &Session) -> Result<(), Failure> {
    let contacts = session.client.contacts().await?;
    if contacts.is_empty() {
        session.screen().say("no contacts yet: `sealwire contacts add NAME@HOST`, or write to somebody");
    }
    for contact in &contacts {
        if contact.accepted || contact.blocked || has_written(&session.client, contact).await? {
            show(session.screen(), contact)?;
        } else {
            session.screen().object("contact", fields(contact))?;
            session
                .screen()
                .headed(&name(contact), &format!("known from a group, not verified  {}", contact.account))?;
        }
    }
    Ok(())
}

/// Whether somebody who was not accepted has written to this account, or is only in a group with it.
pub(crate) async fn has_written(client: &Client, contact: &ContactView) -> Result<bool, Failure> {
    Ok(!client.history(Talk::Person(contact.account), u64::MAX, 1).await?.is_empty())
}

pub(crate) async fn verify(home: &Path, screen: Screen, options: &Verify) -> Result<(), Failure> {
    let mut session = Session::open(home, screen).await?;
    let contact = session.contact(&options.who).await?;
    if contact.handle_moved || options.answer.adopt || options.answer.keep {
        moved(&session, &contact, &options.answer).await?;
    } else if options.answer.undo {
        mark(&session, contact, false).await?;
    } else {
        compare(&session, contact, &options.answer).await?;
    }
    session.close().await;
    Ok(())
}

async fn compare(session: &Session, contact: ContactView, answer: &Answer) -> Result<(), Failure> {
    let screen = session.screen();
    if let Some(digits) = &answer.number {
        if !contact.safety_number.matches(digits) {
            let words = format!(
                "these are not the digits of you and {}: it is not marked. If both of you read them right, somebody else is in between: tell each other by another way, and do not write there",
                name(&contact)
            );
            return Err(Failure::new(Exit::Refused, words));
        }
        return mark(session, contact, true).await;
    }
    if answer.matches {
        return mark(session, contact, true).await;
    }
    screen.object("contact", fields(&contact))?;
    screen.line(&format!("The numbers of you and {} ({}):\n", name(&contact), states(&contact)))?;
    for line in contact.safety_number.to_string().lines() {
        screen.line(&format!("    {line}"))?;
    }
    if contact.changed_since_verified {
        screen.say("their devices changed since you compared, by their own signature; the numbers are the same");
    }
    if screen.json || !ask::is_possible() {
        screen.say("compare them in person or on a call, then run this again with --matches, or with --number DIGITS");
        return Ok(());
    }
    if ask::yes("\nCompare with them in person or on a call: do they match?")? {
        return mark(session, contact, true).await;
    }
    screen.say("nothing was marked");
    Ok(())
}

async fn mark(session: &Session, contact: ContactView, verified: bool) -> Result<(), Failure> {
    session.client.set_verified(contact.account, verified).await?;
    let contact = fresh(&session.client, contact).await?;
    show(session.screen(), &contact)
}

async fn moved(session: &Session, contact: &ContactView, answer: &Answer) -> Result<(), Failure> {
    let screen = session.screen();
    let Some(handle) = contact.handle.clone() else {
        return Err(Failure::new(Exit::Refused, "this contact has no handle, so none moved"));
    };
    if answer.adopt || answer.keep {
        session.client.command(Command::Decide { handle: handle.clone(), adopt: answer.adopt }).await?;
        let known = session.client.find(&handle.to_string()).await?;
        show(screen, &known)?;
        if answer.adopt {
            screen
                .say(&format!("{handle} is the new account from now on, and not verified: `sealwire verify {handle}`"));
        }
        return Ok(());
    }
    screen.object("contact", fields(contact))?;
    let words = format!(
        "{handle} now belongs to another account than the one that you verified, and nothing is sent there until you decide. Ask them in person whether they made a new account. If so: `sealwire verify {handle} --adopt`, then compare numbers again. If not: `sealwire verify {handle} --keep`"
    );
    Err(Failure::new(Exit::Refused, words))
}

pub(crate) async fn set_blocked(home: &Path, screen: Screen, who: &str, blocked: bool) -> Result<(), Failure> {
    let mut session = Session::open(home, screen).await?;
    // Somebody who has not written yet can be blocked, too.
    let contact = session.contact(who).await?;
    let command = if blocked { Command::Block(contact.account) } else { Command::Unblock(contact.account) };
    session.client.command(command).await?;
    show(screen, &fresh(&session.client, contact).await?)?;
    session.carry_out().await;
    Ok(())
}

/// A contact as it is now.
async fn fresh(client: &Client, contact: ContactView) -> Result<ContactView, Failure> {
    let now = client.contacts().await?.into_iter().find(|known| known.account == contact.account);
    Ok(now.unwrap_or(contact))
}

pub(crate) fn name(contact: &ContactView) -> String {
    contact.handle.as_ref().map_or_else(|| contact.account.to_string(), ToString::to_string)
}

fn states(contact: &ContactView) -> String {
    let standing = match (contact.blocked, contact.accepted) {
        (true, _) => "blocked",
        (false, true) => "accepted",
        (false, false) => "wants to write to you",
    };
    let mut states = vec![standing, if contact.verified { "verified" } else { "not verified" }];
    let more = [
        (contact.changed_since_verified, "devices changed since"),
        (contact.handle_moved, "HANDLE MOVED: decide with `sealwire verify`"),
        (contact.retired, "ended their account"),
        (contact.online == Some(true), "online"),
    ];
    states.extend(more.into_iter().filter(|(is, _)| *is).map(|(_, words)| words));
    states.join(", ")
}

fn show(screen: Screen, contact: &ContactView) -> Result<(), Failure> {
    screen.object("contact", fields(contact))?;
    screen.headed(&name(contact), &format!("{}  {}", states(contact), contact.account))
}

fn fields(contact: &ContactView) -> Value {
    json!({
        "account": contact.account.to_string(),
        "handle": contact.handle.as_ref().map(ToString::to_string),
        "accepted": contact.accepted,
        "blocked": contact.blocked,
        "verified": contact.verified,
        "changed_since_verified": contact.changed_since_verified,
        "handle_moved": contact.handle_moved,
        "retired": contact.retired,
        "online": contact.online,
        "safety_number": contact.safety_number.digits(),
    })
}
