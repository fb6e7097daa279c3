//! One database's part of a check: charges until they stand, what then frees, and what is
//! given back. It judges no request: `check` puts the parts together.
//!
//! No borrow of the memory lives across an await.

use std::cell::RefCell;

use super::charging::{self, Held, Judged};
use super::memory::Memory;
use super::quota::fits_at;
use super::rule::Rule;
use super::settling::{self, Standing};
use crate::ports::{Clock, Redis, Store};
use crate::redis::deadline::is_over;
use crate::redis::{Batch, Command, RedisError, RedisErrorKind, Reply};
use crate::together::boxed;

/// How often a charge that ran in another epoch than its own, or whose answer was
/// late, is made anew. Twice is enough for a wrong raw clock whose correction falls
/// on a boundary.
const MISPLACED: u32 = 3;

/// What came of the charges to one database.
pub(super) struct Charged {
    pub shard: usize,
    /// `None`: it cannot say.
    pub held: Option<Vec<Held>>,
    pub ridden: Option<Result<Vec<Reply>, RedisError>>,
    /// Charges that are to be given back after the answer.
    pub returned: Vec<Held>,
}

/// What every trip of a check needs.
pub(super) struct Trips<'a, 'p, P> {
    pub memory: &'a RefCell<Memory>,
    pub ports: &'a P,
    pub timeout_ms: u64,
    pub rules: &'a [Rule<'p>],
}

impl<'a, 'p, P: Redis + Clock> Trips<'a, 'p, P> {
    pub fn rule(&self, held: &Held) -> Option<&'a Rule<'p>> {
        self.rules.get(held.index)
    }

    pub async fn charge(
        &self,
        shard: usize,
        group: Vec<usize>,
        mut riders: Vec<Command>,
    ) -> Charged {
        let mut charged = Charged {
            shard,
            held: None,
            ridden: None,
            returned: Vec::new(),
        };
        let begun_ms = self.ports.now_ms();
        let wants_time = {
            let memory = self.memory.borrow();
            charging::picked(self.rules, &group)
                .any(|(_, rule)| memory.wants_time_first(rule, begun_ms))
        };
        if wants_time {
            let batch = charging::ask_time(std::mem::take(&mut riders));
            let has_riders = batch.commands.len() > 1;
            let mut answer = boxed(self.trip(shard, &batch)).await;
            let is_known = answer.as_mut().is_ok_and(|replies| {
                let times = (begun_ms, self.ports.now_ms());
                charging::learn_time(&mut self.memory.borrow_mut(), shard, times, replies)
            });
            if has_riders {
                charged.ridden = Some(answer);
            }
            if !is_known {
                return charged;
            }
        }
        let mut returned = Vec::new();
        for _ in 0..=MISPLACED {
            let riders = std::mem::take(&mut riders);
            let sent_ms = self.ports.now_ms();
            let asked = {
                let memory = &mut self.memory.borrow_mut();
                charging::plan(
                    memory,
                    self.rules,
                    (shard, &group),
                    &returned,
                    riders,
                    sent_ms,
                )
            };
            let answer = self.trip(shard, &asked.batch).await;
            let received_ms = self.ports.now_ms();
            let replies = match answer {
                Ok(mut replies) => {
                    let ridden = asked.split_riders(&mut replies);
                    if asked.has_riders() {
                        charged.ridden = Some(Ok(ridden));
                    }
                    replies
                }
                Err(error) => {
                    asked.forget(&mut self.memory.borrow_mut(), self.rules);
                    if asked.has_riders() {
                        charged.ridden = Some(Err(error.clone()));
                        // What rode along was too large: Redis is well, and the charge is
                        // made anew by itself. The first one counts too much, which is safe.
                        if error.kind == RedisErrorKind::TooLarge {
                            returned = Vec::new();
                            continue;
                        }
                    }
                    if did_not_run(&error) {
                        charged.returned = returned;
                    }
                    return charged;
                }
            };
            let judged = asked.judge(
                &mut self.memory.borrow_mut(),
                self.rules,
                &replies,
                received_ms,
                received_ms.saturating_sub(sent_ms) > self.timeout_ms,
            );
            match judged {
                Judged::Valid(held) => {
                    charged.held = Some(held);
                    return charged;
                }
                Judged::Astray(mut held) => {
                    let batch = charging::shift(self.rules, &held);
                    let replies = boxed(self.trip(shard, &batch)).await.unwrap_or_default();
                    let shifted = charging::is_shifted(self.rules, &held, &replies);
                    for held in held.iter_mut().filter(|held| held.fits) {
                        held.stands = held.spot;
                    }
                    match shifted {
                        Some(true) => {
                            charged.held = Some(held);
                            return charged;
                        }
                        Some(false) => returned = held,
                        // They stay where they are, and count too much.
                        None => return charged,
                    }
                }
                Judged::Misplaced(held) => returned = held,
                Judged::Broken(held) => {
                    charged.returned = held;
                    return charged;
                }
            }
            if is_over(begun_ms, self.ports.now_ms(), self.timeout_ms) {
                break;
            }
        }
        charged.returned = returned;
        charged
    }

