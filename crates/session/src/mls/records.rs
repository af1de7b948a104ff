//! What OpenMLS keeps, as records in memory and a list of what changed: the engine persists the changes with the rest of
//! its step, and nothing is written anywhere else ("persist before send").
//!
//! A record is postcard of what OpenMLS gives, but for the join configuration, whose serde form postcard cannot read back
//! and which is CBOR. Large records are kept in pages, and only pages that differ are written: the secrets of an epoch grow
//! with its senders, and change a little with each message (C14).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use openmls_traits::storage::{CURRENT_VERSION as VERSION, StorageProvider, traits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Bytes in a page of a record.
const PAGE: usize = 1_024;

/// All records of a device's conversations and key packages.
#[derive(Default)]
pub struct Records {
    records: BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>>,
    /// Pages that are not as they were when [`Records::take_changes`] was last called: what they were is not needed.
    changed: BTreeSet<Vec<u8>>,
}

/// A page that changed; `None`: it is gone.
pub type PageChange = (Vec<u8>, Option<Zeroizing<Vec<u8>>>);

/// A record that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// It cannot be read.
    #[error("a record of a conversation is damaged")]
    Damaged,
    /// What conversations of ours never have: proposals by reference, leaves of Update proposals, external secrets (C2).
    #[error("not used by conversations")]
    Unused,
}

impl Records {
    /// Takes back pages that were written, in any order.
    ///
    /// # Errors
    /// [`RecordsError::Damaged`] where a page is missing or superfluous.
    pub fn load(pages: impl IntoIterator<Item = (Vec<u8>, Zeroizing<Vec<u8>>)>) -> Result<Records, RecordsError> {
        let mut pages: Vec<_> = pages.into_iter().collect();
        pages.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut records: BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>> = BTreeMap::new();
        let mut unfinished = BTreeSet::new();
        for (key, bytes) in pages {
            let (key, number) = key.split_last_chunk::<4>().ok_or(RecordsError::Damaged)?;
            let record = records.entry(key.to_vec()).or_default();
            if bytes.len() > PAGE || record.len() != u32::from_be_bytes(*number) as usize * PAGE {
                return Err(RecordsError::Damaged);
            }
            record.extend_from_slice(&bytes);
            // Every page but a record's last is full.
            if bytes.len() == PAGE {
                unfinished.insert(key.to_vec())
            } else {
                unfinished.remove(key)
            };
        }
        if unfinished.is_empty() {
            Ok(Records { records, changed: BTreeSet::new() })
        } else {
            Err(RecordsError::Damaged)
        }
    }

    /// What changed since the last time. Keys are unique among all records.
    pub fn take_changes(&mut self) -> Vec<PageChange> {
        let changed = std::mem::take(&mut self.changed);
        let page = |page_key: Vec<u8>| {
            let (key, number) = page_key.split_last_chunk::<4>().expect("a page's key ends in its number");
            let bytes = self.records.get(key).and_then(|record| page_of(record, u32::from_be_bytes(*number)));
            (page_key, bytes.map(|bytes| Zeroizing::new(bytes.to_vec())))
        };
        changed.into_iter().map(page).collect()
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let before = self.records.remove(&key);
        let pages_of = |record: Option<&Vec<u8>>| record.map_or(0, |record| record.len() / PAGE + 1);
        for number in 0..pages_of(before.as_deref()).max(pages_of(value.as_ref())) as u32 {
            let was = before.as_deref().and_then(|record| page_of(record, number));
            let is = value.as_ref().and_then(|record| page_of(record, number));
            if was != is {
                self.changed.insert([&key[..], &number.to_be_bytes()].concat());
            }
        }
        if let Some(value) = value {
            self.records.insert(key, Zeroizing::new(value));
        }
    }
}

/// The page of that number. A record whose length is a multiple of a page has an empty one at its end.
fn page_of(record: &[u8], number: u32) -> Option<&[u8]> {
    let rest = record.get(number as usize * PAGE..)?;
    Some(&rest[..rest.len().min(PAGE)])
}

/// What a record is about: the first byte of its key.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    JoinConfig = 1,
    Tree = 2,
    InterimTranscriptHash = 3,
    Context = 4,
    ConfirmationTag = 5,
    GroupState = 6,
    MessageSecrets = 7,
    ResumptionPsks = 8,
    OwnLeafIndex = 9,
    EpochSecrets = 10,
    EpochKeyPairs = 11,
    EncryptionKeyPair = 12,
    KeyPackage = 13,
}

