//! Read, purge and slow fill, their steps in every order.
//!
//! A step is a trip to Redis or an answer of the origin; the origin looks at its data as soon
//! as it is asked, and its answer comes as late as any order has it. From the moment at
//! which a purge is answered no read that begins later may bring older data, and after a soft
//! purge never as fresh. When all is quiet, reads bring what the origin has, and find it in
//! the cache. Three actors are played in every order there is; more, with time that passes in
//! between and answers of Redis that are overtaken, in orders drawn from a seed.
//!
//! `EDGEWEIR_ORDERS=all` plays the reader's own fill in every order too, which takes hours.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::policy::Policy;
use serde_json::{Value, json};

use super::sim::gates::{Choices, Every};
use super::sim::{Rng, first_seed};
use super::world::{Ask, Isolate, Says, Served, World, policy};

const TARGET: &str = "/items/a";

fn items(is_http: bool, l1: &str) -> Policy {
    let cache = match is_http {
        true => json!({ "mode": "http", "stale": "1h", "tags": ["items"] }),
        false => {
            json!({ "key": "items:{id}", "ttl": "10m", "stale": "1h", "tags": ["items"], "l1": l1 })
        }
    };
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "item", "match": "GET /items/{id}", "cache": cache },
            { "name": "hard", "match": "PUT /items/{id}", "purge": { "tags": ["items"] } },
            { "name": "soft", "match": "PATCH /items/{id}", "purge": { "tags": ["items"], "mode": "soft" } },
        ],
    }))
}

/// By what is purged.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Key,
    Tag,
    Prefix,
    /// A tag that the origin itself gave its answer.
    OriginTag,
    /// A route's rule.
    Route,
    /// `SET gen:items …` of a backend.
    Backend,
    /// The same of the origin's tag.
    BackendOriginTag,
    /// `Cache-Group-Invalidation`.
    Group,
}

#[derive(Debug, Clone, Copy)]
struct Purging {
    by: By,
    is_soft: bool,
}

/// What is there when all begin.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// All generations, for there was an entry, and others have these tags.
    Generations,
    Fresh,
    Stale,
}

/// Which of three isolates an actor is in.
#[derive(Debug, Clone, Copy)]
struct Places {
    filler: usize,
    purger: usize,
    reader: usize,
    l1: &'static str,
}

const APART: Places = Places {
    filler: 0,
    purger: 1,
    reader: 2,
    l1: "0s",
};
/// One isolate, which serves by itself what it has.
const TOGETHER: Places = Places {
    filler: 0,
    purger: 0,
    reader: 0,
    l1: "1s",
};
/// Who reads may share the fill.
const READERS: Places = Places {
    filler: 0,
    purger: 1,
    reader: 0,
    l1: "0s",
};

#[derive(Debug, Clone, Copy)]
struct Case {
    is_http: bool,
    purging: Purging,
    before: Before,
    places: Places,
}

/// What was answered so far.
#[derive(Default)]
struct Truth {
    version: Cell<u64>,
    hard: Cell<u64>,
    soft: Cell<u64>,
    old: Cell<u64>,
    stale: Cell<u64>,
    tasks: Cell<u64>,
    wrong: RefCell<Vec<String>>,
}

impl Truth {
    fn write(&self) -> u64 {
        self.version.set(self.version.get() + 1);
        self.version.get()
    }

    fn confirm(&self, version: u64, is_soft: bool) {
        let floor = if is_soft { &self.soft } else { &self.hard };
        floor.set(floor.get().max(version));
    }

    /// Judges an answer to a request that began when these had been purged.
    fn judge(&self, who: &str, hard: u64, soft: u64, served: &Served) {
        let version = match served.status {
            200 => served.json()["v"].as_u64().unwrap(),
            status => return self.wrong.borrow_mut().push(format!("{who}: {status}")),
        };
        let status = served.cache_status();
        let is_stale = status.contains("ttl=-");
        self.old
            .set(self.old.get() + u64::from(version < self.version.get()));
        self.stale.set(self.stale.get() + u64::from(is_stale));
        if version < hard || (version < soft && !is_stale) {
            let line = format!(
                "{who}: version {version} ({status}) where {hard} was purged, {soft} softly"
            );
            self.wrong.borrow_mut().push(line);
        }
    }
}

struct Scene {
    world: Rc<World>,
    truth: Rc<Truth>,
    isolates: Vec<Isolate>,
    is_http: bool,
}

