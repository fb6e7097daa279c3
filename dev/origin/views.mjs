// Counts of views: batches that the edge sends, the totals that they make, and stories and chapters that are read.
//
// A batch is taken whole or not at all, in one transaction: its key goes into a table of keys, and each kind's counts are one
// UPDATE. A key that is there already changes nothing and answers the totals of now. Ids that are no item, and kinds that
// nobody keeps, are taken and change nothing: what the edge cannot get rid of it would send for ever.
// Always: `/internal/` is not for visitors, whose requests carry X-Forwarded-For; the edge's own carry none.

import { RequestError, queryChoice, readJsonObject, textField } from './input.mjs';

/** A thousand items of ids as long as the edge counts. */
const MAX_BATCH_BYTES = 512 * 1024;
const MAX_COUNTS = 1_000;
const MAX_ID = 128;
const MAX_COUNT = 1_000_000_000;
const STORIES = 500;

/** Beside plan 2's tables, which are a snapshot; out of `public`, whose indexes are the plan's. */
export const VIEW_TABLES = `
CREATE SCHEMA views;
CREATE TABLE views.batches (batch text PRIMARY KEY, taken_at timestamptz NOT NULL);
CREATE TABLE views.stories (story_id text PRIMARY KEY, title text NOT NULL, total_views integer NOT NULL);
INSERT INTO views.stories SELECT 'story-' || n, 'Story ' || n, 0 FROM generate_series(1, ${STORIES}) n;
ALTER TABLE book_chapters ADD COLUMN total_views integer NOT NULL DEFAULT 0;
`;

/** Table and key of each kind. */
const KINDS = {
  story: { table: 'views.stories', key: 'story_id' },
  book: { table: 'online_books', key: 'book_id' },
  chapter: { table: 'book_chapters', key: 'chapter_id' },
};

function notForVisitors(request) {
  if (request.headers['x-forwarded-for'] !== undefined) throw new RequestError(403, 'internal', 'this path is not for visitors');
}

/** `{ batch, kinds }` of a body: for each kind its ids and how often each was viewed. */
function checkedBatch(body) {
  const batch = textField('batch', body.batch, { least: 1, most: 200 });
  const { counts } = body;
  if (!Array.isArray(counts) || counts.length > MAX_COUNTS) throw new RequestError(422, 'invalid_value', `'counts' must be a list of at most ${MAX_COUNTS}`);
  const kinds = new Map();
  for (const { kind, id, count } of counts) {
    const name = textField('kind', kind, { least: 1, most: 64 });
    const of = kinds.get(name) ?? new Map();
    kinds.set(name, of);
    if (!Number.isSafeInteger(count) || count < 1 || count > MAX_COUNT) throw new RequestError(422, 'invalid_value', "'count' must be a whole number above 0");
    const item = textField('id', id, { least: 1, most: MAX_ID });
    of.set(item, (of.get(item) ?? 0) + count);
  }
  return { batch, kinds };
}

/** POST /internal/views/batch */
export async function takeBatch({ session, request, clock }) {
  notForVisitors(request);
  const { batch, kinds } = checkedBatch(await readJsonObject(request, { most: MAX_BATCH_BYTES }));
  if (request.headers['idempotency-key'] !== batch) throw new RequestError(400, 'bad_key', 'Idempotency-Key must be the batch');
  const totals = await session.transaction(async (within) => {
    const taken = await within.row('INSERT INTO views.batches (batch, taken_at) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING batch', [batch, new Date(clock())]);
    const all = [];
    for (const [kind, counts] of kinds) {
      if (!Object.hasOwn(KINDS, kind)) continue;
      const { table, key } = KINDS[kind];
      const rows = taken === undefined
        ? await within.rows(`SELECT ${key} AS id, total_views AS total FROM ${table} WHERE ${key} = ANY($1::text[])`, [[...counts.keys()]])
        : await within.rows(
          `UPDATE ${table} AS item SET total_views = item.total_views + viewed.count
             FROM unnest($1::text[], $2::int[]) AS viewed (id, count) WHERE item.${key} = viewed.id
           RETURNING viewed.id, item.total_views AS total`,
          [[...counts.keys()], [...counts.values()]],
        );
      all.push(...rows.map(({ id, total }) => ({ kind, id, total })));
    }
    return all;
  });
  return { body: { batch, totals } };
}

/** GET /internal/views/totals?kind=story: the most viewed first. */
export async function viewTotals({ session, request, query }) {
  notForVisitors(request);
  const kind = queryChoice(query, 'kind', { story: 'story', book: 'book', chapter: 'chapter' }, 'story');
  const { table, key } = KINDS[kind];
  const totals = await session.rows(`SELECT ${key} AS id, total_views AS total FROM ${table} WHERE total_views > 0 ORDER BY total_views DESC, ${key} LIMIT ${MAX_COUNTS}`);
  return { body: { kind, totals } };
}

/** GET /api/v1/stories/{id} */
export async function readStory({ session, params }) {
  const story = await session.row('SELECT story_id, title, total_views FROM views.stories WHERE story_id = $1', [params.id]);
  if (story === undefined) throw new RequestError(404, 'unknown_story', 'there is no such story');
  return { body: story };
}

/** GET /api/v1/community/books/{id}/chapters/{chapter} */
export async function readChapter({ session, params }) {
  const chapter = await session.row(
    `SELECT chapter_id, book_id, chapter_number, chapter.title, content, chapter.updated_at, chapter.total_views
       FROM book_chapters AS chapter JOIN online_books AS book USING (book_id)
      WHERE book_id = $1 AND chapter_id = $2 AND chapter.deleted_at IS NULL AND book.is_public AND book.deleted_at IS NULL`,
    [params.id, params.chapter],
  );
  if (chapter === undefined) throw new RequestError(404, 'unknown_chapter', 'there is no such chapter');
  return { body: chapter };
}
