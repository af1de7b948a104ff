//! What goes into a [`Connection`](crate::Connection), and what comes out.

use std::fmt;

use sealwire_store::{
    BlobPart, Delivered, Head, Operation, Outcome, Page, Reader, Record, RecordKey, Store, StoreError,
};
use sealwire_wire::frame::{FromRelay, RequestId};
use sealwire_wire::{BlobHash, ConversationId, DeviceId, InboxAddress, LogId, MeetingId, Position, PresenceToken};

use crate::meeting::NotMet;

/// Ties an outcome or an answer to the decision that asked for it. Counts up on each connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// The store could not do it. The connection closes, and nothing was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreFailed;

/// What happened to a connection.
pub enum Input {
    /// One binary WebSocket message.
    Bytes(Vec<u8>),
    /// A WebSocket text message, whatever it said.
    Text,
    /// The outcome of a [`Decision::Store`].
    Stored {
        /// Of that decision.
        token: Token,
        /// What became of it; durable.
        result: Result<Outcome, StoreFailed>,
    },
    /// The answer to a [`Decision::Load`].
    Loaded {
        /// Of that decision.
        token: Token,
        /// The answer.
        result: Result<Answer, StoreFailed>,
    },
    /// A log that was attached may have grown. May come late, twice or for nothing.
    Grown(Growth),
    /// A watched token's account came or went; also the first news after [`Decision::Watch`].
    PresenceChanged {
        /// Which token.
        token: PresenceToken,
        /// Whether its account is connected now.
        online: bool,
    },
    /// A newer connection of the same device took over (N2).
    Replaced,
    /// The device was taken from its account.
    Revoked,
    /// What became of a [`Decision::Meet`].
    MeetingAnswered {
        /// Of that decision.
        request: RequestId,
        /// Whether there is such a meeting.
        met: Result<(), NotMet>,
    },
    /// The other one in a meeting has said something.
    Met {
        /// In which.
        meeting: MeetingId,
        /// What.
        bytes: Vec<u8>,
    },
    /// The relay stops.
    ShutDown,
    /// Time passed; about once a second.
    Tick,
}

/// That a log may have grown, and by what, where that is at hand.
#[derive(Clone, PartialEq, Eq)]
pub struct Growth {
    /// Which log.
    pub log: LogId,
    /// All that was appended, without a gap, durable; empty: it has to be read. A reader that has read what came before
    /// takes it from here instead of from the store.
    pub entries: Vec<Delivered>,
}

impl Growth {
    /// A log that has to be read.
    pub fn of(log: LogId) -> Growth {
        Growth { log, entries: Vec::new() }
    }
}

/// What the shell has to do, in this order.
#[derive(Clone, PartialEq)]
pub enum Decision {
    /// Send this frame.
    Send(FromRelay),
    /// Let the store commit this, then hand its outcome back as [`Input::Stored`]. A connection's operations are
    /// committed in the order of their decisions, but for what waits for another's turn ([`Turns`](crate::Turns)).
    Store {
        /// For the way back.
        token: Token,
        /// What to commit.
        operation: Operation,
    },
    /// Ask the store this, then hand its answer back as [`Input::Loaded`]. Answers may overtake outcomes, and come in
    /// the order of their questions.
    Load {
        /// For the way back.
        token: Token,
        /// What to ask.
        question: Question,
    },
    /// Tell this connection when this log grows ([`Input::Grown`]).
    Attach(LogId),
    /// No more of it.
    Detach(LogId),
    /// The connection belongs to this device from now on: register it, and replace the device's older one (N2).
    LoggedIn(DeviceId),
    /// Whoever watches this token sees the connection's account while the connection lives. Replaces the token before;
    /// `None`: nobody sees it.
    Online(Option<PresenceToken>),
    /// Tell this connection about these tokens, now and when they change ([`Input::PresenceChanged`]). Replaces the
    /// list before.
    Watch(Vec<PresenceToken>),
    /// Come to a meeting, and hand these bytes to the other one ([`Input::Met`]) where there are any; then say what became
    /// of it ([`Input::MeetingAnswered`]).
    Meet {
        /// For the way back.
        request: RequestId,
        /// Which one.
        meeting: MeetingId,
        /// What to hand on.
        bytes: Vec<u8>,
        /// Whether it begins where there is none.
        opens: bool,
    },
    /// This device was taken from its account: whatever connection it has hears of it ([`Input::Revoked`]).
    Expel(DeviceId),
    /// Send what was decided before, then close the WebSocket. Whatever comes in later changes nothing.
    Close {
        /// The WebSocket close code.
        code: CloseCode,
        /// The name of the refusal, for people who debug.
        reason: &'static str,
    },
}

/// Close codes of RFC 6455, section 7.4.1, and of its registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum CloseCode {
    /// A text message.
    Unsupported = 1003,
    /// What the protocol refuses.
    Policy = 1008,
    /// A message larger than a frame may be.
    TooLarge = 1009,
    /// The store failed.
    Internal = 1011,
    /// The relay stops or restarts.
    Restart = 1012,
}

