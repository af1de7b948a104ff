//! DV-07: all that a device has on its disk at some time opens nothing that was sent and read before, and, after one update,
//! nothing later; neither with every X25519 key. Each with what it takes for the attack to work.

use super::half_keys::halves;
use super::search::opened_by_search;
use super::thief::{Dump, Known, NodeKeys, Thief, Traffic, node_keys, persist};
use super::*;

const ALICE: usize = 0;
const BOB: usize = 1;
const CAROL: usize = 2;

/// Adversary C, forward secrecy (L2): what was sent before the disk was taken does not open with it, whether it was read or
/// never came and was passed over. It does where nothing that was written is overwritten, or nothing is deleted.
#[test]
fn a_dump_opens_nothing_that_was_sent_before() {
    for suite in BOTH {
        let mut world = World::new(suite, false);
        let mut of_others = BTreeSet::from([world.speak_unheard_by_bob(CAROL)]);
        of_others.extend(world.all_speak(&[ALICE, CAROL]));
        world.all_speak(&[BOB]);
        of_others.insert(world.speak_unheard_by_bob(ALICE));
        world.update(ALICE);
        of_others.extend(world.all_speak(&[CAROL, ALICE]));
        of_others.insert(world.speak_unheard_by_bob(ALICE));
        of_others.extend(world.all_speak(&[ALICE]));
        let disk = &world.disks[BOB];
        assert_eq!(world.opened(&disk.now), BTreeSet::new(), "{suite:?}");
        let overwritten: BTreeSet<_> = disk.before.iter().flat_map(|dump| world.opened(dump)).collect();
        assert_eq!(overwritten, of_others, "{suite:?}: control, a disk that overwrites nothing");
        assert_eq!(world.opened(&disk.undeleted), of_others, "{suite:?}: control, a disk that deletes nothing");
    }
}

/// The same without OpenMLS's help, and so also of what the device itself has said: no secret that leads to a message is
/// on the disk once it was read or sent.
#[test]
fn no_secret_of_a_message_stays_in_a_dump() {
    for suite in BOTH {
        let mut world = World::new(suite, false);
        let mut all = world.all_speak(&[ALICE, BOB, BOB, CAROL]);
        world.update(ALICE);
        all.extend(world.all_speak(&[BOB, CAROL, ALICE, BOB]));
        let (disk, messages) = (&world.disks[BOB], &world.traffic.messages);
        assert_eq!(opened_by_search(suite, &disk.now, messages), BTreeSet::new(), "{suite:?}");
        let search = |dump| opened_by_search(suite, dump, messages);
        let overwritten: BTreeSet<_> = disk.before.iter().flat_map(search).collect();
        assert_eq!(overwritten, all, "{suite:?}: control, a disk that overwrites nothing");
    }
}

/// Adversary C, healing (C11): once a device has replaced its keys, nothing later opens with a dump from before. Another's
/// update does not help it, and a dump in which its own waits holds the new keys.
#[test]
fn after_one_update_a_dump_opens_nothing_later() {
    for suite in BOTH {
        let mut world = World::new(suite, false);
        world.all_speak(&[ALICE, BOB, CAROL]);
        let dump = world.disks[BOB].now.clone();
        world.update(ALICE);
        let before_it = world.all_speak(&[ALICE, CAROL]);
        let waiting = world.update(BOB);
        let after_it = world.all_speak(&[ALICE, CAROL]);
        world.update(ALICE);
        let later = world.all_speak(&[CAROL]);
        let opened = world.opened(&dump);
        assert_eq!(opened, before_it, "{suite:?}: and, as a control, what came before its own update");
        let all_later = after_it.into_iter().chain(later).collect();
        assert_eq!(world.opened(&waiting), all_later, "{suite:?}: control, the disk while the update waits");
    }
}

