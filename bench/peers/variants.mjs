// What is compared: Edgeweir with more and more of its features, and the peer in two orders, on one route.
//
// All have the same listing under the same key for the same time, behind a sliding window of the same size by address that
// refuses nothing here. Each has addresses of its own, so that none counts on another's counters.

import { readFileSync } from "node:fs";
import path from "node:path";
import { build } from "esbuild";
import { BUILD_DIR, MODULES } from "../../dev/build.mjs";
import { ROOT } from "../../dev/setup/exec.mjs";
import { readSettings } from "../../dev/worker.mjs";
import { startWorkerd } from "./workerd.mjs";

export const LISTING_PATH = "/api/v1/community/books/top";
const LIMIT = 1_000_000;

/** Without Redis a hit comes from the isolate's own copy and is counted there: that costs no trip, and is not what is compared. */
const EDGEWEIR_HIT = { expected: "edgeweir; hit", unexpected: "edgeweir-degraded" };
/** The package lets a request pass when Redis took five seconds. */
const PEER_HIT = { expected: "x-cache: HIT", unexpected: "x-ratelimit-timeout" };
/** In the order of the table; `ours` and `peer` are the two that the targets of speed are about. */
export const VARIANTS = [
  { id: "ours", name: "Edgeweir", start: edgeweir({}, {}), ...EDGEWEIR_HIT },
  { id: "leases", name: "Edgeweir, leases and L1 (1 s, the default)", start: edgeweir({ lease: true }, {}), ...EDGEWEIR_HIT },
  { id: "l1", name: "Edgeweir, leases and L1 (5 s)", start: edgeweir({ lease: true }, { l1: "5s" }), ...EDGEWEIR_HIT },
  { id: "peer", name: "@upstash/ratelimit, then GET", start: peer("sequential"), ...PEER_HIT },
  { id: "together", name: "@upstash/ratelimit beside GET", start: peer("together"), ...PEER_HIT },
  { id: "floor", name: "the floor", start: floor, expected: "x-floor: 1" },
];

/** Edgeweir with the community's route of the built-in policy, plus these fields of its limit and of its cache rule. */
function edgeweir(limitFields, cacheFields) {
  const limit = { name: "default", requests: LIMIT, window: "60s", by: "ip", ...limitFields };
  const cache = { key: "books:top:all", ttl: "1h", stale: "2h", tags: ["books"], ...cacheFields };
  const policy = { route: [{ name: "top", match: `GET ${LISTING_PATH}`, limit: [limit], cache }] };
  return (bindings) => startWorkerd({
    modules: MODULES.map((name) => ({
      name,
      type: name.endsWith(".wasm") ? "wasm" : "esModule",
      content: readFileSync(path.join(BUILD_DIR, name)),
    })),
    bindings: { ...bindings, POLICY: JSON.stringify(policy) },
    ...settings(),
  });
}

function peer(order) {
  return async (bindings) => startWorkerd({
    modules: [{ name: "worker.mjs", type: "esModule", content: await bundle("worker.mjs") }],
    bindings: { ...bindings, LIMIT: String(LIMIT), WINDOW: "60 s", ORDER: order },
    ...settings(),
  });
}

async function floor(bindings) {
  return startWorkerd({ modules: [{ name: "worker.mjs", type: "esModule", content: await bundle("floor.mjs") }], bindings, ...settings() });
}

/** As wrangler bundles a Worker. */
async function bundle(script) {
  const { outputFiles } = await build({
    entryPoints: [path.join(ROOT, "bench/peers", script)],
    bundle: true,
    write: false,
    minify: true,
    format: "esm",
    target: "es2022",
    conditions: ["workerd", "worker", "browser"],
    logLevel: "error",
  });
  return outputFiles[0].contents;
}

const settings = () => readSettings(readFileSync(path.join(ROOT, "wrangler.toml"), "utf8"));
