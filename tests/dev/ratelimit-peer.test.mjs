// The real @upstash/ratelimit: that it keeps its documented rules, that it decides as we do where those rules and ours
// agree, and what it does where they differ.
//
// Our side of the same file of traces is tests/suite/limit_peer.rs. Virtual time throughout: nothing waits.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { Ratelimit } from "@upstash/ratelimit";
import { Redis as UpstashRedis } from "@upstash/redis";
import Redis from "ioredis";
import { LIMITERS, mockClock, plainClient, replay, stockRedis } from "../../bench/accuracy/peer.mjs";
import { startEndpoint } from "../../dev/redis/endpoint.mjs";
import { startRedisServer } from "../../dev/redis/server.mjs";

/** A boundary of every window here. */
const START_MS = 1_770_000_000_000;
const LEG_US = 1000;
const { agree, differ } = JSON.parse(readFileSync(new URL("./ratelimit-peer.json", import.meta.url), "utf8"));
const [SLIDING, UNCACHED, FIXED, BUCKET] = LIMITERS;

let server;
let redis;
let clock;

before(async () => {
  server = await startRedisServer();
  redis = new Redis({ host: "127.0.0.1", port: server.port });
});
beforeEach(() => (clock = mockClock()));
afterEach(() => clock.restore());
after(async () => {
  redis.disconnect();
  await server.stop();
});

/** The requests of groups as a scenario of the lab. */
function scenario({ requests, window_ms, skews_ms = [0], groups }) {
  const arrivals = groups.flatMap(({ at_ms, count, every_ms, isolate = 0, cost }) =>
    Array.from({ length: count }, (_, number) => [(START_MS + at_ms + number * every_ms) * 1000, 0, isolate, LEG_US, LEG_US, cost]));
  return { requests, window_ms, skews_us: skews_ms.map((ms) => ms * 1000), arrivals };
}

/** For each group, whether each of its requests was admitted. */
async function decisions(trace, limiter) {
  const { outcomes } = await replay(redis, clock, scenario(trace), limiter);
  const admitted = outcomes.map(([admitted]) => admitted === 1);
  return trace.groups.map(({ count }) => admitted.splice(0, count));
}

for (const limiter of [SLIDING, UNCACHED]) {
  test(`${limiter.name} decides as ours where its rule and ours agree`, async () => {
    for (const trace of agree) {
      const expected = trace.groups.map(({ count, admitted }) => Array.from({ length: count }, (_, at) => at < admitted));
      assert.deepEqual(await decisions(trace, limiter), expected, trace.name);
    }
  });
}

test("where they differ it does what the list says, and the list says what was measured", async () => {
  const list = readFileSync(new URL("../../bench/accuracy/DIFFERENCES.md", import.meta.url), "utf8");
  for (const trace of differ) {
    const { name, requests, window_ms, options, groups } = trace;
    const theirs = (await decisions(trace, { ...SLIDING, options })).map((group) => group.filter(Boolean).length);
    assert.deepEqual(theirs, groups.map((group) => group.theirs), name);
    const measured = groups.map(({ at_ms, count, ours, theirs }) => `${count} at ${at_ms / 1000} s: ours ${ours}, theirs ${theirs}`);
    const text = `## ${name}\n\nMeasured (limit ${requests} in ${window_ms / 1000} s, admitted): ${measured.join("; ")}.\n`;
    assert.ok(list.includes(text), `DIFFERENCES.md should have:\n${text}`);
  }
});

// The documented rules, in as few words as they can be said in: one id, one isolate, requests that never meet.
// https://upstash.com/docs/redis/sdks/ratelimit-ts/algorithms

/** The last window's count, weighted by how much of that window still overlaps the sliding one, and this window's. */
function slidingRule(limit, windowMs) {
  const counts = new Map();
  return (nowMs) => {
    const window = Math.floor(nowMs / windowMs);
    const overlap = 1 - (nowMs % windowMs) / windowMs;
    const current = counts.get(window) ?? 0;
    const admits = Math.floor(overlap * (counts.get(window - 1) ?? 0)) + current < limit;
    if (admits) counts.set(window, current + 1);
    return admits;
  };
}

