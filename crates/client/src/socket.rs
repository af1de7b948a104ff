//! The WebSocket: the only place of the client that knows which library it is, and the only one that opens sockets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Uri, header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sealwire_wire::limits::{FRAME_MAX, SILENCE_MS};
use sealwire_wire::{PATH, SUBPROTOCOL};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_websockets::{ClientBuilder, Limits, Message, WebSocketStream};

/// Where a relay is, and whom its certificate is checked against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayAddress {
    uri: Uri,
    extra_root: Option<PathBuf>,
    behind_proxy: bool,
}

/// Why an address is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `ws://` or `wss://` with a host.
    #[error("write the relay's address as wss://host or wss://host:port")]
    Shape,
    /// Plain text over a network.
    #[error("a relay without TLS may only be on this machine (ws://127.0.0.1:port); use wss://")]
    Plain,
}

impl RelayAddress {
    /// Reads `wss://host[:port]`, or `ws://` for a relay on this machine.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(text: &str) -> Result<RelayAddress, AddressError> {
        let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| AddressError::Shape)?;
        let host = uri.host().ok_or(AddressError::Shape)?;
        let loopback = host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
        match uri.scheme_str() {
            Some("wss") => {}
            Some("ws") if loopback => {}
            Some("ws") => return Err(AddressError::Plain),
            _ => return Err(AddressError::Shape),
        }
        let path = if matches!(uri.path(), "" | "/") { PATH } else { uri.path() };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(path.parse().map_err(|_| AddressError::Shape)?);
        Ok(RelayAddress {
            uri: Uri::from_parts(parts).map_err(|_| AddressError::Shape)?,
            extra_root: None,
            behind_proxy: false,
        })
    }

    /// Also trusts the certificates in a PEM file: for a relay with a certificate of its own making.
    #[must_use]
    pub fn with_root(mut self, pem: Option<PathBuf>) -> RelayAddress {
        self.extra_root = pem;
        self
    }

    /// Says that a proxy in front of the relay ends TLS, so that log-ins are not bound to the connection (N1): the relay
    /// could not compare. For the person to say, never for the relay: whoever stands in between would say it, too.
    #[must_use]
    pub fn behind_proxy(mut self, yes: bool) -> RelayAddress {
        self.behind_proxy = yes;
        self
    }

    pub(crate) fn extra_root(&self) -> Option<&PathBuf> {
        self.extra_root.as_ref()
    }

    pub(crate) fn is_behind_proxy(&self) -> bool {
        self.behind_proxy
    }

    fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("wss")
    }
}

impl std::fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.uri.fmt(f)
    }
}

/// What a connection tells.
pub(crate) enum SocketEvent {
    /// It is open. The exporter binds the log-in to it (N1).
    Opened { binding: Option<[u8; 32]> },
    /// A binary message.
    Frame(Vec<u8>),
    /// It is over, or never began.
    Closed,
}

/// Frames that may wait to be written. The relay's limit on appends in flight keeps it short.
const QUEUE: usize = 1_024;
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that ends may take to write what is queued.
const GOODBYE: Duration = Duration::from_secs(2);

/// A connection that runs by itself; it ends when this is dropped.
pub(crate) struct Socket {
    frames: mpsc::Sender<Vec<u8>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Socket {
    /// Begins to connect. Events carry `generation`, so that those of an earlier connection can be told apart.
    pub(crate) fn connect(address: RelayAddress, generation: u64, events: mpsc::Sender<(u64, SocketEvent)>) -> Socket {
        let (frames, queue) = mpsc::channel(QUEUE);
        let task = tokio::spawn(async move {
            if let Err(error) = run(address, generation, &events, queue).await {
                tracing::debug!(%error, "the connection to the relay ended");
            }
            // The driver may be gone, and with it whoever wants to know.
            let _ = events.send((generation, SocketEvent::Closed)).await;
        });
        Socket { frames, task: Some(task) }
    }

    /// Writes what is queued, says goodbye, and ends. What still comes is not handled: it comes again.
    pub(crate) async fn finish(mut self, events: &mut mpsc::Receiver<(u64, SocketEvent)>) {
        let Some(mut task) = self.task.take() else { return };
        let abort = task.abort_handle();
        // Without a sender the queue ends behind what is in it.
        drop(self);
        let ended = async {
            loop {
                tokio::select! {
                    _ = &mut task => return,
                    // Somebody has to take them, or the task would wait.
                    _ = events.recv() => {}
                }
            }
        };
        if tokio::time::timeout(GOODBYE, ended).await.is_err() {
            abort.abort();
        }
    }

    /// Queues a frame; false if the connection is over or does not keep up.
    pub(crate) fn send(&self, frame: Vec<u8>) -> bool {
        self.frames.try_send(frame).is_ok()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn run(
    address: RelayAddress,
    generation: u64,
    events: &mpsc::Sender<(u64, SocketEvent)>,
    queue: mpsc::Receiver<Vec<u8>>,
) -> Result<(), String> {
    let (stream, binding) = tokio::time::timeout(CONNECT_TIMEOUT, open(&address))
        .await
        .map_err(|_| "the relay does not answer".to_owned())??;
    if events.send((generation, SocketEvent::Opened { binding })).await.is_err() {
        return Ok(());
    }
    pump(stream, generation, events, queue).await
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

type Opened = (WebSocketStream<Box<dyn Stream>>, Option<[u8; 32]>);

async fn open(address: &RelayAddress) -> Result<Opened, String> {
    let host = address.uri.host().unwrap_or_default();
    let port = address.uri.port_u16().unwrap_or(if address.is_tls() { 443 } else { 80 });
    let bare = host.trim_matches(['[', ']']);
    let tcp = TcpStream::connect((bare, port)).await.map_err(|error| format!("{host}:{port}: {error}"))?;
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let (stream, binding): (Box<dyn Stream>, _) = if address.is_tls() {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls_config(address)?));
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
        let tls = connector.connect(name, tcp).await.map_err(|error| format!("TLS: {error}"))?;
        let binding = tls
            .get_ref()
            .1
            .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[]))
            .map_err(|error| format!("TLS: {error}"))?;
        (Box::new(tls), (!address.behind_proxy).then_some(binding))
    } else {
        (Box::new(tcp), None)
    };
    let (stream, response) = ClientBuilder::from_uri(address.uri.clone())
        .limits(Limits::default().max_payload_len(Some(FRAME_MAX)))
        .add_header(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL))
        .map_err(|error| error.to_string())?
        .connect_on(stream)
        .await
        .map_err(|error| format!("not a Sealwire relay: {error}"))?;
    let spoken = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    if spoken.is_none_or(|spoken| spoken != SUBPROTOCOL) {
        return Err(format!("the relay does not speak {SUBPROTOCOL}"));
    }
    Ok((stream, binding))
}

