//! Counting: what is counted, and how it gets to Redis after the answer.
//!
//! Views of one isolate that come close together share a pipeline. All of its commands may
//! be repeated, so one whose outcome is not known is sent again. Where Redis executes
//! nothing, or is not to be asked, a view goes to the origin at once as a batch of one, under
//! a key that is the same for the same viewer, item and day.

use std::cell::RefCell;

use super::item::{Item, Sight, View};
use super::origin::post;
use super::record::body;
use super::{LONG_MS, dirty_key, items_key, seen_key};
use crate::config::Secret;
use crate::deferred::{self, Deferred};
use crate::failure::Failure;
use crate::gateway::Gateway;
use crate::http::{Request, Response};
use crate::policy::{By, PathValues, Piece, Resolved, Route, Selected, Switch, Template, Values};
use crate::ports::{Clock, Ports, Store};
use crate::recent::Recent;
use crate::redis::{Batch, Command, RedisErrorKind, Reply};
use crate::together::all;
use crate::visit::Visit;
use crate::visitor::Visitor;

/// How long a view waits for others: so many views are one trip, and the trip is not in the
/// way of the next request of the same visitor.
const GATHER_MS: u64 = 20;
/// Views of one trip. When Redis takes none of them each is a request to the origin, and
/// with its second try that is still within what one request may make.
const MAX_TOGETHER: usize = 16;
/// Views that wait for their trip.
const MAX_WAITING: usize = 1_000;
/// Of which an isolate remembers that they are counted, by their names: some 3 MB at most.
const MAX_COUNTED: usize = 4_096;
/// Before each try at Redis, and at the origin.
const REDIS_PAUSES_MS: [u64; 4] = [0, 200, 1_000, 3_000];
const ORIGIN_PAUSES_MS: [u64; 2] = [0, 1_000];

/// What an isolate has to do with views.
#[derive(Debug)]
pub struct Views {
    waiting: Vec<Sight>,
    /// When those wake that will take some of them.
    takers: Vec<u64>,
    counted: Recent<()>,
    pub known: super::pending::Known,
}

impl Default for Views {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            takers: Vec::new(),
            counted: Recent::new(MAX_COUNTED),
            known: super::pending::Known::default(),
        }
    }
}

/// Who takes the views of a request to Redis.
enum Place {
    /// The request itself, when it wakes.
    Own,
    /// Others that wake soon.
    Taken,
    /// Too many wait.
    None,
}

impl Views {
    /// Lets views wait. Their request need not wake for them when others will, one more than
    /// are needed: then it may be any one of them that the platform ends.
    fn place(&mut self, sights: &mut Vec<Sight>, now_ms: u64) -> Place {
        if self.waiting.len() + sights.len() > MAX_WAITING {
            return Place::None;
        }
        self.waiting.append(sights);
        let soon = now_ms + 1..=now_ms + GATHER_MS;
        self.takers.retain(|wakes_ms| soon.contains(wakes_ms));
        let needed = self.waiting.len().div_ceil(MAX_TOGETHER);
        if self.takers.len() > needed {
            return Place::Taken;
        }
        self.takers.push(now_ms + GATHER_MS);
        Place::Own
    }

    /// A taker is awake, whatever the clock says by now.
    fn wake(&mut self, wakes_ms: u64) {
        let mut takers = self.takers.iter();
        if let Some(place) = takers.position(|known_ms| *known_ms == wakes_ms) {
            self.takers.swap_remove(place);
        }
    }

    /// What one trip takes: its `own`, and others that wait.
    fn take(&mut self, mut own: Vec<Sight>) -> Vec<Sight> {
        let room = MAX_TOGETHER.saturating_sub(own.len());
        own.extend(self.waiting.drain(..room.min(self.waiting.len())));
        own
    }
}

