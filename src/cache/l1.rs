//! L1: entries that this isolate has itself, and when it may serve them.
//!
//! An entry comes from a whole reading of Redis that found it fresh and its generations
//! current, and from nowhere else: what was never stored, what other services put under a
//! key (it has no generation, and `DEL` must end it at once) and stale entries are not
//! kept. It is served while it is fresh, in one of two ways.
//!
//! - *Validated.* When a trip is made anyway, it asks for the entry's generations and for
//!   the time at which its key expires, but not for its body. A purge, here or elsewhere,
//!   is a new generation. A backend that deletes the key, or writes a value of its own under
//!   it, leaves another expiry (to the millisecond), so that is noticed at once too, but for
//!   `SET … KEEPTTL` and commands that edit a value in place; for these the body is read again
//!   each `REREAD_MS`. The expiry is a command more, which costs more than a short body: so
//!   what is shorter than `LONG_BYTES` is read whole, as without L1.
//! - *Trusted.* When no trip is needed, an entry is served for the policy's `l1` after the
//!   trip that last found it current has left. Redis ran that trip later than it left, so a
//!   purge that was answered more than `l1` ago was seen by it: no older answer is ever
//!   served than `l1` after a purge elsewhere. Purges of this isolate hide what they cover
//!   from everything that left before they ended, readings under way among it.
//!
//! While neither Redis nor the origin answers, what was current a minute ago is served:
//! `last_resort`. The map is SIEVE (`crate::recent`), bounded by bytes. Nothing here
//! sends anything or reads a clock, and it holds owned bytes only.

use crate::cache::entry::{Entry, hash};
use crate::cache::lookup::{Ask, Found, Lookup, Seen};
use crate::cache::purge::Purge;
use crate::recent::Recent;

/// Of the 128 MB that an isolate has; an answer of Redis may take 28 MB at a time.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;
/// The number alone bounds what the map itself takes.
const MAX_ENTRIES: usize = 8192;
/// An entry takes at most this part of all bytes.
const MOST_OF_BYTES: usize = 8;
/// What an entry takes beside its texts: its place in the map and its own fields.
const ENTRY_BYTES: usize = 512;
/// What a text takes beside its bytes.
const TEXT_BYTES: usize = 32;
/// From here on one more command is cheaper than the body.
pub const LONG_BYTES: usize = 32 * 1024;
/// How long a body is validated before it is read again.
const REREAD_MS: u64 = 60_000;
/// How long an entry is served while neither Redis nor the origin answers: purges
/// elsewhere are not known then.
const LAST_RESORT_MS: u64 = 60_000;
/// Purges that are remembered; past it everything that left before them is hidden.
const MAX_PURGES: usize = 32;
/// Names in a purge that is remembered: with names of 1 KB, 2 MB in all.
const MAX_PURGED: usize = 64;

#[derive(Debug)]
pub struct L1 {
    kept: Recent<Option<Box<Kept>>>,
    bytes: usize,
    most_bytes: usize,
    /// The last ones with their numbers, newest at the end.
    purged: Vec<(u64, Purge)>,
    /// How many have ended.
    purges: u64,
    trips: u64,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    generations: Vec<String>,
    /// Whose generations the last ones are.
    origin_tags: Vec<String>,
    /// Of its key in Redis; `None`: not asked for yet.
    expiry: Option<i64>,
    /// When the trip left that read it whole.
    read: Moment,
    /// When the last trip left that found it current.
    checked: Moment,
    bytes: usize,
}

/// When a trip left.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moment {
    now_ms: u64,
    /// Trips that left later have a higher one.
    trip: u64,
    /// How many purges had ended.
    purges: u64,
}

impl Moment {
    /// `None` when the clock was set back.
    fn age_ms(self, now_ms: u64) -> Option<u64> {
        now_ms.checked_sub(self.now_ms)
    }
}

impl Default for L1 {
    fn default() -> Self {
        Self::new(MAX_BYTES)
    }
}

impl L1 {
    pub fn new(most_bytes: usize) -> Self {
        Self {
            kept: Recent::new(MAX_ENTRIES),
            bytes: 0,
            most_bytes,
            purged: Vec::new(),
            purges: 0,
            trips: 0,
        }
    }

