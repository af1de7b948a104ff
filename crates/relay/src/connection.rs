//! The shell of one connection: one task that reads, thinks with `relay_core`, asks the store, and flushes once per
//! wake-up.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sealwire_relay_core::{Answer, CloseCode, Connection, Decision, Input, Question, StoreFailed, Token};
use sealwire_store::Operation;
use sealwire_wire::limits::{LOG_IN_DEADLINE_MS, SILENCE_MS};
use tokio::time::{Instant, sleep, timeout};

use crate::hub::Seat;
use crate::service::{Phase, Shared, now, wait_for};
use crate::websocket::{Gone, Incoming, Socket};

/// Messages that one wake-up reads at the most, so that a fast client does not starve its own deliveries.
const ROUND_MAX: usize = 64;
/// How long a client may take to read what was flushed.
const FLUSH_MAX: Duration = Duration::from_millis(SILENCE_MS);
const SILENCE: Duration = Duration::from_millis(SILENCE_MS);

/// What a WebSocket's request said about itself.
pub(crate) struct Visitor {
    pub(crate) origin: Option<String>,
    pub(crate) binding: Option<[u8; 32]>,
}

/// Serves a connection until it ends, or until the relay does.
pub(crate) async fn serve(shared: Arc<Shared>, socket: Socket, visitor: Visitor) {
    let mut phase = shared.phase();
    let mut challenge = [0; 32];
    if getrandom::fill(&mut challenge).is_err() {
        return tracing::error!("the operating system gives no randomness; the connection is refused");
    }
    let (connection, hello) = Connection::open(&shared.relay, now(), challenge, visitor.origin, visitor.binding);
    let seat = shared.hub.enter();
    let shell =
        Shell { shared, seat, socket, connection, asked: Vec::new(), stored: Vec::new(), heard_at: Instant::now() };
    tokio::select! {
        biased;
        // An abort is a crash: nothing is said.
        () = wait_for(&mut phase, |phase| phase == Phase::Aborted) => {}
        _ended = shell.run(hello) => {}
    }
}

struct Shell {
    shared: Arc<Shared>,
    seat: Seat,
    socket: Socket,
    connection: Connection,
    asked: Vec<(Token, Question)>,
    stored: Vec<(Token, Operation)>,
    /// When the client was last heard.
    heard_at: Instant,
}

impl Shell {
    async fn run(mut self, hello: Vec<Decision>) -> Result<(), Gone> {
        let mut phase = self.shared.phase();
        let mailbox = Arc::clone(self.seat.mailbox());
        // Made once: each of these two joins a list of all that wait for it, which a wake-up need not leave.
        let mut stopping = pin!(wait_for(&mut phase, |phase| phase == Phase::Stopping).fuse());
        let mut waking = pin!(sleep(Duration::from_millis(LOG_IN_DEADLINE_MS + 1)));
        self.perform(hello).await?;
        loop {
            let inputs = tokio::select! {
                biased;
                // Stopping first: whoever is stopped hears nothing else.
                () = &mut stopping => vec![Input::ShutDown],
                // Outcomes before messages: they free what is in flight, and what is read next asks for more.
                () = mailbox.woken() => mailbox.take(),
                message = self.socket.next() => {
                    self.heard_at = Instant::now();
                    match input_of(message) {
                        Some(input) => self.drain(input),
                        None => return Ok(()),
                    }
                }
                // Time last: it never hurries.
                () = &mut waking => {
                    waking.as_mut().reset(Instant::now() + SILENCE);
                    self.mind_silence().await?;
                    vec![Input::Tick]
                }
            };
            for input in inputs {
                let decisions = self.connection.handle(input, now());
                self.gather(decisions).await?;
            }
            self.perform(Vec::new()).await?;
        }
    }

    /// Takes the messages that are here already, too: they share a flush.
    fn drain(&mut self, first: Option<Input>) -> Vec<Input> {
        let mut inputs: Vec<Input> = first.into_iter().collect();
        while inputs.len() < ROUND_MAX
            && let Some(message) = self.socket.next_now()
        {
            match input_of(message) {
                Some(input) => inputs.extend(input),
                None => break,
            }
        }
        inputs
    }

    async fn mind_silence(&mut self) -> Result<(), Gone> {
        match self.heard_at.elapsed() {
            silent if silent > 2 * SILENCE => Err(Gone),
            silent if silent > SILENCE / 2 => self.socket.ping().await,
            _ => Ok(()),
        }
    }

