//! `/-/limits` and `/-/lists`: what they show, what they change, and what they refuse.

use std::rc::Rc;

use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::policy::Policy;
use serde_json::{Value, json};

use super::controls::{admin, operated};
use super::sim::first_seed;
use super::world::{Ask, Isolate, Says, World, policy};

fn shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [{ "name": "default", "requests": 1000, "window": "60s", "by": "ip" }],
            "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "book", "match": "GET /books/{id}", "limit": [
                { "name": "burst", "requests": 5, "window": "60s", "by": "ip" },
                { "name": "own", "requests": 20, "window": "1h", "by": "user" },
                { "name": "key", "requests": 70, "window": "1h", "by": "header:x-api-key" },
                { "name": "every", "requests": 90, "window": "1h", "by": "global" },
                { "name": "shared", "requests": 50, "window": "1h", "by": "ip", "per": "all", "cost": 4 } ] },
            { "name": "other", "match": "GET /other", "limit": [
                { "name": "burst", "requests": 5, "window": "60s", "by": "ip" } ] },
            { "name": "free", "match": "GET /free", "limit": [] },
        ],
    }))
}

fn world() -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    world.origin(|_| Says::json(&json!({})));
    let isolate = world.isolate_with(shop(), operated());
    (world, isolate)
}

fn used(isolate: &Isolate, target: &str) -> Vec<(String, u64)> {
    let shown = admin(isolate, "GET", target, "");
    assert_eq!(shown.status, 200, "{target}: {}", shown.text());
    let shown = shown.json();
    let limits = shown["limits"].as_array().unwrap();
    let used = |limit: &Value| {
        let name = limit["name"].as_str().unwrap().to_owned();
        (name, limit["used"].as_u64().unwrap())
    };
    limits.iter().map(used).collect()
}

fn all(counts: &[(&str, u64)]) -> Vec<(String, u64)> {
    let owned = |(name, count): &(&str, u64)| ((*name).to_owned(), *count);
    counts.iter().map(owned).collect()
}

/// A look charges nothing, however often, and shows what requests would be told.
#[test]
fn a_look_charges_nothing() {
    let (world, isolate) = world();
    for _ in 0..3 {
        isolate.get_settled("/books/1");
    }
    for _ in 0..20 {
        let expected = all(&[("burst", 3), ("own", 3), ("every", 3), ("shared", 12)]);
        assert_eq!(used(&isolate, "/-/limits/book?id=192.0.2.1"), expected);
    }
    let shown = admin(&isolate, "GET", "/-/limits/book?id=192.0.2.1", "").json();
    let burst = &shown["limits"][0];
    let reset = burst["reset"].as_u64().unwrap();
    assert!((1..=61).contains(&reset), "{reset}");
    assert_eq!(
        (
            &shown["route"],
            &burst["name"],
            &burst["requests"],
            &burst["window"],
            &burst["remaining"]
        ),
        (
            &json!("book"),
            &json!("burst"),
            &json!(5),
            &json!(60),
            &json!(2)
        )
    );
    assert_eq!(burst.get("override"), None);
    let next = isolate.get_settled("/books/1");
    assert!(next.get("ratelimit").starts_with("\"burst\";r=1;"));
    // Of nobody in particular only what everybody shares is known.
    assert_eq!(used(&isolate, "/-/limits/book"), all(&[("every", 4)]));
    let header = all(&[("key", 0), ("every", 4)]);
    assert_eq!(used(&isolate, "/-/limits/book?id=header:k1"), header);
    isolate.ask(Ask::get("/books/1").header("x-api-key", "k1"));
    assert_eq!(used(&isolate, "/-/limits/book?id=header%3Ak1")[0].1, 1);
    assert_eq!(
        used(&isolate, "/-/limits/book?id=header%3Dx-api-key%3Dk1")[2],
        all(&[("key", 1)])[0]
    );
    // As a key has it, put into the URL as it is: the URL's own codes are decoded first.
    isolate.ask(Ask::get("/books/1").header("cf-connecting-ip", "2001:db8::1"));
    let of_network = used(&isolate, "/-/limits/book?id=2001%3Adb8%3A%3A%2F64");
    assert_eq!(of_network[0], ("burst".to_owned(), 1));
    let ask = Ask::get("/books/1").header("x-api-key", "a b");
    isolate.ask(ask.header("cf-connecting-ip", "2001:db8::1"));
    let of_key = used(&isolate, "/-/limits/book?id=header=x-api-key=a%20b");
    assert_eq!(of_key[2], ("key".to_owned(), 1));
    assert_eq!(
        used(&isolate, "/-/limits/*?id=198.51.100.200")[0].0,
        "default"
    );
    assert_eq!(
        used(&isolate, "/-/limits/%2A?id=192.0.2.1"),
        all(&[("default", 0)])
    );
    assert_eq!(world.immortal_keys(), [""; 0]);
}

