//! One limit in words and facts.

use super::super::bounds::{bucket_ms, leased_bucket_ms};
use super::super::measure::show_ms;
use super::super::types::*;
use super::Explanation;
use edgeweir_json::{Map, Value, json};

/// `route` is the name under which it counts. The facts come back.
pub fn explain(
    out: &mut Explanation,
    limit: &Limit,
    route: &str,
    defaults: &Defaults,
) -> Value<'static> {
    let mut facts = Map::new();
    let (id, who) = identity(&limit.by, &defaults.address);
    let id = match (defaults.hash_ids, &limit.by) {
        (false, _) | (_, By::Global) => id,
        (true, _) => format!("{{hash of {}}}", id.trim_matches(['{', '}'])),
    };
    add!(
        out,
        "limit",
        format!(
            "{}: {} by {who}{}",
            limit.name,
            rate(limit),
            price(limit.cost)
        ),
    );
    let route = match limit.per {
        Per::Route => route,
        Per::All => "_",
    };
    let redis_ms = defaults.timeout.redis_ms;
    let bucket_ms = match limit.lease {
        true => leased_bucket_ms(limit.window_ms, redis_ms),
        false => bucket_ms(limit.window_ms, redis_ms),
    };
    let key = format!("ratelimit:{id}:{route}:{}", limit.name);
    let mut fact = |name, value: Value<'static>| facts.insert(name, value);
    fact("name", json!(&limit.name));
    fact("requests", json!(limit.requests));
    fact("window", json!(show_ms(limit.window_ms)));
    fact("algorithm", json!(word(limit.algorithm)));
    if let Algorithm::TokenBucket { burst } = limit.algorithm {
        fact("burst", json!(burst));
    }
    fact("by", json!(id_kind(&limit.by)));
    fact("key", json!(key.clone()));
    let cost = limit.cost;
    fact(
        "cost",
        json!({ "hit": cost.hit, "miss": cost.miss, "error": cost.error }),
    );
    fact("lease", json!(limit.lease));
    fact("shadow", json!(limit.shadow));
    fact("rollout", json!(u32::from(limit.rollout)));
    fact("penalty", json!(limit.penalty.is_some()));
    fact("allowed", json!(limit.allow.len()));
    fact("denied", json!(limit.deny.len()));
    add!(
        out,
        "",
        match limit.algorithm {
            Algorithm::SlidingWindow => format!(
                "counted at {key}:{{epoch}}, in buckets of {}",
                show_ms(bucket_ms)
            ),
            _ => format!("counted under {key}"),
        },
    );
    if limit.lease {
        let bucket = show_ms(bucket_ms);
        let text = format!("leased: an isolate charges ahead what it will need for {bucket}");
        add!(out, "", text);
    }
    if limit.shadow {
        add!(out, "", "shadow: counts and reports, never refuses");
    }
    if limit.rollout < 100 {
        let text = format!(
            "rollout: counts {} % of the ids, the same always",
            limit.rollout
        );
        add!(out, "", text);
    }
    if let Some(penalty) = limit.penalty {
        let text = format!(
            "penalty: {} offences in a window ban the address for {}, then twice as long, up to {}",
            penalty.after,
            show_ms(penalty.base_ms),
            show_ms(penalty.max_ms)
        );
        add!(out, "", text);
    }
    for (list, what) in [
        (&limit.allow, "allow: {} not counted"),
        (&limit.deny, "deny: {} always refused"),
    ] {
        let entries = match list.len() {
            0 => continue,
            1 => "1 entry is".to_owned(),
            more => format!("{more} entries are"),
        };
        add!(out, "", what.replace("{}", &entries));
    }
    Value::Object(facts)
}

fn word(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::SlidingWindow => "sliding-window",
        Algorithm::SlidingLog => "sliding-log",
        Algorithm::TokenBucket { .. } => "token-bucket",
        Algorithm::FixedWindow => "fixed-window",
    }
}

/// As the policy writes it.
fn id_kind(by: &By) -> String {
    match by {
        By::Ip => "ip".to_owned(),
        By::User => "user".to_owned(),
        By::Global => "global".to_owned(),
        By::Header(name) => ["header:", name].concat(),
    }
}

fn rate(limit: &Limit) -> String {
    let (requests, window) = (limit.requests, show_ms(limit.window_ms));
    match limit.algorithm {
        Algorithm::SlidingWindow => format!("{requests} in any {window}"),
        Algorithm::SlidingLog => format!("{requests} in any {window} (sliding log)"),
        Algorithm::TokenBucket { burst } => {
            format!("{requests} each {window}, {burst} at once (token bucket)")
        }
        Algorithm::FixedWindow => {
            format!("{requests} in each {window} since 1970 (fixed window)")
        }
    }
}

/// What this request costs, when it is not 1.
fn price(cost: Cost) -> String {
    match cost {
        Cost { miss: 0, .. } => ", only looks: this request counts nothing".to_owned(),
        cost if !cost.is_flat() => format!(
            ", this request counts {} on a hit, {} on a miss, {} when the origin fails",
            cost.hit, cost.miss, cost.error
        ),
        Cost { miss: 1, .. } => String::new(),
        Cost { miss, .. } => format!(", this request counts {miss}"),
    }
}

fn identity(by: &By, address: &Address) -> (String, String) {
    match by {
        By::Ip => {
            let proxies = match &address.header {
                Some(header) => format!(", or {header} from a trusted proxy"),
                None => String::new(),
            };
            let who = format!(
                "address (CF-Connecting-IP{proxies}; IPv6 by its /{})",
                address.ipv6_prefix
            );
            ("{ip}".to_owned(), who)
        }
        By::User => (
            "{user or ip}".to_owned(),
            "verified user, else address".to_owned(),
        ),
        By::Global => ("global".to_owned(), "everybody together".to_owned()),
        By::Header(name) => (format!("{{{name}}}"), format!("the header {name}")),
    }
}
