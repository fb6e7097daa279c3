// Which handler answers which method and path.
//
// A path is matched as it came, segment by segment; nothing is folded or normalised but one trailing slash. Handlers take
// a context `{ request, response, session, clock, params, query, streams, reader }` and return `{ status, body, headers }`, or
// nothing when they answer by themselves.
// Always: a literal segment wins over a placeholder; HEAD is matched as GET; a known path with another method is 405.

import { featuredAuthors, popularTags } from './authors.mjs';
import { addChapter, createBook, deleteBook, patchBook, readBook, replaceBook, viewBook } from './books.mjs';
import { RequestError } from './input.mjs';
import { readChapter, readStory, takeBatch, viewTotals } from './views.mjs';
import { booksOfChild, categoryTree, featuredWeek, latest, search, top, topOfParent, trendingToday } from './listings.mjs';
import { buyBook, history, purchases, saveBook, savedBooks, unsaveBook } from './readers.mjs';

export const SOCKET_TEMPLATE = '/api/v1/community/ws';
const MAX_SEGMENT = 200;

/** In the order of precedence. */
const ROUTES = [
  ['GET', '/', about],
  ['GET', '/api/v1/book-categories/', categoryTree],
  ['GET', '/api/v1/book-categories/parent/{parent_id}', topOfParent],
  ['GET', '/api/v1/book-categories/child/{slug}', booksOfChild],
  ['GET', '/api/v1/community/books/search', search],
  ['GET', '/api/v1/community/books/latest', latest],
  ['GET', '/api/v1/community/books/top', top],
  ['GET', '/api/v1/community/books/featured-week', featuredWeek],
  ['GET', '/api/v1/community/books/trending-today', trendingToday],
  ['GET', '/api/v1/community/authors/featured', featuredAuthors],
  ['GET', '/api/v1/community/tags/popular', popularTags],
  ['GET', '/api/v1/community/books/{id}', readBook],
  ['POST', '/api/v1/community/books', createBook],
  ['PUT', '/api/v1/community/books/{id}', replaceBook],
  ['PATCH', '/api/v1/community/books/{id}', patchBook],
  ['DELETE', '/api/v1/community/books/{id}', deleteBook],
  ['POST', '/api/v1/community/books/{id}/chapters', addChapter],
  ['POST', '/api/v1/community/books/{id}/view', viewBook],
  ['POST', '/api/v1/community/books/{id}/save', saveBook],
  ['DELETE', '/api/v1/community/books/{id}/save', unsaveBook],
  ['POST', '/api/v1/community/books/{id}/purchase', buyBook],
  ['GET', '/api/v1/community/books/{id}/chapters/{chapter}', readChapter],
  ['GET', '/api/v1/stories/{id}', readStory],
  ['POST', '/internal/views/batch', takeBatch],
  ['GET', '/internal/views/totals', viewTotals],
  ['GET', '/api/v1/community/me/saved', savedBooks],
  ['GET', '/api/v1/community/me/history', history],
  ['GET', '/api/v1/community/me/purchases', purchases],
  ['GET', '/api/v1/community/live', (context) => context.streams.serve(context)],
  ['GET', SOCKET_TEMPLATE, socketOnly],
].map(([method, template, handler]) => ({ method, template, handler, parts: segmentsOf(template) }));

function segmentsOf(path) {
  const trimmed = path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
  return trimmed.slice(1).split('/');
}

/** The route of a request and the values of its placeholders; throws 400, 404 or 405. */
export function findRoute(requestMethod, path) {
  const method = requestMethod === 'HEAD' ? 'GET' : requestMethod;
  const segments = segmentsOf(path);
  const matching = path.startsWith('/') ? ROUTES.filter((route) => fits(route.parts, segments)) : [];
  const route = matching.find((candidate) => candidate.method === method);
  if (route !== undefined) return { ...route, params: paramsOf(route.parts, segments) };
  if (matching.length === 0) throw new RequestError(404, 'unknown_path', 'there is nothing at this path');
  const allowed = [...new Set(matching.flatMap((candidate) => (candidate.method === 'GET' ? ['GET', 'HEAD'] : [candidate.method])))].join(', ');
  throw new RequestError(405, 'method_not_allowed', `this path takes ${allowed}`, { Allow: allowed });
}

function fits(parts, segments) {
  return parts.length === segments.length && parts.every((part, index) => (part.startsWith('{') ? segments[index] !== '' : part === segments[index]));
}

function paramsOf(parts, segments) {
  const params = {};
  parts.forEach((part, index) => {
    if (part.startsWith('{')) params[part.slice(1, -1)] = decodedSegment(segments[index]);
  });
  return params;
}

function decodedSegment(segment) {
  let value;
  try {
    value = decodeURIComponent(segment);
  } catch {
    throw new RequestError(400, 'bad_path', 'the path is not well-formed percent-encoded UTF-8');
  }
  if (value.length > MAX_SEGMENT || value.includes('\0')) throw new RequestError(400, 'bad_path', `a path segment is at most ${MAX_SEGMENT} characters, without NUL`);
  return value;
}

function about() {
  return { body: { name: 'sample origin', about: 'The community book listings of plan 2 over an embedded Postgres, as slow as they are today.',
    endpoints: ROUTES.map(({ method, template }) => `${method} ${template}`) } };
}

function socketOnly() {
  throw new RequestError(426, 'upgrade_required', 'this path speaks WebSocket only', { Upgrade: 'websocket' });
}
