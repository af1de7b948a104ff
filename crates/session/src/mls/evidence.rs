//! What the leaves of a commit or of a group are judged by: the account logs of their accounts (C2).

use std::collections::BTreeMap;

use sealwire_keys::{AccountLog, Mode, SignedEntry};
use sealwire_wire::AccountId;
use sealwire_wire::conversation::{decode_logs, encode_logs};

use super::Member;

/// Verified account logs, by account.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Evidence(BTreeMap<AccountId, AccountLog>);

impl Evidence {
    /// Of these logs.
    pub fn of<'a>(logs: impl IntoIterator<Item = &'a AccountLog>) -> Evidence {
        Evidence(logs.into_iter().map(|log| (log.id(), log.clone())).collect())
    }

    /// Verifies each log. `None` if one does not verify, or if there are two of one account.
    pub(crate) fn verify(logs: Vec<Vec<Vec<u8>>>) -> Option<Evidence> {
        let mut verified = BTreeMap::new();
        for entries in logs {
            let log = AccountLog::verify(entries.into_iter().map(SignedEntry)).ok()?;
            if verified.insert(log.id(), log).is_some() {
                return None;
            }
        }
        Some(Evidence(verified))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Evidence> {
        Evidence::verify(decode_logs(bytes).ok()?)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encode_logs(&self.entries())
    }

    pub(crate) fn entries(&self) -> Vec<Vec<Vec<u8>>> {
        let entries = |log: &AccountLog| log.entries().iter().map(|entry| entry.0.clone()).collect();
        self.0.values().map(entries).collect()
    }

    /// An account's log.
    pub fn log(&self, account: AccountId) -> Option<&AccountLog> {
        self.0.get(&account)
    }

    /// All of them.
    pub fn logs(&self) -> impl Iterator<Item = &AccountLog> {
        self.0.values()
    }

    /// Whether a leaf is a device that its account lists, for conversations.
    pub fn vouches_for(&self, member: &Member) -> bool {
        let log = self.0.get(&member.account).filter(|log| !log.is_retired());
        log.and_then(|log| log.device(member.device)).is_some_and(|card| card.modes.contains(&Mode::Mls))
    }

    /// Whether it shows that a device is not one of its account any more. A log that is too old to list it shows nothing.
    pub fn disowns(&self, member: &Member) -> bool {
        self.0.get(&member.account).is_some_and(|log| log.is_retired() || log.is_revoked(member.device))
    }
}
