//! Redis failing at any one trip of any flow, in any way: always an answer, never a 5xx
//! but where the policy says `closed`, and never more waiting than one timeout.

use std::cell::Cell;
use std::rc::Rc;

use edgeweir::policy::Policy;
use edgeweir::redis::{RedisErrorKind, Reply};
use serde_json::json;

use super::sim::{Fault, Passage, first_seed};
use super::world::{Ask, Isolate, Says, Served, World, policy};

const TIMEOUT_US: u64 = 150_000;

/// What the simulated network takes for a trip that works.
const TRIP_US: u64 = 1_000;

fn mixed(redis_down: &str) -> Policy {
    let limit = json!([{ "name": "burst", "requests": 50, "window": "10s", "by": "ip" }]);
    policy(&json!({
        "defaults": {
            "limit": limit, "timeout": { "redis": "150ms", "origin": "2s" }, "redis_down": redis_down
        },
        "route": [
            { "name": "top", "match": "GET /top", "cache": {
                "key": "books:top", "ttl": "1m", "stale": "10m", "tags": ["books"] } },
            { "name": "book", "match": "GET /books/{id}", "limit": [], "cache": {
                "key": "book:{id}", "ttl": "1m", "stale": "10m", "tags": ["books"] } },
            { "name": "home", "match": "GET /home", "compose": {
                "top": "top", "books": { "route": "book", "each": { "id": ["1", "2"] } } } },
            { "name": "write", "match": "PUT /books/{id}", "purge": { "keys": ["book:{id}"], "tags": ["books"] } },
        ],
    }))
}

/// What one trip may do instead of working.
fn faults() -> Vec<(&'static str, Passage)> {
    let with = |fault| Passage {
        fault,
        ..Passage::new(500, 500)
    };
    let words = |reply: Reply| with(Fault::Replies(vec![reply; 12]));
    vec![
        ("refused", with(Fault::Before(RedisErrorKind::Transport))),
        ("open", with(Fault::Before(RedisErrorKind::Open))),
        ("reset", with(Fault::After(RedisErrorKind::Transport))),
        ("late request", Passage::new(TIMEOUT_US * 2, 500)),
        ("late answer", Passage::new(500, TIMEOUT_US * 2)),
        ("nils", words(Reply::Nil)),
        (
            "errors",
            words(Reply::Error("OOM command not allowed".to_owned())),
        ),
        ("numbers", words(Reply::Int(-7))),
        ("words", words(Reply::Bytes(b"uncacheable".to_vec()))),
        ("bytes", words(Reply::Bytes(vec![0xff, 0, b'{']))),
        ("lists", words(Reply::List(vec![Reply::Nil; 3]))),
    ]
}

/// What is in Redis before the request of a flow, and the request.
struct Flow {
    name: &'static str,
    prepare: fn(&World, &Isolate),
    ask: fn() -> Ask,
}

fn nothing(_: &World, _: &Isolate) {}

fn filled(world: &World, isolate: &Isolate) {
    isolate.get_settled("/top");
    isolate.get_settled("/home");
    world.settle();
}

fn staled(world: &World, isolate: &Isolate) {
    filled(world, isolate);
    world.pass(61_000);
}

fn foreign(world: &World, _: &Isolate) {
    let now_us = world.sim.now_us();
    world.redis.set_px(now_us, "books:top", "[1]", 60_000);
    world.redis.set_px(now_us, "book:1", "[2]", 60_000);
}

fn flows() -> Vec<Flow> {
    let top = || Ask::get("/top");
    let home = || Ask::get("/home");
    let flow = |name, prepare, ask| Flow { name, prepare, ask };
    vec![
        flow("miss", nothing, top),
        flow("miss without limits", nothing, || Ask::get("/books/1")),
        flow("hit", filled, top),
        flow("stale", staled, top),
        flow("foreign", foreign, top),
        flow("composed miss", nothing, home),
        flow("composed hit", filled, home),
        flow("composed stale", staled, home),
        flow("composed foreign", foreign, home),
        flow("unmatched", nothing, || Ask::get("/elsewhere")),
        flow("write", filled, || Ask::new("PUT", "/books/1").body("{}")),
        flow("head", nothing, || Ask::new("HEAD", "/top")),
    ]
}

fn ready(flow: &Flow, redis_down: &str) -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    world.origin(|asked| Says::json(&json!({ "of": asked.target })));
    let isolate = world.isolate(mixed(redis_down));
    (flow.prepare)(&world, &isolate);
    (world, isolate)
}

/// How many trips a flow makes, its deferred work included.
fn trips(flow: &Flow) -> u64 {
    let (world, isolate) = ready(flow, "local");
    let count = Rc::new(Cell::new(0));
    let trips = count.clone();
    world.network(move |_| {
        trips.set(trips.get() + 1);
        Passage::new(500, 500)
    });
    assert_eq!(isolate.ask((flow.ask)()).status, 200);
    world.settle();
    count.get()
}

