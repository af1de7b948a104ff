//! The relay (spec/logs.md; `store::logs`, `relay_core::append`, `relay_core::conversation`).

use crate::configuration::Rules;
use crate::state::{Answer, Body, DEVICES, Entry, Log, Name, Position, Set, Welcome, World};

/// What comes with a commit.
pub struct RosterChange {
    /// The roster that it replaces.
    pub before: Set,
    /// The key packages of those who get a Welcome.
    pub keys: [Option<Name>; DEVICES],
}

/// What the relay says when a log is attached.
pub struct Attached {
    /// How far this device has acknowledged.
    pub read_upto: Position,
    /// The newest commit.
    pub newest_commit: Position,
    /// Entries there are for this device.
    pub length: Position,
    /// Whose inboxes read it; who was dropped is not told.
    pub roster: Option<Set>,
}

impl World {
    /// An append, as `Log::append` judges it: known envelope, roster, `after`, roster change.
    pub fn append(&mut self, rules: &Rules, by: usize, entry: &Entry, change: Option<&RosterChange>) -> Answer {
        let log = self.log_of_mut(by);
        // What was trimmed is forgotten: ids are remembered for 30 days, commits are kept for 60 (E4, L9).
        let kept = usize::from(log.edge);
        if let Some(index) = log.entries.iter().position(|known| known.name == entry.name).filter(|at| *at >= kept) {
            return Answer::Accepted(index as Position + 1);
        }
        if !log.roster.has(by) {
            return Answer::NotAllowed;
        }
        let newest = log.newest_commit();
        if rules.compares_after && entry.after.is_some_and(|after| after != newest) {
            return Answer::Stale(newest);
        }
        if change.is_some_and(|change| change.before != log.roster) {
            return Answer::RosterMoved;
        }
        log.entries.push(entry.clone());
        if let (Body::Commit(commit), Some(change)) = (&entry.body, change) {
            log.change_roster(commit.members);
            for device in commit.added.iter() {
                let Some(key) = change.keys[device] else { continue };
                let (group, generation, members) = (commit.group, commit.generation, commit.members);
                log.inboxes[device].push(Welcome { commit: entry.name, key, group, generation, members });
            }
        }
        let position = log.length();
        if matches!(entry.body, Body::Commit(_)) && !log_has(&self.log, Set::of_account(1)) {
            self.removal = true;
        }
        Answer::Accepted(position)
    }

    /// What `Attach` is answered.
    pub fn attached_answer(&self, device: usize) -> Attached {
        let log = self.log_of(device);
        let end = log.until[device].unwrap_or(log.length());
        Attached {
            read_upto: log.acked[device].min(end),
            newest_commit: log.newest_commit().min(end),
            length: log.length().min(end),
            roster: log.until[device].is_none().then_some(log.roster),
        }
    }

    /// How far a device may read.
    pub fn end_for(&self, device: usize) -> Position {
        let log = self.log_of(device);
        log.until[device].unwrap_or(log.length())
    }
}

fn log_has(log: &Log, devices: Set) -> bool {
    !log.roster.also_in(devices).is_empty()
}

impl Log {
    /// In the transaction of the commit (C6): who is added reads from behind it, who is dropped up to it.
    fn change_roster(&mut self, roster: Set) {
        let here = self.length();
        for device in roster.without(self.roster).iter() {
            (self.acked[device], self.until[device]) = (here, None);
        }
        for device in self.roster.without(roster).iter() {
            self.until[device] = Some(here);
        }
        self.roster = roster;
    }

    /// A backup of when there were only so many entries. What was acknowledged is known as far as there was something.
    pub fn put_back(&mut self, length: Position) {
        let gone: Vec<Name> = self.entries.drain(usize::from(length)..).map(|entry| entry.name).collect();
        self.inboxes.iter_mut().for_each(|inbox| inbox.retain(|welcome| !gone.contains(&welcome.commit)));
        self.acked = self.acked.map(|acked| acked.min(length));
        self.until = self.until.map(|until| until.filter(|until| *until <= length));
        self.edge = self.edge.min(length);
        let of_commit = |entry: &Entry| match &entry.body {
            Body::Commit(commit) => Some(commit.members),
            _ => None,
        };
        self.roster = self.entries.iter().rev().find_map(of_commit).unwrap_or(Set::ALL);
    }
}
