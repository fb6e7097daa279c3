//! What a request's outcome costs, and what its conduct leads to, through the whole flow.

use std::rc::Rc;

use serde_json::{Value, json};

use super::controls::{admin, operated};
use super::sim::first_seed;
use super::world::{Ask, Isolate, Says, Served, World, policy};

const CLIENT: &str = "198.51.100.7";

fn world(limit: &Value) -> (Rc<World>, Vec<Isolate>) {
    let world = World::new(first_seed());
    let policy = policy(&json!({
        "defaults": { "limit": [] },
        "route": [
            { "name": "item", "match": "GET /items/{id}", "limit": [limit],
              "cache": { "key": "item:{id}", "ttl": "10m", "tags": ["items"] } },
            { "name": "plain", "match": "GET /plain", "limit": [limit] },
        ],
    }));
    let isolate = |_| world.isolate_with(policy.clone(), operated());
    let isolates = (0..3).map(isolate).collect();
    (world, isolates)
}

fn ask(isolate: &Isolate, target: &str) -> Served {
    let served = isolate.ask(Ask::get(target).header("cf-connecting-ip", CLIENT));
    isolate.world.settle();
    served
}

fn left(served: &Served) -> u64 {
    served.get("x-ratelimit-remaining").parse().unwrap()
}

/// Readers browse freely; a flood of keys that nobody has cached stops at the misses' budget.
#[test]
fn hits_are_free_and_misses_have_a_budget() {
    let limit = json!({ "name": "miss", "requests": 10, "window": "60s", "by": "ip", "cost": { "hit": 0, "miss": 5 } });
    let (world, isolates) = world(&limit);
    world.origin(|_| Says::json(&json!({ "an": "item" })));
    let first = ask(&isolates[0], "/items/1");
    assert_eq!((first.status, left(&first)), (200, 5));
    for _ in 0..30 {
        let hit = ask(&isolates[1], "/items/1");
        assert_eq!((hit.status, left(&hit)), (200, 5), "{}", hit.cache_status());
        assert!(hit.cache_status().contains("hit"));
    }
    assert_eq!(left(&ask(&isolates[2], "/items/2")), 0);
    for number in 3..20 {
        let refused = ask(&isolates[0], &format!("/items/{number}"));
        assert_eq!(refused.status, 429);
        assert_eq!(refused.json()["violated-policies"], json!(["miss"]));
        assert!((1..=61).contains(&refused.get("retry-after").parse::<u64>().unwrap()));
        assert_eq!(world.asked_for(&format!("/items/{number}")), 0);
    }
    let hit = ask(&isolates[0], "/items/2");
    assert_eq!((hit.status, left(&hit)), (200, 0));
    // Without a cache every answer is the origin's.
    assert_eq!(left(&ask(&isolates[0], "/plain")), 5);
    world.pass(61_000);
    assert_eq!(ask(&isolates[0], "/items/3").status, 200);
    assert!(world.immortal_keys().is_empty());
}

fn shop(limits: &[Value]) -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    let policy = policy(&json!({
        "defaults": { "limit": [] },
        "route": [{ "name": "item", "match": "GET /items/{id}", "limit": limits,
            "cache": { "key": "item:{id}", "ttl": "10m" } }],
    }));
    world.origin(|_| Says::json(&json!({ "an": "item" })));
    let isolate = world.isolate_with(policy, operated());
    (world, isolate)
}

