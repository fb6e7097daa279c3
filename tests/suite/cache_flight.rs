//! What an isolate remembers of fills, and of other services' values: bounded, and
//! forgotten in time.

use edgeweir::cache::flight::FlightCell;
use edgeweir::cache::{Adopted, Entry, Flight, Flights, Join};
use edgeweir::http::Headers;

const AGE_MS: u64 = 5_000;

fn leads(join: Join) -> Option<FlightCell> {
    match join {
        Join::Lead(cell) => Some(cell),
        Join::Follow(_) => None,
    }
}

/// The first leads, the others follow and see what became of it, even when it is over.
#[test]
fn one_leads_and_the_others_see_its_outcome() {
    let mut flights = Flights::default();
    let leader = leads(flights.join("a", 0, AGE_MS)).unwrap();
    let Join::Follow(follower) = flights.join("a", 10, AGE_MS) else {
        panic!("two leaders");
    };
    assert!(
        leads(flights.join("b", 10, AGE_MS)).is_some(),
        "another name"
    );
    assert_eq!(*follower.borrow(), Flight::Pending);
    *leader.borrow_mut() = Flight::Uncacheable;
    flights.land("a");
    assert_eq!(*follower.borrow(), Flight::Uncacheable);
    assert!(
        leads(flights.join("a", 20, AGE_MS)).is_some(),
        "a new flight"
    );
}

/// A leader that never ended is replaced after its time.
#[test]
fn a_flight_whose_leader_is_gone_is_replaced() {
    let mut flights = Flights::default();
    assert!(leads(flights.join("a", 0, AGE_MS)).is_some());
    assert!(leads(flights.join("a", AGE_MS, AGE_MS)).is_none());
    assert!(leads(flights.join("a", AGE_MS + 1, AGE_MS)).is_some());
    assert!(
        leads(flights.join("a", AGE_MS + 2, AGE_MS)).is_none(),
        "counted anew"
    );
}

/// Past 1 024 the flights that began first are forgotten, but not by those that wait.
#[test]
fn flights_at_once_are_bounded() {
    let mut flights = Flights::default();
    let first = leads(flights.join("0", 0, AGE_MS)).unwrap();
    for n in 1..2_000 {
        assert!(leads(flights.join(&n.to_string(), 0, AGE_MS)).is_some());
    }
    assert!(matches!(flights.join("1999", 1, AGE_MS), Join::Follow(_)));
    assert!(leads(flights.join("0", 1, AGE_MS)).is_some());
    *first.borrow_mut() = Flight::Uncacheable;
    let Join::Follow(second) = flights.join("0", 2, AGE_MS) else {
        panic!("two leaders");
    };
    assert_eq!(*second.borrow(), Flight::Pending);
}

/// An uncacheable key is known until its time, and the oldest of too many is forgotten.
#[test]
fn uncacheable_keys_are_remembered_for_a_while() {
    let mut flights = Flights::default();
    flights.remember_uncacheable("a", 100);
    assert!(flights.is_uncacheable("a", 99));
    assert!(!flights.is_uncacheable("a", 100));
    for n in 0..3_000 {
        flights.remember_uncacheable(&n.to_string(), 100);
        flights.remember_uncacheable("2999", 100);
    }
    let known = (0..3_000).filter(|n| flights.is_uncacheable(&n.to_string(), 1));
    let known: Vec<u32> = known.collect();
    assert!(
        known.len() <= 2_048 && known.len() >= 1_024,
        "{}",
        known.len()
    );
    assert!(!known.contains(&0) && known.contains(&2_998));
}

/// Patience: two usual fetches of the key, or else of its route, at least a second, at most
/// what is said.
#[test]
fn patience_follows_the_usual_time_of_a_fetch() {
    let mut flights = Flights::default();
    let patience_ms = |flights: &Flights, route, key| flights.patience_ms(route, key, 10_000);
    assert_eq!(patience_ms(&flights, 1, "a"), 10_000, "nothing is known");
    flights.hint(1, 2_000);
    assert_eq!(patience_ms(&flights, 1, "a"), 4_000, "what an entry says");
    flights.learn(1, "a", 600);
    flights.hint(1, 9_000);
    assert_eq!(patience_ms(&flights, 1, "a"), 1_200, "its own");
    assert_eq!(patience_ms(&flights, 1, "b"), 3_650, "its route's");
    assert_eq!(patience_ms(&flights, 2, "c"), 10_000, "another route");
    for _ in 0..50 {
        flights.learn(1, "a", 20);
    }
    assert_eq!(patience_ms(&flights, 1, "a"), 1_000);
    for _ in 0..50 {
        flights.learn(1, "a", 8_000);
    }
    assert_eq!(patience_ms(&flights, 1, "a"), 10_000);
}

fn value(etag: &str, stored_ms: u64, fresh_until_ms: u64) -> Entry {
    Entry {
        status: 200,
        headers: Headers::from_iter([("etag", etag)]),
        body: b"[]"[..].into(),
        stored_ms,
        fresh_until_ms,
        stale_until_ms: fresh_until_ms,
        took_ms: None,
    }
}

/// Another service's value is known by what it is, until its time is over.
#[test]
fn an_adopted_value_is_recalled_while_it_is_the_same() {
    let mut adopted = Adopted::default();
    adopted.learn("k", &value("\"1\"", 100, 900));
    let mut seen = value("\"1\"", 500, 500);
    assert!(adopted.recall("k", &mut seen, 899));
    assert_eq!(seen, value("\"1\"", 100, 900));
    for (key, etag, now_ms) in [
        ("k", "\"1\"", 900),
        ("k", "\"2\"", 500),
        ("other", "\"1\"", 500),
    ] {
        let mut seen = value(etag, 500, 500);
        assert!(
            !adopted.recall(key, &mut seen, now_ms),
            "{key} {etag} {now_ms}"
        );
        assert_eq!(seen, value(etag, 500, 500));
    }
    adopted.learn("k", &value("\"2\"", 600, 1_000));
    assert!(adopted.recall("k", &mut value("\"2\"", 700, 700), 999));
    for n in 0..2_048 {
        adopted.learn(&n.to_string(), &value("\"n\"", 0, 1_000));
    }
    let recalls = |key: &str, etag: &str| adopted.recall(key, &mut value(etag, 700, 700), 700);
    assert!(recalls("k", "\"2\""), "it was used once more");
    assert!(!recalls("0", "\"n\""), "the oldest is forgotten");
    assert!(recalls("2047", "\"n\""));
}
