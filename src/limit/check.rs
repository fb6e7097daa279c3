//! The flow of one check: charge, judge, and settle what was refused.
//!
//! Limits whose counts are in different databases are charged side by side; one that
//! does not answer leaves only its own limits to the local mode. The trips to charge a
//! group and the rounds of groups are bounded (`trips::MISPLACED`, `AGAIN`); in the steady
//! state it is one trip. No borrow of the memory lives across an await.

use super::charging::{self, Held, refunds};
use super::fallback;
use super::memory::Memory;
use super::quota::{add_refusal, fits_at, known_quota, quota, room};
use super::rule::Rule;
use super::settling::{Standing, fits_now, memorable};
use super::trips::{Charged, Trips};
use super::{Checked, Quota, Receipt, Verdict};
use crate::policy::RedisDown;
use crate::ports::{Clock, Redis};
use crate::redis::{Batch, Command, RedisError, Reply};
use crate::together::{all, boxed};

/// How often a request charges anew because others' refused charges, since given back,
/// were all that refused it.
const AGAIN: u32 = 1;

/// The part of the timeout for which a request waits for another's grant.
const GRANT_SHARE: u64 = 4;
/// How often it looks.
const GRANT_LOOK_MS: u64 = 2;

/// Where what rides along is.
const RIDERS_SHARD: usize = 0;

pub(super) struct Flow<'a, 'p, P> {
    trips: Trips<'a, 'p, P>,
    /// Leave with the first trip.
    riders: Vec<Command>,
    ridden: Option<Result<Vec<Reply>, RedisError>>,
    deferred: Vec<(usize, Batch)>,
    /// Databases that cannot say whether the request fits.
    down: Vec<usize>,
    up: Vec<usize>,
}

impl<'a, 'p, P: Redis + Clock> Flow<'a, 'p, P> {
    pub fn new(trips: Trips<'a, 'p, P>, riders: Vec<Command>) -> Self {
        Self {
            trips,
            riders,
            ridden: None,
            deferred: Vec::new(),
            down: Vec::new(),
            up: Vec::new(),
        }
    }

    pub fn refused(self) -> Option<Checked> {
        let (verdict, quotas) = self.refuse_here(self.trips.ports.now_ms())?;
        Some(self.checked(verdict, quotas, Vec::new()))
    }

    pub async fn run(mut self, redis_down: RedisDown) -> Checked {
        if let Some((verdict, quotas)) = self.refuse_here(self.trips.ports.now_ms()) {
            return self.checked(verdict, quotas, Vec::new());
        }
        if self.riders.is_empty() {
            self.await_grants().await;
        }
        let mut rounds = 0;
        loop {
            let held = self.charge().await;
            let alone = self.judge_alone(redis_down);
            if alone.is_none() && !held.iter().any(|held| self.refuses(held)) {
                return self.admit(held, redis_down).await;
            }
            let standings = boxed(self.settle(held)).await;
            if rounds == AGAIN || alone.is_some() || !self.fits_now(&standings) {
                return self.refuse(&standings, alone);
            }
            rounds += 1;
        }
    }

