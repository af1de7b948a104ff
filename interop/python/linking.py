"""Checks linking.json: an account with several devices (identity.md), and the channel by which a device is linked
(linking.md): Noise_XXpsk0_25519_AESGCM_SHA256, written here from revision 34 of the Noise protocol."""
import hashlib, hmac, struct
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
import peer
from peer import BAD, H, X25519, must, prefix, vec

unhex = bytes.fromhex

def verify_log(entries):
    """The devices that are left, as id: key."""
    account, head, devices, gone, over = bytes(32), bytes(32), {}, set(), False
    for number, signed in enumerate(entries):
        *place, _, kind = struct.unpack(">32sQ32sQB", signed[:81])
        change, signer, signature = signed[81:-96], signed[-96:-64], signed[-64:]
        must(place == [account, number, head] and not over, "NotNext")
        if kind == 1: devices[H("device-id", change[1:33])] = change[1:33]
        must(signer in devices, "Signer")
        peer.verify(devices[signer], signature, prefix("account-entry") + signed[:-64])
        if kind == 2:
            key, rest, consent = change[:32], change[32:-64], change[-64:]
            new = H("device-id", key)
            must(rest == vec(1, b"\0\2") + vec(2, b"") and new not in devices and new not in gone and len(devices) < 32, "Device")
            peer.verify(key, consent, prefix("device-consent") + account + new)
            devices[new] = key
        if kind == 3:
            must(change in devices and len(devices) > 1, "Device")
            gone.add(change)
            del devices[change]
        over = kind == 7
        head = H("account-entry-hash", vec(3, signed))
        if number == 0: account = head
    return account, head, devices

class Noise:
    """Both sides at once: they share what they hash, and each knows the secrets of both."""
    def __init__(self, psk):
        self.ck = self.h = b"Noise_XXpsk0_25519_AESGCM_SHA256"  # 32 bytes, so it is its own first hash
        self.mix_hash(b"")  # no prologue
        self.ck, into_hash, self.key = self.hkdf(psk, 3)
        self.mix_hash(into_hash)
        self.n = 0
    def hkdf(self, material, count):
        key, out = hmac.digest(self.ck, material, "sha256"), [b""]
        for i in range(count): out.append(hmac.digest(key, out[-1] + bytes([i + 1]), "sha256"))
        return out[1:]
    def mix_hash(self, data): self.h = hashlib.sha256(self.h + data).digest()
    def mix_key(self, material): (self.ck, self.key), self.n = self.hkdf(material, 2), 0
    def ephemeral(self, public):
        self.mix_hash(public)
        self.mix_key(public)  # as in every handshake with a pre-shared key
        return public
    def sealed(self, plain):
        box = AESGCM(self.key).encrypt(nonce(self.n), plain, self.h)
        self.mix_hash(box)
        self.n += 1
        return box

def nonce(n): return bytes(4) + n.to_bytes(8)

def channel(v, same):
    secret = unhex(v["secret"])
    same("meeting", H("link-meeting", secret)[:16], v["meeting"])
    new, sponsor = ([unhex(v[who][of]) for of in ("static_secret", "ephemeral_secret")] for who in ("new_device", "sponsor"))
    public = lambda secret: peer.public_of(X25519, secret)
    dh = lambda secret, other: peer.agree(X25519, secret, public(other))
    payloads = [unhex(message["payload"]) for message in v["messages"]]
    noise = Noise(H("link-secret", secret))
    made = [noise.ephemeral(public(new[1])) + noise.sealed(payloads[0])]
    second = noise.ephemeral(public(sponsor[1]))
    noise.mix_key(dh(sponsor[1], new[1]))
    second += noise.sealed(public(sponsor[0]))
    noise.mix_key(dh(sponsor[0], new[1]))
    made.append(second + noise.sealed(payloads[1]))
    third = noise.sealed(public(new[0]))
    noise.mix_key(dh(new[0], sponsor[1]))
    made.append(third + noise.sealed(payloads[2]))
    of_new, of_sponsor = noise.hkdf(b"", 2)
    made += [AESGCM(key).encrypt(nonce(0), payload, b"") for key, payload in ((of_sponsor, payloads[3]), (of_new, payloads[4]))]
    for number, (ours, message) in enumerate(zip(made, v["messages"], strict=True)):
        same(f"message {number + 1} of the channel", ours, message["message"])
    digits = int.from_bytes(H("link-digits", noise.h)[:8]) % 10**6
    same("digits", f"{digits // 1000:03} {digits % 1000:03}", v["digits"])
    return payloads[2]

def linking(v, same, refused, person):
    phone, laptop = v.pop("phone"), v.pop("laptop")
    signers = [unhex(phone["ed25519_secret"]), unhex(phone["ed25519_secret"]), unhex(laptop["ed25519_secret"])]
    person(phone), person(laptop)
    account_id, log = v.pop("account_id"), v.pop("account_log")
    entries = [unhex(case["entry"]) for case in log]
    counts = []
    for n, case in enumerate(log):
        account, head, devices = verify_log(entries[:n + 1])
        counts.append(len(devices))
        same(case["what"], [account.hex(), head.hex()], [account_id, case["hash"]])
        same(f"{case['what']}: signature", peer.sign(signers[n], "account-entry", entries[n][:-64]), entries[n][-64:].hex())
    same("devices", [counts, [device.hex() for device in devices]], [[1, 2, 1], [laptop["device_id"]]])
    consent = peer.sign(unhex(laptop["ed25519_secret"]), "device-consent", unhex(account_id + laptop["device_id"]))
    same("consent", consent, v.pop("consent"))
    for case in v.pop("refused"):
        why = refused(case["what"], verify_log, list(map(unhex, case["entries"])))
        same(case["what"], why or "Signature", case["error"])
    introduction = channel(v.pop("channel"), same)
    same("introduction", introduction, (b"\1" + unhex(laptop["ed25519_public"]) + b"\x44" * 16 + consent).hex())
