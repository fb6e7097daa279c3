//! What a successful write purges, from the policy's templates, and the entry that its
//! answer becomes.
//!
//! A template whose value is not there purges the tags of `else` instead of
//! nothing. The writer's answer waits for Redis' acknowledgement, so that the
//! writer's next read is fresh. `cache::written` has the rule by which an answer may
//! become an entry; one that may not be kept only purges that entry.

use crate::cache::generation::PREFIX_LOG;
use crate::cache::lookup::{generation_key, key_generation_key};
use crate::cache::origin_tags::named;
use crate::cache::purge::{Purge, shorten};
use crate::cache::store::{self, Times, storable};
use crate::cache::written::{Known, Outcome, Written};
use crate::cache::{Entry, Lookup};
use crate::deferred::Deferred;
use crate::fill::seed_keys;
use crate::headers::{is_event_stream, is_readable};
use crate::http::{Body, Bytes, Headers, Response};
use crate::json::Value;
use crate::listing;
use crate::names::Names;
use crate::policy::{
    CacheRule, FillRule, Given, PathValues, Piece, Policy, PurgeRule, Resolved, Route, Template,
    Values, scalar,
};
use crate::ports::{Bounded, OriginError, Ports, Store};
use crate::redis::{Batch, Command, Reply};
use crate::visit::Visit;

/// JSON that templates may point into (CONTRACT, Policy).
pub const MAX_JSON_BYTES: usize = 64 * 1024;

/// A write that acts on the cache.
pub struct Write<'p> {
    route: &'p Route,
    values: &'p PathValues,
    /// False: its path may be folded into the route's, and nothing is stored for it.
    is_exact: bool,
}

impl<'p> Write<'p> {
    /// A write that the origin may fold into another route's path purges like it.
    pub fn of(resolved: &'p Resolved<'p>) -> Option<Self> {
        let exact = resolved.route.filter(|_| resolved.exact);
        [
            (exact, &resolved.values, true),
            (resolved.limited_as, &resolved.folded_values, false),
        ]
        .into_iter()
        .find_map(|(route, values, is_exact)| {
            let route = route?;
            let acts = route.purge.is_some() || route.fill.is_some();
            acts.then_some(Self {
                route,
                values,
                is_exact,
            })
        })
    }

    fn points_into(&self, wanted: fn(&Piece) -> bool) -> bool {
        let Some(rule) = &self.route.purge else {
            return false;
        };
        rule.keys
            .iter()
            .chain(&rule.tags)
            .chain(&rule.otherwise)
            .any(|template| template.pieces.iter().any(wanted))
    }

    pub fn needs_body(&self) -> bool {
        self.points_into(|piece| matches!(piece, Piece::Body(_)))
    }

    fn needs_response(&self) -> bool {
        let of_fill = self
            .route
            .fill
            .as_ref()
            .is_some_and(FillRule::needs_response);
        of_fill || self.points_into(|piece| matches!(piece, Piece::Response(_)))
    }

    /// Keys of those generations of the entry to be filled that are known before there is
    /// an answer.
    pub fn generation_keys(&self, policy: &Policy) -> Vec<String> {
        let known = || {
            let fill = self.route.fill.as_ref().filter(|_| self.is_exact)?;
            let rule = policy.routes.get(fill.route)?.cache.as_ref()?;
            let path = self.path_of(fill, None);
            let selected = rule.select(None);
            let of = Values {
                path: &path,
                selected: selected.as_ref(),
                user: None,
                body: None,
                response: None,
            };
            let mut keys: Vec<String> = Vec::new();
            keys.extend(rule.key.render(&of).map(|key| key_generation_key(&key)));
            keys.push(PREFIX_LOG.to_owned());
            let tags = rule.tags.iter().filter_map(|tag| tag.render(&of));
            keys.extend(tags.map(|tag| generation_key(&tag)));
            Some(keys)
        };
        known().unwrap_or_default()
    }

    /// The values of the filled route's path, as far as they are there.
    fn path_of(&self, fill: &FillRule, answered: Option<&Value<'_>>) -> PathValues {
        let mut path = PathValues::default();
        for (name, given) in &fill.with {
            let value = match given {
                Given::Path(name) => self.values.get(name).map(str::to_owned),
                Given::Response(pointer) => {
                    answered.and_then(|json| scalar(json.pointer(pointer)?))
                }
            };
            if let Some(value) = value {
                path.insert(name.clone(), value);
            }
        }
        path
    }
}

