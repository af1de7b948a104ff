//! Records: what the engine persists. A version byte, then a TLS structure. Values leave the engine in clear and are
//! sealed by the store; every value is wiped from memory when dropped.

use sealwire_wire::content::Content;
use sealwire_wire::conversation::{ConversationKind, Role};
use sealwire_wire::handle::Handle;
use sealwire_wire::{
    AccountId, Chain, ContentId, ConversationId, DeviceHint, DeviceId, EnvelopeId, InboxAddress, Incarnation,
    InstanceId, Position, PresenceToken, RosterHash, Time,
};
use tls_codec::{
    DeserializeBytes, Serialize, Size, TlsByteVecU8, TlsByteVecU24, TlsDeserializeBytes, TlsSerialize, TlsSize,
};
use zeroize::Zeroizing;

use crate::event::{Incoming, MessageState, QuarantineReason};

/// The tables of a client's store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Table {
    /// One record each: keys, profile, incarnations, progress.
    Own = 1,
    /// By account.
    Contact = 2,
    /// By handle: the pinned account.
    Handle = 3,
    /// By commitment: counters and windows of direct mode.
    Channel = 4,
    /// By number: outgoing messages that are not finished.
    Outgoing = 5,
    /// By number: the final states of outgoing messages.
    Sent = 6,
    /// By account and number: the history.
    Message = 7,
    /// By number: incoming messages that the application has not processed.
    Unshown = 8,
    /// By content id: what was shown.
    Seen = 9,
    /// By position: envelopes that wait for a look-up.
    Held = 10,
    /// By account and content id: receipts to send.
    Receipt = 11,
    /// By slot, of a ring: what was rejected.
    Quarantine = 12,
    /// By conversation: where it stands.
    Conversation = 13,
    /// By conversation: what it is to become, and a commit that waits.
    Intent = 14,
    /// Pages of what MLS keeps.
    Mls = 15,
    /// By the key of its record: own key packages, and when they were made.
    KeyPackage = 16,
    /// By envelope: Welcomes whose bytes are still to be fetched.
    Welcome = 17,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 17] = [
        Table::Own,
        Table::Contact,
        Table::Handle,
        Table::Channel,
        Table::Outgoing,
        Table::Sent,
        Table::Message,
        Table::Unshown,
        Table::Seen,
        Table::Held,
        Table::Receipt,
        Table::Quarantine,
        Table::Conversation,
        Table::Intent,
        Table::Mls,
        Table::KeyPackage,
        Table::Welcome,
    ];

    /// The tables that [`crate::Engine::load`] wants, whole. The others are read by the application, in pieces.
    pub const LOADED: [Table; 13] = [
        Table::Own,
        Table::Contact,
        Table::Handle,
        Table::Channel,
        Table::Outgoing,
        Table::Seen,
        Table::Held,
        Table::Receipt,
        Table::Conversation,
        Table::Intent,
        Table::Mls,
        Table::KeyPackage,
        Table::Welcome,
    ];
}

/// A change of one record.
#[derive(Clone)]
pub enum Change {
    /// The record has this value from now on.
    Put {
        /// Which table.
        table: Table,
        /// Which record.
        key: Vec<u8>,
        /// Its value.
        value: Zeroizing<Vec<u8>>,
    },
    /// The record is gone.
    Delete {
        /// Which table.
        table: Table,
        /// Which record.
        key: Vec<u8>,
    },
}

impl Change {
    /// Which record it changes: its table and key.
    pub fn record(&self) -> (Table, &[u8]) {
        match self {
            Change::Put { table, key, .. } | Change::Delete { table, key } => (*table, key),
        }
    }
}

impl std::fmt::Debug for Change {
    /// The value is not printed: it holds keys and plaintext.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::Put { table, value, .. } => write!(f, "Put({table:?}, {} bytes)", value.len()),
            Change::Delete { table, .. } => write!(f, "Delete({table:?})"),
        }
    }
}

/// A record that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordError {
    /// Written by a newer program.
    Newer,
    /// Damaged.
    Damaged,
}

const VERSION: u8 = 1;

/// Writes a record.
pub(crate) fn encode(record: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    record.tls_serialize(&mut bytes).expect("records are bounded by the limits of what they hold");
    bytes
}

/// Reads a record, whole.
pub(crate) fn decode<T: DeserializeBytes + Size>(bytes: &[u8]) -> Result<T, RecordError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => T::tls_deserialize_exact_bytes(body).map_err(|_| RecordError::Damaged),
        Some((&newer, _)) if newer > VERSION => Err(RecordError::Newer),
        _ => Err(RecordError::Damaged),
    }
}

