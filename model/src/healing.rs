//! The way back (`engine::conversation::healing` and `missed`).

use crate::configuration::Configuration;
use crate::state::{
    Answer, Body, Content, DEVICES, Device, Entry, Group, Name, Outgoing, Position, Set, World, account,
};

/// `missed::GAPS_KEPT_MAX`.
const GAPS_KEPT_MAX: usize = 4;

impl World {
    /// `Engine::fall_behind`.
    pub fn fall_behind(&mut self, device: usize) {
        self.drop_pending(device);
        let own = &mut self.devices[device];
        if own.behind || own.removed {
            return;
        }
        own.behind = true;
        let before = own.cursor().saturating_sub(1);
        own.missed_behind.get_or_insert(before);
        if own.group.is_some() {
            own.lost = own.group;
        }
        (own.wants_update, own.wants_removal) = (false, false);
    }

    /// A connection is cut: what was on its way is gone.
    pub fn cut(&mut self, device: usize) {
        self.devices[device].forget_connection();
        self.answers[device].clear();
    }

    /// `Engine::logged_in` to `activate`, and `attach`.
    pub fn connect(&mut self, on: &Configuration, device: usize) {
        let instance = self.instance;
        self.devices[device].connected = true;
        if self.devices[device].instance != instance {
            // `relay_was_restored`.
            self.devices[device].instance = instance;
            self.devices[device].doubted = true;
            self.repeat_accepted(device);
        }
        if self.put_back.has(device) {
            if self.rotated.has(device) {
                // Two stores take turns: the person decides.
                self.devices[device].told.conflict = true;
                self.devices[device].connected = false;
                return;
            }
            self.restored(on, device);
        }
        // `listed`: a conversation that is only in a roster.
        let own = &mut self.devices[device];
        if !own.known {
            own.known = true;
        }
        if !own.removed {
            self.attach(on, device);
        }
    }

    /// `Engine::restored` to `distrust_ratchets`.
    pub fn restored(&mut self, on: &Configuration, device: usize) {
        self.put_back.remove(device);
        self.rotated.insert(device);
        let published = self.fresh(device);
        let own = &mut self.devices[device];
        own.must_update = own.known && on.rules.replaces_keys;
        own.own_readd = None;
        own.published = published;
        self.drop_pending(device);
        if self.devices[device].seeks {
            self.fall_behind(device);
        }
    }

    /// Whether a device waits for a Welcome that may not come (`heal`, `WELCOME_MS`).
    pub fn may_give_up_waiting(&self, device: usize) -> bool {
        let own = &self.devices[device];
        own.connected && own.known && !own.removed && !own.behind && own.group.is_none()
    }

    /// Whether it may ask to be added again, now that it is due (`ask_to_be_added`). A request that lies behind the newest
    /// commit is not repeated: all who could answer it read it.
    pub fn may_ask(&self, on: &Configuration, device: usize) -> bool {
        let own = &self.devices[device];
        let is_lost = own.connected && own.known && own.behind && !own.removed;
        let log = self.log_of(device);
        let is_same = |entry: &&Entry| match entry.body {
            Body::Readd { device: asking, key } => usize::from(asking) == device && own.own_readd == Some(key),
            _ => false,
        };
        let lies_there = log.entries.iter().skip(usize::from(log.newest_commit())).any(|entry| is_same(&entry));
        let may_again = on.rules.asks_again || !own.has_asked;
        is_lost && !lies_there && may_again
    }

    /// `Engine::ask_to_be_added`, and `readd_failed`: requests are answered at once, since nothing depends on when.
    pub fn ask_to_be_added(&mut self, on: &Configuration, device: usize) {
        let key = match self.devices[device].own_readd {
            Some(key) => key,
            None => self.fresh(device),
        };
        let own = &mut self.devices[device];
        (own.own_readd, own.has_asked) = (Some(key), true);
        let name = self.fresh(device);
        let entry = Entry { name, after: None, body: Body::Readd { device: device as u8, key } };
        let answer = self.append(&on.rules, device, &entry, None);
        if answer == Answer::NotAllowed {
            self.is_out(device);
        }
    }

    /// `Engine::take_readd`.
    pub fn take_readd(&mut self, on: &Configuration, device: usize, asking: usize, key: Name) {
        let own = &mut self.devices[device];
        if own.may_be_asked_by(on, device, asking) {
            own.readds[asking] = Some(key);
        }
    }

    /// `Engine::look_on`, to the end of the log: done where what it finds matters, which is nowhere else.
    fn looked_on(&self, on: &Configuration, device: usize) -> Device {
        let log = self.log_of(device);
        let mut own = self.devices[device].clone();
        let (from, upto) = (own.looked_upto.max(own.cursor()), self.end_for(device));
        for position in from + 1..=upto {
            match log.entries[usize::from(position) - 1].body {
                Body::Readd { device: asking, key } => {
                    let asking = usize::from(asking);
                    if own.may_be_asked_by(on, device, asking) {
                        own.readds[asking] = Some(key);
                    }
                    if asking == device || own.readds[asking] == Some(key) {
                        own.asking.insert(asking);
                    }
                }
                Body::Commit(_) | Body::Junk => {
                    own.asking = Set::default();
                    own.told_newest = own.told_newest.max(position);
                }
                Body::Message(_) => {}
            }
        }
        own.looked_upto = upto;
        own
    }

