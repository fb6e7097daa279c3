// One book as the answers show it, and the lookups that today's code makes for each book: the N+1 of plan 2.
//
// Every lookup is its own statement, one after the other, as the plan's loops make them; nothing is batched here.
// Always: an author's name stands at the same place as its id; an id without an author is left out of both lists.

export const BOOK_COLUMNS = 'book_id, title, description, cover_url, authors, category, parent_category, tags, total_views, average_rating, created_at, last_chapter_updated_at';

const AUTHOR = 'SELECT author_id, name FROM book_authors WHERE author_id = $1';
const RECENT_CHAPTERS = `SELECT chapter_id, chapter_number, title, updated_at FROM book_chapters
  WHERE book_id = $1 AND deleted_at IS NULL ORDER BY updated_at DESC, chapter_number DESC LIMIT 2`;
const CHAPTER_COUNT = 'SELECT count(*)::int AS total FROM book_chapters WHERE book_id = $1 AND deleted_at IS NULL';
const ACCESS_CONFIG = 'SELECT access_type, price_points, free_chapters FROM book_access_configs WHERE book_id = $1';
const READABLE_BOOK = `SELECT ${BOOK_COLUMNS} FROM online_books WHERE book_id = $1 AND is_public AND deleted_at IS NULL`;

/** The row of a public book that is not deleted, or undefined: 1 statement. */
export const readableBook = (session, bookId) => session.row(READABLE_BOOK, [bookId]);

/** `book` with its authors' names: 1 statement for each author. */
export async function withAuthors(session, book) {
  const found = [];
  for (const authorId of book.authors) {
    const author = await session.row(AUTHOR, [authorId]);
    if (author !== undefined) found.push(author);
  }
  return { ...book, authors: found.map((author) => author.author_id), author_names: found.map((author) => author.name) };
}

/** `book` with its authors, its 2 last chapters and their count: 1 statement for each author and 2 more. */
export async function withDetails(session, book) {
  const known = await withAuthors(session, book);
  const recent = await session.rows(RECENT_CHAPTERS, [book.book_id]);
  const { total } = await session.row(CHAPTER_COUNT, [book.book_id]);
  return { ...known, total_chapters: total, recent_chapters: recent };
}

/** What it takes to read the book: 1 statement. */
export async function accessConfig(session, bookId) {
  return (await session.row(ACCESS_CONFIG, [bookId])) ?? null;
}

/** `book` with its authors and what it takes to read it: 1 statement for each author and 1 more. */
export async function withAccess(session, book) {
  return { ...(await withAuthors(session, book)), access_config: await accessConfig(session, book.book_id) };
}

/** Applies one lookup to every book, serially. */
export async function eachBook(session, books, lookup) {
  const answers = [];
  for (const book of books) answers.push(await lookup(session, book));
  return answers;
}
