//! Key packages: what a device publishes so that it can be added while it is away (C9).

use openmls::prelude::tls_codec::{DeserializeBytes, Serialize};
use openmls::prelude::{
    ExtensionType, KeyPackage, KeyPackageIn, LeafNodeIndex, MlsMessageBodyIn, MlsMessageIn, ProtocolVersion,
};
use openmls_traits::OpenMlsProvider;
use rand_core::CryptoRng;
use sealwire_wire::limits::KEY_PACKAGE_MAX;
use sealwire_wire::{AccountId, InboxAddress};

use super::crypto::Crypto;
use super::leaf::{EXTENSION, capabilities, credential, leaf_extensions, lifetime};
use super::{Desk, Member, Records, RecordsError, Suite, records};

/// A key package of this device: the key of the record that holds its private keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KeyPackageRef(pub Vec<u8>);

/// Why a key package of somebody else is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyPackageError {
    /// Not a key package, or not validly signed.
    #[error("not a key package")]
    Malformed,
    /// Of another cipher suite, or not able to do what members have to.
    #[error("the key package is for conversations of another kind")]
    Unsuitable,
}

/// A key package of somebody else, whose signatures hold. Whether its account lists that device is to be judged by the
/// account's log.
#[derive(Clone, Debug)]
pub struct ReceivedKeyPackage {
    pub(crate) package: KeyPackage,
    /// Whose it says it is. The leaf number means nothing yet.
    pub member: Member,
}

/// Makes one. The private keys are in the records.
///
/// # Errors
/// [`RecordsError`] where a record could not be written.
pub fn make_key_package(
    desk: &mut Desk<'_>,
    suite: Suite,
    account: AccountId,
    inbox: InboxAddress,
    is_last_resort: bool,
) -> Result<(KeyPackageRef, Vec<u8>), RecordsError> {
    let credential = credential(desk.secrets, account);
    let (provider, signer) = desk.split();
    let mut builder = KeyPackage::builder()
        .key_package_lifetime(lifetime())
        .leaf_node_capabilities(capabilities(suite, provider.rand()))
        .leaf_node_extensions(leaf_extensions(inbox));
    if is_last_resort {
        builder = builder.mark_as_last_resort();
    }
    let bundle =
        builder.build(suite.ciphersuite(), &provider, &signer, credential).map_err(|_| RecordsError::Damaged)?;
    let package = bundle.key_package();
    let reference = package.hash_ref(provider.crypto()).map_err(|_| RecordsError::Damaged)?;
    let bytes = package.tls_serialize_detached().map_err(|_| RecordsError::Damaged)?;
    Ok((KeyPackageRef(records::key_package_key(&reference)?), bytes))
}

impl ReceivedKeyPackage {
    /// Reads one and checks its signatures.
    ///
    /// # Errors
    /// [`KeyPackageError`].
    pub fn check(suite: Suite, bytes: &[u8], rng: &mut dyn CryptoRng) -> Result<ReceivedKeyPackage, KeyPackageError> {
        if bytes.len() > KEY_PACKAGE_MAX {
            return Err(KeyPackageError::Malformed);
        }
        let package = KeyPackageIn::tls_deserialize_exact_bytes(bytes).map_err(|_| KeyPackageError::Malformed)?;
        let package =
            package.validate(&Crypto::new(rng), ProtocolVersion::Mls10).map_err(|_| KeyPackageError::Malformed)?;
        let node = package.leaf_node();
        let member = Member::of(LeafNodeIndex::new(0), node).ok_or(KeyPackageError::Unsuitable)?;
        let can = node.capabilities().extensions().contains(&ExtensionType::Unknown(EXTENSION));
        if package.ciphersuite() != suite.ciphersuite() || !can || *package.life_time() != lifetime() {
            return Err(KeyPackageError::Unsuitable);
        }
        Ok(ReceivedKeyPackage { package, member })
    }
}

impl ReceivedKeyPackage {
    /// The key that its device signs with.
    pub(crate) fn key(&self) -> Option<[u8; 32]> {
        self.package.leaf_node().signature_key().as_slice().try_into().ok()
    }
}

/// The key packages that a Welcome was made for; none where it is no Welcome.
pub fn welcomed(welcome: &[u8]) -> Vec<KeyPackageRef> {
    let Ok(message) = MlsMessageIn::tls_deserialize_exact_bytes(welcome) else { return Vec::new() };
    let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { return Vec::new() };
    let keys = welcome.secrets().iter().filter_map(|secrets| records::key_package_key(&secrets.new_member()).ok());
    keys.map(KeyPackageRef).collect()
}

impl Records {
    /// Forgets a key package's private keys: a Welcome to it cannot be opened any more.
    pub fn forget_key_package(&mut self, KeyPackageRef(key): &KeyPackageRef) {
        self.put(key.clone(), None);
    }
}
