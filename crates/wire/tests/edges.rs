//! The edges of what decodes: each limit and the first value beyond it (HP-08).

use sealwire_wire::content::{Content, ContentError, Part};
use sealwire_wire::entry::EntryKind;
use sealwire_wire::frame::*;
use sealwire_wire::handle::{HandleError, Name};
use sealwire_wire::limits::{ACCOUNT_ENTRIES_MAX, FRAME_MAX, HANDLE_MAX, ROSTER_MAX, WATCHED_TOKENS_MAX};
use sealwire_wire::*;

/// A text whose one extension, which no reader knows, has this value.
fn with_extension(value: &[u8]) -> Result<Content, ContentError> {
    let head = [&[0x87, 0x50][..], &[4; 16], &[0xf6, 0x40, 0xf6, 0xf6, 0xa1, 0x61, b'x']].concat();
    Content::decode(&[&head, value, &part(5, 1)].concat())
}

/// A part of so many fields: `[1, "", cardinality, "a/b", h'00']`.
fn part(fields: u8, cardinality: u8) -> Vec<u8> {
    let all = [&[0x80 | fields, 0x01, 0x60, cardinality][..], b"\x63a/b", &[0x41, 0x00]].concat();
    if fields == 5 { all } else { all[..all.len() - 2].to_vec() }
}

