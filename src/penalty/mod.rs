//! Progressive backoff: an address that goes on after it was told to wait is banned, for
//! twice as long each time, in all isolates.
//!
//! It decides nothing about a limit and sends nothing itself but in [`settle`]; the
//! gateway tells it what was refused and answered, and asks it who is banned.
//!
//! # What is kept
//! One hash an address, `ratelimit:suspicious:{ip}`, which always expires:
//!
//! | field | value |
//! |---|---|
//! | `s` | the record: `until strikes clean_window clean_from` |
//! | `w` | until when answers of this address are counted everywhere |
//! | `{window}.{after}.{place}` | one isolate's report: `window until offences bad answers routes due later from` |
//!
//! Reports are absolute, and one isolate writes one field, so a report that arrives twice, late
//! or never counts nothing twice. A strike's record follows from the record before it, so two
//! isolates that strike at once make one strike. Everything that led to a strike names the
//! record before it and counts no more. So no loss or repetition makes
//! a strike without `after` offences.
//!
//! # Why honouring Retry-After never strikes
//! Each refusal gives a right to come again when its Retry-After has passed (`Waiting`). A
//! refusal uses up such a right of its isolate and gives a new one; only one that finds
//! none may offend. Suppose that clients honour what they are told but come back to other
//! isolates. Each client that waits holds one right, and each offence wrongly
//! counted left the right of that client behind, due and unused. So in all isolates together there
//! are at least as many due rights as wrong offences, and `Sums` takes the one off the other. Rights
//! are reported as offences are, within a second; so that none is on its way, reports must
//! look abnormal for `SETTLE_MS` before they strike. Each address has 24 rights an isolate:
//! if more of it wait at once, the others' patience may be mistaken.

mod entry;
mod record;
mod settle;
mod tally;

use crate::failure::whole_seconds;
use crate::policy::{Limit, Per, Policy};
use crate::recent::Recent;
use crate::redis::{Batch, Command, Reply};

pub use record::{Record, ban_ms};
pub use settle::settle;

use entry::{BUSY_MS, Entry, excess, has_passed};
use tally::{Report, Scale};

/// Addresses that an isolate remembers, of 1 to 2 KB each.
pub const MAX_IDS: usize = 4096;
/// An isolate's copy of a record is this fresh, or the next trip brings it.
pub const FRESH_MS: u64 = 1_000;
/// A ban is looked at again, so that an operator's reset takes effect.
pub const RECHECK_MS: u64 = 5_000;
/// One address costs at most one look in this time, however many requests it makes.
pub const LOOK_MS: u64 = 1_000;
/// Reports look abnormal for this long before they strike: all that was told before has
/// arrived by then, though one report was lost.
pub const SETTLE_MS: u64 = 3_000;
/// A look's trip; nobody waits for it.
pub const LOOK_TIMEOUT_MS: u64 = 1_000;
/// Looks of one task, which then leaves the rest to the next request.
pub const MAX_LOOKS: u32 = 8;

/// So many that two isolates seldom share one.
const PLACES: u64 = 1 << 24;
/// Above this some fields are deleted whatever they say: 256 of 100 bytes.
pub const MAX_FIELDS: usize = 256;

/// One moment by this isolate's clock, and as Redis' time as far as it knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub own_ms: u64,
    pub redis_ms: u64,
}

impl Moment {
    /// How much Redis' clock is ahead.
    pub fn offset_ms(&self) -> i64 {
        let signed = |time_ms: u64| i64::try_from(time_ms).unwrap_or(i64::MAX);
        signed(self.redis_ms) - signed(self.own_ms)
    }

    pub fn with_offset(own_ms: u64, offset_ms: i64) -> Self {
        Self {
            own_ms,
            redis_ms: own_ms.saturating_add_signed(offset_ms),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    pub left_ms: u64,
    pub strikes: u32,
}

/// A refusal by a limit, as its visitor was told of it.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// The limit that refused.
    pub limit: &'a Limit,
    /// What that limit counts.
    pub id: &'a str,
    pub route: &'a str,
    pub retry_after_ms: u64,
}

/// What one isolate knows of all addresses. All of it may be lost at any time.
#[derive(Debug)]
pub struct Penalties {
    entries: Recent<Entry>,
    /// Where this isolate's reports stand.
    place: Option<u64>,
    /// Of all limits with a penalty, so that one's reports do not end another's.
    longest_window_ms: u64,
}

impl Default for Penalties {
    fn default() -> Self {
        Self {
            entries: Recent::new(MAX_IDS),
            place: None,
            longest_window_ms: 0,
        }
    }
}

impl Penalties {
    pub fn new(policy: &Policy) -> Self {
        let routes = policy.routes.iter().flat_map(|route| &route.limits);
        let scales = routes.chain(&policy.defaults.limits).filter_map(Scale::of);
        Self {
            longest_window_ms: scales.map(|scale| scale.window_ms).max().unwrap_or(0),
            ..Self::default()
        }
    }

