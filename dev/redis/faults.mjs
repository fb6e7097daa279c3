// An HTTP proxy in front of the Redis endpoint that fails on demand, for tests.
//
// A mode is a name or an object of one field; `set` changes it at run time, for the requests that come after.
// Before the effect (the command never reaches Redis):
//   "hang"                      is accepted and read, never answered
//   "refuse"                    the connection is destroyed before anything is read
//   { status: { code, body, type } }   that status and body
//   "unauthorized", "quota"     401 and 400 in Upstash's words
//   { error: { message } }      Redis' error for every command: an item each in a batch, 400 for one
//   "malformed", "wrong-shape"  200 with what is no JSON; 200 with JSON of another shape
//   "huge"                      200 with more than 20 MB, of the right shape and no announced length
// After the effect (the command has run, the answer suffers):
//   "ok"                        nothing happens to it
//   { delay: { ms } }           it comes that much later
//   "reset-after"               the connection is reset instead of it
//   "truncated"                 right headers, half the body, then the connection ends
//   "short"                     a batch lacks its last result; a single answer its "result"
// It passes all else through untouched, streams included. It does not look at tokens. Loopback only.

import http from "node:http";
import { readBody } from "./body.mjs";
import { UNAUTHORIZED } from "./endpoint.mjs";

const MAX_RECORDS = 1000;
/** Of each request's body; the records together stay below 64 MB. */
const MAX_RECORDED_BYTES = 64 * 1024;
const MAX_BODY_BYTES = 32 * 1024 * 1024;
const HUGE_BYTES = 21 * 1024 * 1024;

export const QUOTA = "ERR max daily request limit exceeded. Limit: 10000, Usage: 10000.";

const PLAIN = new Set(["ok", "hang", "refuse", "reset-after", "truncated", "short", "malformed", "wrong-shape", "quota",
  "unauthorized", "huge"]);
const WITH_SETTINGS = { delay: "ms", status: "code", error: "message" };

/**
 * Resolves to `{ url, token, port, requests, set(mode, { times, when }), close() }`. `requests`: the last 1000, `{ path, body }`
 * with the body as text (its first 64 KB). `times`: after so many requests the mode is "ok" again. `when(record)`: only the
 * requests it is true for meet the mode.
 */
export async function startFaultProxy({ target, token }) {
  const proxy = new FaultProxy(new URL(target));
  const port = await proxy.listen();
  return {
    url: `http://127.0.0.1:${port}`,
    token,
    port,
    requests: proxy.requests,
    set: (mode, options) => proxy.set(mode, options),
    close: () => proxy.close(),
  };
}

class FaultProxy {
  requests = [];
  #target;
  #server;
  #agent = new http.Agent({ keepAlive: true });
  #fault = { name: "ok", settings: {} };
  #left = Infinity;
  #when = null;

  constructor(target) {
    this.#target = target;
  }

  async listen() {
    this.#server = http.createServer({ keepAliveTimeout: 65_000, headersTimeout: 66_000, noDelay: true });
    this.#server.on("connection", (socket) => {
      if (this.#refusesAll()) socket.destroy();
    });
    this.#server.on("request", (request, response) => {
      response.on("error", () => {});
      this.#handle(request, response).catch(() => response.destroy());
    });
    await new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(0, "127.0.0.1", resolve);
    });
    return this.#server.address().port;
  }

  set(mode, { times = Infinity, when = null } = {}) {
    this.#fault = parseMode(mode);
    this.#left = times;
    this.#when = when;
    if (this.#refusesAll()) this.#server.closeIdleConnections();
  }

  async close() {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    this.#agent.destroy();
    await closed;
  }

  /** With `times` or `when` a request has to be read, to be counted and seen, before its connection is destroyed. */
  #refusesAll() {
    return this.#fault.name === "refuse" && this.#left === Infinity && this.#when === null;
  }

  async #handle(request, response) {
    if (this.#refusesAll()) return request.socket.destroy();
    const { body } = await readBody(request, MAX_BODY_BYTES);
    if (body === null) return request.socket.destroy();
    const record = { path: request.url, body: body.toString("utf8", 0, MAX_RECORDED_BYTES) };
    this.requests.push(record);
    if (this.requests.length > MAX_RECORDS) this.requests.shift();

    const { name, settings } = this.#take(record);
    const before = BEFORE[name];
    if (before !== undefined) return before({ request, response, settings, count: batchSize(request.url, body) });
    const answer = await this.#forward(request, body);
    if (name === "ok") return pass(answer, response);
    if (name === "delay") return delay(settings.ms, answer, response);
    return AFTER[name]({ request, response, answer, whole: await readAnswer(answer) });
  }

  #take(record) {
    if (this.#left <= 0 || this.#when?.(record) === false) return { name: "ok", settings: {} };
    this.#left -= 1;
    return this.#fault;
  }

  #forward(request, body) {
    const headers = { ...request.headers, host: this.#target.host };
    delete headers["transfer-encoding"];
    delete headers.connection;
    if (body.length > 0) headers["content-length"] = body.length;
    return new Promise((resolve, reject) => {
      const onward = http.request(
        { host: this.#target.hostname, port: this.#target.port, method: request.method, path: request.url, headers, agent: this.#agent },
        resolve,
      );
      onward.on("error", reject);
      onward.end(body);
    });
  }
}

