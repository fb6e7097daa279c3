//! What is not built yet says so; what is left out has the contract's defaults; variables
//! override them.

use edgeweir::policy::{Overrides, Policy, PolicyError};

use super::marked::{errors_of, expect, in_cache, in_route, in_route_put};
use super::{json, shown, toml};

const NOT_BUILT: &str = "is part of the policy's grammar, but this version does not build it yet";

#[test]
fn what_is_not_built_yet_says_so() {
    for (field, value) in [
        ("fill", "\"book\""),
        (
            "publish",
            "{ channel = \"c:{id}\", event = \"e\", data = \"response\" }",
        ),
        ("view", "{ story = \"{id}\" }"),
    ] {
        in_route(
            &format!("§{field} = {value}"),
            &format!("/{field}"),
            NOT_BUILT,
        );
    }
    for (field, value) in [
        ("warm", "{ every = \"30s\", values = { id = [\"1\"] } }"),
        ("scope", "\"user\""),
        ("format", "\"packed\""),
    ] {
        in_cache(
            &format!("§{field} = {value}"),
            &format!("/{field}"),
            NOT_BUILT,
        );
    }
    in_route("cache = { §mode = \"http\" }", "/cache/mode", NOT_BUILT);
    in_route(
        "cache = { key = \"a:{id}\", §ttl = \"$NOTIFICATION_CACHE_TTL\" }",
        "/cache/ttl",
        NOT_BUILT,
    );
    in_route_put(
        "purge = { tags = [\"x\"], §mode = \"soft\" }",
        "/purge/mode",
        NOT_BUILT,
    );
    assert_eq!(
        errors_of("[[route]]\nname=\"a\"\nmatch=\"GET /a\"\nfill=\"b\"")[0].to_string(),
        "4:1: /route/0/fill: `fill` is part of the policy's grammar, but this version does not build it yet; remove it"
    );
}

#[test]
fn what_is_not_built_yet_has_its_shape_all_the_same() {
    let twice = |marked: &str, inner: &str, outer: &str, message: &str| {
        let text = format!("[[route]]\nname = \"a\"\nmatch = \"GET /a/{{id}}\"\n{marked}\n");
        expect(
            &text,
            &[
                (&format!("/route/0{outer}"), NOT_BUILT),
                (&format!("/route/0{inner}"), message),
            ],
        );
    };
    twice("§fill = §1", "/fill", "/fill", "is a number, not text");
    twice(
        "§publish = { §chanel = \"c\" }",
        "/publish/chanel",
        "/publish",
        "no field of `publish`",
    );
    twice(
        "§view = { story = §1 }",
        "/view/story",
        "/view",
        "is a number, not text",
    );
    twice(
        "cache = { key = \"a:{id}\", ttl = \"1m\", §warm = { every = §\"x\" } }",
        "/cache/warm/every",
        "/cache/warm",
        "no duration",
    );
    twice(
        "cache = { key = \"a:{id}\", ttl = \"1m\", §warm = { values = { id = [§1] } } }",
        "/cache/warm/values/id/0",
        "/cache/warm",
        "is a number, not text",
    );
}

fn with_overrides(
    text: &str,
    window_ms: Option<u64>,
    max_requests: Option<u32>,
) -> Result<Policy, Vec<PolicyError>> {
    let overrides = Overrides {
        window_ms,
        max_requests,
    };
    Policy::from_json(text, &overrides)
}

#[test]
fn variables_override_every_default_limit_and_those_who_inherit_it() {
    let text = r#"{"defaults":{"limit":[{"name":"a","requests":9,"window":"60s"},{"name":"b","requests":9,"window":"1h","cost":3}]},
        "route":[{"name":"own","match":"GET /own","limit":[{"name":"x","requests":9,"window":"60s"}]},{"name":"inherits","match":"GET /in"}]}"#;
    let policy = with_overrides(text, Some(5_000), Some(7)).unwrap();
    for limits in [&policy.defaults.limits, &policy.routes[1].limits] {
        assert!(
            limits
                .iter()
                .all(|limit| (limit.window_ms, limit.requests) == (5_000, 7)),
            "{limits:?}"
        );
        assert_eq!(limits.len(), 2);
    }
    assert_eq!(
        (
            policy.routes[0].limits[0].window_ms,
            policy.routes[0].limits[0].requests
        ),
        (60_000, 9)
    );

    let errors = with_overrides(text, Some(2_000), Some(2)).unwrap_err();
    let pointers: Vec<&str> = errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        ["RATE_LIMIT_WINDOW_MS", "RATE_LIMIT_MAX_REQUESTS"],
        "{}",
        shown(&errors)
    );
    assert!(errors.iter().all(|error| error.line.is_none()));
    assert!(errors[1].message.contains("cost 3 of `b`"), "{}", errors[1]);
    assert!(with_overrides("{}", Some(0), None).is_err());
    assert!(with_overrides("{}", Some(u64::MAX), None).is_err());
    assert!(with_overrides("{}", None, Some(0)).is_err());
    assert!(with_overrides("{}", None, Some(u32::MAX)).is_err());
    // Without limits there is nothing to be too short.
    assert!(with_overrides(r#"{"defaults":{"limit":[]}}"#, Some(2_000), None).is_ok());
}

#[test]
fn an_empty_policy_has_the_contracts_defaults() {
    use edgeweir::policy::{By, Cost, HeaderProfile, Per, RedisDown, Timeouts};
    for policy in [json("{}"), json(r#"{"defaults":{}}"#), toml("")] {
        let limit = &policy.defaults.limits[0];
        assert_eq!(policy.defaults.limits.len(), 1);
        assert_eq!(
            (
                limit.name.as_str(),
                limit.requests,
                limit.window_ms,
                limit.cost
            ),
            ("default", 100, 60_000, Cost::flat(1))
        );
        assert_eq!((&limit.by, limit.per), (&By::Ip, Per::Route));
        assert_eq!(
            policy.defaults.timeout,
            Timeouts {
                redis_ms: 150,
                origin_ms: 10_000
            }
        );
        assert_eq!(
            policy.defaults.headers,
            [HeaderProfile::Draft11, HeaderProfile::Legacy]
        );
        assert_eq!(policy.defaults.redis_down, RedisDown::Local);
        assert!(policy.routes.is_empty());
    }
}
