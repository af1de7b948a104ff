"""A small Sealwire peer: commands, what arrives, what leaves, the relay, accounts, keys, bytes. Names such as logs.md
are pages of spec/. An *account* is a chain of signed entries that lists public keys; from these, two people derive an
AES key for each direction. The *relay* appends what is sealed to the reader's *inbox*; whatever it says is checked."""
import hashlib, hmac, json, os, random, sqlite3, struct, sys, time
from types import SimpleNamespace as Fields
import cbor2, websockets.sync.client
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
import sealwire_pb2 as pb  # generated from spec/sealwire.proto

TEXT, BYTES, STATUS = "text/plain;charset=utf-8", "application/octet-stream", "application/mimi-message-status"
KEEP = "url name relay ed25519 secrets log inbox committed pending restored cursor contacts counters outbox".split()
BAD = ValueError, TypeError, LookupError, OverflowError, struct.error, InvalidSignature, InvalidTag, cbor2.CBORError
def must(passes, why="Malformed"):
    if not passes: raise ValueError(why)
def main(arguments):
    match arguments:
        case [path, "init", url, name]: Peer(path).init(url, name.lower())
        case [path, "send", to, text]: Peer(path).run(30, Peer.send, to, TEXT, text.encode())
        case [path, "send-bytes", to, file]: Peer(path).run(30, Peer.send, to, BYTES, open(file, "rb").read())
        case [path, "listen", "--count", n, "--seconds", seconds]: Peer(path).run(float(seconds), Peer.listen, int(n))
        case _: must(False, "STATE init URL NAME | send TO TEXT | send-bytes TO FILE | listen --count N --seconds S")
