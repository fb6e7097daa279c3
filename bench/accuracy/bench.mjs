// The accuracy lab: how near each limiter comes to an exact log, and how far it goes above its limit.
//
// Virtual time, seeded (EDGEWEIR_SEED), nothing waits. Our limiter and the textbook models run natively (main.rs and its
// neighbours, over the test suite's simulated Redis); the real @upstash/ratelimit runs here on the same requests
// (peer.mjs, over a real redis-server). main.rs scores all of them in the same way.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import Redis from "ioredis";
import { startRedisServer } from "../../dev/redis/server.mjs";
import { ROOT, run, SetupError } from "../../dev/setup/exec.mjs";
import { ensureRust } from "../../dev/setup/rust.mjs";
import { step } from "../../dev/setup/progress.mjs";
import { LIMITERS, mockClock, replay } from "./peer.mjs";
import { checks, tables } from "./tables.mjs";

/** What its two halves tell each other, 50 MB: gone when all is scored. */
const DIR = path.join(ROOT, "bench/results/accuracy");

export async function bench() {
  await ensureRust();
  mkdirSync(DIR, { recursive: true });
  await step("building the accuracy lab", () => cargo("--no-run"));
  await native("traces");
  const { seed, scenarios } = JSON.parse(readFileSync(path.join(DIR, "traces.json"), "utf8"));
  console.log(`EDGEWEIR_SEED=${seed}`);
  await Promise.all([native("native"), answers(scenarios)]);
  await native("score");
  const rows = ["native.json", "scored.json"].flatMap((name) => JSON.parse(readFileSync(path.join(DIR, name), "utf8")));
  rmSync(DIR, { recursive: true });
  const described = scenarios.map(({ arrivals, skews_us, ...described }) => ({ ...described, count: arrivals.length }));
  const named = rows.map((row) => ({ ...row, ...described[row.scenario] }));
  const held = checks(named);
  const markdown = tables(named, held, seed);
  return { markdown, figures: { seed, checks: held, rows: named }, met: held.every(({ met }) => met) };
}

/** Runs the native half, which writes its files itself. */
const native = (command) => cargo("--", command, DIR);

async function cargo(...args) {
  const { code, output } = await run("cargo", ["bench", "--quiet", "--profile", "lab", "--bench", "accuracy", ...args]);
  if (code !== 0) throw new SetupError(`The accuracy lab's native half failed:\n${output.trim()}`);
}

/** What the limiters that are not native answer to each scenario, as `main.rs` reads it. */
async function answers(scenarios) {
  const server = await startRedisServer();
  const redis = new Redis({ host: "127.0.0.1", port: server.port });
  const clock = mockClock();
  try {
    const answered = [];
    for (const [index, scenario] of scenarios.entries()) {
      if (scenario.is_for_leases) continue;
      for (const limiter of LIMITERS) {
        const { outcomes, commands } = await replay(redis, clock, scenario, limiter);
        answered.push({ scenario: index, limiter: limiter.name, bound: limiter.bound, commands, outcomes });
      }
    }
    writeFileSync(path.join(DIR, "answers.json"), JSON.stringify(answered));
  } finally {
    clock.restore();
    redis.disconnect();
    await server.stop();
  }
}