function fixedRule(limit, windowMs) {
  const counts = new Map();
  return (nowMs) => {
    const window = Math.floor(nowMs / windowMs);
    counts.set(window, (counts.get(window) ?? 0) + 1);
    return counts.get(window) <= limit;
  };
}

/** Full at first; the refill of a whole interval comes at its end. */
function bucketRule(limit, windowMs) {
  let [tokens, refilledMs] = [limit, null];
  return (nowMs) => {
    refilledMs ??= nowMs;
    const refills = Math.floor((nowMs - refilledMs) / windowMs);
    tokens = Math.min(limit, tokens + refills * limit);
    refilledMs += refills * windowMs;
    if (tokens === 0) return false;
    tokens -= 1;
    return true;
  };
}

/** With the ephemeral cache: after a refusal the isolate refuses alone, to the end of the window. */
function cached(rule, windowMs) {
  let blockedMs = -1;
  return (nowMs) => {
    if (nowMs <= blockedMs) return false;
    const admits = rule(nowMs);
    if (!admits) blockedMs = (Math.floor(nowMs / windowMs) + 1) * windowMs;
    return admits;
  };
}

/** SplitMix64, as in the native suite. */
function splitMix(seed) {
  let state = BigInt(seed);
  const word = (value) => BigInt.asUintN(64, value);
  return (low, high) => {
    state = word(state + 0x9e3779b97f4a7c15n);
    let drawn = word((state ^ (state >> 30n)) * 0xbf58476d1ce4e5b9n);
    drawn = word((drawn ^ (drawn >> 27n)) * 0x94d049bb133111ebn);
    return low + Number((drawn ^ (drawn >> 31n)) % BigInt(high - low + 1));
  };
}

/** Requests at least 4 ms apart over several windows, now dense, now sparse. */
function drawnTimes(between, limit, windowMs) {
  const times = [];
  for (let atMs = START_MS + between(0, windowMs); atMs < START_MS + 6 * windowMs; ) {
    const gapMs = Math.floor((windowMs / limit) * (between(1, 30) / 10));
    for (let left = between(1, 2 * limit); left > 0; left--) {
      times.push(atMs);
      atMs += 4 + between(0, gapMs);
    }
    if (between(0, 3) === 0) atMs += between(0, 2 * windowMs);
  }
  return times;
}

const RULES = [
  [SLIDING, (limit, windowMs) => cached(slidingRule(limit, windowMs), windowMs)],
  [UNCACHED, slidingRule],
  [FIXED, (limit, windowMs) => cached(fixedRule(limit, windowMs), windowMs)],
  // It blocks until its next refill, before which its rule admits nothing either.
  [{ ...BUCKET, options: { ephemeralCache: false } }, bucketRule],
];

for (const [limiter, rule] of RULES) {
  test(`${limiter.name} keeps its documented rule`, async () => {
    const first = Number(process.env.EDGEWEIR_SEED ?? 1);
    for (let seed = first; seed < first + 8; seed++) {
      const between = splitMix(seed);
      const limit = between(1, 30);
      const windowMs = [2000, 10_000, 60_000][between(0, 2)];
      const times = drawnTimes(between, limit, windowMs);
      const trace = { requests: limit, window_ms: windowMs, skews_us: [0], arrivals: times.map((ms) => [ms * 1000, 0, 0, LEG_US, LEG_US]) };
      const { outcomes } = await replay(redis, clock, trace, limiter);
      const says = rule(limit, windowMs);
      assert.deepEqual(outcomes.map(([admitted]) => admitted === 1), times.map(says), `EDGEWEIR_SEED=${seed}`);
    }
  });
}

