// L1 in the built Worker: two processes on one Redis, each with its own entries.

import test from "node:test";
import assert from "node:assert/strict";
import { ADMIN_TOKEN, json, list, startBed, until, WINDOW } from "./bed.mjs";

const leased = [{ name: "leased", requests: 1_000_000, window: WINDOW.text, by: "global", lease: true }];
const plain = [{ name: "plain", requests: 1_000_000, window: WINDOW.text, by: "global" }];
const cache = (name, more) => ({ key: `${name}:{id}`, ttl: "10m", tags: ["items", `${name}:{id}`], ...more });
const POLICY = {
  defaults: { limit: [] },
  route: [
    // As long as an entry can be an isolate's own: no test depends on how long it takes.
    { name: "hot", match: "GET /hot/{id}", limit: leased, cache: cache("hot", { l1: "60s" }) },
    { name: "brief", match: "GET /brief/{id}", limit: leased, cache: cache("brief", { l1: "500ms" }) },
    { name: "long", match: "GET /long/{id}", limit: plain, cache: cache("long", { max_size: "64KB" }) },
    { name: "page", match: "GET /page", limit: leased, compose: { all: { route: "hot", each: { id: ["a", "b"] } } } },
    { name: "write", match: "PUT /hot/{id}", purge: { keys: ["hot:{id}"] } },
  ],
};

let bed;
let version = 0;
test.before(async () => {
  bed = await startBed({ policy: POLICY, workers: 2 });
  const body = (padding) => (_, response) => json(response, 200, { version: ++version, padding });
  for (const prefix of ["/hot/", "/brief/"]) bed.origin.on(prefix, body(""));
  bed.origin.on("/long/", body("x".repeat(40_000)));
});
test.after(() => bed?.close());

const on = (worker) => ({ ip: "198.51.100.1", url: bed.urls[worker] });
const detail = (answer) => list(answer.headers["cache-status"])[0]?.params.detail;
const purge = (worker, body) =>
  bed.get("/-/purge", { ...on(worker), method: "POST", body: JSON.stringify(body), headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });
/** The first answer that comes from this process itself. */
const own = (path, worker = 0) => until(`${path} is the process' own`, async () => {
  const answer = await bed.get(path, on(worker));
  return detail(answer) === "l1" ? answer : undefined;
});

test("a hot hit on a leased route costs no command, and says what any hit says", async () => {
  const first = await own("/hot/1");
  // A lease may end in between, and every now and then what operators say is read.
  const streak = await until("twenty hits in a row without a command", async () => {
    await bed.redis.config("RESETSTAT");
    const answers = [];
    for (let n = 0; n < 20; n++) answers.push(await bed.get("/hot/1", on(0)));
    const { mget = 0, bitfield = 0, multi = 0 } = await bed.commandstats();
    return mget + bitfield + multi === 0 ? answers : undefined;
  });
  for (const hit of streak) {
    assert.deepEqual([hit.status, hit.text, detail(hit)], [200, first.text, "l1"]);
    assert.equal(hit.headers.etag, first.headers.etag);
    assert.match(hit.headers.age, /^\d+$/);
    assert.ok(Number(list(hit.headers["cache-status"])[0].params.ttl) > 0);
    assert.equal(list(hit.headers.ratelimit)[0].name, "leased");
    assert.equal(hit.headers["server-timing"], undefined, "nobody was asked");
  }
  const same = await bed.get("/hot/1", { ...on(0), headers: { "if-none-match": first.headers.etag } });
  assert.equal(same.status, 304);
  const head = await bed.get("/hot/1", { ...on(0), method: "HEAD" });
  assert.deepEqual([head.status, head.bytes.length], [200, 0]);
  assert.equal(bed.origin.count("/hot/1"), 1);
});

test("a purge through the same process holds when it is answered, by key, by tag and by a write", async () => {
  for (const clear of [
    () => purge(0, { keys: ["hot:2"] }),
    () => purge(0, { tags: ["items"] }),
    () => bed.get("/hot/2", { ...on(0), method: "PUT", body: "{}" }),
  ]) {
    const before = (await own("/hot/2")).json().version;
    assert.equal((await clear()).status, 200);
    assert.ok((await bed.get("/hot/2", on(0))).json().version > before);
  }
});

test("a purge through another process, or by a backend, is seen once `l1` is over", async () => {
  for (const clear of [
    () => purge(1, { tags: ["brief:1"] }),
    () => bed.redis.set("gen:brief:1", `a-backends-uuid-${version}`, "EX", 172_800),
    () => bed.redis.del("brief:1"),
  ]) {
    const before = (await own("/brief/1")).json().version;
    await clear();
    await until("the purge is seen", async () => (await bed.get("/brief/1", on(0))).json().version > before);
  }
});

test("a long body does not move when the limits make a trip, and every change is noticed at once", async () => {
  await own("/long/1");
  // What was left to be done after the answers before may come in between.
  let asked;
  await until(() => `one command of each: ${asked}`, async () => {
    await bed.redis.config("RESETSTAT");
    const hit = await bed.get("/long/1", on(0));
    assert.equal(detail(hit), "l1");
    const { mget, pexpiretime, bitfield } = await bed.commandstats();
    asked = [mget, pexpiretime, bitfield];
    return asked.every((calls) => calls === 1);
  });
  const changes = [
    () => bed.redis.set("gen:items", "a-backends-uuid", "EX", 172_800),
    () => bed.redis.del("long:1"),
    () => purge(1, { keys: ["long:1"] }),
  ];
  for (const change of changes) {
    const before = (await own("/long/1")).json().version;
    await change();
    assert.ok((await bed.get("/long/1", on(0))).json().version > before, `${change}`);
  }
  await own("/long/1");
  await bed.redis.set("long:1", '{"version":-1}', "EX", 600);
  assert.equal((await bed.get("/long/1", on(0))).json().version, -1, "a backend's own value");
});

test("a page is made of the process' own entries", async () => {
  const first = await own("/page");
  const page = first.json();
  assert.deepEqual(Object.keys(page.all), ["a", "b"]);
  await purge(0, { keys: ["hot:a"] });
  const next = (await bed.get("/page", on(0))).json();
  assert.ok(next.all.a.version > page.all.a.version);
  assert.equal(next.all.b.version, page.all.b.version);
});
