// What is not a listing: the event stream and the WebSocket echo that must pass through the edge untouched.
//
// Neither touches the database.
// Always: a stream ends when its client goes, when its count is reached, or when the origin closes; the number of streams
// and sockets, the size of a message and what waits unsent are limited.

import { WebSocketServer } from 'ws';
import { RequestError, queryInteger } from './input.mjs';

const MAX_STREAMS = 1_000;
const MAX_SOCKETS = 1_000;
const MAX_MESSAGE_BYTES = 1024 * 1024;
const MAX_UNSENT_BYTES = 8 * MAX_MESSAGE_BYTES;

/** The open event streams of one origin. */
export class EventStreams {
  #open = new Set();

  /** Answers with an event at once and one more each `interval_ms`, `count` of them or until the client goes. */
  serve({ request, response, query, clock }) {
    const intervalMs = queryInteger(query, 'interval_ms', { fallback: 1_000, least: 10, most: 60_000 });
    const count = queryInteger(query, 'count', { fallback: Number.POSITIVE_INFINITY, least: 1, most: 1_000_000 });
    if (this.#open.size >= MAX_STREAMS) throw new RequestError(503, 'too_many_streams', 'too many event streams are open');
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store', 'X-Sql-Statements': '0' });
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    this.#open.add(response);
    let number = 0;
    const send = () => {
      number += 1;
      response.write(`id: ${number}\nevent: tick\ndata: ${JSON.stringify({ number, at: new Date(clock()).toISOString() })}\n\n`);
      if (number >= count || response.writableLength > MAX_UNSENT_BYTES) response.end();
    };
    const timer = setInterval(send, intervalMs);
    const stop = () => {
      clearInterval(timer);
      this.#open.delete(response);
    };
    response.on('close', stop);
    response.on('finish', stop);
    send();
  }

  close() {
    for (const response of this.#open) response.end();
  }
}

/** A WebSocket that sends back every message as it came. */
export class EchoSockets {
  #server = new WebSocketServer({ noServer: true, maxPayload: MAX_MESSAGE_BYTES });

  accept(request, socket, head) {
    if (this.#server.clients.size >= MAX_SOCKETS) {
      socket.end('HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    this.#server.handleUpgrade(request, socket, head, (client) => {
      client.on('error', () => client.terminate());
      client.on('message', (data, isBinary) => {
        if (client.bufferedAmount > MAX_UNSENT_BYTES) client.close(1013, 'too much unsent');
        else client.send(data, { binary: isBinary });
      });
    });
  }

  close() {
    for (const client of this.#server.clients) client.terminate();
    this.#server.close();
  }
}
