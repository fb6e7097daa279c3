// npm's http-cache-tests (the suite of cache-tests.fyi) against the built Worker in `http` mode, beside nginx and varnish.
//
// A required case is one that RFC 9111 has an opinion about; a case that needs a browser's cache is left out. What does not
// pass is in remaining.mjs with its reason, and a case that fails without being there misses the target.

import path from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "../../dev/setup/exec.mjs";
import { BREAKING } from "./breaking.mjs";
import { edgeweir, freePort, listening, nginx, started, varnish } from "../caches.mjs";
import { REMAINING } from "./remaining.mjs";

const LEAST_PASSED = 150;
const FOLDER = path.dirname(fileURLToPath(import.meta.url));
const CLIENT = path.join(FOLDER, "client.mjs");
const KINDS = ["required", "optimal", "check"];
/** Verdicts that say something about the run and nothing about the cache. */
const SPOILED = ["setup", "harness", "retry", "untested"];

const POLICY = {
  // A hundred cases run at once: what a busy machine does to Redis' time is no verdict on the cache.
  defaults: { limit: [], timeout: { redis: "5s" } },
  route: [{ name: "pages", match: "GET /test/{rest...}", cache: { mode: "http" } }],
};
const CACHES = [
  ["edgeweir", (origin) => edgeweir(origin, { name: "Edgeweir, mode = \"http\"", policy: POLICY })],
  ["nginx", (origin) => nginx(origin, { directives: ["proxy_cache_revalidate on"] })],
  ["varnish", (origin) => varnish(origin, { parameters: ["default_ttl=0", "default_grace=0", "default_keep=3600"] })],
];

export async function bench() {
  const port = await freePort();
  const server = started("node", [path.join(FOLDER, "origin.mjs")], {
    stdio: "ignore",
    env: { ...process.env, npm_config_protocol: "http", npm_config_port: String(port), npm_config_pidfile: "/dev/null" },
  });
  const rows = [];
  try {
    await listening(port, server.child);
    for (const [name, start] of CACHES) {
      const cache = await start(`http://127.0.0.1:${port}`);
      if (cache === null) {
        rows.push({ name, cases: null });
        continue;
      }
      try {
        rows.push({ name: cache.name, cases: await cases(cache.urls[0]) });
      } finally {
        await cache.stop();
      }
    }
  } finally {
    await server.stop();
  }
  return report(rows);
}

async function cases(url) {
  const rows = await client(url);
  for (const id of BREAKING) rows.push(...(await client(url, id)));
  return rows;
}

async function client(...args) {
  const { code, output } = await run("node", ["--no-warnings", CLIENT, ...args]);
  const start = output.indexOf("[{");
  if (code !== 0 || start < 0) throw new Error(`the suite ended with ${code}: ${output.slice(-500)}`);
  return JSON.parse(output.slice(start));
}

function report(rows) {
  const ours = rows[0].cases;
  const failing = ours.filter((test) => test.kind === "required" && test.verdict !== "pass");
  const unlisted = failing.filter((test) => REMAINING[test.id] === undefined);
  const outdated = Object.keys(REMAINING).filter((id) => !failing.some((test) => test.id === id));
  const spoiled = failing.filter((test) => SPOILED.includes(test.verdict) && REMAINING[test.id] === undefined);
  const passed = count(ours, "required");
  const met = passed >= LEAST_PASSED && unlisted.length === 0 && outdated.length === 0 && spoiled.length === 0;
  const lines = [
    "Cases of npm's http-cache-tests 0.4.5 that pass; `required` is what RFC 9111 demands, `optimal` what a good cache does, `check` only how",
    "a cache behaves. All in front of the same origin, one after the other: nginx with `proxy_cache_revalidate`, varnish without the TTL and the",
    "grace that it gives what has none, since the suite counts cases that depend on that as failed.",
    "",
    `| cache | ${KINDS.join(" | ")} |`,
    "| --- | --- | --- | --- |",
    ...rows.map(({ name, cases }) => `| ${name} | ${KINDS.map((kind) => (cases ? `${count(cases, kind)} of ${total(cases, kind)}` : "not installed")).join(" | ")} |`),
    "",
    `Required cases passed: ${passed} (target ${LEAST_PASSED}): ${met ? "met" : "MISSED"}. The other ${failing.length}, with their reasons in \`bench/conformance/remaining.mjs\`:`,
    "",
    ...failing.map((test) => `- \`${test.id}\` (${test.verdict}): ${REMAINING[test.id] ?? `NOT LISTED: ${test.detail}`}`),
    ...outdated.map((id) => `- \`${id}\` is listed and passes: take it out.`),
  ];
  return { markdown: lines.join("\n"), figures: { rows, passed, unlisted: unlisted.map(({ id }) => id), outdated }, met };
}

const total = (cases, kind) => cases.filter((test) => test.kind === kind).length;
const count = (cases, kind) => cases.filter((test) => test.kind === kind && ["pass", "yes"].includes(test.verdict)).length;
