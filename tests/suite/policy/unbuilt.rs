//! What is not built yet says so; what is left out has the contract's defaults.

use super::marked::{errors_of, expect, in_route};
use super::{json, toml};

const NOT_BUILT: &str = "is part of the policy's grammar, but this version does not build it yet";

#[test]
fn what_is_not_built_yet_says_so() {
    in_route(
        "§publish = { channel = \"c:{id}\", event = \"e\", data = \"response\" }",
        "/publish",
        NOT_BUILT,
    );
    assert_eq!(
        errors_of("[[route]]\nname=\"a\"\nmatch=\"GET /a\"\npublish={}")[0].to_string(),
        "4:1: /route/0/publish: `publish` is part of the policy's grammar, but this version does not build it yet; remove it"
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
    twice(
        "§publish = { §chanel = \"c\" }",
        "/publish/chanel",
        "/publish",
        "no field of `publish`",
    );
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
