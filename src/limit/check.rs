//! The flow of one check: charge, judge, and settle what was refused.
//!
//! At most `MISPLACED` + 1 charging trips a group and `AGAIN` + 1 rounds, so the number
//! of trips is bounded; in the steady state it is one. No borrow of the memory lives
//! across an await.

use std::cell::RefCell;

use super::charging::{self, Held, Judged, refunds};
use super::fallback::fallback;
use super::memory::Memory;
use super::rule::Rule;
use super::settling::{self, Standing, fits_now, memorable};
use super::{Checked, Quota, Verdict};
use crate::policy::RedisDown;
use crate::ports::{Clock, Redis, Store};
use crate::redis::deadline::is_over;
use crate::redis::{Batch, Command, RedisError, RedisErrorKind, Reply};

/// How often a charge that ran in another epoch than its own, or whose answer was
/// late, is made anew. Twice is enough for a wrong raw clock whose correction falls
/// on a boundary.
const MISPLACED: u32 = 3;

/// How often a request charges anew because others' refused charges, since given back,
/// were all that refused it.
const AGAIN: u32 = 1;

/// Redis cannot say whether the request fits.
struct Down;

pub(super) struct Flow<'a, 'p, P> {
    memory: &'a RefCell<Memory>,
    ports: &'a P,
    timeout_ms: u64,
    rules: &'a [Rule<'p>],
    /// Leave with the first trip.
    riders: Vec<Command>,
    ridden: Option<Result<Vec<Reply>, RedisError>>,
    deferred: Vec<Batch>,
}

