//! Answers that cannot be shared, and origins that fail. Stale entries are in `fill_stale`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use edgeweir::policy::Policy;
use serde_json::json;

use super::sim::{Passage, first_seed};
use super::world::{Ask, Isolate, Says, World, policy};

pub const BODY: &str = r#"{"books":[]}"#;

fn listings() -> Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "top", "match": "GET /top", "cache": {
                "key": "top:all", "ttl": "1m", "stale": "1m", "tags": ["books"] } },
            { "name": "book", "match": "GET /books/{id}", "cache": {
                "key": "books:{id}", "ttl": "1m", "negative": "10s", "max_size": "1KB" } },
        ],
    }))
}

pub fn world_with(says: impl Fn() -> Says + 'static) -> (Rc<World>, Isolate, Isolate) {
    let world = World::new(first_seed());
    world.origin(move |_| says());
    let (one, other) = (world.isolate(listings()), world.isolate(listings()));
    (world, one, other)
}

/// What may not be stored is passed on as it is, and says why.
#[test]
fn uncacheable_answers_are_passed_on_and_say_why() {
    let large = format!("\"{}\"", "x".repeat(1_100));
    let cases: Vec<(Says, &str)> = vec![
        (
            Says::new(200, BODY).header("set-cookie", "a=b"),
            "set-cookie",
        ),
        (
            Says::new(200, BODY).header("cache-control", "max-age=9, Private"),
            "cache-control",
        ),
        (
            Says::new(200, BODY).header("cache-control", "no-store"),
            "cache-control",
        ),
        (
            Says::new(200, BODY).header("cache-control", "private=\"x-a, x-b\""),
            "cache-control",
        ),
        (
            Says::new(200, BODY).header("vary", "Accept-Encoding, Cookie"),
            "vary",
        ),
        (Says::new(200, BODY).header("vary", "*"), "vary"),
        (
            Says::new(200, BODY).header("x-long", &"x".repeat(8_200)),
            "too-large",
        ),
        (Says::new(200, large.clone()), "too-large"),
        (
            Says::new(200, large).header("content-length", "1102"),
            "too-large",
        ),
        (Says::new(200, "<p>hello</p>"), "not-json"),
        (Says::new(200, ""), "not-json"),
        (Says::new(200, b"\"\xff\"".to_vec()), "not-json"),
        (Says::new(204, ""), "status"),
        (Says::new(206, "[1]"), "status"),
        (
            Says::new(301, "").header("location", "/elsewhere"),
            "status",
        ),
        (Says::new(500, "{\"error\":1}"), "status"),
        (Says::new(403, "{}"), "status"),
    ];
    for (says, why) in cases {
        let script = says.clone();
        let (world, isolate, _) = world_with(move || script.clone());
        let served = isolate.get_settled("/books/7");
        assert_eq!(served.status, says.status, "{why}");
        assert_eq!(served.body, says.body, "{why}");
        for (name, value) in says
            .headers
            .iter()
            .filter(|(name, _)| *name != "content-length")
        {
            let values: Vec<&str> = served.headers.get_all(name).collect();
            assert_eq!(values, [value], "{why}: {name}");
        }
        assert_eq!(
            served.cache_status(),
            format!("edgeweir; fwd=miss; detail={why}")
        );
        assert!(world.redis.get("books:7").is_none() && world.redis.get("meta:books:7").is_none());
    }
}

/// Accept-Encoding alone in Vary, and directives that do not forbid it, are stored.
#[test]
fn what_nothing_forbids_is_stored() {
    for says in [
        Says::new(200, BODY).header("vary", "accept-encoding"),
        Says::new(200, BODY).header("cache-control", "no-cache, max-age=0"),
        Says::new(200, BODY).header("cache-control", "x-private=1"),
        Says::new(200, format!("\"{}\"", "x".repeat(1_022))),
    ] {
        let (world, isolate, _) = world_with(move || says.clone());
        let stored = isolate.get_settled("/books/7");
        assert_eq!(
            stored.cache_status(),
            "edgeweir; fwd=miss; stored",
            "{stored:?}"
        );
        assert_eq!(
            isolate.get("/books/7").cache_status(),
            "edgeweir; hit; ttl=59; detail=l2"
        );
        assert_eq!(world.asked_for("/books/7"), 1);
    }
}

/// 404 and 410 are kept for their own time, and never under the shared key.
#[test]
fn negative_answers_are_kept_apart_for_their_own_time() {
    for status in [404, 410] {
        let (world, isolate, other) = world_with(move || Says::new(status, "no such book"));
        let missed = isolate.get_settled("/books/7");
        assert_eq!((missed.status, missed.text()), (status, "no such book"));
        assert_eq!(missed.cache_status(), "edgeweir; fwd=miss; stored");
        assert_eq!(world.redis.get("books:7"), None);
        let hit = other.get("/books/7");
        assert_eq!(
            (hit.status, hit.text(), hit.trips),
            (status, "no such book", 1)
        );
        assert_eq!(hit.cache_status(), "edgeweir; hit; ttl=9; detail=l2");
        world.pass(10_000);
        assert_eq!(
            other.get_settled("/books/7").cache_status(),
            "edgeweir; fwd=miss; stored"
        );
        // A route without `negative` asks each time.
        assert_eq!(
            isolate.get_settled("/top").cache_status(),
            "edgeweir; fwd=miss; detail=status"
        );
        assert_eq!(world.redis.get("meta:top:all"), None);
    }
}

