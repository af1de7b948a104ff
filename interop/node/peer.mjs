// A small Sealwire peer, the same in Node and in a page. Names like logs.md are pages of spec/. An *account* is a chain
// of signed entries that lists public keys; from these, two people derive an AES key for each direction. The *relay*
// appends what is sealed to the reader's *inbox*. Bytes are hexadecimal text here, so that + puts them together.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { decode, encode, rfc8949EncodeOptions } from "cborg";
import { Code, FromRelaySchema, LoggedIn_Standing as Standing, ToRelaySchema } from "./sealwire_pb.js";
export const TEXT = "text/plain;charset=utf-8", BYTES = "application/octet-stream";
const STATUS = "application/mimi-message-status", DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const { subtle } = globalThis.crypto, must = (passes, why = "Malformed") => { if (!passes) throw new Error(why); };
const pack = (name, value) => toBinary(ToRelaySchema, create(ToRelaySchema, { frame: { case: name, value } }));
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
class Lost extends Error { constructor(why, wait = 0) { super(why); this.wait = wait; } } // the connection, for so long
const refusal = (error) => { if (error instanceof Lost) throw error; return error.message || error.name; };

export class Peer { // made of what differs between Node and a page: open(url, protocol), state, save(state), origin
  constructor(outside) { Object.assign(this, outside); }
  async init(url, name, suites = [2, 1]) { // the suites in the order that we prefer
    const signing = await newKey(0), direct = await Promise.all(suites.map(newKey));
    this.state ??= { signing, direct, log: [await genesis(signing, direct)], inbox: random(16), committed: random(16),
      cursor: 0, contacts: {}, counters: {}, outbox: [], history: [] }; // else an earlier init goes on with its keys
    Object.assign(this.state, { url, name: name.toLowerCase() }); await this.connected(10, () => {}); // this registers
    return { account: this.me.id, handle: `${this.state.name}@${this.state.relay[0]}`, device: this.me.device }; }
  async send(to, type, bytes) { // sealed once: over a second connection the same bytes go again
    let sent;
    const work = async () => { sent ??= await this.seal(await this.find(to), type, bytes); await this.flush(); };
    await this.connected(30, work);
    must(sent.state === "accepted", `the relay answered ${sent.state}`); return { accepted: sent.envelope }; }
  async listen(show, count = Infinity, seconds = Infinity) {
    await this.connected(seconds, async () => {
      while (count > 0 && Date.now() < this.end) {
        const arrival = new Promise((resolve) => { this.wake = resolve; }), left = this.end - Date.now();
        if (!this.arrived.length) await Promise.race([arrival, this.gone, sleep(Math.min(5_000, left))]);
        if (this.arrived.length) count -= await this.inTurn(() => this.take(this.arrived.shift(), show));
        else await this.inTurn(() => this.sendReceipts()); } // they are gathered until nothing comes for 5 seconds
      await this.inTurn(() => this.sendReceipts()); }); }
  inTurn(work) { return this.turn = this.turn.catch(() => {}).then(work); } // one thing at a time, also in a page
  async connected(seconds, work) { // connection.md: a lost connection is made anew, later and later
    must(this.state, "there is no account; make one with init"); this.end = Date.now() + seconds * 1000;
    for (let wait = 250; ; wait = Math.min(2 * wait, 60_000)) {
      try { await this.connect(); await work(); return this.lose(new Lost("done")); } catch (error) {
        if (!(error instanceof Lost && Date.now() + wait + error.wait < this.end)) throw error;
        await sleep(Math.max(error.wait, wait * (1 + Math.random()) / 2)); } } }
  async connect() {
    const { url } = this.state; this.me = await verifyLog(this.state.log);
    must(/^(wss:|ws:\/\/(127\.0\.0\.1|localhost|\[::1])[:/])/.test(url), "without TLS, only on this machine");
    const socket = this.socket = this.open(url, "sealwire.v1");
    this.gone = new Promise((_, no) => { this.lose = (why) => { no(why); socket.onmessage = null; socket.close(); }; });
    this.gone.catch(() => {}); // whoever waits for something races with it
    [this.arrived, this.turn, socket.binaryType] = [[], Promise.resolve(), "arraybuffer"];
    socket.onerror = socket.onclose = () => this.socket === socket && this.lose(new Lost("the relay is out of reach"));
    socket.onmessage = ({ data }) => { try { this.receive(data); } catch (why) { this.lose(new Lost(why.message)); } };
    await this.logIn(await this.ask("hello")); }
  async logIn({ relayName, relayKey, challenge }) { // two incarnations show whether this state was put back or copied
    const { state, me } = this, relay = [relayName, hex(relayKey)], { committed } = state, pending = random(16);
    must(`${state.relay ?? relay}` === `${relay}`, "this is not the relay that was pinned at first");
    await this.save(Object.assign(state, { relay, pending })); // before it is sent
    const signed = logInBytes(...relay, hex(challenge), me.device, committed, pending, this.origin);
    const told = await this.ask("loggedIn", "logIn", { deviceKey: unhex(me.public), incarnation: unhex(committed),
      pending: unhex(pending), signature: unhex(await sign(state.signing, "log-in", signed)) });
    if (told.standing === Standing.UNREGISTERED) await this.ask("done", "register",
      { request: 1, handle: state.name, genesis: unhex(state.log[0]), inbox: unhex(state.inbox) });
    state.restored ||= told.readUpto > state.cursor || told.accountEntries > 1 || told.standing === Standing.RESTORED;
    if (!state.restored) Object.assign(state, { committed: pending, cursor: Number(told.readUpto) });
    await this.save(Object.assign(state, { name: told.handle || state.name }));
    must(!state.restored, "this state was put back or copied, and is of no use (connection.md)"); await this.flush(); }
  receive(data) { // errors.md
    const { case: kind, value } = fromBinary(FromRelaySchema, new Uint8Array(data)).frame, { waiting, state } = this;
    if (kind === "deliver" && hex(value.log) === state.inbox) { this.arrived.push(...value.entries); this.wake?.(); }
    if (kind !== "failed") return kind === waiting?.kind && waiting.resolve(value); // what answers nothing is ignored
    const says = Code[value.code], wait = says === "REPLACED" ? Infinity : Number(value.retryAfterMs);
    if (wait || says === "STORE_FAILED" || !(value.request || value.envelope.length)) this.lose(new Lost(says, wait));
    else waiting?.reject(new Error(says)); }
  ask(kind, frame, value) { // frames.md: one question at a time, all number 1; or it only waits
    if (frame) this.socket.send(pack(frame, value));
    const timer = setTimeout(() => this.lose(new Lost("the relay does not answer")), 30_000);
    const answer = new Promise((resolve, reject) => { this.waiting = { kind, resolve, reject }; });
    return Promise.race([answer, this.gone]).finally(() => clearTimeout(timer)); }
  async take({ position, entry }, show) { // logs.md, Reading: shown, duplicate or rejected; each moves the cursor
    if (position <= this.state.cursor) return 0;
    const raw = hex(entry), rejected = (error) => [{ rejected: refusal(error), envelope: raw.slice(2, 34) }];
    const lines = await this.read(raw).catch(rejected);
    await this.save(Object.assign(this.state, { cursor: Number(position) })); // before it is shown, or may be forgotten
    lines.forEach(show); this.socket.send(pack("ack", { log: unhex(this.state.inbox), upto: position }));
    return lines.filter(({ receipt }) => !receipt).length; }
  async read(entry) { // direct.md, Opening: nothing changes before key, content and replay have passed
    const { contacts, outbox, history } = this.state, [envelope, header] = readEntry(entry);
    let contact = Object.values(contacts).find(({ device }) => device.startsWith(header.hint));
    if (!contact || !await this.keyOf(contact, header)) contact = await this.lookup("deviceHint", header.hint); // once
    const { id, seen, owed, handle } = contact, key = await this.keyOf(contact, header); must(key, "OtherKey");
    const content = await openSealed(key, envelope, header), [kind, value] = readContent(content);
    const known = await contentId(id, this.me.id, content);
    if (seen.includes(known)) return []; // all ids are kept: nothing is shown twice, and no window is needed
    must(contact.accepted || owed.length < 50, "TooManyOfAStranger");
    contacts[id] = contact; seen.push(known);
    if (kind === "quiet") return value.flatMap(([sent, status]) => { // receipts count only from whom it was for
      const state = ["", "delivered", "read"][status], ours = outbox.find((one) => one.to === id && one.id === sent);
      return state && ours && ours.state !== state ? [{ receipt: sent, status: ours.state = state }] : []; });
    owed.push(known); history.push({ account: id, at: Date.now(), [kind]: value });
    return [{ from: id, handle, [kind]: value }]; }
  async keyOf({ log, device }, { suite, commitment }) { // of a key of theirs, 16 replaced ones too, and our present one
    const { keys } = await verifyLog(log), own = this.state.direct.find((key) => key.suite === suite);
    const all = keys.slice(0, 17).flat().filter((key) => own && key.suite === suite).map((key) => key.public);
    const derived = await Promise.all(all.map((key) => derive(own, key, device, this.me.device, false)));
    return derived.find((key) => key.commitment === commitment); }
  async seal({ id: to, inbox, log }, type, bytes, shown = 1) { // logs.md, Sending: once; saved before anything leaves
    const { state, me } = this, you = await verifyLog(log), content = makeContent(type, bytes, shown);
    const ownFor = ({ suite }) => state.direct.find((key) => key.suite === suite), theirs = you.keys[0].find(ownFor);
    must(theirs && !you.retired, "nothing can be sent to them");
    const key = await derive(ownFor(theirs), theirs.public, me.device, you.device, true);
    const counter = state.counters[key.commitment] = (state.counters[key.commitment] ?? -1) + 1;
    const envelope = random(16), entry = makeEntry(envelope, await seal(key, envelope, counter, random(12), content));
    const sent = { id: await contentId(me.id, to, content), to, inbox, envelope, entry, state: "queued" };
    await this.save(Object.assign(state, { outbox: [...state.outbox.slice(-999), sent] })); return sent; }
  async flush() { // what has no answer yet goes: always the same bytes under the same envelope id
    for (const sent of this.state.outbox.filter(({ state }) => state === "queued")) {
      const answer = this.ask("accepted", "append", { log: unhex(sent.inbox), entry: unhex(sent.entry) });
      sent.state = await answer.then(() => "accepted", refusal); await this.save(this.state); } }
  async sendReceipts() { // to those whom we wrote to; strangers learn nothing (direct.md, Receipts, Strangers)
    for (const contact of Object.values(this.state.contacts).filter(({ owed, accepted }) => owed.length && accepted))
      await this.seal(contact, STATUS, hex(encode(contact.owed.splice(0, 256).map((id) => [unhex(id), 1]))), 0);
    await this.flush(); }
  async find(id) { // whom we write to is accepted
    must(/^[0-9a-f]{64}$/.test(id), "write to an account id: a handle is the relay's word (direct.md, Strangers)");
    return this.state.contacts[id] = Object.assign(await this.lookup("account", id), { accepted: true }); }
  async lookup(by, value) { // identity.md: an account log, verified; one that is pinned is only ever continued
    const question = { request: 1, by: { case: by, value: unhex(value) } }, { contacts, relay, name } = this.state;
    const { entries, devices, handle } = await this.ask("found", "lookup", question);
    const log = entries.map(hex), { id, device } = await verifyLog(log);
    const contact = contacts[id] ?? { id, device, accepted: false, log, seen: [], owed: [] };
    must((id === value || device.startsWith(value)) && contact.log.every((entry, i) => entry === log[i]), "OtherLog");
    const inbox = hex(devices.find((one) => hex(one.device) === device).inbox);
    return Object.assign(contact, { log, inbox, handle: handle === name ? null : `${handle}@${relay[0]}` }); } }
