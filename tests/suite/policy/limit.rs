//! Limits say how they count, what they cost, and whom: all of it is read, and what does
//! not go together is an error at its place.

use edgeweir::policy::bounds::{
    MAX_WINDOW_MS, MIN_BUCKETS, bucket_ms, leased_bucket_ms, min_window_ms,
};
use edgeweir::policy::{Algorithm, Cost, Limit, Overrides, Penalty, Policy};
use proptest::prelude::*;

use super::marked::{errors_of, expect, in_limit};
use super::{property, toml};

const WHOLE: &str = "name = \"a\", requests = 50, window = \"1m\"";

fn limit(more: &str) -> Limit {
    let policy = toml(&format!("[defaults]\nlimit = [{{ {WHOLE}, {more} }}]\n"));
    policy.defaults.limits[0].clone()
}

/// One error in a limit that is right otherwise.
fn wrong(more: &str, pointer: &str, message: &str) {
    in_limit(&format!("{WHOLE}, {more}"), pointer, message);
}

fn help_of(more: &str) -> String {
    let text = format!("[defaults]\nlimit = [{{ {WHOLE}, {more} }}]\n");
    errors_of(&text)[0].help.clone()
}

#[test]
fn each_algorithm_is_read() {
    for (more, algorithm) in [
        ("algorithm = \"sliding-window\"", Algorithm::SlidingWindow),
        ("algorithm = \"sliding-log\"", Algorithm::SlidingLog),
        ("algorithm = \"fixed-window\"", Algorithm::FixedWindow),
        (
            "algorithm = \"token-bucket\"",
            Algorithm::TokenBucket { burst: 50 },
        ),
        (
            "algorithm = \"token-bucket\", burst = 7",
            Algorithm::TokenBucket { burst: 7 },
        ),
        (
            "algorithm = \"token-bucket\", burst = 700",
            Algorithm::TokenBucket { burst: 700 },
        ),
    ] {
        assert_eq!(limit(more).algorithm, algorithm, "{more}");
    }
    wrong(
        "algorithm = §\"sliding-logs\"",
        "/algorithm",
        "`algorithm` is `sliding-logs`",
    );
    assert_eq!(
        help_of("algorithm = \"sliding-logs\""),
        "did you mean `sliding-log`?"
    );
    wrong("algorithm = §1", "/algorithm", "is a number, not text");
}

#[test]
fn only_a_token_bucket_has_a_burst_that_comes_back() {
    for more in [
        "",
        "algorithm = \"sliding-window\",",
        "algorithm = \"sliding-log\",",
        "algorithm = \"fixed-window\",",
    ] {
        wrong(
            &format!("{more} §burst = 5"),
            "/burst",
            "only a token bucket has a `burst`",
        );
    }
    let bucket = "algorithm = \"token-bucket\"";
    wrong(&format!("{bucket}, burst = §0"), "/burst", "`burst` is 0");
    wrong(
        &format!("{bucket}, burst = §2147483649"),
        "/burst",
        "`burst` is 2147483649",
    );
    wrong(
        &format!("{bucket}, burst = §\"5\""),
        "/burst",
        "is text, not a whole number",
    );
    // 50 a minute are 2 232 000 in 31 days.
    assert_eq!(
        limit(&format!("{bucket}, burst = 2232000")).algorithm,
        Algorithm::TokenBucket { burst: 2_232_000 }
    );
    wrong(
        &format!("{bucket}, burst = §2232001"),
        "/burst",
        "takes longer than 31 days",
    );
    assert_eq!(
        help_of(&format!("{bucket}, burst = 2232001")),
        "write at most 2232000"
    );
    // A unit is at least 100 µs.
    let rate = "name = \"a\", window = \"1s\", algorithm = \"token-bucket\"";
    in_limit(
        &format!("{rate}, requests = §10001"),
        "/requests",
        "too large for a token bucket with this window",
    );
    toml(&format!(
        "[defaults]\nlimit = [{{ {rate}, requests = 10000 }}]\n"
    ));
}

