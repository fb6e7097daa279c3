// Routes in `http` mode in the built Worker: the origin's headers decide, bytes survive Redis, and two processes share it all.

import test from "node:test";
import assert from "node:assert/strict";
import { gzipSync } from "node:zlib";
import { ADMIN_TOKEN, list, startBed, until } from "./bed.mjs";

const POLICY = {
  defaults: { limit: [] },
  route: [
    { name: "pages", match: "GET /p/{rest...}", cache: { mode: "http", tags: ["pages"], max_size: "64KB" } },
    { name: "write", match: "POST /clear", purge: { tags: ["pages"] } },
  ],
};

let bed;
test.before(async () => {
  bed = await startBed({ policy: POLICY, workers: 2 });
});
test.after(() => bed?.close());

const status = (answer) => list(answer.headers["cache-status"]).at(-1) ?? { params: {} };
const params = (answer) => status(answer).params;
/** Under which key an answer lies: the host is the one that was asked. */
const key = (path, url = bed.url) => `http:pages:${url}${path}`;
const stored = (path, url) => until(`${path} is stored`, async () => (await bed.redis.exists(key(path, url))) === 1);

/** Both processes have their own port, and so their own host: one of them asks in the other's name. */
const from = (worker) => ({ url: bed.urls[worker], headers: { host: new URL(bed.url).host } });

test("any bytes are served again by every process, with their age", async () => {
  const bytes = Buffer.from(Array.from({ length: 1024 }, (_, n) => (n * 7) % 256));
  bed.origin.on("/p/bytes?a=1", (_, response) => {
    response.writeHead(203, { "content-type": "image/png", "cache-control": "max-age=600", connection: "close, x-hop", "x-hop": "1", "x-own": "2" });
    response.end(bytes);
  });
  const miss = await bed.get("/p/bytes?a=1");
  assert.equal(miss.status, 203);
  assert.deepEqual(miss.bytes, bytes);
  assert.deepEqual([params(miss).fwd, params(miss).stored], ["uri-miss", true]);
  await stored("/p/bytes?a=1");
  for (const worker of [0, 1]) {
    const hit = await bed.get("/p/bytes?a=1", from(worker));
    assert.equal(hit.status, 203);
    assert.deepEqual(hit.bytes, bytes);
    assert.deepEqual([params(hit).hit, params(hit).detail], [true, "l2"]);
    assert.match(hit.headers.age, /^\d+$/);
    assert.deepEqual([hit.headers["content-type"], hit.headers["x-own"], hit.headers.date], ["image/png", "2", miss.headers.date]);
  }
  assert.equal(bed.origin.count("/p/bytes?a=1"), 1);
  for (const name of await bed.redis.keys("*")) assert.ok((await bed.redis.pttl(name)) > 0, `${name} expires`);
});

test("the origin gets the visitor's own request, and its answer is not for others unless it says so", async () => {
  bed.origin.on("/p/mine", (request, response) => {
    response.writeHead(200, { "cache-control": "max-age=600" });
    response.end(`${request.headers.authorization ?? "-"} ${request.headers.cookie ?? "-"} ${request.headers["x-forwarded-host"] ?? "-"}`);
  });
  const mine = await bed.get("/p/mine", { headers: { authorization: "Basic eA==", "x-forwarded-host": "evil" } });
  assert.equal(mine.text, "Basic eA== - -");
  assert.equal(params(mine).detail, "credentials");
  assert.equal((await bed.get("/p/mine", { headers: { "x-forwarded-host": "evil" } })).text, "- - -");
  bed.origin.on("/p/session", (_, response) => {
    response.writeHead(200, { "cache-control": "public, max-age=600", "set-cookie": ["a=1", "b=2"] });
    response.end("s");
  });
  for (let n = 1; n <= 2; n++) {
    const session = await bed.get("/p/session");
    assert.deepEqual(session.headers["set-cookie"], ["a=1", "b=2"]);
    assert.equal(bed.origin.count("/p/session"), n);
  }
});

