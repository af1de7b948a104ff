//! Who has how much of an inbox, so that a full one drops what is too much of one writer's, and nobody else's (L9).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use sealwire_wire::{InboxAddress, Position};

use super::by_position::ByPosition;

/// The inbox of the device that wrote an entry. `None`: written before stores knew; all of these are one writer's.
pub(super) type Writer = Option<InboxAddress>;

/// What all writers have, and who has most. Every change costs a few steps in trees, however much there is.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    by_writer: BTreeMap<Writer, Share>,
    /// Made when a quota first asks, which it does of few inboxes, and kept until the inbox is empty.
    order: Option<Order>,
}

/// Of each writer how much, and where its oldest entry stands: the last one has most and, of those, the oldest.
#[derive(Clone, Debug, Default)]
struct Order {
    by_entries: BTreeSet<(usize, Reverse<Position>, Writer)>,
    by_bytes: BTreeSet<(u64, Reverse<Position>, Writer)>,
}

/// What one writer has.
#[derive(Clone, Debug, Default)]
struct Share {
    entries: ByPosition<()>,
    bytes: u64,
}

impl Shares {
    pub(super) fn add(&mut self, writer: Writer, position: Position, size: u32) {
        self.change(writer, |share| {
            share.entries.insert(position, ());
            share.bytes += u64::from(size);
        });
    }

    pub(super) fn remove(&mut self, writer: Writer, position: Position, size: u32) {
        self.change(writer, |share| {
            share.entries.remove(position);
            share.bytes -= u64::from(size);
        });
    }

    /// The oldest entry, but for `last`, of the writer who has most entries.
    pub(super) fn oldest_of_most_entries(&mut self, last: Position) -> Option<Position> {
        self.order().by_entries.iter().rev().map(|(_, oldest, _)| oldest.0).find(|oldest| *oldest != last)
    }

    /// The oldest entry, but for `last`, of the writer who has most bytes.
    pub(super) fn oldest_of_most_bytes(&mut self, last: Position) -> Option<Position> {
        self.order().by_bytes.iter().rev().map(|(_, oldest, _)| oldest.0).find(|oldest| *oldest != last)
    }

    fn change(&mut self, writer: Writer, change: impl FnOnce(&mut Share)) {
        let share = self.by_writer.entry(writer).or_default();
        if let Some(order) = &mut self.order {
            order.remove(writer, share);
        }
        change(share);
        if let Some(order) = &mut self.order {
            order.insert(writer, share);
        }
        if share.entries.len() == 0 {
            self.by_writer.remove(&writer);
        }
        if self.by_writer.is_empty() {
            self.order = None;
        }
    }

    fn order(&mut self) -> &mut Order {
        self.order.get_or_insert_with(|| {
            let mut order = Order::default();
            for (writer, share) in &self.by_writer {
                order.insert(*writer, share);
            }
            order
        })
    }
}

impl Order {
    fn insert(&mut self, writer: Writer, share: &Share) {
        if let Some((oldest, ())) = share.entries.first() {
            self.by_entries.insert((share.entries.len(), Reverse(oldest), writer));
            self.by_bytes.insert((share.bytes, Reverse(oldest), writer));
        }
    }

    fn remove(&mut self, writer: Writer, share: &Share) {
        if let Some((oldest, ())) = share.entries.first() {
            self.by_entries.remove(&(share.entries.len(), Reverse(oldest), writer));
            self.by_bytes.remove(&(share.bytes, Reverse(oldest), writer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(number: u8) -> Writer {
        Some(InboxAddress([number; 16]))
    }

    /// Ties: the oldest. The last entry of a log is nobody's to lose.
    #[test]
    fn who_has_most_is_known_after_every_change() {
        let mut shares = Shares::default();
        let last = Position(100);
        assert_eq!(shares.oldest_of_most_entries(last), None);
        shares.add(writer(1), Position(1), 10);
        shares.add(writer(2), Position(2), 50);
        let most = |shares: &mut Shares| (shares.oldest_of_most_entries(last), shares.oldest_of_most_bytes(last));
        assert_eq!(most(&mut shares), (Some(Position(1)), Some(Position(2))));
        shares.add(writer(2), Position(3), 1);
        shares.add(None, Position(4), 1);
        assert_eq!(most(&mut shares), (Some(Position(2)), Some(Position(2))));
        shares.remove(writer(2), Position(2), 50);
        assert_eq!(most(&mut shares), (Some(Position(1)), Some(Position(1))));
        shares.add(None, last, 1_000);
        assert_eq!(most(&mut shares), (Some(Position(4)), Some(Position(4))));
        shares.remove(None, Position(4), 1);
        assert_eq!(most(&mut shares), (Some(Position(1)), Some(Position(1))), "the largest is the last one's alone");
        for (number, position, size) in [(1, 1, 10), (2, 3, 1)] {
            shares.remove(writer(number), Position(position), size);
        }
        assert_eq!(most(&mut shares), (None, None));
        shares.remove(None, last, 1_000);
        assert!(shares.by_writer.is_empty() && shares.order.is_none());
    }
}
