//! Who is refused most: the top ids of the last hour, over all isolates.
//!
//! An isolate counts in 64 counters whatever comes (SpaceSaving: Metwally, Agrawal, El
//! Abbadi 2005): an id that has none takes the smallest one over. So a counter is too
//! high by at most what it took over, which it remembers, and that is at most a 64th of all
//! refusals. What goes to Redis is the sure part: never more than there were, and of
//! each id at most that 64th less. It goes every ten seconds into one sorted set for each five minutes.
//! A batch that is lost is not sent again, as it may have arrived.

use crate::recent::Places;
use crate::redis::{Batch, Command, Reply};

/// An id that makes more than a 64th of an isolate's refusals is always found.
pub const COUNTERS: usize = 64;
pub const FLUSH_MS: u64 = 10_000;
pub const SLOT_MS: u64 = 300_000;
/// The hour before now touches so many slots.
pub const SLOTS: u64 = 13;
/// The last hour, and the slot that is being filled, with some to spare.
const TTL_MS: u64 = 70 * 60_000;
/// So many members a slot: about 100 KB.
const KEPT: i64 = 1_000;
/// So many of each slot are read for the top: 13 times 250 are about 300 KB.
const READ: i64 = 250;

#[derive(Debug)]
struct Counter {
    /// `id|route|limit`: none of the three has a `|`.
    member: String,
    count: u64,
    /// Of the one that it took over.
    error: u64,
}

/// One isolate's counts since its last flush.
#[derive(Debug, Default)]
pub struct Refused {
    counters: Vec<Counter>,
    /// By the own clock; the first count of all begins it.
    flushed_ms: Option<u64>,
}

/// One of the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// As the limiter counts it, so hashed if the policy says so.
    pub id: String,
    pub route: String,
    pub limit: String,
    pub count: u64,
}

impl Refused {
    pub fn count(&mut self, id: &str, route: &str, limit: &str, own_ms: u64) {
        self.add([id, route, limit].join("|"), own_ms);
    }

    /// Counts anything: `warm::top` counts keys so.
    pub fn add(&mut self, member: String, own_ms: u64) {
        self.flushed_ms.get_or_insert(own_ms);
        let known = |counter: &&mut Counter| counter.member == member;
        if let Some(counter) = self.counters.iter_mut().find(known) {
            counter.count += 1;
            return;
        }
        if self.counters.len() < COUNTERS {
            self.counters.push(Counter {
                member,
                count: 1,
                error: 0,
            });
            return;
        }
        if let Some(least) = self.counters.iter_mut().min_by_key(|counter| counter.count) {
            *least = Counter {
                member,
                count: least.count + 1,
                error: least.count,
            };
        }
    }

    /// Each counted one with what it was refused at least and at most.
    pub fn bounds(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.counters.iter().map(|counter| {
            (
                counter.member.as_str(),
                counter.count - counter.error,
                counter.count,
            )
        })
    }

    /// What is due to be sent to the limits' database: at most every ten seconds, and then
    /// at most 66 commands.
    pub fn flush(&mut self, own_ms: u64, redis_ms: u64) -> Option<Batch> {
        let is_due = self.is_due(own_ms, FLUSH_MS);
        is_due.then(|| self.take(&key(redis_ms / SLOT_MS), TTL_MS))
    }

    /// Whether the first count since the last flush is so old.
    pub fn is_due(&self, own_ms: u64, flush_ms: u64) -> bool {
        self.flushed_ms
            .is_some_and(|since_ms| !(since_ms..since_ms + flush_ms).contains(&own_ms))
    }

    /// All counts, to be added to that sorted set; here they begin anew.
    pub fn take(&mut self, key: &str, ttl_ms: u64) -> Batch {
        self.flushed_ms = None;
        let mut commands: Vec<Command> = std::mem::take(&mut self.counters)
            .into_iter()
            .map(|counter| {
                Command::new("ZINCRBY")
                    .arg(key.to_owned())
                    .arg(counter.count - counter.error)
                    .arg(counter.member)
            })
            .collect();
        commands.push(
            Command::new("ZREMRANGEBYRANK")
                .arg(key.to_owned())
                .args([0, -1 - KEPT]),
        );
        commands.push(Command::pexpire(key, ttl_ms));
        Batch::pipeline(commands)
    }
}

/// Reads the slots of the last hour.
pub fn top(redis_ms: u64) -> Batch {
    let newest = redis_ms / SLOT_MS;
    let slots = newest.saturating_sub(SLOTS - 1)..=newest;
    Batch::pipeline(slots.map(|slot| read(&key(slot))).collect())
}

/// Reads the highest counts of a sorted set.
pub fn read(key: &str) -> Command {
    Command::new("ZREVRANGE")
        .arg(key.to_owned())
        .args([0, READ - 1])
        .arg("WITHSCORES")
}

/// The `n` that were refused most; `None` when Redis did not say.
pub fn judge_top(replies: &[Reply], n: usize) -> Option<Vec<Top>> {
    let mut tops = Vec::new();
    let mut sums = sums(replies)?;
    while tops.len() < n
        && let Some((member, count)) = take_highest(&mut sums)
    {
        tops.extend(top_of(member, count));
    }
    Some(tops)
}

/// What each member counts in all sorted sets together; `None` when Redis did not say.
pub fn sums(replies: &[Reply]) -> Option<Vec<(&str, u64)>> {
    let mut places = Places::new();
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for reply in replies {
        for pair in reply.as_list()?.chunks_exact(2) {
            if let [member, score] = pair
                && let (Some(member), Some(score)) = (member.as_str(), score_of(score))
            {
                match places.get(member).and_then(|at| sums.get_mut(*at)) {
                    Some((_, sum)) => *sum = sum.saturating_add(score),
                    None => {
                        places.insert(member.into(), sums.len());
                        sums.push((member, score));
                    }
                }
            }
        }
    }
    Some(sums)
}

/// Few of them are wanted: to look for each is less code than to sort all.
pub fn take_highest<'r>(sums: &mut Vec<(&'r str, u64)>) -> Option<(&'r str, u64)> {
    let highest =
        (sums.iter().enumerate()).max_by(|(_, a), (_, b)| a.1.cmp(&b.1).then(b.0.cmp(a.0)));
    let (at, _) = highest?;
    Some(sums.swap_remove(at))
}

fn top_of(member: &str, count: u64) -> Option<Top> {
    let mut parts = member.split('|').map(str::to_owned);
    let (id, route, limit) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(Top {
        id,
        route,
        limit,
        count,
    })
}

/// Redis writes a whole number below 10^17 without a point or an exponent.
fn score_of(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Int(score) => u64::try_from(*score).ok(),
        reply => reply.as_str()?.parse().ok(),
    }
}

fn key(slot: u64) -> String {
    let mut key = String::from("metrics:refused:");
    key.push_str(&slot.to_string());
    key
}
