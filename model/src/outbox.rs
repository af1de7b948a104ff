//! What is to be said (`engine::outbox`).

use crate::configuration::Configuration;
use crate::state::{Answer, Body, Content, Entry, Message, Name, Outgoing, Violation, World};
use crate::world::chain;

impl Outgoing {
    /// What was not sealed yet.
    pub fn new(content: Content) -> Outgoing {
        Outgoing { content, accepted: false, delivered: false, sealed: None, position: None, sent: false }
    }

    /// Whether a person wrote it.
    pub fn is_text(&self) -> bool {
        matches!(self.content, Content::Text(_))
    }

    /// `Engine::queue_again`.
    pub fn queue_again(&mut self) {
        (self.accepted, self.sealed, self.sent) = (false, None, false);
    }
}

impl World {
    /// What is sealed next: what was not sealed, the oldest first.
    pub fn to_seal(&self, device: usize) -> Option<usize> {
        let own = &self.devices[device];
        let waits = |outgoing: &Outgoing| !outgoing.accepted && outgoing.sealed.is_none();
        own.outbox.iter().position(waits).filter(|_| own.connected && own.may_seal())
    }

    /// `Engine::send_in`, to where the bytes are durable.
    pub fn seal(&mut self, on: &Configuration, device: usize, index: usize) {
        let name = self.fresh(device);
        let own = &mut self.devices[device];
        let Some(group) = &mut own.group else { return };
        let place = (on.budget.forks > 0).then(|| (own.view.len() as u8, chain(&own.view)));
        let content = own.outbox[index].content;
        let message = Message { epoch: group.epoch, readers: group.members, content, place };
        own.outbox[index].sealed = Some(Entry { name, after: Some(own.newest), body: Body::Message(message) });
        let (epoch, key) = (group.epoch, group.sealed);
        group.sealed += 1;
        if on.budget.put_back + on.budget.copies > 0 {
            self.spend(epoch, device as u8, key);
        } else {
            // Without stores that are put back a counter only goes up: how far, nothing depends on.
            group.sealed = 0;
        }
    }

    /// Notes that a ratchet key was used.
    fn spend(&mut self, epoch: Name, device: u8, key: u8) {
        match self.spent.iter_mut().find(|(of, by, _)| (*of, *by) == (epoch, device)) {
            Some((.., count)) if key < *count => self.violation = Some(Violation::KeyUsedTwice),
            Some((.., count)) => *count = key + 1,
            None => {
                self.spent.push((epoch, device, key + 1));
                self.spent.sort_unstable();
            }
        }
    }

    /// What goes next, of what is sealed (`send_one`).
    pub fn to_send(&self, device: usize) -> Option<usize> {
        let own = &self.devices[device];
        let waits = |outgoing: &Outgoing| !outgoing.accepted && outgoing.sealed.is_some() && !outgoing.sent;
        own.outbox.iter().position(waits).filter(|_| own.connected && own.may_seal())
    }

    /// The bytes go, and the relay answers.
    pub fn send(&mut self, on: &Configuration, device: usize, index: usize) {
        let outgoing = &mut self.devices[device].outbox[index];
        outgoing.sent = true;
        let Some(entry) = outgoing.sealed.clone() else { return };
        let answer = self.append(&on.rules, device, &entry, None);
        self.answer(on, device, entry.name, answer);
    }

    /// `Engine::accepted`, `stale` and `append_failed`, of a message.
    pub fn message_answered(&mut self, on: &Configuration, device: usize, name: Name, answer: Answer) {
        let own = &mut self.devices[device];
        let is = |outgoing: &Outgoing| outgoing.sealed.as_ref().is_some_and(|entry| entry.name == name);
        let Some(index) = own.outbox.iter().position(is) else { return };
        let outgoing = &mut own.outbox[index];
        match answer {
            Answer::Accepted(position) => {
                (outgoing.accepted, outgoing.position) = (true, Some(position));
            }
            Answer::Stale(newest) if !outgoing.accepted => {
                (outgoing.sealed, outgoing.sent) = (None, false);
                if !on.rules.seals_again {
                    own.outbox.remove(index);
                }
                self.note_stale(on, device, newest);
            }
            // What comes of the log says by whom; until then it waits.
            Answer::Stale(_) | Answer::NotAllowed | Answer::RosterMoved => {}
        }
    }

    /// `Engine::unseal_stale`.
    pub fn unseal_stale(&mut self, device: usize) {
        for outgoing in self.devices[device].outbox.iter_mut().filter(|outgoing| !outgoing.accepted) {
            (outgoing.sealed, outgoing.sent) = (None, false);
        }
    }

    /// `Engine::resend_unconfirmed`: of conversations of two.
    pub fn resend_unconfirmed(&mut self, on: &Configuration, device: usize) {
        let unconfirmed = |outgoing: &&mut Outgoing| outgoing.accepted && !outgoing.delivered && outgoing.is_text();
        self.devices[device].outbox.iter_mut().filter(|_| on.pair).filter(unconfirmed).for_each(Outgoing::queue_again);
    }

    /// `Engine::repeat_accepted`: the same bytes, to a relay that may have lost them.
    pub fn repeat_accepted(&mut self, device: usize) {
        let unconfirmed =
            |outgoing: &&mut Outgoing| outgoing.accepted && !outgoing.delivered && outgoing.sealed.is_some();
        for outgoing in self.devices[device].outbox.iter_mut().filter(unconfirmed) {
            (outgoing.accepted, outgoing.sent) = (false, false);
        }
    }

    /// A receipt of one device of the other account (L8).
    pub fn may_confirm(&self, device: usize) -> Option<usize> {
        let others = crate::state::Set::of_account(1 - crate::state::account(device));
        let is_seen = |outgoing: &Outgoing| match outgoing.content {
            Content::Text(text) => others.iter().any(|other| self.devices[other].shown.has(usize::from(text))),
            Content::Missed { .. } => false,
        };
        let waits = |outgoing: &Outgoing| outgoing.accepted && !outgoing.delivered && is_seen(outgoing);
        self.devices[device].outbox.iter().position(waits)
    }
}
