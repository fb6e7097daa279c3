//! The limiter: a distributed sliding window over plain Redis commands, and three other
//! algorithms in the same flow.
//!
//! It charges first and judges by what Redis answers. It reads no clock but the port's,
//! runs no script, and keeps nothing in an isolate that the bound rests on but permits
//! that Redis has charged. It does not know who is asking: an id arrives encoded. Not
//! here: penalties, lists, overrides.
//!
//! # What always holds
//! **Never more than L in any trailing window W**, over any number of isolates, by
//! Redis' clock and in Redis' order, while Redis keeps its keys and its clock does not
//! run backwards, and a local clock is not set within the 10 s between two samples of
//! Redis' time. What the local mode admits while Redis is down is not in it.
//!
//! Let T be the Redis timeout, b = max(⌈W/240⌉, T + 100 ms, 250 ms) the bucket and
//! r = b − T. An epoch is cut into slots of s = max(⌈W/240⌉, ⌈b/8⌉) ≤ b. A charge with label
//! x (Redis' time as its isolate believes when it sends) goes to epoch ⌊x/W⌋ and there to
//! slot ⌊(x mod W)/s⌋. Say Redis runs it at τ.
//! 1. *Labels.* An admitted charge has τ − T − r/2 ≤ x ≤ τ + r/2. When `TIME` rode in the same
//!    `/multi-exec`, that is checked on its answer. Else the offset is from a sample wrong by
//!    at most r/2 (half its trip), and τ lies between the two local readings that are at
//!    most T apart, of which the label is the first. Where this fails in the right epoch, the
//!    charge is judged anew at τ if `TIME` says it, and moved to the slot of τ, or of the time
//!    when its late answer came, before it admits and before its epoch ends (`TIME` rides).
//!    Step 3 needs of c that what it counted at is not after τc + r/2, and of d that where it
//!    stands is not before τd − T − r/2; a move keeps both.
//! 2. *Epochs.* An admitted charge has ⌊x/W⌋ = ⌊τ/W⌋: checked on `TIME`, which rides whenever x
//!    is within b of a boundary; farther away rule 1 implies it.
//! 3. *Counting.* Take any window and the last charge c, in Redis' order, of those admitted in
//!    it, and another such charge d: τc − W < τd ≤ τc. By 2, d's epoch is c's, or the one
//!    before. In c's epoch, the total that c's own charge answered has d in it. In the one
//!    before, by 1, xd ≥ τd − T − r/2 > τc − W − T − r/2 ≥ xc − W − T − r = xc − W − b: within their
//!    epochs d stands less than b before c, so slot(d) ≥ ⌊((xc mod W) − b)/s⌋, and those slots
//!    are counted. They were read after a charge of c's epoch had run, so after d.
//! 4. *Refunds* take back only what a refused request added, so d stays. Hence the sum of all
//!    admitted in the window is at most what c counted, which was at most L. ∎
//!
//! # Leases
//! A leased limit charges g permits at once (a grant) and its isolate spends them itself. An
//! admission at τ' spends a grant with label x only while the isolate's clock, sure to e = 50 ms,
//! says at most x + b, and says that the epoch of x lasts for another 2e. The slots that count
//! begin at ⌊((x mod W) − b − r/2 − e)/s⌋. Then the bound holds for admissions, wherever they are spent:
//! take any window of admissions that ends at τ', and c the last grant, in Redis' order, among
//! those that they spent; so τc ≤ τ'. Let d be another one of them, spent at δ > τ' − W.
//! Admission and grant are in one epoch, so d's epoch is c's or the one before. In that one
//! xd ≥ δ − b − e > τ' − W − b − e ≥ xc − r/2 − W − b − e, which is counted. A request that charged
//! for itself is admitted at τd, and T + r = b is less. What goes back is unspent, so it is
//! nobody's admission; of a grant that does not fit whole, only as much is kept as does. ∎
//! A charge returns r/2 + e later, less than a bucket.
//!
//! # The other algorithms
//! - *Log*: every unit is a member of a sorted set, at the time when Redis ran it, wrong by at
//!   most e = 50 ms: `TIME` rides, a label that is older is moved before it admits, one that is newer
//!   is charged anew. What counts is later than x − W − 2e, and xd > xc − W − 2e for all d of a
//!   window: at most L, and each unit returns at most 2e late. An isolate whose clock is not known
//!   drops none of them.
//! - *Token bucket* (GCRA): the score of one member is the theoretical arrival time; `ZADD GT` lets
//!   it leak and `ZINCRBY` pours, which is max and plus in one trip without a script. Judged at x − e,
//!   never later than Redis' time: at most `burst` and the rate's share in any time.
//!   An isolate whose clock is not known asks for it first: a label of the future would
//!   let everything leak, for all.
//! - *Fixed window*: an epoch's total alone: at most L in each epoch, up to 2 L in a trailing window.
//!
//! A flush begins the history anew. A refund that is under way across a flush may take
//! back a later charge's unit, never more units than such refunds have; it saturates at
//! zero, so it cannot lock an id out.
//!
//! A charge returns at most a bucket and a slot late: slot j of an epoch stops counting
//! min((j + 1)·s + b, W) into the next. That makes the return exact: `retry_after_ms` is the
//! first moment at which the same request from this isolate fits if nobody else asks. Under
//! pressure this lateness is what an exact log admits more: who comes first in a slot waits
//! longest, and all that a slot frees is taken by those who come first in another one.
//! Clocks have no part in it.
//!
//! # Choices
//! - The bucket is at least T + 100 ms because proof step 3 needs T + r ≤ b; `TIME` rides within
//!   one whole bucket of a boundary, so in a long window clocks may differ by b − T.
//! - The previous epoch is read with one `GETRANGE`, and remembered once refunds to it have
//!   run (b + T past the boundary); before that it is read with each check. A refund that
//!   comes even later, from an isolate that was held up, is not seen: too much is counted.
//! - `OVERFLOW FAIL` on charges: a counter at its end refuses, and only what was added is
//!   given back.
//! - A refusal whose charge ran across a boundary stands if it left before it. Else a wrong
//!   clock charged the epoch that is over, and it is made anew: the time named would be wrong.
//! - When a narrow limit will probably refuse, by this isolate's own count, it is charged
//!   before the wider ones: a flood's charges under way then stay out of those.
//! - A limit that others share is refused without a trip only for what is older than any
//!   refund under way.