/// Adversaries C and Q: where every X25519 key of every member is known, too, and ML-KEM alone stands, nothing opens that
/// was sent before: not by the Welcome, whose key was deleted with the key package. It does in the classical suite, and
/// where both halves of the hybrid key are known.
#[test]
fn every_x25519_key_opens_nothing_that_was_sent_before() {
    for (what, suite, known, opens) in X25519_IS_KNOWN {
        let mut world = World::new(suite, false);
        let mut of_others = world.all_speak(&[ALICE, CAROL]);
        world.update(ALICE);
        of_others.extend(world.all_speak(&[ALICE, CAROL]));
        let opened = world.thief().opened_by_welcomes(&world.disks[BOB].undeleted, known);
        assert_eq!(opened, if opens { of_others } else { BTreeSet::new() }, "{what}");
    }
}

/// Adversaries C and Q: after one update the same dump and every X25519 key open nothing later, with the same controls.
#[test]
fn after_one_update_a_dump_and_every_x25519_key_open_nothing_later() {
    for (what, suite, known, opens) in X25519_IS_KNOWN {
        let mut world = World::new(suite, false);
        world.all_speak(&[ALICE, BOB, CAROL]);
        let dump = world.disks[BOB].now.clone();
        // Keys of later epochs are of use only to whoever is in them.
        let seats = [ALICE, CAROL].map(|i| {
            let member = world.groups[i].own().unwrap();
            let keys = node_keys(&world.disks[i].now, &world.groups[i].id(), &member);
            assert!(!keys.is_empty());
            let known = |pair: NodeKeys| NodeKeys { private: known(&pair.private), ..pair };
            (member, keys.into_iter().map(known).collect::<Vec<_>>())
        });
        world.update(BOB);
        let mut later = world.all_speak(&[ALICE, BOB, CAROL]);
        world.update(BOB);
        later.extend(world.all_speak(&[BOB]));
        let thief = world.thief();
        let opened: BTreeSet<_> =
            seats.iter().flat_map(|(member, keys)| thief.opened_as(&dump, member, keys)).collect();
        assert_eq!(opened, if opens { later } else { BTreeSet::new() }, "{what}");
    }
}

/// What whoever has broken X25519 knows of a private key, and whether that opens anything; and two controls.
const X25519_IS_KNOWN: [(&str, Suite, Known, bool); 3] = [
    ("the X25519 half", Suite::Hybrid, |key| [&halves(key).0[..], &OTHER_HALF].concat(), false),
    ("control, both halves", Suite::Hybrid, |key| [&halves(key).0[..], &halves(key).1].concat(), true),
    ("control, the classical suite", Suite::Classical, <[u8]>::to_vec, true),
];
/// Of ML-KEM, and of the thief's own making: it knows none of the members'.
const OTHER_HALF: [u8; 64] = [0x5a; 64];

/// C9, what forward secrecy ends at: who was added by its last-resort key package, whose keys stay, has what was said from
/// there to its own first update on its disk, until that package is replaced.
#[test]
fn a_last_resort_key_package_opens_what_was_said_until_it_is_forgotten() {
    for suite in BOTH {
        let mut world = World::new(suite, true);
        let until_its_update = world.all_speak(&[ALICE, CAROL]);
        world.update(BOB);
        world.all_speak(&[ALICE, CAROL]);
        assert_eq!(world.opened(&world.disks[BOB].now), until_its_update, "{suite:?}");
        let package = world.package.clone();
        world.devices[BOB].records.forget_key_package(&package);
        world.persist();
        assert_eq!(world.opened(&world.disks[BOB].now), BTreeSet::new(), "{suite:?}");
    }
}

/// A conversation of three, in which every step is on the disks before the next one begins.
struct World {
    devices: Vec<Device>,
    groups: Vec<Group>,
    disks: Vec<Disk>,
    traffic: Traffic,
    /// Bob's, by which he was added.
    package: KeyPackageRef,
}

#[derive(Default)]
struct Disk {
    now: Dump,
    /// As it was after each step.
    before: Vec<Dump>,
    /// As it is if records stay that are deleted.
    undeleted: Dump,
}

