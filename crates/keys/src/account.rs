//! Account logs (I2, I3): append-only, hash-chained, each entry signed by a device of the account. The account's id is
//! the hash of its first entry, so nobody can give an account another beginning.
//!
//! Entries to add and revoke devices and to recover come with linking; this version knows one device per account.

use sealwire_wire::label::Label;
use sealwire_wire::limits::{ACCOUNT_ENTRIES_MAX, ACCOUNT_ENTRY_MAX, DIRECT_KEYS_MAX};
use sealwire_wire::{AccountId, DeviceId, Time};
use tls_codec::{
    DeserializeBytes, Serialize, TlsByteVecU8, TlsDeserializeBytes, TlsSerialize, TlsSize, TlsVecU8, TlsVecU16,
};

use crate::device::DeviceKey;
use crate::direct::{DirectKey, Suite};
use crate::hash::hash;
use crate::signature::{KeyError, SignatureError, verify};

/// Who an account is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub enum AccountKind {
    /// A person.
    Person = 1,
    /// A program that writes by itself.
    Service = 2,
}

/// How a device can be written to. Listed in the account log, so that a relay cannot hide what it can do (I2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mode {
    /// The plain scheme, pairwise, without forward secrecy (D).
    Direct,
    /// Conversations on MLS, in the one suite that there is, 0x004E (C1).
    Mls,
}

/// A device's public keys, as its account log publishes them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceCard {
    /// Who it is, and what it signs with.
    pub key: DeviceKey,
    /// How it can be written to.
    pub modes: Vec<Mode>,
    /// Its direct-mode keys, in its order of preference (D1).
    pub direct: Vec<DirectKey>,
}

/// What an entry changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The account begins, with its first device.
    Genesis {
        /// Who it is for.
        kind: AccountKind,
        /// The first device.
        device: DeviceCard,
    },
    /// A device replaces its direct-mode keys (D3).
    RotateDevice {
        /// Which device.
        device: DeviceId,
        /// The new keys, in its order of preference.
        direct: Vec<DirectKey>,
    },
    /// The account ends. Nothing follows.
    Retire,
}

/// An entry of an account log, before its signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountEntry {
    /// The account; zeros in the genesis entry, whose hash it is.
    pub account: AccountId,
    /// 0 for genesis, then one more each.
    pub number: u64,
    /// The hash of the entry before; zeros in the genesis entry.
    pub previous: [u8; 32],
    /// When, by the signer's clock. Informative: validity never depends on a clock.
    pub at: Time,
    /// What changes.
    pub change: Change,
    /// The device that signs.
    pub signer: DeviceId,
}

/// The bytes of an entry with its signature, which are what is hashed, sent and stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedEntry(pub Vec<u8>);

impl SignedEntry {
    /// The entry's hash; that of the genesis entry is the account's id.
    pub fn hash(&self) -> [u8; 32] {
        hash(Label::ACCOUNT_ENTRY_HASH, &tls_codec::TlsByteSliceU24(&self.0))
    }
}

/// Why an account log, or an entry for it, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Not the TLS structure, or bytes behind its end.
    #[error("the entry is malformed")]
    Malformed,
    /// A kind of change, device or mode that this version does not know.
    #[error("the entry is of a kind that this version does not know")]
    UnknownKind,
    /// Longer than its limit.
    #[error("the entry or the log is longer than its limit")]
    TooLarge,
    /// Does not follow the entry before: wrong account, number or hash.
    #[error("the entry does not follow the log's head")]
    NotNext,
    /// A genesis entry elsewhere than at the beginning, or none there.
    #[error("a log has one genesis entry, its first")]
    Genesis,
    /// The signer is not a device of the account that may do this.
    #[error("the signer may not make this change")]
    Signer,
    /// The signature does not verify.
    #[error("the signature does not verify")]
    Signature,
    /// A key that must not be used.
    #[error("a key in the entry must not be used")]
    Key(KeyError),
    /// The account was retired.
    #[error("the account was retired")]
    Retired,
    /// Another log than the one that was pinned (I3).
    #[error("the log is not a continuation of the one that is known")]
    Forked,
}

