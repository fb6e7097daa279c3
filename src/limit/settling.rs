//! The second trip of a refusal: everything is given back, and in the same moment what
//! then counts is read, of limits too that were not charged because a narrower one
//! refused first: the request must fit them all. No clock, no waiting.

use std::rc::Rc;

use super::charging::{Held, counted, refunds};
use super::counts::Sums;
use super::memory::Memory;
use super::rule::Rule;
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
    reads_previous: bool,
    /// Not charged: whether it refuses is known when it is read.
    is_uncharged: bool,
}

/// What counts for one rule once the request's own charge is given back.
#[derive(Debug)]
pub(super) struct Standing {
    pub held: Held,
    pub total: u64,
    pub previous: Rc<Sums>,
    /// `None`: not read.
    current: Option<Sums>,
    /// When the request fits, by Redis' clock: exact if `current` was read, else a
    /// time at which it surely does.
    pub fits_at_ms: u64,
}

pub(super) fn plan(memory: &mut Memory, rules: &[Rule<'_>], held: Vec<Held>, now_ms: u64) -> Asked {
    let label_ms = memory.clock.label(now_ms);
    let mut commands = refunds(rules, &held);
    let mut asked = Vec::with_capacity(rules.len());
    let charged = held.len();
    let uncharged: Vec<Held> = rules
        .iter()
        .enumerate()
        .filter(|(index, _)| held.iter().all(|held| held.index != *index))
        .map(|(index, rule)| {
            let spot = rule.window.spot(label_ms);
            Held {
                previous: memory.known_count(rule, spot).1,
                ..Held::uncharged(index, spot)
            }
        })
        .collect();
    for (at, held) in held.into_iter().chain(uncharged).enumerate() {
        let Some(rule) = rules.get(held.index) else {
            continue;
        };
        let is_previous_known = memory
            .entry_of(rule, held.spot.epoch)
            .is_some_and(|entry| entry.previous.is_some());
        let reads_previous = !held.fits && !is_previous_known;
        if !held.fits {
            commands.push(rule.read(held.spot.epoch));
        }
        if reads_previous {
            commands.push(rule.read(held.spot.epoch.saturating_sub(1)));
        }
        asked.push(AskedHeld {
            gives_back: held.added.total || held.added.slot,
            held,
            reads_previous,
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
                    .and_then(first_number),
                false => None,
            };
            let read = match held.fits {
                true => None,
                false => reads.next().and_then(|reply| counted(rule, reply)),
            };
            let previous = match asked.reads_previous {
                true => reads
                    .next()
                    .and_then(|reply| counted(rule, reply))
                    .map(|read| Rc::new(read.slots)),
                false => None,
            };
            let previous = previous.unwrap_or_else(|| held.previous.clone());
            let total = read.as_ref().map(|read| read.total).or(answered);
            if let Some(total) = total
                && let Some(entry) = memory.entry_of(rule, held.spot.epoch)
            {
                entry.total = total;
                entry.settled = total;
            }
            if asked.is_uncharged && read.is_none() {
                continue;
            }
            let total = total.unwrap_or(held.total);
            let current = read.map(|read| read.slots);
            let (fits_at_ms, _) = rule.window.fits_at(
                held.spot,
                rule.requests,
                rule.cost,
                total,
                &previous,
                current.as_ref(),
            );
            held.fits |= asked.is_uncharged && fits_at_ms <= held.spot.at_ms;
            standings.push(Standing {
                held,
                total,
                previous,
                current,
                fits_at_ms,
            });
        }
        standings
    }
}

/// Whether every limit that refused would take the charge where it was made: then what
/// refused it was others' refused charges, now given back.
pub(super) fn fits_now(standings: &[Standing]) -> bool {
    standings
        .iter()
        .filter(|standing| !standing.held.fits)
        .all(|standing| {
            standing.current.is_some() && standing.fits_at_ms <= standing.held.spot.at_ms
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
    };
    let narrowest = refused().map(|(_, rule)| rule.rank).min();
    refused()
        .filter(|(standing, rule)| {
            let spot = standing.held.spot;
            Some(rule.rank) == narrowest
                && standing.fits_at_ms > spot.at_ms
                && standing.current.as_ref().is_some_and(|current| {
                    let firm = rule.window.firm_count(spot, &standing.previous, current);
                    !rule.is_shared || !rule.does_fit(firm + rule.cost())
                })
        })
        .map(|(standing, _)| standing)
        .collect()
}

fn first_number(reply: &Reply) -> Option<u64> {
    let number = reply.as_list()?.first()?.as_int()?;
    u64::try_from(number).ok()
}
