//! Numbers in a JSON body grow, and nothing else of it changes.

use edgeweir::views::item::Item;
use edgeweir::views::merge::{MAX_OBJECTS, at_pointer, in_objects, with};
use proptest::prelude::*;
use serde_json::{Value, json};

fn item() -> Item {
    Item::new("story", "1").unwrap()
}

fn own(body: &str, pointer: &str) -> String {
    let spot = at_pointer(body.as_bytes(), pointer, item());
    let spots = Vec::from_iter(spot);
    String::from_utf8(with(body.as_bytes(), &spots, &[5])).unwrap()
}

fn objects(body: &str) -> String {
    let spots = in_objects(body.as_bytes(), "views", "book", "id");
    let pending: Vec<u64> = spots
        .iter()
        .map(|spot| spot.item.id().parse::<u64>().unwrap_or(1_000))
        .collect();
    String::from_utf8(with(body.as_bytes(), &spots, &pending)).unwrap()
}

#[test]
fn a_pointer_names_the_number() {
    for (body, pointer, merged) in [
        (
            r#"{"views":1,"x":1.50}"#,
            "/views",
            r#"{"views":6,"x":1.50}"#,
        ),
        (
            "{ \"a\" : [ 0 , { \"v\" : 9 } ] }",
            "/a/1/v",
            "{ \"a\" : [ 0 , { \"v\" : 14 } ] }",
        ),
        (r#"{"a/b":{"c~d":1}}"#, "/a~1b/c~0d", r#"{"a/b":{"c~d":6}}"#),
        (r#"{"a":1,"a":2}"#, "/a", r#"{"a":1,"a":7}"#),
        (r#"{"\u0061":1}"#, "/a", r#"{"\u0061":6}"#),
        (r#"{"t":"}]\"\\","v":1}"#, "/v", r#"{"t":"}]\"\\","v":6}"#),
    ] {
        assert_eq!(own(body, pointer), merged);
    }
}

#[test]
fn what_is_no_whole_number_stays() {
    for body in [
        r#"{"v":1.5}"#,
        r#"{"v":-1}"#,
        r#"{"v":1e3}"#,
        r#"{"v":"1"}"#,
        r#"{"v":null}"#,
        "{}",
        "[]",
        r#"{"v":[1]}"#,
        "",
        "{",
        r#"{"v""#,
        r#"{"v":"#,
        "nonsense",
        r#"{"v":99999999999999999999}"#,
    ] {
        assert_eq!(own(body, "/v"), body);
    }
}

#[test]
fn every_object_with_an_id_has_its_own_number_grow() {
    let body = r#"{"books":[{"id":7,"views":1},{"views":10,"id":"8","in":{"id":"9","views":0}},{"id":"x"},{"views":3}]}"#;
    let merged = r#"{"books":[{"id":7,"views":8},{"views":18,"id":"8","in":{"id":"9","views":9}},{"id":"x"},{"views":3}]}"#;
    assert_eq!(objects(body), merged);
    assert_eq!(
        objects(r#"{"id":null,"views":1}"#),
        r#"{"id":null,"views":1}"#
    );
    assert_eq!(objects(r#"{"id":"","views":1}"#), r#"{"id":"","views":1}"#);
}

#[test]
fn objects_and_depth_have_a_bound() {
    let list = vec![json!({ "id": "1", "views": 1 }); MAX_OBJECTS + 50];
    let body = Value::from(list).to_string();
    let spots = in_objects(body.as_bytes(), "views", "book", "id");
    assert_eq!(spots.len(), MAX_OBJECTS);
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert!(in_objects(deep.as_bytes(), "views", "book", "id").is_empty());
    assert!(at_pointer(deep.as_bytes(), "/0/0", item()).is_none());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0_u64..1 << 40).prop_map(Value::from),
        (-1_000_i32..1_000).prop_map(|n| Value::from(f64::from(n) / 8.0)),
        ".{0,6}".prop_map(Value::from),
        Just(Value::from("id")),
    ];
    let name = prop_oneof![Just("id".to_owned()), Just("views".to_owned()), ".{0,4}"];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The same on the tree.
fn expected(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(expected),
        Value::Object(members) => {
            members.values_mut().for_each(expected);
            let id = match members.get("id") {
                Some(Value::String(id)) if !id.is_empty() => Some(id.clone()),
                Some(Value::Number(id)) if id.is_u64() => Some(id.to_string()),
                _ => None,
            };
            let pending = id.map(|id| id.parse::<u64>().unwrap_or(1_000));
            if let (Some(pending), Some(views)) =
                (pending, members.get("views").and_then(Value::as_u64))
            {
                members.insert(
                    "views".to_owned(),
                    Value::from(views.saturating_add(pending)),
                );
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any JSON, compact or not, against the same done to its tree.
    #[test]
    fn merging_is_what_it_is_on_the_tree(value in any_json(), is_pretty in any::<bool>()) {
        let body = match is_pretty {
            true => serde_json::to_string_pretty(&value).unwrap(),
            false => value.to_string(),
        };
        let mut wanted = value;
        expected(&mut wanted);
        let merged: Value = serde_json::from_str(&objects(&body)).unwrap();
        prop_assert_eq!(merged, wanted);
    }

    /// Bytes that are no JSON neither panic nor change.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let spots = in_objects(&bytes, "views", "book", "id");
        let merged = with(&bytes, &spots, &vec![0; spots.len()]);
        prop_assert!(merged.len() <= bytes.len());
        let _ = at_pointer(&bytes, "/a/0", item());
    }
}
