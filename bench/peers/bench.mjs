// Edgeweir beside a Worker made with @upstash/ratelimit and @upstash/redis: what one request costs each, and how long it takes.

import { readFileSync } from "node:fs";
import path from "node:path";
import { ROOT } from "../../dev/setup/exec.mjs";
import { measure, quantile } from "./measure.mjs";

const TARGETS = { latencyAt20: 0.55, throughputAt0: 2, throughputWithL1: 5 };
/** A command that fewer requests than this need is not listed. */
const LISTED_COMMANDS = 0.05;

export async function bench() {
  const figures = await measure();
  const verdicts = judge(figures.results);
  const markdown = [intro(figures.isPinned), table(figures.results), targets(verdicts, figures.skipped), costs(figures)].join("\n\n");
  return { markdown, figures: { ...figures, verdicts }, met: verdicts.every(({ met }) => met) };
}

/** The targets whose variants were measured: `{ what, value, target, met, quartiles }`. */
function judge(results) {
  const at = (id, delayMs) => results.find((row) => row.id === id && row.delayMs === delayMs);
  const latency = at("ours", 20).p50 / at("peer", 20).p50;
  const throughput = (what, id, target) => {
    const value = ratio(at(id, 0), at("peer", 0));
    return { what, value, target: `at least ${target}`, met: value >= target, quartiles: quartiles(at(id, 0), at("peer", 0)) };
  };
  const verdicts = [
    { what: "p50 at 20 ms, of the peer's", value: latency, target: `at most ${TARGETS.latencyAt20}`, met: latency <= TARGETS.latencyAt20 },
    throughput("throughput at 0 ms, times the peer's", "ours", TARGETS.throughputAt0),
  ];
  if (at("l1", 0) === undefined) return verdicts;
  return [...verdicts, throughput("the same with leases and L1", "l1", TARGETS.throughputWithL1)];
}

const ratio = (one, other) => one.perSecond / other.perSecond;

/** Of what it was in each round. */
function quartiles(one, other) {
  const ratios = one.rounds.map((perSecond, round) => perSecond / other.rounds[round]).sort((a, b) => a - b);
  return [0.25, 0.5, 0.75].map((share) => quantile(ratios, share));
}

function intro(isPinned) {
  const [ratelimit, redis, workerd] = ["@upstash/ratelimit", "@upstash/redis", "workerd"].map(version);
  return `Edgeweir beside a Worker with @upstash/ratelimit ${ratelimit} (sliding window) and @upstash/redis ${redis} (cache-aside), both in workerd ${workerd}
without miniflare, over one Redis, one HTTP endpoint and one origin; every answer is a hit, nothing is refused. Trips: HTTP requests to
Redis, each request. Commands: Redis' own count, those inside scripts included. p50 and p99: few connections, the variants in turn.
Throughput: all answers by all the time, in rounds in which each has its turn. CPU: of workerd. The whole delay is on the answer's way.
${isPinned ? "workerd is pinned to one core, all that measures to another." : "Every process runs on any core, so what measures takes time from what is measured."}`;
}

function table(results) {
  const head = ["network ms", "Worker", "trips", "commands", "p50 ms", "p99 ms", "requests/s", "CPU ms per 1000"];
  const lines = results.map((row) => [
    String(row.delayMs), row.name, row.trips.toFixed(2), commands(row.commands), row.p50.toFixed(2), row.p99.toFixed(1),
    row.perSecond.toFixed(0), row.cpu.workerd.toFixed(0),
  ]);
  return markdownTable(head, lines);
}

/** `4.0: get 2.0, …`, the most frequent first. */
function commands(counts) {
  const total = Object.values(counts).reduce((sum, n) => sum + n, 0);
  const listed = Object.entries(counts).filter(([, n]) => n >= LISTED_COMMANDS).sort(([, a], [, b]) => b - a);
  return [total.toFixed(2), listed.map(([name, n]) => `${name} ${n.toFixed(1)}`).join(", ")].filter(Boolean).join(": ");
}

function targets(verdicts, skipped) {
  const lines = verdicts.map(({ what, value, target, met, quartiles: spread }) => {
    const rounds = spread === undefined ? "" : `; quartiles of the rounds ${spread.map((value) => value.toFixed(2)).join(", ")}`;
    return `- ${what}: ${value.toFixed(3)} (target ${target}): ${met ? "met" : "MISSED"}${rounds}`;
  });
  return [...lines, ...skipped.map(({ name, reason }) => `- not built: ${name} (${reason})`)].join("\n");
}

function costs({ results, repeated }) {
  const near = results.filter(({ delayMs }) => delayMs === 0);
  const names = Object.keys(near[0].cpu);
  const lines = near.map((row) => [row.name, ...names.map((name) => row.cpu[name].toFixed(0))]);
  const added = results.filter(({ delayMs }) => delayMs > 0).map(({ delayMs, addedMs }) => addedMs - delayMs);
  const row = (id) => near.find((row) => row.id === id);
  return `CPU ms per 1000 requests at 0 ms, by process. The floor is a Worker that makes one such trip and passes on what comes, unread: its
throughput is ${ratio(row("floor"), row("peer")).toFixed(2)} times the peer's, the most that this set-up shows of any Worker with a trip for each request.

${markdownTable(["Worker", ...names], lines)}

- The proxy's timers add ${Math.min(...added).toFixed(1)} to ${Math.max(...added).toFixed(1)} ms to the delay named, for all alike.
- @upstash/ratelimit's scripts begin with \`#!lua flags=allow-key-locking\`, which stock Redis refuses: the proxy blanks that flag and exchanges the
  script's hash, so that they run by EVALSHA as they do at Upstash.
- The peer: every option at its default but \`analytics\`, which is off, and \`prefix\`; a client a request and the ephemeral cache in the
  module's scope, as in the packages' examples. "beside GET" does not wait for the verdict before it reads: it reads for those it refuses, too.
- Answers that were no hits: ${results.reduce((sum, { wrong }) => sum + wrong, 0)}.${again(repeated)}`;
}

/** Why rounds were measured again. */
function again(repeated) {
  if (repeated.length === 0) return "";
  const reasons = repeated.map(({ name, wrong }) => `${name} ${wrong}`).join(", ");
  return ` Measured again, all variants, because in one of their turns there were more: ${repeated.length} times (${reasons}).`;
}

const markdownTable = (head, lines) => [head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

const version = (name) => JSON.parse(readFileSync(path.join(ROOT, "node_modules", name, "package.json"), "utf8")).version;
