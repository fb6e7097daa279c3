//! Every error of `[defaults]`, limits and what routes match is found at its place, and
//! all at once.

use super::marked::{errors_of, expect, in_cache, in_defaults, in_limit, in_match, in_route};

#[test]
fn what_is_no_toml_or_no_table_says_where() {
    expect("[defaults]\nredis_down = §]\n", &[("", "no TOML")]);
    expect(
        "defaults = §1\n",
        &[("/defaults", "is a number, not a table")],
    );
    expect("route = §{}\n", &[("/route", "is a table, not a list")]);
    expect(
        "route = [§1]\n",
        &[("/route/0", "is a number, not a table")],
    );
}

#[test]
fn a_name_given_twice_is_an_error_beside_the_others() {
    expect(
        "[defaults]\nredis_down = \"local\"\n§redis_down = \"open\"\n\
         timeout = { redis = \"20ms\", §redis = \"21ms\", origin = §1 }\n\
         [§defaults]\nheaders = 7\n",
        &[
            ("", "`redis_down` is given twice"),
            ("", "`redis` is given twice"),
            ("/defaults/timeout/origin", "is a number, not text"),
            ("", "`defaults` is given twice"),
        ],
    );
}

#[test]
fn unknown_fields_are_errors_that_guess_what_is_meant() {
    let errors = errors_of("[defaultz]\n");
    assert_eq!(errors[0].help, "did you mean `defaults`?");
    expect(
        "§defaultz = 1\n",
        &[("/defaultz", "`defaultz` is no field of a policy")],
    );
    in_defaults(
        "§redis-down = \"local\"",
        "/redis-down",
        "no field of `defaults`",
    );
    in_defaults(
        "timeout = { §reddis = \"150ms\" }",
        "/timeout/reddis",
        "no field of `timeout`",
    );
    in_limit(
        "name = \"a\", requests = 1, window = \"1m\", §wait = 1",
        "/wait",
        "no field of a limit",
    );
    in_route("§cach = 1", "/cach", "no field of a route");
    in_route("§\"a/b~c\" = 1", "/a~1b~0c", "no field of a route");
    in_cache("§tll = \"1m\"", "/tll", "no field of `cache`");
    in_route(
        "purge = { keys = [\"a\"], §tag = [] }",
        "/purge/tag",
        "no field of `purge`",
    );
}

#[test]
fn defaults_are_checked() {
    in_defaults(
        "redis_down = §\"opne\"",
        "/redis_down",
        "`redis_down` is `opne`",
    );
    in_defaults(
        "headers = [\"legacy\", §\"draft-7\"]",
        "/headers/1",
        "`headers[1]` is `draft-7`",
    );
    in_defaults(
        "headers = [\"legacy\", §\"legacy\"]",
        "/headers/1",
        "repeats",
    );
    in_defaults("headers = §\"legacy\"", "/headers", "is text, not a list");
    in_defaults(
        "timeout = { redis = §\"5ms\" }",
        "/timeout/redis",
        "`redis` is 5ms",
    );
    in_defaults(
        "timeout = { redis = §\"11s\" }",
        "/timeout/redis",
        "`redis` is 11s",
    );
    in_defaults(
        "timeout = { origin = §\"0s\" }",
        "/timeout/origin",
        "`origin` is 0ms",
    );
    in_defaults(
        "timeout = { origin = §\"6m\" }",
        "/timeout/origin",
        "`origin` is 6m",
    );
}

#[test]
fn durations_are_whole_numbers_with_a_unit() {
    for bad in [
        "",
        "s",
        "10",
        "10 s",
        "1.5s",
        "-5s",
        "+5s",
        "5S",
        "1d",
        "1m30s",
        "99999999999999999999s",
        "18446744073709551615h",
    ] {
        in_defaults(
            &format!("timeout = {{ origin = §\"{bad}\" }}"),
            "/timeout/origin",
            "which is no duration",
        );
    }
    in_defaults(
        "timeout = { origin = §10 }",
        "/timeout/origin",
        "is a number, not text",
    );
    in_defaults(
        "timeout = { origin = §1.5 }",
        "/timeout/origin",
        "is a number with a fraction",
    );
    in_defaults(
        "timeout = { origin = §2024-01-01 }",
        "/timeout/origin",
        "is a date, not text",
    );
}

