//! The replay window (D2, RFC 6479's idea): which counters of a key were seen, for the newest 1,024 of them.

use sealwire_wire::limits::REPLAY_WINDOW;

/// Remembers counters. What lies further behind than [`REPLAY_WINDOW`] counts as seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplayWindow {
    /// One past the newest counter seen; 0 before the first.
    end: u32,
    /// Bit i: counter `end - 1 - i` was seen.
    seen: Vec<u64>,
}

const WORDS: usize = REPLAY_WINDOW as usize / 64;

impl ReplayWindow {
    /// Whether a counter is new.
    pub fn is_new(&self, counter: u32) -> bool {
        if counter >= self.end {
            return true;
        }
        let behind = self.end - 1 - counter;
        behind < REPLAY_WINDOW && !self.bit(behind)
    }

    /// Whether a counter lies so far behind that it cannot be told from a replay any more.
    pub fn is_too_old(&self, counter: u32) -> bool {
        counter < self.end && self.end - 1 - counter >= REPLAY_WINDOW
    }

    /// Marks a counter as seen. Only after its message was authenticated: an attacker must not move the window.
    pub fn mark(&mut self, counter: u32) {
        self.seen.resize(WORDS, 0);
        if counter >= self.end {
            self.shift(counter - self.end + 1);
            self.end = counter.saturating_add(1);
        }
        let behind = self.end - 1 - counter;
        if behind < REPLAY_WINDOW {
            self.seen[behind as usize / 64] |= 1 << (behind % 64);
        }
    }

    /// How many counters before this one were never seen (and still could be): a gap that the reader should know of.
    pub fn gap_before(&self, counter: u32) -> u32 {
        counter.saturating_sub(self.end)
    }

    /// For the store: the end, then the words.
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = self.seen.iter().flat_map(|word| word.to_be_bytes());
        self.end.to_be_bytes().into_iter().chain(words).collect()
    }

    /// Reads what [`ReplayWindow::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<ReplayWindow> {
        let (end, words) = bytes.split_first_chunk()?;
        let (words, rest) = words.as_chunks();
        let fits = rest.is_empty() && (words.is_empty() || words.len() == WORDS);
        fits.then(|| ReplayWindow {
            end: u32::from_be_bytes(*end),
            seen: words.iter().map(|word| u64::from_be_bytes(*word)).collect(),
        })
    }

    fn bit(&self, behind: u32) -> bool {
        self.seen.get(behind as usize / 64).is_some_and(|word| word >> (behind % 64) & 1 == 1)
    }

    fn shift(&mut self, by: u32) {
        let (words, bits) = (by as usize / 64, by % 64);
        for i in (0..self.seen.len()).rev() {
            let low = i.checked_sub(words).map_or(0, |from| self.seen[from] << bits);
            let carried = match i.checked_sub(words + 1) {
                Some(from) if bits > 0 => self.seen[from] >> (64 - bits),
                _ => 0,
            };
            self.seen[i] = low | carried;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;

    /// D2: the window against a set, over random walks that jump, fall behind and repeat.
    #[test]
    fn the_window_agrees_with_a_set() {
        for seed in 0..50 {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let (mut window, mut seen, mut newest) = (ReplayWindow::default(), BTreeSet::new(), 0u32);
            for _ in 0..2_000 {
                let reach = [3, 70, 900, 3_000][rng.next_u32() as usize % 4];
                let counter = (newest + reach / 2).saturating_sub(rng.next_u32() % reach);
                let too_old = newest >= REPLAY_WINDOW && counter <= newest - REPLAY_WINDOW && !seen.is_empty();
                assert_eq!(
                    window.is_new(counter),
                    !too_old && !seen.contains(&counter),
                    "seed {seed}, counter {counter}"
                );
                if window.is_new(counter) {
                    window.mark(counter);
                    seen.insert(counter);
                    newest = newest.max(counter);
                }
                assert!(!window.is_new(counter));
            }
            assert_eq!(ReplayWindow::from_bytes(&window.to_bytes()), Some(window));
        }
    }

    #[test]
    fn the_edges_of_the_window() {
        let mut window = ReplayWindow::default();
        assert!(window.is_new(0) && window.is_new(u32::MAX - 1));
        assert_eq!(window.gap_before(5), 5);
        window.mark(REPLAY_WINDOW);
        assert!(window.is_new(1), "the oldest that can be told");
        assert!(!window.is_new(0), "one further counts as seen");
        assert!(window.is_too_old(0) && !window.is_too_old(1) && !window.is_too_old(REPLAY_WINDOW + 9));
        assert!(!window.is_too_old(REPLAY_WINDOW + 1), "the next one");
        let before = window.clone();
        window.mark(0);
        assert_eq!(window, before, "what lies behind marks nothing");
        assert_eq!(window.to_bytes().len(), 4 + REPLAY_WINDOW as usize / 8, "a bit for each");
        assert_eq!(ReplayWindow::from_bytes(&[0; 5]), None);
        assert_eq!(ReplayWindow::from_bytes(&[]), None);
    }
}