impl From<KeyError> for AccountError {
    fn from(error: KeyError) -> Self {
        AccountError::Key(error)
    }
}

impl From<SignatureError> for AccountError {
    fn from(_: SignatureError) -> Self {
        AccountError::Signature
    }
}

/// A verified account log. There is no way to hold one that was not checked entry by entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountLog {
    id: AccountId,
    kind: AccountKind,
    device: DeviceCard,
    superseded: Vec<DirectKey>,
    rotated_at: Option<Time>,
    retired: bool,
    entries: Vec<SignedEntry>,
    head: [u8; 32],
}

impl AccountLog {
    /// Begins a log with its genesis entry.
    ///
    /// # Errors
    /// [`AccountError`].
    pub fn begin(genesis: SignedEntry) -> Result<AccountLog, AccountError> {
        let (entry, signature) = decode(&genesis.0)?;
        let Change::Genesis { kind, device } = entry.change.clone() else { return Err(AccountError::Genesis) };
        if entry.account != AccountId([0; 32]) || entry.number != 0 || entry.previous != [0; 32] {
            return Err(AccountError::NotNext);
        }
        if entry.signer != device.key.device_id() {
            return Err(AccountError::Signer);
        }
        verify(&device.key.0, Label::ACCOUNT_ENTRY, &wire::Entry::from(&entry), &signature)?;
        let head = genesis.hash();
        Ok(AccountLog {
            id: AccountId(head),
            kind,
            device,
            superseded: Vec::new(),
            rotated_at: None,
            retired: false,
            entries: vec![genesis],
            head,
        })
    }

    /// Verifies a whole log.
    ///
    /// # Errors
    /// [`AccountError`]; an empty log is [`AccountError::Genesis`].
    pub fn verify(entries: impl IntoIterator<Item = SignedEntry>) -> Result<AccountLog, AccountError> {
        let mut entries = entries.into_iter();
        let mut log = AccountLog::begin(entries.next().ok_or(AccountError::Genesis)?)?;
        entries.try_for_each(|entry| log.append(entry))?;
        Ok(log)
    }

    /// Appends one entry, or leaves the log as it was.
    ///
    /// # Errors
    /// [`AccountError`].
    pub fn append(&mut self, signed: SignedEntry) -> Result<(), AccountError> {
        if self.entries.len() >= ACCOUNT_ENTRIES_MAX {
            return Err(AccountError::TooLarge);
        }
        let (entry, signature) = decode(&signed.0)?;
        if entry.account != self.id || entry.number != self.entries.len() as u64 || entry.previous != self.head {
            return Err(AccountError::NotNext);
        }
        if self.retired {
            return Err(AccountError::Retired);
        }
        if entry.signer != self.device.key.device_id() {
            return Err(AccountError::Signer);
        }
        verify(&self.device.key.0, Label::ACCOUNT_ENTRY, &wire::Entry::from(&entry), &signature)?;
        match entry.change {
            Change::Genesis { .. } => return Err(AccountError::Genesis),
            Change::RotateDevice { device, .. } if device != self.device.key.device_id() => {
                return Err(AccountError::Signer);
            }
            // Whoever is written to in direct mode has keys for it; a device of conversations says with this entry that its
            // store was put back, and has none.
            Change::RotateDevice { direct, .. } if direct.is_empty() && self.device.modes.contains(&Mode::Direct) => {
                return Err(AccountError::Malformed);
            }
            Change::RotateDevice { direct, .. } => {
                self.superseded.append(&mut self.device.direct);
                self.device.direct = direct;
                self.rotated_at = Some(entry.at);
            }
            Change::Retire => self.retired = true,
        }
        self.head = signed.hash();
        self.entries.push(signed);
        Ok(())
    }

    /// Takes a log that somebody handed out, where an earlier one is pinned: it must be the same or continue it.
    ///
    /// # Errors
    /// [`AccountError::Forked`] for any other; the pinned log stays as it was.
    pub fn advance(&mut self, entries: &[SignedEntry]) -> Result<(), AccountError> {
        if entries.len() < self.entries.len() || entries[..self.entries.len()] != self.entries[..] {
            return Err(AccountError::Forked);
        }
        let mut advanced = self.clone();
        entries[self.entries.len()..].iter().cloned().try_for_each(|entry| advanced.append(entry))?;
        *self = advanced;
        Ok(())
    }

