//! `warm` and `patience`: what they mean, every error, and what `explain` says of them.

use super::marked::{expect, in_cache, in_route};
use super::toml;

fn route(cache: &str) -> String {
    format!("[[route]]\nname = \"a\"\nmatch = \"GET /a/{{id}}/{{x}}\"\ncache = {{ {cache} }}\n")
}

const KEY: &str = "key = \"a:{id}:{x}:{hash}\", ttl = \"1h\", query = { sort = \"new\", q = \"\" }";

#[test]
fn every_combination_of_the_values_is_kept_warm() {
    let warm = "warm = { every = \"30m\", top = 7, values = { x = [\"1\"], id = [\"a\", \"b\"], sort = [\"new\", \"old\"] } }";
    let text = route(&format!(
        "{KEY}, stale = \"1m\", patience = \"300ms\", {warm}"
    ));
    let policy = toml(&text);
    let rule = policy.routes[0].cache.as_ref().unwrap();
    let warm = rule.warm.as_ref().unwrap();
    assert_eq!((warm.every_ms, warm.top), (1_800_000, 7));
    assert_eq!(rule.patience_ms, Some(300));
    let all: Vec<Vec<&str>> = (warm.combinations().into_iter())
        .map(|one| one.into_iter().map(|(_, value)| value).collect())
        .collect();
    let expected = [
        ["1", "a", "new"],
        ["1", "a", "old"],
        ["1", "b", "new"],
        ["1", "b", "old"],
    ];
    assert_eq!(all, expected);
    let explained = policy.explain("GET", "/a/a/1").to_string();
    for line in [
        "patience: 300ms for the origin, and then the stale one\n",
        "warm: x 1; id a, b; sort new, old; the 7 most asked of the last hour, every 30m\n",
    ] {
        assert!(explained.contains(line), "{line}\n{explained}");
    }
}

/// Plan 3, "Cache Warming": popular events, lists for major states, leaderboards.
#[test]
fn what_plan_3_warms_is_kept_warm() {
    let policy = toml(include_str!("../../../policies/tikit.toml"));
    for (name, listed, top) in [
        ("event-list", 1, 20),
        ("event", 0, 20),
        ("referral-leaderboard", 1, 0),
    ] {
        let found = policy.routes.iter().find(|route| route.name == name);
        let warm = found.unwrap().cache.as_ref().unwrap().warm.clone().unwrap();
        assert_eq!((warm.combinations().len(), warm.top), (listed, top));
        assert!(warm.every_ms < 3_600_000, "{name}");
    }
}

/// No user is there when the cron runs.
#[test]
fn what_is_one_users_own_cannot_be_warmed() {
    expect(
        &route(
            "key = \"a:{id}:{x}:{user}\", ttl = \"1h\", scope = \"user\", §warm = { every = \"5m\", top = 3 }",
        ),
        &[(
            "/route/0/cache/warm",
            "`warm` has no meaning with `scope = \"user\"`",
        )],
    );
}

/// Machines are told the same.
#[test]
fn warming_is_among_the_facts() {
    let policy = toml(&route(&format!(
        "{KEY}, stale = \"1m\", patience = \"300ms\", warm = {{ every = \"30m\", top = 7, values = {{ x = [\"1\"], id = [\"a\", \"b\"] }} }}"
    )));
    let facts = policy.explain("GET", "/a/a/1").facts;
    assert_eq!(facts.get("patience").unwrap().as_str(), Some("300ms"));
    assert_eq!(
        facts.get("warm").unwrap().text(),
        r#"{"every":"30m","top":7,"values":[{"name":"x","values":["1"]},{"name":"id","values":["a","b"]}]}"#
    );
}

#[test]
fn a_route_without_placeholders_needs_no_values() {
    let text = "[[route]]\nname = \"a\"\nmatch = \"GET /a\"\ncache = { key = \"a\", ttl = \"1m\", warm = { every = \"59s\" } }\n";
    let policy = toml(text);
    let warm = policy.routes[0]
        .cache
        .as_ref()
        .unwrap()
        .warm
        .clone()
        .unwrap();
    assert_eq!(warm.combinations(), [[]]);
    let explained = policy.explain("GET", "/a").to_string();
    assert!(
        explained.contains("warm: the only entry, every 59s\n"),
        "{explained}"
    );
    // Alone it needs none either: the keys are what is asked.
    toml(&route(&format!(
        "{KEY}, warm = {{ every = \"1m\", top = 20 }}"
    )));
}

