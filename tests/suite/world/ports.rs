//! The ports of one simulated request, and the origin at their other end.

use std::cell::Cell;
use std::future::Future;
use std::io::{Read, Write};
use std::rc::Rc;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use edgeweir::config::CacheKey;
use edgeweir::http::{Body, Bytes, Headers, Response};
use edgeweir::ports::{
    Bounded, Cipher, Clock, Coding, Fetch, Log, Origin, OriginError, Random, Redis as RedisPort,
    Store,
};
use edgeweir::redis::codec::{Decoded, decode_known};
use edgeweir::redis::{Batch, Command, RedisError, Reply};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::super::redis_codec::write_all;
use super::super::redis_known::apart;
use super::super::sim::Edge;
use super::{Ask, Served, World};

/// What an origin was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// A visitor's own request, as opposed to the edge's.
    pub is_forwarded: bool,
}

/// What an origin says, and when.
#[derive(Debug, Clone)]
pub struct Says {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// Until the headers are there.
    pub after_ms: u64,
    /// From the headers to the end of the body.
    pub body_ms: u64,
    /// The body breaks off.
    pub breaks: bool,
    /// There are no headers at all.
    pub refuses: bool,
}

impl Says {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Headers::from_iter([("content-type", "application/json")]),
            body: body.into(),
            after_ms: 20,
            body_ms: 1,
            breaks: false,
            refuses: false,
        }
    }

    pub fn json(body: &Value) -> Self {
        Self::new(200, body.to_string())
    }

    pub fn refused() -> Self {
        Self {
            refuses: true,
            ..Self::new(200, "")
        }
    }

    pub fn after(self, after_ms: u64) -> Self {
        Self { after_ms, ..self }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(name, value);
        self
    }
}

/// A body on its way from the origin.
#[derive(Debug, Clone)]
pub struct Stream {
    bytes: Bytes,
    body_ms: u64,
    breaks: bool,
}

/// The ports of one request.
pub struct Ports {
    world: Rc<World>,
    limits: Edge,
    cache: Edge,
    /// Trips under way, and since when there is one.
    waiting: Rc<Cell<(u32, u64)>>,
    redis_us: Rc<Cell<u64>>,
    number: u64,
}

impl Ports {
    pub fn new(world: &Rc<World>, limits: Edge, cache: Edge, number: u64) -> Self {
        Self {
            world: world.clone(),
            limits,
            cache,
            waiting: Rc::default(),
            redis_us: Rc::default(),
            number,
        }
    }

    pub fn served(&self, response: Response<Stream>, begun_us: u64) -> Served {
        let is_streamed = matches!(response.body, Body::Upstream(_));
        let is_null = matches!(response.status, 101 | 204 | 205 | 304);
        let is_refused = is_null && matches!(response.body, Body::Bytes(_));
        assert!(
            !is_refused,
            "the platform takes no body beside a {}",
            response.status
        );
        Served {
            status: response.status,
            headers: response.headers,
            body: match response.body {
                Body::Empty => Vec::new(),
                Body::Bytes(bytes) | Body::Upstream(Stream { bytes, .. }) => bytes.to_vec(),
            },
            is_streamed,
            trips: self.limits.trips.get() + self.cache.trips.get(),
            redis_us: self.redis_us.get(),
            took_us: self.world.sim.now_us() - begun_us,
        }
    }

    /// What a reading brings as the Worker gets it: long values may be known.
    fn over_the_wire(&self, batch: &Batch, replies: Vec<Reply>) -> Vec<Reply> {
        if !batch.commands.iter().any(Command::reads_values) {
            return replies;
        }
        let known = &mut self.world.known.borrow_mut();
        let read = match decode_known(write_all(&replies).as_bytes(), &batch.commands, known) {
            Ok(Decoded::Replies(read)) => read,
            other => panic!("{replies:?}: {other:?}"),
        };
        assert_eq!(read.iter().cloned().map(apart).collect::<Vec<_>>(), replies);
        read
    }

    /// The origin looks at its data when it is asked and answers later.
    async fn said(&self, asked: Asked, timeout_ms: u64) -> Result<Response<Stream>, OriginError> {
        let says = (self.world.script.borrow_mut())(&asked);
        self.world.asked.borrow_mut().push(asked);
        if says.after_ms > timeout_ms {
            self.sleep(timeout_ms).await;
            return Err(OriginError::Timeout);
        }
        self.world.gates.pass_from_origin(self.number).await;
        self.sleep(says.after_ms).await;
        if says.refuses {
            return Err(OriginError::Unreachable);
        }
        Ok(Response {
            status: says.status,
            headers: says.headers,
            body: Body::Upstream(Stream {
                bytes: says.body.into(),
                body_ms: says.body_ms,
                breaks: says.breaks,
            }),
        })
    }
}

impl Clock for Ports {
    fn now_ms(&self) -> u64 {
        self.limits.now_ms()
    }

    fn sleep(&self, duration_ms: u64) -> impl Future<Output = ()> {
        self.limits.sleep(duration_ms)
    }
}

impl Random for Ports {
    fn random(&self) -> u128 {
        let mut rng = self.world.rng.borrow_mut();
        u128::from(rng.next()) << 64 | u128::from(rng.next())
    }
}

