// `npm run build`: the Worker as it is deployed, in build/ (index.js and index_bg.wasm).
//
// Nothing is built when neither an input nor a tool changed since, and the output is what that build left. A Worker of
// 400 KB gzipped or more is an error: it would start slowly.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { ROOT, run, SetupError } from "./setup/exec.mjs";
import { main, say, step } from "./setup/progress.mjs";
import { ensureToolchain } from "./setup/toolchain.mjs";
import { WASM_TARGET_DIR } from "./setup/wasm.mjs";
import { slim } from "./slim.mjs";

export const BUILD_DIR = path.join(ROOT, "build");
export const MODULES = ["index.js", "index_bg.wasm"];

const INPUTS = ["src", "Cargo.toml", "Cargo.lock", "build.rs", "policy.toml", ".cargo", "dev/build.mjs", "dev/slim.mjs"];
const STAMP = path.join(BUILD_DIR, ".inputs");
const MAX_GZIP_BYTES = 400_000;
/** workerd and Cloudflare run it; each hit looks for the ends of texts and hashes. */
const SIMD = "-Ctarget-feature=+simd128";

/** Builds unless what is there is up to date: `{ rawBytes, gzipBytes, built }`. */
export async function buildWorker() {
  const toolchain = await ensureToolchain();
  const before = inputHash(ROOT, INPUTS, toolchain.identity);
  if (readStamp() === `${before} ${outputHash()}`) return { ...sizes(), built: false };
  rmSync(STAMP, { force: true });
  await step("building the Worker", () => compile(toolchain));
  // Taken before the build: a file saved while it ran is built at the next one.
  writeFileSync(STAMP, `${before} ${outputHash()}`);
  return { ...sizes(), built: true };
}

/** A hash of the named files and folders, with their names, and of `identity`; what is absent counts as absent. */
export function inputHash(root, inputs, identity = "") {
  const hash = createHash("sha256").update(identity);
  for (const name of inputs.flatMap((input) => filesUnder(root, input)).sort()) {
    const bytes = readFileSync(path.join(root, name));
    hash.update(`\0${name}\0${bytes.length}\0`).update(bytes);
  }
  return hash.digest("hex");
}

function filesUnder(root, name) {
  const place = path.join(root, name);
  if (!existsSync(place)) return [];
  const folder = readFolder(place);
  return folder === null ? [name] : folder.flatMap((entry) => filesUnder(root, `${name}/${entry}`));
}

function readFolder(place) {
  try {
    return readdirSync(place);
  } catch (error) {
    if (error.code === "ENOTDIR") return null;
    throw error;
  }
}

/** Panics name their place: without where this machine keeps its crates, which is some of the upload. */
async function shortPaths(env) {
  const sources = path.join(env.CARGO_HOME ?? path.join(os.homedir(), ".cargo"), "registry", "src");
  await run("cargo", ["fetch", "--locked"], { env });
  const folders = existsSync(sources) ? readdirSync(sources).map((folder) => path.join(sources, folder)) : [];
  // A folder with a space in its name would be two flags.
  return folders.filter((folder) => !/\s/.test(folder)).map((folder) => `--remap-path-prefix=${folder}/=`);
}

/** Most of what level 2 does to be quick is worth its bytes here; these are not: a hit is as quick without them. */
const SMALLER = ["-Cno-vectorize-loops", "-Cno-vectorize-slp", "-Cllvm-args=-inline-threshold=25"];

async function compile({ env, workerBuild }) {
  mkdirSync(BUILD_DIR, { recursive: true });
  // The default features are those of the command line: the TOML parser stays out of the Worker.
  const variables = { ...process.env, ...env, NO_MINIFY: "1" }; // slim reads the script before it is made small
  variables.RUSTFLAGS = [variables.RUSTFLAGS, SIMD, ...SMALLER, ...(await shortPaths(variables))].filter(Boolean).join(" ");
  const { code } = await run(workerBuild, ["--release", "--no-opt", "--no-default-features"], { env: variables, show: true });
  if (code !== 0) throw new SetupError("The Worker was not built: correct the errors above.");
  // An alias for projects that name worker-build's old entry point.
  rmSync(path.join(BUILD_DIR, "worker"), { recursive: true, force: true });
  const [script, wasm] = MODULES.map((name) => path.join(BUILD_DIR, name));
  await slim({ script, wasm, named: path.join(WASM_TARGET_DIR, "index_bg.named.wasm"), env });
}

function readStamp() {
  return existsSync(STAMP) ? readFileSync(STAMP, "utf8") : null;
}

function outputHash() {
  return inputHash(BUILD_DIR, MODULES);
}

function sizes() {
  const modules = MODULES.map((name) => readFileSync(path.join(BUILD_DIR, name)));
  const sum = (lengths) => lengths.reduce((total, length) => total + length, 0);
  return {
    rawBytes: sum(modules.map((bytes) => bytes.length)),
    gzipBytes: sum(modules.map((bytes) => gzipSync(bytes, { level: 9 }).length)),
  };
}

/** Says how large the Worker is; too large is an error. */
export function reportSize({ rawBytes, gzipBytes, built }) {
  const kilobytes = (bytes) => `${(bytes / 1000).toFixed(1)} KB`;
  say(`The Worker is ${kilobytes(rawBytes)}, ${kilobytes(gzipBytes)} gzipped${built ? "" : " (unchanged)"}.`);
  if (gzipBytes >= MAX_GZIP_BYTES) {
    throw new SetupError(`The Worker is ${kilobytes(gzipBytes)} gzipped: it must stay below ${kilobytes(MAX_GZIP_BYTES)}.`);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await main(async () => reportSize(await buildWorker()));
}
