// Views: what counting adds to an answer, what a million buffered items take, and what sending them costs.
//
// The same workerd, Redis and endpoint for all. Two Workers answer one cached listing, one of them counts it: they are asked in
// turn, each time by a visitor who was not there before, so that every answer is counted. Then a million items with one view
// each are put into Redis as the Worker puts them, and runs of the sync send them to an origin that only counts.

import { readFileSync } from "node:fs";
import http from "node:http";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { BUILD_DIR, MODULES } from "../dev/build.mjs";
import { ROOT } from "../dev/setup/exec.mjs";
import { RedisLink } from "../dev/redis/link.mjs";
import { startEndpointProcess } from "../dev/redis/process.mjs";
import { startRedisServer } from "../dev/redis/server.mjs";
import { readSettings } from "../dev/worker.mjs";
import { cpuMs } from "./peers/helper.mjs";
import { startWorkerd } from "./peers/workerd.mjs";

const ITEMS = Number(process.env.EDGEWEIR_VIEWS_ITEMS ?? 1_000_000);
const PAIRS = 4_000;
const ROUNDS = 5;
const MAX_RATIO = 1.05;
const MAX_SUBREQUESTS = 50;
const TOKEN = "bench";
const DAY_MS = 86_400_000;
const BUCKETS = 16_384;
const POPULAR = { items: 10_000, views: 100 };

const settings = () => readSettings(readFileSync(path.join(ROOT, "wrangler.toml"), "utf8"));
const modules = () => MODULES.map((name) => ({ name, type: name.endsWith(".wasm") ? "wasm" : "esModule", content: readFileSync(path.join(BUILD_DIR, name)) }));

const agent = new http.Agent({ keepAlive: true });

function ask(port, target, { method = "GET", headers = {} } = {}) {
  const begun = performance.now();
  return new Promise((resolve, reject) => {
    const request = http.request({ port, path: target, method, headers, agent }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => resolve({ ms: performance.now() - begun, status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString() }));
      response.on("error", reject);
    });
    request.on("error", reject);
    request.end();
  });
}

export async function bench() {
  const opened = [];
  const open = async (starting, end) => {
    const part = await starting;
    opened.push(() => end(part));
    return part;
  };
  try {
    const redis = await open(startRedisServer(), (part) => part.stop());
    const link = await open(new RedisLink({ port: redis.port }), (part) => part.close());
    const endpoint = await open(startEndpointProcess({ redisPort: redis.port, token: TOKEN }), (part) => part.close());
    const origin = await open(startCounter(), (part) => part.close());
    const bindings = { UPSTASH_REDIS_REST_URL: endpoint.url, UPSTASH_REDIS_REST_TOKEN: TOKEN, ORIGIN_URL: origin.url, ADMIN_TOKEN: TOKEN };
    const start = (view) => open(startWorkerd({ modules: modules(), bindings: { ...bindings, POLICY: JSON.stringify(policy(view)) }, ...settings() }), (part) => part.stop());
    const [counting, plain] = [await start(true), await start(false)];
    const latency = await measureLatency(counting, plain, link);
    await link.send([["FLUSHALL"]]);
    const popular = await fill(link, POPULAR.items, POPULAR.views);
    await link.send([["FLUSHALL"]]);
    const million = await fill(link, ITEMS, 1);
    const runs = await drain(counting, link, origin);
    const figures = { latency, popular, million, runs };
    return { markdown: markdown(figures), figures, met: latency.ratio <= MAX_RATIO && runs.most.subrequests < MAX_SUBREQUESTS && runs.views === ITEMS };
  } finally {
    for (const end of opened.reverse()) await end();
  }
}

function policy(counts) {
  const route = { name: "story", match: "GET /stories/{id}", cache: { key: "story:{id}", ttl: "24h", tags: ["stories"] } };
  return { defaults: { limit: [{ name: "default", requests: 1_000_000, window: "60s", by: "ip" }] }, route: [{ ...route, ...(counts && { view: { story: "{id}" } }) }] };
}

/** An origin that answers a story, and adds up what batches say; a batch that comes again counts once. */
async function startCounter() {
  const known = new Set();
  const counter = { posts: 0, views: 0 };
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      let answer = { title: "story", text: "x".repeat(2_000) };
      if (request.method === "POST") {
        const { batch, counts } = JSON.parse(Buffer.concat(chunks).toString());
        counter.posts += 1;
        if (!known.has(batch)) for (const { count } of counts) counter.views += count;
        known.add(batch);
        answer = { totals: counts.map(({ kind, id, count }) => ({ kind, id, total: count })) };
      }
      const body = JSON.stringify(answer);
      response.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
      response.end(body);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  counter.url = `http://127.0.0.1:${server.address().port}`;
  counter.close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return counter;
}

const quantile = (samples, q) => [...samples].sort((a, b) => a - b)[Math.floor(samples.length * q)];

