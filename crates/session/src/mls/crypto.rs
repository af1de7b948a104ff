//! What OpenMLS computes with, for our two suites. AEAD, HKDF and signatures are the crates that direct mode uses; HPKE
//! (RFC 9180, draft-ietf-hpke-pq) is the crate `hpke`, which builds on the same ones and takes its randomness as an
//! argument (docs/decisions/0010).

use std::sync::{Mutex, MutexGuard, PoisonError};

use aes_gcm::aead::{Aead as _, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm, Nonce};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use hpke::aead::{Aead, AesGcm128, AesGcm256};
use hpke::kdf::{HkdfSha256, HkdfSha384, Kdf};
use hpke::kem::{Kem, X25519HkdfSha256, XWing};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use openmls::prelude::tls_codec::SecretVLBytes;
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::random::OpenMlsRand;
use openmls_traits::types::{
    AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeAeadType, HpkeCiphertext, HpkeConfig,
    HpkeKdfType, HpkeKemType, HpkeKeyPair, KemOutput, SignatureScheme,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Rng, SeedableRng};
use sha2::{Digest, Sha256, Sha384};
use zeroize::Zeroizing;

/// The algorithms, with the randomness of one step.
pub(crate) struct Crypto {
    /// OpenMLS asks for randomness through shared references, and from several threads.
    rng: Mutex<ChaCha20Rng>,
}

impl Crypto {
    /// Draws a seed from the step's generator.
    pub(crate) fn new(rng: &mut dyn CryptoRng) -> Crypto {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        Crypto { rng: Mutex::new(ChaCha20Rng::from_seed(*seed)) }
    }

    fn rng(&self) -> MutexGuard<'_, ChaCha20Rng> {
        // Nobody panics while it draws.
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A combination of algorithms that is none of ours.
const UNKNOWN: CryptoError = CryptoError::UnsupportedCiphersuite;

impl OpenMlsCrypto for Crypto {
    fn supports(&self, suite: Ciphersuite) -> Result<(), CryptoError> {
        if self.supported_ciphersuites().contains(&suite) { Ok(()) } else { Err(UNKNOWN) }
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        vec![
            Ciphersuite::MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519,
            Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
        ]
    }

    fn hkdf_extract(&self, hash: HashType, salt: &[u8], ikm: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        match hash {
            HashType::Sha2_256 => Ok(Hkdf::<Sha256>::extract(Some(salt), ikm).0.as_slice().into()),
            HashType::Sha2_384 => Ok(Hkdf::<Sha384>::extract(Some(salt), ikm).0.as_slice().into()),
            HashType::Sha2_512 => Err(UNKNOWN),
        }
    }

    fn hmac(&self, hash: HashType, key: &[u8], message: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        fn of<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Result<SecretVLBytes, CryptoError> {
            let mac = <M as KeyInit>::new_from_slice(key).map_err(|_| CryptoError::InvalidLength)?;
            Ok(mac.chain_update(message).finalize().into_bytes().as_slice().into())
        }
        match hash {
            HashType::Sha2_256 => of::<Hmac<Sha256>>(key, message),
            HashType::Sha2_384 => of::<Hmac<Sha384>>(key, message),
            HashType::Sha2_512 => Err(UNKNOWN),
        }
    }

    fn hkdf_expand(
        &self,
        hash: HashType,
        prk: &[u8],
        info: &[u8],
        length: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        let mut okm = vec![0; length];
        let wrong = CryptoError::HkdfOutputLengthInvalid;
        match hash {
            HashType::Sha2_256 => Hkdf::<Sha256>::from_prk(prk).map_err(|_| wrong)?.expand(info, &mut okm),
            HashType::Sha2_384 => Hkdf::<Sha384>::from_prk(prk).map_err(|_| wrong)?.expand(info, &mut okm),
            HashType::Sha2_512 => return Err(UNKNOWN),
        }
        .map_err(|_| wrong)?;
        Ok(okm.into())
    }

    fn hash(&self, hash: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match hash {
            HashType::Sha2_256 => Ok(Sha256::digest(data).to_vec()),
            HashType::Sha2_384 => Ok(Sha384::digest(data).to_vec()),
            HashType::Sha2_512 => Err(UNKNOWN),
        }
    }

