// The command line around peer.mjs. What Node adds: a socket, and one private JSON file.
import fs from "node:fs";
import WebSocket from "ws";
import { BYTES, Peer, TEXT, hex, utf8 } from "./peer.mjs";
const [file, command, ...rest] = process.argv.slice(2), print = (line) => fs.writeSync(1, `${JSON.stringify(line)}\n`);
const open = (url, protocol) => new WebSocket(url, protocol, { perMessageDeflate: false, maxPayload: 256 * 1024 });
function save(state) { // written beside, made durable, put in place
  fs.writeFileSync(`${file}~`, JSON.stringify(state), { mode: 0o600, flush: true }); fs.renameSync(`${file}~`, file); }
process.removeAllListeners("warning"); // Node 20 calls Ed25519 and X25519 experimental
try {
  const state = fs.existsSync(file ?? "") ? JSON.parse(fs.readFileSync(file, "utf8")) : null;
  const peer = new Peer({ open, state, save }), suites = process.env.SEALWIRE_SUITES?.split(",");
  if (command === "init") print(await peer.init(rest[0], rest[1], suites?.map(Number)));
  else if (command === "send") print(await peer.send(rest[0], TEXT, utf8(rest[1])));
  else if (command === "send-bytes") print(await peer.send(rest[0], BYTES, hex(fs.readFileSync(rest[1]))));
  else if (command === "listen") await peer.listen(print, Number(rest[1]), Number(rest[3]));
  else throw new Error("usage: STATE init URL NAME | send TO TEXT | send-bytes TO FILE | listen --count N --seconds S");
  process.exit(0);
} catch (error) { fs.writeSync(2, `peer: ${error.message}\n`); process.exit(1); }
