//! Random histories of groups in which members are ours and mls-rs by turns. After each step all who are members agree on
//! the epoch, the roster and the group's data, and open each other's messages.
//!
//! `SEALWIRE_HISTORIES=300 cargo test --release -p sealwire-interop-mls-rs` runs more of them, and `SEALWIRE_SEED=7` that
//! one alone. The seed says who does what; mls-rs draws its keys from the system.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sealwire_interop_mls_rs as theirs;
use sealwire_keys::{AccountEntry, AccountKind, AccountLog, Change, Mode, sign_entry};
use sealwire_session::DeviceSecrets;
use sealwire_session::mls::{
    Changes, Desk, Evidence, Group, InvalidCommit, Place, ReceivedKeyPackage, Records, Suite, make_key_package,
};
use sealwire_wire::conversation::{ConversationKind, GroupData, Role};
use sealwire_wire::{AccountId, Chain, ConversationId, EnvelopeId, InboxAddress, Position, Time};

const SUITE: Suite = Suite::Classical;
const CONVERSATION: ConversationId = ConversationId([0xc1; 32]);
/// Histories in each run of the tests, and steps in each of them.
const HISTORIES: u64 = 20;
const STEPS: usize = 20;
const PEOPLE: usize = 7;

#[test]
fn members_of_two_kinds_agree_and_read_each_other() {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match number("SEALWIRE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEALWIRE_HISTORIES").unwrap_or(HISTORIES),
    };
    let mut seen = Seen::default();
    for seed in seeds.clone() {
        let history = std::panic::catch_unwind(|| history(seed));
        seen = seen.and(history.unwrap_or_else(|panic| {
            eprintln!("SEALWIRE_SEED={seed}");
            std::panic::resume_unwind(panic)
        }));
    }
    println!("{} histories: {seen:?}", seeds.end - seeds.start);
    // That nothing was tried would be no agreement.
    if seeds.end - seeds.start >= HISTORIES {
        assert!([seen.commits, seen.messages].as_flattened().iter().all(|count| *count > 50), "{seen:?}");
        assert!([seen.joins, seen.removals, seen.lost].as_flattened().iter().all(|count| *count > 10), "{seen:?}");
    }
}

/// What was done: by whom of ours and of theirs, and to whom.
#[derive(Default, Debug)]
struct Seen {
    commits: [u32; 2],
    messages: [u32; 2],
    joins: [u32; 2],
    removals: [u32; 2],
    /// Commits that another came before.
    lost: [u32; 2],
}

impl Seen {
    fn and(self, other: Seen) -> Seen {
        let both = |a: [u32; 2], b: [u32; 2]| [a[0] + b[0], a[1] + b[1]];
        Seen {
            commits: both(self.commits, other.commits),
            messages: both(self.messages, other.messages),
            joins: both(self.joins, other.joins),
            removals: both(self.removals, other.removals),
            lost: both(self.lost, other.lost),
        }
    }
}

fn history(seed: u64) -> Seen {
    let mut world = World::new(seed);
    world.check();
    for _ in 0..STEPS {
        let wanted = world.wish();
        world.carry_out(wanted);
        world.check();
    }
    world.seen
}

/// C7: ours refuse what a plain member of the other kind may not do, and both go on.
#[test]
fn a_stranger_may_not_do_more_than_its_role() {
    let mut world = World::of(&[false, true, false, true], 0, ChaCha20Rng::seed_from_u64(0));
    world.carry_out(Wish { add: vec![1, 2], ..Wish::of(0) });
    world.check();
    let (owner, stranger) = (0, 1);
    let owner_account = world.people[owner].log.id();
    let data = world.data();
    let crowned = data.clone().with_role(world.people[stranger].log.id(), Role::Owner);
    let moved = GroupData { conversation: ConversationId([0xc2; 32]), ..data };
    use InvalidCommit::*;
    for (what, wish, expected) in [
        ("adds somebody", Wish { add: vec![3], ..Wish::of(stranger) }, Authority),
        ("removes the owner", Wish { remove: vec![owner], ..Wish::of(stranger) }, Authority),
        ("makes itself owner", Wish { data: Some(crowned), ..Wish::of(stranger) }, Authority),
        ("makes it another conversation", Wish { data: Some(moved), ..Wish::of(stranger) }, Data),
        ("moves to another inbox", Wish { inbox: Some(InboxAddress([0xee; 16])), ..Wish::of(stranger) }, Leaf),
    ] {
        let made = world.commit(&wish);
        let Some(Seat::Theirs(conversation)) = &mut world.people[stranger].seat else { panic!("not theirs") };
        conversation.drop_own();
        for ours in [0, 2] {
            let person = &mut world.people[ours];
            let Some(Seat::Ours(group)) = &mut person.seat else { panic!("not ours") };
            let mut desk = Desk { secrets: &person.secrets, records: &mut person.records, rng: &mut person.rng };
            let judged = group.judge(&mut desk, made.envelope, &made.body, &BTreeSet::new());
            assert_eq!(judged.map(drop), Err(expected), "a stranger {what}");
        }
    }
    assert_eq!(world.data().role(owner_account), Role::Owner);
    world.carry_out(Wish::of(stranger));
    world.check();
}

