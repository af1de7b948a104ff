//! Conversations of a few devices, without relay and engine.

mod dumps;
mod half_keys;
mod search;
mod thief;

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sealwire_keys::{AccountEntry, AccountKind, AccountLog, Change, chain_start, sign_entry};
use sealwire_wire::conversation::{ConversationKind, GroupData, Role};
use sealwire_wire::{AccountId, ConversationId, EnvelopeId, InboxAddress, Position, Time};
use zeroize::Zeroizing;

use super::*;

const BOTH: [Suite; 2] = [Suite::Hybrid, Suite::Classical];
const CONVERSATION: ConversationId = ConversationId([7; 32]);

/// A device with an account of its own.
struct Device {
    secrets: DeviceSecrets,
    log: AccountLog,
    inbox: InboxAddress,
    records: Records,
    rng: ChaCha20Rng,
    suite: Suite,
}

impl Device {
    fn new(suite: Suite, seed: u8) -> Device {
        let mut rng = ChaCha20Rng::seed_from_u64(u64::from(seed));
        let secrets = DeviceSecrets::generate(&mut rng);
        let genesis = AccountEntry {
            account: AccountId([0; 32]),
            number: 0,
            previous: [0; 32],
            at: Time(1),
            change: Change::Genesis { kind: AccountKind::Person, device: secrets.card_for(sealwire_keys::Mode::Mls) },
            signer: secrets.device_id(),
        };
        let log = AccountLog::begin(sign_entry(&genesis, |bytes| secrets.sign(bytes))).unwrap();
        Device { secrets, log, inbox: InboxAddress([seed; 16]), records: Records::default(), rng, suite }
    }

    fn desk(&mut self) -> Desk<'_> {
        Desk { secrets: &self.secrets, records: &mut self.records, rng: &mut self.rng }
    }

    fn key_package(&mut self) -> ReceivedKeyPackage {
        let (suite, account, inbox) = (self.suite, self.log.id(), self.inbox);
        let (_, bytes) = make_key_package(&mut self.desk(), suite, account, inbox, false).unwrap();
        ReceivedKeyPackage::check(suite, &bytes, &mut self.rng).unwrap()
    }

    fn create(&mut self, kind: ConversationKind) -> Group {
        let (suite, account, inbox) = (self.suite, self.log.id(), self.inbox);
        let data = GroupData {
            conversation: CONVERSATION,
            generation: 0,
            kind,
            name: String::new(),
            roles: vec![(account, Role::Owner)],
            later: Default::default(),
        };
        Group::create(&mut self.desk(), suite, data, account, inbox).unwrap()
    }

    /// Everything that was persisted, loaded again.
    fn reloaded(&mut self, group: &Group, disk: &mut BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>>) -> Group {
        for (key, page) in self.records.take_changes() {
            match page {
                Some(page) => drop(disk.insert(key, page)),
                None => drop(disk.remove(&key)),
            }
        }
        let mut records = Records::load(disk.clone()).unwrap();
        let loaded = Group::load(&mut records, &group.id()).unwrap().unwrap();
        assert_eq!((loaded.epoch_authenticator(), &loaded.data), (group.epoch_authenticator(), &group.data));
        self.records = records;
        loaded
    }
}

fn place() -> Place {
    Place { position: Position(0), chain: chain_start(CONVERSATION) }
}

fn envelope(n: u8) -> EnvelopeId {
    EnvelopeId([n; 16])
}