/// What the entry to be filled knows before the origin is asked, of what was read in the
/// request's own trip; `None`: it is only purged.
pub async fn known<P: Ports>(
    visit: &Visit<'_, P>,
    keys: Vec<String>,
    generations: Option<Vec<Option<String>>>,
) -> Option<Known> {
    let as_it_is = |_: &str, value: &str| Some(value.to_owned());
    let generations = seed_keys(visit, &keys, generations?, &as_it_is).await?;
    Some(Known { keys, generations })
}

/// Keys and tags that are purged for these values; `is_absent`: one is missing already.
fn plan(rule: Option<&PurgeRule>, values: &Values<'_>, is_absent: bool) -> Purge {
    let mut absent = is_absent;
    let Some(rule) = rule else {
        return Purge::default();
    };
    let mut render = |templates: &[Template]| {
        let mut rendered = Names::new();
        for template in templates {
            match template.render_each(values) {
                Some(names) => rendered.extend(names),
                None => absent = true,
            }
        }
        rendered
    };
    let mut purge = Purge {
        keys: render(&rule.keys),
        tags: render(&rule.tags),
        prefixes: Names::new(),
        is_soft: rule.is_soft,
    };
    if absent {
        purge.tags.extend(
            rule.otherwise
                .iter()
                .filter_map(|template| template.render(values)),
        );
    }
    purge
}

/// Purges after a write, and makes its answer the entry that the policy says. The answer
/// is the origin's, its body read only when something needs it. When it breaks off there,
/// the write has been done.
pub async fn act<P: Ports>(
    visit: &Visit<'_, P>,
    write: &Write<'_>,
    known: Option<&Known>,
    user: Option<&str>,
    body: Option<Vec<u8>>,
    mut response: Response<P::Body>,
) -> Result<Response<P::Body>, OriginError> {
    if !(200..300).contains(&response.status) {
        return Ok(response);
    }
    let policy = &visit.gateway.policy;
    let fill = write.route.fill.as_ref();
    let filled = fill.and_then(|fill| policy.routes.get(fill.route)?.cache.as_ref());
    let times = filled
        .filter(|_| known.is_some())
        .and_then(|rule| times(&response, rule));
    let of_templates = write.needs_response().then_some(MAX_JSON_BYTES);
    let most = times.map(|times| times.max_bytes).max(of_templates);
    let mut answered = None;
    let mut broken = None;
    let headers = &response.headers;
    if let Some(most) = most
        && !is_event_stream(headers)
        && is_readable(headers)
    {
        let body = std::mem::replace(&mut response.body, Body::Empty);
        match peek(visit, body, most).await {
            Ok(Peeked::Whole(bytes)) => {
                response = response.with_bytes(bytes.clone());
                answered = Some(bytes);
            }
            Ok(Peeked::Unread(body)) => response.body = body,
            Err(error) => broken = Some(error),
        }
    }
    let json = |bytes| Value::read(bytes).ok();
    let body = body.as_deref().and_then(json);
    let read = answered
        .as_deref()
        .filter(|bytes| bytes.len() <= MAX_JSON_BYTES)
        .and_then(json);
    let lookup = fill.map(|fill| {
        let path = write.path_of(fill, read.as_ref());
        listing::wanted(policy, fill.route, &path, None).map(|wanted| wanted.lookup)
    });
    let is_absent = matches!(lookup, Some(None));
    let values = Values {
        path: write.values,
        selected: None,
        user,
        body: body.as_ref(),
        response: read.as_ref(),
    };
    let mut purge = plan(write.route.purge.as_ref(), &values, is_absent);
    let lookup = lookup.flatten();
    if let Some(lookup) = &lookup {
        purge.keys.insert(lookup.key.clone());
    }
    let entry = times
        .zip(answered.as_ref())
        .and_then(|(times, bytes)| entry(visit, &response.headers, bytes, times));
    let written = match (&lookup, &entry, times, known) {
        (Some(lookup), Some(entry), Some(times), Some(known)) => {
            let random = visit.ports.random();
            let offset_ms = visit.gateway.limits.borrow().clock_offset_ms(0);
            let offset_ms = offset_ms.unwrap_or(0);
            Written::plan(&purge, lookup, entry, times, known, random, offset_ms)
        }
        _ => None,
    };
    let is_confirmed = match (&written, &lookup) {
        (Some(written), Some(lookup)) => store_written(visit, &purge, lookup, written).await,
        _ => purge.is_empty() || confirm(visit, &purge).await,
    };
    if !is_confirmed {
        visit
            .ports
            .log("purge not confirmed in time; it is tried again");
    }
    match broken {
        None => Ok(response),
        Some(error) => Err(error),
    }
}

