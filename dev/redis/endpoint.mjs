// The Upstash Redis REST protocol over a real redis-server, for development and tests: the Worker talks to it as it would
// to Upstash. https://upstash.com/docs/redis/features/restapi
//
// POST / (a JSON command), /COMMAND/arg/arg, POST /pipeline, POST /multi-exec, /subscribe/channel and /psubscribe/pattern
// (server-sent events). Not there: quotas, billing, MONITOR, RESP2 answers. What always holds: it listens on loopback only;
// one answer per command, in order; nothing reaches Redis without the token; a command that would change or hold the shared
// connection is refused. Alone: `node dev/redis/endpoint.mjs --redis-port N --token T [--port P] [--read-only-token R]`.

import http from "node:http";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { readBody } from "./body.mjs";
import {
  decodePercent, parseCommand, parseCommands, parsePath, queryToken, readerNames, readOnlyRefusal, refusal, RequestError,
} from "./commands.mjs";
import { LinkError, RedisLink } from "./link.mjs";
import { envelope, errorEnvelope } from "./reply.mjs";
import { RedisError } from "./resp.mjs";
import { streamSubscription } from "./subscription.mjs";

export const MAX_REQUEST_BYTES = 10 * 1024 * 1024;
const MAX_STREAMS = 1000;
/** Longer than any client keeps an idle connection, so that it is never the server that closes under a request. */
const KEEP_ALIVE_MS = 65_000;

export const UNAUTHORIZED =
  "WRONGPASS invalid or missing auth token. See https://docs.upstash.com/redis/troubleshooting/http_unauthorized for details.";

/**
 * Resolves once it listens: `{ url, token, port, counters, close() }`. `counters.http` is the number of requests that came,
 * `counters.commands` that of the commands in those that had a token, refused ones included.
 */
export async function startEndpoint({ redisPort, token, port = 0, readOnlyToken }) {
  if (!token) throw new Error("startEndpoint needs a token");
  const endpoint = new Endpoint({ redisPort, token, readOnlyToken });
  return endpoint.listen(port);
}

class Endpoint {
  #redisPort;
  #token;
  #readOnlyToken;
  #link;
  #readers = null; // names a read-only token may run, asked of Redis once
  #streams = new Set();
  #syncs = 0;
  #counters = { http: 0, commands: 0 };

  constructor({ redisPort, token, readOnlyToken }) {
    this.#redisPort = redisPort;
    this.#token = token;
    this.#readOnlyToken = readOnlyToken;
    this.#link = new RedisLink({ port: redisPort });
  }

