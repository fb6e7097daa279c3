//! Every error of `purge` and `compose` is found.

use super::marked::{expect, in_route, in_route_put};
use super::toml;

#[test]
fn purges_are_checked() {
    let purge = |body: &str, pointer: &str, message: &str| {
        in_route_put(
            &format!("purge = {{ {body} }}"),
            &format!("/purge{pointer}"),
            message,
        );
    };
    in_route_put("purge = §[]", "/purge", "is a list, not a table");
    in_route_put("purge = §{}", "/purge", "purges nothing");
    purge(
        "keys = [§\"a:{ids}\"]",
        "/keys/0",
        "`{ids}` is no placeholder",
    );
    purge(
        "keys = [§\"ratelimit:{id}\"]",
        "/keys/0",
        "begin with `ratelimit:`",
    );
    purge("keys = [\"a\", §\"a\"]", "/keys/1", "is there twice");
    purge(
        "keys = [§\"a:{hash}\"]",
        "/keys/0",
        "`{hash}` is not possible here",
    );
    purge(
        "keys = [§\"a:{body:x}\"]",
        "/keys/0",
        "`x` is no JSON pointer",
    );
    purge(
        "keys = [§\"a:{response:/~2}\"]",
        "/keys/0",
        "no JSON pointer",
    );
    purge(
        "tags = [§\"a:{body:/x}{user}\"]",
        "/tags/0",
        "could run into `{user}`",
    );
    purge(
        &format!("keys = §[{}]", "\"k\",".repeat(17)),
        "/keys",
        "has 17 items",
    );
    purge(
        "tags = [\"a:{user}\"], else = [§\"b:{user}\"]",
        "/else/0",
        "`{user}` is not possible here",
    );
    purge(
        "tags = [\"a:{id}\"], §else = [\"b\"]",
        "/else",
        "never happens",
    );
    purge(
        "tags = [\"a\"], mode = §\"medium\"",
        "/mode",
        "`mode` is `medium`",
    );
    in_route(
        "cache = { key = \"a:{id}\", ttl = \"1m\" }\n§purge = { tags = [\"a\"] }",
        "/purge",
        "answers from the cache",
    );
}

/// One error in a composed route beside `list` (no placeholder), `item` (one), `pair`
/// (two) and `plain` (not cached).
fn in_compose(body: &str, pointer: &str, message: &str) {
    let text = format!(
        "[[route]]\nname = \"list\"\nmatch = \"GET /list\"\ncache = {{ key = \"list\", ttl = \"1m\" }}\n\
         [[route]]\nname = \"item\"\nmatch = \"GET /item/{{id}}\"\ncache = {{ key = \"item:{{id}}\", ttl = \"1m\" }}\n\
         [[route]]\nname = \"pair\"\nmatch = \"GET /pair/{{a}}/{{b}}\"\ncache = {{ key = \"pair:{{a}}:{{b}}\", ttl = \"1m\" }}\n\
         [[route]]\nname = \"plain\"\nmatch = \"GET /plain\"\n\
         [[route]]\nname = \"home\"\nmatch = \"GET /home\"\n{body}\n"
    );
    if message.is_empty() {
        toml(&text);
    } else {
        expect(&text, &[(&format!("/route/4{pointer}"), message)]);
    }
}

#[test]
fn composed_routes_are_checked() {
    in_compose(
        "compose = { a = \"list\", b = { route = \"item\", each = { id = [\"1\", \"2\"] } } }",
        "",
        "",
    );
    in_compose("compose = §7", "/compose", "is a number, not a table");
    in_compose("compose = §{}", "/compose", "has no parts");
    in_compose(
        "compose = { a = §7 }",
        "/compose/a",
        "is a number, not a table",
    );
    in_compose("compose = { a = §{} }", "/compose/a", "`route` is missing");
    in_compose(
        "compose = { a = { route = \"list\", §every = 1 } }",
        "/compose/a/every",
        "no field of a part",
    );
    in_compose(
        "compose = { §\"a b\" = \"list\" }",
        "/compose/a b",
        "is no name of a part",
    );
    in_compose(
        "compose = { a = §\"lists\" }",
        "/compose/a",
        "no route is called `lists`",
    );
    in_compose(
        "compose = { a = §\"plain\" }",
        "/compose/a",
        "the route `plain` has no `cache`",
    );
    in_compose(
        "compose = { a = §\"home\" }",
        "/compose/a",
        "the route `home` has no `cache`",
    );
    in_compose(
        "compose = { a = §\"item\" }",
        "/compose/a",
        "the route `item` needs `id`",
    );
    in_compose(
        "compose = { a = { route = \"item\", each = §{ x = [\"1\"] } } }",
        "/compose/a/each",
        "gives `x`, the route `item` has `id`",
    );
    in_compose(
        "compose = { a = { route = \"list\", each = §{ x = [\"1\"] } } }",
        "/compose/a/each",
        "has no placeholder `x`",
    );
    in_compose(
        "compose = { a = { route = \"pair\", each = §{ a = [\"1\"] } } }",
        "/compose/a/each",
        "has `a` and `b`",
    );
    in_compose(
        "compose = { a = { route = \"pair\", each = §{ a = [\"1\"], b = [\"1\"] } } }",
        "/compose/a/each",
        "has 2 placeholders",
    );
    let each = |values: &str| {
        format!("compose = {{ a = {{ route = \"item\", each = {{ id = {values} }} }} }}")
    };
    in_compose(&each("§\"1\""), "/compose/a/each/id", "is text, not a list");
    in_compose(&each("§[]"), "/compose/a/each/id", "has no values");
    in_compose(
        &each("[§1]"),
        "/compose/a/each/id/0",
        "is a number, not text",
    );
    in_compose(
        &each("[\"1\", §\"1\"]"),
        "/compose/a/each/id/1",
        "is there twice",
    );
    in_compose(
        &each(&format!("[§\"{}\"]", "1".repeat(257))),
        "/compose/a/each/id/0",
        "has 257 bytes",
    );
    for never in ["..", "a/b", "a\\\\b"] {
        let each = each(&format!("[\"{never}\"]")).replace("{ id", "§{ id");
        in_compose(&each, "/compose/a/each", "makes no path or no key");
    }
    let many: Vec<String> = (0..33).map(|i| format!("\"{i}\"")).collect();
    let half = format!(
        "{{ route = \"item\", each = {{ id = [{}] }} }}",
        many.join(",")
    );
    in_compose(
        &format!("compose = §{{ a = {half}, b = {half} }}"),
        "/compose",
        "made of 66 answers",
    );
    in_compose(
        "cache = { key = \"home\", ttl = \"1m\" }\n§compose = { a = \"list\" }",
        "/compose",
        "on a route that has a `cache`",
    );
    in_compose(
        "compose = { a = \"list\" }\n§purge = { tags = [\"x\"] }",
        "/purge",
        "answers from the cache",
    );
    expect(
        "[[route]]\nname = \"a\"\nmatch = \"GET /a\"\ncache = { key = \"a\", ttl = \"1m\" }\n\
         [[route]]\nname = \"b\"\nmatch = \"* /b\"\n§compose = { a = \"a\" }\n",
        &[("/route/1/compose", "other methods than GET")],
    );
}