/// What somebody wants to be different.
struct Wish {
    who: usize,
    add: Vec<usize>,
    remove: Vec<usize>,
    data: Option<GroupData>,
    /// Of its own, which only they can try.
    inbox: Option<InboxAddress>,
}

impl Wish {
    /// Nothing but new keys.
    fn of(who: usize) -> Wish {
        Wish { who, add: Vec::new(), remove: Vec::new(), data: None, inbox: None }
    }
}

struct Made {
    envelope: EnvelopeId,
    body: Vec<u8>,
    welcome: Option<Vec<u8>>,
}

struct World {
    people: Vec<Person>,
    rng: ChaCha20Rng,
    /// The newest entry of the log, which all have read.
    place: Place,
    seen: Seen,
}

struct Person {
    secrets: DeviceSecrets,
    log: AccountLog,
    inbox: InboxAddress,
    records: Records,
    rng: ChaCha20Rng,
    /// Of the other kind.
    stranger: Option<theirs::Device>,
    /// Where it is a member.
    seat: Option<Seat>,
}

enum Seat {
    Ours(Box<Group>),
    Theirs(Box<theirs::Conversation>),
}

impl Person {
    fn new(number: u8, is_theirs: bool) -> Person {
        let mut rng = ChaCha20Rng::seed_from_u64(u64::from(number));
        let mut ed25519 = [0; 32];
        rng.fill_bytes(&mut ed25519);
        let secrets = DeviceSecrets::from_record(&[&[1][..], &ed25519, &[number + 1; 64]].concat()).unwrap();
        let genesis = AccountEntry {
            account: AccountId([0; 32]),
            number: 0,
            previous: [0; 32],
            at: Time(1),
            change: Change::Genesis { kind: AccountKind::Person, device: secrets.card_for(Mode::Mls) },
            signer: secrets.device_id(),
        };
        let log = AccountLog::begin(sign_entry(&genesis, |bytes| secrets.sign(bytes))).unwrap();
        let inbox = InboxAddress([0x40 + number; 16]);
        let stranger = is_theirs.then(|| theirs::Device::new(ed25519, log.id().0, inbox.0));
        Person { secrets, log, inbox, records: Records::default(), rng, stranger, seat: None }
    }

    fn kind(&self) -> usize {
        usize::from(self.stranger.is_some())
    }

    fn key_package(&mut self) -> Vec<u8> {
        if let Some(stranger) = &self.stranger {
            return stranger.key_package().unwrap();
        }
        // Now and then the last-resort one, which is marked (C9).
        let is_last_resort = self.rng.next_u32().is_multiple_of(4);
        let mut desk = Desk { secrets: &self.secrets, records: &mut self.records, rng: &mut self.rng };
        make_key_package(&mut desk, SUITE, self.log.id(), self.inbox, is_last_resort).unwrap().1
    }

    fn begin(&mut self, data: GroupData) {
        self.seat = Some(match &self.stranger {
            Some(stranger) => Seat::Theirs(stranger.begin([7; 16], &to_theirs(&data)).unwrap().into()),
            None => {
                let mut desk = Desk { secrets: &self.secrets, records: &mut self.records, rng: &mut self.rng };
                Seat::Ours(Group::create(&mut desk, SUITE, data, self.log.id(), self.inbox).unwrap().into())
            }
        });
    }

