//! Reading (`engine::conversation::reading`).

use crate::configuration::Configuration;
use crate::state::{Body, Commit, Compared, Content, Entry, Message, Name, Position, Set, Violation, World, account};

/// An entry that is read: where it stands, and what was the newest commit.
struct Place {
    position: Position,
    name: Name,
    in_order: bool,
}

impl World {
    /// `Engine::attached`.
    pub fn attach(&mut self, on: &Configuration, device: usize) {
        let answer = self.attached_answer(device);
        let told = self.log_of(device).envelopes_upto(answer.read_upto);
        let own = &mut self.devices[device];
        (own.attached, own.told_newest, own.told_roster) = (Some(answer.length), answer.newest_commit, answer.roster);
        (own.asking, own.looked_upto) = (Set::default(), 0);
        let doubted = std::mem::take(&mut own.doubted);
        let same = !own.knows_chain(answer.read_upto) || own.view[..told.len()] == told[..];
        let agreed = (own.knows_chain(answer.read_upto) && same).then_some(answer.read_upto);
        own.compared = Some(Compared { doubted, began: answer.read_upto, agreed });
        if on.rules.says_again_what_is_gone {
            own.say_again_what_is_gone(|position, _| position > answer.length);
        }
        let lacks_commit = answer.newest_commit < own.newest;
        if !same && !doubted {
            own.told.contradiction = true;
            own.compared = None;
        }
        let is_other = !same && doubted;
        if answer.length < own.cursor() || lacks_commit || is_other {
            own.missed_behind = own.missed_behind.map(|behind| behind.min(answer.length));
            own.reads_another(told);
            if lacks_commit || is_other {
                self.fall_behind(device);
            }
            return self.after_reading(on, device);
        }
        let begins = own.cursor() == 0 && (own.seeks || own.group.is_none());
        if begins && answer.read_upto > 0 {
            own.view = told;
            let is_later = own.joined_by.is_some() && answer.newest_commit < answer.read_upto;
            if own.group.is_none() || is_later {
                own.missed_behind = Some(0);
            }
            if is_later {
                self.fall_behind(device);
            }
        } else if answer.read_upto > own.cursor() {
            own.must_update = on.rules.replaces_keys;
            self.miss(on, device, answer.read_upto, answer.newest_commit);
        }
        self.after_reading(on, device);
    }

    /// `Engine::miss`.
    fn miss(&mut self, on: &Configuration, device: usize, upto: Position, newest_commit: Position) {
        let told = self.log_of(device).envelopes_upto(upto);
        let own = &mut self.devices[device];
        if upto <= own.cursor() {
            return;
        }
        let lost_commit = newest_commit > own.newest && newest_commit <= upto;
        own.missed = true;
        own.missed_behind.get_or_insert(own.view.len() as Position);
        (own.view, own.chains_from) = (told, upto);
        if lost_commit {
            self.fall_behind(device);
        }
        self.ask_for_missed(on, device);
    }

    /// Whether there is something to read, or something comes again.
    pub fn can_read(&self, device: usize) -> bool {
        let own = &self.devices[device];
        let (end, acked) = (self.end_for(device), self.log_of(device).acked[device]);
        let comes_again = own.is_active() && acked < own.cursor().min(end) && own.compared.is_some();
        own.connected && own.attached.is_some() && (own.is_active() && own.cursor() < end || comes_again)
    }

    /// `Engine::read_backlog`: what comes again is compared, then one entry is read. A fault: `skipping` one.
    pub fn read(&mut self, on: &Configuration, device: usize, skipping: bool) {
        if !self.compare_again(on, device) {
            return self.after_reading(on, device);
        }
        let own = &self.devices[device];
        let (next, edge, newest) = (own.cursor() + 1, self.log_of(device).edge, own.newest);
        if own.cursor() >= self.end_for(device) {
            return self.after_reading(on, device);
        }
        if skipping {
            if on.rules.hangs_up_at_a_gap {
                return self.cut(device);
            }
            let passed = self.log_of(device).entries[usize::from(next) - 1].name;
            self.devices[device].view.push(passed);
        } else if next <= edge {
            // `Engine::trimmed`: whether a commit was among them, the next entry says.
            self.miss(on, device, edge, newest);
            self.after_reading(on, device);
            return self.acknowledge(device);
        }
        self.read_entry(on, device);
        self.after_reading(on, device);
        self.acknowledge(device);
    }

