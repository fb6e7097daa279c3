// Packed entries in the built Worker, and the platform's own compression and encryption behind it.

import test from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { Miniflare } from "miniflare";
import { age, list, startBed, until } from "./bed.mjs";

const POLICY = {
  defaults: { limit: [] },
  route: [
    { name: "page", match: "GET /page/{id}", cache: { format: "packed", key: "page:{id}", ttl: "10m", stale: "1h", tags: ["pages"], max_size: "200KB" } },
    { name: "plain", match: "GET /plain", cache: { key: "plain", ttl: "10m", stale: "1h" } },
  ],
};
const HTML = "<p>Một trang sách.</p>\n".repeat(5_000);

let bed;
test.before(async () => {
  bed = await startBed({ policy: POLICY, workers: 2 });
});
test.after(() => bed?.close());

const params = (answer) => list(answer.headers["cache-status"])[0]?.params ?? {};
const get = (path, accept, headers = {}, worker = 1) => bed.get(path, { url: bed.urls[worker], headers: { "accept-encoding": accept, ...headers } });
const hit = (path, accept) => until(`${path} is a hit`, async () => {
  const answer = await get(path, accept);
  return params(answer).hit ? answer : undefined;
});
const page = (id, body, headers = {}) => bed.origin.on(`/page/${id}`, (_, response) => {
  response.writeHead(200, { "content-type": "text/html; charset=utf-8", ...headers });
  response.end(body);
});

test("stored compressed once, passed through to those who take gzip, expanded for the others", async () => {
  page("1", HTML);
  const miss = await get("/page/1", "gzip", {}, 0);
  assert.deepEqual([params(miss).fwd, params(miss).stored, miss.headers["content-encoding"]], ["miss", true, "gzip"]);
  assert.equal(gunzipSync(miss.bytes).toString(), HTML);
  const gzip = await hit("/page/1", "br;q=0.5, gzip");
  const plain = await hit("/page/1", "gzip;q=0, identity");
  assert.deepEqual(gzip.bytes, miss.bytes, "the same bytes, compressed once");
  assert.deepEqual([gzip.headers["content-encoding"], gzip.headers["content-type"]], ["gzip", "text/html; charset=utf-8"]);
  assert.deepEqual([plain.headers["content-encoding"], plain.text], [undefined, HTML]);
  assert.notEqual(gzip.headers.etag, plain.headers.etag);
  for (const answer of [miss, gzip, plain]) assert.equal(answer.headers.vary, "Accept-Encoding");
  assert.ok((await bed.redis.strlen("page:1")) < HTML.length / 10);
  for (const [accept, answer] of [["gzip", gzip], ["identity", plain]]) {
    const same = await get("/page/1", accept, { "if-none-match": answer.headers.etag });
    assert.deepEqual([same.status, same.headers.etag, same.bytes.length], [304, answer.headers.etag, 0]);
    const head = await bed.get("/page/1", { method: "HEAD", headers: { "accept-encoding": accept } });
    assert.deepEqual([head.status, head.bytes.length, head.headers.etag], [200, 0, answer.headers.etag]);
  }
  assert.equal(bed.origin.count("/page/1"), 1);
});

test("what the platform wrote into the request is not what the client takes", async () => {
  page("2", HTML);
  const url = `${bed.urls[0]}/page/2`;
  const ask = (clientAcceptEncoding, accept) => bed.edges[0].mf.dispatchFetch(url, { headers: { "accept-encoding": accept }, cf: { clientAcceptEncoding } });
  assert.equal(await (await ask("", "gzip, br")).text(), HTML);
  await hit("/page/2", "gzip");
  const plain = await ask("br", "gzip, br");
  assert.equal(plain.headers.get("etag").includes("-gzip"), false);
  assert.equal(await plain.text(), HTML);
});

test("bodies of any type, and what an origin compresses all the same", async () => {
  const bytes = Buffer.from(Array.from({ length: 5_000 }, (_, n) => (n * n * 31 + (n >> 3)) % 256));
  page("3", bytes, { "content-type": "image/png" });
  page("4", gzipSync(HTML), { "content-encoding": "gzip" });
  page("5", "");
  for (const [id, body] of [["3", bytes], ["4", Buffer.from(HTML)], ["5", Buffer.alloc(0)]]) {
    for (const answer of [await get(`/page/${id}`, "gzip", {}, 0), await hit(`/page/${id}`, "gzip"), await hit(`/page/${id}`, "identity")]) {
      const isGzip = answer.headers["content-encoding"] === "gzip";
      assert.deepEqual(isGzip ? gunzipSync(answer.bytes) : answer.bytes, body, id);
    }
  }
  page("6", gzipSync(Buffer.alloc(50_000_000)), { "content-encoding": "gzip" });
  const bomb = await bed.get("/page/6", { url: bed.urls[0], headers: { "accept-encoding": "identity" } });
  assert.equal(params(bomb).stored, undefined);
  assert.equal(await bed.redis.exists("page:6"), 0);
});

