//! Plan 0.

use serde_json::json;

use super::{HOUR, MINUTE, Team, own, read, write};

const STORY: &str = "/api/stories/s1";
const OTHER: &str = "/api/stories/s2";
const MADE: &str = "/api/stories/s3";
const CHAPTERS: &str = "/api/stories/s1/chapters";
const CHAPTER: &str = "/api/stories/s1/chapters/c1";
const OTHER_CHAPTER: &str = "/api/stories/s1/chapters/c2";
const STATISTICS: &str = "/api/stories/s1/statistics";
const POPULAR: &str = "/api/stories/popular";
const TRENDING: &str = "/api/stories/trending";
const CRIME: &str = "/api/categories/crime/stories";
const LOVE: &str = "/api/categories/love/stories?page=2";
const SEARCH: &str = "/api/search?q=a&category=crime&utm=x";
const AUTHORS: &str = "/api/search/authors?q=a";
const SUGGESTIONS: &str = "/api/search/suggestions?q=a%20b";
const ANN: &str = "/api/users/ann";
const BOB: &str = "/api/users/bob";
const FOLLOWERS: &str = "/api/users/bob/followers";
const FOLLOWING: &str = "/api/users/ann/following";
const SESSION: &str = "/api/auth/session";
const PREFERENCES: &str = "/api/me/preferences";
const LIBRARY: &str = "/api/me/library";
const PACKAGES: &str = "/api/coins/packages";
const BALANCE: &str = "/api/coins/balance";
const GIFTS: &str = "/api/gifts";
const REVENUE: &str = "/api/revenue";
const SETTINGS: &str = "/api/system/settings";
const FLAGS: &str = "/api/system/flags";

