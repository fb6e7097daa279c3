//! Limits say how they count, what they cost, and whom: all of it is read, and what does
//! not go together is an error at its place.

use edgeweir::policy::bounds::{
    MAX_WINDOW_MS, MIN_BUCKETS, bucket_ms, leased_bucket_ms, min_window_ms,
};
use edgeweir::policy::{Algorithm, By, Cost, Limit, Overrides, Penalty, Policy, Switch};
use proptest::prelude::*;

use super::marked::{errors_of, expect, in_limit, in_route};
use super::{property, shown, toml};

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
        "a sliding log takes at most 100 at once",
    );
    in_limit(
        &format!("{log}, requests = 10000, cost = {{ miss = §101 }}"),
        "/cost/miss",
        "`miss` is 101, but a sliding log takes",
    );
    in_limit(
        &format!("{log}, requests = 99, cost = §100"),
        "/cost",
        "the limit is 99",
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
        ("cost = §51", "/cost", "`cost` is 51, but the limit is 50"),
        ("cost = §\"1\"", "/cost", "is text, not a whole number"),
        ("cost = { §mis = 1 }", "/cost/mis", "no field of `cost`"),
        ("cost = { hit = §-1 }", "/cost/hit", "`hit` is -1"),
        (
            "cost = { miss = §51 }",
            "/cost/miss",
            "`miss` is 51, but the limit is 50",
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
            "`cost` is 6, but `burst` is 5",
        ),
        (
            "algorithm = \"token-bucket\", burst = 500, cost = §51",
            "/cost",
            "the limit is 50",
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
    // CONTRACT's own example: it is right, and charged without a lease.
    assert!(!limit("lease = true, cost = { hit = 0, miss = 5 }").lease);
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
    assert_eq!(leased_bucket_ms(60_000, 150), 1_500);
    assert_eq!(leased_bucket_ms(3_600_000, 150), 90_000);
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

#[test]
fn limits_that_share_a_count_agree_in_all_but_their_cost() {
    let limit = |more: &str| {
        format!(
            "{{ name = \"x\", requests = 50, window = \"1m\", by = \"user\", per = \"all\"{more} }}"
        )
    };
    let text = |first: &str, second: &str| {
        format!(
            "[defaults]\nlimit = [{}]\n[[route]]\nname = \"a\"\nmatch = \"GET /a\"\nlimit = [{second}]\n",
            limit(first)
        )
    };
    for more in [
        "algorithm = \"sliding-log\"",
        "algorithm = \"token-bucket\"",
        "lease = true",
        "shadow = true",
        "penalty = {}",
        "rollout = 99",
        "allow = [\"user:a\"]",
        "deny = [\"10.0.0.0/8\"]",
    ] {
        let other = limit(&format!(", {more}"));
        expect(
            &text("", &format!("§{other}")),
            &[("/route/0/limit/0", "shares this count and differs")],
        );
        toml(&text(&format!(", {more}"), &other));
    }
    let bucket = |burst: u32| format!(", algorithm = \"token-bucket\", burst = {burst}");
    expect(
        &text(&bucket(5), &format!("§{}", limit(&bucket(6)))),
        &[("/route/0/limit/0", "shares this count and differs")],
    );
    toml(&text("", &limit(", cost = { hit = 0, miss = 5 }")));
}

#[test]
fn a_route_names_its_switches() {
    let route = |switch: &str| {
        let text = format!("[[route]]\nname = \"a\"\nmatch = \"GET /a\"\nswitch = {switch}\n");
        toml(&text).routes[0].switches.clone()
    };
    for (name, switch) in [
        ("RATE_LIMIT_REDIS_ENABLED", Switch::RateLimitRedis),
        ("VIEW_TRACKING_REDIS_ENABLED", Switch::ViewTrackingRedis),
        ("NOTIFICATION_CACHE_ENABLED", Switch::NotificationCache),
        (
            "NOTIFICATION_RATE_LIMIT_ENABLED",
            Switch::NotificationRateLimit,
        ),
    ] {
        assert_eq!(route(&format!("\"{name}\"")), [switch]);
        assert_eq!(route(&format!("[\"{name}\"]")), [switch]);
    }
    assert_eq!(
        route("[\"NOTIFICATION_RATE_LIMIT_ENABLED\", \"NOTIFICATION_CACHE_ENABLED\"]"),
        [Switch::NotificationRateLimit, Switch::NotificationCache]
    );
    assert_eq!(route("[]"), []);
    in_route(
        "switch = §\"REDIS_ENABLED\"",
        "/switch",
        "`switch` is `REDIS_ENABLED`",
    );
    in_route("switch = §true", "/switch", "is true or false, not text");
    in_route(
        "switch = [\"NOTIFICATION_CACHE_ENABLED\", §\"NOTIFICATION_CACHE_ENABLED\"]",
        "/switch/1",
        "is there twice",
    );
    expect(
        "[[route]]\nname = \"a\"\nmatch = \"GET /a\"\nswitch = [§1, §\"NOTIFICATION_CACH_ENABLED\"]\n",
        &[
            ("/route/0/switch/0", "is a number, not text"),
            (
                "/route/0/switch/1",
                "`switch[1]` is `NOTIFICATION_CACH_ENABLED`",
            ),
        ],
    );
    let errors = errors_of(
        "[[route]]\nname = \"a\"\nmatch = \"GET /a\"\nswitch = \"NOTIFICATION_CACH_ENABLED\"\n",
    );
    assert_eq!(errors[0].help, "did you mean `NOTIFICATION_CACHE_ENABLED`?");
}

fn overridden(
    limits: &str,
    window_ms: Option<u64>,
    max_requests: Option<u32>,
) -> Result<Vec<Limit>, String> {
    let text = format!("{{\"defaults\":{{\"limit\":[{limits}]}}}}");
    let overrides = Overrides {
        window_ms,
        max_requests,
    };
    Policy::from_json(&text, &overrides)
        .map(|policy| policy.defaults.limits)
        .map_err(|errors| shown(&errors))
}

#[test]
fn variables_are_bound_by_what_they_override() {
    let of = |more: &str| {
        format!("{{\"name\":\"a\",\"requests\":50,\"window\":\"60s\",\"by\":\"user\"{more}}}")
    };
    let log = of(",\"algorithm\":\"sliding-log\"");
    let bucket = of(",\"algorithm\":\"token-bucket\"");
    let burst = of(",\"algorithm\":\"token-bucket\",\"burst\":2232000");
    let leased = of(",\"lease\":true");
    let plain = of("");
    let refused: [(&str, Option<u64>, Option<u32>, &str); 8] = [
        (
            &log,
            Some(999),
            None,
            "RATE_LIMIT_WINDOW_MS: a window of 999ms is shorter than 1s; set it to at least 1000",
        ),
        (
            &plain,
            Some(2_499),
            None,
            "RATE_LIMIT_WINDOW_MS: a window of 2499ms is shorter than 10 buckets of 250ms; set it to at least 2500",
        ),
        (
            &log,
            None,
            Some(10_001),
            "RATE_LIMIT_MAX_REQUESTS: a limit of 10001 is too large for a sliding log, which keeps each of them, as `a` is; set it to at most 10000",
        ),
        (
            &leased,
            None,
            Some(19),
            "RATE_LIMIT_MAX_REQUESTS: a limit of 19 is too small to lease, as `a` is; set it to at least 20",
        ),
        (
            &burst,
            Some(60_001),
            None,
            "RATE_LIMIT_WINDOW_MS: a `burst` of 2232000 takes longer than 31 days to come back, as `a` is; set it to less",
        ),
        (
            &burst,
            None,
            Some(49),
            "RATE_LIMIT_MAX_REQUESTS: a `burst` of 2232000 takes longer than 31 days to come back, as `a` is; set it to more",
        ),
        (
            &plain,
            Some(0),
            None,
            "RATE_LIMIT_WINDOW_MS: a window of 0 ms is not possible",
        ),
        (
            &plain,
            None,
            Some(0),
            "RATE_LIMIT_MAX_REQUESTS: a limit of 0 is not possible",
        ),
    ];
    for (limit, window_ms, requests, message) in refused {
        let errors = overridden(limit, window_ms, requests).unwrap_err();
        assert!(
            errors.starts_with(message) && errors.lines().count() == 1,
            "not `{message}`: {errors}"
        );
    }
    let both = format!("{plain},{}", log.replace("\"a\"", "\"b\""));
    let errors = overridden(&both, Some(500), None).unwrap_err();
    assert!(
        errors.contains("at least 2500") && errors.lines().count() == 1,
        "{errors}"
    );
    assert!(overridden(&log, Some(1_000), Some(10_000)).is_ok());
    assert!(overridden(&leased, Some(2_500), Some(20)).is_ok());
    // A bucket that is as large as its limit stays so.
    let limits = overridden(&bucket, None, Some(7)).unwrap();
    assert_eq!(limits[0].algorithm, Algorithm::TokenBucket { burst: 7 });
    let limits = overridden(&burst, None, Some(70)).unwrap();
    assert_eq!(
        (limits[0].requests, limits[0].algorithm),
        (70, Algorithm::TokenBucket { burst: 2_232_000 })
    );
}

#[test]
fn everything_about_a_limit_is_explained() {
    let text = "[defaults]
hash_ids = true
address = { header = \"x-forwarded-for\", proxies = [\"10.0.0.0/8\"], ipv6_prefix = 56 }
limit = [
  { name = \"leased\", requests = 50, window = \"1m\", lease = true, shadow = true, rollout = 10 },
  { name = \"log\", requests = 5, window = \"1s\", algorithm = \"sliding-log\", by = \"user\", cost = 0, penalty = {} },
  { name = \"bucket\", requests = 5, window = \"1s\", algorithm = \"token-bucket\", burst = 9, by = \"global\", cost = { hit = 0, miss = 5 } },
  { name = \"fixed\", requests = 5, window = \"1h\", algorithm = \"fixed-window\", cost = 2, allow = [\"10.0.0.0/8\"], deny = [\"user:a\", \"user:b\"] },
]
[[route]]
name = \"a\"
match = \"GET /a\"
switch = [\"NOTIFICATION_CACHE_ENABLED\", \"RATE_LIMIT_REDIS_ENABLED\"]
";
    let policy = toml(text);
    let explained = policy.explain("GET", "/a").to_string();
    for line in [
        "leased: 50 in any 1m by address (CF-Connecting-IP, or x-forwarded-for from a trusted proxy; IPv6 by its /56)\n",
        "counted at ratelimit:{hash of ip}:a:leased:{epoch}, in buckets of 1500ms\n",
        "leased: an isolate charges ahead what it will need for 1500ms\n",
        "shadow: counts and reports, never refuses\n",
        "rollout: counts 10 % of the ids",
        "log: 5 in any 1s (sliding log) by verified user, else address, only looks: this request counts nothing\n",
        "counted under ratelimit:{hash of user or ip}:a:log\n",
        "penalty: 5 offences in a window ban the address for 1m, then twice as long, up to 1h\n",
        "bucket: 5 each 1s, 9 at once (token bucket) by everybody together, this request counts 0 on a hit, 5 on a miss, 5 when the origin fails\n",
        "counted under ratelimit:global:a:bucket\n",
        "fixed: 5 in each 1h since 1970 (fixed window) by address",
        ", this request counts 2\n",
        "allow: 1 entry is not counted\n",
        "deny: 2 entries are always refused\n",
        "switch  NOTIFICATION_CACHE_ENABLED = false: nothing is cached\n",
        "switch  RATE_LIMIT_REDIS_ENABLED = false: this isolate's own counts, without Redis\n",
    ] {
        assert!(explained.contains(line), "{line}\n{explained}");
    }
    assert_eq!(policy.defaults.limits[2].by, By::Global);
}
