//! The relay without a listener: its mind, its store's threads, and a router that serves the WebSocket.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header;
use sealwire_relay_core::{Policy, Relay};
use sealwire_store::{Store, StoreError};
use sealwire_wire::{PATH, Time};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::committer::Committer;
use crate::connection::{Visitor, serve};
use crate::hub::Hub;
use crate::key;
use crate::server::Place;
use crate::tls::Binding;
use crate::websocket::{Socket, upgrade};

/// Reads of the store that may run at once; more wait, and their clients with them.
const READS_MAX: usize = 16;
/// How long connections get to say goodbye.
const GRACE: Duration = Duration::from_secs(5);
/// How often the store is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// A relay that somebody else's server serves: [`router`](Service::router) goes into any axum program.
///
/// Dropping it aborts it; [`stop`](Service::stop) lets everything that was accepted be committed and said.
pub struct Service {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    /// Ends when the last connection has dropped its clone.
    alive: mpsc::Receiver<Never>,
    committer_thread: Option<std::thread::JoinHandle<()>>,
    /// Whether that thread has panicked.
    committer_failed: watch::Receiver<bool>,
    sweeper: tokio::task::JoinHandle<()>,
}

/// What all connections share. Nothing in it changes but behind its own locks.
pub(crate) struct Shared {
    pub(crate) relay: Arc<Relay>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) committer: Committer,
    pub(crate) reads: Semaphore,
    phase: watch::Receiver<Phase>,
    alive: mpsc::WeakSender<Never>,
}

/// Whether the relay goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// It does.
    Serving,
    /// Connections are told, and end.
    Stopping,
    /// Connections end without a word.
    Aborted,
}

/// Nothing is ever sent through `alive`: that it is open is the message.
pub(crate) enum Never {}

impl Service {
    /// Starts the threads of a relay over a store. `name` is the host part of its handles; as policy, a
    /// [`Registration`](crate::Registration) does. Needs a tokio runtime.
    ///
    /// # Errors
    /// The store's, while the relay's key is read or made.
    pub fn start(name: &str, policy: impl Into<Policy>, store: Arc<dyn Store>) -> Result<Service, StoreError> {
        let key = key::load_or_make(&*store)?;
        let relay = Arc::new(Relay::new(name, key, store.instance(), policy));
        let hub = Arc::new(Hub::default());
        let (committer, committer_thread, committer_failed) = Committer::start(Arc::clone(&store), Arc::clone(&hub))
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        let (phase, phase_seen) = watch::channel(Phase::Serving);
        let (alive_sender, alive) = mpsc::channel(1);
        let sweeper = tokio::spawn(sweep(committer.clone(), alive_sender.clone()));
        let shared = Arc::new(Shared {
            relay,
            store,
            hub,
            committer,
            reads: Semaphore::new(READS_MAX),
            phase: phase_seen,
            alive: alive_sender.downgrade(),
        });
        let committer_thread = Some(committer_thread);
        Ok(Service { shared, phase, alive, committer_thread, committer_failed, sweeper })
    }

    /// Serves the WebSocket at `/v1`. Whoever ends TLS in front of it has no exporter to give: clients log in with the
    /// binding `none` (N1).
    pub fn router(&self) -> Router {
        Router::new().route(PATH, get(visit)).with_state(Arc::clone(&self.shared))
    }

    /// The host part of its handles.
    pub fn name(&self) -> &str {
        self.shared.relay.name()
    }

    /// Its Ed25519 key, which clients may pin.
    pub fn public_key(&self) -> [u8; 32] {
        self.shared.relay.public_key()
    }

    /// Waits until the relay can commit nothing more, because the thread that does has panicked; forever, where it goes
    /// on. From then on every connection closes with what it asks for. Whoever serves the relay ends it, and says so: what
    /// was accepted is stored, and the next start finds it. Cancel-safe.
    pub async fn failed(&self) {
        let mut failed = self.committer_failed.clone();
        if failed.wait_for(|failed| *failed).await.is_err() {
            // It has ended as it was asked to.
            std::future::pending().await
        }
    }

    /// Tells all clients SHUTTING_DOWN, closes, commits what was handed over, and gives the store back.
    pub async fn stop(mut self) {
        self.phase.send_replace(Phase::Stopping);
        self.sweeper.abort();
        if tokio::time::timeout(GRACE, self.alive.recv()).await.is_err() {
            tracing::warn!("some connections did not end in time");
            self.phase.send_replace(Phase::Aborted);
            self.alive.recv().await;
        }
        self.shared.committer.stop().await;
        self.join().await;
    }

    /// Ends at once, as a crash would, but for the store's own closing: nobody is told, and what waited is lost.
    pub async fn abort(mut self) {
        self.phase.send_replace(Phase::Aborted);
        self.sweeper.abort();
        self.shared.committer.abort().await;
        self.alive.recv().await;
        self.join().await;
    }

    async fn join(&mut self) {
        if let Some(thread) = self.committer_thread.take()
            && tokio::task::spawn_blocking(move || thread.join()).await.is_err()
        {
            tracing::error!("the committer could not be joined");
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Aborted);
        self.sweeper.abort();
    }
}

impl Shared {
    /// To be watched by everything that serves.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    /// To be held by everything that serves: the relay has stopped when the last one is gone. `None`: it has already.
    pub(crate) fn alive(&self) -> Option<mpsc::Sender<Never>> {
        self.alive.upgrade().filter(|_| *self.phase.borrow() == Phase::Serving)
    }
}

/// Waits until the relay is in a phase that `is` names. Cancel-safe.
pub(crate) async fn wait_for(phase: &mut watch::Receiver<Phase>, is: fn(Phase) -> bool) {
    // An error says that the relay's owner is gone, and its drop has aborted it before.
    let _guard = phase.wait_for(|phase| is(*phase)).await.map(drop);
}

/// The wall clock, as the relay's mind is told it.
pub(crate) fn now() -> Time {
    // A clock before 1970 is no clock; 0 is as good.
    Time(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}

async fn visit(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Some(alive) = shared.alive() else { return http::StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let origin = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned);
    let binding = request.extensions().get::<Binding>().map(|Binding(exporter)| *exporter);
    let place = request.extensions().get::<Place>().cloned();
    let (response, upgraded) = upgrade(request);
    if let Some(upgraded) = upgraded {
        // Ends with the phase, which `serve` watches; `alive` tells when.
        tokio::spawn(async move {
            match upgraded.await {
                Ok(upgraded) => serve(shared, Socket::new(upgraded), Visitor { origin, binding }).await,
                Err(error) => tracing::debug!(%error, "not upgraded"),
            }
            drop((alive, place));
        });
    }
    response
}

async fn sweep(committer: Committer, alive: mpsc::Sender<Never>) {
    let mut times = tokio::time::interval(SWEEP_EVERY);
    loop {
        times.tick().await;
        committer.sweep();
        // Held while it runs, so that `stop` waits for it, too.
        if alive.is_closed() {
            return;
        }
    }
}
