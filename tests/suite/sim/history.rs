//! What Redis itself saw of the limiter: the exact log that the bound is held against.
//!
//! It is read off the commands as they ran, in Redis' order and by Redis' clock, and
//! shares no code with the limiter.

use std::collections::{BTreeMap, BTreeSet};

use super::redis::Ran;

/// One admitted charge of one limit.
#[derive(Debug, Clone, Copy)]
pub struct Admitted {
    pub at_us: u64,
    pub cost: u64,
}

/// One limit's admitted charges between two flushes, in Redis' order.
#[derive(Debug, Default)]
pub struct Stretch {
    pub admitted: Vec<Admitted>,
    /// Units that were charged before the flush and given back in this stretch: the
    /// refunds take from what this stretch has charged.
    pub crossed: u64,
}

/// The history of each key without its epoch, one stretch after another.
pub fn histories(ran: &[Ran], admitted: &BTreeSet<u64>) -> BTreeMap<String, Vec<Stretch>> {
    // A request's last charge of a key is the one it was admitted by.
    let mut last = BTreeMap::new();
    for (order, charge) in ran.iter().enumerate() {
        if let Some((key, cost)) = change(charge)
            && cost > 0
        {
            last.insert((charge.tag, base(key)), order);
        }
    }
    let mut histories: BTreeMap<String, Vec<Stretch>> = BTreeMap::new();
    let mut flushes = 0;
    let mut charged_in = BTreeMap::new();
    for (order, ran) in ran.iter().enumerate() {
        if ran.words == ["FLUSHALL"] {
            flushes += 1;
            continue;
        }
        let Some((key, cost)) = change(ran) else {
            continue;
        };
        let stretches = histories.entry(base(key).to_owned()).or_default();
        stretches.resize_with(flushes + 1, Stretch::default);
        let stretch = &mut stretches[flushes];
        if cost < 0 {
            if charged_in.get(&(ran.tag, key)) != Some(&flushes) {
                stretch.crossed += cost.unsigned_abs();
            }
        } else {
            charged_in.insert((ran.tag, key), flushes);
            if admitted.contains(&ran.tag) && last[&(ran.tag, base(key))] == order {
                stretch.admitted.push(Admitted {
                    at_us: ran.at_us,
                    cost: cost.unsigned_abs(),
                });
            }
        }
    }
    histories
}

/// The most that any trailing window of this length admitted.
pub fn most_in_any_window(log: &[Admitted], window_us: u64) -> u64 {
    let (mut most, mut sum, mut first) = (0, 0, 0);
    for charge in log {
        sum += charge.cost;
        while log[first].at_us + window_us <= charge.at_us {
            sum -= log[first].cost;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

/// The key and the change of its total, if this command is a charge or a refund.
fn change(ran: &Ran) -> Option<(&str, i64)> {
    let words: Vec<&str> = ran.words.iter().map(String::as_str).collect();
    match words[..] {
        ["BITFIELD", key, "OVERFLOW", _, "INCRBY", "u32", "0", by, ..] => {
            Some((key, by.parse().unwrap()))
        }
        ["BITFIELD", key, "INCRBY", "u32", "0", by, ..] => Some((key, by.parse().unwrap())),
        _ => None,
    }
}

fn base(key: &str) -> &str {
    key.rsplit_once(':').unwrap().0
}