    /// How many addresses it knows.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The ban of an address, without a trip.
    pub fn ban_of(&self, ip: &str, now: Moment) -> Option<Ban> {
        let record = &self.entries.get(ip)?.record;
        Some(Ban {
            left_ms: record.left_ms(now.redis_ms)?,
            strikes: record.strikes,
        })
    }

    /// What rides along with a check, unless the own copy is fresh.
    pub fn rider(&self, ip: &str, now: Moment) -> Option<Command> {
        let read_ms = self.entries.get(ip).and_then(|entry| entry.read_ms);
        has_passed(read_ms, FRESH_MS, now.own_ms).then(|| peek(ip))
    }

    /// Takes in the reply to the rider.
    pub fn learn(&mut self, ip: &str, reply: &Reply, now: Moment) {
        let Some(record) = peeked(reply, now.redis_ms) else {
            return;
        };
        let entry = self.entries.use_or_default(ip);
        entry.learn(record, now);
        if let Some([_, suspected]) = reply.as_list() {
            entry.suspected_until_ms = number(suspected);
        }
    }

    /// Counts a refusal that was answered, if its limit has a penalty.
    pub fn refused(&mut self, ip: &str, refusal: &Refusal<'_>, now: Moment) {
        let Some(scale) = Scale::of(refusal.limit) else {
            return;
        };
        let entry = self.entries.use_or_default(ip);
        // Requests that were under way when the ban began.
        if entry.record.left_ms(now.redis_ms).is_some() {
            return;
        }
        let route = match refusal.limit.per {
            Per::Route => refusal.route,
            Per::All => "_",
        };
        let heard = entry.waiting.refused(
            hash(&[refusal.id, route, &refusal.limit.name]),
            scale.window_ms,
            whole_seconds(refusal.retry_after_ms),
            now.own_ms,
        );
        if let Some(tally) = entry.tally(scale, now) {
            tally.changed += 1;
            tally.offences += u64::from(heard.is_offence);
            if heard.is_warned {
                tally.routes |= 1 << (hash(&[refusal.route]) >> 58);
            }
        }
    }

    /// Counts the status of an origin's answer, if the limit has a penalty.
    pub fn answered(&mut self, ip: &str, limit: &Limit, status: u16, now: Moment) {
        let Some(scale) = Scale::of(limit) else {
            return;
        };
        let entry = self.entries.use_or_default(ip);
        if entry.record.left_ms(now.redis_ms).is_some() {
            return;
        }
        let is_suspected = entry.suspected_until_ms > now.redis_ms;
        if let Some(tally) = entry.tally(scale, now) {
            tally.answered(status, is_suspected);
        }
    }

    /// Whether [`settle`] is to be run after this answer; no second time while it runs.
    pub fn begin(&mut self, ip: &str, now: Moment) -> bool {
        match self.entries.get_mut(ip) {
            Some(entry) if entry.wants_look(now) && !entry.is_busy(now.own_ms) => {
                entry.busy_until_ms = now.own_ms + BUSY_MS;
                true
            }
            _ => false,
        }
    }

    /// How long until the next look; `None`: there is nothing to look at, and the task ends.
    fn wait_ms(&mut self, ip: &str, now: Moment) -> Option<u64> {
        let entry = self.entries.get_mut(ip)?;
        if !entry.wants_look(now) {
            entry.busy_until_ms = 0;
            return None;
        }
        entry.busy_until_ms = now.own_ms + BUSY_MS;
        let Some(looked_ms) = entry.looked_ms else {
            return Some(0);
        };
        let passed_ms = now.own_ms.checked_sub(looked_ms).unwrap_or(LOOK_MS);
        Some(LOOK_MS.saturating_sub(passed_ms))
    }

    fn end(&mut self, ip: &str) {
        if let Some(entry) = self.entries.get_mut(ip) {
            entry.busy_until_ms = 0;
        }
    }

