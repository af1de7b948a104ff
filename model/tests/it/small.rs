use sealwire_model::configuration::{Budget, Configuration, Rules};
use sealwire_model::configurations::{group, pair, small, with};
use sealwire_model::graph::search;
use sealwire_model::verdict::{Finding, Verdict};
use stateright::{Checker, Model};

/// C10, L2, L4, L8: each state of a small conversation is as it must be, and has a way to where all are together and have
/// read what was said.
#[test]
fn every_state_has_a_way_out() {
    for on in small() {
        let found = search(&on);
        for finding in Verdict::of(&on, &found) {
            assert!(finding.verdict == Verdict::Told, "{}: {finding:?}\n{:?}", on.name, found.trace(finding.first));
        }
        assert!(found.states > 1_000 && found.depth > 15, "{}: {} states", on.name, found.states);
    }
}

/// `stateright` comes to as many states by its own search, with another hash, and finds nothing that must not be.
#[test]
fn another_checker_counts_as_many_states() {
    for on in ["late answers", "trimmed", "half-taken Welcome"].into_iter().flat_map(|name| [group(name), pair(name)]) {
        let on = on.expect("a name of the list");
        let checked = on.clone().checker().spawn_bfs().join();
        assert_eq!(checked.unique_state_count(), search(&on).states, "{}", on.name);
        checked.assert_properties();
    }
}

/// By the rules of before, both holes are found (O1, O2), and nothing else; by those of now, neither.
#[test]
fn both_holes_that_were_mended_are_found() {
    let alone = |name, budget| Configuration { budget, log_max: 4, ..group(name).expect("a name of the list") };
    let busy = Budget { texts: 1, updates: 1, ..Budget::default() };
    let trimmed = alone("trimmed", Budget { trims: 1, ..busy });
    let silent = alone("put back silently", Budget { silent_restores: 1, updates: 0, ..busy });
    let confirmed = Configuration { pair: true, ..alone("relay put back", Budget { restores: 1, updates: 0, ..busy }) };
    for (on, id) in [(trimmed, "O1"), (silent, "O2"), (confirmed, "O2")] {
        let before = with(on.clone(), Rules::BEFORE);
        let findings = Verdict::of(&before, &search(&before));
        let open: Vec<_> = findings.iter().filter(|finding| finding.verdict != Verdict::Told).collect();
        let is_open = open.iter().all(|finding| finding.verdict == Verdict::Open(id));
        assert!(is_open && !open.is_empty(), "{}: {findings:?}", on.name);
        let told = |finding: &Finding| finding.verdict == Verdict::Told;
        assert!(Verdict::of(&on, &search(&on)).iter().all(told), "{}", on.name);
    }
}
