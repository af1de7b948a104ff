//! What is tried: one trouble after the other, beside somebody who writes and keys that are due.

use crate::configuration::{Budget, Configuration, Rules};
use crate::state::Set;

/// A text is written, and keys are due at one device: something is always under way.
const BUSY: Budget = Budget {
    texts: 1,
    updates: 1,
    removals: 0,
    restarts: 0,
    lost_acks: 0,
    skips: 0,
    trims: 0,
    put_back: 0,
    blank: 0,
    copies: 0,
    junk: 0,
    poison: 0,
    restores: 0,
    silent_restores: 0,
    forks: 0,
};

/// The devices to which troubles come where one of each account is enough: `a1` and `b2`.
const ONE_OF_EACH: Set = Set(0b1001);
/// The others, which then hear at once what there is to hear.
const THE_OTHERS: Set = Set(0b0110);

/// All that the program looks at: each in a group, and in a conversation of two.
pub fn all() -> Vec<Configuration> {
    [groups(), groups().into_iter().filter(|on| on.budget.removals == 0).map(in_two).collect()].concat()
}

/// What the tests look at, in a few seconds: those of few states.
pub fn small() -> Vec<Configuration> {
    const SMALL: [&str; 7] = [
        "late answers",
        "lost acknowledgements",
        "passed over",
        "removal",
        "invalid commit",
        "trimmed",
        "half-taken Welcome",
    ];
    all().into_iter().filter(|on| SMALL.contains(&on.name)).collect()
}

/// The one of that name, in a group.
pub fn group(name: &str) -> Option<Configuration> {
    groups().into_iter().find(|on| on.name == name)
}

/// The one of that name, in a conversation of two.
pub fn pair(name: &str) -> Option<Configuration> {
    group(name).map(in_two)
}

/// As it is, but for the rules.
pub fn with(on: Configuration, rules: Rules) -> Configuration {
    Configuration { rules, ..on }
}

fn in_two(on: Configuration) -> Configuration {
    // Where a relay is put back, devices of one account that commit are enough: it is the largest.
    let committers = if on.budget.restores > 0 { Set::one(0) } else { on.committers };
    Configuration { pair: true, committers, ..on }
}

fn groups() -> Vec<Configuration> {
    let slow = |on| Configuration { slow_sends: true, prompt: Set::default(), ..on };
    let with_answers = |on| Configuration { late_answers: true, ..slow(on) };
    let all = |on| Configuration { troubled: Set::ALL, prompt: Set::default(), ..on };
    let short = |on| Configuration { log_max: 5, ..on };
    vec![
        slow(one("races", Budget { texts: 2, updates: 2, ..BUSY })),
        with_answers(one("late answers", Budget { restarts: 1, ..BUSY })),
        all(slow(one("restarts", Budget { restarts: 2, ..BUSY }))),
        all(one("lost acknowledgements", Budget { lost_acks: 2, ..BUSY })),
        all(one("passed over", Budget { skips: 1, ..BUSY })),
        slow(one("removal", Budget { removals: 1, restarts: 1, ..BUSY })),
        all(one("invalid commit", Budget { junk: 1, ..BUSY })),
        one("trimmed", Budget { trims: 1, ..BUSY }),
        one("old store", Budget { put_back: 1, ..BUSY }),
        short(one("blank store", Budget { blank: 1, ..BUSY })),
        short(one("copied store", Budget { copies: 3, ..BUSY })),
        one("half-taken Welcome", Budget { put_back: 1, lost_acks: 1, updates: 0, ..BUSY }),
        one("unprocessable", Budget { poison: 1, updates: 0, ..BUSY }),
        short(one("relay put back", Budget { restores: 1, ..BUSY })),
        short(one("put back silently", Budget { silent_restores: 1, ..BUSY })),
        short(one("fork", Budget { forks: 1, ..BUSY })),
    ]
}

fn one(name: &'static str, budget: Budget) -> Configuration {
    Configuration {
        budget,
        writers: ONE_OF_EACH,
        committers: Set(0b0101),
        troubled: ONE_OF_EACH,
        prompt: THE_OTHERS,
        ..Configuration::quiet(name)
    }
}
