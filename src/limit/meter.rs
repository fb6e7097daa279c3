//! One count in Redis: its key, its commands and what their replies say. No clock, no
//! waiting, and nothing about what fits.

use std::ops::Range;

use super::counts::Counted;
use super::window::{Known, Rest, Spot, Window};
use crate::redis::{Command, Reply};

/// Added to two windows and the bucket by which a label may be early, after which
/// nobody reads a key any more.
const TTL_MARGIN_MS: u64 = 10_000;

/// How much longer than a window a log keeps its units, for labels of isolates that
/// were held up.
const LOG_KEEPS_MS: u64 = 20_000;

/// Far above every count and time. No sum of a few such numbers overflows.
const MOST: u64 = 1 << 60;

/// More of a log's oldest units than one request needs: others may be given back.
const LOG_READS: u64 = 32;

/// A bucket is a sorted set of one member, whose score is its arrival time.
const BUCKET_MEMBER: &str = "tat";

/// What one charge added, which is what a refund takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    pub total: bool,
    pub slot: bool,
}

/// A charge that was counted whole.
pub const ALL: Added = Added {
    total: true,
    slot: true,
};

/// Units that stand somewhere and go back with the next charge.
pub type Unspent = (Spot, u32);

#[derive(Debug, Clone)]
pub struct Meter {
    pub window: Window,
    /// The key without its epoch.
    pub base: String,
    /// Which of the databases holds the key.
    pub shard: usize,
    /// Nobody else's: names this request's units in a log.
    pub tag: u64,
}

impl Meter {
    /// A key of one algorithm is never read by another.
    fn key(&self, epoch: u64) -> String {
        let mut key = self.base.clone();
        if self.window.is_log() {
            key.push_str(":log");
        } else if self.window.is_bucket() {
            key.push_str(":tat");
        } else {
            key.push_str(if self.window.is_sliding() { ":" } else { ":f" });
            key.push_str(itoa::Buffer::new().format(epoch));
        }
        key
    }

    /// Every key that may hold a count at `spot`.
    pub fn keys(&self, spot: Spot) -> Vec<String> {
        let mut keys = vec![self.key(spot.epoch)];
        if self.window.is_sliding() {
            keys.push(self.key(spot.epoch.saturating_sub(1)));
        }
        keys
    }

