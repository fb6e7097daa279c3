// The HTTP Redis endpoint as a process of its own.
//
// The sample origin's database runs inside its Node process and holds it for whole queries: an endpoint beside it
// would look like a Redis that is down. The child ends when this process does, however that ends.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const SCRIPT = fileURLToPath(new URL("./endpoint.mjs", import.meta.url));

/** Like `startEndpoint`, without its counters: `{ url, pid, close() }`. */
export async function startEndpointProcess({ redisPort, token }) {
  const child = spawn(process.execPath, [SCRIPT, "--redis-port", String(redisPort), "--token", token, "--until-stdin-ends"], {
    stdio: ["pipe", "pipe", "inherit"],
    detached: true,
  });
  const ended = once(child, "exit");
  const line = await Promise.race([
    once(createInterface(child.stdout), "line").then(([text]) => text),
    ended.then(([code]) => Promise.reject(new Error(`the HTTP Redis endpoint ended with code ${code}`))),
  ]);
  child.unref();
  child.stdin.on("error", () => {});
  child.stdin.unref?.();
  child.stdout.unref?.();
  return {
    url: line.trim(),
    pid: child.pid,
    async close() {
      child.ref();
      child.stdin.end();
      await ended;
    },
  };
}
