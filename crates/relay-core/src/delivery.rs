//! Delivery: one path. A reader reads pages behind what it was sent, as far as its window has room; an Ack makes room,
//! a wake-up says that there is more. Live delivery is a fetch that happens early: so early that the committer still has
//! the bytes in its hands, where the reader has read all before them.

use std::collections::{BTreeMap, VecDeque};

use sealwire_store::{Operation, Page};
use sealwire_wire::frame::{Delivered, FromRelay};
use sealwire_wire::limits::{DELIVER_BYTES_MAX, ENTRY_MAX, FRAME_MAX, UNACKNOWLEDGED_MAX};
use sealwire_wire::{Code, LogId, Position, Time};

use crate::connection::{Connection, Session, State, Waiting};
use crate::decision::{Decision, Growth, Question};

/// Bytes that a log may have delivered and unacknowledged on one connection, beside the entry that reaches it: what a
/// stopped reader costs.
const UNACKNOWLEDGED_BYTES_MAX: usize = FRAME_MAX;
/// What an entry costs in a frame beside its bytes: position, time, lengths, tags.
const ENTRY_OVERHEAD: usize = 64;
/// What the frame itself costs.
const FRAME_OVERHEAD: usize = 256;

/// The logs that a connection reads.
#[derive(Default)]
pub(crate) struct Readers(BTreeMap<LogId, Reader>);

struct Reader {
    /// The last position that was sent.
    sent: Position,
    /// The last position that was acknowledged.
    acknowledged: Position,
    /// What was sent and not acknowledged: position and bytes, in order.
    unacknowledged: VecDeque<(Position, usize)>,
    unacknowledged_bytes: usize,
    /// A page is on its way: entries and bytes that it was asked for.
    loading: Option<(usize, usize)>,
    /// There may be more behind what was sent.
    has_more: bool,
    /// A read has found the log's end, and every wake-up was followed since. Until then a page may have ended at a gap
    /// in the log instead of its end.
    is_live: bool,
    /// A cursor is on its way to the store, and where it has to go after that.
    moving: Option<Option<Position>>,
    /// When a head was last signed.
    head_at: Option<Time>,
}

impl Connection {
    /// Begins to read a log behind a cursor.
    pub(crate) fn read_log(&mut self, log: LogId, cursor: Position) {
        if self.readers.0.contains_key(&log) {
            return;
        }
        self.readers.0.insert(log, Reader::behind(cursor));
        self.decide(Decision::Attach(log));
        self.read_on(log);
    }

    pub(crate) fn grown(&mut self, growth: Growth) {
        let Growth { log, entries } = growth;
        match self.readers.0.get_mut(&log).filter(|reader| reader.takes(&entries)) {
            Some(_) => self.deliver(log, entries),
            None => self.woken(log),
        }
    }

    fn woken(&mut self, log: LogId) {
        if let Some(reader) = self.readers.0.get_mut(&log) {
            reader.has_more = true;
            reader.is_live &= reader.room().is_some();
            self.read_on(log);
        }
    }

    fn read_on(&mut self, log: LogId) {
        let State::Registered(session) = &self.state else { return };
        let own = session.inbox;
        let Some(reader) = self.readers.0.get_mut(&log) else { return };
        // Where more was acknowledged than was sent here, `cursor_loaded` says first where to go on.
        let is_ready = reader.has_more && reader.loading.is_none() && reader.acknowledged <= reader.sent;
        let Some((entries, bytes)) = reader.room().filter(|_| is_ready) else { return };
        (reader.loading, reader.has_more) = (Some((entries, bytes)), false);
        let question = Question::Page { log, reader: own, after: reader.sent, entries, bytes };
        self.load(question, Waiting::Page(log));
    }

    pub(crate) fn page_loaded(&mut self, log: LogId, page: Option<Page>) {
        let Some(page) = page else { return self.leave(log) };
        let Some(reader) = self.readers.0.get_mut(&log) else { return };
        // An Ack may have moved on while the page was on its way.
        let after = reader.sent.max(reader.acknowledged);
        if let Some((position, chain)) = page.trimmed
            && position > after
        {
            reader.sent = position;
            reader.is_live = false;
            self.decide(Decision::Send(FromRelay::Trimmed { log, position, chain }));
        }
        self.deliver(log, page.entries.into_iter().filter(|entry| entry.position > after).collect());
        self.read_on(log);
    }

    fn deliver(&mut self, log: LogId, entries: Vec<sealwire_store::Delivered>) {
        let entries = entries.into_iter();
        let entries: Vec<Delivered> =
            entries.map(|entry| Delivered { position: entry.position, entry: entry.entry, at: entry.at }).collect();
        let Some(reader) = self.readers.0.get_mut(&log) else { return };
        reader.note_sent(&entries);
        for entries in frames_of(entries) {
            self.send(FromRelay::Deliver { log, entries });
        }
    }

    /// The device was dropped from the conversation, and has read up to there (C6).
    fn leave(&mut self, log: LogId) {
        self.readers.0.remove(&log);
        self.decide(Decision::Detach(log));
    }

