//! What the limiter makes of late, lost, broken and strange answers, and of a Redis
//! that is down.

use std::slice::from_ref;

use edgeweir::limit::{self, Verdict};
use edgeweir::policy::{Algorithm, By, Limit, RedisDown};
use edgeweir::redis::{Command, RedisErrorKind, Reply};

use crate::sim::desk::{Desk, EPOCH, TIMEOUT_MS, charge, costing, minute};
use crate::sim::traffic::{Isolate, limit};
use crate::sim::{Fault, Passage, Rng, first_seed};

fn late(request_us: u64, response_us: u64) -> Passage {
    Passage {
        is_late_anyway: true,
        ..Passage::new(request_us, response_us)
    }
}

/// An isolate that was held up gets its answer late. Redis' own time in it still says
/// where the charge ran; without it the charge is given back and made anew with it.
#[test]
fn a_late_answer_admits_by_redis_own_word_only() {
    let desk = Desk::new();
    let limit = minute(10);
    desk.passages.borrow_mut().push_back(late(2_000, 500_000));
    assert_eq!(desk.check(from_ref(&limit)).verdict, Verdict::Admitted);
    assert_eq!(desk.commands().last().unwrap(), "TIME");
    assert_eq!(desk.total(&limit), 1);

    desk.admit(from_ref(&limit), 2);
    desk.commands();
    desk.passages.borrow_mut().push_back(late(2_000, 149_000));
    let checked = desk.check(from_ref(&limit));
    assert_eq!(checked.verdict, Verdict::Admitted);
    assert!(!checked.degraded && checked.deferred.is_empty());
    let commands = desk.commands();
    let times = commands.iter().filter(|command| *command == "TIME");
    assert_eq!(times.count(), 1, "{commands:?}");
    assert_eq!(desk.total(&limit), 4, "the late charge was given back");
}

/// A charge that Redis ran long after its label keeps its place and moves to its slot;
/// one whose epoch ended meanwhile is given back.
#[test]
fn a_charge_that_ran_late_is_moved_within_its_epoch() {
    let slots = |desk: &Desk, limit: &Limit| -> Vec<usize> {
        let key = format!("ratelimit:id:route:{}:{EPOCH}", limit.name);
        let bytes = desk.redis.get(&key).unwrap();
        let filled = bytes[4..].chunks(2).enumerate();
        filled
            .filter(|(_, slot)| slot.iter().any(|byte| *byte > 0))
            .map(|(at, _)| at)
            .collect()
    };
    let desk = Desk::new();
    let limit = minute(10);
    desk.passages.borrow_mut().push_back(late(700_000, 2_000));
    assert_eq!(desk.check(from_ref(&limit)).verdict, Verdict::Admitted);
    assert_eq!((desk.total(&limit), slots(&desk, &limit)), (1, vec![82]));

    // Where it stands is unknown when that trip fails: then nothing is taken back.
    let mut desk = Desk::new();
    desk.redis_down = RedisDown::Closed;
    desk.passages.borrow_mut().push_back(late(700_000, 2_000));
    desk.break_next(Fault::After(RedisErrorKind::Transport));
    let checked = desk.check(from_ref(&limit));
    assert_eq!(checked.verdict, Verdict::Unavailable);
    assert!(checked.deferred.is_empty());

    let desk = Desk::new();
    desk.wait(39_000);
    desk.passages.borrow_mut().push_back(late(700_000, 2_000));
    desk.passages.borrow_mut().push_back(late(400_000, 2_000));
    assert_eq!(desk.check(from_ref(&limit)).verdict, Verdict::Admitted);
    assert_eq!((desk.total(&limit), slots(&desk, &limit)), (0, vec![]));
}

