// The real @upstash/ratelimit on a trace, in virtual time, over a real redis-server.
//
// Its scripts take the time from their caller, so a clock that is told what to say moves them: nothing here waits. It runs
// as published but for two things: stock Redis rejects the flag in its scripts' first line (`stockRedis`), and the keys of a
// replay do not expire, since that would go by the real time (`lasting`).

import { createHash } from "node:crypto";
import { Ratelimit } from "@upstash/ratelimit";

/** In the first line of each of its scripts; only Upstash's own server knows it. It changes which keys are locked, not what runs. */
const PRIVATE_FLAG = /^#!lua flags=allow-key-locking$/m;

const sha1 = (text) => createHash("sha1").update(text).digest("hex");

/**
 * The `redis` that the package wants, on a Redis that has no `allow-key-locking`: scripts go there without that flag, and
 * under the hash that they have without it. `client`: an @upstash/redis client or `plainClient`.
 */
export function stockRedis(client) {
  const stock = new Map();
  return {
    async eval(script, keys, args) {
      const stripped = script.replace(PRIVATE_FLAG, "#!lua");
      stock.set(sha1(script), sha1(stripped));
      return client.eval(stripped, keys, args);
    },
    // A script that was never seen is as unknown here as its hash is to Redis.
    evalsha: (hash, keys, args) => client.evalsha(stock.get(hash) ?? hash, keys, args),
  };
}

/** The part of an @upstash/redis client that runs scripts, over a plain ioredis connection. */
export const plainClient = (redis) => ({
  eval: (script, keys, args) => redis.eval(script, keys.length, ...keys, ...args),
  evalsha: (hash, keys, args) => redis.evalsha(hash, keys.length, ...keys, ...args),
});

/** A `plainClient` whose keys last: a script and the end of their expiry are one moment of Redis. */
const lasting = (redis) => {
  const run = async (name, script, keys, args) => {
    const batch = redis.multi()[name](script, keys.length, ...keys, ...args);
    for (const key of keys) batch.persist(key);
    const [[error, reply]] = await batch.exec();
    if (error) throw error;
    return reply;
  };
  return { eval: (...call) => run("eval", ...call), evalsha: (...call) => run("evalsha", ...call) };
};

/** What the package is asked to be: its documented algorithms; all else as it is by default, but for the named option. */
export const LIMITERS = [
  {
    name: "@upstash slidingWindow",
    bound: null,
    limiter: ({ requests, window_ms }) => Ratelimit.slidingWindow(requests, `${window_ms} ms`),
  },
  {
    name: "@upstash slidingWindow, ephemeralCache off",
    bound: null,
    limiter: ({ requests, window_ms }) => Ratelimit.slidingWindow(requests, `${window_ms} ms`),
    options: { ephemeralCache: false },
  },
  {
    name: "@upstash fixedWindow",
    bound: "aligned",
    limiter: ({ requests, window_ms }) => Ratelimit.fixedWindow(requests, `${window_ms} ms`),
  },
  {
    name: "@upstash tokenBucket",
    bound: "bucket",
    limiter: ({ requests, window_ms }) => Ratelimit.tokenBucket(requests, `${window_ms} ms`, requests),
  },
];

/** A `Date.now` that says what it is told, in milliseconds, until `restore`. */
export function mockClock() {
  const real = Date.now;
  const clock = {
    ms: real(),
    restore() {
      Date.now = real;
    },
  };
  Date.now = () => clock.ms;
  return clock;
}

/**
 * Runs one limiter over a scenario of `accuracy traces`: `{ outcomes, commands }`. An outcome is whether the request was
 * admitted, when it was decided (at Redis; at its isolate if that refused alone) and its place in the order of decisions.
 * `commands` are all that Redis ran, those inside scripts included, as Upstash bills them.
 */
export async function replay(redis, clock, scenario, { limiter, options = {} }) {
  await redis.flushall();
  await redis.config("RESETSTAT");
  const outcomes = await new Replay(redis, clock, scenario, limiter, options).run();
  return { outcomes, commands: await commandsRun(redis) };
}

/** The calls in `INFO commandstats`, but for those of this bench itself. */
async function commandsRun(redis) {
  const info = await redis.info("commandstats");
  const calls = [...info.matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)];
  const own = /^(info|flushall|config\|resetstat|multi|exec|persist)$/;
  return calls.filter(([, name]) => !own.test(name)).reduce((sum, [, , count]) => sum + Number(count), 0);
}

class Replay {
  #events = new Events();
  #client;
  #clock;
  #scenario;
  #isolates;
  #outcomes;
  #request = 0; // whose call comes next
  #nowUs = 0;
  #decisions = 0;

  constructor(redis, clock, scenario, limiter, options) {
    this.#client = lasting(redis);
    this.#clock = clock;
    this.#scenario = scenario;
    this.#outcomes = new Array(scenario.arrivals.length);
    const far = { eval: (...call) => this.#call("eval", call), evalsha: (...call) => this.#call("evalsha", call) };
    const stock = stockRedis(far);
    // Each isolate has an ephemeral cache of its own.
    this.#isolates = scenario.skews_us.map(() => new Ratelimit({ redis: stock, limiter: limiter(scenario), ...options }));
  }

  async run() {
    this.#scenario.arrivals.forEach(([atUs], request) => this.#events.add(atUs, () => this.#send(request)));
    for (let event = this.#events.next(); event !== undefined; event = this.#events.next()) {
      this.#nowUs = event.atUs;
      const waits = event.run();
      if (waits !== undefined) await waits;
    }
    await turn();
    return this.#outcomes;
  }

  /** The package reads the clock and calls Redis before it waits for anything. */
  #send(request) {
    const [, id, isolate, , , rate] = this.#scenario.arrivals[request];
    this.#request = request;
    this.#clock.ms = Math.floor((this.#nowUs + this.#scenario.skews_us[isolate]) / 1000);
    this.#outcomes[request] = [0, this.#nowUs, this.#decisions++];
    const answer = this.#isolates[isolate].limit(`id${id}`, { rate });
    answer.then(({ success }) => (this.#outcomes[request][0] = Number(success)));
  }

  #call(method, call) {
    const request = this.#request;
    const [, , , requestUs, responseUs] = this.#scenario.arrivals[request];
    const arrivesUs = this.#nowUs + requestUs;
    return new Promise((resolve, reject) => {
      this.#events.add(arrivesUs, () => {
        const reply = this.#client[method](...call);
        this.#outcomes[request] = [0, arrivesUs, this.#decisions++];
        const settled = reply.then((value) => () => resolve(value), (error) => () => reject(error));
        this.#events.add(arrivesUs + responseUs, async () => {
          const settle = await settled;
          this.#request = request;
          settle();
          // What the package does with the answer, a second call included, is done within its turn.
          await turn();
        });
      });
    });
  }
}

const turn = () => new Promise(setImmediate);

/** Events in order of time, then of being added: a binary heap. */
class Events {
  #heap = [];
  #added = 0;

  add(atUs, run) {
    const heap = this.#heap;
    const event = { atUs, order: this.#added++, run };
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (isBefore(heap[parent], event)) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = event;
  }

  next() {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (heap.length === 0) return first;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child += 1;
      if (isBefore(last, heap[child])) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

const isBefore = (one, other) => one.atUs < other.atUs || (one.atUs === other.atUs && one.order < other.order);
