//! The policies of the four teams, route by route: the key, the time and the tags that
//! their plans ask for, and what each write clears of a full cache and what it leaves.
//!
//! Everything goes through the gateway, with an origin that says what it was asked. Each
//! route of each policy has its row here, or the test fails.

mod community;
mod fablespace;
mod story_platform;
mod tikit;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use edgeweir::config::{CacheKey, Secret};
use edgeweir::gateway::Settings;
use edgeweir::policy::{Overrides, Policy, toml_to_json};
use serde_json::{Value, json};

use super::sim::first_seed;
use super::world::{Ask, Isolate, Says, World, policy_text};
use super::write::{SECRET, bearer};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// One entry: what is asked, and how it is kept.
pub struct Read {
    route: &'static str,
    target: &'static str,
    key: &'static str,
    ttl_s: u64,
    tags: &'static [&'static str],
    /// Whose it is.
    user: Option<&'static str>,
}

fn read(
    route: &'static str,
    target: &'static str,
    key: &'static str,
    ttl_s: u64,
    tags: &'static [&'static str],
) -> Read {
    Read {
        route,
        target,
        key,
        ttl_s,
        tags,
        user: None,
    }
}

/// The same of the user `ann`.
fn own(
    route: &'static str,
    target: &'static str,
    key: &'static str,
    ttl_s: u64,
    tags: &'static [&'static str],
) -> Read {
    Read {
        user: Some("ann"),
        ..read(route, target, key, ttl_s, tags)
    }
}

/// One write by the user `ann`, and which of the entries are gone after it.
pub struct Write {
    route: &'static str,
    request: (&'static str, &'static str),
    body: Value,
    answer: (u16, Value),
    gone: &'static [&'static str],
    /// The entry that its answer is then.
    filled: Option<&'static str>,
}

fn write(
    route: &'static str,
    request: (&'static str, &'static str),
    answer: (u16, Value),
    gone: &'static [&'static str],
) -> Write {
    Write {
        route,
        request,
        body: json!({}),
        answer,
        gone,
        filled: None,
    }
}

impl Write {
    fn fills(self, target: &'static str) -> Self {
        Self {
            filled: Some(target),
            ..self
        }
    }

    fn of(self, body: Value) -> Self {
        Self { body, ..self }
    }
}

pub struct Team {
    name: &'static str,
    text: &'static str,
    reads: Vec<Read>,
    writes: Vec<Write>,
    /// Routes that only limit, or are composed, and a request of theirs.
    others: &'static [(&'static str, (&'static str, &'static str))],
    /// `RateLimit-Policy` of the default limits, and of routes that have their own.
    limits: (&'static str, &'static [(&'static str, &'static str)]),
}

fn meta_key(key: &str) -> String {
    format!("meta:{key}")
}

/// What an origin says to a GET: what it was asked, and the how manieth time.
fn world(answer: Option<(u16, Value)>) -> Rc<World> {
    let world = World::new(first_seed());
    let asked = Cell::new(0);
    world.origin(move |request| {
        asked.set(asked.get() + 1);
        match (&answer, request.method.as_str()) {
            (Some((204, _)), "POST" | "PUT" | "PATCH" | "DELETE") => Says::new(204, ""),
            (Some((status, body)), "POST" | "PUT" | "PATCH" | "DELETE") => {
                Says::new(*status, body.to_string())
            }
            _ => Says::json(&json!({ "asked": request.target, "nth": asked.get() })),
        }
    });
    world
}

impl Team {
    fn policy(&self) -> Policy {
        policy_text(&toml_to_json(self.text).unwrap_or_else(|errors| panic!("{errors:#?}")))
    }

    fn isolate(&self, world: &Rc<World>) -> Isolate {
        let settings = Settings {
            jwt_secret: Some(Secret::new(std::str::from_utf8(SECRET).unwrap())),
            cache_keys: vec![CacheKey::new([1; 32])],
            ..Settings::default()
        };
        world.isolate_with(self.policy(), settings)
    }

    fn has(&self, route: &str) -> bool {
        self.policy().routes.iter().any(|known| known.name == route)
    }

    /// Rows of routes that the policy has; those of users wait for their scope.
    fn reads(&self) -> Vec<&Read> {
        let is_there = |read: &&Read| {
            let is_there = self.has(read.route);
            assert!(is_there || read.user.is_some(), "no route {}", read.route);
            is_there
        };
        self.reads.iter().filter(is_there).collect()
    }

