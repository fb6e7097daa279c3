//! Between the platform's requests and answers and the core's plain values.

use wasm_bindgen::JsValue;
use web_sys::ResponseInit;

use crate::http::{Body, Headers, Request, Response};

/// A request as the core sees it.
pub fn from_js(request: &web_sys::Request) -> Request {
    let url = request.url();
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
        method: request.method(),
        base: base.to_owned(),
        path: if path.is_empty() {
            "/".to_owned()
        } else {
            path.to_owned()
        },
        query,
        headers: headers_from_js(&request.headers()),
    }
}

pub fn headers_from_js(headers: &web_sys::Headers) -> Headers {
    headers
        .entries()
        .into_iter()
        .flatten()
        .filter_map(|pair| {
            let pair = js_sys::Array::from(&pair);
            Some((pair.get(0).as_string()?, pair.get(1).as_string()?))
        })
        .collect()
}

/// The answer of an origin, its body unread.
pub fn upstream(response: web_sys::Response) -> Response<web_sys::Response> {
    Response {
        status: response.status(),
        headers: headers_from_js(&response.headers()),
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
    let headers = web_sys::Headers::new()?;
    for (name, value) in response.headers.iter() {
        headers.append(name, value)?;
    }
    let init = ResponseInit::new();
    init.set_status(response.status);
    init.set_headers(&headers);
    match &response.body {
        Body::Empty => web_sys::Response::new_with_opt_str_and_init(None, &init),
        Body::Bytes(bytes) => {
            let bytes = js_sys::Uint8Array::from(&bytes[..]);
            web_sys::Response::new_with_opt_buffer_source_and_init(Some(&bytes), &init)
        }
        Body::Upstream(upstream) => {
            let socket = js_sys::Reflect::get(upstream, &JsValue::from_str("webSocket"))?;
            if !socket.is_null() && !socket.is_undefined() {
                js_sys::Reflect::set(&init, &JsValue::from_str("webSocket"), &socket)?;
                return web_sys::Response::new_with_opt_str_and_init(None, &init);
            }
            match upstream.body() {
                Some(stream) => {
                    web_sys::Response::new_with_opt_readable_stream_and_init(Some(&stream), &init)
                }
                None => web_sys::Response::new_with_opt_str_and_init(None, &init),
            }
        }
    }
}
