//! A device appends to its own account log, by compare-and-swap on the log's head (I3).

use sealwire_keys::{AccountError, SignedEntry};
use sealwire_store::{Operation, Outcome, Record, Refusal};
use sealwire_wire::frame::{FromRelay, RequestId};
use sealwire_wire::{Code, DeviceId, InboxAddress};

use crate::connection::{BUSY_RETRY_MS, Connection, SWAPS_MAX, Session, State, Waiting};
use crate::decision::{Decision, Question};
use crate::records::{self, Account, DeviceOwner, InboxOwner, LogIn, bool8::Bool};

/// Entries that one connection may publish in a minute: each verifies the whole log.
pub(crate) const PUBLISHES_PER_MINUTE: u32 = 30;
/// An account log's bytes at this relay, so that `Found` fits into a frame.
const ACCOUNT_BYTES_MAX: usize = 192 * 1024;

/// An entry that waits for the store.
pub(crate) struct Publishing {
    request: RequestId,
    session: Session,
    entry: Vec<u8>,
    /// Where the device that it adds is written to.
    inbox: Option<InboxAddress>,
    lost: u32,
    /// Whether the swap that is under way ends the RESTORED standing (N3).
    rotates: bool,
    /// Whether the account ends with it.
    retires: bool,
    /// Devices that are the account's no more with it, once that is known: their inboxes close in the same transaction.
    closes: Vec<(DeviceId, InboxAddress)>,
}

impl Connection {
    pub(crate) fn publish(
        &mut self,
        session: Session,
        request: RequestId,
        entry: Vec<u8>,
        inbox: Option<InboxAddress>,
    ) {
        match self.publishes.take(self.now) {
            Ok(()) => {
                let closes = Vec::new();
                self.ask_for_account(Publishing {
                    request,
                    session,
                    entry,
                    inbox,
                    lost: 0,
                    rotates: false,
                    retires: false,
                    closes,
                });
            }
            Err(wait) => self.fail(Code::RateLimited, request, None, wait, "too many entries in a minute"),
        }
    }

    fn ask_for_account(&mut self, publishing: Publishing) {
        let session = &publishing.session;
        let mut keys = vec![
            records::key::<Account>(session.account.0),
            records::key::<LogIn>(records::hint(session.proven.device)),
        ];
        keys.extend(publishing.closes.iter().map(|(_, inbox)| records::key::<InboxOwner>(inbox.0)));
        self.load(Question::Records(keys), Waiting::Publish(publishing));
    }

    pub(crate) fn publish_loaded(&mut self, mut publishing: Publishing, found: &[Option<Record>]) {
        let [account, log_in, inboxes @ ..] = found else { return self.damaged() };
        let inboxes: Result<Vec<_>, _> =
            inboxes.iter().map(|inbox| records::read::<InboxOwner>(inbox.as_ref())).collect();
        let (Ok(Some(account)), Ok(log_in), Ok(inboxes)) =
            (records::read::<Account>(account.as_ref()), records::read::<LogIn>(log_in.as_ref()), inboxes)
        else {
            return self.damaged();
        };
        let is_restored = matches!(&self.state, State::Registered(session) if session.restored);
        let (mut swaps, mut new_inboxes) = (Vec::new(), Vec::new());
        if account.value.holds(&publishing.entry) {
            // A repetition. On a restored connection it counts like the first time, if nothing came after it.
            let newest = account.value.newest() == publishing.entry;
            publishing.rotates = is_restored && newest && account.value.head().0 > 1 && !account.value.retired.0;
            if !publishing.rotates {
                return self.send(FromRelay::Done { request: publishing.request });
            }
        } else {
            let Appended { value, added, closes } = match appended(&account.value, &publishing) {
                Ok(appended) => appended,
                Err((code, text)) => return self.refuse_request(code, publishing.request, &text),
            };
            if closes.len() != inboxes.len() || closes != publishing.closes {
                // Now it is known whose inboxes close: what is stored of those belongs to the swap.
                publishing.closes = closes;
                return self.ask_for_account(publishing);
            }
            (publishing.rotates, publishing.retires) = (is_restored && !value.retired.0, value.retired.0);
            let account_id = publishing.session.account;
            swaps.push(records::put(account_id.0, Some(account.version), &value));
            for ((device, inbox), owner) in closes.into_iter().zip(inboxes) {
                let closed = InboxOwner { device, retired: Bool(true) };
                swaps.push(records::put(inbox.0, owner.map(|owner| owner.version), &closed));
            }
            if let Some((device, inbox)) = added {
                let owner = DeviceOwner { device, account: account_id };
                swaps.push(records::put(records::hint(device), None, &owner));
                swaps.push(records::put(inbox.0, None, &InboxOwner { device, retired: Bool(false) }));
                new_inboxes.push(inbox);
            }
        }
        if publishing.rotates {
            let proven = publishing.session.proven;
            let version = log_in.map(|record| record.version);
            swaps.push(records::put(records::hint(proven.device), version, &self.taken(proven)));
        }
        for (device, _) in publishing.closes.clone() {
            // Before the entry: should that lose to another, a device without key packages publishes new ones.
            let none = Operation::PutKeyPackages { device, replace: true, one_time: Vec::new(), last_resort: None };
            self.store(none, Waiting::Retire);
        }
        let swap = Operation::Swap { records: swaps, inboxes: new_inboxes };
        self.store(swap, Waiting::Publish(publishing));
    }

