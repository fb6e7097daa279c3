//! The tree beside serde_json's own, which has a map where ours has a list.

use edgeweir::json::{Map, Value};
use proptest::prelude::*;

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map("[a-c0-1/~é\"]{0,3}", inner, 0..5)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// Both say the same of what a pointer points at.
fn alike(ours: Option<&Value<'_>>, theirs: Option<&serde_json::Value>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => {
            ours.text().as_str() == serde_json::to_string(theirs).unwrap()
                && ours.as_str() == theirs.as_str()
                && ours.as_u64() == theirs.as_u64()
                && ours.as_f64() == theirs.as_f64()
                && ours.as_array().map(<[_]>::len) == theirs.as_array().map(Vec::len)
                && ours.as_object().map(Map::len) == theirs.as_object().map(serde_json::Map::len)
        }
        (ours, theirs) => ours.is_none() && theirs.is_none(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_serde_json_reads(json in any_json(), pretty in any::<bool>()) {
        let text = match pretty {
            true => serde_json::to_string_pretty(&json).unwrap(),
            false => json.to_string(),
        };
        let ours = Value::read(text.as_bytes()).unwrap();
        let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert!(alike(Some(&ours), Some(&theirs)), "{text}");
    }

    #[test]
    fn pointers_lead_to_the_same_place(json in any_json(), pointer in "(/([a-c0-2+]|~0|~1|~|é|01|00){0,3}){0,3}|[/a]") {
        let text = json.to_string();
        let ours = Value::read(text.as_bytes()).unwrap();
        let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert!(alike(ours.pointer(&pointer), theirs.pointer(&pointer)), "{pointer} in {text}");
    }

    #[test]
    fn what_serde_json_refuses_is_refused(text in r#"[\[\]{}",:0-9eE.+\-truefalsn A-F\\]{0,40}"#) {
        let theirs: Result<serde_json::Value, _> = serde_json::from_str(&text);
        let ours = Value::read(text.as_bytes());
        prop_assert_eq!(ours.map(|_| ()).map_err(|category| category as u8), theirs.map(|_| ()).map_err(|error| error.classify() as u8));
    }
}

#[test]
fn a_table_that_is_read_keeps_all_members_and_the_last_of_a_name_counts() {
    let json = Value::read(br#"{"b":1,"a":2,"b":"\u0062"}"#).unwrap();
    assert_eq!(json.get("b").and_then(Value::as_str), Some("b"));
    let members = json.as_object().unwrap();
    let names: Vec<&str> = members.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b", "a", "b"]);
    assert_eq!(json.text(), r#"{"b":1,"a":2,"b":"b"}"#);
}

#[test]
fn a_table_that_is_written_is_in_the_order_of_names() {
    let json = Value::from([
        ("b", 1_u64.into()),
        ("a", "x\"\n".into()),
        ("c", Vec::<u64>::new().into()),
    ]);
    assert_eq!(json.text(), r#"{"a":"x\"\n","b":1,"c":[]}"#);
}
