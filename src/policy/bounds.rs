//! Every bound of a policy, with its arithmetic.
//!
//! The grammar refuses what exceeds them, so nothing later has to.

/// A policy's text. Cloudflare takes 5 KB a variable; a built-in one of 500 routes of
/// 600 bytes has 300 KB.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// Tables in tables: the grammar itself needs 6 (`route`, item, `cache`, `warm`, `values`, list).
pub const MAX_DEPTH: usize = 16;
/// What one answer or screen can show; the rest is counted.
pub const MAX_ERRORS: usize = 100;
/// Matching looks at every route: 500 take about 10 µs.
pub const MAX_ROUTES: usize = 500;
/// Each is a command in every request's pipeline.
pub const MAX_LIMITS: usize = 8;
/// Each is one more generation to read with an entry.
pub const MAX_TAGS: usize = 16;
/// Keys that one write purges.
pub const MAX_PURGE_KEYS: usize = 16;
pub const MAX_QUERY_PARAMETERS: usize = 16;
/// Entries of a composed answer; a cold one makes as many origin requests, and the
/// free plan has 50 subrequests, the paid one 1000.
pub const MAX_PARTS: usize = 64;
/// Items that one request counts: each is a few commands of its trip, or a request to the
/// origin.
pub const MAX_VIEWS: usize = 8;
/// Each is looked for in the User-Agent of a counted request.
pub const MAX_BOTS: usize = 100;
pub const MAX_METHODS: usize = 8;
pub const MAX_METHOD_BYTES: usize = 16;
pub const MAX_SEGMENTS: usize = 32;
/// Names appear in Redis keys, header fields and metric labels.
pub const MAX_NAME_BYTES: usize = 64;
/// A path as the policy writes it.
pub const MAX_PATH_BYTES: usize = 1024;
/// A key or tag as the policy writes it.
pub const MAX_TEMPLATE_BYTES: usize = 256;
/// A default of a query parameter, or a value of `each`.
pub const MAX_VALUE_BYTES: usize = 256;
/// A key or tag with its values in it. Upstash takes 32 KB.
pub const MAX_RENDERED_BYTES: usize = 1024;
/// One value that a JSON pointer finds.
pub const MAX_POINTED_BYTES: usize = 512;
/// Values of a list that a JSON pointer finds: each makes a key or tag of its own.
pub const MAX_POINTED_VALUES: usize = 32;
/// The listed parameters of one request, encoded; longer ones bypass the cache.
pub const MAX_SELECTED_BYTES: usize = 4096;

/// Entries of `allow`, of `deny` and of `proxies`. Each is looked at for each request: 2 000
/// take about 20 µs.
pub const MAX_SUBJECTS: usize = 1000;
/// Entries that all routes together inherit from the default limits: 32 bytes each, 3 MB.
pub const MAX_INHERITED: usize = 100_000;
/// A user or an id as a list names it; no verified user is longer.
pub const MAX_SUBJECT_BYTES: usize = 256;

