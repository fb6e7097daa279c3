//! Checks `policy.toml` and builds it in as JSON. A policy with errors does not build.

use std::path::Path;
use std::{env, fs};

use edgeweir_policy::toml_to_json;

const POLICY: &str = "policy.toml";

fn main() {
    println!("cargo::rerun-if-changed={POLICY}");
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(errors) = build() {
        for error in errors {
            // Cargo shows each and fails the build.
            println!("cargo::error={error}");
        }
    }
}

fn build() -> Result<(), Vec<String>> {
    let root = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let text = fs::read_to_string(Path::new(&root).join(POLICY))
        .map_err(|error| vec![format!("{POLICY}: {error}")])?;
    let json = toml_to_json(&text).map_err(|errors| {
        let errors = errors.iter().map(|error| format!("{POLICY}:{error}"));
        errors.collect::<Vec<_>>()
    })?;
    let out = env::var_os("OUT_DIR").unwrap_or_default();
    fs::write(Path::new(&out).join("policy.json"), json)
        .map_err(|error| vec![format!("policy.json: {error}")])
}
