//! One charging trip: what to ask, and what the answer says. No clock, no waiting.
//!
//! `plan` and `judge` walk the same list in the same order, so that every reply finds
//! its command.

use std::rc::Rc;

use super::counts::Sums;
use super::lease::Lease;
use super::memory::{Entry, Memory};
use super::meter::{ALL, Added, number};
use super::rule::Rule;
use super::window::{Known, Rest, Spot};
use crate::redis::{Batch, Command, Reply};

/// The year 144 683. Sums of times never overflow below it.
const MAX_TIME_MS: u64 = 1 << 52;

/// A charge that Redis ran and answered, or a permit that was charged before.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Which rule.
    pub index: usize,
    /// Where it counts.
    pub spot: Spot,
    /// Where it stands in Redis.
    pub stands: Spot,
    pub added: Added,
    /// What was charged, this request's cost among it.
    pub units: u32,
    /// Of `units`, how many were too many: they go back, the rest fits.
    pub excess: u32,
    /// After the charge; what was there before is unknown when it would overflow.
    pub known: Known,
    pub fits: bool,
    /// The key may be new and this trip did not set its expiry.
    pub lacks_expiry: bool,
    /// Spent of a lease: nothing was charged now.
    pub is_spent: bool,
}

impl Held {
    /// Of a rule that was not charged now: nothing to give back.
    pub fn uncharged(index: usize, spot: Spot, known: Known) -> Self {
        Self {
            index,
            spot,
            stands: spot,
            added: Added {
                total: false,
                slot: false,
            },
            units: 0,
            excess: 0,
            known,
            fits: false,
            lacks_expiry: false,
            is_spent: false,
        }
    }

    /// Judges it where it counts. Of a grant the part that fits is kept, if the request
    /// itself is in it.
    fn judge(&mut self, rule: &Rule<'_>) {
        let count = rule.window.count(self.spot, &self.known);
        let over = count.saturating_sub(rule.capacity());
        let spare = u64::from(self.units - rule.cost.min(self.units));
        // Who takes nothing is never refused: a limit that was made smaller may be overfull.
        self.fits = rule.is_whole(self.added) && (rule.cost == 0 || over <= spare);
        self.excess = match self.fits {
            true => u32::try_from(over).unwrap_or(u32::MAX).min(self.units),
            false => 0,
        };
    }
}

/// What one trip asks.
#[derive(Debug)]
pub(super) struct Asked {
    shard: usize,
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
    units: u32,
    is_grant: bool,
    sets_expiry: bool,
    /// `None`: asked in this trip.
    previous: Option<Rc<Sums>>,
    asks_current: bool,
}

impl AskedCharge {
    fn land(&self, entry: &mut Entry) {
        entry.in_flight = entry.in_flight.saturating_sub(u64::from(self.units));
        if self.is_grant {
            entry.granting_ms = None;
        }
    }
}

/// What one trip's answer means for its charges.
#[derive(Debug)]
pub(super) enum Judged {
    /// Every charge ran where its label says.
    Valid(Vec<Held>),
    /// Every charge fits where it counts, but stands elsewhere in its epoch: move them. Those that
    /// a shadow has no room for stay, and are given back where they stand.
    /// Given back and charged anew they could lose their place to others' charges that
    /// are about to be given back.
    Astray(Vec<Held>),
    /// Some label was wrong, or some charge ran in another epoch: give all of them
    /// back and charge again.
    Misplaced(Vec<Held>),
    /// An answer that says nothing; those charges are known to have run.
    Broken(Vec<Held>),
}