/// A limit from which a hit takes nothing does not hide when the one beside it frees.
#[test]
fn a_refusal_beside_a_limit_that_takes_nothing_names_the_time() {
    let burst = json!({ "name": "burst", "requests": 3, "window": "10s", "by": "ip" });
    let miss = json!({ "name": "miss", "requests": 10, "window": "60s", "by": "ip", "cost": { "hit": 0, "miss": 5 } });
    for limits in [[burst.clone(), miss.clone()], [miss, burst]] {
        let (world, isolate) = shop(&limits);
        for _ in 0..3 {
            assert_eq!(ask(&isolate, "/items/1").status, 200);
            world.pass(1_000);
        }
        world.pass(2_000);
        let (refused, at_ms) = (ask(&isolate, "/items/1"), world.now_ms());
        assert_eq!(refused.status, 429);
        assert_eq!(refused.json()["violated-policies"], json!(["burst"]));
        let told_s: u64 = refused.get("retry-after").parse().unwrap();
        // The first of the three is five seconds old.
        assert!((5..=7).contains(&told_s), "{told_s}");
        let again = ask(&isolate, "/items/1");
        assert_eq!((again.status, again.trips), (429, 0), "it is remembered");
        let look = admin(&isolate, "GET", &format!("/-/limits/item?id={CLIENT}"), "").json();
        for shown in look["limits"].as_array().unwrap() {
            let used = match shown["name"].as_str() {
                Some("burst") => 3,
                _ => 5,
            };
            assert_eq!(shown["used"], json!(used), "{shown}");
        }
        world.pass((at_ms + (told_s - 1) * 1_000 - 200).saturating_sub(world.now_ms()));
        assert_eq!(ask(&isolate, "/items/1").status, 429);
        world.pass((at_ms + told_s * 1_000).saturating_sub(world.now_ms()));
        assert_eq!(ask(&isolate, "/items/1").status, 200);
    }
}

/// A miss that may not be paid for takes nothing from the limits beside that one either.
#[test]
fn a_miss_that_is_refused_takes_nothing_from_any_limit() {
    let (world, isolate) = shop(&[
        json!({ "name": "burst", "requests": 2, "window": "60s", "by": "ip" }),
        json!({ "name": "miss", "requests": 5, "window": "3s", "by": "ip", "cost": { "hit": 0, "miss": 5 } }),
    ]);
    assert_eq!(ask(&isolate, "/items/1").status, 200);
    world.pass(1_000);
    for _ in 0..4 {
        let refused = ask(&isolate, "/items/2");
        assert_eq!(refused.status, 429);
        assert_eq!(refused.json()["violated-policies"], json!(["miss"]));
    }
    let refused = ask(&isolate, "/items/2");
    world.pass(refused.get("retry-after").parse::<u64>().unwrap() * 1_000);
    assert_eq!(ask(&isolate, "/items/2").status, 200);
    assert!(world.immortal_keys().is_empty());
}

/// Where the quota returns later than the ban ends, the ban names that time.
#[test]
fn a_ban_names_no_time_at_which_the_quota_is_still_spent() {
    let limit = json!({ "name": "burst", "requests": 5, "window": "20m", "by": "ip",
        "penalty": { "after": 5, "base": "10s", "max": "20s" } });
    let (world, isolates) = world(&limit);
    world.origin(|_| Says::json(&json!({})));
    let one = &isolates[..1];
    let banned = hammer(&world, one);
    let told_s: u64 = banned.get("retry-after").parse().unwrap();
    assert!(told_s > 1_000, "{told_s}");
    world.pass(told_s * 1_000);
    assert_eq!(ask(&one[0], "/plain").status, 200);
}

/// Who waits for another's fill does not pay for it.
#[test]
fn one_of_a_crowd_pays_for_the_miss() {
    let limit = json!({ "name": "miss", "requests": 100, "window": "60s", "by": "global", "cost": { "hit": 1, "miss": 11 } });
    let (world, isolates) = world(&limit);
    world.origin(|_| Says::json(&json!({ "an": "item" })).after(200));
    let served = isolates[0].crowd("/items/1", 20);
    assert!(served.iter().all(|served| served.status == 200));
    world.settle();
    assert_eq!(world.asked_for("/items/1"), 1);
    let after = ask(&isolates[0], "/items/1");
    assert_eq!(left(&after), 100 - 20 - 10 - 1);
}

