//! Content, inside the encryption (E3): MIMI content (draft-ietf-mimi-content, deterministic CBOR). One structure in
//! both modes. A small peer knows text, bytes and receipts; what else there may be is kept as it came.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use crate::limits::{MESSAGE_MAX, RECEIPT_IDS_MAX};
use crate::{ContentId, Position, PresenceToken};

/// The media type of text.
pub const TEXT: &str = "text/plain;charset=utf-8";
/// The media type of bytes without a better one.
pub const BYTES: &str = "application/octet-stream";
/// The media type of receipts (draft-ietf-mimi-content, message status report).
pub const STATUS: &str = "application/mimi-message-status";
/// The media type of a presence token (A2).
pub const PRESENCE: &str = "application/sealwire-presence";
/// The media type of a wish to leave a group (C5).
pub const LEAVE: &str = "application/sealwire-leave";
/// The media type of a request to say again what was missed (C10).
pub const MISSED: &str = "application/sealwire-missed";
/// The extension that lists what may not be ignored (E3).
pub const MUST_UNDERSTAND: &str = "sealwire.must-understand";

/// One piece of content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// Random; makes the content id unguessable.
    pub salt: [u8; 16],
    /// The content that this one replies to.
    pub in_reply_to: Option<ContentId>,
    /// Names of what a reader has to know; a reader that does not know one shows that it can't show this.
    pub must_understand: Vec<String>,
    /// What it says.
    pub part: Part,
}

/// What a piece of content says. It prints as what it is and how long, never as what it says: whoever logs an event logs
/// no message.
#[derive(Clone, PartialEq, Eq)]
pub enum Part {
    /// Words.
    Text(String),
    /// Bytes, with a media type.
    Bytes {
        /// Such as `application/octet-stream`.
        media_type: String,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Receipts.
    Status(Vec<(ContentId, Status)>),
    /// The sender's presence token; `None` takes it back.
    Presence(Option<PresenceToken>),
    /// Whoever says it wants to be removed from the group (C5).
    Leave,
    /// Whoever says it has not read what stands at these positions of the conversation's log, both included, and asks its
    /// authors to say it again (C10).
    Missed {
        /// The first one.
        first: Position,
        /// The last one, not before the first.
        last: Position,
    },
    /// Anything else that MIMI content can be; kept, and shown as what it is.
    Other {
        /// The CBOR of the whole part.
        raw: Vec<u8>,
    },
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Part::Bytes { bytes, .. } => write!(f, "Bytes({})", bytes.len()),
            Part::Status(statuses) => write!(f, "Status({})", statuses.len()),
            Part::Presence(token) => write!(f, "Presence({})", if token.is_some() { "given" } else { "taken back" }),
            Part::Leave => f.write_str("Leave"),
            Part::Missed { first, last } => write!(f, "Missed({first} to {last})"),
            Part::Other { raw } => write!(f, "Other({} bytes)", raw.len()),
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Status {
    /// It is durable on a device of the reader.
    Delivered = 1,
    /// The person has seen it.
    Read = 2,
}

/// Why bytes are not content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Not CBOR, truncated, trailing bytes, or not the deterministic encoding (RFC 8949, section 4.2).
    #[error("not deterministic CBOR")]
    Encoding,
    /// CBOR, but not MIMI content.
    #[error("field {0} is missing or malformed")]
    Field(&'static str),
}

/// How deep CBOR may nest: MIMI content needs five levels; a bomb has thousands.
const DEPTH_MAX: usize = 16;
/// MIMI's disposition "render".
const RENDER: u8 = 1;
/// MIMI's disposition "unspecified", for what is not shown.
const UNSPECIFIED: u8 = 0;
/// MIMI's cardinality "single part".
const SINGLE: u8 = 1;

impl Content {
    /// Text.
    pub fn text(salt: [u8; 16], text: impl Into<String>) -> Content {
        Content::of(salt, Part::Text(text.into()))
    }

    /// Any part, without a reply or extensions.
    pub fn of(salt: [u8; 16], part: Part) -> Content {
        Content { salt, in_reply_to: None, must_understand: Vec::new(), part }
    }

    /// The deterministic encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut Encoder::new(&mut bytes)).expect("a Vec takes every byte");
        if let Part::Other { raw } = &self.part {
            bytes.extend_from_slice(raw);
        }
        bytes
    }

    fn write(&self, e: &mut Encoder<&mut Vec<u8>>) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        // [salt, replaces, topic, expires, in_reply_to, extensions, part]
        e.array(7)?.bytes(&self.salt)?.null()?.bytes(&[])?.null()?;
        match &self.in_reply_to {
            Some(id) => e.bytes(&id.0)?,
            None => e.null()?,
        };
        if self.must_understand.is_empty() {
            e.map(0)?;
        } else {
            e.map(1)?.str(MUST_UNDERSTAND)?.array(self.must_understand.len() as u64)?;
            for name in &self.must_understand {
                e.str(name)?;
            }
        }
        let (disposition, media_type, bytes) = match &self.part {
            Part::Text(text) => (RENDER, TEXT, text.as_bytes().to_vec()),
            Part::Bytes { media_type, bytes } => (RENDER, media_type.as_str(), bytes.clone()),
            Part::Status(statuses) => (UNSPECIFIED, STATUS, encode_statuses(statuses)),
            Part::Presence(token) => (UNSPECIFIED, PRESENCE, token.map_or(Vec::new(), |token| token.0.to_vec())),
            Part::Leave => (UNSPECIFIED, LEAVE, Vec::new()),
            Part::Missed { first, last } => {
                (UNSPECIFIED, MISSED, [first.0.to_be_bytes(), last.0.to_be_bytes()].concat())
            }
            Part::Other { .. } => return Ok(()),
        };
        // [disposition, language, cardinality, content type, content]
        e.array(5)?.u8(disposition)?.str("")?.u8(SINGLE)?.str(media_type)?.bytes(&bytes)?;
        Ok(())
    }

