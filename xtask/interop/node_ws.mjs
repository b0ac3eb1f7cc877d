// Node's `ws` package against our echo server, and our client against its server.
//
// usage: node node_ws.mjs ECHO CLIENT
// INTEROP_NODE_MODULES is the node_modules directory that has `ws`.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";

// Resolved from inside of the directory, because it is nowhere above this file.
const require = createRequire(path.join(process.env.INTEROP_NODE_MODULES, "interop.js"));
const { WebSocket, WebSocketServer } = require("ws");

const CHECK_MS = 30_000;
const [echoProgram, clientProgram] = process.argv.slice(2).map((file) => path.resolve(file));
if (!clientProgram) throw new Error("usage: node node_ws.mjs ECHO CLIENT");

const checks = [];
const check = (name, run) => checks.push({ name, run });

/** Starts our echo server on a free port, hands its URL to `use`, and ends it. */
async function withEcho(use, ...options) {
  const echo = spawn(echoProgram, ["127.0.0.1:0", ...options], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    const [line] = await Promise.race([
      once(readline.createInterface({ input: echo.stdout }), "line"),
      once(echo, "exit").then(() => assert.fail("the echo server ended before it listened")),
    ]);
    assert.match(line, /^listening on ws:\/\//);
    await use(line.replace("listening on ", ""));
  } finally {
    echo.kill("SIGKILL");
  }
}

/** Messages as they come, one for each call of `receive`. */
function inbox(socket) {
  const messages = [];
  const waiting = [];
  socket.on("message", (data, isBinary) => {
    const message = isBinary ? data : data.toString();
    if (waiting.length > 0) waiting.shift()(message);
    else messages.push(message);
  });
  return () =>
    messages.length > 0
      ? Promise.resolve(messages.shift())
      : new Promise((resolve) => waiting.push(resolve));
}

/** Opens a connection to our server, hands it and its inbox to `use`, and ends it. */
async function withSocket(url, use, options = {}) {
  const socket = new WebSocket(url, options);
  const receive = inbox(socket);
  try {
    await once(socket, "open");
    await use(socket, receive);
  } finally {
    socket.terminate();
  }
}

const withEchoSocket = (use, ...options) => withEcho((url) => withSocket(url, use), ...options);

// Our server, their client.

check("server echoes text and binary of each length encoding", () =>
  withEchoSocket(async (socket, receive) => {
    for (const size of [0, 1, 125, 126, 65535, 65536, 1024 * 1024]) {
      const text = "x".repeat(size);
      socket.send(text);
      assert.equal(await receive(), text);
      const binary = Buffer.alloc(size, 0xff);
      socket.send(binary);
      assert.deepEqual(await receive(), binary);
    }
  }),
);

check("server puts fragments together and answers the ping between them", () =>
  withEchoSocket(async (socket, receive) => {
    socket.send("Hel", { fin: false });
    const pong = once(socket, "pong");
    socket.ping("now");
    assert.equal((await pong)[0].toString(), "now");
    socket.send("lo", { fin: true });
    assert.equal(await receive(), "Hello");
  }),
);

check("server answers 1000 pipelined messages in order", () =>
  withEchoSocket(async (socket, receive) => {
    for (let index = 0; index < 1000; index++) socket.send(`message ${index}`);
    for (let index = 0; index < 1000; index++) assert.equal(await receive(), `message ${index}`);
  }),
);

check("server echoes close codes", () =>
  withEcho(async (url) => {
    for (const [code, reason] of [[1000, "bye"], [3001, ""], [4999, "κόσμε"]]) {
      await withSocket(url, async (socket) => {
        const closed = once(socket, "close");
        socket.close(code, reason);
        assert.equal((await closed)[0], code);
      });
    }
  }),
);

check("server serves 50 connections at once", () =>
  withEcho(async (url) => {
    const one = (_, index) =>
      withSocket(url, async (socket, receive) => {
        socket.send(`from ${index}`);
        assert.equal(await receive(), `from ${index}`);
      });
    await Promise.all(Array.from({ length: 50 }, one));
  }),
);

check("server without deflate declines the offered extension", () =>
  // Theirs offers it unless told otherwise.
  withEchoSocket(async (socket) => assert.equal(socket.extensions, "")),
);

// Their server, our client.

/** Their server's usual handler: everything goes back as it came. */
function echoAll(socket) {
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
}

/** Runs our client against their server on a free port; tells what it printed and how it ended. */
async function clientAgainst(handle, messages, serverOptions = {}, clientOptions = []) {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, ...serverOptions });
  try {
    await once(server, "listening");
    server.on("connection", handle);
    const url = `ws://127.0.0.1:${server.address().port}/`;
    return await new Promise((resolve) => {
      const options = { timeout: CHECK_MS, maxBuffer: 1 << 24 };
      execFile(clientProgram, [...clientOptions, url, ...messages], options, (error, stdout, stderr) =>
        resolve({ stdout, stderr, code: error ? (error.code ?? 1) : 0 }),
      );
    });
  } finally {
    for (const socket of server.clients) socket.terminate();
    server.close();
  }
}

