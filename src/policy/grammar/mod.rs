//! A tree to a checked policy: the whole grammar, every fault at once.
//!
//! Fields of the grammar whose feature is not built are checked for their shape and
//! are then faults that say so.

mod address;
mod cache;
mod compose;
mod fill;
mod fit;
mod form;
mod life;
mod limit;
mod route;
mod subject;
mod unbuilt;
mod view;
mod warm;
mod whole;

pub use warm::request as warm_request;

use super::bounds::*;
use super::error::Faults;
use super::field::Field;
use super::node::Node;
use super::types::{Address, Defaults, HeaderProfile, Limit, Policy, RedisDown, Timeouts};
pub use cache::OWN_KEYS;
use route::Draft;

/// What variables say over the policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `RATE_LIMIT_WINDOW_MS`: the window of every limit in `[defaults]`.
    pub window_ms: Option<u64>,
    /// `RATE_LIMIT_MAX_REQUESTS`: the size of every limit in `[defaults]`.
    pub max_requests: Option<u32>,
    /// `NOTIFICATION_CACHE_TTL`: seconds.
    pub notification_ttl_s: Option<u64>,
    /// `UNREAD_COUNT_CACHE_TTL`: seconds.
    pub unread_ttl_s: Option<u64>,
}

const REDIS_DOWN: [(&str, RedisDown); 3] = [
    ("local", RedisDown::Local),
    ("open", RedisDown::Open),
    ("closed", RedisDown::Closed),
];

/// Checks a policy; what it returns holds only if there were no faults.
pub fn policy(root: &Node, overrides: &Overrides, faults: &mut Faults) -> Option<Policy> {
    let root = Field::root(root).table("a policy", &["defaults", "route"], faults)?;
    let defaults = match root.get("defaults") {
        Some(field) => defaults(&field, faults),
        None => Some(built_in_defaults()),
    };
    // A policy whose own timeouts are wrong is judged by the ones it replaces.
    let redis_ms = defaults
        .as_ref()
        .map_or(DEFAULT_REDIS_TIMEOUT_MS, |defaults| {
            defaults.timeout.redis_ms
        });
    let defaults = defaults.map(|mut defaults| {
        limit::override_all(&mut defaults.limits, redis_ms, overrides, faults);
        defaults
    });
    let drafts: Vec<Draft<'_>> = match root.get("route").map(|list| list.list(MAX_ROUTES, faults)) {
        Some(Some(list)) => list
            .iter()
            .map(|item| route::draft(item, redis_ms, overrides, faults))
            .collect(),
        _ => Vec::new(),
    };
    whole::names(&drafts, faults);
    let parts: Vec<_> = drafts
        .iter()
        .map(|draft| compose::parts(draft, &drafts, faults))
        .collect();
    let fills: Vec<_> = drafts
        .iter()
        .map(|draft| fill::rule(draft, &drafts, faults))
        .collect();
    let limits = defaults
        .as_ref()
        .map_or(&[][..], |defaults| &defaults.limits);
    whole::check(&drafts, limits, faults);
    warm::total(&drafts, faults);
    let list = root.get("defaults").and_then(|field| field.child("limit"));
    whole::inherited(&drafts, limits, list, faults);
    let defaults = defaults?;
    let routes: Option<Vec<_>> = drafts
        .into_iter()
        .zip(parts.into_iter().zip(fills))
        .map(|(draft, (parts, fill))| draft.finish(parts, fill, &defaults))
        .collect();
    Some(Policy {
        defaults,
        routes: routes?,
    })
}

fn built_in_defaults() -> Defaults {
    Defaults {
        limits: vec![Limit::new(
            "default",
            DEFAULT_REQUESTS,
            DEFAULT_WINDOW_MS,
            super::types::By::Ip,
        )],
        timeout: Timeouts {
            redis_ms: DEFAULT_REDIS_TIMEOUT_MS,
            origin_ms: DEFAULT_ORIGIN_TIMEOUT_MS,
        },
        headers: vec![HeaderProfile::Draft11, HeaderProfile::Legacy],
        redis_down: RedisDown::Local,
        address: Address::default(),
        hash_ids: false,
        bots: view::built_in_bots(),
    }
}

fn defaults(field: &Field<'_>, faults: &mut Faults) -> Option<Defaults> {
    let table = field.table(
        "`defaults`",
        &[
            "limit",
            "timeout",
            "headers",
            "redis_down",
            "address",
            "hash_ids",
            "bots",
        ],
        faults,
    )?;
    let or = built_in_defaults();
    let timeout = match table.get("timeout") {
        Some(field) => timeouts(&field, or.timeout, faults),
        None => Some(or.timeout),
    };
    let redis_ms = timeout.map_or(or.timeout.redis_ms, |timeout| timeout.redis_ms);
    let limits = match table.get("limit") {
        Some(field) => limit::list(&field, redis_ms, faults),
        None => Some(or.limits),
    };
    let headers = match table.get("headers") {
        Some(field) => profiles(&field, faults),
        None => Some(or.headers),
    };
    let redis_down = match table.get("redis_down") {
        Some(field) => field.choice(&REDIS_DOWN, faults),
        None => Some(or.redis_down),
    };
    let address = match table.get("address") {
        Some(field) => address::address(&field, faults),
        None => Some(or.address),
    };
    let hash_ids = table.boolean("hash_ids", or.hash_ids, faults);
    let bots = match table.get("bots") {
        Some(field) => view::bots(&field, faults),
        None => Some(or.bots),
    };
    Some(Defaults {
        limits: limits?,
        timeout: timeout?,
        headers: headers?,
        redis_down: redis_down?,
        address: address?,
        hash_ids: hash_ids?,
        bots: bots?,
    })
}

fn timeouts(field: &Field<'_>, or: Timeouts, faults: &mut Faults) -> Option<Timeouts> {
    let table = field.table("`timeout`", &["redis", "origin"], faults)?;
    let redis = MIN_TIMEOUT_MS..=MAX_REDIS_TIMEOUT_MS;
    let redis_ms = table.duration("redis", redis, or.redis_ms, faults);
    let origin = MIN_TIMEOUT_MS..=MAX_ORIGIN_TIMEOUT_MS;
    let origin_ms = table.duration("origin", origin, or.origin_ms, faults);
    Some(Timeouts {
        redis_ms: redis_ms?,
        origin_ms: origin_ms?,
    })
}

fn profiles(field: &Field<'_>, faults: &mut Faults) -> Option<Vec<HeaderProfile>> {
    const WORDS: [(&str, HeaderProfile); 2] = [
        ("draft-11", HeaderProfile::Draft11),
        ("legacy", HeaderProfile::Legacy),
    ];
    let mut profiles = Vec::new();
    for item in field.list(WORDS.len(), faults)? {
        let profile = item.choice(&WORDS, faults)?;
        if profiles.contains(&profile) {
            let message = format!("{} repeats a set of headers", item.label());
            item.fault(faults, message, "leave it out");
        } else {
            profiles.push(profile);
        }
    }
    Some(profiles)
}
