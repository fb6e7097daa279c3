// workerd on a Worker's modules, without miniflare: for figures that are the Worker's own.
//
// miniflare puts a Worker of its own in front of every request, which costs as much as what is compared here. This starts the
// same workerd that it would, with the same compatibility settings, on a free loopback port. The process ends with the one that
// started it: a small watcher, whose standard input closes when this process is gone, kills it by pid.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import workerd from "workerd";

const START_LIMIT_MS = 20_000;
const WATCHER = 'read -r _; kill -KILL "$1" 2>/dev/null; rm -rf -- "$2"';

/**
 * Resolves once it listens: `{ url, port, pid, stop() }`. `modules`: `{ name, type: "esModule" | "wasm", content }`, the first
 * is the entry. `bindings`: text by name. What the Worker prints is thrown away: its answers say what matters here.
 */
export async function startWorkerd({ modules, bindings, compatibilityDate, compatibilityFlags }) {
  const folder = mkdtempSync(path.join(tmpdir(), "edgeweir-workerd-"));
  modules.forEach(({ content }, at) => writeFileSync(path.join(folder, `module-${at}`), content));
  writeFileSync(path.join(folder, "config.capnp"), config({ modules, bindings, compatibilityDate, compatibilityFlags }));
  const child = spawn(workerd.default ?? workerd, ["serve", "config.capnp", "--control-fd=3"], {
    cwd: folder,
    stdio: ["ignore", "ignore", "ignore", "pipe"],
    detached: true,
  });
  const gone = new Promise((resolve) => child.once("exit", resolve).once("error", resolve));
  const watcher = spawn("/bin/sh", ["-c", WATCHER, "watcher", String(child.pid), folder], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  watcher.stdin.on("error", () => {});
  const stop = async () => {
    watcher.kill("SIGKILL"); // before its pid can belong to anyone else
    child.kill("SIGKILL");
    await gone;
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const port = await listening(child.stdio[3], gone);
    for (const handle of [child, watcher, watcher.stdin, child.stdio[3]]) handle.unref?.();
    return { url: `http://127.0.0.1:${port}`, port, pid: child.pid, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The port that workerd writes to its control stream. */
function listening(control, gone) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`workerd did not listen within ${START_LIMIT_MS} ms`)), START_LIMIT_MS);
    const settle = (action) => (value) => {
      clearTimeout(timer);
      action(value);
    };
    gone.then(() => settle(reject)(new Error("workerd ended at once")));
    createInterface(control).on("line", (line) => {
      const { event, port } = JSON.parse(line);
      if (event === "listen") settle(resolve)(port);
    });
  });
}

function config({ modules, bindings, compatibilityDate, compatibilityFlags }) {
  const listed = modules.map(({ name, type }, at) => `(name = ${quote(name)}, ${type} = embed "module-${at}")`);
  const texts = Object.entries(bindings).map(([name, text]) => `(name = ${quote(name)}, text = ${quote(text)})`);
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "worker", worker = (
      modules = [${listed.join(", ")}],
      bindings = [${texts.join(", ")}],
      compatibilityDate = ${quote(compatibilityDate)},
      compatibilityFlags = [${compatibilityFlags.map(quote).join(", ")}],
    )),
    (name = "internet", network = (allow = ["public", "private"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "worker")],
);
`;
}

/** A text in Cap'n Proto's syntax, whose escapes are C's. */
const quote = (text) => `"${String(text).replace(/[\\"]/g, "\\$&").replaceAll("\n", "\\n")}"`;
