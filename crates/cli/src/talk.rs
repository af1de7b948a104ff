//! `sealwire send`, `listen` and `history`.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use sealwire_client::{Client, Command, Error, Event, Incoming, MessageState, Part, Refusal, StoredMessage, To};
use sealwire_wire::content::BYTES;
use sealwire_wire::limits::MESSAGE_MAX;
use serde_json::{Value, json};

use crate::args::{Listen, Send, Wait};
use crate::home::{self, PATIENCE, Session, Who};
use crate::notice::{Names, Notice, notice, state_name};
use crate::output::{Exit, Failure, Screen, at, merge, part_fields, said};
use crate::terminal;

pub(crate) async fn send(home: &Path, screen: Screen, options: &Send) -> Result<(), Failure> {
    let part = part(options)?;
    let mut session = Session::open(home, screen).await?;
    let to = match Who::parse(&options.to, &session.profile)? {
        Who::Handle(handle) => {
            session.writes_to = Some(handle.clone());
            To::Handle(handle)
        }
        Who::Account(account) => To::Account(account),
    };
    let sent = session.client.send(to.clone(), part).await?;
    let wanted = match options.wait {
        Wait::Accepted => MessageState::Accepted,
        Wait::Delivered => MessageState::Delivered,
        Wait::Read => MessageState::Read,
    };
    let reached = session.wait(Duration::from_secs(options.timeout), sent.reached(wanted)).await;
    let state = session.client.state(sent.number).await?.unwrap_or(MessageState::Queued);
    let fields = json!({ "number": sent.number, "to": options.to, "state": state_name(state) });
    screen.object("sent", fields)?;
    let ended = match reached {
        Ok(_) => {
            screen.say(state_name(state));
            Ok(())
        }
        Err(_) if state == MessageState::Unsent => Err(unsent(&mut session, &to).await),
        Err(failure) => Err(not_yet(state, wanted, failure)),
    };
    session.close().await;
    ended
}

