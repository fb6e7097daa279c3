// The peer: the Worker that a team writes today with @upstash/ratelimit and @upstash/redis.
//
// It follows the packages' own examples for Workers: one client a request from `Redis.fromEnv`, the ephemeral cache in the
// module's scope, every other option of both packages at its default but analytics, which is off. First the limit, then
// the listing from Redis, and on a miss from the origin, kept with SET EX after the answer. It has what a careful team
// would add and no more: no stale answers, tags, single flight or fallback. With `ORDER` "together" it does not wait for
// the verdict before it reads, which saves the wait and reads for those it refuses, too.

import { Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis/cloudflare";

const LISTING = { path: "/api/v1/community/books/top", key: "books:top:all", ttlSeconds: 3600 };
const ephemeralCache = new Map();

export default {
  async fetch(request, env, ctx) {
    const url = new URL(request.url);
    if (request.method !== "GET" || url.pathname !== LISTING.path) return fetch(new URL(url.pathname + url.search, env.ORIGIN_URL), request);
    const redis = Redis.fromEnv(env);
    const ratelimit = new Ratelimit({
      redis,
      limiter: Ratelimit.slidingWindow(Number(env.LIMIT), env.WINDOW),
      prefix: "ratelimit",
      ephemeralCache,
      analytics: false,
    });
    const id = request.headers.get("cf-connecting-ip") ?? "unknown";
    const early = env.ORDER === "together" ? redis.get(LISTING.key) : undefined;
    const verdict = await ratelimit.limit(id);
    ctx.waitUntil(verdict.pending);
    const headers = {
      "x-ratelimit-limit": String(verdict.limit),
      "x-ratelimit-remaining": String(verdict.remaining),
      "x-ratelimit-reset": String(Math.ceil(verdict.reset / 1000)),
    };
    if (verdict.reason === "timeout") headers["x-ratelimit-timeout"] = "1";
    if (!verdict.success) {
      const retryAfter = Math.max(1, Math.ceil((verdict.reset - Date.now()) / 1000));
      return new Response("Too Many Requests", { status: 429, headers: { ...headers, "retry-after": String(retryAfter) } });
    }
    const cached = await (early ?? redis.get(LISTING.key));
    if (cached !== null) return Response.json(cached, { headers: { ...headers, "x-cache": "HIT" } });
    const answer = await fetch(new URL(LISTING.path, env.ORIGIN_URL));
    if (!answer.ok) return answer;
    const listing = await answer.json();
    ctx.waitUntil(redis.set(LISTING.key, listing, { ex: LISTING.ttlSeconds }));
    return Response.json(listing, { headers: { ...headers, "x-cache": "MISS" } });
  },
};
