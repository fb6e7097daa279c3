// The cache in the built Worker: entries that backends share, freshness, what is never stored.

import test from "node:test";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { ADMIN_TOKEN, age, json, lifetimes, list, startBed, until } from "./bed.mjs";

const POLICY = {
  // One of these waits for it; for the others a machine that holds the origin up must be no timeout.
  defaults: { timeout: { origin: "10s" } },
  route: [
    { name: "item", match: "GET /item/{id}", limit: [],
      cache: { key: "item:{id}", ttl: "10m", stale: "1h", tags: ["items", "item:{id}"], negative: "5m", max_size: "64KB" } },
    { name: "search", match: "GET /search", limit: [],
      cache: { key: "search:{hash}", query: ["category", "sort_by", "limit"], ttl: "10m" } },
    { name: "paged", match: "GET /paged/{slug}", limit: [],
      cache: { key: "paged:{slug}:{sort}:{page}", query: { sort: "views", page: "1" }, ttl: "10m" } },
    { name: "own", match: "GET /own", limit: [], cache: { key: "own", ttl: "10m", credentials: "forward" } },
    { name: "write", match: "PUT|DELETE /item/{id}", limit: [],
      purge: { keys: ["item:{id}"], tags: ["category:{response:/category}"], else: ["items"] } },
    { name: "by-body", match: "POST /items", limit: [], purge: { tags: ["item:{body:/id}"], else: ["items"] } },
    { name: "category", match: "GET /category/{id}", limit: [], cache: { key: "category:{id}", ttl: "10m", tags: ["category:{id}"] } },
  ],
};

let bed;
test.before(async () => {
  bed = await startBed({ policy: POLICY });
});
test.after(() => bed?.close());

const status = (answer) => list(answer.headers["cache-status"])[0] ?? { params: {} };
const stored = (key) => until(`${key} is stored`, async () => (await bed.redis.exists(`meta:${key}`)) === 1);
/** What is left of a lifetime that began after `begunMs`, in whole seconds: `[least, most]`. */
const left = (seconds, begunMs) => [seconds - Math.ceil((Date.now() - begunMs) / 1000) - 1, seconds];
const purge = (body, token = ADMIN_TOKEN) =>
  bed.get("/-/purge", { method: "POST", body: JSON.stringify(body), headers: { authorization: `Bearer ${token}` } });

test("a miss is stored as the origin's own JSON, and the next one is a hit", async () => {
  bed.origin.on("/item/1", (_, response) => json(response, 200, { id: 1, title: "Một" }, { "x-kept": "yes", date: "Thu, 01 Jan 1970 00:00:00 GMT" }));
  const begunMs = Date.now();
  const miss = await bed.get("/item/1?utm=1");
  assert.equal(miss.status, 200);
  assert.equal(miss.headers["cache-status"], "edgeweir; fwd=miss; stored");
  assert.equal(miss.headers.age, undefined);
  assert.match(miss.headers["server-timing"], /redis;dur=\d+, origin;dur=\d+/);
  assert.equal(bed.origin.requests.at(-1).url, "/item/1", "unlisted parameters do not reach the origin");
  await stored("item:1");
  assert.equal(await bed.redis.get("item:1"), '{"id":1,"title":"Một"}');
  assert.ok((await bed.redis.pttl("item:1")) <= 70 * 60_000);
  const hit = await bed.get("/item/1");
  const { name, params } = status(hit);
  assert.equal(name, "edgeweir");
  assert.deepEqual([params.hit, params.detail], [true, "l2"]);
  const [least, most] = left(600, begunMs);
  assert.ok(Number(params.ttl) >= least && Number(params.ttl) <= most, `ttl ${params.ttl}`);
  assert.equal(hit.text, miss.text);
  assert.equal(hit.headers["content-type"], "application/json");
  assert.equal(hit.headers["x-kept"], "yes");
  assert.match(hit.headers.age, /^\d+$/);
  assert.equal(hit.headers.etag, miss.headers.etag);
  assert.equal(bed.origin.count("/item/1"), 1);
  assert.ok((await lifetimes(bed.redis)).length >= 2);
});

test("ETag, 304 and HEAD come from the cached GET", async () => {
  bed.origin.on("/item/2", (_, response) => json(response, 200, { id: 2 }));
  const first = await bed.get("/item/2");
  await stored("item:2");
  for (const field of [first.headers.etag, `"other", W/${first.headers.etag}`, "*"]) {
    const same = await bed.get("/item/2", { headers: { "if-none-match": field } });
    assert.equal(same.status, 304, field);
    assert.equal(same.text, "");
    assert.equal(same.headers.etag, first.headers.etag);
  }
  assert.equal((await bed.get("/item/2", { headers: { "if-none-match": '"other"' } })).status, 200);
  const head = await bed.get("/item/2", { method: "HEAD" });
  assert.equal(head.status, 200);
  assert.equal(head.bytes.length, 0);
  assert.equal(head.headers["content-type"], "application/json");
  assert.equal(status(head).params.hit, true);
  assert.equal(bed.origin.count("/item/2"), 1);
});