    /// The account's id.
    pub fn id(&self) -> AccountId {
        self.id
    }

    /// Who it is for.
    pub fn kind(&self) -> AccountKind {
        self.kind
    }

    /// The account's devices. This version knows one per account.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceCard> {
        std::iter::once(&self.device)
    }

    /// A device of the account.
    pub fn device(&self, id: DeviceId) -> Option<&DeviceCard> {
        self.devices().find(|device| device.key.device_id() == id)
    }

    /// Direct-mode keys that were replaced: what was sealed with them before may still arrive.
    pub fn superseded(&self) -> &[DirectKey] {
        &self.superseded
    }

    /// When direct-mode keys were last replaced, by the device's clock.
    pub fn rotated_at(&self) -> Option<Time> {
        self.rotated_at
    }

    /// Whether the account has ended.
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// The entries as they were signed.
    pub fn entries(&self) -> &[SignedEntry] {
        &self.entries
    }

    /// The hash of the newest entry.
    pub fn head(&self) -> [u8; 32] {
        self.head
    }

    /// The entry that would follow now.
    pub fn next(&self, at: Time, change: Change, signer: DeviceId) -> AccountEntry {
        AccountEntry { account: self.id, number: self.entries.len() as u64, previous: self.head, at, change, signer }
    }
}