    /// Where a grant is under way, a moment is cheaper than a charge of one's own. It is
    /// taken from the time that Redis has.
    async fn await_grants(&mut self) {
        let begun_ms = self.trips.ports.now_ms();
        let most_ms = self.trips.timeout_ms / GRANT_SHARE;
        let mut waited_ms = 0;
        while waited_ms < most_ms {
            let rules = self.trips.rules;
            let now_ms = self.trips.ports.now_ms();
            let awaits = {
                let memory = &mut self.trips.memory.borrow_mut();
                memory.awaits(rules, now_ms, waited_ms == 0)
            };
            if !awaits {
                break;
            }
            self.trips.ports.sleep(GRANT_LOOK_MS).await;
            waited_ms = self.trips.ports.now_ms().saturating_sub(begun_ms).max(1);
        }
        self.trips.timeout_ms -= waited_ms.min(most_ms);
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

    fn refuses(&self, held: &Held) -> bool {
        !held.fits && self.trips.rule(held).is_some_and(|rule| !rule.limit.shadow)
    }

    fn fits_now(&self, standings: &[Standing]) -> bool {
        fits_now(self.trips.rules, standings)
    }

    fn is_down(&self, rule: &Rule<'_>) -> bool {
        self.down.contains(&rule.shard)
    }

    fn rules_alone(&self) -> Vec<&'a Rule<'p>> {
        (self.trips.rules.iter())
            .filter(|rule| self.is_down(rule))
            .collect()
    }

    /// What refuses in place of the databases that do not answer, if anything does.
    fn judge_alone(&self, redis_down: RedisDown) -> Option<Verdict> {
        let rules = self.rules_alone();
        match redis_down {
            _ if rules.is_empty() => None,
            RedisDown::Open => None,
            RedisDown::Closed => {
                (rules.iter().any(|rule| !rule.limit.shadow)).then_some(Verdict::Unavailable)
            }
            RedisDown::Local => {
                let memory = &self.trips.memory.borrow();
                let refusals = fallback::refusals(memory, &rules, self.trips.ports.now_ms());
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
            let mut shards = self.by_shard(group);
            if !riders.is_empty() && !shards.iter().any(|(shard, _)| *shard == RIDERS_SHARD) {
                shards.push((RIDERS_SHARD, Vec::new()));
            }
            let trips = &self.trips;
            // Mostly there is one database, and then they ride on that trip.
            if shards.len() == 1
                && let Some((shard, group)) = shards.pop()
            {
                let charged = trips.charge(shard, group, riders).await;
                self.take(charged, &mut held);
            } else {
                let charges = shards.into_iter().map(|(shard, group)| {
                    let riders = match shard {
                        RIDERS_SHARD => std::mem::take(&mut riders),
                        _ => Vec::new(),
                    };
                    trips.charge(shard, group, riders)
                });
                for charged in boxed(all(charges)).await {
                    self.take(charged, &mut held);
                }
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
                if self.trips.memory.borrow().local.has_unmerged() {
                    self.up.push(shard);
                }
            }
            None if self.trips.rules.iter().any(|rule| rule.shard == shard) => {
                // Nothing of that database stands, so that its limits are judged alone.
                let rules = self.trips.rules;
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
        let memory = &mut self.trips.memory.borrow_mut();
        let now_ms = self.trips.ports.now_ms();
        (self.trips.rules.iter().enumerate())
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
        let memory = self.trips.memory.borrow();
        let now_ms = self.trips.ports.now_ms();
        let rules = || {
            (self.trips.rules.iter().enumerate()).filter(|(index, rule)| {
                !self.is_down(rule) && spent.iter().all(|held| held.index != *index)
            })
        };
        let first = rules()
            .filter(|(_, rule)| memory.is_doubtful(rule, memory.spot(rule, now_ms)))
            .map(|(_, rule)| rule.rank)
            .min()
            .unwrap_or(u8::MAX);
        let (mut narrow, mut wide) = (Vec::new(), Vec::new());
        for (index, rule) in rules() {
            let group = if rule.rank <= first {
                &mut narrow
            } else {
                &mut wide
            };
            group.push(index);
        }
        if narrow.is_empty() && wide.is_empty() && !self.riders.is_empty() {
            return vec![Vec::new()];
        }
        let groups = [narrow, wide].into_iter();
        groups.filter(|group| !group.is_empty()).collect()
    }

    fn by_shard(&self, group: Vec<usize>) -> Vec<(usize, Vec<usize>)> {
        let mut shards: Vec<(usize, Vec<usize>)> = Vec::new();
        let place = |(_, rule): (usize, &Rule<'_>)| rule.shard;
        let first =
            (charging::picked(self.trips.rules, &group).map(place).next()).filter(|first| {
                let mut places = charging::picked(self.trips.rules, &group).map(place);
                places.all(|shard| shard == *first)
            });
        if let Some(only) = first {
            return vec![(only, group)];
        }
        for (index, rule) in charging::picked(self.trips.rules, &group) {
            match shards.iter_mut().find(|(shard, _)| *shard == rule.shard) {
                Some((_, group)) => group.push(index),
                None => shards.push((rule.shard, vec![index])),
            }
        }
        shards
    }

    /// Everything fits. When something is used up now, its return is read if unknown.
    async fn admit(mut self, mut held: Vec<Held>, redis_down: RedisDown) -> Checked {
        if self.trips.has_unread(&held) {
            boxed(self.trips.read_returns(&mut held)).await;
        }
        let mut shadowed = Vec::new();
        for held in &held {
            let Some(rule) = self.trips.rule(held) else {
                continue;
            };
            if !held.fits {
                shadowed.push(rule.limit.name.clone());
                self.give_back_later(std::slice::from_ref(held));
            }
            let first = held.units - held.excess;
            let excess = rule.refund(held.stands, held.added, first..held.units);
            let expiry = held.lacks_expiry.then(|| rule.expire(held.spot));
            let expiry = expiry.map(|expiry| Batch::pipeline(vec![expiry]).insisting());
            // A key that was deleted meanwhile is made by it.
            let excess =
                excess.map(|excess| Batch::pipeline(vec![excess, rule.expire(held.stands)]));
            for batch in excess.into_iter().chain(expiry) {
                self.deferred.push((rule.shard, batch));
            }
        }
        let now_ms = self.trips.ports.now_ms();
        let shared = self.trips.memory;
        let memory = &mut shared.borrow_mut();
        for held in held.iter().filter(|held| held.fits && !held.is_spent) {
            if let Some(rule) = self.trips.rule(held) {
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
        // Where all costs are one whatever happens, nothing ever goes back.
        let has_outcomes = (self.trips.rules.iter()).any(|rule| !rule.limit.cost.is_flat());
        let receipt = |held: &Held| Receipt::new(self.trips.rule(held)?, held);
        let receipts = match has_outcomes {
            true => held.iter().filter_map(receipt).collect(),
            false => Vec::new(),
        };
        Checked {
            receipts,
            ..self.checked(Verdict::Admitted, quotas, shadowed)
        }
    }

    /// Gives everything back and reads what then counts, in one atomic trip to each
    /// database.
    async fn settle(&mut self, held: Vec<Held>) -> Vec<Standing> {
        {
            let memory = &mut self.trips.memory.borrow_mut();
            for held in held.iter().filter(|held| held.is_spent) {
                if let Some(rule) = self.trips.rule(held) {
                    memory.unspend(rule, held.spot);
                }
            }
        }
        let every: Vec<usize> = (self.trips.rules.iter().enumerate())
            .filter(|(_, rule)| !self.is_down(rule))
            .map(|(index, _)| index)
            .collect();
        let trips = &self.trips;
        let settled = self.by_shard(every).into_iter().map(|(shard, group)| {
            let held: Vec<Held> = (held.iter())
                .filter(|held| group.contains(&held.index))
                .cloned()
                .collect();
            async move { trips.settle(shard, &group, held).await }
        });
        let mut standings = Vec::new();
        for (settled, unreturned) in all(settled).await {
            standings.extend(settled);
            self.give_back_later(&unreturned);
        }
        standings
    }

    fn refuse(self, standings: &[Standing], alone: Option<Verdict>) -> Checked {
        let now_ms = self.trips.ports.now_ms();
        let memory = &mut self.trips.memory.borrow_mut();
        for standing in memorable(self.trips.rules, standings) {
            if let Some(rule) = self.trips.rule(&standing.held) {
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
            if let Some(rule) = self.trips.rule(&standing.held) {
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
        let mut quotas = Vec::with_capacity(self.trips.rules.len());
        for (index, rule) in self.trips.rules.iter().enumerate() {
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
        let memory = self.trips.memory.borrow();
        let rules = self.trips.rules;
        let is_refused = |rule: &Rule<'_>| memory.refusal(rule, now_ms).is_some();
        if !rules.iter().any(is_refused) {
            return None;
        }
        let mut verdict = None;
        let mut quotas = Vec::with_capacity(rules.len());
        for rule in rules {
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

    fn give_back_later(&mut self, held: &[Held]) {
        if held.is_empty() {
            return;
        }
        for (shard, _) in self.by_shard((0..self.trips.rules.len()).collect()) {
            let of_shard =
                |held: &&Held| self.trips.rule(held).map(|rule| rule.shard) == Some(shard);
            let held: Vec<Held> = held.iter().filter(of_shard).cloned().collect();
            let commands = refunds(self.trips.rules, &held);
            if !commands.is_empty() {
                self.deferred.push((shard, Batch::multi(commands)));
            }
        }
    }
}
