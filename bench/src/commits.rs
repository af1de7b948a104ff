//! Everybody changes a group at one instant: each client renames it to a title of its own. One commit has each position
//! (L3), so all but one are refused and made again; in the end every client has to have seen every title, in one order.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use sealwire_client::{Account, AccountId, Client, ConversationId, ConversationView, Event, Events, Role, Unlock};
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;

use crate::process::{Process, cpu_seconds_of};
use crate::report::{Figure, Report};
use crate::world::cpu;

mod tap;

/// Accounts, each with one device.
const CLIENTS: usize = 64;
/// Without any change seen by anybody, something is stuck.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a state is asked for that no event tells.
const LOOK: Duration = Duration::from_millis(50);
/// A device has four commits a minute (L10), of which the owner has spent some on making the group.
const REST: Duration = Duration::from_secs(60);
/// How long a change may come once too often after all have seen all.
const AFTERWARDS: Duration = Duration::from_secs(2);

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    let (clients, rest) = if quick { (8, Duration::ZERO) } else { (CLIENTS, REST) };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(race(clients, rest))
}

/// A change as one client has seen it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Seen {
    by: AccountId,
    title: String,
}

/// One of the clients, who listens in a task of its own.
struct Member {
    client: Client,
    account: AccountId,
    title: String,
}

/// Which member has seen something, and when.
type Told = (usize, Instant, Seen);

async fn race(count: usize, rest: Duration) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir()?;
    let relay = Process::relay(folder.path()).await?;
    let (address, answers) = tap::tap(relay.address).await?;
    let (told_in, mut told) = mpsc::unbounded_channel();
    let mut members = Vec::new();
    for number in 0..count {
        let (client, events) = come(folder.path(), number, &format!("ws://{address}")).await?;
        tokio::spawn(listen(events, number, told_in.clone()));
        let account = client.profile().await?.account;
        members.push(Member { client, account, title: format!("as {number} wants it") });
    }
    let group = gather(&members).await?;
    let before = one_state(&members, group).await?;
    tokio::time::sleep(rest).await;

    let counted = || [&answers.stale, &answers.wait].map(|counter| counter.load(Ordering::Relaxed));
    let ([stale, wait], relay_cpu, own_cpu) = (counted(), cpu_seconds_of(&relay.id())?, cpu());
    let (began, mut firsts) = (Instant::now(), JoinSet::new());
    let start = Arc::new(Barrier::new(count));
    for member in &members {
        let (client, title, start) = (member.client.clone(), member.title.clone(), Arc::clone(&start));
        firsts.spawn(async move {
            start.wait().await;
            let asked = Instant::now();
            client.rename(group, title).await.map(|()| asked)
        });
    }
    let mut first = None;
    while let Some(asked) = firsts.join_next().await {
        let asked = asked??;
        first = Some(first.map_or(asked, |earlier: Instant| earlier.min(asked)));
    }
    let first = first.unwrap_or(began);
    let mut histories = vec![Vec::new(); count];
    let wanted = members.iter().map(|member| Seen { by: member.account, title: member.title.clone() }).collect();
    let times = match until_all_have(&mut told, &mut histories, count).await {
        Ok(times) => times,
        // What is missing says more than that something is.
        Err(stuck) => return Err(check(&histories, &wanted).err().unwrap_or(stuck)),
    };
    let ([all_stale, all_wait], all_relay_cpu, all_own_cpu) = (counted(), cpu_seconds_of(&relay.id())?, cpu());
    while let Ok(Some((number, _, seen))) = tokio::time::timeout(AFTERWARDS, told.recv()).await {
        histories[number].push(seen);
    }
    let after = one_state(&members, group).await?;
    check(&histories, &wanted)?;
    let unread = answers.unread.load(Ordering::Relaxed);
    ensure!(unread == 0, "{unread} frames of the relay could not be read, so that the refusals are not all counted");

    let seconds = |time: &Instant| time.duration_since(first).as_secs_f64();
    let last = times.last().map_or(0.0, seconds);
    let half = times.get(times.len() / 2).map_or(0.0, seconds);
    let figures = vec![
        Figure::new("clients that report the same history", count as f64, ""),
        Figure::new("changes in it", wanted.len() as f64, ""),
        Figure::new("commits that it took", (after.epoch - before.epoch) as f64, ""),
        Figure::new("refused as stale", (all_stale - stale) as f64, ""),
        Figure::new("told to wait (L10)", (all_wait - wait) as f64, ""),
        Figure::new("first command to last change seen by the last", last, "s"),
        Figure::new("first command to half of all seen", half, "s"),
        Figure::new("relay CPU", all_relay_cpu - relay_cpu, "CPU-s"),
        Figure::new("CPU of all clients together", all_own_cpu - own_cpu, "CPU-s"),
    ];
    let method = format!(
        "{count} accounts with one device each, all clients of the SDK with SQLite stores in the temporary folder, one \
         process, over WebSockets to a relay in another process, through a pass in between that counts what the relay \
         refuses; one group that all are in, one as owner and all others as admins; {} s later, at one instant, each \
         renames it to a title of its own; every client has to be told every title exactly once, in the same order, and \
         all have to end in the same epoch, with the same authenticator (RFC 9420, 8.7: it depends on every commit \
         before) and the same position of the log; else the run fails",
        rest.as_secs()
    );
    Ok(Report { bench: "commits", method, figures })
}

async fn come(folder: &Path, number: usize, relay: &str) -> anyhow::Result<(Client, Events)> {
    // Nobody adds any of them more than once.
    let account = Account::new(&handle(number), relay)?.key_packages(2);
    let key = Unlock::KeyFile(folder.join(format!("{number}.key")));
    let (client, events) = Client::create(&folder.join(number.to_string()), key, account).await?;
    client.connected().await?;
    Ok((client, events))
}

