//! Decoders: they are total, and what they take has one spelling (E2): encoded again it is the same bytes.

use sealwire_engine::{Engine, StoredMessage, StoredState, Table};
use sealwire_keys::{AccountLog, SignedEntry, Suite};
use sealwire_session::DeviceSecrets;
use sealwire_session::direct::{DirectSession, Direction, Header};
use sealwire_wire::EnvelopeId;
use sealwire_wire::content::Content;
use sealwire_wire::entry::Entry;
use sealwire_wire::frame::{FromRelay, ToRelay};
use sealwire_wire::handle::Handle;
use sealwire_wire::padding::{pad, unpad};

use crate::bytes::Choices;

/// Protocol Buffers have many spellings of one frame; ours of what was read is read as the same.
pub(crate) fn to_relay(bytes: &[u8]) {
    if let Ok(frame) = ToRelay::decode(bytes) {
        assert_eq!(ToRelay::decode(&frame.encode()), Ok(frame));
    }
}

pub(crate) fn from_relay(bytes: &[u8]) {
    if let Ok(frame) = FromRelay::decode(bytes) {
        assert_eq!(FromRelay::decode(&frame.encode()), Ok(frame));
    }
}

pub(crate) fn entry(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(entry.encode(), bytes);
    }
}

pub(crate) fn content(bytes: &[u8]) {
    if let Ok(content) = Content::decode(bytes) {
        let again = content.encode();
        assert_eq!(Content::decode(&again).as_ref(), Ok(&content));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(handle) = Handle::parse(text)
    {
        assert_eq!(Handle::parse(&handle.to_string()), Ok(handle));
    }
    if let Ok(content) = unpad(bytes) {
        assert_eq!(pad(content).as_deref(), Ok(bytes));
    }
}

/// An envelope that nobody sealed does not open.
pub(crate) fn envelope(bytes: &[u8]) {
    let record = |byte: u8| [&[1][..], &[byte; 96]].concat();
    let [alice, bob] = [1, 2].map(|byte| DeviceSecrets::from_record(&record(byte)).expect("keys"));
    for suite in Suite::ALL {
        let key = alice.direct_key(suite);
        let session = DirectSession::derive(&bob, alice.device_id(), &key, Direction::Receiving).expect("a key");
        // With its commitment in place, so that the tag is what is tried.
        let mut body = bytes.to_vec();
        if let Some(place) = body.get_mut(22..54) {
            place.copy_from_slice(&session.commitment().0);
        }
        assert!(session.open(EnvelopeId([1; 16]), &body).is_err());
    }
    if let Ok(header) = Header::parse(bytes) {
        assert_eq!(bytes[22..54], header.commitment.0);
    }
}

/// Entries with their lengths in front.
pub(crate) fn account_log(bytes: &[u8]) {
    let (mut entries, mut rest) = (Vec::new(), bytes);
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        entries.push(SignedEntry(behind[..length].to_vec()));
        rest = &behind[length..];
    }
    if let Ok(log) = AccountLog::verify(entries.clone()) {
        assert_eq!(log.entries(), entries);
        assert_eq!(log.clone().advance(&entries), Ok(()));
    }
}

/// What a client's store holds, were it damaged in a way that its seal does not notice.
pub(crate) fn records(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let mut records = Vec::new();
    while !choices.is_empty() {
        let table = Table::LOADED[choices.below(Table::LOADED.len())];
        let (key, value) = (choices.run().to_vec(), choices.run().to_vec());
        // Whatever they hold; that nothing panics is all that is asked.
        let _message = StoredMessage::decode(&key, &value);
        let _state = StoredState::decode(table, &value);
        records.push((table, key, value.into()));
    }
    drop(Engine::load(records));
}
