//! Direct mode beside the bare primitive: AES-256-GCM of the same crate over the same padded plaintext, with one random
//! IV from the same generator, into a buffer of its own, as any program that calls the primitive would do it. Once
//! without associated data, and once with as much as an envelope authenticates.

use std::hint::black_box;
use std::time::Instant;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};
use sealwire_keys::Suite;
use sealwire_session::DeviceSecrets;
use sealwire_session::direct::{DirectSession, Direction};
use sealwire_wire::EnvelopeId;
use sealwire_wire::limits::MESSAGE_MAX;
use sealwire_wire::padding::padded_length;

use crate::report::{Figure, Report, median};

/// Rounds whose median counts; ours and the peer's alternate, so that both meet the same noise.
const ROUNDS: usize = 15;
/// Bytes of associated data of an envelope (spec/direct.md).
const ASSOCIATED: [u8; 126] = [7; 126];

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    let mut rng = UnwrapErr(SysRng);
    let (alice, bob) = (DeviceSecrets::generate(&mut rng), DeviceSecrets::generate(&mut rng));
    let key = |of: &DeviceSecrets| of.direct_key(Suite::X25519);
    let sending = DirectSession::derive(&alice, bob.device_id(), &key(&bob), Direction::Sending)?;
    let receiving = DirectSession::derive(&bob, alice.device_id(), &key(&alice), Direction::Receiving)?;
    let cipher = Aes256Gcm::new(&[7; 32].into());
    let envelope = EnvelopeId([1; 16]);
    let mut figures = Vec::new();
    // One byte of padding is the least, so that the second fills a message to its limit.
    for (case, length) in [("100 B", 100), ("16 KiB", MESSAGE_MAX - 1)] {
        let content = vec![0x61; length];
        let padded = padded_length(length);
        let times = if quick { 50 } else { (40_000_000 / (padded + 2_000)).min(20_000) };
        let body = sending.seal(envelope, 0, &content, &mut rng)?;
        let (mut seal, mut open) = (Vec::new(), Vec::new());
        let (mut bare, mut with_data) = (Bare::new(&cipher, padded, &[]), Bare::new(&cipher, padded, &ASSOCIATED));
        for _ in 0..ROUNDS {
            seal.push(nanoseconds(times, || {
                black_box(sending.seal(envelope, 0, black_box(&content), &mut rng).expect("within limits"));
            }));
            open.push(nanoseconds(times, || {
                black_box(receiving.open(envelope, black_box(&body)).expect("authentic"));
            }));
            bare.round(times);
            with_data.round(times);
        }
        let (seal, open) = (median(seal), median(open));
        for (bare, name) in [(bare, "bare AES-GCM"), (with_data, "the same, with 126 B of associated data")] {
            let (bare_seal, bare_open) = (median(bare.seal), median(bare.open));
            let figure = |what: &str, ours, bare| Figure::new(format!("{what} {case}"), ours, "ns").beside(name, bare);
            figures.push(figure("seal and open", seal + open, bare_seal + bare_open));
            figures.push(figure("seal", seal, bare_seal));
            figures.push(figure("open", open, bare_open));
        }
        figures.push(Figure::new(format!("added to {case} padded"), (body.len() - padded) as f64, "B"));
    }
    let method = format!(
        "X25519 session, one thread; median of {ROUNDS} rounds that alternate with the bare primitive: AES-256-GCM of the same crate (aes-gcm) over the same padded length, with and without associated data, one random IV from the operating system, one buffer"
    );
    Ok(Report { bench: "direct", method, figures })
}

/// The primitive alone.
struct Bare<'a> {
    cipher: &'a Aes256Gcm,
    padded: usize,
    associated: &'a [u8],
    sealed: Vec<u8>,
    seal: Vec<f64>,
    open: Vec<f64>,
}

impl<'a> Bare<'a> {
    fn new(cipher: &'a Aes256Gcm, padded: usize, associated: &'a [u8]) -> Bare<'a> {
        let mut sealed = vec![0x61; padded];
        cipher.encrypt_in_place(&Nonce::from([3; 12]), associated, &mut sealed).expect("short");
        Bare { cipher, padded, associated, sealed, seal: Vec::new(), open: Vec::new() }
    }

    fn round(&mut self, times: usize) {
        let mut rng = UnwrapErr(SysRng);
        self.seal.push(nanoseconds(times, || {
            let mut message = Vec::with_capacity(self.padded + 16);
            message.resize(self.padded, 0x61);
            let mut iv = [0; 12];
            rng.fill_bytes(&mut iv);
            let sealed = self.cipher.encrypt_in_place(&Nonce::from(iv), self.associated, black_box(&mut message));
            sealed.expect("short");
            black_box(message);
        }));
        self.open.push(nanoseconds(times, || {
            let mut message = black_box(&self.sealed).clone();
            let opened = self.cipher.decrypt_in_place(&Nonce::from([3; 12]), self.associated, &mut message);
            opened.expect("authentic");
            black_box(message);
        }));
    }
}

fn nanoseconds(times: usize, mut what: impl FnMut()) -> f64 {
    let begin = Instant::now();
    for _ in 0..times {
        what();
    }
    begin.elapsed().as_nanos() as f64 / times as f64
}
