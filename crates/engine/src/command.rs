//! What an application can ask for.

use sealwire_keys::SafetyNumber;
use sealwire_session::linking::CodeSecret;
use sealwire_wire::content::Part;
use sealwire_wire::conversation::{ConversationKind, Role};
use sealwire_wire::handle::Handle;
use sealwire_wire::limits::{CONVERSATION_NAME_MAX, DEVICES_MAX, MESSAGE_MAX, OUTBOX_MAX, ROSTER_MAX};
use sealwire_wire::{AccountId, ContentId, ConversationId, DeviceId, Position, Time};

/// Whom a message is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum To {
    /// Whoever that handle is pinned to, or is found under it.
    Handle(Handle),
    /// A contact.
    Account(AccountId),
    /// The members of a group.
    Group(ConversationId),
}

/// An invite code, or none. Whoever has it can register, so it does not print.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Invite(pub String);

impl std::fmt::Debug for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "Invite(none)" } else { "Invite(..)" })
    }
}

/// What an application can ask for. Each gets one [`Reply`] or [`Refusal`], once it is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Puts a message into the outbox. The reply means: saved, a crash can't lose it.
    Send {
        /// Whom for.
        to: To,
        /// Text or bytes.
        part: Part,
        /// What it replies to.
        in_reply_to: Option<ContentId>,
    },
    /// Finds somebody and pins who that is, without writing to them.
    Find(Handle),
    /// Accepts a stranger's request; from now on they get receipts, and presence if it is on.
    Accept(AccountId),
    /// Drops what somebody sends from now on. They learn nothing of it.
    Block(AccountId),
    /// Takes a block back.
    Unblock(AccountId),
    /// Marks that the safety numbers were compared, or takes the mark back.
    SetVerified(AccountId, bool),
    /// Decides about a handle that now belongs to another account: write to that one, or stay with the old one.
    Decide {
        /// Which handle.
        handle: Handle,
        /// Whether to adopt the new account.
        adopt: bool,
    },
    /// Marks messages of a contact as read by the person, which sends receipts.
    MarkRead(Vec<(AccountId, ContentId)>),
    /// The application has processed the incoming message of this number; it is not replayed at the next start.
    Shown(u64),
    /// Whether contacts may see when this device is connected.
    SetPresence(bool),
    /// Asks for a handle: at the beginning, and again where the first was taken.
    Register {
        /// Which one.
        handle: Handle,
        /// For relays that want one.
        invite: Invite,
    },
    /// "This device is the real one": makes new direct keys though the last ones are younger than a day (N3).
    Reclaim,
    /// "I know that the relay's key changed": pins the new one.
    TrustRelay,
    /// Connects again after [`crate::Event::Replaced`].
    Reconnect,
    /// Ends the account. Nothing can be sent by it or to it afterwards.
    Retire,
    /// Lists the contacts.
    Contacts,
    /// Begins a group with these contacts in it.
    CreateGroup {
        /// Its name.
        name: String,
        /// Who is in it beside this account.
        members: Vec<AccountId>,
    },
    /// Changes a group, as soon as the relay is reached and it is this member's turn. The reply means: saved.
    Change {
        /// Which one.
        conversation: ConversationId,
        /// How.
        change: GroupChange,
    },
    /// Lists the conversations.
    Conversations,
    /// Shows a code for a new device to be linked to this account. It is good for a minute, once.
    Link,
    /// Whether the other device shows the same digits ([`crate::Event::LinkAsks`]).
    ConfirmLink(bool),
    /// Lists the devices of this account.
    Devices,
    /// Takes a device from this account, for good. Needs the relay.
    Revoke(DeviceId),
}

/// A change of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupChange {
    /// Adds contacts.
    Add(Vec<AccountId>),
    /// Removes somebody, with all devices.
    Remove(AccountId),
    /// Names it.
    Rename(String),
    /// Says what somebody may do in it.
    SetRole(AccountId, Role),
    /// Leaves it.
    Leave,
}

/// What became of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// It is done, durably.
    Done,
    /// The message is in the outbox under this number.
    Queued(u64),
    /// Who was found.
    Found(ContactView),
    /// All contacts, by handle.
    Contacts(Vec<ContactView>),
    /// The group that begins.
    Group(ConversationId),
    /// All conversations.
    Conversations(Vec<ConversationView>),
    /// The secret of the code to show.
    LinkCode(CodeSecret),
    /// All devices, in the order in which they were added.
    Devices(Vec<DeviceView>),
}

/// A device of the own account as an application sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceView {
    /// Which one.
    pub device: DeviceId,
    /// When it was added, by the clock of whoever added it.
    pub since: Time,
    /// Whether it is this one.
    pub is_this: bool,
}

