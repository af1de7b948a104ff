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
//! Private keys are made here and stay here. What leaves is sealed for the device that it is for; the relay routes it
//! and cannot read it. See `docs/guarantees.md` for what that means and which test shows it.
#![forbid(unsafe_code)]

mod client;
mod driver;
mod socket;
mod store;

pub use client::{Account, Client, Error, Events, Sent};
pub use sealwire_engine::{
    Command, ContactView, Event, Incoming, Invite, LogInProblem, MessageState, Profile, QuarantineReason, Refusal,
    Reply, RequestView, StoredMessage, StoredQuarantine, To, UnsentReason,
};
pub use sealwire_keys::SafetyNumber;
pub use sealwire_wire::content::{Content, Part};
pub use sealwire_wire::handle::Handle;
pub use sealwire_wire::{AccountId, Code, ContentId, Time};
pub use socket::{AddressError, RelayAddress};
pub use store::{ClientStore, StoreError, Unlock};
