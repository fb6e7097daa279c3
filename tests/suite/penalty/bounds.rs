//! Memory, commands, keys and foreign bytes.

use super::*;
use crate::sim::{Fault, Rng, first_seed};
use edgeweir::penalty::{FRESH_MS, MAX_FIELDS, MAX_IDS, peeked};
use edgeweir::redis::{RedisErrorKind, Word};
use proptest::prelude::*;

/// A flood of one address costs a look a second, whatever its rate.
#[test]
fn a_flood_costs_one_look_a_second() {
    let sim = Sim::new(START_MS);
    let redis = Rc::new(FakeRedis::default());
    let isolate = Isolate::new(&sim, &redis, 1);
    // So many offences that it is never banned.
    let quota = Quota::new(&limit(1, 300_000, 1_000_000));
    for _ in 0..20_000 {
        let (isolate, quota) = (isolate.clone(), quota.clone());
        sim.spawn(async move {
            isolate.request(&quota, IP, "route", 200).await;
        });
        pass(&sim, 1);
    }
    let ran = redis.ran.borrow();
    let count = |name: &str| ran.iter().filter(|ran| ran.words[0] == name).count();
    println!(
        "{} HSET, {} HGETALL, {} HMGET in 20 s",
        count("HSET"),
        count("HGETALL"),
        count("HMGET")
    );
    assert!(count("HSET") <= 21 && count("HSET") >= 18);
    assert!(count("HGETALL") <= 21 && count("PEXPIRE") <= 21);
    // A trip takes 4 ms, so at most so many riders leave before the first is back.
    assert!(count("HMGET") <= 5 * 20);
    assert!(isolate.looks.get() <= 1);
}

#[test]
fn a_flood_of_addresses_takes_bounded_memory() {
    let now = Moment {
        own_ms: START_MS,
        redis_ms: START_MS,
    };
    let limit = limit(1, 60_000, 5);
    let mut penalties = Penalties::default();
    for ip in 0..3 * MAX_IDS {
        let ip = ip.to_string();
        let refusal = Refusal {
            limit: &limit,
            id: &ip,
            route: "route",
            retry_after_ms: 1_000,
        };
        penalties.refused(&ip, &refusal, now);
        penalties.answered(&ip, &limit, 404, now);
        assert!(penalties.len() <= MAX_IDS);
    }
    assert!(!penalties.is_empty());
}

fn fields(redis: &FakeRedis) -> usize {
    let bytes = redis.get(KEY).unwrap();
    (bytes.iter().filter(|byte| **byte == 0).count() - 1) / 2
}

/// Hundreds of isolates share one address' hash; none of them makes it large.
#[test]
fn the_hash_is_bounded_and_expires() {
    let sim = Sim::new(START_MS);
    let redis = Rc::new(FakeRedis::default());
    let quota = Quota::new(&limit(1, 60_000, 1_000_000));
    let isolates = Isolate::many(&sim, &redis, 7, 400);
    for isolate in &isolates {
        isolate.ask(&quota, "route", 200);
        pass(&sim, 10);
        assert!(redis.get(KEY).is_none() || fields(&redis) <= MAX_FIELDS + 1);
    }
    assert!(fields(&redis) >= MAX_FIELDS / 2, "{}", fields(&redis));
    assert!(redis.get(KEY).unwrap().len() < 100 * MAX_FIELDS);
    let ttls = redis.ttls_ms(sim.now_us());
    let longest_ms = ttls.values().map(|ttl_ms| ttl_ms.unwrap()).max();
    assert!(longest_ms.unwrap() <= 300_000, "{ttls:?}");
    pass(&sim, 300_000);
    assert!(redis.ttls_ms(sim.now_us()).is_empty());
}

/// Whatever is lost or runs again: no strike without `after` real offences.
#[test]
fn loss_and_repetition_never_strike() {
    for seed in first_seed()..first_seed() + 300 {
        let sim = Sim::new(START_MS);
        let redis = Rc::new(FakeRedis::default());
        let quota = Quota::new(&limit(1, 60_000, 12));
        let isolates: Vec<Isolate> = (0..4)
            .map(|index| {
                let mut net = Rng::new(seed << 8 | index);
                let isolate = Isolate::with(&sim, &redis, net.next(), move |_| Passage {
                    fault: match net.between(0, 5) {
                        0 => Fault::Before(RedisErrorKind::Transport),
                        1 => Fault::After(RedisErrorKind::Timeout),
                        _ => Fault::None,
                    },
                    ..Passage::new(net.between(500, 50_000), net.between(500, 50_000))
                });
                isolate.repeated.set(60);
                isolate
            })
            .collect();
        // One is admitted. At most eleven of these offend.
        isolates[0].ask(&quota, "route", 200);
        let mut rng = Rng::new(seed);
        for _ in 0..11 {
            rng.pick(&isolates).ask(&quota, "route", 200);
            pass(&sim, rng.between(0, 3_000));
        }
        pass(&sim, 20_000);
        assert_eq!(record(&redis), None, "seed {seed}");
    }
}

