// Drives headless Chromium against the chat and echo examples: node browser.mjs CHAT ECHO
//
// Environment:
//   CHROMIUM              the browser (default /usr/bin/chromium)
//   INTEROP_NODE_MODULES  where playwright-core is installed (default: as NODE_PATH has it)
//   SCREENSHOTS           a directory to save pictures of the page in (default: none are taken)
//
// Prints one `ok - ...` or `not ok - ...` a test, then `N passed, M failed`; exits 1 if any failed.

import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const OVERALL = 90_000; // ms for everything
const SHORT = 8_000;    // ms for one condition on a working connection
const LONG = 20_000;    // ms for a page to come back: its back-off pauses grow

const [chat, echo] = process.argv.slice(2);
if (!echo) {
  console.error("usage: node browser.mjs CHAT ECHO");
  process.exit(2);
}

// ---- Results ----------------------------------------------------------------------------------

let passed = 0, failed = 0;

async function test(description, body) {
  try {
    await body();
    passed++;
    console.log(`ok - ${description}`);
  } catch (error) {
    failed++;
    console.log(`not ok - ${description}`);
    for (const line of String(error?.message ?? error).split("\n").slice(0, 12)) console.log(`#   ${line}`);
  }
}

function finish() {
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
  process.exit();
}

function check(condition, message) {
  if (!condition) throw new Error(message);
}

// ---- The server -------------------------------------------------------------------------------

const children = new Set();
// Also reached through process.exit, so no way out leaves a server behind.
process.on("exit", () => { for (const child of children) child.kill("SIGKILL"); });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));

// Starts one of the two; answers once it says where it listens.
async function startServer(program, address, ...options) {
  const child = spawn(resolve(program), [address, ...options], { stdio: ["ignore", "pipe", "pipe"] });
  children.add(child);
  let output = "", errors = "", spawnError = null;
  child.stdout.setEncoding("utf8").on("data", (text) => { output = (output + text).slice(-10_000); });
  child.stderr.setEncoding("utf8").on("data", (text) => { errors = (errors + text).slice(-2_000); });
  child.on("error", (error) => { spawnError = error; });
  child.on("exit", () => children.delete(child));
  const gone = () => spawnError || child.exitCode !== null || child.signalCode !== null;

  const found = await until("the server to print its address", SHORT, () => {
    // With the end of the line, or a port that arrived in two pieces would be read short.
    const match = /(?:http|ws):\/\/127\.0\.0\.1:(\d+)\b[^\n]*\n/.exec(output);
    if (!match && gone()) throw new Error(`the server ended before it listened: ${spawnError ?? errors}`);
    return match;
  });
  return {
    port: Number(found[1]),
    url: `http://127.0.0.1:${found[1]}/`,
    async stop(signal) {
      child.kill(signal);
      await until(`the server to end after ${signal}`, SHORT, gone);
    },
    signal: (signal) => child.kill(signal),
    gone,
  };
}

// For conditions outside of a page; inside, Playwright's waitForFunction does the same.
async function until(what, patience, condition) {
  const end = performance.now() + patience;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > end) throw new Error(`waited ${patience} ms for ${what}`);
    await sleep(20);
  }
}

// ---- The browser ------------------------------------------------------------------------------

const modules = process.env.INTEROP_NODE_MODULES;
const require = createRequire(modules ? join(resolve(modules), "_.js") : import.meta.url);
const { chromium } = require("playwright-core");

const scriptErrors = [];

// A tab in a browser context of its own, as if it were another person's browser.
async function openTab(label) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 720 } });
  const page = await context.newPage();
  page.setDefaultTimeout(SHORT);
  // So that the tests get at the connections that a page makes.
  await page.addInitScript(() => {
    globalThis.sockets = [];
    globalThis.WebSocket = class extends WebSocket {
      constructor(...of) { super(...of); sockets.push(this); }
    };
  });
  page.on("pageerror", (error) => scriptErrors.push(`${label}: ${error.message}`));
  return page;
}

async function wait(page, what, condition, argument, patience = SHORT) {
  try {
    await page.waitForFunction(condition, argument, { timeout: patience, polling: 50 });
  } catch (error) {
    if (error.name !== "TimeoutError") throw error;
    const seen = await page.evaluate(() => ({
      state: document.querySelector("#state")?.dataset.state,
      banner: document.querySelector("#banner")?.hidden ? "(hidden)" : document.querySelector("#banner")?.textContent.trim(),
      people: [...document.querySelectorAll("#people li")].map((li) => li.textContent),
      log: [...document.querySelectorAll("#log .entry .what")].slice(-5).map((el) => el.textContent),
    })).catch(() => "the page cannot be read");
    throw new Error(`waited ${patience} ms for ${what}\npage: ${JSON.stringify(seen)}`);
  }
}

