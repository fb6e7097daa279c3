// One pipelined connection to a redis-server on this machine.
//
// Every batch goes out in one synchronous write, so what one caller sends is never interleaved with another's: that is
// what makes MULTI ... EXEC atomic on a connection that all share. It does not retry: when the connection breaks, every
// waiting batch is rejected (its outcome is unknown) and the next batch opens a new one.

import net from "node:net";
import { encodeCommands, RespReader } from "./resp.mjs";

const MAX_WAITING_BATCHES = 100_000;

/** The connection is gone or could not be made; whether the commands took effect is unknown. */
export class LinkError extends Error {
  name = "LinkError";
}

export class RedisLink {
  #port;
  #socket = null;
  #closed = false;
  #waiting = []; // batches sent, oldest first

  constructor({ port }) {
    this.#port = port;
  }

  /** Sends commands (arrays of string or Buffer) in one write; resolves to as many replies, errors among them. */
  send(commands) {
    if (this.#closed) return Promise.reject(new LinkError("connection to Redis is closed"));
    if (commands.length === 0) return Promise.resolve([]);
    if (this.#waiting.length >= MAX_WAITING_BATCHES) return Promise.reject(new LinkError("too many commands wait for Redis"));
    return new Promise((resolve, reject) => {
      const socket = this.#socket ?? this.#open();
      this.#waiting.push({ count: commands.length, replies: [], resolve, reject });
      socket.write(encodeCommands(commands));
    });
  }

  /** Sends MULTI, the commands and EXEC in one write; resolves to EXEC's reply (an array, or the RedisError that aborted it). */
  async transact(commands) {
    const replies = await this.send([["MULTI"], ...commands, ["EXEC"]]);
    return replies[replies.length - 1];
  }

  close() {
    this.#closed = true;
    this.#socket?.destroy();
    this.#fail(this.#socket, "connection to Redis is closed");
  }

  #open() {
    const socket = net.connect({ port: this.#port, host: "127.0.0.1", noDelay: true });
    const reader = new RespReader((reply) => this.#deliver(reply));
    socket.on("data", (chunk) => {
      try {
        reader.push(chunk);
      } catch (error) {
        socket.destroy(error);
      }
    });
    socket.on("error", (error) => this.#fail(socket, error.message || error.code));
    socket.on("close", () => this.#fail(socket, "connection to Redis was lost"));
    this.#socket = socket;
    return socket;
  }

  #deliver(reply) {
    const batch = this.#waiting[0];
    if (batch === undefined) throw new Error("a reply that nobody asked for");
    batch.replies.push(reply);
    if (batch.replies.length < batch.count) return;
    this.#waiting.shift();
    batch.resolve(batch.replies);
  }

  #fail(socket, reason) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    const lost = this.#waiting;
    this.#waiting = [];
    for (const batch of lost) batch.reject(new LinkError(reason));
  }
}
