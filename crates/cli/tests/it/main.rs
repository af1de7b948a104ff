//! The built program against a relay in this process, as a person or a script would run it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod account;
mod decisions;
mod demo;
mod devices;
mod foreign;
mod group;
mod talk;
mod world;
