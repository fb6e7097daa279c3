// Guarantee: the sample origin's answers are right against the database asked beside it, its writes have real effects, and
// whatever a client sends is answered with a 4xx and never ends the process.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import { WebSocket } from 'ws';
import { CHILD_CATEGORIES, slugOf } from '../../dev/origin/categories.mjs';
import { startOrigin } from '../../dev/origin/server.mjs';

const NOON = Date.UTC(2026, 1, 9, 12);
const BOOKS = '/api/v1/community/books';
let origin;
let nowMs = NOON;

before(async () => {
  origin = await startOrigin({ now: () => nowMs });
});
after(() => origin.close());

async function send(method, path, body, headers = {}) {
  const response = await fetch(origin.url + path, { method, headers, body: body === undefined || typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body) });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text === '' ? undefined : JSON.parse(text) };
}

async function get(path) {
  const answer = await send('GET', path);
  assert.equal(answer.status, 200, `${path}: ${JSON.stringify(answer.body)}`);
  return answer.body;
}

/** Every public book that is not deleted, straight from the table. */
async function readableBooks() {
  return origin.query('SELECT *, created_at::text, last_chapter_updated_at::text FROM online_books WHERE is_public AND deleted_at IS NULL');
}

const ids = (books) => books.map((book) => book.book_id);
const byText = (left, right) => (left < right ? -1 : left > right ? 1 : 0);
const descending = (value) => (left, right) => byText(value(right), value(left)) || byText(left.book_id, right.book_id);
const counted = (items) => {
  const counts = new Map();
  for (const item of items) counts.set(item, (counts.get(item) ?? 0) + 1);
  return [...counts].sort(([left, leftCount], [right, rightCount]) => rightCount - leftCount || byText(left, right));
};

async function aNewBook(fields = {}) {
  const answer = await send('POST', BOOKS, { title: 'Sách mới', category: 'kinh-te-quan-ly', authors: ['author-1', 'author-2'], ...fields });
  assert.equal(answer.status, 201, JSON.stringify(answer.body));
  return answer.body;
}

test('the category tree counts what the table holds', async () => {
  const books = await readableBooks();
  const { categories, total } = await get('/api/v1/book-categories/');
  assert.equal(total, books.length);
  for (const parent of categories) {
    assert.equal(parent.books_count, books.filter((book) => book.parent_category === parent.id).length);
    for (const child of parent.children) assert.equal(child.books_count, books.filter((book) => book.category === child.name).length);
  }
});

test('top, latest, the parents and a child category are sorted as their names say, and hold readable books only', async () => {
  const books = await readableBooks();
  const byViews = [...books].sort(descending((book) => book.total_views));
  const byChapter = [...books].sort(descending((book) => book.last_chapter_updated_at));
  assert.deepEqual(ids((await get(`${BOOKS}/top`)).books), ids(byViews.slice(0, 10)));
  assert.deepEqual(ids((await get(`${BOOKS}/latest`)).books), ids(byChapter.slice(0, 20)));
  for (const parent of ['business', 'education', 'spirituality']) {
    const expected = byViews.filter((book) => book.parent_category === parent).slice(0, 5);
    assert.deepEqual(ids((await get(`/api/v1/book-categories/parent/${parent}`)).books), ids(expected));
  }
  const inChild = [...books].sort(descending((book) => book.created_at)).filter((book) => book.category === 'Kinh Tế - Quản Lý');
  const page = await get('/api/v1/book-categories/child/kinh-te-quan-ly?sort=newest&page=3');
  assert.deepEqual(ids(page.books), ids(inChild.slice(40, 60)));
  assert.equal(page.total, inChild.length);
  const beyond = await get('/api/v1/book-categories/child/kinh-te-quan-ly?page=1000');
  assert.deepEqual([beyond.books.length, beyond.total], [0, inChild.length]);
});

