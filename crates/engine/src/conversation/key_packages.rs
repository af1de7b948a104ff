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

/// What is known of an own key package.
#[derive(Clone, Copy, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct KeyPackageRecord {
    pub(crate) made_at: Time,
    pub(crate) is_last_resort: u8,
}

impl Engine {
    /// After a log-in: the relay says how many one-time ones it has. `replace`: it may hold some whose private keys are
    /// lost.
    pub(crate) fn replenish_key_packages(&mut self, turn: &mut Turn<'_>, held: u32, replace: bool) {
        if !self.is_mls() {
            return;
        }
        self.forget_old_key_packages(turn);
        let full = self.own.key_packages.min(KEY_PACKAGES_MAX as u32);
        let held = if replace { 0 } else { held };
        let has_last_resort = self.key_packages.values().any(|known| known.is_last_resort == 1);
        let needs_last_resort = replace || !has_last_resort;
        if held * REPLENISH_BELOW >= full && !needs_last_resort {
            return;
        }
        let mut missing = full.saturating_sub(held);
        let mut is_first = true;
        while missing > 0 || is_first {
            let count = missing.min(BATCH);
            let one_time: Vec<_> = (0..count).filter_map(|_| self.make_key_package(turn, false)).collect();
            let last_resort = (is_first && needs_last_resort).then(|| self.make_key_package(turn, true)).flatten();
            let replace = replace && is_first;
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
        let known = KeyPackageRecord { made_at: turn.now, is_last_resort: u8::from(is_last_resort) };
        turn.put(Table::KeyPackage, key.clone(), record::encode(&known));
        self.key_packages.insert(key, known);
        Some(bytes)
    }

    fn forget_old_key_packages(&mut self, turn: &mut Turn<'_>) {
        let newest_last_resort =
            self.key_packages.values().filter(|known| known.is_last_resort == 1).map(|known| known.made_at).max();
        let is_old = |known: &KeyPackageRecord| {
            let is_in_use = known.is_last_resort == 1 && Some(known.made_at) == newest_last_resort;
            !is_in_use && turn.now.since(known.made_at) > FORGOTTEN_MS
        };
        let old: Vec<_> =
            self.key_packages.iter().filter(|(_, known)| is_old(known)).map(|(key, _)| key.clone()).collect();
        for key in old {
            self.key_packages.remove(&key);
            turn.delete(Table::KeyPackage, key.clone());
            self.mls.forget_key_package(&KeyPackageRef(key));
        }
    }
}
