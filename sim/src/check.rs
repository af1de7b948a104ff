//! What has to hold: while the world runs, of every frame that reaches the relay; and after quiet, of every history.

use std::collections::{BTreeMap, BTreeSet};

use sealwire_session::direct::{Commitment, Header};
use sealwire_wire::entry::{Body, Entry, EntryKind};
use sealwire_wire::frame::{FromRelay, LoggedIn, ToRelay};
use sealwire_wire::{EnvelopeId, Incarnation, LogId, Position};

/// Every plaintext of the world begins with this, so that one search finds any of them.
pub const CANARY: &str = "canary-";

/// A rule of the design that did not hold.
pub type Violation = String;

/// Watches what reaches the relay. Sees only what a relay sees.
#[derive(Default)]
pub struct Wiretap {
    bodies: BTreeMap<EnvelopeId, Vec<u8>>,
    ivs: BTreeMap<(Commitment, [u8; 12]), EnvelopeId>,
    counters: BTreeMap<(Commitment, u32), EnvelopeId>,
    places: BTreeMap<(LogId, EnvelopeId), Position>,
    /// What the last log-in of a device brought that was taken: the next one has to bring either.
    taken: BTreeMap<[u8; 32], [Incarnation; 2]>,
    log_ins: BTreeMap<u64, ([u8; 32], [Incarnation; 2])>,
    /// Whether a store was put back: its owner may not notice at once, and counts again.
    pub restored: bool,
}

impl Wiretap {
    /// Looks at one frame.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn look(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        if bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
            return Err("M7: the relay handled plaintext".into());
        }
        let Ok(ToRelay::Append { entry, .. }) = ToRelay::decode(bytes) else { return Ok(()) };
        let Ok(Entry { kind: EntryKind::Direct, envelope, body: Body::Inline(body), .. }) = Entry::decode(&entry)
        else {
            return Ok(());
        };
        let Ok(header) = Header::parse(&body) else { return Err("D2: an envelope is malformed".into()) };
        if self.bodies.entry(envelope).or_insert_with(|| body.clone()) != &body {
            return Err("L4: one envelope id with two bodies".into());
        }
        let mut iv = [0; 12];
        iv.copy_from_slice(&body[54..66]);
        if *self.ivs.entry((header.commitment, iv)).or_insert(envelope) != envelope {
            return Err("M5: an IV was used twice under a key".into());
        }
        let first = *self.counters.entry((header.commitment, header.counter)).or_insert(envelope);
        if first != envelope && !self.restored {
            return Err("D2: a counter was used twice under a key (sent before it was durable?)".into());
        }
        Ok(())
    }

    /// Looks at one frame to the relay, for what it says of the incarnation that it comes from.
    pub fn hear(&mut self, connection: u64, bytes: &[u8]) {
        if let Ok(ToRelay::LogIn { device_key, incarnation, pending, .. }) = ToRelay::decode(bytes) {
            self.log_ins.entry(connection).or_insert((device_key, [incarnation, pending]));
        }
    }

    /// Looks at one frame that the relay sends, wherever it gets to.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn answer(&mut self, connection: u64, frame: &FromRelay) -> Result<(), Violation> {
        match frame {
            FromRelay::Deliver { log, entries } => {
                for delivered in entries {
                    let Ok(entry) = Entry::decode(&delivered.entry) else { continue };
                    let place = *self.places.entry((*log, entry.envelope)).or_insert(delivered.position);
                    if place != delivered.position {
                        return Err(format!("L1: an envelope stands at {place:?} and at {:?}", delivered.position));
                    }
                }
            }
            FromRelay::LoggedIn(LoggedIn::Registered { restored: false, .. }) => {
                let Some((device, brought)) = self.log_ins.get(&connection) else { return Ok(()) };
                let before = self.taken.insert(*device, *brought);
                if before.is_some_and(|before| !before.contains(&brought[0])) {
                    return Err("N3: a log-in of an old store was taken, and it was not told".into());
                }
            }
            // A registration, or the new keys of a store that was put back: its log-in counts from here on.
            FromRelay::Done { .. } => {
                if let Some((device, brought)) = self.log_ins.get(&connection) {
                    self.taken.insert(*device, *brought);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The relay has another store from now on: positions begin again, and so do log-ins (L11).
    pub fn relay_was_restored(&mut self) {
        self.places.clear();
        self.taken.clear();
        self.log_ins.clear();
    }

    /// How many envelopes were seen.
    pub fn envelopes(&self) -> usize {
        self.bodies.len()
    }
}

/// What should be the case of one message.
pub struct Expected {
    /// From whom to whom, by their numbers in the world.
    pub way: (usize, usize),
    /// What it says.
    pub text: String,
    /// Whether it has to be there: not where its sender's or its reader's store was put back behind it.
    pub certain: bool,
}

/// A history in which nothing stands twice.
///
/// # Errors
/// What does.
pub fn once(history: &[(sealwire_wire::AccountId, bool, String)]) -> Result<(), Violation> {
    let mut seen = BTreeSet::new();
    match history.iter().find(|(with, incoming, text)| !seen.insert((with, incoming, text))) {
        Some((_, _, text)) => Err(format!("L8: shown twice: {text}")),
        None => Ok(()),
    }
}

/// Compares what a reader's history holds with what was sent to them.
///
/// # Errors
/// The rule that does not hold, and of which message.
pub fn history(
    shown: &[(usize, String)],
    reader: usize,
    expected: &[Expected],
    in_order: bool,
) -> Result<(), Violation> {
    let mut seen = BTreeSet::new();
    for (from, text) in shown {
        if !seen.insert(text) {
            return Err(format!("L8: shown twice: {text}"));
        }
        if !expected.iter().any(|e| e.way == (*from, reader) && e.text == *text) {
            return Err(format!("S2: shown, but never sent so: {text} from {from} to {reader}"));
        }
    }
    for message in expected.iter().filter(|e| e.way.1 == reader && e.certain) {
        if !seen.contains(&message.text) {
            return Err(format!("L8: accepted, and never shown: {} from {} to {reader}", message.text, message.way.0));
        }
    }
    if in_order {
        let senders: BTreeSet<usize> = shown.iter().map(|(from, _)| *from).collect();
        for sender in senders {
            let sent = expected.iter().filter(|e| e.way == (sender, reader)).map(|e| &e.text);
            let sent: Vec<_> = sent.filter(|text| seen.contains(text)).collect();
            let got: Vec<_> = shown.iter().filter(|(from, _)| *from == sender).map(|(_, text)| text).collect();
            if sent != got {
                return Err(format!("L2: order changed between {sender} and {reader}"));
            }
        }
    }
    Ok(())
}