/// What the rest is refused for costs nothing, and a failure of the origin what the limit
/// says.
#[test]
fn refusals_and_failures_give_back() {
    let limit = json!({ "name": "miss", "requests": 20, "window": "60s", "by": "ip",
        "cost": { "hit": 1, "miss": 15, "error": 2 } });
    let (world, isolates) = world(&limit);
    world.origin(|asked| match asked.target.as_str() {
        "/items/9" | "/items/7" | "/plain" => Says::new(503, "busy"),
        "/items/8" => Says::refused(),
        _ => Says::json(&json!({ "an": "item" })),
    });
    for (target, status) in [("/items/9", 503), ("/items/8", 502), ("/items/7", 503)] {
        assert_eq!(ask(&isolates[0], target).status, status);
    }
    assert_eq!(left(&ask(&isolates[0], "/plain")), 5);
    world.settle();
    let seen = ask(&isolates[1], "/items/1");
    assert_eq!(seen.status, 429, "six are gone, fifteen do not fit");
    world.pass(61_000);
    assert_eq!(left(&ask(&isolates[1], "/items/1")), 5);
    for number in 2..9 {
        assert_eq!(ask(&isolates[2], &format!("/items/{number}")).status, 429);
    }
    let hit = ask(&isolates[1], "/items/1");
    assert_eq!(
        (hit.status, left(&hit)),
        (200, 4),
        "the refused ones used nothing"
    );
}

/// Goes on until it is banned.
fn hammer(world: &World, isolates: &[Isolate]) -> Served {
    for isolate in isolates.iter().cycle().take(150) {
        let served = ask(isolate, "/plain");
        if is_banned(&served) {
            return served;
        }
        world.pass(200);
    }
    panic!("nobody is banned within half a minute");
}

/// Until every isolate knows of it.
fn ban_everywhere(world: &World, isolates: &[Isolate]) {
    hammer(world, isolates);
    world.pass(2_000);
    for isolate in isolates {
        ask(isolate, "/plain");
        assert!(is_banned(&ask(isolate, "/plain")));
    }
}

fn is_banned(served: &Served) -> bool {
    served.text().contains("abnormal-usage-detected")
}

/// What an operator resets begins anew: also the conduct, everywhere, and of that address
/// alone.
#[test]
fn a_reset_ends_a_ban() {
    let limit = json!({ "name": "burst", "requests": 5, "window": "60s", "by": "ip",
        "penalty": { "after": 5, "base": "1h", "max": "2h" } });
    let (world, isolates) = world(&limit);
    world.origin(|_| Says::json(&json!({})));
    ban_everywhere(&world, &isolates);
    let reset = |id: &str| {
        let target = format!("/-/limits/plain?id={id}");
        let served = admin(&isolates[0], "DELETE", &target, "");
        assert_eq!(served.status, 200, "{}", served.text());
    };
    reset("198.51.100.8");
    assert!(is_banned(&ask(&isolates[0], "/plain")), "it was another's");
    reset(CLIENT);
    assert_eq!(ask(&isolates[0], "/plain").status, 200);
    assert!(
        is_banned(&ask(&isolates[1], "/plain")),
        "it looks now and then"
    );
    world.pass(6_000);
    for isolate in &isolates {
        ask(isolate, "/plain");
        assert_eq!(ask(isolate, "/plain").status, 200);
    }
}

