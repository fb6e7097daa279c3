//! What is known of long values never changes what an answer says.

use edgeweir::http::Bytes;
use edgeweir::redis::codec::{DecodeError, Decoded, decode, decode_known};
use edgeweir::redis::known::{Known, is_same};
use edgeweir::redis::{Command, Reply};
use proptest::prelude::*;

use crate::redis_codec::{any_reply, write_all};

/// As it would be if nothing were shared.
pub fn apart(reply: Reply) -> Reply {
    match reply {
        Reply::Shared(bytes) => Reply::Bytes(bytes.to_vec()),
        Reply::List(items) => Reply::List(items.into_iter().map(apart).collect()),
        reply => reply,
    }
}

fn decode_apart(
    body: &[u8],
    commands: &[Command],
    known: &mut Known,
) -> Result<Decoded, DecodeError> {
    match decode_known(body, commands, known) {
        Ok(Decoded::Replies(replies)) => {
            Ok(Decoded::Replies(replies.into_iter().map(apart).collect()))
        }
        other => other,
    }
}

fn mget(keys: &[usize]) -> Command {
    Command::new("MGET").args(keys.iter().map(|key| format!("k{key}")))
}

/// What one key has, which another one or another time may have too.
fn any_value() -> impl Strategy<Value = Reply> {
    let text = |(seed, length): (u8, usize)| {
        let byte = |at: usize| (at as u8).wrapping_mul(31) ^ seed;
        Reply::Bytes((0..length).map(byte).collect())
    };
    prop_oneof![
        1 => Just(Reply::Nil),
        8 => (0..3_u8, prop_oneof![0..4_usize, 180..200_usize, 1_000..1_004_usize, Just(9_000)]).prop_map(text),
    ]
}

fn any_answer() -> impl Strategy<Value = Vec<(usize, Reply)>> {
    prop::collection::vec((0..4_usize, any_value()), 0..5)
}

fn shared(replies: &Result<Decoded, DecodeError>) -> Option<Bytes> {
    match replies {
        Ok(Decoded::Replies(replies)) => match &replies[..] {
            [Reply::List(items)] => match &items[..] {
                [Reply::Shared(bytes)] => Some(bytes.clone()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn of_one(value: &[u8]) -> Vec<u8> {
    let value = Reply::List(vec![Reply::Bytes(value.to_vec())]);
    write_all(&[value]).into_bytes()
}

/// How often something was made for the bytes that a reading brings.
fn is_made_anew(known: &mut Known, key: usize, value: &[u8]) -> bool {
    let read = decode_known(&of_one(value), &[mget(&[key])], known);
    let bytes = shared(&read).expect("a long value is shared");
    assert_eq!(&*bytes, value);
    let made = std::cell::Cell::new(false);
    bytes.twin(&|bytes: &[u8]| {
        made.set(true);
        bytes.len()
    });
    made.get()
}

#[test]
fn what_was_made_of_a_value_is_there_until_its_text_is_another() {
    let mut known = Known::default();
    let (one, other) = (vec![1; 9_000], vec![2; 9_000]);
    assert!(is_made_anew(&mut known, 1, &one));
    assert!(!is_made_anew(&mut known, 1, &one));
    assert!(!is_made_anew(&mut known, 1, &one));
    assert!(is_made_anew(&mut known, 2, &one), "by its own key");
    assert!(is_made_anew(&mut known, 1, &other));
    assert!(!is_made_anew(&mut known, 1, &other));
    assert!(is_made_anew(&mut known, 1, &one));
    // One that begins like it.
    assert!(is_made_anew(&mut known, 1, &one[..8_997]));
    assert!(is_made_anew(&mut known, 1, &one));
    assert!(!is_made_anew(&mut known, 2, &one));
}

#[test]
fn a_value_that_is_too_large_for_all_is_read_all_the_same() {
    let mut known = Known::new(100_000);
    let value = vec![7; 20_000];
    for _ in 0..2 {
        let read = decode_known(&of_one(&value), &[mget(&[1])], &mut known);
        assert_eq!(shared(&read).as_deref(), Some(&value[..]));
        assert_eq!(known.bytes(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any sequence of answers is read as if each were the first, within the bound.
    #[test]
    fn nothing_that_is_known_changes_an_answer(
        answers in prop::collection::vec((any_answer(), prop::collection::vec(any_reply(), 0..2)), 1..30),
        most_bytes in prop_oneof![Just(0), Just(12_000), Just(120_000), Just(1_000_000)],
        spaces in any::<bool>(),
    ) {
        let mut known = Known::new(most_bytes);
        for (values, more) in answers {
            let keys: Vec<usize> = values.iter().map(|(key, _)| *key).collect();
            let mut commands = vec![mget(&keys)];
            commands.extend(more.iter().map(|_| Command::new("GET").arg("k1")));
            let mut sent = vec![Reply::List(values.into_iter().map(|(_, value)| value).collect())];
            sent.extend(more);
            let mut body = write_all(&sent);
            if spaces {
                body.push('\n');
            }
            let body = body.as_bytes();
            let read = decode_apart(body, &commands, &mut known);
            prop_assert_eq!(&read, &decode(body, commands.len()));
            prop_assert_eq!(read, Ok(Decoded::Replies(sent)));
            prop_assert!(known.bytes() <= most_bytes);
        }
    }

    /// An answer that somebody changed is what it is without anything known, errors too.
    #[test]
    fn a_changed_answer_is_read_as_it_is(
        values in any_answer(),
        more in prop::collection::vec(any_reply(), 0..3),
        at in any::<prop::sample::Index>(),
        change in prop_oneof![any::<u8>(), prop::sample::select(&b"\"\\,:[]{}0-1n=A/ "[..])],
        is_cut in any::<bool>(),
    ) {
        let mut known = Known::default();
        let keys: Vec<usize> = values.iter().map(|(key, _)| *key).collect();
        let mut commands = vec![mget(&keys)];
        commands.extend(more.iter().map(|_| Command::new("HGETALL").arg("k1")));
        let mut sent = vec![Reply::List(values.into_iter().map(|(_, value)| value).collect())];
        sent.extend(more);
        let mut body = write_all(&sent).into_bytes();
        let _ = decode_known(&body, &commands, &mut known);
        let at = at.index(body.len());
        if is_cut {
            body.truncate(at);
        } else {
            body[at] = change;
        }
        prop_assert_eq!(decode_apart(&body, &commands, &mut known), decode(&body, commands.len()));
        for fewer in 0..commands.len() {
            let commands = &commands[..fewer];
            prop_assert_eq!(decode_apart(&body, commands, &mut known), decode(&body, fewer));
        }
    }

    #[test]
    fn numbers_are_read_as_json_has_them(text in "-?[0-9]{0,21}([.eE][0-9+-]{0,3})?") {
        let body = format!("[{{\"result\":{text}}}]");
        let commands = [Command::new("TIME")];
        let known = &mut Known::default();
        prop_assert_eq!(decode_apart(body.as_bytes(), &commands, known), decode(body.as_bytes(), 1));
    }

    #[test]
    fn the_same_bytes_are_the_same(bytes in prop::collection::vec(any::<u8>(), 0..70), at in any::<prop::sample::Index>()) {
        prop_assert!(is_same(&bytes, &bytes.clone()));
        let mut longer = bytes.clone();
        longer.push(0);
        prop_assert!(!is_same(&bytes, &longer));
        if !bytes.is_empty() {
            let mut other = bytes.clone();
            other[at.index(bytes.len())] ^= 1;
            prop_assert!(!is_same(&bytes, &other));
        }
    }
}
