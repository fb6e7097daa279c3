//! What operators change while everything runs: it holds everywhere within seconds,
//! costs visitors nothing, loses nobody's counts, and survives an outage.

use std::cell::Cell;
use std::rc::Rc;

use edgeweir::config::Secret;
use edgeweir::controls::FRESH_MS;
use edgeweir::gateway::Settings;
use edgeweir::policy::Policy;
use edgeweir::redis::{Batch, Command, RedisErrorKind, Word};
use serde_json::{Value, json};

use super::sim::{Fault, Passage, Rng, first_seed};
use super::world::{Ask, Isolate, Says, Served, World, policy};

fn shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [{ "name": "default", "requests": 1000, "window": "60s", "by": "ip" }],
            "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "book", "match": "GET /books/{id}", "limit": [
                { "name": "burst", "requests": 5, "window": "1h", "by": "ip" },
                { "name": "key", "requests": 70, "window": "1h", "by": "header:x-api-key" } ] },
            { "name": "a", "match": "GET /a", "limit": [
                { "name": "shared", "requests": 5, "window": "1h", "by": "ip", "per": "all", "cost": 2 } ] },
            { "name": "b", "match": "GET /b", "limit": [
                { "name": "shared", "requests": 5, "window": "1h", "by": "ip", "per": "all", "cost": 2 } ] },
            { "name": "free", "match": "GET /free", "limit": [] },
        ],
    }))
}

pub fn world() -> (Rc<World>, Isolate, Isolate) {
    let world = World::new(first_seed());
    world.origin(|_| Says::json(&json!({})));
    let one = world.isolate_with(shop(), operated());
    let other = world.isolate_with(shop(), operated());
    (world, one, other)
}

/// There is an operator, whom `admin` asks as.
pub fn operated() -> Settings {
    Settings {
        admin_token: Some(Secret::new("admin-token")),
        ..Settings::default()
    }
}

pub fn admin(isolate: &Isolate, method: &str, target: &str, body: &str) -> Served {
    let ask = Ask::new(method, target).body(body);
    let ask = ask.header("cf-connecting-ip", "198.51.100.200");
    isolate.ask(ask.header("authorization", "Bearer admin-token"))
}

pub fn lists(isolate: &Isolate, body: &Value) {
    let served = admin(isolate, "POST", "/-/lists", &body.to_string());
    assert_eq!(served.status, 200, "{}", served.text());
}

fn resize(isolate: &Isolate, target: &str, requests: u32) {
    let body = json!({ "requests": requests }).to_string();
    let served = admin(isolate, "PUT", &format!("/-/limits/{target}"), &body);
    assert_eq!(served.status, 200, "{}", served.text());
}

pub fn from(ip: &str, target: &str) -> Ask {
    Ask::get(target).header("cf-connecting-ip", ip)
}

/// A trip that reads the hash and changes nothing of it.
pub fn is_reading(batch: &Batch) -> bool {
    let has = |name: &'static str| {
        let is_it = |command: &Command| command.words().first() == Some(&Word::from(name));
        batch.commands.iter().any(is_it)
    };
    has("HGETALL") && !has("HSET") && !has("HDEL")
}

fn readings(world: &World) -> usize {
    let ran = world.redis.ran.borrow();
    ran.iter().filter(|ran| ran.words[0] == "HGETALL").count()
}

/// Lets an isolate's copy get old, and one request read it anew.
fn renew(world: &World, isolate: &Isolate) {
    world.pass(FRESH_MS + 1);
    isolate.ask(from("198.51.100.250", "/elsewhere"));
    world.settle();
}

/// A deny holds at once where it was made, elsewhere with the first request after two
/// seconds; after that it costs no trip, on no route.
#[test]
fn a_deny_holds_everywhere_within_seconds_and_costs_no_trip() {
    let (world, one, other) = world();
    for isolate in [&one, &other] {
        assert_eq!(isolate.get_settled("/books/1").status, 200);
    }
    lists(&one, &json!({ "deny": ["192.0.2.0/24"] }));
    assert_eq!(
        (one.get("/books/1").status, one.get("/books/1").trips),
        (403, 0)
    );
    assert_eq!(other.get("/books/1").status, 200, "its copy is fresh");
    world.pass(FRESH_MS);
    // The trip that brings the news is judged by it.
    let first = other.get("/books/1");
    assert_eq!((first.status, first.get("ratelimit")), (403, ""));
    assert_eq!(world.asked_for("/books/1"), 3);
    for target in ["/books/1", "/free", "/a", "/elsewhere"] {
        let denied = other.get(target);
        assert_eq!((denied.status, denied.trips), (403, 0), "{target}");
    }
    assert_eq!(other.ask(from("198.51.100.1", "/books/1")).status, 200);
    lists(&other, &json!({ "remove": ["192.0.2.0/24"] }));
    assert_eq!(other.get("/books/1").status, 200);
    // Denied requests make no trip, but they too bring the copy up to date.
    world.pass(FRESH_MS);
    assert_eq!(one.get_settled("/free").status, 403);
    assert_eq!(one.get("/free").status, 200);
}