/// A ban is of an address whatever the limit counts, so a reset by address ends it, also where
/// no limit of the route counts addresses.
#[test]
fn a_reset_by_address_ends_a_ban_for_another_ones_limit() {
    for by in ["user", "header:x-key"] {
        let limit = json!({ "name": "burst", "requests": 5, "window": "60s", "by": by,
            "penalty": { "after": 5, "base": "1h", "max": "2h" } });
        let (world, isolates) = world(&limit);
        world.origin(|_| Says::json(&json!({})));
        ban_everywhere(&world, &isolates);
        let target = format!("/-/limits/plain?id={CLIENT}");
        let served = admin(&isolates[0], "DELETE", &target, "");
        assert_eq!(served.status, 200, "{}", served.text());
        assert!(!is_banned(&ask(&isolates[0], "/plain")), "{by}");
        world.pass(6_000);
        for isolate in &isolates {
            ask(isolate, "/plain");
            assert!(!is_banned(&ask(isolate, "/plain")), "{by}");
        }
    }
}

/// A client that goes on after its refusals is banned in all isolates, without a trip, and
/// one that waits as it was told is not.
#[test]
fn who_goes_on_is_banned_and_who_waits_is_not() {
    let limit = json!({ "name": "burst", "requests": 5, "window": "60s", "by": "ip",
        "penalty": { "after": 5, "base": "60s", "max": "10m" } });
    let (world, isolates) = world(&limit);
    world.origin(|_| Says::json(&json!({})));
    let polite = |isolate: &Isolate| {
        let ask = Ask::get("/plain").header("cf-connecting-ip", "198.51.100.8");
        isolate.ask(ask)
    };
    let banned = hammer(&world, &isolates);
    assert_eq!(banned.status, 429);
    assert_eq!(banned.json()["violated-policies"], json!(["burst"]));
    assert!((30..=70).contains(&banned.get("retry-after").parse::<u64>().unwrap()));
    assert_eq!(banned.get("cache-control"), "no-store");
    world.pass(2_000);
    for isolate in &isolates {
        ask(isolate, "/plain");
    }
    for isolate in &isolates {
        let served = ask(isolate, "/plain");
        assert!(served.text().contains("abnormal"), "{}", served.text());
        assert_eq!(served.trips, 0);
    }
    for _ in 0..8 {
        let served = polite(&isolates[0]);
        assert!(!served.text().contains("abnormal"));
        if served.status == 429 {
            world.pass(served.get("retry-after").parse::<u64>().unwrap() * 1000);
        }
    }
    assert!(world.immortal_keys().is_empty());
}

/// Those without an address are not banned for each other.
#[test]
fn nobody_is_banned_without_an_address() {
    let limit = json!({ "name": "burst", "requests": 1, "window": "60s", "by": "ip",
        "penalty": { "after": 1, "base": "60s", "max": "10m" } });
    let (world, isolates) = world(&limit);
    world.origin(|_| Says::json(&json!({})));
    for _ in 0..100 {
        let nowhere = Ask::get("/plain").header("cf-connecting-ip", "somewhere");
        let served = isolates[0].ask(nowhere);
        assert!(!served.text().contains("abnormal"));
        world.pass(200);
    }
}

/// Operators see who was refused most.
#[test]
fn the_top_refused_are_shown() {
    let limit = json!({ "name": "burst", "requests": 1, "window": "60s", "by": "ip" });
    let (world, isolates) = world(&limit);
    world.origin(|_| Says::json(&json!({})));
    for number in 0..40 {
        let ip = if number % 4 == 0 {
            "203.0.113.1"
        } else {
            "203.0.113.2"
        };
        isolates[0].ask(Ask::get("/plain").header("cf-connecting-ip", ip));
        world.pass(500);
    }
    world.settle();
    let shown =
        isolates[1].ask(Ask::get("/-/limits").header("authorization", "Bearer admin-token"));
    assert_eq!(shown.status, 200, "{}", shown.text());
    let refused = shown.json()["refused"].clone();
    assert_eq!(refused[0]["id"], "203.0.113.2");
    assert_eq!(
        (&refused[0]["route"], &refused[0]["limit"]),
        (&json!("plain"), &json!("burst"))
    );
    assert!(refused[0]["count"].as_u64() > refused[1]["count"].as_u64());
    assert_eq!(refused[1]["id"], "203.0.113.1");
}