/// Plans charges for the rules in `group`, all of one database, after giving back
/// `returned`.
pub(super) fn plan(
    memory: &mut Memory,
    rules: &[Rule<'_>],
    (shard, group): (usize, &[usize]),
    returned: &[Held],
    riders: Vec<Command>,
    now_ms: u64,
) -> Asked {
    let is_sure = !memory.is_clock_unsure(shard, now_ms);
    let passed_ms = memory.passed_ms(shard, now_ms);
    // What is charged once more is judged by Redis' own word.
    let mut has_time = !group.is_empty() && !is_sure || !returned.is_empty();
    let mut commands = refunds(rules, returned);
    for (_, rule) in picked(rules, group) {
        let epoch = memory.spot(rule, now_ms).epoch;
        if let Some((spot, units)) = memory.outlived(rule, epoch)
            && let Some(refund) = rule.refund(spot, ALL, 0..units)
        {
            commands.push(refund);
            commands.push(rule.expire(spot));
        }
    }
    let given_back = commands.len();
    let mut charges = Vec::with_capacity(group.len());
    for (index, rule) in picked(rules, group) {
        let spot = memory.spot(rule, now_ms);
        has_time |= rule.window.is_near_boundary(spot.at_ms)
            || rule.window.is_bucket() && memory.is_clock_aging(shard, now_ms);
        let entry = memory.entry(rule, spot.epoch);
        let known = Known {
            total: entry.total,
            previous: entry.previous.clone().unwrap_or_default(),
            rest: None,
        };
        // An epoch before counts only in a sliding window.
        let previous = match rule.window.is_sliding() {
            true => (entry.previous.clone()).filter(|_| entry.is_previous_final),
            false => Some(Rc::default()),
        };
        let count = rule.window.count(spot, &known) + entry.in_flight;
        // While it is renewed others spend the rest.
        let ended = match entry.is_renewal_due(rule, spot.at_ms, now_ms) {
            true => None,
            false => entry.lease.take(),
        };
        let rest = entry.rest.take();
        let unspent = ended.and_then(Lease::unspent).or(rest);
        // One at a time, whatever else is charged: in a crowd there always is something.
        let may_grant = rule.limit.lease && !entry.is_granting(now_ms) && returned.is_empty();
        let units = match may_grant {
            true => {
                let room = rule.capacity().saturating_sub(count);
                entry.demand.grant(rule, room, now_ms)
            }
            false => {
                entry.demand.crowded(rule.cost);
                rule.cost
            }
        };
        let is_grant = units > rule.cost;
        if is_grant {
            entry.granting_ms = Some(now_ms);
        }
        entry.in_flight += u64::from(units);
        let charge = AskedCharge {
            index,
            spot,
            units,
            is_grant,
            // Only a bucket's key is made by who takes nothing.
            sets_expiry: !entry.is_touched && (units > 0 || rule.window.is_bucket()),
            previous,
            asks_current: (rule.window.is_sliding() || rule.window.is_log())
                && count + rule.cost() >= rule.capacity(),
        };
        rule.charge((spot, passed_ms), units, unspent, &mut commands);
        if charge.sets_expiry {
            commands.push(rule.expire(spot));
        }
        // After the charge: what was admitted before the charge ran must be in it.
        if charge.previous.is_none() {
            commands.extend(rule.read_more(spot));
        }
        if charge.asks_current {
            commands.push(rule.look(spot));
        }
        charges.push(charge);
    }
    if has_time {
        commands.push(Command::new("TIME"));
    }
    let riders_count = riders.len();
    commands.extend(riders);
    Asked {
        shard,
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

/// Redis' time, and what rides along.
pub(super) fn ask_time(riders: Vec<Command>) -> Batch {
    let mut commands = vec![Command::new("TIME")];
    commands.extend(riders);
    Batch::pipeline(commands)
}

/// Learns from the answer to that, and leaves the riders' replies in it.
pub(super) fn learn_time(
    memory: &mut Memory,
    shard: usize,
    (sent_ms, received_ms): (u64, u64),
    replies: &mut Vec<Reply>,
) -> bool {
    let ran_ms = match replies.is_empty() {
        true => None,
        false => time_ms(&replies.remove(0)),
    };
    if let Some(ran_ms) = ran_ms {
        let clock = memory.clock(shard);
        clock.observe(sent_ms, received_ms, ran_ms);
    }
    ran_ms.is_some()
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
                charge.land(entry);
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
        let label_ms = memory.label(self.shard, self.sent_ms);
        if let Some(ran_ms) = ran_ms {
            let clock = memory.clock(self.shard);
            clock.observe(self.sent_ms, received_ms, ran_ms);
        }
        for charge in &self.charges {
            let Some(rule) = rules.get(charge.index) else {
                continue;
            };
            let made = match rule.window.is_bucket() {
                true => replies.next().and_then(Reply::as_int),
                false => None,
            };
            let last = rule.charge_replies() - 1 - usize::from(rule.window.is_bucket());
            let answered = replies.nth(last).and_then(|reply| rule.charged(reply));
            let is_expiry_set = charge.sets_expiry
                && replies
                    .next()
                    .is_some_and(|reply| reply.as_int() == Some(1));
            let previous = match &charge.previous {
                Some(previous) => Some(previous.clone()),
                None => replies
                    .next()
                    .and_then(|reply| slots(rule, reply))
                    .map(Rc::new),
            };
            let current = match charge.asks_current {
                true => replies.next().and_then(|reply| rule.parse(reply)),
                false => None,
            };
            let Some((total, added)) = answered else {
                is_broken = true;
                continue;
            };
            is_broken |= previous.is_none();
            let known = Known {
                total: total.unwrap_or(u64::from(u32::MAX)),
                previous: previous.unwrap_or_default(),
                rest: current.and_then(|current| current.rest),
            };
            if let Some(ran_ms) = ran_ms {
                is_label_false |= !rule.window.is_label_true(charge.spot, ran_ms);
                is_epoch_wrong |= !rule.window.is_same_epoch(charge.spot, ran_ms)
                    || rule.window.is_misjudged(charge.spot, ran_ms);
            }
            let read_ms = ran_ms.unwrap_or(label_ms);
            let is_final = rule.window.spot(read_ms).epoch == charge.spot.epoch
                && rule.window.is_past_grace(read_ms);
            learned.push((known.total, is_expiry_set, is_final));
            let mut one = Held {
                units: charge.units,
                added,
                // A bucket's first command says whether it made the key.
                lacks_expiry: !is_expiry_set
                    && match rule.window.is_bucket() {
                        true => made == Some(1),
                        false => charge.units > 0 && known.total == u64::from(charge.units),
                    },
                ..Held::uncharged(charge.index, charge.spot, known)
            };
            one.judge(rule);
            held.push(one);
        }
        // Redis says where it ran: that is where it counts.
        if let Some(ran_ms) = ran_ms
            && is_label_false
            && !is_epoch_wrong
        {
            is_label_false = false;
            held = self.placed(rules, held, ran_ms);
        }
        // What a shadow has no room for is admitted all the same, so the others must stand right.
        let is_shadow = |held: &Held| rules.get(held.index).is_some_and(|rule| rule.limit.shadow);
        let all_fit = held.iter().all(|held| held.fits || is_shadow(held));
        let is_unplaced = is_late && !self.has_time && all_fit;
        if is_unplaced {
            // It ran at some time since then: counted longer than it must be, it is safe.
            let to_ms = memory.label(self.shard, received_ms);
            let is_same = |held: &Held| {
                let rule = rules.get(held.index);
                rule.is_some_and(|rule| rule.window.is_same_epoch(held.stands, to_ms))
            };
            is_epoch_wrong = !held.iter().all(is_same);
            if !is_epoch_wrong {
                held = self.placed(rules, held, to_ms);
            }
        }
        // A refusal is safe wherever it ran, but the time that it names is right only if it
        // left in the epoch that it was charged to.
        let left_ms = memory.label(self.shard, self.sent_ms);
        let has_left_there = |held: &Held| {
            let rule = rules.get(held.index);
            rule.is_some_and(|rule| rule.window.is_same_epoch(held.spot, left_ms))
        };
        let is_time_wrong = is_epoch_wrong && (all_fit || !held.iter().all(has_left_there));
        if is_broken || is_label_false || is_time_wrong {
            self.forget(memory, rules);
            return match is_broken {
                true => Judged::Broken(held),
                false => Judged::Misplaced(held),
            };
        }
        let landed = held.iter().zip(&self.charges).zip(learned);
        for ((held, charge), (total, is_expiry_set, is_final)) in landed {
            let Some(rule) = rules.get(held.index) else {
                continue;
            };
            if let Some(entry) = memory.entry_of(rule, held.spot.epoch) {
                charge.land(entry);
                let growth = total.saturating_sub(entry.total);
                entry.total = total;
                if held.fits {
                    entry.settled = total - u64::from(held.excess);
                    entry.own += u64::from(held.units - held.excess);
                }
                // Until it is known to be set, each charge sets it.
                entry.is_touched = is_expiry_set || entry.is_touched && !held.lacks_expiry;
                if !entry.is_previous_final {
                    entry.previous = Some(held.known.previous.clone());
                    entry.is_previous_final = is_final;
                }
                if held.fits && rule.window.is_sliding() {
                    memory.learn_share(u64::from(held.units), growth);
                }
            }
        }
        // One that stays in its slot is moved too: the move's `TIME` confirms its epoch.
        let is_moved = |held: &Held| {
            let is_log = |rule: &Rule<'_>| rule.window.is_log();
            let is_elsewhere = held.spot.slot != held.stands.slot
                || held.spot.at_ms != held.stands.at_ms
                    && rules.get(held.index).is_some_and(is_log);
            held.fits && is_elsewhere
        };
        let is_astray = is_unplaced || held.iter().any(is_moved);
        match all_fit && is_astray {
            true => Judged::Astray(held),
            false => Judged::Valid(held),
        }
    }

    /// The charges as they count at another moment. A bucket that was judged too early
    /// was judged safely.
    fn placed(&self, rules: &[Rule<'_>], held: Vec<Held>, at_ms: u64) -> Vec<Held> {
        let placed = |mut held: Held| {
            let rule = rules.get(held.index)?;
            if !rule.window.is_bucket() {
                held.spot = rule.window.spot(at_ms);
                held.known.rest = None;
                held.judge(rule);
            }
            Some(held)
        };
        held.into_iter().filter_map(placed).collect()
    }
}

/// Moves charges to their own spots; `TIME` comes last.
pub(super) fn shift(rules: &[Rule<'_>], charged: &[Held]) -> Batch {
    let mut commands = Vec::with_capacity(2 * charged.len() + 1);
    for held in charged.iter().filter(|held| held.fits) {
        if let Some(rule) = rules.get(held.index)
            && let Some(shift) = rule.shift(held.stands, held.spot, held.units)
        {
            commands.push(shift);
            // A flush may have come first, and then this makes the key.
            commands.push(rule.expire(held.spot));
        }
    }
    commands.push(Command::new("TIME"));
    Batch::multi(commands)
}

/// Whether they were moved before the next epoch began, whose charges read this one's
/// slots, and before a log would have dropped them. `None`: nobody knows where they stand.
pub(super) fn is_shifted(rules: &[Rule<'_>], charged: &[Held], replies: &[Reply]) -> Option<bool> {
    let (time, moves) = replies.split_last()?;
    let ran_ms = time_ms(time)?;
    if moves.iter().any(Reply::is_error) {
        return None;
    }
    let is_in_time = |held: &Held| {
        let rule = rules.get(held.index)?;
        let is_counted = held.stands.at_ms + rule.window.length_ms() > ran_ms;
        Some(rule.window.is_same_epoch(held.spot, ran_ms) && is_counted)
    };
    Some(charged.iter().all(|held| is_in_time(held) == Some(true)))
}

/// Gives charges back, each with its expiry: after a flush a refund makes the key.
pub(super) fn refunds(rules: &[Rule<'_>], held: &[Held]) -> Vec<Command> {
    let mut commands = Vec::with_capacity(2 * held.len());
    for held in held {
        if let Some(rule) = rules.get(held.index)
            && let Some(refund) = rule.refund(held.stands, held.added, 0..held.units)
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

/// The slots of an epoch's key.
pub(super) fn slots(rule: &Rule<'_>, reply: &Reply) -> Option<Sums> {
    match rule.parse(reply)?.rest? {
        Rest::Slots(slots) => Some(slots),
        Rest::Oldest(_) => None,
    }
}

/// `TIME`: seconds and microseconds, as strings or numbers.
pub fn time_ms(reply: &Reply) -> Option<u64> {
    let [seconds, micros] = reply.as_list()? else {
        return None;
    };
    number(seconds)?
        .checked_mul(1000)?
        .checked_add(number(micros)? / 1000)
        .filter(|time_ms| *time_ms <= MAX_TIME_MS)
}
