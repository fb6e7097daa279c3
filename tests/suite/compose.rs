//! Composed answers: many listings as one JSON object, read in one trip.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use edgeweir::policy::Policy;
use serde_json::{Value, json};

use super::sim::redis::Ran;
use super::sim::{Passage, Rng, first_seed};
use super::world::{Ask, Isolate, Says, World, policy_text};

/// The parts are not in the order of their names.
const POLICY: &str = r#"{
    "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
    "route": [
        { "name": "tree", "match": "GET /tree",
          "cache": { "key": "tree:all", "ttl": "10m", "stale": "1h", "tags": ["books"] } },
        { "name": "top", "match": "GET /top/{id}",
          "cache": { "key": "top:{id}", "ttl": "1m", "stale": "1h", "negative": "1m",
                     "max_size": "1KB", "tags": ["books", "top:{id}"] } },
        { "name": "home", "match": "GET /home",
          "compose": { "zebra": "tree",
                       "sliders": { "route": "top", "each": { "id": ["2", "a \"b\" é", "1"] } },
                       "again": "tree" } }
    ]
}"#;

/// Targets and keys of the repeated part, in the policy's order.
const TOPS: [(&str, &str); 3] = [
    ("/top/2", "top:2"),
    ("/top/a%20%22b%22%20%C3%A9", "top:a%20%22b%22%20%C3%A9"),
    ("/top/1", "top:1"),
];

const ALL: &str = concat!(
    r#"{"zebra":{"of":"/tree"},"sliders":{"2":{"of":"/top/2"},"#,
    r#""a \"b\" é":{"of":"/top/a%20%22b%22%20%C3%A9"},"1":{"of":"/top/1"}},"again":{"of":"/tree"}}"#
);

fn home() -> Policy {
    policy_text(POLICY)
}

/// What the origin says to a target in place of its name.
type Instead = Rc<RefCell<BTreeMap<String, Says>>>;

/// An origin that says its target, or what a test has put in its place.
fn world() -> (Rc<World>, Isolate, Instead) {
    let world = World::new(first_seed());
    let instead = Instead::default();
    let script = instead.clone();
    world.origin(move |asked| {
        let says = script.borrow().get(&asked.target).cloned();
        says.unwrap_or_else(|| Says::json(&json!({ "of": asked.target })))
    });
    let isolate = world.isolate(home());
    (world, isolate, instead)
}

/// Parts and values come in the policy's order, each part asked for once.
#[test]
fn parts_come_in_the_policys_order_and_each_is_fetched_once() {
    let (world, isolate, _) = world();
    let served = isolate.get_settled("/home");
    assert_eq!((served.status, served.text()), (200, ALL));
    assert_eq!(served.get("content-type"), "application/json");
    assert_eq!(served.cache_status(), "edgeweir; fwd=miss; stored");
    assert_eq!(
        world.asked.borrow().len(),
        4,
        "the tree is in two parts and fetched once"
    );
}

/// Everything there: one trip, one command, and the shortest time left.
#[test]
fn hits_are_one_trip_whatever_the_number_of_parts() {
    let (world, isolate, _) = world();
    isolate.get_settled("/home");
    world.pass(20_000);
    let before = world.redis.ran.borrow().len();
    let hit = isolate.get("/home");
    assert_eq!((hit.text(), hit.trips, hit.took_us), (ALL, 1, 1_000));
    assert_eq!(hit.cache_status(), "edgeweir; hit; ttl=39; detail=l2");
    assert_eq!(hit.get("age"), "20");
    // What operators have changed rides along now and then.
    let is_of_parts = |ran: &&Ran| ran.words[0] != "HGETALL";
    let ran = world.redis.ran.borrow();
    assert_eq!(ran[before..].iter().filter(is_of_parts).count(), 1);
    drop(ran);
    assert_eq!(world.asked.borrow().len(), 4);
    // The parts are the listings' own entries.
    assert_eq!(
        isolate.get("/top/1").cache_status(),
        "edgeweir; hit; ttl=39; detail=l2"
    );
}

