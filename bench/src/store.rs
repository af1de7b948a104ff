//! The relay's embedded store with a million entries: append, read, cursor, restart.

use std::time::Instant;

use anyhow::{Context, bail, ensure};
use sealwire_store::logs::Limits;
use sealwire_store::{Append, Operation, Outcome, RecordKey, RecordKind, RecordSwap, Store};
use sealwire_store_sqlite::SqliteStore;
use sealwire_wire::entry::Entry;
use sealwire_wire::{EnvelopeId, InboxAddress, InstanceId, LogId, Position, Time};

use crate::report::{Figure, Report};

const INBOXES: usize = 1_000;
/// As large as the relay's committer makes its groups.
const GROUP: usize = 256;
const BODY: usize = 256;

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    let entries = if quick { 20_000 } else { 1_000_000 };
    let folder = tempfile::tempdir()?;
    let open = || SqliteStore::open(folder.path(), InstanceId([1; 16]), Limits::default());
    let store = open()?;
    let now = Time(1_790_000_000_000);
    open_inboxes(&store, now)?;

    let (begin, cpu) = (Instant::now(), cpu_seconds()?);
    for group in 0..entries / GROUP {
        let operations: Vec<_> = (0..GROUP).map(|i| append((group * GROUP + i) as u64)).collect();
        let outcomes = store.commit(now, &operations)?;
        if !outcomes.iter().all(|outcome| matches!(outcome, Outcome::Appended { .. })) {
            bail!("not appended: {:?}", outcomes[0]);
        }
    }
    let appended = (entries / GROUP * GROUP) as f64;
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let mut figures = vec![
        Figure::new("append, groups of 256", appended / seconds, "1/s"),
        Figure::new("append, CPU", cpu / appended * 1e6, "CPU-s/M"),
        Figure::new("on disk", size(folder.path())? as f64 / appended, "B/entry"),
    ];

    let (begin, mut read) = (Instant::now(), 0);
    for inbox in 0..INBOXES {
        let mut after = Position::START;
        loop {
            let page = store.read(log(inbox), after, 256, 200 * 1024)?;
            let Some(last) = page.entries.last() else { break };
            (read, after) = (read + page.entries.len(), last.position);
        }
    }
    ensure!(read as f64 == appended, "{read} of {appended} were read");
    figures.push(Figure::new("read, pages of 256", read as f64 / begin.elapsed().as_secs_f64(), "1/s"));

    drop(store);
    let begin = Instant::now();
    let store = open()?;
    let first = store.read(log(0), Position::START, 1, 1)?;
    ensure!(first.entries.len() == 1, "nothing is there after the restart");
    figures.push(Figure::new("restart, until the first entry is read", begin.elapsed().as_secs_f64() * 1e3, "ms"));

    let (begin, mut moves) = (Instant::now(), 0);
    let each = entries / GROUP * GROUP / INBOXES;
    for upto in (1..=each as u64).step_by(16) {
        for inboxes in (0..INBOXES).collect::<Vec<_>>().chunks(GROUP) {
            let cursor = |inbox: &usize| Operation::MoveCursor {
                log: log(*inbox),
                reader: InboxAddress(address(*inbox)),
                upto: Position(upto),
            };
            let operations: Vec<_> = inboxes.iter().map(cursor).collect();
            moves += store.commit(now, &operations)?.len();
        }
    }
    figures.push(Figure::new("cursor moves, groups of 256", moves as f64 / begin.elapsed().as_secs_f64(), "1/s"));
    let method = format!(
        "SQLite store in {}, synchronous=FULL, one thread; {appended} entries of {BODY} B in {INBOXES} inboxes, appended in turns; restart: the store is dropped and opened again in this process",
        folder.path().parent().unwrap_or(folder.path()).display()
    );
    Ok(Report { bench: "store", method, figures })
}

fn open_inboxes(store: &SqliteStore, now: Time) -> anyhow::Result<()> {
    let record =
        RecordSwap { key: RecordKey { kind: RecordKind::Account, key: vec![1] }, expected: None, value: Some(vec![1]) };
    let inboxes = (0..INBOXES).map(|inbox| InboxAddress(address(inbox))).collect();
    let outcomes = store.commit(now, &[Operation::Swap { records: vec![record], inboxes }])?;
    ensure!(matches!(outcomes[..], [Outcome::Swapped]), "{outcomes:?}");
    Ok(())
}

fn append(number: u64) -> Operation {
    let mut envelope = [0; 16];
    envelope[..8].copy_from_slice(&number.to_be_bytes());
    let entry = Entry::direct(EnvelopeId(envelope), vec![7; BODY]);
    let inbox = number as usize % INBOXES;
    Operation::Append(Append { log: log(inbox), writer: InboxAddress(address(0)), entry, roster: None })
}

fn address(inbox: usize) -> [u8; 16] {
    let mut address = [0xee; 16];
    address[..8].copy_from_slice(&(inbox as u64).to_be_bytes());
    address
}

fn log(inbox: usize) -> LogId {
    LogId::Inbox(InboxAddress(address(inbox)))
}

/// CPU seconds of this process: the third and fourth figure behind the state, in ticks of 10 ms (proc(5)).
fn cpu_seconds() -> anyhow::Result<f64> {
    crate::process::cpu_seconds_of("self").context("CPU time is read on Linux only")
}

fn size(folder: &std::path::Path) -> anyhow::Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        size += if entry.file_type()?.is_dir() { self::size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(size)
}
