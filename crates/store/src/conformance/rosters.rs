//! Creation, Welcomes, rosters, cursors.

use sealwire_keys::chain_start;
use sealwire_wire::entry::EntryKind;
use sealwire_wire::limits::ROSTER_RESTORE_MS;
use sealwire_wire::{LogId, Position};

use super::{
    Bed, TALK, TALK_ID, World, appended, chain_over, change, commit, direct, entry, inbox, inboxes, message, repeated,
};
use crate::{Conversation, Operation, Outcome, Reader, Refusal, RosterChange, Welcome};

fn welcome(to: u8, envelope: u8) -> Welcome {
    Welcome { inbox: inbox(to), entry: entry(EntryKind::Welcome, 0, envelope) }
}

fn restoration(envelope: u8) -> sealwire_wire::entry::Entry {
    entry(EntryKind::RestoreRoster, 0, envelope)
}

const NOT_IN_ROSTER: Outcome = Outcome::Refused(Refusal::NotInRoster);
const ROSTER_MOVED: Outcome = Outcome::Refused(Refusal::RosterMoved);

/// C8: row, entries, roster and outbox at once; the loser of a race is told.
pub fn a_conversation_is_created_once_and_whole<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes();
    let entries = vec![commit(0, 1), message(1, 2), entry(EntryKind::Cannot, 0, 3)];
    assert_eq!(world.create(entries.clone(), &[2, 1], vec![welcome(2, 50)]), Outcome::Created);
    world.restart();
    let head = world.head(TALK);
    assert_eq!((head.length, head.newest_commit), (Position(3), Position(1)));
    assert_eq!((head.chain, head.readers), (Some(chain_over(&entries)), inboxes(&[1, 2])));
    assert_eq!(world.positions(TALK, 0), [1, 2, 3]);
    assert_eq!((world.cursor(TALK, 1), world.cursor(TALK, 2), world.cursor(TALK, 3)), (Some(0), Some(0), None));
    let again = world.create(vec![commit(0, 9)], &[3], vec![welcome(3, 51)]);
    assert_eq!(again, Outcome::Refused(Refusal::ConversationExists));
    assert_eq!(world.fill(), Outcome::Filled(inboxes(&[2])), "the loser's Welcomes go nowhere");
    assert_eq!(world.talk(1, commit(0, 1)), repeated(1), "first entries are known by their envelope ids too");
}

/// C8, L1: of first entries that one is refused for, none is there.
pub fn first_entries_are_judged_like_others<B: Bed>() {
    let world = World::<B>::new().with_inboxes();
    let refused = |entries, welcomes| match world.create(entries, &[1], welcomes) {
        Outcome::Refused(refusal) => refusal,
        other => panic!("created: {other:?}"),
    };
    assert_eq!(refused(vec![commit(0, 1), direct(2)], vec![]), Refusal::WrongKind);
    assert_eq!(refused(vec![commit(0, 1), message(0, 2)], vec![]), Refusal::Stale { newest_commit: Position(1) });
    assert_eq!(refused(vec![commit(0, 1), message(1, 1)], vec![]), Refusal::EnvelopeReused);
    let not_a_welcome = Welcome { inbox: inbox(2), entry: direct(5) };
    assert_eq!(refused(vec![commit(0, 1)], vec![not_a_welcome]), Refusal::WrongKind);
    assert_eq!(world.store().head(TALK).expect("the store works"), None);
    assert_eq!(world.fill(), Outcome::Filled(vec![]));
    assert_eq!(world.talk(1, commit(0, 1)), Outcome::Refused(Refusal::UnknownLog));
}

