//! What goes into the engine and what comes out.

use std::collections::BTreeSet;

use rand_core::CryptoRng;
use sealwire_wire::Time;
use sealwire_wire::frame::ToRelay;

use crate::command::{Command, Refusal, Reply};
use crate::event::Event;
use crate::record::{Change, Table};

/// Correlates a command with its reply; the caller counts.
pub type Ticket = u64;

/// What happened outside.
pub enum Input {
    /// The application wants something.
    Command(Ticket, Command),
    /// The WebSocket is open.
    Connected {
        /// The TLS exporter (RFC 9266), where this side of the connection has one (N1).
        binding: Option<[u8; 32]>,
    },
    /// A binary message came.
    Frame(Vec<u8>),
    /// The WebSocket is closed, or could not be opened.
    Disconnected,
    /// Time has passed: see [`crate::Engine::next_wake`].
    Tick,
}

/// What should happen outside, once the changes are durable.
#[derive(Debug)]
pub enum Output {
    /// Send a frame.
    Send(ToRelay),
    /// Answer a command.
    Reply(Ticket, Result<Reply, Refusal>),
    /// Tell the application.
    Event(Event),
    /// Open a WebSocket.
    Connect,
    /// Close the WebSocket; `Disconnected` follows.
    Disconnect,
}

/// What to persist and then to do. One transaction, then the outputs in their order.
#[derive(Default)]
pub struct Step {
    /// Changes of records.
    pub changes: Vec<Change>,
    /// What to do then.
    pub outputs: Vec<Output>,
}

impl Step {
    /// Adds a later step, so that both are one transaction.
    pub fn append(&mut self, mut later: Step) {
        self.changes.append(&mut later.changes);
        self.outputs.append(&mut later.outputs);
    }

    /// Persist before send: commits the changes, and only then performs the outputs, in their order. The one place where
    /// that is decided, for the SDK and for the simulation.
    ///
    /// # Errors
    /// The commit's, with the outputs that were not performed. The engine is to be dropped and loaded again.
    pub fn carry_out<E>(
        mut self,
        commit: impl FnOnce(&[Change]) -> Result<(), E>,
        perform: impl FnMut(Output),
    ) -> Result<(), (E, Vec<Output>)> {
        self.keep_last_changes();
        if !self.changes.is_empty()
            && let Err(error) = commit(&self.changes)
        {
            return Err((error, self.outputs));
        }
        self.outputs.into_iter().for_each(perform);
        Ok(())
    }

    /// A record that changed more than once, as where several inputs share a transaction, is written once: as it is last.
    fn keep_last_changes(&mut self) {
        let mut last = BTreeSet::new();
        let is_last: Vec<bool> = self.changes.iter().rev().map(|change| last.insert(change.record())).collect();
        let mut is_last = is_last.into_iter().rev();
        self.changes.retain(|_| is_last.next().unwrap_or(true));
    }
}

/// One turn of the engine: the time, the generator, and the step that grows.
pub(crate) struct Turn<'a> {
    pub(crate) now: Time,
    pub(crate) rng: &'a mut dyn CryptoRng,
    pub(crate) step: Step,
}

impl Turn<'_> {
    pub(crate) fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: Vec<u8>) {
        self.step.changes.push(Change::Put { table, key: key.into(), value: value.into() });
    }

    pub(crate) fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.step.changes.push(Change::Delete { table, key: key.into() });
    }

    pub(crate) fn send(&mut self, frame: ToRelay) {
        self.step.outputs.push(Output::Send(frame));
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.step.outputs.push(Output::Event(event));
    }

    pub(crate) fn reply(&mut self, ticket: Ticket, reply: Result<Reply, Refusal>) {
        self.step.outputs.push(Output::Reply(ticket, reply));
    }

    pub(crate) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}