/// 304 and HEAD work on the whole, and a changed part changes the whole's tag.
#[test]
fn the_whole_has_an_entity_tag_of_its_own() {
    let (world, isolate, instead) = world();
    let first = isolate.get_settled("/home");
    let etag = first.get("etag").to_owned();
    let same = isolate.ask(Ask::get("/home").header("if-none-match", &etag));
    assert_eq!(
        (same.status, same.body.len(), same.get("etag")),
        (304, 0, etag.as_str())
    );
    let head = isolate.ask(Ask::new("HEAD", "/home"));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.get("content-length"), ALL.len().to_string());
    instead
        .borrow_mut()
        .insert("/tree".to_owned(), Says::json(&json!("new")));
    world.redis.evict("gen:books");
    let changed = isolate.ask(Ask::get("/home").header("if-none-match", &etag));
    assert_eq!(
        (changed.status, changed.json()["zebra"].as_str()),
        (200, Some("new"))
    );
    assert_ne!(changed.get("etag"), etag);
}

/// A part that fails in whatever way is null and named; the others are there.
#[test]
fn a_part_that_fails_is_null_and_named() {
    let long = format!("\"{}\"", "x".repeat(1_100));
    let breaks = Says {
        breaks: true,
        ..Says::new(200, "{}")
    };
    for says in [
        Says::refused(),
        Says::new(200, "{}").after(60_000),
        breaks,
        Says::new(500, "{}"),
        Says::new(404, "{}"),
        Says::new(301, "{}"),
        Says::new(204, ""),
        Says::new(200, ""),
        Says::new(200, "<p>"),
        Says::new(200, "{},"),
        Says::new(200, b"\"\xff\"".to_vec()),
        Says::new(200, long),
    ] {
        let (world, isolate, instead) = world();
        instead
            .borrow_mut()
            .insert(TOPS[1].0.to_owned(), says.clone());
        for round in 0..2 {
            let served = isolate.get_settled("/home");
            let case = format!("{says:?}, round {round}: {served:?}");
            assert_eq!(served.status, 200, "{case}");
            let mut expected: Value = serde_json::from_str(ALL).unwrap();
            expected["sliders"]["a \"b\" é"] = Value::Null;
            assert_eq!(served.json(), expected, "{case}");
            let status = served.cache_status();
            // A quote has no place in a quoted string, nor has what is not ASCII.
            let named = status.ends_with("; detail=\"failed sliders.a ?b? ?\"");
            assert!(named && status.starts_with("edgeweir; "), "{case}");
            assert_eq!(served.get("cache-control"), "no-store", "{case}");
            assert!(served.took_us < 2_100_000, "{case}");
        }
        // The others were stored, and the failing one is not asked without end.
        assert_eq!(world.asked_for("/tree"), 1);
        instead.borrow_mut().clear();
        world.pass(61_000);
        let well = isolate.get_settled("/home");
        assert_eq!(
            (well.text(), well.headers.contains("cache-control")),
            (ALL, false),
            "{says:?}"
        );
    }
}

/// An answer that may not be stored is still a part of this one.
#[test]
fn an_unstorable_part_is_served_and_asked_for_again() {
    let (world, isolate, instead) = world();
    let says = Says::new(200, "[1]").header("cache-control", "no-store");
    instead.borrow_mut().insert("/tree".to_owned(), says);
    for _ in 0..2 {
        let served = isolate.get_settled("/home");
        assert_eq!(
            (served.status, served.json()["zebra"].clone()),
            (200, json!([1]))
        );
        assert_eq!(served.cache_status(), "edgeweir; fwd=miss");
    }
    assert_eq!(world.redis.get("tree:all"), None);
    assert_eq!(world.asked_for("/top/1"), 1);
}

/// Stale parts are served at once, and all of them are refreshed at the same time.
#[test]
fn stale_parts_are_served_and_refreshed_side_by_side() {
    let (world, isolate, instead) = world();
    isolate.get_settled("/home");
    world.pass(100_000);
    world.asked.borrow_mut().clear();
    for (target, _) in TOPS {
        let says = Says::json(&json!("new")).after(1_500);
        instead.borrow_mut().insert(target.to_owned(), says);
    }
    let stale = isolate.get("/home");
    assert_eq!((stale.text(), stale.trips, stale.took_us), (ALL, 1, 1_000));
    assert_eq!(stale.cache_status(), "edgeweir; hit; ttl=-41; detail=stale");
    let begun_ms = world.now_ms();
    world.settle();
    assert!(world.now_ms() - begun_ms < 1_600, "one after the other");
    assert_eq!(world.asked.borrow().len(), 3, "the tree is fresh");
    let fresh = isolate.get("/home");
    assert_eq!(fresh.json()["sliders"]["1"], "new");
    assert!(fresh.cache_status().starts_with("edgeweir; hit; ttl=5"));
}