/// C8: the outbox survives a restart, fills as many as asked, and each Welcome arrives once.
pub fn welcomes_reach_their_inboxes_once<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes();
    world.create(vec![commit(0, 1)], &[1, 2, 3], vec![welcome(2, 50), welcome(3, 51), welcome(3, 51)]);
    world.restart();
    assert_eq!(world.apply(Operation::FillInboxes { most: 1 }), Outcome::Filled(inboxes(&[2])));
    world.restart();
    assert_eq!(world.fill(), Outcome::Filled(inboxes(&[3])));
    assert_eq!(world.fill(), Outcome::Filled(vec![]));
    assert_eq!(world.positions(LogId::Inbox(inbox(2)), 0), [1]);
    assert_eq!(world.positions(LogId::Inbox(inbox(3)), 0), [1]);
    let joining = RosterChange { welcomes: vec![welcome(4, 52)], ..change(&[1, 2, 3], &[1, 2, 3, 4]) };
    assert_eq!(world.talk_changing(1, commit(1, 2), joining.clone()), appended(2));
    assert_eq!(world.talk_changing(1, commit(1, 2), joining), repeated(2));
    assert_eq!(world.fill(), Outcome::Filled(inboxes(&[4])), "a repeated commit sends no Welcome again");
    assert_eq!(world.fill(), Outcome::Filled(vec![]));
}

/// C8: what can reach nobody does not stay in the outbox.
pub fn welcomes_to_nobody_are_dropped<B: Bed>() {
    let world = World::<B>::new().with_inboxes();
    world.create(vec![commit(0, 1)], &[1, 2], vec![welcome(88, 50), welcome(2, 51)]);
    assert_eq!(world.apply(Operation::FillInboxes { most: 1 }), Outcome::Filled(vec![]));
    assert_eq!(world.fill(), Outcome::Filled(inboxes(&[2])));
}

/// C6: who is not in the roster writes nothing.
pub fn only_the_roster_writes<B: Bed>() {
    let world = World::<B>::new().with_inboxes().with_talk(&[1]);
    for written in [message(1, 1), commit(1, 1), entry(EntryKind::Readd, 0, 1), restoration(1)] {
        assert_eq!(world.talk(2, written), NOT_IN_ROSTER);
    }
    assert_eq!(world.talk(1, message(1, 1)), appended(2));
}

/// C6: in the transaction of the commit; who comes in reads from there.
pub fn a_roster_changes_with_its_commit<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes().with_talk(&[1, 2]);
    assert_eq!(world.talk(2, message(1, 1)), appended(2));
    assert_eq!(world.talk_changing(1, commit(1, 2), change(&[1, 2], &[1, 3])), appended(3));
    world.restart();
    assert_eq!(world.head(TALK).readers, inboxes(&[1, 3]));
    assert_eq!((world.cursor(TALK, 1), world.cursor(TALK, 3)), (Some(0), Some(3)));
    assert_eq!(world.talk(3, message(3, 3)), appended(4));
    assert_eq!(world.talk(2, message(3, 4)), NOT_IN_ROSTER);
}

/// C6: a change names the roster that it replaces; else neither it nor its commit happens.
pub fn a_roster_changes_from_the_present_one<B: Bed>() {
    let world = World::<B>::new().with_inboxes().with_talk(&[1, 2]);
    assert_eq!(world.talk_changing(1, commit(1, 1), change(&[1], &[1, 3])), ROSTER_MOVED);
    assert_eq!((world.head(TALK).length, world.head(TALK).readers), (Position(1), inboxes(&[1, 2])));
    assert_eq!(world.talk_changing(1, commit(1, 1), change(&[1, 2], &[1, 3])), appended(2));
    assert_eq!(world.talk_changing(1, commit(2, 2), change(&[1, 2], &[1])), ROSTER_MOVED);
}

/// C6: and its cursor moves no further, but its unread entries are kept for it.
pub fn a_dropped_inbox_reads_up_to_the_entry_that_dropped_it<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes().with_talk(&[1, 2]);
    world.talk_changing(1, commit(1, 1), change(&[1, 2], &[1]));
    world.talk(1, message(2, 2));
    world.acknowledge(TALK, 1, 3);
    for _ in 0..2 {
        let reader = world.store().reader(TALK, inbox(2)).expect("the store works");
        let Some(Reader { cursor, until, chain }) = reader else { panic!("it reads") };
        assert_eq!((cursor, until), (Position(0), Some(Position(2))));
        assert_eq!(chain, Some(chain_start(TALK_ID)), "where it stands (L5)");
        assert_eq!(world.sweep(), 0, "inbox 2 has not read what it may read");
        world.restart();
    }
    assert_eq!(world.acknowledge(TALK, 2, 3), Outcome::Moved);
    assert_eq!(world.cursor(TALK, 2), Some(2));
    assert_eq!(world.sweep(), 3, "nobody waits for anything now");
    world.pass(ROSTER_RESTORE_MS + 1);
    world.sweep();
    world.restart();
    assert_eq!(world.cursor(TALK, 2), None, "it has read all, and may restore no more");
}

