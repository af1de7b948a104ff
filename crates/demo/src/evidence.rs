//! What the relay has of the demo: its files, its log, and every message that passed. Searched for every plaintext.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use rusqlite::{Connection, params};
use sealwire_wire::frame::ToRelay;
use sealwire_wire::{ConversationId, LogId};
use tracing_subscriber::fmt::MakeWriter;

/// A sealed message as the relay has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Given {
    /// The beginning of the log's name: an inbox, or a conversation.
    pub(crate) log: String,
    pub(crate) size: usize,
    /// The last bytes of what is sealed.
    pub(crate) tail: String,
}

/// Every sealed message that the relay was given, once each, in order.
pub(crate) fn given(frames: &[Vec<u8>]) -> Vec<Given> {
    let mut seen = BTreeSet::new();
    let append = |frame: &Vec<u8>| match ToRelay::decode(frame) {
        Ok(ToRelay::Append { log, entry, .. }) => vec![(log, entry)],
        Ok(ToRelay::CreateConversation { conversation, entries, .. }) => {
            entries.into_iter().map(|entry| (LogId::Conversation(conversation), entry)).collect()
        }
        _ => Vec::new(),
    };
    let appended = frames.iter().flat_map(append).filter(|(_, entry)| seen.insert(entry.clone()));
    let line = |(log, entry): (LogId, Vec<u8>)| Given {
        log: hex(&log.as_bytes()[..3]),
        size: entry.len(),
        tail: hex(&entry[entry.len().saturating_sub(10)..]),
    };
    appended.map(line).collect()
}

/// How many sealed messages lie in the relay's store.
pub(crate) fn waiting(data: &Path) -> anyhow::Result<u64> {
    let db = Connection::open(data.join("mail.db"))?;
    let count: i64 = db.query_row("SELECT count(*) FROM entries WHERE bytes IS NOT NULL", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Flips one bit in the last byte of a stored message, as a relay might that wants to see what happens.
pub(crate) fn flip_a_bit(data: &Path, row: i64) -> anyhow::Result<()> {
    let db = Connection::open(data.join("mail.db"))?;
    let mut bytes: Vec<u8> = db.query_row("SELECT bytes FROM entries WHERE row = ?1", [row], |row| row.get(0))?;
    *bytes.last_mut().context("an empty message")? ^= 1;
    db.execute("UPDATE entries SET bytes = ?1 WHERE row = ?2", params![bytes, row])?;
    Ok(())
}

/// The row of the message that the relay stored last in a conversation.
pub(crate) fn newest(data: &Path, conversation: ConversationId) -> anyhow::Result<i64> {
    let db = Connection::open(data.join("mail.db"))?;
    let query = "SELECT row FROM entries WHERE log = ?1 AND bytes IS NOT NULL ORDER BY row DESC LIMIT 1";
    db.query_row(query, [conversation.as_bytes()], |row| row.get(0)).context("the relay holds nothing of it")
}

/// Everything that the relay has, as named pieces of bytes.
pub(crate) struct Evidence {
    pieces: Vec<(String, Vec<u8>)>,
}

impl Evidence {
    /// Gathers files below a folder, what was logged, and what passed.
    pub(crate) fn gather(data: &Path, log: &Log, messages: Vec<Vec<u8>>) -> anyhow::Result<Evidence> {
        let mut pieces = Vec::new();
        for file in files_below(data)? {
            let name = file.strip_prefix(data).unwrap_or(&file).display().to_string();
            pieces.push((name, std::fs::read(&file)?));
        }
        pieces.push(("log".to_owned(), log.bytes()));
        pieces.extend(messages.into_iter().map(|message| ("frame".to_owned(), message)));
        Ok(Evidence { pieces })
    }

    /// How many bytes that is.
    pub(crate) fn size(&self) -> usize {
        self.pieces.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// The names of the pieces that hold some bytes, raw or in hexadecimal.
    pub(crate) fn holding(&self, needle: &[u8]) -> Vec<&str> {
        let in_hex = hex(needle).into_bytes();
        let holds = |bytes: &[u8]| contains(bytes, needle) || contains(bytes, &in_hex);
        self.pieces.iter().filter(|(_, bytes)| holds(bytes)).map(|(name, _)| name.as_str()).collect()
    }
}

/// What the relay logs, at its most talkative.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Begins to keep what is logged in this process from now on.
    pub(crate) fn begin() -> Log {
        let log = Log::default();
        // A program that logs already keeps its own; then there is nothing of the relay's to search here.
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(log.clone())
            .try_init();
        log
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("nobody panics while holding it").clone()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics while holding it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

/// Every file below a folder.
pub(crate) fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && bytes.windows(needle.len()).any(|window| window == needle)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The search itself: it finds what is there, raw and in hexadecimal, and nothing else.
    #[test]
    fn the_search_finds_what_is_there() {
        let pieces = vec![("a".into(), b"xx needle xx".to_vec()), ("b".into(), b"6e6565646c65".to_vec())];
        let evidence = Evidence { pieces };
        assert_eq!(evidence.holding(b"needle"), ["a", "b"]);
        assert_eq!(evidence.holding(b"other"), Vec::<&str>::new());
        assert_eq!(evidence.size(), 24);
    }
}
