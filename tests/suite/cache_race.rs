//! The race of fills and purges: the cache's one promise, tried in random worlds.
//!
//! The origin's data have versions. A write makes a new one and purges. From the moment
//! at which Redis' word on a purge has come, no request that starts later may see an
//! older version, whatever fills, refreshes, adoptions and retries are under way.
//!
//! Values that a backend put there are purged by `DEL` alone (CONTRACT, Redis keys), so
//! purges of tags do not bind them.
//!
//! Some writes fill: their answers become the entry, under the same promise.
//!
//! With L1 an isolate that trusts its own entries sees a purge elsewhere at most `l1` late,
//! its own at once; one that validates them sees every purge at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use edgeweir::policy::Policy;
use edgeweir::redis::{Batch, RedisErrorKind, Reply, Word};
use serde_json::{Value, json};

use super::sim::{Fault, Passage, Rng, first_seed};
use super::world::{Ask, Isolate, Says, Served, World, policy};

const IDS: [&str; 2] = ["a", "b"];

/// How isolates use what they have themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tier {
    /// Not at all.
    Off,
    /// Nothing is limited: without a trip.
    Trusted,
    /// Bodies are long and every request is charged: in the limits' trip.
    Validated,
}

/// How late a purge elsewhere may be seen.
const L1_MS: u64 = 1_000;
const LONG: usize = 33_000;
const ISOLATES: usize = 3;

fn items(tier: Tier) -> Policy {
    let limit = match tier {
        Tier::Validated => {
            json!([{ "name": "all", "requests": 1_000_000, "window": "60s", "by": "global" }])
        }
        Tier::Off | Tier::Trusted => json!([]),
    };
    let (ttl, l1) = match tier {
        Tier::Off => ("1s", "0s"),
        Tier::Trusted | Tier::Validated => ("3s", "1s"),
    };
    policy(&json!({
        "defaults": { "limit": limit, "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "item", "match": "GET /items/{id}", "cache": {
                "key": "items:{id}", "ttl": ttl, "stale": "2s", "negative": "1s",
                "tags": ["items", "item:{id}"], "l1": l1 } },
            { "name": "both", "match": "GET /both",
                "compose": { "both": { "route": "item", "each": { "id": IDS } } } },
            { "name": "by-key", "match": "PUT /items/{id}", "purge": { "keys": ["items:{id}"] } },
            { "name": "by-tag", "match": "PATCH /items/{id}", "purge": { "tags": ["item:{id}"] } },
            { "name": "fills", "match": "POST /items/{id}", "fill": "item" },
            { "name": "purges-and-fills", "match": "COPY /items/{id}",
                "purge": { "tags": ["item:{id}"] }, "fill": "item" },
            { "name": "makes", "match": "LINK /made/{slug}",
                "fill": { "route": "item", "with": { "id": "{response:/id}" } } },
            { "name": "all", "match": "DELETE /items", "purge": { "tags": ["items"] } },
        ],
    }))
}

/// Versions of one item.
#[derive(Debug, Clone, Copy, Default)]
struct Floor {
    /// Purged under its key: holds for everybody's values.
    key: u64,
    /// Purged by a tag: holds for the origin's.
    tag: u64,
}

/// A write on its way: what it wrote and how it purges.
#[derive(Debug, Clone)]
struct Write {
    is_by_key: bool,
    written: BTreeMap<String, u64>,
}

/// A write whose purge Redis has confirmed.
struct Purged {
    at_ms: u64,
    /// Which isolate has purged.
    by: usize,
    write: Write,
}

/// What is true, kept outside the gateway.
#[derive(Default)]
struct Truth {
    versions: BTreeMap<String, u64>,
    purged: Vec<Purged>,
    /// By the `x-write` field of the request.
    writes: BTreeMap<String, Write>,
    /// The gateway's number of a request to its isolate and its `x-write`.
    numbers: BTreeMap<u64, (usize, String)>,
    served_old: u64,
    served_local: u64,
    served_filled: u64,
}

