//! The relay's signing key: made at its first start, kept as a record of its store.

use ed25519_dalek::SigningKey;
use sealwire_store::{Operation, Outcome, RecordKey, RecordKind, RecordSwap, Store, StoreError};

use crate::service::now;

/// The version in front of the key's bytes.
const VERSION: u8 = 1;

/// Reads the key, or makes it.
///
/// # Errors
/// The store's; [`StoreError::Damaged`] for a record that is no key.
pub(crate) fn load_or_make(store: &dyn Store) -> Result<SigningKey, StoreError> {
    let record = RecordKey { kind: RecordKind::Relay, key: b"signing-key".to_vec() };
    if let Some(found) = store.record(&record)? {
        return match found.value.split_first() {
            Some((&VERSION, key)) => key.try_into().map(|key| SigningKey::from_bytes(&key)).map_err(|_| damaged()),
            _ => Err(damaged()),
        };
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| StoreError::Failed(error.to_string()))?;
    let value = Some([&[VERSION], &secret[..]].concat());
    let swap =
        Operation::Swap { records: vec![RecordSwap { key: record, expected: None, value }], inboxes: Vec::new() };
    match store.commit(now(), &[swap])?.first() {
        Some(Outcome::Swapped) => Ok(SigningKey::from_bytes(&secret)),
        _ => Err(StoreError::InUse),
    }
}

fn damaged() -> StoreError {
    StoreError::Damaged("the relay's signing key".to_owned())
}
