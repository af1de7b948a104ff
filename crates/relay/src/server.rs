//! The listener: TCP, TLS, HTTP/1.1 with upgrades.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sealwire_relay_core::Policy;
use sealwire_store::logs::Limits;
use sealwire_store::{Store, StoreError};
use sealwire_store_sqlite::SqliteStore;
use sealwire_wire::InstanceId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::service::{Phase, Service, Shared, wait_for};
pub use crate::tls::TlsFiles;
use crate::tls::{Binding, acceptor, binding};

/// Connections that wait to be accepted: fewer lose SYNs, and a second each, when ten thousand come back at once.
const BACKLOG: u32 = 4_096;
/// Connections at once, by default: as many as one process has file descriptors for on a machine that was set up for it.
const CONNECTIONS_MAX: usize = 65_536;
/// How long a client may take for its TLS handshake, and then for its request's head.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A pause where accepting fails: the process is out of file descriptors, and others have to go first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a relay is served.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens; port 0: a free one.
    pub listen: SocketAddr,
    /// The host part of its handles; `None`: `localhost:PORT` on a loopback address, else the address.
    pub name: Option<String>,
    /// What its operator decides: who may make an account, how fast a connection may write.
    pub policy: Policy,
    /// The certificate, where the relay ends TLS itself.
    pub tls: Option<TlsFiles>,
    /// Whether to go without TLS on other than loopback addresses: behind a proxy that ends it.
    pub insecure_plain: bool,
    /// Connections at once; more wait until one ends.
    pub connections_max: usize,
}

impl Config {
    /// A relay on this address, named after it, without TLS. As policy, a [`Registration`](crate::Registration) does.
    pub fn new(listen: SocketAddr, policy: impl Into<Policy>) -> Config {
        Config {
            listen,
            name: None,
            policy: policy.into(),
            tls: None,
            insecure_plain: false,
            connections_max: CONNECTIONS_MAX,
        }
    }
}

/// Why a relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Messages are sealed anyway, but who talks to whom would be for all to see.
    #[error(
        "{0} is not on this machine only, and there is no certificate: give --tls-cert and --tls-key, or --insecure-plain behind a proxy that ends TLS"
    )]
    PlainAddress(SocketAddr),
    /// Certificate or key.
    #[error("TLS: {0}")]
    Tls(String),
    /// The address.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    Randomness,
}

/// A relay that listens.
pub struct Server {
    service: Service,
    address: SocketAddr,
    /// Ends with the service's phase.
    listening: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts listening. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: &Config, store: Arc<dyn Store>) -> Result<Server, StartError> {
        let tls = config.tls.as_ref().map(acceptor).transpose().map_err(StartError::Tls)?;
        if tls.is_none() && !config.listen.ip().is_loopback() && !config.insecure_plain {
            return Err(StartError::PlainAddress(config.listen));
        }
        let listener = listen(config.listen).map_err(|error| StartError::Listen(config.listen, error))?;
        let address = listener.local_addr().map_err(|error| StartError::Listen(config.listen, error))?;
        let name = config.name.clone().unwrap_or_else(|| default_name(address));
        let service = Service::start(&name, config.policy, store)?;
        let door = Door { router: service.router(), shared: Arc::clone(service.shared()), tls };
        let listening = tokio::spawn(accept(listener, config.connections_max, door));
        Ok(Server { service, address, listening })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The host part of its handles.
    pub fn name(&self) -> &str {
        self.service.name()
    }

    /// Its Ed25519 key, which clients may pin.
    pub fn public_key(&self) -> [u8; 32] {
        self.service.public_key()
    }

    /// Waits until the relay can commit nothing more: [`Service::failed`].
    pub async fn failed(&self) {
        self.service.failed().await;
    }

    /// Tells all clients SHUTTING_DOWN, closes, commits what was handed over, and lets go of port and store.
    pub async fn stop(self) {
        self.listening.abort();
        self.service.stop().await;
    }

    /// Ends at once, as a crash would, but for the store's own closing: nobody is told, and what waited is lost.
    pub async fn abort(self) {
        self.listening.abort();
        self.service.abort().await;
    }
}

/// A whole relay on this machine with its data in a directory: for a demo or a test. `port` 0: a free one. `name`: the
/// host part of its handles, by default `localhost:PORT`; give one where the relay comes back on another port. `policy`: a
/// [`Registration`](crate::Registration) does.
///
/// # Errors
/// [`StartError`].
pub async fn start_local(
    data: &Path,
    port: u16,
    name: Option<&str>,
    policy: impl Into<Policy>,
) -> Result<Server, StartError> {
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    let config = Config { name: name.map(str::to_owned), ..Config::new(here, policy) };
    Server::start(&config, Arc::new(open_store(data)?)).await
}

/// Opens the embedded store in a directory, and makes both where they do not exist.
///
/// # Errors
/// [`StartError::Store`], with [`StoreError::InUse`] where another process has it; [`StartError::Randomness`].
pub fn open_store(data: &Path) -> Result<SqliteStore, StartError> {
    let mut fresh = [0; 16];
    getrandom::fill(&mut fresh).map_err(|_| StartError::Randomness)?;
    Ok(SqliteStore::open(data, InstanceId(fresh), Limits::default())?)
}

/// What a connection meets.
#[derive(Clone)]
struct Door {
    router: Router,
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A relay that restarts finds its port, whatever lingers of connections before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn default_name(address: SocketAddr) -> String {
    if address.ip().is_loopback() { format!("localhost:{}", address.port()) } else { address.to_string() }
}

/// A connection's place among those that may be there at once. Goes with the last of the tasks that hold it: an upgraded
/// connection outlives the one that accepted it.
#[derive(Clone)]
pub(crate) struct Place(#[expect(dead_code, reason = "it is given back when it is dropped")] Arc<OwnedSemaphorePermit>);

async fn accept(listener: TcpListener, connections_max: usize, door: Door) {
    let room = Arc::new(Semaphore::new(connections_max));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(alive) = door.shared.alive() else { return };
        let place = Place(Arc::new(permit));
        let door = door.clone();
        // Ends with the phase, which `greet` watches; `alive` tells when.
        tokio::spawn(async move {
            let mut phase = door.shared.phase();
            tokio::select! {
                () = wait_for(&mut phase, |phase| phase == Phase::Aborted) => {}
                () = greet(stream, place, door) => {}
            }
            drop(alive);
        });
    }
}

async fn greet(stream: TcpStream, place: Place, Door { router, shared, tls }: Door) {
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(%error, "gone before it began");
    }
    let router = router.layer(axum::Extension(place));
    let Some(tls) = tls else { return talk(stream, router, shared, None).await };
    match timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let binding = binding(stream.get_ref().1);
            // Boxed once after the handshake: each future that holds it would hold its 16 KiB.
            talk(Box::new(stream), router, shared, binding).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
        Err(_late) => tracing::debug!("no TLS in time"),
    }
}

async fn talk<S>(stream: S, router: Router, shared: Arc<Shared>, binding: Option<Binding>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = match binding {
        Some(binding) => router.layer(axum::Extension(binding)),
        None => router,
    };
    let service = TowerToHyperService::new(router);
    let talk = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_MAX)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut phase = shared.phase();
    tokio::select! {
        // Who has not upgraded yet has nothing to lose.
        () = wait_for(&mut phase, |phase| phase != Phase::Serving) => {}
        done = talk => if let Err(error) = done {
            tracing::debug!(%error, "the request failed");
        }
    }
}
