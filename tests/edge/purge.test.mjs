// Purges in the built Worker: soft, by prefix, by the origin's own tags and by groups that a write's answer names.

import test from "node:test";
import assert from "node:assert/strict";
import { ADMIN_TOKEN, json, lifetimes, list, startBed, until } from "./bed.mjs";

const POLICY = {
  defaults: { limit: [], timeout: { origin: "10s" } },
  route: [
    { name: "item", match: "GET /item/{id}", cache: { key: "item:{id}", ttl: "10m", stale: "1h", tags: ["items"] } },
    { name: "search", match: "GET /search/{q}", cache: { key: "item:search:{q}", ttl: "10m", stale: "1h" } },
    { name: "page", match: "GET /page/{id}", cache: { mode: "http", stale: "1h" } },
    { name: "write", match: "PATCH /item/{id}", purge: { keys: ["item:{id}"], mode: "soft" } },
  ],
};

let bed;
test.before(async () => {
  bed = await startBed({ policy: POLICY, workers: 2 });
});
test.after(() => bed?.close());

const purge = (body) =>
  bed.get("/-/purge", { method: "POST", body: JSON.stringify(body), headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });

/** What a GET brings, and what is said of the cache. In `http` mode each Worker has keys of its own: its port is in them. */
async function read(path, worker = 0) {
  const answer = await bed.get(path, { url: bed.urls[path.startsWith("/page/") ? 0 : worker] });
  const { params } = list(answer.headers["cache-status"])[0];
  return { version: answer.json().version, isHit: params.hit === true && Number(params.ttl) > 0, isStale: Number(params.ttl) < 0 };
}

/** An origin that says the next version with each read of a path. */
function serve(path, headers = {}) {
  let version = 0;
  bed.origin.on(path, (request, response) =>
    json(response, 200, { version: request.method === "GET" ? ++version : version }, { "cache-control": "max-age=600", ...headers }));
}

const filled = (path, worker) => until(`${path} is stored`, async () => (await read(path, worker)).isHit);

test("what is purged softly is served stale once, and then anew", async () => {
  for (const [path, body] of [
    ["/item/1", { tags: ["items"], mode: "soft" }],
    ["/item/2", { keys: ["item:2"], mode: "soft" }],
    ["/item/3", { prefix: "item:3", mode: "soft" }],
    ["/page/4", { prefix: "http:page:", mode: "soft" }],
  ]) {
    serve(path);
    await filled(path);
    const { version } = await read(path, 1);
    const answer = await purge(body);
    assert.equal(answer.status, 200);
    assert.equal(answer.json().mode, "soft");
    assert.deepEqual(await read(path, 1), { version, isHit: false, isStale: true }, path);
    await until("it is fetched anew", async () => (await read(path, 1)).isHit);
    assert.equal((await read(path)).version, version + 1, `${path}: by one refresher`);
  }
});

test("a write may purge softly", async () => {
  serve("/item/5");
  await filled("/item/5");
  const { version } = await read("/item/5");
  await bed.get("/item/5", { method: "PATCH", body: "{}" });
  assert.deepEqual(await read("/item/5"), { version, isHit: false, isStale: true });
  await until("it is fetched anew", async () => (await read("/item/5")).version === version + 1);
});

test("a prefix purges all keys that begin so, in both modes, and no other", async () => {
  const paths = ["/search/a", "/search/b%20c", "/item/6", "/page/6"];
  for (const path of paths) {
    serve(path);
    await filled(path);
  }
  for (const [prefix, gone] of [["item:search:", [0, 1]], ["item:search:b c", [1]], ["http:page:", [3]], ["item:", [0, 1, 2]], ["x", []]]) {
    const answer = await purge({ prefix });
    assert.deepEqual([answer.status, answer.json()], [200, { purged: { keys: 0, tags: 0, prefixes: 1 }, mode: "hard" }]);
    for (const [n, path] of paths.entries()) {
      assert.equal((await read(path, 1)).isHit, !gone.includes(n), `${prefix} ${path}`);
      await filled(path);
    }
  }
});

test("the origin's own tags purge in both modes", async () => {
  for (const [n, headers] of [{ "cache-tag": "shelf, more" }, { "surrogate-key": "more shelf" }, { "cache-groups": '"shelf", "more"' }].entries()) {
    for (const path of [`/item/1${n}`, `/page/1${n}`]) {
      serve(path, headers);
      await filled(path);
      assert.ok((await read(path, 1)).isHit, "another isolate learns them from the record");
      assert.equal((await purge({ tags: ["shelf"] })).status, 200);
      assert.ok(!(await read(path, 1)).isHit, path);
      await filled(path);
      await bed.redis.set("gen:more", `a-backends-uuid-${path}`, "EX", 172800);
      assert.ok(!(await read(path)).isHit, path);
    }
  }
});

test("the groups that a write's answer names are purged before it is answered", async () => {
  for (const path of ["/item/20", "/page/20"]) {
    serve(path, { "cache-groups": '"group"' });
    await filled(path);
    bed.origin.on("/elsewhere", (_, response) => json(response, 201, {}, { "cache-group-invalidation": '"other", "group"' }));
    await bed.get("/elsewhere", { method: "POST", body: "{}" });
    assert.ok(!(await read(path, 1)).isHit, path);
    await filled(path);
    bed.origin.on("/elsewhere", (_, response) => json(response, 400, {}, { "cache-group-invalidation": '"group"' }));
    await bed.get("/elsewhere", { method: "POST", body: "{}" });
    assert.ok((await read(path, 1)).isHit, "a write that failed ends nothing");
  }
});

test("a purge that is not understood is a problem that says why", async () => {
  for (const [body, word] of [
    [{ prefix: 1 }, "prefix"],
    [{ prefix: "a\nb" }, "prefix"],
    [{ prefix: "x".repeat(1025) }, "prefix"],
    [{ mode: "softly" }, "mode"],
    [{ tags: "x" }, "tags"],
    [{ more: [] }, "known members"],
  ]) {
    const answer = await purge(body);
    assert.deepEqual([answer.status, answer.headers["content-type"]], [400, "application/problem+json"]);
    assert.ok(answer.json().detail.includes(word), answer.text);
  }
  assert.ok((await lifetimes(bed.redis)).length > 0);
});
