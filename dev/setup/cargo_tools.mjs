// The two programs that make a Worker of the compiled crate: worker-build, and the wasm-bindgen command of exactly the version
// that Cargo.lock has for the crate. Both go into the project's own folder, so no other project's version is touched.

import { existsSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { ask, ROOT, run, SetupError, TOOLS } from "./exec.mjs";
import { aptInstall } from "./apt.mjs";
import { step } from "./progress.mjs";
import { ensureRust } from "./rust.mjs";

const WORKER_BUILD_VERSION = "0.8.7";
const BUILD_DIR = path.join(TOOLS, "target");

/** Installs what is missing: `{ workerBuild, wasmBindgen, versions }`, the first two being paths. */
export async function ensureCargoTools({ env = process.env } = {}) {
  const tools = [
    { crate: "worker-build", program: "worker-build", version: WORKER_BUILD_VERSION, answer: WORKER_BUILD_VERSION },
    bindgen(lockedVersion("wasm-bindgen")),
  ];
  const missing = [];
  for (const tool of tools) if (!(await isInstalled(tool, env))) missing.push(tool);
  if (missing.length > 0) {
    await ensureRust({ env });
    await ensureOpenssl(env);
    for (const tool of missing) await install(tool, env);
    rmSync(BUILD_DIR, { recursive: true, force: true });
  }
  const [workerBuild, wasmBindgen] = tools.map(place);
  return { workerBuild, wasmBindgen, versions: tools.map(({ crate, version }) => `${crate} ${version}`) };
}

/** The version of a package in Cargo.lock. */
export function lockedVersion(name, root = ROOT) {
  const file = path.join(root, "Cargo.lock");
  if (!existsSync(file)) throw new SetupError("Cargo.lock is missing: restore it from git.");
  const text = readFileSync(file, "utf8");
  const version = new RegExp(`^name = "${name}"\\nversion = "([^"]+)"`, "m").exec(text)?.[1];
  if (version === undefined) throw new SetupError(`Cargo.lock has no ${name}: restore it from git.`);
  return version;
}

function bindgen(version) {
  return { crate: "wasm-bindgen-cli", program: "wasm-bindgen", version, answer: `wasm-bindgen ${version}` };
}

function place({ program }) {
  return path.join(TOOLS, "bin", program);
}

async function isInstalled(tool, env) {
  return existsSync(place(tool)) && (await ask(place(tool), ["--version"], { env })) === tool.answer;
}

/** worker-build links OpenSSL, for downloads that we never let it make. */
async function ensureOpenssl(env) {
  if (process.platform !== "linux" || (await ask("pkg-config", ["--exists", "openssl"], { env })) !== null) return;
  await aptInstall(["pkg-config", "libssl-dev"], {
    otherwise: "OpenSSL's development files are missing: install pkg-config and OpenSSL's headers.",
    env,
  });
}

async function install(tool, env) {
  const { crate, version } = tool;
  const log = path.join(TOOLS, "log", `${crate}.log`);
  await step(`cargo install ${crate} ${version}`, async () => {
    // A debug profile: installing takes a third of the time, and running them is not what takes long.
    const args = ["install", "--debug", "--force", "--root", TOOLS, `${crate}@${version}`];
    const variables = { ...env, CARGO_TARGET_DIR: BUILD_DIR };
    let result = await run("cargo", [...args, "--locked"], { env: variables, log });
    // A registry mirror may lack a version that the program's lock file names.
    if (result.code !== 0 && result.output.includes("failed to select a version")) {
      result = await run("cargo", args, { env: variables, log });
    }
    if (result.code !== 0 || !(await isInstalled(tool, env))) {
      throw new SetupError(`${crate} ${version} cannot be installed: run \`cargo install --locked ${crate}@${version} --root .tools\` where crates.io can be reached (${path.relative(process.cwd(), log)} says what failed).`);
    }
  });
}
