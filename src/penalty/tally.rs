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

/// The window and the terms under which a limit counts offences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    pub window_ms: u64,
    pub penalty: Penalty,
}

impl Scale {
    pub fn of(limit: &Limit) -> Option<Self> {
        Some(Self {
            window_ms: limit.window_ms.max(1),
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
            self.0.remove(at);
        } else if self.0.len() >= MAX_TOLD
            && let Some(at) = self.0.iter().position(|told| told.due_ms <= own_ms)
        {
            self.0.remove(at);
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

/// The value of this isolate's field: absolute, so that to send it twice changes nothing.
pub fn report(tally: &Tally, until_ms: u64, waiting: &Waiting, now: Moment) -> String {
    let [due, later, from_ms] = waiting.counts(now);
    join(&[
        tally.window,
        until_ms,
        tally.offences,
        tally.bad,
        tally.answers,
        tally.routes,
        due,
        later,
        from_ms,
    ])
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
    /// Adds a report, unless it is about something else or none of ours.
    pub fn add(&mut self, text: &str, window: u64, until_ms: u64, redis_ms: u64) {
        let mut numbers = [0; 9];
        let mut parts = text.split(' ');
        for number in &mut numbers {
            match parts.next().map(str::parse) {
                Some(Ok(read)) => *number = read,
                _ => return,
            }
        }
        let [
            of,
            since,
            offences,
            bad,
            answers,
            routes,
            due,
            later,
            from_ms,
        ] = numbers;
        if since != until_ms || of > window {
            return;
        }
        // Who was told in the last window may come in this one.
        if of.saturating_add(1) >= window {
            let later = if from_ms <= redis_ms { later } else { 0 };
            self.due = self.due.saturating_add(due).saturating_add(later);
        }
        if of == window {
            self.offences = self.offences.saturating_add(offences);
            self.bad = self.bad.saturating_add(bad);
            self.answers = self.answers.saturating_add(answers);
            self.routes |= routes;
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
