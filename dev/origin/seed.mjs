// The rows of the sample database, drawn from one fixed seed.
//
// Times are written relative to SEED_EPOCH_MS, which stands for "now"; database.mjs moves them to the real one.
// Nothing here reads a clock, a file or the database.
// Always: the same program yields the same bytes. Views, purchases and chapters belong to books that exist; view
// sessions and purchases only to books that are public and not deleted; every book has one live chapter or more, and its
// last_chapter_updated_at is that of its newest one.

import { CHILD_CATEGORIES } from './categories.mjs';
import { Random } from './random.mjs';

export const SEED = 0x5eed_0002;
export const SEED_EPOCH_MS = Date.UTC(2026, 0, 1);

export const COUNTS = { books: 20_000, authors: 4_000, users: 5_000, reviews: 30_000, follows: 40_000, purchases: 12_000, views: 80_000 };
/** One day more than the week that is asked for, so that the week's filter has something to leave out. */
export const VIEW_DAYS = 8;
const PURCHASE_DAYS = 30;
const DAY_S = 86_400;

const FAMILY_NAMES = ['Nguyễn', 'Trần', 'Lê', 'Phạm', 'Hoàng', 'Huỳnh', 'Phan', 'Vũ', 'Võ', 'Đặng', 'Bùi', 'Đỗ', 'Hồ', 'Ngô', 'Dương', 'Lý'];
const MIDDLE_NAMES = ['Văn', 'Thị', 'Minh', 'Ngọc', 'Thanh', 'Hữu', 'Đức', 'Quang', 'Thu', 'Kim', 'Gia', 'Bảo', 'Anh', 'Xuân'];
const GIVEN_NAMES = ['An', 'Bình', 'Châu', 'Dũng', 'Giang', 'Hà', 'Hải', 'Hạnh', 'Hiếu', 'Hoa', 'Hùng', 'Hương', 'Khánh', 'Khôi', 'Lan', 'Linh', 'Long',
  'Mai', 'Nam', 'Nga', 'Nhung', 'Phong', 'Phúc', 'Phương', 'Quân', 'Sơn', 'Tâm', 'Thảo', 'Trang', 'Tuấn', 'Vân', 'Yến'];
const TITLE_STARTS = ['Nghệ Thuật', 'Bí Mật', 'Hành Trình', 'Sức Mạnh', 'Cẩm Nang', 'Nhập Môn', 'Lược Sử', 'Tư Duy', 'Câu Chuyện', 'Khám Phá', 'Đường Đến',
  'Những Ngày', 'Giấc Mơ', 'Thế Giới', 'Bài Học', 'Phương Pháp', 'Chìa Khóa', 'Dòng Sông', 'Ánh Sáng', 'Ngôi Nhà'];
const TITLE_ENDS = ['Thành Công', 'Của Gió', 'Hiện Đại', 'Phương Đông', 'Tuổi Trẻ', 'Bình Yên', 'Và Tự Do', 'Trong Tầm Tay', 'Mùa Hạ', 'Không Biên Giới', 'Cho Mọi Người',
  'Từ Số Không', 'Của Biển', 'Đầu Tiên', 'Bên Kia Núi', 'Lãnh Đạo', 'Thấu Hiểu', 'Sáng Tạo', 'Vĩnh Cửu', 'Ngàn Năm', 'Ký Ức', 'Tỉnh Thức'];
const SENTENCES = ['Một cuốn sách dành cho những ai muốn bắt đầu lại từ những điều nhỏ bé nhất.', 'Tác giả kể lại mười năm làm việc và những sai lầm đáng giá.',
  'Mỗi chương là một bài học ngắn, có ví dụ và câu hỏi để tự suy ngẫm.', 'Cuốn sách đã được hàng nghìn độc giả trong cộng đồng đón nhận.',
  'Ngôn ngữ giản dị, hình ảnh gần gũi và nhịp kể chậm rãi.', 'Phần cuối tổng hợp tài liệu tham khảo và lộ trình thực hành.', 'Bản in mới được bổ sung hai chương và sửa lại toàn bộ chú thích.'];
const TAG_STARTS = ['kinh-te', 'ky-nang', 'tieu-thuyet', 'lap-trinh', 'suc-khoe', 'gia-dinh', 'lich-su', 'khoa-hoc', 'nghe-thuat', 'thien', 'marketing', 'khoi-nghiep', 'tam-ly', 'giao-duc', 'du-lich'];
const TAG_ENDS = ['co-ban', 'nang-cao', 'thuc-hanh', 'viet-nam', 'the-gioi', 'cho-nguoi-moi', 'hay-nhat', '2025'];
const TAGS = TAG_STARTS.flatMap((start) => [start, ...TAG_ENDS.map((end) => `${start}-${end}`)]);
const ACCESS_TYPES = ['free', 'one_time', 'chapters', 'subscription'];

const text = (value) => `"${String(value).replaceAll('"', '""')}"`;
const list = (values) => text(`{${values.join(',')}}`);
/** A time `ago` seconds before the epoch; an empty CSV field is NULL. */
const time = (ago) => (ago === null ? '' : new Date(SEED_EPOCH_MS - ago * 1000).toISOString());