#[test]
fn without_buckets_a_window_may_be_a_second() {
    for algorithm in ["sliding-log", "token-bucket", "fixed-window"] {
        let rest = format!("name = \"a\", requests = 5, algorithm = \"{algorithm}\"");
        in_limit(
            &format!("{rest}, window = §\"999ms\""),
            "/window",
            "a window of 999ms is shorter than 1s",
        );
        let policy = toml(&format!(
            "[defaults]\nlimit = [{{ {rest}, window = \"1s\" }}]\n"
        ));
        assert_eq!(policy.defaults.limits[0].window_ms, 1_000);
    }
    let of = |window: &str| {
        let text = format!(
            "[defaults]\nlimit = [{{ name = \"a\", requests = 5, window = \"{window}\" }}]\n"
        );
        errors_of(&text)[0].help.clone()
    };
    assert!(of("1s").contains("`algorithm = \"sliding-log\"`"));
    assert!(!of("999ms").contains("sliding-log"), "no log is so short");
}

#[test]
fn a_sliding_log_is_small() {
    let log = "name = \"a\", window = \"1m\", algorithm = \"sliding-log\"";
    in_limit(
        &format!("{log}, requests = §10001"),
        "/requests",
        "too large for a sliding log",
    );
    in_limit(
        &format!("{log}, requests = 10000, cost = §101"),
        "/cost",
        "`cost` is 101 and a sliding log's most at once 100",
    );
    in_limit(
        &format!("{log}, requests = 10000, cost = {{ miss = §101 }}"),
        "/cost/miss",
        "`miss` is 101 and a sliding log's most at once 100",
    );
    in_limit(
        &format!("{log}, requests = 99, cost = §100"),
        "/cost",
        "`cost` is 100 and the limit 99",
    );
    toml(&format!(
        "[defaults]\nlimit = [{{ {log}, requests = 10000, cost = 100 }}]\n"
    ));
}

#[test]
fn costs_go_by_outcome() {
    let cost = |hit, miss, error| Cost { hit, miss, error };
    for (more, expected) in [
        ("cost = 0", Cost::flat(0)),
        ("cost = 50", Cost::flat(50)),
        ("cost = {}", Cost::flat(1)),
        ("cost = { hit = 0, miss = 5 }", cost(0, 5, 5)),
        ("cost = { hit = 0, miss = 5, error = 0 }", cost(0, 5, 0)),
        ("cost = { miss = 5 }", cost(1, 5, 5)),
        ("cost = { hit = 0 }", cost(0, 1, 1)),
        ("cost = { error = 0 }", cost(1, 1, 0)),
        ("cost = { hit = 0, miss = 0 }", Cost::flat(0)),
    ] {
        assert_eq!(limit(more).cost, expected, "{more}");
    }
    for (more, pointer, message) in [
        ("cost = §-1", "/cost", "`cost` is -1"),
        ("cost = §51", "/cost", "`cost` is 51 and the limit 50"),
        ("cost = §\"1\"", "/cost", "is text, not a whole number"),
        ("cost = { §mis = 1 }", "/cost/mis", "no field of `cost`"),
        ("cost = { hit = §-1 }", "/cost/hit", "`hit` is -1"),
        (
            "cost = { miss = §51 }",
            "/cost/miss",
            "`miss` is 51 and the limit 50",
        ),
        (
            "cost = { hit = §2 }",
            "/cost/hit",
            "`hit` is 2 and `miss` is 1",
        ),
        (
            "cost = §{ miss = 0 }",
            "/cost",
            "`hit` is 1 and `miss` is 0",
        ),
        (
            "cost = { miss = 3, error = §4 }",
            "/cost/error",
            "`error` is 4 and `miss` is 3",
        ),
        (
            "algorithm = \"token-bucket\", burst = 5, cost = §6",
            "/cost",
            "`cost` is 6 and the `burst` 5",
        ),
        (
            "algorithm = \"token-bucket\", burst = 500, cost = §51",
            "/cost",
            "`cost` is 51 and the limit 50",
        ),
    ] {
        wrong(more, pointer, message);
    }
    let all = format!(
        "[defaults]\nlimit = [{{ {WHOLE}, cost = {{ hit = §\"1\", miss = §-1, error = §true }} }}]\n"
    );
    let at = |name: &str| format!("/defaults/limit/0/cost/{name}");
    expect(
        &all,
        &[
            (&at("hit"), "is text"),
            (&at("miss"), "`miss` is -1"),
            (&at("error"), "is true or false"),
        ],
    );
}

