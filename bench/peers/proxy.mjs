// The network between the Worker and the Redis endpoint: adds a delay to every answer and counts HTTP requests.
//
// A process of its own with one port for each variant, so that each has its own count. The whole delay of a round trip is on
// the answer's way. Bytes pass through untouched but for one thing: @upstash/ratelimit's scripts begin with
// `#!lua flags=allow-key-locking`, which only Upstash knows, and stock Redis refuses the script. That one flag is blanked out,
// and because Redis then knows the script by another hash, the package's hash is exchanged for that one in every EVALSHA. So
// the package does here what it does at Upstash: the first EVALSHA fails, EVAL loads the script, every later EVALSHA runs it.

import { createHash } from "node:crypto";
import net from "node:net";
import { performance } from "node:perf_hooks";

const FLAG = "flags=allow-key-locking";
const BLANK = " ".repeat(FLAG.length);
const MAX_REQUEST_BYTES = 16 * 1024 * 1024;
const MAX_SCRIPTS = 32;

let delayMs = 0;
/** From the package's hash of a script to that of the script without the flag. */
const hashes = new Map();

class Port {
  requests = 0;
  answers = 0;
  addedMs = 0;
  rewritten = 0;

  constructor(target) {
    this.server = net.createServer({ noDelay: true }, (client) => this.#link(client, target));
  }

  #link(client, target) {
    const upstream = net.connect({ ...target, noDelay: true });
    let held = null; // a request that is not complete yet
    client.on("data", (chunk) => {
      let bytes = held === null ? chunk : Buffer.concat([held, chunk]);
      held = null;
      while (bytes.length > 0) {
        const end = endOfRequest(bytes);
        if (end > bytes.length || end < 0) {
          if (bytes.length > MAX_REQUEST_BYTES) return client.destroy();
          held = bytes;
          return;
        }
        this.requests += 1;
        const request = bytes.subarray(0, end);
        this.#rewrite(request);
        upstream.write(request);
        bytes = bytes.subarray(end);
      }
    });
    upstream.on("data", (chunk) => {
      if (delayMs === 0) return client.write(chunk);
      const begun = performance.now();
      // Timers of one length fire in the order they were set, so chunks keep theirs.
      setTimeout(() => {
        this.answers += 1;
        this.addedMs += performance.now() - begun;
        client.write(chunk);
      }, delayMs);
    });
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      one.on("error", () => other.destroy());
      one.on("close", () => other.destroy());
    }
  }

  /** In place: every replacement is as long as what it replaces, so that the lengths announced hold. */
  #rewrite(request) {
    if (request.includes(FLAG)) learn(request);
    for (const [given, known] of hashes) {
      const at = request.indexOf(given);
      if (at < 0) continue;
      request.write(known, at, "latin1");
      this.rewritten += 1;
    }
  }
}

/** Where the first request ends, perhaps beyond what is there; -1 while its head is not complete. */
function endOfRequest(bytes) {
  const head = bytes.indexOf("\r\n\r\n");
  if (head < 0) return -1;
  const length = /\r\ncontent-length: *(\d+)/i.exec(bytes.latin1Slice(0, head))?.[1] ?? 0;
  return head + 4 + Number(length);
}

/** Blanks the flag in an EVAL's script, and remembers the hash that the package asks for and the one Redis will know. */
function learn(request) {
  const body = JSON.parse(request.toString("utf8", request.indexOf("\r\n\r\n") + 4));
  for (const [, script] of (Array.isArray(body[0]) ? body : [body]).filter(([name]) => /^eval$/i.test(name))) {
    if (hashes.size < MAX_SCRIPTS) hashes.set(sha1(script), sha1(script.replace(FLAG, BLANK)));
  }
  for (let at = request.indexOf(FLAG); at >= 0; at = request.indexOf(FLAG)) request.write(BLANK, at, "latin1");
}

const sha1 = (text) => createHash("sha1").update(text).digest("hex");

// Driven over Node's IPC: `{ id, ports, target }` opens, `{ id, delay }` sets the milliseconds, `{ id }` asks for the counts.
const ports = [];
process.on("message", async ({ id, open, delay }) => {
  if (open !== undefined) {
    for (let at = 0; at < open.count; at += 1) {
      const port = new Port(open.target);
      ports.push(port);
      await new Promise((resolve) => port.server.listen(0, "127.0.0.1", resolve));
    }
  }
  if (delay !== undefined) delayMs = delay;
  process.send({
    id,
    value: ports.map(({ server, requests, answers, addedMs, rewritten }) => ({ port: server.address().port, requests, answers, addedMs, rewritten })),
  });
});
process.on("disconnect", () => process.exit(0));
