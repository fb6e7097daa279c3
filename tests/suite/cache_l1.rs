//! What an isolate keeps of entries: within its bytes, and never what a purge covers.

use std::cell::Cell;
use std::collections::BTreeMap;

use edgeweir::cache::l1::{LONG_BYTES, Moment};
use edgeweir::cache::lookup::Ask;
use edgeweir::cache::purge::Purge;
use edgeweir::cache::{Entry, Found, L1, Lookup, Seen};
use edgeweir::http::{Bytes, Headers};

use super::sim::{Rng, first_seed};

const NOW_MS: u64 = 1_770_000_000_000;

fn lookup(n: u64) -> Lookup {
    Lookup {
        key: format!("books:{n}"),
        tags: vec!["books".to_owned(), format!("book:{n}")],
        ..Lookup::default()
    }
}

fn entry(bytes: usize) -> Entry {
    Entry {
        status: 200,
        headers: Headers::from_iter([("etag", "\"e\""), ("content-type", "application/json")]),
        body: vec![b'1'; bytes].into(),
        stored_ms: NOW_MS,
        fresh_until_ms: NOW_MS + 600_000,
        stale_until_ms: NOW_MS + 900_000,
        took_ms: None,
    }
}

fn seen(found: Found) -> Seen {
    Seen {
        found,
        generations: ["k", "b", "c"].map(|name| Some(name.to_owned())).to_vec(),
        expiry: Some(7),
        is_local: false,
        origin_tags: Vec::new(),
        is_unread: false,
    }
}

fn learn(l1: &mut L1, n: u64, bytes: usize, now_ms: u64) {
    let left = l1.moment(now_ms);
    l1.learn(&lookup(n), &mut seen(Found::Fresh(entry(bytes))), left);
}

/// Whatever is kept and whatever replaces it, the sum is that of what can be served, and
/// never above the bound.
#[test]
fn the_bytes_are_bounded_and_counted_right() {
    const MOST: usize = 64 * 1024;
    let first = first_seed();
    for seed in first..first + 40 {
        let mut rng = Rng::new(seed);
        let mut l1 = L1::new(MOST);
        let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
        for step in 0..500 {
            let n = rng.between(0, 60);
            match rng.between(0, 9) {
                0 => {
                    let left = l1.moment(NOW_MS);
                    let other = rng.pick(&[Found::Missing, Found::Foreign(entry(5))]);
                    l1.learn(&lookup(n), &mut seen(other), left);
                }
                1 | 2 => drop(l1.trusted(&lookup(n), 1_000, NOW_MS)),
                _ => {
                    let bytes = rng.between(0, 12_000) as usize;
                    learn(&mut l1, n, bytes, NOW_MS);
                    sizes.insert(n, bytes);
                }
            }
            assert!(l1.bytes() <= MOST, "seed {seed}, step {step}");
            let there = |n: &u64| l1.is_trusted(&lookup(*n), 1_000, NOW_MS);
            let bodies: usize = (sizes.iter())
                .filter(|(n, _)| there(n))
                .map(|(_, bytes)| *bytes)
                .sum();
            let count = sizes.keys().filter(|n| there(n)).count();
            let beside = l1.bytes() - bodies;
            // A place in the map, a key, three generations and two headers.
            assert!(
                (count * 700..=count * 900).contains(&beside),
                "seed {seed}, step {step}: {beside} bytes beside {count} bodies"
            );
        }
        let largest = sizes
            .keys()
            .filter(|n| l1.is_trusted(&lookup(**n), 1_000, NOW_MS));
        assert!(largest.count() > 3, "seed {seed}: it keeps next to nothing");
    }
}

/// What would take more than an eighth is not kept, and pushes nothing out.
#[test]
fn what_is_too_large_is_not_kept() {
    let mut l1 = L1::new(80_000);
    learn(&mut l1, 1, 5_000, NOW_MS);
    learn(&mut l1, 2, 10_000, NOW_MS);
    assert!(l1.is_trusted(&lookup(1), 1_000, NOW_MS));
    assert!(!l1.is_trusted(&lookup(2), 1_000, NOW_MS));
    // In the place of one that fits it ends that one.
    learn(&mut l1, 1, 10_000, NOW_MS);
    assert!(!l1.is_trusted(&lookup(1), 1_000, NOW_MS));
    assert_eq!(l1.bytes(), 0);
}

/// A reading that brings what is kept is answered with the kept body, and so with all that
/// was made of it; one that brings another body or another life is not.
#[test]
fn a_body_that_is_the_same_is_the_one_that_is_kept() {
    let mut l1 = L1::default();
    learn(&mut l1, 1, 500, NOW_MS);
    let made = Cell::new(0);
    let mut makes = |entry: Entry| {
        let mut seen = seen(Found::Fresh(entry));
        let left = l1.moment(NOW_MS);
        l1.learn(&lookup(1), &mut seen, left);
        let Found::Fresh(entry) = seen.found else {
            panic!("it is fresh");
        };
        entry.body.twin(&|bytes: &[u8]| {
            made.set(made.get() + 1);
            bytes.len()
        });
        made.get()
    };
    assert_eq!(makes(entry(500)), 1);
    assert_eq!(makes(entry(500)), 1);
    let other = |stored_ms| Entry {
        body: vec![b'2'; 500].into(),
        stored_ms,
        ..entry(500)
    };
    assert_eq!(makes(other(NOW_MS)), 2);
    assert_eq!(makes(other(NOW_MS)), 2);
    assert_eq!(makes(other(NOW_MS + 1)), 3);
    assert_eq!(makes(entry(500)), 4);
}

