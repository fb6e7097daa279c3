//! The second trip of a refusal: everything is given back, and in the same moment what
//! then counts is read, of limits too that were not charged because a narrower one
//! refused first: the request must fit them all. No clock, no waiting.

use super::charging::{Held, refunds, slots};
use super::memory::Memory;
use super::meter::number;
use super::rule::Rule;
use super::window::Known;
use crate::redis::{Batch, Reply};

/// What one settling trip asks.
#[derive(Debug)]
pub(super) struct Asked {
    pub batch: Batch,
    held: Vec<AskedHeld>,
}

#[derive(Debug)]
struct AskedHeld {
    held: Held,
    gives_back: bool,
    reads_more: bool,
    /// Not charged: whether it refuses is known when it is read.
    is_uncharged: bool,
}

/// What counts for one rule once the request's own charge is given back.
#[derive(Debug)]
pub(super) struct Standing {
    pub held: Held,
    pub known: Known,
    /// When the request fits, by Redis' clock: exact if the rest was read, else a time
    /// at which it surely does.
    pub fits_at_ms: u64,
}

/// For the rules of one database: what was charged of them, and the rest of `group`.
pub(super) fn plan(
    memory: &mut Memory,
    rules: &[Rule<'_>],
    group: &[usize],
    held: Vec<Held>,
    now_ms: u64,
) -> Asked {
    let mut commands = refunds(rules, &held);
    let mut asked = Vec::with_capacity(group.len());
    let charged = held.len();
    let uncharged: Vec<Held> = group
        .iter()
        .filter(|index| held.iter().all(|held| held.index != **index))
        .filter_map(|index| {
            let rule = rules.get(*index)?;
            let spot = memory.spot(rule, now_ms);
            Some(Held::uncharged(*index, spot, memory.known(rule, spot)))
        })
        .collect();
    for (at, held) in held.into_iter().chain(uncharged).enumerate() {
        let Some(rule) = rules.get(held.index) else {
            continue;
        };
        let is_previous_known = memory
            .entry_of(rule, held.spot.epoch)
            .is_some_and(|entry| entry.is_previous_final);
        let mut reads_more = false;
        if !held.fits {
            commands.push(rule.look(held.spot));
            if (!is_previous_known || rule.window.is_log())
                && let Some(more) = rule.read_more(held.spot)
            {
                reads_more = true;
                commands.push(more);
            }
        }
        asked.push(AskedHeld {
            gives_back: rule
                .refund(held.stands, held.added, 0..held.units)
                .is_some(),
            held,
            reads_more,
            is_uncharged: at >= charged,
        });
    }
    Asked {
        batch: Batch::multi(commands),
        held: asked,
    }
}

impl Asked {
    /// `None`: the trip failed, and each charge may still count.
    pub fn judge(
        self,
        memory: &mut Memory,
        rules: &[Rule<'_>],
        replies: Option<&[Reply]>,
    ) -> Vec<Standing> {
        let given_back = 2 * self.held.iter().filter(|asked| asked.gives_back).count();
        let (refunds, reads) = replies
            .unwrap_or_default()
            .split_at_checked(given_back)
            .unwrap_or_default();
        let mut totals = refunds.iter().step_by(2);
        let mut reads = reads.iter();
        let mut standings = Vec::with_capacity(self.held.len());
        for asked in self.held {
            let mut held = asked.held;
            let Some(rule) = rules.get(held.index) else {
                continue;
            };
            let answered = match asked.gives_back {
                true => totals
                    .next()
                    .filter(|_| held.added.total)
                    .and_then(|reply| rule.refunded(reply)),
                false => None,
            };
            let read = match held.fits {
                true => None,
                false => reads.next().and_then(|reply| rule.parse(reply)),
            };
            let more = match asked.reads_more {
                true => reads.next(),
                false => None,
            };
            let total = match (&read, rule.window.is_log()) {
                (Some(_), true) => more.and_then(number),
                (Some(read), false) => Some(read.total),
                (None, _) => answered,
            };
            let previous = match rule.window.is_sliding() {
                true => more.and_then(|reply| slots(rule, reply)).map(Into::into),
                false => None,
            };
            if let Some(total) = total
                && let Some(entry) = memory.entry_of(rule, held.spot.epoch)
            {
                entry.total = total;
                entry.settled = total;
            }
            if asked.is_uncharged && total.is_none() {
                continue;
            }
            let known = Known {
                total: total.unwrap_or(held.known.total),
                previous: previous.unwrap_or_else(|| held.known.previous.clone()),
                // A count that did not come makes the rest of a log useless.
                rest: total.and(read).and_then(|read| read.rest),
            };
            let (spot, cost) = (held.spot, rule.cost());
            let (fits_at_ms, _) = rule.window.fits_at(spot, rule.requests, cost, &known);
            held.fits |= asked.is_uncharged && (cost == 0 || fits_at_ms <= spot.at_ms);
            standings.push(Standing {
                held,
                known,
                fits_at_ms,
            });
        }
        standings
    }
}

/// Whether every limit that refused would take the charge where it was made: then what
/// refused it was others' refused charges, now given back.
pub(super) fn fits_now(rules: &[Rule<'_>], standings: &[Standing]) -> bool {
    let refuses = |standing: &&Standing| {
        let rule = rules.get(standing.held.index);
        !standing.held.fits && rule.is_some_and(|rule| !rule.limit.shadow)
    };
    standings.iter().filter(refuses).all(|standing| {
        standing.known.rest.is_some() && standing.fits_at_ms <= standing.held.spot.at_ms
    })
}

/// Which refusals this isolate may repeat on its own. Never the wider limit's when a
/// narrower one refused too, and of a limit that requests share which a narrower one
/// may refuse, only what no refund under way can take back: else one spent address
/// that floods could shut it for everybody.
pub(super) fn memorable<'s>(rules: &[Rule<'_>], standings: &'s [Standing]) -> Vec<&'s Standing> {
    let refused = || {
        standings
            .iter()
            .filter(|standing| !standing.held.fits)
            .filter_map(|standing| Some((standing, rules.get(standing.held.index)?)))
            .filter(|(_, rule)| !rule.limit.shadow)
    };
    let narrowest = refused().map(|(_, rule)| rule.rank).min();
    refused()
        .filter(|(standing, rule)| {
            let spot = standing.held.spot;
            Some(rule.rank) == narrowest
                && standing.fits_at_ms > spot.at_ms
                && standing.known.rest.is_some()
                && (!rule.is_shared
                    || !rule.does_fit(rule.window.firm_count(spot, &standing.known) + rule.cost()))
        })
        .map(|(standing, _)| standing)
        .collect()
}
