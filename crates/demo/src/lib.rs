//! `sealwire demo`: a relay, people on clients of their own over real WebSockets, conversations, and what the relay saw
//! of them. Everything that it prints is measured while it runs; it fails if one of its claims does not hold.
#![forbid(unsafe_code)]

mod evidence;
mod explain;
mod people;
mod screen;
mod story;
pub mod tap;

use std::path::PathBuf;

pub use explain::explain;

/// How to run the demo.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Print data instead of a story: one JSON object.
    pub json: bool,
    /// Leave the relay's files here.
    pub keep: Option<PathBuf>,
    /// Use colours.
    pub colour: bool,
}

/// Runs the demo and prints it. True only if every claim held.
///
/// # Errors
/// Whatever keeps it from running to its end, such as a full disk.
pub async fn run(options: Options) -> anyhow::Result<bool> {
    let screen = screen::Screen::new(&options);
    let (outcome, kept) = story::tell(&screen, options.keep.clone()).await?;
    screen.end(&outcome, kept.as_deref());
    Ok(outcome.holds())
}
