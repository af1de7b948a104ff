//! The way back of a device that cannot follow its conversation any more (C10): a signed request with a key package, in
//! clear, which any member answers by a commit that removes the dead leaf and adds the new one.

use rand_core::CryptoRng;
use sealwire_keys::{DeviceKey, ReaddToBeSigned};
use sealwire_wire::conversation::ReaddBody;
use sealwire_wire::{AccountId, ConversationId, InboxAddress};

use super::{Desk, KeyPackageRef, ReceivedKeyPackage, RecordsError, Suite, make_key_package};

/// Makes a request, and the key package for it.
///
/// # Errors
/// [`RecordsError`] where a record could not be written.
pub fn make_readd(
    desk: &mut Desk<'_>,
    suite: Suite,
    conversation: ConversationId,
    account: AccountId,
    inbox: InboxAddress,
) -> Result<(KeyPackageRef, Vec<u8>), RecordsError> {
    let (reference, key_package) = make_key_package(desk, suite, account, inbox, false)?;
    let device = desk.secrets.device_id();
    let signed = ReaddToBeSigned::new(conversation, account, device, &key_package);
    let signature = desk.secrets.sign(&signed.encode());
    Ok((reference, ReaddBody { account, device, key_package, signature }.encode()))
}

/// Reads a request: the key package to add, whose device has signed for this conversation. `None` for anything else.
pub fn read_readd(
    suite: Suite,
    conversation: ConversationId,
    body: &[u8],
    rng: &mut dyn CryptoRng,
) -> Option<ReceivedKeyPackage> {
    let ReaddBody { account, device, key_package, signature } = ReaddBody::decode(body).ok()?;
    let package = ReceivedKeyPackage::check(suite, &key_package, rng).ok()?;
    let key = DeviceKey::parse(&package.key()?).ok()?;
    ReaddToBeSigned::new(conversation, account, device, &key_package).verify(&key, &signature).ok()?;
    (package.member.account == account && package.member.device == device).then_some(package)
}
