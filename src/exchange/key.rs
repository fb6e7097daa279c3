//! Keys of `http` mode, and which of them a write ends.

use crate::cache::entry;
use crate::cache::http::invalidation;
use crate::cache::lookup::HTTP_KEYS;
use crate::cache::origin_tags::ended_groups;
use crate::cache::purge::Purge;
use crate::http::{Request, Response};
use crate::policy::Policy;

/// A longer key has the URL's hash in its place; purges take names up to this length.
const MAX_KEY_BYTES: usize = 1024;

/// Of a URL; no method is in it, so that a write can name what it ends. It is not the
/// query's nor the path's to look like another route's key: the name has no colon.
pub fn key(route: &str, base: &str, target: &str) -> String {
    let mut key = HTTP_KEYS.to_owned();
    key.push_str(route);
    key.push(':');
    let begin = key.len();
    key.push_str(base);
    key.push_str(target);
    if key.len() > MAX_KEY_BYTES {
        let hash = entry::hash(key.as_bytes());
        key.truncate(begin);
        // No URL begins so.
        key.push('#');
        key.push_str(&hash);
    }
    key
}

/// What an answer to a write ends: URLs of routes in `http` mode (RFC 9111, 4.4), and groups
/// of any route (RFC 9875, 3).
pub fn ended<B>(policy: &Policy, request: &Request, target: &str, response: &Response<B>) -> Purge {
    let mut purge = Purge::default();
    if invalidation::is_safe(&request.method) {
        return purge;
    }
    let (status, base) = (response.status, &request.base);
    if (200..400).contains(&status) {
        match ended_groups(&response.headers) {
            Some(groups) => purge.tags.extend(groups),
            None => drop(purge.prefixes.insert(String::new())),
        }
    }
    for target in invalidation::targets(base, target, status, &response.headers) {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*target, None),
        };
        let resolved = policy.resolve("GET", path);
        let Some(route) = resolved.route.filter(|_| resolved.exact) else {
            continue;
        };
        if route.cache.as_ref().is_some_and(|rule| rule.by_origin) {
            let mut target = resolved.path.clone();
            if let Some(query) = query {
                target.push('?');
                target.push_str(query);
            }
            purge.keys.insert(key(&route.name, base, &target));
        }
    }
    purge
}
