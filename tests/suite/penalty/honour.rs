//! Clients that honour what they are told are never struck: any number of threads and
//! isolates, slow networks, lost and repeated batches.

use super::*;
use crate::sim::{Fault, first_seed};
use edgeweir::redis::RedisErrorKind;

/// What the threads of one client share.
struct Client {
    sim: Rc<Sim>,
    isolates: Vec<Isolate>,
    seed: u64,
    /// One for each route, or one for all.
    quotas: Vec<Rc<Quota>>,
    routes: u64,
    /// Threads that wait for their time.
    waiting: Cell<u32>,
    /// When the last of them comes again.
    quiet_until_us: Cell<u64>,
    ends_us: u64,
    requests: Cell<u64>,
    refused: Cell<u64>,
    rng: RefCell<Rng>,
}

impl Client {
    fn draw(&self, low: u64, high: u64) -> u64 {
        self.rng.borrow_mut().between(low, high)
    }

    async fn rest(&self, duration_ms: u64) {
        self.sim
            .sleep_until(self.sim.now_us() + duration_ms * 1000)
            .await;
    }

    /// One thread: it begins nothing new while another one waits, and comes again no
    /// sooner than it was told, but maybe later and somewhere else.
    async fn thread(self: Rc<Self>) {
        let far_ms = self.draw(0, 120);
        let pace_ms = self.draw(1, 2_000);
        while self.sim.now_us() < self.ends_us {
            self.rest(self.draw(0, pace_ms)).await;
            while self.waiting.get() > 0 {
                let until_us = self.quiet_until_us.get() + self.draw(1, 600_000);
                self.rest(until_us.saturating_sub(self.sim.now_us()) / 1000 + 1)
                    .await;
            }
            let mut is_waiting = false;
            let number = self.draw(1, self.routes) as usize;
            let quota = &self.quotas[number % self.quotas.len()];
            let route = format!("route{number}");
            loop {
                self.rest(far_ms).await;
                let isolate = self.rng.borrow_mut().pick(&self.isolates);
                let got = isolate.request(quota, IP, &route, 200).await;
                self.rest(far_ms).await;
                self.requests.set(self.requests.get() + 1);
                if is_waiting {
                    self.waiting.set(self.waiting.get() - 1);
                }
                match got {
                    Got::Served => break,
                    Got::Banned(_) => {
                        panic!("seed {}: who honours Retry-After is banned", self.seed)
                    }
                    Got::Refused(seconds) => {
                        self.refused.set(self.refused.get() + 1);
                        self.waiting.set(self.waiting.get() + 1);
                        is_waiting = true;
                        let late_ms = match self.draw(0, 2) {
                            0 => 0,
                            _ => self.draw(0, 4_000),
                        };
                        let until_us = self.sim.now_us() + (seconds * 1000 + late_ms) * 1000;
                        let last_us = self.quiet_until_us.get().max(until_us);
                        self.quiet_until_us.set(last_us);
                        self.sim.sleep_until(until_us).await;
                    }
                }
            }
        }
    }
}

/// One schedule; what it was is in the panic's text. Answers requests and refusals.
fn schedule(seed: u64, is_faulty: bool) -> (u64, u64) {
    let mut rng = Rng::new(seed);
    let sim = Sim::new(START_MS + rng.between(0, 60_000));
    let redis = Rc::new(FakeRedis::default());
    let window_ms = rng.between(2_000, 10_000);
    let after = if is_faulty { rng.between(1, 2) } else { 1 };
    let per_all = rng.chance(50);
    let limit = Limit {
        per: if per_all {
            edgeweir::policy::Per::All
        } else {
            edgeweir::policy::Per::Route
        },
        ..limit(rng.between(1, 4) as u32, window_ms, after as u32)
    };
    let isolates = (0..rng.between(1, 4))
        .map(|index| {
            let mut net = Rng::new(seed ^ (index + 1) << 40);
            let slow_us = net.between(500, 40_000);
            let mut isolate = Isolate::with(&sim, &redis, net.next(), move |_| {
                let fault = match net.between(0, 19) {
                    0 if is_faulty => Fault::Before(RedisErrorKind::Transport),
                    1 if is_faulty => Fault::After(RedisErrorKind::Transport),
                    _ => Fault::None,
                };
                Passage {
                    fault,
                    ..Passage::new(net.between(500, slow_us), net.between(500, slow_us))
                }
            });
            isolate.is_near = !is_faulty;
            isolate.repeated.set(if is_faulty { 20 } else { 0 });
            isolate
        })
        .collect();
    let client = Rc::new(Client {
        ends_us: sim.now_us() + rng.between(6, 16) * 1_000_000,
        sim: sim.clone(),
        isolates,
        seed,
        quotas: (0..if per_all { 1 } else { 9 })
            .map(|_| Quota::new(&limit))
            .collect(),
        routes: rng.between(1, 8),
        waiting: Cell::new(0),
        quiet_until_us: Cell::new(0),
        requests: Cell::new(0),
        refused: Cell::new(0),
        rng: RefCell::new(Rng::new(rng.next())),
    });
    for _ in 0..rng.between(2, 8) {
        sim.spawn(client.clone().thread());
    }
    sim.run();
    assert_eq!(record(&redis), None, "seed {seed}: struck");
    (client.requests.get(), client.refused.get())
}

