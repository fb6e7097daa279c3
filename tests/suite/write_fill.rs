//! `fill`: the answer of a write becomes another route's entry, or only purges it.

mod race;

use std::rc::Rc;

use edgeweir::gateway::Settings;
use edgeweir::policy::Policy;
use serde_json::{Value, json};

use super::sim::first_seed;
use super::world::{Ask, Isolate, Says, World, policy};

fn shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "book", "match": "GET /books/{id}", "cache": {
                "key": "book:{id}", "ttl": "10m", "max_size": "100KB", "tags": ["books", "book:{id}"] } },
            { "name": "list", "match": "GET /books", "cache": {
                "key": "books:all", "ttl": "10m", "tags": ["books"] } },
            { "name": "page", "match": "GET /pages/{slug}", "cache": {
                "key": "page:{slug}:{sort}", "query": { "sort": "views" }, "ttl": "10m" } },
            { "name": "write", "match": "PUT|DELETE /books/{id}", "fill": "book",
                "purge": { "keys": ["books:all"], "tags": ["book:{id}"] } },
            { "name": "patch", "match": "PATCH /books/{id}", "fill": "book" },
            { "name": "make", "match": "POST /books", "purge": { "tags": ["books"] },
                "fill": { "route": "book", "with": { "id": "{response:/id}" } } },
            { "name": "rename", "match": "PUT /pages/{page}", "fill": { "route": "page", "with": { "slug": "{page}" } } },
        ],
    }))
}

/// An origin with one book, whose version each write raises; writes answer as `says` does
/// with the new book.
fn world(says: impl Fn(&str) -> Says + 'static) -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    let mut version = 0;
    world.origin(move |asked| {
        let book = |version: u64| json!({ "id": 7, "v": version }).to_string();
        match asked.method.as_str() {
            "GET" => Says::new(200, book(version)),
            _ => {
                version += 1;
                says(&book(version))
            }
        }
    });
    let isolate = world.isolate_with(shop(), Settings::default());
    (world, isolate)
}

fn ok(body: &str) -> Says {
    Says::new(200, body)
}

fn hit(isolate: &Isolate, target: &str) -> Value {
    let served = isolate.get(target);
    assert!(
        served.cache_status().contains("hit"),
        "{target}: {}",
        served.cache_status()
    );
    assert_eq!(served.status, 200);
    served.json()
}

fn fetched(isolate: &Isolate, target: &str) -> Value {
    let served = isolate.get_settled(target);
    assert!(
        served.cache_status().contains("fwd=miss"),
        "{target}: {}",
        served.cache_status()
    );
    served.json()
}

/// The writer's next read is the answer, from the cache, on every isolate; what the same
/// write purges is gone, its own entry is not.
#[test]
fn the_answer_of_a_write_is_the_entry() {
    for (method, trips) in [("PUT", 3), ("PATCH", 3)] {
        let (world, isolate) = world(ok);
        let other = world.isolate(shop());
        fetched(&isolate, "/books");
        let served = isolate.ask(Ask::new(method, "/books/7"));
        // What is known of the entry, what was not there, then the purge that stores it.
        assert_eq!(
            (served.json()["v"].clone(), served.trips),
            (json!(1), trips)
        );
        assert_eq!(hit(&other, "/books/7")["v"], 1);
        let again = isolate.ask(Ask::new(method, "/books/7"));
        assert_eq!(
            (again.json()["v"].clone(), again.trips),
            (json!(2), 2),
            "{method}"
        );
        assert_eq!(hit(&isolate, "/books/7")["v"], 2);
        assert_eq!(world.asked_for("/books/7"), 2, "only the writes");
        match method {
            "PUT" => assert_eq!(fetched(&other, "/books")["v"], 2),
            _ => assert_eq!(hit(&other, "/books")["v"], 0),
        }
        // A backend reads the origin's own JSON, and its purge ends it.
        assert_eq!(world.redis.get("book:7").unwrap(), served_body(2));
        world
            .redis
            .set_px(world.sim.now_us(), "gen:book:7", "a-uuid", 172_800_000);
        fetched(&isolate, "/books/7");
        assert_eq!(world.immortal_keys(), [""; 0]);
    }
}

fn served_body(version: u64) -> Vec<u8> {
    json!({ "id": 7, "v": version }).to_string().into_bytes()
}

