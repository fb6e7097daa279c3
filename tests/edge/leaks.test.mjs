// Each way in which one visitor's answer could reach another, tried on the built Worker in two processes: 0 leaks.
//
// The origin is the worst one: it puts all that it is told of a visitor into its answers, and says nothing of caching unless
// the test does. Ann goes first and has a secret; whoever comes after her must never see it.

import test from "node:test";
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { gunzipSync } from "node:zlib";
import { CACHE_KEY, json, list, startBed, token, until, WINDOW } from "./bed.mjs";

const SECRET = "secret-of-ann";
const POLICY = {
  defaults: { limit: [] },
  route: [
    { name: "shared", match: "GET /shared/{id}", cache: { key: "shared:{id}", ttl: "1h", stale: "1h" } },
    { name: "listed", match: "GET /listed/{a}/{b}", cache: { key: "listed:{a}:{b}:{x}", query: ["x"], ttl: "1h" } },
    { name: "hashed", match: "GET /hashed/{a}", cache: { key: "hashed:{a}:{hash}", query: ["x", "y"], ttl: "1h" } },
    { name: "packed", match: "GET /packed/{id}", cache: { format: "packed", key: "packed:{id}", ttl: "1h" } },
    { name: "own", match: "GET /own/{id}", cache: { credentials: "forward", key: "own:{id}", ttl: "1h" } },
    { name: "me", match: "GET /me", cache: { scope: "user", key: "user:{user}:me", ttl: "1h" },
      limit: [{ name: "leased", requests: 1_000_000, window: WINDOW.text, by: "global", lease: true }] },
    { name: "mine", match: "GET /mine/{id}", cache: { scope: "user", key: "user:{user}:mine:{id}", ttl: "1h" } },
    { name: "http", match: "GET /http/{rest...}", cache: { mode: "http" } },
    { name: "page", match: "GET /page", compose: { one: { route: "shared", each: { id: ["page"] } } } },
  ],
};
/** A path of each kind that all share, and of all kinds. */
const SHARED = ["/shared/", "/packed/", "/http/"];
const ALL = [...SHARED, "/mine/"];

let bed;
test.before(async () => {
  bed = await startBed({ policy: POLICY, workers: 2 });
  bed.origin.on("/", echo());
});
test.after(() => bed?.close());

/** All that a request says, as an answer. */
const said = ({ method, url, headers }) => ({ method, url, headers: { ...headers, "cf-connecting-ip": undefined, "x-forwarded-for": undefined } });
function echo(headers = {}) {
  return (request, response) => json(response, 200, said(request), typeof headers === "function" ? headers(request) : headers);
}
const bearer = (claims, options) => `Bearer ${token(claims, options)}`;
const ANN = { authorization: bearer({ sub: "ann" }), cookie: `session=${SECRET}` };
const BOB = { authorization: bearer({ sub: "bob" }), cookie: "session=of-bob" };

const on = (worker, headers = {}, more = {}) => ({ url: bed.urls[worker], ip: `198.51.100.${worker + 1}`, headers: { host: "shop.example", ...headers }, ...more });
const params = (answer) => list(answer.headers["cache-status"]).at(-1)?.params ?? {};
const textOf = (answer) => (answer.headers["content-encoding"] === "gzip" ? gunzipSync(answer.bytes).toString() : answer.text);
const whole = (answer) => `${answer.raw.join("\n")}\n${textOf(answer)}`;
const hasSecret = (answer) => whole(answer).includes(SECRET) || whole(answer).includes(ANN.authorization);
let paths = 0;
const fresh = (prefix) => `${prefix}p${(paths += 1)}`;

/** Whatever is stored of an answer is so once nothing is under way any more. */
const settled = () => until("no fill is under way", async () => (await bed.redis.keys("fill:*")).length === 0);

/** Ann asks with what is hers, then others do, in both processes. */
async function after(path, ann, others = {}, more = {}) {
  const first = await bed.get(path, on(0, ann, more));
  const answers = [];
  for (const worker of [0, 1, 0, 1]) answers.push(await bed.get(path, on(worker, others)));
  for (const answer of answers) assert.equal(hasSecret(answer), false, `${path}: ${whole(answer)}`);
  return { first, answers };
}

