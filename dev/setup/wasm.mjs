// The compiler of the Worker: a rustc with a standard library for wasm32-unknown-unknown, and the environment to call it in.
//
// First choice is the active toolchain with rustup's own target. Where rustup cannot download, Debian's compiler takes its
// place, with a standard library built here from Debian's source (wasm_std.mjs). Two compilers never share a target folder:
// the wasm build has its own, and it is emptied when its compiler or library changes.

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { ask, find, ROOT, run } from "./exec.mjs";
import { step } from "./progress.mjs";
import { ensureRust } from "./rust.mjs";
import { debianStd, ensureDebianStd } from "./wasm_std.mjs";

export const WASM_TARGET = "wasm32-unknown-unknown";
/** The wasm build's target folder. */
export const WASM_TARGET_DIR = path.join(ROOT, "target", "wasm");

const DOWNLOAD_LIMIT_MS = 180_000;
let found = null;

/** Makes a wasm compiler available: `{ env, identity }`; `identity` changes whenever what it compiles must be compiled again. */
export function ensureWasm(options = {}) {
  found ??= look(options).catch((error) => {
    found = null;
    throw error;
  });
  return found;
}

/** The variables with which cargo and worker-build compile for wasm32, to be added to `process.env`. */
export async function wasmEnv() {
  return { ...(await ensureWasm()).env };
}

/** `{ ok }` or `{ ok: false, reason }`: whether the wasm compiler has clippy. */
export async function wasmClippy() {
  const env = { ...process.env, ...(await wasmEnv()) };
  if ((await ask("cargo", ["clippy", "--version"], { env })) !== null) return { ok: true };
  return { ok: false, reason: "the compiler for wasm32 here has no clippy; the build still compiles that code with warnings denied" };
}

async function look({ env = process.env } = {}) {
  await ensureRust({ env });
  const compiler = (await activeCompiler(env)) ?? (await debianCompiler(env)) ?? (await addTarget(env)) ?? (await buildStd(env));
  const variables = { ...compiler.env, CARGO_TARGET_DIR: WASM_TARGET_DIR };
  keepFor(compiler.identity);
  return { env: variables, identity: compiler.identity };
}

/** The active toolchain, if it has the target. */
async function activeCompiler(env) {
  const [libdir, version] = await Promise.all([
    ask("rustc", ["--print", "target-libdir", "--target", WASM_TARGET], { env }),
    ask("rustc", ["-vV"], { env }),
  ]);
  if (libdir === null || version === null || !hasStd(libdir)) return null;
  if (libdir === (await debianLibdir(env))) return null; // its library is ours, and has to match the compiler
  return { env: {}, identity: `${version}\n${libdir}` };
}

async function debianCompiler(env) {
  const std = await debianStd(env);
  return std?.matches && hasStd(std.libdir) ? { env: toolchain(env), identity: std.identity } : null;
}

async function debianLibdir(env) {
  return (await debianStd(env))?.libdir ?? null;
}

async function addTarget(env) {
  if (!find("rustup", env)) return null;
  const args = ["target", "add", WASM_TARGET];
  try {
    await step(`rustup ${args.join(" ")}`, async () => {
      const { code, output } = await run("rustup", args, { env, limitMs: DOWNLOAD_LIMIT_MS });
      if (code !== 0) throw new Error(output);
    });
  } catch {
    return null;
  }
  return activeCompiler(env);
}

async function buildStd(env) {
  const std = await ensureDebianStd(env);
  return { env: toolchain(env), identity: std.identity };
}

/** rustup takes a toolchain by its path; without rustup, cargo on PATH is Debian's already. */
function toolchain(env) {
  return find("rustup", env) ? { RUSTUP_TOOLCHAIN: "/usr" } : {};
}

function hasStd(libdir) {
  return existsSync(libdir) && readdirSync(libdir).some((name) => /^libstd-.*\.rlib$/.test(name));
}

/** Empties the target folder when another compiler or library filled it. */
function keepFor(identity) {
  const stamp = path.join(WASM_TARGET_DIR, ".compiler");
  const before = existsSync(stamp) ? readFileSync(stamp, "utf8") : null;
  if (before === identity) return;
  if (existsSync(WASM_TARGET_DIR)) rmSync(WASM_TARGET_DIR, { recursive: true, force: true });
  mkdirSync(WASM_TARGET_DIR, { recursive: true });
  writeFileSync(stamp, identity);
}