impl Truth {
    fn write(&mut self, token: &str, method: &str, target: &str) {
        let ids = IDS
            .iter()
            .filter(|id| method == "DELETE" || target.ends_with(**id));
        let mut written = BTreeMap::new();
        for id in ids {
            let version = self.versions.entry((*id).to_owned()).or_default();
            *version += 1;
            written.insert((*id).to_owned(), *version);
        }
        let is_by_key = !matches!(method, "PATCH" | "DELETE");
        self.writes
            .insert(token.to_owned(), Write { is_by_key, written });
    }

    /// Redis' word has come that this request's purge has run.
    fn confirm(&mut self, number: u64, at_ms: u64) {
        let Some((by, token)) = self.numbers.get(&number) else {
            return;
        };
        if let Some(write) = self.writes.get(token).cloned() {
            let by = *by;
            self.purged.push(Purged { at_ms, by, write });
        }
    }

    /// What had been purged for a request that began then, when purges elsewhere may be
    /// seen so late.
    fn floor(&self, id: &str, isolate: usize, begun_ms: u64, late_ms: u64) -> Floor {
        let mut floor = Floor::default();
        for purged in &self.purged {
            let late_ms = if purged.by == isolate { 0 } else { late_ms };
            let Some(version) = purged.write.written.get(id) else {
                continue;
            };
            if purged.at_ms + late_ms > begun_ms {
                continue;
            }
            let part = match purged.write.is_by_key {
                true => &mut floor.key,
                false => &mut floor.tag,
            };
            *part = (*part).max(*version);
        }
        floor
    }

    /// What is wrong with one body, given the floor when its request began.
    fn judge(&mut self, id: &str, body: &Value, floor: Floor) -> Option<String> {
        let version = body["v"].as_u64()?;
        let is_origins = body["by"] == "origin";
        let bound = if is_origins {
            floor.key.max(floor.tag)
        } else {
            floor.key
        };
        if version < self.versions[id] {
            self.served_old += 1;
        }
        self.served_filled += u64::from(body["is_filled"] == true);
        (version < bound).then(|| format!("{id}: {body} where {floor:?} had been purged"))
    }
}

/// How rough a world is, in percent.
#[derive(Debug, Clone, Copy)]
struct Weather {
    /// Trips that are slower than the timeout.
    slow: u64,
    /// Trips that fail, before or after their effect.
    broken: u64,
    /// Origin answers that are not 200.
    odd: u64,
    /// Events in which a key is lost.
    lost: u64,
    /// Events in which all are; then nothing else is lost, and answers say what is filled.
    flushed: u64,
}

fn passage(rng: &mut Rng, weather: Weather) -> Passage {
    let kinds = [
        RedisErrorKind::Transport,
        RedisErrorKind::Full,
        RedisErrorKind::Malformed,
    ];
    let leg = |rng: &mut Rng| match rng.chance(weather.slow) {
        true => rng.between(100_000, 1_500_000),
        false => rng.between(200, 20_000),
    };
    let (request_us, response_us) = (leg(rng), leg(rng));
    let fault = match rng.chance(weather.broken) {
        true if rng.chance(50) => Fault::Before(rng.pick(&kinds)),
        true => Fault::After(rng.pick(&kinds)),
        false => Fault::None,
    };
    Passage {
        gap_us: rng.between(0, 3_000),
        fault,
        ..Passage::new(request_us, response_us)
    }
}

fn is_purge(batch: &Batch) -> bool {
    let words = batch.commands.first().map(|command| command.words());
    batch.atomic && matches!(words, Some([_, Word::Text(key), ..]) if key.starts_with("gen:"))
}

/// What was wrong in a world, and how many purges, older answers and answers from L1 it
/// had.
#[derive(Default)]
struct Lived {
    wrong: Vec<String>,
    confirmed: u64,
    served_old: u64,
    served_local: u64,
    served_filled: u64,
}