    /// `Conversation::compare` of all that comes again. Whether reading goes on behind the cursor.
    fn compare_again(&mut self, on: &Configuration, device: usize) -> bool {
        let log = self.log_of(device);
        let (acked, edge) = (log.acked[device], log.edge);
        let log = log.envelopes_upto(self.end_for(device));
        let own = &mut self.devices[device];
        let last = own.cursor().min(log.len() as Position);
        for position in (acked.max(edge) + 1)..=last {
            let Some(compared) = &mut own.compared else { break };
            if !(own.view.len() as Position == position || (own.chains_from..).contains(&position)) {
                continue;
            }
            if own.view[..usize::from(position)] == log[..usize::from(position)] {
                compared.agreed = Some(position);
                continue;
            }
            let Compared { doubted, began, agreed } = *compared;
            own.compared = None;
            if on.rules.says_again_what_is_gone {
                let there = |at: Position, name| log.get(usize::from(at) - 1) != Some(&name);
                own.say_again_what_is_gone(|at, name| at >= position && there(at, name));
            }
            if !doubted {
                own.told.contradiction = true;
                break;
            }
            // `Engine::read_another_log`.
            let upto = position - 1;
            let parts_behind = agreed.unwrap_or(began).min(upto);
            let has_commit = agreed.is_some_and(|agreed| agreed >= own.newest);
            own.missed_behind = Some(own.missed_behind.map_or(parts_behind, |behind| behind.min(parts_behind)));
            own.reads_another(log[..usize::from(upto)].to_vec());
            if !has_commit {
                self.fall_behind(device);
            }
            return has_commit;
        }
        self.acknowledge(device);
        true
    }

    fn acknowledge(&mut self, device: usize) {
        let cursor = self.devices[device].cursor();
        let end = self.end_for(device);
        let acked = &mut self.log_of_mut(device).acked[device];
        *acked = (*acked).max(cursor.min(end));
    }

    /// The end of `Engine::read_backlog`.
    fn after_reading(&mut self, on: &Configuration, device: usize) {
        self.stop_seeking(device);
        self.ask_for_missed(on, device);
        let own = &self.devices[device];
        let has_read_all = own.attached.is_some_and(|length| own.cursor() >= length.max(self.end_for(device)));
        if own.is_active() && has_read_all && !own.seeks && own.told_roster.is_none() {
            self.is_out(device);
        }
    }

    fn stop_seeking(&mut self, device: usize) {
        let end = self.end_for(device);
        let own = &mut self.devices[device];
        let Some(length) = own.attached else { return };
        let waits = !own.seeks || own.pending.is_some() || !own.is_active();
        if waits || own.cursor() < length.max(end) {
            return;
        }
        if own.missed {
            return self.fall_behind(device);
        }
        (own.seeks, own.newest, own.unproven) = (false, own.told_newest, true);
    }

    /// `Engine::read_entry` and `take_entry`.
    fn read_entry(&mut self, on: &Configuration, device: usize) {
        let own = &mut self.devices[device];
        let position = own.cursor() + 1;
        let log = match &self.fork {
            Some(fork) if fork.serves.has(device) => &fork.log,
            _ => &self.log,
        };
        let Some(entry) = log.at(position).cloned() else { return };
        own.view.push(entry.name);
        if on.rules.says_again_what_is_gone {
            own.say_again_what_is_gone(|at, name| at == position && name != entry.name);
        }
        let shown = std::mem::take(&mut own.unsaved);
        own.shown = own.shown.and(shown);
        if own.seeks && !self.finds_start(on, device, position, &entry) {
            return;
        }
        let own = &mut self.devices[device];
        let after = entry.after.unwrap_or(own.newest);
        let is_commit = matches!(entry.body, Body::Commit(_) | Body::Junk);
        if after > own.newest || (is_commit && after != own.newest && own.missed) {
            return self.fall_behind(device);
        }
        let place = Place { position, name: entry.name, in_order: after == own.newest };
        match entry.body {
            Body::Commit(commit) => {
                if place.in_order {
                    self.take_commit(on, device, &place, &commit);
                }
                self.commit_was_read(device, position);
            }
            Body::Junk => {
                let own = &self.devices[device];
                if place.in_order && (own.unproven || self.is_left_alone(on.pair, device)) {
                    self.fall_behind(device);
                }
                self.commit_was_read(device, position);
            }
            Body::Message(message) if place.in_order => self.take_message(on, device, &place, &message),
            Body::Message(_) => {}
            Body::Readd { device: asking, key } => self.take_readd(on, device, usize::from(asking), key),
        }
    }

    /// `Engine::finds_start`.
    fn finds_start(&mut self, on: &Configuration, device: usize, position: Position, entry: &Entry) -> bool {
        let own = &mut self.devices[device];
        if own.pending.as_ref().is_some_and(|pending| pending.entry.name == entry.name) {
            own.seeks = false;
            self.merge_own(on, device, entry.name);
            self.commit_was_read(device, position);
            return false;
        }
        if own.joined_by == Some(entry.name) {
            (own.seeks, own.newest, own.missed) = (false, position, false);
            return false;
        }
        let epoch = own.group.map(|group| group.epoch);
        let (opens, counts) = match &entry.body {
            Body::Commit(commit) => (commit.from.is_some() && commit.from == epoch, true),
            Body::Junk => (false, true),
            Body::Message(message) => (Some(message.epoch) == epoch, true),
            Body::Readd { .. } => (false, false),
        };
        if opens {
            (own.seeks, own.newest) = (false, entry.after.unwrap_or(position));
        } else if counts {
            own.missed = true;
        }
        opens
    }

