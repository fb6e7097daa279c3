//! The checked policy: every reference resolved, every default filled in.

use super::bounds::DEFAULT_L1_MS;

/// What a whole policy says.
#[derive(Debug, Clone)]
pub struct Policy {
    pub defaults: Defaults,
    pub routes: Vec<Route>,
}

#[derive(Debug, Clone)]
pub struct Defaults {
    pub limits: Vec<Limit>,
    pub timeout: Timeouts,
    pub headers: Vec<HeaderProfile>,
    pub redis_down: RedisDown,
    pub address: Address,
    /// Ids stand in keys and reports as keyed hashes.
    pub hash_ids: bool,
    /// Lower-case parts of User-Agent whose views are not counted.
    pub bots: Vec<String>,
}

/// How the client's address is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A lower-case field, read from right to left when a trusted proxy connects.
    pub header: Option<String>,
    /// Networks that may set it.
    pub proxies: Vec<Subject>,
    /// Bits of an IPv6 address that are one client.
    pub ipv6_prefix: u8,
}

impl Default for Address {
    fn default() -> Self {
        Self {
            header: None,
            proxies: Vec::new(),
            // What one subscriber gets.
            ipv6_prefix: 64,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For one trip to Redis.
    pub redis_ms: u64,
    /// Until the origin's headers.
    pub origin_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderProfile {
    /// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11).
    Draft11,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    Legacy,
}

/// What a limited request gets while Redis does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisDown {
    /// This isolate's own counts.
    Local,
    /// Admitted.
    Open,
    /// 503.
    Closed,
}

#[derive(Debug, Clone)]
pub struct Route {
    /// Unique; appears in keys, headers, metrics. `[a-z0-9_-]`, not `_` or `-` first.
    pub name: String,
    /// Upper case; empty means any.
    pub methods: Vec<String>,
    pub path: PathTemplate,
    /// The route's own limits, or the default ones.
    pub limits: Vec<Limit>,
    pub redis_down: RedisDown,
    pub cache: Option<CacheRule>,
    pub purge: Option<PurgeRule>,
    pub fill: Option<FillRule>,
    pub compose: Option<Vec<Part>>,
    pub view: Option<ViewRule>,
    /// Variables that turn a part of the route off.
    pub switches: Vec<Switch>,
}

impl Route {
    /// How long an isolate serves its own entries of this route without asking; 0: it
    /// keeps none. Where no limit needs a trip it is not for a default to make purges late.
    #[inline]
    pub fn l1_ms(&self) -> u64 {
        let Some(rule) = &self.cache else { return 0 };
        rule.l1_ms.unwrap_or(match self.limits.is_empty() {
            true => 0,
            false => DEFAULT_L1_MS,
        })
    }
}

/// A variable that is true unless set to false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// `RATE_LIMIT_REDIS_ENABLED`: the route's limits are this isolate's own.
    RateLimitRedis,
    /// `VIEW_TRACKING_REDIS_ENABLED`: views go straight to the origin.
    ViewTrackingRedis,
    /// `NOTIFICATION_CACHE_ENABLED`: nothing is cached.
    NotificationCache,
    /// `NOTIFICATION_RATE_LIMIT_ENABLED`: there are no limits.
    NotificationRateLimit,
}

impl Switch {
    pub const VARIABLES: [(&'static str, Self); 4] = [
        ("RATE_LIMIT_REDIS_ENABLED", Self::RateLimitRedis),
        ("VIEW_TRACKING_REDIS_ENABLED", Self::ViewTrackingRedis),
        ("NOTIFICATION_CACHE_ENABLED", Self::NotificationCache),
        (
            "NOTIFICATION_RATE_LIMIT_ENABLED",
            Self::NotificationRateLimit,
        ),
    ];
}

/// One limit: `requests` cost units in any `window_ms`, counted per id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Unique within its list; of the same characters as a route's.
    pub name: String,
    pub requests: u32,
    pub window_ms: u64,
    pub by: By,
    pub per: Per,
    pub cost: Cost,
    pub algorithm: Algorithm,
    /// Permits are charged ahead and spent by the isolate that charged them.
    pub lease: bool,
    /// Counts and reports, never refuses.
    pub shadow: bool,
    pub penalty: Option<Penalty>,
    /// Whom it does not count.
    pub allow: Vec<Subject>,
    /// Whom it always refuses.
    pub deny: Vec<Subject>,
    /// The share of ids that it counts, in percent.
    pub rollout: u8,
}

impl Limit {
    /// A sliding window with nothing else about it.
    pub fn new(name: impl Into<String>, requests: u32, window_ms: u64, by: By) -> Self {
        Self {
            name: name.into(),
            requests,
            window_ms,
            by,
            per: Per::Route,
            cost: Cost::flat(1),
            algorithm: Algorithm::SlidingWindow,
            lease: false,
            shadow: false,
            penalty: None,
            allow: Vec::new(),
            deny: Vec::new(),
            rollout: 100,
        }
    }
}

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Never more than `requests` in any window, in constant memory.
    SlidingWindow,
    /// The same, to the residual skew of the clocks, in memory for every request.
    SlidingLog,
    /// GCRA: `burst` at once, and `requests` a window after that.
    TokenBucket { burst: u32 },
    /// Windows that begin when the last one ends, counted from the Unix epoch.
    FixedWindow,
}

/// Cost units of one request by its outcome; each at most `requests`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Answered from the cache.
    pub hit: u32,
    /// The origin was asked for this request.
    pub miss: u32,
    /// The origin failed or answered 5xx: what it costs instead, at most `miss`.
    pub error: u32,
}

impl Cost {
    pub fn flat(cost: u32) -> Self {
        Self {
            hit: cost,
            miss: cost,
            error: cost,
        }
    }

