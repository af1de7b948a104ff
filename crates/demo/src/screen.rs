//! How the demo looks: a story for people, or one JSON object for programs.

use std::path::Path;

use serde_json::json;

use crate::Options;
use crate::evidence::Given;
use crate::people::Line;
use crate::story::Outcome;

pub(crate) struct Screen {
    json: bool,
    colour: bool,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";
const CYAN: &str = "36";
/// The width of one person's column.
const COLUMN: usize = 58;

impl Screen {
    pub(crate) fn new(options: &Options) -> Screen {
        Screen { json: options.json, colour: options.colour }
    }

    pub(crate) fn chapter(&self, title: &str) {
        self.line(&format!("\n{}", self.paint(BOLD, title)));
    }

    pub(crate) fn fact(&self, fact: &str) {
        self.line(&format!("  {}", self.paint(DIM, fact)));
    }

    pub(crate) fn number(&self, number: &str) {
        number.lines().for_each(|line| self.line(&format!("      {}", self.paint(CYAN, line))));
    }

    /// What was said.
    pub(crate) fn talk<'a>(&self, lines: impl IntoIterator<Item = &'a Line>) {
        for line in lines {
            self.line(&format!("  {:>6} ▸ {}", line.from, line.said));
        }
    }

    pub(crate) fn end(&self, outcome: &Outcome, kept: Option<&Path>) {
        if self.json {
            println!("{}", as_json(outcome));
            return;
        }
        self.side_by_side(outcome);
        self.line(&format!(
            "\n{}",
            self.paint(BOLD, "What it cost, from the first byte until everybody had it; both ways over the wire")
        ));
        for cost in &outcome.costs {
            let (bytes, milliseconds) = (cost.bytes, cost.elapsed.as_secs_f64() * 1_000.0);
            self.line(&format!("  {bytes:>9} bytes {milliseconds:>8.1} ms  {}", cost.what));
        }
        self.line(&format!("\n{}", self.paint(BOLD, "Did it hold?")));
        for claim in &outcome.claims {
            let mark = if claim.holds { self.paint(GREEN, "✓") } else { self.paint(RED, "✗") };
            self.line(&format!("  {mark} {}", claim.says));
        }
        self.line("");
        for (what, count) in &outcome.counts {
            self.line(&format!("  {count:>8}  {what}"));
        }
        self.line(&format!("  {:>7.1}s  from the first key to the last check", outcome.elapsed.as_secs_f64()));
        match kept {
            Some(path) => self.line(&format!("\n  The relay's files are in {}: look for yourself.", path.display())),
            None => self
                .line("\n  See one message step by step: sealwire demo --explain. Keep the relay's files: --keep DIR."),
        }
    }

    fn side_by_side(&self, outcome: &Outcome) {
        self.line(&format!("\n{}", self.paint(BOLD, "What people saw, and what the relay was given")));
        let people = outcome.screens.iter().flat_map(|(name, lines)| {
            let head = std::iter::once(format!("{name}:"));
            head.chain(lines.iter().map(|line| format!("  {}: {}", line.from, line.said)))
        });
        let people: Vec<String> = people.collect();
        let relay: Vec<String> = std::iter::once("for log    bytes  sealed".to_owned())
            .chain(outcome.given.iter().map(given_line))
            .collect();
        for i in 0..people.len().max(relay.len()) {
            let left = people.get(i).map_or("", String::as_str);
            let right = relay.get(i).map_or("", String::as_str);
            self.line(&format!("  {} │ {}", fit(left), self.paint(DIM, right)));
        }
    }

    fn line(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn given_line(given: &Given) -> String {
    format!("{}…   {:>6}  …{}", given.log, given.size, given.tail)
}

fn fit(text: &str) -> String {
    let count = text.chars().count();
    if count <= COLUMN {
        format!("{text}{}", " ".repeat(COLUMN - count))
    } else {
        format!("{}…", text.chars().take(COLUMN - 1).collect::<String>())
    }
}

fn as_json(outcome: &Outcome) -> serde_json::Value {
    let lines = |lines: &[Line]| -> Vec<_> {
        lines.iter().map(|line| json!({ "from": line.from, "said": line.said })).collect()
    };
    let screens: serde_json::Map<_, _> =
        outcome.screens.iter().map(|(name, shown)| ((*name).to_owned(), json!(lines(shown)))).collect();
    let given: Vec<_> =
        outcome.given.iter().map(|g| json!({ "log": g.log, "bytes": g.size, "tail": g.tail })).collect();
    let claims: Vec<_> = outcome.claims.iter().map(|c| json!({ "holds": c.holds, "says": c.says })).collect();
    let cost = |c: &crate::story::Cost| json!({ "what": c.what, "bytes": c.bytes, "milliseconds": c.elapsed.as_secs_f64() * 1_000.0 });
    let costs: Vec<_> = outcome.costs.iter().map(cost).collect();
    let counts: serde_json::Map<_, _> =
        outcome.counts.iter().map(|(what, count)| (what.replace(' ', "_"), json!(count))).collect();
    json!({
        "version": 1,
        "holds": outcome.holds(),
        "screens": screens,
        "relay": given,
        "claims": claims,
        "costs": costs,
        "counts": counts,
        "seconds": outcome.elapsed.as_secs_f64(),
    })
}