/// Defers counting what a request has viewed, if it was answered with a 2xx.
pub fn note<P: Ports>(
    visit: &Visit<'_, P>,
    request: &Request,
    resolved: &Resolved<'_>,
    visitor: &Visitor<'_>,
    served: &Result<Response<P::Body>, Failure>,
) {
    let gateway = visit.gateway;
    let Some(route) = resolved.route.filter(|_| resolved.exact) else {
        return;
    };
    let Some(rule) = route.view.as_ref().filter(|rule| !rule.items.is_empty()) else {
        return;
    };
    let is_answered = |response: &Response<P::Body>| (200..300).contains(&response.status);
    if request.method == "HEAD"
        || !served.as_ref().is_ok_and(is_answered)
        || is_bot(&gateway.policy.defaults.bots, request)
    {
        return;
    }
    let offset_ms = gateway.limits.borrow().clock_offset_ms(0).unwrap_or(0);
    let now_ms = visit.now_ms().saturating_add_signed(offset_ms);
    let viewer = visitor.limit_id(gateway, &By::User);
    let selected = selected(route, request.query.as_deref());
    let mut state = gateway.views.borrow_mut();
    let sights = rule.items.iter().filter_map(|item| {
        let id = id(&item.id, &resolved.values, selected.as_ref())?;
        let sight = Sight::new(Item::new(&item.kind, &id)?, &viewer, now_ms);
        let is_new = state.counted.use_mut(&sight.name).is_none();
        is_new.then_some(sight)
    });
    let sights: Vec<Sight> = sights.collect();
    if !sights.is_empty() {
        visit.defer(Deferred::Count { sights });
    }
}

/// With their hashes, for which the answer need not wait.
fn views(gateway: &Gateway, sights: Vec<Sight>) -> Vec<View> {
    let key = gateway.settings.hash_key.as_ref().map(Secret::as_bytes);
    let key = key.unwrap_or_default();
    sights
        .into_iter()
        .map(|sight| View::new(sight, key))
        .collect()
}

/// Whether the policy lists a part of the User-Agent.
fn is_bot(bots: &[String], request: &Request) -> bool {
    let agent = request.headers.get("user-agent").unwrap_or("");
    let agent = agent.to_ascii_lowercase();
    bots.iter().any(|bot| agent.contains(bot.as_str()))
}

/// The listed query parameters of a request, which a view may name.
pub fn selected(route: &Route, query: Option<&str>) -> Option<Selected> {
    let rule = route.cache.as_ref().filter(|rule| !rule.query.is_empty())?;
    rule.select(query)
}

/// The id of an item; a value by itself is as it was sent, beside others it is encoded, so
/// that none runs into the next. `None`: a value is not there.
pub fn id(template: &Template, path: &PathValues, selected: Option<&Selected>) -> Option<String> {
    let value = |name: &str| match path.get(name) {
        Some(value) => Some(value.to_owned()),
        None => selected?.get(name).map(str::to_owned),
    };
    if let [Piece::Value(name)] = template.pieces.as_slice() {
        return value(name);
    }
    let is_there = |piece: &Piece| match piece {
        Piece::Value(name) => value(name).is_some_and(|value| !value.is_empty()),
        _ => true,
    };
    let of = Values {
        path,
        selected,
        user: None,
        body: None,
        response: None,
    };
    let is_whole = template.pieces.iter().all(is_there);
    template.render(&of).filter(|_| is_whole)
}

/// Whether views are not for Redis.
fn is_direct(gateway: &Gateway) -> bool {
    let off = &gateway.settings.switched_off;
    gateway.settings.without_redis || off.contains(&Switch::ViewTrackingRedis)
}

/// Counts the views of one request, and some of others that wait. Whoever wakes takes what
/// there is, so one request that the platform ends takes no other's views along.
pub async fn count<P: Ports>(gateway: &Gateway, ports: &P, mut sights: Vec<Sight>) {
    if is_direct(gateway) {
        return straight_on(gateway, ports, views(gateway, sights)).await;
    }
    let now_ms = ports.now_ms();
    let place = gateway.views.borrow_mut().place(&mut sights, now_ms);
    match place {
        Place::Taken => return,
        Place::None => {}
        Place::Own => {
            ports.sleep(GATHER_MS).await;
            gateway.views.borrow_mut().wake(now_ms + GATHER_MS);
        }
    }
    let taken = gateway.views.borrow_mut().take(sights);
    send(gateway, ports, views(gateway, taken)).await;
}

/// Whether a trip that failed so has executed nothing.
fn is_refusal(kind: RedisErrorKind) -> bool {
    use RedisErrorKind::{Full, Open, Quota, ReadOnly, Rejected, TooLarge, Unauthorized};
    matches!(
        kind,
        Open | Unauthorized | Quota | Full | ReadOnly | TooLarge | Rejected
    )
}

