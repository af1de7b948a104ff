//! Positions, idempotency, the one order of commits, the chain, pages.

use sealwire_wire::entry::EntryKind;
use sealwire_wire::{LogId, Position};

use super::{Bed, TALK, World, appended, chain_over, change, commit, direct, entry, inbox, message, repeated};
use crate::{Append, Operation, Outcome, Refusal};

const INBOX: fn(u8) -> LogId = |number| LogId::Inbox(inbox(number));

/// E4: each entry has the position after the one before, in each log on its own; a restart counts on.
pub fn positions_are_gapless_from_one<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes();
    assert_eq!(world.to_inbox(1, direct(1)), appended(1));
    assert_eq!(world.to_inbox(1, direct(2)), appended(2));
    assert_eq!(world.to_inbox(2, direct(1)), appended(1));
    world.restart();
    assert_eq!(world.to_inbox(1, direct(3)), appended(3));
    assert_eq!(world.positions(INBOX(1), 0), [1, 2, 3]);
    assert_eq!(world.positions(INBOX(1), 1), [2, 3]);
    assert_eq!(world.page(INBOX(1), 0).entries[2].entry, direct(3).encode());
    assert_eq!(world.page(INBOX(1), 0).entries[2].at, world.now);
    assert_eq!(world.to_inbox(8, direct(1)), Outcome::Refused(Refusal::UnknownLog));
}

/// E4: the same bytes under the same envelope id stand once, whatever else has changed since.
pub fn an_append_is_idempotent<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes().with_talk(&[1, 2]);
    assert_eq!(world.talk(1, message(1, 1)), appended(2));
    assert_eq!(world.talk(2, commit(1, 2)), appended(3));
    assert_eq!(world.talk(1, message(1, 1)), repeated(2), "stale by now, and still the first one's answer");
    world.restart();
    assert_eq!(world.talk(1, message(1, 1)), repeated(2));
    assert_eq!(world.talk_changing(2, commit(3, 3), change(&[1, 2], &[2])), appended(4));
    assert_eq!(world.talk(1, message(1, 1)), repeated(2), "its writer has left by now");
    assert_eq!(world.head(TALK).length, Position(4));
}

/// E4: other bytes under an envelope id that was used change nothing.
pub fn an_envelope_id_is_used_once<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes();
    assert_eq!(world.to_inbox(1, direct(1)), appended(1));
    let other = sealwire_wire::entry::Entry { body: sealwire_wire::entry::Body::Inline(vec![9]), ..direct(1) };
    assert_eq!(world.to_inbox(1, other.clone()), Outcome::Refused(Refusal::EnvelopeReused));
    world.restart();
    assert_eq!(world.to_inbox(1, other), Outcome::Refused(Refusal::EnvelopeReused));
    assert_eq!(world.positions(INBOX(1), 0), [1]);
}

/// E4: an entry that was read and removed is still known by its envelope id.
pub fn an_envelope_id_is_remembered_when_its_entry_is_gone<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes();
    assert_eq!(world.to_inbox(1, direct(1)), appended(1));
    assert_eq!(world.acknowledge(INBOX(1), 1, 1), Outcome::Moved);
    assert_eq!(world.sweep(), 1);
    for _ in 0..2 {
        assert!(world.positions(INBOX(1), 0).is_empty());
        assert_eq!(world.to_inbox(1, direct(1)), repeated(1));
        world.restart();
    }
    assert_eq!(world.to_inbox(1, direct(2)), appended(2), "a position that was taken stays taken");
}

/// L1: an inbox takes Welcomes and direct mode, a conversation the rest.
pub fn kinds_keep_to_their_logs<B: Bed>() {
    let world = World::<B>::new().with_inboxes().with_talk(&[1]);
    for (envelope, kind) in (1..).zip(EntryKind::ALL) {
        let is_refused = |outcome| outcome == Outcome::Refused(Refusal::WrongKind);
        assert_eq!(is_refused(world.to_inbox(1, entry(kind, 1, envelope))), !kind.is_for_inbox());
        let newest = world.head(TALK).newest_commit.0;
        assert_eq!(is_refused(world.talk(1, entry(kind, newest, envelope))), kind.is_for_inbox());
    }
    let roster = Some(change(&[1], &[1]));
    let with_roster = |entry, log| Operation::Append(Append { log, writer: inbox(1), entry, roster: roster.clone() });
    let newest = world.head(TALK).newest_commit.0;
    for (entry, log) in [(message(newest, 50), TALK), (direct(50), INBOX(1)), (entry(EntryKind::Readd, 0, 50), TALK)] {
        assert_eq!(world.apply(with_roster(entry, log)), Outcome::Refused(Refusal::WrongKind));
    }
}

