//! What operators and outages ask of counts: to look at them without charging, to reset
//! them, and to bring what was counted alone to a Redis that is back.

use std::cell::RefCell;

use super::charging::{self, ask_time};
use super::memory::Memory;
use super::meter::number;
use super::quota::quota_of;
use super::rule::Rule;
use super::trips::did_not_run;
use super::window::{Known, Rest};
use super::{Charge, Quota};
use crate::ports::{Clock, Redis, Store};
use crate::redis::{Batch, Command, RedisError, RedisErrorKind, Reply};

/// Keys in one batch: with 31 charges each it stays far below what Upstash takes.
const MERGED_AT_ONCE: usize = 100;

/// Batches after one answer; the next one goes on.
const MERGES: usize = 20;

/// The quotas as Redis has them now, in the order of the charges. Nothing is charged.
pub async fn peek<P: Redis + Clock>(
    memory: &RefCell<Memory>,
    ports: &P,
    redis_timeout_ms: u64,
    charges: &[Charge<'_>],
) -> Result<Vec<Quota>, RedisError> {
    let mut quotas = Vec::with_capacity(charges.len());
    for rule in Rule::all(charges, redis_timeout_ms, 0) {
        learn_time(memory, ports, redis_timeout_ms, rule.shard).await?;
        let spot = memory.borrow().spot(&rule, ports.now_ms());
        let reads = std::iter::once(rule.look(spot)).chain(rule.read_more(spot));
        let batch = Batch::pipeline(reads.collect());
        let replies = ports.pipeline(Store::Limits(rule.shard), &batch, redis_timeout_ms);
        let known = known(&rule, &replies.await?).ok_or_else(|| {
            RedisError::new(
                RedisErrorKind::Malformed,
                "no count of ours is under this key",
            )
        })?;
        let memory = memory.borrow();
        quotas.push(quota_of(
            &rule,
            spot,
            &known,
            memory.label(rule.shard, ports.now_ms()),
        ));
    }
    Ok(quotas)
}

/// Asks a database for its time, unless it is known: with another one's epoch the wrong keys
/// would be looked at.
async fn learn_time<P: Redis + Clock>(
    memory: &RefCell<Memory>,
    ports: &P,
    redis_timeout_ms: u64,
    shard: usize,
) -> Result<(), RedisError> {
    let sent_ms = ports.now_ms();
    if !memory.borrow().is_clock_unsure(shard, sent_ms) {
        return Ok(());
    }
    let batch = ask_time(Vec::new());
    let replies = ports.pipeline(Store::Limits(shard), &batch, redis_timeout_ms);
    let mut replies = replies.await?;
    let times = (sent_ms, ports.now_ms());
    match charging::learn_time(&mut memory.borrow_mut(), shard, times, &mut replies) {
        true => Ok(()),
        false => Err(RedisError::new(
            RedisErrorKind::Malformed,
            "TIME says no time",
        )),
    }
}

fn known(rule: &Rule<'_>, replies: &[Reply]) -> Option<Known> {
    let known = rule.parse(replies.first()?)?;
    if rule.window.is_log() {
        let total = number(replies.get(1)?)?;
        return Some(Known { total, ..known });
    }
    if rule.window.is_sliding() {
        let Rest::Slots(before) = rule.parse(replies.get(1)?)?.rest? else {
            return None;
        };
        let previous = before.into();
        return Some(Known { previous, ..known });
    }
    Some(known)
}

/// Forgets what these ids have used: their keys are deleted, and what this isolate knows.
/// Others go on with what they know of the epoch before, for at most one window.
pub async fn reset<P: Redis + Clock>(
    memory: &RefCell<Memory>,
    ports: &P,
    redis_timeout_ms: u64,
    charges: &[Charge<'_>],
) -> Result<(), RedisError> {
    for rule in Rule::all(charges, redis_timeout_ms, 0) {
        learn_time(memory, ports, redis_timeout_ms, rule.shard).await?;
        let spot = memory.borrow().spot(&rule, ports.now_ms());
        let delete = Command::new("DEL").args(rule.keys(spot));
        let batch = Batch::pipeline(vec![delete]);
        ports
            .pipeline(Store::Limits(rule.shard), &batch, redis_timeout_ms)
            .await?;
        memory.borrow_mut().forget(&rule.base);
    }
    Ok(())
}

/// Forgets what this isolate knows of counts that another one has reset.
pub fn forget(memory: &RefCell<Memory>, charges: &[Charge<'_>]) {
    for rule in Rule::all(charges, 0, 0) {
        memory.borrow_mut().forget(&rule.base);
    }
}

/// Charges to a database what was admitted here while it was away.
pub async fn merge<P: Redis + Clock>(
    memory: &RefCell<Memory>,
    ports: &P,
    timeout_ms: u64,
    shard: usize,
) {
    for _ in 0..MERGES {
        let (unmerged, batch) = {
            let memory = &mut memory.borrow_mut();
            let unmerged = memory.local.take_unmerged(shard, MERGED_AT_ONCE);
            let label_ms = memory.label(shard, ports.now_ms());
            let mut commands = Vec::new();
            for counts in &unmerged {
                let now = counts.meter().window.spot(label_ms);
                let label = |local_ms| memory.label(shard, local_ms);
                counts.charges(now, label, &mut commands);
            }
            (unmerged, Batch::pipeline(commands))
        };
        if unmerged.is_empty() {
            return;
        }
        let sent = ports
            .pipeline(Store::Limits(shard), &batch, timeout_ms)
            .await;
        if let Err(error) = sent {
            // What may have run is not charged twice.
            if did_not_run(&error) {
                memory.borrow_mut().local.put_back(unmerged);
            }
            return;
        }
    }
}