mod charging;
mod check;
mod counts;
mod fallback;
mod lease;
mod local;
mod memory;
mod meter;
mod quota;
mod receipt;
mod redis_clock;
mod rule;
mod settling;
mod trips;
mod upkeep;
mod window;

use std::cell::RefCell;

use crate::policy::{self, RedisDown};
use crate::ports;
use crate::redis::{Batch, Command, RedisError, Reply};

pub use charging::time_ms;
pub use memory::Memory;
pub use receipt::Receipt;
pub use upkeep::{forget, merge, peek, reset};
pub use window::{RESIDUAL_MS, Window};

use check::Flow;
use rule::Rule;
use trips::Trips;

/// One limit that a request falls under.
#[derive(Debug, Clone)]
pub struct Charge<'p> {
    pub limit: &'p policy::Limit,
    /// The limit's own, or what stands in its place at the moment.
    pub requests: u32,
    /// Cost units of this request.
    pub cost: u32,
    /// Of these, what stays charged when the origin fails.
    pub kept: u32,
    /// Who is asking, encoded so that it cannot forge another key.
    pub id: String,
    /// The route's name; a limit with `per = "all"` ignores it.
    pub route: &'p str,
    /// Which of the databases for limits counts this id.
    pub shard: usize,
}

impl<'p> Charge<'p> {
    /// With what the policy says for a request that the origin answers.
    pub fn new(limit: &'p policy::Limit, id: String, route: &'p str) -> Self {
        Self {
            limit,
            requests: limit.requests,
            cost: limit.cost.miss,
            kept: limit.cost.error,
            id,
            route,
            shard: 0,
        }
    }

    /// For a request that the cache may answer, and what is charged on top of it before
    /// the origin is asked; `None`: nothing.
    pub fn by_outcome(self) -> (Self, Option<Self>) {
        let cost = self.limit.cost;
        let dearer = (cost.miss > cost.hit).then(|| Self {
            cost: cost.miss - cost.hit,
            kept: cost.error.saturating_sub(cost.hit),
            ..self.clone()
        });
        let hit = Self {
            cost: cost.hit,
            kept: cost.hit.min(cost.error),
            ..self
        };
        (hit, dearer)
    }
}

