//! The SDK: end-to-end encrypted messages in ten lines.
//!
//! ```no_run
//! use sealwire_client::{Account, Client, Event, Unlock};
//!
//! # async fn example() -> Result<(), sealwire_client::Error> {
//! let key = Unlock::KeyFile("alice.key".into());
//! let account = Account::new("alice@relay.example", "wss://relay.example")?;
//! let (client, mut events) = Client::create("alice".as_ref(), key, account).await?;
//! let sent = client.send_text("bob@relay.example", "Hello, Bob").await?; // saved: a crash can't lose it
//! while let Some(event) = events.next().await {
//!     if let Event::Message(message) = event {
//!         println!("{:?}: {:?}", message.handle, message.content.part);
//!     }
//! }
//! # drop(sent); Ok(())
//! # }
//! ```
//!
//! A message goes into a *conversation*: an MLS group (RFC 9420) with hybrid post-quantum keys, of two people or of many.
//! A conversation of two begins by itself with the first message. A group is made in one call, and is written to and read
//! like a person:
//!
//! ```no_run
//! # async fn example(client: sealwire_client::Client) -> Result<(), sealwire_client::Error> {
//! use sealwire_client::Talk;
//!
//! let lunch = client.create_group("Lunch", &["bob@relay.example", "carol@relay.example"]).await?;
//! client.send_text_to_group(lunch, "At noon?").await?;
//! for message in client.history(Talk::Group(lunch), u64::MAX, 20).await? {
//!     println!("{:?}: {:?}", message.from, message.content.part);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Account::direct`] makes an account for peers that know nothing else: static keys, no forward secrecy, no groups.
//!
//! A device that has missed a change of a conversation ([`Event::Behind`]) asks to be added again by itself; any other
//! member's device that is connected answers, and says again what it had said meanwhile. Not here yet: attachments.
//!
//! A person has up to 32 devices: [`Client::link_code`] on one of them shows a code, [`Client::link`] on the new one reads
//! it, and it is in every conversation from then on.
//!
//! Private keys are made here and stay here. What leaves is sealed for the device that it is for; the relay routes it
//! and cannot read it. See `docs/guarantees.md` for what that means and which test shows it.
//!
//! **In your `Cargo.toml`**, so that a debug build of yours answers malformed bytes with an error, as a release build does:
//! `tls_codec`, beneath OpenMLS, asserts that a length which somebody sent is right.
//!
//! ```toml
//! [profile.dev.package.tls_codec]
//! debug-assertions = false
//! ```
#![forbid(unsafe_code)]

mod client;
mod driver;
mod link;
mod socket;
mod store;
#[cfg(test)]
mod tests;

// As its tests name it.
#[cfg(test)]
extern crate self as sealwire_client;

pub use client::{Account, Client, Error, Events, Sent};
pub use link::{LinkCode, NoCode};
pub use sealwire_engine::{
    Command, ContactView, ConversationKind, ConversationView, DeviceView, Event, GroupChange, Incoming, Invite,
    LinkEnd, LogInProblem, MessageState, Mode, Profile, QuarantineReason, Refusal, Reply, RequestView, Role,
    StoredMessage, StoredQuarantine, Talk, To, UnsentReason,
};
pub use sealwire_keys::SafetyNumber;
pub use sealwire_wire::content::{Content, Part};
pub use sealwire_wire::handle::Handle;
pub use sealwire_wire::{AccountId, Code, ContentId, ConversationId, DeviceId, Time};
pub use socket::{AddressError, RelayAddress};
pub use store::{ClientStore, StoreError, Unlock};
