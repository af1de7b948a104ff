//! A device appends to its own account log, by compare-and-swap on the log's head (I3).

use sealwire_keys::{AccountError, SignedEntry};
use sealwire_store::{Operation, Outcome, Record, Refusal};
use sealwire_wire::Code;
use sealwire_wire::frame::{FromRelay, RequestId};

use crate::connection::{BUSY_RETRY_MS, Connection, SWAPS_MAX, Session, State, Waiting};
use crate::decision::Question;
use crate::records::{self, Account, InboxOwner, LogIn, Stored, bool8::Bool};

/// Entries that one connection may publish in a minute: each verifies the whole log.
pub(crate) const PUBLISHES_PER_MINUTE: u32 = 30;
/// An account log's bytes at this relay, so that `Found` fits into a frame.
const ACCOUNT_BYTES_MAX: usize = 192 * 1024;

/// An entry that waits for the store.
pub(crate) struct Publishing {
    request: RequestId,
    session: Session,
    entry: Vec<u8>,
    lost: u32,
    /// Whether the swap that is under way ends the RESTORED standing (N3).
    rotates: bool,
    /// Whether the account ends with it.
    retires: bool,
}

impl Connection {
    pub(crate) fn publish(&mut self, session: Session, request: RequestId, entry: Vec<u8>) {
        match self.publishes.take(self.now) {
            Ok(()) => {
                self.ask_for_account(Publishing { request, session, entry, lost: 0, rotates: false, retires: false })
            }
            Err(wait) => self.fail(Code::RateLimited, request, None, wait, "too many entries in a minute"),
        }
    }

    fn ask_for_account(&mut self, publishing: Publishing) {
        let session = &publishing.session;
        let question = Question::Records(vec![
            records::key::<Account>(session.account.0),
            records::key::<LogIn>(records::hint(session.proven.device)),
            records::key::<InboxOwner>(session.inbox.0),
        ]);
        self.load(question, Waiting::Publish(publishing));
    }

    pub(crate) fn publish_loaded(&mut self, mut publishing: Publishing, found: &[Option<Record>]) {
        let [account, log_in, inbox] = found else { return self.damaged() };
        let (Ok(Some(account)), Ok(log_in), Ok(Some(inbox))) = (
            records::read::<Account>(account.as_ref()),
            records::read::<LogIn>(log_in.as_ref()),
            records::read::<InboxOwner>(inbox.as_ref()),
        ) else {
            return self.damaged();
        };
        let is_restored = matches!(&self.state, State::Registered(session) if session.restored);
        let mut swaps = Vec::new();
        if account.value.holds(&publishing.entry) {
            // A repetition. On a restored connection it counts like the first time, if nothing came after it.
            let newest = account.value.newest() == publishing.entry;
            publishing.rotates = is_restored && newest && account.value.head().0 > 1 && !account.value.retired.0;
            if !publishing.rotates {
                return self.send(FromRelay::Done { request: publishing.request });
            }
        } else {
            match appended(&account.value, &publishing) {
                Ok(value) => {
                    publishing.rotates = is_restored && !value.retired.0;
                    publishing.retires = value.retired.0;
                    swaps = account_swaps(&publishing.session, &value, &account, &inbox);
                }
                Err((code, text)) => return self.refuse_request(code, publishing.request, &text),
            }
        }
        if publishing.rotates {
            let proven = publishing.session.proven;
            let version = log_in.map(|record| record.version);
            swaps.push(records::put(records::hint(proven.device), version, &self.taken(proven)));
        }
        if publishing.retires {
            // Before the entry: should that lose to another, a device without key packages publishes new ones.
            let device = publishing.session.proven.device;
            let none = Operation::PutKeyPackages { device, replace: true, one_time: Vec::new(), last_resort: None };
            self.store(none, Waiting::Retire);
        }
        self.store(Operation::Swap { records: swaps, inboxes: Vec::new() }, Waiting::Publish(publishing));
    }

    pub(crate) fn publish_stored(&mut self, publishing: Publishing, outcome: Outcome) {
        match outcome {
            Outcome::Swapped => {
                if let State::Registered(session) = &mut self.state {
                    session.restored &= !publishing.rotates;
                }
                self.send(FromRelay::Done { request: publishing.request });
            }
            Outcome::Refused(Refusal::VersionMoved { .. }) if publishing.lost < SWAPS_MAX => {
                self.ask_for_account(Publishing { lost: publishing.lost + 1, rotates: false, ..publishing });
            }
            _ => self.fail(Code::Busy, publishing.request, None, BUSY_RETRY_MS, "the account changes all the time"),
        }
    }
}

/// The account with the entry, or why not.
fn appended(account: &Account, publishing: &Publishing) -> Result<Account, (Code, String)> {
    let Ok(mut log) = account.log() else { return Err((Code::StoreFailed, "the account log is damaged".to_owned())) };
    log.append(SignedEntry(publishing.entry.clone())).map_err(|error| (code_of(error), error.to_string()))?;
    if log.device(publishing.session.proven.device).is_none() {
        return Err((Code::NotAllowed, "this device is not the account's any more".to_owned()));
    }
    let bytes: usize = log.entries().iter().map(|entry| entry.0.len()).sum();
    if bytes > ACCOUNT_BYTES_MAX {
        return Err((Code::TooLarge, "the account log is as long as it may be".to_owned()));
    }
    let mut account = account.clone();
    account.set_log(&log);
    Ok(account)
}

/// An account that retires closes its inbox in the same transaction. One device per account, one inbox.
fn account_swaps(
    session: &Session,
    value: &Account,
    account: &Stored<Account>,
    inbox: &Stored<InboxOwner>,
) -> Vec<sealwire_store::RecordSwap> {
    let mut swaps = vec![records::put(session.account.0, Some(account.version), value)];
    if value.retired.0 {
        let closed = InboxOwner { device: session.proven.device, retired: Bool(true) };
        swaps.push(records::put(session.inbox.0, Some(inbox.version), &closed));
    }
    swaps
}

fn code_of(error: AccountError) -> Code {
    match error {
        AccountError::NotNext => Code::HeadMoved,
        AccountError::Retired => Code::Retired,
        AccountError::TooLarge => Code::TooLarge,
        _ => Code::EntryRefused,
    }
}
