// A load generator: keep-alive connections on raw sockets, one request at a time on each.
//
// A process of its own. It does as little as it can for each answer, because what it takes of the machine's cores is missing
// to those it measures: find the end, look at the status and for the words that every right answer's head has or has not. Only right
// answers are samples; of the wrong ones it answers their number and the first one's head.

import net from "node:net";
import { performance } from "node:perf_hooks";

const ANSWER_LIMIT_MS = 10_000;

/** What was asked of one target: `samples` in milliseconds. */
class Tally {
  samples = [];
  wrong = 0;
  firstWrong = null;
}

/** One connection to a target `{ port, path, network, addresses, expected, unexpected }`, as visitors of so many addresses. */
class Connection {
  #socket;
  #tally;
  #target;
  #sent = 0;
  #held = null;
  #begun = 0;
  #settle = null;

  constructor(target, tally) {
    this.#target = target;
    this.#tally = tally;
    this.#socket = net.connect({ port: target.port, host: "127.0.0.1", noDelay: true });
    this.#socket.on("data", (chunk) => this.#take(chunk));
    this.#socket.on("error", (error) => this.#settle?.reject(error));
    this.#socket.on("close", () => this.#settle?.reject(new Error("the Worker closed a connection")));
  }

  /** Resolves when the answer is there whole. */
  ask() {
    const { path, addresses, network } = this.#target;
    const address = `${network}.${(this.#sent += 1) % addresses}`;
    return new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
      this.#begun = performance.now();
      this.#socket.write(`GET ${path} HTTP/1.1\r\nhost: edge.test\r\naccept: application/json\r\ncf-connecting-ip: ${address}\r\n\r\n`, "latin1");
    });
  }

  close() {
    this.#settle = null;
    this.#socket.destroy();
  }

  #take(chunk) {
    const bytes = this.#held === null ? chunk : Buffer.concat([this.#held, chunk]);
    const head = bytes.indexOf("\r\n\r\n");
    const end = head < 0 ? Infinity : endOfAnswer(bytes, head);
    if (end > bytes.length) {
      this.#held = bytes;
      return;
    }
    const ms = performance.now() - this.#begun;
    this.#held = null;
    const text = bytes.latin1Slice(0, head);
    const { expected, unexpected } = this.#target;
    if (text.startsWith("HTTP/1.1 200 ") && text.includes(expected) && !(unexpected && text.includes(unexpected))) {
      this.#tally.samples.push(ms);
    } else {
      this.#tally.wrong += 1;
      this.#tally.firstWrong ??= text;
    }
    this.#settle.resolve();
  }
}

function endOfAnswer(bytes, head) {
  const text = bytes.latin1Slice(0, head);
  const length = /\r\ncontent-length: *(\d+)/i.exec(text);
  if (length !== null) return head + 4 + Number(length[1]);
  if (!/\r\ntransfer-encoding: *chunked/i.test(text)) throw new Error(`an answer without a length:\n${text}`);
  return bytes.subarray(-5).equals(LAST_CHUNK) ? bytes.length : Infinity;
}

const LAST_CHUNK = Buffer.from("0\r\n\r\n");

/** Each lane asks the targets in turn, again and again: `{ ms, tallies }`, a tally by target. */
async function alternate({ targets, lanes, durationMs }) {
  const tallies = targets.map(() => new Tally());
  const begun = performance.now();
  await Promise.all(Array.from({ length: lanes }, async (_, lane) => {
    const connections = targets.map((target, at) => new Connection(target, tallies[at]));
    for (let turn = lane; performance.now() < begun + durationMs; turn += 1) {
      // The other way round every second time, so that nobody always follows the same.
      for (let at = 0; at < targets.length; at += 1) {
        const next = (at + turn) % targets.length;
        await connections[turn % 2 === 0 ? next : targets.length - 1 - next].ask();
      }
    }
    connections.forEach((connection) => connection.close());
  }));
  return { ms: performance.now() - begun, tallies };
}

/** All connections ask one target as fast as it answers: `{ ms, tally }`. */
async function saturate({ target, connections, durationMs }) {
  const tally = new Tally();
  const begun = performance.now();
  await Promise.all(Array.from({ length: connections }, async () => {
    const connection = new Connection(target, tally);
    while (performance.now() < begun + durationMs) await connection.ask();
    connection.close();
  }));
  return { ms: performance.now() - begun, tally };
}

process.on("message", async ({ id, alternate: alternating, saturate: saturating }) => {
  const timer = setTimeout(() => process.send({ id, error: "the load generator waited too long for an answer" }),
    (alternating ?? saturating).durationMs + ANSWER_LIMIT_MS);
  try {
    process.send({ id, value: alternating ? await alternate(alternating) : await saturate(saturating) });
  } catch (error) {
    process.send({ id, error: error.message });
  } finally {
    clearTimeout(timer);
  }
});
process.on("disconnect", () => process.exit(0));
