// What becomes of trips that a request has given up, while it goes on: a runtime lets six requests wait for an
// answer at once, and keeps what nobody reads.

import test from "node:test";
import assert from "node:assert/strict";
import http from "node:http";
import { once } from "node:events";
import { json, startBed, until } from "./bed.mjs";

const DEADLINE = { timeout: 600_000 };
const POLICY = {
  defaults: { limit: [], timeout: { redis: "100ms", origin: "5m" } },
  route: [
    { name: "item", match: "GET /item/{id}", cache: { key: "item:{id}", ttl: "1h" } },
    { name: "write", match: "POST /item/{id}", purge: { keys: ["item:{id}"] } },
  ],
};

/** A Redis that leaves every trip waiting. */
async function startSilence() {
  const trips = [];
  const waiting = [];
  const server = http.createServer((request, response) => {
    const trip = { response, body: "", isClosed: false };
    trip.closed = once(response, "close").then(() => (trip.isClosed = true));
    request.on("data", (chunk) => (trip.body += chunk));
    request.on("end", () => {
      trips.push(trip);
      waiting.splice(0).forEach((wake) => wake());
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    trips,
    /** The trip of this place, from 0. */
    async trip(at) {
      while (trips.length <= at) await new Promise((wake) => waiting.push(wake));
      return trips[at];
    },
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

test("a late answer to a trip that was given up is let go of, unread", DEADLINE, async () => {
  const silence = await startSilence();
  const bed = await startBed({ policy: POLICY, vars: { UPSTASH_REDIS_REST_URL: silence.url } });
  try {
    const origin = new Promise((asked) => bed.origin.on("/item/1", (_, response) => asked(response)));
    const answer = bed.get("/item/1");
    const held = await origin;
    const { response, closed } = await silence.trip(0);
    response.writeHead(200, { "content-type": "application/json", "content-length": 100_000 });
    response.write("[");
    await closed;
    json(held, 200, { id: 1 });
    assert.equal((await answer).status, 200);
  } finally {
    await bed.close();
    await silence.close();
  }
});

test("tries that hang after an answer end one by one, and all when their request does", DEADLINE, async () => {
  const silence = await startSilence();
  const bed = await startBed({ policy: POLICY, vars: { UPSTASH_REDIS_REST_URL: silence.url } });
  try {
    bed.origin.on("/item/2", (_, response) => json(response, 200, { id: 2 }));
    assert.equal((await bed.get("/item/2", { method: "POST", body: "{}" })).status, 200);
    // The purge is tried again and again: of its trips two at most wait beside the latest.
    const latest = await silence.trip(3);
    await until("the third trip is ended", () => silence.trips[2].isClosed);
    assert.equal(silence.trips.length, 4, "while the request goes on");
    json(latest.response, 200, JSON.parse(latest.body).map(() => ({ result: 1 })));
    // Now that it is through nothing is left to do.
    for (const { closed } of silence.trips.slice(0, 2)) await closed;
  } finally {
    await bed.close();
    await silence.close();
  }
});
