//! A run of the sync: what is pending goes to the origin in batches.
//!
//! A pass looks once at every bucket in which something was counted since the pass before.
//! A batch is fixed in Redis before it is sent, under the number after the last one, and
//! only if nobody else has fixed that number: so a run that was held up cannot send what
//! another has sent by then. Only a 2xx ends it. Whoever comes next begins with a batch that
//! is not ended, and sends the same under the same key. Every step may be done twice: what
//! was sent of an item only grows, an ended batch stays known for a week, and what Redis
//! keeps of the pass may be old without harm (`record`). The lock saves work: it keeps a
//! second run from sending a batch that the first one is sending.
//!
//! Commands that need no answer of their own ride on the next trip, which is atomic. A run
//! makes few requests, whatever there is to do, and the next one goes on.

use super::ended::{end, forget, totals};
use super::item::Item;
use super::origin::post;
use super::pass::Walk;
use super::peek::{backoff, is_due};
use super::pending::{days, kinds, seen};
use super::record::{Entry, Fixed, Pass, Place, State, body};
use super::{
    BACKOFF, DAY_MS, HOUR_MS, LOCK, LONG_MS, STATE, batch_key, dirty_key, is_over, items_key,
    seen_key,
};
use crate::cache::generation;
use crate::deferred;
use crate::gateway::Gateway;
use crate::limit::time_ms;
use crate::ports::{Ports, Store};
use crate::redis::{Batch, Command, Reply};

/// Requests of a run to Redis and the origin: the free plan has 50, and waiting for the
/// lock takes some.
pub const MAX_REQUESTS: u32 = 44;
/// Batches of a run.
pub const MAX_POSTS: usize = 40;
/// Items of a batch.
pub const MAX_ITEMS: usize = 1_000;
/// Longer than the origin's timeout and two trips.
const LOCK_MS: u64 = 60_000;
/// How often a run by hand asks for the lock, and the pause between.
const CLAIMS: u32 = 6;
const CLAIM_PAUSE_MS: u64 = 2_000;
/// An ended batch's number is not given away again for so long: longer than any run.
const ENDED_MS: u64 = 7 * DAY_MS;
const FIRST_BACKOFF_MS: u64 = 5 * 60_000;
const LAST_BACKOFF_MS: u64 = 2 * HOUR_MS;
/// Items that are looked at together: two trips for four batches.
const LOOK_ITEMS: usize = 4_000;
const FIRST_LOOKS: usize = 256;
const MAX_LOOKS: usize = 4_096;
/// Of a bucket that is no packed list.
const SCAN_COUNT: u64 = 1_000;
/// Numbers whose batches are looked for at once.
const MAX_NUMBERS: u64 = 16;
/// To fix a batch, to send it and to end it.
const BATCH_REQUESTS: u32 = 3;
/// To look, and to make a batch of it.
const LOOK_REQUESTS: u32 = 2 + BATCH_REQUESTS;

/// What a run has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    pub batches: u64,
    /// Of the batches, added up.
    pub items: u64,
    pub views: u64,
    /// The next run has something left to do.
    pub left: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done(Report),
    /// Another run is at work.
    Busy,
    /// The origin did not take a batch, which waits.
    OriginFailed(Report),
    RedisFailed(Report),
}

/// Why a run ends before its work does.
enum Stop {
    Redis,
    Origin,
    /// Another run has taken over.
    Lost,
}

/// Runs if a pass is due, with at most so many requests to the origin; answers how many
/// it made.
pub async fn by_cron<P: Ports>(gateway: &Gateway, ports: &P, posts: usize) -> usize {
    if posts == 0 || !is_due(gateway, ports).await {
        return 0;
    }
    let mut run = Run::new(gateway, ports, posts);
    let outcome = match run.claim().await {
        Ok(true) => run.work(false).await,
        Ok(false) => Outcome::Busy,
        Err(_) => Outcome::RedisFailed(run.report),
    };
    match outcome {
        Outcome::OriginFailed(_) => ports.log("views: the origin took no batch; they wait"),
        Outcome::RedisFailed(_) => ports.log("views: Redis failed; the next run goes on"),
        Outcome::Done(_) | Outcome::Busy => {}
    }
    posts.min(MAX_POSTS) - run.posts_left
}

