// The fault proxy fails as each mode says: before or after the command takes effect.

import assert from "node:assert/strict";
import http from "node:http";
import { after, before, beforeEach, describe, test } from "node:test";
import Redis from "ioredis";
import { startEndpoint, UNAUTHORIZED } from "../../dev/redis/endpoint.mjs";
import { QUOTA, startFaultProxy } from "../../dev/redis/faults.mjs";
import { startRedisServer } from "../../dev/redis/server.mjs";

const TOKEN = "right-token";
let redis;
let endpoint;
let proxy;
let direct;
const agent = new http.Agent({ keepAlive: true });

before(async () => {
  redis = await startRedisServer();
  endpoint = await startEndpoint({ redisPort: redis.port, token: TOKEN });
  proxy = await startFaultProxy({ target: endpoint.url, token: TOKEN });
  direct = new Redis({ port: redis.port, host: "127.0.0.1" });
});

beforeEach(async () => {
  proxy.set("ok");
  await direct.flushall();
});

after(async () => {
  direct.disconnect();
  agent.destroy();
  await proxy.close();
  await endpoint.close();
  await redis.stop();
});

/** Resolves to what came, `cut` when the connection ended early; rejects when no headers came. */
function ask(path, value, { signal, encoding } = {}) {
  const headers = { authorization: `Bearer ${proxy.token}`, ...(encoding ? { "upstash-encoding": encoding } : {}) };
  return new Promise((resolve, reject) => {
    const request = http.request(`${proxy.url}${path}`, { method: "POST", agent, headers, signal }, async (response) => {
      const chunks = [];
      let cut = false;
      try {
        for await (const chunk of response) chunks.push(chunk);
      } catch {
        cut = true;
      }
      resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString(), cut });
    });
    request.on("error", reject);
    request.end(JSON.stringify(value));
  });
}

async function json(path, value) {
  const { status, text } = await ask(path, value);
  return [status, JSON.parse(text)];
}

const SET = [["SET", "k", "v"], ["GET", "k"]];
const effect = () => direct.get("k");

