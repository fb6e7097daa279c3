// The cron trigger of the built Worker: what a run does, and that of two runs at once one does it.

import test from "node:test";
import assert from "node:assert/strict";
import { lifetimes, startBed } from "./bed.mjs";

const POLICY = { defaults: { limit: [] } };

let bed;
test.before(async () => (bed = await startBed({ policy: POLICY, workers: 2 })));
test.after(() => bed?.close());

test("a run takes the lock and lets go of it before it says that it is done", async () => {
  await bed.redis.config("RESETSTAT");
  const { outcome } = await bed.edges[0].scheduled();
  assert.equal(outcome, "ok");
  const { set, get, del } = await bed.commandstats();
  assert.deepEqual({ set, get, del }, { set: 1, get: 1, del: 1 });
  assert.equal(await bed.redis.exists("metrics:cron"), 0);
});

test("a run that finds the lock taken does nothing", async () => {
  await bed.redis.set("metrics:cron", "another's", "PX", 240_000);
  await bed.redis.config("RESETSTAT");
  await Promise.all(bed.edges.map((edge) => edge.scheduled()));
  const { set, get } = await bed.commandstats();
  assert.deepEqual({ set, get }, { set: 2, get: undefined });
  assert.equal(await bed.redis.get("metrics:cron"), "another's");
  await lifetimes(bed.redis);
  await bed.redis.del("metrics:cron");
});
