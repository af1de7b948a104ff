//! Key packages (K1): a device publishes its own, and whoever is logged in claims one of each device of an account.

use sealwire_store::{self as store, Operation, Outcome, Record};
use sealwire_wire::frame::{FromRelay, KeyPackage, RequestId};
use sealwire_wire::limits::{FRAME_MAX, KEY_PACKAGE_MAX};
use sealwire_wire::{AccountId, Code, DeviceId, InboxAddress};

use crate::append::explain;
use crate::connection::{Connection, Session, Waiting};
use crate::decision::Question;
use crate::records::{self, Account};

/// What a package costs in a frame beside its bytes: ids, lengths, tags.
const PACKAGE_OVERHEAD: usize = 80;

/// A publication that waits for the store.
pub(crate) struct Offering {
    request: RequestId,
    /// What comes next, once the account was seen to go on.
    put: Option<Operation>,
}

/// A claim that waits for the store.
pub(crate) struct Claiming {
    request: RequestId,
    /// Of which device alone; else of all but `by`, who claims.
    of: Option<DeviceId>,
    by: DeviceId,
    /// Whose package is being claimed; `None` while the account is asked for.
    device: Option<(DeviceId, InboxAddress)>,
    /// Whose come next, the last one first.
    left: Vec<(DeviceId, InboxAddress)>,
    packages: Vec<KeyPackage>,
}

impl Connection {
    pub(crate) fn publish_key_packages(
        &mut self,
        session: Session,
        request: RequestId,
        replace: bool,
        one_time: Vec<Vec<u8>>,
        last_resort: Option<Vec<u8>>,
    ) {
        if let Err(wait) = self.publishes.take(self.now) {
            return self.fail(Code::RateLimited, request, None, wait, "too many publications in a minute");
        }
        let device = session.proven.device;
        let put = Some(Operation::PutKeyPackages { device, replace, one_time, last_resort });
        let question = Question::Records(vec![records::key::<Account>(session.account.0)]);
        self.load(question, Waiting::Offer(Offering { request, put }));
    }

    /// Nobody claims of a retired account, so it keeps none.
    pub(crate) fn offer_loaded(&mut self, offering: Offering, found: &[Option<Record>]) {
        let Offering { request, put: Some(put) } = offering else { return self.damaged() };
        let Ok(Some(account)) = records::read::<Account>(found.first().and_then(Option::as_ref)) else {
            return self.damaged();
        };
        if account.value.retired.0 {
            return self.refuse_request(Code::Retired, request, "the account was retired");
        }
        self.store(put, Waiting::Offer(Offering { request, put: None }));
    }

    pub(crate) fn offer_stored(&mut self, offering: Offering, outcome: Outcome) {
        match outcome {
            Outcome::KeyPackagesPut => self.send(FromRelay::Done { request: offering.request }),
            Outcome::Refused(refusal) => {
                let (code, text) = explain(refusal);
                self.refuse_request(code, offering.request, text);
            }
            _ => self.damaged(),
        }
    }

    /// Of one device, or of all but the caller's own.
    pub(crate) fn claim_key_packages(
        &mut self,
        session: Session,
        request: RequestId,
        account: AccountId,
        device: Option<DeviceId>,
    ) {
        if let Err(wait) = self.claims.take(self.now) {
            return self.fail(Code::RateLimited, request, None, wait, "too many claims in a minute");
        }
        let (of, by) = (device, session.proven.device);
        let claiming = Claiming { request, of, by, device: None, left: Vec::new(), packages: Vec::new() };
        self.load(Question::Records(vec![records::key::<Account>(account.0)]), Waiting::Claim(claiming));
    }

    pub(crate) fn claim_loaded(&mut self, claiming: Claiming, found: &[Option<Record>]) {
        match records::read::<Account>(found.first().and_then(Option::as_ref)) {
            Ok(Some(account)) => {
                let mut left = if account.value.retired.0 { Vec::new() } else { account.value.devices() };
                left.retain(|(device, _)| claiming.of.map_or(*device != claiming.by, |of| *device == of));
                left.reverse();
                self.claim_next(Claiming { left, ..claiming });
            }
            Ok(None) => self.not_found(claiming.request),
            Err(_) => self.damaged(),
        }
    }

    pub(crate) fn claim_stored(&mut self, mut claiming: Claiming, outcome: Outcome) {
        let (Some((device, inbox)), Outcome::KeyPackageClaimed(claimed)) = (claiming.device, outcome) else {
            return self.damaged();
        };
        let package = |store::KeyPackage { bytes, is_last_resort }| KeyPackage { device, inbox, bytes, is_last_resort };
        claiming.packages.extend(claimed.map(package));
        self.claim_next(claiming);
    }

    /// One device after the other, as long as any package of the next one fits into the frame: what is claimed is gone,
    /// and has to reach the claimant.
    fn claim_next(&mut self, mut claiming: Claiming) {
        let bytes: usize = claiming.packages.iter().map(|package| package.bytes.len() + PACKAGE_OVERHEAD).sum();
        let has_room = bytes + KEY_PACKAGE_MAX + 2 * PACKAGE_OVERHEAD <= FRAME_MAX;
        match claiming.left.pop().filter(|_| has_room) {
            Some(next) => {
                claiming.device = Some(next);
                self.store(Operation::ClaimKeyPackage { device: next.0 }, Waiting::Claim(claiming));
            }
            None => {
                let Claiming { request, packages, .. } = claiming;
                self.send(FromRelay::KeyPackages { request, packages });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sealwire_wire::{InstanceId, Time};

    use super::*;
    use crate::{Decision, Input, Registration, Relay};

    /// HP-08: of an account with more devices than fit into a frame, no package is claimed that would not be told.
    #[test]
    fn what_is_claimed_fits_into_a_frame() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let relay = Arc::new(Relay::new("relay.example", key, InstanceId([1; 16]), Registration::Open));
        let (mut connection, _) = Connection::open(&relay, Time(0), [2; 32], None, None);
        let left = (0..40).map(|number| (DeviceId([number; 32]), InboxAddress([number; 16]))).collect();
        let by = DeviceId([99; 32]);
        let claiming = Claiming { request: u32::MAX, of: None, by, device: None, left, packages: Vec::new() };
        connection.claim_next(claiming);
        let mut decisions = connection.handle(Input::Tick, Time(0));
        for claimed in 0.. {
            let token = match &decisions[..] {
                [Decision::Store { token, .. }] => *token,
                [Decision::Send(frame @ FromRelay::KeyPackages { packages, .. })] => {
                    assert_eq!((packages.len(), claimed), (31, 31));
                    return assert_eq!(FromRelay::decode(&frame.encode()).as_ref(), Ok(frame));
                }
                other => panic!("{other:?}"),
            };
            let package = store::KeyPackage { bytes: vec![claimed; KEY_PACKAGE_MAX], is_last_resort: claimed > 20 };
            let result = Ok(Outcome::KeyPackageClaimed(Some(package)));
            decisions = connection.handle(Input::Stored { token, result }, Time(0));
        }
    }
}
