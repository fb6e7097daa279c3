// What a cache does in the moments that matter, beside nginx and varnish: a cold key that everybody wants, answers that may not
// be shared, a leader that goes away, an origin that is down.
//
// One origin, one load generator, each a process of its own. The caches take turns in every round, so that noise meets all of
// them. Edgeweir runs in four workerd processes on one Redis and nginx in four workers; varnish has threads.

import { edgeweir, nginx, varnish } from "../caches.mjs";
import { startHelper } from "../peers/helper.mjs";

const PROCESSES = 4;
const ORIGIN_MS = 300;
const ROUNDS = 7;
const COLD_CLIENTS = 200;
const PRIVATE_CLIENTS = 100;
const RESET_CLIENTS = 100;
const DOWN_CLIENTS = 100;
/** Past the second for which `/short/…` is fresh. */
const EXPIRED_MS = 1_500;
const TARGETS = { coldExtraMs: 60, firstPrivate: 2.4, nextPrivate: 1.3 };

const POLICY = {
  defaults: { limit: [] },
  route: [
    { name: "shared", match: "GET /shared/{id}", cache: { key: "shared:{id}", ttl: "1m", stale: "1h" } },
    { name: "short", match: "GET /short/{id}", cache: { key: "short:{id}", ttl: "1s", stale: "1h" } },
    { name: "private", match: "GET /private/{id}", cache: { key: "private:{id}", ttl: "1m" } },
  ],
};
const STALE = ["proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504", "proxy_cache_background_update on"];
const LOCK = ["proxy_cache_lock on", "proxy_cache_lock_timeout 10s", "proxy_cache_lock_age 10s"];
const CACHES = [
  ["Edgeweir", (origin) => edgeweir(origin, { policy: POLICY, processes: PROCESSES })],
  ["nginx", (origin) => nginx(origin, { directives: STALE, processes: PROCESSES })],
  ["nginx, lock", (origin) => nginx(origin, { suffix: ", lock", directives: [...STALE, ...LOCK], processes: PROCESSES })],
  ["varnish", (origin) => varnish(origin, { parameters: ["default_grace=3600"] })],
];

/** What is done in each round, in this order; `{ path, clients, resetFirst }` for the load generator. */
const BURSTS = {
  cold: (round) => ({ path: `/shared/cold-${round}`, clients: COLD_CLIENTS }),
  warm: (round) => ({ path: `/shared/cold-${round}`, clients: COLD_CLIENTS }),
  first: (round) => ({ path: `/private/burst-${round}`, clients: PRIVATE_CLIENTS }),
  next: (round) => ({ path: `/private/burst-${round}`, clients: PRIVATE_CLIENTS }),
  reset: (round) => ({ path: `/shared/reset-${round}`, clients: RESET_CLIENTS, resetFirst: true }),
};

export async function bench() {
  const origin = startHelper("../cache/origin.mjs");
  const load = startHelper("../cache/load.mjs");
  const caches = [];
  const skipped = [];
  try {
    const port = await origin.ask({ action: "start", delayMs: ORIGIN_MS });
    for (const [name, start] of CACHES) {
      const cache = await start(`http://127.0.0.1:${port}`);
      if (cache === null) skipped.push(name);
      else caches.push(cache);
    }
    return report(await measure({ origin, load, caches }), skipped);
  } finally {
    for (const cache of caches) await cache.stop();
    await load.close();
    await origin.close();
  }
}

