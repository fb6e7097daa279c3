//! HTTP dates (RFC 9110, 5.6.7), in seconds since the Unix epoch.

use super::freshness::number;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_S: i64 = 86_400;

/// A recipient must read all three formats. The name of the day says nothing that the date
/// does not, so it is not compared; names are case-sensitive.
pub fn parse(text: &str, now_s: i64) -> Option<i64> {
    let text = text.trim_matches([' ', '\t']);
    if let Some((day, rest)) = text.split_once(',') {
        let (date, clock) = rest
            .strip_prefix(' ')?
            .strip_suffix(" GMT")?
            .rsplit_once(' ')?;
        let is_old = date.contains('-');
        let mut parts = date.split(if is_old { '-' } else { ' ' });
        let (of_month, month, year) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || of_month.len() != 2 || is_old != (day.len() > 3) {
            return None;
        }
        let mut year_number = digits(year)?;
        match (is_old, year.len()) {
            (false, 4) => {}
            // A two-digit year that seems more than 50 years ahead is the last one that
            // ended so.
            (true, 2) => {
                let (this_year, ..) = civil(now_s.div_euclid(DAY_S));
                year_number += this_year.div_euclid(100) * 100;
                if year_number > this_year + 50 {
                    year_number -= 100;
                }
            }
            _ => return None,
        }
        return seconds(year_number, month, digits(of_month)?, clock);
    }
    // asctime pads the day of the month with a space.
    let mut parts = text.split(' ');
    let (_, month) = (parts.next()?, parts.next()?);
    let of_month = match parts.next()? {
        "" => parts.next()?,
        of_month => of_month,
    };
    let (clock, year) = (parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 {
        return None;
    }
    seconds(digits(year)?, month, digits(of_month)?, clock)
}

/// IMF-fixdate, the one format that is written.
pub fn format(at_s: i64) -> String {
    let days = at_s.div_euclid(DAY_S);
    let (year, month, day) = civil(days);
    let name = |names: &[&'static str], at: i64| {
        let name = usize::try_from(at).ok().and_then(|at| names.get(at));
        name.copied().unwrap_or_default()
    };
    // The epoch was a Thursday.
    let mut out = name(&DAYS, (days + 3).rem_euclid(7)).to_owned();
    out.push_str(", ");
    padded(&mut out, day, ' ');
    out.push_str(name(&MONTHS, month - 1));
    out.push(' ');
    padded(&mut out, year / 100, '\0');
    padded(&mut out, year % 100, ' ');
    let clock = at_s.rem_euclid(DAY_S);
    padded(&mut out, clock / 3600, ':');
    padded(&mut out, clock / 60 % 60, ':');
    padded(&mut out, clock % 60, ' ');
    out.push_str("GMT");
    out
}

/// Two digits, and what follows them.
fn padded(out: &mut String, number: i64, then: char) {
    for digit in [number / 10 % 10, number % 10] {
        out.push(char::from(u8::try_from(digit).unwrap_or(0) + b'0'));
    }
    if then != '\0' {
        out.push(then);
    }
}

fn digits(text: &str) -> Option<i64> {
    let number = number(text).filter(|_| text.len() <= 4)?;
    i64::try_from(number).ok()
}

fn seconds(year: i64, month: &str, day: i64, clock: &str) -> Option<i64> {
    let month = MONTHS.iter().position(|name| *name == month)?;
    let month = i64::try_from(month).ok()? + 1;
    let mut parts = clock.split(':');
    let mut next = || parts.next().filter(|part| part.len() == 2).and_then(digits);
    let (hour, minute, second) = (next()?, next()?, next()?);
    // A leap second is a second.
    let is_time = hour < 24 && minute < 60 && second <= 60 && parts.next().is_none();
    let days = days(year, month, day);
    // A day that its month does not have would be one of the next.
    if !is_time || civil(days) != (year, month, day) {
        return None;
    }
    Some(days * DAY_S + hour * 3600 + minute * 60 + second)
}

/// Days since the epoch. Years are counted from March, so that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of the month.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * of_era + of_era / 4 - of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = (from_march + 2) % 12 + 1;
    let year = era * 400 + of_era + i64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}