/// Trusted for `l1` after the trip left, to the millisecond; not before it left, not when
/// it is over, and of negative entries too.
#[test]
fn an_entry_is_trusted_for_its_time_after_its_trip_left() {
    let mut l1 = L1::default();
    learn(&mut l1, 1, 10, NOW_MS);
    for (l1_ms, now_ms, expected) in [
        (1_000, NOW_MS, true),
        (1_000, NOW_MS + 999, true),
        (1_000, NOW_MS + 1_000, false),
        (0, NOW_MS, false),
        (1_000, NOW_MS - 1, false),
        (60_000, NOW_MS + 59_999, true),
    ] {
        let served = l1.trusted(&lookup(1), l1_ms, now_ms);
        assert_eq!(served.is_some(), expected, "{l1_ms} {now_ms}");
        assert!(served.is_none_or(|seen| seen.is_local));
    }
    let mut over = entry(10);
    over.fresh_until_ms = NOW_MS + 500;
    over.status = 404;
    let left = l1.moment(NOW_MS);
    l1.learn(&lookup(2), &mut seen(Found::Fresh(over)), left);
    assert!(l1.is_trusted(&lookup(2), 1_000, NOW_MS + 499));
    assert!(!l1.is_trusted(&lookup(2), 1_000, NOW_MS + 500));
}

/// Only what Redis had, fresh and of our own, is kept; anything else ends what was.
#[test]
fn nothing_else_than_fresh_entries_of_our_own_is_kept() {
    for found in [
        Found::Missing,
        Found::Foreign(entry(10)),
        Found::Stale(entry(10)),
    ] {
        let mut l1 = L1::default();
        let left = l1.moment(NOW_MS);
        l1.learn(&lookup(1), &mut seen(found.clone()), left);
        assert!(l1.last_resort(&lookup(1), NOW_MS).is_none(), "{found:?}");
        learn(&mut l1, 1, 10, NOW_MS);
        assert!(l1.last_resort(&lookup(1), NOW_MS).is_some());
        let left = l1.moment(NOW_MS);
        l1.learn(&lookup(1), &mut seen(found.clone()), left);
        assert!(l1.last_resort(&lookup(1), NOW_MS).is_none(), "{found:?}");
        assert_eq!(l1.bytes(), 0, "{found:?}");
    }
}

/// A long body is validated once its expiry is known; a short one is read whole.
#[test]
fn long_bodies_are_validated_and_short_ones_read() {
    let mut l1 = L1::default();
    learn(&mut l1, 1, LONG_BYTES - 1, NOW_MS);
    learn(&mut l1, 2, LONG_BYTES, NOW_MS);
    let left = l1.moment(NOW_MS);
    let mut unknown = Seen {
        expiry: None,
        ..seen(Found::Fresh(entry(LONG_BYTES)))
    };
    l1.learn(&lookup(3), &mut unknown, left);
    let asks = [0, 1, 2, 3].map(|n| l1.ask(&lookup(n), NOW_MS + 1));
    let expected = [Ask::Whole, Ask::Whole, Ask::Changes, Ask::WholeAndExpiry];
    assert_eq!(asks, expected);
    // What `KEEPTTL` hides is read after a minute, and the end of an entry is not slept through.
    assert_eq!(l1.ask(&lookup(2), NOW_MS + 59_999), Ask::Changes);
    assert_eq!(l1.ask(&lookup(2), NOW_MS + 60_000), Ask::WholeAndExpiry);
    assert_eq!(l1.ask(&lookup(2), NOW_MS + 600_000), Ask::Whole);
}

/// Another generation, another expiry, or none: no validation.
#[test]
fn a_validation_finds_every_change() {
    let validate = |generations: [Option<&str>; 3], expiry, now_ms| {
        let mut l1 = L1::default();
        learn(&mut l1, 1, LONG_BYTES, NOW_MS);
        let left = l1.moment(now_ms);
        let brought = Seen {
            generations: generations.map(|name| name.map(str::to_owned)).to_vec(),
            expiry,
            ..seen(Found::Missing)
        };
        l1.validated(&lookup(1), brought, left, now_ms)
    };
    let same = [Some("k"), Some("b"), Some("c")];
    let served = validate(same, Some(7), NOW_MS + 5_000).unwrap();
    assert!(served.is_local && matches!(served.found, Found::Fresh(_)));
    for expiry in [None, Some(6), Some(8)] {
        assert_eq!(validate(same, expiry, NOW_MS), None, "{expiry:?}");
    }
    for place in 0..3 {
        for other in [None, Some("x")] {
            let mut generations = same;
            generations[place] = other;
            assert_eq!(validate(generations, Some(7), NOW_MS), None);
        }
    }
    assert_eq!(validate(same, Some(7), NOW_MS + 600_000), None);
}

