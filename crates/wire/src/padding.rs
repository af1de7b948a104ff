//! Padding (C12): what an observer learns of a message's length is its bucket. 64, 128, 256 and 512 bytes, then
//! Padmé (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", PETS 2019),
//! which wastes at most 12 %. The plaintext is followed by 0x80 and zeros (ISO/IEC 7816-4), so that it is unambiguous.

use crate::limits::MESSAGE_MAX;

/// Why padding was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaddingError {
    /// With its padding the plaintext is larger than [`MESSAGE_MAX`].
    #[error(
        "{length} bytes do not fit into a message: the limit is {MESSAGE_MAX} bytes, padding included; send it as an attachment"
    )]
    TooLarge {
        /// The length of the plaintext.
        length: usize,
    },
    /// The bytes do not end in 0x80 and zeros, or not at a length that padding makes.
    #[error("the padding is malformed")]
    Malformed,
}

/// The padded length of a plaintext of `length` bytes.
pub fn padded_length(length: usize) -> usize {
    let with_mark = length + 1;
    match with_mark {
        0..=64 => 64,
        65..=128 => 128,
        129..=256 => 256,
        257..=512 => 512,
        _ => padme(with_mark),
    }
}

fn padme(length: usize) -> usize {
    let exponent = length.ilog2();
    let significant = exponent.ilog2() + 1;
    let mask = (1 << (exponent - significant)) - 1;
    (length + mask) & !mask
}

/// Pads a plaintext.
///
/// # Errors
/// [`PaddingError::TooLarge`] beyond [`MESSAGE_MAX`].
pub fn pad(plaintext: &[u8]) -> Result<Vec<u8>, PaddingError> {
    let mut padded = Vec::with_capacity(padded_length(plaintext.len()));
    pad_behind(&mut padded, plaintext)?;
    Ok(padded)
}

/// Pads a plaintext behind what a buffer already holds.
///
/// # Errors
/// [`PaddingError::TooLarge`] beyond [`MESSAGE_MAX`]; the buffer is as before.
pub fn pad_behind(buffer: &mut Vec<u8>, plaintext: &[u8]) -> Result<(), PaddingError> {
    let length = padded_length(plaintext.len());
    if length > MESSAGE_MAX {
        return Err(PaddingError::TooLarge { length: plaintext.len() });
    }
    let end = buffer.len() + length;
    buffer.extend_from_slice(plaintext);
    buffer.push(0x80);
    buffer.resize(end, 0);
    Ok(())
}

/// Takes the padding off.
///
/// # Errors
/// [`PaddingError::Malformed`] for anything that [`pad`] does not make, a longer padding than needed included:
/// one plaintext has one padded form.
pub fn unpad(padded: &[u8]) -> Result<&[u8], PaddingError> {
    // Eight zeros at a time: most of a padded message is zeros, and this runs for every one that is opened.
    let words = padded.rchunks_exact(8).take_while(|word| **word == [0; 8]).count();
    let end = padded[..padded.len() - 8 * words].iter().rposition(|&byte| byte != 0).ok_or(PaddingError::Malformed)?;
    let canonical = padded[end] == 0x80 && padded_length(end) == padded.len() && padded.len() <= MESSAGE_MAX;
    canonical.then(|| &padded[..end]).ok_or(PaddingError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C12: the buckets, at each edge and one past it.
    #[test]
    fn lengths_fall_into_buckets() {
        for (length, padded) in [
            (0, 64),
            (63, 64),
            (64, 128),
            (127, 128),
            (128, 256),
            (255, 256),
            (256, 512),
            (511, 512),
            (512, 544),
            (1023, 1024),
            (1024, 1088),
        ] {
            assert_eq!(padded_length(length), padded, "{length}");
        }
    }

    #[test]
    fn the_limit_is_sixteen_kibibytes_with_padding() {
        assert_eq!(pad(&[7; MESSAGE_MAX - 1]).unwrap().len(), MESSAGE_MAX);
        assert_eq!(pad(&[7; MESSAGE_MAX]), Err(PaddingError::TooLarge { length: MESSAGE_MAX }));
    }

    #[test]
    fn what_was_padded_comes_back_and_nothing_else_does() {
        for length in (0..2_000).chain([MESSAGE_MAX - 1]) {
            let plaintext = vec![0x80; length];
            let padded = pad(&plaintext).unwrap();
            assert!(padded.len() as f64 <= (length.max(512) as f64) * 1.125 + 64.0);
            assert_eq!(unpad(&padded), Ok(&plaintext[..]));
            let mut longer = padded.clone();
            longer.push(0);
            assert_eq!(unpad(&longer), Err(PaddingError::Malformed));
            assert_eq!(unpad(&padded[..padded.len() - 1]), Err(PaddingError::Malformed));
        }
        assert_eq!(unpad(&[0; 64]), Err(PaddingError::Malformed));
        assert_eq!(unpad(&[]), Err(PaddingError::Malformed));
    }
}
