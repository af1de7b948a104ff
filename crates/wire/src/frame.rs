//! Frames, parsed once: ids have their length, enums their values, and nothing behind this module checks again.
//! One [`ToRelay`] or [`FromRelay`] per binary WebSocket message (E1).

use prost::Message;

use crate::frames as pb;
use crate::limits::{
    BLOB_CHUNK_MAX, ENTRY_MAX, FIRST_ENTRIES_MAX, FRAME_MAX, HANDLE_MAX, INVITE_MAX, KEY_PACKAGE_MAX, KEY_PACKAGES_MAX,
    LISTED_LOGS_MAX, ROSTER_MAX, WATCHED_TOKENS_MAX,
};
use crate::*;

pub use pb::Limits;

/// Correlates a request with its answer; the client counts.
pub type RequestId = u32;

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`FRAME_MAX`].
    #[error("the frame is longer than {FRAME_MAX} bytes")]
    TooLarge,
    /// Not Protocol Buffers.
    #[error("the frame is not Protocol Buffers")]
    Encoding,
    /// A kind of frame that this version does not know, or none.
    #[error("unknown frame kind")]
    UnknownKind,
    /// A field is missing, or of the wrong length or value.
    #[error("field {0} is missing or malformed")]
    Field(&'static str),
    /// A field holds more than its limit.
    #[error("field {0} is larger than its limit")]
    Limit(&'static str),
}

impl FrameError {
    /// The code that the relay answers with.
    pub fn code(self) -> Code {
        match self {
            FrameError::TooLarge | FrameError::Limit(_) => Code::TooLarge,
            FrameError::UnknownKind => Code::UnknownFrame,
            FrameError::Encoding | FrameError::Field(_) => Code::Malformed,
        }
    }
}

/// From a client to its relay. `spec/frames.md` says what each is for.
#[expect(missing_docs, reason = "spec/sealwire.proto documents each frame and field, under the same names")]
#[derive(Clone, PartialEq, Debug)]
pub enum ToRelay {
    LogIn {
        device_key: [u8; 32],
        incarnation: Incarnation,
        pending: Incarnation,
        binding: Vec<u8>,
        signature: [u8; 64],
    },
    Append {
        log: LogId,
        entry: Vec<u8>,
        roster: Option<RosterChange>,
    },
    Ack {
        log: LogId,
        upto: Position,
    },
    Lookup {
        request: RequestId,
        by: LookupBy,
    },
    Register {
        request: RequestId,
        handle: String,
        genesis: Vec<u8>,
        inbox: InboxAddress,
        invite: String,
    },
    Publish {
        request: RequestId,
        entry: Vec<u8>,
        inbox: Option<InboxAddress>,
    },
    SetPresence {
        token: Option<PresenceToken>,
    },
    Watch {
        tokens: Vec<PresenceToken>,
    },
    Attach {
        request: RequestId,
        conversation: ConversationId,
    },
    CreateConversation {
        request: RequestId,
        conversation: ConversationId,
        entries: Vec<Vec<u8>>,
        inboxes: Vec<InboxAddress>,
        welcomes: Vec<Welcome>,
        proof: IdProof,
    },
    GetHead {
        request: RequestId,
        conversation: ConversationId,
    },
    PutBlob {
        request: RequestId,
        hash: BlobHash,
        size: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    GetBlob {
        request: RequestId,
        hash: BlobHash,
        offset: u64,
    },
    PublishKeyPackages {
        request: RequestId,
        replace: bool,
        one_time: Vec<Vec<u8>>,
        last_resort: Option<Vec<u8>>,
    },
    ListLogs {
        request: RequestId,
    },
    ClaimKeyPackages {
        request: RequestId,
        account: AccountId,
        device: Option<DeviceId>,
    },
    Meet {
        request: RequestId,
        meeting: MeetingId,
        bytes: Vec<u8>,
    },
}

/// Whom a look-up asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LookupBy {
    /// By name, without the host.
    Handle(String),
    /// By account.
    Account(AccountId),
    /// By the first half of a device id, as envelopes carry it.
    Device(DeviceHint),
}

/// Why whoever creates a conversation may take its id (C8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdProof {
    /// It is that of the conversation with this account.
    Peer(AccountId),
    /// It is that of the creator's group with this nonce.
    Nonce([u8; 16]),
}

