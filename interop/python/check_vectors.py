"""Checks spec/vectors against peer.py: python check_vectors.py DIR. Stops at the first difference, and at whatever it
does not know: a file, or a part of one, that nobody checks would look like one that passes."""
import json, os, struct, sys
from types import SimpleNamespace as Fields
import cbor2
from cryptography.hazmat.primitives.asymmetric import ed25519
import linking as several_devices
import peer
from peer import BAD, H, P256, X25519, prefix, vec

unhex = bytes.fromhex
count = 0

class Differs(Exception): "What differs, in a sentence."

def same(what, ours, theirs):
    global count
    count += 1
    if isinstance(ours, bytes): ours = ours.hex()
    if ours != theirs: raise Differs(f"{what}: {ours} here, {theirs} in the vectors")

def refused(what, function, *arguments):
    """Returns the reason, of those that peer.py names."""
    global count
    count += 1
    try: function(*arguments)
    except BAD as why: return "Malformed" if isinstance(why, struct.error) else str(why)
    raise Differs(f"{what}: was taken, should be refused")

def encodings(v):
    chain = v.pop("chain")
    h = H("chain-start", unhex(chain["conversation"]))
    same("chain start", h, chain["start"])
    for n in (1, 2):
        h = H("chain-step", h + n.to_bytes(8) + H("entry-hash", vec(3, unhex(chain[f"entry_{n}"]))))
        same(f"chain after {n}", h, chain[f"after_{n}"])
    for case in v.pop("content"):
        raw, what = unhex(case["cbor"]), case["what"]
        salt, *_, (disposition, _, _, content_type, data) = cbor2.loads(raw)
        same(what, peer.make_content(content_type, data, disposition, salt), case["cbor"])
        same(f"{what}, read", peer.read_content(raw), CONTENT[what])
    for case in v.pop("content_refused"): refused(f"content {case['cbor']}", peer.read_content, unhex(case["cbor"]))
    c = v.pop("content_id")
    same("content id", H("content-id", unhex(c["conversation"] + c["author"]) + vec(3, unhex(c["content"]))), c["id"])
    for case in v.pop("entries_refused"):
        entry = unhex(case["entry"]).ljust(case["length"], b"\0")
        refused(f"entry, {case['what']}", peer.read_entry, entry)
    for part in ("handles", "handles_alike", "handles_refused"): v.pop(part)  # the relay's rules; a small peer asks by id
    for case in v.pop("entries"):  # a peer reads kind 16 alone; the others are refused as what they are not
        raw, what = unhex(case["entry"]), f"entry {case['kind']}, blob: {case['blob']}"
        at = 9 if KINDS[case["kind"]] in (1, 2) else 1
        same(what, (raw[0], raw[at + 16:]), (KINDS[case["kind"]] | 0x80 * case["blob"],
                                             b"\x08" * 32 if case["blob"] else vec(3, b"\1\2\3")))
        for body in (raw, raw + b"\0", raw[:-1]): refused(f"{what} as an envelope", peer.read_entry, body)
        if raw[0] == 16: same(what, peer.make_entry(raw[1:17], b"\1\2\3"), case["entry"])
    for case in v.pop("padding"):
        content = b"x" * case["length"]
        same(f"padding of {case['length']}", len(peer.pad(content)), case["padded"])
        same(f"padding of {case['length']}, off", peer.unpad(peer.pad(content)), content.hex())
    for case in v.pop("padding_bytes"):
        same("padded bytes", peer.pad(unhex(case["plaintext"])), case["padded"])
        same("padded bytes, off", peer.unpad(unhex(case["padded"])), case["plaintext"])
    refused("too large", peer.pad, bytes(v.pop("padding_too_large")["length"]))
    for case in v.pop("padding_refused"): refused(f"padding {case}", peer.unpad, unhex(case))
    roster = v.pop("roster")
    same("roster", H("roster", vec(4, b"".join(map(unhex, roster["inboxes"])))), roster["hash"])

