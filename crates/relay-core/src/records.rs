//! The records that the relay keeps, as bytes: a version, then a TLS structure (E2). A newer version is refused, never
//! guessed at.

use sealwire_keys::{AccountError, AccountLog, SignedEntry};
use sealwire_store::{Record, RecordKey, RecordKind, RecordSwap};
use sealwire_wire::handle::Name;
use sealwire_wire::{AccountId, DeviceHint, DeviceId, InboxAddress, Incarnation, InstanceId, PresenceToken};
use tls_codec::{
    DeserializeBytes, Serialize, Size, TlsByteVecU8, TlsByteVecU16, TlsDeserializeBytes, TlsSerialize, TlsSize,
    TlsVecU16, TlsVecU32,
};

const VERSION: u8 = 1;

/// What a kind of record holds.
pub(crate) trait Value: Serialize + DeserializeBytes + Size {
    const KIND: RecordKind;
}

/// The record is not what this version wrote.
pub(crate) struct Damaged;

/// A value as it was read, with what a swap has to expect.
pub(crate) struct Stored<T> {
    pub(crate) value: T,
    pub(crate) version: u64,
}

/// Reads a record; `Ok(None)` where there is none.
pub(crate) fn read<T: Value>(record: Option<&Record>) -> Result<Option<Stored<T>>, Damaged> {
    let Some(Record { version, value }) = record else { return Ok(None) };
    let Some((&VERSION, bytes)) = value.split_first() else { return Err(Damaged) };
    match T::tls_deserialize_bytes(bytes) {
        Ok((value, [])) => Ok(Some(Stored { value, version: *version })),
        _ => Err(Damaged),
    }
}

/// A record's key.
pub(crate) fn key<T: Value>(key: impl AsRef<[u8]>) -> RecordKey {
    RecordKey { kind: T::KIND, key: key.as_ref().to_vec() }
}

/// Puts a value where the version is the expected one; `None`: where there is none.
pub(crate) fn put<T: Value>(at: impl AsRef<[u8]>, expected: Option<u64>, value: &T) -> RecordSwap {
    let mut bytes = vec![VERSION];
    value.tls_serialize(&mut bytes).expect("a Vec takes every byte, and each field is bounded by wire::limits");
    RecordSwap { key: key::<T>(at), expected, value: Some(bytes) }
}

/// By account id.
#[derive(Clone, PartialEq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct Account {
    handle: TlsByteVecU8,
    pub(crate) retired: bool8::Bool,
    pub(crate) presence: Option<PresenceToken>,
    entries: TlsVecU32<TlsByteVecU16>,
    devices: TlsVecU16<AccountDevice>,
}

#[derive(Clone, PartialEq, Debug, TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct AccountDevice {
    device: DeviceId,
    inbox: InboxAddress,
}

impl Account {
    pub(crate) fn new(handle: &Name, log: &AccountLog, device: DeviceId, inbox: InboxAddress) -> Account {
        let mut account = Account {
            handle: handle.as_str().as_bytes().into(),
            retired: bool8::Bool(false),
            presence: None,
            entries: Vec::new().into(),
            devices: vec![AccountDevice { device, inbox }].into(),
        };
        account.set_log(log);
        account
    }

    pub(crate) fn handle(&self) -> String {
        String::from_utf8_lossy(self.handle.as_slice()).into_owned()
    }

    pub(crate) fn entries(&self) -> Vec<Vec<u8>> {
        self.entries.iter().map(|entry| entry.as_slice().to_vec()).collect()
    }

    pub(crate) fn devices(&self) -> Vec<(DeviceId, InboxAddress)> {
        self.devices.iter().map(|both| (both.device, both.inbox)).collect()
    }

    /// Those that the log lists, and where the one that was added is written to. An account that was retired keeps them: where
    /// they were written to is closed, not forgotten.
    pub(crate) fn set_devices(&mut self, log: &AccountLog, added: Option<(DeviceId, InboxAddress)>) {
        let mut devices = self.devices.as_slice().to_vec();
        devices.extend(added.map(|(device, inbox)| AccountDevice { device, inbox }));
        devices.retain(|both| log.device(both.device).is_some());
        self.devices = devices.into();
    }