/// A commit's change of who reads a conversation log (C6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RosterChange {
    /// The roster that it replaces.
    pub before: RosterHash,
    /// The new one, sorted, without doubles.
    pub inboxes: Vec<InboxAddress>,
    /// For those who join.
    pub welcomes: Vec<Welcome>,
}

/// A Welcome on its way to an inbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Whose.
    pub inbox: InboxAddress,
    /// The entry's bytes.
    pub entry: Vec<u8>,
}

/// From a relay to its client. `spec/frames.md` says what each is for.
#[expect(missing_docs, reason = "spec/sealwire.proto documents each frame and field, under the same names")]
#[derive(Clone, PartialEq, Debug)]
pub enum FromRelay {
    Hello(Hello),
    Accepted {
        envelope: EnvelopeId,
        position: Position,
    },
    Deliver {
        log: LogId,
        entries: Vec<Delivered>,
    },
    Failed(Failed),
    LoggedIn(LoggedIn),
    Done {
        request: RequestId,
    },
    Found {
        request: RequestId,
        handle: String,
        entries: Vec<Vec<u8>>,
        devices: Vec<(DeviceId, InboxAddress)>,
    },
    Stale {
        envelope: EnvelopeId,
        newest_commit: Position,
    },
    Trimmed {
        log: LogId,
        position: Position,
        chain: Option<Chain>,
    },
    Presence {
        token: PresenceToken,
        online: bool,
    },
    Head {
        request: RequestId,
        conversation: ConversationId,
        length: Position,
        chain: Chain,
        signature: [u8; 64],
    },
    Blob {
        request: RequestId,
        size: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    KeyPackages {
        request: RequestId,
        packages: Vec<KeyPackage>,
    },
    Met {
        meeting: MeetingId,
        bytes: Vec<u8>,
    },
    Logs {
        request: RequestId,
        conversations: Vec<ConversationId>,
    },
    Attached {
        request: RequestId,
        read_upto: Position,
        chain: Option<Chain>,
        newest_commit: Position,
        length: Position,
        /// Of the roster; `None` for who was dropped from it.
        roster: Option<RosterHash>,
    },
}

/// The first frame on a connection.
#[derive(Clone, PartialEq, Debug)]
pub struct Hello {
    /// The host part of this relay's handles.
    pub relay_name: String,
    /// Ed25519; signs heads, and names the relay in log-ins.
    pub relay_key: [u8; 32],
    /// Of the store.
    pub instance: InstanceId,
    /// To be signed in `LogIn`.
    pub challenge: [u8; 32],
    /// What this relay offers.
    pub features: Vec<String>,
    /// What it bounds.
    pub limits: Limits,
    /// `open`, `invite` or `closed`.
    pub registration: String,
    /// The relay's clock; a hint, never an authority.
    pub time: Time,
}

/// A log-in's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoggedIn {
    /// The key is proven, no account has it.
    Unregistered,
    /// The device has an account.
    Registered {
        /// The incarnation was neither of the two expected (N3).
        restored: bool,
        /// Whose device it is.
        account: AccountId,
        /// The account's name at this relay.
        handle: String,
        /// The device's inbox.
        inbox: InboxAddress,
        /// What the device has acknowledged in it.
        read_upto: Position,
        /// Entries in the account log that the relay holds.
        account_entries: u64,
        /// The hash of the newest of them.
        account_head: [u8; 32],
        /// One-time key packages that the relay still holds for this device.
        key_packages: u32,
    },
}

/// One delivered entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// Where it stands in its log.
    pub position: Position,
    /// The entry's bytes.
    pub entry: Vec<u8>,
    /// When the relay accepted it, by its own clock.
    pub at: Time,
}

