//! The codec: every well-formed answer is read as it was meant, and nothing else is.

use ::base64::Engine;
use ::base64::alphabet;
use ::base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ::base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use edgeweir::base64;
use edgeweir::redis::codec::{DecodeError, Decoded, MAX_REQUEST_BYTES, decode, encode};
use edgeweir::redis::{Batch, Command, Reply};
use proptest::prelude::*;

fn replies(body: &str, commands: usize) -> Vec<Reply> {
    match decode(body.as_bytes(), commands) {
        Ok(Decoded::Replies(replies)) => replies,
        other => panic!("{body}: {other:?}"),
    }
}

fn bytes(text: &str) -> Reply {
    Reply::Bytes(text.as_bytes().to_vec())
}

/// What Upstash writes for a reply, by the stupidest means.
pub fn write(reply: &Reply) -> String {
    match reply {
        Reply::Nil => "null".to_owned(),
        Reply::Int(number) => number.to_string(),
        Reply::Bytes(bytes) if bytes == b"OK" => r#""OK""#.to_owned(),
        Reply::Bytes(bytes) => format!("\"{}\"", STANDARD.encode(bytes)),
        Reply::Shared(bytes) => format!("\"{}\"", STANDARD.encode(&**bytes)),
        Reply::List(items) => {
            let items: Vec<String> = items.iter().map(write).collect();
            format!("[{}]", items.join(","))
        }
        Reply::Error(text) => format!(r#"{{"error":{}}}"#, serde_json::to_string(text).unwrap()),
    }
}

fn write_item(reply: &Reply) -> String {
    match reply {
        Reply::Error(_) => write(reply),
        _ => format!(r#"{{"result":{}}}"#, write(reply)),
    }
}

pub fn write_all(replies: &[Reply]) -> String {
    let items: Vec<String> = replies.iter().map(write_item).collect();
    format!("[{}]", items.join(","))
}

#[test]
fn a_batch_is_a_list_of_lists_and_numbers_stay_numbers() {
    let batch = Batch::pipeline(vec![
        Command::set_px("a\"b", "é\n", 5),
        Command::new("BITFIELD")
            .arg("k")
            .args(["INCRBY", "u32"])
            .arg(-1_i64),
    ]);
    assert_eq!(
        encode(&batch).unwrap(),
        r#"[["SET","a\"b","é\n","PX",5],["BITFIELD","k","INCRBY","u32",-1]]"#
    );
}

#[test]
fn a_batch_above_ten_megabytes_is_not_written() {
    let of = |length: usize| {
        encode(&Batch::pipeline(vec![
            Command::new("SET").arg("k").arg("x".repeat(length)),
        ]))
    };
    let frame = r#"[["SET","k",""]]"#.len();
    assert_eq!(
        of(MAX_REQUEST_BYTES - frame).unwrap().len(),
        MAX_REQUEST_BYTES
    );
    assert_eq!(of(MAX_REQUEST_BYTES - frame + 1), None);
}

#[test]
fn reads_the_pipeline_answer_of_the_upstash_documents() {
    let body = r#"[
  { "result": "OK" },
  { "result": "OK" },
  { "error": "ERR value is not an int or out of range" },
  { "result": 2 }
]"#;
    assert_eq!(
        replies(body, 4),
        [
            bytes("OK"),
            bytes("OK"),
            Reply::Error("ERR value is not an int or out of range".to_owned()),
            Reply::Int(2),
        ]
    );
}

#[test]
fn reads_every_shape() {
    let table: [(&str, Reply); 13] = [
        (r#"{"result":"YmFy"}"#, bytes("bar")),
        (r#"{"result":"T0s="}"#, bytes("OK")), // serverless-redis-http
        (r#"{"result":"UE9ORw=="}"#, bytes("PONG")),
        (r#"{"result":""}"#, bytes("")),
        (r#"{"result":"\u0059m\u0046y"}"#, bytes("bar")),
        (r#"{"result":"Pz8\/"}"#, bytes("???")),
        (r#"{"result":"AP+A"}"#, Reply::Bytes(vec![0, 255, 128])),
        (r#"{"result":null}"#, Reply::Nil),
        (r#"{"result":null,"error":null}"#, Reply::Nil),
        (r#"{"result":-9223372036854775808}"#, Reply::Int(i64::MIN)),
        (r#"{"result":9223372036854775807}"#, Reply::Int(i64::MAX)),
        (
            r#"{"result":["YQ==",null,[1,"OK",[]],{"error":"WRONGTYPE no"}]}"#,
            Reply::List(vec![
                bytes("a"),
                Reply::Nil,
                Reply::List(vec![Reply::Int(1), bytes("OK"), Reply::List(vec![])]),
                Reply::Error("WRONGTYPE no".to_owned()),
            ]),
        ),
        (
            r#"{"took":1.5e3,"x":{"y":[true]},"error":"ERR not base64 !"}"#,
            Reply::Error("ERR not base64 !".to_owned()),
        ),
    ];
    for (item, reply) in table {
        assert_eq!(replies(&format!("[{item}]"), 1), [reply], "{item}");
    }
}

#[test]
fn one_error_for_all_commands_is_told_apart() {
    assert_eq!(
        decode(br#"{"error":"ERR unsupported command"}"#, 3),
        Ok(Decoded::Refused("ERR unsupported command".to_owned()))
    );
}

#[test]
fn anything_else_is_no_answer() {
    use DecodeError::{Count, NotJson, Shape, Truncated};
    let deep = format!(r#"[{{"result":{}1{}}}]"#, "[".repeat(9), "]".repeat(9));
    let very_deep = "[".repeat(100_000);
    let wide = format!(r#"[{{"result":[{}0]}}]"#, "0,".repeat(100_000));
    let table: &[(&str, DecodeError)] = &[
        ("", Truncated),
        ("[", Truncated),
        (r#"[{"result":"YmF"#, Truncated),
        (r#"[{"result":1}"#, Truncated),
        ("<html><body>502 Bad Gateway</body></html>", NotJson),
        (r#"[{"result":1}] trailing"#, NotJson),
        (r#"[{"result":1}][]"#, NotJson),
        (r#"[{"result":nul}]"#, NotJson),
        (r#"[{"result":"YmFy","error":"ERR both"}]"#, Shape),
        (r#"[{"result":1,"result":2}]"#, Shape),
        (r#"[{"error":"a","error":"b"}]"#, Shape),
        (r#"[{"result":"YmFy "}]"#, Shape),
        (r#"[{"result":"YmE"}]"#, Shape),  // no padding
        (r#"[{"result":"YmF="}]"#, Shape), // bits that are not zero
        (r#"[{"result":"value"}]"#, Shape),
        (r#"[{"result":"ok"}]"#, Shape),
        (r#"[{"result":1.5}]"#, Shape),
        (r#"[{"result":9223372036854775808}]"#, Shape),
        (r#"[{"result":true}]"#, Shape),
        (r#"[{"result":{"a":1}}]"#, Shape),
        (r#"[{"result":{"error":1}}]"#, Shape),
        (r#"[{"error":7}]"#, Shape),
        (r#"[{"error":null}]"#, Shape),
        ("[{}]", Shape),
        ("[1]", Shape),
        ("[[1]]", Shape),
        ("[null]", Shape),
        ("null", Shape),
        ("7", Shape),
        (r#""OK""#, Shape),
        (r#"{"result":"OK"}"#, Shape),
        (r#"{"error":"ERR","result":1}"#, Shape),
        ("{}", Shape),
        ("[]", Count),
        (r#"[{"result":1},{"result":2}]"#, Count),
        (r#"[{"result":1},{"result":2},{"result":3}]"#, Count),
        (&deep, Shape),
        (&wide, Shape),
    ];
    for (body, error) in table {
        let start: String = body.chars().take(60).collect();
        assert_eq!(decode(body.as_bytes(), 1), Err(*error), "{start}");
    }
    assert!(decode(very_deep.as_bytes(), 1).is_err());
    assert!(decode(b"[{\"result\":\"\xff\xfe\"}]", 1).is_err());
    assert_eq!(decode(br#"[{"result":1}]"#, 2), Err(Count));
}

#[test]
fn a_quoted_argument_does_not_make_a_long_error() {
    let body = format!(
        r#"[{{"error":"ERR unknown command {}"}}]"#,
        "é".repeat(5_000)
    );
    let [Reply::Error(text)] = &replies(&body, 1)[..] else {
        panic!("no error");
    };
    assert!(text.len() <= 256 && text.starts_with("ERR unknown command é"));
}

pub fn any_reply() -> impl Strategy<Value = Reply> {
    let leaf = prop_oneof![
        Just(Reply::Nil),
        Just(bytes("OK")),
        any::<i64>().prop_map(Reply::Int),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Reply::Bytes),
        "[ -~é]{0,60}".prop_map(Reply::Error),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop::collection::vec(inner, 0..6).prop_map(Reply::List)
    })
}

fn settings(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(settings(400))]

    /// Whatever Redis replied comes back, and every cut of it is refused.
    #[test]
    fn what_is_written_is_read(sent in prop::collection::vec(any_reply(), 0..6), cut in any::<prop::sample::Index>()) {
        let body = write_all(&sent);
        let commands = sent.len();
        prop_assert_eq!(decode(body.as_bytes(), commands), Ok(Decoded::Replies(sent)));
        prop_assert_eq!(decode(body.as_bytes(), commands + 1), Err(DecodeError::Count));
        let cut = &body.as_bytes()[..cut.index(body.len())];
        prop_assert!(decode(cut, commands).is_err());
    }

    /// One changed byte never panics and never makes another number of replies.
    #[test]
    fn a_changed_byte_is_no_panic(
        sent in prop::collection::vec(any_reply(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut body = write_all(&sent).into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(Decoded::Replies(read)) = decode(&body, sent.len()) {
            prop_assert_eq!(read.len(), sent.len());
        }
    }

    #[test]
    fn random_bytes_are_no_panic(body in prop::collection::vec(any::<u8>(), 0..200), commands in 0_usize..4) {
        let _ = decode(&body, commands);
    }

    #[test]
    fn random_json_like_text_is_no_panic(body in r#"[\[\]{}",:0-9eE.+\-truefalsnK= A-Z\\]{0,120}"#, commands in 0_usize..4) {
        let _ = decode(body.as_bytes(), commands);
    }

    /// Any text survives the way into a command.
    #[test]
    fn words_are_written_as_json(words in prop::collection::vec(any::<String>(), 0..6)) {
        let batch = Batch::multi(vec![Command::new("RPUSH").args(words.clone())]);
        let json: Vec<Vec<String>> = serde_json::from_str(&encode(&batch).unwrap()).unwrap();
        prop_assert_eq!(&json[0][1..], &words[..]);
    }
}

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn base64_is_read_as_the_base64_crate_reads_it(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        other in prop_oneof![any::<u8>(), Just(b'='), Just(b'-'), Just(b'A')],
        missing in 0..3_usize,
    ) {
        let url = URL_SAFE_NO_PAD.encode(&bytes);
        let mut text = STANDARD.encode(&bytes).into_bytes();
        prop_assert_eq!(base64::encode(&bytes).into_bytes(), text.clone());
        prop_assert_eq!(base64::decode_url(&url), Some(bytes.clone()));
        prop_assert_eq!(base64::decode(&text), Some(bytes));
        text.truncate(text.len().saturating_sub(missing));
        if !text.is_empty() {
            let at = at.index(text.len());
            text[at] = other;
        }
        prop_assert_eq!(base64::decode(&text), STANDARD.decode(&text).ok());
        if let Ok(text) = std::str::from_utf8(&text) {
            prop_assert_eq!(base64::decode_url(text), URL_SAFE_NO_PAD.decode(text).ok());
        }
        // Padding that is too long is nobody's concern.
        let unpadded = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(&text);
        prop_assert_eq!(base64::decode_leniently(&text), LENIENT.decode(unpadded).ok());
    }
}