/// Parts are fetched side by side, and shared waiting counts once in Server-Timing.
#[test]
fn parts_are_fetched_side_by_side() {
    let (world, isolate, instead) = world();
    world.network(|_| Passage::new(20_000, 20_000));
    for (target, _) in TOPS {
        let says = Says::json(&json!(1)).after(700);
        instead.borrow_mut().insert(target.to_owned(), says);
    }
    let served = isolate.get("/home");
    assert!(served.took_us < 900_000, "{} us", served.took_us);
    // To look, to seed, to lock: 40 ms each, whatever the number of parts.
    assert_eq!(served.get("server-timing"), "redis;dur=120, origin;dur=700");
    assert_eq!(served.redis_us, 120_000);
}

/// Values of other services are parts too: one trip more for all of them, once.
#[test]
fn values_of_other_services_are_parts() {
    let (world, isolate, _) = world();
    isolate.get_settled("/home");
    for (_, key) in TOPS {
        world.redis.set_px(world.sim.now_us(), key, "[7]", 30_000);
    }
    let adopted = isolate.get_settled("/home");
    assert_eq!(adopted.trips, 2);
    assert_eq!(
        adopted.json()["sliders"],
        json!({ "2": [7], "a \"b\" é": [7], "1": [7] })
    );
    assert_eq!(adopted.cache_status(), "edgeweir; hit; ttl=29; detail=l2");
    let known = isolate.get("/home");
    assert_eq!((known.trips, known.text()), (1, adopted.text()));
    assert_eq!(known.cache_status(), "edgeweir; hit; ttl=29; detail=l2");
}

/// Whatever each part's origin says and Redis holds: valid JSON, the right parts right.
#[test]
fn the_whole_is_valid_json_in_every_weather() {
    let first = first_seed();
    println!("seeds {first}..{}", first + 120);
    for seed in first..first + 120 {
        let mut rng = Rng::new(seed);
        let (world, isolate, instead) = world();
        let bodies: [&[u8]; 8] = [
            b"{}",
            b" [1, 2]\n",
            b"\"\\u0000\"",
            b"1e9",
            b"{",
            b"\xff",
            b"",
            b"null null",
        ];
        for round in 0..3 {
            for target in TOPS.map(|(target, _)| target).into_iter().chain(["/tree"]) {
                let status = rng.pick(&[200, 200, 200, 404, 500]);
                let says = Says {
                    breaks: rng.chance(10),
                    refuses: rng.chance(10),
                    ..Says::new(status, rng.pick(&bodies)).after(rng.between(0, 50))
                };
                instead.borrow_mut().insert(target.to_owned(), says);
            }
            if rng.chance(40) {
                let (_, key) = rng.pick(&TOPS);
                let junk = rng.pick(&bodies);
                world.redis.set_px(
                    world.sim.now_us(),
                    rng.pick(&[key, "tree:all"]),
                    junk,
                    9_000,
                );
                world
                    .redis
                    .set_px(world.sim.now_us(), &format!("meta:{key}"), junk, 9_000);
            }
            let served = isolate.get_settled("/home");
            assert_eq!(served.status, 200, "seed {seed}, round {round}");
            let whole = served.json();
            let sliders = whole["sliders"].as_object().unwrap();
            assert_eq!(
                (whole.as_object().unwrap().len(), sliders.len()),
                (3, 3),
                "seed {seed}"
            );
            assert_eq!(
                whole["zebra"], whole["again"],
                "seed {seed}: one entry, two parts"
            );
            let nulls = sliders
                .values()
                .chain([&whole["zebra"]])
                .any(Value::is_null);
            let is_named = served.cache_status().contains("detail=\"failed ");
            assert_eq!(nulls, is_named, "seed {seed}: {}", served.cache_status());
            world.pass(rng.between(0, 70_000));
        }
    }
}
