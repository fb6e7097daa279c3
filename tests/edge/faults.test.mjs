// Redis failing in any way: an answer the contract names, within its deadline.

import test from "node:test";
import assert from "node:assert/strict";
import { startRedisServer } from "../../dev/redis/server.mjs";
import { json, list, startBed, until, WINDOW } from "./bed.mjs";

const DEADLINE = { timeout: 600_000 };
const limit = [{ name: "l", requests: 5, window: WINDOW.text, by: "ip" }];
const POLICY = {
  defaults: { timeout: { redis: "1s", origin: "1m" } },
  route: [
    { name: "local", match: "GET /local", limit, redis_down: "local" },
    { name: "open", match: "GET /open", limit, redis_down: "open" },
    { name: "closed", match: "GET /closed", limit, redis_down: "closed" },
    { name: "cached", match: "GET /cached/{id}", limit: [{ name: "c", requests: 1_000_000, window: WINDOW.text, by: "ip" }], cache: { key: "cached:{id}", ttl: "1h", tags: ["t"] } },
    { name: "write", match: "POST /cached/{id}", limit: [], purge: { tags: ["t"] } },
  ],
};

/** The machine may be too slow for the first one, and then another is stored. */
async function stored(bed) {
  await until("stored", async () => {
    await bed.get("/cached/1", { ip: "198.51.100.1" });
    return (await bed.redis.exists("cached:1")) === 1;
  });
}

async function inUse(bed) {
  await until("Redis is in use again", async () => {
    const answer = await bed.get("/cached/1", { ip: "198.51.100.4" });
    return list(answer.headers["cache-status"])[0]?.params.hit;
  });
}

const FAULTS = ["hang", "refuse", "reset-after", "malformed", "truncated", "wrong-shape", "short", "quota", "unauthorized", "huge",
  { status: { code: 500, body: "oops" } }, { status: { code: 400, body: '{"error":"ERR no"}' } }, { delay: { ms: 60_000 } },
  { error: { message: "OOM command not allowed when used memory > 'maxmemory'." } }, { error: { message: "READONLY You can't write against a read only replica." } }];

for (const fault of FAULTS) {
  test(`with Redis answering ${JSON.stringify(fault)} every route does what it says`, DEADLINE, async () => {
    const bed = await startBed({ policy: POLICY, faults: true });
    try {
      bed.origin.on("/", (_, response) => json(response, 200, { from: "origin" }));
      await stored(bed);
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
      const later = await bed.get("/local", { ip: "198.51.100.3" });
      assert.equal(later.status, 200);
      if (!JSON.stringify(fault).includes("error")) {
        assert.equal(health.status, "degraded");
        // Probes and the purge that was not confirmed go on asking.
        const wasAsked = (ip) => bed.proxy.requests.some(({ body }) => body.includes(`:${ip}:`));
        assert.deepEqual([wasAsked("198.51.100.1"), wasAsked("198.51.100.3")], [true, false], "the breaker answers without asking");
      }
      bed.proxy.set("ok");
      await inUse(bed);
    } finally {
      await bed.close();
    }
  });
}

test("a killed Redis and a restarted one: no 5xx in between, and hits afterwards", DEADLINE, async () => {
  const bed = await startBed({ policy: POLICY, faults: true });
  let again;
  try {
    bed.origin.on("/", (_, response) => json(response, 200, { from: "origin" }));
    await stored(bed);
    await bed.server.kill();
    const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => bed.get(`/cached/${n % 5}`, { ip: `198.51.100.${n}` })));
    assert.ok(answers.every((answer) => answer.status === 200));
    again = await startRedisServer({ port: bed.server.port });
    await inUse(bed);
  } finally {
    await bed.close();
    await again?.stop();
  }
});

test("a purge that Redis did not confirm is tried again after the answer", DEADLINE, async () => {
  const bed = await startBed({ policy: POLICY, faults: true });
  try {
    let version = 0;
    bed.origin.on("/", (request, response) => json(response, 200, { version: request.method === "GET" ? ++version : 0 }));
    await stored(bed);
    const [before, seen] = [await bed.redis.get("gen:t"), version];
    bed.proxy.set("refuse", { times: 1, when: ({ body }) => body.includes('"SET","gen:t"') });
    assert.equal((await bed.get("/cached/1", { method: "POST", body: "x" })).status, 200);
    await until("the generation is new", async () => (await bed.redis.get("gen:t")) !== before);
    assert.deepEqual((await bed.get("/cached/1")).json(), { version: seen + 1 });
  } finally {
    await bed.close();
  }
});
