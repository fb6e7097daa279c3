//! The ports of one request: fetch, timers, the clock, randomness and the log.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};
use js_sys::Uint8Array;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    AbortController, ReadableStreamDefaultReader, RequestInit, RequestRedirect, WorkerGlobalScope,
};

use super::convert::upstream;
use super::glue::{self, AbortOnDrop, Landed};
use super::isolate::{Console, Isolate};
use super::turns;
use crate::config::CacheKey;
use crate::http::{Headers, Response};
use crate::ports::{
    Bounded, Cipher, Clock, Coding, Fetch, Log, Origin, OriginError, Random, Redis, Store,
};
use crate::redis::{
    Answer, Batch, Post, RedisError, RedisErrorKind, Reply, Transport, TransportError,
};
use crate::together::boxed;

/// How many of the six connections that may wait for an answer at once a request leaves to
/// posts that cannot be ended: a Redis that hangs must not keep the others, which its origin
/// and the tries that follow need.
const MAX_ENDLESS: u32 = 2;

pub struct EdgePorts {
    isolate: Rc<Isolate>,
    /// Scheme and host that the origin's paths are appended to.
    base: String,
    /// Posts under way, and those that were given up.
    unanswered: Cell<u32>,
}

impl EdgePorts {
    /// `zone` is where the visitor's request went: without `ORIGIN_URL` it goes on there.
    pub fn new(isolate: &Rc<Isolate>, zone: String) -> Self {
        Self {
            isolate: Rc::clone(isolate),
            base: isolate.origin_url.clone().unwrap_or(zone),
            unanswered: Cell::new(0),
        }
    }

    /// Asks a Redis that failed lately whether it is back, if it is time.
    pub async fn probe(&self) {
        let Some(client) = &self.isolate.redis else {
            return;
        };
        if !client.is_any_open() {
            return;
        }
        let timeout_ms = self.isolate.gateway.policy.defaults.timeout.redis_ms;
        for store in client.stores() {
            if client.probe_due(self.now_ms(), store) {
                let _ = boxed(client.probe(self, store, timeout_ms)).await;
            }
        }
    }
}

impl Clock for EdgePorts {
    fn now_ms(&self) -> u64 {
        turns::now_ms()
    }

    async fn sleep(&self, duration_ms: u64) {
        glue::sleep(duration_ms).await;
    }
}

impl Random for EdgePorts {
    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            // A generation must still not repeat.
            self.log("no randomness");
            return u128::from(self.now_ms()) << 64 | u128::from(js_sys::Math::random().to_bits());
        }
        u128::from_le_bytes(bytes)
    }
}

impl Log for EdgePorts {
    fn log(&self, line: &str) {
        Console.log(line);
    }
}

impl Redis for EdgePorts {
    async fn pipeline(
        &self,
        store: Store,
        batch: &Batch,
        timeout_ms: u64,
    ) -> Result<Vec<Reply>, RedisError> {
        match &self.isolate.redis {
            Some(client) => client.pipeline(self, store, batch, timeout_ms).await,
            None => Err(RedisError::new(
                RedisErrorKind::Open,
                "REDIS_ENABLED is false",
            )),
        }
    }
}

impl Cipher for EdgePorts {
    async fn seal(&self, key: &CacheKey, name: &str, plain: &[u8]) -> Option<Vec<u8>> {
        glue::bytes_of(glue::seal(&array(key.as_bytes()), name, &array(plain))).await
    }

    async fn open(&self, key: &CacheKey, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        glue::bytes_of(glue::unseal(&array(key.as_bytes()), name, &array(sealed))).await
    }
}

impl Coding for EdgePorts {
    async fn gzip(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        glue::bytes_of(glue::gzip(&array(bytes))).await
    }

    async fn gunzip(&self, bytes: &[u8], max_bytes: usize) -> Option<Vec<u8>> {
        let most = u32::try_from(max_bytes).unwrap_or(u32::MAX);
        glue::bytes_of(glue::gunzip(&array(bytes), most)).await
    }
}

fn array(bytes: &[u8]) -> Uint8Array {
    Uint8Array::from(bytes)
}

fn global() -> WorkerGlobalScope {
    js_sys::global().unchecked_into()
}

async fn global_fetch(
    request: &web_sys::Request,
    init: &RequestInit,
) -> Result<web_sys::Response, JsValue> {
    JsFuture::from(global().fetch_with_request_and_init(request, init))
        .await?
        .dyn_into()
}

impl Transport for EdgePorts {
    async fn post(
        &self,
        request: &Post,
        _timeout_ms: u64,
        max_bytes: usize,
    ) -> Result<Answer, TransportError> {
        let most = u32::try_from(max_bytes).unwrap_or(u32::MAX);
        let unanswered = self.unanswered.get();
        self.unanswered.set(unanswered.saturating_add(1));
        let landed = glue::post(request, most, unanswered >= MAX_ENDLESS).await;
        self.unanswered.set(self.unanswered.get().saturating_sub(1));
        match landed {
            Landed { status: 0, .. } => Err(TransportError::Failed("fetch".to_owned())),
            Landed { body: None, .. } => Err(TransportError::TooLarge),
            Landed {
                status,
                sync_token,
                body: Some(body),
            } => Ok(Answer {
                status,
                sync_token,
                body,
            }),
        }
    }
}

