//! One cached listing: what is wanted, and its answer from what was found.

use std::rc::Rc;

use crate::ahead;
use crate::cache::lookup::Ask;
use crate::cache::{Entry, Found, Lookup, Lookups, Seen};
use crate::failure::Failure;
use crate::fill::{Filled, Wanted, fill, without_redis};
use crate::headers::{CacheStatus, add_cache_status};
use crate::http::{Headers, Response};
use crate::policy::{Form, PathValues, Policy, Selected, Values};
use crate::ports::{Clock, OriginError, Ports};
use crate::redis::{Batch, Command};
use crate::together::boxed;
use crate::visit::Visit;

/// What a cached route wants for these values; `None` when a key cannot be made
/// of them, which means that the request bypasses the cache.
pub fn wanted(
    policy: &Policy,
    route_index: usize,
    values: &PathValues,
    raw_query: Option<&str>,
) -> Option<Wanted> {
    wanted_by(policy, route_index, values, raw_query, None)
}

/// The same for a verified user, who alone gets what is his.
pub fn wanted_by(
    policy: &Policy,
    route_index: usize,
    values: &PathValues,
    raw_query: Option<&str>,
    user: Option<(&str, &Headers)>,
) -> Option<Wanted> {
    let route = policy.routes.get(route_index)?;
    let rule = route.cache.as_ref()?;
    let selected: Selected = rule.select(raw_query)?;
    let of = Values {
        path: values,
        selected: Some(&selected),
        user: user.map(|(name, _)| name),
        body: None,
        response: None,
    };
    let key = rule.key.render(&of)?;
    let tags = rule
        .tags
        .iter()
        .map(|tag| tag.render(&of))
        .collect::<Option<Vec<_>>>()?;
    let query = selected.query_string();
    let mut target = route.path.render(values)?;
    if !query.is_empty() {
        target.push('?');
        target.push_str(&query);
    }
    let mut fields = Headers::new();
    if rule.form != Form::Plain {
        fields.append("accept", "*/*");
    }
    if let (Form::User, Some((_, sent))) = (rule.form, user) {
        for name in ["authorization", "cookie"] {
            for value in sent.get_all(name) {
                fields.append(name, value);
            }
        }
    }
    Some(Wanted {
        route: route_index,
        lookup: Rc::new(Lookup {
            key,
            tags,
            origin_tags: Vec::new(),
        }),
        target,
        fields,
    })
}

/// Fills in how long values of other services may be served: one trip for all that
/// this isolate does not know yet. One that turns out to be the edge's own, whose record Redis
/// has evicted, is missing, and so are all when there is no answer: they might be such.
pub async fn adopt<'w, P: Ports>(
    visit: &Visit<'_, P>,
    wanted: impl Iterator<Item = &'w Wanted>,
    seen: &mut [Option<Seen>],
) {
    let now_ms = visit.now_ms();
    let mut unknown: Vec<(&Wanted, &mut Seen)> = Vec::new();
    let mut lookups = Lookups::default();
    let mut commands = Vec::new();
    for (wanted, seen) in wanted.zip(seen.iter_mut()) {
        let Some(seen) = seen else { continue };
        let Found::Foreign(entry) = &mut seen.found else {
            continue;
        };
        let adopted = visit.gateway.adopted.borrow();
        if !adopted.recall(&wanted.lookup.key, entry, now_ms) {
            commands.push(Command::new("PTTL").arg(&wanted.lookup.key));
            lookups.push(Rc::clone(&wanted.lookup), Ask::WholeAndExpiry);
            unknown.push((wanted, seen));
        }
    }
    if unknown.is_empty() {
        return;
    }
    // At once, and with the values: another one's expiry says nothing of what was read.
    commands.extend(lookups.commands());
    let replies = visit.cache_trip(&Batch::multi(commands)).await;
    let replies = replies.unwrap_or_default();
    let (lefts, read) = replies.split_at_checked(unknown.len()).unwrap_or_default();
    let now_ms = visit.now_ms();
    let mut read = lookups.judge(read, now_ms).unwrap_or_default().into_iter();
    let mut lefts = lefts.iter();
    for (wanted, seen) in unknown {
        match read.next() {
            Some(read) => *seen = read,
            None => seen.found = Found::Missing,
        }
        let (Found::Foreign(entry), Some(left)) = (&mut seen.found, lefts.next()) else {
            continue;
        };
        let rule = visit
            .gateway
            .policy
            .routes
            .get(wanted.route)
            .and_then(|route| route.cache.as_ref());
        // Without an expiry of its own a value is fresh for the route's time.
        let left_ms = match (left.as_int(), rule) {
            (Some(left_ms), _) if left_ms > 0 => u64::try_from(left_ms).unwrap_or(0),
            (Some(-1), Some(rule)) => rule.ttl_ms,
            _ => continue,
        };
        entry.fresh_until_ms = now_ms.saturating_add(left_ms);
        entry.stale_until_ms = entry.fresh_until_ms;
        let mut adopted = visit.gateway.adopted.borrow_mut();
        adopted.learn(&wanted.lookup.key, entry);
    }
}