/// Key of [`Table::Own`]: the device's private keys.
pub(crate) const SECRETS: &[u8] = b"secrets";
/// Key of [`Table::Own`]: new private keys that are not published yet.
pub(crate) const NEXT_SECRETS: &[u8] = b"next-secrets";
/// Key of [`Table::Own`]: [`OwnRecord`].
pub(crate) const PROFILE: &[u8] = b"profile";
/// Key of [`Table::Own`]: [`IncarnationRecord`].
pub(crate) const INCARNATION: &[u8] = b"incarnation";
/// Key of [`Table::Own`]: [`ProgressRecord`].
pub(crate) const PROGRESS: &[u8] = b"progress";

/// Text in a record.
#[derive(Clone, PartialEq, Eq, Debug, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct Text(TlsByteVecU24);

impl Text {
    pub(crate) fn new(text: &str) -> Text {
        Text(text.as_bytes().into())
    }

    pub(crate) fn read(&self) -> Result<String, RecordError> {
        String::from_utf8(self.0.as_slice().to_vec()).map_err(|_| RecordError::Damaged)
    }

    pub(crate) fn read_handle(&self) -> Result<Handle, RecordError> {
        Handle::parse(&self.read()?).map_err(|_| RecordError::Damaged)
    }
}

/// Whose device this is.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct OwnRecord {
    pub(crate) relay_name: Text,
    pub(crate) relay_key: Option<[u8; 32]>,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) handle: Text,
    pub(crate) invite: Text,
    pub(crate) inbox: InboxAddress,
    pub(crate) registered: u8,
    pub(crate) behind: u8,
    pub(crate) receipt_delay_ms: u64,
    pub(crate) presence: Option<PresenceToken>,
    pub(crate) classical: u8,
    pub(crate) key_packages: u32,
    pub(crate) lists_due: u8,
    pub(crate) entries: Vec<TlsByteVecU24>,
    /// An entry for the own account log that the relay has not confirmed.
    pub(crate) publishing: Option<TlsByteVecU24>,
    /// Where the device that it adds is written to.
    pub(crate) publishing_inbox: Option<InboxAddress>,
}

/// N3.
#[derive(Clone, Copy, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct IncarnationRecord {
    pub(crate) committed: Incarnation,
    pub(crate) pending: Incarnation,
}

/// What moves with each message.
#[derive(Clone, Copy, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct ProgressRecord {
    /// Everything in the inbox at or before it is done.
    pub(crate) cursor: Position,
    /// The number of the next message, either way.
    pub(crate) next: u64,
    /// How many envelopes were rejected.
    pub(crate) rejected: u64,
}

/// A contact.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct ContactRecord {
    pub(crate) handle: Option<Text>,
    pub(crate) entries: Vec<TlsByteVecU24>,
    pub(crate) inboxes: Vec<(DeviceId, InboxAddress)>,
    pub(crate) standing: u8,
    pub(crate) verified_at_entry: Option<u64>,
    pub(crate) rival: Option<RivalRecord>,
    pub(crate) token: Option<PresenceToken>,
    pub(crate) handed: Option<PresenceToken>,
    pub(crate) waiting: u32,
}

/// Another account that has the handle of a contact now.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct RivalRecord {
    pub(crate) entries: Vec<TlsByteVecU24>,
    pub(crate) inboxes: Vec<(DeviceId, InboxAddress)>,
    /// Whether the person decided to stay with the old one.
    pub(crate) declined: u8,
}

/// The state of one key of direct mode.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub(crate) enum ChannelRecord {
    #[tls_codec(discriminant = 1)]
    Sending { account: AccountId, next: u32 },
    #[tls_codec(discriminant = 2)]
    Receiving { account: AccountId, window: TlsByteVecU24 },
}

/// A message that was shown, and the counter that it came with.
#[derive(Clone, Copy, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct SeenRecord {
    pub(crate) at: Time,
    pub(crate) commitment: [u8; 32],
    pub(crate) counter: u32,
}

/// An outgoing message.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct OutgoingRecord {
    pub(crate) to: Option<AccountId>,
    pub(crate) group: Option<ConversationId>,
    pub(crate) handle: Option<Text>,
    /// Whether it is a message of a person; the rest is receipts, tokens and the like.
    pub(crate) message: u8,
    pub(crate) state: u8,
    pub(crate) at: Time,
    pub(crate) said_at: Option<Position>,
    pub(crate) content: TlsByteVecU24,
    pub(crate) id: Option<ContentId>,
    pub(crate) sealed: Option<SealedRecord>,
    pub(crate) reseals: u32,
}

/// Sealed bytes: the same go again until they are accepted (L4).
#[derive(Clone, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct SealedRecord {
    pub(crate) envelope: EnvelopeId,
    pub(crate) way: WayRecord,
    pub(crate) order: u64,
    pub(crate) entry: TlsByteVecU24,
    pub(crate) position: Option<Position>,
}

