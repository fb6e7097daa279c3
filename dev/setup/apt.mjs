// Debian's packages: what apt-get can install for the set-up, and the sentence for when it cannot.
//
// Package lists are fetched before the first install: old ones name old versions, or versions that are gone. Installs happen
// one after the other, since apt's lock admits one at a time. Where there is no apt-get, or no right to use it, nothing is tried.

import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, rmSync } from "node:fs";
import path from "node:path";
import { ask, find, ROOT, searchEnv, SetupError, TOOLS } from "./exec.mjs";
import { step } from "./progress.mjs";

/** A machine that has just booted may be upgrading itself: its lock is waited for. Nothing is removed to make room. */
const OPTIONS = ["-y", "--no-install-recommends", "--no-remove", "-o", "DPkg::Lock::Timeout=300"];

let last = Promise.resolve();
let listsAreFresh = false;

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

/** `otherwise`, and how to let the set-up do it where only sudo's password is missing. */
export function withoutRights(otherwise, env = process.env) {
  if (!find("apt-get", env) || !find("sudo", env)) return otherwise;
  return `${otherwise.slice(0, -1)} (or run \`sudo -v\` and this command again, which then installs it).`;
}

async function install(packages, { otherwise, env }) {
  if (!find("apt-get", env)) throw new SetupError(otherwise);
  const prefix = await rootPrefix(env);
  if (prefix === null) throw new SetupError(withoutRights(otherwise, env));
  const names = packages.join(" ");
  const log = path.join(TOOLS, "log", `apt-${packages[0]}.log`);
  rmSync(log, { force: true });
  await step(`apt-get install ${names}`, async () => {
    const apt = (...args) => asRoot(prefix, ["apt-get", ...args], { env, log });
    // Sources that cannot be reached make this fail although the others were read: the install decides.
    if (!listsAreFresh) await apt("update");
    listsAreFresh = true;
    const { code } = await apt("install", ...OPTIONS, ...packages);
    if (code !== 0) {
      throw new SetupError(`apt-get cannot install ${names} (its output is in ${path.relative(process.cwd(), log)}): ${otherwise}`);
    }
  });
}

/**
 * Runs a command as root by the prefix that `rootPrefix` gave: `{ code }`; its output goes to the end of `log`.
 * It is in a session of its own and writes to no pipe of ours, so that it comes to its end even when this process does not
 * wait for it: a package that is installed by half would be worse than one installed in vain.
 */
export function asRoot(prefix, command, { env = process.env, log } = {}) {
  // Through env(1), since sudo drops the variables of its caller.
  const [program, ...args] = [...prefix, "env", "DEBIAN_FRONTEND=noninteractive", "setsid", "--wait", ...command];
  if (log) mkdirSync(path.dirname(log), { recursive: true });
  const output = log ? openSync(log, "a") : "ignore";
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd: ROOT, env: searchEnv(env), stdio: ["ignore", output, output] });
    child.once("error", () => resolve({ code: 127 }));
    child.once("exit", (code) => resolve({ code: code ?? 1 }));
    if (log) closeSync(output);
  });
}
