// What the person at the terminal sees of long steps: a line when one starts and a line with its seconds when it ends; in
// between, a terminal has a line that counts the seconds, and a log gets a line every ten seconds.
//
// Steps that may be done already are named only once they take work. A failure is one sentence, never a stack trace.

import { SetupError } from "./exec.mjs";

const LOG_EVERY_MS = 10_000;

const active = new Map();
let ticker = null;

/** Runs `work` as a step with that name. */
export async function step(name, work) {
  const startedMs = Date.now();
  say(`… ${name}`);
  active.set(name, startedMs);
  tick();
  try {
    const result = await work();
    end(name);
    say(`✓ ${name} (${seconds(startedMs)} s)`);
    return result;
  } catch (error) {
    end(name);
    say(`✗ ${name} (${seconds(startedMs)} s)`);
    throw error;
  }
}

/** Prints a line above the counting one. */
export function say(line) {
  clear();
  process.stderr.write(`${line}\n`);
}

/** Runs a command's main function; what it cannot do ends the process with one sentence and code 1. */
export async function main(work) {
  try {
    await work();
  } catch (error) {
    const expected = error instanceof SetupError || process.env.EDGEWEIR_TRACE === undefined;
    say(expected ? oneLine(error.message ?? String(error)) : error.stack);
    process.exit(1);
  }
}

function oneLine(text) {
  return text.replace(/\s+/g, " ").trim();
}

function seconds(startedMs) {
  return ((Date.now() - startedMs) / 1000).toFixed(1);
}

function end(name) {
  active.delete(name);
  if (active.size > 0 || ticker === null) return;
  clearInterval(ticker);
  ticker = null;
}

function tick() {
  if (ticker !== null) return;
  const terminal = process.stderr.isTTY;
  ticker = setInterval(() => {
    const line = [...active].map(([name, startedMs]) => `${name} ${Math.round((Date.now() - startedMs) / 1000)} s`).join(", ");
    if (terminal) process.stderr.write(`\r\x1b[K  ${line.slice(0, Math.max(20, (process.stderr.columns ?? 80) - 4))}`);
    else say(`  ${line}`);
  }, terminal ? 1000 : LOG_EVERY_MS);
  ticker.unref();
}

function clear() {
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
}