fn live(seed: u64, weather: Weather, tier: Tier) -> Lived {
    let world = World::new(seed);
    let truth = Rc::new(RefCell::new(Truth::default()));
    for id in IDS {
        truth.borrow_mut().versions.insert(id.to_owned(), 0);
    }
    let mut rng = Rng::new(seed ^ 0xace);
    let mut network_rng = Rng::new(rng.next());
    world.network(move |_| passage(&mut network_rng, weather));
    let (known, mut origin_rng) = (truth.clone(), Rng::new(rng.next()));
    world.origin(move |asked| {
        let mut truth = known.borrow_mut();
        let after_ms = match origin_rng.chance(20) {
            true => origin_rng.between(300, 2_300),
            false => origin_rng.between(1, 100),
        };
        if let Some(token) = asked.headers.get("x-write") {
            truth.write(token, &asked.method, &asked.target);
            let id = &asked.target[asked.target.len() - 1..];
            let version = truth.versions.get(id).copied();
            let mut body =
                json!({ "id": id, "v": version, "by": "origin", "is_filled": true }).to_string();
            if tier == Tier::Validated {
                body.push_str(&" ".repeat(LONG));
            }
            let says = match origin_rng.chance(weather.odd) {
                true => Says::new(200, body).header("set-cookie", "a=1"),
                false => Says::new(origin_rng.pick(&[200, 201, 202]), body),
            };
            return Says {
                body_ms: origin_rng.between(0, 200),
                ..says.after(after_ms)
            };
        }
        let id = asked.target.rsplit('/').next().unwrap();
        let mut body = json!({ "v": truth.versions[id], "by": "origin" }).to_string();
        if tier == Tier::Validated {
            body.push_str(&" ".repeat(LONG));
        }
        let says = match origin_rng.chance(weather.odd) {
            false => Says::new(200, body),
            true => match origin_rng.between(0, 4) {
                0 | 1 => Says::new(404, body),
                2 => Says::new(500, body),
                3 => Says::new(200, body).header("cache-control", "no-store"),
                _ => Says::refused(),
            },
        };
        Says {
            body_ms: origin_rng.between(0, 200),
            ..says.after(after_ms)
        }
    });
    let (known, sim) = (truth.clone(), world.sim.clone());
    world.watch(move |number, batch, answer| {
        if is_purge(batch)
            && answer
                .as_ref()
                .is_ok_and(|replies| !replies.iter().any(Reply::is_error))
        {
            known.borrow_mut().confirm(number, sim.now_us() / 1000);
        }
    });
    let isolates: Vec<Isolate> = (0..ISOLATES).map(|_| world.isolate(items(tier))).collect();
    let wrong: Rc<RefCell<Vec<String>>> = Rc::default();
    let late_ms = match tier {
        Tier::Off => 0,
        Tier::Trusted => L1_MS,
        // What Redis does not answer for is trusted.
        Tier::Validated if weather.slow + weather.broken > 0 => L1_MS,
        Tier::Validated => 0,
    };
    let events = if tier == Tier::Off { 70 } else { 200 };
    for event in 0..events {
        let most_ms = if tier == Tier::Off { 120 } else { 60 };
        world.pass(rng.between(0, most_ms));
        let at = rng.between(0, ISOLATES as u64 - 1) as usize;
        let isolate = isolates[at].clone();
        let id = rng.pick(&IDS);
        // Entries that are purged all the time are never an isolate's own.
        let is_quiet = tier != Tier::Off && rng.chance(70);
        match rng.between(if is_quiet { 24 } else { 0 }, 99) {
            kind @ 0..=17 => {
                let token = event.to_string();
                let (method, target) = match kind {
                    0 | 1 => ("PUT", format!("/items/{id}")),
                    2 | 3 if weather.flushed > 0 => ("LINK", format!("/made/{id}")),
                    2 | 3 => ("POST", format!("/items/{id}")),
                    4 | 5 => ("COPY", format!("/items/{id}")),
                    6..=14 => ("PATCH", format!("/items/{id}")),
                    _ => ("DELETE", "/items".to_owned()),
                };
                let (number, _left) =
                    isolate.send(Ask::new(method, &target).header("x-write", &token));
                truth.borrow_mut().numbers.insert(number, (at, token));
            }
            18..=23 => {
                let version = truth.borrow().versions[id];
                let body = json!({ "v": version, "by": "backend" }).to_string();
                let ttl_ms = rng.between(200, 3_000);
                world
                    .redis
                    .set_px(world.sim.now_us(), &format!("items:{id}"), body, ttl_ms);
            }
            roll if roll < 24 + weather.lost => lose(&mut rng, &world, id),
            roll if roll < 24 + weather.flushed => world.redis.flush(world.sim.now_us()),
            _ => read(&mut rng, (isolate, at), id, late_ms, &truth, &wrong),
        }
    }
    world.settle();
    let mut immortal = world.immortal_keys();
    // A charge that ran and whose answer was lost may have made a key anew: the next one gives it its expiry.
    immortal.retain(|key| weather.broken == 0 || !key.starts_with("ratelimit:"));
    let mut wrong = wrong.take();
    if !immortal.is_empty() {
        wrong.push(format!("without expiry: {immortal:?}"));
    }
    let truth = truth.borrow();
    Lived {
        wrong,
        confirmed: truth.purged.len() as u64,
        served_old: truth.served_old,
        served_local: truth.served_local,
        served_filled: truth.served_filled,
    }
}

