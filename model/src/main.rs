//! `cargo run --release -p sealwire-model [NAME]`: looks at every configuration, or those of that name, and prints what it
//! has found; with `--before`, by the rules of before two holes were mended (docs/repair.md). Ends with 1 where something
//! must not be.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use sealwire_model::configuration::{Configuration, Rules};
use sealwire_model::configurations;
use sealwire_model::graph::{Found, calm_trace, search};
use sealwire_model::state::DEVICES;
use sealwire_model::verdict::Verdict;
use sealwire_model::way_out::End;
use stateright::{Checker, Model};

/// Up to so many states, `stateright` counts too.
const COUNTED_TWICE_MAX: usize = 200_000;
/// Steps of a way out that are printed at the most.
const STEPS_SHOWN_MAX: usize = 40;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_before = arguments.iter().any(|argument| argument == "--before");
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let rules = if is_before { Rules::BEFORE } else { Rules::ENGINE };
    let chosen =
        configurations::all().into_iter().filter(|on| names.is_empty() || names.iter().any(|name| on.name == *name));
    println!("two accounts, {DEVICES} devices; rules: {}", if is_before { "those of before" } else { "the engine's" });
    println!("{}", header());
    let (begin, mut fails, mut open, mut states) = (Instant::now(), Vec::new(), Vec::new(), 0);
    for on in chosen.map(|on| configurations::with(on, rules)) {
        let begin = Instant::now();
        let found = search(&on);
        states += found.states;
        println!("{}", row(&on, &found, begin.elapsed().as_secs_f64()));
        let counted =
            (found.states <= COUNTED_TWICE_MAX).then(|| on.clone().checker().spawn_bfs().join().unique_state_count());
        if let Some(counted) = counted.filter(|counted| *counted != found.states) {
            fails.push(format!(
                "{}: stateright counts {counted} states, and this program {}",
                title(&on),
                found.states
            ));
        }
        for (end, (states, _)) in &found.ends {
            excused(*end).into_iter().for_each(|why| println!("    excused  {states} states: {why}"));
        }
        for finding in Verdict::of(&on, &found) {
            let sentence = format!("{}: {} states: {}", title(&on), finding.states, finding.what);
            let story = tell(&on, &found, finding.first);
            match finding.verdict {
                Verdict::Told => println!("    told  {} states: {}", finding.states, finding.what),
                Verdict::Open(id) => open.push(format!("{id}  {sentence}\n{story}")),
                Verdict::Fails => fails.push(format!("{sentence}\n{story}")),
            }
        }
    }
    println!("{states} states in {:.0} s", begin.elapsed().as_secs_f64());
    open.iter().for_each(|sentence| println!("\nwas open (docs/repair.md)  {sentence}"));
    fails.iter().for_each(|sentence| println!("\nFAILS  {sentence}"));
    if fails.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn header() -> String {
    format!(
        "{:<34}{:>10}{:>12}{:>7}{:>12}{:>10}{:>9}{:>8}",
        "configuration", "states", "transitions", "depth", "ways out", "longest", "stuck", "s"
    )
}

fn row(on: &Configuration, found: &Found, seconds: f64) -> String {
    let stuck: usize = found.stuck.values().map(|(states, _)| states).sum();
    format!(
        "{:<34}{:>10}{:>12}{:>7}{:>12}{:>10}{:>9}{:>8.1}",
        title(on),
        found.states,
        found.transitions,
        found.depth,
        found.calm_states,
        found.calm_depth,
        stuck,
        seconds
    )
}

fn title(on: &Configuration) -> String {
    format!("{}, {}", on.name, if on.pair { "of two" } else { "group" })
}

/// Why a state ends well though somebody has not seen a text.
fn excused(end: End) -> Vec<&'static str> {
    let End::Well(excused) = end else { return Vec::new() };
    let author_lost_it =
        excused.author_lost_it.then_some("a text is not in the log, and its author's store was put back to before it");
    let author_removed = excused.author_removed.then_some("a text was not shown, and its author was removed");
    author_lost_it.into_iter().chain(author_removed).collect()
}

/// How it comes to a state, and what happens then.
fn tell(on: &Configuration, found: &Found, state: u32) -> String {
    let trace = found.trace(state);
    let (steps, _) = calm_trace(on, &trace);
    let mut lines: Vec<String> = trace.iter().map(|action| format!("    {action:?}")).collect();
    lines.push("  then, left alone:".to_owned());
    lines.extend(steps.iter().take(STEPS_SHOWN_MAX).map(|step| format!("    {step}")));
    if steps.len() > STEPS_SHOWN_MAX {
        lines.push(format!("    and so on, {} steps", steps.len()));
    }
    lines.join("\n")
}