/// Where sealed bytes go, and until when they are good.
#[derive(Clone, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub(crate) enum WayRecord {
    #[tls_codec(discriminant = 1)]
    Direct { inbox: InboxAddress, commitment: [u8; 32] },
    #[tls_codec(discriminant = 2)]
    Conversation { conversation: ConversationId },
}

/// Where a conversation stands.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct ConversationRecord {
    pub(crate) kind: ConversationKind,
    pub(crate) peer: Option<AccountId>,
    pub(crate) nonce: Option<[u8; 16]>,
    /// The name of its MLS records; empty: there are none.
    pub(crate) group: TlsByteVecU8,
    pub(crate) flags: u16,
    pub(crate) cursor: Position,
    pub(crate) newest_commit: Position,
    pub(crate) chain: Chain,
    pub(crate) joined_by: Option<EnvelopeId>,
    pub(crate) own_leaves: Vec<EnvelopeId>,
    pub(crate) generation: u32,
    pub(crate) sealed: u32,
    pub(crate) updated_at: Time,
    pub(crate) update_due: Option<Time>,
    pub(crate) leaving: Vec<AccountId>,
    pub(crate) missed_behind: Option<Position>,
    pub(crate) asked_for: Vec<(Position, Position)>,
    pub(crate) grown_at: Position,
}

/// What a conversation is to become.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct IntentRecord {
    pub(crate) intents: Vec<WantRecord>,
    pub(crate) pending: Option<PendingRecord>,
    pub(crate) readds: Vec<ReaddRecord>,
    pub(crate) own_readd: Option<TlsByteVecU24>,
    pub(crate) lost: Option<LostRecord>,
}

#[derive(Clone, Debug, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct LostRecord {
    pub(crate) group: TlsByteVecU8,
    pub(crate) members: Vec<(AccountId, DeviceId, InboxAddress)>,
    pub(crate) roster: RosterHash,
    pub(crate) data: TlsByteVecU24,
}

#[derive(Clone, Debug, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct ReaddRecord {
    pub(crate) device: DeviceId,
    pub(crate) entry: TlsByteVecU24,
}

#[derive(Clone, Debug, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub(crate) enum WantRecord {
    #[tls_codec(discriminant = 1)]
    Add { account: AccountId },
    #[tls_codec(discriminant = 2)]
    Remove { account: AccountId },
    #[tls_codec(discriminant = 3)]
    Rename { name: Text },
    #[tls_codec(discriminant = 4)]
    SetRole { account: AccountId, role: Role },
    #[tls_codec(discriminant = 5)]
    Update,
    #[tls_codec(discriminant = 6)]
    Readmit { device: DeviceId },
    #[tls_codec(discriminant = 7)]
    AddDevice { device: DeviceId },
    #[tls_codec(discriminant = 8)]
    DropDevice { device: DeviceId },
}

/// A commit that waits for its position.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct PendingRecord {
    pub(crate) envelope: EnvelopeId,
    pub(crate) creates: u8,
    pub(crate) entry: TlsByteVecU24,
    pub(crate) before: RosterHash,
    pub(crate) roster: Vec<InboxAddress>,
    pub(crate) welcomes: Vec<(InboxAddress, TlsByteVecU24)>,
    pub(crate) blob: Option<TlsByteVecU24>,
}

/// An envelope that waits for a look-up.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct HeldRecord {
    pub(crate) position: Position,
    pub(crate) hint: DeviceHint,
    pub(crate) at: Time,
    pub(crate) entry: TlsByteVecU24,
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct MessageRecord {
    pub(crate) incoming: u8,
    pub(crate) from: Option<AccountId>,
    pub(crate) id: Option<ContentId>,
    pub(crate) at: Time,
    pub(crate) content: TlsByteVecU24,
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct UnshownRecord {
    pub(crate) from: AccountId,
    pub(crate) group: Option<ConversationId>,
    pub(crate) handle: Option<Text>,
    pub(crate) request: u8,
    pub(crate) id: ContentId,
    pub(crate) at: Time,
    pub(crate) content: TlsByteVecU24,
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct QuarantineRecord {
    /// The conversation in whose log it stood; else it was in the inbox.
    pub(crate) conversation: Option<ConversationId>,
    pub(crate) position: Position,
    pub(crate) reason: u8,
    pub(crate) envelope: Option<EnvelopeId>,
    pub(crate) at: Time,
    pub(crate) hash: [u8; 32],
}

/// The key of [`Table::Message`].
pub(crate) fn message_key(talk: Talk, number: u64) -> Vec<u8> {
    [&talk.as_bytes()[..], &number.to_be_bytes()].concat()
}

/// The key of [`Table::Receipt`].
pub(crate) fn receipt_key(account: AccountId, id: ContentId) -> Vec<u8> {
    [account.0, id.0].concat()
}

/// Whom one talks with: a person, on whatever devices and in whatever mode, or a group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Talk {
    /// A person.
    Person(AccountId),
    /// A group.
    Group(ConversationId),
}

impl Talk {
    /// Both are hashes, and no account is a conversation.
    fn as_bytes(&self) -> &[u8; 32] {
        match self {
            Talk::Person(account) => &account.0,
            Talk::Group(conversation) => &conversation.0,
        }
    }
}

/// A message of the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredMessage {
    /// With whom: the account, or the group's id.
    pub with: [u8; 32],
    /// Whose, where it came in a group.
    pub from: Option<AccountId>,
    /// Grows with each message, either way.
    pub number: u64,
    /// Whether it came, or went.
    pub incoming: bool,
    /// Its content id; an outgoing one has none until its receiver is known.
    pub id: Option<ContentId>,
    /// When: incoming by the relay's clock, outgoing by the own one.
    pub at: Time,
    /// What it says.
    pub content: Content,
}

