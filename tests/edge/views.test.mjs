// Views through the built Worker, a real Redis and the sample origin's database.

import test from "node:test";
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { startOrigin } from "../../dev/origin/server.mjs";
import { ADMIN_TOKEN, JWT_SECRET, json, startBed, until } from "./bed.mjs";

const DAY_MS = 86_400_000;
const BATCH = "/internal/views/batch";

const STORIES = {
  route: [
    { name: "story", match: "GET /api/v1/stories/{id}", limit: [], view: { story: "{id}", merge: "total_views" },
      cache: { key: "story:{id}", ttl: "24h", l1: "60s", tags: ["stories"] } },
    { name: "chapter", match: "GET /s/{story}/c/{chapter}", limit: [], view: { story: "{story}", chapter: "{chapter}" } },
  ],
};

const base64 = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
function bearer(sub) {
  const signed = `${base64({ alg: "HS256", typ: "JWT" })}.${base64({ sub })}`;
  return `Bearer ${signed}.${createHmac("sha256", JWT_SECRET).update(signed).digest("base64url")}`;
}

/** Numbers below 1 that follow from a seed. */
function random(seed) {
  let word = seed >>> 0;
  return () => {
    word = (word + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(word ^ (word >>> 15), 1 | word);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A day's end far enough away that none of a test's views is of the next one. */
async function quietDay() {
  const left = DAY_MS - (Date.now() % DAY_MS);
  if (left < 10 * 60_000) await new Promise((resolve) => setTimeout(resolve, left + 1_000));
}

const admin = (bed, method, path) => bed.get(path, { method, headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });

async function sync(bed) {
  const reports = [];
  for (;;) {
    const answer = await admin(bed, "POST", "/-/views/sync");
    assert.equal(answer.status, 200, answer.text);
    reports.push(answer.json());
    if (!reports.at(-1).left) return reports;
  }
}

/** How many views Redis has counted and not forgotten. */
async function counted(redis) {
  const keys = (await redis.keys("views:*")).filter((key) => !key.startsWith("views:_"));
  const sizes = await Promise.all(keys.map((key) => redis.scard(key)));
  return sizes.reduce((sum, size) => sum + size, 0);
}

test("10 000 views by 3 000 users on 500 stories: the origin's totals are exact, by 2 write statements", async () => {
  await quietDay();
  const seed = Number(process.env.EDGEWEIR_SEED ?? 1);
  console.log(`seed ${seed}`);
  const draw = random(seed);
  const origin = await startOrigin();
  const bed = await startBed({ policy: STORIES, originUrl: origin.url });
  try {
    const tokens = Array.from({ length: 3_000 }, (_, user) => bearer(`user-${user}`));
    const stories = Array.from({ length: 500 }, (_, at) => `story-${at + 1}`);
    const truth = new Map(stories.map((story) => [story, new Set()]));
    const lanes = Array.from({ length: 16 }, async () => {
      while (left > 0) {
        left -= 1;
        // Some stories and some readers are much more popular than others.
        const story = stories[Math.floor(draw() ** 2 * stories.length)];
        const user = Math.floor(draw() ** 2 * tokens.length);
        const answer = await bed.get(`/api/v1/stories/${story}`, { headers: { authorization: tokens[user] } });
        assert.equal(answer.status, 200);
        truth.get(story).add(user);
      }
    });
    await Promise.all(lanes);
    const expected = stories.map((id) => ({ id, total: truth.get(id).size })).filter(({ total }) => total > 0);
    const views = expected.reduce((sum, { total }) => sum + total, 0);
    assert.ok(views > 5_000 && views < 10_000, `${views} of 10 000 are a viewer's first of a story`);
    await until("every view has arrived", async () => (await counted(bed.redis)) === views);
    assert.deepEqual((await bed.get("/-/views/story/story-1")).json(), { pending: truth.get("story-1").size, total: null });
    const reports = await sync(bed);
    assert.deepEqual(reports, [{ batches: 1, items: expected.length, views, left: false }]);
    assert.equal(origin.stats.requests[`POST ${BATCH}`], 1);
    const writes = origin.stats.lastStatements.filter((statement) => /^(INSERT|UPDATE|DELETE)/.test(statement));
    console.log(`${views} views on ${expected.length} stories: ${writes.length} write statements`);
    assert.ok(writes.length <= 2, writes.join("\n"));
    const totals = await origin.query("SELECT story_id AS id, total_views AS total FROM views.stories WHERE total_views > 0");
    const byId = (a, b) => a.id.localeCompare(b.id);
    assert.deepEqual(totals.sort(byId), expected.sort(byId));
    const shown = await (await fetch(`${origin.url}/internal/views/totals?kind=story`)).json();
    assert.deepEqual(shown.totals.sort(byId), expected);
    const total = truth.get("story-1").size;
    assert.deepEqual((await bed.get("/-/views/story/story-1")).json(), { pending: 0, total });
    assert.deepEqual(await sync(bed), [{ batches: 0, items: 0, views: 0, left: false }]);
    // The day after: all of it is let go of, on a real Redis.
    await moveDays(bed.redis, 2);
    await sync(bed);
    const keys = await bed.redis.keys("views:*");
    for (const key of keys) assert.ok((await bed.redis.pttl(key)) > 0, `${key} expires`);
    assert.equal(await counted(bed.redis), 0);
    assert.equal(origin.stats.requests[`POST ${BATCH}`], 1, "nothing was sent again");
  } finally {
    await bed.close();
    await origin.close();
  }
});
let left = 10_000;

/** Makes what was counted today so many days older. */
async function moveDays(redis, days) {
  const today = Math.floor(Date.now() / DAY_MS);
  for (const key of await redis.keys(`views:*:${today}*`)) {
    await redis.rename(key, key.replace(`:${today}`, `:${today - days}`));
  }
}

test("views of yesterday and today are one batch, and an old day is let go of", async () => {
  await quietDay();
  const bed = await startBed({ policy: STORIES });
  try {
    const read = async (id, ip) => assert.equal((await bed.get(`/s/${id}/c/${id}`, { ip })).status, 200);
    for (const ip of ["192.0.2.1", "192.0.2.2", "2001:db8::1"]) await read("1", ip);
    await until("they are counted", async () => (await counted(bed.redis)) === 6);
    await moveDays(bed.redis, 2);
    await read("1", "192.0.2.9");
    await read("2", "192.0.2.9");
    await until("they are counted too", async () => (await counted(bed.redis)) === 10);
    const [report] = await sync(bed);
    assert.deepEqual(report, { batches: 1, items: 4, views: 10, left: false });
    const { body, headers } = bed.origin.requests.find(({ url }) => url === BATCH);
    const { batch, counts } = JSON.parse(body);
    assert.equal(headers["idempotency-key"], batch);
    const sorted = counts.map(({ kind, id, count }) => `${kind} ${id} ${count}`).sort();
    assert.deepEqual(sorted, ["chapter 1 4", "chapter 2 1", "story 1 4", "story 2 1"]);
    assert.equal(await counted(bed.redis), 4, "today's viewers stay known");
  } finally {
    await bed.close();
  }
});

test("an origin that refuses gets the same batch again, by hand at once and by the trigger later", async () => {
  await quietDay();
  const bed = await startBed({ policy: STORIES });
  try {
    bed.origin.on(BATCH, (_, response) => json(response, 503, {}));
    assert.equal((await bed.get("/s/1/c/1", { ip: "192.0.2.1" })).status, 200);
    await until("it is counted", async () => (await counted(bed.redis)) === 2);
    for (let n = 0; n < 2; n += 1) {
      const answer = await admin(bed, "POST", "/-/views/sync");
      assert.equal(answer.status, 502, answer.text);
      assert.equal(answer.headers["content-type"], "application/problem+json");
    }
    assert.equal((await bed.edges[0].scheduled()).outcome, "ok");
    assert.equal(bed.origin.count(BATCH), 2, "the trigger leaves it alone for a while");
    bed.origin.off(BATCH);
    await bed.redis.del("views:_backoff");
    assert.equal((await bed.edges[0].scheduled()).outcome, "ok");
    const bodies = bed.origin.requests.filter(({ url }) => url === BATCH).map(({ body }) => body);
    assert.equal(bodies.length, 3);
    assert.equal(new Set(bodies).size, 1);
    assert.deepEqual((await bed.get("/-/views/story/1")).json(), { pending: 0, total: null });
  } finally {
    await bed.close();
  }
});

test("without Redis a view goes straight to the origin, under one key for one viewer and day", async () => {
  await quietDay();
  const bed = await startBed({ policy: STORIES, faults: true, workers: 2 });
  try {
    bed.proxy.set("refuse");
    for (const url of bed.urls) assert.equal((await bed.get("/s/1/c/2", { url, ip: "192.0.2.1" })).status, 200);
    await until("both isolates have told the origin", () => bed.origin.count(BATCH) >= 4);
    const sent = bed.origin.requests.filter(({ url }) => url === BATCH).map(({ body }) => JSON.parse(body));
    for (const { counts } of sent) assert.equal(counts.length, 1);
    assert.equal(new Set(sent.map(({ batch }) => batch)).size, 2, "a key for each item");
  } finally {
    await bed.close();
  }
});

test("VIEW_TRACKING_REDIS_ENABLED=false and REDIS_ENABLED=false: straight to the origin", async () => {
  for (const vars of [{ VIEW_TRACKING_REDIS_ENABLED: "false" }, { REDIS_ENABLED: "false" }]) {
    const bed = await startBed({ policy: STORIES, vars });
    try {
      await bed.get("/s/1/c/2", { ip: "192.0.2.1" });
      await until("the origin has both", () => bed.origin.count(BATCH) === 2);
      assert.equal(await counted(bed.redis), 0);
    } finally {
      await bed.close();
    }
  }
});

test("a schedule that is none is a 503 that names its variable", async () => {
  for (const [name, value] of [["VIEW_SYNC_CRON", "0 2,14 * *"], ["VIEW_SYNC_INTERVAL_HOURS", "0"]]) {
    const bed = await startBed({ policy: STORIES, vars: { [name]: value } });
    try {
      const answer = await bed.get("/");
      assert.equal(answer.status, 503);
      assert.equal(answer.json().variable, name);
    } finally {
      await bed.close();
    }
  }
});

test("the built-in policy counts books, chapters and stories, and keeps visitors from /internal/", async () => {
  await quietDay();
  const origin = await startOrigin();
  const bed = await startBed({ originUrl: origin.url });
  try {
    const ip = "192.0.2.1";
    const [{ book_id: book, chapter_id: chapter }] = await origin.query(`SELECT book_id, chapter_id FROM book_chapters AS chapter
      JOIN online_books AS book USING (book_id) WHERE chapter.deleted_at IS NULL AND book.deleted_at IS NULL AND is_public LIMIT 1`);
    for (const path of [`/api/v1/community/books/${book}`, `/api/v1/community/books/${book}/chapters/${chapter}`, "/api/v1/stories/story-9"]) {
      assert.equal((await bed.get(path, { ip })).status, 200, path);
    }
    await until("they are counted", async () => (await counted(bed.redis)) === 3);
    for (const path of [BATCH, "/internal//views/batch", "/internal/views/totals"]) {
      const answer = await bed.get(path, { method: "POST", body: "{}", ip });
      assert.equal(answer.status, 403, path);
    }
    const [before] = await origin.query("SELECT total_views FROM online_books WHERE book_id = $1", [book]);
    await sync(bed);
    const [after] = await origin.query("SELECT total_views FROM online_books WHERE book_id = $1", [book]);
    assert.equal(after.total_views, before.total_views + 1);
    assert.deepEqual((await bed.get(`/-/views/book/${book}`, { ip })).json(), { pending: 0, total: after.total_views });
    const metrics = await admin(bed, "GET", "/-/metrics");
    assert.match(metrics.text, /^edgeweir_views_pending\{kind="book"\} 0$/m);
  } finally {
    await bed.close();
    await origin.close();
  }
});
