//! A member of our conversations that shares no code with ours: MLS is mls-rs, and what stands around it is written after
//! spec/conversations.md and spec/encodings.md. The classical suite, since mls-rs has no hybrid one.
//!
//! It is there to be in groups with ours (tests/histories.rs), and judges nothing: what a commit's author may do, and which
//! account logs vouch for a leaf, it takes as it comes. It does check what it needs no account logs for: seals, the
//! roster's hash, the group's context, padding.
#![forbid(unsafe_code)]

mod format;

use std::collections::BTreeSet;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use ed25519_dalek::SigningKey;
use mls_rs::client_builder::{BaseConfig, PaddingMode, WithCryptoProvider, WithIdentityProvider, WithMlsRules};
use mls_rs::error::MlsError;
use mls_rs::extension::built_in::RequiredCapabilitiesExt;
use mls_rs::group::{CommitEffect, ReceivedMessage};
use mls_rs::identity::SigningIdentity;
use mls_rs::identity::basic::{BasicCredential, BasicIdentityProvider};
use mls_rs::mls_rules::{DefaultMlsRules, EncryptionOptions};
use mls_rs::time::MlsTime;
use mls_rs::{CipherSuite, Client, Extension, ExtensionList, Group, MlsMessage};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use rand_core::CryptoRng;

pub use format::{GroupData, Log, Malformed};
use format::{
    account_of, commit_associated, decode_commit_body, decode_commit_data, decode_credential, decode_inbox,
    decode_logs, decode_message_data, device_id, encode_commit_body, encode_commit_data, encode_credential,
    encode_leaf_data, encode_message_data, pad, read_key_package, roster_hash, unpad,
};

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;
/// Of the extension in leaves, in the group's context and in a Welcome's GroupInfo.
const EXTENSION: u16 = 0xf5ea;
const LAST_RESORT: u16 = 10;
/// When the one lifetime of all leaves begins. It never ends.
const BEGINNING: u64 = 0;

type Crypto = WithCryptoProvider<RustCryptoProvider, BaseConfig>;
type Config = WithMlsRules<DefaultMlsRules, WithIdentityProvider<BasicIdentityProvider, Crypto>>;

/// Why something was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// By mls-rs.
    #[error(transparent)]
    Mls(#[from] MlsError),
    /// By the formats of the specification.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is not what it has to be.
    #[error("not as the specification says: {0}")]
    Wrong(&'static str),
}

/// A device of the other kind.
pub struct Device {
    client: Client<Config>,
    inbox: [u8; 16],
}

/// Where a member stands in the conversation's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The newest entry that it has read.
    pub position: u64,
    /// The chain there.
    pub chain: [u8; 32],
}

/// A leaf of a group.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Leaf {
    /// Its number.
    pub index: u32,
    /// Whose it is.
    pub account: [u8; 32],
    /// Which device.
    pub device: [u8; 32],
    /// Where it reads Welcomes.
    pub inbox: [u8; 16],
}

/// A conversation that this device is in.
pub struct Conversation {
    group: Group<Config>,
    /// While its own commit waits: the leaves that there will be.
    waiting: Option<Vec<[u8; 16]>>,
}

/// What a commit is to change. Nothing: its author's keys.
#[derive(Default)]
pub struct Changes {
    /// Key packages, as they are published.
    pub add: Vec<Vec<u8>>,
    /// Leaves.
    pub remove: Vec<u32>,
    /// The context's data.
    pub data: Option<GroupData>,
    /// Where the author's leaf says that it reads Welcomes: nobody may change that.
    pub inbox: Option<[u8; 16]>,
}

/// A commit that waits.
pub struct Committed {
    /// The body of its entry.
    pub body: Vec<u8>,
    /// A Welcome for those whom it adds.
    pub welcome: Option<Vec<u8>>,
}

/// A message that was opened.
#[derive(PartialEq, Eq, Debug)]
pub struct Opened {
    /// Whose it is.
    pub author: Leaf,
    /// Where its author stood.
    pub place: Place,
    /// What it says.
    pub plaintext: Vec<u8>,
}

/// A commit that was read.
#[derive(PartialEq, Eq, Debug)]
pub struct Read {
    /// The leaf of its author.
    pub author: u32,
    /// Where its author stood.
    pub place: Place,
    /// Whether this device is no member any more.
    pub removes_self: bool,
}

