//! `sealwire send`, `listen` and `history`.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use sealwire_client::{
    Client, Command, Error, Event, Incoming, MessageState, Mode, Part, Refusal, StoredMessage, Talk, To, UnsentReason,
};
use sealwire_wire::content::BYTES;
use sealwire_wire::limits::MESSAGE_MAX;
use serde_json::{Value, json};

use crate::args::{Listen, Send, Wait};
use crate::home::{self, PATIENCE, Session, Who};
use crate::notice::{Names, Notice, because, notice, short, state_name};
use crate::output::{Exit, Failure, Screen, at, merge, part_fields, said};
use crate::terminal;

pub(crate) async fn send(home: &Path, screen: Screen, options: &Send) -> Result<(), Failure> {
    let part = part(options)?;
    if options.group && !matches!(options.wait, Wait::Accepted) {
        return Err(Failure::new(Exit::Usage, "the members of a group give no receipts: only `--wait accepted`"));
    }
    let mut session = Session::open(home, screen).await?;
    let to = match options.group {
        true => To::Group(home::group(&session.client, &options.to).await?.conversation),
        false => match Who::parse(&options.to, &session.profile)? {
            Who::Handle(handle) => {
                session.writes_to = Some(handle.clone());
                To::Handle(handle)
            }
            Who::Account(account) => To::Account(account),
        },
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
        Err(_) if state == MessageState::Unsent => Err(unsent(&mut session, &to, sent.number).await),
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

/// Why a message will not be sent. Where the reason was not told, the contact is asked for.
async fn unsent(session: &mut Session, to: &To, number: u64) -> Failure {
    let told = session.why_unsent(number).await;
    match (told, session.client.mode()) {
        (Some(UnsentReason::NoCommonMode), Mode::Mls) => {
            let words = "not sent: their account is for direct mode, which has no forward secrecy, and yours is for conversations: nothing is ever sent by the weaker way because the other side has no better one. Ask them to make an account for conversations, or write from one that `sealwire init --direct` makes in another --home";
            return Failure::new(Exit::Refused, words);
        }
        (Some(UnsentReason::NoCommonMode), Mode::Direct) => {
            let words = "not sent: their account is for conversations, which one for direct mode does not reach; `sealwire init` without --direct makes one that does, in another --home";
            return Failure::new(Exit::Refused, words);
        }
        (Some(reason @ (UnsentReason::NoMember | UnsentReason::Refused(_))), _) => {
            return Failure::new(Exit::Refused, format!("not sent{}", because(Some(reason))));
        }
        _ => {}
    }
    let client = session.client.clone();
    let asked = match to {
        To::Handle(handle) => {
            let handle = handle.to_string();
            session.wait(PATIENCE, async move { client.find(&handle).await }).await
        }
        To::Account(account) => session.known_contact(&account.to_string()).await,
        To::Group(_) => {
            return Failure::new(
                Exit::Refused,
                "not sent: you are not in that group any more, or the relay refused it",
            );
        }
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
    names.learn_groups().await;
    let (mut left, mut connected) = (options.once, false);
    while let Some(event) = events.next().await {
        let message = match &event {
            Event::Message(message) => {
                show(screen, message, false, &mut names).await?;
                message
            }
            Event::Request(request) => {
                show(screen, &request.message, true, &mut names).await?;
                request_hint(&client, screen, &request.message, options.accept, &mut names).await?;
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

async fn request_hint(
    client: &Client,
    screen: Screen,
    message: &Incoming,
    accept: bool,
    names: &mut Names,
) -> Result<(), Failure> {
    if accept {
        client.accept(message.from).await?;
        return Ok(());
    }
    let who = sender(message, names).await;
    screen.say(&format!(
        "{who} is not a contact and learns nothing yet: `sealwire contacts accept {who}`, or `sealwire block {who}`"
    ));
    Ok(())
}

/// An event beside the messages: a line of its own for programs, a sentence for people.
fn told(screen: Screen, notice: &Notice) -> Result<(), Failure> {
    let account = notice.account.map(|account| account.to_string());
    let conversation = notice.conversation.map(|conversation| conversation.to_string());
    let fields =
        json!({ "event": notice.kind, "account": account, "conversation": conversation, "text": notice.words });
    screen.object("notice", fields)?;
    match notice.ends {
        Some(exit) => Err(Failure::new(exit, notice.words.clone())),
        None => {
            screen.say(&notice.words);
            Ok(())
        }
    }
}

pub(crate) async fn sender(message: &Incoming, names: &mut Names) -> String {
    names.sender(message).await.unwrap_or_else(|| message.from.to_string())
}

pub(crate) async fn show(screen: Screen, message: &Incoming, request: bool, names: &mut Names) -> Result<(), Failure> {
    screen.object("message", incoming(message, names.sender(message).await, request))?;
    let mark = if request { " (request)" } else { "" };
    let (who, within) = (sender(message, names).await, within(message, names).await);
    let head = format!("{} {who}{within}{mark}:", at(message.at));
    screen.headed(&head, &terminal::indented(&said(&message.content.part), 4))
}

/// In which group a message came, behind its sender: nobody can pass for another by the name of a group.
pub(crate) async fn within(message: &Incoming, names: &mut Names) -> String {
    match message.group {
        Some(group) => format!(" in {}", names.group(group).await),
        None => String::new(),
    }
}

fn incoming(message: &Incoming, handle: Option<String>, request: bool) -> Value {
    let fields = json!({
        "number": message.number,
        "from": message.from.to_string(),
        "group": message.group.map(|group| group.to_string()),
        "handle": handle,
        "id": message.id.to_string(),
        "at_ms": message.at.0,
        "request": request,
        "in_reply_to": message.content.in_reply_to.map(|id| id.to_string()),
    });
    merge(fields, part_fields(&message.content.part))
}

pub(crate) async fn history(home: &Path, screen: Screen, who: &str, group: bool, last: u32) -> Result<(), Failure> {
    let session = Session::open(home, screen).await?;
    let (talk, with, name) = match group {
        true => {
            let view = home::group(&session.client, who).await?;
            (Talk::Group(view.conversation), view.conversation.to_string(), short(view.conversation))
        }
        false => {
            let contact = session.known_contact(who).await?;
            let name = contact.handle.map_or_else(|| contact.account.to_string(), |handle| handle.to_string());
            (Talk::Person(contact.account), contact.account.to_string(), name)
        }
    };
    let mut names = Names::of(session.client.clone());
    for message in session.client.history(talk, u64::MAX, last).await? {
        let state = match message.incoming {
            true => None,
            false => session.client.state(message.number).await?,
        };
        let author = match message.from {
            Some(from) => names.name(from).await,
            None => name.clone(),
        };
        let fields = json!({
            "number": message.number,
            "with": with,
            "from": message.from.map(|from| from.to_string()),
            "handle": if group { Value::Null } else { json!(name) },
            "incoming": message.incoming,
            "at_ms": message.at.0,
            "state": state.map(state_name),
        });
        screen.object("history", merge(fields, part_fields(&message.content.part)))?;
        earlier(screen, &message, &author, state)?;
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
