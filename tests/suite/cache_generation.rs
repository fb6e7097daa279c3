//! Generations and the log of prefixes: what a purge does to them, and what they prove.

use edgeweir::cache::generation::{
    MAX_GENERATION_BYTES, MAX_LOG_BYTES, PREFIX_LOG, Standing, by_log, line, softly, standing,
};
use edgeweir::cache::purge::{Purge, shorten};
use edgeweir::cache::{Lookup, generation};
use edgeweir::redis::{Batch, Reply, Word};

use super::sim::redis::FakeRedis;
use super::sim::{Rng, first_seed};

const NOW_US: u64 = 1_770_000_000_000_000;

fn run(redis: &FakeRedis, batch: &Batch) -> Vec<Reply> {
    let commands = batch.commands.iter();
    commands
        .map(|command| redis.run(NOW_US, 0, command))
        .collect()
}

fn text(redis: &FakeRedis, key: &str) -> String {
    String::from_utf8(redis.get(key).unwrap_or_default()).unwrap()
}

fn purge(tags: &[&str], prefixes: &[&str], is_soft: bool) -> Purge {
    let mut purge = Purge {
        is_soft,
        ..Purge::default()
    };
    purge.tags.extend(tags.iter().map(|tag| (*tag).to_owned()));
    purge
        .prefixes
        .extend(prefixes.iter().map(|prefix| (*prefix).to_owned()));
    purge
}

fn stands(stored: &str, now: Option<&str>) -> Standing {
    let lookup = Lookup {
        key: "k".to_owned(),
        ..Lookup::default()
    };
    let now = [now.map(str::to_owned), Some("p".to_owned())];
    standing(&lookup, &[], &[stored.to_owned(), "p".to_owned()], &now)
}

/// Only what was appended behind a `~` is soft; everything else is gone.
#[test]
fn a_generation_is_the_same_longer_or_another() {
    for (stored, now, expected) in [
        ("g", Some("g"), Standing::Current),
        ("g", Some("g~1"), Standing::Soft),
        ("g", Some("g~1~2"), Standing::Soft),
        ("g~1", Some("g~1~2"), Standing::Soft),
        ("g~1", Some("g"), Standing::Gone),
        ("g~1", Some("g~2~1"), Standing::Gone),
        ("g", Some("g1"), Standing::Gone),
        ("g", Some("h"), Standing::Gone),
        ("g", Some("~g"), Standing::Gone),
        ("g", Some(""), Standing::Gone),
        ("g", None, Standing::Gone),
    ] {
        assert_eq!(stands(stored, now), expected, "{stored} {now:?}");
    }
}

/// The worst of all counts, tags of the origin are found by name, and one that was not read
/// is told.
#[test]
fn the_worst_generation_counts_and_tags_are_found_by_name() {
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let lookup = Lookup {
        key: "k".to_owned(),
        tags: names(&["own"]),
        origin_tags: names(&["x", "y"]),
    };
    let now = |now: [&str; 5]| now.map(|now| Some(now.to_owned())).to_vec();
    let all = now(["k", "p", "o", "gx", "gy"]);
    let is = |tags: &[&str], stored: &[&str], now: &[Option<String>]| {
        standing(&lookup, &names(tags), &names(stored), now)
    };
    let base = ["k", "p", "o"];
    assert_eq!(
        is(&[], &base, &all),
        Standing::Current,
        "what it had once is nothing to it"
    );
    assert_eq!(is(&["y"], &["k", "p", "o", "gy"], &all), Standing::Current);
    assert_eq!(
        is(&["y", "x"], &["k", "p", "o", "gy", "gx"], &all),
        Standing::Current
    );
    assert_eq!(
        is(&["y", "x"], &["k", "p", "o", "gx", "gy"], &all),
        Standing::Gone
    );
    assert_eq!(
        is(&["own"], &["k", "p", "o", "o"], &all),
        Standing::Current,
        "the policy's own"
    );
    assert_eq!(is(&["z"], &["k", "p", "o", "gz"], &all), Standing::Unread);
    assert_eq!(is(&["z"], &["k", "p", "other", "gz"], &all), Standing::Gone);
    assert_eq!(
        is(&["x"], &base, &all),
        Standing::Gone,
        "a generation too few"
    );
    assert_eq!(
        is(&[], &["k", "p", "o", "gx"], &all),
        Standing::Gone,
        "one too many"
    );
    let soft = now(["k~1", "p", "o", "gx", "gy"]);
    assert_eq!(is(&["x"], &["k", "p", "o", "gx"], &soft), Standing::Soft);
    let gone = now(["k~1", "p", "o", "new", "gy"]);
    assert_eq!(is(&["x"], &["k", "p", "o", "gx"], &gone), Standing::Gone);
}

