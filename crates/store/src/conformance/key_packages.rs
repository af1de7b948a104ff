//! Key packages (K1).

use sealwire_wire::DeviceId;
use sealwire_wire::limits::KEY_PACKAGES_MAX;

use super::{Bed, World};
use crate::{KeyPackage, Operation, Outcome, Refusal};

const DEVICE: DeviceId = DeviceId([1; 32]);
const OTHER: DeviceId = DeviceId([2; 32]);
const CLAIM: Operation = Operation::ClaimKeyPackage { device: DEVICE };

/// A package whose bytes tell its number.
fn package(number: usize) -> Vec<u8> {
    (number as u64).to_be_bytes().to_vec()
}

fn packages(numbers: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    numbers.into_iter().map(package).collect()
}

fn put(one_time: Vec<Vec<u8>>) -> Operation {
    Operation::PutKeyPackages { device: DEVICE, replace: false, one_time, last_resort: None }
}

fn put_last_resort(number: usize) -> Operation {
    Operation::PutKeyPackages { device: DEVICE, replace: false, one_time: vec![], last_resort: Some(package(number)) }
}

fn replace(one_time: Vec<Vec<u8>>) -> Operation {
    Operation::PutKeyPackages { device: DEVICE, replace: true, one_time, last_resort: None }
}

fn claimed(number: usize) -> Outcome {
    Outcome::KeyPackageClaimed(Some(KeyPackage { bytes: package(number), is_last_resort: false }))
}

fn last_resort(number: usize) -> Outcome {
    Outcome::KeyPackageClaimed(Some(KeyPackage { bytes: package(number), is_last_resort: true }))
}

const NONE: Outcome = Outcome::KeyPackageClaimed(None);
const PUT: Outcome = Outcome::KeyPackagesPut;

fn held<B: Bed>(world: &World<B>) -> u32 {
    world.store().key_packages(DEVICE).expect("the store works")
}

/// K1: in the order in which they came, in one group and over restarts.
pub fn each_key_package_is_handed_out_once<B: Bed>() {
    let mut world = World::<B>::new();
    assert_eq!((world.apply(CLAIM), held(&world)), (NONE, 0));
    let group = [put(packages(1..4)), CLAIM, put(packages([4])), CLAIM];
    assert_eq!(world.apply_all(&group), [PUT, claimed(1), PUT, claimed(2)]);
    assert_eq!(held(&world), 2);
    world.restart();
    assert_eq!(held(&world), 2);
    assert_eq!(world.apply(CLAIM), claimed(3));
    world.restart();
    assert_eq!(world.apply_all(&[CLAIM, CLAIM]), [claimed(4), NONE]);
    world.restart();
    assert_eq!((world.apply(CLAIM), held(&world)), (NONE, 0));
}

/// K1: it is flagged, is there again for the next, and stays until the next one of its kind.
pub fn the_last_resort_one_comes_when_no_other_is_left<B: Bed>() {
    let mut world = World::<B>::new();
    assert_eq!(world.apply_all(&[put_last_resort(9), put(packages([1]))]), [PUT, PUT]);
    assert_eq!(held(&world), 1, "it is not counted");
    assert_eq!(world.apply_all(&[CLAIM, CLAIM, CLAIM]), [claimed(1), last_resort(9), last_resort(9)]);
    world.restart();
    assert_eq!((world.apply(CLAIM), held(&world)), (last_resort(9), 0));
    assert_eq!(world.apply_all(&[put(packages([2])), CLAIM, CLAIM]), [PUT, claimed(2), last_resort(9)]);
    assert_eq!(world.apply_all(&[put_last_resort(8), CLAIM]), [PUT, last_resort(8)]);
    world.restart();
    assert_eq!(world.apply(CLAIM), last_resort(8));
}

/// K1: nobody is handed another device's.
pub fn key_packages_are_each_devices_own<B: Bed>() {
    let world = World::<B>::new();
    world.apply_all(&[put(packages([1, 2])), put_last_resort(9)]);
    let of_other = Operation::ClaimKeyPackage { device: OTHER };
    assert_eq!(world.apply(of_other.clone()), NONE);
    let put_other =
        Operation::PutKeyPackages { device: OTHER, replace: true, one_time: packages([1]), last_resort: None };
    assert_eq!(world.apply_all(&[put_other, of_other.clone(), of_other]), [PUT, claimed(1), NONE]);
    assert_eq!((world.apply(CLAIM), held(&world)), (claimed(1), 1));
}

