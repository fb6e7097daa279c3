// The local Redis endpoint speaks the Upstash REST protocol over a real redis-server, and its fault proxy fails as told.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { after, before, beforeEach, describe, test } from "node:test";
import Redis from "ioredis";
import { startEndpoint, UNAUTHORIZED } from "../../dev/redis/endpoint.mjs";
import { startRedisServer } from "../../dev/redis/server.mjs";

const TOKEN = "right-token";
const READ_ONLY = "read-only-token";

let redis;
let endpoint;
let direct; // a plain client beside the endpoint, to see what Redis really holds
const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });

before(async () => {
  redis = await startRedisServer();
  endpoint = await startEndpoint({ redisPort: redis.port, token: TOKEN, readOnlyToken: READ_ONLY });
  direct = new Redis({ port: redis.port, host: "127.0.0.1" });
});

beforeEach(() => direct.flushall());

after(async () => {
  direct.disconnect();
  agent.destroy();
  await endpoint.close();
  await redis.stop();
});

/** One HTTP request as it is, without a client's own ideas about paths and bodies. */
function ask(path, { method = "POST", body, headers = {}, token = TOKEN, url = endpoint.url } = {}) {
  const { hostname, port } = new URL(url);
  const authorization = token === null ? {} : { authorization: `Bearer ${token}` };
  return new Promise((resolve, reject) => {
    const request = http.request({ hostname, port, path, method, agent, headers: { ...authorization, ...headers } }, async (response) => {
      try {
        const chunks = [];
        for await (const chunk of response) chunks.push(chunk);
        const text = Buffer.concat(chunks).toString();
        resolve({ status: response.statusCode, headers: response.headers, text });
      } catch (error) {
        reject(error);
      }
    });
    request.on("error", reject);
    request.end(body);
  });
}

async function post(path, value, options = {}) {
  const { status, text } = await ask(path, { ...options, body: typeof value === "string" ? value : JSON.stringify(value) });
  return [status, JSON.parse(text)];
}

const command = (...args) => post("/", args);
const BASE64 = { headers: { "upstash-encoding": "base64" } };
const base64 = (text) => Buffer.from(text).toString("base64");