check("client prints each reply and closes with 1000", async () => {
  let closed;
  const handle = (socket) => {
    closed = once(socket, "close");
    echoAll(socket);
  };
  const run = await clientAgainst(handle, ["one", "κόσμε"]);
  assert.deepEqual([run.stdout, run.code], ["one\nκόσμε\n", 0]);
  assert.equal((await closed)[0], 1000);
});

check("client gets along with a server that could deflate", async () => {
  const text = "compressible ".repeat(1000);
  const options = { perMessageDeflate: { threshold: 0 } };
  const run = await clientAgainst(echoAll, [text], options);
  assert.deepEqual([run.stdout, run.code], [`${text}\n`, 0]);
});

check("client reports the code and reason of the server's close", async () => {
  const run = await clientAgainst(
    (socket) => socket.on("message", () => socket.close(4001, "go away")),
    ["hi"],
  );
  assert.ok(run.code > 0, `exit code ${run.code}`);
  assert.match(run.stderr, /4001/);
  assert.match(run.stderr, /go away/);
});

check("client reports the status of a rejected handshake", async () => {
  const verifyClient = (_, decide) => decide(false, 401, "who are you?");
  const run = await clientAgainst(echoAll, ["hi"], { verifyClient });
  assert.ok(run.code > 0, `exit code ${run.code}`);
  assert.match(run.stderr, /401/);
});

check("client offers the subprotocol it was given", async () => {
  const handleProtocols = (offered) => (offered.has("chat") ? "chat" : false);
  const tell = (socket) => socket.on("message", () => socket.send(`speaking ${socket.protocol}`));
  const run = await clientAgainst(tell, ["hi"], { handleProtocols }, ["--subprotocol", "chat"]);
  assert.deepEqual([run.stdout, run.code], ["speaking chat\n", 0]);
});

// permessage-deflate (RFC 7692), both ways.

/** What our programs' `--deflate` can be, each with the length from which it compresses. */
const THRESHOLDS = { default: 256, "best-ratio": 32 };
const DEFLATE_SIZES = [0, 1, 125, 126, 4096, 65536, 1024 * 1024];

/** So many bytes of what programs tell each other, which compresses well. */
function jsonText(size) {
  const item = (_, id) => ({ id, kind: "measurement", value: (id * 7919) % 1_000_003 });
  return JSON.stringify(Array.from({ length: size / 40 + 1 }, item)).slice(0, size);
}

/** Their end of the extension. */
const deflateOf = (socket) => socket._receiver._extensions["permessage-deflate"];

/** The payloads' lengths of the compressed frames that come to their end. */
function noteCompressed(socket) {
  // Theirs tells of RSV1 only by what it does: this is called for those frames alone.
  const deflate = deflateOf(socket);
  const decompress = deflate.decompress;
  const lengths = [];
  deflate.decompress = function (data, ...rest) {
    lengths.push(data.length);
    return decompress.call(this, data, ...rest);
  };
  return lengths;
}