test("Set-Cookie", async () => {
  const cookies = (request) => ({ "set-cookie": `id=${request.headers["x-me"] ?? request.headers.cookie ?? "new"}`, "cache-control": "public, max-age=600" });
  for (const prefix of ALL) {
    const path = fresh(prefix);
    bed.origin.on(path, echo(cookies));
    const { first } = await after(path, { ...ANN, "x-me": SECRET }, BOB);
    assert.match(first.headers["set-cookie"].join(), /^id=/, "the visitor himself gets it");
    assert.equal(params(first).stored, undefined, path);
    const again = await bed.get(path, on(1, { ...ANN, cookie: "session=another-device" }));
    assert.equal(whole(again).includes(SECRET), false, "not even himself, elsewhere");
  }
});

test("Authorization", async () => {
  for (const prefix of ALL) await after(fresh(prefix), { authorization: ANN.authorization }, BOB);
  for (const prefix of SHARED) await after(fresh(prefix), { authorization: ANN.authorization });
  const path = fresh("/own/");
  const { first } = await after(path, { authorization: ANN.authorization });
  assert.equal(params(first).detail, "credentials");
  for (const scheme of ["Basic c2VjcmV0", "Digest secret-of-ann", "bearer x", "Negotiate secret-of-ann"]) {
    for (const prefix of ALL) await after(fresh(prefix), { authorization: scheme });
  }
});

test("cookies", async () => {
  for (const prefix of [...ALL, "/own/"]) {
    await after(fresh(prefix), { cookie: ANN.cookie });
    await after(fresh(prefix), { cookie: ANN.cookie }, { cookie: "session=of-bob" });
  }
});

test("Vary: what an answer was chosen by chooses it again", async () => {
  for (const vary of ["Cookie", "X-Me", "accept-language, X-ME", "*"]) {
    for (const prefix of ALL) {
      const path = fresh(prefix);
      bed.origin.on(path, echo({ vary, "cache-control": "max-age=600" }));
      await after(path, { ...ANN, "x-me": SECRET, "accept-language": SECRET }, { ...BOB, "accept-language": "vi" });
    }
  }
});

test("headers that are in no key", async () => {
  const names = ["x-forwarded-host", "x-host", "x-forwarded-server", "forwarded", "x-original-url", "x-rewrite-url", "x-original-host", "x-forwarded-scheme", "x-forwarded-proto",
    "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-path", "true-client-ip", "x-real-ip", "x-wap-profile", "accept", "referer", "origin", "user-agent", "accept-language", "x-me"];
  for (const prefix of ["/shared/", "/packed/", "/mine/"]) {
    for (const name of names) {
      const path = fresh(prefix);
      const { first } = await after(path, { ...BOB, [name]: SECRET }, BOB);
      assert.equal(hasSecret(first), false, `${path}: ${name} chooses what all get`);
    }
  }
  // There the origin gets the visitor's request, but for what says that it went elsewhere.
  for (const name of ["x-forwarded-host", "x-host", "x-forwarded-server", "forwarded", "x-original-url", "x-rewrite-url", "x-forwarded-scheme"]) {
    const path = fresh("/http/");
    bed.origin.on(path, echo({ "cache-control": "max-age=600" }));
    await after(path, { [name]: SECRET });
  }
});

test("method override", async () => {
  for (const prefix of ALL) {
    for (const name of ["x-http-method-override", "x-http-method", "x-method-override"]) {
      const path = fresh(prefix);
      bed.origin.on(path, (request, response) => json(response, 200, { method: request.headers[name] ?? "none" }, { "cache-control": "max-age=600" }));
      const { first, answers } = await after(path, { ...BOB, [name]: `DELETE-${SECRET}` }, BOB);
      for (const answer of [first, ...answers]) assert.equal(JSON.parse(textOf(answer)).method, "none", `${path} ${name}`);
    }
    const path = fresh(prefix);
    await after(`${path}`, BOB, BOB, { method: "POST", body: SECRET });
  }
});

test("X-Forwarded-Host, and a host of one's own", async () => {
  for (const prefix of ALL) {
    const path = fresh(prefix);
    bed.origin.on(path, echo({ "cache-control": "max-age=600" }));
    await after(path, { ...BOB, "x-forwarded-host": `${SECRET}.example` }, BOB);
    const other = fresh(prefix);
    bed.origin.on(other, echo({ "cache-control": "max-age=600" }));
    await after(other, { ...BOB, host: `${SECRET}.example` }, BOB);
  }
});

