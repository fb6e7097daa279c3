// Guarantee: each listing of the sample origin executes exactly the statements that plan 2 counts for it today, so that
// the slow side of the benchmark is neither flattered nor slowed. The arithmetic is the plan's; the number of authors of
// each book in an answer is asked of the database itself, beside the API.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { CHILD_CATEGORIES, PARENT_CATEGORIES } from '../../dev/origin/categories.mjs';
import { startOrigin } from '../../dev/origin/server.mjs';

const NOON = Date.UTC(2026, 1, 9, 12);
let origin;

before(async () => {
  origin = await startOrigin({ now: () => NOON });
});
after(() => origin.close());

async function get(path) {
  const response = await fetch(origin.url + path);
  assert.equal(response.status, 200, path);
  const body = await response.json();
  const statements = Number(response.headers.get('x-sql-statements'));
  assert.equal(origin.stats.lastStatements.length, statements, 'the header and stats tell the same');
  return { body, statements, texts: origin.stats.lastStatements };
}

/** The sum of the lengths of the author lists of these books, as stored. */
async function authorsOf(books) {
  const ids = books.map((book) => book.book_id);
  const [{ total }] = await origin.query('SELECT sum(cardinality(authors))::int AS total FROM online_books WHERE book_id = ANY($1)', [ids]);
  return total;
}

const about = (texts, table) => texts.filter((text) => new RegExp(`FROM ${table}\\b`).test(text)).length;

test('the category tree makes 33 counts, one for each child of 11 parents', async () => {
  const { statements, texts } = await get('/api/v1/book-categories/');
  assert.equal(PARENT_CATEGORIES.length, 11);
  assert.equal(CHILD_CATEGORIES.length, 33);
  assert.equal(statements, 33);
  assert.ok(texts.every((text) => /^SELECT count\(\*\)/.test(text)));
});

test('the top of each parent makes 1 query, 1 for each author of 5 books and 5 for access', async () => {
  for (const { id } of PARENT_CATEGORIES) {
    const { body, statements, texts } = await get(`/api/v1/book-categories/parent/${id}`);
    assert.equal(body.books.length, 5);
    assert.equal(statements, 1 + (await authorsOf(body.books)) + 5);
    assert.equal(about(texts, 'book_access_configs'), 5);
  }
});

test('a page of a child category makes 1 query and 1 for each author of 20 books', async () => {
  for (const query of ['', '?sort=newest&page=2', '?sort=rating', '?sort=title']) {
    const { body, statements } = await get(`/api/v1/book-categories/child/kinh-te-quan-ly${query}`);
    assert.equal(body.books.length, 20);
    assert.equal(statements, 1 + (await authorsOf(body.books)));
  }
});

for (const [name, path, books] of [
  ['search', '/api/v1/community/books/search?category=business&sort_by=views&limit=20', 20],
  ['a search with every filter', '/api/v1/community/books/search?category=literature&q=h&tags=thien,marketing,tam-ly,lich-su,suc-khoe&sort_by=rating&limit=7&page=2', 7],
  ['latest', '/api/v1/community/books/latest', 20],
  ['top', '/api/v1/community/books/top', 10],
]) {
  test(`${name} makes 1 query, and for each book 1 for each author, 1 for its last chapters and 1 for their count`, async () => {
    const { body, statements, texts } = await get(path);
    assert.equal(body.books.length, books);
    assert.equal(statements, 1 + (await authorsOf(body.books)) + books + books);
    assert.equal(about(texts, 'book_chapters'), 2 * books);
  });
}

test('featured authors make 3 pipelines and 4 queries for each of 10 authors', async () => {
  const { body, statements, texts } = await get('/api/v1/community/authors/featured');
  assert.equal(body.authors.length, 10);
  assert.equal(statements, 3 + 4 * 10);
  for (const table of ['book_authors', 'author_follows']) assert.equal(about(texts, table), 10);
  assert.equal(about(texts, 'author_reviews'), 10 + 1);
});

test('the featured books of the week make 2 pipelines, and for each of 3 books 1 for itself and the N+1 of the others', async () => {
  const { body, statements, texts } = await get('/api/v1/community/books/featured-week');
  assert.equal(body.books.length, 3);
  assert.equal(statements, 2 + 3 + (await authorsOf(body.books)) + 3 + 3);
  assert.equal(about(texts, 'book_view_sessions'), 1);
  assert.equal(about(texts, 'book_purchases'), 1);
});

test('trending today makes 1 pipeline, and for each of 5 books 1 for itself and the N+1 of the others', async () => {
  const { body, statements, texts } = await get('/api/v1/community/books/trending-today');
  assert.equal(body.books.length, 5);
  assert.equal(statements, 1 + 5 + (await authorsOf(body.books)) + 5 + 5);
  assert.equal(about(texts, 'book_view_sessions'), 1);
});

test('popular tags make 1 pipeline', async () => {
  const { body, statements } = await get('/api/v1/community/tags/popular');
  assert.equal(body.tags.length, 25);
  assert.equal(statements, 1);
});

test('a book has 2 authors on average, as the plan reckons, and no index is there that the plan says is missing', async () => {
  const [{ average }] = await origin.query('SELECT avg(cardinality(authors))::float8 AS average FROM online_books');
  assert.ok(Math.abs(average - 2) < 0.05, `${average} authors a book`);
  const indexes = await origin.query("SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1");
  assert.deepEqual(indexes.map(({ indexname }) => indexname), ['author_follows_pkey', 'author_reviews_by_author', 'author_reviews_pkey', 'book_access_configs_pkey',
    'book_authors_pkey', 'book_chapters_by_book', 'book_chapters_pkey', 'book_purchases_pkey', 'book_view_sessions_pkey', 'online_books_pkey', 'saved_books_pkey']);
});

test('the counter of all statements grows by what each request says', async () => {
  const before = origin.stats.statements;
  const { statements } = await get('/api/v1/community/books/top');
  assert.equal(origin.stats.statements, before + statements);
  assert.ok(origin.stats.requests['GET /api/v1/community/books/top'] >= 2);
});
