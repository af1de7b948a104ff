//! One MLS group: beginning it, joining it, sealing and opening messages, making commits and merging them.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use openmls::prelude::tls_codec::DeserializeBytes;
use openmls::prelude::{
    ContentType, Extensions, GroupContext, GroupId, LeafNodeIndex, MlsGroup, MlsGroupJoinConfig, MlsMessageBodyIn,
    MlsMessageIn, MlsMessageOut, PURE_PLAINTEXT_WIRE_FORMAT_POLICY, PastEpochDeletionPolicy, ProcessedMessageContent,
    ProtocolMessage, Sender, SenderRatchetConfiguration, StagedWelcome,
};
use openmls_traits::OpenMlsProvider;
use sealwire_keys::roster_hash;
use sealwire_wire::conversation::{CommitBody, CommitData, GroupData, MessageData};
use sealwire_wire::label::Label;
use sealwire_wire::limits::ROSTER_MAX;
use sealwire_wire::padding::{self, PaddingError};
use sealwire_wire::{AccountId, Chain, ConversationId, EnvelopeId, InboxAddress, Position};
use zeroize::Zeroizing;

use super::judge::check_context;
use super::leaf::{EXTENSION, capabilities, credential, leaf_extensions, lifetime, own_extension, required};
use super::{Desk, Evidence, Member, ReceivedKeyPackage, Records, RecordsError, Storage, Suite};
use crate::primitives::{Cipher, TAG};

/// How far a sender's ratchet may be ahead of what came: messages of one sender come in order, but for those that nobody
/// got (L2).
const FORWARD_DISTANCE_MAX: u32 = 2_000;
/// Of the initialisation vector of a sealed commit.
const IV: usize = 12;

/// A conversation's group, as this device has it.
pub struct Group {
    pub(crate) mls: MlsGroup,
    pub(crate) data: GroupData,
    /// The members of this epoch, once somebody has asked: reading a leaf hashes its key.
    pub(crate) members: OnceLock<Vec<Member>>,
}

/// Where a member stands in its conversation's log; authenticated with all that it sends (L5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The newest entry that it has read.
    pub position: Position,
    /// The chain there.
    pub chain: Chain,
}

/// What a commit is to change.
#[derive(Default)]
pub struct Changes {
    /// Devices to add.
    pub add: Vec<ReceivedKeyPackage>,
    /// Leaves to remove.
    pub remove: Vec<u32>,
    /// Requests to be added again that it answers: bodies of their entries (C10).
    pub readds: Vec<Vec<u8>>,
    /// The group's new data.
    pub data: Option<GroupData>,
    /// Whether the own keys are replaced too. A removal replaces them in any case.
    pub update: bool,
}

/// A commit that was made and waits for its position.
pub struct Committed {
    /// The body of its entry.
    pub body: Vec<u8>,
    /// An MLS Welcome for those that it adds.
    pub welcome: Option<Vec<u8>>,
    /// The inboxes of the members after it, sorted.
    pub roster: Vec<InboxAddress>,
}

/// A message that was opened.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// Who sealed it.
    pub author: Member,
    /// Where its author stood.
    pub place: Place,
    /// What it says, without padding.
    pub plaintext: Zeroizing<Vec<u8>>,
}

/// A group that was joined.
pub struct Joined {
    /// The group.
    pub group: Group,
    /// Who added this device.
    pub inviter: Member,
    /// The account logs of all members.
    pub evidence: Evidence,
}

/// Why a message was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// With its padding larger than a message.
    #[error(transparent)]
    TooLarge(#[from] PaddingError),
    /// This device is no member any more, or its records are damaged.
    #[error("this device cannot seal for that conversation")]
    NoMember,
}

/// Why a message was not opened. Nothing else changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenedError {
    /// Not a message of this group.
    #[error("not a message of this conversation")]
    Malformed,
    /// Of this device itself, which cannot open what it seals.
    #[error("sealed by this device")]
    Own,
    /// Sealed in another epoch than the one that is in force.
    #[error("sealed in another epoch")]
    OtherEpoch,
    /// Its tag or signature does not verify, or it was opened before.
    #[error("the message does not verify")]
    Rejected,
}

