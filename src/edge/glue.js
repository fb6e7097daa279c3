// The border of the wasm: what would be many calls across it for each request is one of these. Nothing is decided here.
//
// Fields come as text, a line for each name and each value: the platform lets no line's end into either. They go as JSON, a
// record or a list of pairs: both are what the platform takes for headers, and a record is read sooner.

/** Method and URL of a request, then its fields. */
export function requestText(request) {
  return `${request.method}\n${request.url}${fieldsText(request.headers)}`;
}

/** Fields, each name and each value after a line's end. */
export function fieldsText(headers) {
  let text = "";
  headers.forEach((value, name) => {
    text += `\n${name}\n${value}`;
  });
  return text;
}

/** One request: `answer` is what its visitor waits for. The platform keeps it alive until `end`, also without a visitor. */
export function open(context) {
  const turn = {};
  context.waitUntil(new Promise((resolve) => (turn.end = resolve)));
  turn.answer = new Promise((resolve) => (turn.settle = resolve));
  return turn;
}

export const parse = (json) => JSON.parse(json);

export const newHeaders = (fields) => new Headers(JSON.parse(fields));

export function respond(status, headers, body, webSocket) {
  return new Response(body, { status, headers, webSocket });
}

let land;

/** `callback(id, status, token, bytes)` is told what came of `sleep` and `post`: one for all costs less than one for each. */
export function landOn(callback) {
  land = callback;
}

/** The handle for `clearTimeout`. */
export function sleep(id, ms) {
  return setTimeout(land, ms, id);
}

/** Lands with status 0 when it fails and without bytes when there are more than `most`. Returns what ends it. */
export function post(id, url, headers, body, most) {
  const controller = new AbortController();
  const init = { method: "POST", headers, body, redirect: "manual", signal: controller.signal };
  exchange(land, id, url, init, most);
  return controller;
}

async function exchange(land, id, url, init, most) {
  let status = 0;
  let token;
  let bytes;
  try {
    // From a URL the platform makes one request, from a request object two.
    const response = await fetch(url, init);
    bytes = await whole(response, most);
    token = response.headers.get("upstash-sync-token") ?? undefined;
    status = response.status;
  } catch {}
  land(id, status, token, bytes);
}

/** Nothing when the body has more than `most` bytes. */
async function whole(response, most) {
  const length = Number(response.headers.get("content-length") ?? NaN);
  const isDeclared = length >= 0 && response.headers.get("content-encoding") === null;
  if (isDeclared && length <= most) return new Uint8Array(await response.arrayBuffer());
  if (response.body === null) return new Uint8Array();
  if (!isDeclared) return readAll(response.body.getReader(), most);
  response.body.cancel().catch(() => {});
}

/** The same of a stream. */
export async function readAll(reader, most) {
  const chunks = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > most) {
      reader.cancel().catch(() => {});
      return;
    }
    chunks.push(value);
  }
  const bytes = new Uint8Array(length);
  for (const chunk of chunks.reverse()) bytes.set(chunk, (length -= chunk.length));
  return bytes;
}
