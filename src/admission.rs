//! Which limits a request falls under, and with what size; whom lists refuse outright.
//! Nothing is asked and nothing waits here.
//!
//! A deny beats every allow. What operators deny at run time is denied on every route,
//! with limits or without, but never on the admin API: a deny that is too wide could
//! not be taken back. A limit's own list concerns that limit, and one in shadow mode
//! refuses nobody. A header's value is a visitor's own word, so at run time too it
//! allows only under the limits that count by it.

use crate::controls::{Copied, Standing};
use crate::failure::Failure;
use crate::gateway::{Gateway, UNMATCHED};
use crate::identity::is_in_rollout;
use crate::limit::Charge;
use crate::policy::{Limit, RedisDown, Resolved, Route, Switch, is_own};
use crate::redis::Shards;
use crate::visitor::Visitor;

/// What a request is charged, and where.
pub struct Admission<'p> {
    pub charges: Vec<Charge<'p>>,
    pub redis_down: RedisDown,
    /// False: the limits are this isolate's own.
    pub in_redis: bool,
}

/// A list of limits and the name that they are counted under.
pub struct Limited<'p> {
    pub limits: &'p [Limit],
    pub name: &'p str,
    pub redis_down: RedisDown,
    shards: &'p Shards,
}

impl<'p> Limited<'p> {
    /// Of a route by name; `None`: there is none.
    pub fn named(gateway: &'p Gateway, name: &str) -> Option<Self> {
        let mut routes = gateway.policy.routes.iter();
        let route = routes.find(|route| route.name == name);
        (route.is_some() || name == UNMATCHED).then(|| Self::of(gateway, route))
    }

    /// What a request of that id is charged, with the size that operators say now.
    pub fn charge(&self, copied: &Copied, limit: &'p Limit, id: String) -> Charge<'p> {
        let other = copied.requests(limit, self.name, &id);
        let shard = self.shards.of(&id);
        let mut charge = Charge::new(limit, id, self.name);
        charge.shard = shard;
        charge.requests = other.unwrap_or(charge.requests);
        charge
    }

    /// `None`: like every unmatched request.
    pub fn of(gateway: &'p Gateway, route: Option<&'p Route>) -> Self {
        let defaults = &gateway.policy.defaults;
        let shards = &gateway.settings.shards;
        match route {
            Some(route) => Self {
                limits: &route.limits,
                name: &route.name,
                redis_down: route.redis_down,
                shards,
            },
            None => Self {
                limits: &defaults.limits,
                name: UNMATCHED,
                redis_down: defaults.redis_down,
                shards,
            },
        }
    }
}

/// The charges of a request, unless a list refuses it.
pub fn admit<'p>(
    gateway: &'p Gateway,
    resolved: &Resolved<'p>,
    visitor: &Visitor<'_>,
) -> Result<Admission<'p>, Failure> {
    let controls = gateway.controls.borrow();
    let copied = controls.copy();
    // The route itself, or a stricter one that an origin may fold this spelling into.
    let route = resolved.limited_as;
    let limited = Limited::of(gateway, route);
    let limits = match is_off(gateway, route, Switch::NotificationRateLimit) {
        true => &[],
        false => limited.limits,
    };
    let standing = standing(copied, limits, resolved, visitor);
    let mut is_denied = standing.is_denied;
    let mut charges = Vec::with_capacity(limits.len());
    for limit in limits {
        let by = &limit.by;
        is_denied |= !limit.shadow && visitor.is_named(&limit.deny, by);
        let is_allowed = standing.is_allowed
            || copied.of_header(visitor.header(by)).is_allowed
            || visitor.is_named(&limit.allow, by);
        let id = visitor.limit_id(gateway, by);
        if is_allowed || !is_in_rollout(&limit.name, &id, limit.rollout) {
            continue;
        }
        charges.push(limited.charge(copied, limit, id));
    }
    if is_denied {
        return Err(Failure::Denied);
    }
    Ok(Admission {
        charges,
        redis_down: limited.redis_down,
        in_redis: gateway.settings.limits_in_redis
            && !is_off(gateway, route, Switch::RateLimitRedis),
    })
}

/// Whether what operators say now denies a request that was admitted before it was read.
pub fn is_denied(gateway: &Gateway, resolved: &Resolved<'_>, visitor: &Visitor<'_>) -> bool {
    let controls = gateway.controls.borrow();
    let limits = Limited::of(gateway, resolved.limited_as).limits;
    standing(controls.copy(), limits, resolved, visitor).is_denied
}

fn standing(
    copied: &Copied,
    limits: &[Limit],
    resolved: &Resolved<'_>,
    visitor: &Visitor<'_>,
) -> Standing {
    let client = &visitor.client;
    let mut standing = copied.of_client(client.address, client.user.as_deref());
    let mut values = limits.iter().map(|limit| visitor.header(&limit.by));
    standing.is_denied |= values.any(|value| copied.of_header(value).is_denied);
    standing.is_denied &= !is_own(&resolved.path);
    standing
}

/// Whether a variable turns off a part of a route that names it.
pub fn is_off(gateway: &Gateway, route: Option<&Route>, switch: Switch) -> bool {
    gateway.settings.switched_off.contains(&switch)
        && route.is_some_and(|route| route.switches.contains(&switch))
}
