//! `fill` and `ttl = "$NAME"`: what may be written, and every error of it.

use edgeweir::policy::{Given, Overrides, Policy};

use super::marked::expect;
use super::{shown, toml};

const READS: &str = "[[route]]
name = \"book\"
match = \"GET /books/{id}\"
cache = { key = \"book:{id}\", ttl = \"1m\", tags = [\"books\", \"book:{id}\"] }
[[route]]
name = \"bare\"
match = \"GET /bare/{id}\"
cache = { key = \"bare:{id}\", ttl = \"1m\", tags = [\"bare:{id}\"] }
[[route]]
name = \"query\"
match = \"GET /query\"
cache = { key = \"query:{a}:{b}\", query = [\"a\", \"b\"], ttl = \"1m\" }
[[route]]
name = \"defaults\"
match = \"GET /defaults\"
cache = { key = \"defaults:{a}\", query = { a = \"1\" }, ttl = \"1m\" }
[[route]]
name = \"http\"
match = \"GET /http\"
cache = { mode = \"http\" }
[[route]]
name = \"private\"
match = \"GET /private\"
cache = { key = \"private\", ttl = \"1m\", credentials = \"forward\" }
[[route]]
name = \"plain\"
match = \"GET /plain\"
";

fn with(route: &str) -> String {
    format!("{READS}[[route]]\nname = \"write\"\n{route}\n")
}

#[test]
fn a_fill_takes_its_values_from_the_path_or_the_answer() {
    let path = |name: &str| Given::Path(name.to_owned());
    for (route, target, with_values) in [
        (
            "match = \"PUT|DELETE /books/{id}\"\nfill = \"book\"",
            0,
            vec![("id", path("id"))],
        ),
        (
            "match = \"PUT /books/{book}/x\"\nfill = { route = \"book\", with = { id = \"{book}\" } }",
            0,
            vec![("id", path("book"))],
        ),
        (
            "match = \"POST /books\"\nfill = { route = \"book\", with = { id = \"{response:/a~1b/0}\" } }",
            0,
            vec![("id", Given::Response("/a~1b/0".to_owned()))],
        ),
        (
            "match = \"POST /x\"\nfill = { route = \"defaults\" }",
            3,
            vec![],
        ),
        (
            "match = \"* /bare/{id}\"\nfill = \"bare\"",
            1,
            vec![("id", path("id"))],
        ),
    ] {
        let policy = toml(&with(route));
        let fill = policy.routes.last().unwrap().fill.as_ref().unwrap();
        assert_eq!(fill.route, target, "{route}");
        let with: Vec<(String, Given)> = with_values
            .into_iter()
            .map(|(name, given)| (name.to_owned(), given))
            .collect();
        assert_eq!(fill.with, with, "{route}");
    }
}

#[test]
fn a_fill_that_could_not_work_says_why() {
    let put = |fill: &str| with(&format!("match = \"PUT /books/{{id}}\"\n{fill}"));
    let post = |fill: &str| with(&format!("match = \"POST /books\"\n{fill}"));
    for (text, pointer, message) in [
        (put("fill = §1"), "", "`fill` is a number, not a table"),
        (put("fill = §\"bok\""), "", "no route is called `bok`"),
        (
            put("fill = §\"plain\""),
            "",
            "the route `plain` has no `cache`",
        ),
        (
            put("fill = §\"http\""),
            "",
            "cached by its origin's headers",
        ),
        (
            put("fill = §\"private\""),
            "",
            "keeps no answer to credentials",
        ),
        (put("fill = §\"query\""), "", "needs `a` and `b` of a query"),
        (put("fill = §{}"), "", "`route` is missing"),
        (
            put("fill = { route = \"book\", §wth = {} }"),
            "/wth",
            "no field of `fill`",
        ),
        (
            put("fill = { route = \"book\", with = { §slug = \"{id}\" } }"),
            "/with/slug",
            "has no placeholder `slug`",
        ),
        (
            put("fill = { route = \"book\", with = { id = §\"{ide}\" } }"),
            "/with/id",
            "no placeholder of this route",
        ),
        (
            put("fill = { route = \"book\", with = { id = §\"a{id}\" } }"),
            "/with/id",
            "is not one value",
        ),
        (
            put("fill = { route = \"book\", with = { id = §\"{body:/id}\" } }"),
            "/with/id",
            "is not one value",
        ),
        (
            put("fill = { route = \"book\", with = { id = §\"{user}\" } }"),
            "/with/id",
            "not possible here",
        ),
        (
            put("fill = { route = \"book\", with = { id = §\"{response:id}\" } }"),
            "/with/id",
            "no JSON pointer",
        ),
        (
            post("fill = §\"book\""),
            "",
            "needs `{id}`, which the path of this one has not",
        ),
        (
            post("fill = { route = §\"bare\", with = { id = \"{response:/id}\" } }"),
            "/route",
            "has no tag that is known before the answer",
        ),
        (
            with("match = \"GET /read/{id}\"\n§fill = \"book\""),
            "",
            "does not write",
        ),
        (
            with(
                "match = \"GET /read/{id}\"\ncache = { key = \"read:{id}\", ttl = \"1m\" }\n§fill = \"book\"",
            ),
            "",
            "does not write",
        ),
    ] {
        expect(&text, &[(&format!("/route/7/fill{pointer}"), message)]);
    }
}

fn ttl_of(text: &str, overrides: &Overrides) -> Result<(u64, Option<u64>), String> {
    let json = serde_json::json!({ "route": [{ "name": "a", "match": "GET /a", "cache":
        serde_json::from_str::<serde_json::Value>(text).unwrap() }] });
    match Policy::from_json(&json.to_string(), overrides) {
        Ok(policy) => {
            let rule = policy.routes[0].cache.as_ref().unwrap();
            Ok((rule.ttl_ms, rule.l1_ms))
        }
        Err(errors) => Err(shown(&errors)),
    }
}

#[test]
fn two_variables_say_how_long_an_entry_is_fresh() {
    let of = |notification_ttl_s, unread_ttl_s| Overrides {
        notification_ttl_s,
        unread_ttl_s,
        ..Overrides::default()
    };
    let notifications =
        r#"{ "key": "a", "ttl": "$NOTIFICATION_CACHE_TTL", "stale": "1h", "l1": "5s" }"#;
    let unread = r#"{ "key": "a", "ttl": "$UNREAD_COUNT_CACHE_TTL" }"#;
    assert_eq!(
        ttl_of(notifications, &of(None, Some(9))),
        Ok((30_000, Some(5_000)))
    );
    assert_eq!(
        ttl_of(notifications, &of(Some(90), None)),
        Ok((90_000, Some(5_000)))
    );
    assert_eq!(ttl_of(unread, &of(Some(9), None)), Ok((60_000, None)));
    assert_eq!(
        ttl_of(unread, &of(None, Some(172_800))),
        Ok((172_800_000, None))
    );
    // An isolate's copy ends with the entry.
    assert_eq!(
        ttl_of(notifications, &of(Some(2), None)),
        Ok((2_000, Some(2_000)))
    );
    // What does not fit is the variable's fault, at no place of the policy.
    let error = ttl_of(notifications, &of(Some(172_800), None)).unwrap_err();
    assert!(
        error.starts_with("NOTIFICATION_CACHE_TTL: `ttl` and `stale` are 49h together"),
        "{error}"
    );
    let long = r#"{ "key": "a", "ttl": "$NOTIFICATION_CACHE_TTL", "stale": "48h" }"#;
    let error = ttl_of(long, &Overrides::default()).unwrap_err();
    assert!(error.contains("/route/0/cache/stale"), "{error}");
    for (ttl, message) in [
        (
            "$NOTIFICATION_CACHE_TTTL",
            "did you mean \"$NOTIFICATION_CACHE_TTL\"?",
        ),
        (
            "$TTL",
            "the variables are `NOTIFICATION_CACHE_TTL` and `UNREAD_COUNT_CACHE_TTL`",
        ),
        ("$RATE_LIMIT_WINDOW_MS", "no variable that says a time"),
        ("$", "no variable that says a time"),
    ] {
        let error = ttl_of(
            &format!(r#"{{ "key": "a", "ttl": "{ttl}" }}"#),
            &of(None, None),
        )
        .unwrap_err();
        assert!(
            error.contains(message) && error.contains("/route/0/cache/ttl"),
            "{error}"
        );
    }
}
