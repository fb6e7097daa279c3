// What a request may bring: its query, its JSON body, the fields in it. Everything here is a check.
//
// No SQL and no answer is written here. A value that passes is well-formed text without NUL (Postgres stores no NUL),
// inside its bounds and of its type.
// Always: bad input throws RequestError with a 4xx status, never anything else.

export const MAX_BODY_BYTES = 64 * 1024;
const MAX_QUERY_TEXT = 200;

/** A refusal of a request: HTTP status, stable code, and a sentence for the caller. */
export class RequestError extends Error {
  constructor(status, code, message, headers = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.headers = headers;
  }
}

const invalid = (message) => new RequestError(422, 'invalid_value', message);
const storable = (value) => value.isWellFormed() && !value.includes('\0');

/** The whole body as JSON; `undefined` for an empty one. */
export async function readJson(request, { most = MAX_BODY_BYTES } = {}) {
  const chunks = [];
  let size = 0;
  // Left undestroyed, so that the connection can still carry the refusal of a body that is too large.
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    size += chunk.length;
    if (size > most) {
      throw new RequestError(413, 'body_too_large', `the body is limited to ${most} bytes`, { Connection: 'close' });
    }
    chunks.push(chunk);
  }
  if (size === 0) return undefined;
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks)));
  } catch {
    throw new RequestError(400, 'bad_json', 'the body must be JSON in UTF-8');
  }
}

/** The body as a JSON object; an empty body is allowed only when `optional`. */
export async function readJsonObject(request, { optional = false, most } = {}) {
  const body = await readJson(request, { most });
  if (body === undefined && optional) return {};
  if (body === null || typeof body !== 'object' || Array.isArray(body)) throw new RequestError(400, 'bad_json', 'the body must be a JSON object');
  return body;
}

/** A query parameter as text of at most 200 characters; `undefined` when absent or empty. */
export function queryText(query, name) {
  const value = query.get(name);
  if (value === null || value === '') return undefined;
  if (value.length > MAX_QUERY_TEXT || !storable(value)) throw invalid(`'${name}' must be text of at most ${MAX_QUERY_TEXT} characters`);
  return value;
}

/** A query parameter as a whole number within bounds. */
export function queryInteger(query, name, { fallback, least, most }) {
  const value = query.get(name);
  if (value === null || value === '') return fallback;
  const number = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN;
  if (!(number >= least && number <= most)) throw invalid(`'${name}' must be a whole number from ${least} to ${most}`);
  return number;
}

/** A query parameter that names one of the keys of `choices`; resolves to that key's value. */
export function queryChoice(query, name, choices, fallback) {
  const value = query.get(name) || fallback;
  if (!Object.hasOwn(choices, value)) throw invalid(`'${name}' must be one of: ${Object.keys(choices).join(', ')}`);
  return choices[value];
}

/** A text field of a body. */
export function textField(name, value, { least = 0, most }) {
  if (typeof value !== 'string' || value.length < least || value.length > most || !storable(value)) {
    throw invalid(`'${name}' must be text of ${least} to ${most} characters`);
  }
  return value;
}

/** An absolute http(s) URL, or the empty text. */
export function urlField(name, value) {
  const url = textField(name, value, { most: 2_000 });
  if (url !== '' && !(URL.canParse(url) && /^https?:$/.test(new URL(url).protocol))) throw invalid(`'${name}' must be an http or https URL`);
  return url;
}

/** A list of different texts. */
export function listField(name, value, { least = 0, most, mostEach }) {
  if (!Array.isArray(value) || value.length < least || value.length > most) throw invalid(`'${name}' must be a list of ${least} to ${most} texts`);
  const items = value.map((item) => textField(`${name}[]`, item, { least: 1, most: mostEach }));
  if (new Set(items).size !== items.length) throw invalid(`'${name}' names something twice`);
  return items;
}

export function booleanField(name, value) {
  if (typeof value !== 'boolean') throw invalid(`'${name}' must be true or false`);
  return value;
}
