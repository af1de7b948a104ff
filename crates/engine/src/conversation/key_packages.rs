//! Key packages: others add this device with them while it is away (C9). The relay holds a hundred one-time ones and a
//! last-resort one.

use sealwire_session::mls::{KeyPackageRef, make_key_package};
use sealwire_wire::Time;
use sealwire_wire::frame::ToRelay;
use sealwire_wire::limits::{DAY_MS, KEY_PACKAGES_MAX};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use super::desk;
use crate::connection::Asked;
use crate::engine::Engine;
use crate::record::{self, Table};
use crate::step::Turn;

/// Below this share of what there should be, new ones are made.
const REPLENISH_BELOW: u32 = 2;
/// Key packages in one frame: hybrid ones have 2.7 KB.
const BATCH: u32 = 40;
/// Private keys of a key package that nobody has used are forgotten after this long: whoever claimed it has had 90 days.
const FORGOTTEN_MS: u64 = 90 * DAY_MS;

/// After this long all are replaced, the last-resort one too.
const RENEWED_MS: u64 = 60 * DAY_MS;

/// What is known of an own key package.
#[derive(Clone, Copy, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct KeyPackageRecord {
    /// When it was made; when it was replaced, if it was.
    pub(crate) made_at: Time,
    pub(crate) is_retired: u8,
    pub(crate) is_last_resort: u8,
}

impl Engine {
    /// After a log-in: the relay says how many one-time ones it has. `replace`: it may hold some whose private keys are
    /// lost.
    pub(crate) fn replenish_key_packages(&mut self, turn: &mut Turn<'_>, held: u32, replace: bool) {
        if !self.is_mls() {
            return;
        }
        let forgot_some = self.forget_old_key_packages(turn);
        let in_use = self.key_packages.values().filter(|known| known.is_retired == 0);
        let oldest = in_use.map(|known| known.made_at).min();
        let are_old = oldest.is_some_and(|oldest| turn.now.since(oldest) > RENEWED_MS);
        let has_last_resort =
            self.key_packages.values().any(|known| known.is_last_resort == 1 && known.is_retired == 0);
        // What the relay holds may be of a store that is lost, or about to be forgotten here.
        let replace = replace || forgot_some || are_old || !has_last_resort || self.own.lists_due;
        if replace {
            self.retire_key_packages(turn);
        }
        let full = self.own.key_packages.min(KEY_PACKAGES_MAX as u32);
        let held = if replace { 0 } else { held };
        if held * REPLENISH_BELOW >= full && !replace {
            return;
        }
        let mut missing = full.saturating_sub(held);
        let mut is_first = true;
        while missing > 0 || is_first {
            let count = missing.min(BATCH);
            let one_time: Vec<_> = (0..count).filter_map(|_| self.make_key_package(turn, false)).collect();
            let replace = replace && is_first;
            // A new last-resort one each time: the one before may have been used, or may never have reached the relay.
            let last_resort = is_first.then(|| self.make_last_resort(turn)).flatten();
            self.ask(turn, Asked::KeyPackages, |request| ToRelay::PublishKeyPackages {
                request,
                replace,
                one_time,
                last_resort,
            });
            missing -= count;
            is_first = false;
        }
    }

    /// The private keys are durable before the frame leaves.
    fn make_key_package(&mut self, turn: &mut Turn<'_>, is_last_resort: bool) -> Option<Vec<u8>> {
        let (suite, account, inbox) = (self.own.suite, self.log.id(), self.own.inbox);
        // Nothing fails: the records are in memory.
        let (KeyPackageRef(key), bytes) =
            make_key_package(&mut desk!(self, turn), suite, account, inbox, is_last_resort).ok()?;
        let known = KeyPackageRecord { made_at: turn.now, is_retired: 0, is_last_resort: u8::from(is_last_resort) };
        turn.put(Table::KeyPackage, key.clone(), record::encode(&known));
        self.key_packages.insert(key, known);
        Some(bytes)
    }

    fn make_last_resort(&mut self, turn: &mut Turn<'_>) -> Option<Vec<u8>> {
        for (key, known) in self.key_packages.iter_mut().filter(|(_, known)| known.is_last_resort == 1) {
            if known.is_retired == 0 {
                (known.is_retired, known.made_at) = (1, turn.now);
                turn.put(Table::KeyPackage, key.clone(), record::encode(known));
            }
        }
        self.make_key_package(turn, true)
    }

    /// Those that are replaced may be on their way in a Welcome: they open it for as long as a Welcome is kept, and count as
    /// old from now on.
    fn retire_key_packages(&mut self, turn: &mut Turn<'_>) {
        for (key, known) in &mut self.key_packages {
            if known.is_retired == 0 {
                (known.is_retired, known.made_at) = (1, turn.now);
                turn.put(Table::KeyPackage, key.clone(), record::encode(known));
            }
        }
    }

    /// Whether there were some that the relay may still hand out.
    fn forget_old_key_packages(&mut self, turn: &mut Turn<'_>) -> bool {
        let is_old = |known: &KeyPackageRecord| turn.now.since(known.made_at) > FORGOTTEN_MS;
        let old: Vec<_> =
            self.key_packages.iter().filter(|(_, known)| is_old(known)).map(|(key, k)| (key.clone(), *k)).collect();
        let forgot_some = old.iter().any(|(_, known)| known.is_retired == 0);
        for (key, _) in old {
            self.key_packages.remove(&key);
            turn.delete(Table::KeyPackage, key.clone());
            self.mls.forget_key_package(&KeyPackageRef(key));
        }
        forgot_some
    }
}
