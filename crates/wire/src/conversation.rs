//! What members of a conversation tell each other beside content (spec/conversations.md): what is authenticated with
//! every message and commit, what leaves and the group carry, and how commits and Welcomes lie in their entries.
//!
//! TLS presentation language, a version byte first. The structures stand inside MLS's own frames, whose labels keep them
//! apart; what is sealed outside of MLS has a label of ours (label.rs).

use tls_codec::{
    DeserializeBytes, Serialize, Size, TlsByteVecU8, TlsByteVecU24, TlsDeserializeBytes, TlsSerialize, TlsSize,
    TlsVecU16, TlsVecU24,
};

use crate::limits::{CONVERSATION_NAME_MAX, ROLES_MAX};
use crate::{AccountId, Chain, ConversationId, DeviceId, EnvelopeId, InboxAddress, Position, RosterHash};

const VERSION: u8 = 1;

/// Bytes that are none of these structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a structure of a conversation")]
pub struct ConversationError;

/// In the authenticated data of each message (L5): the newest entry that its sender has read. At most 74 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageData {
    /// Where its sender stands.
    pub position: Position,
    /// The chain there.
    pub chain: Chain,
    /// Unused in this version, and passed over (A3).
    pub franking: Option<[u8; 32]>,
}

/// In the authenticated data of each commit (L5, C6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitData {
    /// Where its sender stands.
    pub position: Position,
    /// The chain there.
    pub chain: Chain,
    /// Of the sorted inboxes of the tree's leaves after this commit.
    pub roster: RosterHash,
}

/// What a later version added behind the fields of this one. Kept as it came; none unless one wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Later {
    version: u8,
    bytes: Vec<u8>,
}

impl Default for Later {
    fn default() -> Later {
        Later { version: VERSION, bytes: Vec::new() }
    }
}

/// What each leaf carries beside its keys (C7, E5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeafData {
    /// Where the device reads Welcomes, and what a roster names it by.
    pub inbox: InboxAddress,
    /// What a later version added.
    pub later: Later,
}

/// What kind of conversation it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub enum ConversationKind {
    /// Between two accounts; its id follows from theirs (C8). Nobody else joins.
    OneToOne = 1,
    /// Any number of accounts.
    Group = 2,
}

/// What a member may do (C7). Whoever is not listed is a plain member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub enum Role {
    /// Adds, removes, names; and says who is what.
    Owner = 1,
    /// Adds, removes and names.
    Admin = 2,
    /// Writes and reads.
    Member = 3,
}

/// What the group's context carries (C1, C7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupData {
    /// The conversation, which outlives its groups.
    pub conversation: ConversationId,
    /// Which of its groups this is.
    pub generation: u32,
    /// What kind it is.
    pub kind: ConversationKind,
    /// Its name; empty in a conversation of two.
    pub name: String,
    /// Who is more than a member, sorted.
    pub roles: Vec<(AccountId, Role)>,
    /// What a later version added.
    pub later: Later,
}

impl GroupData {
    /// What an account may do.
    pub fn role(&self, account: AccountId) -> Role {
        let found = self.roles.binary_search_by_key(&account, |(listed, _)| *listed);
        found.map_or(Role::Member, |index| self.roles[index].1)
    }

    /// The same with another role for an account.
    pub fn with_role(mut self, account: AccountId, role: Role) -> GroupData {
        self.roles.retain(|(listed, _)| *listed != account);
        if role != Role::Member {
            self.roles.push((account, role));
            self.roles.sort();
        }
        self
    }
}

/// The body of a commit's entry, inside its seal (C3): the commit, and what it is judged by (C2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitBody {
    /// An MLS PublicMessage.
    pub commit: Vec<u8>,
    /// The account logs, whole, of the leaves that it adds or removes.
    pub evidence: Vec<Vec<Vec<u8>>>,
    /// The requests that it answers: bodies of entries of the kind `readd` (C10).
    pub readds: Vec<Vec<u8>>,
}

