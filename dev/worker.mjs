// The built Worker in workerd, with wrangler.toml's compatibility settings: what the tests, the bench and `npm start` run.
//
// Each call starts a workerd process of its own, on loopback. It ends with the process that started it, however that ends:
// miniflare ends it at an orderly exit, and a small watcher, whose standard input closes when this process is gone, kills it
// by pid after a crash. Nothing is built here.

import { channel } from "node:diagnostics_channel";
import { existsSync, readFileSync } from "node:fs";
import { spawn } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Log, LogLevel, Miniflare } from "miniflare";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const WATCHER = 'read -r _; kill -KILL "$1" 2>/dev/null';

/** The workerd processes started since the last call of `start` began. */
const unclaimed = [];
channel("child_process").subscribe(({ process: child }) => {
  child.once("spawn", () => {
    if (path.basename(child.spawnfile).startsWith("workerd")) unclaimed.push(child);
  });
});
let starting = Promise.resolve();

/**
 * Starts the Worker with the given variables and resolves once it listens: `{ url, pid, mf, scheduled(), stop() }`; `url` has no
 * slash at its end, and `scheduled` is a run of the cron trigger, which nothing here starts by itself. `port` 0 is a free one. `onLine`, when given, gets what the Worker prints instead of the terminal.
 */
export function startWorker({ bindings = {}, port = 0, host = "127.0.0.1", onLine } = {}) {
  // One at a time, so that each call knows its own process.
  const mine = starting.then(() => start({ bindings, port, host, onLine }));
  starting = mine.catch(() => {});
  return mine;
}

/** The settings of wrangler.toml that workerd needs as well: `{ main, compatibilityDate, compatibilityFlags, cron }`. */
export function readSettings(text) {
  const value = (name) => new RegExp(`^${name}\\s*=\\s*(.+)$`, "m").exec(text)?.[1].trim();
  const required = (name) => {
    const found = value(name);
    if (found === undefined) throw new Error(`wrangler.toml does not set ${name}`);
    return JSON.parse(found);
  };
  return {
    main: required("main"),
    compatibilityDate: required("compatibility_date"),
    compatibilityFlags: JSON.parse(value("compatibility_flags") ?? "[]"),
    cron: JSON.parse(value("crons") ?? "[]")[0],
  };
}

async function start({ bindings, port, host, onLine }) {
  const { main, compatibilityDate, compatibilityFlags, cron } = readSettings(readFileSync(path.join(root, "wrangler.toml"), "utf8"));
  const script = path.join(root, main);
  const folder = path.dirname(script);
  if (!existsSync(script)) throw new Error("the Worker is not built: run `npm run build`");
  const mf = new Miniflare({
    modules: [
      { type: "ESModule", path: script },
      { type: "CompiledWasm", path: path.join(folder, "index_bg.wasm") },
    ],
    modulesRoot: folder,
    compatibilityDate,
    compatibilityFlags,
    host,
    port,
    bindings,
    cf: false, // else miniflare downloads an example of it
    log: new Log(LogLevel.WARN),
    ...(onLine && { handleRuntimeStdio: (stdout, stderr) => [stdout, stderr].forEach((stream) => readLines(stream, onLine)) }),
  });
  unclaimed.length = 0;
  let url;
  try {
    url = await mf.ready;
  } catch (error) {
    await mf.dispose().catch(() => {});
    throw error;
  }
  const child = unclaimed.pop();
  const unwatch = child === undefined ? () => {} : watch(child.pid);
  return {
    url: url.origin,
    pid: child?.pid,
    mf,
    scheduled: async () => (await mf.getWorker()).scheduled({ cron }),
    async stop() {
      unwatch(); // before its pid can belong to anyone else
      await mf.dispose();
    },
  };
}

function watch(pid) {
  const options = { stdio: ["pipe", "ignore", "ignore"], detached: true };
  const watcher = spawn("/bin/sh", ["-c", WATCHER, "watcher", String(pid)], options);
  watcher.on("error", () => {}); // without a shell miniflare's own exit handler still holds
  watcher.stdin.on("error", () => {});
  watcher.unref();
  watcher.stdin.unref();
  return () => watcher.kill("SIGKILL");
}

function readLines(stream, onLine) {
  let rest = "";
  stream.setEncoding("utf8");
  stream.on("data", (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop().slice(-64_000);
    lines.forEach((line) => onLine(line));
  });
}