  async listen(port) {
    const server = http.createServer({ keepAliveTimeout: KEEP_ALIVE_MS, headersTimeout: KEEP_ALIVE_MS + 1000, noDelay: true });
    server.on("request", (request, response) => this.#handle(request, response));
    await new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, "127.0.0.1", resolve);
    });
    const bound = server.address().port;
    return {
      url: `http://127.0.0.1:${bound}`,
      token: this.#token,
      port: bound,
      counters: this.#counters,
      close: () => this.#close(server),
    };
  }

  async #close(server) {
    const closed = new Promise((resolve) => server.close(resolve));
    for (const stream of this.#streams) stream.close();
    server.closeAllConnections();
    this.#link.close();
    await closed;
  }

  async #handle(request, response) {
    this.#counters.http += 1;
    try {
      await this.#answer(request, response);
    } catch (error) {
      if (response.headersSent || response.destroyed) response.destroy();
      else if (error instanceof RequestError) send(response, 400, errorEnvelope(error.message));
      else if (error instanceof LinkError) send(response, 503, errorEnvelope(`ERR Redis is not reachable: ${error.message}`));
      else if (request.destroyed && !request.complete) response.destroy();
      else send(response, 500, errorEnvelope(`ERR ${error.message}`));
    }
  }

  async #answer(request, response) {
    if (!["GET", "HEAD", "POST", "PUT"].includes(request.method)) return send(response, 405, "");
    const [path, query] = splitTarget(request.url);
    const given = queryToken(query) ?? bearer(request.headers.authorization);
    if (given !== this.#token && (given === undefined || given !== this.#readOnlyToken)) {
      return send(response, 401, errorEnvelope(UNAUTHORIZED));
    }
    const subscription = /^\/(p?subscribe)\/(.+)$/i.exec(path);
    if (subscription !== null) return this.#subscribe(response, subscription[1].toUpperCase(), subscription[2]);

    const base64 = wantsBase64(request.headers);
    const hasBody = request.method === "POST" || request.method === "PUT";
    const { body, size } = hasBody ? await readBody(request, MAX_REQUEST_BYTES) : { body: Buffer.alloc(0), size: 0 };
    if (body === null) {
      throw new RequestError(`ERR max request size exceeded. Limit: ${MAX_REQUEST_BYTES} bytes, Actual: ${size} bytes`);
    }
    const judge = await this.#judgeFor(given);
    response.setHeader("upstash-sync-token", (this.#syncs += 1).toString(32));
    if (path === "/pipeline") return this.#pipeline(response, parseCommands(body.toString()), judge, base64);
    if (path === "/multi-exec") return this.#transaction(response, parseCommands(body.toString()), judge, base64);
    const command = path === "/" || path === "" ? parseCommand(body.toString()) : parsePath(path, query, body);
    return this.#single(response, command, judge, base64);
  }

  /** A function that gives the error a command is refused with, or null. */
  async #judgeFor(token) {
    if (token === this.#token) return refusal;
    if (this.#readers === null) {
      const [table] = await this.#link.send([["COMMAND"]]);
      if (table instanceof RedisError) throw table;
      this.#readers = readerNames(table);
    }
    return (command) => refusal(command) ?? readOnlyRefusal(command, this.#readers);
  }

  async #single(response, command, judge, base64) {
    this.#counters.commands += 1;
    const refused = judge(command);
    if (refused !== null) throw new RequestError(refused);
    const [reply] = await this.#link.send([command]);
    send(response, reply instanceof RedisError ? 400 : 200, envelope(reply, base64));
  }

  async #pipeline(response, commands, judge, base64) {
    this.#counters.commands += commands.length;
    const refusals = commands.map(judge);
    const replies = await this.#link.send(commands.filter((_, i) => refusals[i] === null));
    let next = 0;
    const items = refusals.map((refused) => (refused === null ? envelope(replies[next++], base64) : errorEnvelope(refused)));
    send(response, 200, `[${items.join(",")}]`);
  }

  async #transaction(response, commands, judge, base64) {
    this.#counters.commands += commands.length;
    const refused = commands.map(judge).find((text) => text !== null);
    if (refused !== undefined) throw new RequestError(refused);
    const reply = await this.#link.transact(commands);
    if (!Array.isArray(reply)) return send(response, 400, envelope(reply, base64));
    send(response, 200, `[${reply.map((item) => envelope(item, base64)).join(",")}]`);
  }

  #subscribe(response, command, path) {
    if (this.#streams.size >= MAX_STREAMS) throw new RequestError("ERR max number of clients reached");
    const names = path.split("/").map(decodePercent);
    const stream = streamSubscription({
      redisPort: this.#redisPort,
      command,
      names,
      response,
      onEnd: (error) => {
        this.#streams.delete(stream);
        if (response.headersSent || response.destroyed) return;
        if (error instanceof RedisError) send(response, 400, errorEnvelope(error.message));
        else send(response, 503, errorEnvelope(`ERR Redis is not reachable${error ? `: ${error.message}` : ""}`));
      },
    });
    this.#streams.add(stream);
  }
}

function send(response, status, text) {
  response.writeHead(status, { "content-type": "application/json; charset=utf-8", "content-length": Buffer.byteLength(text) });
  response.end(text);
}

function splitTarget(target) {
  const mark = target.indexOf("?");
  return mark < 0 ? [target, ""] : [target.slice(0, mark), target.slice(mark + 1)];
}

/** `Bearer TOKEN`, or the token alone, as Upstash takes both. */
function bearer(header) {
  return header === undefined ? undefined : header.replace(/^bearer\s+/i, "").trim();
}

function wantsBase64(headers) {
  const format = headers["upstash-response-format"] ?? "json";
  if (format !== "json") throw new RequestError(`ERR invalid Upstash-Response-Format: ${format}`);
  const encoding = headers["upstash-encoding"] ?? "";
  if (encoding !== "" && encoding !== "base64") throw new RequestError(`ERR invalid Upstash-Encoding: ${encoding}`);
  return encoding === "base64";
}

async function main() {
  const { values } = parseArgs({
    options: {
      "redis-port": { type: "string" },
      token: { type: "string" },
      port: { type: "string", default: "0" },
      "read-only-token": { type: "string" },
      "until-stdin-ends": { type: "boolean", default: false },
    },
  });
  const redisPort = Number(values["redis-port"]);
  if (!Number.isInteger(redisPort) || redisPort < 1 || redisPort > 65_535 || !values.token) {
    console.error("usage: node dev/redis/endpoint.mjs --redis-port N --token T [--port P] [--read-only-token R]");
    process.exitCode = 2;
    return;
  }
  const endpoint = await startEndpoint({
    redisPort,
    token: values.token,
    port: Number(values.port),
    readOnlyToken: values["read-only-token"],
  });
  console.log(endpoint.url);
  const end = () => endpoint.close().finally(() => process.exit(0));
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, end);
  if (values["until-stdin-ends"]) process.stdin.once("end", end).once("error", end).resume();
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