/// A conversation as an application sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConversationView {
    /// Which one.
    pub conversation: ConversationId,
    /// What kind.
    pub kind: ConversationKind,
    /// Its name; empty in a conversation of two.
    pub name: String,
    /// The accounts in it, this one too, and what they may do.
    pub members: Vec<(AccountId, Role)>,
    /// How many devices are in it.
    pub devices: usize,
    /// Whether this device is in it, and has what it needs to follow it.
    pub active: bool,
    /// Whether this device was removed from it.
    pub out: bool,
    /// How often its keys were renewed since it began.
    pub epoch: u64,
    /// What all members of that epoch have in common, and nobody else: to compare.
    pub authenticator: Vec<u8>,
    /// Entries that were read of its log.
    pub read_upto: Position,
    /// Changes that wait for their turn.
    pub waiting: usize,
    /// Whether the person asked to leave it, and nobody has removed them yet.
    pub leaving: bool,
    /// Devices of the own account that are not in it yet.
    pub missing_devices: usize,
}

/// A contact as an application sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContactView {
    /// Who.
    pub account: AccountId,
    /// The handle, as the relay told it; `None` where it told none, or one that means somebody else here.
    pub handle: Option<Handle>,
    /// Whether their request was accepted, or this side wrote first.
    pub accepted: bool,
    /// Whether what they send is dropped.
    pub blocked: bool,
    /// Whether the numbers were compared.
    pub verified: bool,
    /// Whether their devices changed since the numbers were compared. The numbers are the same.
    pub changed_since_verified: bool,
    /// Whether their handle now belongs to another account, until [`Command::Decide`]: sending waits for that if
    /// verified; else what is written to the handle goes to the other account already.
    pub handle_moved: bool,
    /// Whether the account was ended by its owner.
    pub retired: bool,
    /// Whether they are connected, where they let this side know.
    pub online: Option<bool>,
    /// To compare with them.
    pub safety_number: SafetyNumber,
}

/// Why a command was refused. Nothing changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A handle of another relay.
    #[error("{0} is at another relay; this account can write to people at {1}")]
    OtherRelay(Handle, String),
    /// Larger than a message.
    #[error("the message has {0} bytes; with its padding at most {MESSAGE_MAX} fit. Larger things will be attachments")]
    TooLarge(usize),
    /// A part that applications do not send.
    #[error("only text and bytes can be sent")]
    NotSendable,
    /// Too much waits already.
    #[error("{OUTBOX_MAX} messages wait to be sent; connect first")]
    OutboxFull,
    /// Nobody of that account is known here.
    #[error("no such contact")]
    UnknownContact,
    /// No contact under that handle, and the relay found none.
    #[error("nobody is called {0} there")]
    NotFound(Handle),
    /// The relay has to be asked again later.
    #[error("the relay asks to wait; try again in {} seconds", .0.div_ceil(1_000))]
    TryAgain(u64),
    /// What the relay handed out does not verify.
    #[error("the relay's answer about {0} does not verify; nothing was taken from it")]
    BadAnswer(Handle),
    /// The contact is blocked.
    #[error("this contact is blocked; unblock it to write to it")]
    Blocked,
    /// The handle belongs to another account than the verified one.
    #[error("{0} now belongs to another account than the one you verified; compare numbers, then decide")]
    IdentityChanged(Handle),
    /// The contact's account was ended.
    #[error("this account was ended by its owner")]
    ContactRetired,
    /// The own account was ended.
    #[error("your account was ended")]
    Retired,
    /// Not connected, and this needs the relay.
    #[error("not connected to the relay")]
    Offline,
    /// Nothing is to be decided.
    #[error("there is nothing to decide")]
    NothingToDecide,
    /// The account has a handle already.
    #[error("this account is registered already")]
    Registered,
    /// More contacts than the limit.
    #[error("too many contacts")]
    TooManyContacts,
    /// No such conversation, or this device is not in it.
    #[error("no such conversation, or you are not in it")]
    UnknownConversation,
    /// Somebody who is not reached by conversations: an account for direct mode alone, or this one itself.
    #[error("this account cannot be added to a group")]
    NotForGroups,
    /// No such device.
    #[error("this account has no such device")]
    UnknownDevice,
    /// The account's last device.
    #[error("this is the account's only device; to end the account, retire it")]
    LastDevice,
    /// As many devices as an account may have.
    #[error("this account has as many devices as it may have ({DEVICES_MAX}); revoke one first")]
    TooManyDevices,
    /// A direct-mode account has no conversations.
    #[error("this account was made for direct mode, which has no groups and no second device")]
    DirectOnly,
    /// More than a group takes.
    #[error(
        "that does not fit: a name has at most {CONVERSATION_NAME_MAX} bytes, a group at most {ROSTER_MAX} devices"
    )]
    TooMuch,
    /// Something that this member's role does not allow.
    #[error("your role in this group does not allow that")]
    NotAllowed,
}
