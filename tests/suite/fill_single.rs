//! Single flight: however many ask for a missing entry at once, from however many
//! isolates, the origin is asked once; and a leader that dies is replaced.

use std::cell::RefCell;
use std::rc::Rc;

use edgeweir::policy::Policy;
use serde_json::json;

use super::sim::{Passage, Rng, first_seed};
use super::world::{Ask, Isolate, Says, Served, World, policy};

const BODY: &str = r#"{"books":[]}"#;

fn one_listing() -> Policy {
    one_listing_with("150ms")
}

fn one_listing_with(redis_timeout: &str) -> Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": redis_timeout, "origin": "10s" } },
        "route": [{ "name": "top", "match": "GET /top", "cache": {
            "key": "books:top", "ttl": "1m", "stale": "1m", "tags": ["books", "top"] } }],
    }))
}

/// A world whose trips are slow and uneven, but always in time.
fn uneven(seed: u64, slowest_us: u64) -> Rc<World> {
    let world = World::new(seed);
    let mut rng = Rng::new(seed ^ 0xf11);
    world.network(move |_| Passage {
        gap_us: rng.between(0, 2_000),
        ..Passage::new(rng.between(100, slowest_us), rng.between(100, slowest_us))
    });
    world
}

fn isolates(world: &Rc<World>, count: usize) -> Vec<Isolate> {
    (0..count).map(|_| world.isolate(one_listing())).collect()
}

type Answers = Rc<RefCell<Vec<(u64, Served)>>>;

/// Sends a request at that time; its answer is kept with the time at which it came.
fn send_at(isolate: &Isolate, at_us: u64, answers: &Answers) {
    let (isolate, answers) = (isolate.clone(), answers.clone());
    let sim = isolate.world.sim.clone();
    let arrival = sim.sleep_until(at_us);
    sim.spawn(async move {
        arrival.await;
        let (_, slot) = isolate.send(Ask::get("/top"));
        let served = slot.wait().await;
        let now_us = isolate.world.sim.now_us();
        answers.borrow_mut().push((now_us, served));
    });
}

/// A crowd at a cold key; the most that anybody waited past the origin's answer.
fn crowd(seed: u64, requests: u64, is_left: bool) -> u64 {
    let mut rng = Rng::new(seed);
    let slowest_us = rng.pick(&[500, 10_000, 60_000]);
    let world = uneven(seed, slowest_us);
    let origin_ms = rng.pick(&[5, 80, 700, 2_500, 8_000]);
    world.origin(move |_| Says::new(200, BODY).after(origin_ms));
    let isolates = isolates(&world, 4);
    let answers: Answers = Rc::default();
    let begun_us = world.sim.now_us();
    if is_left {
        // The first visitor, who leads, is gone before anything is answered.
        let (_, slot) = isolates[0].send(Ask::get("/top"));
        drop(slot);
    }
    for _ in 0..requests {
        let at_us = begun_us + rng.between(0, origin_ms * 1_000 + 200_000);
        send_at(&rng.pick(&isolates), at_us, &answers);
    }
    world.sim.run();
    let answers = answers.borrow();
    assert_eq!(answers.len() as u64, requests, "seed {seed}");
    assert_eq!(
        world.asked_for("/top"),
        1,
        "seed {seed}: the origin was asked more than once"
    );
    for (_, served) in answers.iter() {
        assert_eq!((served.status, served.text()), (200, BODY), "seed {seed}");
        let status = served.cache_status();
        let is_known = status.starts_with("edgeweir; hit; ttl=")
            || [
                "edgeweir; fwd=miss; stored",
                "edgeweir; fwd=miss; collapsed",
            ]
            .contains(&status);
        assert!(is_known, "seed {seed}: {status}");
    }
    let leaders = answers
        .iter()
        .filter(|(_, served)| served.cache_status().ends_with("; stored"));
    let leaders = leaders.count();
    assert!(
        leaders == 1 || (is_left && leaders == 0),
        "seed {seed}: {leaders} leaders"
    );
    assert_eq!(world.immortal_keys(), [""; 0], "seed {seed}");
    let slowest = answers
        .iter()
        .map(|(_, served)| served.took_us)
        .max()
        .unwrap();
    slowest.saturating_sub(origin_ms * 1_000)
}

