//! What goes, when, and how a reader learns of it.

use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::limits::{COMMIT_RETENTION_MS, ENVELOPE_MEMORY_MS, MESSAGE_RETENTION_MS};
use sealwire_wire::{LogId, Position};

use super::{Bed, TALK, World, appended, chain_over, change, commit, direct, entry, inbox, message, repeated};
use crate::logs::Limits;
use crate::{Operation, Outcome, RosterChange, Welcome};

const BOX: LogId = LogId::Inbox(sealwire_wire::InboxAddress([1; 16]));

/// L9: an entry goes when the slowest reader has passed it, commits too; the head and the chain stay.
pub fn entries_that_all_have_read_go<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes().with_talk(&[1, 2]);
    let entries = [commit(0, 100), message(1, 1), message(1, 2)];
    world.talk(1, message(1, 1));
    world.talk(1, message(1, 2));
    let head = world.head(TALK);
    world.acknowledge(TALK, 1, 3);
    assert_eq!(world.sweep(), 0);
    world.acknowledge(TALK, 2, 2);
    assert_eq!(world.sweep(), 2);
    world.restart();
    assert_eq!(world.positions(TALK, 0), [3]);
    assert_eq!(world.page(TALK, 0).trimmed, Some((Position(2), Some(chain_over(&entries[..2])))));
    assert_eq!(world.page(TALK, 1).trimmed, Some((Position(2), Some(chain_over(&entries[..2])))));
    assert_eq!(world.page(TALK, 2).trimmed, None);
    world.acknowledge(TALK, 2, 3);
    assert_eq!(world.sweep(), 1);
    world.restart();
    assert_eq!(world.head(TALK), head, "L5: nothing of the order is lost with the entries");
    assert_eq!(world.page(TALK, 0).trimmed, Some((Position(3), Some(chain_over(&entries)))));
    assert_eq!(world.page(TALK, 3).trimmed, None);
    assert_eq!(world.talk(1, message(1, 3)), appended(4));
    assert_eq!(world.head(TALK).chain, Some(chain_over(&[&entries[..], &[message(1, 3)]].concat())));
}

/// L9: at the limits and one past; in inboxes and conversations.
pub fn messages_live_30_days_and_commits_60<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes().with_talk(&[1]);
    world.talk(1, message(1, 1));
    world.to_inbox(1, direct(1));
    world.pass(MESSAGE_RETENTION_MS);
    world.sweep();
    assert_eq!((world.positions(TALK, 0).len(), world.positions(BOX, 0).len()), (2, 1));
    world.pass(1);
    world.sweep();
    world.restart();
    assert_eq!((world.positions(TALK, 0), world.positions(BOX, 0).len()), (vec![1], 0));
    assert_eq!(world.page(BOX, 0).trimmed, Some((Position(1), None)));
    world.pass(COMMIT_RETENTION_MS - MESSAGE_RETENTION_MS - 1);
    world.sweep();
    assert_eq!(world.positions(TALK, 0), [1]);
    world.pass(1);
    world.sweep();
    world.restart();
    assert_eq!(world.positions(TALK, 0).len(), 0);
    assert_eq!(world.head(TALK).newest_commit, Position(1));
}

/// L9: messages go before the commits between them; each gap is told once, with the chain at its end (L5).
pub fn a_gap_between_commits_is_told<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes().with_talk(&[1]);
    let entries = [commit(0, 100), message(1, 1), message(1, 2), commit(1, 3), message(4, 4)];
    entries[1..].iter().for_each(|entry| assert!(matches!(world.talk(1, entry.clone()), Outcome::Appended { .. })));
    world.pass(MESSAGE_RETENTION_MS + 1);
    world.sweep();
    world.talk(1, message(4, 5));
    for _ in 0..2 {
        assert_eq!((world.positions(TALK, 0), world.page(TALK, 0).trimmed), (vec![1], None));
        let first_gap = Some((Position(3), Some(chain_over(&entries[..3]))));
        assert_eq!((world.positions(TALK, 1), world.page(TALK, 1).trimmed), (vec![4], first_gap));
        let second_gap = Some((Position(5), Some(chain_over(&entries))));
        assert_eq!((world.positions(TALK, 4), world.page(TALK, 4).trimmed), (vec![6], second_gap));
        world.restart();
    }
}

