//! The Worker's variables and secrets, read and checked once.
//!
//! The policy's text is kept as it came; whether it is a policy is not judged here.
//! No error and no `Debug` output holds a secret. An empty variable counts as unset.

use std::fmt;

use crate::base64;
use crate::policy::bounds::{MAX_LIFE_MS, MAX_REQUESTS, MAX_WINDOW_MS};
use crate::policy::{Form, Policy, Route, Switch};
use crate::redis::{Endpoint, MAX_SHARDS};
use crate::views::due::{Cron, MAX_INTERVAL_HOURS, Schedule};

/// What the variables say.
#[derive(Debug, Clone)]
pub struct Config {
    /// `None` when `REDIS_ENABLED` is false.
    pub redis: Option<RedisConfig>,
    /// Those that are false. Without `RateLimitRedis` all limits are this isolate's own,
    /// even where Redis is there for the cache; a route names those of the others
    /// that concern it.
    pub switched_off: Vec<Switch>,
    /// Without a slash at its end; `None`: the zone's own origin.
    pub origin_url: Option<String>,
    /// `None`: there is no admin API.
    pub admin_token: Option<Secret>,
    /// `None`: no user is ever known.
    pub jwt_secret: Option<Secret>,
    /// Of `hash_ids`: whoever could undo the hashes can read the database itself. The first
    /// of several tokens, so that a database more makes nobody another id.
    pub hash_key: Option<Secret>,
    /// Of users' entries: the first encrypts, each decrypts; empty: `CACHE_KEY` is not set.
    pub cache_keys: Vec<CacheKey>,
    /// JSON that replaces the policy built in.
    pub policy: Option<String>,
    /// `RATE_LIMIT_WINDOW_MS`, at least 1.
    pub rate_limit_window_ms: Option<u64>,
    /// `RATE_LIMIT_MAX_REQUESTS`, from 1 to 2^31.
    pub rate_limit_max_requests: Option<u32>,
    /// `NOTIFICATION_CACHE_TTL`, as the next one from 1 to 172 800.
    pub notification_cache_ttl_s: Option<u64>,
    /// `UNREAD_COUNT_CACHE_TTL`.
    pub unread_count_cache_ttl_s: Option<u64>,
    /// `VIEW_SYNC_CRON`, else `VIEW_SYNC_INTERVAL_HOURS`.
    pub views: Schedule,
}

#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// At least one; the first has all else that is not the cache's.
    pub limits: Vec<Endpoint>,
    /// `None`: cache entries are in the same database.
    pub cache: Option<Endpoint>,
}

/// Text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A key of AES-256, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheKey")
    }
}

/// A variable that is missing or malformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub variable: &'static str,
    /// What is wrong and what to do; follows the variable's name. Never its value.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.variable, self.problem)
    }
}

/// Longer than what Cloudflare takes as a variable.
const MAX_URL_BYTES: usize = 2_048;
const MAX_TOKEN_BYTES: usize = 4_096;
/// The new key, and the old one for as long as entries live that it encrypted.
const MAX_CACHE_KEYS: usize = 2;

pub const CACHE_KEY: &str = "CACHE_KEY";

impl Config {
    /// What is missing for this policy alone. Without Redis nothing is stored, and of the policy built in, which must
    /// do with what is required of all, what is a user's passes uncached without a key.
    pub fn check(&self, policy: &Policy) -> Result<(), ConfigError> {
        let is_of_user = |route: &Route| {
            let rule = route.cache.as_ref();
            rule.is_some_and(|rule| rule.form == Form::User)
        };
        let is_chosen = self.redis.is_some() && self.policy.is_some();
        let needs_key = is_chosen && policy.routes.iter().any(is_of_user);
        if needs_key && self.cache_keys.is_empty() {
            return Err(problem(
                CACHE_KEY,
                "is not set although the policy caches what is a user's; set it to 32 random bytes in base64",
            ));
        }
        Ok(())
    }

