//! The relay as a server: sockets, TLS, threads and a store around [`sealwire_relay_core`], which does the thinking.
//!
//! - [`Server`] listens, ends TLS if it is given a certificate, and stops gracefully.
//! - [`Service`] has no listener: [`Service::router`] serves the WebSocket at `/v1` inside any axum program
//!   (`examples/mounted.rs`).
//! - [`start_local`] is a whole relay on this machine, for a demo or a test.
//!
//! Nothing that this crate links can open a message.
#![forbid(unsafe_code)]

mod committer;
mod connection;
mod hub;
mod key;
mod mailbox;
mod server;
mod service;
mod tls;
mod websocket;

pub use sealwire_relay_core::{Features, Policy, Registration};
pub use server::{Config, Server, StartError, TlsFiles, open_store, start_local};
pub use service::Service;
