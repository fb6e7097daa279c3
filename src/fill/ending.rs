//! How a fill ends: with an entry, with a failure, or with a word that the answer is nobody
//! else's. What Redis is told of it is sent after the answer.

use std::rc::Rc;

use super::{FAILED_TIMEOUT, FAILED_UNREACHABLE, Fill, Filled, UNCACHEABLE, is_failing};
use crate::cache::flight::{FAILED_MS, Flight, FlightCell, UNCACHEABLE_MS};
use crate::cache::lookup::generation_key;
use crate::cache::store::Times;
use crate::cache::{Entry, GENERATION_TTL_S, generation};
use crate::deferred::{Deferred, Proof, settle};
use crate::headers::CacheStatus;
use crate::http::Response;
use crate::packing::{self, Extension};
use crate::policy::Form;
use crate::ports::{Clock, OriginError, Ports};
use crate::redis::{Batch, Command};

impl<P: Ports> Fill<'_, '_, P> {
    /// Names an answer by its tags, with the generations that they had before that fetch
    /// began.
    pub fn label(&self, tags: &[String], generations: Vec<String>, fetch: u64) -> Proof {
        let mut origin_tags = self.visit.gateway.origin_tags.borrow_mut();
        let asked = &self.wanted.lookup;
        origin_tags.remember(&asked.key, tags);
        let lookup = asked.named(tags);
        let mut known = generations;
        let read = known.split_off(asked.own_generations().min(known.len()));
        let mut seeds = Vec::new();
        for tag in &lookup.origin_tags {
            let place = asked.origin_tags.iter().position(|asked| asked == tag);
            let before = match place {
                Some(place) => read.get(place),
                None => origin_tags.before(tag, fetch),
            };
            known.push(match before {
                Some(generation) => generation.clone(),
                // If there is none, nobody purged it during the fetch; if there is one,
                // it will not be this.
                None => {
                    let fresh = generation(self.visit.ports.random());
                    let life_ms = GENERATION_TTL_S * 1000;
                    let key = generation_key(tag);
                    seeds.push(Command::set_nx_get_px(&key, &fresh, life_ms));
                    fresh
                }
            });
        }
        let waiting = None;
        Proof {
            lookup: Rc::new(lookup),
            generations: known,
            seeds,
            waiting,
        }
    }

    /// Whether it is stored.
    pub(super) async fn done(
        &self,
        cell: &FlightCell,
        entry: &Entry,
        times: Times,
        proof: Proof,
        stale: Option<Entry>,
    ) -> bool {
        let lock_key = self.lock_key.as_str();
        let batch = packing::commands(self.visit, &proof, entry, times, lock_key).await;
        let Some(batch) = batch else {
            settle(cell, Flight::Done(entry.clone()));
            self.end(vec![Command::new("DEL").arg(lock_key.to_owned())]);
            return false;
        };
        let or = stale.and_then(|stale| {
            packing::extension(self.visit, &proof, &stale, entry, times, lock_key)
        });
        let outcome = Flight::Done(entry.clone());
        self.end_proven(Some(cell), outcome, batch, proof, or);
        true
    }

    /// Ends the fill with an answer for those that wait. If it has tags that they did not
    /// read, a purge of those may come before they begin to wait: they look it up.
    pub fn end_proven(
        &self,
        cell: Option<&FlightCell>,
        outcome: Flight,
        batch: Batch,
        proof: Proof,
        or: Option<Box<Extension>>,
    ) {
        let asked = &self.wanted.lookup;
        let is_read = |tag: &String| asked.origin_tags.contains(tag);
        let mut proof = proof;
        match cell {
            Some(cell) if proof.lookup.origin_tags.iter().all(is_read) => settle(cell, outcome),
            Some(cell) => proof.waiting = Some(FlightCell::clone(cell)),
            None => {}
        }
        self.visit.defer(Deferred::EndFill {
            flight: self.lock_key.clone(),
            only_if: Some(Box::new(proof)),
            form: packing::form(self.visit, self.wanted),
            batch,
            or,
        });
    }

    /// What those that wait have to look up has these tags.
    pub fn again(&self, cell: &FlightCell, tags: Rc<[String]>, is_ours: bool) {
        settle(cell, Flight::Tagged(tags));
        match is_ours {
            true => self.end(vec![Command::new("DEL").arg(&self.lock_key)]),
            false => self.land(),
        }
    }

    /// An origin that fails is not asked again by everybody who waited.
    pub fn fail(&self, cell: &FlightCell, error: OriginError) -> Filled<P::Body> {
        settle(cell, Flight::Failed(error));
        let word = match error {
            OriginError::Timeout => FAILED_TIMEOUT,
            OriginError::Unreachable => FAILED_UNREACHABLE,
        };
        self.end(vec![Command::set_px(&self.lock_key, word, FAILED_MS)]);
        Filled::Failed(error)
    }

    /// The answer is this request's alone; those that wait ask for themselves,
    /// and for a while nobody queues for this key.
    pub(super) fn keep_to_itself(
        &self,
        cell: &FlightCell,
        response: Response<P::Body>,
        why: &'static str,
    ) -> Filled<P::Body> {
        // An error of the origin passes soon: only a short while without the lock.
        let pause_ms = if response.status >= 500 {
            FAILED_MS
        } else {
            UNCACHEABLE_MS
        };
        let word = self.uncacheable(cell, pause_ms);
        // An origin that is well and says something else than the stale entry ends it;
        // one that fails or is too busy does not.
        if self.is_refresh && !is_failing(response.status) {
            let lookup = &self.wanted.lookup;
            let gone = Command::new("DEL").arg(&lookup.key).arg(lookup.meta_key());
            self.end_if_current(Batch::multi(vec![gone, word]), self.generations.clone());
        } else {
            self.end(vec![word]);
        }
        Filled::Own(
            response,
            CacheStatus::Miss {
                stored: false,
                why: Some(why),
            },
        )
    }

    /// The command tells the other isolates.
    pub fn uncacheable(&self, cell: &FlightCell, pause_ms: u64) -> Command {
        settle(cell, Flight::Uncacheable);
        let until_ms = self.visit.now_ms().saturating_add(pause_ms);
        self.visit
            .gateway
            .flights
            .borrow_mut()
            .remember_uncacheable(&self.wanted.lookup.key, until_ms);
        Command::set_px(&self.lock_key, UNCACHEABLE, pause_ms)
    }

    pub fn end(&self, commands: Vec<Command>) {
        self.visit.defer(Deferred::EndFill {
            flight: self.lock_key.clone(),
            only_if: None,
            form: Form::Plain,
            batch: Batch::pipeline(commands),
            or: None,
        });
    }

    /// Ends the fill so only if nothing was purged since it began: other services read
    /// the key itself, and know no generations.
    pub fn end_if_current(&self, batch: Batch, generations: Vec<String>) {
        self.visit.defer(Deferred::EndFill {
            flight: self.lock_key.clone(),
            only_if: Some(Box::new(Proof {
                lookup: self.wanted.lookup.clone(),
                generations,
                seeds: Vec::new(),
                waiting: None,
            })),
            form: packing::form(self.visit, self.wanted),
            batch,
            or: None,
        });
    }

    pub fn land(&self) {
        self.visit.gateway.flights.borrow_mut().land(&self.lock_key);
    }
}
