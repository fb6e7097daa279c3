//! The checked policy: every reference resolved, every default filled in.

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
    pub compose: Option<Vec<Part>>,
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
    /// Cost units of one request, 1 unless said; at most `requests`.
    pub cost: u32,
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

/// How answers of a route are kept (`mode = "policy"`, `scope = "shared"`).
#[derive(Debug, Clone)]
pub struct CacheRule {
    pub key: Template,
    pub ttl_ms: u64,
    /// How long past `ttl_ms` an entry may still be served.
    pub stale_ms: u64,
    /// For 404 and 410; `None`: not stored.
    pub negative_ms: Option<u64>,
    pub max_bytes: usize,
    pub tags: Vec<Template>,
    /// Listed parameters in the policy's order; no others reach key or origin.
    pub query: Vec<QueryParameter>,
    /// `credentials = "forward"`: Cookie and Authorization go to the origin, and
    /// nothing that had either is stored.
    pub forward_credentials: bool,
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
