//! Live delivery: 64 pairs, 256 B, up to 16 messages of a pair on their way, each durable at the relay before it is
//! accepted; beside Mosquitto with QoS 1 and persistence, and a bare WebSocket relay that keeps nothing. All three run
//! in turns on one core, the generator on the other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_websockets::{ClientBuilder, Message, ServerBuilder};

use crate::process::{Process, cpu_seconds_of};
use crate::report::{Figure, Report, median};

mod mqtt;
mod sealwire;

/// Pairs of a sender and a reader.
const PAIRS: usize = 64;
/// Messages of one pair on their way.
const WINDOW: usize = 16;
/// Bytes of one message.
const BODY: usize = 256;
const ROUNDS: usize = 3;

/// What one round of one server gave.
struct Round {
    rate: f64,
    cpu_per_million: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// One pair's side of the measurement: when a message may leave, and what its arrival says.
#[derive(Clone)]
struct Pair {
    number: usize,
    window: Arc<Semaphore>,
    /// Latencies in nanoseconds, of all pairs.
    arrivals: mpsc::UnboundedSender<u64>,
    began: Instant,
    stop: Arc<AtomicBool>,
}

impl Pair {
    /// Waits until a message may leave, and gives its bytes, which begin with the time.
    async fn next(&self) -> Option<Vec<u8>> {
        self.window.acquire().await.ok()?.forget();
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let mut body = vec![0x61; BODY];
        body[..8].copy_from_slice(&(self.began.elapsed().as_nanos() as u64).to_be_bytes());
        Some(body)
    }

    /// Another one that may leave at once.
    fn more(&self) -> Option<Vec<u8>> {
        self.window.try_acquire().ok()?.forget();
        let mut body = vec![0x61; BODY];
        body[..8].copy_from_slice(&(self.began.elapsed().as_nanos() as u64).to_be_bytes());
        Some(body)
    }

    fn arrived(&self, body: &[u8]) {
        let sent = body.first_chunk().map_or(0, |time| u64::from_be_bytes(*time));
        // The round may be over.
        let _ = self.arrivals.send((self.began.elapsed().as_nanos() as u64).saturating_sub(sent));
        self.window.add_permits(1);
    }
}

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mosquitto = Command::new("mosquitto").arg("-h").stdout(Stdio::piped()).output().ok();
    let version = mosquitto.and_then(|said| String::from_utf8(said.stdout).ok()?.lines().next().map(str::to_owned));
    let mut rounds: HashMap<&str, Vec<Round>> = HashMap::new();
    let seconds = if quick { 1 } else { 6 };
    for _ in 0..if quick { 1 } else { ROUNDS } {
        for server in ["sealwire", "mosquitto", "bare"] {
            if server == "mosquitto" && version.is_none() {
                continue;
            }
            rounds.entry(server).or_default().push(runtime.block_on(round(server, seconds))?);
        }
    }
    let of = |server: &str, figure: fn(&Round) -> f64| {
        rounds.get(server).map(|rounds| median(rounds.iter().map(figure).collect()))
    };
    let named = [("mosquitto", "Mosquitto QoS 1, persistence"), ("bare", "bare WebSocket relay")];
    type Measure = (&'static str, &'static str, fn(&Round) -> f64);
    let measures: [Measure; 4] = [
        ("rate", "1/s", |round| round.rate),
        ("server CPU", "CPU-s/M", |round| round.cpu_per_million),
        ("p50", "ms", |round| round.p50_ms),
        ("p99", "ms", |round| round.p99_ms),
    ];
    let mut figures = Vec::new();
    for (server, name) in named {
        for (case, unit, figure) in measures {
            if let (Some(ours), Some(theirs)) = (of("sealwire", figure), of(server, figure)) {
                figures.push(Figure::new(case, ours, unit).beside(name, theirs));
            }
        }
    }
    let peer = version.unwrap_or_else(|| "Mosquitto is not here (apt-get install mosquitto) and was left out".into());
    let method = format!(
        "{PAIRS} pairs, {BODY} B, up to {WINDOW} messages of a pair on their way, {seconds} s per round and server after 1 s of warming up, medians of {ROUNDS} rounds in turns; servers on core 0, the generator on core 1; latency from send to arrival at the reader; ours: SQLite, synchronous=FULL, accepted when durable; {peer}: autosave_interval 1, in memory with snapshots; the bare relay keeps nothing"
    );
    Ok(Report { bench: "live", method, figures })
}

