// Every algorithm, leases, costs by outcome, shadows, penalties and several databases, in the
// built Worker on a real Redis.

import test from "node:test";
import assert from "node:assert/strict";
import { startEndpoint } from "../../dev/redis/endpoint.mjs";
import { startRedisServer } from "../../dev/redis/server.mjs";
import { json, list, startBed, TOKEN, until } from "./bed.mjs";
import { Redis } from "ioredis";

const limit = (more) => [{ name: "five", requests: 5, window: "60s", by: "ip", ...more }];
const ALGORITHMS = ["sliding-window", "sliding-log", "token-bucket", "fixed-window"];
// Short enough to see a refused client come back: the test's clock is the machine's.
const SHORT = { "sliding-window": "3s", "sliding-log": "1s", "token-bucket": "2s", "fixed-window": "1s" };

const POLICY = {
  route: [
    // So long that no boundary of a fixed window comes in between.
    ...ALGORITHMS.map((algorithm) => ({ name: algorithm, match: `GET /${algorithm}`, limit: limit({ algorithm, window: "24h" }) })),
    { name: "burst", match: "GET /burst", limit: limit({ algorithm: "token-bucket", burst: 2 }) },
    { name: "leased", match: "GET /leased", limit: limit({ requests: 5000, lease: true, by: "global" }) },
    { name: "shadow", match: "GET /shadow", limit: limit({ requests: 1, shadow: true }) },
    { name: "peek", match: "GET /peek", limit: limit({ cost: 0 }) },
    {
      name: "items", match: "GET /items/{id}", limit: limit({ requests: 10, cost: { hit: 0, miss: 5 } }),
      cache: { key: "items:{id}", ttl: "10m", tags: ["items"] },
    },
    { name: "hammered", match: "GET /hammered", limit: limit({ requests: 1, penalty: { after: 2, base: "60s", max: "10m" } }) },
  ],
};

let bed;
test.before(async () => {
  bed = await startBed({ policy: POLICY, workers: 2 });
  bed.origin.on("/items/", (_, response) => json(response, 200, { an: "item" }));
});
test.after(() => bed?.close());

const ask = (path, ip, worker = 0) => bed.get(path, { ip, url: bed.urls[worker] });
const left = (answer) => Number(list(answer.headers.ratelimit)[0].params.r);

for (const algorithm of ALGORITHMS) {
  test(`${algorithm}: the whole limit over two processes, then a refusal that names its time`, async () => {
    const ip = "198.51.100.1";
    for (let n = 0; n < 5; n++) {
      const answer = await ask(`/${algorithm}`, ip, n % 2);
      assert.equal(answer.status, 200);
      assert.equal(left(answer), 4 - n);
    }
    for (const worker of [0, 1]) {
      const refused = await ask(`/${algorithm}`, ip, worker);
      assert.equal(refused.status, 429);
      assert.equal(refused.headers["x-ratelimit-near"], "five");
      const after = Number(refused.headers["retry-after"]);
      assert.ok(after >= 1 && after <= 25 * 3600, `${after}`);
    }
    assert.equal((await ask(`/${algorithm}`, "198.51.100.2")).status, 200, "another address has its own");
  });
}

test("a client that waits as it is told is admitted, whatever the algorithm", async () => {
  // A bucket of a sliding window is longer than the timeout, and ten of them are the window.
  const policy = {
    defaults: { timeout: { redis: "150ms" } },
    route: ALGORITHMS.map((algorithm) => ({
      name: algorithm, match: `GET /${algorithm}`, limit: limit({ algorithm, requests: 2, window: SHORT[algorithm] }),
    })),
  };
  const bed = await startBed({ policy });
  try {
    await Promise.all(ALGORITHMS.map(async (algorithm) => {
      // A machine that holds everything up for the timeout makes it another test: once more, then.
      for (let attempt = 0; attempt < 3; attempt++) {
        const ip = `198.51.100.${attempt}`;
        let refused;
        for (let n = 0; n < 10 && refused?.status !== 429; n++) refused = await bed.get(`/${algorithm}`, { ip });
        assert.equal(refused.status, 429, algorithm);
        const after = Number(refused.headers["retry-after"]);
        await new Promise((resolve) => setTimeout(resolve, after * 1000));
        const admitted = await bed.get(`/${algorithm}`, { ip });
        if ([refused, admitted].some(({ headers }) => headers.ratelimit.includes("edgeweir-degraded"))) continue;
        assert.equal(admitted.status, 200, `${algorithm} after ${after} s`);
        return;
      }
      assert.fail(`${algorithm}: Redis never answered in time`);
    }));
  } finally {
    await bed.close();
  }
});

test("a token bucket has its burst, and a peek charges nothing", async () => {
  const statuses = [];
  for (let n = 0; n < 4; n++) statuses.push((await ask("/burst", "198.51.100.4", n % 2)).status);
  assert.deepEqual(statuses, [200, 200, 429, 429]);
  for (let n = 0; n < 8; n++) {
    const looked = await ask("/peek", "198.51.100.4");
    assert.deepEqual([looked.status, left(looked)], [200, 5]);
  }
});

