//! The most specific route wins, whatever the order; what is folded gets limits only.

use std::time::Instant;

use edgeweir::policy::{PathTemplate, Policy, Switch};
use proptest::prelude::*;

use super::marked::{errors_of, expect, in_route};
use super::{json, property, toml, values};

fn policy(routes: &[(&str, &str)]) -> Policy {
    let routes: Vec<serde_json::Value> = routes
        .iter()
        .map(|(name, matched)| serde_json::json!({ "name": name, "match": matched }))
        .collect();
    json(&serde_json::json!({ "route": routes }).to_string())
}

const ROUTES: [(&str, &str); 9] = [
    ("any", "* /{rest...}"),
    ("get-any", "GET /{rest...}"),
    ("one", "GET /a/{x}"),
    ("rest", "GET /a/{x...}"),
    ("literal", "GET /a/b"),
    ("all-literal", "* /a/b"),
    ("late-literal", "GET /{x}/c"),
    ("slash", "GET /a/b/"),
    ("head", "HEAD /h"),
];

#[test]
fn the_most_specific_route_wins_whatever_the_order() {
    let mut turned = ROUTES;
    for _ in 0..ROUTES.len() {
        turned.rotate_left(1);
        let policy = policy(&turned);
        for (method, path, name) in [
            ("GET", "/a/b", "literal"),
            ("HEAD", "/a/b", "literal"),
            ("POST", "/a/b", "all-literal"),
            ("GET", "/a/b/", "slash"),
            ("GET", "/a/c", "one"),
            ("GET", "/z/c", "late-literal"),
            ("GET", "/a/b/c", "rest"),
            ("GET", "/a/", "rest"),
            ("GET", "/a", "get-any"),
            ("POST", "/a", "any"),
            ("GET", "/", "get-any"),
            ("HEAD", "/h", "head"),
            ("GET", "/h", "get-any"),
            ("PURGE", "/h", "any"),
        ] {
            let resolved = policy.resolve(method, path);
            let found = resolved.route.map(|route| route.name.as_str());
            assert_eq!(
                (found, resolved.exact),
                (Some(name), true),
                "{method} {path}"
            );
            let index = resolved.index.unwrap();
            assert_eq!(policy.routes[index].name, name);
        }
    }
}

#[test]
fn methods_are_as_written_and_head_is_gets() {
    let policy = policy(&[("get", "GET /a"), ("write", "PUT|PATCH /a")]);
    let name = |method: &str| {
        policy
            .resolve(method, "/a")
            .route
            .map(|route| route.name.clone())
    };
    assert_eq!(name("HEAD").as_deref(), Some("get"));
    assert_eq!(name("PATCH").as_deref(), Some("write"));
    assert_eq!(name("get"), None);
    assert_eq!(name("POST"), None);
}

#[test]
fn values_are_decoded() {
    let policy = policy(&[
        ("item", "GET /i/{id}/of/{who}"),
        ("files", "GET /f/{path...}"),
    ]);
    let resolved = policy.resolve("GET", "/i/%e1%BB%81%3a/of/a+b%20c");
    assert_eq!(resolved.values, values(&[("id", "ề:"), ("who", "a+b c")]));
    assert_eq!(resolved.path, "/i/%E1%BB%81%3A/of/a+b%20c");
    assert_eq!(
        policy.resolve("GET", "/f/a/%62/c%3B").values,
        values(&[("path", "a/b/c;")])
    );
    assert_eq!(policy.resolve("GET", "/f/").values, values(&[("path", "")]));
    assert!(!policy.resolve("GET", "/f").exact);
    assert!(policy.resolve("GET", "/i//of/x").values.is_empty());
}

#[test]
fn a_folded_path_has_the_limits_and_nothing_else() {
    let policy = policy(&[("item", "GET /i/{id}"), ("list", "GET /l/")]);
    for (raw, name, path) in [
        ("/l", "list", "/l"),
        ("/i/1/", "item", "/i/1/"),
        ("//i/1", "item", "//i/1"),
        ("/i%2F1", "item", "/i%2F1"),
        ("/i/%zz", "item", "/i/%zz"),
        ("/i/1;x", "item", "/i/1;x"),
        ("/%69/x/../1/", "item", "/i/1/"),
    ] {
        let resolved = policy.resolve("GET", raw);
        assert_eq!(
            resolved.route.map(|route| route.name.as_str()),
            Some(name),
            "{raw}"
        );
        assert!(!resolved.exact && resolved.values.is_empty(), "{raw}");
        assert_eq!(resolved.path, path);
    }
    assert!(policy.resolve("GET", "/i/1/2").route.is_none());
    assert!(policy.resolve("GET", "/i/").route.is_none());
}

