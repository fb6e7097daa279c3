// What operators change while everything runs, in the built Worker: two processes on one Redis.

import test from "node:test";
import assert from "node:assert/strict";
import { ADMIN_TOKEN, lifetimes, list, startBed, until, WINDOW } from "./bed.mjs";

const limit = (name, requests, more = {}) => ({ name, requests, window: WINDOW.text, by: "ip", ...more });

const POLICY = {
  defaults: { limit: [limit("default", 100_000)] },
  route: [
    { name: "six", match: "GET /six", limit: [limit("burst", 6)] },
    { name: "denied", match: "GET /denied", limit: [limit("burst", 6, { deny: ["203.0.113.0/24", "2001:db8::/32"], allow: ["192.0.2.7"] })] },
    { name: "free", match: "GET /free", limit: [] },
  ],
};

let bed;
test.before(async () => {
  bed = await startBed({ policy: POLICY, workers: 2, faults: true });
});
test.after(() => bed?.close());

function admin(method, path, body, url = bed.urls[0]) {
  const headers = { authorization: `Bearer ${ADMIN_TOKEN}` };
  return bed.get(path, { url, method, headers, body: body === undefined ? undefined : JSON.stringify(body), ip: "198.51.100.200" });
}

async function done(method, path, body, url) {
  const answer = await admin(method, path, body, url);
  assert.equal(answer.status, 200, answer.text);
  return answer.json();
}

/** Reading what has changed follows an answer now and then, whoever was answered. */
const isReading = ({ body }) => /^\[\["HGETALL","ratelimit:controls"\]\]$/.test(body);

/**
 * An isolate that answers reads what has changed every two seconds, and no look is shorter than the pause between two: so
 * many are well within ten seconds, or longer for whoever is held up.
 */
const FEW_LOOKS = 1000;

async function within(what, condition) {
  const begun = Date.now();
  let looks = 0;
  await until(what, () => {
    looks++;
    return condition();
  });
  console.log(`${what} after ${looks} looks, ${Date.now() - begun} ms`);
  assert.ok(looks < FEW_LOOKS, `${what}: ${looks} looks`);
}

const quota = (answer) => list(answer.headers.ratelimit)[0]?.params;

test("whom the policy denies is a 403 without a trip, and whom it allows is not counted", async () => {
  await bed.get("/denied", { ip: "198.51.100.1" });
  for (const ip of ["203.0.113.9", "2001:db8:ffff::1", "::ffff:203.0.113.9"]) {
    // What the request before left to be done may still be on its way.
    await until("no trip is made for it", async () => {
      const before = new Set(bed.proxy.requests);
      const answer = await bed.get("/denied", { ip });
      assert.equal(answer.status, 403);
      assert.equal(answer.headers["content-type"], "application/problem+json");
      assert.equal(answer.headers["cache-control"], "no-store");
      assert.equal(answer.headers.ratelimit, undefined);
      assert.equal(answer.headers["server-timing"], undefined, "nothing was waited for");
      assert.deepEqual(answer.json(), { type: "about:blank", title: "Forbidden", status: 403, detail: "This request is not allowed." });
      return bed.proxy.requests.every((request) => before.has(request) || isReading(request));
    });
  }
  for (let n = 0; n < 8; n++) {
    const answer = await bed.get("/denied", { ip: "192.0.2.7" });
    assert.deepEqual([answer.status, answer.headers.ratelimit], [200, undefined]);
  }
});

test("a deny at run time holds at once where it was made and within seconds elsewhere, on every route", async () => {
  const ip = "198.51.100.20";
  for (const url of bed.urls) assert.equal((await bed.get("/six", { url, ip })).status, 200);
  assert.deepEqual(await done("POST", "/-/lists", { deny: ["198.51.100.20/32"], allow: ["198.51.100.21"] }), { deny: 1, allow: 1, remove: 0 });
  assert.equal((await bed.get("/free", { ip })).status, 403);
  await within("denied elsewhere", async () => {
    await bed.get("/six", { url: bed.urls[1], ip: "198.51.100.22" });
    return (await bed.get("/free", { url: bed.urls[1], ip })).status === 403;
  });
  assert.equal((await bed.get("/six", { url: bed.urls[1], ip: "198.51.100.21" })).headers.ratelimit, undefined, "allowed there too");
  const shown = await done("GET", "/-/limits", undefined, bed.urls[1]);
  assert.deepEqual([shown.deny, shown.allow], [["198.51.100.20"], ["198.51.100.21"]]);
  const ttl = await bed.redis.pttl("ratelimit:controls");
  assert.ok(ttl > 30 * 86_400_000 && ttl <= 31 * 86_400_000, `${ttl}`);
  await done("POST", "/-/lists", { remove: ["198.51.100.20", "198.51.100.21"] });
  assert.equal((await bed.get("/free", { ip })).status, 200);
});