#[test]
fn leases_need_a_sliding_window_that_is_worth_it() {
    assert!(limit("lease = true").lease);
    assert!(limit("lease = true, cost = 5").lease);
    assert!(!limit("lease = false").lease);
    // CONTRACT's own example.
    assert!(limit("lease = true, cost = { hit = 0, miss = 5 }").lease);
    for algorithm in ["sliding-log", "token-bucket", "fixed-window"] {
        wrong(
            &format!("algorithm = \"{algorithm}\", lease = §true"),
            "/lease",
            "only a sliding window is leased",
        );
    }
    in_limit(
        "name = \"a\", requests = §19, window = \"1m\", lease = true",
        "/requests",
        "a limit of 19 is too small to lease",
    );
    toml("[defaults]\nlimit = [{ name = \"a\", requests = 20, window = \"1m\", lease = true }]\n");
    wrong(
        "lease = §true, cost = 0",
        "/lease",
        "costs nothing has nothing to lease",
    );
    wrong(
        "lease = §true, cost = { hit = 0, miss = 0 }",
        "/lease",
        "nothing to lease",
    );
    wrong("lease = §1", "/lease", "is a number, not true or false");
    in_limit(
        "name = \"a\", requests = 50, window = §\"2499ms\", lease = true",
        "/window",
        "shorter than 10 buckets",
    );
}

/// The grammar has one shortest window for both.
#[test]
fn a_window_that_is_long_enough_has_ten_buckets_leased_or_not() {
    property(
        2_000,
        (0..=MAX_WINDOW_MS, 10u64..=10_000),
        |(window_ms, redis_ms)| {
            let is_enough = window_ms >= min_window_ms(redis_ms);
            for bucket in [
                bucket_ms(window_ms, redis_ms),
                leased_bucket_ms(window_ms, redis_ms),
            ] {
                prop_assert_eq!(window_ms >= MIN_BUCKETS * bucket, is_enough);
                prop_assert!(bucket >= redis_ms + 100);
            }
            Ok(())
        },
    );
    assert_eq!(leased_bucket_ms(60_000, 150), 2_000);
    assert_eq!(leased_bucket_ms(3_600_000, 150), 120_000);
    assert_eq!(leased_bucket_ms(5_000, 150), 250);
    assert_eq!(leased_bucket_ms(20_000, 900), 1_000);
}

#[test]
fn penalties_have_the_contracts_defaults() {
    let penalty = |after, base_ms, max_ms| {
        Some(Penalty {
            after,
            base_ms,
            max_ms,
        })
    };
    for (more, expected) in [
        ("shadow = false", None),
        ("penalty = {}", penalty(5, 60_000, 3_600_000)),
        (
            "penalty = { after = 1, base = \"1s\", max = \"24h\" }",
            penalty(1, 1_000, 86_400_000),
        ),
        (
            "penalty = { base = \"1h\" }",
            penalty(5, 3_600_000, 3_600_000),
        ),
    ] {
        assert_eq!(limit(more).penalty, expected, "{more}");
    }
    for (more, pointer, message) in [
        (
            "penalty = §true",
            "/penalty",
            "is true or false, not a table",
        ),
        (
            "penalty = { §aftr = 1 }",
            "/penalty/aftr",
            "no field of `penalty`",
        ),
        ("penalty = { after = §0 }", "/penalty/after", "`after` is 0"),
        (
            "penalty = { base = §\"x\" }",
            "/penalty/base",
            "no duration",
        ),
        (
            "penalty = { base = §\"999ms\" }",
            "/penalty/base",
            "`base` is 999ms",
        ),
        (
            "penalty = { max = §\"25h\" }",
            "/penalty/max",
            "`max` is 25h",
        ),
        (
            "penalty = { base = §\"2h\" }",
            "/penalty/base",
            "`base` is 2h and `max` is 1h",
        ),
        (
            "penalty = { max = §\"30s\" }",
            "/penalty/max",
            "`base` is 1m and `max` is 30s",
        ),
    ] {
        wrong(more, pointer, message);
    }
}