/// Redis down: local counts, open admits, closed does not; and the riders say why.
#[test]
fn redis_down_is_what_the_route_says() {
    for (redis_down, first, third) in [
        (RedisDown::Open, Verdict::Admitted, Some(Verdict::Admitted)),
        (
            RedisDown::Closed,
            Verdict::Unavailable,
            Some(Verdict::Unavailable),
        ),
        (RedisDown::Local, Verdict::Admitted, None),
    ] {
        let mut desk = Desk::new();
        desk.redis_down = redis_down;
        let limits = [minute(2), limit("hour", 100, 3_600_000, By::User)];
        let mut verdicts = Vec::new();
        for _ in 0..3 {
            desk.break_next(Fault::Before(RedisErrorKind::Transport));
            let riders = vec![Command::new("GET").arg("a")];
            let checked = desk.sim.block_on(desk.check_later(&limits, riders));
            assert!(checked.degraded);
            assert!(matches!(checked.riders, Some(Err(_))));
            assert_eq!(checked.quotas.len(), 2);
            verdicts.push(checked.verdict);
        }
        assert_eq!(verdicts[..2], [first.clone(), first]);
        match third {
            Some(third) => assert_eq!(verdicts[2], third),
            None => {
                let Verdict::Refused {
                    retry_after_ms,
                    violated,
                } = &verdicts[2]
                else {
                    panic!("{verdicts:?}");
                };
                assert_eq!(violated, &["minute"]);
                assert!(
                    (60_000..=62_000).contains(retry_after_ms),
                    "{retry_after_ms}"
                );
            }
        }
    }
}

/// Redis going away gives nobody a new quota: what it said last still counts, until the
/// epoch ends.
#[test]
fn the_local_mode_goes_on_from_the_last_word() {
    let desk = Desk::new();
    let limit = minute(5);
    desk.admit(from_ref(&limit), 3);
    let down = || desk.break_next(Fault::Before(RedisErrorKind::Transport));
    for _ in 0..2 {
        down();
        assert_eq!(desk.check(from_ref(&limit)).verdict, Verdict::Admitted);
    }
    down();
    let checked = desk.check(from_ref(&limit));
    let Verdict::Refused { retry_after_ms, .. } = checked.verdict else {
        panic!("{:?}", checked.verdict);
    };
    assert_eq!(checked.quotas[0].remaining, 0);
    assert_eq!(checked.quotas[0].reset_ms, retry_after_ms);
    // Twenty seconds of the epoch are over.
    assert!(retry_after_ms <= 40_000, "{retry_after_ms}");
    // A failed trip takes 2 ms.
    desk.wait(retry_after_ms - 5);
    down();
    assert_ne!(desk.check(from_ref(&limit)).verdict, Verdict::Admitted);
    desk.wait(3);
    down();
    assert_eq!(desk.check(from_ref(&limit)).verdict, Verdict::Admitted);
}

/// What an isolate had of a limit it keeps when the epoch turns without Redis: the time that it
/// names does not fall on a smaller share.
#[test]
fn the_local_mode_keeps_its_share_across_epochs() {
    let desk = Desk::new();
    let limit = minute(20);
    // Of all other keys this isolate has hardly anything.
    let crowded = limit_of_others(&desk);
    desk.admit(from_ref(&limit), 15);
    let down = || desk.break_next(Fault::Before(RedisErrorKind::Open));
    for _ in 0..2 {
        let refused_ms = loop {
            down();
            match desk.check(from_ref(&limit)).verdict {
                Verdict::Refused { retry_after_ms, .. } => break retry_after_ms,
                verdict => assert_eq!(verdict, Verdict::Admitted),
            }
        };
        desk.wait(refused_ms);
        down();
        let verdict = desk.check(from_ref(&limit)).verdict;
        assert_eq!(verdict, Verdict::Admitted, "after {refused_ms} ms");
    }
    drop(crowded);
}

/// Keys that another isolate charges much more.
fn limit_of_others(desk: &Desk) -> Vec<Limit> {
    let other = desk.beside();
    let limits: Vec<Limit> = (0..4)
        .map(|at| limit(&format!("other{at}"), 100, 60_000, By::Ip))
        .collect();
    for limit in &limits {
        desk.admit(from_ref(limit), 2);
        other.admit(from_ref(limit), 30);
        desk.admit(from_ref(limit), 1);
    }
    limits
}