/** Has messages echoed by our end, whose `--deflate` is `kind`, while theirs has `options`. */
async function talkCompressed(socket, receive, kind, options) {
  assert.equal(socket.extensions, "permessage-deflate");
  const { params, _isServer: isServer } = deflateOf(socket);
  const agreed = {};
  for (const side of ["server", "client"]) {
    agreed[side] = [!params[`${side}_no_context_takeover`], params[`${side}_max_window_bits`]];
    // Ours keeps no context by default, whatever they ask for.
    const keeps = kind === "best-ratio" && !options[`${side}NoContextTakeover`];
    assert.deepEqual(agreed[side], [keeps, options[`${side}MaxWindowBits`]]);
  }
  const [keepsContext] = agreed[isServer ? "client" : "server"];
  const compressed = noteCompressed(socket);
  /** Whether the reply came compressed, and in how many bytes. */
  async function roundTrip(message) {
    const before = compressed.length;
    socket.send(message);
    assert.deepEqual(await receive(), message);
    return { rsv1: compressed.length > before, length: compressed.at(-1) };
  }
  for (const size of DEFLATE_SIZES) {
    const wanted = size >= THRESHOLDS[kind];
    const text = await roundTrip(jsonText(size));
    assert.equal(text.rsv1, wanted, `RSV1 of a text of ${size} bytes`);
    if (wanted && size > 1000) assert.ok(text.length < size / 2, `${text.length} of ${size} bytes`);
    // Without a context, what compression makes larger is sent as it is.
    const random = await roundTrip(randomBytes(size));
    assert.equal(random.rsv1, wanted && keepsContext, `RSV1 of ${size} random bytes`);
  }
  // Within reach even in the smallest window, of whose 512 bytes zlib uses 250.
  const twice = randomBytes(200);
  await roundTrip(twice);
  const { rsv1, length } = await roundTrip(twice);
  assert.equal(rsv1 && length < 100, keepsContext, "only a context makes the second one small");

  const messages = Array.from({ length: 600 }, (_, index) => jsonText(index));
  for (const message of messages) socket.send(message);
  for (const message of messages) assert.equal(await receive(), message);

  for (const [fragment, ping] of [[jsonText(70_000), "now"], ["", "and now"]]) {
    socket.send(fragment, { fin: false });
    const pong = once(socket, "pong");
    socket.ping(ping);
    assert.equal((await pong)[0].toString(), ping);
  }
  socket.send(jsonText(5000), { fin: true });
  assert.equal(await receive(), jsonText(70_000) + jsonText(5000));
}

const CONFIGURATIONS = [
  ["as it comes", {}],
  ["no contexts", { serverNoContextTakeover: true, clientNoContextTakeover: true }],
  ["no context of the server", { serverNoContextTakeover: true }],
  ["no context of the client", { clientNoContextTakeover: true }],
  ["windows of 9 bits", { serverMaxWindowBits: 9, clientMaxWindowBits: 9 }],
  ["windows of 12 bits, and it sends short messages as they are", {
    serverMaxWindowBits: 12, clientMaxWindowBits: 12, threshold: 1024,
    serverNoContextTakeover: true, clientNoContextTakeover: true,
  }],
];
for (const kind of Object.keys(THRESHOLDS)) {
  for (const [name, options] of CONFIGURATIONS) {
    const perMessageDeflate = { threshold: 0, ...options };

    check(`server with --deflate=${kind} compresses, their client: ${name}`, () => {
      const talk = (socket, receive) => talkCompressed(socket, receive, kind, options);
      const play = (url) => withSocket(url, talk, { perMessageDeflate });
      return withEcho(play, `--deflate=${kind}`);
    });

    check(`client with --deflate=${kind} compresses, their server: ${name}`, async () => {
      let talked = Promise.reject(new Error("the client never connected"));
      talked.catch(() => {});
      const handle = (socket) => {
        talked = talkCompressed(socket, inbox(socket), kind, options);
        talked.finally(() => socket.close(1000)).catch(() => {});
      };
      const clientOptions = ["--echo", `--deflate=${kind}`];
      const run = await clientAgainst(handle, [], { perMessageDeflate }, clientOptions);
      await talked;
      assert.deepEqual([run.stdout, run.stderr, run.code], ["", "", 0]);
    });
  }
}

let failed = 0;
for (const { name, run } of checks) {
  let timer;
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end after ${CHECK_MS} ms`)), CHECK_MS);
  });
  try {
    await Promise.race([run(), timeout]);
    console.log(`ok - ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`not ok - ${name}: ${error.message.replace(/\s+/g, " ").slice(0, 300)}`);
  } finally {
    clearTimeout(timer);
  }
}
console.log(`${checks.length - failed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