class Peer:
    def __init__(self, path):  # the state is one row, replaced as a whole, and used by one process at a time
        os.umask(0o077); self.db, self.log, self.sent, self.shown = sqlite3.connect(path, timeout=0), [], None, 0
        self.db.executescript("pragma locking_mode = exclusive; begin exclusive;"
                              "create table if not exists state (id integer primary key, cbor blob); commit")
        for (state,) in self.db.execute("select cbor from state"): vars(self).update(cbor2.loads(state))
    def save(self):
        with self.db: self.db.execute("replace into state values(1,?)", [cbor2.dumps({k: vars(self)[k] for k in KEEP})])
    def init(self, url, name):
        if not self.log:  # else an earlier init goes on with its keys
            suites = os.environ.get("SEALWIRE_SUITES", "2,1").split(",")  # in the order that we prefer
            self.ed25519, self.secrets = os.urandom(32), {int(suite): os.urandom(32) for suite in suites}
            self.log, self.inbox, self.committed = [genesis(self.ed25519, self.secrets)], os.urandom(16), os.urandom(16)
            self.relay, self.restored, self.cursor, self.contacts, self.counters, self.outbox = [], False, 0, {}, {}, []
        self.url, self.name = url, name; self.run(10, lambda self: None)  # a log-in registers whom the relay knows not
        say(account=self.me.id.hex(), handle=f"{self.name}@{self.relay[0]}", device=self.me.device.hex())
    def send(self, to, content_type, data):
        must(len(to) == 64, "write to an account id: a bare handle would be the relay's word (direct.md, Strangers)")
        if not self.sent:
            contact = self.contacts[bytes.fromhex(to)] = self.lookup(account=bytes.fromhex(to)) | {"accepted": 1}
            self.sent = self.seal(contact, make_content(content_type, data))
        self.flush()  # over a second connection the same bytes go again
        must(self.sent["state"] == "accepted", f"the relay answered {self.sent['state']}")
        say(accepted=self.sent["envelope"].hex())
    def listen(self, count):
        while self.shown < count and time.monotonic() < self.end:
            try: self.ask("deliver", 0 if self.arrived else min(5, self.end - time.monotonic()))
            except TimeoutError: self.arrived or self.send_receipts()  # gathered until nothing comes for 5 seconds
            while self.arrived and self.shown < count: self.take(self.arrived.pop(0))
        self.send_receipts()
    def take(self, delivered):  # logs.md, Reading: an entry ends as shown, duplicate or rejected; each moves the cursor
        if delivered.position <= self.cursor: return
        try: lines = self.open(*read_entry(delivered.entry))
        except BAD as why: lines = [{"rejected": str(why) or "Rejected", "envelope": delivered.entry[1:17].hex()}]
        self.cursor = delivered.position; self.save()  # before it is shown, and before the relay may forget it
        for line in lines: say(**line)
        self.shown += sum("receipt" not in line for line in lines)
        self.ask(None, ack=pb.Ack(log=self.inbox, upto=delivered.position))
    def open(self, envelope, header):  # direct.md, Opening: nothing changes before key, content and replay have passed
        contact = next((c for c in self.contacts.values() if c["device"][:16] == header.hint), None)
        if not contact or not self.key(contact, header): contact = self.lookup(device_hint=header.hint)  # but once
        key, sender, owed = self.key(contact, header), contact["id"], contact["owed"]; must(key, "OtherKey")
        content = open_sealed(key, envelope, header)
        (kind, value), known = read_content(content), content_id(sender, self.me.id, content)
        if known in contact["seen"]: return []  # all ids are kept: nothing is shown twice, and no window is needed
        must(contact["accepted"] or len(owed) < 50, "TooManyOfAStranger")
        contact["seen"].append(known); self.contacts[sender] = contact
        if kind == "quiet":  # receipts count only from the account that the message was for
            ours = [sent["id"] for sent in self.outbox if sent["to"] == sender]
            new = [(i, s) for i, s in value if i in ours and s in (1, 2) and [i, s] not in contact["seen"]]
            contact["seen"] += map(list, new)  # so that a receipt that is repeated tells nothing
            return [{"receipt": i.hex(), "status": ["delivered", "read"][s - 1]} for i, s in new]
        owed.append(known); return [{"from": sender.hex(), "handle": contact["handle"], kind: value}]
    def key(self, contact, header):  # from any key of theirs, 16 replaced ones included, and our present one
        for theirs in [keys[header.suite] for keys in verify_log(contact["log"]).keys[:17] if header.suite in keys]:
            key = derive(header.suite, self.secrets[header.suite], theirs, contact["device"], self.me.device, False)
            if hmac.compare_digest(key.commitment, header.commitment): return key
    def seal(self, contact, content):  # logs.md, Sending: once; bytes and counter are saved before anything leaves
        you, envelope, to = verify_log(contact["log"]), os.urandom(16), contact["id"]
        suite = next((suite for suite in you.keys[0] if suite in self.secrets), None)  # they list the best one first
        must(suite and not you.retired, "nothing can be sent to them")
        key = derive(suite, self.secrets[suite], you.keys[0][suite], self.me.device, you.device, True)
        counter = self.counters[key.commitment] = self.counters.get(key.commitment, -1) + 1
        entry = make_entry(envelope, seal(key, envelope, counter, os.urandom(12), content))
        sent = dict(id=content_id(self.me.id, to, content), to=to, envelope=envelope, entry=entry, state="queued")
        self.outbox = self.outbox[-999:] + [sent | {"inbox": contact["inbox"]}]
        self.save(); return self.outbox[-1]
    def flush(self):  # what has no answer yet goes: always the same bytes under the same envelope id
        for one in [sent for sent in self.outbox if sent["state"] == "queued"]:
            try: self.ask("accepted", append=pb.Append(log=one["inbox"], entry=one["entry"])); one["state"] = "accepted"
            except ValueError as why: one["state"] = str(why)
            self.save()
    def send_receipts(self):  # to those whom we wrote to; strangers learn nothing (direct.md, Receipts, Strangers)
        for contact in [c for c in self.contacts.values() if c["owed"] and c["accepted"]]:
            receipts, contact["owed"] = [[known, 1] for known in contact["owed"][:256]], contact["owed"][256:]
            self.seal(contact, make_content(STATUS, cbor2.dumps(receipts), 0))
        self.flush()

    def run(self, seconds, command, *arguments):  # connection.md: a lost connection is made anew, later and later
        self.me, self.end, wait = verify_log(self.log), time.monotonic() + seconds, 0.25
        must(self.url.startswith(("ws://127.0.0.1:", "ws://localhost:")), "without TLS, only on this machine")
        while True:
            try:
                with websockets.sync.client.connect(self.url, subprotocols=["sealwire.v1"], compression=None) as socket:
                    self.log_in(socket); return command(self, *arguments)
            except (ConnectionError, TimeoutError, websockets.WebSocketException) as why:
                must(str(why) != "REPLACED" and time.monotonic() + wait < self.end, f"{why}; what was to go is saved")
            time.sleep(random.uniform(wait / 2, wait)); wait = min(2 * wait, 60)
    def log_in(self, socket):  # two incarnations show whether this state was put back or copied: then it is of no use
        self.socket, self.arrived, me = socket, [], self.me
        hello, self.pending = self.ask("hello"), os.urandom(16)
        self.relay = self.relay or [hello.relay_name, hello.relay_key]
        must(self.relay == [hello.relay_name, hello.relay_key], "this is not the relay that was pinned at first")
        self.save()  # before it is sent
        signed = log_in(*self.relay, hello.challenge, me.device, self.committed, self.pending)
        told = self.ask("logged_in", log_in=pb.LogIn(device_key=me.public, incarnation=self.committed,
                        pending=self.pending, signature=sign(self.ed25519, "log-in", signed)))
        if told.standing == told.UNREGISTERED: self.ask("done", register=pb.Register(
            request=1, handle=self.name, genesis=self.log[0], inbox=self.inbox))
        self.restored |= told.read_upto > self.cursor or told.account_entries > 1 or told.standing == told.RESTORED
        if not self.restored: self.committed, self.cursor = self.pending, told.read_upto  # what is known is recognised
        self.name = told.handle or self.name; self.save()
        must(not self.restored, "this state was put back or copied, and is of no use any more (connection.md)")
        self.flush()
    def ask(self, expected, seconds=30, **frame):  # frames.md: one question at a time, all number 1; or it only waits
        if frame: self.socket.send(pb.ToRelay(**frame).SerializeToString())
        kind, body, end = None, None, time.monotonic() + seconds
        while kind != expected:  # what is delivered meanwhile waits in self.arrived; what answers nothing is ignored
            received = pb.FromRelay.FromString(self.socket.recv(max(0, end - time.monotonic()), decode=False))
            kind = received.WhichOneof("frame") or "unknown"
            body = getattr(received, kind, None)
            if kind == "deliver" and body.log == self.inbox: self.arrived += body.entries
            if kind != "failed": continue
            says, wait = pb.Code.Name(body.code), body.retry_after_ms / 1000
            must(wait or says == "STORE_FAILED" or not body.request and not body.envelope, says)
            time.sleep(min(wait, 60)); raise ConnectionError(says)  # errors.md: and connect anew
        return body
    def lookup(self, **by):  # identity.md: an account log, verified; one that is pinned is only ever continued
        found = self.ask("found", lookup=pb.Lookup(request=1, **by))
        you, log = verify_log(found.entries), list(found.entries)
        must(by in ({"account": you.id}, {"device_hint": you.device[:16]}), "OtherAccount")
        contact = self.contacts.get(you.id) or dict(id=you.id, device=you.device, accepted=0, log=[], seen=[], owed=[])
        must(log[:len(contact["log"])] == contact["log"], "OtherLog")
        inbox, = [writable.inbox for writable in found.devices if writable.device == you.device]
        handle = None if found.handle == self.name else f"{found.handle}@{self.relay[0]}"  # the relay's word for them
        return contact | {"log": log, "handle": handle, "inbox": inbox}

