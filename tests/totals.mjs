// Counting tests from what the test programs print themselves: cargo test's result lines and node:test's summary.
//
// It trusts no exit code; the runner holds the counts against it.

/** No test counted yet. */
export const NONE = Object.freeze({ passed: 0, failed: 0, skipped: 0 });

/** The sum of two counts. */
export function add(a, b) {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped };
}

/** What one line of output adds, by the program that printed it: `cargo` or `node`. */
export function count(program, line) {
  const plain = line.replace(/\x1b\[[0-9;]*m/g, "").trimEnd();
  return program === "cargo" ? countCargo(plain) : countNode(plain);
}

/** `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s` */
function countCargo(line) {
  const found = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;/.exec(line);
  if (!found) return NONE;
  const [passed, failed, skipped] = found.slice(1).map(Number);
  return { passed, failed, skipped };
}

/** `ℹ pass 12`, one line per kind; only the summary's lines begin with that mark in the first column. */
function countNode(line) {
  const found = /^ℹ (pass|fail|cancelled|skipped|todo) (\d+)$/.exec(line);
  if (!found) return NONE;
  const kind = { pass: "passed", fail: "failed", cancelled: "failed", skipped: "skipped", todo: "skipped" }[found[1]];
  return { ...NONE, [kind]: Number(found[2]) };
}

/** A step's counts held against its exit code: a failure that no test reported is one failure. */
export function settle(counts, code) {
  return code !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts;
}

/** The last line of a run. */
export function totalsLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/** A run without a single test is a failure too: it shows nothing. */
export function exitCode({ passed, failed }) {
  return failed > 0 || passed === 0 ? 1 : 0;
}
