// Redis loses keys: all at once, or under memory pressure. Reads go on without an error, none is older than a purge, the cache
// refills by itself, and what lives in the other role's database is whole.

import test from "node:test";
import assert from "node:assert/strict";
import { connect, json, startBed, until, WINDOW } from "./bed.mjs";
import { startRedisServer } from "../../dev/redis/server.mjs";
import { startEndpointProcess } from "../../dev/redis/process.mjs";

const KEYS = 300;
const TAGS = 10;
const BODY_BYTES = 20_000;
const READERS = 16;
const READS = 3_000;
const LIMIT = 200;
/** Below what the entries take, so that Redis evicts all the time. */
const PRESSURE_BYTES = 3_000_000;
const CACHE_TOKEN = "cache-token";

const POLICY = {
  defaults: { limit: [], timeout: { redis: "10s", origin: "5m" } },
  route: [
    {
      name: "items",
      match: "GET /items/{tag}/{id}",
      cache: { key: "items:{tag}:{id}", ttl: "1h", stale: "1h", tags: ["tag:{tag}"] },
      view: { item: "{id}" },
    },
    { name: "write", match: "POST /items/{tag}", purge: { tags: ["tag:{tag}"] } },
    {
      name: "limited",
      match: "GET /limited/{id}",
      limit: [{ name: "some", requests: LIMIT, window: WINDOW.text, by: "global" }],
      cache: { key: "limited:{id}", ttl: "1h" },
    },
  ],
};

/** mulberry32: so that a run can be had again. */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** An origin whose items carry their tag's version, which a write raises. */
function serveVersions(origin) {
  const versions = Array.from({ length: TAGS }, () => 1);
  const filler = "x".repeat(BODY_BYTES);
  origin.on("/items/", (request, response) => {
    const tag = Number(request.url.split("/")[2]);
    if (request.method === "POST") versions[tag] += 1;
    json(response, 200, { version: versions[tag], filler });
  });
}

/**
 * Many readers and a writer at once; `disturb` is called now and then. Each read must bring at least the version of the last
 * write that was answered before the read began. Answers how many reads were hits, and which items were read.
 */
async function load(bed, { seed, disturb }) {
  console.log(`seed ${seed}`);
  const next = random(seed);
  const least = Array.from({ length: TAGS }, () => 1);
  let reads = 0;
  let hits = 0;
  const items = new Set();
  const reader = async () => {
    while (reads < READS) {
      reads += 1;
      const id = Math.floor(KEYS * next() ** 2);
      const tag = id % TAGS;
      const expected = least[tag];
      if (reads % 100 === 0) await disturb(reads);
      if (reads % 40 === 0) {
        const written = await bed.get(`/items/${tag}`, { method: "POST", url: bed.urls[reads % bed.urls.length] });
        assert.equal(written.status, 200);
        least[tag] = Math.max(least[tag], written.json().version);
      }
      const answer = await bed.get(`/items/${tag}/${id}`, { url: bed.urls[reads % bed.urls.length] });
      assert.equal(answer.status, 200);
      const { version } = answer.json();
      assert.ok(version >= expected, `item ${id}: version ${version}, and ${expected} was written: ${answer.headers["cache-status"]}`);
      items.add(id);
      if (answer.headers["cache-status"].includes("; hit")) hits += 1;
    }
  };
  await Promise.all(Array.from({ length: READERS }, reader));
  return { hits, items };
}

test("flushed under load: no error, no read older than a purge, and the cache refills by itself", async () => {
  const bed = await startBed({ policy: POLICY, workers: 2 });
  try {
    serveVersions(bed.origin);
    let flushes = 0;
    await load(bed, {
      seed: 1,
      disturb: async (reads) => {
        if (reads % 300 !== 0) return;
        await bed.redis.flushall();
        flushes += 1;
      },
    });
    assert.ok(flushes >= 8, `${flushes} flushes`);
    await until("an item is a hit again", async () => (await bed.get("/items/1/1")).headers["cache-status"].includes("; hit"));
  } finally {
    await bed.close();
  }
});

test("at maxmemory with allkeys-lru, in a role of its own: the same, and no view and no limit is lost", async () => {
  const cache = await startRedisServer();
  const endpoint = await startEndpointProcess({ redisPort: cache.port, token: CACHE_TOKEN });
  const evicting = await connect(cache.port);
  const vars = { CACHE_REDIS_REST_URL: endpoint.url, CACHE_REDIS_REST_TOKEN: CACHE_TOKEN };
  const bed = await startBed({ policy: POLICY, workers: 2, vars });
  try {
    serveVersions(bed.origin);
    const used = Number(/used_memory:(\d+)/.exec(await evicting.info("memory"))[1]);
    await evicting.config("SET", "maxmemory", String(used + PRESSURE_BYTES));
    await evicting.config("SET", "maxmemory-policy", "allkeys-lru");
    let limited = 0;
    const statuses = { 200: 0, 429: 0 };
    const { hits, items } = await load(bed, {
      seed: 2,
      disturb: async () => {
        for (let n = 0; n < 10; n++) {
          statuses[(await bed.get(`/limited/${limited++}`, { url: bed.urls[n % 2] })).status] += 1;
        }
      },
    });
    assert.deepEqual(statuses, { 200: LIMIT, 429: limited - LIMIT }, "the limit is exact");
    assert.ok(hits > 0, "some reads are hits");
    const evicted = Number(/evicted_keys:(\d+)/.exec(await evicting.info("stats"))[1]);
    assert.ok(evicted > 100, `${evicted} keys were evicted`);
    const [here, there] = await Promise.all([bed.redis.keys("*"), evicting.keys("*")]);
    const isLimits = (key) => /^(ratelimit|metrics|views):/.test(key);
    assert.deepEqual(here.filter((key) => !isLimits(key)), []);
    assert.deepEqual(there.filter(isLimits), []);
    // One reader: each item that was read has one view, however often.
    for (const id of items) {
      await until(`item ${id} has a view`, async () => (await bed.get(`/-/views/item/${id}`)).json().pending === 1);
    }
    assert.equal((await bed.get(`/-/views/item/${KEYS + 1}`)).json().pending, 0);
  } finally {
    await bed.close();
    evicting.disconnect();
    await endpoint.close();
    await cache.stop();
  }
});
