//! Plan 4.

use serde_json::json;

use super::{Team, own, read, write};

const LIST: &str = "/api/notifications";
const SECOND: &str = "/api/notifications?page=2";
const UNREAD: &str = "/api/notifications/unread-count";
const NEWS: &str = "/api/notifications/announcements";

pub fn team() -> Team {
    Team {
        name: "fablespace",
        text: include_str!("../../../policies/fablespace.toml"),
        reads: vec![
            read(
                "announcements",
                NEWS,
                "notifications:announcements:1",
                30,
                &["announcements"],
            ),
            own(
                "notifications",
                LIST,
                "notifications:list:ann:1",
                30,
                &["notifications", "notifications:ann"],
            ),
            own(
                "notifications",
                SECOND,
                "notifications:list:ann:2",
                30,
                &["notifications", "notifications:ann"],
            ),
            own(
                "unread-count",
                UNREAD,
                "notifications:unread:ann",
                60,
                &["notifications", "notifications:ann"],
            ),
        ],
        writes: vec![
            write(
                "notification-create",
                ("POST", LIST),
                (201, json!({})),
                &[LIST, SECOND, UNREAD],
            )
            .of(json!({ "user_id": "ann" })),
            write(
                "notification-create",
                ("POST", LIST),
                (201, json!({})),
                &[LIST, SECOND, UNREAD],
            )
            .of(json!({ "user_id": ["bob", "ann"] })),
            write("notification-create", ("POST", LIST), (201, json!({})), &[])
                .of(json!({ "user_id": "bob" })),
            write(
                "notification-create",
                ("POST", LIST),
                (201, json!({})),
                &[LIST, SECOND, UNREAD],
            ),
            write(
                "announcement-create",
                ("POST", NEWS),
                (201, json!({})),
                &[NEWS, LIST, SECOND, UNREAD],
            ),
            write(
                "notification-read",
                ("PATCH", "/api/notifications/n1"),
                (200, json!({})),
                &[LIST, SECOND, UNREAD],
            ),
            write(
                "notification-read",
                ("DELETE", "/api/notifications/n1"),
                (204, json!(null)),
                &[LIST, SECOND, UNREAD],
            ),
            write(
                "notifications-read-all",
                ("POST", "/api/notifications/read-all"),
                (200, json!({})),
                &[LIST, SECOND, UNREAD],
            ),
        ],
        others: &[
            ("read-story", ("GET", "/api/stories/s1")),
            ("read-chapter", ("GET", "/api/stories/s1/chapters/c1")),
            ("internal", ("POST", "/internal/views/batch")),
            ("search", ("GET", "/api/search?q=a")),
            ("story-create", ("POST", "/api/stories")),
            ("story-write", ("POST", "/api/stories/s1/chapters")),
            ("story-write", ("DELETE", "/api/stories/s1")),
            ("sign-in", ("POST", "/api/auth/login")),
            ("upload", ("POST", "/api/uploads")),
        ],
        limits: (
            "\"default\";q=100;w=60",
            &[
                // Nobody is admitted.
                ("internal", ""),
                ("search", "\"search\";q=30;w=60"),
                ("story-create", "\"address\";q=60;w=60, \"user\";q=10;w=60"),
                ("story-write", "\"address\";q=60;w=60, \"user\";q=30;w=60"),
                ("sign-in", "\"auth\";q=5;w=60"),
                ("upload", "\"upload\";q=10;w=60"),
                ("notification-create", "\"notify\";q=30;w=60"),
                ("announcement-create", "\"notify\";q=30;w=60"),
            ],
        ),
    }
}
