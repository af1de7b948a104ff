//! The folder: its lock, files that only their owner reads, names that are durable, and the key from outside.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::KeyInit;
use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::seal::random;
use super::{StoreError, Unlock};

const LOCK: &str = "LOCK";

pub(super) fn outer_key(unlock: &Unlock, salt: &[u8], may_make: bool) -> Result<Aes256Gcm, StoreError> {
    let mut key = Zeroizing::new([0; 32]);
    match unlock {
        Unlock::Passphrase(passphrase) => {
            let cost = Params::new(64 * 1024, 3, 1, Some(32)).expect("64 MiB, 3 passes and 1 lane are within bounds");
            Argon2::new(Algorithm::Argon2id, Version::V0x13, cost)
                .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
                .map_err(|_| StoreError::Damaged("its salt"))?;
        }
        Unlock::KeyFile(path) => read_key_file(path, may_make, &mut key)?,
    }
    Ok(Aes256Gcm::new_from_slice(&*key).expect("32 bytes are a key"))
}

pub(super) fn read_key_file(path: &Path, may_make: bool, key: &mut [u8; 32]) -> Result<(), StoreError> {
    if may_make && !path.exists() {
        let mut file = make_private(path)?;
        file.write_all(&*Zeroizing::new(random::<32>()))?;
        // Durable before anything is sealed under it: a store without its key is lost.
        file.sync_all()?;
        sync_folder_of(path)?;
    }
    let wrong = |_| StoreError::WrongKeyFile(path.to_owned());
    let mut file = File::open(path).map_err(wrong)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            return Err(StoreError::OpenKeyFile(path.to_owned()));
        }
    }
    file.read_exact(key).map_err(wrong)
}

/// Makes a new file's name durable, where a folder can be synced.
pub(super) fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Makes a folder and those above it, each with a durable name.
pub(super) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    fs::create_dir_all(folder)?;
    missing.into_iter().rev().try_for_each(sync_folder_of)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Makes a file that only its owner can read.
pub(super) fn make_private(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    Ok(options.open(path)?)
}

/// The same, in the place of one that may be there.
pub(super) fn make_anew(path: &Path) -> Result<File, StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => make_private(path),
    }
}

/// Opens a file that belongs to a store. One that is not there is damage, told in these words.
pub(super) fn open_part(path: &Path, missing: &'static str) -> Result<File, StoreError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => StoreError::Damaged(missing),
        _ => error.into(),
    })
}

pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse(folder.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}