async fn send<P: Ports>(gateway: &Gateway, ports: &P, mut views: Vec<View>) {
    let mut is_sure = true;
    for pause_ms in REDIS_PAUSES_MS {
        if views.is_empty() {
            return;
        }
        if pause_ms > 0 {
            ports.sleep(pause_ms).await;
        }
        let plan = Plan::of(gateway, views);
        let batch = Batch {
            // It may have run: that must be known before the origin is told.
            insists: !is_sure,
            ..Batch::pipeline(plan.commands)
        };
        let timeout_ms = deferred::timeout_ms(gateway);
        match ports.pipeline(Store::Limits(0), &batch, timeout_ms).await {
            Ok(replies) => {
                views = remember(gateway, plan.views, &plan.groups, &replies);
                is_sure = false;
            }
            Err(error) => {
                ports.log_failed_trip(&error);
                views = plan.views;
                if is_refusal(error.kind) && is_sure {
                    break;
                }
                is_sure = is_sure && is_refusal(error.kind);
            }
        }
    }
    straight_on(gateway, ports, views).await;
}

/// One pipeline. A bit is set before its item is there, and the item before its viewers:
/// cut off anywhere, nothing is there that a pass would not find.
struct Plan {
    commands: Vec<Command>,
    views: Vec<View>,
    /// Of each view, its group's place among the commands.
    groups: Vec<usize>,
}

impl Plan {
    fn of(gateway: &Gateway, views: Vec<View>) -> Self {
        let mut commands: Vec<Command> = Vec::with_capacity(views.len() * 3 + 2);
        let mut add = |command: Command| match commands.iter().position(|known| *known == command) {
            Some(at) => at,
            None => {
                commands.push(command);
                commands.len() - 1
            }
        };
        for view in &views {
            add(Command::new("SETBIT")
                .arg(dirty_key(view.sight.day))
                .arg(view.bit())
                .arg(1_u32));
            let key = items_key(view.sight.day, view.sight.item.bucket());
            add(Command::new("ZADD")
                .arg(key)
                .arg("NX")
                .arg(0_u32)
                .arg(view.sight.item.member().to_owned()));
        }
        let groups = views.iter().map(|view| {
            let key = view.sight.item.set_key(view.sight.day);
            add(Command::new("SADD").arg(key).arg(view.number()))
        });
        let groups = groups.collect();
        for view in &views {
            let key = seen_key(view.sight.item.kind(), view.sight.day);
            add(Command::new("PFADD").arg(&key).arg(view.number()));
            if gateway.views.borrow_mut().counted.use_mut(&key).is_none() {
                add(Command::pexpire(&key, LONG_MS));
            }
        }
        Self {
            commands,
            views,
            groups,
        }
    }
}

/// Keeps in mind what was counted; answers the others.
fn remember(gateway: &Gateway, views: Vec<View>, groups: &[usize], replies: &[Reply]) -> Vec<View> {
    let first = groups.first().copied().unwrap_or(0);
    let is_prepared = !replies.iter().take(first).any(Reply::is_error);
    let mut state = gateway.views.borrow_mut();
    let mut left = Vec::new();
    for (view, group) in views.into_iter().zip(groups) {
        match replies.get(*group) {
            Some(Reply::Int(_)) if is_prepared => {
                state.counted.use_or_default(&view.sight.name);
                let seen = seen_key(view.sight.item.kind(), view.sight.day);
                state.counted.use_or_default(&seen);
            }
            _ => left.push(view),
        }
    }
    left
}

/// To the origin, each as a batch of one.
async fn straight_on<P: Ports>(gateway: &Gateway, ports: &P, views: Vec<View>) {
    let lost = RefCell::new(0_usize);
    let one = async |view: View| {
        for pause_ms in ORIGIN_PAUSES_MS {
            if pause_ms > 0 {
                ports.sleep(pause_ms).await;
            }
            let text = body(&view.digest, &[(&view.sight.item, 1)]);
            if post(gateway, ports, &view.digest, text).await.is_some() {
                let mut state = gateway.views.borrow_mut();
                state.counted.use_or_default(&view.sight.name);
                return;
            }
        }
        *lost.borrow_mut() += 1;
    };
    all(views.into_iter().map(one)).await;
    if lost.into_inner() > 0 {
        ports.log("views: neither Redis nor the origin took them, and they are lost");
    }
}
