//! What people want of groups, until it is so or they are told that it will not be (L10); and who may not read what was said
//! in one, because they came later, or had gone (L2, C10).

use std::collections::{BTreeMap, BTreeSet};

use sealwire_engine::{ConversationView, Event, GroupChange};
use sealwire_wire::{AccountId, ConversationId, Time};

/// A change of a group that a device was told is going to be made.
pub(crate) struct Wish {
    pub(crate) device: usize,
    pub(crate) account: AccountId,
    pub(crate) conversation: ConversationId,
    pub(crate) change: GroupChange,
}

#[derive(Default)]
pub(crate) struct Wishes {
    asked: BTreeMap<u64, Wish>,
    open: Vec<Wish>,
}

impl Wishes {
    pub(crate) fn ask(&mut self, ticket: u64, wish: Wish) {
        self.asked.insert(ticket, wish);
    }

    /// The device has saved it. The newest word counts.
    pub(crate) fn was_taken(&mut self, ticket: u64) {
        let Some(new) = self.asked.remove(&ticket) else { return };
        self.open.retain(|old| {
            let is_of_same = (old.device, old.conversation) == (new.device, new.conversation);
            !is_of_same || new.change != GroupChange::Leave && !about_the_same(&old.change, &new.change)
        });
        if new.change != GroupChange::Leave {
            self.open.push(new);
        }
    }

    pub(crate) fn was_refused(&mut self, ticket: u64) {
        self.asked.remove(&ticket);
    }

    /// The process ended: what it had not answered may be saved, and need not.
    pub(crate) fn may_be_lost(&mut self, device: usize) {
        self.asked.retain(|_, wish| wish.device != device);
    }

    /// The device is gone, or its store is one of before.
    pub(crate) fn are_lost(&mut self, device: usize) {
        self.may_be_lost(device);
        self.open.retain(|wish| wish.device != device);
    }

    pub(crate) fn has_any(&self, device: usize) -> bool {
        self.open.iter().any(|wish| wish.device == device)
    }

    /// What a device tells its application.
    pub(crate) fn hear(&mut self, device: usize, event: &Event) {
        self.open.retain(|wish| {
            let is_own = wish.device == device;
            let is_done = match (event, &wish.change) {
                (Event::Members { conversation, by, added, .. }, GroupChange::Add(accounts)) => {
                    (*conversation, *by) == (wish.conversation, wish.account)
                        && accounts.iter().all(|account| added.contains(account))
                }
                (Event::Members { conversation, by, removed, .. }, GroupChange::Remove(account)) => {
                    (*conversation, *by) == (wish.conversation, wish.account) && removed.contains(account)
                }
                (Event::Renamed { conversation, by, name }, GroupChange::Rename(wanted)) => {
                    (*conversation, *by) == (wish.conversation, wish.account) && name == wanted
                }
                _ => false,
            };
            let is_told = match event {
                Event::NotDone { conversation, account } => {
                    let is_it = account.is_none_or(|account| is_about(&wish.change, account));
                    is_own && *conversation == wish.conversation && is_it
                }
                Event::Removed { conversation, .. } => is_own && *conversation == wish.conversation,
                _ => false,
            };
            !is_done && !is_told
        });
    }

    /// How a device's conversations stand now.
    pub(crate) fn look(&mut self, device: usize, views: &[ConversationView]) {
        self.open.retain(|wish| wish.device != device || !views.iter().any(|view| is_so(wish, view)));
    }

    /// One that neither came true nor was refused, of a device that is in the group.
    pub(crate) fn left(&self, device: usize, views: &[ConversationView]) -> Option<&GroupChange> {
        let can = |wish: &&Wish| {
            let of = |view: &&ConversationView| view.conversation == wish.conversation && view.active && !view.out;
            wish.device == device && views.iter().find(of).is_some_and(|view| !view.leaving)
        };
        self.open.iter().find(can).map(|wish| &wish.change)
    }
}

fn about_the_same(old: &GroupChange, new: &GroupChange) -> bool {
    match (old, new) {
        (GroupChange::Rename(_), GroupChange::Rename(_)) => true,
        (GroupChange::Add(accounts), _) => accounts.iter().any(|account| is_about(new, *account)),
        (GroupChange::Remove(account) | GroupChange::SetRole(account, _), _) => is_about(new, *account),
        _ => false,
    }
}

fn is_about(change: &GroupChange, whom: AccountId) -> bool {
    match change {
        GroupChange::Add(accounts) => accounts.contains(&whom),
        GroupChange::Remove(account) | GroupChange::SetRole(account, _) => *account == whom,
        GroupChange::Rename(_) | GroupChange::Leave => false,
    }
}

fn is_so(wish: &Wish, view: &ConversationView) -> bool {
    let is_in = |account: &AccountId| view.members.iter().any(|(member, _)| member == account);
    let is_it = view.conversation == wish.conversation && view.active;
    is_it
        && match &wish.change {
            GroupChange::Add(accounts) => accounts.iter().all(is_in),
            GroupChange::Remove(account) => !is_in(account),
            GroupChange::Rename(name) => view.name == *name,
            // Whoever is not in it has no role, and is given none.
            GroupChange::SetRole(account, role) => !is_in(account) || view.members.contains(&(*account, *role)),
            GroupChange::Leave => view.leaving,
        }
}

/// Who was in which group when, by the relay's rosters, and what was said there.
#[derive(Default)]
pub(crate) struct Attendance {
    last_in: BTreeMap<(ConversationId, usize), Time>,
    /// By device and number: what waits to be accepted, and since when.
    waiting: BTreeMap<(usize, u64), (ConversationId, String, Time)>,
    not_for: BTreeSet<(usize, String)>,
}

impl Attendance {
    pub(crate) fn is_in(&mut self, conversation: ConversationId, person: usize, now: Time) {
        self.last_in.insert((conversation, person), now);
    }

    pub(crate) fn was_queued(&mut self, device: usize, number: u64, group: ConversationId, text: String, now: Time) {
        self.waiting.insert((device, number), (group, text, now));
    }

    /// The relay has it: whoever was not in the group since it was written does not read it.
    pub(crate) fn was_accepted(&mut self, device: usize, number: u64, people: impl Iterator<Item = usize>) {
        let Some((group, text, since)) = self.waiting.remove(&(device, number)) else { return };
        for person in people {
            if self.last_in.get(&(group, person)).is_none_or(|last| *last < since) {
                self.not_for.insert((person, text.clone()));
            }
        }
    }

    /// A device whose store is one of before says again what it does not know to have said, to those who are there.
    pub(crate) fn is_lost(&mut self, device: usize, said: impl Fn(&str) -> bool) {
        self.waiting.retain(|(of, _), _| *of != device);
        self.not_for.retain(|(_, text)| !said(text));
    }

    pub(crate) fn is_for(&self, person: usize, text: &str) -> bool {
        !self.not_for.contains(&(person, text.to_owned()))
    }
}