/// The records, as OpenMLS sees them.
pub(crate) struct Storage<'a>(pub(crate) RefCell<&'a mut Records>);

type Written = Result<(), RecordsError>;

impl Storage<'_> {
    fn write(&self, kind: Kind, key: &impl Serialize, value: &impl Serialize) -> Written {
        let value = postcard::to_stdvec(value).map_err(|_| RecordsError::Damaged)?;
        self.0.borrow_mut().put(key_of(kind, key)?, Some(value));
        Ok(())
    }

    fn read<T: DeserializeOwned>(&self, kind: Kind, key: &impl Serialize) -> Result<Option<T>, RecordsError> {
        let key = key_of(kind, key)?;
        let records = self.0.borrow();
        let read = |record: &Zeroizing<Vec<u8>>| postcard::from_bytes(record).map_err(|_| RecordsError::Damaged);
        records.records.get(&key).map(read).transpose()
    }

    fn delete(&self, kind: Kind, key: &impl Serialize) -> Written {
        self.0.borrow_mut().put(key_of(kind, key)?, None);
        Ok(())
    }
}

fn key_of(kind: Kind, key: &impl Serialize) -> Result<Vec<u8>, RecordsError> {
    postcard::to_extend(key, vec![kind as u8]).map_err(|_| RecordsError::Damaged)
}

/// The key of the record of a key package.
pub(crate) fn key_package_key(reference: &impl Serialize) -> Result<Vec<u8>, RecordsError> {
    key_of(Kind::KeyPackage, reference)
}