test('search filters by category, words and tags, sorts, and pages', async () => {
  const books = await readableBooks();
  const rated = [...books].sort(descending((book) => book.average_rating));
  const tag = books[0].tags[0];
  const cases = [
    ['category=business&sort_by=rating&limit=20', (book) => book.parent_category === 'business'],
    [`category=${encodeURIComponent('Tiểu Thuyết')}&sort_by=rating&limit=20`, (book) => book.category === 'Tiểu Thuyết'],
    [`q=${encodeURIComponent('bí mật')}&sort_by=rating&limit=20`, (book) => book.title.toLowerCase().includes('bí mật')],
    [`tags=${tag}&sort_by=rating&limit=20`, (book) => book.tags.includes(tag)],
    ['q=%25&sort_by=rating&limit=20', (book) => book.title.includes('%')],
    ['category=nowhere&sort_by=rating&limit=20', () => false],
  ];
  for (const [query, matches] of cases) {
    const expected = rated.filter(matches);
    const answer = await get(`${BOOKS}/search?${query}`);
    assert.deepEqual(ids(answer.books), ids(expected.slice(0, 20)), query);
    assert.equal(answer.total, expected.length, query);
  }
  const inBusiness = ids(rated.filter((book) => book.parent_category === 'business'));
  assert.deepEqual(ids((await get(`${BOOKS}/search?category=business&sort_by=rating&limit=7&page=3`)).books), inBusiness.slice(14, 21));
  assert.deepEqual(ids((await get(`${BOOKS}/search?category=business&sort_by=rating&limit=7&skip=5`)).books), inBusiness.slice(5, 12));
});

test('a listed book shows its authors by name, its two last chapters and how many it has', async () => {
  for (const book of (await get(`${BOOKS}/top`)).books) {
    const authors = await origin.query('SELECT author_id, name FROM book_authors WHERE author_id = ANY($1)', [book.authors]);
    assert.deepEqual(book.author_names, book.authors.map((id) => authors.find((author) => author.author_id === id).name));
    const chapters = await origin.query('SELECT chapter_id FROM book_chapters WHERE book_id = $1 AND deleted_at IS NULL ORDER BY updated_at DESC, chapter_number DESC', [book.book_id]);
    assert.equal(book.total_chapters, chapters.length);
    assert.deepEqual(book.recent_chapters.map((chapter) => chapter.chapter_id), chapters.slice(0, 2).map((chapter) => chapter.chapter_id));
  }
});

test('the week and the day count sessions of the last seven days and of the UTC day', async () => {
  const sessions = await origin.query('SELECT book_id, viewed_at FROM book_view_sessions');
  const weekAgo = nowMs - 7 * 86_400_000;
  const inWeek = sessions.filter(({ viewed_at }) => viewed_at >= weekAgo && viewed_at <= nowMs);
  assert.ok(inWeek.length > 60_000 && inWeek.length < sessions.length, `${inWeek.length} of ${sessions.length} sessions are of the week`);
  const views = counted(ids(inWeek));
  const sales = counted(ids(await origin.query('SELECT book_id FROM book_purchases WHERE purchased_at BETWEEN $1 AND $2', [new Date(weekAgo), new Date(nowMs)])));
  const bought = sales.slice(0, 10).find(([id]) => id !== views[0][0] && id !== views[1][0]);
  const week = (await get(`${BOOKS}/featured-week`)).books;
  assert.deepEqual(week.map((book) => [book.book_id, book.views_this_week ?? book.purchases_this_week]), [views[0], views[1], bought]);

  const midnight = Date.UTC(2026, 1, 9);
  const today = counted(ids(sessions.filter(({ viewed_at }) => viewed_at >= midnight && viewed_at < midnight + 86_400_000)));
  const trending = await get(`${BOOKS}/trending-today`);
  assert.equal(trending.date, '2026-02-09');
  assert.deepEqual(trending.books.map((book) => [book.book_id, book.views_today]), today.slice(0, 5));
});

