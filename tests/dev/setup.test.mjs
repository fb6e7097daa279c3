// What the set-up scripts promise: a missing tool is one sentence, nothing is built twice, and the totals are the tests' own.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, mock, test } from "node:test";
import { inputHash } from "../../dev/build.mjs";
import { aptInstall, withoutRights } from "../../dev/setup/apt.mjs";
import { lockedVersion } from "../../dev/setup/cargo_tools.mjs";
import { find, ROOT, run, SetupError, TOOLS } from "../../dev/setup/exec.mjs";
import { isInstalled, requireNode } from "../../dev/setup/packages.mjs";
import { step } from "../../dev/setup/progress.mjs";
import { ensureRedis } from "../../dev/setup/redis.mjs";
import { ensureComponent, ensureRust, isOlder, oldestRust, parseVersion } from "../../dev/setup/rust.mjs";
import { readSettings } from "../../dev/worker.mjs";
import { add, count, exitCode, NONE, settle, totalsLine } from "../totals.mjs";

let folder;
before(() => {
  folder = mkdtempSync(path.join(tmpdir(), "edgeweir-setup-"));
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** A folder for PATH that holds only the named programs, each a shell script. */
function machine(name, programs = {}) {
  const bin = path.join(folder, name);
  mkdirSync(bin);
  for (const [program, script] of Object.entries(programs)) {
    writeFileSync(path.join(bin, program), `#!/bin/sh\n${script}\n`);
    chmodSync(path.join(bin, program), 0o755);
  }
  return { PATH: bin, HOME: bin };
}

const isSentence = (pattern) => (error) => {
  assert.ok(error instanceof SetupError, error.stack);
  assert.match(error.message, pattern);
  assert.match(error.message, /^[^\n]+\.$/);
  return true;
};

describe("a missing tool is one sentence that says what to install", () => {
  test("no Redis and no way to install it", async () => {
    const env = machine("no-redis");
    await assert.rejects(ensureRedis({ env, bin: env.HOME }), isSentence(/install Redis 7/));
  });

  test("a Redis that is too old", async () => {
    const env = machine("old-redis", { "redis-server": "echo 'Redis server v=6.0.16 sha=0:0'" });
    await assert.rejects(ensureRedis({ env }), isSentence(/install Redis 7 or newer/));
  });

  test("a Redis that is there is used, and nothing is installed", async () => {
    const env = machine("redis", { "redis-server": "echo 'Redis server v=7.0.15 sha=0:0'", "apt-get": "exit 1" });
    assert.equal(await ensureRedis({ env }), path.join(env.PATH, "redis-server"));
  });

  test("no Rust", async () => {
    await assert.rejects(ensureRust({ env: machine("no-rust") }), isSentence(/rustup\.rs/));
  });

  test("no C linker", async () => {
    const env = machine("no-cc", { cargo: "", rustc: "echo 'rustc 1.95.0 (x)'" });
    await assert.rejects(ensureRust({ env }), isSentence(/`cc` is on PATH/));
  });

  test("a Rust that is too old", async () => {
    const env = machine("old-rust", { cargo: "", cc: "", rustc: "echo 'rustc 1.63.0 (x)'" });
    await assert.rejects(ensureRust({ env }), isSentence(/1\.63 is too old: install 1\.\d+ or newer.+ from https:\/\/rustup\.rs\.$/));
    writeFileSync(path.join(env.PATH, "rustup"), "", { mode: 0o755 });
    await assert.rejects(ensureRust({ env, debians: path.join(env.PATH, "rustc") }), isSentence(/`rustup update stable`\.$/));
  });

  test("no right to use apt-get: that sudo's password would do is said only where there is a sudo", () => {
    const sentence = "Redis is missing: install it.";
    assert.equal(withoutRights(sentence, machine("neither")), sentence);
    assert.equal(withoutRights(sentence, machine("no-sudo", { "apt-get": "" })), sentence);
    const asked = withoutRights(sentence, machine("password", { "apt-get": "", sudo: "exit 1" }));
    assert.match(asked, /^Redis is missing: install it \([^\n]*`sudo -v`[^\n]*\)\.$/);
  });

  test("no rustfmt: a reason, since the tests go on without it", async () => {
    const { ok, reason } = await ensureComponent("rustfmt", { env: machine("no-fmt", { cargo: "exit 1" }) });
    assert.equal(ok, false);
    assert.match(reason, /rustup component add rustfmt/);
  });

  test("a Node that is too old", () => {
    assert.throws(() => requireNode("18.20.4"), isSentence(/install Node\.js 20/));
    assert.throws(() => requireNode("20.9.0"), isSentence(/install Node\.js 20/));
    for (const version of ["20.10.0", "20.20.2", "22.0.0"]) requireNode(version);
  });

  test("npm start prints it without a stack trace and exits with 1", async () => {
    const server = net.createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address();
    const taken = await started(String(port));
    server.close();
    assert.equal(taken.code, 1);
    assert.equal(taken.output.trim(), `Port ${port} is taken: end what uses it, or set EDGEWEIR_PORT to another one.`);
    const wrong = await started("http");
    assert.equal(wrong.code, 1);
    assert.equal(wrong.output.trim(), "EDGEWEIR_PORT must be a port number from 1 to 65535.");
  });

  function started(port) {
    const env = { ...process.env, EDGEWEIR_PORT: port };
    return run(process.execPath, [path.join(ROOT, "dev/start.mjs")], { env, limitMs: 240_000 });
  }
});

describe("Debian's packages", { skip: process.platform !== "linux" }, () => {
  /** A machine whose apt-get writes down how it was called and then does what `script` says; its root needs no password. */
  function debian(name, script, programs = {}) {
    const env = machine(name, { "apt-get": `echo "$*" >> "$HOME/calls"\n${script}`, sudo: 'shift\nexec "$@"', ...programs });
    for (const program of ["env", "setsid", "ln"]) symlinkSync(find(program), path.join(env.PATH, program));
    writeFileSync(path.join(env.HOME, "calls"), "");
    return env;
  }
  // These steps install nothing, so the log of the tests does not name them.
  before(() => mock.method(process.stderr, "write", () => true));
  after(() => mock.restoreAll());
  const calls = (env) => readFileSync(path.join(env.HOME, "calls"), "utf8").split("\n").filter(Boolean);
  const otherwise = "It is missing: install it.";

  test("are asked for by fresh lists, with nothing removed, and what fails is a sentence that names the log", async () => {
    // The lists are fetched once in a process, so this is the first test that installs.
    const env = debian("apt", 'case "$*" in *no-such-package*) echo E: not found >&2; exit 100;; *update*) exit 100;; esac');
    await Promise.all([aptInstall(["setup-test-a", "b"], { otherwise, env }), aptInstall(["setup-test-c"], { otherwise, env })]);
    const [update, ...installs] = calls(env);
    assert.equal(update, "update");
    assert.deepEqual(installs.map((call) => call.replace(/^install (.*) -o DPkg::Lock::Timeout=\d+ /, "")), ["setup-test-a b", "setup-test-c"]);
    for (const call of installs) assert.match(call, /^install .*-y .*--no-remove /);
    await assert.rejects(aptInstall(["no-such-package"], { otherwise, env }), isSentence(/cannot install no-such-package.*It is missing: install it\.$/));
    const log = path.join(TOOLS, "log/apt-no-such-package.log");
    assert.equal(readFileSync(log, "utf8"), "E: not found\n");
    for (const name of ["setup-test-a", "setup-test-c", "no-such-package"]) rmSync(path.join(TOOLS, `log/apt-${name}.log`));
  });

  test("a compiler of Debian's that is too old is made newer", async () => {
    const env = debian("debian-rust", 'case "$*" in *rustc-web*) ln -sf new "$HOME/rustc";; esac', {
      cargo: "", cc: "", old: "echo 'rustc 1.63.0 (x)'", new: "echo 'rustc 1.996.0 (x)'",
    });
    const debians = path.join(env.PATH, "rustc");
    symlinkSync("old", debians);
    await ensureRust({ env, debians });
    assert.equal(calls(env).filter((call) => call.startsWith("install")).length, 1);
    await ensureRust({ env, debians });
    assert.equal(calls(env).filter((call) => call.startsWith("install")).length, 1, "nothing is installed twice");
  });

  test("Redis comes without its service", async () => {
    const env = debian("debian-redis", 'case "$*" in *redis-tools*) ln -s real "$HOME/redis-check-rdb";; esac', {
      real: 'case "$0" in *redis-server) echo "Redis server v=7.0.15 sha=0:0";; *) exit 1;; esac',
    });
    const bin = path.join(env.HOME, "own");
    const again = { ...env };
    assert.equal(await ensureRedis({ env, bin }), path.join(bin, "redis-server"));
    assert.equal(find("redis-server", env), path.join(bin, "redis-server"), "what it starts finds it on PATH");
    const before = calls(env);
    assert.ok(before.every((call) => !call.includes("redis-server")));
    assert.equal(await ensureRedis({ env: again, bin }), path.join(bin, "redis-server"));
    assert.equal(find("redis-server", again), path.join(bin, "redis-server"));
    assert.deepEqual(calls(env), before, "nothing is installed twice");
  });

  test("are installed to the end though the set-up is killed with all that it started", async () => {
    const env = debian("killed", 'case "$*" in *update*) exit;; esac\n: > "$HOME/begun"; read -r _ < "$HOME/go"; echo output; : > "$HOME/done"');
    const place = (name) => path.join(env.HOME, name);
    assert.equal(spawnSync("mkfifo", [place("go")]).status, 0);
    const program = `import { aptInstall } from ${JSON.stringify(path.join(ROOT, "dev/setup/apt.mjs"))};
      await aptInstall(["setup-test-killed"], { otherwise: "", env: ${JSON.stringify(env)} });`;
    const setup = spawn(process.execPath, ["--input-type=module", "-e", program], { detached: true, stdio: ["ignore", "pipe", "pipe"] });
    const ended = new Promise((resolve) => setup.once("close", resolve));
    await until("apt-get has begun", () => existsSync(place("begun")));
    process.kill(-setup.pid, "SIGKILL");
    await ended;
    writeFileSync(place("go"), "\n");
    await until("apt-get has ended", () => existsSync(place("done")));
    const log = path.join(TOOLS, "log/apt-setup-test-killed.log");
    assert.equal(readFileSync(log, "utf8"), "output\n");
    rmSync(log);
  });
});

test("a log gets a line every ten seconds of a long step", { skip: process.stderr.isTTY }, async (t) => {
  const printed = [];
  t.mock.timers.enable({ apis: ["setInterval", "Date"] });
  t.mock.method(process.stderr, "write", (text) => printed.push(text));
  await step("a long step", async () => {
    for (const ms of [9_999, 1, 10_000, 5_000]) t.mock.timers.tick(ms);
  });
  t.mock.restoreAll();
  assert.deepEqual(printed, ["… a long step\n", "  a long step 10 s\n", "  a long step 20 s\n", "✓ a long step (25.0 s)\n"]);
});

test("what npm started ends when npm is killed, though a shell between them lives on", async () => {
  const launcher = path.join(ROOT, "dev/setup/launcher.mjs");
  const started = path.join(folder, "started");
  const ended = path.join(folder, "ended");
  const child = path.join(folder, "child.mjs");
  writeFileSync(child, `import { writeFileSync } from "node:fs";
    import { whenLauncherEnds } from ${JSON.stringify(launcher)};
    const alive = setTimeout(() => {}, 600_000);
    await whenLauncherEnds(() => { writeFileSync(${JSON.stringify(ended)}, ""); clearTimeout(alive); });
    writeFileSync(${JSON.stringify(started)}, "");`);
  const shell = `"${process.execPath}" "${child}"; :`;
  const npm = spawn(process.execPath, ["-e", `require("node:child_process").spawn("/bin/sh", ["-c", ${JSON.stringify(shell)}])`], {
    env: { ...process.env, npm_lifecycle_event: "start" },
    stdio: "ignore",
  });
  await until("the child runs", () => existsSync(started));
  assert.equal(existsSync(ended), false);
  npm.kill("SIGKILL");
  await until("the child ends", () => existsSync(ended));
});

async function until(what, condition) {
  for (const deadline = Date.now() + 120_000; Date.now() < deadline; ) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail(`never came true: ${what}`);
}

describe("programs", () => {
  test("are found on PATH, then in cargo's folder, and only if they can be run", () => {
    const env = machine("programs", { one: "" });
    mkdirSync(path.join(env.HOME, ".cargo/bin"), { recursive: true });
    symlinkSync("/bin/sh", path.join(env.HOME, ".cargo/bin/two"));
    writeFileSync(path.join(env.PATH, "three"), "");
    assert.equal(find("one", env), path.join(env.PATH, "one"));
    assert.equal(find("two", env), path.join(env.HOME, ".cargo/bin/two"));
    assert.equal(find("three", env), null);
    assert.equal(find(".cargo", env), null);
  });

  test("that are not there, fail or hang have a code, and their output is kept", async () => {
    assert.equal((await run("no-such-program", [])).code, 127);
    assert.deepEqual(await run("/bin/sh", ["-c", "echo out; echo err >&2; exit 3"]).then(({ code, output }) => [code, output.split("\n").sort()]),
      [3, ["", "err", "out"]]);
    assert.equal((await run("/bin/sh", ["-c", "exec sleep 600"], { limitMs: 50 })).code, 124);
  });

  test("hand over each line once, however it arrives", async () => {
    const lines = [];
    await run("/bin/sh", ["-c", "printf 'a\\nb'; printf 'c\\n\\nd'"], { onLine: (line) => lines.push(line) });
    assert.deepEqual(lines, ["a", "bc", "", "d"]);
  });

  test("are of the version that was asked for", () => {
    assert.deepEqual(parseVersion("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"), [1, 96]);
    assert.equal(parseVersion("error: no toolchain"), null);
    assert.equal(isOlder([1, 63], [1, 88]), true);
    assert.equal(isOlder([1, 88], [1, 88]), false);
    assert.equal(isOlder([2, 0], [1, 88]), false);
    assert.ok(oldestRust()[1] >= 85);
    assert.match(lockedVersion("wasm-bindgen"), /^0\.2\.\d+$/);
    assert.throws(() => lockedVersion("no-such-crate"), isSentence(/Cargo\.lock has no no-such-crate/));
  });
});

describe("nothing is done twice", () => {
  test("the hash of the inputs changes with every name, byte and tool, and with nothing else", () => {
    const root = path.join(folder, "inputs");
    mkdirSync(path.join(root, "src/deep"), { recursive: true });
    const write = (name, text) => writeFileSync(path.join(root, name), text);
    write("src/a.rs", "one");
    write("src/deep/b.rs", "two");
    const hash = (identity = "rustc 1") => inputHash(root, ["src", "Cargo.toml"], identity);
    const seen = [hash()];
    const changed = (what) => {
      assert.ok(!seen.includes(hash()), what);
      seen.push(hash());
    };
    write("src/a.rs", "one");
    write("README.md", "not an input");
    assert.equal(hash(), seen[0]);
    assert.notEqual(hash("rustc 2"), seen[0]);
    write("src/a.rs", "One");
    changed("a byte");
    write("Cargo.toml", "");
    changed("a new file, though empty");
    write("src/a.rs", "");
    write("src/c.rs", "One");
    changed("content that moved to another file");
    rmSync(path.join(root, "src/deep"), { recursive: true });
    changed("a file that is gone");
  });

  test("npm's packages count as installed when each is there in its version, but for other platforms' ones", () => {
    const root = path.join(folder, "packages");
    mkdirSync(path.join(root, "node_modules/a"), { recursive: true });
    const lock = (name, packages) => writeFileSync(path.join(root, name), JSON.stringify({ packages }));
    const wanted = { "": { name: "us" }, "node_modules/a": { version: "1.0.0" }, "node_modules/mac": { version: "1.0.0", optional: true } };
    lock("package-lock.json", wanted);
    assert.equal(isInstalled(root), false);
    lock("node_modules/.package-lock.json", { "node_modules/a": { version: "1.0.0" } });
    assert.equal(isInstalled(root), false, "npm's record says so, but the folder is empty");
    writeFileSync(path.join(root, "node_modules/a/package.json"), "{}");
    assert.equal(isInstalled(root), true);
    lock("node_modules/.package-lock.json", { "node_modules/a": { version: "0.9.0" } });
    assert.equal(isInstalled(root), false);
  });
});

describe("the totals", () => {
  const counted = (program, text) => text.split("\n").reduce((sum, line) => add(sum, count(program, line)), NONE);

  test("are cargo's own", () => {
    const text = `running 2 tests
test a ... ok
test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.01s
a test prints: test result: ok. 99 passed; 0 failed; 0 ignored;`;
    assert.deepEqual(counted("cargo", text), { passed: 15, failed: 2, skipped: 1 });
  });

  test("are node:test's own, with and without colours", () => {
    const text = `▶ ℹ pass 99\n  ℹ pass 99\n\x1b[34mℹ tests 9\x1b[39m\n\x1b[34mℹ pass 4\x1b[39m\nℹ fail 1\nℹ cancelled 1\nℹ skipped 2\nℹ todo 1\nℹ duration_ms 12`;
    assert.deepEqual(counted("node", text), { passed: 4, failed: 2, skipped: 3 });
  });

  test("come from what this Node prints", () => {
    const file = path.join(folder, "sample.test.mjs");
    writeFileSync(file, `import { test } from "node:test";
      test("a", () => {}); test("b", { skip: "why" }, () => {}); test("c", () => { throw new Error("no"); });`);
    const env = { ...process.env, NODE_TEST_CONTEXT: undefined };
    const { stdout, status } = spawnSync(process.execPath, ["--test", "--test-reporter=spec", file], { env, encoding: "utf8" });
    assert.equal(status, 1);
    assert.deepEqual(counted("node", stdout), { passed: 1, failed: 1, skipped: 1 });
  });

  test("a program that fails without a failed test is one failure; no test at all fails the run", () => {
    assert.deepEqual(settle({ passed: 3, failed: 0, skipped: 0 }, 101), { passed: 3, failed: 1, skipped: 0 });
    assert.deepEqual(settle({ passed: 3, failed: 2, skipped: 0 }, 1), { passed: 3, failed: 2, skipped: 0 });
    assert.deepEqual(settle({ passed: 3, failed: 0, skipped: 0 }, 0), { passed: 3, failed: 0, skipped: 0 });
    assert.equal(exitCode(NONE), 1);
    assert.equal(exitCode({ passed: 0, failed: 0, skipped: 5 }), 1);
    assert.equal(exitCode({ passed: 1, failed: 0, skipped: 5 }), 0);
    assert.equal(exitCode({ passed: 9, failed: 1, skipped: 0 }), 1);
    assert.equal(totalsLine({ passed: 412, failed: 0, skipped: 1 }), "412 passed, 0 failed, 1 skipped");
  });
});

test("workerd gets wrangler.toml's compatibility settings, and what is not set is an error", () => {
  const text = 'name = "x"\nmain = "build/index.js"\ncompatibility_date = "2026-04-01"\ncompatibility_flags = ["a", "b"]\ncrons = ["* * * * *"]\n';
  const cron = "* * * * *";
  assert.deepEqual(readSettings(text), { main: "build/index.js", compatibilityDate: "2026-04-01", compatibilityFlags: ["a", "b"], cron });
  assert.deepEqual(readSettings(text.replace(/^compatibility_flags.*\n/m, "")).compatibilityFlags, []);
  assert.throws(() => readSettings('main = "build/index.js"'), /does not set compatibility_date/);
});