/// A group of the first device with all others in it.
fn group_of(devices: &mut [Device], kind: ConversationKind) -> Vec<Group> {
    let evidence = Evidence::of(devices.iter().map(|device| &device.log));
    let add: Vec<_> = devices[1..].iter_mut().map(Device::key_package).collect();
    let mut first = devices[0].create(kind);
    let changes = Changes { add, ..Changes::default() };
    let committed = first.commit(&mut devices[0].desk(), place(), envelope(1), changes, &evidence).unwrap();
    first.merge_own(&mut devices[0].desk()).unwrap();
    let mut groups = vec![first];
    for device in &mut devices[1..] {
        let suite = device.suite;
        let joined = Group::join(&mut device.desk(), suite, CONVERSATION, committed.welcome.as_ref().unwrap()).unwrap();
        assert_eq!(joined.evidence, evidence);
        groups.push(joined.group);
    }
    assert!(groups.iter().all(|group| group.epoch_authenticator() == groups[0].epoch_authenticator()));
    assert!(groups.iter().all(|group| group.roster() == committed.roster));
    groups
}

#[test]
fn members_read_what_a_member_writes() {
    for suite in BOTH {
        let mut devices = [1, 2, 3].map(|seed| Device::new(suite, seed));
        let mut groups = group_of(&mut devices, ConversationKind::Group);
        for from in 0..3 {
            let body = groups[from].seal(&mut devices[from].desk(), place(), b"hello").unwrap();
            for to in (0..3).filter(|to| *to != from) {
                let opened = groups[to].open(&mut devices[to].desk(), &body).unwrap();
                assert_eq!(&**opened.plaintext, b"hello");
                assert_eq!((opened.author.account, opened.place), (devices[from].log.id(), place()));
                assert!(groups[to].open(&mut devices[to].desk(), &body).is_err(), "a replay");
            }
            assert_eq!(groups[from].open(&mut devices[from].desk(), &body).err(), Some(OpenedError::Own));
        }
    }
}

/// C2, C3: every member judges a commit alike; who was removed opens nothing later, who was added nothing earlier.
#[test]
fn members_come_and_go() {
    for suite in BOTH {
        let mut devices = [1, 2, 3, 4].map(|seed| Device::new(suite, seed));
        let [_, _, _, late] = &mut devices;
        let package = late.key_package();
        let late_log = late.log.clone();
        let mut groups = group_of(&mut devices[..3], ConversationKind::Group);
        let before = groups[0].seal(&mut devices[0].desk(), place(), b"before").unwrap();
        let evidence = Evidence::of(devices[..3].iter().map(|device| &device.log).chain([&late_log]));
        let gone = groups[0].members().iter().find(|m| m.account == devices[2].log.id()).unwrap();
        let changes = Changes { add: vec![package], remove: vec![gone.leaf], ..Changes::default() };
        let committed = groups[0].commit(&mut devices[0].desk(), place(), envelope(2), changes, &evidence).unwrap();
        for i in [1, 2] {
            let judged =
                groups[i].judge(&mut devices[i].desk(), envelope(2), &committed.body, &BTreeSet::new()).unwrap();
            let applied = groups[i].apply(&mut devices[i].desk(), judged).unwrap();
            assert_eq!(applied.roster, committed.roster);
            assert_eq!(applied.removes_self, i == 2);
            assert_eq!(applied.added[0].inbox, devices[3].inbox);
        }
        assert!(!groups[2].is_active());
        groups[0].merge_own(&mut devices[0].desk()).unwrap();
        let joined = Group::join(&mut devices[3].desk(), suite, CONVERSATION, &committed.welcome.unwrap()).unwrap();
        assert_eq!(joined.inviter.account, devices[0].log.id());
        // Who was removed is none of a joiner's business.
        let members = [0, 1, 3].map(|member| devices[member].log.id());
        assert_eq!(joined.evidence.logs().map(AccountLog::id).collect::<BTreeSet<_>>(), BTreeSet::from(members));
        let mut joined = joined.group;
        let after = groups[0].seal(&mut devices[0].desk(), place(), b"after").unwrap();
        assert_eq!(&**joined.open(&mut devices[3].desk(), &after).unwrap().plaintext, b"after");
        assert!(joined.open(&mut devices[3].desk(), &before).is_err());
        assert!(groups[2].open(&mut devices[2].desk(), &after).is_err());
    }
}