test("an entry of another service is served for its remaining time, and then it is a miss", async () => {
  const begunMs = Date.now();
  await bed.redis.set("item:3", '{"from":"python"}', "EX", 900);
  for (let n = 0; n < 2; n++) {
    const hit = await bed.get("/item/3");
    assert.equal(hit.text, '{"from":"python"}');
    assert.equal(status(hit).params.hit, true);
    const ttl = Number(status(hit).params.ttl);
    const [least, most] = left(900, begunMs);
    assert.ok(ttl >= least && ttl <= most, `ttl ${ttl}`);
    assert.equal(hit.headers["content-type"], "application/json");
  }
  await bed.redis.set("item:3", '{"from":"python again"}', "EX", 900);
  assert.equal((await bed.get("/item/3")).text, '{"from":"python again"}', "a new value is noticed");
  await bed.redis.del("item:3");
  assert.equal(bed.origin.count("/item/3"), 0);
  bed.origin.on("/item/3", (_, response) => json(response, 200, { from: "origin" }));
  assert.equal((await bed.get("/item/3")).text, '{"from":"origin"}', "DEL purges it");
  await stored("item:3");
  await bed.redis.set("item:3", "not json at all", "EX", 900);
  assert.equal((await bed.get("/item/3")).text, '{"from":"origin"}', "what is no JSON is not served");
});

test("purging by tag, by key and by a backend's own SET holds when it is answered", async () => {
  let version = 0;
  bed.origin.on("/item/4", (_, response) => json(response, 200, { version: ++version }));
  const read = async () => (await bed.get("/item/4")).json().version;
  assert.equal(await read(), 1);
  await stored("item:4");
  assert.equal(await read(), 1);
  assert.equal((await purge({ tags: ["items"] })).status, 200);
  assert.equal(await read(), 2);
  await until("stored again", async () => (await bed.redis.get("item:4")) === '{"version":2}');
  assert.equal((await purge({ keys: ["item:4"] })).status, 200);
  assert.equal(await read(), 3);
  await until("stored again", async () => (await bed.redis.get("item:4")) === '{"version":3}');
  await bed.redis.set("gen:item:4", "5b0f1d4e-a-backends-uuid", "EX", 172800);
  assert.equal(await read(), 4);
  await until("stored again", async () => (await bed.redis.get("item:4")) === '{"version":4}');
  await bed.redis.del("gen:item:4");
  assert.equal(await read(), 5, "a generation that was evicted matches nothing");
});

test("purging needs the admin token and says what is wrong", async () => {
  assert.equal((await purge({ tags: ["x"] }, "wrong")).status, 401);
  assert.equal((await purge({ tags: "x" })).status, 400);
  assert.equal((await purge({ nonsense: [] })).status, 400);
  assert.equal((await bed.get("/-/purge", { headers: { authorization: `Bearer ${ADMIN_TOKEN}` } })).status, 405);
  const raw = await bed.get("/-/purge", { method: "POST", body: "{", headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });
  assert.equal(raw.status, 400);
  assert.equal(raw.headers["content-type"], "application/problem+json");
  assert.equal((await bed.get("/-/nothing")).status, 404);
  assert.equal(bed.origin.count("/-/"), 0, "what is under /-/ never reaches the origin");
});

