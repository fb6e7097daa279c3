// SUBSCRIBE and PSUBSCRIBE as a stream of server-sent events, as Upstash gives them:
// `data: subscribe,channel,1` once per channel, then `data: message,channel,payload`; no id, no replay.
//
// Each stream has a connection of its own and ends with it. A payload with line ends becomes several `data:` lines of one
// event, which a client joins again with "\n". It does not buffer for a reader that stands still.

import net from "node:net";
import { encodeCommands, RespReader } from "./resp.mjs";

const MAX_UNREAD_BYTES = 8 * 1024 * 1024;

/**
 * Answers `response` with the stream. `command` is SUBSCRIBE or PSUBSCRIBE, `names` Buffers. Returns `{ close() }`.
 * `onEnd(error)` is called once; when the stream never began, `response` is untouched and `error` says why.
 */
export function streamSubscription({ redisPort, command, names, response, onEnd }) {
  const socket = net.connect({ port: redisPort, host: "127.0.0.1", noDelay: true });
  let ended = false;

  const end = (error) => {
    if (ended) return;
    ended = true;
    socket.destroy();
    if (response.headersSent) response.end();
    onEnd(error);
  };

  const reader = new RespReader((reply) => {
    if (ended) return;
    if (!Array.isArray(reply)) return end(reply);
    if (!response.headersSent) {
      response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
    }
    response.write(eventText(reply));
    if (response.writableLength > MAX_UNREAD_BYTES) response.destroy();
  });

  socket.on("connect", () => socket.write(encodeCommands([[command, ...names]])));
  socket.on("data", (chunk) => {
    try {
      reader.push(chunk);
    } catch (error) {
      end(error);
    }
  });
  socket.on("error", end);
  socket.on("close", () => end(new Error("connection to Redis was lost")));
  response.on("close", () => end(undefined));
  return { close: () => end(undefined) };
}

function eventText(reply) {
  const text = reply.map(String).join(",");
  return `data: ${text.split(/\r\n|\r|\n/).join("\ndata: ")}\n\n`;
}