fn tls_config(address: &RelayAddress) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &address.extra_root {
        let read = |error| format!("{}: {error}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
            roots.add(certificate.map_err(read)?).map_err(|error| error.to_string())?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    Ok(builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

/// Writes what is queued and reads what comes. A silent connection is pinged once, then given up.
async fn pump(
    mut stream: WebSocketStream<Box<dyn Stream>>,
    generation: u64,
    events: &mpsc::Sender<(u64, SocketEvent)>,
    mut queue: mpsc::Receiver<Vec<u8>>,
) -> Result<(), String> {
    let silence = Duration::from_millis(SILENCE_MS);
    let mut pinged = false;
    loop {
        tokio::select! {
            // Reading first: what the relay says may make what is queued unnecessary.
            biased;
            message = stream.next() => {
                pinged = false;
                match message {
                    Some(Ok(message)) if message.is_binary() => {
                        let frame = message.into_payload().to_vec();
                        if events.send((generation, SocketEvent::Frame(frame))).await.is_err() {
                            return Ok(());
                        }
                    }
                    Some(Ok(message)) if message.is_close() => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.to_string()),
                    None => return Ok(()),
                }
            }
            frame = queue.recv() => {
                let Some(frame) = frame else { return say_goodbye(stream).await };
                stream.feed(Message::binary(frame)).await.map_err(|error| error.to_string())?;
                // What is queued behind it shares the write.
                while let Ok(frame) = queue.try_recv() {
                    stream.feed(Message::binary(frame)).await.map_err(|error| error.to_string())?;
                }
                stream.flush().await.map_err(|error| error.to_string())?;
            }
            () = tokio::time::sleep(silence) => {
                if pinged {
                    return Err("the relay has been silent for too long".to_owned());
                }
                pinged = true;
                stream.send(Message::ping(Vec::new())).await.map_err(|error| error.to_string())?;
            }
        }
    }
}

/// Closes in order, and waits until the relay has, too: a socket that is dropped with something unread in it may take back
/// what it has written.
async fn say_goodbye(mut stream: WebSocketStream<Box<dyn Stream>>) -> Result<(), String> {
    stream.close().await.map_err(|error| error.to_string())?;
    while let Some(Ok(_)) = stream.next().await {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encrypted_or_on_this_machine() {
        assert_eq!(RelayAddress::parse("wss://relay.example").unwrap().to_string(), "wss://relay.example/v1");
        assert_eq!(RelayAddress::parse("ws://127.0.0.1:8443/").unwrap().to_string(), "ws://127.0.0.1:8443/v1");
        assert!(RelayAddress::parse("ws://[::1]:8443").is_ok() && RelayAddress::parse("ws://localhost:1").is_ok());
        assert_eq!(RelayAddress::parse("ws://relay.example"), Err(AddressError::Plain));
        assert_eq!(RelayAddress::parse("ws://127.0.0.1.example.com"), Err(AddressError::Plain));
        for bad in ["relay.example", "https://relay.example", ""] {
            assert_eq!(RelayAddress::parse(bad), Err(AddressError::Shape), "{bad}");
        }
    }
}
