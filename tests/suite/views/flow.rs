//! Views through the whole gateway: what is counted and how, what is shown, and what happens
//! without Redis or without the origin.

use std::cell::Cell;
use std::rc::Rc;

use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::policy::Switch;
use edgeweir::redis::{Batch, RedisErrorKind};
use edgeweir::views::sync::MAX_REQUESTS;
use serde_json::{Value, json};

use super::super::sim::{Fault, Passage, first_seed};
use super::super::world::{Ask, Asked, Isolate, Says, Served, World, policy};

const BATCH: &str = "/internal/views/batch";

fn shop() -> edgeweir::policy::Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "read", "match": "GET /s/{story}/c/{chapter}", "view": { "story": "{story}", "chapter": "{chapter}" } },
            { "name": "book", "match": "GET /books/{id}", "view": { "book": "{id}", "merge": "total_views" },
              "cache": { "key": "book:{id}", "ttl": "10m", "tags": ["books"] } },
            { "name": "list", "match": "GET /list", "view": { "merge": { "field": "total_views", "kind": "book", "id": "book_id" } },
              "cache": { "key": "list", "ttl": "10m", "tags": ["books"] } },
            { "name": "search", "match": "GET /search", "view": { "term": "{q}" },
              "cache": { "key": "search:{q}", "query": ["q"], "ttl": "10m", "tags": ["books"] } },
            { "name": "post", "match": "POST /seen/{id}", "view": { "book": "{id}" } },
        ],
    }))
}

fn says(asked: &Asked) -> Says {
    match asked.target.as_str() {
        BATCH => Says::json(&json!({})),
        "/s/404/c/1" => Says::new(404, "{}"),
        "/list" => Says::json(
            &json!({ "books": [{ "book_id": "1", "total_views": 10 }, { "book_id": "2", "total_views": 20 }] }),
        ),
        _ => Says::json(&json!({ "total_views": 100, "rating": 4.5 })),
    }
}

fn with(settings: Settings) -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    world.origin(says);
    let settings = Settings {
        admin_token: Some(Secret::new("admin-token")),
        hash_key: Some(Secret::new("key")),
        ..settings
    };
    let isolate = world.isolate_with(shop(), settings);
    (world, isolate)
}

/// Another isolate of the same deployment.
fn another(world: &Rc<World>) -> Isolate {
    let hash_key = Some(Secret::new("key"));
    world.isolate_with(
        shop(),
        Settings {
            hash_key,
            ..Settings::default()
        },
    )
}

fn world() -> (Rc<World>, Isolate) {
    with(Settings::default())
}

fn read(isolate: &Isolate, target: &str, ip: &str) -> Served {
    let served = isolate.ask(Ask::get(target).header("cf-connecting-ip", ip));
    isolate.world.settle();
    served
}

fn pending(isolate: &Isolate, item: &str) -> Value {
    let served = isolate.get(&format!("/-/views/{item}"));
    assert_eq!(served.status, 200, "{}", served.text());
    served.json()
}

fn sync(isolate: &Isolate) -> Served {
    isolate.ask(Ask::new("POST", "/-/views/sync").header("authorization", "Bearer admin-token"))
}

fn batches(world: &World) -> Vec<Value> {
    let asked = world.asked.borrow();
    let batches = asked.iter().filter(|asked| asked.target == BATCH);
    batches
        .map(|asked| {
            assert_eq!(asked.method, "POST");
            let body: Value = serde_json::from_slice(&asked.body).unwrap();
            assert_eq!(asked.headers.get("idempotency-key"), body["batch"].as_str());
            assert!(!asked.headers.contains("x-forwarded-for"));
            body
        })
        .collect()
}

