//! The native suite: the core with fakes for the platform.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod config;
mod identity;
mod redis_breaker;
mod redis_codec;
mod redis_fake;
mod redis_outage;
mod redis_rest;
