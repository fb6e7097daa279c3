//! The native suite: the core with fakes for the platform.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod bounded;
mod cache_flight;
mod cache_foreign;
mod cache_generation;
mod cache_l1;
mod cache_lookup;
mod cache_orders;
mod cache_race;
mod compose;
mod concurrency;
mod config;
mod controls;
mod controls_bounds;
mod early;
mod exchange;
mod failure;
mod fields;
mod fill_answer;
mod fill_failure;
mod fill_faults;
mod fill_single;
mod fill_stale;
mod gateway_admin;
mod gateway_conduct;
mod gateway_explain;
mod gateway_flow;
mod gateway_headers;
mod gateway_limits;
mod gateway_lists;
mod gateway_retry;
mod gateway_stores;
mod headers;
mod hit_rate;
mod http_cache;
mod identity;
mod jobs;
mod json;
mod l1;
mod limit_algorithms;
mod limit_bound;
mod limit_exact;
mod limit_faults;
mod limit_flow;
mod limit_lease;
mod limit_peer;
mod limit_shards;
mod names;
mod packed;
mod patience;
mod penalty;
mod policies;
mod policy;
mod purge;
mod purge_origin_tags;
mod purge_prefix;
mod purge_soft;
mod recent;
mod redis_breaker;
mod redis_codec;
mod redis_fake;
mod redis_known;
mod redis_outage;
mod redis_rest;
mod refused;
mod sim;
mod user_scope;
mod views;
mod warm;
mod world;
mod write;
mod write_fill;
