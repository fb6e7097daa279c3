//! Limits: `{ name, requests, window, by, per, algorithm, burst, cost, lease, shadow, penalty,
//! allow, deny, rollout }`.

use std::collections::BTreeSet;

use super::super::bounds::*;
use super::super::error::Faults;
use super::super::field::{Field, Table, quote};
use super::super::measure::show_ms;
use super::super::node::Value;
use super::super::types::{Algorithm, By, Cost, Limit, Penalty, Per};
use super::subject::{self, Kinds};
use super::{Overrides, address, fit, optional_duration};

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
        .and_then(|field| whole(&field, 1, faults));
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
    let lease = boolean(&table, "lease", faults);
    let shadow = boolean(&table, "shadow", faults);
    let penalty = match table.get("penalty") {
        Some(field) => penalty(&field, faults).map(Some),
        None => Some(None),
    };
    let rollout = match table.get("rollout") {
        Some(field) => field
            .integer(0..=100, faults)
            .and_then(|percent| u8::try_from(percent).ok()),
        None => Some(100),
    };
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
            requests,
            window_ms,
            cost,
            lease: lease == Some(true),
        };
        sizes.check(&table, redis_ms, faults);
    }
    let cost = cost?;
    Some(Limit {
        name: name?,
        requests: requests?,
        window_ms: window_ms?,
        by: by?,
        per: per?,
        cost,
        algorithm: algorithm?,
        // By its outcome a request gives back after its answer, to where it was charged,
        // and a leased one was charged nowhere: such a limit is charged without a lease.
        lease: lease? && cost.is_flat(),
        shadow: shadow?,
        penalty: penalty?,
        allow: allow?,
        deny: deny?,
        rollout: rollout?,
    })
}

/// The sizes of a limit as far as they could be read.
struct Sizes {
    algorithm: Algorithm,
    requests: Option<u32>,
    window_ms: Option<u64>,
    cost: Option<Cost>,
    lease: bool,
}

impl Sizes {
    /// Whether they go together.
    fn check(&self, table: &Table<'_>, redis_ms: u64, faults: &mut Faults) {
        let algorithm = self.algorithm;
        let mut fault = |name: &str, message: String, help: String| {
            if let Some(field) = table.get(name) {
                field.fault(faults, message, help);
            }
        };
        if let Some(window_ms) = self.window_ms
            && let Some((message, least)) = fit::window(algorithm, window_ms, redis_ms)
        {
            let mut help = format!("write at least \"{}\"", show_ms(least));
            if algorithm == Algorithm::SlidingWindow && window_ms >= MIN_WINDOW_MS {
                help.push_str("; shorter windows are for `algorithm = \"sliding-log\"`");
            }
            fault("window", message, help);
        }
        if let Some(requests) = self.requests
            && let Some((message, fits)) = fit::requests(algorithm, self.lease, requests)
        {
            fault("requests", message, format!("write {fits}"));
        }
        if let (Some(requests), Some(window_ms)) = (self.requests, self.window_ms)
            && let Some((message, most)) = fit::burst(algorithm, requests, window_ms)
        {
            fault("burst", message, format!("write at most {most}"));
        }
        if self.lease && algorithm != Algorithm::SlidingWindow {
            let message = "only a sliding window is leased".to_owned();
            let help = "remove it, or write `algorithm = \"sliding-window\"`";
            fault("lease", message, help.to_owned());
        }
        let Some(cost) = self.cost else { return };
        if self.lease && cost.miss == 0 {
            let message = "a limit that costs nothing has nothing to lease".to_owned();
            fault("lease", message, "remove it, or give a `cost`".to_owned());
        }
        if let Some(requests) = self.requests
            && let (most, why) = fit::cost(algorithm, requests)
            && cost.miss > most
            && let Some(field) = table.get("cost")
        {
            let field = field.child("miss").unwrap_or(field);
            let message = format!("{} is {}, but {why}", field.label(), cost.miss);
            field.fault(faults, message, format!("write at most {most}"));
        }
    }
}

fn whole(field: &Field<'_>, least: u64, faults: &mut Faults) -> Option<u32> {
    let number = field.integer(least..=u64::from(MAX_REQUESTS), faults)?;
    u32::try_from(number).ok()
}

/// False when it is not there.
fn boolean(table: &Table<'_>, name: &str, faults: &mut Faults) -> Option<bool> {
    table
        .get(name)
        .map_or(Some(false), |field| field.boolean(faults))
}

fn algorithm(table: &Table<'_>, requests: Option<u32>, faults: &mut Faults) -> Option<Algorithm> {
    let algorithm = table
        .get("algorithm")
        .map_or(Some(Algorithm::SlidingWindow), |field| {
            field.choice(&ALGORITHMS, faults)
        });
    let burst = match table.get("burst") {
        Some(field) => {
            let burst = whole(&field, 1, faults);
            if !matches!(algorithm, None | Some(Algorithm::TokenBucket { .. })) {
                let help = "remove it, or write `algorithm = \"token-bucket\"`";
                field.fault_at_name(faults, "only a token bucket has a `burst`", help);
            }
            burst
        }
        None => requests,
    };
    match algorithm? {
        // Where the burst has a fault, the other sizes are judged without it.
        Algorithm::TokenBucket { .. } => Some(Algorithm::TokenBucket {
            burst: burst.or(requests).unwrap_or(1),
        }),
        algorithm => Some(algorithm),
    }
}

