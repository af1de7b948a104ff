//! The journal: a file that steps are appended to, one frame each, until they are folded into the database. A step is
//! durable with one write and one sync, of little more than its own bytes; a database page for each record that it touches
//! would be ten times as much (`cargo xtask bench mls`).
//!
//! A header (which key slot, since when, which step comes first), sealed under the store's key; then frames: a length, its
//! complement, the step's number, and its changes, sealed under the journal's own key and bound to their number; then zeros. Only the
//! last frame can be unfinished, in any of its blocks: what does not open ends the journal, unless a later frame opens;
//! then it is damage, and an error.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use aes_gcm::Aes256Gcm;
use sealwire_engine::{Change, Table};
use zeroize::Zeroizing;

use super::StoreError;
use super::folder::{make_anew, open_part, sync_folder_of};
use super::key_slots::{KeySlots, Slot};
use super::seal::{seal, unseal};

const FILE: &str = "client.journal";
const NEXT: &str = "client.journal-next";
const HEADER: usize = 12 + 4 + 8 + 8 + 16;
/// Bytes that are tried to be opened in search of a step behind a damaged one.
const TRIED_MAX: usize = 64 * 1024 * 1024;
/// Bytes that the file grows by: a sync that does not have to write a new length takes a third less.
const GROWTH: u64 = 64 * 1024;
const DAMAGED: StoreError = StoreError::Damaged("its journal does not open");

pub(super) struct Journal {
    file: File,
    key: Aes256Gcm,
    slot: Slot,
    /// The number of its first step.
    first: u64,
    /// The number of the step that comes next.
    next: u64,
    /// Bytes, up to the end of the last step.
    length: u64,
    /// Bytes of the file.
    allocated: u64,
    /// Seconds since 1970.
    begun_at: u64,
}

/// Steps that a journal has, with their numbers.
type Steps = Vec<(u64, Vec<Change>)>;

impl Journal {
    /// Begins a journal whose first step has the number `first`, in the place of the one before. Its key is durable already.
    pub(super) fn begin(
        folder: &Path,
        store_key: &Aes256Gcm,
        (slot, key): (Slot, Aes256Gcm),
        first: u64,
    ) -> Result<Journal, StoreError> {
        let begun_at = now();
        let header = [&slot.to_be_bytes()[..], &begun_at.to_be_bytes(), &first.to_be_bytes()].concat();
        let next = folder.join(NEXT);
        let mut file = make_anew(&next)?;
        file.write_all(&seal(store_key, b"sealwire/store/v2/journal", &header))?;
        file.sync_all()?;
        fs::rename(&next, path(folder))?;
        sync_folder_of(&next)?;
        let length = HEADER as u64;
        Ok(Journal { file, key, slot, first, next: first, length, allocated: length, begun_at })
    }

    /// Opens the journal of a folder, cuts off a step that was never finished, and gives the steps that it has.
    pub(super) fn open(folder: &Path, slots: &KeySlots, store_key: &Aes256Gcm) -> Result<(Journal, Steps), StoreError> {
        let mut file = open_part(&path(folder), "its journal is missing: a folder is copied whole")?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (header, mut rest) = bytes.split_at_checked(HEADER).ok_or(DAMAGED)?;
        let header = unseal(store_key, b"sealwire/store/v2/journal", header).ok_or(DAMAGED)?;
        let (slot, times) = header.split_first_chunk::<4>().ok_or(DAMAGED)?;
        let (begun_at, first) = times.split_first_chunk::<8>().ok_or(DAMAGED)?;
        let slot = Slot::from_be_bytes(*slot);
        let first = u64::from_be_bytes(first.try_into().map_err(|_| DAMAGED)?);
        let key = slots.read(store_key, slot)?.ok_or(DAMAGED)?;
        let begun_at = u64::from_be_bytes(*begun_at);
        let mut steps = Vec::new();
        let mut next = first;
        while let Some((plain, behind)) = open_frame(&key, next, rest) {
            steps.push((next, decode(&plain).ok_or(DAMAGED)?));
            next += 1;
            rest = behind;
        }
        if is_frame_in(&key, next, rest) {
            return Err(DAMAGED);
        }
        // A process that was killed may have written what it had not synced: it is read, so it has to stay.
        file.sync_all()?;
        let allocated = bytes.len() as u64;
        let length = allocated - rest.len() as u64;
        if rest.iter().any(|byte| *byte != 0) {
            file.set_len(length)?;
            file.set_len(allocated)?;
            file.sync_all()?;
        }
        file.seek(SeekFrom::Start(length))?;
        let journal = Journal { file, key, slot, first, next, length, allocated, begun_at };
        Ok((journal, steps))
    }

