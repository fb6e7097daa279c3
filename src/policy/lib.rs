//! The policy: what the edge does with each request.
//!
//! The same shape as TOML (`policy.toml`, checked when the Worker is built) or JSON
//! (`POLICY`). Reading reports every error at once, with its place and what to do.
//! What is read is pure data; nothing here talks to Redis, an origin or a clock.
//!
//! It is a crate of its own because a policy is read once in an isolate's life: this is
//! compiled to be small, and the Worker around it to be quick. What every request needs of it
//! is `#[inline]`, and so compiled with the Worker. The Worker's build script reads
//! `policy.toml` with it too, so what is built in is what the Worker reads.

pub mod bounds;
mod error;
pub mod explain;
mod field;
mod grammar;
mod json;
mod key;
mod measure;
pub mod network;
mod node;
pub mod percent;
mod read;
mod route;
pub mod target;
mod template;
#[cfg(feature = "cli")]
mod toml;
mod types;
#[cfg(feature = "cli")]
mod write;

pub use error::PolicyError;
pub use grammar::{OWN_KEYS, Overrides, warm_request};
pub use key::{Selected, Values, scalar};
#[cfg(feature = "cli")]
pub use read::toml_to_json;
pub use route::{HEALTH, Resolved, is_own};
pub use template::PathValues;
pub use types::*;
