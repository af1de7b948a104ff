//! What the relay answers, counted on its way to the clients: nothing that the SDK tells says how often a commit was
//! refused before it was taken. Bytes pass as they come, both ways; of a relay's WebSocket frames, which are not masked
//! (RFC 6455, 5.1), a copy is read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealwire_wire::Code;
use sealwire_wire::frame::FromRelay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Answers of the relay, to all connections together.
#[derive(Default)]
pub(super) struct Answers {
    /// An append that named an older commit than the newest.
    pub(super) stale: AtomicU64,
    /// "Not now": too many in a minute.
    pub(super) wait: AtomicU64,
    /// An append that is durable: commits, here, and what else clients say to each other.
    pub(super) accepted: AtomicU64,
    /// Frames that could not be read, and so not be counted.
    pub(super) unread: AtomicU64,
}

/// Listens, and passes each connection on to the relay at that address.
pub(super) async fn tap(relay: SocketAddr) -> anyhow::Result<(SocketAddr, Arc<Answers>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, answers) = (listener.local_addr()?, Arc::new(Answers::default()));
    let counted = Arc::clone(&answers);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let answers = Arc::clone(&counted);
            // A connection that ends is its client's matter.
            tokio::spawn(async move { drop(pass(client, relay, &answers).await) });
        }
    });
    Ok((address, answers))
}

async fn pass(client: TcpStream, relay: SocketAddr, answers: &Answers) -> std::io::Result<()> {
    let relay = TcpStream::connect(relay).await?;
    client.set_nodelay(true)?;
    relay.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_relay, mut to_relay) = relay.into_split();
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_relay).await?;
        to_relay.shutdown().await
    };
    let down = async {
        let (mut bytes, mut frames) = (vec![0; 64 * 1024], Frames::default());
        loop {
            let count = from_relay.read(&mut bytes).await?;
            if count == 0 {
                return to_client.shutdown().await;
            }
            to_client.write_all(&bytes[..count]).await?;
            frames.bytes.extend_from_slice(&bytes[..count]);
            while let Some(payload) = frames.next() {
                answers.count(payload.as_deref());
            }
        }
    };
    tokio::try_join!(up, down).map(drop)
}

impl Answers {
    fn count(&self, payload: Option<&[u8]>) {
        let counter = match payload.map(FromRelay::decode) {
            Some(Ok(FromRelay::Stale { .. })) => &self.stale,
            Some(Ok(FromRelay::Accepted { .. })) => &self.accepted,
            Some(Ok(FromRelay::Failed(failed))) if failed.code == Code::RateLimited => &self.wait,
            Some(Ok(_)) => return,
            Some(Err(_)) | None => &self.unread,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A server's half of a connection as it comes: an HTTP answer, then frames.
#[derive(Default)]
struct Frames {
    bytes: Vec<u8>,
    is_upgraded: bool,
}

const BINARY: u8 = 2;
/// Opcodes from here on are pings, pongs and ends.
const CONTROL: u8 = 8;

impl Frames {
    /// The next binary frame, once it is whole; `Some(None)`: a frame of a kind that the relay is not known to send.
    fn next(&mut self) -> Option<Option<Vec<u8>>> {
        if !self.is_upgraded {
            let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
            self.bytes.drain(..end + 4);
            self.is_upgraded = true;
        }
        loop {
            let (&[first, second], rest) = self.bytes.split_first_chunk()?;
            let (length, header) = match second {
                127 => (u64::from_be_bytes(*rest.first_chunk()?) as usize, 10),
                126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
                short => (usize::from(short), 2),
            };
            if self.bytes.len() < header + length {
                return None;
            }
            let frame: Vec<u8> = self.bytes.drain(..header + length).skip(header).collect();
            match (first & 0x0f, first & 0x80 != 0) {
                (BINARY, true) => return Some(Some(frame)),
                (CONTROL.., _) => {}
                _ => return Some(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes are cut; pings are passed over, and a message in pieces is said to be unread.
    #[test]
    fn frames_are_found_in_what_comes() {
        let mut bytes = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n".to_vec();
        bytes.extend([0x82, 2, 7, 8, 0x89, 1, 0, 0x82, 126, 1, 0]);
        bytes.extend([9; 256]);
        bytes.extend([0x02, 1, 5]);
        for size in [1, 3, bytes.len()] {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.bytes.extend_from_slice(piece);
                while let Some(frame) = frames.next() {
                    found.push(frame);
                }
            }
            assert_eq!(found, [Some(vec![7, 8]), Some(vec![9; 256]), None], "{size}");
        }
    }

    #[test]
    fn answers_are_counted_by_what_they_say() {
        let answers = Answers::default();
        let envelope = sealwire_wire::EnvelopeId([1; 16]);
        let position = sealwire_wire::Position(1);
        answers.count(Some(&FromRelay::Stale { envelope, newest_commit: position }.encode()));
        answers.count(Some(&FromRelay::Accepted { envelope, position }.encode()));
        answers.count(Some(&[0xff]));
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!([&answers.stale, &answers.accepted, &answers.unread, &answers.wait].map(read), [1, 1, 1, 0]);
    }
}