async function measureLatency(counting, plain, link) {
  let visitor = 0;
  const hit = async ({ port }) => {
    visitor += 1;
    const ip = `10.${visitor >> 16}.${(visitor >> 8) & 255}.${visitor & 255}`;
    const answer = await ask(port, "/stories/1", { headers: { "cf-connecting-ip": ip } });
    if (answer.status !== 200) throw new Error(`${answer.status}: ${answer.text}`);
    return answer;
  };
  for (let n = 0; n < 500; n += 1) for (const worker of [counting, plain]) await hit(worker);
  const rounds = [];
  const all = [[], []];
  for (let round = 0; round < ROUNDS; round += 1) {
    const samples = [[], []];
    for (let n = 0; n < PAIRS / ROUNDS; n += 1) {
      // The order changes, so that neither always follows the other.
      for (const at of n % 2 === 0 ? [0, 1] : [1, 0]) samples[at].push((await hit([counting, plain][at])).ms);
    }
    samples.forEach((list, at) => all[at].push(...list));
    rounds.push(quantile(samples[0], 0.5) / quantile(samples[1], 0.5));
  }
  let counted = 0;
  for (let looks = 0; looks < 100; looks += 1) {
    [counted] = await link.send([["SCARD", `views:story:${Math.floor(Date.now() / DAY_MS)}:1`]]);
    if (counted >= PAIRS) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  if (counted < PAIRS) throw new Error(`only ${counted} views were counted`);
  const [p50, plainP50] = all.map((list) => quantile(list, 0.5));
  return { p50, plainP50, ratio: p50 / plainP50, rounds, p95: quantile(all[0], 0.95), plainP95: quantile(all[1], 0.95), samples: all[0].length };
}

/** src/views/item.rs, `bucket`. */
function bucketOf(member) {
  let hash = 0x811c9dc5;
  for (let at = 0; at < member.length; at += 1) hash = Math.imul(hash ^ member.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) % BUCKETS;
}

const memory = async (link) => Number(/used_memory:(\d+)/.exec(String((await link.send([["INFO", "memory"]]))[0]))[1]);

/** Puts items with so many viewers each into Redis, with the Worker's commands. */
async function fill(link, items, viewers) {
  const before = await memory(link);
  const now = Date.now();
  const [day, hour] = [Math.floor(now / DAY_MS), Math.floor(now / 3_600_000) % 24];
  let number = 1n;
  let commands = [];
  for (let item = 0; item < items; item += 1) {
    const member = `story:${item}`;
    const bucket = bucketOf(member);
    const numbers = [];
    for (let n = 0; n < viewers; n += 1) {
      // As large as the hashes are that stand there.
      number = (number * 6_364_136_223_846_793_005n + 1_442_695_040_888_963_407n) & 0x7fff_ffff_ffff_ffffn;
      numbers.push(String(number));
    }
    commands.push(["SETBIT", `views:_dirty:${day}`, String(hour * BUCKETS + bucket), "1"], ["ZADD", `views:_items:${day}:${bucket}`, "NX", "0", member],
      ["SADD", `views:story:${day}:${item}`, ...numbers], ["PFADD", `views:_seen:story:${day}`, ...numbers]);
    if (commands.length >= 4_000 || item === items - 1) {
      await link.send(commands);
      commands = [];
    }
  }
  const bytes = (await memory(link)) - before;
  return { items, views: items * viewers, bytes, perItem: bytes / items, perView: bytes / (items * viewers) };
}

const status = (pid, field) => Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1] ?? 0);

/** Runs of the sync until nothing is left; each trip to Redis is one transaction. */
async function drain(worker, link, origin) {
  const trips = async () => Number(/cmdstat_exec:calls=(\d+)/.exec(String((await link.send([["INFO", "commandstats"]]))[0]))?.[1] ?? 0);
  const runs = [];
  for (;;) {
    const before = { trips: await trips(), posts: origin.posts, cpu: cpuMs(worker.pid) };
    const answer = await ask(worker.port, "/-/views/sync", { method: "POST", headers: { authorization: `Bearer ${TOKEN}` } });
    if (answer.status !== 200) throw new Error(`${answer.status}: ${answer.text}`);
    const report = JSON.parse(answer.text);
    runs.push({ ...report, ms: answer.ms, subrequests: (await trips()) - before.trips + origin.posts - before.posts, posts: origin.posts - before.posts, cpuMs: cpuMs(worker.pid) - before.cpu });
    if (runs.length % 10 === 0) console.log(`  run ${runs.length}: ${origin.views} views are sent`);
    if (!report.left) break;
  }
  const most = (name) => Math.max(...runs.map((run) => run[name]));
  return { count: runs.length, views: origin.views, most: { subrequests: most("subrequests"), posts: most("posts"), items: most("items"), cpuMs: most("cpuMs"), ms: most("ms") },
    cpuPerItemUs: (runs.reduce((sum, run) => sum + run.cpuMs, 0) / Math.max(1, origin.views)) * 1_000, peakMb: status(worker.pid, "VmHWM") / 1024, runs };
}

function markdown({ latency, popular, million, runs }) {
  const ms = (value) => value.toFixed(2);
  const verdict = (met) => (met ? "met" : "MISSED");
  return `A cached listing with and without \`view\`, ${latency.samples} answers each in turn, every one of a new visitor:

| | p50 ms | p95 ms |
| --- | --- | --- |
| counting | ${ms(latency.p50)} | ${ms(latency.p95)} |
| not counting | ${ms(latency.plainP50)} | ${ms(latency.plainP95)} |

- p50 with over without: ${latency.ratio.toFixed(3)} (rounds ${latency.rounds.map((ratio) => ratio.toFixed(3)).join(", ")}; target ${MAX_RATIO}): ${verdict(latency.ratio <= MAX_RATIO)}
- Redis memory: ${million.perItem.toFixed(0)} bytes a buffered item with one view (${million.items} items); ${popular.perView.toFixed(1)} bytes a view where items have ${popular.views / popular.items} viewers (plan 4: 50 an item, 30 a view)
- Sync of ${million.items} items: ${runs.count} runs, at most ${runs.most.items} items, ${runs.most.subrequests} subrequests (limit ${MAX_SUBREQUESTS}), ${runs.most.posts} of them batches, and ${runs.most.cpuMs} ms of CPU in one; ${runs.cpuPerItemUs.toFixed(1)} us of CPU an item
- Peak memory of the workerd process: ${runs.peakMb.toFixed(0)} MB
- Views that the origin counted: ${runs.views} of ${million.items}: ${verdict(runs.views === million.items)}`;
}
