//! What the limiter asks of Redis, trip by trip, and what it remembers.

use std::cell::RefCell;
use std::rc::Rc;
use std::slice::from_ref;

use edgeweir::limit::{self, Charge, Memory, Verdict};
use edgeweir::policy::{By, RedisDown};
use edgeweir::redis::{Command, Reply};

use crate::sim::Passage;
use crate::sim::desk::{Desk, EPOCH, START_MS, TIMEOUT_MS, charge, costing, minute};
use crate::sim::traffic::limit;

/// The first check asks all it does not know, atomically; from then on a check is one
/// trip with one command per limit, and the riders.
#[test]
fn the_steady_state_is_one_command_per_limit() {
    let desk = Desk::new();
    let limits = [minute(100), limit("hour", 1000, 3_600_000, By::User)];
    desk.admit(&limits[..1], 1);
    let key = format!("ratelimit:id:route:minute:{EPOCH}");
    let before = format!("ratelimit:id:route:minute:{}", EPOCH - 1);
    // 20 s are 80 buckets of 250 ms: bit 32 + 16 * 80.
    let first = [
        format!("BITFIELD {key} OVERFLOW FAIL INCRBY u32 0 1 INCRBY u16 1312 1"),
        format!("PEXPIRE {key} 130250"),
        format!("GETRANGE {before} 0 -1"),
        "TIME".to_owned(),
    ];
    assert_eq!(desk.commands(), first);
    desk.admit(&limits, 1);
    desk.commands();
    for _ in 0..20 {
        let trips = desk.redis.trips.get();
        let riders = vec![Command::new("MGET").arg("a").arg("b")];
        let checked = desk.sim.block_on(desk.check_later(&limits, riders));
        assert_eq!(checked.verdict, Verdict::Admitted);
        let nothing = Reply::List(vec![Reply::Nil, Reply::Nil]);
        assert_eq!(checked.riders, Some(Ok(vec![nothing])));
        assert!(checked.deferred.is_empty());
        let commands = desk.commands();
        let names: Vec<&str> = commands
            .iter()
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        assert_eq!(names, ["BITFIELD", "BITFIELD", "MGET"]);
        assert_eq!(desk.redis.trips.get(), trips + 1);
        desk.wait(100);
    }
}

/// Ten seconds after the last sample, and within a bucket of a boundary, TIME rides.
#[test]
fn redis_time_is_asked_every_ten_seconds_and_near_boundaries() {
    let desk = Desk::new();
    let limits = [minute(1000)];
    desk.admit(&limits, 1);
    desk.commands();
    desk.wait(9_980);
    desk.admit(&limits, 1);
    assert!(!desk.commands().contains(&"TIME".to_owned()));
    desk.wait(50);
    desk.admit(&limits, 1);
    assert!(desk.commands().contains(&"TIME".to_owned()));
    desk.wait(29_780);
    desk.admit(&limits, 1);
    desk.commands();
    desk.admit(&limits, 1);
    assert!(
        desk.commands().contains(&"TIME".to_owned()),
        "59.8 s into the epoch"
    );
}

/// A trip too slow to be a good sample brings TIME each time.
#[test]
fn a_far_redis_tells_its_time_with_every_check() {
    let desk = Desk::new();
    for _ in 0..5 {
        desk.passages
            .borrow_mut()
            .push_back(Passage::new(50_000, 50_000));
        desk.admit(&[minute(1000)], 1);
        assert!(desk.commands().contains(&"TIME".to_owned()));
    }
}

/// The previous epoch is read with every check until late refunds to it have run, and
/// not again in that epoch.
#[test]
fn the_previous_epoch_is_remembered_once_it_is_final() {
    let desk = Desk::new();
    desk.admit(&[minute(1000)], 1);
    desk.wait(40_000);
    let before = format!("GETRANGE ratelimit:id:route:minute:{EPOCH} 0 -1");
    desk.commands();
    for (wait_ms, is_read) in [
        (100, true),
        (300, true),
        (50, true),
        (10_000, false),
        (30_000, false),
    ] {
        desk.admit(&[minute(1000)], 1);
        assert_eq!(desk.commands().contains(&before), is_read, "{wait_ms}");
        desk.wait(wait_ms);
    }
}

/// Without limits the riders go alone; with neither, nothing goes.
#[test]
fn without_limits_only_riders_travel() {
    let desk = Desk::new();
    let none = desk.check(&[]);
    assert_eq!((none.verdict, none.riders), (Verdict::Admitted, None));
    assert_eq!(desk.redis.trips.get(), 0);
    let riders = vec![Command::new("GET").arg("a")];
    let alone = desk.sim.block_on(desk.check_later(&[], riders));
    assert_eq!(alone.riders, Some(Ok(vec![Reply::Nil])));
    assert!(!alone.degraded);
    assert_eq!(desk.commands(), ["GET a"]);
}

