//! `sealwire group`: groups, who is in them, and what they may do.

use std::path::Path;
use std::time::Duration;

use sealwire_client::{
    AccountId, Command, ConversationId, ConversationKind, ConversationView, Error, GroupChange, Mode, Refusal, Reply,
    Role,
};
use serde_json::json;

use crate::args::{Group, MemberRole, Patience};
use crate::home::{self, Session, settle};
use crate::notice::{Names, called, short};
use crate::output::{Exit, Failure, Screen, hex};
use crate::terminal;

/// How often a change is looked at. It is told by an event, too, but whoever else changes the group tells the same.
const LOOK: Duration = Duration::from_millis(25);
/// How long a change that a role does not allow waits for news of that role.
const CATCH_UP: Duration = Duration::from_secs(2);

pub(crate) async fn group(home: &Path, screen: Screen, what: &Group) -> Result<(), Failure> {
    let mut session = Session::open(home, screen).await?;
    if session.client.mode() == Mode::Direct {
        return Err(Error::Refused(Refusal::DirectOnly).into());
    }
    match what {
        Group::Create { name, members, patience } => create(&mut session, name, members, patience).await?,
        Group::List => list(&session).await?,
        Group::Show { group } => show(&session, &home::group(&session.client, group).await?).await?,
        Group::Add { group, members, patience } => {
            let view = home::group(&session.client, group).await?;
            let accounts = accounts(&mut session, members).await?;
            let is_done = |view: &ConversationView| accounts.iter().all(|account| role_of(view, *account).is_some());
            change(&mut session, &view, GroupChange::Add(accounts.clone()), patience, is_done).await?;
        }
        Group::Remove { group, member, patience } => {
            let view = home::group(&session.client, group).await?;
            let account = a_member(&session, &view, member).await?;
            if account == session.profile.account {
                return Err(Failure::new(Exit::Usage, "that is you: `sealwire group leave`"));
            }
            let is_done = |view: &ConversationView| role_of(view, account).is_none();
            change(&mut session, &view, GroupChange::Remove(account), patience, is_done).await?;
        }
        Group::Leave { group, patience } => leave(&mut session, group, patience).await?,
        Group::Rename { group, name, patience } => {
            let view = home::group(&session.client, group).await?;
            let is_done = |view: &ConversationView| view.name == *name;
            change(&mut session, &view, GroupChange::Rename(name.clone()), patience, is_done).await?;
        }
        Group::Role { group, member, role, patience } => {
            let view = home::group(&session.client, group).await?;
            let account = a_member(&session, &view, member).await?;
            let role = match role {
                MemberRole::Owner => Role::Owner,
                MemberRole::Admin => Role::Admin,
                MemberRole::Member => Role::Member,
            };
            let is_done = |view: &ConversationView| role_of(view, account) == Some(role);
            change(&mut session, &view, GroupChange::SetRole(account, role), patience, is_done).await?;
        }
    }
    session.close().await;
    Ok(())
}

async fn create(session: &mut Session, name: &str, members: &[String], patience: &Patience) -> Result<(), Failure> {
    let members = accounts(session, members).await?;
    let command = Command::CreateGroup { name: name.to_owned(), members: members.clone() };
    let Reply::Group(id) = session.client.command(command).await? else { return Err(Error::Closed.into()) };
    let is_done = |view: &ConversationView| members.iter().all(|account| role_of(view, *account).is_some());
    until(session, id, patience, is_done).await
}

async fn list(session: &Session) -> Result<(), Failure> {
    let mut groups = session.client.conversations().await?;
    // A group that this account was taken out of has no members here.
    groups.retain(|view| view.kind == ConversationKind::Group && (!view.members.is_empty() || view.waiting > 0));
    if groups.is_empty() {
        session.screen().say("no groups: `sealwire group create NAME MEMBER...`");
    }
    for view in &groups {
        object(session, view).await?;
        line(session, view)?;
    }
    Ok(())
}

async fn show(session: &Session, view: &ConversationView) -> Result<(), Failure> {
    object(session, view).await?;
    line(session, view)?;
    let mut names = Names::of(session.client.clone());
    for (account, role) in &view.members {
        let own = *account == session.profile.account;
        let name = if own { session.profile.handle.to_string() } else { names.name(*account).await };
        let you = if own { ", you" } else { "" };
        session.screen().line(&format!("    {name} {}{you}  {account}", role_name(*role)))?;
    }
    Ok(())
}

async fn object(session: &Session, view: &ConversationView) -> Result<(), Failure> {
    let contacts = session.client.contacts().await?;
    let handle = |account: AccountId| match contacts.iter().find(|contact| contact.account == account) {
        _ if account == session.profile.account => Some(session.profile.handle.to_string()),
        contact => contact.and_then(|contact| contact.handle.as_ref()).map(ToString::to_string),
    };
    let member = |(account, role): &(AccountId, Role)| json!({ "account": account.to_string(), "handle": handle(*account), "role": role_name(*role) });
    let fields = json!({
        "group": view.conversation.to_string(),
        "name": view.name,
        "members": view.members.iter().map(member).collect::<Vec<_>>(),
        "devices": view.devices,
        "active": view.active,
        "epoch": view.epoch,
        "authenticator": hex(&view.authenticator),
        "waiting": view.waiting,
    });
    session.screen().object("group", fields)
}

