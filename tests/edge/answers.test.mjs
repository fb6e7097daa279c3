// Answers of the origin that cannot be read to their end before they are passed on, and requests
// that are not what they seem: streams, late bodies, foreign encodings, early hints, h2c.

import test from "node:test";
import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { once } from "node:events";
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import { json, list, startBed, textOf, until } from "./bed.mjs";

const ORIGIN_MS = 5_000;
const DEADLINE = { timeout: 600_000 };
const policy = (origin) => ({
  defaults: { limit: [], timeout: { origin } },
  route: [
    { name: "item", match: "GET /item/{id}", cache: { key: "item:{id}", ttl: "10m", tags: ["all"] } },
    { name: "paged", match: "GET /paged", cache: { key: "paged:{page}", query: { page: "1" }, ttl: "10m" } },
    { name: "write", match: "POST /item/{id}", purge: { tags: ["item:{response:/id}"], else: ["all"] } },
    { name: "upload", match: "POST /upload", purge: { tags: ["item:{body:/id}"], else: ["all"] } },
  ],
});

/** Its origin has so long to answer that a machine which holds it up is no timeout. */
let bed;
/** Its origin has so long that an answer which is read first never gets here. */
let patient;
test.before(async () => {
  bed = await startBed({ policy: policy(`${ORIGIN_MS}ms`) });
  patient = await startBed({ policy: policy("5m") });
});
test.after(async () => {
  await bed?.close();
  await patient?.close();
});

const status = (answer) => list(answer.headers["cache-status"])[0]?.params ?? {};
const isStored = async (at, id) => (await at.redis.exists(`item:${id}`, `meta:item:${id}`)) > 0;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** An answer as soon as its head is there; its body is read by whoever asked. */
async function open(at, path, method = "GET") {
  const { hostname, port } = new URL(at.url);
  const headers = method === "GET" ? {} : { "content-length": 2 };
  const request = http.request({ hostname, port, path, method, headers, agent: false });
  request.end(method === "GET" ? undefined : "{}");
  const [response] = await once(request, "response");
  return response;
}

/** The origin answers with a stream, to write to from the test. */
function stream(at, method, path) {
  return new Promise((resolve) => {
    at.origin.on(path, (request, response) => {
      if (request.method !== method) return json(response, 200, { at: "rest" });
      response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8", "cache-control": "max-age=60" });
      response.flushHeaders();
      resolve(response);
    });
  });
}

/** A version of a listing that is in the cache; it says how to make the next one. */
async function warm(at, id) {
  let version = 1;
  at.origin.on(`/item/${id}`, (_, response) => json(response, 200, { version }));
  await at.get(`/item/${id}`);
  await until("it is a hit", async () => status(await at.get(`/item/${id}`)).hit);
  return { next: () => ++version, read: async () => (await at.get(`/item/${id}`)).json().version };
}

async function eventByEvent(response, source, pauseMs) {
  assert.equal(response.statusCode, 200);
  assert.match(response.headers["content-type"], /^text\/event-stream/);
  const body = textOf(response);
  for (const event of ["data: 1\n\n", "data: 2\n\n"]) {
    await pause(pauseMs);
    source.write(event);
    // The origin sends no more before this one is here.
    assert.equal(await body.take(event.length), event);
  }
  source.end();
  assert.equal(await body.take(1), "");
}

for (const [name, at, pauseMs] of [["event by event", () => patient, 0], ["beyond the origin's timeout", () => bed, ORIGIN_MS * 0.75]]) {
  test(`an event stream of a cached route reaches the visitor ${name}, and is not stored`, DEADLINE, async () => {
    const begun = stream(at(), "GET", "/item/stream");
    const response = await open(at(), "/item/stream");
    await eventByEvent(response, await begun, pauseMs);
    assert.deepEqual([status(response).fwd, status(response).detail, status(response).stored], ["miss", "not-json", undefined]);
    assert.equal(await isStored(at(), "stream"), false);
  });

  test(`the event stream that a write answers with reaches its visitor ${name}, and \`else\` is purged`, DEADLINE, async () => {
    const listing = await warm(at(), "beside-stream");
    const begun = stream(at(), "POST", "/item/streamed-write");
    const version = listing.next();
    const response = await open(at(), "/item/streamed-write", "POST");
    assert.equal(await listing.read(), version, "purged before the stream is over");
    await eventByEvent(response, await begun, pauseMs);
  });
}

/** The origin sends half of its JSON, and the rest once its head has reached the visitor. */
async function lateBody(path, method) {
  const text = JSON.stringify({ id: 7, text: "x".repeat(60) });
  const begun = new Promise((resolve) => {
    bed.origin.on(path, (_, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.write(text.slice(0, 30));
      resolve(response);
    });
  });
  const response = await open(bed, path, method);
  (await begun).end(text.slice(30));
  assert.deepEqual([response.statusCode, await textOf(response).take(Infinity)], [200, text]);
  return response;
}