/// Why a commit could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// More members than a roster holds.
    #[error("a conversation has at most {ROSTER_MAX} devices")]
    TooManyMembers,
    /// A device is a member already, or no account log vouches for it.
    #[error("a device cannot be added")]
    Unsuitable,
    /// A commit waits already, or this device is no member any more.
    #[error("no commit can be made now")]
    NotNow,
}

/// Why a Welcome was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Not a Welcome to a key package of this device, or one that was used already.
    #[error("not a Welcome to this device")]
    NotForUs,
    /// What it leads to is no conversation of ours: another suite, malformed data, or a leaf that no account log vouches
    /// for.
    #[error("the group is not one of ours")]
    Invalid,
}

impl Group {
    /// Begins a group with this device as its only member.
    ///
    /// # Errors
    /// [`RecordsError`].
    pub fn create(
        desk: &mut Desk<'_>,
        suite: Suite,
        data: GroupData,
        account: AccountId,
        inbox: InboxAddress,
    ) -> Result<Group, RecordsError> {
        let mut id = [0; 16];
        desk.rng.fill_bytes(&mut id);
        let credential = credential(desk.secrets, account);
        let (provider, signer) = desk.split();
        let context = context_extensions(&data).map_err(|_| RecordsError::Damaged)?;
        let mls = MlsGroup::builder()
            .with_group_id(GroupId::from_slice(&id))
            .ciphersuite(suite.ciphersuite())
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .set_past_epoch_deletion_policy(PastEpochDeletionPolicy::MaxEpochs(0))
            .number_of_resumption_psks(0)
            .use_ratchet_tree_extension(true)
            .sender_ratchet_configuration(ratchets())
            .lifetime(lifetime())
            .with_capabilities(capabilities(suite, provider.rand()))
            .with_group_context_extensions(context)
            .with_leaf_node_extensions(leaf_extensions(inbox))
            .map_err(|_| RecordsError::Damaged)?
            .build(&provider, &signer, credential)
            .map_err(|_| RecordsError::Damaged)?;
        Ok(Group { mls, data, members: OnceLock::new() })
    }