/// The body of a Welcome's entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WelcomeBody {
    /// Which conversation.
    pub conversation: ConversationId,
    /// The envelope of the commit that adds its reader.
    pub commit: EnvelopeId,
    /// An MLS Welcome.
    pub welcome: Vec<u8>,
}

/// The body of a request to be added again (C10), in clear: whoever sends it has lost what it would seal with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReaddBody {
    /// Whose device it is.
    pub account: AccountId,
    /// Which device.
    pub device: DeviceId,
    /// A key package of that device, for this request alone.
    pub key_package: Vec<u8>,
    /// The device's, over the label `readd`, the conversation and the fields before.
    pub signature: [u8; 64],
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct WireReaddBody {
    version: u8,
    account: AccountId,
    device: DeviceId,
    key_package: TlsByteVecU24,
    signature: [u8; 64],
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct WireMessageData {
    version: u8,
    position: Position,
    chain: Chain,
    franking: Option<[u8; 32]>,
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct WireCommitData {
    version: u8,
    position: Position,
    chain: Chain,
    roster: RosterHash,
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct WireLeafData {
    version: u8,
    inbox: InboxAddress,
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct WireGroupData {
    version: u8,
    conversation: ConversationId,
    generation: u32,
    kind: ConversationKind,
    name: TlsByteVecU8,
    roles: TlsVecU16<WireRole>,
}

#[derive(Debug, Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct WireRole {
    account: AccountId,
    role: Role,
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct WireCommitBody {
    version: u8,
    commit: TlsByteVecU24,
    evidence: TlsVecU24<TlsVecU24<TlsByteVecU24>>,
    readds: TlsVecU24<TlsByteVecU24>,
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct WireWelcomeBody {
    version: u8,
    conversation: ConversationId,
    commit: EnvelopeId,
    welcome: TlsByteVecU24,
}

fn encode(structure: &impl Serialize) -> Vec<u8> {
    structure.tls_serialize_detached().expect("their vectors are bounded by the limits of what they hold")
}

/// Whole, of this version.
fn decode<T: DeserializeBytes + Size>(bytes: &[u8]) -> Result<T, ConversationError> {
    match bytes.first() {
        Some(&VERSION) => T::tls_deserialize_exact_bytes(bytes).map_err(|_| ConversationError),
        _ => Err(ConversationError),
    }
}

/// Of this version, whole; or of a later one, which begins in the same way and may add something.
fn decode_extended<T: DeserializeBytes + Size>(bytes: &[u8]) -> Result<(T, Later), ConversationError> {
    let (value, rest) = T::tls_deserialize_bytes(bytes).map_err(|_| ConversationError)?;
    match bytes.first() {
        Some(&version) if version > VERSION || (version == VERSION && rest.is_empty()) => {
            Ok((value, Later { version, bytes: rest.to_vec() }))
        }
        _ => Err(ConversationError),
    }
}

impl MessageData {
    /// `uint8 version; uint64 position; opaque chain[32]; optional<opaque[32]> franking`.
    pub fn encode(&self) -> Vec<u8> {
        let MessageData { position, chain, franking } = *self;
        encode(&WireMessageData { version: VERSION, position, chain, franking })
    }

    /// Reads it, whole.
    ///
    /// # Errors
    /// [`ConversationError`].
    pub fn decode(bytes: &[u8]) -> Result<MessageData, ConversationError> {
        let WireMessageData { position, chain, franking, .. } = decode(bytes)?;
        Ok(MessageData { position, chain, franking })
    }
}

impl CommitData {
    /// `uint8 version; uint64 position; opaque chain[32]; opaque roster[32]`.
    pub fn encode(&self) -> Vec<u8> {
        let CommitData { position, chain, roster } = *self;
        encode(&WireCommitData { version: VERSION, position, chain, roster })
    }

    /// Reads it, whole.
    ///
    /// # Errors
    /// [`ConversationError`].
    pub fn decode(bytes: &[u8]) -> Result<CommitData, ConversationError> {
        let WireCommitData { position, chain, roster, .. } = decode(bytes)?;
        Ok(CommitData { position, chain, roster })
    }
}

impl LeafData {
    /// `uint8 version; opaque inbox[16]`, then what a later version adds.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = encode(&WireLeafData { version: self.later.version, inbox: self.inbox });
        bytes.extend_from_slice(&self.later.bytes);
        bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`ConversationError`].
    pub fn decode(bytes: &[u8]) -> Result<LeafData, ConversationError> {
        let (WireLeafData { inbox, .. }, later) = decode_extended(bytes)?;
        Ok(LeafData { inbox, later })
    }
}

impl GroupData {
    /// `uint8 version; opaque conversation[32]; uint32 generation; uint8 kind; opaque name<0..2^8-1>;
    /// Role roles<0..2^16-1>`, then what a later version adds; a role is `opaque account[32]; uint8 role`.
    pub fn encode(&self) -> Vec<u8> {
        let roles: Vec<_> = self.roles.iter().map(|&(account, role)| WireRole { account, role }).collect();
        let mut bytes = encode(&WireGroupData {
            version: self.later.version,
            conversation: self.conversation,
            generation: self.generation,
            kind: self.kind,
            name: self.name.as_bytes().into(),
            roles: roles.into(),
        });
        bytes.extend_from_slice(&self.later.bytes);
        bytes
    }

    /// Reads it. Roles are sorted, without doubles, and none says "member".
    ///
    /// # Errors
    /// [`ConversationError`].
    pub fn decode(bytes: &[u8]) -> Result<GroupData, ConversationError> {
        let (data, later): (WireGroupData, _) = decode_extended(bytes)?;
        let roles: Vec<_> = data.roles.iter().map(|listed| (listed.account, listed.role)).collect();
        let is_sorted = roles.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let is_listed = |(_, role): &(AccountId, Role)| *role != Role::Member;
        if !is_sorted || !roles.iter().all(is_listed) || roles.len() > ROLES_MAX {
            return Err(ConversationError);
        }
        let WireGroupData { conversation, generation, kind, name, .. } = data;
        let name = String::from_utf8(name.into_vec()).map_err(|_| ConversationError)?;
        if name.len() > CONVERSATION_NAME_MAX {
            return Err(ConversationError);
        }
        Ok(GroupData { conversation, generation, kind, name, roles, later })
    }
}

impl CommitBody {
    /// `uint8 version; opaque commit<0..2^24-1>; Log evidence<0..2^24-1>; Entry readds<0..2^24-1>`; a log is `Entry entries<0..2^24-1>`, an entry
    /// `opaque<0..2^24-1>`.
    pub fn encode(&self) -> Vec<u8> {
        let log = |log: &Vec<Vec<u8>>| -> TlsVecU24<TlsByteVecU24> {
            log.iter().map(|entry| entry.clone().into()).collect::<Vec<_>>().into()
        };
        encode(&WireCommitBody {
            version: VERSION,
            commit: self.commit.clone().into(),
            evidence: self.evidence.iter().map(log).collect::<Vec<_>>().into(),
            readds: log(&self.readds),
        })
    }

    /// Reads it, whole.
    ///
    /// # Errors
    /// [`ConversationError`].
    pub fn decode(bytes: &[u8]) -> Result<CommitBody, ConversationError> {
        let body: WireCommitBody = decode(bytes)?;
        let readds = body.readds.into_vec().into_iter().map(TlsByteVecU24::into_vec).collect();
        Ok(CommitBody { commit: body.commit.into_vec(), evidence: logs(body.evidence), readds })
    }
}

fn logs(logs: TlsVecU24<TlsVecU24<TlsByteVecU24>>) -> Vec<Vec<Vec<u8>>> {
    let log = |log: TlsVecU24<TlsByteVecU24>| log.into_vec().into_iter().map(TlsByteVecU24::into_vec).collect();
    logs.into_vec().into_iter().map(log).collect()
}

/// Account logs as a structure of their own: what a GroupInfo tells a joiner about the members (C2).
pub fn encode_logs(logs: &[Vec<Vec<u8>>]) -> Vec<u8> {
    CommitBody { commit: Vec::new(), evidence: logs.to_vec(), readds: Vec::new() }.encode()
}

/// Reads what [`encode_logs`] wrote, whole.
///
/// # Errors
/// [`ConversationError`].
pub fn decode_logs(bytes: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, ConversationError> {
    let body = CommitBody::decode(bytes)?;
    if body.commit.is_empty() && body.readds.is_empty() { Ok(body.evidence) } else { Err(ConversationError) }
}

impl ReaddBody {
    /// `uint8 version; opaque account[32]; opaque device[32]; opaque key_package<0..2^24-1>; opaque signature[64]`.
    pub fn encode(&self) -> Vec<u8> {
        let ReaddBody { account, device, ref key_package, signature } = *self;
        encode(&WireReaddBody { version: VERSION, account, device, key_package: key_package.clone().into(), signature })
    }

    /// Reads it, whole.
    ///
    /// # Errors
    /// [`ConversationError`].
    pub fn decode(bytes: &[u8]) -> Result<ReaddBody, ConversationError> {
        let WireReaddBody { account, device, key_package, signature, .. } = decode(bytes)?;
        Ok(ReaddBody { account, device, key_package: key_package.into_vec(), signature })
    }
}

impl WelcomeBody {
    /// `uint8 version; opaque conversation[32]; opaque commit[16]; opaque welcome<0..2^24-1>`.
    pub fn encode(&self) -> Vec<u8> {
        encode(&WireWelcomeBody {
            version: VERSION,
            conversation: self.conversation,
            commit: self.commit,
            welcome: self.welcome.clone().into(),
        })
    }

    /// Reads it, whole.
    ///
    /// # Errors
    /// [`ConversationError`].
    pub fn decode(bytes: &[u8]) -> Result<WelcomeBody, ConversationError> {
        let WireWelcomeBody { conversation, commit, welcome, .. } = decode(bytes)?;
        Ok(WelcomeBody { conversation, commit, welcome: welcome.into_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group_data() -> GroupData {
        GroupData {
            conversation: ConversationId([1; 32]),
            generation: 0,
            kind: ConversationKind::Group,
            name: "Lunch".into(),
            roles: vec![(AccountId([1; 32]), Role::Owner), (AccountId([2; 32]), Role::Admin)],
            later: Later::default(),
        }
    }

    /// Each structure, as bytes, and whether bytes are one.
    #[expect(clippy::type_complexity, reason = "a table")]
    fn structures() -> Vec<(&'static str, Vec<u8>, fn(&[u8]) -> bool)> {
        let (position, chain, roster) = (Position(7), Chain([2; 32]), RosterHash([3; 32]));
        let evidence = vec![vec![vec![1, 2], vec![]], vec![]];
        let commit = CommitBody { commit: vec![5; 40], evidence, readds: vec![vec![7; 3]] };
        let (conversation, envelope) = (ConversationId([1; 32]), EnvelopeId([4; 16]));
        let welcome = WelcomeBody { conversation, commit: envelope, welcome: vec![9; 30] };
        let message = MessageData { position, chain, franking: None };
        let (account, device) = (AccountId([1; 32]), DeviceId([2; 32]));
        let readd = ReaddBody { account, device, key_package: vec![3; 20], signature: [4; 64] };
        vec![
            ("readd body", readd.encode(), |bytes| ReaddBody::decode(bytes).is_ok_and(|x| x.encode() == bytes)),
            ("message", message.encode(), |bytes| MessageData::decode(bytes).is_ok_and(|x| x.encode() == bytes)),
            ("franked message", MessageData { franking: Some([8; 32]), ..message }.encode(), |bytes| {
                MessageData::decode(bytes).is_ok_and(|x| x.encode() == bytes)
            }),
            ("commit", CommitData { position, chain, roster }.encode(), |bytes| {
                CommitData::decode(bytes).is_ok_and(|x| x.encode() == bytes)
            }),
            ("leaf", LeafData { inbox: InboxAddress([6; 16]), later: Later::default() }.encode(), |bytes| {
                LeafData::decode(bytes).is_ok_and(|x| x.encode() == bytes)
            }),
            ("group", group_data().encode(), |bytes| GroupData::decode(bytes).is_ok_and(|x| x.encode() == bytes)),
            ("commit body", commit.encode(), |bytes| CommitBody::decode(bytes).is_ok_and(|x| x.encode() == bytes)),
            ("welcome body", welcome.encode(), |bytes| WelcomeBody::decode(bytes).is_ok_and(|x| x.encode() == bytes)),
        ]
    }

    /// E2: canonical, no trailing bytes; every prefix and every extension is refused.
    #[test]
    fn no_prefix_and_no_extension_is_a_structure() {
        for (what, bytes, is_one) in structures() {
            assert!(is_one(&bytes), "{what}");
            for end in 0..bytes.len() {
                assert!(!is_one(&bytes[..end]), "{what}, {end} bytes of it");
            }
            assert!(!is_one(&[&bytes[..], &[0]].concat()), "{what} and a byte");
            assert!(!is_one(&[&[0], &bytes[1..]].concat()), "{what} of version 0");
        }
    }

    /// L5: with a franking tag, 74 bytes.
    #[test]
    fn what_a_message_authenticates_is_short() {
        let data = MessageData { position: Position(u64::MAX), chain: Chain([1; 32]), franking: Some([2; 32]) };
        assert_eq!(data.encode().len(), 74);
    }

    /// C7: what leaves and groups carry has room for a later version, and this one keeps what it added.
    #[test]
    fn what_a_later_version_adds_is_kept() {
        let leaf = LeafData { inbox: InboxAddress([6; 16]), later: Later::default() }.encode();
        for version in [2, 3] {
            for added in [&[][..], &[1, 2]] {
                let later = |of: &[u8]| [&[version], &of[1..], added].concat();
                assert_eq!(LeafData::decode(&later(&leaf)).unwrap().encode(), later(&leaf));
                let group = later(&group_data().encode());
                assert_eq!(GroupData::decode(&group).unwrap().encode(), group);
            }
        }
    }

    #[test]
    fn roles_have_one_form() {
        let data = group_data();
        assert_eq!(data.role(AccountId([2; 32])), Role::Admin);
        assert_eq!(data.role(AccountId([9; 32])), Role::Member);
        assert_eq!(data.clone().with_role(AccountId([2; 32]), Role::Member).roles.len(), 1);
        let first = AccountId([0; 32]);
        assert_eq!(data.clone().with_role(first, Role::Admin).roles[0], (first, Role::Admin));
        for roles in [
            vec![(AccountId([2; 32]), Role::Admin), (AccountId([1; 32]), Role::Admin)],
            vec![(AccountId([1; 32]), Role::Admin), (AccountId([1; 32]), Role::Owner)],
            vec![(AccountId([1; 32]), Role::Member)],
            (0..=ROLES_MAX).map(|i| (account(i), Role::Admin)).collect(),
        ] {
            assert!(GroupData::decode(&GroupData { roles, ..data.clone() }.encode()).is_err());
        }
        let most = (0..ROLES_MAX).map(|i| (account(i), Role::Admin)).collect();
        assert!(GroupData::decode(&GroupData { roles: most, ..data }.encode()).is_ok());
    }

    fn account(i: usize) -> AccountId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(i as u64).to_be_bytes());
        AccountId(bytes)
    }

    #[test]
    fn a_name_may_be_as_long_as_the_limit_and_no_longer() {
        let named = |length| GroupData { name: "x".repeat(length), ..group_data() }.encode();
        assert!(GroupData::decode(&named(CONVERSATION_NAME_MAX)).is_ok());
        assert_eq!(GroupData::decode(&named(CONVERSATION_NAME_MAX + 1)), Err(ConversationError));
    }
}