/// A claimed key package of a device (K1). Its bytes are the relay's word until they verify.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPackage {
    /// Whose.
    pub device: DeviceId,
    /// Where its Welcome goes.
    pub inbox: InboxAddress,
    /// As the device published it.
    pub bytes: Vec<u8>,
    /// Whether it is the last-resort one, which others get or got, too.
    pub is_last_resort: bool,
}

/// A refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// Why.
    pub code: Code,
    /// Which request; 0 where there is none.
    pub request: RequestId,
    /// Which envelope, where there is one.
    pub envelope: Option<EnvelopeId>,
    /// When a repetition may help; 0: it will not.
    pub retry_after_ms: u64,
    /// For people.
    pub text: String,
}

impl ToRelay {
    /// One binary WebSocket message.
    pub fn encode(&self) -> Vec<u8> {
        use pb::to_relay::Frame;
        let frame = match self.clone() {
            ToRelay::LogIn { device_key, incarnation, pending, binding, signature } => Frame::LogIn(pb::LogIn {
                device_key: device_key.to_vec(),
                incarnation: incarnation.0.to_vec(),
                pending: pending.0.to_vec(),
                binding,
                signature: signature.to_vec(),
            }),
            ToRelay::Append { log, entry, roster } => {
                let roster = roster.map(|change| pb::RosterChange {
                    before: change.before.0.to_vec(),
                    inboxes: change.inboxes.iter().map(|inbox| inbox.0.to_vec()).collect(),
                    welcomes: change.welcomes.into_iter().map(Welcome::into_wire).collect(),
                });
                Frame::Append(pb::Append { log: log.as_bytes().to_vec(), entry, roster })
            }
            ToRelay::Ack { log, upto } => Frame::Ack(pb::Ack { log: log.as_bytes().to_vec(), upto: upto.0 }),
            ToRelay::Lookup { request, by } => {
                use pb::lookup::By;
                let by = match by {
                    LookupBy::Handle(handle) => By::Handle(handle),
                    LookupBy::Account(account) => By::Account(account.0.to_vec()),
                    LookupBy::Device(hint) => By::DeviceHint(hint.0.to_vec()),
                };
                Frame::Lookup(pb::Lookup { request, by: Some(by) })
            }
            ToRelay::Register { request, handle, genesis, inbox, invite } => {
                Frame::Register(pb::Register { request, handle, genesis, inbox: inbox.0.to_vec(), invite })
            }
            ToRelay::Publish { request, entry, inbox } => {
                let inbox = inbox.map_or(Vec::new(), |inbox| inbox.0.to_vec());
                Frame::Publish(pb::Publish { request, entry, inbox })
            }
            ToRelay::SetPresence { token } => {
                Frame::SetPresence(pb::SetPresence { token: token.map_or(Vec::new(), |token| token.0.to_vec()) })
            }
            ToRelay::Watch { tokens } => {
                Frame::Watch(pb::Watch { tokens: tokens.iter().map(|token| token.0.to_vec()).collect() })
            }
            ToRelay::Attach { request, conversation } => {
                Frame::Attach(pb::Attach { request, conversation: conversation.0.to_vec() })
            }
            ToRelay::CreateConversation { request, conversation, entries, inboxes, welcomes, proof } => {
                use pb::create_conversation::Proof;
                let proof = match proof {
                    IdProof::Peer(account) => Proof::Peer(account.0.to_vec()),
                    IdProof::Nonce(nonce) => Proof::Nonce(nonce.to_vec()),
                };
                Frame::CreateConversation(pb::CreateConversation {
                    request,
                    conversation: conversation.0.to_vec(),
                    entries,
                    inboxes: inboxes.iter().map(|inbox| inbox.0.to_vec()).collect(),
                    welcomes: welcomes.into_iter().map(Welcome::into_wire).collect(),
                    proof: Some(proof),
                })
            }
            ToRelay::GetHead { request, conversation } => {
                Frame::GetHead(pb::GetHead { request, conversation: conversation.0.to_vec() })
            }
            ToRelay::PutBlob { request, hash, size, offset, bytes } => {
                Frame::PutBlob(pb::PutBlob { request, hash: hash.0.to_vec(), size, offset, bytes })
            }
            ToRelay::GetBlob { request, hash, offset } => {
                Frame::GetBlob(pb::GetBlob { request, hash: hash.0.to_vec(), offset })
            }
            ToRelay::PublishKeyPackages { request, replace, one_time, last_resort } => {
                let last_resort = last_resort.unwrap_or_default();
                Frame::PublishKeyPackages(pb::PublishKeyPackages { request, replace, one_time, last_resort })
            }
            ToRelay::ListLogs { request } => Frame::ListLogs(pb::ListLogs { request }),
            ToRelay::Meet { request, meeting, bytes } => {
                Frame::Meet(pb::Meet { request, meeting: meeting.0.to_vec(), bytes })
            }
            ToRelay::ClaimKeyPackages { request, account, device } => {
                let device = device.map_or(Vec::new(), |device| device.0.to_vec());
                Frame::ClaimKeyPackages(pb::ClaimKeyPackages { request, account: account.0.to_vec(), device })
            }
        };
        pb::ToRelay { frame: Some(frame) }.encode_to_vec()
    }

