// Checks spec/vectors against peer.mjs: node vectors.mjs DIR. Stops at the first difference, and at whatever it does not
// know: a file, or a part of one, that nobody checks would look like one that passes.
import fs from "node:fs";
import path from "node:path";
import * as peer from "./peer.mjs";

const { H, hex, label, uint, unhex, utf8, vec } = peer;
process.removeAllListeners("warning"); // Node 20 calls Ed25519 and X25519 experimental
let count = 0;

function same(what, ours, theirs) {
  count += 1;
  const [a, b] = [ours, theirs].map((value) => (typeof value === "string" ? value : JSON.stringify(value)));
  if (a !== b) throw new Error(`${what}: ${a} here, ${b} in the vectors`);
}
async function refused(what, action) { // returns the reason
  count += 1;
  const outcome = await Promise.resolve().then(action).then(() => null, (error) => error);
  if (!outcome) throw new Error(`${what}: was taken, should be refused`);
  return outcome.message;
}
async function all(list, check) { for (const one of list) await check(one); }

// A vector's person, with secrets as the state has them, PKCS #8: a fixed head for each algorithm, then the secret.
const HEADS = { ed25519: "302e020100300506032b657004220420", x25519: "302e020100300506032b656e04220420",
  p256: "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420" };
const NAMES = { 1: "p256", 2: "x25519" };
const keyOf = (who, name, suite) => ({ suite, secret: HEADS[name] + who[`${name}_secret`], public: who[`${name}_public`] });

async function person(who) { // public keys and ids follow from the secrets
  same("device id", await H("device-id", who.ed25519_public), who.device_id);
  same("device hint", who.device_id.slice(0, 32), who.device_hint);
  await peer.verify(who.ed25519_public, await peer.sign(keyOf(who, "ed25519"), "log-in", "00"), `${label("log-in")}00`);
  return keyOf(who, "ed25519");
}

async function encodings({ chain, content, content_id: id, content_refused: badContent, entries, entries_refused: badEntries,
  handles, handles_alike: alike, handles_refused: badHandles, // the relay's rules; a small peer asks by id
  padding, padding_bytes: paddingBytes, padding_refused: badPadding, padding_too_large: tooLarge, roster, ...rest }) {
  const step = async (before, n, entry) => H("chain-step", before + uint(8, n) + await H("entry-hash", vec(3, entry)));
  const start = await H("chain-start", chain.conversation), one = await step(start, 1, chain.entry_1);
  same("chain", [start, one, await step(one, 2, chain.entry_2)], [chain.start, chain.after_1, chain.after_2]);
  const expected = { text: ["text", "Grüße"], bytes: ["bytes", "00ff"], "presence taken back": ["quiet", []],
    receipts: ["quiet", [["04".repeat(32), 1], ["05".repeat(32), 2]]], "a wish to leave": ["quiet", []],
    "what was missed": ["quiet", []] };
  for (const { what, cbor } of content) {
    const [kind, value] = peer.readContent(cbor);
    same(what, [kind, value], expected[what]);
    const written = { text: [peer.TEXT, utf8("Grüße")], bytes: [peer.BYTES, "00ff"] }[what];
    if (written) same(`${what}, written`, peer.makeContent(...written, 1, cbor.slice(4, 36)), cbor);
  }
  await all(badContent, ({ cbor }) => refused(`content ${cbor}`, () => peer.readContent(cbor)));
  same("content id", await H("content-id", id.conversation + id.author + vec(3, id.content)), id.id);
  const kinds = { Message: 1, Commit: 2, Readd: 3, Cannot: 4, RestoreRoster: 5, Direct: 16, Welcome: 17 };
  for (const { kind, blob, entry } of entries) { // a peer reads kind 16 alone; the others are refused as what they are not
    const at = kinds[kind] <= 2 ? 18 : 2, what = `entry ${kind}, blob: ${blob}`;
    same(what, entry.slice(0, 2) + entry.slice(at + 32),
      uint(1, kinds[kind] | (blob ? 0x80 : 0)) + (blob ? "08".repeat(32) : vec(3, "010203")));
    if (kind === "Direct" && !blob) same(what, peer.makeEntry(entry.slice(2, 34), "010203"), entry);
    else await refused(what, () => peer.readEntry(entry));
    await refused(`${what}, a byte more`, () => peer.readEntry(`${entry}00`));
    await refused(`${what}, a byte less`, () => peer.readEntry(entry.slice(0, -2)));
  }
  await all(badEntries, ({ what, entry, length }) =>
    refused(`entry, ${what}`, () => peer.readEntry(entry.padEnd(2 * length, "0"))));
  for (const { length, padded } of padding) {
    const plain = "01".repeat(length);
    same(`padding of ${length}`, peer.pad(plain).length, 2 * padded);
    same(`padding of ${length}, off`, peer.unpad(peer.pad(plain)), plain);
  }
  for (const { plaintext, padded } of paddingBytes) {
    same("padded bytes", peer.pad(plaintext), padded);
    same("padded bytes, off", peer.unpad(padded), plaintext);
  }
  await all(badPadding, (bytes) => refused(`padding ${bytes}`, () => peer.unpad(bytes)));
  await refused("too large", () => peer.pad("00".repeat(tooLarge.length)));
  same("roster", await H("roster", vec(4, roster.inboxes.join(""))), roster.hash);
  return rest;
}

