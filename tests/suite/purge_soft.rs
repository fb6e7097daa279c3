//! Soft purges: stale at once, served while one fetches anew and while the origin fails, and
//! no longer than the entry would have been served at all.

use std::cell::Cell;
use std::rc::Rc;

use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::policy::Policy;
use edgeweir::redis::RedisErrorKind;
use serde_json::{Value, json};

use super::sim::{Fault, Passage, first_seed};
use super::world::{Ask, Isolate, Says, Served, World, policy};

fn shop() -> Policy {
    let route = |name: &str, cache: Value| json!({ "name": name, "match": format!("GET /{name}/{{id}}"), "cache": cache });
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            route("book", json!({ "key": "book:{id}", "ttl": "10m", "stale": "1h", "tags": ["books"], "negative": "5m" })),
            route("short", json!({ "key": "short:{id}", "ttl": "10m", "tags": ["books"] })),
            route("page", json!({ "mode": "http", "stale": "1h", "tags": ["books"] })),
            route("strict", json!({ "mode": "http", "tags": ["books"] })),
            { "name": "put", "match": "PUT /short/{id}", "purge": { "tags": ["books"], "mode": "soft" }, "fill": "short" },
            { "name": "write", "match": "PATCH /book/{id}", "purge": { "keys": ["book:{id}"], "mode": "soft" } },
        ],
    }))
}

/// An origin that says the next version with each read, unless it is broken.
struct Stage {
    world: Rc<World>,
    is_broken: Rc<Cell<bool>>,
}

fn stage() -> Stage {
    let world = World::new(first_seed());
    let is_broken = Rc::new(Cell::new(false));
    let (mut version, broken) = (0, is_broken.clone());
    world.origin(move |asked| {
        if broken.get() {
            return Says::refused();
        }
        version += u32::from(asked.method == "GET");
        let says = Says::json(&json!(version)).header("cache-control", "max-age=600");
        says.header("etag", &format!("\"{version}\""))
    });
    Stage { world, is_broken }
}

impl Stage {
    fn isolate(&self) -> Isolate {
        let settings = Settings {
            admin_token: Some(Secret::new("t")),
            ..Settings::default()
        };
        self.world.isolate_with(shop(), settings)
    }
}

fn purge(isolate: &Isolate, body: &Value) -> Served {
    let ask = Ask::new("POST", "/-/purge").header("authorization", "Bearer t");
    let served = isolate.ask(ask.body(body.to_string()));
    assert_eq!(served.status, 200, "{}", served.text());
    served
}

fn told(served: &Served) -> (&str, &str) {
    (served.text(), served.cache_status())
}

const STALE: &str = "edgeweir; hit; ttl=-1; detail=stale";

/// By tag, key and prefix: the old one at once to everybody, one fetch, then the new one.
#[test]
fn what_is_purged_softly_is_served_stale_while_one_fetches_it() {
    for body in [
        json!({ "tags": ["books"], "mode": "soft" }),
        json!({ "keys": ["book:7"], "mode": "soft" }),
        json!({ "prefix": "book:", "mode": "soft" }),
    ] {
        let stage = stage();
        let isolates = [stage.isolate(), stage.isolate()];
        assert_eq!(isolates[0].get_settled("/book/7").text(), "1");
        let report = purge(&isolates[1], &body).json();
        assert_eq!(report["mode"], json!("soft"));
        let slots: Vec<_> = (0..40)
            .map(|n| isolates[n % 2].send(Ask::get("/book/7")).1)
            .collect();
        for slot in slots {
            let served = stage.world.sim.block_on(slot.wait());
            assert_eq!(told(&served), ("1", STALE), "{body}");
        }
        stage.world.settle();
        assert_eq!(stage.world.asked_for("/book/7"), 2, "one refresher: {body}");
        for isolate in &isolates {
            let served = isolate.get_settled("/book/7");
            assert_eq!(
                told(&served),
                ("2", "edgeweir; hit; ttl=599; detail=l2"),
                "{body}"
            );
        }
        assert_eq!(stage.world.immortal_keys(), [""; 0]);
    }
}

