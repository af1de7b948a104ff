//! Applications that are killed: a conversation of thousands of messages, whose clients are processes that get SIGKILL at
//! random instants and are started again on the same store. Every message has to be shown exactly once, and in order.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::process::Process;
use crate::report::{Figure, Report};

use self::ledger::Verdict;
use self::victim::Victim;

mod application;
mod ledger;
mod people;
mod plan;
mod victim;

/// A conversation, how much is said in it, and how often somebody is killed meanwhile.
struct Scene {
    name: &'static str,
    people: &'static [&'static str],
    /// Of all together.
    messages: u64,
    kills: usize,
}

const PAIR: &[&str] = &["alice", "bob"];
const GROUP: &[&str] = &["alice", "bob", "carol"];
const FULL: [Scene; 2] = [
    Scene { name: "two", people: PAIR, messages: 20_000, kills: 210 },
    Scene { name: "group of three", people: GROUP, messages: 3_000, kills: 60 },
];
const QUICK: [Scene; 2] = [
    Scene { name: "two", people: PAIR, messages: 1_000, kills: 20 },
    Scene { name: "group of three", people: GROUP, messages: 300, kills: 9 },
];

/// Nobody has shown anything for so long: something is stuck. Own keys are replaced every 100 messages, and a connection
/// has four commits a minute (L10).
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether it is time.
const LOOK: Duration = Duration::from_micros(500);
/// How long something may come once too often after all was shown.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// What a process says of itself, in one byte each.
mod signal {
    /// It opens its store, or has no connection.
    pub(super) const CONNECTING: u8 = b'c';
    /// A message was given to the client, which has not said "saved".
    pub(super) const WRITING: u8 = b'w';
    /// A message has come, and is being written down.
    pub(super) const SHOWING: u8 = b's';
    /// Connected; the client may be receiving, and what was shown last may not count as processed yet.
    pub(super) const WAITING: u8 = b'.';
    /// A message was shown.
    pub(super) const SHOWN: u8 = b'+';
    /// A message was told that it had shown.
    pub(super) const AGAIN: u8 = b'=';
    /// It has shown all, and the relay has all that it wrote.
    pub(super) const DONE: u8 = b'd';

    /// At which one can be killed.
    pub(super) const PHASES: [(u8, &str); 4] = [
        (CONNECTING, "killed while it opened or connected"),
        (WRITING, "killed while it sent"),
        (SHOWING, "killed while it showed what it received"),
        (WAITING, "killed while it received, or waited for it"),
    ];
}

/// The child's part.
pub(crate) fn application() -> anyhow::Result<()> {
    application::run()
}

pub(crate) fn run(quick: bool, seed: Option<u64>) -> anyhow::Result<Report> {
    let seed = match seed {
        Some(seed) => seed,
        None => getrandom::u64()?,
    };
    // Also of a run that fails.
    eprintln!("bench kills: --seed {seed}");
    let mut figures = Vec::new();
    for scene in if quick { QUICK } else { FULL } {
        let folder = tempfile::tempdir()?;
        match play(&scene, folder.path(), seed) {
            Ok(of_scene) => figures.extend(of_scene),
            Err(error) => {
                let kept = folder.keep();
                return Err(error.context(format!("{}, --seed {seed}, kept in {}", scene.name, kept.display())));
            }
        }
    }
    Ok(Report { bench: "kills", method: format!("{METHOD}; --seed {seed}"), figures })
}

const METHOD: &str = "a relay in a process of its own, and each client in one: an application on the SDK with its store \
in the temporary folder, which writes numbered texts, at most 32 that the relay has not accepted, and writes down what it \
shows with the number that the SDK gives each message, before it asks for the next event. It is killed with SIGKILL and \
started again on the same store: each time when a random share of all messages has been shown, up to 20 ms later, or, one \
time in four, up to 80 ms after it was started; it stays away for up to 150 ms. What it was at, it has said last. \
Messages are lost, shown twice or out of order by what the applications have written down; by the stores' histories of \
both directions, read in the end; and by what is told at a last start. Undecryptable: entries in the stores' quarantine. \
Told again: messages that the SDK told once more after a process had ended before they counted as processed, which the \
applications recognised by their numbers. Any event that has no place in a conversation that goes well fails the run";

/// When who is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kill {
    who: usize,
    /// So many messages were shown, of all applications together.
    at: u64,
    /// So long after that, and after it was started.
    after: Duration,
    /// How long it stays away.
    away: Duration,
}

impl Scene {
    fn is_group(&self) -> bool {
        self.people.len() > 2
    }

    /// How often messages are shown: each by all others.
    fn shown(&self) -> u64 {
        self.messages / self.people.len() as u64 * self.people.len() as u64 * (self.people.len() as u64 - 1)
    }