    fn slot_type(&self) -> &'static str {
        if self.window.slot_bits() == 32 {
            "u32"
        } else {
            "u16"
        }
    }

    /// Adds to the total and to a slot, where there are slots.
    fn add(&self, command: Command, slot: u64, units: i64, added: Added) -> Command {
        let mut command = command;
        if added.total {
            command = step(command, "u32", 0, units);
        }
        if added.slot && self.window.is_sliding() {
            command = step(command, self.slot_type(), self.window.bit(slot), units);
        }
        command
    }

    /// A unit's name in a log.
    fn member(&self, unit: u32) -> String {
        let mut member = format!("{:x}", self.tag);
        if unit > 0 {
            member.push('-');
            member.push_str(itoa::Buffer::new().format(unit));
        }
        member
    }

    /// `charge_replies` commands, after which the total answered has this charge in it.
    /// A counter that would overflow answers nil. What is unspent of an earlier charge
    /// of this epoch goes back first. A log drops what was over at `passed_ms` of Redis' time
    /// already: a label may be of the future.
    pub fn charge(
        &self,
        (spot, passed_ms): (Spot, u64),
        units: u32,
        unspent: Option<Unspent>,
        commands: &mut Vec<Command>,
    ) {
        let key = self.key(spot.epoch);
        if self.window.is_log() {
            let start_ms = self.window.log_start_ms(spot.at_ms.min(passed_ms));
            let oldest_ms = start_ms.saturating_sub(LOG_KEEPS_MS);
            commands.push(
                Command::new("ZREMRANGEBYSCORE")
                    .arg(&key)
                    .arg("-inf")
                    .arg(oldest_ms),
            );
            commands.push(match units {
                // Redis refuses to add nothing, and the whole transaction with it.
                0 => Command::new("ZCARD").arg(key),
                _ => (0..units).fold(Command::new("ZADD").arg(key), |command, unit| {
                    command.arg(spot.at_ms).arg(self.member(unit))
                }),
            });
            commands.push(self.log_count(spot));
        } else if self.window.is_bucket() {
            commands.push(
                Command::new("ZADD")
                    .arg(&key)
                    .arg("GT")
                    .arg(self.window.bucket_now_us(spot.at_ms))
                    .arg(BUCKET_MEMBER),
            );
            commands.push(self.pour(i64::from(units)));
        } else {
            let mut command = Command::new("BITFIELD").arg(key);
            if let Some((stands, units)) = unspent {
                command = command.args(["OVERFLOW", "SAT"]);
                command = self.add(command, stands.slot, -i64::from(units), ALL);
            }
            command = command.args(["OVERFLOW", "FAIL"]);
            commands.push(self.add(command, spot.slot, i64::from(units), ALL));
        }
    }

    /// Fills a bucket, or takes out of it.
    fn pour(&self, units: i64) -> Command {
        let unit_us = i64::try_from(self.window.unit_us()).unwrap_or(i64::MAX);
        Command::new("ZINCRBY")
            .arg(self.key(0))
            .arg(units.saturating_mul(unit_us))
            .arg(BUCKET_MEMBER)
    }

    fn log_count(&self, spot: Spot) -> Command {
        Command::new("ZCOUNT")
            .arg(self.key(0))
            .arg(format!("({}", self.window.log_start_ms(spot.at_ms)))
            .arg("+inf")
    }

    /// How many commands a charge is.
    pub fn charge_replies(&self) -> usize {
        match (self.window.is_log(), self.window.is_bucket()) {
            (true, _) => 3,
            (_, true) => 2,
            _ => 1,
        }
    }

    /// The total after a charge, unless it would overflow, and what was added. `None`:
    /// the answer says nothing.
    pub fn charged(&self, reply: &Reply) -> Option<(Option<u64>, Added)> {
        if self.window.is_log() || self.window.is_bucket() {
            let added = Added {
                total: true,
                slot: false,
            };
            return Some((Some(number(reply)?), added));
        }
        let sums = reply.as_list()?;
        let sum = |reply: &Reply| match reply {
            Reply::Nil => Some(None),
            reply => number(reply).map(Some),
        };
        let (total, slot) = match (self.window.is_sliding(), sums) {
            (true, [.., total, slot]) => (sum(total)?, sum(slot)?),
            (false, [.., total]) => (sum(total)?, None),
            _ => return None,
        };
        let added = Added {
            total: total.is_some(),
            slot: slot.is_some(),
        };
        Some((total, added))
    }

    /// Whether all of it was counted.
    pub fn is_whole(&self, added: Added) -> bool {
        added.total && (added.slot || !self.window.is_sliding())
    }

    /// Moves a charge within its epoch; the total stays. `None`: there is nothing to move,
    /// or where it stands is where it counts.
    pub fn shift(&self, from: Spot, to: Spot, units: u32) -> Option<Command> {
        if units == 0 {
            return None;
        }
        if self.window.is_log() {
            return Some((0..units).fold(
                Command::new("ZADD").arg(self.key(0)).arg("XX"),
                |command, unit| command.arg(to.at_ms).arg(self.member(unit)),
            ));
        }
        if !self.window.is_sliding() {
            return None;
        }
        const SLOT: Added = Added {
            total: false,
            slot: true,
        };
        let command = Command::new("BITFIELD").arg(self.key(to.epoch));
        let command = self.add(
            command.args(["OVERFLOW", "FAIL"]),
            to.slot,
            i64::from(units),
            SLOT,
        );
        let command = command.args(["OVERFLOW", "SAT"]);
        Some(self.add(command, from.slot, -i64::from(units), SLOT))
    }

    /// Takes back some of a charge's units, what was added of them, never below zero: a flush may have come first.
    pub fn refund(&self, spot: Spot, added: Added, units: Range<u32>) -> Option<Command> {
        if units.is_empty() || !added.total && !added.slot {
            return None;
        }
        let less = -i64::from(units.end - units.start);
        if self.window.is_bucket() {
            return Some(self.pour(less));
        }
        let key = self.key(spot.epoch);
        if self.window.is_log() {
            return Some(units.fold(Command::new("ZREM").arg(key), |command, unit| {
                command.arg(self.member(unit))
            }));
        }
        let command = Command::new("BITFIELD").arg(key).args(["OVERFLOW", "SAT"]);
        Some(self.add(command, spot.slot, less, added))
    }

    /// The total that a refund answers, where it answers one.
    pub fn refunded(&self, reply: &Reply) -> Option<u64> {
        if self.window.is_log() {
            return None;
        }
        match reply.as_list() {
            Some(sums) => number(sums.first()?),
            None => number(reply),
        }
    }

    /// An epoch's key is read until the end of the next epoch.
    pub fn expire(&self, spot: Spot) -> Command {
        let kept_ms = match self.window.is_log() {
            true => LOG_KEEPS_MS,
            false => self.window.bucket_ms(),
        };
        let ttl_ms = 2 * self.window.life_ms() + kept_ms + TTL_MARGIN_MS;
        Command::pexpire(&self.key(spot.epoch), ttl_ms)
    }

    /// The whole of an epoch's key, empty when there is none; a log's oldest units that
    /// count; a bucket's arrival time.
    pub fn read(&self, spot: Spot, cost: u64) -> Command {
        let key = self.key(spot.epoch);
        if self.window.is_log() {
            return Command::new("ZRANGE")
                .arg(key)
                .arg(format!("({}", self.window.log_start_ms(spot.at_ms)))
                .args(["+inf", "BYSCORE", "LIMIT"])
                .args([0, cost + LOG_READS])
                .arg("WITHSCORES");
        }
        if self.window.is_bucket() {
            return Command::new("ZSCORE").arg(key).arg(BUCKET_MEMBER);
        }
        Command::new("GETRANGE").arg(key).args([0i64, -1])
    }

    /// The epoch before, or how much is in a log. `None`: there is nothing more.
    pub fn read_more(&self, spot: Spot) -> Option<Command> {
        if self.window.is_log() {
            return Some(self.log_count(spot));
        }
        self.window.is_sliding().then(|| {
            let before = self.key(spot.epoch.saturating_sub(1));
            Command::new("GETRANGE").arg(before).args([0i64, -1])
        })
    }

    /// A whole key, or nothing when the reply is none that `read` gets. Of a log only
    /// the rest.
    pub fn parse(&self, reply: &Reply) -> Option<Known> {
        let (total, rest) = if self.window.is_log() {
            let times = reply.as_list()?.iter().skip(1).step_by(2);
            (0, Rest::Oldest(times.map(number).collect::<Option<_>>()?))
        } else if self.window.is_bucket() {
            let total = match reply {
                Reply::Nil => 0,
                reply => number(reply)?,
            };
            (total, Rest::Slots(Default::default()))
        } else {
            let counted = match reply {
                Reply::Nil => Counted::default(),
                reply => Counted::parse(&self.window, reply.as_bytes()?),
            };
            (counted.total, Rest::Slots(counted.slots))
        };
        Some(Known {
            total,
            rest: Some(rest),
            ..Known::default()
        })
    }
}