fn settings() -> Settings {
    Settings {
        admin_token: Some(Secret::new("admin-token")),
        ..Settings::default()
    }
}

impl Scene {
    fn new(seed: u64, case: &Case, policy: &Policy, has_tags: bool, gap: bool) -> Self {
        let world = World::new(seed);
        let truth = Rc::new(Truth::default());
        truth.write();
        let known = truth.clone();
        world.origin(move |asked| {
            if asked.method != "GET" {
                let mut says = Says::json(&json!({})).after(0);
                if asked.headers.get("x-group").is_some() {
                    says = says.header("cache-group-invalidation", "\"other\", \"own\";x");
                }
                return says;
            }
            let says = Says::json(&json!({ "v": known.version.get() })).after(0);
            let says = says.header("cache-control", "max-age=600");
            Says {
                body_ms: 0,
                ..match has_tags {
                    true => says
                        .header("cache-groups", "\"own\"")
                        .header("cache-tag", "some, more"),
                    false => says,
                }
            }
        });
        world.network(move |_| super::sim::Passage {
            gap_us: if gap { 1_000 } else { 0 },
            ..super::sim::Passage::new(0, 0)
        });
        let isolate = || world.isolate_with(policy.clone(), settings());
        let isolates = (0..3).map(|_| isolate()).collect();
        let scene = Self {
            truth,
            isolates,
            is_http: case.is_http,
            world,
        };
        scene.prepare(case);
        scene
    }

    fn prepare(&self, case: &Case) {
        let now_us = self.world.sim.now_us();
        match case.before {
            Before::Nothing => {}
            Before::Generations => {
                for tag in ["items", "own", "some", "more"] {
                    let key = format!("gen:{tag}");
                    self.world
                        .redis
                        .set_px(now_us, &key, format!("of-{tag}"), 172_800_000);
                }
            }
            Before::Fresh | Before::Stale => {
                for isolate in &self.isolates {
                    isolate.get_settled(TARGET);
                    isolate.get_settled(TARGET);
                }
                if case.before == Before::Stale {
                    self.world.pass(601_000);
                }
            }
        }
        // What was there before is not what this is about.
        self.truth.old.set(0);
        self.truth.stale.set(0);
    }

    /// Reads when its turn has come, or at once; `most` of its steps after the first one wait.
    fn read(&self, who: u64, place: usize, waits: bool, most: Option<u32>) {
        let (world, truth) = (self.world.clone(), self.truth.clone());
        let isolate = self.isolates[place].clone();
        truth.tasks.set(truth.tasks.get() + 1);
        self.world.sim.spawn(async move {
            if waits {
                world.gates.pass(who).await;
            }
            let (hard, soft) = (truth.hard.get(), truth.soft.get());
            let (number, slot) = isolate.send(Ask::get(TARGET));
            if let Some(most) = most {
                // A read that begins and is not under way yet promises less, and does the same.
                world.gates.begin(number);
                world.gates.limit(number, most);
            }
            let served = slot.wait().await;
            truth.judge(&format!("reader {who}"), hard, soft, &served);
            truth.tasks.set(truth.tasks.get() - 1);
        });
    }

    fn key(&self) -> String {
        match self.is_http {
            true => format!("http:item:https://edge.example{TARGET}"),
            false => "items:a".to_owned(),
        }
    }

    /// Writes and purges when its turn has come.
    fn purge(&self, who: u64, place: usize, purging: Purging) {
        let (world, truth) = (self.world.clone(), self.truth.clone());
        let isolate = self.isolates[place].clone();
        let key = self.key();
        truth.tasks.set(truth.tasks.get() + 1);
        let Purging { by, is_soft } = purging;
        let mode = if is_soft { "soft" } else { "hard" };
        let admin = |body: Value| {
            let ask = Ask::new("POST", "/-/purge").header("authorization", "Bearer admin-token");
            Some(ask.body(body.to_string()))
        };
        let ask = match by {
            By::Key => admin(json!({ "keys": [key], "mode": mode })),
            By::Tag => admin(json!({ "tags": ["items"], "mode": mode })),
            By::Prefix => admin(json!({ "prefix": &key[..6], "mode": mode })),
            By::OriginTag => admin(json!({ "tags": ["own"], "mode": mode })),
            By::Route => Some(Ask::new(if is_soft { "PATCH" } else { "PUT" }, "/items/b")),
            By::Group => Some(Ask::new("POST", "/elsewhere").header("x-group", "yes")),
            By::Backend | By::BackendOriginTag => None,
        };
        self.world.sim.spawn(async move {
            world.gates.pass(who).await;
            let version = truth.write();
            match ask {
                Some(ask) => {
                    let (_, slot) = isolate.send(ask);
                    let served = slot.wait().await;
                    assert_eq!(served.status, 200, "{}", served.text());
                }
                None => {
                    world.gates.pass(who).await;
                    let tag = if by == By::Backend { "items" } else { "own" };
                    let (key, value) = (format!("gen:{tag}"), format!("backend-{version}"));
                    world
                        .redis
                        .set_px(world.sim.now_us(), &key, value, 172_800_000);
                }
            }
            truth.confirm(version, is_soft);
            truth.tasks.set(truth.tasks.get() - 1);
        });
    }