/// Something to read from the store.
#[derive(Clone, PartialEq, Eq)]
pub enum Question {
    /// Records.
    Records(Vec<RecordKey>),
    /// Entries of a log behind a position, for a reader: none if it does not read that log any more.
    Page {
        /// Which log.
        log: LogId,
        /// Who reads.
        reader: InboxAddress,
        /// Behind which position.
        after: Position,
        /// How many at the most.
        entries: usize,
        /// About how many bytes at the most.
        bytes: usize,
    },
    /// Up to where a reader has acknowledged a log.
    Cursor {
        /// Which log.
        log: LogId,
        /// Whose cursor.
        reader: InboxAddress,
    },
    /// Where a reader of a conversation log stands.
    Place {
        /// Which log.
        log: LogId,
        /// Whose.
        reader: InboxAddress,
    },
    /// The newest state of a log.
    Head(LogId),
    /// A piece of a blob.
    Blob {
        /// Which blob.
        hash: BlobHash,
        /// From where.
        offset: u64,
        /// How many bytes at the most.
        most: usize,
    },
    /// Which conversation logs have an inbox in their roster.
    Logs(InboxAddress),
    /// How many one-time key packages are held for a device.
    KeyPackages(DeviceId),
}

/// What the store answered.
#[derive(Clone, PartialEq)]
pub enum Answer {
    /// To [`Question::Records`], in its order.
    Records(Vec<Option<Record>>),
    /// To [`Question::Page`]; `None` where the reader does not read that log.
    Page(Option<Page>),
    /// To [`Question::Cursor`].
    Cursor(Option<Position>),
    /// To [`Question::Place`]; `None` where it does not read that log.
    Place(Option<(Reader, Head)>),
    /// To [`Question::Head`].
    Head(Option<Head>),
    /// To [`Question::Blob`].
    Blob(Option<BlobPart>),
    /// To [`Question::Logs`].
    Logs(Vec<ConversationId>),
    /// To [`Question::KeyPackages`].
    KeyPackages(u32),
}

impl Question {
    /// Asks a store. Blocks as long as the store does.
    ///
    /// # Errors
    /// The store's.
    pub fn ask(&self, store: &dyn Store) -> Result<Answer, StoreError> {
        Ok(match self {
            Question::Records(keys) => {
                Answer::Records(keys.iter().map(|key| store.record(key)).collect::<Result<_, _>>()?)
            }
            Question::Page { log, reader, after, entries, bytes } => {
                Answer::Page(page(store, *log, *reader, *after, *entries, *bytes)?)
            }
            Question::Cursor { log, reader } => Answer::Cursor(store.cursor(*log, *reader)?),
            Question::Place { log, reader } => Answer::Place(store.reader(*log, *reader)?.zip(store.head(*log)?)),
            Question::Head(log) => Answer::Head(store.head(*log)?),
            Question::Blob { hash, offset, most } => Answer::Blob(store.blob(*hash, *offset, *most)?),
            Question::Logs(inbox) => Answer::Logs(store.logs_of(*inbox)?),
            Question::KeyPackages(device) => Answer::KeyPackages(store.key_packages(*device)?),
        })
    }
}

/// `read` does not know for whom it reads, so `reader` says it first: who was dropped from a conversation reads up to
/// the entry that dropped it (C6).
fn page(
    store: &dyn Store,
    log: LogId,
    reader: InboxAddress,
    after: Position,
    entries: usize,
    bytes: usize,
) -> Result<Option<Page>, StoreError> {
    let until = match store.reader(log, reader)? {
        None => return Ok(None),
        Some(reader) => reader.until,
    };
    if until.is_some_and(|until| after >= until) {
        return Ok(None);
    }
    let mut page = store.read(log, after, entries, bytes)?;
    if let Some(until) = until {
        page.entries.retain(|entry| entry.position <= until);
    }
    Ok(Some(page))
}

/// Variants only: frames hold handles and addresses, and those are nobody's business in a log.
impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Decision::Send(frame) => frame_name(frame),
            Decision::Store { .. } => "Store",
            Decision::Load { .. } => "Load",
            Decision::Attach(_) => "Attach",
            Decision::Detach(_) => "Detach",
            Decision::LoggedIn(_) => "LoggedIn",
            Decision::Online(_) => "Online",
            Decision::Watch(_) => "Watch",
            Decision::Meet { .. } => "Meet",
            Decision::Expel(_) => "Expel",
            Decision::Close { reason, .. } => return write!(f, "Close({reason})"),
        })
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Input::Bytes(_) => "Bytes",
            Input::Text => "Text",
            Input::Stored { .. } => "Stored",
            Input::Loaded { .. } => "Loaded",
            Input::Grown(_) => "Grown",
            Input::PresenceChanged { .. } => "PresenceChanged",
            Input::Replaced => "Replaced",
            Input::Revoked => "Revoked",
            Input::MeetingAnswered { .. } => "MeetingAnswered",
            Input::Met { .. } => "Met",
            Input::ShutDown => "ShutDown",
            Input::Tick => "Tick",
        })
    }
}

fn frame_name(frame: &FromRelay) -> &'static str {
    match frame {
        FromRelay::Hello(_) => "Send(Hello)",
        FromRelay::Accepted { .. } => "Send(Accepted)",
        FromRelay::Deliver { .. } => "Send(Deliver)",
        FromRelay::Failed(failed) => failed.code.name(),
        FromRelay::LoggedIn(_) => "Send(LoggedIn)",
        FromRelay::Done { .. } => "Send(Done)",
        FromRelay::Found { .. } => "Send(Found)",
        FromRelay::Stale { .. } => "Send(Stale)",
        FromRelay::Trimmed { .. } => "Send(Trimmed)",
        FromRelay::Presence { .. } => "Send(Presence)",
        FromRelay::Head { .. } => "Send(Head)",
        FromRelay::Blob { .. } => "Send(Blob)",
        FromRelay::KeyPackages { .. } => "Send(KeyPackages)",
        FromRelay::Attached { .. } => "Send(Attached)",
        FromRelay::Logs { .. } => "Send(Logs)",
        FromRelay::Met { .. } => "Send(Met)",
    }
}
