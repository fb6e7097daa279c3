//! What operators change while everything runs: other sizes for limits, and lists.
//!
//! All of it is one hash in the limits' database with a field for each control, so that
//! writers at the same time lose nothing of each other's. Each isolate has a copy: when
//! that is older than 2 s, reading the hash rides on a limiter trip, or follows after
//! the answer of a request that makes none. So a request never waits for it, and what
//! was changed holds everywhere within seconds of traffic. A trip that brings a new deny
//! is judged by it at once; another size counts from the next request on.
//!
//! While Redis does not answer the last copy holds, however old it is: whoever denied an
//! address under attack wants it denied in the outage too. An isolate that has never read
//! the hash has the policy alone. Sizes change, windows never, so no count is lost.
//!
//! | field                                  | value           |
//! |----------------------------------------|-----------------|
//! | `limit:{route}:{limit}`                | requests        |
//! | `limit:{route}:{limit}:{id}`           | requests        |
//! | `list:{address, network, user:…, header:…}` | `deny` or `allow` |
//! | `reset:{0 to 31}`                      | a new tag, route and id |
//!
//! The route is `*` for unmatched requests and `_` for limits with `per = "all"`; ids are
//! encoded as in keys. What cannot be read is ignored. A reset tells the others to forget
//! what they know of an id; one that 32 later ones replace before an isolate reads it is
//! not told there, and what that isolate knows ends by itself with the window.

mod change;
mod record;

use std::net::IpAddr;

use crate::admission::Limited;
use crate::deferred;
use crate::gateway::Gateway;
use crate::limit::{self, Charge, Window};
use crate::policy::{Algorithm, Cost, Limit, Per, Subject, network};
use crate::ports::{Ports, Store};
use crate::recent::Places;
use crate::redis::{Command, Reply};

pub use change::{Change, read};
pub use record::{
    Control, List, controls, is_id, override_field, reset_field, subject, subject_field,
};

/// Has no second colon, so no id makes a limit's key of it.
pub const KEY: &str = "ratelimit:controls";

/// About 40 KB, and at most 530 KB, for each isolate that has traffic, every 2 s.
pub const MAX_CONTROLS: usize = 1_000;

/// Of those that are remembered; the ones before are forgotten.
pub const MAX_RESETS: usize = 32;

/// Renewed by each change: what nobody touched for so long is forgotten.
pub const TTL_MS: u64 = 31 * 24 * 3_600_000;

/// How old a copy may get before it is read anew.
pub const FRESH_MS: u64 = 2_000;

/// A reading that has not come back by then was lost with its request: longer than any
/// trip, of which the slowest may take 10 s and 2 s in which the isolate was held up.
const LEASE_MS: u64 = 15_000;

/// One isolate's copy, and who reads it anew.
#[derive(Debug, Default)]
pub struct Controls {
    copy: Copied,
    /// When it is due, by the local clock.
    due_ms: u64,
    /// Of the newest reading or change; what an older one brings is not looked at.
    ticket: u64,
    known_resets: Option<Vec<String>>,
}

impl Controls {
    pub fn copy(&self) -> &Copied {
        &self.copy
    }

    /// Resets since the copy before; on the first one there is nothing to forget.
    fn take_resets(&mut self) -> Vec<String> {
        let known = self.known_resets.replace(self.copy.resets.clone());
        let Some(known) = known else {
            return Vec::new();
        };
        let resets = self.copy.resets.iter();
        resets
            .filter(|reset| !known.contains(reset))
            .cloned()
            .collect()
    }

    /// The right to read the hash, if it is time and nobody else does.
    fn claim(&mut self, now_ms: u64) -> Option<u64> {
        // A clock that was set back does not put it off.
        if now_ms < self.due_ms && self.due_ms - now_ms <= LEASE_MS {
            return None;
        }
        self.due_ms = now_ms + LEASE_MS;
        Some(self.next_ticket())
    }

    /// Ends a reading; true when it brought a new copy.
    fn learn(&mut self, ticket: u64, reply: Option<&Reply>, now_ms: u64) -> bool {
        if ticket != self.ticket {
            return false;
        }
        self.due_ms = now_ms + FRESH_MS;
        let Some(copy) = reply.and_then(Copied::read) else {
            return false;
        };
        self.copy = copy;
        true
    }

    /// For what is newer than all readings under way.
    fn next_ticket(&mut self) -> u64 {
        self.ticket += 1;
        self.ticket
    }
}

/// Who is on which list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    pub is_denied: bool,
    pub is_allowed: bool,
}

impl Standing {
    fn add(&mut self, list: Option<List>) {
        self.is_denied |= list == Some(List::Deny);
        self.is_allowed |= list == Some(List::Allow);
    }
}

/// The controls as requests look them up.
#[derive(Debug, Default)]
pub struct Copied {
    /// By field, and networks by their first bits; the requests, or the list.
    values: Places,
    /// Lengths of the networks that are listed.
    prefixes: Vec<u8>,
    has_overrides: bool,
    /// As they stand in the hash.
    resets: Vec<String>,
}

impl Copied {
    /// `None`: that is no hash.
    pub fn read(reply: &Reply) -> Option<Self> {
        let mut copy = Self::default();
        for (field, control) in record::controls(reply)?.take(MAX_CONTROLS + MAX_RESETS) {
            let (key, value) = match control {
                Control::Reset { text, .. } => {
                    copy.resets.push(text.to_owned());
                    continue;
                }
                Control::Requests { requests, .. } => {
                    copy.has_overrides = true;
                    (
                        field.to_owned(),
                        usize::try_from(requests).unwrap_or(usize::MAX),
                    )
                }
                Control::Listed { subject, list } => match subject {
                    Subject::Network { bits, prefix } => {
                        if !copy.prefixes.contains(&prefix) {
                            copy.prefixes.push(prefix);
                        }
                        (network_key(bits, prefix), list as usize)
                    }
                    _ => (field.to_owned(), list as usize),
                },
            };
            copy.values.insert(key.into(), value);
        }
        Some(copy)
    }