    /// Appends a step, durable when this returns. After an error, nothing may be appended any more: whether the step is
    /// there is not known.
    pub(super) fn append(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let sealed = seal(&self.key, &associated_data(self.next), &encode(changes));
        let length = u32::try_from(sealed.len()).map_err(|_| StoreError::Damaged("a step of more than 4 GiB"))?;
        let prefix = [length.to_be_bytes(), (!length).to_be_bytes()].concat();
        let frame = [&prefix[..], &self.next.to_be_bytes(), &sealed].concat();
        let end = self.length + frame.len() as u64;
        if end > self.allocated {
            self.allocated = end.next_multiple_of(GROWTH);
            self.file.set_len(self.allocated)?;
        }
        self.file.write_all(&frame)?;
        self.file.sync_data()?;
        self.next += 1;
        self.length = end;
        Ok(())
    }

    /// The slot of its key.
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// The number of its first step.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number of the step that comes next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Seconds since it was begun; a clock that was put back makes it old.
    pub(super) fn age(&self) -> u64 {
        now().checked_sub(self.begun_at).unwrap_or(u64::MAX)
    }
}

/// The changes of the step with that number, where a frame with it begins, and what is behind it.
fn open_frame<'a>(key: &Aes256Gcm, number: u64, bytes: &'a [u8]) -> Option<(Zeroizing<Vec<u8>>, &'a [u8])> {
    let (found, sealed, behind) = split_frame(bytes)?;
    let plain = (found == number).then(|| unseal(key, &associated_data(number), sealed))??;
    Some((plain, behind))
}

/// A frame's number, what is sealed in it, and what is behind it.
fn split_frame(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (complement, rest) = rest.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let length = u32::from_be_bytes(*length);
    if length != !u32::from_be_bytes(*complement) {
        return None;
    }
    let (sealed, behind) = rest.split_at_checked(length as usize)?;
    Some((u64::from_be_bytes(*number), sealed, behind))
}

/// Whether a step that comes later than the one with that number is anywhere in some bytes, or too much looks like one.
fn is_frame_in(key: &Aes256Gcm, number: u64, bytes: &[u8]) -> bool {
    let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { return false };
    let mut tried = 0;
    (1..last).any(|at| {
        let Some((found, sealed, _)) = split_frame(&bytes[at..]).filter(|(found, ..)| *found > number) else {
            return false;
        };
        tried += sealed.len();
        tried > TRIED_MAX || unseal(key, &associated_data(found), sealed).is_some()
    })
}

fn encode(changes: &[Change]) -> Zeroizing<Vec<u8>> {
    let of_change = |change: &Change| match change {
        Change::Put { key, value, .. } => 7 + key.len() + value.len(),
        Change::Delete { key, .. } => 3 + key.len(),
    };
    // In one piece: what a vector leaves behind when it grows is not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(changes.iter().map(of_change).sum()));
    for change in changes {
        // The highest bit: whether there is a value.
        let (table, key, value) = match change {
            Change::Put { table, key, value } => (*table as u8 | 0x80, key, Some(value)),
            Change::Delete { table, key } => (*table as u8, key, None),
        };
        bytes.push(table);
        bytes.extend_from_slice(&(key.len() as u16).to_be_bytes());
        bytes.extend_from_slice(key);
        if let Some(value) = value {
            bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
            bytes.extend_from_slice(value);
        }
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while let Some((kind, rest)) = bytes.split_first() {
        let table = Table::ALL.into_iter().find(|table| *table as u8 == kind & 0x7f)?;
        let (length, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u16::from_be_bytes(*length) as usize)?;
        let key = key.to_vec();
        bytes = rest;
        if kind & 0x80 == 0 {
            changes.push(Change::Delete { table, key });
            continue;
        }
        let (length, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        changes.push(Change::Put { table, key, value: Zeroizing::new(value.to_vec()) });
        bytes = rest;
    }
    Some(changes)
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

fn associated_data(number: u64) -> Vec<u8> {
    [&b"sealwire/store/v2/step"[..], &number.to_be_bytes()].concat()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
