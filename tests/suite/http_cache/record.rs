//! What lies in Redis for a URI.

use edgeweir::cache::http::record::MAX_VARIANTS;
use edgeweir::cache::http::{Record, Stored};
use proptest::prelude::*;

use super::{NOW_MS, headers};

fn variant(value: Option<&str>, body: &[u8]) -> Stored {
    Stored {
        status: 200,
        headers: headers("content-type: text/plain\nx: é\" \\"),
        body: body.into(),
        born_ms: NOW_MS,
        fresh_ms: 60_000,
        selecting: vec![("a".to_owned(), value.map(str::to_owned))],
    }
}

/// Newest first, one for what a request selects, no more than a number and a size.
#[test]
fn variants_are_bounded() {
    let mut record = Record::default();
    for n in 0..20 {
        let request = headers(&format!("a: {n}"));
        record.put(variant(Some(&n.to_string()), b"12345"), &request, 1000);
        assert_eq!(
            record.select(&request).unwrap().selecting[0].1,
            Some(n.to_string())
        );
    }
    assert_eq!(record.variants.len(), MAX_VARIANTS);
    assert!(record.select(&headers("a: 0")).is_none());
    let newest = headers("a: 19");
    record.put(variant(Some("19"), b"other"), &newest, 1000);
    assert_eq!(record.variants.len(), MAX_VARIANTS);
    assert_eq!(&*record.select(&newest).unwrap().body, b"other");
    record.put(variant(None, b"123456789"), &headers(""), 12);
    assert_eq!(
        record.variants.len(),
        1,
        "what is over the size goes, the oldest first"
    );
    record.put(variant(None, &[7; 100]), &headers(""), 12);
    assert_eq!(record.variants.len(), 1, "the newest stays in any case");
}

/// What is no record is none.
#[test]
fn only_what_was_packed_is_unpacked() {
    let record = Record {
        generations: vec!["g".to_owned()],
        tags: vec!["t".to_owned(), "u".to_owned()],
        variants: vec![variant(None, b"text"), variant(Some(""), b"\xff\x00")],
    };
    let packed = record.pack();
    assert_eq!(Record::unpack(packed.as_bytes()).as_ref(), Some(&record));
    for end in 0..packed.len() - 1 {
        assert_ne!(
            Record::unpack(&packed.as_bytes()[..end]).as_ref(),
            Some(&record)
        );
    }
    for other in [
        "",
        "h2",
        "h2,",
        "h2,0,",
        "h2,0,1,",
        "h2,0,1,1,g200,",
        "h1,0,0,",
        "h3,0,0,",
        "{}",
        "h2,99999999999999999999,",
    ] {
        assert_eq!(Record::unpack(other.as_bytes()), None, "{other}");
    }
    let huge = packed.replacen("4,text", "99999999,text", 1);
    assert_ne!(huge, packed);
    assert_eq!(Record::unpack(huge.as_bytes()), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes come back as they were, text or not.
    #[test]
    fn bodies_survive(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8), name in "\\PC{0,8}") {
        let variants = bodies.iter().map(|body| variant(Some(&name), body)).collect();
        let record = Record { generations: vec![name.clone()], tags: vec![name.clone()], variants };
        prop_assert_eq!(Record::unpack(record.pack().as_bytes()), Some(record));
    }
}
