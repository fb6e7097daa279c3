// The caches that are measured: the built Worker in `http` mode, and nginx and varnish where Debian's packages are installed.
//
// Each is `{ name, url, stop() }` in front of the suite's origin, on loopback, with nothing stored.

import { spawn } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { ask, find } from "../../dev/setup/exec.mjs";
import { startEndpointProcess } from "../../dev/redis/process.mjs";
import { startRedisServer } from "../../dev/redis/server.mjs";
import { startWorker } from "../../dev/worker.mjs";

const START_MS = 60_000;

/** A port that was free a moment ago. */
export async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Waits until somebody listens. */
export async function listening(port, child) {
  const deadline = Date.now() + START_MS;
  while (Date.now() < deadline) {
    if (child.exitCode !== null) throw new Error(`${child.spawnfile} ended with ${child.exitCode}`);
    const socket = net.connect(port, "127.0.0.1");
    const open = await new Promise((resolve) => {
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
    socket.destroy();
    if (open) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${child.spawnfile} does not listen`);
}

export function started(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "inherit"], ...options });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.once("error", () => {});
  return {
    child,
    async stop() {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 5_000);
      await ended;
      clearTimeout(timer);
    },
  };
}

export async function edgeweir(origin) {
  const server = await startRedisServer();
  const endpoint = await startEndpointProcess({ redisPort: server.port, token: "bench" });
  const policy = {
    // A hundred cases run at once: what a busy machine does to Redis' time is no verdict on the cache.
    defaults: { limit: [], timeout: { redis: "5s" } },
    route: [{ name: "pages", match: "GET /test/{rest...}", cache: { mode: "http" } }],
  };
  const worker = await startWorker({
    bindings: { UPSTASH_REDIS_REST_URL: endpoint.url, UPSTASH_REDIS_REST_TOKEN: "bench", ORIGIN_URL: origin, POLICY: JSON.stringify(policy) },
    onLine: () => {}, // the suite breaks connections on purpose
  });
  return {
    name: "Edgeweir, mode = \"http\"",
    url: worker.url,
    async stop() {
      await worker.stop();
      await endpoint.close();
      await server.stop();
    },
  };
}

/** A new one, which the users that both switch to may read. */
function folderOf(name) {
  const folder = mkdtempSync(path.join(os.tmpdir(), `edgeweir-${name}-`));
  chmodSync(folder, 0o755);
  return folder;
}

/** `null`: it is not installed. */
export async function nginx(origin) {
  const command = find("nginx") ?? ["/usr/sbin/nginx"].find((file) => existsSync(file));
  if (!command) return null;
  const folder = folderOf("nginx");
  const port = await freePort();
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${folder}/${kind};`).join("\n  ");
  writeFileSync(path.join(folder, "nginx.conf"), `daemon off;
pid ${folder}/pid;
error_log ${folder}/error.log;
events {}
http {
  access_log off;
  ${temporary}
  proxy_cache_path ${folder}/cache keys_zone=all:8m;
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass ${origin};
      proxy_http_version 1.1;
      proxy_cache all;
      proxy_cache_revalidate on;
    }
  }
}
`);
  const child = started(command, ["-p", folder, "-c", path.join(folder, "nginx.conf")], { stdio: "ignore" });
  await listening(port, child.child);
  const version = /nginx\/(\S+)/.exec((await ask("sh", ["-c", `"${command}" -v 2>&1`])) ?? "")?.[1] ?? "";
  return { name: `nginx ${version}`.trim(), url: `http://127.0.0.1:${port}`, stop: () => child.stop().then(() => rmSync(folder, { recursive: true, force: true })) };
}

/** The same. */
export async function varnish(origin) {
  const command = find("varnishd") ?? ["/usr/sbin/varnishd"].find((file) => existsSync(file));
  if (!command) return null;
  const folder = folderOf("varnish");
  const port = await freePort();
  const { hostname, port: originPort } = new URL(origin);
  const vcl = path.join(folder, "default.vcl");
  writeFileSync(vcl, `vcl 4.1;\nbackend default { .host = "${hostname}"; .port = "${originPort}"; }\n`);
  const child = started(command, ["-F", "-n", folder, "-a", `127.0.0.1:${port}`, "-f", vcl, "-s", "malloc,64m", "-p", "default_ttl=0", "-p", "default_grace=0", "-p", "default_keep=3600"], { stdio: "ignore" });
  await listening(port, child.child);
  const version = /varnish-([\d.]+)/.exec((await ask("sh", ["-c", `"${command}" -V 2>&1`])) ?? "")?.[1] ?? "";
  return { name: `varnish ${version}`.trim(), url: `http://127.0.0.1:${port}`, stop: () => child.stop().then(() => rmSync(folder, { recursive: true, force: true })) };
}