test('featured authors and popular tags agree with counts made outside SQL', async () => {
  const books = await readableBooks();
  const reviews = await origin.query('SELECT author_id, rating FROM author_reviews');
  const { authors } = await get('/api/v1/community/authors/featured');
  assert.equal(new Set(authors.map((author) => author.author_id)).size, 10);
  assert.deepEqual(authors.map((author) => author.featured_for), [...Array(3).fill('reads'), ...Array(3).fill('reviews'), ...Array(4).fill('books')]);
  const reads = new Map();
  for (const book of books) for (const id of book.authors) reads.set(id, (reads.get(id) ?? 0) + book.total_views);
  const mostRead = [...reads].sort(([left, leftReads], [right, rightReads]) => rightReads - leftReads || byText(left, right)).map(([id]) => id);
  const chosen = mostRead.slice(0, 3);
  const loved = counted(reviews.filter(({ rating }) => rating === 5).map(({ author_id }) => author_id)).map(([id]) => id);
  chosen.push(...loved.filter((id) => !chosen.includes(id)).slice(0, 3));
  const seen = [...books].sort(descending((book) => book.total_views)).slice(0, 20).flatMap((book) => book.authors);
  chosen.push(...new Set(seen.filter((id) => !chosen.includes(id))));
  assert.deepEqual(authors.map((author) => author.author_id), chosen.slice(0, 10));
  for (const author of authors) {
    const own = reviews.filter(({ author_id }) => author_id === author.author_id).map(({ rating }) => rating);
    assert.equal(author.total_reviews, own.length);
    assert.ok(Math.abs(author.average_rating - own.reduce((sum, rating) => sum + rating, 0) / Math.max(own.length, 1)) < 0.006);
    assert.equal(author.total_books, books.filter((book) => book.authors.includes(author.author_id)).length);
    const follows = await origin.query('SELECT 1 FROM author_follows WHERE author_id = $1', [author.author_id]);
    assert.equal(author.total_followers, follows.length);
  }
  const { tags } = await get('/api/v1/community/tags/popular');
  assert.deepEqual(tags.map(({ tag, books_count }) => [tag, books_count]), counted(books.flatMap((book) => book.tags)).slice(0, 25));
});

test('a created book is there, counted and latest; changing moves it; private or deleted it is in no answer', async () => {
  nowMs += 60_000;
  const tree = await get('/api/v1/book-categories/');
  const book = await aNewBook({ category: 'Marketing - Bán hàng', tags: ['thử'] });
  assert.deepEqual([book.category, book.parent_category], ['Marketing - Bán hàng', 'business']);
  assert.equal((await get('/api/v1/book-categories/')).total, tree.total + 1);
  assert.equal((await get(`${BOOKS}/latest`)).books[0].book_id, book.book_id);
  const path = `${BOOKS}/${book.book_id}`;
  assert.equal((await get(path)).access_config.access_type, 'free');

  const moved = await send('PATCH', path, { category: 'toan-hoc' });
  assert.deepEqual([moved.status, moved.body.parent_category, moved.body.previous_parent_category], [200, 'science', 'business']);
  assert.equal(moved.body.title, book.title);
  const replaced = await send('PUT', path, { title: 'Khác', category: 'tho-ca', authors: ['author-3'] });
  assert.deepEqual([replaced.status, replaced.body.title, replaced.body.category, replaced.body.tags], [200, 'Khác', 'Thơ Ca', []]);
  assert.deepEqual((await get(path)).authors, ['author-3']);

  assert.equal((await send('PATCH', path, { is_public: false })).status, 200);
  assert.equal((await send('GET', path)).status, 404);
  assert.equal((await send('POST', `${path}/view`)).status, 404);
  assert.notEqual((await get(`${BOOKS}/latest`)).books[0].book_id, book.book_id);
  assert.equal((await send('PATCH', path, { is_public: true })).status, 200);
  assert.equal((await get(`${BOOKS}/latest`)).books[0].book_id, book.book_id);

  const deleted = await send('DELETE', path);
  assert.deepEqual([deleted.status, deleted.body.book_id, deleted.body.parent_category], [200, book.book_id, 'literature']);
  assert.equal((await get('/api/v1/book-categories/')).total, tree.total);
  for (const [method, sub, body] of [['GET', ''], ['DELETE', ''], ['PATCH', '', { title: 'x' }], ['POST', '/chapters', { title: 'x' }], ['POST', '/view']]) {
    assert.equal((await send(method, path + sub, body)).status, 404, `${method} ${sub}`);
  }
});

