//! What an application is told.

use sealwire_keys::SafetyNumber;
use sealwire_wire::content::Content;
use sealwire_wire::conversation::ConversationKind;
use sealwire_wire::handle::Handle;
use sealwire_wire::{AccountId, Code, ContentId, ConversationId, DeviceId, EnvelopeId, Time};

/// The states of an outgoing message (L8). They only go forward, but for `Unsent`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum MessageState {
    /// Saved here.
    Queued = 1,
    /// Durable at the relay.
    Accepted = 2,
    /// Durable on a device of its receiver, by a sealed receipt.
    Delivered = 3,
    /// Seen by its receiver, by a sealed receipt.
    Read = 4,
    /// It will not be sent.
    Unsent = 5,
}

/// Why a message will not be sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnsentReason {
    /// Nobody has that handle.
    NotFound,
    /// The account was ended.
    Retired,
    /// The contact has no device that this one can write to.
    NoCommonMode,
    /// The relay refused it for good.
    Refused(Code),
    /// The relay's answer about the receiver does not verify.
    BadAnswer,
    /// This device is not in that group any more.
    NoMember,
}

/// An incoming message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incoming {
    /// Grows with each message; for [`crate::Command::Shown`].
    pub number: u64,
    /// Whose.
    pub from: AccountId,
    /// In which group; `None`: to this account alone.
    pub group: Option<ConversationId>,
    /// Their handle, as the relay told it.
    pub handle: Option<Handle>,
    /// The same whatever envelope carried it.
    pub id: ContentId,
    /// What it says.
    pub content: Content,
    /// When the relay accepted it, by its clock.
    pub at: Time,
}

/// A stranger's request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestView {
    /// Their first message, or a later one that waits too.
    pub message: Incoming,
    /// To compare.
    pub safety_number: SafetyNumber,
}

/// Why an envelope was quarantined (L7). Its id, the reason and a hash are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum QuarantineReason {
    /// Not an entry, or not a direct-mode envelope.
    Malformed = 1,
    /// Of a kind that this version cannot read.
    Unsupported = 2,
    /// Its sender is not known to the relay.
    UnknownSender = 3,
    /// What the relay says of its sender does not verify.
    BadSender = 4,
    /// Sealed to or with a key that is not in force (D3).
    OtherKey = 5,
    /// The tag does not verify.
    Rejected = 6,
    /// Authentic, but not content.
    BadContent = 7,
    /// Its sender is blocked.
    Blocked = 8,
    /// A stranger who has too much waiting, or sent what only contacts may.
    NotAccepted = 9,
    /// Authentic, but so far behind what came before that nothing tells whether it was shown already.
    TooLate = 10,
    /// A commit that is invalid for all members alike (C2); it costs a position.
    InvalidCommit = 11,
    /// It names another commit than the one in force at its position, so that no member reads it (L2).
    OutOfOrder = 12,
    /// Sealed in another epoch than the one in force at its position.
    OtherEpoch = 13,
    /// A Welcome that leads nowhere.
    BadWelcome = 14,
}

/// Why logging in does not go on by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogInProblem {
    /// The relay calls itself otherwise than the client is configured.
    OtherRelay {
        /// What it calls itself.
        found: String,
    },
    /// The relay's key is not the pinned one.
    RelayKeyChanged,
    /// The relay has no inboxes, or speaks another protocol.
    Unsuitable,
    /// The relay refused.
    Refused(Code, String),
    /// This device was taken from its account.
    Revoked,
    /// This device was handed everything, and the one that links it has not listed it yet. It is tried again.
    NotLinkedYet,
}