fn handle(number: usize) -> String {
    format!("person{number}@relay")
}

/// Tells of new titles, and takes all other events so that none has to wait.
async fn listen(mut events: Events, number: usize, told: mpsc::UnboundedSender<Told>) {
    let mut known = String::new();
    while let Some(event) = events.next().await {
        // The same event tells of roles; the title is the one of before, then.
        if let Event::Renamed { by, name: title, .. } = event
            && known != title
        {
            known.clone_from(&title);
            // Nobody listens any more once the run is over.
            let _ = told.send((number, Instant::now(), Seen { by, title }));
        }
    }
}

/// One group of all, begun by the first, in which everybody may name it.
async fn gather(members: &[Member]) -> anyhow::Result<ConversationId> {
    let (owner, others) = members.split_first().context("nobody is there")?;
    let handles: Vec<String> = (1..members.len()).map(handle).collect();
    let group = owner.client.create_group("", &handles.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let is_in = |view: &ConversationView| view.active && view.waiting == 0 && view.members.len() == members.len();
    all_are(members, group, "in the group", is_in).await?;
    for member in others {
        member.client.accept(owner.account).await?;
        owner.client.set_role(group, member.account, Role::Admin).await?;
    }
    let may_name = |view: &ConversationView| {
        view.waiting == 0 && view.members.iter().all(|(_, role)| matches!(role, Role::Owner | Role::Admin))
    };
    all_are(members, group, "admin", may_name).await?;
    Ok(group)
}

/// Waits until that is so for every member.
async fn all_are(
    members: &[Member],
    group: ConversationId,
    what: &str,
    is_so: impl Fn(&ConversationView) -> bool,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    for (number, member) in members.iter().enumerate() {
        while !member.client.conversation(group).await?.is_some_and(|view| is_so(&view)) {
            ensure!(begin.elapsed() < PATIENCE, "client {number} is not {what} after {} s", PATIENCE.as_secs());
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Takes what is told until every history has that many changes. Gives, for each change, when the last had seen as many.
async fn until_all_have(
    told: &mut mpsc::UnboundedReceiver<Told>,
    histories: &mut [Vec<Seen>],
    changes: usize,
) -> anyhow::Result<Vec<Instant>> {
    let mut times = Vec::new();
    while times.len() < changes {
        let next = tokio::time::timeout(PATIENCE, told.recv()).await;
        let Ok(Some((number, at, seen))) = next else {
            bail!("nobody has seen a change for {} s", PATIENCE.as_secs());
        };
        histories[number].push(seen);
        let seen_by_all = histories.iter().map(Vec::len).min().unwrap_or(0);
        times.resize(seen_by_all.max(times.len()), at);
    }
    Ok(times)
}

/// What all members say of the group, once nobody wants anything of it any more: the same of all, or an error.
async fn one_state(members: &[Member], group: ConversationId) -> anyhow::Result<ConversationView> {
    let begin = Instant::now();
    loop {
        let mut views = Vec::new();
        for member in members {
            views.push(member.client.conversation(group).await?.context("a client has lost the group")?);
        }
        let differ = views.windows(2).any(|pair| pair[0] != pair[1]);
        if !differ && views.iter().all(|view| view.active && view.waiting == 0) {
            return views.into_iter().next().context("nobody is there");
        }
        if begin.elapsed() > PATIENCE {
            let states: BTreeSet<String> = views.iter().map(|view| format!("{view:?}")).collect();
            bail!("the clients do not come to one state of the group: {states:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Every history is the first one, and holds exactly what was wanted.
fn check(histories: &[Vec<Seen>], wanted: &BTreeSet<Seen>) -> anyhow::Result<()> {
    let first = histories.first().context("there is no history")?;
    for (number, history) in histories.iter().enumerate() {
        let held: BTreeSet<&Seen> = history.iter().collect();
        let lost: Vec<_> = wanted.iter().filter(|change| !held.contains(change)).collect();
        ensure!(lost.is_empty(), "client {number} was never told of {lost:?}");
        let surplus = history.len() - held.len();
        ensure!(surplus == 0, "client {number} was told of {surplus} changes twice");
        ensure!(held.len() == wanted.len(), "client {number} was told of changes that nobody has made: {history:?}");
        let differs = first.iter().zip(history).position(|(one, other)| one != other);
        ensure!(differs.is_none(), "the histories of clients 0 and {number} part at change {differs:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: u8) -> Seen {
        Seen { by: AccountId([number; 32]), title: number.to_string() }
    }

    fn says(histories: &[Vec<u8>]) -> String {
        let histories: Vec<Vec<Seen>> =
            histories.iter().map(|numbers| numbers.iter().map(|number| change(*number)).collect()).collect();
        let wanted = (1..4).map(change).collect();
        check(&histories, &wanted).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_change_that_is_lost_twice_made_up_or_elsewhere_is_found() {
        assert_eq!(says(&[vec![2, 1, 3], vec![2, 1, 3]]), "");
        assert!(says(&[vec![2, 1, 3], vec![2, 1]]).contains("client 1 was never told of"));
        assert!(says(&[vec![2, 1, 3, 1], vec![2, 1, 3]]).contains("client 0 was told of 1 changes twice"));
        assert!(says(&[vec![2, 1, 3], vec![2, 1, 3, 4]]).contains("client 1 was told of changes that nobody"));
        assert!(says(&[vec![2, 1, 3], vec![2, 3, 1]]).contains("part at change Some(1)"));
        assert!(!says(&[]).is_empty());
    }
}