def verify_log(entries):  # identity.md: the account that a chain of signed entries makes, whoever hands them over
    account = Fields(id=bytes(32), head=bytes(32), device=None, keys=[], retired=False)
    for number, signed in enumerate(entries):
        *place, at, kind = struct.unpack(">32sQ32sQB", signed[:81])
        change, signer, signature = signed[81:-96], signed[-96:-64], signed[-64:]
        must(place == [account.id, number, account.head] and not account.retired, "NotNext")
        must((kind == 1) == (number == 0) and (kind in (1, 4) or kind == 7 and not change), "Change")
        if kind == 1: account.public, account.device = change[1:33], H("device-id", change[1:33])
        must(signer == account.device and (kind != 4 or change[:32] == signer), "Signer")
        if kind == 7: account.retired = True
        else: account.keys.insert(0, read_keys(change[34 + change[33] if kind == 1 else 32:]))  # behind modes; device
        verify(account.public, signature, prefix("account-entry") + signed[:-64])
        account.head = H("account-entry-hash", vec(3, signed))
        if number == 0: account.id = account.head
    must(entries, "there is no account"); return account
def genesis(secret, secrets):  # a person who takes direct mode
    public = ed25519.Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    keys = write_keys({suite: public_of(suite, secrets[suite]) for suite in secrets})
    entry = bytes(72) + struct.pack(">QBB", time.time_ns() // 10**6, 1, 1) + public + vec(1, b"\0\1") + keys
    entry += H("device-id", public); return entry + sign(secret, "account-entry", entry)
def write_keys(keys): return vec(2, b"".join(bytes([suite]) + vec(1, key) for suite, key in keys.items()))
def read_keys(listed):
    keys, rest = {}, listed[2:]
    while rest: keys[rest[0]], rest = rest[2:2 + rest[1]], rest[2 + rest[1]:]
    must(write_keys(keys) == listed and 1 <= len(keys) <= 8, "DirectKeys")  # no byte too many, and no double
    for suite in FORMS.keys() & keys.keys(): agree(suite, os.urandom(32), keys[suite])  # to agree with a key checks it
    return keys
def log_in(name, key, challenge, device, committed, pending, origin=b"", binding=b""):  # what a log-in signs
    return vec(2, name.encode()) + key + challenge + device + committed + pending + vec(2, origin) + vec(1, binding)
def sign(secret, label, data): return ed25519.Ed25519PrivateKey.from_private_bytes(secret).sign(prefix(label) + data)
def verify(public, signature, signed):
    for y in [int.from_bytes(point, "little") % 2**255 for point in (public, signature[:32])]:
        must(y < FIELD, "Key")  # canonical; and not of small order, which is seen better on the curve of X25519
        agree(X25519, os.urandom(32), ((1 + y) * pow(1 - y, -1, FIELD) % FIELD).to_bytes(32, "little"))
    ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
P256, X25519, FIELD, CURVE = 1, 2, 2**255 - 19, ec.SECP256R1()
HEADER = ">BBI16s32s12s"  # of an envelope: version, suite, counter, hint of the sender, commitment, IV
FORMS = {P256: (Encoding.X962, PublicFormat.UncompressedPoint), X25519: (Encoding.Raw, PublicFormat.Raw)}
PRIVATE = {P256: lambda secret: ec.derive_private_key(int.from_bytes(secret), CURVE),
           X25519: x25519.X25519PrivateKey.from_private_bytes}
def public_of(suite, secret): return PRIVATE[suite](secret).public_key().public_bytes(*FORMS[suite])
def agree(suite, secret, public):  # the libraries refuse what is not on the curve, or of small order
    must(int.from_bytes(public, "little") < FIELD if suite == X25519 else public[0] == 4, "Key")
    if suite == X25519: return PRIVATE[suite](secret).exchange(x25519.X25519PublicKey.from_public_bytes(public))
    return PRIVATE[suite](secret).exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(CURVE, public))
