//! The border to JavaScript: what `glue.js` does, and the futures of what it promises.
//!
//! A promise of its own for each of them would make two functions that JavaScript must
//! collect. So there is one function for all, and each waits under a number. It runs in
//! the turn of the request that asked, so no request wakes another one.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use js_sys::{Promise, Uint8Array};
use wasm_bindgen::prelude::{Closure, wasm_bindgen};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, ReadableStreamDefaultReader, Request, Response};

use super::fields::{self, Own};
use crate::http::Headers;
use crate::redis::Post;

#[wasm_bindgen(module = "/src/edge/glue.js")]
extern "C" {
    #[wasm_bindgen(js_name = requestText)]
    fn request_text(request: &Request) -> String;
    #[wasm_bindgen(js_name = fieldsText)]
    fn fields_text(headers: &web_sys::Headers) -> String;
    pub fn parse(json: &str) -> JsValue;
    #[wasm_bindgen(catch, js_name = newHeaders)]
    pub fn new_headers(fields: &str) -> Result<web_sys::Headers, JsValue>;
    /// Sets fields, a line for each name and each value.
    #[wasm_bindgen(catch, js_name = setFields)]
    pub fn set_fields(headers: &JsValue, text: &str) -> Result<(), JsValue>;
    /// Sets the changes as `set_fields` does; an error when the platform refuses the status
    /// or a field.
    #[wasm_bindgen(catch)]
    pub fn respond(
        status: u16,
        fields: &JsValue,
        changes: Option<&str>,
        body: &JsValue,
    ) -> Result<Response, JsValue>;
    /// The same with bytes that are compressed already.
    #[wasm_bindgen(catch, js_name = respondCoded)]
    pub fn respond_coded(
        status: u16,
        fields: &JsValue,
        body: &JsValue,
    ) -> Result<Response, JsValue>;
    #[wasm_bindgen(catch)]
    pub fn upgrade(status: u16, fields: &JsValue, socket: &JsValue) -> Result<Response, JsValue>;

    pub type Turn;
    pub fn open(context: &JsValue) -> Turn;
    #[wasm_bindgen(method, getter)]
    pub fn promise(this: &Turn) -> Promise;
    #[wasm_bindgen(method)]
    pub fn resolve(this: &Turn, response: &Response);
    /// The same of what nobody waits for with a response.
    #[wasm_bindgen(method, js_name = resolve)]
    pub fn end(this: &Turn);

    #[wasm_bindgen(js_name = landOn)]
    fn land_on(callback: &Closure<dyn Fn(u32, u16, Option<String>, Option<Vec<u8>>)>);
    #[wasm_bindgen(js_name = sleep)]
    fn start_timer(id: u32, ms: u32) -> f64;
    #[wasm_bindgen(js_name = post)]
    fn start_post(
        id: u32,
        url: &JsValue,
        fields: &JsValue,
        body: &str,
        most: u32,
        can_end: bool,
    ) -> Option<AbortController>;
    fn forget(id: u32);
    #[wasm_bindgen(js_name = readAll)]
    pub fn read_all(reader: &ReadableStreamDefaultReader, most: u32) -> Promise;

    #[wasm_bindgen(js_name = acceptEncoding)]
    pub fn accept_encoding(request: &Request) -> Option<String>;
    pub fn blob(bytes: &Uint8Array) -> JsValue;
    pub fn gzip(bytes: &Uint8Array) -> Promise;
    pub fn gunzip(bytes: &Uint8Array, most: u32) -> Promise;
    pub fn seal(key: &Uint8Array, name: &str, plain: &Uint8Array) -> Promise;
    pub fn unseal(key: &Uint8Array, name: &str, sealed: &Uint8Array) -> Promise;
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(handle: f64);
}

/// What a request says, as the platform has it.
pub struct Head {
    pub method: String,
    pub url: String,
    pub headers: Headers,
}

pub fn head(request: &Request) -> Head {
    let text = request_text(request);
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default().to_owned();
    let (method, url) = (line(), line());
    Head {
        method,
        url,
        headers: Headers::of_lines(text, 2),
    }
}

pub fn headers(headers: &web_sys::Headers) -> Headers {
    Headers::of_lines(fields_text(headers), 1)
}

/// What came of a `post`; of a `sleep` it says nothing.
#[derive(Default)]
pub struct Landed {
    /// 0: it failed.
    pub status: u16,
    pub sync_token: Option<String>,
    /// `None`: more than allowed.
    pub body: Option<Vec<u8>>,
}

struct Waiting {
    id: u32,
    waker: Option<Waker>,
    landed: Option<Landed>,
}

#[derive(Default)]
struct Landings {
    last: u32,
    /// As many as timers and trips are under way, in the order of their numbers. What the
    /// platform ended with its request stays, as its task does.
    waiting: Vec<Waiting>,
}

impl Landings {
    fn place(&self, id: u32) -> Option<usize> {
        self.waiting
            .binary_search_by_key(&id, |waiting| waiting.id)
            .ok()
    }

