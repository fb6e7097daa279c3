// The listings of books and categories, as plan 2 describes them today: sort, scan, and look up book by book.
//
// Reads only; featured authors and tags are in authors.mjs, writes in books.mjs.
// Statements (pinned by tests/dev/origin-statements.test.mjs; A is the number of authors of the books in the answer):
//   category tree 33 | parent 1 + A + books | child 1 + A | search, latest, top 1 + A + 2 x books
//   featured week 2 + A + 3 x books | trending today 1 + A + 3 x books
// The total of a paged listing is counted within its one statement; only a page beyond the end asks for it again.
// Always: private and deleted books are in no answer and no count; equal values are ordered by book id.

import { PARENT_CATEGORIES, childByNameOrSlug, childBySlug, parentById } from './categories.mjs';
import { BOOK_COLUMNS, eachBook, readableBook, withAccess, withAuthors, withDetails } from './book_view.mjs';
import { RequestError, queryChoice, queryInteger, queryText } from './input.mjs';

const PUBLIC = 'is_public AND deleted_at IS NULL';
const PAGE_SIZE = 20;
const MAX_PAGE = 1_000;
const MAX_SKIP = 100_000;
const WEEK_MS = 7 * 86_400_000;

const SORTS = {
  views: 'total_views DESC, book_id',
  newest: 'created_at DESC, book_id',
  latest: 'last_chapter_updated_at DESC, book_id',
  rating: 'average_rating DESC, book_id',
  title: 'title, book_id',
};

/** GET /api/v1/book-categories/ */
export async function categoryTree({ session }) {
  const count = `SELECT count(*)::int AS total FROM online_books WHERE category = $1 AND ${PUBLIC}`;
  const categories = [];
  for (const parent of PARENT_CATEGORIES) {
    const children = [];
    for (const { name, slug } of parent.children) children.push({ name, slug, books_count: (await session.row(count, [name])).total });
    categories.push({ id: parent.id, name: parent.name, books_count: sum(children), children });
  }
  return { body: { categories, total: sum(categories) } };
}

const sum = (counted) => counted.reduce((total, { books_count }) => total + books_count, 0);

/** GET /api/v1/book-categories/parent/{parent_id} */
export async function topOfParent({ session, params }) {
  const parent = parentById(params.parent_id);
  if (parent === undefined) throw new RequestError(404, 'unknown_category', 'there is no such parent category');
  const found = await session.rows(
    `SELECT ${BOOK_COLUMNS} FROM online_books WHERE category = ANY($1::text[]) AND ${PUBLIC} ORDER BY ${SORTS.views} LIMIT 5`,
    [parent.children.map((child) => child.name)],
  );
  const books = await eachBook(session, found, withAccess);
  return { body: { parent: { id: parent.id, name: parent.name }, books, total: books.length } };
}

/** GET /api/v1/book-categories/child/{slug} */
export async function booksOfChild({ session, params, query }) {
  const child = childBySlug(params.slug);
  if (child === undefined) throw new RequestError(404, 'unknown_category', 'there is no such child category');
  const order = queryChoice(query, 'sort', SORTS, 'views');
  const page = queryInteger(query, 'page', { fallback: 1, least: 1, most: MAX_PAGE });
  const found = await pageOfBooks(session, { where: [`category = $1`], values: [child.name], order, limit: PAGE_SIZE, skip: (page - 1) * PAGE_SIZE });
  const books = await eachBook(session, found.books, withAuthors);
  return { body: { category: child, books, total: found.total, page, limit: PAGE_SIZE } };
}

/** GET /api/v1/community/books/search */
export async function search({ session, query }) {
  const order = queryChoice(query, 'sort_by', SORTS, 'latest');
  const limit = queryInteger(query, 'limit', { fallback: PAGE_SIZE, least: 1, most: 100 });
  const page = queryInteger(query, 'page', { fallback: 1, least: 1, most: MAX_PAGE });
  const skip = queryInteger(query, 'skip', { fallback: (page - 1) * limit, least: 0, most: MAX_SKIP });
  const found = await pageOfBooks(session, { ...searchFilter(query), order, limit, skip });
  const books = await eachBook(session, found.books, withDetails);
  return { body: { books, total: found.total, skip, limit } };
}