    fn join(&mut self, welcome: &[u8], everybody: &Evidence) {
        self.seat = Some(match &self.stranger {
            Some(stranger) => Seat::Theirs(stranger.join(CONVERSATION.0, welcome).unwrap().into()),
            None => {
                let mut desk = Desk { secrets: &self.secrets, records: &mut self.records, rng: &mut self.rng };
                let joined = Group::join(&mut desk, SUITE, CONVERSATION, welcome).unwrap();
                assert!(joined.evidence.logs().all(|log| everybody.log(log.id()) == Some(log)));
                Seat::Ours(joined.group.into())
            }
        });
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let kinds = [(); PEOPLE].map(|()| rng.next_u32().is_multiple_of(2));
        let first = rng.next_u32() as usize % PEOPLE;
        World::of(&kinds, first, rng)
    }

    /// People, some of whom are of the other kind; one of them begins a conversation, and is its owner.
    fn of(are_theirs: &[bool], first: usize, rng: ChaCha20Rng) -> World {
        let people = are_theirs.iter().zip(0..).map(|(is_theirs, number)| Person::new(number, *is_theirs));
        let mut people: Vec<_> = people.collect();
        let data = GroupData {
            conversation: CONVERSATION,
            generation: 0,
            kind: ConversationKind::Group,
            name: "Grüße".into(),
            roles: vec![(people[first].log.id(), Role::Owner)],
            later: Default::default(),
        };
        people[first].begin(data);
        let place = Place { position: Position(0), chain: Chain([9; 32]) };
        World { people, rng, place, seen: Seen::default() }
    }

    fn below(&mut self, end: usize) -> usize {
        self.rng.next_u32() as usize % end
    }

    fn one_of(&mut self, of: &[usize]) -> Option<usize> {
        if of.is_empty() { None } else { Some(of[self.below(of.len())]) }
    }

    fn members(&self) -> Vec<usize> {
        (0..self.people.len()).filter(|i| self.people[*i].seat.is_some()).collect()
    }

    fn data(&self) -> GroupData {
        let seat = self.people.iter().find_map(|person| person.seat.as_ref()).unwrap();
        seat.data()
    }

    /// Something that a member may want (C7).
    fn wish(&mut self) -> Wish {
        let members = self.members();
        let away: Vec<_> = (0..self.people.len()).filter(|i| !members.contains(i)).collect();
        let mut data = self.data();
        let role = |world: &World, i: usize| data.role(world.people[i].log.id());
        let by_rank = members.iter().copied().filter(|i| role(self, *i) < Role::Member).collect::<Vec<_>>();
        let what = if members.len() < 3 { 0 } else { self.below(6) };
        // Everybody may replace its keys; the rest is for owners and admins.
        let who = if what == 5 { self.one_of(&members) } else { self.one_of(&by_rank) }.unwrap();
        let mut wish = Wish::of(who);
        if what == 5 {
            return wish;
        }
        let own_role = data.role(self.people[who].log.id());
        let removable = |world: &World, i: &usize| own_role < data.role(world.people[*i].log.id());
        let lower: Vec<_> = members.iter().copied().filter(|i| *i != who && removable(self, i)).collect();
        if [0, 1, 4].contains(&what) {
            let first = self.one_of(&away);
            wish.add.extend(first);
            let others: Vec<_> = away.iter().copied().filter(|i| Some(*i) != first).collect();
            if self.below(3) == 0 {
                wish.add.extend(self.one_of(&others));
            }
        }
        if [2, 4].contains(&what) && members.len() > 2 {
            wish.remove.extend(self.one_of(&lower));
        }
        let mut is_changed = false;
        for gone in &wish.remove {
            // The entry of an account goes with its last leaf.
            let account = self.people[*gone].log.id();
            is_changed |= data.role(account) != Role::Member;
            data = data.with_role(account, Role::Member);
        }
        if what == 3 {
            is_changed = true;
            data.name = format!("name {}", self.below(1_000));
            let other = self.one_of(&lower);
            if let (Role::Owner, Some(other)) = (own_role, other) {
                let account = self.people[other].log.id();
                let role = if data.role(account) == Role::Member { Role::Admin } else { Role::Member };
                data = data.with_role(account, role);
            }
        }
        wish.data = is_changed.then_some(data);
        wish
    }

