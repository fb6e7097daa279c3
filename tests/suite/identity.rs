//! Who is asking: addresses, HS256 tokens, and ids that no other input can forge.

mod client;
mod hashed;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use edgeweir::identity::{
    bearer, client_address, constant_time_eq, encode_id, ip_id, limit_id, signed_payload, verify,
};
use edgeweir::policy::{Address, By};
use hmac::{Hmac, Mac};
use proptest::prelude::*;
use sha2::Sha256;

const KEY: &[u8] = b"a shared secret";
const NOW_S: u64 = 1_700_000_000;

fn sign(signed: &str, key: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(signed.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

fn token_of(header: &str, payload: &str, key: &[u8]) -> String {
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    format!("{signed}.{}", sign(&signed, key))
}

fn token(payload: &str) -> String {
    token_of(r#"{"alg":"HS256","typ":"JWT"}"#, payload, KEY)
}

fn user_of(token: &str) -> Option<String> {
    verify(Some(&format!("Bearer {token}")), KEY, NOW_S)
}

fn user(payload: &str) -> Option<String> {
    user_of(&token(payload))
}

/// As a policy that says nothing about addresses has it.
fn id_of(connecting_ip: Option<&str>) -> String {
    let settings = Address::default();
    let address = client_address(&settings, connecting_ip, |_| None);
    ip_id(address, settings.ipv6_prefix)
}

#[test]
fn an_address_is_one_id_however_it_is_written() {
    let table = [
        (Some("192.0.2.1"), "192.0.2.1"),
        (Some(" 192.0.2.1 "), "192.0.2.1"),
        (Some("::ffff:192.0.2.1"), "192.0.2.1"),
        (Some("::FFFF:c000:0201"), "192.0.2.1"),
        (
            Some("2001:db8:1:2:3:4:5:6"),
            "2001%3Adb8%3A1%3A2%3A%3A%2F64",
        ),
        (
            Some("2001:0DB8:0001:0002::9"),
            "2001%3Adb8%3A1%3A2%3A%3A%2F64",
        ),
        (Some("2001:db8:1:3::"), "2001%3Adb8%3A1%3A3%3A%3A%2F64"),
        (Some("::1"), "%3A%3A%2F64"),
        (None, "unknown"),
        (Some(""), "unknown"),
        (Some("localhost"), "unknown"),
        (Some("192.0.2.1:80"), "unknown"),
        (Some("192.0.2.1, 192.0.2.2"), "unknown"),
        (Some("192.0.2.01"), "unknown"),
        (Some("[::1]"), "unknown"),
        (Some("fe80::1%eth0"), "unknown"),
    ];
    for (header, id) in table {
        assert_eq!(id_of(header), id, "{header:?}");
    }
}

/// RFC 7515 appendix A.1, with its own key.
#[test]
fn the_signature_of_rfc_7515_a1_is_right() {
    let key = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let jws = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9\
        .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
        .dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let payload = signed_payload(jws, &key).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(claims["iss"], "joe");
    assert_eq!(claims["exp"], 1_300_819_380_u64);
    assert_eq!(signed_payload(jws, b"another key"), None);
    let header = format!("Bearer {jws}");
    assert_eq!(verify(Some(&header), &key, 1_300_819_379), None, "no sub");
}

#[test]
fn a_signed_sub_is_the_user() {
    assert_eq!(user(r#"{"sub":"42"}"#).as_deref(), Some("42"));
    assert_eq!(user(r#"{"sub":"ü:*"}"#).as_deref(), Some("ü:*"));
    let unusual = token_of(r#"{"kid":"1","alg":"HS256"}"#, r#"{"sub":"a"}"#, KEY);
    assert_eq!(user_of(&unusual).as_deref(), Some("a"));
    let longest = "x".repeat(256);
    assert_eq!(user(&format!(r#"{{"sub":"{longest}"}}"#)), Some(longest));
    // RFC 7519 section 4: the last of two counts.
    assert_eq!(user(r#"{"sub":"a","sub":"b"}"#).as_deref(), Some("b"));
}

#[test]
fn dates_are_honoured_whatever_number_they_are() {
    let now = NOW_S;
    let table = [
        (format!(r#""exp":{}"#, now + 1), true),
        (format!(r#""exp":{now}"#), false),
        (format!(r#""exp":{}"#, now - 1), false),
        (format!(r#""exp":{now}.5"#), true),
        (format!(r#""exp":{}.5"#, now - 1), false),
        (r#""exp":0"#.to_owned(), false),
        (r#""exp":-1"#.to_owned(), false),
        (r#""exp":-1e300"#.to_owned(), false),
        (r#""exp":1e300"#.to_owned(), true),
        (r#""exp":18446744073709551615"#.to_owned(), true),
        (r#""exp":99999999999999999999999999"#.to_owned(), true),
        (r#""exp":1e999"#.to_owned(), false),
        (r#""exp":"9999999999""#.to_owned(), false),
        (r#""exp":null"#.to_owned(), false),
        (r#""exp":[]"#.to_owned(), false),
        (format!(r#""nbf":{now}"#), true),
        (format!(r#""nbf":{}"#, now + 1), false),
        (format!(r#""nbf":{now}.5"#), false),
        (r#""nbf":-5"#.to_owned(), true),
        (r#""nbf":1e300"#.to_owned(), false),
        (r#""nbf":"0""#.to_owned(), false),
        (format!(r#""nbf":{},"exp":{}"#, now - 9, now + 9), true),
        (r#""iat":99999999999999"#.to_owned(), true),
    ];
    for (dates, valid) in table {
        let payload = format!(r#"{{"sub":"a",{dates}}}"#);
        assert_eq!(user(&payload).is_some(), valid, "{payload}");
    }
    let header = format!("Bearer {}", token(r#"{"sub":"a","exp":1}"#));
    assert!(verify(Some(&header), KEY, 0).is_some());
    assert!(verify(Some(&header), KEY, u64::MAX).is_none());
}

#[test]
fn a_sub_that_is_no_short_text_is_nobody() {
    let long = format!(r#"{{"sub":"{}"}}"#, "x".repeat(257));
    for payload in [
        "{}",
        r#"{"sub":""}"#,
        r#"{"sub":42}"#,
        r#"{"sub":null}"#,
        r#"{"sub":["a"]}"#,
        r#"{"user":"a"}"#,
        r#"["sub","a"]"#,
        r#""a""#,
        "",
        "{",
        r#"{"sub":"a""#,
        r#"{"sub":"a"}{}"#,
        long.as_str(),
    ] {
        assert_eq!(user(payload), None, "{payload}");
    }
}

#[test]
fn only_hs256_without_extensions_is_believed() {
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS256 "}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":null}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"["HS256"]"#,
        "HS256",
        "",
    ] {
        let token = token_of(header, r#"{"sub":"a"}"#, KEY);
        assert_eq!(user_of(&token), None, "{header}");
    }
    let unsigned = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(r#"{"sub":"a"}"#)
    );
    assert_eq!(user_of(&unsigned), None);
}

#[test]
fn a_token_that_is_not_exactly_as_signed_is_nobodys() {
    let good = token(r#"{"sub":"a"}"#);
    assert_eq!(user_of(&good).as_deref(), Some("a"));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let padded = URL_SAFE.encode(r#"{"sub":"a1"}"#.to_owned() + "  ");
    assert!(padded.ends_with('='), "{padded}");
    let padded = format!("{header}.{padded}");
    let three_dots = format!("{signed}.{payload}");
    let newline = format!("{header}\n.{payload}");
    // One letter whose last bits do not count decodes to the same bytes elsewhere.
    let mut loose = signature.to_owned();
    let last = loose.pop().unwrap();
    loose.push(char::from(last as u8 + 1));
    let bad = [
        signed.to_owned(),
        format!("{signed}."),
        format!("{signed}.."),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}={}", ""),
        format!("{signed}.{loose}"),
        format!("{signed}.{}", &signature[..42]),
        format!("{signed}.{signature}AA"),
        format!("{padded}.{}", sign(&padded, KEY)),
        format!("{three_dots}.{}", sign(&three_dots, KEY)),
        format!("{newline}.{}", sign(&newline, KEY)),
        token_of(r#"{"alg":"HS256"}"#, r#"{"sub":"a"}"#, b"another secret"),
        token_of(r#"{"alg":"HS256"}"#, r#"{"sub":"a"}"#, b""),
        "..".to_owned(),
        ".".to_owned(),
        String::new(),
        "opaque-session-token".to_owned(),
    ];
    for token in bad {
        assert_eq!(user_of(&token), None, "{token}");
    }
    let empty = format!(
        "Bearer {}",
        token_of(r#"{"alg":"HS256"}"#, r#"{"sub":"a"}"#, b"")
    );
    assert_eq!(verify(Some(&empty), b"", NOW_S), None, "no secret, no user");
}

#[test]
fn a_token_above_8_kb_is_nobodys() {
    let of = |length: usize| user(&format!(r#"{{"sub":"a","pad":"{}"}}"#, "x".repeat(length)));
    assert!(of(6_000).is_some());
    assert!(of(6_200).is_none());
    let deep = format!(
        r#"{{"sub":"a","pad":{}{}}}"#,
        "[".repeat(2_900),
        "]".repeat(2_900)
    );
    assert!(user(&deep).is_none());
}

#[test]
fn only_a_bearer_counts() {
    let good = token(r#"{"sub":"a"}"#);
    for header in [
        format!("Bearer {good}"),
        format!("bearer {good}"),
        format!("BEARER   {good}"),
    ] {
        assert!(verify(Some(&header), KEY, NOW_S).is_some(), "{header}");
    }
    for header in [
        good.clone(),
        format!("Basic {good}"),
        format!("Bearer{good}"),
        format!("Bearer\t{good}"),
        format!("Bearer {good} {good}"),
        format!("Bearer {good}, Bearer {good}"),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        String::new(),
    ] {
        assert!(verify(Some(&header), KEY, NOW_S).is_none(), "{header}");
    }
    assert!(verify(None, KEY, NOW_S).is_none());
    assert_eq!(bearer(Some("bearer  x y")), Some("x y"));
}

#[test]
fn each_class_of_limit_has_its_own_ids() {
    let by_header = By::Header("x-api-key".to_owned());
    let ip = "192.0.2.1";
    let table: [(&By, Option<&str>, Option<&str>, &str); 8] = [
        (&By::Ip, Some("u"), Some("h"), "192.0.2.1"),
        (&By::Global, Some("u"), Some("h"), "global"),
        (&By::User, Some("u:1"), None, "user=u%3A1"),
        (&By::User, Some("192.0.2.1"), None, "user=192.0.2.1"),
        (&By::User, None, Some("h"), "192.0.2.1"),
        (&by_header, Some("u"), Some("k=1"), "header=x-api-key=k%3D1"),
        (&by_header, Some("u"), Some(""), "header=x-api-key="),
        (&by_header, Some("u"), None, "header=x-api-key"),
    ];
    for (by, user, header, id) in table {
        assert_eq!(limit_id(by, ip, user, header, None), id);
    }
}

#[test]
fn a_long_id_is_a_hash() {
    assert_eq!(
        encode_id("a-Z_0.9~ é/:*{}%"),
        "a-Z_0.9~%20%C3%A9%2F%3A%2A%7B%7D%25"
    );
    assert_eq!(encode_id(&"x".repeat(128)), "x".repeat(128));
    let hashed = encode_id(&"x".repeat(129));
    assert_eq!(hashed.len(), "sha256=".len() + 64);
    assert!(hashed.starts_with("sha256="));
    // FIPS 180-2 appendix B.3.
    let million = encode_id(&"a".repeat(1_000_000));
    assert_eq!(
        million,
        "sha256=cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    );
    assert_ne!(encode_id(&million), million);
}

#[test]
fn secrets_are_compared_whole() {
    assert!(constant_time_eq(b"", b""));
    assert!(constant_time_eq(b"secret", b"secret"));
    for other in [&b"secre"[..], b"secret ", b"Secret", b"", b"secret\0"] {
        assert!(!constant_time_eq(b"secret", other));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_authorization_is_no_panic(text in any::<String>(), parts in prop::collection::vec("[A-Za-z0-9_=-]{0,40}", 0..5)) {
        prop_assert_eq!(verify(Some(&text), KEY, NOW_S), None);
        let header = format!("Bearer {}", parts.join("."));
        prop_assert_eq!(verify(Some(&header), KEY, NOW_S), None);
    }

    /// No signed payload panics, and no single changed character is accepted.
    #[test]
    fn a_changed_character_is_refused(payload in any::<String>(), at in any::<prop::sample::Index>(), other in "[A-Za-z0-9_.-]") {
        let _ = user(&payload);
        let good = token(r#"{"sub":"a"}"#);
        let at = at.index(good.len());
        let mut bad = good.clone();
        bad.replace_range(at..=at, &other);
        prop_assert_eq!(user_of(&bad).is_some(), bad == good);
    }

    #[test]
    fn an_ipv6_id_is_its_first_64_bits(bits in any::<u128>(), host in any::<u64>()) {
        let of = |bits: u128| id_of(Some(&Ipv6Addr::from_bits(bits).to_string()));
        let network = bits | (1 << 127);
        let neighbour = (network & (u128::MAX << 64)) | u128::from(host);
        prop_assert_eq!(of(network), of(neighbour));
        prop_assert_ne!(of(network), of(network ^ (1 << 64)));
    }

    /// Ids of any two inputs differ unless the inputs are the same, none holds what
    /// ends a part of a key, and all are short.
    #[test]
    fn no_input_forges_another_id(
        texts in prop::collection::vec(prop_oneof!["[a-z0-9:=%.]{0,6}", "[xé]{120,135}", any::<String>()], 2..8),
    ) {
        let mut seen: BTreeMap<String, (u8, &str, &str)> = BTreeMap::new();
        for text in &texts {
            for name in ["a", "a=", "b"] {
                let by = By::Header(name.to_owned());
                let ids = [
                    (0, "", "", limit_id(&By::Ip, &id_of(None), None, None, None)),
                    (1, "", "", limit_id(&By::Global, "", None, None, None)),
                    (2, "", text.as_str(), limit_id(&By::User, "", Some(text), None, None)),
                    (3, name, text.as_str(), limit_id(&by, "", None, Some(text), None)),
                    (4, name, "", limit_id(&by, "", None, None, None)),
                ];
                for (class, name, text, id) in ids {
                    prop_assert!(id.len() <= 280 && !id.is_empty());
                    prop_assert!(id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':' && byte != b'/' && byte != b'*'));
                    let before = seen.entry(id).or_insert((class, name, text));
                    prop_assert_eq!(*before, (class, name, text));
                }
            }
        }
    }
}