test("writes purge by path, body and response, or what `else` says, before they are answered", async () => {
  let version = 0;
  bed.origin.on("/category/art", (_, response) => json(response, 200, { version: ++version }));
  bed.origin.on("/item/5", (request, response) => {
    if (request.method === "PUT") json(response, 200, { ok: true, category: "art" });
    else if (request.method === "DELETE") json(response, 200, { ok: true });
    else json(response, 200, { version: ++version });
  });
  const read = async (path) => (await bed.get(path)).json().version;
  await read("/category/art");
  await read("/item/5");
  await stored("category:art");
  await stored("item:5");
  const put = await bed.get("/item/5", { method: "PUT", body: "{}", headers: { "content-type": "application/json" } });
  assert.deepEqual(put.json(), { ok: true, category: "art" });
  assert.equal(await read("/category/art"), 3);
  assert.equal(await read("/item/5"), 4);
  await until("stored", async () => (await bed.redis.get("item:5")) === '{"version":4}');
  await bed.get("/item/5", { method: "DELETE" });
  assert.equal(await read("/item/5"), 5, "without the value the tags of `else` are purged");
  await until("stored", async () => (await bed.redis.get("item:5")) === '{"version":5}');
  bed.origin.on("/items", (_, response, seen) => json(response, 201, { echo: seen.body }));
  const post = await bed.get("/items", { method: "POST", body: '{"id":5}', headers: { "content-type": "application/json" } });
  assert.deepEqual(post.json(), { echo: '{"id":5}' }, "the body still reaches the origin");
  assert.equal(await read("/item/5"), 6);
  await until("stored", async () => (await bed.redis.get("item:5")) === '{"version":6}');
  bed.origin.on("/items", (_, response) => json(response, 422, {}));
  await bed.get("/items", { method: "POST", body: '{"id":5}' });
  assert.equal(await read("/item/5"), 6, "a write that failed purges nothing");
});

test("what may never be stored is not, and reaches the visitor untouched", async () => {
  const cases = {
    cookie: [200, '{"a":1}', { "set-cookie": ["s=1; Path=/", "t=2"] }],
    private: [200, '{"a":1}', { "cache-control": "max-age=60, Private" }],
    "no-store": [200, '{"a":1}', { "cache-control": "no-store" }],
    vary: [200, '{"a":1}', { vary: "Accept-Encoding, Cookie" }],
    star: [200, '{"a":1}', { vary: "*" }],
    html: [200, "<p>no JSON</p>", { "content-type": "text/html" }],
    partial: [206, '{"a":1}', { "content-range": "bytes 0-6/7" }],
    redirect: [302, "", { location: "/elsewhere" }],
    error: [500, '{"error":1}', {}],
    teapot: [418, '{"error":1}', {}],
    empty: [204, "", {}],
    large: [200, JSON.stringify("x".repeat(70_000)), {}],
  };
  for (const [name, [code, body, headers]] of Object.entries(cases)) {
    for (const chunked of [false, true]) {
      const id = `${name}-${chunked}`;
      bed.origin.on(`/item/${id}`, (_, response) => {
        response.writeHead(code, { "content-type": "application/json", ...headers, ...(chunked || code === 204 ? {} : { "content-length": Buffer.byteLength(body) }) });
        response.end(body);
      });
      for (let n = 0; n < 2; n++) {
        const answer = await bed.get(`/item/${id}`);
        assert.equal(answer.status, code, id);
        assert.equal(answer.text, body, id);
        assert.equal(status(answer).params.stored, undefined, id);
        if (headers["set-cookie"]) assert.deepEqual(answer.headers["set-cookie"], headers["set-cookie"]);
        if (headers.location) assert.equal(answer.headers.location, headers.location);
      }
      assert.equal(bed.origin.count(`/item/${id}`), 2, id);
      assert.equal(await bed.redis.exists(`item:${id}`), 0, id);
    }
  }
});

test("HEAD of a listing that may not be stored has no body", async () => {
  bed.origin.on("/item/head", (_, response) => json(response, 200, { a: 1 }, { "cache-control": "no-store" }));
  const head = await bed.get("/item/head", { method: "HEAD" });
  assert.deepEqual([head.status, head.bytes.length], [200, 0]);
  assert.equal((await bed.get("/item/head")).text, '{"a":1}', "the connection is still in step");
});

test("a compressed answer is stored as plain JSON", async () => {
  bed.origin.on("/item/gzip", (_, response) => {
    const body = gzipSync('{"packed":true}');
    response.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip", "content-length": body.length });
    response.end(body);
  });
  const miss = await bed.get("/item/gzip");
  assert.equal(miss.text, '{"packed":true}');
  assert.equal(miss.headers["content-encoding"], undefined);
  await stored("item:gzip");
  assert.equal(await bed.redis.get("item:gzip"), '{"packed":true}');
});

test("404 and 410 are kept for the negative time, apart from the shared key", async () => {
  bed.origin.on("/item/gone", (_, response) => json(response, 404, { detail: "no" }));
  assert.equal((await bed.get("/item/gone")).status, 404);
  await stored("item:gone");
  assert.equal(await bed.redis.exists("item:gone"), 0, "a backend never reads an error as data");
  const hit = await bed.get("/item/gone");
  assert.deepEqual([hit.status, hit.text, status(hit).params.hit], [404, '{"detail":"no"}', true]);
  assert.equal(bed.origin.count("/item/gone"), 1);
  await bed.redis.set("item:gone", '{"now":"here"}', "EX", 900);
  assert.equal((await bed.get("/item/gone")).text, '{"now":"here"}');
});

