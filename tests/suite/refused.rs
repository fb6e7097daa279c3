//! The top refused ids: the sketch's bounds, what goes to Redis, and the merged hour.

use std::collections::BTreeMap;

use edgeweir::redis::{Batch, Reply, Word};
use edgeweir::refused::{COUNTERS, FLUSH_MS, Refused, SLOT_MS, SLOTS, Top, judge_top, top};
use proptest::prelude::*;

use super::sim::redis::FakeRedis;
use super::sim::{Rng, first_seed};

const START_MS: u64 = 1_770_000_020_000;

fn run(redis: &FakeRedis, now_ms: u64, batch: &Batch) -> Vec<Reply> {
    let commands = batch.commands.iter();
    commands
        .map(|command| redis.run(now_ms * 1000, 0, command))
        .collect()
}

fn read(redis: &FakeRedis, now_ms: u64, n: usize) -> Vec<Top> {
    judge_top(&run(redis, now_ms, &top(now_ms)), n).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// SpaceSaving's bounds for any stream: at least and at most hold, neither is off by more
    /// than a 64th of the stream, and who makes more than that is there.
    #[test]
    fn the_sketch_is_right_to_a_64th(stream in prop::collection::vec((0u32..400).prop_map(|n| n * n / 400), 0..3_000)) {
        let mut refused = Refused::default();
        let mut truth = BTreeMap::<String, u64>::new();
        for id in &stream {
            refused.count(&id.to_string(), "r", "l", START_MS);
            *truth.entry(format!("{id}|r|l")).or_default() += 1;
        }
        let most_error = stream.len() as u64 / COUNTERS as u64;
        let bounds: BTreeMap<&str, (u64, u64)> =
            refused.bounds().map(|(member, least, most)| (member, (least, most))).collect();
        prop_assert!(bounds.len() <= COUNTERS);
        for (member, (least, most)) in &bounds {
            let count = truth[*member];
            prop_assert!((*least..=*most).contains(&count), "{member}: {least} <= {count} <= {most}");
            prop_assert!(*least > 0 && most - least <= most_error);
        }
        for (member, count) in &truth {
            prop_assert!(*count <= most_error || bounds.contains_key(member.as_str()), "{member}: {count}");
        }
    }
}

#[test]
fn a_flush_goes_out_every_ten_seconds_and_is_bounded() {
    let mut refused = Refused::default();
    assert_eq!(refused.flush(START_MS, START_MS), None);
    for id in 0..500 {
        refused.count(&id.to_string(), "route", "limit", START_MS);
    }
    assert_eq!(refused.flush(START_MS + FLUSH_MS - 1, START_MS), None);
    let batch = refused.flush(START_MS + FLUSH_MS, START_MS).unwrap();
    assert_eq!(batch.commands.len(), COUNTERS + 2);
    assert_eq!(refused.flush(START_MS + 9 * FLUSH_MS, START_MS), None);
    // A clock that was set back does not hold it up.
    refused.count("a", "route", "limit", START_MS);
    assert!(refused.flush(START_MS - 1, START_MS).is_some());
}

#[test]
fn a_flush_word_for_word() {
    let mut refused = Refused::default();
    for _ in 0..3 {
        refused.count("2001%3Adb8%3A%3A%2F64", "search", "burst", 5);
    }
    let batch = refused.flush(5 + FLUSH_MS, START_MS).unwrap();
    let text = |word: &Word| match word {
        Word::Text(text) => text.to_string(),
        Word::Int(number) => number.to_string(),
    };
    let sent: Vec<String> = batch
        .commands
        .iter()
        .map(|command| {
            let words: Vec<String> = command.words().iter().map(text).collect();
            words.join(" ")
        })
        .collect();
    let expected = [
        "ZINCRBY metrics:refused:5900000 3 2001%3Adb8%3A%3A%2F64|search|burst",
        "ZREMRANGEBYRANK metrics:refused:5900000 0 -1001",
        "PEXPIRE metrics:refused:5900000 4200000",
    ];
    assert_eq!(sent, expected);
    assert!(!batch.atomic);
}