    fn every_route_has_a_row(&self) {
        let rows: BTreeSet<&str> = (self.reads.iter().map(|read| read.route))
            .chain(self.writes.iter().map(|write| write.route))
            .chain(self.others.iter().map(|(route, _)| *route))
            .collect();
        for route in &self.policy().routes {
            assert!(rows.contains(&*route.name), "{}: {}", self.name, route.name);
        }
    }

    fn ask(read: &Read) -> Ask {
        match read.user {
            Some(user) => Ask::get(read.target).header("authorization", &bearer(user)),
            None => Ask::get(read.target),
        }
    }

    /// A miss stores exactly this key for this time under these tags; then it is a hit.
    fn entries_are_kept_as_the_plan_says(&self) {
        for read in self.reads() {
            let case = format!("{}: {}", self.name, read.target);
            let world = world(None);
            let (isolate, other) = (self.isolate(&world), self.isolate(&world));
            let first = isolate.ask(Self::ask(read));
            assert!(
                first.cache_status().contains("fwd=miss"),
                "{case}: {first:?}"
            );
            world.settle();
            let keys = world.redis.ttls_ms(world.sim.now_us()).into_keys();
            let kept: BTreeSet<String> =
                keys.filter(|key| !key.starts_with("ratelimit:")).collect();
            let mut expected = vec![read.key.to_owned(), format!("gen:key:{}", read.key)];
            expected.extend(read.tags.iter().map(|tag| format!("gen:{tag}")));
            match read.user {
                // One user's record is in the value itself, and so is its time.
                Some(_) => {
                    let left_ms = world.redis.ttls_ms(world.sim.now_us())[read.key].unwrap();
                    let life_ms = read.ttl_s * 1000;
                    assert!(
                        (life_ms - 1000..=life_ms + 60_000).contains(&left_ms),
                        "{case}: {left_ms}"
                    );
                }
                None => {
                    let meta: Value =
                        serde_json::from_slice(&world.redis.get(&meta_key(read.key)).unwrap())
                            .unwrap();
                    let time = |name: &str| meta[name].as_u64().unwrap();
                    let fresh_ms = time("fresh_until") - time("stored");
                    assert_eq!(fresh_ms, read.ttl_s * 1000, "{case}");
                    expected.push(meta_key(read.key));
                }
            }
            assert_eq!(kept, expected.into_iter().collect(), "{case}");
            assert_eq!(world.immortal_keys(), [""; 0]);
            let again = other.ask(Self::ask(read));
            assert!(again.cache_status().contains("hit"), "{case}");
            assert_eq!(again.body, first.body, "{case}");
            if read.user.is_some() {
                let stranger = Ask::get(read.target).header("authorization", &bearer("bob"));
                assert_ne!(other.ask(stranger).body, first.body, "{case}");
            }
        }
    }

    /// After each write exactly the listed entries of a full cache are fetched anew.
    fn writes_clear_what_the_plan_says(&self) {
        for write in &self.writes {
            let case = format!("{}: {:?}", self.name, write.request);
            let world = world(Some(write.answer.clone()));
            let isolate = self.isolate(&world);
            let reads = self.reads();
            for read in &reads {
                if write.filled != Some(read.target) || write.request.0 != "POST" {
                    isolate.ask(Self::ask(read));
                }
            }
            world.settle();
            let (method, target) = write.request;
            let resolved = isolate.gateway.policy.resolve(method, target);
            assert_eq!(
                resolved.route.map(|route| &*route.name),
                Some(write.route),
                "{case}"
            );
            let ask = Ask::new(method, target).header("authorization", &bearer("ann"));
            let served = isolate.ask(ask.body(write.body.to_string()));
            assert_eq!(served.status, write.answer.0, "{case}");
            let reader = self.isolate(&world);
            for target in write.gone {
                let is_known = self.reads.iter().any(|read| read.target == *target);
                assert!(is_known, "{case}: {target}");
            }
            for read in &reads {
                let served = reader.ask(Self::ask(read));
                let is_hit = served.cache_status().contains("hit");
                let is_gone = write.gone.contains(&read.target);
                assert_eq!(
                    is_hit,
                    !is_gone,
                    "{case}: {}: {}",
                    read.target,
                    served.cache_status()
                );
                if write.filled == Some(read.target) {
                    assert_eq!(served.json(), write.answer.1, "{case}");
                }
            }
        }
    }