/// What the answer says about one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    pub name: String,
    pub requests: u32,
    /// How much fits at once: a bucket's burst, else `requests`.
    pub capacity: u64,
    pub window_ms: u64,
    pub remaining: u32,
    /// Of a limit that refused or is used up: when the same request fits. Else when
    /// the oldest known charge returns, or when those of the current epoch begin to.
    pub reset_ms: u64,
    /// It refuses nobody.
    pub is_shadow: bool,
    /// This isolate counted by itself.
    pub is_degraded: bool,
}

/// How long the limits of a request that is not charged will refuse it for certain, as far as
/// this isolate knows without asking.
pub fn told_ms(memory: &RefCell<Memory>, charges: &[Charge<'_>], now_ms: u64) -> u64 {
    let memory = memory.borrow();
    let rules = Rule::all(charges, 0, 0);
    let refusing = rules.iter().filter(|rule| !rule.limit.shadow);
    let told = refusing.map(|rule| memory.told_ms(rule, now_ms));
    told.max().unwrap_or(0)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Admitted,
    Refused {
        retry_after_ms: u64,
        /// The limits' names.
        violated: Vec<String>,
    },
    /// Redis is down and the route is `closed`.
    Unavailable,
}

#[derive(Debug, Clone)]
pub struct Checked {
    pub verdict: Verdict,
    /// In the order of the charges, one for each.
    pub quotas: Vec<Quota>,
    /// Shadow limits that would have refused.
    pub shadowed: Vec<String>,
    /// Of some limit Redis did not decide.
    pub degraded: bool,
    /// Replies to the riders, `None` when no trip was made.
    pub riders: Option<Result<Vec<Reply>, RedisError>>,
    /// To be sent to these databases for limits after the answer.
    pub deferred: Vec<(usize, Batch)>,
    /// Databases that are back: `merge` what was counted without them, after the answer.
    pub merges: Vec<usize>,
    /// Of limits whose cost goes by the outcome.
    pub receipts: Vec<Receipt>,
}

/// Whether this isolate holds permits for all of them, so that no trip is needed.
pub fn is_leased(
    memory: &Memory,
    redis_timeout_ms: u64,
    charges: &[Charge<'_>],
    now_ms: u64,
) -> bool {
    // Most limits are not leased: their rules need not be made for that.
    charges.iter().all(|charge| charge.limit.lease)
        && (Rule::all(charges, redis_timeout_ms, 0).iter())
            .all(|rule| memory.can_spend(rule, now_ms))
}

/// The refusal that this isolate may repeat without asking, if there is one.
pub fn refused<P: ports::Redis + ports::Clock + ports::Random>(
    memory: &RefCell<Memory>,
    ports: &P,
    redis_timeout_ms: u64,
    charges: &[Charge<'_>],
) -> Option<Checked> {
    let rules = Rule::all(charges, redis_timeout_ms, 0);
    let trips = Trips {
        memory,
        ports,
        timeout_ms: redis_timeout_ms,
        rules: &rules,
    };
    Flow::new(trips, Vec::new()).refused()
}

/// Charges every limit or none, and brings the riders' replies in the same trip.
///
/// Must run to its end even when the client leaves: a refusal gives back in line.
pub async fn check<P: ports::Redis + ports::Clock + ports::Random>(
    memory: &RefCell<Memory>,
    ports: &P,
    redis_timeout_ms: u64,
    redis_down: RedisDown,
    charges: &[Charge<'_>],
    riders: Vec<Command>,
) -> Checked {
    let is_log = |charge: &Charge<'_>| charge.limit.algorithm == policy::Algorithm::SlidingLog;
    // Only a log has something to name.
    let tag = match charges.iter().any(is_log) {
        true => ports.random() as u64,
        false => 0,
    };
    let rules = Rule::all(charges, redis_timeout_ms, tag);
    let trips = Trips {
        memory,
        ports,
        timeout_ms: redis_timeout_ms,
        rules: &rules,
    };
    Flow::new(trips, riders).run(redis_down).await
}
