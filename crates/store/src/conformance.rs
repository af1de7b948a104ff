//! What every store has to do, as named cases. A store says how it is opened and opened again ([`Bed`]) and runs all of
//! them as its tests:
//!
//! ```text
//! mod conformance {
//!     sealwire_store::conformance!(super::MyBed);
//! }
//! ```
//!
//! [`random::compare`] runs random operations on two stores beside each other.

mod appending;
mod blobs;
mod key_packages;
pub mod random;
mod records;
mod retention;
mod rosters;

use sealwire_keys::{chain_start, chain_step, roster_hash};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::{Chain, ConversationId, EnvelopeId, InboxAddress, LogId, Position, Time};

pub use self::appending::*;
pub use self::blobs::*;
pub use self::key_packages::*;
pub use self::records::*;
pub use self::retention::*;
pub use self::rosters::*;
use crate::logs::Limits;
use crate::{
    Append, Conversation, Head, Operation, Outcome, Page, RecordKey, RecordKind, RecordSwap, RosterChange, Store,
    Welcome,
};

/// How a store is opened in tests, and what it lies in.
pub trait Bed {
    /// An empty store.
    fn fresh(limits: Limits) -> Self;

    /// The store, open.
    fn store(&self) -> &dyn Store;

    /// The store, closed and opened again.
    #[must_use]
    fn restart(self) -> Self;
}

/// Makes a `#[test]` of every case, for a type that is a [`Bed`](crate::conformance::Bed).
#[macro_export]
macro_rules! conformance {
    ($bed:ty) => {
        $crate::conformance! { @ $bed:
            positions_are_gapless_from_one
            an_append_is_idempotent
            an_envelope_id_is_used_once
            an_envelope_id_is_remembered_when_its_entry_is_gone
            kinds_keep_to_their_logs
            an_entry_names_the_newest_commit
            one_of_two_commits_wins
            the_chain_covers_all_entries
            a_page_is_bounded_and_never_empty
            a_group_is_seen_by_its_own_operations
            a_conversation_is_created_once_and_whole
            first_entries_are_judged_like_others
            welcomes_reach_their_inboxes_once
            welcomes_to_nobody_are_dropped
            only_the_roster_writes
            a_roster_changes_with_its_commit
            a_roster_changes_from_the_present_one
            a_dropped_inbox_reads_up_to_the_entry_that_dropped_it
            a_dropped_inbox_restores_its_roster_once
            a_restoration_is_owed_for_72_hours
            cursors_move_forward_only
            entries_that_all_have_read_go
            messages_live_30_days_and_commits_60
            a_gap_between_commits_is_told
            a_full_inbox_drops_its_oldest_messages
            a_full_inbox_drops_what_the_flood_brought
            a_full_inbox_drops_the_largest_share
            welcomes_are_part_of_their_writers_share
            a_full_conversation_keeps_its_commits
            envelope_ids_are_forgotten_after_30_days
            so_many_envelope_ids_are_remembered
            a_sweep_is_bounded
            records_swap_together_or_not_at_all
            versions_never_come_back
            inboxes_open_with_their_records
            blobs_come_in_pieces
            blobs_resume_after_a_restart
            a_blob_that_does_not_fit_its_hash_is_thrown_away
            each_key_package_is_handed_out_once
            the_last_resort_one_comes_when_no_other_is_left
            key_packages_are_each_devices_own
            a_publication_that_replaces_leaves_nothing
            a_device_has_so_many_key_packages
            a_repeated_publication_adds_nothing
            so_many_handed_out_key_packages_are_remembered
        }
    };
    (@ $bed:ty: $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::conformance::$case::<$bed>();
            }
        )*
    };
}

/// The conversation of the cases.
pub(crate) const TALK: LogId = LogId::Conversation(TALK_ID);
pub(crate) const TALK_ID: ConversationId = ConversationId([7; 32]);

/// The inbox of the cases with this number.
pub(crate) fn inbox(number: u8) -> InboxAddress {
    InboxAddress([number; 16])
}

pub(crate) fn inboxes(numbers: &[u8]) -> Vec<InboxAddress> {
    numbers.iter().copied().map(inbox).collect()
}

/// An entry whose body tells its envelope.
pub(crate) fn entry(kind: EntryKind, after: u64, envelope: u8) -> Entry {
    let after = kind.names_after().then_some(Position(after));
    Entry { kind, after, envelope: EnvelopeId([envelope; 16]), body: Body::Inline(vec![envelope; 20]) }
}

pub(crate) fn direct(envelope: u8) -> Entry {
    entry(EntryKind::Direct, 0, envelope)
}

pub(crate) fn message(after: u64, envelope: u8) -> Entry {
    entry(EntryKind::Message, after, envelope)
}

pub(crate) fn commit(after: u64, envelope: u8) -> Entry {
    entry(EntryKind::Commit, after, envelope)
}

pub(crate) fn appended(position: u64) -> Outcome {
    Outcome::Appended { position: Position(position), repeated: false }
}

pub(crate) fn repeated(position: u64) -> Outcome {
    Outcome::Appended { position: Position(position), repeated: true }
}

pub(crate) fn change(before: &[u8], after: &[u8]) -> RosterChange {
    RosterChange { before: roster_hash(&inboxes(before)), inboxes: inboxes(after), welcomes: Vec::new() }
}

