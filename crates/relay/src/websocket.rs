//! The WebSocket seam: the only file that knows which library speaks RFC 6455. No compression is negotiated.

use std::future::poll_fn;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{FutureExt, SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sealwire_wire::{SUBPROTOCOL, limits::FRAME_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_websockets::proto::ProtocolError;
use tokio_websockets::{CloseCode, Error, Limits, Message, ServerBuilder, WebSocketStream};

/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// How long what a refused client still sends is read away, so that it sees the close frame and no reset.
const LINGER: Duration = Duration::from_secs(1);

/// What came in.
pub(crate) enum Incoming {
    /// A binary message.
    Binary(Vec<u8>),
    /// A text message.
    Text,
    /// A ping, or the answer to one.
    Sign,
    /// Nothing more will come.
    End,
}

/// Answers an upgrade: the response to send, and what the connection becomes, if it was not refused.
pub(crate) fn upgrade(mut request: Request) -> (Response, Option<OnUpgrade>) {
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (Some(accept), Some(on_upgrade)) = (accept_key(request.headers()), on_upgrade) else {
        return (refusal(), None);
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let put = response.headers_mut();
    put.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    put.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    put.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    put.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    (response, Some(on_upgrade))
}

fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let has = |name: HeaderName, wanted: &str, is: fn(&str, &str) -> bool| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| is(word.trim(), wanted))
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let fits = has(header::UPGRADE, "websocket", str::eq_ignore_ascii_case)
        && has(header::CONNECTION, "upgrade", str::eq_ignore_ascii_case)
        && has(header::SEC_WEBSOCKET_VERSION, "13", str::eq)
        && has(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL, str::eq)
        && STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    let digest = || sha1_smol::Sha1::from([key.as_bytes(), GUID.as_bytes()].concat()).digest().bytes();
    if fits { HeaderValue::from_str(&STANDARD.encode(digest())).ok() } else { None }
}

fn refusal() -> Response {
    let mut response = Response::new(Body::from("a WebSocket with the subprotocol sealwire.v1 is spoken here\n"));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

/// A WebSocket that was accepted.
pub(crate) struct Socket {
    stream: WebSocketStream<Box<TokioIo<Upgraded>>>,
    /// What was found broken while only looking whether something is here.
    broken: Option<Error>,
}

impl Socket {
    pub(crate) fn new(upgraded: Upgraded) -> Socket {
        // Boxed once: nested futures that each hold the stream would cost more than the stream.
        let io = Box::new(TokioIo::new(upgraded));
        let limits = Limits::default().max_payload_len(Some(FRAME_MAX));
        Socket { stream: ServerBuilder::new().limits(limits).serve(io), broken: None }
    }

    /// The next message. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Incoming {
        if let Some(error) = self.broken.take() {
            return self.end(&error).await;
        }
        match self.stream.next().await {
            Some(Ok(message)) => read(message),
            Some(Err(error)) => self.end(&error).await,
            None => Incoming::End,
        }
    }

    /// A message that is here already.
    pub(crate) fn next_now(&mut self) -> Option<Incoming> {
        match self.stream.next().now_or_never()? {
            Some(Ok(message)) => Some(read(message)),
            Some(Err(error)) => {
                self.broken = Some(error);
                None
            }
            // Asking again gives the end again.
            None => None,
        }
    }

    /// Waits until there is room for another message among those that the next flush sends; flushes where many wait.
    /// Cancel-safe.
    pub(crate) async fn has_room(&mut self) -> Result<(), Gone> {
        poll_fn(|context| self.stream.poll_ready_unpin(context)).await.map_err(|_| Gone)
    }

    /// Puts a message there, behind [`Socket::has_room`].
    pub(crate) fn put(&mut self, bytes: Vec<u8>) -> Result<(), Gone> {
        self.stream.start_send_unpin(Message::binary(bytes)).map_err(|_| Gone)
    }

    pub(crate) async fn ping(&mut self) -> Result<(), Gone> {
        self.stream.feed(Message::ping("")).await.map_err(|_| Gone)
    }

    pub(crate) async fn flush(&mut self) -> Result<(), Gone> {
        self.stream.flush().await.map_err(|_| Gone)
    }

    /// Sends what waits and a close frame, then reads away what still comes.
    pub(crate) async fn close(&mut self, code: u16, reason: &str) {
        let code = CloseCode::try_from(code).ok();
        if self.stream.feed(Message::close(code, reason)).await.is_ok() && self.stream.flush().await.is_ok() {
            self.linger().await;
        }
    }

    async fn end(&mut self, error: &Error) -> Incoming {
        // The library has queued the close frame for most; the rest gets it here.
        let code = match error {
            Error::PayloadTooLong { .. } => CloseCode::MESSAGE_TOO_BIG,
            Error::Protocol(ProtocolError::InvalidUtf8) => CloseCode::INVALID_FRAME_PAYLOAD_DATA,
            Error::Protocol(_) => CloseCode::PROTOCOL_ERROR,
            _ => return Incoming::End,
        };
        let _queued_already = self.stream.feed(Message::close(Some(code), "")).await;
        if self.stream.flush().await.is_ok() {
            self.linger().await;
        }
        Incoming::End
    }

    async fn linger(&mut self) {
        let io = self.stream.get_mut();
        let drain = async {
            let mut scratch = [0; 4096];
            // Either end's failure ends it.
            if io.shutdown().await.is_ok() {
                while io.read(&mut scratch).await.is_ok_and(|read| read > 0) {}
            }
        };
        let _late = tokio::time::timeout(LINGER, drain).await;
    }
}

/// The client is not there any more.
pub(crate) struct Gone;

fn read(message: Message) -> Incoming {
    if message.is_binary() {
        Incoming::Binary(message.into_payload().to_vec())
    } else if message.is_text() {
        Incoming::Text
    } else if message.is_close() {
        Incoming::End
    } else {
        Incoming::Sign
    }
}