test("JSON that ends after the origin's timeout is passed on whole, and is not stored", DEADLINE, async () => {
  const response = await lateBody("/item/late", "GET");
  assert.deepEqual([status(response).fwd, status(response).detail, status(response).stored], ["miss", "slow-body", undefined]);
  assert.equal(await isStored(bed, "late"), false);
});

test("a write whose JSON ends after the origin's timeout is answered whole, and `else` is purged", DEADLINE, async () => {
  const listing = await warm(bed, "beside-late");
  const version = listing.next();
  await lateBody("/item/late-write", "POST");
  assert.equal(await listing.read(), version);
});

test("what is encoded in a way the platform does not read reaches the visitor as it is", DEADLINE, async () => {
  const bytes = deflateSync('{"deflated":true}');
  patient.origin.on("/item/deflate", (_, response) => {
    response.writeHead(200, { "content-type": "application/json", "content-encoding": "deflate", "content-length": bytes.length });
    response.end(bytes);
  });
  for (let n = 0; n < 2; n++) {
    const answer = await patient.get("/item/deflate", { headers: { "accept-encoding": "deflate" } });
    assert.deepEqual([answer.status, answer.headers["content-encoding"]], [200, "deflate"]);
    assert.deepEqual(answer.bytes, bytes);
    if (n === 0) assert.equal(status(answer).detail, "encoding");
  }
  assert.equal(await isStored(patient, "deflate"), false);
});

test("an origin that sends early hints does not break the edge", DEADLINE, async () => {
  const hinted = (_, response) => {
    response.writeEarlyHints({ link: "</style.css>; rel=preload" });
    json(response, 200, { after: "hints" });
  };
  for (const path of ["/item/hints", "/hints"]) {
    patient.origin.on(path, hinted);
    const answer = await patient.get(path);
    if (answer.status === 200) {
      assert.deepEqual(answer.json(), { after: "hints" });
    } else {
      assert.deepEqual([answer.status, answer.headers["content-type"]], [502, "application/problem+json"]);
      assert.equal(answer.json().status, 502);
    }
    assert.doesNotMatch(answer.text, /\bat .*\.js|stack|RangeError/i);
  }
});

test("an offer of h2c is no way around the cache", DEADLINE, async () => {
  patient.origin.on("/paged", (_, response) => json(response, 200, { public: true }));
  const offer = { connection: "Upgrade, HTTP2-Settings", upgrade: "h2c", "http2-settings": "AAMAAABkAAQAAP__" };
  const ask = () => patient.get("/paged?page=2&unlisted=1", { headers: { ...offer, cookie: "session=1" } });
  const miss = await ask();
  assert.deepEqual([miss.status, status(miss).fwd, status(miss).stored], [200, "miss", true]);
  const seen = patient.origin.requests.at(-1);
  assert.equal(seen.url, "/paged?page=2");
  assert.deepEqual([seen.headers.cookie, seen.headers.upgrade], [undefined, undefined]);
  await until("it is a hit", async () => status(await ask()).hit);
});

test("a write whose body never comes does not wait for it for ever, and nobody else waits", DEADLINE, async () => {
  const { hostname, port } = new URL(bed.url);
  const socket = net.connect(Number(port), hostname);
  socket.on("error", () => {});
  let answer = "";
  socket.setEncoding("utf8").on("data", (text) => (answer += text));
  try {
    await once(socket, "connect");
    socket.write('POST /upload HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"id":1');
    bed.origin.on("/elsewhere", (_, response) => json(response, 200, {}));
    for (let n = 0; n < 5; n++) assert.equal((await bed.get("/elsewhere")).status, 200);
    await until("an answer, or the origin's turn", () => answer !== "" || bed.origin.count("/upload") > 0);
    if (answer !== "") assert.match(answer, /^HTTP\/1\.1 [45]\d\d /);
    assert.equal((await bed.get("/elsewhere")).status, 200);
  } finally {
    socket.destroy();
  }
  assert.equal((await bed.get("/elsewhere")).status, 200);
});

const TEXT = '{"encoded":true}';
const CODINGS = {
  deflate: deflateSync(TEXT), GZIP: gzipSync(TEXT), "gzip, gzip": gzipSync(gzipSync(TEXT)), "gzip, br": brotliCompressSync(gzipSync(TEXT)),
};
for (const [coding, bytes] of Object.entries(CODINGS)) {
  test(`an answer in ${coding} reaches the visitor as it is, from a listing and from a write`, DEADLINE, async () => {
    const path = `/item/${coding.replace(", ", "-")}`;
    bed.origin.on(path, (_, response) => {
      response.writeHead(200, { "content-type": "application/json", "content-encoding": coding, "content-length": bytes.length });
      response.end(bytes);
    });
    for (const request of [{ method: "GET" }, { method: "POST", body: "{}" }]) {
      const answer = await bed.get(path, { ...request, headers: { "accept-encoding": "gzip, br, deflate" } });
      assert.deepEqual([request.method, answer.headers["content-encoding"]], [request.method, coding]);
      assert.deepEqual(answer.bytes, bytes);
    }
  });
}