/// Runs a flow whose n-th trip, or every trip from it on, passes like that.
fn broken(
    flow: &Flow,
    nth: u64,
    passage: &Passage,
    is_lasting: bool,
    redis_down: &str,
) -> (Rc<World>, Isolate, Served) {
    let (world, isolate) = ready(flow, redis_down);
    let count = Cell::new(0);
    let passage = passage.clone();
    world.network(move |batch| {
        count.set(count.get() + 1);
        if count.get() < nth || (!is_lasting && count.get() > nth) {
            return Passage::new(500, 500);
        }
        let mut passage = passage.clone();
        if let Fault::Replies(replies) = &mut passage.fault {
            // The port itself sees to it that there is one reply per command.
            replies.resize(batch.commands.len(), replies[0].clone());
        }
        passage
    });
    let served = isolate.ask((flow.ask)());
    (world, isolate, served)
}

/// Each trip of each flow, broken in each way, alone and with all that follow.
#[test]
fn redis_failing_at_any_trip_costs_an_answer_at_most_one_timeout() {
    for flow in flows() {
        let trips = trips(&flow);
        for nth in 1..=trips {
            for (fault, passage) in faults() {
                for is_lasting in [false, true] {
                    let case = format!("{}: trip {nth} {fault}, lasting: {is_lasting}", flow.name);
                    let (world, isolate, served) =
                        broken(&flow, nth, &passage, is_lasting, "local");
                    assert_eq!(served.status, 200, "{case}: {served:?}");
                    let bound_us = TIMEOUT_US + TRIP_US * trips;
                    assert!(
                        served.redis_us <= bound_us,
                        "{case}: {} us",
                        served.redis_us
                    );
                    // The fetches of a miss, one after the other at worst.
                    assert!(
                        served.took_us <= bound_us + 100_000,
                        "{case}: took {} us",
                        served.took_us
                    );
                    world.settle();
                    world.network(|_| Passage::new(500, 500));
                    let after = isolate.ask((flow.ask)());
                    assert_eq!(after.status, 200, "{case}, afterwards");
                    // A lock that could not be let go ends by itself.
                    let wait_us = if is_lasting { 3_000_000 } else { 0 };
                    assert!(
                        after.took_us <= wait_us + 100_000,
                        "{case}, afterwards: {} us",
                        after.took_us
                    );
                    world.settle();
                    assert_eq!(world.immortal_keys(), [""; 0], "{case}");
                }
            }
        }
    }
}

/// The same on `open` and `closed`: a 503 is possible on `closed` alone, and only when
/// the limit's own trip failed.
#[test]
fn only_a_closed_route_is_ever_refused_because_of_redis() {
    for flow in flows()
        .into_iter()
        .filter(|flow| flow.name != "miss without limits")
    {
        for (fault, passage) in faults() {
            let (_, _, served) = broken(&flow, 1, &passage, true, "open");
            assert_eq!(served.status, 200, "{} {fault}", flow.name);
            let (world, _, served) = broken(&flow, 1, &passage, true, "closed");
            assert_eq!(served.status, 503, "{} {fault}", flow.name);
            if flow.name != "head" {
                let kind = served.json()["type"].clone();
                assert_eq!(
                    kind,
                    "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
                );
            }
            let asked = world.asked.borrow();
            assert!(
                asked.iter().all(|asked| asked.method == "GET"),
                "{}: written",
                flow.name
            );
        }
    }
}

/// The steady state: what a hit and a miss cost in trips.
#[test]
fn a_hit_is_one_trip_and_a_cold_miss_is_three() {
    let expected = [
        ("miss", 3),
        ("miss without limits", 3),
        ("hit", 1),
        ("stale", 1),
        ("foreign", 2),
        ("composed hit", 1),
        ("composed stale", 1),
        ("composed foreign", 4),
        ("unmatched", 1),
        ("write", 2),
        ("head", 3),
    ];
    for flow in flows() {
        let Some((_, trips)) = expected.iter().find(|(name, _)| *name == flow.name) else {
            continue;
        };
        let (world, isolate) = ready(&flow, "local");
        assert_eq!(isolate.ask((flow.ask)()).trips, *trips, "{}", flow.name);
        world.settle();
        let again = isolate.ask((flow.ask)());
        let expected = if flow.name == "write" { 2 } else { 1 };
        assert_eq!(again.trips, expected, "{} again", flow.name);
    }
}

/// A failing Redis never asks the origin more than once for one request.
#[test]
fn one_request_asks_the_origin_once_however_redis_fails() {
    for flow in flows()
        .into_iter()
        .filter(|flow| !flow.name.contains("composed"))
    {
        for nth in 1..=trips(&flow) {
            for (fault, passage) in faults() {
                let (world, _, _) = broken(&flow, nth, &passage, true, "local");
                let fetched = world.asked_for("/top").max(world.asked_for("/books/1"));
                let prepared = usize::from(matches!(flow.name, "hit" | "stale" | "write"));
                assert!(
                    fetched <= prepared + 1,
                    "{} trip {nth} {fault}: {fetched}",
                    flow.name
                );
            }
        }
    }
}
