//! Account logs (I2, I3): append-only, hash-chained, each entry signed by a device of the account. The account's id is
//! the hash of its first entry, so nobody can give an account another beginning.
//!
//! Entries to recover an account come later.

use std::collections::BTreeMap;

use sealwire_wire::label::Label;
use sealwire_wire::limits::{ACCOUNT_ENTRIES_MAX, ACCOUNT_ENTRY_MAX, DEVICES_MAX, DIRECT_KEYS_MAX};
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
    /// One more device, which has agreed to it (I5).
    AddDevice {
        /// The new device.
        device: DeviceCard,
        /// Its signature over [`DeviceConsent`]: nobody adds a device that does not know of it.
        consent: [u8; 64],
    },
    /// A device is one of the account no more, and never again.
    RevokeDevice {
        /// Which device.
        device: DeviceId,
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

/// What a device signs, under the label prefix `device-consent`, to become one of an account (I5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, TlsSerialize, TlsSize)]
pub struct DeviceConsent {
    /// Which account.
    pub account: AccountId,
    /// Which device.
    pub device: DeviceId,
}

impl DeviceConsent {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        Label::DEVICE_CONSENT.encode(self)
    }
}

/// The bytes of an entry with its signature, which are what is hashed, sent and stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedEntry(pub Vec<u8>);

impl SignedEntry {
    /// The entry's hash; that of the genesis entry is the account's id.
    pub fn hash(&self) -> [u8; 32] {
        hash(Label::ACCOUNT_ENTRY_HASH, &tls_codec::TlsByteSliceU24(&self.0))
    }