test('a new chapter makes its book the latest, and is among its last chapters', async () => {
  nowMs += 60_000;
  const target = (await get(`${BOOKS}/top`)).books[3];
  const chapter = await send('POST', `${BOOKS}/${target.book_id}/chapters`, { title: 'Chương mới' });
  assert.equal(chapter.status, 201);
  assert.deepEqual([chapter.body.book_id, chapter.body.category, chapter.body.parent_category], [target.book_id, target.category, target.parent_category]);
  const [first] = (await get(`${BOOKS}/latest`)).books;
  assert.equal(first.book_id, target.book_id);
  assert.equal(first.recent_chapters[0].chapter_id, chapter.body.chapter_id);
  assert.equal(first.total_chapters, target.total_chapters + 1);
});

test('a view is counted: it shows in trending today and in the total', async () => {
  const before = (await get(`${BOOKS}/trending-today`)).books;
  const book = await aNewBook();
  for (let view = 0; view <= before[0].views_today; view += 1) assert.equal((await send('POST', `${BOOKS}/${book.book_id}/view`)).status, 201);
  const [first] = (await get(`${BOOKS}/trending-today`)).books;
  assert.deepEqual([first.book_id, first.views_today, first.total_views], [book.book_id, before[0].views_today + 1, before[0].views_today + 1]);
  assert.equal((await send('DELETE', `${BOOKS}/${book.book_id}`)).status, 200);
  assert.ok(!ids((await get(`${BOOKS}/trending-today`)).books).includes(book.book_id));
});

test('hostile input is a 4xx in JSON and changes nothing', async () => {
  const [before] = await origin.query('SELECT count(*)::int AS books, sum(total_views)::text AS views FROM online_books');
  const good = { title: 'x', category: 'tho-ca', authors: ['author-1'] };
  const cases = [
    [400, 'POST', BOOKS, '{'], [400, 'POST', BOOKS, '[]'], [400, 'POST', BOOKS, 'null'], [400, 'POST', BOOKS, ''], [400, 'POST', BOOKS, new Uint8Array([0x22, 0xff, 0x22])],
    [413, 'POST', BOOKS, `"${'x'.repeat(70_000)}"`], [422, 'POST', BOOKS, {}], [422, 'POST', BOOKS, { ...good, title: 7 }], [422, 'POST', BOOKS, { ...good, title: 'a\0b' }],
    [422, 'POST', BOOKS, '{"title":"\\ud800","category":"tho-ca","authors":["author-1"]}'], [422, 'POST', BOOKS, { ...good, title: 'x'.repeat(301) }],
    [422, 'POST', BOOKS, { ...good, category: 'business' }], [422, 'POST', BOOKS, { ...good, authors: [] }], [422, 'POST', BOOKS, { ...good, authors: ['author-1', 'author-1'] }],
    [422, 'POST', BOOKS, { ...good, authors: ['nobody'] }], [422, 'POST', BOOKS, { ...good, cover_url: 'javascript:alert(1)' }], [422, 'POST', BOOKS, { ...good, tags: [null] }],
    [422, 'POST', BOOKS, { ...good, is_public: 'yes' }], [422, 'PATCH', `${BOOKS}/book-1`, {}], [422, 'PATCH', `${BOOKS}/book-1`, { title: null }], [422, 'PUT', `${BOOKS}/book-1`, { title: 'x' }],
    [422, 'PATCH', `${BOOKS}/book-1`, '{"__proto__":{"title":"x"}}'],
    [404, 'PATCH', `${BOOKS}/book-0`, { title: 'x' }], [404, 'DELETE', `${BOOKS}/${encodeURIComponent("' OR '1'='1")}`], [404, 'GET', `${BOOKS}/${encodeURIComponent("x'; DROP TABLE online_books; --")}`],
    [404, 'POST', `${BOOKS}/book-0/view`], [422, 'POST', `${BOOKS}/book-1/view`, { user_id: 1 }], [400, 'POST', `${BOOKS}/book-1/view`, 'x'], [422, 'POST', `${BOOKS}/book-1/chapters`, {}],
    [400, 'GET', `${BOOKS}/%`], [400, 'GET', `${BOOKS}/%ff`], [400, 'GET', `${BOOKS}/a%00b`], [400, 'GET', `${BOOKS}/${'x'.repeat(300)}`],
    [404, 'GET', '/api/v1/book-categories/parent/nowhere'], [404, 'GET', '/api/v1/book-categories/parent/__proto__'], [404, 'GET', '/api/v1/book-categories/child/constructor'],
    [404, 'GET', '/api//v1/book-categories/'], [404, 'GET', '/nothing'], [405, 'POST', '/api/v1/book-categories/'], [405, 'GET', BOOKS],
    [422, 'GET', '/api/v1/book-categories/child/tho-ca?sort=constructor'], [422, 'GET', '/api/v1/book-categories/child/tho-ca?page=0'], [422, 'GET', '/api/v1/book-categories/child/tho-ca?page=1e3'],
    [422, 'GET', `${BOOKS}/search?limit=101`], [422, 'GET', `${BOOKS}/search?limit=-1`], [422, 'GET', `${BOOKS}/search?sort_by=views;drop`], [422, 'GET', `${BOOKS}/search?skip=99999999999999999999`],
    [422, 'GET', `${BOOKS}/search?q=%00`], [422, 'GET', `${BOOKS}/search?q=${'x'.repeat(201)}`], [422, 'GET', '/api/v1/community/live?interval_ms=0'], [426, 'GET', '/api/v1/community/ws'],
  ];
  for (const [status, method, path, body] of cases) {
    const answer = await send(method, path, body);
    const told = `${method} ${path.slice(0, 80)} ${JSON.stringify(body)?.slice(0, 60)}`;
    assert.equal(answer.status, status, `${told}: ${JSON.stringify(answer.body)}`);
    assert.equal(typeof answer.body.error, 'string', told);
    assert.match(answer.headers.get('x-sql-statements'), /^\d+$/);
  }
  assert.equal((await send('GET', `${BOOKS}/search?q=${encodeURIComponent("' OR 1=1 --")}`)).body.total, 0);
  assert.deepEqual(await origin.query('SELECT count(*)::int AS books, sum(total_views)::text AS views FROM online_books'), [before]);
});

