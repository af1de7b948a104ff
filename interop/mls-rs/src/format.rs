//! The bytes of spec/conversations.md and spec/encodings.md, by hand.

use sha2::{Digest, Sha256};

use crate::{Leaf, Place};

/// Bytes that are not what the specification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not as the specification says: {0}")]
pub struct Malformed(&'static str);

/// An account log: its signed entries.
pub type Log = Vec<Vec<u8>>;

/// What a group's context carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupData {
    /// The conversation.
    pub conversation: [u8; 32],
    /// Which of its groups.
    pub generation: u32,
    /// 1 of two, 2 a group.
    pub kind: u8,
    /// UTF-8.
    pub name: String,
    /// Owners (1) and admins (2), sorted by account.
    pub roles: Vec<([u8; 32], u8)>,
}

impl GroupData {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut roles = Vec::new();
        for (account, role) in &self.roles {
            roles.extend_from_slice(account);
            roles.push(*role);
        }
        let head = [&[VERSION][..], &self.conversation, &self.generation.to_be_bytes(), &[self.kind]].concat();
        let name = [&[self.name.len() as u8][..], self.name.as_bytes()].concat();
        [&head[..], &name, &(roles.len() as u16).to_be_bytes(), &roles].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<GroupData, Malformed> {
        let mut reader = Reader(bytes);
        reader.version()?;
        let (conversation, generation) = (reader.array()?, u32::from_be_bytes(reader.array()?));
        let [kind] = reader.array()?;
        let name = reader.sized(1)?.to_vec();
        let roles = reader.sized(2)?;
        reader.end()?;
        let (roles, rest) = roles.as_chunks::<33>();
        let role = |role: &[u8; 33]| (role[..32].try_into().expect("32 of 33 bytes"), role[32]);
        let roles: Vec<_> = roles.iter().map(role).collect();
        let is_sorted =
            roles.is_sorted_by(|(a, _), (b, _)| a < b) && roles.iter().all(|(_, role)| [1, 2].contains(role));
        if !rest.is_empty() || !is_sorted || ![1, 2].contains(&kind) {
            return Err(Malformed("roles or kind"));
        }
        let name = String::from_utf8(name).map_err(|_| Malformed("a name that is not UTF-8"))?;
        Ok(GroupData { conversation, generation, kind, name, roles })
    }
}

const VERSION: u8 = 1;

pub(crate) fn encode_leaf_data(inbox: [u8; 16]) -> Vec<u8> {
    [&[VERSION][..], &inbox].concat()
}

pub(crate) fn decode_inbox(bytes: &[u8]) -> Result<[u8; 16], Malformed> {
    let mut reader = Reader(bytes);
    reader.version()?;
    let inbox = reader.array()?;
    reader.end()?;
    Ok(inbox)
}

pub(crate) fn encode_credential(account: [u8; 32], device: [u8; 32]) -> Vec<u8> {
    [&[VERSION][..], &account, &device].concat()
}

pub(crate) fn decode_credential(bytes: &[u8]) -> Result<([u8; 32], [u8; 32]), Malformed> {
    let mut reader = Reader(bytes);
    reader.version()?;
    let ids = (reader.array()?, reader.array()?);
    reader.end()?;
    Ok(ids)
}

pub(crate) fn encode_message_data(Place { position, chain }: Place) -> Vec<u8> {
    // No franking tag.
    [&[VERSION][..], &position.to_be_bytes(), &chain, &[0]].concat()
}

pub(crate) fn decode_message_data(bytes: &[u8]) -> Result<Place, Malformed> {
    let mut reader = Reader(bytes);
    reader.version()?;
    let place = reader.place()?;
    if reader.array()? != [0] {
        reader.array::<32>()?;
    }
    reader.end()?;
    Ok(place)
}

pub(crate) fn encode_commit_data(Place { position, chain }: Place, roster: [u8; 32]) -> Vec<u8> {
    [&[VERSION][..], &position.to_be_bytes(), &chain, &roster].concat()
}

pub(crate) fn decode_commit_data(bytes: &[u8]) -> Result<(Place, [u8; 32]), Malformed> {
    let mut reader = Reader(bytes);
    reader.version()?;
    let data = (reader.place()?, reader.array()?);
    reader.end()?;
    Ok(data)
}

/// Without readds.
pub(crate) fn encode_commit_body(commit: &[u8], evidence: &[Log]) -> Vec<u8> {
    let log = |log: &Log| sized_24(&log.iter().flat_map(|entry| sized_24(entry)).collect::<Vec<_>>());
    let evidence: Vec<u8> = evidence.iter().flat_map(log).collect();
    [&[VERSION][..], &sized_24(commit), &sized_24(&evidence), &sized_24(&[])].concat()
}

/// A commit, and its evidence.
pub(crate) fn decode_commit_body(bytes: &[u8]) -> Result<(Vec<u8>, Vec<Log>), Malformed> {
    let mut reader = Reader(bytes);
    reader.version()?;
    let commit = reader.sized(3)?.to_vec();
    let mut logs = Reader(reader.sized(3)?);
    let mut evidence = Vec::new();
    while !logs.0.is_empty() {
        let mut entries = Reader(logs.sized(3)?);
        let mut log = Vec::new();
        while !entries.0.is_empty() {
            log.push(entries.sized(3)?.to_vec());
        }
        evidence.push(log);
    }
    if !reader.sized(3)?.is_empty() {
        return Err(Malformed("readds, which nobody here has asked for"));
    }
    reader.end()?;
    Ok((commit, evidence))
}

