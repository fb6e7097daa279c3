//! A complete answer for one request: by its conditions and its range, with its age and
//! what is said of the cache.

use crate::cache::http::condition::{has_it, is_same_range};
use crate::cache::http::range::{Part, part};
use crate::cache::http::{Report, Stored};
use crate::exchange::Exchange;
use crate::http::{Body, Request, Response};

/// The platform refuses even an empty body beside a 204.
pub fn whole<B>(stored: &Stored) -> Body<B> {
    match stored.body.is_empty() {
        true => Body::Empty,
        false => Body::Bytes(stored.body.clone()),
    }
}

/// A stored answer to this request.
pub fn serve<B>(exchange: &Exchange, stored: &Stored, report: Report, now_ms: u64) -> Response<B> {
    let response = Response {
        status: stored.status,
        headers: stored.headers.clone(),
        body: whole(stored),
    };
    let mut response = delivered(&exchange.request, response, now_ms);
    // 5.1: what was not validated just now has an age.
    let age_s = stored.age_ms(now_ms) / 1000;
    if report.forward.is_none() || report.collapsed || age_s > 0 {
        response.headers.append("age", age_s.to_string());
    }
    report.add_to(&mut response.headers);
    response
}

/// What of a complete answer this request gets, by its conditions and its range.
pub fn delivered<B>(request: &Request, mut response: Response<B>, now_ms: u64) -> Response<B> {
    if response.status != 200 {
        return response;
    }
    let headers = &request.headers;
    if has_it(headers, &response.headers, now_ms) {
        // RFC 9110, 15.4.5: nothing of the content but what tells which one it is.
        response.headers.keep(&|name| {
            !matches!(
                name,
                "content-type"
                    | "content-length"
                    | "content-encoding"
                    | "content-language"
                    | "content-range"
            )
        });
        response.status = 304;
        response.body = Body::Empty;
        return response;
    }
    // RFC 9110, 14.2: a range is for GET alone, and judged after the conditions.
    let (Some(field), Body::Bytes(bytes)) = (headers.get("range"), &response.body) else {
        return response;
    };
    if request.method != "GET" || !is_same_range(headers, &response.headers) {
        return response;
    }
    let length = bytes.len();
    let mut place = "bytes ".to_owned();
    match part(field, length) {
        Part::Whole => return response,
        Part::None => {
            place.push('*');
            response.status = 416;
            response.body = Body::Empty;
        }
        Part::Bytes(first, last) => {
            push_number(&mut place, first);
            place.push('-');
            push_number(&mut place, last);
            let bytes = bytes.get(first..=last).unwrap_or_default();
            response.body = Body::Bytes(bytes.into());
            response.status = 206;
        }
    }
    place.push('/');
    push_number(&mut place, length);
    response.headers.set("content-range", place);
    response
}

fn push_number(out: &mut String, number: usize) {
    out.push_str(&(number as u64).to_string());
}