    fn get(&mut self, id: u32) -> Option<&mut Waiting> {
        let place = self.place(id)?;
        self.waiting.get_mut(place)
    }
}

thread_local! {
    static LANDINGS: RefCell<Landings> = RefCell::default();
}

/// Once in an isolate, before anything sleeps or posts.
pub fn begin() {
    let callback = Closure::new(|id, status, sync_token, body| {
        let landed = Landed {
            status,
            sync_token,
            body,
        };
        let waker = LANDINGS.with_borrow_mut(|landings| {
            // Nobody waits any more for what was dropped.
            let waiting = landings.get(id)?;
            waiting.landed = Some(landed);
            waiting.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    });
    land_on(&callback);
    callback.forget();
}

struct Landing(u32);

impl Landing {
    fn new() -> Self {
        LANDINGS.with_borrow_mut(|landings| {
            // Two billion requests long: no isolate lives to see it begin anew.
            landings.last = landings.last.wrapping_add(1);
            let id = landings.last;
            landings.waiting.push(Waiting {
                id,
                waker: None,
                landed: None,
            });
            Self(id)
        })
    }
}

impl Future for Landing {
    type Output = Landed;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Landed> {
        LANDINGS.with_borrow_mut(|landings| {
            let Some(waiting) = landings.get(self.0) else {
                return Poll::Ready(Landed::default());
            };
            match waiting.landed.take() {
                Some(landed) => Poll::Ready(landed),
                None => {
                    waiting.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        LANDINGS.with_borrow_mut(|landings| {
            if let Some(place) = landings.place(self.0) {
                landings.waiting.remove(place);
            }
        });
    }
}

/// A timer no longer than this is left alone when nobody waits for it any more: to clear it costs
/// as much as to set it, and most end with their request before they go off. A trip's deadline
/// (`redis::deadline`) is made of such, so no more of them are pending than trips fit in this time.
const SHORT_MS: u32 = 50;

/// Clears its timer when nobody waits any more.
struct Timer {
    handle: f64,
    is_pending: bool,
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.is_pending {
            clear_timeout(self.handle);
        }
    }
}

pub async fn sleep(duration_ms: u64) {
    let landing = Landing::new();
    let most = i32::MAX.unsigned_abs();
    let ms = u32::try_from(duration_ms).unwrap_or(most).min(most);
    let mut timer = Timer {
        handle: start_timer(landing.0, ms),
        is_pending: ms > SHORT_MS,
    };
    landing.await;
    timer.is_pending = false;
}

/// Ends a fetch that nobody waits for any more.
pub struct AbortOnDrop(Option<AbortController>);

impl AbortOnDrop {
    pub fn new(controller: Option<AbortController>) -> Self {
        Self(controller)
    }

    pub fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(controller) = &self.0 {
            controller.abort();
        }
    }
}

/// What a promise of bytes comes to; `None`: it brings none.
pub async fn bytes_of(promise: Promise) -> Option<Vec<u8>> {
    let bytes = JsFuture::from(promise).await.ok()?;
    let bytes: Uint8Array = bytes.dyn_into().ok()?;
    Some(bytes.to_vec())
}

/// A post that nobody has the answer of yet.
struct Posted {
    id: u32,
    controller: Option<AbortController>,
    is_pending: bool,
}

impl Drop for Posted {
    fn drop(&mut self) {
        match &self.controller {
            _ if !self.is_pending => {}
            Some(controller) => controller.abort(),
            None => forget(self.id),
        }
    }
}

/// Addresses that are kept as the platform's texts: two for each database.
const MAX_URLS: usize = 32;

thread_local! {
    static URLS: RefCell<Vec<(String, JsValue)>> = const { RefCell::new(Vec::new()) };
}

fn address(url: &str) -> JsValue {
    URLS.with_borrow_mut(|urls| {
        if let Some((_, text)) = urls.iter().find(|(known, _)| known == url) {
            return text.clone();
        }
        let text = JsValue::from_str(url);
        if urls.len() < MAX_URLS {
            urls.push((url.to_owned(), text.clone()));
        }
        text
    })
}

/// Dropped before its answer is there it is ended if it `can_end`; else the platform ends it
/// with its request, and what it answers before that is let go of.
pub async fn post(request: &Post, most: u32, can_end: bool) -> Landed {
    let fields = request.headers.iter();
    let fields: Vec<(&str, &str)> = fields
        .map(|(name, value)| (*name, value.as_ref()))
        .collect();
    let Ok(fields) = fields::own(&fields).and_then(Own::changed) else {
        return Landed::default();
    };
    let landing = Landing::new();
    let url = address(&request.url);
    let controller = start_post(landing.0, &url, &fields, &request.body, most, can_end);
    let mut posted = Posted {
        id: landing.0,
        controller,
        is_pending: true,
    };
    let landed = landing.await;
    posted.is_pending = false;
    landed
}
