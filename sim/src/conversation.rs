//! placeholder
/// Later.
pub fn run(_seed: u64) {}