/// A cold isolate denies with its first limited request.
#[test]
fn a_cold_isolate_denies_with_its_first_trip() {
    let (world, one, _) = world();
    lists(&one, &json!({ "deny": ["user:mallory", "192.0.2.1"] }));
    let cold = world.isolate(shop());
    let asked = world.asked.borrow().len();
    assert_eq!(cold.get("/books/1").status, 403);
    assert_eq!(world.asked.borrow().len(), asked);
}

/// Whom operators allow no limit counts; a header's value opens only the limits that
/// count by it; a deny beats an allow.
#[test]
fn an_allow_takes_all_limits_out() {
    let (_, one, _) = world();
    lists(&one, &json!({ "allow": ["192.0.2.0/24", "header:k1"] }));
    for _ in 0..8 {
        let served = one.get("/books/1");
        assert_eq!((served.status, served.get("ratelimit")), (200, ""));
    }
    let known = from("198.51.100.1", "/books/1").header("x-api-key", "k1");
    let served = one.ask(known);
    assert_eq!(served.get("ratelimit-policy"), "\"burst\";q=5;w=3600");
    lists(&one, &json!({ "deny": ["192.0.2.1/32"] }));
    assert_eq!(one.get("/books/1").status, 403);
    lists(&one, &json!({ "deny": ["header:k1"] }));
    let known = from("198.51.100.1", "/books/1").header("x-api-key", "k1");
    assert_eq!(one.ask(known).status, 403);
}

/// Another size counts on from what was counted: nothing is forgotten, up or down.
#[test]
fn another_size_loses_no_counts() {
    let (world, one, other) = world();
    for _ in 0..4 {
        assert_eq!(one.get_settled("/books/1").status, 200);
    }
    resize(&one, "book?limit=burst", 7);
    let grown = one.get_settled("/books/1");
    assert!(
        grown
            .get("ratelimit-policy")
            .starts_with("\"burst\";q=7;w=3600")
    );
    assert!(
        grown.get("ratelimit").starts_with("\"burst\";r=2;"),
        "{}",
        grown.get("ratelimit")
    );
    renew(&world, &other);
    assert!(
        other
            .get_settled("/books/1")
            .get("ratelimit")
            .starts_with("\"burst\";r=1;")
    );
    resize(&other, "book?limit=burst", 6);
    assert_eq!(other.get_settled("/books/1").status, 429);
    renew(&world, &one);
    assert_eq!(one.get_settled("/books/1").status, 429);
    // Back to the policy's five, of which six are used.
    let gone = admin(
        &one,
        "DELETE",
        "/-/limits/book?override=true&limit=burst",
        "",
    );
    assert_eq!(gone.json()["removed"], json!(true));
    let refused = one.get_settled("/books/1");
    assert!(
        refused
            .get("ratelimit-policy")
            .starts_with("\"burst\";q=5;")
    );
    assert_eq!(refused.status, 429);
    assert_eq!(world.immortal_keys(), [""; 0]);
}

/// A larger size is nobody's refusal any more, also where one was just told.
#[test]
fn a_refusal_ends_with_the_size_that_it_was_for() {
    let (_, one, _) = world();
    let statuses = |count: usize| -> Vec<u16> {
        let served = (0..count).map(|_| one.get_settled("/books/1").status);
        served.collect()
    };
    assert_eq!(statuses(7), [200, 200, 200, 200, 200, 429, 429]);
    resize(&one, "book?limit=burst&id=192.0.2.1", 6);
    assert_eq!(statuses(2), [200, 429]);
    resize(&one, "book?limit=burst&id=192.0.2.1", 7);
    assert_eq!(statuses(2), [200, 429]);
}