/// Standard input is text where it is UTF-8, unless `--bytes` says otherwise.
fn part(options: &Send) -> Result<Part, Failure> {
    if options.text != ["-"] {
        if options.bytes {
            return Err(Failure::new(
                Exit::Usage,
                "bytes come from standard input: sealwire send --bytes WHOM - < FILE",
            ));
        }
        return not_empty(Part::Text(options.text.join(" ")));
    }
    let mut bytes = Vec::new();
    // One byte more than can fit tells that there was more.
    std::io::stdin().lock().take(MESSAGE_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MESSAGE_MAX {
        let words = format!(
            "standard input has more than a message can hold ({MESSAGE_MAX} bytes with its padding); nothing was sent. Larger things will be attachments"
        );
        return Err(Failure::new(Exit::Refused, words));
    }
    let media_type = || options.media_type.clone().unwrap_or_else(|| BYTES.to_owned());
    not_empty(match String::from_utf8(bytes) {
        Ok(text) if !options.bytes => Part::Text(text),
        Ok(text) => Part::Bytes { media_type: media_type(), bytes: text.into_bytes() },
        Err(error) => Part::Bytes { media_type: media_type(), bytes: error.into_bytes() },
    })
}

fn not_empty(part: Part) -> Result<Part, Failure> {
    match &part {
        Part::Text(text) if text.is_empty() => Err(Failure::new(Exit::Usage, "there is nothing to send")),
        _ => Ok(part),
    }
}

/// Why a message will not be sent. The SDK does not say it of one message, so the contact is asked for.
async fn unsent(session: &mut Session, to: &To) -> Failure {
    let client = session.client.clone();
    let asked = match to {
        To::Handle(handle) => {
            let handle = handle.to_string();
            session.wait(PATIENCE, async move { client.find(&handle).await }).await
        }
        To::Account(account) => session.known_contact(&account.to_string()).await,
    };
    match asked {
        Ok(contact) if contact.retired => Error::Refused(Refusal::ContactRetired).into(),
        Ok(_) => Failure::new(
            Exit::Refused,
            "the relay did not take it, and it will not be sent; `sealwire doctor` may say more",
        ),
        Err(failure) => Failure::new(Exit::Refused, format!("not sent: {}", failure.words)),
    }
}

fn not_yet(state: MessageState, wanted: MessageState, failure: Failure) -> Failure {
    let words = match (state, failure.exit) {
        (MessageState::Queued, Exit::Offline) => {
            format!(
                "saved; it goes out when the relay is back and any `sealwire` command runs. For now {}",
                failure.words
            )
        }
        (MessageState::Queued, Exit::Failed) => {
            "saved, and the relay has not accepted it yet; it goes out with the next `sealwire` command".to_owned()
        }
        (MessageState::Queued, _) => format!("saved, but: {}", failure.words),
        (_, Exit::Failed | Exit::Offline) => format!("{}, but not {} yet", state_name(state), state_name(wanted)),
        (_, _) => failure.words,
    };
    Failure::new(failure.exit, words)
}

pub(crate) async fn listen(home: &Path, screen: Screen, options: &Listen) -> Result<(), Failure> {
    let (client, mut events) = home::open(home).await?;
    let mut names = Names::of(client.clone());
    let (mut left, mut connected) = (options.once, false);
    while let Some(event) = events.next().await {
        let message = match &event {
            Event::Message(message) => {
                show(screen, message, false)?;
                message
            }
            Event::Request(request) => {
                show(screen, &request.message, true)?;
                request_hint(&client, screen, &request.message, options.accept).await?;
                &request.message
            }
            other => {
                // A relay that stays away is told once, not at every attempt.
                let repeated = matches!(other, Event::Disconnected { .. }) && !std::mem::take(&mut connected);
                connected |= matches!(other, Event::Connected);
                if !repeated && let Some(notice) = notice(other, &mut names).await {
                    told(screen, &notice)?;
                }
                continue;
            }
        };
        left = left.map(|left| left - 1);
        if left == Some(0) {
            // It is out, so it is processed; nobody asks for the next event, which would say so.
            client.command(Command::Shown(message.number)).await?;
            if client.is_connected() {
                home::settle(&client, Duration::from_secs(2)).await;
            }
            break;
        }
    }
    client.close().await;
    Ok(())
}

async fn request_hint(client: &Client, screen: Screen, message: &Incoming, accept: bool) -> Result<(), Failure> {
    if accept {
        client.accept(message.from).await?;
        return Ok(());
    }
    let who = sender(message);
    screen.say(&format!(
        "{who} is not a contact and learns nothing yet: `sealwire contacts accept {who}`, or `sealwire block {who}`"
    ));
    Ok(())
}

/// An event beside the messages: a line of its own for programs, a sentence for people.
fn told(screen: Screen, notice: &Notice) -> Result<(), Failure> {
    let account = notice.account.map(|account| account.to_string());
    screen.object("notice", json!({ "event": notice.kind, "account": account, "text": notice.words }))?;
    match notice.ends {
        Some(exit) => Err(Failure::new(exit, notice.words.clone())),
        None => {
            screen.say(&notice.words);
            Ok(())
        }
    }
}

pub(crate) fn sender(message: &Incoming) -> String {
    message.handle.as_ref().map_or_else(|| message.from.to_string(), ToString::to_string)
}

fn show(screen: Screen, message: &Incoming, request: bool) -> Result<(), Failure> {
    screen.object("message", incoming(message, request))?;
    let mark = if request { " (request)" } else { "" };
    let head = format!("{} {}{mark}:", at(message.at), sender(message));
    screen.headed(&head, &terminal::indented(&said(&message.content.part), 4))
}

pub(crate) fn incoming(message: &Incoming, request: bool) -> Value {
    let fields = json!({
        "number": message.number,
        "from": message.from.to_string(),
        "handle": message.handle.as_ref().map(ToString::to_string),
        "id": message.id.to_string(),
        "at_ms": message.at.0,
        "request": request,
        "in_reply_to": message.content.in_reply_to.map(|id| id.to_string()),
    });
    merge(fields, part_fields(&message.content.part))
}

pub(crate) async fn history(home: &Path, screen: Screen, who: &str, last: u32) -> Result<(), Failure> {
    let session = Session::open(home, screen).await?;
    let contact = session.known_contact(who).await?;
    let name = contact.handle.map_or_else(|| contact.account.to_string(), |handle| handle.to_string());
    for message in session.client.history(contact.account, u64::MAX, last).await? {
        let state = match message.incoming {
            true => None,
            false => session.client.state(message.number).await?,
        };
        let fields = json!({
            "number": message.number,
            "with": contact.account.to_string(),
            "handle": name,
            "incoming": message.incoming,
            "at_ms": message.at.0,
            "state": state.map(state_name),
        });
        screen.object("history", merge(fields, part_fields(&message.content.part)))?;
        earlier(screen, &message, &name, state)?;
    }
    session.client.close().await;
    Ok(())
}

/// A message of the history, as a line.
pub(crate) fn earlier(
    screen: Screen,
    message: &StoredMessage,
    name: &str,
    state: Option<MessageState>,
) -> Result<(), Failure> {
    let from = if message.incoming { name } else { "you" };
    let state = state.map(|state| format!(" ({})", state_name(state))).unwrap_or_default();
    let head = format!("{} {from}{state}:", at(message.at));
    screen.headed(&head, &terminal::indented(&said(&message.content.part), 4))
}