    pub(crate) fn publish_stored(&mut self, publishing: Publishing, outcome: Outcome) {
        match outcome {
            Outcome::Swapped => {
                if let State::Registered(session) = &mut self.state {
                    session.restored &= !publishing.rotates;
                }
                self.send(FromRelay::Done { request: publishing.request });
                // Authority is checked on every verb (N2), and theirs has ended. Who ends the account may still say so to others.
                let own = publishing.session.proven.device;
                let is_gone = |device: DeviceId| device != own || !publishing.retires;
                let gone = publishing.closes.iter().map(|(device, _)| *device).filter(|device| is_gone(*device));
                gone.for_each(|device| self.decide(Decision::Expel(device)));
            }
            Outcome::Refused(Refusal::VersionMoved { .. }) if publishing.lost < SWAPS_MAX => {
                self.ask_for_account(Publishing { lost: publishing.lost + 1, rotates: false, ..publishing });
            }
            Outcome::Refused(Refusal::InboxExists) => {
                self.refuse_request(Code::NotAllowed, publishing.request, "the inbox has another owner");
            }
            _ => self.fail(Code::Busy, publishing.request, None, BUSY_RETRY_MS, "the account changes all the time"),
        }
    }
}

/// What an entry makes of an account.
struct Appended {
    value: Account,
    added: Option<(DeviceId, InboxAddress)>,
    closes: Vec<(DeviceId, InboxAddress)>,
}

/// The account with the entry, or why not.
fn appended(account: &Account, publishing: &Publishing) -> Result<Appended, (Code, String)> {
    let Ok(mut log) = account.log() else { return Err((Code::StoreFailed, "the account log is damaged".to_owned())) };
    log.append(SignedEntry(publishing.entry.clone())).map_err(|error| (code_of(error), error.to_string()))?;
    let bytes: usize = log.entries().iter().map(|entry| entry.0.len()).sum();
    if bytes > ACCOUNT_BYTES_MAX {
        return Err((Code::TooLarge, "the account log is as long as it may be".to_owned()));
    }
    let mut value = account.clone();
    let new = log.devices().map(|card| card.key.device_id()).find(|device| account.inbox_of(*device).is_none());
    let added = match (new, publishing.inbox) {
        (Some(device), Some(inbox)) => Some((device, inbox)),
        (None, None) => None,
        _ => return Err((Code::Malformed, "an inbox comes with the device that it is for".to_owned())),
    };
    let is_closed = |(device, _): &(DeviceId, InboxAddress)| log.is_retired() || log.device(*device).is_none();
    let closes = account.devices().into_iter().filter(is_closed).collect();
    value.set_log(&log);
    value.set_devices(&log, added);
    Ok(Appended { value, added, closes })
}

fn code_of(error: AccountError) -> Code {
    match error {
        AccountError::NotNext => Code::HeadMoved,
        AccountError::Retired => Code::Retired,
        AccountError::TooLarge => Code::TooLarge,
        _ => Code::EntryRefused,
    }
}
