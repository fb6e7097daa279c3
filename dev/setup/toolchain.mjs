// Everything that turns the Rust sources into a Worker, as one call: compiler, worker-build, wasm-bindgen, wasm-opt, esbuild.

import path from "node:path";
import { ROOT } from "./exec.mjs";
import { ensureCargoTools } from "./cargo_tools.mjs";
import { ensureNodeModules } from "./packages.mjs";
import { ensureRust } from "./rust.mjs";
import { ensureWasm } from "./wasm.mjs";

/**
 * Installs what is missing: `{ env, workerBuild, identity }`. `env` holds the variables that worker-build needs on top of
 * `process.env`, and `identity` changes when what was built before is out of date.
 */
export async function ensureToolchain() {
  await ensureRust();
  const [wasm, tools] = await Promise.all([ensureWasm(), ensureCargoTools(), ensureNodeModules()]);
  const program = (name, file) => path.join(ROOT, "node_modules", name, "bin", file);
  const env = {
    ...wasm.env,
    WASM_BINDGEN_BIN: tools.wasmBindgen,
    WASM_OPT_BIN: program("binaryen", "wasm-opt"),
    ESBUILD_BIN: program("esbuild", "esbuild"),
  };
  return { env, workerBuild: tools.workerBuild, identity: [wasm.identity, ...tools.versions].join("\n") };
}
