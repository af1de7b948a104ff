//! A disk that keeps only what was synced, tears writes, and fails (O; `storage.md`: `kill -9` alone proves nothing).
//!
//! A process runs a trace of 200 operations under `strace`, which writes down every write, sync and name. From that, a
//! model of the disk makes what a power cut could have left at each sync boundary: nothing that was not synced, all of
//! it, or some of it, torn. The store is opened on each of these images, and has to show what was acknowledged, and
//! nothing that was not asked for. The same again with each sync failing once (EIO) and with the disk full from each
//! sync boundary on (ENOSPC). The control is a disk whose syncs do nothing: it has to lose something.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![expect(clippy::explicit_write, reason = "counts are said past the output that the test runner keeps to itself")]
#![cfg(target_os = "linux")]

mod calls;
mod disk;
mod judge;
mod worker;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use calls::{Call, Fault, Place, traced};
use disk::{Disk, Left};
use judge::Judge;

/// One run answers as the model does. For the others it is the process that they watch.
#[test]
fn a_trace_is_answered_as_the_model_answers() {
    match std::env::var_os(worker::VARIABLE) {
        Some(directory) => worker::run(&PathBuf::from(directory), &mut worker::mark),
        None => {
            let mut marks = Vec::new();
            let directory = tempfile::tempdir().unwrap();
            worker::run(directory.path(), &mut |mark| marks.push(mark.to_owned()));
            assert!(marks.iter().all(|mark| mark != "failed" && mark != "stopped"), "{marks:?}");
        }
    }
}

/// O, M8: a power cut at every sync boundary loses nothing that was acknowledged, and nothing corrupt is served.
#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    let Some((place, calls)) = traced(None) else { return };
    let cut = cut_everywhere(&place, &calls, Disk::new(&place.directory));
    assert_eq!(cut.lost, 0, "of {} images; {}", cut.images, cut.first.unwrap_or_default());
    assert!(cut.boundaries > 100, "{cut:?}");
    say(&format!(
        "disk: {} images at {} sync boundaries; each opens with all that was acknowledged",
        cut.images, cut.boundaries
    ));
}

/// The control: where syncs do nothing, the same images show losses. So the test above would see one.
#[test]
fn a_disk_without_syncs_loses_something() {
    let Some((place, calls)) = traced(None) else { return };
    let cut = cut_everywhere(&place, &calls, Disk::without_syncs(&place.directory));
    assert!(cut.lost > 0, "{cut:?}");
    say(&format!(
        "disk: the control, whose syncs do nothing, loses something in {} of {} images",
        cut.lost, cut.images
    ));
}

/// EIO: each sync fails once, and what it should have written down is gone from the cache, as on Linux. The store
/// recovers or stops; then the power is cut.
#[test]
fn a_failed_sync_loses_nothing_acknowledged() {
    fail_everywhere("EIO", |sync, _| Fault::Sync { nth: sync });
}

/// ENOSPC: from each sync boundary on, four writes find the disk full; or all that come.
#[test]
fn a_full_disk_loses_nothing_acknowledged() {
    fail_everywhere("ENOSPC", |sync, write| Fault::Full { from_write: write, for_good: sync.is_multiple_of(2) });
}

#[derive(Debug, Default)]
struct Cut {
    boundaries: usize,
    images: usize,
    /// Images that did not show what was acknowledged.
    lost: usize,
    /// The first of them.
    first: Option<String>,
}

/// Follows a run, and cuts the power before each sync and after each acknowledgement.
fn cut_everywhere(place: &Place, calls: &[Call], mut disk: Disk) -> Cut {
    let (mut judge, mut cut) = (Judge::new(), Cut::default());
    for (number, call) in calls.iter().enumerate() {
        let is_sync = matches!(call, Call::Sync { .. });
        cut.boundaries += usize::from(is_sync);
        if is_sync || matches!(call, Call::Mark(mark) if mark == "done") {
            let seed = number as u64;
            for left in [Left::Synced, Left::All, Left::Some(3 * seed), Left::Some(3 * seed + 1)] {
                disk.cut(left);
                cut.images += 1;
                // A store may also say that it is damaged while it reads; only the control's is.
                let opened = catch_unwind(AssertUnwindSafe(|| judge.open(&place.directory)));
                let opened = opened.unwrap_or(Err("it is damaged".into()));
                if let (Err(why), None) = (&opened, &cut.first) {
                    cut.first = Some(format!("{left:?} before call {number}, {call:.200?}: {why}"));
                }
                cut.lost += usize::from(opened.is_err());
            }
        }
        disk.follow(call);
        if let Call::Mark(mark) = call {
            judge.follow(mark);
        }
    }
    assert!(judge.groups() > 40, "a run of {} groups", judge.groups());
    cut
}

/// Runs the trace once for each sync that there is without a fault, with the fault there.
/// `fault` is told how many syncs there are before it, and how many writes.
fn fail_everywhere(name: &str, fault: impl Fn(usize, usize) -> Fault) {
    let Some((_, calls)) = traced(None) else { return };
    let (mut writes, mut boundaries) = (0, Vec::new());
    for call in &calls {
        match call {
            Call::Sync { .. } => boundaries.push(writes),
            Call::Write { .. } => writes += 1,
            _ => {}
        }
    }
    let syncs = boundaries.len();
    let (mut failed, mut stopped, mut images) = (0, 0, 0);
    for (sync, writes_before) in boundaries.into_iter().enumerate() {
        let (place, calls) = traced(Some(fault(sync + 1, writes_before + 1))).unwrap();
        let (mut judge, mut disk) = (Judge::new(), Disk::new(&place.directory));
        for call in &calls {
            disk.follow(call);
            let Call::Mark(mark) = call else { continue };
            judge.follow(mark);
            failed += usize::from(mark == "failed");
            stopped += usize::from(mark == "stopped");
            if mark == "failed" || mark == "stopped" || mark == "over" {
                for left in [Left::Synced, Left::All, Left::Some(sync as u64)] {
                    images += 1;
                    disk.cut(left);
                    let opened = judge.open(&place.directory);
                    assert!(opened.is_ok(), "{name} at sync {sync}, {left:?}, after {mark}: {}", opened.unwrap_err());
                }
            }
        }
    }
    assert!(failed > 0, "no fault reached the store");
    say(&format!(
        "disk: {name} at each of {syncs} sync boundaries: {failed} groups refused, {stopped} processes stopped; \
         {images} images, nothing acknowledged is lost"
    ));
}

fn say(sentence: &str) {
    writeln!(std::io::stderr(), "{sentence}").unwrap();
}
