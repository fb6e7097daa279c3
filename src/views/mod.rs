//! Views: counted after the answer, kept in Redis, sent to the origin in batches.
//!
//! An item's viewers of one day are a set, so that to count somebody twice changes nothing:
//! the set is the count and who has been counted at once. Beside it stands how many of them
//! the origin has been told, which only grows; the difference is pending. A day's items lie
//! in buckets, and bits say in which hour a bucket got a view, so nothing is ever scanned for.
//!
//! | key | type | holds |
//! |-----|------|-------|
//! | `views:{kind}:{day}:{id}` | set | viewers of an item, as numbers |
//! | `views:_items:{day}:{bucket}` | sorted set | `{kind}:{id}`, and how many of its viewers were sent |
//! | `views:_dirty:{day}` | string | a bit for each hour and bucket in which something was counted |
//! | `views:_seen:{kind}:{day}` | HyperLogLog | all views of a kind, for the alert and the metric |
//! | `views:_totals:{bucket}` | hash | what the origin said an item has in all |
//! | `views:_sync` | string | the last pass, and where the one under way is |
//! | `views:_batch:{number}` | string | a batch that is not ended; empty: it is |
//! | `views:_lock`, `views:_claim:{token}` | set | who is at work |
//! | `views:_backoff` | string | how often the origin refused, and until when it is left alone |
//!
//! A day is so many days after 1970 in UTC, by Redis' clock. No kind begins with `_`, and
//! ids are encoded, so no input is one of the other keys. Days that are not sent yet and a
//! batch that is not ended have no expiry; all else has one.

pub mod count;
pub mod due;
mod ended;
pub mod item;
pub mod merge;
pub mod origin;
mod pass;
mod peek;
pub mod pending;
pub mod record;
pub mod sync;

/// A bucket of a million items holds 61: below 128 a sorted set is one packed list.
pub const BUCKETS: u64 = 16_384;
pub const HOUR_MS: u64 = 3_600_000;
pub const DAY_MS: u64 = 24 * HOUR_MS;
/// After the end of a day its views may still arrive for so long.
pub const GRACE_MS: u64 = HOUR_MS;
/// Days before today that are looked at: so long the origin may be down.
pub const MAX_DAYS: u64 = 60;
/// Of what is no view.
pub const LONG_MS: u64 = (MAX_DAYS + 2) * DAY_MS;
/// So many are too many to wait for the next pass (plan 4, alerts).
pub const MANY_PENDING: u64 = 100_000;

pub const LOCK: &str = "views:_lock";
pub const STATE: &str = "views:_sync";
pub const BACKOFF: &str = "views:_backoff";

/// Whether nobody counts for that day any more.
pub fn is_over(day: u64, now_ms: u64) -> bool {
    now_ms >= (day + 1) * DAY_MS + GRACE_MS
}

pub fn items_key(day: u64, bucket: u64) -> String {
    numbered(&numbered("views:_items:", day), bucket)
}

pub fn dirty_key(day: u64) -> String {
    numbered("views:_dirty", day)
}

pub fn seen_key(kind: &str, day: u64) -> String {
    let mut key = String::from("views:_seen:");
    key.push_str(kind);
    numbered(&key, day)
}

pub fn totals_key(bucket: u64) -> String {
    numbered("views:_totals", bucket)
}

pub fn batch_key(number: u64) -> String {
    numbered("views:_batch", number)
}

/// A key with a number behind it, after one colon.
fn numbered(key: &str, number: u64) -> String {
    let mut key = key.to_owned();
    if !key.ends_with(':') {
        key.push(':');
    }
    key.push_str(&number.to_string());
    key
}
