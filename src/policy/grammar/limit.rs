//! Limits: `{ name, requests, window, by, per, algorithm, burst, cost, lease, shadow, penalty,
//! allow, deny, rollout }`.

use super::super::bounds::*;
use super::super::error::Faults;
use super::super::field::{Field, Table, quote};
use super::super::measure::show_ms;
use super::super::node::Value;
use super::super::types::{Algorithm, By, Cost, Limit, Penalty, Per};
use super::fit::Sizes;
use super::subject::{self, Kinds};
use super::{Overrides, address};

const FIELDS: [&str; 14] = [
    "name",
    "requests",
    "window",
    "by",
    "per",
    "cost",
    "algorithm",
    "burst",
    "lease",
    "shadow",
    "penalty",
    "allow",
    "deny",
    "rollout",
];

const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("sliding-window", Algorithm::SlidingWindow),
    ("sliding-log", Algorithm::SlidingLog),
    ("token-bucket", Algorithm::TokenBucket { burst: 0 }),
    ("fixed-window", Algorithm::FixedWindow),
];

/// A list of limits with different names.
pub fn list(field: &Field<'_>, redis_ms: u64, faults: &mut Faults) -> Option<Vec<Limit>> {
    let items = field.list(MAX_LIMITS, faults)?;
    let mut names = Vec::new();
    let limits: Vec<Option<Limit>> = items
        .iter()
        .map(|item| limit(item, redis_ms, &mut names, faults))
        .collect();
    limits.into_iter().collect()
}

