//! What an application has shown, in a file of its own, and what becomes of it: each message exactly once, and in order.
//!
//! An application that must show nothing twice needs this much and no more. The SDK tells a message until it is
//! processed, which is at least once; each time under the same number. The application writes down the number with what
//! it shows, in one go, before it asks for the next event, and passes over what it has. Numbers are all that it compares:
//! a message that comes under another number is shown, and is then a failure of what is tested here.
//!
//! Processes are killed here, and machines are not: what was given to the system is there, so nothing waits for the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use sealwire_client::{ContentId, Incoming};

use super::plan::Author;

/// Who wrote it, and the number in it.
type Numbered = (String, u64);

/// The file, and what is in it.
pub(super) struct Ledger {
    file: File,
    ids: BTreeMap<u64, ContentId>,
    shown: BTreeSet<Numbered>,
}

/// What to do with a message.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Told {
    First,
    /// It was shown before the process ended, and not counted as processed.
    Again,
}

const MESSAGE: &str = "message";
const ALARM: &str = "alarm";

impl Ledger {
    /// Opens it, or begins it. A line that was cut off by the end of the process was not shown.
    pub(super) fn open(path: &Path) -> anyhow::Result<Ledger> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let text = std::fs::read_to_string(path)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        let mut ledger = Ledger { file, ids: BTreeMap::new(), shown: BTreeSet::new() };
        for line in text[..whole].lines().filter(|line| line.starts_with(MESSAGE)) {
            let (number, id, shown) = read(line).with_context(|| format!("a line that cannot be read: {line}"))?;
            ledger.ids.insert(number, id);
            ledger.shown.insert(shown);
        }
        Ok(ledger)
    }

    /// Shows a message, unless that was done.
    pub(super) fn show(&mut self, message: &Incoming, author: &str, number: u64) -> anyhow::Result<Told> {
        if let Some(id) = self.ids.get(&message.number) {
            if *id != message.id {
                self.alarm(&format!("number {} means two messages", message.number))?;
            }
            return Ok(Told::Again);
        }
        self.write(&format!("{MESSAGE} {} {} {author} {number}\n", message.number, message.id))?;
        self.ids.insert(message.number, message.id);
        self.shown.insert((author.to_owned(), number));
        Ok(Told::First)
    }

    /// Something that must not happen here.
    pub(super) fn alarm(&mut self, what: &str) -> anyhow::Result<()> {
        self.write(&format!("{ALARM} {}\n", what.replace('\n', " ")))
    }

    /// Whether everything that was to come is there.
    pub(super) fn has_all(&self, authors: &[Author]) -> bool {
        let wanted: u64 = authors.iter().map(|author| author.messages).sum();
        // What is there too much does not stand in for what is not.
        let known = |(name, number): &&Numbered| {
            authors.iter().any(|author| author.name == *name && (1..=author.messages).contains(number))
        };
        self.shown.len() as u64 >= wanted && self.shown.iter().filter(known).count() as u64 == wanted
    }

    fn write(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(self.file.write_all(line.as_bytes())?)
    }
}

fn read(line: &str) -> Option<(u64, ContentId, Numbered)> {
    let mut words = line.split(' ').skip(1);
    let number = words.next()?.parse().ok()?;
    let id = ContentId::from_hex(words.next()?)?;
    let (author, text) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    words.next().is_none().then_some((number, id, (author, text)))
}

/// What was wrong with what was shown.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    pub(super) shown: u64,
    pub(super) lost: Vec<String>,
    pub(super) twice: Vec<String>,
    /// Shown behind a later one of its author.
    pub(super) misplaced: Vec<String>,
    /// What nobody wrote, and events that tell of something else that went wrong.
    pub(super) alarms: Vec<String>,
}