    fn play(&self, choices: &mut dyn Choices) {
        let (world, truth) = (&self.world, &self.truth);
        let is_done = || world.is_quiet() && truth.tasks.get() == 0;
        world.gates.play(&world.sim, choices, &is_done);
        world.gates.turn_off();
        assert!(is_done(), "somebody waits for ever");
    }

    /// When all is quiet everybody reads what there is, and soon from the cache.
    fn end(&self, l1_ms: u64) {
        self.world.pass(l1_ms);
        for (place, isolate) in self.isolates.iter().enumerate() {
            let served = isolate.get_settled(TARGET);
            let (hard, soft) = (self.truth.hard.get(), self.truth.soft.get());
            self.truth
                .judge(&format!("isolate {place} at last"), hard, soft, &served);
        }
        self.world.pass(l1_ms);
        // A tag that nobody knew may take one more answer of the origin.
        for _ in 0..2 {
            self.isolates[0].get_settled(TARGET);
        }
        for (place, isolate) in self.isolates.iter().enumerate() {
            let served = isolate.get_settled(TARGET);
            let is_hit = served.cache_status().contains("hit; ttl=")
                && !served.cache_status().contains("ttl=-");
            if served.json()["v"] != json!(self.truth.version.get()) || !is_hit {
                let line = format!(
                    "isolate {place} at the end: {} ({})",
                    served.text(),
                    served.cache_status()
                );
                self.truth.wrong.borrow_mut().push(line);
            }
        }
        let immortal = self.world.immortal_keys();
        if !immortal.is_empty() {
            self.truth
                .wrong
                .borrow_mut()
                .push(format!("without expiry: {immortal:?}"));
        }
    }
}

fn has_tags(by: By) -> bool {
    matches!(by, By::OriginTag | By::BackendOriginTag | By::Group)
}

/// All kinds, and for each whether it is soft.
fn purgings() -> Vec<Purging> {
    let both = [By::Key, By::Tag, By::Prefix, By::OriginTag, By::Route];
    let hard = [By::Backend, By::BackendOriginTag, By::Group];
    let soft = both.map(|by| Purging { by, is_soft: true });
    let hard = both
        .into_iter()
        .chain(hard)
        .map(|by| Purging { by, is_soft: false });
    hard.chain(soft).collect()
}

/// Plays one case in every order; how many there were, and how often something old or stale
/// was served.
fn every_order(case: Case) -> (u64, u64, u64) {
    let (mut old, mut stale) = (0, 0);
    let policy = items(case.is_http, case.places.l1);
    // The filler's every step, and the reader's up to the lock: what it does then is what the
    // filler does. All of them are too many for each run of the suite.
    let (filler, reader) = match std::env::var("EDGEWEIR_ORDERS").as_deref() {
        Ok("all") => (u32::MAX, u32::MAX),
        _ => (u32::MAX, 1),
    };
    let played = Every::order(|every| {
        let scene = Scene::new(1, &case, &policy, has_tags(case.purging.by), false);
        // An isolate of its own sees nothing of an answer before it goes on to Redis.
        scene
            .world
            .gates
            .turn_on(case.places.filler == case.places.reader, false);
        scene.read(1, case.places.filler, false, Some(filler));
        scene.purge(1_000, case.places.purger, case.purging);
        scene.read(2_000, case.places.reader, true, Some(reader));
        scene.play(every);
        old += scene.truth.old.get();
        stale += scene.truth.stale.get();
        scene.end(if case.places.l1 == "0s" { 0 } else { 1_000 });
        let wrong = scene.truth.wrong.take();
        assert!(
            wrong.is_empty(),
            "{case:?}, order {:?}: {wrong:#?}",
            every.path()
        );
    });
    (played, old, stale)
}

