// The floor: a Worker that makes one trip to the Redis endpoint with a limit's and a listing's commands, and answers with what
// came as it came. It decides nothing and decodes nothing, so what it costs is workerd's own: the request, one fetch, the answer.

export default {
  async fetch(request, env) {
    const id = request.headers.get("cf-connecting-ip") ?? "unknown";
    const answer = await fetch(`${env.UPSTASH_REDIS_REST_URL}/pipeline`, {
      method: "POST",
      headers: { authorization: `Bearer ${env.UPSTASH_REDIS_REST_TOKEN}`, "content-type": "application/json", "upstash-encoding": "base64" },
      body: JSON.stringify([
        ["BITFIELD", `floor:${id}`, "OVERFLOW", "FAIL", "INCRBY", "u32", "#0", "1"],
        ["EXPIRE", `floor:${id}`, "120"],
        ["MGET", "books:top:all", "meta:books:top:all", "gen:books"],
      ]),
    });
    return new Response(await answer.arrayBuffer(), { headers: { "content-type": "application/json", "x-floor": "1" } });
  },
};