/// An operator's size is one that the limit could have: its dearest request fits, its log
/// ends somewhere, and its counters hold it.
#[test]
fn a_size_must_fit_its_limit() {
    let world = World::new(first_seed());
    let limit = |name, more: Value| {
        let mut limit = json!({ "name": name, "requests": 100, "window": "60m", "by": "ip" });
        limit
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        limit
    };
    let policy = policy(
        &json!({ "route": [{ "name": "all", "match": "GET /all", "limit": [
        limit("narrow", json!({ "cost": 3 })),
        limit("wide", json!({ "requests": 40_000 })),
        limit("fixed", json!({ "algorithm": "fixed-window" })),
        limit("log", json!({ "algorithm": "sliding-log" })),
        limit("bucket", json!({ "algorithm": "token-bucket", "burst": 10, "cost": 6 })),
    ] }] }),
    );
    let isolate = world.isolate_with(policy, operated());
    let widest = 1_u64 << 31;
    for (name, least, most) in [
        ("narrow", 3, 32_767),
        ("wide", 1, widest),
        ("fixed", 1, widest),
        ("log", 1, 10_000),
        // Its burst is a tenth of it.
        ("bucket", 60, widest),
    ] {
        for (requests, status) in [(least - 1, 400), (least, 200), (most, 200), (most + 1, 400)] {
            let body = json!({ "requests": requests }).to_string();
            let target = format!("/-/limits/all?limit={name}");
            let set = admin(&isolate, "PUT", &target, &body);
            assert_eq!(set.status, status, "{name} {requests}: {}", set.text());
        }
        let target = format!("/-/limits/all?limit={name}");
        let body = json!({ "requests": least }).to_string();
        assert_eq!(admin(&isolate, "PUT", &target, &body).status, 200);
    }
    // The smallest size of each admits a request.
    assert_eq!(isolate.get_settled("/all").status, 200);
}

/// An id's own size beats the route's, and is nobody else's; a count over all routes has
/// one size over all of them.
#[test]
fn an_id_may_have_a_size_of_its_own() {
    let (_, one, _) = world();
    resize(&one, "book?limit=burst", 8);
    resize(&one, "book?limit=burst&id=192.0.2.1", 2);
    let sizes = |ask: Ask| one.ask(ask).get("ratelimit-policy").to_owned();
    assert!(sizes(Ask::get("/books/1")).starts_with("\"burst\";q=2;"));
    assert!(sizes(from("192.0.2.2", "/books/1")).starts_with("\"burst\";q=8;"));
    assert!(sizes(from("2001:db8::1", "/books/1")).starts_with("\"burst\";q=8;"));
    resize(&one, "book?limit=burst&id=2001%3Adb8%3A%3A7", 3);
    assert!(sizes(from("2001:db8::1", "/books/1")).starts_with("\"burst\";q=3;"));
    resize(&one, "a?limit=shared", 40);
    for target in ["/a", "/b"] {
        assert_eq!(sizes(Ask::get(target)), "\"shared\";q=40;w=3600");
    }
    resize(&one, "*?limit=default", 9);
    assert_eq!(sizes(Ask::get("/elsewhere")), "\"default\";q=9;w=60");
}

/// Reading along costs one command every two seconds, on a trip that is made anyway, and
/// never a trip before an answer.
#[test]
fn reading_along_costs_one_command_every_two_seconds() {
    let (world, one, _) = world();
    for n in 1..=5 {
        for _ in 0..10 {
            let served = one.get("/elsewhere");
            assert_eq!((served.status, served.trips), (200, 1));
        }
        assert_eq!(readings(&world), n);
        world.settle();
        world.pass(FRESH_MS);
    }
    for n in 6..=8 {
        for _ in 0..10 {
            assert_eq!(one.get("/free").trips, 0);
        }
        world.settle();
        assert_eq!(readings(&world), n);
        world.pass(FRESH_MS);
    }
    // A crowd reads once.
    one.crowd("/elsewhere", 50);
    world.settle();
    assert_eq!(readings(&world), 9);
}

