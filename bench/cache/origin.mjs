// The origin of `npm run bench -- cache`: one process that takes its time, counts what it is asked, and can go away.
//
// `/shared/…` may be stored for a minute, `/short/…` for a second, `/private/…` never. Messages: `start` opens it and answers
// its port, `down` and `up` close the port and open it again, `counts` answers requests by path since the last `forget`.

import http from "node:http";
import { once } from "node:events";

/** A listing's size. */
const BODY = JSON.stringify({ books: Array.from({ length: 20 }, (_, n) => ({ book_id: `book-${n}`, title: "A title of some words", views: n })) });
const HEADERS = {
  shared: { "cache-control": "max-age=60" },
  short: { "cache-control": "max-age=1" },
  private: { "cache-control": "private, no-store", "set-cookie": "session=1" },
};

const counts = new Map();
const sockets = new Set();
let delayMs = 0;
let port = 0;
let server;

async function open() {
  server = http.createServer((request, response) => {
    counts.set(request.url, (counts.get(request.url) ?? 0) + 1);
    const headers = HEADERS[request.url.split("/")[1]];
    setTimeout(() => {
      response.writeHead(headers === undefined ? 404 : 200, { ...headers, "content-type": "application/json", "content-length": Buffer.byteLength(BODY) });
      response.end(BODY);
    }, delayMs);
  });
  server.keepAliveTimeout = 65_000;
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.listen(port, "127.0.0.1", 4_096);
  await once(server, "listening");
  ({ port } = server.address());
}

async function close() {
  server.close();
  for (const socket of sockets) socket.destroy();
  await once(server, "close");
}

const ACTIONS = {
  start: async (message) => {
    ({ delayMs } = message);
    await open();
    return port;
  },
  down: close,
  up: open,
  counts: () => Object.fromEntries(counts),
  forget: () => counts.clear(),
};

process.on("message", async (message) => {
  try {
    process.send({ id: message.id, value: (await ACTIONS[message.action](message)) ?? null });
  } catch (error) {
    process.send({ id: message.id, error: String(error) });
  }
});
process.on("disconnect", () => process.exit());
