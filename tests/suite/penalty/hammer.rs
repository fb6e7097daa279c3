//! Clients that go on: struck everywhere within seconds, for longer each time, and let go
//! by time or by the operator.

use super::*;
use crate::sim::first_seed;
use edgeweir::penalty::{RECHECK_MS, reset};

struct Scene {
    sim: Rc<Sim>,
    redis: Rc<FakeRedis>,
    isolates: Vec<Isolate>,
    quota: Rc<Quota>,
    asked: usize,
}

impl Scene {
    fn new(seed: u64, isolates: u64, limit: &Limit) -> Self {
        let sim = Sim::new(START_MS);
        let redis = Rc::new(FakeRedis::default());
        Self {
            isolates: Isolate::many(&sim, &redis, seed, isolates),
            quota: Quota::new(limit),
            asked: 0,
            sim,
            redis,
        }
    }

    fn now_ms(&self) -> u64 {
        self.sim.now_us() / 1000
    }

    /// A request every `gap_ms` to one isolate after another until `done`, at most for
    /// `most_ms`; how long that took.
    fn hammer(&mut self, gap_ms: u64, most_ms: u64, done: impl Fn(&Self) -> bool) -> Option<u64> {
        let from_ms = self.now_ms();
        while self.now_ms() < from_ms + most_ms {
            if done(self) {
                return Some(self.now_ms() - from_ms);
            }
            let isolate = self.isolates[self.asked % self.isolates.len()].clone();
            self.asked += 1;
            let quota = self.quota.clone();
            self.sim.spawn(async move {
                isolate.request(&quota, IP, "route", 200).await;
            });
            pass(&self.sim, gap_ms);
        }
        None
    }

    fn all_banned(&self) -> bool {
        self.isolates.iter().all(|isolate| isolate.ban().is_some())
    }

    fn none_banned(&self) -> bool {
        self.isolates.iter().all(|isolate| isolate.ban().is_none())
    }
}

#[test]
fn a_hammering_client_is_banned_in_all_isolates_within_seconds() {
    for seed in first_seed()..first_seed() + 50 {
        // Any pace: from two a second to a hundred.
        for (gap_ms, most_ms) in [(10, 10_000), (100, 10_000), (500, 16_000)] {
            let mut scene = Scene::new(seed, 4, &limit(10, 60_000, 5));
            let full = |scene: &Scene| scene.asked == 10;
            scene.hammer(gap_ms, 60_000, full).unwrap();
            let took_ms = scene.hammer(gap_ms, most_ms, Scene::all_banned);
            assert!(took_ms.is_some(), "seed {seed}, every {gap_ms} ms");
            // One strike, whoever made it.
            assert_eq!(record(&scene.redis).unwrap().0, 1, "seed {seed}");
            for isolate in &scene.isolates {
                let ban = isolate.ban().unwrap();
                assert_eq!(ban.strikes, 1);
                assert!(ban.left_ms <= 66_000);
            }
        }
    }
}

/// A window that is over before reports have settled is no way out.
#[test]
fn short_windows_strike_too() {
    // Who is told to wait for a second must ask often to be more than some who wait.
    for (window_ms, gap_ms) in [(1_000, 4), (2_500, 20), (5_000, 20), (10_000, 50)] {
        let mut scene = Scene::new(1, 3, &limit(5, window_ms, 5));
        let took_ms = scene.hammer(gap_ms, 25_000, Scene::all_banned);
        assert!(took_ms.is_some(), "{window_ms}");
    }
}

#[test]
fn fewer_offences_than_asked_for_are_no_strike() {
    let mut scene = Scene::new(1, 1, &limit(1, 60_000, 6));
    // One is admitted, one is told to wait; five come too early.
    scene.hammer(2_000, 14_000, |_| false);
    pass(&scene.sim, 120_000);
    assert_eq!(record(&scene.redis), None);
    // The sixth, in a window of its own.
    scene.quota.admitted.borrow_mut().clear();
    scene.hammer(2_000, 16_000, |_| false);
    pass(&scene.sim, 10_000);
    assert_eq!(record(&scene.redis).unwrap().0, 1);
}

/// For hours: each ban is twice the last one, and the last ones are the cap.
#[test]
fn bans_double_while_it_goes_on() {
    let mut scene = Scene::new(first_seed(), 3, &limit(5, 60_000, 5));
    let mut bans = Vec::new();
    for _ in 0..9 {
        scene.hammer(200, 120_000, Scene::all_banned).unwrap();
        let (strikes, until_ms) = record(&scene.redis).unwrap();
        let left_ms = until_ms - scene.now_ms();
        bans.push((strikes, left_ms as f64 / 60_000.0));
        // It goes on all through the ban, and never reaches the quota.
        let quota_before = scene.quota.admitted.borrow().len();
        scene.hammer(10_000, left_ms - 1_000, |_| false);
        assert!(scene.quota.admitted.borrow().len() <= quota_before);
        let took_ms = scene.hammer(100, 8_000, Scene::none_banned).unwrap();
        assert!(took_ms < 7_000, "{took_ms}");
    }
    for (at, (strikes, minutes)) in bans.iter().enumerate() {
        let plain = (1 << at).min(60) as f64;
        assert_eq!(*strikes, (at as u64 + 1).min(7));
        assert!(
            *minutes <= (plain * 1.1).min(60.0) && *minutes > plain * 0.9 - 0.2,
            "{bans:?}"
        );
    }
    // A good while without a request: all is forgotten, in Redis too.
    pass(&scene.sim, 9 * 3_600_000);
    assert!(scene.redis.ttls_ms(scene.sim.now_us()).is_empty());
    scene.hammer(200, 60_000, Scene::all_banned).unwrap();
    assert_eq!(record(&scene.redis).unwrap().0, 1);
}

