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
import { hold } from "./cores.mjs";
import { cpuMs, startHelper } from "./helper.mjs";
import { LISTING_PATH, VARIANTS } from "./variants.mjs";

/** Enough that workerd is hardly ever idle; with a third of them it was for a seventh of the time, and the table showed the endpoint's
 * speed, too. */
const CONNECTIONS = 96;
/** For each delay, lanes few enough that nobody queues, and most rounds where throughput has a target. */
const PLAN = [
  { delayMs: 0, lanes: 1, rounds: 15 },
  { delayMs: 5, lanes: 2, rounds: 3 },
  { delayMs: 20, lanes: 4, rounds: 3 },
];
const LATENCY_MS = 10_000;
/** What else the machine does changes from second to second, so each is held against the same round of the peer. Shorter ones would be
 * the beginnings of leases. */
const ROUND_MS = 1_500;
/** V8 compiles what is hot in the background: not during a measurement. After two seconds and a half a quarter of a Worker's
 * time in wasm was still in code that is not optimised, after eight almost none. */
const WARM_UP_MS = 8_000;
/** Work after an answer is over by then. */
const SETTLE_MS = 50;
/** Visitors of each variant. */
const ADDRESSES = 8;
const MAX_WRONG = 0.001;
/** A machine that stalls for longer than the deadline for Redis makes answers without it, and those are not what is compared: such a
 * round is measured again, and the table says how often. More of them are not the machine's fault. */
const MAX_REPEATED = 8;
/** Until Redis is asked again after that. */
const RECOVERY_MS = 2_000;
const TOKEN = "bench";
/** What the benchmark itself asks Redis. */
const OWN_COMMANDS = new Set(["info", "flushall", "config|resetstat"]);

/**
 * `{ isHeld, repeated, skipped, results }`. `isHeld`: each had its core. `skipped`: `{ name, reason }`. `results`, by delay and variant: `{ id, name, delayMs, p50, p99, samples,
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
    const isHeld = await hold({ workers: live.map(({ pid }) => pid), harness: Object.values(pids) });
    const bench = new Bench({ link, proxy, load, live, pids });
    const results = await bench.run(say);
    return { isHeld, repeated: bench.repeated, skipped, results };
  } finally {
    for (const end of opened.reverse()) await end();
  }
}

/** Asks until the answer comes from the cache; null, or why this version has no such variant. */
async function prepare(url, { name, expected }) {
  let last;
  for (let tries = 0; tries < 200; tries += 1) {
    const response = await fetch(url + LISTING_PATH, { headers: { "cf-connecting-ip": "198.51.100.250" } });
    const text = await response.text();
    const problem = response.status === 503 ? parse(text) : null;
    if (problem?.variable === "POLICY") return problem.errors[0].message;
    last = [`${response.status}`, ...[...response.headers].map((header) => header.join(": "))].join("\n");
    if (last.includes(expected)) return null;
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
  constructor({ id, name, expected, unexpected }, worker, at) {
    Object.assign(this, { id, name, at, pid: worker.pid });
    this.target = { port: worker.port, path: LISTING_PATH, network: `198.51.${100 + at}`, addresses: ADDRESSES, expected, unexpected };
  }
}

class Bench {
  repeated = 0;

  constructor(parts) {
    Object.assign(this, parts);
  }

  async run(say) {
    await this.proxy.ask({ delay: 0 });
    for (const { target } of this.live) await this.load.ask({ saturate: { target, connections: CONNECTIONS, durationMs: WARM_UP_MS } });
    const results = [];
    for (const { delayMs, lanes, rounds: count } of PLAN) {
      say(`  ${delayMs} ms of network: latency, then throughput`);
      await this.proxy.ask({ delay: delayMs });
      const latency = await this.latency(lanes);
      const rounds = this.live.map(() => []);
      for (let round = 0; round < count; round += 1) {
        for (let n = 0; n < this.live.length; n += 1) {
          const which = (n + round) % this.live.length;
          rounds[which].push(await this.hits(this.live[which]));
        }
      }
      this.live.forEach((subject, n) => results.push({ id: subject.id, name: subject.name, delayMs, ...latency[n], ...summary(rounds[n]) }));
    }
    return results;
  }

  async latency(lanes) {
    const { tallies } = await this.load.ask({ alternate: { targets: this.live.map(({ target }) => target), lanes, durationMs: LATENCY_MS } });
    return tallies.map((tally, n) => {
      check(this.live[n], tally);
      const sorted = tally.samples.sort((a, b) => a - b);
      return { p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), samples: sorted.length };
    });
  }

  /** A round of hits alone. */
  async hits(subject) {
    for (;;) {
      const { tally, ...round } = await this.round(subject);
      if (isOfHits(tally)) return round;
      if (this.repeated >= MAX_REPEATED) check(subject, tally);
      this.repeated += 1;
      await wait(RECOVERY_MS);
    }
  }

  async round(subject) {
    await wait(SETTLE_MS);
    const before = await this.counts(subject);
    const { ms, tally } = await this.load.ask({ saturate: { target: subject.target, connections: CONNECTIONS, durationMs: ROUND_MS } });
    await wait(SETTLE_MS);
    const after = await this.counts(subject);
    const count = tally.samples.length + tally.wrong;
    const commands = difference(before.commands, after.commands);
    const cpu = difference(before.cpu, after.cpu);
    const { requests, answers, addedMs } = difference(before.port, after.port);
    return { tally, count, ms, perSecond: (tally.samples.length / ms) * 1000, wrong: tally.wrong, requests, answers, addedMs, commands, cpu };
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

/** A figure of answers that are no hits means nothing. */
function check(subject, tally) {
  if (!isOfHits(tally)) throw new Error(`${subject.name}: ${tally.wrong} answers were no hits, the first\n${tally.firstWrong}`);
}

const isOfHits = ({ samples, wrong }) => wrong <= (samples.length + wrong) * MAX_WRONG;

function summary(rounds) {
  const count = sum(rounds.map((round) => round.count));
  const each = (field, scale) => {
    const totals = {};
    for (const round of rounds) for (const [name, n] of Object.entries(round[field])) totals[name] = (totals[name] ?? 0) + n;
    return Object.fromEntries(Object.entries(totals).map(([name, n]) => [name, (n / count) * scale]));
  };
  return {
    perSecond: median(rounds.map((round) => round.perSecond)),
    rounds: rounds.map((round) => round.perSecond),
    trips: sum(rounds.map((round) => round.requests)) / count,
    commands: each("commands", 1),
    addedMs: sum(rounds.map((round) => round.addedMs)) / Math.max(1, sum(rounds.map((round) => round.answers))),
    cpu: each("cpu", 1000),
    wrong: sum(rounds.map((round) => round.wrong)),
  };
}

const difference = (before, after) => Object.fromEntries(Object.entries(after).map(([name, n]) => [name, n - (before[name] ?? 0)]));
const sum = (numbers) => numbers.reduce((total, n) => total + n, 0);
const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
export const median = (numbers) => quantile([...numbers].sort((a, b) => a - b), 0.5);
