// What worker-build made, without what this Worker never uses.
//
// The worker crate and its streams export classes to JavaScript that nobody makes here, and each keeps code alive in the wasm:
// first the script loses all but its default export, then the wasm all exports that the script does not name.

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { run, SetupError } from "./setup/exec.mjs";

/** What the compiler and wasm-bindgen use. */
const FEATURES = [
  "mutable-globals", "sign-ext", "nontrapping-float-to-int", "bulk-memory", "multivalue", "reference-types",
  "exception-handling", "simd",
].map((feature) => `--enable-${feature}`);

/** Sound because below address 1024 there is only the far end of the stack, which grows down to 0 from a megabyte above. */
const LOW_MEMORY = "--low-memory-unused";
/** By itself wasm-opt puts each function that is called once into its caller. That saves bytes, but thousands of lines with
 * hundreds of variables have little in common, and gzip makes 13 KB more of it. */
const SMALL = "--one-caller-inline-max-function-size=30";
/** The same for what is computed twice: gzip needs less for a repetition than for one more variable. */
const NO_CSE = "--skip-pass=local-cse";
/** Neighbours of one crate and one generic look alike, so gzip finds more in them. */
const BY_NAME = "--reorder-functions-by-name";

/** Rewrites `script` and `wasm`; `named` is then the wasm before its last step, with the functions' names, for reading traces. */
export async function slim({ script, wasm, named, env }) {
  await slimScript(script, env.ESBUILD_BIN);
  const graph = `${named}.graph.json`;
  writeFileSync(graph, JSON.stringify(exportsNamedIn(readFileSync(script, "utf8"))));
  const tool = (name) => path.join(path.dirname(env.WASM_OPT_BIN), name);
  await call(tool("wasm-metadce"), [wasm, ...FEATURES, `--graph-file=${graph}`, "-g", "-o", named]);
  rmSync(graph);
  await call(env.WASM_OPT_BIN, [named, ...FEATURES, LOW_MEMORY, SMALL, NO_CSE, "-Oz", "--converge", BY_NAME, "--strip-debug", "--strip-producers", "-o", wasm]);
  numberHashes(script, wasm);
}

/** wasm-bindgen's names end in hashes, of which gzip can make nothing: numbers of the same length tell them apart as well. */
function numberHashes(...files) {
  const numbers = new Map();
  for (const [hash] of readFileSync(files[0], "latin1").matchAll(HASH)) numbers.set(hash, numbers.get(hash) ?? numbers.size);
  for (const file of files) {
    const number = (hash) => (numbers.has(hash) ? String(numbers.get(hash)).padStart(hash.length, "0") : hash);
    writeFileSync(file, readFileSync(file, "latin1").replace(HASH, number), "latin1");
  }
}

const HASH = /(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])/g;

/** In place of worker-build's class, of which workerd makes an instance for each request, and that within two proxies: the
 * same handlers as plain functions cost a request a twentieth less. */
const HANDLERS = `
const handlers = {};
for (const [name, handler] of Object.entries(Entrypoint.prototype)) {
  handlers[name] = (event, env, ctx) => {
    checkReinitialize();
    try {
      return handler.call({ env, ctx }, event);
    } catch (error) {
      handleMaybeCritical(error);
      throw error;
    }
  };
}
export { handlers as default };
`;

/** esbuild drops what has no effect; that making these has none it must be told. */
async function slimScript(script, esbuild) {
  const whole = readFileSync(script, "utf8");
  const text = whole
    .replace(/^import \{[^}]*\} from "cloudflare:workers";$/m, "")
    .replace("class extends WorkerEntrypoint {", "class {")
    .replace(/export \{[^}]* as default\s*\};\s*$/, HANDLERS)
    .replaceAll("= new Proxy(", "= /* @__PURE__ */ new Proxy(")
    .replaceAll("new FinalizationRegistry(", "/* @__PURE__ */ new FinalizationRegistry(");
  if (!text.endsWith(HANDLERS)) throw new SetupError("worker-build's script has another end than dev/slim.mjs knows.");
  writeFileSync(script, text);
  const external = ["cloudflare:*", "*.wasm"].map((name) => `--external:${name}`);
  await call(esbuild, [
    script, "--bundle", "--minify", "--format=esm", ...external, "--define:Symbol.dispose=undefined", "--log-level=warning",
    "--allow-overwrite", `--outfile=${script}`,
  ]);
}

/** As wasm-metadce reads it. A name that is no export keeps nothing. */
function exportsNamedIn(text) {
  const names = [...new Set([...text.matchAll(/\.(\w+)/g)].map(([, name]) => name))];
  return [{ name: "the script", root: true, reaches: names }, ...names.map((name) => ({ name, export: name }))];
}

async function call(program, args) {
  const { code, output } = await run(program, args);
  if (code !== 0) throw new SetupError(`${path.basename(program)} cannot make the Worker smaller: ${output.trim()}`);
}
