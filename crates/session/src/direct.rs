//! Direct mode (D): the plain scheme, pairwise. Static ECDH, HKDF with SHA-256 (RFC 5869), AES-256-GCM with a random
//! IV (NIST SP 800-38D). Works with any standard crypto library; has no forward secrecy, and says so.
//!
//! `spec/direct.md` is the law; `spec/vectors/direct.json` holds inputs and outputs.

use std::fmt;

use rand_core::CryptoRng;
use sealwire_keys::{DirectKey, Suite};
use sealwire_wire::direct::{HEADER, SENDER_HINT};
use sealwire_wire::label::Label;
use sealwire_wire::limits::DIRECT_MESSAGES_MAX;
use sealwire_wire::padding::{self, PaddingError};
use sealwire_wire::{DeviceHint, DeviceId, EnvelopeId};
use subtle::ConstantTimeEq;
use tls_codec::{TlsByteVecU8, TlsSerialize, TlsSize};

use crate::DeviceSecrets;
use crate::primitives::{Cipher, TAG, derive};

/// The version of the format, its first byte.
const VERSION: u8 = 1;

/// The associated data: label, version, suite, key id, both devices; then envelope id, counter, and the length of a
/// franking tag, which is empty.
const ASSOCIATED: usize = Label::DIRECT_ENVELOPE.prefix_length() + 1 + 1 + 8 + 32 + 32 + VARYING;
const VARYING: usize = 16 + 4 + 1;

/// What direct mode adds to a padded plaintext inside an entry's body.
pub const OVERHEAD: usize = HEADER + TAG;

/// A commitment to a key: 32 bytes that the same derivation gives beside it. Public, the same on both sides; its first
/// 8 bytes are the key id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Commitment(pub [u8; 32]);

impl Commitment {
    /// For a comparison in constant time that takes four steps instead of 32.
    fn words(&self) -> [u64; 4] {
        let (words, _) = self.0.as_chunks();
        std::array::from_fn(|word| u64::from_ne_bytes(words[word]))
    }

    /// The key id.
    pub fn key_id(&self) -> [u8; 8] {
        let mut id = [0; 8];
        id.copy_from_slice(&self.0[..8]);
        id
    }
}

/// Which way messages go under a key. Each direction has a key of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// From this device.
    Sending,
    /// To this device.
    Receiving,
}

/// The key of one direction between two devices, and what is bound to it.
pub struct DirectSession {
    suite: Suite,
    sender: DeviceId,
    recipient: DeviceId,
    commitment: Commitment,
    cipher: Cipher,
    /// The associated data of an envelope with id and counter zero.
    associated: [u8; ASSOCIATED],
}

/// A device's keys cannot agree on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's key gives no shared secret")]
pub struct AgreementError;

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Too large for a message.
    #[error(transparent)]
    TooLarge(PaddingError),
    /// The key has sealed 2^31 messages (D2): new direct keys come first.
    #[error("this key has sealed as many messages as it may: new direct keys come first")]
    KeyExhausted,
}

/// Why nothing was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not an envelope of this version.
    #[error("not a direct-mode envelope")]
    Malformed,
    /// Sealed with another key: the commitment differs.
    #[error("sealed with another key")]
    OtherKey,
    /// The tag does not verify, or what was inside is not padded content. One error, whatever was wrong.
    #[error("the envelope does not open")]
    Rejected,
}

/// The header of an envelope. Not authenticated until it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The suite that it names.
    pub suite: Suite,
    /// The sender's count of messages under this key.
    pub counter: u32,
    /// Whose keys to look up.
    pub sender: DeviceHint,
    /// The key that it names.
    pub commitment: Commitment,
    iv: [u8; 12],
}