/// A route's `purge` may be soft too: the writer's next read is stale, the one after it new.
#[test]
fn a_write_may_purge_softly() {
    let stage = stage();
    let isolate = stage.isolate();
    isolate.get_settled("/book/7");
    assert_eq!(isolate.ask(Ask::new("PATCH", "/book/7")).status, 200);
    assert_eq!(told(&isolate.get_settled("/book/7")), ("1", STALE));
    assert_eq!(isolate.get_settled("/book/7").text(), "2");
}

/// While the origin fails the old one stays, as long as its `stale` lets it.
#[test]
fn what_is_purged_softly_stays_while_the_origin_fails() {
    let stage = stage();
    let isolate = stage.isolate();
    isolate.get_settled("/book/7");
    purge(&isolate, &json!({ "tags": ["books"], "mode": "soft" }));
    stage.is_broken.set(true);
    for _ in 0..3 {
        assert_eq!(told(&isolate.get_settled("/book/7")), ("1", STALE));
        stage.world.pass(2_000);
    }
    stage.world.pass(4_300_000);
    assert_eq!(isolate.get_settled("/book/7").status, 502);
    stage.is_broken.set(false);
    stage.world.pass(2_000);
    assert_eq!(isolate.get_settled("/book/7").text(), "2");
}

/// Without `stale` the old one is served as long as it would have been fresh.
#[test]
fn without_stale_it_is_served_for_its_ttl() {
    let stage = stage();
    let isolate = stage.isolate();
    isolate.get_settled("/short/7");
    purge(&isolate, &json!({ "tags": ["books"], "mode": "soft" }));
    stage.is_broken.set(true);
    assert_eq!(told(&isolate.get_settled("/short/7")), ("1", STALE));
    stage.world.pass(600_000);
    assert_eq!(isolate.get_settled("/short/7").status, 502);
}

/// A hard purge ends what a soft one left, in whichever order they come.
#[test]
fn a_hard_purge_beats_a_soft_one() {
    for modes in [["soft", "hard"], ["hard", "soft"]] {
        let stage = stage();
        let isolate = stage.isolate();
        isolate.get_settled("/book/7");
        for mode in modes {
            purge(&isolate, &json!({ "tags": ["books"], "mode": mode }));
        }
        let served = isolate.get_settled("/book/7");
        assert_eq!(
            told(&served),
            ("2", "edgeweir; fwd=miss; stored"),
            "{modes:?}"
        );
    }
}

/// In `http` mode what the policy or the origin lets be stale is served so, and all else is
/// asked for again before it is served.
#[test]
fn in_http_mode_it_is_stale_by_the_rules_of_http() {
    let stage = stage();
    let isolate = stage.isolate();
    for target in ["/page/7", "/strict/7"] {
        isolate.get_settled(target);
        assert!(
            isolate
                .get_settled(target)
                .cache_status()
                .contains("; hit; ")
        );
    }
    purge(&isolate, &json!({ "prefix": "http:", "mode": "soft" }));
    let served = isolate.get_settled("/page/7");
    assert_eq!(served.text(), "1");
    assert!(
        served.cache_status().contains("hit; ttl=-1"),
        "{}",
        served.cache_status()
    );
    assert_eq!(isolate.get_settled("/page/7").text(), "3");
    let served = isolate.get_settled("/strict/7");
    assert_eq!(served.text(), "4");
    assert!(
        served.cache_status().contains("fwd=stale"),
        "{}",
        served.cache_status()
    );
    let last = stage.world.asked.borrow().last().cloned().unwrap();
    assert_eq!(
        last.headers.get("if-none-match"),
        Some("\"2\""),
        "it is validated"
    );
    assert!(
        isolate
            .get_settled("/strict/7")
            .cache_status()
            .contains("; hit; ")
    );
}

