//! A raw client: a WebSocket and frames. `device` signs; nothing here seals.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue};
use sealwire_wire::frame::{FromRelay, Hello, LoggedIn, ToRelay};
use sealwire_wire::{PATH, SUBPROTOCOL};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_websockets::{ClientBuilder, Limits, MaybeTlsStream, Message, WebSocketStream};

use crate::device::Device;

/// Long enough for a loaded machine; nothing waits for it that does not fail.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) hello: Hello,
}

pub(crate) async fn connect(
    address: SocketAddr,
    subprotocol: &str,
) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, tokio_websockets::Error> {
    let uri = format!("ws://{address}{PATH}").parse().unwrap();
    let protocol = HeaderName::from_static("sec-websocket-protocol");
    let limits = Limits::default().max_payload_len(Some(1 << 20));
    let builder = ClientBuilder::from_uri(uri).limits(limits);
    let (socket, _) = builder.add_header(protocol, HeaderValue::from_str(subprotocol).unwrap())?.connect().await?;
    Ok(socket)
}

impl Client {
    pub(crate) async fn open(address: SocketAddr) -> Client {
        Client::over(connect(address, SUBPROTOCOL).await.unwrap()).await
    }

    async fn over(mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Client {
        match frame(&mut socket).await {
            Some(FromRelay::Hello(hello)) => Client { socket, hello },
            other => panic!("{other:?}"),
        }
    }

    /// Opens and logs in; what the relay said to it.
    pub(crate) async fn log_in(address: SocketAddr, device: &mut Device) -> (Client, LoggedIn) {
        let mut client = Client::open(address).await;
        let frame = device.log_in(&client.hello, "", b"");
        client.send(&frame).await;
        let FromRelay::LoggedIn(answer) = client.next().await else { panic!() };
        if matches!(answer, LoggedIn::Registered { restored: false, .. }) {
            device.commit_incarnation();
        }
        (client, answer)
    }

    pub(crate) async fn register(address: SocketAddr, device: &mut Device, handle: &str) -> Client {
        let (mut client, answer) = Client::log_in(address, device).await;
        assert_eq!(answer, LoggedIn::Unregistered);
        assert_eq!(client.ask(&device.register(handle)).await, FromRelay::Done { request: 1 });
        device.commit_incarnation();
        client
    }

    pub(crate) async fn send(&mut self, frame: &ToRelay) {
        self.send_raw(Message::binary(frame.encode())).await;
    }

    pub(crate) async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    pub(crate) async fn ask(&mut self, frame: &ToRelay) -> FromRelay {
        self.send(frame).await;
        self.next().await
    }

    pub(crate) async fn next(&mut self) -> FromRelay {
        frame(&mut self.socket).await.expect("a frame, not a close")
    }

    /// Reads until the relay closes: the frames before, and the close code.
    pub(crate) async fn until_closed(&mut self) -> (Vec<FromRelay>, Option<u16>) {
        let mut frames = Vec::new();
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("in time") {
                Some(Ok(message)) if message.is_binary() => {
                    frames.push(FromRelay::decode(message.as_payload()).unwrap());
                }
                Some(Ok(message)) if message.is_close() => {
                    return (frames, message.as_close().map(|(code, _)| code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return (frames, None),
            }
        }
    }
}

async fn frame(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> Option<FromRelay> {
    loop {
        let message = timeout(PATIENCE, socket.next()).await.expect("in time")?.ok()?;
        if message.is_binary() {
            return Some(FromRelay::decode(message.as_payload()).unwrap());
        }
        if message.is_close() {
            return None;
        }
    }
}
