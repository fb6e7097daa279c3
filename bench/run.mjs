// `npm run bench`: side-by-side figures, printed as tables and written to bench/results/.

import { mkdirSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.dirname(here);

const { ensureNodeModules } = await import("../dev/setup/packages.mjs");
await ensureNodeModules();
const { ensureRedis } = await import("../dev/setup/redis.mjs");
await ensureRedis();
const { buildWorker } = await import("../dev/build.mjs");
await buildWorker();
const { run } = await import("./listings.mjs");

const ms = (value) => (value < 10 ? value.toFixed(2) : value.toFixed(0));

function table({ rows }) {
  const head = ["listing", "origin p50 ms", "edge hit p50 ms", "edge hit p95 ms", "ratio", "bytes"];
  const lines = rows.map((row) => [
    row.name, ms(row.origin.p50), ms(row.edge.p50), ms(row.edge.p95), `${row.ratio.toFixed(0)}x`, String(row.bytes),
  ]);
  return [head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

const result = await run();
const markdown = table(result);
console.log(`\nOrigin beside edge hit, one run, ${os.cpus().length} cores; the home page is ${result.parts} calls to the origin, one to the edge.\n`);
console.log(markdown);
const home = result.rows.at(-1);
const slowest = Math.max(...result.rows.slice(0, -1).map((row) => row.edge.p50));
console.log(`\nslowest hit p50 ${ms(slowest)} ms (target 5), home page p50 ${ms(home.edge.p50)} ms (target 15)`);
const results = path.join(root, "bench", "results");
mkdirSync(results, { recursive: true });
writeFileSync(path.join(results, "listings.json"), `${JSON.stringify(result, null, 2)}\n`);
writeFileSync(path.join(results, "listings.md"), `${markdown}\n`);
process.exitCode = slowest <= 5 && home.edge.p50 <= 15 ? 0 : 1;
