//! The policy: its text, its errors, its paths, its routes, its keys, and the one built in.

mod built_in;
mod cache;
mod compose;
mod errors;
mod explain;
mod fill;
mod key;
mod limit;
pub mod marked;
mod overrides;
mod path;
mod route;
mod subject;
mod text;
mod unbuilt;
mod warm;

use std::hash::{BuildHasher, RandomState};

use edgeweir::policy::{Overrides, PathValues, Policy, PolicyError};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};

/// Runs a property; `EDGEWEIR_SEED` repeats a run.
fn property<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> TestCaseResult) {
    let seed: u64 = match std::env::var("EDGEWEIR_SEED") {
        Ok(seed) => seed.parse().expect("EDGEWEIR_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0),
    };
    println!("EDGEWEIR_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    if let Err(error) = TestRunner::new_with_rng(config, rng).run(&strategy, test) {
        panic!("EDGEWEIR_SEED={seed}: {error}");
    }
}

fn toml(text: &str) -> Policy {
    Policy::from_toml(text).unwrap_or_else(|errors| panic!("{}", shown(&errors)))
}

fn json(text: &str) -> Policy {
    Policy::from_json(text, &Overrides::default())
        .unwrap_or_else(|errors| panic!("{}", shown(&errors)))
}

fn shown(errors: &[PolicyError]) -> String {
    let lines: Vec<String> = errors.iter().map(PolicyError::to_string).collect();
    lines.join("\n")
}

fn values(pairs: &[(&str, &str)]) -> PathValues {
    let mut values = PathValues::default();
    for (name, value) in pairs {
        values.insert((*name).to_owned(), (*value).to_owned());
    }
    values
}