test("the adapter changes nothing: the same decisions as through @upstash/redis and the HTTP endpoint", async () => {
  const endpoint = await startEndpoint({ redisPort: server.port, token: "peer" });
  try {
    for (const limiter of LIMITERS) {
      // Here the keys expire, by the real time: these windows are much longer than what a busy machine takes.
      const trace = { requests: 5, window_ms: 2_000_000, groups: [{ at_ms: 300_000, count: 60, every_ms: 130_000 }] };
      const [direct] = await decisions(trace, limiter);
      await redis.flushall();
      const client = stockRedis(new UpstashRedis({ url: endpoint.url, token: endpoint.token, enableTelemetry: false }));
      const ratelimit = new Ratelimit({ redis: client, limiter: limiter.limiter(trace), ...limiter.options });
      const through = [];
      for (const [atUs] of scenario(trace).arrivals) {
        clock.ms = atUs / 1000;
        through.push((await ratelimit.limit("id0")).success);
      }
      assert.deepEqual(through, direct, limiter.name);
      assert.ok(through.includes(true) && through.includes(false));
    }
  } finally {
    await endpoint.close();
  }
});

test("stock Redis rejects its scripts as published", async () => {
  const ratelimit = new Ratelimit({ redis: plainClient(redis), limiter: Ratelimit.slidingWindow(10, "10 s") });
  await assert.rejects(ratelimit.limit("id"), /Unexpected flag in script shebang/);
});

test("every script it sends begins with the flag that the adapter takes off", async () => {
  for (const { limiter } of LIMITERS) {
    const sent = [];
    const recorder = {
      evalsha: () => Promise.reject(new Error("NOSCRIPT")),
      eval: async (script) => (sent.push(script), [1, START_MS, 10]),
    };
    await new Ratelimit({ redis: recorder, limiter: limiter({ requests: 10, window_ms: 10_000 }) }).limit("id");
    assert.equal(sent.length, 1);
    assert.match(sent[0], /^#!lua flags=allow-key-locking\n/);
  }
});

test("the commands in its scripts are counted: four for a check, five for the first of a window", async () => {
  const groups = [{ at_ms: 0, count: 8, every_ms: 10 }];
  const run = await replay(redis, clock, scenario({ requests: 10, window_ms: 10_000, groups }), SLIDING);
  // The first check tries a hash that Redis does not know yet.
  assert.equal(run.commands, 1 + 8 * 4 + 1);
});

test("its reset is no promise: a request at that time is refused", async () => {
  const ratelimit = new Ratelimit({ redis: stockRedis(plainClient(redis)), limiter: Ratelimit.slidingWindow(10, "10 s") });
  await redis.flushall();
  let last;
  for (let number = 0; number < 11; number++) {
    clock.ms = START_MS + 9000 + number * 50;
    last = await ratelimit.limit("id");
  }
  assert.equal(last.success, false);
  assert.equal(last.reset, START_MS + 10_000);
  clock.ms = last.reset;
  assert.equal((await ratelimit.limit("id")).success, false);
});

test("a token bucket is refilled at once: 19 of 10 in 10 s within a fifth of a second", async () => {
  const groups = [{ at_ms: 0, count: 1, every_ms: 10 }, { at_ms: 9900, count: 10, every_ms: 5 }, { at_ms: 10_050, count: 11, every_ms: 5 }];
  const admitted = await decisions({ requests: 10, window_ms: 10_000, groups }, { ...BUCKET, options: { ephemeralCache: false } });
  assert.deepEqual(admitted.map((group) => group.filter(Boolean).length), [1, 9, 10]);
});

test("a Redis that hangs: everything is admitted, after five seconds", async (context) => {
  clock.restore();
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const hanging = { evalsha: () => new Promise(() => {}), eval: () => new Promise(() => {}) };
  const answer = new Ratelimit({ redis: hanging, limiter: Ratelimit.slidingWindow(1, "10 s") }).limit("id");
  let isAnswered = false;
  answer.then(() => (isAnswered = true));
  context.mock.timers.tick(4999);
  await new Promise(setImmediate);
  assert.equal(isAnswered, false);
  context.mock.timers.tick(1);
  const { success, reason } = await answer;
  assert.deepEqual([success, reason], [true, "timeout"]);
});

test("a Redis that refuses: the check throws, and the caller decides", async () => {
  const refusing = { evalsha: () => Promise.reject(new Error("ERR max daily request limit exceeded")) };
  const ratelimit = new Ratelimit({ redis: refusing, limiter: Ratelimit.slidingWindow(1, "10 s") });
  await assert.rejects(ratelimit.limit("id"), /max daily request limit/);
});