/// Nobody queues behind an answer that cannot be shared, here or on another isolate.
#[test]
fn uncacheable_answers_never_queue() {
    let (world, one, other) = world_with(|| {
        Says::new(200, BODY)
            .header("cache-control", "private")
            .after(300)
    });
    let first = one.crowd("/top", 20);
    assert!(first.iter().all(|served| served.status == 200));
    world.settle();
    for (isolate, trips) in [(&one, 1), (&other, 2), (&other, 1)] {
        for served in isolate.crowd("/top", 20) {
            assert_eq!((served.status, served.text()), (200, BODY));
            assert!(served.trips <= trips, "{} trips", served.trips);
            assert!(served.took_us < 320_000, "waited {} us", served.took_us);
        }
        world.settle();
    }
    assert_eq!(world.asked_for("/top"), 80);
    // After a while it may have become shareable.
    world.origin(|_| Says::new(200, BODY));
    world.pass(5_000);
    assert_eq!(
        one.get_settled("/top").cache_status(),
        "edgeweir; fwd=miss; stored"
    );
    assert!(
        other
            .get("/top")
            .cache_status()
            .starts_with("edgeweir; hit")
    );
}

/// An origin that fails is asked once for all that wait, and at most once a second.
#[test]
fn a_failing_origin_is_asked_once_by_many() {
    let breaks = Says {
        breaks: true,
        ..Says::new(200, BODY).after(100)
    };
    for (says, status, detail) in [
        (
            Says::refused().after(100),
            502,
            "The origin could not be reached.",
        ),
        (breaks, 502, "The origin could not be reached."),
        (
            Says::new(200, BODY).after(60_000),
            504,
            "The origin did not answer in time.",
        ),
    ] {
        let (world, one, other) = world_with(move || says.clone());
        // Slow trips: a leader's deadline is later than that of those who wait.
        world.network(|_| Passage::new(30_000, 30_000));
        let slots: Vec<_> = [&one, &other, &one, &other]
            .into_iter()
            .flat_map(|isolate| (0..25).map(|_| isolate.send(Ask::get("/top")).1))
            .collect();
        for slot in slots {
            let served = world.sim.block_on(slot.wait());
            assert_eq!(
                (served.status, served.get("content-type")),
                (status, "application/problem+json")
            );
            assert_eq!(served.json()["detail"], detail);
            assert!(
                served.took_us < 2_500_000,
                "{status}: waited {} us",
                served.took_us
            );
        }
        assert_eq!(world.asked_for("/top"), 1, "{status}");
        world.settle();
        for isolate in [&one, &other] {
            let again = isolate.get("/top");
            assert_eq!(again.status, status);
            assert!(again.took_us < 130_000, "{status}: the failure is known");
        }
        assert_eq!(world.asked_for("/top"), 1, "{status}");
        world.settle();
        world.pass(1_000);
        world.origin(|_| Says::new(200, BODY));
        assert_eq!(one.get("/top").status, 200, "asked again after a second");
    }
}

/// The timeout is for an answer's headers: a body that takes longer is passed on as it
/// comes, and nobody waits for it again.
#[test]
fn a_body_that_is_slow_is_passed_on_unstored() {
    let (world, one, other) = world_with(|| Says {
        body_ms: 60_000,
        ..Says::new(200, BODY)
    });
    let served = one.get_settled("/top");
    assert_eq!((served.status, served.took_us), (200, 2_023_000));
    assert!(served.is_streamed);
    assert_eq!(
        served.cache_status(),
        "edgeweir; fwd=miss; detail=slow-body"
    );
    assert_eq!(world.asked_for("/top"), 1);
    for isolate in [&one, &other] {
        assert!(isolate.get("/top").took_us < 100_000);
    }
    assert_eq!(world.redis.get("top:all"), None);
}

/// Somebody else's fill that takes far longer than usual is not waited for.
#[test]
fn patience_ends_after_four_usual_fetches_and_at_least_a_second() {
    let after_ms = Rc::new(Cell::new(50));
    let script = after_ms.clone();
    let (world, one, other) = world_with(move || Says::new(200, BODY).after(script.get()));
    for isolate in [&one, &other] {
        world.redis.flush(world.sim.now_us());
        isolate.get_settled("/top");
    }
    world.redis.flush(world.sim.now_us());
    after_ms.set(1_900);
    let (_, leader) = one.send(Ask::get("/top"));
    world.pass(10);
    after_ms.set(50);
    let followers = [&one, &other].map(|isolate| isolate.send(Ask::get("/top")).1);
    for follower in followers {
        let served = world.sim.block_on(follower.wait());
        assert_eq!(served.cache_status(), "edgeweir; fwd=miss; detail=slow");
        assert!(
            (1_040_000..1_300_000).contains(&served.took_us),
            "{} us",
            served.took_us
        );
    }
    let leader = world.sim.block_on(leader.wait());
    assert_eq!(leader.cache_status(), "edgeweir; fwd=miss; stored");
}

/// An origin that recovers is noticed a second later, although its errors were remembered.
#[test]
fn a_recovered_origin_is_served_again() {
    let is_down = Rc::new(Cell::new(true));
    let script = is_down.clone();
    let seen: Rc<RefCell<Vec<u16>>> = Rc::default();
    let (world, one, _) = world_with(move || match script.get() {
        true => Says::new(503, "{}"),
        false => Says::new(200, BODY),
    });
    for step in 0..4 {
        is_down.set(step < 2);
        seen.borrow_mut().push(one.get_settled("/top").status);
        world.pass(1_000);
    }
    assert_eq!(*seen.borrow(), [503, 503, 200, 200]);
}