    /// Reads one binary WebSocket message.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<ToRelay, FrameError> {
        use pb::to_relay::Frame;
        if bytes.len() > FRAME_MAX {
            return Err(FrameError::TooLarge);
        }
        let frame =
            pb::ToRelay::decode(bytes).map_err(|_| FrameError::Encoding)?.frame.ok_or(FrameError::UnknownKind)?;
        Ok(match frame {
            Frame::LogIn(f) => ToRelay::LogIn {
                device_key: array("device_key", &f.device_key)?,
                incarnation: id("incarnation", &f.incarnation)?,
                pending: id("pending", &f.pending)?,
                binding: if matches!(f.binding.len(), 0 | 32) {
                    f.binding
                } else {
                    return Err(FrameError::Field("binding"));
                },
                signature: array("signature", &f.signature)?,
            },
            Frame::Append(f) => ToRelay::Append {
                log: id("log", &f.log)?,
                entry: at_most("entry", f.entry, ENTRY_MAX)?,
                roster: f.roster.map(RosterChange::from_wire).transpose()?,
            },
            Frame::Ack(f) => ToRelay::Ack { log: id("log", &f.log)?, upto: Position(f.upto) },
            Frame::Lookup(f) => {
                use pb::lookup::By;
                let by = match f.by.ok_or(FrameError::Field("by"))? {
                    By::Handle(handle) => LookupBy::Handle(text("handle", handle, 4 * HANDLE_MAX)?),
                    By::Account(account) => LookupBy::Account(id("account", &account)?),
                    By::DeviceHint(hint) => LookupBy::Device(id("device_hint", &hint)?),
                };
                ToRelay::Lookup { request: f.request, by }
            }
            Frame::Register(f) => ToRelay::Register {
                request: f.request,
                handle: text("handle", f.handle, 4 * HANDLE_MAX)?,
                genesis: at_most("genesis", f.genesis, limits::ACCOUNT_ENTRY_MAX)?,
                inbox: id("inbox", &f.inbox)?,
                invite: text("invite", f.invite, INVITE_MAX)?,
            },
            Frame::Publish(f) => ToRelay::Publish {
                request: f.request,
                entry: at_most("entry", f.entry, limits::ACCOUNT_ENTRY_MAX)?,
                inbox: optional("inbox", &f.inbox)?,
            },
            Frame::SetPresence(f) if f.token.is_empty() => ToRelay::SetPresence { token: None },
            Frame::SetPresence(f) => ToRelay::SetPresence { token: Some(id("token", &f.token)?) },
            Frame::Watch(f) => ToRelay::Watch { tokens: ids("tokens", &f.tokens, WATCHED_TOKENS_MAX)? },
            Frame::Attach(f) => {
                ToRelay::Attach { request: f.request, conversation: id("conversation", &f.conversation)? }
            }
            Frame::CreateConversation(f) => ToRelay::CreateConversation {
                request: f.request,
                conversation: id("conversation", &f.conversation)?,
                entries: if f.entries.len() <= FIRST_ENTRIES_MAX {
                    f.entries
                } else {
                    return Err(FrameError::Limit("entries"));
                },
                inboxes: roster("inboxes", &f.inboxes)?,
                welcomes: welcomes(f.welcomes)?,
                proof: IdProof::from_wire(f.proof)?,
            },
            Frame::GetHead(f) => {
                ToRelay::GetHead { request: f.request, conversation: id("conversation", &f.conversation)? }
            }
            Frame::PutBlob(f) => ToRelay::PutBlob {
                request: f.request,
                hash: id("hash", &f.hash)?,
                size: f.size,
                offset: f.offset,
                bytes: at_most("bytes", f.bytes, BLOB_CHUNK_MAX)?,
            },
            Frame::GetBlob(f) => ToRelay::GetBlob { request: f.request, hash: id("hash", &f.hash)?, offset: f.offset },
            Frame::PublishKeyPackages(f) => ToRelay::PublishKeyPackages {
                request: f.request,
                replace: f.replace,
                one_time: if f.one_time.len() <= KEY_PACKAGES_MAX {
                    f.one_time.into_iter().map(|bytes| key_package("one_time", bytes)).collect::<Result<_, _>>()?
                } else {
                    return Err(FrameError::Limit("one_time"));
                },
                last_resort: match f.last_resort.is_empty() {
                    true => None,
                    false => Some(key_package("last_resort", f.last_resort)?),
                },
            },
            Frame::ListLogs(f) => ToRelay::ListLogs { request: f.request },
            Frame::ClaimKeyPackages(f) => ToRelay::ClaimKeyPackages {
                request: f.request,
                account: id("account", &f.account)?,
                device: optional("device", &f.device)?,
            },
            Frame::Meet(f) => ToRelay::Meet {
                request: f.request,
                meeting: id("meeting", &f.meeting)?,
                bytes: at_most("bytes", f.bytes, limits::MEETING_BYTES_MAX)?,
            },
        })
    }
}

