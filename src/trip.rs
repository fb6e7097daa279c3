//! The one trip of a request: its limits are charged, entries are read, and now and then
//! what operators have changed comes along.

use futures_util::future::join;

use crate::admission::Admission;
use crate::bill::follow_up;
use crate::cache::Seen;
use crate::concurrency::Place;
use crate::conduct;
use crate::controls;
use crate::deferred::Deferred;
use crate::fill::Wanted;
use crate::limit::{self, Checked, Verdict};
use crate::policy::RedisDown;
use crate::ports::{Clock, Ports};
use crate::reading::{self, Reading};
use crate::redis::{Batch, Command, RedisError, Reply};
use crate::together::boxed;
use crate::visit::Visit;

type Replies = Result<Vec<Reply>, RedisError>;

/// What the trip came to.
pub struct Asked {
    pub checked: Checked,
    /// Of an admitted request, in the order of what it wants; `None`: Redis did not answer.
    pub seen: Vec<Option<Seen>>,
    /// Generations that were asked for beside it; `None`: Redis did not answer.
    pub generations: Option<Vec<Option<String>>>,
    /// It brought what operators say now.
    pub has_news: bool,
}

/// Where a request may go.
enum Turn<'c> {
    /// Nowhere: its refusal is known already.
    Refused(Checked),
    Go(Option<Place<'c>>),
}

/// What came back; `None`: not asked.
struct Answered {
    checked: Checked,
    found: Option<Replies>,
    controls: Option<Replies>,
}

pub async fn ask<P: Ports>(
    visit: &Visit<'_, P>,
    admission: &Admission<'_>,
    ip: Option<&str>,
    wanted: &[&Wanted],
    generations: &[String],
) -> Asked {
    let gateway = visit.gateway;
    let is_free = is_free(visit, admission);
    // A trip that is made anyway reads everything. Where most requests make none it is one
    // of many to come at the end of a lease, and brings what will soon be needed.
    let trust = match is_free {
        true => 2,
        false => u64::from(admission.charges.iter().all(|charge| charge.limit.lease)),
    };
    let mut reading = Reading::plan(visit, wanted, trust);
    let reads = !reading.is_empty() || !generations.is_empty();
    let turn = turn(visit, admission, !is_free, reads).await;
    let wants_controls = controls::claim(gateway, visit.now_ms());
    let answered = match turn {
        Turn::Refused(checked) => Answered {
            checked,
            found: None,
            controls: None,
        },
        Turn::Go(place) => {
            let mut read = reading.leave(visit);
            if !generations.is_empty() {
                read.push(Command::new("MGET").args(generations));
            }
            let rides = wants_controls.is_some() && (!is_free || !read.is_empty());
            let answered = send(visit, admission, ip, read, rides).await;
            if let Some(place) = place
                && let Some(trip_ms) = visit.slowest_trip_ms()
            {
                place.leave(trip_ms, visit.redis_timeout_ms());
            }
            answered
        }
    };
    let mut found = answered.found;
    let generations = match &mut found {
        Some(Ok(replies)) if !generations.is_empty() => replies.pop().and_then(values),
        _ => None,
    };
    let mut checked = follow_up(visit, answered.checked);
    visit
        .bill
        .borrow_mut()
        .keep(std::mem::take(&mut checked.receipts));
    let has_news = match (wants_controls, answered.controls) {
        (Some(ticket), Some(replies)) => {
            let reply = replies.as_ref().ok().and_then(|replies| replies.first());
            controls::learn(gateway, ticket, reply, visit.now_ms())
        }
        (wants_controls, _) => {
            read_controls_later(visit, wants_controls);
            false
        }
    };
    let seen = match checked.verdict {
        Verdict::Admitted => reading::finish(visit, wanted, &reading, found).await,
        _ => Vec::new(),
    };
    Asked {
        checked,
        seen,
        generations,
        has_news,
    }
}

/// The texts of an MGET.
fn values(reply: Reply) -> Option<Vec<Option<String>>> {
    let text = |reply: &Reply| reply.as_str().map(str::to_owned);
    Some(reply.as_list()?.iter().map(text).collect())
}

