//! The whole shell of a connection where nothing is concurrent: for tests and the simulation.

use std::collections::VecDeque;

use sealwire_store::{Delivered, Operation, Outcome, Store};
use sealwire_wire::frame::FromRelay;
use sealwire_wire::{LogId, Time};

use crate::connection::Connection;
use crate::decision::{Decision, Growth, Input, StoreFailed};

/// Welcomes that one round moves into their inboxes at the most.
const FILL_MOST: usize = 256;

/// What is left to do when the store has answered everything.
#[derive(Default)]
pub struct Served {
    /// To be sent, in this order.
    pub frames: Vec<FromRelay>,
    /// What concerns other connections, in this order: Attach, Detach, LoggedIn, Online, Watch, Close.
    pub effects: Vec<Decision>,
    /// Logs that grew: give [`Input::Grown`] to every connection that has attached one.
    pub grown: Vec<Growth>,
}

/// Carries out a connection's decisions against a store until it waits for nothing more.
pub fn serve(connection: &mut Connection, decisions: Vec<Decision>, store: &dyn Store, now: Time) -> Served {
    let mut served = Served::default();
    let mut queue = VecDeque::from(decisions);
    while let Some(decision) = queue.pop_front() {
        match decision {
            Decision::Send(frame) => served.frames.push(frame),
            Decision::Load { token, question } => {
                let result = question.ask(store).map_err(|_| StoreFailed);
                queue.extend(connection.handle(Input::Loaded { token, result }, now));
            }
            Decision::Store { token, operation } => {
                let result = commit(store, now, &operation, &mut served.grown);
                queue.extend(connection.handle(Input::Stored { token, result }, now));
            }
            effect => served.effects.push(effect),
        }
    }
    served
}

/// The logs that an operation made longer, committed at that time. What came into an inbox is at hand: it has one reader,
/// who may read all of it. Who may read how much of a conversation log, its roster says (C6).
pub fn growths(now: Time, operation: &Operation, outcome: &Outcome) -> Vec<Growth> {
    match (operation, outcome) {
        (Operation::Append(append), Outcome::Appended { position, repeated: false }) => {
            let entry = || Delivered { position: *position, at: now, entry: append.entry.encode() };
            let entries = if let LogId::Inbox(_) = append.log { vec![entry()] } else { Vec::new() };
            vec![Growth { log: append.log, entries }]
        }
        (Operation::CreateConversation(conversation), Outcome::Created) => {
            vec![Growth::of(LogId::Conversation(conversation.id))]
        }
        (_, Outcome::Filled(inboxes)) => inboxes.iter().map(|inbox| Growth::of(LogId::Inbox(*inbox))).collect(),
        _ => Vec::new(),
    }
}

/// Whether an operation put Welcomes into the store's outbox: [`Operation::FillInboxes`] comes next (C8).
pub fn leaves_welcomes(operation: &Operation, outcome: &Outcome) -> bool {
    match (operation, outcome) {
        (Operation::Append(append), Outcome::Appended { repeated: false, .. }) => {
            append.roster.as_ref().is_some_and(|change| !change.welcomes.is_empty())
        }
        (Operation::CreateConversation(conversation), Outcome::Created) => !conversation.welcomes.is_empty(),
        _ => false,
    }
}

fn commit(
    store: &dyn Store,
    now: Time,
    operation: &Operation,
    grown: &mut Vec<Growth>,
) -> Result<Outcome, StoreFailed> {
    let outcome = commit_one(store, now, operation)?;
    grown.extend(growths(now, operation, &outcome));
    if leaves_welcomes(operation, &outcome) {
        fill_inboxes(store, now, grown)?;
    }
    Ok(outcome)
}

/// Moves the Welcomes that wait in the outbox to their inboxes (C8). Idempotent: also for those that a failure has left.
///
/// # Errors
/// The store's; what was moved before is in `grown`.
pub fn fill_inboxes(store: &dyn Store, now: Time, grown: &mut Vec<Growth>) -> Result<(), StoreFailed> {
    let operation = Operation::FillInboxes { most: FILL_MOST };
    loop {
        let filled = commit_one(store, now, &operation)?;
        let more: Vec<_> = growths(now, &operation, &filled).into_iter().collect();
        if more.is_empty() {
            return Ok(());
        }
        grown.extend(more);
    }
}

fn commit_one(store: &dyn Store, now: Time, operation: &Operation) -> Result<Outcome, StoreFailed> {
    let outcomes = store.commit(now, std::slice::from_ref(operation)).map_err(|_| StoreFailed)?;
    outcomes.into_iter().next().ok_or(StoreFailed)
}