/// What is played of each kind of purge. With nothing there each fill has one step more, to
/// seed the generations: that is played where no other reads beside it, and once apart.
fn settings_of(by: By, is_http: bool) -> Vec<(Before, Places)> {
    let mut settings = vec![
        (Before::Generations, APART),
        (Before::Nothing, READERS),
        (Before::Stale, READERS),
        (Before::Stale, TOGETHER),
    ];
    // Both modes share what these have of their own.
    if !is_http {
        settings.push((Before::Stale, APART));
        settings.push((Before::Nothing, TOGETHER));
        settings.push((Before::Fresh, TOGETHER));
    }
    if by == By::BackendOriginTag && !is_http {
        settings.push((Before::Nothing, APART));
    }
    settings
}

fn all_orders(is_http: bool, is_soft: bool) {
    let mut sums: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for purging in purgings()
        .into_iter()
        .filter(|purging| purging.is_soft == is_soft)
    {
        for (before, places) in settings_of(purging.by, is_http) {
            // An isolate hears of what is purged elsewhere within `l1` only.
            let is_elsewhere = matches!(purging.by, By::Backend | By::BackendOriginTag);
            if is_elsewhere && places.l1 != "0s" {
                continue;
            }
            // A route's own purge is no other in this mode, and has the most orders.
            if is_http && purging.by == By::Route {
                continue;
            }
            let case = Case {
                is_http,
                purging,
                before,
                places,
            };
            let (played, old, stale) = every_order(case);
            let sum = sums.entry(format!("{:?}", purging.by)).or_default();
            *sum = (sum.0 + played, sum.1 + old, sum.2 + stale);
        }
    }
    for (by, (played, old, stale)) in sums {
        println!("{by}: {played} orders, {old} older answers, {stale} stale ones");
        // Orders in which nothing old can be served would show nothing.
        assert!(played > 100 && old > 10 && stale > 10);
    }
}

#[test]
fn hard_purges_win_in_every_order_of_steps() {
    all_orders(false, false);
}

#[test]
fn soft_purges_win_in_every_order_of_steps() {
    all_orders(false, true);
}

#[test]
fn hard_purges_win_in_every_order_of_steps_in_http_mode() {
    all_orders(true, false);
}

#[test]
fn soft_purges_win_in_every_order_of_steps_in_http_mode() {
    all_orders(true, true);
}

/// More actors, purges of all kinds one after the other, answers of Redis that are overtaken,
/// commands of others between those of a pipeline, and time that passes.
#[test]
fn many_actors_in_random_orders_keep_the_promise() {
    const SCENES: u64 = 3_000;
    let first = first_seed();
    let kinds = purgings();
    let (mut old, mut stale) = (0, 0);
    for seed in first..first + SCENES {
        let mut rng = Rng::new(seed ^ 0x07de5);
        let places = rng.pick(&[APART, READERS]);
        let case = Case {
            is_http: rng.chance(40),
            purging: rng.pick(&kinds),
            before: rng.pick(&[
                Before::Nothing,
                Before::Generations,
                Before::Fresh,
                Before::Stale,
            ]),
            places,
        };
        let has = rng.chance(60);
        let policy = items(case.is_http, case.places.l1);
        let scene = Scene::new(seed, &case, &policy, has, rng.chance(50));
        scene.world.gates.turn_on(true, true);
        let kinds: Vec<_> = kinds
            .iter()
            .filter(|kind| has || !has_tags(kind.by))
            .copied()
            .collect();
        for who in 0..rng.between(2, 4) {
            scene.read(1 + who, rng.between(0, 2) as usize, rng.chance(70), None);
        }
        for who in 0..rng.between(1, 3) {
            scene.purge(1_000 + who, rng.between(0, 2) as usize, rng.pick(&kinds));
        }
        scene.play(&mut rng);
        old += scene.truth.old.get();
        stale += scene.truth.stale.get();
        let wrong = scene.truth.wrong.take();
        assert!(wrong.is_empty(), "seed {seed}, {case:?}: {wrong:#?}");
    }
    println!(
        "seeds {first}..{}: {old} older answers, {stale} stale ones",
        first + SCENES
    );
    assert!(old > SCENES / 10 && stale > SCENES / 100);
}
