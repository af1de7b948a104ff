// Drives browser.html in headless Chromium, with a cli.mjs peer on the other side: node page.test.mjs WS_URL SCREENSHOT_PATH
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const [relay, screenshot] = process.argv.slice(2), folder = import.meta.dirname;
const TYPES = { ".html": "text/html", ".css": "text/css", ".mjs": "text/javascript", ".js": "text/javascript" };
const temporary = fs.mkdtempSync(path.join(os.tmpdir(), "sealwire-page-"));
const unique = Date.now().toString(36);

async function cli(...words) { // one process of the other peer; what it prints
  const { stdout } = await promisify(execFile)(process.execPath,
    [path.join(folder, "cli.mjs"), path.join(temporary, "other.json"), ...words]);
  return stdout.trim().split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

const server = http.createServer((request, response) => { // this folder, and nothing above it
  const file = path.join(folder, path.normalize(new URL(request.url, "http://localhost").pathname));
  if (!file.startsWith(folder + path.sep) || !fs.existsSync(file)) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": TYPES[path.extname(file)] ?? "application/octet-stream" });
  return fs.createReadStream(file).pipe(response);
});

let browser = null, page = null;
try {
  assert(relay && screenshot, "usage: node page.test.mjs WS_URL SCREENSHOT_PATH");
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"] });
  const faults = [];
  page = await browser.newPage({ viewport: { width: 1000, height: 680 } });
  page.setDefaultTimeout(20_000);
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => { if (message.type() === "error") faults.push(message.text()); });
  const said = (text) => page.locator("#talk p", { hasText: text }).waitFor();

  await page.goto(`http://127.0.0.1:${server.address().port}/browser.html`);
  await page.fill("[name=relay]", relay);
  await page.fill("[name=name]", `page-${unique}`);
  await page.click("#welcome button");
  await page.locator("#online.yes").waitFor();
  const here = await page.locator("#id").textContent();
  assert.match(here, /^[0-9a-f]{64}$/);
  const [other] = await cli("init", relay, `other-${unique}`);

  // From the page, to whose account id it was given.
  await page.fill("[name=to]", other.account);
  await page.press("[name=to]", "Enter");
  await page.fill("[name=text]", "Hello from a page");
  await page.click("#write button");
  await said("Hello from a page");
  await page.locator("#talk .mine small", { hasText: "accepted" }).waitFor();
  const [received] = await cli("listen", "--count", "1", "--seconds", "20");
  assert.equal(received.text, "Hello from a page");
  assert.equal(received.from, here);

  // To the page, with a receipt for what it sent.
  await cli("send", here, "Grüße from the other side <b>&amp;");
  await cli("listen", "--count", "1", "--seconds", "1");
  await said("Grüße from the other side <b>&amp;");
  await page.locator("#talk .mine small", { hasText: "delivered" }).waitFor();

  // It is there again in a new page, and arrives over a new connection.
  await page.reload();
  await page.locator("#online.yes").waitFor();
  await page.locator("#people button").first().click();
  await said("Hello from a page");
  await said("Grüße from the other side");
  await cli("send", here, "And once more, after the page was loaded again.");
  await said("And once more");
  assert.equal(await page.locator("#talk li").count(), 3);
  await page.screenshot({ path: screenshot });
  await page.setViewportSize({ width: 380, height: 680 });
  assert(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "too wide for a narrow window");
  await page.screenshot({ path: screenshot.replace(/(\.\w+)?$/, "-narrow$1") });
  assert.deepEqual(faults, []);
  console.log(JSON.stringify({ page: "passes" }));
} catch (error) {
  console.error(`page: ${error.message}`, await page?.locator("#trouble").textContent().catch(() => ""));
  await page?.screenshot({ path: screenshot }).catch(() => {});
  process.exitCode = 1;
} finally {
  await browser?.close();
  server.close();
  fs.rmSync(temporary, { recursive: true });
}