    fn aead_encrypt(
        &self,
        aead: AeadType,
        key: &[u8],
        msg: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let length = CryptoError::InvalidLength;
        let nonce: Nonce<_> = <[u8; 12]>::try_from(nonce).map_err(|_| length)?.into();
        match aead {
            AeadType::Aes128Gcm => {
                Aes128Gcm::new_from_slice(key).map_err(|_| length)?.encrypt(&nonce, Payload { msg, aad })
            }
            AeadType::Aes256Gcm => {
                Aes256Gcm::new_from_slice(key).map_err(|_| length)?.encrypt(&nonce, Payload { msg, aad })
            }
            AeadType::ChaCha20Poly1305 => return Err(UNKNOWN),
        }
        .map_err(|_| CryptoError::CryptoLibraryError)
    }

    fn aead_decrypt(
        &self,
        aead: AeadType,
        key: &[u8],
        msg: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let length = CryptoError::InvalidLength;
        let nonce: Nonce<_> = <[u8; 12]>::try_from(nonce).map_err(|_| length)?.into();
        match aead {
            AeadType::Aes128Gcm => {
                Aes128Gcm::new_from_slice(key).map_err(|_| length)?.decrypt(&nonce, Payload { msg, aad })
            }
            AeadType::Aes256Gcm => {
                Aes256Gcm::new_from_slice(key).map_err(|_| length)?.decrypt(&nonce, Payload { msg, aad })
            }
            AeadType::ChaCha20Poly1305 => return Err(UNKNOWN),
        }
        .map_err(|_| CryptoError::AeadDecryptionError)
    }

    fn signature_key_gen(&self, scheme: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        if scheme != SignatureScheme::ED25519 {
            return Err(CryptoError::UnsupportedSignatureScheme);
        }
        let mut seed = Zeroizing::new([0; 32]);
        self.rng().fill_bytes(&mut *seed);
        let key = SigningKey::from_bytes(&seed);
        Ok((seed.to_vec(), key.verifying_key().to_bytes().to_vec()))
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        data: &[u8],
        key: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        if scheme != SignatureScheme::ED25519 {
            return Err(CryptoError::UnsupportedSignatureScheme);
        }
        let key = VerifyingKey::try_from(key).map_err(|_| CryptoError::InvalidPublicKey)?;
        let signature = Signature::from_slice(signature).map_err(|_| CryptoError::InvalidSignature)?;
        key.verify_strict(data, &signature).map_err(|_| CryptoError::InvalidSignature)
    }

    fn sign(&self, scheme: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if scheme != SignatureScheme::ED25519 {
            return Err(CryptoError::UnsupportedSignatureScheme);
        }
        let key = SigningKey::try_from(key).map_err(|_| CryptoError::InvalidLength)?;
        Ok(key.sign(data).to_bytes().to_vec())
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        key: &[u8],
        info: &[u8],
        aad: &[u8],
        text: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        match suite(config)? {
            Hpke::Hybrid => seal::<AesGcm256, HkdfSha384, XWing>(&mut self.rng(), key, info, aad, text),
            Hpke::Classical => seal::<AesGcm128, HkdfSha256, X25519HkdfSha256>(&mut self.rng(), key, info, aad, text),
        }
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        sealed: &HpkeCiphertext,
        key: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        match suite(config)? {
            Hpke::Hybrid => open::<AesGcm256, HkdfSha384, XWing>(sealed, key, info, aad),
            Hpke::Classical => open::<AesGcm128, HkdfSha256, X25519HkdfSha256>(sealed, key, info, aad),
        }
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        key: &[u8],
        info: &[u8],
        context: &[u8],
        length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        match suite(config)? {
            Hpke::Hybrid => export_sending::<AesGcm256, HkdfSha384, XWing>(&mut self.rng(), key, info, context, length),
            Hpke::Classical => {
                export_sending::<AesGcm128, HkdfSha256, X25519HkdfSha256>(&mut self.rng(), key, info, context, length)
            }
        }
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        encapsulated: &[u8],
        key: &[u8],
        info: &[u8],
        context: &[u8],
        length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        match suite(config)? {
            Hpke::Hybrid => export_receiving::<AesGcm256, HkdfSha384, XWing>(encapsulated, key, info, context, length),
            Hpke::Classical => {
                export_receiving::<AesGcm128, HkdfSha256, X25519HkdfSha256>(encapsulated, key, info, context, length)
            }
        }
    }

