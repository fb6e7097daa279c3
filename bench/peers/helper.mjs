// A Node process beside the benchmark that answers messages, and what a process has cost.
//
// Nothing that is measured, or measures, shares an event loop with anything else. A helper ends when this process does.

import { fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** USER_HZ, in which /proc counts: 100 on every Linux that Node runs on. */
const TICK_MS = 10;

/** `{ pid, ask(message), close() }`; `ask` resolves to what the script answers and rejects with its error. */
export function startHelper(script) {
  const child = fork(fileURLToPath(new URL(script, import.meta.url)), { execArgv: [] });
  const waiting = new Map();
  let last = 0;
  child.on("message", ({ id, value, error }) => {
    const { resolve, reject } = waiting.get(id) ?? {};
    waiting.delete(id);
    if (error === undefined) resolve?.(value);
    else reject?.(new Error(error));
  });
  const gone = new Promise((resolve) => child.once("exit", resolve));
  gone.then(() => waiting.forEach(({ reject }) => reject(new Error(`${script} ended`))));
  return {
    pid: child.pid,
    ask(message) {
      const id = (last += 1);
      return new Promise((resolve, reject) => {
        waiting.set(id, { resolve, reject });
        child.send({ id, ...message });
      });
    },
    async close() {
      if (child.connected) child.disconnect();
      await gone;
    },
  };
}

/** Milliseconds of CPU, in user and kernel mode, that a process has used since it began. */
export function cpuMs(pid) {
  const text = readFileSync(`/proc/${pid}/stat`, "latin1");
  // The name, in parentheses, may hold spaces.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}