/// A shadow refuses nobody, not even where nothing is known of it.
#[test]
fn a_shadow_of_a_redis_that_is_down_refuses_nobody() {
    let mut desk = Desk::new();
    desk.redis_down = RedisDown::Closed;
    let shadow = Limit {
        shadow: true,
        ..minute(2)
    };
    for limits in [vec![shadow.clone()], vec![shadow, minute(5)]] {
        desk.break_next(Fault::Before(RedisErrorKind::Transport));
        let expected = match limits.len() {
            1 => Verdict::Admitted,
            _ => Verdict::Unavailable,
        };
        assert_eq!(desk.check(&limits).verdict, expected);
    }
}

/// A bucket that an operator has reset, or a flush, is made anew by an isolate that knows of
/// neither: it ends all the same.
#[test]
fn a_bucket_that_was_deleted_ends_when_it_is_made_anew() {
    let desk = Desk::new();
    let limit = Limit {
        algorithm: Algorithm::TokenBucket { burst: 5 },
        ..minute(10)
    };
    for limit in [limit.clone(), costing(&limit, 0)] {
        desk.admit(from_ref(&limit), 2);
        desk.redis.evict("ratelimit:id:route:minute:tat");
        let checked = desk.check(from_ref(&limit));
        desk.send(&checked);
        let ttls = desk.redis.ttls_ms(desk.sim.now_us());
        let ttl = ttls.get("ratelimit:id:route:minute:tat");
        assert!(ttl.is_some_and(Option::is_some), "{ttls:?}");
    }
}

/// A reset by an isolate that does not know Redis' time yet is of the epoch that is, not of
/// the one that its own clock says.
#[test]
fn a_reset_is_of_redis_own_epoch() {
    let desk = Desk::new();
    let limit = Limit {
        algorithm: Algorithm::FixedWindow,
        ..minute(5)
    };
    desk.admit(from_ref(&limit), 5);
    desk.wait(20_000);
    let other = desk.beside();
    other.isolate.edge.skew_us.set(30_000_000);
    let Isolate { edge, memory } = other.isolate.clone();
    let of = limit.clone();
    let (used, after) = desk.sim.block_on(async move {
        let charges = [charge(&of)];
        let used = limit::peek(&memory, &edge, TIMEOUT_MS, &charges).await;
        let fresh = std::cell::RefCell::default();
        let reset = limit::reset(&fresh, &edge, TIMEOUT_MS, &charges).await;
        (used.map(|quotas| quotas[0].remaining), reset)
    });
    assert_eq!((used, after), (Ok(0), Ok(())));
    assert_eq!(
        desk.beside().check(from_ref(&limit)).verdict,
        Verdict::Admitted
    );
}

/// The local mode's own bound and return: at most L in any trailing window of one
/// isolate, refused until the time named and admitted at it.
#[test]
fn the_local_mode_is_an_honest_window() {
    let first = first_seed();
    for seed in first..first + 100 {
        let mut rng = Rng::new(seed);
        let desk = Desk::new();
        let window_ms = rng.pick(&[2_500, 10_000, 61_703]);
        let limit = limit("local", rng.pick(&[1, 7, 20]), window_ms, By::Ip);
        let mut log: Vec<(u64, u32)> = Vec::new();
        for _ in 0..60 {
            desk.wait(rng.pick(&[0, 1, window_ms / 40, window_ms / 7]));
            let limit = costing(
                &limit,
                rng.between(1, u64::from(limit.requests.min(3))) as u32,
            );
            desk.break_next(Fault::Before(RedisErrorKind::Open));
            let mut checked = desk.check(from_ref(&limit));
            if let Verdict::Refused { retry_after_ms, .. } = checked.verdict
                && retry_after_ms > 5
                && rng.chance(30)
            {
                // The failed trips of 4 ms are part of the way.
                desk.wait(retry_after_ms - 5);
                desk.break_next(Fault::Before(RedisErrorKind::Open));
                assert_ne!(
                    desk.check(from_ref(&limit)).verdict,
                    Verdict::Admitted,
                    "EDGEWEIR_SEED={seed}"
                );
                desk.wait(1);
                desk.break_next(Fault::Before(RedisErrorKind::Open));
                checked = desk.check(from_ref(&limit));
                assert_eq!(checked.verdict, Verdict::Admitted, "EDGEWEIR_SEED={seed}");
            }
            if checked.verdict == Verdict::Admitted {
                log.push((desk.sim.now_us() / 1000, limit.cost.miss));
            }
            let newest = log.last().map_or(0, |last| last.0);
            let inside = log.iter().filter(|(at_ms, _)| at_ms + window_ms > newest);
            let sum: u32 = inside.map(|(_, cost)| cost).sum();
            assert!(sum <= limit.requests, "{sum}; EDGEWEIR_SEED={seed}");
        }
    }
}