impl FromRelay {
    /// One binary WebSocket message.
    pub fn encode(&self) -> Vec<u8> {
        self.clone().into_bytes()
    }

    /// The same, where the frame is needed no more: what it delivers is copied once less.
    pub fn into_bytes(self) -> Vec<u8> {
        use pb::from_relay::Frame;
        let frame = match self {
            FromRelay::Hello(hello) => Frame::Hello(pb::Hello {
                relay_name: hello.relay_name,
                relay_key: hello.relay_key.to_vec(),
                instance: hello.instance.0.to_vec(),
                challenge: hello.challenge.to_vec(),
                features: hello.features,
                limits: Some(hello.limits),
                registration: hello.registration,
                time_ms: hello.time.0,
            }),
            FromRelay::Accepted { envelope, position } => {
                Frame::Accepted(pb::Accepted { envelope: envelope.0.to_vec(), position: position.0 })
            }
            FromRelay::Deliver { log, entries } => {
                let entries = entries
                    .into_iter()
                    .map(|entry| pb::Delivered { position: entry.position.0, entry: entry.entry, at_ms: entry.at.0 })
                    .collect();
                Frame::Deliver(pb::Deliver { log: log.as_bytes().to_vec(), entries })
            }
            FromRelay::Failed(failed) => Frame::Failed(pb::Failed {
                code: failed.code.to_wire() as i32,
                request: failed.request,
                envelope: failed.envelope.map_or(Vec::new(), |envelope| envelope.0.to_vec()),
                retry_after_ms: failed.retry_after_ms,
                text: failed.text,
            }),
            FromRelay::LoggedIn(LoggedIn::Unregistered) => Frame::LoggedIn(pb::LoggedIn::default()),
            FromRelay::LoggedIn(LoggedIn::Registered {
                restored,
                account,
                handle,
                inbox,
                read_upto,
                account_entries,
                account_head,
                key_packages,
            }) => Frame::LoggedIn(pb::LoggedIn {
                standing: if restored { pb::logged_in::Standing::Restored } else { pb::logged_in::Standing::Active }
                    as i32,
                account: account.0.to_vec(),
                handle,
                inbox: inbox.0.to_vec(),
                read_upto: read_upto.0,
                account_entries,
                account_head: account_head.to_vec(),
                key_packages,
            }),
            FromRelay::Done { request } => Frame::Done(pb::Done { request }),
            FromRelay::Found { request, handle, entries, devices } => {
                let devices = devices
                    .into_iter()
                    .map(|(device, inbox)| pb::DeviceInbox { device: device.0.to_vec(), inbox: inbox.0.to_vec() })
                    .collect();
                Frame::Found(pb::Found { request, handle, entries, devices })
            }
            FromRelay::Stale { envelope, newest_commit } => {
                Frame::Stale(pb::Stale { envelope: envelope.0.to_vec(), newest_commit: newest_commit.0 })
            }
            FromRelay::Trimmed { log, position, chain } => Frame::Trimmed(pb::Trimmed {
                log: log.as_bytes().to_vec(),
                position: position.0,
                chain: chain.map_or(Vec::new(), |chain| chain.0.to_vec()),
            }),
            FromRelay::Presence { token, online } => Frame::Presence(pb::Presence { token: token.0.to_vec(), online }),
            FromRelay::Head { request, conversation, length, chain, signature } => Frame::Head(pb::Head {
                request,
                conversation: conversation.0.to_vec(),
                length: length.0,
                chain: chain.0.to_vec(),
                signature: signature.to_vec(),
            }),
            FromRelay::Blob { request, size, offset, bytes } => Frame::Blob(pb::Blob { request, size, offset, bytes }),
            FromRelay::Met { meeting, bytes } => Frame::Met(pb::Met { meeting: meeting.0.to_vec(), bytes }),
            FromRelay::Logs { request, conversations } => Frame::Logs(pb::Logs {
                request,
                conversations: conversations.iter().map(|conversation| conversation.0.to_vec()).collect(),
            }),
            FromRelay::Attached { request, read_upto, chain, newest_commit, length, roster } => {
                Frame::Attached(pb::Attached {
                    request,
                    read_upto: read_upto.0,
                    chain: chain.map_or(Vec::new(), |chain| chain.0.to_vec()),
                    newest_commit: newest_commit.0,
                    length: length.0,
                    roster: roster.map_or(Vec::new(), |roster| roster.0.to_vec()),
                })
            }
            FromRelay::KeyPackages { request, packages } => Frame::KeyPackages(pb::KeyPackages {
                request,
                packages: packages.into_iter().map(KeyPackage::into_wire).collect(),
            }),
        };
        pb::FromRelay { frame: Some(frame) }.encode_to_vec()
    }