    /// All that is kept, keys and fields included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// To be taken just before a trip leaves.
    pub fn moment(&mut self, now_ms: u64) -> Moment {
        self.trips += 1;
        Moment {
            now_ms,
            trip: self.trips,
            purges: self.purges,
        }
    }

    fn find(&self, lookup: &Lookup) -> Option<&Kept> {
        let kept = self.kept.get(&lookup.key)?.as_deref()?;
        (!self.is_hidden(lookup, kept, true)).then_some(kept)
    }

    /// Whether a purge that has ended since covers it, or one that is forgotten might.
    fn is_hidden(&self, lookup: &Lookup, kept: &Kept, or_soft: bool) -> bool {
        let seen = kept.checked.purges;
        let oldest = self
            .purged
            .first()
            .map_or(self.purges, |(number, _)| number - 1);
        let mut missed = self.purged.iter().filter(|(number, _)| *number > seen);
        let covers = |purge: &Purge| {
            (or_soft || !purge.is_soft)
                && (purge.covers(lookup) || purge.covers_any(&kept.origin_tags))
        };
        seen < oldest || missed.any(|(_, purge)| covers(purge))
    }

    pub fn is_trusted(&self, lookup: &Lookup, l1_ms: u64, now_ms: u64) -> bool {
        self.find(lookup).is_some_and(|kept| {
            let age_ms = kept.checked.age_ms(now_ms);
            age_ms.is_some_and(|age_ms| age_ms < l1_ms) && kept.entry.is_fresh(now_ms)
        })
    }

    /// What is served without a trip.
    pub fn trusted(&mut self, lookup: &Lookup, l1_ms: u64, now_ms: u64) -> Option<Seen> {
        if !self.is_trusted(lookup, l1_ms, now_ms) {
            return None;
        }
        let kept = self.kept.use_mut(&lookup.key)?.as_deref()?;
        Some(Seen {
            found: Found::Fresh(kept.entry.clone()),
            generations: Vec::new(),
            expiry: None,
            is_local: true,
            origin_tags: Vec::new(),
            is_unread: false,
        })
    }

    /// What is served when neither Redis nor the origin answers: what was purged softly too.
    pub fn last_resort(&self, lookup: &Lookup, now_ms: u64) -> Option<Entry> {
        let kept = self.kept.get(&lookup.key)?.as_deref()?;
        if self.is_hidden(lookup, kept, false) {
            return None;
        }
        let age_ms = kept.checked.age_ms(now_ms)?;
        let holds = age_ms < LAST_RESORT_MS && now_ms < kept.entry.stale_until_ms;
        holds.then(|| kept.entry.clone())
    }

    /// What a trip has to read.
    pub fn ask(&self, lookup: &Lookup, now_ms: u64) -> Ask {
        let Some(kept) = self.find(lookup) else {
            return Ask::Whole;
        };
        if kept.entry.body.len() < LONG_BYTES || !kept.entry.is_fresh(now_ms) {
            return Ask::Whole;
        }
        let age_ms = kept.read.age_ms(now_ms).unwrap_or(REREAD_MS);
        match kept.expiry {
            Some(_) if age_ms < REREAD_MS => Ask::Changes,
            _ => Ask::WholeAndExpiry,
        }
    }

    /// Serves an entry of which a trip has read the changes alone; `None`: there are
    /// some.
    pub fn validated(
        &mut self,
        lookup: &Lookup,
        seen: Seen,
        left: Moment,
        now_ms: u64,
    ) -> Option<Seen> {
        let kept = self.kept.use_mut(&lookup.key)?.as_deref_mut()?;
        let is_current = kept.entry.is_fresh(now_ms)
            && seen.expiry.is_some()
            && kept.expiry == seen.expiry
            && kept.is_of(&seen.generations, &seen.origin_tags);
        if !is_current {
            return None;
        }
        kept.check(left);
        Some(Seen {
            found: Found::Fresh(kept.entry.clone()),
            is_local: true,
            ..seen
        })
    }

