//! Every id has a type of its own, so that one can't be given where another is meant.

use std::fmt;

use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, TlsSerialize, TlsDeserializeBytes, TlsSize)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// The length in bytes.
            pub const LENGTH: usize = $length;

            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// Parses the hexadecimal form that `Display` writes; `None` for anything else.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $length];
                read_hex(text, &mut bytes).then_some(Self(bytes))
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = WrongLength;
            fn try_from(bytes: &[u8]) -> Result<Self, WrongLength> {
                bytes.try_into().map(Self).map_err(|_| WrongLength { expected: $length, found: bytes.len() })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "("))?;
                write_hex(f, &self.0[..4])?;
                f.write_str("…)")
            }
        }
    };
}

id!(
    /// An account: the hash of the genesis entry of its account log (I2).
    AccountId, 32
);
id!(
    /// A device: SHA-256 over a label and its Ed25519 key (E4).
    DeviceId, 32
);
id!(
    /// The first half of a device id. Envelopes carry it to say whose keys to look up; it proves nothing.
    DeviceHint, 16
);
id!(
    /// Where a device is written to: random bytes that the device made (E5).
    InboxAddress, 16
);
id!(
    /// One envelope, for idempotency at the relay: random bytes that its sender made (E4).
    EnvelopeId, 16
);
id!(
    /// One piece of content, whatever envelopes carried it: a salted hash (E4).
    ContentId, 32
);
id!(
    /// A conversation. For two people: a hash over both account ids (C8).
    ConversationId, 32
);
id!(
    /// A relay's store. Another one than before means that the relay was restored from a backup (L11).
    InstanceId, 16
);
id!(
    /// A lifetime of a client's store between two log-ins; shows a restored or copied store (N3).
    Incarnation, 16
);
id!(
    /// What an account hands to those who may see when it is connected (A2).
    PresenceToken, 16
);
id!(
    /// Where two devices that share a code meet, to link one of them (I5): a hash of the code's secret.
    MeetingId, 16
);
id!(
    /// The SHA-256 of a blob's sealed bytes (E7).
    BlobHash, 32
);
id!(
    /// A value of the hash chain over a conversation log (L5).
    Chain, 32
);
id!(
    /// The hash of a roster: the sorted inboxes that a conversation log is read by (C6).
    RosterHash, 32
);

impl DeviceId {
    /// What an envelope carries of this id.
    pub fn hint(&self) -> DeviceHint {
        let mut hint = [0; 16];
        hint.copy_from_slice(&self.0[..16]);
        DeviceHint(hint)
    }
}

/// The relay's sequence number of an entry in a log (E4). The first entry has 1; 0 is "before the first".
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, TlsSerialize, TlsDeserializeBytes, TlsSize,
)]
pub struct Position(pub u64);

impl Position {
    /// Before the first entry.
    pub const START: Position = Position(0);

    /// The position before this one; before the first is the start.
    pub fn before(self) -> Position {
        Position(self.0.saturating_sub(1))
    }

    /// The position after this one. Saturates: a log that long does not exist.
    pub fn next(self) -> Position {
        Position(self.0.saturating_add(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which log: a device's inbox, or a conversation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LogId {
    /// A device's own log: Welcomes, requests and direct mode.
    Inbox(InboxAddress),
    /// Commits, messages and repairs of one conversation, in one sequence.
    Conversation(ConversationId),
}

impl LogId {
    /// The bytes on the wire; their length tells which kind it is.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            LogId::Inbox(inbox) => &inbox.0,
            LogId::Conversation(conversation) => &conversation.0,
        }
    }
}

impl TryFrom<&[u8]> for LogId {
    type Error = WrongLength;
    fn try_from(bytes: &[u8]) -> Result<Self, WrongLength> {
        match bytes.len() {
            InboxAddress::LENGTH => InboxAddress::try_from(bytes).map(LogId::Inbox),
            ConversationId::LENGTH => ConversationId::try_from(bytes).map(LogId::Conversation),
            found => Err(WrongLength { expected: InboxAddress::LENGTH, found }),
        }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.as_bytes())
    }
}

/// Unix time in milliseconds. Logic never reads a clock: it is told the time.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, TlsSerialize, TlsDeserializeBytes, TlsSize,
)]
pub struct Time(pub u64);

impl Time {
    /// This time plus some milliseconds. Saturates.
    pub fn plus(self, milliseconds: u64) -> Time {
        Time(self.0.saturating_add(milliseconds))
    }

    /// Milliseconds since an earlier time; 0 where that lies ahead (clocks jump).
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Bytes of another length than the id has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} bytes, found {found}")]
pub struct WrongLength {
    /// The length of the id.
    pub expected: usize,
    /// The length that was found.
    pub found: usize,
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn read_hex(text: &str, into: &mut [u8]) -> bool {
    let text = text.as_bytes();
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    text.len() == into.len() * 2
        && into.iter_mut().zip(text.chunks(2)).all(|(byte, pair)| {
            let value = digit(pair[0]).zip(digit(pair[1]));
            *byte = value.map_or(0, |(high, low)| high << 4 | low);
            value.is_some()
        })
}
