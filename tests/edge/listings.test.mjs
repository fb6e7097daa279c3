// The built-in policy in front of the sample origin: plan 2's ten listings, its writes, and the home page.

import test from "node:test";
import assert from "node:assert/strict";
import { startOrigin } from "../../dev/origin/server.mjs";
import { LISTINGS } from "../../bench/listings.mjs";
import { builtInPolicy, JWT_SECRET, list, patiently, startBed, token, until, WINDOW } from "./bed.mjs";

// Midday, so that "today" is the same day for the whole run.
const NOON = Date.UTC(2026, 1, 9, 12);
const API = "/api/v1/community";
const KEYS = [
  "categories:tree:all", "books:top:category:business", "books:child:kinh-te-quan-ly:views:1", undefined, "authors:featured",
  "books:newest:all", "books:top:all", "books:trending:week", "books:trending:today", "tags:popular",
];

let bed;
let origin;
let ip = 0;
test.before(async () => {
  origin = await startOrigin({ now: () => NOON, jwtSecret: JWT_SECRET });
  bed = await startBed({ policy: patiently(builtInPolicy()), originUrl: origin.url, faults: true });
});
test.after(async () => {
  await bed?.close();
  await origin?.close();
});

const ask = (path, options = {}) => bed.get(path, { ip: `198.51.100.${ip++ % 200}`, ...options });
const isHit = (answer) => list(answer.headers["cache-status"])[0]?.params.hit === true;
const hit = (path, options) => until(`${path} is a hit`, async () => {
  const answer = await ask(path, options);
  return isHit(answer) ? answer : undefined;
});
const write = (method, path, body) =>
  ask(path, { method, body: JSON.stringify(body), headers: { "content-type": "application/json" } });

test("each of the ten listings is the origin's own answer under plan 2's key, then a hit for everybody", async () => {
  assert.equal(LISTINGS.length, 10);
  for (const [index, [name, path]] of LISTINGS.entries()) {
    const direct = await (await fetch(origin.url + path)).text();
    const miss = await ask(path);
    assert.equal(miss.status, 200, name);
    assert.equal(miss.text, direct, name);
    const visitor = { cookie: "session=abc", authorization: "Bearer something" };
    const again = await hit(path, { headers: visitor });
    assert.equal(again.text, direct, name);
    if (KEYS[index]) assert.equal(await bed.redis.get(KEYS[index]), direct, KEYS[index]);
  }
});

test("the home page is fifteen listings in one answer, read in one trip", async () => {
  await hit(`${API}/home`);
  const before = new Set(bed.proxy.requests);
  const home = await ask(`${API}/home`, { ip: "203.0.113.1" });
  // What was left to be done after other answers may come in between.
  const trips = bed.proxy.requests.filter((request) => !before.has(request) && /"MGET"|:203\.0\.113\.1:/.test(request.body));
  assert.equal(trips.length, 1);
  assert.match(trips[0].body, /"ratelimit:203\.0\.113\.1:.*"MGET","categories:tree:all",/);
  assert.equal(isHit(home), true);
  const parts = home.json();
  assert.equal(Object.keys(parts.sliders).length, 11);
  assert.equal(Object.keys(parts.sliders).length + Object.keys(parts).length - 1, 15);
  for (const [parent, slider] of Object.entries(parts.sliders)) {
    const direct = await (await fetch(`${origin.url}/api/v1/book-categories/parent/${parent}`)).json();
    assert.deepEqual(slider, direct, parent);
  }
});

test("a new book, an update, a chapter and a view purge what plan 2 says, before the writer is answered", async () => {
  const latest = `${API}/books/latest`;
  const [author] = await origin.query("SELECT author_id FROM book_authors LIMIT 1");
  await hit(latest);
  const created = await write("POST", `${API}/books`, { title: "Sách mới", category: "kinh-te-quan-ly", authors: [author.author_id] });
  assert.equal(created.status, 201, created.text);
  const id = created.json().book_id;
  const after = await ask(latest);
  assert.equal(isHit(after), false, "the writer's next read is fresh");
  await hit(latest);
  const search = `${API}/books/search?category=business&limit=5`;
  await hit(search);
  const updated = await write("PATCH", `${API}/books/${id}`, { title: "Sách mới hơn" });
  assert.equal(updated.status, 200, updated.text);
  assert.equal(isHit(await ask(latest)), false);
  assert.equal(isHit(await ask(search)), false);
  await hit(latest);
  const chapter = await write("POST", `${API}/books/${id}/chapters`, { title: "Chương 1" });
  assert.equal(chapter.status, 201, chapter.text);
  const fresh = await ask(latest);
  assert.equal(isHit(fresh), false);
  assert.equal(fresh.json().books[0].book_id, id);
  await hit(latest);
  const view = await write("POST", `${API}/books/${id}/view`, {});
  assert.equal(view.status, 201, view.text);
  assert.equal(isHit(await ask(latest)), true, "a view does not empty the listings");
  const failed = await write("PATCH", `${API}/books/none-such`, { title: "x" });
  assert.equal(failed.status, 404);
  assert.equal(isHit(await ask(latest)), true, "a write that failed purges nothing");
});

test("each reader has his own saved books, history and purchases, and his writes are in his next read", async () => {
  const as = (user, more = {}) => ({ ...more, headers: { authorization: `Bearer ${token({ sub: user })}` } });
  const books = async (list, user) => (await ask(`${API}/me/${list}`, as(user))).json().books.map((book) => book.book_id);
  const cached = (list, user) => hit(`${API}/me/${list}`, as(user));
  const [, , third] = (await ask(`${API}/books/top`)).json().books;
  const id = third.book_id;
  for (const [list, action, undo] of [["saved", "save", true], ["history", "view", false], ["purchases", "purchase", false]]) {
    const [ann, bob] = [`ann-${list}`, `bob-${list}`];
    for (const user of [ann, bob]) {
      assert.deepEqual(await books(list, user), []);
      await cached(list, user);
    }
    const done = await ask(`${API}/books/${id}/${action}`, as(ann, { method: "POST" }));
    assert.equal(done.status, 201, done.text);
    assert.equal(isHit(await ask(`${API}/me/${list}`, as(bob))), true, "nobody else's is purged");
    assert.deepEqual(await books(list, ann), [id]);
    const again = await cached(list, ann);
    assert.deepEqual([again.json().total, again.headers["cache-control"]], [1, "private"]);
    assert.deepEqual(await books(list, bob), []);
    if (undo) {
      assert.equal((await ask(`${API}/books/${id}/${action}`, as(ann, { method: "DELETE" }))).status, 200);
      assert.deepEqual(await books(list, ann), []);
    }
    const key = `user:${ann}:${list === "saved" ? "saved_books" : list}`;
    await cached(list, ann);
    assert.match(await bed.redis.get(key), /^s1,/, "no backend can read it");
  }
  const nobody = await ask(`${API}/me/saved`);
  assert.deepEqual([list(nobody.headers["cache-status"])[0].params.detail, nobody.json().total], ["user", 0]);
  assert.equal((await ask(`${API}/books/${id}/save`, { method: "POST" })).status, 401);
});
