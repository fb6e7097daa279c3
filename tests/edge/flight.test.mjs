// One leader and many followers at a cold key, on real parts.
//
// The trap: in workerd a request that awaits another request's future is killed or hangs
// when the other's client goes away. Ours only poll, and the leader's work is owned by
// wait_until; these tests fail if either is not so.

import test from "node:test";
import assert from "node:assert/strict";
import { age, connect, json, list, resetAfterSending, startBed, until } from "./bed.mjs";

const listing = (name, more = {}) => ({
  name,
  match: `GET /${name}/{id}`,
  limit: [],
  cache: { key: `${name}:{id}`, ttl: "10m", tags: ["all"], ...more },
});
/** A leader that its machine holds up for three seconds has lost its lock: that is another test, and this one is made anew. */
const ATTEMPTS = 20;
const attempts = (name, more) => Array.from({ length: ATTEMPTS }, (_, n) => listing(`${name}-${n}`, more));
const POLICY = {
  // Whoever waits for a leader does so until the origin's timeout, and on a route that knows of no fill yet.
  defaults: { limit: [], timeout: { redis: "10s", origin: "5m" } },
  route: [
    ...attempts("cold"), ...attempts("reset"), ...attempts("stale", { stale: "10h" }),
    listing("purged"), listing("private"), listing("broken"),
  ],
};

let bed;
let subscriber;
/** Locks that ended because nobody renewed them; the words that failures leave in theirs are of the last tests. */
const expired = [];
test.before(async () => {
  bed = await startBed({ policy: POLICY, workers: 4 });
  subscriber = await connect(bed.server.port);
  await bed.redis.config("SET", "notify-keyspace-events", "Ex");
  await subscriber.psubscribe("__keyevent@*__:expired");
  subscriber.on("pmessage", (_pattern, _channel, key) => key.startsWith("fill:") && expired.push(key));
});
test.after(async () => {
  subscriber?.disconnect();
  await bed?.close();
});

/** Runs `body` on `/NAME-0/1`, on `/NAME-1/1` if a leader was held up meanwhile, and so on. */
async function undisturbed(name, body) {
  for (let attempt = 0; ; attempt++) {
    const before = expired.length;
    try {
      return await body(`/${name}-${attempt}/1`, `${name}-${attempt}:1`);
    } catch (error) {
      // What Redis tells of them comes on the same connection, before the answer.
      await subscriber.ping();
      if (expired.length === before || attempt === ATTEMPTS - 1) throw error;
      console.log(`a leader was held up: ${error.message}`);
    }
  }
}

/** An origin answer that waits until the test lets it go. */
function gate(prefix, answer) {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  bed.origin.on(prefix, async (request, response) => {
    await opened;
    answer(request, response);
  });
  return open;
}

const cacheStatus = (answer) => list(answer.headers["cache-status"])[0]?.params ?? {};

test("200 clients at a cold key through 4 processes: 1 origin request, 0 errors", () => undisturbed("cold", async (path) => {
  const open = gate(path, (_, response) => json(response, 200, { one: 1 }));
  const asked = Array.from({ length: 200 }, (_, n) => bed.get(path, { url: bed.urls[n % 4] }));
  await until("the leader is at the origin", () => bed.origin.count(path) > 0);
  open();
  const answers = await Promise.all(asked);
  assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [200]);
  assert.deepEqual([...new Set(answers.map((answer) => answer.text))], ['{"one":1}']);
  assert.equal(bed.origin.count(path), 1);
  const stored = answers.filter((answer) => cacheStatus(answer).stored);
  assert.equal(stored.length, 1);
  assert.equal(answers.filter((answer) => cacheStatus(answer).collapsed || cacheStatus(answer).hit).length, 199);
}));

