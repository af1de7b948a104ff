//! Planted faults: rules that are switched off, each of which has to be found.

use sealwire_model::configuration::{Budget, Configuration, Rules};
use sealwire_model::configurations::{group, with};
use sealwire_model::graph::search;
use sealwire_model::property::Safety;
use sealwire_model::state::Set;
use sealwire_model::verdict::{Finding, Verdict};

/// What a search finds that must not be.
fn finds(on: Configuration, rules: Rules) -> Vec<Finding> {
    let on = with(on, rules);
    let findings = Verdict::of(&on, &search(&on));
    findings.into_iter().filter(|finding| finding.verdict == Verdict::Fails).collect()
}

fn listed(name: &str) -> Configuration {
    group(name).expect("a name of the list")
}

/// The fault is found, by these words; and without it there is nothing.
fn is_found(on: Configuration, rules: Rules, by: &str) {
    assert_eq!(finds(on.clone(), Rules::ENGINE), [], "{}", on.name);
    let found = finds(on, rules);
    assert!(found.iter().any(|finding| finding.what.contains(by)), "{found:?}");
}

fn does_not_hold(safety: Safety) -> &'static str {
    use sealwire_model::property::SAFETY;
    SAFETY.iter().find(|(known, _)| *known == safety).expect("a property").1
}

/// L3: a commit that is merged on `Accepted` loses what stands before it.
#[test]
fn a_commit_that_is_merged_early_is_found() {
    is_found(racing(), Rules { merges_at_its_position: false, ..Rules::ENGINE }, "never shown");
}

/// L1: a relay that does not compare `after` lets a message stand where nobody can open it.
#[test]
fn an_order_that_nobody_compares_is_found() {
    let rules = Rules { compares_after: false, ..Rules::ENGINE };
    is_found(racing(), rules, does_not_hold(Safety::InForce));
    is_found(racing(), rules, "never shown");
}

/// L4: what is `Stale` is dropped instead of sealed again.
#[test]
fn a_stale_message_that_is_dropped_is_found() {
    is_found(racing(), Rules { seals_again: false, ..Rules::ENGINE }, "a text is gone");
}

/// C10: a request that was lost with a relay's backup is not made again.
#[test]
fn a_device_that_asks_once_is_found() {
    is_found(lost_by_all(), Rules { asks_again: false, ..Rules::ENGINE }, "is not with the others");
}

/// C4: nobody begins anew what all have lost.
#[test]
fn a_group_that_nobody_begins_anew_is_found() {
    is_found(lost_by_all(), Rules { begins_anew: false, ..Rules::ENGINE }, "is not with the others");
}

/// C10: what was missed is not asked for.
#[test]
fn a_gap_that_is_not_asked_for_is_found() {
    is_found(put_back(), Rules { asks_for_missed: false, ..Rules::ENGINE }, "never shown");
}

/// L8: what is said again is shown again.
#[test]
fn content_that_is_not_recognised_is_found() {
    is_found(put_back(), Rules { knows_content: false, ..Rules::ENGINE }, does_not_hold(Safety::ShownOnce));
}

/// N3: a store that was put back seals with a key that the newer one has used.
#[test]
fn a_key_that_is_used_twice_is_found() {
    let twice = Configuration {
        budget: Budget { texts: 2, put_back: 1, ..Budget::default() },
        writers: Set::one(0),
        troubled: Set::one(0),
        ..listed("old store")
    };
    is_found(twice, Rules { replaces_keys: false, ..Rules::ENGINE }, does_not_hold(Safety::KeysOnce));
}

/// What was read is acknowledged before it is durable.
#[test]
fn a_cursor_that_moves_first_is_found() {
    let once = Configuration { budget: Budget { texts: 1, restarts: 1, ..Budget::default() }, ..listed("restarts") };
    is_found(once, Rules { persists_first: false, ..Rules::ENGINE }, "never shown");
}

/// L7: an entry that was passed over is not fetched.
#[test]
fn a_gap_that_is_passed_over_is_found() {
    is_found(listed("passed over"), Rules { hangs_up_at_a_gap: false, ..Rules::ENGINE }, "never shown");
}

/// A text and a commit at once, of devices that may be slow.
fn racing() -> Configuration {
    let budget = Budget { texts: 1, updates: 1, ..Budget::default() };
    Configuration { budget, log_max: 4, prompt: Set(0b0010), ..listed("races") }
}

/// A relay that is put back to before a commit that all had read.
fn lost_by_all() -> Configuration {
    Configuration {
        budget: Budget { updates: 1, restores: 1, ..Budget::default() },
        prompt: Set(0b1110),
        committers: Set::one(0),
        ..listed("relay put back")
    }
}

/// A store that is put back to before a text.
fn put_back() -> Configuration {
    Configuration { troubled: Set::one(3), writers: Set::one(0), log_max: 5, ..listed("old store") }
}