def derive(suite, secret, public, sender, recipient, sending):  # direct.md, Keys: of one direction, and its commitment
    ours, theirs = vec(1, public_of(suite, secret)), vec(1, public)
    info = prefix("direct-key") + bytes([suite]) + sender + recipient + (ours + theirs if sending else theirs + ours)
    hkdf = hmac.digest(bytes(32), agree(suite, secret, public), "sha256")  # HKDF (RFC 5869) by hand: two blocks
    key = hmac.digest(hkdf, info + b"\1", "sha256"); commitment = hmac.digest(hkdf, key + info + b"\2", "sha256")
    return Fields(suite=suite, ids=commitment[:8] + sender + recipient, key=key, commitment=commitment)
def associated(key, envelope, counter):  # moved to another envelope, pair or count, it does not open
    return prefix("direct-envelope") + bytes([1, key.suite]) + key.ids + envelope + struct.pack(">IB", counter, 0)
def seal(key, envelope, counter, iv, content):
    header = struct.pack(HEADER, 1, key.suite, counter, key.ids[8:24], key.commitment, iv)
    return header + AESGCM(key.key).encrypt(iv, pad(content), associated(key, envelope, counter))
def open_sealed(key, envelope, header):
    return unpad(AESGCM(key.key).decrypt(header.iv, header.sealed, associated(key, envelope, header.counter)))
