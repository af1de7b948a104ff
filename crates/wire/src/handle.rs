//! Handles (E6): `name@host`. The name is PRECIS UsernameCaseMapped (RFC 8265), at most 64 bytes, and unique at a
//! relay by its confusable skeleton (Unicode TS 39), so that two that look alike cannot both exist.

use std::fmt;

use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::Profile;

use crate::limits::{HANDLE_MAX, HOST_MAX};

/// Why a handle was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// No `@`, or more than one.
    #[error("write a handle as name@host")]
    Shape,
    /// The name holds characters that a user name must not have (RFC 8265), or none.
    #[error("the name may hold letters, digits, and . _ - but no spaces or symbols")]
    Name,
    /// The name is longer than 64 bytes.
    #[error("the name is longer than {HANDLE_MAX} bytes")]
    TooLong,
    /// The host is not a host name.
    #[error("the host is not a host name")]
    Host,
}

/// The part of a handle before the `@`, prepared and case-mapped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(String);

impl Name {
    /// Prepares a name as RFC 8265 says.
    ///
    /// # Errors
    /// [`HandleError::Name`] and [`HandleError::TooLong`].
    pub fn parse(text: &str) -> Result<Name, HandleError> {
        if text.len() > 4 * HANDLE_MAX {
            return Err(HandleError::TooLong);
        }
        let enforce = |text: &str| UsernameCaseMapped::new().enforce(text).map(std::borrow::Cow::into_owned);
        let name = enforce(text).map_err(|_| HandleError::Name)?;
        // What was put together may be what nobody may write, such as `=` with a slash over it: RFC 8264 section 7 wants
        // a name to stay as it is when it is prepared again.
        if enforce(&name).as_ref() != Ok(&name) {
            return Err(HandleError::Name);
        }
        // ASCII symbols are in PRECIS' IdentifierClass; those that act in handles, shells or paths are not names.
        if name.chars().any(|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
            return Err(HandleError::Name);
        }
        if name.len() > HANDLE_MAX { Err(HandleError::TooLong) } else { Ok(Name(name)) }
    }

    /// The prepared text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What must be unique at a relay: two names that look alike have one skeleton.
    pub fn skeleton(&self) -> String {
        unicode_security::skeleton(&self.0).collect()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A whole handle, `name@host`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Handle {
    /// Who, at that relay.
    pub name: Name,
    /// The relay's name, in lower case; a port may follow after a colon.
    pub host: String,
}

impl Handle {
    /// Parses `name@host`.
    ///
    /// # Errors
    /// Each part's own; [`HandleError::Shape`] where there are not two parts.
    pub fn parse(text: &str) -> Result<Handle, HandleError> {
        let (name, host) = text.split_once('@').ok_or(HandleError::Shape)?;
        if host.contains('@') {
            return Err(HandleError::Shape);
        }
        Ok(Handle { name: Name::parse(name)?, host: parse_host(host)? })
    }
}

/// Parses a relay's name: an ASCII host name or address, with a port where it needs one.
///
/// # Errors
/// [`HandleError::Host`].
pub fn parse_host(text: &str) -> Result<String, HandleError> {
    let fits = !text.is_empty()
        && text.len() <= HOST_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'));
    if fits { Ok(text.to_ascii_lowercase()) } else { Err(HandleError::Host) }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_case_mapped_and_bounded() {
        assert_eq!(Name::parse("Alice").unwrap().as_str(), "alice");
        assert_eq!(Name::parse(&"a".repeat(64)).unwrap().as_str().len(), 64);
        assert_eq!(Name::parse(&"a".repeat(65)), Err(HandleError::TooLong));
        for bad in ["", "a b", "a/b", "a@b", "\u{202e}evil", "a\u{0}", "\u{1b}[31m", "$HOME"] {
            assert_eq!(Name::parse(bad), Err(HandleError::Name), "{bad:?}");
        }
    }

    /// E6: a name that was prepared is prepared (found by fuzzing).
    #[test]
    fn names_that_change_again_are_refused() {
        assert_eq!(Name::parse("\u{305}\u{338}=\u{338}"), Err(HandleError::Name));
        assert_eq!(Name::parse("=\u{338}"), Err(HandleError::Name));
        assert_eq!(Name::parse("e\u{301}").unwrap(), Name::parse("\u{e9}").unwrap());
    }

    /// E6: look-alikes share a skeleton (HP-09).
    #[test]
    fn look_alikes_share_a_skeleton() {
        let cyrillic = Name::parse("\u{430}lice").unwrap();
        assert_eq!(cyrillic.skeleton(), Name::parse("alice").unwrap().skeleton());
        assert_ne!(Name::parse("bob").unwrap().skeleton(), Name::parse("alice").unwrap().skeleton());
    }

    #[test]
    fn handles_have_two_parts() {
        let handle = Handle::parse("Bob@Relay.Example:8443").unwrap();
        assert_eq!(handle.to_string(), "bob@relay.example:8443");
        assert_eq!(Handle::parse("bob"), Err(HandleError::Shape));
        assert_eq!(Handle::parse("bob@a@b"), Err(HandleError::Shape));
        assert_eq!(Handle::parse("bob@ev il"), Err(HandleError::Host));
    }
}
