// The sample origin: an HTTP API over an embedded Postgres, the honest slow side of the benchmark.
//
// Run alone with `node dev/origin/server.mjs [--port 8788]`, or from tests and `npm start` through startOrigin.
// No cache, no batching; a reader is known by his token alone. Faults and delays are set on the handle only; no request can set them.
// Always: listens on loopback unless told otherwise; every answer carries X-Sql-Statements, the number of statements that
// request executed; whatever a client sends, the answer is JSON with a status and the process goes on.

import { createServer } from 'node:http';
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Session, openDatabase } from './database.mjs';
import { Faults } from './faults.mjs';
import { RequestError } from './input.mjs';
import { EchoSockets, EventStreams } from './live.mjs';
import { SAVED_BOOKS, readerOf } from './readers.mjs';
import { SOCKET_TEMPLATE, findRoute } from './routes.mjs';
import { VIEW_TABLES } from './views.mjs';

const MAX_CONNECTIONS = 4_096;
/** Longer than any client keeps an idle connection, so that it is never the server that closes under a request. */
const KEEP_ALIVE_MS = 65_000;

/**
 * Starts the origin. `now`: milliseconds at which the data ends and from which the origin's clock runs on, or a function
 * that is the clock. `jwtSecret`: of readers' tokens; without it nobody is known. `delayMs`: added before every answer. `cacheDir`: where the seeded database is kept; null for nowhere.
 * Resolves to `{ url, port, stats, query, fail, delay, close }`; `query(sql, parameters)` asks the database beside the API,
 * uncounted.
 */
export async function startOrigin({ port = 0, host = '127.0.0.1', now = Date.now(), delayMs = 0, cacheDir, jwtSecret } = {}) {
  const clock = typeof now === 'function' ? now : runningFrom(now);
  const faults = new Faults(delayMs);
  const postgres = await openDatabase({ nowMs: clock(), cacheDir });
  await postgres.exec(SAVED_BOOKS);
  await postgres.exec(VIEW_TABLES);
  const origin = { clock, faults, postgres, jwtSecret, streams: new EventStreams(), sockets: new EchoSockets(), upgraded: new Set(), closing: false,
    stats: { requests: {}, statements: 0, lastStatements: [] } };
  const server = createServer({ requestTimeout: 30_000, headersTimeout: 10_000, keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) => void answer(origin, request, response));
  server.maxConnections = MAX_CONNECTIONS;
  server.on('upgrade', (request, socket, head) => upgrade(origin, request, socket, head));
  try {
    await listening(server, port, host);
  } catch (error) {
    await postgres.close();
    throw error;
  }
  const bound = server.address().port;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${bound}`,
    port: bound,
    stats: origin.stats,
    query: async (sql, parameters) => (await postgres.query(sql, parameters)).rows,
    fail: (mode, options) => faults.fail(mode, options),
    delay: (ms) => faults.delay(ms),
    close: once(() => closeOrigin(origin, server)),
  };
}

function runningFrom(startMs) {
  const startedAt = performance.now();
  return () => startMs + Math.floor(performance.now() - startedAt);
}

function once(action) {
  let result;
  return () => (result ??= action());
}

function listening(server, port, host) {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
}

async function closeOrigin(origin, server) {
  origin.closing = true;
  origin.faults.close();
  origin.streams.close();
  origin.sockets.close();
  for (const socket of origin.upgraded) socket.destroy();
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  await closed;
  await origin.postgres.close();
}

/** One request from its first line to its answer. Never rejects. */
async function answer(origin, request, response) {
  const session = new Session(origin.postgres);
  let result;
  try {
    const [path, search = ''] = splitUrl(request.url);
    const route = findRoute(request.method, path);
    countRequest(origin.stats, `${request.method} ${route.template}`);
    const fault = origin.faults.take();
    if (fault === 'hang') return;
    if (fault === 'reset') {
      request.socket.resetAndDestroy();
      return;
    }
    if (fault !== null) throw new RequestError(fault, 'fault', 'the origin was told to fail');
    const { clock, streams } = origin;
    const reader = readerOf(request, origin.jwtSecret, clock());
    result = await route.handler({ request, response, session, clock, streams, reader, params: route.params, query: new URLSearchParams(search) });
  } catch (error) {
    result = failure(origin, request, error);
  }
  origin.stats.statements += session.statements.length;
  origin.stats.lastStatements = session.statements;
  if (result === undefined) return;
  try {
    await origin.faults.beforeAnswer();
  } catch {
    return;
  }
  send(request, response, result, session.statements.length);
}

function splitUrl(url) {
  const mark = url.indexOf('?');
  return mark === -1 ? [url] : [url.slice(0, mark), url.slice(mark + 1)];
}

function countRequest(stats, name) {
  stats.requests[name] = (stats.requests[name] ?? 0) + 1;
}

/** A refusal as it is; anything else is our own fault, told to the log and not to the caller. */
function failure(origin, request, error) {
  if (error instanceof RequestError) return { status: error.status, headers: error.headers, body: { error: error.code, message: error.message } };
  if (!origin.closing && !request.destroyed) console.error(`origin: ${request.method} failed:`, error);
  return { status: 500, body: { error: 'internal', message: 'the origin failed' } };
}

function send(request, response, { status = 200, body, headers = {} }, statements) {
  if (response.destroyed || response.headersSent) return;
  const text = JSON.stringify(body);
  response.writeHead(status, { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': Buffer.byteLength(text), 'X-Sql-Statements': String(statements), ...headers });
  response.end(request.method === 'HEAD' ? undefined : text);
}

function upgrade(origin, request, socket, head) {
  origin.upgraded.add(socket);
  socket.on('close', () => origin.upgraded.delete(socket));
  socket.on('error', () => socket.destroy());
  const [path] = splitUrl(request.url);
  const known = path === SOCKET_TEMPLATE && request.method === 'GET';
  if (known) countRequest(origin.stats, `GET ${SOCKET_TEMPLATE}`);
  const fault = known ? origin.faults.take() : 404;
  if (fault === null) origin.sockets.accept(request, socket, head);
  else if (fault === 'reset') socket.resetAndDestroy();
  else if (fault !== 'hang') socket.end(`HTTP/1.1 ${fault} Refused\r\nConnection: close\r\nContent-Length: 0\r\nX-Sql-Statements: 0\r\n\r\n`);
}

async function main() {
  const { values } = parseArgs({ options: { port: { type: 'string', default: '8788' }, host: { type: 'string', default: '127.0.0.1' } } });
  const origin = await startOrigin({ port: Number(values.port), host: values.host });
  console.log(`sample origin on ${origin.url}`);
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => void origin.close());
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  main().catch((error) => {
    console.error(`origin: ${error.message}`);
    process.exitCode = 1;
  });
}
