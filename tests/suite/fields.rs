//! Header fields held against a plain list of pairs.

use edgeweir::http::Headers;
use proptest::collection::vec;
use proptest::prelude::*;

/// What can be done to fields.
#[derive(Debug, Clone)]
enum Change {
    Append(String, String),
    Set(String, String),
    Remove(String),
    KeepShorterThan(usize),
}

/// Names of which one is the other's beginning, in either case.
fn name() -> impl Strategy<Value = String> {
    "[aAbB]{1,3}"
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (name(), "[ -~é]{0,6}").prop_map(|(name, value)| Change::Append(name, value)),
        (name(), "[ -~é]{0,6}").prop_map(|(name, value)| Change::Set(name, value)),
        name().prop_map(|name| Change::Remove(name.to_lowercase())),
        (1_usize..4).prop_map(Change::KeepShorterThan),
    ]
}

fn owned(headers: &Headers) -> Vec<(String, String)> {
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

proptest! {
    /// Order, repetition and the case of names, whatever is done in whatever order.
    #[test]
    fn fields_are_a_list_of_pairs(changes in vec(change(), 0..24)) {
        let mut headers = Headers::new();
        let mut listed: Vec<(String, String)> = Vec::new();
        for change in changes {
            match change {
                Change::Append(name, value) => {
                    headers.append(&name, &value);
                    listed.push((name.to_lowercase(), value));
                }
                Change::Set(name, value) => {
                    let lower = name.to_lowercase();
                    // It asks for lower case where it replaces.
                    headers.set(&lower, &value);
                    listed.retain(|(known, _)| *known != lower);
                    listed.push((lower, value));
                }
                Change::Remove(name) => {
                    headers.remove(&name);
                    listed.retain(|(known, _)| *known != name);
                }
                Change::KeepShorterThan(length) => {
                    headers.keep(&|name| name.len() < length);
                    listed.retain(|(name, _)| name.len() < length);
                }
            }
            prop_assert_eq!(owned(&headers), listed.clone());
            prop_assert_eq!(headers.len(), listed.len());
            for (name, _) in &listed {
                let all: Vec<&str> = headers.get_all(name).collect();
                let pairs = listed.iter().filter(|(known, _)| known == name);
                let expected: Vec<&str> = pairs.map(|(_, value)| value.as_str()).collect();
                prop_assert_eq!(all, expected);
            }
            let again: Headers = listed.iter().map(|(name, value)| (name, value)).collect();
            prop_assert_eq!(&again, &headers);
        }
    }

    /// Lines as the border writes them, behind the method and the URL of a request.
    #[test]
    fn lines_are_the_same_fields(pairs in vec((name(), "[ -~é]{0,6}"), 0..12), skipped in 0_usize..3) {
        let mut lines = vec!["GET".to_owned(); skipped];
        for (name, value) in &pairs {
            lines.push(name.clone());
            lines.push(value.clone());
        }
        let expected: Headers = pairs.iter().map(|(name, value)| (name, value)).collect();
        prop_assert_eq!(Headers::of_lines(lines.join("\n"), skipped), expected);
    }
}
