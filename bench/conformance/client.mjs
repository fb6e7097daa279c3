// One run of the npm package http-cache-tests against one cache: `node client.mjs BASE_URL [CASE]`, JSON to standard output.
//
// A process for each run, since the package keeps its results in module variables.

import http from "node:http";
import { createRequire } from "node:module";
import { writeFileSync } from "node:fs";
import { getResults, runTests } from "http-cache-tests/client/runner.mjs";
import { determineTestResult } from "http-cache-tests/lib/display.mjs";
import all from "http-cache-tests/tests/index.mjs";
import surrogate from "http-cache-tests/tests/surrogate-control.mjs";
import { BREAKING } from "./breaking.mjs";

// The suite is written for this client: others add fields of their own to a request. It does not ask for compression, which
// workerd's stand-in for Cloudflare's edge would apply to every answer behind the Worker, and its length would be gone.
const plain = createRequire(import.meta.resolve("http-cache-tests/package.json"))("node-fetch");
// Each request has a connection of its own: a cache may end one that is idle, and a request on it would fail by chance.
const agent = new http.Agent({ keepAlive: false });
const fetch = (url, init) => plain(url, { ...init, agent, compress: false });
const [base, alone] = process.argv.slice(2);
/** By the package's own symbols. */
const VERDICTS = { "✅": "pass", "⛔️": "fail", "⚠️": "optional", Y: "yes", N: "no", "🔹": "setup", "⁉️": "harness", "⚪️": "dependency", "↻": "retry", "-": "untested" };

const suites = [...all, surrogate];
const isMine = (test) => (alone === undefined ? !BREAKING.includes(test.id) : test.id === alone);
const mine = suites.map((suite) => ({ ...suite, tests: suite.tests.filter(isMine) }));
await runTests(mine, fetch, false, base);
const results = getResults();
const rows = mine
  .flatMap((suite) => suite.tests.map((test) => ({ suite: suite.id, ...test })))
  .filter((test) => test.browser_only !== true)
  .map((test) => ({
    id: test.id,
    suite: test.suite,
    kind: test.kind ?? "required",
    verdict: VERDICTS[determineTestResult(suites, test.id, results, alone === undefined)[2]],
    detail: results[test.id] === true ? "" : String(results[test.id]?.[1] ?? ""),
  }));
writeFileSync(1, JSON.stringify(rows));
process.exit(0); // connections that a case broke are still open
