//! Every number that bounds something, with its reason. Both ends assert them; tests stand at the limit and one past.

/// A frame, which is one WebSocket message (E1): a blob chunk with room to spare, small enough to buffer per connection.
pub const FRAME_MAX: usize = 256 * 1024;
/// Padded plaintext of one message (C12). Larger content is an attachment.
pub const MESSAGE_MAX: usize = 16 * 1024;
/// One piece of a blob (E7): a frame holds one with its header.
pub const BLOB_CHUNK_MAX: usize = 128 * 1024;
/// A blob: a tree of a thousand hybrid leaves with room to grow.
pub const BLOB_MAX: u64 = 16 * 1024 * 1024;
/// An entry of a log: what fits into a frame beside its header and a roster.
pub const ENTRY_MAX: usize = 192 * 1024;
/// A handle's local part in bytes, after PRECIS (E6).
pub const HANDLE_MAX: usize = 64;
/// A host name in bytes (RFC 1035).
pub const HOST_MAX: usize = 253;
/// An invite code in bytes.
pub const INVITE_MAX: usize = 64;
/// Devices that an account has at one time.
pub const DEVICES_MAX: usize = 32;
/// Entries in one account log: 32 devices, each added, rotated a few times and removed, and room.
pub const ACCOUNT_ENTRIES_MAX: usize = 256;
/// One account log entry in bytes: three direct keys and their signature with room for post-quantum keys.
pub const ACCOUNT_ENTRY_MAX: usize = 4 * 1024;
/// Direct-mode keys that a device may list.
pub const DIRECT_KEYS_MAX: usize = 8;
/// Messages under one direct-mode key before a hard stop (D2): random 96-bit IVs stay far from a collision.
pub const DIRECT_MESSAGES_MAX: u32 = 1 << 31;
/// How far behind the newest counter a direct-mode message may arrive and still be told from a replay.
pub const REPLAY_WINDOW: u32 = 1024;
/// Entries waiting in an inbox before messages go: those of the writer who has most there (L9).
pub const INBOX_ENTRIES_MAX: u32 = 100_000;
/// Bytes waiting in an inbox before messages go: those of the writer who has most there (L9).
pub const INBOX_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Entries that a conversation log keeps before the oldest messages go (L9); commits and repairs stay.
pub const CONVERSATION_ENTRIES_MAX: u32 = 1_000_000;
/// Positions back from the newest one whose chain a member keeps, to compare (L5).
pub const CHAINS_KEPT_MAX: usize = 4_096;
/// A conversation's name in bytes.
pub const CONVERSATION_NAME_MAX: usize = 128;
/// Accounts of a conversation that are more than members.
pub const ROLES_MAX: usize = 256;
/// Inboxes in a roster: a thousand devices and room.
pub const ROSTER_MAX: usize = 2_048;
/// First entries when a conversation is created.
pub const FIRST_ENTRIES_MAX: usize = 8;
/// How long a message is kept for those who are away (L9): 30 days.
pub const MESSAGE_RETENTION_MS: u64 = 30 * DAY_MS;
/// How long commits and repairs are kept (L9): 60 days, so that whoever comes back late can still follow.
pub const COMMIT_RETENTION_MS: u64 = 60 * DAY_MS;
/// How long the relay remembers an envelope id (E4): 30 days.
pub const ENVELOPE_MEMORY_MS: u64 = 30 * DAY_MS;
/// Envelope ids of gone entries that a log remembers (E4): as many as an inbox holds. More, and a flood that is read or
/// dropped at once would fill the relay's memory for 30 days.
pub const REMEMBERED_MAX: u32 = 100_000;
/// How long a dropped inbox may restore the roster (C6): 72 hours.
pub const ROSTER_RESTORE_MS: u64 = 3 * DAY_MS;
/// Appends of one connection that may wait for the store at once.
pub const APPENDS_IN_FLIGHT_MAX: u32 = 256;
/// Appends of one connection in a minute: a hundred a second is more than people write and what a full outbox needs to
/// leave in two minutes, while one connection takes a quarter of an hour to bring an empty inbox to its quota.
pub const APPENDS_PER_MINUTE: u32 = 6_000;
/// Of these, how many may come at once: a thousand devices of a group, or what was written during a short absence.
pub const APPENDS_BURST: u32 = 1_000;
/// Delivered but unacknowledged entries per log and connection: a slow reader costs this much and no more.
pub const UNACKNOWLEDGED_MAX: usize = 256;
/// Bytes that one read of a log brings at the most, so that a delivery fits into a frame.
pub const DELIVER_BYTES_MAX: usize = 200 * 1024;
/// Look-ups per device and minute (K1): handles are public to signed-in devices, but not to crawlers.
pub const LOOKUPS_PER_MINUTE: u32 = 120;
/// Look-ups of a client that wait for an answer at once: half of what a relay takes.
pub const LOOKUPS_IN_FLIGHT_MAX: usize = 32;
/// Of these, look-ups of unknown senders: whoever floods an inbox with made-up senders does not hold up the rest.
pub const SENDER_LOOKUPS_IN_FLIGHT_MAX: usize = 16;
/// A key package in bytes (K1): a hybrid one has 2.7 KB; room for larger keys and extensions.
pub const KEY_PACKAGE_MAX: usize = 8 * 1024;
/// One-time key packages that a relay holds for a device (K1): a hundred invitations while it is away. Two frames of
/// hybrid ones.
pub const KEY_PACKAGES_MAX: usize = 100;
/// Accounts per device and minute whose key packages are claimed (K1): whoever drains others' one-time ones waits.
pub const CLAIMS_PER_MINUTE: u32 = 60;
/// How many claims may come at once: a group of 256 accounts begins without a wait.
pub const CLAIMS_BURST: u32 = 256;
/// Replaced direct-mode keys of a contact that still open what they sealed: the newest ones.
pub const SUPERSEDED_KEYS_MAX: usize = 16;
/// Presence tokens that one connection may watch.
pub const WATCHED_TOKENS_MAX: usize = 1_024;
/// Conversation logs that one connection may have attached.
pub const ATTACHED_LOGS_MAX: usize = 1_024;
/// Bytes of one frame between two devices that meet: one message of Noise.
pub const MEETING_BYTES_MAX: usize = 65_535;
/// How long two devices may meet: two minutes.
pub const MEETING_MS: u64 = 2 * 60_000;
/// How long the code of a meeting is good: a minute.
pub const LINK_CODE_MS: u64 = 60_000;
/// Frames that a connection may send in meetings: what is handed over has at most four megabytes.
pub const MEETING_FRAMES_MAX: u32 = 64;
/// Meetings that a relay has at one time.
pub const MEETINGS_MAX: usize = 10_000;
/// Conversation logs that one answer lists: what fits into a frame, with room.
pub const LISTED_LOGS_MAX: usize = 4_096;
/// Commits per device, conversation and minute (L10).
pub const COMMITS_PER_MINUTE: u32 = 4;
/// `Stale` answers in a row, each because of another commit, after which a device has a turn (L10).
pub const STALE_MAX: u32 = 3;
/// How long others' commits wait in a turn (L10): time to read on, to seal again and to send.
pub const TURN_MS: u64 = 2_000;
/// A device has one turn in this time, in each conversation (L10): whoever plays the hindered hinders little.
pub const TURN_EVERY_MS: u64 = 30_000;
/// A client's outgoing messages that are not accepted yet: a day without network.
pub const OUTBOX_MAX: usize = 10_000;
/// Sealed bytes that a client keeps after they were accepted, to repeat to a restored relay (L11).
pub const ACCEPTED_KEPT_MAX: usize = 1_000;
/// Envelopes that a client holds because what they need is not there yet (L7).
pub const HELD_MAX: usize = 1_000;
/// Rejected envelopes that a client remembers; then the oldest go.
pub const QUARANTINE_MAX: u64 = 10_000;
/// Strangers whose requests wait for a decision.
pub const REQUESTS_MAX: usize = 100;
/// Messages that one stranger's request holds.
pub const REQUEST_MESSAGES_MAX: usize = 50;
/// Contacts of one account.
pub const CONTACTS_MAX: usize = 10_000;
/// How often content is sealed again because its receiver's keys changed. Each time takes an entry that the receiver
/// signed; a simulated device whose store was put back four times in two minutes needed four.
pub const RESEALS_MAX: u32 = 16;
/// Messages that a device says again in one conversation and day because others have missed them (C10): what it keeps.
pub const SAID_AGAIN_MAX: usize = 1_000;
/// Content ids in one receipt.
pub const RECEIPT_IDS_MAX: usize = 256;
/// Receipts are gathered this long, one mark per contact (C12): 5 seconds.
pub const RECEIPT_DELAY_MS: u64 = 5_000;
/// A connection that has not logged in after this long is closed: 10 seconds.
pub const LOG_IN_DEADLINE_MS: u64 = 10_000;
/// A connection that is silent this long is pinged; twice this long, it is closed: 30 seconds.
pub const SILENCE_MS: u64 = 30_000;

/// A day in milliseconds.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