/// Of a token bucket its burst is what can be used, whatever its rate: that is what a look
/// shows, and what the warning goes by.
#[test]
fn a_bucket_is_as_large_as_its_burst() {
    let world = World::new(first_seed());
    world.origin(|_| Says::json(&json!({})));
    let bucket = |name, requests, burst| {
        json!({ "name": name, "match": format!("GET /{name}"), "limit": [{ "name": name, "requests": requests,
            "window": "60m", "by": "ip", "algorithm": "token-bucket", "burst": burst }] })
    };
    let policy = policy(&json!({ "route": [bucket("short", 100, 10), bucket("long", 10, 40)] }));
    let isolate = world.isolate_with(policy, operated());
    for (name, burst) in [("short", 10), ("long", 40)] {
        for asked in 1..=burst {
            let served = isolate.get_settled(&format!("/{name}"));
            assert_eq!(served.status, 200, "{name} {asked}");
            let is_near = !served.get("x-ratelimit-near").is_empty();
            assert_eq!(is_near, asked * 5 >= burst * 4, "{name} {asked}");
            let look = format!("/-/limits/{name}?id=192.0.2.1");
            assert_eq!(used(&isolate, &look), all(&[(name, asked)]));
        }
    }
}

/// What stands in the place of the policy's size is shown, and whose it is.
#[test]
fn a_look_shows_what_was_changed() {
    let (_, isolate) = world();
    for (target, body) in [
        ("book?limit=burst", r#"{"requests":8}"#),
        ("book?limit=own&id=user:alice%20b", r#"{"requests":4}"#),
        ("book?limit=shared", r#"{"requests":44}"#),
    ] {
        let set = admin(&isolate, "PUT", &format!("/-/limits/{target}"), body);
        assert_eq!(set.status, 200, "{}", set.text());
    }
    let shown = admin(&isolate, "GET", "/-/limits/book?id=192.0.2.1", "").json();
    let limits = shown["limits"].as_array().unwrap();
    assert_eq!(
        limits[0]["override"],
        json!({ "of": "route", "requests": 8 })
    );
    assert_eq!(
        (&limits[0]["requests"], &limits[1]["requests"]),
        (&json!(8), &json!(20))
    );
    let user = admin(&isolate, "GET", "/-/limits/book?id=user:alice+b", "").json();
    assert_eq!(user["limits"][0]["name"], "own");
    assert_eq!(
        user["limits"][0]["override"],
        json!({ "of": "id", "requests": 4 })
    );
    let body = r#"{"deny":["2001:DB8:0::/32","203.0.113.0/24","user:x"],"allow":["192.0.2.1","header:k"]}"#;
    let changed = admin(&isolate, "POST", "/-/lists", body);
    assert_eq!(
        (changed.status, changed.json()),
        (200, json!({ "deny": 3, "allow": 2, "remove": 0 }))
    );
    let shown = admin(&isolate, "GET", "/-/limits", "").json();
    assert_eq!(
        shown["deny"],
        json!(["2001:db8::/32", "203.0.113.0/24", "user:x"])
    );
    assert_eq!(shown["allow"], json!(["192.0.2.1", "header:k"]));
    let mut overrides = shown["overrides"].as_array().unwrap().clone();
    overrides.sort_by_key(|one| one["limit"].as_str().unwrap().to_owned());
    let expected = json!([
        { "route": "book", "limit": "burst", "requests": 8 },
        { "route": "book", "limit": "own", "id": "user=alice%20b", "requests": 4 },
        { "route": "_", "limit": "shared", "requests": 44 },
    ]);
    assert_eq!(Value::Array(overrides), expected);
}

/// A reset is of exactly that id on that route: nobody else's counts, and no count that
/// others share unless that is said.
#[test]
fn a_reset_is_of_exactly_that_id() {
    let (world, isolate) = world();
    let asks = [
        Ask::get("/books/1"),
        Ask::get("/other"),
        Ask::get("/books/1").header("cf-connecting-ip", "192.0.2.10"),
        Ask::get("/books/1").header("cf-connecting-ip", "192.0.2.2"),
    ];
    for ask in &asks {
        for _ in 0..5 {
            assert_eq!(isolate.ask(ask.clone()).status, 200);
        }
        world.settle();
    }
    assert_eq!(isolate.ask(asks[0].clone()).status, 429);
    world.settle();
    let reset = admin(&isolate, "DELETE", "/-/limits/book?id=192.0.2.1", "");
    let expected = json!({ "route": "book", "reset": ["burst", "own"] });
    assert_eq!((reset.status, reset.json()), (200, expected));
    let look = |target: &str| used(&isolate, target);
    assert_eq!(
        look("/-/limits/book?id=192.0.2.1"),
        all(&[("burst", 0), ("own", 0), ("every", 15), ("shared", 20)])
    );
    for id in ["192.0.2.10", "192.0.2.2"] {
        assert_eq!(
            look(&format!("/-/limits/book?id={id}"))[..2],
            all(&[("burst", 5), ("own", 5)])
        );
    }
    assert_eq!(look("/-/limits/other?id=192.0.2.1"), all(&[("burst", 5)]));
    assert_eq!(
        isolate.ask(asks[0].clone()).status,
        200,
        "it is admitted again"
    );
    world.settle();
    let reset = admin(
        &isolate,
        "DELETE",
        "/-/limits/book?id=192.0.2.1&all=true",
        "",
    );
    assert_eq!(reset.json()["reset"], json!(["burst", "own", "shared"]));
    assert_eq!(
        look("/-/limits/book?id=192.0.2.1")[3],
        all(&[("shared", 0)])[0]
    );
    let reset = admin(&isolate, "DELETE", "/-/limits/book?id=global", "");
    assert_eq!(reset.json()["reset"], json!(["every"]));
    assert_eq!(look("/-/limits/book"), all(&[("every", 0)]));
}

/// A reset holds on other isolates too, which knew what the id had used: of the epoch
/// before, and a refusal.
#[test]
fn a_reset_is_told_to_other_isolates() {
    let (world, isolate) = world();
    let other = world.isolate(shop());
    for _ in 0..5 {
        other.get_settled("/other");
    }
    // Past the boundary, the epoch before is read once and then known.
    world.pass(45_000);
    for _ in 0..3 {
        assert_eq!(other.get_settled("/other").status, 429);
        world.pass(2_000);
    }
    let elsewhere = || other.ask(Ask::get("/elsewhere").header("cf-connecting-ip", "198.51.100.1"));
    elsewhere();
    world.settle();
    assert_eq!(
        admin(&isolate, "DELETE", "/-/limits/other?id=192.0.2.1", "").status,
        200
    );
    world.pass(2_001);
    elsewhere();
    let statuses: Vec<u16> = (0..6).map(|_| other.get_settled("/other").status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
}

/// What was counted before the boundary of an epoch goes too.
#[test]
fn a_reset_forgets_the_epoch_before() {
    let (world, isolate) = world();
    // Twenty seconds into a minute: half of what counts is of the minute before.
    for _ in 0..3 {
        isolate.get_settled("/other");
    }
    world.pass(45_000);
    for _ in 0..2 {
        isolate.get_settled("/other");
    }
    assert_eq!(
        used(&isolate, "/-/limits/other?id=192.0.2.1"),
        all(&[("burst", 5)])
    );
    assert_eq!(
        admin(&isolate, "DELETE", "/-/limits/other?id=192.0.2.1", "").status,
        200
    );
    assert_eq!(
        used(&isolate, "/-/limits/other?id=192.0.2.1"),
        all(&[("burst", 0)])
    );
}

/// Every call that is not understood changes nothing and says what to write.
#[test]
fn what_is_not_understood_is_refused() {
    let (world, isolate) = world();
    let long = format!("user:{}", "x".repeat(257));
    let many: Vec<String> = (0..1_001).map(|n| format!("user:{n}")).collect();
    let many = json!({ "deny": many }).to_string();
    for (method, target, body) in [
        ("GET", "/-/limits/nothing?id=192.0.2.1", ""),
        ("GET", "/-/limits/?id=192.0.2.1", ""),
        ("GET", "/-/limits/book?id=", ""),
        ("GET", "/-/limits/book?id=a%20b", ""),
        ("GET", "/-/limits/book?id=%zz", ""),
        ("GET", "/-/limits/book?id=a:b", ""),
        ("GET", "/-/limits/book?id=192.0.2.1&id=192.0.2.2", ""),
        ("GET", "/-/limits/book?id=192.0.2.1&all=true", ""),
        ("GET", "/-/limits/book?who=192.0.2.1", ""),
        ("GET", "/-/limits/other?id=user:alice", ""),
        ("GET", "/-/limits/other", ""),
        ("GET", "/-/limits/free?id=192.0.2.1", ""),
        ("DELETE", "/-/limits/book", ""),
        ("DELETE", "/-/limits/book?id=192.0.2.1&all=1", ""),
        ("DELETE", "/-/limits/book?id=192.0.2.1&limit=burst", ""),
        ("DELETE", "/-/limits/book?override=true", ""),
        ("DELETE", "/-/limits/book?override=true&limit=nothing", ""),
        (
            "DELETE",
            "/-/limits/book?override=true&limit=burst&all=true",
            "",
        ),
        ("PUT", "/-/limits/book", r#"{"requests":1}"#),
        ("PUT", "/-/limits/book?limit=nothing", r#"{"requests":1}"#),
        (
            "PUT",
            "/-/limits/book?limit=burst&id=user:alice",
            r#"{"requests":1}"#,
        ),
        (
            "PUT",
            "/-/limits/book?limit=burst&override=true",
            r#"{"requests":1}"#,
        ),
        ("PUT", "/-/limits/book?limit=burst", ""),
        ("PUT", "/-/limits/book?limit=burst", "{}"),
        ("PUT", "/-/limits/book?limit=burst", r#"{"requests":0}"#),
        (
            "PUT",
            "/-/limits/book?limit=burst",
            r#"{"requests":2147483649}"#,
        ),
        ("PUT", "/-/limits/book?limit=burst", r#"{"requests":1.5}"#),
        ("PUT", "/-/limits/book?limit=burst", r#"{"requests":"1"}"#),
        (
            "PUT",
            "/-/limits/book?limit=burst",
            r#"{"requests":1,"window":"1h"}"#,
        ),
        ("PUT", "/-/limits/book?limit=shared", r#"{"requests":3}"#),
        ("POST", "/-/lists", ""),
        ("POST", "/-/lists", "[]"),
        ("POST", "/-/lists", r#"{"denied":[]}"#),
        ("POST", "/-/lists", r#"{"deny":"192.0.2.1"}"#),
        ("POST", "/-/lists", r#"{"deny":[1]}"#),
        ("POST", "/-/lists", r#"{"deny":["nobody"]}"#),
        ("POST", "/-/lists", r#"{"deny":["192.0.2.0/33"]}"#),
        ("POST", "/-/lists", r#"{"deny":["192.0.2.1/24"]}"#),
        ("POST", "/-/lists", r#"{"deny":["192.0.2.0/+3"]}"#),
        ("POST", "/-/lists", r#"{"deny":["2001:db8::/129"]}"#),
        ("POST", "/-/lists", r#"{"deny":["user:"]}"#),
        ("POST", "/-/lists", r#"{"deny":["user:a\u0000b"]}"#),
        ("POST", "/-/lists", &json!({ "deny": [long] }).to_string()),
        (
            "POST",
            "/-/lists",
            r#"{"deny":["192.0.2.1"],"allow":["192.0.2.1/32"]}"#,
        ),
        ("POST", "/-/lists", r#"{"deny":["192.0.2.1","192.0.2.1"]}"#),
        ("POST", "/-/lists", &many),
    ] {
        let served = admin(&isolate, method, target, body);
        let case = format!("{method} {target} {body:.60}: {}", served.text());
        assert_eq!(served.status, 400, "{case}");
        assert_eq!(
            served.get("content-type"),
            "application/problem+json",
            "{case}"
        );
        assert!(
            served.json()["detail"].as_str().unwrap().len() > 10,
            "{case}"
        );
    }
    for (method, target, allow) in [
        ("POST", "/-/limits/book", "GET, PUT, DELETE"),
        ("DELETE", "/-/limits", "GET"),
        ("GET", "/-/lists", "POST"),
    ] {
        let served = admin(&isolate, method, target, "{}");
        assert_eq!(
            (served.status, served.get("allow")),
            (405, allow),
            "{target}"
        );
    }
    let ran = world.redis.ran.borrow();
    assert!(
        ran.iter()
            .all(|ran| !matches!(ran.words[0].as_str(), "HSET" | "HDEL" | "DEL"))
    );
}

/// Only the whole token opens any of it.
#[test]
fn only_the_token_opens_limits_and_lists() {
    let (world, isolate) = world();
    for (method, target) in [
        ("GET", "/-/limits"),
        ("GET", "/-/limits/book?id=192.0.2.1"),
        ("PUT", "/-/limits/book?limit=burst"),
        ("DELETE", "/-/limits/book?id=192.0.2.1"),
        ("POST", "/-/lists"),
    ] {
        for authorization in ["", "Bearer admin-toke", "Basic admin-token"] {
            let ask = Ask::new(method, target).body(r#"{"requests":3}"#);
            let served = isolate.ask(ask.header("authorization", authorization));
            assert_eq!(served.status, 401, "{method} {target} {authorization}");
        }
        let closed = world.isolate(shop());
        let ask = Ask::new(method, target).header("authorization", "Bearer ");
        assert_eq!(closed.ask(ask).status, 404);
    }
}

/// Ids are hashed as in keys: people ask with what they know, and nothing shows it.
#[test]
fn hashed_ids_are_asked_for_by_what_people_know() {
    let mut policy = shop();
    policy.defaults.hash_ids = true;
    let world = World::new(first_seed());
    world.origin(|_| Says::json(&json!({})));
    let settings = Settings {
        hash_key: Some(Secret::new("hash-key")),
        ..operated()
    };
    let isolate = world.isolate_with(policy, settings);
    isolate.get_settled("/books/1");
    assert_eq!(used(&isolate, "/-/limits/book?id=192.0.2.1")[0].1, 1);
    let target = "/-/limits/book?limit=burst&id=192.0.2.1";
    assert_eq!(
        admin(&isolate, "PUT", target, r#"{"requests":3}"#).status,
        200
    );
    assert!(
        isolate
            .get("/books/1")
            .get("ratelimit-policy")
            .starts_with("\"burst\";q=3;")
    );
    let shown = admin(&isolate, "GET", "/-/limits", "");
    let id = shown.json()["overrides"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(id.len(), 32);
    assert_eq!(
        used(&isolate, &format!("/-/limits/book?id={id}"))[0],
        all(&[("burst", 2)])[0]
    );
    assert_eq!(
        admin(&isolate, "DELETE", "/-/limits/book?id=192.0.2.1", "").status,
        200
    );
    world.settle();
    let ran = world.redis.ran.borrow();
    let words = ran.iter().flat_map(|ran| &ran.words);
    assert!(words.clone().count() > 20 && !words.clone().any(|word| word.contains("192.0.2.1")));
}
