//! What a valid commit is: a function of the log up to it, the same for all members (C2). Local clocks, contacts and pins
//! decide nothing here.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use openmls::group::{ProcessMessageError, StageCommitError, StagedCommit};
use openmls::prelude::tls_codec::DeserializeBytes;
use openmls::prelude::{
    ApplyUpdatePathError, ContentType, Extensions, GroupContext, MlsMessageBodyIn, MlsMessageIn,
    ProcessedMessageContent, Proposal, ProposalOrRefType, ProtocolMessage, Sender,
};
use sealwire_keys::roster_hash;
use sealwire_wire::conversation::{CommitData, ConversationKind, GroupData, Role};
use sealwire_wire::limits::ROSTER_MAX;
use sealwire_wire::{AccountId, DeviceId, EnvelopeId, InboxAddress};

use super::leaf::{EXTENSION, lifetime, required};
use super::{Desk, Evidence, Group, Member, Place, ReceivedKeyPackage, RecordsError, Suite, read_readd};

/// Why a commit is publicly invalid: all members skip it alike (C2). It costs a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum InvalidCommit {
    /// Not sealed under the epoch's key, or no commit of this group inside.
    #[error("not a commit of this conversation")]
    Malformed,
    /// MLS refuses it.
    #[error("the commit does not follow MLS")]
    Refused,
    /// It holds a proposal that conversations do not use.
    #[error("the commit holds a proposal that is not used here")]
    Proposal,
    /// What it says of the roster is not what it makes of it (C6).
    #[error("the commit's roster is not that of its members")]
    Roster,
    /// A leaf that no account log vouches for, or whose account or inbox changed.
    #[error("a leaf of the commit is not vouched for")]
    Leaf,
    /// Its author may not make this change (C7).
    #[error("the commit's author may not make this change")]
    Authority,
    /// The group's data after it is malformed, or changes what stays.
    #[error("the commit changes what may not change")]
    Data,
    /// Valid for others as far as can be seen, but this device cannot process it (C4).
    #[error("this device cannot process the commit")]
    Unprocessable,
}

/// A commit that was judged, and is to be applied or dropped.
pub struct Judged {
    staged: StagedCommit,
    /// What it does.
    pub applied: Applied,
}

/// What a commit does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Whose it is.
    pub author: Member,
    /// Where its author stood.
    pub place: Place,
    /// Who joins.
    pub added: Vec<Member>,
    /// Who leaves.
    pub removed: Vec<Member>,
    /// The group's data from now on.
    pub data: GroupData,
    /// The inboxes of all members from now on, sorted.
    pub roster: Vec<InboxAddress>,
    /// The account logs that it was judged by.
    pub evidence: Evidence,
    /// Whether it removes this device.
    pub removes_self: bool,
}

/// A group's data, if all of its context is as it has to be.
pub(crate) fn check_context(extensions: &Extensions<GroupContext>) -> Option<GroupData> {
    let is_whole = extensions.iter().count() == 2 && extensions.iter().any(|extension| *extension == required());
    let data = GroupData::decode(&extensions.unknown(EXTENSION)?.0).ok()?;
    is_whole.then_some(data)
}

/// What a member may do beside what its role allows: remove whoever asked to leave since the newest commit (C5), and add
/// devices again that have asked for it, as the commit shows (C10).
struct Entitled<'a> {
    leaving: &'a BTreeSet<AccountId>,
    readds: &'a BTreeSet<DeviceId>,
}

