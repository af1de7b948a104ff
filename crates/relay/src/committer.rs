//! The one thread that commits. Operations of all connections gather in a bounded channel while a commit is under way,
//! and the next group takes them all, up to a limit: one sync for many, and no wait where there is only one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sealwire_relay_core::{Growth, StoreFailed, Token, Turns, growths, leaves_welcomes};
use sealwire_store::{Operation, Outcome, Store, StoreError};
use sealwire_wire::{LogId, Time};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::hub::{Hub, Readers};
use crate::mailbox::Mailbox;
use crate::service::now;

/// Operations in one group: one sync for them. Readers of the store wait as long as it takes, and where a commit fails, all
/// of them are told.
const GROUP_MAX: usize = 512;
/// Jobs that wait for the committer; whoever brings more waits, and its client with it.
const QUEUE_MAX: usize = 1_024;
/// Welcomes that one round moves into their inboxes.
const FILL_MOST: usize = 256;
/// Entries that one sweep removes; where as many went, the next comes with the next group.
const SWEEP_MOST: usize = 4_096;

/// What the committer is asked.
enum Job {
    /// A connection's operations, in order.
    Commit { mailbox: Arc<Mailbox>, operations: Vec<(Token, Operation)> },
    /// Remove what nobody needs any more (L9).
    Sweep,
    /// Look whether what waits for the end of a turn (L10) may go on.
    Turn,
    /// Commit what came before, then end.
    Stop,
}

/// The way to the committer.
#[derive(Clone)]
pub(crate) struct Committer {
    jobs: mpsc::Sender<Job>,
    aborted: Arc<AtomicBool>,
}

impl Committer {
    /// Starts the thread. What it gives beside it becomes true where the thread panics. Needs a tokio runtime.
    ///
    /// # Errors
    /// The operating system's, if it gives no thread.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        hub: Arc<Hub>,
    ) -> std::io::Result<(Committer, JoinHandle<()>, watch::Receiver<bool>)> {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let aborted = Arc::new(AtomicBool::new(false));
        let work = Work {
            store,
            hub,
            aborted: Arc::clone(&aborted),
            turns: Turns::default(),
            waiting: Vec::new(),
            clock: Clock { runtime: Handle::current(), jobs: jobs.downgrade(), is_set: false },
        };
        let (failing, failed) = watch::channel(false);
        let alarm = Alarm(failing);
        let thread = std::thread::Builder::new().name("committer".to_owned()).spawn(move || {
            let _alarm = alarm;
            work.run(queue);
        })?;
        Ok((Committer { jobs, aborted }, thread, failed))
    }

    /// Hands over a connection's operations. Waits where too much waits already. `false`: the committer has ended.
    pub(crate) async fn commit(&self, mailbox: &Arc<Mailbox>, operations: Vec<(Token, Operation)>) -> bool {
        self.jobs.send(Job::Commit { mailbox: Arc::clone(mailbox), operations }).await.is_ok()
    }

    /// Asks for a sweep, if there is room for it: it can wait for the next time.
    pub(crate) fn sweep(&self) {
        if self.jobs.try_send(Job::Sweep).is_err() {
            tracing::debug!("busy: the sweep waits for its next time");
        }
    }

    /// Lets it commit what waits, then end.
    pub(crate) async fn stop(&self) {
        // An error says that it has ended already.
        let _ended = self.jobs.send(Job::Stop).await;
    }

    /// Lets it end at once, as a crash would: what waits is lost, and nobody was told that it was accepted.
    pub(crate) async fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        self.stop().await;
    }
}

/// Dropped when the thread ends, and tells whether that is a panic.
struct Alarm(watch::Sender<bool>);

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.send_replace(std::thread::panicking());
    }
}

struct Work {
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
    aborted: Arc<AtomicBool>,
    turns: Turns,
    /// Commits that wait for the end of another device's turn (L10), in order.
    waiting: Vec<Handed>,
    clock: Clock,
}

