// The npm that runs this process: when it is ended, so are we.
//
// npm passes a signal to the shell it started, and a shell that dies of it leaves its own child running. Without npm there
// is nothing to watch: `nohup node …` outlives its terminal as it should.

import { readFileSync } from "node:fs";
import { ask } from "./exec.mjs";

const POLL_MS = 500;

/** Calls `gone` once when the npm that started this process is no more. It never keeps the process alive. */
export async function whenLauncherEnds(gone) {
  if (process.env.npm_lifecycle_event === undefined) return;
  const parent = process.ppid;
  const npm = await npmAbove(parent);
  const timer = setInterval(() => {
    if (process.ppid === parent && (npm === null || isAlive(npm))) return;
    clearInterval(timer);
    gone();
  }, POLL_MS);
  timer.unref();
}

/** npm's pid when a shell is between it and us; null when the parent is npm itself. */
async function npmAbove(parent) {
  const text = process.platform === "linux" ? procStat(parent) : await ask("ps", ["-o", "ppid=,comm=", "-p", String(parent)]);
  const [, grandparent, name] = /^\s*(\d+)\s+(\S+)/.exec(text ?? "") ?? [];
  return name !== undefined && /(^|\/)(sh|dash|bash|zsh)$/.test(name) ? Number(grandparent) : null;
}

/** `PPID NAME` of a process, as `ps` would print it. */
function procStat(pid) {
  try {
    const [, name, grandparent] = /^\d+ \((.*)\) \S (\d+)/s.exec(readFileSync(`/proc/${pid}/stat`, "utf8"));
    return `${grandparent} ${name}`;
  } catch {
    return null;
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}