    /// Reads content. Replacing, topics, expiry and extensions of later versions are passed over, not refused.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn decode(bytes: &[u8]) -> Result<Content, ContentError> {
        if bytes.len() > MESSAGE_MAX || !is_deterministic(bytes) {
            return Err(ContentError::Encoding);
        }
        let d = &mut Decoder::new(bytes);
        let field = |name| move |_: minicbor::decode::Error| ContentError::Field(name);
        if d.array().map_err(field("content"))? != Some(7) {
            return Err(ContentError::Field("content"));
        }
        let salt = d.bytes().map_err(field("salt"))?.try_into().map_err(|_| ContentError::Field("salt"))?;
        for name in ["replaces", "topic", "expires"] {
            d.skip().map_err(field(name))?;
        }
        let in_reply_to = match d.datatype().map_err(field("in_reply_to"))? {
            Type::Null => d.null().map(|()| None).map_err(field("in_reply_to"))?,
            _ => {
                let id = d.bytes().map_err(field("in_reply_to"))?;
                Some(ContentId::try_from(id).map_err(|_| ContentError::Field("in_reply_to"))?)
            }
        };
        let must_understand = read_must_understand(d).map_err(field("extensions"))?;
        let part = read_part(d, bytes)?;
        Ok(Content { salt, in_reply_to, must_understand, part })
    }
}

fn read_must_understand(d: &mut Decoder<'_>) -> Result<Vec<String>, minicbor::decode::Error> {
    let mut names = Vec::new();
    for _ in 0..d.map()?.unwrap_or(0) {
        let key = if d.datatype()? == Type::String { Some(d.str()?) } else { d.skip().map(|()| None)? };
        if key == Some(MUST_UNDERSTAND) {
            for _ in 0..d.array()?.unwrap_or(0) {
                names.push(d.str()?.to_owned());
            }
        } else {
            d.skip()?;
        }
    }
    Ok(names)
}

fn read_part(d: &mut Decoder<'_>, whole: &[u8]) -> Result<Part, ContentError> {
    let raw = &whole[d.position()..];
    let field = |name| move |_: minicbor::decode::Error| ContentError::Field(name);
    let length = d.array().map_err(field("part"))?;
    let _disposition = d.u8().map_err(field("disposition"))?;
    let _language = d.str().map_err(field("language"))?;
    let cardinality = d.u8().map_err(field("cardinality"))?;
    if length != Some(5) || cardinality != SINGLE {
        return Ok(Part::Other { raw: raw.to_vec() });
    }
    let media_type = d.str().map_err(field("content type"))?;
    let bytes = d.bytes().map_err(field("content"))?;
    Ok(match media_type {
        TEXT => Part::Text(std::str::from_utf8(bytes).map_err(|_| ContentError::Field("text"))?.to_owned()),
        STATUS => Part::Status(decode_statuses(bytes)?),
        PRESENCE if bytes.is_empty() => Part::Presence(None),
        LEAVE if bytes.is_empty() => Part::Leave,
        MISSED => decode_missed(bytes).ok_or(ContentError::Field("missed"))?,
        PRESENCE => Part::Presence(Some(bytes.try_into().map_err(|_| ContentError::Field("presence"))?)),
        _ => Part::Bytes { media_type: media_type.to_owned(), bytes: bytes.to_vec() },
    })
}