function drawBooks(random) {
  const ranks = random.shuffled(Array.from({ length: COUNTS.books }, (_, index) => index));
  const tagsByUse = random.shuffled(TAGS);
  const authorNumbers = random.shuffled(Array.from({ length: COUNTS.authors }, (_, index) => index + 1));
  return ranks.map((rank, index) => {
    const created = DAY_S + random.below(1000 * DAY_S);
    const authorCount = random.pick([1, 2, 2, 3]);
    const chapters = drawChapters(random, created);
    const live = chapters.filter((chapter) => chapter.deleted === null);
    return {
      id: `book-${index + 1}`,
      rank,
      title: `${random.pick(TITLE_STARTS)} ${random.pick(TITLE_ENDS)}${random.chance(0.3) ? ` - Tập ${1 + random.below(9)}` : ''}`,
      description: Array.from({ length: 2 + random.below(2) }, () => random.pick(SENTENCES)).join(' '),
      authors: random.distinct(authorCount, () => `author-${random.pickSkewed(authorNumbers, 1.5)}`),
      category: random.pick(CHILD_CATEGORIES),
      tags: random.distinct(1 + random.below(5), () => random.pickSkewed(tagsByUse, 2)),
      isPublic: !random.chance(0.08),
      deleted: random.chance(0.03) ? random.below(created) : null,
      views: Math.floor(1_500_000 / (rank + 5) ** 0.75) + random.below(50),
      rating: Math.round((2.5 + 2.5 * random.unit()) * 10) / 10,
      created,
      chapters,
      lastChapter: Math.min(...live.map((chapter) => chapter.updated)),
    };
  });
}

function drawChapters(random, created) {
  const ages = Array.from({ length: 2 + random.below(5) }, () => 1 + random.below(created)).sort((left, right) => right - left);
  return ages.map((updated, index) => ({ updated, deleted: index > 0 && random.chance(0.04) ? random.below(updated) : null }));
}

/** Rows of view sessions or purchases in the order of time, as a log grows. */
function drawLog(random, books, count, days) {
  const popular = random.shuffled(books.filter((book) => book.isPublic && book.deleted === null));
  const ages = Array.from({ length: count }, () => 1 + random.below(days * DAY_S)).sort((left, right) => right - left);
  return ages.map((age) => ({ age, book: random.pickSkewed(popular, 3).id, user: `user-${1 + random.below(COUNTS.users)}` }));
}

function authorRows(random) {
  return Array.from({ length: COUNTS.authors }, (_, index) => {
    const name = `${random.pick(FAMILY_NAMES)} ${random.pick(MIDDLE_NAMES)} ${random.pick(GIVEN_NAMES)}`;
    const id = `author-${index + 1}`;
    return [text(id), text(name), text(`https://cdn.example/avatars/${id}.webp`), text(random.pick(SENTENCES)), time(DAY_S + random.below(1200 * DAY_S))];
  });
}

function bookRows(books) {
  return books.map((book) => [text(book.id), text(book.title), text(book.description), text(`https://cdn.example/covers/${book.id}.webp`), list(book.authors),
    text(book.category.name), text(book.category.parent_id), list(book.tags), book.isPublic, book.views, book.rating,
    time(book.created), time(book.lastChapter), time(book.lastChapter), time(book.deleted)]);
}

function chapterRows(random, books) {
  let number = 0;
  return books.flatMap((book) => book.chapters.map((chapter, index) => {
    number += 1;
    return [text(`chapter-${number}`), text(book.id), index + 1, text(`Chương ${index + 1}: ${random.pick(TITLE_ENDS)}`), text(random.pick(SENTENCES)),
      time(chapter.updated), time(chapter.deleted)];
  }));
}

function accessRows(random, books) {
  return books.map((book) => {
    const type = random.pick(ACCESS_TYPES);
    return [text(book.id), text(type), type === 'free' ? 0 : 10 * (1 + random.below(30)), random.below(4)];
  });
}

function reviewRows(random, authors) {
  return Array.from({ length: COUNTS.reviews }, (_, index) => [index + 1, text(random.pickSkewed(authors, 2)), text(`user-${1 + random.below(COUNTS.users)}`),
    random.pick([1, 2, 3, 4, 4, 5, 5, 5]), time(1 + random.below(700 * DAY_S))]);
}

function followRows(random, authors) {
  const pairs = random.distinct(COUNTS.follows, () => `${random.pickSkewed(authors, 2)} user-${1 + random.below(COUNTS.users)}`);
  return pairs.map((pair) => [...pair.split(' ').map(text), time(1 + random.below(700 * DAY_S))]);
}

/** `[{ table, csv }]` for every table, ready for COPY. */
export function seedTables() {
  const random = new Random(SEED);
  const authors = authorRows(random);
  const books = drawBooks(random);
  const byFame = random.shuffled(Array.from({ length: COUNTS.authors }, (_, index) => `author-${index + 1}`));
  const rows = {
    book_authors: authors,
    online_books: bookRows(books),
    book_access_configs: accessRows(random, books),
    book_chapters: chapterRows(random, books),
    author_reviews: reviewRows(random, byFame),
    author_follows: followRows(random, byFame),
    book_purchases: drawLog(random, books, COUNTS.purchases, PURCHASE_DAYS)
      .map((sale, index) => [index + 1, text(sale.book), text(sale.user), 10 * (1 + random.below(30)), time(sale.age)]),
    book_view_sessions: drawLog(random, books, COUNTS.views, VIEW_DAYS)
      .map((view, index) => [index + 1, text(view.book), text(view.user), time(view.age)]),
  };
  return Object.entries(rows).map(([table, lines]) => ({ table, csv: `${lines.map((line) => line.join(',')).join('\n')}\n` }));
}
