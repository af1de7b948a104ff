//! A device's private keys (I1): made on it, never exported. They leave this type as signatures and shared secrets, and
//! as one record for the device's own sealed store.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};
use rand_core::CryptoRng;
use sealwire_keys::{DeviceCard, DeviceKey, DirectKey, Mode, Suite};
use sealwire_wire::DeviceId;
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize, Zeroizing};

/// A device's private keys: Ed25519 to sign with, P-256 and X25519 for direct mode.
pub struct DeviceSecrets {
    pub(crate) signing: SigningKey,
    /// Of the public key, which costs a decompression of a point each time.
    id: DeviceId,
    pub(crate) p256: p256::SecretKey,
    pub(crate) x25519: StaticSecret,
}

/// A record that holds no device keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record does not hold device keys")]
pub struct SecretsError;

/// Version byte, then three secret keys of 32 bytes.
const RECORD_VERSION: u8 = 1;
const RECORD_LENGTH: usize = 1 + 3 * 32;

impl DeviceSecrets {
    /// Makes a device's keys.
    pub fn generate(rng: &mut dyn CryptoRng) -> DeviceSecrets {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        let (p256, x25519) = generate_direct(rng);
        DeviceSecrets::of(SigningKey::from_bytes(&seed), p256, x25519)
    }

    pub(crate) fn of(signing: SigningKey, p256: p256::SecretKey, x25519: StaticSecret) -> DeviceSecrets {
        let id = public(&signing).device_id();
        DeviceSecrets { signing, id, p256, x25519 }
    }

    /// The same device with new direct-mode keys (D3).
    pub fn with_new_direct_keys(&self, rng: &mut dyn CryptoRng) -> DeviceSecrets {
        let (p256, x25519) = generate_direct(rng);
        DeviceSecrets::of(self.signing.clone(), p256, x25519)
    }

    /// What the account log publishes of this device. X25519 comes first: it is faster, and as good.
    pub fn card(&self) -> DeviceCard {
        self.card_for(Mode::Direct)
    }

    /// What the account log publishes of a device that is written to in this mode.
    pub fn card_for(&self, mode: Mode) -> DeviceCard {
        let direct = match mode {
            Mode::Direct => [Suite::X25519, Suite::P256].map(|suite| self.direct_key(suite)).to_vec(),
            Mode::Mls => Vec::new(),
        };
        DeviceCard { key: self.key(), modes: vec![mode], direct }
    }

    /// The public Ed25519 key.
    pub fn key(&self) -> DeviceKey {
        public(&self.signing)
    }

    /// The device's id.
    pub fn device_id(&self) -> DeviceId {
        self.id
    }

    /// The public direct-mode key of a suite.
    pub fn direct_key(&self, suite: Suite) -> DirectKey {
        let bytes = match suite {
            Suite::P256 => p256::Sec1Point::from(self.p256.public_key()).as_bytes().to_vec(),
            Suite::X25519 => x25519_dalek::PublicKey::from(&self.x25519).to_bytes().to_vec(),
        };
        DirectKey::parse(suite, &bytes).expect("the key of a secret key is on its curve and not of small order")
    }

    /// Signs bytes that begin with a label (E2).
    pub fn sign(&self, labelled: &[u8]) -> [u8; 64] {
        self.signing.sign(labelled).to_bytes()
    }

    /// The raw shared secret with another device's key: input to a derivation, never a key (M4). `None` for the
    /// all-zero result, which only a key of small order gives.
    pub(crate) fn agree(&self, peer: &DirectKey) -> Option<Zeroizing<[u8; 32]>> {
        match peer.suite() {
            Suite::P256 => {
                let peer = p256::PublicKey::from_sec1_bytes(peer.as_bytes()).ok()?;
                let shared = self.p256.diffie_hellman(&peer);
                Some(Zeroizing::new((*shared.raw_secret_bytes()).into()))
            }
            Suite::X25519 => {
                let peer: [u8; 32] = peer.as_bytes().try_into().ok()?;
                let shared = self.x25519.diffie_hellman(&x25519_dalek::PublicKey::from(peer));
                shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
            }
        }
    }

    /// The record for the device's own store, which seals it. The only way that secret keys leave this type.
    pub fn to_record(&self) -> Zeroizing<Vec<u8>> {
        let mut record = Zeroizing::new(Vec::with_capacity(RECORD_LENGTH));
        record.push(RECORD_VERSION);
        record.extend_from_slice(self.signing.as_bytes());
        let mut scalar = self.p256.to_bytes();
        record.extend_from_slice(&scalar);
        scalar.zeroize();
        record.extend_from_slice(self.x25519.as_bytes());
        record
    }

    /// Reads what [`DeviceSecrets::to_record`] wrote.
    ///
    /// # Errors
    /// [`SecretsError`].
    pub fn from_record(record: &[u8]) -> Result<DeviceSecrets, SecretsError> {
        if record.len() != RECORD_LENGTH || record[0] != RECORD_VERSION {
            return Err(SecretsError);
        }
        let part = |i: usize| {
            let mut bytes = Zeroizing::new([0; 32]);
            bytes.copy_from_slice(&record[1 + 32 * i..][..32]);
            bytes
        };
        let p256 = p256::SecretKey::from_slice(&*part(1)).map_err(|_| SecretsError)?;
        Ok(DeviceSecrets::of(SigningKey::from_bytes(&part(0)), p256, StaticSecret::from(*part(2))))
    }
}

fn public(signing: &SigningKey) -> DeviceKey {
    DeviceKey::parse(&signing.verifying_key().to_bytes()).expect("the key of a secret key is no weak point")
}

fn generate_direct(rng: &mut dyn CryptoRng) -> (p256::SecretKey, StaticSecret) {
    let mut bytes = Zeroizing::new([0; 32]);
    let p256 = loop {
        rng.fill_bytes(&mut *bytes);
        // A random string is outside 1..n once in 2^32 tries.
        if let Ok(key) = p256::SecretKey::from_slice(&*bytes) {
            break key;
        }
    };
    rng.fill_bytes(&mut *bytes);
    (p256, StaticSecret::from(*bytes))
}

impl fmt::Debug for DeviceSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceSecrets({:?}, …)", self.device_id())
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn device(seed: u64) -> DeviceSecrets {
        DeviceSecrets::generate(&mut ChaCha20Rng::seed_from_u64(seed))
    }

    #[test]
    fn a_device_comes_back_from_its_record() {
        let device = device(1);
        let again = DeviceSecrets::from_record(&device.to_record()).unwrap();
        assert_eq!(device.card(), again.card());
        assert_eq!(device.to_record(), again.to_record());
        for damaged in [&[][..], &device.to_record()[1..], &[9; RECORD_LENGTH]] {
            assert_eq!(DeviceSecrets::from_record(damaged).err(), Some(SecretsError));
        }
    }

    /// M1: what prints of a device is its public id.
    #[test]
    fn nothing_secret_prints() {
        let device = device(2);
        assert_eq!(format!("{device:?}"), format!("DeviceSecrets({:?}, …)", device.device_id()));
    }

    #[test]
    fn new_direct_keys_leave_the_identity() {
        let device = device(3);
        let rotated = device.with_new_direct_keys(&mut ChaCha20Rng::seed_from_u64(4));
        assert_eq!(device.device_id(), rotated.device_id());
        for suite in Suite::ALL {
            assert_ne!(device.direct_key(suite), rotated.direct_key(suite));
        }
    }
}
