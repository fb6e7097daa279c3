//! When requests arrive and whose they are. Everything follows from a seed; times are
//! microseconds after `START_US`, which is a boundary of every window here.

use crate::scenario::WINDOW_MS;
use crate::sim::Rng;

/// In 2026.
pub const START_US: u64 = 1_770_000_000_000_000;

const WINDOW_US: u64 = WINDOW_MS * 1000;
const SECOND_US: u64 = 1_000_000;

/// Of each trace but the replayed one; fewer for a large limit.
const WINDOWS: u64 = 15;
const LARGE_WINDOWS: u64 = 6;
/// Independent streams of a Poisson trace, which begin at any time of a window: under
/// pressure a limiter admits in waves, and one id would show where its waves end.
const STREAMS: usize = 4;
/// Of the replayed day.
const DAY_WINDOWS: u64 = 15;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Independent visitors: that many times the limit in a window.
    Poisson(f64),
    /// Eight seconds on at five times the limit's rate, sixteen off, on the average.
    Bursty,
    /// One and a half limits just before each boundary of the windows, and as many
    /// just after it.
    Edges,
    /// The same one and a half limits in half a second, again and again exactly one
    /// window later.
    Echo,
    /// A day of an access log in a quarter of an hour: readers who open pages, apps,
    /// scrapers and a cron job, each with an id of its own.
    Replayed,
}

impl Kind {
    pub fn name(self) -> String {
        match self {
            Self::Poisson(load) => format!("Poisson {load}"),
            Self::Bursty => "bursty".to_owned(),
            Self::Edges => "edges".to_owned(),
            Self::Echo => "echo".to_owned(),
            Self::Replayed => "replayed".to_owned(),
        }
    }

    /// Times and ids in order of time.
    pub fn draw(self, seed: u64, requests: u64) -> Vec<(u64, usize)> {
        let windows = match requests > 100 {
            true => LARGE_WINDOWS,
            false => WINDOWS,
        };
        let end_us = windows * WINDOW_US;
        // No two traces share their draws.
        let stream = match self {
            Self::Poisson(load) => (load * 10.0) as u64,
            Self::Bursty => 101,
            Self::Edges => 102,
            Self::Echo => 103,
            Self::Replayed => 104,
        };
        let mut rng = Rng::new(seed << 32 | stream << 16 | requests);
        let of_one = |times: Vec<u64>| times.into_iter().map(|at_us| (at_us, 0)).collect();
        let mut arrivals: Vec<(u64, usize)> = match self {
            Self::Poisson(load) => {
                let mean_us = WINDOW_US as f64 / (load * requests as f64);
                let mut stream = |id| {
                    let start_us = rng.between(0, WINDOW_US);
                    let times = poisson(&mut rng, start_us, end_us, mean_us);
                    times.into_iter().map(move |at_us| (at_us, id))
                };
                (0..STREAMS).flat_map(&mut stream).collect()
            }
            Self::Bursty => of_one(bursty(&mut rng, requests, windows)),
            Self::Edges => of_one(edges(&mut rng, requests, windows)),
            Self::Echo => of_one(echo(&mut rng, requests, windows)),
            Self::Replayed => replayed(&mut rng, requests),
        };
        arrivals.sort_unstable();
        arrivals
    }
}

fn poisson(rng: &mut Rng, from_us: u64, to_us: u64, mean_us: f64) -> Vec<u64> {
    let mut times = Vec::new();
    let mut at_us = from_us + rng.gap_us(mean_us);
    while at_us < to_us {
        times.push(at_us);
        at_us += rng.gap_us(mean_us);
    }
    times
}

fn bursty(rng: &mut Rng, requests: u64, windows: u64) -> Vec<u64> {
    let mean_us = WINDOW_US as f64 / (5 * requests) as f64;
    let mut times = Vec::new();
    let mut at_us = 0;
    while at_us < windows * WINDOW_US {
        let off_us = at_us + rng.gap_us((8 * SECOND_US) as f64);
        times.extend(poisson(rng, at_us, off_us, mean_us));
        at_us = off_us + rng.gap_us((16 * SECOND_US) as f64);
    }
    times
}

