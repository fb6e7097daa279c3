//! Limits: `{ name, requests, window, by, per, cost, algorithm }`.

use std::collections::BTreeSet;

use super::super::bounds::{
    MAX_LIMITS, MAX_NAME_BYTES, MAX_REQUESTS, MAX_WINDOW_MS, bucket_ms, min_window_ms,
};
use super::super::error::Faults;
use super::super::field::{Field, quote};
use super::super::measure::show_ms;
use super::super::node::Value;
use super::super::types::{By, Cost, Limit, Per};
use super::{Overrides, unbuilt};

const FIELDS: [&str; 13] = [
    "name",
    "requests",
    "window",
    "by",
    "per",
    "cost",
    "algorithm",
    "lease",
    "shadow",
    "penalty",
    "allow",
    "deny",
    "rollout",
];

/// A list of limits with different names.
pub fn list(field: &Field<'_>, redis_ms: u64, faults: &mut Faults) -> Option<Vec<Limit>> {
    let items = field.list(MAX_LIMITS, faults)?;
    let mut names = BTreeSet::new();
    let limits: Vec<Option<Limit>> = items
        .iter()
        .map(|item| limit(item, redis_ms, &mut names, faults))
        .collect();
    limits.into_iter().collect()
}

fn limit<'n>(
    item: &Field<'n>,
    redis_ms: u64,
    names: &mut BTreeSet<&'n str>,
    faults: &mut Faults,
) -> Option<Limit> {
    let table = item.table("a limit", &FIELDS, faults)?;
    unbuilt::limit(&table, faults);
    let name = table
        .need("name", "name the limit; clients see the name", faults)
        .and_then(|field| {
            let name = field.name(faults)?;
            if !names.insert(name) {
                let message = format!("another limit of this list is called `{name}` already");
                field.fault(faults, message, "give each limit of a list its own name");
            }
            Some(name.to_owned())
        });
    let requests = table
        .need(
            "requests",
            "say how many fit into the window: requests = 100",
            faults,
        )
        .and_then(|field| field.integer(1..=u64::from(MAX_REQUESTS), faults))
        .and_then(|requests| u32::try_from(requests).ok());
    let window = table.need(
        "window",
        "say how long the window is: window = \"60s\"",
        faults,
    );
    let window_ms = window.as_ref().and_then(|field| {
        let window_ms = field.duration(1..=MAX_WINDOW_MS, faults)?;
        if let Some((message, help)) = too_short(window_ms, redis_ms) {
            field.fault(faults, message, help);
        }
        Some(window_ms)
    });
    let by = table
        .get("by")
        .map_or(Some(By::Ip), |field| by(&field, faults));
    let per = table.get("per").map_or(Some(Per::Route), |field| {
        field.choice(&[("route", Per::Route), ("all", Per::All)], faults)
    });
    // A cost by outcome is not built, and reported as that.
    let cost = match table.get("cost") {
        Some(field) if !matches!(field.node.value, Value::Table(_)) => {
            let cost = field.integer(1..=u64::from(MAX_REQUESTS), faults);
            let cost = cost.and_then(|cost| u32::try_from(cost).ok());
            if let (Some(cost), Some(requests)) = (cost, requests)
                && cost > requests
            {
                let message = format!(
                    "`cost` is {cost}, but the limit is {requests}: no request would ever fit"
                );
                field.fault(faults, message, format!("write at most {requests}"));
            }
            cost
        }
        _ => Some(1),
    };
    Some(Limit {
        per: per?,
        cost: Cost::flat(cost?),
        ..Limit::new(name?, requests?, window_ms?, by?)
    })
}

/// Why a sliding window is too short for its buckets, and what to do.
fn too_short(window_ms: u64, redis_ms: u64) -> Option<(String, String)> {
    let least = min_window_ms(redis_ms);
    (window_ms < least).then(|| {
        let bucket = show_ms(bucket_ms(window_ms, redis_ms));
        (
            format!("a window of {} is shorter than 10 buckets of {bucket}", show_ms(window_ms)),
            format!(
                "write at least \"{}\"; shorter windows are for `algorithm = \"sliding-log\"`, which this version does not build yet",
                show_ms(least)
            ),
        )
    })
}

fn by(field: &Field<'_>, faults: &mut Faults) -> Option<By> {
    const HELP: &str = "write \"ip\", \"user\", \"global\" or \"header:NAME\"";
    let text = field.text(HELP, faults)?;
    let header = text.strip_prefix("header:");
    let is_header =
        |name: &&str| (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_token);
    match (text, header) {
        ("ip", _) => Some(By::Ip),
        ("user", _) => Some(By::User),
        ("global", _) => Some(By::Global),
        (_, Some(name)) if is_header(&name) => Some(By::Header(name.to_ascii_lowercase())),
        _ => {
            field.fault(faults, format!("`by` is {}", quote(text)), HELP);
            None
        }
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Applies the variables to the default limits; what does not fit is their fault.
pub fn override_all(
    limits: &mut [Limit],
    redis_ms: u64,
    overrides: &Overrides,
    faults: &mut Faults,
) {
    const WINDOW: &str = "RATE_LIMIT_WINDOW_MS";
    const REQUESTS: &str = "RATE_LIMIT_MAX_REQUESTS";
    if let Some(window_ms) = overrides.window_ms {
        if !(1..=MAX_WINDOW_MS).contains(&window_ms) {
            let help = format!("set it from 1 to {MAX_WINDOW_MS}, or unset it");
            faults.add(
                WINDOW,
                None,
                format!("a window of {window_ms} ms is not possible"),
                help,
            );
        } else if let Some((message, _)) =
            too_short(window_ms, redis_ms).filter(|_| !limits.is_empty())
        {
            let help = format!(
                "set it to at least {}, or unset it",
                min_window_ms(redis_ms)
            );
            faults.add(WINDOW, None, message, help);
        }
        for limit in limits.iter_mut() {
            limit.window_ms = window_ms;
        }
    }
    if let Some(requests) = overrides.max_requests {
        if !(1..=MAX_REQUESTS).contains(&requests) {
            let help = format!("set it from 1 to {MAX_REQUESTS}, or unset it");
            faults.add(
                REQUESTS,
                None,
                format!("a limit of {requests} is not possible"),
                help,
            );
        }
        for limit in limits.iter_mut() {
            let cost = limit.cost.hit.max(limit.cost.miss);
            if cost > requests && requests > 0 {
                let message = format!(
                    "a limit of {requests} is below the cost {cost} of `{}`",
                    limit.name
                );
                faults.add(
                    REQUESTS,
                    None,
                    message,
                    format!("set it to at least {cost}, or unset it"),
                );
            }
            limit.requests = requests;
        }
    }
}