/// A token bucket stays one while Redis is down: its burst at once and its rate after that,
/// whichever of the two is larger.
#[test]
fn the_local_mode_keeps_a_buckets_burst_and_rate() {
    for (burst, before) in [(10, 0), (10, 4), (300, 0), (300, 120)] {
        let desk = Desk::new();
        let limit = Limit {
            algorithm: Algorithm::TokenBucket { burst },
            ..minute(100)
        };
        desk.admit(from_ref(&limit), before as usize);
        let mut refused_ms = 0;
        let mut admit = |wait_ms: u64, tries: u32| {
            let mut admitted = 0;
            for _ in 0..tries {
                desk.break_next(Fault::Before(RedisErrorKind::Open));
                match desk.check(from_ref(&limit)).verdict {
                    Verdict::Admitted => admitted += 1,
                    Verdict::Refused { retry_after_ms, .. } => refused_ms = retry_after_ms,
                    other => panic!("{other:?}"),
                }
                desk.wait(wait_ms);
            }
            admitted
        };
        let at_once = admit(0, burst + 5);
        let left = burst - before;
        // A failed trip takes some milliseconds, in which the bucket leaks.
        assert!(
            (left..=left + burst / 20 + 1).contains(&at_once),
            "{at_once} of {left}"
        );
        // Three minutes are more than any of them needs to fill.
        let after = admit(300, 600);
        assert!(
            (270..=330).contains(&after),
            "{after} in three minutes, burst {burst}"
        );
        assert!(
            refused_ms <= 62_000,
            "to wait {refused_ms} ms is not its rate"
        );
    }
}

/// A refund that comes after a flush stops at zero and shuts nobody out.
#[test]
fn a_refund_after_a_flush_locks_nobody_out() {
    let desk = Desk::new();
    let limit = minute(3);
    desk.admit(from_ref(&limit), 3);
    let (sim, redis) = (desk.sim.clone(), desk.redis.clone());
    desk.sim
        .at(desk.sim.now_us() + 4_000, move || redis.flush(sim.now_us()));
    let refused = desk.beside();
    refused
        .sim
        .block_on(refused.check_later(from_ref(&limit), Vec::new()));
    desk.admit(from_ref(&limit), 2);
    let key = format!("ratelimit:id:route:minute:{EPOCH}");
    assert!(desk.redis.ttls_ms(desk.sim.now_us())[&key].is_some());
}

/// A key that a flush took gets its expiry again, from an isolate that set it before.
#[test]
fn every_key_ends_even_after_a_flush() {
    let desk = Desk::new();
    let limit = minute(30);
    desk.admit(from_ref(&limit), 3);
    desk.redis.flush(desk.sim.now_us());
    let checked = desk.check(from_ref(&limit));
    desk.send(&checked);
    let ttls = desk.redis.ttls_ms(desk.sim.now_us());
    assert_eq!(ttls.len(), 1);
    assert!(
        ttls.values()
            .all(|ttl_ms| ttl_ms.is_some_and(|ttl_ms| ttl_ms > 120_000))
    );
}

/// When the second trip fails, the time named is late rather than early, and the refund
/// is sent once more only if it certainly did not run.
#[test]
fn a_failed_refund_is_repeated_only_if_it_did_not_run() {
    for (fault, repeats) in [
        (Fault::Before(RedisErrorKind::Open), true),
        (Fault::Before(RedisErrorKind::Unauthorized), true),
        (Fault::Before(RedisErrorKind::Timeout), false),
        (Fault::After(RedisErrorKind::Transport), false),
        (Fault::Replies(Vec::new()), false),
    ] {
        let desk = Desk::new();
        let limit = minute(3);
        desk.admit(from_ref(&limit), 3);
        desk.pass_next();
        desk.break_next(fault.clone());
        let checked = desk.check(from_ref(&limit));
        let Verdict::Refused { retry_after_ms, .. } = checked.verdict else {
            panic!("{fault:?}: {checked:?}");
        };
        assert!(
            (60_000..62_000).contains(&retry_after_ms),
            "{fault:?}: {retry_after_ms}"
        );
        assert_eq!(checked.deferred.len(), usize::from(repeats), "{fault:?}");
        desk.send(&checked);
        let ran = matches!(fault, Fault::After(_) | Fault::Replies(_));
        assert_eq!(
            desk.total(&limit),
            if repeats || ran { 3 } else { 4 },
            "{fault:?}"
        );
        let trips = desk.redis.trips.get();
        desk.check(from_ref(&limit));
        assert!(
            desk.redis.trips.get() > trips,
            "remembered without proof: {fault:?}"
        );
    }
}