fn limit<'n>(
    item: &Field<'n>,
    redis_ms: u64,
    names: &mut Vec<&'n str>,
    faults: &mut Faults,
) -> Option<Limit> {
    let table = item.table("a limit", &FIELDS, faults)?;
    let name = table
        .need("name", "name the limit; clients see the name", faults)
        .and_then(|field| {
            let name = field.name(faults)?;
            if names.contains(&name) {
                let message = format!("another limit of this list is called `{name}` already");
                field.fault(faults, message, "give each limit of a list its own name");
            }
            names.push(name);
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
    let window_ms = table
        .need(
            "window",
            "say how long the window is: window = \"60s\"",
            faults,
        )
        .and_then(|field| field.duration(1..=MAX_WINDOW_MS, faults));
    let by = table
        .get("by")
        .map_or(Some(By::Ip), |field| by(&field, faults));
    let per = table.get("per").map_or(Some(Per::Route), |field| {
        field.choice(&[("route", Per::Route), ("all", Per::All)], faults)
    });
    let algorithm = algorithm(&table, requests, faults);
    let cost = cost(&table, faults);
    let lease = table.boolean("lease", false, faults);
    let shadow = table.boolean("shadow", false, faults);
    let penalty = match table.get("penalty") {
        Some(field) => penalty(&field, faults).map(Some),
        None => Some(None),
    };
    let rollout = table.integer("rollout", 0..=100, 100, faults);
    let kinds = Kinds::of(by.as_ref());
    let mut subjects = |name| match table.get(name) {
        Some(field) => subject::list(&field, kinds, faults),
        None => Some(Vec::new()),
    };
    let (allow, deny) = (subjects("allow"), subjects("deny"));
    if let (Some(allow), Some(deny), Some(field)) = (&allow, &deny, table.get("deny")) {
        subject::exclude(allow, deny, &field, faults);
    }
    if let Some(algorithm) = algorithm {
        let sizes = Sizes {
            algorithm,
            lease: lease == Some(true),
            requests,
            window_ms,
            cost: cost.map(|cost| cost.miss),
        };
        check(&sizes, &table, redis_ms, faults);
    }
    Some(Limit {
        name: name?,
        requests: requests?,
        window_ms: window_ms?,
        by: by?,
        per: per?,
        cost: cost?,
        algorithm: algorithm?,
        lease: lease?,
        shadow: shadow?,
        penalty: penalty?,
        allow: allow?,
        deny: deny?,
        rollout: u8::try_from(rollout?).unwrap_or(100),
    })
}

/// Whether the sizes of a limit go together.
fn check(sizes: &Sizes, table: &Table<'_>, redis_ms: u64, faults: &mut Faults) {
    for misfit in sizes.misfits(redis_ms) {
        let (mut message, mut number) = (misfit.message, misfit.number.to_string());
        let mut field = table.get(misfit.field);
        if misfit.field == "cost" {
            let cost = field.as_ref().and_then(|cost| cost.child("miss")).or(field);
            message = cost.as_ref().map(Field::label).unwrap_or_default() + " " + &message;
            field = cost;
        }
        if misfit.field == "window" {
            number = format!("\"{}\"", show_ms(misfit.number));
            if sizes.window_ms >= Some(MIN_WINDOW_MS) {
                number.push_str("; shorter windows are for `algorithm = \"sliding-log\"`");
            }
        }
        if let Some(field) = field {
            field.fault(faults, message, format!("write {} {number}", misfit.bound));
        }
    }
    let Some(field) = table.get("lease").filter(|_| sizes.lease) else {
        return;
    };
    if sizes.algorithm != Algorithm::SlidingWindow {
        let help = "remove it, or write `algorithm = \"sliding-window\"`";
        field.fault(faults, "only a sliding window is leased", help);
    }
    if sizes.cost == Some(0) {
        let message = "a limit that costs nothing has nothing to lease";
        field.fault(faults, message, "remove it, or give a `cost`");
    }
}

fn algorithm(table: &Table<'_>, requests: Option<u32>, faults: &mut Faults) -> Option<Algorithm> {
    let algorithm = table
        .get("algorithm")
        .map_or(Some(Algorithm::SlidingWindow), |field| {
            field.choice(&ALGORITHMS, faults)
        });
    let burst = table.units("burst", 1, requests, faults);
    match algorithm? {
        // Where the burst has a fault, the other sizes are judged without it.
        Algorithm::TokenBucket { .. } => Some(Algorithm::TokenBucket {
            burst: burst.or(requests).unwrap_or(1),
        }),
        algorithm => {
            if let Some(field) = table.get("burst") {
                let help = "remove it, or write `algorithm = \"token-bucket\"`";
                field.fault_at_name(faults, "only a token bucket has a `burst`", help);
            }
            Some(algorithm)
        }
    }
}

/// A number, or numbers by outcome.
fn cost(table: &Table<'_>, faults: &mut Faults) -> Option<Cost> {
    let by_outcome = table
        .get("cost")
        .filter(|field| matches!(field.node.value, Value::Table(_)));
    let Some(field) = by_outcome else {
        return table.units("cost", 0, Some(1), faults).map(Cost::flat);
    };
    let costs = field.table("`cost`", &["hit", "miss", "error"], faults)?;
    let hit = costs.units("hit", 0, Some(1), faults);
    let miss = costs.units("miss", 0, Some(1), faults);
    let error = costs.units("error", 0, miss, faults);
    let cost = Cost {
        hit: hit?,
        miss: miss?,
        error: error?,
    };
    for (name, less) in [("hit", cost.hit), ("error", cost.error)] {
        if less > cost.miss {
            let message = format!("`{name}` is {less} and `miss` is {}", cost.miss);
            let help = format!("write `{name}` and a `miss` that is not below it");
            costs.fault(&[name], faults, message, help);
        }
    }
    Some(cost)
}

fn penalty(field: &Field<'_>, faults: &mut Faults) -> Option<Penalty> {
    let table = field.table("`penalty`", &["after", "base", "max"], faults)?;
    let after = table.units("after", 1, Some(DEFAULT_STRIKE_AFTER), faults);
    let ban_ms = MIN_BAN_MS..=MAX_BAN_MS;
    let base_ms = table.duration("base", ban_ms.clone(), DEFAULT_BAN_MS, faults);
    let max_ms = table.duration("max", ban_ms, DEFAULT_MAX_BAN_MS, faults);
    let penalty = Penalty {
        after: after?,
        base_ms: base_ms?,
        max_ms: max_ms?,
    };
    if penalty.base_ms > penalty.max_ms {
        let (base, max) = (show_ms(penalty.base_ms), show_ms(penalty.max_ms));
        let message = format!("`base` is {base} and `max` is {max}");
        let help = "write a `base` that is at most `max`";
        table.fault(&["base", "max"], faults, message, help);
    }
    Some(penalty)
}

fn by(field: &Field<'_>, faults: &mut Faults) -> Option<By> {
    const HELP: &str = "write \"ip\", \"user\", \"global\" or \"header:NAME\"";
    let text = field.text(HELP, faults)?;
    let header = text.strip_prefix("header:").and_then(address::header_name);
    match (text, header) {
        ("ip", _) => Some(By::Ip),
        ("user", _) => Some(By::User),
        ("global", _) => Some(By::Global),
        (_, Some(name)) => Some(By::Header(name)),
        _ => {
            field.fault(faults, format!("`by` is {}", quote(text)), HELP);
            None
        }
    }
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
    let Overrides {
        window_ms,
        max_requests,
        ..
    } = *overrides;
    let mut fault = |variable: &str, message: String, fits: String| {
        let help = format!("set it {fits}, or unset it");
        faults.add(variable, None, message, help);
    };
    if let Some(window_ms) = window_ms.filter(|ms| !(1..=MAX_WINDOW_MS).contains(ms)) {
        let message = format!("a window of {window_ms} ms is not possible");
        return fault(WINDOW, message, format!("from 1 to {MAX_WINDOW_MS}"));
    }
    if let Some(requests) = max_requests.filter(|most| !(1..=MAX_REQUESTS).contains(most)) {
        let message = format!("a limit of {requests} is not possible");
        return fault(REQUESTS, message, format!("from 1 to {MAX_REQUESTS}"));
    }
    for limit in limits.iter_mut() {
        // What is wrong with the policy's own sizes is told already.
        let told = Sizes::of(limit).misfits(redis_ms);
        limit.window_ms = window_ms.unwrap_or(limit.window_ms);
        if let Some(requests) = max_requests {
            if let Algorithm::TokenBucket { burst } = &mut limit.algorithm
                && *burst == limit.requests
            {
                // As large as the limit, said or not.
                *burst = requests;
            }
            limit.requests = requests;
        }
        for misfit in Sizes::of(limit).misfits(redis_ms) {
            if told.iter().any(|told| told.field == misfit.field) {
                continue;
            }
            let of_window = misfit.field == "window" || max_requests.is_none();
            let fits = match (misfit.field, of_window) {
                ("cost", _) => format!("to at least {}", limit.cost.miss),
                ("burst", true) => "to less".to_owned(),
                ("burst", false) | ("requests", true) => "to more".to_owned(),
                _ => format!("to {} {}", misfit.bound, misfit.number),
            };
            let what = if misfit.field == "cost" {
                "the cost "
            } else {
                ""
            };
            let message = format!("`{}`: {what}{}", limit.name, misfit.message);
            fault(if of_window { WINDOW } else { REQUESTS }, message, fits);
        }
    }
}