fn decode_missed(bytes: &[u8]) -> Option<Part> {
    let (first, last) = bytes.split_at_checked(8)?;
    let position = |bytes: &[u8]| Some(Position(u64::from_be_bytes(bytes.try_into().ok()?)));
    let (first, last) = (position(first)?, position(last)?);
    (Position::START < first && first <= last).then_some(Part::Missed { first, last })
}

fn encode_statuses(statuses: &[(ContentId, Status)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut e = Encoder::new(&mut bytes);
    let mut write = || -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        e.array(statuses.len() as u64)?;
        for (id, status) in statuses {
            e.array(2)?.bytes(&id.0)?.u8(*status as u8)?;
        }
        Ok(())
    };
    write().expect("a Vec takes every byte");
    bytes
}

fn decode_statuses(bytes: &[u8]) -> Result<Vec<(ContentId, Status)>, ContentError> {
    let bad = ContentError::Field("status");
    let d = &mut Decoder::new(bytes);
    let count = d.array().ok().flatten().filter(|count| *count <= RECEIPT_IDS_MAX as u64).ok_or(bad)?;
    let mut statuses = Vec::new();
    for _ in 0..count {
        d.array().ok().filter(|length| *length == Some(2)).ok_or(bad)?;
        let id = d.bytes().ok().and_then(|id| ContentId::try_from(id).ok()).ok_or(bad)?;
        // Other values exist in MIMI (expired, deleted, hidden, error); they say nothing that we show.
        match d.u8().map_err(|_| bad)? {
            1 => statuses.push((id, Status::Delivered)),
            2 => statuses.push((id, Status::Read)),
            _ => {}
        }
    }
    if d.position() == bytes.len() { Ok(statuses) } else { Err(bad) }
}

/// Whether bytes are one item of deterministic CBOR (RFC 8949, section 4.2.1) without floats, and nothing else:
/// shortest lengths, definite lengths, map keys in bytewise order without doubles, bounded depth.
fn is_deterministic(bytes: &[u8]) -> bool {
    item(bytes, DEPTH_MAX) == Some(bytes.len())
}

/// The length of the first item, if it is deterministic.
fn item(bytes: &[u8], depth: usize) -> Option<usize> {
    let (&first, rest) = bytes.split_first()?;
    let (major, low) = (first >> 5, first & 31);
    let (argument, head): (u64, usize) = match low {
        0..=23 => (u64::from(low), 1),
        24 => (u64::from(*rest.first()?), 2),
        25 => (u64::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)), 3),
        26 => (u64::from(u32::from_be_bytes(rest.get(..4)?.try_into().ok()?)), 5),
        27 => (u64::from_be_bytes(rest.get(..8)?.try_into().ok()?), 9),
        _ => return None,
    };
    let shortest = match low {
        24 => argument >= 24,
        25 => argument > 0xff,
        26 => argument > 0xffff,
        27 => argument > 0xffff_ffff,
        _ => true,
    };
    let depth = depth.checked_sub(1)?;
    let inside = &bytes[head..];
    let length = match major {
        0 | 1 => Some(0),
        2 => usize::try_from(argument).ok().filter(|length| *length <= inside.len()),
        3 => usize::try_from(argument)
            .ok()
            .filter(|length| inside.get(..*length).is_some_and(|text| std::str::from_utf8(text).is_ok())),
        4 => items(inside, argument, depth),
        5 => pairs(inside, argument, depth),
        6 => item(inside, depth),
        // false, true, null, undefined; no floats and no other simple values.
        _ => (20..=23).contains(&low).then_some(0),
    }?;
    shortest.then_some(head + length)
}

fn items(bytes: &[u8], count: u64, depth: usize) -> Option<usize> {
    let mut at = 0;
    for _ in 0..count {
        at += item(&bytes[at..], depth)?;
    }
    Some(at)
}