impl StoredMessage {
    /// Reads a record of [`Table::Message`]; `None` if it is damaged.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<StoredMessage> {
        let (account, number) = key.split_at_checked(32)?;
        let record: MessageRecord = decode(value).ok()?;
        Some(StoredMessage {
            with: account.try_into().ok()?,
            from: record.from,
            number: u64::from_be_bytes(number.try_into().ok()?),
            incoming: record.incoming == 1,
            id: record.id,
            at: record.at,
            content: Content::decode(record.content.as_slice()).ok()?,
        })
    }

    /// Reads a record of [`Table::Unshown`]: the message, and whether it is a stranger's; `None` if it is damaged.
    pub fn decode_unshown(key: &[u8], value: &[u8]) -> Option<(Incoming, bool)> {
        let record: UnshownRecord = decode(value).ok()?;
        let incoming = Incoming {
            number: u64::from_be_bytes(key.try_into().ok()?),
            from: record.from,
            group: record.group,
            handle: record.handle.map(|handle| handle.read_handle()).transpose().ok()?,
            id: record.id,
            content: Content::decode(record.content.as_slice()).ok()?,
            at: record.at,
        };
        Some((incoming, record.request == 1))
    }

    /// The keys of one talk's messages begin with these bytes.
    pub fn prefix(talk: Talk) -> Vec<u8> {
        talk.as_bytes().to_vec()
    }
}

/// The state of an outgoing message, as [`Table::Outgoing`] and [`Table::Sent`] keep it.
pub struct StoredState;

impl StoredState {
    /// Reads a record of either table; `None` if it is damaged.
    pub fn decode(table: Table, value: &[u8]) -> Option<MessageState> {
        match table {
            Table::Outgoing => state_from_byte(decode::<OutgoingRecord>(value).ok()?.state),
            Table::Sent => state_from_byte(decode::<u8>(value).ok()?),
            _ => None,
        }
    }
}

/// A rejected envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredQuarantine {
    /// In which conversation's log it stood; `None`: in the inbox.
    pub conversation: Option<ConversationId>,
    /// Where it stood there.
    pub position: Position,
    /// Why it was rejected.
    pub reason: QuarantineReason,
    /// Its id, where it has one.
    pub envelope: Option<EnvelopeId>,
    /// When it was rejected, by the own clock.
    pub at: Time,
    /// SHA-256 of its bytes.
    pub hash: [u8; 32],
}

impl StoredQuarantine {
    /// Reads a record of [`Table::Quarantine`]; `None` if it is damaged.
    pub fn decode(value: &[u8]) -> Option<StoredQuarantine> {
        let record: QuarantineRecord = decode(value).ok()?;
        Some(StoredQuarantine {
            conversation: record.conversation,
            position: record.position,
            reason: QuarantineReason::ALL.into_iter().find(|reason| *reason as u8 == record.reason)?,
            envelope: record.envelope,
            at: record.at,
            hash: record.hash,
        })
    }
}

impl QuarantineReason {
    /// Every reason.
    pub const ALL: [QuarantineReason; 14] = [
        QuarantineReason::Malformed,
        QuarantineReason::Unsupported,
        QuarantineReason::UnknownSender,
        QuarantineReason::BadSender,
        QuarantineReason::OtherKey,
        QuarantineReason::Rejected,
        QuarantineReason::BadContent,
        QuarantineReason::Blocked,
        QuarantineReason::NotAccepted,
        QuarantineReason::TooLate,
        QuarantineReason::InvalidCommit,
        QuarantineReason::OutOfOrder,
        QuarantineReason::OtherEpoch,
        QuarantineReason::BadWelcome,
    ];
}

pub(crate) fn state_from_byte(byte: u8) -> Option<MessageState> {
    use MessageState::*;
    [Queued, Accepted, Delivered, Read, Unsent].into_iter().find(|state| *state as u8 == byte)
}
