//! The same model for `stateright`'s checker: it searches on its own, and has to come to the same states.

use stateright::{Model, Property};

use crate::action::Action;
use crate::configuration::Configuration;
use crate::property::Safety;
use crate::state::World;

impl Model for Configuration {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::begin(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(self, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.perform(self, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Configuration>> {
        vec![
            Property::always("one epoch", |_, world| Safety::OneEpoch.holds(world)),
            Property::always("in force", |_, world| Safety::InForce.holds(world)),
            Property::always("shown once", |_, world| Safety::ShownOnce.holds(world)),
            Property::always("members only", |_, world| Safety::MembersOnly.holds(world)),
            Property::always("keys once", |_, world| Safety::KeysOnce.holds(world)),
        ]
    }
}
