//! What is made of what a search has found.

use crate::configuration::{Configuration, Rules};
use crate::graph::Found;
use crate::property::{SAFETY, Unwell};
use crate::way_out::End;

/// What a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The engine has no way back, and its application was told.
    Told,
    /// A hole that was mended: its number in docs/repair.md.
    Open(&'static str),
    /// It must not be.
    Fails,
}

/// Something that a search has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What it is.
    pub verdict: Verdict,
    /// How many states.
    pub states: usize,
    /// The first of them.
    pub first: u32,
    /// In words.
    pub what: String,
}

impl Verdict {
    /// All that is to be said of a search; nothing where every state has a way out, and is as it must be.
    pub fn of(on: &Configuration, found: &Found) -> Vec<Finding> {
        let broken = found.unsafe_state.map(|(safety, first)| {
            let what = SAFETY.iter().find(|(known, _)| *known == safety).map_or("", |(_, what)| what);
            Finding { verdict: Verdict::Fails, states: 1, first, what: format!("does not hold: {what}") }
        });
        let stuck = found.stuck.iter().map(|(end, (states, first))| {
            let (verdict, what) = judge(on, *end);
            Finding { verdict, states: *states, first: *first, what }
        });
        broken.into_iter().chain(stuck).collect()
    }
}

fn judge(on: &Configuration, end: End) -> (Verdict, String) {
    let open = |id, is_known: bool| if is_known { Verdict::Open(id) } else { Verdict::Fails };
    let budget = &on.budget;
    // Where the holes of docs/repair.md were, by the rules of before, and nowhere else.
    let stale_for_ever = open("O1", budget.trims > 0 && on.rules == Rules::BEFORE);
    let takes_back = budget.silent_restores + budget.forks > 0 || on.pair && budget.restores > 0;
    let taken_back = open("O2", takes_back && on.rules == Rules::BEFORE);
    match end {
        End::Well(_) => (Verdict::Fails, "ends well, and is counted as stuck".to_owned()),
        End::Contradiction(unwell) => (Verdict::Told, format!("{}; `OrderContradicted` was told", say(unwell))),
        End::Out(unwell) => (Verdict::Told, format!("{}; `NotDone` was told", say(unwell))),
        End::NextWord => (stale_for_ever, "no way out before another member says something".to_owned()),
        End::Endless => (stale_for_ever, "the same is sent for ever".to_owned()),
        End::Still(Unwell::Unseen(device)) => {
            (taken_back, format!("a text that was accepted is never shown at {device}, and nobody is told"))
        }
        End::Still(unwell) => (Verdict::Fails, format!("no way out: {}", say(unwell))),
    }
}

fn say(unwell: Unwell) -> String {
    match unwell {
        Unwell::Apart(device) => format!("{device} is not with the others"),
        Unwell::Waits(device) => format!("{device} waits"),
        Unwell::Unseen(device) => format!("a text was not shown at {device}"),
        Unwell::Gone => "a text is gone".to_owned(),
    }
}
