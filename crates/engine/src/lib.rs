//! The client's mind. [`Engine::handle`] takes an input, the time and a generator, and returns a [`Step`]: changes to
//! persist, and outputs to perform once they are durable. It reads no clock, opens no socket and writes no file, so that
//! a seed reproduces whatever happens to it.
//!
//! Rules that it keeps, by their numbers in the design: the outbox (L4), every envelope ends shown, duplicate, held or
//! quarantined (L7), at least once to the device and exactly once to the person (L8), direct mode's keys (D), pinned
//! accounts (I3, K4), presence by capability (A2), incarnations (N3), restored relays (L11).
#![forbid(unsafe_code)]

mod command;
mod connection;
mod contacts;
mod conversation;
mod engine;
mod event;
mod inbox;
mod linking;
mod outbox;
mod record;
mod step;

pub use command::{Command, ContactView, ConversationView, DeviceView, GroupChange, Invite, Refusal, Reply, To};
pub use engine::{Engine, LoadError, Profile, Settings};
pub use event::{Event, Incoming, LinkEnd, LogInProblem, MessageState, QuarantineReason, RequestView, UnsentReason};
pub use linking::{Newcomer, NewcomerOutput};
pub use record::{Change, StoredMessage, StoredQuarantine, StoredState, Table, Talk};
pub use sealwire_keys::Mode;
pub use sealwire_session::linking::CodeSecret;
pub use sealwire_session::mls::Suite;
pub use sealwire_wire::conversation::{ConversationKind, Role};
pub use step::{Input, Output, Step, Ticket};