def make_entry(envelope, body): return bytes([16]) + envelope + vec(3, body)
def read_entry(entry):
    version, suite, counter, hint, commitment, iv = struct.unpack(HEADER, entry[20:86])
    must(make_entry(entry[1:17], entry[20:]) == entry and version == 1 and suite in FORMS and counter < 2**31)
    return entry[1:17], Fields(suite=suite, counter=counter, hint=hint, commitment=commitment, iv=iv, sealed=entry[86:])

def make_content(content_type, data, disposition=1, salt=None):
    return cbor2.dumps([salt or os.urandom(16), None, b"", None, None, {}, [disposition, "", 1, content_type, data]])
def read_content(raw):  # encodings.md: what to call it, and what it is
    salt, _, topic, _, ref, more, part = read_cbor(raw)
    must([*map(type, (salt, topic, more, part)), len(salt), len(ref or 2 * salt)] == [bytes, bytes, dict, list, 16, 32])
    match [more.get("sealwire.must-understand", []), *part]:
        case [[], _, str(), 1, t, bytes(data)] if t == STATUS: return "quiet", [(i, s) for i, s in read_cbor(data)]
        case [[], 1, str(), 1, t, bytes(data)]: return ("text", data.decode()) if t == TEXT else ("bytes", data.hex())
        case [[], _, str(), 1, _, bytes()]: return "quiet", []  # such as a presence token
    return "unsupported", True
def read_cbor(raw):  # deterministic: it comes out the same when it is encoded again, maps sorted and without floats
    value = cbor2.loads(raw, max_depth=16, allow_indefinite=False, allow_duplicate_keys=False, object_hook=in_order)
    must(cbor2.dumps(value, encoders={float: lambda encoder, _: encoder.encode(None)}) == raw); return value
def in_order(found, _): return dict(sorted(found.items(), key=lambda item: cbor2.dumps(item[0])))
def pad(content):  # to 64, 128, 256 or 512; behind that Padmé
    n, e = len(content) + 1, (len(content) + 1).bit_length() - 1
    step = 2 ** (e - e.bit_length()) if n > 512 else max(64, 2 ** (n - 1).bit_length())
    must(n <= 16_384, "too large for one message")
    return (content + b"\x80").ljust(-(-n // step) * step, b"\0")
def unpad(padded):
    must(pad(padded.rstrip(b"\0")[:-1]) == padded); return padded.rstrip(b"\0")[:-1]
def vec(size, data): return len(data).to_bytes(size) + data
def prefix(label): return vec(1, b"sealwire/v1/" + label.encode()) + b"\1"
def H(label, data): return hashlib.sha256(prefix(label) + data).digest()
def content_id(author, reader, content):
    return H("content-id", H("one-to-one", min(author, reader) + max(author, reader)) + author + vec(3, content))
def say(**line): print(json.dumps(line, ensure_ascii=False), flush=True)
if __name__ == "__main__":
    try: main(sys.argv[1:])
    except (*BAD, OSError, sqlite3.Error) as why: sys.exit(f"peer: {why}")
