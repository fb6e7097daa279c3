//! When a pass is due: cron's five fields, or every so many hours from 02:00 UTC.

use edgeweir::views::due::{Cron, Schedule};
use edgeweir::views::{DAY_MS, HOUR_MS};

/// 2026-11-21 is a Saturday, 20 778 days after 1970.
const SATURDAY_MS: u64 = 20_778 * DAY_MS;

fn cron(text: &str) -> Schedule {
    Schedule::Cron(Box::new(
        Cron::parse(text).unwrap_or_else(|| panic!("{text}")),
    ))
}

fn at(hours: u64, minutes: u64) -> u64 {
    SATURDAY_MS + hours * HOUR_MS + minutes * 60_000
}

#[test]
fn twice_a_day_is_due_once_after_each_time() {
    for schedule in [cron("0 2,14 * * *"), Schedule::default()] {
        assert!(!schedule.is_due(at(2, 0), at(13, 59)));
        assert!(schedule.is_due(at(2, 0), at(14, 0)));
        assert!(schedule.is_due(at(2, 0), at(14, 4)));
        assert!(!schedule.is_due(at(14, 4), at(14, 9)));
        assert!(schedule.is_due(at(14, 4), at(24 + 2, 0)));
        assert!(schedule.is_due(0, at(1, 0)), "nothing was ever sent");
        // A clock that went back is nothing to hurry for.
        assert!(!schedule.is_due(at(14, 4), at(3, 0)));
    }
}

#[test]
fn an_interval_counts_from_two_in_the_morning() {
    let six = Schedule::Hours(6);
    assert!(!six.is_due(at(2, 0), at(7, 59)));
    assert!(six.is_due(at(2, 0), at(8, 0)));
    assert!(six.is_due(at(7, 59), at(8, 0)));
}

/// Each field against a stupid oracle: every minute of five years, one by one.
#[test]
fn each_field_says_when() {
    for (text, planned) in [
        ("*/15 * * * *", at(0, 45)),
        ("5 0 * * *", at(0, 5)),
        ("0-10/5 0 * * *", at(0, 10)),
        ("59 23 * * 5", SATURDAY_MS - 60_000),
        ("0 0 * * 6", at(0, 0)),
        ("0 0 * * 0", SATURDAY_MS - 6 * DAY_MS),
        ("0 0 * * 7", SATURDAY_MS - 6 * DAY_MS),
        ("0 0 21 * *", at(0, 0)),
        ("0 0 1 11 *", SATURDAY_MS - 20 * DAY_MS),
        ("0 0 31 12 *", SATURDAY_MS - 325 * DAY_MS),
        // Both days: one of them is enough.
        ("0 0 20 * 6", at(0, 0)),
        ("0 0 20 * 0", SATURDAY_MS - DAY_MS),
    ] {
        let schedule = cron(text);
        let now_ms = at(0, 59);
        assert!(schedule.is_due(planned - 1, now_ms), "{text}");
        assert!(!schedule.is_due(planned, now_ms), "{text}");
    }
    // A day that this year does not have.
    assert!(!cron("0 0 30 2 *").is_due(0, at(0, 59)));
}

#[test]
fn what_is_no_schedule_is_none() {
    for text in [
        "",
        "0 2",
        "0 2,14 * *",
        "0 2,14 * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "+1 * * * *",
        "1,,2 * * * *",
        "-1 * * * *",
        "1- * * * *",
        "@daily",
        "0 0 * * MON",
        "001 * * * *",
    ] {
        assert!(Cron::parse(text).is_none(), "{text}");
    }
}