export async function verifyLog(entries) { // identity.md: the account that a chain of signed entries makes
  const account = { id: NONE, head: NONE, keys: [], retired: false };
  for (const [count, signed] of entries.entries()) {
    const [id, place, previous, , kind, rest] = cut(signed, 32, 8, 32, 8, 1);
    const change = rest.slice(0, -192), signer = rest.slice(-192, -128), signature = rest.slice(-128);
    must(id === account.id && place === uint(8, count) && previous === account.head && !account.retired, "NotNext");
    must((kind === "01") === (count === 0) && (["01", "04"].includes(kind) || (kind === "07" && !change)), "Change");
    if (count === 0) account.device = await H("device-id", account.public = change.slice(2, 66));
    must(signer === account.device && (kind !== "04" || change.startsWith(signer)), "Signer");
    if (kind === "07") account.retired = true;
    else account.keys.unshift(await readKeys(change.slice(kind === "01" ? 68 + 2 * number(change.slice(66, 68)) : 64)));
    await verify(account.public, signature, label("account-entry") + signed.slice(0, -128));
    account.head = await H("account-entry-hash", vec(3, signed)); if (count === 0) account.id = account.head; }
  must(entries.length, "there is no account"); return account; }
async function genesis(signing, direct) { // a person who takes direct mode
  const entry = `${NONE}${uint(8, 0)}${NONE}${uint(8, Date.now())}0101${signing.public}${vec(1, "0001")}`
    + writeKeys(direct) + await H("device-id", signing.public);
  return entry + await sign(signing, "account-entry", entry); }
