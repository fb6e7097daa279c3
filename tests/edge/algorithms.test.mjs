// Every algorithm, leases, costs by outcome, shadows, penalties and several databases, in the
// built Worker on a real Redis.

import test from "node:test";
import assert from "node:assert/strict";
import { startEndpoint } from "../../dev/redis/endpoint.mjs";
import { startRedisServer } from "../../dev/redis/server.mjs";
import { connect, json, lifetimes, list, startBed, TOKEN, until, WINDOW } from "./bed.mjs";

const limit = (more) => [{ name: "five", requests: 5, window: WINDOW.text, by: "ip", ...more }];
const ALGORITHMS = ["sliding-window", "sliding-log", "token-bucket", "fixed-window"];
// Short enough to see a refused client come back: the test's clock is the machine's.
const SHORT_MS = { "sliding-window": 3_000, "sliding-log": 1_000, "token-bucket": 2_000, "fixed-window": 1_000 };

const POLICY = {
  route: [
    ...ALGORITHMS.map((algorithm) => ({ name: algorithm, match: `GET /${algorithm}`, limit: limit({ algorithm }) })),
    { name: "burst", match: "GET /burst", limit: limit({ algorithm: "token-bucket", burst: 2 }) },
    { name: "leased", match: "GET /leased", limit: limit({ requests: 5000, lease: true, by: "global" }) },
    { name: "shadow", match: "GET /shadow", limit: limit({ requests: 1, shadow: true }) },
    ...ALGORITHMS.map((algorithm) => ({ name: `peek-${algorithm}`, match: `GET /peek/${algorithm}`, limit: limit({ algorithm, cost: 0 }) })),
    ...ALGORITHMS.map((algorithm) => ({
      name: `items-${algorithm}`, match: `GET /items/${algorithm}/{id}`,
      limit: limit({ algorithm, requests: 10, cost: { hit: 0, miss: 5 } }),
      cache: { key: `items:${algorithm}:{id}`, ttl: "10m", tags: ["items"] },
    })),
    { name: "hammered", match: "GET /hammered", limit: limit({ requests: 1, penalty: { after: 2, base: "1h", max: "2h" } }) },
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
const isDegraded = (answer) => list(answer.headers.ratelimit)[0].params["edgeweir-degraded"] === true;
const redisMs = (answer) => Number(/redis;dur=(\d+)/.exec(answer.headers["server-timing"] ?? "")?.[1] ?? 0);

/** Two processes know Redis' time to 50 ms each, and one that is behind sees less leak out of a bucket than the other. */
const CLOCKS_MS = 120;
/** After a slower trip an isolate knows less of Redis' time. */
const SLOW_MS = 80;

/** The whole limit of an address, by turns through both processes; which address it was. */
async function useUp(algorithm) {
  for (let attempt = 0; ; attempt++) {
    const ip = `192.0.2.${attempt}`;
    const answers = [];
    for (let n = 0; n < 5; n++) {
      answers.push(await ask(`/${algorithm}`, ip, n % 2));
      if (n === 0) await new Promise((resolve) => setTimeout(resolve, CLOCKS_MS));
    }
    const isSlow = algorithm === "token-bucket" && answers.some((answer) => redisMs(answer) >= SLOW_MS);
    const seen = answers.map((answer) => `${answer.status} ${left(answer)}`);
    const isRight = seen.join() === "200 4,200 3,200 2,200 1,200 0";
    if (isRight) return ip;
    assert.ok(isSlow && attempt < 20, `${seen}`);
  }
}

for (const algorithm of ALGORITHMS) {
  test(`${algorithm}: the whole limit over two processes, then a refusal that names its time`, async () => {
    const ip = await useUp(algorithm);
    for (const worker of [0, 1]) {
      const refused = await ask(`/${algorithm}`, ip, worker);
      assert.equal(refused.status, 429);
      assert.equal(refused.headers["x-ratelimit-near"], "five");
      const after = Number(refused.headers["retry-after"]);
      assert.ok(after >= 1 && after <= WINDOW.seconds * 1.01, `${after}`);
    }
    assert.equal((await ask(`/${algorithm}`, "198.51.100.2")).status, 200, "another address has its own");
  });
}

test("a client that waits as it is told is admitted, whatever the algorithm", async () => {
  // A machine that holds everything up for the timeout makes it another test: then once more, each time with more time.
  let left = ALGORITHMS;
  for (let factor = 1; left.length > 0 && factor <= 16; factor *= 2) left = await comeBack(left, factor);
  assert.deepEqual(left, [], "Redis never answered in time");
});

/** Those of the algorithms that Redis was too late for. */
async function comeBack(algorithms, factor) {
  // A bucket of a sliding window is longer than the timeout, and ten of them are the window.
  const policy = {
    defaults: { timeout: { redis: `${150 * factor}ms` } },
    route: ALGORITHMS.map((algorithm) => ({
      name: algorithm, match: `GET /${algorithm}`, limit: limit({ algorithm, requests: 2, window: `${SHORT_MS[algorithm] * factor}ms` }),
    })),
  };
  const bed = await startBed({ policy });
  try {
    const isLate = await Promise.all(algorithms.map(async (algorithm) => {
      const ask = () => bed.get(`/${algorithm}`, { ip: "198.51.100.1" });
      let refused = await ask();
      const begun = performance.now();
      for (let n = 0; n < 10 && refused.status !== 429; n++) refused = await ask();
      if (refused.status !== 429) {
        // Two in a window are never one too many for whoever needs half the window for each.
        const tookMs = performance.now() - begun;
        assert.ok(tookMs > SHORT_MS[algorithm] * factor, `${algorithm}: eleven admitted in ${tookMs} ms`);
        return true;
      }
      const after = Number(refused.headers["retry-after"]);
      await new Promise((resolve) => setTimeout(resolve, after * 1000));
      const admitted = await ask();
      if (isDegraded(refused) || isDegraded(admitted)) return true;
      assert.equal(admitted.status, 200, `${algorithm} after ${after} s`);
      return false;
    }));
    return algorithms.filter((_, at) => isLate[at]);
  } finally {
    await bed.close();
  }
}

test("a token bucket has its burst, and a peek charges nothing", async () => {
  for (let attempt = 0, isRight = false; !isRight; attempt++) {
    const answers = [];
    for (let n = 0; n < 4; n++) {
      answers.push(await ask("/burst", `192.0.2.${attempt}`, n % 2));
      if (n === 0) await new Promise((resolve) => setTimeout(resolve, CLOCKS_MS));
    }
    const statuses = answers.map(({ status }) => status);
    isRight = statuses.join() === "200,200,429,429";
    const isSlow = answers.some((answer) => redisMs(answer) >= SLOW_MS);
    assert.ok(isRight || (isSlow && attempt < 20), `${statuses}`);
  }
  for (const algorithm of ALGORITHMS) {
    for (let n = 0; n < 8; n++) {
      const looked = await ask(`/peek/${algorithm}`, "198.51.100.4");
      assert.deepEqual([looked.status, left(looked), isDegraded(looked)], [200, 5, false], algorithm);
    }
  }
});

test("a lease makes most requests cost no command", async () => {
  for (let n = 0; n < 100; n++) assert.equal((await ask("/leased", "198.51.100.5")).status, 200);
  await bed.redis.config("RESETSTAT");
  let last;
  let slow = 0;
  for (let n = 0; n < 300; n++) {
    last = await ask("/leased", "198.51.100.5");
    if (redisMs(last) >= SLOW_MS) slow++;
  }
  const { bitfield } = await bed.commandstats();
  console.log(`${bitfield} charges for 300 requests, ${slow} of them slow`);
  // Without a good reading of the clock what is left may not be spent: that request and the next may charge.
  assert.ok(bitfield <= 150 + 2 * slow, `${bitfield}`);
  assert.ok(left(last) <= 4600 && left(last) > 4000, `${left(last)}`);
});

for (const algorithm of ALGORITHMS) {
  test(`${algorithm}: readers browse freely, and a flood of keys that nobody has stops at the misses' budget`, async () => {
    const ip = "198.51.100.6";
    const item = (id, worker) => ask(`/items/${algorithm}/${id}`, ip, worker);
    assert.equal(left(await item(1)), 5);
    await until("the entry is stored", async () => (await bed.redis.exists(`meta:items:${algorithm}:1`)) === 1);
    for (let n = 0; n < 20; n++) {
      const hit = await item(1, n % 2);
      assert.equal(list(hit.headers["cache-status"])[0].params.hit, true);
      assert.deepEqual([left(hit), isDegraded(hit)], [5, false]);
    }
    assert.equal((await item(2)).status, 200);
    for (let n = 3; n < 12; n++) assert.equal((await item(n, n % 2)).status, 429);
    assert.equal(bed.origin.count(`/items/${algorithm}/`), 2);
    assert.equal((await item(1)).status, 200);
  });
}

test("a shadow limit reports and refuses nobody", async () => {
  for (let n = 0; n < 4; n++) {
    const answer = await ask("/shadow", "198.51.100.7", n % 2);
    assert.equal(answer.status, 200);
    assert.equal(list(answer.headers.ratelimit)[0].params["edgeweir-shadow"], true);
    assert.equal(answer.headers["x-ratelimit-limit"], undefined);
  }
});

const isBan = (answer) => answer.status === 429 && answer.json().type.endsWith("#abnormal-usage-detected");

test("a client that goes on after its refusals is banned in both processes", async () => {
  const ip = "198.51.100.8";
  let banned;
  await until("it is banned", async () => {
    const answer = await ask("/hammered", ip, 0);
    if (isBan(answer)) banned = answer;
    return banned;
  });
  const key = `ratelimit:suspicious:${ip}`;
  assert.ok((await bed.redis.pttl(key)) > 0);
  const [endsMs] = (await bed.redis.hget(key, "s")).split(" ");
  const left = (Number(endsMs) - Date.now()) / 1000;
  // The hour and at most a tenth of it, less what the machine took since.
  assert.ok(left >= 2400 && left <= 3960, `${left}`);
  // What was spent returns later than the ban ends.
  const after = Number(banned.headers["retry-after"]);
  assert.ok(after > left, `${after}`);
  await until("the other process knows", async () => isBan(await ask("/hammered", ip, 1)));
  assert.equal((await ask("/hammered", "198.51.100.9", 1)).status, 200, "nobody else is");
});

test("every key that all of this leaves behind expires", async () => {
  assert.ok((await lifetimes(bed.redis, "ratelimit:*")).length >= 8);
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
  const redis = await Promise.all([first, second].map((server) => connect(server.port)));
  const bed = await startBed({ policy: { route: [{ name: "all", match: "GET /all", limit: limit() }] }, vars });
  try {
    // So many that a database with fewer than eight of them is no chance of its port's.
    const ips = Array.from({ length: 120 }, (_, n) => `203.0.113.${n}`);
    for (const ip of ips) assert.equal((await bed.get("/all", { ip })).status, 200);
    const counted = await Promise.all(redis.map((one) => one.keys("ratelimit:203.0.113.*")));
    assert.equal(counted[0].length + counted[1].length, ips.length);
    assert.ok(counted.every((keys) => keys.length >= 8), `${counted.map((keys) => keys.length)}`);
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