/// Persist before send: what the records say is what is in memory, whatever was done.
#[test]
fn a_group_comes_back_from_its_records() {
    for suite in BOTH {
        let mut devices = [1, 2].map(|seed| Device::new(suite, seed));
        let mut groups = group_of(&mut devices, ConversationKind::OneToOne);
        let mut disks = [BTreeMap::new(), BTreeMap::new()];
        for round in 0..4u8 {
            for i in 0..2 {
                groups[i] = devices[i].reloaded(&groups[i], &mut disks[i]);
            }
            let body = groups[0].seal(&mut devices[0].desk(), place(), &[round; 300]).unwrap();
            groups[1] = devices[1].reloaded(&groups[1], &mut disks[1]);
            groups[1].open(&mut devices[1].desk(), &body).unwrap();
            let changes = Changes { update: true, ..Changes::default() };
            let none = Evidence::default();
            let commit = groups[1].commit(&mut devices[1].desk(), place(), envelope(round), changes, &none).unwrap();
            // A restart while it waits for its position (L3).
            groups[1] = devices[1].reloaded(&groups[1], &mut disks[1]);
            let judged =
                groups[0].judge(&mut devices[0].desk(), envelope(round), &commit.body, &BTreeSet::new()).unwrap();
            groups[0].apply(&mut devices[0].desk(), judged).unwrap();
            groups[1].merge_own(&mut devices[1].desk()).unwrap();
            assert_eq!(groups[0].epoch_authenticator(), groups[1].epoch_authenticator());
        }
    }
}

/// L3: of two commits for one position one wins; whose lost drops its own, and judges the other.
#[test]
fn one_of_two_commits_wins() {
    let mut devices = [1, 2].map(|seed| Device::new(Suite::Classical, seed));
    let mut groups = group_of(&mut devices, ConversationKind::OneToOne);
    let mut commit = |groups: &mut Vec<Group>, i: usize| {
        let changes = Changes { update: true, ..Changes::default() };
        let none = Evidence::default();
        groups[i].commit(&mut devices[i].desk(), place(), envelope(i as u8), changes, &none).unwrap()
    };
    let (won, _lost) = (commit(&mut groups, 0), commit(&mut groups, 1));
    let judged = groups[1].judge(&mut devices[1].desk(), envelope(0), &won.body, &BTreeSet::new()).unwrap();
    groups[1].apply(&mut devices[1].desk(), judged).unwrap();
    groups[0].merge_own(&mut devices[0].desk()).unwrap();
    assert_eq!(groups[0].epoch_authenticator(), groups[1].epoch_authenticator());
    let again = Changes { update: true, ..Changes::default() };
    groups[1].commit(&mut devices[1].desk(), place(), envelope(3), again, &Evidence::default()).unwrap();
}