/// L9: the oldest messages go, by number or by bytes; the writer is never refused.
pub fn a_full_inbox_drops_its_oldest_messages<B: Bed>() {
    let size = direct(1).encode().len() as u64;
    let by_number = Limits { inbox_entries: 3, ..Limits::default() };
    let by_bytes = Limits { inbox_bytes: size * 3, ..Limits::default() };
    for limits in [by_number, by_bytes] {
        let mut world = World::<B>::within(limits).with_inboxes();
        for envelope in 1..=3 {
            world.to_inbox(1, direct(envelope));
        }
        assert_eq!(world.positions(BOX, 0), [1, 2, 3], "at the limit");
        world.restart();
        assert_eq!(world.to_inbox(1, direct(4)), appended(4));
        assert_eq!(world.positions(BOX, 0), [2, 3, 4], "one past it");
        world.restart();
        assert_eq!(world.page(BOX, 0).trimmed, Some((Position(1), None)));
        assert_eq!(world.to_inbox(1, direct(1)), repeated(1), "E4");
    }
    let tiny = World::<B>::within(Limits { inbox_bytes: 1, ..Limits::default() }).with_inboxes();
    tiny.to_inbox(1, direct(1));
    tiny.to_inbox(1, direct(2));
    assert_eq!(tiny.positions(BOX, 0), [2], "the newest stays, however large");
}

/// L9, O: what goes from a full inbox is the oldest of whoever has most there, and where several have most the oldest of
/// all; a restart changes nothing of it.
pub fn a_full_inbox_drops_what_the_flood_brought<B: Bed>() {
    let mut world = World::<B>::within(Limits { inbox_entries: 6, ..Limits::default() }).with_inboxes();
    // 1 and 2 are friends', the rest is the flood's.
    for (envelope, writer) in [(1, 2), (2, 3), (3, 4), (4, 4), (5, 4), (6, 4), (7, 4), (8, 4)] {
        assert_eq!(world.to_inbox_by(writer, 1, direct(envelope)), appended(u64::from(envelope)));
    }
    assert_eq!(world.all_positions(BOX), [1, 2, 5, 6, 7, 8]);
    world.restart();
    world.to_inbox_by(2, 1, direct(9));
    world.to_inbox_by(3, 1, direct(10));
    assert_eq!(world.all_positions(BOX), [1, 2, 7, 8, 9, 10], "a friend's drops the flood's");
    world.restart();
    world.to_inbox_by(4, 1, direct(11));
    assert_eq!(world.all_positions(BOX), [1, 2, 8, 9, 10, 11]);
    world.acknowledge(BOX, 1, 1);
    assert_eq!(world.sweep(), 1);
    world.to_inbox_by(2, 1, direct(12));
    assert_eq!(world.all_positions(BOX), [2, 8, 9, 10, 11, 12]);
    world.to_inbox_by(3, 1, direct(13));
    assert_eq!(world.all_positions(BOX), [8, 9, 10, 11, 12, 13], "what was read counts for nobody");
}

/// L9, C8: who creates conversations with somebody, or adds them to some, fills their own share of the inbox with it.
pub fn welcomes_are_part_of_their_writers_share<B: Bed>() {
    let limits = Limits { inbox_entries: 4, ..Limits::default() };
    let mut world = World::<B>::within(limits).with_inboxes();
    let welcome = |envelope| Welcome { inbox: inbox(3), entry: entry(EntryKind::Welcome, 0, envelope) };
    let inbox_3 = LogId::Inbox(inbox(3));
    world.to_inbox_by(9, 3, direct(1));
    world.to_inbox_by(1, 3, direct(2));
    assert_eq!(world.create(vec![commit(0, 100)], &[1, 2, 3], vec![welcome(101)]), Outcome::Created);
    world.restart();
    world.fill();
    world.to_inbox_by(8, 3, direct(3));
    assert_eq!(world.all_positions(inbox_3), [1, 2, 3, 4]);
    world.to_inbox_by(8, 3, direct(4));
    assert_eq!(world.all_positions(inbox_3), [1, 3, 4, 5], "the first of the creator's two, not the oldest of all");
    let joining = RosterChange { welcomes: vec![welcome(103)], ..change(&[1, 2, 3], &[1, 2, 3]) };
    assert_eq!(world.talk_changing(2, commit(1, 102), joining), appended(2));
    world.fill();
    assert_eq!(world.all_positions(inbox_3), [1, 3, 5, 6]);
    world.to_inbox_by(2, 3, direct(5));
    assert_eq!(world.all_positions(inbox_3), [1, 3, 5, 7], "the first of the committer's two");
}

