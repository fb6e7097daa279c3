// What an Upstash REST request asks for: from its body, path and query to commands, and which commands it may not send.
//
// Pure: no socket, no state. A request that is no command at all throws RequestError; a command that the REST API
// refuses is judged by `refusal`, because a pipeline answers it in its place. Texts are Upstash's where they are known
// (https://upstash.com/docs/redis/features/restapi and answers recorded from it).

/** The request as a whole is wrong: status 400 and this text. */
export class RequestError extends Error {
  name = "RequestError";
}

/** One command from a JSON body: `["SET", "key", 1]`. */
export function parseCommand(text) {
  return toCommand(parseArray(text, "ERR failed to parse command"));
}

/** Several commands from a JSON body: `[["SET", "key", 1], ["GET", "key"]]`. */
export function parseCommands(text) {
  const rows = parseArray(text, "ERR failed to parse pipeline request");
  if (rows.length === 0) throw new RequestError("ERR empty pipeline request");
  return rows.map((row) => {
    if (!Array.isArray(row)) throw new RequestError("ERR failed to parse pipeline request");
    return toCommand(row);
  });
}

/** One command from a path (`/SET/key/value`), then the body, then the query (`EX=100`), but for `_token`. */
export function parsePath(path, query, body) {
  const args = path.replace(/^\/|\/+$/g, "").split("/").map(decodePercent);
  if (body.length > 0) args.push(body);
  for (const [name, value] of queryPairs(query)) {
    if (name.toString() === "_token") continue;
    args.push(name);
    if (value.length > 0) args.push(value);
  }
  if (args[0].length === 0) throw new RequestError("ERR empty command");
  return [args[0].toString(), ...args.slice(1)];
}

/** The `_token` of a query, or undefined. */
export function queryToken(query) {
  if (!query.includes("_token=")) return undefined;
  return queryPairs(query).find(([name]) => name.toString() === "_token")?.[1].toString();
}

/** A path segment as bytes: `%ff` is the byte 255, UTF-8 or not. */
export function decodePercent(segment) {
  if (!segment.includes("%")) return Buffer.from(segment);
  if (/%(?![0-9a-fA-F]{2})/.test(segment)) throw new RequestError("ERR invalid URL escape");
  return Buffer.from(segment.replace(/%([0-9a-fA-F]{2})/g, (_, hex) => String.fromCharCode(parseInt(hex, 16))), "latin1");
}

function queryPairs(query) {
  if (query === "") return [];
  return query.split("&").map((pair) => {
    const [name, ...value] = pair.replaceAll("+", " ").split("=");
    return [decodePercent(name), decodePercent(value.join("="))];
  });
}

function parseArray(text, message) {
  if (text.trim() === "") throw new RequestError("EOF");
  let value;
  try {
    value = JSON.parse(text);
    if (hasUnsafeInteger(value)) value = JSON.parse(quoteUnsafeIntegers(text));
  } catch {
    throw new RequestError(message);
  }
  if (!Array.isArray(value)) throw new RequestError("expected JSON array");
  return value;
}

function toCommand(values) {
  if (values.length === 0) throw new RequestError("ERR empty command");
  return values.map(toArgument);
}

function toArgument(value) {
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (value === null) throw new RequestError("ERR null args are not supported");
  throw new RequestError(`ERR unsupported arg type: "${Array.isArray(value) ? "[" : "{"}": json.Delim`);
}

// JSON.parse rounds integers beyond 2^53, and Redis counts in 64 bits: such a number is read again from its text.

function hasUnsafeInteger(value) {
  if (Array.isArray(value)) return value.some(hasUnsafeInteger);
  return Number.isInteger(value) && !Number.isSafeInteger(value);
}

function quoteUnsafeIntegers(json) {
  const number = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
  let out = "";
  let copied = 0;
  for (let at = 0; at < json.length; ) {
    const char = json[at];
    if (char === '"') {
      at = endOfString(json, at);
      continue;
    }
    number.lastIndex = at;
    const token = char === "-" || (char >= "0" && char <= "9") ? number.exec(json) : null;
    if (token === null) {
      at += 1;
      continue;
    }
    if (/^-?\d+$/.test(token[0]) && !Number.isSafeInteger(Number(token[0]))) {
      out += `${json.slice(copied, at)}"${token[0]}"`;
      copied = at + token[0].length;
    }
    at += token[0].length;
  }
  return out + json.slice(copied);
}

function endOfString(json, start) {
  let at = start + 1;
  while (json[at] !== '"') at += json[at] === "\\" ? 2 : 1;
  return at + 1;
}

/** Would change or hold the connection that all requests share, or has a path of its own (/multi-exec, /subscribe). */
const NOT_IN_REST = new Set(
  ("AUTH HELLO RESET QUIT SELECT CLIENT ASKING READONLY READWRITE MULTI EXEC DISCARD WATCH UNWATCH MONITOR SYNC PSYNC REPLCONF " +
    "SUBSCRIBE UNSUBSCRIBE PSUBSCRIBE PUNSUBSCRIBE SSUBSCRIBE SUNSUBSCRIBE " +
    "BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF").split(" "),
);

/** Runs the server rather than the data; Upstash has none of these. */
const NOT_AVAILABLE = new Set(
  "CONFIG DEBUG SHUTDOWN SAVE BGSAVE BGREWRITEAOF REPLICAOF SLAVEOF FAILOVER MODULE CLUSTER MIGRATE SWAPDB".split(" "),
);

/** The error with which a command is refused before it reaches Redis, or null. */
export function refusal(command) {
  const name = command[0].toUpperCase();
  if (NOT_IN_REST.has(name) || ((name === "XREAD" || name === "XREADGROUP") && blocks(command))) {
    return `ERR Command "${name}" is not allowed in REST or it has a special context path`;
  }
  if (NOT_AVAILABLE.has(name)) {
    return `ERR Command is not available: '${name}'. See https://upstash.com/docs/redis/overall/rediscompatibility for details`;
  }
  return null;
}

/** XREAD and XREADGROUP wait only when BLOCK stands among their options, which end at STREAMS. */
function blocks(command) {
  let at = command[0].toUpperCase() === "XREADGROUP" ? 4 : 1; // after GROUP, group and consumer
  for (; at < command.length; at += 1) {
    const word = command[at].toString().toUpperCase();
    if (word === "STREAMS") return false;
    if (word === "BLOCK") return true;
  }
  return false;
}

/** What a read-only token may not run, as Redis words it. `readers` is the set of permitted names in lower case. */
export function readOnlyRefusal(command, readers) {
  const name = command[0].toLowerCase();
  return readers.has(name) ? null : `NOPERM this user has no permissions to run the '${name}' command`;
}

/** The names a read-only token may run, from the reply to COMMAND: reads of keys, without the dangerous and SCAN. */
export function readerNames(table) {
  const names = new Set(["ping", "echo", "time", "info"]);
  for (const entry of table) {
    const name = entry[0].toString();
    const categories = entry[6].map(String);
    if (categories.includes("@read") && !categories.includes("@dangerous") && name !== "scan") names.add(name);
  }
  return names;
}
