// The lab's figures as tables for people, and whether ours are what they must be. Pure.

/** Of ours: never more than the limit in any trailing window. */
const BOUNDED = ["sliding-window", "sliding-window, leases", "sliding-log"];
const EXACT_SHARE = 98.5;
const DEFAULT_TIMEOUT_MS = 150;
const LEASE_COMMANDS = [[1, 0.1], [4, 0.3]];

const percent = (part, whole) => (100 * part) / whole;
const share = (row) => percent(row.admitted, row.exact);
const commands = (row) => row.commands / row.count;

/** What ours must be: `[{ what, worst, met }]`. */
export function checks(rows) {
  const ours = rows.filter(({ limiter }) => BOUNDED.includes(limiter));
  const above = ours.filter(({ most, requests }) => most > requests);
  const pressed = ours.filter((row) => !row.is_for_leases && !row.limiter.includes("leases") && row.load >= 1);
  const least = Math.min(...pressed.map(share));
  const bounded = rows.filter(({ limiter }) => ["token-bucket", "fixed-window"].includes(limiter));
  const beyond = bounded.filter(({ bound }) => bound.reached > bound.most);
  const leased = rows.filter((row) => row.limiter === "sliding-window, leases" && row.is_for_leases && row.load === 0.7 && row.timeout_ms === DEFAULT_TIMEOUT_MS);
  return [
    {
      what: `${BOUNDED.join("; ")}: never above the limit in any trailing window`,
      worst: `${above.length} of ${ours.length} runs above`,
      met: ours.length > 0 && above.length === 0,
    },
    {
      what: `sliding-window; sliding-log: at least ${EXACT_SHARE} % of the exact log, Poisson loads 1 to 3, in every world`,
      worst: `${least.toFixed(2)} %`,
      met: least >= EXACT_SHARE,
    },
    {
      what: "token-bucket; fixed-window: never above their own bounds",
      worst: `${beyond.length} of ${bounded.length} runs above`,
      met: bounded.length > 0 && beyond.length === 0,
    },
    ...LEASE_COMMANDS.map(([isolates, target]) => {
      const worst = Math.max(...leased.filter((row) => row.isolates === isolates).map(commands));
      return {
        what: `leases, limit 1000, load 0.7, ${isolates} isolate${isolates > 1 ? "s" : ""}: at most ${target} commands a request`,
        worst: worst.toFixed(3),
        met: worst <= target,
      };
    }),
  ];
}

export function tables(rows, held, seed) {
  const small = rows.filter((row) => !row.is_for_leases);
  const worlds = [...new Map(small.map((row) => [world(row), row])).values()];
  const traces = [...new Set(small.map(({ trace }) => trace))];
  const limiters = [...new Set(small.map(({ limiter }) => limiter))];
  const { requests, window_ms } = small[0];
  const parts = [
    `Limit ${requests} in ${window_ms / 1000} s, seed ${seed}, each trace in ${worlds.length} worlds:`,
    worlds.map((row) => `- ${world(row)}`).join("\n"),
    LEGEND,
    `### In short\n\n${summary(small, limiters)}`,
    ...traces.map((trace) => {
      const of = small.filter((row) => row.trace === trace);
      const lines = limiters.map((limiter) => line(limiter, of.filter((row) => row.limiter === limiter)));
      return `### ${TRACES[trace] ?? `Poisson, load ${of[0].load}`} (${of[0].count} requests)\n\n${table([HEAD, ...lines])}`;
    }),
    `### Leases: limit 1000 in ${window_ms / 1000} s\n\n${leases(rows.filter((row) => row.is_for_leases))}`,
    `### What ours must be\n\n${table([["", "worst", ""], ...held.map(({ what, worst, met }) => [what, worst, met ? "met" : "NOT MET"])])}`,
  ];
  return parts.join("\n\n");
}

const LEGEND = `Ours and the peer's by the time at which Redis decided, the models at once and with a true clock. A range is over the worlds.
- *most*: the most admitted in any trailing window, by true time. *own bound*: the most by the limiter's own promise (≤ what it promises).
- *of exact log*: admitted, as a share of what an exact log admits of these requests. *equal*: decisions that are the exact log's; one request admitted in another's place makes two that are not.
- *false refusals*: requests refused though fewer than the limit were admitted in the window before them; *over*: requests admitted though the limit was. Both by the limiter's own history.
- *commands*: Redis commands a request. Ours as sent in /pipeline and /multi-exec; the peer's from Redis' own commandstats, so those inside its scripts count, as Upstash bills them. The peer's scripts run on stock Redis without the flag \`allow-key-locking\`, which only Upstash knows.`;

