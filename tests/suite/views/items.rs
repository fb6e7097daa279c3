//! Items and views: what is in which key, and that nobody can be told from it.

use std::collections::BTreeSet;

use edgeweir::views::item::{Item, MAX_ID_BYTES, Sight, View};
use edgeweir::views::record::{Counts, Entry, Fixed, Pass, Place, State};
use edgeweir::views::{BUCKETS, DAY_MS, HOUR_MS};

#[test]
fn an_id_comes_back_as_it_was_and_forges_no_key() {
    for id in [
        "1",
        "a:b",
        "Đắc Nhân Tâm",
        "%41",
        "a/b",
        "*",
        "_items:1:2",
        "\0",
        "👻",
    ] {
        let item = Item::new("story", id).unwrap();
        assert_eq!(item.id(), id);
        assert_eq!(item.kind(), "story");
        assert_eq!(Item::parse(item.member()), Some(item.clone()));
        let key = item.set_key(20_500);
        assert_eq!(key.matches(':').count(), 3, "{key}");
        assert!(key.starts_with("views:story:20500:"), "{key}");
        assert!(item.bucket() < BUCKETS);
    }
    assert_eq!(Item::new("story", ""), None);
    assert!(Item::new("story", &"é".repeat(MAX_ID_BYTES / 2)).is_some());
    assert_eq!(Item::new("story", &"x".repeat(MAX_ID_BYTES + 1)), None);
    for member in ["", "story", "story:", ":1", "story:1:2"] {
        assert_eq!(Item::parse(member), None, "{member}");
    }
}

/// Buckets of many items are about as full as each other: a packed list has room for 128.
#[test]
fn a_million_items_fill_no_bucket() {
    let mut sizes = vec![0_u32; BUCKETS as usize];
    for id in 0..1_000_000 {
        let item = Item::new("story", &id.to_string()).unwrap();
        sizes[item.bucket() as usize] += 1;
    }
    let most = sizes.iter().max().unwrap();
    assert!(*most < 128, "{most}");
}

/// The same viewer, item and day is one number; anything else is another.
#[test]
fn a_view_is_known_by_viewer_item_and_day_alone() {
    let view = |kind: &str, id: &str, viewer: &str, now_ms, key: &[u8]| {
        let item = Item::new(kind, id).unwrap();
        View::new(Sight::new(item, viewer, now_ms), key)
    };
    let noon = 20_500 * DAY_MS + 12 * HOUR_MS;
    let first = view("story", "1", "192.0.2.1", noon, b"key");
    let later = view("story", "1", "192.0.2.1", noon + HOUR_MS, b"key");
    assert_eq!(first.digest, later.digest);
    assert_eq!(first.sight.day, later.sight.day);
    assert_eq!((first.sight.hour, later.sight.hour), (12, 13));
    let others = [
        view("story", "1", "192.0.2.1", noon + DAY_MS, b"key"),
        view("story", "2", "192.0.2.1", noon, b"key"),
        view("chapter", "1", "192.0.2.1", noon, b"key"),
        view("story", "1", "192.0.2.2", noon, b"key"),
        view("story", "1", "user=192.0.2.1", noon, b"key"),
        view("story", "1", "192.0.2.1", noon, b"other"),
    ];
    let mut numbers = BTreeSet::from([first.number()]);
    for other in others {
        assert!(numbers.insert(other.number()), "{other:?}");
        assert!(i64::try_from(other.number()).is_ok());
    }
}

#[test]
fn what_redis_keeps_is_read_as_it_was_written() {
    let mut counts = Counts::default();
    counts.add("story", 3);
    counts.add("story", 4);
    counts.add("chapter", 1);
    assert_eq!((counts.get("story"), counts.get("other")), (7, 0));
    let state = State {
        number: 9,
        last_sync_ms: 1_770_000_000_000,
        begun_ms: 1_769_999_999_000,
        oldest: 20_499,
        base: counts.clone(),
        pass: Some(Pass {
            begun_ms: 5,
            place: Place { day: 1, bucket: 2 },
            sent: counts.clone(),
            seen: counts,
        }),
    };
    assert_eq!(State::read(state.write().as_bytes()), Some(state.clone()));
    let idle = State {
        pass: None,
        ..state
    };
    assert_eq!(State::read(idle.write().as_bytes()), Some(idle));
    let entry = |day, id: &str, sent, upto| Entry {
        day,
        item: Item::new("story", id).unwrap(),
        sent,
        upto,
    };
    let batch = Fixed {
        id: "0123".to_owned(),
        begun_ms: 7,
        next: Place { day: 3, bucket: 4 },
        entries: vec![
            entry(1, "b", 0, 2),
            entry(1, "a", 1, 4),
            entry(2, "b", 5, 6),
        ],
    };
    assert_eq!(Fixed::read(batch.write().as_bytes()), Some(batch.clone()));
    let counts = batch.counts().items;
    let counts: Vec<(String, u64)> = counts.iter().map(|(item, n)| (item.id(), *n)).collect();
    assert_eq!(counts, [("b".to_owned(), 3), ("a".to_owned(), 3)]);
    assert_eq!(batch.views(), 6);
    for text in ["", "{}", "[]", "{\"id\":1}", "{\"number\":-1}"] {
        assert_eq!(State::read(text.as_bytes()), None);
        assert_eq!(Fixed::read(text.as_bytes()), None);
    }
}