    /// Reads the variables through `get`; the first problem found is returned.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let vars = Vars(get);
        Ok(Self {
            redis: vars.redis()?,
            switched_off: vars.switched_off()?,
            origin_url: vars.url("ORIGIN_URL")?,
            admin_token: vars.trimmed("ADMIN_TOKEN").map(Secret),
            // Every byte of a key counts, spaces too.
            jwt_secret: vars.raw("JWT_SECRET").map(Secret),
            hash_key: vars.trimmed("UPSTASH_REDIS_REST_TOKEN").map(|tokens| {
                let first = tokens.split(',').next().unwrap_or_default();
                Secret::new(first.trim())
            }),
            cache_keys: vars.cache_keys()?,
            policy: vars.trimmed("POLICY"),
            rate_limit_window_ms: vars.number("RATE_LIMIT_WINDOW_MS", MAX_WINDOW_MS)?,
            rate_limit_max_requests: vars
                .number("RATE_LIMIT_MAX_REQUESTS", u64::from(MAX_REQUESTS))?
                .and_then(|requests| u32::try_from(requests).ok()),
            notification_cache_ttl_s: vars.number("NOTIFICATION_CACHE_TTL", MAX_LIFE_MS / 1_000)?,
            unread_count_cache_ttl_s: vars.number("UNREAD_COUNT_CACHE_TTL", MAX_LIFE_MS / 1_000)?,
            views: vars.schedule()?,
        })
    }
}

struct Vars<G>(G);

impl<G: Fn(&str) -> Option<String>> Vars<G> {
    fn raw(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// Without the newline that `wrangler secret put` takes from a file.
    fn trimmed(&self, name: &str) -> Option<String> {
        let value = self.raw(name)?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn redis(&self) -> Result<Option<RedisConfig>, ConfigError> {
        if !self.switch("REDIS_ENABLED")? {
            return Ok(None);
        }
        const MISSING: &str = "is not set; it is required unless REDIS_ENABLED is false";
        const URL: &str = "UPSTASH_REDIS_REST_URL";
        const TOKEN: &str = "UPSTASH_REDIS_REST_TOKEN";
        let urls = require(URL, self.trimmed(URL), MISSING)?;
        let tokens = require(TOKEN, self.trimmed(TOKEN), MISSING)?;
        let limits = endpoints((URL, &urls), (TOKEN, &tokens))?;
        let cache = match (
            self.url("CACHE_REDIS_REST_URL")?,
            self.token("CACHE_REDIS_REST_TOKEN")?,
        ) {
            (None, None) => None,
            (url, token) => Some(Endpoint::new(
                require(
                    "CACHE_REDIS_REST_URL",
                    url,
                    "is not set although CACHE_REDIS_REST_TOKEN is; set both or neither",
                )?,
                require(
                    "CACHE_REDIS_REST_TOKEN",
                    token,
                    "is not set although CACHE_REDIS_REST_URL is; set both or neither",
                )?,
            )),
        };
        Ok(Some(RedisConfig { limits, cache }))
    }

    fn cache_keys(&self) -> Result<Vec<CacheKey>, ConfigError> {
        let mut keys: Vec<CacheKey> = Vec::new();
        let Some(list) = self.trimmed(CACHE_KEY) else {
            return Ok(keys);
        };
        for text in list.split(',') {
            let bytes = base64::decode(text.trim().as_bytes());
            let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            let key = key.map(CacheKey::new).ok_or_else(|| {
                problem(
                    CACHE_KEY,
                    "must be 32 bytes in base64, or two such keys with a comma between",
                )
            })?;
            if keys.contains(&key) {
                return Err(problem(CACHE_KEY, "names a key twice"));
            }
            keys.push(key);
        }
        match keys.len() <= MAX_CACHE_KEYS {
            true => Ok(keys),
            false => Err(problem(CACHE_KEY, "names more than two keys")),
        }
    }

    fn switched_off(&self) -> Result<Vec<Switch>, ConfigError> {
        let mut off = Vec::new();
        for (variable, switch) in Switch::VARIABLES {
            if !self.switch(variable)? {
                off.push(switch);
            }
        }
        Ok(off)
    }

    /// A switch; true unless it says otherwise.
    fn switch(&self, variable: &'static str) -> Result<bool, ConfigError> {
        let Some(value) = self.trimmed(variable) else {
            return Ok(true);
        };
        match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Ok(true),
            "false" | "0" | "off" | "no" => Ok(false),
            _ => Err(problem(variable, "must be true or false")),
        }
    }

    /// A whole number from 1 to `max`.
    fn number(&self, variable: &'static str, max: u64) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.trimmed(variable) else {
            return Ok(None);
        };
        // Digits alone: `parse` would take a plus sign too.
        Some(value)
            .filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|value| value.parse().ok())
            .filter(|number| (1..=max).contains(number))
            .map(Some)
            .ok_or_else(|| problem(variable, format!("must be a whole number from 1 to {max}")))
    }

    /// Both must be right, though one of them is enough.
    fn schedule(&self) -> Result<Schedule, ConfigError> {
        const CRON: &str = "VIEW_SYNC_CRON";
        let hours = self.number("VIEW_SYNC_INTERVAL_HOURS", MAX_INTERVAL_HOURS)?;
        let Some(text) = self.trimmed(CRON) else {
            return Ok(hours.map_or_else(Schedule::default, Schedule::Hours));
        };
        match Cron::parse(&text) {
            Some(cron) => Ok(Schedule::Cron(Box::new(cron))),
            None => Err(problem(
                CRON,
                "must be five fields of numbers, such as 0 2,14 * * *",
            )),
        }
    }

    fn token(&self, variable: &'static str) -> Result<Option<String>, ConfigError> {
        let token = self.trimmed(variable);
        token.map(|text| token_of(variable, &text)).transpose()
    }

    fn url(&self, variable: &'static str) -> Result<Option<String>, ConfigError> {
        let url = self.trimmed(variable);
        url.map(|text| url_of(variable, &text)).transpose()
    }
}