/// The chain after these entries of the cases' conversation.
pub(crate) fn chain_over(entries: &[Entry]) -> Chain {
    let step = |(chain, position): (Chain, u64), entry: &Entry| {
        (chain_step(chain, Position(position), &entry.encode()), position + 1)
    };
    entries.iter().fold((chain_start(TALK_ID), 1), step).0
}

/// A store in its bed, and the time.
pub(crate) struct World<B> {
    bed: Option<B>,
    pub(crate) now: Time,
}

impl<B: Bed> World<B> {
    pub(crate) fn new() -> World<B> {
        World::within(Limits::default())
    }

    pub(crate) fn within(limits: Limits) -> World<B> {
        World { bed: Some(B::fresh(limits)), now: Time(1_000_000) }
    }

    /// With inboxes 1 to 4.
    pub(crate) fn with_inboxes(self) -> World<B> {
        let swap = Operation::Swap { records: Vec::new(), inboxes: inboxes(&[1, 2, 3, 4]) };
        assert_eq!(self.apply(swap), Outcome::Swapped);
        self
    }

    /// With a conversation that begins with a commit, envelope 100, and is read by these.
    pub(crate) fn with_talk(self, roster: &[u8]) -> World<B> {
        assert_eq!(self.create(vec![commit(0, 100)], roster, Vec::new()), Outcome::Created);
        self
    }

    pub(crate) fn store(&self) -> &dyn Store {
        self.bed.as_ref().expect("only a restart takes the bed, and puts it back").store()
    }

    pub(crate) fn restart(&mut self) {
        self.bed = self.bed.take().map(B::restart);
    }

    pub(crate) fn apply(&self, operation: Operation) -> Outcome {
        let outcomes = self.apply_all(&[operation]);
        outcomes.into_iter().next().expect("a store gives one outcome for each operation")
    }

    pub(crate) fn apply_all(&self, operations: &[Operation]) -> Vec<Outcome> {
        let outcomes = self.store().commit(self.now, operations).expect("the store works");
        assert_eq!(outcomes.len(), operations.len());
        outcomes
    }

    pub(crate) fn create(&self, entries: Vec<Entry>, roster: &[u8], welcomes: Vec<Welcome>) -> Outcome {
        let new = Conversation { id: TALK_ID, writer: inbox(1), entries, roster: inboxes(roster), welcomes };
        self.apply(Operation::CreateConversation(new))
    }

    pub(crate) fn to_inbox(&self, to: u8, entry: Entry) -> Outcome {
        self.to_inbox_by(9, to, entry)
    }

    pub(crate) fn to_inbox_by(&self, writer: u8, to: u8, entry: Entry) -> Outcome {
        self.apply(Operation::Append(Append::to_inbox(inbox(to), inbox(writer), entry)))
    }

    pub(crate) fn talk(&self, writer: u8, entry: Entry) -> Outcome {
        self.apply(Operation::Append(Append { log: TALK, writer: inbox(writer), entry, roster: None }))
    }

    pub(crate) fn talk_changing(&self, writer: u8, entry: Entry, roster: RosterChange) -> Outcome {
        self.apply(Operation::Append(Append { log: TALK, writer: inbox(writer), entry, roster: Some(roster) }))
    }

    pub(crate) fn acknowledge(&self, log: LogId, reader: u8, upto: u64) -> Outcome {
        self.apply(Operation::MoveCursor { log, reader: inbox(reader), upto: Position(upto) })
    }

    pub(crate) fn sweep(&self) -> usize {
        match self.apply(Operation::Sweep { most: 1_000 }) {
            Outcome::Swept { entries } => entries,
            other => panic!("a sweep answered {other:?}"),
        }
    }

    pub(crate) fn fill(&self) -> Outcome {
        self.apply(Operation::FillInboxes { most: 100 })
    }

    pub(crate) fn page(&self, log: LogId, after: u64) -> Page {
        self.store().read(log, Position(after), 100, 1 << 20).expect("the store works")
    }

    /// The positions on a page.
    pub(crate) fn positions(&self, log: LogId, after: u64) -> Vec<u64> {
        self.page(log, after).entries.iter().map(|entry| entry.position.0).collect()
    }

    /// The positions in a whole log, across its gaps.
    pub(crate) fn all_positions(&self, log: LogId) -> Vec<u64> {
        let (mut all, mut at) = (Vec::new(), 0);
        while at < self.head(log).length.0 {
            let page = self.page(log, at);
            all.extend(page.entries.iter().map(|entry| entry.position.0));
            at = all.last().copied().unwrap_or(0).max(page.trimmed.map_or(0, |(position, _)| position.0));
        }
        all
    }

    pub(crate) fn head(&self, log: LogId) -> Head {
        self.store().head(log).expect("the store works").expect("the log exists")
    }

    pub(crate) fn cursor(&self, log: LogId, reader: u8) -> Option<u64> {
        self.store().cursor(log, inbox(reader)).expect("the store works").map(|cursor| cursor.0)
    }

    pub(crate) fn pass(&mut self, milliseconds: u64) {
        self.now = self.now.plus(milliseconds);
    }
}

pub(crate) fn key(key: u8) -> RecordKey {
    RecordKey { kind: RecordKind::Account, key: vec![key] }
}

pub(crate) fn put(key_: u8, expected: Option<u64>, value: &[u8]) -> RecordSwap {
    RecordSwap { key: key(key_), expected, value: Some(value.to_vec()) }
}