/// L9: where it is the bytes that are too much, the oldest of whoever has most bytes goes.
pub fn a_full_inbox_drops_the_largest_share<B: Bed>() {
    let large = |envelope| Entry { body: Body::Inline(vec![envelope; 1_000]), ..direct(envelope) };
    let limits = Limits { inbox_bytes: 3_500, ..Limits::default() };
    let mut world = World::<B>::within(limits).with_inboxes();
    (1..=8).for_each(|envelope| drop(world.to_inbox_by(2, 1, direct(envelope))));
    for envelope in 9..=12 {
        assert_eq!(world.to_inbox_by(3, 1, large(envelope)), appended(u64::from(envelope)));
        world.restart();
    }
    assert_eq!(world.all_positions(BOX), [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12]);
}

/// L9: commits and repairs stay when a quota is full.
pub fn a_full_conversation_keeps_its_commits<B: Bed>() {
    let limits = Limits { conversation_entries: 3, ..Limits::default() };
    let mut world = World::<B>::within(limits).with_inboxes().with_talk(&[1]);
    world.talk(1, message(1, 1));
    world.talk(1, entry(EntryKind::Cannot, 0, 2));
    world.talk(1, message(1, 3));
    assert_eq!((world.positions(TALK, 0), world.positions(TALK, 1)), (vec![1], vec![3, 4]));
    world.restart();
    world.talk(1, commit(1, 4));
    assert_eq!(world.talk(1, commit(5, 5)), appended(6), "over the quota with nothing to drop");
    assert_eq!((world.positions(TALK, 1), world.positions(TALK, 3)), (vec![3], vec![5, 6]));
}

/// E4: 30 days, at the limit and one past.
pub fn envelope_ids_are_forgotten_after_30_days<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes();
    world.to_inbox(1, direct(1));
    world.acknowledge(BOX, 1, 1);
    assert_eq!(world.sweep(), 1);
    world.pass(ENVELOPE_MEMORY_MS);
    assert_eq!(world.sweep(), 0);
    world.restart();
    assert_eq!(world.to_inbox(1, direct(1)), repeated(1));
    world.pass(1);
    assert_eq!(world.sweep(), 1);
    world.restart();
    assert_eq!(world.to_inbox(1, direct(1)), appended(2));
}

/// E4: of gone entries so many ids are remembered, the oldest forgotten first; at the limit and one past it.
pub fn so_many_envelope_ids_are_remembered<B: Bed>() {
    let limits = Limits { inbox_entries: 2, remembered: 3, ..Limits::default() };
    let mut world = World::<B>::within(limits).with_inboxes();
    (1..=5).for_each(|envelope| drop(world.to_inbox(1, direct(envelope))));
    world.restart();
    assert_eq!(world.to_inbox(1, direct(1)), repeated(1), "three are gone");
    assert_eq!(world.to_inbox(1, direct(6)), appended(6));
    world.restart();
    assert_eq!(world.to_inbox(1, direct(2)), repeated(2), "three of four are known");
    world.acknowledge(BOX, 1, 5);
    assert_eq!(world.sweep(), 1);
    world.restart();
    assert_eq!(world.to_inbox(1, direct(3)), repeated(3), "swept or dropped");
    assert_eq!(world.to_inbox(1, direct(2)), appended(7));
    assert_eq!(world.to_inbox(1, direct(1)), appended(8));
}

/// A sweep does as much as it is asked, and the next goes on.
pub fn a_sweep_is_bounded<B: Bed>() {
    let world = World::<B>::new().with_inboxes();
    (1..=5).for_each(|envelope| assert_eq!(world.to_inbox(1, direct(envelope)), appended(u64::from(envelope))));
    world.acknowledge(LogId::Inbox(inbox(1)), 1, 5);
    let sweep = || world.apply(Operation::Sweep { most: 2 });
    assert_eq!(sweep(), Outcome::Swept { entries: 2 });
    assert_eq!(world.positions(BOX, 0), [3, 4, 5]);
    assert_eq!(sweep(), Outcome::Swept { entries: 2 });
    assert_eq!(sweep(), Outcome::Swept { entries: 1 });
    assert_eq!(sweep(), Outcome::Swept { entries: 0 });
}