/// Loses a key, or all of them.
fn lose(rng: &mut Rng, world: &World, id: &str) {
    let now_us = world.sim.now_us();
    let locks = || {
        let keys = world.redis.ttls_ms(now_us).into_keys();
        keys.filter(|key| key.starts_with("fill:"))
    };
    match rng.between(0, 9) {
        0 => world.redis.flush(now_us),
        1 | 2 => locks().for_each(|lock| world.redis.evict(&lock)),
        3 => world.redis.evict("gen:items"),
        4 | 5 => world.redis.evict(&format!("gen:item:{id}")),
        6 | 7 => world.redis.evict(&format!("gen:key:items:{id}")),
        8 => world.redis.evict(&format!("items:{id}")),
        _ => world.redis.evict(&format!("meta:items:{id}")),
    }
}

fn read(
    rng: &mut Rng,
    (isolate, at): (Isolate, usize),
    id: &'static str,
    late_ms: u64,
    truth: &Rc<RefCell<Truth>>,
    wrong: &Rc<RefCell<Vec<String>>>,
) {
    let is_composed = rng.chance(20);
    let target = if is_composed {
        "/both".to_owned()
    } else {
        format!("/items/{id}")
    };
    let begun_ms = isolate.world.now_ms();
    // As it is now: what is purged from here on does not bind this request.
    let floors = |late_ms| IDS.map(|id| truth.borrow().floor(id, at, begun_ms, late_ms));
    let (exact, late) = (floors(0), floors(late_ms));
    let begun_us = isolate.world.sim.now_us();
    let (number, slot) = isolate.send(Ask::get(&target));
    if rng.chance(10) {
        return; // This visitor leaves.
    }
    let (truth, wrong) = (truth.clone(), wrong.clone());
    isolate.world.sim.spawn(async move {
        let served: Served = slot.wait().await;
        let Ok(body) = serde_json::from_slice::<Value>(&served.body) else {
            wrong.borrow_mut().push(format!("no JSON: {served:?}"));
            return;
        };
        let status = served.cache_status();
        if status.contains("detail=last-resort") {
            return; // Neither Redis nor the origin has answered.
        }
        let is_local = status.contains("detail=l1");
        truth.borrow_mut().served_local += u64::from(is_local);
        // Some parts of a page may be the isolate's own.
        let floors = if is_local || is_composed { late } else { exact };
        for (known, floor) in IDS.into_iter().zip(floors) {
            let item = match is_composed {
                true => &body["both"][known],
                false if known == id => &body,
                false => continue,
            };
            let id = known;
            let fault = truth.borrow_mut().judge(id, item, floor);
            if let Some(fault) = fault {
                let line = format!("request {number} from {begun_us}: {fault} ({status})");
                wrong.borrow_mut().push(line);
            }
        }
    });
}