impl Header {
    /// Reads the header of an entry's body.
    ///
    /// # Errors
    /// [`OpenError::Malformed`].
    pub fn parse(body: &[u8]) -> Result<Header, OpenError> {
        let (header, sealed) = body.split_at_checked(HEADER).ok_or(OpenError::Malformed)?;
        // The smallest padded plaintext has 64 bytes.
        if sealed.len() < 64 + TAG || header[0] != VERSION {
            return Err(OpenError::Malformed);
        }
        let part = |from: usize, to: usize| &header[from..to];
        let counter = u32::from_be_bytes(part(2, 6).try_into().map_err(|_| OpenError::Malformed)?);
        if counter >= DIRECT_MESSAGES_MAX {
            return Err(OpenError::Malformed);
        }
        Ok(Header {
            suite: Suite::from_byte(header[1]).ok_or(OpenError::Malformed)?,
            counter,
            sender: header[SENDER_HINT].try_into().map_err(|_| OpenError::Malformed)?,
            commitment: Commitment(part(22, 54).try_into().map_err(|_| OpenError::Malformed)?),
            iv: part(54, 66).try_into().map_err(|_| OpenError::Malformed)?,
        })
    }
}

impl DirectSession {
    /// Derives the key of one direction (D1): both sides get the same from their own private and the other's public key.
    ///
    /// # Errors
    /// [`AgreementError`] for a key of small order.
    pub fn derive(
        own: &DeviceSecrets,
        peer: DeviceId,
        peer_key: &DirectKey,
        direction: Direction,
    ) -> Result<DirectSession, AgreementError> {
        let suite = peer_key.suite();
        let shared = own.agree(peer_key).ok_or(AgreementError)?;
        let own_key = own.direct_key(suite);
        let ((sender, sender_key), (recipient, recipient_key)) = match direction {
            Direction::Sending => ((own.device_id(), &own_key), (peer, peer_key)),
            Direction::Receiving => ((peer, peer_key), (own.device_id(), &own_key)),
        };
        let info = Label::DIRECT_KEY.encode(&DirectKeyInfo {
            suite: suite as u8,
            sender,
            recipient,
            sender_key: sender_key.as_bytes().into(),
            recipient_key: recipient_key.as_bytes().into(),
        });
        let okm = derive::<64>(&*shared, &info);
        let (key, commitment) = okm.split_first_chunk().expect("64 bytes begin with 32");
        let commitment = Commitment(commitment.try_into().expect("64 bytes end with 32"));
        let associated = Label::DIRECT_ENVELOPE.encode(&DirectAssociatedData {
            version: VERSION,
            suite: suite as u8,
            key_id: commitment.key_id(),
            sender,
            recipient,
            envelope: EnvelopeId([0; 16]),
            counter: 0,
            franking: Vec::new().into(),
        });
        let associated = associated.try_into().expect("its parts have these lengths");
        Ok(DirectSession { suite, sender, recipient, commitment, cipher: Cipher::new(key), associated })
    }

    /// The key's commitment.
    pub fn commitment(&self) -> Commitment {
        self.commitment
    }

    /// Seals content as the body of an entry with this envelope id. `counter` was never used under this key before, and
    /// is durable before the result leaves.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(
        &self,
        envelope: EnvelopeId,
        counter: u32,
        content: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, SealError> {
        if counter >= DIRECT_MESSAGES_MAX {
            return Err(SealError::KeyExhausted);
        }
        let mut iv = [0; 12];
        rng.fill_bytes(&mut iv);
        // One buffer, which becomes the entry's body: sealed where it stands.
        let mut body = Vec::with_capacity(OVERHEAD + padding::padded_length(content.len()));
        body.extend_from_slice(&[VERSION, self.suite as u8]);
        body.extend_from_slice(&counter.to_be_bytes());
        body.extend_from_slice(&self.sender.hint().0);
        body.extend_from_slice(&self.commitment.0);
        body.extend_from_slice(&iv);
        padding::pad_behind(&mut body, content).map_err(SealError::TooLarge)?;
        let tag = self.cipher.seal(iv, &self.associated_data(envelope, counter), &mut body[HEADER..]);
        body.extend_from_slice(&tag);
        Ok(body)
    }

