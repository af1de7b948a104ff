//! What is fuzzed: one function from bytes per decoder, and one for each of the two state machines. `fuzz/` runs them
//! under libFuzzer (`cargo xtask fuzz`); `tests/corpus.rs` replays what was found worth keeping, on stable, in every run
//! of the tests.
//!
//! A target panics on what must not be: a decoder that panics or takes one value in two spellings, a relay that breaks a
//! log's order, an engine that shows what nobody wrote or cannot load what it stored.
#![forbid(unsafe_code)]

mod bytes;
mod decoders;
mod engine;
mod relay;

#[path = "../../../crates/relay-core/tests/it/device.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "shared with the relay's tests, which use all of it")]
mod device;
#[path = "../../../crates/relay-core/tests/it/world.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "shared with the relay's tests, which use all of it")]
mod relay_world;

/// A target: its name, which is that of its folder below `fuzz/corpus/`, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 9] = [
    ("to_relay", decoders::to_relay),
    ("from_relay", decoders::from_relay),
    ("entry", decoders::entry),
    ("content", decoders::content),
    ("envelope", decoders::envelope),
    ("account_log", decoders::account_log),
    ("records", decoders::records),
    ("relay", relay::relay),
    ("engine", engine::engine),
];

/// Runs the target of a name on bytes.
///
/// # Panics
/// If there is none of that name, and where the target finds something.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target of that name");
    target(bytes);
}