    /// The kills, in their order.
    fn kills(&self, seed: u64) -> Vec<Kill> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut below = |end: u64| rng.next_u64() % end;
        let mut at: Vec<u64> = (0..self.kills).map(|_| below(self.shown())).collect();
        at.sort_unstable();
        let mut kills: Vec<Kill> = Vec::new();
        for at in at {
            let away = Duration::from_micros(below(150_000));
            let early = kills.last().copied().filter(|_| below(4) == 0);
            kills.push(match early {
                // The same one once more, as soon as it is there.
                Some(before) => Kill { after: Duration::from_micros(below(80_000)), away, ..before },
                None => {
                    let (who, after) = (below(self.people.len() as u64) as usize, Duration::from_micros(below(20_000)));
                    Kill { who, at, after, away }
                }
            });
        }
        kills
    }
}

fn play(scene: &Scene, folder: &Path, seed: u64) -> anyhow::Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let relay = runtime.block_on(Process::relay(folder))?;
    let plans = runtime.block_on(people::meet(scene, folder, relay.address))?;
    let mut victims: Vec<Victim> = plans.into_iter().map(Victim::new).collect();
    let begin = Instant::now();
    victims.iter_mut().try_for_each(Victim::start)?;
    let mut phases = Vec::new();
    let stuck = kill_and_wait(&mut victims, &scene.kills(seed), &mut phases);
    let seconds = begin.elapsed().as_secs_f64();
    if stuck.is_ok() {
        std::thread::sleep(AFTERWARDS);
    }
    // What was wrong says more than that not everything came.
    let mut verdict = Verdict::default();
    for victim in &mut victims {
        if stuck.is_ok() {
            victim.close()?;
        }
        verdict.add(Verdict::of_ledger(&victim.plan().ledger(), &victim.plan().others)?);
    }
    let complaint = verdict.complaint().unwrap_or_default();
    stuck.with_context(|| format!("what was shown by then: {complaint}"))?;
    let mut undecryptable = 0;
    for victim in &victims {
        let store = runtime.block_on(people::look_back(victim.plan()))?;
        undecryptable += store.quarantined.len();
        verdict.alarms.extend(store.quarantined);
        // They were shown once, by the applications.
        verdict.add(Verdict { shown: 0, ..store.verdict });
    }
    if let Some(complaint) = verdict.complaint() {
        anyhow::bail!("{complaint}");
    }
    ensure!(phases.len() == scene.kills, "{} kills instead of {}", phases.len(), scene.kills);
    let again: u64 = victims.iter().map(|victim| victim.told().again.load(Ordering::Relaxed)).sum();
    let case = |what: &str| format!("{}: {what}", scene.name);
    let mut figures = vec![
        Figure::new(case("messages shown"), verdict.shown as f64, ""),
        Figure::new(case("lost"), verdict.lost.len() as f64, ""),
        Figure::new(case("shown twice"), verdict.twice.len() as f64, ""),
        Figure::new(case("out of order"), verdict.misplaced.len() as f64, ""),
        Figure::new(case("undecryptable"), undecryptable as f64, ""),
        Figure::new(case("told again, and recognised"), again as f64, ""),
        Figure::new(case("kills"), phases.len() as f64, ""),
    ];
    for (phase, name) in signal::PHASES {
        let count = phases.iter().filter(|at| **at == phase).count();
        figures.push(Figure::new(case(name), count as f64, ""));
    }
    figures.push(Figure::new(case("time"), seconds, "s"));
    Ok(figures)
}

/// Kills as planned, and then waits until all is shown. An error if that does not come to an end.
fn kill_and_wait(victims: &mut [Victim], kills: &[Kill], phases: &mut Vec<u8>) -> anyhow::Result<()> {
    for kill in kills {
        until(victims, |victims| shown(victims) >= kill.at)?;
        std::thread::sleep(kill.after);
        let victim = &mut victims[kill.who];
        phases.push(victim.kill()?);
        std::thread::sleep(kill.away);
        victim.start()?;
    }
    until(victims, |victims| victims.iter().all(|victim| victim.told().is_done.load(Ordering::Relaxed)))
}

fn shown(victims: &[Victim]) -> u64 {
    victims.iter().map(|victim| victim.told().shown.load(Ordering::Relaxed)).sum()
}

/// Waits, as long as something is shown now and then.
fn until(victims: &mut [Victim], is_so: impl Fn(&[Victim]) -> bool) -> anyhow::Result<()> {
    let (mut before, mut since) = (shown(victims), Instant::now());
    while !is_so(victims) {
        victims.iter_mut().try_for_each(Victim::check)?;
        let now = shown(victims);
        if now != before {
            (before, since) = (now, Instant::now());
        }
        ensure!(since.elapsed() < PATIENCE, "nothing was shown for {} s, {now} before", PATIENCE.as_secs());
        std::thread::sleep(LOOK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_when_who_is_killed() {
        let [pair, group] = FULL;
        for scene in [pair, group] {
            let kills = scene.kills(7);
            assert_eq!(kills, scene.kills(7));
            assert_ne!(kills, scene.kills(8));
            assert_eq!(kills.len(), scene.kills);
            assert!(kills.windows(2).all(|pair| pair[0].at <= pair[1].at || pair[0].who == pair[1].who));
            assert!(kills.iter().all(|kill| kill.at < scene.shown() && kill.who < scene.people.len()));
            assert!((0..scene.people.len()).all(|who| kills.iter().any(|kill| kill.who == who)));
        }
    }
}