function parseMode(mode) {
  if (typeof mode === "string" && PLAIN.has(mode)) return { name: mode, settings: {} };
  const [name, ...others] = Object.keys(Object(mode));
  const needed = Object.hasOwn(WITH_SETTINGS, name) ? WITH_SETTINGS[name] : undefined;
  if (others.length > 0 || needed === undefined || mode[name]?.[needed] === undefined) {
    throw new Error(`no such fault mode: ${JSON.stringify(mode)}`);
  }
  return { name, settings: mode[name] };
}

const BEFORE = {
  hang() {},
  refuse({ request }) {
    request.socket.destroy();
  },
  status({ response, settings }) {
    const { code, body = JSON.stringify({ error: `status ${code}` }), type = "application/json; charset=utf-8" } = settings;
    respond(response, code, body, type);
  },
  unauthorized({ response }) {
    respond(response, 401, JSON.stringify({ error: UNAUTHORIZED }));
  },
  quota({ response }) {
    respond(response, 400, JSON.stringify({ error: QUOTA }));
  },
  error({ response, settings, count }) {
    const item = { error: settings.message };
    if (count === null) respond(response, 400, JSON.stringify(item));
    else respond(response, 200, JSON.stringify(Array(count).fill(item)));
  },
  malformed({ response }) {
    respond(response, 200, '{"result": <html>not JSON</html>');
  },
  "wrong-shape"({ response, count }) {
    respond(response, 200, count === null ? '[{"result":1}]' : '{"result":1}');
  },
  async huge({ response, count }) {
    response.writeHead(200, { "content-type": "application/json; charset=utf-8" });
    const piece = "A".repeat(1024 * 1024);
    response.write(count === null ? '{"result":"' : '[{"result":"');
    for (let sent = 0; sent < HUGE_BYTES && !response.destroyed; sent += piece.length) {
      if (!response.write(piece)) await drained(response);
    }
    response.end(count === null ? '"}' : `"}${',{"result":null}'.repeat(Math.max(count - 1, 0))}]`);
  },
};

const AFTER = {
  "reset-after"({ request }) {
    request.socket.resetAndDestroy();
  },
  truncated({ request, response, answer, whole }) {
    response.writeHead(answer.statusCode, { ...endToEnd(answer.headers), "content-length": whole.length });
    // A reset could overtake what is not yet read, headers included; an early end cannot.
    response.write(whole.subarray(0, whole.length >> 1), () => request.socket.destroySoon());
  },
  short({ response, answer, whole }) {
    const value = JSON.parse(whole);
    if (Array.isArray(value)) value.pop();
    else delete value.result;
    relay(response, answer, Buffer.from(JSON.stringify(value)));
  },
};

/** The number of commands in a batch, or null for a single command. */
function batchSize(url, body) {
  if (!/^\/(pipeline|multi-exec)(\?|$)/.test(url)) return null;
  try {
    return JSON.parse(body).length ?? 0;
  } catch {
    return 0;
  }
}

function pass(answer, response) {
  response.writeHead(answer.statusCode, endToEnd(answer.headers));
  response.flushHeaders();
  answer.on("error", () => response.destroy());
  response.on("close", () => answer.destroy());
  answer.pipe(response);
}

function delay(ms, answer, response) {
  const timer = setTimeout(() => pass(answer, response), ms);
  response.on("close", () => {
    clearTimeout(timer);
    answer.destroy();
  });
}

async function readAnswer(answer) {
  const chunks = [];
  for await (const chunk of answer) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function relay(response, answer, body) {
  response.writeHead(answer.statusCode, { ...endToEnd(answer.headers), "content-length": body.length });
  response.end(body);
}

function respond(response, status, text, type = "application/json; charset=utf-8") {
  response.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(text) });
  response.end(text);
}

/** Headers but for those that belong to one connection. */
function endToEnd(headers) {
  const { connection, "keep-alive": keepAlive, "transfer-encoding": transferEncoding, ...rest } = headers;
  return rest;
}

function drained(response) {
  return new Promise((resolve) => {
    const go = () => {
      response.off("drain", go);
      response.off("close", go);
      resolve();
    };
    response.on("drain", go);
    response.on("close", go);
  });
}