    /// `Engine::take_commit`.
    fn take_commit(&mut self, on: &Configuration, device: usize, place: &Place, commit: &Commit) {
        let own = &mut self.devices[device];
        let Some(group) = &mut own.group else { return };
        if own.pending.as_ref().is_some_and(|pending| pending.entry.name == place.name) {
            return self.merge_own(on, device, place.name);
        }
        if commit.from != Some(group.epoch) {
            // Merged already, by a device that does not obey L3: it stands in the epoch that this makes.
            if group.epoch == place.name {
                return;
            }
            let unproven = own.unproven;
            // Malformed: another epoch is in force, or another generation, or it is nobody's.
            if unproven || self.is_left_alone(on.pair, device) {
                self.fall_behind(device);
            }
            return;
        }
        let is_own = usize::from(place.name.by) == device;
        if is_own || commit.victims.has(device) {
            // `Unprocessable`.
            return self.fall_behind(device);
        }
        (own.provisional, own.unproven) = (false, false);
        (group.epoch, group.members, group.sealed) = (place.name, commit.members, 0);
        self.note_readded(on, device, commit.added);
        self.forget_strangers(device);
        if commit.added.has(device) {
            self.fall_behind(device);
        } else if !commit.members.has(device) {
            self.was_removed(device);
        }
    }

    /// `Engine::commit_was_read`.
    pub fn commit_was_read(&mut self, device: usize, position: Position) {
        let own = &mut self.devices[device];
        (own.newest, own.missed, own.rewritten, own.asking) = (position, false, false, Set::default());
        own.chains_from = own.chains_from.max(position);
        self.drop_pending(device);
        self.unseal_stale(device);
    }

    /// `Engine::take_sealed`, and what was said.
    fn take_message(&mut self, on: &Configuration, device: usize, place: &Place, message: &Message) {
        let own = &mut self.devices[device];
        let is_ours = |outgoing: &&mut crate::state::Outgoing| {
            outgoing.sealed.as_ref().is_some_and(|entry| entry.name == place.name)
        };
        if let Some(outgoing) = own.outbox.iter_mut().find(is_ours) {
            // `Engine::own_was_read`.
            (outgoing.accepted, outgoing.position) = (true, Some(place.position));
            let content = outgoing.content;
            if !matches!(content, Content::Text(_)) {
                own.outbox.retain(|outgoing| outgoing.content != content);
            }
            return;
        }
        if own.group.map(|group| group.epoch) != Some(message.epoch) {
            if own.unproven {
                self.fall_behind(device);
            }
            return;
        }
        if usize::from(place.name.by) == device {
            // A newer store of this device has sealed it.
            (own.must_update, own.missed) = (on.rules.replaces_keys, true);
            return;
        }
        (own.provisional, own.unproven) = (false, false);
        if let Some((position, chain)) = message.place
            && own.knows_chain(position)
            && position <= own.cursor()
            && own.chain(position) != chain
        {
            own.told.contradiction = true;
        }
        if !message.readers.has(device) {
            self.violation = Some(Violation::OpenedByStranger);
        }
        match message.content {
            Content::Missed { first, last } => self.say_again(device, first, last),
            Content::Text(text) => self.show(on, device, text),
        }
    }

    fn show(&mut self, on: &Configuration, device: usize, text: u8) {
        let own = &mut self.devices[device];
        let is_known = own.shown.has(usize::from(text)) || own.outgoing(Content::Text(text)).is_some();
        if !is_known && on.rules.persists_first {
            own.shown.insert(usize::from(text));
        } else if !is_known {
            own.unsaved.insert(usize::from(text));
        } else if !on.rules.knows_content {
            self.violation = Some(Violation::ShownTwice);
        }
    }

    /// `Engine::was_removed`.
    fn was_removed(&mut self, device: usize) {
        let own = &mut self.devices[device];
        own.removed = true;
        (own.group, own.pending) = (None, None);
        (own.wants_update, own.wants_removal) = (false, false);
        own.outbox.retain(|outgoing| outgoing.accepted);
    }

    /// Whether another account has a member in the group that a device holds.
    pub fn is_with_others(&self, device: usize) -> bool {
        let members = self.devices[device].group.map_or(Set::default(), |group| group.members);
        members.iter().any(|member| account(member) != account(device))
    }
}

impl crate::state::Device {
    /// What was accepted there stands there no more, as far as `is_gone` knows.
    fn say_again_what_is_gone(&mut self, is_gone: impl Fn(Position, Name) -> bool) {
        for outgoing in self.outbox.iter_mut().filter(|outgoing| outgoing.accepted && outgoing.is_text()) {
            let stood = outgoing.position.zip(outgoing.sealed.as_ref());
            if stood.is_some_and(|(position, entry)| is_gone(position, entry.name)) {
                outgoing.queue_again();
            }
        }
    }

    /// `Conversation::reads_another_behind`.
    fn reads_another(&mut self, told: Vec<Name>) {
        self.view = told;
        self.chains_from = self.cursor();
        (self.missed, self.must_update, self.rewritten) = (true, true, true);
    }
}
