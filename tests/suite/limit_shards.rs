//! Counts in several databases, and what becomes of them while one is away.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::slice::from_ref;

use edgeweir::limit::{self, Charge, Checked, Memory, Verdict};
use edgeweir::policy::{Algorithm, By, Limit, RedisDown};
use edgeweir::ports::{Clock, Random, Redis, Store};
use edgeweir::redis::{Batch, Command, RedisError, RedisErrorKind, Reply, Shards};

use crate::sim::clock::Sim;
use crate::sim::desk::{Desk, START_MS, TIMEOUT_MS, minute};
use crate::sim::redis::FakeRedis;
use crate::sim::{Edge, Fault, Passage};

/// An isolate with two databases, each of which can be taken away.
#[derive(Clone)]
struct Pair {
    edges: [Edge; 2],
    is_down: [Rc<Cell<bool>>; 2],
    memory: Rc<RefCell<Memory>>,
}

impl Pair {
    fn new() -> Self {
        let sim = Sim::new(START_MS);
        let is_down: [Rc<Cell<bool>>; 2] = Default::default();
        let edges = [0, 1].map(|at: usize| {
            let (redis, is_down) = (Rc::new(FakeRedis::default()), is_down[at].clone());
            Edge::new(&sim, &redis, move |_| Passage {
                fault: match is_down.get() {
                    true => Fault::Before(RedisErrorKind::Open),
                    false => Fault::None,
                },
                ..Passage::new(2_000, 2_000)
            })
        });
        Self {
            edges,
            is_down,
            memory: Rc::default(),
        }
    }

    fn check_with(&self, asked: &[(Limit, usize)], riders: Vec<Command>) -> Checked {
        let (pair, asked) = (self.clone(), asked.to_vec());
        self.edges[0].sim.block_on(async move {
            let charges: Vec<Charge<'_>> = asked
                .iter()
                .map(|(limit, shard)| Charge {
                    shard: *shard,
                    ..Charge::new(limit, format!("id{shard}"), "route")
                })
                .collect();
            let checked = limit::check(
                &pair.memory,
                &pair,
                TIMEOUT_MS,
                RedisDown::Local,
                &charges,
                riders,
            )
            .await;
            for (shard, batch) in &checked.deferred {
                let _unanswered = pair
                    .pipeline(Store::Limits(*shard), batch, TIMEOUT_MS)
                    .await;
            }
            for shard in &checked.merges {
                limit::merge(&pair.memory, &pair, TIMEOUT_MS, *shard).await;
            }
            checked
        })
    }

    fn check(&self, asked: &[(Limit, usize)]) -> Checked {
        self.check_with(asked, Vec::new())
    }

    fn total(&self, shard: usize, name: &str) -> u32 {
        let key = format!("ratelimit:id{shard}:route:{name}:{}", START_MS / 60_000);
        let bytes = self.edges[shard].redis.get(&key);
        bytes.map_or(0, |bytes| {
            u32::from_be_bytes(bytes[..4].try_into().unwrap())
        })
    }
}

impl Clock for Pair {
    fn now_ms(&self) -> u64 {
        self.edges[0].now_ms()
    }

    async fn sleep(&self, duration_ms: u64) {
        self.edges[0].sleep(duration_ms).await;
    }
}

impl Random for Pair {
    fn random(&self) -> u128 {
        self.edges[0].random()
    }
}

impl Redis for Pair {
    async fn pipeline(
        &self,
        store: Store,
        batch: &Batch,
        timeout_ms: u64,
    ) -> Result<Vec<Reply>, RedisError> {
        let Store::Limits(at) = store else {
            panic!("the limiter asks its own databases");
        };
        self.edges[at].pipeline(store, batch, timeout_ms).await
    }
}

fn named(name: &str, requests: u32) -> Limit {
    Limit {
        name: name.to_owned(),
        ..minute(requests)
    }
}

const URLS: [&str; 3] = [
    "https://a.upstash.io",
    "https://b.upstash.io",
    "https://c.upstash.io",
];

/// Ids spread evenly, and a third database takes a third of each of the others.
#[test]
fn a_third_database_moves_a_third() {
    let (two, three) = (Shards::new(URLS[..2].to_vec()), Shards::new(URLS));
    let mut moved = BTreeMap::new();
    let mut counts = [0; 3];
    for number in 0..30_000 {
        let id = format!("203.0.{}.{}", number / 256, number % 256);
        let (before, after) = (two.of(&id), three.of(&id));
        counts[after] += 1;
        if before != after {
            assert_eq!(after, 2, "{id} moved between the old ones");
            *moved.entry(before).or_insert(0) += 1;
        }
    }
    assert!(
        counts.iter().all(|count| (9_500..=10_500).contains(count)),
        "{counts:?}"
    );
    assert!(
        moved.values().all(|count| (4_500..=5_500).contains(count)),
        "{moved:?}"
    );
    // The order of the list does not matter, only which URLs are in it.
    let turned = Shards::new([URLS[2], URLS[0], URLS[1]]);
    for id in ["192.0.2.1", "user=a", "global"] {
        assert_eq!(
            URLS[three.of(id)],
            [URLS[2], URLS[0], URLS[1]][turned.of(id)]
        );
    }
    assert_eq!(Shards::default().of("anything"), 0);
}