impl Group {
    /// Judges a commit of another member. `leaving`: accounts that have asked to leave since the newest commit (C5). Nothing
    /// is different afterwards.
    ///
    /// # Errors
    /// [`InvalidCommit`].
    pub fn judge(
        &mut self,
        desk: &mut Desk<'_>,
        envelope: EnvelopeId,
        body: &[u8],
        leaving: &BTreeSet<AccountId>,
    ) -> Result<Judged, InvalidCommit> {
        let seal = self.commit_seal(desk).map_err(|_| InvalidCommit::Malformed)?;
        let body = seal.open(self.data.conversation, envelope, body).ok_or(InvalidCommit::Malformed)?;
        let evidence = Evidence::verify(body.evidence).ok_or(InvalidCommit::Leaf)?;
        let readds = self.read_answered(desk, &body.readds).ok_or(InvalidCommit::Leaf)?;
        let message = MlsMessageIn::tls_deserialize_exact_bytes(&body.commit).map_err(|_| InvalidCommit::Malformed)?;
        let MlsMessageBodyIn::PublicMessage(message) = message.extract() else { return Err(InvalidCommit::Malformed) };
        let message = ProtocolMessage::from(message);
        if message.content_type() != ContentType::Commit || message.group_id() != self.mls.group_id() {
            return Err(InvalidCommit::Malformed);
        }
        let processed = self.mls.process_message(&desk.provider(), message).map_err(|error| why_refused(&error))?;
        let Sender::Member(leaf) = *processed.sender() else { return Err(InvalidCommit::Refused) };
        let author = self.member(leaf).ok_or(InvalidCommit::Leaf)?;
        let data = CommitData::decode(processed.aad()).map_err(|_| InvalidCommit::Malformed)?;
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
            return Err(InvalidCommit::Malformed);
        };
        let place = Place { position: data.position, chain: data.chain };
        let applied = self.judge_staged(&staged, author, place, evidence, leaving, &readds)?;
        if roster_hash(&applied.roster) != data.roster || applied.roster.len() > ROSTER_MAX {
            return Err(InvalidCommit::Roster);
        }
        Ok(Judged { staged: *staged, applied })
    }

    fn read_answered(&self, desk: &mut Desk<'_>, readds: &[Vec<u8>]) -> Option<Vec<ReceivedKeyPackage>> {
        let suite = Suite::of(self.mls.ciphersuite())?;
        readds.iter().map(|body| read_readd(suite, self.data.conversation, body, desk.rng)).collect()
    }

    /// The devices whose requests a commit answers: their accounts are in the conversation, exactly what they asked for is
    /// added, and the leaf that they had is removed (C10).
    fn answered(&self, staged: &StagedCommit, removed: &[Member], readds: &[ReceivedKeyPackage]) -> BTreeSet<DeviceId> {
        let members = self.members();
        let is_added = |readd: &&ReceivedKeyPackage| {
            staged.add_proposals().any(|add| *add.add_proposal().key_package() == readd.package)
        };
        let is_answered = |readd: &&ReceivedKeyPackage| {
            let is_in = members.iter().any(|member| member.account == readd.member.account);
            let mut leaves = members.iter().filter(|member| member.device == readd.member.device);
            is_in && leaves.all(|leaf| removed.contains(leaf))
        };
        readds.iter().filter(is_added).filter(is_answered).map(|readd| readd.member.device).collect()
    }

    fn judge_staged(
        &self,
        staged: &StagedCommit,
        author: Member,
        place: Place,
        evidence: Evidence,
        leaving: &BTreeSet<AccountId>,
        readds: &[ReceivedKeyPackage],
    ) -> Result<Applied, InvalidCommit> {
        let is_ours = |proposal: &Proposal| {
            matches!(proposal, Proposal::Add(_) | Proposal::Remove(_) | Proposal::GroupContextExtensions(_))
        };
        let is_inline = |kind| matches!(kind, ProposalOrRefType::Proposal);
        if !staged
            .queued_proposals()
            .all(|queued| is_ours(queued.proposal()) && is_inline(queued.proposal_or_ref_type()))
        {
            return Err(InvalidCommit::Proposal);
        }
        let added = staged
            .add_proposals()
            .map(|add| {
                Member::of(openmls::prelude::LeafNodeIndex::new(0), add.add_proposal().key_package().leaf_node())
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(InvalidCommit::Leaf)?;
        let removed = staged
            .remove_proposals()
            .map(|remove| self.member(remove.remove_proposal().removed()))
            .collect::<Option<Vec<_>>>()
            .ok_or(InvalidCommit::Leaf)?;
        if !added.iter().all(|member| evidence.vouches_for(member)) {
            return Err(InvalidCommit::Leaf);
        }
        // A committer's new leaf is the same device at the same inbox.
        let is_same =
            |node| Member::of(openmls::prelude::LeafNodeIndex::new(author.leaf), node).as_ref() == Some(&author);
        if !staged.update_path_leaf_node().is_none_or(is_same) {
            return Err(InvalidCommit::Leaf);
        }
        if !staged.add_proposals().all(|add| *add.add_proposal().key_package().life_time() == lifetime()) {
            return Err(InvalidCommit::Leaf);
        }
        let readds = self.answered(staged, &removed, readds);
        let entitled = Entitled { leaving, readds: &readds };
        let data = check_context(staged.group_context().extensions()).ok_or(InvalidCommit::Data)?;
        self.judge_data(&data)?;
        self.judge_authority(author.account, &added, &removed, &data, &evidence, &entitled)?;
        let roster = self.roster_with(&added, &removed).ok_or(InvalidCommit::Roster)?;
        let removes_self = staged.self_removed();
        Ok(Applied { author, place, added, removed, data, roster, evidence, removes_self })
    }

    fn judge_data(&self, data: &GroupData) -> Result<(), InvalidCommit> {
        let stays = |data: &GroupData| (data.conversation, data.generation, data.kind);
        let is_nameless =
            data.kind != ConversationKind::OneToOne || (data.name.is_empty() && data.roles == self.data.roles);
        if stays(data) == stays(&self.data) && is_nameless { Ok(()) } else { Err(InvalidCommit::Data) }
    }

    /// C7: who may make which change.
    fn judge_authority(
        &self,
        author: AccountId,
        added: &[Member],
        removed: &[Member],
        data: &GroupData,
        evidence: &Evidence,
        entitled: &Entitled<'_>,
    ) -> Result<(), InvalidCommit> {
        let role = self.data.role(author);
        let is_one_to_one = self.data.kind == ConversationKind::OneToOne;
        let accounts: BTreeSet<_> = self.members().iter().map(|member| member.account).collect();
        let may_add = |member: &Member| {
            member.account == author
                || entitled.readds.contains(&member.device)
                || (role < Role::Member && (!is_one_to_one || accounts.contains(&member.account)))
        };
        let may_remove = |member: &Member| {
            member.account == author
                || entitled.leaving.contains(&member.account)
                || entitled.readds.contains(&member.device)
                || evidence.disowns(member)
                || (!is_one_to_one && role < self.data.role(member.account))
        };
        let may_name = role < Role::Member || data.name == self.data.name;
        // An account that has left has no role any more; else roles are the owner's.
        let left = |account: AccountId| {
            let was = |member: &Member| member.account == account;
            removed.iter().any(was) && self.members().iter().filter(|member| was(member)).all(|m| removed.contains(m))
        };
        let mut expected = self.data.roles.clone();
        expected.retain(|(account, _)| data.roles.iter().any(|(listed, _)| listed == account) || !left(*account));
        let may_say_who = role == Role::Owner || data.roles == expected;
        if added.iter().all(may_add) && removed.iter().all(may_remove) && may_name && may_say_who {
            Ok(())
        } else {
            Err(InvalidCommit::Authority)
        }
    }

    /// The roster after a change; `None` where an inbox would stand there twice.
    fn roster_with(&self, added: &[Member], removed: &[Member]) -> Option<Vec<InboxAddress>> {
        let members = self.members();
        let stay = members.iter().filter(|member| !removed.contains(member));
        let mut roster: Vec<_> = stay.chain(added).map(|member| member.inbox).collect();
        roster.sort();
        roster.windows(2).all(|pair| pair[0] != pair[1]).then_some(roster)
    }

    /// Applies a judged commit: from now on its epoch is in force. A commit of this device that was waiting is dropped.
    ///
    /// # Errors
    /// [`RecordsError`].
    pub fn apply(&mut self, desk: &mut Desk<'_>, judged: Judged) -> Result<Applied, RecordsError> {
        self.mls.merge_staged_commit(&desk.provider(), judged.staged).map_err(|_| RecordsError::Damaged)?;
        self.data = judged.applied.data.clone();
        self.members = OnceLock::new();
        Ok(judged.applied)
    }
}

/// What only this device cannot process, as far as it can tell: its own keys are missing, or it made the commit itself and
/// does not know of it, since its store was put back. Everything else all members see alike.
fn why_refused<E>(error: &ProcessMessageError<E>) -> InvalidCommit {
    use ApplyUpdatePathError::{PathMismatch, UnableToDecrypt};
    match error {
        ProcessMessageError::InvalidCommit(
            StageCommitError::UpdatePathError(UnableToDecrypt | PathMismatch)
            | StageCommitError::OwnKeyNotFound
            | StageCommitError::MissingDecryptionKey
            | StageCommitError::OwnCommitMismatch,
        ) => InvalidCommit::Unprocessable,
        _ => InvalidCommit::Refused,
    }
}