impl Verdict {
    /// Of a ledger's file, as it is in the end.
    pub(super) fn of_ledger(path: &Path, authors: &[Author]) -> anyhow::Result<Verdict> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let (messages, rest): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with(MESSAGE));
        let shown = messages.into_iter().map(|line| read(line).map(|(.., shown)| shown).context(line.to_owned()));
        let mut verdict = Verdict::of(&shown.collect::<anyhow::Result<Vec<_>>>()?, authors);
        verdict.alarms.extend(rest.into_iter().map(str::to_owned));
        Ok(verdict)
    }

    /// Of messages in the order in which they were shown.
    pub(super) fn of(shown: &[Numbered], authors: &[Author]) -> Verdict {
        let mut verdict = Verdict { shown: shown.len() as u64, ..Verdict::default() };
        let (mut seen, mut newest) = (BTreeSet::new(), BTreeMap::new());
        for (name, number) in shown {
            let text = format!("{name} {number}");
            let newest: &mut u64 = newest.entry(name).or_default();
            if !authors.iter().any(|author| author.name == *name && (1..=author.messages).contains(number)) {
                verdict.alarms.push(format!("nobody has written {text}"));
            } else if !seen.insert((name, *number)) {
                verdict.twice.push(text);
            } else if number < newest {
                verdict.misplaced.push(text);
            }
            *newest = (*newest).max(*number);
        }
        for Author { name, messages, .. } in authors {
            let lost = (1..=*messages).filter(|number| !seen.contains(&(name, *number)));
            verdict.lost.extend(lost.map(|number| format!("{name} {number}")));
        }
        verdict
    }

    pub(super) fn add(&mut self, other: Verdict) {
        self.shown += other.shown;
        self.lost.extend(other.lost);
        self.twice.extend(other.twice);
        self.misplaced.extend(other.misplaced);
        self.alarms.extend(other.alarms);
    }

    /// In a sentence, the first few of each; `None` if nothing is wrong.
    pub(super) fn complaint(&self) -> Option<String> {
        let named = [
            ("lost", &self.lost),
            ("shown twice", &self.twice),
            ("out of order", &self.misplaced),
            ("otherwise wrong", &self.alarms),
        ];
        let said: Vec<_> = named
            .into_iter()
            .filter(|(_, which)| !which.is_empty())
            .map(|(what, which)| format!("{} {what}: {}", which.len(), which[..which.len().min(8)].join(", ")))
            .collect();
        (!said.is_empty()).then(|| said.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use sealwire_client::{AccountId, Content, Part, Time};

    use super::*;

    fn authors() -> Vec<Author> {
        vec![Author { name: "bob".into(), account: AccountId([1; 32]), messages: 3 }]
    }

    fn incoming(number: u64, id: u8) -> Incoming {
        let part = Part::Text(String::new());
        let content = Content { salt: [0; 16], in_reply_to: None, must_understand: Vec::new(), part };
        let (from, id) = (AccountId([1; 32]), ContentId([id; 32]));
        Incoming { number, from, group: None, handle: None, id, content, at: Time(0) }
    }

    fn complaint(numbers: &[u64]) -> String {
        let shown: Vec<_> = numbers.iter().map(|number| ("bob".to_owned(), *number)).collect();
        Verdict::of(&shown, &authors()).complaint().unwrap_or_default()
    }

    #[test]
    fn what_is_lost_twice_out_of_order_or_made_up_is_found() {
        assert_eq!(complaint(&[1, 2, 3]), "");
        assert_eq!(complaint(&[1, 3]), "1 lost: bob 2");
        assert_eq!(complaint(&[1, 2, 3, 2]), "1 shown twice: bob 2");
        assert_eq!(complaint(&[1, 3, 2]), "1 out of order: bob 2");
        assert_eq!(complaint(&[1, 2, 3, 4]), "1 otherwise wrong: nobody has written bob 4");
    }

    /// A process that ends between showing and asking for the next is told again, and shows it once; what is cut off was
    /// not shown.
    #[test]
    fn a_ledger_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shown");
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.show(&incoming(7, 1), "bob", 1).unwrap(), Told::First);
        assert_eq!(ledger.show(&incoming(8, 2), "bob", 2).unwrap(), Told::First);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.show(&incoming(7, 1), "bob", 1).unwrap(), Told::Again);
        assert_eq!(ledger.show(&incoming(8, 2), "bob", 2).unwrap(), Told::First);
        assert_eq!(ledger.show(&incoming(9, 3), "bob", 3).unwrap(), Told::First);
        assert!(ledger.has_all(&authors()));
        assert_eq!(Verdict::of_ledger(&path, &authors()).unwrap().complaint(), None);
        // The same message under another number: nothing hides it.
        assert_eq!(ledger.show(&incoming(10, 3), "bob", 3).unwrap(), Told::First);
        ledger.show(&incoming(10, 4), "bob", 3).unwrap();
        let verdict = Verdict::of_ledger(&path, &authors()).unwrap();
        assert_eq!(
            (verdict.twice, verdict.alarms),
            (vec!["bob 3".into()], vec!["alarm number 10 means two messages".into()])
        );
    }

    #[test]
    fn what_is_there_too_much_does_not_stand_in_for_what_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&folder.path().join("shown")).unwrap();
        for (number, text) in [(1, 1), (2, 2), (3, 2), (4, 4)] {
            ledger.show(&incoming(number, number as u8), "bob", text).unwrap();
        }
        assert!(!ledger.has_all(&authors()));
        ledger.show(&incoming(5, 5), "bob", 3).unwrap();
        assert!(ledger.has_all(&authors()));
    }
}