/// Clean time takes strikes off; an offence in between begins it anew.
#[test]
fn strikes_decay_over_clean_time() {
    let mut scene = Scene::new(3, 2, &limit(5, 10_000, 3));
    for strikes in 1..=3 {
        scene.hammer(200, 60_000, Scene::all_banned).unwrap();
        let (now, until_ms) = record(&scene.redis).unwrap();
        assert_eq!(now, strikes);
        let left_ms = until_ms - scene.now_ms();
        pass(&scene.sim, left_ms + 1_000);
    }
    // 240 s at most a clean window, 216 s at least: one strike goes.
    pass(&scene.sim, 280_000);
    // Two offences, too few to strike, keep it at two.
    let quota = scene.quota.clone();
    scene.isolates.truncate(1);
    for _ in 0..10 {
        scene.isolates[0].ask(&quota, "route", 200);
        pass(&scene.sim, 400);
    }
    pass(&scene.sim, 3_000);
    assert_eq!(record(&scene.redis).unwrap().0, 2);
    // Not yet another clean window since.
    pass(&scene.sim, 180_000);
    scene.hammer(200, 60_000, Scene::all_banned).unwrap();
    assert_eq!(record(&scene.redis).unwrap().0, 3);
}

/// No trip while it lasts, but a look every five seconds, which an operator can rely on.
#[test]
fn a_ban_costs_no_trips_and_a_reset_ends_it_everywhere() {
    let mut scene = Scene::new(4, 4, &limit(5, 60_000, 5));
    scene.hammer(20, 30_000, Scene::all_banned).unwrap();
    pass(&scene.sim, 4_000);
    let trips = scene.redis.trips.get();
    let (asked, from_ms) = (scene.asked, scene.now_ms());
    scene.hammer(5, 20_000, |_| false);
    let passed_ms = scene.now_ms() - from_ms;
    let looks = scene.redis.trips.get() - trips;
    assert!(scene.asked - asked >= 4_000);
    assert!(looks <= 4 * (passed_ms / RECHECK_MS + 1), "{looks} looks");
    assert!(looks >= 4 * 3);
    scene.redis.run(scene.sim.now_us(), 0, &reset(IP));
    let free = |scene: &Scene| scene.none_banned();
    let took_ms = scene.hammer(50, 20_000, free).unwrap();
    assert!(took_ms <= RECHECK_MS + 500, "{took_ms}");
    // The isolate that resets need not find out.
    scene.hammer(20, 30_000, Scene::all_banned).unwrap();
    scene.isolates[0].penalties.borrow_mut().forget(IP);
    assert_eq!(scene.isolates[0].ban(), None);
}

/// An isolate that starts in the middle of a ban knows it by its first trip.
#[test]
fn a_new_isolate_learns_a_ban_from_its_first_check() {
    let mut scene = Scene::new(5, 2, &limit(5, 60_000, 5));
    scene.hammer(20, 30_000, Scene::all_banned).unwrap();
    let new = Isolate::new(&scene.sim, &scene.redis, 99);
    assert!(matches!(
        new.ask(&scene.quota, "route", 200),
        Got::Banned(_)
    ));
    assert!(matches!(
        new.ask(&scene.quota, "route", 200),
        Got::Banned(_)
    ));
}

/// In one long window: what led to a strike leads to no other.
#[test]
fn what_has_struck_counts_no_more() {
    let mut scene = Scene::new(6, 3, &limit(5, 3_600_000, 5));
    scene.hammer(100, 30_000, Scene::all_banned).unwrap();
    let (_, until_ms) = record(&scene.redis).unwrap();
    pass(&scene.sim, until_ms - scene.now_ms() + 1_000);
    // The reports of the others are still there. He is told anew, and comes too early four times.
    scene.isolates = Isolate::many(&scene.sim, &scene.redis, 60, 1);
    scene.hammer(10, 10, |_| false);
    pass(&scene.sim, 2_000);
    scene.hammer(500, 2_000, |_| false);
    pass(&scene.sim, 20_000);
    assert_eq!(record(&scene.redis).unwrap().0, 1);
    scene.hammer(500, 500, |_| false);
    pass(&scene.sim, 20_000);
    assert_eq!(record(&scene.redis).unwrap().0, 2);
}
