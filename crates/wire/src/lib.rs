//! What travels: ids, frames, log entries, content, limits and versions. This crate encodes and decodes, and does
//! nothing else: no hashing, no keys, no sockets, no clock.
//!
//! Every decoder is total: any bytes give a value or a named rejection (`docs/guarantees.md`, "total parsers").
//! The law is `spec/`; the frame definitions in `frames.rs` are generated from `spec/sealwire.proto`.
#![forbid(unsafe_code)]

pub mod content;
pub mod conversation;
pub mod direct;
pub mod entry;
mod error;
pub mod frame;
#[rustfmt::skip]
#[expect(missing_docs, unreachable_pub, reason = "generated from spec/sealwire.proto, which carries the documentation")]
mod frames;
pub mod handle;
mod ids;
pub mod label;
pub mod limits;
pub mod padding;

pub use error::{Code, Disposition};
pub use ids::*;

/// The WebSocket subprotocol. The version of the protocol is part of it, so that a later one is another name.
pub const SUBPROTOCOL: &str = "sealwire.v1";
/// The path under which a relay serves the WebSocket.
pub const PATH: &str = "/v1";
