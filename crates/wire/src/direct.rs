//! The public header of a direct-mode envelope (`spec/direct.md`): how long it is, and where the one field lies that a
//! relay reads. What the header's bytes mean beyond that is the business of those who seal and open.

use std::ops::Range;

use crate::DeviceHint;

/// The header's length: version, suite, counter, sender hint, key commitment, IV.
pub const HEADER: usize = 1 + 1 + 4 + 16 + 32 + 12;
/// Where the sender's hint lies in it.
pub const SENDER_HINT: Range<usize> = 6..22;

/// Whose keys open a direct-mode body, as it says itself; `None` where the body is shorter than a header. Proves
/// nothing to whoever does not know who wrote it. The relay does.
pub fn sender_hint(body: &[u8]) -> Option<DeviceHint> {
    let header = body.get(..HEADER)?;
    DeviceHint::try_from(&header[SENDER_HINT]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_lies_where_the_spec_says() {
        let mut body = [0; HEADER];
        body[6..22].fill(7);
        assert_eq!(sender_hint(&body), Some(DeviceHint([7; 16])));
        assert_eq!(sender_hint(&[&body[..], &[9; 100]].concat()), Some(DeviceHint([7; 16])));
        assert_eq!(sender_hint(&body[..HEADER - 1]), None);
        assert_eq!(HEADER, 66);
    }
}