    /// Joins by a Welcome. The key package is used up, whether it is refused or not, unless it is the last-resort one.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn join(
        desk: &mut Desk<'_>,
        suite: Suite,
        conversation: ConversationId,
        welcome: &[u8],
    ) -> Result<Joined, JoinError> {
        let own = desk.secrets.device_id();
        let provider = desk.provider();
        let message = MlsMessageIn::tls_deserialize_exact_bytes(welcome).map_err(|_| JoinError::NotForUs)?;
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { return Err(JoinError::NotForUs) };
        let builder = StagedWelcome::build_from_welcome(&provider, &join_config(), welcome)
            .map_err(|_| JoinError::NotForUs)?
            .skip_lifetime_validation();
        let extensions = builder.processed_welcome().unverified_group_info().extensions();
        let evidence = extensions.unknown(EXTENSION).and_then(|extension| Evidence::decode(&extension.0));
        // Staging checks the signature on the GroupInfo, and with it on what was read of it.
        let staged = builder.build().map_err(|_| JoinError::Invalid)?;
        let evidence = evidence.ok_or(JoinError::Invalid)?;
        let context = staged.group_context();
        let data = check_context(context.extensions()).filter(|data| data.conversation == conversation);
        let data = data.filter(|_| context.ciphersuite() == suite.ciphersuite()).ok_or(JoinError::Invalid)?;
        let inviter = staged.welcome_sender().ok().and_then(|node| Member::of(staged.welcome_sender_index(), node));
        let inviter = inviter.ok_or(JoinError::Invalid)?;
        let mls = staged.into_group(&provider).map_err(|_| JoinError::Invalid)?;
        let group = Group { mls, data, members: OnceLock::new() };
        if group.all_are_vouched_for(&evidence) && group.own().is_some_and(|member| member.device == own) {
            return Ok(Joined { group, inviter, evidence });
        }
        group.delete(desk.records);
        Err(JoinError::Invalid)
    }

    fn all_are_vouched_for(&self, evidence: &Evidence) -> bool {
        let Some(members) = self.read_members() else { return false };
        let inboxes: BTreeSet<_> = members.iter().map(|member| member.inbox).collect();
        inboxes.len() == members.len() && members.iter().all(|member| evidence.vouches_for(member))
    }

    /// Loads a group from its records; `None` where there is none of that id.
    ///
    /// # Errors
    /// [`RecordsError`]: what is there is not whole.
    pub fn load(records: &mut Records, id: &[u8]) -> Result<Option<Group>, RecordsError> {
        let storage = Storage(records.into());
        let Some(mls) = MlsGroup::load(&storage, &GroupId::from_slice(id))? else { return Ok(None) };
        let data = check_context(mls.extensions()).ok_or(RecordsError::Damaged)?;
        Ok(Some(Group { mls, data, members: OnceLock::new() }))
    }

    /// Removes all of its records.
    pub fn delete(mut self, records: &mut Records) {
        let storage = Storage(records.into());
        // Nothing fails: the records are in memory.
        let _deleted = self.mls.delete(&storage);
    }

    /// The name of its records.
    pub fn id(&self) -> Vec<u8> {
        self.mls.group_id().as_slice().to_vec()
    }

    /// What its context carries.
    pub fn data(&self) -> &GroupData {
        &self.data
    }

    /// Whether this device is a member still.
    pub fn is_active(&self) -> bool {
        self.mls.is_active()
    }

    /// The epoch that is in force.
    pub fn epoch(&self) -> u64 {
        self.mls.epoch().as_u64()
    }

    /// The members, by leaf.
    pub fn members(&self) -> &[Member] {
        // Every leaf was read once before it came in.
        self.members.get_or_init(|| self.read_members().unwrap_or_default())
    }

    fn read_members(&self) -> Option<Vec<Member>> {
        self.mls.members().map(|member| self.member(member.index)).collect()
    }

    pub(crate) fn member(&self, leaf: LeafNodeIndex) -> Option<Member> {
        Member::of(leaf, self.mls.public_group().leaf(leaf)?)
    }

    /// This device, where it is a member.
    pub fn own(&self) -> Option<Member> {
        let own = self.mls.own_leaf_index().u32();
        self.members().iter().find(|member| member.leaf == own).copied().filter(|_| self.is_active())
    }

    /// The inboxes of all members, sorted (C6).
    pub fn roster(&self) -> Vec<InboxAddress> {
        let mut roster: Vec<_> = self.members().iter().map(|member| member.inbox).collect();
        roster.sort();
        roster
    }

    /// The same for all members of an epoch, and for nobody else: what is compared to find out who sees what.
    pub fn epoch_authenticator(&self) -> Vec<u8> {
        self.mls.epoch_authenticator().as_slice().to_vec()
    }

    /// Seals a message for the members. To be persisted before it leaves.
    ///
    /// # Errors
    /// [`SealedError`].
    pub fn seal(&mut self, desk: &mut Desk<'_>, place: Place, plaintext: &[u8]) -> Result<Vec<u8>, SealedError> {
        let padded = Zeroizing::new(padding::pad(plaintext)?);
        self.mls.set_aad(MessageData { position: place.position, chain: place.chain, franking: None }.encode());
        let (provider, signer) = desk.split();
        let message = self.mls.create_message(&provider, &signer, &padded).map_err(|_| SealedError::NoMember)?;
        message.to_bytes().map_err(|_| SealedError::NoMember)
    }

    /// Opens a message of another member. After an error nothing is different.
    ///
    /// # Errors
    /// [`OpenedError`].
    pub fn open(&mut self, desk: &mut Desk<'_>, body: &[u8]) -> Result<Opened, OpenedError> {
        let message = MlsMessageIn::tls_deserialize_exact_bytes(body).map_err(|_| OpenedError::Malformed)?;
        let MlsMessageBodyIn::PrivateMessage(message) = message.extract() else { return Err(OpenedError::Malformed) };
        let message = ProtocolMessage::from(message);
        if message.content_type() != ContentType::Application {
            return Err(OpenedError::Malformed);
        }
        // Of another generation, which has another group, too.
        if message.group_id() != self.mls.group_id() || message.epoch() != self.mls.epoch() {
            return Err(OpenedError::OtherEpoch);
        }
        let processed = self.mls.process_message(&desk.provider(), message).map_err(|_| OpenedError::Rejected)?;
        let Sender::Member(leaf) = *processed.sender() else { return Err(OpenedError::Malformed) };
        let author = self.member(leaf).ok_or(OpenedError::Malformed)?;
        let data = MessageData::decode(processed.aad());
        match processed.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => {
                let padded = Zeroizing::new(message.into_bytes());
                let plaintext = padding::unpad(&padded).map_err(|_| OpenedError::Malformed)?.to_vec();
                let MessageData { position, chain, .. } = data.map_err(|_| OpenedError::Malformed)?;
                Ok(Opened { author, place: Place { position, chain }, plaintext: plaintext.into() })
            }
            ProcessedMessageContent::OwnPrivateMessage => Err(OpenedError::Own),
            _ => Err(OpenedError::Malformed),
        }
    }

    /// Whether bytes are a message of the epoch that is in force. Opens nothing.
    pub fn is_in_epoch(&self, body: &[u8]) -> bool {
        let Ok(message) = MlsMessageIn::tls_deserialize_exact_bytes(body) else { return false };
        let MlsMessageBodyIn::PrivateMessage(message) = message.extract() else { return false };
        let message = ProtocolMessage::from(message);
        message.group_id() == self.mls.group_id() && message.epoch() == self.mls.epoch()
    }

    /// Makes a commit, which waits until its position is read (L3). `evidence`: the logs of all members and of those that
    /// are added.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn commit(
        &mut self,
        desk: &mut Desk<'_>,
        place: Place,
        envelope: EnvelopeId,
        changes: Changes,
        evidence: &Evidence,
    ) -> Result<Committed, CommitError> {
        if self.mls.pending_commit().is_some() || !self.is_active() {
            return Err(CommitError::NotNow);
        }
        let members = self.members();
        let (leave, stay): (Vec<_>, Vec<_>) = members.iter().partition(|member| changes.remove.contains(&member.leaf));
        let roster = roster_after(&stay, &changes.add, evidence)?;
        let accounts: BTreeSet<_> = changes.add.iter().map(|new| new.member.account).collect();
        let judged_by = accounts.iter().copied().chain(leave.iter().map(|member| member.account));
        let judged_by = Evidence::of(judged_by.filter_map(|account| evidence.log(account)));
        // Of members alone: who was removed is none of a joiner's business.
        let after: BTreeSet<_> = stay.iter().map(|member| member.account).chain(accounts).collect();
        let told = Evidence::of(after.into_iter().filter_map(|account| evidence.log(account)));
        let data = CommitData { position: place.position, chain: place.chain, roster: roster_hash(&roster) };
        let seal = self.commit_seal(desk)?;

        let adds = !changes.add.is_empty();
        self.mls.set_aad(data.encode());
        let mut iv = [0; IV];
        desk.rng.fill_bytes(&mut iv);
        let (provider, signer) = desk.split();
        let mut builder = self
            .mls
            .commit_builder()
            .consume_proposal_store(false)
            .force_self_update(changes.update)
            .propose_adds(changes.add.into_iter().map(|new| new.package))
            .propose_removals(changes.remove.into_iter().map(LeafNodeIndex::new));
        if let Some(data) = &changes.data {
            let context = context_extensions(data).map_err(|_| CommitError::Unsuitable)?;
            builder = builder.propose_group_context_extensions(context).map_err(|_| CommitError::Unsuitable)?;
        }
        let mut builder = builder.load_psks(provider.storage()).map_err(|_| CommitError::NotNow)?;
        if adds {
            let told = own_extension(told.encode());
            builder = builder
                .create_group_info_with_extensions([told])
                .map_err(|_| CommitError::Unsuitable)?
                .use_ratchet_tree_extension(true);
        } else {
            builder = builder.create_group_info(false).use_ratchet_tree_extension(false);
        }
        let bundle = builder
            .build(provider.rand(), provider.crypto(), &signer, |_| true)
            .map(|builder| builder.stage_commit(&provider))
            .map_err(|_| CommitError::Unsuitable)?
            .map_err(|_| CommitError::Unsuitable)?;
        let bytes = |message: &MlsMessageOut| message.to_bytes().map_err(|_| CommitError::NotNow);
        let welcome = bundle.to_welcome_msg().as_ref().map(bytes).transpose()?;
        let commit =
            CommitBody { commit: bytes(bundle.commit())?, evidence: judged_by.entries(), readds: changes.readds };
        let body = seal.seal(iv, self.data.conversation, envelope, &commit);
        Ok(Committed { body, welcome, roster })
    }

    /// Merges the commit that this device made: its position was read.
    ///
    /// # Errors
    /// [`RecordsError`].
    pub fn merge_own(&mut self, desk: &mut Desk<'_>) -> Result<(), RecordsError> {
        self.mls.merge_pending_commit(&desk.provider()).map_err(|_| RecordsError::Damaged)?;
        self.data = check_context(self.mls.extensions()).ok_or(RecordsError::Damaged)?;
        self.members = OnceLock::new();
        Ok(())
    }

    /// Drops the commit that this device made: another won, or it was refused.
    ///
    /// # Errors
    /// [`RecordsError`].
    pub fn drop_own(&mut self, records: &mut Records) -> Result<(), RecordsError> {
        self.mls.clear_pending_commit(&Storage(records.into()))
    }

    /// The key that commits of this epoch are sealed under.
    pub(crate) fn commit_seal(&self, desk: &mut Desk<'_>) -> Result<CommitSeal, CommitError> {
        let key = self
            .mls
            .export_secret(desk.provider().crypto(), Label::COMMIT_KEY.text(), &[], 32)
            .map_err(|_| CommitError::NotNow)?;
        let key = Zeroizing::new(key);
        let key: &[u8; 32] = key.as_slice().try_into().map_err(|_| CommitError::NotNow)?;
        Ok(CommitSeal(Cipher::new(key)))
    }
}

