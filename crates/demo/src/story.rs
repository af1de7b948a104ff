//! The story, and its facts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};
use sealwire_client::{MessageState, QuarantineReason};
use sealwire_relay::{Registration, Server, start_local};

use crate::evidence::{self, Evidence, Given, Log};
use crate::people::{HOST, Line, Person, digest, reached};
use crate::screen::Screen;
use crate::tap;

/// What the demo found out.
pub(crate) struct Outcome {
    /// What each person's screen shows.
    pub(crate) screens: Vec<(&'static str, Vec<Line>)>,
    /// What the relay was given.
    pub(crate) given: Vec<Given>,
    /// The claims, each with what was measured.
    pub(crate) claims: Vec<Claim>,
    /// The counts of the closing table.
    pub(crate) counts: Vec<(&'static str, u64)>,
    pub(crate) elapsed: Duration,
}

/// Something that has to be true.
pub(crate) struct Claim {
    pub(crate) holds: bool,
    pub(crate) says: String,
}

impl Outcome {
    /// Whether all of it held.
    pub(crate) fn holds(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }
}

/// What everybody writes; the last word of each is what a search would find.
const HELLO: &str = "Hi Bob, it's Alice. The launch code is swordfish-4711.";
const ANSWER: &str = "Got it, Alice. I'll bring the blueprints to Rosenstrasse.";
const FOR_CAROL: [&str; 3] = [
    "Carol, dinner at eight? Bring the mandolin.",
    "Carol, my new number is 0170-5550199.",
    "Carol, one more thing: the key is under the geranium.",
];
const AFTER_RESTART: &str = "Did you notice that the relay was gone, Bob? Neither did I. heliotrope";

/// Tells the story; the facts, and where the relay's files are if they stay.
pub(crate) async fn tell(screen: &Screen, keep: Option<PathBuf>) -> anyhow::Result<(Outcome, Option<PathBuf>)> {
    let began = Instant::now();
    let home = tempfile::tempdir().context("no place for temporary files")?;
    let data = keep.clone().unwrap_or_else(|| home.path().join("relay"));
    std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    if std::fs::read_dir(&data)?.next().is_some() {
        bail!("{} is not empty: name a folder that is new or empty", data.display());
    }
    let log = Log::begin();

    screen.chapter("A relay starts, and three people make their keys");
    let relay = start(&data, 0).await?;
    let port = relay.address().port();
    let (tap_address, recording) = tap::open(relay.address()).await?;
    let url = format!("ws://{tap_address}");
    screen.fact(&format!("relay on 127.0.0.1:{port}, its files in {}", data.display()));
    let mut alice = Person::begin("alice", home.path(), &url).await?;
    let mut bob = Person::begin("bob", home.path(), &url).await?;
    let mut carol = Person::begin("carol", home.path(), &url).await?;
    for person in [&alice, &bob, &carol] {
        let profile = person.client()?.profile().await?;
        screen.fact(&format!(
            "{:<6} account {}…  private keys stay in {}'s folder",
            person.name,
            &profile.account.to_string()[..16],
            person.name
        ));
    }

    screen.chapter("Alice and Bob talk: text and bytes, both ways");
    let blueprint = random_bytes(3_000);
    let photo = random_bytes(9_000);
    let first = alice.write("bob", HELLO).await?;
    bob.read(1, 0).await?;
    let answer = bob.write("alice", ANSWER).await?;
    let plan = bob.write_bytes("alice", &blueprint).await?;
    alice.read(2, 0).await?;
    let picture = alice.write_bytes("bob", &photo).await?;
    bob.read(2, 0).await?;
    reached(&[first, answer, plan, picture], MessageState::Delivered).await?;
    let number = alice.client()?.find(&crate::people::handle("bob")).await?.safety_number;
    let same = bob.client()?.contacts().await?.iter().any(|contact| contact.safety_number == number);
    // In the order in which it was said.
    let said = [&bob.screen[0], &alice.screen[0], &alice.screen[1], &bob.screen[1]];
    screen.talk(said);
    screen.fact("all four delivered, by sealed receipts; safety number, the same for both:");
    screen.number(&number.to_string());

    screen.chapter("Carol switches her machine off. Alice and Bob write to her");
    carol.leave().await;
    let mut for_carol = Vec::new();
    for (i, text) in FOR_CAROL.iter().enumerate() {
        let author = if i == 1 { &bob } else { &alice };
        for_carol.push(author.write("carol", text).await?);
        reached(&for_carol[i..], MessageState::Accepted).await?;
    }
    screen.fact("three messages are accepted: they wait at the relay, durable on its disk");

    screen.chapter("The relay is stopped. Somebody flips one bit of a stored message. It starts again");
    relay.stop().await;
    let waited = evidence::waiting(&data)?;
    evidence::flip_a_bit(&data, evidence::newest(&data)?)?;
    let relay = start(&data, port).await?;
    alice.connected().await?;
    bob.connected().await?;
    let again = alice.write("bob", AFTER_RESTART).await?;
    bob.read(3, 0).await?;
    reached(&[again], MessageState::Delivered).await?;
    screen.fact("Alice and Bob found it again by themselves, and talk on");

    screen.chapter("Carol comes back");
    carol.come_back().await?;
    carol.read(2, 1).await?;
    screen.talk(&carol.screen);
    screen.fact(&format!(
        "the flipped one: rejected ({:?}); nothing of it was shown, nothing else changed",
        carol.rejected[0]
    ));

    let people = [&alice, &bob, &carol];
    let screens: Vec<_> = people.iter().map(|person| (person.name, person.screen.clone())).collect();
    let rejected = carol.rejected.clone();
    for person in [&mut alice, &mut bob, &mut carol] {
        person.leave().await;
    }
    relay.stop().await;

    let frames = recording.messages();
    let given = evidence::given(&frames);
    let handled = frames.len();
    let evidence = Evidence::gather(&data, &log, frames)?;
    let texts = [HELLO, ANSWER, AFTER_RESTART].into_iter().chain(FOR_CAROL);
    let mut secrets: Vec<(String, Vec<u8>)> = texts.map(|text| (text.to_owned(), text.as_bytes().to_vec())).collect();
    // Parts, too: what is cut into pieces is not hidden.
    for word in ["swordfish-4711", "Rosenstrasse", "heliotrope", "mandolin", "0170-5550199", "geranium"] {
        secrets.push((word.to_owned(), word.as_bytes().to_vec()));
    }
    for bytes in [&blueprint, &photo] {
        secrets.push((format!("bytes {}", digest(bytes)), bytes[..32].to_vec()));
    }
    for person in ["alice", "bob", "carol"] {
        let key = std::fs::read(home.path().join(person).join("key"))?;
        secrets.push((format!("{person}'s key file"), key));
    }
    let found = Found { screens, given, waited, handled, rejected, secrets, evidence, same_number: same };
    let outcome = weigh(found, began.elapsed());
    Ok((outcome, keep))
}

struct Found {
    screens: Vec<(&'static str, Vec<Line>)>,
    given: Vec<Given>,
    waited: u64,
    handled: usize,
    rejected: Vec<QuarantineReason>,
    secrets: Vec<(String, Vec<u8>)>,
    evidence: Evidence,
    same_number: bool,
}

fn weigh(found: Found, elapsed: Duration) -> Outcome {
    let holding: Vec<_> = found
        .secrets
        .iter()
        .filter_map(|(name, bytes)| found.evidence.holding(bytes).first().map(|place| format!("{name} in {place}")))
        .collect();
    // The search has to be able to find something: what the relay does know.
    let control = found.evidence.holding(b"alice").len();
    let shown = |name: &str| found.screens.iter().find(|(who, _)| *who == name).map_or(0, |(_, lines)| lines.len());
    let has = |name: &str, text: &str| {
        found.screens.iter().any(|(who, lines)| *who == name && lines.iter().any(|line| line.said == text))
    };
    let texts_arrived = has("bob", HELLO) && has("alice", ANSWER) && has("bob", AFTER_RESTART);
    let carol_right = has("carol", FOR_CAROL[0]) && has("carol", FOR_CAROL[1]) && !has("carol", FOR_CAROL[2]);
    let all_shown = shown("alice") + shown("bob") + shown("carol");
    let claim = |holds, says: String| Claim { holds, says };
    let claims = vec![
        claim(
            texts_arrived && shown("alice") == 2 && shown("bob") == 3,
            "every message between Alice and Bob was shown, once, in order".into(),
        ),
        claim(
            carol_right && shown("carol") == 2,
            "what was sent while Carol was away reached her when she came back".into(),
        ),
        claim(
            found.rejected == [QuarantineReason::Rejected],
            "the message with a flipped bit was rejected, and nothing of it was shown".into(),
        ),
        claim(found.same_number, "both sides derived the same safety number".into()),
        claim(
            holding.is_empty(),
            if holding.is_empty() {
                format!(
                    "none of {} plaintexts and keys is in the {} KiB that the relay saw, stored and logged",
                    found.secrets.len(),
                    found.evidence.size() / 1_024
                )
            } else {
                format!("the relay knows: {}", holding.join(", "))
            },
        ),
        claim(
            control > 0,
            format!("the search works: it finds the handle \"alice\", which the relay knows, in {control} places"),
        ),
    ];
    let counts = vec![
        ("messages shown", all_shown as u64),
        ("messages rejected", found.rejected.len() as u64),
        ("sealed messages that the relay was given, receipts included", found.given.len() as u64),
        ("of them on its disk while it was stopped", found.waited),
        ("frames that the relay handled", found.handled as u64),
        ("KiB searched", (found.evidence.size() / 1_024) as u64),
        ("plaintexts found", holding.len() as u64),
        ("relay restarts", 1),
    ];
    Outcome { screens: found.screens, given: found.given, claims, counts, elapsed }
}

async fn start(data: &Path, port: u16) -> anyhow::Result<Server> {
    start_local(data, port, Some(HOST), Registration::Open).await.context("the relay does not start")
}

fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    UnwrapErr(SysRng).fill_bytes(&mut bytes);
    bytes
}