const writeKeys = (keys) => vec(2, keys.map((key) => uint(1, key.suite) + vec(1, key.public)).join(""));
const split = (rest, [suite, size, key] = cut(rest, 1, 1), end = 2 * number(size)) =>
  (rest ? [{ suite: number(suite), public: key.slice(0, end) }, ...split(key.slice(end))] : []);
export async function readKeys(listed) {
  const keys = split(listed.slice(4)), suites = new Set(keys.map(({ suite }) => suite));
  must(writeKeys(keys) === listed && keys.length === suites.size && suites.size >= 1 && suites.size <= 8, "DirectKeys");
  for (const { suite, public: key } of keys) if (suite === 1 || suite === 2) await agree(await newKey(suite), key);
  return keys; }
export const logInBytes = (name, key, challenge, device, committed, pending, origin = "", binding = "") =>
  vec(2, utf8(name)) + key + challenge + device + committed + pending + vec(2, utf8(origin)) + vec(1, binding);
const KINDS = [{ name: "Ed25519" }, { name: "ECDH", namedCurve: "P-256" }, { name: "X25519" }]; // 0: ours, to sign
const load = (format, key, kind, ...uses) => subtle.importKey(format, unhex(key), KINDS[kind] ?? kind, false, uses);
async function newKey(suite) {
  const pair = await subtle.generateKey(KINDS[suite], true, suite ? ["deriveBits"] : ["sign", "verify"]);
  const secret = hex(await subtle.exportKey("pkcs8", pair.privateKey));
  return { suite, secret, public: hex(await subtle.exportKey("raw", pair.publicKey)) }; }
