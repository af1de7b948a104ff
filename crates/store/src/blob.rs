//! The rules of a blob's pieces (E7), without the bytes: what a store that holds so much of it does with the next piece.

use sealwire_wire::limits::{BLOB_CHUNK_MAX, BLOB_MAX};

use crate::{Outcome, Refusal};

/// How much of a blob a store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// The size of the whole, as its first piece told.
    pub size: u64,
    /// Bytes from the beginning. Where they are `size`, the blob is whole and fits its hash.
    pub held: u64,
}

/// What to do with a piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Write nothing, and answer this.
    Answer(Outcome),
    /// Keep the first `keep` bytes that are held, and put the piece's bytes from `skip` on behind them. Where the blob is
    /// whole then, check it against its hash: one that does not fit is thrown away and answered with [`mismatch`].
    Write {
        /// Held bytes that stay.
        keep: u64,
        /// Bytes at the piece's beginning that are held already.
        skip: usize,
        /// Bytes held afterwards.
        held: u64,
    },
}

/// Judges a piece of `length` bytes from `offset` of a blob of `size` bytes, of which the store has `found`.
///
/// A first piece that tells another size begins the blob anew: else whoever told a wrong size first would keep it from
/// all others. A whole blob never changes.
pub fn judge(found: Option<Held>, size: u64, offset: u64, length: usize) -> Verdict {
    let whole = found.is_some_and(|found| found.held == found.size);
    let held = match found {
        Some(found) if found.size == size => found.held,
        Some(found) if whole => return Verdict::Answer(mismatch(found.held)),
        _ => 0,
    };
    let end = offset.saturating_add(length as u64);
    if size > BLOB_MAX || length > BLOB_CHUNK_MAX || offset > held || end > size {
        return Verdict::Answer(mismatch(held));
    }
    let is_empty_blob = size == 0 && !whole;
    if end <= held && !is_empty_blob {
        return Verdict::Answer(Outcome::Stored { held, size });
    }
    let skip = usize::try_from(held - offset).unwrap_or(length);
    Verdict::Write { keep: held, skip, held: end }
}

/// The answer to a piece that does not fit: the next one begins at `held`.
pub fn mismatch(held: u64) -> Outcome {
    Outcome::Refused(Refusal::BlobMismatch { held })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E7: in order, resumable, repeated without harm.
    #[test]
    fn a_piece_follows_what_is_held() {
        let found = Some(Held { size: 10, held: 4 });
        assert_eq!(judge(found, 10, 4, 3), Verdict::Write { keep: 4, skip: 0, held: 7 });
        assert_eq!(judge(found, 10, 2, 3), Verdict::Write { keep: 4, skip: 2, held: 5 });
        assert_eq!(judge(found, 10, 0, 4), Verdict::Answer(Outcome::Stored { held: 4, size: 10 }));
        assert_eq!(judge(found, 10, 5, 1), Verdict::Answer(mismatch(4)));
        assert_eq!(judge(found, 10, 4, 7), Verdict::Answer(mismatch(4)));
    }

    /// E7: at the limits and one past them.
    #[test]
    fn pieces_and_wholes_are_bounded() {
        assert!(matches!(judge(None, BLOB_MAX, 0, BLOB_CHUNK_MAX), Verdict::Write { .. }));
        assert_eq!(judge(None, BLOB_MAX, 0, BLOB_CHUNK_MAX + 1), Verdict::Answer(mismatch(0)));
        assert_eq!(judge(None, BLOB_MAX + 1, 0, 1), Verdict::Answer(mismatch(0)));
    }

    #[test]
    fn another_size_begins_anew_unless_the_blob_is_whole() {
        assert_eq!(judge(Some(Held { size: 9, held: 4 }), 10, 0, 3), Verdict::Write { keep: 0, skip: 0, held: 3 });
        assert_eq!(judge(Some(Held { size: 9, held: 4 }), 10, 4, 3), Verdict::Answer(mismatch(0)));
        assert_eq!(judge(Some(Held { size: 9, held: 9 }), 10, 0, 3), Verdict::Answer(mismatch(9)));
        assert_eq!(
            judge(Some(Held { size: 0, held: 0 }), 0, 0, 0),
            Verdict::Answer(Outcome::Stored { held: 0, size: 0 })
        );
        assert_eq!(judge(None, 0, 0, 0), Verdict::Write { keep: 0, skip: 0, held: 0 });
    }
}