test('bytes that are no HTTP, and a client that goes in the middle, do not end the origin', async () => {
  for (const bytes of ['\0\0\0\r\n\r\n', 'GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\n\r\n', `POST ${BOOKS} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{`]) {
    await new Promise((resolve) => {
      const socket = connect(origin.port, '127.0.0.1', () => socket.write(bytes, () => setImmediate(() => socket.destroy())));
      socket.on('close', resolve);
      socket.on('error', () => {});
    });
  }
  assert.equal((await get('/')).name, 'sample origin');
});

test('HEAD answers as GET without a body, private answers say so and tell which credentials came', async () => {
  const head = await send('HEAD', '/api/v1/community/tags/popular');
  assert.deepEqual([head.status, head.body, head.headers.get('x-sql-statements')], [200, undefined, '1']);
  assert.ok(Number(head.headers.get('content-length')) > 500);
  const saved = await send('GET', '/api/v1/community/me/saved', undefined, { Cookie: 'a=b', Authorization: 'Bearer x' });
  assert.deepEqual(saved.body.received, { cookie: true, authorization: true });
  assert.equal(saved.headers.get('cache-control'), 'private');
  assert.deepEqual((await get('/api/v1/community/me/saved')).received, { cookie: false, authorization: false });
});

test('a reader is known by a token of the origin alone, and his lists are his', async () => {
  const own = await startOrigin({ now: () => nowMs, jwtSecret: 'secret' });
  try {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const token = (claims, { alg = 'HS256', secret = 'secret' } = {}) => {
      const head = `${part({ alg })}.${part(claims)}`;
      return `${head}.${createHmac('sha256', secret).update(head).digest('base64url')}`;
    };
    const ask = async (method, path, text) => {
      const response = await fetch(`${own.url}/api/v1/community/${path}`, { method, headers: text === undefined ? {} : { Authorization: `Bearer ${text}` } });
      return { status: response.status, body: await response.json() };
    };
    const ann = token({ sub: 'ann', exp: nowMs / 1000 + 60 });
    for (const [action, list] of [['save', 'saved'], ['view', 'history'], ['purchase', 'purchases']]) {
      for (let times = 0; times < 2; times++) assert.equal((await ask('POST', `books/book-1/${action}`, ann)).status, 201);
      const { body } = await ask('GET', `me/${list}`, ann);
      assert.deepEqual([body.total, body.books[0].book_id], [1, 'book-1']);
      for (const text of [undefined, token({ sub: 'bob' }), token({ sub: 'ann' }, { secret: 'else' }), token({ sub: 'ann', exp: nowMs / 1000 - 1 }), token({ sub: 'ann' }, { alg: 'none' }), `${ann}x`]) {
        assert.equal((await ask('GET', `me/${list}`, text)).body.total, 0, text);
      }
    }
    assert.equal((await ask('DELETE', 'books/book-1/save', ann)).status, 200);
    assert.equal((await ask('GET', 'me/saved', ann)).body.total, 0);
    assert.equal((await ask('POST', 'books/none/save', ann)).status, 404);
    assert.equal((await ask('POST', 'books/book-1/save')).status, 401);
  } finally {
    await own.close();
  }
});