#[test]
fn limits_are_checked() {
    let whole = "name = \"a\", requests = 5, window = \"1m\"";
    in_defaults("limit = [§1]", "/limit/0", "is a number, not a table");
    in_defaults(
        "limit = §[{}, {}, {}, {}, {}, {}, {}, {}, {}]",
        "/limit",
        "has 9 items",
    );
    expect(
        "[defaults]\nlimit = [§§§{}]\n",
        &[
            ("/defaults/limit/0", "`name` is missing"),
            ("/defaults/limit/0", "`requests` is missing"),
            ("/defaults/limit/0", "`window` is missing"),
        ],
    );
    in_limit(
        "name = §\"A b\", requests = 5, window = \"1m\"",
        "/name",
        "`A b` is no name",
    );
    in_limit(
        "name = §\"_\", requests = 5, window = \"1m\"",
        "/name",
        "`_` is no name",
    );
    in_limit(
        &format!(
            "name = §\"{}\", requests = 5, window = \"1m\"",
            "a".repeat(65)
        ),
        "/name",
        "is no name",
    );
    in_limit(
        "name = \"a\", requests = §0, window = \"1m\"",
        "/requests",
        "`requests` is 0",
    );
    in_limit(
        "name = \"a\", requests = §-1, window = \"1m\"",
        "/requests",
        "`requests` is -1",
    );
    in_limit(
        "name = \"a\", requests = §2147483649, window = \"1m\"",
        "/requests",
        "is 2147483649",
    );
    in_limit(
        "name = \"a\", requests = §1.0, window = \"1m\"",
        "/requests",
        "a number with a fraction",
    );
    in_limit(
        "name = \"a\", requests = §\"5\", window = \"1m\"",
        "/requests",
        "is text, not a whole number",
    );
    in_limit(
        "name = \"a\", requests = 5, window = §\"0s\"",
        "/window",
        "`window` is 0ms",
    );
    in_limit(
        "name = \"a\", requests = 5, window = §\"745h\"",
        "/window",
        "`window` is 745h",
    );
    in_limit(&format!("{whole}, by = §\"ipp\""), "/by", "`by` is `ipp`");
    in_limit(
        &format!("{whole}, by = §\"header:\""),
        "/by",
        "`by` is `header:`",
    );
    in_limit(&format!("{whole}, by = §\"header:x y\""), "/by", "`by` is");
    in_limit(
        &format!("{whole}, per = §\"rout\""),
        "/per",
        "`per` is `rout`",
    );
    in_limit(&format!("{whole}, cost = §-1"), "/cost", "`cost` is -1");
    in_limit(
        &format!("{whole}, cost = §6"),
        "/cost",
        "no request would ever fit",
    );
    in_limit(
        &format!("{whole}, algorithm = §\"leaky\""),
        "/algorithm",
        "`algorithm` is `leaky`",
    );
    in_defaults(
        &format!(
            "limit = [{{ {whole} }}, {{ {} }}]",
            whole.replace("\"a\"", "§\"a\"")
        ),
        "/limit/1/name",
        "another limit of this list is called `a`",
    );
}

#[test]
fn a_window_of_less_than_ten_buckets_names_what_is_for_it() {
    in_limit(
        "name = \"a\", requests = 5, window = §\"2499ms\"",
        "/window",
        "shorter than 10 buckets of 250ms",
    );
    let errors = errors_of("[defaults]\nlimit = [{ name = \"a\", requests = 5, window = \"2s\" }]");
    assert!(
        errors[0].help.contains("\"2500ms\"") && errors[0].help.contains("sliding-log"),
        "{}",
        errors[0]
    );
    expect(
        "[defaults]\ntimeout = { redis = \"900ms\" }\nlimit = [{ name = \"a\", requests = 5, window = §\"9999ms\" }]",
        &[("/defaults/limit/0/window", "shorter than 10 buckets of 1s")],
    );
}

#[test]
fn limits_that_share_a_count_must_be_the_same() {
    let limit = |more: &str| format!("{{ name = \"x\", window = \"1m\", per = \"all\", {more} }}");
    let text = |second: &str| {
        format!(
            "[defaults]\nlimit = [{}]\n[[route]]\nname = \"a\"\nmatch = \"GET /a\"\nlimit = [{second}]\n",
            limit("requests = 5")
        )
    };
    expect(
        &text(&format!("§{}", limit("requests = 6"))),
        &[("/route/0/limit/0", "shares this count and differs")],
    );
    expect(
        &text(&format!("§{}", limit("requests = 5, by = \"user\""))),
        &[("/route/0/limit/0", "shares this count")],
    );
    super::toml(&text(&limit("requests = 5, cost = 2")));
    super::toml(&text(&limit("requests = 6").replace("all", "route")));
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
        super::toml(&text(&format!(", {more}"), &other));
    }
    let bucket = |burst: u32| format!(", algorithm = \"token-bucket\", burst = {burst}");
    expect(
        &text(&bucket(5), &format!("§{}", limit(&bucket(6)))),
        &[("/route/0/limit/0", "shares this count and differs")],
    );
    super::toml(&text("", &limit(", cost = { hit = 0, miss = 5 }")));
}

