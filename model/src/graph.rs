//! Every state that can be reached, and from which of them a good one can: breadth first, so that a trace is a shortest
//! one; then backwards from the good ones. `stateright` counts the same states for comparison (docs/repair.md); what it
//! calls `eventually` passes over cycles, so that the way out is looked for here.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::action::Action;
use crate::configuration::Configuration;
use crate::property::{SAFETY, Safety};
use crate::state::World;
use crate::way_out::{Calm, End};

/// What a search has found.
#[derive(Debug, Default)]
pub struct Found {
    /// States that can be reached while something may still happen.
    pub states: usize,
    /// Ways from one to another.
    pub transitions: usize,
    /// The longest shortest way to a state.
    pub depth: usize,
    /// States that were seen on ways out, beyond those.
    pub calm_states: usize,
    /// The longest way out, in steps, of those that were walked to their end.
    pub calm_depth: usize,
    /// How states end that are left alone: how many, and the first that was found.
    pub ends: BTreeMap<End, (usize, u32)>,
    /// States that end badly when they are left alone, and from which what devices and the relay may do leads to one that
    /// ends well: another order would have helped.
    pub by_other_order: usize,
    /// States from which nothing leads to a good one, by how they end.
    pub stuck: BTreeMap<End, (usize, u32)>,
    /// The first state in which something did not hold that has to.
    pub unsafe_state: Option<(Safety, u32)>,
    parents: Vec<(u32, Option<Action>)>,
}

/// What a state was found to be. A state's fingerprint stands for it: 64 bits, as in `stateright`.
type Known<T> = HashMap<u64, T, BuildHasherDefault<PassOn>>;

/// Looks at everything that a configuration can come to.
pub fn search(on: &Configuration) -> Found {
    let mut found = Found::default();
    let mut known: Known<u32> = Known::default();
    let mut calm: Known<End> = Known::default();
    let mut ends: Vec<End> = Vec::new();
    // Ways that need nobody's fault and nobody's wish: by what they lead to.
    let mut honest: Vec<(u32, u32)> = Vec::new();
    let first = World::begin(on);
    known.insert(fingerprint(&first), 0);
    found.parents.push((0, None));
    let mut layer = vec![(0_u32, first)];
    let mut actions = Vec::new();
    while !layer.is_empty() {
        let mut next_layer = Vec::new();
        for (number, world) in layer {
            debug_assert_eq!(number as usize, ends.len());
            if found.unsafe_state.is_none()
                && let Some((safety, _)) = SAFETY.iter().find(|(safety, _)| !safety.holds(&world))
            {
                found.unsafe_state = Some((*safety, number));
            }
            ends.push(end_of(on, &world, &mut calm, &mut found.calm_depth));
            actions.clear();
            world.actions(on, &mut actions);
            for action in actions.iter().copied() {
                let mut next = world.clone();
                next.perform(on, action);
                found.transitions += 1;
                let to = match known.entry(fingerprint(&next)) {
                    Entry::Occupied(place) => *place.get(),
                    Entry::Vacant(place) => {
                        let to = found.parents.len() as u32;
                        place.insert(to);
                        found.parents.push((number, Some(action)));
                        next_layer.push((to, next));
                        to
                    }
                };
                let is_honest = matches!(action, Action::Step(..) | Action::Trouble(crate::trouble::Trouble::EndFork));
                if is_honest && to != number {
                    honest.push((to, number));
                }
            }
        }
        found.depth += usize::from(!next_layer.is_empty());
        layer = next_layer;
    }
    (found.states, found.calm_states) = (found.parents.len(), calm.len());
    found.judge(&ends, honest);
    found
}

impl Found {
    /// Backwards from what ends well: whatever is not reached is stuck.
    fn judge(&mut self, ends: &[End], mut honest: Vec<(u32, u32)>) {
        honest.sort_unstable();
        let mut has_way: Vec<bool> = ends.iter().map(|end| end.is_well()).collect();
        let mut to_see: Vec<u32> = (0..ends.len() as u32).filter(|state| has_way[*state as usize]).collect();
        while let Some(state) = to_see.pop() {
            let from = honest.partition_point(|(to, _)| *to < state);
            for (_, before) in honest[from..].iter().take_while(|(to, _)| *to == state) {
                if !std::mem::replace(&mut has_way[*before as usize], true) {
                    to_see.push(*before);
                }
            }
        }
        for (state, end) in ends.iter().enumerate() {
            note(&mut self.ends, *end, state);
            match (end.is_well(), has_way[state]) {
                (true, _) => {}
                (false, true) => self.by_other_order += 1,
                (false, false) => note(&mut self.stuck, *end, state),
            }
        }
    }

    /// How a state comes to be, from the beginning.
    pub fn trace(&self, state: u32) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut at = state;
        while let (before, Some(action)) = self.parents[at as usize] {
            actions.push(action);
            at = before;
        }
        actions.reverse();
        actions
    }
}

fn note(ends: &mut BTreeMap<End, (usize, u32)>, end: End, state: usize) {
    ends.entry(end).or_insert((0, state as u32)).0 += 1;
}

/// How a state ends when it is left alone; what was seen on the way ends so too.
fn end_of(on: &Configuration, world: &World, calm: &mut Known<End>, longest: &mut usize) -> End {
    let mut path = Vec::new();
    let end = world.left_alone(on, |world, _| {
        let fingerprint = fingerprint(world);
        let known = calm.get(&fingerprint).copied();
        path.push(fingerprint);
        known
    });
    *longest = path.len().max(*longest);
    calm.extend(path.into_iter().map(|fingerprint| (fingerprint, end)));
    end
}

/// What happens from a state on when it is left alone, for a person to read.
pub fn calm_trace(on: &Configuration, actions: &[Action]) -> (Vec<Calm>, World) {
    let mut world = World::begin(on);
    actions.iter().for_each(|action| world.perform(on, *action));
    let (mut steps, mut last) = (Vec::new(), world.clone());
    world.left_alone(on, |world, next| {
        steps.extend(next);
        last = world.clone();
        None
    });
    (steps, last)
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = Folded(SEED);
    world.hash(&mut hasher);
    hasher.finish()
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

/// Folded multiplication, as in wyhash: a state is some hundred bytes, and is hashed each time that it is come to. That no
/// two were taken for one is seen by `stateright`, which hashes otherwise, and counts as many.
struct Folded(u64);

impl Folded {
    fn fold(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value) * u128::from(FACTOR);
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ SEED;
    }
}

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        let mut last = Folded(self.0);
        last.fold(SEED);
        last.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut eight = [0; 8];
            eight[..part.len()].copy_from_slice(part);
            self.fold(u64::from_le_bytes(eight));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.fold(u64::from(value) + 1);
    }

    fn write_u32(&mut self, value: u32) {
        self.fold(u64::from(value) + 1);
    }

    fn write_u64(&mut self, value: u64) {
        self.fold(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.fold(value as u64 + 1);
    }
}

/// What is hashed is a fingerprint already.
#[derive(Default)]
struct PassOn(u64);

impl Hasher for PassOn {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