/// A number, or numbers by outcome.
fn cost(table: &Table<'_>, faults: &mut Faults) -> Option<Cost> {
    let Some(field) = table.get("cost") else {
        return Some(Cost::flat(1));
    };
    if !matches!(field.node.value, Value::Table(_)) {
        return whole(&field, 0, faults).map(Cost::flat);
    }
    let costs = field.table("`cost`", &["hit", "miss", "error"], faults)?;
    let mut of = |name, or| match costs.get(name) {
        Some(field) => whole(&field, 0, faults),
        None => or,
    };
    let (hit, miss) = (of("hit", Some(1)), of("miss", Some(1)));
    let error = of("error", miss);
    let cost = Cost {
        hit: hit?,
        miss: miss?,
        error: error?,
    };
    for (name, less) in [("hit", cost.hit), ("error", cost.error)] {
        if less > cost.miss {
            let message = format!("`{name}` is {less} and `miss` is {}", cost.miss);
            let help = format!("write `{name}` and a `miss` that is not below it");
            costs
                .get(name)
                .unwrap_or_else(|| field.clone())
                .fault(faults, message, help);
        }
    }
    Some(cost)
}

fn penalty(field: &Field<'_>, faults: &mut Faults) -> Option<Penalty> {
    let table = field.table("`penalty`", &["after", "base", "max"], faults)?;
    let after = match table.get("after") {
        Some(field) => whole(&field, 1, faults),
        None => Some(DEFAULT_STRIKE_AFTER),
    };
    let ban = (MIN_BAN_MS, MAX_BAN_MS);
    let base_ms = optional_duration(&table, "base", ban, DEFAULT_BAN_MS, faults);
    let max_ms = optional_duration(&table, "max", ban, DEFAULT_MAX_BAN_MS, faults);
    let penalty = Penalty {
        after: after?,
        base_ms: base_ms?,
        max_ms: max_ms?,
    };
    if penalty.base_ms > penalty.max_ms {
        let message = format!(
            "`base` is {} and `max` is {}",
            show_ms(penalty.base_ms),
            show_ms(penalty.max_ms)
        );
        table
            .get("base")
            .or_else(|| table.get("max"))
            .unwrap_or_else(|| field.clone())
            .fault(faults, message, "write a `base` that is at most `max`");
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
    let mut fault = |variable: &str, message: String, fits: String| {
        let help = format!("set it {fits}, or unset it");
        faults.add(variable, None, message, help);
    };
    if let Some(window_ms) = overrides.window_ms {
        if !(1..=MAX_WINDOW_MS).contains(&window_ms) {
            let message = format!("a window of {window_ms} ms is not possible");
            return fault(WINDOW, message, format!("from 1 to {MAX_WINDOW_MS}"));
        }
        let short = limits
            .iter()
            .filter_map(|limit| fit::window(limit.algorithm, window_ms, redis_ms))
            .max_by_key(|(_, least)| *least);
        if let Some((message, least)) = short {
            fault(WINDOW, message, format!("to at least {least}"));
        }
        for limit in limits.iter_mut() {
            limit.window_ms = window_ms;
        }
    }
    if let Some(requests) = overrides.max_requests {
        if !(1..=MAX_REQUESTS).contains(&requests) {
            let message = format!("a limit of {requests} is not possible");
            return fault(REQUESTS, message, format!("from 1 to {MAX_REQUESTS}"));
        }
        for limit in limits.iter_mut() {
            if let Some((message, fits)) = fit::requests(limit.algorithm, limit.lease, requests) {
                fault(
                    REQUESTS,
                    format!("{message}, as `{}` is", limit.name),
                    format!("to {fits}"),
                );
            }
            let cost = limit.cost.miss;
            if cost > requests {
                let message = format!(
                    "a limit of {requests} is below the cost {cost} of `{}`",
                    limit.name
                );
                fault(REQUESTS, message, format!("to at least {cost}"));
            }
            if let Algorithm::TokenBucket { burst } = &mut limit.algorithm
                && *burst == limit.requests
            {
                // As large as the limit, said or not.
                *burst = requests;
            }
            limit.requests = requests;
        }
    }
    let (variable, fits) = match (overrides.max_requests, overrides.window_ms) {
        (Some(_), _) => (REQUESTS, "to more"),
        (None, Some(_)) => (WINDOW, "to less"),
        (None, None) => return,
    };
    for limit in limits.iter() {
        if let Some((message, _)) = fit::burst(limit.algorithm, limit.requests, limit.window_ms) {
            let message = format!("{message}, as `{}` is", limit.name);
            fault(variable, message, fits.to_owned());
        }
    }
}
