//! What all connections of a relay share.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};
use sealwire_keys::HeadToBeSigned;
use sealwire_wire::frame::{FromRelay, Hello, Limits, ToRelay};
use sealwire_wire::{InstanceId, Time, limits};

/// Who may make an account here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registration {
    /// Everybody.
    Open,
    /// Who brings an invite code.
    Invite,
    /// Nobody.
    Closed,
}

impl Registration {
    /// The word in `Hello`.
    pub fn name(self) -> &'static str {
        match self {
            Registration::Open => "open",
            Registration::Invite => "invite",
            Registration::Closed => "closed",
        }
    }
}

/// What a relay offers beyond inboxes and presence: what conversations on MLS need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// `conversation-log`: `CreateConversation`, `Attach`, `GetHead`, `ListLogs`, and appends to conversation logs.
    pub conversation_logs: bool,
    /// `blob`: `PutBlob` and `GetBlob`.
    pub blobs: bool,
    /// `key-packages`: `PublishKeyPackages` and `ClaimKeyPackages`.
    pub key_packages: bool,
}

impl Features {
    /// Everything.
    pub const ALL: Features = Features { conversation_logs: true, blobs: true, key_packages: true };
    /// Inboxes and presence alone: for a relay of direct mode.
    pub const NONE: Features = Features { conversation_logs: false, blobs: false, key_packages: false };

    /// As `Hello` lists them.
    fn names(self) -> Vec<String> {
        let offered = [
            ("inbox", true),
            ("presence", true),
            ("conversation-log", self.conversation_logs),
            ("blob", self.blobs),
            ("key-packages", self.key_packages),
        ];
        offered.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| (*name).to_owned()).collect()
    }

    /// Whether the relay knows this kind of frame at all.
    pub(crate) fn know(self, frame: &ToRelay) -> bool {
        match frame {
            ToRelay::Attach { .. }
            | ToRelay::CreateConversation { .. }
            | ToRelay::GetHead { .. }
            | ToRelay::ListLogs { .. }
            | ToRelay::Meet { .. } => self.conversation_logs,
            ToRelay::PutBlob { .. } | ToRelay::GetBlob { .. } => self.blobs,
            ToRelay::PublishKeyPackages { .. } | ToRelay::ClaimKeyPackages { .. } => self.key_packages,
            ToRelay::LogIn { .. }
            | ToRelay::Append { .. }
            | ToRelay::Ack { .. }
            | ToRelay::Lookup { .. }
            | ToRelay::Register { .. }
            | ToRelay::Publish { .. }
            | ToRelay::SetPresence { .. }
            | ToRelay::Watch { .. } => true,
        }
    }
}

/// What an operator decides. Made from a [`Registration`], everything else as most want it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Who may make an account.
    pub registration: Registration,
    /// What is offered beyond inboxes and presence: everything, by default.
    pub features: Features,
    /// Appends of one connection in a minute, [`APPENDS_PER_MINUTE`](limits::APPENDS_PER_MINUTE) by default; 0: no
    /// limit, which is for tests and benches.
    pub appends_per_minute: u32,
}

impl From<Registration> for Policy {
    fn from(registration: Registration) -> Policy {
        Policy { registration, features: Features::ALL, appends_per_minute: limits::APPENDS_PER_MINUTE }
    }
}

/// A relay's name, key and policy. Never changes while connections hold it.
pub struct Relay {
    name: String,
    key: SigningKey,
    instance: InstanceId,
    policy: Policy,
}

impl Relay {
    /// A relay by its name (the host part of its handles), its signing key, the instance id of its store, and its policy,
    /// for which a [`Registration`] does.
    pub fn new(name: &str, key: SigningKey, instance: InstanceId, policy: impl Into<Policy>) -> Relay {
        Relay { name: name.to_owned(), key, instance, policy: policy.into() }
    }

    /// The host part of its handles.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its public Ed25519 key: signs heads, and names the relay in log-ins.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The instance id of its store (L11).
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// What its operator decided.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    pub(crate) fn hello(&self, challenge: [u8; 32], now: Time) -> FromRelay {
        FromRelay::Hello(Hello {
            relay_name: self.name.clone(),
            relay_key: self.public_key(),
            instance: self.instance,
            challenge,
            features: self.policy.features.names(),
            limits: Limits {
                frame_bytes: limits::FRAME_MAX as u32,
                message_bytes: limits::MESSAGE_MAX as u32,
                inbox_entries: limits::INBOX_ENTRIES_MAX,
                inbox_bytes: limits::INBOX_BYTES_MAX,
                message_retention_ms: limits::MESSAGE_RETENTION_MS,
                commit_retention_ms: limits::COMMIT_RETENTION_MS,
                appends_in_flight: limits::APPENDS_IN_FLIGHT_MAX,
                lookups_per_minute: limits::LOOKUPS_PER_MINUTE,
                watched_tokens: limits::WATCHED_TOKENS_MAX as u32,
                appends_per_minute: self.policy.appends_per_minute,
            },
            registration: self.policy.registration.name().to_owned(),
            time: now,
        })
    }

    pub(crate) fn sign_head(&self, head: &HeadToBeSigned) -> [u8; 64] {
        self.key.sign(&head.encode()).to_bytes()
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("name", &self.name)
            .field("registration", &self.policy.registration)
            .finish_non_exhaustive()
    }
}
