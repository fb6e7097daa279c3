//! Every error of `cache` is found: its times, its keys, and keys that two routes share.

use std::cell::Cell;
use std::collections::BTreeSet;

use edgeweir::policy::Policy;
use proptest::prelude::*;

use super::marked::{errors_of, expect, in_cache, in_route};
use super::{property, toml};

/// `http` mode needs nothing, and takes only what the origin cannot say.
#[test]
fn by_the_origins_headers_little_is_left_to_say() {
    let route = |name: &str, cache: &str| {
        format!("[[route]]\nname = \"{name}\"\nmatch = \"GET /{name}/{{id}}\"\ncache = {cache}\n")
    };
    let text = route("a", "{ mode = \"http\" }")
        + &route(
            "b",
            "{ mode = \"http\", tags = [\"b:{id}\"], stale = \"1m\", max_size = \"4KB\" }",
        )
        + &route("c", "{ mode = \"policy\", key = \"c:{id}\", ttl = \"1m\" }");
    let policy = toml(&text);
    let rules: Vec<_> = policy
        .routes
        .iter()
        .map(|route| route.cache.as_ref().unwrap())
        .collect();
    assert_eq!(
        [true, true, false],
        [0, 1, 2].map(|at: usize| rules[at].by_origin)
    );
    assert_eq!(
        (rules[1].stale_ms, rules[1].max_bytes, rules[1].tags.len()),
        (60_000, 4096, 1)
    );
    for field in [
        "key = \"a:{id}\"",
        "ttl = \"1m\"",
        "negative = \"1m\"",
        "query = [\"q\"]",
        "credentials = \"forward\"",
    ] {
        let name = field.split(' ').next().unwrap();
        let body = format!("cache = {{ mode = \"http\", §{field} }}");
        in_route(
            &body,
            &format!("/cache/{name}"),
            "has no meaning with `mode = \"http\"`",
        );
    }
    in_route(
        "cache = { mode = \"http\", stale = §\"x\" }",
        "/cache/stale",
        "no duration",
    );
    in_route(
        "cache = { mode = \"http\", tags = [§\"{q}\"] }",
        "/cache/tags/0",
        "{q}",
    );
    // Nobody else's keys begin so.
    in_route(
        "cache = { key = §\"http:{id}\", ttl = \"1m\" }",
        "/cache/key",
        "begin with `http:`",
    );
    expect(
        &(route("a", "{ mode = \"http\" }")
            + "[[route]]\nname = \"h\"\nmatch = \"GET /h\"\ncompose = { a = §\"a\" }\n"),
        &[("/route/1/compose/a", "is cached by its origin's headers")],
    );
}

#[test]
fn cache_rules_are_checked() {
    in_route("cache = §7", "/cache", "is a number, not a table");
    expect(
        "[[route]]\nname = \"a\"\nmatch = \"GET /a\"\ncache = §§{}\n",
        &[
            ("/route/0/cache", "`ttl` is missing"),
            ("/route/0/cache", "`key` is missing"),
        ],
    );
    in_route(
        "cache = { key = \"a:{id}\", ttl = §\"0s\" }",
        "/cache/ttl",
        "`ttl` is 0ms",
    );
    in_route(
        "cache = { key = \"a:{id}\", ttl = §\"999ms\" }",
        "/cache/ttl",
        "`ttl` is 999ms",
    );
    in_route(
        "cache = { key = \"a:{id}\", ttl = §\"49h\" }",
        "/cache/ttl",
        "`ttl` is 49h",
    );
    in_route(
        "cache = { key = \"a:{id}\", ttl = \"24h\", stale = §\"86401s\" }",
        "/cache/stale",
        "are 172801s together",
    );
    toml(
        "[[route]]\nname = \"a\"\nmatch = \"GET|HEAD /a\"\ncache = { key = \"a\", ttl = \"24h\", stale = \"24h\" }",
    );
    in_cache("stale = §\"-1s\"", "/stale", "no duration");
    in_cache("l1 = §\"61s\"", "/l1", "`l1` is 61s");
    in_cache("l1 = §5", "/l1", "`l1` is a number, not text");
    in_route(
        "cache = { key = \"a:{id}\", ttl = \"2s\", l1 = §\"2001ms\" }",
        "/cache/l1",
        "`l1` is 2001ms, and an entry is fresh for 2s",
    );
    in_cache("negative = §\"0s\"", "/negative", "`negative` is 0ms");
    in_cache("max_size = §\"0B\"", "/max_size", "`max_size` is 0B");
    in_cache("max_size = §\"2MB\"", "/max_size", "`max_size` is 2MB");
    in_cache("max_size = §\"64kb\"", "/max_size", "which is no size");
    in_cache(
        "credentials = §\"include\"",
        "/credentials",
        "`credentials` is `include`",
    );
    in_cache("mode = §\"https\"", "/mode", "`mode` is `https`");
    in_cache("scope = §\"private\"", "/scope", "`scope` is `private`");
    in_cache("tags = [\"x\", §\"x\"]", "/tags/1", "is there twice");
    in_cache("tags = [§\"key:{id}\"]", "/tags/0", "begin with `key:`");
    in_cache("tags = [§\"{id}:x\"]", "/tags/0", "begin with `key:`");
    in_cache(
        &format!("tags = §[{}]", "\"t\",".repeat(17)),
        "/tags",
        "has 17 items",
    );
    for methods in ["POST", "GET|POST", "HEAD", "*"] {
        expect(
            &format!(
                "[[route]]\nname = \"a\"\nmatch = \"{methods} /a\"\n§cache = {{ key = \"a\", ttl = \"1m\" }}\n"
            ),
            &[("/route/0/cache", "other methods than GET")],
        );
    }
}