#[test]
fn a_wildcard_keeps_its_request_but_a_strict_route_limits_it() {
    let policy = policy(&[
        ("login", "POST /login"),
        ("any", "* /{rest...}"),
        ("deep", "POST /login/{rest...}"),
    ]);
    let resolve = |method: &str, raw: &str| {
        let resolved = policy.resolve(method, raw);
        let name = |route: Option<&edgeweir::policy::Route>| {
            route.map(|route| route.name.clone()).unwrap_or_default()
        };
        (
            name(resolved.route),
            name(resolved.limited_as),
            resolved.exact,
        )
    };
    let expect = |route: &str, limited_as: &str, exact: bool| {
        (route.to_owned(), limited_as.to_owned(), exact)
    };
    assert_eq!(resolve("POST", "/login"), expect("login", "login", true));
    assert_eq!(resolve("POST", "/login/"), expect("deep", "login", true));
    assert_eq!(resolve("POST", "//login"), expect("login", "login", false));
    assert_eq!(resolve("POST", "/login;a"), expect("login", "login", false));
    assert_eq!(resolve("POST", "/login/x/"), expect("deep", "deep", true));
    assert_eq!(resolve("GET", "/login/"), expect("any", "any", true));
}

#[test]
fn two_paths_that_differ_by_a_slash_are_two_routes() {
    let policy = policy(&[
        ("without", "GET /b/{id}"),
        ("with", "GET /b/{id}/"),
        ("rest", "GET /{rest...}"),
    ]);
    for (raw, name) in [("/b/1", "without"), ("/b/1/", "with")] {
        let resolved = policy.resolve("GET", raw);
        assert_eq!(
            (resolved.route.unwrap().name.as_str(), resolved.exact),
            (name, true)
        );
    }
}

#[test]
fn edgeweirs_own_paths_are_like_unmatched_ones() {
    let policy = policy(&[("any", "* /{rest...}")]);
    for raw in ["/-", "/-/", "/-/health", "/%2D/health", "/x/../-/purge"] {
        let resolved = policy.resolve("GET", raw);
        assert!(resolved.route.is_none() && !resolved.exact, "{raw}");
    }
    assert!(policy.resolve("GET", "/-a").route.is_some());
}

/// As slow and plain as can be: all orders of segments, by number.
fn oracle<'p>(policy: &'p Policy, method: &str, path: &str) -> Option<&'p str> {
    let parts: Vec<&str> = path[1..].split('/').collect();
    let mut best: Option<(Vec<u8>, &str)> = None;
    for route in &policy.routes {
        let method_rank = match (
            route.methods.iter().any(|m| m == method),
            route.methods.is_empty(),
        ) {
            (true, _) => 0,
            (_, true) => 2,
            _ if method == "HEAD" && route.methods.iter().any(|m| m == "GET") => 1,
            _ => continue,
        };
        let text = route.path.text();
        let template: Vec<&str> = text[1..].split('/').collect();
        let mut rank = Vec::new();
        let mut fits = true;
        let mut rest = false;
        for (index, segment) in template.iter().enumerate() {
            match parts.get(index) {
                _ if rest => fits = false,
                None => fits = false,
                Some(_) if segment.ends_with("...}") => {
                    rest = true;
                    rank.push(2);
                }
                Some(part) if segment.starts_with('{') => {
                    fits &= !part.is_empty();
                    rank.push(1);
                }
                Some(part) => {
                    fits &= part == segment;
                    rank.push(0);
                }
            }
        }
        if !fits || (!rest && parts.len() != template.len()) {
            continue;
        }
        rank.push(method_rank);
        if best.as_ref().is_none_or(|(known, _)| rank < *known) {
            best = Some((rank, route.name.as_str()));
        }
    }
    best.map(|(_, name)| name)
}