fn live_through(seeds: u64, weather: Weather, tier: Tier) {
    let first = first_seed();
    let mut all = Lived::default();
    for seed in first..first + seeds {
        let lived = live(seed, weather, tier);
        let wrong = lived.wrong;
        assert!(
            wrong.is_empty(),
            "seed {seed}, {weather:?}, {tier:?}: {wrong:#?}"
        );
        all.confirmed += lived.confirmed;
        all.served_old += lived.served_old;
        all.served_local += lived.served_local;
        all.served_filled += lived.served_filled;
    }
    println!(
        "seeds {first}..{}, {tier:?}: {} purges, {} older answers, {} from L1, {} of writes",
        first + seeds,
        all.confirmed,
        all.served_old,
        all.served_local,
        all.served_filled
    );
    // A world without purges, or without anything old to serve, would show nothing.
    assert!(all.confirmed > seeds && all.served_old > seeds / 4);
    assert!(all.served_filled > 0);
    assert!((all.served_local > seeds * 2) == (tier != Tier::Off));
}

/// No trip fails or is late.
const CLEAR: Weather = Weather {
    slow: 0,
    broken: 0,
    odd: 5,
    lost: 5,
    flushed: 0,
};

/// What only the answer names may be filled too, and a flush brings nothing back.
#[test]
fn a_confirmed_purge_wins_over_entries_that_answers_name() {
    let weather = Weather {
        slow: 5,
        broken: 5,
        odd: 5,
        lost: 0,
        flushed: 10,
    };
    live_through(60, weather, Tier::Off);
    live_through(30, weather, Tier::Trusted);
}

/// With L1 a purge through the isolate itself holds at once, one elsewhere after `l1`.
#[test]
fn a_confirmed_purge_wins_over_trusted_entries_after_l1() {
    live_through(30, CLEAR, Tier::Trusted);
    let rough = Weather {
        slow: 10,
        broken: 15,
        odd: 15,
        lost: 15,
        flushed: 0,
    };
    live_through(30, rough, Tier::Trusted);
}

/// Validated entries are never older than a purge that was answered, wherever it was; when
/// trips fail what Redis did not answer for is trusted.
#[test]
fn a_confirmed_purge_wins_over_validated_entries_at_once() {
    live_through(20, CLEAR, Tier::Validated);
    let rough = Weather {
        slow: 5,
        broken: 15,
        odd: 5,
        lost: 15,
        flushed: 0,
    };
    live_through(20, rough, Tier::Validated);
}

/// After a confirmed purge nobody gets older data, while trips and origins are slow.
#[test]
fn a_confirmed_purge_wins_every_race_in_calm_weather() {
    live_through(
        60,
        Weather {
            slow: 2,
            broken: 0,
            odd: 5,
            lost: 5,
            flushed: 0,
        },
        Tier::Off,
    );
}

/// The same when trips fail before or after their effect, and purges are tried again.
#[test]
fn a_confirmed_purge_wins_every_race_when_trips_fail() {
    live_through(
        60,
        Weather {
            slow: 5,
            broken: 20,
            odd: 10,
            lost: 5,
            flushed: 0,
        },
        Tier::Off,
    );
}

/// The same when Redis loses generations, locks, entries and everything.
#[test]
fn a_confirmed_purge_wins_every_race_when_keys_are_lost() {
    live_through(
        60,
        Weather {
            slow: 15,
            broken: 5,
            odd: 25,
            lost: 25,
            flushed: 0,
        },
        Tier::Off,
    );
}
