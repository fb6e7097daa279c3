//! One charging trip: what to ask, and what the answer says. No clock, no waiting.
//!
//! `plan` and `judge` walk the same list in the same order, so that every reply finds
//! its command.

use std::rc::Rc;

use super::counts::{Counted, Sums};
use super::memory::Memory;
use super::rule::{Added, Rule};
use super::window::Spot;
use crate::redis::{Batch, Command, Reply};

/// The year 144 683. Sums of times never overflow below it.
const MAX_TIME_MS: u64 = 1 << 52;

/// A charge that Redis ran and answered.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Which rule.
    pub index: usize,
    /// Where it counts.
    pub spot: Spot,
    /// Where it stands in Redis.
    pub stands: Spot,
    pub added: Added,
    /// After the charge; what was there before is unknown when it would overflow.
    pub total: u64,
    pub previous: Rc<Sums>,
    /// Read right after the charge, when it was to be the last that fits.
    pub current: Option<Counted>,
    pub fits: bool,
    /// The key may be new and this trip did not set its expiry.
    pub lacks_expiry: bool,
}

impl Held {
    /// Of a rule that was not charged: nothing to give back.
    pub fn uncharged(index: usize, spot: Spot) -> Self {
        Self {
            index,
            spot,
            stands: spot,
            added: Added {
                total: false,
                slot: false,
            },
            total: 0,
            previous: Rc::default(),
            current: None,
            fits: false,
            lacks_expiry: false,
        }
    }
}

/// What one trip asks.
#[derive(Debug)]
pub(super) struct Asked {
    pub batch: Batch,
    /// When it was planned, by the local clock.
    pub sent_ms: u64,
    /// How many refunds come first, two commands each.
    given_back: usize,
    charges: Vec<AskedCharge>,
    has_time: bool,
    riders: usize,
}

#[derive(Debug)]
struct AskedCharge {
    index: usize,
    spot: Spot,
    sets_expiry: bool,
    /// `None`: asked in this trip.
    previous: Option<Rc<Sums>>,
    asks_current: bool,
}

/// What one trip's answer means for its charges.
#[derive(Debug)]
pub(super) enum Judged {
    /// Every charge ran where its label says.
    Valid(Vec<Held>),
    /// Every charge fits where it counts, but stands elsewhere in its epoch: move them.
    /// Given back and charged anew they could lose their place to others' charges that
    /// are about to be given back.
    Astray(Vec<Held>),
    /// Some label was wrong, or some charge ran in another epoch: give all of them
    /// back and charge again.
    Misplaced(Vec<Held>),
    /// An answer that says nothing; those charges are known to have run.
    Broken(Vec<Held>),
}

