//! Conversations of two: the façade beside bare OpenMLS, and whole engines with their stores.

use std::time::Instant;

use sealwire_wire::padding::padded_length;

use super::bare::Bare;
use super::engines::{Engines, Message};
use super::ours::Ours;
use super::party::{Change, Party};
use super::{CONTENT, PEER, spent};
use crate::report::{Figure, median};

/// Rounds whose median counts; ours and the peer's alternate, so that both meet the same noise.
const ROUNDS: usize = 5;

/// Seconds that one round took; `wall` is that of sending and receiving.
#[derive(Default)]
struct Rounds {
    set_up: Vec<f64>,
    send: Vec<f64>,
    receive: Vec<f64>,
    wall: Vec<f64>,
    overhead: usize,
    written: u64,
}

impl Rounds {
    fn round<P: Party>(&mut self, messages: usize) -> anyhow::Result<()> {
        let (mut alice, mut bob) = (P::new(0)?, P::new(1)?);
        let card = bob.card()?;
        let (_, set_up) = spent(|| {
            alice.create()?;
            let made = alice.commit(Change::Add(vec![card]))?;
            alice.merge()?;
            bob.join(made.welcome()?)
        })?;
        alice.written()?;
        bob.written()?;
        let begin = Instant::now();
        let (sealed, send) = spent(|| alice.seal_many(messages))?;
        let (_, receive) = spent(|| sealed.iter().try_for_each(|message| bob.open(message)))?;
        self.wall.push(begin.elapsed().as_secs_f64() / messages as f64);
        self.set_up.push(set_up);
        self.send.push(send / messages as f64);
        self.receive.push(receive / messages as f64);
        self.written = (alice.written()? + bob.written()?) / messages as u64;
        self.overhead = sealed.last().map_or(0, |message| P::entry_length(message) - padded_length(CONTENT));
        Ok(())
    }
}

pub(super) fn figures(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let messages = if quick { 50 } else { 200 };
    let folder = tempfile::tempdir()?;
    let mut engines = Engines::of_two(&folder.path().join("one-by-one"), quick)?;
    let mut engines_at_once = Engines::of_two(&folder.path().join("bursts"), quick)?;
    let (mut ours, mut bare) = (Rounds::default(), Rounds::default());
    let (mut whole, mut bursts) = (Vec::new(), Vec::new());
    for _ in 0..if quick { 1 } else { ROUNDS } {
        ours.round::<Ours>(messages)?;
        bare.round::<Bare>(messages)?;
        whole.push(engines.messages(messages)?);
        bursts.push(engines_at_once.burst(messages)?);
    }
    let of = |values: &[f64]| median(values.to_vec());
    let median_of = |rounds: &[Message], value: fn(&Message) -> f64| median(rounds.iter().map(value).collect());
    let message = of(&bare.send) + of(&bare.receive);
    let figure =
        |case: &str, unit, ours: f64, bare: f64| Figure::new(format!("1:1, {case}"), ours, unit).beside(PEER, bare);
    let alone = |case: &str, value| Figure::new(format!("1:1, {case}"), value, "B/message");
    let written = |rounds: &[Message]| rounds.iter().map(|message| message.written).sum::<f64>() / rounds.len() as f64;
    let of_engines = |rounds: &[Message], how: &str| {
        let both = median_of(rounds, |message| message.thinking + message.saving);
        let thinking = median_of(rounds, |message| message.thinking) * 1e6;
        let (wall, bare_wall) = (median_of(rounds, |message| 1.0 / message.wall), 1.0 / of(&bare.wall));
        [
            figure(&format!("engines{how}: send and receive"), "CPU µs", thinking, message * 1e6),
            figure(&format!("engines with their stores{how}: send and receive"), "CPU µs", both * 1e6, message * 1e6),
            figure(&format!("engines with their stores{how}: messages"), "1/s of CPU", 1.0 / both, 1.0 / message),
            figure(&format!("engines, syncing stores, relay{how}: messages"), "1/s", wall, bare_wall),
        ]
    };
    let bytes_of_engines = |rounds: &[Message], how: &str| {
        let changed = median_of(rounds, |message| message.changed);
        [
            alone(&format!("engines{how}: records written, both sides"), changed),
            alone(&format!("engines{how}: given to write calls by their stores, both sides"), written(rounds)),
        ]
    };
    let facade = vec![
        figure("façade: create, add, join", "CPU ms", of(&ours.set_up) * 1e3, of(&bare.set_up) * 1e3),
        figure("façade: send", "CPU µs", of(&ours.send) * 1e6, of(&bare.send) * 1e6),
        figure("façade: receive", "CPU µs", of(&ours.receive) * 1e6, of(&bare.receive) * 1e6),
        figure("façade: messages", "1/s", 1.0 / of(&ours.wall), 1.0 / of(&bare.wall)),
        figure("engines: first message until it is shown", "CPU ms", engines.set_up * 1e3, of(&bare.set_up) * 1e3),
    ];
    let lengths = vec![
        figure("an entry over its padded plaintext", "B", ours.overhead as f64, bare.overhead as f64),
        alone("façade: records written, both sides", ours.written as f64),
    ];
    let engines = of_engines(&whole, "").into_iter().chain(of_engines(&bursts, ", a burst"));
    let bytes = bytes_of_engines(&whole, "").into_iter().chain(bytes_of_engines(&bursts, ", a burst"));
    Ok(facade.into_iter().chain(engines).chain(lengths).chain(bytes).collect())
}
