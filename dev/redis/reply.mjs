// Replies of Redis as Upstash's JSON: `{"result": ...}` or `{"error": "..."}`.
//
// Pure. Without base64 a string that is not UTF-8 loses its bad bytes to U+FFFD, as JSON must; with `base64` every string
// is base64 but for "OK", and errors stay as they are, so nothing is lost. Integers keep all 64 bits.

import { RedisError } from "./resp.mjs";

export function envelope(reply, base64) {
  return reply instanceof RedisError ? errorEnvelope(reply.message) : `{"result":${encodeReply(reply, base64)}}`;
}

export function errorEnvelope(message) {
  return `{"error":${JSON.stringify(message)}}`;
}

function encodeReply(reply, base64) {
  if (reply === null) return "null";
  if (Buffer.isBuffer(reply)) return encodeString(reply, base64);
  if (Array.isArray(reply)) return `[${reply.map((item) => encodeReply(item, base64)).join(",")}]`;
  if (reply instanceof RedisError) return JSON.stringify(reply.message);
  return String(reply);
}

function encodeString(bytes, base64) {
  if (!base64) return JSON.stringify(bytes.toString("utf8"));
  return bytes.length === 2 && bytes[0] === 0x4f && bytes[1] === 0x4b ? '"OK"' : `"${bytes.toString("base64")}"`;
}