    /// Reads one binary WebSocket message.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<FromRelay, FrameError> {
        use pb::from_relay::Frame;
        if bytes.len() > FRAME_MAX {
            return Err(FrameError::TooLarge);
        }
        let frame =
            pb::FromRelay::decode(bytes).map_err(|_| FrameError::Encoding)?.frame.ok_or(FrameError::UnknownKind)?;
        Ok(match frame {
            Frame::Hello(f) => FromRelay::Hello(Hello {
                relay_name: text("relay_name", f.relay_name, limits::HOST_MAX)?,
                relay_key: array("relay_key", &f.relay_key)?,
                instance: id("instance", &f.instance)?,
                challenge: array("challenge", &f.challenge)?,
                features: f.features,
                limits: f.limits.ok_or(FrameError::Field("limits"))?,
                registration: f.registration,
                time: Time(f.time_ms),
            }),
            Frame::Accepted(f) => {
                FromRelay::Accepted { envelope: id("envelope", &f.envelope)?, position: Position(f.position) }
            }
            Frame::Deliver(f) => {
                let entry = |f: pb::Delivered| {
                    let entry = at_most("entry", f.entry, ENTRY_MAX)?;
                    Ok(Delivered { position: Position(f.position), entry, at: Time(f.at_ms) })
                };
                FromRelay::Deliver {
                    log: id("log", &f.log)?,
                    entries: f.entries.into_iter().map(entry).collect::<Result<_, _>>()?,
                }
            }
            Frame::Failed(f) => FromRelay::Failed(Failed {
                code: Code::from_wire(f.code).ok_or(FrameError::Field("code"))?,
                request: f.request,
                envelope: if f.envelope.is_empty() { None } else { Some(id("envelope", &f.envelope)?) },
                retry_after_ms: f.retry_after_ms,
                text: f.text,
            }),
            Frame::LoggedIn(f) => {
                let standing =
                    pb::logged_in::Standing::try_from(f.standing).map_err(|_| FrameError::Field("standing"))?;
                FromRelay::LoggedIn(match standing {
                    pb::logged_in::Standing::Unregistered => LoggedIn::Unregistered,
                    standing => LoggedIn::Registered {
                        restored: standing == pb::logged_in::Standing::Restored,
                        account: id("account", &f.account)?,
                        handle: text("handle", f.handle, HANDLE_MAX)?,
                        inbox: id("inbox", &f.inbox)?,
                        read_upto: Position(f.read_upto),
                        account_entries: f.account_entries,
                        account_head: array("account_head", &f.account_head)?,
                        key_packages: f.key_packages,
                    },
                })
            }
            Frame::Done(f) => FromRelay::Done { request: f.request },
            Frame::Found(f) => {
                if f.entries.len() > limits::ACCOUNT_ENTRIES_MAX {
                    return Err(FrameError::Limit("entries"));
                }
                let device = |f: pb::DeviceInbox| Ok((id("device", &f.device)?, id("inbox", &f.inbox)?));
                FromRelay::Found {
                    request: f.request,
                    handle: text("handle", f.handle, HANDLE_MAX)?,
                    entries: f.entries,
                    devices: f.devices.into_iter().map(device).collect::<Result<_, _>>()?,
                }
            }
            Frame::Stale(f) => {
                FromRelay::Stale { envelope: id("envelope", &f.envelope)?, newest_commit: Position(f.newest_commit) }
            }
            Frame::Trimmed(f) => FromRelay::Trimmed {
                log: id("log", &f.log)?,
                position: Position(f.position),
                chain: optional("chain", &f.chain)?,
            },
            Frame::Presence(f) => FromRelay::Presence { token: id("token", &f.token)?, online: f.online },
            Frame::Head(f) => FromRelay::Head {
                request: f.request,
                conversation: id("conversation", &f.conversation)?,
                length: Position(f.length),
                chain: id("chain", &f.chain)?,
                signature: array("signature", &f.signature)?,
            },
            Frame::Blob(f) => FromRelay::Blob {
                request: f.request,
                size: f.size,
                offset: f.offset,
                bytes: at_most("bytes", f.bytes, BLOB_CHUNK_MAX)?,
            },
            Frame::Met(f) => FromRelay::Met { meeting: id("meeting", &f.meeting)?, bytes: f.bytes },
            Frame::Logs(f) => FromRelay::Logs {
                request: f.request,
                conversations: ids("conversations", &f.conversations, LISTED_LOGS_MAX)?,
            },
            Frame::Attached(f) => FromRelay::Attached {
                request: f.request,
                read_upto: Position(f.read_upto),
                chain: optional("chain", &f.chain)?,
                newest_commit: Position(f.newest_commit),
                length: Position(f.length),
                roster: optional("roster", &f.roster)?,
            },
            Frame::KeyPackages(f) => FromRelay::KeyPackages {
                request: f.request,
                packages: f.packages.into_iter().map(KeyPackage::from_wire).collect::<Result<_, _>>()?,
            },
        })
    }
}

