//! As much of MQTT 3.1.1 (OASIS) as a publisher and a subscriber with QoS 1 need.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

use super::Pair;

const CONNECT: u8 = 0x10;
const PUBLISH_QOS_1: u8 = 0x32;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;

struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

pub(super) async fn start(address: SocketAddr, pair: Pair) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let topic = format!("pair/{}", pair.number);
    let mut reader = Connection::open(address, &format!("r{}", pair.number)).await?;
    reader.write.write_all(&packet(SUBSCRIBE, &[&[0, 1], &string(&topic)[..], &[1]])).await?;
    ensure!(reader.read_packet().await?.0 == 0x90, "no SUBACK");
    let Connection { mut read, mut write } = Connection::open(address, &format!("w{}", pair.number)).await?;
    let arrives = pair.clone();
    let reading = tokio::spawn(async move {
        while let Ok((kind, body)) = reader.read_packet().await {
            if kind & 0xf0 != 0x30 {
                continue;
            }
            let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
            let (id, payload) = body[2 + topic..].split_at(2);
            arrives.arrived(payload);
            if reader.write.write_all(&packet(PUBACK, &[id])).await.is_err() {
                return;
            }
        }
    });
    // What the broker says to the publisher is read, so that it can go on saying it.
    let acknowledged = tokio::spawn(async move { while read_packet(&mut read).await.is_ok() {} });
    let writing = tokio::spawn(async move {
        let mut id = 0u16;
        let mut publish = |body: &[u8]| {
            id = id.checked_add(1).unwrap_or(1);
            packet(PUBLISH_QOS_1, &[&string(&topic), &id.to_be_bytes(), body])
        };
        while let Some(body) = pair.next().await {
            let mut bytes = publish(&body);
            while let Some(body) = pair.more() {
                bytes.extend(publish(&body));
            }
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    Ok(vec![reading, acknowledged, writing])
}

impl Connection {
    async fn open(address: SocketAddr, id: &str) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let mut connection = Connection { read: BufReader::new(read), write };
        // Protocol level 4, clean session, no keep-alive.
        let connect = packet(CONNECT, &[&string("MQTT"), &[4, 2, 0, 0], &string(id)]);
        connection.write.write_all(&connect).await?;
        let (kind, body) = connection.read_packet().await?;
        ensure!(kind == 0x20 && body.get(1) == Some(&0), "the broker refuses: {body:?}");
        Ok(connection)
    }

    async fn read_packet(&mut self) -> anyhow::Result<(u8, Vec<u8>)> {
        read_packet(&mut self.read).await
    }
}

async fn read_packet(read: &mut BufReader<OwnedReadHalf>) -> anyhow::Result<(u8, Vec<u8>)> {
    let kind = read.read_u8().await?;
    let mut length = 0usize;
    for shift in [0, 7, 14, 21] {
        let byte = read.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let mut body = vec![0; length];
            read.read_exact(&mut body).await?;
            return Ok((kind, body));
        }
    }
    None.context("a length of more than four bytes")
}

fn packet(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![kind];
    loop {
        let more = length > 0x7f;
        bytes.push((length & 0x7f) as u8 | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}
