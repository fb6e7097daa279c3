//! Writes: what a 2xx purges, when, and that the writer gets the origin's own answer.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::http::Headers;
use edgeweir::policy::Policy;
use edgeweir::redis::{Command, RedisErrorKind, Word};
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;

use super::sim::{Fault, Passage, first_seed};
use super::world::{Ask, Isolate, Says, World, policy};

pub const SECRET: &[u8] = b"a secret of the tests";

fn book_shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "book", "match": "GET /books/{id}", "cache": {
                "key": "book:{id}", "ttl": "10m", "tags": ["books", "book:{id}"] } },
            { "name": "plain", "match": "DELETE /books/{id}",
              "purge": { "keys": ["book:{id}"], "tags": ["books", "book:{id}"] } },
            { "name": "rich", "match": "PUT|PATCH /books/{id}", "purge": {
                "keys": ["user:{user}:history", "book:{id}"],
                "tags": ["by:{body:/author/id}", "in:{response:/category}"],
                "else": ["books", "book:{id}"] } },
        ],
    }))
}

fn world(says: Says) -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    world.origin(move |asked| match asked.method.as_str() {
        "GET" => Says::json(&json!({ "of": asked.target })),
        _ => says.clone(),
    });
    let settings = Settings {
        jwt_secret: Some(Secret::new(std::str::from_utf8(SECRET).unwrap())),
        ..Settings::default()
    };
    let isolate = world.isolate_with(book_shop(), settings);
    (world, isolate)
}

