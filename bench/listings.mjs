// Origin time beside edge-hit time, for each of the ten listings and the home page, in one run.
//
// Origin and edge requests alternate, so that noise of the machine meets both. The edge is the
// built Worker in workerd with the built-in policy, limits included, over the HTTP endpoint and a
// real redis-server; the origin is the sample origin over its Postgres.

import http from "node:http";
import { performance } from "node:perf_hooks";
import { startRedisServer } from "../dev/redis/server.mjs";
import { startEndpointProcess } from "../dev/redis/process.mjs";
import { startOrigin } from "../dev/origin/server.mjs";
import { startWorker } from "../dev/worker.mjs";

export const LISTINGS = [
  ["Category tree", "/api/v1/book-categories/"],
  ["Top 5 of a parent", "/api/v1/book-categories/parent/business"],
  ["Books of a child", "/api/v1/book-categories/child/kinh-te-quan-ly?sort=views&page=1"],
  ["Search", "/api/v1/community/books/search?category=business&sort_by=views&limit=20"],
  ["Featured authors", "/api/v1/community/authors/featured"],
  ["Latest books", "/api/v1/community/books/latest"],
  ["Top books", "/api/v1/community/books/top"],
  ["Featured of the week", "/api/v1/community/books/featured-week"],
  ["Trending today", "/api/v1/community/books/trending-today"],
  ["Popular tags", "/api/v1/community/tags/popular"],
];

const HOME = "/api/v1/community/home";
const ORIGIN_ROUNDS = 9;
const EDGE_PER_ROUND = 40;
/** So many addresses share the load that no limit of the policy refuses the benchmark. */
const ADDRESSES = 40;

const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });

function timed(base, path, headers = {}) {
  const { hostname, port } = new URL(base);
  const begun = performance.now();
  return new Promise((resolve, reject) => {
    http.get({ hostname, port, path, agent, headers }, (response) => {
      let bytes = 0;
      response.on("data", (chunk) => (bytes += chunk.length));
      response.on("error", reject);
      response.on("end", () => resolve({
        ms: performance.now() - begun,
        bytes,
        status: response.statusCode,
        cache: response.headers["cache-status"] ?? "",
      }));
    }).on("error", reject);
  });
}

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
const summary = (samples) => {
  const sorted = [...samples].sort((a, b) => a - b);
  return { p50: quantile(sorted, 0.5), p95: quantile(sorted, 0.95), count: sorted.length };
};

const TARGET_MS = { listing: 5, home: 15 };
const ms = (value) => (value < 10 ? value.toFixed(2) : value.toFixed(0));

export async function bench() {
  const figures = await run();
  const head = ["listing", "origin p50 ms", "edge hit p50 ms", "edge hit p95 ms", "ratio", "bytes"];
  const lines = figures.rows.map((row) => [
    row.name, ms(row.origin.p50), ms(row.edge.p50), ms(row.edge.p95), `${row.ratio.toFixed(0)}x`, String(row.bytes),
  ]);
  const table = [head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
  const home = figures.rows.at(-1).edge.p50;
  const slowest = Math.max(...figures.rows.slice(0, -1).map((row) => row.edge.p50));
  const markdown = `Origin beside edge hit; the home page is ${figures.parts} calls to the origin, one to the edge.

${table}

Slowest hit p50 ${ms(slowest)} ms (target ${TARGET_MS.listing}), home page p50 ${ms(home)} ms (target ${TARGET_MS.home}).`;
  return { markdown, figures, met: slowest <= TARGET_MS.listing && home <= TARGET_MS.home };
}

/** Measures everything; throws when an edge answer was no hit, for then the figure means nothing. */
async function run() {
  const server = await startRedisServer();
  const endpoint = await startEndpointProcess({ redisPort: server.port, token: "bench" });
  const origin = await startOrigin();
  const worker = await startWorker({
    bindings: { UPSTASH_REDIS_REST_URL: endpoint.url, UPSTASH_REDIS_REST_TOKEN: "bench", ORIGIN_URL: origin.url, CACHE_KEY: Buffer.alloc(32, "bench").toString("base64") },
  });
  let sent = 0;
  const edge = (path) => timed(worker.url, path, { "cf-connecting-ip": `198.51.100.${sent++ % ADDRESSES}` });
  const hit = async (path) => {
    const answer = await edge(path);
    if (answer.status !== 200 || !answer.cache.includes("hit")) {
      throw new Error(`${path}: ${answer.status} ${answer.cache}`);
    }
    return answer;
  };
  const warm = async (path) => {
    await edge(path);
    for (let tries = 0; tries < 500; tries++) {
      const answer = await edge(path);
      if (answer.cache.includes("hit")) break;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    for (let n = 0; n < ADDRESSES; n++) await hit(path);
  };
  const measure = async (name, path, fromOrigin) => {
    await warm(path);
    await fromOrigin();
    const slow = [];
    const fast = [];
    let bytes = 0;
    for (let round = 0; round < ORIGIN_ROUNDS; round++) {
      slow.push(await fromOrigin());
      for (let n = 0; n < EDGE_PER_ROUND; n++) {
        const answer = await hit(path);
        fast.push(answer.ms);
        bytes = answer.bytes;
      }
    }
    const [originTime, edgeTime] = [summary(slow), summary(fast)];
    return { name, path, bytes, origin: originTime, edge: edgeTime, ratio: originTime.p50 / edgeTime.p50 };
  };
  try {
    const rows = [];
    for (const [name, path] of LISTINGS) {
      rows.push(await measure(name, path, async () => (await timed(origin.url, path)).ms));
    }
    const parts = homeParts(JSON.parse(await text(worker.url, HOME)));
    rows.push(await measure("Home page", HOME, async () => {
      const begun = performance.now();
      await Promise.all(parts.map((path) => timed(origin.url, path)));
      return performance.now() - begun;
    }));
    return { parts: parts.length, rows };
  } finally {
    await worker.stop();
    await origin.close();
    await endpoint.close();
    await server.stop();
  }
}

/** The calls that the home page makes today, for what its composed answer holds. */
function homeParts(home) {
  const of = (prefix) => LISTINGS.find(([, path]) => path.includes(prefix))[1];
  const sliders = Object.keys(home.sliders).map((parent) => `/api/v1/book-categories/parent/${parent}`);
  return [of("/book-categories/"), ...sliders, of("trending-today"), of("authors/featured"), of("tags/popular")];
}

async function text(base, path) {
  const response = await fetch(new URL(path, base), { headers: { "cf-connecting-ip": "198.51.100.250" } });
  return response.text();
}