#[test]
fn keys_hold_all_that_changes_the_answer_and_cannot_be_forged() {
    let key = |key: &str, message: &str| {
        in_route(
            &format!("cache = {{ key = §\"{key}\", ttl = \"1m\" }}"),
            "/cache/key",
            message,
        );
    };
    key("a:{idd}", "`{idd}` is no placeholder of this route");
    key("a", "`{id}` is not in the key");
    key("", "has 0 bytes");
    key("a b:{id}", "has a space");
    key("ä:{id}", "not ASCII");
    key("a:{id", "braces");
    key("a:{id}}", "braces");
    key("a:{{id}}", "braces");
    key("{id}", "begins with a value");
    key("gen:{id}", "begin with `gen:`");
    key("m{id}:x", "begin with `metrics:`");
    key("a:{id}{id}", "could run into `{id}`");
    key("a:{id}-{id}", "could run into `{id}`");
    key("a:{id}%2F{id}", "could run into `{id}`");
    key("a:{id}:{user}", "`{user}` is not possible here");
    key("a:{id}:{hash}", "`{hash}` is not possible here");
    key("a:{id}:{body:/x}", "`{body:/x}` is not possible here");
    key(
        "a:{id}:{response:/x}",
        "`{response:/x}` is not possible here",
    );
    key(&format!("a:{{id}}:{}", "x".repeat(256)), "has 263 bytes");
    assert_eq!(
        errors_of(
            "[[route]]\nname=\"a\"\nmatch=\"GET /a/{id}\"\ncache={key=\"a:{idd}\",ttl=\"1m\"}"
        )[0]
        .help,
        "did you mean {id}?"
    );
    let query = |query: &str, key: &str| {
        format!("cache = {{ query = {query}, key = {key}, ttl = \"1m\" }}")
    };
    in_route(
        &query("[\"sort\"]", "§\"a:{id}\""),
        "/cache/key",
        "`{sort}` is not in the key",
    );
    in_route(
        &query("[§\"id\"]", "\"a:{id}:{hash}\""),
        "/cache/query/0",
        "is a placeholder of the path too",
    );
    in_route(
        &query("[\"x\", §\"x\"]", "\"a:{id}:{x}\""),
        "/cache/query/1",
        "`x` is there twice",
    );
    in_route(
        &query("[§\"a&b\"]", "\"a:{id}:{hash}\""),
        "/cache/query/0",
        "no name of a query parameter",
    );
    in_route(
        &query("{ x = §1 }", "\"a:{id}:{x}\""),
        "/cache/query/x",
        "is a number, not text",
    );
    in_route(
        &query("§7", "\"a:{id}\""),
        "/cache/query",
        "is a number, not a table",
    );
    in_route(
        &query(
            &format!("{{ x = §\"{}\" }}", "1".repeat(257)),
            "\"a:{id}:{x}\"",
        ),
        "/cache/query/x",
        "has 257 bytes",
    );
    let many: Vec<String> = (0..17).map(|i| format!("\"q{i}\"")).collect();
    in_route(
        &query(&format!("§[{}]", many.join(",")), "\"a:{id}:{hash}\""),
        "/cache/query",
        "has 17 items",
    );
}

#[test]
fn two_routes_never_share_a_key() {
    let pair = |first: &str, second: &str| {
        format!(
            "[[route]]\nname = \"a\"\nmatch = \"GET /a/{{x}}/{{y}}\"\ncache = {{ key = \"{first}\", ttl = \"1m\" }}\n\
             [[route]]\nname = \"b\"\nmatch = \"GET /b/{{x}}\"\ncache = {{ key = {second}, ttl = \"1m\" }}\n"
        )
    };
    for (first, second) in [
        ("k:{x}:{y}", "k:{x}:y"),
        ("k:{x}:{y}", "k:x:{x}"),
        ("k:a{x}:{y}", "k:{x}:y"),
        ("k:{x}a:b{y}", "k:cda:{x}"),
    ] {
        expect(
            &pair(first, &format!("§\"{second}\"")),
            &[("/route/1/cache/key", "the route `a` can have the same key")],
        );
    }
    for (first, second) in [
        ("k:{x}:{y}", "k:{x}"),
        ("k:{x}:{y}", "j:{x}:y"),
        ("k:a{x}:{y}", "k:b{x}:y"),
        ("k:{x}:{y}:", "k:{x}:y"),
        ("k:{x}:{y}", "k:/:{x}"),
    ] {
        toml(&pair(first, &format!("\"{second}\"")));
    }
}