/// While Redis is down what operators said last holds, however long it takes.
#[test]
fn an_outage_lifts_no_deny_and_no_size() {
    let (world, one, other) = world();
    lists(&one, &json!({ "deny": ["192.0.2.1"] }));
    resize(&one, "book?limit=burst", 2);
    renew(&world, &other);
    world.network(|_| Passage {
        fault: Fault::Before(RedisErrorKind::Transport),
        ..Passage::new(500, 500)
    });
    for minutes in [0, 1, 30, 600] {
        world.pass(minutes * 60_000);
        for isolate in [&one, &other] {
            assert_eq!(isolate.get_settled("/free").status, 403);
            let served = isolate.ask(from("198.51.100.7", "/books/1"));
            assert!(served.get("ratelimit-policy").starts_with("\"burst\";q=2;"));
        }
    }
    let refused = admin(&one, "POST", "/-/lists", r#"{"remove":["192.0.2.1"]}"#);
    assert_eq!((refused.status, refused.get("retry-after")), (503, "5"));
    assert_eq!(one.get("/free").status, 403, "it was not confirmed");
    world.network(|_| Passage::new(500, 500));
    lists(&one, &json!({ "remove": ["192.0.2.1"] }));
    renew(&world, &other);
    assert_eq!(
        (one.get("/free").status, other.get("/free").status),
        (200, 200)
    );
}

/// A change that Redis took and did not confirm is a 503; it may hold all the same.
#[test]
fn a_change_that_is_not_confirmed_is_a_503() {
    for fault in [RedisErrorKind::Timeout, RedisErrorKind::Transport] {
        let (world, one, _) = world();
        one.get_settled("/free");
        world.network(move |batch| Passage {
            fault: match batch.atomic && format!("{batch:?}").contains("HSET") {
                true => Fault::After(fault),
                false => Fault::None,
            },
            ..Passage::new(500, 500)
        });
        let served = admin(&one, "POST", "/-/lists", r#"{"deny":["192.0.2.1"]}"#);
        assert_eq!(served.status, 503);
        world.pass(FRESH_MS);
        one.get_settled("/free");
        assert_eq!(one.get("/free").status, 403);
    }
}

/// Writers at the same time lose nothing of each other's.
#[test]
fn writers_at_the_same_time_lose_nothing() {
    let (world, one, other) = world();
    let mut rng = Rng::new(first_seed());
    world.network(move |_| Passage::new(rng.between(100, 9_000), rng.between(100, 9_000)));
    let mut slots = Vec::new();
    for n in 0..40 {
        let isolate = if n % 2 == 0 { &one } else { &other };
        let ask = match n % 4 {
            0 | 1 => Ask::new("POST", "/-/lists")
                .body(json!({ "deny": [format!("10.0.0.{n}")] }).to_string()),
            _ => Ask::new("PUT", &format!("/-/limits/book?limit=burst&id=10.0.0.{n}"))
                .body(r#"{"requests":3}"#),
        };
        slots.push(
            isolate
                .send(ask.header("authorization", "Bearer admin-token"))
                .1,
        );
    }
    for slot in slots {
        let served = world.sim.block_on(slot.wait());
        assert_eq!(served.status, 200, "{}", served.text());
    }
    let shown = admin(&one, "GET", "/-/limits", "").json();
    let count = |member: &str| shown[member].as_array().unwrap().len();
    assert_eq!((count("deny"), count("overrides")), (20, 20));
    assert_eq!(world.immortal_keys(), [""; 0]);
}

/// A reading that was slow does not undo what was changed here meanwhile.
#[test]
fn a_slow_reading_undoes_no_change() {
    let (world, one, _) = world();
    world.network(|batch| match is_reading(batch) {
        true => Passage::new(500, 100_000),
        false => Passage::new(500, 500),
    });
    let (_, slow) = one.send(Ask::get("/elsewhere"));
    world.pass(20);
    world.network(|_| Passage::new(500, 500));
    lists(&one, &json!({ "deny": ["192.0.2.9"] }));
    world.sim.block_on(slow.wait());
    world.settle();
    assert_eq!(one.ask(from("192.0.2.9", "/free")).status, 403);
}

/// A reading that is lost with its request is made anew; one that is under way is not.
#[test]
fn a_lost_reading_does_not_stop_the_others() {
    let (world, one, _) = world();
    let count = Rc::new(Cell::new(0));
    let readings = count.clone();
    world.network(move |batch| {
        readings.set(readings.get() + u32::from(is_reading(batch)));
        Passage::new(500, 500)
    });
    // Dies in the middle of its flow, as a request does that the platform ends.
    let (_, slot) = one.send(Ask::get("/elsewhere"));
    world.pass(1);
    one.die();
    drop(slot);
    for _ in 0..10 {
        assert_eq!(one.get("/elsewhere").status, 200);
        world.pass(1_000);
    }
    assert_eq!(count.get(), 1, "it may still come");
    world.pass(5_000);
    one.get("/elsewhere");
    assert_eq!(count.get(), 2);
}

/// An operator's deny never shuts the admin API: else nobody could take it back.
#[test]
fn a_deny_of_everybody_can_be_taken_back() {
    let (_, one, _) = world();
    lists(&one, &json!({ "deny": ["0.0.0.0/0", "::/0"] }));
    assert_eq!(one.get("/free").status, 403);
    assert_eq!(one.get("/-/health").status, 200);
    let stranger = Ask::new("POST", "/-/lists").body("{}");
    assert_eq!(one.ask(stranger).status, 401);
    lists(&one, &json!({ "remove": ["::/0"], "allow": ["0.0.0.0/0"] }));
    assert_eq!(one.get("/free").status, 200);
}

/// Without Redis there is nothing to read, and nowhere to keep a change.
#[test]
fn without_redis_nothing_is_asked() {
    let world = World::new(first_seed());
    let settings = Settings {
        without_redis: true,
        ..operated()
    };
    let isolate = world.isolate_as(shop(), settings);
    for target in ["/free", "/books/1"] {
        assert_eq!(isolate.get_settled(target).trips, 0);
    }
    assert_eq!(
        admin(&isolate, "POST", "/-/lists", r#"{"deny":["192.0.2.1"]}"#).status,
        503
    );
    assert_eq!(world.redis.trips.get(), 0);
}