    /// The rule of what is used up now, if nobody knows yet what frees next.
    fn unread(&self, held: &Held) -> Option<&'a Rule<'p>> {
        self.rule(held).filter(|rule| {
            held.known.rest.is_none()
                && rule.window.count(held.spot, &held.known) >= rule.capacity()
                && !fits_at(rule, held.spot, &held.known).1
        })
    }

    pub fn has_unread(&self, held: &[Held]) -> bool {
        held.iter().any(|held| self.unread(held).is_some())
    }

    /// Reads what frees next, of what is used up now: seldom more than one.
    pub async fn read_returns(&self, held: &mut [Held]) {
        for held in held {
            let Some(rule) = self.unread(held) else {
                continue;
            };
            let batch = Batch::pipeline(vec![rule.look(held.spot)]);
            let replies = self.trip(rule.shard, &batch).await.unwrap_or_default();
            if let Some(read) = replies.first().and_then(|reply| rule.parse(reply)) {
                if !rule.window.is_log() {
                    held.known.total = held.known.total.max(read.total);
                }
                held.known.rest = read.rest;
            }
        }
    }

    /// Gives charges back and reads what then counts; those that could not be given back.
    pub async fn settle(
        &self,
        shard: usize,
        group: &[usize],
        held: Vec<Held>,
    ) -> (Vec<Standing>, Vec<Held>) {
        let charged = held.clone();
        let asked = settling::plan(
            &mut self.memory.borrow_mut(),
            self.rules,
            group,
            held,
            self.ports.now_ms(),
        );
        let answer = match asked.batch.is_empty() {
            true => Ok(Vec::new()),
            false => self.trip(shard, &asked.batch).await,
        };
        let unreturned = match &answer {
            Err(error) if did_not_run(error) => charged,
            _ => Vec::new(),
        };
        let replies = answer.ok();
        let memory = &mut self.memory.borrow_mut();
        (
            asked.judge(memory, self.rules, replies.as_deref()),
            unreturned,
        )
    }

    async fn trip(&self, shard: usize, batch: &Batch) -> Result<Vec<Reply>, RedisError> {
        let answer = self
            .ports
            .pipeline(Store::Limits(shard), batch, self.timeout_ms)
            .await;
        answer.and_then(|replies| match replies.len() == batch.commands.len() {
            true => Ok(replies),
            false => Err(RedisError::new(
                RedisErrorKind::Malformed,
                "not one reply per command",
            )),
        })
    }
}

/// Nothing of the batch has run. After any other error some of it may have: then
/// nothing is given back twice, because counting too much is safe.
pub(super) fn did_not_run(error: &RedisError) -> bool {
    use RedisErrorKind::{Open, Quota, Rejected, Unauthorized};
    matches!(error.kind, Open | Quota | Rejected | Unauthorized)
}