fn purge(keys: &[&str], tags: &[&str]) -> Purge {
    let mut purge = Purge::default();
    purge.keys.extend(keys.iter().map(|key| (*key).to_owned()));
    purge.tags.extend(tags.iter().map(|tag| (*tag).to_owned()));
    purge
}

/// A purge hides what it covers from all trips that had left, and nothing else.
#[test]
fn a_purge_hides_what_it_covers() {
    for (purged, expected) in [
        (purge(&["books:1"], &[]), [false, true]),
        (purge(&[], &["book:1"]), [false, true]),
        (purge(&[], &["books"]), [false, false]),
        (purge(&["books:3"], &["book:3"]), [true, true]),
    ] {
        let mut l1 = L1::default();
        learn(&mut l1, 1, 10, NOW_MS);
        learn(&mut l1, 2, 10, NOW_MS);
        let under_way = l1.moment(NOW_MS);
        l1.purge(&purged);
        let trusted = |l1: &L1| [1, 2].map(|n| l1.is_trusted(&lookup(n), 1_000, NOW_MS));
        assert_eq!(trusted(&l1), expected, "{purged:?}");
        let resort = [1, 2].map(|n| l1.last_resort(&lookup(n), NOW_MS).is_some());
        assert_eq!(resort, expected, "{purged:?}");
        for n in [1, 2] {
            let mut old = seen(Found::Fresh(entry(11)));
            l1.learn(&lookup(n), &mut old, under_way);
        }
        assert_eq!(trusted(&l1), expected, "a reading under way: {purged:?}");
        learn(&mut l1, 1, 12, NOW_MS);
        learn(&mut l1, 2, 12, NOW_MS);
        assert_eq!(trusted(&l1), [true, true], "read since: {purged:?}");
    }
}

/// Purges that are forgotten, and one of too many names, hide everything older.
#[test]
fn what_a_forgotten_purge_may_cover_is_hidden() {
    let mut l1 = L1::default();
    learn(&mut l1, 1, 10, NOW_MS);
    for n in 0..32 {
        l1.purge(&purge(&[&format!("other:{n}")], &[]));
        assert!(l1.is_trusted(&lookup(1), 1_000, NOW_MS), "{n}");
    }
    l1.purge(&purge(&["other"], &[]));
    assert!(!l1.is_trusted(&lookup(1), 1_000, NOW_MS));
    learn(&mut l1, 1, 10, NOW_MS);
    let names: Vec<String> = (0..65).map(|n| format!("other:{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    l1.purge(&purge(&names, &[]));
    assert!(!l1.is_trusted(&lookup(1), 1_000, NOW_MS));
    learn(&mut l1, 1, 10, NOW_MS);
    assert!(l1.is_trusted(&lookup(1), 1_000, NOW_MS));
}

/// An answer that comes after that of a later trip does not undo it.
#[test]
fn a_late_answer_does_not_undo_a_later_one() {
    let mut l1 = L1::default();
    let (first, second): (Moment, Moment) = (l1.moment(NOW_MS), l1.moment(NOW_MS + 5));
    l1.learn(&lookup(1), &mut seen(Found::Fresh(entry(20))), second);
    l1.learn(&lookup(1), &mut seen(Found::Fresh(entry(10))), first);
    let kept = l1.last_resort(&lookup(1), NOW_MS + 5).unwrap();
    assert_eq!(kept.body.len(), 20);
    l1.learn(&lookup(1), &mut seen(Found::Missing), first);
    assert!(l1.is_trusted(&lookup(1), 1_000, NOW_MS + 1_004));
}

/// A minute after Redis was asked nobody knows any more what has been purged.
#[test]
fn the_last_resort_lasts_a_minute() {
    let mut l1 = L1::default();
    learn(&mut l1, 1, 10, NOW_MS);
    assert!(l1.last_resort(&lookup(1), NOW_MS + 59_999).is_some());
    assert!(l1.last_resort(&lookup(1), NOW_MS + 60_000).is_none());
    learn(&mut l1, 1, 10, NOW_MS + 590_000);
    assert!(
        l1.last_resort(&lookup(1), NOW_MS + 620_000).is_some(),
        "stale"
    );
    let left = l1.moment(NOW_MS + 890_000);
    l1.learn(&lookup(1), &mut seen(Found::Fresh(entry(10))), left);
    assert!(l1.last_resort(&lookup(1), NOW_MS + 900_000).is_none());
}

#[test]
fn what_the_platform_makes_of_a_body_is_made_once_for_all_who_share_it() {
    let made = std::cell::Cell::new(0);
    let make = |bytes: &[u8]| {
        made.set(made.get() + 1);
        bytes.len()
    };
    let body = Bytes::from(vec![b'1'; 3]);
    assert_eq!(body.twin(&make), None, "nobody shares it");
    let shared = body.clone();
    assert_eq!(body.twin(&make), Some(&3));
    assert_eq!(shared.twin(&make), Some(&3));
    assert_eq!(made.get(), 1);
}
