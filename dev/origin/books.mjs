// One book: reading it, and the writes on it: create, replace, change, delete, a new chapter, a view.
//
// Each write is one statement (after a look at the authors it names), so it happens wholly or not at all. There is no
// login here but for a reader's own view: who may write is the business of a real backend.
// Always: the answer to a write names `book_id`, `category` and `parent_category` as they are after it, and, when a
// change may have moved the book, `previous_category` and `previous_parent_category`: what a cache has to purge.

import { childByNameOrSlug } from './categories.mjs';
import { BOOK_COLUMNS, accessConfig, readableBook, withDetails } from './book_view.mjs';
import { RequestError, booleanField, listField, readJsonObject, textField, urlField } from './input.mjs';

const WRITTEN_COLUMNS = `${BOOK_COLUMNS}, is_public, updated_at`;
const qualified = WRITTEN_COLUMNS.split(', ').map((column) => `new.${column}`).join(', ');

/** The fields a client may set: how each is checked, and what it is when a whole book leaves it out. */
const FIELDS = {
  title: { check: (value) => textField('title', value, { least: 1, most: 300 }) },
  category: { check: categoryField },
  authors: { check: (value) => listField('authors', value, { least: 1, most: 10, mostEach: 64 }) },
  description: { check: (value) => textField('description', value, { most: 5_000 }), fallback: '' },
  cover_url: { check: (value) => urlField('cover_url', value), fallback: '' },
  tags: { check: (value) => listField('tags', value, { most: 20, mostEach: 60 }), fallback: [] },
  is_public: { check: (value) => booleanField('is_public', value), fallback: true },
};

function categoryField(value) {
  const child = childByNameOrSlug(textField('category', value, { least: 1, most: 100 }));
  if (child === undefined) throw new RequestError(422, 'invalid_value', "'category' must be the name or slug of a child category");
  return child;
}

const unknownBook = () => new RequestError(404, 'unknown_book', 'there is no such book');

/** The checked fields of a body. A whole book needs every field without a fallback; a part needs one field or more. */
function bookFields(body, { whole }) {
  const fields = {};
  for (const [name, { check, fallback }] of Object.entries(FIELDS)) {
    if (Object.hasOwn(body, name)) fields[name] = check(body[name]);
    else if (whole && fallback === undefined) throw new RequestError(422, 'invalid_value', `'${name}' is required`);
    else if (whole) fields[name] = fallback;
  }
  if (Object.keys(fields).length === 0) throw new RequestError(422, 'invalid_value', `nothing to change: give one of ${Object.keys(FIELDS).join(', ')}`);
  return fields;
}

/** In the order of the write statements' parameters; null is "as it was". */
const fieldValues = (fields) => [fields.title, fields.category?.name, fields.category?.parent_id, fields.authors, fields.description,
  fields.cover_url, fields.tags, fields.is_public].map((value) => value ?? null);

async function authorsMustExist(session, authors) {
  if (authors === undefined) return;
  const { total } = await session.row('SELECT count(*)::int AS total FROM book_authors WHERE author_id = ANY($1::text[])', [authors]);
  if (total !== authors.length) throw new RequestError(422, 'invalid_value', "'authors' names an author who does not exist");
}

/** GET /api/v1/community/books/{id} */
export async function readBook({ session, params }) {
  const book = await readableBook(session, params.id);
  if (book === undefined) throw unknownBook();
  return { body: { ...(await withDetails(session, book)), access_config: await accessConfig(session, book.book_id) } };
}

/** POST /api/v1/community/books */
export async function createBook({ session, request, clock }) {
  const fields = bookFields(await readJsonObject(request), { whole: true });
  await authorsMustExist(session, fields.authors);
  const book = await session.row(
    `WITH book AS (
       INSERT INTO online_books (title, category, parent_category, authors, description, cover_url, tags, is_public,
         total_views, average_rating, created_at, updated_at, last_chapter_updated_at)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, $9, $9, $9) RETURNING ${WRITTEN_COLUMNS}
     ), access AS (
       INSERT INTO book_access_configs SELECT book_id, 'free', 0, 0 FROM book
     ) SELECT * FROM book`,
    [...fieldValues(fields), new Date(clock())],
  );
  return { status: 201, body: book, headers: { Location: `/api/v1/community/books/${book.book_id}` } };
}

