// The 10 featured authors and the 25 popular tags: the listings that aggregate over all books.
//
// Statements: featured authors 3 + 4 for each author in the answer; popular tags 1.
// Always: an author is in the answer once, for the first reason found; books that are private or deleted count for nothing.

const PUBLIC = 'is_public AND deleted_at IS NULL';

const MOST_READ = `SELECT author_id FROM (SELECT unnest(authors) AS author_id, total_views FROM online_books WHERE ${PUBLIC}) AS unwound
  GROUP BY author_id ORDER BY sum(total_views) DESC, author_id LIMIT 3`;
const MOST_LOVED = 'SELECT author_id FROM author_reviews WHERE rating = 5 GROUP BY author_id ORDER BY count(*) DESC, author_id';
const TOP_BOOKS = `SELECT book_id, authors FROM online_books WHERE ${PUBLIC} ORDER BY total_views DESC, book_id LIMIT 20`;

const AUTHOR = 'SELECT author_id, name, avatar_url, bio FROM book_authors WHERE author_id = $1';
const BOOK_COUNT = `SELECT count(*)::int AS total FROM online_books WHERE $1 = ANY(authors) AND ${PUBLIC}`;
const RATING = 'SELECT coalesce(round(avg(rating), 2), 0)::float8 AS average, count(*)::int AS total FROM author_reviews WHERE author_id = $1';
const FOLLOWERS = 'SELECT count(*)::int AS total FROM author_follows WHERE author_id = $1';

/** GET /api/v1/community/authors/featured: 3 by reads, 3 by five-star reviews, 4 from the most viewed books. */
export async function featuredAuthors({ session }) {
  const authors = [];
  const shown = new Set();
  const add = async (candidates, limit, featuredFor) => {
    let added = 0;
    for (const authorId of candidates) {
      if (added === limit) return;
      if (shown.has(authorId)) continue;
      shown.add(authorId);
      const author = await authorInFull(session, authorId);
      if (author === undefined) continue;
      authors.push({ ...author, featured_for: featuredFor });
      added += 1;
    }
  };
  await add((await session.rows(MOST_READ)).map(({ author_id }) => author_id), 3, 'reads');
  await add((await session.rows(MOST_LOVED)).map(({ author_id }) => author_id), 3, 'reviews');
  await add((await session.rows(TOP_BOOKS)).flatMap((book) => book.authors), 4, 'books');
  return { body: { authors, total: authors.length } };
}

/** 4 statements, as the plan lists them for each author. */
async function authorInFull(session, authorId) {
  const author = await session.row(AUTHOR, [authorId]);
  if (author === undefined) return undefined;
  const books = await session.row(BOOK_COUNT, [authorId]);
  const rating = await session.row(RATING, [authorId]);
  const followers = await session.row(FOLLOWERS, [authorId]);
  return { ...author, total_books: books.total, average_rating: rating.average, total_reviews: rating.total, total_followers: followers.total };
}

/** GET /api/v1/community/tags/popular */
export async function popularTags({ session }) {
  const tags = await session.rows(
    `SELECT tag, count(*)::int AS books_count FROM (SELECT unnest(tags) AS tag FROM online_books WHERE ${PUBLIC}) AS unwound
     GROUP BY tag ORDER BY books_count DESC, tag LIMIT 25`,
  );
  return { body: { tags, total: tags.length } };
}
