// RESP2, the wire protocol of Redis: commands out, replies in.
//
// Replies become: Buffer (simple and bulk strings alike), number or BigInt (an integer beyond 2^53 keeps every digit),
// null, Array, RedisError. It knows no command and no socket. A reply may arrive cut anywhere; nothing is read twice.
// https://redis.io/docs/latest/develop/reference/protocol-spec/

const CR = 13;
const STATUS = 43; // +
const ERROR = 45; // -
const INTEGER = 58; // :
const BULK = 36; // $
const ARRAY = 42; // *

/** An error reply of Redis; `message` is its whole text, code first ("WRONGTYPE Operation against ..."). */
export class RedisError extends Error {
  name = "RedisError";
}

/** The bytes of several commands, to be given to a socket in one write. Arguments are strings (sent as UTF-8) or Buffers. */
export function encodeCommands(commands) {
  const parts = [];
  let text = "";
  for (const args of commands) {
    text += `*${args.length}\r\n`;
    for (const arg of args) {
      if (typeof arg === "string") {
        text += `$${Buffer.byteLength(arg)}\r\n${arg}\r\n`;
      } else {
        parts.push(Buffer.from(`${text}$${arg.length}\r\n`), arg);
        text = "\r\n";
      }
    }
  }
  if (parts.length === 0) return Buffer.from(text);
  parts.push(Buffer.from(text));
  return Buffer.concat(parts);
}

/** Turns a stream of bytes into replies. `onReply` is called once per whole reply, in order. */
export class RespReader {
  #onReply;
  #held = []; // chunks of a token that is not whole yet
  #heldBytes = 0;
  #neededBytes = 0; // no token can be whole below this many bytes
  #frames = []; // arrays being filled, outermost first

  constructor(onReply) {
    this.#onReply = onReply;
  }

  /** Throws when the bytes are not RESP2: the connection is then of no more use. */
  push(chunk) {
    let bytes = chunk;
    if (this.#heldBytes > 0) {
      this.#held.push(chunk);
      this.#heldBytes += chunk.length;
      if (this.#heldBytes < this.#neededBytes) return;
      bytes = Buffer.concat(this.#held, this.#heldBytes);
      this.#held = [];
      this.#heldBytes = 0;
    }
    let at = 0;
    while (at < bytes.length) {
      const next = this.#readToken(bytes, at);
      if (next < 0) {
        this.#held = [bytes.subarray(at)];
        this.#heldBytes = bytes.length - at;
        return;
      }
      at = next;
    }
  }

  /** Reads one token at `at`; returns where the next begins, or -1 after setting #neededBytes. */
  #readToken(bytes, at) {
    const end = bytes.indexOf(CR, at + 1);
    if (end < 0 || end + 1 >= bytes.length) {
      this.#neededBytes = bytes.length - at + 1;
      return -1;
    }
    const next = end + 2;
    switch (bytes[at]) {
      case STATUS:
        this.#take(bytes.subarray(at + 1, end));
        return next;
      case ERROR:
        this.#take(new RedisError(bytes.toString("utf8", at + 1, end)));
        return next;
      case INTEGER:
        this.#take(readInteger(bytes.latin1Slice(at + 1, end)));
        return next;
      case BULK: {
        const size = readSize(bytes.latin1Slice(at + 1, end));
        if (size < 0) {
          this.#take(null);
          return next;
        }
        if (next + size + 2 > bytes.length) {
          this.#neededBytes = next + size + 2 - at;
          return -1;
        }
        this.#take(bytes.subarray(next, next + size));
        return next + size + 2;
      }
      case ARRAY: {
        const size = readSize(bytes.latin1Slice(at + 1, end));
        if (size > 0) this.#frames.push({ size, items: [] });
        else this.#take(size < 0 ? null : []);
        return next;
      }
      default:
        throw new Error(`not a RESP2 reply: type byte ${bytes[at]}`);
    }
  }

  #take(value) {
    let whole = value;
    while (this.#frames.length > 0) {
      const frame = this.#frames[this.#frames.length - 1];
      frame.items.push(whole);
      if (frame.items.length < frame.size) return;
      this.#frames.pop();
      whole = frame.items;
    }
    this.#onReply(whole);
  }
}

function readInteger(text) {
  if (!/^[+-]?\d{1,20}$/.test(text)) throw new Error("not a RESP2 reply: bad integer");
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : BigInt(text);
}

function readSize(text) {
  const size = Number(text);
  if (text === "" || !Number.isSafeInteger(size) || size < -1) throw new Error("not a RESP2 reply: bad length");
  return size;
}
