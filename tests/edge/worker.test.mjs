// The workerd processes that dev/worker.mjs starts: each call its own, and none outlives the process that started it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { ROOT } from "../../dev/setup/exec.mjs";
import { startWorker } from "../../dev/worker.mjs";
import { get, until } from "./bed.mjs";

const isAlive = (pid) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

/** Each time on a connection of its own: one that was kept may be closed by now. */
const answers = (url) => get(url, "/", { agent: false }).then(() => true, () => false);

test("each call is a process of its own, and stop ends that one alone", async () => {
  const [one, two] = await Promise.all([startWorker(), startWorker()]);
  assert.notEqual(one.pid, two.pid);
  assert.notEqual(one.url, two.url);
  assert.equal(await answers(one.url), true);
  await one.stop();
  assert.equal(await answers(one.url), false);
  assert.equal(await answers(two.url), true);
  await two.stop();
  assert.equal(await answers(two.url), false);
});

test("a Worker without its variables answers 503, and says so to whoever listens to its log", async () => {
  const lines = [];
  const worker = await startWorker({ onLine: (line) => lines.push(line) });
  const response = await get(worker.url, "/");
  assert.equal(response.status, 503);
  assert.match(response.text, /UPSTASH_REDIS_REST_URL/);
  await until("the log names the variable", () => lines.some((line) => line.includes("UPSTASH_REDIS_REST_URL")));
  await worker.stop();
});

test("a Worker whose starter is killed ends too", async () => {
  const script = `import { startWorker } from ${JSON.stringify(path.join(ROOT, "dev/worker.mjs"))};
    const worker = await startWorker();
    console.log(JSON.stringify({ pid: worker.pid, url: worker.url }));`;
  const starter = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(createInterface(starter.stdout), "line");
  const { pid, url } = JSON.parse(line);
  assert.equal(isAlive(pid), true);
  assert.equal(await answers(url), true);
  starter.kill("SIGKILL");
  await until("workerd is gone", async () => !(await answers(url)));
});
