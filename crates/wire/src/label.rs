//! The registry of labels (E2). Whatever is signed, hashed, derived from or used as associated data begins with
//! `opaque label<0..255>` and `uint8 version`, so that no type passes for another. The length comes first, which
//! makes every prefix differ.

use tls_codec::Serialize;

/// What a structure is for. Its bytes stand in front of everything that is signed, hashed or derived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label(&'static str);

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl Label {
            $($(#[$doc])* pub const $name: Label = Label(concat!("sealwire/v1/", $text));)*
        }

        /// Every label that there is.
        pub const ALL: &[Label] = &[$(Label::$name),*];
    };
}

labels! {
    /// A device id from its Ed25519 key.
    DEVICE_ID = "device-id";
    /// The signature on an account log entry.
    ACCOUNT_ENTRY = "account-entry";
    /// The hash of a signed account log entry.
    ACCOUNT_ENTRY_HASH = "account-entry-hash";
    /// The signature that logs a device in.
    LOG_IN = "log-in";
    /// Half of a safety number.
    SAFETY_NUMBER = "safety-number";
    /// The id of the conversation between two accounts.
    ONE_TO_ONE = "one-to-one";
    /// The id of a group conversation.
    GROUP_ID = "group-id";
    /// The id of a piece of content.
    CONTENT_ID = "content-id";
    /// Direct mode: key derivation.
    DIRECT_KEY = "direct-key";
    /// Direct mode: associated data.
    DIRECT_ENVELOPE = "direct-envelope";
    /// The chain before a conversation's first entry.
    CHAIN_START = "chain-start";
    /// A step of a conversation's chain.
    CHAIN_STEP = "chain-step";
    /// The hash of an entry, as the chain takes it.
    ENTRY_HASH = "entry-hash";
    /// The hash of a roster.
    ROSTER = "roster";
    /// The relay's signature on a head.
    HEAD = "head";
    /// Conversations: the key that commits of an epoch are sealed under (C3).
    COMMIT_KEY = "commit-key";
    /// A device's signature on becoming one of an account (I5).
    DEVICE_CONSENT = "device-consent";
    /// Linking: where the two devices meet, from the secret of the code.
    LINK_MEETING = "link-meeting";
    /// Linking: the pre-shared key, from the secret of the code.
    LINK_SECRET = "link-secret";
    /// Linking: the six digits, from the hash of the handshake.
    LINK_DIGITS = "link-digits";
    /// A device's signature on its request to be added to a conversation again (C10).
    READD = "readd";
    /// Conversations: associated data of a sealed commit.
    COMMIT_SEAL = "commit-seal";
}

impl Label {
    /// The version of every structure of protocol version 1.
    pub const VERSION: u8 = 1;

    /// The label's text.
    pub fn text(self) -> &'static str {
        self.0
    }

    /// How many bytes [`Label::prefix`] has.
    pub const fn prefix_length(self) -> usize {
        self.0.len() + 2
    }

    /// The label's own bytes: length, text, version.
    pub fn prefix(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 + self.0.len());
        bytes.push(self.0.len() as u8);
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.push(Label::VERSION);
        bytes
    }

    /// The label followed by a structure in TLS presentation language (RFC 8446, section 3).
    pub fn encode(self, structure: &impl Serialize) -> Vec<u8> {
        let mut bytes = self.prefix();
        structure.tls_serialize(&mut bytes).expect("a Vec takes every byte and our vectors are within their bounds");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E2: labels are unique and prefix-free, so that no type passes for another (all N x (N-1)).
    #[test]
    fn no_label_is_another_or_its_beginning() {
        for (i, a) in ALL.iter().enumerate() {
            assert!(a.text().len() < 256);
            for (j, b) in ALL.iter().enumerate() {
                assert!(i == j || !b.prefix().starts_with(&a.prefix()), "{} begins {}", a.text(), b.text());
                assert!(i == j || a.text() != b.text());
            }
        }
    }
}