/// Why linking has ended without a new device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkEnd {
    /// The code is unknown to the relay: mistyped, used by another device, or too old.
    #[error("nobody waits for that code: it is mistyped, or used, or older than a minute; ask for a new one")]
    CodeUsed,
    /// Nobody has read the code, or nobody has compared the digits in time.
    #[error("it took too long; ask for a new code")]
    TimedOut,
    /// The person says that the digits differ.
    #[error("the digits differ, so somebody may stand between the devices; nothing was handed over")]
    Declined,
    /// What came is not of the other device.
    #[error("what came was not from the other device; ask for a new code")]
    Garbled,
    /// The connection ended before it was done.
    #[error("the connection ended before it was done; ask for a new code")]
    Cut,
    /// The relay offers no meetings, or is another one.
    #[error("the relay refused: it is older than this program, or not the one of the code")]
    Refused,
    /// There are more contacts than can be handed over.
    #[error("there is more to hand over than fits")]
    TooMuch,
}

/// What an application is told. Each comes after what it tells of is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Logged in; what waited is on its way.
    Connected,
    /// The connection is gone; it will be tried again at this time, or not by itself.
    Disconnected {
        /// When.
        again_at: Option<Time>,
    },
    /// The account exists at the relay.
    Registered {
        /// Its name.
        handle: Handle,
        /// Its id.
        account: AccountId,
    },
    /// The relay did not take the handle; choose another.
    RegistrationRefused {
        /// Which one.
        handle: Handle,
        /// Why.
        code: Code,
    },
    /// A message came.
    Message(Incoming),
    /// Somebody unknown wrote. They learn nothing until accepted.
    Request(RequestView),
    /// An outgoing message got further.
    State {
        /// Its number.
        number: u64,
        /// Whom it is for, where that is known.
        to: Option<AccountId>,
        /// Where it is now.
        state: MessageState,
        /// Why, if it will not be sent.
        reason: Option<UnsentReason>,
    },
    /// This device is in a conversation now, that somebody else began or added it to.
    Joined {
        /// Which one.
        conversation: ConversationId,
        /// What kind.
        kind: ConversationKind,
        /// Its name.
        name: String,
        /// Who added this device.
        by: AccountId,
    },
    /// The members of a group changed.
    Members {
        /// Which one.
        conversation: ConversationId,
        /// Who changed them.
        by: AccountId,
        /// Accounts that are in it now.
        added: Vec<AccountId>,
        /// Accounts that are not in it any more.
        removed: Vec<AccountId>,
    },
    /// A group's name or roles changed.
    Renamed {
        /// Which one.
        conversation: ConversationId,
        /// Who changed it.
        by: AccountId,
        /// Its name now.
        name: String,
    },
    /// This device is not in a conversation any more.
    Removed {
        /// Which one.
        conversation: ConversationId,
        /// By whom.
        by: AccountId,
    },
    /// What was wanted of a conversation cannot be done: nobody of that account can be added, or this member may not.
    NotDone {
        /// Which one.
        conversation: ConversationId,
        /// About whom, where it is about somebody.
        account: Option<AccountId>,
    },
    /// What a member has read is not what came here (L5): the relay shows its members different orders. Only a hint, until
    /// signed heads are compared.
    OrderContradicted {
        /// Where.
        conversation: ConversationId,
        /// Whose message says so; the own account: what the relay delivers again is not what it had delivered.
        by: AccountId,
    },
    /// This device cannot follow a conversation: entries are gone that it needs.
    Behind {
        /// Which one.
        conversation: ConversationId,
    },
    /// A contact was found and pinned.
    ContactAdded {
        /// Who.
        account: AccountId,
        /// Under which handle.
        handle: Option<Handle>,
    },
    /// A contact ended their account.
    ContactRetired {
        /// Who.
        account: AccountId,
    },
    /// A contact's devices or keys changed, by their own signature. The safety number is the same.
    ContactChanged {
        /// Who.
        account: AccountId,
        /// Whether the numbers had been compared.
        verified: bool,
    },
    /// A handle belongs to another account now.
    IdentityChanged {
        /// Which handle.
        handle: Handle,
        /// The account that was pinned.
        from: AccountId,
        /// The one that the relay names now.
        to: AccountId,
        /// Whether sending waits for a decision, because the old one was verified.
        blocks: bool,
    },
    /// What the relay hands out about an account contradicts what is pinned, or does not verify. It was ignored.
    BadAnswer {
        /// Which account, where one is pinned.
        account: Option<AccountId>,
    },
    /// The relay names somebody by a handle that is pinned to another account, or is this account's own. They are shown
    /// by their account; the relay is asked again about the pinned one.
    HandleClaimed {
        /// Which handle.
        handle: Handle,
        /// For whom the relay says it.
        account: AccountId,
    },
    /// A contact who lets this side know is connected, or not any more. The relay says so; nothing proves it.
    Presence {
        /// Who.
        account: AccountId,
        /// Whether connected.
        online: bool,
    },
    /// Messages of a contact are missing before one that came.
    Gap {
        /// Whose.
        account: AccountId,
        /// How many.
        missing: u32,
    },
    /// An envelope was rejected. Nothing of it was shown, and nothing else changed.
    Quarantined {
        /// Which one, where it has an id.
        envelope: Option<EnvelopeId>,
        /// Why.
        reason: QuarantineReason,
    },
    /// This device's store was older than its last log-in. It made new direct keys and goes on.
    StoreRestored,
    /// Another copy of this device's store seems to be in use: sending waits for [`crate::Command::Reclaim`].
    StoreConflict,
    /// The relay was restored from a backup; what it may have lost is sent again.
    RelayRestored,
    /// Messages that came wait in the store and cannot be read. What comes from now on is told.
    StoreDamaged,
    /// The device that has read this one's code shows the same six digits, if nobody stands between: the person compares
    /// them, and decides ([`crate::Command::ConfirmLink`]).
    LinkAsks {
        /// Six digits, in two groups.
        digits: String,
    },
    /// Linking has ended without a new device.
    LinkEnded {
        /// Why.
        reason: LinkEnd,
    },
    /// This account has one more device.
    DeviceAdded {
        /// Which one.
        device: DeviceId,
    },
    /// A device was taken from this account.
    DeviceRevoked {
        /// Which one.
        device: DeviceId,
        /// Whether it is this one: nothing comes to it any more.
        is_this: bool,
    },
    /// Another device of this account has said something.
    SaidElsewhere {
        /// The number of the message in the history.
        number: u64,
        /// In which conversation.
        conversation: ConversationId,
        /// With whom it is, in a conversation of two.
        with: Option<AccountId>,
        /// Its id.
        id: ContentId,
        /// What was said.
        content: Content,
        /// When the relay took it.
        at: Time,
    },
    /// Another connection of this device took over; this one stays away.
    Replaced,
    /// Logging in needs a person.
    LogIn(LogInProblem),
    /// The relay refused something, with a sentence for people.
    Refused {
        /// Why.
        code: Code,
        /// What the relay says of it.
        text: String,
    },
}

