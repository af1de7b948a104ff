//! Conversations: MLS (RFC 9420) by OpenMLS behind a façade of our own. One suite, 0x004E
//! (MLKEM768-X25519, AES-256-GCM, SHA-384, Ed25519; draft-ietf-mls-pq-ciphersuites); the classical 0x0001 is there for
//! tests, and a device takes part in conversations of its own suite only.
//!
//! The rules of spec/conversations.md that need secrets are kept here: what a valid commit is (C2), who may commit what
//! (C7), how commits are sealed (C3). The order of things, which position a commit has and which one wins, is the
//! engine's.

mod crypto;
mod evidence;
mod group;
mod judge;
mod key_package;
mod leaf;
mod readd;
mod records;
#[cfg(test)]
mod tests;

use openmls_traits::OpenMlsProvider;
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::{Ciphersuite, SignatureScheme};
use rand_core::CryptoRng;

use self::crypto::Crypto;
use self::records::Storage;
use crate::DeviceSecrets;

pub use self::evidence::Evidence;
pub use self::group::{
    Changes, CommitError, Committed, Group, JoinError, Joined, Opened, OpenedError, Place, SealedError,
};
pub use self::judge::{Applied, InvalidCommit, Judged};
pub use self::key_package::{KeyPackageError, KeyPackageRef, ReceivedKeyPackage, make_key_package, welcomed};
pub use self::leaf::Member;
pub use self::readd::{make_readd, read_readd};
pub use self::records::{PageChange, Records, RecordsError};

/// The cipher suite of a device's conversations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Suite {
    /// 0x004E: hybrid, so that whoever breaks X25519 or ML-KEM alone gains nothing.
    #[default]
    Hybrid,
    /// 0x0001: for tests, where its speed counts and nothing is secret. No program of ours offers it.
    Classical,
}

impl Suite {
    fn of(ciphersuite: Ciphersuite) -> Option<Suite> {
        [Suite::Hybrid, Suite::Classical].into_iter().find(|suite| suite.ciphersuite() == ciphersuite)
    }

    fn ciphersuite(self) -> Ciphersuite {
        match self {
            Suite::Hybrid => Ciphersuite::MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519,
            Suite::Classical => Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
        }
    }
}

/// What an operation works with: the device, its records, and the randomness of this step.
pub struct Desk<'a> {
    /// The device's keys.
    pub secrets: &'a DeviceSecrets,
    /// Its records; what changes is in them afterwards.
    pub records: &'a mut Records,
    /// The step's generator.
    pub rng: &'a mut dyn CryptoRng,
}

impl Desk<'_> {
    fn provider(&mut self) -> Provider<'_> {
        Provider { crypto: Crypto::new(self.rng), storage: Storage(self.records.into()) }
    }

    /// The provider, and the device's signature.
    fn split(&mut self) -> (Provider<'_>, Signature<'_>) {
        let Desk { secrets, records, rng } = self;
        (Provider { crypto: Crypto::new(*rng), storage: Storage((&mut **records).into()) }, Signature(secrets))
    }
}

struct Provider<'a> {
    crypto: Crypto,
    storage: Storage<'a>,
}

impl<'a> OpenMlsProvider for Provider<'a> {
    type CryptoProvider = Crypto;
    type RandProvider = Crypto;
    type StorageProvider = Storage<'a>;

    fn storage(&self) -> &Storage<'a> {
        &self.storage
    }

    fn crypto(&self) -> &Crypto {
        &self.crypto
    }

    fn rand(&self) -> &Crypto {
        &self.crypto
    }
}

/// The device signs its leaves, commits and messages with its Ed25519 key (I1).
struct Signature<'a>(&'a DeviceSecrets);

impl Signer for Signature<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        // MLS's own labels stand in front (RFC 9420, SignWithLabel): no structure of ours passes for one of its.
        Ok(self.0.sign(payload).to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}
