//! The relay over real sockets, with a store on a real disk.
#![expect(clippy::unwrap_used, reason = "a test that has nothing to unwrap has failed")]

mod canaries;
mod client;
#[path = "../../../relay-core/tests/it/device.rs"]
#[expect(dead_code, reason = "shared with the tests of relay-core, which use all of it")]
mod device;
mod failing;
mod key_packages;
mod killed;
mod logs;
mod people;
mod program;
mod sockets;
mod tls;
mod turns;
