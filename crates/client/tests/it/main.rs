//! The SDK over real sockets and a real relay.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod conversations;
mod over_a_relay;
mod people;
