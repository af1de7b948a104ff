//! Questions to a person at the terminal, and secrets from files. None comes from the command line.

use std::fs::File;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::Path;

use zeroize::Zeroizing;

use crate::output::{Exit, Failure};

/// Names a file whose first line is the passphrase.
const PASSPHRASE_FILE: &str = "SEALWIRE_PASSPHRASE_FILE";
/// A secret in a file has at most so many bytes: nobody types more, and a wrong file may be large.
const SECRET_MAX: u64 = 4_096;

/// The passphrase of an account.
pub(crate) fn passphrase() -> Result<Zeroizing<String>, Failure> {
    match std::env::var_os(PASSPHRASE_FILE) {
        Some(path) => first_line(Path::new(&path)),
        None => typed("Passphrase: "),
    }
}

/// A passphrase for a new account: asked for twice, since nobody sees what they type.
pub(crate) fn new_passphrase() -> Result<Zeroizing<String>, Failure> {
    let chosen = passphrase()?;
    if chosen.is_empty() {
        return Err(Failure::new(Exit::Failed, "an empty passphrase protects nothing; nothing was made, try again"));
    }
    if std::env::var_os(PASSPHRASE_FILE).is_none() && typed("Again: ")? != chosen {
        return Err(Failure::new(Exit::Failed, "the two passphrases differ; nothing was made, try again"));
    }
    Ok(chosen)
}

fn typed(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|_| {
        Failure::new(
            Exit::Failed,
            format!("this account needs its passphrase, and there is no terminal to ask at: put it into a file that only you can read, and name that in {PASSPHRASE_FILE}"),
        )
    })
}

/// The first line of a file.
pub(crate) fn first_line(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let failure = |error: std::io::Error| Failure::new(Exit::Failed, format!("{}: {error}", path.display()));
    let line = first_line_of(File::open(path).map_err(failure)?).map_err(failure)?;
    if line.is_empty() {
        return Err(Failure::new(Exit::Failed, format!("{} is empty", path.display())));
    }
    Ok(line)
}

/// The first line that a reader gives, without its end.
pub(crate) fn first_line_of(reader: impl Read) -> std::io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    std::io::BufReader::new(reader.take(SECRET_MAX)).read_line(&mut line)?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

/// Whether there is a person to ask.
pub(crate) fn is_possible() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// A question that is answered yes only by saying so.
pub(crate) fn yes(question: &str) -> Result<bool, Failure> {
    let mut stderr = std::io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().take(SECRET_MAX).read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