/// C7: what a plain member may not do, and what a commit may never change.
#[test]
fn who_may_commit_what() {
    let suite = Suite::Classical;
    let mut devices = [1, 2, 3, 4].map(|seed| Device::new(suite, seed));
    let package = devices[3].key_package();
    let evidence = Evidence::of(devices.iter().map(|device| &device.log));
    let mut groups = group_of(&mut devices[..3], ConversationKind::Group);
    let (owner, other) = (devices[0].log.id(), devices[2].log.id());
    let leaf_of =
        |groups: &[Group], account| groups[0].members().iter().find(|member| member.account == account).unwrap().leaf;
    let (owner_leaf, other_leaf) = (leaf_of(&groups, owner), leaf_of(&groups, other));
    let data = groups[0].data().clone();
    let named = GroupData { name: "x".into(), ..data.clone() };
    let moved = GroupData { conversation: ConversationId([8; 32]), ..data.clone() };
    let crowned = data.clone().with_role(devices[1].log.id(), Role::Owner);
    let remove = |leaf| Changes { remove: vec![leaf], ..Changes::default() };
    let with = |data| Changes { data: Some(data), ..Changes::default() };
    use InvalidCommit::*;
    for (what, changes, leaving, expected) in [
        ("a member adds", Changes { add: vec![package.clone()], ..Changes::default() }, None, Err(Authority)),
        ("a member removes the owner", remove(owner_leaf), None, Err(Authority)),
        ("a member removes another", remove(other_leaf), None, Err(Authority)),
        ("a member removes who is leaving (C5)", remove(other_leaf), Some(other), Ok(())),
        ("a member names it", with(named.clone()), None, Err(Authority)),
        ("a member makes itself owner", with(crowned), None, Err(Authority)),
        ("a member makes it another conversation", with(moved.clone()), None, Err(Data)),
        ("a member replaces its keys", Changes { update: true, ..Changes::default() }, None, Ok(())),
    ] {
        let leaving: BTreeSet<_> = leaving.into_iter().collect();
        let made = groups[1].commit(&mut devices[1].desk(), place(), envelope(9), changes, &evidence).unwrap();
        groups[1].drop_own(&mut devices[1].records).unwrap();
        for i in [0, 2] {
            let before = groups[i].epoch_authenticator();
            let judged = groups[i].judge(&mut devices[i].desk(), envelope(9), &made.body, &leaving);
            assert_eq!(judged.map(drop), expected, "{what}");
            assert_eq!(groups[i].epoch_authenticator(), before);
        }
    }
    for (what, changes, expected) in [
        ("an owner adds", Changes { add: vec![package], ..Changes::default() }, Ok(())),
        ("an owner removes", remove(other_leaf), Ok(())),
        ("an owner names it", with(named), Ok(())),
        ("an owner gives a role", with(data.with_role(other, Role::Admin)), Ok(())),
        ("not even an owner makes it another conversation", with(moved), Err(Data)),
    ] {
        let made = groups[0].commit(&mut devices[0].desk(), place(), envelope(9), changes, &evidence).unwrap();
        groups[0].drop_own(&mut devices[0].records).unwrap();
        let judged = groups[1].judge(&mut devices[1].desk(), envelope(9), &made.body, &BTreeSet::new());
        assert_eq!(judged.map(drop), expected, "{what}");
    }
}

/// A conversation of two stays one: nobody else joins, and neither removes the other (C8).
#[test]
fn nobody_joins_a_conversation_of_two() {
    let mut devices = [1, 2, 3].map(|seed| Device::new(Suite::Classical, seed));
    let package = devices[2].key_package();
    let evidence = Evidence::of(devices.iter().map(|device| &device.log));
    let mut groups = group_of(&mut devices[..2], ConversationKind::OneToOne);
    let other = groups[0].members()[1].leaf;
    for changes in
        [Changes { add: vec![package], ..Changes::default() }, Changes { remove: vec![other], ..Changes::default() }]
    {
        let made = groups[0].commit(&mut devices[0].desk(), place(), envelope(9), changes, &evidence).unwrap();
        groups[0].drop_own(&mut devices[0].records).unwrap();
        let judged = groups[1].judge(&mut devices[1].desk(), envelope(9), &made.body, &BTreeSet::new());
        assert_eq!(judged.map(drop), Err(InvalidCommit::Authority));
    }
}

/// C1: a device is what its account's log says, never what its key package says.
#[test]
fn a_device_that_no_account_lists_is_not_added() {
    let suite = Suite::Classical;
    let mut devices = [1, 2, 3].map(|seed| Device::new(suite, seed));
    // The third calls itself a device of the second's account.
    let (victim, inbox) = (devices[1].log.id(), devices[2].inbox);
    let (_, bytes) = make_key_package(&mut devices[2].desk(), suite, victim, inbox, false).unwrap();
    let package = ReceivedKeyPackage::check(suite, &bytes, &mut devices[0].rng).unwrap();
    assert_eq!(package.member.account, victim);
    let evidence = Evidence::of(devices.iter().map(|device| &device.log));
    let mut group = devices[0].create(ConversationKind::Group);
    let changes = Changes { add: vec![package], ..Changes::default() };
    let refused = group.commit(&mut devices[0].desk(), place(), envelope(1), changes, &evidence).err();
    assert_eq!(refused, Some(CommitError::Unsuitable));
}

