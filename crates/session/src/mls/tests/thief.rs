//! Whoever holds all that a device has on its disk, its own keys too, and everything that went over the wire: what it can
//! open. It asks OpenMLS itself, past the façade, which would refuse a message for reasons that bind no thief.

use openmls::prelude::tls_codec::{DeserializeBytes, SecretVLBytes};
use openmls::prelude::{
    ContentType, GroupEpoch, GroupId, LeafNodeIndex, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn,
    PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProcessedMessageContent, ProtocolMessage, StagedWelcome,
};
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::storage::{CURRENT_VERSION, Entity, StorageProvider, traits};
use openmls_traits::types::{
    AeadType, CryptoError, ExporterSecret, HashType, HpkeAeadType, HpkeCiphertext, HpkeConfig, HpkeKemType,
    HpkeKeyPair, KemOutput,
};

use super::half_keys::open_with_halves;
use super::*;

/// What a device has on its disk: pages of records, by their keys.
pub(super) type Dump = BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>>;

/// All that the relay passed on, each kind in the order in which it was sent.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) commits: Vec<(EnvelopeId, Vec<u8>)>,
    pub(super) welcomes: Vec<Vec<u8>>,
}

/// A key pair of a node of the tree, as OpenMLS keeps it.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct NodeKeys {
    pub(super) public: Vec<u8>,
    pub(super) private: Vec<u8>,
}

impl Entity<CURRENT_VERSION> for NodeKeys {}
impl traits::HpkeKeyPair<CURRENT_VERSION> for NodeKeys {}

/// Writes down in a dump what changed in records.
pub(super) fn persist(records: &mut Records, dump: &mut Dump) {
    for (key, page) in records.take_changes() {
        match page {
            Some(page) => drop(dump.insert(key, page)),
            None => drop(dump.remove(&key)),
        }
    }
}

/// What is known of a private key, given all of it: itself, or both or one of its halves.
pub(super) type Known = fn(&[u8]) -> Vec<u8>;

pub(super) struct Thief<'a> {
    /// Whose disk it took.
    pub(super) device: &'a DeviceSecrets,
    pub(super) group: Vec<u8>,
    pub(super) traffic: &'a Traffic,
}