/// One limit refuses: nothing stays charged to the other.
#[test]
fn several_limits_are_charged_all_or_none() {
    let desk = Desk::new();
    let limits = [minute(3), limit("hour", 100, 3_600_000, By::Ip)];
    desk.admit(&limits, 3);
    let refused = desk.check(&limits);
    let Verdict::Refused { violated, .. } = &refused.verdict else {
        panic!("{refused:?}");
    };
    assert_eq!(violated, &["minute"]);
    let left: Vec<u32> = refused.quotas.iter().map(|quota| quota.remaining).collect();
    assert_eq!(left, [0, 97]);
    let hour = format!("ratelimit:id:route:hour:{}", START_MS / 3_600_000);
    assert_eq!(desk.redis.get(&hour).unwrap()[..4], [0, 0, 0, 3]);
    assert_eq!(desk.total(&limits[0]), 3);
    assert!(refused.deferred.is_empty());
}

/// A narrower limit refuses before the wider one is charged, and both are spent: both
/// are named, the time is that of the later one and exact, and each tells its own.
#[test]
fn a_refusal_knows_the_wider_limit_that_is_spent_too() {
    let limits = [
        limit("short", 3, 10_000, By::User),
        limit("long", 3, 3_600_000, By::Ip),
    ];
    let desk = Desk::new();
    desk.admit(&limits, 3);
    let refused = desk.check(&limits);
    let Verdict::Refused {
        retry_after_ms,
        violated,
    } = &refused.verdict
    else {
        panic!("{refused:?}");
    };
    assert_eq!(violated, &["short", "long"]);
    let resets: Vec<u64> = refused.quotas.iter().map(|quota| quota.reset_ms).collect();
    assert!((9_000..=10_500).contains(&resets[0]), "{resets:?}");
    assert!((3_599_000..=3_630_000).contains(&resets[1]), "{resets:?}");
    assert_eq!(*retry_after_ms, resets[1]);
    desk.wait(resets[0]);
    let Verdict::Refused { violated, .. } = desk.check(&limits).verdict else {
        panic!("the long one is still spent");
    };
    assert_eq!(violated, ["long"]);
    // A check takes 8 ms, and its charge is made 2 ms after it began.
    desk.wait(resets[1] - resets[0] - 40);
    desk.refusal_ms(&limits);
    desk.wait(40);
    desk.admit(&limits, 1);
}

/// A refusal is repeated without a trip for that cost, until the time it named and at
/// most for 5 s; another cost asks Redis, for it fits at another time.
#[test]
fn a_refusal_is_repeated_without_a_trip() {
    let desk = Desk::new();
    let limit = minute(10);
    desk.admit(from_ref(&limit), 8);
    let named_ms = desk.refusal_ms(&[costing(&limit, 3)]);
    let trips = desk.redis.trips.get();
    desk.wait(1_000);
    assert_eq!(desk.refusal_ms(&[costing(&limit, 3)]), named_ms - 1_000);
    let repeated = desk.check(&[costing(&limit, 3)]);
    assert_eq!(repeated.riders, None);
    assert_eq!(repeated.quotas[0].remaining, 2);
    assert_eq!(desk.redis.trips.get(), trips);
    desk.refusal_ms(&[costing(&limit, 4)]);
    assert!(desk.redis.trips.get() > trips);
    desk.admit(&[costing(&limit, 2)], 1);
    let trips = desk.redis.trips.get();
    desk.wait(4_100);
    desk.refusal_ms(&[costing(&limit, 3)]);
    assert_eq!(desk.redis.trips.get(), trips + 2, "5 s later it asks again");
}

/// What narrower and wider limits refused together is remembered for the narrower.
#[test]
fn a_wider_limit_is_not_remembered_when_a_narrower_refused_too() {
    let desk = Desk::new();
    let own = minute(5);
    let wide = limit("wide", 5, 60_000, By::Global);
    desk.admit(&[own.clone(), wide.clone()], 5);
    desk.wait(2_000);
    // Charge both without knowing that either is full: from another isolate.
    let other = desk.beside();
    other.refusal_ms(&[own.clone(), wide.clone()]);
    let trips = desk.redis.trips.get();
    other.refusal_ms(&[own]);
    assert_eq!(desk.redis.trips.get(), trips);
    other.refusal_ms(&[wide]);
    assert!(desk.redis.trips.get() > trips);
}

/// A limit that a narrower one guards is refused without a trip only for charges so old
/// that nothing can take them back any more.
#[test]
fn a_shared_limit_is_remembered_only_for_what_is_certain() {
    let desk = Desk::new();
    let limits = [minute(100), limit("wide", 10, 60_000, By::Global)];
    desk.admit(&limits, 9);
    let key = format!("ratelimit:id:route:wide:{EPOCH}");
    let flood = |by: i64| {
        let command = Command::new("BITFIELD")
            .arg(&key)
            .args(["INCRBY", "u32"])
            .args([0, by])
            .args(["INCRBY", "u16"])
            .args([1312, by]);
        desk.redis.run(desk.sim.now_us(), 0, &command);
    };
    flood(5);
    desk.refusal_ms(&limits);
    flood(-5);
    desk.admit(&limits, 1);
    desk.wait(2_000);
    desk.refusal_ms(&limits);
    let trips = desk.redis.trips.get();
    desk.refusal_ms(&limits);
    assert_eq!(desk.redis.trips.get(), trips);
}