    /// `may_begin_anew` and `may_begin_group_anew`; an hour is over whenever it has to be.
    pub fn may_begin_anew(&self, on: &Configuration, device: usize) -> bool {
        let own = &self.devices[device];
        let is_lost = own.connected && own.known && own.behind && !own.removed && on.rules.begins_anew;
        let Some(length) = own.attached.filter(|_| is_lost) else { return false };
        if own.own_readd.is_none() && !own.has_asked {
            return false;
        }
        let own = &self.looked_on(on, device);
        if on.pair {
            let others = Set::ALL.without(Set::one(device));
            let all_ask = others.iter().all(|other| own.readds[other].is_some());
            return account(device) == 0 && all_ask && own.own_readd.is_some();
        }
        let has_asked = own.own_readd.is_some() || own.has_asked;
        let is_there = has_asked && own.looked_upto.max(own.cursor()) >= length.max(own.told_newest);
        if is_there && own.told_roster == Some(Set::one(device)) {
            return true;
        }
        let Some(Group { members, .. }) = own.lost.filter(|_| is_there) else { return false };
        let asking = own.asking.and(Set::one(device));
        let whole = own.told_roster == Some(members.also_in(asking).and(Set::one(device)));
        let all_ask = members.without(asking).is_empty();
        whole || (all_ask && (own.told_roster == Some(members) || own.rewritten))
    }

    /// `Engine::begin_anew`.
    pub fn begin_anew(&mut self, on: &Configuration, device: usize) {
        self.devices[device] = self.looked_on(on, device);
        let own = &self.devices[device];
        let is_alone = own.told_roster == Some(Set::one(device)) && !on.pair;
        if own.lost.is_none() && is_alone {
            return self.is_out(device);
        }
        self.found_anew(on, device);
    }

    /// `Engine::is_left_alone`: of two accounts, more than half are both.
    pub fn is_left_alone(&self, pair: bool, device: usize) -> bool {
        let own = &self.devices[device];
        let Some(group) = own.group.filter(|_| !pair) else { return false };
        let asks = |member: usize| own.readds[member].is_some();
        let accounts = [0, 1].map(|account| group.members.also_in(Set::of_account(account)));
        let there = accounts.iter().filter(|members| !members.is_empty()).count();
        let asking = accounts.iter().filter(|of| !of.is_empty() && of.iter().all(asks)).count();
        own.readds.iter().any(Option::is_some) && (asking == there || 2 * asking > there)
    }

    /// `Engine::note_readded`.
    pub fn note_readded(&mut self, on: &Configuration, device: usize, devices: Set) {
        let own = &mut self.devices[device];
        let before = own.readds;
        devices.iter().for_each(|added| own.readds[added] = None);
        if own.readds != before {
            self.resend_unconfirmed(on, device);
            let own = &self.devices[device];
            if own.is_active() && !own.seeks {
                for (first, last) in own.asked_for.clone() {
                    self.ask_for(device, first, last);
                }
            }
        }
    }

    /// `Engine::forget_strangers_readds`.
    pub fn forget_strangers(&mut self, device: usize) {
        let own = &mut self.devices[device];
        let members = own.group.map_or(Set::default(), |group| group.members);
        for asking in 0..DEVICES {
            if members.also_in(Set::of_account(account(asking))).is_empty() {
                own.readds[asking] = None;
            }
        }
    }

    /// `Engine::ask_for_missed`.
    pub fn ask_for_missed(&mut self, on: &Configuration, device: usize) {
        let own = &mut self.devices[device];
        if !own.is_active() || own.seeks || !on.rules.asks_for_missed {
            return;
        }
        let Some(behind) = own.missed_behind.take() else { return };
        let (first, last) = (behind + 1, own.cursor());
        if first <= last {
            let surplus = (own.asked_for.len() + 1).saturating_sub(GAPS_KEPT_MAX);
            own.asked_for.drain(..surplus);
            own.asked_for.push((first, last));
            self.ask_for(device, first, last);
        }
    }

    fn ask_for(&mut self, device: usize, first: Position, last: Position) {
        let content = Content::Missed { first, last };
        let own = &mut self.devices[device];
        if own.outgoing(content).is_none_or(|outgoing| outgoing.accepted) {
            own.outbox.retain(|outgoing| outgoing.content != content);
            own.outbox.push(Outgoing::new(content));
        }
    }

    /// `Engine::say_again`.
    pub fn say_again(&mut self, device: usize, first: Position, last: Position) {
        for outgoing in &mut self.devices[device].outbox {
            let is_there = outgoing.position.is_some_and(|position| (first..=last).contains(&position));
            if outgoing.is_text() && outgoing.accepted && is_there {
                outgoing.queue_again();
            }
        }
    }
}

impl Device {
    /// Whether the account of who asks has a leaf. Where members are not known, only a conversation of two says by its id
    /// who may.
    fn may_be_asked_by(&self, on: &Configuration, device: usize, asking: usize) -> bool {
        let has_leaf = |group: Group| !group.members.also_in(Set::of_account(account(asking))).is_empty();
        asking != device && self.group.map_or(on.pair && account(asking) != account(device), has_leaf)
    }
}
