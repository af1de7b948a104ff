//! How anything gets out: data on standard output, words on standard error, and the exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealwire_client::{Error, Part, Refusal};
use sealwire_wire::Time;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::terminal;

/// The version of the objects that `--json` prints. It grows when a field changes its meaning or goes; fields that are
/// added leave it.
const JSON_VERSION: u32 = 1;

/// How a command that did not succeed ended. `docs/cli.md` and `--help` list the codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Something failed: a disk, a store, an argument that only shows to be wrong when used.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The relay, the account's state or a decision that a person has to make is against it.
    Refused = 3,
    /// The relay is out of reach. What was to be sent is saved.
    Offline = 4,
}

/// Why a command did not succeed, with what to try.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) words: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, words: impl Into<String>) -> Failure {
        Failure { exit, words: words.into() }
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let exit = match &error {
            Error::Handle(_) | Error::Address(_) => Exit::Usage,
            Error::Refused(Refusal::Offline | Refusal::TryAgain(_)) => Exit::Offline,
            Error::Refused(_) | Error::Link(_) => Exit::Refused,
            Error::Store(_) | Error::NotSaved(_) | Error::Read(_) | Error::Closed => Exit::Failed,
        };
        Failure::new(exit, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(Exit::Failed, error.to_string())
    }
}

/// Where output goes, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    pub(crate) json: bool,
    colour_out: bool,
    colour_err: bool,
}

const BOLD: &str = "1";
const DIM: &str = "2";

impl Screen {
    pub(crate) fn new(json: bool) -> Screen {
        // https://no-color.org: set and not empty.
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Screen {
            json,
            colour_out: wanted && std::io::stdout().is_terminal(),
            colour_err: wanted && std::io::stderr().is_terminal(),
        }
    }

    pub(crate) fn colour(&self) -> bool {
        self.colour_out
    }

    /// One object of data; nothing where words were asked for.
    pub(crate) fn object(&self, kind: &str, mut fields: Value) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        if let Value::Object(fields) = &mut fields {
            fields.insert("version".into(), json!(JSON_VERSION));
            fields.insert("type".into(), json!(kind));
        }
        out(&escape_hidden(&fields.to_string()))
    }

    /// Lines of data for people; nothing where objects were asked for.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { out(&terminal::safe(text)) }
    }

    /// As [`Screen::line`], with a heading that stands out.
    pub(crate) fn headed(&self, head: &str, text: &str) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        out(&format!("{} {}", paint(self.colour_out, BOLD, &terminal::line(head)), terminal::safe(text)))
    }

    /// Words beside the data.
    pub(crate) fn say(&self, words: &str) {
        let words = paint(self.colour_err, DIM, &terminal::safe(words));
        // Whoever closed the standard error does not want them.
        let _ = writeln!(std::io::stderr(), "{words}");
    }

    /// Why the command did not succeed.
    pub(crate) fn fail(&self, failure: &Failure) {
        let _ = writeln!(std::io::stderr(), "sealwire: {}", terminal::safe(&failure.words));
    }
}

/// Writes and flushes: a line that is out can count as processed.
fn out(line: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|error| {
        Failure::new(Exit::Failed, format!("nobody reads the output ({error}); what was not printed comes again"))
    })
}

fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// JSON escapes the C0 controls by itself; this does the rest. Such characters stand inside strings only.
fn escape_hidden(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if terminal::is_hidden(c) {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}")));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// What a message says, for people.
pub(crate) fn said(part: &Part) -> String {
    match part {
        Part::Text(text) => text.clone(),
        Part::Bytes { media_type, bytes } => {
            format!("[{} bytes, {}, SHA-256 {}]", bytes.len(), terminal::line(media_type), sha256(bytes))
        }
        _ => "[something that this version cannot show]".to_owned(),
    }
}

/// What a message says, for programs.
pub(crate) fn part_fields(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({ "text": text }),
        Part::Bytes { media_type, bytes } => {
            json!({ "bytes": STANDARD.encode(bytes), "media_type": media_type, "sha256": sha256(bytes) })
        }
        _ => json!({ "unsupported": true }),
    }
}

/// Two JSON objects as one.
pub(crate) fn merge(mut fields: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
        fields.extend(more);
    }
    fields
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `2026-11-24 12:25Z`: UTC, because a zone that nobody sees is a zone that somebody mistakes.
pub(crate) fn at(time: Time) -> String {
    let minutes = time.0 / 60_000;
    let (year, month, day) = civil(minutes / 1_440);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}Z", minutes / 60 % 24, minutes % 60)
}

/// Days since 1970 as a date (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(at(Time(0)), "1970-01-01 00:00Z");
        assert_eq!(at(Time(951_782_400_000)), "2000-02-29 00:00Z");
        assert_eq!(at(Time(1_795_523_107_000)), "2026-11-24 12:25Z");
        assert_eq!(at(Time(1_798_761_599_999)), "2026-12-31 23:59Z");
        // Whatever a relay claims is printed.
        at(Time(u64::MAX));
    }

    /// HP-10, for programs: the line is ASCII where it matters, and says the same.
    #[test]
    fn json_escapes_what_hides() {
        let text = "\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{200b}\u{2028}\u{e0041} ok ü";
        let line = escape_hidden(&json!({ "text": text }).to_string());
        assert!(!line.chars().any(terminal::is_hidden), "{line}");
        assert!(line.contains("\\u202e") && line.contains("\\udb40\\udc41"), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["text"], text);
    }

    #[test]
    fn bytes_are_described_and_not_printed() {
        let part = Part::Bytes { media_type: "text/\u{1b}[31m".into(), bytes: b"\x1b[2J".to_vec() };
        assert!(said(&part).starts_with("[4 bytes, text/␛[31m, SHA-256 "), "{}", said(&part));
        assert_eq!(part_fields(&part)["bytes"], "G1sySg==");
    }

    #[test]
    fn each_error_has_its_exit_code() {
        let exit = |error: Error| Failure::from(error).exit;
        assert_eq!(exit(Error::Refused(Refusal::Offline)), Exit::Offline);
        assert_eq!(exit(Error::Refused(Refusal::TooLarge(20_000))), Exit::Refused);
        assert_eq!(exit(Error::Closed), Exit::Failed);
    }
}
