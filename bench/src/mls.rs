//! Conversations beside bare OpenMLS: the session's façade and whole engines for two, then groups that grow to a thousand
//! devices.

mod bare;
mod engines;
mod groups;
mod one_to_one;
mod ours;
mod party;

use crate::report::Report;
use crate::world::cpu;

/// Content that fills 256 B: one byte of padding is the least.
const CONTENT: usize = 255;
/// What runs beside ours.
const PEER: &str = "bare OpenMLS";

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    // OpenMLS seals a path's secrets with rayon; here on this one thread.
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global()?;
    let mut figures = one_to_one::figures(quick)?;
    figures.extend(groups::figures(quick)?);
    Ok(Report { bench: "mls", method: METHOD.into(), figures })
}

/// Seconds of CPU that something takes.
fn spent<T>(what: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, f64)> {
    let begin = cpu();
    let done = what()?;
    Ok((done, cpu() - begin))
}

const METHOD: &str = "suite 0x004E (MLKEM768-X25519, AES-256-GCM, SHA-384, Ed25519), one thread, OpenMLS's rayon on \
that same thread; CPU is the process's own clock, user and system together, so that waiting for a disk does not count; \
messages fill 256 B with their padding. \
Façade: OpenMLS 0.9.2 behind the session's façade, whose changed records are taken after each operation as the engine \
does; the peer is the same OpenMLS with openmls_rust_crypto and its store in memory (JSON), handshakes in clear, no past \
epochs, credentials as long as ours and the same padded plaintext, but no associated data, rosters, account logs or \
sealed commits. \
1:1: medians of 5 rounds of 200 messages, façade, peer and two whole engines in turns; the engines have their sealed \
stores in the temporary folder (each transaction synced) and a relay in memory whose CPU is not counted; from the command \
until the other application has taken the message, own keys replaced every 100 messages. One message after the other, \
which is 5 transactions each; and a burst: all 200 commanded at once, by other engines, where up to 32 inputs that wait \
share a transaction, as in the SDK's driver. What is given to write calls is the mean of all rounds, with what the stores \
fold into their databases. \
Groups: one grows from size to size. Each commit adds two leaves: one of a device that exists as a key package only, \
and one that joins and commits a path. So every parent is filled and has no unmerged leaves. Its commits are made by \
the first leaf and processed by the newest device, medians of 3; who is added and removed is the leaf behind all \
others. Making includes checking key packages. Up: the frames of the commit with its roster, Welcome and blob; down: \
the frame that each member gets; the peer's are the bare MLS messages. \
Messages in groups: another group of that size, created by commits of at most 64 additions (C11), of which the last \
adds all devices that write, in the epoch that it begins. 1 sender: 200 messages to a reader who has not written. 16 and \
64 senders: the reader is one of them; after the first message of each, 4 of each in turns. \
Records written: keys and changed pages; given to write calls: wchar of /proc/self/io while a client's store commits \
just these, one transaction per operation, two for a commit, and no fold. Records held: all pages of the first leaf's device. \
Engines in groups: two engines with stores, all others registered and away; medians of 5 rounds of 20 \
messages";