/// One limit's key is of a wrong type: Redis did not decide, and what was charged to
/// the other is given back afterwards.
#[test]
fn an_error_for_one_charge_is_redis_down() {
    let desk = Desk::new();
    let limits = [minute(3), limit("hour", 100, 3_600_000, By::Ip)];
    desk.admit(&limits, 1);
    desk.break_next(Fault::Replies(vec![
        Reply::List(vec![Reply::Int(2), Reply::Int(2)]),
        Reply::Error(
            "WRONGTYPE Operation against a key holding the wrong kind of value".to_owned(),
        ),
    ]));
    let checked = desk.check(&limits);
    assert!(checked.degraded);
    assert_eq!(checked.verdict, Verdict::Admitted);
    assert_eq!(checked.deferred.len(), 1);
    desk.send(&checked);
    assert_eq!(desk.total(&limits[0]), 1);
}

/// A counter at its end refuses, and only what was charged is given back.
#[test]
fn a_counter_at_its_end_refuses_without_wrapping() {
    let desk = Desk::new();
    let limit = minute(5);
    desk.redis
        .set(&format!("ratelimit:id:route:minute:{EPOCH}"), [0xff; 4]);
    desk.refusal_ms(from_ref(&limit));
    assert_eq!(desk.total(&limit), u32::MAX);
    let key = format!("ratelimit:id:route:minute:{EPOCH}");
    let bytes = desk.redis.get(&key).unwrap();
    assert!(bytes[4..].iter().all(|byte| *byte == 0));
}

/// Whatever comes back, nothing panics, and what is said stays within the limits.
#[test]
fn no_answer_is_strange_enough_to_panic() {
    let first = first_seed();
    for seed in first..first + 2_000 {
        let mut rng = Rng::new(seed);
        let mut desk = Desk::new();
        desk.redis_down = rng.pick(&[RedisDown::Local, RedisDown::Open, RedisDown::Closed]);
        let limits = [minute(2), limit("wide", 70_000, 2_500, By::Global)];
        if rng.chance(50) {
            desk.admit(&limits, rng.between(1, 2) as usize);
        }
        for _ in 0..3 {
            let replies = (0..rng.between(0, 10))
                .map(|_| strange(&mut rng, 2))
                .collect();
            desk.break_next(Fault::Replies(replies));
        }
        let checked = desk.check(&limits[..rng.between(1, 2) as usize]);
        desk.check(&limits);
        assert!(checked.deferred.len() <= 2, "EDGEWEIR_SEED={seed}");
        assert!(
            checked
                .quotas
                .iter()
                .all(|quota| quota.remaining <= quota.requests)
        );
    }
}

fn strange(rng: &mut Rng, depth: u32) -> Reply {
    match rng.between(0, 7) {
        0 => Reply::Nil,
        1 => Reply::Int(rng.pick(&[-1, 0, 1, 2, i64::from(u32::MAX), i64::MAX, i64::MIN])),
        2 => Reply::Bytes(
            rng.pick(&["", "x", "9", "1770000020", "18446744073709551615"])
                .into(),
        ),
        3 => Reply::Bytes(vec![0xff; rng.between(0, 2_000) as usize]),
        4 => Reply::Error("ERR strange".to_owned()),
        _ if depth == 0 => Reply::List(Vec::new()),
        _ => Reply::List(
            (0..rng.between(0, 3))
                .map(|_| strange(rng, depth - 1))
                .collect(),
        ),
    }
}
