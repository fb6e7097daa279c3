// The npm packages of package-lock.json in node_modules: installed when one is missing or of another version.
//
// npm's own record of what it installed is compared with the lock file, so nothing is asked of npm when all is there.

import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { ROOT, run, SetupError, TOOLS } from "./exec.mjs";
import { step } from "./progress.mjs";

const OLDEST_NODE = [20, 10];

/** Installs the packages unless they are there. */
export async function ensureNodeModules({ root = ROOT, env = process.env } = {}) {
  requireNode(process.versions.node);
  if (isInstalled(root)) return;
  await step("npm ci", async () => {
    const log = path.join(TOOLS, "log", "npm-ci.log");
    const args = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
    const { code } = await run("npm", args, { cwd: root, env, log });
    if (code === 127) throw new SetupError("npm is missing: install Node.js 20 or newer with npm.");
    if (code !== 0 || !isInstalled(root)) {
      throw new SetupError(`The npm packages cannot be installed: run \`npm ci\` where the npm registry can be reached (its output is in ${path.relative(process.cwd(), log)}).`);
    }
  });
}

/** Whether this Node can run the tests. */
export function requireNode(version) {
  const [major, minor] = version.split(".").map(Number);
  if (major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1])) return;
  throw new SetupError(`Node.js ${version} is too old: install Node.js ${OLDEST_NODE.join(".")} or newer.`);
}

/** Whether node_modules holds what the lock file names; packages for other platforms are allowed to be absent. */
export function isInstalled(root) {
  const wanted = lockedPackages(path.join(root, "package-lock.json"));
  const present = lockedPackages(path.join(root, "node_modules", ".package-lock.json"));
  if (wanted === null) throw new SetupError("package-lock.json is missing or is not JSON: restore it from git.");
  if (present === null) return false;
  return Object.entries(wanted).every(([place, entry]) => {
    if (place === "") return true;
    const other = present[place];
    if (other === undefined) return entry.optional === true;
    return other.version === entry.version && existsSync(path.join(root, place, "package.json"));
  });
}

function lockedPackages(file) {
  try {
    return JSON.parse(readFileSync(file, "utf8")).packages ?? null;
  } catch {
    return null;
  }
}