/// A key's generation by the log is the last hard purge's that covers it and the soft ones
/// since.
#[test]
fn the_log_says_a_generation_for_each_key() {
    let mut log = "header".to_owned();
    let of = |log: &str, key: &str| by_log(log, key).unwrap();
    assert_eq!(of(&log, "books:1"), "header");
    let id = |n: u128| format!("{n:016x}");
    log.push_str(&line("books:", true, 1));
    assert_eq!(of(&log, "books:1"), format!("header~{}", id(1)));
    assert_eq!(of(&log, "book"), "header");
    log.push_str(&line("books:1", false, 2));
    assert_eq!(of(&log, "books:1"), id(2));
    assert_eq!(of(&log, "books:10"), id(2));
    assert_eq!(of(&log, "books:2"), format!("header~{}", id(1)));
    log.push_str(&line("", true, 3));
    assert_eq!(of(&log, "books:1"), format!("{}~{}", id(2), id(3)));
    assert_eq!(of(&log, "any"), format!("header~{}", id(3)));
    log.push_str(&line("books:é ~\\", false, 4));
    assert_eq!(of(&log, "books:é ~\\x"), id(4));
    for broken in [
        "",
        "\n",
        "\nh0000000000000001a",
        "h\n",
        "h\nh",
        "h\nh00",
        "h\n\u{e9}0000000000000001",
    ] {
        assert_eq!(by_log(broken, "a"), None, "{broken:?}");
    }
}

/// A random history of purges, each judged against what every earlier purge did.
#[test]
fn the_log_agrees_with_a_list_of_all_purges() {
    let seed = first_seed();
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let keys = ["a", "ab", "abc", "b", "ba", "a:b", ""];
    for _ in 0..300 {
        let redis = FakeRedis::default();
        let mut purges: Vec<(String, bool)> = Vec::new();
        let mut read: Vec<(usize, Vec<String>)> = Vec::new();
        run(&redis, &purge(&[], &["nothing"], false).batch(9));
        for n in 0..rng.between(1, 12) {
            let log = text(&redis, PREFIX_LOG);
            let now = keys.map(|key| by_log(&log, key).unwrap());
            read.push((purges.len(), now.to_vec()));
            let (prefix, is_soft) = (rng.pick(&keys), rng.chance(50));
            run(
                &redis,
                &purge(&[], &[prefix], is_soft).batch(u128::from(n) + 100),
            );
            purges.push((prefix.to_owned(), is_soft));
        }
        let log = text(&redis, PREFIX_LOG);
        for (since, generations) in &read {
            for (key, stored) in keys.iter().zip(generations) {
                let mut covering = purges[*since..]
                    .iter()
                    .filter(|(prefix, _)| key.starts_with(prefix));
                let (all, hard) = (
                    covering.clone().count(),
                    covering.any(|(_, is_soft)| !is_soft),
                );
                let expected = match (all, hard) {
                    (0, _) => Standing::Current,
                    (_, false) => Standing::Soft,
                    _ => Standing::Gone,
                };
                let now = by_log(&log, key);
                assert_eq!(
                    stands(stored, now.as_deref()),
                    expected,
                    "{key} {stored} {now:?} {purges:?}"
                );
            }
        }
    }
}