fn edges(rng: &mut Rng, requests: u64, windows: u64) -> Vec<u64> {
    let mut times = Vec::new();
    for boundary_us in (1..windows).map(|window| window * WINDOW_US) {
        for _ in 0..requests * 3 / 2 {
            times.push(boundary_us - rng.between(20_000, 400_000));
            times.push(boundary_us + rng.between(20_000, 400_000));
        }
    }
    times
}

fn echo(rng: &mut Rng, requests: u64, windows: u64) -> Vec<u64> {
    let start_us = 17 * SECOND_US;
    let burst: Vec<u64> = (0..requests * 3 / 2)
        .map(|_| start_us + rng.between(0, SECOND_US / 2))
        .collect();
    (0..windows)
        .flat_map(|window| burst.iter().map(move |at_us| at_us + window * WINDOW_US))
        .collect()
}

fn replayed(rng: &mut Rng, requests: u64) -> Vec<(u64, usize)> {
    let day_us = DAY_WINDOWS * WINDOW_US;
    let mean_us = WINDOW_US as f64 / requests as f64;
    let mut arrivals = Vec::new();
    let mut ids = 0..;
    let mut add = |times: Vec<u64>| {
        let id = ids.next().unwrap();
        arrivals.extend(times.into_iter().map(|at_us| (at_us, id)));
    };
    for _ in 0..12 {
        add(by_day(rng, day_us, reader));
    }
    for _ in 0..3 {
        // An app that serves many people: at noon up to twice the limit.
        let busiest = rng.between(8, 20) as f64 / 10.0;
        add(by_day(rng, day_us, |rng| {
            poisson(rng, 0, day_us, mean_us / busiest)
        }));
    }
    for _ in 0..2 {
        add(scraper(rng, day_us));
    }
    // A cron job: the limit and a fifth more within two seconds of each minute.
    let runs = (0..DAY_WINDOWS).flat_map(|window| {
        (0..requests * 6 / 5).map(move |number| window * WINDOW_US + number * 16_000)
    });
    add(runs.collect());
    arrivals
}

/// Keeps what `draw` made of a whole day as the hour has it: least at midnight.
fn by_day(rng: &mut Rng, day_us: u64, draw: impl Fn(&mut Rng) -> Vec<u64>) -> Vec<u64> {
    let times = draw(rng);
    let is_kept = |at_us: &u64| {
        let turn = *at_us as f64 / day_us as f64 * std::f64::consts::TAU;
        rng.chance((60.0 - 40.0 * turn.cos()) as u64)
    };
    times.into_iter().filter(is_kept).collect()
}

/// Sessions of pages; each page calls a handful of endpoints at once.
fn reader(rng: &mut Rng) -> Vec<u64> {
    let mut times = Vec::new();
    let mut at_us = rng.gap_us((120 * SECOND_US) as f64);
    while at_us < DAY_WINDOWS * WINDOW_US {
        for _ in 0..rng.between(4, 20) {
            let calls = rng.between(3, 15);
            times.extend((0..calls).map(|_| at_us + rng.between(0, 300_000)));
            at_us += rng.between(SECOND_US, 12 * SECOND_US);
        }
        at_us += rng.gap_us((120 * SECOND_US) as f64);
    }
    times
}

/// Four a second for minutes, then nothing for minutes.
fn scraper(rng: &mut Rng, day_us: u64) -> Vec<u64> {
    let mut times = Vec::new();
    let mut at_us = rng.between(0, 60 * SECOND_US);
    while at_us < day_us {
        let until_us = at_us + rng.between(60 * SECOND_US, 240 * SECOND_US);
        times.extend((at_us..until_us.min(day_us)).step_by(250_000));
        at_us = until_us + rng.between(60 * SECOND_US, 240 * SECOND_US);
    }
    times
}
