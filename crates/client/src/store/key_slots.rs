//! Keys that can be destroyed one by one: a small file of slots. What lies elsewhere sealed under the key of a slot is gone
//! once the slot is overwritten, whatever copies of the sealed bytes a database, its log or a file system still has (C15).
//!
//! A key is used for one version of one record, or for one journal. A slot is an IV and the key, sealed with AES-256-GCM
//! under the store's key and bound to its place; an empty one is zeros. Overwriting reaches what the file system overwrites
//! in place: not the earlier blocks of one that copies on write, and not the spare cells of a flash disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::KeyInit;
use zeroize::Zeroizing;

use super::StoreError;
use super::folder::{make_anew, open_part, sync_folder_of};
use super::seal::{random, seal, unseal};

/// Bytes of a slot: an IV, a sealed key, and zeros up to a size that never crosses a sector.
const SLOT: usize = 64;
const SEALED: usize = 12 + 32 + 16;

/// The number of a slot, counted from the beginning of the file.
pub(super) type Slot = u32;

pub(super) struct KeySlots {
    file: File,
    /// Slots of the file that hold no key.
    free: BTreeSet<Slot>,
    /// How many the file has.
    count: Slot,
    /// Taken, and not written yet.
    taken: BTreeMap<Slot, [u8; SEALED]>,
}

impl KeySlots {
    /// Makes the file anew, empty.
    pub(super) fn create(path: &Path) -> Result<KeySlots, StoreError> {
        make_anew(path)?;
        sync_folder_of(path)?;
        KeySlots::open(path)
    }

    pub(super) fn open(path: &Path) -> Result<KeySlots, StoreError> {
        let mut file = open_part(path, "its file of keys is missing: a folder is copied whole")?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // An end that is no whole slot was being written when the machine stopped: nothing refers to it.
        let slots = bytes.chunks_exact(SLOT);
        let count = slots.len() as Slot;
        let free =
            slots.zip(0..).filter(|(slot, _)| slot.iter().all(|byte| *byte == 0)).map(|(_, slot)| slot).collect();
        Ok(KeySlots { file, free, count, taken: BTreeMap::new() })
    }

    /// A new key and its slot. It is to be synced before anything refers to it.
    pub(super) fn take(&mut self, store_key: &Aes256Gcm) -> (Slot, Aes256Gcm) {
        let slot = self.free.pop_first().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        });
        let key = Zeroizing::new(random::<32>());
        let sealed = seal(store_key, &associated_data(slot), &*key);
        self.taken.insert(slot, sealed.try_into().expect("an IV, 32 bytes and a tag"));
        (slot, cipher(&key))
    }

    /// Makes the keys that were taken durable.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        if self.taken.is_empty() {
            return Ok(());
        }
        for (slot, sealed) in &self.taken {
            let mut bytes = [0; SLOT];
            bytes[..SEALED].copy_from_slice(sealed);
            write_at(&mut self.file, *slot, &bytes)?;
        }
        self.file.sync_data()?;
        self.taken.clear();
        Ok(())
    }

    /// The key in a slot. `None`: there is none, or it was sealed under another store's key.
    pub(super) fn read(&self, store_key: &Aes256Gcm, slot: Slot) -> Result<Option<Aes256Gcm>, StoreError> {
        if slot >= self.count || self.free.contains(&slot) {
            return Ok(None);
        }
        let mut sealed = [0; SEALED];
        (&self.file).seek(SeekFrom::Start(u64::from(slot) * SLOT as u64))?;
        (&self.file).read_exact(&mut sealed)?;
        let key = unseal(store_key, &associated_data(slot), &sealed);
        Ok(key.and_then(|key| Some(cipher(key.first_chunk()?))))
    }

    /// Destroys the keys in some slots. When this returns, they are nowhere in the file.
    pub(super) fn erase(&mut self, slots: impl IntoIterator<Item = Slot>) -> Result<(), StoreError> {
        let slots: BTreeSet<Slot> = slots.into_iter().collect();
        if slots.is_empty() {
            return Ok(());
        }
        for slot in &slots {
            write_at(&mut self.file, *slot, &[0; SLOT])?;
        }
        self.file.sync_data()?;
        self.free.extend(slots);
        Ok(())
    }

    /// Slots whose keys nothing refers to: taken for what was never written, or replaced and not erased when a process ended.
    pub(super) fn all_but(&self, used: &BTreeSet<Slot>) -> Vec<Slot> {
        (0..self.count).filter(|slot| !used.contains(slot) && !self.free.contains(slot)).collect()
    }

    /// Gives back keys that were taken and not synced, to which nothing can refer.
    pub(super) fn give_back(&mut self, slots: impl IntoIterator<Item = Slot>) {
        for slot in slots {
            self.taken.remove(&slot);
            self.free.insert(slot);
        }
    }
}

fn write_at(file: &mut File, slot: Slot, bytes: &[u8; SLOT]) -> Result<(), StoreError> {
    file.seek(SeekFrom::Start(u64::from(slot) * SLOT as u64))?;
    Ok(file.write_all(bytes)?)
}

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new_from_slice(key).expect("32 bytes are a key")
}

fn associated_data(slot: Slot) -> Vec<u8> {
    [&b"sealwire/store/v2/slot"[..], &slot.to_be_bytes()].concat()
}