/// The evidence in a GroupInfo.
pub(crate) fn decode_logs(bytes: &[u8]) -> Result<Vec<Log>, Malformed> {
    let (commit, evidence) = decode_commit_body(bytes)?;
    if commit.is_empty() { Ok(evidence) } else { Err(Malformed("a commit in a GroupInfo")) }
}

/// Who a key package adds, if it is one that may be taken. The leaf's number means nothing.
pub(crate) fn read_key_package(bytes: &[u8]) -> Result<Leaf, Malformed> {
    let mut reader = Reader(bytes);
    if (reader.array()?, reader.array()?) != ([0, 1], [0, 1]) {
        return Err(Malformed("another version or suite"));
    }
    let _init_key = reader.variable()?;
    let _encryption_key = reader.variable()?;
    let signature_key = reader.variable()?;
    if reader.array()? != [0, 1] {
        return Err(Malformed("another credential"));
    }
    let (account, device) = decode_credential(reader.variable()?)?;
    let [_versions, _suites, extensions, _proposals, _credentials] = {
        let mut lists = [&[][..]; 5];
        for list in &mut lists {
            *list = reader.variable()?;
        }
        lists
    };
    let source_and_lifetime: [u8; 17] = reader.array()?;
    if source_and_lifetime != [&[1][..], &[0; 8], &[0xff; 8]].concat()[..] {
        return Err(Malformed("another lifetime"));
    }
    let mut leaf_extensions = Reader(reader.variable()?);
    let (kind, data) = (leaf_extensions.array()?, leaf_extensions.variable()?);
    leaf_extensions.end()?;
    if kind != EXTENSION || !extensions.as_chunks().0.contains(&EXTENSION) || device_id(signature_key) != device {
        return Err(Malformed("no leaf of a device"));
    }
    Ok(Leaf { index: 0, account, device, inbox: decode_inbox(data)? })
}

const EXTENSION: [u8; 2] = 0xf5ea_u16.to_be_bytes();

pub(crate) fn device_id(key: &[u8]) -> [u8; 32] {
    labelled_hash("device-id", key)
}

/// The hash of its genesis entry; of a log without one, that of nothing.
pub(crate) fn account_of(log: &Log) -> [u8; 32] {
    labelled_hash("account-entry-hash", &sized_24(log.first().map_or(&[], Vec::as_slice)))
}

/// Of sorted inboxes.
pub(crate) fn roster_hash(inboxes: &[[u8; 16]]) -> [u8; 32] {
    let bytes = inboxes.concat();
    labelled_hash("roster", &[&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat())
}

/// What a sealed commit is bound to.
pub(crate) fn commit_associated(conversation: [u8; 32], envelope: [u8; 16]) -> Vec<u8> {
    [&label("commit-seal")[..], &conversation, &envelope].concat()
}

fn labelled_hash(name: &str, structure: &[u8]) -> [u8; 32] {
    Sha256::digest([&label(name)[..], structure].concat()).into()
}

fn label(name: &str) -> Vec<u8> {
    let text = format!("sealwire/v1/{name}");
    [&[text.len() as u8][..], text.as_bytes(), &[VERSION]].concat()
}

pub(crate) fn pad(plaintext: &[u8]) -> Vec<u8> {
    let mut padded = [plaintext, &[0x80]].concat();
    padded.resize(padded_length(padded.len()), 0);
    padded
}

pub(crate) fn unpad(padded: &[u8]) -> Result<Vec<u8>, Malformed> {
    let end = padded.iter().rposition(|byte| *byte != 0).ok_or(Malformed("nothing but zeros"))?;
    let (plaintext, rest) = padded.split_at(end);
    if rest[0] == 0x80 && padded.len() == padded_length(end + 1) {
        Ok(plaintext.to_vec())
    } else {
        Err(Malformed("padding of another length"))
    }
}

fn padded_length(length: usize) -> usize {
    if let Some(step) = [64, 128, 256, 512].into_iter().find(|step| length <= *step) {
        return step;
    }
    let exponent = length.ilog2();
    let significant = exponent.ilog2() + 1;
    length.next_multiple_of(1 << (exponent - significant))
}

fn sized_24(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[1..], bytes].concat()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn version(&mut self) -> Result<(), Malformed> {
        if self.array()? == [VERSION] { Ok(()) } else { Err(Malformed("another version")) }
    }

    fn place(&mut self) -> Result<Place, Malformed> {
        Ok(Place { position: u64::from_be_bytes(self.array()?), chain: self.array()? })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Behind a length of so many bytes.
    fn sized(&mut self, of_length: usize) -> Result<&'a [u8], Malformed> {
        let length = self.take(of_length)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        self.take(length)
    }

    /// Behind MLS's length of one, two or four bytes.
    fn variable(&mut self) -> Result<&'a [u8], Malformed> {
        let [first] = self.array()?;
        let more = self.take(match first >> 6 {
            0 => 0,
            1 => 1,
            2 => 3,
            _ => return Err(Malformed("a length that MLS does not have")),
        })?;
        let length = more.iter().fold(usize::from(first & 0x3f), |length, byte| length << 8 | usize::from(*byte));
        self.take(length)
    }

    fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes behind the end")) }
    }
}
