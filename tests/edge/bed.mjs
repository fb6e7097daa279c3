// The test bed: a real redis-server behind the HTTP endpoint, a fault proxy, a programmable
// origin, and any number of workerd processes with the built Worker.
//
// Every part is on loopback, on a free port, and ends with `close`.

import http from "node:http";
import net from "node:net";
import path from "node:path";
import { execFileSync } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { Redis } from "ioredis";
import { startRedisServer } from "../../dev/redis/server.mjs";
import { startEndpoint } from "../../dev/redis/endpoint.mjs";
import { startEndpointProcess } from "../../dev/redis/process.mjs";
import { startFaultProxy } from "../../dev/redis/faults.mjs";
import { startWorker } from "../../dev/worker.mjs";

export const TOKEN = "test-token";
export const ADMIN_TOKEN = "test-admin-token";
export const JWT_SECRET = "test-jwt-secret-of-a-decent-length";
export const CACHE_KEY = Buffer.alloc(32, "a test key of the cache").toString("base64");

/** A machine may hold up any process for seconds: only tests of timeouts name a shorter one. */
const REDIS_TIMEOUT = "5s";

const HOUR_MS = 3_600_000;

/**
 * A window for tests in which no time is to pass: so long that nothing returns, and so that neither boundary of it is
 * near, on whatever day they run.
 */
export const WINDOW = quietWindow(Date.now());

function quietWindow(nowMs) {
  for (let hours = 48; hours > 24; hours--) {
    const [lengthMs, passedMs] = [hours * HOUR_MS, nowMs % (hours * HOUR_MS)];
    if (passedMs >= 3 * HOUR_MS && lengthMs - passedMs >= 6 * HOUR_MS) {
      return { text: `${hours}h`, seconds: hours * 3600, ms: lengthMs };
    }
  }
  throw new Error("every window has a boundary near");
}

/**
 * The policy with the times that a busy machine keeps: where the origin's database, the endpoint and the test are one process.
 * And at the boundary of a window a charge may take a second trip.
 */
export function patiently(policy) {
  const quiet = (limits) => limits?.map((limit) => ({ ...limit, window: WINDOW.text }));
  return {
    ...policy,
    defaults: { ...policy.defaults, limit: quiet(policy.defaults.limit), timeout: { redis: "10s", origin: "5m" } },
    route: policy.route.map((route) => ("limit" in route ? { ...route, limit: quiet(route.limit) } : route)),
  };
}

function patient(policy) {
  if (typeof policy !== "object") return policy;
  const { defaults = {} } = policy;
  return JSON.stringify({ ...policy, defaults: { ...defaults, timeout: { redis: REDIS_TIMEOUT, ...defaults.timeout } } });
}

/** A policy in TOML as an object. */
export function builtInPolicy(file = "policy.toml") {
  const args = ["run", "--quiet", "--bin", "edgeweir-policy", "--", "json", file];
  return JSON.parse(execFileSync("cargo", args, { cwd: path.join(import.meta.dirname, "../.."), encoding: "utf8" }));
}

/**
 * @param {object} options
 * @param {object|string} [options.policy] POLICY; without it the built-in one. An object that names no timeout for Redis gets a long one
 * @param {object} [options.vars] more variables; `undefined` removes one
 * @param {number} [options.workers] workerd processes on the one Redis
 * @param {string} [options.originUrl] instead of the programmable origin
 * @param {boolean} [options.faults] with a fault proxy as `proxy`, and `endpoint.counters`; without it
 *   the endpoint is a process of its own, as Redis is in life, so that a burst does not wait for this one
 */