impl Device {
    /// A device with that Ed25519 key, of that account.
    pub fn new(ed25519: [u8; 32], account: [u8; 32], inbox: [u8; 16]) -> Device {
        let key = SigningKey::from_bytes(&ed25519);
        let public = key.verifying_key().to_bytes();
        let identity = BasicCredential::new(encode_credential(account, device_id(&public)));
        let identity = SigningIdentity::new(identity.into_credential(), public.to_vec().into());
        let rules = DefaultMlsRules::new().with_encryption_options(EncryptionOptions::new(false, PaddingMode::None));
        let client = Client::builder()
            .crypto_provider(RustCryptoProvider::with_enabled_cipher_suites(vec![SUITE]))
            .identity_provider(BasicIdentityProvider::new())
            .mls_rules(rules)
            .extension_types([EXTENSION.into(), LAST_RESORT.into()])
            .key_package_lifetime(std::time::Duration::from_secs(u64::MAX))
            .signing_identity(identity, key.to_keypair_bytes().to_vec().into(), SUITE)
            .build();
        Device { client, inbox }
    }

    /// A key package, as it is published.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn key_package(&self) -> Result<Vec<u8>, Refused> {
        let (none, leaf) = (ExtensionList::new(), leaf_extensions(self.inbox));
        let message = self.client.generate_key_package_message(none, leaf, Some(MlsTime::from(BEGINNING)))?;
        let bytes = message.to_bytes()?;
        bytes.strip_prefix(&KEY_PACKAGE_MESSAGE).map(<[u8]>::to_vec).ok_or(Refused::Wrong("not a key package"))
    }

    /// Begins a group.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn begin(&self, id: [u8; 16], data: &GroupData) -> Result<Conversation, Refused> {
        let (context, leaf) = (context_extensions(data)?, leaf_extensions(self.inbox));
        let group = self.client.create_group_with_id(id.to_vec(), context, leaf, Some(MlsTime::from(BEGINNING)))?;
        Ok(Conversation { group, waiting: None })
    }

    /// Joins a conversation by a Welcome.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn join(&self, conversation: [u8; 32], welcome: &[u8]) -> Result<Conversation, Refused> {
        let welcome = MlsMessage::from_bytes(welcome)?;
        let (group, told) = self.client.join_group(None, &welcome, None)?;
        let joined = Conversation { group, waiting: None };
        let evidence = told.group_info_extensions.get(EXTENSION.into()).ok_or(Refused::Wrong("no evidence"))?;
        let evidence = decode_logs(&evidence.extension_data)?;
        let told: BTreeSet<_> = evidence.iter().map(account_of).collect();
        // The log of whoever the same commit removes may be there, too.
        if !joined.leaves()?.iter().all(|leaf| told.contains(&leaf.account)) {
            return Err(Refused::Wrong("not a log of each account"));
        }
        if joined.data()?.conversation == conversation { Ok(joined) } else { Err(Refused::Wrong("of another")) }
    }
}

impl Conversation {
    /// The epoch that is in force.
    pub fn epoch(&self) -> u64 {
        self.group.current_epoch()
    }

