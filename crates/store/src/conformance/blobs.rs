//! Blobs in pieces (E7).

use sealwire_keys::blob_hash;
use sealwire_wire::BlobHash;
use sealwire_wire::limits::BLOB_CHUNK_MAX;

use super::{Bed, World};
use crate::blob::mismatch;
use crate::{BlobPart, Operation, Outcome};

const WHOLE: &[u8] = b"a tree of a thousand hybrid leaves";

fn piece(hash: BlobHash, offset: usize, bytes: &[u8]) -> Operation {
    Operation::PutBlob { hash, size: WHOLE.len() as u64, offset: offset as u64, bytes: bytes.to_vec() }
}

fn stored(held: usize) -> Outcome {
    Outcome::Stored { held: held as u64, size: WHOLE.len() as u64 }
}

fn part<B: Bed>(world: &World<B>, hash: BlobHash, offset: u64, most: usize) -> Option<BlobPart> {
    world.store().blob(hash, offset, most).expect("the store works")
}

/// E7: in order, bounded, read back in pieces of any size; held bytes may come again.
pub fn blobs_come_in_pieces<B: Bed>() {
    let (world, hash) = (World::<B>::new(), blob_hash(WHOLE));
    assert_eq!(part(&world, hash, 0, 9), None);
    assert_eq!(world.apply(piece(hash, 5, &WHOLE[5..])), mismatch(0));
    assert_eq!(world.apply(piece(hash, 0, &WHOLE[..10])), stored(10));
    assert_eq!(world.apply(piece(hash, 0, &WHOLE[..10])), stored(10));
    assert_eq!(world.apply(piece(hash, 11, &WHOLE[11..])), mismatch(10));
    assert_eq!(world.apply(piece(hash, 10, &[0; BLOB_CHUNK_MAX + 1])), mismatch(10));
    assert_eq!(world.apply(piece(hash, 5, &WHOLE[5..20])), stored(20));
    let unfinished = BlobPart { size: WHOLE.len() as u64, held: 20, bytes: Vec::new() };
    assert_eq!(part(&world, hash, 0, 9), Some(unfinished));
    assert_eq!(world.apply(piece(hash, 20, &WHOLE[20..])), stored(WHOLE.len()));
    assert_eq!(part(&world, hash, 2, 4).expect("it is whole").bytes, b"tree");
    assert_eq!(part(&world, hash, 0, usize::MAX).expect("it is whole").bytes, WHOLE);
    assert_eq!(part(&world, hash, u64::MAX, 4).expect("it is whole").bytes, b"");
    assert_eq!(world.apply(piece(hash, 0, &WHOLE[..10])), stored(WHOLE.len()), "a whole one needs nothing");
}

/// E7: what was answered as held is held after a restart, whole or not.
pub fn blobs_resume_after_a_restart<B: Bed>() {
    let (mut world, hash) = (World::<B>::new(), blob_hash(WHOLE));
    world.apply(piece(hash, 0, &WHOLE[..10]));
    world.restart();
    assert_eq!(part(&world, hash, 0, 9).map(|part| part.held), Some(10));
    assert_eq!(world.apply(piece(hash, 10, &WHOLE[10..])), stored(WHOLE.len()));
    world.restart();
    assert_eq!(part(&world, hash, 0, usize::MAX).expect("it is whole").bytes, WHOLE);
    let empty = Operation::PutBlob { hash: blob_hash(b""), size: 0, offset: 0, bytes: Vec::new() };
    assert_eq!(world.apply(empty), Outcome::Stored { held: 0, size: 0 });
    assert_eq!(part(&world, blob_hash(b""), 0, 9), Some(BlobPart { size: 0, held: 0, bytes: Vec::new() }));
}

/// E7: nobody gets bytes under a hash that is not theirs, and the right ones may still come.
pub fn a_blob_that_does_not_fit_its_hash_is_thrown_away<B: Bed>() {
    let (mut world, hash) = (World::<B>::new(), blob_hash(WHOLE));
    world.apply(piece(hash, 0, b"wrong"));
    assert_eq!(world.apply(piece(hash, 5, &WHOLE[5..])), mismatch(0));
    world.restart();
    assert_eq!(part(&world, hash, 0, 9), None);
    assert_eq!(world.apply(piece(hash, 0, WHOLE)), stored(WHOLE.len()));
    let other_size = Operation::PutBlob { hash, size: 3, offset: 0, bytes: b"abc".to_vec() };
    assert_eq!(world.apply(other_size), mismatch(WHOLE.len() as u64));
    assert_eq!(part(&world, hash, 0, usize::MAX).expect("it is whole").bytes, WHOLE);
}
