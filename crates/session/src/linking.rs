//! The channel between two devices, one of which is to be linked to the other's account (I5): Noise
//! `XXpsk0_25519_AESGCM_SHA256` (revision 34 of the Noise protocol, by the crate `snow`), with the secret of the code as its
//! pre-shared key. Whoever does not know the secret can not even say the first word; whoever stands between the two with it
//! cannot make both show the same six digits.
//!
//! `snow` computes with the crates that everything else here is made of, and draws from the step's generator.

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Rng, SeedableRng};
use sealwire_wire::MeetingId;
use sealwire_wire::label::Label;
use sealwire_wire::limits::MEETING_BYTES_MAX;
use sha2::{Digest, Sha256};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher as NoiseCipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, TransportState};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::primitives::{Cipher, TAG};

/// The name of the protocol, which both sides hash.
const PROTOCOL: &str = "Noise_XXpsk0_25519_AESGCM_SHA256";
/// The most that one message carries beside what Noise adds.
pub const SAID_MAX: usize = MEETING_BYTES_MAX - TAG;

/// The secret of a code: 16 random bytes, good once.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeSecret(pub [u8; 16]);

/// Nothing of it prints.
impl std::fmt::Debug for CodeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CodeSecret(..)")
    }
}

impl CodeSecret {
    /// Where the two meet: the relay sees it, and learns nothing of the secret.
    pub fn meeting(&self) -> MeetingId {
        let hash = self.derive(Label::LINK_MEETING);
        MeetingId(hash[..16].try_into().expect("16 of 32 bytes"))
    }

    fn derive(&self, label: Label) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(Sha256::digest(label.encode(&self.0)).into())
    }
}

/// A message that does not belong here, or was made by somebody who does not know the secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("what came is not from the other device of this code")]
pub struct LinkingError;

impl From<snow::Error> for LinkingError {
    fn from(_: snow::Error) -> LinkingError {
        LinkingError
    }
}

/// A handshake that is under way. The new device begins it.
pub struct Handshake(HandshakeState);

/// Both have spoken: what is said from here on is sealed, in order.
pub struct Channel {
    transport: TransportState,
    hash: [u8; 32],
}

impl Handshake {
    /// Of the new device, which has read the code.
    pub fn of_new_device(secret: &CodeSecret, rng: &mut dyn CryptoRng) -> Handshake {
        Handshake::build(secret, rng, |builder| builder.build_initiator())
    }

    /// Of the device that shows the code.
    pub fn of_sponsor(secret: &CodeSecret, rng: &mut dyn CryptoRng) -> Handshake {
        Handshake::build(secret, rng, |builder| builder.build_responder())
    }

    fn build(
        secret: &CodeSecret,
        rng: &mut dyn CryptoRng,
        build: impl FnOnce(Builder<'_>) -> Result<HandshakeState, snow::Error>,
    ) -> Handshake {
        let (mut own, mut seed) = (Zeroizing::new([0; 32]), [0; 32]);
        rng.fill_bytes(&mut *own);
        rng.fill_bytes(&mut seed);
        let psk = secret.derive(Label::LINK_SECRET);
        let params: NoiseParams = PROTOCOL.parse().expect("a name of the Noise protocol");
        let resolver = Box::new(Resolver(seed));
        let builder = Builder::with_resolver(params, resolver).psk(0, &psk).and_then(|b| b.local_private_key(&*own));
        Handshake(builder.and_then(build).expect("all that the pattern asks for is there"))
    }

    /// The next message, with something that is sealed as far as the handshake has come.
    ///
    /// # Errors
    /// [`LinkingError`]: it is the other one's turn, or too much.
    pub fn say(&mut self, payload: &[u8]) -> Result<Vec<u8>, LinkingError> {
        let mut message = vec![0; MEETING_BYTES_MAX];
        let length = self.0.write_message(payload, &mut message)?;
        message.truncate(length);
        Ok(message)
    }

    /// What the other one has said.
    ///
    /// # Errors
    /// [`LinkingError`].
    pub fn hear(&mut self, message: &[u8]) -> Result<Vec<u8>, LinkingError> {
        let mut payload = vec![0; MEETING_BYTES_MAX];
        let length = self.0.read_message(message, &mut payload)?;
        payload.truncate(length);
        Ok(payload)
    }

    /// When all three messages were said.
    ///
    /// # Errors
    /// [`LinkingError`]: they were not.
    pub fn finish(self) -> Result<Channel, LinkingError> {
        let hash = self.0.get_handshake_hash().try_into().map_err(|_| LinkingError)?;
        Ok(Channel { transport: self.0.into_transport_mode()?, hash })
    }
}

impl Channel {
    /// Six digits that both show: they are the same only if nobody stands between.
    pub fn digits(&self) -> String {
        let hash: [u8; 32] = Sha256::digest(Label::LINK_DIGITS.encode(&self.hash)).into();
        let number = u64::from_be_bytes(hash[..8].try_into().expect("8 of 32 bytes")) % 1_000_000;
        format!("{:03} {:03}", number / 1_000, number % 1_000)
    }

