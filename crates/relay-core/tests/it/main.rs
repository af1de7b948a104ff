//! The relay's mind over a memory store.
#![expect(clippy::unwrap_used, reason = "a test that has nothing to unwrap has failed")]

mod accounts;
mod authority;
mod conversations;
mod delivery;
mod device;
mod devices;
mod key_packages;
mod log_in;
mod presence;
mod world;
