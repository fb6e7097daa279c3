//! What an MGET means for an entry: served, stale, another service's, or missing.

use edgeweir::cache::entry::{Meta, Origin, hash};
use edgeweir::cache::lookup::Ask;
use edgeweir::cache::{Found, Lookup, Lookups, Seen};
use edgeweir::http::Headers;
use edgeweir::redis::{Reply, Word};
use proptest::prelude::*;

const NOW_MS: u64 = 1_770_000_000_000;
const BODY: &str = r#"{"books":[1,2]}"#;

fn lookup() -> Lookup {
    Lookup {
        key: "books:top:all".to_owned(),
        tags: vec!["books".to_owned(), "category:7".to_owned()],
        ..Lookup::default()
    }
}

fn whole(lookups: impl IntoIterator<Item = Lookup>) -> Lookups {
    let mut all = Lookups::default();
    for lookup in lookups {
        all.push(lookup, Ask::Whole);
    }
    all
}

/// Generations of the key, of all prefixes and of its two tags.
fn generations() -> Vec<String> {
    ["k1", "p1", "b1", "c1"].map(str::to_owned).to_vec()
}

fn meta() -> Meta {
    Meta {
        origin: Origin::Edge,
        status: 200,
        headers: Headers::from_iter([("etag", "\"e\"")]),
        stored: NOW_MS - 10_000,
        fresh_until: NOW_MS + 1,
        stale_until: NOW_MS + 60_000,
        generations: generations(),
        hash: hash(BODY.as_bytes()),
        body: None,
        tags: Vec::new(),
        took: Some(20),
    }
}

fn negative() -> Meta {
    Meta {
        origin: Origin::Negative,
        status: 404,
        body: Some("gone".to_owned()),
        hash: hash(b"gone"),
        ..meta()
    }
}

fn text(value: &str) -> Reply {
    Reply::Bytes(value.as_bytes().to_vec())
}

/// What is found for a body, a meta record and generations, each there or not.
fn seen(body: Option<&[u8]>, record: Option<&[u8]>, generations: &[Option<&str>]) -> Seen {
    let bytes = |value: Option<&[u8]>| value.map_or(Reply::Nil, |v| Reply::Bytes(v.to_vec()));
    let mut values = vec![bytes(body), bytes(record)];
    values.extend(generations.iter().map(|g| g.map_or(Reply::Nil, text)));
    let lookups = whole([lookup()]);
    let mut seen = lookups.judge(&[Reply::List(values)], NOW_MS).unwrap();
    assert_eq!(seen.len(), 1);
    seen.remove(0)
}

fn found(body: Option<&str>, record: Option<&Meta>, generations: &[Option<&str>]) -> Found {
    let record = record.map(|meta| meta.write().into_bytes());
    seen(body.map(str::as_bytes), record.as_deref(), generations).found
}

const CURRENT: [Option<&str>; 4] = [Some("k1"), Some("p1"), Some("b1"), Some("c1")];

#[test]
fn asks_for_entry_record_and_generations_in_one_mget_each_name_once() {
    let twin = Lookup {
        key: "books:newest:all".to_owned(),
        tags: vec!["books".to_owned()],
        ..Lookup::default()
    };
    let command = whole([lookup(), twin]).command();
    let expected = [
        "MGET",
        "books:top:all",
        "meta:books:top:all",
        "gen:key:books:top:all",
        "gen:key:",
        "gen:books",
        "gen:category:7",
        "books:newest:all",
        "meta:books:newest:all",
        "gen:key:books:newest:all",
    ];
    let expected: Vec<Word> = expected.into_iter().map(Word::from).collect();
    assert_eq!(command.words(), expected);
}

#[test]
fn an_entry_is_fresh_to_its_last_millisecond_then_stale_then_missing() {
    let at = |fresh_until, stale_until| {
        let meta = Meta {
            fresh_until,
            stale_until,
            ..meta()
        };
        found(Some(BODY), Some(&meta), &CURRENT)
    };
    let Found::Fresh(entry) = at(NOW_MS + 1, NOW_MS + 1) else {
        panic!("not fresh a millisecond before its end");
    };
    assert_eq!(&*entry.body, BODY.as_bytes());
    assert_eq!(entry.status, 200);
    assert_eq!(entry.headers.get("etag"), Some("\"e\""));
    assert_eq!(entry.age_s(NOW_MS), 10);
    assert!(matches!(at(NOW_MS, NOW_MS + 1), Found::Stale(_)));
    assert_eq!(at(NOW_MS, NOW_MS), Found::Missing);
    assert_eq!(at(NOW_MS - 5, NOW_MS - 1), Found::Missing);
}

#[test]
fn any_generation_that_changed_or_is_gone_makes_an_entry_missing() {
    for record in [meta(), negative()] {
        let body = (record.origin == Origin::Edge).then_some(BODY);
        let hit = found(body, Some(&record), &CURRENT);
        assert!(matches!(hit, Found::Fresh(_)), "{:?}", record.origin);
        for place in 0..4 {
            for other in [None, Some("new"), Some("")] {
                let mut now = CURRENT;
                now[place] = other;
                let found = found(body, Some(&record), &now);
                assert_eq!(found, Found::Missing, "{place} {other:?}");
            }
        }
        for count in [0, 2, 3, 5] {
            let mut record = record.clone();
            record.generations.resize(count, "k1".to_owned());
            let found = found(body, Some(&record), &CURRENT);
            assert_eq!(found, Found::Missing, "{count} generations in the record");
        }
    }
}

#[test]
fn generations_are_told_as_they_were_at_the_lookup() {
    let seen = seen(None, None, &[Some("k1"), None, None, Some("c1")]);
    let expected = [Some("k1".to_owned()), None, None, Some("c1".to_owned())];
    assert_eq!(seen.generations, expected);
    assert_eq!(seen.found, Found::Missing);
}

