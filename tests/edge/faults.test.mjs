// Redis failing in any way: an answer the contract names, within its deadline.

import test from "node:test";
import assert from "node:assert/strict";
import { json, list, startBed, until } from "./bed.mjs";

const limit = [{ name: "l", requests: 5, window: "60s", by: "ip" }];
const POLICY = {
  defaults: { timeout: { redis: "100ms", origin: "2s" } },
  route: [
    { name: "local", match: "GET /local", limit, redis_down: "local" },
    { name: "open", match: "GET /open", limit, redis_down: "open" },
    { name: "closed", match: "GET /closed", limit, redis_down: "closed" },
    { name: "cached", match: "GET /cached/{id}", limit: [{ name: "c", requests: 1000, window: "60s", by: "ip" }], cache: { key: "cached:{id}", ttl: "1m", tags: ["t"] } },
    { name: "write", match: "POST /cached/{id}", limit: [], purge: { tags: ["t"] } },
  ],
};

const FAULTS = ["hang", "refuse", "reset-after", "malformed", "truncated", "wrong-shape", "short", "quota", "unauthorized", "huge",
  { status: { code: 500, body: "oops" } }, { status: { code: 400, body: '{"error":"ERR no"}' } }, { delay: { ms: 1_000 } },
  { error: { message: "OOM command not allowed when used memory > 'maxmemory'." } }, { error: { message: "READONLY You can't write against a read only replica." } }];

for (const fault of FAULTS) {
  test(`with Redis answering ${JSON.stringify(fault)} every route does what it says`, { timeout: 60_000 }, async () => {
    const bed = await startBed({ policy: POLICY, faults: true });
    try {
      bed.origin.on("/", (_, response) => json(response, 200, { from: "origin" }));
      await bed.get("/cached/1", { ip: "198.51.100.1" });
      await until("stored", async () => (await bed.redis.exists("cached:1")) === 1);
      bed.proxy.set(fault);
      const ip = "198.51.100.2";
      const local = [];
      for (let n = 0; n < 7; n++) local.push((await bed.get("/local", { ip })).status);
      assert.deepEqual(local, [200, 200, 200, 200, 200, 429, 429], "its own counts");
      for (let n = 0; n < 7; n++) assert.equal((await bed.get("/open", { ip })).status, 200);
      const closed = await bed.get("/closed", { ip });
      assert.equal(closed.status, 503);
      assert.equal(closed.headers["content-type"], "application/problem+json");
      assert.equal(closed.json().type, "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity");
      const cached = await bed.get("/cached/1", { ip });
      assert.equal(cached.status, 200);
      assert.deepEqual(cached.json(), { from: "origin" });
      assert.equal((await bed.get("/cached/1", { ip, method: "POST", body: "x" })).status, 200, "a write is answered");
      const health = (await bed.get("/-/health")).json();
      const answers = bed.proxy.requests.length;
      const later = await bed.get("/local", { ip: "198.51.100.3" });
      assert.equal(later.status, 200);
      if (!JSON.stringify(fault).includes("error")) {
        assert.equal(health.status, "degraded");
        assert.equal(bed.proxy.requests.length, answers, "the breaker answers without asking");
      }
      bed.proxy.set("ok");
      await until("Redis is in use again", async () => {
        const answer = await bed.get("/cached/1", { ip: "198.51.100.4" });
        return list(answer.headers["cache-status"])[0]?.params.hit || undefined;
      }, 1_000);
    } finally {
      await bed.close();
    }
  });
}

test("a killed Redis and a restarted one: no 5xx in between, and hits afterwards", { timeout: 60_000 }, async () => {
  const bed = await startBed({ policy: POLICY, faults: true });
  try {
    bed.origin.on("/", (_, response) => json(response, 200, { from: "origin" }));
    await bed.get("/cached/1");
    await bed.server.kill();
    const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => bed.get(`/cached/${n % 5}`, { ip: `198.51.100.${n}` })));
    assert.ok(answers.every((answer) => answer.status === 200));
  } finally {
    await bed.close();
  }
});

test("a purge that Redis did not confirm is tried again after the answer", { timeout: 60_000 }, async () => {
  const bed = await startBed({ policy: POLICY, faults: true });
  try {
    let version = 0;
    bed.origin.on("/", (request, response) => json(response, 200, { version: request.method === "GET" ? ++version : 0 }));
    await bed.get("/cached/1");
    await until("stored", async () => (await bed.redis.exists("cached:1")) === 1);
    const before = await bed.redis.get("gen:t");
    bed.proxy.set("refuse", { times: 1 });
    assert.equal((await bed.get("/cached/1", { method: "POST", body: "x" })).status, 200);
    await until("the generation is new", async () => (await bed.redis.get("gen:t")) !== before);
    assert.deepEqual((await bed.get("/cached/1")).json(), { version: 2 });
  } finally {
    await bed.close();
  }
});