/// Once a viewer, item and day, from any isolate; both items of a request, from hits too.
#[test]
fn a_reader_counts_once_for_each_item() {
    let (world, isolate) = world();
    let other = another(&world);
    for isolate in [&isolate, &other, &isolate] {
        for target in ["/s/1/c/1", "/s/1/c/2"] {
            read(isolate, target, "192.0.2.1");
        }
    }
    read(&isolate, "/s/1/c/1", "192.0.2.2");
    assert_eq!(
        pending(&isolate, "story/1"),
        json!({ "pending": 2, "total": null })
    );
    assert_eq!(pending(&isolate, "chapter/1")["pending"], 2);
    assert_eq!(pending(&isolate, "chapter/2")["pending"], 1);
    for ip in 1..=5 {
        let served = read(&isolate, "/books/7", &format!("192.0.2.{ip}"));
        assert_eq!(
            served.cache_status().contains("hit"),
            ip > 1,
            "{}",
            served.cache_status()
        );
    }
    assert_eq!(pending(&isolate, "book/7")["pending"], 5);
    // Addresses are nowhere in Redis.
    for ran in world.redis.ran.borrow().iter() {
        let text = ran.words.join(" ");
        assert!(
            !text.contains("views:") || !text.contains("192.0.2"),
            "{text}"
        );
    }
}

/// HEAD, bots and whatever is no 2xx are not counted; other methods are, where the policy
/// says so; a listed query parameter may be the item.
#[test]
fn only_readers_who_got_something_count() {
    let (world, isolate) = world();
    isolate.ask(Ask::new("HEAD", "/s/1/c/1"));
    isolate
        .ask(Ask::get("/s/1/c/1").header("user-agent", "Mozilla/5.0 (compatible; GoogleBot/2.1)"));
    isolate.get("/s/404/c/1");
    isolate.get("/search");
    let long = "x".repeat(129);
    isolate.get(&format!("/s/{long}/c/9"));
    world.settle();
    assert_eq!(pending(&isolate, "story/1")["pending"], 0);
    assert_eq!(pending(&isolate, "story/404")["pending"], 0);
    assert_eq!(
        pending(&isolate, "chapter/9")["pending"],
        1,
        "the id beside it is too long"
    );
    isolate.ask(Ask::get("/s/1/c/1").header("user-agent", "curl/8.5.0"));
    isolate.ask(Ask::new("POST", "/seen/3"));
    isolate.get("/search?q=a%3Ab");
    world.settle();
    assert_eq!(pending(&isolate, "story/1")["pending"], 1);
    assert_eq!(pending(&isolate, "book/3")["pending"], 1);
    assert_eq!(pending(&isolate, "term/a%3Ab")["pending"], 1);
    // A 304 is none either: the reader has it.
    let etag = isolate.get("/books/1").get("etag").to_owned();
    world.settle();
    let before = pending(&isolate, "book/1");
    let ask = Ask::get("/books/1").header("cf-connecting-ip", "192.0.2.9");
    let own = isolate.ask(ask.header("if-none-match", &etag));
    world.settle();
    if own.status == 304 {
        assert_eq!(pending(&isolate, "book/1"), before);
    }
}

/// Counting is behind the answer: it waits for nothing of it, and readers of one moment
/// share a pipeline.
#[test]
fn counting_is_never_in_front_of_an_answer() {
    let (world, isolate) = world();
    world.network(|_| Passage::new(60_000, 60_000));
    let slots: Vec<_> = (1..=30)
        .map(|ip| {
            isolate
                .send(Ask::get("/s/1/c/1").header("cf-connecting-ip", &format!("192.0.2.{ip}")))
                .1
        })
        .collect();
    for slot in slots {
        let served = world.sim.block_on(slot.wait());
        assert_eq!((served.trips, served.redis_us), (0, 0));
        assert!(served.took_us < 40_000, "{}", served.took_us);
    }
    world.settle();
    let ran = world
        .redis
        .ran
        .borrow()
        .iter()
        .filter(|ran| ran.words[0] == "SADD")
        .count();
    assert_eq!(ran, 60);
    assert!(
        world.redis.trips.get() <= 8,
        "{} trips",
        world.redis.trips.get()
    );
    world.network(|_| Passage::new(500, 500));
    assert_eq!(pending(&isolate, "story/1")["pending"], 30);
}