test("a refresh with the same body writes its record alone, and clients keep their tag", async () => {
  const body = JSON.stringify({ text: "x".repeat(30_000) });
  bed.origin.on("/plain", (_, response) => {
    response.writeHead(200, { "content-type": "application/json" });
    response.end(body);
  });
  const { headers } = await hit("/plain", "identity");
  await age(bed.redis, "plain", 20 * 60_000);
  await bed.redis.pexpire("plain", 600_000);
  await bed.redis.config("RESETSTAT");
  assert.equal(params(await get("/plain", "identity")).detail, "stale");
  await until("its life begins anew", async () => (await bed.redis.pttl("plain")) > 3_600_000);
  const input = /total_net_input_bytes:(\d+)/.exec(await bed.redis.info("stats"))[1];
  assert.ok(Number(input) < 15_000, `${input} bytes were sent to Redis for a body of ${body.length}`);
  const same = await hit("/plain", "identity");
  assert.equal(same.headers.etag, headers.etag);
  assert.equal((await get("/plain", "identity", { "if-none-match": headers.etag })).status, 304);
});

test("the platform's gzip is bounded, and what its cipher seals opens with the right key and name alone", async () => {
  const glue = path.join(import.meta.dirname, "../../src/edge/glue.js");
  const mf = new Miniflare({
    modules: [
      { type: "ESModule", path: "main.mjs", contents: `
        import { gunzip, gzip, seal, unseal } from "./glue.js";
        const failing = (promise) => promise.then((bytes) => bytes ?? null, () => null);
        export default { async fetch(request) {
          const url = new URL(request.url);
          const bytes = new Uint8Array(await request.arrayBuffer());
          const key = (byte) => new Uint8Array(32).fill(byte);
          if (url.pathname === "/gzip") return new Response(await gzip(bytes));
          if (url.pathname === "/gunzip") return Response.json((await failing(gunzip(bytes, Number(url.searchParams.get("most")))))?.length ?? null);
          const sealed = await seal(key(1), "a", bytes);
          const changed = sealed.slice();
          changed[20] ^= 1;
          const tries = [unseal(key(1), "a", sealed), unseal(key(2), "a", sealed), unseal(key(1), "b", sealed), unseal(key(1), "a", changed),
            unseal(key(1), "a", sealed.subarray(0, 20)), unseal(key(1), "a", new Uint8Array())];
          const opened = await Promise.all(tries.map(failing));
          const again = await seal(key(1), "a", bytes);
          return Response.json({ opened: opened.map((bytes) => bytes && new TextDecoder().decode(bytes)), length: sealed.length,
            isNew: again.slice(0, 12).join() !== sealed.slice(0, 12).join() });
        } };` },
      { type: "ESModule", path: "glue.js", contents: readFileSync(glue, "utf8") },
    ],
    cf: false,
    compatibilityDate: "2026-04-01",
  });
  try {
    const send = (target, body) => mf.dispatchFetch(`http://edge${target}`, { method: "POST", body });
    const gzip = Buffer.from(await (await send("/gzip", HTML)).arrayBuffer());
    assert.equal(gunzipSync(gzip).toString(), HTML);
    const length = Buffer.byteLength(HTML);
    const expand = async (bytes, most) => (await send(`/gunzip?most=${most}`, bytes)).json();
    assert.equal(await expand(gzip, length), length);
    assert.equal(await expand(gzip, length - 1), null);
    assert.equal(await expand(gzipSync(""), 10), 0);
    // 800 KB that would be 800 MB: far more than the isolate has.
    const bomb = Buffer.concat([gzipSync(Buffer.alloc(1)), ...Array(8).fill(gzipSync(Buffer.alloc(100_000_000)))]);
    assert.equal(await expand(gzipSync(Buffer.alloc(200_000_000)), 1_048_576), null);
    assert.equal(await expand(bomb, 1_048_576), null);
    for (const broken of [gzip.subarray(0, gzip.length / 2), Buffer.from("no gzip"), Buffer.alloc(0)]) assert.equal(await expand(broken, length), null, `${broken.length} bytes`);
    const { opened, length: sealed, isNew } = await (await send("/seal", "sách")).json();
    assert.deepEqual(opened, ["sách", null, null, null, null, null]);
    assert.deepEqual([sealed, isNew], [12 + 5 + 16, true]);
  } finally {
    await mf.dispose();
  }
});
