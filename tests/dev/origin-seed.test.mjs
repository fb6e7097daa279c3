// Guarantee: for a fixed now the sample database is the same, row for row, whether it is seeded afresh, seeded again, or
// loaded from its snapshot; and only its times follow now.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openDatabase } from '../../dev/origin/database.mjs';
import { TIME_COLUMNS } from '../../dev/origin/schema.mjs';
import { COUNTS, seedTables } from '../../dev/origin/seed.mjs';

const NOON = Date.UTC(2026, 1, 9, 12);
const TABLES = [...Object.keys(TIME_COLUMNS), 'book_access_configs'].sort();
let cacheDir;

before(async () => {
  cacheDir = await mkdtemp(join(tmpdir(), 'origin-seed-'));
});
after(() => rm(cacheDir, { recursive: true, force: true }));

/** `{ digest, counts, newest }` of all tables of the database at `nowMs`. */
async function pictureOf(options) {
  const postgres = await openDatabase(options);
  try {
    const hash = createHash('sha256');
    const counts = {};
    for (const table of TABLES) {
      const { rows: [row] } = await postgres.query(`SELECT count(*)::int AS total, md5(string_agg(t::text, E'\\n' ORDER BY t::text)) AS digest FROM ${table} AS t`);
      counts[table] = row.total;
      hash.update(`${table} ${row.digest}\n`);
    }
    const { rows: [{ newest }] } = await postgres.query('SELECT max(viewed_at) AS newest FROM book_view_sessions');
    return { digest: hash.digest('hex'), counts, newest: newest.getTime() };
  } finally {
    await postgres.close();
  }
}

test('the rows are drawn the same twice', () => {
  const digest = () => seedTables().map(({ table, csv }) => `${table} ${createHash('sha256').update(csv).digest('hex')}`);
  assert.deepEqual(digest(), digest());
});

test('seeded, loaded, and seeded over a broken snapshot, the database is the same', async () => {
  const seeded = await pictureOf({ nowMs: NOON, cacheDir });
  const [snapshot] = await readdir(cacheDir);
  const loaded = await pictureOf({ nowMs: NOON, cacheDir });
  assert.deepEqual(loaded, seeded);
  await truncate(join(cacheDir, snapshot), 100_000);
  assert.deepEqual(await pictureOf({ nowMs: NOON, cacheDir }), seeded);
  assert.deepEqual(await readdir(cacheDir), [snapshot]);
  assert.equal(seeded.counts.online_books, COUNTS.books);
  assert.equal(seeded.counts.book_authors, COUNTS.authors);
  assert.equal(seeded.counts.book_view_sessions, COUNTS.views);

  const later = await pictureOf({ nowMs: NOON + 3_600_000, cacheDir });
  assert.notEqual(later.digest, seeded.digest);
  assert.deepEqual(later.counts, seeded.counts);
  assert.equal(later.newest - seeded.newest, 3_600_000);
  assert.ok(seeded.newest < NOON && NOON - seeded.newest < 3_600_000);
});