test("a stale answer is validated and renewed", async () => {
  bed.origin.on("/p/etag", (request, response) => {
    const is304 = request.headers["if-none-match"] === '"v1"';
    response.writeHead(is304 ? 304 : 200, { etag: '"v1"', "cache-control": is304 ? "max-age=600" : "no-cache", "x-version": is304 ? "2" : "1" });
    response.end(is304 ? undefined : "page");
  });
  assert.equal((await bed.get("/p/etag")).headers["x-version"], "1");
  await stored("/p/etag");
  const validated = await bed.get("/p/etag");
  assert.deepEqual([validated.status, validated.text, validated.headers["x-version"]], [200, "page", "2"]);
  assert.equal(String(params(validated)["fwd-status"]), "304");
  await until("the renewed answer is a hit", async () => params(await bed.get("/p/etag", from(1))).hit === true);
  const same = await bed.get("/p/etag", { headers: { "if-none-match": '"v1"' } });
  assert.deepEqual([same.status, same.text], [304, ""]);
  const part = await bed.get("/p/etag", { headers: { range: "bytes=1-2" } });
  assert.deepEqual([part.status, part.text, part.headers["content-range"]], [206, "ag", "bytes 1-2/4"]);
  const none = await bed.get("/p/etag", { headers: { range: "bytes=9-" } });
  assert.deepEqual([none.status, none.headers["content-range"]], [416, "bytes */4"]);
  const head = await bed.get("/p/etag", { method: "HEAD" });
  assert.deepEqual([head.status, head.bytes.length], [200, 0]);
});

test("Vary tells answers apart, and an encoding that the platform undid is gone from the stored one", async () => {
  bed.origin.on("/p/vary", (request, response) => {
    response.writeHead(200, { "cache-control": "max-age=600", vary: "Accept-Language, Accept-Encoding", etag: '"v"', "content-encoding": "gzip" });
    response.end(gzipSync(request.headers["accept-language"] ?? "none"));
  });
  const ask = (language) => bed.get("/p/vary", { headers: { "accept-language": language } });
  for (const language of ["vi", "en"]) {
    assert.equal((await ask(language)).text, language);
    await until(`${language} is a hit`, async () => params(await ask(language)).hit === true);
  }
  const hit = await ask("vi");
  assert.deepEqual([hit.text, hit.headers["content-encoding"], hit.headers.etag], ["vi", undefined, 'W/"v"']);
});

test("a write ends what it names, a purge by tag or key all that has it", async () => {
  bed.origin.on("/p/w", (request, response) => {
    response.writeHead(request.method === "GET" ? 200 : 201, request.method === "GET" ? { "cache-control": "max-age=600" } : { location: "/p/v" });
    response.end(request.method);
  });
  bed.origin.on("/p/v", (_, response) => {
    response.writeHead(200, { "cache-control": "max-age=600" });
    response.end("v");
  });
  bed.origin.on("/clear", (_, response) => response.end("ok"));
  const fill = async () => {
    for (const path of ["/p/w", "/p/v"]) {
      await until(`${path} is a hit`, async () => params(await bed.get(path)).hit === true);
    }
  };
  const isHit = async (path) => params(await bed.get(path, from(1))).hit === true;
  const ends = [
    ["a write", () => bed.get("/p/w", { method: "PUT", body: "x" }), true],
    ["a purge of a tag", () => bed.get("/clear", { method: "POST", body: "x" }), true],
    ["a purge of a key", () => bed.get("/-/purge", {
      method: "POST", body: JSON.stringify({ keys: [key("/p/w")] }), headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
    }), false],
  ];
  for (const [what, end, both] of ends) {
    await fill();
    assert.ok((await end()).status < 300, what);
    assert.equal(await isHit("/p/w"), false, what);
    if (both) assert.equal(await isHit("/p/v"), false, what);
  }
});

test("too large is passed on whole and not stored; a request may ask for what is cached alone", async () => {
  const large = Buffer.alloc(100_000, 255);
  bed.origin.on("/p/large", (_, response) => {
    response.writeHead(200, { "cache-control": "max-age=600" });
    response.end(large);
  });
  const answer = await bed.get("/p/large");
  assert.deepEqual(answer.bytes, large);
  assert.equal(params(answer).detail, "too-large");
  assert.equal((await bed.get("/p/never", { headers: { "cache-control": "only-if-cached" } })).status, 504);
});
