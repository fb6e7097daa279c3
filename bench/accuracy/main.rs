//! The native half of the accuracy lab: the traces, our limiter on them in virtual time,
//! the models beside it, and the score of everyone, other limiters included.
//!
//! `bench.mjs` runs it and the limiters that are not native. `traces DIR` writes the
//! traces to DIR and `native DIR` our figures; `score DIR` reads there what others
//! answered and writes theirs. Every run follows from `EDGEWEIR_SEED`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod models;
mod ours;
mod scenario;
mod score;
#[path = "../../tests/suite/sim/mod.rs"]
#[allow(dead_code)]
mod sim;
mod traces;

use std::path::Path;

use serde_json::{Value, json};

use models::Model;
use ours::Variant;
use scenario::Scenario;
use score::{Answers, Bound, Outcome};

fn main() {
    // `cargo bench` adds a word of its own.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = (words.iter().map(String::as_str))
        .filter(|word| *word != "--bench")
        .collect();
    match words[..] {
        ["traces", dir] => traces(Path::new(dir)),
        ["native", dir] => native(Path::new(dir)),
        ["score", dir] => score_others(Path::new(dir)),
        _ => {
            eprintln!("accuracy traces|native|score DIR");
            std::process::exit(2);
        }
    }
}

fn traces(dir: &Path) {
    let scenarios = scenario::all(sim::first_seed());
    let traces: Vec<Value> = scenarios.iter().map(Scenario::trace).collect();
    let traces = json!({ "seed": sim::first_seed(), "scenarios": traces });
    write(dir, "traces.json", &traces);
}

fn native(dir: &Path) {
    let scenarios = scenario::all(sim::first_seed());
    let mut rows = Vec::new();
    for (index, scenario) in scenarios.iter().enumerate() {
        let arrivals = scenario.arrivals();
        let exact = models::decisions(Model::ExactLog, scenario, &arrivals);
        let mut row = |limiter: &str, answers: &Answers, bound| {
            let figures = score::score(scenario, &arrivals, &exact, answers, bound);
            rows.push(figures.row(index, limiter));
        };
        for variant in Variant::all(scenario) {
            let answers = ours::run(scenario, &arrivals, &variant.limit);
            row(&variant.name, &answers, variant.bound);
        }
        for model in Model::ALL {
            let admitted = models::decisions(model, scenario, &arrivals);
            // A model decides when a request arrives, in no time and with the true clock.
            let outcomes = (admitted.iter().zip(&arrivals).enumerate())
                .map(|(order, (admitted, arrival))| Outcome {
                    admitted: *admitted,
                    at_us: arrival.at_us,
                    order,
                })
                .collect();
            row(
                model.name(),
                &Answers::of(outcomes),
                model.bound(scenario.requests),
            );
        }
    }
    write(dir, "native.json", &Value::from(rows));
}

fn score_others(dir: &Path) {
    let scenarios = scenario::all(sim::first_seed());
    let text = std::fs::read_to_string(dir.join("answers.json")).unwrap();
    let answered: Vec<score::Answered> = serde_json::from_str(&text).unwrap();
    let rows: Vec<Value> = answered
        .into_iter()
        .map(|answered| {
            let scenario = &scenarios[answered.scenario];
            let arrivals = scenario.arrivals();
            let exact = models::decisions(Model::ExactLog, scenario, &arrivals);
            let bound = match answered.bound.as_deref() {
                None => Bound::None,
                Some("aligned") => Bound::Aligned(u64::from(scenario.requests)),
                Some("bucket") => Bound::Trailing(2 * u64::from(scenario.requests)),
                Some(other) => panic!("no bound {other}"),
            };
            let (index, limiter) = (answered.scenario, answered.limiter.clone());
            score::score(scenario, &arrivals, &exact, &answered.into(), bound).row(index, &limiter)
        })
        .collect();
    write(dir, "scored.json", &Value::from(rows));
}

fn write(dir: &Path, name: &str, value: &Value) {
    std::fs::write(dir.join(name), value.to_string()).unwrap();
}
