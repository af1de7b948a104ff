//! Look-ups (K1): by handle, account or device; one answer for whoever is not there.

use sealwire_store::Record;
use sealwire_wire::frame::{FromRelay, LookupBy, RequestId};
use sealwire_wire::handle::Name;
use sealwire_wire::{AccountId, Code};

use crate::connection::{Connection, Waiting};
use crate::decision::Question;
use crate::records::{self, Account, DeviceHintKey, DeviceOwner, HandleOwner};

/// A look-up that waits for the store.
pub(crate) struct LookingUp {
    request: RequestId,
    stage: Stage,
}

enum Stage {
    Handle(Name),
    Device,
    /// Where it was asked by handle, that handle and no look-alike must be the account's.
    Account(Option<Name>),
}

impl Connection {
    pub(crate) fn look_up(&mut self, request: RequestId, by: LookupBy) {
        if let Err(wait) = self.lookups.take(self.now) {
            return self.fail(Code::RateLimited, request, None, wait, "too many look-ups in a minute");
        }
        let (key, stage) = match by {
            LookupBy::Handle(handle) => match Name::parse(&handle) {
                Ok(name) => (records::key::<HandleOwner>(name.skeleton()), Stage::Handle(name)),
                Err(_) => return self.not_found(request),
            },
            LookupBy::Device(hint) => (records::key::<DeviceOwner>(DeviceHintKey(hint)), Stage::Device),
            LookupBy::Account(account) => (records::key::<Account>(account.0), Stage::Account(None)),
        };
        self.load(Question::Records(vec![key]), Waiting::LookUp(LookingUp { request, stage }));
    }

    pub(crate) fn look_up_loaded(&mut self, looking_up: LookingUp, found: &[Option<Record>]) {
        let LookingUp { request, stage } = looking_up;
        let record = found.first().and_then(Option::as_ref);
        match stage {
            Stage::Handle(name) => match records::read::<HandleOwner>(record) {
                Ok(Some(owner)) => self.look_up_account(request, owner.value.account, Some(name)),
                Ok(None) => self.not_found(request),
                Err(_) => self.damaged(),
            },
            Stage::Device => match records::read::<DeviceOwner>(record) {
                Ok(Some(owner)) => self.look_up_account(request, owner.value.account, None),
                Ok(None) => self.not_found(request),
                Err(_) => self.damaged(),
            },
            Stage::Account(name) => match records::read::<Account>(record) {
                Ok(Some(account)) if name.is_none_or(|name| name.as_str() == account.value.handle()) => {
                    self.send(FromRelay::Found {
                        request,
                        handle: account.value.handle(),
                        entries: account.value.entries(),
                        devices: account.value.devices(),
                    });
                }
                Ok(_) => self.not_found(request),
                Err(_) => self.damaged(),
            },
        }
    }

    fn look_up_account(&mut self, request: RequestId, account: AccountId, name: Option<Name>) {
        let question = Question::Records(vec![records::key::<Account>(account.0)]);
        self.load(question, Waiting::LookUp(LookingUp { request, stage: Stage::Account(name) }));
    }

    pub(crate) fn not_found(&mut self, request: RequestId) {
        self.refuse_request(Code::NotFound, request, "nobody here by that name");
    }
}