    /// The same for all members of an epoch.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn epoch_authenticator(&self) -> Result<Vec<u8>, Refused> {
        Ok(self.group.epoch_authenticator()?.as_bytes().to_vec())
    }

    /// What the context carries, if all of it is as it has to be.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn data(&self) -> Result<GroupData, Refused> {
        let extensions = &self.group.context().extensions;
        let data = extensions.get(EXTENSION.into()).ok_or(Refused::Wrong("no data"))?;
        let data = GroupData::decode(&data.extension_data)?;
        let expected = context_extensions(&data)?;
        if extensions.len() == expected.len() && expected.iter().all(|extension| extensions.contains(extension)) {
            Ok(data)
        } else {
            Err(Refused::Wrong("the context holds something else"))
        }
    }

    /// All leaves.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn leaves(&self) -> Result<Vec<Leaf>, Refused> {
        self.group.roster().members_iter().map(|member| leaf(&member)).collect()
    }

    /// Seals a message.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn seal(&mut self, place: Place, plaintext: &[u8]) -> Result<Vec<u8>, Refused> {
        let message = self.group.encrypt_application_message(&pad(plaintext), encode_message_data(place))?;
        Ok(message.to_bytes()?)
    }

    /// Opens a message of another member.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn open(&mut self, body: &[u8]) -> Result<Opened, Refused> {
        match self.group.process_incoming_message(MlsMessage::from_bytes(body)?)? {
            ReceivedMessage::ApplicationMessage(message) => {
                let author = leaf(&self.group.roster().member_with_index(message.sender_index)?)?;
                let place = decode_message_data(&message.authenticated_data)?;
                Ok(Opened { author, place, plaintext: unpad(message.data())? })
            }
            _ => Err(Refused::Wrong("not a message")),
        }
    }

    /// Makes a commit, which waits. `evidence`: the logs of all members and of those that are added, by account.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn commit(
        &mut self,
        rng: &mut dyn CryptoRng,
        place: Place,
        envelope: [u8; 16],
        changes: Changes,
        evidence: &[([u8; 32], Log)],
    ) -> Result<Committed, Refused> {
        let (cipher, conversation) = (self.commit_cipher()?, self.data()?.conversation);
        let (gone, mut leaves): (Vec<_>, Vec<_>) =
            self.leaves()?.into_iter().partition(|leaf| changes.remove.contains(&leaf.index));
        let mut touched: BTreeSet<_> = gone.into_iter().map(|leaf| leaf.account).collect();
        for package in &changes.add {
            let added = read_key_package(package)?;
            touched.insert(added.account);
            leaves.push(added);
        }
        if let Some(inbox) = changes.inbox {
            let own = self.group.current_member_index();
            leaves.iter_mut().filter(|leaf| leaf.index == own).for_each(|leaf| leaf.inbox = inbox);
        }
        let roster = sorted_inboxes(&leaves);
        let data = encode_commit_data(place, roster_hash(&roster));
        let log = |account: &[u8; 32]| evidence.iter().find(|(whose, _)| whose == account).map(|(_, log)| log.clone());
        let logs_of = |accounts: BTreeSet<[u8; 32]>| {
            accounts.iter().map(log).collect::<Option<Vec<_>>>().ok_or(Refused::Wrong("a log is missing"))
        };
        let judged_by = logs_of(touched)?;
        let adds = !changes.add.is_empty();

        let mut builder = self.group.commit_builder().authenticated_data(data);
        for package in changes.add {
            builder = builder.add_member(MlsMessage::from_bytes(&[&KEY_PACKAGE_MESSAGE[..], &package].concat())?)?;
        }
        for index in changes.remove {
            builder = builder.remove_member(index)?;
        }
        if let Some(inbox) = changes.inbox {
            builder = builder.set_leaf_node_extensions(leaf_extensions(inbox));
        }
        if let Some(data) = &changes.data {
            builder = builder.set_group_context_ext(context_extensions(data)?)?;
        }
        if adds {
            let told = encode_commit_body(&[], &logs_of(leaves.iter().map(|leaf| leaf.account).collect())?);
            let mut extensions = ExtensionList::new();
            extensions.set(Extension::new(EXTENSION.into(), told));
            builder = builder.set_group_info_ext(extensions);
        }
        let made = builder.build()?;
        self.waiting = Some(roster);
        let body = encode_commit_body(&made.commit_message().to_bytes()?, &judged_by);
        let welcome = made.welcome_messages().first().map(MlsMessage::to_bytes).transpose()?;
        let mut iv = [0; 12];
        rng.fill_bytes(&mut iv);
        let aad = commit_associated(conversation, envelope);
        let sealed = cipher.encrypt(&Nonce::from(iv), Payload { msg: &body, aad: &aad });
        let sealed = sealed.map_err(|_| Refused::Wrong("too long to seal"))?;
        Ok(Committed { body: [&iv[..], &sealed].concat(), welcome })
    }

    /// Merges the commit that waits: its position was read.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn merge_own(&mut self) -> Result<(), Refused> {
        self.group.apply_pending_commit()?;
        let expected = self.waiting.take();
        if expected == Some(sorted_inboxes(&self.leaves()?)) { Ok(()) } else { Err(Refused::Wrong("another roster")) }
    }

    /// Drops the commit that waits.
    pub fn drop_own(&mut self) {
        self.group.clear_pending_commit();
        self.waiting = None;
    }

    /// Reads a commit of another member, which is in force from then on.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn read(&mut self, envelope: [u8; 16], body: &[u8]) -> Result<Read, Refused> {
        let (cipher, conversation) = (self.commit_cipher()?, self.data()?.conversation);
        let (iv, sealed) = body.split_first_chunk::<12>().ok_or(Refused::Wrong("no IV"))?;
        let aad = commit_associated(conversation, envelope);
        let body = cipher.decrypt(&Nonce::from(*iv), Payload { msg: sealed, aad: &aad });
        let body = body.map_err(|_| Refused::Wrong("not sealed under this epoch's key"))?;
        let (commit, evidence) = decode_commit_body(&body)?;
        let before = self.leaves()?;
        let ReceivedMessage::Commit(read) = self.group.process_incoming_message(MlsMessage::from_bytes(&commit)?)?
        else {
            return Err(Refused::Wrong("not a commit"));
        };
        let (place, roster) = decode_commit_data(&read.authenticated_data)?;
        let removes_self = match read.effect {
            CommitEffect::NewEpoch(_) => false,
            CommitEffect::Removed { .. } => true,
            CommitEffect::ReInit(_) => return Err(Refused::Wrong("not used in conversations")),
        };
        // Whoever is removed does not see the tree that it is removed from.
        if !removes_self {
            let after = self.leaves()?;
            self.data()?;
            if roster_hash(&sorted_inboxes(&after)) != roster {
                return Err(Refused::Wrong("another roster"));
            }
            let changed = before.iter().filter(|leaf| !after.contains(leaf));
            let changed = changed.chain(after.iter().filter(|leaf| !before.contains(leaf)));
            let accounts: BTreeSet<_> = changed.map(|leaf| leaf.account).collect();
            if evidence.len() != accounts.len() || !evidence.iter().all(|log| accounts.contains(&account_of(log))) {
                return Err(Refused::Wrong("not the log of each account that comes or goes"));
            }
        }
        Ok(Read { author: read.committer, place, removes_self })
    }

    fn commit_cipher(&self) -> Result<Aes256Gcm, Refused> {
        let key = self.group.export_secret(b"sealwire/v1/commit-key", b"", 32)?;
        Aes256Gcm::new_from_slice(key.as_bytes()).map_err(|_| Refused::Wrong("a key of another length"))
    }
}