    /// How a client stands, by address and verified user.
    pub fn of_client(&self, address: Option<IpAddr>, user: Option<&str>) -> Standing {
        let mut standing = Standing::default();
        if self.values.is_empty() {
            return standing;
        }
        if let Some(address) = address {
            let bits = network::bits(address);
            let least = match bits >> 32 == 0xffff {
                // Shorter ones are of IPv6 alone.
                true => network::MAPPED_BITS,
                false => 0,
            };
            for prefix in self.prefixes.iter().filter(|prefix| **prefix >= least) {
                standing.add(self.list(&network_key(bits, *prefix)));
            }
        }
        if let Some(user) = user {
            standing.add(self.list(&subject_field(&Subject::User(user.to_owned()))));
        }
        standing
    }

    /// How the value of a header that a limit counts by stands.
    pub fn of_header(&self, value: Option<&str>) -> Standing {
        let mut standing = Standing::default();
        if let Some(value) = value.filter(|_| !self.values.is_empty()) {
            standing.add(self.list(&subject_field(&Subject::Id(value.to_owned()))));
        }
        standing
    }

    /// What stands in the place of a limit's own size: the id's, else the route's.
    pub fn requests(&self, limit: &Limit, route: &str, id: &str) -> Option<u32> {
        if !self.has_overrides {
            return None;
        }
        let mut field = override_field(limit, route, Some(id));
        let of_id = self.values.get(field.as_str());
        field.truncate(field.len() - id.len() - 1);
        let requests = of_id.or_else(|| self.values.get(field.as_str()))?;
        // The policy may have changed since.
        let (least, most) = sizes(limit);
        let requests = (*requests as u64).min(most).max(least);
        u32::try_from(requests).ok()
    }

    fn list(&self, key: &str) -> Option<List> {
        match self.values.get(key)? {
            0 => Some(List::Deny),
            _ => Some(List::Allow),
        }
    }
}

/// The least and the largest size that a limit may get: its costliest request fits, and
/// its keys hold it.
pub fn sizes(limit: &Limit) -> (u64, u64) {
    let Cost { hit, miss, error } = limit.cost;
    let cost = u64::from(hit.max(miss).max(error).max(1));
    let least = match limit.algorithm {
        // The burst goes with the size.
        Algorithm::TokenBucket { burst } => {
            (cost * u64::from(limit.requests)).div_ceil(u64::from(burst.max(1)))
        }
        _ => 0,
    };
    (least.max(cost), u64::from(Window::most_requests(limit)))
}

/// Shorter than text, and made without looking for the longest run of zeros.
fn network_key(bits: u128, prefix: u8) -> String {
    let mut key = String::with_capacity(34);
    key.push(char::from(prefix));
    for byte in network::network(bits, prefix).to_be_bytes() {
        key.push(char::from(byte));
    }
    key
}

/// The route as fields and keys have it.
fn route_of<'r>(limit: &Limit, route: &'r str) -> &'r str {
    match limit.per {
        Per::Route => route,
        Per::All => "_",
    }
}

/// Reads all of it.
pub fn hgetall() -> Command {
    Command::new("HGETALL").arg(KEY)
}

/// A reading that a request has taken on, if it is time for one.
pub fn claim(gateway: &Gateway, now_ms: u64) -> Option<u64> {
    match gateway.settings.without_redis {
        true => None,
        false => gateway.controls.borrow_mut().claim(now_ms),
    }
}

/// Ends it with what came back; true when there is a new copy.
pub fn learn(gateway: &Gateway, ticket: u64, reply: Option<&Reply>, now_ms: u64) -> bool {
    let mut controls = gateway.controls.borrow_mut();
    let has_news = controls.learn(ticket, reply, now_ms);
    let resets = match has_news {
        true => controls.take_resets(),
        false => Vec::new(),
    };
    drop(controls);
    for reset in resets {
        if let Some(Control::Reset { route, id, .. }) = record::reset(&reset) {
            let limited = Limited::named(gateway, route);
            let limits = limited.iter().flat_map(|limited| limited.limits);
            let charges: Vec<Charge<'_>> = limits
                .map(|limit| Charge::new(limit, id.to_owned(), route))
                .collect();
            limit::forget(&gateway.limits, &charges);
        }
    }
    has_news
}

/// What a change came to, as Redis has it.
fn adopt(gateway: &Gateway, reply: &Reply, now_ms: u64) {
    let ticket = gateway.controls.borrow_mut().next_ticket();
    learn(gateway, ticket, Some(reply), now_ms);
}

/// Does it after the answer.
pub async fn refresh<P: Ports>(gateway: &Gateway, ports: &P, ticket: u64) {
    let batch = crate::redis::Batch::pipeline(vec![hgetall()]);
    let timeout_ms = deferred::timeout_ms(gateway);
    let answer = ports.pipeline(Store::Limits(0), &batch, timeout_ms);
    let replies = match answer.await {
        Ok(replies) => replies,
        Err(error) => {
            ports.log_failed_trip(&error);
            Vec::new()
        }
    };
    learn(gateway, ticket, replies.first(), ports.now_ms());
}
