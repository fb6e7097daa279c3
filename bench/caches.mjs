// The caches that are measured: the built Worker, and nginx and varnish where Debian's packages are installed.
//
// Each is `{ name, urls, stop() }` in front of an origin, on loopback, with nothing stored.

import { spawn } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { ask, find } from "../dev/setup/exec.mjs";
import { startEndpointProcess } from "../dev/redis/process.mjs";
import { startRedisServer } from "../dev/redis/server.mjs";
import { startWorker } from "../dev/worker.mjs";

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

/** The Worker with `policy`, in so many workerd processes on one Redis. */
export async function edgeweir(origin, { name = "Edgeweir", policy, processes = 1 }) {
  const server = await startRedisServer();
  const endpoint = await startEndpointProcess({ redisPort: server.port, token: "bench" });
  const bindings = { UPSTASH_REDIS_REST_URL: endpoint.url, UPSTASH_REDIS_REST_TOKEN: "bench", ORIGIN_URL: origin, POLICY: JSON.stringify(policy) };
  const workers = [];
  while (workers.length < processes) {
    workers.push(await startWorker({ bindings, onLine: () => {} })); // connections are broken on purpose
  }
  return {
    name,
    urls: workers.map(({ url }) => url),
    async stop() {
      for (const worker of workers) await worker.stop();
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

/** With further directives of its location, in so many processes; `null`: it is not installed. */
export async function nginx(origin, { suffix = "", directives = [], processes = 1 }) {
  const command = find("nginx") ?? ["/usr/sbin/nginx"].find((file) => existsSync(file));
  if (!command) return null;
  const folder = folderOf("nginx");
  const port = await freePort();
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${folder}/${kind};`).join("\n  ");
  writeFileSync(path.join(folder, "nginx.conf"), `daemon off;
worker_processes ${processes};
pid ${folder}/pid;
error_log ${folder}/error.log;
events { worker_connections 2048; }
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
      ${directives.map((directive) => `${directive};`).join("\n      ")}
    }
  }
}
`);
  const child = started(command, ["-p", folder, "-c", path.join(folder, "nginx.conf")], { stdio: "ignore" });
  await listening(port, child.child);
  const version = /nginx\/(\S+)/.exec((await ask("sh", ["-c", `"${command}" -v 2>&1`])) ?? "")?.[1] ?? "";
  return { name: `nginx ${version}`.trim() + suffix, urls: [`http://127.0.0.1:${port}`], stop: () => child.stop().then(() => rmSync(folder, { recursive: true, force: true })) };
}

/** The same, with further parameters. */
export async function varnish(origin, { parameters = [] }) {
  const command = find("varnishd") ?? ["/usr/sbin/varnishd"].find((file) => existsSync(file));
  if (!command) return null;
  const folder = folderOf("varnish");
  const port = await freePort();
  const { hostname, port: originPort } = new URL(origin);
  const vcl = path.join(folder, "default.vcl");
  writeFileSync(vcl, `vcl 4.1;\nbackend default { .host = "${hostname}"; .port = "${originPort}"; }\n`);
  const child = started(command, ["-F", "-n", folder, "-a", `127.0.0.1:${port}`, "-f", vcl, "-s", "malloc,64m", ...parameters.flatMap((parameter) => ["-p", parameter])], { stdio: "ignore" });
  await listening(port, child.child);
  const version = /varnish-([\d.]+)/.exec((await ask("sh", ["-c", `"${command}" -V 2>&1`])) ?? "")?.[1] ?? "";
  return { name: `varnish ${version}`.trim(), urls: [`http://127.0.0.1:${port}`], stop: () => child.stop().then(() => rmSync(folder, { recursive: true, force: true })) };
}