    pub(crate) fn inbox_of(&self, device: DeviceId) -> Option<InboxAddress> {
        self.devices.iter().find(|both| both.device == device).map(|both| both.inbox)
    }

    pub(crate) fn holds(&self, entry: &[u8]) -> bool {
        self.entries.iter().any(|held| held.as_slice() == entry)
    }

    pub(crate) fn newest(&self) -> &[u8] {
        self.entries.as_slice().last().map_or(&[], |entry| entry.as_slice())
    }

    /// The account log's length and the hash of its newest entry. Entries were verified when they were written.
    pub(crate) fn head(&self) -> (u64, [u8; 32]) {
        (self.entries.len() as u64, SignedEntry(self.newest().to_vec()).hash())
    }

    pub(crate) fn log(&self) -> Result<AccountLog, AccountError> {
        AccountLog::verify(self.entries().into_iter().map(SignedEntry))
    }

    pub(crate) fn set_log(&mut self, log: &AccountLog) {
        self.entries = log.entries().iter().map(|entry| entry.0.as_slice().into()).collect::<Vec<_>>().into();
        self.retired = bool8::Bool(log.is_retired());
    }
}

/// By skeleton of a handle.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct HandleOwner {
    pub(crate) account: AccountId,
}

/// By device hint.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct DeviceOwner {
    pub(crate) device: DeviceId,
    pub(crate) account: AccountId,
}

/// By device hint: what the next log-in may bring (N3).
#[derive(Clone, Copy, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct LogIn {
    /// The store that this was written to: in another one, any incarnation is taken.
    pub(crate) instance: InstanceId,
    pub(crate) confirmed: Incarnation,
    pub(crate) pending: Incarnation,
}

impl LogIn {
    pub(crate) fn takes(&self, instance: InstanceId, incarnation: Incarnation) -> bool {
        self.instance != instance || incarnation == self.confirmed || incarnation == self.pending
    }
}

/// By inbox.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct InboxOwner {
    pub(crate) device: DeviceId,
    pub(crate) retired: bool8::Bool,
}

/// By presence token.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct PresenceOwner {
    pub(crate) account: AccountId,
}

/// By the SHA-256 of the code.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct Invite {
    pub(crate) uses_left: u32,
}

macro_rules! kinds {
    ($($value:ident = $kind:ident;)*) => {
        $(impl Value for $value {
            const KIND: RecordKind = RecordKind::$kind;
        })*
    };
}

kinds! {
    Account = Account;
    HandleOwner = Handle;
    DeviceOwner = Device;
    LogIn = LogIn;
    InboxOwner = Inbox;
    PresenceOwner = Presence;
    Invite = Invite;
}

/// The key of what is kept by device hint.
pub(crate) fn hint(device: DeviceId) -> DeviceHintKey {
    DeviceHintKey(device.hint())
}

/// A device hint as a record's key.
pub(crate) struct DeviceHintKey(pub(crate) DeviceHint);

impl AsRef<[u8]> for DeviceHintKey {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

/// A truth value in one byte, of which only 0 and 1 are one.
pub(crate) mod bool8 {
    use tls_codec::{DeserializeBytes, Error, Serialize, Size};

    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Bool(pub(crate) bool);

    impl Size for Bool {
        fn tls_serialized_len(&self) -> usize {
            1
        }
    }

    impl Serialize for Bool {
        fn tls_serialize<W: std::io::Write>(&self, writer: &mut W) -> Result<usize, Error> {
            u8::from(self.0).tls_serialize(writer)
        }
    }

    impl DeserializeBytes for Bool {
        fn tls_deserialize_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
            match u8::tls_deserialize_bytes(bytes)? {
                (byte @ (0 | 1), rest) => Ok((Bool(byte == 1), rest)),
                _ => Err(Error::InvalidInput),
            }
        }
    }
}