    /// Routes without a cache ask the origin each time; each route says its own limits.
    fn the_rest_passes_and_limits_are_told(&self) {
        let (default, special) = self.limits;
        let requests = (self.reads().into_iter())
            .map(|read| (read.route, ("GET", read.target)))
            .chain(self.writes.iter().map(|write| (write.route, write.request)))
            .chain(self.others.iter().copied());
        for (route, (method, target)) in requests {
            let case = format!("{}: {method} {target}", self.name);
            let world = world(None);
            let isolate = self.isolate(&world);
            let path = target.split('?').next().unwrap();
            let resolved = isolate.gateway.policy.resolve(method, path);
            let matched = resolved.route.unwrap();
            assert_eq!(matched.name, route, "{case}");
            let served = isolate.ask(Ask::new(method, target));
            let own = special.iter().find(|(name, _)| *name == route);
            let expected = own.map_or(default, |(_, policy)| *policy);
            assert_eq!(served.get("ratelimit-policy"), expected, "{case}");
            let is_kept = matched.cache.is_some() || matched.compose.is_some();
            if method == "GET" && !is_kept {
                world.settle();
                assert_eq!(served.cache_status(), "", "{case}");
                isolate.ask(Ask::new(method, target));
                assert_eq!(world.asked_for(target), 2, "{case}");
            }
        }
    }

    fn holds(&self) {
        self.every_route_has_a_row();
        self.entries_are_kept_as_the_plan_says();
        self.writes_clear_what_the_plan_says();
        self.the_rest_passes_and_limits_are_told();
    }
}

#[test]
fn the_community_book_shop_has_its_plan() {
    community::team().holds();
}

#[test]
fn fablespace_has_its_plan() {
    fablespace::team().holds();
}

#[test]
fn tikit_has_its_plan() {
    tikit::team().holds();
}

#[test]
fn the_story_platform_has_its_plan() {
    story_platform::team().holds();
}

/// One source: what is built in is the first of them.
#[test]
fn the_policy_built_in_is_the_community_book_shops() {
    assert_eq!(
        include_str!("../../policies/community-books.toml"),
        include_str!("../../policy.toml")
    );
}

/// A switch turns off the cache of notifications, another one their limit, and variables
/// say how long they are fresh.
#[test]
fn fablespaces_variables_mean_what_they_say() {
    use edgeweir::policy::Switch;
    let team = fablespace::team();
    let json = toml_to_json(team.text).unwrap();
    for (set_s, ttl_s) in [(None, 30), (Some(7), 7)] {
        let overrides = Overrides {
            notification_ttl_s: set_s,
            ..Overrides::default()
        };
        let policy = Policy::from_json(&json, &overrides).unwrap();
        let text = policy
            .explain("GET", "/api/notifications/announcements")
            .to_string();
        let line = format!("fresh {ttl_s}s (the variable NOTIFICATION_CACHE_TTL)");
        assert!(text.contains(&line), "{text}");
        let world = world(None);
        let isolate = world.isolate(policy);
        isolate.get_settled("/api/notifications/announcements");
        let meta = world
            .redis
            .get("meta:notifications:announcements:1")
            .unwrap();
        let meta: Value = serde_json::from_slice(&meta).unwrap();
        let fresh_ms = meta["fresh_until"].as_u64().unwrap() - meta["stored"].as_u64().unwrap();
        assert_eq!(fresh_ms, ttl_s * 1000);
    }
    let world = world(None);
    let off = |switch| {
        let settings = Settings {
            switched_off: vec![switch],
            ..Settings::default()
        };
        world.isolate_with(team.policy(), settings)
    };
    let isolate = off(Switch::NotificationCache);
    for _ in 0..2 {
        let served = isolate.get_settled("/api/notifications/announcements");
        assert_eq!(served.cache_status(), "");
    }
    let isolate = off(Switch::NotificationRateLimit);
    for _ in 0..40 {
        let served = isolate.ask(Ask::new("POST", "/api/notifications").body("{}"));
        assert_eq!((served.status, served.get("ratelimit-policy")), (200, ""));
    }
}

/// Whoever goes on after his refusals is banned for longer each time; signing in is exact.
#[test]
fn fablespaces_limits_refuse_and_ban() {
    let world = world(None);
    let isolate = fablespace::team().isolate(&world);
    let mut statuses = Vec::new();
    for _ in 0..100 {
        let served = isolate.ask(Ask::new("POST", "/api/auth/login").body("{}"));
        statuses.push((served.status, served.text().contains("abnormal-usage")));
        world.pass(200);
    }
    assert!(
        statuses[..5].iter().all(|status| *status == (200, false)),
        "{statuses:?}"
    );
    assert!(
        statuses[5..].iter().all(|(status, _)| *status == 429),
        "{statuses:?}"
    );
    assert!(statuses.last().unwrap().1, "{statuses:?}");
}
