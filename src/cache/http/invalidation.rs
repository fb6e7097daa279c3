//! What a write that succeeded makes invalid (RFC 9111, 4.4).

use crate::http::Headers;

/// RFC 9110, 9.2.1: methods that change nothing; all others may.
pub fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// Paths with their queries that a write to `target` at `base` makes invalid: its own, and
/// those in `Location` and `Content-Location` of the same origin. Nothing when it failed.
pub fn targets(base: &str, target: &str, status: u16, answer: &Headers) -> Vec<String> {
    if !(200..400).contains(&status) {
        return Vec::new();
    }
    let mut targets = vec![target.to_owned()];
    for name in ["location", "content-location"] {
        // 4.4: not beyond the origin, or anybody could end others' entries.
        if let Some(other) = answer.get(name).and_then(|uri| local(base, target, uri)) {
            targets.push(other);
        }
    }
    targets
}

/// RFC 3986, 5.2: a reference as a path with query, if it is on this host.
fn local(base: &str, target: &str, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    // A colon before any slash ends a scheme.
    let mut bytes = reference.bytes();
    let path = match bytes.find(|byte| matches!(byte, b':' | b'/' | b'?')) {
        Some(b':') => {
            let after = reference.get(base.len()..)?;
            let is_here = reference
                .get(..base.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(base));
            match (is_here, after.as_bytes().first()) {
                (true, None) => "/",
                (true, Some(b'/' | b'?')) => after,
                _ => return None,
            }
        }
        _ => reference,
    };
    if path.starts_with("//") || path.is_empty() {
        return None;
    }
    let here = target.split('?').next().unwrap_or_default();
    Some(match path.as_bytes().first() {
        Some(b'/') => path.to_owned(),
        Some(b'?') if path.len() == reference.len() => format!("{here}{path}"),
        Some(b'?') => format!("/{path}"),
        _ => {
            let folder = here.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{path}")
        }
    })
}