#[test]
fn every_error_of_warm_is_found() {
    for (warm, pointer, message) in [
        (
            "{ every = §\"1m\", values = { id = [\"1\"] } }",
            "/every",
            "`ttl` 1m: the entry would end first",
        ),
        (
            "{ every = §\"2m\", values = { id = [\"1\"] } }",
            "/every",
            "`warm.every` is 2m",
        ),
        (
            "{ every = §\"x\", values = { id = [\"1\"] } }",
            "/every",
            "no duration",
        ),
        ("{ every = §\"10ms\", top = 1 }", "/every", "10ms"),
        ("§{ values = { id = [\"1\"] } }", "", "`every` is missing"),
        ("§{ every = \"30s\" }", "", "no values for `id`"),
        (
            "{ every = \"30s\", top = 1, values = §{} }",
            "/values",
            "no values for `id`",
        ),
        (
            "{ every = \"30s\", values = { id = [\"1\"], §idd = [\"1\"] } }",
            "/values/idd",
            "neither a placeholder nor a listed parameter",
        ),
        (
            "{ every = \"30s\", values = { id = §[] } }",
            "/values/id",
            "has no values",
        ),
        (
            "{ every = \"30s\", values = { id = [§1] } }",
            "/values/id/0",
            "is a number, not text",
        ),
        (
            "{ every = \"30s\", values = { id = [\"1\", §\"1\"] } }",
            "/values/id/1",
            "is there twice",
        ),
        (
            "{ every = \"30s\", values = { id = [§\"\"] } }",
            "/values/id/0",
            "has 0 bytes",
        ),
        ("{ every = \"30s\", top = §0 }", "/top", "0"),
        ("{ every = \"30s\", top = §201 }", "/top", "201"),
        (
            "{ every = \"30s\", §tops = 20, values = { id = [\"1\"] } }",
            "/tops",
            "no field of `warm`",
        ),
        (
            "§{ every = \"30s\", values = { id = [\"a/b\"] } }",
            "",
            "make no path or no key",
        ),
        (
            "§{ every = \"30s\", top = 200, values = { id = [\"1\"] } }",
            "",
            "is for 201 entries",
        ),
    ] {
        in_cache(
            &format!("warm = {warm}"),
            &format!("/warm{pointer}"),
            message,
        );
    }
    let many: Vec<String> = (0..15).map(|n| format!("\"{n}\"")).collect();
    let many = many.join(",");
    let product =
        format!("{KEY}, warm = §{{ every = \"1m\", values = {{ id = [{many}], x = [{many}] }} }}");
    expect(
        &route(&product),
        &[("/route/0/cache/warm", "is for 225 entries")],
    );
    in_route(
        "cache = { mode = \"http\", §warm = { every = \"1m\" } }",
        "/cache/warm",
        "has no meaning with",
    );
    in_route(
        "cache = { mode = \"http\", §patience = \"1s\" }",
        "/cache/patience",
        "has no meaning with",
    );
}

#[test]
fn all_routes_together_are_bounded() {
    let routes = |last: &str| {
        let each = (0..6).map(|n| {
            let warm = if n == 5 { last } else { "" };
            format!("[[route]]\nname = \"r{n}\"\nmatch = \"GET /r{n}/{{id}}\"\ncache = {{ key = \"r{n}:{{id}}\", ttl = \"1h\", warm = {warm}{{ every = \"1m\", top = 190 }} }}\n")
        });
        each.collect::<String>()
    };
    expect(
        &routes("§"),
        &[("/route/5/cache/warm", "is for 1140 entries")],
    );
}

#[test]
fn patience_is_for_stale_entries() {
    in_cache("§patience = \"1s\"", "/patience", "is never used");
    in_cache(
        "§patience = \"1s\", stale = \"0s\"",
        "/patience",
        "is never used",
    );
    in_cache("patience = §\"1ms\", stale = \"1m\"", "/patience", "1ms");
    in_cache("patience = §\"2m\", stale = \"1m\"", "/patience", "2m");
}