/// L1: commits and messages name the newest commit, or are told it; repairs name none.
pub fn an_entry_names_the_newest_commit<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes().with_talk(&[1]);
    let stale = |newest| Outcome::Refused(Refusal::Stale { newest_commit: Position(newest) });
    assert_eq!(world.talk(1, message(0, 1)), stale(1));
    assert_eq!(world.talk(1, message(1, 1)), appended(2));
    assert_eq!(world.talk(1, commit(2, 2)), stale(1), "a message is no commit");
    assert_eq!(world.talk(1, commit(1, 2)), appended(3));
    world.restart();
    assert_eq!(world.talk(1, message(1, 3)), stale(3));
    assert_eq!(world.talk(1, entry(EntryKind::Cannot, 0, 4)), appended(4));
    assert_eq!(world.talk(1, message(3, 3)), appended(5));
    assert_eq!(world.head(TALK).newest_commit, Position(3));
}

/// L2: of commits on the same one, the first wins, in one group too.
pub fn one_of_two_commits_wins<B: Bed>() {
    let world = World::<B>::new().with_inboxes().with_talk(&[1, 2]);
    let append = |writer, entry| Operation::Append(Append { log: TALK, writer: inbox(writer), entry, roster: None });
    let outcomes = world.apply_all(&[append(1, commit(1, 1)), append(2, commit(1, 2)), append(2, commit(2, 3))]);
    let stale = Outcome::Refused(Refusal::Stale { newest_commit: Position(2) });
    assert_eq!(outcomes, [appended(2), stale, appended(3)]);
}

/// L5: the head's chain is the hash over all entries in order; inboxes have none.
pub fn the_chain_covers_all_entries<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes().with_talk(&[1]);
    let mut entries = vec![commit(0, 100)];
    for envelope in 1..5 {
        assert_eq!(world.head(TALK).chain, Some(chain_over(&entries)));
        entries.push(message(1, envelope));
        world.talk(1, message(1, envelope));
        world.restart();
    }
    assert_eq!(world.head(TALK).chain, Some(chain_over(&entries)));
    assert_eq!(world.head(INBOX(1)).chain, None);
    assert_eq!(world.head(INBOX(1)).readers, [inbox(1)]);
}

/// Pages end at a number of entries or bytes, but bring at least one.
pub fn a_page_is_bounded_and_never_empty<B: Bed>() {
    let world = World::<B>::new().with_inboxes();
    (1..=5).for_each(|envelope| assert_eq!(world.to_inbox(1, direct(envelope)), appended(u64::from(envelope))));
    let size = direct(1).encode().len();
    let count = |entries, bytes| {
        let page = world.store().read(INBOX(1), Position(1), entries, bytes).expect("the store works");
        assert_eq!(page.trimmed, None);
        page.entries.len()
    };
    assert_eq!(count(3, 1 << 20), 3);
    assert_eq!(count(9, 1 << 20), 4);
    assert_eq!(count(9, size * 2), 2);
    assert_eq!(count(9, size * 2 - 1), 1);
    assert_eq!(count(9, 1), 1);
    assert!(world.page(INBOX(1), 5).entries.is_empty());
    assert_eq!(world.page(INBOX(77), 0), crate::Page { entries: Vec::new(), trimmed: None });
    assert_eq!(world.store().head(INBOX(77)).expect("the store works"), None);
}

/// A group is applied in order: what its first operations did, its later ones find.
pub fn a_group_is_seen_by_its_own_operations<B: Bed>() {
    let mut world = World::<B>::new();
    let to_inbox = |envelope| Operation::Append(Append::to_inbox(inbox(1), inbox(9), direct(envelope)));
    let open = Operation::Swap { records: vec![super::put(1, None, b"a")], inboxes: vec![inbox(1)] };
    let again = Operation::Swap { records: vec![super::put(1, None, b"b")], inboxes: Vec::new() };
    let outcomes = world.apply_all(&[to_inbox(1), open, to_inbox(1), to_inbox(1), again]);
    let refused = Outcome::Refused(Refusal::UnknownLog);
    let moved = Outcome::Refused(Refusal::VersionMoved { index: 0 });
    assert_eq!(outcomes, [refused, Outcome::Swapped, appended(1), repeated(1), moved]);
    world.restart();
    assert_eq!(world.positions(INBOX(1), 0), [1]);
}