/// A negative answer is stale too, and a value of another service stays as it is.
#[test]
fn negative_answers_are_stale_and_others_values_stay() {
    let stage = stage();
    let isolate = stage.isolate();
    stage.world.origin(|_| Says::new(404, "none"));
    assert_eq!(isolate.get_settled("/book/7").status, 404);
    stage.world.origin(|_| Says::json(&json!("now")));
    purge(&isolate, &json!({ "keys": ["book:7"], "mode": "soft" }));
    let served = isolate.get_settled("/book/7");
    assert_eq!((served.status, served.cache_status()), (404, STALE));
    assert_eq!(isolate.get_settled("/book/7").text(), "\"now\"");
    stage.world.redis.set_px(
        stage.world.sim.now_us(),
        "book:8",
        "{\"by\":\"backend\"}",
        60_000,
    );
    purge(&isolate, &json!({ "keys": ["book:8"], "mode": "soft" }));
    assert_eq!(
        isolate.get_settled("/book/8").text(),
        "{\"by\":\"backend\"}"
    );
    purge(&isolate, &json!({ "keys": ["book:8"] }));
    assert_eq!(isolate.get_settled("/book/8").text(), "\"now\"");
}

/// A soft purge that Redis did not confirm is tried again, and until then nothing that it
/// covers passes for fresh; when neither Redis nor the origin answers, it is served in need.
#[test]
fn a_soft_purge_is_tried_again_too() {
    let stage = stage();
    let isolate = stage.isolate();
    isolate.get_settled("/book/7");
    let is_down = Rc::new(Cell::new(true));
    let down = is_down.clone();
    stage.world.network(move |batch| {
        let mut passage = Passage::new(500, 500);
        if down.get() && format!("{batch:?}").contains("APPEND") {
            passage.fault = Fault::Before(RedisErrorKind::Transport);
        }
        passage
    });
    assert_eq!(isolate.ask(Ask::new("PATCH", "/book/7")).status, 200);
    let served = isolate.get("/book/7");
    assert_eq!(told(&served), ("2", "edgeweir; fwd=miss; detail=redis"));
    is_down.set(false);
    stage.world.settle();
    assert_eq!(told(&isolate.get_settled("/book/7")), ("1", STALE));
    assert_eq!(isolate.get_settled("/book/7").text(), "3");
}

/// Soft purges without end: every one holds, and what they write stays short.
#[test]
fn generations_stay_short_however_often_they_are_purged_softly() {
    let stage = stage();
    let isolate = stage.isolate();
    for _ in 0..60 {
        isolate.get_settled("/book/7");
        purge(&isolate, &json!({ "tags": ["books"], "mode": "soft" }));
        stage.world.settle();
        let served = isolate.get_settled("/book/7");
        assert!(
            !served.cache_status().contains("; hit; ttl=5"),
            "{}",
            served.cache_status()
        );
        let generation = stage.world.redis.get("gen:books").unwrap();
        assert!(generation.len() <= 400, "{}", generation.len());
    }
    assert_eq!(stage.world.immortal_keys(), [""; 0]);
}

/// What a write fills is fresh for everybody; the other entries of its tags are stale, not gone.
#[test]
fn a_soft_purge_with_a_fill_keeps_the_others() {
    let stage = stage();
    let isolate = stage.isolate();
    isolate.get_settled("/book/1");
    isolate.get_settled("/short/1");
    let put = isolate.ask(Ask::new("PUT", "/short/1").body("{}"));
    assert_eq!(put.status, 200);
    let filled = isolate.get("/short/1");
    assert_eq!(
        (filled.text(), filled.cache_status()),
        (put.text(), "edgeweir; hit; ttl=599; detail=l2")
    );
    let asked = stage.world.asked_for("/book/1");
    let other = isolate.get_settled("/book/1");
    assert!(
        other.cache_status().contains("; hit; ttl="),
        "{}",
        other.cache_status()
    );
    assert_eq!(other.text(), "1");
    assert_eq!(
        stage.world.asked_for("/book/1"),
        asked + 1,
        "and one fetches it anew"
    );
}
