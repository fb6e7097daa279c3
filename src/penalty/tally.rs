//! What one isolate counts of one address, what it tells the others of it, and what all
//! reports together say.

use super::Moment;
use super::record::join;
use crate::policy::{Limit, Penalty};

/// A wait of a client that honours `Retry-After` may end a little early by its own timer.
const TOLERANCE_MS: u64 = 100;
/// Requests that were under way when their first refusal was told do not offend: a slow
/// network's round trip. Half the wait if that is shorter.
const GRACE_MS: u64 = 1_000;
/// Requests of one address that are told to wait at a time and known apart; a browser
/// has six connections a host, or some twenty streams of one.
const MAX_TOLD: usize = 24;

/// Who is told at the end of a window to wait for one may come as late as one after that.
pub const RIGHT_WINDOWS: u64 = 3;

/// Fewer answers say nothing about a client.
const MIN_ANSWERS: u64 = 20;
/// A visitor with a stale page or bookmark has some 401, 403 and 404; who guesses paths
/// or passwords has little else.
const BAD_PERCENT: u64 = 80;
/// So few of one isolate are not worth a command; twenty answers over four isolates are
/// still found.
const BAD_REPORTED: u64 = 4;
/// Who hurries on to a fifth route when four have said stop is not reading, he is harvesting.
const MANY_ROUTES: u32 = 5;

/// In a shorter window reports would have no time to settle, so offences are counted in this one.
const MIN_WINDOW_MS: u64 = 10_000;

/// The window and the terms under which a limit counts offences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    pub window_ms: u64,
    pub penalty: Penalty,
}

impl Scale {
    pub fn of(limit: &Limit) -> Option<Self> {
        Some(Self {
            window_ms: limit.window_ms.max(MIN_WINDOW_MS),
            penalty: limit.penalty?,
        })
    }

    pub fn window(&self, redis_ms: u64) -> u64 {
        redis_ms / self.window_ms
    }

    /// The name of one isolate's report, without its place.
    pub fn field(&self) -> String {
        let mut field = self.window_ms.to_string();
        field.push('.');
        field.push_str(&self.penalty.after.to_string());
        field.push('.');
        field
    }
}

/// One window of one scale in this isolate.
#[derive(Debug, Clone)]
pub struct Tally {
    pub scale: Scale,
    pub window: u64,
    pub offences: u64,
    /// Of the origin's answers: 401, 403 and 404.
    pub bad: u64,
    pub answers: u64,
    /// One bit for each route that refused; two routes may share one.
    pub routes: u64,
    /// Changes that are worth a report, those in the last one, and those that arrived.
    pub changed: u32,
    pub sent: u32,
    pub reported: u32,
    /// Since when the reports look abnormal, by the own clock.
    pub abnormal_from_ms: Option<u64>,
    /// Offences that the record knows of.
    pub recorded: u64,
}

impl Tally {
    pub fn new(scale: Scale, window: u64) -> Self {
        Self {
            scale,
            window,
            offences: 0,
            bad: 0,
            answers: 0,
            routes: 0,
            changed: 0,
            sent: 0,
            reported: 0,
            abnormal_from_ms: None,
            recorded: 0,
        }
    }

    /// Counts begin anew with a window; the rights of those who wait do not, so what was not
    /// reported in the last one is in this one.
    pub fn enter(&mut self, window: u64) {
        if self.window != window {
            let is_reported = self.changed == self.reported;
            *self = Self::new(self.scale, window);
            self.changed = u32::from(!is_reported);
        }
    }

    pub fn answered(&mut self, status: u16, is_suspected: bool) {
        self.answers += 1;
        self.bad += u64::from(matches!(status, 401 | 403 | 404));
        if is_suspected || (self.bad >= BAD_REPORTED && 2 * self.bad >= self.answers) {
            self.changed += 1;
        }
    }

    /// Whether others who see good answers of this address should say so.
    pub fn is_suspicious(&self) -> bool {
        self.bad >= BAD_REPORTED
    }
}

/// One refusal that told a client when to come again. Times by the own clock.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Which id, route and limit.
    pub tag: u64,
    pub at_ms: u64,
    pub due_ms: u64,
    /// When nobody can still be waiting for it whose offences count.
    pub ends_ms: u64,
}

impl Told {
    /// Nothing may be sent because of it at the moment, and the client knows.
    fn forbids(&self, own_ms: u64) -> bool {
        let grace_ms = GRACE_MS.min((self.due_ms - self.at_ms) / 2);
        own_ms < self.due_ms && own_ms >= self.at_ms + grace_ms
    }
}

/// What a refusal was to the one who was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub is_offence: bool,
    /// He had been told to wait, here or on another route.
    pub is_warned: bool,
}

