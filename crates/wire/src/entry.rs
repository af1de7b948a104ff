//! Entries of logs (L1): (kind, after, envelope id, body or blob hash), in TLS presentation language. The relay reads
//! these fields and never the body.

use tls_codec::{DeserializeBytes, Serialize, Size, TlsByteVecU24};

use crate::limits::ENTRY_MAX;
use crate::{BlobHash, EnvelopeId, Position};

/// What an entry is. Which kinds a log takes, and which name `after`, is fixed here (L1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// A message of a conversation.
    Message = 1,
    /// A commit of a conversation.
    Commit = 2,
    /// A repair: a device asks to be added again (C10).
    Readd = 3,
    /// A repair: a member could not process a commit (C4).
    Cannot = 4,
    /// A repair: a dropped member restores the roster before (C6).
    RestoreRoster = 5,
    /// A direct-mode envelope, in an inbox.
    Direct = 16,
    /// A Welcome to a conversation, in an inbox.
    Welcome = 17,
}

impl EntryKind {
    /// Every kind.
    pub const ALL: [EntryKind; 7] = [
        EntryKind::Message,
        EntryKind::Commit,
        EntryKind::Readd,
        EntryKind::Cannot,
        EntryKind::RestoreRoster,
        EntryKind::Direct,
        EntryKind::Welcome,
    ];

    /// Whether it belongs into an inbox; the others belong into a conversation log.
    pub fn is_for_inbox(self) -> bool {
        matches!(self, EntryKind::Direct | EntryKind::Welcome)
    }

    /// Whether it names the newest commit that its sender has read (L1).
    pub fn names_after(self) -> bool {
        matches!(self, EntryKind::Message | EntryKind::Commit)
    }

    /// Whether it is kept for 60 days instead of 30 (L9), and a full quota leaves it.
    pub fn is_kept_long(self) -> bool {
        matches!(self, EntryKind::Commit | EntryKind::Readd | EntryKind::Cannot | EntryKind::RestoreRoster)
    }

    fn from_byte(byte: u8) -> Option<EntryKind> {
        EntryKind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What an entry carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// The sealed bytes themselves.
    Inline(Vec<u8>),
    /// The hash of a blob that holds them (E7).
    Blob(BlobHash),
}

/// One entry of a log, as its sender wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// The newest commit that its sender has read; present exactly where [`EntryKind::names_after`].
    pub after: Option<Position>,
    /// For idempotency.
    pub envelope: EnvelopeId,
    /// What it carries.
    pub body: Body,
}

/// The bit of the kind byte that says "the body is a blob's hash".
const BLOB_BIT: u8 = 0x80;

/// Why bytes are not an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Longer than [`ENTRY_MAX`].
    #[error("the entry is longer than {ENTRY_MAX} bytes")]
    TooLarge,
    /// A kind that this version does not know.
    #[error("unknown entry kind {0}")]
    UnknownKind(u8),
    /// Truncated, or bytes behind its end.
    #[error("the entry is malformed")]
    Malformed,
}

impl Entry {
    /// A direct-mode entry.
    pub fn direct(envelope: EnvelopeId, body: Vec<u8>) -> Entry {
        Entry { kind: EntryKind::Direct, after: None, envelope, body: Body::Inline(body) }
    }

    /// The entry's bytes: `uint8 kind`, `uint64 after` where the kind names one, `opaque envelope[16]`, then
    /// `opaque body<0..2^24-1>` or, with the highest bit of `kind`, `opaque hash[32]`.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert_eq!(self.after.is_some(), self.kind.names_after());
        let (blob, body) = match &self.body {
            Body::Inline(body) => (0, 3 + body.len()),
            Body::Blob(_) => (BLOB_BIT, BlobHash::LENGTH),
        };
        let mut bytes = Vec::with_capacity(1 + 8 + EnvelopeId::LENGTH + body);
        bytes.push(self.kind as u8 | blob);
        if let Some(after) = self.after {
            bytes.extend_from_slice(&after.0.to_be_bytes());
        }
        bytes.extend_from_slice(&self.envelope.0);
        match &self.body {
            Body::Inline(body) => tls_codec::TlsByteSliceU24(body)
                .tls_serialize(&mut bytes)
                .map(|_| ())
                .expect("a Vec takes every byte, and a body is bounded by ENTRY_MAX"),
            Body::Blob(hash) => bytes.extend_from_slice(&hash.0),
        }
        bytes
    }

    /// Reads an entry; every byte must belong to it.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn decode(bytes: &[u8]) -> Result<Entry, EntryError> {
        if bytes.len() > ENTRY_MAX {
            return Err(EntryError::TooLarge);
        }
        let (&first, rest) = bytes.split_first().ok_or(EntryError::Malformed)?;
        let kind = EntryKind::from_byte(first & !BLOB_BIT).ok_or(EntryError::UnknownKind(first))?;
        let (after, rest) =
            if kind.names_after() { part(rest).map(|(after, rest)| (Some(after), rest))? } else { (None, rest) };
        let (envelope, rest) = part(rest)?;
        let (body, rest) = if first & BLOB_BIT != 0 {
            let (hash, rest) = part(rest)?;
            (Body::Blob(hash), rest)
        } else {
            let (body, rest): (TlsByteVecU24, _) = part(rest)?;
            (Body::Inline(body.into_vec()), rest)
        };
        if rest.is_empty() { Ok(Entry { kind, after, envelope, body }) } else { Err(EntryError::Malformed) }
    }
}

fn part<T: DeserializeBytes + Size>(bytes: &[u8]) -> Result<(T, &[u8]), EntryError> {
    T::tls_deserialize_bytes(bytes).map_err(|_| EntryError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> impl Iterator<Item = Entry> {
        EntryKind::ALL.into_iter().flat_map(|kind| {
            [Body::Inline(vec![1, 2, 3]), Body::Inline(vec![]), Body::Blob(BlobHash([9; 32]))].map(|body| Entry {
                kind,
                after: kind.names_after().then_some(Position(7)),
                envelope: EnvelopeId([4; 16]),
                body,
            })
        })
    }

    #[test]
    fn entries_come_back_as_they_were() {
        for entry in entries() {
            assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
        }
    }

    /// E2: canonical, no trailing bytes; every prefix and every extension is refused.
    #[test]
    fn no_prefix_and_no_extension_is_an_entry() {
        for entry in entries() {
            let bytes = entry.encode();
            for end in 0..bytes.len() {
                assert!(Entry::decode(&bytes[..end]).is_err());
            }
            assert_eq!(Entry::decode(&[&bytes[..], &[0]].concat()), Err(EntryError::Malformed));
        }
        assert_eq!(Entry::decode(&[99]), Err(EntryError::UnknownKind(99)));
    }

    #[test]
    fn an_entry_may_be_as_long_as_the_limit_and_no_longer() {
        let entry = |length| Entry::direct(EnvelopeId([1; 16]), vec![0; length]).encode();
        let header = entry(0).len();
        assert!(Entry::decode(&entry(ENTRY_MAX - header)).is_ok());
        assert_eq!(Entry::decode(&entry(ENTRY_MAX - header + 1)), Err(EntryError::TooLarge));
    }
}