/// Runs now, whatever was planned and however often the origin refused.
pub async fn by_hand<P: Ports>(gateway: &Gateway, ports: &P) -> Outcome {
    let mut run = Run::new(gateway, ports, MAX_POSTS);
    for claim in 0..CLAIMS {
        if claim > 0 {
            ports.sleep(CLAIM_PAUSE_MS).await;
        }
        match run.claim().await {
            Ok(true) => return run.work(true).await,
            Ok(false) => {}
            Err(_) => return Outcome::RedisFailed(run.report),
        }
    }
    Outcome::Busy
}

struct Run<'a, P: Ports> {
    gateway: &'a Gateway,
    ports: &'a P,
    token: String,
    requests_left: u32,
    posts_left: usize,
    /// What goes with the next trip.
    riding: Vec<Command>,
    state: State,
    /// By Redis' clock, when the run began.
    now_ms: u64,
    refusals: u32,
    report: Report,
    /// What is to be sent, in the order of its places.
    queue: Vec<(Place, Entry)>,
    /// Buckets that are larger than one reply, and how far they were read.
    more: Vec<(Place, String)>,
    looks: usize,
}

impl<'a, P: Ports> Run<'a, P> {
    fn new(gateway: &'a Gateway, ports: &'a P, posts: usize) -> Self {
        Self {
            gateway,
            ports,
            token: generation(ports.random()),
            requests_left: MAX_REQUESTS,
            posts_left: posts.min(MAX_POSTS),
            riding: Vec::new(),
            state: State::default(),
            now_ms: 0,
            refusals: 0,
            report: Report::default(),
            queue: Vec::new(),
            more: Vec::new(),
            looks: FIRST_LOOKS,
        }
    }