    /// The device that it says has signed it; `None` where it is malformed.
    pub fn signer(&self) -> Option<DeviceId> {
        decode(&self.0).ok().map(|(entry, _)| entry.signer)
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
    /// A device that cannot be added: it is or was one of the account, there are too many, or devices of direct mode are among
    /// them; or one that cannot be revoked, because it is the last.
    #[error("the device may not be added to the account, or not taken from it")]
    Device,
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

/// A device of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Listed {
    card: DeviceCard,
    /// When it was added, by the clock of whoever added it.
    since: Time,
}

/// A verified account log. There is no way to hold one that was not checked entry by entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountLog {
    id: AccountId,
    kind: AccountKind,
    devices: Vec<Listed>,
    revoked: Vec<DeviceId>,
    superseded: Vec<DirectKey>,
    rotated_at: BTreeMap<DeviceId, Time>,
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
            devices: vec![Listed { card: device, since: entry.at }],
            revoked: Vec::new(),
            superseded: Vec::new(),
            rotated_at: BTreeMap::new(),
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
        let Some(signer) = self.device(entry.signer) else { return Err(AccountError::Signer) };
        verify(&signer.key.0, Label::ACCOUNT_ENTRY, &wire::Entry::from(&entry), &signature)?;
        match entry.change {
            Change::Genesis { .. } => return Err(AccountError::Genesis),
            Change::AddDevice { device, consent } => self.add(device, &consent, entry.at)?,
            Change::RevokeDevice { device } => self.revoke(device)?,
            Change::RotateDevice { device, direct } if device == entry.signer => {
                self.rotate(device, direct, entry.at)?
            }
            Change::RotateDevice { .. } => return Err(AccountError::Signer),
            Change::Retire => self.retired = true,
        }
        self.head = signed.hash();
        self.entries.push(signed);
        Ok(())
    }

    fn add(&mut self, card: DeviceCard, consent: &[u8; 64], at: Time) -> Result<(), AccountError> {
        let device = card.key.device_id();
        let is_known = self.device(device).is_some() || self.revoked.contains(&device);
        // Whoever writes in direct mode writes to one device.
        let are_for_conversations = self.devices.iter().all(|listed| listed.card.modes == [Mode::Mls]);
        if is_known || self.devices.len() >= DEVICES_MAX || !are_for_conversations || card.modes != [Mode::Mls] {
            return Err(AccountError::Device);
        }
        verify(&card.key.0, Label::DEVICE_CONSENT, &DeviceConsent { account: self.id, device }, consent)?;
        self.devices.push(Listed { card, since: at });
        Ok(())
    }

    fn revoke(&mut self, device: DeviceId) -> Result<(), AccountError> {
        if self.device(device).is_none() || self.devices.len() == 1 {
            return Err(AccountError::Device);
        }
        self.devices.retain(|listed| listed.card.key.device_id() != device);
        self.revoked.push(device);
        Ok(())
    }

    fn rotate(&mut self, device: DeviceId, direct: Vec<DirectKey>, at: Time) -> Result<(), AccountError> {
        let listed = self.devices.iter_mut().find(|listed| listed.card.key.device_id() == device);
        let card = &mut listed.ok_or(AccountError::Signer)?.card;
        // Whoever is written to in direct mode has keys for it; a device of conversations says with this entry that its store
        // was put back, and has none.
        if direct.is_empty() && card.modes.contains(&Mode::Direct) {
            return Err(AccountError::Malformed);
        }
        self.superseded.append(&mut card.direct);
        card.direct = direct;
        self.rotated_at.insert(device, at);
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

    /// The account's devices, in the order in which they were added. At least one.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceCard> {
        self.devices.iter().map(|listed| &listed.card)
    }

    /// When a device was added, by the clock of whoever added it.
    pub fn device_since(&self, id: DeviceId) -> Option<Time> {
        self.devices.iter().find(|listed| listed.card.key.device_id() == id).map(|listed| listed.since)
    }

    /// The devices that were of the account, and are no more.
    pub fn revoked(&self) -> &[DeviceId] {
        &self.revoked
    }

    /// Whether a device was one of the account, and is no more. A log that is too old to know it says no.
    pub fn is_revoked(&self, id: DeviceId) -> bool {
        self.revoked.contains(&id)
    }

    /// A device of the account.
    pub fn device(&self, id: DeviceId) -> Option<&DeviceCard> {
        self.devices().find(|device| device.key.device_id() == id)
    }

    /// Direct-mode keys that were replaced: what was sealed with them before may still arrive.
    pub fn superseded(&self) -> &[DirectKey] {
        &self.superseded
    }

    /// When a device last replaced its direct-mode keys, by its clock.
    pub fn rotated_at(&self, device: DeviceId) -> Option<Time> {
        self.rotated_at.get(&device).copied()
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
        #[tls_codec(discriminant = 2)]
        AddDevice { key: [u8; 32], modes: TlsVecU8<u16>, direct: TlsVecU16<Key>, consent: [u8; 64] },
        #[tls_codec(discriminant = 3)]
        RevokeDevice { device: DeviceId },
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
            let modes = |device: &DeviceCard| -> TlsVecU8<u16> {
                device.modes.iter().map(|mode| number_of(*mode)).collect::<Vec<_>>().into()
            };
            let change = match &entry.change {
                Change::Genesis { kind, device } => WireChange::Genesis {
                    kind: *kind,
                    key: device.key.to_bytes(),
                    modes: modes(device),
                    direct: keys(&device.direct),
                },
                Change::AddDevice { device, consent } => WireChange::AddDevice {
                    key: device.key.to_bytes(),
                    modes: modes(device),
                    direct: keys(&device.direct),
                    consent: *consent,
                },
                Change::RevokeDevice { device } => WireChange::RevokeDevice { device: *device },
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
                    Change::Genesis { kind, device: card(&key, &modes, &direct)? }
                }
                WireChange::AddDevice { key, modes, direct, consent } => {
                    Change::AddDevice { device: card(&key, &modes, &direct)?, consent }
                }
                WireChange::RevokeDevice { device } => Change::RevokeDevice { device },
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

    fn card(key: &[u8; 32], modes: &TlsVecU8<u16>, direct: &TlsVecU16<Key>) -> Result<DeviceCard, AccountError> {
        let mode = |number: &u16| {
            let listed = MODES.iter().find(|(_, listed)| listed == number);
            listed.map(|(mode, _)| *mode).ok_or(AccountError::UnknownKind)
        };
        let modes = modes.as_slice().iter().map(mode).collect::<Result<Vec<_>, _>>()?;
        if modes.is_empty() || modes.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(AccountError::Malformed);
        }
        let direct = if modes.contains(&Mode::Direct) { keys(direct)? } else { keys_or_none(direct)? };
        Ok(DeviceCard { key: DeviceKey::parse(key)?, modes, direct })
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

    /// N3: an entry that another store of this device has signed is told from one of another device.
    #[test]
    fn an_entry_names_its_signer() {
        let device = Device::new(1);
        let genesis = device.sign(&device.genesis());
        assert_eq!(genesis.signer(), Some(device.key().device_id()));
        assert_ne!(genesis.signer(), Some(Device::new(2).key().device_id()));
        assert_eq!(SignedEntry(genesis.0[1..].to_vec()).signer(), None);
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
        let id = device.key().device_id();
        assert_eq!((log.rotated_at(id), log.is_retired()), (None, false));
        let rotate = Change::RotateDevice { device: device.key().device_id(), direct: direct_keys(10) };
        let rotation = device.sign(&log.next(Time(2), rotate.clone(), device.key().device_id()));
        log.append(rotation.clone()).unwrap();
        assert_eq!((log.rotated_at(id), log.is_retired(), log.head()), (Some(Time(2)), false, rotation.hash()));
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

    fn talking(device: &Device) -> DeviceCard {
        DeviceCard { key: device.key(), modes: vec![Mode::Mls], direct: Vec::new() }
    }

    /// A log of conversations, with one device.
    fn talking_log(device: &Device) -> AccountLog {
        let change = Change::Genesis { kind: AccountKind::Person, device: talking(device) };
        AccountLog::begin(device.sign(&AccountEntry { change, ..device.genesis() })).unwrap()
    }

    fn adds(account: AccountId, new: &Device) -> Change {
        let consent = DeviceConsent { account, device: new.key().device_id() };
        Change::AddDevice { device: talking(new), consent: new.0.sign(&consent.encode()).to_bytes() }
    }

    fn by(log: &mut AccountLog, device: &Device, change: Change) -> Result<(), AccountError> {
        let entry = log.next(Time(5), change, device.key().device_id());
        log.append(device.sign(&entry))
    }

    /// I2, I5: any device adds one that agrees, and takes one away; none comes twice, and the last one stays.
    #[test]
    fn devices_come_and_go() {
        let [phone, laptop, desk] = [1, 2, 3].map(Device::new);
        let id = |device: &Device| device.key().device_id();
        let revoke = |device: &Device| Change::RevokeDevice { device: id(device) };
        let mut log = talking_log(&phone);
        assert_eq!(by(&mut log, &phone, revoke(&phone)), Err(AccountError::Device), "the last one");
        let account = log.id();
        by(&mut log, &phone, adds(account, &laptop)).unwrap();
        by(&mut log, &laptop, adds(account, &desk)).unwrap();
        assert_eq!(
            log.devices().map(|card| card.key.device_id()).collect::<Vec<_>>(),
            [&phone, &laptop, &desk].map(id)
        );
        assert_eq!((log.device_since(id(&phone)), log.device_since(id(&desk))), (Some(Time(1)), Some(Time(5))));
        assert_eq!(by(&mut log, &phone, adds(account, &desk)), Err(AccountError::Device), "it is there");
        assert_eq!(log.revoked(), []);
        by(&mut log, &desk, revoke(&phone)).unwrap();
        assert_eq!(log.revoked(), [id(&phone)]);
        assert_eq!(
            (log.device(id(&phone)), log.is_revoked(id(&phone)), log.is_revoked(id(&desk))),
            (None, true, false)
        );
        for change in [adds(account, &Device::new(4)), revoke(&desk), Change::Retire] {
            assert_eq!(by(&mut log, &phone, change), Err(AccountError::Signer), "revoked");
        }
        assert_eq!(by(&mut log, &desk, adds(account, &phone)), Err(AccountError::Device), "it was there");
        assert_eq!(by(&mut log, &desk, revoke(&phone)), Err(AccountError::Device), "it is not there");
        let rotate = |device: &Device| Change::RotateDevice { device: id(device), direct: Vec::new() };
        assert_eq!(by(&mut log, &desk, rotate(&laptop)), Err(AccountError::Signer), "each for itself");
        by(&mut log, &laptop, rotate(&laptop)).unwrap();
        assert_eq!((log.rotated_at(id(&laptop)), log.rotated_at(id(&desk))), (Some(Time(5)), None));
        assert_eq!(AccountLog::verify(log.entries().to_vec()), Ok(log));
    }

    /// HR-02: nobody makes a device theirs that has not agreed, to this account; and devices of direct mode stay alone.
    #[test]
    fn a_device_agrees_to_its_account() {
        let [phone, laptop] = [1, 2].map(Device::new);
        let mut log = talking_log(&phone);
        let account = log.id();
        let Change::AddDevice { device, consent } = adds(account, &laptop) else { unreachable!() };
        let elsewhere = adds(AccountId([7; 32]), &laptop);
        let unsigned = Change::AddDevice { device: device.clone(), consent: [0; 64] };
        let for_another = Change::AddDevice { device: talking(&Device::new(3)), consent };
        for change in [elsewhere, unsigned, for_another] {
            assert_eq!(by(&mut log, &phone, change), Err(AccountError::Signature));
        }
        let direct = DeviceCard { modes: vec![Mode::Direct], direct: direct_keys(9), ..device.clone() };
        assert_eq!(by(&mut log, &phone, Change::AddDevice { device: direct, consent }), Err(AccountError::Device));
        let mut direct = self::log(&phone);
        let account = direct.id();
        assert_eq!(by(&mut direct, &phone, adds(account, &laptop)), Err(AccountError::Device));
    }

    /// No account has more than 32 devices at a time.
    #[test]
    fn devices_have_a_limit() {
        let phone = Device::new(0);
        let mut log = talking_log(&phone);
        let account = log.id();
        for seed in 1..DEVICES_MAX as u8 {
            by(&mut log, &phone, adds(account, &Device::new(seed))).unwrap();
        }
        let one_more = Device::new(DEVICES_MAX as u8);
        assert_eq!(by(&mut log, &phone, adds(account, &one_more)), Err(AccountError::Device));
        by(&mut log, &phone, Change::RevokeDevice { device: Device::new(1).key().device_id() }).unwrap();
        by(&mut log, &phone, adds(account, &one_more)).unwrap();
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