describe("reply shapes", () => {
  test("status, string, integer, null, array and nested array keep their JSON type", async () => {
    assert.deepEqual(await command("SET", "s", "välue"), [200, { result: "OK" }]);
    assert.deepEqual(await command("PING"), [200, { result: "PONG" }]);
    assert.deepEqual(await command("GET", "s"), [200, { result: "välue" }]);
    assert.deepEqual(await command("GET", "none"), [200, { result: null }]);
    assert.deepEqual(await command("INCRBY", "n", -7), [200, { result: -7 }]);
    assert.deepEqual(await command("RPUSH", "l", "a", "b"), [200, { result: 2 }]);
    assert.deepEqual(await command("LRANGE", "l", 0, -1), [200, { result: ["a", "b"] }]);
    assert.deepEqual(await command("LRANGE", "none", 0, -1), [200, { result: [] }]);
    assert.deepEqual(await command("MGET", "s", "none"), [200, { result: ["välue", null] }]);
    await command("XADD", "x", "1-1", "field", "v");
    assert.deepEqual(await command("XRANGE", "x", "-", "+"), [200, { result: [["1-1", ["field", "v"]]] }]);
    assert.deepEqual(await command("XREAD", "STREAMS", "none", "0"), [200, { result: null }]);
  });

  test("base64 encodes every string, nested ones too, but not OK, numbers, null or errors", async () => {
    const batch = [["SET", "k", "v"], ["GET", "k"], ["PING"], ["STRLEN", "k"], ["GET", "none"], ["INCR", "k"], ["XADD", "x", "1-1", "f", "é"],
      ["XRANGE", "x", "-", "+"], ["GET", "empty"]];
    await command("SET", "empty", "");
    assert.deepEqual(await post("/pipeline", batch, BASE64), [200, [
      { result: "OK" }, { result: base64("v") }, { result: base64("PONG") }, { result: 1 }, { result: null },
      { error: "ERR value is not an integer or out of range" }, { result: base64("1-1") },
      { result: [[base64("1-1"), [base64("f"), base64("é")]]] }, { result: "" },
    ]]);
    assert.deepEqual(await post("/multi-exec", [["SET", "k", "v"], ["GET", "k"]], BASE64), [200, [{ result: "OK" }, { result: base64("v") }]]);
    assert.deepEqual(await post("/", ["LPUSH", "k", "v"], BASE64), [400, { error: "WRONGTYPE Operation against a key holding the wrong kind of value" }]);
    assert.equal((await post("/", ["PING"], { headers: { "upstash-encoding": "gzip" } }))[0], 400);
  });

  test("all 256 byte values survive: in by BITFIELD and by body, out by GETRANGE with base64", async () => {
    const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    const fields = [...all].flatMap((byte, i) => ["SET", "u8", `#${i}`, byte]);
    await command("BITFIELD", "bin", ...fields);
    assert.deepEqual(await direct.getBuffer("bin"), all);
    const [, { result }] = await post("/", ["GETRANGE", "bin", 0, -1], BASE64);
    assert.deepEqual(Buffer.from(result, "base64"), all);

    assert.equal((await ask("/set/body", { body: all })).text, '{"result":"OK"}');
    assert.deepEqual(await direct.getBuffer("body"), all);
    const percent = [...all].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
    assert.equal((await ask(`/set/path/${percent}`, { method: "GET" })).text, '{"result":"OK"}');
    assert.deepEqual(await direct.getBuffer("path"), all);
  });

  test("without base64 bytes that are no UTF-8 become U+FFFD and the JSON stays valid", async () => {
    await direct.set("bin", Buffer.from([0x61, 0xff, 0x62, 0x00, 0x22]));
    assert.deepEqual(await command("GET", "bin"), [200, { result: 'a\ufffdb\u0000"' }]);
  });

  test("64-bit integers keep every digit both ways, and numbers inside strings are left alone", async () => {
    const big = "9223372036854775807";
    assert.equal((await ask("/", { body: `["SET","9007199254740993 \\" 9007199254740993",${big}]` })).text, '{"result":"OK"}');
    assert.equal(await direct.get('9007199254740993 " 9007199254740993'), big);
    assert.equal((await ask("/", { body: '["DECRBY","d",9007199254740993]' })).text, '{"result":-9007199254740993}');
    await command("SET", "float", 1.5);
    assert.equal(await direct.get("float"), "1.5");
  });

  test("a value of 9 MB and an array of 50 000 come back whole", async () => {
    const value = "é".repeat(4.5 * 1024 * 1024);
    assert.deepEqual(await command("SET", "big", value), [200, { result: "OK" }]);
    assert.equal((await command("GET", "big"))[1].result, value);
    const items = Array.from({ length: 50_000 }, (_, i) => `item-${i}`);
    await command("RPUSH", "many", ...items);
    assert.deepEqual((await command("LRANGE", "many", 0, -1))[1].result, items);
  });
});