/// Every bit of a sealed message and of a commit counts; what is refused changes nothing, and the original is taken.
#[test]
fn what_was_tampered_with_is_refused() {
    let mut devices = [1, 2].map(|seed| Device::new(Suite::Classical, seed));
    let mut groups = group_of(&mut devices, ConversationKind::OneToOne);
    let message = groups[0].seal(&mut devices[0].desk(), place(), b"hello").unwrap();
    let changes = Changes { update: true, ..Changes::default() };
    let commit =
        groups[0].commit(&mut devices[0].desk(), place(), envelope(1), changes, &Evidence::default()).unwrap().body;
    devices[1].records.take_changes();
    for bit in 0..message.len() * 8 {
        let mut bad = message.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(groups[1].open(&mut devices[1].desk(), &bad).is_err(), "bit {bit} of a message");
    }
    for bit in 0..commit.len() * 8 {
        let mut bad = commit.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let judged = groups[1].judge(&mut devices[1].desk(), envelope(1), &bad, &BTreeSet::new());
        assert_eq!(judged.map(drop), Err(InvalidCommit::Malformed), "bit {bit} of a commit");
    }
    for end in 0..message.len() {
        assert!(groups[1].open(&mut devices[1].desk(), &message[..end]).is_err());
    }
    let other = groups[1].judge(&mut devices[1].desk(), envelope(2), &commit, &BTreeSet::new());
    assert_eq!(other.map(drop), Err(InvalidCommit::Malformed), "under another envelope id");
    assert!(devices[1].records.take_changes().is_empty(), "a rejection leaves no trace");
    groups[1].open(&mut devices[1].desk(), &message).unwrap();
    groups[1].judge(&mut devices[1].desk(), envelope(1), &commit, &BTreeSet::new()).unwrap();
}

/// C9: a Welcome is opened once; without the private keys not at all.
#[test]
fn a_welcome_is_opened_once() {
    let suite = Suite::Classical;
    let mut devices = [1, 2].map(|seed| Device::new(suite, seed));
    let evidence = Evidence::of(devices.iter().map(|device| &device.log));
    let package = devices[1].key_package();
    let mut group = devices[0].create(ConversationKind::OneToOne);
    let changes = Changes { add: vec![package], ..Changes::default() };
    let made = group.commit(&mut devices[0].desk(), place(), envelope(1), changes, &evidence).unwrap();
    let welcome = made.welcome.unwrap();
    let elsewhere = ConversationId([9; 32]);
    for (conversation, expected) in [(elsewhere, Some(JoinError::Invalid)), (CONVERSATION, Some(JoinError::NotForUs))] {
        let joined = Group::join(&mut devices[1].desk(), suite, conversation, &welcome);
        assert_eq!(joined.map(drop).err(), expected);
    }
}

/// C14: what is written for a message is little, however many have written in the epoch.
#[test]
fn only_pages_that_differ_are_written() {
    let mut records = Records::default();
    let mut value = vec![0; 10 * 1_024];
    records.put(vec![1], Some(value.clone()));
    assert_eq!(records.take_changes().len(), 11);
    value[5_000] = 1;
    records.put(vec![1], Some(value.clone()));
    let changes = records.take_changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].1.as_ref().unwrap()[5_000 % 1_024], 1);
    records.put(vec![1], Some(vec![9; 2_000]));
    assert_eq!(records.take_changes().iter().filter(|(_, page)| page.is_none()).count(), 9);
    records.put(vec![1], None);
    assert!(records.take_changes().iter().all(|(_, page)| page.is_none()));
}

