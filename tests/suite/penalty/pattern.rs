//! Abnormal patterns: answers that are nearly all 401, 403 or 404, and refusals on many
//! routes; and what only looks like them.

use super::*;

struct Scene {
    sim: Rc<Sim>,
    redis: Rc<FakeRedis>,
    isolates: Vec<Isolate>,
}

impl Scene {
    fn new(isolates: u64) -> Self {
        let sim = Sim::new(START_MS);
        let redis = Rc::new(FakeRedis::default());
        Self {
            isolates: Isolate::many(&sim, &redis, 1, isolates),
            sim,
            redis,
        }
    }

    fn strikes(&self) -> u64 {
        record(&self.redis).map_or(0, |(strikes, _)| strikes)
    }

    /// Answers with these statuses in turn, each from the next isolate.
    fn answers(&self, count: usize, statuses: &[u16]) {
        let quota = Quota::new(&limit(10_000, 60_000, 5));
        for at in 0..count {
            let isolate = &self.isolates[at % self.isolates.len()];
            isolate.ask(&quota, "route", statuses[at % statuses.len()]);
            pass(&self.sim, 200);
        }
        pass(&self.sim, 10_000);
    }
}

#[test]
fn guessing_paths_and_passwords_strikes() {
    for (isolates, statuses) in [
        (1, &[404][..]),
        (1, &[401, 401, 401, 401, 200]),
        (3, &[403, 404, 404, 401, 404, 404, 200]),
    ] {
        let scene = Scene::new(isolates);
        scene.answers(60, statuses);
        assert_eq!(scene.strikes(), 1, "{isolates} isolates, {statuses:?}");
    }
}

#[test]
fn some_bad_answers_are_normal() {
    let cases: [(usize, &[u16]); 4] = [
        // Too few to say anything.
        (19, &[404]),
        // Seven in ten.
        (100, &[404, 404, 404, 404, 404, 404, 404, 200, 200, 200]),
        // Other errors are the origin's own.
        (100, &[500, 502, 400, 405, 410, 429]),
        (100, &[200, 304]),
    ];
    for (count, statuses) in cases {
        let scene = Scene::new(1);
        scene.answers(count, statuses);
        assert_eq!(scene.strikes(), 0, "{statuses:?}");
    }
}

/// All bad in one isolate, but most of its requests go well in another.
#[test]
fn good_answers_elsewhere_count_too() {
    let scene = Scene::new(4);
    scene.answers(100, &[404, 200, 200, 200]);
    assert_eq!(scene.strikes(), 0);
}

/// Twenty bad answers that a window's end parts are ten and ten.
#[test]
fn answers_count_within_one_window() {
    let scene = Scene::new(1);
    // START_MS is 20 s into a minute.
    scene.answers(15, &[404]);
    pass(&scene.sim, 30_000);
    scene.answers(15, &[404]);
    assert_eq!(scene.strikes(), 0);
}

/// Whoever hurries from one refusing route to the next, and tried one of them again.
#[test]
fn many_refusing_routes_strike() {
    let walk = |routes: u64, repeats: bool| {
        let scene = Scene::new(1);
        // Each route's own, with more offences allowed than are made.
        let quota = Quota::new(&limit(1, 60_000, 50));
        let isolate = &scene.isolates[0];
        isolate.ask(&quota, "route0", 200);
        for route in 0..routes {
            isolate.ask(&quota, &format!("route{route}"), 200);
            pass(&scene.sim, 1_100);
        }
        if repeats {
            isolate.ask(&quota, "route0", 200);
        }
        pass(&scene.sim, 10_000);
        scene.strikes()
    };
    assert_eq!(walk(9, true), 1);
    assert_eq!(walk(4, true), 0);
    // Each route's Retry-After was honoured.
    assert_eq!(walk(9, false), 0);
}

/// A page asks ten routes at once, and is loaded twice too early.
#[test]
fn a_page_of_many_routes_is_no_pattern() {
    let scene = Scene::new(1);
    let quota = Quota::new(&limit(1, 60_000, 50));
    let isolate = &scene.isolates[0];
    for _ in 0..2 {
        for route in 0..10 {
            isolate.ask(&quota, &format!("route{route}"), 200);
        }
        pass(&scene.sim, 300);
    }
    pass(&scene.sim, 10_000);
    assert_eq!(scene.strikes(), 0);
}

#[test]
fn a_limit_without_a_penalty_counts_nothing() {
    let scene = Scene::new(1);
    let mut plain = limit(1, 60_000, 1);
    plain.penalty = None;
    let quota = Quota::new(&plain);
    for _ in 0..50 {
        scene.isolates[0].ask(&quota, "route", 404);
        pass(&scene.sim, 500);
    }
    assert_eq!(scene.redis.get(KEY), None);
    assert_eq!(scene.isolates[0].looks.get(), 0);
}