impl World {
    /// Alice begins it, and adds the others. Bob by his last-resort key package, if so wished.
    fn new(suite: Suite, is_last_resort: bool) -> World {
        let mut devices = [1, 2, 3].map(|seed| Device::new(suite, seed));
        let (account, inbox) = (devices[BOB].log.id(), devices[BOB].inbox);
        let (package, bytes) =
            make_key_package(&mut devices[BOB].desk(), suite, account, inbox, is_last_resort).unwrap();
        let bob = ReceivedKeyPackage::check(suite, &bytes, &mut devices[ALICE].rng).unwrap();
        let add = vec![bob, devices[CAROL].key_package()];
        let evidence = Evidence::of(devices.iter().map(|device| &device.log));
        let first = devices[ALICE].create(ConversationKind::Group);
        let disks = devices.iter().map(|_| Disk::default()).collect();
        let mut world =
            World { devices: devices.into(), groups: vec![first], disks, traffic: Traffic::default(), package };
        world.persist();
        let changes = Changes { add, ..Changes::default() };
        let desk = &mut world.devices[ALICE].desk();
        let made = world.groups[ALICE].commit(desk, place(), envelope(0), changes, &evidence).unwrap();
        world.groups[ALICE].merge_own(desk).unwrap();
        let welcome = made.welcome.unwrap();
        for i in [BOB, CAROL] {
            let joined = Group::join(&mut world.devices[i].desk(), suite, CONVERSATION, &welcome).unwrap();
            world.groups.push(joined.group);
        }
        world.traffic.commits.push((envelope(0), made.body));
        world.traffic.welcomes.push(welcome);
        world.persist();
        world
    }

    /// Each says something, and the others read it. The numbers of these messages.
    fn all_speak(&mut self, who: &[usize]) -> BTreeSet<usize> {
        who.iter().map(|from| self.speak(*from, &[ALICE, BOB, CAROL])).collect()
    }

    /// Somebody says something that never comes to Bob.
    fn speak_unheard_by_bob(&mut self, from: usize) -> usize {
        self.speak(from, &[ALICE, CAROL])
    }

    fn speak(&mut self, from: usize, readers: &[usize]) -> usize {
        let body = self.groups[from].seal(&mut self.devices[from].desk(), place(), b"hello").unwrap();
        self.persist();
        for to in readers.iter().copied().filter(|to| *to != from) {
            self.groups[to].open(&mut self.devices[to].desk(), &body).unwrap();
        }
        self.persist();
        self.traffic.messages.push(body);
        self.traffic.messages.len() - 1
    }

    /// A device replaces its keys. Its disk while the commit waits.
    fn update(&mut self, who: usize) -> Dump {
        let envelope = envelope(self.traffic.commits.len() as u8);
        let changes = Changes { update: true, ..Changes::default() };
        let desk = &mut self.devices[who].desk();
        let made = self.groups[who].commit(desk, place(), envelope, changes, &Evidence::default()).unwrap();
        self.persist();
        let waiting = self.disks[who].now.clone();
        for to in (0..3).filter(|to| *to != who) {
            let desk = &mut self.devices[to].desk();
            let judged = self.groups[to].judge(desk, envelope, &made.body, &BTreeSet::new()).unwrap();
            self.groups[to].apply(desk, judged).unwrap();
        }
        self.groups[who].merge_own(&mut self.devices[who].desk()).unwrap();
        self.traffic.commits.push((envelope, made.body));
        self.persist();
        waiting
    }

    fn persist(&mut self) {
        for (device, disk) in self.devices.iter_mut().zip(&mut self.disks) {
            let was = disk.now.clone();
            persist(&mut device.records, &mut disk.now);
            // A record has a first page as long as it is there.
            let gone = |key: &[u8]| !disk.now.contains_key(&[&key[..key.len() - 4], &[0; 4]].concat());
            disk.undeleted.retain(|key, _| disk.now.contains_key(key) || gone(key));
            disk.undeleted.extend(disk.now.clone());
            disk.before.push(was);
        }
    }

    /// Whoever took Bob's disk.
    fn thief(&self) -> Thief<'_> {
        let device = &self.devices[BOB];
        Thief { device: &device.secrets, group: self.groups[BOB].id(), traffic: &self.traffic }
    }

    fn opened(&self, dump: &Dump) -> BTreeSet<usize> {
        self.thief().opened(dump)
    }
}
