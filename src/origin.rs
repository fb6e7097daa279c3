//! What the origin is told of a visitor.

use crate::http::{Headers, Request};

/// Fields of the visitor's request that are replaced on the way to the origin.
///
/// `X-Forwarded-For` gets the client's address at its end, once: a platform in
/// front may have added it already.
pub fn replaced_headers(request: &Request) -> Headers {
    let mut replaced = Headers::new();
    let Some(address) = request.headers.get("cf-connecting-ip") else {
        return replaced;
    };
    let before: Vec<&str> = request
        .headers
        .get_all("x-forwarded-for")
        .flat_map(|field| field.split(','))
        .map(str::trim)
        .filter(|hop| !hop.is_empty())
        .collect();
    let forwarded = match before.last() {
        Some(last) if *last == address => before.join(", "),
        Some(_) => format!("{}, {address}", before.join(", ")),
        None => address.to_owned(),
    };
    replaced.append("x-forwarded-for", forwarded);
    replaced
}