export const sign = async ({ secret }, name, data) =>
  hex(await subtle.sign("Ed25519", await load("pkcs8", secret, 0, "sign"), unhex(label(name) + data)));
const P = 2n ** 255n - 19n, littleEndian = (bytes) => BigInt(`0x${bytes.match(/../g).reverse().join("")}`);
const ORDER_8 = 0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n; // y of a point on edwards25519
export async function verify(key, proof, signed) {
  for (const y of [key, proof.slice(0, 64)].map((point) => littleEndian(point) % 2n ** 255n))
    must(y < P && ![0n, 1n, P - 1n, ORDER_8, P - ORDER_8].includes(y), "Key"); // canonical, and not of small order
  must(await subtle.verify("Ed25519", await load("raw", key, 0, "verify"), unhex(proof), unhex(signed)), "Signature"); }
export async function agree({ suite, secret }, key) { // the library refuses what is not on the curve, or of small order
  must(suite === 1 ? /^04.{128}$/.test(key) : /^.{64}$/.test(key) && littleEndian(key) < P, "Key");
  const own = await load("pkcs8", secret, suite, "deriveBits"), theirs = await load("raw", key, suite);
  return hex(await subtle.deriveBits({ name: KINDS[suite].name, public: theirs }, own, 256)); }
export async function derive(own, theirs, sender, recipient, sending) { // direct.md, Keys: of one direction
  const keys = sending ? [own.public, theirs] : [theirs, own.public], shared = await agree(own, theirs);
  const info = unhex(label("direct-key") + uint(1, own.suite) + sender + recipient + vec(1, keys[0]) + vec(1, keys[1]));
  const hkdf = { name: "HKDF", hash: "SHA-256", salt: unhex(""), info };
  const okm = hex(await subtle.deriveBits(hkdf, await load("raw", shared, "HKDF", "deriveBits"), 512));
  return { suite: own.suite, sender, recipient, key: okm.slice(0, 64), commitment: okm.slice(64) }; }