impl<'a, 'p, P: Redis + Clock> Flow<'a, 'p, P> {
    pub fn new(
        memory: &'a RefCell<Memory>,
        ports: &'a P,
        timeout_ms: u64,
        rules: &'a [Rule<'p>],
        riders: Vec<Command>,
    ) -> Self {
        Self {
            memory,
            ports,
            timeout_ms,
            rules,
            riders,
            ridden: None,
            deferred: Vec::new(),
        }
    }

    pub fn refused(self) -> Option<Checked> {
        let (verdict, quotas) = self.refuse_here(self.ports.now_ms())?;
        Some(self.checked(verdict, quotas, false))
    }

    pub async fn run(mut self, redis_down: RedisDown) -> Checked {
        let now_ms = self.ports.now_ms();
        if let Some((verdict, quotas)) = self.refuse_here(now_ms) {
            return self.checked(verdict, quotas, false);
        }
        match self.decide().await {
            Ok((verdict, quotas)) => self.checked(verdict, quotas, false),
            Err(Down) => {
                let now_ms = self.ports.now_ms();
                let memory = &mut self.memory.borrow_mut();
                let (verdict, quotas) = fallback(memory, self.rules, redis_down, now_ms);
                self.checked(verdict, quotas, true)
            }
        }
    }

    fn checked(self, verdict: Verdict, quotas: Vec<Quota>, degraded: bool) -> Checked {
        Checked {
            verdict,
            quotas,
            degraded,
            riders: self.ridden,
            deferred: self.deferred,
        }
    }

    async fn decide(&mut self) -> Result<(Verdict, Vec<Quota>), Down> {
        let mut rounds = 0;
        loop {
            let held = self.charge().await?;
            if held.iter().all(|held| held.fits) {
                return Ok(self.admit(held).await);
            }
            let standings = self.settle(held).await;
            if rounds == AGAIN || !fits_now(&standings) {
                return Ok(self.refuse(&standings));
            }
            rounds += 1;
        }
    }

    /// Charges every rule, or stops at the first group that does not fit. One group is
    /// the rule; when a narrow limit will probably refuse, it is asked alone first, so
    /// that a flood does not fill the wider ones with charges on their way back.
    async fn charge(&mut self) -> Result<Vec<Held>, Down> {
        let mut held = Vec::with_capacity(self.rules.len());
        for group in self.groups() {
            self.charge_group(&group, &mut held).await?;
            if !held.iter().all(|held| held.fits) {
                break;
            }
        }
        Ok(held)
    }

    fn groups(&self) -> Vec<Vec<usize>> {
        let memory = self.memory.borrow();
        let label_ms = memory.clock.label(self.ports.now_ms());
        let first = self
            .rules
            .iter()
            .filter(|rule| memory.is_doubtful(rule, rule.window.spot(label_ms)))
            .map(|rule| rule.rank)
            .min()
            .unwrap_or(u8::MAX);
        let (narrow, wide): (Vec<usize>, Vec<usize>) = (0..self.rules.len()).partition(|index| {
            self.rules
                .get(*index)
                .is_some_and(|rule| rule.rank <= first)
        });
        [narrow, wide]
            .into_iter()
            .filter(|group| !group.is_empty())
            .collect()
    }

    async fn charge_group(&mut self, group: &[usize], held: &mut Vec<Held>) -> Result<(), Down> {
        let mut returned = Vec::new();
        let begun_ms = self.ports.now_ms();
        for _ in 0..=MISPLACED {
            let riders = std::mem::take(&mut self.riders);
            let sent_ms = self.ports.now_ms();
            let asked = {
                let memory = &mut self.memory.borrow_mut();
                charging::plan(memory, self.rules, group, &returned, riders, sent_ms)
            };
            let answer = self.trip(&asked.batch).await;
            let received_ms = self.ports.now_ms();
            let answer = answer.map(|mut replies| {
                let ridden = asked.split_riders(&mut replies);
                (replies, ridden)
            });
            let replies = match answer {
                Ok((replies, ridden)) => {
                    self.ridden.get_or_insert(Ok(ridden));
                    Ok(replies)
                }
                Err(error) => {
                    self.ridden.get_or_insert(Err(error.clone()));
                    Err(error)
                }
            };
            let replies = match replies {
                Ok(replies) => replies,
                // What rode along was too large: Redis is well, and the charge is made
                // anew by itself. The first one counts too much, which is safe.
                Err(error) if error.kind == RedisErrorKind::TooLarge && asked.has_riders() => {
                    asked.forget(&mut self.memory.borrow_mut(), self.rules);
                    returned = Vec::new();
                    continue;
                }
                Err(error) => {
                    asked.forget(&mut self.memory.borrow_mut(), self.rules);
                    if did_not_run(&error) {
                        self.give_back_later(&returned);
                    }
                    self.give_back_later(held);
                    return Err(Down);
                }
            };
            let judged = asked.judge(
                &mut self.memory.borrow_mut(),
                self.rules,
                &replies,
                received_ms,
                received_ms.saturating_sub(sent_ms) > self.timeout_ms,
            );
            match judged {
                Judged::Valid(charged) => {
                    held.extend(charged);
                    return Ok(());
                }
                Judged::Astray(mut charged) => {
                    let batch = charging::shift(self.rules, &charged);
                    let replies = self.trip(&batch).await.unwrap_or_default();
                    let shifted = charging::is_shifted(self.rules, &charged, &replies);
                    charged.iter_mut().for_each(|held| held.stands = held.spot);
                    match shifted {
                        Some(true) => {
                            held.extend(charged);
                            return Ok(());
                        }
                        Some(false) => returned = charged,
                        // They stay where they are, and count too much.
                        None => {
                            self.give_back_later(held);
                            return Err(Down);
                        }
                    }
                }
                Judged::Misplaced(charged) => returned = charged,
                Judged::Broken(charged) => {
                    self.give_back_later(&charged);
                    self.give_back_later(held);
                    return Err(Down);
                }
            }
            if is_over(begun_ms, self.ports.now_ms(), self.timeout_ms) {
                break;
            }
        }
        self.give_back_later(&returned);
        self.give_back_later(held);
        Err(Down)
    }

    /// Everything fits. When something is used up now, its return is read if unknown.
    async fn admit(&mut self, mut held: Vec<Held>) -> (Verdict, Vec<Quota>) {
        let unread = |held: &Held| {
            self.rules.get(held.index).is_some_and(|rule| {
                held.current.is_none()
                    && count(rule, held) >= u64::from(rule.requests)
                    && !fits_at(rule, held).1
            })
        };
        let wanted: Vec<usize> = (0..held.len())
            .filter(|at| held.get(*at).is_some_and(unread))
            .collect();
        let reads: Vec<Command> = wanted
            .iter()
            .filter_map(|at| held.get(*at))
            .filter_map(|held| Some(self.rules.get(held.index)?.read(held.spot.epoch)))
            .collect();
        if !reads.is_empty() {
            let replies = self.trip(&Batch::pipeline(reads)).await.unwrap_or_default();
            for (at, reply) in wanted.iter().zip(&replies) {
                if let Some(held) = held.get_mut(*at)
                    && let Some(rule) = self.rules.get(held.index)
                {
                    held.current = charging::counted(rule, reply);
                }
            }
        }
        let expiries: Vec<Command> = held
            .iter()
            .filter(|held| held.lacks_expiry)
            .filter_map(|held| Some(self.rules.get(held.index)?.expire(held.spot)))
            .collect();
        if !expiries.is_empty() {
            self.deferred.push(Batch::pipeline(expiries));
        }
        let now_ms = self.redis_now_ms();
        let quotas = in_order(self.rules, |(index, rule)| {
            let held = held.iter().find(|held| held.index == index)?;
            let remaining = u64::from(rule.requests).saturating_sub(count(rule, held));
            let reset_at_ms = match remaining {
                0 => fits_at(rule, held).0,
                _ => rule.window.next_release(held.spot, &held.previous),
            };
            Some(quota(rule, remaining, reset_at_ms, now_ms))
        });
        (Verdict::Admitted, quotas)
    }

    /// Gives everything back and reads what then counts, in one atomic trip.
    async fn settle(&mut self, held: Vec<Held>) -> Vec<Standing> {
        let charged = held.clone();
        let asked = settling::plan(
            &mut self.memory.borrow_mut(),
            self.rules,
            held,
            self.ports.now_ms(),
        );
        let answer = self.trip(&asked.batch).await;
        if let Err(error) = &answer
            && did_not_run(error)
        {
            self.give_back_later(&charged);
        }
        let replies = answer.ok();
        let memory = &mut self.memory.borrow_mut();
        asked.judge(memory, self.rules, replies.as_deref())
    }

    fn refuse(&mut self, standings: &[Standing]) -> (Verdict, Vec<Quota>) {
        let now_ms = self.ports.now_ms();
        let memory = &mut self.memory.borrow_mut();
        for standing in memorable(self.rules, standings) {
            if let Some(rule) = self.rules.get(standing.held.index) {
                let remaining = room(rule, standing);
                memory.remember(rule, standing.fits_at_ms, remaining, now_ms);
            }
        }
        let label_ms = memory.clock.label(now_ms);
        let find = |index| {
            standings
                .iter()
                .find(|standing| standing.held.index == index)
        };
        let quotas = in_order(self.rules, |(index, rule)| match find(index) {
            Some(standing) => {
                let remaining = room(rule, standing);
                let reset_at_ms = match standing.held.fits && remaining > 0 {
                    true => rule
                        .window
                        .next_release(standing.held.spot, &standing.previous),
                    false => standing.fits_at_ms,
                };
                Some(quota(rule, remaining, reset_at_ms, label_ms))
            }
            None => Some(known_quota(memory, rule, label_ms)),
        });
        let refused = standings.iter().filter(|standing| !standing.held.fits);
        let fits_at_ms = refused.clone().map(|standing| standing.fits_at_ms).max();
        let violated = refused
            .filter_map(|standing| Some(self.rules.get(standing.held.index)?.limit.name.clone()))
            .collect();
        (refusal(fits_at_ms, label_ms, violated), quotas)
    }

    /// Repeats a refusal that still holds, without a trip.
    fn refuse_here(&self, now_ms: u64) -> Option<(Verdict, Vec<Quota>)> {
        let memory = self.memory.borrow();
        let label_ms = memory.clock.label(now_ms);
        let mut violated = Vec::new();
        let mut fits_at_ms = None;
        let quotas = in_order(self.rules, |(_, rule)| match memory.refusal(rule, now_ms) {
            Some(refusal) => {
                violated.push(rule.limit.name.clone());
                fits_at_ms = fits_at_ms.max(Some(refusal.fits_at_ms));
                Some(quota(rule, refusal.remaining, refusal.fits_at_ms, label_ms))
            }
            None => Some(known_quota(&memory, rule, label_ms)),
        });
        fits_at_ms?;
        Some((refusal(fits_at_ms, label_ms, violated), quotas))
    }

    async fn trip(&self, batch: &Batch) -> Result<Vec<Reply>, RedisError> {
        let answer = self
            .ports
            .pipeline(Store::Limits, batch, self.timeout_ms)
            .await;
        answer.and_then(|replies| match replies.len() == batch.commands.len() {
            true => Ok(replies),
            false => Err(RedisError::new(
                RedisErrorKind::Malformed,
                "not one reply per command",
            )),
        })
    }

    fn give_back_later(&mut self, held: &[Held]) {
        let commands = refunds(self.rules, held);
        if !commands.is_empty() {
            self.deferred.push(Batch::multi(commands));
        }
    }

    fn redis_now_ms(&self) -> u64 {
        self.memory.borrow().clock.label(self.ports.now_ms())
    }
}

