//! Leaves: which device of which account one is, where it reads its inbox, and what every leaf of ours can do.

use openmls::prelude::{
    BasicCredential, Capabilities, Credential, CredentialType, CredentialWithKey, Extension, ExtensionType, Extensions,
    Lifetime, RequiredCapabilitiesExtension, UnknownExtension,
};
use openmls::prelude::{LeafNode, LeafNodeIndex};
use openmls_traits::random::OpenMlsRand;
use sealwire_keys::device_id;
use sealwire_wire::conversation::LeafData;
use sealwire_wire::{AccountId, DeviceId, InboxAddress};

use super::Suite;
use crate::DeviceSecrets;

/// The one extension type of ours, in leaves and in the group's context (C7). From MLS's range for private use.
pub(crate) const EXTENSION: u16 = 0xf5ea;
/// Of a credential: version, account, device.
const CREDENTIAL_VERSION: u8 = 1;
const CREDENTIAL_LENGTH: usize = 1 + 32 + 32;

/// A member: a device that is a leaf of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its place in the tree.
    pub leaf: u32,
    /// Whose device it says it is: the account log of that account has to say so too.
    pub account: AccountId,
    /// Which device: the hash of the key that it signs with.
    pub device: DeviceId,
    /// Where it reads Welcomes.
    pub inbox: InboxAddress,
}

impl Member {
    /// Reads a leaf.
    pub(crate) fn of(leaf: LeafNodeIndex, node: &LeafNode) -> Option<Member> {
        let (account, device) = read_credential(node.credential())?;
        // The leaf is signed by this key; what the device is called follows from it (E4).
        let key: [u8; 32] = node.signature_key().as_slice().try_into().ok()?;
        let data = LeafData::decode(&node.extensions().unknown(EXTENSION)?.0).ok()?;
        (device_id(&key) == device).then_some(Member { leaf: leaf.u32(), account, device, inbox: data.inbox })
    }
}

pub(crate) fn credential(secrets: &DeviceSecrets, account: AccountId) -> CredentialWithKey {
    let identity = [&[CREDENTIAL_VERSION][..], &account.0, &secrets.device_id().0].concat();
    CredentialWithKey {
        credential: BasicCredential::new(identity).into(),
        signature_key: secrets.key().to_bytes().to_vec().into(),
    }
}

fn read_credential(credential: &Credential) -> Option<(AccountId, DeviceId)> {
    let identity = BasicCredential::try_from(credential.clone()).ok()?;
    let identity: &[u8; CREDENTIAL_LENGTH] = identity.identity().try_into().ok()?;
    let (version, ids) = identity.split_first()?;
    let (account, device) = ids.split_at(32);
    (*version == CREDENTIAL_VERSION).then_some((AccountId::try_from(account).ok()?, DeviceId::try_from(device).ok()?))
}

/// What a leaf can do: one suite, our extension, and values that mean nothing, so that nobody comes to rely on a fixed
/// list (GREASE, RFC 9420 section 13.5).
pub(crate) fn capabilities(suite: Suite, rand: &impl OpenMlsRand) -> Capabilities {
    Capabilities::builder()
        .ciphersuites(vec![suite.ciphersuite()])
        // OpenMLS asks of a leaf that it names the extension of its key package, too.
        .extensions(vec![ExtensionType::Unknown(EXTENSION), ExtensionType::LastResort])
        .proposals(Vec::new())
        .credentials(vec![CredentialType::Basic])
        .with_grease(rand)
        .build()
}

/// What every member has to be able to do.
pub(crate) fn required() -> Extension {
    let extensions = [ExtensionType::Unknown(EXTENSION)];
    Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(&extensions, &[], &[CredentialType::Basic]))
}

pub(crate) fn own_extension(bytes: Vec<u8>) -> Extension {
    Extension::Unknown(EXTENSION, UnknownExtension(bytes))
}

pub(crate) fn leaf_extensions(inbox: InboxAddress) -> Extensions<LeafNode> {
    let data = LeafData { inbox, later: Default::default() };
    Extensions::single(own_extension(data.encode())).expect("an extension for private use may stand in a leaf")
}

/// The one lifetime of all leaves (C2): OpenMLS judges it by the system's clock, and clocks decide nothing here. How old a
/// key package is, whoever adds it judges.
pub(crate) fn lifetime() -> Lifetime {
    Lifetime::init(0, u64::MAX)
}
