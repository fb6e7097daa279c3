// Variables that are missing or malformed, two databases, and no Redis at all.

import test from "node:test";
import assert from "node:assert/strict";
import { startRedisServer } from "../../dev/redis/server.mjs";
import { startEndpoint } from "../../dev/redis/endpoint.mjs";
import { connect, json, list, startBed, until, WINDOW } from "./bed.mjs";

const POLICY = { route: [{ name: "cached", match: "GET /cached", cache: { key: "cached", ttl: "1h", tags: ["t"] } }] };

async function withBed(options, body) {
  const bed = await startBed(options);
  try {
    await body(bed);
  } finally {
    await bed.close();
  }
}

test("a missing required variable is a 503 that names it, on every path, and the log says it once", async () => {
  await withBed({ policy: POLICY, vars: { UPSTASH_REDIS_REST_TOKEN: undefined } }, async (bed) => {
    for (const path of ["/", "/cached", "/-/health"]) {
      const answer = await bed.get(path);
      assert.equal(answer.status, 503);
      assert.equal(answer.headers["content-type"], "application/problem+json");
      assert.match(answer.text, /UPSTASH_REDIS_REST_TOKEN/);
    }
    assert.equal(bed.origin.requests.length, 0);
  });
});

test("a bad POLICY is a 503 with every error and its JSON pointer", async () => {
  const policy = { route: [{ name: "a", match: "GET /a", limit: [{ name: "x", requests: 0, window: "60s", by: "ip" }], bogus: 1 }] };
  await withBed({ policy }, async (bed) => {
    const answer = await bed.get("/");
    assert.equal(answer.status, 503);
    const problem = answer.json();
    assert.equal(problem.variable, "POLICY");
    const pointers = problem.errors.map((error) => error.pointer).sort();
    assert.deepEqual(pointers, ["/route/0/bogus", "/route/0/limit/0/requests"]);
  });
  await withBed({ policy: "{ not json" }, async (bed) => {
    assert.equal((await bed.get("/")).status, 503);
  });
});

test("REDIS_ENABLED=false needs no UPSTASH_*: local limits, no cache", async () => {
  const vars = { REDIS_ENABLED: "false", UPSTASH_REDIS_REST_URL: undefined, UPSTASH_REDIS_REST_TOKEN: undefined, RATE_LIMIT_WINDOW_MS: `${WINDOW.ms}`, RATE_LIMIT_MAX_REQUESTS: "3" };
  await withBed({ policy: POLICY, vars }, async (bed) => {
    const statuses = [];
    for (let n = 0; n < 5; n++) {
      const answer = await bed.get("/cached", { ip: "198.51.100.1" });
      statuses.push(answer.status);
      // Of a Redis that is not there nothing was measured.
      assert.doesNotMatch(answer.headers["server-timing"] ?? "", /redis/);
      if (answer.status === 200) assert.match(answer.headers["server-timing"], /origin;dur=\d+/);
    }
    assert.deepEqual(statuses, [200, 200, 200, 429, 429]);
    assert.equal(bed.origin.count("/cached"), 3);
    assert.deepEqual((await bed.get("/-/health")).json(), { status: "ok", redis: "disabled" });
  });
});

test("RATE_LIMIT_* override the default limit", async () => {
  await withBed({ policy: POLICY, vars: { RATE_LIMIT_WINDOW_MS: "300000", RATE_LIMIT_MAX_REQUESTS: "7" } }, async (bed) => {
    assert.equal((await bed.get("/anything")).headers["ratelimit-policy"], '"default";q=7;w=300');
  });
});

test("a RATE_LIMIT_* that does not fit is a 503 that names it, and not POLICY", async () => {
  for (const policy of [undefined, POLICY]) {
    await withBed({ policy, vars: { RATE_LIMIT_WINDOW_MS: "1000" } }, async (bed) => {
      const answer = await bed.get("/cached");
      assert.equal(answer.status, 503);
      assert.equal(answer.headers["content-type"], "application/problem+json");
      assert.equal(answer.json().variable, "RATE_LIMIT_WINDOW_MS");
      assert.match(answer.json().detail, /RATE_LIMIT_WINDOW_MS/);
      assert.doesNotMatch(answer.text, /POLICY/);
    });
  }
});

test("with CACHE_REDIS_* entries live there and limits do not, and both are asked at once", async () => {
  const server = await startRedisServer();
  const endpoint = await startEndpoint({ redisPort: server.port, token: "cache-token" });
  const cache = await connect(server.port);
  try {
    await withBed({ policy: POLICY, vars: { CACHE_REDIS_REST_URL: endpoint.url, CACHE_REDIS_REST_TOKEN: "cache-token" }, faults: true }, async (bed) => {
      bed.origin.on("/cached", (_, response) => json(response, 200, { a: 1 }));
      await bed.get("/cached");
      await until("stored", async () => (await cache.exists("meta:cached")) === 1);
      const hit = await bed.get("/cached");
      assert.equal(list(hit.headers["cache-status"])[0].params.hit, true);
      assert.ok((await bed.redis.keys("*")).every((key) => key.startsWith("ratelimit:")));
      assert.ok((await cache.keys("*")).every((key) => !key.startsWith("ratelimit:")));
      assert.deepEqual((await bed.get("/-/health")).json(), { status: "ok", redis: "ok", cache: "ok" });
      bed.proxy.set("refuse");
      assert.equal((await bed.get("/cached")).status, 200);
    });
  } finally {
    cache.disconnect();
    await endpoint.close();
    await server.stop();
  }
});
