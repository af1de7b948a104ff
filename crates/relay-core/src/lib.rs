//! The relay's mind: who may do what, in which order, and how often. One [`Connection`] value per client takes
//! [`Input`]s and gives [`Decision`]s; a shell (`crates/relay`, or the simulation) carries them out.
//!
//! Nothing here awaits, opens, reads a clock or draws randomness: the time and the challenge are arguments. Nothing
//! here can open a message.
//!
//! ```
//! # use std::sync::Arc;
//! # use sealwire_relay_core::{Connection, Decision, Input, Registration, Relay};
//! # use sealwire_wire::{InstanceId, Time};
//! let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
//! let relay = Arc::new(Relay::new("localhost", key, InstanceId([1; 16]), Registration::Open));
//! let (mut connection, hello) = Connection::open(&relay, Time(0), [2; 32], None, None);
//! assert!(matches!(hello[..], [Decision::Send(_)]));
//! let refused = connection.handle(Input::Text, Time(1));
//! assert!(matches!(refused[..], [Decision::Send(_), Decision::Close { .. }]));
//! ```
#![forbid(unsafe_code)]

mod append;
mod blob;
mod connection;
mod conversation;
mod decision;
mod delivery;
mod invite;
mod key_packages;
mod log_in;
mod look_up;
mod meeting;
mod presence;
mod publish;
mod rate;
mod records;
mod register;
mod relay;
mod serve;
mod turns;

pub use connection::Connection;
pub use decision::{Answer, CloseCode, Decision, Growth, Input, Question, StoreFailed, Token};
pub use invite::invite;
pub use meeting::{Meetings, NotMet};
pub use relay::{Features, Policy, Registration, Relay};
pub use serve::{Served, fill_inboxes, growths, leaves_welcomes, serve};
pub use turns::Turns;