test("a fill carries nothing of the visitor, and its answer serves those with cookies and tokens", async () => {
  bed.origin.on("/item/6", (_, response) => json(response, 200, { id: 6 }));
  const visitor = { cookie: "session=secret", authorization: "Bearer whoever", range: "bytes=0-1", "x-forwarded-for": "10.0.0.1", "accept-language": "vi" };
  const miss = await bed.get("/item/6", { headers: visitor });
  assert.equal(miss.status, 200);
  const { headers } = bed.origin.requests.at(-1);
  for (const name of ["cookie", "authorization", "range", "x-forwarded-for"]) assert.equal(headers[name], undefined, name);
  assert.doesNotMatch(JSON.stringify(headers), /secret|whoever|10\.0\.0\.1/);
  await stored("item:6");
  assert.equal(status(await bed.get("/item/6", { headers: visitor })).params.hit, true);
});

test("`credentials = forward` sends them, and stores nothing that had any", async () => {
  bed.origin.on("/own", (request, response) => json(response, 200, { cookie: request.headers.cookie ?? null }));
  const mine = await bed.get("/own", { headers: { cookie: "me=1" } });
  assert.deepEqual(mine.json(), { cookie: "me=1" });
  assert.equal(status(mine).params.fwd, "bypass");
  assert.equal(await bed.redis.exists("own"), 0);
  assert.deepEqual((await bed.get("/own")).json(), { cookie: null });
  await stored("own");
  assert.deepEqual((await bed.get("/own", { headers: { cookie: "me=1" } })).json(), { cookie: "me=1" });
});

test("search keys are plan 2's, whatever the order, and defaults are filled in", async () => {
  await bed.get("/search?limit=20&sort_by=views&utm=x&category=business");
  const [found] = await until("stored", async () => {
    const keys = await bed.redis.keys("search:*");
    return keys.length ? keys : undefined;
  });
  assert.equal(found, `search:${createHash("md5").update("category=business&sort_by=views&limit=20").digest("hex")}`);
  assert.equal(bed.origin.requests.at(-1).url, "/search?category=business&sort_by=views&limit=20");
  assert.equal(status(await bed.get("/search?category=business&sort_by=views&limit=20")).params.hit, true);
  await bed.get("/paged/a%3ab?page=2");
  await stored("paged:a%3Ab:views:2");
  assert.equal(bed.origin.requests.at(-1).url, "/paged/a:b?sort=views&page=2");
});

test("a stale entry outlives an origin that fails, and without one it is 502 or 504", async () => {
  bed.origin.on("/item/7", (_, response) => json(response, 200, { id: 7 }));
  await bed.get("/item/7");
  await stored("item:7");
  await age(bed.redis, "item:7", 20 * 60_000);
  bed.origin.on("/item/7", (request) => request.socket.destroy());
  for (let n = 0; n < 3; n++) {
    const stale = await bed.get("/item/7");
    assert.deepEqual([stale.status, stale.text], [200, '{"id":7}']);
    assert.ok(Number(status(stale).params.ttl) <= -600);
  }
  await age(bed.redis, "item:7", 60 * 60_000);
  const failed = await until("too old", async () => {
    const answer = await bed.get("/item/7");
    return answer.status === 502 ? answer : undefined;
  });
  assert.equal(failed.headers["content-type"], "application/problem+json");
  assert.equal(failed.headers["cache-status"], undefined);
  bed.origin.on("/item/hung", () => {});
  const hung = await bed.get("/item/hung");
  assert.equal(hung.status, 504);
});

test("health is open, says what Redis does, and is not limited", async () => {
  const health = await bed.get("/-/health");
  assert.equal(health.status, 200);
  assert.deepEqual(health.json(), { status: "ok", redis: "ok" });
  assert.equal(health.headers.ratelimit, undefined);
});

test("Cache-Status is appended to what came from further up", async () => {
  bed.origin.on("/item/8", (_, response) => json(response, 200, { id: 8 }, { "cache-status": "upstream; hit", "server-timing": "db;dur=5" }));
  const miss = await bed.get("/item/8");
  assert.deepEqual(list(miss.headers["cache-status"]).map((cache) => cache.name), ["upstream", "edgeweir"]);
  assert.match(miss.headers["server-timing"], /db;dur=5/);
  await stored("item:8");
  const hit = await bed.get("/item/8");
  assert.doesNotMatch(hit.headers["server-timing"] ?? "", /db/, "another answer's timing is not replayed");
});
