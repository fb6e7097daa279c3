// Reading an HTTP request's body up to a limit.

/** A longer body is read to its end and thrown away, so that the sender sees the answer; beyond this it is cut off. */
const MAX_DISCARDED_BYTES = 64 * 1024 * 1024;

/**
 * Resolves to `{ body, size }`: `body` is a Buffer, or null when the body was longer than `limit` bytes; `size` is its
 * whole length in bytes. Rejects when the sender goes away first.
 */
export function readBody(request, limit) {
  return new Promise((resolve, reject) => {
    let chunks = [];
    let size = 0;
    request.on("data", (chunk) => {
      size += chunk.length;
      if (size <= limit) chunks.push(chunk);
      else chunks = [];
      if (size > MAX_DISCARDED_BYTES) request.destroy();
    });
    request.on("end", () => {
      if (size > limit) resolve({ body: null, size });
      else resolve({ body: chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, size), size });
    });
    request.on("error", reject);
    request.on("close", () => reject(new Error("the request was cut off")));
  });
}
