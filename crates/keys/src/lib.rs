//! Public halves: devices, account logs, signatures, safety numbers, and the hashes that logs are chained with. Nothing
//! here can open a message; that is why the relay may link it.
#![forbid(unsafe_code)]

mod account;
mod device;
mod direct;
mod hash;
mod log_in;
mod safety;
mod signature;

pub use account::{
    AccountEntry, AccountError, AccountKind, AccountLog, Change, DeviceCard, DeviceConsent, Mode, SignedEntry,
    sign_entry,
};
pub use device::{DeviceKey, device_id};
pub use direct::{DirectKey, Suite};
pub use hash::{blob_hash, chain_start, chain_step, content_id, group_id, one_to_one, roster_hash};
pub use log_in::LogInToBeSigned;
pub use safety::SafetyNumber;
pub use signature::{HeadToBeSigned, KeyError, ReaddToBeSigned, SignatureError};
