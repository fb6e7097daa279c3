// What is one reader's own: saved books, reading history, purchases, and the writes that change them.
//
// Who asks is the `sub` of an HS256 token signed with the origin's secret; without a secret, or a token that is right and
// not over, nobody does. The saved books of all readers are empty when the origin starts.
// Statements: a list 1 + A, where A is the number of authors of its books.
// Always: a list is of at most 50 books, the last one first, and private; a write without a reader is 401.

import { createHmac, timingSafeEqual } from 'node:crypto';
import { BOOK_COLUMNS, eachBook, withAuthors } from './book_view.mjs';
import { RequestError } from './input.mjs';

/** Beside the seeded tables, so that their snapshot stays as it is. */
export const SAVED_BOOKS = `
CREATE TABLE saved_books (
  user_id text NOT NULL,
  book_id text NOT NULL,
  saved_at timestamptz NOT NULL,
  PRIMARY KEY (user_id, book_id)
)`;

const MAX_BOOKS = 50;
const READABLE = 'is_public AND deleted_at IS NULL';

/** The verified reader of a request, or undefined. */
export function readerOf(request, secret, nowMs) {
  const [, head, signature] = /^bearer +([\w-]+\.[\w-]+)\.([\w-]+)$/i.exec(request.headers.authorization ?? '') ?? [];
  if (secret === undefined || head === undefined) return undefined;
  const right = createHmac('sha256', secret).update(head).digest();
  const given = Buffer.from(signature, 'base64url');
  if (given.length !== right.length || !timingSafeEqual(given, right)) return undefined;
  try {
    const [header, claims] = head.split('.').map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()));
    const isRight = header.alg === 'HS256' && typeof claims.sub === 'string' && claims.sub !== '' && !claims.sub.includes('\0');
    const isNow = (claims.exp ?? Infinity) * 1000 > nowMs && (claims.nbf ?? 0) * 1000 <= nowMs;
    return isRight && isNow ? claims.sub : undefined;
  } catch {
    return undefined;
  }
}

/** A private list; it says which credentials reached the origin, never what they were. */
const list = (sql) => async ({ request, session, reader }) => {
  const rows = reader === undefined ? [] : await session.rows(`SELECT ${BOOK_COLUMNS}, at FROM (${sql}) AS own JOIN online_books USING (book_id)
    WHERE ${READABLE} ORDER BY at DESC, book_id LIMIT ${MAX_BOOKS}`, [reader]);
  const books = await eachBook(session, rows, withAuthors);
  const { cookie, authorization } = request.headers;
  const received = { cookie: cookie !== undefined, authorization: authorization !== undefined };
  return { body: { books, total: books.length, received }, headers: { 'Cache-Control': 'private' } };
};

/** GET /api/v1/community/me/saved */
export const savedBooks = list('SELECT book_id, saved_at AS at FROM saved_books WHERE user_id = $1');

/** GET /api/v1/community/me/history */
export const history = list('SELECT book_id, max(viewed_at) AS at FROM book_view_sessions WHERE user_id = $1 GROUP BY book_id');

/** GET /api/v1/community/me/purchases */
export const purchases = list('SELECT book_id, max(purchased_at) AS at FROM book_purchases WHERE user_id = $1 GROUP BY book_id');

const write = (sql, status) => async ({ session, params, clock, reader }) => {
  if (reader === undefined) throw new RequestError(401, 'no_reader', 'this needs a reader: send his token', { 'WWW-Authenticate': 'Bearer' });
  const book = await session.row(sql, [params.id, reader, new Date(clock())]);
  if (book === undefined) throw new RequestError(404, 'unknown_book', 'there is no such book');
  return { status, body: book };
};

const BOOK = `SELECT book_id FROM online_books WHERE book_id = $1 AND ${READABLE}`;

/** POST /api/v1/community/books/{id}/save: again and again is once. */
export const saveBook = write(`WITH book AS (${BOOK}), saved AS (
    INSERT INTO saved_books SELECT $2, book_id, $3 FROM book ON CONFLICT (user_id, book_id) DO UPDATE SET saved_at = excluded.saved_at
  ) SELECT book_id, true AS saved FROM book`, 201);

/** DELETE /api/v1/community/books/{id}/save */
export const unsaveBook = write(`WITH book AS (SELECT book_id FROM online_books WHERE book_id = $1 AND $3::timestamptz IS NOT NULL), gone AS (
    DELETE FROM saved_books WHERE book_id = $1 AND user_id = $2
  ) SELECT book_id, false AS saved FROM book`, 200);

/** POST /api/v1/community/books/{id}/purchase */
export const buyBook = write(`WITH book AS (${BOOK}) INSERT INTO book_purchases (purchase_id, book_id, user_id, price_points, purchased_at)
  SELECT (SELECT coalesce(max(purchase_id), 0) + 1 FROM book_purchases), book_id, $2,
    coalesce((SELECT price_points FROM book_access_configs WHERE book_id = $1), 0), $3 FROM book
  RETURNING book_id, price_points, purchased_at`, 201);
