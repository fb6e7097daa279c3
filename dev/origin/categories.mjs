// The categories of the community book shop: 11 parents, 3 children each.
//
// They are constants of the program, as in plan 2 ("for parent in PARENT_CATEGORIES"), not rows of a table: reading
// them costs no statement. Books name their child category by its name and their parent by its id.
// Always: ids, names and slugs are each unique, and a child belongs to exactly one parent.

const TREE = [
  ['education', 'Giáo Dục', ['Giáo Trình - Tài Liệu', 'Ngoại Ngữ', 'Kỹ Năng Học Tập']],
  ['business', 'Kinh Doanh', ['Kinh Tế - Quản Lý', 'Marketing - Bán hàng', 'Tâm Lý - Kỹ Năng Sống']],
  ['technology', 'Công Nghệ', ['Lập Trình - Phần Mềm', 'Trí Tuệ Nhân Tạo', 'Mạng - Bảo Mật']],
  ['health', 'Sức Khỏe', ['Y Học Thường Thức', 'Dinh Dưỡng - Ẩm Thực', 'Thể Thao - Yoga']],
  ['lifestyle', 'Đời Sống', ['Gia Đình - Nuôi Dạy Con', 'Nhà Cửa - Trang Trí', 'Du Lịch - Khám Phá']],
  ['literature', 'Văn Học', ['Tiểu Thuyết', 'Truyện Ngắn - Tản Văn', 'Thơ Ca']],
  ['children', 'Thiếu Nhi', ['Truyện Cổ Tích', 'Truyện Tranh', 'Khoa Học Vui']],
  ['science', 'Khoa Học', ['Vật Lý - Thiên Văn', 'Sinh Học - Môi Trường', 'Toán Học']],
  ['history', 'Lịch Sử', ['Lịch Sử Việt Nam', 'Lịch Sử Thế Giới', 'Hồi Ký - Tiểu Sử']],
  ['arts', 'Nghệ Thuật', ['Âm Nhạc', 'Hội Họa - Thiết Kế', 'Nhiếp Ảnh - Điện Ảnh']],
  ['spirituality', 'Tâm Linh', ['Phật Giáo', 'Triết Học', 'Thiền - Chánh Niệm']],
];

/** ASCII slug of a Vietnamese name: "Kinh Tế - Quản Lý" gives "kinh-te-quan-ly". */
export function slugOf(name) {
  return name
    .normalize('NFD')
    .replace(/\p{M}/gu, '')
    .replace(/đ/g, 'd')
    .replace(/Đ/g, 'D')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}

/** `[{ id, name, children: [{ name, slug, parent_id }] }]`, in the order the tree shows them. */
export const PARENT_CATEGORIES = TREE.map(([id, name, children]) => ({
  id,
  name,
  children: children.map((child) => ({ name: child, slug: slugOf(child), parent_id: id })),
}));

export const CHILD_CATEGORIES = PARENT_CATEGORIES.flatMap((parent) => parent.children);

const PARENT_BY_ID = new Map(PARENT_CATEGORIES.map((parent) => [parent.id, parent]));
const CHILD_BY_SLUG = new Map(CHILD_CATEGORIES.map((child) => [child.slug, child]));
const CHILD_BY_NAME = new Map(CHILD_CATEGORIES.map((child) => [child.name, child]));

export const parentById = (id) => PARENT_BY_ID.get(id);
export const childBySlug = (slug) => CHILD_BY_SLUG.get(slug);
/** A child category by its name or by its slug. */
export const childByNameOrSlug = (text) => CHILD_BY_NAME.get(text) ?? CHILD_BY_SLUG.get(text);