export async function startBed({ policy, vars = {}, workers = 1, originUrl, faults = false } = {}) {
  const server = await startRedisServer();
  const endpoint = await (faults ? startEndpoint : startEndpointProcess)({ redisPort: server.port, token: TOKEN });
  const proxy = faults ? await startFaultProxy({ target: endpoint.url, token: TOKEN }) : undefined;
  const origin = originUrl ? undefined : await startStub();
  const redis = await connect(server.port);
  const bindings = {
    UPSTASH_REDIS_REST_URL: (proxy ?? endpoint).url,
    UPSTASH_REDIS_REST_TOKEN: TOKEN,
    ORIGIN_URL: originUrl ?? origin.url,
    ADMIN_TOKEN,
    JWT_SECRET,
    CACHE_KEY,
    ...(policy === undefined ? {} : { POLICY: patient(policy) }),
    ...vars,
  };
  for (const [name, value] of Object.entries(bindings)) if (value === undefined) delete bindings[name];
  const edges = await Promise.all(Array.from({ length: workers }, () => startWorker({ bindings })));
  const urls = edges.map((edge) => edge.url);
  return {
    server, endpoint, proxy, origin, redis, edges, urls, url: urls[0],
    get: (path, options = {}) => get(options.url ?? urls[0], path, options),
    /** Redis' own count of commands by name, since `config resetstat`. */
    commandstats: () => commandstats(redis),
    async close() {
      await Promise.all(edges.map((edge) => edge.stop()));
      redis.disconnect();
      await origin?.close();
      await proxy?.close();
      await endpoint.close();
      await server.stop();
    },
  };
}

/** A client of a redis-server itself, which waits for it as long as it takes. */
export async function connect(port) {
  const redis = new Redis(port, "127.0.0.1", { lazyConnect: true, retryStrategy: null, connectTimeout: 120_000 });
  redis.on("error", () => {});
  await redis.connect();
  return redis;
}

async function commandstats(redis) {
  const text = await redis.info("commandstats");
  const counts = {};
  for (const [, name, calls] of text.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)) counts[name] = Number(calls);
  return counts;
}

const agent = new http.Agent({ keepAlive: true, maxSockets: 400 });

/** workerd closes a connection on which it could read no request for 15 s, as it cannot while it is held up. */
const UNREAD_MS = 14_000;
const MAX_SENDS = 10;

/**
 * One request with the path sent as written; header values as they arrived. workerd closes a connection that was idle, or
 * whose request body nobody read, so a request that met a closed one is sent again, as clients do: on a new one, since
 * whoever was held up may have many that are closed.
 */
export async function get(base, path, options = {}) {
  for (let sends = 1; ; sends++) {
    try {
      return await send(base, path, sends === 1 ? { agent, ...options } : { ...options, agent: false });
    } catch (error) {
      const isUnread = error.reusedSocket || (error.code === "ECONNRESET" && error.waitedMs >= UNREAD_MS);
      if (!isUnread || sends === MAX_SENDS) throw error;
    }
  }
}

function send(base, path, { method = "GET", headers = {}, body, ip, signal, agent }) {
  const { hostname, port } = new URL(base);
  // Node sends the body of a DELETE without its length unless it is told.
  const length = body === undefined ? {} : { "content-length": Buffer.byteLength(body) };
  const sent = { ...length, ...(ip ? { "cf-connecting-ip": ip } : {}), ...headers };
  return new Promise((resolve, reject) => {
    const begunMs = performance.now();
    const request = http.request({ hostname, port, path, method, headers: sent, agent, signal }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const bytes = Buffer.concat(chunks);
        resolve({
          status: response.statusCode,
          headers: response.headers,
          raw: response.rawHeaders,
          bytes,
          text: bytes.toString(),
          json: () => JSON.parse(bytes.toString()),
        });
      });
    });
    request.on("error", (error) => {
      const { reusedSocket } = request;
      reject(Object.assign(error, { reusedSocket, waitedMs: performance.now() - begunMs }));
    });
    request.end(body);
  });
}

/** A body as it comes: `take` is so many characters, however they are cut on the way, or what is left. */
export function textOf(response) {
  const chunks = response.setEncoding("utf8")[Symbol.asyncIterator]();
  return {
    async take(length) {
      let text = "";
      while (text.length < length) {
        const { value, done } = await chunks.next();
        if (done) break;
        text += value;
      }
      return text;
    },
  };
}

