//! What a device of a group can do, so that one script measures ours and the peer.

use std::path::Path;

use anyhow::Context;
use sealwire_wire::InboxAddress;

use super::CONTENT;

/// A device, and the one group that it is in.
pub(super) trait Party: Sized {
    /// What it is added by.
    type Card: Clone;
    /// Whether it counts what it writes.
    const COUNTS: bool;

    /// A device that is in no group. No two have the same number.
    fn new(number: u32) -> anyhow::Result<Self>;

    /// Makes a key package, whose private keys stay with the device.
    fn card(&mut self) -> anyhow::Result<Self::Card>;

    /// Begins a group.
    fn create(&mut self) -> anyhow::Result<()>;

    /// Makes a commit. Key packages are checked before.
    fn commit(&mut self, change: Change<Self::Card>) -> anyhow::Result<Made>;

    /// Its size in frames, where there are some.
    fn sizes(made: &Made) -> Sizes;

    /// Merges the own commit.
    fn merge(&mut self) -> anyhow::Result<()>;

    /// Judges and applies another member's commit.
    fn process(&mut self, commit: &[u8]) -> anyhow::Result<()>;

    /// Joins by a Welcome.
    fn join(&mut self, welcome: &[u8]) -> anyhow::Result<()>;

    /// Pads content and seals it for the members.
    fn seal(&mut self, content: &[u8]) -> anyhow::Result<Vec<u8>>;

    /// The same, many times.
    fn seal_many(&mut self, messages: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        (0..messages).map(|_| self.seal(&[0x61; CONTENT])).collect()
    }

    /// Bytes of the entry that carries a sealed message, where there are entries.
    fn entry_length(message: &[u8]) -> usize;

    /// Opens what another member sealed.
    fn open(&mut self, message: &[u8]) -> anyhow::Result<()>;

    /// What is written goes into a client's store, too, from now on or not any more; where it is counted.
    fn keep_in(&mut self, folder: Option<&Path>) -> anyhow::Result<()>;

    /// Bytes of records that were written since this was last asked, or 0. They are in the store now.
    fn written(&mut self) -> anyhow::Result<u64>;

    /// Bytes of all records.
    fn held(&mut self) -> anyhow::Result<u64>;
}

/// What a commit is to do.
pub(super) enum Change<C> {
    Add(Vec<C>),
    Remove(u32),
    Update,
}

/// A commit.
pub(super) struct Made {
    pub(super) commit: Vec<u8>,
    pub(super) welcome: Option<Vec<u8>>,
    /// The inboxes of all members after it, where the relay is told.
    pub(super) roster: Vec<InboxAddress>,
    /// Those of whom it adds.
    pub(super) added: Vec<InboxAddress>,
}

impl Made {
    /// What those who are added join by.
    pub(super) fn welcome(&self) -> anyhow::Result<&[u8]> {
        self.welcome.as_deref().context("a commit that adds comes with a Welcome")
    }
}

/// What a commit costs on the wire.
pub(super) struct Sizes {
    /// Bytes that its maker sends, the Welcome included.
    pub(super) up: usize,
    /// Bytes that each member gets.
    pub(super) down: usize,
}