test("keys that are crafted to be another's", async () => {
  const target = (path, query = "") => path + query;
  const asked = [
    ...["/listed/a/b", "/listed/a%3Ab/c", "/listed/a/b%3Ac", "/listed/a%3Ab%3Ac/d", "/listed/a%25/b", "/listed/a%2525/b", "/listed/a/b%25", "/listed/%7Ba%7D/b", "/listed/a%0A/b"].map((path) => target(path)),
    ...["?x=", "?x=%25", "?x=1%3A2", "?x=1:2%20", "?x=%3A", "?x=b"].map((query) => target("/listed/a/b", query)),
    ...["?x=1&y=2", "?x=1%26y%3D2", "?y=2&x=", "?x=1%26y=2&y=2", "?y=1&x=2", "?x=1%00"].map((query) => target("/hashed/a", query)),
    ...["/shared/a", "/shared/a%3Ab", "/shared/A", "/shared/a%20", "/shared/meta%3Ashared%3Aa", "/shared/gen%3Akey"].map((path) => target(path)),
    ...["/http/a?x=1", "/http/a?x=1&", "/http/a%3Fx=1", "/http/a?x=2", "/http/A?x=1"].map((path) => target(path)),
  ];
  for (const prefix of ["/listed/", "/hashed/", "/shared/", "/http/a", "/http/A"]) bed.origin.on(prefix, echo({ "cache-control": "max-age=600" }));
  const urls = {};
  for (let round = 0; round < 3; round++) {
    for (const path of asked) {
      const { url } = (await bed.get(path, on(round % 2))).json();
      assert.equal((urls[path] ??= url), url, path);
    }
    await settled();
  }
  assert.equal(new Set(Object.values(urls)).size, asked.length, "each has its own answer");
});

test("HEAD and GET", async () => {
  for (const prefix of ALL) {
    for (const [first, then] of [["HEAD", "GET"], ["GET", "HEAD"]]) {
      const path = fresh(prefix);
      bed.origin.on(path, echo({ "cache-control": "max-age=600" }));
      await bed.get(path, on(0, BOB, { method: first }));
      await settled();
      for (const method of [then, first, then]) {
        const answer = await bed.get(path, on(1, BOB, { method }));
        assert.equal(answer.status, 200);
        assert.equal(answer.bytes.length > 0, method === "GET", `${path}: ${method} after ${first}`);
      }
    }
  }
});

test("206: a part is never the whole", async () => {
  for (const prefix of ALL) {
    const path = fresh(prefix);
    bed.origin.on(path, (request, response) => {
      const body = `"${"x".repeat(100)}"`;
      const isPart = request.headers.range !== undefined;
      const part = isPart ? { "content-range": "bytes 0-4/102" } : {};
      response.writeHead(isPart ? 206 : 200, { "content-type": "application/json", "cache-control": "max-age=600", ...part });
      response.end(isPart ? body.slice(0, 5) : body);
    });
    await bed.get(path, on(0, { ...BOB, range: "bytes=0-4" }));
    await settled();
    for (const worker of [0, 1]) {
      const answer = await bed.get(path, on(worker, BOB));
      assert.deepEqual([answer.status, textOf(answer).length, answer.headers["content-range"]], [200, 102, undefined], path);
    }
    // An origin that answers so without being asked is passed on and not stored.
    const forced = fresh(prefix);
    bed.origin.on(forced, (_, response) => {
      response.writeHead(206, { "content-range": "bytes 0-4/102", "cache-control": "max-age=600" });
      response.end(SECRET);
    });
    assert.equal(params(await bed.get(forced, on(0, BOB))).stored, undefined);
    bed.origin.on(forced, echo());
    await settled();
    await until("the origin is asked again", async () => !hasSecret(await bed.get(forced, on(1, BOB))));
  }
});

