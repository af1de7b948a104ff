//! Replays what fuzzing found worth keeping, and some noise. On stable, in every run of the tests.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sealwire_fuzz::TARGETS;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Total decoders, and state machines that keep their invariants.
#[test]
fn every_kept_input_still_passes() {
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!(!files.is_empty(), "no corpus of {name}: cargo xtask fuzz");
        for file in files {
            // A target that fails names its input.
            let bytes = std::fs::read(&file).unwrap();
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "{}", file.display());
        }
    }
}

#[test]
fn noise_passes() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    for (name, target) in TARGETS {
        let times = if matches!(name, "relay" | "engine") { 200 } else { 2_000 };
        for _ in 0..times {
            let mut bytes = vec![0; (rng.next_u32() % 600) as usize];
            rng.fill_bytes(&mut bytes);
            target(&bytes);
        }
    }
}