    pub(crate) fn ack(&mut self, session: Session, log: LogId, upto: Position) {
        let Some(reader) = self.readers.0.get_mut(&log) else {
            return self.refuse(Code::NotAllowed, "this connection does not read that log");
        };
        if upto <= reader.acknowledged {
            return;
        }
        reader.note_acknowledged(upto);
        match &mut reader.moving {
            // One cursor operation at a time: whatever comes meanwhile goes with the next.
            Some(next) => *next = Some(upto),
            moving @ None => {
                *moving = Some(None);
                self.store(Operation::MoveCursor { log, reader: session.inbox, upto }, Waiting::Ack(log));
            }
        }
        self.read_on(log);
    }

    pub(crate) fn ack_stored(&mut self, log: LogId) {
        let State::Registered(Session { inbox, .. }) = self.state else { return };
        let Some(reader) = self.readers.0.get_mut(&log) else { return };
        match reader.moving.take() {
            Some(Some(upto)) => {
                reader.moving = Some(None);
                self.store(Operation::MoveCursor { log, reader: inbox, upto }, Waiting::Ack(log));
            }
            // What an earlier connection was sent may be acknowledged here, before it is sent again: the store says
            // how far that went, and it is not sent.
            _ if reader.acknowledged > reader.sent => {
                self.load(Question::Cursor { log, reader: inbox }, Waiting::Cursor(log));
            }
            _ => {}
        }
    }

    pub(crate) fn cursor_loaded(&mut self, log: LogId, cursor: Option<Position>) {
        let Some(cursor) = cursor else { return };
        let Some(reader) = self.readers.0.get_mut(&log) else { return };
        // The store keeps cursors within the log, so this takes back what lay beyond its end.
        reader.acknowledged = reader.acknowledged.min(cursor.max(reader.sent));
        reader.sent = reader.sent.max(cursor);
        reader.has_more = true;
        self.read_on(log);
    }
}

impl Readers {
    pub(crate) fn reads(&self, log: LogId) -> bool {
        self.0.contains_key(&log)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a head may be signed now: `None` where the log is not read, else how long to wait.
    pub(crate) fn take_head(&mut self, log: LogId, now: Time, every_ms: u64) -> Option<Result<(), u64>> {
        let reader = self.0.get_mut(&log)?;
        let wait = reader.head_at.map_or(0, |at| at.plus(every_ms).since(now));
        if wait == 0 {
            reader.head_at = Some(now);
        }
        Some(if wait == 0 { Ok(()) } else { Err(wait) })
    }
}

impl Reader {
    fn behind(cursor: Position) -> Reader {
        Reader {
            sent: cursor,
            acknowledged: cursor,
            unacknowledged: VecDeque::new(),
            unacknowledged_bytes: 0,
            loading: None,
            has_more: true,
            is_live: false,
            moving: None,
            head_at: None,
        }
    }

    /// Whether these are what a read would bring now: nothing else is to be read or on its way, they begin behind what
    /// was sent, and the window has room for all of them.
    fn takes(&self, entries: &[sealwire_store::Delivered]) -> bool {
        let follows = entries.first().is_some_and(|first| first.position == self.sent.next());
        let is_idle = self.is_live && !self.has_more && self.loading.is_none() && self.acknowledged <= self.sent;
        let bytes: usize = entries.iter().map(|entry| entry.entry.len()).sum();
        follows && is_idle && self.room().is_some_and(|(count, most)| entries.len() <= count && bytes <= most)
    }

    /// Entries and bytes that may be sent now; `None` where the window is full.
    fn room(&self) -> Option<(usize, usize)> {
        let entries = UNACKNOWLEDGED_MAX.saturating_sub(self.unacknowledged.len());
        let bytes = UNACKNOWLEDGED_BYTES_MAX.saturating_sub(self.unacknowledged_bytes);
        (entries > 0 && bytes > 0).then_some((entries, bytes.min(DELIVER_BYTES_MAX)))
    }

    fn note_sent(&mut self, entries: &[Delivered]) {
        let asked = self.loading.take();
        let bytes: usize = entries.iter().map(|entry| entry.entry.len()).sum();
        // A page that its limits cut short has a successor. One that an entry of any size would still have fitted
        // into has none, so that a reader that is live costs no empty read.
        let cut = asked.is_some_and(|(count, most)| entries.len() >= count || bytes + ENTRY_MAX > most);
        match entries.is_empty() {
            true => self.is_live = true,
            false => self.has_more |= cut || !self.is_live,
        }
        for entry in entries {
            if entry.position > self.acknowledged {
                self.unacknowledged.push_back((entry.position, entry.entry.len()));
                self.unacknowledged_bytes += entry.entry.len();
            }
            self.sent = self.sent.max(entry.position);
        }
    }

    fn note_acknowledged(&mut self, upto: Position) {
        self.acknowledged = upto;
        while self.unacknowledged.front().is_some_and(|(position, _)| *position <= upto) {
            let bytes = self.unacknowledged.pop_front().map_or(0, |(_, bytes)| bytes);
            self.unacknowledged_bytes -= bytes;
        }
    }
}

/// Cuts entries into frames that fit.
fn frames_of(entries: Vec<Delivered>) -> Vec<Vec<Delivered>> {
    let mut frames: Vec<Vec<Delivered>> = Vec::new();
    let mut room = 0;
    for entry in entries {
        let cost = entry.entry.len() + ENTRY_OVERHEAD;
        match frames.last_mut().filter(|_| cost <= room) {
            Some(frame) => {
                room -= cost;
                frame.push(entry);
            }
            None => {
                room = (FRAME_MAX - FRAME_OVERHEAD).saturating_sub(cost);
                frames.push(vec![entry]);
            }
        }
    }
    frames
}
