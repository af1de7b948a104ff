//! The world in a box: engines, the relay's core and the store's model in one thread, on virtual time, from one seed.
//! Frames are lost, late and repeated, connections cut, relays restarted, clients killed between any two outputs,
//! commits fail, old stores come back, clocks jump. Then everything heals, and the invariants of [`check`] have to hold.
//!
//! The same seed gives the same trace, to the byte.
#![forbid(unsafe_code)]

pub mod check;
mod conversation;
mod device;
mod dice;
mod relay;
mod wishes;
mod world;

pub use conversation::{ConversationReport, run as run_conversation};
pub use world::{Report, run, run_linking, run_restoring, run_talking};
