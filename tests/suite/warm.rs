//! Warming: what the cron fetches before it ends, what it leaves alone, and how much of
//! the origin it uses for it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::jobs::PERIOD_MS;
use edgeweir::policy::{Policy, Switch};
use edgeweir::redis::RedisErrorKind;
use serde_json::{Value, json};

use super::sim::{Fault, Passage, first_seed};
use super::world::{Ask, Isolate, Says, World, policy};

const MINUTE_MS: u64 = 60_000;

fn listing(name: &str, more: &Value) -> Value {
    let mut cache = json!({ "key": format!("{name}:{{id}}"), "ttl": "15m", "tags": ["all"] });
    for (field, value) in more.as_object().unwrap() {
        cache[field] = value.clone();
    }
    json!({ "name": name, "match": format!("GET /{name}/{{id}}"), "cache": cache })
}

fn with(routes: &[Value]) -> Policy {
    let defaults = json!({ "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } });
    policy(&json!({ "defaults": defaults, "route": routes }))
}

/// One route that keeps so many entries warm.
fn many(entries: usize, more: &Value) -> Policy {
    let ids: Vec<String> = (0..entries).map(|n| n.to_string()).collect();
    let mut more = more.clone();
    more["warm"] = json!({ "every": "10m", "values": { "id": ids } });
    with(&[listing("item", &more)])
}

fn isolate(world: &Rc<World>, policy: Policy) -> Isolate {
    let settings = Settings {
        admin_token: Some(Secret::new("admin-token")),
        ..Settings::default()
    };
    world.isolate_with(policy, settings)
}

/// A run of the cron, and the time until the next one.
fn cron(isolate: &Isolate) {
    isolate.cron();
    isolate.world.settle();
}

fn warm(isolate: &Isolate, body: &str) -> (u16, Value) {
    let ask = Ask::new("POST", "/-/warm").header("authorization", "Bearer admin-token");
    let served = isolate.ask(ask.body(body));
    isolate.world.settle();
    (served.status, served.json())
}

fn asked(world: &World) -> usize {
    world.asked.borrow().len()
}

/// For two hours nobody misses, nor gets what has ended; and no entry is fetched more often
/// than it has to be.
#[test]
fn nobody_waits_for_what_is_kept_warm() {
    let world = World::new(first_seed());
    let isolate = isolate(&world, many(3, &json!({})));
    let begun_ms = world.now_ms();
    let end_ms = begun_ms + 120 * MINUTE_MS;
    let mut next_ms = begun_ms;
    while world.now_ms() < end_ms {
        if world.now_ms() >= next_ms {
            cron(&isolate);
            next_ms += PERIOD_MS;
        }
        for id in 0..3 {
            let served = isolate.get_settled(&format!("/item/{id}"));
            assert!(
                served.cache_status().contains("; hit; ttl="),
                "{}",
                served.cache_status()
            );
            assert!(!served.cache_status().contains("stale"));
        }
        world.pass(20_000);
    }
    let each = asked(&world) / 3;
    assert!(
        (12..=13).contains(&each),
        "{each} fetches of each in two hours"
    );
    assert_eq!(world.immortal_keys(), [""; 0]);
}

/// A run makes at most 40 origin requests, at most four at once, and the next one goes on
/// where it stopped.
#[test]
fn a_run_makes_40_requests_and_the_next_one_goes_on() {
    let world = World::new(2);
    let (now, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (sim, at_once, most_at_once) = (world.sim.clone(), now.clone(), most.clone());
    world.origin(move |_| {
        at_once.set(at_once.get() + 1);
        most_at_once.set(most_at_once.get().max(at_once.get()));
        let done = at_once.clone();
        sim.at(sim.now_us() + 199_000, move || done.set(done.get() - 1));
        Says::new(200, "{}").after(200)
    });
    let isolate = isolate(&world, many(100, &json!({})));
    for fetched in [40, 80, 100, 100] {
        cron(&isolate);
        assert_eq!(asked(&world), fetched);
    }
    assert_eq!(most.get(), 4);
    let targets: std::collections::BTreeSet<String> = (world.asked.borrow().iter())
        .map(|asked| asked.target.clone())
        .collect();
    assert_eq!(targets.len(), 100, "each of them once");
}

/// What can never be stored has its turn like all others, and no more.
#[test]
fn what_cannot_be_stored_is_in_nobodys_way() {
    let world = World::new(3);
    world.origin(|asked| {
        let id: u32 = asked.target.rsplit('/').next().unwrap().parse().unwrap();
        match id < 50 {
            true => Says::new(200, "{}").header("cache-control", "private"),
            false => Says::new(200, "{}"),
        }
    });
    let isolate = isolate(&world, many(60, &json!({})));
    cron(&isolate);
    assert_eq!(asked(&world), 40);
    cron(&isolate);
    let stored = (50..60).filter(|id| world.redis.get(&format!("item:{id}")).is_some());
    assert_eq!(stored.count(), 10);
}

/// Two crons at once, in two places, fetch nothing twice.
#[test]
fn two_runs_at_once_fetch_nothing_twice() {
    for seed in 0..20 {
        let world = World::new(seed);
        world.origin(|_| Says::new(200, "{}").after(300));
        let isolates = [(); 2].map(|()| isolate(&world, many(10, &json!({}))));
        isolates[0].cron();
        world.pass(seed * 20);
        isolates[1].cron();
        world.settle();
        assert_eq!(asked(&world), 10, "seed {seed}");
    }
}

/// An origin that fails is asked four times in a run, by refusing, hanging or saying 503.
#[test]
fn an_origin_that_fails_ends_the_run() {
    for says in [
        Says::refused(),
        Says::new(200, "{}").after(60_000),
        Says::new(503, "{}"),
    ] {
        let world = World::new(5);
        world.origin(move |_| says.clone());
        let isolate = isolate(&world, many(30, &json!({})));
        let begun_ms = world.now_ms();
        cron(&isolate);
        assert_eq!(asked(&world), 4);
        assert!(
            world.now_ms() - begun_ms < 3_000,
            "no longer than one timeout"
        );
        world.pass(PERIOD_MS);
        cron(&isolate);
        assert_eq!(asked(&world), 8);
        assert_eq!(world.asked_for("/item/4"), 1, "it goes on behind those");
        world.origin(|_| Says::new(200, "{}"));
        world.pass(PERIOD_MS);
        cron(&isolate);
        assert_eq!(asked(&world), 38, "and is whole again with the origin");
    }
}

/// A purge, a lost key and a deleted one are made good by the next run; another service's
/// value is left alone.
#[test]
fn what_is_gone_is_fetched_and_what_is_anothers_is_not() {
    let world = World::new(6);
    let isolate = isolate(&world, many(5, &json!({})));
    cron(&isolate);
    assert_eq!(asked(&world), 5);
    world.redis.evict("item:0");
    world.redis.evict("meta:item:1");
    world.redis.evict("gen:key:item:2");
    world
        .redis
        .set_px(world.sim.now_us(), "item:3", "{\"theirs\":1}", 3_600_000);
    world.redis.evict("meta:item:3");
    cron(&isolate);
    let fetched = |id: u32| world.asked_for(&format!("/item/{id}"));
    assert_eq!([0, 1, 2, 3, 4].map(fetched), [2, 2, 2, 1, 1]);
    assert_eq!(world.redis.get("item:3").unwrap(), b"{\"theirs\":1}");
    let purge = Ask::new("POST", "/-/purge").header("authorization", "Bearer admin-token");
    isolate.ask(purge.body(r#"{"tags":["all"]}"#));
    cron(&isolate);
    assert_eq!([0, 2, 4].map(fetched), [3, 3, 2]);
}

/// Whatever is purged while a run fetches it is not stored as it was before.
#[test]
fn a_purge_wins_over_a_run() {
    let world = World::new(7);
    let version = Rc::new(Cell::new(1));
    let said = version.clone();
    world.origin(move |_| Says::json(&json!({ "v": said.get() })).after(500));
    let isolate = isolate(&world, many(4, &json!({})));
    isolate.cron();
    world.pass(250);
    version.set(2);
    let purge = Ask::new("POST", "/-/purge").header("authorization", "Bearer admin-token");
    assert_eq!(isolate.ask(purge.body(r#"{"tags":["all"]}"#)).status, 200);
    world.settle();
    for id in 0..4 {
        let served = isolate.get_settled(&format!("/item/{id}"));
        assert_eq!(served.json()["v"], 2);
    }
}

/// A Redis that fails in a run ends it: nothing could be stored.
#[test]
fn a_redis_that_fails_ends_the_run() {
    let world = World::new(12);
    let isolate = isolate(&world, many(30, &json!({})));
    // Locks and generations are written, and what was looked at was only read.
    world.network(|batch| {
        let is_write = |command: &edgeweir::redis::Command| {
            let words = command.words();
            words.first() == Some(&"SET".into()) && words.get(1) != Some(&"metrics:cron".into())
        };
        let fault = match batch.commands.iter().any(is_write) {
            true => Fault::Before(RedisErrorKind::Timeout),
            false => Fault::None,
        };
        Passage {
            fault,
            ..Passage::new(500, 500)
        }
    });
    cron(&isolate);
    assert_eq!(asked(&world), 4);
}

/// Where a switch turns the cache off there is nothing to keep warm.
#[test]
fn a_route_that_is_switched_off_is_not_fetched() {
    let world = World::new(13);
    let mut off = listing(
        "off",
        &json!({ "warm": { "every": "10m", "top": 5, "values": { "id": ["1"] } } }),
    );
    off["switch"] = json!("NOTIFICATION_CACHE_ENABLED");
    let on = listing(
        "on",
        &json!({ "warm": { "every": "10m", "top": 5, "values": { "id": ["1"] } } }),
    );
    let settings = Settings {
        switched_off: vec![Switch::NotificationCache],
        ..Settings::default()
    };
    cron(&world.isolate_with(with(&[off, on]), settings));
    let targets: Vec<String> = world
        .asked
        .borrow()
        .iter()
        .map(|asked| asked.target.clone())
        .collect();
    assert_eq!(targets, ["/on/1"]);
}

/// A negative answer is kept warm as one.
#[test]
fn a_negative_answer_is_stored_as_one() {
    let world = World::new(8);
    world.origin(|_| Says::new(404, "gone"));
    let isolate = isolate(&world, many(1, &json!({ "negative": "1m" })));
    cron(&isolate);
    let served = isolate.get("/item/0");
    assert_eq!((served.status, asked(&world)), (404, 1));
    assert!(served.cache_status().contains("; hit"));
}

/// What is asked most is kept warm, by the counts of all isolates; what Redis says beside
/// them is no request of the route.
#[test]
fn what_is_asked_most_is_kept_warm() {
    let route = json!({ "name": "search", "match": "GET /search", "cache": {
        "key": "search:{hash}", "query": ["q"], "ttl": "15m",
        "warm": { "every": "10m", "top": 2 } } });
    let world = World::new(9);
    let isolates = [(); 2].map(|()| isolate(&world, with(std::slice::from_ref(&route))));
    // 6, 5, 4 and 1 times; the third one is the first of neither isolate.
    let asks = [
        ("a%20b", 0, 6),
        ("b", 1, 5),
        ("c", 0, 2),
        ("c", 1, 2),
        ("d", 0, 1),
    ];
    for round in 0..2 {
        for (q, at, times) in asks {
            for _ in 0..times {
                isolates[at].get(&format!("/search?utm=1&q={q}"));
            }
        }
        if round == 0 {
            // Counts leave a minute after the first one.
            world.pass(61_000);
        }
    }
    world.settle();
    let slot = world.now_ms() / 900_000;
    let counts = world.redis.get(&format!("metrics:top:search:{slot}"));
    let counts = String::from_utf8(counts.unwrap()).unwrap();
    assert!(counts.contains("/search?q=a%20b\x007\0"), "{counts:?}");
    assert_eq!(world.immortal_keys(), [""; 0]);
    world.redis.flush(world.sim.now_us());
    let key = format!("metrics:top:search:{slot}");
    for (member, count) in [
        ("/search?q=a%20b", 7u32),
        ("/search?q=b", 6),
        ("/search?q=c", 5),
        ("/elsewhere", 99),
        ("not a path", 98),
        ("/search/../secret", 97),
    ] {
        let command = edgeweir::redis::Command::new("ZINCRBY").arg(&key);
        world
            .redis
            .run(world.sim.now_us(), 0, &command.arg(count).arg(member));
    }
    world.asked.borrow_mut().clear();
    cron(&isolates[1]);
    let fetched: Vec<String> = world
        .asked
        .borrow()
        .iter()
        .map(|a| a.target.clone())
        .collect();
    assert_eq!(fetched, ["/search?q=a%20b", "/search?q=b"]);
    // An hour later nobody asks for them any more.
    world.pass(76 * MINUTE_MS);
    world.asked.borrow_mut().clear();
    cron(&isolates[1]);
    assert_eq!(asked(&world), 0);
}

/// Only routes that say so are counted.
#[test]
fn what_nobody_wants_to_know_is_not_counted() {
    let world = World::new(10);
    let isolate = isolate(&world, many(1, &json!({})));
    for _ in 0..3 {
        isolate.get_settled("/item/0");
        world.pass(61_000);
    }
    let keys = world.redis.ttls_ms(world.sim.now_us());
    assert!(
        keys.keys().all(|key| !key.starts_with("metrics:")),
        "{keys:?}"
    );
}

/// The operator's call fetches all of these routes, fresh or not, 40 at a time.
#[test]
fn an_operator_warms_routes_now() {
    let world = World::new(11);
    let versions: Rc<RefCell<BTreeMap<String, u32>>> = Rc::default();
    world.origin(move |asked| {
        let mut versions = versions.borrow_mut();
        let version = versions.entry(asked.target.clone()).or_default();
        *version += 1;
        match asked.target.as_str() {
            "/b/bad" => Says::new(404, "{}"),
            _ => Says::json(&json!({ "v": *version })),
        }
    });
    let ids: Vec<String> = (0..45).map(|n| n.to_string()).collect();
    let warmed = |ids: &[String]| json!({ "warm": { "every": "10m", "values": { "id": ids } } });
    let routes = [
        listing("a", &warmed(&ids)),
        listing("b", &warmed(&["1".to_owned(), "bad".to_owned()])),
        listing("c", &json!({})),
    ];
    let isolate = isolate(&world, with(&routes));
    let done = |warmed, failed, left| {
        (
            200,
            json!({ "warmed": warmed, "failed": failed, "left": left }),
        )
    };
    assert_eq!(warm(&isolate, r#"{"routes":["b"]}"#), done(1, 1, 0));
    assert_eq!(warm(&isolate, r#"{"routes":["b"]}"#), done(1, 1, 0));
    assert_eq!(isolate.get("/b/1").json()["v"], 2, "although it was fresh");
    assert_eq!(warm(&isolate, ""), done(40, 0, 7));
    assert_eq!(warm(&isolate, "{}"), done(6, 1, 0));
    assert_eq!(warm(&isolate, r#"{"routes":[]}"#), done(0, 0, 0));
    for body in [
        r#"{"routes":["d"]}"#,
        r#"{"routes":["c"]}"#,
        r#"{"routes":"a"}"#,
        r#"{"route":["a"]}"#,
        "[]",
        "{",
    ] {
        assert_eq!(warm(&isolate, body).0, 400, "{body}");
    }
    let get = Ask::get("/-/warm").header("authorization", "Bearer admin-token");
    assert_eq!(isolate.ask(get).status, 405);
    assert_eq!(
        isolate.ask(Ask::new("POST", "/-/warm").body("{}")).status,
        401
    );
}

/// A packed entry is in its value alone, or half of its record lies beside it after a refresh
/// that brought the same: both are found, and neither is fetched too often nor too late.
#[test]
fn packed_entries_are_kept_warm() {
    for changes in [false, true] {
        let world = World::new(first_seed());
        let times = Cell::new(0);
        world.origin(move |_| {
            times.set(times.get() + usize::from(changes));
            let line = format!("<p>{}</p>\n", times.get());
            Says::new(200, line.repeat(4_000)).header("content-type", "text/html")
        });
        let isolate = isolate(&world, many(2, &json!({ "format": "packed" })));
        let begun_ms = world.now_ms();
        while world.now_ms() < begun_ms + 60 * MINUTE_MS {
            cron(&isolate);
            for id in 0..2 {
                let served = isolate.get_settled(&format!("/item/{id}"));
                assert!(
                    served.cache_status().contains("; hit; ttl="),
                    "{}",
                    served.cache_status()
                );
            }
            world.pass(PERIOD_MS);
        }
        let each = asked(&world) / 2;
        assert!((6..=7).contains(&each), "{each} fetches of each in an hour");
        assert_eq!(world.immortal_keys(), [""; 0]);
    }
}
