// The cron trigger of the built Worker, and the operator's POST /-/warm: what they fetch, and that of two runs at once one
// does it.

import test from "node:test";
import assert from "node:assert/strict";
import { ADMIN_TOKEN, age, json, lifetimes, list, startBed } from "./bed.mjs";

const warm = (values) => ({ every: "10m", values });
const POLICY = {
  defaults: { limit: [], timeout: { redis: "10s", origin: "5m" } },
  route: [
    { name: "item", match: "GET /item/{id}", cache: { key: "item:{id}", ttl: "15m", tags: ["items"], warm: warm({ id: ["a", "b", "c d"] }) } },
    { name: "search", match: "GET /search", cache: { key: "search:{hash}", ttl: "15m", query: ["q"], warm: { every: "10m", top: 2 } } },
    { name: "cold", match: "GET /cold/{id}", cache: { key: "cold:{id}", ttl: "15m" } },
  ],
};

let bed;
test.before(async () => (bed = await startBed({ policy: POLICY, workers: 2 })));
test.after(() => bed?.close());

const run = async (worker = 0) => assert.equal((await bed.edges[worker].scheduled()).outcome, "ok");
const post = async (body) => {
  const answer = await bed.get("/-/warm", { method: "POST", body: JSON.stringify(body), headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });
  return [answer.status, answer.status === 200 ? answer.json() : undefined];
};

test("a run fetches what is to be kept warm, and nobody waits for it", async () => {
  bed.origin.on("/item/", (request, response) => json(response, 200, { path: request.url }));
  await run();
  assert.deepEqual(bed.origin.requests.map(({ url }) => url).sort(), ["/item/a", "/item/b", "/item/c%20d"]);
  assert.equal(await bed.redis.get("item:a"), '{"path":"/item/a"}');
  const hit = await bed.get("/item/c%20d", { url: bed.urls[1] });
  assert.equal(list(hit.headers["cache-status"])[0].params.hit, true);
  assert.equal(await bed.redis.exists("metrics:cron"), 0, "the lock is let go of");
  await lifetimes(bed.redis);
});

test("the next one fetches what is due by then, and in no case twice", async () => {
  await run();
  assert.equal(bed.origin.requests.length, 3, "nothing is due");
  // Time passes by moving the record, not by waiting.
  await age(bed.redis, "item:a", 11 * 60_000);
  await bed.redis.del("item:b");
  await Promise.all([run(0), run(1)]);
  assert.deepEqual(["a", "b", "c"].map((id) => bed.origin.count(`/item/${id}`)), [2, 2, 1]);
});

test("a run that finds the lock taken does nothing", async () => {
  await bed.redis.set("metrics:cron", "another's", "PX", 240_000);
  await bed.redis.del("item:a");
  await bed.redis.config("RESETSTAT");
  await Promise.all([run(0), run(1)]);
  const { set, get } = await bed.commandstats();
  assert.deepEqual({ set, get }, { set: 2, get: undefined });
  assert.equal(await bed.redis.get("metrics:cron"), "another's");
  assert.equal(await bed.redis.exists("item:a"), 0);
  await bed.redis.del("metrics:cron");
});

test("what was asked most in the last hour is kept warm", async () => {
  const slot = Math.floor(Date.now() / 900_000);
  // The slot before too, for a machine that is held up between two of them.
  for (const key of [slot, slot - 1].map((at) => `metrics:top:search:${at}`)) {
    await bed.redis.zadd(key, 3, "/search?q=a%20b", 2, "/search?q=b", 1, "/search?q=c", 9, "/elsewhere");
    await bed.redis.expire(key, 3600);
  }
  bed.origin.on("/search", (_, response) => json(response, 200, []));
  await run();
  const asked = bed.origin.requests.map(({ url }) => url).filter((url) => url.startsWith("/search")).sort();
  assert.deepEqual(asked, ["/search?q=a%20b", "/search?q=b"]);
});

test("an operator warms some routes, or all, now", async () => {
  assert.deepEqual(await post({ routes: ["item"] }), [200, { warmed: 3, failed: 0, left: 0 }]);
  assert.deepEqual(await post({}), [200, { warmed: 5, failed: 0, left: 0 }]);
  assert.deepEqual(await post({ routes: ["none"] }), [400, undefined]);
  assert.deepEqual(await post({ routes: ["cold"] }), [400, undefined]);
  bed.origin.on("/item/", (request) => request.socket.destroy());
  const [status, done] = await post({ routes: ["item"] });
  assert.deepEqual([status, done.warmed], [200, 0]);
  assert.equal(done.failed, 3);
  assert.equal((await bed.get("/-/warm", { method: "POST", body: "{}" })).status, 401);
});