test('the event stream sends as many events as asked and ends; the socket echoes text and bytes', async () => {
  const response = await fetch(`${origin.url}/api/v1/community/live?interval_ms=10&count=3`);
  assert.equal(response.headers.get('content-type'), 'text/event-stream');
  assert.deepEqual([...(await response.text()).matchAll(/^id: (\d+)$/gm)].map(([, id]) => id), ['1', '2', '3']);

  const socket = new WebSocket(`${origin.url.replace('http', 'ws')}/api/v1/community/ws`);
  const received = [];
  await new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('open', () => {
      socket.send('xin chào');
      socket.send(Buffer.from([0, 255, 1]));
    });
    socket.on('message', (data, isBinary) => {
      received.push(isBinary ? [...data] : data.toString());
      if (received.length === 2) resolve();
    });
  });
  assert.deepEqual(received, ['xin chào', [0, 255, 1]]);
  socket.close();
});

test('faults set on the handle come and go, and a failed write has changed nothing', async () => {
  const path = `${BOOKS}/book-1/view`;
  const views = async () => (await origin.query("SELECT total_views FROM online_books WHERE book_id = 'book-1'"))[0].total_views;
  const before = await views();
  for (const mode of [500, 503]) {
    origin.fail(mode, { times: 1 });
    assert.equal((await send('POST', path)).status, mode);
  }
  origin.fail('reset', { times: 1 });
  await assert.rejects(send('POST', path));
  origin.fail('hang', { times: 1 });
  const leaving = new AbortController();
  const hanging = assert.rejects(fetch(origin.url + path, { method: 'POST', signal: leaving.signal }));
  const asked = () => origin.stats.requests[`POST ${BOOKS}/{id}/view`];
  const askedBefore = asked();
  while (asked() === askedBefore) await new Promise(setImmediate);
  leaving.abort();
  await hanging;
  assert.equal(await views(), before);
  origin.fail(null);
  assert.equal((await send('GET', '/')).status, 200);
  assert.throws(() => origin.fail('explode'), RangeError);
});

test('a delay holds the answer back after the work is done', async () => {
  const views = async () => (await origin.query("SELECT total_views FROM online_books WHERE book_id = 'book-1'"))[0].total_views;
  const before = await views();
  origin.delay(600_000);
  const leaving = new AbortController();
  const answer = fetch(`${origin.url}${BOOKS}/book-1/view`, { method: 'POST', signal: leaving.signal }).then(() => 'answered', () => 'left');
  while ((await views()) === before) await new Promise(setImmediate);
  leaving.abort();
  assert.equal(await answer, 'left');
  origin.delay(0);
  assert.equal((await send('GET', '/')).status, 200);
});

test('slugs are those of the plan, and unique', () => {
  assert.equal(slugOf('Kinh Tế - Quản Lý'), 'kinh-te-quan-ly');
  assert.equal(slugOf('Đời Sống'), 'doi-song');
  assert.equal(new Set(CHILD_CATEGORIES.map((child) => child.slug)).size, 33);
});
