// Which core a process runs on.
//
// With more processes than cores the scheduler moves them about, and the table shows that, too: the same Worker was a tenth
// faster or slower from run to run. What is measured gets a core of its own, as it has in production; all that measures shares another.

import { cpus } from "node:os";
import { run } from "../../dev/setup/exec.mjs";

const WORKER_CORE = 0;
const HARNESS_CORE = 1;

/** Whether they are held: not where there is one core, or no `taskset` (util-linux). */
export async function hold({ workers, harness }) {
  if (cpus().length < 2) return false;
  const held = [...workers.map((pid) => [pid, WORKER_CORE]), ...harness.map((pid) => [pid, HARNESS_CORE])];
  // One after the other: a process that ends meanwhile is an error of its own.
  for (const [pid, core] of held) {
    const { code } = await run("taskset", ["--all-tasks", "--cpu-list", "--pid", String(core), String(pid)]);
    if (code !== 0) return false;
  }
  return true;
}