async function measure({ origin, load, caches }) {
  const results = caches.map(({ name }) => ({ name, bursts: {} }));
  const burst = async (at, kind, message) => {
    await origin.ask({ action: "forget" });
    const { samples, statuses } = await load.ask({ ...message, urls: caches[at].urls });
    const kept = (results[at].bursts[kind] ??= { samples: [], statuses: {}, fetches: [] });
    kept.samples.push(...samples);
    for (const [status, n] of Object.entries(statuses)) kept.statuses[status] = (kept.statuses[status] ?? 0) + n;
    kept.fetches.push((await origin.ask({ action: "counts" }))[message.path] ?? 0);
  };
  const everyCache = async (kind, message) => {
    for (const at of caches.keys()) await burst(at, kind, message);
  };
  // Isolates and connections are there before anything counts.
  await everyCache("ready", { path: "/shared/ready", clients: COLD_CLIENTS });
  await everyCache("ready", { path: "/shared/ready", clients: COLD_CLIENTS });
  for (let round = 0; round < ROUNDS; round++) {
    for (const at of caches.keys()) {
      for (const [kind, message] of Object.entries(BURSTS)) await burst(at, kind, message(round));
      // Whatever a cache does after its answers is done, and the next one has the machine for itself.
      await pause(ORIGIN_MS);
    }
  }
  await everyCache("before", { path: "/short/down", clients: 1 });
  await pause(EXPIRED_MS);
  await origin.ask({ action: "down" });
  for (let round = 0; round < ROUNDS; round++) await everyCache("down", { path: "/short/down", clients: DOWN_CLIENTS });
  await origin.ask({ action: "up" });
  return results;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function p50(samples) {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

function report(results, skipped) {
  const rows = results.map(({ name, bursts }) => ({
    name,
    ...Object.fromEntries([...Object.keys(BURSTS), "down"].map((kind) => {
      const { samples, statuses, fetches } = bursts[kind];
      const answered = statuses[200] ?? 0;
      return [kind, { p50: p50(samples), fetches: Math.max(...fetches), failed: samples.length - answered }];
    })),
  }));
  const ours = rows[0];
  const verdicts = [
    verdict("cold key: fetches of the origin", ours.cold.fetches, 1),
    verdict("cold key: p50 beyond the origin's time and the warm burst's p50, ms", ours.cold.p50 - ORIGIN_MS - ours.warm.p50, TARGETS.coldExtraMs),
    verdict("uncacheable burst, first time: p50, of the origin's time", ours.first.p50 / ORIGIN_MS, TARGETS.firstPrivate),
    verdict("uncacheable burst, next time: p50, of the origin's time", ours.next.p50 / ORIGIN_MS, TARGETS.nextPrivate),
    verdict("leader reset: fetches of the origin", ours.reset.fetches, 1),
    verdict("answers that were no 200, in all bursts", [...Object.keys(BURSTS), "down"].reduce((sum, kind) => sum + ours[kind].failed, 0), 0),
  ];
  const head = [
    "cache", `cold, ${COLD_CLIENTS} clients`, "the same, warm", `uncacheable, ${PRIVATE_CLIENTS}`, "the same again",
    `leader reset, ${RESET_CLIENTS}`, `origin down, ${DOWN_CLIENTS}`,
  ];
  const lines = rows.map((row) => [row.name, cell(row.cold), cell(row.warm), cell(row.first), cell(row.next), cell(row.reset), cell(row.down)]);
  const table = [head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
  const markdown = [
    `Bursts at once, in front of an origin that takes ${ORIGIN_MS} ms: p50 in ms of ${ROUNDS} rounds, the most fetches of the origin in one round, and how many of
all answers were no 200. Origin down: past the entry's freshness, with the origin's port closed.`,
    table,
    [...verdicts.map(({ what, value, target, met }) => `- ${what}: ${round(value)} (target at most ${target}): ${met ? "met" : "MISSED"}`),
      ...skipped.map((name) => `- not installed: ${name}`)].join("\n"),
  ].join("\n\n");
  return { markdown, figures: { originMs: ORIGIN_MS, rows, verdicts, skipped }, met: verdicts.every(({ met }) => met) };
}

const round = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(2));
const verdict = (what, value, target) => ({ what, value, target, met: value <= target });

function cell({ p50, fetches, failed }) {
  const parts = [`${p50.toFixed(0)} ms`, `${fetches} ${fetches === 1 ? "fetch" : "fetches"}`];
  return [...parts, ...(failed > 0 ? [`${failed} failed`] : [])].join(", ");
}
