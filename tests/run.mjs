// `npm test`: every check of the project, one after the other, with one line of totals at the end.
//
// `npm test -- NAME…` runs only the named steps. A step that cannot run says SKIP and why; one that fails does not keep the
// others from running, unless they need what it makes. The tests themselves are in the folders beside this file.

import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { buildWorker, reportSize } from "../dev/build.mjs";
import { ROOT, run, SetupError, TOOLS } from "../dev/setup/exec.mjs";
import { ensureNodeModules } from "../dev/setup/packages.mjs";
import { main } from "../dev/setup/progress.mjs";
import { ensureRedis } from "../dev/setup/redis.mjs";
import { ensureComponent, ensureRust } from "../dev/setup/rust.mjs";
import { wasmClippy, wasmEnv, WASM_TARGET } from "../dev/setup/wasm.mjs";
import { add, count, exitCode, NONE, settle, totalsLine } from "./totals.mjs";

/** On a busy machine all takes many times as long; these end what hangs. */
const STEP_LIMIT_MS = 3 * 60 * 60_000;
/** Of each file, and of each test that has no limit of its own. */
const TEST_LIMIT_MS = 60 * 60_000;
const PASSED = { ...NONE, passed: 1 };
const FAILED = { ...NONE, failed: 1 };

/** In this order; `needs` names the step without which one cannot run. */
const STEPS = [
  { name: "fmt", title: "cargo fmt --check", work: fmt },
  { name: "clippy", title: "cargo clippy", work: clippy },
  { name: "native", title: "cargo test", work: native },
  { name: "build", title: "the Worker build", work: build },
  { name: "size", title: "the size of the upload", work: size, needs: "build" },
  { name: "clippy-wasm", title: `cargo clippy for ${WASM_TARGET}`, work: clippyWasm },
  { name: "deploy", title: "wrangler deploy --dry-run", work: deploy, needs: "build" },
  { name: "dev", title: "tests/dev: the parts in dev/", work: () => nodeTests("dev") },
  { name: "edge", title: "tests/edge: the Worker in workerd, with a real Redis", work: () => nodeTests("edge"), needs: "build" },
  { name: "browser", title: "tests/browser: the page in Chromium", work: browser, needs: "build" },
];

await main(async () => {
  const chosen = choose(process.argv.slice(2));
  await Promise.all([ensureRust(), ensureNodeModules(), ensureRedis()]);
  let totals = NONE;
  const failed = new Set();
  for (const step of chosen) {
    const counts = failed.has(step.needs) ? skip(`${step.needs} failed`) : await timed(step);
    if (counts.failed > 0) failed.add(step.name);
    totals = add(totals, counts);
  }
  if (failed.size > 0) console.log(`\nFailed: ${[...failed].join(", ")}`);
  console.log(`\n${totalsLine(totals)}`);
  process.exitCode = exitCode(totals);
});

/** The steps by name; what they need comes with them. */
function choose(names) {
  const unknown = names.find((name) => !STEPS.some((step) => step.name === name));
  if (unknown !== undefined) {
    throw new SetupError(`There is no step \`${unknown}\`: name some of ${STEPS.map((step) => step.name).join(", ")}.`);
  }
  if (names.length === 0) return STEPS;
  const wanted = new Set(names);
  for (const step of STEPS) if (wanted.has(step.name) && step.needs) wanted.add(step.needs);
  return STEPS.filter((step) => wanted.has(step.name));
}

async function timed(step) {
  console.log(`\n== ${step.name}: ${step.title}`);
  const startedMs = Date.now();
  const counts = await step.work().catch((error) => {
    console.log(error instanceof SetupError ? error.message : error.stack);
    return FAILED;
  });
  console.log(`== ${step.name}: ${totalsLine(counts)} (${((Date.now() - startedMs) / 1000).toFixed(1)} s)`);
  return counts;
}

function skip(reason) {
  console.log(`SKIP: ${reason}`);
  return { ...NONE, skipped: 1 };
}

async function fmt() {
  const rustfmt = await ensureComponent("rustfmt");
  return rustfmt.ok ? check("cargo", ["fmt", "--all", "--check"]) : skip(rustfmt.reason);
}

async function clippy() {
  const component = await ensureComponent("clippy");
  return component.ok ? check("cargo", ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]) : skip(component.reason);
}

async function clippyWasm() {
  const component = await wasmClippy();
  if (!component.ok) return skip(component.reason);
  // The release profile, whose build scripts and macros the build before has compiled already.
  const args = ["clippy", "--lib", "--release", "--no-default-features", "--target", WASM_TARGET, "--", "-D", "warnings"];
  return check("cargo", args, await wasmEnv());
}

function native() {
  // What the tests take from npm packages is there: without it they fail instead of going without.
  return counted("cargo", "cargo", ["test", "--no-fail-fast"], { EDGEWEIR_NODE_MODULES: "1" });
}

async function build() {
  await buildWorker();
  return PASSED;
}

async function size() {
  reportSize(await buildWorker());
  return PASSED;
}

function deploy() {
  // Without the banner wrangler does not ask for a newer version of itself: this step is for machines without a network too.
  const quiet = { CI: "1", WRANGLER_SEND_METRICS: "false", WRANGLER_HIDE_BANNER: "true", WRANGLER_LOG_PATH: path.join(TOOLS, "log") };
  const wrangler = path.join(ROOT, "node_modules/wrangler/bin/wrangler.js");
  const args = [wrangler, "deploy", "--dry-run", "--outdir", path.join(ROOT, ".wrangler/dry-run")];
  return check(process.execPath, args, quiet);
}

async function nodeTests(folder) {
  const place = path.join(ROOT, "tests", folder);
  const files = existsSync(place) ? readdirSync(place).filter((name) => name.endsWith(".test.mjs")).sort() : [];
  if (files.length === 0) return skip(`tests/${folder} has no tests`);
  const args = ["--test", "--test-concurrency=1", `--test-timeout=${TEST_LIMIT_MS}`, "--test-reporter=spec"];
  return counted("node", process.execPath, [...args, ...files.map((name) => path.join(place, name))]);
}

async function browser() {
  if (!existsSync(path.join(ROOT, "tests/browser"))) return skip("there is no page to test in a browser yet");
  if (!existsSync("/usr/bin/chromium")) return skip("Chromium is missing: install it so that /usr/bin/chromium is there");
  return nodeTests("browser");
}

/** A program that is one check: it passes or it fails. */
async function check(program, args, env = {}) {
  const { code } = await run(program, args, { env: { ...process.env, ...env }, limitMs: STEP_LIMIT_MS, show: true });
  return code === 0 ? PASSED : FAILED;
}

/** A program that counts its own tests. */
async function counted(kind, program, args, env = {}) {
  let counts = NONE;
  const onLine = (line) => (counts = add(counts, count(kind, line)));
  const { code } = await run(program, args, { env: { ...process.env, ...env }, limitMs: STEP_LIMIT_MS, show: true, onLine });
  if (code === 124) console.log(`ended after ${STEP_LIMIT_MS / 60_000} minutes`);
  return settle(counts, code);
}