const waitOpen = (page, patience) =>
  wait(page, "the connection to be open", () =>
    document.querySelector("#state").dataset.state === "open" && document.querySelector("#banner").hidden, null, patience);

const waitPeople = (page, names) =>
  wait(page, `#people to list ${names}`, (names) => {
    const here = [...document.querySelectorAll("#people li")].map((li) => li.textContent.trim()).sort();
    return JSON.stringify(here) === JSON.stringify(names);
  }, [...names].sort());

const waitSaid = (page, who, what) =>
  wait(page, `${who} to say ${what}`, ([who, what]) =>
    [...document.querySelectorAll('#log .entry[data-kind="said"]')].some((entry) =>
      entry.querySelector(".who").textContent === who && entry.querySelector(".what").textContent === what), [who, what]);

const waitNotice = (page, pattern) =>
  wait(page, `a notice like ${pattern}`, (pattern) =>
    [...document.querySelectorAll('#log .entry[data-kind="notice"] .what')].some((what) =>
      new RegExp(pattern).test(what.textContent)), pattern);

const waitInSight = (page) =>
  wait(page, "the last message to be in sight", () => {
    const log = document.querySelector("#log").getBoundingClientRect();
    const last = [...document.querySelectorAll("#log .entry")].at(-1).getBoundingClientRect();
    return last.bottom <= log.bottom + 1 && last.bottom > log.top;
  });

const waitAway = (page) =>
  wait(page, "the banner and the state of a lost connection", () =>
    !document.querySelector("#banner").hidden && document.querySelector("#banner").checkVisibility() &&
    ["waiting", "connecting"].includes(document.querySelector("#state").dataset.state));

async function enter(page, name, room) {
  await page.fill("#name", name);
  await page.fill("#room", room);
  await page.click("#join");
  await waitOpen(page);
}

async function say(page, text) {
  await page.fill("#text", text);
  await page.click("#send");
}

// Both see what each of them says.
async function talk(ada, bob, tag) {
  await say(ada, `Ada ${tag}`);
  await say(bob, `Bob ${tag}`);
  for (const page of [ada, bob]) {
    await waitSaid(page, "Ada", `Ada ${tag}`);
    await waitSaid(page, "Bob", `Bob ${tag}`);
  }
}

