//! The one trip of a request: its limits are charged, entries are read, and now and then
//! what operators have changed comes along.

use futures_util::future::join;

use crate::admission::Admission;
use crate::bill::follow_up;
use crate::cache::{Lookups, Seen};
use crate::concurrency::Place;
use crate::conduct;
use crate::controls;
use crate::deferred::Deferred;
use crate::limit::{self, Checked, Verdict};
use crate::policy::RedisDown;
use crate::ports::{Clock, Ports};
use crate::redis::{Batch, Command, RedisError, Reply};
use crate::visit::Visit;

type Replies = Result<Vec<Reply>, RedisError>;

/// What the trip came to.
pub struct Asked {
    pub checked: Checked,
    /// In the order of the lookups; `None`: Redis did not answer.
    pub seen: Vec<Option<Seen>>,
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
    lookups: &Lookups,
) -> Asked {
    let gateway = visit.gateway;
    let read = (!lookups.is_empty()).then(|| lookups.command());
    let turn = turn(visit, admission, read.is_some()).await;
    let reading = controls::claim(gateway, visit.now_ms());
    let answered = match turn {
        Turn::Refused(checked) => Answered {
            checked,
            found: None,
            controls: None,
        },
        Turn::Go(place) => {
            let answered = send(visit, admission, ip, read, reading.is_some()).await;
            if let Some(place) = place
                && let Some(trip_ms) = visit.slowest_trip_ms()
            {
                place.leave(trip_ms, visit.redis_timeout_ms());
            }
            answered
        }
    };
    let mut checked = follow_up(visit, answered.checked);
    visit
        .bill
        .borrow_mut()
        .keep(std::mem::take(&mut checked.receipts));
    let has_news = match (reading, answered.controls) {
        (Some(ticket), Some(replies)) => {
            let reply = replies.as_ref().ok().and_then(|replies| replies.first());
            controls::learn(gateway, ticket, reply, visit.now_ms())
        }
        (reading, _) => {
            read_controls_later(visit, reading);
            false
        }
    };
    Asked {
        checked,
        seen: judge(visit, lookups, answered.found),
        has_news,
    }
}

/// What operators have changed is read after an answer that took no trip.
pub fn read_controls_later<P: Ports>(visit: &Visit<'_, P>, reading: Option<u64>) {
    if let Some(ticket) = reading {
        visit.defer(Deferred::Controls { ticket });
    }
}

/// Waits for a place at Redis, if this request asks it anything.
async fn turn<'a, P: Ports>(
    visit: &Visit<'a, P>,
    admission: &Admission<'_>,
    reads: bool,
) -> Turn<'a> {
    let gateway = visit.gateway;
    let asks = admission.in_redis && !admission.charges.is_empty() || reads;
    if !asks || gateway.settings.without_redis {
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
    read: Option<Command>,
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
        let checked = limit::check(limits, visit, timeout_ms, down, charges, riders).await;
        visit.keep_limits_here(false);
        let found = match (&checked.verdict, read) {
            (Verdict::Admitted, Some(read)) => {
                Some(visit.cache_trip(&Batch::pipeline(vec![read])).await)
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
        false => (Vec::from_iter(read), None),
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
    let (mut checked, mut found) = match apart {
        None => (check.await, None),
        Some(read) => {
            let batch = Batch::pipeline(vec![read]);
            let (checked, found) = join(check, visit.cache_trip(&batch)).await;
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

/// What the entries are, but those that a purge under way covers.
fn judge<P: Ports>(
    visit: &Visit<'_, P>,
    lookups: &Lookups,
    found: Option<Replies>,
) -> Vec<Option<Seen>> {
    let now_ms = visit.now_ms();
    let seen = found
        .and_then(Result::ok)
        .and_then(|replies| lookups.judge(replies.first()?, now_ms));
    let mut seen = match seen {
        Some(seen) => seen.into_iter().map(Some).collect(),
        None => vec![None; lookups.len()],
    };
    let unpurged = visit.gateway.unpurged.borrow();
    unpurged.hide(lookups, &mut seen, now_ms);
    seen
}
