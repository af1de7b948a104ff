//! A tap between clients and relay: it passes every message on and keeps a copy, so that all that the relay saw can be
//! searched. It reads WebSocket messages, because on the wire a client's bytes are masked (RFC 6455, section 5.3).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, header};
use sealwire_wire::{PATH, SUBPROTOCOL};
use tokio::net::{TcpListener, TcpStream};
use tokio_websockets::{ClientBuilder, ServerBuilder};

/// Messages that passed, both ways, as the relay sees them.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Vec<Vec<u8>>>>);

impl Recording {
    fn keep(&self, bytes: &[u8]) {
        self.0.lock().expect("nobody panics while holding it").push(bytes.to_vec());
    }

    /// How many bytes passed so far.
    pub fn bytes(&self) -> u64 {
        self.0.lock().expect("nobody panics while holding it").iter().map(|message| message.len() as u64).sum()
    }

    /// All of them, in the order in which they passed.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        self.0.lock().expect("nobody panics while holding it").clone()
    }
}

/// Listens on a free port of this machine and passes everything on to `relay`, until the program ends.
///
/// # Errors
/// Where no port is free.
pub async fn open(relay: SocketAddr) -> anyhow::Result<(SocketAddr, Recording)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no free port on this machine")?;
    let address = listener.local_addr()?;
    let recording = Recording::default();
    let kept = recording.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let recording = kept.clone();
            // A connection that breaks is the client's to make again.
            tokio::spawn(async move { drop(pass_on(stream, relay, recording).await) });
        }
    });
    Ok((address, recording))
}

async fn pass_on(client: TcpStream, relay: SocketAddr, recording: Recording) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let protocol = HeaderValue::from_static(SUBPROTOCOL);
    let upstream = TcpStream::connect(relay).await?;
    upstream.set_nodelay(true)?;
    let uri = format!("ws://{relay}{PATH}").parse()?;
    let (mut upstream, _) = ClientBuilder::from_uri(uri)
        .add_header(header::SEC_WEBSOCKET_PROTOCOL, protocol.clone())?
        .connect_on(upstream)
        .await?;
    let server = ServerBuilder::new().add_header(header::SEC_WEBSOCKET_PROTOCOL, protocol)?;
    let (_, mut client) = server.accept(client).await?;
    loop {
        tokio::select! {
            message = client.next() => match message {
                Some(Ok(message)) => {
                    recording.keep(message.as_payload());
                    upstream.send(message).await?;
                }
                _ => return Ok(upstream.close().await?),
            },
            message = upstream.next() => match message {
                Some(Ok(message)) => {
                    recording.keep(message.as_payload());
                    client.send(message).await?;
                }
                _ => return Ok(client.close().await?),
            },
        }
    }
}
