// A real redis-server of one's own, for development and tests: a free loopback port, a temporary directory, no persistence,
// no eviction.
//
// It ends with the process that started it, however that ends: an exit handler kills it by pid, and a small watcher, whose
// standard input closes when this process is gone, does the same after a crash. It never keeps this process alive, and
// touches no redis-server it did not start.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { find, TOOLS } from "../setup/exec.mjs";
import { RedisLink } from "./link.mjs";

/** A busy machine may hold it up for long; what cannot start ends by itself. */
const START_DEADLINE_MS = 120_000;
const STOP_DEADLINE_MS = 10_000;
const POLL_MS = 10;
/** Another process may take the free port between our asking for it and Redis' binding it. */
const MAX_ATTEMPTS = 5;
const WATCHER = 'read -r _; kill -KILL "$1" 2>/dev/null; rm -rf -- "$2"';

/** The machine's own, else the one that the set-up has put into the project. */
const program = () => find("redis-server") ?? find("redis-server", { PATH: join(TOOLS, "bin") }) ?? "redis-server";

const running = new Set();
process.on("exit", () => {
  for (const redis of running) redis.killNow();
});

/**
 * Starts a redis-server and resolves once it answers: `{ port, pid, stop(), kill() }`. `stop` ends it in order, `kill`
 * at once as a crash would; both resolve when it is gone. `args` go last on its command line, so they win over ours.
 * `port`: a fixed one, to come back where an earlier server was.
 */
export async function startRedisServer({ binary = program(), args = [], port } = {}) {
  let lastError;
  for (let attempt = 0; attempt < (port === undefined ? MAX_ATTEMPTS : 1); attempt += 1) {
    const redis = new RedisProcess({ binary, args, port: port ?? (await freePort()) });
    try {
      await redis.ready();
      return { port: redis.port, pid: redis.pid, stop: () => redis.end("SIGTERM"), kill: () => redis.end("SIGKILL") };
    } catch (error) {
      await redis.end("SIGKILL");
      lastError = error;
      if (error.code === "ENOENT") break;
    }
  }
  throw lastError;
}

class RedisProcess {
  #child;
  #watcher = null;
  #directory;
  #exited;
  #spawnError = null;
  #gone = false;

  constructor({ binary, args, port }) {
    this.port = port;
    this.#directory = mkdtempSync(join(tmpdir(), "edgeweir-redis-"));
    const own = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", this.#directory,
      "--logfile", "redis.log", "--daemonize", "no", "--maxmemory-policy", "noeviction"];
    // In a session of its own, Ctrl-C in the terminal reaches only this process, which stops Redis in order.
    const options = { stdio: "ignore", cwd: this.#directory, detached: true };
    this.#child = spawn(binary, [...own.map(String), ...args.map(String)], options);
    this.#child.unref();
    this.pid = this.#child.pid;
    this.#exited = new Promise((resolve) => {
      const gone = (error) => {
        this.#gone = true;
        if (error instanceof Error) this.#spawnError = error;
        running.delete(this);
        resolve();
      };
      this.#child.once("exit", gone);
      this.#child.once("error", gone);
    });
    if (this.pid === undefined) return;
    running.add(this);
    this.#watcher = spawn("/bin/sh", ["-c", WATCHER, "watcher", String(this.pid), this.#directory], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
    });
    this.#watcher.on("error", () => {}); // without a shell the exit handler still holds
    this.#watcher.stdin.on("error", () => {});
    this.#watcher.unref();
    this.#watcher.stdin.unref();
  }

  /** Resolves when the server on the port answers and is the one started here. */
  async ready() {
    const deadline = Date.now() + START_DEADLINE_MS;
    const link = new RedisLink({ port: this.port });
    try {
      while (Date.now() < deadline) {
        if (this.#gone) throw this.#failure();
        if (this.pid !== undefined && (await askPid(link)) === this.pid) return;
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
      throw new Error(`redis-server did not answer within ${START_DEADLINE_MS} ms`);
    } finally {
      link.close();
    }
  }

  #failure() {
    if (this.#spawnError === null) return new Error(`redis-server ended at once: ${this.#logTail()}`);
    const error = new Error(`redis-server cannot be started (${this.#spawnError.code}): install Redis 7, for example with apt-get install redis-server`);
    error.code = this.#spawnError.code;
    return error;
  }

  #logTail() {
    try {
      return readFileSync(join(this.#directory, "redis.log"), "utf8").trim().split("\n").slice(-3).join(" | ");
    } catch {
      return "it left no log";
    }
  }

  async end(signal) {
    if (!this.#gone) {
      this.#child.ref();
      this.#child.kill(signal);
      const timer = setTimeout(() => this.#child.kill("SIGKILL"), STOP_DEADLINE_MS);
      await this.#exited;
      clearTimeout(timer);
    }
    this.#cleanUp();
  }

  /** For the exit handler: nothing in it may wait. */
  killNow() {
    this.#child.kill("SIGKILL");
    this.#cleanUp();
  }

  #cleanUp() {
    this.#watcher?.kill("SIGKILL"); // before its pid argument can belong to anyone else
    this.#watcher = null;
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

async function askPid(link) {
  try {
    const [pong, info] = await link.send([["PING"], ["INFO", "server"]]);
    if (String(pong) !== "PONG") return undefined;
    return Number(/^process_id:(\d+)/m.exec(String(info))?.[1]);
  } catch {
    return undefined;
  }
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