#[test]
fn matching_agrees_with_a_plain_oracle() {
    let segment = prop::sample::select(vec!["a", "b", "{x}", "{y}", "{z}"]);
    let end = prop::sample::select(vec!["", "/", "/{rest...}"]);
    let method = prop::sample::select(vec!["GET", "POST", "*", "GET|POST", "HEAD"]);
    let route = (method, prop::collection::vec(segment, 1..4), end);
    let wanted = (
        prop::sample::select(vec!["GET", "HEAD", "POST", "PUT"]),
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4),
        any::<bool>(),
    );
    property(
        600,
        (prop::collection::vec(route, 1..12), wanted),
        |(routes, (method, parts, slash))| {
            let mut kept: Vec<serde_json::Value> = Vec::new();
            for (index, (methods, segments, end)) in routes.iter().enumerate() {
                let route = serde_json::json!({
                    "name": format!("r{index}"),
                    "match": format!("{methods} /{}{end}", segments.join("/")),
                });
                kept.push(route);
                // Leaves out those that the policy would refuse.
                let text = serde_json::json!({ "route": kept }).to_string();
                if Policy::from_json(&text, &Default::default()).is_err() {
                    kept.pop();
                }
            }
            let policy = json(&serde_json::json!({ "route": kept }).to_string());
            let path = format!("/{}{}", parts.join("/"), if slash { "/" } else { "" });
            let expected = oracle(&policy, method, &path);
            let resolved = policy.resolve(method, &path);
            let found = resolved
                .route
                .filter(|_| resolved.exact)
                .map(|route| route.name.as_str());
            prop_assert_eq!(found, expected, "{} {}", method, path);
            Ok(())
        },
    );
}

#[test]
fn a_path_is_written_for_its_values_and_read_back() {
    let template = PathTemplate::parse("/i/{id}/of/{rest...}").unwrap();
    let written = template.render(&values(&[("id", "a b/"), ("rest", "x")]));
    assert_eq!(written, None, "a slash is no part of a segment");
    for id in ["", ".", "..", "a\\b", "a\0"] {
        assert_eq!(
            template.render(&values(&[("id", id), ("rest", "x")])),
            None,
            "{id:?}"
        );
    }
    assert_eq!(template.render(&values(&[("id", "x")])), None);
    let policy = policy(&[("r", "GET /i/{id}/of/{rest...}")]);
    property(
        1_500,
        ("[^/\\\\\0]{1,8}", "([^/\\\\\0]{1,5}/){0,3}[^/\\\\\0]{0,5}"),
        |(id, rest)| {
            let dots = |text: &str| text.split('/').any(|part| matches!(part, "." | ".."));
            prop_assume!(!dots(&id) && !dots(&rest));
            let given = values(&[("id", &id), ("rest", &rest)]);
            let path = template.render(&given).expect("these can stand in a path");
            let resolved = policy.resolve("GET", &path);
            prop_assert!(resolved.exact);
            prop_assert_eq!(resolved.values, given);
            prop_assert_eq!(resolved.path, path);
            Ok(())
        },
    );
}

/// A path is compared with as many bytes in sixteen paths, beside which quadratic work would
/// take sixteen times as long. A machine that is busy with others makes either look slow, but
/// not always.
#[test]
fn the_longest_path_and_the_most_routes_stay_linear() {
    let routes: Vec<(String, String)> = (0..500)
        .map(|i| {
            (
                format!("r{i}"),
                format!("GET /api/v1/{{a}}/x{i}/{{b}}/{{c...}}"),
            )
        })
        .collect();
    let routes: Vec<(&str, &str)> = routes
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    let policy = policy(&routes);
    let took = |unit: &str, bytes: usize, times: usize| {
        let path = format!("/api/v1/y/x499/z/{}", unit.repeat(bytes / unit.len()));
        let begun = Instant::now();
        for _ in 0..times {
            policy.resolve("GET", &path);
        }
        begun.elapsed()
    };
    for unit in [
        "/", "a/", "%2e%2e/", "%2F", ";", "//..", "%61", "/x/..", "é", "%zz",
    ] {
        let is_linear = || took(unit, 16 * 1024, 1) < 4 * took(unit, 1024, 16);
        assert!((0..100).any(|_| is_linear()), "{unit} again and again");
    }
    assert_eq!(
        policy
            .resolve("GET", "/api/v1/y/x499/z/w")
            .route
            .unwrap()
            .name,
        "r499"
    );
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