/// E3: a value has one spelling. Each that is the shortest is passed over, each that is not makes the whole malformed.
#[test]
fn an_unknown_value_is_deterministic_cbor() {
    let long = |head: &[u8], length: usize| [head, &vec![b'a'; length]].concat();
    for fits in [
        vec![0x00],
        vec![0x17],
        vec![0x18, 24],
        vec![0x18, 0xff],
        vec![0x19, 1, 0],
        vec![0x1a, 0, 1, 0, 0],
        vec![0x1b, 0, 0, 0, 1, 0, 0, 0, 0],
        vec![0x38, 24],
        vec![0x60],
        long(&[0x77], 23),
        long(&[0x78, 24], 24),
        long(&[0x59, 1, 0], 256),
        vec![0x82, 0x01, 0x40],
        vec![0xa2, 0x01, 0x01, 0x02, 0x01],
        vec![0xc0, 0x60],
        vec![0xf4],
        vec![0xf6],
    ] {
        assert!(with_extension(&fits).is_ok(), "{fits:02x?}");
    }
    for bad in [
        vec![0x18, 23],
        vec![0x19, 0, 0xff],
        vec![0x1a, 0, 0, 0xff, 0xff],
        vec![0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        vec![0x1c],
        long(&[0x78, 23], 23),
        vec![0xd8, 0x17, 0x00],
        vec![0x9f, 0xff],
        vec![0xa2, 0x02, 0x01, 0x01, 0x01],
        vec![0xa2, 0x01, 0x01, 0x01, 0x01],
        vec![0x61, 0xff],
        vec![0xe0],
        vec![0xf9, 0, 0],
        vec![0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(with_extension(&bad), Err(ContentError::Encoding), "{bad:02x?}");
    }
}

/// E3: a part of another shape is kept, and shown as "needs a newer version".
#[test]
fn a_part_of_another_shape_is_kept() {
    let head = [&[0x87, 0x50][..], &[4; 16], &[0xf6, 0x40, 0xf6, 0xf6, 0xa0]].concat();
    let decoded = |part: &[u8]| Content::decode(&[&head, part].concat()).unwrap().part;
    assert_eq!(decoded(&part(5, 1)), Part::Bytes { media_type: "a/b".into(), bytes: vec![0] });
    for other in [part(5, 2), part(4, 1)] {
        assert_eq!(decoded(&other), Part::Other { raw: other });
    }
}

#[test]
fn kinds_know_where_they_belong() {
    let that = |is: fn(EntryKind) -> bool| EntryKind::ALL.into_iter().filter(move |kind| is(*kind)).collect::<Vec<_>>();
    use EntryKind::*;
    assert_eq!(that(EntryKind::is_for_inbox), [Direct, Welcome]);
    assert_eq!(that(EntryKind::names_after), [Message, Commit]);
    assert_eq!(that(EntryKind::is_kept_long), [Commit, Readd, Cannot, RestoreRoster]);
}

#[test]
fn frames_have_limits() {
    let lookup = |length| ToRelay::Lookup { request: 1, by: LookupBy::Handle("x".repeat(length)) }.encode();
    assert!(ToRelay::decode(&lookup(4 * HANDLE_MAX)).is_ok());
    assert_eq!(ToRelay::decode(&lookup(4 * HANDLE_MAX + 1)), Err(FrameError::Limit("handle")));
    let register = |length| {
        let (inbox, handle) = (InboxAddress([1; 16]), "x".repeat(length));
        ToRelay::Register { request: 1, handle, genesis: vec![], inbox, invite: String::new() }.encode()
    };
    assert!(ToRelay::decode(&register(4 * HANDLE_MAX)).is_ok());
    assert_eq!(ToRelay::decode(&register(4 * HANDLE_MAX + 1)), Err(FrameError::Limit("handle")));
    let watch = |count| ToRelay::Watch { tokens: vec![PresenceToken([1; 16]); count] }.encode();
    assert!(ToRelay::decode(&watch(WATCHED_TOKENS_MAX)).is_ok());
    let too_many = watch(WATCHED_TOKENS_MAX + 1);
    assert_eq!(ToRelay::decode(&too_many), Err(FrameError::Limit("tokens")));
    assert!(ToRelay::decode(&watch(WATCHED_TOKENS_MAX + 2)).is_err());
    let create = |count| {
        let welcome = Welcome { inbox: InboxAddress([1; 16]), entry: vec![] };
        let (conversation, inboxes) = (ConversationId([1; 32]), vec![InboxAddress([1; 16])]);
        let (welcomes, proof) = (vec![welcome; count], IdProof::Nonce([1; 16]));
        ToRelay::CreateConversation { request: 1, conversation, entries: vec![], inboxes, welcomes, proof }.encode()
    };
    assert!(ToRelay::decode(&create(ROSTER_MAX)).is_ok());
    assert_eq!(ToRelay::decode(&create(ROSTER_MAX + 1)), Err(FrameError::Limit("welcomes")));
    assert_eq!(ToRelay::decode(&create(ROSTER_MAX + 2)), Err(FrameError::Limit("welcomes")));
    let found =
        |count| FromRelay::Found { request: 1, handle: "x".into(), entries: vec![vec![]; count], devices: vec![] };
    assert!(FromRelay::decode(&found(ACCOUNT_ENTRIES_MAX).encode()).is_ok());
    for count in [ACCOUNT_ENTRIES_MAX + 1, ACCOUNT_ENTRIES_MAX + 2] {
        assert_eq!(FromRelay::decode(&found(count).encode()), Err(FrameError::Limit("entries")));
    }
}

/// E1: unknown fields are passed over, up to the length of a frame and no further.
#[test]
fn a_frame_may_be_as_long_as_the_limit_and_no_longer() {
    let padded = |mut frame: Vec<u8>, length: usize| {
        // Field 31, which nobody knows, with a length of three bytes.
        let inside = length - frame.len() - 5;
        frame.extend([0xfa, 0x01]);
        frame.extend([inside as u8 & 0x7f | 0x80, (inside >> 7) as u8 & 0x7f | 0x80, (inside >> 14) as u8]);
        frame.resize(length, 0);
        frame
    };
    let (to, from) =
        (ToRelay::GetHead { request: 1, conversation: ConversationId([1; 32]) }, FromRelay::Done { request: 1 });
    assert_eq!(ToRelay::decode(&padded(to.encode(), FRAME_MAX)), Ok(to.clone()));
    assert_eq!(FromRelay::decode(&padded(from.encode(), FRAME_MAX)), Ok(from.clone()));
    for length in [FRAME_MAX + 1, FRAME_MAX + 2] {
        assert_eq!(ToRelay::decode(&padded(to.encode(), length)), Err(FrameError::TooLarge));
        assert_eq!(FromRelay::decode(&padded(from.encode(), length)), Err(FrameError::TooLarge));
    }
}

/// Whatever a name would become: text this long is not prepared at all.
#[test]
fn long_text_is_no_name() {
    let spaces = |length| Name::parse(&" ".repeat(length)).unwrap_err();
    assert_eq!(spaces(4 * HANDLE_MAX), HandleError::Name);
    assert_eq!(spaces(4 * HANDLE_MAX + 1), HandleError::TooLong);
    assert_eq!(spaces(4 * HANDLE_MAX + 2), HandleError::TooLong);
}

#[test]
fn ids_positions_and_times_are_read_and_written() {
    let id = AccountId(std::array::from_fn(|byte| byte as u8 * 7));
    let hex = id.to_string();
    assert_eq!(AccountId::from_hex(&hex), Some(id));
    assert_eq!(AccountId::from_hex(&hex.to_uppercase()), Some(id));
    for bad in [&hex[1..], &hex[2..], &format!("{hex}00"), &hex.replacen('0', "g", 1), ""] {
        assert_eq!(AccountId::from_hex(bad), None, "{bad}");
    }
    assert_eq!(LogId::Inbox(InboxAddress([0xab; 16])).to_string(), "ab".repeat(16));
    assert_eq!((Position(7).next(), Position(u64::MAX).next()), (Position(8), Position(u64::MAX)));
    assert_eq!(Position(7).to_string(), "7");
    assert_eq!((Time(5).plus(6), Time(u64::MAX).plus(1)), (Time(11), Time(u64::MAX)));
    assert_eq!((Time(9).since(Time(2)), Time(2).since(Time(9))), (7, 0));
}

/// E4: a log has a first position, and no last one that anything overflows at.
#[test]
fn positions_end_at_neither_end() {
    let end = Position(u64::MAX);
    assert_eq!((Position(7).before(), Position(7).next()), (Position(6), Position(8)));
    assert_eq!((Position::START.before(), end.next()), (Position::START, end));
}
