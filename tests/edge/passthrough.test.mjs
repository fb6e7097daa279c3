// What is not cached goes through untouched: methods, bodies, WebSockets, event streams.

import test from "node:test";
import assert from "node:assert/strict";
import http from "node:http";
import { once } from "node:events";
import { WebSocket, WebSocketServer } from "ws";
import { json, startBed, textOf, WINDOW } from "./bed.mjs";

const EVENTS = 120;
const EVENT_MS = 500;
const POLICY = {
  defaults: { timeout: { origin: "20s" } },
  route: [
    { name: "live", match: "GET /live", limit: [{ name: "live", requests: 5, window: WINDOW.text, by: "ip" }] },
    { name: "socket", match: "GET /socket", limit: [{ name: "sockets", requests: 2, window: WINDOW.text, by: "ip" }] },
    { name: "cached", match: "GET /cached", cache: { key: "cached", ttl: "1m" } },
  ],
};

let bed;
let sockets;
test.before(async () => {
  bed = await startBed({ policy: POLICY });
  sockets = new WebSocketServer({ server: bed.origin.server });
  sockets.on("connection", (socket) => socket.on("message", (message, binary) => socket.send(message, { binary })));
});
test.after(async () => {
  for (const socket of sockets?.clients ?? []) socket.terminate();
  await bed?.close();
});

test("an event stream of 60 s passes through a limited route, event by event", { timeout: 600_000 }, async () => {
  // This one must take its time: no clock can be given to workerd, and the origin's
  // timeout of 20 s must not cut the stream.
  const begun = new Promise((resolve) => {
    bed.origin.on("/live", (_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.flushHeaders();
      resolve(response);
    });
  });
  const { hostname, port } = new URL(bed.url);
  const request = http.get({ hostname, port, path: "/live", headers: { accept: "text/event-stream", "cf-connecting-ip": "198.51.100.1" } });
  const [response] = await once(request, "response");
  assert.equal(response.statusCode, 200);
  assert.equal(response.headers["content-type"], "text/event-stream");
  assert.ok(response.headers["ratelimit-policy"].includes(`"live";q=5;w=${WINDOW.seconds}`));
  const [source, body] = [await begun, textOf(response)];
  for (let id = 0; id < EVENTS; id++) {
    const event = `id: ${id}\ndata: ${Date.now()}\n\n`;
    source.write(event);
    // The origin sends no more before this one is here: none is held back, lost or sent twice.
    assert.equal(await body.take(event.length), event);
    await new Promise((resolve) => setTimeout(resolve, EVENT_MS));
  }
  source.end();
  assert.equal(await body.take(1), "");
});

test("a WebSocket passes through a limited route, and is refused like any request", async () => {
  const url = `${bed.url.replace(/^http/, "ws").replace(/\/$/, "")}/socket`;
  const headers = { "cf-connecting-ip": "198.51.100.2" };
  for (let n = 0; n < 2; n++) {
    const socket = new WebSocket(url, { headers });
    await once(socket, "open");
    for (const message of ["hello", "xin chào"]) {
      socket.send(message);
      const [echo] = await once(socket, "message");
      assert.equal(String(echo), message);
    }
    socket.send(Buffer.from([0, 255, 1]));
    const [bytes, binary] = await once(socket, "message");
    assert.deepEqual([[...bytes], binary], [[0, 255, 1], true]);
    socket.close();
    await once(socket, "close");
  }
  const refused = new WebSocket(url, { headers });
  const [, response] = await once(refused, "unexpected-response");
  assert.equal(response.statusCode, 429);
  refused.on("error", () => {});
  refused.terminate();
});

test("methods, bodies, queries and answers arrive as they were sent", async () => {
  bed.origin.on("/echo", (request, response, seen) => {
    response.setHeader("set-cookie", ["a=1", "b=2"]);
    json(response, 200, { method: seen.method, url: seen.url, body: seen.body, headers: seen.headers });
  });
  for (const method of ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE"]) {
    const answer = await bed.get("/echo?b=2&a=1&a=3", { method, body: method === "OPTIONS" ? undefined : "payload", headers: { cookie: "c=1", authorization: "Basic eA==" } });
    const seen = answer.json();
    assert.equal(seen.method, method);
    assert.equal(seen.url, "/echo?b=2&a=1&a=3");
    if (method !== "OPTIONS") assert.equal(seen.body, "payload");
    assert.deepEqual([seen.headers.cookie, seen.headers.authorization], ["c=1", "Basic eA=="]);
    assert.deepEqual(answer.headers["set-cookie"], ["a=1", "b=2"]);
    assert.equal(answer.headers["cache-status"], undefined);
  }
  for (const status of [201, 204, 301, 304, 404, 500, 503]) {
    bed.origin.on("/status", (_, response) => {
      response.writeHead(status, { location: "/elsewhere", etag: '"x"' });
      response.end();
    });
    const answer = await bed.get("/status");
    assert.deepEqual([answer.status, answer.headers.location, answer.headers.etag], [status, "/elsewhere", '"x"']);
  }
});

test("the origin gets the client's address once, at the end of X-Forwarded-For", async () => {
  bed.origin.on("/echo", (_, response, seen) => json(response, 200, seen.headers));
  const forwarded = async (headers) => (await bed.get("/echo", { headers })).json()["x-forwarded-for"];
  assert.equal(await forwarded({ "cf-connecting-ip": "203.0.113.9" }), "203.0.113.9");
  assert.equal(await forwarded({ "cf-connecting-ip": "203.0.113.9", "x-forwarded-for": "10.1.1.1" }), "10.1.1.1, 203.0.113.9");
  assert.equal(await forwarded({ "cf-connecting-ip": "203.0.113.9", "x-forwarded-for": "10.1.1.1, 203.0.113.9" }), "10.1.1.1, 203.0.113.9");
});

test("a large body streams both ways", async () => {
  const payload = Buffer.alloc(8 * 1024 * 1024, "0123456789abcdef");
  bed.origin.on("/upload", (_, response, seen) => response.end(seen.body));
  const answer = await bed.get("/upload", { method: "POST", body: payload });
  assert.equal(answer.bytes.length, payload.length);
  assert.ok(answer.bytes.equals(payload));
});

test("a WebSocket upgrade of a cached route is not answered from the cache", async () => {
  bed.origin.on("/cached", (_, response) => json(response, 200, {}));
  await bed.get("/cached");
  const socket = new WebSocket(`${bed.url.replace(/^http/, "ws").replace(/\/$/, "")}/cached`);
  await once(socket, "open");
  socket.close();
  await once(socket, "close");
});