    #[inline]
    pub fn is_flat(&self) -> bool {
        self.hit == self.miss && self.miss == self.error
    }
}

/// Progressive backoff of an address that goes on after refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalty {
    /// Offences in one window of the limit that make a strike.
    pub after: u32,
    /// The first ban; each further strike doubles it.
    pub base_ms: u64,
    pub max_ms: u64,
}

/// Whom a list names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Addresses whose first `prefix` bits are those of `bits`; IPv4 is mapped into IPv6.
    Network { bits: u128, prefix: u8 },
    /// A verified user, by `sub`.
    User(String),
    /// What the limit counts by: a user, or a header's value.
    Id(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    Ip,
    /// The verified user, else the address.
    User,
    Global,
    /// A request header, by lower-case name; absent counts as one id.
    Header(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    Route,
    /// One count over all routes that name this limit.
    All,
}

/// How answers of a route are kept.
#[derive(Debug, Clone)]
pub struct CacheRule {
    pub key: Template,
    pub ttl_ms: u64,
    /// The variable that says `ttl_ms`.
    pub ttl_from: Option<&'static str>,
    /// How long past `ttl_ms` an entry may still be served.
    pub stale_ms: u64,
    /// How long an isolate serves an entry of its own after Redis confirmed it, without
    /// asking; `None`: not said.
    pub l1_ms: Option<u64>,
    /// For 404 and 410; `None`: not stored.
    pub negative_ms: Option<u64>,
    pub max_bytes: usize,
    pub tags: Vec<Template>,
    /// Listed parameters in the policy's order; no others reach key or origin.
    pub query: Vec<QueryParameter>,
    /// `mode = "http"`: the origin's headers say what is kept; `key`, `ttl_ms`,
    /// `negative_ms` and `query` are nothing.
    pub by_origin: bool,
    /// `credentials = "forward"`: Cookie and Authorization go to the origin, and
    /// nothing that had either is stored.
    pub forward_credentials: bool,
    /// `format` and `scope`: what an entry is in Redis, and for whom.
    pub form: Form,
    pub warm: Option<Warm>,
    /// How long a request waits for the origin before it gets a stale entry; `None`: not at
    /// all.
    pub patience_ms: Option<u64>,
}

/// What an entry is in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The origin's JSON, which backends read and write too, beside its meta record.
    Plain,
    /// `format = "packed"`: body and record in one value, any bytes, compressed when it pays.
    Packed,
    /// `scope = "user"`: the same of one user, encrypted, never compressed.
    User,
}

/// Which entries the cron keeps fresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warm {
    /// Below `ttl_ms`.
    pub every_ms: u64,
    /// Values of placeholders and of listed parameters, in the policy's order.
    pub values: Vec<(String, Vec<String>)>,
    /// So many of the most asked ones of the last hour.
    pub top: usize,
}

impl Warm {
    /// Every combination of the values; without any a single empty one, or none beside `top`.
    pub fn combinations(&self) -> Vec<Vec<(&str, &str)>> {
        if self.values.is_empty() && self.top > 0 {
            return Vec::new();
        }
        let mut all = vec![Vec::new()];
        for (name, values) in &self.values {
            let mut longer = Vec::with_capacity(all.len() * values.len());
            for begun in &all {
                for value in values {
                    let mut one = begun.clone();
                    one.push((name.as_str(), value.as_str()));
                    longer.push(one);
                }
            }
            all = longer;
        }
        all
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryParameter {
    pub name: String,
    pub default: Option<String>,
}

/// What a successful write purges.
#[derive(Debug, Clone)]
pub struct PurgeRule {
    pub keys: Vec<Template>,
    pub tags: Vec<Template>,
    /// Tags that are purged when a value of `keys` or `tags` is not there.
    pub otherwise: Vec<Template>,
    /// `mode = "soft"`: entries are stale from then on, instead of gone.
    pub is_soft: bool,
}

/// The entry that the answer of a successful write becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FillRule {
    /// Index into `Policy::routes`; that route has a cache rule in `policy` mode.
    pub route: usize,
    /// Where the value of each placeholder of that route's path comes from.
    pub with: Vec<(String, Given)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// A placeholder of the write's own path.
    Path(String),
    /// RFC 6901, in the write's answer.
    Response(String),
}

impl FillRule {
    pub fn needs_response(&self) -> bool {
        (self.with.iter()).any(|(_, given)| matches!(given, Given::Response(_)))
    }
}

/// What a 2xx answer shows, and where it carries what is pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewRule {
    pub items: Vec<ViewItem>,
    pub merge: Option<Merge>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewItem {
    /// Of the same characters as a route's name.
    pub kind: String,
    pub id: Template,
}

/// To which numbers of an answer pending views are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// To the one at this pointer (RFC 6901), those of the rule's first item.
    Own(String),
    /// To `field` of every object that has the `id` of an item of this kind.
    Objects {
        field: String,
        kind: String,
        id: String,
    },
}

/// One named part of a composed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    /// Index into `Policy::routes`; that route has a cache rule.
    pub route: usize,
    pub each: Option<Each>,
}

/// A part repeated: an object from value to body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Each {
    pub placeholder: String,
    pub values: Vec<String>,
}

/// `/api/{name}/rest/{tail...}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    pub segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// In normal form.
    Literal(String),
    /// `{name}`: one segment, never empty.
    One(String),
    /// `{name...}`: the rest, slashes included; only last.
    Rest(String),
}

/// Text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// A path placeholder or a listed query parameter.
    Value(String),
    /// `{hash}`: MD5 of the listed query parameters.
    Hash,
    /// `{user}`: the verified user.
    User,
    /// `{body:/pointer}` (RFC 6901).
    Body(String),
    /// `{response:/pointer}` (RFC 6901).
    Response(String),
}
