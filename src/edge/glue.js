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

/** What the platform keeps a request alive for until it is resolved, also without a visitor. */
export function open(context) {
  const turn = Promise.withResolvers();
  context.waitUntil(turn.promise);
  return turn;
}

export const parse = (json) => JSON.parse(json);

export const newHeaders = (fields) => new Headers(JSON.parse(fields));

/** `text` has a line for each name and each value. */
export function setFields(headers, text) {
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; at += 2) headers.set(lines[at], lines[at + 1]);
}

/** Sets what has changed of the fields before. The platform reads each member that is there, so there are no more than an
 * answer needs. */
export function respond(status, headers, changes, body) {
  if (changes !== undefined) setFields(headers, changes);
  return new Response(body, status === 200 ? { headers } : { status, headers });
}

/** Of bytes that are compressed already, as their fields say. */
export function respondCoded(status, headers, body) {
  return new Response(body, { status, headers, encodeBody: "manual" });
}

export function upgrade(status, headers, webSocket) {
  return new Response(null, { status, headers, webSocket });
}

/** What the visitor takes himself: the platform writes its own list into his request. */
export function acceptEncoding(request) {
  return request.cf?.clientAcceptEncoding ?? request.headers.get("accept-encoding") ?? undefined;
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

/** Posts that nobody waits for any more and that cannot be ended. */
const forgotten = new Set();
/** Those that ended with their requests stay in there: whatever answers after so many is read, and thrown away then. */
const MAX_FORGOTTEN = 1024;

/** Lands with status 0 when it fails and without bytes when there are more than `most`. Returns what ends it, if it `canEnd`:
 * a signal is a quarter of what the whole fetch costs. */
export function post(id, url, headers, body, most, canEnd) {
  const init = { method: "POST", headers, body, redirect: "manual" };
  const controller = canEnd ? new AbortController() : undefined;
  if (canEnd) init.signal = controller.signal;
  exchange(id, url, init, most);
  return controller;
}

/** A late answer to this post is let go of unread. */
export function forget(id) {
  if (forgotten.size >= MAX_FORGOTTEN) forgotten.clear();
  forgotten.add(id);
}

async function exchange(id, url, init, most) {
  let status = 0;
  let token;
  let bytes;
  try {
    // From a URL the platform makes one request, from a request object two.
    const response = await fetch(url, init);
    if (forgotten.delete(id)) return void (await response.body?.cancel());
    const { headers } = response;
    const length = Number(headers.get("content-length") ?? NaN);
    // In this function, because each one that waits is a promise more.
    const isDeclared = length >= 0 && length <= most && headers.get("content-encoding") === null;
    bytes = isDeclared ? new Uint8Array(await response.arrayBuffer()) : await undeclared(response, length, most);
    token = headers.get("upstash-sync-token") ?? undefined;
    status = response.status;
  } catch {}
  if (!forgotten.delete(id)) land(id, status, token, bytes);
}

/** A body that may be longer than it says; nothing when it has more than `most` bytes. */
async function undeclared(response, length, most) {
  if (response.body === null) return new Uint8Array();
  const isLonger = length > most && response.headers.get("content-encoding") === null;
  if (!isLonger) return readAll(response.body.getReader(), most);
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

/** Without a type, or it would be the answer's. */
export const blob = (bytes) => new Blob([bytes]);

export function gzip(bytes) {
  return through(new CompressionStream("gzip"), bytes, Infinity);
}

/** Nothing when it is broken or has more than `most` bytes. */
export function gunzip(bytes, most) {
  return through(new DecompressionStream("gzip"), bytes, most);
}

/** So little at a time that a thousandfold of it is no danger: the platform expands all of what it is given. */
const SLICE = 4096;

async function through({ writable, readable }, bytes, most) {
  let isRead = false;
  const writer = writable.getWriter();
  const write = async () => {
    for (let at = 0; at < bytes.length && !isRead; at += SLICE) await writer.write(bytes.subarray(at, at + SLICE));
    await (isRead ? writer.abort() : writer.close());
  };
  // What goes wrong here is an error to the reader too, and nobody waits for it when that one has had enough.
  write().catch((error) => writer.abort(error)).catch(() => {});
  try {
    return await readAll(readable.getReader(), most);
  } catch {
  } finally {
    isRead = true;
  }
}

const NONCE = 12;
/** By their bytes: there are two at most. */
const keys = new Map();

async function importKey(bytes) {
  const name = bytes.join();
  const known = keys.get(name);
  if (known !== undefined) return known;
  const key = await crypto.subtle.importKey("raw", bytes, "AES-GCM", false, ["encrypt", "decrypt"]);
  keys.set(name, key);
  return key;
}

/** The nonce, and behind it what came of it. */
export async function seal(key, name, plain) {
  const iv = crypto.getRandomValues(new Uint8Array(NONCE));
  const additionalData = new TextEncoder().encode(name);
  const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData }, await importKey(key), plain);
  const bytes = new Uint8Array(NONCE + sealed.byteLength);
  bytes.set(iv);
  bytes.set(new Uint8Array(sealed), NONCE);
  return bytes;
}

/** Rejects what `seal` did not make with this key and name. */
export async function unseal(key, name, sealed) {
  const [iv, additionalData] = [sealed.subarray(0, NONCE), new TextEncoder().encode(name)];
  return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData }, await importKey(key), sealed.subarray(NONCE)));
}
