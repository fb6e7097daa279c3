// The redis-server program: found, or installed from Debian's packages or Homebrew. It starts none.

import { ask, find, run, SetupError } from "./exec.mjs";
import { aptInstall } from "./apt.mjs";
import { step } from "./progress.mjs";

const OLDEST_MAJOR = 7;
const OTHERWISE = "Redis is missing: install Redis 7 or newer so that `redis-server` is on PATH, for example `brew install redis` or `apt-get install redis-server`.";

/** Resolves with the path of a redis-server of version 7 or newer. */
export async function ensureRedis({ env = process.env } = {}) {
  const found = find("redis-server", env) ?? (await install(env));
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

async function install(env) {
  if (find("brew", env)) {
    await step("brew install redis", () => run("brew", ["install", "redis"], { env }));
  } else {
    await aptInstall(["redis-server"], { otherwise: OTHERWISE, env });
  }
  const found = find("redis-server", env);
  if (!found) throw new SetupError(OTHERWISE);
  return found;
}