/// A soft purge appends, a hard one replaces, both in one transaction and with an expiry; a
/// log without a header gets one first.
#[test]
fn purges_are_blind_writes_with_an_expiry() {
    let redis = FakeRedis::default();
    let both = |is_soft| {
        let mut purge = purge(&["t"], &["p:"], is_soft);
        purge.keys.insert("k".to_owned());
        purge
    };
    redis.set("k", "body");
    redis.set("meta:k", "record");
    let soft = both(true).batch(7);
    assert!(soft.atomic);
    run(&redis, &soft);
    assert_eq!(text(&redis, "gen:t"), softly(7));
    assert_eq!(text(&redis, "gen:key:k"), softly(7));
    assert_eq!(
        text(&redis, PREFIX_LOG),
        generation(7) + &line("p:", true, 7)
    );
    assert_eq!(text(&redis, "k"), "body", "a soft purge deletes nothing");
    run(&redis, &both(true).batch(8));
    assert_eq!(text(&redis, "gen:t"), softly(7) + &softly(8));
    let log = generation(7) + &line("p:", true, 7) + &line("p:", true, 8);
    assert_eq!(text(&redis, PREFIX_LOG), log);
    run(&redis, &both(false).batch(9));
    assert_eq!(text(&redis, "gen:t"), generation(9));
    assert_eq!(text(&redis, "gen:key:k"), generation(9));
    assert_eq!(text(&redis, PREFIX_LOG), log + &line("p:", false, 9));
    assert_eq!(redis.get("k"), None);
    assert_eq!(redis.get("meta:k"), None);
    let ttls = redis.ttls_ms(NOW_US);
    assert_eq!(ttls.len(), 3);
    assert!(
        ttls.values().all(|ttl| *ttl == Some(172_800_000)),
        "{ttls:?}"
    );
}

/// Generations and the log do not grow for ever: past their bounds a hard purge follows,
/// which proves no less.
#[test]
fn what_is_too_long_ends_by_a_hard_purge() {
    let redis = FakeRedis::default();
    redis.set("gen:t", generation(1));
    let (mut rounds, mut longest) = (0, 0);
    for n in 0..200 {
        let purge = purge(&["t"], &["some:prefix:"], true);
        let batch = purge.batch(n + 2);
        let before = text(&redis, "gen:t");
        let replies = run(&redis, &batch);
        let now = text(&redis, "gen:t");
        assert_eq!(stands(&before, Some(&now)), Standing::Soft);
        longest = longest.max(now.len());
        let log = text(&redis, PREFIX_LOG);
        let is_long = now.len() > MAX_GENERATION_BYTES || log.len() > MAX_LOG_BYTES;
        let shorter = shorten(&batch, &replies, n + 1_000, None);
        assert_eq!(shorter.is_some(), is_long);
        if let Some(shorter) = shorter {
            rounds += 1;
            run(&redis, &shorter);
            if now.len() > MAX_GENERATION_BYTES {
                assert_eq!(text(&redis, "gen:t"), generation(n + 1_000));
                assert_eq!(stands(&now, Some(&text(&redis, "gen:t"))), Standing::Gone);
            }
            if log.len() > MAX_LOG_BYTES {
                assert_eq!(text(&redis, PREFIX_LOG), generation(n + 1_000));
            }
        }
    }
    assert!(
        rounds > 5 && longest <= MAX_GENERATION_BYTES + 17,
        "{rounds} {longest}"
    );
    let words = |word: &Word| matches!(word, Word::Text(text) if text == "EX");
    let batch = shorten(
        &purge(&["t"], &[], true).batch(1),
        &[Reply::Int(401)],
        2,
        None,
    )
    .unwrap();
    assert!(
        batch
            .commands
            .iter()
            .all(|command| command.words().iter().any(words))
    );
    let failed = [Reply::Error("ERR".to_owned())];
    assert_eq!(
        shorten(&purge(&["t"], &[], true).batch(1), &failed, 2, None),
        None
    );
}