#[test]
fn routes_need_a_name_and_what_they_match() {
    expect(
        "§§[[route]]\n",
        &[
            ("/route/0", "`name` is missing"),
            ("/route/0", "`match` is missing"),
        ],
    );
    expect(
        "[[route]]\nname = §7\nmatch = §[]\n",
        &[
            ("/route/0/name", "is a number"),
            ("/route/0/match", "is a list"),
        ],
    );
    expect(
        "[[route]]\nname = \"a\"\nmatch = \"GET /a\"\n[[route]]\nname = §\"a\"\nmatch = \"GET /b\"\n",
        &[("/route/1/name", "another route is called `a`")],
    );
    in_route(
        "redis_down = §\"shut\"",
        "/redis_down",
        "`redis_down` is `shut`",
    );
    in_route("limit = §{}", "/limit", "is a table, not a list");
    let many: String = (0..501)
        .map(|i| format!("{{name=\"r{i}\",match=\"GET /{i}\"}},"))
        .collect();
    expect(
        &format!("route = §[{many}]"),
        &[("/route", "has 501 items")],
    );
}

#[test]
fn what_matches_is_checked() {
    in_match("", "`match` is ``");
    in_match("/a", "`match` is `/a`");
    in_match("get /a", "`get` is no method");
    in_match("GET| /a", "`` is no method");
    in_match("GET|GET /a", "the method `GET` is there twice");
    in_match("*|GET /a", "`*` is no method");
    in_match("A|B|C|D|E|F|G|H|I /a", "9 methods");
    in_match("ABCDEFGHIJKLMNOPQ /a", "is no method");
    in_match("GET a", "does not begin with `/`");
    in_match("GET  /a", "does not begin with `/`");
    in_match("GET /a?b=1", "has a query or fragment");
    in_match("GET /a/{b...}/c", "takes all the rest but is not last");
    in_match("GET /{a}/{a}", "`{a}` is in the path twice");
    in_match("GET /x{a}", "only in part a placeholder");
    in_match("GET /{a", "only in part a placeholder");
    in_match("GET /{}", "is no placeholder");
    in_match("GET /{a b}", "is no placeholder");
    in_match("GET /{user}", "means something else");
    in_match("GET /{hash}", "means something else");
    in_match("GET /-", "Edgeweir's own");
    in_match("GET /-/x", "Edgeweir's own");
    in_match("GET /%2d/{a...}", "Edgeweir's own");
    for never in [
        "a//b", ".", "a/../b", "%2e%2E", "a;b", "a%2Fb", "a%5cb", "a%00", "a%zz", "a%", "%ff",
    ] {
        in_match(&format!("GET /{never}"), "never matches");
    }
    in_match(&format!("GET /{}", "a/".repeat(32)), "33 segments");
    in_match(&format!("GET /{}", "a".repeat(1024)), "too long");
}

#[test]
fn routes_that_are_never_reached_or_not_clearly_are_errors() {
    let pair = |first: &str, second: &str| {
        format!(
            "[[route]]\nname = \"a\"\nmatch = \"{first}\"\n[[route]]\nname = \"b\"\nmatch = {second}\n"
        )
    };
    for (first, second) in [
        ("GET /a", "GET /a"),
        ("GET /{x}/b", "GET /{y}/b"),
        ("GET /a/{x...}", "GET /a/{y...}"),
        ("* /a", "* /a"),
        ("GET|POST /a", "PUT|POST /a"),
        ("GET /caf%c3%a9", "GET /café"),
    ] {
        expect(
            &pair(first, &format!("§\"{second}\"")),
            &[("/route/1/match", "is matched by the route `a` already")],
        );
    }
    for (first, second) in [
        ("GET /a", "GET /a/"),
        ("GET /a", "* /a"),
        ("GET /a", "HEAD /a"),
        ("GET /a", "POST /a"),
        ("GET /{x}", "GET /{x...}"),
        ("GET /a/{x}", "GET /{x}/a"),
    ] {
        super::toml(&pair(first, &format!("\"{second}\"")));
    }
}
