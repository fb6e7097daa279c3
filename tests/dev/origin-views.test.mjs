// Guarantee: the sample origin takes a batch of views whole and once, by one UPDATE a kind, and shows its totals.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startOrigin } from '../../dev/origin/server.mjs';

let origin;
before(async () => {
  origin = await startOrigin();
});
after(() => origin.close());

async function post(batch, counts, { key = batch, headers = {} } = {}) {
  const response = await fetch(`${origin.url}/internal/views/batch`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'idempotency-key': key, ...headers },
    body: JSON.stringify({ batch, counts }),
  });
  return { status: response.status, body: await response.json(), statements: [...origin.stats.lastStatements] };
}

const writes = (statements) => statements.filter((statement) => /^(INSERT|UPDATE|DELETE)/.test(statement));
const totalOf = async (id) => (await (await fetch(`${origin.url}/api/v1/stories/${id}`)).json()).total_views;

test('a batch is counted once, however often it comes, and answers the totals of now', async () => {
  const counts = [{ kind: 'story', id: 'story-1', count: 3 }, { kind: 'story', id: 'story-2', count: 1 }];
  for (let n = 0; n < 3; n += 1) {
    const { status, body, statements } = await post('once', counts);
    assert.equal(status, 200);
    const totals = body.totals.sort((a, b) => a.id.localeCompare(b.id));
    assert.deepEqual(totals, [{ kind: 'story', id: 'story-1', total: 3 }, { kind: 'story', id: 'story-2', total: 1 }]);
    assert.equal(writes(statements).filter((statement) => statement.startsWith('UPDATE')).length, n === 0 ? 1 : 0);
  }
  await post('another', [{ kind: 'story', id: 'story-1', count: 4 }]);
  assert.equal(await totalOf('story-1'), 7);
});

test('a thousand items of three kinds are one UPDATE a kind and the key', async () => {
  const stories = Array.from({ length: 400 }, (_, at) => ({ kind: 'story', id: `story-${at + 1}`, count: 2 }));
  const books = Array.from({ length: 400 }, (_, at) => ({ kind: 'book', id: `book-${at + 1}`, count: 1 }));
  const chapters = Array.from({ length: 200 }, (_, at) => ({ kind: 'chapter', id: `chapter-${at + 1}`, count: 5 }));
  const { status, body, statements } = await post('thousand', [...stories, ...books, ...chapters]);
  assert.equal(status, 200);
  assert.equal(body.totals.length, 1_000);
  assert.equal(writes(statements).length, 4);
  const [{ book_id: book, chapter_id: id }] = await origin.query(`SELECT book_id, chapter_id FROM book_chapters AS chapter JOIN online_books AS book USING (book_id)
    WHERE chapter.total_views = 5 AND chapter.deleted_at IS NULL AND book.deleted_at IS NULL AND is_public LIMIT 1`);
  const chapter = await (await fetch(`${origin.url}/api/v1/community/books/${book}/chapters/${id}`)).json();
  assert.equal(chapter.total_views, 5);
});

test('what nobody keeps is taken and changes nothing; what is no batch is refused and changes nothing', async () => {
  const { status, body } = await post('unknown', [{ kind: 'nobody', id: '1', count: 1 }, { kind: 'story', id: 'story-none', count: 1 }]);
  assert.equal(status, 200);
  assert.deepEqual(body.totals, []);
  const before = await totalOf('story-3');
  const count = { kind: 'story', id: 'story-3', count: 1 };
  for (const [batch, counts, options, status] of [
    ['key', [count], { key: 'other' }, 400],
    ['many', Array.from({ length: 1_001 }, () => count), {}, 422],
    ['none', 'x', {}, 422],
    ['zero', [{ ...count, count: 0 }], {}, 422],
    ['half', [count, { ...count, count: 0.5 }], {}, 422],
    ['visitor', [count], { headers: { 'x-forwarded-for': '192.0.2.1' } }, 403],
  ]) {
    assert.equal((await post(batch, counts, options)).status, status, batch);
  }
  assert.equal(await totalOf('story-3'), before);
});

test('the totals are shown by kind', async () => {
  await post('shown', [{ kind: 'story', id: 'story-499', count: 1_000 }]);
  const { totals } = await (await fetch(`${origin.url}/internal/views/totals?kind=story`)).json();
  assert.deepEqual(totals[0], { id: 'story-499', total: await totalOf('story-499') });
  assert.equal((await fetch(`${origin.url}/internal/views/totals?kind=x`)).status, 422);
});