    /// Learns from a whole reading, whose body becomes the one that is kept if they are the same:
    /// so all that was made of that one is there.
    pub fn learn(&mut self, lookup: &Lookup, seen: &mut Seen, left: Moment) {
        if let Some(kept) = self.kept.get_mut(&lookup.key) {
            match (kept.as_deref_mut(), &mut seen.found) {
                // An older answer that comes late.
                (Some(known), _) if known.read.trip > left.trip => return,
                (Some(known), Found::Fresh(entry))
                    if is_same(&known.entry, entry)
                        && known.is_of(&seen.generations, &seen.origin_tags) =>
                {
                    entry.body = known.entry.body.clone();
                    known.expiry = seen.expiry.or(known.expiry);
                    known.read = left;
                    known.check(left);
                    return;
                }
                _ => self.bytes -= kept.take().map_or(0, |known| known.bytes),
            }
        }
        if let Found::Fresh(entry) = &seen.found {
            self.keep(lookup, entry, seen, left);
        }
    }

    fn keep(&mut self, lookup: &Lookup, entry: &Entry, seen: &Seen, left: Moment) {
        let bytes = size(lookup, entry, seen);
        if bytes > self.most_bytes / MOST_OF_BYTES {
            return;
        }
        while (self.bytes + bytes > self.most_bytes || self.kept.len() >= MAX_ENTRIES)
            && let Some(gone) = self.kept.evict()
        {
            self.bytes -= gone.map_or(0, |gone| gone.bytes);
        }
        let kept = Kept {
            entry: entry.clone(),
            generations: seen.generations.iter().flatten().cloned().collect(),
            origin_tags: seen.origin_tags.clone(),
            expiry: seen.expiry,
            read: left,
            checked: left,
            bytes,
        };
        self.bytes += bytes;
        *self.kept.use_or_default(&lookup.key) = Some(Box::new(kept));
    }

    /// The generations of what is served without a trip, to refresh it.
    pub fn generations(&self, lookup: &Lookup) -> Vec<Option<String>> {
        let kept = self.find(lookup);
        kept.map_or_else(Vec::new, |kept| {
            kept.generations.iter().cloned().map(Some).collect()
        })
    }

    /// Lets go of an entry, for there is a newer one in Redis.
    pub fn forget(&mut self, key: &str) {
        if let Some(kept) = self.kept.get_mut(key) {
            self.bytes -= kept.take().map_or(0, |gone| gone.bytes);
        }
    }

    /// Hides what a purge of this isolate covers, for it has ended or may have run: from
    /// now on, and from all trips that have left.
    pub fn purge(&mut self, purge: &Purge) {
        self.purges += 1;
        if purge.len() > MAX_PURGED {
            self.purged.clear();
            return;
        }
        if self.purged.len() >= MAX_PURGES {
            self.purged.remove(0);
        }
        self.purged.push((self.purges, purge.clone()));
    }
}

impl Kept {
    /// Whether every generation is there and the one that it was kept with. One text may be
    /// the generation of several tags, so the tags have to be the same.
    fn is_of(&self, generations: &[Option<String>], origin_tags: &[String]) -> bool {
        let now = generations.iter().map(Option::as_ref);
        self.origin_tags == origin_tags && self.generations.iter().map(Some).eq(now)
    }

    /// Answers may come in another order than their trips left in.
    fn check(&mut self, left: Moment) {
        if left.trip > self.checked.trip {
            self.checked = left;
        }
    }
}

/// Bodies are compared by the hashes that tie them to their records: both are known.
fn is_same(one: &Entry, other: &Entry) -> bool {
    let rest = |entry: &Entry| {
        let until_ms = (entry.fresh_until_ms, entry.stale_until_ms);
        (entry.status, entry.stored_ms, until_ms, entry.took_ms)
    };
    rest(one) == rest(other)
        && one.headers == other.headers
        && one.body.hash(&hash) == other.body.hash(&hash)
}

/// What an entry takes.
fn size(lookup: &Lookup, entry: &Entry, seen: &Seen) -> usize {
    let text = |text: &str| text.len() + TEXT_BYTES;
    let headers = entry.headers.iter();
    let headers: usize = headers.map(|(name, value)| text(name) + text(value)).sum();
    let generations = seen.generations.iter().flatten().chain(&seen.origin_tags);
    let generations: usize = generations.map(|value| text(value)).sum();
    ENTRY_BYTES + text(&lookup.key) + entry.body.len() + headers + generations
}