    fn derive_hpke_keypair(&self, config: HpkeConfig, ikm: &[u8]) -> Result<HpkeKeyPair, CryptoError> {
        Ok(match suite(config)? {
            Hpke::Hybrid => key_pair::<XWing>(ikm),
            Hpke::Classical => key_pair::<X25519HkdfSha256>(ikm),
        })
    }
}

impl OpenMlsRand for Crypto {
    type Error = std::convert::Infallible;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], Self::Error> {
        let mut bytes = [0; N];
        self.rng().fill_bytes(&mut bytes);
        Ok(bytes)
    }

    fn random_vec(&self, length: usize) -> Result<Vec<u8>, Self::Error> {
        let mut bytes = vec![0; length];
        self.rng().fill_bytes(&mut bytes);
        Ok(bytes)
    }
}

/// The HPKE halves of the two suites.
enum Hpke {
    Hybrid,
    Classical,
}

fn suite(HpkeConfig(kem, kdf, aead): HpkeConfig) -> Result<Hpke, CryptoError> {
    match (kem, kdf, aead) {
        // OpenMLS names an old draft; its code point on the wire, 0x647a, is that of draft-ietf-hpke-pq.
        (HpkeKemType::XWingKemDraft6, HpkeKdfType::HkdfSha384, HpkeAeadType::AesGcm256) => Ok(Hpke::Hybrid),
        (HpkeKemType::DhKem25519, HpkeKdfType::HkdfSha256, HpkeAeadType::AesGcm128) => Ok(Hpke::Classical),
        _ => Err(UNKNOWN),
    }
}

fn public<K: Kem>(key: &[u8]) -> Result<K::PublicKey, CryptoError> {
    K::PublicKey::from_bytes(key).map_err(|_| CryptoError::InvalidPublicKey)
}

fn private<K: Kem>(key: &[u8]) -> Result<K::PrivateKey, CryptoError> {
    K::PrivateKey::from_bytes(key).map_err(|_| CryptoError::InvalidLength)
}

fn seal<A: Aead, D: Kdf, K: Kem>(
    rng: &mut ChaCha20Rng,
    key: &[u8],
    info: &[u8],
    aad: &[u8],
    text: &[u8],
) -> Result<HpkeCiphertext, CryptoError> {
    let sealed = hpke::single_shot_seal_with_rng::<A, D, K>(&OpModeS::Base, &public::<K>(key)?, info, text, aad, rng);
    let (encapsulated, ciphertext) = sealed.map_err(|_| CryptoError::HpkeEncryptionError)?;
    Ok(HpkeCiphertext { kem_output: encapsulated.to_bytes().to_vec().into(), ciphertext: ciphertext.into() })
}

fn open<A: Aead, D: Kdf, K: Kem>(
    sealed: &HpkeCiphertext,
    key: &[u8],
    info: &[u8],
    aad: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let refused = CryptoError::HpkeDecryptionError;
    let encapsulated = K::EncappedKey::from_bytes(sealed.kem_output.as_slice()).map_err(|_| refused)?;
    let text = sealed.ciphertext.as_slice();
    hpke::single_shot_open::<A, D, K>(&OpModeR::Base, &private::<K>(key)?, &encapsulated, info, text, aad)
        .map_err(|_| refused)
}

fn export_sending<A: Aead, D: Kdf, K: Kem>(
    rng: &mut ChaCha20Rng,
    key: &[u8],
    info: &[u8],
    context: &[u8],
    length: usize,
) -> Result<(KemOutput, ExporterSecret), CryptoError> {
    let refused = CryptoError::HpkeEncryptionError;
    let set_up = hpke::setup_sender_with_rng::<A, D, K>(&OpModeS::Base, &public::<K>(key)?, info, rng);
    let (encapsulated, sender) = set_up.map_err(|_| refused)?;
    let mut secret = vec![0; length];
    sender.export(context, &mut secret).map_err(|_| refused)?;
    Ok((encapsulated.to_bytes().to_vec(), secret.into()))
}

