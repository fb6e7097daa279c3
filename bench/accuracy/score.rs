//! What a limiter's answers are worth, whoever gave them.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::scenario::{Arrival, Scenario};
use crate::sim::history::{Admitted, most_in_any_window};

/// What became of one request.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub admitted: bool,
    /// When it was decided, by the true clock.
    pub at_us: u64,
    /// Of those at the same time.
    pub order: usize,
}

/// What became of every request of a trace.
#[derive(Debug)]
pub struct Answers {
    pub outcomes: Vec<Outcome>,
    pub commands: u64,
    pub degraded: u64,
}

impl Answers {
    /// Of a model, which sends no commands.
    pub fn of(outcomes: Vec<Outcome>) -> Self {
        Self {
            outcomes,
            commands: 0,
            degraded: 0,
        }
    }
}

/// A limiter that is not native on one scenario.
#[derive(Debug, Deserialize)]
pub struct Answered {
    pub scenario: usize,
    pub limiter: String,
    pub bound: Option<String>,
    commands: u64,
    /// Whether it was admitted, when it was decided, and its place in that order.
    outcomes: Vec<(u8, u64, usize)>,
}

impl From<Answered> for Answers {
    fn from(answered: Answered) -> Self {
        let outcome = |(admitted, at_us, order): (u8, u64, usize)| Outcome {
            admitted: admitted == 1,
            at_us,
            order,
        };
        Self {
            outcomes: answered.outcomes.into_iter().map(outcome).collect(),
            commands: answered.commands,
            degraded: 0,
        }
    }
}

/// What a limiter says that it never exceeds.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// In any trailing window.
    Trailing(u64),
    /// In each window that begins when the last one ends.
    Aligned(u64),
    /// It is an approximation.
    None,
}

#[derive(Debug)]
pub struct Figures {
    count: u64,
    exact: u64,
    admitted: u64,
    most: u64,
    bound: Bound,
    most_of_bound: u64,
    equal: u64,
    false_refusals: u64,
    false_admissions: u64,
    commands: u64,
    degraded: u64,
}

pub fn score(
    scenario: &Scenario,
    arrivals: &[Arrival],
    exact: &[bool],
    answers: &Answers,
    bound: Bound,
) -> Figures {
    assert_eq!(answers.outcomes.len(), arrivals.len());
    let window_us = scenario.window_us();
    let mut of_id: BTreeMap<usize, Vec<Outcome>> = BTreeMap::new();
    for (arrival, outcome) in arrivals.iter().zip(&answers.outcomes) {
        of_id.entry(arrival.id).or_default().push(*outcome);
    }
    let is_true = |admitted: &bool| *admitted;
    let mut figures = Figures {
        count: arrivals.len() as u64,
        exact: exact.iter().copied().filter(is_true).count() as u64,
        admitted: 0,
        most: 0,
        bound,
        most_of_bound: 0,
        equal: (exact.iter().zip(&answers.outcomes))
            .filter(|(exact, outcome)| **exact == outcome.admitted)
            .count() as u64,
        false_refusals: 0,
        false_admissions: 0,
        commands: answers.commands,
        degraded: answers.degraded,
    };
    for mut outcomes in of_id.into_values() {
        outcomes.sort_by_key(|outcome| (outcome.at_us, outcome.order));
        let admitted: Vec<Admitted> = (outcomes.iter().filter(|outcome| outcome.admitted))
            .map(|outcome| Admitted {
                at_us: outcome.at_us,
                cost: 1,
            })
            .collect();
        let most = most_in_any_window(&admitted, window_us);
        figures.admitted += admitted.len() as u64;
        figures.most = figures.most.max(most);
        figures.most_of_bound = figures.most_of_bound.max(match bound {
            Bound::Aligned(_) => most_aligned(&admitted, window_us),
            Bound::Trailing(_) | Bound::None => most,
        });
        let (refusals, admissions) =
            false_decisions(&outcomes, u64::from(scenario.requests), window_us);
        figures.false_refusals += refusals;
        figures.false_admissions += admissions;
    }
    figures
}

/// Decisions that an exact log with the limiter's own admissions would have made
/// otherwise: refusals though there was room, admissions though there was none.
fn false_decisions(outcomes: &[Outcome], requests: u64, window_us: u64) -> (u64, u64) {
    let mut log: VecDeque<u64> = VecDeque::new();
    let (mut refusals, mut admissions) = (0, 0);
    for outcome in outcomes {
        while log
            .front()
            .is_some_and(|oldest| oldest + window_us <= outcome.at_us)
        {
            log.pop_front();
        }
        let has_room = (log.len() as u64) < requests;
        match (outcome.admitted, has_room) {
            (false, true) => refusals += 1,
            (true, false) => admissions += 1,
            _ => {}
        }
        if outcome.admitted {
            log.push_back(outcome.at_us);
        }
    }
    (refusals, admissions)
}

fn most_aligned(admitted: &[Admitted], window_us: u64) -> u64 {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for charge in admitted {
        *counts.entry(charge.at_us / window_us).or_default() += charge.cost;
    }
    counts.into_values().max().unwrap_or(0)
}

impl Figures {
    pub fn row(&self, scenario: usize, limiter: &str) -> Value {
        let (kind, bound) = match self.bound {
            Bound::Trailing(most) => (Some("trailing"), Some(most)),
            Bound::Aligned(most) => (Some("aligned"), Some(most)),
            Bound::None => (None, None),
        };
        json!({
            "scenario": scenario,
            "limiter": limiter,
            "count": self.count,
            "exact": self.exact,
            "admitted": self.admitted,
            "most": self.most,
            "bound": { "kind": kind, "most": bound, "reached": self.most_of_bound },
            "equal": self.equal,
            "false_refusals": self.false_refusals,
            "false_admissions": self.false_admissions,
            "commands": self.commands,
            "degraded": self.degraded,
        })
    }
}
