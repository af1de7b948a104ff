//! What a disk may hold after a power cut. Stricter than most: a file's bytes are kept by a sync of the file, its name by
//! a sync of its directory, and a sync that failed drops what it should have kept (Linux marks those pages clean).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sealwire_store::conformance::random::Dice;

use crate::calls::Call;

/// Bytes that a disk writes at once.
const SECTOR: usize = 512;

/// The disk below a directory.
pub(crate) struct Disk {
    root: PathBuf,
    files: Vec<File>,
    /// What the process sees.
    names: BTreeMap<PathBuf, Node>,
    /// What is kept.
    kept: BTreeMap<PathBuf, Node>,
    /// In the order of the calls, each with the directory that keeps it.
    pending: Vec<(PathBuf, Naming)>,
    syncs: bool,
}

/// What of the unsynced a power cut leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left {
    /// None of it.
    Synced,
    /// All of it.
    All,
    /// Some of it, torn, as this seed says.
    Some(u64),
}

#[derive(Clone, Copy)]
enum Node {
    Directory,
    File(usize),
}

#[derive(Default)]
struct File {
    kept: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Bytes { at: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
enum Naming {
    Put(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Disk {
    pub(crate) fn new(root: &Path) -> Disk {
        let root_alone = BTreeMap::from([(root.to_owned(), Node::Directory)]);
        Disk {
            root: root.to_owned(),
            files: Vec::new(),
            names: root_alone.clone(),
            kept: root_alone,
            pending: Vec::new(),
            syncs: true,
        }
    }

    /// A disk that says that it has synced, and has not.
    pub(crate) fn without_syncs(root: &Path) -> Disk {
        Disk { syncs: false, ..Disk::new(root) }
    }

    pub(crate) fn follow(&mut self, call: &Call) {
        match call {
            Call::Open { path, makes, truncates } => {
                if *makes && !self.names.contains_key(path) {
                    self.files.push(File::default());
                    self.name(Naming::Put(path.clone(), Node::File(self.files.len() - 1)));
                }
                if *truncates {
                    self.change(path, Change::Length(0));
                }
            }
            Call::Write { path, at, bytes } => {
                self.change(path, Change::Bytes { at: *at as usize, bytes: bytes.clone() });
            }
            Call::Truncate { path, length } => self.change(path, Change::Length(*length as usize)),
            Call::Sync { path, failed } => self.sync(path, *failed),
            Call::Rename { from, to } => self.name(Naming::Rename(from.clone(), to.clone())),
            Call::Remove { path } => self.name(Naming::Remove(path.clone())),
            Call::Make { path } => self.name(Naming::Put(path.clone(), Node::Directory)),
            Call::Mark(_) => {}
        }
    }

    fn name(&mut self, naming: Naming) {
        naming.clone().apply(&mut self.names);
        let (Naming::Put(path, _) | Naming::Remove(path) | Naming::Rename(_, path)) = &naming;
        self.pending.push((path.parent().unwrap().to_owned(), naming));
    }

    fn change(&mut self, path: &Path, change: Change) {
        // Files whose name went while they were open change nothing that could be found.
        if let Some(Node::File(file)) = self.names.get(path) {
            self.files[*file].pending.push(change);
        }
    }

    fn sync(&mut self, path: &Path, failed: bool) {
        if !self.syncs {
            return;
        }
        match self.names.get(path) {
            Some(Node::File(file)) => {
                let file = &mut self.files[*file];
                for change in file.pending.drain(..).filter(|_| !failed) {
                    change.apply(&mut file.kept);
                }
            }
            Some(Node::Directory) if !failed => {
                let pending = std::mem::take(&mut self.pending);
                let (synced, others) = pending.into_iter().partition(|(directory, _)| directory == path);
                self.pending = others;
                let synced: Vec<(PathBuf, Naming)> = synced;
                synced.into_iter().for_each(|(_, naming)| naming.apply(&mut self.kept));
            }
            _ => {}
        }
    }

    /// Makes the directory what a power cut leaves of it now.
    pub(crate) fn cut(&self, left: Left) {
        let mut dice = Dice::new(if let Left::Some(seed) = left { seed } else { 0 });
        let mut names = self.kept.clone();
        let names_left = match left {
            Left::Synced => 0,
            Left::All => self.pending.len(),
            Left::Some(_) => dice.below(self.pending.len() + 1),
        };
        self.pending[..names_left].iter().for_each(|(_, naming)| naming.clone().apply(&mut names));
        std::fs::remove_dir_all(&self.root).unwrap();
        for (path, node) in &names {
            // A name below a directory that was not kept is not kept.
            if !path.parent().unwrap().is_dir() {
                continue;
            }
            match node {
                Node::Directory => std::fs::create_dir(path).unwrap(),
                Node::File(file) => {
                    let mut bytes = self.files[*file].left(left, &mut dice);
                    // The index of the log is shared memory, never synced: anything may lie there.
                    if path.extension().is_some_and(|end| end.to_string_lossy().ends_with("-shm")) {
                        bytes.iter_mut().for_each(|byte| *byte = dice.below(256) as u8);
                    }
                    std::fs::write(path, bytes).unwrap();
                }
            }
        }
    }
}

impl File {
    fn left(&self, left: Left, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.kept.clone();
        for change in &self.pending {
            match left {
                Left::Synced => {}
                Left::All => change.clone().apply(&mut bytes),
                // A third is lost, a third is torn.
                Left::Some(_) => match (dice.below(3), change) {
                    (0, _) => {}
                    (1, Change::Bytes { at, bytes: written }) => {
                        let sectors = dice.below(written.len().div_ceil(SECTOR) + 1);
                        let part = written[..(sectors * SECTOR).min(written.len())].to_vec();
                        Change::Bytes { at: *at, bytes: part }.apply(&mut bytes);
                    }
                    _ => change.clone().apply(&mut bytes),
                },
            }
        }
        bytes
    }
}

impl Change {
    fn apply(self, file: &mut Vec<u8>) {
        match self {
            Change::Length(length) => file.resize(length, 0),
            Change::Bytes { at, bytes } => {
                if file.len() < at + bytes.len() {
                    file.resize(at + bytes.len(), 0);
                }
                file[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
    }
}

impl Naming {
    fn apply(self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Naming::Put(path, node) => drop(names.insert(path, node)),
            Naming::Remove(path) => drop(names.remove(&path)),
            Naming::Rename(from, to) => {
                if let Some(node) = names.remove(&from) {
                    names.insert(to, node);
                }
            }
        }
    }
}
