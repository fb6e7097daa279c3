//! What the core needs of the world, as small traits without `Send`.
//!
//! A Worker isolate has one thread; every future here stays on it.

use std::future::Future;

use crate::config::CacheKey;
use crate::http::{Headers, Response};
use crate::redis::{Batch, RedisError, RedisErrorKind, Reply};

/// Which database a batch is for. Both are the same one unless
/// `CACHE_REDIS_REST_URL` is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    /// Limits, by the place of the database in the list: must not evict. The first one has
    /// all else that must not be lost.
    Limits(usize),
    /// Cache entries, their meta records, generations and fill locks: may evict.
    Cache,
}

pub trait Clock {
    /// Milliseconds since the Unix epoch by this isolate's clock, which may stand still
    /// between two waits.
    fn now_ms(&self) -> u64;

    fn sleep(&self, duration_ms: u64) -> impl Future<Output = ()>;
}

pub trait Random {
    /// 128 bits that nobody can guess.
    fn random(&self) -> u128;
}

pub trait Redis {
    /// The one method that costs a trip. On `Ok` there is exactly one reply per
    /// command, in order; a reply may itself be an error. Answers once
    /// this isolate has waited for `timeout_ms`, in any case; by the clock that may be
    /// later, when the isolate was held up (`redis::deadline`).
    fn pipeline(
        &self,
        store: Store,
        batch: &Batch,
        timeout_ms: u64,
    ) -> impl Future<Output = Result<Vec<Reply>, RedisError>>;
}

/// Why the origin gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginError {
    /// No headers within the deadline: 504.
    Timeout,
    /// Refused, reset, unresolvable, or the body broke off: 502.
    Unreachable,
}

/// A GET that the edge makes on its own, or a POST if it has a body.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// Path and query, starting with `/`.
    pub target: String,
    pub headers: Headers,
    pub body: Option<String>,
}

/// A body read up to a bound.
pub enum Bounded<B> {
    Whole(Vec<u8>),
    /// Longer than the bound: the untouched body, to be passed on.
    Longer(B),
    /// Not at its end within the deadline: the same.
    Slow(B),
}

pub trait Origin {
    /// A visitor's request whose body nobody has read yet.
    type Incoming;
    /// An answer's body that nobody has read yet.
    type Body;

    /// What codings the visitor himself takes (RFC 9110, 12.5.3): a platform in between
    /// may have written its own into his request.
    fn accept_encoding(&self, incoming: &Self::Incoming) -> Option<String>;

    /// Sends the visitor's own request on to `target` (path and query): method,
    /// headers, body and upgrade untouched but for the fields in `replace`.
    /// `timeout_ms` runs until the answer's headers.
    fn forward(
        &self,
        incoming: &Self::Incoming,
        target: &str,
        replace: &Headers,
        timeout_ms: u64,
    ) -> impl Future<Output = Result<Response<Self::Body>, OriginError>>;

    /// A request of the edge's own.
    fn fetch(
        &self,
        fetch: &Fetch,
        timeout_ms: u64,
    ) -> impl Future<Output = Result<Response<Self::Body>, OriginError>>;

    /// Reads an answer's body if it has at most `max_bytes` and ends within `timeout_ms`.
    fn read(
        &self,
        body: Self::Body,
        max_bytes: usize,
        timeout_ms: u64,
    ) -> impl Future<Output = Result<Bounded<Self::Body>, OriginError>>;

    /// Lets go of an answer's body that nobody wants.
    fn discard(&self, body: Self::Body);

    /// Reads a copy of the visitor's body if it has at most `max_bytes` and arrives
    /// within `timeout_ms`; must be called before `forward`, which still sends all of it.
    fn read_incoming(
        &self,
        incoming: &Self::Incoming,
        max_bytes: usize,
        timeout_ms: u64,
    ) -> impl Future<Output = Option<Vec<u8>>>;
}

/// AES-256-GCM (NIST SP 800-38D), the platform's own.
pub trait Cipher {
    /// Encrypts with a nonce that was never used before, and binds the result to `name`:
    /// 12 bytes of nonce, the ciphertext, 16 bytes of tag. `None`: the platform refuses.
    fn seal(
        &self,
        key: &CacheKey,
        name: &str,
        plain: &[u8],
    ) -> impl Future<Output = Option<Vec<u8>>>;

    /// `None`: it is not what `seal` made with this key and name.
    fn open(
        &self,
        key: &CacheKey,
        name: &str,
        sealed: &[u8],
    ) -> impl Future<Output = Option<Vec<u8>>>;
}

/// Gzip (RFC 1952), the platform's own.
pub trait Coding {
    fn gzip(&self, bytes: &[u8]) -> impl Future<Output = Option<Vec<u8>>>;

    /// `None`: it is broken, or expands to more than `max_bytes`, beyond which it is not
    /// expanded.
    fn gunzip(&self, bytes: &[u8], max_bytes: usize) -> impl Future<Output = Option<Vec<u8>>>;
}

/// A line for the operator. Never holds a secret, an id or an address.
pub trait Log {
    fn log(&self, line: &str);

    /// A trip that was not made, since others failed, is not news: an outage would log
    /// a line for each request.
    fn log_failed_trip(&self, error: &RedisError) {
        if error.kind != RedisErrorKind::Open {
            self.log(&error.to_string());
        }
    }
}

pub trait Ports: Clock + Random + Redis + Origin + Cipher + Coding + Log {}

impl<T: Clock + Random + Redis + Origin + Cipher + Coding + Log> Ports for T {}