    /// Carries decisions out until nothing is left to ask, then hands operations over and flushes once.
    async fn perform(&mut self, decisions: Vec<Decision>) -> Result<(), Gone> {
        self.gather(decisions).await?;
        while !self.asked.is_empty() {
            let asked = std::mem::take(&mut self.asked);
            for (token, result) in ask(&self.shared, asked).await {
                let decisions = self.connection.handle(Input::Loaded { token, result }, now());
                self.gather(decisions).await?;
            }
        }
        let stored = std::mem::take(&mut self.stored);
        if !stored.is_empty() && !self.shared.committer.commit(self.seat.mailbox(), stored).await {
            return Err(Gone);
        }
        self.in_time(Socket::flush).await
    }

    /// Asks for the time only where the client does not take at once what it is sent.
    async fn in_time(&mut self, send: impl AsyncFn(&mut Socket) -> Result<(), Gone>) -> Result<(), Gone> {
        let mut sent = pin!(send(&mut self.socket));
        match sent.as_mut().now_or_never() {
            Some(sent) => sent,
            None => timeout(FLUSH_MAX, sent).await.map_err(|_late| Gone)?,
        }
    }

    /// Frames go to the socket's queue, questions and operations to their lists, the rest to the hub.
    async fn gather(&mut self, decisions: Vec<Decision>) -> Result<(), Gone> {
        for decision in decisions {
            match decision {
                Decision::Send(frame) => {
                    self.in_time(Socket::has_room).await?;
                    self.socket.put(frame.into_bytes())?;
                }
                Decision::Store { token, operation } => self.stored.push((token, operation)),
                Decision::Load { token, question } => self.asked.push((token, question)),
                Decision::Attach(log) => self.seat.attach(log),
                Decision::Detach(log) => self.seat.detach(log),
                Decision::LoggedIn(device) => {
                    tracing::debug!(?device, "logged in");
                    self.seat.take_device(device);
                }
                Decision::Online(token) => self.seat.set_online(token),
                Decision::Watch(tokens) => self.seat.watch(tokens),
                Decision::Meet { request, meeting, bytes, opens } => {
                    self.seat.meet(now(), request, meeting, bytes, opens);
                }
                Decision::Expel(device) => self.seat.expel(device),
                Decision::Close { code, reason } => {
                    self.close(code, reason).await;
                    return Err(Gone);
                }
            }
        }
        Ok(())
    }

    async fn close(&mut self, code: CloseCode, reason: &'static str) {
        tracing::debug!(device = ?self.connection.device(), reason, "closes");
        // What was asked before counts: an append that was read is committed, though nobody hears of it.
        let stored = std::mem::take(&mut self.stored);
        if !stored.is_empty() {
            self.shared.committer.commit(self.seat.mailbox(), stored).await;
        }
        let _late = timeout(FLUSH_MAX, self.socket.close(code as u16, reason)).await;
    }
}

/// `None`: the client has gone. `Some(None)`: it showed that it is there.
fn input_of(message: Incoming) -> Option<Option<Input>> {
    match message {
        Incoming::Binary(bytes) => Some(Some(Input::Bytes(bytes))),
        Incoming::Text => Some(Some(Input::Text)),
        Incoming::Sign => Some(None),
        Incoming::End => None,
    }
}

/// Reads may wait for a disk, so they happen on a thread that may: all of one wake-up together.
async fn ask(shared: &Shared, asked: Vec<(Token, Question)>) -> Vec<(Token, Result<Answer, StoreFailed>)> {
    let tokens: Vec<Token> = asked.iter().map(|(token, _)| *token).collect();
    let store = Arc::clone(&shared.store);
    let permit = shared.reads.acquire().await;
    let answers = tokio::task::spawn_blocking(move || {
        let answer = |(token, question): (Token, Question)| {
            let report = |error: &sealwire_store::StoreError| tracing::error!(%error, "the store failed");
            (token, question.ask(&*store).inspect_err(report).map_err(|_| StoreFailed))
        };
        asked.into_iter().map(answer).collect()
    });
    let answers = answers.await;
    drop(permit);
    // A read that panicked, or a runtime that ends: no answer is a failure.
    answers.unwrap_or_else(|_| tokens.into_iter().map(|token| (token, Err(StoreFailed))).collect())
}