impl StorageProvider<VERSION> for Storage<'_> {
    type Error = RecordsError;

    fn write_mls_join_config<G: traits::GroupId<VERSION>, T: traits::MlsGroupJoinConfig<VERSION>>(
        &self,
        group: &G,
        config: &T,
    ) -> Written {
        let value = minicbor_serde::to_vec(config).map_err(|_| RecordsError::Damaged)?;
        self.0.borrow_mut().put(key_of(Kind::JoinConfig, group)?, Some(value));
        Ok(())
    }

    fn append_own_leaf_node<G: traits::GroupId<VERSION>, T: traits::LeafNode<VERSION>>(&self, _: &G, _: &T) -> Written {
        Err(RecordsError::Unused)
    }

    fn queue_proposal<
        G: traits::GroupId<VERSION>,
        R: traits::ProposalRef<VERSION>,
        T: traits::QueuedProposal<VERSION>,
    >(
        &self,
        _: &G,
        _: &R,
        _: &T,
    ) -> Written {
        Err(RecordsError::Unused)
    }

    fn write_tree<G: traits::GroupId<VERSION>, T: traits::TreeSync<VERSION>>(&self, group: &G, tree: &T) -> Written {
        self.write(Kind::Tree, group, tree)
    }

    fn write_interim_transcript_hash<G: traits::GroupId<VERSION>, T: traits::InterimTranscriptHash<VERSION>>(
        &self,
        group: &G,
        hash: &T,
    ) -> Written {
        self.write(Kind::InterimTranscriptHash, group, hash)
    }

    fn write_context<G: traits::GroupId<VERSION>, T: traits::GroupContext<VERSION>>(
        &self,
        group: &G,
        context: &T,
    ) -> Written {
        self.write(Kind::Context, group, context)
    }

    fn write_confirmation_tag<G: traits::GroupId<VERSION>, T: traits::ConfirmationTag<VERSION>>(
        &self,
        group: &G,
        tag: &T,
    ) -> Written {
        self.write(Kind::ConfirmationTag, group, tag)
    }

    fn write_group_state<T: traits::GroupState<VERSION>, G: traits::GroupId<VERSION>>(
        &self,
        group: &G,
        state: &T,
    ) -> Written {
        self.write(Kind::GroupState, group, state)
    }

    fn write_message_secrets<G: traits::GroupId<VERSION>, T: traits::MessageSecrets<VERSION>>(
        &self,
        group: &G,
        secrets: &T,
    ) -> Written {
        self.write(Kind::MessageSecrets, group, secrets)
    }

    fn write_resumption_psk_store<G: traits::GroupId<VERSION>, T: traits::ResumptionPskStore<VERSION>>(
        &self,
        group: &G,
        store: &T,
    ) -> Written {
        self.write(Kind::ResumptionPsks, group, store)
    }

    fn write_own_leaf_index<G: traits::GroupId<VERSION>, T: traits::LeafNodeIndex<VERSION>>(
        &self,
        group: &G,
        index: &T,
    ) -> Written {
        self.write(Kind::OwnLeafIndex, group, index)
    }

    fn write_group_epoch_secrets<G: traits::GroupId<VERSION>, T: traits::GroupEpochSecrets<VERSION>>(
        &self,
        group: &G,
        secrets: &T,
    ) -> Written {
        self.write(Kind::EpochSecrets, group, secrets)
    }

    fn write_signature_key_pair<K: traits::SignaturePublicKey<VERSION>, T: traits::SignatureKeyPair<VERSION>>(
        &self,
        _: &K,
        _: &T,
    ) -> Written {
        Err(RecordsError::Unused)
    }

    fn write_encryption_key_pair<K: traits::EncryptionKey<VERSION>, T: traits::HpkeKeyPair<VERSION>>(
        &self,
        key: &K,
        pair: &T,
    ) -> Written {
        self.write(Kind::EncryptionKeyPair, key, pair)
    }

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<VERSION>,
        E: traits::EpochKey<VERSION>,
        T: traits::HpkeKeyPair<VERSION>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
        pairs: &[T],
    ) -> Written {
        self.write(Kind::EpochKeyPairs, &(group, epoch, leaf), &pairs)
    }

    fn write_key_package<K: traits::HashReference<VERSION>, T: traits::KeyPackage<VERSION>>(
        &self,
        reference: &K,
        package: &T,
    ) -> Written {
        self.write(Kind::KeyPackage, reference, package)
    }

    fn write_psk<K: traits::PskId<VERSION>, T: traits::PskBundle<VERSION>>(&self, _: &K, _: &T) -> Written {
        Err(RecordsError::Unused)
    }

    fn mls_group_join_config<G: traits::GroupId<VERSION>, T: traits::MlsGroupJoinConfig<VERSION>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, RecordsError> {
        let key = key_of(Kind::JoinConfig, group)?;
        let records = self.0.borrow();
        let read = |record: &Zeroizing<Vec<u8>>| minicbor_serde::from_slice(record).map_err(|_| RecordsError::Damaged);
        records.records.get(&key).map(read).transpose()
    }

    fn own_leaf_nodes<G: traits::GroupId<VERSION>, T: traits::LeafNode<VERSION>>(
        &self,
        _: &G,
    ) -> Result<Vec<T>, RecordsError> {
        Ok(Vec::new())
    }

    fn queued_proposal_refs<G: traits::GroupId<VERSION>, R: traits::ProposalRef<VERSION>>(
        &self,
        _: &G,
    ) -> Result<Vec<R>, RecordsError> {
        Ok(Vec::new())
    }

    fn queued_proposals<
        G: traits::GroupId<VERSION>,
        R: traits::ProposalRef<VERSION>,
        T: traits::QueuedProposal<VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Vec<(R, T)>, RecordsError> {
        Ok(Vec::new())
    }

    fn tree<G: traits::GroupId<VERSION>, T: traits::TreeSync<VERSION>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, RecordsError> {
        self.read(Kind::Tree, group)
    }

    fn group_context<G: traits::GroupId<VERSION>, T: traits::GroupContext<VERSION>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, RecordsError> {
        self.read(Kind::Context, group)
    }

    fn interim_transcript_hash<G: traits::GroupId<VERSION>, T: traits::InterimTranscriptHash<VERSION>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, RecordsError> {
        self.read(Kind::InterimTranscriptHash, group)
    }

    fn confirmation_tag<G: traits::GroupId<VERSION>, T: traits::ConfirmationTag<VERSION>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, RecordsError> {
        self.read(Kind::ConfirmationTag, group)
    }

    fn group_state<T: traits::GroupState<VERSION>, G: traits::GroupId<VERSION>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, RecordsError> {
        self.read(Kind::GroupState, group)
    }

    fn message_secrets<G: traits::GroupId<VERSION>, T: traits::MessageSecrets<VERSION>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, RecordsError> {
        self.read(Kind::MessageSecrets, group)
    }

    fn resumption_psk_store<G: traits::GroupId<VERSION>, T: traits::ResumptionPskStore<VERSION>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, RecordsError> {
        self.read(Kind::ResumptionPsks, group)
    }

    fn own_leaf_index<G: traits::GroupId<VERSION>, T: traits::LeafNodeIndex<VERSION>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, RecordsError> {
        self.read(Kind::OwnLeafIndex, group)
    }

    fn group_epoch_secrets<G: traits::GroupId<VERSION>, T: traits::GroupEpochSecrets<VERSION>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, RecordsError> {
        self.read(Kind::EpochSecrets, group)
    }

    fn signature_key_pair<K: traits::SignaturePublicKey<VERSION>, T: traits::SignatureKeyPair<VERSION>>(
        &self,
        _: &K,
    ) -> Result<Option<T>, RecordsError> {
        Ok(None)
    }

    fn encryption_key_pair<T: traits::HpkeKeyPair<VERSION>, K: traits::EncryptionKey<VERSION>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, RecordsError> {
        self.read(Kind::EncryptionKeyPair, key)
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<VERSION>,
        E: traits::EpochKey<VERSION>,
        T: traits::HpkeKeyPair<VERSION>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
    ) -> Result<Vec<T>, RecordsError> {
        Ok(self.read(Kind::EpochKeyPairs, &(group, epoch, leaf))?.unwrap_or_default())
    }

    fn key_package<K: traits::HashReference<VERSION>, T: traits::KeyPackage<VERSION>>(
        &self,
        reference: &K,
    ) -> Result<Option<T>, RecordsError> {
        self.read(Kind::KeyPackage, reference)
    }

    fn psk<T: traits::PskBundle<VERSION>, K: traits::PskId<VERSION>>(&self, _: &K) -> Result<Option<T>, RecordsError> {
        Ok(None)
    }

    fn remove_proposal<G: traits::GroupId<VERSION>, R: traits::ProposalRef<VERSION>>(&self, _: &G, _: &R) -> Written {
        Ok(())
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<VERSION>>(&self, _: &G) -> Written {
        Ok(())
    }

    fn delete_group_config<G: traits::GroupId<VERSION>>(&self, group: &G) -> Written {
        self.delete(Kind::JoinConfig, group)
    }

    fn delete_tree<G: traits::GroupId<VERSION>>(&self, group: &G) -> Written {
        self.delete(Kind::Tree, group)
    }

    fn delete_confirmation_tag<G: traits::GroupId<VERSION>>(&self, group: &G) -> Written {
        self.delete(Kind::ConfirmationTag, group)
    }

    fn delete_group_state<G: traits::GroupId<VERSION>>(&self, group: &G) -> Written {
        self.delete(Kind::GroupState, group)
    }

    fn delete_context<G: traits::GroupId<VERSION>>(&self, group: &G) -> Written {
        self.delete(Kind::Context, group)
    }

    fn delete_interim_transcript_hash<G: traits::GroupId<VERSION>>(&self, group: &G) -> Written {
        self.delete(Kind::InterimTranscriptHash, group)
    }

    fn delete_message_secrets<G: traits::GroupId<VERSION>>(&self, group: &G) -> Written {
        self.delete(Kind::MessageSecrets, group)
    }

    fn delete_all_resumption_psk_secrets<G: traits::GroupId<VERSION>>(&self, group: &G) -> Written {
        self.delete(Kind::ResumptionPsks, group)
    }

    fn delete_own_leaf_index<G: traits::GroupId<VERSION>>(&self, group: &G) -> Written {
        self.delete(Kind::OwnLeafIndex, group)
    }

    fn delete_group_epoch_secrets<G: traits::GroupId<VERSION>>(&self, group: &G) -> Written {
        self.delete(Kind::EpochSecrets, group)
    }

    fn clear_proposal_queue<G: traits::GroupId<VERSION>, R: traits::ProposalRef<VERSION>>(&self, _: &G) -> Written {
        Ok(())
    }

    fn delete_signature_key_pair<K: traits::SignaturePublicKey<VERSION>>(&self, _: &K) -> Written {
        Ok(())
    }

    fn delete_encryption_key_pair<K: traits::EncryptionKey<VERSION>>(&self, key: &K) -> Written {
        self.delete(Kind::EncryptionKeyPair, key)
    }

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<VERSION>, E: traits::EpochKey<VERSION>>(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
    ) -> Written {
        self.delete(Kind::EpochKeyPairs, &(group, epoch, leaf))
    }

    fn delete_key_package<K: traits::HashReference<VERSION>>(&self, reference: &K) -> Written {
        self.delete(Kind::KeyPackage, reference)
    }

    fn delete_psk<K: traits::PskId<VERSION>>(&self, _: &K) -> Written {
        Ok(())
    }
}