    /// Seals at most [`SAID_MAX`] bytes.
    ///
    /// # Errors
    /// [`LinkingError`]: too much.
    pub fn say(&mut self, payload: &[u8]) -> Result<Vec<u8>, LinkingError> {
        let mut message = vec![0; payload.len() + TAG];
        let length = self.transport.write_message(payload, &mut message)?;
        message.truncate(length);
        Ok(message)
    }

    /// What the other one has said.
    ///
    /// # Errors
    /// [`LinkingError`].
    pub fn hear(&mut self, message: &[u8]) -> Result<Vec<u8>, LinkingError> {
        let mut payload = vec![0; message.len()];
        let length = self.transport.read_message(message, &mut payload)?;
        payload.truncate(length);
        Ok(payload)
    }
}

/// What `snow` computes with: the crates of direct mode, and randomness of this seed.
struct Resolver([u8; 32]);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Seeded(ChaCha20Rng::from_seed(self.0))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<X25519>::default() as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::<NoiseSha256>::default() as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn NoiseCipher>> {
        matches!(choice, CipherChoice::AESGCM).then(|| Box::new(AesGcm(Cipher::new(&[0; 32]))) as Box<dyn NoiseCipher>)
    }
}

struct Seeded(ChaCha20Rng);

impl Random for Seeded {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

struct X25519 {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Default for X25519 {
    fn default() -> X25519 {
        X25519 { secret: Zeroizing::new([0; 32]), public: [0; 32] }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        self.secret.copy_from_slice(secret);
        self.public = PublicKey::from(&StaticSecret::from(*self.secret)).to_bytes();
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *secret)?;
        self.set(&*secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.secret
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let public: [u8; 32] = public.get(..32).and_then(|key| key.try_into().ok()).ok_or(snow::Error::Dh)?;
        let shared = StaticSecret::from(*self.secret).diffie_hellman(&PublicKey::from(public));
        if !shared.was_contributory() {
            return Err(snow::Error::Dh);
        }
        out[..32].copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

#[derive(Default)]
struct NoiseSha256(Sha256);

impl Hash for NoiseSha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Sha256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&self.0.finalize_reset());
    }
}

struct AesGcm(Cipher);

/// Noise, section 12.4: 32 bits of zeros, then the counter, big-endian.
fn iv(nonce: u64) -> [u8; 12] {
    let mut iv = [0; 12];
    iv[4..].copy_from_slice(&nonce.to_be_bytes());
    iv
}

impl NoiseCipher for AesGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = Cipher::new(key);
    }

    fn encrypt(&self, nonce: u64, associated: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let length = plaintext.len();
        out[..length].copy_from_slice(plaintext);
        let tag = self.0.seal(iv(nonce), associated, &mut out[..length]);
        out[length..length + TAG].copy_from_slice(&tag);
        length + TAG
    }

    fn decrypt(&self, nonce: u64, associated: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, snow::Error> {
        let length = ciphertext.len().checked_sub(TAG).ok_or(snow::Error::Decrypt)?;
        let tag = ciphertext[length..].try_into().map_err(|_| snow::Error::Decrypt)?;
        let out = out.get_mut(..length).ok_or(snow::Error::Decrypt)?;
        out.copy_from_slice(&ciphertext[..length]);
        self.0.open(iv(nonce), associated, out, tag).map_err(|_| snow::Error::Decrypt)?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng(seed: u64) -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(seed)
    }

    /// Both sides of a handshake, with what each said on the way.
    fn talk(of_new: &CodeSecret, of_sponsor: &CodeSecret) -> Result<(Channel, Channel), LinkingError> {
        let mut new = Handshake::of_new_device(of_new, &mut rng(1));
        let mut sponsor = Handshake::of_sponsor(of_sponsor, &mut rng(2));
        assert_eq!(sponsor.hear(&new.say(b"")?)?, b"");
        assert_eq!(new.hear(&sponsor.say(b"which account")?)?, b"which account");
        assert_eq!(sponsor.hear(&new.say(b"which device")?)?, b"which device");
        Ok((new.finish()?, sponsor.finish()?))
    }

    /// I5: both show the same digits, and hear each other.
    #[test]
    fn two_devices_hear_each_other() {
        let secret = CodeSecret([7; 16]);
        let (mut new, mut sponsor) = talk(&secret, &secret).unwrap();
        assert_eq!(new.digits(), sponsor.digits());
        assert_eq!(new.digits().len(), 7);
        let most = vec![3; SAID_MAX];
        assert_eq!(most.len(), 65_519, "with its tag, one message of Noise");
        for said in [&b"contacts"[..], &most] {
            let message = sponsor.say(said).unwrap();
            assert!(message.len() <= MEETING_BYTES_MAX);
            assert_eq!(new.hear(&message).unwrap(), said);
            assert_eq!(new.hear(&message), Err(LinkingError), "again");
        }
        assert_eq!(sponsor.hear(&new.say(b"kept").unwrap()).unwrap(), b"kept");
    }

    /// I5: without the secret nobody gets a word across; with it, whoever stands between shows other digits.
    #[test]
    fn whoever_stands_between_is_seen() {
        let (secret, other) = (CodeSecret([7; 16]), CodeSecret([8; 16]));
        assert!(talk(&other, &secret).is_err());
        assert_ne!(secret.meeting(), other.meeting());
        let (new, between) = talk(&secret, &secret).unwrap();
        let mut first = Handshake::of_new_device(&secret, &mut rng(3));
        let mut second = Handshake::of_sponsor(&secret, &mut rng(4));
        second.hear(&first.say(b"").unwrap()).unwrap();
        first.hear(&second.say(b"").unwrap()).unwrap();
        second.hear(&first.say(b"").unwrap()).unwrap();
        assert_eq!(new.digits(), between.digits());
        assert_ne!(new.digits(), second.finish().unwrap().digits());
    }

    /// HR-08: every bit of every message.
    #[test]
    fn a_damaged_word_is_refused() {
        let secret = CodeSecret([7; 16]);
        let mut new = Handshake::of_new_device(&secret, &mut rng(1));
        let said = new.say(b"").unwrap();
        for bit in 0..said.len() * 8 {
            let mut flipped = said.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Handshake::of_sponsor(&secret, &mut rng(2)).hear(&flipped), Err(LinkingError), "bit {bit}");
        }
        for end in 0..said.len() {
            assert_eq!(Handshake::of_sponsor(&secret, &mut rng(2)).hear(&said[..end]), Err(LinkingError));
        }
    }

    /// M1: the secret does not print, and leads to one place.
    #[test]
    fn the_code_says_where_to_meet() {
        let secret = CodeSecret(*b"0123456789abcdef");
        assert_eq!(secret.meeting(), CodeSecret(*b"0123456789abcdef").meeting());
        assert_eq!(format!("{secret:?}"), "CodeSecret(..)");
    }
}
