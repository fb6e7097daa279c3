//! Purges that are hard to lose: by any spelling of a path, and through an outage.

use std::cell::Cell;
use std::rc::Rc;

use edgeweir::policy::Policy;
use edgeweir::redis::{Batch, RedisErrorKind, Word};
use serde_json::json;

use super::sim::{Fault, Passage, first_seed};
use super::world::{Ask, Isolate, Says, World, policy};

fn shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "book", "match": "GET /books/{id}", "cache": {
                "key": "book:{id}", "ttl": "10m", "tags": ["books"] } },
            { "name": "write", "match": "PATCH /books/{id}", "purge": { "keys": ["book:{id}"] } },
            { "name": "clear", "match": "DELETE /books", "purge": { "tags": ["books"] } },
            { "name": "any", "match": "PATCH /{rest...}" },
        ],
    }))
}

/// An origin that says the next version with each read.
fn world() -> Rc<World> {
    let world = World::new(first_seed());
    let mut version = 0;
    world.origin(move |asked| {
        version += u32::from(asked.method == "GET");
        Says::json(&json!(version))
    });
    world
}

/// A purge as it goes to Redis; a fill's own trips only ever seed generations.
fn is_purge(batch: &Batch) -> bool {
    let is = |word: Option<&Word>, text: &'static str| word == Some(&Word::from(text));
    let sets = |words: &[Word]| is(words.first(), "SET") && is(words.get(3), "EX");
    batch.commands.iter().any(|command| sets(command.words()))
}

/// The generations that purges renewed.
fn purged(world: &World) -> Vec<String> {
    let ran = world.redis.ran.borrow();
    let renewed = ran
        .iter()
        .filter(|ran| ran.words.contains(&"EX".to_owned()));
    renewed.map(|ran| ran.words[1].clone()).collect()
}

/// A spelling that an origin may fold into the route's path purges what the route does.
#[test]
fn a_write_to_a_folded_spelling_purges_like_the_route() {
    for target in [
        "/books/7",
        "/books/7/",
        "//books/7",
        "/books/%37/",
        "/books;v=1/7",
        "/books%2F7",
    ] {
        let world = world();
        let (isolate, other) = (world.isolate(shop()), world.isolate(shop()));
        assert_eq!(isolate.get_settled("/books/7").text(), "1");
        assert_eq!(isolate.ask(Ask::new("PATCH", target)).status, 200);
        assert_eq!(purged(&world), ["gen:key:book:7"], "{target}");
        let next = other.get("/books/7");
        assert_eq!(
            (next.text(), next.cache_status()),
            ("2", "edgeweir; fwd=miss; stored"),
            "{target}"
        );
    }
}

/// A wildcard that matches the path itself and purges keeps to its own purge.
#[test]
fn a_route_of_its_own_keeps_its_own_purge() {
    let world = world();
    let isolate = world.isolate(policy(&json!({
        "defaults": { "limit": [] },
        "route": [
            { "name": "write", "match": "PATCH /books/{id}", "purge": { "keys": ["book:{id}"] } },
            { "name": "any", "match": "PATCH /{rest...}", "purge": { "tags": ["of:{rest}"] } },
        ],
    })));
    isolate.ask(Ask::new("PATCH", "/books/7/"));
    assert_eq!(purged(&world), ["gen:of:books%2F7%2F"]);
    world.redis.ran.borrow_mut().clear();
    isolate.ask(Ask::new("PATCH", "//books/7"));
    assert_eq!(
        purged(&world),
        ["gen:key:book:7"],
        "hostile: no route's own"
    );
}

/// A Redis of which purges alone fail while it is down for them.
#[derive(Clone)]
struct Losing {
    is_down: Rc<Cell<bool>>,
    /// How many purges were sent, and how many more that insisted.
    sent: Rc<Cell<(u32, u32)>>,
}

fn losing_purges(world: &World) -> Losing {
    let losing = Losing {
        is_down: Rc::new(Cell::new(true)),
        sent: Rc::default(),
    };
    let Losing { is_down, sent } = losing.clone();
    world.network(move |batch| {
        let mut passage = Passage::new(500, 500);
        if is_purge(batch) {
            let (first, again) = sent.get();
            sent.set(match batch.insists {
                false => (first + 1, again),
                true => (first, again + 1),
            });
            if is_down.get() {
                passage.fault = Fault::Before(RedisErrorKind::Transport);
            }
        }
        passage
    });
    losing
}

fn fill(isolate: &Isolate) {
    assert_eq!(isolate.get_settled("/books/7").text(), "1");
    assert!(isolate.get("/books/7").cache_status().contains("hit"));
}

/// While a purge is tried again this isolate knows better than Redis, which is back and
/// has the old entry; once the purge is through it is asked again.
#[test]
fn what_waits_for_its_purge_is_never_served() {
    for write in [Ask::new("PATCH", "/books/7"), Ask::new("DELETE", "/books")] {
        let world = world();
        let isolate = world.isolate(shop());
        fill(&isolate);
        let losing = losing_purges(&world);
        assert_eq!(isolate.ask(write.clone()).status, 200);
        for version in 2..12 {
            let served = isolate.get("/books/7");
            assert_eq!(
                (served.text(), served.cache_status()),
                (
                    version.to_string().as_str(),
                    "edgeweir; fwd=miss; detail=redis"
                ),
                "{write:?}"
            );
            world.pass(850);
        }
        // Nine seconds on: after 0.2, 1.2 and 4.2 s it was tried, and after 9.2 s it will be.
        losing.is_down.set(false);
        world.settle();
        assert_eq!(
            losing.sent.get(),
            (1, 4),
            "the last one got through: {write:?}"
        );
        assert_eq!(
            isolate.get_settled("/books/7").cache_status(),
            "edgeweir; fwd=miss; stored"
        );
        assert!(isolate.get("/books/7").cache_status().contains("hit"));
        let log = world.log.borrow();
        assert!(!log.iter().any(|line| line.contains("given up")), "{log:?}");
    }
}

/// A purge that never gets through is told of once it is given up.
#[test]
fn a_purge_that_is_given_up_is_logged() {
    let world = world();
    let isolate = world.isolate(shop());
    fill(&isolate);
    let losing = losing_purges(&world);
    isolate.ask(Ask::new("PATCH", "/books/7"));
    world.pass(16_000);
    let is_told = || {
        let log = world.log.borrow();
        log.iter().any(|line| line.contains("a purge is given up"))
    };
    assert!(!is_told());
    assert!(isolate.get("/books/7").cache_status().contains("fwd=miss"));
    world.settle();
    assert_eq!(losing.sent.get(), (1, 5));
    assert!(is_told());
}
