//! Presence by capability (A2): an account has one token; whoever shows it is told when the account comes and goes.
//! Who is connected is the shell's knowledge and is stored nowhere.

use std::collections::BTreeSet;

use sealwire_store::{Operation, Outcome, Record, RecordSwap, Refusal};
use sealwire_wire::frame::FromRelay;
use sealwire_wire::{Code, PresenceToken};

use crate::connection::{BUSY_RETRY_MS, Connection, SWAPS_MAX, Session, Waiting};
use crate::decision::{Decision, Question};
use crate::records::{self, Account, PresenceOwner};

/// A connection's part in it.
#[derive(Default)]
pub(crate) struct Presence {
    watched: BTreeSet<PresenceToken>,
    /// A change of the own token is under way, and which one comes after it.
    setting: Option<Option<Option<PresenceToken>>>,
}

/// A change of the own token that waits for the store.
#[derive(Clone, Copy)]
pub(crate) struct SettingPresence {
    session: Session,
    wanted: Option<PresenceToken>,
    /// The one that it replaces, as far as is known.
    before: Option<PresenceToken>,
    lost: u32,
}

impl Connection {
    /// Has no answer where it works: the client says it at each log-in anyway.
    pub(crate) fn set_presence(&mut self, session: Session, token: Option<PresenceToken>) {
        match &mut self.presence.setting {
            Some(next) => *next = Some(token),
            setting @ None => {
                *setting = Some(None);
                self.ask_for_presence(SettingPresence { session, wanted: token, before: None, lost: 0 });
            }
        }
    }

    fn ask_for_presence(&mut self, setting: SettingPresence) {
        let mut keys = vec![records::key::<Account>(setting.session.account.0)];
        let tokens = [setting.wanted, setting.before];
        keys.extend(tokens.map(|token| records::key::<PresenceOwner>(token.map_or([0; 16], |token| token.0))));
        self.load(Question::Records(keys), Waiting::Presence(setting));
    }

    pub(crate) fn presence_loaded(&mut self, setting: SettingPresence, found: &[Option<Record>]) {
        let [account, owner, owner_before] = found else { return self.damaged() };
        let Ok(Some(account)) = records::read::<Account>(account.as_ref()) else { return self.damaged() };
        let SettingPresence { session, wanted, before, lost } = setting;
        let present = account.value.presence;
        if present == wanted {
            return self.presence_set(&setting);
        }
        if present != before && lost < SWAPS_MAX {
            return self.ask_for_presence(SettingPresence { before: present, lost: lost + 1, ..setting });
        }
        if wanted.is_some() && owner.is_some() {
            self.refuse(Code::NotAllowed, "the token is another account's");
            return self.set_next_presence(session);
        }
        let mut value = account.value;
        value.presence = wanted;
        let mut swaps = vec![records::put(session.account.0, Some(account.version), &value)];
        swaps.extend(wanted.map(|token| records::put(token.0, None, &PresenceOwner { account: session.account })));
        let old = before.zip(owner_before.as_ref());
        swaps.extend(old.map(|(token, owner)| RecordSwap {
            key: records::key::<PresenceOwner>(token.0),
            expected: Some(owner.version),
            value: None,
        }));
        let operation = Operation::Swap { records: swaps, inboxes: Vec::new() };
        self.store(operation, Waiting::Presence(setting));
    }

    pub(crate) fn presence_stored(&mut self, setting: SettingPresence, outcome: Outcome) {
        match outcome {
            Outcome::Swapped => self.presence_set(&setting),
            Outcome::Refused(Refusal::VersionMoved { .. }) if setting.lost < SWAPS_MAX => {
                self.ask_for_presence(SettingPresence { lost: setting.lost + 1, ..setting });
            }
            _ => {
                self.fail(Code::Busy, 0, None, BUSY_RETRY_MS, "the account changes all the time");
                self.set_next_presence(setting.session);
            }
        }
    }

    fn presence_set(&mut self, setting: &SettingPresence) {
        self.decide(Decision::Online(setting.wanted));
        self.set_next_presence(setting.session);
    }

    fn set_next_presence(&mut self, session: Session) {
        if let Some(Some(token)) = self.presence.setting.take() {
            self.set_presence(session, token);
        }
    }

    pub(crate) fn watch(&mut self, tokens: Vec<PresenceToken>) {
        self.presence.watched = tokens.into_iter().collect();
        self.decide(Decision::Watch(self.presence.watched.iter().copied().collect()));
    }

    pub(crate) fn presence_changed(&mut self, token: PresenceToken, online: bool) {
        // The shell may tell of a token that is not watched any more.
        if self.presence.watched.contains(&token) {
            self.send(FromRelay::Presence { token, online });
        }
    }
}
