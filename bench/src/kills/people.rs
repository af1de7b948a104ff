//! Who takes part: they meet before the applications are started, and what their stores hold is read when these are done.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sealwire_client::{Account, AccountId, Client, ConversationId, Event, Events, MessageState, Part};
use tokio::time::timeout;

use super::ledger::Verdict;
use super::plan::{Author, Plan, numbered, store, unlock};
use super::{AFTERWARDS, PATIENCE, Scene};

/// How often a state is asked for that no event tells.
const LOOK: Duration = Duration::from_millis(20);
/// Messages of the history that are asked for at once.
const PAGE: u32 = 256;

struct Person {
    name: &'static str,
    client: Client,
    events: Events,
    account: AccountId,
}

/// Makes the accounts and the conversation, in which all are accepted, and what each application has to do.
pub(super) async fn meet(scene: &Scene, folder: &Path, relay: SocketAddr) -> anyhow::Result<Vec<Plan>> {
    let mut people = Vec::new();
    for name in scene.people {
        let account = Account::new(&handle(name), &format!("ws://{relay}"))?;
        let (client, events) = Client::create(&store(folder, name), unlock(folder, name), account).await?;
        client.connected().await?;
        let account = client.profile().await?.account;
        people.push(Person { name, client, events, account });
    }
    // Each knows and has accepted each, so that nothing comes as a stranger's request.
    for one in 0..people.len() {
        for other in one + 1..people.len() {
            greet(&mut people, one, other).await?;
            greet(&mut people, other, one).await?;
        }
    }
    let group = if scene.is_group() { Some(gather(&people).await?) } else { None };
    let messages = scene.messages / people.len() as u64;
    let author = |person: &Person| Author { name: person.name.to_owned(), account: person.account, messages };
    let authors: Vec<Author> = people.iter().map(author).collect();
    for Person { client, mut events, .. } in people {
        // Asking for the next event says that the last one was processed, whether one comes or not.
        while timeout(LOOK, events.next()).await.is_ok_and(|event| event.is_some()) {}
        client.close().await;
    }
    let plan = |author: &Author| {
        let others = authors.iter().filter(|other| other.name != author.name).cloned().collect();
        Plan { home: folder.to_owned(), name: author.name.clone(), messages, group, others }
    };
    Ok(authors.iter().map(plan).collect())
}

fn handle(name: &str) -> String {
    format!("{name}@relay")
}

/// One writes to another, who accepts.
async fn greet(people: &mut [Person], from: usize, to: usize) -> anyhow::Result<()> {
    people[from].client.send_text(&handle(people[to].name), "hello").await?;
    let hears = async {
        loop {
            match people[to].events.next().await {
                Some(Event::Request(request)) => return people[to].client.accept(request.message.from).await,
                Some(Event::Message(_)) => return Ok(()),
                Some(_) => {}
                None => return Err(sealwire_client::Error::Closed),
            }
        }
    };
    Ok(timeout(PATIENCE, hears).await.context("a greeting does not arrive")??)
}

async fn gather(people: &[Person]) -> anyhow::Result<ConversationId> {
    let handles: Vec<String> = people[1..].iter().map(|person| handle(person.name)).collect();
    let names: Vec<&str> = handles.iter().map(String::as_str).collect();
    let group = people[0].client.create_group("all", &names).await?;
    let all_are_in = async {
        for person in people {
            while !person.client.conversation(group).await?.is_some_and(|view| view.active && view.waiting == 0) {
                tokio::time::sleep(LOOK).await;
            }
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, all_are_in).await.context("the group does not begin")??;
    Ok(group)
}

/// What a store holds in the end.
pub(super) struct Store {
    pub(super) quarantined: Vec<String>,
    /// Of its history.
    pub(super) verdict: Verdict,
}

/// Opens the store of an application that was closed, and reads what it holds. Nothing may be told any more: all was
/// processed.
pub(super) async fn look_back(plan: &Plan) -> anyhow::Result<Store> {
    let (client, mut events) = Client::open(&plan.store(), plan.unlock()).await?;
    timeout(PATIENCE, client.connected()).await.context("no connection")??;
    let mut told = Vec::new();
    while let Ok(Some(event)) = timeout(AFTERWARDS, events.next()).await {
        match event {
            Event::Message(message) => told.push(format!("{} was told number {} again", plan.name, message.number)),
            Event::Request(_) => told.push(format!("{} was told a request again", plan.name)),
            _ => {}
        }
    }
    let rejected = client.quarantine().await?;
    let quarantined = rejected.iter().map(|one| format!("{} has in quarantine {one:?}", plan.name)).collect();
    let (came, went) = history(&client, plan).await?;
    let mut verdict = Verdict::of(&came, &plan.others);
    let own = Author { name: plan.name.clone(), account: client.profile().await?.account, messages: plan.messages };
    verdict.add(Verdict::of(&went, &[own]));
    verdict.alarms.extend(told);
    client.close().await;
    Ok(Store { quarantined, verdict })
}

/// The numbered texts of a history, the oldest first: those that came, and those that went and that the relay has.
async fn history(client: &Client, plan: &Plan) -> anyhow::Result<(Vec<(String, u64)>, Vec<(String, u64)>)> {
    let (talk, mut before, mut pages) = (plan.talk()?, u64::MAX, Vec::new());
    loop {
        let page = client.history(talk, before, PAGE).await?;
        let Some(first) = page.first() else { break };
        before = first.number;
        pages.push(page);
    }
    let (mut came, mut went) = (Vec::new(), Vec::new());
    for message in pages.into_iter().rev().flatten() {
        let Part::Text(text) = &message.content.part else { bail!("something else than a text in the history") };
        // A greeting has no number.
        let Some((name, number)) = numbered(text).map(|(name, number)| (name.to_owned(), number)) else { continue };
        if message.incoming {
            came.push((name, number));
            continue;
        }
        let state = client.state(message.number).await?;
        let is_there = state.is_some_and(|state| state >= MessageState::Accepted && state != MessageState::Unsent);
        ensure!(is_there, "the relay does not have {text}, which {} calls {state:?}", plan.name);
        went.push((name, number));
    }
    Ok((came, went))
}