fn line(session: &Session, view: &ConversationView) -> Result<(), Failure> {
    let own = role_of(view, session.profile.account).map(|role| format!(", you are {}", role_name(role)));
    let waits = match (view.active, view.waiting) {
        (false, 0) => ", waits to be added again: a change was missed",
        (false, _) => ", not there yet: it begins when the relay is reached",
        (true, 0) => "",
        (true, _) => ", changes wait",
    };
    let name = if view.name.is_empty() { "(no name)".to_owned() } else { terminal::line(&view.name) };
    let members = view.members.len();
    let words = format!("{members} members{}{waits}  {}", own.unwrap_or_default(), short(view.conversation));
    session.screen().headed(&name, &words)
}

/// Changes a group, and waits until it is so.
async fn change(
    session: &mut Session,
    view: &ConversationView,
    change: GroupChange,
    patience: &Patience,
    is_done: impl Fn(&ConversationView) -> bool,
) -> Result<(), Failure> {
    let command = Command::Change { conversation: view.conversation, change };
    let mut changed = session.client.command(command.clone()).await;
    if matches!(changed, Err(Error::Refused(Refusal::NotAllowed))) && session.connected(CATCH_UP).await.is_ok() {
        // What changed since this device was last there is read first.
        let deadline = tokio::time::Instant::now() + CATCH_UP;
        while matches!(changed, Err(Error::Refused(Refusal::NotAllowed))) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
            changed = session.client.command(command.clone()).await;
        }
    }
    match changed {
        Err(Error::Refused(Refusal::NotAllowed)) => {
            let role = role_of(view, session.profile.account).map_or("no member", role_name);
            let words = format!(
                "you are {role} in {}, and that is not enough: owners and admins add, remove and name, and owners say who is what. Nothing changed; `sealwire group show {}` says who they are",
                called(view),
                short(view.conversation)
            );
            return Err(Failure::new(Exit::Refused, words));
        }
        done => drop(done?),
    }
    until(session, view.conversation, patience, is_done).await
}

/// Waits until a group is as it was wanted, and shows it.
async fn until(
    session: &mut Session,
    id: ConversationId,
    patience: &Patience,
    is_done: impl Fn(&ConversationView) -> bool,
) -> Result<(), Failure> {
    let client = session.client.clone();
    let waiting = async move {
        loop {
            let view = client.conversation(id).await?.ok_or(Error::Refused(Refusal::UnknownConversation))?;
            if view.waiting == 0 {
                return Ok(view);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = session.wait(Duration::from_secs(patience.timeout), waiting).await;
    let view = match waited {
        Ok(view) => view,
        Err(failure) => return Err(not_yet(session, id, failure).await),
    };
    show(session, &view).await?;
    if is_done(&view) && view.active {
        return Ok(());
    }
    let words =
        "it is not as you wanted: somebody else changed the group meanwhile, or whom you wanted to add cannot be";
    Err(Failure::new(Exit::Refused, words))
}

/// What waits is saved.
async fn not_yet(session: &Session, id: ConversationId, failure: Failure) -> Failure {
    let view = session.client.conversation(id).await.ok().flatten();
    let words = match (failure.exit, view) {
        (Exit::Offline, _) => format!(
            "saved; it is done when the relay is back and any `sealwire` command runs. For now {}",
            failure.words
        ),
        (Exit::Failed, Some(view)) => format!(
            "saved, and {} changes of {} wait: whom they add may have to connect once, so that there are key packages of theirs, and a relay takes four changes a minute. It goes on with the next `sealwire` command",
            view.waiting,
            called(&view)
        ),
        _ => failure.words,
    };
    Failure::new(failure.exit, words)
}

async fn leave(session: &mut Session, group: &str, patience: &Patience) -> Result<(), Failure> {
    let view = home::group(&session.client, group).await?;
    let (id, name) = (view.conversation, called(&view));
    session.client.command(Command::Change { conversation: id, change: GroupChange::Leave }).await?;
    let patience = Duration::from_secs(patience.timeout);
    session.connected(patience).await.map_err(|failure| {
        let words = format!(
            "saved; you leave when the relay is back and any `sealwire` command runs. For now {}",
            failure.words
        );
        Failure::new(failure.exit, words)
    })?;
    if !settle(&session.client, patience).await {
        return Err(Failure::new(Exit::Failed, "saved; the group is told with the next `sealwire` command"));
    }
    let is_out = session.client.conversation(id).await?.is_none_or(|view| view.members.is_empty());
    session.screen().object("left", json!({ "group": id.to_string(), "out": is_out }))?;
    session.screen().line(&match is_out {
        true => format!("you left {name}"),
        false => format!("{name} knows that you want to leave; the member who is connected next takes you out"),
    })
}

/// The accounts of handles and ids; whoever is not known is looked up.
async fn accounts(session: &mut Session, members: &[String]) -> Result<Vec<AccountId>, Failure> {
    let mut accounts = Vec::new();
    for member in members {
        let contact = session.contact(member).await?;
        if !accounts.contains(&contact.account) {
            accounts.push(contact.account);
        }
    }
    Ok(accounts)
}

/// A member of a group by handle or account id.
async fn a_member(session: &Session, view: &ConversationView, text: &str) -> Result<AccountId, Failure> {
    let mut names = Names::of(session.client.clone());
    let with_host = format!("{text}@{}", session.profile.handle.host);
    for (account, _) in &view.members {
        let own = *account == session.profile.account;
        let name = if own { session.profile.handle.to_string() } else { names.name(*account).await };
        if [text, &with_host].contains(&name.as_str()) || account.to_string() == text {
            return Ok(*account);
        }
    }
    let words =
        format!("{text} is not in {}; `sealwire group show {}` lists who is", called(view), short(view.conversation));
    Err(Failure::new(Exit::Refused, words))
}

fn role_of(view: &ConversationView, account: AccountId) -> Option<Role> {
    view.members.iter().find(|(member, _)| *member == account).map(|(_, role)| *role)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Member => "member",
    }
}