/// Isolates' counts add up over the last hour and no longer, and every key expires.
#[test]
fn the_top_is_of_the_last_hour_over_all_isolates() {
    let redis = FakeRedis::default();
    for (minutes, id, times) in [
        (0, "old", 500),
        (8, "a", 7),
        (30, "b", 5),
        (59, "a", 2),
        (64, "c", 8),
    ] {
        let now_ms = START_MS + minutes * 60_000;
        for isolate in 0..2 {
            let mut refused = Refused::default();
            for _ in 0..times {
                refused.count(id, "*", "default", 0);
            }
            let batch = refused.flush(FLUSH_MS, now_ms + isolate).unwrap();
            assert!(
                run(&redis, now_ms, &batch)
                    .iter()
                    .all(|reply| !reply.is_error())
            );
        }
    }
    let now_ms = START_MS + 66 * 60_000;
    let found: Vec<(String, u64)> = read(&redis, now_ms, 2)
        .into_iter()
        .map(|top| (top.id, top.count))
        .collect();
    assert_eq!(found, [("a".to_owned(), 18), ("c".to_owned(), 16)]);
    let all = read(&redis, now_ms, 100);
    assert!(
        all.iter()
            .all(|top| top.id != "old" && top.route == "*" && top.limit == "default")
    );
    assert_eq!(all.len(), 3);
    assert!(redis.ttls_ms(now_ms * 1000).values().all(Option::is_some));
    assert!(redis.ttls_ms((now_ms + 71 * 60_000) * 1000).is_empty());
}

/// However many ids there are, a slot keeps 1000, the largest.
#[test]
fn a_slot_keeps_a_thousand_members() {
    let seed = first_seed();
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let redis = FakeRedis::default();
    for flush in 0..17 {
        let mut refused = Refused::default();
        for id in 0..COUNTERS as u64 {
            for _ in 0..rng.between(1, 3) {
                refused.count(&format!("{flush}.{id}"), "r", "l", 0);
            }
        }
        for _ in 0..4 {
            refused.count("flood", "r", "l", 0);
        }
        run(
            &redis,
            START_MS,
            &refused.flush(FLUSH_MS, START_MS).unwrap(),
        );
    }
    let key = format!("metrics:refused:{}", START_MS / SLOT_MS);
    let bytes = redis.get(&key).unwrap();
    assert_eq!(
        bytes.iter().filter(|byte| **byte == 0).count(),
        1 + 2 * 1000
    );
    let first = &read(&redis, START_MS, 1)[0];
    // The sketch owes at most a 64th of what each flush has counted.
    assert_eq!(first.id, "flood");
    assert!((17..=68).contains(&first.count), "{}", first.count);
}

#[test]
fn replies_of_strangers_are_no_panic() {
    assert_eq!(top(START_MS).commands.len() as u64, SLOTS);
    assert_eq!(top(0).commands.len(), 1);
    assert_eq!(judge_top(&[], 5), Some(Vec::new()));
    assert_eq!(judge_top(&[Reply::Error("ERR".to_owned())], 5), None);
    assert_eq!(judge_top(&[Reply::Nil], 5), None);
    let text = |text: &str| Reply::Bytes(text.as_bytes().to_vec());
    let odd = vec![
        text("a|b|c"),
        Reply::Int(3),
        text("a|b"),
        text("9"),
        text("a|b|c|d"),
        text("9"),
        text("x|y|z"),
        text("-4"),
        Reply::Bytes(vec![0xff]),
        text("9"),
        text("a|b|c"),
        text("18446744073709551615"),
        text("odd"),
    ];
    let found = judge_top(&[Reply::List(odd)], 5).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id.as_str(), found[0].count), ("a", u64::MAX));
}