    /// Opens the body of an entry. The caller marks the counter in its replay window only now.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, envelope: EnvelopeId, body: &[u8]) -> Result<Vec<u8>, OpenError> {
        let header = Header::parse(body)?;
        let same_key = header.commitment.words().ct_eq(&self.commitment.words());
        if !bool::from(same_key) || header.suite != self.suite || header.sender != self.sender.hint() {
            return Err(OpenError::OtherKey);
        }
        let (sealed, tag) = body[HEADER..].split_last_chunk().ok_or(OpenError::Malformed)?;
        let mut opened = sealed.to_vec();
        let associated = self.associated_data(envelope, header.counter);
        self.cipher.open(header.iv, &associated, &mut opened, *tag).map_err(|_| OpenError::Rejected)?;
        let length = padding::unpad(&opened).map_err(|_| OpenError::Rejected)?.len();
        opened.truncate(length);
        Ok(opened)
    }

    /// All but envelope id and counter is the same for every message of the session: only these are written anew.
    fn associated_data(&self, envelope: EnvelopeId, counter: u32) -> [u8; ASSOCIATED] {
        let mut data = self.associated;
        let varying = &mut data[ASSOCIATED - VARYING..];
        varying[..16].copy_from_slice(&envelope.0);
        varying[16..20].copy_from_slice(&counter.to_be_bytes());
        data
    }
}

impl fmt::Debug for DirectSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectSession({:?}, {:?} -> {:?}, …)", self.suite, self.sender, self.recipient)
    }
}

#[derive(TlsSerialize, TlsSize)]
struct DirectKeyInfo {
    suite: u8,
    sender: DeviceId,
    recipient: DeviceId,
    sender_key: TlsByteVecU8,
    recipient_key: TlsByteVecU8,
}

#[derive(TlsSerialize, TlsSize)]
struct DirectAssociatedData {
    version: u8,
    suite: u8,
    key_id: [u8; 8],
    sender: DeviceId,
    recipient: DeviceId,
    envelope: EnvelopeId,
    counter: u32,
    /// Room for a franking tag (A3); empty in version 1.
    franking: TlsByteVecU8,
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use sealwire_wire::entry::Entry;
    use sealwire_wire::frame::ToRelay;
    use sealwire_wire::limits::MESSAGE_MAX;
    use sealwire_wire::{InboxAddress, LogId};

    use super::*;

