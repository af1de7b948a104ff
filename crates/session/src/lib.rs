//! Secret halves: a device's private keys; conversations on MLS, which are the default; and direct mode, which seals bytes
//! from one device to another. The relay links nothing of this crate.
//!
//! Nothing secret prints: secret types have a hand-written `Debug`, no `Display`, and one way out, into the record that
//! a client's store seals.
#![forbid(unsafe_code)]

mod device;
pub mod direct;
#[cfg(test)]
mod foreign_vectors;
pub mod linking;
pub mod mls;
mod primitives;
mod window;

pub use device::{DeviceSecrets, SecretsError};
pub use window::ReplayWindow;
