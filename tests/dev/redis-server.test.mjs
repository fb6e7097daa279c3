// startRedisServer gives a real redis-server that keeps nothing and outlives nobody; RespReader reads what it says, cut anywhere.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import { fileURLToPath } from "node:url";
import { describe, test } from "node:test";
import Redis from "ioredis";
import { startEndpoint } from "../../dev/redis/endpoint.mjs";
import { encodeCommands, RedisError, RespReader } from "../../dev/redis/resp.mjs";
import { startRedisServer } from "../../dev/redis/server.mjs";

const TOKEN = "right-token";

async function post(value, { url, token = TOKEN }) {
  const response = await fetch(url, { method: "POST", headers: { authorization: `Bearer ${token}` }, body: JSON.stringify(value) });
  return [response.status, await response.json()];
}

describe("redis-server", () => {
  test("keeps nothing, evicts nothing, and is gone after stop", async () => {
    const own = await startRedisServer();
    const client = new Redis({ port: own.port, host: "127.0.0.1" });
    assert.deepEqual(await client.config("GET", "save"), ["save", ""]);
    assert.deepEqual(await client.config("GET", "appendonly"), ["appendonly", "no"]);
    assert.deepEqual(await client.config("GET", "maxmemory-policy"), ["maxmemory-policy", "noeviction"]);
    client.disconnect();
    await own.stop();
    assert.equal(alive(own.pid), false);
    await own.stop();
  });

  test("that dies is 503 at the endpoint, which goes on when it is back on its port", async () => {
    const first = await startRedisServer();
    const own = await startEndpoint({ redisPort: first.port, token: TOKEN });
    assert.deepEqual(await post(["PING"], { url: own.url }), [200, { result: "PONG" }]);
    await first.kill();
    const [status, { error }] = await post([["PING"]], { url: `${own.url}/pipeline` });
    assert.equal(status, 503);
    assert.match(error, /^ERR Redis is not reachable/);
    const second = await startRedisServer({ port: first.port });
    assert.deepEqual(await post(["PING"], { url: own.url }), [200, { result: "PONG" }]);
    await own.close();
    await second.stop();
  });

  test("dies with the process that started it, even when that is killed", async () => {
    const module = new URL("../../dev/redis/server.mjs", import.meta.url).href;
    const program = `const { startRedisServer } = await import(${JSON.stringify(module)});
      const redis = await startRedisServer(); console.log(redis.port); if (process.argv[1] === "stay") setInterval(() => {}, 1000);`;
    for (const how of ["stay", "leave"]) {
      const child = spawn(process.execPath, ["--input-type=module", "-e", program, how], { stdio: ["ignore", "pipe", "inherit"] });
      const gone = once(child, "exit");
      const [line] = await once(child.stdout, "data");
      const port = Number(line);
      if (how === "stay") child.kill("SIGKILL");
      await gone;
      await until(async () => !(await listens(port)));
    }
  });

  test("that cannot be found is one sentence that says what to install", async () => {
    await assert.rejects(startRedisServer({ binary: "no-such-redis-server" }), /cannot be started \(ENOENT\): install Redis 7/);
    await assert.rejects(startRedisServer({ args: ["--no-such-option", "1"], port: 1 }), /redis-server ended at once/);
  });

  test("and the endpoint run alone from the command line", async () => {
    const script = fileURLToPath(new URL("../../dev/redis/endpoint.mjs", import.meta.url));
    const redis = await startRedisServer();
    const child = spawn(process.execPath, [script, "--redis-port", String(redis.port), "--token", "cli"], { stdio: ["ignore", "pipe", "inherit"] });
    const gone = once(child, "exit");
    const [line] = await once(child.stdout, "data");
    assert.deepEqual(await post(["PING"], { url: String(line).trim(), token: "cli" }), [200, { result: "PONG" }]);
    child.kill("SIGTERM");
    assert.deepEqual(await gone, [0, null]);
    await redis.stop();
  });
});

describe("RESP2", () => {
  const bytes = Buffer.from("+OK\r\n-ERR no\r\n:-7\r\n:9223372036854775807\r\n$-1\r\n$0\r\n\r\n$4\r\n\r\n\xff\0\r\n*-1\r\n*0\r\n*3\r\n*2\r\n:1\r\n$1\r\na\r\n*0\r\n-E x\r\n", "latin1");
  const replies = [Buffer.from("OK"), new RedisError("ERR no"), -7, 9223372036854775807n, null, Buffer.alloc(0), Buffer.from("\r\n\xff\0", "latin1"),
    null, [], [[1, Buffer.from("a")], [], new RedisError("E x")]];

  test("reads the same replies wherever the bytes are cut", () => {
    for (let size = 1; size <= bytes.length; size += 1) {
      const got = [];
      const reader = new RespReader((reply) => got.push(reply));
      for (let at = 0; at < bytes.length; at += size) reader.push(bytes.subarray(at, at + size));
      assert.deepEqual(got, replies, `in pieces of ${size}`);
    }
  });

  test("what is no RESP2 is an error", () => {
    for (const text of ["HTTP/1.1 200\r\n", "$x\r\n", "*-2\r\n", ":1.5\r\n", "$\r\n"]) {
      assert.throws(() => new RespReader(() => {}).push(Buffer.from(text)), /not a RESP2 reply/);
    }
  });

  test("commands are counted in bytes, strings and Buffers mixed", () => {
    assert.deepEqual(
      encodeCommands([["SET", "é", Buffer.from([255, 0])], ["PING"]]),
      Buffer.from("*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xa9\r\n$2\r\n\xff\0\r\n*1\r\n$4\r\nPING\r\n", "latin1"),
    );
  });
});

function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: "127.0.0.1" });
    socket.on("connect", () => resolve(true)).on("error", () => resolve(false));
    socket.on("connect", () => socket.destroy());
  });
}

/** Waits for another process to act; the test runner's own limit ends it when that never happens. */
async function until(holds) {
  const deadline = Date.now() + 120_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, "it never happened");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
