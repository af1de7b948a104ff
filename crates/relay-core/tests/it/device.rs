//! A device that signs: what a test needs of a client, and no more.

use ed25519_dalek::{Signer, SigningKey};
use sealwire_keys::{
    AccountEntry, AccountKind, AccountLog, Change, DeviceCard, DeviceConsent, DeviceKey, DirectKey, LogInToBeSigned,
    Mode, SignedEntry, Suite, sign_entry,
};
use sealwire_wire::direct::{HEADER, SENDER_HINT};
use sealwire_wire::entry::Entry;
use sealwire_wire::frame::{Hello, ToRelay};
use sealwire_wire::{AccountId, DeviceId, EnvelopeId, InboxAddress, Incarnation, LogId, Time};

/// A device with its keys, its account log, and its incarnations (N3).
#[derive(Clone)]
pub(crate) struct Device {
    key: SigningKey,
    pub(crate) log: AccountLog,
    pub(crate) inbox: InboxAddress,
    pub(crate) committed: Incarnation,
    pub(crate) pending: Incarnation,
}

impl Device {
    /// Everything of it follows from the seed.
    pub(crate) fn new(seed: u8) -> Device {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let device = DeviceKey::parse(&key.verifying_key().to_bytes()).unwrap();
        let card = DeviceCard { key: device, modes: vec![Mode::Direct], direct: vec![direct_key(9)] };
        let genesis = AccountEntry {
            account: AccountId([0; 32]),
            number: 0,
            previous: [0; 32],
            at: Time(1),
            change: Change::Genesis { kind: AccountKind::Person, device: card },
            signer: device.device_id(),
        };
        let signed = sign_entry(&genesis, |bytes| key.sign(bytes).to_bytes());
        Device {
            key,
            log: AccountLog::begin(signed).unwrap(),
            inbox: InboxAddress([seed; 16]),
            committed: Incarnation([seed; 16]),
            pending: Incarnation([seed ^ 0x80; 16]),
        }
    }

    /// One that talks in conversations, with an account of its own.
    pub(crate) fn talking(seed: u8) -> Device {
        let mut device = Device::new(seed);
        let change = Change::Genesis { kind: AccountKind::Person, device: device.card() };
        let (account, signer) = (AccountId([0; 32]), device.id());
        let genesis = AccountEntry { account, number: 0, previous: [0; 32], at: Time(1), change, signer };
        device.log = AccountLog::begin(sign_entry(&genesis, |bytes| device.key.sign(bytes).to_bytes())).unwrap();
        device
    }

    fn card(&self) -> DeviceCard {
        let key = DeviceKey::parse(&self.key.verifying_key().to_bytes()).unwrap();
        DeviceCard { key, modes: vec![Mode::Mls], direct: vec![] }
    }

    /// The entry with which this device adds another, which agrees.
    pub(crate) fn adds(&self, new: &Device) -> SignedEntry {
        let consent = DeviceConsent { account: self.log.id(), device: new.id() };
        let consent = new.key.sign(&consent.encode()).to_bytes();
        self.entry(Change::AddDevice { device: new.card(), consent })
    }

    pub(crate) fn id(&self) -> DeviceId {
        DeviceKey::parse(&self.key.verifying_key().to_bytes()).unwrap().device_id()
    }

    pub(crate) fn inbox_log(&self) -> LogId {
        LogId::Inbox(self.inbox)
    }

    /// A log-in to the relay that said this hello.
    pub(crate) fn log_in(&self, hello: &Hello, origin: &str, binding: &[u8]) -> ToRelay {
        let signed = LogInToBeSigned::new(
            &hello.relay_name,
            hello.relay_key,
            hello.challenge,
            self.id(),
            self.committed,
            self.pending,
            origin,
            binding,
        );
        ToRelay::LogIn {
            device_key: self.key.verifying_key().to_bytes(),
            incarnation: self.committed,
            pending: self.pending,
            binding: binding.to_vec(),
            signature: self.key.sign(&signed.encode()).to_bytes(),
        }
    }

    pub(crate) fn register(&self, handle: &str) -> ToRelay {
        let genesis = self.log.entries()[0].0.clone();
        ToRelay::Register { request: 1, handle: handle.to_owned(), genesis, inbox: self.inbox, invite: String::new() }
    }

    /// The entry that would follow now, signed.
    pub(crate) fn entry(&self, change: Change) -> SignedEntry {
        sign_entry(&self.log.next(Time(2), change, self.id()), |bytes| self.key.sign(bytes).to_bytes())
    }

    pub(crate) fn rotation(&self, key: u8) -> SignedEntry {
        self.entry(Change::RotateDevice { device: self.id(), direct: vec![direct_key(key)] })
    }

    /// An entry by this device for an inbox, whose envelope id and body follow from the number: a direct-mode header, and
    /// so many bytes behind it.
    pub(crate) fn append(&self, to: LogId, number: u8, length: usize) -> ToRelay {
        let entry = Entry::direct(EnvelopeId([number; 16]), self.direct(number, length)).encode();
        ToRelay::Append { log: to, entry, roster: None }
    }

    /// A direct-mode body of this device: what the relay reads of it is right, the rest is the number.
    pub(crate) fn direct(&self, number: u8, length: usize) -> Vec<u8> {
        let mut body = vec![number; HEADER + length];
        body[SENDER_HINT].copy_from_slice(&self.id().hint().0);
        body
    }

    /// The client saw that its log-in was taken.
    pub(crate) fn commit_incarnation(&mut self) {
        self.committed = self.pending;
        self.pending = Incarnation(self.pending.0.map(|byte| byte.wrapping_add(1)));
    }
}

/// A usable X25519 key: 9 is the base point; others of these are on the curve or its twist, which is as good.
fn direct_key(u: u8) -> DirectKey {
    let mut bytes = [0; 32];
    bytes[0] = u;
    DirectKey::parse(Suite::X25519, &bytes).unwrap()
}
