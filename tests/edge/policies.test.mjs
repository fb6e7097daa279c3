// The four teams' policies in the built Worker through POLICY: keys and times in a real Redis, writes that clear and fill,
// and what /-/explain says. Each route of each is exercised by the native suite.

import test from "node:test";
import assert from "node:assert/strict";
import { ADMIN_TOKEN, builtInPolicy, json, list, patiently, startBed, until } from "./bed.mjs";

const TEAMS = [
  {
    file: "community-books",
    reads: [
      ["/api/v1/community/books/trending-today", "books:trending:today", 900],
      ["/api/v1/community/books/search?category=business&sort_by=views&limit=20", "books:search:9fe55d9300d761f4237f547d5e835934", 600],
      ["/api/v1/book-categories/parent/health", "books:top:category:health", 1800],
    ],
    write: ["POST", "/api/v1/community/books", { parent_category: "health" }],
    gone: ["books:search:9fe55d9300d761f4237f547d5e835934", "books:top:category:health"],
  },
  {
    file: "tikit",
    reads: [
      ["/api/events?state=lagos&page=2", "event:list:state:lagos:type:all:page:2", 300],
      ["/api/events/e1", "event:e1", 1800],
      ["/api/users/u1", "user:u1", 3600],
    ],
    write: ["PUT", "/api/events/e1", { id: "e1", title: "new" }],
    gone: ["event:list:state:lagos:type:all:page:2"],
    filled: "/api/events/e1",
  },
  {
    file: "fablespace",
    vars: { NOTIFICATION_CACHE_TTL: "45" },
    reads: [["/api/notifications/announcements", "notifications:announcements:1", 45]],
    write: ["POST", "/api/notifications/announcements", {}],
    gone: ["notifications:announcements:1"],
  },
  {
    file: "story-platform",
    reads: [
      ["/api/stories/s1", "story:s1", 3600],
      ["/api/stories/popular", "stories:popular", 900],
      ["/api/categories/crime/stories", "stories:category:crime:1", 600],
      ["/api/categories/love/stories", "stories:category:love:1", 600],
      ["/api/system/flags", "system:flags", 60],
    ],
    write: ["POST", "/api/stories", { id: 5, author_id: "a1", categories: ["crime"] }, 201],
    gone: ["stories:category:crime:1"],
    filled: "/api/stories/5",
  },
];

const isHit = (answer) => list(answer.headers["cache-status"])[0]?.params.hit === true;

for (const { file, vars, reads, write, gone, filled } of TEAMS) {
  test(`${file}: keys, times, a write, and what is explained`, async () => {
    const bed = await startBed({ policy: patiently(builtInPolicy(`policies/${file}.toml`)), vars });
    try {
      const [method, target, written, status = 200] = write;
      let asked = 0;
      bed.origin.on("/", (request, response) => {
        if (request.method === "GET") json(response, 200, { path: request.url, nth: ++asked });
        else json(response, status, written);
      });
      const first = new Map();
      for (const [path, key, ttl] of reads) {
        const miss = await bed.get(path, { headers: { cookie: "a=b" } });
        assert.equal(miss.status, 200, path);
        first.set(key, miss.text);
        await until(`${key} is stored`, async () => (await bed.redis.get(key)) === miss.text);
        const meta = JSON.parse(await bed.redis.get(`meta:${key}`));
        assert.equal(meta.fresh_until - meta.stored, ttl * 1000, path);
        assert.ok(isHit(await bed.get(path)), path);
        const url = encodeURIComponent(`https://shop.example${path}`);
        const explained = await bed.get(`/-/explain?method=GET&url=${url}`, { headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });
        assert.equal(explained.status, 200, explained.text);
        assert.equal(explained.json().key, key);
        assert.equal(explained.json().looked_up, true);
      }
      const answer = await bed.get(target, { method, body: "{}", headers: { "content-type": "application/json" } });
      assert.deepEqual([answer.status, answer.json()], [status, written]);
      if (filled) {
        const read = await bed.get(filled);
        assert.ok(isHit(read), read.headers["cache-status"]);
        assert.deepEqual([read.status, read.json()], [200, written]);
      }
      for (const [path, key] of reads.filter(([path]) => path !== filled)) {
        const read = await bed.get(path);
        assert.equal(isHit(read), !gone.includes(key), path);
        assert.equal(read.text === first.get(key), !gone.includes(key), path);
      }
      const refused = await bed.get("/-/explain?method=GET", { headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });
      assert.deepEqual([refused.status, refused.headers["content-type"]], [400, "application/problem+json"]);
      assert.equal((await bed.get("/-/explain?method=GET&url=/")).status, 401);
    } finally {
      await bed.close();
    }
  });
}

test("a variable that is no time is a 503 that names it", async () => {
  const bed = await startBed({ policy: patiently(builtInPolicy("policies/fablespace.toml")), vars: { NOTIFICATION_CACHE_TTL: "30s" } });
  try {
    const answer = await bed.get("/api/notifications/announcements");
    assert.equal(answer.status, 503);
    assert.match(answer.text, /NOTIFICATION_CACHE_TTL/);
  } finally {
    await bed.close();
  }
});
