//! `GET /-/explain?method=&url=`: what the policy does with a request, and why. The request
//! is not made, and nobody's counts are looked at.

use super::{answer_json, bad};
use crate::failure::Failure;
use crate::gateway::{Gateway, MAX_PATH_BYTES};
use crate::http::Response;
use crate::json::Value;
use crate::policy::bounds::MAX_METHOD_BYTES;
use crate::policy::percent::decode;

pub fn show<B>(gateway: &Gateway, query: Option<&str>) -> Result<Response<B>, Failure> {
    let (method, url) = parameters(query.unwrap_or_default())
        .ok_or_else(|| bad("the parameters here are method and url, each once: a method of letters, and a URL or path, percent-encoded"))?;
    let facts = gateway.policy.explain(&method, &url).facts;
    Ok(answer_json(&Value::Object(facts)))
}

/// Method and URL.
fn parameters(query: &str) -> Option<(String, String)> {
    let (mut method, mut url) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let place = match name {
            "method" => &mut method,
            "url" => &mut url,
            _ => return None,
        };
        if place.replace(decode(value, true)?).is_some() {
            return None;
        }
    }
    let (method, url) = (method?.to_ascii_uppercase(), url?);
    let is_method = (1..=MAX_METHOD_BYTES).contains(&method.len())
        && (method.bytes()).all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    let is_url = ["/", "http://", "https://"]
        .iter()
        .any(|start| url.starts_with(start));
    (is_method && is_url && url.len() <= MAX_PATH_BYTES).then_some((method, url))
}
