//! The public keys of direct mode (D1): P-256 and X25519.

use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;

use crate::signature::KeyError;

/// The suites of direct mode. The number is on the wire and in every derivation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Suite {
    /// ECDH on NIST P-256 (FIPS 186-5), uncompressed points; what every WebCrypto has.
    P256 = 1,
    /// X25519 (RFC 7748).
    X25519 = 2,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Suite; 2] = [Suite::P256, Suite::X25519];

    /// The suite of a number.
    pub fn from_byte(byte: u8) -> Option<Suite> {
        Suite::ALL.into_iter().find(|suite| *suite as u8 == byte)
    }

    /// The length of a public key in bytes.
    pub fn public_key_length(self) -> usize {
        match self {
            Suite::P256 => 65,
            Suite::X25519 => 32,
        }
    }
}

/// A checked public key of direct mode: on its curve, not of small order, in its one canonical form (HR-05).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectKey {
    suite: Suite,
    bytes: Vec<u8>,
}

impl DirectKey {
    /// Reads and checks a key.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(suite: Suite, bytes: &[u8]) -> Result<DirectKey, KeyError> {
        if bytes.len() != suite.public_key_length() {
            return Err(KeyError::Length);
        }
        let usable = match suite {
            // The point at infinity has no 65-byte form, and the cofactor is 1.
            Suite::P256 => bytes[0] == 0x04 && p256::PublicKey::from_sec1_bytes(bytes).is_ok(),
            Suite::X25519 => is_canonical_and_of_large_order(bytes),
        };
        if usable { Ok(DirectKey { suite, bytes: bytes.to_vec() }) } else { Err(KeyError::Point) }
    }

    /// Which suite it is for.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The key's bytes: an uncompressed point (SEC 1), or a u-coordinate (RFC 7748).
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// 2^255 - 19, little-endian.
const P: [u8; 32] = {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
};

fn is_canonical_and_of_large_order(bytes: &[u8]) -> bool {
    let Ok(u) = <[u8; 32]>::try_from(bytes) else { return false };
    let below_p = u.iter().rev().lt(P.iter().rev());
    let times_cofactor = MontgomeryPoint(u) * Scalar::from(8u8);
    below_p && !times_cofactor.is_identity()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HR-05: the points of small order (RFC 7748 section 6.1 asks for the check; the list is that of cr.yp.to/ecdh.html).
    #[test]
    fn x25519_points_of_small_order_are_refused() {
        let order_8 = [
            [
                0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
                0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
            ],
            [
                0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
                0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
            ],
        ];
        let one = {
            let mut u = [0; 32];
            u[0] = 1;
            u
        };
        let minus_one = {
            let mut u = P;
            u[0] -= 1;
            u
        };
        for u in order_8.into_iter().chain([[0; 32], one, minus_one]) {
            assert_eq!(DirectKey::parse(Suite::X25519, &u), Err(KeyError::Point), "{u:?}");
        }
    }

    #[test]
    fn x25519_keys_have_one_form() {
        let base = {
            let mut u = [0; 32];
            u[0] = 9;
            u
        };
        assert!(DirectKey::parse(Suite::X25519, &base).is_ok());
        // 9 + p, and 9 with the unused bit.
        let plus_p = {
            let mut u = P;
            u[0] = 0xf6;
            u
        };
        let high_bit = {
            let mut u = base;
            u[31] |= 0x80;
            u
        };
        for u in [plus_p, high_bit] {
            assert_eq!(DirectKey::parse(Suite::X25519, &u), Err(KeyError::Point));
        }
        assert_eq!(DirectKey::parse(Suite::X25519, &base[..31]), Err(KeyError::Length));
    }

    #[test]
    fn p256_keys_are_uncompressed_points_of_the_curve() {
        let generator = p256::PublicKey::from_affine(p256::AffinePoint::GENERATOR).unwrap();
        let good = {
            use p256::elliptic_curve::sec1::ToSec1Point;
            generator.to_sec1_point(false).as_bytes().to_vec()
        };
        assert!(DirectKey::parse(Suite::P256, &good).is_ok());
        let mut off_curve = good.clone();
        off_curve[64] ^= 1;
        let mut hybrid = good.clone();
        hybrid[0] = 0x06;
        for bad in [off_curve, hybrid, vec![0; 65]] {
            assert_eq!(DirectKey::parse(Suite::P256, &bad), Err(KeyError::Point));
        }
        assert_eq!(DirectKey::parse(Suite::P256, &good[..33]), Err(KeyError::Length));
    }
}
