// Measures the variants over one Redis, one endpoint and one origin: first the latency of all in turn, then each one's
// throughput in rounds, for each delay of the network.
//
// Everything that takes part is a process of its own. Round trips are the proxy's count of HTTP requests, commands are Redis'
// own count (those inside scripts included), CPU is the kernel's.

import { setTimeout as wait } from "node:timers/promises";
import { startOrigin } from "../../dev/origin/server.mjs";
import { RedisLink } from "../../dev/redis/link.mjs";
import { startEndpointProcess } from "../../dev/redis/process.mjs";
import { startRedisServer } from "../../dev/redis/server.mjs";
import { pin } from "./cores.mjs";
import { cpuMs, startHelper } from "./helper.mjs";
import { LISTING_PATH, VARIANTS } from "./variants.mjs";

/** Enough that workerd is hardly ever idle; with a third of them it was for a seventh of the time, and the table showed the endpoint's
 * speed, too. */
const CONNECTIONS = 96;
/** For each delay, lanes few enough that nobody queues, and most rounds where throughput has a target. */
const PLAN = [
  { delayMs: 0, lanes: 1, rounds: 16 },
  { delayMs: 5, lanes: 2, rounds: 4 },
  { delayMs: 20, lanes: 4, rounds: 4 },
];
const LATENCY_MS = 10_000;
/** In every second round the other way round: what else the machine does changes from second to second, and so it falls on those
 * that are held against each other, which are neighbours, alike. */
const TURNS = ["ours", "peer", "l1", "floor", "together", "leases"];
/** Shorter ones would be the beginnings of leases. */
const ROUND_MS = 1_500;
/** V8 compiles what is hot in the background: not during a measurement. After two seconds and a half a quarter of a Worker's
 * time in wasm was still in code that is not optimised, after eight almost none. */
const WARM_UP_MS = 8_000;
/** Work after an answer is over by then. */
const SETTLE_MS = 50;
/** Visitors of each variant. */
const ADDRESSES = 8;
const MAX_WRONG = 0.001;
/** A machine that stalls for longer than our deadline for Redis makes answers without it, and those are not what is compared: then all
 * variants are measured again, and the table says how often and what it was. More of that is not the machine's fault. */
const MAX_REPEATED = 8;
const TOKEN = "bench";
/** What the benchmark itself asks Redis. */
const OWN_COMMANDS = new Set(["info", "flushall", "config|resetstat"]);

/**
 * `{ isPinned, repeated, skipped, results }`. `repeated`: what was measured again, `{ name, wrong, firstWrong }`. `skipped`: `{ name,
 * reason }`. `results`, by delay and variant: `{ id, name, delayMs, p50, p99, samples,
 * perSecond, rounds, trips, commands, addedMs, cpu, wrong }`; times in milliseconds, `commands` by name and each a request,
 * `cpu` by process in milliseconds for 1000 requests.
 */
export async function measure({ say = console.log } = {}) {
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
    const origin = await open(startOrigin(), (part) => part.close());
    const proxy = await open(startHelper("./proxy.mjs"), (part) => part.close());
    const load = await open(startHelper("./load.mjs"), (part) => part.close());
    const target = { host: "127.0.0.1", port: Number(new URL(endpoint.url).port) };
    const ports = await proxy.ask({ open: { count: VARIANTS.length, target } });
    const live = [];
    const skipped = [];
    // The last to fill the cache is the first of the table: its entry has what Edgeweir keeps beside it.
    for (const [at, variant] of [...VARIANTS.entries()].reverse()) {
      const bindings = { UPSTASH_REDIS_REST_URL: `http://127.0.0.1:${ports[at].port}`, UPSTASH_REDIS_REST_TOKEN: TOKEN, ORIGIN_URL: origin.url };
      const worker = await open(variant.start(bindings), (part) => part.stop());
      await link.send([["FLUSHALL"]]);
      const reason = await prepare(worker.url, variant);
      if (reason === null) live.unshift(new Subject(variant, worker, at));
      else skipped.unshift({ name: variant.name, reason });
    }
    const pids = { endpoint: endpoint.pid, redis: redis.pid, proxy: proxy.pid, generator: load.pid };
    const isPinned = await pin({ workers: live.map(({ pid }) => pid), harness: Object.values(pids) });
    const bench = new Bench({ link, proxy, load, live, pids });
    const results = await bench.run(say);
    return { isPinned, repeated: bench.repeated, skipped, results };
  } finally {
    for (const end of opened.reverse()) await end();
  }
}

