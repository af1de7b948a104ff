// The page around peer.mjs. What a browser adds: its WebSocket, its Origin, IndexedDB, one tab at a time, and a screen.
import { Peer, TEXT, utf8 } from "./peer.mjs";

const $ = (id) => document.getElementById(id), unread = new Set();
let peer = null, whom = null; // whom: the account whose conversation is shown

const trouble = (text) => { $("trouble").textContent = text; $("trouble").hidden = !text; };
const attempt = (action) => async (event) => {
  event.preventDefault();
  trouble("");
  try { await action(event); } catch (error) { trouble(`${error.message}.`); }
  if (peer.state?.registered) render();
};

// ---- Storage: one value. A transaction is complete when it is on the disk ("strict"), and only then does save() return.
async function openStorage() {
  const request = indexedDB.open("sealwire");
  request.onupgradeneeded = () => request.result.createObjectStore("state");
  const finished = (what) => new Promise((resolve, reject) => {
    what.onsuccess = what.oncomplete = () => resolve(what.result);
    what.onerror = what.onabort = () => reject(what.error);
  });
  const database = await finished(request);
  const state = JSON.parse(await finished(database.transaction("state").objectStore("state").get("state")) ?? "null");
  const save = (changed) => {
    const transaction = database.transaction("state", "readwrite", { durability: "strict" });
    transaction.objectStore("state").put(JSON.stringify(changed), "state");
    return finished(transaction);
  };
  return { state, save };
}

// ---- The screen, drawn anew from the state after whatever happens. Text goes in as text, never as markup.
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

const nameOf = (account) => peer.state.contacts[account]?.handle?.split("@")[0] ?? `${account.slice(0, 8)}…`;
const time = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
const says = ({ text, bytes }) => text
  ?? (bytes === undefined ? "This message needs a newer version." : `${bytes.length / 2} bytes`);
const fate = ({ id }) => peer.state.outbox.find((sent) => sent.id === id)?.state.replace("queued", "waiting") ?? "sent";

function online(is) {
  $("online").textContent = is ? "connected" : "connecting…";
  $("online").className = is ? "yes" : "no";
}

function render() {
  const { contacts, history, name, relay } = peer.state, contact = contacts[whom];
  const last = new Map(history.map((item) => [item.account, item])); // the newest of each
  $("app").dataset.view = "messenger";
  $("me").textContent = name;
  $("me").title = `${name}@${relay[0]}`;
  $("id").textContent = peer.me?.id ?? "";
  $("people").replaceChildren(...[...last].sort(([, a], [, b]) => b.at - a.at).map(([account, item]) => {
    const button = make("button", unread.has(account) ? "unread" : "", make("b", "", nameOf(account)),
      make("time", "", time(item.at)), make("span", "", `${item.mine ? "You: " : ""}${says(item)}`));
    button.type = "button";
    button.ariaCurrent = String(account === whom);
    button.onclick = () => show(account);
    return make("li", "", button);
  }));
  $("whom").textContent = whom ? nameOf(whom) : "";
  $("whose").textContent = whom ?? "";
  $("request").hidden = !contact || !!contact.accepted;
  $("empty").hidden = whom !== null;
  $("write").hidden = whom === null;
  $("talk").replaceChildren(...history.filter(({ account }) => account === whom).map((item) =>
    make("li", item.mine ? "mine" : "theirs", make("p", item.text === undefined ? "odd" : "", says(item)),
      make("small", "", item.mine ? `${time(item.at)} · ${fate(item)}` : time(item.at)))));
  $("talk").scrollTop = $("talk").scrollHeight;
}

function show(account) {
  whom = account;
  unread.delete(account);
  render();
  $("write").text.focus();
}

// ---- What happens
$("welcome").onsubmit = attempt(async ({ target }) => {
  await peer.init(target.relay.value.trim(), target.name.value.trim());
  listen();
});

$("find").onsubmit = attempt(({ target }) => {
  show(target.to.value);
  target.reset();
});

$("write").onsubmit = attempt(async ({ target }) => {
  const text = target.text.value, account = whom;
  if ($("online").className !== "yes") throw new Error("not connected; try again in a moment");
  target.reset();
  try {
    await peer.inTurn(async () => {
      const { id } = await peer.seal(await peer.find(account), TEXT, utf8(text));
      peer.state.history.push({ account, at: Date.now(), mine: true, id, text });
      await peer.save(peer.state);
      await peer.flush(); // what the connection does not carry any more goes over the next one
    });
  } catch (error) {
    if (!peer.state.history.some((item) => item.mine && item.text === text) && !target.text.value) target.text.value = text;
    throw error;
  }
});

$("accept").onclick = attempt(() => { peer.state.contacts[whom].accepted = true; return peer.save(peer.state); });

async function listen() {
  render();
  try {
    await peer.listen((line) => {
      if (line.from && line.from !== whom) unread.add(line.from);
      if (line.rejected) trouble(`Something was rejected, and is not shown: ${line.rejected}.`);
      render();
    });
  } catch (error) { // such as: this device is connected somewhere else
    trouble(`${error.message}.`);
    $("online").textContent = "stopped";
    $("online").className = "no";
  }
}

class PagePeer extends Peer {
  open(url, protocol) {
    const socket = new WebSocket(url, protocol);
    socket.addEventListener("close", () => online(false));
    return socket;
  }

  async logIn(hello) {
    await super.logIn(hello);
    await this.save(Object.assign(this.state, { registered: true }));
    online(true);
    render();
  }
}

// Two tabs would use one state, and one counter twice.
navigator.locks.request("sealwire", { ifAvailable: true }, async (lock) => {
  if (!lock) return trouble("This page is open in another tab already.");
  peer = new PagePeer({ origin: location.origin, ...await openStorage() });
  online(false);
  if (peer.state?.registered) listen();
  else $("app").dataset.view = "welcome";
  return new Promise(() => {}); // the lock is kept as long as the tab lives
}).catch((error) => trouble(`${error.message}.`));