/// Answers a request for a cached route; `None`: Redis did not answer.
pub async fn answer<P: Ports>(
    visit: &Visit<'_, P>,
    wanted: &Wanted,
    seen: Option<Seen>,
) -> Result<Response<P::Body>, Failure> {
    let mut seen = [seen];
    if matches!(&seen, [Some(seen)] if matches!(seen.found, Found::Foreign(_))) {
        boxed(adopt(visit, std::iter::once(wanted), &mut seen)).await;
    }
    let [seen] = seen;
    let now_ms = visit.now_ms();
    match seen {
        Some(Seen {
            found: Found::Fresh(entry) | Found::Foreign(entry),
            generations,
            is_local,
            origin_tags,
            ..
        }) => {
            ahead::elect(visit, wanted, &origin_tags, &entry, &generations);
            let status = CacheStatus::hit(entry.fresh_until_ms, is_local, now_ms);
            Ok(served(entry, &status, now_ms))
        }
        Some(Seen {
            found: Found::Stale(entry),
            generations,
            origin_tags,
            ..
        }) => {
            let wanted = wanted.named(&origin_tags);
            let stale = ahead::stale(visit, &wanted, entry, generations);
            let (entry, status) = boxed(stale).await;
            Ok(served(entry, &status, visit.now_ms()))
        }
        Some(Seen {
            found: Found::Missing | Found::Record(_) | Found::Packed(_),
            generations,
            origin_tags,
            ..
        }) => {
            let wanted = wanted.named(&origin_tags);
            filled(visit, boxed(fill(visit, wanted, generations)).await)
        }
        None => filled(visit, boxed(without_redis(visit, wanted)).await),
    }
}

pub fn filled<P: Ports>(
    visit: &Visit<'_, P>,
    filled: Filled<P::Body>,
) -> Result<Response<P::Body>, Failure> {
    match filled {
        Filled::Entry(entry, status) => Ok(served(entry, &status, visit.now_ms())),
        Filled::Own(mut response, status) => {
            add_cache_status(&mut response.headers, &status);
            Ok(response)
        }
        Filled::Failed(error) => Err(origin_failure(error)),
        // The bill says why.
        Filled::Refused => Err(Failure::ReducedCapacity),
    }
}

pub fn origin_failure(error: OriginError) -> Failure {
    match error {
        OriginError::Timeout => Failure::OriginTimeout,
        OriginError::Unreachable => Failure::OriginUnreachable,
    }
}

/// What the edge says of most answers itself.
const OWN_FIELDS: usize = 8;
const OWN_BYTES: usize = 320;

/// An answer that is reused, with its age (RFC 9111, 5.1).
fn served<B>(entry: Entry, status: &CacheStatus, now_ms: u64) -> Response<B> {
    let age_s = entry.age_s(now_ms);
    let mut response = entry.into_response();
    response.headers.reserve(OWN_FIELDS, OWN_BYTES);
    add_cache_status(&mut response.headers, status);
    let mut digits = itoa::Buffer::new();
    response.headers.append("age", digits.format(age_s));
    response
}
