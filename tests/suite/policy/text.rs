//! JSON and TOML: the same errors at their own places, order kept, and no text that panics.

use edgeweir::policy::{Overrides, Policy, toml_to_json};
use proptest::prelude::*;

use super::{json, property, shown, toml};

fn first_json_error(text: &str) -> (String, String, usize, usize) {
    let errors = Policy::from_json(text, &Overrides::default()).unwrap_err();
    let first = &errors[0];
    (
        first.pointer.clone(),
        first.message.clone(),
        first.line.unwrap(),
        first.column.unwrap(),
    )
}

#[test]
fn json_errors_have_lines_and_columns_too() {
    let text = "{\n  \"défaults\": {},\n  \"route\": [\n    {\"name\": \"ä\", \"match\": 7}]}";
    let errors = Policy::from_json(text, &Overrides::default()).unwrap_err();
    let places: Vec<(&str, usize, usize)> = errors
        .iter()
        .map(|error| {
            (
                error.pointer.as_str(),
                error.line.unwrap(),
                error.column.unwrap(),
            )
        })
        .collect();
    assert_eq!(
        places,
        [
            ("/défaults", 2, 3),
            ("/route/0/name", 4, 14),
            ("/route/0/match", 4, 28)
        ]
    );
}

#[test]
fn what_is_no_json_says_where() {
    for (text, line, column) in [
        ("", 1, 1),
        ("{", 1, 1),
        ("{\n\"a\":\n}", 3, 1),
        ("{}{", 1, 3),
        ("{\"a\":01}", 1, 7),
    ] {
        let (pointer, message, at_line, at_column) = first_json_error(text);
        assert_eq!(
            (pointer.as_str(), at_line, at_column),
            ("", line, column),
            "{text}: {message}"
        );
        assert!(message.starts_with("no JSON"), "{message}");
    }
    assert_eq!(
        first_json_error(" 7").1,
        "the policy is a number, not a table"
    );
    assert_eq!(
        first_json_error(r#"{"route":[{"name":"\ud800"}]}"#).1,
        "text with half a surrogate pair"
    );
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(first_json_error(&deep).1, "nested too deeply for a policy");
    let (_, message, ..) =
        first_json_error(r#"{"defaults":{"redis_down":"open","redis_down":"local"}}"#);
    assert_eq!(message, "`redis_down` is given twice");
    for number in ["1.0", "1e2", "99999999999999999999"] {
        let text = format!(
            r#"{{"defaults":{{"limit":[{{"name":"a","window":"1m","requests":{number}}}]}}}}"#
        );
        assert!(
            first_json_error(&text).1.contains("not a whole number"),
            "{number}"
        );
    }
}

#[test]
fn a_text_may_not_be_too_long_nor_its_errors_too_many() {
    let errors =
        Policy::from_json(&" ".repeat(1024 * 1024 + 1), &Overrides::default()).unwrap_err();
    assert!(
        errors[0].message.contains("1048577 bytes"),
        "{}",
        shown(&errors)
    );
    let unknown: Vec<String> = (0..250).map(|i| format!("\"x{i}\": 1")).collect();
    let errors = Policy::from_json(&format!("{{{}}}", unknown.join(",")), &Overrides::default())
        .unwrap_err();
    assert_eq!(errors.len(), 101);
    assert_eq!(errors[100].message, "150 more errors are not listed");
}

#[test]
fn the_order_of_parameters_and_parts_is_the_policys() {
    let text = "[[route]]\nname = \"z\"\nmatch = \"GET /z\"\ncache = { key = \"z:{hash}\", ttl = \"1m\", query = { zeta = \"1\", alpha = \"2\", mu = \"3\" } }\n\
        [[route]]\nname = \"home\"\nmatch = \"GET /\"\ncompose = { zulu = \"z\", alfa = \"z\", mike = \"z\" }\n";
    for policy in [toml(text), json(&toml_to_json(text).unwrap())] {
        let listed: Vec<&str> = policy.routes[0]
            .cache
            .as_ref()
            .unwrap()
            .query
            .iter()
            .map(|q| q.name.as_str())
            .collect();
        assert_eq!(listed, ["zeta", "alpha", "mu"]);
        let parts: Vec<&str> = policy.routes[1]
            .compose
            .as_ref()
            .unwrap()
            .iter()
            .map(|part| part.name.as_str())
            .collect();
        assert_eq!(parts, ["zulu", "alfa", "mike"]);
    }
}

#[test]
fn toml_becomes_the_json_that_means_the_same() {
    let text = "[[route]]\nname = \"a\"\nmatch = 'GET /\"é\\'\nlimit = [{ name = \"x\", requests = 5, window = \"1m\" }]\n";
    let text = text.replace('\\', "%25");
    let written = toml_to_json(&text).unwrap();
    assert_eq!(
        format!("{:?}", toml(&text)),
        format!("{:?}", json(&written))
    );
    serde_json::from_str::<serde_json::Value>(&written).unwrap();
}

/// Text of the grammar's own words, in any order.
fn salad() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        "=",
        "\n",
        ".",
        "[[route]]\n",
        "[defaults]\n",
        "name",
        "match",
        "\"GET /a/{id}\"",
        "\"a:{id}\"",
        "cache",
        "key",
        "ttl",
        "\"1m\"",
        "limit",
        "requests",
        "7",
        "window",
        "query",
        "purge",
        "compose",
        "each",
        "tags",
        "\\",
        "\\u",
        "\"\\ud800\"",
        "é",
        "\u{0}",
        "-",
        "1.5",
        "true",
        "null",
        "'",
        "#",
        "2024-01-01",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

/// JSON in the shape of a policy, with anything in it.
fn almost_a_policy() -> impl Strategy<Value = serde_json::Value> {
    let name = prop::sample::select(vec![
        "defaults",
        "route",
        "name",
        "match",
        "limit",
        "cache",
        "key",
        "ttl",
        "stale",
        "query",
        "tags",
        "purge",
        "keys",
        "else",
        "compose",
        "each",
        "requests",
        "window",
        "by",
        "per",
        "cost",
        "warm",
        "values",
        "every",
        "top",
        "patience",
        "x~/",
        "algorithm",
        "burst",
        "lease",
        "hit",
        "miss",
        "error",
        "penalty",
        "base",
        "max",
        "allow",
        "deny",
        "rollout",
        "address",
        "header",
        "proxies",
        "switch",
    ]);
    let text = prop::sample::select(vec![
        "GET /a/{id}",
        "* /{rest...}",
        "a:{id}",
        "a",
        "{hash}",
        "1m",
        "99999999999h",
        "all",
        "$X",
        "header:x",
        "é",
        "{response:/a}",
        "1MB",
        "",
        "GET /%",
        "GET /é//",
        "{",
        "}",
        "token-bucket",
        "10.0.0.0/8",
        "::1/200",
        "user:a",
    ]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        text.prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(8, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|members| {
                members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            }),
        ]
    })
}

#[test]
fn no_text_panics() {
    property(2_000, prop_oneof![salad(), any::<String>()], |text| {
        let _ = Policy::from_toml(&text);
        let _ = Policy::from_json(&text, &Overrides::default());
        Ok(())
    });
}

#[test]
fn no_json_panics_and_what_is_accepted_answers_requests() {
    property(
        600,
        (almost_a_policy(), almost_a_policy()),
        |(defaults, route)| {
            let overrides = Overrides {
                window_ms: Some(60_000),
                max_requests: None,
                ..Overrides::default()
            };
            for value in [
                serde_json::json!({ "defaults": defaults, "route": [route, route] }),
                serde_json::json!({ "route": [{ "name": "a", "match": "GET /a/{id}", "cache": route, "purge": defaults }] }),
                route,
            ] {
                if let Ok(policy) = Policy::from_json(&value.to_string(), &overrides) {
                    policy.explain("GET", "/a/b?x=1");
                }
            }
            Ok(())
        },
    );
}
