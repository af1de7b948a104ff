//! The codes of refusals (`spec/errors.md`), and what follows from each.

/// What becomes of the connection after a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// It goes on.
    GoesOn,
    /// The relay closes it. The client connects again, with backoff.
    Closes,
    /// The relay closes it. The client does not connect again by itself.
    ClosesForGood,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $pb:ident, $text:literal, $disposition:ident;)*) => {
        /// Why something was refused.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// The name on the wire, as `spec/errors.md` lists it.
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// What becomes of the connection.
            pub fn disposition(self) -> Disposition {
                match self { $(Code::$name => Disposition::$disposition,)* }
            }

            pub(crate) fn to_wire(self) -> crate::frames::Code {
                match self { $(Code::$name => crate::frames::Code::$pb,)* }
            }

            pub(crate) fn from_wire(code: i32) -> Option<Code> {
                match crate::frames::Code::try_from(code).ok()? {
                    crate::frames::Code::Unspecified => None,
                    $(crate::frames::Code::$pb => Some(Code::$name),)*
                }
            }
        }
    };
}

codes! {
    /// Bytes that are not a frame, or a field of the wrong length.
    Malformed = Malformed, "MALFORMED", GoesOn;
    /// A frame kind that this relay does not know.
    UnknownFrame = UnknownFrame, "UNKNOWN_FRAME", GoesOn;
    /// A WebSocket text message.
    TextFrame = TextFrame, "TEXT_FRAME", Closes;
    /// Larger than a limit in `Hello`.
    TooLarge = TooLarge, "TOO_LARGE", GoesOn;
    /// A frame that has no place here: before log-in, or a second log-in.
    WrongOrder = WrongOrder, "WRONG_ORDER", Closes;
    /// The log-in's signature does not verify.
    BadSignature = BadSignature, "BAD_SIGNATURE", Closes;
    /// This relay ends TLS itself and wants the log-in bound to it (N1).
    BindingRequired = BindingRequired, "BINDING_REQUIRED", Closes;
    /// Another connection of this device took over (N2).
    Replaced = Replaced, "REPLACED", ClosesForGood;
    /// Nobody here by that name; the same answer for closed and blocking accounts (K1).
    NotFound = NotFound, "NOT_FOUND", GoesOn;
    /// The handle, or one that looks like it, belongs to another account.
    HandleTaken = HandleTaken, "HANDLE_TAKEN", GoesOn;
    /// Not a handle (E6).
    HandleRefused = HandleRefused, "HANDLE_REFUSED", GoesOn;
    /// This relay takes no new accounts.
    RegistrationClosed = RegistrationClosed, "REGISTRATION_CLOSED", GoesOn;
    /// The invite is unknown or used up.
    InviteRefused = InviteRefused, "INVITE_REFUSED", GoesOn;
    /// An account log entry that does not verify, or a direct-mode entry that names another sender than its writer.
    EntryRefused = EntryRefused, "ENTRY_REFUSED", GoesOn;
    /// The account log grew meanwhile: look it up and try again (I3).
    HeadMoved = HeadMoved, "HEAD_MOVED", GoesOn;
    /// This device may not do that.
    NotAllowed = NotAllowed, "NOT_ALLOWED", GoesOn;
    /// There is no such log.
    UnknownLog = UnknownLog, "UNKNOWN_LOG", GoesOn;
    /// One envelope id with two bodies.
    EnvelopeReused = EnvelopeReused, "ENVELOPE_REUSED", GoesOn;
    /// The roster changed meanwhile (C6).
    RosterMoved = RosterMoved, "ROSTER_MOVED", GoesOn;
    /// The conversation was created before (C8).
    ConversationExists = ConversationExists, "CONVERSATION_EXISTS", GoesOn;
    /// A blob's bytes do not fit its hash, size or offset.
    BlobRefused = BlobRefused, "BLOB_REFUSED", GoesOn;
    /// Too much waits already.
    Busy = Busy, "BUSY", GoesOn;
    /// Too often.
    RateLimited = RateLimited, "RATE_LIMITED", GoesOn;
    /// The account was retired.
    Retired = Retired, "RETIRED", GoesOn;
    /// This device's store is older than its last log-in: new direct keys come first (D3, N3).
    Restored = Restored, "RESTORED", GoesOn;
    /// The relay stops or restarts.
    ShuttingDown = ShuttingDown, "SHUTTING_DOWN", Closes;
    /// The relay's disk refused; nothing was accepted.
    StoreFailed = StoreFailed, "STORE_FAILED", Closes;
    /// This device has an account already.
    AlreadyRegistered = AlreadyRegistered, "ALREADY_REGISTERED", GoesOn;
    /// This device was taken from its account.
    DeviceRevoked = DeviceRevoked, "DEVICE_REVOKED", ClosesForGood;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `spec/errors.md` is the law: each code is in its table, with its disposition.
    #[test]
    fn the_table_in_the_spec_is_this_one() {
        let page = include_str!("../../../spec/errors.md");
        for code in Code::ALL {
            let follows = match code.disposition() {
                Disposition::GoesOn => "goes on",
                Disposition::Closes => "closes",
                Disposition::ClosesForGood => "closes, stay away",
            };
            let row = page.lines().find(|line| line.starts_with(&format!("| {} |", code.name())));
            let row = row.unwrap_or_else(|| panic!("{} is not in spec/errors.md", code.name()));
            assert!(row.contains(&format!("| {follows} |")), "{row}");
            assert_eq!(Code::from_wire(code.to_wire() as i32), Some(*code));
        }
        assert_eq!(Code::from_wire(0), None);
        assert_eq!(Code::from_wire(9_999), None);
    }
}
