//! The rules of key packages (K1): what a publication changes, and which one the next claim gets.
//!
//! A device's packages are numbered in the order in which they came; the last-resort one has the number 0. Those that
//! were handed out are gone, but for a digest: a device that did not hear the answer publishes the same again, and what
//! was handed out meanwhile must not come back.

use std::collections::BTreeSet;

use sealwire_keys::blob_hash;
use sealwire_wire::DeviceId;
use sealwire_wire::limits::KEY_PACKAGES_MAX;

use crate::logs::{Beside, Digest, Write};
use crate::{KeyPackage, Outcome, Refusal, StoreError};

/// The number of the last-resort one, which claims leave where it is.
const LAST_RESORT: u64 = 0;

/// How many of those that were handed out a store remembers, for each device: between a publication and its repetition
/// no more than it holds can go.
const REMEMBERED_MAX: usize = KEY_PACKAGES_MAX;

/// What [`Operation::PutKeyPackages`](crate::Operation::PutKeyPackages) does.
pub(crate) fn put(
    device: DeviceId,
    replace: bool,
    one_time: &[Vec<u8>],
    last_resort: Option<&Vec<u8>>,
    beside: &dyn Beside,
    writes: &mut Vec<Write>,
) -> Result<Result<Outcome, Refusal>, StoreError> {
    let (held, claimed) = (beside.key_packages(device)?, beside.claimed_key_packages(device)?);
    let newest = held.last().copied().max(claimed.last().map(|(number, _)| *number)).unwrap_or(LAST_RESORT);
    let (gone, kept): (Vec<u64>, Vec<u64>) = held.into_iter().partition(|_| replace);
    let mut known: BTreeSet<Digest> = claimed.into_iter().map(|(_, digest)| digest).collect();
    let mut one_time_kept = 0;
    for number in kept.into_iter().filter(|number| *number != LAST_RESORT) {
        known.insert(digest(&beside.key_package(device, number)?));
        one_time_kept += 1;
    }
    let new: Vec<&Vec<u8>> = one_time.iter().filter(|bytes| known.insert(digest(bytes))).collect();
    if one_time_kept + new.len() > KEY_PACKAGES_MAX {
        return Ok(Err(Refusal::TooManyKeyPackages));
    }
    writes.extend(gone.into_iter().map(|number| Write::RemoveKeyPackage { device, number }));
    let numbered = (newest + 1..).zip(new).chain(last_resort.map(|bytes| (LAST_RESORT, bytes)));
    writes.extend(numbered.map(|(number, bytes)| Write::PutKeyPackage { device, number, bytes: bytes.clone() }));
    Ok(Ok(Outcome::KeyPackagesPut))
}

/// What [`Operation::ClaimKeyPackage`](crate::Operation::ClaimKeyPackage) does: the oldest one-time one, else the
/// last-resort one.
pub(crate) fn claim(device: DeviceId, beside: &dyn Beside, writes: &mut Vec<Write>) -> Result<Outcome, StoreError> {
    let held = beside.key_packages(device)?;
    let one_time = held.iter().copied().find(|number| *number != LAST_RESORT);
    let Some(number) = one_time.or(held.first().copied()) else { return Ok(Outcome::KeyPackageClaimed(None)) };
    let bytes = beside.key_package(device, number)?;
    let is_last_resort = one_time.is_none();
    if !is_last_resort {
        writes.push(Write::RemoveKeyPackage { device, number });
        writes.push(Write::PutClaimed { device, number, digest: digest(&bytes) });
        let claimed = beside.claimed_key_packages(device)?;
        let surplus = (claimed.len() + 1).saturating_sub(REMEMBERED_MAX);
        let forgotten = claimed.into_iter().take(surplus);
        writes.extend(forgotten.map(|(number, _)| Write::RemoveClaimed { device, number }));
    }
    Ok(Outcome::KeyPackageClaimed(Some(KeyPackage { bytes, is_last_resort })))
}

fn digest(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(&blob_hash(bytes).0[..16]);
    digest
}
