// Debian's packages: what apt-get can install for the set-up, and the sentence for when it cannot.
//
// Package lists are fetched only when an install fails without them. Installs happen one after the other, since apt's lock
// admits one at a time. Where there is no apt-get, or no right to use it, nothing is tried.

import path from "node:path";
import { ask, find, run, SetupError, TOOLS } from "./exec.mjs";
import { step } from "./progress.mjs";

let last = Promise.resolve();

/** Installs packages; `otherwise` is the sentence for a machine on which that is impossible. */
export function aptInstall(packages, { otherwise, env = process.env }) {
  const mine = last.then(() => install(packages, { otherwise, env }));
  last = mine.catch(() => {});
  return mine;
}

/** `["sudo", "-n"]`, or nothing for root; null when neither works. */
export async function rootPrefix(env = process.env) {
  if (process.getuid?.() === 0) return [];
  return find("sudo", env) && (await ask("sudo", ["-n", "true"], { env })) !== null ? ["sudo", "-n"] : null;
}

async function install(packages, { otherwise, env }) {
  const prefix = find("apt-get", env) && (await rootPrefix(env));
  if (!prefix) throw new SetupError(otherwise);
  const names = packages.join(" ");
  const log = path.join(TOOLS, "log", `apt-${packages[0]}.log`);
  await step(`apt-get install ${names}`, async () => {
    const attempt = (...args) => asRoot(prefix, ["apt-get", ...args], { env, log });
    const wanted = ["install", "-y", "--no-install-recommends", ...packages];
    if ((await attempt(...wanted)).code === 0) return;
    // Sources that cannot be reached make this fail although the others were read: the install decides.
    await attempt("update");
    if ((await attempt(...wanted)).code === 0) return;
    throw new SetupError(`apt-get cannot install ${names} (its output is in ${path.relative(process.cwd(), log)}): ${otherwise}`);
  });
}

/** Runs a command as root by the prefix that `rootPrefix` gave. */
export function asRoot(prefix, command, { env = process.env, log } = {}) {
  // Through env(1), since sudo drops the variables of its caller. Runlevel 1: no service is started by its installation.
  const [program, ...args] = [...prefix, "env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", ...command];
  return run(program, args, { env, log });
}