test("the same when the first client resets its connection: 1 origin request, 0 errors", () => undisturbed("reset", async (path, key) => {
  const open = gate(path, (_, response) => json(response, 200, { two: 2 }));
  const first = await resetAfterSending(bed.urls[0], path);
  await until("the leader is at the origin", () => bed.origin.count(path) > 0);
  await bed.redis.config("RESETSTAT");
  const asked = Array.from({ length: 200 }, (_, n) => bed.get(path, { url: bed.urls[n % 4] }));
  // Followers of the leader's own process must be waiting when its client goes.
  await until("followers have looked", async () => (await bed.commandstats()).mget >= 200);
  first.reset();
  open();
  const answers = await Promise.all(asked);
  assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [200]);
  assert.equal(bed.origin.count(path), 1);
  assert.equal(await bed.redis.get(key), '{"two":2}', "and the entry is stored");
}));

test("a stale entry is served at once by everyone while one of them refreshes", () => undisturbed("stale", async (path, key) => {
  let version = 0;
  bed.origin.on(path, (_, response) => json(response, 200, { version: ++version }));
  assert.deepEqual((await bed.get(path)).json(), { version: 1 });
  await until("the entry is stored", async () => (await bed.redis.exists(`meta:${key}`)) === 1);
  // Time passes by moving the record, not by waiting.
  await age(bed.redis, key, 20 * 60_000);
  const open = gate(path, (_, response) => json(response, 200, { version: ++version }));
  const answers = await Promise.all(Array.from({ length: 60 }, (_, n) => bed.get(path, { url: bed.urls[n % 4] })));
  assert.ok(answers.every((answer) => answer.json().version === 1));
  assert.ok(answers.every((answer) => Number(cacheStatus(answer).ttl) < 0));
  await until("a refresher is at the origin", () => bed.origin.count(path) >= 2);
  open();
  await until("the entry is new", async () => (await bed.redis.get(key)) === '{"version":2}');
  assert.equal(bed.origin.count(path), 2, "one refresher in four processes");
}));

test("after a purge nobody is served by a fill that began before it", async () => {
  let version = 0;
  const opened = [];
  bed.origin.on("/purged/3", (_, response) => {
    const mine = ++version;
    const answer = () => json(response, 200, { version: mine });
    if (mine <= 2) opened.push(answer);
    else answer();
  });
  const before = bed.get("/purged/3");
  await until("the old fill is at the origin", () => opened.length === 1);
  const purged = await bed.get("/-/purge", {
    method: "POST", body: JSON.stringify({ tags: ["all"] }), headers: { authorization: "Bearer test-admin-token" },
  });
  assert.equal(purged.status, 200);
  const after = bed.get("/purged/3", { url: bed.urls[1] });
  await until("a new fill is at the origin", () => opened.length === 2);
  opened[1]();
  assert.deepEqual((await after).json(), { version: 2 });
  opened[0]();
  assert.deepEqual((await before).json(), { version: 1 });
  await until("the old fill has ended", async () => (await bed.redis.keys("fill:*")).length === 0);
  const later = await bed.get("/purged/3", { url: bed.urls[2] });
  assert.notDeepEqual(later.json(), { version: 1 }, "the old answer is never served again");
});

test("a burst on a key whose answer may not be shared does not queue", async () => {
  bed.origin.on("/private/1", (_, response) => json(response, 200, { mine: 1 }, { "cache-control": "private" }));
  const first = await bed.get("/private/1");
  assert.equal(cacheStatus(first).stored, undefined);
  const answers = await Promise.all(Array.from({ length: 40 }, (_, n) => bed.get("/private/1", { url: bed.urls[n % 4] })));
  assert.ok(answers.every((answer) => answer.status === 200));
  assert.equal(bed.origin.count("/private/1"), 41, "everyone has an answer of their own");
  assert.equal(await bed.redis.exists("private:1"), 0);
});

test("a dead origin is asked by one of many, and all of them learn it", async () => {
  let askedMs;
  bed.origin.on("/broken/1", (request) => {
    askedMs ??= performance.now();
    request.socket.destroy();
  });
  const answers = await Promise.all(Array.from({ length: 40 }, () => bed.get("/broken/1")));
  assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [502]);
  assert.equal(answers[0].headers["content-type"], "application/problem+json");
  // A failure answers for a second those that come late.
  const seconds = Math.floor((performance.now() - askedMs) / 1000);
  assert.ok(bed.origin.count("/broken/1") <= 2 + seconds, `${bed.origin.count("/broken/1")} asked in ${seconds} s`);
});