test("a lease makes most requests cost no command", async () => {
  for (let n = 0; n < 100; n++) assert.equal((await ask("/leased", "198.51.100.5")).status, 200);
  await bed.redis.config("RESETSTAT");
  let last;
  for (let n = 0; n < 300; n++) last = await ask("/leased", "198.51.100.5");
  const { bitfield } = await bed.commandstats();
  console.log(`${bitfield} charges for 300 requests`);
  assert.ok(bitfield <= 150, `${bitfield}`);
  assert.ok(left(last) <= 4600 && left(last) > 4000, `${left(last)}`);
});

test("readers browse freely, and a flood of keys that nobody has stops at the misses' budget", async () => {
  const ip = "198.51.100.6";
  assert.equal(left(await ask("/items/1", ip)), 5);
  await until("the entry is stored", async () => (await bed.redis.exists("meta:items:1")) === 1);
  for (let n = 0; n < 20; n++) {
    const hit = await ask("/items/1", ip, n % 2);
    assert.equal(list(hit.headers["cache-status"])[0].params.hit, true);
    assert.equal(left(hit), 5);
  }
  assert.equal((await ask("/items/2", ip)).status, 200);
  for (let n = 3; n < 12; n++) assert.equal((await ask(`/items/${n}`, ip, n % 2)).status, 429);
  assert.equal(bed.origin.requests.filter(({ url }) => url.startsWith("/items/")).length, 2);
  assert.equal((await ask("/items/1", ip)).status, 200);
});

test("a shadow limit reports and refuses nobody", async () => {
  for (let n = 0; n < 4; n++) {
    const answer = await ask("/shadow", "198.51.100.7", n % 2);
    assert.equal(answer.status, 200);
    assert.equal(list(answer.headers.ratelimit)[0].params["edgeweir-shadow"], true);
    assert.equal(answer.headers["x-ratelimit-limit"], undefined);
  }
});

test("a client that goes on after its refusals is banned in both processes", async () => {
  const ip = "198.51.100.8";
  let banned;
  await until("it is banned", async () => {
    const answer = await ask("/hammered", ip, 0);
    if (answer.status === 429 && answer.json().type.endsWith("#abnormal-usage-detected")) banned = answer;
    return banned;
  }, 2000);
  assert.ok(Number(banned.headers["retry-after"]) >= 40);
  assert.ok((await bed.redis.pttl(`ratelimit:suspicious:${ip}`)) > 0);
  await until("the other process knows", async () => {
    const answer = await ask("/hammered", ip, 1);
    return answer.json().type.endsWith("#abnormal-usage-detected");
  });
  assert.equal((await ask("/hammered", "198.51.100.9", 1)).status, 200, "nobody else is");
});

test("every key that all of this leaves behind expires", async () => {
  for (const key of await bed.redis.keys("ratelimit:*")) {
    const ttl = await bed.redis.pttl(key);
    assert.ok(ttl > 0, `${key} ${ttl}`);
  }
});

test("ids are spread over two databases, and one that is down degrades only its own", async () => {
  const second = await startRedisServer();
  const endpoint = await startEndpoint({ redisPort: second.port, token: "second" });
  const first = await startRedisServer();
  const beside = await startEndpoint({ redisPort: first.port, token: TOKEN });
  const vars = {
    UPSTASH_REDIS_REST_URL: `${beside.url},${endpoint.url}`,
    UPSTASH_REDIS_REST_TOKEN: `${TOKEN},second`,
  };
  const redis = [first, second].map((server) => new Redis(server.port, "127.0.0.1"));
  const bed = await startBed({ policy: { route: [{ name: "all", match: "GET /all", limit: limit() }] }, vars });
  try {
    const ips = Array.from({ length: 40 }, (_, n) => `203.0.113.${n}`);
    for (const ip of ips) assert.equal((await bed.get("/all", { ip })).status, 200);
    const counted = await Promise.all(redis.map((one) => one.keys("ratelimit:203.0.113.*")));
    assert.equal(counted[0].length + counted[1].length, 40);
    assert.ok(counted.every((keys) => keys.length >= 8), `${counted.map((keys) => keys.length)}`);
    const isDegraded = (answer) => list(answer.headers.ratelimit)[0].params["edgeweir-degraded"] === true;
    const ipOf = (keys) => keys[0].split(":")[1];
    const [here, there] = counted.map(ipOf);
    await endpoint.close();
    assert.equal(isDegraded(await bed.get("/all", { ip: there })), true);
    const answer = await bed.get("/all", { ip: here });
    assert.equal(isDegraded(answer), false);
    assert.equal(left(answer), 3);
    // Alone it goes on from what the database said last.
    const statuses = [];
    for (let n = 0; n < 6; n++) statuses.push((await bed.get("/all", { ip: there })).status);
    assert.deepEqual(statuses, [200, 200, 200, 429, 429, 429]);
  } finally {
    await bed.close();
    redis.forEach((one) => one.disconnect());
    await beside.close();
    await endpoint.close().catch(() => {});
    await Promise.all([first.stop(), second.stop()]);
  }
});
