//! The hashes of the protocol: SHA-256 over a label and a structure (E2).

use sealwire_wire::label::Label;
use sealwire_wire::{AccountId, BlobHash, Chain, ContentId, ConversationId, InboxAddress, Position, RosterHash};
use sha2::{Digest, Sha256};
use tls_codec::{Serialize, TlsByteSliceU24, TlsSliceU32};

/// SHA-256 of a label and a structure.
pub(crate) fn hash(label: Label, structure: &impl Serialize) -> [u8; 32] {
    Sha256::digest(label.encode(structure)).into()
}

/// The conversation between two accounts: one id, whoever asks (C8).
pub fn one_to_one(a: AccountId, b: AccountId) -> ConversationId {
    ConversationId(hash(Label::ONE_TO_ONE, &(a.min(b), a.max(b))))
}

/// The group conversation that an account begins with a random nonce: an id that nobody else can begin (C8).
pub fn group_id(creator: AccountId, nonce: [u8; 16]) -> ConversationId {
    ConversationId(hash(Label::GROUP_ID, &(creator, nonce)))
}

/// The id of content (E4): a hash over conversation, author, salt and content, the same whatever envelope carried it.
/// The salt is the first field of the content.
pub fn content_id(conversation: ConversationId, author: AccountId, content: &[u8]) -> ContentId {
    ContentId(hash(Label::CONTENT_ID, &(conversation, author, TlsByteSliceU24(content))))
}

/// The chain before a conversation's first entry (L5).
pub fn chain_start(conversation: ConversationId) -> Chain {
    Chain(hash(Label::CHAIN_START, &conversation))
}

/// The chain after the entry at `position` (L5): H(n) = hash(label, H(n-1), n, hash(entry)).
pub fn chain_step(before: Chain, position: Position, entry: &[u8]) -> Chain {
    let entry = hash(Label::ENTRY_HASH, &TlsByteSliceU24(entry));
    Chain(hash(Label::CHAIN_STEP, &(before, position, entry)))
}

/// The hash of a roster: the sorted inboxes that read a conversation log (C6).
pub fn roster_hash(inboxes: &[InboxAddress]) -> RosterHash {
    RosterHash(hash(Label::ROSTER, &TlsSliceU32(inboxes)))
}

/// A blob's name: plain SHA-256, so that any tool can check it (E7).
pub fn blob_hash(bytes: &[u8]) -> BlobHash {
    BlobHash(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_accounts_have_one_conversation() {
        let (a, b) = (AccountId([1; 32]), AccountId([2; 32]));
        assert_eq!(one_to_one(a, b), one_to_one(b, a));
        assert_ne!(one_to_one(a, b), one_to_one(a, a));
    }

    /// C8: nobody else comes to it, and nobody comes to it by the way of two.
    #[test]
    fn a_group_id_is_bound_to_who_begins_it() {
        let (a, nonce) = (AccountId([1; 32]), [2; 16]);
        let id = group_id(a, nonce);
        assert_eq!(id, group_id(a, nonce));
        assert_ne!(id, group_id(AccountId([9; 32]), nonce));
        assert_ne!(id, group_id(a, [9; 16]));
        assert_eq!(
            id.0,
            <[u8; 32]>::from(Sha256::digest([&b"\x14sealwire/v1/group-id\x01"[..], &a.0, &nonce].concat()))
        );
    }

    /// E4: whoever says it elsewhere, as another, or otherwise, says something else.
    #[test]
    fn a_content_id_is_bound_to_all_that_it_covers() {
        let (c, a) = (ConversationId([1; 32]), AccountId([2; 32]));
        let id = content_id(c, a, b"hi");
        assert_ne!(id, content_id(ConversationId([9; 32]), a, b"hi"));
        assert_ne!(id, content_id(c, AccountId([9; 32]), b"hi"));
        assert_ne!(id, content_id(c, a, b"ho"));
    }

    /// L5: a swap, a drop or another position gives another chain.
    #[test]
    fn the_chain_tells_order_and_place() {
        let start = chain_start(ConversationId([1; 32]));
        let both = |x: &[u8], y: &[u8]| chain_step(chain_step(start, Position(1), x), Position(2), y);
        assert_ne!(both(b"a", b"b"), both(b"b", b"a"));
        assert_ne!(chain_step(start, Position(1), b"a"), chain_step(start, Position(2), b"a"));
        assert_ne!(chain_start(ConversationId([1; 32])), chain_start(ConversationId([2; 32])));
    }
}