/** A category is a parent's id, or a child's name or slug; one that does not exist matches no book, as today. */
function searchFilter(query) {
  const where = [];
  const values = [];
  const add = (condition, value) => where.push(condition(`$${values.push(value)}`));
  const category = queryText(query, 'category');
  if (category !== undefined && parentById(category) !== undefined) add((slot) => `parent_category = ${slot}`, category);
  else if (category !== undefined) add((slot) => `category = ${slot}`, childByNameOrSlug(category)?.name ?? category);
  const words = queryText(query, 'q');
  if (words !== undefined) add((slot) => `title ILIKE ${slot}`, `%${words.replace(/[\\%_]/g, '\\$&')}%`);
  const tags = (queryText(query, 'tags') ?? '').split(',').map((tag) => tag.trim()).filter((tag) => tag !== '');
  if (tags.length > 0) add((slot) => `tags && ${slot}::text[]`, tags);
  return { where, values };
}

/** One page of public books and the number of all that match. `where` and `order` are constants of this file. */
async function pageOfBooks(session, { where, values, order, limit, skip }) {
  const matching = `FROM online_books WHERE ${[...where, PUBLIC].join(' AND ')}`;
  const rows = await session.rows(
    `SELECT ${BOOK_COLUMNS}, total FROM (
       SELECT book_id, count(*) OVER ()::int AS total ${matching}
       ORDER BY ${order} LIMIT $${values.length + 1} OFFSET $${values.length + 2}
     ) AS page JOIN online_books USING (book_id) ORDER BY ${order}`,
    [...values, limit, skip],
  );
  const beyond = rows.length === 0 && skip > 0;
  const total = beyond ? (await session.row(`SELECT count(*)::int AS total ${matching}`, values)).total : (rows[0]?.total ?? 0);
  return { books: rows.map(({ total: _, ...book }) => book), total };
}

/** GET /api/v1/community/books/latest */
export const latest = (context) => firstBooks(context, SORTS.latest, 20);

/** GET /api/v1/community/books/top */
export const top = (context) => firstBooks(context, SORTS.views, 10);

async function firstBooks({ session }, order, limit) {
  const found = await session.rows(`SELECT ${BOOK_COLUMNS} FROM online_books WHERE ${PUBLIC} ORDER BY ${order} LIMIT $1`, [limit]);
  const books = await eachBook(session, found, withDetails);
  return { body: { books, total: books.length } };
}

/**
 * GET /api/v1/community/books/featured-week: 2 by views and 1 by purchases of the last 7 days.
 * As in the plan, views are limited to 2 before the books are looked up: one deleted meanwhile leaves its place empty.
 */
export async function featuredWeek({ session, clock }) {
  const until = clock();
  const range = [new Date(until - WEEK_MS), new Date(until)];
  const viewed = await session.rows(
    `SELECT book_id, count(*)::int AS views_this_week FROM book_view_sessions
     WHERE viewed_at >= $1 AND viewed_at <= $2 GROUP BY book_id ORDER BY views_this_week DESC, book_id LIMIT 2`,
    range,
  );
  const bought = await session.rows(
    `SELECT book_id, count(*)::int AS purchases_this_week FROM book_purchases
     WHERE purchased_at >= $1 AND purchased_at <= $2 GROUP BY book_id ORDER BY purchases_this_week DESC, book_id LIMIT 10`,
    range,
  );
  const books = await detailsOf(session, viewed, 2);
  const shown = new Set(viewed.map(({ book_id }) => book_id));
  books.push(...(await detailsOf(session, bought.filter(({ book_id }) => !shown.has(book_id)), 1)));
  return { body: { books, total: books.length } };
}

/** GET /api/v1/community/books/trending-today: 5 by views of the running UTC day. */
export async function trendingToday({ session, clock }) {
  const date = new Date(clock()).toISOString().slice(0, 10);
  const midnight = new Date(`${date}T00:00:00Z`);
  const viewed = await session.rows(
    `SELECT book_id, count(*)::int AS views_today FROM book_view_sessions
     WHERE viewed_at >= $1 AND viewed_at < $2 GROUP BY book_id ORDER BY views_today DESC, book_id LIMIT 5`,
    [midnight, new Date(midnight.getTime() + 86_400_000)],
  );
  const books = await detailsOf(session, viewed, 5);
  return { body: { date, books, total: books.length } };
}

/** The first `limit` of the counted books that may be read, in full, each with its count. */
async function detailsOf(session, counted, limit) {
  const books = [];
  for (const { book_id, ...count } of counted) {
    if (books.length === limit) break;
    const book = await readableBook(session, book_id);
    if (book !== undefined) books.push({ ...(await withDetails(session, book)), ...count });
  }
  return books;
}
