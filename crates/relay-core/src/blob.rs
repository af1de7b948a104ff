//! Blobs (E7): sealed, named by their hash, in pieces, resumable.

use sealwire_store::{BlobPart, Operation, Outcome, Refusal};
use sealwire_wire::frame::{FromRelay, RequestId};
use sealwire_wire::limits::{BLOB_CHUNK_MAX, BLOB_MAX};
use sealwire_wire::{BlobHash, Code};

use crate::connection::{Connection, Waiting};
use crate::decision::Question;

/// A blob request that waits for the store.
pub(crate) struct Blobs {
    request: RequestId,
    offset: u64,
}

impl Connection {
    pub(crate) fn put_blob(&mut self, request: RequestId, hash: BlobHash, size: u64, offset: u64, bytes: Vec<u8>) {
        if size > BLOB_MAX {
            return self.refuse_request(Code::TooLarge, request, "the blob is larger than its limit");
        }
        let fits = size > 0 && offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= size);
        if !fits {
            return self.refuse_request(Code::BlobRefused, request, "the piece does not fit the blob");
        }
        self.store(Operation::PutBlob { hash, size, offset, bytes }, Waiting::Blob(Blobs { request, offset }));
    }

    pub(crate) fn blob_stored(&mut self, Blobs { request, .. }: Blobs, outcome: Outcome) {
        match outcome {
            Outcome::Stored { held, size } => {
                self.send(FromRelay::Blob { request, size, offset: held, bytes: Vec::new() })
            }
            Outcome::Refused(Refusal::BlobMismatch { .. }) => {
                self.refuse_request(Code::BlobRefused, request, "the piece does not fit the blob");
            }
            _ => self.damaged(),
        }
    }

    pub(crate) fn get_blob(&mut self, request: RequestId, hash: BlobHash, offset: u64) {
        let question = Question::Blob { hash, offset, most: BLOB_CHUNK_MAX };
        self.load(question, Waiting::Blob(Blobs { request, offset }));
    }

    /// Of a blob that is not whole, the answer says how much is held and gives nothing.
    pub(crate) fn blob_loaded(&mut self, Blobs { request, offset }: Blobs, part: Option<BlobPart>) {
        let frame = match part {
            None => FromRelay::Blob { request, size: 0, offset: 0, bytes: Vec::new() },
            Some(BlobPart { size, held, bytes }) => {
                let offset = if held < size { held } else { offset };
                FromRelay::Blob { request, size, offset, bytes }
            }
        };
        self.send(frame);
    }
}