/// `Bearer` and an HS256 token for that user.
pub fn bearer(user: &str) -> String {
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!(
        "{}.{}",
        part(json!({ "alg": "HS256" })),
        part(json!({ "sub": user }))
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).unwrap();
    mac.update(signed.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("Bearer {signed}.{signature}")
}

/// Generations that were renewed and keys that were deleted.
fn purged(world: &World) -> BTreeSet<String> {
    let ran = world.redis.ran.borrow();
    let words = ran
        .iter()
        .map(|ran| ran.words.iter().map(String::as_str).collect::<Vec<_>>());
    words
        .flat_map(|words| match words[..] {
            ["SET", key, _, "EX", "172800"] => vec![key.to_owned()],
            ["DEL", key, meta] => vec![format!("DEL {key}"), format!("DEL {meta}")],
            _ => Vec::new(),
        })
        .collect()
}

fn expected(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn rich_write(body: &str) -> Ask {
    Ask::new("PATCH", "/books/7")
        .header("authorization", &bearer("ann"))
        .body(body)
}

/// Values of path, user, request and answer fill the templates, encoded.
#[test]
fn a_write_purges_what_its_templates_say() {
    let says = Says::json(&json!({ "category": "sci:fi/é" }));
    let (world, isolate) = world(says.clone());
    let served = isolate.ask(rich_write(r#"{"author":{"id":42}}"#));
    assert_eq!((served.status, &served.body), (200, &says.body));
    let names = [
        "DEL user:ann:history",
        "DEL meta:user:ann:history",
        "gen:key:user:ann:history",
        "DEL book:7",
        "DEL meta:book:7",
        "gen:key:book:7",
        "gen:by:42",
        "gen:in:sci%3Afi%2F%C3%A9",
    ];
    assert_eq!(purged(&world), expected(&names));
    assert_eq!(world.immortal_keys(), [""; 0]);
    // One transaction, and its own value for this purge.
    let ran = world.redis.ran.borrow();
    let values: BTreeSet<&str> = ran
        .iter()
        .filter(|ran| ran.words[0] == "SET")
        .map(|ran| ran.words[2].as_str())
        .collect();
    assert_eq!(values.len(), 1);
}

/// A value that is not there purges `else`, and what could be rendered all the same.
#[test]
fn a_missing_value_purges_else_as_well() {
    let all = [
        "DEL user:ann:history",
        "DEL meta:user:ann:history",
        "gen:key:user:ann:history",
        "DEL book:7",
        "DEL meta:book:7",
        "gen:key:book:7",
        "gen:by:42",
        "gen:in:1",
        "gen:books",
        "gen:book:7",
    ];
    let without = |left_out: &str| {
        let kept: Vec<&str> = all
            .into_iter()
            .filter(|name| !name.contains(left_out))
            .collect();
        expected(&kept)
    };
    let body = r#"{"author":{"id":"42"}}"#;
    let there = Says::json(&json!({ "category": 1 }));
    let long = format!(r#"{{"author":{{"id":"42"}},"x":"{}"}}"#, "x".repeat(65_536));
    let large = Says::json(&json!({ "category": 1, "x": "x".repeat(65_536) }));
    let anonymous = rich_write(body).header("authorization", "Bearer nobody");
    let cases = [
        ("no user", anonymous, there.clone(), "user:"),
        ("no body", rich_write(""), there.clone(), "by:"),
        ("body no JSON", rich_write("{"), there.clone(), "by:"),
        (
            "body without it",
            rich_write(r#"{"author":{"id":null}}"#),
            there.clone(),
            "by:",
        ),
        (
            "body with an empty one",
            rich_write(r#"{"author":{"id":""}}"#),
            there.clone(),
            "by:",
        ),
        (
            "body with an object",
            rich_write(r#"{"author":{"id":{}}}"#),
            there.clone(),
            "by:",
        ),
        ("body too large", rich_write(&long), there.clone(), "by:"),
        (
            "answer no JSON",
            rich_write(body),
            Says::new(200, "done"),
            "in:",
        ),
        (
            "answer without it",
            rich_write(body),
            Says::new(201, "{}"),
            "in:",
        ),
        ("answer empty", rich_write(body), Says::new(204, ""), "in:"),
        ("answer too large", rich_write(body), large, "in:"),
    ];
    for (case, ask, says, left_out) in cases {
        let (world, isolate) = world(says.clone());
        let sent = ask.body.clone();
        let served = isolate.ask(ask);
        assert_eq!(
            (served.status, &served.body),
            (says.status, &says.body),
            "{case}"
        );
        assert_eq!(purged(&world), without(left_out), "{case}");
        assert_eq!(
            world.asked.borrow()[0].body,
            sent,
            "{case}: the origin gets the whole body"
        );
    }
    let (world, isolate) = world(there);
    isolate.ask(rich_write(body));
    assert!(!purged(&world).contains("gen:books"), "nothing is missing");
}

/// Only a 2xx purges.
#[test]
fn an_answer_that_is_no_success_purges_nothing() {
    for status in [200, 201, 202, 204, 299] {
        let (world, isolate) = world(Says::new(status, ""));
        assert_eq!(isolate.ask(Ask::new("DELETE", "/books/7")).status, status);
        assert_eq!(purged(&world).len(), 5, "{status}");
    }
    for status in [301, 304, 400, 403, 404, 409, 500, 503] {
        let (world, isolate) = world(Says::new(status, ""));
        assert_eq!(isolate.ask(Ask::new("DELETE", "/books/7")).status, status);
        assert_eq!(purged(&world).len(), 0, "{status}");
    }
    let (world, isolate) = world(Says::refused());
    assert_eq!(isolate.ask(Ask::new("DELETE", "/books/7")).status, 502);
    assert_eq!(purged(&world).len(), 0);
}

/// The writer's own next read is fresh, on whatever isolate.
#[test]
fn the_next_read_after_a_write_is_fresh() {
    let (world, isolate) = world(Says::new(204, ""));
    let other = world.isolate(book_shop());
    for _ in 0..3 {
        isolate.get_settled("/books/7");
        assert!(other.get("/books/7").cache_status().contains("hit"));
        let asked = world.asked_for("/books/7");
        isolate.ask(Ask::new("DELETE", "/books/7"));
        assert!(
            other
                .get_settled("/books/7")
                .cache_status()
                .contains("fwd=miss")
        );
        assert_eq!(world.asked_for("/books/7"), asked + 2);
    }
}

/// An answer of any size passes whole, unread beyond the bound, and keeps its fields.
#[test]
fn answers_pass_as_they_came() {
    for (length, is_streamed) in [
        (100, false),
        (65_000, false),
        (70_000, true),
        (3_000_000, true),
    ] {
        let says = Says::json(&json!({ "category": 1, "x": "x".repeat(length) }))
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .header("etag", "\"w\"");
        let (_, isolate) = world(says.clone());
        // A write must never become a 304.
        for field in ["*", "\"w\""] {
            let served = isolate.ask(rich_write("{}").header("if-none-match", field));
            assert_eq!(
                (served.status, served.is_streamed),
                (200, is_streamed),
                "{length} {field}"
            );
            assert_eq!(served.body, says.body, "{length}");
            let cookies: Vec<&str> = served.headers.get_all("set-cookie").collect();
            assert_eq!(cookies, ["a=1", "b=2"]);
            assert_eq!(served.get("etag"), "\"w\"");
            assert!(!served.headers.contains("cache-status"));
        }
    }
    // Without `{response:…}` nothing is read at all.
    let (_, isolate) = world(Says {
        body_ms: 600_000,
        ..Says::new(200, "x")
    });
    let served = isolate.ask(Ask::new("DELETE", "/books/7"));
    assert!(served.is_streamed && served.took_us < 50_000);
}

/// An answer that breaks off after the write was done: purged, and no half answer. One
/// that takes its time is passed on as it comes.
#[test]
fn an_answer_that_breaks_off_is_a_502_and_purges_else() {
    let breaks = Says {
        breaks: true,
        ..Says::json(&json!({ "category": 1 }))
    };
    let slow = Says {
        body_ms: 60_000,
        ..Says::json(&json!({ "category": 1 }))
    };
    let stream = Says {
        headers: Headers::from_iter([("content-type", "text/event-stream; charset=utf-8")]),
        ..slow.clone()
    };
    for (says, status, kind) in [
        (breaks, 502, "application/problem+json"),
        (slow, 200, "application/json"),
        (stream.clone(), 200, "text/event-stream; charset=utf-8"),
    ] {
        let (world, isolate) = world(says);
        let served = isolate.ask(rich_write("{}"));
        assert_eq!((served.status, served.get("content-type")), (status, kind));
        assert_eq!(served.is_streamed, status == 200);
        assert!(purged(&world).contains("gen:books"));
    }
    let (_, isolate) = world(stream);
    let served = isolate.ask(rich_write("{}"));
    assert!(served.took_us < 50_000, "a stream is not waited for at all");
}

/// What operators have changed is read by whoever comes.
fn is_hgetall(command: &Command) -> bool {
    command.words().first() == Some(&Word::from("HGETALL"))
}

/// A purge that Redis did not confirm is tried five times more, each time with a new
/// generation: the one before may have been set, and be that of newer entries by now.
#[test]
fn an_unconfirmed_purge_is_tried_again_with_a_new_generation() {
    let with = |fault| Passage {
        fault,
        ..Passage::new(500, 500)
    };
    for (passage, has_run) in [
        (with(Fault::Before(RedisErrorKind::Transport)), false),
        (with(Fault::After(RedisErrorKind::Transport)), true),
        (Passage::new(500, 3_000_000), true),
    ] {
        for works_after in 0..7_usize {
            let (world, isolate) = world(Says::new(204, ""));
            let times: Rc<RefCell<Vec<u64>>> = Rc::default();
            let (tries, sim, passage) = (times.clone(), world.sim.clone(), passage.clone());
            world.network(move |batch| {
                if batch.commands.iter().any(is_hgetall) {
                    return Passage::new(500, 500);
                }
                tries.borrow_mut().push(sim.now_us() / 1_000);
                match tries.borrow().len() > works_after {
                    true => Passage::new(500, 500),
                    false => passage.clone(),
                }
            });
            let served = isolate.ask(Ask::new("DELETE", "/books/7"));
            assert_eq!(served.status, 204);
            assert!(served.redis_us <= 150_000);
            world.settle();
            let tried = times.borrow().len();
            assert_eq!(tried, (works_after + 1).min(6));
            let log = world.log.borrow();
            let is_told = log.iter().any(|line| line.contains("purge not confirmed"));
            assert_eq!(is_told, works_after > 0, "{log:?}");
            let ran = world.redis.ran.borrow();
            let sets: Vec<&str> = ran
                .iter()
                .filter(|ran| ran.words[0] == "SET" && ran.words[1] == "gen:books")
                .map(|ran| ran.words[2].as_str())
                .collect();
            let different: BTreeSet<&str> = sets.iter().copied().collect();
            assert_eq!(different.len(), sets.len(), "a generation was set twice");
            let runs = if has_run {
                tried
            } else {
                usize::from(works_after < 6)
            };
            assert_eq!(sets.len(), runs);
        }
    }
}

/// Redis down: the write is done and answered at once, its purge tried in the background.
#[test]
fn redis_down_never_fails_a_write() {
    let (world, isolate) = world(Says::new(201, "{}"));
    world.network(|_| Passage {
        fault: Fault::Before(RedisErrorKind::Open),
        ..Passage::new(0, 0)
    });
    let served = isolate.ask(rich_write("{}"));
    assert_eq!(served.status, 201);
    assert!(served.took_us < 30_000);
    world.settle();
    assert_eq!(world.asked.borrow().len(), 1, "a write is sent once");
}

/// Lists: a tag for each value, none for an empty list, `else` for what is no list of
/// values or too long.
#[test]
fn a_list_purges_a_tag_for_each_of_its_values() {
    let text = json!({
        "defaults": { "limit": [] },
        "route": [{ "name": "write", "match": "PUT /books/{id}", "purge": {
            "tags": ["tag:{response:/tags}", "of:{body:/authors/0/id}:{response:/tags}"], "else": ["all"] } }],
    });
    let many: Vec<u32> = (0..33).collect();
    for (tags, author, expected) in [
        (
            json!(["a b", "c:d/é", 3, true]),
            json!("x"),
            vec![
                "gen:of:x:3",
                "gen:of:x:a%20b",
                "gen:of:x:c%3Ad%2F%C3%A9",
                "gen:of:x:true",
                "gen:tag:3",
                "gen:tag:a%20b",
                "gen:tag:c%3Ad%2F%C3%A9",
                "gen:tag:true",
            ],
        ),
        (
            json!(["a", "a"]),
            json!(1.5),
            vec!["gen:of:1.5:a", "gen:tag:a"],
        ),
        (
            json!("one"),
            json!(["x", "y"]),
            vec!["gen:of:x:one", "gen:of:y:one", "gen:tag:one"],
        ),
        (
            json!(["a", "b"]),
            json!(["x", "y"]),
            vec![
                "gen:of:x:a",
                "gen:of:x:b",
                "gen:of:y:a",
                "gen:of:y:b",
                "gen:tag:a",
                "gen:tag:b",
            ],
        ),
        (json!([]), json!("x"), vec![]),
        (json!(["a", ""]), json!("x"), vec!["gen:all"]),
        (json!(["a", null]), json!("x"), vec!["gen:all"]),
        (json!(["a", ["b"]]), json!("x"), vec!["gen:all"]),
        (json!({ "a": 1 }), json!("x"), vec!["gen:all"]),
        (json!(many), json!("x"), vec!["gen:all"]),
        (json!(many[..32]), json!(["x", "y"]), {
            let mut all: Vec<&str> = vec!["gen:all"];
            all.extend((0..32).map(|n| &*format!("gen:tag:{n}").leak()));
            all.sort_unstable();
            all
        }),
    ] {
        let world = World::new(first_seed());
        let answer = Says::json(&json!({ "tags": tags }));
        world.origin(move |_| answer.clone());
        let isolate = world.isolate(policy(&text));
        let body = json!({ "authors": [{ "id": author }] }).to_string();
        isolate.ask(Ask::new("PUT", "/books/7").body(body));
        let ran = world.redis.ran.borrow();
        let mut purged: Vec<&str> = ran
            .iter()
            .filter(|ran| ran.words[0] == "SET")
            .map(|ran| ran.words[1].as_str())
            .collect();
        purged.sort_unstable();
        assert_eq!(purged, expected, "{tags} {author}");
    }
}
