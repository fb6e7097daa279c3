//! What a request pays beside its first trip, by what becomes of it.
//!
//! A limit whose `cost` goes by the outcome charges the hit's part first. Before the origin
//! is asked for this request the rest is charged, in a trip of its own: who waits for
//! another's fill never pays it, and a flood of keys that nobody has cached stops there.
//! What the origin's failure does not cost goes back after the answer.

use crate::deferred::Deferred;
use crate::failure::Failure;
use crate::limit::{self, Charge, Checked, Quota, Receipt};
use crate::policy::RedisDown;
use crate::ports::{Clock, Ports, Store};
use crate::redis::Batch;
use crate::visit::Visit;

/// How often parts of one answer look whether another one has paid.
const LOOK_MS: u64 = 2;

#[derive(Debug, Default)]
pub struct Bill<'p> {
    unpaid: Vec<Charge<'p>>,
    redis_down: Option<RedisDown>,
    is_paying: bool,
    /// What the rest was refused with.
    refused: Option<Failure>,
    /// After the rest was charged.
    quotas: Vec<Quota>,
    receipts: Vec<Receipt>,
}

impl<'p> Bill<'p> {
    /// What the first trip leaves to pay.
    pub fn owe(&mut self, unpaid: Vec<Charge<'p>>, redis_down: RedisDown) {
        self.unpaid = unpaid;
        self.redis_down = Some(redis_down);
    }

    pub fn keep(&mut self, receipts: Vec<Receipt>) {
        self.receipts.extend(receipts);
    }

    /// Why the request may not ask the origin.
    pub fn refusal(&mut self) -> Option<Failure> {
        self.refused.take()
    }

    /// The newest word on each limit.
    pub fn renew(&mut self, quotas: &mut [Quota]) {
        for newer in self.quotas.drain(..) {
            if let Some(quota) = quotas.iter_mut().find(|quota| quota.name == newer.name) {
                *quota = newer;
            }
        }
    }
}

/// Charges the rest before the origin is asked; false: a limit refused.
pub async fn pay<P: Ports>(visit: &Visit<'_, P>) -> bool {
    // Parts of one answer ask side by side, and one of them pays.
    while visit.bill.borrow().is_paying {
        visit.sleep(LOOK_MS).await;
    }
    let (unpaid, redis_down) = {
        let mut bill = visit.bill.borrow_mut();
        if bill.refused.is_some() {
            return false;
        }
        let unpaid = std::mem::take(&mut bill.unpaid);
        if unpaid.is_empty() {
            return true;
        }
        bill.is_paying = true;
        (unpaid, bill.redis_down.unwrap_or(RedisDown::Local))
    };
    let limits = &visit.gateway.limits;
    let timeout_ms = visit.redis_timeout_ms();
    let checked = limit::check(limits, visit, timeout_ms, redis_down, &unpaid, Vec::new()).await;
    let checked = follow_up(visit, checked);
    let mut bill = visit.bill.borrow_mut();
    bill.is_paying = false;
    bill.quotas = checked.quotas;
    bill.refused = Failure::of(checked.verdict);
    if bill.refused.is_none() {
        bill.receipts.extend(checked.receipts);
        return true;
    }
    let returns: Vec<_> = bill.receipts.drain(..).collect();
    drop(bill);
    let now_ms = visit.now_ms();
    let back = |receipt: &Receipt| receipt.of_refusal(limits, now_ms);
    send(visit, returns.iter().filter_map(back));
    false
}

/// Gives back what a failure of the origin does not cost.
pub fn settle<P: Ports>(visit: &Visit<'_, P>, has_failed: bool) {
    let receipts = std::mem::take(&mut visit.bill.borrow_mut().receipts);
    if has_failed {
        let now_ms = visit.now_ms();
        let back = |receipt: &Receipt| receipt.of_failure(&visit.gateway.limits, now_ms);
        send(visit, receipts.iter().filter_map(back));
    }
}

/// Defers what a check leaves to do.
pub fn follow_up<P: Ports>(visit: &Visit<'_, P>, mut checked: Checked) -> Checked {
    send(visit, std::mem::take(&mut checked.deferred));
    for shard in std::mem::take(&mut checked.merges) {
        visit.defer(Deferred::Merge { shard });
    }
    checked
}

fn send<P: Ports>(visit: &Visit<'_, P>, batches: impl IntoIterator<Item = (usize, Batch)>) {
    for (shard, batch) in batches {
        let store = Store::Limits(shard);
        visit.defer(Deferred::Send { store, batch });
    }
}