/// The same network cannot keep a strike away either.
#[test]
fn a_bad_network_only_delays_a_strike() {
    for seed in first_seed()..first_seed() + 100 {
        let sim = Sim::new(START_MS);
        let redis = Rc::new(FakeRedis::default());
        let quota = Quota::new(&limit(1, 60_000, 5));
        let mut net = Rng::new(seed);
        let isolate = Isolate::with(&sim, &redis, seed, move |_| Passage {
            fault: match net.between(0, 3) {
                0 => Fault::After(RedisErrorKind::Transport),
                _ => Fault::None,
            },
            ..Passage::new(5_000, 5_000)
        });
        isolate.repeated.set(30);
        for _ in 0..80 {
            isolate.ask(&quota, "route", 200);
            pass(&sim, 250);
        }
        assert!(isolate.ban().is_some(), "seed {seed}");
        assert_eq!(record(&redis).unwrap().0, 1, "seed {seed}");
    }
}

/// A Redis that is gone: nobody waits, nobody is banned, and each address tries once a second.
#[test]
fn without_redis_nothing_is_struck() {
    let sim = Sim::new(START_MS);
    let redis = Rc::new(FakeRedis::default());
    let trips = Rc::new(Cell::new(0));
    let counted = trips.clone();
    let isolate = Isolate::with(&sim, &redis, 1, move |batch| {
        if batch
            .commands
            .iter()
            .any(|command| command.words()[0] == Word::from("HGETALL"))
        {
            counted.set(counted.get() + 1);
        }
        Passage {
            fault: Fault::Before(RedisErrorKind::Open),
            ..Passage::new(0, 0)
        }
    });
    let quota = Quota::new(&limit(1, 60_000, 1));
    for _ in 0..500 {
        assert!(!matches!(isolate.ask(&quota, "route", 404), Got::Banned(_)));
        pass(&sim, 20);
    }
    assert!(trips.get() <= 11, "{}", trips.get());
    assert!(redis.ran.borrow().is_empty());
}

/// A clock that is set back by an hour neither bans nor keeps anything busy.
#[test]
fn a_clock_that_is_set_back_does_no_harm() {
    let sim = Sim::new(START_MS);
    let redis = Rc::new(FakeRedis::default());
    let isolate = Isolate::new(&sim, &redis, 1);
    let quota = Quota::new(&limit(1, 60_000, 1));
    isolate.ask(&quota, "route", 200);
    isolate.ask(&quota, "route", 200);
    isolate.edge.skew_us.set(-3_600_000_000);
    assert!(
        isolate
            .penalties
            .borrow()
            .rider(IP, isolate.now())
            .is_some()
    );
    isolate.ask(&quota, "route", 200);
    pass(&sim, 20_000);
    assert_eq!(record(&redis), None);
    // And it counts again from there.
    isolate.ask(&quota, "route", 200);
    pass(&sim, 20_000);
    assert_eq!(record(&redis).unwrap().0, 1);
}

#[test]
fn a_fresh_copy_needs_no_rider() {
    let sim = Sim::new(START_MS);
    let redis = Rc::new(FakeRedis::default());
    let isolate = Isolate::new(&sim, &redis, 1);
    let quota = Quota::new(&limit(100, 60_000, 5));
    isolate.ask(&quota, "route", 200);
    assert_eq!(isolate.penalties.borrow().rider(IP, isolate.now()), None);
    pass(&sim, FRESH_MS);
    let rider = isolate.penalties.borrow().rider(IP, isolate.now()).unwrap();
    let words: Vec<Word> = ["HMGET", KEY, "s", "w"].map(Word::from).to_vec();
    assert_eq!(rider.words(), words);
    // An admitted visitor leaves nothing behind.
    assert_eq!(redis.get(KEY), None);
}

#[test]
fn another_services_key_is_left_alone() {
    let sim = Sim::new(START_MS);
    let redis = Rc::new(FakeRedis::default());
    redis.set(KEY, "something else");
    let isolate = Isolate::new(&sim, &redis, 1);
    let quota = Quota::new(&limit(1, 60_000, 1));
    for _ in 0..40 {
        assert!(!matches!(isolate.ask(&quota, "route", 404), Got::Banned(_)));
        pass(&sim, 500);
    }
    assert_eq!(redis.get(KEY).unwrap(), b"something else");
}

fn reply() -> impl Strategy<Value = Reply> {
    let leaf = prop_oneof![
        Just(Reply::Nil),
        any::<i64>().prop_map(Reply::Int),
        "(s|w|60000\\.1\\.3|[0-9 ]{0,90}|1770000[0-9]{6} 3 60000 1770000000000)"
            .prop_map(|text: String| Reply::Bytes(text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Reply::Bytes),
        Just(Reply::Error("ERR".to_owned())),
    ];
    prop_oneof![
        leaf.clone(),
        prop::collection::vec(leaf, 0..9).prop_map(Reply::List)
    ]
}

proptest! {
    #[test]
    fn any_reply_is_no_panic(replies in prop::collection::vec(reply(), 0..5), random: u64) {
        let now = Moment { own_ms: START_MS, redis_ms: START_MS };
        let later = Moment { own_ms: START_MS + 9_000, redis_ms: START_MS + 9_000 };
        let limit = limit(1, 60_000, 1);
        let mut penalties = Penalties::default();
        for now in [now, later] {
            let refusal = Refusal { limit: &limit, id: IP, route: "r", retry_after_ms: u64::MAX };
            penalties.refused(IP, &refusal, now);
            let _ = penalties.flush(IP, now, random);
            let _ = penalties.judge_flush(IP, &replies, now, random);
            for reply in &replies {
                let _ = peeked(reply, now.redis_ms);
                penalties.learn(IP, reply, now);
            }
            if let Some(ban) = penalties.ban_of(IP, now) {
                prop_assert!(ban.left_ms > 0);
            }
        }
    }
}
