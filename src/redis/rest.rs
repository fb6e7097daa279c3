//! The Upstash REST client of one isolate: a batch to one POST, its answer to replies
//! or to one of the ways a trip fails.
//!
//! It never retries: after an unknown outcome a command may have run already. No
//! error it returns holds a token, a key or a value. A trip ends at its deadline
//! (`deadline`) whatever the transport does.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};

use super::breaker::{Breaker, PROBE_LEASE_MS};
use super::codec::{self, MAX_ANSWER_BYTES};
use super::deadline::{awake, is_over};
use super::fault::{Failure, judge};
use super::known::Known;
use super::{Batch, Command, RedisError, RedisErrorKind, Reply};
use crate::ports::{Clock, Store};

/// Sends one POST. The client drops the future at the timeout, which must let go of the
/// request too: of its answer, and of what others need to be sent. `timeout_ms` is for
/// transports that can end it by themselves.
pub trait Transport {
    /// The whole answer, whatever its status; `TooLarge` as soon as the body has more
    /// than `max_bytes`. Redirects are not followed.
    fn post(
        &self,
        request: &Post,
        timeout_ms: u64,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Answer, TransportError>>;
}

/// What to send; all but the body is mostly the same each time. `Debug` shows neither
/// headers nor body.
#[derive(Clone, PartialEq, Eq)]
pub struct Post {
    pub url: Rc<str>,
    pub headers: Vec<(&'static str, Rc<str>)>,
    pub body: String,
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post")
            .field("url", &self.url)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The `upstash-sync-token` header.
    pub sync_token: Option<String>,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportError {
    Timeout,
    /// Refused, reset, unresolvable, or the body broke off.
    Failed(String),
    TooLarge,
}

/// One database's URL, without a slash at its end, and its token.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    token: String,
}

impl Endpoint {
    pub fn new(url: impl Into<String>, token: impl Into<String>) -> Self {
        let mut url = url.into();
        url.truncate(url.trim_end_matches('/').len());
        Self {
            url,
            token: token.into(),
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The client of one isolate: a breaker and a sync token per database.
#[derive(Debug)]
pub struct Client {
    /// The first of the databases for limits.
    first: Link,
    more: Vec<Link>,
    /// `None` when cache entries are in the first one too.
    cache: Option<Link>,
    /// Of all of them.
    known: RefCell<Known>,
}

impl Client {
    /// `seed` spreads the probes of many isolates; it need not be secret. `more` are
    /// databases for limits alone.
    pub fn new(first: Endpoint, more: Vec<Endpoint>, cache: Option<Endpoint>, seed: u64) -> Self {
        let cache = cache
            .filter(|cache| *cache != first)
            .map(|cache| Link::new(cache, !seed));
        let of = |(at, endpoint)| Link::new(endpoint, seed.rotate_left(at));
        Self {
            first: Link::new(first, seed),
            more: (1..).zip(more).map(of).collect(),
            cache,
            known: RefCell::default(),
        }
    }

    /// Every database, each once.
    pub fn stores(&self) -> Vec<Store> {
        let mut stores: Vec<Store> = (0..=self.more.len()).map(Store::Limits).collect();
        stores.extend(self.cache.is_some().then_some(Store::Cache));
        stores
    }

    /// Whether both stores are one database, so that one trip can serve both.
    pub fn shares_store(&self) -> bool {
        self.cache.is_none()
    }

    /// Whether trips to this store are answered `Open` without being sent.
    pub fn is_open(&self, store: Store) -> bool {
        self.link(store).breaker.get().is_open()
    }

    /// Whether there is a store to which no trips are made for now.
    pub fn is_any_open(&self) -> bool {
        let links = std::iter::once(&self.first).chain(&self.more);
        let mut breakers = links.chain(&self.cache).map(|link| link.breaker.get());
        breakers.any(|breaker| breaker.is_open())
    }

    /// Sends a batch: one reply per command, in order. No commands, no trip.
    pub async fn pipeline<T: Transport + Clock>(
        &self,
        transport: &T,
        store: Store,
        batch: &Batch,
        timeout_ms: u64,
    ) -> Result<Vec<Reply>, RedisError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let link = self.link(store);
        if link.breaker.get().is_open() && !batch.insists {
            return Err(RedisError::new(
                RedisErrorKind::Open,
                "not asked, because it failed lately",
            ));
        }
        let outcome = link.trip(transport, batch, timeout_ms, &self.known).await;
        let mut breaker = link.breaker.get();
        match &outcome {
            Err(failure) if failure.is_outage => breaker.failed(transport.now_ms()),
            Err(failure) if !failure.is_sent => {}
            _ if batch.insists => breaker.recovered(),
            _ => breaker.succeeded(),
        }
        link.breaker.set(breaker);
        outcome.map_err(|failure| failure.error)
    }

    /// Claims the probe of an open breaker. On `true` the caller must run `probe`
    /// after the visitor has his answer.
    pub fn probe_due(&self, now_ms: u64, store: Store) -> bool {
        let link = self.link(store);
        let mut breaker = link.breaker.get();
        let due = breaker.claim_probe(now_ms);
        link.breaker.set(breaker);
        due
    }

    /// Sends a PING and closes the breaker or starts its next backoff.
    pub async fn probe<T: Transport + Clock>(
        &self,
        transport: &T,
        store: Store,
        timeout_ms: u64,
    ) -> Result<(), RedisError> {
        let link = self.link(store);
        let ping = Batch::pipeline(vec![Command::new("PING")]);
        let outcome = link
            .trip(
                transport,
                &ping,
                timeout_ms.min(PROBE_LEASE_MS),
                &self.known,
            )
            .await;
        let outcome = match outcome {
            Ok(replies) if !replies.iter().any(Reply::is_error) => Ok(()),
            Ok(_) => Err(RedisError::new(
                RedisErrorKind::Rejected,
                "PING answered with an error",
            )),
            // A full or read-only database is there and can be read.
            Err(failure) if !failure.is_outage => Ok(()),
            Err(failure) => Err(failure.error),
        };
        let mut breaker = link.breaker.get();
        match outcome {
            Ok(()) => breaker.probe_succeeded(),
            Err(_) => breaker.probe_failed(transport.now_ms()),
        }
        link.breaker.set(breaker);
        outcome
    }

    fn link(&self, store: Store) -> &Link {
        let link = match store {
            Store::Cache => self.cache.as_ref(),
            Store::Limits(at) => at.checked_sub(1).and_then(|at| self.more.get(at)),
        };
        link.unwrap_or(&self.first)
    }
}

struct Link {
    endpoint: Endpoint,
    breaker: Cell<Breaker>,
    pipeline_url: Rc<str>,
    multi_url: Rc<str>,
    /// What every trip says.
    fields: [(&'static str, Rc<str>); 3],
    /// Of the last answer: sent back so that a read sees this isolate's writes.
    sync_token: RefCell<Option<Rc<str>>>,
}

/// Longer than any token Upstash sends; it becomes a header of the next request.
const MAX_SYNC_TOKEN_BYTES: usize = 1_024;

const MAX_DETAIL_BYTES: usize = 120;

/// Its fields are secret.
impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

impl Link {
    fn new(endpoint: Endpoint, seed: u64) -> Self {
        let Endpoint { url, token } = &endpoint;
        Self {
            breaker: Cell::new(Breaker::new(seed)),
            pipeline_url: format!("{url}/pipeline").into(),
            multi_url: format!("{url}/multi-exec").into(),
            fields: [
                ("authorization", format!("Bearer {token}").into()),
                ("content-type", "application/json".into()),
                ("upstash-encoding", "base64".into()),
            ],
            sync_token: RefCell::new(None),
            endpoint,
        }
    }

    async fn trip<T: Transport + Clock>(
        &self,
        transport: &T,
        batch: &Batch,
        timeout_ms: u64,
        known: &RefCell<Known>,
    ) -> Result<Vec<Reply>, Failure> {
        let post = self.post(batch).ok_or_else(Failure::not_sent)?;
        let started_ms = transport.now_ms();
        let answer = {
            let asked = pin!(transport.post(&post, timeout_ms, MAX_ANSWER_BYTES));
            let deadline = pin!(awake(transport, timeout_ms));
            match select(asked, deadline).await {
                Either::Left((answer, _)) => answer,
                Either::Right(_) => Err(TransportError::Timeout),
            }
        };
        if let Ok(answer) = &answer {
            self.keep_sync_token(answer);
        }
        match answer {
            Ok(_) if is_over(started_ms, transport.now_ms(), timeout_ms) => {
                Err(TransportError::Timeout)
            }
            answer => answer,
        }
        .map_err(|error| self.transport_failure(error, batch, timeout_ms))
        .and_then(|answer| judge(&answer, &batch.commands, &mut known.borrow_mut()))
    }

    fn post(&self, batch: &Batch) -> Option<Post> {
        let body = codec::encode(batch)?;
        let url = match batch.atomic {
            true => &self.multi_url,
            false => &self.pipeline_url,
        };
        let mut headers = Vec::with_capacity(self.fields.len() + 1);
        headers.extend_from_slice(&self.fields);
        if let Some(sync_token) = self.sync_token.borrow().clone() {
            headers.push(("upstash-sync-token", sync_token));
        }
        Some(Post {
            url: Rc::clone(url),
            headers,
            body,
        })
    }

    fn keep_sync_token(&self, answer: &Answer) {
        if let Some(token) = &answer.sync_token
            && !token.is_empty()
            && token.len() <= MAX_SYNC_TOKEN_BYTES
            && token.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        {
            *self.sync_token.borrow_mut() = Some(token.as_str().into());
        }
    }

    fn transport_failure(&self, error: TransportError, batch: &Batch, timeout_ms: u64) -> Failure {
        match error {
            TransportError::Timeout => Failure::outage(
                RedisErrorKind::Timeout,
                format!("no answer within {timeout_ms} ms"),
            ),
            // A few large values under one key must not take the others from Redis; where
            // no values were asked for, whoever answered is no Redis.
            TransportError::TooLarge if batch.commands.iter().any(Command::reads_values) => {
                Failure::refused(RedisErrorKind::TooLarge, "the answer is too large")
            }
            TransportError::TooLarge => {
                Failure::outage(RedisErrorKind::TooLarge, "the answer is too large")
            }
            TransportError::Failed(reason) => {
                let token = self.endpoint.token.as_bytes();
                let mut parts = reason.as_bytes().windows(token.len().max(1));
                let detail = if parts.any(|part| part == token) {
                    "the connection failed"
                } else {
                    codec::cut(&reason, MAX_DETAIL_BYTES)
                };
                Failure::outage(RedisErrorKind::Transport, detail)
            }
        }
    }
}
