//! Figures, and how they are printed: a table for people, one JSON object per figure for programs.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::json;

/// What a bench found, and how.
pub(crate) struct Report {
    pub(crate) bench: &'static str,
    /// What was done, in sentences.
    pub(crate) method: String,
    pub(crate) figures: Vec<Figure>,
}

/// One figure, beside a peer's of the same run where there is one.
pub(crate) struct Figure {
    pub(crate) case: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) peer: Option<(String, f64)>,
}

impl Figure {
    pub(crate) fn new(case: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure { case: case.into(), value, unit, peer: None }
    }

    pub(crate) fn beside(self, peer: impl Into<String>, value: f64) -> Figure {
        Figure { peer: Some((peer.into(), value)), ..self }
    }
}

impl Report {
    /// One line per figure; `ratio` is ours divided by the peer's, in the unit given.
    pub(crate) fn print_lines(&self) -> anyhow::Result<()> {
        for figure in &self.figures {
            let mut line =
                json!({"bench": self.bench, "case": figure.case, "value": figure.value, "unit": figure.unit});
            if let Some((peer, value)) = &figure.peer {
                line["peer"] = json!(peer);
                line["peer_value"] = json!(value);
                line["ratio"] = json!(figure.value / value);
            }
            println!("{line}");
        }
        Ok(())
    }

    /// Machine, commit, method and a table, as Markdown that reads well in a terminal, too.
    pub(crate) fn table(&self) -> anyhow::Result<String> {
        let mut text = format!("# bench {}\n\nPrinted by `cargo xtask bench {}`.\n\n", self.bench, self.bench);
        writeln!(text, "- machine: {}", machine())?;
        writeln!(text, "- commit: {}", commit())?;
        writeln!(text, "- method: {}\n", self.method)?;
        let mut rows = vec![["case", "value", "unit", "peer", "its value", "ratio"].map(str::to_owned)];
        for figure in &self.figures {
            let (peer, value, ratio) = match &figure.peer {
                Some((peer, value)) => (peer.clone(), number(*value), format!("{:.2}", figure.value / value)),
                None => Default::default(),
            };
            rows.push([figure.case.clone(), number(figure.value), figure.unit.to_owned(), peer, value, ratio]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        for (index, row) in rows.iter().enumerate() {
            let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(text, "| {} |", cells.join(" | "))?;
            if index == 0 {
                let lines: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
                writeln!(text, "| {} |", lines.join(" | "))?;
            }
        }
        Ok(text)
    }

    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results");
        std::fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{}.md", self.bench));
        std::fs::write(&file, self.table()?).with_context(|| file.display().to_string())
    }
}

/// Three figures that matter, whatever the size.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    // Not what this process may use: `live` runs on one core and leaves the other to the servers.
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    format!("{}, {cores} cores, {}", model.unwrap_or("unknown CPU"), said_by("uname", &["-sr"]))
}

fn commit() -> String {
    let id = said_by("git", &["rev-parse", "--short=12", "HEAD"]);
    let changed = !said_by("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    if changed { format!("{id}, with changes") } else { id }
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The middle of several runs.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
