// The Rust toolchain of the native side: cargo, a C linker, rustfmt and clippy. Rust for wasm32 is `wasm.mjs`.
//
// A rustup toolchain is used as it is; where there is no cargo at all, Debian's compiler is installed.

import { readFileSync } from "node:fs";
import path from "node:path";
import { ask, find, ROOT, run, SetupError } from "./exec.mjs";
import { aptInstall } from "./apt.mjs";
import { step } from "./progress.mjs";

const DOWNLOAD_LIMIT_MS = 180_000;
const COMPONENTS = { rustfmt: "fmt", clippy: "clippy" };
const DEBIAN_RUST = ["rustc-web", "cargo-web"];
const DEBIAN_COMPONENTS = { rustfmt: "rustfmt-web", clippy: "rust-web-clippy" };

/** Makes cargo, rustc and a C linker available; a compiler at `debians` is a package, which apt-get can make newer. */
export async function ensureRust({ env = process.env, debians = "/usr/bin/rustc" } = {}) {
  if (!find("cargo", env) || !find("rustc", env)) {
    await aptInstall(DEBIAN_RUST, { otherwise: "Rust is missing: install it from https://rustup.rs.", env });
  }
  if (!find("cc", env)) {
    await aptInstall(["gcc", "libc6-dev"], { otherwise: "A C linker is missing: install gcc or clang so that `cc` is on PATH.", env });
  }
  const oldest = oldestRust();
  const rustup = find("rustup", env) !== null;
  let version = await rustVersion(env);
  if (!rustup && find("rustc", env) === debians && version !== null && isOlder(version, oldest)) {
    await aptInstall(DEBIAN_RUST, { otherwise: tooOld(version, oldest, rustup), env });
    version = await rustVersion(env);
  }
  if (version === null) throw new SetupError("rustc does not answer: run `rustup default stable`, or install Rust from https://rustup.rs.");
  if (isOlder(version, oldest)) throw new SetupError(tooOld(version, oldest, rustup));
}

async function rustVersion(env) {
  return parseVersion(await ask("rustc", ["-V"], { env }));
}

function tooOld(version, oldest, rustup) {
  const how = rustup ? "with `rustup update stable`" : "from https://rustup.rs";
  return `Rust ${version.join(".")} is too old: install ${oldest.join(".")} or newer, for example ${how}.`;
}

/** `{ ok: true }` when `cargo fmt` or `cargo clippy` works, else `{ ok: false, reason }`. */
export async function ensureComponent(component, { env = process.env } = {}) {
  const works = async () => (await ask("cargo", [COMPONENTS[component], "--version"], { env })) !== null;
  if (await works()) return { ok: true };
  try {
    await installComponent(component, env);
  } catch {
    // Said below: the tests go on without it.
  }
  if (await works()) return { ok: true };
  return { ok: false, reason: `${component} is not installed and cannot be: run \`rustup component add ${component}\`` };
}

async function installComponent(component, env) {
  if (find("rustup", env)) {
    const args = ["component", "add", component];
    await step(`rustup component add ${component}`, async () => {
      const { code, output } = await run("rustup", args, { env, limitMs: DOWNLOAD_LIMIT_MS });
      if (code !== 0) throw new Error(output);
    });
  } else {
    await aptInstall([DEBIAN_COMPONENTS[component]], { otherwise: `${component} is missing.`, env });
  }
}

/** `[1, 96]` of `rustc 1.96.0 (…)`; null for anything else. */
export function parseVersion(text) {
  const found = /^rustc (\d+)\.(\d+)\./.exec(text ?? "");
  return found && [Number(found[1]), Number(found[2])];
}

/** Whether version `a` comes before `b`. */
export function isOlder(a, b) {
  return a[0] !== b[0] ? a[0] < b[0] : a[1] < b[1];
}

/** The oldest Rust the crate says it builds with. */
export function oldestRust(root = ROOT) {
  const manifest = readFileSync(path.join(root, "Cargo.toml"), "utf8");
  const found = /^rust-version = "(\d+)\.(\d+)/m.exec(manifest);
  return found ? [Number(found[1]), Number(found[2])] : [1, 85];
}