/// The largest limit: a window's total is one u32, and so is twice this minus one.
pub const MAX_REQUESTS: u32 = 1 << 31;
/// 31 days.
pub const MAX_WINDOW_MS: u64 = 31 * 24 * 3_600_000;
/// Of the algorithms without buckets: `Retry-After` has whole seconds.
pub const MIN_WINDOW_MS: u64 = 1_000;
/// A sliding log keeps a member of about 100 bytes for each cost unit: 1 MB a key.
pub const MAX_LOG_REQUESTS: u32 = 10_000;
/// Members that one request adds to a log: 4 KB a command.
pub const MAX_LOG_COST: u32 = 100;
/// A token bucket counts whole microseconds a unit: so many a millisecond lose at most 1 %.
pub const MAX_BUCKET_RATE: u64 = 10;
/// Below it a lease would be less than one request in most buckets.
pub const MIN_LEASED_REQUESTS: u32 = 20;
pub const DEFAULT_STRIKE_AFTER: u32 = 5;
pub const DEFAULT_BAN_MS: u64 = 60_000;
pub const DEFAULT_MAX_BAN_MS: u64 = 3_600_000;
/// Told in whole seconds too.
pub const MIN_BAN_MS: u64 = 1_000;
/// Whoever gets an address next should not inherit its ban for longer.
pub const MAX_BAN_MS: u64 = 24 * 3_600_000;
/// The smallest part of IPv6 that registries give away, and one address.
pub const MIN_IPV6_PREFIX: u8 = 32;
pub const MAX_IPV6_PREFIX: u8 = 128;
pub const MIN_TIMEOUT_MS: u64 = 10;
/// Longer than this nobody waits for a limit.
pub const MAX_REDIS_TIMEOUT_MS: u64 = 10_000;
pub const MAX_ORIGIN_TIMEOUT_MS: u64 = 300_000;
/// Entry lifetimes are sent to Redis in seconds' precision at the least.
pub const MIN_TTL_MS: u64 = 1_000;
/// Generations live 172 800 s; an entry that outlived its generation could never be served.
pub const MAX_LIFE_MS: u64 = 172_800_000;
/// Whoever purges elsewhere waits no longer than this for an isolate to notice.
pub const MAX_L1_MS: u64 = 60_000;
pub const DEFAULT_L1_MS: u64 = 1_000;
/// Entries that one route keeps warm: a run of the cron fetches 40, so in half an hour all.
pub const MAX_WARM_KEYS: usize = 200;
/// Of all routes together: what a run looks at, ten trips.
pub const MAX_WARM_TOTAL: usize = 1_000;
/// Longer than this nobody waits for a fresher answer.
pub const MAX_PATIENCE_MS: u64 = 60_000;
pub const MIN_PATIENCE_MS: u64 = 10;
/// Upstash takes 10 MB a request; base64 and the rest of the pipeline need their share.
pub const MAX_ENTRY_BYTES: u64 = 1024 * 1024;

pub const DEFAULT_REDIS_TIMEOUT_MS: u64 = 150;
pub const DEFAULT_ORIGIN_TIMEOUT_MS: u64 = 10_000;
pub const DEFAULT_REQUESTS: u32 = 100;
pub const DEFAULT_WINDOW_MS: u64 = 60_000;

/// A window has at most this many buckets: it keeps a key below 1 KB and lateness below 1 %.
pub const MAX_BUCKETS: u64 = 240;
/// A leased window has at most this many: at 2 s in a minute an isolate spends what a
/// moderate load brings, and lateness stays below a tenth of the window.
pub const MAX_LEASED_BUCKETS: u64 = 30;
/// A window has at least this many buckets, or two buckets' lateness would be too much of it.
pub const MIN_BUCKETS: u64 = 10;
/// The clock skew that may remain once an isolate knows its offset from Redis.
pub const RESIDUAL_SKEW_MS: u64 = 100;
pub const MIN_BUCKET_MS: u64 = 250;

/// The bucket of a sliding window (DESIGN, sliding window).
pub fn bucket_ms(window_ms: u64, redis_timeout_ms: u64) -> u64 {
    window_ms
        .div_ceil(MAX_BUCKETS)
        .max(redis_timeout_ms.saturating_add(RESIDUAL_SKEW_MS))
        .max(MIN_BUCKET_MS)
}

/// The bucket of a leased limit: an isolate that spends permits for one bucket asks so
/// many times a window.
pub fn leased_bucket_ms(window_ms: u64, redis_timeout_ms: u64) -> u64 {
    bucket_ms(0, redis_timeout_ms).max(window_ms.div_ceil(MAX_LEASED_BUCKETS))
}

/// The shortest sliding window, leased or not: above it neither `ceil(window / 240)` nor
/// `ceil(window / 30)` makes fewer than 10 buckets.
pub fn min_window_ms(redis_timeout_ms: u64) -> u64 {
    MIN_BUCKETS * bucket_ms(0, redis_timeout_ms)
}