impl Thief<'_> {
    /// Which messages a dump opens, by their numbers: those of its epoch, those of each epoch that commits lead to from
    /// there, and the same from where a commit leads that waits in it, and from where Welcomes lead that it opens.
    pub(super) fn opened(&self, dump: &Dump) -> BTreeSet<usize> {
        let mut opened = self.opened_by_welcomes(dump, <[u8]>::to_vec);
        let starts = [dump.clone()].into_iter().chain(self.merged(dump));
        opened.extend(starts.flat_map(|start| self.opened_from(start)));
        opened
    }

    /// Those that open from where Welcomes lead, with what is known of the keys of the key packages in a dump.
    pub(super) fn opened_by_welcomes(&self, dump: &Dump, known: Known) -> BTreeSet<usize> {
        let joined = self.traffic.welcomes.iter().filter_map(|welcome| self.joined(dump, welcome, known));
        joined.flat_map(|start| self.opened_from(start)).collect()
    }

    fn opened_from(&self, mut dump: Dump) -> BTreeSet<usize> {
        let mut opened = BTreeSet::new();
        loop {
            let messages = self.traffic.messages.iter().enumerate();
            opened.extend(messages.filter(|(_, body)| self.opens(&dump, body)).map(|(number, _)| number));
            match self.traffic.commits.iter().find_map(|(envelope, body)| self.after(&dump, *envelope, body)) {
                Some(next) => dump = next,
                None => return opened,
            }
        }
    }

    /// The same in the place of another member: with the secrets that all members share, a member's private keys are as
    /// good as its disk.
    pub(super) fn opened_as(&self, dump: &Dump, member: &Member, keys: &[NodeKeys]) -> BTreeSet<usize> {
        let mut records = Records::load(dump.clone()).unwrap();
        let Some(epoch) = Group::load(&mut records, &self.group).unwrap().map(|group| group.epoch()) else {
            return BTreeSet::new();
        };
        let storage = Storage((&mut records).into());
        let group = GroupId::from_slice(&self.group);
        storage.write_own_leaf_index(&group, &LeafNodeIndex::new(member.leaf)).unwrap();
        storage.write_encryption_epoch_key_pairs(&group, &GroupEpoch::from(epoch), member.leaf, keys).unwrap();
        let mut dump = dump.clone();
        persist(&mut records, &mut dump);
        self.opened_from(dump)
    }

    fn opens(&self, dump: &Dump, body: &[u8]) -> bool {
        let mut records = Records::load(dump.clone()).unwrap();
        let Ok(Some(mut group)) = Group::load(&mut records, &self.group) else { return false };
        let message = MlsMessageIn::tls_deserialize_exact_bytes(body).unwrap();
        let MlsMessageBodyIn::PrivateMessage(message) = message.extract() else { panic!("not a message") };
        let processed = group.mls.process_message(&Tools::new(&mut records), ProtocolMessage::from(message));
        processed.is_ok_and(|message| matches!(message.content(), ProcessedMessageContent::ApplicationMessage(_)))
    }

    /// The disk of whoever has applied a commit.
    fn after(&self, dump: &Dump, envelope: EnvelopeId, body: &[u8]) -> Option<Dump> {
        let mut records = Records::load(dump.clone()).unwrap();
        let mut group = Group::load(&mut records, &self.group).unwrap()?;
        let mut rng = ChaCha20Rng::seed_from_u64(0);
        let seal = group.commit_seal(&mut Desk { secrets: self.device, records: &mut records, rng: &mut rng }).ok()?;
        let body = seal.open(group.data.conversation, envelope, body)?;
        let message = MlsMessageIn::tls_deserialize_exact_bytes(&body.commit).unwrap();
        let MlsMessageBodyIn::PublicMessage(message) = message.extract() else { panic!("not a commit") };
        let message = ProtocolMessage::from(message);
        assert_eq!(message.content_type(), ContentType::Commit);
        let tools = Tools::new(&mut records);
        let processed = group.mls.process_message(&tools, message).ok()?;
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else { return None };
        group.mls.merge_staged_commit(&tools, *staged).ok()?;
        drop(tools);
        let mut after = dump.clone();
        persist(&mut records, &mut after);
        Some(after)
    }

    /// The disk of whoever has merged the commit that waits there.
    fn merged(&self, dump: &Dump) -> Option<Dump> {
        let mut records = Records::load(dump.clone()).unwrap();
        let mut group = Group::load(&mut records, &self.group).unwrap()?;
        group.mls.pending_commit()?;
        group.mls.merge_pending_commit(&Tools::new(&mut records)).ok()?;
        let mut merged = dump.clone();
        persist(&mut records, &mut merged);
        Some(merged)
    }

    /// The disk of whoever has joined by a Welcome, if a key package in the dump opens it.
    fn joined(&self, dump: &Dump, welcome: &[u8], known: Known) -> Option<Dump> {
        let mut records = Records::load(dump.clone()).unwrap();
        if let Ok(Some(group)) = Group::load(&mut records, &self.group) {
            group.delete(&mut records);
        }
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .build();
        let message = MlsMessageIn::tls_deserialize_exact_bytes(welcome).unwrap();
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { panic!("not a Welcome") };
        let tools = Tools { crypto: Halves { known, ..Halves::new() }, storage: Storage((&mut records).into()) };
        let staged = StagedWelcome::new_from_welcome(&tools, &config, welcome, None).ok()?;
        staged.into_group(&tools).ok()?;
        drop(tools);
        let mut joined = dump.clone();
        persist(&mut records, &mut joined);
        Some(joined)
    }
}

