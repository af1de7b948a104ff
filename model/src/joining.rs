//! Joining (`engine::conversation::joining`).

use crate::configuration::Configuration;
use crate::state::{Device, Group, Set, Welcome, World, account};

impl World {
    /// `Engine::join`: a Welcome that came.
    pub fn join(&mut self, on: &Configuration, device: usize, welcome: &Welcome) {
        let own = &self.devices[device];
        if own.seeks && own.joined_by.is_none() && own.known && !on.pair {
            // Another member was quicker to begin it anew.
            self.drop_pending(device);
        }
        let own = &self.devices[device];
        if own.known && own.joined_by == Some(welcome.commit) {
            return;
        }
        let opens = own.own_readd == Some(welcome.key) || own.published == welcome.key;
        let is_unproven = (own.unproven || own.seeks) && own.joined_by.is_some() && own.is_active();
        if is_unproven && opens {
            self.fall_behind(device);
        }
        let own = &mut self.devices[device];
        let stands = own.is_active() && !own.provisional;
        if stands && !on.pair {
            return;
        }
        let standing = own.group.filter(|_| stands).map(|group| group.generation);
        if own.behind {
            own.group = None;
        }
        if !opens {
            // The next request brings other keys; a store that does not know the conversation asks for the list of logs,
            // as it does when it is connected.
            own.own_readd = None;
            return;
        }
        let is_later = standing.is_none_or(|before| welcome.generation > before);
        if !is_later || !self.leads_back(on, device, welcome) {
            return;
        }
        let before = self.devices[device].clone();
        let last_generation = before.group.map_or(before.generation, |group| group.generation);
        let is_anew = before.known && welcome.generation > last_generation;
        let rejoins = before.known && (before.behind || is_anew);
        let mut joined = Device {
            known: true,
            outbox: before.outbox,
            shown: before.shown,
            instance: before.instance,
            told: before.told,
            connected: before.connected,
            ..Device::blank(before.published)
        };
        if before.known && !before.removed {
            joined.asked_for = before.asked_for;
            joined.missed_behind = before.missed_behind.filter(|_| before.behind);
            if !is_anew || before.behind {
                joined.chains_from = before.view.len() as u8;
                joined.view = before.view;
                joined.readds = before.readds;
                if is_anew {
                    welcome.members.iter().for_each(|member| joined.readds[member] = None);
                }
            }
        }
        joined.group = Some(Group {
            id: welcome.group,
            epoch: welcome.commit,
            members: welcome.members,
            generation: welcome.generation,
            sealed: 0,
        });
        (joined.joined_by, joined.seeks, joined.generation) = (Some(welcome.commit), true, welcome.generation);
        self.devices[device] = joined;
        self.unseal_stale(device);
        if rejoins {
            self.resend_unconfirmed(on, device);
        }
    }

    /// `Engine::check_joined`, of who has lost a group: who leads back, and into which one.
    fn leads_back(&self, on: &Configuration, device: usize, welcome: &Welcome) -> bool {
        let Some(lost) = self.devices[device].lost else { return true };
        let inviter = account(usize::from(welcome.commit.by));
        let accounts = |members: Set| [0, 1].map(|account| !members.also_in(Set::of_account(account)).is_empty());
        let of_lost = accounts(lost.members);
        // Who was alone comes back by an accepted contact too, and here all are accepted.
        let was_alone = !of_lost[1 - account(device)];
        let is_same = lost.id == welcome.group;
        let is_owner = inviter == 0;
        let goes_on = welcome.generation > lost.generation && (is_owner || of_lost == accounts(welcome.members));
        (of_lost[inviter] || was_alone) && (on.pair || is_same || goes_on)
    }
}