/// An operation, and whose it is.
struct Handed {
    mailbox: Arc<Mailbox>,
    token: Token,
    operation: Operation,
}

/// Sends [`Job::Turn`]: the thread itself waits for jobs only.
struct Clock {
    runtime: Handle,
    jobs: mpsc::WeakSender<Job>,
    /// Whether one is on its way.
    is_set: bool,
}

impl Clock {
    fn set(&mut self, after: Duration) {
        if std::mem::replace(&mut self.is_set, true) {
            return;
        }
        let jobs = self.jobs.clone();
        // Ends by itself, soon; where the relay has ended, it finds nobody.
        self.runtime.spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(jobs) = jobs.upgrade() {
                let _ended = jobs.send(Job::Turn).await;
            }
        });
    }
}

impl Work {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        // What a crash left in the outbox of Welcomes (C8).
        self.fill_inboxes(&mut Vec::new());
        while let Some(first) = queue.blocking_recv() {
            let mut group = Group::default();
            group.take(first);
            while group.operations.len() < GROUP_MAX
                && let Ok(job) = queue.try_recv()
            {
                group.take(job);
            }
            if self.aborted.load(Ordering::Relaxed) {
                return;
            }
            self.part(&mut group);
            self.commit(&mut group);
            while self.has_waited_enough() {
                let mut next = Group::default();
                self.part(&mut next);
                self.commit(&mut next);
            }
            if group.sweeps {
                self.sweep();
            }
            if group.stops {
                return;
            }
        }
    }

    /// Leaves out of a group what waits for the end of a turn (L10), and takes in what has waited long enough. Whoever
    /// stops waits for nothing.
    fn part(&mut self, group: &mut Group) {
        let at = now();
        self.clock.is_set &= !group.turns;
        if !self.turns.are_any(at) && self.waiting.is_empty() {
            return;
        }
        for handed in std::mem::take(&mut self.waiting).into_iter().chain(group.drain()) {
            match self.turns.waits_until(at, &handed.operation).filter(|_| !group.stops) {
                Some(until) => {
                    self.clock.set(Duration::from_millis(until.since(at)));
                    self.waiting.push(handed);
                }
                None => group.put(handed),
            }
        }
    }

    /// Whether something waits for a turn that its commit has ended.
    fn has_waited_enough(&self) -> bool {
        let at = now();
        self.waiting.iter().any(|handed| self.turns.waits_until(at, &handed.operation).is_none())
    }

    fn commit(&mut self, group: &mut Group) {
        if group.operations.is_empty() {
            return;
        }
        let (mut grown, at) = (Vec::new(), now());
        let outcomes = match self.commit_all(at, &group.operations) {
            Ok(outcomes) => {
                let both = || group.operations.iter().zip(&outcomes);
                both().for_each(|(operation, outcome)| self.turns.note(at, operation, outcome));
                let told = self.are_told(&group.operations);
                let told = both().zip(told).filter(|(_, is_told)| *is_told);
                grown.extend(told.flat_map(|((operation, outcome), _)| growths(at, operation, outcome)));
                if both().any(|(operation, outcome)| leaves_welcomes(operation, outcome)) {
                    self.fill_inboxes(&mut grown);
                }
                outcomes.into_iter().map(Ok).collect()
            }
            Err(StoreFailed) => vec![Err(StoreFailed); group.operations.len()],
        };
        let mut outcomes = outcomes.into_iter();
        let mut to_wake = Vec::new();
        for (mailbox, tokens) in group.owners.drain(..) {
            mailbox.put_stored(tokens.into_iter().zip(outcomes.by_ref()));
            to_wake.push(mailbox);
        }
        self.tell(grown, to_wake);
    }

    fn tell(&self, grown: Vec<Growth>, mut to_wake: Vec<Arc<Mailbox>>) {
        // All notices first, then one wake-up for each connection: its Accepted and its Deliver share a flush.
        self.hub.put_grown(grown, &mut to_wake);
        to_wake.sort_by_key(|mailbox| Arc::as_ptr(mailbox) as usize);
        to_wake.dedup_by(|a, b| Arc::ptr_eq(a, b));
        to_wake.iter().for_each(|mailbox| mailbox.wake());
    }

    /// For each operation whether somebody waits for what it appends. Asked in one go: nothing is encoded under the hub's lock.
    fn are_told(&self, operations: &[Operation]) -> Vec<bool> {
        let readers = self.hub.readers();
        operations.iter().map(|operation| is_told(operation, &readers)).collect()
    }

    /// One outcome for each operation, or none for any.
    fn commit_all(&self, at: Time, operations: &[Operation]) -> Result<Vec<Outcome>, StoreFailed> {
        match self.store.commit(at, operations) {
            Ok(outcomes) if outcomes.len() == operations.len() => Ok(outcomes),
            Ok(_) => {
                tracing::error!("the store answered another number of operations");
                Err(StoreFailed)
            }
            Err(error) => {
                tracing::error!(%error, operations = operations.len(), "the store failed");
                Err(StoreFailed)
            }
        }
    }

    fn fill_inboxes(&self, grown: &mut Vec<Growth>) {
        while let Some(Outcome::Filled(inboxes)) = self.one(&Operation::FillInboxes { most: FILL_MOST })
            && !inboxes.is_empty()
        {
            grown.extend(inboxes.into_iter().map(|inbox| Growth::of(LogId::Inbox(inbox))));
        }
    }

    fn sweep(&self) {
        // Of Welcomes, what a store that failed once has left.
        let mut grown = Vec::new();
        self.fill_inboxes(&mut grown);
        self.tell(grown, Vec::new());
        if let Some(Outcome::Swept { entries }) = self.one(&Operation::Sweep { most: SWEEP_MOST }) {
            tracing::debug!(entries, "swept");
        }
    }

    fn one(&self, operation: &Operation) -> Option<Outcome> {
        let report = |error: &StoreError| tracing::error!(%error, "the store failed");
        self.store.commit(now(), std::slice::from_ref(operation)).inspect_err(report).ok()?.into_iter().next()
    }
}