    fn rng(seed: u64) -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(seed)
    }

    fn device(seed: u64) -> DeviceSecrets {
        DeviceSecrets::generate(&mut rng(seed))
    }

    fn session(own: &DeviceSecrets, peer: &DeviceSecrets, suite: Suite, direction: Direction) -> DirectSession {
        DirectSession::derive(own, peer.device_id(), &peer.direct_key(suite), direction).unwrap()
    }

    fn pair(suite: Suite) -> (DirectSession, DirectSession) {
        let (alice, bob) = (device(1), device(2));
        (session(&alice, &bob, suite, Direction::Sending), session(&bob, &alice, suite, Direction::Receiving))
    }

    const ENVELOPE: EnvelopeId = EnvelopeId([7; 16]);

    /// M3: both sides derive the same from their own private and the other's public key.
    #[test]
    fn both_sides_derive_the_same_and_messages_cross() {
        for suite in Suite::ALL {
            let (alice, bob) = pair(suite);
            assert_eq!(alice.commitment(), bob.commitment());
            let body = alice.seal(ENVELOPE, 0, b"hello", &mut rng(3)).unwrap();
            assert_eq!(bob.open(ENVELOPE, &body).unwrap(), b"hello");
            assert_eq!(body.len(), 64 + OVERHEAD);
        }
    }

    /// A header has the smallest padded plaintext and its tag behind it, and not a byte less.
    #[test]
    fn a_header_is_not_all() {
        let body = pair(Suite::X25519).0.seal(ENVELOPE, 0, b"", &mut rng(3)).unwrap();
        assert!(Header::parse(&body).is_ok());
        assert_eq!(Header::parse(&body[..body.len() - 1]), Err(OpenError::Malformed));
    }

    /// M4: changing any bound input changes the key: suite, either device, either key, direction.
    #[test]
    fn a_key_is_bound_to_suite_devices_keys_and_direction() {
        let (alice, bob, carol) = (device(1), device(2), device(3));
        let new_bob = bob.with_new_direct_keys(&mut rng(9));
        let base = session(&alice, &bob, Suite::X25519, Direction::Sending).commitment();
        for other in [
            session(&alice, &bob, Suite::P256, Direction::Sending),
            session(&alice, &bob, Suite::X25519, Direction::Receiving),
            session(&alice, &carol, Suite::X25519, Direction::Sending),
            session(&carol, &bob, Suite::X25519, Direction::Sending),
            session(&alice, &new_bob, Suite::X25519, Direction::Sending),
            // Bob's key under another device's name: the shared secret is the same, the key is not.
            DirectSession::derive(&alice, carol.device_id(), &bob.direct_key(Suite::X25519), Direction::Sending)
                .unwrap(),
        ] {
            assert_ne!(other.commitment(), base, "{other:?}");
        }
    }

    /// M6, HR-08: every bit, every prefix, an extension; the original still opens.
    #[test]
    fn nothing_altered_opens() {
        for suite in Suite::ALL {
            let (alice, bob) = pair(suite);
            let body = alice.seal(ENVELOPE, 5, b"hello", &mut rng(3)).unwrap();
            for bit in 0..body.len() * 8 {
                let mut flipped = body.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(bob.open(ENVELOPE, &flipped).is_err(), "bit {bit}");
            }
            for end in 0..body.len() {
                assert!(bob.open(ENVELOPE, &body[..end]).is_err());
            }
            assert!(bob.open(ENVELOPE, &[&body[..], &[0]].concat()).is_err());
            assert_eq!(bob.open(EnvelopeId([8; 16]), &body), Err(OpenError::Rejected), "another envelope id");
            assert!(bob.open(ENVELOPE, &body).is_ok());
        }
    }

    /// HR-06: a message sent back to its sender, and one for another device.
    #[test]
    fn nothing_reflected_or_misdirected_opens() {
        let (alice, bob, carol) = (device(1), device(2), device(3));
        let body =
            session(&alice, &bob, Suite::X25519, Direction::Sending).seal(ENVELOPE, 0, b"x", &mut rng(3)).unwrap();
        for other in [
            session(&alice, &bob, Suite::X25519, Direction::Receiving),
            session(&carol, &alice, Suite::X25519, Direction::Receiving),
            session(&bob, &alice, Suite::P256, Direction::Receiving),
            session(&bob, &carol, Suite::X25519, Direction::Receiving),
        ] {
            assert_eq!(other.open(ENVELOPE, &body), Err(OpenError::OtherKey), "{other:?}");
        }
        assert!(session(&bob, &alice, Suite::X25519, Direction::Receiving).open(ENVELOPE, &body).is_ok());
    }

    /// M5: the IV is fresh each time, and a key stops before the safe number of messages.
    #[test]
    fn ivs_differ_and_a_key_stops() {
        let (alice, _) = pair(Suite::X25519);
        let mut rng = rng(3);
        let bodies: Vec<_> = (0..2).map(|counter| alice.seal(ENVELOPE, counter, b"x", &mut rng).unwrap()).collect();
        assert_ne!(Header::parse(&bodies[0]).unwrap().iv, Header::parse(&bodies[1]).unwrap().iv);
        assert!(alice.seal(ENVELOPE, DIRECT_MESSAGES_MAX - 1, b"x", &mut rng).is_ok());
        assert_eq!(alice.seal(ENVELOPE, DIRECT_MESSAGES_MAX, b"x", &mut rng), Err(SealError::KeyExhausted));
    }

    /// D2: an envelope adds at most 128 bytes to the padded plaintext, frame included, at every size.
    #[test]
    fn an_envelope_adds_at_most_128_bytes() {
        let (alice, _) = pair(Suite::X25519);
        for length in [0, 63, 64, 511, 5_000, MESSAGE_MAX - 1] {
            let body = alice.seal(ENVELOPE, DIRECT_MESSAGES_MAX - 1, &vec![1; length], &mut rng(3)).unwrap();
            let entry = Entry::direct(ENVELOPE, body).encode();
            let frame = ToRelay::Append { log: LogId::Inbox(InboxAddress([1; 16])), entry, roster: None }.encode();
            let added = frame.len() - padding::padded_length(length);
            assert!(added <= 128, "{added} bytes at {length}");
        }
        let too_large = alice.seal(ENVELOPE, 0, &vec![1; MESSAGE_MAX], &mut rng(3));
        assert_eq!(too_large, Err(SealError::TooLarge(PaddingError::TooLarge { length: MESSAGE_MAX })));
    }

    /// M1: what prints of a session is whose it is.
    #[test]
    fn nothing_secret_prints() {
        let (alice, _) = pair(Suite::X25519);
        let printed = format!("{alice:?}");
        assert!(printed.starts_with("DirectSession(X25519, DeviceId(") && printed.len() < 90, "{printed}");
    }
}