test("another size is seen by a second process within seconds, and no count is lost", async () => {
  const ip = "198.51.100.30";
  for (let n = 0; n < 4; n++) assert.equal((await bed.get("/six", { url: bed.urls[n % 2], ip })).status, 200);
  await done("PUT", "/-/limits/six?limit=burst", { requests: 50 });
  const answer = await bed.get("/six", { ip });
  assert.equal(answer.headers["ratelimit-policy"], `"burst";q=50;w=${WINDOW.seconds}`);
  assert.equal(quota(answer).r, "45", "the four are still counted");
  await within("the new size elsewhere", async () => {
    const answer = await bed.get("/six", { url: bed.urls[1], ip: "198.51.100.31" });
    return answer.headers["ratelimit-policy"] === `"burst";q=50;w=${WINDOW.seconds}`;
  });
  assert.equal(quota(await bed.get("/six", { url: bed.urls[1], ip })).r, "44");
  // One id alone gets less than it has used.
  await done("PUT", `/-/limits/six?limit=burst&id=${ip}`, { requests: 3 }, bed.urls[1]);
  const refused = await bed.get("/six", { url: bed.urls[1], ip });
  assert.deepEqual([refused.status, refused.headers["ratelimit-policy"]], [429, `"burst";q=3;w=${WINDOW.seconds}`]);
  const { limits: [look] } = await done("GET", `/-/limits/six?id=${ip}`);
  assert.deepEqual(look.override, { of: "id", requests: 3 });
  for (const id of ["", `&id=${ip}`]) {
    assert.equal((await done("DELETE", `/-/limits/six?override=true&limit=burst${id}`)).removed, true);
  }
  const back = await bed.get("/six", { ip: "198.51.100.32" });
  assert.equal(back.headers["ratelimit-policy"], `"burst";q=6;w=${WINDOW.seconds}`);
});

test("a look charges nothing, and a reset is of exactly one id", async () => {
  const [ip, neighbour] = ["198.51.100.40", "198.51.100.4"];
  for (const who of [ip, neighbour]) for (let n = 0; n < 5; n++) assert.equal((await bed.get("/six", { ip: who })).status, 200);
  for (let n = 0; n < 3; n++) {
    const { route, limits } = await done("GET", `/-/limits/six?id=${ip}`, undefined, bed.urls[n % 2]);
    const [{ reset, ...burst }] = limits;
    assert.deepEqual({ route, ...burst }, { route: "six", name: "burst", requests: 6, window: WINDOW.seconds, used: 5, remaining: 1 });
    assert.ok(reset >= 1 && reset <= WINDOW.seconds * 1.01, `${reset}`);
  }
  assert.equal((await bed.get("/six", { ip })).status, 200, "the sixth");
  assert.equal((await bed.get("/six", { ip })).status, 429);
  assert.equal((await bed.get("/six", { url: bed.urls[1], ip })).status, 429);
  assert.deepEqual(await done("DELETE", `/-/limits/six?id=${ip}`), { route: "six", reset: ["burst"] });
  assert.equal((await bed.get("/six", { ip })).status, 200);
  await within("admitted elsewhere", async () => {
    await bed.get("/six", { url: bed.urls[1], ip: "198.51.100.41" });
    return (await bed.get("/six", { url: bed.urls[1], ip })).status === 200;
  });
  const { limits: [other] } = await done("GET", `/-/limits/six?id=${neighbour}`);
  assert.equal(other.used, 5);
});

test("what is not understood is a 400 that says what to write, and nothing opens without the token", async () => {
  for (const [method, path, body] of [
    ["GET", "/-/limits/nothing?id=192.0.2.1"],
    ["GET", "/-/limits/six?id=a%20b"],
    ["DELETE", "/-/limits/six"],
    ["PUT", "/-/limits/six?limit=burst", { requests: 0 }],
    ["PUT", "/-/limits/six?limit=burst", { requests: 5, window: "1m" }],
    ["PUT", "/-/limits/six?limit=other", { requests: 5 }],
    ["POST", "/-/lists", { deny: ["192.0.2.0/33"] }],
    ["POST", "/-/lists", { deny: ["192.0.2.1"], allow: ["192.0.2.1"] }],
    ["POST", "/-/lists", { denied: [] }],
    ["POST", "/-/lists", []],
  ]) {
    const answer = await admin(method, path, body);
    assert.equal(answer.status, 400, `${method} ${path}: ${answer.text}`);
    assert.ok(answer.json().detail.length > 10);
  }
  for (const [method, path] of [["GET", "/-/limits"], ["GET", "/-/limits/six?id=192.0.2.1"], ["POST", "/-/lists"]]) {
    const answer = await bed.get(path, { method, headers: { authorization: "Bearer wrong" }, body: method === "POST" ? "{}" : undefined });
    assert.equal(answer.status, 401);
  }
  assert.ok((await lifetimes(bed.redis)).length >= 2);
});

test("an outage lifts no deny; a change in it is a 503 and holds nowhere", async () => {
  const ip = "198.51.100.60";
  await done("POST", "/-/lists", { deny: [ip] });
  bed.proxy.set("refuse");
  try {
    for (let n = 0; n < 10; n++) assert.equal((await bed.get("/free", { ip })).status, 403);
    const answer = await admin("POST", "/-/lists", { remove: [ip] });
    assert.equal(answer.status, 503, answer.text);
    assert.equal((await bed.get("/free", { ip })).status, 403);
  } finally {
    bed.proxy.set("ok");
  }
});