#[test]
fn records_that_are_not_whole_are_refused() {
    let mut records = Records::default();
    records.put(vec![1], Some(vec![7; 3_000]));
    records.put(vec![2], Some(vec![7; 2_048]));
    let pages: Vec<_> = records.take_changes().into_iter().map(|(key, page)| (key, page.unwrap())).collect();
    assert!(Records::load(pages.clone()).is_ok());
    for missing in 0..pages.len() {
        let mut pages = pages.clone();
        pages.remove(missing);
        assert_eq!(Records::load(pages).err(), Some(RecordsError::Damaged), "page {missing}");
    }
}

/// C10: any member answers a device that asked to be added again; it opens nothing of before, and everything after.
#[test]
fn a_device_comes_back() {
    for suite in BOTH {
        let mut devices = [1, 2, 3].map(|seed| Device::new(suite, seed));
        let mut groups = group_of(&mut devices, ConversationKind::Group);
        let lost = groups.pop().unwrap();
        let before = groups[0].seal(&mut devices[0].desk(), place(), b"before").unwrap();
        lost.delete(&mut devices[2].records);
        let (account, inbox) = (devices[2].log.id(), devices[2].inbox);
        let (_, body) = make_readd(&mut devices[2].desk(), suite, CONVERSATION, account, inbox).unwrap();
        let package = read_readd(suite, CONVERSATION, &body, &mut devices[1].rng).unwrap();
        assert!(read_readd(suite, ConversationId([9; 32]), &body, &mut devices[1].rng).is_none());
        for bit in 0..body.len() * 8 {
            let mut bad = body.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read_readd(suite, CONVERSATION, &bad, &mut devices[1].rng).is_none(), "bit {bit}");
        }
        let evidence = Evidence::of(devices.iter().map(|device| &device.log));
        let leaf = groups[1].members().iter().find(|member| member.account == account).unwrap().leaf;
        let changes = || Changes { add: vec![package.clone()], remove: vec![leaf], ..Changes::default() };
        // A plain member makes it; without the request it may not.
        let made = groups[1].commit(&mut devices[1].desk(), place(), envelope(5), changes(), &evidence).unwrap();
        groups[1].drop_own(&mut devices[1].records).unwrap();
        let judged = groups[0].judge(&mut devices[0].desk(), envelope(5), &made.body, &BTreeSet::new());
        assert_eq!(judged.map(drop), Err(InvalidCommit::Authority));
        let answer = Changes { readds: vec![body], ..changes() };
        let made = groups[1].commit(&mut devices[1].desk(), place(), envelope(6), answer, &evidence).unwrap();
        let judged = groups[0].judge(&mut devices[0].desk(), envelope(6), &made.body, &BTreeSet::new()).unwrap();
        groups[0].apply(&mut devices[0].desk(), judged).unwrap();
        groups[1].merge_own(&mut devices[1].desk()).unwrap();
        let joined = Group::join(&mut devices[2].desk(), suite, CONVERSATION, &made.welcome.unwrap()).unwrap();
        let mut back = joined.group;
        assert_eq!(back.roster(), groups[0].roster());
        let after = groups[0].seal(&mut devices[0].desk(), place(), b"after").unwrap();
        assert_eq!(&**back.open(&mut devices[2].desk(), &after).unwrap().plaintext, b"after");
        assert!(back.open(&mut devices[2].desk(), &before).is_err());
    }
}

/// C9: the last-resort key package adds its device as often as it has to.
#[test]
fn a_last_resort_key_package_is_used_again() {
    for suite in BOTH {
        let mut devices = [1, 2].map(|seed| Device::new(suite, seed));
        let evidence = Evidence::of(devices.iter().map(|device| &device.log));
        let (account, inbox) = (devices[1].log.id(), devices[1].inbox);
        let (_, bytes) = make_key_package(&mut devices[1].desk(), suite, account, inbox, true).unwrap();
        for n in 0..2 {
            let package = ReceivedKeyPackage::check(suite, &bytes, &mut devices[0].rng).unwrap();
            let mut group = devices[0].create(ConversationKind::OneToOne);
            let changes = Changes { add: vec![package], ..Changes::default() };
            let made = group.commit(&mut devices[0].desk(), place(), envelope(n), changes, &evidence).unwrap();
            Group::join(&mut devices[1].desk(), suite, CONVERSATION, &made.welcome.unwrap()).unwrap();
        }
    }
}