/** Asks until the answer comes from the cache, by way of Redis; null, or why this version has no such variant. */
async function prepare(url, { name, expected, unexpected }) {
  let last;
  for (let tries = 0; tries < 200; tries += 1) {
    const response = await fetch(url + LISTING_PATH, { headers: { "cf-connecting-ip": "198.51.100.250" } });
    const text = await response.text();
    const problem = response.status === 503 ? parse(text) : null;
    if (problem?.variable === "POLICY") return problem.errors[0].message;
    last = [`${response.status}`, ...[...response.headers].map((header) => header.join(": "))].join("\n");
    if (last.includes(expected) && !(unexpected && last.includes(unexpected))) return null;
    await wait(20);
  }
  throw new Error(`${name} does not serve the listing from the cache:\n${last}`);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** A variant that runs. */
class Subject {
  constructor(variant, worker, at) {
    const { id, name, expected, unexpected } = variant;
    Object.assign(this, { variant, id, name, at, pid: worker.pid, url: worker.url });
    this.target = { port: worker.port, path: LISTING_PATH, network: `198.51.${100 + at}`, addresses: ADDRESSES, expected, unexpected };
  }
}

class Bench {
  repeated = [];

  constructor(parts) {
    Object.assign(this, parts);
    this.turns = TURNS.map((id) => this.live.find((subject) => subject.id === id)).filter(Boolean);
  }

  async run(say) {
    await this.proxy.ask({ delay: 0 });
    for (const { target } of this.live) await this.load.ask({ saturate: { target, connections: CONNECTIONS, durationMs: WARM_UP_MS } });
    const results = [];
    for (const { delayMs, lanes, rounds: count } of PLAN) {
      say(`  ${delayMs} ms of network: latency, then throughput`);
      await this.proxy.ask({ delay: delayMs });
      const latency = await this.ofHits(() => this.latency(lanes));
      const rounds = [];
      for (let round = 0; round < count; round += 1) {
        const turns = round % 2 === 0 ? this.turns : [...this.turns].reverse();
        rounds.push(await this.ofHits(() => this.round(turns)));
      }
      for (const { id, name } of this.live) {
        results.push({ id, name, delayMs, ...latencies(latency.get(id)), ...throughput(rounds.map((round) => round.get(id))) });
      }
    }
    return results;
  }

  /** Measures all variants until every one of them answered with hits; by id. */
  async ofHits(measure) {
    for (;;) {
      const measured = await measure();
      const bad = this.live.filter(({ id }) => !isOfHits(measured.get(id).tally));
      if (bad.length === 0) return measured;
      for (const { id, name } of bad) {
        const { wrong, firstWrong } = measured.get(id).tally;
        if (this.repeated.length >= MAX_REPEATED) throw new Error(`${name}: ${wrong} answers were no hits, the first\n${firstWrong}`);
        this.repeated.push({ name, wrong, firstWrong });
      }
      // Redis is asked again when a probe after an answer has found it.
      for (const { url, variant } of this.live) await prepare(url, variant);
    }
  }

  async latency(lanes) {
    const { tallies } = await this.load.ask({ alternate: { targets: this.live.map(({ target }) => target), lanes, durationMs: LATENCY_MS } });
    return new Map(tallies.map((tally, n) => [this.live[n].id, { tally }]));
  }

  async round(turns) {
    const measured = new Map();
    for (const subject of turns) measured.set(subject.id, await this.turn(subject));
    return measured;
  }

  async turn(subject) {
    await wait(SETTLE_MS);
    const before = await this.counts(subject);
    const { ms, tally } = await this.load.ask({ saturate: { target: subject.target, connections: CONNECTIONS, durationMs: ROUND_MS } });
    await wait(SETTLE_MS);
    const after = await this.counts(subject);
    const commands = difference(before.commands, after.commands);
    const cpu = difference(before.cpu, after.cpu);
    const { requests, answers, addedMs } = difference(before.port, after.port);
    return { tally, ms, requests, answers, addedMs, commands, cpu };
  }

  async counts({ at, pid }) {
    const [info] = await this.link.send([["INFO", "commandstats"]]);
    const calls = [...String(info).matchAll(/^cmdstat_(\S+?):calls=(\d+)/gm)];
    const pids = Object.entries({ workerd: pid, ...this.pids });
    return {
      commands: Object.fromEntries(calls.filter(([, name]) => !OWN_COMMANDS.has(name)).map(([, name, n]) => [name, Number(n)])),
      cpu: Object.fromEntries(pids.map(([name, process]) => [name, cpuMs(process)])),
      port: (await this.proxy.ask({}))[at],
    };
  }
}

const isOfHits = ({ samples, wrong }) => wrong <= (samples.length + wrong) * MAX_WRONG;

function latencies({ tally }) {
  const sorted = tally.samples.sort((a, b) => a - b);
  return { p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), samples: sorted.length };
}

function throughput(rounds) {
  const right = rounds.map(({ tally }) => tally.samples.length);
  const wrong = sum(rounds.map(({ tally }) => tally.wrong));
  const count = sum(right) + wrong;
  const each = (field, scale) => {
    const totals = {};
    for (const round of rounds) for (const [name, n] of Object.entries(round[field])) totals[name] = (totals[name] ?? 0) + n;
    return Object.fromEntries(Object.entries(totals).map(([name, n]) => [name, (n / count) * scale]));
  };
  return {
    perSecond: (sum(right) / sum(rounds.map(({ ms }) => ms))) * 1000,
    rounds: rounds.map(({ ms }, round) => (right[round] / ms) * 1000),
    trips: sum(rounds.map((round) => round.requests)) / count,
    commands: each("commands", 1),
    addedMs: sum(rounds.map((round) => round.addedMs)) / Math.max(1, sum(rounds.map((round) => round.answers))),
    cpu: each("cpu", 1000),
    wrong,
  };
}

const difference = (before, after) => Object.fromEntries(Object.entries(after).map(([name, n]) => [name, n - (before[name] ?? 0)]));
const sum = (numbers) => numbers.reduce((total, n) => total + n, 0);
export const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
