// Bursts of requests from a process of its own: `clients` at once, each on a connection that is open before.
//
// A message `{ urls, path, clients, resetFirst }` answers `{ samples, statuses, resetMs }`: milliseconds until each answer was
// there whole, and how many had which status (or `error`). Clients take the `urls` in turn. With `resetFirst` one more client asks
// first and resets its connection a moment later, while the origin is still at it.

import http from "node:http";
import net from "node:net";
import { once } from "node:events";
import { performance } from "node:perf_hooks";

const ANSWER_LIMIT_MS = 30_000;
/** So that a leader is elected and at the origin before it goes. */
const RESET_AFTER_MS = 100;
const agent = new http.Agent({ keepAlive: true, maxSockets: 500, maxFreeSockets: 500 });

function ask(base, path) {
  const { hostname, port } = new URL(base);
  const begun = performance.now();
  return new Promise((resolve) => {
    const done = (status) => resolve({ status, ms: performance.now() - begun });
    const request = http.get({ hostname, port, path, agent, headers: { "cf-connecting-ip": "198.51.100.7" } }, (response) => {
      response.resume();
      response.on("end", () => done(response.statusCode));
      response.on("error", () => done("error"));
    });
    request.setTimeout(ANSWER_LIMIT_MS, () => request.destroy());
    request.on("error", () => done("error"));
  });
}

async function resetting(base, path) {
  const { hostname, port } = new URL(base);
  const socket = net.connect(Number(port), hostname);
  await once(socket, "connect");
  socket.on("error", () => {});
  socket.write(`GET ${path} HTTP/1.1\r\nHost: edge\r\n\r\n`);
  setTimeout(() => socket.resetAndDestroy(), RESET_AFTER_MS);
  // The others come while the one that leads is still there.
  await new Promise((resolve) => setTimeout(resolve, RESET_AFTER_MS / 2));
}

process.on("message", async ({ id, urls, path, clients, resetFirst }) => {
  if (resetFirst) await resetting(urls[0], path);
  const answers = await Promise.all(Array.from({ length: clients }, (_, n) => ask(urls[n % urls.length], path)));
  const statuses = {};
  for (const { status } of answers) statuses[status] = (statuses[status] ?? 0) + 1;
  process.send({ id, value: { samples: answers.map(({ ms }) => ms), statuses } });
});
process.on("disconnect", () => process.exit());
