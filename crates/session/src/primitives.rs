//! The primitives of direct mode, each behind one function, so that what the test vectors of others check is what runs.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// The length of a tag in bytes.
pub(crate) const TAG: usize = 16;

/// A tag that does not verify. Says no more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rejected;

/// AES-256-GCM (NIST SP 800-38D) with a 96-bit IV and a 128-bit tag.
pub(crate) struct Cipher(Aes256Gcm);

impl Cipher {
    pub(crate) fn new(key: &[u8; 32]) -> Cipher {
        Cipher(Aes256Gcm::new(key.into()))
    }

    /// Replaces a plaintext by its ciphertext, and gives the tag. Far below the 64 GiB that one call may take.
    pub(crate) fn seal(&self, iv: [u8; 12], associated: &[u8], message: &mut [u8]) -> [u8; TAG] {
        self.0
            .encrypt_inout_detached(&Nonce::from(iv), associated, message.into())
            .expect("a message is far below AES-GCM's length limit")
            .into()
    }

    /// Replaces a ciphertext by the plaintext if the tag is right; else what it holds means nothing.
    pub(crate) fn open(
        &self,
        iv: [u8; 12],
        associated: &[u8],
        message: &mut [u8],
        tag: [u8; TAG],
    ) -> Result<(), Rejected> {
        self.0
            .decrypt_inout_detached(&Nonce::from(iv), associated, message.into(), &Tag::from(tag))
            .map_err(|_| Rejected)
    }
}

/// HKDF with SHA-256 and without salt (RFC 5869): what the input is bound to is in `info`.
pub(crate) fn derive<const N: usize>(input: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
    let mut output = Zeroizing::new([0; N]);
    Hkdf::<Sha256>::new(None, input).expand(info, &mut *output).expect("at most 255 * 32 bytes are derived");
    output
}