test("user scope without a user", async () => {
  const path = fresh("/mine/");
  const mine = await bed.get(path, on(0, ANN));
  assert.equal(mine.headers["cache-control"], "private");
  assert.match(mine.headers.vary, /authorization/i);
  await until("it is hers", async () => params(await bed.get(path, on(1, ANN))).hit);
  const keys = (await bed.redis.keys("*")).sort();
  for (const headers of [{}, { cookie: "a=1" }, { authorization: "Basic YW5uOmFubg==" }, { "x-user": "ann" }, { authorization: "Bearer ann" }]) {
    const { answers } = await after(path, headers, headers);
    for (const answer of answers) {
      assert.deepEqual([params(answer).fwd, params(answer).detail], ["bypass", "user"]);
      assert.equal(answer.headers["cache-control"], "private");
    }
  }
  await settled();
  assert.deepEqual((await bed.redis.keys("*")).sort().filter((key) => !key.startsWith("ratelimit")), keys.filter((key) => !key.startsWith("ratelimit")), "nothing is stored");
});

test("two users at once, over two processes", async () => {
  for (let round = 0; round < 5; round++) {
    const path = fresh("/mine/");
    bed.origin.on(path, (request, response) => setTimeout(() => echo()(request, response), 20));
    const users = Array.from({ length: 60 }, (_, n) => [ANN, BOB, {}][n % 3]);
    const answers = await Promise.all(users.map((headers, n) => bed.get(path, on(n % 2, headers))));
    answers.forEach((answer, n) => {
      const { authorization, cookie } = answer.json().headers;
      assert.deepEqual([authorization, cookie], [users[n].authorization, users[n].cookie], `round ${round}`);
    });
    await settled();
    const asked = bed.origin.requests.filter((request) => request.url === path);
    for (const { authorization } of [ANN, BOB]) assert.equal(asked.filter(({ headers }) => headers.authorization === authorization).length, 1);
    await Promise.all([ANN, BOB].map((headers) => after(path, {}, headers === BOB ? BOB : {})));
  }
  for (let n = 0; n < 10; n++) {
    const answer = await bed.get("/me", on(n % 2, n % 4 < 2 ? ANN : BOB));
    assert.equal(answer.json().headers.authorization, (n % 4 < 2 ? ANN : BOB).authorization);
    assert.notEqual(params(answer).detail, "l1", "no isolate keeps it, whatever its limits");
  }
});

test("users whose names are parts of keys", async () => {
  const names = ["ann", "ann:mine", "ann%3Amine", "ann%253Amine", "%61nn", "Ann", "ann ", "ann\n", "ann/x", "user:ann", "{user}", "*", "änn", "a\u0308nn"];
  for (const id of ["x", "mine:x", "mine%3Ax"]) {
    const path = `/mine/${encodeURIComponent(id)}`;
    for (let round = 0; round < 2; round++) {
      for (const sub of names) {
        const headers = { authorization: bearer({ sub }) };
        const answer = await bed.get(path, on(round, headers));
        assert.equal(answer.json().headers.authorization, headers.authorization, JSON.stringify(sub));
      }
      await settled();
    }
  }
});

test("tokens that are forged, over, or of no algorithm", async () => {
  const path = fresh("/mine/");
  await bed.get(path, on(0, ANN));
  await until("it is hers", async () => params(await bed.get(path, on(1, ANN))).hit);
  const nowS = Math.floor(Date.now() / 1000);
  const [head, claims, signature] = ANN.authorization.slice(7).split(".");
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const forged = [
    token({ sub: "ann" }, { secret: "another secret" }),
    token({ sub: "ann" }, { secret: "" + "x" }),
    token({ sub: "ann", exp: nowS - 3600 }),
    token({ sub: "ann", nbf: nowS + 86_400 }),
    token({ sub: "ann", exp: "never" }),
    token({ sub: ["ann"] }),
    token({ sub: "" }),
    token({}),
    ...["none", "None", "HS512", "RS256", ""].map((alg) => token({ sub: "ann" }, { header: { alg, typ: "JWT" } })),
    token({ sub: "ann" }, { header: { alg: "HS256", crit: ["exp"] } }),
    `${part({ alg: "none" })}.${claims}.`,
    `${head}.${claims}.`,
    `${head}.${claims}`,
    `${head}.${part({ sub: "ann", admin: true })}.${signature}`,
    `${head}.${claims}.${signature.slice(0, -4)}AAAA`,
    `${head}.${claims}.${signature}.${signature}`,
  ];
  for (const text of forged) {
    const answer = await bed.get(path, on(1, { authorization: `Bearer ${text}` }));
    assert.deepEqual([params(answer).fwd, params(answer).detail], ["bypass", "user"], text);
    assert.equal(whole(answer).includes(SECRET), false);
  }
});