    /// Makes a commit, which is the log's next entry.
    fn commit(&mut self, wish: &Wish) -> Made {
        let mut envelope = [0; 16];
        self.rng.fill_bytes(&mut envelope);
        let (add, remove): (Vec<_>, Vec<_>) = (
            wish.add.iter().map(|i| self.people[*i].key_package()).collect(),
            wish.remove.iter().map(|i| self.leaf_of(*i)).collect(),
        );
        let logs: Vec<_> = self.people.iter().map(|person| person.log.clone()).collect();
        let members = self.members();
        let person = &mut self.people[wish.who];
        self.seen.commits[person.kind()] += 1;
        match person.seat.as_mut().unwrap() {
            Seat::Ours(group) => {
                let check = |bytes: &Vec<u8>| ReceivedKeyPackage::check(SUITE, bytes, &mut self.rng).unwrap();
                let add: Vec<_> = add.iter().map(check).collect();
                // Those of all members and of those who come; what is made public of it, the façade chooses.
                let logs = members.iter().chain(&wish.add).map(|i| &logs[*i]);
                let evidence = Evidence::of(logs);
                let update = add.is_empty() || self.rng.next_u32().is_multiple_of(2);
                let changes = Changes { add, remove, data: wish.data.clone(), update, ..Changes::default() };
                let mut desk = Desk { secrets: &person.secrets, records: &mut person.records, rng: &mut person.rng };
                let made = group.commit(&mut desk, self.place, EnvelopeId(envelope), changes, &evidence).unwrap();
                Made { envelope: EnvelopeId(envelope), body: made.body, welcome: made.welcome }
            }
            Seat::Theirs(conversation) => {
                let entries = |log: &AccountLog| log.entries().iter().map(|entry| entry.0.clone()).collect();
                let evidence: Vec<_> = logs.iter().map(|log| (log.id().0, entries(log))).collect();
                let (data, inbox) = (wish.data.as_ref().map(to_theirs), wish.inbox.map(|inbox| inbox.0));
                let changes = theirs::Changes { add, remove, data, inbox };
                let place = place_of_theirs(self.place);
                let made = conversation.commit(&mut person.rng, place, envelope, changes, &evidence).unwrap();
                Made { envelope: EnvelopeId(envelope), body: made.body, welcome: made.welcome }
            }
        }
    }

    fn leaf_of(&self, who: usize) -> u32 {
        match self.people[who].seat.as_ref().unwrap() {
            Seat::Ours(group) => group.own().unwrap().leaf,
            Seat::Theirs(conversation) => {
                let account = self.people[who].log.id().0;
                conversation.leaves().unwrap().into_iter().find(|leaf| leaf.account == account).unwrap().index
            }
        }
    }

    /// A commit, and everybody who reads it. Sometimes another has made one for the same position, which loses (L3).
    fn carry_out(&mut self, wish: Wish) {
        let author = self.leaf_of(wish.who);
        let made = self.commit(&wish);
        let others: Vec<_> = self.members().into_iter().filter(|i| *i != wish.who).collect();
        if self.below(3) == 0
            && let Some(other) = self.one_of(&others)
        {
            self.commit(&Wish::of(other));
            self.seen.lost[self.people[other].kind()] += 1;
        }
        for i in self.members().into_iter().filter(|i| *i != wish.who) {
            let person = &mut self.people[i];
            let kind = person.kind();
            let removes_self = match person.seat.as_mut().unwrap() {
                Seat::Ours(group) => {
                    let mut desk =
                        Desk { secrets: &person.secrets, records: &mut person.records, rng: &mut person.rng };
                    let judged = group.judge(&mut desk, made.envelope, &made.body, &BTreeSet::new()).unwrap();
                    let applied = group.apply(&mut desk, judged).unwrap();
                    assert_eq!((applied.author.leaf, applied.place), (author, self.place));
                    assert_eq!((applied.added.len(), applied.removed.len()), (wish.add.len(), wish.remove.len()));
                    applied.removes_self
                }
                Seat::Theirs(conversation) => {
                    conversation.drop_own();
                    let read = conversation.read(made.envelope.0, &made.body).unwrap();
                    assert_eq!((read.author, read.place), (author, place_of_theirs(self.place)));
                    read.removes_self
                }
            };
            assert_eq!(removes_self, wish.remove.contains(&i));
            if removes_self {
                self.seen.removals[kind] += 1;
                if let Some(Seat::Ours(group)) = person.seat.take() {
                    assert!(!group.is_active());
                    group.delete(&mut person.records);
                }
            }
        }
        let person = &mut self.people[wish.who];
        match person.seat.as_mut().unwrap() {
            Seat::Ours(group) => {
                let mut desk = Desk { secrets: &person.secrets, records: &mut person.records, rng: &mut person.rng };
                group.merge_own(&mut desk).unwrap();
            }
            Seat::Theirs(conversation) => conversation.merge_own().unwrap(),
        }
        assert_eq!(made.welcome.is_some(), !wish.add.is_empty());
        let everybody = Evidence::of(self.people.iter().map(|person| &person.log));
        for i in wish.add {
            self.people[i].join(made.welcome.as_ref().unwrap(), &everybody);
            self.seen.joins[self.people[i].kind()] += 1;
        }
        self.next_place();
    }