async fn round(server: &str, seconds: u64) -> anyhow::Result<Round> {
    let folder = tempfile::tempdir()?;
    let process = Process::start(server, folder.path(), Some(0)).await?;
    let (arrivals, mut arrived) = mpsc::unbounded_channel();
    let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    for number in 0..PAIRS {
        let window = Arc::new(Semaphore::new(WINDOW));
        let pair = Pair { number, window, arrivals: arrivals.clone(), began, stop: Arc::clone(&stop) };
        tasks.extend(match server {
            "sealwire" => sealwire::start(process.address, pair).await?,
            "mosquitto" => mqtt::start(process.address, pair).await?,
            _ => bare_pair(process.address, pair).await?,
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    while arrived.try_recv().is_ok() {}
    let (begin, cpu) = (Instant::now(), cpu_seconds_of(&process.id())?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (elapsed, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds_of(&process.id())? - cpu);
    let mut latencies = Vec::new();
    while let Ok(latency) = arrived.try_recv() {
        latencies.push(latency);
    }
    stop.store(true, Ordering::Relaxed);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    ensure!(latencies.len() > 100, "{server}: only {} messages arrived", latencies.len());
    latencies.sort_unstable();
    let at = |part: f64| latencies[(latencies.len() as f64 * part) as usize] as f64 / 1e6;
    let count = latencies.len() as f64;
    Ok(Round { rate: count / elapsed, cpu_per_million: cpu / count * 1e6, p50_ms: at(0.5), p99_ms: at(0.99) })
}

/// A pair at the bare relay: both say which pair they are, and which end.
async fn bare_pair(address: SocketAddr, pair: Pair) -> anyhow::Result<Vec<tokio::task::JoinHandle<()>>> {
    let connect = async |end: u8| {
        let uri = format!("ws://{address}/").parse()?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut socket, _) = ClientBuilder::from_uri(uri).connect_on(stream).await?;
        socket.send(Message::binary(vec![pair.number as u8, end])).await?;
        anyhow::Ok(socket)
    };
    let mut reader = connect(1).await?;
    // Known to the relay once it answers.
    reader.next().await.context("the bare relay is gone")??;
    let mut writer = connect(0).await?;
    let arrives = pair.clone();
    let reading = tokio::spawn(async move {
        while let Some(Ok(message)) = reader.next().await {
            arrives.arrived(message.as_payload());
        }
    });
    let writing = tokio::spawn(async move {
        while let Some(body) = pair.next().await {
            let mut done = writer.feed(Message::binary(body)).await;
            while let (Ok(()), Some(body)) = (&done, pair.more()) {
                done = writer.feed(Message::binary(body)).await;
            }
            if done.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    });
    Ok(vec![reading, writing])
}

/// The bare relay: passes every message of a pair's writer on to its reader, many in one write where many wait.
pub(crate) fn bare_relay() -> anyhow::Result<()> {
    let port: u16 = std::env::var("SEALWIRE_BARE_PORT").context("started by the bench `live`")?.parse()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let readers: Arc<std::sync::Mutex<HashMap<u8, mpsc::Sender<Message>>>> = Arc::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let readers = Arc::clone(&readers);
            // A connection that ends is its client's matter.
            tokio::spawn(async move {
                let Ok((_, mut socket)) = ServerBuilder::new().accept(stream).await else { return };
                let Some(Ok(first)) = socket.next().await else { return };
                let (Some(&pair), Some(&end)) = (first.as_payload().first(), first.as_payload().get(1)) else { return };
                if end == 1 {
                    let (queue_in, mut queue) = mpsc::channel(1_024);
                    readers.lock().expect("nobody panics while holding it").insert(pair, queue_in);
                    let mut done = socket.send(Message::binary(vec![1])).await;
                    while let (Ok(()), Some(message)) = (&done, queue.recv().await) {
                        done = socket.feed(message).await;
                        while let (Ok(()), Ok(message)) = (&done, queue.try_recv()) {
                            done = socket.feed(message).await;
                        }
                        done = socket.flush().await;
                    }
                    return;
                }
                let Some(reader) = readers.lock().expect("nobody panics while holding it").get(&pair).cloned() else {
                    return;
                };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_binary() && reader.send(Message::binary(message.into_payload())).await.is_err() {
                        return;
                    }
                }
            });
        }
    })
}
