//! The relay is killed with SIGKILL again and again under load (M8, E4): no accepted message is lost, none is shown
//! twice, order is kept. Clients are the real SDK. `SEALWIRE_KILLS=1000` takes more of it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sealwire_client::{Client, Event, Events, MessageState, Mode, Part};

use crate::people::{PATIENCE, Program, befriend, join};

const PAIRS: usize = 4;
/// Messages of one sender that may be on their way: enough that every kill finds some.
const ON_THEIR_WAY: u64 = 64;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_the_relay_is_killed() {
    kill_under_load(Mode::Direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_conversation_loses_anything_when_the_relay_is_killed() {
    kill_under_load(Mode::Mls).await;
}

async fn kill_under_load(mode: Mode) {
    let kills = std::env::var("SEALWIRE_KILLS").map_or(25, |kills| kills.parse().unwrap());
    let home = tempfile::tempdir().unwrap();
    let (data, log) = (home.path().join("relay"), home.path().join("relay.log"));
    let mut relay = Some(Program::start(&data, 0, &log));
    let address = relay.as_ref().unwrap().address;
    let stop = Arc::new(AtomicBool::new(false));
    let accepted = Arc::new(AtomicUsize::new(0));
    let mut pairs = Vec::new();
    for pair in 0..PAIRS {
        let (from, to) = (format!("from{pair}"), format!("to{pair}"));
        let (sender, mut sender_events) = join(home.path(), address, &from, mode).await;
        let (reader, mut events) = join(home.path(), address, &to, mode).await;
        befriend(&sender, &mut sender_events, &reader, &mut events, &to).await;
        let writing = tokio::spawn(write(sender, format!("{to}@here"), Arc::clone(&stop), Arc::clone(&accepted)));
        // Somebody has to take them, or the states would not be told.
        let drain = tokio::spawn(async move { while sender_events.next().await.is_some() {} });
        pairs.push((writing, tokio::spawn(read(events)), reader, drain));
    }
    let mut rng = ChaCha20Rng::seed_from_u64(u64::from(std::process::id()));
    for _ in 0..kills {
        let before = accepted.load(Ordering::Relaxed);
        let began = Instant::now();
        // Traffic flows, then it ends in the middle of it.
        while accepted.load(Ordering::Relaxed) < before + 20 {
            assert!(began.elapsed() < PATIENCE, "no message was accepted since the last kill");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_micros(u64::from(rng.next_u32() % 20_000))).await;
        drop(relay.take());
        relay = Some(Program::start(&data, address.port(), &log));
    }
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for (writing, reading, reader, drain) in pairs {
        let written = writing.await.unwrap();
        // Everything was accepted; what was, arrives.
        let shown = tokio::time::timeout(PATIENCE, async {
            let mut shown: Vec<u64> = Vec::new();
            let mut reading = reading.await.unwrap();
            while (shown.len() as u64) < written {
                shown.push(reading.recv().await.expect("the reader is open"));
            }
            shown
        });
        let shown = shown.await.expect("an accepted message was lost");
        assert!(shown.iter().copied().eq(0..written), "lost, twice, or out of order");
        total += written;
        reader.close().await;
        drain.abort();
    }
    #[expect(clippy::explicit_write, reason = "eprintln! is captured while the test passes")]
    writeln!(
        std::io::stderr(),
        "killed: {kills} times with SIGKILL under load, {mode:?}; {total} messages, each shown once and in order"
    )
    .unwrap();
}

/// Writes numbers until told to stop, then waits until the last is accepted. How many there were.
async fn write(client: Client, to: String, stop: Arc<AtomicBool>, accepted: Arc<AtomicUsize>) -> u64 {
    let mut waiting = std::collections::VecDeque::new();
    let mut next = 0;
    loop {
        let is_over = stop.load(Ordering::Relaxed);
        if !is_over {
            waiting.push_back(client.send_text(&to, next.to_string()).await.unwrap());
            next += 1;
        }
        if is_over || waiting.len() as u64 >= ON_THEIR_WAY {
            let Some(oldest) = waiting.pop_front() else { return next };
            tokio::time::timeout(PATIENCE, oldest.reached(MessageState::Accepted)).await.unwrap().unwrap();
            accepted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Hands on the numbers that are shown.
async fn read(mut events: Events) -> tokio::sync::mpsc::UnboundedReceiver<u64> {
    let (shown, numbers) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Event::Message(message) = event
                && let Part::Text(text) = message.content.part
                && let Ok(number) = text.parse()
            {
                shown.send(number).unwrap();
            }
        }
    });
    numbers
}
