//! Records under compare-and-swap.

use super::{Bed, World, direct, inbox, inboxes, key, put};
use crate::{Operation, Outcome, Record, RecordSwap, Refusal};

fn swap(records: Vec<RecordSwap>) -> Operation {
    Operation::Swap { records, inboxes: Vec::new() }
}

fn record<B: Bed>(world: &World<B>, number: u8) -> Option<Record> {
    world.store().record(&key(number)).expect("the store works")
}

fn version<B: Bed>(world: &World<B>, number: u8) -> Option<u64> {
    record(world, number).map(|record| record.version)
}

/// I3: all at the versions expected, or nothing changes and the first that is not is named.
pub fn records_swap_together_or_not_at_all<B: Bed>() {
    let mut world = World::<B>::new();
    assert_eq!(world.apply(swap(vec![put(1, None, b"a"), put(2, None, b"b")])), Outcome::Swapped);
    world.restart();
    let first = version(&world, 1);
    let moved = |index| Outcome::Refused(Refusal::VersionMoved { index });
    assert_eq!(world.apply(swap(vec![put(3, None, b"c"), put(1, None, b"x")])), moved(1));
    assert_eq!(world.apply(swap(vec![put(3, first, b"c")])), moved(0));
    assert_eq!(record(&world, 3), None);
    assert_eq!(world.apply(swap(vec![put(1, first, b"aa"), put(3, None, b"c")])), Outcome::Swapped);
    assert_eq!(world.apply(swap(vec![put(1, first, b"y")])), moved(0), "the version was used up");
    world.restart();
    let values: Vec<_> = (1..=3).filter_map(|number| record(&world, number)).map(|record| record.value).collect();
    assert_eq!(values, [b"aa".to_vec(), b"b".to_vec(), b"c".to_vec()]);
}

/// A record that was removed and made again has a version that it never had.
pub fn versions_never_come_back<B: Bed>() {
    let mut world = World::<B>::new();
    let mut seen = Vec::new();
    for _ in 0..3 {
        world.apply(swap(vec![put(1, None, b"a")]));
        let found = version(&world, 1);
        assert!(!seen.contains(&found));
        seen.push(found);
        let gone = RecordSwap { key: key(1), expected: found, value: None };
        assert_eq!(world.apply(swap(vec![gone])), Outcome::Swapped);
        world.restart();
        assert_eq!(record(&world, 1), None);
    }
}

/// E5: an inbox opens with the record that names it, once.
pub fn inboxes_open_with_their_records<B: Bed>() {
    let mut world = World::<B>::new();
    let open = |records, numbers: &[u8]| Operation::Swap { records, inboxes: inboxes(numbers) };
    assert_eq!(world.apply(open(vec![put(1, None, b"a")], &[1])), Outcome::Swapped);
    world.restart();
    let exists = Outcome::Refused(Refusal::InboxExists);
    assert_eq!(world.apply(open(vec![put(2, None, b"b")], &[2, 1])), exists);
    assert_eq!(world.apply(open(vec![put(2, None, b"b")], &[2, 2])), exists);
    assert_eq!(record(&world, 2), None);
    assert_eq!(world.to_inbox(2, direct(1)), Outcome::Refused(Refusal::UnknownLog));
    let moved = Outcome::Refused(Refusal::VersionMoved { index: 0 });
    assert_eq!(world.apply(open(vec![put(1, None, b"b")], &[2])), moved);
    assert_eq!(world.to_inbox(2, direct(1)), Outcome::Refused(Refusal::UnknownLog));
    assert_eq!(world.cursor(sealwire_wire::LogId::Inbox(inbox(1)), 1), Some(0));
}
