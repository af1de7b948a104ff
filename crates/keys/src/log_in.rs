//! What a device signs to log in (N1).

use sealwire_wire::label::Label;
use sealwire_wire::{DeviceId, Incarnation};
use tls_codec::{TlsByteVecU8, TlsByteVecU16, TlsSerialize, TlsSize};

use crate::device::DeviceKey;
use crate::signature::{SignatureError, verify};

/// The relay and its key *as the client is configured*, so that a log-in cannot be passed on to another relay
/// (NW-01); the challenge, so that it cannot be replayed; the device and its incarnations (N3); where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, TlsSerialize, TlsSize)]
pub struct LogInToBeSigned {
    relay_name: TlsByteVecU16,
    relay_key: [u8; 32],
    challenge: [u8; 32],
    device: DeviceId,
    incarnation: Incarnation,
    pending: Incarnation,
    origin: TlsByteVecU16,
    binding: TlsByteVecU8,
}

impl LogInToBeSigned {
    /// Puts the structure together. `origin` is the browser's, else empty; `binding` the TLS exporter, else empty.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a field of the structure in spec/connection.md, and has a type of its own"
    )]
    pub fn new(
        relay_name: &str,
        relay_key: [u8; 32],
        challenge: [u8; 32],
        device: DeviceId,
        incarnation: Incarnation,
        pending: Incarnation,
        origin: &str,
        binding: &[u8],
    ) -> LogInToBeSigned {
        LogInToBeSigned {
            relay_name: relay_name.as_bytes().into(),
            relay_key,
            challenge,
            device,
            incarnation,
            pending,
            origin: origin.as_bytes().into(),
            binding: binding.into(),
        }
    }

    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        Label::LOG_IN.encode(self)
    }

    /// Verifies a device's signature.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, key: &DeviceKey, signature: &[u8]) -> Result<(), SignatureError> {
        verify(&key.0, Label::LOG_IN, self, signature)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    /// N1: what the device signed verifies, and nothing else does.
    #[test]
    fn a_log_in_is_its_devices_own() {
        let device = SigningKey::from_bytes(&[1; 32]);
        let key = DeviceKey::parse(&device.verifying_key().to_bytes()).unwrap();
        let log_in = |challenge: u8| {
            let incarnation = Incarnation([3; 16]);
            let id = key.device_id();
            LogInToBeSigned::new("relay", [1; 32], [challenge; 32], id, incarnation, incarnation, "", b"")
        };
        let signature = device.sign(&log_in(2).encode()).to_bytes();
        assert_eq!(log_in(2).verify(&key, &signature), Ok(()));
        assert!(log_in(9).verify(&key, &signature).is_err());
        let other = DeviceKey::parse(&SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes()).unwrap();
        assert!(log_in(2).verify(&other, &signature).is_err());
        assert!(log_in(2).verify(&key, &signature[..63]).is_err());
    }
}