/// One counter's part of a `BITFIELD`.
fn step(command: Command, kind: &'static str, bit: u64, units: i64) -> Command {
    match units {
        // Only looks: a key that nobody charged is not made.
        0 => command.args(["GET", kind]).arg(bit),
        _ => command.args(["INCRBY", kind]).arg(bit).arg(units),
    }
}

/// A whole number, whether it came as one or as text; what is below zero is zero.
pub fn number(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Int(number) => Some(u64::try_from(*number).unwrap_or(0).min(MOST)),
        reply => score(reply.as_str()?).map(|number| number.min(MOST)),
    }
}

/// The whole part of a score: some write `1.77e+15` where Redis writes it out.
fn score(text: &str) -> Option<u64> {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent
        .strip_prefix('+')
        .unwrap_or(exponent)
        .parse()
        .ok()?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.starts_with('-') {
        return Some(0);
    }
    let mut number: u64 = 0;
    let mut places = exponent.saturating_add(i32::try_from(whole.len()).ok()?);
    let mut rest = whole.bytes().chain(fraction.bytes());
    // Nothing that we store has more digits.
    for _ in 0..places.clamp(0, 20) {
        let digit = match rest.next() {
            None => 0,
            Some(digit @ b'0'..=b'9') => u64::from(digit - b'0'),
            Some(_) => return None,
        };
        number = number.checked_mul(10)?.checked_add(digit)?;
        places -= 1;
    }
    (places <= 0 && rest.all(|digit| digit.is_ascii_digit())).then_some(number)
}
