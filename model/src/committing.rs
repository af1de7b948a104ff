//! Changing a conversation (`engine::conversation::committing`).

use crate::configuration::Configuration;
use crate::relay::RosterChange;
use crate::state::{Answer, Body, Commit, DEVICES, Entry, Group, Name, Pending, Position, Set, World, account};

impl World {
    /// Own devices that are not in the conversation, of who is (C7).
    fn missing_devices(&self, device: usize) -> Set {
        let members = self.devices[device].group.map_or(Set::ALL, |group| group.members);
        Set::of_account(account(device)).without(members)
    }

    /// Whether there is something to commit (`want_what_is_due`, `commit_if_wanted`).
    pub fn wants_commit(&self, device: usize) -> bool {
        let own = &self.devices[device];
        let answers = own.readds.iter().any(Option::is_some);
        let wants = own.must_update || own.wants_update || own.wants_removal || answers;
        let wants = wants || !self.missing_devices(device).is_empty();
        own.connected && own.is_caught_up() && own.pending.is_none() && wants
    }

    /// `Engine::make_commit`: all that is wanted at once. `answering`: whether the requests of others are due. `victims`:
    /// who will not be able to process it.
    pub fn commit(&mut self, device: usize, answering: bool, victims: Set) {
        let name = self.fresh(device);
        let missing = self.missing_devices(device);
        let own = &self.devices[device];
        let Some(group) = own.group else { return };
        let mut keys = [None; DEVICES];
        for member in missing.iter() {
            keys[member] = Some(self.devices[member].published);
        }
        for (asking, key) in own.readds.iter().enumerate().filter(|_| answering) {
            keys[asking] = key.or(keys[asking]);
        }
        let mut added = Set::default();
        keys.iter().enumerate().filter(|(_, key)| key.is_some()).for_each(|(member, _)| added.insert(member));
        let removed = if own.wants_removal { Set::of_account(1) } else { Set::default() };
        added = added.without(removed);
        let commit = Commit {
            from: Some(group.epoch),
            group: group.id,
            generation: group.generation,
            members: group.members.and(added).without(removed),
            added,
            victims: victims.without(Set::one(device)),
        };
        let entry = Entry { name, after: Some(own.newest), body: Body::Commit(commit) };
        self.devices[device].pending = Some(Pending { entry, before: group.members, keys, sent: false });
    }

    /// `Engine::found_anew`: the next generation, with all who were in it.
    pub fn found_anew(&mut self, on: &Configuration, device: usize) {
        let own = &self.devices[device];
        let lost = own.lost;
        let is_alone = own.told_roster == Some(Set::one(device)) && !on.pair;
        let mut members = Set::of_account(account(device));
        if !is_alone {
            let accounts = [0, 1].map(Set::of_account);
            let was_there = |of: &&Set| lost.is_none_or(|lost| !lost.members.also_in(**of).is_empty());
            members = accounts.iter().filter(was_there).fold(members, |all, of| all.and(*of));
        }
        let name = self.fresh(device);
        let mut keys = [None; DEVICES];
        let added = members.without(Set::one(device));
        added.iter().for_each(|member| keys[member] = Some(self.devices[member].published));
        self.unseal_stale(device);
        let own = &mut self.devices[device];
        own.generation = lost.map_or(own.generation, |lost| lost.generation + 1).max(1);
        let commit =
            Commit { from: None, group: name, generation: own.generation, members, added, victims: Set::default() };
        // Its epoch is not there before it is merged: nobody has sealed in it.
        let alone = Set::one(device);
        own.group = Some(Group { id: name, epoch: name, members: alone, generation: own.generation, sealed: 0 });
        own.newest = own.told_newest;
        (own.behind, own.seeks, own.joined_by, own.provisional) = (false, true, None, on.pair);
        let entry = Entry { name, after: Some(own.told_newest), body: Body::Commit(commit) };
        let before = own.told_roster.unwrap_or_default();
        own.pending = Some(Pending { entry, before, keys, sent: false });
    }

