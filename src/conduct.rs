//! What a request's conduct leads to: bans before its trip, offences and the top refused
//! after its answer. `penalty` and `refused` hold the rules; here they meet the flow.

use crate::admission::Admission;
use crate::deferred::Deferred;
use crate::failure::Failure;
use crate::gateway::Gateway;
use crate::http::Response;
use crate::limit::{Charge, told_ms};
use crate::penalty::{Moment, Refusal};
use crate::policy::{By, Per};
use crate::ports::{Clock, Ports, Store};
use crate::redis::{Command, Reply};
use crate::visit::Visit;
use crate::visitor::Visitor;

/// The address of a request that some limit would punish; `None`: nobody watches it.
pub fn watched(
    gateway: &Gateway,
    admission: &Admission<'_>,
    visitor: &Visitor<'_>,
) -> Option<String> {
    // Those without an address would be banned for each other.
    let is_watched = admission.in_redis
        && visitor.client.address.is_some()
        && punishing(admission).next().is_some();
    is_watched.then(|| visitor.limit_id(gateway, &By::Ip))
}

fn punishing<'a, 'p>(admission: &'a Admission<'p>) -> impl Iterator<Item = &'a Charge<'p>> {
    let punishes = |charge: &&Charge<'_>| charge.limit.penalty.is_some() && !charge.limit.shadow;
    admission.charges.iter().filter(punishes)
}

fn now<P: Ports>(visit: &Visit<'_, P>) -> Moment {
    let offset_ms = visit.gateway.limits.borrow().clock_offset_ms(0);
    Moment::with_offset(visit.now_ms(), offset_ms.unwrap_or(0))
}

/// What a banned address is answered with, without a trip.
pub fn ban<P: Ports>(
    visit: &Visit<'_, P>,
    admission: &Admission<'_>,
    ip: Option<&str>,
) -> Option<Failure> {
    let ban = visit.gateway.penalties.borrow().ban_of(ip?, now(visit))?;
    Some(Failure::AbnormalUsage {
        violated: punishing(admission)
            .map(|charge| charge.limit.name.clone())
            .collect(),
        // Where the quota returns later than the ban ends, that is the time to come back.
        retry_after_ms: (ban.left_ms).max(told_ms(
            &visit.gateway.limits,
            &admission.charges,
            visit.now_ms(),
        )),
    })
}

/// What rides on the trip to know of bans that were made elsewhere.
pub fn rider<P: Ports>(visit: &Visit<'_, P>, ip: Option<&str>) -> Option<Command> {
    let penalties = visit.gateway.penalties.borrow();
    penalties.rider(ip?, now(visit))
}

pub fn learn<P: Ports>(visit: &Visit<'_, P>, ip: Option<&str>, reply: Option<&Reply>) {
    if let (Some(ip), Some(reply)) = (ip, reply) {
        let mut penalties = visit.gateway.penalties.borrow_mut();
        penalties.learn(ip, reply, now(visit));
    }
}

/// Remembers how a request ended, and looks after the answer at what that adds up to.
pub fn note<P: Ports>(
    visit: &Visit<'_, P>,
    admission: &Admission<'_>,
    ip: Option<&str>,
    served: &Result<Response<P::Body>, Failure>,
) {
    let gateway = visit.gateway;
    let now = now(visit);
    if let Err(Failure::QuotaExceeded {
        violated,
        retry_after_ms,
    }) = served
    {
        let refusing = admission
            .charges
            .iter()
            .filter(|charge| violated.contains(&charge.limit.name));
        for charge in refusing {
            let route = match charge.limit.per {
                Per::Route => charge.route,
                Per::All => "_",
            };
            let mut refused = gateway.refused.borrow_mut();
            refused.count(&charge.id, route, &charge.limit.name, now.own_ms);
            if let Some(ip) = ip {
                let refusal = Refusal {
                    limit: charge.limit,
                    id: &charge.id,
                    route: charge.route,
                    retry_after_ms: *retry_after_ms,
                };
                gateway.penalties.borrow_mut().refused(ip, &refusal, now);
            }
        }
    }
    if let (Some(ip), Ok(response)) = (ip, served) {
        for charge in punishing(admission) {
            let mut penalties = gateway.penalties.borrow_mut();
            penalties.answered(ip, charge.limit, response.status, now);
        }
    }
    let flush = gateway.refused.borrow_mut().flush(now.own_ms, now.redis_ms);
    if let Some(batch) = flush {
        let store = Store::Limits(0);
        visit.defer(Deferred::Send { store, batch });
    }
    look(visit, ip);
}

/// Looks after the answer at the reports about an address, if it is time.
pub fn look<P: Ports>(visit: &Visit<'_, P>, ip: Option<&str>) {
    let Some(ip) = ip else { return };
    let now = now(visit);
    if visit.gateway.penalties.borrow_mut().begin(ip, now) {
        visit.defer(Deferred::Look {
            ip: ip.to_owned(),
            offset_ms: now.offset_ms(),
        });
    }
}