/// Two databases are asked side by side, and all or nothing is charged.
#[test]
fn limits_in_two_databases_are_all_or_nothing() {
    let pair = Pair::new();
    let asked = [(named("wide", 100), 0), (named("narrow", 2), 1)];
    let begun_us = pair.edges[0].sim.now_us();
    let first = pair.check_with(&asked, vec![Command::new("PING")]);
    assert_eq!(first.verdict, Verdict::Admitted);
    assert_eq!(
        pair.edges[0].sim.now_us() - begun_us,
        4_000,
        "one trip's time"
    );
    assert_eq!(first.riders, Some(Ok(vec![Reply::Bytes(b"PONG".to_vec())])));
    for _ in 0..5 {
        pair.check(&asked);
    }
    assert_eq!((pair.total(0, "wide"), pair.total(1, "narrow")), (2, 2));
    let refused = pair.check(&asked);
    assert!(
        matches!(&refused.verdict, Verdict::Refused { violated, .. } if violated == &["narrow"])
    );
    assert!(!refused.degraded);
    assert_eq!(refused.quotas[0].remaining, 98);
}

/// Riders go to the first database though no limit of the request is there.
#[test]
fn riders_travel_to_the_first_database() {
    let pair = Pair::new();
    let checked = pair.check_with(&[(named("other", 5), 1)], vec![Command::new("PING")]);
    assert_eq!(checked.verdict, Verdict::Admitted);
    assert_eq!(
        checked.riders,
        Some(Ok(vec![Reply::Bytes(b"PONG".to_vec())]))
    );
    pair.is_down[1].set(true);
    let checked = pair.check_with(&[(named("other", 5), 1)], vec![Command::new("PING")]);
    assert!(checked.degraded);
    assert_eq!(
        checked.riders,
        Some(Ok(vec![Reply::Bytes(b"PONG".to_vec())]))
    );
    pair.is_down.iter().for_each(|down| down.set(true));
    assert!(
        pair.check_with(&[], vec![Command::new("PING")])
            .riders
            .unwrap()
            .is_err()
    );
}

/// A database that is away leaves the limits of its own ids to the isolate; the other's go on.
#[test]
fn one_database_down_degrades_only_its_ids() {
    let pair = Pair::new();
    let (here, there) = ((named("here", 4), 0), (named("there", 3), 1));
    pair.is_down[1].set(true);
    let both = [here.clone(), there.clone()];
    for left in [2, 1, 0] {
        let checked = pair.check(&both);
        assert_eq!(checked.verdict, Verdict::Admitted);
        assert!(
            checked.degraded && checked.quotas[1].is_degraded && !checked.quotas[0].is_degraded
        );
        assert_eq!(checked.quotas[1].remaining, left);
    }
    let refused = pair.check(&both);
    assert!(
        matches!(&refused.verdict, Verdict::Refused { violated, .. } if violated == &["there"])
    );
    assert_eq!(
        pair.total(0, "here"),
        3,
        "what was charged for the refused one went back"
    );
    let fine = pair.check(from_ref(&here));
    assert!(!fine.degraded);
    assert_eq!(fine.verdict, Verdict::Admitted);
}

/// What was admitted alone is charged to the database once it is back, in its own time.
#[test]
fn what_was_counted_alone_is_merged() {
    for algorithm in [
        Algorithm::SlidingWindow,
        Algorithm::FixedWindow,
        Algorithm::SlidingLog,
        Algorithm::TokenBucket { burst: 10 },
    ] {
        let pair = Pair::new();
        let asked = (
            Limit {
                algorithm,
                ..named("limit", 10)
            },
            1,
        );
        pair.check(from_ref(&asked));
        pair.is_down[1].set(true);
        for _ in 0..5 {
            assert!(pair.check(from_ref(&asked)).degraded);
        }
        pair.is_down[1].set(false);
        // The first one that finds it brings the others.
        assert!(!pair.check(from_ref(&asked)).degraded);
        let beside = Pair {
            memory: Rc::default(),
            ..pair.clone()
        };
        let left = beside.check(from_ref(&asked)).quotas[0].remaining;
        assert_eq!(left, 10 - 1 - 5 - 1 - 1, "{algorithm:?}");
        for (key, ttl_ms) in pair.edges[1].redis.ttls_ms(pair.edges[1].sim.now_us()) {
            assert!(ttl_ms.is_some(), "{key} never ends");
        }
    }
}

/// While Redis is away an isolate admits the share that it had, not the whole limit.
#[test]
fn an_isolate_alone_admits_its_share() {
    let desk = Desk::new();
    let others: Vec<Desk> = (0..3).map(|_| desk.beside()).collect();
    let limit = Limit::new("shared", 100, 60_000, By::Global);
    for _ in 0..10 {
        desk.admit(from_ref(&limit), 1);
        others
            .iter()
            .for_each(|other| other.admit(from_ref(&limit), 1));
    }
    desk.wait(120_000);
    for _ in 0..10 {
        desk.admit(from_ref(&limit), 1);
        others
            .iter()
            .for_each(|other| other.admit(from_ref(&limit), 1));
    }
    let mut admitted = 0;
    for _ in 0..100 {
        desk.break_next(Fault::Before(RedisErrorKind::Open));
        let checked = desk.check(from_ref(&limit));
        assert!(checked.degraded && checked.quotas[0].is_degraded);
        admitted += usize::from(checked.verdict == Verdict::Admitted);
    }
    // 60 are left, and a quarter of the traffic was its own.
    assert!((10..=20).contains(&admitted), "{admitted}");
}

/// An isolate that never saw Redis enforces the whole limit by itself.
#[test]
fn an_isolate_that_knows_nothing_admits_the_limit() {
    let desk = Desk::new();
    let limit = minute(7);
    let mut admitted = 0;
    for _ in 0..20 {
        desk.break_next(Fault::Before(RedisErrorKind::Open));
        admitted += usize::from(desk.check(from_ref(&limit)).verdict == Verdict::Admitted);
    }
    assert_eq!(admitted, 7);
}
