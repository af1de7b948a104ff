//! Devices: known by their Ed25519 key (I1, E4).

use ed25519_dalek::VerifyingKey;
use sealwire_wire::DeviceId;
use sealwire_wire::label::Label;

use crate::hash::hash;
use crate::signature::{KeyError, verifying_key};

/// A device's public Ed25519 key, checked: a canonical point that is not of small order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceKey(pub(crate) VerifyingKey);

impl DeviceKey {
    /// Reads and checks a key.
    ///
    /// # Errors
    /// [`KeyError::Point`].
    pub fn parse(bytes: &[u8; 32]) -> Result<DeviceKey, KeyError> {
        verifying_key(bytes).map(DeviceKey)
    }

    /// The key's bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The id of the device that holds this key.
    pub fn device_id(&self) -> DeviceId {
        device_id(&self.to_bytes())
    }
}

/// SHA-256 over a label and the device's Ed25519 key (E4).
pub fn device_id(key: &[u8; 32]) -> DeviceId {
    DeviceId(hash(Label::DEVICE_ID, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HR-05: small-order and non-canonical keys are refused before any state.
    #[test]
    fn weak_and_non_canonical_keys_are_refused() {
        let identity = {
            let mut bytes = [0; 32];
            bytes[0] = 1;
            bytes
        };
        let zero_y = [0; 32];
        // y = p, a second form of y = 0; and y = p + 1, a second form of the identity.
        let p = {
            let mut bytes = [0xff; 32];
            bytes[0] = 0xed;
            bytes[31] = 0x7f;
            bytes
        };
        let p_plus_1 = {
            let mut bytes = p;
            bytes[0] = 0xee;
            bytes
        };
        for bytes in [identity, zero_y, p, p_plus_1, [0xff; 32]] {
            assert_eq!(DeviceKey::parse(&bytes), Err(KeyError::Point), "{bytes:?}");
        }
    }
}
