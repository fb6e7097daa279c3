//! The flow of one check: charge, judge, and settle what was refused.
//!
//! Limits whose counts are in different databases are charged side by side; one that
//! does not answer leaves only its own limits to the local mode. At most `MISPLACED` + 1
//! charging trips a group and `AGAIN` + 1 rounds, so the number of trips is bounded; in
//! the steady state it is one. No borrow of the memory lives across an await.

use std::cell::RefCell;

use super::charging::{self, Held, Judged, refunds};
use super::fallback;
use super::memory::Memory;
use super::rule::Rule;
use super::settling::{self, Standing, fits_now, memorable};
use super::window::{Known, Spot};
use super::{Checked, Quota, Receipt, Verdict};
use crate::policy::RedisDown;
use crate::ports::{Clock, Redis, Store};
use crate::redis::deadline::is_over;
use crate::redis::{Batch, Command, RedisError, RedisErrorKind, Reply};
use crate::together::all;

/// How often a charge that ran in another epoch than its own, or whose answer was
/// late, is made anew. Twice is enough for a wrong raw clock whose correction falls
/// on a boundary.
const MISPLACED: u32 = 3;

/// How often a request charges anew because others' refused charges, since given back,
/// were all that refused it.
const AGAIN: u32 = 1;

/// Where what rides along is.
const RIDERS_SHARD: usize = 0;

pub(super) struct Flow<'a, 'p, P> {
    memory: &'a RefCell<Memory>,
    ports: &'a P,
    timeout_ms: u64,
    rules: &'a [Rule<'p>],
    /// Leave with the first trip.
    riders: Vec<Command>,
    ridden: Option<Result<Vec<Reply>, RedisError>>,
    deferred: Vec<(usize, Batch)>,
    /// Databases that cannot say whether the request fits.
    down: Vec<usize>,
    up: Vec<usize>,
}