/// Signs an entry: the caller holds the secret key and gives 64 bytes for the bytes to sign.
pub fn sign_entry(entry: &AccountEntry, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> SignedEntry {
    let body = wire::Entry::from(entry);
    let signature = sign(&Label::ACCOUNT_ENTRY.encode(&body));
    let mut bytes = body.tls_serialize_detached().expect("an entry's vectors are within their bounds");
    bytes.extend_from_slice(&signature);
    SignedEntry(bytes)
}

fn decode(bytes: &[u8]) -> Result<(AccountEntry, [u8; 64]), AccountError> {
    if bytes.len() > ACCOUNT_ENTRY_MAX {
        return Err(AccountError::TooLarge);
    }
    let (entry, rest) = wire::Entry::tls_deserialize_bytes(bytes).map_err(|error| match error {
        tls_codec::Error::UnknownValue(_) => AccountError::UnknownKind,
        _ => AccountError::Malformed,
    })?;
    let signature = rest.try_into().map_err(|_| AccountError::Malformed)?;
    Ok((entry.check()?, signature))
}

/// The TLS structures of `spec/identity.md`.
mod wire {
    use super::*;

    #[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
    pub(super) struct Entry {
        account: AccountId,
        number: u64,
        previous: [u8; 32],
        at: Time,
        change: WireChange,
        signer: DeviceId,
    }

    #[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
    #[repr(u8)]
    enum WireChange {
        #[tls_codec(discriminant = 1)]
        Genesis { kind: AccountKind, key: [u8; 32], modes: TlsVecU8<u16>, direct: TlsVecU16<Key> },
        #[tls_codec(discriminant = 4)]
        RotateDevice { device: DeviceId, direct: TlsVecU16<Key> },
        #[tls_codec(discriminant = 7)]
        Retire,
    }

    #[derive(Debug, Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
    struct Key {
        suite: u8,
        public: TlsByteVecU8,
    }

    const MODES: [(Mode, u16); 2] = [(Mode::Direct, 1), (Mode::Mls, 2)];

    fn number_of(mode: Mode) -> u16 {
        MODES.iter().find(|(listed, _)| *listed == mode).map_or(0, |(_, number)| *number)
    }

    impl From<&AccountEntry> for Entry {
        fn from(entry: &AccountEntry) -> Entry {
            let keys = |keys: &[DirectKey]| -> TlsVecU16<Key> {
                keys.iter()
                    .map(|key| Key { suite: key.suite() as u8, public: key.as_bytes().into() })
                    .collect::<Vec<_>>()
                    .into()
            };
            let change = match &entry.change {
                Change::Genesis { kind, device } => WireChange::Genesis {
                    kind: *kind,
                    key: device.key.to_bytes(),
                    modes: device.modes.iter().map(|mode| number_of(*mode)).collect::<Vec<_>>().into(),
                    direct: keys(&device.direct),
                },
                Change::RotateDevice { device, direct } => {
                    WireChange::RotateDevice { device: *device, direct: keys(direct) }
                }
                Change::Retire => WireChange::Retire,
            };
            Entry {
                account: entry.account,
                number: entry.number,
                previous: entry.previous,
                at: entry.at,
                change,
                signer: entry.signer,
            }
        }
    }

    impl Entry {
        pub(super) fn check(self) -> Result<AccountEntry, AccountError> {
            let change = match self.change {
                WireChange::Genesis { kind, key, modes, direct } => {
                    let mode = |number: &u16| {
                        let listed = MODES.iter().find(|(_, listed)| listed == number);
                        listed.map(|(mode, _)| *mode).ok_or(AccountError::UnknownKind)
                    };
                    let modes = modes.as_slice().iter().map(mode).collect::<Result<Vec<_>, _>>()?;
                    if modes.is_empty() || modes.windows(2).any(|pair| pair[0] >= pair[1]) {
                        return Err(AccountError::Malformed);
                    }
                    let direct = if modes.contains(&Mode::Direct) { keys(&direct)? } else { keys_or_none(&direct)? };
                    Change::Genesis { kind, device: DeviceCard { key: DeviceKey::parse(&key)?, modes, direct } }
                }
                WireChange::RotateDevice { device, direct } => {
                    Change::RotateDevice { device, direct: keys_or_none(&direct)? }
                }
                WireChange::Retire => Change::Retire,
            };
            Ok(AccountEntry {
                account: self.account,
                number: self.number,
                previous: self.previous,
                at: self.at,
                change,
                signer: self.signer,
            })
        }
    }

    fn keys_or_none(listed: &TlsVecU16<Key>) -> Result<Vec<DirectKey>, AccountError> {
        if listed.is_empty() { Ok(Vec::new()) } else { keys(listed) }
    }

    fn keys(keys: &TlsVecU16<Key>) -> Result<Vec<DirectKey>, AccountError> {
        if keys.is_empty() || keys.len() > DIRECT_KEYS_MAX {
            return Err(AccountError::Malformed);
        }
        let key = |key: &Key| {
            let suite = Suite::from_byte(key.suite).ok_or(AccountError::UnknownKind)?;
            Ok(DirectKey::parse(suite, key.public.as_slice())?)
        };
        let keys = keys.iter().map(key).collect::<Result<Vec<_>, AccountError>>()?;
        let twice = keys.iter().enumerate().any(|(i, key)| keys[..i].iter().any(|other| other.suite() == key.suite()));
        if twice { Err(AccountError::Malformed) } else { Ok(keys) }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    struct Device(SigningKey);

    impl Device {
        fn new(seed: u8) -> Device {
            Device(SigningKey::from_bytes(&[seed; 32]))
        }

        fn key(&self) -> DeviceKey {
            DeviceKey::parse(&self.0.verifying_key().to_bytes()).unwrap()
        }

        fn sign(&self, entry: &AccountEntry) -> SignedEntry {
            sign_entry(entry, |bytes| self.0.sign(bytes).to_bytes())
        }

        fn genesis(&self) -> AccountEntry {
            let device = DeviceCard { key: self.key(), modes: vec![Mode::Direct], direct: direct_keys(9) };
            AccountEntry {
                account: AccountId([0; 32]),
                number: 0,
                previous: [0; 32],
                at: Time(1),
                change: Change::Genesis { kind: AccountKind::Person, device },
                signer: self.key().device_id(),
            }
        }
    }

    fn direct_keys(u: u8) -> Vec<DirectKey> {
        let mut bytes = [0; 32];
        bytes[0] = u;
        vec![DirectKey::parse(Suite::X25519, &bytes).unwrap()]
    }

    fn log(device: &Device) -> AccountLog {
        AccountLog::begin(device.sign(&device.genesis())).unwrap()
    }

    #[test]
    fn an_account_is_the_hash_of_its_beginning() {
        let genesis = Device::new(1).sign(&Device::new(1).genesis());
        let log = AccountLog::begin(genesis.clone()).unwrap();
        assert_eq!(log.id(), AccountId(genesis.hash()));
        assert_ne!(log.id(), self::log(&Device::new(2)).id());
    }

    /// I2: a genesis entry follows nothing.
    #[test]
    fn a_beginning_follows_nothing() {
        let device = Device::new(1);
        for misplaced in [
            AccountEntry { account: AccountId([7; 32]), ..device.genesis() },
            AccountEntry { number: 1, ..device.genesis() },
            AccountEntry { previous: [7; 32], ..device.genesis() },
        ] {
            assert_eq!(AccountLog::begin(device.sign(&misplaced)), Err(AccountError::NotNext));
        }
    }

    #[test]
    fn keys_rotate_and_accounts_retire_and_nothing_follows() {
        let device = Device::new(1);
        let mut log = log(&device);
        assert_eq!((log.rotated_at(), log.is_retired()), (None, false));
        let rotate = Change::RotateDevice { device: device.key().device_id(), direct: direct_keys(10) };
        let rotation = device.sign(&log.next(Time(2), rotate.clone(), device.key().device_id()));
        log.append(rotation.clone()).unwrap();
        assert_eq!((log.rotated_at(), log.is_retired(), log.head()), (Some(Time(2)), false, rotation.hash()));
        assert_eq!(log.devices().next().unwrap().direct, direct_keys(10));
        assert_eq!(log.device(device.key().device_id()).unwrap().direct, direct_keys(10));
        assert_eq!(log.device(Device::new(2).key().device_id()), None);
        assert_eq!(log.superseded(), direct_keys(9));
        log.append(device.sign(&log.next(Time(3), Change::Retire, device.key().device_id()))).unwrap();
        assert!(log.is_retired());
        let after = device.sign(&log.next(Time(4), rotate, device.key().device_id()));
        assert_eq!(log.append(after), Err(AccountError::Retired));
        assert_eq!(AccountLog::verify(log.entries().to_vec()), Ok(log));
    }

    /// HR-02: unsigned, signed by another account, an entry out of its place.
    #[test]
    fn what_the_account_did_not_sign_is_refused() {
        let (device, thief) = (Device::new(1), Device::new(2));
        let mut log = log(&device);
        let rotate = Change::RotateDevice { device: device.key().device_id(), direct: direct_keys(10) };
        let entry = log.next(Time(2), rotate, device.key().device_id());
        let before = log.clone();

        assert_eq!(log.append(thief.sign(&entry)), Err(AccountError::Signature));
        let by_thief = AccountEntry { signer: thief.key().device_id(), ..entry.clone() };
        assert_eq!(log.append(thief.sign(&by_thief)), Err(AccountError::Signer));
        let for_thief = Change::RotateDevice { device: thief.key().device_id(), direct: direct_keys(10) };
        assert_eq!(
            log.append(device.sign(&AccountEntry { change: for_thief, ..entry.clone() })),
            Err(AccountError::Signer)
        );
        for misplaced in [
            AccountEntry { number: 2, ..entry.clone() },
            AccountEntry { previous: [7; 32], ..entry.clone() },
            AccountEntry { account: AccountId([7; 32]), ..entry.clone() },
        ] {
            assert_eq!(log.append(device.sign(&misplaced)), Err(AccountError::NotNext));
        }
        assert_eq!(AccountLog::begin(device.sign(&entry)), Err(AccountError::Genesis));
        assert_eq!(log, before);
    }

    /// I3: a log that is pinned is continued, never replaced.
    #[test]
    fn a_pinned_log_is_not_replaced() {
        let device = Device::new(1);
        let mut pinned = log(&device);
        let mut longer = pinned.clone();
        longer.append(device.sign(&longer.next(Time(2), Change::Retire, device.key().device_id()))).unwrap();
        assert_eq!(pinned.advance(log(&Device::new(2)).entries()), Err(AccountError::Forked));
        pinned.advance(longer.entries()).unwrap();
        assert_eq!(pinned, longer);
        assert_eq!(pinned.advance(longer.entries()), Ok(()), "the same again");
        assert_eq!(pinned.advance(&longer.entries()[..1]), Err(AccountError::Forked), "rolled back");
    }

    /// HR-13: a device lists one mode in this version, and each suite once. What a later version may list is told from
    /// what nobody may.
    #[test]
    fn a_card_lists_what_this_version_knows() {
        let device = Device::new(1);
        let begin = |modes: &[u8], keys: &[u8]| {
            let mut bytes = [0; 72].to_vec();
            bytes.extend([&[0; 8][..], &[1, 1], &device.key().to_bytes(), &[modes.len() as u8], modes].concat());
            bytes.extend((keys.len() as u16).to_be_bytes());
            bytes.extend([keys, &device.key().device_id().0, &[0; 64]].concat());
            AccountLog::begin(SignedEntry(bytes)).unwrap_err()
        };
        let key = |suite: u8| [&[suite, 32, 9][..], &[0; 31]].concat();
        let direct = &[0, 1][..];
        // Unsigned, and nothing else is wrong with it.
        assert_eq!(begin(direct, &key(2)), AccountError::Signature);
        assert_eq!(begin(&[], &key(2)), AccountError::Malformed);
        assert_eq!(begin(&[0, 1, 0, 1], &key(2)), AccountError::Malformed);
        assert_eq!(begin(&[0, 3], &key(2)), AccountError::UnknownKind);
        // Conversations need no keys of direct mode, both modes do.
        for (modes, keys, refused) in [
            (&[0, 2][..], vec![], AccountError::Signature),
            (&[0, 2], key(2), AccountError::Signature),
            (&[0, 1, 0, 2], key(2), AccountError::Signature),
            (&[0, 1, 0, 2], vec![], AccountError::Malformed),
            (&[0, 2, 0, 1], key(2), AccountError::Malformed),
        ] {
            assert_eq!(begin(modes, &keys), refused);
        }
        assert_eq!(begin(direct, &[]), AccountError::Malformed);
        assert_eq!(begin(direct, &key(2).repeat(2)), AccountError::Malformed);
        assert_eq!(begin(direct, &key(3).repeat(DIRECT_KEYS_MAX)), AccountError::UnknownKind);
        assert_eq!(begin(direct, &key(3).repeat(DIRECT_KEYS_MAX + 1)), AccountError::Malformed);
        assert_eq!(begin(direct, &[&[2, 32][..], &[0; 32]].concat()), AccountError::Key(KeyError::Point));
    }

    #[test]
    fn an_entry_has_a_kind_and_a_limit() {
        let mut unknown = Device::new(1).sign(&Device::new(1).genesis()).0;
        unknown[80] = 99;
        assert_eq!(AccountLog::begin(SignedEntry(unknown)), Err(AccountError::UnknownKind));
        let zeros = |length| AccountLog::begin(SignedEntry(vec![0; length])).unwrap_err();
        assert_eq!(zeros(ACCOUNT_ENTRY_MAX + 1), AccountError::TooLarge);
        assert_eq!(zeros(ACCOUNT_ENTRY_MAX + 2), AccountError::TooLarge);
        assert_ne!(zeros(ACCOUNT_ENTRY_MAX), AccountError::TooLarge);
    }

    /// HR-08: every bit and every length of a signed entry.
    #[test]
    fn a_damaged_entry_is_refused() {
        let device = Device::new(1);
        let genesis = device.sign(&device.genesis()).0;
        for bit in 0..genesis.len() * 8 {
            let mut flipped = genesis.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(AccountLog::begin(SignedEntry(flipped)).is_err(), "bit {bit}");
        }
        for end in 0..genesis.len() {
            assert!(AccountLog::begin(SignedEntry(genesis[..end].to_vec())).is_err());
        }
        assert!(AccountLog::begin(SignedEntry([&genesis[..], &[0]].concat())).is_err());
    }
}