    /// What rides and then these, as one; the replies to these.
    async fn trip(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, Stop> {
        let mut all = std::mem::take(&mut self.riding);
        let riding = all.len();
        all.extend(commands);
        self.requests_left = self.requests_left.saturating_sub(1);
        let timeout_ms = deferred::timeout_ms(self.gateway);
        let batch = Batch::multi(all);
        let replies = self.ports.pipeline(Store::Limits(0), &batch, timeout_ms);
        match replies.await {
            Ok(mut replies) if !replies.iter().any(Reply::is_error) => {
                Ok(replies.split_off(riding.min(replies.len())))
            }
            Ok(_) => {
                self.ports.log("views: Redis refused a command");
                Err(Stop::Redis)
            }
            Err(error) => {
                self.ports.log_failed_trip(&error);
                Err(Stop::Redis)
            }
        }
    }

    /// Takes the lock, if nobody has it: a set under a name of this run becomes the lock
    /// unless there is one, and taking the token out of it ends it only if it is this run's.
    async fn claim(&mut self) -> Result<bool, Stop> {
        let mut claim = String::from("views:_claim:");
        claim.push_str(&self.token);
        let commands = vec![
            Command::new("SADD").arg(&claim).arg(&self.token),
            Command::pexpire(&claim, LOCK_MS),
            Command::new("RENAMENX").arg(claim).arg(LOCK),
            Command::new("MGET").arg(STATE).arg(BACKOFF),
            Command::new("TIME"),
        ];
        // It is not known whether it was taken: it is let go of.
        let replies = match self.trip(commands).await {
            Ok(replies) => replies,
            Err(stop) => {
                self.unlock().await;
                return Err(stop);
            }
        };
        let [_, _, renamed, found, time] = replies.as_slice() else {
            return Err(Stop::Redis);
        };
        let found = found.as_list().unwrap_or_default();
        let state = found
            .first()
            .and_then(Reply::as_bytes)
            .and_then(State::read);
        self.state = state.unwrap_or_default();
        (self.refusals, _) = backoff(found.get(1));
        self.now_ms = time_ms(time).ok_or(Stop::Redis)?;
        Ok(renamed.as_int() == Some(1))
    }

    fn release(&self) -> Command {
        Command::new("SREM").arg(LOCK).arg(&self.token)
    }

    async fn unlock(&mut self) {
        self.riding.clear();
        let release = self.release();
        let _ = self.trip(vec![release]).await;
    }

    fn save(&self) -> Command {
        Command::set_px(STATE, self.state.write(), LONG_MS)
    }

    /// All that a run does once it has the lock.
    async fn work(&mut self, by_hand: bool) -> Outcome {
        let went = self.passes(by_hand).await;
        self.report.left = self.state.pass.is_some();
        match went {
            Ok(()) => {
                let last = vec![self.save(), self.release()];
                match self.trip(last).await {
                    Ok(_) => Outcome::Done(self.report),
                    Err(_) => Outcome::RedisFailed(self.report),
                }
            }
            Err(Stop::Origin) => {
                let wait_ms = (FIRST_BACKOFF_MS << self.refusals.min(16)).min(LAST_BACKOFF_MS);
                let mut refusals = (self.refusals + 1).to_string();
                refusals.push(' ');
                refusals.push_str(&(self.now_ms + wait_ms).to_string());
                let refusals = Command::set_px(BACKOFF, refusals, LAST_BACKOFF_MS + DAY_MS);
                let last = vec![refusals, self.release()];
                let _ = self.trip(last).await;
                Outcome::OriginFailed(self.report)
            }
            Err(Stop::Redis) => {
                self.unlock().await;
                Outcome::RedisFailed(self.report)
            }
            Err(Stop::Lost) => {
                self.report.left = true;
                self.unlock().await;
                Outcome::Done(self.report)
            }
        }
    }

    async fn passes(&mut self, by_hand: bool) -> Result<(), Stop> {
        let is_resumed = self.pass().await?;
        // Whoever asks now means what was counted until now.
        if by_hand && is_resumed && self.state.pass.is_none() && self.requests_left > LOOK_REQUESTS
        {
            self.pass().await?;
            // It was one more: if it takes longer than this run, calls would never end that
            // each go on with the one before. What is left is the next pass's.
            if let Some(pass) = self.state.pass.take() {
                for kind in kinds(&self.gateway.policy) {
                    self.state.base.add(kind, pass.sent.get(kind));
                }
            }
        }
        Ok(())
    }

    /// Goes on with a pass or begins one; whether it had begun before. Returns in the middle
    /// when the run has made its requests.
    async fn pass(&mut self) -> Result<bool, Stop> {
        let is_resumed = self.state.pass.is_some();
        let (found, batch) = self.begin().await?;
        let begun_ms = match &self.state.pass {
            Some(pass) => pass.begun_ms,
            None => self.now_ms,
        };
        if let Some(batch) = batch {
            self.send(batch).await?;
        }
        let pass = self.state.pass.clone().unwrap_or_default();
        // A count may arrive a while after its hour.
        let from_hour = (self.state.begun_ms / HOUR_MS).saturating_sub(1);
        let mut walk = Walk::new(found, begun_ms, from_hour, pass.place);
        while self.step(&mut walk).await? {}
        Ok(is_resumed)
    }

    /// Reads what there is: a batch that is not ended, and the days with something counted.
    async fn begin(&mut self) -> Result<(Vec<(u64, Vec<u8>)>, Option<Fixed>), Stop> {
        loop {
            let numbers = (1..=MAX_NUMBERS).map(|next| batch_key(self.state.number + next));
            let all = days(self.now_ms);
            let kinds = kinds(&self.gateway.policy);
            let stay = all.clone().filter(|day| !is_over(*day, self.now_ms));
            let mut commands = vec![
                Command::new("MGET").args(numbers),
                Command::new("MGET").args(all.clone().map(dirty_key)),
            ];
            commands.extend(kinds.iter().map(|kind| seen(kind, stay.clone())));
            let mut replies = self.trip(commands).await?.into_iter();
            let (Some(Reply::List(batches)), Some(Reply::List(bits))) =
                (replies.next(), replies.next())
            else {
                return Err(Stop::Redis);
            };
            let ended = batches
                .iter()
                .take_while(|batch| batch.as_bytes().is_some_and(<[u8]>::is_empty));
            let ended = ended.count();
            self.state.number += ended as u64;
            if ended == batches.len() && ended > 0 {
                if self.requests_left <= LOOK_REQUESTS {
                    return Err(Stop::Lost);
                }
                continue;
            }
            let batch = match batches.get(ended).and_then(Reply::as_bytes) {
                None => None,
                Some(record) => Some(Fixed::read(record).ok_or_else(|| {
                    self.ports.log("views: a batch cannot be read");
                    Stop::Redis
                })?),
            };
            let found = all.zip(bits);
            let found = found.filter_map(|(day, bits)| Some((day, bits.as_bytes()?.to_vec())));
            let found: Vec<(u64, Vec<u8>)> = found.collect();
            if self.state.last_sync_ms == 0 {
                // Nothing is older than what there is before the first pass.
                let yesterday = (self.now_ms / DAY_MS).saturating_sub(1);
                let first = found.first().map_or(yesterday, |(day, _)| *day);
                self.state.oldest = first.min(yesterday);
            }
            if self.state.pass.is_none() {
                let mut pass = Pass {
                    begun_ms: self.now_ms,
                    ..Pass::default()
                };
                for (kind, reply) in kinds.iter().zip(replies) {
                    let seen = reply.as_int().and_then(|seen| u64::try_from(seen).ok());
                    pass.seen.add(kind, seen.unwrap_or(0));
                }
                // A batch says itself of which pass it is.
                self.state.pass = Some(pass);
                return Ok((found, batch));
            }
            return Ok((found, batch));
        }
    }

    /// The next thing to do; false: there is none, or no request left for it.
    async fn step(&mut self, walk: &mut Walk) -> Result<bool, Stop> {
        // A batch waits until it is full, unless a bucket's next page is to be read: of a page
        // before it nothing may be in the queue then.
        let is_due = self.queue.len() >= MAX_ITEMS
            || !self.more.is_empty()
            || self.requests_left < LOOK_REQUESTS
            || !walk.has_next();
        if !self.queue.is_empty() && is_due {
            if self.requests_left < BATCH_REQUESTS || self.posts_left == 0 {
                return Ok(false);
            }
            let batch = self.cut(walk);
            self.fix(&batch).await?;
            self.send(batch).await?;
            return Ok(true);
        }
        if self.requests_left < LOOK_REQUESTS {
            return Ok(false);
        }
        let mut looks = std::mem::take(&mut self.more);
        while looks.len() < self.looks {
            let Some(place) = walk.next() else { break };
            looks.push((place, "0".to_owned()));
        }
        if !looks.is_empty() {
            self.look(looks).await?;
            self.go_on_at(walk);
            return Ok(true);
        }
        if let Some(day) = walk.closing() {
            let asked = walk.is_empty(day);
            let left = self.trip(asked).await?;
            if left.iter().all(|left| left.as_int() == Some(0)) {
                self.riding.push(Walk::end(day));
            }
            walk.close(day);
            return Ok(true);
        }
        self.end_pass();
        Ok(false)
    }

    /// Where the pass goes on once what is before is sent.
    fn place(&self, walk: &Walk) -> Place {
        let queued = self.queue.first().map(|(place, _)| *place);
        let more = self.more.first().map(|(place, _)| *place);
        // The queue may be behind what is read next.
        let mut place = walk.place();
        for earlier in [queued, more].into_iter().flatten() {
            place = place.min(earlier);
        }
        place
    }

    fn go_on_at(&mut self, walk: &Walk) {
        let place = self.place(walk);
        if let Some(pass) = &mut self.state.pass {
            pass.place = place;
        }
    }

    /// Reads buckets: two trips, for their items and for how many viewers each has.
    async fn look(&mut self, looks: Vec<(Place, String)>) -> Result<(), Stop> {
        let scans = looks.iter().map(|(place, cursor)| {
            let key = items_key(place.day, place.bucket);
            let scan = Command::new("ZSCAN").arg(key).arg(cursor);
            scan.arg("COUNT").arg(SCAN_COUNT)
        });
        let scans = scans.collect();
        let replies = self.trip(scans).await?;
        let mut known: Vec<(Place, Item, u64)> = Vec::new();
        for ((place, _), reply) in looks.into_iter().zip(&replies) {
            let Some([cursor, found]) = reply.as_list() else {
                return Err(Stop::Redis);
            };
            for pair in found.as_list().unwrap_or_default().chunks(2) {
                let [member, sent] = pair else { continue };
                let item = member.as_str().and_then(Item::parse);
                let sent = sent.as_str().and_then(|sent| sent.parse().ok());
                if let (Some(item), Some(sent)) = (item, sent) {
                    known.push((place, item, sent));
                }
            }
            match cursor.as_str() {
                Some("0") => {}
                Some(cursor) => self.more.push((place, cursor.to_owned())),
                None => return Err(Stop::Redis),
            }
        }
        // The next look is for about as many items as are good.
        self.looks = (self.looks * LOOK_ITEMS / known.len().max(1)).clamp(1, MAX_LOOKS);
        if known.is_empty() {
            return Ok(());
        }
        // A scan brings an item twice only in two pages. What the first one brought is sent
        // by then, for the next page is read when the queue is empty.
        let sizes = known
            .iter()
            .map(|(place, item, _)| Command::new("SCARD").arg(item.set_key(place.day)));
        let sizes = sizes.collect();
        let sizes = self.trip(sizes).await?;
        let begun_ms = self.begun_ms();
        let mut clean: Vec<(Place, Item)> = Vec::new();
        for ((place, item, sent), size) in known.into_iter().zip(sizes) {
            let size = size.as_int().and_then(|size| u64::try_from(size).ok());
            let upto = size.ok_or(Stop::Redis)?;
            if upto > sent {
                let entry = Entry {
                    day: place.day,
                    item,
                    sent,
                    upto,
                };
                self.queue.push((place, entry));
            } else if is_over(place.day, begun_ms) {
                clean.push((place, item));
            }
        }
        let clean = clean.iter().map(|(place, item)| (place.day, item));
        self.riding.extend(forget(clean));
        Ok(())
    }

    fn begun_ms(&self) -> u64 {
        self.state.pass.as_ref().map_or(0, |pass| pass.begun_ms)
    }

    /// The next batch of the queue. An item of two days stands in it twice, so it has at
    /// most as many items as entries.
    fn cut(&mut self, walk: &Walk) -> Fixed {
        let many = self.queue.len().min(MAX_ITEMS);
        let entries = self.queue.drain(..many).map(|(_, entry)| entry).collect();
        Fixed {
            id: generation(self.ports.random()),
            begun_ms: self.begun_ms(),
            next: self.place(walk),
            entries,
        }
    }

    /// Writes a batch down, if its number is free and the lock is still there.
    async fn fix(&mut self, batch: &Fixed) -> Result<(), Stop> {
        let key = batch_key(self.state.number + 1);
        let commands = vec![
            Command::new("SISMEMBER").arg(LOCK).arg(&self.token),
            Command::pexpire(LOCK, LOCK_MS),
            Command::new("SET")
                .arg(key)
                .arg(batch.write())
                .arg("NX")
                .arg("GET"),
            self.save(),
        ];
        let replies = self.trip(commands).await?;
        match replies.as_slice() {
            [Reply::Int(1), _, Reply::Nil, _] => Ok(()),
            _ => Err(Stop::Lost),
        }
    }

    /// Sends a batch that is written down. What its end writes rides on the next trip; if
    /// that does not arrive, the batch is sent again.
    async fn send(&mut self, batch: Fixed) -> Result<(), Stop> {
        if self.posts_left == 0 {
            return Err(Stop::Lost);
        }
        self.posts_left -= 1;
        self.requests_left = self.requests_left.saturating_sub(1);
        let counts = batch.counts();
        let text = body(&batch.id, &counts.items);
        let answer = post(self.gateway, self.ports, &batch.id, text)
            .await
            .ok_or(Stop::Origin)?;
        self.report.batches += 1;
        self.report.items += counts.items.len() as u64;
        self.report.views += batch.views();
        let mut ended = end(&batch, &totals(&answer, &counts));
        self.state.number += 1;
        ended.push(Command::set_px(&batch_key(self.state.number), "", ENDED_MS));
        ended.push(Command::new("DEL").arg(BACKOFF));
        self.refusals = 0;
        if let Some(pass) = &mut self.state.pass
            && pass.begun_ms == batch.begun_ms
        {
            pass.place = batch.next;
            for entry in &batch.entries {
                pass.sent.add(entry.item.kind(), entry.count());
            }
        }
        ended.push(self.save());
        self.riding.extend(ended);
        Ok(())
    }

    fn end_pass(&mut self) {
        let Some(pass) = self.state.pass.take() else {
            return;
        };
        let mut over = days(self.now_ms).filter(|day| is_over(*day, pass.begun_ms));
        let first = days(self.now_ms).find(|day| !is_over(*day, pass.begun_ms));
        self.state.oldest = first.unwrap_or(0);
        self.state.last_sync_ms = self.now_ms;
        self.state.begun_ms = pass.begun_ms;
        self.state.base = pass.seen;
        let kinds = kinds(&self.gateway.policy);
        let keys: Vec<String> = over
            .by_ref()
            .flat_map(|day| kinds.iter().map(move |kind| seen_key(kind, day)))
            .collect();
        if !keys.is_empty() {
            self.riding.push(Command::new("DEL").args(keys));
        }
    }
}
