//! Checks `policy.toml` and builds it in as JSON. A policy with errors does not build.
//!
//! It reads with the crate's own files, so the build and the Worker cannot differ.

use std::path::Path;
use std::{env, fs};

// Not all of it is needed to check a policy.
#[allow(dead_code, unused_imports, unused_macros)]
#[path = "src/json.rs"]
mod json;

#[allow(dead_code, unused_imports)]
#[path = "src/policy"]
mod policy {
    pub mod bounds;
    pub mod error;
    pub mod field;
    pub mod grammar;
    pub mod json;
    pub mod key;
    pub mod measure;
    pub mod network;
    pub mod node;
    pub mod percent;
    pub mod read;
    pub mod route;
    pub mod target;
    pub mod template;
    pub mod toml;
    pub mod types;
    pub mod write;
}

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
    let overrides = policy::grammar::Overrides::default();
    let (_, tree) =
        policy::read::check(&text, policy::toml::read, &overrides).map_err(|errors| {
            errors
                .iter()
                .map(|error| format!("{POLICY}:{error}"))
                .collect::<Vec<_>>()
        })?;
    let out = env::var_os("OUT_DIR").unwrap_or_default();
    fs::write(
        Path::new(&out).join("policy.json"),
        policy::write::json(&tree),
    )
    .map_err(|error| vec![format!("policy.json: {error}")])
}