impl RosterChange {
    fn from_wire(f: pb::RosterChange) -> Result<RosterChange, FrameError> {
        Ok(RosterChange {
            before: id("before", &f.before)?,
            inboxes: roster("inboxes", &f.inboxes)?,
            welcomes: welcomes(f.welcomes)?,
        })
    }
}

impl IdProof {
    fn from_wire(proof: Option<pb::create_conversation::Proof>) -> Result<IdProof, FrameError> {
        use pb::create_conversation::Proof;
        Ok(match proof.ok_or(FrameError::Field("proof"))? {
            Proof::Peer(account) => IdProof::Peer(id("peer", &account)?),
            Proof::Nonce(nonce) => IdProof::Nonce(array("nonce", &nonce)?),
        })
    }
}

impl KeyPackage {
    fn from_wire(f: pb::KeyPackage) -> Result<KeyPackage, FrameError> {
        Ok(KeyPackage {
            device: id("device", &f.device)?,
            inbox: id("inbox", &f.inbox)?,
            bytes: key_package("bytes", f.bytes)?,
            is_last_resort: f.last_resort,
        })
    }

    fn into_wire(self) -> pb::KeyPackage {
        pb::KeyPackage {
            device: self.device.0.to_vec(),
            inbox: self.inbox.0.to_vec(),
            bytes: self.bytes,
            last_resort: self.is_last_resort,
        }
    }
}