/// Plans charges for the rules in `group`, after giving back `returned`.
pub(super) fn plan(
    memory: &mut Memory,
    rules: &[Rule<'_>],
    group: &[usize],
    returned: &[Held],
    riders: Vec<Command>,
    now_ms: u64,
) -> Asked {
    let label_ms = memory.clock.label(now_ms);
    // What is charged once more is judged by Redis' own word.
    let mut has_time = memory.clock.is_unsure(now_ms) || !returned.is_empty();
    let mut commands = refunds(rules, returned);
    let given_back = commands.len();
    let mut charges = Vec::with_capacity(group.len());
    for (index, rule) in picked(rules, group) {
        let spot = rule.window.spot(label_ms);
        has_time |= rule.window.is_near_boundary(label_ms);
        let entry = memory.entry(rule, spot.epoch);
        let known = entry.previous.as_ref();
        let counted = known.map_or(0, |sums| sums.from(rule.window.counted_from(spot)));
        let after = entry.total + entry.in_flight + counted + rule.cost();
        entry.in_flight += rule.cost();
        let charge = AskedCharge {
            index,
            spot,
            sets_expiry: !entry.is_touched,
            previous: entry.previous.clone(),
            asks_current: after >= u64::from(rule.requests),
        };
        commands.push(rule.charge(spot));
        if charge.sets_expiry {
            commands.push(rule.expire(spot));
        }
        // After the charge: what was admitted before the charge ran must be in it.
        if charge.previous.is_none() {
            commands.push(rule.read(spot.epoch.saturating_sub(1)));
        }
        if charge.asks_current {
            commands.push(rule.read(spot.epoch));
        }
        charges.push(charge);
    }
    if has_time {
        commands.push(Command::new("TIME"));
    }
    let riders_count = riders.len();
    commands.extend(riders);
    Asked {
        batch: match has_time {
            true => Batch::multi(commands),
            false => Batch::pipeline(commands),
        },
        sent_ms: now_ms,
        given_back,
        charges,
        has_time,
        riders: riders_count,
    }
}

impl Asked {
    pub fn has_riders(&self) -> bool {
        self.riders > 0
    }

    /// Takes the riders' replies off the end.
    pub fn split_riders(&self, replies: &mut Vec<Reply>) -> Vec<Reply> {
        replies.split_off(replies.len().saturating_sub(self.riders))
    }

    /// The trip brought nothing: the charges may have run, and the expiry may not.
    pub fn forget(&self, memory: &mut Memory, rules: &[Rule<'_>]) {
        for charge in &self.charges {
            if let Some(rule) = rules.get(charge.index)
                && let Some(entry) = memory.entry_of(rule, charge.spot.epoch)
            {
                entry.in_flight = entry.in_flight.saturating_sub(rule.cost());
                entry.is_touched = false;
            }
        }
    }

    /// `replies` are the limiter's own, one per command. Without Redis' own word the
    /// labels hold only for an answer that is not `is_late`.
    pub fn judge(
        &self,
        memory: &mut Memory,
        rules: &[Rule<'_>],
        replies: &[Reply],
        received_ms: u64,
        is_late: bool,
    ) -> Judged {
        let ran_ms = replies.last().filter(|_| self.has_time).and_then(time_ms);
        let mut is_broken = self.has_time && ran_ms.is_none();
        let mut is_label_false = false;
        let mut is_epoch_wrong = false;
        let mut held = Vec::with_capacity(self.charges.len());
        let mut learned = Vec::with_capacity(self.charges.len());
        let mut replies = replies.iter().skip(self.given_back);
        let label_ms = memory.clock.label(self.sent_ms);
        if let Some(ran_ms) = ran_ms {
            memory.clock.observe(self.sent_ms, received_ms, ran_ms);
        }
        for charge in &self.charges {
            let Some(rule) = rules.get(charge.index) else {
                continue;
            };
            let answered = replies.next().and_then(charged);
            let is_expiry_set = charge.sets_expiry
                && replies
                    .next()
                    .is_some_and(|reply| reply.as_int() == Some(1));
            let read = match &charge.previous {
                Some(previous) => Some(previous.clone()),
                None => replies
                    .next()
                    .and_then(|reply| counted(rule, reply))
                    .map(|read| Rc::new(read.slots)),
            };
            let current = match charge.asks_current {
                true => replies.next().and_then(|reply| counted(rule, reply)),
                false => None,
            };
            let Some((total, added)) = answered else {
                is_broken = true;
                continue;
            };
            is_broken |= read.is_none();
            let previous = read.unwrap_or_default();
            let total = total.unwrap_or(u64::from(u32::MAX));
            let fits = added.total
                && added.slot
                && rule.does_fit(rule.window.count(charge.spot, total, &previous));
            if let Some(ran_ms) = ran_ms {
                is_label_false |= !rule.window.is_label_true(charge.spot, ran_ms);
                is_epoch_wrong |= !rule.window.is_same_epoch(charge.spot, ran_ms);
            }
            let read_ms = ran_ms.unwrap_or(label_ms);
            let is_final = rule.window.spot(read_ms).epoch == charge.spot.epoch
                && rule.window.is_past_grace(read_ms);
            learned.push((total, is_expiry_set, is_final));
            held.push(Held {
                index: charge.index,
                spot: charge.spot,
                stands: charge.spot,
                added,
                total,
                previous,
                current,
                fits,
                lacks_expiry: !is_expiry_set && total == rule.cost(),
            });
        }
        // Redis says where it ran: that is where it counts.
        if let Some(ran_ms) = ran_ms
            && is_label_false
            && !is_epoch_wrong
        {
            is_label_false = false;
            held = self.placed(rules, held, ran_ms);
        }
        let all_fit = held.iter().all(|held| held.fits);
        let is_unplaced = is_late && !self.has_time && all_fit;
        if is_unplaced {
            // It ran at some time since then: counted longer than it must be, it is safe.
            let to_ms = memory.clock.label(received_ms);
            let is_same = |held: &Held| {
                let rule = rules.get(held.index);
                rule.is_some_and(|rule| rule.window.spot(to_ms).epoch == held.stands.epoch)
            };
            is_epoch_wrong = !held.iter().all(is_same);
            if !is_epoch_wrong {
                held = self.placed(rules, held, to_ms);
            }
        }
        // A refusal is safe wherever it ran; only its label must be true, or the time that
        // it names would be wrong.
        if is_broken || is_label_false || (is_epoch_wrong && all_fit) {
            self.forget(memory, rules);
            return match is_broken {
                true => Judged::Broken(held),
                false => Judged::Misplaced(held),
            };
        }
        for (held, (total, is_expiry_set, is_final)) in held.iter().zip(learned) {
            let Some(rule) = rules.get(held.index) else {
                continue;
            };
            if let Some(entry) = memory.entry_of(rule, held.spot.epoch) {
                entry.in_flight = entry.in_flight.saturating_sub(rule.cost());
                entry.total = total;
                if held.fits {
                    entry.settled = total;
                }
                entry.is_touched |= is_expiry_set;
                if is_final && entry.previous.is_none() {
                    entry.previous = Some(held.previous.clone());
                }
            }
        }
        // One that stays in its slot is moved too: the move's `TIME` confirms its epoch.
        let is_astray = is_unplaced || held.iter().any(|held| held.spot.slot != held.stands.slot);
        match all_fit && is_astray {
            true => Judged::Astray(held),
            false => Judged::Valid(held),
        }
    }

    /// The charges as they count at another moment.
    fn placed(&self, rules: &[Rule<'_>], held: Vec<Held>, at_ms: u64) -> Vec<Held> {
        let placed = |held: Held| {
            let rule = rules.get(held.index)?;
            let spot = rule.window.spot(at_ms);
            let count = rule.window.count(spot, held.total, &held.previous);
            Some(Held {
                spot,
                fits: held.added.total && held.added.slot && rule.does_fit(count),
                current: None,
                ..held
            })
        };
        held.into_iter().filter_map(placed).collect()
    }
}

/// Moves charges to their own spots; `TIME` comes last.
pub(super) fn shift(rules: &[Rule<'_>], charged: &[Held]) -> Batch {
    let mut commands = Vec::with_capacity(2 * charged.len() + 1);
    for held in charged {
        if let Some(rule) = rules.get(held.index) {
            commands.push(rule.shift(held.stands, held.spot));
            // A flush may have come first, and then this makes the key.
            commands.push(rule.expire(held.spot));
        }
    }
    commands.push(Command::new("TIME"));
    Batch::multi(commands)
}

/// Whether they were moved before the next epoch began, whose charges read this one's
/// slots. `None`: nobody knows where they stand.
pub(super) fn is_shifted(rules: &[Rule<'_>], charged: &[Held], replies: &[Reply]) -> Option<bool> {
    let ran_ms = time_ms(replies.last()?)?;
    let mut is_in_time = true;
    for (held, reply) in charged.iter().zip(replies.iter().step_by(2)) {
        reply.as_list()?.first()?.as_int()?;
        let rule = rules.get(held.index)?;
        is_in_time &= rule.window.is_same_epoch(held.spot, ran_ms);
    }
    Some(is_in_time)
}

/// Gives charges back, each with its expiry: after a flush a refund makes the key.
pub(super) fn refunds(rules: &[Rule<'_>], held: &[Held]) -> Vec<Command> {
    let mut commands = Vec::with_capacity(2 * held.len());
    for held in held {
        if let Some(rule) = rules.get(held.index)
            && let Some(refund) = rule.refund(held.stands, held.added)
        {
            commands.push(refund);
            commands.push(rule.expire(held.stands));
        }
    }
    commands
}

pub(super) fn picked<'r, 'p>(
    rules: &'r [Rule<'p>],
    group: &[usize],
) -> impl Iterator<Item = (usize, &'r Rule<'p>)> {
    group
        .iter()
        .filter_map(|index| rules.get(*index).map(|rule| (*index, rule)))
}

/// A whole key, or nothing when the reply is no string.
pub(super) fn counted(rule: &Rule<'_>, reply: &Reply) -> Option<Counted> {
    match reply {
        Reply::Nil => Some(Counted::default()),
        reply => Some(Counted::parse(&rule.window, reply.as_bytes()?)),
    }
}

/// The total after a charge, unless it would overflow, and what was added.
fn charged(reply: &Reply) -> Option<(Option<u64>, Added)> {
    let [total, slot] = reply.as_list()? else {
        return None;
    };
    let number = |reply: &Reply| match reply {
        Reply::Nil => Some(None),
        Reply::Int(number) => u64::try_from(*number).ok().map(Some),
        _ => None,
    };
    let (total, slot) = (number(total)?, number(slot)?);
    let added = Added {
        total: total.is_some(),
        slot: slot.is_some(),
    };
    Some((total, added))
}

/// `TIME`: seconds and microseconds, as strings or numbers.
fn time_ms(reply: &Reply) -> Option<u64> {
    let [seconds, micros] = reply.as_list()? else {
        return None;
    };
    let number = |reply: &Reply| match reply {
        Reply::Int(number) => u64::try_from(*number).ok(),
        reply => reply.as_str()?.parse::<u64>().ok(),
    };
    number(seconds)?
        .checked_mul(1000)?
        .checked_add(number(micros)? / 1000)
        .filter(|time_ms| *time_ms <= MAX_TIME_MS)
}