/// L11: after a restoration a device replaces what may have been handed out.
pub fn a_publication_that_replaces_leaves_nothing<B: Bed>() {
    let mut world = World::<B>::new();
    world.apply_all(&[put(packages([1, 2])), put_last_resort(9)]);
    assert_eq!(world.apply(replace(packages([3, 2]))), PUT);
    world.restart();
    assert_eq!(world.apply_all(&[CLAIM, CLAIM, CLAIM]), [claimed(3), claimed(2), NONE]);
    world.apply_all(&[put(packages([4])), put_last_resort(9)]);
    assert_eq!(world.apply_all(&[replace(vec![]), CLAIM]), [PUT, NONE]);
}

/// K1: at the limit and one past it, and what is past it changes nothing.
pub fn a_device_has_so_many_key_packages<B: Bed>() {
    let world = World::<B>::new();
    let most = KEY_PACKAGES_MAX;
    let refused = Outcome::Refused(Refusal::TooManyKeyPackages);
    assert_eq!(world.apply(put(packages(0..most + 1))), refused);
    assert_eq!((world.apply(CLAIM), held(&world)), (NONE, 0));
    assert_eq!(world.apply_all(&[put_last_resort(999), put(packages(0..most))]), [PUT, PUT]);
    assert_eq!(held(&world), most as u32);
    let all = |replace, numbers: std::ops::Range<usize>| Operation::PutKeyPackages {
        device: DEVICE,
        replace,
        one_time: packages(numbers),
        last_resort: Some(package(998)),
    };
    assert_eq!(world.apply(all(false, most..most + 1)), refused);
    assert_eq!(world.apply(all(true, most..2 * most + 1)), refused);
    assert_eq!((world.apply(CLAIM), held(&world)), (claimed(0), most as u32 - 1));
    assert_eq!(world.apply(put(packages([most]))), PUT, "there is room for one");
    assert_eq!(world.apply(put(packages([most + 1]))), refused);
    for number in 1..=most {
        assert_eq!(world.apply(CLAIM), claimed(number));
    }
    assert_eq!(world.apply(CLAIM), last_resort(999));
    assert_eq!(world.apply_all(&[put(packages(most + 1..2 * most + 1)), replace(packages(0..1))]), [PUT, PUT]);
}

/// K1: a device that did not hear the answer says the same again; what was handed out meanwhile does not come back.
pub fn a_repeated_publication_adds_nothing<B: Bed>() {
    let mut world = World::<B>::new();
    world.apply_all(&[put(packages([1, 2, 3])), CLAIM]);
    world.restart();
    assert_eq!(world.apply(put(packages([1, 2, 3]))), PUT);
    assert_eq!(held(&world), 2);
    assert_eq!(world.apply(replace(packages([1, 2, 3]))), PUT);
    assert_eq!(held(&world), 2);
    assert_eq!(world.apply_all(&[put(packages([4, 4])), CLAIM]), [PUT, claimed(2)]);
    assert_eq!(world.apply_all(&[CLAIM, CLAIM, CLAIM]), [claimed(3), claimed(4), NONE]);
}

/// As many as a device can have published at once, so that a repetition of all of them adds none; then the oldest go.
pub fn so_many_handed_out_key_packages_are_remembered<B: Bed>() {
    let mut world = World::<B>::new();
    let most = KEY_PACKAGES_MAX;
    let claims = vec![CLAIM; most];
    world.apply(put(packages(0..most)));
    world.apply_all(&claims);
    world.restart();
    assert_eq!(world.apply_all(&[put(packages(0..most)), CLAIM]), [PUT, NONE]);
    assert_eq!(world.apply_all(&[put(packages([most])), CLAIM]), [PUT, claimed(most)]);
    world.restart();
    assert_eq!(world.apply_all(&[put(packages(0..most)), CLAIM, CLAIM]), [PUT, claimed(0), NONE]);
}