describe("errors told apart", () => {
  test("one failing command is 400 with Redis' own words, and in a pipeline 200 with an error in its place", async () => {
    const [status, { error }] = await command("NOSUCH", "x");
    assert.equal(status, 400);
    assert.match(error, /^ERR unknown command 'NOSUCH'/);
    assert.deepEqual(await command("GET"), [400, { error: "ERR wrong number of arguments for 'get' command" }]);
    assert.deepEqual(await post("/pipeline", [["SET", "k", "v"], ["INCR", "k"], ["GET"], ["GET", "k"]]), [200, [
      { result: "OK" }, { error: "ERR value is not an integer or out of range" },
      { error: "ERR wrong number of arguments for 'get' command" }, { result: "v" },
    ]]);
  });

  test("OOM of the real server reaches the client by its code", async () => {
    await direct.config("SET", "maxmemory", "1mb");
    try {
      const [status, [item]] = await post("/pipeline", [["SET", "k", "v".repeat(1000)]]);
      assert.equal(status, 200);
      assert.match(item.error, /^OOM command not allowed/);
    } finally {
      await direct.config("SET", "maxmemory", "0");
    }
  });

  for (const [body, error] of [
    ["", "EOF"],
    ["{", "ERR failed to parse command"],
    ['["GET","a"', "ERR failed to parse command"],
    ['{"a":1}', "expected JSON array"],
    ['"GET"', "expected JSON array"],
    ["[]", "ERR empty command"],
    ['["GET",null]', "ERR null args are not supported"],
    ['["GET",["a"]]', 'ERR unsupported arg type: "[": json.Delim'],
    ['["SET","a",{}]', 'ERR unsupported arg type: "{": json.Delim'],
    ['[["GET","a"]]', 'ERR unsupported arg type: "[": json.Delim'],
  ]) {
    test(`body ${body || "(none)"} at / is 400 ${error}`, async () => {
      assert.deepEqual(await post("/", body), [400, { error }]);
    });
  }

  for (const path of ["/pipeline", "/multi-exec"]) {
    for (const [body, error] of [
      ["[[", "ERR failed to parse pipeline request"],
      ["{}", "expected JSON array"],
      ["[]", "ERR empty pipeline request"],
      ['["GET","a"]', "ERR failed to parse pipeline request"],
      ["[[]]", "ERR empty command"],
      ['[["SET","a","b"],["GET",null]]', "ERR null args are not supported"],
    ]) {
      test(`body ${body} at ${path} is 400 ${error}, and nothing of it runs`, async () => {
        assert.deepEqual(await post(path, body), [400, { error }]);
        assert.equal(await direct.dbsize(), 0);
      });
    }
  }

  test("commands that change or hold the shared connection are refused, alone, in a pipeline and in a transaction", async () => {
    const refused = ["SELECT 1", "MULTI", "EXEC", "SUBSCRIBE c", "CLIENT REPLY OFF", "QUIT", "BLPOP l 0", "XREAD BLOCK 0 STREAMS s $",
      "XREADGROUP GROUP g c COUNT 1 block 0 STREAMS s >", "hello 3", "Monitor", "WAIT 1 0", "RESET", "AUTH x"].map((line) => line.split(" "));
    for (const args of refused) {
      const error = `ERR Command "${args[0].toUpperCase()}" is not allowed in REST or it has a special context path`;
      assert.deepEqual(await command(...args), [400, { error }]);
      assert.deepEqual(await post("/pipeline", [["SET", "k", "1"], args, ["INCR", "k"]]), [200, [{ result: "OK" }, { error }, { result: 2 }]]);
      assert.deepEqual(await post("/multi-exec", [["SET", "k", "9"], args]), [400, { error }]);
      assert.equal(await direct.get("k"), "2");
    }
    assert.match((await command("CONFIG", "GET", "*"))[1].error, /^ERR Command is not available: 'CONFIG'\./);
    await direct.xadd("block", "1-1", "f", "v");
    assert.deepEqual(await command("XREAD", "STREAMS", "block", "0"), [200, { result: [["block", [["1-1", ["f", "v"]]]]] }]);
  });
});

describe("multi-exec", () => {
  test("gives each command's result, a run-time error in its place, and the rest still counts", async () => {
    assert.deepEqual(await post("/multi-exec", [["SET", "k", "v"], ["INCR", "k"], ["GET", "k"]]), [200, [
      { result: "OK" }, { error: "ERR value is not an integer or out of range" }, { result: "v" },
    ]]);
  });

  test("one invalid command discards the whole batch with 400 EXECABORT", async () => {
    for (const invalid of [["GET"], ["NOSUCH"]]) {
      assert.deepEqual(await post("/multi-exec", [["SET", "k", "v"], invalid]), [
        400, { error: "EXECABORT Transaction discarded because of previous errors." },
      ]);
      assert.equal(await direct.exists("k"), 0);
    }
    assert.deepEqual(await command("SET", "k", "v"), [200, { result: "OK" }]);
  });

  test("is atomic: nobody's write falls between two of its reads, whether it comes by another connection or another request", async () => {
    // Longer than one read of Redis' socket, so that without MULTI other clients do get in between.
    const padding = ["SET", "padding", "v".repeat(300_000)];
    const transaction = [["INCR", "a"], padding, padding, ["GET", "a"], ["INCR", "a"]];
    let done = false;
    const others = [direct, direct.duplicate(), direct.duplicate()];
    const writers = others.map(async (client) => {
      while (!done) await client.incr("a");
    });
    const requests = Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? post("/multi-exec", transaction) : post("/pipeline", [["INCR", "a"], ["INCR", "noise"]])));
    const answers = await Promise.all(requests);
    done = true;
    await Promise.all(writers);
    for (const client of others.slice(1)) client.disconnect();
    for (const [status, items] of answers.filter((_, i) => i % 2 === 0)) {
      assert.equal(status, 200);
      assert.equal(Number(items[3].result), items[0].result);
      assert.equal(items[4].result, items[0].result + 1);
    }
    assert.equal(await direct.get("noise"), "20");
  });
});

