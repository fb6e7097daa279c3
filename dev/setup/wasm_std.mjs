// Rust's standard library for wasm32, built from Debian's source for Debian's compiler, for machines on which rustup cannot
// download its own.
//
// It works with the one compiler that built it, so a stamp beside it names that compiler; after an upgrade it is built again.
// It goes into the compiler's own folder, where an ordinary `cargo build --target` looks.

import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { ask, find, run, SetupError, TOOLS } from "./exec.mjs";
import { aptInstall, asRoot, rootPrefix, withoutRights } from "./apt.mjs";
import { step } from "./progress.mjs";

const PACKAGES = ["rustc-web", "cargo-web", "rust-web-src", "lld-22"];
const RUSTC = "/usr/bin/rustc";
const CARGO = "/usr/bin/cargo";
const LINKER = "/usr/bin/lld-22";
const SYSROOT = "/usr";
const TARGET = "wasm32-unknown-unknown";
const OTHERWISE = `The Rust target ${TARGET} is missing: run \`rustup target add ${TARGET}\`.`;

/** What is there: `{ libdir, matches, identity }`, or null where Debian's compiler is not installed. */
export async function debianStd(env = process.env) {
  if (!existsSync("/etc/debian_version") || !existsSync(RUSTC)) return null;
  const compiler = await compilerVersion(env);
  if (compiler === null) return null;
  const folder = path.join(SYSROOT, "lib/rustlib", TARGET);
  const stamp = path.join(folder, "built-for");
  const identity = existsSync(stamp) ? readFileSync(stamp, "utf8") : null;
  const matches = identity?.startsWith(`${compiler}\n`) === true && existsSync(linkerLink(compiler));
  return { libdir: path.join(folder, "lib"), matches, identity };
}

/** Installs Debian's compiler and builds the library unless both are there; answers as `debianStd` does. */
export async function ensureDebianStd(env = process.env) {
  // All of them, since a compiler of before and a library source of now do not go together.
  if (!PACKAGES.every(isInstalled)) await aptInstall(PACKAGES, { otherwise: OTHERWISE, env });
  const before = await debianStd(env);
  if (before?.matches) return before;
  const prefix = await rootPrefix(env);
  if (prefix === null) throw new SetupError(withoutRights(OTHERWISE, env));
  await step(`building Rust's standard library for ${TARGET}`, () => build(prefix, env));
  const after = await debianStd(env);
  if (!after?.matches) throw new SetupError(OTHERWISE);
  return after;
}

function isInstalled(name) {
  return existsSync(path.join("/var/lib/dpkg/info", `${name}.list`));
}

/** Of the real compiler: /usr/bin/rustc is rustup's where Debian's rustup package put it. */
async function compilerVersion(env) {
  const sysroot = await ask(RUSTC, ["--print", "sysroot"], { env });
  return sysroot === SYSROOT ? ask(RUSTC, ["-vV"], { env }) : null;
}

function linkerLink(compiler) {
  const host = /^host: (.+)$/m.exec(compiler)?.[1] ?? "";
  return path.join(SYSROOT, "lib/rustlib", host, "bin/rust-lld");
}

async function build(prefix, env) {
  const compiler = await compilerVersion(env);
  if (compiler === null) throw new SetupError(OTHERWISE);
  const work = mkdtempSync(path.join(tmpdir(), "edgeweir-std-"));
  try {
    const rlibs = await compile(work, env);
    await install(prefix, { compiler, rlibs, work, env });
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Builds an empty crate with the library it needs; resolves with the library's files. */
async function compile(work, env) {
  mkdirSync(path.join(work, "src"));
  writeFileSync(path.join(work, "Cargo.toml"), '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n');
  writeFileSync(path.join(work, "src/lib.rs"), "");
  const args = ["build", "--release", "--target", TARGET, "-Zbuild-std=std,panic_abort,proc_macro,test"];
  const log = path.join(TOOLS, "log", "wasm-std.log");
  const variables = {
    ...env,
    RUSTC,
    // The stable compiler allows -Zbuild-std with this; without the bitcode, link-time optimization of the Worker fails.
    RUSTC_BOOTSTRAP: "1",
    RUSTFLAGS: "-Cembed-bitcode=yes",
    CARGO_TARGET_DIR: path.join(work, "target"),
  };
  delete variables.RUSTUP_TOOLCHAIN;
  const { code } = await run(CARGO, args, { cwd: work, env: variables, log });
  if (code !== 0) throw new SetupError(`${OTHERWISE.slice(0, -1)}, since building it here failed (${path.relative(process.cwd(), log)} says why).`);
  const deps = path.join(work, "target", TARGET, "release/deps");
  return readdirSync(deps)
    .filter((name) => name.endsWith(".rlib") && !name.startsWith("libempty-"))
    .map((name) => path.join(deps, name));
}

async function install(prefix, { compiler, rlibs, work, env }) {
  const folder = path.join(SYSROOT, "lib/rustlib", TARGET);
  const stamp = path.join(work, "built-for");
  writeFileSync(stamp, `${compiler}\nbuilt ${new Date().toISOString()}\n`);
  const link = linkerLink(compiler);
  const commands = [
    ["rm", "-rf", folder],
    ["mkdir", "-p", path.join(folder, "lib"), path.dirname(link)],
    ["cp", ...rlibs, path.join(folder, "lib")],
    ["ln", "-sf", find("lld-22", env) ?? LINKER, link],
    ["cp", stamp, path.join(folder, "built-for")], // last: it says that all before is there
  ];
  for (const command of commands) {
    const { code } = await asRoot(prefix, command, { env });
    if (code !== 0) throw new SetupError(OTHERWISE);
  }
}