/// Nothing of the batch has run. After any other error some of it may have: then
/// nothing is given back twice, because counting too much is safe.
fn did_not_run(error: &RedisError) -> bool {
    use RedisErrorKind::{Open, Quota, Rejected, Unauthorized};
    matches!(error.kind, Open | Quota | Rejected | Unauthorized)
}

fn count(rule: &Rule<'_>, held: &Held) -> u64 {
    rule.window.count(held.spot, held.total, &held.previous)
}

/// When the same request fits once more.
fn fits_at(rule: &Rule<'_>, held: &Held) -> (u64, bool) {
    let current = held.current.as_ref();
    rule.window.fits_at(
        held.spot,
        rule.requests,
        rule.cost.max(1),
        current.map_or(held.total, |current| current.total.max(held.total)),
        &held.previous,
        current.map(|current| &current.slots),
    )
}

fn room(rule: &Rule<'_>, standing: &Standing) -> u64 {
    let spot = standing.held.spot;
    let count = rule.window.count(spot, standing.total, &standing.previous);
    u64::from(rule.requests).saturating_sub(count)
}

fn in_order(
    rules: &[Rule<'_>],
    quota: impl FnMut((usize, &Rule<'_>)) -> Option<Quota>,
) -> Vec<Quota> {
    rules.iter().enumerate().filter_map(quota).collect()
}

/// What the last answer said, for a rule that was not charged now.
pub(super) fn known_quota(memory: &Memory, rule: &Rule<'_>, label_ms: u64) -> Quota {
    let spot = rule.window.spot(label_ms);
    let (total, previous) = memory.known_count(rule, spot);
    let count = rule.window.count(spot, total, &previous);
    let remaining = u64::from(rule.requests).saturating_sub(count);
    let (requests, cost) = (rule.requests, rule.cost.max(1));
    let reset_at_ms = match remaining < u64::from(cost) {
        true => {
            (rule.window)
                .fits_at(spot, requests, cost, total, &previous, None)
                .0
        }
        false => rule.window.next_release(spot, &previous),
    };
    quota(rule, remaining, reset_at_ms, label_ms)
}

fn quota(rule: &Rule<'_>, remaining: u64, reset_at_ms: u64, now_ms: u64) -> Quota {
    Quota {
        name: rule.limit.name.clone(),
        requests: rule.requests,
        window_ms: rule.limit.window_ms,
        remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        reset_ms: reset_at_ms.saturating_sub(now_ms).max(1),
    }
}

/// At least a millisecond: the time may have come while the refund was under way.
fn refusal(fits_at_ms: Option<u64>, now_ms: u64, violated: Vec<String>) -> Verdict {
    Verdict::Refused {
        retry_after_ms: fits_at_ms.unwrap_or(0).saturating_sub(now_ms).max(1),
        violated,
    }
}