/// Whether somebody waits for what an operation appends: the bytes of all else are not copied.
fn is_told(operation: &Operation, readers: &Readers<'_>) -> bool {
    match operation {
        Operation::Append(append) => readers.read(append.log),
        _ => true,
    }
}

/// What one commit takes together.
#[derive(Default)]
struct Group {
    operations: Vec<Operation>,
    /// Whose they are, in the same order.
    owners: Vec<(Arc<Mailbox>, Vec<Token>)>,
    sweeps: bool,
    turns: bool,
    stops: bool,
}

impl Group {
    fn take(&mut self, job: Job) {
        match job {
            Job::Commit { mailbox, operations } => {
                let (tokens, operations): (Vec<_>, Vec<_>) = operations.into_iter().unzip();
                self.operations.extend(operations);
                self.owners.push((mailbox, tokens));
            }
            Job::Sweep => self.sweeps = true,
            Job::Turn => self.turns = true,
            Job::Stop => self.stops = true,
        }
    }

    fn drain(&mut self) -> Vec<Handed> {
        let (operations, owners) = (std::mem::take(&mut self.operations), std::mem::take(&mut self.owners));
        let owners = owners
            .into_iter()
            .flat_map(|(mailbox, tokens)| tokens.into_iter().map(move |token| (Arc::clone(&mailbox), token)));
        let handed = |((mailbox, token), operation)| Handed { mailbox, token, operation };
        owners.zip(operations).map(handed).collect()
    }

    fn put(&mut self, Handed { mailbox, token, operation }: Handed) {
        self.operations.push(operation);
        self.owners.push((mailbox, vec![token]));
    }
}