/// Most readers of a busy time leave their views to others that wake soon. Whichever of
/// them the platform ends, it takes no other's view along.
#[test]
fn a_request_that_is_ended_takes_no_other_views_along() {
    let cases = [2, 3, 10, 40].map(|readers| (0..readers).map(move |ended| (readers, ended)));
    for (readers, ended) in cases.into_iter().flatten() {
        let (world, isolate) = world();
        let first = isolate.tasks.borrow().len();
        let read = |reader| {
            let ip = format!("192.0.2.{reader}");
            let ask = Ask::get("/s/1/c/1").header("cf-connecting-ip", &ip);
            isolate.send(ask).1
        };
        let slots: Vec<_> = (0..readers).map(read).collect();
        for slot in slots {
            world.sim.block_on(slot.wait());
        }
        isolate.end(first + ended);
        world.settle();
        let pending = pending(&isolate, "story/1")["pending"].as_u64().unwrap();
        assert_eq!(pending, readers as u64, "when {ended} is ended");
    }
}

/// `merge`: the answer carries what is pending, under a tag of its own; what is stored does
/// not, and without an answer of Redis it goes out as it is.
#[test]
fn listings_carry_what_is_pending() {
    let (world, isolate) = world();
    let first = read(&isolate, "/list", "192.0.2.1");
    assert_eq!(first.json()["books"][0]["total_views"], 10);
    for ip in 1..=3 {
        read(&isolate, "/books/1", &format!("192.0.2.{ip}"));
    }
    world.pass(2_000);
    let merged = isolate.get("/list");
    assert_eq!(merged.json()["books"][0]["total_views"], 13);
    assert_eq!(merged.json()["books"][1]["total_views"], 20);
    assert_ne!(merged.get("etag"), first.get("etag"));
    let again = isolate.ask(Ask::get("/list").header("if-none-match", merged.get("etag")));
    assert_eq!(again.status, 304);
    let old = isolate.ask(Ask::get("/list").header("if-none-match", first.get("etag")));
    assert_eq!(old.status, 200);
    let head = isolate.ask(Ask::new("HEAD", "/list"));
    assert_eq!(head.get("content-length"), merged.body.len().to_string());
    let stored: Value = serde_json::from_slice(&world.redis.get("list").unwrap()).unwrap();
    assert_eq!(stored["books"][0]["total_views"], 10);
    let own = isolate.get("/books/1");
    assert_eq!(own.text(), r#"{"rating":4.5,"total_views":103}"#);
    world.pass(2_000);
    world.network(|batch: &Batch| {
        let is_views = batch
            .commands
            .iter()
            .any(|command| format!("{command:?}").contains("views:"));
        Passage {
            fault: if is_views {
                Fault::Before(RedisErrorKind::Transport)
            } else {
                Fault::None
            },
            ..Passage::new(500, 500)
        }
    });
    let plain = isolate.get("/list");
    assert_eq!(
        (plain.status, plain.body.clone()),
        (200, first.body.clone())
    );
    assert_eq!(plain.get("etag"), first.get("etag"));
}

/// The sync by hand through the admin API, what it answers, and the totals that the origin
/// said.
#[test]
fn a_sync_by_hand_sends_what_is_pending() {
    let (world, isolate) = world();
    world.origin(|asked| match asked.target == BATCH {
        false => says(asked),
        true => {
            let body: Value = serde_json::from_slice(&asked.body).unwrap();
            let total =
                |count: &Value| json!({ "kind": count["kind"], "id": count["id"], "total": 1_000 });
            let totals: Vec<Value> = body["counts"]
                .as_array()
                .unwrap()
                .iter()
                .map(total)
                .collect();
            Says::json(&json!({ "totals": totals }))
        }
    });
    assert_eq!(isolate.ask(Ask::new("POST", "/-/views/sync")).status, 401);
    assert_eq!(isolate.ask(Ask::get("/-/views/sync")).status, 401);
    for ip in 1..=4 {
        read(&isolate, "/s/a%20b/c/1", &format!("192.0.2.{ip}"));
    }
    let metrics = |isolate: &Isolate| {
        let ask = Ask::get("/-/metrics").header("authorization", "Bearer admin-token");
        isolate.ask(ask).text().to_owned()
    };
    assert!(metrics(&isolate).contains("edgeweir_views_pending{kind=\"story\"} 4\n"));
    let served = sync(&isolate);
    assert_eq!(
        served.json(),
        json!({ "batches": 1, "items": 2, "views": 8, "left": false })
    );
    let counts = &batches(&world)[0]["counts"];
    let mut sorted = counts.as_array().unwrap().clone();
    sorted.sort_by_key(ToString::to_string);
    assert_eq!(
        Value::from(sorted),
        json!([
            { "kind": "chapter", "id": "1", "count": 4 },
            { "kind": "story", "id": "a b", "count": 4 },
        ])
    );
    assert_eq!(
        pending(&isolate, "story/a%20b"),
        json!({ "pending": 0, "total": 1_000 })
    );
    assert!(metrics(&isolate).contains("edgeweir_views_pending{kind=\"story\"} 0\n"));
    assert_eq!(sync(&isolate).json()["batches"], 0);
    // The same reader is counted already.
    read(&another(&world), "/s/a%20b/c/1", "192.0.2.1");
    assert_eq!(pending(&isolate, "story/a%20b")["pending"], 0);
}

#[test]
fn what_is_asked_wrongly_is_said() {
    let (_world, isolate) = world();
    for (target, status) in [
        ("/-/views/story/1", 200),
        ("/-/views/nobody/1", 404),
        ("/-/views/Story/1", 404),
        ("/-/views/story", 404),
        ("/-/views/", 404),
        ("/-/views/story/1/2", 404),
        ("/-/views/story/", 400),
        ("/-/views/story/%ZZ", 400),
    ] {
        let served = isolate.get(target);
        assert_eq!(served.status, status, "{target}");
        if status != 200 {
            assert_eq!(
                served.get("content-type"),
                "application/problem+json",
                "{target}"
            );
        }
    }
    let long = isolate.get(&format!("/-/views/story/{}", "x".repeat(129)));
    assert_eq!(long.status, 400);
    let post = isolate.ask(Ask::new("POST", "/-/views/story/1"));
    assert_eq!((post.status, post.get("allow")), (405, "GET, HEAD"));
}

fn refuse(world: &World, kind: RedisErrorKind, first: bool) {
    world.network(move |_| Passage {
        fault: if first {
            Fault::Before(kind)
        } else {
            Fault::After(kind)
        },
        ..Passage::new(500, 500)
    });
}

/// Redis executes nothing: the origin gets the view at once, as a batch of one whose key is
/// the same for the same viewer, item and day.
#[test]
fn without_redis_a_view_goes_straight_to_the_origin() {
    let (world, isolate) = world();
    refuse(&world, RedisErrorKind::Full, true);
    read(&isolate, "/s/1/c/2", "192.0.2.1");
    read(&another(&world), "/s/1/c/2", "192.0.2.1");
    read(&isolate, "/s/1/c/2", "192.0.2.1");
    let sent = batches(&world);
    assert_eq!(sent.len(), 4, "{sent:?}");
    assert_eq!(
        sent[0]["counts"],
        json!([{ "kind": "chapter", "id": "2", "count": 1 }])
    );
    assert_eq!(
        sent[1]["counts"],
        json!([{ "kind": "story", "id": "1", "count": 1 }])
    );
    assert_eq!((&sent[0], &sent[1]), (&sent[2], &sent[3]));
    assert_ne!(sent[0]["batch"], sent[1]["batch"]);
    read(&isolate, "/s/1/c/2", "192.0.2.2");
    assert_ne!(batches(&world)[4]["batch"], sent[0]["batch"]);
}

/// What may have run is repeated before the origin is told: here it had.
#[test]
fn an_unknown_outcome_is_tried_again_first() {
    let (world, isolate) = world();
    let failures = Rc::new(Cell::new(3));
    let left = failures.clone();
    world.network(move |batch| {
        let counts = batch
            .commands
            .iter()
            .any(|command| format!("{command:?}").contains("SADD"));
        let fails = counts && left.replace(left.get().max(1) - usize::from(counts)) > 1;
        Passage {
            fault: if fails {
                Fault::After(RedisErrorKind::Timeout)
            } else {
                Fault::None
            },
            ..Passage::new(500, 500)
        }
    });
    read(&isolate, "/s/1/c/1", "192.0.2.1");
    assert!(failures.get() <= 1);
    assert_eq!(batches(&world).len(), 0);
    assert_eq!(pending(&isolate, "story/1")["pending"], 1);
    // For good: then the origin, after some tries.
    refuse(&world, RedisErrorKind::Timeout, true);
    read(&isolate, "/s/9/c/9", "192.0.2.1");
    assert_eq!(batches(&world).len(), 2);
}

/// Switched off, Redis is not asked to count; what it has is still sent.
#[test]
fn the_switch_sends_views_straight_on() {
    let (world, isolate) = world();
    read(&isolate, "/s/1/c/1", "192.0.2.1");
    let off = Settings {
        switched_off: vec![Switch::ViewTrackingRedis],
        admin_token: Some(Secret::new("admin-token")),
        ..Settings::default()
    };
    let isolate = world.isolate_with(shop(), off);
    read(&isolate, "/s/1/c/1", "192.0.2.2");
    assert_eq!(batches(&world).len(), 2);
    assert_eq!(pending(&isolate, "story/1")["pending"], 1);
    assert_eq!(sync(&isolate).json()["views"], 2);
    assert_eq!(pending(&isolate, "story/1")["pending"], 0);
    let without = world.isolate_as(
        shop(),
        Settings {
            without_redis: true,
            admin_token: Some(Secret::new("admin-token")),
            ..Settings::default()
        },
    );
    read(&without, "/s/1/c/1", "192.0.2.3");
    assert_eq!(batches(&world).len(), 5);
    assert_eq!(
        pending(&without, "story/1"),
        json!({ "pending": 0, "total": null })
    );
    assert_eq!(sync(&without).json()["batches"], 0);
}

/// The origin is down: the sync says 502 and the buffer waits; both down: that is logged.
#[test]
fn an_origin_that_is_down_gets_everything_later() {
    let (world, isolate) = world();
    world.origin(|asked| match asked.target == BATCH {
        true => Says::new(503, "{}"),
        false => says(asked),
    });
    read(&isolate, "/s/1/c/1", "192.0.2.1");
    for _ in 0..3 {
        let served = sync(&isolate);
        assert_eq!(
            (served.status, served.get("content-type")),
            (502, "application/problem+json")
        );
    }
    assert_eq!(pending(&isolate, "story/1")["pending"], 1);
    world.origin(says);
    assert_eq!(sync(&isolate).json()["views"], 2);
    let keys: Vec<Value> = batches(&world)
        .iter()
        .map(|batch| batch["batch"].clone())
        .collect();
    assert!(
        keys.iter().all(|key| *key == keys[0]),
        "one batch each time"
    );
    world.origin(|_| Says::refused());
    refuse(&world, RedisErrorKind::Full, true);
    world.log.borrow_mut().clear();
    let served = isolate.ask(Ask::new("POST", "/seen/3"));
    assert_eq!(served.status, 502);
    world.origin(|asked| {
        if asked.target == BATCH {
            Says::refused()
        } else {
            says(asked)
        }
    });
    read(&isolate, "/s/2/c/2", "192.0.2.1");
    let log = world.log.borrow().join("\n");
    assert!(log.contains("lost"), "{log}");
    assert!(!log.contains("192.0.2.1"), "{log}");
}

/// Another run has the lock: the call waits a while and says so.
#[test]
fn a_sync_beside_another_says_so() {
    let (world, isolate) = world();
    let now_us = world.sim.now_us();
    world
        .redis
        .views
        .answer(now_us, &["SADD", "views:_lock", "another"]);
    let before = world.redis.trips.get();
    let served = sync(&isolate);
    assert_eq!(served.status, 503);
    assert!(world.redis.trips.get() - before <= u64::from(MAX_REQUESTS));
    world
        .redis
        .views
        .answer(world.sim.now_us(), &["SREM", "views:_lock", "another"]);
    assert_eq!(sync(&isolate).status, 200);
}

/// The cron's run sends, and lets the next one go on.
#[test]
fn the_cron_sends_what_is_due() {
    let (world, isolate) = world();
    read(&isolate, "/s/1/c/1", "192.0.2.1");
    isolate.cron();
    world.settle();
    assert_eq!(batches(&world).len(), 1);
    read(&isolate, "/s/1/c/1", "192.0.2.2");
    isolate.cron();
    world.settle();
    assert_eq!(batches(&world).len(), 1, "it is not due");
    world.pass(12 * 3_600_000);
    isolate.cron_with(0);
    world.settle();
    assert_eq!(batches(&world).len(), 1, "there is no origin to ask");
    isolate.cron();
    world.settle();
    assert_eq!(batches(&world).len(), 2);
}
