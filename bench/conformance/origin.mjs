// The suite's own origin, with connections that it does not end by itself: whoever keeps one open would now and then send a
// request just when it is cut, and a case would fail by chance.

import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const create = http.createServer;
http.createServer = (...args) => {
  const server = create(...args);
  server.keepAliveTimeout = 0;
  return server;
};
const suite = path.dirname(createRequire(import.meta.url).resolve("http-cache-tests/package.json"));
await import(pathToFileURL(path.join(suite, "server", "server.mjs")).href);
