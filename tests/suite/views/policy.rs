//! `view` and `bots` of a policy: what they may be, and each error at its place.

use edgeweir::policy::{Merge, Policy};

use super::super::policy::marked::{expect, in_defaults, in_route};

fn route(view: &str) -> edgeweir::policy::Route {
    let text = format!(
        "[[route]]\nname = \"a\"\nmatch = \"GET /a/{{id}}\"\nview = {view}\n\
         cache = {{ key = \"a:{{id}}:{{page}}\", ttl = \"1m\", query = {{ page = \"1\" }} }}\n"
    );
    let policy = Policy::from_toml(&text).unwrap_or_else(|errors| panic!("{errors:#?}"));
    policy.routes[0].clone()
}

#[test]
fn kinds_and_merge_are_read() {
    let rule = route("{ story = \"{id}\", page-of = \"{id}:{page}\", merge = \"views\" }")
        .view
        .unwrap();
    let kinds: Vec<(&str, String)> = rule
        .items
        .iter()
        .map(|item| (item.kind.as_str(), item.id.text()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("story", "{id}".to_owned()),
            ("page-of", "{id}:{page}".to_owned())
        ]
        .map(|kind| kind)
    );
    assert_eq!(rule.merge, Some(Merge::Own("/views".to_owned())));
    let merge = |text: &str| {
        route(&format!("{{ story = \"{{id}}\", merge = \"{text}\" }}"))
            .view
            .unwrap()
            .merge
    };
    assert_eq!(
        merge("/book/0/views"),
        Some(Merge::Own("/book/0/views".to_owned()))
    );
    assert_eq!(merge("a~b"), Some(Merge::Own("/a~0b".to_owned())));
    let rule = route("{ merge = { field = \"total_views\", kind = \"book\", id = \"book_id\" } }")
        .view
        .unwrap();
    let objects = Merge::Objects {
        field: "total_views".to_owned(),
        kind: "book".to_owned(),
        id: "book_id".to_owned(),
    };
    assert_eq!((rule.items.len(), rule.merge), (0, Some(objects)));
}

#[test]
fn what_is_no_view_says_where() {
    in_route("view = §1", "/view", "is a number, not a table");
    in_route("view = §{}", "/view", "counts nothing");
    in_route("view = { §Story = \"{id}\" }", "/view/Story", "is no kind");
    in_route(
        "view = { §_items = \"{id}\" }",
        "/view/_items",
        "is no kind",
    );
    in_route(
        "view = { story = §1 }",
        "/view/story",
        "is a number, not text",
    );
    in_route(
        "view = { story = §\"{other}\" }",
        "/view/story",
        "is no placeholder of this route",
    );
    in_route(
        "view = { story = §\"{user}\" }",
        "/view/story",
        "is not possible here",
    );
    in_route("view = { story = §\"{id\" }", "/view/story", "do not match");
    in_route(
        "view = { story = §\"home\" }",
        "/view/story",
        "one item for every request",
    );
    let kinds: Vec<String> = (0..9).map(|kind| format!("k{kind} = \"{{id}}\"")).collect();
    in_route(
        &format!("view = §{{ {} }}", kinds.join(", ")),
        "/view",
        "has 9 kinds",
    );
}

#[test]
fn what_is_no_merge_says_where() {
    let cached = "cache = { key = \"a:{id}\", ttl = \"1m\" }\n";
    let with = |view: &str, pointer: &str, message: &str| {
        in_route(
            &format!("{cached}view = {{ story = \"{{id}}\", {view} }}"),
            pointer,
            message,
        );
    };
    with("merge = §1", "/view/merge", "neither a field nor a table");
    with("merge = §\"\"", "/view/merge", "has 0 bytes");
    with("merge = §\"/a~2\"", "/view/merge", "is no JSON pointer");
    with(
        "merge = §{ field = \"a\", kind = \"b\" }",
        "/view/merge",
        "`id` is missing",
    );
    with(
        "merge = { field = \"a\", kind = §\"B\", id = \"c\" }",
        "/view/merge/kind",
        "is no kind",
    );
    with(
        "merge = { field = \"a\", kind = \"b\", id = \"c\", §x = 1 }",
        "/view/merge/x",
        "no field of `merge`",
    );
    in_route(
        &format!("{cached}view = {{ merge = §\"views\" }}"),
        "/view/merge",
        "counts nothing",
    );
    in_route(
        "view = { story = \"{id}\", §merge = \"views\" }",
        "/view/merge",
        "keeps no answers",
    );
    // What is gzip has no numbers to add to.
    in_route(
        "cache = { key = \"a:{id}\", ttl = \"1m\", format = \"packed\" }\nview = { story = \"{id}\", §merge = \"views\" }",
        "/view/merge",
        "whose answers may be gzip",
    );
    in_route(
        "cache = { mode = \"http\" }\nview = { story = \"{id}\", §merge = \"views\" }",
        "/view/merge",
        "keeps no answers",
    );
}

#[test]
fn bots_are_lower_case_parts_and_have_a_default() {
    let bots = |text: &str| Policy::from_toml(text).unwrap().defaults.bots;
    let default = bots("");
    assert!(default.contains(&"bot".to_owned()));
    for tool in [
        "curl/8.5.0",
        "node",
        "python-requests/2.32",
        "mozilla/5.0 (x11; linux x86_64) firefox/130.0",
    ] {
        assert!(
            !default.iter().any(|bot| tool.contains(bot.as_str())),
            "{tool}"
        );
    }
    assert_eq!(bots("[defaults]\nbots = [\"MyBot\"]\n"), ["mybot"]);
    assert!(bots("[defaults]\nbots = []\n").is_empty());
    in_defaults("bots = §1", "/bots", "is a number, not a list");
    in_defaults("bots = [\"a\", §\" \"]", "/bots/1", "has 1 bytes");
    in_defaults("bots = [§1]", "/bots/0", "is a number, not text");
}

#[test]
fn a_view_of_the_contracts_policy_is_built() {
    expect(
        "[[route]]\nname = \"read\"\nmatch = \"GET /s/{story}/c/{chapter}\"\n\
         view = { story = \"{story}\", chapter = \"{chapter}\" }\n§publish = {}\n",
        &[("/route/0/publish", "does not build it yet")],
    );
}

/// The line for people and the facts for machines say the same.
#[test]
fn views_are_explained() {
    let policy = Policy::from_toml(
        "[[route]]\nname = \"a\"\nmatch = \"GET /a/{id}\"\n\
         cache = { key = \"a:{id}\", ttl = \"1m\" }\nview = { story = \"{id}\", merge = \"/n\" }\n",
    )
    .unwrap();
    let explained = policy.explain("GET", "/a/1");
    let lines = explained.to_string();
    for line in [
        "view    story 1, once a user (or address) and day\n",
        "merge   pending views of the first are added to /n of the answer\n",
    ] {
        assert!(lines.contains(line), "{line}\n{lines}");
    }
    let fact = |name: &str| explained.facts.get(name).unwrap().text();
    assert_eq!(fact("views"), r#"[{"id":"1","kind":"story"}]"#);
    assert_eq!(fact("merge"), r#"{"field":"/n"}"#);
}
