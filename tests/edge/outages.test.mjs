// What an outage must not bring back or take away: purged versions, the other database's entries,
// the entries beside one that is too large to read.

import test from "node:test";
import assert from "node:assert/strict";
import { startEndpointProcess } from "../../dev/redis/process.mjs";
import { startRedisServer } from "../../dev/redis/server.mjs";
import { connect, json, list, startBed, until, WINDOW } from "./bed.mjs";

const DEADLINE = { timeout: 600_000 };
const CACHE_TOKEN = "cache-token";
const limit = [{ name: "l", requests: 100_000, window: WINDOW.text, by: "ip" }];
const POLICY = {
  // Nothing here is about slowness: a loaded machine must not look like an outage.
  defaults: { limit: [], timeout: { redis: "10s", origin: "5m" } },
  route: [
    { name: "item", match: "GET /item/{id}", cache: { key: "item:{id}", ttl: "1h", tags: ["all"] } },
    { name: "write", match: "POST /item/{id}", purge: { keys: ["item:{id}"] } },
    { name: "limited", match: "GET /limited/{id}", limit, cache: { key: "limited:{id}", ttl: "1h", tags: ["all"] } },
    { name: "limited-write", match: "POST /limited/{id}", limit, purge: { tags: ["all"] } },
  ],
};

const status = (answer) => list(answer.headers["cache-status"])[0]?.params ?? {};
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A versioned resource at the origin: a write makes the next version. */
function versioned(bed, path) {
  let version = 1;
  bed.origin.on(path, (request, response) => json(response, 200, { version: request.method === "POST" ? ++version : version }));
  return {
    /** `[version, hit]` of one read. */
    async read() {
      const answer = await bed.get(path);
      assert.equal(answer.status, 200);
      return [answer.json().version, status(answer).hit === true];
    },
    async write() {
      const answer = await bed.get(path, { method: "POST", body: "{}" });
      assert.equal(answer.status, 200);
      return answer.json().version;
    },
    isHit: () => until(`${path} is a hit`, async () => status(await bed.get(path)).hit),
  };
}

test("what was purged during an outage is never served again", DEADLINE, async () => {
  const bed = await startBed({ policy: POLICY, faults: true });
  try {
    const item = versioned(bed, "/item/1");
    await item.read();
    await item.isHit();
    assert.deepEqual(await item.read(), [1, true]);
    bed.proxy.set("refuse");
    assert.equal(await item.write(), 2);
    for (let n = 0; n < 6; n++) assert.deepEqual(await item.read(), [2, false], "during the outage");
    assert.equal((await bed.get("/-/health")).json().status, "degraded");
    // Past the first retry of the purge, so that Redis is in use again before the purge gets there.
    await pause(400);
    assert.deepEqual(await item.read(), [2, false]);
    bed.proxy.set("ok");
    await until("the new version is a hit", async () => {
      const [version, isHit] = await item.read();
      assert.equal(version, 2, "after the outage");
      return isHit;
    });
    assert.deepEqual(await item.read(), [2, true]);
  } finally {
    await bed.close();
  }
});

test("while the limits' database is down, that of the cache serves and purges", DEADLINE, async () => {
  const server = await startRedisServer();
  const endpoint = await startEndpointProcess({ redisPort: server.port, token: CACHE_TOKEN });
  const cache = await connect(server.port);
  const vars = { CACHE_REDIS_REST_URL: endpoint.url, CACHE_REDIS_REST_TOKEN: CACHE_TOKEN };
  const bed = await startBed({ policy: POLICY, vars, faults: true });
  try {
    const item = versioned(bed, "/limited/1");
    await item.read();
    await until("stored", async () => (await cache.exists("meta:limited:1")) === 1);
    bed.proxy.set("refuse");
    assert.deepEqual(await item.read(), [1, true], "a warm listing is a hit");
    // In each request of these the limits fail first, and later their breaker is open.
    for (let round = 0; round < 4; round++) {
      const version = await item.write();
      const [read] = await item.read();
      assert.equal(read, version, "the writer's next read");
      await item.isHit();
      assert.deepEqual(await item.read(), [version, true]);
    }
    const { status: health, cache: cacheHealth } = (await bed.get("/-/health")).json();
    assert.deepEqual([health, cacheHealth], ["degraded", "ok"]);
  } finally {
    await bed.close();
    cache.disconnect();
    await endpoint.close();
    await server.stop();
  }
});

test("a value that is too large to read costs its own listing the cache, and no other", DEADLINE, async () => {
  const bed = await startBed({ policy: POLICY });
  try {
    const [large, other] = [versioned(bed, "/limited/large"), versioned(bed, "/limited/other")];
    await other.read();
    await other.isHit();
    // As base64 it is more than the edge takes from Redis.
    await bed.redis.set("limited:large", JSON.stringify("x".repeat(13_000_000)), "EX", 600);
    for (let n = 0; n < 5; n++) assert.deepEqual(await large.read(), [1, false], "from the origin");
    assert.deepEqual(await other.read(), [1, true], "Redis is not taken for down");
    assert.equal((await bed.get("/-/health")).json().status, "ok");
  } finally {
    await bed.close();
  }
});
