//! A thief that does without OpenMLS: it takes every string in a dump that is as long as a secret, holds it for each kind of
//! secret that leads to a message, and tries (RFC 9420 sections 6.3 and 9). So it also tries what a device itself has said,
//! which OpenMLS never opens.

use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::types::{AeadType, HashType};

use super::thief::Dump;
use super::*;

/// Which messages a dump opens, by their numbers.
pub(super) fn opened_by_search(suite: Suite, dump: &Dump, messages: &[Vec<u8>]) -> BTreeSet<usize> {
    let search = Search::new(suite, dump);
    messages.iter().enumerate().filter(|(_, body)| search.opens(body)).map(|(number, _)| number).collect()
}

struct Search {
    suite: Suite,
    crypto: Crypto,
    secrets: BTreeSet<Vec<u8>>,
    /// Those that may be of a sender's ratchet, as they are and as what comes of the nodes of a tree of four leaves.
    ratchets: BTreeSet<Vec<u8>>,
}

/// What stands in a PrivateMessage.
struct Sealed<'a> {
    /// Group, epoch and content type.
    head: &'a [u8],
    /// The same, with the authenticated data.
    head_and_data: &'a [u8],
    sender_data: &'a [u8],
    ciphertext: &'a [u8],
}

impl Search {
    fn new(suite: Suite, dump: &Dump) -> Search {
        let crypto = Crypto::new(&mut ChaCha20Rng::seed_from_u64(0));
        let mut search = Search { suite, crypto, secrets: BTreeSet::new(), ratchets: BTreeSet::new() };
        let length = search.secret_length();
        // The pages of a record follow each other. postcard writes a string's length in front of it.
        let bytes: Vec<u8> = dump.values().flat_map(|page| page.iter().copied()).collect();
        let strings = bytes.windows(1 + length).filter(|window| usize::from(window[0]) == length);
        search.secrets = strings.map(|window| window[1..].to_vec()).collect();
        let mut nodes = search.secrets.clone();
        search.ratchets = nodes.clone();
        for _ in 0..3 {
            let leaves: Vec<_> = nodes.iter().map(|node| search.expand(node, "application", b"", length)).collect();
            search.ratchets.extend(leaves);
            let children = nodes.iter().flat_map(|node| [b"left".as_slice(), b"right"].map(|side| (node, side)));
            nodes = children.map(|(node, side)| search.expand(node, "tree", side, length)).collect();
        }
        search
    }

    fn opens(&self, body: &[u8]) -> bool {
        let sealed = Sealed::read(body);
        let sender = self.secrets.iter().find_map(|secret| self.sender(secret, &sealed));
        sender.is_some_and(|(generation, guard)| {
            let starts = self.ratchets.iter().flat_map(|secret| (0..=generation).map(move |from| (secret, from)));
            starts.into_iter().any(|(secret, from)| self.opens_with(secret, from, generation, guard, &sealed))
        })
    }

    /// The generation and the reuse guard of a message's sender.
    fn sender(&self, secret: &[u8], sealed: &Sealed<'_>) -> Option<(u32, [u8; 4])> {
        let sample = &sealed.ciphertext[..self.secret_length()];
        let key = self.expand(secret, "key", sample, self.key_length());
        let nonce = self.expand(secret, "nonce", sample, 12);
        let opened = self.crypto.aead_decrypt(self.aead(), &key, sealed.sender_data, &nonce, sealed.head).ok()?;
        let generation = u32::from_be_bytes(opened[4..8].try_into().unwrap());
        Some((generation, opened[8..12].try_into().unwrap()))
    }

    fn opens_with(&self, secret: &[u8], from: u32, to: u32, guard: [u8; 4], sealed: &Sealed<'_>) -> bool {
        let mut secret = secret.to_vec();
        for generation in from..to {
            secret = self.expand(&secret, "secret", &generation.to_be_bytes(), self.secret_length());
        }
        let key = self.expand(&secret, "key", &to.to_be_bytes(), self.key_length());
        let mut nonce = self.expand(&secret, "nonce", &to.to_be_bytes(), 12);
        nonce.iter_mut().zip(guard).for_each(|(byte, guard)| *byte ^= guard);
        self.crypto.aead_decrypt(self.aead(), &key, sealed.ciphertext, &nonce, sealed.head_and_data).is_ok()
    }

    /// ExpandWithLabel (section 8).
    fn expand(&self, secret: &[u8], label: &str, context: &[u8], length: usize) -> Vec<u8> {
        let label = format!("MLS 1.0 {label}");
        let lengths = [&(length as u16).to_be_bytes()[..], &[label.len() as u8]].concat();
        let info = [&lengths[..], label.as_bytes(), &[context.len() as u8], context].concat();
        let hash = if self.suite == Suite::Hybrid { HashType::Sha2_384 } else { HashType::Sha2_256 };
        self.crypto.hkdf_expand(hash, secret, &info, length).unwrap().as_slice().to_vec()
    }

    fn secret_length(&self) -> usize {
        if self.suite == Suite::Hybrid { 48 } else { 32 }
    }

    fn key_length(&self) -> usize {
        if self.suite == Suite::Hybrid { 32 } else { 16 }
    }

    fn aead(&self) -> AeadType {
        if self.suite == Suite::Hybrid { AeadType::Aes256Gcm } else { AeadType::Aes128Gcm }
    }
}

impl<'a> Sealed<'a> {
    fn read(message: &'a [u8]) -> Sealed<'a> {
        let (version_and_format, body) = message.split_at(4);
        assert_eq!(version_and_format, [0, 1, 0, 2], "a PrivateMessage");
        // Behind the group id: the epoch and the content type.
        let head = end_of(body, 0) + 9;
        let data = end_of(body, head);
        let sender_data = end_of(body, data);
        Sealed {
            head: &body[..head],
            head_and_data: &body[..data],
            sender_data: string(body, data),
            ciphertext: string(body, sender_data),
        }
    }
}

/// The string that begins there, behind its length.
fn string(bytes: &[u8], at: usize) -> &[u8] {
    let of_length = if bytes[at] >> 6 == 0 { 1 } else { 2 };
    &bytes[at + of_length..end_of(bytes, at)]
}

fn end_of(bytes: &[u8], at: usize) -> usize {
    match bytes[at] >> 6 {
        0 => at + 1 + usize::from(bytes[at]),
        1 => at + 2 + usize::from(u16::from_be_bytes([bytes[at] & 0x3f, bytes[at + 1]])),
        _ => panic!("no string of a message is as long"),
    }
}