/// What is read before the origin is asked rides in the limits' trip.
#[test]
fn a_fill_takes_no_trip_of_its_own_before_the_origin() {
    let world = World::new(first_seed());
    world.origin(|_| ok(r#"{"id":7}"#));
    let text = serde_json::to_value(json!({
        "route": [
            { "name": "book", "match": "GET /books/{id}", "cache": { "key": "book:{id}", "ttl": "10m" } },
            { "name": "write", "match": "PUT /books/{id}", "fill": "book" },
        ],
    }));
    let isolate = world.isolate(policy(&text.unwrap()));
    for _ in 0..2 {
        isolate.ask(Ask::new("PUT", "/books/7"));
        world.settle();
    }
    let served = isolate.ask(Ask::new("PUT", "/books/7"));
    assert_eq!(served.trips, 2, "one before, one after");
}

/// A 201 is the 200 that a GET would bring, and brings no `Location`.
#[test]
fn what_a_post_makes_is_an_entry_under_the_id_of_its_answer() {
    let made = |body: &str| {
        Says {
            status: 201,
            ..ok(body)
        }
        .header("location", "/books/7")
        .header("etag", "\"one\"")
        .header("x-kept", "yes")
    };
    let (world, isolate) = world(made);
    fetched(&isolate, "/books");
    let served = isolate.ask(Ask::new("POST", "/books"));
    assert_eq!((served.status, served.get("location")), (201, "/books/7"));
    let read = isolate.get("/books/7");
    assert!(
        read.cache_status().contains("hit"),
        "{}",
        read.cache_status()
    );
    assert_eq!((read.status, read.get("location")), (200, ""));
    assert_eq!((read.get("etag"), read.get("x-kept")), ("\"one\"", "yes"));
    assert_eq!(fetched(&isolate, "/books")["v"], 1, "the list was purged");
    // It is there already: whoever purged it since is not known, so it is only purged.
    assert_eq!(isolate.ask(Ask::new("POST", "/books")).json()["v"], 2);
    world.settle();
    assert_eq!(fetched(&isolate, "/books/7")["v"], 2);
    assert_eq!(world.immortal_keys(), [""; 0]);
}

/// The key has the defaults of the query, and the path's value under another name.
#[test]
fn a_filled_route_may_have_a_query_with_defaults() {
    let (_, isolate) = world(ok);
    isolate.ask(Ask::new("PUT", "/pages/a%20b"));
    assert_eq!(hit(&isolate, "/pages/a%20b")["v"], 1);
    assert_eq!(hit(&isolate, "/pages/a%20b?sort=views")["v"], 1);
    assert_eq!(fetched(&isolate, "/pages/a%20b?sort=new")["v"], 1);
}

/// Answers that no GET could store only purge, and pass as they came.
#[test]
fn an_answer_that_may_not_be_stored_only_purges() {
    let long = |body: &str| ok(&format!("{body}{}", " ".repeat(100 * 1024)));
    type Answer = fn(&str) -> Says;
    let cases: [(&str, Answer, bool); 10] = [
        (
            "set-cookie",
            |body| ok(body).header("set-cookie", "a=1"),
            false,
        ),
        (
            "private",
            |body| ok(body).header("cache-control", "private"),
            false,
        ),
        (
            "no-store",
            |body| ok(body).header("cache-control", "max-age=9, no-store"),
            false,
        ),
        ("vary", |body| ok(body).header("vary", "cookie"), false),
        (
            "202",
            |body| Says {
                status: 202,
                ..ok(body)
            },
            false,
        ),
        ("204", |_| Says::new(204, ""), false),
        ("no JSON", |_| ok("done"), false),
        ("empty", |_| ok(""), false),
        (
            "too slow",
            |body| Says {
                body_ms: 60_000,
                ..ok(body)
            },
            true,
        ),
        (
            "an event stream",
            |body| Says {
                headers: edgeweir::http::Headers::from_iter([(
                    "content-type",
                    "text/event-stream",
                )]),
                ..ok(body)
            },
            true,
        ),
    ];
    for (case, says, is_streamed) in cases {
        let (world, isolate) = world(says);
        let expected = says(&json!({ "id": 7, "v": 1 }).to_string());
        fetched(&isolate, "/books/7");
        let served = isolate.ask(Ask::new("PUT", "/books/7"));
        assert_eq!(
            (served.status, &served.body),
            (expected.status, &expected.body),
            "{case}"
        );
        assert!(served.is_streamed || !is_streamed, "{case}");
        assert_eq!(fetched(&isolate, "/books/7")["v"], 1, "{case}");
        assert_eq!(world.log.borrow().len(), 0, "{case}");
    }
    // Longer than an entry may be, and longer than what templates may point into.
    let (_, isolate) = world(long);
    fetched(&isolate, "/books/7");
    let served = isolate.ask(Ask::new("PUT", "/books/7"));
    assert_eq!((served.status, served.is_streamed), (200, true));
    fetched(&isolate, "/books/7");
    let (_, isolate) = world(|body| ok(&format!("{body}{}", " ".repeat(80 * 1024))));
    isolate.ask(Ask::new("PUT", "/books/7"));
    assert_eq!(hit(&isolate, "/books/7")["v"], 1);
    // A write that fails leaves the entry.
    let (_, isolate) = world(|body| Says {
        status: 409,
        ..ok(body)
    });
    fetched(&isolate, "/books/7");
    isolate.ask(Ask::new("PUT", "/books/7"));
    assert_eq!(hit(&isolate, "/books/7")["v"], 0);
}

/// An answer whose id is not there purges `else`; one that may not be stored purges the
/// entry that it names.
#[test]
fn an_answer_without_its_id_purges_else() {
    let text = json!({
        "defaults": { "limit": [] },
        "route": [
            { "name": "book", "match": "GET /books/{id}", "cache": {
                "key": "book:{id}", "ttl": "10m", "tags": ["books"] } },
            { "name": "put", "match": "POST /books",
                "purge": { "tags": ["in:{response:/category}"], "else": ["books"] },
                "fill": { "route": "book", "with": { "id": "{response:/book/id}" } } },
        ],
    });
    for (body, headers, left) in [
        (
            json!({ "category": "x", "book": { "id": 7 } }),
            ("x-a", "b"),
            "filled",
        ),
        (
            json!({ "category": "x", "book": { "id": 7 } }),
            ("set-cookie", "a=b"),
            "purged",
        ),
        (
            json!({ "category": "x", "book": { "id": 9 } }),
            ("x-a", "b"),
            "kept",
        ),
        (
            json!({ "category": "x", "book": { "id": "" } }),
            ("x-a", "b"),
            "purged",
        ),
        (
            json!({ "category": "x", "book": {} }),
            ("x-a", "b"),
            "purged",
        ),
        (json!({ "book": { "id": 9 } }), ("x-a", "b"), "purged"),
    ] {
        let world = World::new(first_seed());
        let answer = Says::json(&body).header(headers.0, headers.1);
        world.origin(move |asked| match asked.method.as_str() {
            "GET" => ok(r#"{"v":0}"#),
            _ => answer.clone(),
        });
        let isolate = world.isolate(policy(&text));
        if left != "filled" {
            fetched(&isolate, "/books/7");
        }
        isolate.ask(Ask::new("POST", "/books"));
        match left {
            "filled" => assert_eq!(hit(&isolate, "/books/7"), body),
            "kept" => assert_eq!(hit(&isolate, "/books/7")["v"], 0),
            _ => assert_eq!(fetched(&isolate, "/books/7")["v"], 0, "{body}"),
        }
    }
}

/// A write whose path may be folded into the route's purges its entry and stores nothing.
#[test]
fn a_folded_spelling_only_purges() {
    for target in ["/books//7", "/books/7;a", "/books/7/"] {
        let (_, isolate) = world(ok);
        fetched(&isolate, "/books/7");
        isolate.ask(Ask::new("PUT", target));
        assert_eq!(fetched(&isolate, "/books/7")["v"], 1, "{target}");
    }
}

/// Without Redis there is nothing to fill, and nothing to wait for.
#[test]
fn without_redis_a_write_is_a_write() {
    let world = World::new(first_seed());
    world.origin(|_| ok(r#"{"id":7}"#));
    let settings = Settings {
        without_redis: true,
        ..Settings::default()
    };
    let isolate = world.isolate_as(shop(), settings);
    for ask in [Ask::new("PUT", "/books/7"), Ask::new("POST", "/books")] {
        let served = isolate.ask(ask);
        assert_eq!((served.status, served.trips), (200, 0));
    }
    assert_eq!(world.log.borrow().len(), 0);
}

/// Entries are in a database of their own.
#[test]
fn a_fill_goes_to_the_cache_database() {
    let world = World::with_two_databases(first_seed());
    world.origin(|_| ok(r#"{"id":7,"v":1}"#));
    let isolate = world.isolate(shop());
    isolate.ask(Ask::new("PUT", "/books/7"));
    assert_eq!(hit(&isolate, "/books/7")["v"], 1);
    assert!(world.redis.get("book:7").is_none() && world.cache.get("book:7").is_some());
}