const TRACES = {
  bursty: "Bursty: 8 s on at 5 times the limit's rate, 16 s off",
  edges: "Edges: 1.5 limits before and after each window's boundary",
  echo: "Echo: the same 1.5 limits in half a second, exactly one window apart",
  replayed: "Replayed: a day of readers, apps, scrapers and a cron job, 18 ids",
};

const HEAD = ["limiter", "most", "own bound", "of exact log %", "equal %", "false refusals %", "over %", "commands"];

const world = (row) =>
  `${row.isolates} isolate${row.isolates > 1 ? "s" : ""}, trips of ${row.trip_ms.join(" to ")} ms, clocks ${row.skew_ms > 0 ? `wrong by up to ${row.skew_ms / 1000} s` : "right"}` +
  `${row.timeout_ms === DEFAULT_TIMEOUT_MS ? "" : `, Redis timeout ${row.timeout_ms} ms`}`;

function line(limiter, rows) {
  const [{ bound }] = rows;
  const reached = Math.max(...rows.map((row) => row.bound.reached));
  const promise = bound.kind === null ? "none" : `${reached} ≤ ${bound.most}${bound.kind === "aligned" ? " aligned" : ""}${reached > bound.most ? " BROKEN" : ""}`;
  return [
    limiter,
    range(rows.map(({ most }) => most), 0),
    promise,
    range(rows.map(share)),
    range(rows.map((row) => percent(row.equal, row.count))),
    range(rows.map((row) => percent(row.false_refusals, row.count))),
    range(rows.map((row) => percent(row.false_admissions, row.count))),
    limiter.startsWith("model") ? "" : range(rows.map(commands), 2),
  ];
}

/** Over all traces, and over Poisson loads 1 to 3. A far Redis is apart: its timeout makes the bucket, and so the lateness. */
const GROUPS = [
  ["clocks right", ({ skew_ms }) => skew_ms === 0],
  ["clocks wrong", (row) => row.skew_ms > 0 && !isFar(row)],
  ["far", isFar],
];

function isFar({ timeout_ms }) {
  return timeout_ms !== DEFAULT_TIMEOUT_MS;
}

function summary(rows, limiters) {
  const titles = (what) => GROUPS.map(([group], at) => (at === 0 ? `${what}, ${group}` : group));
  const head = ["limiter", ...titles("most"), ...titles("of exact log %, load 1 to 3"), ...titles("equal %"), "commands"];
  const lines = limiters.map((limiter) => {
    const of = rows.filter((row) => row.limiter === limiter);
    const pressed = of.filter(({ load }) => load >= 1);
    const apart = (of, value, digits) => GROUPS.map(([, which]) => range(of.filter(which).map(value), digits));
    return [
      limiter,
      ...GROUPS.map(([, which]) => String(Math.max(...of.filter(which).map(({ most }) => most)))),
      ...apart(pressed, share),
      ...apart(pressed, (row) => percent(row.equal, row.count)),
      limiter.startsWith("model") ? "" : range(pressed.map(commands), 2),
    ];
  });
  return table([head, ...lines]);
}

function leases(rows) {
  const head = ["load", "world", "leases", "most", "of exact log %", "false refusals %", "commands"];
  const lines = rows
    .filter(({ limiter }) => BOUNDED.includes(limiter))
    .map((row) => [
      String(row.load),
      world(row),
      row.limiter.includes("leases") ? "on" : "off",
      String(row.most),
      share(row).toFixed(1),
      percent(row.false_refusals, row.count).toFixed(1),
      commands(row).toFixed(3),
    ]);
  return table([head, ...lines]);
}

function range(values, digits = 1) {
  const [low, high] = [Math.min(...values), Math.max(...values)].map((value) => value.toFixed(digits));
  return low === high ? low : `${low} to ${high}`;
}

function table([head, ...lines]) {
  return [head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}