/// C6: one entry, of one kind, to the roster that it was dropped from; then it reads on where it was.
pub fn a_dropped_inbox_restores_its_roster_once<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes().with_talk(&[1, 2, 3]);
    assert_eq!(world.talk_changing(1, commit(1, 1), change(&[1, 2, 3], &[1])), appended(2));
    assert_eq!(world.talk(2, message(2, 2)), NOT_IN_ROSTER);
    assert_eq!(world.talk_changing(2, commit(2, 2), change(&[1], &[1, 2, 3])), NOT_IN_ROSTER);
    assert_eq!(world.talk_changing(2, restoration(3), change(&[1], &[2])), ROSTER_MOVED, "not the roster before");
    assert_eq!(world.talk_changing(2, restoration(3), change(&[1, 2], &[1, 2, 3])), ROSTER_MOVED);
    world.restart();
    assert_eq!(world.talk_changing(2, restoration(3), change(&[1], &[1, 2, 3])), appended(3));
    assert_eq!(world.head(TALK).readers, inboxes(&[1, 2, 3]));
    assert_eq!((world.cursor(TALK, 2), world.cursor(TALK, 3)), (Some(0), Some(0)), "they never left");
    assert_eq!(world.talk_changing(1, commit(2, 4), change(&[1, 2, 3], &[1])), appended(4));
    assert_eq!(world.talk(3, restoration(5)), appended(5), "one that restores nothing is spent as well");
    world.restart();
    assert_eq!(world.talk_changing(3, restoration(6), change(&[1], &[1, 2, 3])), NOT_IN_ROSTER);
}

/// C6: at the limit, and one past it.
pub fn a_restoration_is_owed_for_72_hours<B: Bed>() {
    for (late, is_owed) in [(0, true), (1, false)] {
        let mut world = World::<B>::new().with_inboxes().with_talk(&[1, 2]);
        world.talk_changing(1, commit(1, 1), change(&[1, 2], &[1]));
        world.acknowledge(TALK, 2, 2);
        world.pass(ROSTER_RESTORE_MS + late);
        world.sweep();
        let outcome = world.talk_changing(2, restoration(2), change(&[1], &[1, 2]));
        assert_eq!(outcome == appended(3), is_owed);
        assert_eq!(outcome == NOT_IN_ROSTER, !is_owed);
    }
}

/// L9: forward, not past the end, by readers only.
pub fn cursors_move_forward_only<B: Bed>() {
    let mut world = World::<B>::new().with_inboxes().with_talk(&[1]);
    world.talk(1, message(1, 1));
    assert_eq!(world.acknowledge(TALK, 1, 1), Outcome::Moved);
    assert_eq!(world.acknowledge(TALK, 1, 0), Outcome::Moved);
    assert_eq!(world.cursor(TALK, 1), Some(1));
    assert_eq!(world.acknowledge(TALK, 1, 99), Outcome::Moved);
    world.restart();
    assert_eq!(world.cursor(TALK, 1), Some(2));
    assert_eq!(world.acknowledge(TALK, 2, 1), NOT_IN_ROSTER);
    assert_eq!(world.acknowledge(LogId::Inbox(inbox(1)), 2, 1), NOT_IN_ROSTER);
    let nowhere = LogId::Conversation(sealwire_wire::ConversationId([1; 32]));
    assert_eq!(world.acknowledge(nowhere, 1, 1), Outcome::Refused(Refusal::UnknownLog));
    let empty = Conversation { id: TALK_ID, writer: inbox(1), entries: vec![], roster: vec![], welcomes: vec![] };
    assert_eq!(world.apply(Operation::CreateConversation(empty)), Outcome::Refused(Refusal::ConversationExists));
}