/// How long a write's answer may be kept, as if a GET had brought it.
fn times<B>(response: &Response<B>, rule: &CacheRule) -> Option<Times> {
    match response.status {
        // The generations of tags that only the answer names were not read before it.
        200 | 201 if named(&response.headers).is_some_and(|tags| tags.is_empty()) => {
            storable(200, &response.headers, rule).ok()
        }
        _ => None,
    }
}

/// The entry that a GET would have brought.
fn entry<P: Ports>(
    visit: &Visit<'_, P>,
    headers: &Headers,
    body: &[u8],
    times: Times,
) -> Option<Entry> {
    let mut headers = headers.clone();
    // Where what was made is; a GET says no such thing.
    headers.remove("location");
    let now_ms = visit.ports.now_ms();
    store::entry(200, &headers, body.to_vec(), times, now_ms).ok()
}

/// Purges and stores at once; whether Redis confirmed it.
async fn store_written<P: Ports>(
    visit: &Visit<'_, P>,
    purge: &Purge,
    lookup: &Lookup,
    written: &Written,
) -> bool {
    let outcome = match visit.cache_trip(&written.batch).await {
        Ok(replies) => {
            shorten_later(visit, &written.batch, &replies, Some(lookup));
            written.judge(&replies)
        }
        Err(_) => Outcome::Refused,
    };
    if outcome == Outcome::Overtaken {
        // The edge serves it to nobody, but backends read the key itself.
        let gone = Command::new("DEL").arg(&lookup.key).arg(lookup.meta_key());
        visit.defer(Deferred::Send {
            store: Store::Cache,
            batch: Batch::pipeline(vec![gone]),
        });
    }
    settle(visit, purge, outcome != Outcome::Refused)
}

fn shorten_later<P: Ports>(
    visit: &Visit<'_, P>,
    batch: &Batch,
    replies: &[Reply],
    but: Option<&Lookup>,
) {
    if let Some(batch) = shorten(batch, replies, visit.ports.random(), but) {
        let store = Store::Cache;
        visit.defer(Deferred::Send { store, batch });
    }
}

/// Whether Redis confirmed the purge; if not, it is tried again after the answer.
pub async fn confirm<P: Ports>(visit: &Visit<'_, P>, purge: &Purge) -> bool {
    if visit.gateway.settings.without_redis {
        // Nothing is stored, so nothing old can be served.
        return true;
    }
    let batch = purge.batch(visit.ports.random());
    let is_confirmed = match visit.cache_trip(&batch).await {
        Ok(replies) => {
            shorten_later(visit, &batch, &replies, None);
            !replies.iter().any(Reply::is_error)
        }
        Err(_) => false,
    };
    settle(visit, purge, is_confirmed)
}

/// What this isolate does about a purge that Redis has confirmed or not.
fn settle<P: Ports>(visit: &Visit<'_, P>, purge: &Purge, is_confirmed: bool) -> bool {
    visit.gateway.l1.borrow_mut().purge(purge);
    if !is_confirmed {
        let mut unpurged = visit.gateway.unpurged.borrow_mut();
        unpurged.begin(purge, visit.ports.now_ms());
        visit.defer(Deferred::Purge {
            purge: purge.clone(),
        });
    }
    is_confirmed
}

/// An answer's body after a look into it.
enum Peeked<B> {
    Whole(Bytes),
    /// Too long or too slow for templates.
    Unread(Body<B>),
}

async fn peek<P: Ports>(
    visit: &Visit<'_, P>,
    body: Body<P::Body>,
    most: usize,
) -> Result<Peeked<P::Body>, OriginError> {
    let Body::Upstream(body) = body else {
        return Ok(Peeked::Unread(body));
    };
    let timeout_ms = visit.origin_timeout_ms();
    Ok(match visit.ports.read(body, most, timeout_ms).await? {
        Bounded::Whole(bytes) => Peeked::Whole(bytes.into()),
        Bounded::Longer(body) | Bounded::Slow(body) => Peeked::Unread(Body::Upstream(body)),
    })
}
