//! What stands at the positions of a log.

use std::collections::VecDeque;

use sealwire_wire::Position;

/// A map by position, for what grows at its end and goes mostly from its start: a row of slots, found by where they must
/// be if none is missing. A tree costs several times as much for each entry of a log.
#[derive(Clone, Debug)]
pub(super) struct ByPosition<T> {
    /// In order. A value that is removed leaves a gap, so that the others stay where they are; the first is never one.
    slots: VecDeque<(Position, Option<T>)>,
    values: usize,
}

/// Gaps go when there is one for this many values: a removal moves about as many slots, and a reader passes few gaps.
const VALUES_PER_GAP: usize = 8;
/// So few slots are not worth the trouble.
const SLOTS_MIN: usize = 64;

impl<T> Default for ByPosition<T> {
    fn default() -> ByPosition<T> {
        ByPosition { slots: VecDeque::new(), values: 0 }
    }
}

impl<T> ByPosition<T> {
    pub(super) fn len(&self) -> usize {
        self.values
    }

    pub(super) fn get(&self, position: Position) -> Option<&T> {
        let index = self.find(position).ok()?;
        self.slots[index].1.as_ref()
    }

    /// Behind the last this costs nothing; anywhere else, which only a damaged file asks for, it moves what follows.
    pub(super) fn insert(&mut self, position: Position, value: T) {
        let found = match self.slots.back() {
            Some((last, _)) if *last >= position => self.find(position),
            _ => Err(self.slots.len()),
        };
        match found {
            Ok(index) => {
                let before = self.slots[index].1.replace(value);
                self.values += usize::from(before.is_none());
            }
            Err(index) => {
                self.slots.insert(index, (position, Some(value)));
                self.values += 1;
            }
        }
    }

    pub(super) fn remove(&mut self, position: Position) -> Option<T> {
        let index = self.find(position).ok()?;
        let removed = self.slots[index].1.take()?;
        self.values -= 1;
        self.drop_gaps();
        Some(removed)
    }

    pub(super) fn first(&self) -> Option<(Position, &T)> {
        self.iter().next()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Position, &T)> {
        self.slots.iter().filter_map(|(position, value)| Some((*position, value.as_ref()?)))
    }

    /// Those behind a position.
    pub(super) fn behind(&self, position: Position) -> impl Iterator<Item = (Position, &T)> {
        let begin = match self.find(position) {
            Ok(index) => index + 1,
            Err(index) => index,
        };
        self.slots.range(begin..).filter_map(|(position, value)| Some((*position, value.as_ref()?)))
    }

    /// The slot of a position, or where it would be.
    fn find(&self, position: Position) -> Result<usize, usize> {
        let first = self.slots.front().map_or(position, |(first, _)| *first);
        let expected = position.0.checked_sub(first.0).and_then(|offset| usize::try_from(offset).ok()).unwrap_or(0);
        match self.slots.get(expected) {
            Some((found, _)) if *found == position => Ok(expected),
            _ => self.slots.binary_search_by_key(&position, |(position, _)| *position),
        }
    }

    fn drop_gaps(&mut self) {
        while self.slots.front().is_some_and(|(_, value)| value.is_none()) {
            self.slots.pop_front();
        }
        let gaps = self.slots.len() - self.values;
        if gaps * VALUES_PER_GAP > self.values.max(SLOTS_MIN) {
            self.slots.retain(|(_, value)| value.is_some());
        }
        if self.slots.capacity() / 4 > self.slots.len().max(SLOTS_MIN) {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Beside a tree, through removals everywhere, with positions left out.
    #[test]
    fn it_is_a_map() {
        let (mut slots, mut tree) = (ByPosition::default(), BTreeMap::new());
        let mut random = 1_u64;
        for step in 1..20_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let position = Position(step + step / 100 * 7);
            slots.insert(position, step);
            tree.insert(position, step);
            // More goes than comes in the second half; from the start, or from anywhere.
            for turn in 0..if step < 10_000 { 1 } else { 3 } {
                let anywhere = (random >> 33 >> turn) % (position.0 + 5);
                let first = tree.first_key_value().map_or(Position(0), |(first, _)| *first);
                let gone = if (random >> 60 >> turn).is_multiple_of(2) { first } else { Position(anywhere) };
                assert_eq!(slots.remove(gone), tree.remove(&gone));
                assert_eq!(slots.get(Position(anywhere)), tree.get(&Position(anywhere)));
                let behind = tree.range(Position(anywhere + 1)..).next().map(|(position, step)| (*position, step));
                assert_eq!(slots.behind(Position(anywhere)).next(), behind);
            }
            assert_eq!(slots.len(), tree.len());
            assert_eq!(slots.first(), tree.first_key_value().map(|(position, step)| (*position, step)));
            assert!(slots.slots.len() <= slots.len() + slots.len().max(SLOTS_MIN) / VALUES_PER_GAP);
        }
        assert!(slots.iter().eq(tree.iter().map(|(position, step)| (*position, step))));
        assert!(slots.slots.capacity() < 1_000, "what went takes room no longer");
    }

    #[test]
    fn what_comes_out_of_order_takes_its_place() {
        let mut slots = ByPosition::default();
        for position in [5, 9, 7, 5, 1] {
            slots.insert(Position(position), position);
        }
        let all: Vec<_> = slots.iter().map(|(position, value)| (position.0, *value)).collect();
        assert_eq!((all, slots.len()), (vec![(1, 1), (5, 5), (7, 7), (9, 9)], 4));
    }
}
