// The embedded Postgres of the sample origin: opening it with its data, and counting what is asked of it.
//
// The first start seeds it and keeps a snapshot of the data directory in the cache directory, named by a digest of the
// seed's sources; later starts load that. A missing, broken or unwritable cache only costs the time to seed again.
// The database lives in memory: what is written is gone when the process ends. It runs in this process, one statement
// at a time.
// Always: after opening, times are moved so that the seed ends at `now`, tables have no dead rows (moving a time column
// by ALTER TABLE rewrites its table) and statistics are fresh. Every statement of a request goes through its Session.

import { createHash } from 'node:crypto';
import { mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PGlite } from '@electric-sql/pglite';
import { SCHEMA, SEQUENCES, TIME_COLUMNS } from './schema.mjs';
import { SEED_EPOCH_MS, seedTables } from './seed.mjs';

const DEFAULT_CACHE_DIR = fileURLToPath(new URL('../../.tools/origin/', import.meta.url));
const SEED_SOURCES = ['categories.mjs', 'random.mjs', 'schema.mjs', 'seed.mjs', 'database.mjs'];

/** In memory nothing is replicated or replayed: a minimal, small log keeps the snapshot and its loading small. */
const START_PARAMETERS = ['wal_level=minimal', 'max_wal_senders=0', 'min_wal_size=32MB', 'max_wal_size=64MB'];
const startParams = [...PGlite.defaultStartParams, ...START_PARAMETERS.flatMap((parameter) => ['-c', parameter])];

/** The statements of one request, in order. */
export class Session {
  #postgres;
  statements = [];

  constructor(postgres) {
    this.#postgres = postgres;
  }

  /** Runs one parameterised statement; resolves to its rows. */
  async rows(sql, parameters = []) {
    this.statements.push(sql);
    return (await this.#postgres.query(sql, parameters)).rows;
  }

  /** Runs `work` with a session whose statements are one transaction's; they are counted here. */
  transaction(work) {
    return this.#postgres.transaction((transaction) => {
      const within = new Session(transaction);
      within.statements = this.statements;
      return work(within);
    });
  }

  /** The first row, or undefined. */
  async row(sql, parameters) {
    return (await this.rows(sql, parameters))[0];
  }
}

/**
 * Opens the database with its data up to `nowMs`. `cacheDir: null` seeds afresh and keeps nothing.
 * Resolves to a PGlite; the caller closes it.
 */
export async function openDatabase({ nowMs, cacheDir = DEFAULT_CACHE_DIR }) {
  if (!Number.isSafeInteger(nowMs) || Math.abs(nowMs) > 8e15) throw new RangeError('nowMs must be whole milliseconds since 1970');
  const postgres = cacheDir === null ? await seeded() : await loadedOrSeeded(cacheDir);
  await postgres.exec("SET TIME ZONE 'UTC'");
  await moveTo(postgres, nowMs);
  return postgres;
}

async function loadedOrSeeded(cacheDir) {
  const file = join(cacheDir, `seed-${await seedDigest()}.tar`);
  try {
    return await PGlite.create({ loadDataDir: new Blob([await readFile(file)]), startParams });
  } catch {
    const postgres = await seeded();
    try {
      await keepSnapshot(postgres, cacheDir, file);
    } catch (error) {
      console.error(`origin: the seed is not cached (${error.message}); the next start seeds again`);
    }
    return postgres;
  }
}

async function seeded() {
  const postgres = await PGlite.create({ startParams });
  await postgres.exec("SET TIME ZONE 'UTC'");
  await postgres.exec(SCHEMA);
  for (const { table, csv } of seedTables()) {
    // Truncated in the same transaction, a table is filled without writing the log.
    await postgres.transaction(async (transaction) => {
      await transaction.exec(`TRUNCATE ${table}`);
      await transaction.query(`COPY ${table} FROM '/dev/blob' WITH (FORMAT csv, FREEZE)`, [], { blob: new Blob([csv]) });
    });
  }
  await postgres.exec(SEQUENCES);
  await postgres.exec('VACUUM ANALYZE');
  await postgres.exec('CHECKPOINT');
  return postgres;
}

/** Written aside and renamed, so that another start never reads half a snapshot; older ones are removed. */
async function keepSnapshot(postgres, cacheDir, file) {
  const dump = await postgres.dumpDataDir('none');
  const aside = `${file}.${process.pid}`;
  await mkdir(cacheDir, { recursive: true });
  const older = (await readdir(cacheDir)).filter((name) => /^seed-[0-9a-f]+\.tar$/.test(name));
  await writeFile(aside, Buffer.from(await dump.arrayBuffer()));
  await rename(aside, file);
  for (const name of older) if (join(cacheDir, name) !== file) await rm(join(cacheDir, name), { force: true });
}

async function seedDigest() {
  const hash = createHash('sha256');
  for (const name of SEED_SOURCES) hash.update(await readFile(new URL(name, import.meta.url)));
  hash.update(await readFile(new URL('../package.json', import.meta.resolve('@electric-sql/pglite'))));
  return hash.digest('hex').slice(0, 16);
}

/** Moves every time so that the seed ends at `nowMs`. DDL takes no parameters; the interval is a checked integer. */
async function moveTo(postgres, nowMs) {
  const interval = `interval '${nowMs - SEED_EPOCH_MS} milliseconds'`;
  for (const [table, columns] of Object.entries(TIME_COLUMNS)) {
    const actions = columns.map((column) => `ALTER COLUMN ${column} TYPE timestamptz USING ${column} + ${interval}`);
    await postgres.exec(`ALTER TABLE ${table} ${actions.join(', ')}`);
    await postgres.exec(`VACUUM ${table}`);
    await postgres.exec(`ANALYZE ${table} (${columns.join(', ')})`);
  }
}
