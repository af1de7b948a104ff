//! The relay's mind over a memory store.

mod accounts;
mod authority;
mod conversations;
mod delivery;
mod device;
mod log_in;
mod presence;
mod world;
