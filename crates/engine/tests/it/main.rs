//! The engine against the relay's core, in one thread, with a hand between them that can alter every frame.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::explicit_write, reason = "counts are said past the output that the test runner keeps to itself")]

mod attacks;
mod contacts;
mod conversations;
mod delivery;
mod devices;
mod findings;
mod killed;
mod limits;
mod mutations;
mod restored;
mod world;