/// In front of a key package, where it is an MLSMessage: version and wire format.
const KEY_PACKAGE_MESSAGE: [u8; 4] = [0, 1, 0, 5];

fn context_extensions(data: &GroupData) -> Result<ExtensionList, Refused> {
    let required =
        RequiredCapabilitiesExt::new(vec![EXTENSION.into()], vec![], vec![BasicCredential::credential_type()]);
    let mut extensions = ExtensionList::new();
    extensions.set_from(required).map_err(MlsError::from)?;
    extensions.set(Extension::new(EXTENSION.into(), data.encode()));
    Ok(extensions)
}

fn leaf_extensions(inbox: [u8; 16]) -> ExtensionList {
    let mut extensions = ExtensionList::new();
    extensions.set(Extension::new(EXTENSION.into(), encode_leaf_data(inbox)));
    extensions
}

fn leaf(member: &mls_rs::group::Member) -> Result<Leaf, Refused> {
    let identity = &member.signing_identity;
    let credential = identity.credential.as_basic().ok_or(Refused::Wrong("another credential"))?;
    let (account, device) = decode_credential(&credential.identifier)?;
    let data = member.extensions.get(EXTENSION.into()).ok_or(Refused::Wrong("no inbox"))?;
    if device_id(&identity.signature_key) != device || member.extensions.len() != 1 {
        return Err(Refused::Wrong("no leaf of a device"));
    }
    Ok(Leaf { index: member.index, account, device, inbox: decode_inbox(&data.extension_data)? })
}

fn sorted_inboxes(leaves: &[Leaf]) -> Vec<[u8; 16]> {
    let mut inboxes: Vec<_> = leaves.iter().map(|leaf| leaf.inbox).collect();
    inboxes.sort_unstable();
    inboxes
}