/// 200 requests over 4 isolates at a cold key: one request to the origin.
#[test]
fn a_crowd_at_a_cold_key_asks_the_origin_once() {
    let first = first_seed();
    println!("seeds {first}..{}", first + 80);
    for seed in first..first + 80 {
        let requests = if seed % 8 == 0 { 200 } else { 30 };
        let late_us = crowd(seed, requests, false);
        // Trips to look, to seed, to lock and to store, and the last pause of a poll.
        assert!(
            late_us < 900_000,
            "seed {seed}: waited {late_us} us longer than the leader"
        );
    }
}

/// A Redis that may take as long as that to be read may take as long to be written.
#[test]
fn what_was_fetched_is_stored_within_the_timeout_of_the_policy() {
    let world = World::new(1);
    world.network(|_| Passage::new(1_500_000, 1_500_000));
    world.origin(|_| Says::new(200, BODY));
    let isolate = world.isolate(one_listing_with("4s"));
    let miss = isolate.get_settled("/top");
    assert_eq!(miss.cache_status(), "edgeweir; fwd=miss; stored");
    let hit = isolate.get("/top").cache_status().to_owned();
    assert!(hit.starts_with("edgeweir; hit; ttl="), "{hit}");
}

/// The same when the visitor whose request leads has left.
#[test]
fn a_leader_whose_visitor_left_still_fills_for_everybody() {
    let first = first_seed();
    println!("seeds {first}..{}", first + 40);
    for seed in first..first + 40 {
        crowd(seed, 30, true);
    }
}

/// An isolate that dies while it fills is replaced by one other within its lock's time.
#[test]
fn a_dead_leader_is_replaced_once_within_the_locks_time() {
    let first = first_seed();
    println!("seeds {first}..{}", first + 100);
    let mut replaced = 0;
    for seed in first..first + 100 {
        let mut rng = Rng::new(seed);
        let world = uneven(seed, 10_000);
        let origin_ms = rng.between(50, 2_000);
        world.origin(move |_| Says::new(200, BODY).after(origin_ms));
        let isolates = isolates(&world, 4);
        let answers: Answers = Rc::default();
        let begun_us = world.sim.now_us();
        let (leader, others) = isolates.split_first().unwrap();
        let _leading = leader.send(Ask::get("/top"));
        for _ in 0..30 {
            let at_us = begun_us + rng.between(0, 1_500_000);
            send_at(&rng.pick(others), at_us, &answers);
        }
        let (dying, dies_us) = (leader.clone(), begun_us + rng.between(0, 1_000_000));
        world.sim.at(dies_us, move || dying.die());
        world.sim.run();
        let asked = world.asked_for("/top");
        assert!((1..=2).contains(&asked), "seed {seed}: asked {asked} times");
        replaced += usize::from(asked == 2);
        let answers = answers.borrow();
        assert_eq!(answers.len(), 30, "seed {seed}");
        for (at_us, served) in answers.iter() {
            assert_eq!((served.status, served.text()), (200, BODY), "seed {seed}");
            let late_us = at_us.saturating_sub(dies_us.max(at_us - served.took_us));
            assert!(
                late_us < 3_000_000 + origin_ms * 1_000 + 400_000,
                "seed {seed}: {late_us} us"
            );
        }
    }
    assert!(replaced > 10, "no leader died while it filled");
}

/// A slow leader keeps its lock, and its followers see its entry soon after it is there.
#[test]
fn a_fill_longer_than_its_lock_is_not_doubled() {
    let world = World::new(first_seed());
    world.origin(|_| Says {
        body_ms: 4_500,
        ..Says::new(200, BODY).after(9_500)
    });
    let isolates = isolates(&world, 2);
    let (_, leader) = isolates[0].send(Ask::get("/top"));
    // Longer than the lock lives without renewal, in both halves of the fill.
    for wait_ms in [5_000, 8_000] {
        world.pass(wait_ms);
        let keys = world.redis.ttls_ms(world.sim.now_us());
        let (_, left_ms) = keys
            .iter()
            .find(|(key, _)| key.starts_with("fill:"))
            .unwrap();
        assert!(left_ms.unwrap() > 2_000, "{left_ms:?} left");
    }
    let follower = isolates[1].get("/top");
    assert_eq!(follower.cache_status(), "edgeweir; fwd=miss; collapsed");
    let leader = world.sim.block_on(leader.wait());
    assert_eq!(leader.cache_status(), "edgeweir; fwd=miss; stored");
    assert_eq!(world.asked_for("/top"), 1);
}
