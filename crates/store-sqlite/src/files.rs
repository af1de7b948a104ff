//! The directory: who may look into it, and who uses it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::path::Path;

use sealwire_store::StoreError;

use crate::failed;

/// Makes a directory that only its owner can enter, where there is none, with those above it that are missing, and makes
/// the name of each durable.
pub(crate) fn make_directory(path: &Path) -> Result<(), StoreError> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let above = path.parent().unwrap_or(Path::new(""));
    make_directory(above)?;
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        // Somebody else was quicker.
        Err(_) if path.is_dir() => {}
        made => made.map_err(failed)?,
    }
    sync_directory(if above.as_os_str().is_empty() { Path::new(".") } else { above })
}

/// Takes the directory for this value alone. The file stays; the lock goes with the process.
pub(crate) fn lock(directory: &Path) -> Result<File, StoreError> {
    let file = private_file(&directory.join("LOCK"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Opens a file for writing that only its owner can read, and makes it where there is none.
pub(crate) fn private_file(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(failed)
}

/// Makes the names in a directory durable. Windows keeps them with the files, and cannot open a directory.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    if cfg!(windows) {
        return Ok(());
    }
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Removes a file, where there is one.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}