/// What came of the charges to one database.
struct Charged {
    shard: usize,
    /// `None`: it cannot say.
    held: Option<Vec<Held>>,
    ridden: Option<Result<Vec<Reply>, RedisError>>,
    /// Charges that are to be given back after the answer.
    returned: Vec<Held>,
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
            down: Vec::new(),
            up: Vec::new(),
        }
    }

    pub fn refused(self) -> Option<Checked> {
        let (verdict, quotas) = self.refuse_here(self.ports.now_ms())?;
        Some(self.checked(verdict, quotas, Vec::new()))
    }

    pub async fn run(mut self, redis_down: RedisDown) -> Checked {
        if let Some((verdict, quotas)) = self.refuse_here(self.ports.now_ms()) {
            return self.checked(verdict, quotas, Vec::new());
        }
        let mut rounds = 0;
        loop {
            let held = self.charge().await;
            let alone = self.judge_alone(redis_down);
            if alone.is_none() && !held.iter().any(|held| self.refuses(held)) {
                return self.admit(held, redis_down).await;
            }
            let standings = self.settle(held).await;
            if rounds == AGAIN || alone.is_some() || !self.fits_now(&standings) {
                return self.refuse(&standings, alone);
            }
            rounds += 1;
        }
    }

    fn checked(self, verdict: Verdict, quotas: Vec<Quota>, shadowed: Vec<String>) -> Checked {
        Checked {
            verdict,
            quotas,
            shadowed,
            degraded: !self.down.is_empty(),
            riders: self.ridden,
            deferred: self.deferred,
            merges: self.up,
            receipts: Vec::new(),
        }
    }

    fn rule(&self, held: &Held) -> Option<&'a Rule<'p>> {
        self.rules.get(held.index)
    }

    fn refuses(&self, held: &Held) -> bool {
        !held.fits && self.rule(held).is_some_and(|rule| !rule.limit.shadow)
    }

    fn fits_now(&self, standings: &[Standing]) -> bool {
        fits_now(self.rules, standings)
    }

    fn is_down(&self, rule: &Rule<'_>) -> bool {
        self.down.contains(&rule.shard)
    }

    fn rules_alone(&self) -> Vec<&'a Rule<'p>> {
        (self.rules.iter())
            .filter(|rule| self.is_down(rule))
            .collect()
    }

    /// What refuses in place of the databases that do not answer, if anything does.
    fn judge_alone(&self, redis_down: RedisDown) -> Option<Verdict> {
        let rules = self.rules_alone();
        match redis_down {
            _ if rules.is_empty() => None,
            RedisDown::Open => None,
            RedisDown::Closed => Some(Verdict::Unavailable),
            RedisDown::Local => {
                let memory = &mut self.memory.borrow_mut();
                let refusals = fallback::refusals(memory, &rules, self.ports.now_ms());
                (!refusals.is_empty()).then(|| fallback::verdict(refusals))
            }
        }
    }

    /// Charges every rule, or stops at the first group that does not fit. One group is
    /// the rule; when a narrow limit will probably refuse, it is asked alone first, so
    /// that a flood does not fill the wider ones with charges on their way back.
    async fn charge(&mut self) -> Vec<Held> {
        let mut held = self.spend();
        for group in self.groups(&held) {
            let mut riders = std::mem::take(&mut self.riders);
            let mut shards = self.by_shard(&group);
            if !riders.is_empty() && !shards.iter().any(|(shard, _)| *shard == RIDERS_SHARD) {
                shards.push((RIDERS_SHARD, Vec::new()));
            }
            let this = &*self;
            let charges = shards.into_iter().map(|(shard, group)| {
                let riders = match shard {
                    RIDERS_SHARD => std::mem::take(&mut riders),
                    _ => Vec::new(),
                };
                this.charge_shard(shard, group, riders)
            });
            for charged in all(charges).await {
                self.take(charged, &mut held);
            }
            if held.iter().any(|held| self.refuses(held)) {
                break;
            }
        }
        held
    }

    fn take(&mut self, charged: Charged, held: &mut Vec<Held>) {
        let shard = charged.shard;
        self.ridden = self.ridden.take().or(charged.ridden);
        self.give_back_later(&charged.returned);
        match charged.held {
            Some(charged) => {
                held.extend(charged);
                if self.memory.borrow().local.has_unmerged() {
                    self.up.push(shard);
                }
            }
            None if self.rules.iter().any(|rule| rule.shard == shard) => {
                // Nothing of that database stands, so that its limits are judged alone.
                let rules = self.rules;
                let is_there =
                    |held: &Held| rules.get(held.index).map(|rule| rule.shard) == Some(shard);
                let gone: Vec<Held> = held.extract_if(.., |held| is_there(held)).collect();
                self.give_back_later(&gone);
                self.down.push(shard);
            }
            None => {}
        }
    }

    /// Permits that this isolate holds.
    fn spend(&self) -> Vec<Held> {
        let memory = &mut self.memory.borrow_mut();
        let now_ms = self.ports.now_ms();
        (self.rules.iter().enumerate())
            .filter(|(_, rule)| rule.limit.lease && !self.is_down(rule))
            .filter_map(|(index, rule)| {
                let spot = memory.spend(rule, now_ms)?;
                Some(Held {
                    fits: true,
                    is_spent: true,
                    ..Held::uncharged(index, spot, memory.known(rule, spot))
                })
            })
            .collect()
    }

    /// What has to be charged, in the order in which it is.
    fn groups(&self, spent: &[Held]) -> Vec<Vec<usize>> {
        let memory = self.memory.borrow();
        let now_ms = self.ports.now_ms();
        let rules = || {
            (self.rules.iter().enumerate()).filter(|(index, rule)| {
                !self.is_down(rule) && spent.iter().all(|held| held.index != *index)
            })
        };
        let first = rules()
            .filter(|(_, rule)| memory.is_doubtful(rule, memory.spot(rule, now_ms)))
            .map(|(_, rule)| rule.rank)
            .min()
            .unwrap_or(u8::MAX);
        let (narrow, wide): (Vec<_>, Vec<_>) = rules().partition(|(_, rule)| rule.rank <= first);
        let indices = |group: Vec<(usize, _)>| group.into_iter().map(|(index, _)| index).collect();
        let mut groups: Vec<Vec<usize>> = vec![indices(narrow), indices(wide)];
        groups.retain(|group| !group.is_empty());
        if groups.is_empty() && !self.riders.is_empty() {
            groups.push(Vec::new());
        }
        groups
    }

    fn by_shard(&self, group: &[usize]) -> Vec<(usize, Vec<usize>)> {
        let mut shards: Vec<(usize, Vec<usize>)> = Vec::new();
        for (index, rule) in charging::picked(self.rules, group) {
            match shards.iter_mut().find(|(shard, _)| *shard == rule.shard) {
                Some((_, group)) => group.push(index),
                None => shards.push((rule.shard, vec![index])),
            }
        }
        shards
    }

    async fn charge_shard(
        &self,
        shard: usize,
        group: Vec<usize>,
        mut riders: Vec<Command>,
    ) -> Charged {
        let mut charged = Charged {
            shard,
            held: None,
            ridden: None,
            returned: Vec::new(),
        };
        let begun_ms = self.ports.now_ms();
        let wants_time = {
            let memory = self.memory.borrow();
            charging::picked(self.rules, &group)
                .any(|(_, rule)| memory.wants_time_first(rule, begun_ms))
        };
        if wants_time {
            let batch = charging::ask_time(std::mem::take(&mut riders));
            let has_riders = batch.commands.len() > 1;
            let mut answer = self.trip(shard, &batch).await;
            let is_known = answer.as_mut().is_ok_and(|replies| {
                let times = (begun_ms, self.ports.now_ms());
                charging::learn_time(&mut self.memory.borrow_mut(), shard, times, replies)
            });
            if has_riders {
                charged.ridden = Some(answer);
            }
            if !is_known {
                return charged;
            }
        }
        let mut returned = Vec::new();
        for _ in 0..=MISPLACED {
            let riders = std::mem::take(&mut riders);
            let sent_ms = self.ports.now_ms();
            let asked = {
                let memory = &mut self.memory.borrow_mut();
                charging::plan(
                    memory,
                    self.rules,
                    (shard, &group),
                    &returned,
                    riders,
                    sent_ms,
                )
            };
            let answer = self.trip(shard, &asked.batch).await;
            let received_ms = self.ports.now_ms();
            let replies = match answer {
                Ok(mut replies) => {
                    let ridden = asked.split_riders(&mut replies);
                    if asked.has_riders() {
                        charged.ridden = Some(Ok(ridden));
                    }
                    replies
                }
                Err(error) => {
                    asked.forget(&mut self.memory.borrow_mut(), self.rules);
                    if asked.has_riders() {
                        charged.ridden = Some(Err(error.clone()));
                        // What rode along was too large: Redis is well, and the charge is
                        // made anew by itself. The first one counts too much, which is safe.
                        if error.kind == RedisErrorKind::TooLarge {
                            returned = Vec::new();
                            continue;
                        }
                    }
                    if did_not_run(&error) {
                        charged.returned = returned;
                    }
                    return charged;
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
                Judged::Valid(held) => {
                    charged.held = Some(held);
                    return charged;
                }
                Judged::Astray(mut held) => {
                    let batch = charging::shift(self.rules, &held);
                    let replies = self.trip(shard, &batch).await.unwrap_or_default();
                    let shifted = charging::is_shifted(self.rules, &held, &replies);
                    held.iter_mut().for_each(|held| held.stands = held.spot);
                    match shifted {
                        Some(true) => {
                            charged.held = Some(held);
                            return charged;
                        }
                        Some(false) => returned = held,
                        // They stay where they are, and count too much.
                        None => return charged,
                    }
                }
                Judged::Misplaced(held) => returned = held,
                Judged::Broken(held) => {
                    charged.returned = held;
                    return charged;
                }
            }
            if is_over(begun_ms, self.ports.now_ms(), self.timeout_ms) {
                break;
            }
        }
        charged.returned = returned;
        charged
    }

    /// Everything fits. When something is used up now, its return is read if unknown.
    async fn admit(mut self, mut held: Vec<Held>, redis_down: RedisDown) -> Checked {
        self.read_returns(&mut held).await;
        let mut shadowed = Vec::new();
        for held in &held {
            let Some(rule) = self.rule(held) else {
                continue;
            };
            if !held.fits {
                shadowed.push(rule.limit.name.clone());
                self.give_back_later(std::slice::from_ref(held));
            }
            let first = held.units - held.excess;
            let excess = rule.refund(held.stands, held.added, first..held.units);
            let expiry = held.lacks_expiry.then(|| rule.expire(held.spot));
            let commands: Vec<Command> = excess.into_iter().chain(expiry).collect();
            if !commands.is_empty() {
                self.deferred.push((rule.shard, Batch::pipeline(commands)));
            }
        }
        let now_ms = self.ports.now_ms();
        let shared = self.memory;
        let memory = &mut shared.borrow_mut();
        for held in held.iter().filter(|held| held.fits && !held.is_spent) {
            if let Some(rule) = self.rule(held) {
                memory.keep_lease(rule, held);
            }
        }
        let alone = self.rules_alone();
        if redis_down == RedisDown::Local {
            fallback::admit(memory, &alone, now_ms);
        }
        let quotas = self.quotas(memory, now_ms, redis_down, |index, rule, label_ms| {
            let held = held.iter().find(|held| held.index == index)?;
            let mut known = held.known.clone();
            // What is charged ahead is not used yet.
            let ahead = u64::from(held.units.max(rule.cost) - rule.cost);
            if !held.is_spent {
                known.total = known.total.saturating_sub(ahead);
            }
            let count = rule.window.count(held.spot, &known);
            let remaining = rule.capacity().saturating_sub(count);
            let reset_at_ms = match remaining {
                0 => fits_at(rule, held.spot, &known).0,
                _ => rule.window.next_release(held.spot, &known),
            };
            Some(quota(rule, remaining, reset_at_ms, label_ms))
        });
        let receipt = |held: &Held| Receipt::new(self.rule(held)?, held);
        let receipts = held.iter().filter_map(receipt).collect();
        Checked {
            receipts,
            ..self.checked(Verdict::Admitted, quotas, shadowed)
        }
    }

    async fn read_returns(&self, held: &mut [Held]) {
        let unread = |held: &Held| {
            self.rule(held).filter(|rule| {
                held.known.rest.is_none()
                    && rule.window.count(held.spot, &held.known) >= rule.capacity()
                    && !fits_at(rule, held.spot, &held.known).1
            })
        };
        let wanted = held.iter_mut().filter_map(|held| {
            let rule = unread(held)?;
            Some(async move {
                let batch = Batch::pipeline(vec![rule.look(held.spot)]);
                let replies = self.trip(rule.shard, &batch).await.unwrap_or_default();
                let read = replies.first().and_then(|reply| rule.parse(reply));
                if let Some(read) = read {
                    if !rule.window.is_log() {
                        held.known.total = held.known.total.max(read.total);
                    }
                    held.known.rest = read.rest;
                }
            })
        });
        all(wanted).await;
    }

    /// Gives everything back and reads what then counts, in one atomic trip to each
    /// database.
    async fn settle(&mut self, held: Vec<Held>) -> Vec<Standing> {
        {
            let memory = &mut self.memory.borrow_mut();
            for held in held.iter().filter(|held| held.is_spent) {
                if let Some(rule) = self.rule(held) {
                    memory.unspend(rule);
                }
            }
        }
        let every: Vec<usize> = (self.rules.iter().enumerate())
            .filter(|(_, rule)| !self.is_down(rule))
            .map(|(index, _)| index)
            .collect();
        let this = &*self;
        let settled = self.by_shard(&every).into_iter().map(|(shard, group)| {
            let held: Vec<Held> = (held.iter())
                .filter(|held| group.contains(&held.index))
                .cloned()
                .collect();
            async move { this.settle_shard(shard, &group, held).await }
        });
        let mut standings = Vec::new();
        for (settled, unreturned) in all(settled).await {
            standings.extend(settled);
            self.give_back_later(&unreturned);
        }
        standings
    }

    async fn settle_shard(
        &self,
        shard: usize,
        group: &[usize],
        held: Vec<Held>,
    ) -> (Vec<Standing>, Vec<Held>) {
        let charged = held.clone();
        let asked = settling::plan(
            &mut self.memory.borrow_mut(),
            self.rules,
            group,
            held,
            self.ports.now_ms(),
        );
        let answer = match asked.batch.is_empty() {
            true => Ok(Vec::new()),
            false => self.trip(shard, &asked.batch).await,
        };
        let unreturned = match &answer {
            Err(error) if did_not_run(error) => charged,
            _ => Vec::new(),
        };
        let replies = answer.ok();
        let memory = &mut self.memory.borrow_mut();
        (
            asked.judge(memory, self.rules, replies.as_deref()),
            unreturned,
        )
    }

    fn refuse(self, standings: &[Standing], alone: Option<Verdict>) -> Checked {
        let now_ms = self.ports.now_ms();
        let memory = &mut self.memory.borrow_mut();
        for standing in memorable(self.rules, standings) {
            if let Some(rule) = self.rule(&standing.held) {
                let remaining = room(rule, standing);
                memory.remember(rule, standing.fits_at_ms, remaining, now_ms);
            }
        }
        let find = |index| {
            standings
                .iter()
                .find(|standing| standing.held.index == index)
        };
        let redis_down = match alone {
            Some(Verdict::Unavailable) => RedisDown::Closed,
            _ => RedisDown::Local,
        };
        let quotas = self.quotas(memory, now_ms, redis_down, |index, rule, label_ms| {
            let standing = find(index)?;
            let remaining = room(rule, standing);
            let reset_at_ms = match standing.held.fits && remaining > 0 {
                true => rule
                    .window
                    .next_release(standing.held.spot, &standing.known),
                false => standing.fits_at_ms,
            };
            Some(quota(rule, remaining, reset_at_ms, label_ms))
        });
        let mut verdict = alone;
        for standing in standings.iter().filter(|one| self.refuses(&one.held)) {
            if let Some(rule) = self.rule(&standing.held) {
                let label_ms = memory.label(rule.shard, now_ms);
                add_refusal(&mut verdict, rule, standing.fits_at_ms, label_ms);
            }
        }
        let verdict = verdict.unwrap_or(Verdict::Unavailable);
        self.checked(verdict, quotas, Vec::new())
    }

    /// One for each rule, in their order; `find` knows those that were asked for now.
    fn quotas(
        &self,
        memory: &mut Memory,
        now_ms: u64,
        redis_down: RedisDown,
        find: impl Fn(usize, &Rule<'_>, u64) -> Option<Quota>,
    ) -> Vec<Quota> {
        let mut quotas = Vec::with_capacity(self.rules.len());
        for (index, rule) in self.rules.iter().enumerate() {
            let label_ms = memory.label(rule.shard, now_ms);
            quotas.push(match (self.is_down(rule), redis_down) {
                (true, RedisDown::Local) => fallback::quota(memory, rule, now_ms),
                (true, _) => known_quota(memory, rule, now_ms),
                (false, _) => {
                    find(index, rule, label_ms).unwrap_or_else(|| known_quota(memory, rule, now_ms))
                }
            });
        }
        quotas
    }

    /// Repeats a refusal that still holds, without a trip.
    fn refuse_here(&self, now_ms: u64) -> Option<(Verdict, Vec<Quota>)> {
        let memory = self.memory.borrow();
        let mut verdict = None;
        let mut quotas = Vec::with_capacity(self.rules.len());
        for rule in self.rules {
            let label_ms = memory.label(rule.shard, now_ms);
            quotas.push(match memory.refusal(rule, now_ms) {
                Some(refusal) => {
                    add_refusal(&mut verdict, rule, refusal.fits_at_ms, label_ms);
                    quota(rule, refusal.remaining, refusal.fits_at_ms, label_ms)
                }
                None => known_quota(&memory, rule, now_ms),
            });
        }
        Some((verdict?, quotas))
    }

    async fn trip(&self, shard: usize, batch: &Batch) -> Result<Vec<Reply>, RedisError> {
        let answer = self
            .ports
            .pipeline(Store::Limits(shard), batch, self.timeout_ms)
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
        for (shard, _) in self.by_shard(&(0..self.rules.len()).collect::<Vec<_>>()) {
            let of_shard = |held: &&Held| self.rule(held).map(|rule| rule.shard) == Some(shard);
            let held: Vec<Held> = held.iter().filter(of_shard).cloned().collect();
            let commands = refunds(self.rules, &held);
            if !commands.is_empty() {
                self.deferred.push((shard, Batch::multi(commands)));
            }
        }
    }
}

/// Nothing of the batch has run. After any other error some of it may have: then
/// nothing is given back twice, because counting too much is safe.
pub(super) fn did_not_run(error: &RedisError) -> bool {
    use RedisErrorKind::{Open, Quota, Rejected, Unauthorized};
    matches!(error.kind, Open | Quota | Rejected | Unauthorized)
}

/// When the same request fits once more.
fn fits_at(rule: &Rule<'_>, spot: Spot, known: &Known) -> (u64, bool) {
    let cost = rule.cost().max(1);
    rule.window.fits_at(spot, rule.requests, cost, known)
}

fn room(rule: &Rule<'_>, standing: &Standing) -> u64 {
    let count = rule.window.count(standing.held.spot, &standing.known);
    rule.capacity().saturating_sub(count)
}

/// What is known of a count, as an answer says it.
pub(super) fn quota_of(rule: &Rule<'_>, spot: Spot, known: &Known, label_ms: u64) -> Quota {
    let remaining = rule
        .capacity()
        .saturating_sub(rule.window.count(spot, known));
    let reset_at_ms = match remaining < rule.cost().max(1) {
        true => fits_at(rule, spot, known).0,
        false => rule.window.next_release(spot, known),
    };
    quota(rule, remaining, reset_at_ms, label_ms)
}

/// What the last answer said, for a rule that was not charged now.
pub(super) fn known_quota(memory: &Memory, rule: &Rule<'_>, now_ms: u64) -> Quota {
    let spot = memory.spot(rule, now_ms);
    let label_ms = memory.label(rule.shard, now_ms);
    quota_of(rule, spot, &memory.known(rule, spot), label_ms)
}

fn quota(rule: &Rule<'_>, remaining: u64, reset_at_ms: u64, now_ms: u64) -> Quota {
    Quota {
        name: rule.limit.name.clone(),
        requests: rule.requests,
        window_ms: rule.limit.window_ms,
        remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        reset_ms: reset_at_ms.saturating_sub(now_ms).max(1),
        is_shadow: rule.limit.shadow,
        is_degraded: false,
    }
}

/// At least a millisecond: the time may have come while the refund was under way.
fn add_refusal(verdict: &mut Option<Verdict>, rule: &Rule<'_>, fits_at_ms: u64, now_ms: u64) {
    let after_ms = fits_at_ms.saturating_sub(now_ms).max(1);
    let refused = verdict.get_or_insert_with(|| Verdict::Refused {
        retry_after_ms: 1,
        violated: Vec::new(),
    });
    if let Verdict::Refused {
        retry_after_ms,
        violated,
    } = refused
    {
        *retry_after_ms = after_ms.max(*retry_after_ms);
        violated.push(rule.limit.name.clone());
    }
}
