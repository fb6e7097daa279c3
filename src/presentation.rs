//! Which representation of an answer a visitor gets (RFC 9110, 12), and what it says of
//! whom it is for.
//!
//! A packed entry may be gzip: then it is two representations with a strong tag each, and
//! a visitor who has either of them that he takes gets a 304. A user's answer is private,
//! whatever its origin says, and differs by who asks.

use crate::cache::http::accepts::{Accepts, accepts};
use crate::failure::Failure;
use crate::fill::{Wanted, alone};
use crate::headers::{none_match, revalidate};
use crate::http::{Body, Headers, Request, Response};
use crate::listing::filled;
use crate::packing;
use crate::policy::Form;
use crate::ports::Ports;
use crate::together::boxed;
use crate::visit::Visit;

pub async fn present<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: &Wanted,
    request: &Request,
    incoming: &P::Incoming,
    mut response: Response<P::Body>,
) -> Result<Response<P::Body>, Failure> {
    let if_none_match = request.headers.get("if-none-match");
    match packing::form(visit, wanted) {
        Form::Plain => {}
        Form::User => make_private(&mut response.headers),
        Form::Packed => {
            vary(&mut response.headers, &["Accept-Encoding"]);
            if let Body::Bytes(bytes) = &response.body
                && response.headers.get("content-encoding") == Some("gzip")
            {
                let gzip = bytes.clone();
                let accepts = accepts(visit.ports.accept_encoding(incoming).as_deref());
                let represented = represent(visit, wanted, accepts, if_none_match, gzip, response);
                return boxed(represented).await;
            }
        }
    }
    Ok(revalidate(response, if_none_match))
}

/// Of a body that is gzip.
async fn represent<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: &Wanted,
    accepts: Accepts,
    if_none_match: Option<&str>,
    gzip: crate::http::Bytes,
    mut response: Response<P::Body>,
) -> Result<Response<P::Body>, Failure> {
    let plain_tag = response.headers.get("etag").unwrap_or_default().to_owned();
    let gzip_tag = tag_of_gzip(&plain_tag);
    let mut tags = vec![&plain_tag];
    match accepts {
        Accepts::Gzip => tags.insert(0, &gzip_tag),
        Accepts::GzipToo => tags.push(&gzip_tag),
        Accepts::Plain => {}
    }
    let known = tags
        .iter()
        .find(|tag| if_none_match.is_some_and(|field| none_match(field, tag)));
    if response.status == 200
        && let Some(tag) = known
    {
        response.headers.set("etag", tag.as_str());
        response.headers.remove("content-encoding");
        return Ok(revalidate(response, if_none_match));
    }
    if accepts == Accepts::Gzip {
        response.headers.set("etag", gzip_tag);
        return Ok(response);
    }
    let max_bytes = packing::rule(visit, wanted).map_or(0, |rule| rule.max_bytes);
    match visit.ports.gunzip(&gzip, max_bytes).await {
        Some(plain) => Ok(response.with_bytes(plain.into())),
        // Whatever lies there, the origin knows better.
        None => {
            let timeout_ms = visit.origin_timeout_ms();
            filled(visit, alone(visit, wanted, timeout_ms, "encoding").await)
        }
    }
}

/// A strong tag is of one representation (RFC 9110, 8.8.3.3); a weak one, or what this
/// origin uses for one, may be of both.
fn tag_of_gzip(tag: &str) -> String {
    match tag.strip_suffix('"') {
        Some(inner) if tag.starts_with('"') => inner.to_owned() + "-gzip\"",
        _ => tag.to_owned(),
    }
}

/// No cache on the way may keep it for others, and a browser's not for the next who logs
/// in: what the origin says beside that stays.
pub fn make_private(headers: &mut Headers) {
    let mut value = "private".to_owned();
    let said: Vec<&str> = headers
        .get_all("cache-control")
        .flat_map(|field| field.split(','))
        .map(str::trim)
        .collect();
    // A list of names in quotes is not worth a parser: nothing but `private` is stricter.
    if !said.iter().any(|directive| directive.contains('"')) {
        for directive in said {
            let name = directive.split('=').next().unwrap_or_default().trim_end();
            let is_for_shared = ["private", "public", "s-maxage", ""]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known));
            if !is_for_shared {
                value.push_str(", ");
                value.push_str(directive);
            }
        }
    }
    headers.set("cache-control", value);
    headers.keep(&|field| {
        !matches!(
            field,
            "cdn-cache-control" | "cloudflare-cdn-cache-control" | "surrogate-control"
        )
    });
    vary(headers, &["Authorization", "Cookie"]);
}

/// Adds the names that are not there.
fn vary(headers: &mut Headers, names: &[&str]) {
    for name in names {
        let is_there = headers
            .get_all("vary")
            .flat_map(|field| field.split(','))
            .map(str::trim)
            .any(|known| known == "*" || known.eq_ignore_ascii_case(name));
        if !is_there {
            headers.append("vary", *name);
        }
    }
}
