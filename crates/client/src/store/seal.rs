//! What is sealed, under which key, and under which name it lies on the disk.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sealwire_engine::Table;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::StoreError;

/// What is sealed as a record, and how, has not changed since layout 1.
const RECORD_FORM: u32 = 1;

pub(super) struct StoreKeys {
    pub(super) seal: Aes256Gcm,
    names: Zeroizing<[u8; 32]>,
}

/// A record's key, as the engine knows it, and its value.
pub(super) type KeyAndValue = (Vec<u8>, Zeroizing<Vec<u8>>);

impl StoreKeys {
    pub(super) fn derive(store_key: &[u8]) -> StoreKeys {
        let hkdf = Hkdf::<Sha256>::new(None, store_key);
        let subkey = |info: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            hkdf.expand(info, &mut *key).expect("32 bytes are within HKDF's 255 * 32");
            key
        };
        let seal = Aes256Gcm::new_from_slice(&*subkey(b"sealwire/store/v1/seal")).expect("32 bytes are a key");
        StoreKeys { seal, names: subkey(b"sealwire/store/v1/names") }
    }

    /// The name of a record on disk. Numbers keep their order and say nothing; ids are hidden behind a keyed hash.
    pub(super) fn name(&self, table: Table, key: &[u8]) -> Vec<u8> {
        let hidden = |part: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(&*self.names).expect("HMAC takes keys of any length");
            mac.update(&[table as u8]);
            mac.update(part);
            mac.finalize().into_bytes()[..16].to_vec()
        };
        match table {
            Table::Outgoing | Table::Sent | Table::Unshown | Table::Held | Table::Quarantine => key.to_vec(),
            Table::Message => {
                let (account, number) = key.split_at(key.len().min(32));
                [&hidden(account)[..], number].concat()
            }
            _ => hidden(key),
        }
    }
}

/// IV, then AES-256-GCM of key and value; associated data: the form of a record, table, name.
pub(super) fn seal_record(cipher: &Aes256Gcm, table: Table, name: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut plain = Zeroizing::new(Vec::with_capacity(2 + key.len() + value.len()));
    plain.extend_from_slice(&(key.len() as u16).to_be_bytes());
    plain.extend_from_slice(key);
    plain.extend_from_slice(value);
    seal(cipher, &associated_data(table, name), &plain)
}

pub(super) fn open_record(
    cipher: &Aes256Gcm,
    table: Table,
    name: &[u8],
    sealed: &[u8],
) -> Result<KeyAndValue, StoreError> {
    let damaged = StoreError::Damaged("a record does not open");
    let Some(plain) = unseal(cipher, &associated_data(table, name), sealed) else { return Err(damaged) };
    let Some((length, rest)) = plain.split_first_chunk::<2>() else { return Err(damaged) };
    let Some((key, value)) = rest.split_at_checked(u16::from_be_bytes(*length) as usize) else {
        return Err(damaged);
    };
    Ok((key.to_vec(), Zeroizing::new(value.to_vec())))
}

fn associated_data(table: Table, name: &[u8]) -> Vec<u8> {
    [&RECORD_FORM.to_be_bytes()[..], &[table as u8], name].concat()
}

/// IV, ciphertext, tag.
pub(super) fn seal(cipher: &Aes256Gcm, associated: &[u8], plain: &[u8]) -> Vec<u8> {
    let iv = random::<12>();
    let mut sealed = Vec::with_capacity(iv.len() + plain.len() + 16);
    sealed.extend_from_slice(&iv);
    sealed.extend_from_slice(plain);
    let tag = cipher
        .encrypt_inout_detached(&Nonce::from(iv), associated, (&mut sealed[iv.len()..]).into())
        .expect("what is stored is far below AES-GCM's length limit");
    sealed.extend_from_slice(&tag);
    sealed
}

pub(super) fn unseal(cipher: &Aes256Gcm, associated: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (iv, sealed) = sealed.split_first_chunk::<12>()?;
    let mut plain = sealed.to_vec();
    cipher.decrypt_in_place(&Nonce::from(*iv), associated, &mut plain).ok()?;
    Some(Zeroizing::new(plain))
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