async function cipher(use, key, envelope, counter, iv, data) { // moved to another envelope, pair or count, none opens
  const ids = key.commitment.slice(0, 16) + key.sender + key.recipient + envelope;
  const additionalData = unhex(`${label("direct-envelope")}01${uint(1, key.suite)}${ids}${uint(4, counter)}00`);
  const aes = await load("raw", key.key, "AES-GCM", use);
  return hex(await subtle[use]({ name: "AES-GCM", iv: unhex(iv), additionalData }, aes, unhex(data))); }
export const seal = async (key, envelope, counter, iv, content) => `01${uint(1, key.suite)}${uint(4, counter)}`
  + key.sender.slice(0, 32) + key.commitment + iv + await cipher("encrypt", key, envelope, counter, iv, pad(content));
export const openSealed = async (key, envelope, { counter, iv, sealed }) =>
  unpad(await cipher("decrypt", key, envelope, counter, iv, sealed).catch(() => must(false, "Rejected")));
export const makeEntry = (envelope, body) => `10${envelope}${vec(3, body)}`;
export function readEntry(entry) {
  const envelope = entry.slice(2, 34), body = entry.slice(40);
  const [version, suite, counter, hint, commitment, iv, sealed] = cut(body, 1, 1, 4, 16, 32, 12);
  must(makeEntry(envelope, body) === entry && version === "01" && /^0[12]$/.test(suite) && number(counter) < 2 ** 31);
  return [envelope, { suite: number(suite), counter: number(counter), hint, commitment, iv, sealed }]; }
export const makeContent = (type, bytes, shown = 1, salt = random(16)) =>
  hex(encode([unhex(salt), null, unhex(""), null, null, new Map(), [shown, "", 1, type, unhex(bytes)]]));
export function readContent(content) { // encodings.md: what to call it, and what it is
  const [salt, , topic, , ref, more, part] = readCbor(content), bytes = (x, length) => x?.buffer && x.length === length;
  must(bytes(salt, 16) && topic?.buffer && (!ref || bytes(ref, 32)) && more instanceof Map && Array.isArray(part));
  const [shown, , count, type, data] = part, known = !more.get("sealwire.must-understand")?.length;
  if (!known || part.length !== 5 || count !== 1 || !data?.buffer) return ["unsupported", true];
  if (type === STATUS) return ["quiet", readCbor(hex(data)).map(([id, status]) => [hex(id), status])];
  if (shown !== 1) return ["quiet", []]; // such as a presence token
  return type === TEXT ? ["text", DECODER.decode(data)] : ["bytes", hex(data)]; }
function readCbor(bytes) { // deterministic: it comes out the same when it is encoded again; without floats
  const value = decode(unhex(bytes), { allowIndefinite: false, useMaps: true, rejectDuplicateMapKeys: true });
  const options = { ...rfc8949EncodeOptions, typeEncoders: { number: (x) => must(Number.isInteger(x)) } };
  must(hex(encode(value, options)) === bytes); return value; }
export function pad(content) { // to 64, 128, 256 or 512; behind that Padmé
  const n = content.length / 2 + 1, log2 = (x) => 31 - Math.clz32(x), e = log2(n);
  const step = n > 512 ? 2 ** (e - log2(e) - 1) : [64, 128, 256, 512].find((size) => n <= size);
  must(n <= 16_384, "too large for one message"); return `${content}80`.padEnd(2 * Math.ceil(n / step) * step, "0"); }
export const unpad = (padded, content = padded.replace(/80(00)*$/, "")) => must(pad(content) === padded) ?? content;
const NONE = "00".repeat(32), number = (bytes) => parseInt(bytes, 16); // numbers are big-endian, as TLS writes them
export const uint = (size, n) => n.toString(16).padStart(2 * size, "0"), vec = (n, x) => uint(n, x.length / 2) + x;
export const hex = (bytes) => Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
export const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
export const utf8 = (text) => hex(new TextEncoder().encode(text));
const random = (length) => hex(crypto.getRandomValues(new Uint8Array(length)));
const cut = (x, n, ...sizes) => (n ? [x.slice(0, 2 * n), ...cut(x.slice(2 * n), ...sizes)] : [x]); // and what is left
export const label = (name) => `${vec(1, utf8(`sealwire/v1/${name}`))}01`;
export const H = async (name, data) => hex(await subtle.digest("SHA-256", unhex(label(name) + data)));
export const contentId = async (author, reader, content) =>
  H("content-id", await H("one-to-one", [author, reader].sort().join("")) + author + vec(3, content));
