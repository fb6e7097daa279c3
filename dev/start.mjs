// `npm start`: the whole of Edgeweir on loopback, from whatever a fresh clone lacks to a page that answers.
//
// It installs and builds what is missing, then runs Redis, the HTTP Redis endpoint, the sample origin and the Worker in
// workerd until Ctrl-C, SIGTERM, or its own end. Nothing is kept: secrets are new at each start and Redis has no persistence.
// EDGEWEIR_PORT changes the Worker's port.

import { randomBytes } from "node:crypto";
import net from "node:net";
import { buildWorker } from "./build.mjs";
import { SetupError } from "./setup/exec.mjs";
import { whenLauncherEnds } from "./setup/launcher.mjs";
import { ensureNodeModules } from "./setup/packages.mjs";
import { main, say, step } from "./setup/progress.mjs";
import { ensureRedis } from "./setup/redis.mjs";

const HOST = "127.0.0.1";
const DEFAULT_PORT = 8787;
/** What does not end in this time is left to its watcher. */
const STOP_LIMIT_MS = 5_000;
/** wrangler.toml's trigger, which only the platform keeps. */
const CRON_MS = 5 * 60_000;

const stops = [];
let stopping = null;

await main(async () => {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => void end(signal));
  await whenLauncherEnds(() => void end("npm has ended"));
  const startedMs = Date.now();
  const port = readPort(process.env.EDGEWEIR_PORT);
  await requireFree(port);
  await ensureNodeModules();
  const secrets = { token: secret(), admin: secret(), jwt: secret(), cacheKey: randomBytes(32).toString("base64") };
  const [, redis, origin] = await Promise.all([
    buildWorker(),
    startRedis(secrets.token),
    startSampleOrigin(secrets.jwt),
  ]);
  const worker = await startEdge({ port, redis, origin, secrets });
  if (stopping) return stopping;
  report({ worker, redis, origin, secrets, seconds: (Date.now() - startedMs) / 1000 });
});

async function startRedis(token) {
  const binary = await ensureRedis();
  const { startRedisServer } = await import("./redis/server.mjs");
  const { startEndpointProcess } = await import("./redis/process.mjs");
  const server = await startRedisServer({ binary });
  stops.push(() => server.stop());
  const endpoint = await startEndpointProcess({ redisPort: server.port, token });
  stops.push(() => endpoint.close());
  return { port: server.port, url: endpoint.url };
}

async function startSampleOrigin(jwtSecret) {
  const { startOrigin } = await import("./origin/server.mjs");
  const origin = await step("starting the sample origin (its database is filled at the first start)", () => startOrigin({ jwtSecret }));
  stops.push(() => origin.close());
  return origin;
}

async function startEdge({ port, redis, origin, secrets }) {
  const { startWorker } = await import("./worker.mjs");
  const bindings = {
    UPSTASH_REDIS_REST_URL: redis.url,
    UPSTASH_REDIS_REST_TOKEN: secrets.token,
    ORIGIN_URL: origin.url,
    ADMIN_TOKEN: secrets.admin,
    JWT_SECRET: secrets.jwt,
    CACHE_KEY: secrets.cacheKey,
  };
  const worker = await step("starting the Worker in workerd", async () => {
    try {
      return await startWorker({ bindings, port, host: HOST });
    } catch (error) {
      throw error.code === "ERR_ADDRESS_IN_USE" ? taken(port) : error;
    }
  });
  stops.push(() => worker.stop());
  const trigger = setInterval(() => void worker.scheduled().catch((error) => say(error.message)), CRON_MS);
  stops.push(async () => clearInterval(trigger));
  return worker;
}

function report({ worker, redis, origin, secrets, seconds }) {
  say(`
Edgeweir is up after ${seconds.toFixed(1)} s; Ctrl-C ends all of it.

  Worker           ${worker.url}
  a listing        ${worker.url}/api/v1/community/books/trending-today
  sample origin    ${origin.url}
  Redis over HTTP  ${redis.url} (token ${secrets.token})
  Redis            redis://${HOST}:${redis.port}
  ADMIN_TOKEN      ${secrets.admin}
  JWT_SECRET       ${secrets.jwt}
`);
}

/** Ends all that was started, the last one first, and then this process. */
function end(reason) {
  stopping ??= (async () => {
    say(`\n${reason}: stopping.`);
    const limit = setTimeout(() => process.exit(1), STOP_LIMIT_MS);
    for (const stop of stops.reverse()) await stop().catch((error) => say(error.message));
    clearTimeout(limit);
    process.exit(0);
  })();
  return stopping;
}

function readPort(text) {
  if (text === undefined || text === "") return DEFAULT_PORT;
  const port = Number(text);
  if (/^\d{1,5}$/.test(text) && port >= 1 && port <= 65_535) return port;
  throw new SetupError("EDGEWEIR_PORT must be a port number from 1 to 65535.");
}

/** Asked before anything is installed or built. */
function requireFree(port) {
  return new Promise((resolve, reject) => {
    const probe = net.createServer();
    probe.once("error", (error) => {
      reject(error.code === "EADDRINUSE" ? taken(port) : new SetupError(`Port ${port} cannot be opened (${error.code}): set EDGEWEIR_PORT to another one.`));
    });
    probe.listen(port, HOST, () => probe.close(resolve));
  });
}

function taken(port) {
  return new SetupError(`Port ${port} is taken: end what uses it, or set EDGEWEIR_PORT to another one.`);
}

function secret() {
  return randomBytes(24).toString("base64url");
}