test("packed answers: both representations are of the same page, and of nobody", async () => {
  const path = fresh("/packed/");
  bed.origin.on(path, (request, response) => json(response, 200, { ...said(request), padding: "x".repeat(5_000) }));
  const { answers } = await after(path, { ...ANN, "accept-encoding": "gzip" }, { ...BOB, "accept-encoding": "gzip" });
  const plain = await bed.get(path, on(1, { "accept-encoding": "identity" }));
  assert.equal(hasSecret(plain), false);
  assert.deepEqual(JSON.parse(textOf(answers.at(-1))), plain.json());
  assert.notEqual(plain.headers.etag, answers.at(-1).headers.etag);
  // A tag says nothing about another page.
  const other = fresh("/packed/");
  const known = await bed.get(other, on(0, { "if-none-match": plain.headers.etag }));
  assert.equal(known.status, 200);
  assert.equal(known.json().url, other);
});

test("a page of parts is made of what all get", async () => {
  const { answers } = await after("/page", { ...ANN, "x-forwarded-host": SECRET }, BOB);
  assert.deepEqual(Object.keys(answers.at(-1).json().one), ["page"]);
});

test("in Redis a user's entry is AES-256-GCM, bound to its key, and nothing else is one", async () => {
  const path = fresh("/mine/");
  const id = path.slice("/mine/".length);
  const [ann, bob] = [`user:ann:mine:${id}`, `user:bob:mine:${id}`];
  for (const headers of [ANN, BOB]) await bed.get(path, on(0, headers));
  await until("both are stored", async () => (await bed.redis.exists(ann, bob)) === 2);
  const key = await webcrypto.subtle.importKey("raw", Buffer.from(CACHE_KEY, "base64"), "AES-GCM", false, ["decrypt"]);
  const open = async (name) => {
    const value = await bed.redis.get(name);
    assert.match(value, /^s1,[A-Za-z0-9+/]+=*$/);
    const sealed = Buffer.from(value.slice(3), "base64");
    const additionalData = Buffer.from(name);
    return Buffer.from(await webcrypto.subtle.decrypt({ name: "AES-GCM", iv: sealed.subarray(0, 12), additionalData }, key, sealed.subarray(12))).toString();
  };
  const plain = await open(ann);
  assert.ok(plain.startsWith("p1,{") && plain.includes(SECRET) && plain.includes('"etag"'), plain);
  assert.equal(await bed.redis.exists(`meta:${ann}`), 0);
  for (const name of await bed.redis.keys("*")) {
    const value = (await bed.redis.type(name)) === "string" ? await bed.redis.get(name) : "";
    assert.equal(value.includes(SECRET), false, name);
  }
  const own = await bed.redis.get(ann);
  const flipped = own.slice(0, 40) + (own[40] === "A" ? "B" : "A") + own.slice(41);
  for (const value of [await bed.redis.get(bob), own.slice(0, -8), "s1,", flipped, '{"from":"python"}', `p1,${plain}`]) {
    await bed.redis.set(ann, value, "EX", 600);
    const answer = await bed.get(path, on(1, ANN));
    assert.deepEqual([answer.status, params(answer).fwd, params(answer).stored], [200, "miss", true], value);
    assert.equal(answer.json().headers.authorization, ANN.authorization);
    await until("it is hers again", async () => params(await bed.get(path, on(0, ANN))).hit);
  }
});

test("without CACHE_KEY, or with a wrong one, such a policy is a 503 that names it", async () => {
  for (const value of [undefined, "secret", Buffer.alloc(31).toString("base64")]) {
    const other = await startBed({ policy: POLICY, vars: { CACHE_KEY: value } });
    try {
      const answer = await other.get("/shared/1");
      assert.equal(answer.status, 503);
      assert.equal(answer.json().variable, "CACHE_KEY");
      assert.equal(answer.text.includes("secret"), false);
    } finally {
      await other.close();
    }
  }
});