/// Those of one address that wait. Each refusal is a right to come again in time: a
/// refused request that has such a right uses it up, one that has none although others
/// were told to wait offends. Both are told anew, so each has a right then.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Vec<Told>);

impl Waiting {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn refused(&mut self, tag: u64, window_ms: u64, wait_s: u64, own_ms: u64) -> Heard {
        // A clock that was set back makes the future of what was told.
        self.0
            .retain(|told| own_ms < told.ends_ms && told.at_ms <= own_ms);
        let is_warned = self.0.iter().any(|told| told.forbids(own_ms));
        let same = |told: &&Told| told.tag == tag;
        let forbidden = self.0.iter().filter(same).any(|told| told.forbids(own_ms));
        let due = (self.0.iter()).position(|told| told.tag == tag && told.due_ms <= own_ms);
        if let Some(at) = due {
            self.0.swap_remove(at);
        } else if self.0.len() >= MAX_TOLD
            && let Some(at) = self.0.iter().position(|told| told.due_ms <= own_ms)
        {
            self.0.swap_remove(at);
        }
        if self.0.len() < MAX_TOLD {
            let wait_ms = wait_s.saturating_mul(1000);
            let due_ms = own_ms.saturating_add(wait_ms) - TOLERANCE_MS.min(wait_ms);
            self.0.push(Told {
                tag,
                at_ms: own_ms,
                due_ms,
                ends_ms: due_ms.saturating_add(window_ms),
            });
        }
        Heard {
            is_offence: due.is_none() && forbidden,
            is_warned,
        }
    }

    /// How many may come now, how many later, and from when on (by Redis' clock).
    fn counts(&self, now: Moment) -> [u64; 3] {
        let own_ms = now.own_ms;
        let (mut due, mut later, mut from_ms) = (0, 0, u64::MAX);
        for told in self.0.iter().filter(|told| own_ms < told.ends_ms) {
            if told.due_ms <= own_ms {
                due += 1;
            } else {
                later += 1;
                from_ms = from_ms.min(now.redis_ms + (told.due_ms - own_ms));
            }
        }
        [due, later, from_ms]
    }
}

/// The value of one isolate's field: absolute, so that to send it twice changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    window: u64,
    /// The record that it is about.
    until_ms: u64,
    offences: u64,
    bad: u64,
    answers: u64,
    routes: u64,
    /// How many may come now, how many later, and from when on.
    waiting: [u64; 3],
}

impl Report {
    pub fn of(tally: &Tally, until_ms: u64, waiting: &Waiting, now: Moment) -> Self {
        Self {
            window: tally.window,
            until_ms,
            offences: tally.offences,
            bad: tally.bad,
            answers: tally.answers,
            routes: tally.routes,
            waiting: waiting.counts(now),
        }
    }

    pub fn text(&self) -> String {
        let [due, later, from_ms] = self.waiting;
        join(&[
            self.window,
            self.until_ms,
            self.offences,
            self.bad,
            self.answers,
            self.routes,
            due,
            later,
            from_ms,
        ])
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        Some(Self {
            window: next()?,
            until_ms: next()?,
            offences: next()?,
            bad: next()?,
            answers: next()?,
            routes: next()?,
            waiting: [next()?, next()?, next()?],
        })
    }

    /// Whether something of it counts in this window under this record.
    fn is_about(&self, window: u64, until_ms: u64) -> bool {
        let latest = self.window.saturating_add(RIGHT_WINDOWS);
        self.until_ms == until_ms && (self.window..=latest).contains(&window)
    }
}

/// All isolates' reports of one scale, window and record together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    offences: u64,
    bad: u64,
    answers: u64,
    routes: u64,
    /// Those who may come now: one of them may be who offended elsewhere.
    due: u64,
}

impl Sums {
    pub fn add(&mut self, report: &Report, window: u64, until_ms: u64, redis_ms: u64) {
        if !report.is_about(window, until_ms) {
            return;
        }
        let [due, later, from_ms] = report.waiting;
        let later = if from_ms <= redis_ms { later } else { 0 };
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.due, due);
        add(&mut self.due, later);
        if report.window == window {
            add(&mut self.offences, report.offences);
            add(&mut self.bad, report.bad);
            add(&mut self.answers, report.answers);
            self.routes |= report.routes;
        }
    }

    pub fn is_abnormal(&self, after: u32) -> bool {
        let offences = self.offences.saturating_sub(self.due);
        let is_bad = self.answers >= MIN_ANSWERS
            && self.bad.saturating_mul(100) >= self.answers.saturating_mul(BAD_PERCENT);
        offences >= u64::from(after.max(1))
            || (offences > 0 && self.routes.count_ones() >= MANY_ROUTES)
            || is_bad
    }
}