def person(who):
    """Public keys and ids follow from the secrets."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(unhex(who["ed25519_secret"]))
    public = key.public_key().public_bytes_raw()
    same("Ed25519", public, who["ed25519_public"])
    same("device id", H("device-id", public), who["device_id"])
    same("device hint", H("device-id", public)[:16], who["device_hint"])
    same("P-256", peer.public_of(P256, unhex(who["p256_secret"])), who["p256_public"])
    same("X25519", peer.public_of(X25519, unhex(who["x25519_secret"])), who["x25519_public"])
    return unhex(who["ed25519_secret"])

def identity(v):
    alice, bob = person(v.pop("alice")), person(v.pop("bob"))
    accounts = []
    for log, secret in ((v.pop("account_log"), alice), (v.pop("other_account_log"), bob)):
        entries = [unhex(case["entry"]) for case in log]
        for n, case in enumerate(log):
            account = peer.verify_log(entries[:n + 1])
            same(f"{case['what']}: hash", account.head, case["hash"])
            same(f"{case['what']}: signature", peer.sign(secret, "account-entry", entries[n][:-64]), entries[n][-64:].hex())
        accounts.append(account)
    same("account", accounts[0].id, v.pop("account_id"))
    same("other account", accounts[1].id, v.pop("other_account_id"))
    same("retired", [account.retired for account in accounts], [True, False])
    same("replaced keys", [len(account.keys) for account in accounts], [2, 1])
    for case in v.pop("refused"):
        why = refused(case["what"], peer.verify_log, list(map(unhex, case["entries"])))
        if case["error"] == "Signature": same(case["what"], why, "")  # as the library says it
    signature = peer.sign(alice, "log-in", b"?")
    peer.verify(accounts[0].public, signature, prefix("log-in") + b"?")
    for case in v.pop("refused_keys"):
        check = (lambda key: peer.verify(key, signature, prefix("log-in") + b"?")) if case["suite"] == "ed25519" else (
            lambda key: peer.read_keys(bytes([int(case["suite"])]) + vec(1, key)))
        refused(f"key, {case['what']}", check, unhex(case["key"]))
    a, b = sorted(account.id for account in accounts)
    same("conversation", H("one-to-one", a + b), v.pop("one_to_one"))
    hashes = [H("safety-number", account)[:30] for account in (a, b)]
    digits = [f"{int.from_bytes(h[i:i + 5]) % 100_000:05}" for h in hashes for i in range(0, 30, 5)]
    same("safety number", "".join(digits), v.pop("safety_number"))
    l = v.pop("log_in")
    signed = peer.log_in(l["relay_name"], *(unhex(l[key]) for key in ("relay_key", "challenge")), accounts[0].device,
                         *(unhex(l[key]) for key in ("incarnation", "pending", "origin", "binding")))
    same("log-in", prefix("log-in") + signed, l["to_be_signed"])
    same("log-in signature", peer.sign(alice, "log-in", signed), l["signature"])

def direct(v):
    sender, recipient = v.pop("sender"), v.pop("recipient")
    person(sender)
    person(recipient)
    a, b = unhex(sender["device_id"]), unhex(recipient["device_id"])
    for c in v.pop("cases"):
        suite, name = {"P256": (P256, "p256"), "X25519": (X25519, "x25519")}[c["suite_name"]]
        same("suite", suite, c["suite"])
        mine, theirs = unhex(sender[f"{name}_secret"]), unhex(recipient[f"{name}_secret"])
        key = peer.derive(suite, mine, peer.public_of(suite, theirs), a, b, sending=True)
        back = peer.derive(suite, theirs, peer.public_of(suite, mine), a, b, sending=False)
        same(f"{name} commitment", key.commitment, c["commitment"])
        same(f"{name} commitment of the recipient", back.commitment, c["commitment"])
        same(f"{name} shared", peer.agree(suite, mine, peer.public_of(suite, theirs)), c["shared"])
        info = bytes([suite]) + a + b + vec(1, peer.public_of(suite, mine)) + vec(1, peer.public_of(suite, theirs))
        same(f"{name} info", prefix("direct-key") + info, c["info"])
        same(f"{name} key", key.key, c["key"])
        same(f"{name} key id", key.commitment[:8], c["key_id"])
        entry, envelope, content = unhex(c["entry"]), unhex(c["envelope_id"]), unhex(c["content"])
        ours, header = peer.read_entry(entry)
        same(f"{name} envelope", (ours, header.counter, header.hint), (envelope, c["counter"], a[:16]))
        same(f"{name} padded", peer.pad(content), c["padded"])
        body = peer.seal(key, envelope, c["counter"], header.iv, content)
        same(f"{name} sealed", body, c["body"])
        same(f"{name} entry", peer.make_entry(envelope, body), c["entry"])
        same(f"{name} opened", peer.open_sealed(back, envelope, header), c["content"])
        same(f"{name} read", peer.read_content(content), ("text", "Hello, Bob"))
        def opened(body, envelope=envelope):
            envelope, header = peer.read_entry(peer.make_entry(envelope, body))
            if (header.hint, header.commitment) != (a[:16], back.commitment): raise ValueError("OtherKey")
            return peer.open_sealed(back, envelope, header)
        for r in c["refused"]:
            what = f"{name} {r['what']}"
            same(what, refused(what, opened, unhex(r["body"])) or "Rejected", r["error"])
        refused(f"{name} another envelope id", opened, body, bytes(16))

KINDS = {"Message": 1, "Commit": 2, "Readd": 3, "Cannot": 4, "RestoreRoster": 5, "Direct": 16, "Welcome": 17}
CONTENT = {"text": ("text", "Grüße"), "bytes": ("bytes", "00ff"), "presence taken back": ("quiet", []),
           "receipts": ("quiet", [(b"\4" * 32, 1), (b"\5" * 32, 2)]),
           "a wish to leave": ("quiet", []), "what was missed": ("quiet", [])}
def linking(v): several_devices.linking(v, same, refused, person)

# Conversations: this peer knows direct mode only.
PASSED_OVER = {"conversations.json"}
CHECKS = {"encodings.json": encodings, "identity.json": identity, "direct.json": direct, "linking.json": linking}

def main(folder):
    for name in sorted({*CHECKS, *os.listdir(folder)} - PASSED_OVER):
        if name not in CHECKS: raise Differs(f"{name}: no check is known for this file")
        with open(os.path.join(folder, name)) as file: vectors = json.load(file)
        try: CHECKS[name](vectors)
        except Differs as why: raise Differs(f"{name}, {why}") from None
        if vectors: raise Differs(f"{name}: no check is known for {', '.join(vectors)}")
    print(json.dumps({"vectors": count}))

if __name__ == "__main__":
    try: main(*sys.argv[1:])
    except (Differs, OSError) as why: sys.exit(f"check_vectors: {why}")