/// It becomes a header's value.
fn token_of(variable: &'static str, token: &str) -> Result<String, ConfigError> {
    if token.len() > MAX_TOKEN_BYTES {
        let text = format!("has more than {MAX_TOKEN_BYTES} bytes");
        return Err(problem(variable, text));
    }
    match token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(token.to_owned()),
        false => Err(problem(
            variable,
            "has a space, a control character or a character beyond ASCII",
        )),
    }
}

fn url_of(variable: &'static str, url: &str) -> Result<String, ConfigError> {
    match url_problem(url) {
        Some(text) => Err(problem(variable, text)),
        None => Ok(url.trim_end_matches('/').to_owned()),
    }
}

/// Databases for limits, as two lists with commas; one token may be all of theirs.
fn endpoints(
    (url_name, urls): (&'static str, &str),
    (token_name, tokens): (&'static str, &str),
) -> Result<Vec<Endpoint>, ConfigError> {
    let tokens = tokens
        .split(',')
        .map(|token| token_of(token_name, token.trim()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (at, url) in urls.split(',').enumerate() {
        let url = url_of(url_name, url.trim())?;
        if endpoints.iter().any(|known| known.url() == url) {
            return Err(problem(url_name, "names a database twice"));
        }
        let token = match tokens.as_slice() {
            [token] => token,
            tokens => tokens.get(at).ok_or_else(|| {
                problem(
                    token_name,
                    "has fewer tokens than there are URLs; list one for each, or one for all",
                )
            })?,
        };
        endpoints.push(Endpoint::new(url, token.as_str()));
    }
    if tokens.len() > endpoints.len() {
        return Err(problem(token_name, "has more tokens than there are URLs"));
    }
    if endpoints.len() > MAX_SHARDS {
        let text = format!("names more than {MAX_SHARDS} databases");
        return Err(problem(url_name, text));
    }
    Ok(endpoints)
}

fn problem(variable: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError {
        variable,
        problem: problem.into(),
    }
}

fn require(
    variable: &'static str,
    value: Option<String>,
    missing: &str,
) -> Result<String, ConfigError> {
    value.ok_or_else(|| problem(variable, missing))
}

/// What is wrong with a base URL. Paths are put behind it as they are, so it may have
/// a path but neither query nor fragment; user and password would end up in logs.
fn url_problem(url: &str) -> Option<&'static str> {
    if url.len() > MAX_URL_BYTES {
        return Some("is too long for a URL");
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some("has a space, a control character or a character beyond ASCII");
    }
    if url.contains(['?', '#', '\\']) {
        return Some("must be a URL without query, fragment and backslash");
    }
    let Some(rest) = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
    else {
        return Some("must start with https:// or http://");
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Some("must not hold a user or password");
    }
    let (host, port) = split_port(authority);
    if !is_host(host) {
        return Some("has no valid host");
    }
    match port {
        Some(port) if !is_port(port) => Some("has no valid port"),
        _ => None,
    }
}

/// Host and port of `host`, `host:port`, `[v6]` and `[v6]:port`.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_host(host: &str) -> bool {
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    }
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}
