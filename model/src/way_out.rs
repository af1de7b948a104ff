//! From a state in which nothing goes wrong any more: what devices and an honest relay make of it.

use std::fmt;

use crate::action::Action;
use crate::configuration::{Budget, Configuration};
use crate::property::{Excused, Unwell};
use crate::state::{DEVICES, Set, World, device_name};
use crate::trouble::Trouble;

/// Steps within which all has to be done. The longest that was seen needs less than a third.
const STEPS_MAX: usize = 600;
/// Entries that the way out may append, so that whoever appends for ever is seen.
const ENTRIES_MAX: usize = 48;

/// How a state ends when it is left alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum End {
    /// All are together, and everything was said and read; with what nobody can say again.
    Well(Excused),
    /// Not that; but an application was told of a contradiction, on which nothing follows (L6, absent).
    Contradiction(Unwell),
    /// Not that; but a device was told that it is out.
    Out(Unwell),
    /// Not by itself, and nobody was told; but all are together once another member says something, as each does that is
    /// connected when its keys are due (C11).
    NextWord,
    /// Nothing is left to do, and nobody was told.
    Still(Unwell),
    /// It goes on for ever.
    Endless,
}

impl End {
    /// Whether it needs no mending.
    pub fn is_well(self) -> bool {
        matches!(self, End::Well(_))
    }
}

/// What happens while a world is left alone, beside what devices do by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Calm {
    /// A device or the relay does something.
    Does(Action),
    /// Connections are cut, as they are sooner or later; once for each device.
    Reconnects(usize),
    /// Where two stores take turns, the person decides for this one (`Engine::reclaim`).
    Reclaims(usize),
    /// It did not end well: keys are due at all who can follow.
    KeysAreDue,
}

impl fmt::Display for Calm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Calm::Does(action) => write!(f, "{action:?}"),
            Calm::Reconnects(device) => write!(f, "{}: is connected anew", device_name(*device)),
            Calm::Reclaims(device) => write!(f, "{}: the person decides for this store", device_name(*device)),
            Calm::KeysAreDue => write!(f, "keys are due at all who can follow"),
        }
    }
}

impl World {
    /// The next thing that happens in a world that is left alone; none where nothing is left to do.
    pub fn calm_action(&self, on: &Configuration) -> Option<Calm> {
        if self.fork.is_some() {
            return Some(Calm::Does(Action::Trouble(Trouble::EndFork)));
        }
        if let Some(action) = self.calm_step(on) {
            return Some(Calm::Does(action));
        }
        let anew = self.calm.unwrap_or_default();
        if let Some(device) = Set::ALL.without(anew).iter().next() {
            return Some(Calm::Reconnects(device));
        }
        (0..DEVICES)
            .find(|device| self.devices[*device].told.conflict && self.put_back.has(*device))
            .map(Calm::Reclaims)
    }

    /// It happens.
    pub fn calm_perform(&mut self, on: &Configuration, calm: Calm) {
        match calm {
            Calm::Does(action) => self.perform(on, action),
            Calm::Reconnects(device) => {
                self.cut(device);
                self.calm = Some(self.calm.unwrap_or_default().and(Set::one(device)));
            }
            Calm::Reclaims(device) => {
                self.devices[device].told.conflict = false;
                self.rotated.remove(device);
            }
            Calm::KeysAreDue => {
                self.devices.iter_mut().filter(|own| own.is_active()).for_each(|own| own.wants_update = true);
            }
        }
    }

    /// How it ends, step by step: `see` sees each state, and may know how that one ends.
    pub fn left_alone(&self, on: &Configuration, mut see: impl FnMut(&World, Option<Calm>) -> Option<End>) -> End {
        let mut world = self.clone();
        (world.left, world.calm) = (Budget::default(), Some(Set::default()));
        let end = world.goes_on(on, &mut see);
        if !matches!(end, End::Still(_) | End::Endless) {
            return end;
        }
        let _seen = see(&world, Some(Calm::KeysAreDue));
        world.calm_perform(on, Calm::KeysAreDue);
        match world.goes_on(on, &mut |_, _| None) {
            End::Well(_) => End::NextWord,
            End::Contradiction(unwell) => End::Contradiction(unwell),
            _ => end,
        }
    }

    fn goes_on(&mut self, on: &Configuration, see: &mut impl FnMut(&World, Option<Calm>) -> Option<End>) -> End {
        let limit = self.log.entries.len() + ENTRIES_MAX;
        for _ in 0..STEPS_MAX {
            let next = self.calm_action(on);
            if let Some(end) = see(self, next) {
                return end;
            }
            let Some(next) = next else { return self.end() };
            self.calm_perform(on, next);
            if self.log.entries.len() > limit {
                break;
            }
        }
        match self.health() {
            Err(unwell) if self.is_told_of_contradiction() => End::Contradiction(unwell),
            _ => End::Endless,
        }
    }

    fn end(&self) -> End {
        match self.health() {
            Ok(excused) => End::Well(excused),
            Err(unwell) if self.is_told_of_contradiction() => End::Contradiction(unwell),
            Err(unwell) if self.is_told_to_be_out() => End::Out(unwell),
            Err(unwell) => End::Still(unwell),
        }
    }
}