/// Seals commits, so that the relay does not see who joins and leaves (C3): AES-256-GCM under an exporter key of the epoch
/// (RFC 9420 section 8.5), random IV in front.
pub(crate) struct CommitSeal(Cipher);

impl CommitSeal {
    fn seal(&self, iv: [u8; IV], conversation: ConversationId, envelope: EnvelopeId, body: &CommitBody) -> Vec<u8> {
        let mut sealed = body.encode();
        let tag = self.0.seal(iv, &associated(conversation, envelope), &mut sealed);
        [&iv[..], &sealed, &tag].concat()
    }

    pub(crate) fn open(&self, conversation: ConversationId, envelope: EnvelopeId, sealed: &[u8]) -> Option<CommitBody> {
        let (iv, rest) = sealed.split_first_chunk::<IV>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG>()?;
        let mut body = ciphertext.to_vec();
        self.0.open(*iv, &associated(conversation, envelope), &mut body, *tag).ok()?;
        CommitBody::decode(&body).ok()
    }
}

fn associated(conversation: ConversationId, envelope: EnvelopeId) -> Vec<u8> {
    Label::COMMIT_SEAL.encode(&(conversation, envelope))
}

/// The roster after a commit. No inbox stands there twice, and each new device is one of its account.
fn roster_after(
    stay: &[Member],
    add: &[ReceivedKeyPackage],
    evidence: &Evidence,
) -> Result<Vec<InboxAddress>, CommitError> {
    if !add.iter().all(|new| evidence.vouches_for(&new.member)) {
        return Err(CommitError::Unsuitable);
    }
    let mut roster: Vec<_> = stay.iter().chain(add.iter().map(|new| &new.member)).map(|member| member.inbox).collect();
    roster.sort();
    if roster.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(CommitError::Unsuitable);
    }
    if roster.len() > ROSTER_MAX { Err(CommitError::TooManyMembers) } else { Ok(roster) }
}

fn context_extensions(data: &GroupData) -> Result<Extensions<GroupContext>, openmls::prelude::InvalidExtensionError> {
    Extensions::from_vec(vec![required(), own_extension(data.encode())])
}

fn ratchets() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(0, FORWARD_DISTANCE_MAX)
}

fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .set_past_epoch_deletion_policy(PastEpochDeletionPolicy::MaxEpochs(0))
        .number_of_resumption_psks(0)
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(ratchets())
        .build()
}