    /// Whether the commit that waits may be sent (`send_pending`).
    pub fn can_send_pending(&self, device: usize) -> bool {
        let own = &self.devices[device];
        let is_caught_up = own.is_caught_up() || own.seeks;
        let waits = own.pending.as_ref().is_some_and(|pending| !pending.sent);
        own.connected && own.attached.is_some() && is_caught_up && waits
    }

    /// `send_pending`, and what the relay makes of it.
    pub fn send_pending(&mut self, on: &Configuration, device: usize) {
        let Some(pending) = &mut self.devices[device].pending else { return };
        pending.sent = true;
        let (entry, change) = (pending.entry.clone(), RosterChange { before: pending.before, keys: pending.keys });
        let answer = self.append(&on.rules, device, &entry, Some(&change));
        self.answer(on, device, entry.name, answer);
    }

    /// `Engine::accepted`, `stale` and `commit_failed`, of a commit. Whether it was one.
    pub fn commit_answered(&mut self, on: &Configuration, device: usize, name: Name, answer: Answer) -> bool {
        let own = &self.devices[device];
        if own.pending.as_ref().is_none_or(|pending| pending.entry.name != name) {
            return false;
        }
        match answer {
            // Merged where it stands (L3).
            Answer::Accepted(_) if on.rules.merges_at_its_position => {}
            Answer::Accepted(_) => self.merge_own(on, device, name),
            Answer::Stale(newest) => {
                self.drop_pending(device);
                if self.devices[device].behind {
                    self.cut(device);
                } else {
                    self.note_stale(on, device, newest);
                }
            }
            Answer::NotAllowed | Answer::RosterMoved => {
                self.drop_pending(device);
                if self.devices[device].behind {
                    self.cut(device);
                }
            }
        }
        true
    }

    /// The end of `Engine::stale`.
    pub fn note_stale(&mut self, on: &Configuration, device: usize, newest: Position) {
        let own = &mut self.devices[device];
        if newest <= own.newest {
            return self.cut(device);
        }
        if on.rules.stale_shows_a_gap && newest <= own.cursor() {
            return self.fall_behind(device);
        }
        own.wait_for = own.wait_for.max(newest);
        own.told_newest = own.told_newest.max(newest);
    }

    /// `Engine::drop_pending`.
    pub fn drop_pending(&mut self, device: usize) {
        let own = &mut self.devices[device];
        if own.pending.take().is_none() {
            return;
        }
        if own.seeks && own.joined_by.is_none() {
            // The commit with which it was to begin anew.
            (own.group, own.seeks, own.behind) = (None, false, true);
        }
    }

    /// `Engine::merge_own`.
    pub fn merge_own(&mut self, on: &Configuration, device: usize, name: Name) {
        let own = &mut self.devices[device];
        let Some(Pending { entry: Entry { body: Body::Commit(commit), .. }, .. }) = own.pending.take() else { return };
        let (id, generation) = (commit.group, commit.generation);
        let was_begun = commit.from.is_some();
        own.group = Some(Group { id, epoch: name, members: commit.members, generation, sealed: 0 });
        (own.must_update, own.wants_update) = (false, false);
        if commit.members.also_in(Set::of_account(1)).is_empty() {
            own.wants_removal = false;
        }
        self.note_readded(on, device, if was_begun { commit.added } else { commit.members });
        self.forget_strangers(device);
    }

    /// `Engine::is_out`.
    pub fn is_out(&mut self, device: usize) {
        let own = &mut self.devices[device];
        (own.removed, own.behind, own.group, own.own_readd) = (true, false, None, None);
        (own.wants_update, own.wants_removal) = (false, false);
        own.outbox.retain(|outgoing| outgoing.accepted);
        own.told.out = true;
    }

    /// What the relay answers comes at once, or is on its way.
    pub fn answer(&mut self, on: &Configuration, device: usize, name: Name, answer: Answer) {
        if on.late_answers {
            self.answers[device].push((name, answer));
        } else {
            self.answered(on, device, name, answer);
        }
    }

    /// An answer came.
    pub fn answered(&mut self, on: &Configuration, device: usize, name: Name, answer: Answer) {
        if !self.commit_answered(on, device, name, answer) {
            self.message_answered(on, device, name, answer);
        }
    }
}
