//! M7: ten thousand messages, each with a random canary. None is found in the relay's files, its write-ahead log, its
//! log at the most talkative, the frames that it handled, the memory of its process, or the clients' stores.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom, Write};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sealwire_client::{Event, MessageState, Mode, Part};
use sealwire_demo::tap;

use crate::people::{PATIENCE, Program, befriend, files_below, join, next};

const MESSAGES: usize = 10_000;
/// What a canary begins with, so that one pass over a haystack finds any of them.
const MARK: &[u8] = b"canary:";

/// A canary as text: the mark, and 128 random bits.
fn canary(rng: &mut ChaCha20Rng) -> String {
    format!("canary:{:016x}{:016x}", rng.next_u64(), rng.next_u64())
}

/// The canaries that occur, raw. Their random part alone is looked for as well, in case the mark was cut off.
fn found<'a>(haystack: &[u8], canaries: &'a BTreeSet<String>) -> Vec<&'a String> {
    let at_mark = haystack.windows(MARK.len()).filter(|window| *window == MARK).count();
    let random: BTreeSet<&[u8]> = canaries.iter().map(|canary| &canary.as_bytes()[MARK.len()..]).collect();
    // 128 random bits in hexadecimal: whatever has no 32 hexadecimal digits in a row holds none.
    let mut digits = 0;
    let mut hits = BTreeSet::new();
    for (at, byte) in haystack.iter().enumerate() {
        digits = if byte.is_ascii_hexdigit() { digits + 1 } else { 0 };
        if digits >= 32 && random.contains(&haystack[at + 1 - 32..=at]) {
            hits.insert(&haystack[at + 1 - 32..=at]);
        }
    }
    let hits: Vec<_> = canaries.iter().filter(|canary| hits.contains(&canary.as_bytes()[MARK.len()..])).collect();
    assert!(at_mark == 0 || !hits.is_empty(), "a mark without its canary");
    hits
}

/// All that is mapped and readable of a process.
fn memory_of(process: u32) -> Vec<u8> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut memory = std::fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let mut dump = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, permissions) = (fields.next().unwrap(), fields.next().unwrap());
        // The kernel's own pages cannot be read through the process.
        if !permissions.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
        let mut piece = vec![0; (to - from) as usize];
        memory.seek(SeekFrom::Start(from)).unwrap();
        if memory.read_exact(&mut piece).is_ok() {
            dump.extend(piece);
        }
    }
    dump
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn no_canary_is_found_anywhere() {
    let home = tempfile::tempdir().unwrap();
    let (data, log) = (home.path().join("relay"), home.path().join("relay.log"));
    let relay = Program::start(&data, 0, &log);
    let (address, recording) = tap::open(relay.address).await.unwrap();
    let (alice, mut alice_events) = join(home.path(), address, "alice", Mode::Direct).await;
    let (bob, mut events) = join(home.path(), address, "bob", Mode::Direct).await;
    befriend(&alice, &mut alice_events, &bob, &mut events, "bob").await;
    let mut rng = ChaCha20Rng::seed_from_u64(u64::from(std::process::id()));
    let canaries: BTreeSet<String> = (0..MESSAGES).map(|_| canary(&mut rng)).collect();
    assert_eq!(canaries.len(), MESSAGES);

    let to_send = canaries.clone();
    let sender = alice.clone();
    let sending = tokio::spawn(async move {
        let mut last = None;
        for (n, text) in to_send.into_iter().enumerate() {
            let sent = sender.send_text("bob@here", text).await.unwrap();
            // As text and as bytes, live and into a queue: whatever is on its way is in the relay's memory.
            if n % 256 == 0 {
                tokio::time::timeout(PATIENCE, sent.reached(MessageState::Accepted)).await.unwrap().unwrap();
            }
            last = Some(sent);
        }
        let last = last.unwrap();
        tokio::time::timeout(PATIENCE, last.reached(MessageState::Accepted)).await.unwrap().unwrap();
    });
    let mut shown = BTreeSet::new();
    while shown.len() < MESSAGES / 2 {
        let Event::Message(message) = next(&mut events, |event| matches!(event, Event::Message(_))).await else {
            unreachable!()
        };
        let Part::Text(text) = message.content.part else { continue };
        shown.insert(text);
    }
    // The other half waits for somebody who is away, in the relay's store and memory.
    bob.close().await;
    drop(events);
    sending.await.unwrap();
    alice.close().await;

    let mut searched = 0;
    let mut search = |what: &str, haystack: &[u8]| {
        searched += haystack.len();
        let found = found(haystack, &canaries);
        assert!(found.is_empty(), "{} canaries in {what}, {} among them", found.len(), found[0]);
    };
    search("the memory of the relay's process", &memory_of(relay.id()));
    for file in files_below(&data).into_iter().chain([log]) {
        search(&file.display().to_string(), &std::fs::read(&file).unwrap());
    }
    for name in ["alice", "bob"] {
        for file in files_below(&home.path().join(name)) {
            search(&file.display().to_string(), &std::fs::read(&file).unwrap());
        }
    }
    let frames = recording.messages();
    assert!(frames.len() > MESSAGES, "{}", frames.len());
    frames.iter().for_each(|frame| search("a frame", frame));
    // The search finds what is there: a handle in the relay's memory and files, and canaries where they are shown.
    let holds = |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
    assert!(holds(&memory_of(relay.id()), b"alice"), "the search of the memory finds nothing");
    let text = shown.iter().map(String::as_bytes).collect::<Vec<_>>().concat();
    assert_eq!(found(&text, &shown).len(), shown.len());
    let mebibytes = searched >> 20;
    writeln!(
        std::io::stderr(),
        "canaries: none of {MESSAGES} found in {mebibytes} MiB of memory, files, logs and frames"
    )
    .unwrap();
}