pub fn team() -> Team {
    let story = json!({ "id": "s3", "author_id": "ann", "categories": ["crime"] });
    Team {
        name: "story-platform",
        text: include_str!("../../../policies/story-platform.toml"),
        reads: vec![
            read(
                "story",
                STORY,
                "story:s1",
                HOUR,
                &["story-pages", "story:s1"],
            ),
            read(
                "story",
                OTHER,
                "story:s2",
                HOUR,
                &["story-pages", "story:s2"],
            ),
            read(
                "story",
                MADE,
                "story:s3",
                HOUR,
                &["story-pages", "story:s3"],
            ),
            read(
                "chapter-list",
                CHAPTERS,
                "story:s1:chapters:1",
                30 * MINUTE,
                &["story:s1"],
            ),
            read(
                "chapter",
                CHAPTER,
                "story:s1:chapter:c1",
                HOUR,
                &["story:s1"],
            ),
            read(
                "chapter",
                OTHER_CHAPTER,
                "story:s1:chapter:c2",
                HOUR,
                &["story:s1"],
            ),
            read(
                "story-statistics",
                STATISTICS,
                "story:s1:statistics",
                15 * MINUTE,
                &["story:s1"],
            ),
            read(
                "popular",
                POPULAR,
                "stories:popular",
                15 * MINUTE,
                &["stories"],
            ),
            read(
                "trending",
                TRENDING,
                "stories:trending",
                15 * MINUTE,
                &["stories"],
            ),
            read(
                "category",
                CRIME,
                "stories:category:crime:1",
                10 * MINUTE,
                &["stories", "category:crime"],
            ),
            read(
                "category",
                LOVE,
                "stories:category:love:2",
                10 * MINUTE,
                &["stories", "category:love"],
            ),
            // MD5 of `q=a&category=crime` and of `q=a`.
            read(
                "search",
                SEARCH,
                "search:stories:44659c95034b913261c1a42a6533c5f8",
                10 * MINUTE,
                &["search"],
            ),
            read(
                "author-search",
                AUTHORS,
                "search:authors:0b794aa51416496d7145a33a77642ec1",
                10 * MINUTE,
                &["search"],
            ),
            read(
                "autocomplete",
                SUGGESTIONS,
                "search:suggestions:a%20b",
                10 * MINUTE,
                &["search"],
            ),
            read(
                "profile",
                ANN,
                "user:ann:profile",
                30 * MINUTE,
                &["users", "author:ann"],
            ),
            read(
                "profile",
                BOB,
                "user:bob:profile",
                30 * MINUTE,
                &["users", "author:bob"],
            ),
            read(
                "followers",
                FOLLOWERS,
                "user:bob:followers:1",
                30 * MINUTE,
                &["followers:bob"],
            ),
            read(
                "following",
                FOLLOWING,
                "user:ann:following:1",
                30 * MINUTE,
                &["following:ann"],
            ),
            read(
                "coin-packages",
                PACKAGES,
                "coins:packages",
                HOUR,
                &["coin-packages"],
            ),
            read("settings", SETTINGS, "system:settings", HOUR, &["settings"]),
            read(
                "feature-flags",
                FLAGS,
                "system:flags",
                MINUTE,
                &["settings"],
            ),
            own("session", SESSION, "session:ann", 5 * MINUTE, &["user:ann"]),
            own(
                "preferences",
                PREFERENCES,
                "user:ann:preferences",
                30 * MINUTE,
                &["user:ann"],
            ),
            own(
                "library",
                LIBRARY,
                "user:ann:library",
                5 * MINUTE,
                &["user:ann"],
            ),
            own(
                "coin-balance",
                BALANCE,
                "coins:balance:ann",
                5 * MINUTE,
                &["coins:ann"],
            ),
            own(
                "gift-history",
                GIFTS,
                "gifts:ann:1",
                5 * MINUTE,
                &["coins:ann"],
            ),
            own(
                "revenue",
                REVENUE,
                "revenue:ann",
                24 * HOUR,
                &["revenue:ann"],
            ),
        ],
        writes: vec![
            write(
                "story-create",
                ("POST", "/api/stories"),
                (201, story),
                &[SEARCH, AUTHORS, SUGGESTIONS, CRIME, ANN],
            )
            .fills(MADE),
            write(
                "story-create",
                ("POST", "/api/stories"),
                (201, json!({ "id": "s3" })),
                &[SEARCH, AUTHORS, SUGGESTIONS, POPULAR, TRENDING, CRIME, LOVE],
            )
            .fills(MADE),
            write(
                "story-write",
                ("PUT", STORY),
                (200, json!({ "id": "s1" })),
                &[
                    CHAPTERS,
                    CHAPTER,
                    OTHER_CHAPTER,
                    STATISTICS,
                    POPULAR,
                    TRENDING,
                    CRIME,
                    LOVE,
                    SEARCH,
                    AUTHORS,
                    SUGGESTIONS,
                ],
            )
            .fills(STORY),
            write(
                "story-write",
                ("DELETE", STORY),
                (204, json!(null)),
                &[
                    STORY,
                    CHAPTERS,
                    CHAPTER,
                    OTHER_CHAPTER,
                    STATISTICS,
                    POPULAR,
                    TRENDING,
                    CRIME,
                    LOVE,
                    SEARCH,
                    AUTHORS,
                    SUGGESTIONS,
                ],
            ),
            write(
                "chapter-create",
                ("POST", CHAPTERS),
                (201, json!({ "id": "c3" })),
                &[
                    STORY,
                    CHAPTERS,
                    CHAPTER,
                    OTHER_CHAPTER,
                    STATISTICS,
                    POPULAR,
                    TRENDING,
                    CRIME,
                    LOVE,
                ],
            ),
            write(
                "chapter-write",
                ("PATCH", CHAPTER),
                (200, json!({ "id": "c1" })),
                &[STORY, CHAPTERS, OTHER_CHAPTER, STATISTICS],
            )
            .fills(CHAPTER),
            write(
                "rating",
                ("POST", "/api/stories/s1/ratings"),
                (201, json!({})),
                &[STORY, STATISTICS],
            ),
            write(
                "profile-write",
                ("PATCH", ANN),
                (200, json!({ "id": "ann", "bio": "x" })),
                &[STORY, OTHER, MADE, POPULAR, TRENDING, CRIME, LOVE],
            )
            .fills(ANN),
            write(
                "follow",
                ("POST", "/api/users/bob/follow"),
                (200, json!({})),
                &[BOB, ANN, FOLLOWERS, FOLLOWING],
            ),
            write(
                "follow",
                ("DELETE", "/api/users/bob/follow"),
                (204, json!(null)),
                &[BOB, ANN, FOLLOWERS, FOLLOWING],
            ),
            write(
                "sign-in",
                ("POST", "/api/auth/logout"),
                (204, json!(null)),
                &[SESSION],
            ),
            write(
                "preferences-write",
                ("PUT", PREFERENCES),
                (200, json!({})),
                &[PREFERENCES, SESSION],
            ),
            write(
                "library-write",
                ("POST", "/api/me/library/s1"),
                (201, json!({})),
                &[LIBRARY],
            ),
            write(
                "coin-package-create",
                ("POST", PACKAGES),
                (201, json!({})),
                &[PACKAGES],
            ),
            write(
                "coin-package-write",
                ("PATCH", "/api/coins/packages/p1"),
                (200, json!({})),
                &[PACKAGES],
            ),
            write(
                "coin-purchase",
                ("POST", "/api/coins/purchases"),
                (201, json!({})),
                &[BALANCE, GIFTS],
            ),
            write("gift", ("POST", GIFTS), (201, json!({})), &[BALANCE, GIFTS])
                .of(json!({ "recipient_id": "bob" })),
            write(
                "settings-write",
                ("PUT", SETTINGS),
                (200, json!({})),
                &[SETTINGS, FLAGS],
            ),
            write(
                "settings-write",
                ("PATCH", "/api/system/flags/new-reader"),
                (200, json!({})),
                &[SETTINGS, FLAGS],
            ),
        ],
        others: &[("internal", ("POST", "/internal/views/batch"))],
        limits: (
            "\"default\";q=120;w=60",
            &[
                ("story-create", "\"writing\";q=30;w=60"),
                ("story-write", "\"writing\";q=30;w=60"),
                ("chapter-create", "\"writing\";q=30;w=60"),
                ("chapter-write", "\"writing\";q=30;w=60"),
                // Nobody is admitted.
                ("internal", ""),
                ("search", "\"search\";q=60;w=60"),
                ("author-search", "\"search\";q=60;w=60"),
                ("autocomplete", "\"suggestions\";q=600;w=60"),
                ("follow", "\"social\";q=60;w=60"),
                ("sign-in", "\"auth\";q=10;w=60"),
                ("coin-purchase", "\"money\";q=10;w=60"),
                ("gift", "\"money\";q=10;w=60"),
                ("feature-flags", "\"default\";q=300;w=60"),
            ],
        ),
    }
}
