//! The policy: what the edge does with each request.
//!
//! The same shape as TOML (`policy.toml`, checked when the Worker is built) or
//! JSON (`POLICY`). Parsing reports every error at once.

mod types;

pub use types::*;
