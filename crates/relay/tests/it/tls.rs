use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sealwire_relay::{Config, Registration, Server, StartError, TlsFiles, open_store};
use sealwire_wire::frame::{FromRelay, Hello, LoggedIn};
use sealwire_wire::{Code, PATH, SUBPROTOCOL};
use tempfile::{TempDir, tempdir};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use crate::device::Device;

struct Secure {
    server: Server,
    certificate: CertificateDer<'static>,
    _data: TempDir,
}

async fn secure() -> Secure {
    let data = tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles { certificates: data.path().join("cert.pem"), key: data.path().join("key.pem") };
    std::fs::write(&files.certificates, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let config = Config {
        name: Some("relay.example".to_owned()),
        tls: Some(files),
        ..Config::new("127.0.0.1:0".parse().unwrap(), Registration::Open)
    };
    let store = Arc::new(open_store(&data.path().join("store")).unwrap());
    let server = Server::start(&config, store).await.unwrap();
    Secure { server, certificate: made.cert.der().clone(), _data: data }
}

impl Secure {
    /// A TLS connection with one version of TLS, and its exporter.
    async fn connect(
        &self,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> std::io::Result<(TlsStream<TcpStream>, [u8; 32])> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.server.address()).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let exporter = stream.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).unwrap();
        Ok((stream, exporter))
    }

    async fn open(&self, origin: Option<&'static str>) -> (WebSocketStream<TlsStream<TcpStream>>, Hello, [u8; 32]) {
        let (stream, exporter) = self.connect(&rustls::version::TLS13).await.unwrap();
        let uri = format!("wss://localhost{PATH}").parse().unwrap();
        let mut builder = ClientBuilder::from_uri(uri);
        let headers = [("sec-websocket-protocol", Some(SUBPROTOCOL)), ("origin", origin)];
        for (name, value) in headers {
            if let Some(value) = value {
                builder = builder.add_header(HeaderName::from_static(name), HeaderValue::from_static(value)).unwrap();
            }
        }
        let (mut socket, _) = builder.connect_on(stream).await.unwrap();
        let FromRelay::Hello(hello) = next(&mut socket).await else { panic!() };
        (socket, hello, exporter)
    }
}

async fn next(socket: &mut WebSocketStream<TlsStream<TcpStream>>) -> FromRelay {
    let message = socket.next().await.unwrap().unwrap();
    FromRelay::decode(message.as_payload()).unwrap()
}

/// N1: both ends compute one exporter; a log-in with another connection's, or without one, is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_is_bound_to_its_connection() {
    let secure = secure().await;
    let device = Device::new(1);
    let log_in = async |origin: Option<&'static str>, binding: &dyn Fn([u8; 32]) -> Vec<u8>| {
        let (mut socket, hello, exporter) = secure.open(origin).await;
        let frame = device.log_in(&hello, origin.unwrap_or(""), &binding(exporter));
        socket.send(Message::binary(frame.encode())).await.unwrap();
        match next(&mut socket).await {
            FromRelay::LoggedIn(LoggedIn::Unregistered) => Ok(()),
            FromRelay::Failed(failed) => Err(failed.code),
            other => panic!("{other:?}"),
        }
    };
    let (_, _, elsewhere) = secure.open(None).await;
    assert_eq!(log_in(None, &|exporter| exporter.to_vec()).await, Ok(()));
    assert_eq!(log_in(None, &|_| elsewhere.to_vec()).await, Err(Code::BadSignature));
    assert_eq!(log_in(None, &|_| Vec::new()).await, Err(Code::BindingRequired));
    assert_eq!(log_in(Some("https://app.example"), &|_| Vec::new()).await, Ok(()));
    secure.server.stop().await;
}

/// N1: TLS 1.3 and nothing older; plain HTTP gets no answer.
#[tokio::test(flavor = "multi_thread")]
async fn older_tls_is_refused() {
    let secure = secure().await;
    assert!(secure.connect(&rustls::version::TLS13).await.is_ok());
    assert!(secure.connect(&rustls::version::TLS12).await.is_err());
    assert!(crate::client::connect(secure.server.address(), SUBPROTOCOL).await.is_err());
    secure.server.stop().await;
}

/// N1: plain on loopback only, unless somebody says so.
#[tokio::test(flavor = "multi_thread")]
async fn plain_stays_on_this_machine() {
    let data = tempdir().unwrap();
    let mut config = Config::new("0.0.0.0:0".parse().unwrap(), Registration::Open);
    let start = async |config: &Config| Server::start(config, Arc::new(open_store(data.path()).unwrap())).await;
    assert!(matches!(start(&config).await, Err(StartError::PlainAddress(_))));
    config.insecure_plain = true;
    start(&config).await.unwrap().stop().await;
}
