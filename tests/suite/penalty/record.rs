//! Strikes as numbers: doubling, cap, jitter, decay, and what is no record.

use edgeweir::penalty::{Record, ban_ms};
use edgeweir::policy::Penalty;
use proptest::prelude::*;

const PENALTY: Penalty = Penalty {
    after: 5,
    base_ms: 60_000,
    max_ms: 3_600_000,
};
/// No jitter: 900 + 100 thousandths.
const MIDDLE: u64 = 100;
const NOW_MS: u64 = 1_770_000_000_000;

#[test]
fn a_ban_doubles_up_to_its_cap() {
    let bans: Vec<u64> = (1..=9)
        .map(|strikes| ban_ms(&PENALTY, strikes, MIDDLE) / 1000)
        .collect();
    assert_eq!(bans, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    assert_eq!(ban_ms(&PENALTY, u32::MAX, MIDDLE), 3_600_000);
}

#[test]
fn the_jitter_is_a_tenth_either_way_and_never_above_the_cap() {
    let bans: Vec<u64> = (0..201).map(|random| ban_ms(&PENALTY, 1, random)).collect();
    assert_eq!(bans.first(), Some(&54_000));
    assert_eq!(bans.last(), Some(&66_000));
    assert!(bans.windows(2).all(|pair| pair[1] - pair[0] == 60));
    let longest = (0..201).map(|random| ban_ms(&PENALTY, 7, random)).max();
    assert_eq!(longest, Some(3_600_000));
    let shortest = (0..201).map(|random| ban_ms(&PENALTY, 7, random)).min();
    assert_eq!(shortest, Some(3_240_000));
}

#[test]
fn strikes_decay_by_clean_windows_after_the_ban() {
    let first = Record::default().struck(&PENALTY, NOW_MS, MIDDLE);
    assert_eq!((first.strikes, first.until_ms), (1, NOW_MS + 60_000));
    let second = first.struck(&PENALTY, first.until_ms + 59_999, MIDDLE);
    assert_eq!(second.strikes, 2);
    assert_eq!(second.clean_window_ms, 120_000);
    let third = second.struck(&PENALTY, second.until_ms + 5, MIDDLE);
    let end_ms = third.until_ms;
    let strikes = |after_ms| third.strikes_at(end_ms + after_ms);
    let steps = [
        (0, 3),
        (239_999, 3),
        (240_000, 2),
        (480_000, 1),
        (719_999, 1),
        (720_000, 0),
        (90_000_000, 0),
    ];
    for (after_ms, left) in steps {
        assert_eq!(strikes(after_ms), left, "{after_ms}");
    }
    assert_eq!(third.strikes_at(NOW_MS), 3);
    // An offence keeps what has decayed, and the next clean window begins with it.
    let offended = third.offended(end_ms + 250_000);
    assert_eq!(offended.strikes, 2);
    assert_eq!(offended.strikes_at(end_ms + 489_999), 2);
    assert_eq!(offended.strikes_at(end_ms + 490_000), 1);
    assert_eq!(offended.until_ms, third.until_ms);
    let again = offended.struck(&PENALTY, end_ms + 500_000, MIDDLE);
    assert_eq!((again.strikes, again.clean_window_ms), (2, 120_000));
}

#[test]
fn a_clean_window_is_never_shorter_than_the_first_ban() {
    let record = Record::default().struck(&PENALTY, NOW_MS, 0);
    assert_eq!(record.until_ms, NOW_MS + 54_000);
    assert_eq!(record.clean_window_ms, 60_000);
}

/// Strikes beyond the cap would only make the way back longer.
#[test]
fn strikes_stop_where_bans_do() {
    let mut record = Record::default();
    for _ in 0..50 {
        record = record.struck(&PENALTY, record.until_ms.max(NOW_MS), MIDDLE);
    }
    assert_eq!(record.strikes, 7);
    assert_eq!(record.life_ms(record.until_ms), 7 * 3_600_000);
    let flat = Penalty {
        max_ms: 60_000,
        ..PENALTY
    };
    let record = Record::default().struck(&flat, NOW_MS, MIDDLE);
    assert_eq!(record.struck(&flat, record.until_ms, MIDDLE).strikes, 1);
}

#[test]
fn what_is_no_record_is_none() {
    let good = format!("{} 1 60000 {NOW_MS}", NOW_MS + 60_000);
    assert!(Record::parse(&good, NOW_MS).is_some());
    let bad = [
        "",
        "1",
        "a b c d",
        "-1 1 60000 0",
        "5 99999999999 60000 5",
        // It would end later than its length allows.
        "1770000180000 1 60000 0",
        "18446744073709551615 1 60000 0",
        "5 1 0 5",
    ];
    for text in bad {
        assert_eq!(Record::parse(text, NOW_MS), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_record_and_penalty_keep_their_bounds(
        base_ms in 1u64..3_000_000_000, factor in 1u64..1_000_000, random: u64,
        times in prop::collection::vec(0u64..10_000_000_000, 1..40),
    ) {
        let penalty = Penalty { after: 1, base_ms, max_ms: base_ms.saturating_mul(factor).min(2_678_400_000) };
        let mut record = Record::default();
        let mut now_ms = NOW_MS;
        for pause_ms in times {
            now_ms += pause_ms;
            let before = record.strikes_at(now_ms);
            record = record.struck(&penalty, now_ms, random);
            prop_assert!(record.strikes == before + 1 || record.strikes == before);
            let left_ms = record.left_ms(now_ms).unwrap();
            prop_assert!(left_ms <= penalty.max_ms.max(1) && left_ms >= base_ms.min(penalty.max_ms) * 9 / 10);
            prop_assert_eq!(Record::parse(&record.text(), now_ms), Some(record));
            prop_assert!(record.left_ms(record.until_ms).is_none());
            now_ms = record.until_ms;
        }
    }

    #[test]
    fn any_text_is_no_panic(text in "[0-9 .-]{0,60}", now_ms: u64) {
        if let Some(record) = Record::parse(&text, now_ms) {
            let penalty = Penalty { after: 1, base_ms: 1_000, max_ms: 60_000 };
            let _ = record.left_ms(now_ms);
            let _ = record.life_ms(now_ms);
            let _ = record.offended(now_ms);
            let _ = record.struck(&penalty, now_ms.min(1 << 60), 7);
        }
    }
}
