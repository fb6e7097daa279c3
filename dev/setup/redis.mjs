// The redis-server program: found, or installed from Debian's packages or Homebrew. It starts none.
//
// Of Debian's packages it takes redis-tools: its redis-check-rdb is the same program as redis-server, which goes by the name
// that it is called by. The package redis-server would add a service that runs from then on.

import { mkdirSync, rmSync, symlinkSync } from "node:fs";
import path from "node:path";
import { ask, find, run, SetupError, TOOLS } from "./exec.mjs";
import { aptInstall } from "./apt.mjs";
import { step } from "./progress.mjs";

const OLDEST_MAJOR = 7;
const OTHERWISE = "Redis is missing: install Redis 7 or newer so that `redis-server` is on PATH, for example `brew install redis` or `apt-get install redis-server`.";

/**
 * Resolves with the path of a redis-server of version 7 or newer. `bin` is where the set-up puts its own; that folder then
 * comes last on PATH, so that whatever this process starts finds it by its name too.
 */
export async function ensureRedis({ env = process.env, bin = path.join(TOOLS, "bin") } = {}) {
  const found = find("redis-server", env) ?? find("redis-server", { ...env, PATH: bin }) ?? (await install(env, bin));
  if (path.dirname(found) === bin && find("redis-server", env) === null) env.PATH = [env.PATH, bin].filter(Boolean).join(path.delimiter);
  const version = parseVersion(await ask(found, ["--version"], { env }));
  if (version === null || version < OLDEST_MAJOR) {
    throw new SetupError(`${found} is too old: install Redis 7 or newer.`);
  }
  return found;
}

/** The major version in `Redis server v=7.0.15 sha=…`; null for anything else. */
export function parseVersion(text) {
  const major = /\bv=(\d+)\./.exec(text ?? "")?.[1];
  return major === undefined ? null : Number(major);
}

async function install(env, bin) {
  if (find("brew", env)) {
    await step("brew install redis", () => run("brew", ["install", "redis"], { env }));
  } else {
    await aptInstall(["redis-tools"], { otherwise: OTHERWISE, env });
    const program = find("redis-check-rdb", env);
    if (program) return link(program, path.join(bin, "redis-server"));
  }
  const found = find("redis-server", env);
  if (!found) throw new SetupError(OTHERWISE);
  return found;
}

function link(program, file) {
  mkdirSync(path.dirname(file), { recursive: true });
  rmSync(file, { force: true });
  symlinkSync(program, file);
  return file;
}