/// All key pairs that a device has for the nodes of its group's tree.
pub(super) fn node_keys(dump: &Dump, group: &[u8], member: &Member) -> Vec<NodeKeys> {
    let mut records = Records::load(dump.clone()).unwrap();
    let Ok(Some(loaded)) = Group::load(&mut records, group) else { return Vec::new() };
    let epoch = GroupEpoch::from(loaded.epoch());
    let storage = Storage((&mut records).into());
    storage.encryption_epoch_key_pairs(&GroupId::from_slice(group), &epoch, member.leaf).unwrap()
}

/// What the thief computes with: as everybody, but that a private key of a hybrid pair may also be its two halves.
struct Tools<'a> {
    crypto: Halves,
    storage: Storage<'a>,
}

impl<'a> Tools<'a> {
    fn new(records: &'a mut Records) -> Tools<'a> {
        Tools { crypto: Halves::new(), storage: Storage(records.into()) }
    }
}

impl<'a> OpenMlsProvider for Tools<'a> {
    type CryptoProvider = Halves;
    type RandProvider = Crypto;
    type StorageProvider = Storage<'a>;

    fn storage(&self) -> &Storage<'a> {
        &self.storage
    }

    fn crypto(&self) -> &Halves {
        &self.crypto
    }

    fn rand(&self) -> &Crypto {
        &self.crypto.crypto
    }
}

struct Halves {
    crypto: Crypto,
    /// What it knows of the keys that it opens with.
    known: Known,
}

impl Halves {
    fn new() -> Halves {
        Halves { crypto: Crypto::new(&mut ChaCha20Rng::seed_from_u64(0)), known: <[u8]>::to_vec }
    }
}

impl OpenMlsCrypto for Halves {
    fn hpke_open(
        &self,
        config: HpkeConfig,
        sealed: &HpkeCiphertext,
        key: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let key = &(self.known)(key)[..];
        if matches!((&config.0, &config.2), (HpkeKemType::XWingKemDraft6, HpkeAeadType::AesGcm256)) && key.len() != 32 {
            let opened = open_with_halves(sealed.kem_output.as_slice(), sealed.ciphertext.as_slice(), key, info, aad);
            return opened.ok_or(CryptoError::HpkeDecryptionError);
        }
        self.crypto.hpke_open(config, sealed, key, info, aad)
    }

    fn supports(&self, suite: Ciphersuite) -> Result<(), CryptoError> {
        self.crypto.supports(suite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        self.crypto.supported_ciphersuites()
    }

    fn hkdf_extract(&self, hash: HashType, salt: &[u8], ikm: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        self.crypto.hkdf_extract(hash, salt, ikm)
    }

    fn hmac(&self, hash: HashType, key: &[u8], message: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        self.crypto.hmac(hash, key, message)
    }

    fn hkdf_expand(
        &self,
        hash: HashType,
        prk: &[u8],
        info: &[u8],
        length: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        self.crypto.hkdf_expand(hash, prk, info, length)
    }

    fn hash(&self, hash: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.crypto.hash(hash, data)
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        text: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.crypto.aead_encrypt(alg, key, text, nonce, aad)
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        text: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.crypto.aead_decrypt(alg, key, text, nonce, aad)
    }

    fn signature_key_gen(&self, scheme: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        self.crypto.signature_key_gen(scheme)
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        data: &[u8],
        key: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.crypto.verify_signature(scheme, data, key, signature)
    }

    fn sign(&self, scheme: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.crypto.sign(scheme, data, key)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        key: &[u8],
        info: &[u8],
        aad: &[u8],
        text: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        self.crypto.hpke_seal(config, key, info, aad, text)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        key: &[u8],
        info: &[u8],
        context: &[u8],
        length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        self.crypto.hpke_setup_sender_and_export(config, key, info, context, length)
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        encapsulated: &[u8],
        key: &[u8],
        info: &[u8],
        context: &[u8],
        length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        self.crypto.hpke_setup_receiver_and_export(config, encapsulated, key, info, context, length)
    }

    fn derive_hpke_keypair(&self, config: HpkeConfig, ikm: &[u8]) -> Result<HpkeKeyPair, CryptoError> {
        self.crypto.derive_hpke_keypair(config, ikm)
    }
}
