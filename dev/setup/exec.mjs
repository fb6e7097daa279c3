// Running other programs for the set-up: found by name, awaited, with a time limit, and ended when this process ends.
//
// It uses Node's own modules only, since it runs before any package is installed. `run` never throws for what a program
// does: it resolves with the exit code (127: not found, 124: out of time). Output kept in memory is bounded.

import { spawn } from "node:child_process";
import { accessSync, constants, createWriteStream, mkdirSync, statSync } from "node:fs";
import { homedir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The project's root, where every path here starts. */
export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
/** What the set-up installs for this project alone. */
export const TOOLS = path.join(ROOT, ".tools");

/** Something is missing and cannot be installed; the message is one sentence that says what to install. */
export class SetupError extends Error {}

/** Compiling Rust on a slow machine takes minutes; an hour means that it hangs. */
const DEFAULT_LIMIT_MS = 60 * 60_000;
const KEPT_OUTPUT_CHARS = 200_000;
const children = new Set();

process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

/** Where a program is: on PATH, or in cargo's folder, which a fresh rustup has not put on PATH yet. Null if nowhere. */
export function find(name, env = process.env) {
  for (const folder of folders(env)) {
    const file = path.join(folder, name);
    try {
      accessSync(file, constants.X_OK);
      if (statSync(file).isFile()) return file;
    } catch {
      // Not in this folder.
    }
  }
  return null;
}

/** The environment in which `find` and the programs it finds agree on what a name means. */
export function searchEnv(env = process.env) {
  return { ...env, PATH: folders(env).join(path.delimiter) };
}

function folders(env) {
  const cargoHome = env.CARGO_HOME || path.join(env.HOME || homedir(), ".cargo");
  const listed = (env.PATH ?? "").split(path.delimiter).filter(Boolean);
  const cargoBin = path.join(cargoHome, "bin");
  return listed.includes(cargoBin) ? listed : [...listed, cargoBin];
}

/**
 * Runs a program to its end: `{ code, output }`.
 * `log`: a file that gets all output. `show`: output goes on to the terminal. `onLine`: called with each line.
 */
export function run(command, args, { cwd = ROOT, env = process.env, limitMs = DEFAULT_LIMIT_MS, log, show, onLine } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env: searchEnv(env), stdio: ["ignore", "pipe", "pipe"] });
    children.add(child);
    let output = "";
    let late = false;
    const file = log && openLog(log);
    const timer = setTimeout(() => {
      late = true;
      child.kill("SIGKILL");
    }, limitMs);
    const finish = (code) => {
      clearTimeout(timer);
      children.delete(child);
      file?.end();
      resolve({ code: late ? 124 : code, output });
    };
    for (const [stream, terminal] of [[child.stdout, process.stdout], [child.stderr, process.stderr]]) {
      const lines = onLine && lineSplitter(onLine);
      stream.setEncoding("utf8");
      stream.on("data", (text) => {
        output = (output + text).slice(-KEPT_OUTPUT_CHARS);
        file?.write(text);
        if (show) terminal.write(text);
        lines?.push(text);
      });
      stream.on("end", () => lines?.end());
    }
    child.once("error", (error) => finish(error.code === "ENOENT" ? 127 : 126));
    child.once("close", (code) => finish(code ?? 1));
  });
}

/** The trimmed output of a quick question to a program, or null when it fails. A busy machine may take its time. */
export async function ask(command, args, { env, limitMs = 5 * 60_000 } = {}) {
  const { code, output } = await run(command, args, { env, limitMs });
  return code === 0 ? output.trim() : null;
}

function openLog(file) {
  mkdirSync(path.dirname(file), { recursive: true });
  return createWriteStream(file);
}

function lineSplitter(onLine) {
  let rest = "";
  return {
    push(text) {
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const line of lines) onLine(line);
    },
    end() {
      if (rest !== "") onLine(rest);
      rest = "";
    },
  };
}