fn export_receiving<A: Aead, D: Kdf, K: Kem>(
    encapsulated: &[u8],
    key: &[u8],
    info: &[u8],
    context: &[u8],
    length: usize,
) -> Result<ExporterSecret, CryptoError> {
    let refused = CryptoError::HpkeDecryptionError;
    let encapsulated = K::EncappedKey::from_bytes(encapsulated).map_err(|_| refused)?;
    let set_up = hpke::setup_receiver::<A, D, K>(&OpModeR::Base, &private::<K>(key)?, &encapsulated, info);
    let mut secret = vec![0; length];
    set_up.map_err(|_| refused)?.export(context, &mut secret).map_err(|_| refused)?;
    Ok(secret.into())
}

fn key_pair<K: Kem>(ikm: &[u8]) -> HpkeKeyPair {
    let (private, public) = K::derive_keypair(ikm);
    HpkeKeyPair { private: private.to_bytes().to_vec().into(), public: public.to_bytes().to_vec() }
}

#[cfg(test)]
mod tests {
    use openmls_rust_crypto::RustCrypto;

    use super::*;

    fn ours() -> Crypto {
        Crypto::new(&mut ChaCha20Rng::seed_from_u64(1))
    }

    /// C14: what another provider seals this one opens, and the other way round. Key pairs are made by each side for
    /// itself: in the hybrid suite the two follow different drafts there (docs/decisions/0010).
    #[test]
    fn hpke_agrees_with_openmls_rust_crypto() {
        let theirs = RustCrypto::default();
        for suite in ours().supported_ciphersuites() {
            let config = || suite.hpke_config();
            let a = ours().derive_hpke_keypair(config(), &[7; 64]).unwrap();
            let b = theirs.derive_hpke_keypair(config(), &[7; 64]).unwrap();
            let sealed = ours().hpke_seal(config(), &b.public, b"info", b"aad", b"text").unwrap();
            assert_eq!(theirs.hpke_open(config(), &sealed, &b.private, b"info", b"aad").unwrap(), b"text");
            let sealed = theirs.hpke_seal(config(), &a.public, b"info", b"aad", b"text").unwrap();
            assert_eq!(ours().hpke_open(config(), &sealed, &a.private, b"info", b"aad").unwrap(), b"text");
            assert!(ours().hpke_open(config(), &sealed, &a.private, b"info", b"other").is_err());
            let (kem, sent) = ours().hpke_setup_sender_and_export(config(), &b.public, b"info", b"x", 32).unwrap();
            let got = theirs.hpke_setup_receiver_and_export(config(), &kem, &b.private, b"info", b"x", 32).unwrap();
            assert_eq!(*sent, *got);
        }
    }

    #[test]
    fn the_rest_agrees_with_openmls_rust_crypto() {
        let theirs = RustCrypto::default();
        for hash in [HashType::Sha2_256, HashType::Sha2_384] {
            let (a, b) = (ours().hash(hash, b"data").unwrap(), theirs.hash(hash, b"data").unwrap());
            assert_eq!(a, b);
            let extracted = ours().hkdf_extract(hash, b"salt", b"ikm").unwrap();
            assert!(extracted == theirs.hkdf_extract(hash, b"salt", b"ikm").unwrap());
            let prk = extracted.as_slice();
            let expanded = ours().hkdf_expand(hash, prk, b"info", 100).unwrap();
            assert!(expanded == theirs.hkdf_expand(hash, prk, b"info", 100).unwrap());
            assert!(ours().hmac(hash, b"key", b"m").unwrap() == theirs.hmac(hash, b"key", b"m").unwrap());
        }
        for (aead, key) in [(AeadType::Aes128Gcm, &[1; 16][..]), (AeadType::Aes256Gcm, &[1; 32])] {
            let sealed = ours().aead_encrypt(aead, key, b"text", &[2; 12], b"aad").unwrap();
            assert_eq!(sealed, theirs.aead_encrypt(aead, key, b"text", &[2; 12], b"aad").unwrap());
            assert_eq!(ours().aead_decrypt(aead, key, &sealed, &[2; 12], b"aad").unwrap(), b"text");
            assert!(ours().aead_decrypt(aead, key, &sealed, &[2; 12], b"bad").is_err());
        }
        let (private, public) = ours().signature_key_gen(SignatureScheme::ED25519).unwrap();
        let signature = ours().sign(SignatureScheme::ED25519, b"data", &private).unwrap();
        assert!(theirs.verify_signature(SignatureScheme::ED25519, b"data", &public, &signature).is_ok());
        assert!(ours().verify_signature(SignatureScheme::ED25519, b"date", &public, &signature).is_err());
    }
}
