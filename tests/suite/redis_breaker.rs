//! The breaker: opens after three failures in a row, and only one probe at a time,
//! after its backoff, closes it.

use edgeweir::redis::breaker::{
    Breaker, FAILURES_TO_OPEN, FIRST_BACKOFF_MS, MAX_BACKOFF_MS, PROBE_LEASE_MS,
};
use proptest::prelude::*;

fn opened(seed: u64, now_ms: u64) -> Breaker {
    let mut breaker = Breaker::new(seed);
    for _ in 0..FAILURES_TO_OPEN {
        breaker.failed(now_ms);
    }
    assert!(breaker.is_open());
    breaker
}

/// How long after `now_ms` the probe may be claimed.
fn backoff(breaker: Breaker, now_ms: u64) -> u64 {
    (0..=MAX_BACKOFF_MS + 1)
        .find(|wait_ms| { breaker }.claim_probe(now_ms + wait_ms))
        .expect("a probe is due some day")
}

#[test]
fn a_success_between_failures_keeps_it_closed() {
    let mut breaker = Breaker::new(1);
    for _ in 0..10 {
        breaker.failed(0);
        breaker.failed(0);
        assert!(!breaker.is_open());
        breaker.succeeded();
    }
    assert!(!breaker.claim_probe(u64::MAX));
}

#[test]
fn the_backoff_doubles_from_one_second_to_thirty_with_jitter() {
    let mut now_ms = 1_000_000;
    let mut breaker = opened(7, now_ms);
    for longest_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000] {
        let wait_ms = backoff(breaker, now_ms);
        assert!(
            (longest_ms / 2..=longest_ms).contains(&wait_ms),
            "{wait_ms} ms of {longest_ms} ms"
        );
        now_ms += wait_ms;
        assert!(breaker.claim_probe(now_ms));
        breaker.probe_failed(now_ms);
    }
    let waits: std::collections::BTreeSet<u64> =
        (0..50).map(|seed| backoff(opened(seed, 0), 0)).collect();
    assert!(waits.len() > 25, "isolates probe together: {waits:?}");
}

#[test]
fn after_a_probe_one_failure_opens_it_again_and_one_success_forgives() {
    let mut breaker = opened(3, 0);
    assert!(breaker.claim_probe(FIRST_BACKOFF_MS));
    breaker.probe_succeeded();
    assert!(!breaker.is_open());
    breaker.failed(2_000);
    assert!(breaker.is_open(), "PING alone works");
    assert!(backoff(breaker, 2_000) >= FIRST_BACKOFF_MS);

    assert!(breaker.claim_probe(10_000));
    breaker.probe_succeeded();
    breaker.succeeded();
    breaker.failed(10_000);
    breaker.failed(10_000);
    assert!(!breaker.is_open());
    breaker.failed(10_000);
    assert!(backoff(breaker, 10_000) <= FIRST_BACKOFF_MS);
}

#[test]
fn trips_that_were_under_way_change_nothing_while_it_is_open() {
    let breaker = opened(3, 0);
    let mut after = breaker;
    after.failed(100);
    after.succeeded();
    after.probe_succeeded();
    after.probe_failed(100);
    assert_eq!(after, breaker);
}

#[test]
fn a_lost_probe_is_followed_by_another_one() {
    let mut breaker = opened(3, 0);
    assert!(breaker.claim_probe(1_000));
    assert!(!breaker.claim_probe(1_000 + PROBE_LEASE_MS - 1));
    assert!(breaker.claim_probe(1_000 + PROBE_LEASE_MS));
}

#[test]
fn a_clock_that_was_set_back_does_not_keep_it_open() {
    let mut breaker = opened(3, 1_000_000_000);
    assert!(breaker.claim_probe(5));
    assert!(!breaker.claim_probe(6));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    /// In any order of events: closed trips only, one probe at a time, none before its
    /// backoff, and the breaker opens only after as many failures as it says.
    #[test]
    fn any_history_keeps_its_promises(seed in any::<u64>(), events in prop::collection::vec((0_u8..5, 0_u64..4_000), 0..300)) {
        let mut breaker = Breaker::new(seed);
        let mut now_ms = 0;
        let mut failures = 0;
        let mut opened_ms = 0;
        let mut probe_ms: Option<u64> = None;
        for (event, step_ms) in events {
            now_ms += step_ms;
            // The client ends a probe at its lease, so an older one is gone.
            probe_ms = probe_ms.filter(|began_ms| now_ms < began_ms + PROBE_LEASE_MS);
            let was_open = breaker.is_open();
            match event {
                0 => {
                    breaker.failed(now_ms);
                    if !was_open {
                        failures += 1;
                    }
                }
                1 => {
                    breaker.succeeded();
                    if !was_open {
                        failures = 0;
                    }
                }
                2 if breaker.claim_probe(now_ms) => {
                    prop_assert!(was_open);
                    prop_assert!(probe_ms.is_none(), "two probes at once");
                    prop_assert!(now_ms - opened_ms >= FIRST_BACKOFF_MS / 2);
                    probe_ms = Some(now_ms);
                }
                3 if probe_ms.is_some() => {
                    breaker.probe_succeeded();
                    prop_assert!(!breaker.is_open());
                    probe_ms = None;
                    failures = FAILURES_TO_OPEN - 1;
                }
                4 if probe_ms.is_some() => {
                    breaker.probe_failed(now_ms);
                    prop_assert!(breaker.is_open());
                    probe_ms = None;
                    opened_ms = now_ms;
                }
                _ => {}
            }
            if !was_open {
                prop_assert_eq!(breaker.is_open(), failures >= FAILURES_TO_OPEN);
                if breaker.is_open() {
                    opened_ms = now_ms;
                }
            }
            // It can always recover: far enough in the future a probe is due.
            prop_assert_eq!(breaker.is_open(), { breaker }.claim_probe(now_ms + 2 * MAX_BACKOFF_MS));
        }
    }
}