/// Against an oracle that tries all short values.
#[test]
fn keys_that_some_values_make_equal_are_found() {
    let template = || ("a{0,2}", "(a{0,2}:a{0,2}|:a?:)", "[a:]{0,2}");
    let texts = |(first, middle, last): &(String, String, String)| -> BTreeSet<String> {
        let value = |length: usize| "a".repeat(length);
        let pairs = (0..12).flat_map(|x| (0..12).map(move |y| (x, y)));
        pairs
            .map(|(x, y)| format!("{first}{}{middle}{}{last}", value(x), value(y)))
            .collect()
    };
    let shared = Cell::new(0);
    property(1_000, (template(), template()), |(a, b)| {
        let route = |name: &str, (first, middle, last): &(String, String, String)| {
            format!(
                "[[route]]\nname = \"{name}\"\nmatch = \"GET /{name}/{{x}}/{{y}}\"\n\
                 cache = {{ key = \"k:{first}{{x}}{middle}{{y}}{last}\", ttl = \"1m\" }}\n"
            )
        };
        let is_shared = !texts(&a).is_disjoint(&texts(&b));
        shared.set(shared.get() + u32::from(is_shared));
        match Policy::from_toml(&(route("a", &a) + &route("b", &b))) {
            Ok(_) => prop_assert!(!is_shared, "{:?} {:?}", a, b),
            Err(errors) => {
                prop_assert!(is_shared, "{:?} {:?}", a, b);
                prop_assert_eq!(errors.len(), 1);
                prop_assert!(errors[0].message.contains("can have the same key"));
            }
        }
        Ok(())
    });
    println!("{} of 1000 shared", shared.get());
    assert!((50..950).contains(&shared.get()));
}

/// What says for whom an entry is and what it is in Redis, and what that forbids.
#[test]
fn users_entries_and_packed_ones_are_checked() {
    let user = |more: &str, pointer: &str, message: &str| {
        in_route(
            &format!(
                "cache = {{ scope = \"user\", key = \"a:{{user}}:{{id}}\", ttl = \"1m\", {more} }}"
            ),
            &format!("/cache{pointer}"),
            message,
        );
    };
    user(
        "§l1 = \"1s\"",
        "/l1",
        "`l1` has no meaning with `scope = \"user\"`",
    );
    user(
        "§credentials = \"forward\"",
        "/credentials",
        "`credentials` has no meaning with `scope = \"user\"`",
    );
    user("format = §\"zip\"", "/format", "`format` is `zip`");
    in_route(
        "cache = { scope = \"user\", key = §\"a:{id}\", ttl = \"1m\" }",
        "/cache/key",
        "`{user}` is not in the key: users would share one entry",
    );
    in_route(
        "cache = { format = \"packed\", key = §\"a:{id}:{user}\", ttl = \"1m\" }",
        "/cache/key",
        "`{user}` is not possible here",
    );
    for (word, name) in [("user", "scope"), ("packed", "format")] {
        in_route(
            &format!("cache = {{ mode = \"http\", §{name} = \"{word}\" }}"),
            &format!("/cache/{name}"),
            "has no meaning with `mode = \"http\"`",
        );
    }
    use edgeweir::policy::Form;
    for (fields, form) in [
        ("", Form::Plain),
        ("scope = \"shared\", ", Form::Plain),
        ("format = \"packed\", ", Form::Packed),
        ("scope = \"user\", ", Form::User),
        ("scope = \"user\", format = \"packed\", ", Form::User),
    ] {
        let user = if form == Form::User { ":{user}" } else { "" };
        let policy = super::toml(&format!(
            "[[route]]\nname = \"a\"\nmatch = \"GET /a\"\ncache = {{ {fields}key = \"a{user}\", ttl = \"1m\", tags = [\"t{user}\"] }}\n"
        ));
        let rule = policy.routes[0].cache.as_ref().unwrap();
        assert_eq!(rule.form, form);
        if form == Form::User {
            assert_eq!(policy.routes[0].l1_ms(), 0);
        }
        let text = policy.explain("GET", "/a").to_string();
        let (key, line) = match form {
            Form::Plain => ("key a\n", "served to everybody"),
            Form::Packed => ("key a\n", "packed: any content type, gzipped when it pays"),
            Form::User => (
                "key a:{user}\n",
                "of one verified user, encrypted with CACHE_KEY",
            ),
        };
        assert!(text.contains(key) && text.contains(line), "{text}");
    }
}

/// A page that all get is made of what all get.
#[test]
fn only_shared_plain_entries_are_composed() {
    for (fields, message) in [
        ("scope = \"user\", key = \"a:{user}\"", "is one user's"),
        ("format = \"packed\", key = \"a\"", "is packed"),
    ] {
        expect(
            &format!(
                "[[route]]\nname = \"a\"\nmatch = \"GET /a\"\ncache = {{ {fields}, ttl = \"1m\" }}\n\
                 [[route]]\nname = \"p\"\nmatch = \"GET /p\"\ncompose = {{ a = §\"a\" }}\n"
            ),
            &[("/route/1/compose/a", message)],
        );
    }
}
