//! Runs of the cron trigger: one at a time, and a crashed one is not in the way for long.

use std::rc::Rc;

use edgeweir::redis::RedisErrorKind;
use serde_json::json;

use super::sim::{Fault, Passage};
use super::world::{Isolate, World, policy};

const LOCK: &str = "metrics:cron";

fn isolate(world: &Rc<World>) -> Isolate {
    world.isolate(policy(&json!({ "defaults": { "limit": [] } })))
}

/// When commands on the lock ran, and which.
fn on_lock(world: &World) -> Vec<String> {
    let ran = world.redis.ran.borrow();
    let on_lock = ran
        .iter()
        .filter(|ran| ran.words.get(1).is_some_and(|key| key == LOCK));
    on_lock.map(|ran| ran.words[0].clone()).collect()
}

/// Of two runs at once one has the lock, and lets go of it at its end.
#[test]
fn one_of_two_runs_has_the_lock() {
    let world = World::new(1);
    for isolate in [isolate(&world), isolate(&world)] {
        isolate.cron();
    }
    world.settle();
    assert_eq!(on_lock(&world), ["SET", "SET", "GET", "DEL"]);
    isolate(&world).cron();
    world.settle();
    assert_eq!(on_lock(&world).len(), 7, "the next one has it again");
    assert_eq!(world.immortal_keys(), [""; 0]);
}

/// A run whose isolate ends keeps the lock until it expires, which is before the next run.
#[test]
fn a_crashed_run_is_in_nobodys_way_at_the_next_trigger() {
    let world = World::new(2);
    let crashed = isolate(&world);
    crashed.cron();
    world.pass(1);
    crashed.die();
    let other = isolate(&world);
    other.cron();
    world.settle();
    assert_eq!(on_lock(&world), ["SET", "SET"]);
    world.pass(edgeweir::jobs::PERIOD_MS);
    other.cron();
    world.settle();
    assert_eq!(on_lock(&world), ["SET", "SET", "SET", "GET", "DEL"]);
}

/// A run that was slower than its lock lets another's be.
#[test]
fn a_slow_run_does_not_let_go_of_anothers_lock() {
    let world = World::new(3);
    isolate(&world).cron();
    world.pass(1);
    let now_us = world.sim.now_us();
    world.redis.set_px(now_us, LOCK, "another's", 1_000);
    world.settle();
    assert_eq!(on_lock(&world), ["SET", "GET"]);
    assert_eq!(world.redis.get(LOCK), Some(b"another's".to_vec()));
}

/// Without Redis nothing is run, and that is logged once a run.
#[test]
fn without_redis_nothing_is_run() {
    let world = World::new(4);
    world.network(|_| Passage {
        fault: Fault::Before(RedisErrorKind::Transport),
        ..Passage::new(500, 500)
    });
    isolate(&world).cron();
    world.settle();
    assert_eq!(on_lock(&world), [""; 0]);
    assert_eq!(world.log.borrow().len(), 1);
}