describe("modes", () => {
  test("ok passes all through and records requests", async () => {
    const { headers, text } = await ask("/pipeline?x=1", SET, { encoding: "base64" });
    assert.equal(text, '[{"result":"OK"},{"result":"dg=="}]');
    assert.ok(headers["upstash-sync-token"]);
    assert.deepEqual(proxy.requests.at(-1), { path: "/pipeline?x=1", body: JSON.stringify(SET) });
  });

  test("ok passes an event stream through as it comes", async () => {
    const request = http.request(`${proxy.url}/subscribe/c`, { headers: { authorization: `Bearer ${TOKEN}` } });
    const first = new Promise((resolve) => request.on("response", (response) => {
      response.on("error", () => {});
      response.once("data", resolve);
    }));
    request.end();
    assert.equal(String(await first), "data: subscribe,c,1\n\n");
    request.on("error", () => {});
    request.destroy();
  });

  test("hang never answers and has no effect", async () => {
    proxy.set("hang");
    const seen = proxy.requests.length;
    const abort = new AbortController();
    const asked = ask("/pipeline", SET, { signal: abort.signal });
    while (proxy.requests.length === seen) await new Promise((resolve) => setImmediate(resolve));
    proxy.set("ok");
    assert.deepEqual(await json("/", ["PING"]), [200, { result: "PONG" }]); // others are served meanwhile
    assert.equal(await effect(), null);
    abort.abort();
    await assert.rejects(asked, { name: "AbortError" });
  });

  test("delay answers rightly, later", async () => {
    proxy.set({ delay: { ms: 60 } });
    const start = performance.now();
    assert.deepEqual(await json("/pipeline", SET), [200, [{ result: "OK" }, { result: "v" }]]);
    assert.ok(performance.now() - start >= 58);
  });

  test("refuse destroys new and kept connections, with no effect", async () => {
    await ask("/", ["PING"]);
    proxy.set("refuse");
    await assert.rejects(ask("/pipeline", SET), { code: /ECONNRESET|EPIPE/ });
    await assert.rejects(ask("/pipeline", SET), { code: /ECONNRESET|EPIPE/ });
    assert.equal(await effect(), null);
  });

  test("reset-after takes effect and answers nothing", async () => {
    proxy.set("reset-after");
    await assert.rejects(ask("/pipeline", SET), { code: "ECONNRESET" });
    assert.equal(await effect(), "v");
  });

  test("status gives that status and body, with no effect", async () => {
    proxy.set({ status: { code: 502, body: "<html>Bad gateway</html>", type: "text/html" } });
    const { status, headers, text } = await ask("/pipeline", SET);
    assert.deepEqual([status, headers["content-type"], text], [502, "text/html", "<html>Bad gateway</html>"]);
    proxy.set({ status: { code: 429 } });
    assert.deepEqual(await json("/", ["PING"]), [429, { error: "status 429" }]);
    assert.equal(await effect(), null);
  });

  test("unauthorized and quota are Upstash's answers", async () => {
    proxy.set("unauthorized");
    assert.deepEqual(await json("/pipeline", SET), [401, { error: UNAUTHORIZED }]);
    proxy.set("quota");
    assert.deepEqual(await json("/pipeline", SET), [400, { error: QUOTA }]);
    assert.equal(await effect(), null);
  });

  test("error is Redis' error for every command of a batch and 400 for one", async () => {
    const message = "READONLY You can't write against a read only replica.";
    proxy.set({ error: { message } });
    assert.deepEqual(await json("/pipeline", SET), [200, [{ error: message }, { error: message }]]);
    assert.deepEqual(await json("/", ["GET", "k"]), [400, { error: message }]);
  });

  test("malformed is 200 and no JSON", async () => {
    proxy.set("malformed");
    const { status, text, cut } = await ask("/pipeline", SET);
    assert.deepEqual([status, cut], [200, false]);
    assert.throws(() => JSON.parse(text), SyntaxError);
  });

  test("truncated has right headers and half the body", async () => {
    proxy.set("truncated");
    const { status, headers, text, cut } = await ask("/pipeline", SET);
    const whole = '[{"result":"OK"},{"result":"v"}]';
    assert.deepEqual([status, headers["content-length"], cut], [200, String(whole.length), true]);
    assert.equal(text, whole.slice(0, whole.length / 2));
    assert.equal(await effect(), "v");
  });

  test("wrong-shape and short are JSON of another shape", async () => {
    proxy.set("wrong-shape");
    assert.deepEqual(await json("/pipeline", SET), [200, { result: 1 }]);
    assert.deepEqual(await json("/", ["GET", "k"]), [200, [{ result: 1 }]]);
    proxy.set("short");
    assert.deepEqual(await json("/pipeline", SET), [200, [{ result: "OK" }]]);
    assert.deepEqual(await json("/", ["GET", "k"]), [200, {}]);
    assert.equal(await effect(), "v");
  });

  test("huge is more than 20 MB of the right shape", async () => {
    proxy.set("huge");
    const { headers, text } = await ask("/pipeline", SET);
    assert.equal(headers["content-length"], undefined);
    assert.ok(text.length > 20 * 1024 * 1024);
    assert.equal(JSON.parse(text).length, 2);
  });
});

describe("control", () => {
  test("times ends a mode by itself, when chooses its requests", async () => {
    proxy.set("quota", { times: 2 });
    const statuses = [];
    for (let i = 0; i < 3; i += 1) statuses.push((await ask("/", ["PING"])).status);
    assert.deepEqual(statuses, [400, 400, 200]);
    proxy.set("refuse", { when: ({ body }) => body.includes("SET"), times: 1 });
    assert.equal((await ask("/", ["PING"])).status, 200);
    await assert.rejects(ask("/pipeline", SET), { code: "ECONNRESET" });
    assert.equal((await ask("/pipeline", SET)).status, 200);
  });

  test("an unknown mode is an error that names it", () => {
    for (const mode of ["slow", "delay", { delay: {} }, { status: {} }, { hang: {} }, null, { delay: { ms: 1 }, status: { code: 500 } }]) {
      assert.throws(() => proxy.set(mode), /no such fault mode/);
    }
  });

  test("records are bounded: the last 1000, bodies to 64 KB", async () => {
    proxy.set("quota");
    await ask("/", ["SET", "k", "v".repeat(100_000)]);
    assert.equal(proxy.requests.at(-1).body.length, 65_536);
    for (let i = 0; i < 1001; i += 1) await ask(`/get/${i}`, []);
    assert.equal(proxy.requests.length, 1000);
    assert.equal(proxy.requests.at(-1).path, "/get/1000");
  });

  test("a target that is gone ends the connection", async () => {
    const gone = await startEndpoint({ redisPort: redis.port, token: TOKEN });
    const own = await startFaultProxy({ target: gone.url, token: TOKEN });
    await gone.close();
    await assert.rejects(fetch(own.url, { method: "POST", body: "[]" }));
    await own.close();
  });
});