describe("path style", () => {
  test("path, body and query make one command in that order", async () => {
    assert.equal((await ask("/SET/key/value?EX=10000", { method: "GET" })).text, '{"result":"OK"}');
    assert.ok((await direct.ttl("key")) > 9000);
    assert.equal((await ask("/set/k2?EX=10000&NX", { body: '["not", "a command"]' })).text, '{"result":"OK"}');
    assert.equal(await direct.get("k2"), '["not", "a command"]');
    assert.ok((await direct.ttl("k2")) > 9000);
    assert.equal((await ask("/set/k2?NX=", { body: "other" })).text, '{"result":null}');
    assert.equal((await ask("/get/k2", { method: "GET", body: "ignored", headers: { "content-length": 7 } })).text, JSON.stringify({ result: '["not", "a command"]' }));
    assert.equal((await ask("/set/a%2Fb%20%C3%A9/x+y", { method: "PUT" })).text, '{"result":"OK"}');
    assert.equal(await direct.get("a/b é"), "x+y");
  });

  test("a bad escape, an empty command and a refused one are 400; another method is 405", async () => {
    assert.deepEqual(JSON.parse((await ask("/get/%zz")).text), { error: "ERR invalid URL escape" });
    assert.deepEqual(JSON.parse((await ask("//x")).text), { error: "ERR empty command" });
    assert.equal((await ask("/select/1", { method: "GET" })).status, 400);
    const { status, text } = await ask("/get/k", { method: "DELETE" });
    assert.deepEqual([status, text], [405, ""]);
  });
});

describe("token", () => {
  test("missing or wrong is 401 in Upstash's words and reaches nothing; the query's and a bare one are taken", async () => {
    for (const token of [null, "wrong", `${TOKEN}x`, ""]) {
      assert.deepEqual(await post("/", ["SET", "k", "v"], { token }), [401, { error: UNAUTHORIZED }]);
      assert.equal((await ask("/subscribe/c", { token })).status, 401);
    }
    assert.equal(await direct.dbsize(), 0);
    assert.deepEqual(await post(`/?_token=${TOKEN}`, ["PING"], { token: null }), [200, { result: "PONG" }]);
    assert.equal((await ask(`/set/k/v?_token=${TOKEN}&EX=9000`, { method: "GET", token: null })).text, '{"result":"OK"}');
    assert.deepEqual(await post("/", ["GET", "k"], { token: null, headers: { authorization: TOKEN } }), [200, { result: "v" }]);
  });

  test("a read-only token reads and writes nothing", async () => {
    await direct.set("k", "v");
    const options = { token: READ_ONLY };
    assert.deepEqual(await post("/", ["get", "k"], options), [200, { result: "v" }]);
    const error = "NOPERM this user has no permissions to run the 'set' command";
    assert.deepEqual(await post("/", ["SET", "k", "w"], options), [400, { error }]);
    assert.deepEqual(await post("/pipeline", [["GET", "k"], ["SET", "k", "w"]], options), [200, [{ result: "v" }, { error }]]);
    assert.deepEqual(await post("/multi-exec", [["GET", "k"], ["SET", "k", "w"]], options), [400, { error }]);
    for (const args of [["KEYS", "*"], ["SCAN", 0], ["EVAL", "return 1", 0], ["FLUSHALL"]]) {
      assert.match((await post("/", args, options))[1].error, /^NOPERM/);
    }
    assert.equal(await direct.get("k"), "v");
  });
});