#[test]
fn a_body_without_a_record_of_its_own_is_another_services() {
    let replaced = r#"{"books":[3]}"#;
    for (body, record) in [
        (BODY, None),
        (replaced, Some(meta())),
        (BODY, Some(negative())),
    ] {
        for generations in [CURRENT, [None; 4]] {
            let Found::Foreign(entry) = found(Some(body), record.as_ref(), &generations) else {
                panic!("{body} is not served");
            };
            assert_eq!(&*entry.body, body.as_bytes());
            assert_eq!(entry.headers.get("content-type"), Some("application/json"));
            let etag = format!("\"{}\"", hash(body.as_bytes()));
            assert_eq!(entry.headers.get("etag"), Some(etag.as_str()));
        }
    }
}

#[test]
fn only_valid_json_in_utf8_is_served_from_another_service() {
    for body in [
        &b"<html>"[..],
        b"",
        b"{",
        b"\x80\x02N.",
        b"\"\xff\"",
        b"{\"a\":1}x",
        b"\xef\xbb\xbf{}",
    ] {
        let found = seen(Some(body), None, &CURRENT).found;
        assert_eq!(found, Found::Missing, "{}", String::from_utf8_lossy(body));
    }
    for body in [&b"null"[..], b" [1] \n", b"\"\xc3\xa9\""] {
        let found = seen(Some(body), None, &CURRENT).found;
        assert!(matches!(found, Found::Foreign(_)));
    }
}

#[test]
fn a_record_without_its_body_is_missing_unless_it_is_a_negative_one() {
    assert_eq!(found(None, Some(&meta()), &CURRENT), Found::Missing);
    let Found::Fresh(entry) = found(None, Some(&negative()), &CURRENT) else {
        panic!("the negative entry is not served");
    };
    assert_eq!((entry.status, &*entry.body), (404, &b"gone"[..]));
    let over = Meta {
        fresh_until: NOW_MS,
        stale_until: NOW_MS,
        ..negative()
    };
    assert_eq!(found(None, Some(&over), &CURRENT), Found::Missing);
}

#[test]
fn a_record_that_says_what_is_never_stored_counts_as_none() {
    let missing = |record: Meta| {
        let body = (record.origin != Origin::Negative).then_some(BODY);
        let record = record.write().into_bytes();
        let found = seen(body.map(str::as_bytes), Some(&record), &CURRENT).found;
        !matches!(found, Found::Fresh(_) | Found::Stale(_))
    };
    for status in [0, 101, 204, 304, 404, 500, 999, 65_535] {
        assert!(missing(Meta { status, ..meta() }), "{status}");
    }
    for status in [0, 101, 200, 304, 500, 999] {
        assert!(
            missing(Meta {
                status,
                ..negative()
            }),
            "{status}"
        );
    }
    let unknown = meta().write();
    let unknown = unknown.replace("\"edge\"", "\"elsewhere\"");
    let found = seen(Some(BODY.as_bytes()), Some(unknown.as_bytes()), &CURRENT).found;
    assert!(matches!(found, Found::Foreign(_)));
}

#[test]
fn another_number_of_values_than_keys_or_no_list_is_no_answer() {
    let lookups = whole([lookup()]);
    for count in [0, 1, 5, 7] {
        let reply = Reply::List(vec![Reply::Nil; count]);
        assert_eq!(lookups.judge(&[reply], NOW_MS), None, "{count}");
    }
    for reply in [
        Reply::Nil,
        Reply::Int(5),
        text("x"),
        Reply::Error("ERR".to_owned()),
    ] {
        assert_eq!(lookups.judge(&[reply], NOW_MS), None);
    }
    let whole = Reply::List(vec![Reply::Nil; 6]);
    assert_eq!(
        lookups.judge(&[whole], NOW_MS).map(|seen| seen.len()),
        Some(1)
    );
}

fn any_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        Just(Reply::Nil),
        any::<i64>().prop_map(Reply::Int),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Reply::Bytes),
        Just(text(BODY)),
        Just(text("k1")),
        Just(Reply::List(vec![Reply::Nil])),
        Just(Reply::Error("WRONGTYPE".to_owned())),
        mutated_record().prop_map(Reply::Bytes),
    ]
}

/// A right record with one byte changed, or cut off.
fn mutated_record() -> impl Strategy<Value = Vec<u8>> {
    let whole = meta().write().into_bytes();
    let length = whole.len();
    (0..length, any::<u8>(), any::<bool>()).prop_map(move |(at, byte, cuts)| {
        let mut record = whole.clone();
        record[at] = byte;
        if cuts {
            record.truncate(at);
        }
        record
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 600, ..ProptestConfig::default() })]

    /// Nothing that Redis may hold makes a lookup panic, or be served as ours unless its
    /// hash and its generations are right.
    #[test]
    fn random_values_never_panic_and_never_pass_for_ours(
        values in proptest::collection::vec(any_reply(), 6)
    ) {
        let lookups = whole([lookup()]);
        let seen = lookups.judge(&[Reply::List(values.clone())], NOW_MS).unwrap();
        if let Found::Fresh(entry) | Found::Stale(entry) = &seen[0].found {
            prop_assert_eq!(values[0].as_bytes(), Some(&*entry.body));
            let record = Meta::read(values[1].as_bytes().unwrap()).unwrap();
            prop_assert_eq!(record.hash, hash(&entry.body));
            let now: Vec<_> = seen[0].generations.iter().flatten().cloned().collect();
            prop_assert!(record.generations == now);
        }
    }
}
