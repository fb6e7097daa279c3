// Which core a process runs on.
//
// With more processes than cores the scheduler moves them about, and the table shows that, too: the same Worker was a tenth
// faster or slower from run to run. So what is measured is pinned to one core, and all that measures to another.

import { readFileSync } from "node:fs";
import { run } from "../../dev/setup/exec.mjs";

/** Whether they are pinned: not where this process may use one core only, or there is no `taskset` (util-linux). */
export async function pin({ workers, harness }) {
  const allowed = cores();
  if (allowed.length < 2) return false;
  const [workerCore, harnessCore] = allowed;
  const plan = [...workers.map((pid) => [pid, workerCore]), ...harness.map((pid) => [pid, harnessCore])];
  for (const [at, [pid, core]] of plan.entries()) {
    if (await set(pid, `${core}`)) continue;
    for (const [pinned] of plan.slice(0, at)) await set(pinned, allowed.join(","));
    return false;
  }
  return true;
}

/** Also of the threads that it has already; those to come get its cores. */
async function set(pid, list) {
  return (await run("taskset", ["--all-tasks", "--cpu-list", "--pid", list, String(pid)])).code === 0;
}

/** Those that this process may use: `0-1,4` is three. */
function cores() {
  const [, list] = /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync("/proc/self/status", "latin1")) ?? [];
  return (list ?? "").split(",").filter(Boolean).flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, n) => first + n);
  });
}