describe("limits and bookkeeping", () => {
  test("a request over 10 MB is 400 with Upstash's text, and the connection lives on", async () => {
    const body = JSON.stringify(["SET", "k", "v".repeat(10 * 1024 * 1024)]);
    const error = `ERR max request size exceeded. Limit: 10485760 bytes, Actual: ${body.length} bytes`;
    assert.deepEqual(await post("/", body), [400, { error }]);
    assert.deepEqual(await post("/", body, { headers: { "transfer-encoding": "chunked" } }), [400, { error }]);
    assert.equal(await direct.exists("k"), 0);
    assert.deepEqual(await command("PING"), [200, { result: "PONG" }]);
  });

  test("counts HTTP requests and commands, and gives a new sync token with every answer", async () => {
    const start = { ...endpoint.counters };
    const first = await ask("/pipeline", { body: '[["PING"],["SELECT",1],["GET","k"]]' });
    const second = await ask("/get/k", { method: "GET" });
    await ask("/", { token: "wrong", body: '["PING"]' });
    assert.deepEqual(endpoint.counters, { http: start.http + 3, commands: start.commands + 4 });
    assert.match(first.headers["upstash-sync-token"], /^[0-9a-v]+$/);
    assert.notEqual(first.headers["upstash-sync-token"], second.headers["upstash-sync-token"]);
    assert.equal(first.headers["content-type"], "application/json; charset=utf-8");
    assert.match(first.headers["keep-alive"], /timeout=65/);
  });

  test("one HTTP request is one command of Redis for each it carries", async () => {
    await direct.config("RESETSTAT");
    await post("/pipeline", [["GET", "a"], ["MGET", "a", "b"], ["GET", "b"]]);
    const stats = await direct.info("commandstats");
    assert.match(stats, /cmdstat_get:calls=2,/);
    assert.match(stats, /cmdstat_mget:calls=1,/);
  });
});

describe("subscriptions", () => {
  /** Opens a stream; `next()` resolves to the next whole event. */
  async function listen(path, method = "GET", url = endpoint.url) {
    const request = http.request(`${url}${path}`, { method, headers: { authorization: `Bearer ${TOKEN}` } });
    request.end();
    const [response] = await once(request, "response");
    response.on("error", () => {});
    // An iterator keeps what comes while nobody waits for it.
    const chunks = response.setEncoding("utf8")[Symbol.asyncIterator]();
    let text = "";
    const next = async () => {
      while (!text.includes("\n\n")) {
        const { value, done } = await chunks.next();
        assert.equal(done, false, "the stream has ended");
        text += value;
      }
      const end = text.indexOf("\n\n");
      const event = text.slice(0, end);
      text = text.slice(end + 2);
      return event;
    };
    return { response, next, close: () => request.destroy() };
  }

  test("are server-sent events: the confirmation, then each message", async () => {
    for (const method of ["GET", "POST"]) {
      const stream = await listen("/subscribe/news%2Fde", method);
      assert.equal(stream.response.statusCode, 200);
      assert.match(stream.response.headers["content-type"], /^text\/event-stream/);
      assert.equal(await stream.next(), "data: subscribe,news/de,1");
      assert.deepEqual(await command("PUBLISH", "news/de", "hällo, welt"), [200, { result: 1 }]);
      assert.equal(await stream.next(), "data: message,news/de,hällo, welt");
      await direct.publish("news/de", "two\nlines");
      assert.equal(await stream.next(), "data: message,news/de,two\ndata: lines");
      stream.close();
    }
  });

  test("take several channels and patterns", async () => {
    const both = await listen("/subscribe/a/b");
    assert.equal(await both.next(), "data: subscribe,a,1");
    assert.equal(await both.next(), "data: subscribe,b,2");
    const pattern = await listen("/psubscribe/news.*");
    assert.equal(await pattern.next(), "data: psubscribe,news.*,1");
    await direct.publish("news.x", "m");
    assert.equal(await pattern.next(), "data: pmessage,news.*,news.x,m");
    both.close();
    pattern.close();
  });

  test("end in Redis when the client goes", async () => {
    const stream = await listen("/subscribe/gone");
    await stream.next();
    assert.equal(await direct.publish("gone", "m"), 1);
    stream.close();
    await until(async () => (await direct.publish("gone", "m")) === 0);
  });
});

/** Waits for another process to act; the test runner's own limit ends it when that never happens. */
async function until(holds) {
  const deadline = Date.now() + 120_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, "it never happened");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