fn pairs(bytes: &[u8], count: u64, depth: usize) -> Option<usize> {
    let mut at = 0;
    let mut previous: Option<&[u8]> = None;
    for _ in 0..count {
        let length = item(&bytes[at..], depth)?;
        let key = &bytes[at..at + length];
        if previous.is_some_and(|previous| previous >= key) {
            return None;
        }
        previous = Some(key);
        at += length;
        at += item(&bytes[at..], depth)?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Vec<Content> {
        let ids = vec![(ContentId([1; 32]), Status::Delivered), (ContentId([2; 32]), Status::Read)];
        let mut reply = Content::text([3; 16], "and a reply");
        reply.in_reply_to = Some(ContentId([9; 32]));
        reply.must_understand = vec!["poll".into()];
        let parts = [
            Part::Text("hello".into()),
            Part::Text(String::new()),
            Part::Bytes { media_type: BYTES.into(), bytes: vec![0; 300] },
            Part::Status(ids),
            Part::Presence(Some(PresenceToken([5; 16]))),
            Part::Presence(None),
            Part::Leave,
            Part::Missed { first: Position(1), last: Position(1 << 40) },
            // A null part: [disposition, language, cardinality 0].
            Part::Other { raw: vec![0x83, 0x01, 0x60, 0x00] },
        ];
        parts.into_iter().map(|part| Content::of([3; 16], part)).chain([reply]).collect()
    }

    #[test]
    fn content_comes_back_as_it_was() {
        for content in contents() {
            assert_eq!(Content::decode(&content.encode()), Ok(content));
        }
    }

    #[test]
    fn content_does_not_print_what_it_says() {
        let token = PresenceToken([0xab; 16]);
        for part in
            [Part::Text("attack at dawn".into()), Part::Presence(Some(token)), Part::Other { raw: vec![0xab; 9] }]
        {
            let printed = format!("{:?}", Content::of([1; 16], part));
            assert!(!printed.contains("dawn") && !printed.contains("abab") && !printed.contains("171"), "{printed}");
        }
        let bytes = Part::Bytes { media_type: "text/secret".into(), bytes: vec![171; 3] };
        assert_eq!(format!("{bytes:?}"), "Bytes(3)");
    }

    #[test]
    fn content_may_be_as_long_as_a_message_and_no_longer() {
        let content = |length| Content::text([1; 16], "x".repeat(length)).encode();
        let around = content(MESSAGE_MAX).len() - MESSAGE_MAX;
        assert!(Content::decode(&content(MESSAGE_MAX - around)).is_ok());
        for more in 1..3 {
            assert_eq!(Content::decode(&content(MESSAGE_MAX - around + more)), Err(ContentError::Encoding));
        }
    }

    #[test]
    fn no_prefix_and_no_extension_is_content() {
        for content in contents() {
            let bytes = content.encode();
            for end in 0..bytes.len() {
                assert!(Content::decode(&bytes[..end]).is_err());
            }
            assert!(Content::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    /// C10: a range of positions has 16 bytes, begins behind the start, and does not run backwards.
    #[test]
    fn what_is_no_range_is_refused() {
        let of = |bytes: Vec<u8>| {
            let content = Content::of([3; 16], Part::Bytes { media_type: MISSED.into(), bytes }).encode();
            Content::decode(&content).map(|content| content.part)
        };
        let range = |first: u64, last: u64| [first.to_be_bytes(), last.to_be_bytes()].concat();
        assert_eq!(of(range(2, 2)), Ok(Part::Missed { first: Position(2), last: Position(2) }));
        for bad in [range(0, 1), range(3, 2), range(1, 2)[..15].to_vec(), [range(1, 2), vec![0]].concat(), Vec::new()] {
            assert_eq!(of(bad), Err(ContentError::Field("missed")));
        }
    }

    /// E3: deterministic CBOR, so that content has one form; HP-08: nesting is bounded.
    #[test]
    fn other_forms_of_the_same_cbor_are_refused() {
        for (what, bytes) in [
            ("a longer integer than needed", &[0x18, 0x01][..]),
            ("an indefinite array", &[0x9f, 0xff]),
            ("keys out of order", &[0xa2, 0x02, 0x00, 0x01, 0x00]),
            ("a key twice", &[0xa2, 0x01, 0x00, 0x01, 0x00]),
            ("a float", &[0xf9, 0x00, 0x00]),
            ("text that is not UTF-8", &[0x61, 0xff]),
            ("a length beyond the end", &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ] {
            assert!(!is_deterministic(bytes), "{what}");
        }
        assert!(is_deterministic(&[0xa2, 0x01, 0x00, 0x02, 0x00]));
        assert!(!is_deterministic(&[0x81; 100_000]));
    }

    /// Extensions of a later version are passed over, whatever their keys are.
    #[test]
    fn unknown_extensions_are_passed_over() {
        let plain = Content::text([3; 16], "x").encode();
        let empty_map = plain.iter().position(|byte| *byte == 0xa0).unwrap();
        let mut extended = plain.clone();
        // {5: 1, "a": [2]}
        extended.splice(empty_map..=empty_map, [0xa2, 0x05, 0x01, 0x61, b'a', 0x81, 0x02]);
        assert_eq!(Content::decode(&extended).unwrap().part, Part::Text("x".into()));
    }
}
