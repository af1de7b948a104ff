//! Blobs as files. A whole one is `blobs/ab/cd/<hash>`; one that is not whole is `blobs/parts/<hash>-<size>`, and what
//! it holds is the file's length.
//!
//! A group of operations that fails may leave pieces behind: a blob is named by its content, so that more of it is held
//! changes nothing but how much is left to send.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sealwire_keys::blob_hash;
use sealwire_store::blob::{Held, Verdict, judge, mismatch};
use sealwire_store::{BlobPart, Outcome, StoreError};
use sealwire_wire::BlobHash;

use crate::failed;
use crate::files::{make_directory, private_file, remove, sync_directory};

/// The blobs of a store.
#[derive(Debug)]
pub(crate) struct Blobs {
    root: PathBuf,
    /// Those that are not whole.
    parts: BTreeMap<BlobHash, Held>,
}

impl Blobs {
    pub(crate) fn open(directory: &Path) -> Result<Blobs, StoreError> {
        let mut blobs = Blobs { root: directory.join("blobs"), parts: BTreeMap::new() };
        make_directory(&blobs.root.join("parts"))?;
        blobs.reload()?;
        Ok(blobs)
    }

    /// Looks again at what is held of those that are not whole.
    pub(crate) fn reload(&mut self) -> Result<(), StoreError> {
        self.parts.clear();
        for file in fs::read_dir(self.root.join("parts")).map_err(failed)? {
            let file = file.map_err(failed)?;
            let name = file.file_name();
            let Some((hash, size)) = name.to_str().and_then(read_part_name) else { continue };
            let held = file.metadata().map_err(failed)?.len();
            if held >= size {
                // It was complete, and the crash came before it was checked and named: it is sent again.
                remove(&file.path())?;
            } else {
                self.parts.insert(hash, Held { size, held });
            }
        }
        Ok(())
    }

    /// Takes a piece; durable when this returns.
    pub(crate) fn put(&mut self, hash: BlobHash, size: u64, offset: u64, bytes: &[u8]) -> Result<Outcome, StoreError> {
        let found = self.held(hash)?;
        let (keep, skip, held) = match judge(found, size, offset, bytes.len()) {
            Verdict::Answer(outcome) => return Ok(outcome),
            Verdict::Write { keep, skip, held } => (keep, skip, held),
        };
        if let Some(other) = found.filter(|found| found.size != size) {
            remove(&self.part_path(hash, other.size))?;
        }
        let part = self.part_path(hash, size);
        let mut file = private_file(&part)?;
        write_piece(&mut file, keep, &bytes[skip..]).map_err(failed)?;
        if held < size {
            sync_directory(&self.root.join("parts"))?;
            self.parts.insert(hash, Held { size, held });
            return Ok(Outcome::Stored { held, size });
        }
        self.parts.remove(&hash);
        if blob_hash(&fs::read(&part).map_err(failed)?) != hash {
            remove(&part)?;
            return Ok(mismatch(0));
        }
        self.name_whole(hash, &part)?;
        Ok(Outcome::Stored { held, size })
    }

    /// A piece of a blob, as `Store::blob` gives it.
    pub(crate) fn part(&self, hash: BlobHash, offset: u64, most: usize) -> Result<Option<BlobPart>, StoreError> {
        let Some(Held { size, held }) = self.held(hash)? else { return Ok(None) };
        let mut bytes = Vec::new();
        if held == size {
            let mut file = File::open(self.whole_path(hash)).map_err(failed)?;
            file.seek(SeekFrom::Start(offset.min(size))).map_err(failed)?;
            file.take(most as u64).read_to_end(&mut bytes).map_err(failed)?;
        }
        Ok(Some(BlobPart { size, held, bytes }))
    }

    fn held(&self, hash: BlobHash) -> Result<Option<Held>, StoreError> {
        if let Some(held) = self.parts.get(&hash) {
            return Ok(Some(*held));
        }
        match fs::metadata(self.whole_path(hash)) {
            Ok(file) => Ok(Some(Held { size: file.len(), held: file.len() })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Gives a checked blob its name, last of all: whatever has that name is whole.
    fn name_whole(&self, hash: BlobHash, part: &Path) -> Result<(), StoreError> {
        let whole = self.whole_path(hash);
        let folders: Vec<_> = whole.ancestors().skip(1).take(2).collect();
        for folder in folders.iter().rev() {
            make_directory(folder)?;
        }
        fs::rename(part, &whole).map_err(failed)?;
        folders.first().map_or(Ok(()), |folder| sync_directory(folder))
    }

    fn whole_path(&self, hash: BlobHash) -> PathBuf {
        let name = hash.to_string();
        self.root.join(&name[0..2]).join(&name[2..4]).join(name)
    }

    fn part_path(&self, hash: BlobHash, size: u64) -> PathBuf {
        self.root.join("parts").join(format!("{hash}-{size}"))
    }
}

fn read_part_name(name: &str) -> Option<(BlobHash, u64)> {
    let (hash, size) = name.split_once('-')?;
    Some((BlobHash::from_hex(hash)?, size.parse().ok()?))
}

fn write_piece(file: &mut File, keep: u64, bytes: &[u8]) -> std::io::Result<()> {
    file.set_len(keep)?;
    file.seek(SeekFrom::Start(keep))?;
    file.write_all(bytes)?;
    file.sync_all()
}