impl EdgePorts {
    /// Headers within the deadline; the body may take as long as it likes, or an
    /// event stream would be cut.
    async fn fetch_until(
        &self,
        request: &web_sys::Request,
        timeout_ms: u64,
    ) -> Result<Response<web_sys::Response>, OriginError> {
        let init = RequestInit::new();
        let controller = AbortController::new().ok();
        if let Some(controller) = &controller {
            init.set_signal(Some(&controller.signal()));
        }
        let mut abort = AbortOnDrop::new(controller);
        let fetched = pin!(global_fetch(request, &init));
        let deadline = pin!(self.sleep(timeout_ms));
        match select(fetched, deadline).await {
            // An interim answer that the platform took for the final one has no body.
            Either::Left((Ok(response), _)) if (102..200).contains(&response.status()) => {
                Err(OriginError::Unreachable)
            }
            Either::Left((Ok(response), _)) => {
                abort.disarm();
                Ok(upstream(response))
            }
            Either::Left((Err(_), _)) => Err(OriginError::Unreachable),
            Either::Right(_) => Err(OriginError::Timeout),
        }
    }
}

impl Origin for EdgePorts {
    type Incoming = web_sys::Request;
    type Body = web_sys::Response;

    fn accept_encoding(&self, incoming: &Self::Incoming) -> Option<String> {
        glue::accept_encoding(incoming)
    }

    async fn forward(
        &self,
        incoming: &Self::Incoming,
        target: &str,
        replace: &Headers,
        timeout_ms: u64,
    ) -> Result<Response<Self::Body>, OriginError> {
        let url = format!("{}{target}", self.base);
        let failed = |_: JsValue| OriginError::Unreachable;
        // A request is a valid init of another: method, streamed body, upgrade and
        // encoded bytes survive.
        let request = web_sys::Request::new_with_str_and_init(&url, incoming.unchecked_ref())
            .map_err(failed)?;
        for (name, value) in replace.iter() {
            request.headers().set(name, value).map_err(failed)?;
        }
        self.fetch_until(&request, timeout_ms).await
    }

    async fn fetch(
        &self,
        fetch: &Fetch,
        timeout_ms: u64,
    ) -> Result<Response<Self::Body>, OriginError> {
        let failed = |_: JsValue| OriginError::Unreachable;
        let headers = web_sys::Headers::new().map_err(failed)?;
        for (name, value) in fetch.headers.iter() {
            headers.append(name, value).map_err(failed)?;
        }
        let init = RequestInit::new();
        match &fetch.body {
            Some(body) => {
                init.set_method("POST");
                init.set_body(&JsValue::from_str(body));
            }
            None => init.set_method("GET"),
        }
        init.set_headers(&headers);
        init.set_redirect(RequestRedirect::Manual);
        let url = format!("{}{}", self.base, fetch.target);
        let request = web_sys::Request::new_with_str_and_init(&url, &init).map_err(failed)?;
        self.fetch_until(&request, timeout_ms).await
    }

    async fn read(
        &self,
        body: Self::Body,
        max_bytes: usize,
        timeout_ms: u64,
    ) -> Result<Bounded<Self::Body>, OriginError> {
        // A body that is too long must still reach the visitor whole, so a copy is read.
        let copy = body.clone().map_err(|_| OriginError::Unreachable)?;
        let Some(stream) = copy.body() else {
            return Ok(Bounded::Whole(Vec::new()));
        };
        match self.read_until(&stream, max_bytes, timeout_ms).await {
            Some(Ok(Some(bytes))) => {
                cancel(&body);
                Ok(Bounded::Whole(bytes))
            }
            Some(Ok(None)) => Ok(Bounded::Longer(body)),
            Some(Err(_)) => Err(OriginError::Unreachable),
            None => Ok(Bounded::Slow(body)),
        }
    }

    fn discard(&self, body: Self::Body) {
        cancel(&body);
    }

    async fn read_incoming(
        &self,
        incoming: &Self::Incoming,
        max_bytes: usize,
        timeout_ms: u64,
    ) -> Option<Vec<u8>> {
        let copy = incoming.clone().ok()?;
        match copy.body() {
            Some(stream) => self
                .read_until(&stream, max_bytes, timeout_ms)
                .await?
                .ok()
                .flatten(),
            None => Some(Vec::new()),
        }
    }
}

impl EdgePorts {
    /// The whole stream; within, `None` when it has more than `max_bytes`. Without an
    /// end in time it is let go of, or the platform would keep all of it for us.
    async fn read_until(
        &self,
        stream: &web_sys::ReadableStream,
        max_bytes: usize,
        timeout_ms: u64,
    ) -> Option<Result<Option<Vec<u8>>, JsValue>> {
        let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
        let read = pin!(read_all(&reader, max_bytes));
        let deadline = pin!(self.sleep(timeout_ms));
        match select(read, deadline).await {
            Either::Left((read, _)) => Some(read),
            Either::Right(_) => {
                let _ = reader.cancel();
                None
            }
        }
    }
}

/// Lets go of a body that nobody reads.
fn cancel(response: &web_sys::Response) {
    if let Some(stream) = response.body() {
        let _ = stream.cancel();
    }
}

/// The whole stream, or `None` when it has more than `max_bytes`.
async fn read_all(
    reader: &ReadableStreamDefaultReader,
    max_bytes: usize,
) -> Result<Option<Vec<u8>>, JsValue> {
    let most = u32::try_from(max_bytes).unwrap_or(u32::MAX);
    let bytes = JsFuture::from(glue::read_all(reader, most)).await?;
    Ok(bytes
        .dyn_into()
        .ok()
        .map(|bytes: Uint8Array| bytes.to_vec()))
}
