//! Fills against other writes, fills of readers, and a Redis that fails or is slow.

use std::cell::RefCell;

use edgeweir::redis::{RedisErrorKind, Word};
use serde_json::{Value, json};

use super::super::sim::clock::Slot;
use super::super::sim::{Fault, Passage, first_seed};
use super::super::world::{Ask, Asked, Served, World};
use super::{fetched, hit, ok, shop, world};

fn answer(slot: &Slot<Served>, world: &World) -> Served {
    world.sim.block_on(slot.clone().wait())
}

/// Every order of two writes' requests, answers and purges, by how long each leg takes:
/// whatever is in the cache afterwards is the newer one, and mostly nothing is.
#[test]
fn the_older_answer_of_two_writes_is_never_the_entry() {
    let mut kept = 0;
    for origin_ms in [[50, 50], [50, 400], [400, 50], [200, 300]] {
        for second_after_ms in [0, 10, 60, 250, 600] {
            for slow_purge in [None, Some(0), Some(1)] {
                let world = World::new(first_seed());
                let (mut version, mut nth) = (0, 0);
                world.origin(move |asked: &Asked| match asked.method.as_str() {
                    "GET" => ok(&json!({ "v": version }).to_string()),
                    _ => {
                        version += 1;
                        nth += 1;
                        ok(&json!({ "v": version }).to_string()).after(origin_ms[nth - 1])
                    }
                });
                let purges = RefCell::new(0);
                world.network(move |batch| {
                    let is_purge = batch.atomic;
                    let nth = *purges.borrow();
                    *purges.borrow_mut() += usize::from(is_purge);
                    let is_slow = is_purge && slow_purge == Some(nth);
                    Passage::new(if is_slow { 120_000 } else { 2_000 }, 2_000)
                });
                let (one, two) = (world.isolate(shop()), world.isolate(shop()));
                fetched(&one, "/books/7");
                let (_, first) = one.send(Ask::new("PUT", "/books/7"));
                world.pass(second_after_ms);
                let (_, second) = two.send(Ask::new("PATCH", "/books/7"));
                answer(&first, &world);
                answer(&second, &world);
                let case = format!("{origin_ms:?} {second_after_ms} {slow_purge:?}");
                for isolate in [&one, &two] {
                    let read = isolate.get("/books/7");
                    assert_eq!(read.json()["v"], 2, "{case}: {}", read.cache_status());
                    kept += u64::from(read.cache_status().contains("hit"));
                }
                world.settle();
                // A backend finds the newest, or nothing.
                if let Some(body) = world.redis.get("book:7") {
                    let body: Value = serde_json::from_slice(&body).unwrap();
                    assert_eq!(body["v"], 2, "{case}");
                }
            }
        }
    }
    assert!(kept > 20, "{kept}: one write after another fills");
}

/// A slow fill that began before the write never comes back, nor does one that is stored
/// after it.
#[test]
fn a_slow_fill_from_before_the_write_never_comes_back() {
    let (world, isolate) = world(ok);
    let mut reads = 0;
    let mut version = 0;
    world.origin(move |asked| match asked.method.as_str() {
        "GET" => {
            reads += 1;
            let after_ms = if reads == 1 { 800 } else { 10 };
            ok(&json!({ "v": version }).to_string()).after(after_ms)
        }
        _ => {
            version += 1;
            ok(&json!({ "v": version }).to_string())
        }
    });
    let (_, slow) = isolate.send(Ask::get("/books/7"));
    world.pass(100);
    isolate.ask(Ask::new("PUT", "/books/7"));
    assert_eq!(hit(&isolate, "/books/7")["v"], 1);
    assert_eq!(
        answer(&slow, &world).json()["v"],
        0,
        "it asked before the write"
    );
    world.settle();
    assert_eq!(hit(&isolate, "/books/7")["v"], 1);
    assert_eq!(world.redis.get("book:7").unwrap(), br#"{"v":1}"#);
}

/// A Redis that does not confirm in time, whether it stored or not, is asked to purge
/// again; the next read is fresh all the same. One that was away before the write is only
/// asked to purge.
#[test]
fn an_unconfirmed_fill_is_purged_again() {
    let lost = [
        Passage {
            fault: Fault::Before(RedisErrorKind::Transport),
            ..Passage::new(500, 500)
        },
        Passage {
            fault: Fault::After(RedisErrorKind::Transport),
            ..Passage::new(500, 500)
        },
        Passage::new(500, 3_000_000),
    ];
    for passage in lost {
        for is_before in [false, true] {
            let (world, isolate) = world(ok);
            fetched(&isolate, "/books/7");
            let mut lose_next = true;
            let passage = passage.clone();
            world.network(move |batch| {
                let reads = |word: &Word| matches!(word, Word::Text(text) if text == "MGET");
                let first = batch
                    .commands
                    .first()
                    .and_then(|command| command.words().first());
                let is_it = match is_before {
                    true => first.is_some_and(reads),
                    false => batch.atomic,
                };
                match is_it && std::mem::take(&mut lose_next) {
                    true => passage.clone(),
                    false => Passage::new(500, 500),
                }
            });
            let served = isolate.ask(Ask::new("PUT", "/books/7"));
            assert_eq!((served.status, served.json()["v"].clone()), (200, json!(1)));
            assert_eq!(isolate.get("/books/7").json()["v"], 1);
            world.settle();
            assert_eq!(isolate.get("/books/7").json()["v"], 1);
            let log = world.log.borrow().join("\n");
            assert!(log.contains("purge not confirmed"), "{log}");
        }
    }
}

/// Generations that grew long by many writes begin anew: that write only purges.
#[test]
fn generations_do_not_grow_for_ever() {
    let (world, isolate) = world(ok);
    let (mut hits, mut longest) = (0, 0);
    for _ in 0..100 {
        isolate.ask(Ask::new("PUT", "/books/7"));
        let read = isolate.get_settled("/books/7");
        hits += u32::from(read.cache_status().contains("hit"));
        for key in ["gen:key:book:7", "gen:book:7", "gen:books"] {
            longest = longest.max(world.redis.get(key).unwrap().len());
        }
    }
    assert!((90..100).contains(&hits), "{hits}");
    assert!(longest <= 512 + 16, "{longest}");
}
