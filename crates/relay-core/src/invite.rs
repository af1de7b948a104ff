//! Invites: codes that an operator hands out. The store holds their hashes only, so that who reads it can't use them.

use sealwire_store::Operation;
use sha2::{Digest, Sha256};

use crate::records::{self, Invite};

/// What to commit so that `code` lets `uses` accounts in. Fails in the store if the code exists.
pub fn invite(code: &str, uses: u32) -> Operation {
    let record = records::put(hash(code), None, &Invite { uses_left: uses });
    Operation::Swap { records: vec![record], inboxes: Vec::new() }
}

pub(crate) fn hash(code: &str) -> [u8; 32] {
    Sha256::digest(code.as_bytes()).into()
}
