//! The hit rate of plan 2's traffic on the policy built in, with its writes and the cron:
//! at least 95 %, which is the plan's target.
//!
//! The plan says "100 concurrent users", about 100 searches in the cache, and what a write
//! clears; the rest of the mix is this simulation's: a request each five seconds and user, of
//! which 30 in 100 are the home page in one call, 25 parts of it asked for one by one (as the
//! plan's page does today), 20 lists of all books, 15 searches (terms by Zipf's law) and 10
//! pages of a child category. Writes purge what the policy says.

use std::cell::RefCell;
use std::rc::Rc;

use edgeweir::jobs::PERIOD_MS;
use edgeweir::policy::{BUILT_IN, Overrides, Policy};
use serde_json::json;

use super::sim::{Rng, first_seed};
use super::world::{Ask, Isolate, Says, World};

const HOUR_MS: u64 = 3_600_000;
const PARENTS: [&str; 11] = [
    "education",
    "business",
    "technology",
    "health",
    "lifestyle",
    "literature",
    "children",
    "science",
    "history",
    "arts",
    "spirituality",
];
const HOURS: u64 = 1;
const WRITES: u64 = 12;
const USERS: u64 = 100;
const PER_SECOND: u64 = 20;
const TERMS: usize = 100;
const CHILDREN: usize = 33;

/// Draws 0.. by Zipf's law with exponent 1.
struct Zipf(Vec<u64>);

impl Zipf {
    fn new(count: usize) -> Self {
        let mut sum = 0;
        let sums = (1..=count as u64).map(|rank| {
            sum += 1_000_000_000 / rank;
            sum
        });
        Self(sums.collect())
    }

    fn draw(&self, rng: &mut Rng) -> usize {
        let drawn = rng.between(0, self.0[self.0.len() - 1] - 1);
        self.0.partition_point(|sum| *sum <= drawn)
    }
}

struct Visitors {
    rng: Rng,
    terms: Zipf,
    children: Zipf,
}

impl Visitors {
    fn next(&mut self) -> String {
        let rng = &mut self.rng;
        match rng.between(1, 100) {
            1..=30 => "/api/v1/community/home".to_owned(),
            31..=55 => match rng.between(0, 14) {
                0 => "/api/v1/book-categories/".to_owned(),
                1 => "/api/v1/community/books/trending-today".to_owned(),
                2 => "/api/v1/community/authors/featured".to_owned(),
                3 => "/api/v1/community/tags/popular".to_owned(),
                n => format!("/api/v1/book-categories/parent/{}", PARENTS[n as usize - 4]),
            },
            56..=75 => {
                let list = rng.pick(&["latest", "latest", "top", "featured-week"]);
                format!("/api/v1/community/books/{list}")
            }
            76..=90 => format!(
                "/api/v1/community/books/search?q=term{}",
                self.terms.draw(rng)
            ),
            _ => {
                // Most stay on the first page.
                let page = 1 + rng.between(0, 9) / 8;
                let child = self.children.draw(rng);
                format!("/api/v1/book-categories/child/child-{child}?page={page}")
            }
        }
    }

    fn ask(&mut self) -> Ask {
        let target = self.next();
        let user = self.rng.between(1, USERS);
        Ask::get(&target).header("cf-connecting-ip", &format!("10.1.0.{user}"))
    }
}

#[derive(Default)]
struct Count {
    requests: usize,
    hits: usize,
}

/// One write of the plan's kinds: new chapters mostly, then changed books, then new ones.
fn write(isolate: &Isolate, rng: &mut Rng) {
    let (method, target) = match rng.between(1, 10) {
        1..=6 => ("POST", "/api/v1/community/books/7/chapters"),
        7..=9 => ("PATCH", "/api/v1/community/books/7"),
        _ => ("POST", "/api/v1/community/books"),
    };
    let ask = Ask::new(method, target).header("cf-connecting-ip", "10.2.0.1");
    assert_eq!(isolate.ask(ask).status, 200);
}

fn origin(world: &World, seed: u64) {
    let mut rng = Rng::new(seed ^ 0x0419);
    world.origin(move |asked| {
        let parent = rng.pick(&PARENTS);
        let body = match asked.method.as_str() {
            "GET" => json!({ "books": [] }),
            _ => json!({ "book_id": "7", "parent_category": parent, "previous_parent_category": parent }),
        };
        // The plan's pages take 0.3 to 2 s.
        Says::json(&body).after(rng.between(300, 2_000))
    });
}

/// With so many writes an hour: the hit rate in percent, and what was asked of
/// the origin for each request.
fn live(seed: u64, writes: u64) -> (f64, f64) {
    let world = World::new(seed);
    origin(&world, seed);
    let policy = || Policy::from_json(BUILT_IN, &Overrides::default()).unwrap();
    let isolates: Vec<Isolate> = (0..3).map(|_| world.isolate(policy())).collect();
    let mut rng = Rng::new(seed);
    let mut visitors = Visitors {
        rng: Rng::new(seed ^ 0x7e57),
        terms: Zipf::new(TERMS),
        children: Zipf::new(CHILDREN),
    };
    let begun_ms = world.now_ms();
    let count: Rc<RefCell<Count>> = Rc::default();
    let (mut cron_ms, mut write_ms) = (begun_ms, begun_ms);
    while world.now_ms() < begun_ms + HOURS * HOUR_MS {
        if world.now_ms() >= cron_ms {
            rng.pick(&isolates).cron();
            cron_ms += PERIOD_MS;
            // Nobody looks at these here, and they are many.
            world.redis.ran.borrow_mut().clear();
        }
        if world.now_ms() >= write_ms {
            write(&rng.pick(&isolates), &mut rng);
            write_ms += rng.between(1, 2 * HOUR_MS / writes);
        }
        let (_, slot) = rng.pick(&isolates).send(visitors.ask());
        let count = count.clone();
        world.sim.spawn(async move {
            let served = slot.wait().await;
            assert_eq!(served.status, 200);
            let mut count = count.borrow_mut();
            count.requests += 1;
            count.hits += usize::from(served.cache_status().starts_with("edgeweir; hit"));
        });
        world.pass(rng.between(1, 2_000 / PER_SECOND));
    }
    world.settle();
    let count = count.borrow();
    let fetched = world
        .asked
        .borrow()
        .iter()
        .filter(|asked| !asked.is_forwarded)
        .count();
    let requests = count.requests as f64;
    (
        100.0 * count.hits as f64 / requests,
        fetched as f64 / requests,
    )
}

/// `EDGEWEIR_WRITES` is for another number of writes an hour, of which only the figure is
/// told: at 60 each search lives for a minute.
#[test]
fn at_least_95_of_100_requests_of_the_plans_mix_are_hits() {
    let seed = first_seed();
    let writes = std::env::var("EDGEWEIR_WRITES").ok();
    let given = writes.map(|writes| writes.parse().expect("EDGEWEIR_WRITES is a number"));
    let writes = given.unwrap_or(WRITES);
    let (hits, fetches) = live(seed, writes);
    println!(
        "seed {seed}: {HOURS} h of {PER_SECOND} requests a second and {writes} writes an hour: \
         {hits:.2} % hits, {fetches:.4} origin requests each"
    );
    assert!(hits >= 95.0 || given.is_some(), "seed {seed}: {hits:.2} %");
}
