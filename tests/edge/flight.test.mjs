// One leader and many followers at a cold key, on real parts.
//
// The trap: in workerd a request that awaits another request's future is killed or hangs
// when the other's client goes away. Ours only poll, and the leader's work is owned by
// wait_until; these tests fail if either is not so.

import test from "node:test";
import assert from "node:assert/strict";
import { age, json, list, resetAfterSending, startBed, until } from "./bed.mjs";

const listing = (name, more = {}) => ({
  name,
  match: `GET /${name}/{id}`,
  limit: [],
  cache: { key: `${name}:{id}`, ttl: "10m", tags: ["all"], ...more },
});
const POLICY = {
  route: [listing("cold"), listing("private"), listing("broken"), listing("short", { ttl: "1s", stale: "10m" })],
};

let bed;
test.before(async () => {
  bed = await startBed({ policy: POLICY, workers: 4 });
});
test.after(() => bed?.close());

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

test("200 clients at a cold key through 4 processes: 1 origin request, 0 errors", async () => {
  const open = gate("/cold/1", (_, response) => json(response, 200, { one: 1 }));
  const asked = Array.from({ length: 200 }, (_, n) => bed.get("/cold/1", { url: bed.urls[n % 4] }));
  await until("the leader is at the origin", () => bed.origin.count("/cold/1") > 0);
  open();
  const answers = await Promise.all(asked);
  assert.equal(bed.origin.count("/cold/1"), 1);
  assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [200]);
  assert.deepEqual([...new Set(answers.map((answer) => answer.text))], ['{"one":1}']);
  const stored = answers.filter((answer) => cacheStatus(answer).stored);
  assert.equal(stored.length, 1);
  assert.equal(answers.filter((answer) => cacheStatus(answer).collapsed || cacheStatus(answer).hit).length, 199);
});

test("the same when the first client resets its connection: 1 origin request, 0 errors", async () => {
  const open = gate("/cold/2", (_, response) => json(response, 200, { two: 2 }));
  const first = await resetAfterSending(bed.urls[0], "/cold/2");
  await until("the leader is at the origin", () => bed.origin.count("/cold/2") > 0);
  const asked = Array.from({ length: 200 }, (_, n) => bed.get("/cold/2", { url: bed.urls[n % 4] }));
  // Followers of the leader's own process must be waiting when its client goes.
  await until("followers have looked", async () => (await bed.redis.keys("fill:*")).length > 0);
  first.reset();
  open();
  const answers = await Promise.all(asked);
  assert.equal(bed.origin.count("/cold/2"), 1);
  assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [200]);
  assert.equal(await bed.redis.get("cold:2"), '{"two":2}', "and the entry is stored");
});

test("after a purge nobody is served by a fill that began before it", async () => {
  let version = 0;
  const opened = [];
  bed.origin.on("/cold/3", (_, response) => {
    const mine = ++version;
    new Promise((resolve) => opened.push(resolve)).then(() => json(response, 200, { version: mine }));
  });
  const before = bed.get("/cold/3");
  await until("the old fill is at the origin", () => opened.length === 1);
  const purged = await bed.get("/-/purge", {
    method: "POST", body: JSON.stringify({ tags: ["all"] }), headers: { authorization: "Bearer test-admin-token" },
  });
  assert.equal(purged.status, 200);
  const after = bed.get("/cold/3", { url: bed.urls[1] });
  await until("a new fill is at the origin", () => opened.length === 2);
  opened[1]();
  assert.deepEqual((await after).json(), { version: 2 });
  opened[0]();
  assert.deepEqual((await before).json(), { version: 1 });
  await until("the old fill has ended", async () => (await bed.redis.keys("fill:*")).length === 0);
  const later = await bed.get("/cold/3", { url: bed.urls[2] });
  assert.notDeepEqual(later.json(), { version: 1 }, "the old answer is never served again");
  for (const open of opened) open();
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
  bed.origin.on("/broken/1", (request) => request.socket.destroy());
  const answers = await Promise.all(Array.from({ length: 40 }, () => bed.get("/broken/1")));
  assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [502]);
  assert.equal(answers[0].headers["content-type"], "application/problem+json");
  assert.ok(bed.origin.count("/broken/1") <= 2, `${bed.origin.count("/broken/1")} asked`);
});

test("a stale entry is served at once by everyone while one of them refreshes", async () => {
  let version = 0;
  bed.origin.on("/short/1", (_, response) => json(response, 200, { version: ++version }));
  assert.deepEqual((await bed.get("/short/1")).json(), { version: 1 });
  await until("the entry is stored", async () => (await bed.redis.exists("meta:short:1")) === 1);
  // Time passes by moving the record, not by waiting.
  await age(bed.redis, "short:1", 5_000);
  const open = gate("/short/1", (_, response) => json(response, 200, { version: ++version }));
  const answers = await Promise.all(Array.from({ length: 60 }, (_, n) => bed.get("/short/1", { url: bed.urls[n % 4] })));
  assert.ok(answers.every((answer) => answer.json().version === 1));
  assert.ok(answers.every((answer) => Number(cacheStatus(answer).ttl) < 0));
  await until("a refresher is at the origin", () => bed.origin.count("/short/1") === 2);
  open();
  await until("the entry is new", async () => (await bed.redis.get("short:1")) === '{"version":2}');
  assert.equal(bed.origin.count("/short/1"), 2, "one refresher in four processes");
});