fn schedules(count: u64, is_faulty: bool) {
    let first = first_seed();
    println!("seeds {first} to {}", first + count - 1);
    let (mut requests, mut refused) = (0, 0);
    for seed in first..first + count {
        let (more, of) = schedule(seed, is_faulty);
        requests += more;
        refused += of;
    }
    println!("{requests} requests, {refused} refused");
    // They are refused often, or nothing was shown.
    assert!(refused > 5 * count);
}

/// With a penalty after the very first offence.
#[test]
fn honouring_clients_are_never_struck() {
    schedules(10_000, false);
}

/// A tenth of the batches lost before or after they ran, a fifth run again later.
#[test]
fn honouring_clients_are_never_struck_by_a_bad_network() {
    schedules(2_000, true);
}

/// A page that sends its requests at once and again when it was told to, for an hour.
#[test]
fn bursts_that_were_under_way_do_not_count() {
    let sim = Sim::new(START_MS);
    let redis = Rc::new(FakeRedis::default());
    let isolate = Isolate::new(&sim, &redis, 1);
    let quota = Quota::new(&limit(10, 60_000, 1));
    for _ in 0..60 {
        let mut wait_s = 0;
        for request in 0..100 {
            let route = format!("route{}", request % 10);
            if let Got::Refused(seconds) = isolate.ask(&quota, &route, 200) {
                wait_s = wait_s.max(seconds);
            }
        }
        assert!(wait_s > 0);
        pass(&sim, wait_s * 1000);
    }
    assert_eq!(record(&redis), None);
}

/// Who was told by one isolate comes to another one in time, but the first one's reports
/// are lost three times: they must arrive before anything strikes.
#[test]
fn a_strike_waits_for_late_reports() {
    let sim = Sim::new(START_MS);
    let redis = Rc::new(FakeRedis::default());
    let mut lost = 4;
    let first = Isolate::with(&sim, &redis, 1, move |_| {
        lost -= i32::from(lost > 0);
        Passage {
            fault: match lost {
                0 => Fault::None,
                _ => Fault::Before(RedisErrorKind::Transport),
            },
            ..Passage::new(1_000, 1_000)
        }
    });
    let second = Isolate::new(&sim, &redis, 2);
    let limit = limit(1, 60_000, 1);
    first.refuse(&limit, 2_000);
    pass(&sim, 500);
    second.refuse(&limit, 2_000);
    // What the first told is due, what the second told is not.
    pass(&sim, 1_600);
    second.refuse(&limit, 20_000);
    pass(&sim, 15_000);
    assert_eq!(record(&redis), None);
    // Nobody is left who may come that early.
    second.refuse(&limit, 20_000);
    second.refuse(&limit, 20_000);
    pass(&sim, 15_000);
    assert_eq!(record(&redis).unwrap().0, 1);
}

/// What was told in the last moment of a window is reported in the next one.
#[test]
fn rights_outlive_their_window() {
    let sim = Sim::new(START_MS);
    let redis = Rc::new(FakeRedis::default());
    let isolates = Isolate::many(&sim, &redis, 1, 2);
    let limit = limit(1, 60_000, 1);
    // START_MS is 40 s before a window's end.
    pass(&sim, 39_500);
    for _ in 0..3 {
        isolates[0].refuse(&limit, 10_000);
        pass(&sim, 100);
    }
    pass(&sim, 8_000);
    isolates[1].refuse(&limit, 10_000);
    // All three come to the other isolate when their time has come.
    pass(&sim, 3_000);
    for _ in 0..3 {
        isolates[1].refuse(&limit, 10_000);
        pass(&sim, 100);
    }
    pass(&sim, 6_000);
    assert_eq!(record(&redis), None);
}
