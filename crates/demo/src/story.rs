//! The story, and its facts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};
use sealwire_client::{ConversationId, MessageState, Mode, QuarantineReason, Talk};
use sealwire_relay::{Registration, Server, start_local};

use crate::evidence::{self, Evidence, Given, Log};
use crate::people::{HOST, Line, Person, digest, reached};
use crate::screen::Screen;
use crate::tap::{self, Recording};

/// What the demo found out.
pub(crate) struct Outcome {
    /// What each person's screen shows.
    pub(crate) screens: Vec<(&'static str, Vec<Line>)>,
    /// What the relay was given.
    pub(crate) given: Vec<Given>,
    /// The claims, each with what was measured.
    pub(crate) claims: Vec<Claim>,
    /// What each step cost.
    pub(crate) costs: Vec<Cost>,
    /// The counts of the closing table.
    pub(crate) counts: Vec<(&'static str, u64)>,
    pub(crate) elapsed: Duration,
}

/// Something that has to be true.
pub(crate) struct Claim {
    pub(crate) holds: bool,
    pub(crate) says: String,
}

/// What something cost.
pub(crate) struct Cost {
    pub(crate) what: String,
    /// Over the wire, both ways, of everybody who takes part.
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
}

/// Measures one step after another.
struct Meter<'a> {
    recording: &'a Recording,
    bytes: u64,
    began: Instant,
    costs: Vec<Cost>,
}

impl<'a> Meter<'a> {
    fn new(recording: &'a Recording) -> Meter<'a> {
        Meter { recording, bytes: 0, began: Instant::now(), costs: Vec::new() }
    }

    fn begin(&mut self) {
        (self.bytes, self.began) = (self.recording.bytes(), Instant::now());
    }

    fn note(&mut self, what: impl Into<String>) {
        let (bytes, elapsed) = (self.recording.bytes() - self.bytes, self.began.elapsed());
        self.costs.push(Cost { what: what.into(), bytes, elapsed });
    }
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
const BEFORE_CRASH: &str = "One more before my battery dies: the courier wears a carnation.";
const WHILE_CRASHED: &str = "Still there, Bob? The train leaves at 22:47, platform nightingale.";
const TO_ALL: &str = "All of you: the picnic is at Birkensee.";
const WITHOUT_MALLORY: &str = "Mallory is out. The picnic moves to Lindenhof.";
const PLAIN: &str = "Hello Emil, from a device that knows direct mode only. tarragon";
/// Who else is in the group.
const GUESTS: [&str; 17] = [
    "dan", "erin", "faythe", "grace", "heidi", "ivan", "judy", "karl", "liam", "mallory", "nina", "olivia", "peggy",
    "quinn", "rupert", "sybil", "trent",
];
const MALLORY: usize = 9;
const TO_BOTH: &str = "Bob, wherever you read this: the cello is in the attic. marzipan";
const FROM_LAPTOP: &str = "On my laptop now, Alice. The attic it is. gooseberry";
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
    let mut meter = Meter::new(&recording);
    let mut alice = Person::begin("alice", home.path(), &url, Mode::Mls).await?;
    let mut bob = Person::begin("bob", home.path(), &url, Mode::Mls).await?;
    let mut carol = Person::begin("carol", home.path(), &url, Mode::Mls).await?;
    for person in [&alice, &bob, &carol] {
        let profile = person.client()?.profile().await?;
        screen.fact(&format!(
            "{:<6} account {}…  private keys stay in {}'s folder",
            person.name,
            &profile.account.to_string()[..16],
            person.name
        ));
    }

    screen.chapter("Alice and Bob have a conversation, on hybrid post-quantum keys: text and bytes, both ways");
    let blueprint = random_bytes(3_000);
    let photo = random_bytes(9_000);
    meter.begin();
    let first = alice.write("bob", HELLO).await?;
    bob.read(1, 0).await?;
    meter.note("a conversation of two begins, with its first message");
    meter.begin();
    let answer = bob.write("alice", ANSWER).await?;
    alice.read(1, 0).await?;
    meter.note("its second message, the other way, with the receipts that are due");
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

    screen.chapter("Bob's client crashes between two steps: what he wrote is saved, and perhaps not sent");
    meter.begin();
    bob.write("alice", BEFORE_CRASH).await?;
    bob.crash();
    let crossing = alice.write("bob", WHILE_CRASHED).await?;
    reached(std::slice::from_ref(&crossing), MessageState::Accepted).await?;
    bob.come_back().await?;
    bob.read(3, 0).await?;
    alice.read(3, 0).await?;
    reached(&[crossing], MessageState::Delivered).await?;
    meter.note("a crash of Bob's client, a message each way across it, and a new connection");
    screen.talk([&alice.screen[2], &bob.screen[2]]);
    screen.fact("he starts it again: both messages are there, once");

    let group = Group::gather(screen, &mut meter, home.path(), &url, [&mut alice, &mut bob, &mut carol]).await?;

    screen.chapter(
        "Two devices that know direct mode only: no forward secrecy, and nobody else is ever sent to this way",
    );
    let mut dora = Person::begin("dora", home.path(), &url, Mode::Direct).await?;
    let mut emil = Person::begin("emil", home.path(), &url, Mode::Direct).await?;
    meter.begin();
    let plain = dora.write("emil", PLAIN).await?;
    emil.read(1, 0).await?;
    meter.note("a first message in direct mode");
    reached(&[plain], MessageState::Delivered).await?;
    let apart = dora.write("alice", "can you read this?").await?.reached(MessageState::Accepted).await.is_err();
    screen.talk(&emil.screen);
    screen.fact("Dora writes to Alice, too: it is not sent, because Alice's account is for conversations");

    screen.chapter("Carol switches her machine off. Alice and Bob write to her");
    let carol_account = carol.client()?.profile().await?.account;
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
    let with_carol = conversation_of(&alice, &carol_account).await?;
    evidence::flip_a_bit(&data, evidence::newest(&data, with_carol)?)?;
    let relay = start(&data, port).await?;
    alice.connected().await?;
    bob.connected().await?;
    let again = alice.write("bob", AFTER_RESTART).await?;
    bob.read(6, 0).await?;
    reached(&[again], MessageState::Delivered).await?;
    screen.fact("Alice and Bob found it again by themselves, and talk on");

    screen.chapter("Carol comes back");
    carol.come_back().await?;
    carol.read(4, 1).await?;
    if carol.screen.iter().any(|line| line.said == FOR_CAROL[2]) {
        // Alice's device was shown what stands in the place of what it had said, and has said it again.
        carol.read(5, 1).await?;
    }
    screen.talk(&carol.screen[2..]);
    screen.fact(&format!(
        "the flipped one: rejected ({:?}); nothing of it was shown, nothing else changed",
        carol.rejected[0]
    ));
    // Carol's receipts carry what she has read: Alice's device compares.
    alice.until(|alice| alice.contradictions > 0).await?;
    screen.fact("and Alice's device has noticed that Carol was shown something else than was sent");

    screen.chapter("Bob links his laptop; later he loses it, and takes it from his account");
    meter.begin();
    let (mut laptop, digits) = Person::link("laptop", home.path(), &url, &mut bob).await?;
    meter.note("a second device of Bob's, linked and added to all of his conversations");
    screen.fact(&format!("a code that is good once; both devices show {digits}, and Bob says that they are the same"));
    let to_both = alice.write("bob", TO_BOTH).await?;
    laptop.read(1, 0).await?;
    bob.read(7, 0).await?;
    laptop.write("alice", FROM_LAPTOP).await?;
    alice.read(4, 0).await?;
    reached(&[to_both], MessageState::Delivered).await?;
    screen.talk([&laptop.screen[0], &alice.screen[3]]);
    meter.begin();
    let lost = laptop.client()?.profile().await?.device;
    bob.client()?.revoke(lost).await?;
    laptop.until(|laptop| laptop.revoked).await?;
    meter.note("it is revoked, and told");
    screen.fact("the laptop is out: the relay lets it in no more, and it is taken out of every conversation");

    let people = [&alice, &bob, &carol, &emil, &group.guests[0], &group.guests[MALLORY], &laptop];
    let screens: Vec<_> = people.iter().map(|person| (person.name, person.screen.clone())).collect();
    let rejected = carol.rejected.clone();
    let others = [&alice, &bob, &emil].into_iter().chain(&group.guests).flat_map(|person| &person.rejected).count();
    let Group { mut guests, inboxes, everybody_heard, mallory_is_out } = group;
    let revoked = laptop.revoked;
    for person in [&mut alice, &mut bob, &mut carol, &mut dora, &mut emil, &mut laptop].into_iter().chain(&mut guests) {
        person.leave().await;
    }
    relay.stop().await;

    let frames = recording.messages();
    let given = evidence::given(&frames);
    let handled = frames.len();
    let evidence = Evidence::gather(&data, &log, frames)?;
    let said = [HELLO, ANSWER, BEFORE_CRASH, WHILE_CRASHED, TO_ALL, WITHOUT_MALLORY, PLAIN, AFTER_RESTART];
    let texts = said.into_iter().chain([TO_BOTH, FROM_LAPTOP]);
    let texts = texts.chain(FOR_CAROL).chain([GROUP_NAME]);
    let mut secrets: Vec<(String, Vec<u8>)> = texts.map(|text| (text.to_owned(), text.as_bytes().to_vec())).collect();
    // Parts, too: what is cut into pieces is not hidden.
    let words = ["swordfish-4711", "Rosenstrasse", "heliotrope", "mandolin", "0170-5550199", "geranium", "carnation"];
    for word in words.into_iter().chain(["nightingale", "Birkensee", "Lindenhof", "tarragon", "marzipan", "gooseberry"])
    {
        secrets.push((word.to_owned(), word.as_bytes().to_vec()));
    }
    for bytes in [&blueprint, &photo] {
        secrets.push((format!("bytes {}", digest(bytes)), bytes[..32].to_vec()));
    }
    for person in ["alice", "bob", "carol", "dora", "emil", "laptop"].into_iter().chain(GUESTS) {
        let key = std::fs::read(home.path().join(person).join("key"))?;
        secrets.push((format!("{person}'s key file"), key));
    }
    let (costs, same_number) = (meter.costs, same);
    let found = Found {
        screens,
        given,
        waited,
        handled,
        rejected,
        others,
        secrets,
        evidence,
        same_number,
        costs,
        inboxes,
        everybody_heard,
        mallory_is_out,
        apart,
        revoked,
    };
    let outcome = weigh(found, began.elapsed());
    Ok((outcome, keep))
}

struct Found {
    screens: Vec<(&'static str, Vec<Line>)>,
    given: Vec<Given>,
    waited: u64,
    handled: usize,
    rejected: Vec<QuarantineReason>,
    /// How much was rejected by anybody else.
    others: usize,
    secrets: Vec<(String, Vec<u8>)>,
    evidence: Evidence,
    same_number: bool,
    costs: Vec<Cost>,
    /// Of the group's members, when all were in it.
    inboxes: Vec<[u8; 16]>,
    everybody_heard: bool,
    mallory_is_out: bool,
    /// Whether the one mode kept out of the other.
    apart: bool,
    /// Whether the device that was revoked was told.
    revoked: bool,
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
    let crash_survived = has("alice", BEFORE_CRASH) && has("bob", WHILE_CRASHED);
    let carol_right = has("carol", FOR_CAROL[0]) && has("carol", FOR_CAROL[1]);
    let said_again = usize::from(has("carol", FOR_CAROL[2]));
    let all_shown: usize = found.screens.iter().map(|(_, lines)| lines.len()).sum();
    let in_roster = found.inboxes.iter().filter(|inbox| !found.evidence.holding(&inbox[..]).is_empty()).count();
    let claim = |holds, says: String| Claim { holds, says };
    let claims = vec![
        claim(
            texts_arrived && crash_survived && shown("alice") == 4 && shown("bob") == 7,
            "every message between Alice and Bob was shown, once, in order, across a crash of Bob's client".into(),
        ),
        claim(
            found.revoked && has("laptop", TO_BOTH) && has("bob", TO_BOTH) && has("alice", FROM_LAPTOP),
            "both of Bob's devices read what was said to him, either spoke for him, and the one that he revoked is out"
                .into(),
        ),
        claim(
            found.everybody_heard,
            format!(
                "all {} members of the group read what was said to all, and its epoch is the same for all",
                GROUP_SIZE
            ),
        ),
        claim(
            found.mallory_is_out && shown("mallory") == 1,
            "the member that was removed read nothing of what was said then; the others did".into(),
        ),
        claim(
            found.apart && has("emil", PLAIN),
            "direct mode works among those that have nothing else, and reaches nobody who has".into(),
        ),
        claim(
            carol_right && shown("carol") == 4 + said_again,
            "what was sent while Carol was away reached her when she came back".into(),
        ),
        claim(
            found.rejected == [QuarantineReason::Rejected] && found.others == 0,
            "the message with a flipped bit was rejected, and nothing of it was shown; nothing else was rejected"
                .into(),
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
        claim(
            in_roster == GROUP_SIZE,
            format!("what it does know: who is in the group, by {in_roster} inboxes; not the group's name"),
        ),
    ];
    let counts = vec![
        ("messages shown", all_shown as u64),
        ("messages rejected", (found.rejected.len() + found.others) as u64),
        ("sealed messages that the relay was given, receipts included", found.given.len() as u64),
        ("of them on its disk while it was stopped", found.waited),
        ("frames that the relay handled", found.handled as u64),
        ("KiB searched", (found.evidence.size() / 1_024) as u64),
        ("plaintexts found", holding.len() as u64),
        ("relay restarts", 1),
    ];
    Outcome { screens: found.screens, given: found.given, claims, costs: found.costs, counts, elapsed }
}

/// How many are in the group.
const GROUP_SIZE: usize = 3 + GUESTS.len();
const GROUP_NAME: &str = "Moonlight picnic";

/// Twenty people who have a group, and one of whom is removed.
struct Group {
    guests: Vec<Person>,
    inboxes: Vec<[u8; 16]>,
    everybody_heard: bool,
    mallory_is_out: bool,
}

impl Group {
    async fn gather(
        screen: &Screen,
        meter: &mut Meter<'_>,
        home: &Path,
        relay: &str,
        first: [&mut Person; 3],
    ) -> anyhow::Result<Group> {
        screen.chapter("A group of twenty. Alice says something to all; then Mallory is removed");
        let mut guests = Vec::new();
        for name in GUESTS {
            guests.push(Person::begin(name, home, relay, Mode::Mls).await?);
        }
        let [alice, bob, carol] = first;
        let handles: Vec<_> = ["bob", "carol"].into_iter().chain(GUESTS).map(crate::people::handle).collect();
        let handles: Vec<_> = handles.iter().map(String::as_str).collect();
        let mut inboxes = vec![alice.client()?.profile().await?.inbox.0];
        meter.begin();
        let id = alice.client()?.create_group(GROUP_NAME, &handles).await?;
        let mut others: Vec<&mut Person> = vec![bob, carol];
        others.extend(&mut guests);
        let epoch = settled(alice, id, 0).await?;
        let mut everybody_heard = epoch.1 == GROUP_SIZE;
        for person in &others {
            let theirs = settled(person, id, epoch.0).await?;
            everybody_heard &= theirs == epoch;
            inboxes.push(person.client()?.profile().await?.inbox.0);
        }
        meter.note(format!("a group of {GROUP_SIZE} begins: everybody is looked up, and added by one commit"));
        let before: Vec<_> = others.iter().map(|person| person.screen.len()).collect();
        meter.begin();
        alice.write_to(id, TO_ALL).await?;
        for (person, before) in others.iter_mut().zip(&before) {
            person.read(before + 1, 0).await?;
            everybody_heard &= person.screen.last().is_some_and(|line| line.said == TO_ALL);
        }
        meter.note(format!("a message to the {} others", others.len()));
        screen.fact(&format!("{} devices hold the same epoch, and read: {TO_ALL}", others.len() + 1));

        meter.begin();
        let mallory = 2 + MALLORY;
        let account = others[mallory].client()?.profile().await?.account;
        alice.client()?.remove(id, account).await?;
        others[mallory].until(|mallory| mallory.removed_from.contains(&id)).await?;
        let after = settled(alice, id, epoch.0 + 1).await?;
        for person in others.iter().enumerate().filter(|(number, _)| *number != mallory).map(|(_, person)| person) {
            everybody_heard &= settled(person, id, epoch.0 + 1).await? == after;
        }
        meter.note("one member is removed");
        alice.write_to(id, WITHOUT_MALLORY).await?;
        for (number, (person, before)) in others.iter_mut().zip(&before).enumerate() {
            if number != mallory {
                person.read(before + 2, 0).await?;
            }
        }
        // Its device has read all that the relay has for it; nothing of it was said since.
        let kept = others[mallory].client()?.history(Talk::Group(id), u64::MAX, 100).await?;
        let mallory_is_out = kept.len() == 1 && after.1 == GROUP_SIZE - 1;
        screen.fact("Mallory is told, and reads nothing of what Alice says then; the others do");
        Ok(Group { guests, inboxes, everybody_heard, mallory_is_out })
    }
}

/// Waits until somebody has followed a group to that epoch: the epoch, how many devices are in it, and what they have in
/// common.
async fn settled(person: &Person, id: ConversationId, epoch: u64) -> anyhow::Result<(u64, usize, Vec<u8>)> {
    let look = async {
        loop {
            let view = person.client()?.conversation(id).await?;
            if let Some(view) = view.filter(|view| view.active && view.waiting == 0 && view.epoch >= epoch) {
                return anyhow::Ok((view.epoch, view.devices, view.authenticator));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look)
        .await
        .with_context(|| format!("{} has no group", person.name))?
}

/// The conversation of two of somebody with an account.
async fn conversation_of(person: &Person, account: &sealwire_client::AccountId) -> anyhow::Result<ConversationId> {
    let views = person.client()?.conversations().await?;
    let is_it = |view: &&sealwire_client::ConversationView| {
        view.kind == sealwire_client::ConversationKind::OneToOne
            && view.members.iter().any(|(member, _)| member == account)
    };
    Ok(views.iter().find(is_it).context("no such conversation")?.conversation)
}

async fn start(data: &Path, port: u16) -> anyhow::Result<Server> {
    start_local(data, port, Some(HOST), Registration::Open).await.context("the relay does not start")
}

fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    UnwrapErr(SysRng).fill_bytes(&mut bytes);
    bytes
}