/// Charges of others that are given back while we are refused do not refuse us.
#[test]
fn room_that_a_refund_shows_is_used_at_once() {
    let desk = Desk::new();
    let limit = minute(10);
    desk.admit(from_ref(&limit), 9);
    let key = format!("ratelimit:id:route:minute:{EPOCH}");
    let full = |by: i64| {
        Command::new("BITFIELD")
            .arg(&key)
            .args(["INCRBY", "u32"])
            .args([0, by])
    };
    desk.redis.run(desk.sim.now_us(), 0, &full(5));
    let (sim, redis) = (desk.sim.clone(), desk.redis.clone());
    let back = full(-5);
    desk.sim.at(desk.sim.now_us() + 4_000, move || {
        redis.run(sim.now_us(), 0, &back);
    });
    let trips = desk.redis.trips.get();
    desk.admit(from_ref(&limit), 1);
    assert_eq!(desk.redis.trips.get(), trips + 3);
    assert_eq!(desk.total(&limit), 10);
}

/// A raw clock that is hours off costs one more trip, and leaves no charge behind.
#[test]
fn a_wrong_clock_is_corrected_by_the_first_answer() {
    let desk = Desk::new();
    desk.isolate.edge.skew_us.set(-7_200_000_000);
    let limit = minute(10);
    desk.admit(from_ref(&limit), 1);
    assert_eq!(desk.redis.trips.get(), 2);
    let wrong = format!("ratelimit:id:route:minute:{}", EPOCH - 120);
    assert!(
        desk.redis
            .get(&wrong)
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
    assert_eq!(desk.total(&limit), 1);
    desk.admit(from_ref(&limit), 1);
    assert_eq!(desk.redis.trips.get(), 3);
    let reset_ms = desk.refusal_ms(&[costing(&limit, 10)]);
    assert!((60_000..61_000).contains(&reset_ms), "{reset_ms}");
}

/// Limits above 32 767 use slots of 32 bits, and count as well.
#[test]
fn a_large_limit_has_wide_slots() {
    let desk = Desk::new();
    let limit = costing(&minute(100_000), 40_000);
    desk.admit(from_ref(&limit), 2);
    assert!((60_000..60_600).contains(&desk.refusal_ms(from_ref(&limit))));
    desk.admit(&[costing(&limit, 20_000)], 1);
    assert_eq!(desk.total(&limit), 100_000);
}

/// Of 25 000 ids at most 10 000 stay behind in an isolate's memory.
#[test]
fn memory_is_bounded() {
    let desk = Desk::new();
    let memory = Rc::new(RefCell::new(Memory::new()));
    let (edge, kept) = (desk.isolate.edge.clone(), memory.clone());
    desk.sim.block_on(async move {
        let limit = minute(5);
        for id in 0..25_000 {
            let charges = [Charge {
                id: format!("id{id}"),
                ..charge(&limit)
            }];
            limit::check(
                &kept,
                &edge,
                TIMEOUT_MS,
                RedisDown::Local,
                &charges,
                Vec::new(),
            )
            .await;
            edge.redis.ran.borrow_mut().clear();
            edge.redis.flush(0);
        }
    });
    let memory = memory.borrow();
    assert!(
        !memory.is_empty() && memory.len() <= 10_000,
        "{}",
        memory.len()
    );
}

/// A limit that was not charged, because a narrower one refused first, counts with what
/// is known of the epoch before.
#[test]
fn a_wider_limit_is_judged_by_the_epoch_before_too() {
    let desk = Desk::new();
    let narrow = limit("narrow", 1, 10_000, By::Ip);
    let wide = limit("wide", 10, 60_000, By::Global);
    desk.wait(35_000);
    desk.admit(from_ref(&wide), 10);
    desk.wait(20_000);
    // Known for good from here on, fifteen seconds into the next epoch.
    desk.refusal_ms(from_ref(&wide));
    desk.wait(6_000);
    desk.admit(from_ref(&narrow), 1);
    let both = [narrow, wide];
    let checked = desk.check(&both);
    let Verdict::Refused {
        retry_after_ms,
        violated,
    } = checked.verdict
    else {
        panic!("{:?}", checked.verdict);
    };
    assert_eq!(violated, ["narrow", "wide"]);
    desk.wait(retry_after_ms);
    assert_eq!(desk.check(&both).verdict, Verdict::Admitted);
}