    fn next_place(&mut self) {
        let mut chain = [0; 32];
        self.rng.fill_bytes(&mut chain);
        self.place = Place { position: Position(self.place.position.0 + 1), chain: Chain(chain) };
    }

    /// All who are members see the same, and each reads what each other says.
    fn check(&mut self) {
        let members = self.members();
        let views: Vec<_> = members.iter().map(|i| self.people[*i].seat.as_ref().unwrap().view()).collect();
        assert!(views.windows(2).all(|pair| pair[0] == pair[1]), "{views:#?}");
        let accounts: BTreeSet<_> = members.iter().map(|i| self.people[*i].log.id().0).collect();
        assert_eq!(views[0].leaves.iter().map(|leaf| leaf.account).collect::<BTreeSet<_>>(), accounts);
        for from in members.clone() {
            let length = self.below(700);
            let mut plaintext = vec![0; length];
            self.rng.fill_bytes(&mut plaintext);
            let (place, author) = (self.place, self.people[from].log.id());
            let person = &mut self.people[from];
            self.seen.messages[person.kind()] += 1;
            let body = match person.seat.as_mut().unwrap() {
                Seat::Ours(group) => {
                    let mut desk =
                        Desk { secrets: &person.secrets, records: &mut person.records, rng: &mut person.rng };
                    group.seal(&mut desk, place, &plaintext).unwrap()
                }
                Seat::Theirs(conversation) => conversation.seal(place_of_theirs(place), &plaintext).unwrap(),
            };
            for to in members.iter().copied().filter(|to| *to != from) {
                let person = &mut self.people[to];
                match person.seat.as_mut().unwrap() {
                    Seat::Ours(group) => {
                        let mut desk =
                            Desk { secrets: &person.secrets, records: &mut person.records, rng: &mut person.rng };
                        let opened = group.open(&mut desk, &body).unwrap();
                        assert_eq!((opened.author.account, opened.place), (author, place));
                        assert!(*opened.plaintext == plaintext);
                    }
                    Seat::Theirs(conversation) => {
                        let opened = conversation.open(&body).unwrap();
                        assert_eq!((opened.author.account, opened.place), (author.0, place_of_theirs(place)));
                        assert!(opened.plaintext == plaintext);
                    }
                }
            }
            self.next_place();
        }
    }
}

/// What all members of an epoch see alike.
#[derive(PartialEq, Eq, Debug)]
struct View {
    epoch: u64,
    authenticator: Vec<u8>,
    data: Vec<u8>,
    leaves: Vec<theirs::Leaf>,
}

impl Seat {
    fn view(&self) -> View {
        match self {
            Seat::Ours(group) => {
                let leaf = |member: sealwire_session::mls::Member| theirs::Leaf {
                    index: member.leaf,
                    account: member.account.0,
                    device: member.device.0,
                    inbox: member.inbox.0,
                };
                View {
                    epoch: group.epoch(),
                    authenticator: group.epoch_authenticator(),
                    data: group.data().encode(),
                    leaves: group.members().iter().copied().map(leaf).collect(),
                }
            }
            Seat::Theirs(conversation) => View {
                epoch: conversation.epoch(),
                authenticator: conversation.epoch_authenticator().unwrap(),
                data: conversation.data().unwrap().encode(),
                leaves: conversation.leaves().unwrap(),
            },
        }
    }

    fn data(&self) -> GroupData {
        GroupData::decode(&self.view().data).unwrap()
    }
}

fn to_theirs(data: &GroupData) -> theirs::GroupData {
    theirs::GroupData {
        conversation: data.conversation.0,
        generation: data.generation,
        kind: data.kind as u8,
        name: data.name.clone(),
        roles: data.roles.iter().map(|(account, role)| (account.0, *role as u8)).collect(),
    }
}

fn place_of_theirs(place: Place) -> theirs::Place {
    theirs::Place { position: place.position.0, chain: place.chain.0 }
}