#[test]
fn shadow_and_rollout_are_read() {
    let plain = limit("by = \"ip\"");
    assert!(!plain.shadow && plain.rollout == 100);
    assert!(limit("shadow = true").shadow);
    assert_eq!(limit("rollout = 0").rollout, 0);
    assert_eq!(limit("rollout = 10").rollout, 10);
    wrong("shadow = §\"yes\"", "/shadow", "is text, not true or false");
    wrong("rollout = §101", "/rollout", "`rollout` is 101");
    wrong("rollout = §-1", "/rollout", "`rollout` is -1");
    wrong("rollout = §0.5", "/rollout", "a number with a fraction");
}

/// Whatever is written, what is accepted is what the limiter can count.
#[test]
fn an_accepted_limit_goes_together() {
    use std::cell::Cell;
    let number = || prop::sample::select(vec![0u32, 1, 2, 5, 19, 20, 100, 101, 10_000, 10_001]);
    let sizes = (
        number(),
        prop::sample::select(vec!["999ms", "1s", "2499ms", "2500ms", "60s", "744h"]),
        prop::sample::select(vec![
            "sliding-window",
            "sliding-log",
            "token-bucket",
            "fixed-window",
        ]),
        prop::option::weighted(0.3, number()),
        any::<bool>(),
    );
    let cost = (
        any::<bool>(),
        prop::option::of(number()),
        prop::option::of(number()),
        prop::option::of(number()),
    );
    let accepted = Cell::new(0);
    property(
        8_000,
        (sizes, cost),
        |((requests, window, algorithm, burst, lease), (is_flat, hit, miss, error))| {
            let mut limit = serde_json::json!({
                "name": "a", "requests": requests, "window": window, "algorithm": algorithm, "lease": lease,
            });
            if let Some(burst) = burst {
                limit["burst"] = burst.into();
            }
            if is_flat {
                limit["cost"] = miss.unwrap_or(1).into();
            } else {
                let by_outcome = [("hit", hit), ("miss", miss), ("error", error)];
                for (name, cost) in by_outcome {
                    if let Some(cost) = cost {
                        limit["cost"][name] = cost.into();
                    }
                }
            }
            let text = serde_json::json!({ "defaults": { "limit": [limit] } }).to_string();
            let Ok(policy) = Policy::from_json(&text, &Overrides::default()) else {
                return Ok(());
            };
            accepted.set(accepted.get() + 1);
            let limit = &policy.defaults.limits[0];
            let (cost, requests) = (limit.cost, limit.requests);
            prop_assert!(requests >= 1 && cost.hit <= cost.miss && cost.error <= cost.miss);
            prop_assert!(cost.miss <= requests, "{}", text);
            match limit.algorithm {
                Algorithm::SlidingWindow => prop_assert!(limit.window_ms >= 2_500),
                Algorithm::SlidingLog => prop_assert!(requests <= 10_000 && cost.miss <= 100),
                Algorithm::TokenBucket { burst } => {
                    prop_assert!(burst >= 1 && cost.miss <= burst);
                    let full_ms = u64::from(burst) * limit.window_ms / u64::from(requests);
                    prop_assert!(full_ms <= MAX_WINDOW_MS);
                    prop_assert!(u64::from(requests) <= limit.window_ms * 10);
                }
                Algorithm::FixedWindow => {}
            }
            prop_assert!((1_000..=MAX_WINDOW_MS).contains(&limit.window_ms));
            if limit.lease {
                prop_assert_eq!(limit.algorithm, Algorithm::SlidingWindow);
                prop_assert!(requests >= 20 && cost.miss > 0);
            }
            Ok(())
        },
    );
    // Some one in seven is.
    println!("{} of 8000 accepted", accepted.get());
    assert!(accepted.get() > 400);
}
