//! The two halves of a hybrid private key, apart, and HPKE with them: by hand from draft-connolly-cfrg-xwing-kem (sections
//! 5.2 to 5.4) and RFC 9180 (section 5.1), since nobody offers a decapsulation with half a key.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use ml_kem::FromSeed;
use ml_kem::kem::Decapsulate;
use sha2::Sha384;
use sha3::{Digest, Sha3_256};
use shake::{ExtendableOutput, Shake256, Update, XofReader};

/// A private key in halves: of X25519, 32 bytes, and the seed of ML-KEM-768's, 64.
pub(super) fn halves(private: &[u8]) -> ([u8; 32], [u8; 64]) {
    assert_eq!(private.len(), 32);
    let mut expanded = [0; 96];
    let mut shake = Shake256::default();
    shake.update(private);
    shake.finalize_xof().read(&mut expanded);
    (expanded[64..].try_into().unwrap(), expanded[..64].try_into().unwrap())
}

/// Opens what was sealed to a hybrid key, with its halves one behind the other.
pub(super) fn open_with_halves(
    encapsulated: &[u8],
    ciphertext: &[u8],
    halves: &[u8],
    info: &[u8],
    aad: &[u8],
) -> Option<Vec<u8>> {
    let (x25519, ml_kem) = halves.split_first_chunk::<32>()?;
    let ml_kem: [u8; 64] = ml_kem.try_into().ok()?;
    let (sealed_m, sealed_x) = encapsulated.split_last_chunk::<32>()?;
    let (of_ml_kem, _) = ml_kem::MlKem768::from_seed(&ml_kem.into());
    let shared_m = of_ml_kem.decapsulate(&sealed_m.try_into().ok()?);
    let public_x = x25519_dalek::x25519(*x25519, x25519_dalek::X25519_BASEPOINT_BYTES);
    let shared_x = x25519_dalek::x25519(*x25519, *sealed_x);
    let parts = [&shared_m[..], &shared_x, sealed_x, &public_x, br"\.//^\"];
    let shared: [u8; 32] = Sha3_256::digest(parts.concat()).into();
    let (key, nonce) = key_schedule(&shared, info);
    let cipher = Aes256Gcm::new(&key.into());
    cipher.decrypt(&Nonce::from(nonce), Payload { msg: ciphertext, aad }).ok()
}

/// Of KEM 0x647a, HKDF-SHA384, AES-256-GCM, in base mode.
fn key_schedule(shared: &[u8], info: &[u8]) -> ([u8; 32], [u8; 12]) {
    const SUITE: &[u8] = b"HPKE\x64\x7a\x00\x02\x00\x02";
    let extract = |salt: &[u8], label: &[u8], ikm: &[u8]| {
        Hkdf::<Sha384>::extract(Some(salt), &[b"HPKE-v1", SUITE, label, ikm].concat())
    };
    let (psk_id, _) = extract(b"", b"psk_id_hash", b"");
    let (info, _) = extract(b"", b"info_hash", info);
    let context = [&[0][..], &psk_id, &info].concat();
    let (_, secret) = extract(shared, b"secret", b"");
    let expand = |label: &[u8], output: &mut [u8]| {
        let length = (output.len() as u16).to_be_bytes();
        secret.expand(&[&length[..], b"HPKE-v1", SUITE, label, &context].concat(), output).unwrap();
    };
    let (mut key, mut nonce) = ([0; 32], [0; 12]);
    expand(b"key", &mut key);
    expand(b"base_nonce", &mut nonce);
    (key, nonce)
}