async function picture(page, name, { scheme = "light", width = 1100, height = 720 } = {}) {
  if (!process.env.SCREENSHOTS) return;
  mkdirSync(process.env.SCREENSHOTS, { recursive: true });
  const before = page.viewportSize();
  await page.emulateMedia({ colorScheme: scheme });
  await page.setViewportSize({ width, height });
  await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`) });
  await page.emulateMedia({ colorScheme: null });
  await page.setViewportSize(before);
}

// ---- The tests --------------------------------------------------------------------------------

setTimeout(() => {
  failed++;
  console.log(`not ok - everything within ${OVERALL / 1000} s`);
  finish();
}, OVERALL).unref();

let browser, server;
try {
  server = await startServer(chat, "127.0.0.1:0");
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  await run();
} catch (error) {
  await test("the server and the browser start", () => { throw error; });
}
await Promise.race([browser?.close(), sleep(3_000)]).catch(() => {});
finish();

async function run() {
  const ada = await openTab("Ada"), bob = await openTab("Bob"), cid = await openTab("Cid");
  const both = [ada, bob];

  await test("the page answers 200 and has a title", async () => {
    const answer = await ada.goto(server.url);
    check(answer.status() === 200, `status ${answer.status()}`);
    check(/text\/html/.test(answer.headers()["content-type"] ?? ""), `content-type ${answer.headers()["content-type"]}`);
    check((await ada.title()).trim() !== "", "the title is empty");
    check(await ada.getAttribute("#state", "data-state") === "idle", "the state is not idle before joining");
    await picture(ada, "join-light");
    await picture(ada, "join-dark", { scheme: "dark" });
    await picture(ada, "join-phone", { width: 390, height: 844 });
  });

  await test("two tabs join one room through the form, and each lists both people", async () => {
    await enter(ada, "Ada", "t1");
    await bob.goto(server.url);
    await enter(bob, "Bob", "t1");
    for (const page of both) await waitPeople(page, ["Ada", "Bob"]);
    await waitNotice(ada, "Bob joined");
  });

  await test("a third tab joins another room by its address alone", async () => {
    await cid.goto(`${server.url}?room=t2&name=Cid`);
    await waitOpen(cid);
    await waitPeople(cid, ["Cid"]);
  });

  await test("the two talk both ways", () => talk(ada, bob, "says hello"));

  await test("their connections compress, without contexts", async () => {
    for (const page of both) {
      const extensions = await page.evaluate(() => sockets.at(-1).extensions);
      check(isDeflate(extensions, true), `the extensions are ${extensions}`);
    }
  });

  await test("Enter sends, and one's own messages are told apart", async () => {
    await bob.fill("#text", "sent by Enter");
    await bob.press("#text", "Enter");
    for (const page of both) await waitSaid(page, "Bob", "sent by Enter");
    const mine = (page) => page.$$eval("#log .entry.mine .who", (all) => [...new Set(all.map((who) => who.textContent))].join());
    check(await mine(ada) === "Ada" && await mine(bob) === "Bob", `own messages are of ${await mine(ada)} and ${await mine(bob)}`);
  });

  await test("emoji, other scripts and line breaks arrive unchanged", async () => {
    const text = "Grüße 👋🏽 👩‍👩‍👧 こんにちは مرحبا\nsecond line";
    await say(ada, text);
    for (const page of both) await waitSaid(page, "Ada", text);
  });

  await test("text that looks like HTML is shown as it is", async () => {
    await say(bob, "<b>x</b><img src=x onerror=\"document.title='owned'\">");
    await say(bob, "<b>x</b>");
    for (const page of both) {
      await waitSaid(page, "Bob", "<b>x</b>");
      check(await page.locator("#log b, #log img").count() === 0, "the page made elements of it");
      check(await page.title() !== "owned", "the page ran a script of it");
    }
  });

  await test("the other room saw none of it", async () => {
    // Once its own message has come back, anything sent to it before would be there as well.
    await say(cid, "alone here");
    await waitSaid(cid, "Cid", "alone here");
    check(await cid.locator('#log .entry[data-kind="said"]').count() === 1, "t2 shows messages of t1");
    check(await ada.locator("#log .what", { hasText: "alone here" }).count() === 0, "t1 shows a message of t2");
  });

  await test("switching rooms moves a person over", async () => {
    await cid.click("#switch");
    await cid.fill("#room", "t1");
    await cid.click("#join");
    for (const page of [ada, bob, cid]) await waitPeople(page, ["Ada", "Bob", "Cid"]);
    check(await cid.locator("#log .what", { hasText: "alone here" }).count() === 0, "the log of the old room is still shown");
    await say(cid, "now over here");
    for (const page of [ada, bob, cid]) await waitSaid(page, "Cid", "now over here");
  });

  if (process.env.SCREENSHOTS) {
    await test("screenshots are saved", async () => {
      await talk(ada, bob, "smiles for the picture 📷");
      const phone = { width: 390, height: 844 };
      await picture(ada, "chat-light");
      await picture(ada, "chat-dark", { scheme: "dark" });
      await picture(ada, "chat-phone-light", phone);
      await picture(ada, "chat-phone-dark", { ...phone, scheme: "dark" });
    });
  }

  await test("a tab that closes leaves, and the others are told", async () => {
    await cid.context().close();
    for (const page of both) {
      await waitNotice(page, "Cid left");
      await waitPeople(page, ["Ada", "Bob"]);
    }
  });

  await test("texts of 2000 characters arrive whole, and the log follows", async () => {
    // One that compresses well, and one that does not.
    const digits = "0123456789".repeat(200);
    const noise = Array.from({ length: 2000 }, () => String.fromCharCode(0x21 + Math.random() * 94)).join("");
    for (const text of [digits, noise]) {
      await say(ada, text);
      for (const page of both) await waitSaid(page, "Ada", text);
    }
    await talk(ada, bob, "was here");
    for (const page of both) await waitInSight(page);
  });

  await test("a killed server: both tabs say so, and keep what is being typed", async () => {
    await ada.fill("#text", "half a thought");
    await server.stop("SIGKILL");
    for (const page of both) await waitAway(page);
    for (const page of both) await waitInSight(page); // the banner took some of its room
    for (const page of both) {
      const banner = await page.textContent("#banner");
      check(/went away/.test(banner) && /Try now/.test(banner), `the banner says ${banner}`);
    }
    check(await ada.isDisabled("#send"), "Send works without a connection");
    check(await ada.inputValue("#text") === "half a thought", "the text is gone");
    await picture(ada, "away-light");
    await picture(ada, "away-phone-dark", { width: 390, height: 844, scheme: "dark" });
  });

  await test("the server is back on the same port: both return by themselves and talk", async () => {
    const { port } = server;
    server = await startServer(chat, `127.0.0.1:${port}`);
    check(server.port === port, `it listens on ${server.port}, not ${port}`);
    for (const page of both) await waitOpen(page, LONG);
    for (const page of both) await waitPeople(page, ["Ada", "Bob"]);
    check(await ada.inputValue("#text") === "half a thought", "the text being typed is gone");
    await talk(ada, bob, "is back");
  });

  await test("a server told to stop (SIGTERM): the banner says it is shutting down", async () => {
    server.signal("SIGTERM");
    for (const page of both) {
      await waitAway(page);
      const banner = await page.textContent("#banner");
      check(/shutting down/i.test(banner) && /1001/.test(banner), `the banner says ${banner}`);
    }
    await picture(bob, "shutdown-light");
  });

  await test("the stopped server ends by itself", () => until("its end", SHORT, server.gone));

  for (const [option, quiet] of [["--deflate", true], ["--deflate=best-ratio", false]]) {
    await test(`echo ${option} compresses with a page, text and binary up to 1 MiB`, async () => {
      const server = await startServer(echo, "127.0.0.1:0", option);
      const page = await openTab(option);
      // Its refusal of a plain request is a page of its origin, as good as any to run a script in.
      await page.goto(server.url);
      const extensions = await page.evaluate(echoCompressed);
      check(isDeflate(extensions, quiet), `the extensions are ${extensions}`);
      await page.context().close();
      await server.stop("SIGTERM");
    });
  }

  await test("no page had a script error", () => check(scriptErrors.length === 0, scriptErrors.join("\n")));
}

// Whether the extension was agreed on: quiet, that is without contexts, or with both of them.
function isDeflate(extensions, quiet) {
  return extensions.startsWith("permessage-deflate") &&
    extensions.includes("server_no_context_takeover") === quiet &&
    extensions.includes("client_no_context_takeover") === quiet;
}

// Runs in a page: everything is sent at once and must come back as it was, in order.
async function echoCompressed() {
  const ws = new WebSocket(`ws://${location.host}/`);
  ws.binaryType = "arraybuffer";
  await new Promise((resolve, reject) => {
    ws.onopen = resolve;
    ws.onerror = () => reject(new Error("no connection"));
  });
  const messages = [];
  for (const size of [0, 1, 125, 126, 255, 256, 4096, 65535, 65536, 1 << 20]) {
    const random = new Uint8Array(size);
    for (let start = 0; start < size; start += 65536) crypto.getRandomValues(random.subarray(start, start + 65536));
    const items = Array.from({ length: size / 30 + 1 }, (_, id) => ({ id, kind: "κόσμε", value: (id * 7919) % 1000003 }));
    // Twice, so that a context has something to point back to.
    for (let twice = 0; twice < 2; twice++) messages.push(JSON.stringify(items).slice(0, size), random);
  }
  for (let index = 0; index < 500; index++) messages.push(`{"type":"said","name":"Ada","text":"message ${index}"}`.repeat(index % 9 + 1));

  const replies = [];
  const done = new Promise((resolve, reject) => {
    ws.onmessage = ({ data }) => { if (replies.push(data) === messages.length) resolve(); };
    ws.onclose = ({ code, reason }) => reject(new Error(`closed with ${code} ${reason} after ${replies.length} replies`));
  });
  for (const message of messages) ws.send(message);
  await done;
  const same = (message, reply) => {
    if (typeof message === "string" || typeof reply === "string") return message === reply;
    const bytes = new Uint8Array(reply);
    return bytes.length === message.length && bytes.every((byte, index) => byte === message[index]);
  };
  const wrong = messages.findIndex((message, index) => !same(message, replies[index]));
  if (wrong >= 0) throw new Error(`message ${wrong} of ${messages.length} came back changed`);
  const { extensions } = ws;
  await new Promise((resolve) => { ws.onclose = resolve; ws.close(1000); });
  return extensions;
}
