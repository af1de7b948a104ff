//! A pair at our relay: registered devices that speak the protocol. The bodies are bytes of the size of an envelope, so
//! that the relay is measured and not the sealing; it sees the writer's hint where it looks for it, and cannot tell.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use getrandom::SysRng;
use http::{HeaderValue, header};
use rand_core::{Rng, UnwrapErr};
use sealwire_keys::{AccountEntry, AccountKind, Change, LogInToBeSigned, sign_entry};
use sealwire_session::DeviceSecrets;
use sealwire_wire::direct::SENDER_HINT;
use sealwire_wire::entry::{Body, Entry};
use sealwire_wire::frame::{FromRelay, LoggedIn, ToRelay};
use sealwire_wire::{
    AccountId, DeviceHint, EnvelopeId, InboxAddress, Incarnation, LogId, PATH, Position, SUBPROTOCOL, Time,
};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::Pair;

type Socket = WebSocketStream<TcpStream>;

/// An acknowledgement covers this many messages, or this long.
const ACK_MESSAGES: usize = 32;
const ACK_DELAY: Duration = Duration::from_millis(5);

pub(super) async fn start(address: SocketAddr, pair: Pair) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let (reader, inbox, _) = register(address, &format!("r{}", pair.number)).await?;
    let (writer, _, own) = register(address, &format!("w{}", pair.number)).await?;
    let (mut out, mut answers) = writer.split();
    let arrives = pair.clone();
    let reading = tokio::spawn(async move { drop(read(reader, LogId::Inbox(inbox), arrives).await) });
    let accepted = tokio::spawn(async move { while let Some(Ok(_)) = answers.next().await {} });
    let writing = tokio::spawn(async move { drop(write(&mut out, LogId::Inbox(inbox), own, pair).await) });
    Ok(vec![reading, accepted, writing])
}

async fn write(out: &mut SplitSink<Socket, Message>, log: LogId, own: DeviceHint, pair: Pair) -> anyhow::Result<()> {
    let mut rng = UnwrapErr(SysRng);
    let mut append = |mut body: Vec<u8>| {
        // The time goes behind the hint; what is left of the message makes the body as long as it was.
        body.rotate_right(SENDER_HINT.end);
        body[SENDER_HINT].copy_from_slice(&own.0);
        let mut envelope = [0; 16];
        rng.fill_bytes(&mut envelope);
        let entry = Entry::direct(EnvelopeId(envelope), body).encode();
        Message::binary(ToRelay::Append { log, entry, roster: None }.encode())
    };
    while let Some(body) = pair.next().await {
        out.feed(append(body)).await?;
        while let Some(body) = pair.more() {
            out.feed(append(body)).await?;
        }
        out.flush().await?;
    }
    Ok(())
}

async fn read(socket: Socket, log: LogId, pair: Pair) -> anyhow::Result<()> {
    let (mut out, mut frames): (SplitSink<Socket, Message>, SplitStream<Socket>) = socket.split();
    let (mut upto, mut owed) = (Position::START, 0);
    loop {
        let due = tokio::time::sleep(ACK_DELAY);
        let frame = tokio::select! {
            frame = frames.next() => frame.context("closed")??,
            () = due, if owed > 0 => {
                out.send(Message::binary(ToRelay::Ack { log, upto }.encode())).await?;
                owed = 0;
                continue;
            }
        };
        let FromRelay::Deliver { entries, .. } = FromRelay::decode(frame.as_payload())? else { continue };
        for delivered in &entries {
            if let Ok(Entry { body: Body::Inline(body), .. }) = Entry::decode(&delivered.entry) {
                pair.arrived(&body[SENDER_HINT.end..]);
            }
            (upto, owed) = (delivered.position, owed + 1);
        }
        if owed >= ACK_MESSAGES {
            out.send(Message::binary(ToRelay::Ack { log, upto }.encode())).await?;
            owed = 0;
        }
    }
}

/// Makes a device, and registers it.
async fn register(address: SocketAddr, name: &str) -> anyhow::Result<(Socket, InboxAddress, DeviceHint)> {
    let mut rng = UnwrapErr(SysRng);
    let secrets = DeviceSecrets::generate(&mut rng);
    let mut random = [0; 48];
    rng.fill_bytes(&mut random);
    let (inbox, rest) = random.split_first_chunk().context("48 bytes")?;
    let (committed, pending) = rest.split_first_chunk().context("32 bytes")?;
    let (inbox, committed) = (InboxAddress(*inbox), Incarnation(*committed));
    let pending = Incarnation(pending.try_into()?);
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = ClientBuilder::from_uri(format!("ws://{address}{PATH}").parse()?)
        .add_header(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL))?
        .connect_on(stream)
        .await?;
    let FromRelay::Hello(hello) = next(&mut socket).await? else { bail!("no hello") };
    let device = secrets.device_id();
    let signed =
        LogInToBeSigned::new(&hello.relay_name, hello.relay_key, hello.challenge, device, committed, pending, "", &[]);
    let log_in = ToRelay::LogIn {
        device_key: secrets.key().to_bytes(),
        incarnation: committed,
        pending,
        binding: Vec::new(),
        signature: secrets.sign(&signed.encode()),
    };
    socket.send(Message::binary(log_in.encode())).await?;
    let FromRelay::LoggedIn(LoggedIn::Unregistered) = next(&mut socket).await? else { bail!("not logged in") };
    let genesis = AccountEntry {
        account: AccountId([0; 32]),
        number: 0,
        previous: [0; 32],
        at: Time(1),
        change: Change::Genesis { kind: AccountKind::Service, device: secrets.card() },
        signer: device,
    };
    let genesis = sign_entry(&genesis, |bytes| secrets.sign(bytes)).0;
    let (handle, invite) = (name.to_owned(), String::new());
    socket.send(Message::binary(ToRelay::Register { request: 1, handle, genesis, inbox, invite }.encode())).await?;
    match next(&mut socket).await? {
        FromRelay::Done { .. } => Ok((socket, inbox, device.hint())),
        other => bail!("not registered: {other:?}"),
    }
}

async fn next(socket: &mut Socket) -> anyhow::Result<FromRelay> {
    Ok(FromRelay::decode(socket.next().await.context("closed")??.as_payload())?)
}