impl Log for Ports {
    fn log(&self, line: &str) {
        self.world.log.borrow_mut().push(line.to_owned());
    }
}

impl RedisPort for Ports {
    async fn pipeline(
        &self,
        store: Store,
        batch: &Batch,
        timeout_ms: u64,
    ) -> Result<Vec<Reply>, RedisError> {
        let edge = match store {
            Store::Limits(_) => &self.limits,
            Store::Cache => &self.cache,
        };
        let waiting = Waiting::new(self);
        self.world.gates.pass(self.number).await;
        let answer = edge.pipeline(store, batch, timeout_ms).await;
        self.world.gates.pass_back(self.number).await;
        drop(waiting);
        let answer = answer.map(|replies| self.over_the_wire(batch, replies));
        if let Some(watcher) = self.world.watcher.borrow_mut().as_mut() {
            watcher(self.number, batch, &answer);
        }
        answer
    }
}

/// Measures the time in which at least one trip is under way.
struct Waiting<'p>(&'p Ports);

impl<'p> Waiting<'p> {
    fn new(ports: &'p Ports) -> Self {
        let (trips, since_us) = ports.waiting.get();
        let now_us = ports.world.sim.now_us();
        let since_us = if trips == 0 { now_us } else { since_us };
        ports.waiting.set((trips + 1, since_us));
        Self(ports)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let (trips, since_us) = self.0.waiting.get();
        self.0.waiting.set((trips - 1, since_us));
        if trips == 1 {
            let waited_us = self.0.world.sim.now_us() - since_us;
            self.0.redis_us.set(self.0.redis_us.get() + waited_us);
        }
    }
}

impl Cipher for Ports {
    async fn seal(&self, key: &CacheKey, name: &str, plain: &[u8]) -> Option<Vec<u8>> {
        let nonce = self.random().to_le_bytes()[..12].to_vec();
        let payload = Payload {
            msg: plain,
            aad: name.as_bytes(),
        };
        let cipher = Aes256Gcm::new(key.as_bytes().into());
        let sealed = cipher.encrypt(Nonce::from_slice(&nonce), payload).ok()?;
        Some([nonce, sealed].concat())
    }

    async fn open(&self, key: &CacheKey, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, msg) = sealed.split_at_checked(12)?;
        let aad = name.as_bytes();
        let cipher = Aes256Gcm::new(key.as_bytes().into());
        let payload = Payload { msg, aad };
        cipher.decrypt(Nonce::from_slice(nonce), payload).ok()
    }
}

impl Coding for Ports {
    async fn gzip(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).ok()?;
        encoder.finish().ok()
    }

    async fn gunzip(&self, bytes: &[u8], max_bytes: usize) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        let most = max_bytes as u64 + 1;
        GzDecoder::new(bytes)
            .take(most)
            .read_to_end(&mut plain)
            .ok()?;
        (plain.len() <= max_bytes).then_some(plain)
    }
}

impl Origin for Ports {
    type Incoming = Ask;
    type Body = Stream;

    fn accept_encoding(&self, incoming: &Ask) -> Option<String> {
        incoming.headers.get("accept-encoding").map(str::to_owned)
    }

    async fn forward(
        &self,
        incoming: &Ask,
        target: &str,
        replace: &Headers,
        timeout_ms: u64,
    ) -> Result<Response<Stream>, OriginError> {
        let mut headers = incoming.headers.clone();
        for (name, value) in replace.iter() {
            headers.set(name, value);
        }
        let asked = Asked {
            method: incoming.method.clone(),
            target: target.to_owned(),
            headers,
            body: incoming.body.clone(),
            is_forwarded: true,
        };
        self.said(asked, timeout_ms).await
    }

    async fn fetch(&self, fetch: &Fetch, timeout_ms: u64) -> Result<Response<Stream>, OriginError> {
        let asked = Asked {
            method: if fetch.body.is_some() { "POST" } else { "GET" }.to_owned(),
            target: fetch.target.clone(),
            headers: fetch.headers.clone(),
            body: fetch.body.clone().unwrap_or_default().into_bytes(),
            is_forwarded: false,
        };
        self.said(asked, timeout_ms).await
    }

    async fn read(
        &self,
        body: Stream,
        max_bytes: usize,
        timeout_ms: u64,
    ) -> Result<Bounded<Stream>, OriginError> {
        if body.body_ms > timeout_ms {
            self.sleep(timeout_ms).await;
            return Ok(Bounded::Slow(body));
        }
        self.sleep(body.body_ms).await;
        Ok(match body {
            body if body.bytes.len() > max_bytes => Bounded::Longer(body),
            Stream { breaks: true, .. } => return Err(OriginError::Unreachable),
            body => Bounded::Whole(body.bytes.to_vec()),
        })
    }

    fn discard(&self, _body: Stream) {}

    async fn read_incoming(
        &self,
        incoming: &Ask,
        max_bytes: usize,
        _timeout_ms: u64,
    ) -> Option<Vec<u8>> {
        (incoming.body.len() <= max_bytes).then(|| incoming.body.clone())
    }
}