    /// Reports what has changed, and asks for everybody's reports.
    pub fn flush(&mut self, ip: &str, now: Moment, random: u64) -> Option<Batch> {
        let place = *self.place.get_or_insert(random % PLACES);
        let entry = self.entries.get_mut(ip)?;
        if !entry.wants_look(now) {
            return None;
        }
        entry.looked_ms = Some(now.own_ms);
        let key = key(ip);
        let mut set = Command::new("HSET").arg(&key);
        let mut is_set = false;
        let mut suspected_until_ms = 0;
        for tally in &mut entry.tallies {
            let window = tally.scale.window(now.redis_ms);
            tally.enter(window);
            if tally.changed == tally.reported {
                continue;
            }
            tally.sent = tally.changed;
            let mut field = tally.scale.field();
            field.push_str(&place.to_string());
            let until_ms = entry.record.until_ms;
            set = set
                .arg(field)
                .arg(Report::of(tally, until_ms, &entry.waiting, now).text());
            is_set = true;
            if tally.is_suspicious() {
                suspected_until_ms = suspected_until_ms.max((window + 1) * tally.scale.window_ms);
            }
        }
        let mut commands = Vec::with_capacity(3);
        if is_set {
            if suspected_until_ms > 0 {
                set = set.args(["w".to_owned(), suspected_until_ms.to_string()]);
            }
            commands.push(set);
            commands.push(entry.expire(&key, self.longest_window_ms, now));
        }
        commands.push(Command::new("HGETALL").arg(key));
        Some(Batch::pipeline(commands))
    }

    /// Judges everybody's reports; the batch that it may give is the strike, or keeps what
    /// another isolate has struck.
    pub fn judge_flush(
        &mut self,
        ip: &str,
        replies: &[Reply],
        now: Moment,
        random: u64,
    ) -> Option<Batch> {
        let entry = self.entries.get_mut(ip)?;
        if replies.iter().any(Reply::is_error) {
            return None;
        }
        let fields: Vec<(&str, &Reply)> = (replies.last()?.as_list()?.chunks_exact(2))
            .filter_map(|pair| match pair {
                [name, value] => Some((name.as_str()?, value)),
                _ => None,
            })
            .collect();
        let field = |name: &str| fields.iter().find(|field| field.0 == name);
        let record = field("s")
            .and_then(|(_, text)| Record::parse(text.as_str()?, now.redis_ms))
            .unwrap_or_default();
        entry.suspected_until_ms = field("w").map_or(0, |(_, until)| number(until));
        for tally in &mut entry.tallies {
            tally.reported = tally.sent;
        }
        let is_new = record != entry.record;
        entry.learn(record, now);
        let key = key(ip);
        let mut commands = Vec::new();
        let deleted = excess(&fields);
        if !deleted.is_empty() {
            let delete = Command::new("HDEL").arg(&key);
            commands.push(delete.args(deleted.into_iter().map(str::to_owned)));
        }
        // Whoever did not know of the record may have shortened its life.
        if is_new && record != Record::default() {
            commands.push(entry.expire(&key, self.longest_window_ms, now));
        }
        let is_banned = record.left_ms(now.redis_ms).is_some();
        let next = match is_banned {
            true => None,
            false => entry.judge(&fields, now, random),
        };
        if let Some(next) = next {
            entry.learn(next, now);
            let set = Command::new("HSET").arg(&key);
            commands.push(set.args(["s".to_owned(), next.text()]));
            commands.push(entry.expire(&key, self.longest_window_ms, now));
        }
        (!commands.is_empty()).then(|| Batch::pipeline(commands))
    }

    /// After an operator's [`reset`], so that this isolate need not find out.
    pub fn forget(&mut self, ip: &str) {
        if let Some(entry) = self.entries.get_mut(ip) {
            *entry = Entry::default();
        }
    }
}

/// Ends every ban, strike and suspicion of an address, everywhere within `RECHECK_MS` of
/// its next requests.
pub fn reset(ip: &str) -> Command {
    Command::new("DEL").arg(key(ip))
}

/// Reads the record of an address; charges nothing.
pub fn peek(ip: &str) -> Command {
    Command::new("HMGET").arg(key(ip)).args(["s", "w"])
}

/// What a [`peek`] has found; `None` for a reply that says nothing.
pub fn peeked(reply: &Reply, redis_ms: u64) -> Option<Record> {
    let [record, _] = reply.as_list()? else {
        return None;
    };
    let record = record
        .as_str()
        .and_then(|text| Record::parse(text, redis_ms));
    Some(record.unwrap_or_default())
}

fn key(ip: &str) -> String {
    let mut key = String::from("ratelimit:suspicious:");
    key.push_str(ip);
    key
}

/// FNV-1a of texts and their ends, with its high bits mixed (Murmur3's last step): two that are
/// taken for one only make a penalty milder.
fn hash(texts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for text in texts {
        for byte in text.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ hash >> 33
}

fn number(reply: &Reply) -> u64 {
    reply
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}
