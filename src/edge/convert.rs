//! Between the platform's requests and answers and the core's plain values.

use wasm_bindgen::JsValue;
use web_sys::ResponseInit;

use super::fields;
use super::glue::{self, Head};
use crate::http::{Body, Request, Response};

/// A request as the core sees it.
pub fn from_js(request: &web_sys::Request) -> Request {
    let Head {
        method,
        url,
        headers,
    } = glue::head(request);
    // The platform's URLs are absolute: `https://…`.
    let after_scheme = url.find(':').map_or(0, |at| at + 3);
    let authority_end = url
        .get(after_scheme..)
        .and_then(|rest| rest.find(['/', '?', '#']))
        .map_or(url.len(), |at| after_scheme + at);
    let (base, target) = url.split_at_checked(authority_end).unwrap_or((&url, ""));
    let target = target.split('#').next().unwrap_or("");
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    Request {
        method,
        base: base.to_owned(),
        path: if path.is_empty() {
            "/".to_owned()
        } else {
            path.to_owned()
        },
        query,
        headers,
    }
}

/// The answer of an origin, its body unread.
pub fn upstream(response: web_sys::Response) -> Response<web_sys::Response> {
    Response {
        status: response.status(),
        headers: glue::headers(&response.headers()),
        body: Body::Upstream(response),
    }
}

/// What the platform sends. An answer whose status or fields the platform
/// refuses goes out as the origin sent it.
pub fn to_js(response: Response<web_sys::Response>) -> web_sys::Response {
    let built = build(&response);
    match (built, response.body) {
        (Ok(built), _) => built,
        (Err(_), Body::Upstream(upstream)) => upstream,
        (Err(_), _) => {
            let init = ResponseInit::new();
            init.set_status(502);
            web_sys::Response::new_with_opt_str_and_init(None, &init)
                .unwrap_or_else(|_| web_sys::Response::error())
        }
    }
}

fn build(response: &Response<web_sys::Response>) -> Result<web_sys::Response, JsValue> {
    let Response {
        status,
        headers,
        body,
    } = response;
    let listed: Vec<(&str, &str)> = headers.iter().collect();
    let own = |bytes: &JsValue| {
        let fields = fields::own(&listed)?;
        match headers.contains("content-encoding") {
            true => glue::respond_coded(*status, &fields.changed()?, bytes),
            false => fields.respond(*status, bytes),
        }
    };
    match body {
        Body::Empty => own(&JsValue::NULL),
        Body::Bytes(bytes) => match bytes.twin(&blob) {
            Some(blob) => own(blob),
            None => own(&array(bytes)),
        },
        Body::Upstream(upstream) => {
            let fields = fields::any(&listed);
            let socket = js_sys::Reflect::get(upstream, &JsValue::from_str("webSocket"))?;
            if !socket.is_null() && !socket.is_undefined() {
                return glue::upgrade(*status, &fields, &socket);
            }
            match upstream.body() {
                Some(stream) => glue::respond(*status, &fields, None, &stream),
                // Without a body the fields still say how it is coded: to a HEAD.
                None => glue::respond_coded(*status, &fields, &JsValue::NULL),
            }
        }
    }
}

/// What many answers share: of an array each of them would make its own copy. The platform takes
/// no note of which request made it.
fn blob(bytes: &[u8]) -> JsValue {
    glue::blob(&js_sys::Uint8Array::from(bytes))
}

fn array(bytes: &[u8]) -> JsValue {
    js_sys::Uint8Array::from(bytes).into()
}