/// Finding 12. C2: one lifetime for all. Any other is judged by each member's clock: who reads late would refuse what others
/// took.
#[test]
fn a_key_package_has_the_one_lifetime() {
    let suite = Suite::Classical;
    let mut device = Device::new(suite, 1);
    let (account, inbox) = (device.log.id(), device.inbox);
    let credential = leaf::credential(&device.secrets, account);
    let mut desk = device.desk();
    let (provider, signer) = desk.split();
    let bundle = openmls::prelude::KeyPackage::builder()
        .key_package_lifetime(openmls::prelude::Lifetime::init(0, 4_000_000_000))
        .leaf_node_capabilities(leaf::capabilities(suite, provider.rand()))
        .leaf_node_extensions(leaf::leaf_extensions(inbox))
        .build(suite.ciphersuite(), &provider, &signer, credential)
        .unwrap();
    let bytes = openmls::prelude::tls_codec::Serialize::tls_serialize_detached(bundle.key_package()).unwrap();
    let checked = ReceivedKeyPackage::check(suite, &bytes, &mut device.rng);
    assert_eq!(checked.map(drop), Err(KeyPackageError::Unsuitable));
}

/// Finding 3. C7, C10: a Readd of somebody whose account has no leaf entitles nobody to anything, in a conversation of two
/// neither.
#[test]
fn a_readd_of_a_stranger_entitles_nobody() {
    for kind in [ConversationKind::Group, ConversationKind::OneToOne] {
        let suite = Suite::Classical;
        let mut devices = [1, 2, 3].map(|seed| Device::new(suite, seed));
        let mut groups = group_of(&mut devices[..2], kind);
        let evidence = Evidence::of(devices.iter().map(|device| &device.log));
        let (account, inbox) = (devices[2].log.id(), devices[2].inbox);
        let (_, body) = make_readd(&mut devices[2].desk(), suite, CONVERSATION, account, inbox).unwrap();
        let package = read_readd(suite, CONVERSATION, &body, &mut devices[1].rng).unwrap();
        let changes = Changes { add: vec![package], readds: vec![body], ..Changes::default() };
        let made = groups[1].commit(&mut devices[1].desk(), place(), envelope(3), changes, &evidence).unwrap();
        let judged = groups[0].judge(&mut devices[0].desk(), envelope(3), &made.body, &BTreeSet::new());
        assert_eq!(judged.map(drop), Err(InvalidCommit::Authority), "{kind:?}");
    }
}

/// Finding 3. C10: a Readd is answered by an addition. Whoever asked once is not removed for it ever after.
#[test]
fn a_readd_does_not_entitle_to_a_removal_alone() {
    let suite = Suite::Classical;
    let mut devices = [1, 2, 3].map(|seed| Device::new(suite, seed));
    let mut groups = group_of(&mut devices, ConversationKind::Group);
    let evidence = Evidence::of(devices.iter().map(|device| &device.log));
    let (owner, inbox) = (devices[0].log.id(), devices[0].inbox);
    let (_, body) = make_readd(&mut devices[0].desk(), suite, CONVERSATION, owner, inbox).unwrap();
    let leaf = groups[1].members().iter().find(|member| member.account == owner).unwrap().leaf;
    let changes = Changes { remove: vec![leaf], readds: vec![body], ..Changes::default() };
    let made = groups[1].commit(&mut devices[1].desk(), place(), envelope(3), changes, &evidence).unwrap();
    let judged = groups[2].judge(&mut devices[2].desk(), envelope(3), &made.body, &BTreeSet::new());
    assert_eq!(judged.map(drop), Err(InvalidCommit::Authority));
}