/** Sends a request and resets the connection once it is under way. */
export async function resetAfterSending(base, path, headers = {}) {
  const { hostname, port } = new URL(base);
  const socket = net.connect(Number(port), hostname);
  await once(socket, "connect");
  socket.on("error", () => {});
  const fields = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join("");
  socket.write(`GET ${path} HTTP/1.1\r\nHost: edge\r\n${fields}\r\n`);
  return { reset: () => socket.resetAndDestroy() };
}

/**
 * An origin that answers as the test says and remembers what it was asked.
 * `answers` is a list of [prefix, handler]; the longest prefix wins.
 */
export async function startStub() {
  const answers = new Map();
  const requests = [];
  const server = http.createServer((request, response) => {
    const seen = { method: request.method, url: request.url, headers: request.headers, body: "" };
    requests.push(seen);
    request.on("data", (chunk) => (seen.body += chunk));
    request.on("end", () => {
      let best;
      for (const [prefix, handler] of answers) {
        if (request.url.startsWith(prefix) && (!best || prefix.length > best[0].length)) best = [prefix, handler];
      }
      if (best) best[1](request, response, seen);
      else json(response, 200, { path: request.url });
    });
    request.on("error", () => {});
  });
  server.keepAliveTimeout = 65_000;
  const sockets = new Set();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  return {
    url: `http://127.0.0.1:${port}`,
    server,
    requests,
    count: (prefix) => requests.filter((request) => request.url.startsWith(prefix)).length,
    on: (prefix, handler) => answers.set(prefix, handler),
    off: (prefix) => answers.delete(prefix),
    async close() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

export function json(response, status, value, headers = {}) {
  const body = Buffer.from(JSON.stringify(value));
  response.writeHead(status, { "content-type": "application/json", "content-length": body.length, ...headers });
  response.end(body);
}

const POLL_MS = 10;
const UNTIL_MS = 120_000;
/** Whoever was held up for all that time has not looked often. */
const LEAST_LOOKS = 100;

/** Polls a condition of another process; fails loudly instead of hanging. `what` may be a function that says it then. */
export async function until(what, condition) {
  const endMs = performance.now() + UNTIL_MS;
  for (let looks = 0; looks < LEAST_LOOKS || performance.now() < endMs; looks++) {
    const value = await condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  throw new Error(`never came true: ${typeof what === "function" ? what() : what}`);
}

/**
 * The milliseconds that each key of a pattern still has, when all have an expiry: some get theirs after an answer. One
 * that is gone by then had one.
 */
export async function lifetimes(redis, pattern = "*") {
  let endless;
  return until(() => `every key expires: ${endless}`, async () => {
    const keys = await redis.keys(pattern);
    const lives = await Promise.all(keys.map(async (key) => [key, await redis.pttl(key)]));
    endless = lives.filter(([, ms]) => ms === -1).map(([key]) => key);
    return endless.length === 0 && lives.filter(([, ms]) => ms >= 0);
  });
}

/** `a; b=1, c` of a Cache-Status or RateLimit field as [{ name, params }]. */
export function list(field) {
  return (field ?? "").split(/,\s*(?=(?:[^"]*"[^"]*")*[^"]*$)/).filter(Boolean).map((item) => {
    const [name, ...params] = item.split(";").map((part) => part.trim());
    return {
      name: name.replaceAll('"', ""),
      params: Object.fromEntries(params.map((param) => {
        const [key, value] = param.split("=");
        return [key, value === undefined ? true : value.replaceAll('"', "")];
      })),
    };
  });
}

/** A token as a login makes it: of HS256, unless `header` says else. */
export function token(claims, { secret = JWT_SECRET, header = { alg: "HS256", typ: "JWT" } } = {}) {
  const head = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${head}.${createHmac("sha256", secret).update(head).digest("base64url")}`;
}

/** Makes an entry older, as if `ms` had passed. */
export async function age(redis, key, ms) {
  const meta = JSON.parse(await redis.get(`meta:${key}`));
  for (const field of ["stored", "fresh_until", "stale_until"]) meta[field] -= ms;
  await redis.set(`meta:${key}`, JSON.stringify(meta), "KEEPTTL");
}
