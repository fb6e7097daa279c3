//! Plan 2.

use serde_json::json;

use super::{HOUR, MINUTE, Team, own, read, write};

const TREE: &str = "/api/v1/book-categories/";
const HEALTH: &str = "/api/v1/book-categories/parent/health";
const BUSINESS: &str = "/api/v1/book-categories/parent/business";
const CHILD: &str = "/api/v1/book-categories/child/yoga";
const CHILD_NEW: &str = "/api/v1/book-categories/child/kinh-te?sort=new&page=2";
const SEARCH: &str = "/api/v1/community/books/search?category=business&sort_by=views&limit=20";
const SEARCH_ALL: &str = "/api/v1/community/books/search";
const LATEST: &str = "/api/v1/community/books/latest";
const TOP: &str = "/api/v1/community/books/top";
const WEEK: &str = "/api/v1/community/books/featured-week";
const TODAY: &str = "/api/v1/community/books/trending-today";
const AUTHORS: &str = "/api/v1/community/authors/featured";
const TAGS: &str = "/api/v1/community/tags/popular";
const SAVED: &str = "/api/v1/community/me/saved";
const HISTORY: &str = "/api/v1/community/me/history";
const PURCHASES: &str = "/api/v1/community/me/purchases";
const BOOK: &str = "/api/v1/community/books/7";

pub fn team() -> Team {
    let book = json!({ "book_id": "7", "parent_category": "health" });
    let moved = json!({ "book_id": "7", "parent_category": "health", "previous_parent_category": "business" });
    Team {
        name: "community-books",
        text: include_str!("../../../policies/community-books.toml"),
        reads: vec![
            read(
                "category-tree",
                TREE,
                "categories:tree:all",
                15 * MINUTE,
                &["books", "categories"],
            ),
            read(
                "top-by-category",
                HEALTH,
                "books:top:category:health",
                30 * MINUTE,
                &["books", "categories", "category:health"],
            ),
            read(
                "top-by-category",
                BUSINESS,
                "books:top:category:business",
                30 * MINUTE,
                &["books", "categories", "category:business"],
            ),
            read(
                "child-category",
                CHILD,
                "books:child:yoga:views:1",
                10 * MINUTE,
                &["books", "categories", "child-pages"],
            ),
            read(
                "child-category",
                CHILD_NEW,
                "books:child:kinh-te:new:2",
                10 * MINUTE,
                &["books", "categories", "child-pages"],
            ),
            read(
                "search",
                SEARCH,
                "books:search:9fe55d9300d761f4237f547d5e835934",
                10 * MINUTE,
                &["books", "search"],
            ),
            read(
                "search",
                SEARCH_ALL,
                "books:search:d41d8cd98f00b204e9800998ecf8427e",
                10 * MINUTE,
                &["books", "search"],
            ),
            read(
                "latest",
                LATEST,
                "books:newest:all",
                20 * MINUTE,
                &["books"],
            ),
            read("top", TOP, "books:top:all", HOUR, &["books"]),
            read(
                "featured-week",
                WEEK,
                "books:trending:week",
                HOUR,
                &["books"],
            ),
            read(
                "trending-today",
                TODAY,
                "books:trending:today",
                15 * MINUTE,
                &["books"],
            ),
            read(
                "featured-authors",
                AUTHORS,
                "authors:featured",
                24 * HOUR,
                &["authors"],
            ),
            read("popular-tags", TAGS, "tags:popular", 24 * HOUR, &["tags"]),
            own("saved-books", SAVED, "user:ann:saved_books", HOUR, &[]),
            own("history", HISTORY, "user:ann:history", HOUR, &[]),
            own("purchases", PURCHASES, "user:ann:purchases", 24 * HOUR, &[]),
        ],
        writes: vec![
            write(
                "book-create",
                ("POST", "/api/v1/community/books"),
                (201, book.clone()),
                &[LATEST, TREE, SEARCH, SEARCH_ALL, CHILD, CHILD_NEW, HEALTH],
            ),
            write(
                "book-create",
                ("POST", "/api/v1/community/books"),
                (201, json!({})),
                &[
                    LATEST, TREE, SEARCH, SEARCH_ALL, CHILD, CHILD_NEW, HEALTH, BUSINESS,
                ],
            ),
            write(
                "book-update",
                ("PUT", BOOK),
                (200, moved.clone()),
                &[
                    LATEST, TOP, TREE, SEARCH, SEARCH_ALL, CHILD, CHILD_NEW, HEALTH, BUSINESS,
                ],
            ),
            write(
                "book-update",
                ("PATCH", BOOK),
                (
                    200,
                    json!({ "parent_category": "health", "previous_parent_category": "health" }),
                ),
                &[
                    LATEST, TOP, TREE, SEARCH, SEARCH_ALL, CHILD, CHILD_NEW, HEALTH,
                ],
            ),
            write(
                "book-delete",
                ("DELETE", BOOK),
                (204, json!(null)),
                &[
                    LATEST, TOP, WEEK, TODAY, TREE, SEARCH, SEARCH_ALL, CHILD, CHILD_NEW, HEALTH,
                    BUSINESS,
                ],
            ),
            write(
                "chapter-create",
                ("POST", "/api/v1/community/books/7/chapters"),
                (201, book.clone()),
                &[LATEST, SEARCH, SEARCH_ALL, CHILD, CHILD_NEW, HEALTH],
            ),
            write(
                "book-view",
                ("POST", "/api/v1/community/books/7/view"),
                (200, book.clone()),
                &[HISTORY],
            ),
            write(
                "book-save",
                ("POST", "/api/v1/community/books/7/save"),
                (200, json!({})),
                &[SAVED],
            ),
            write(
                "book-save",
                ("DELETE", "/api/v1/community/books/7/save"),
                (204, json!(null)),
                &[SAVED],
            ),
            write(
                "book-purchase",
                ("POST", "/api/v1/community/books/7/purchase"),
                (201, json!({})),
                &[PURCHASES],
            ),
        ],
        others: &[
            ("home", ("GET", "/api/v1/community/home")),
            ("read-book", ("GET", "/api/v1/community/books/b1")),
            (
                "read-chapter",
                ("GET", "/api/v1/community/books/b1/chapters/c1"),
            ),
            ("read-story", ("GET", "/api/v1/stories/s1")),
            ("internal", ("POST", "/internal/views/batch")),
        ],
        limits: (
            "\"default\";q=100;w=60",
            &[
                ("top-by-category", "\"default\";q=300;w=60"),
                // Nobody is admitted.
                ("internal", ""),
            ],
        ),
    }
}