async function identity({ account_id: accountId, account_log: log, alice, bob, log_in: l, one_to_one: oneToOne,
  other_account_id: otherId, other_account_log: otherLog, refused: bad, refused_keys: badKeys, safety_number: digits, ...rest }) {
  const signing = await person(alice);
  await person(bob);
  const entries = log.map(({ entry }) => entry);
  for (const [i, { what, hash }] of log.entries()) {
    const account = await peer.verifyLog(entries.slice(0, i + 1));
    same(what, [account.id, account.head, account.retired, account.keys.length],
      [accountId, hash, what === "Retire", what === "genesis" ? 1 : 2]);
    same(`${what}: signature`, await peer.sign(signing, "account-entry", entries[i].slice(0, -128)), entries[i].slice(-128));
  }
  same("other account", (await peer.verifyLog(otherLog.map(({ entry }) => entry))).id, otherId);
  const reasons = { Signature: "Signature", NotNext: "NotNext" }; // as peer.mjs calls them
  for (const { what, error, entries: refusedLog } of bad) {
    const why = await refused(what, () => peer.verifyLog(refusedLog));
    if (what === "signature altered" || what === "after the end") same(what, why, reasons[error]);
  }
  const signature = await peer.sign(signing, "log-in", "00");
  for (const { what, suite, key } of badKeys) await refused(`key, ${what}`, () => (suite === "ed25519"
    ? peer.verify(key, signature, `${label("log-in")}00`) : peer.readKeys(vec(2, uint(1, Number(suite)) + vec(1, key)))));
  const [a, b] = [accountId, otherId].sort();
  same("one-to-one", await H("one-to-one", a + b), oneToOne);
  const six = async (account) => (await H("safety-number", account)).slice(0, 60).match(/.{10}/g)
    .map((group) => String(parseInt(group, 16) % 100_000).padStart(5, "0")).join("");
  same("safety number", await six(a) + await six(b), digits);
  const signed = peer.logInBytes(l.relay_name, l.relay_key, l.challenge, alice.device_id, l.incarnation, l.pending,
    new TextDecoder().decode(unhex(l.origin)), l.binding);
  same("log-in", label("log-in") + signed, l.to_be_signed);
  same("log-in signature", await peer.sign(signing, "log-in", signed), l.signature);
  return rest;
}

async function direct({ cases, recipient, sender, ...rest }) {
  await person(recipient);
  await person(sender);
  for (const { suite, suite_name: name, counter, envelope_id: envelope, content, body, ...v } of cases) {
    const [mine, theirs] = [sender, recipient].map((who) => keyOf(who, NAMES[suite], suite));
    const key = await peer.derive(mine, theirs.public, sender.device_id, recipient.device_id, true);
    const back = await peer.derive(theirs, mine.public, sender.device_id, recipient.device_id, false);
    same(`${name}: shared`, await peer.agree(mine, theirs.public), v.shared);
    same(`${name}: info`, label("direct-key") + uint(1, suite) + sender.device_id + recipient.device_id
      + vec(1, mine.public) + vec(1, theirs.public), v.info);
    same(`${name}: key`, [key.key, key.commitment, key.commitment.slice(0, 16)], [v.key, v.commitment, v.key_id]);
    same(`${name}: key of the recipient`, back, key);
    const [id, header] = peer.readEntry(v.entry);
    same(`${name}: header`, [id, header.counter, header.hint, header.commitment],
      [envelope, counter, sender.device_hint, v.commitment]);
    same(`${name}: padded`, peer.pad(content), v.padded);
    same(`${name}: sealed`, await peer.seal(key, envelope, counter, header.iv, content), body);
    same(`${name}: entry`, peer.makeEntry(envelope, body), v.entry);
    same(`${name}: opened`, await peer.openSealed(back, envelope, header), content);
    same(`${name}: text`, peer.readContent(content), ["text", "Hello, Bob"]);
    const open = async (bytes, as = envelope) => {
      const [, read] = peer.readEntry(peer.makeEntry(as, bytes));
      if (read.hint !== sender.device_hint || read.commitment !== back.commitment) throw new Error("OtherKey");
      return peer.openSealed(back, as, read);
    };
    for (const { what, error, body: bytes } of v.refused) same(`${name}: ${what}`, await refused(what, () => open(bytes)), error);
    await refused(`${name}: another envelope id`, () => open(body, "00".repeat(16)));
  }
  return rest;
}

// Conversations, and what several devices are for: this peer knows direct mode only. Python's checks linking.json.
const PASSED_OVER = ["conversations.json", "linking.json"];
const checks = { "direct.json": direct, "encodings.json": encodings, "identity.json": identity };
try {
  const folder = process.argv[2];
  for (const file of new Set([...Object.keys(checks), ...fs.readdirSync(folder)].sort())) {
    if (PASSED_OVER.includes(file)) continue;
    if (!checks[file]) throw new Error(`${file}: no check is known for this file`);
    const rest = await checks[file](JSON.parse(fs.readFileSync(path.join(folder, file), "utf8")))
      .catch((error) => { throw new Error(`${file}, ${error.message}`); });
    if (Object.keys(rest).length) throw new Error(`${file}: no check is known for ${Object.keys(rest)}`);
  }
  console.log(JSON.stringify({ vectors: count }));
} catch (error) {
  console.error(`vectors: ${error.message}`);
  process.exitCode = 1;
}