impl Welcome {
    fn into_wire(self) -> pb::Welcome {
        pb::Welcome { inbox: self.inbox.0.to_vec(), entry: self.entry }
    }
}

fn id<'a, T: TryFrom<&'a [u8]>>(field: &'static str, bytes: &'a [u8]) -> Result<T, FrameError> {
    T::try_from(bytes).map_err(|_| FrameError::Field(field))
}

fn optional<'a, T: TryFrom<&'a [u8]>>(field: &'static str, bytes: &'a [u8]) -> Result<Option<T>, FrameError> {
    if bytes.is_empty() { Ok(None) } else { id(field, bytes).map(Some) }
}

fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], FrameError> {
    bytes.try_into().map_err(|_| FrameError::Field(field))
}

fn ids<T: for<'a> TryFrom<&'a [u8]>>(field: &'static str, all: &[Vec<u8>], most: usize) -> Result<Vec<T>, FrameError> {
    if all.len() > most {
        return Err(FrameError::Limit(field));
    }
    all.iter().map(|bytes| id(field, bytes)).collect()
}

/// A roster is sorted and has no doubles, so that it has one hash (C6).
fn roster(field: &'static str, all: &[Vec<u8>]) -> Result<Vec<InboxAddress>, FrameError> {
    let inboxes: Vec<InboxAddress> = ids(field, all, ROSTER_MAX)?;
    let sorted = inboxes.windows(2).all(|pair| pair[0] < pair[1]);
    if sorted && !inboxes.is_empty() { Ok(inboxes) } else { Err(FrameError::Field(field)) }
}

fn welcomes(all: Vec<pb::Welcome>) -> Result<Vec<Welcome>, FrameError> {
    if all.len() > ROSTER_MAX {
        return Err(FrameError::Limit("welcomes"));
    }
    let welcome =
        |f: pb::Welcome| Ok(Welcome { inbox: id("inbox", &f.inbox)?, entry: at_most("entry", f.entry, ENTRY_MAX)? });
    all.into_iter().map(welcome).collect()
}

/// No key package is empty: that is how a frame says that there is none.
fn key_package(field: &'static str, bytes: Vec<u8>) -> Result<Vec<u8>, FrameError> {
    if bytes.is_empty() { Err(FrameError::Field(field)) } else { at_most(field, bytes, KEY_PACKAGE_MAX) }
}

fn at_most(field: &'static str, bytes: Vec<u8>, most: usize) -> Result<Vec<u8>, FrameError> {
    if bytes.len() <= most { Ok(bytes) } else { Err(FrameError::Limit(field)) }
}

fn text(field: &'static str, text: String, most: usize) -> Result<String, FrameError> {
    if text.len() <= most { Ok(text) } else { Err(FrameError::Limit(field)) }
}
