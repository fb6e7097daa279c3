// `npm run bench`: side-by-side figures, printed as tables and written to bench/results/.
//
// `npm run bench -- NAME…` runs only those. Each is a module beside this one, or a folder, with a
// function `bench` that answers `{ markdown, figures, met }`: the table for people, the same for
// programs, and whether every target was met.

import { mkdirSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { buildWorker } from "../dev/build.mjs";
import { SetupError } from "../dev/setup/exec.mjs";
import { ensureNodeModules } from "../dev/setup/packages.mjs";
import { main } from "../dev/setup/progress.mjs";
import { ensureRedis } from "../dev/setup/redis.mjs";

const RESULTS = path.join(path.dirname(fileURLToPath(import.meta.url)), "results");
const BENCHES = {
  accuracy: "./accuracy/bench.mjs",
  cache: "./cache/bench.mjs",
  conformance: "./conformance/bench.mjs",
  listings: "./listings.mjs",
  peers: "./peers/bench.mjs",
  views: "./views.mjs",
};

await main(async () => {
  const names = process.argv.slice(2);
  const unknown = names.find((name) => !Object.hasOwn(BENCHES, name));
  if (unknown !== undefined) {
    throw new SetupError(`There is no benchmark \`${unknown}\`: name some of ${Object.keys(BENCHES).join(", ")}.`);
  }
  await Promise.all([ensureNodeModules(), ensureRedis()]);
  await buildWorker();
  mkdirSync(RESULTS, { recursive: true });
  for (const name of names.length > 0 ? names : Object.keys(BENCHES)) {
    console.log(`\n== ${name}, one run, ${os.cpus().length} cores`);
    // What it imports may have been installed a moment ago.
    const { bench } = await import(BENCHES[name]);
    try {
      const { markdown, figures, met } = await bench();
      console.log(`\n${markdown}`);
      writeFileSync(path.join(RESULTS, `${name}.md`), `${markdown}\n`);
      writeFileSync(path.join(RESULTS, `${name}.json`), `${JSON.stringify(figures, null, 2)}\n`);
      if (!met) process.exitCode = 1;
    } catch (error) {
      // The next one can still be had.
      console.error(error);
      process.exitCode = 1;
    }
  }
});