impl Event {
    /// Whether a person has to know of it though they ask for nothing: then its kind and whom it is about, of which the
    /// newest one counts. `None` for what is stored or can be asked for, and for what tells of one envelope among many.
    pub fn matters(&self) -> Option<(u8, Option<AccountId>)> {
        Some(match self {
            Event::Registered { .. } => (1, None),
            Event::RegistrationRefused { .. } => (2, None),
            Event::ContactRetired { account } => (3, Some(*account)),
            Event::ContactChanged { account, verified: true } => (4, Some(*account)),
            Event::IdentityChanged { from, .. } => (5, Some(*from)),
            Event::HandleClaimed { account, .. } => (6, Some(*account)),
            Event::StoreRestored => (7, None),
            Event::StoreConflict => (8, None),
            Event::RelayRestored => (9, None),
            Event::StoreDamaged => (10, None),
            Event::Replaced => (11, None),
            Event::LogIn(_) => (12, None),
            Event::Joined { by, .. } => (13, Some(*by)),
            Event::Removed { by, .. } => (14, Some(*by)),
            Event::OrderContradicted { by, .. } => (15, Some(*by)),
            Event::Behind { .. } => (16, None),
            Event::DeviceAdded { .. } => (17, None),
            Event::DeviceRevoked { .. } => (18, None),
            _ => return None,
        })
    }
}