const changeBook = (whole) => async ({ session, params, request, clock }) => {
  const fields = bookFields(await readJsonObject(request), { whole });
  await authorsMustExist(session, fields.authors);
  const book = await session.row(
    `UPDATE online_books SET title = coalesce($1, title), category = coalesce($2, category), parent_category = coalesce($3, parent_category),
       authors = coalesce($4, authors), description = coalesce($5, description), cover_url = coalesce($6, cover_url),
       tags = coalesce($7, tags), is_public = coalesce($8, is_public), updated_at = $9
     WHERE book_id = $10 AND deleted_at IS NULL
     RETURNING ${qualified}, old.category AS previous_category, old.parent_category AS previous_parent_category`,
    [...fieldValues(fields), new Date(clock()), params.id],
  );
  if (book === undefined) throw unknownBook();
  return { body: book };
};

/** PUT /api/v1/community/books/{id} */
export const replaceBook = changeBook(true);

/** PATCH /api/v1/community/books/{id} */
export const patchBook = changeBook(false);

/** DELETE /api/v1/community/books/{id}: marks it deleted, as today's code does. */
export async function deleteBook({ session, params, clock }) {
  const book = await session.row(
    `UPDATE online_books SET deleted_at = $2, updated_at = $2 WHERE book_id = $1 AND deleted_at IS NULL
     RETURNING book_id, category, parent_category, deleted_at`,
    [params.id, new Date(clock())],
  );
  if (book === undefined) throw unknownBook();
  return { body: book };
}

/** POST /api/v1/community/books/{id}/chapters */
export async function addChapter({ session, params, request, clock }) {
  const body = await readJsonObject(request);
  const title = textField('title', body.title, { least: 1, most: 300 });
  const content = body.content === undefined ? '' : textField('content', body.content, { most: 50_000 });
  const chapter = await session.row(
    `WITH book AS (
       UPDATE online_books SET last_chapter_updated_at = $4, updated_at = $4 WHERE book_id = $1 AND deleted_at IS NULL
       RETURNING book_id, category, parent_category
     ), chapter AS (
       INSERT INTO book_chapters (book_id, chapter_number, title, content, updated_at)
       SELECT book_id, (SELECT coalesce(max(chapter_number), 0) + 1 FROM book_chapters WHERE book_id = $1), $2, $3, $4 FROM book
       RETURNING chapter_id, chapter_number, title, updated_at
     ) SELECT * FROM book, chapter`,
    [params.id, title, content, new Date(clock())],
  );
  if (chapter === undefined) throw unknownBook();
  return { status: 201, body: chapter };
}

/** POST /api/v1/community/books/{id}/view: the direct database write for each view that plan 4 wants to be rid of. */
export async function viewBook({ session, params, request, clock, reader }) {
  const body = await readJsonObject(request, { optional: true });
  const userId = body.user_id === undefined ? (reader ?? 'anonymous') : textField('user_id', body.user_id, { least: 1, most: 64 });
  const book = await session.row(
    `WITH book AS (
       UPDATE online_books SET total_views = total_views + 1 WHERE book_id = $1 AND is_public AND deleted_at IS NULL
       RETURNING book_id, category, parent_category, total_views
     ), view AS (
       INSERT INTO book_view_sessions (book_id, user_id, viewed_at) SELECT book_id, $2, $3 FROM book
     ) SELECT * FROM book`,
    [params.id, userId, new Date(clock())],
  );
  if (book === undefined) throw unknownBook();
  return { status: 201, body: book };
}
