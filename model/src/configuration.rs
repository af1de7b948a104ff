//! What is tried: who may do what how often, and which rules hold.

/// How often something may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Budget {
    /// Texts that a person writes.
    pub texts: u8,
    /// Times that keys are due to be replaced.
    pub updates: u8,
    /// Times that the first account removes the second.
    pub removals: u8,
    /// Processes that end, and connections that are cut, what was on its way with them.
    pub restarts: u8,
    /// Acknowledgements, and those of Welcomes, that are lost.
    pub lost_acks: u8,
    /// Entries that the relay passes over: it delivers the one behind.
    pub skips: u8,
    /// Times that the oldest entries are trimmed.
    pub trims: u8,
    /// Stores that are put back to where they were in the beginning.
    pub put_back: u8,
    /// Stores that are put back to before they knew the conversation.
    pub blank: u8,
    /// Stores that are copied; both copies go on.
    pub copies: u8,
    /// Commit entries that are invalid for all.
    pub junk: u8,
    /// Commits that others cannot process.
    pub poison: u8,
    /// Backups of the relay that are put back, with a new instance id.
    pub restores: u8,
    /// The same without one.
    pub silent_restores: u8,
    /// Times that the relay shows some devices another log.
    pub forks: u8,
}

/// The rules, as the engine has them. Each is a fault where it is switched off.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rules {
    /// L3: a commit is merged when reading reaches it, not when it is accepted.
    pub merges_at_its_position: bool,
    /// L1: the relay compares `after`.
    pub compares_after: bool,
    /// L4: what was `Stale` is sealed again.
    pub seals_again: bool,
    /// C10: a request that was not answered is made again (`ask_to_be_added`).
    pub asks_again: bool,
    /// C10: what was missed is asked for (`ask_for_missed`).
    pub asks_for_missed: bool,
    /// L8: a content id is shown once.
    pub knows_content: bool,
    /// N3: a store that was put back replaces its keys before it seals (`must_update`).
    pub replaces_keys: bool,
    /// What was read is durable before it is acknowledged.
    pub persists_first: bool,
    /// L7: a position that is passed over ends the connection.
    pub hangs_up_at_a_gap: bool,
    /// C4: where all have lost it, somebody begins it anew.
    pub begins_anew: bool,
    /// O1: `Stale` that names a commit at or before the cursor shows that it was missed.
    pub stale_shows_a_gap: bool,
    /// O2: what was accepted at a position where the log has ended, or has something else, is said again.
    pub says_again_what_is_gone: bool,
}

impl Rules {
    /// Those of the engine as it is.
    pub const ENGINE: Rules = Rules {
        merges_at_its_position: true,
        compares_after: true,
        seals_again: true,
        asks_again: true,
        asks_for_missed: true,
        knows_content: true,
        replaces_keys: true,
        persists_first: true,
        hangs_up_at_a_gap: true,
        begins_anew: true,
        stale_shows_a_gap: true,
        says_again_what_is_gone: true,
    };

    /// Those of before this model had found two holes in them (docs/repair.md).
    pub const BEFORE: Rules = Rules { stale_shows_a_gap: false, says_again_what_is_gone: false, ..Rules::ENGINE };
}

/// One thing to try.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Its name.
    pub name: &'static str,
    /// Whether it is a conversation of two; else a group, which the first account owns.
    pub pair: bool,
    /// What may happen.
    pub budget: Budget,
    /// Devices at which persons write, the first first; a budget of texts goes round.
    pub writers: crate::state::Set,
    /// Devices that replace their keys, or remove the other account.
    pub committers: crate::state::Set,
    /// Devices to which faults happen.
    pub troubled: crate::state::Set,
    /// Devices that hear what there is to hear at once, and ask at once to be added again; of the others, every delay is
    /// tried.
    pub prompt: crate::state::Set,
    /// Whether other things may happen between what is made durable and its sending; else it goes at once.
    pub slow_sends: bool,
    /// Whether answers of the relay may be late; else they come at once.
    pub late_answers: bool,
    /// Entries that a log has at most while something may still happen. The way out may append more.
    pub log_max: usize,
    /// The rules.
    pub rules: Rules,
}

impl Configuration {
    /// A group of the engine's rules, in which nothing happens.
    pub fn quiet(name: &'static str) -> Configuration {
        use crate::state::Set;
        Configuration {
            name,
            pair: false,
            budget: Budget::default(),
            writers: Set::ALL,
            committers: Set::ALL,
            troubled: Set::ALL,
            prompt: Set::default(),
            slow_sends: false,
            late_answers: false,
            log_max: 6,
            rules: Rules::ENGINE,
        }
    }
}