/// What operators have changed is read after an answer that took no trip.
pub fn read_controls_later<P: Ports>(visit: &Visit<'_, P>, reading: Option<u64>) {
    if let Some(ticket) = reading {
        visit.defer(Deferred::Controls { ticket });
    }
}

/// Whether the limits of a request take no trip.
fn is_free<P: Ports>(visit: &Visit<'_, P>, admission: &Admission<'_>) -> bool {
    let limits = visit.gateway.limits.borrow();
    let (timeout_ms, now_ms) = (visit.redis_timeout_ms(), visit.now_ms());
    !admission.in_redis || limit::is_leased(&limits, timeout_ms, &admission.charges, now_ms)
}

/// Waits for a place at Redis, if this request asks it anything.
async fn turn<'a, P: Ports>(
    visit: &Visit<'a, P>,
    admission: &Admission<'_>,
    charges: bool,
    reads: bool,
) -> Turn<'a> {
    let gateway = visit.gateway;
    if !(charges || reads) || gateway.settings.without_redis {
        return Turn::Go(None);
    }
    let timeout_ms = visit.redis_timeout_ms();
    // A refusal that is known already stands in nobody's way.
    if gateway.concurrency.is_full()
        && let Some(checked) =
            limit::refused(&gateway.limits, visit, timeout_ms, &admission.charges)
    {
        return Turn::Refused(checked);
    }
    Turn::Go(Some(gateway.concurrency.enter(visit, timeout_ms).await))
}

async fn send<P: Ports>(
    visit: &Visit<'_, P>,
    admission: &Admission<'_>,
    ip: Option<&str>,
    read: Vec<Command>,
    wants_controls: bool,
) -> Answered {
    let gateway = visit.gateway;
    let (limits, charges) = (&gateway.limits, &admission.charges);
    let timeout_ms = visit.redis_timeout_ms();
    if !admission.in_redis {
        // The same code as with Redis, which is never asked: another type of ports would be
        // all of the limiter once more in the upload.
        visit.keep_limits_here(true);
        let (down, riders) = (RedisDown::Local, Vec::new());
        let check = limit::check(limits, visit, timeout_ms, down, charges, riders);
        let checked = boxed(check).await;
        visit.keep_limits_here(false);
        let found = match &checked.verdict {
            Verdict::Admitted if !read.is_empty() => {
                Some(boxed(visit.cache_trip(&Batch::pipeline(read))).await)
            }
            _ => None,
        };
        return Answered {
            checked,
            found,
            controls: None,
        };
    }
    let is_apart = gateway.settings.separate_cache;
    let (mut riders, apart) = match is_apart {
        true => (Vec::new(), read),
        false => (read, Vec::new()),
    };
    let reads_here = !riders.is_empty();
    // It rides on a trip to the first database that is made anyway.
    let is_there = charges.iter().any(|charge| charge.shard == 0);
    let rider = conduct::rider(visit, ip);
    let asks_conduct = rider.is_some();
    riders.extend(rider);
    let asks_controls = wants_controls && (reads_here || is_there);
    if asks_controls {
        riders.push(controls::hgetall());
    }
    let check = limit::check(
        limits,
        visit,
        timeout_ms,
        admission.redis_down,
        charges,
        riders,
    );
    let (mut checked, mut found) = match apart.is_empty() {
        true => (check.await, None),
        false => {
            let batch = Batch::pipeline(apart);
            let both = boxed(join(check, visit.cache_trip(&batch)));
            let (checked, found) = both.await;
            (checked, Some(found))
        }
    };
    let mut ridden = checked.riders.take();
    let controls = match (&mut ridden, asks_controls) {
        (Some(Ok(replies)), true) => Some(Ok(Vec::from_iter(replies.pop()))),
        (ridden, true) => ridden.clone(),
        _ => None,
    };
    if asks_conduct && let Some(Ok(replies)) = &mut ridden {
        conduct::learn(visit, ip, replies.pop().as_ref());
    }
    if reads_here {
        found = ridden;
    }
    Answered {
        checked,
        found,
        controls,
    }
}
